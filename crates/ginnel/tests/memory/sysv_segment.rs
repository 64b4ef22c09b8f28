//! System V segments: by key and id, deferred removal, who has them attached; C, `ipcs` and `ipcrm` agree.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ginnel::memory::sysv_segment::{Change, limits};
use ginnel::memory::{HugePages, SysvSegment};
use ginnel::sysv::Key;
use ginnel_testkit::{
    Exit, Objects, c_program, fork, isolated, run, run_ok, spawn, temp_dir, unprivileged, wait_until,
};

use crate::homes::in_both_homes;
use crate::{PAGE, errno, hint, start};

const KEY: i32 = 0x2a;

#[test]
fn two_processes_share_a_segment_by_key() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let segment = SysvSegment::create_in(home, KEY, 4096).unwrap();
        let mapping = segment.attach().unwrap();
        fork(|| {
            let theirs = SysvSegment::open_in(home, KEY).unwrap().attach().unwrap();
            theirs.write_bytes(100, b"from the child").unwrap();
            theirs.atomic_u32(0).unwrap().store(1, Ordering::Release);
        })
        .assert_ok();
        assert_eq!(mapping.load_u32(0).unwrap(), 1);
        assert_eq!(mapping.read_vec(100..114).unwrap(), b"from the child");
        segment.remove().unwrap();
        drop(mapping);
        before.assert_same();
    });
}

#[test]
fn a_file_and_a_project_are_a_key() {
    in_both_homes(|home| {
        let directory = temp_dir();
        let path = directory.path().join("project");
        std::fs::write(&path, "").unwrap();
        let key = Key::from_path(&path, 7).unwrap();
        let segment = SysvSegment::create_in(home, key, 64).unwrap();
        let same: Key = format!("{}#7", path.display()).parse().unwrap();
        assert_eq!(SysvSegment::open_in(home, same).unwrap().id(), segment.id());
    });
}

#[test]
fn c_writes_and_rust_reads() {
    isolated(|| {
        run_ok(Command::new(c_program!("tests/memory/sysv_segment.c")).args(["write", "0x2a", "from C"]));
        let mapping = SysvSegment::open(KEY).unwrap().attach_read_only().unwrap();
        assert_eq!(mapping.load_u32(0).unwrap(), 6);
        assert_eq!(mapping.read_vec(64..70).unwrap(), b"from C");
    });
}

#[test]
fn rust_writes_and_c_reads() {
    isolated(|| {
        let mapping = SysvSegment::create(KEY, 4096).unwrap().attach().unwrap();
        let reader = spawn(
            Command::new(c_program!("tests/memory/sysv_segment.c"))
                .args(["read", "42"])
                .stdout(std::process::Stdio::piped()),
        );
        mapping.write_bytes(64, b"from Rust").unwrap();
        mapping.atomic_u32(0).unwrap().store(9, Ordering::Release);
        assert_eq!(reader.wait_with_output().stdout, b"from Rust\n");
    });
}

#[test]
fn opening_says_what_is_wrong() {
    isolated(|| {
        assert_eq!(errno(SysvSegment::open(KEY)), "ENOENT");
        assert_eq!(hint(SysvSegment::create(KEY, 0)), "a new segment has at least one byte");
        let segment = SysvSegment::options().create_new(true).mode(0o640).size(5000).open(KEY).unwrap();
        assert_eq!(segment.status().unwrap().permissions.mode, 0o640);
        let again = SysvSegment::options().create_new(true).size(5000).open(KEY);
        assert_eq!(errno(again), "EEXIST");
        assert_eq!(SysvSegment::create(KEY, 1).unwrap().id(), segment.id());
        let larger = SysvSegment::create(KEY, 5001);
        assert!(hint(larger).contains("has 5000 bytes, fewer than 5001"));
        std::fs::write("/proc/sys/kernel/shmmax", "10000").unwrap();
        assert!(hint(SysvSegment::private(10_001)).contains("kernel.shmmax is 10000"));
        std::fs::write("/proc/sys/kernel/shmall", "5").unwrap();
        let error = SysvSegment::private(10_000).and_then(|_held| SysvSegment::private(10_000)).unwrap_err();
        assert_eq!(error.errno_name(), "ENOSPC");
        assert!(error.hint().unwrap().contains("kernel.shmall is 5"), "{error}");
        std::fs::write("/proc/sys/kernel/shmmni", "1").unwrap();
        let error = SysvSegment::private(1).unwrap_err();
        assert!(error.hint().unwrap().contains("kernel.shmmni is 1"), "{error}");
        assert_eq!(error.object(), "sysv-shm:0x0");
    });
}

#[test]
fn limits_are_those_of_the_kernel() {
    isolated(|| {
        std::fs::write("/proc/sys/kernel/shmmni", "77").unwrap();
        let segment = SysvSegment::private(3 * PAGE - 1).unwrap();
        segment.attach().unwrap().write_at(PAGE, 1_u8).unwrap();
        let limits = limits().unwrap();
        assert_eq!(
            (limits.segments_max, limits.segments, limits.pages, limits.pages_resident),
            (77, 1, 3, 1)
        );
        let shmmax = std::fs::read_to_string("/proc/sys/kernel/shmmax").unwrap();
        assert_eq!(limits.size_bytes_max.to_string(), shmmax.trim());
        let shmall = std::fs::read_to_string("/proc/sys/kernel/shmall").unwrap();
        assert_eq!(limits.pages_max.to_string(), shmall.trim());
    });
}

#[test]
fn removal_waits_for_the_last_detach() {
    in_both_homes(|home| {
        let segment = SysvSegment::create_in(home, KEY, 100).unwrap();
        let mapping = segment.attach().unwrap();
        segment.remove().unwrap();
        let status = segment.status().unwrap();
        assert!(status.is_removed && status.permissions.key.is_private());
        assert_eq!(errno(SysvSegment::open_in(home, KEY)), "ENOENT");
        mapping.write_at(0, 5_u8).unwrap();

        // Linux lets the id be attached until the last one has detached.
        let second = SysvSegment::from_id_in(home, segment.id()).attach_read_only().unwrap();
        assert_eq!(second.read_at::<u8>(0).unwrap(), 5);
        assert_eq!(segment.status().unwrap().attached, 2);
        drop(mapping);
        assert_eq!(second.read_at::<u8>(0).unwrap(), 5);
        drop(second);
        for error in
            [segment.attach().unwrap_err(), segment.status().unwrap_err(), segment.remove().unwrap_err()]
        {
            assert!(error.is_removed(), "{error}");
            assert_eq!(error.object(), "sysv-shm:0x2a");
        }
        // The key is free for another, which the old handle does not mean.
        let _new = SysvSegment::create_in(home, KEY, 100).unwrap();
        assert!(segment.attach().unwrap_err().is_removed());
    });
}

#[test]
fn the_end_of_a_killed_process_detaches() {
    isolated(|| {
        let segment = SysvSegment::private(100).unwrap();
        let started = start(
            Command::new(c_program!("tests/memory/sysv_segment.c")).args(["hold", &segment.id().to_string()]),
        );
        let child = started.child;
        let status = segment.status().unwrap();
        assert_eq!((status.attached, status.last_pid), (1, child.pid()));
        assert_eq!(status.creator_pid, std::process::id() as i32);
        child.kill();
        child.wait();
        assert_eq!(segment.status().unwrap().attached, 0);
        assert!(segment.status().unwrap().last_detach.is_some());
    });
}

#[test]
fn a_private_segment_goes_with_its_handle_and_not_with_a_childs() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let segment = SysvSegment::private_in(home, 100).unwrap();
        fork(|| {
            // SAFETY: the child's own copy, which it does not use afterwards (it ends by _exit).
            drop(unsafe { std::ptr::read(&segment) });
        })
        .assert_ok();
        let mapping = segment.attach().unwrap();
        let id = segment.id();
        drop(segment);
        assert!(
            SysvSegment::from_id_in(home, id).status().unwrap().is_removed,
            "deferred, while it is attached"
        );
        drop(mapping);
        before.assert_same();
        let mut kept = SysvSegment::private_in(home, 100).unwrap();
        kept.keep();
        let id = kept.id();
        drop(kept);
        SysvSegment::from_id_in(home, id).remove().unwrap();
        before.assert_same();
    });
}

#[test]
fn reading_only_means_it() {
    isolated(|| {
        let segment = SysvSegment::private(100).unwrap();
        let mapping = segment.attach_read_only().unwrap();
        // SAFETY: what is tested is that this does not get past the kernel.
        let child = fork(|| unsafe { mapping.as_ptr().write_volatile(1) });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGSEGV));
        let program = c_program!("tests/memory/sysv_segment.c");
        let c = spawn(Command::new(program).args(["write-read-only", &segment.id().to_string()]));
        assert_eq!(c.wait(), Exit::Signal(libc::SIGSEGV));
        assert_eq!(mapping.read_at::<u8>(0).unwrap(), 0);
    });
}

#[test]
fn attaching_at_an_address() {
    in_both_homes(|home| {
        const PLACE: usize = 0x5000_0000_0000;
        let segment = SysvSegment::private_in(home, 100).unwrap();
        let mapping = segment.attach_options().at(PLACE).attach().unwrap();
        assert_eq!(mapping.as_ptr().addr(), PLACE);
        let taken = segment.attach_options().at(PLACE).attach_read_only();
        assert!(hint(taken).contains("something is mapped there"));
        assert!(
            hint(segment.attach_options().at(PLACE + 8192 + 5).attach()).contains("not a multiple of 4096")
        );
        let rounded = segment.attach_options().at(PLACE + 8192 + 5).round(true).attach_read_only().unwrap();
        assert_eq!(rounded.as_ptr().addr(), PLACE + 8192);
        mapping.write_at(7, 7_u8).unwrap();
        assert_eq!(rounded.read_at::<u8>(7).unwrap(), 7);
        let executable = segment.attach_options().executable(true).attach().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = format!("{:x}-", executable.as_ptr().addr());
        assert!(maps.lines().any(|l| l.starts_with(&line) && l.contains("rwxs")), "{maps}");
    });
}

#[test]
fn the_status_has_what_ipcs_has() {
    isolated(|| {
        let earlier = SystemTime::now() - Duration::from_secs(2);
        let segment = SysvSegment::options().create(true).mode(0o600).size(12345).open(KEY).unwrap();
        let fresh = segment.status().unwrap();
        assert_eq!((fresh.last_attach, fresh.last_detach, fresh.last_pid), (None, None, 0));
        assert!(fresh.last_change.unwrap() > earlier);
        let _attached = [segment.attach().unwrap(), segment.attach().unwrap()];
        segment.set(Change { mode: Some(0o644), uid: Some(65534), gid: Some(65533) }).unwrap();
        let status = segment.status().unwrap();
        assert_eq!((status.attached, status.size_bytes), (2, 12345));
        assert!(status.last_attach.unwrap() > earlier);
        let permissions = &status.permissions;
        assert_eq!((permissions.uid, permissions.gid, permissions.mode), (65534, 65533, 0o644));
        assert_eq!((permissions.creator_uid, permissions.key), (0, Key::new(KEY)));
        let table = run_ok(Command::new("ipcs").arg("-m"));
        let line = table.lines().find(|line| line.starts_with("0x0000002a")).unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1], segment.id().to_string());
        assert_eq!(fields[3..6], ["644", "12345", "2"]);
        assert_eq!(SysvSegment::list().unwrap(), [segment.status().unwrap()]);

        run_ok(Command::new("ipcrm").args(["-M", "0x2a"]));
        assert!(segment.status().unwrap().is_removed);
    });
}

#[test]
fn a_list_has_every_segment_and_no_other() {
    in_both_homes(|home| {
        assert_eq!(SysvSegment::list_in(home).unwrap(), []);
        let mut segments: Vec<_> = (1..=5).map(|size| SysvSegment::private_in(home, size).unwrap()).collect();
        segments.remove(2);
        let mut sizes: Vec<_> =
            SysvSegment::list_in(home).unwrap().iter().map(|status| status.size_bytes).collect();
        // The kernel's table has an order, random ids have none that means anything.
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2, 4, 5]);
        unprivileged(|| {
            // The kernel shows also what it may not read.
            let shown = if home.is_kernel() { 4 } else { 0 };
            assert_eq!(SysvSegment::list_in(home).unwrap().len(), shown);
        })
        .assert_ok();
    });
}

#[test]
fn a_stranger_may_do_what_the_mode_says() {
    in_both_homes(|home| {
        let mine =
            SysvSegment::options().namespace(home).create(true).mode(0o604).size(64).open(KEY).unwrap();
        let closed = SysvSegment::private_in(home, 64).unwrap();
        unprivileged(|| {
            let theirs = SysvSegment::open_in(home, KEY).unwrap();
            theirs.attach_read_only().unwrap().read_at::<u8>(0).unwrap();
            assert_eq!(errno(theirs.attach()), "EACCES");
            assert_eq!(errno(theirs.remove()), "EPERM");
            assert_eq!(errno(theirs.set(Change::default())), "EPERM");
            assert_eq!(errno(theirs.lock()), "EPERM");
            assert_eq!(errno(SysvSegment::from_id_in(home, closed.id()).status()), "EACCES");
            assert_eq!(errno(SysvSegment::from_id_in(home, closed.id()).attach_read_only()), "EACCES");
            assert_eq!(
                errno(SysvSegment::options().namespace(home).create(true).mode(0o666).size(64).open(KEY)),
                "EACCES"
            );
        })
        .assert_ok();
        mine.status().unwrap();
    });
}

#[test]
fn locking_keeps_it_in_memory() {
    in_both_homes(|home| {
        let segment = SysvSegment::private_in(home, 64).unwrap();
        segment.lock().unwrap();
        assert!(segment.status().unwrap().is_locked);
        segment.unlock().unwrap();
        assert!(!segment.status().unwrap().is_locked);
    });
}

#[test]
fn huge_pages_and_no_reserve() {
    in_both_homes(|home| {
        let segment = SysvSegment::options()
            .namespace(home)
            .no_reserve(true)
            .create(true)
            .size(1 << 30)
            .open(KEY)
            .unwrap();
        segment.attach().unwrap().write_at((1 << 30) - 8, 1_u64).unwrap();
        if std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap().trim() == "0" {
            let huge = SysvSegment::options()
                .namespace(home)
                .create(true)
                .size(64)
                .huge_pages(HugePages::DEFAULT)
                .open(Key::PRIVATE);
            let why = if home.is_kernel() { "vm.nr_hugepages" } else { "no huge pages" };
            assert!(hint(huge).contains(why));
        }
    });
}

#[test]
fn an_exec_detaches_and_leaves_no_descriptor() {
    in_both_homes(|home| {
        let segment = SysvSegment::private_in(home, 64).unwrap();
        let _mapping = segment.attach().unwrap();
        let output = run(Command::new("sh").args(["-c", "ls -l /proc/self/fd; grep SYSV /proc/self/maps"]));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("SYSV"));
        wait_until("one attach", || segment.status().unwrap().attached == 1);
    });
}

#[test]
fn the_maker_of_a_private_segment_may_use_it() {
    in_both_homes(|home| {
        unprivileged(|| {
            let segment = SysvSegment::private_in(home, 64).unwrap();
            segment.attach().unwrap().write_at(0, 1_u8).unwrap();
            assert_eq!(segment.status().unwrap().permissions.mode, 0o600);
            let wider =
                SysvSegment::options().namespace(home).mode(0o640).size(64).open(Key::PRIVATE).unwrap();
            assert_eq!(wider.status().unwrap().permissions.mode, 0o640);
            wider.remove().unwrap();
        })
        .assert_ok();
    });
}

#[test]
fn nothing_is_attached_at_null() {
    in_both_homes(|home| {
        let segment = SysvSegment::private_in(home, 100).unwrap();
        let result = segment.attach_options().at(5).round(true).attach();
        assert_eq!(errno(result), "EINVAL");
        assert_eq!(segment.status().unwrap().attached, 0);
    });
}

#[test]
fn an_owner_may_change_what_its_mode_does_not_let_him_read() {
    in_both_homes(|home| {
        unprivileged(|| {
            let segment = SysvSegment::private_in(home, 64).unwrap();
            segment.set(Change { mode: Some(0o200), ..Change::default() }).unwrap();
            assert_eq!(errno(segment.status()), "EACCES");
            segment.set(Change { mode: Some(0o640), ..Change::default() }).unwrap();
            let permissions = segment.status().unwrap().permissions;
            assert_eq!((permissions.mode, permissions.uid), (0o640, permissions.creator_uid));
        })
        .assert_ok();
    });
}
