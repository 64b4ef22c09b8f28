//! Access to mapped memory: bounds, alignment, tearing, arrays, offsets; advice, pinning, read-only.

use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use ginnel::memory::{Advice, Anonymous, FileMapping, HugePages, MemFd, Offset, Seals, SysvSegment};
use ginnel_testkit::{Exit, fork, isolated, temp_dir};

use crate::{PAGE, errno, hint};

#[test]
fn every_access_is_checked_against_the_bounds() {
    let mapping = Anonymous::map(100).unwrap();
    assert_eq!((mapping.len(), mapping.is_empty()), (100, false));
    mapping.write_at(92, 1_u64).unwrap();
    mapping.write_bytes(100, &[]).unwrap();
    let outside = [
        errno(mapping.read_at::<u64>(93)),
        errno(mapping.read_at::<u8>(100)),
        errno(mapping.read_at::<u64>(usize::MAX)),
        errno(mapping.write_at(usize::MAX - 3, 0_u64)),
        errno(mapping.read_bytes(1, &mut [0; 100])),
        errno(mapping.write_bytes(101, &[])),
        errno(mapping.read_vec(..101)),
        errno(mapping.read_vec(..=100)),
        #[allow(clippy::reversed_empty_ranges)]
        errno(mapping.read_vec(5..4)),
        errno(mapping.read_vec(..=usize::MAX)),
        errno(mapping.fill(99..101, 0)),
        errno(mapping.copy_within(0..50, 51)),
        errno(mapping.copy_within(90..101, 0)),
        errno(mapping.atomic_u32(100)),
        errno(mapping.atomic_u64(96)),
        errno(mapping.load_u8(100)),
        errno(mapping.array::<u32>(0, 26)),
        errno(mapping.array::<u64>(0, usize::MAX / 4)),
        errno(mapping.flush(..101)),
        errno(mapping.advise(101.., Advice::Normal)),
        errno(mapping.pin(..101)),
    ];
    assert!(outside.iter().all(|name| *name == "EINVAL"), "{outside:?}");
    assert_eq!(
        hint(mapping.read_at::<u64>(93)),
        "8 bytes at offset 93 is not within the mapping, which is 100 bytes long"
    );
}

#[test]
fn atomics_must_be_aligned_and_values_need_not() {
    let mapping = Anonymous::map(64).unwrap();
    mapping.write_at(3, 0x0102_0304_0506_0708_u64).unwrap();
    assert_eq!(mapping.read_at::<u64>(3).unwrap(), 0x0102_0304_0506_0708);
    assert_eq!(mapping.load_u8(3).unwrap(), 8);
    assert_eq!(errno(mapping.atomic_u16(3)), "EINVAL");
    assert_eq!(errno(mapping.atomic_u32(2)), "EINVAL");
    assert_eq!(errno(mapping.load_u64(4)), "EINVAL");
    assert!(hint(mapping.atomic_u64(4)).contains("a multiple of 8"));
    mapping.atomic_u16(4).unwrap().store(0xffff, Ordering::Release);
    mapping.atomic_u8(6).unwrap().store(1, Ordering::Release);
    assert_eq!(mapping.load_u32(4).unwrap(), 0x0401_ffff, "bytes 4 and 5, 6, and one of the u64's");
}

#[test]
fn values_with_padding_free_layouts_go_in_and_out() {
    #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    #[repr(C)]
    struct Point {
        x: f64,
        y: f32,
        tag: [u8; 4],
    }
    let mapping = Anonymous::map(PAGE).unwrap();
    let point = Point { x: 1.5, y: -2.0, tag: *b"abcd" };
    mapping.write_at(17, point).unwrap();
    assert_eq!(mapping.read_at::<Point>(17).unwrap(), point);
    mapping.write_at(0, ()).unwrap();

    let array = mapping.array::<Point>(64, 3).unwrap();
    array.write(1, &[point, point]).unwrap();
    array.set(0, Point { x: 9.0, ..point }).unwrap();
    assert_eq!(array.iter().map(|point| point.unwrap().x).collect::<Vec<_>>(), [9.0, 1.5, 1.5]);
    assert_eq!(array.read_vec(1..).unwrap(), [point, point]);
    assert_eq!(errno(array.get(3)), "EINVAL");
    assert_eq!(errno(array.set(3, point)), "EINVAL");
    assert_eq!(errno(array.read_vec(2..5)), "EINVAL");
    assert_eq!(errno(array.write(2, &[point, point])), "EINVAL");
    assert_eq!(mapping.read_vec(64 + 48..64 + 64).unwrap(), [0; 16], "nothing beyond the array is touched");
}

#[test]
fn copies_of_every_size_and_place_keep_to_their_range() {
    let mapping = Anonymous::map(300_000).unwrap();
    for (offset, len) in [(0, 1), (1, 7), (3, 64), (5, 1023), (8, 1024), (4095, 4098), (1, 299_998)] {
        mapping.fill(.., 0xaa).unwrap();
        let data: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
        mapping.write_bytes(offset, &data).unwrap();
        assert!(mapping.read_vec(offset..offset + len).unwrap() == data, "{offset} {len}");
        assert_eq!(mapping.read_vec(..offset).unwrap(), vec![0xaa; offset]);
        assert!(mapping.read_vec(offset + len..).unwrap().iter().all(|byte| *byte == 0xaa), "{offset} {len}");
    }
}

#[test]
fn copy_within_is_right_for_every_overlap() {
    let mapping = Anonymous::map(40_000).unwrap();
    let data: Vec<u8> = (0..40_000).map(|i| (i % 251) as u8).collect();
    for (from, len, to) in
        [(0, 20_000, 1), (1, 20_000, 0), (0, 20_000, 4096), (9000, 20_000, 100), (5, 10, 5), (0, 0, 40_000)]
    {
        mapping.write_bytes(0, &data).unwrap();
        let mut expected = data.clone();
        expected.copy_within(from..from + len, to);
        mapping.copy_within(from..from + len, to).unwrap();
        assert!(mapping.read_vec(..).unwrap() == expected, "{from} {len} {to}");
    }
}

#[test]
fn aligned_words_are_never_torn_between_processes() {
    isolated(|| {
        let mapping = Anonymous::map(PAGE).unwrap();
        let writer = fork(|| {
            loop {
                mapping.write_at(8, 0_u64).unwrap();
                mapping.write_at(8, u64::MAX).unwrap();
            }
        });
        let mut seen = [false; 2];
        while seen != [true; 2] {
            let value = mapping.read_at::<u64>(8).unwrap();
            assert!(value == 0 || value == u64::MAX, "{value:#x}");
            seen[usize::from(value == 0)] = true;
        }
        assert!(writer.is_alive());
    });
}

#[test]
fn null_offsets_and_wild_ones_are_errors() {
    let mapping = Anonymous::map(64).unwrap();
    assert_eq!(errno(mapping.read(Offset::<u64>::NULL)), "EINVAL");
    assert_eq!(hint(mapping.write(Offset::NULL, 1_u8)), "the offset is null");
    mapping.write_at(8, u64::MAX).unwrap();
    let wild: Offset<u64> = mapping.read_at(8).unwrap();
    assert_eq!(errno(mapping.read(wild)), "EINVAL");
    assert!(mapping.read_at::<Offset<u8>>(16).unwrap().is_null());
    assert_eq!(format!("{:?} {:?}", Offset::<u8>::new(7), Offset::<u8>::default()), "Offset(7) Offset(null)");
}

#[test]
fn a_mapping_made_read_only_kills_who_writes_through_a_pointer() {
    isolated(|| {
        let mapping = Anonymous::map(PAGE).unwrap();
        mapping.write_at(0, 5_u32).unwrap();
        let mapping = mapping.into_read_only().unwrap();
        assert_eq!(mapping.load_u32(0).unwrap(), 5);
        assert_eq!(mapping.read_at::<u32>(0).unwrap(), 5);
        // SAFETY: what is tested is that this does not get past the kernel.
        let child = fork(|| unsafe { mapping.as_ptr().write_volatile(1) });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGSEGV));
        assert_eq!(mapping.load_u32(0).unwrap(), 5);
    });
}

#[test]
fn dropping_unmaps() {
    isolated(|| {
        let count = || {
            std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .filter(|l| l.contains("memfd:gone"))
                .count()
        };
        let memory = MemFd::create("gone", 10 * PAGE as u64).unwrap();
        let (one, other) = (memory.map().unwrap(), memory.map().unwrap().into_read_only().unwrap());
        assert_eq!(count(), 2);
        drop(one);
        assert_eq!(count(), 1);
        drop(other);
        assert_eq!(count(), 0);
    });
}

#[test]
fn advice_pinning_and_flushing_change_nothing() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![3; 3 * PAGE]).unwrap();
        let mapping = FileMapping::options().range(100, 2 * PAGE).open(&path).unwrap();
        let all = [
            Advice::Normal,
            Advice::Sequential,
            Advice::Random,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::Cold,
            Advice::PageOut,
            Advice::PopulateRead,
            Advice::PopulateWrite,
            Advice::DontDump,
            Advice::DoDump,
        ];
        for advice in all {
            mapping.advise(.., advice).unwrap_or_else(|error| panic!("{advice:?}: {error}"));
            mapping.advise(5000..5001, advice).unwrap();
        }
        for advice in [Advice::HugePage, Advice::NoHugePage] {
            let _ = mapping.advise(.., advice); // EINVAL in a kernel without transparent huge pages
        }
        mapping.flush(..).unwrap();
        mapping.flush_async(1..5000).unwrap();
        mapping.pin(..PAGE).unwrap();
        mapping.unpin(..).unwrap();
        assert_eq!(mapping.read_vec(..).unwrap(), vec![3; 2 * PAGE]);
    });
}

#[test]
fn discard_gives_whole_pages_back_for_everybody() {
    isolated(|| {
        let memory = MemFd::create("holes", 4 * PAGE as u64).unwrap();
        let (ours, theirs) = (memory.map().unwrap(), memory.map().unwrap());
        ours.fill(.., 1).unwrap();
        ours.discard(PAGE..3 * PAGE).unwrap();
        assert_eq!(theirs.read_vec(PAGE..3 * PAGE).unwrap(), vec![0; 2 * PAGE]);
        assert_eq!(theirs.read_vec(..PAGE).unwrap(), vec![1; PAGE]);
        assert_eq!(theirs.read_vec(3 * PAGE..).unwrap(), vec![1; PAGE]);
        assert!(hint(ours.discard(1..PAGE)).contains("whole pages"));
        assert!(hint(ours.discard(0..PAGE + 1)).contains("whole pages"));
        assert!(hint(ours.revert(..)).contains("shared"));
    });
}

/// Does nothing on a host without free huge pages: `sysctl -w vm.nr_hugepages=8`.
#[test]
fn huge_pages_where_the_host_has_some() {
    isolated(|| {
        let meminfo = || std::fs::read_to_string("/proc/meminfo").unwrap();
        let free = || -> u64 {
            let line =
                meminfo().lines().find_map(|line| line.strip_prefix("HugePages_Free:").map(str::to_owned));
            line.unwrap().trim().parse().unwrap()
        };
        let before = free();
        if before < 3
            || HugePages::of_bytes(2 << 20).is_none()
            || !meminfo().contains("Hugepagesize:       2048 kB")
        {
            return;
        }
        let anonymous = Anonymous::options().huge_pages(HugePages::DEFAULT).map(100).unwrap();
        anonymous.write_at(92, 1_u64).unwrap();
        let segment =
            SysvSegment::options().create(true).size(100).huge_pages(HugePages::DEFAULT).open(7).unwrap();
        let attached = segment.attach().unwrap();
        attached.write_at(92, 1_u64).unwrap();
        let memory = MemFd::options().huge_pages(HugePages::DEFAULT).size(2 << 20).create("huge").unwrap();
        let mapping = memory.map().unwrap();
        mapping.write_at(5000, 1_u64).unwrap();
        assert!(free() <= before - 3);
        memory.resize(0).unwrap();
        assert_eq!(errno(mapping.read_at::<u64>(5000)), "EFAULT");
        segment.remove().unwrap();
        drop((anonymous, attached, mapping, memory));
        assert_eq!(free(), before);
    });
}

#[test]
fn huge_pages_that_are_not_there_say_how_to_get_them() {
    let free = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
    if free.trim() == "0" {
        assert!(
            hint(Anonymous::options().huge_pages(HugePages::DEFAULT).map(100)).contains("vm.nr_hugepages")
        );
        let memory = MemFd::options().huge_pages(HugePages::DEFAULT).size(2 << 20).create("huge");
        assert!(hint(memory).contains("vm.nr_hugepages"));
    }
    let absurd = HugePages::of_bytes(1 << 40).unwrap();
    assert!(hint(Anonymous::options().huge_pages(absurd).map(100)).contains("hugepages"));
    assert_eq!(errno(Anonymous::map(0)), "EINVAL");
    assert_eq!(errno(Anonymous::map(usize::MAX)), "ENOMEM");
    assert_eq!(errno(Anonymous::map(isize::MAX as usize)), "ENOMEM");
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused_everywhere() {
    let mapping = Anonymous::map(100).unwrap();
    let array = mapping.array::<u32>(0, 10).unwrap();
    let (start, end) = (5, 2);
    assert_eq!(errno(mapping.read_vec(start..end)), "EINVAL");
    assert_eq!(errno(array.read_vec(start..end)), "EINVAL");
    assert_eq!(errno(array.read_vec(..=usize::MAX)), "EINVAL");
    assert!(array.read_vec(10..).unwrap().is_empty());
    assert_eq!(array.read_vec(8..=9).unwrap(), [0, 0]);
}

#[test]
fn an_empty_range_is_no_page() {
    isolated(|| {
        let mapping = Anonymous::map(PAGE).unwrap();
        mapping.pin(5..5).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("VmLck:\t       0 kB"), "{status}");
    });
}

#[test]
fn a_seal_counts_a_mapping_that_gave_up_writing() {
    let memory = MemFd::create("sealed", PAGE as u64).unwrap();
    let mapping = memory.map().unwrap().into_read_only().unwrap();
    assert!(hint(memory.seal(Seals::WRITE)).contains("`into_read_only`"));
    drop(mapping);
    let mapping = memory.map().unwrap();
    memory.seal(Seals::FUTURE_WRITE).unwrap();
    mapping.write_at(0, 1_u8).unwrap();
    assert_eq!(errno(mapping.discard(..)), "EPERM");
    drop(mapping);
    memory.seal(Seals::WRITE).unwrap();
}
