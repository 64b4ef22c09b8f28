//! Memory in a segment: what is taken is nobody else's, what is freed can be taken again, killed at any instruction.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Stepped, directory};
use ginnel_engine::heap::{Chain, HEAP_BYTES, Heap, UNIT_BYTES_MAX, Unit};
use ginnel_engine::lock::{Guard, Lock};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::wait::{Object, Patience, Waiters, Words};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{isolated, isolated_for};
use rustix::fs::Mode;

const WAITERS: usize = HEADER_BYTES + 0x100;
const GIVEN: u64 = 5;

/// An object that is all heap.
struct Box<'a>(&'a Heap<'a>);

impl Object for Box<'_> {
    fn attempt(&self, _: &mut Guard<'_>, _: &mut Words) -> Result<bool> {
        Ok(false)
    }

    fn take_back(&self, _: &mut Guard<'_>, _: &Words) -> Result<()> {
        Ok(())
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        self.0.forfeit(guard, words)
    }
}

fn segment() -> Segment {
    let _ = std::fs::remove_file("/dev/shm/heap");
    Segment::create(directory(), c"heap", Mode::RUSR | Mode::WUSR, 1 << 30, |_| Ok(())).unwrap()
}

fn heap(segment: &Segment) -> Heap<'_> {
    Heap::of(segment, HEADER_BYTES, 2)
}

fn with<T>(segment: &Segment, heap: &Heap<'_>, work: impl Fn(&mut Guard<'_>) -> Result<T>) -> Result<T> {
    loop {
        let mut guard = Lock::of(segment).acquire(None)?;
        match work(&mut guard) {
            Err(Errno::NOBUFS) => {
                drop(guard);
                heap.make()?;
            }
            Ok(done) => {
                guard.commit();
                return Ok(done);
            }
            Err(errno) => return Err(errno),
        }
    }
}

fn resident(segment: &Segment) -> i64 {
    rustix::fs::fstat(segment.file().unwrap()).unwrap().st_blocks * 512
}

#[test]
fn units_are_as_large_as_asked_for_and_nobody_elses() {
    isolated_for(Duration::from_secs(120), || {
        const { assert!(HEAP_BYTES <= 0x100) };
        let segment = segment();
        let heap = heap(&segment);
        assert_eq!(
            with(&segment, &heap, |guard| heap.take_unit(guard, UNIT_BYTES_MAX + 1)),
            Err(Errno::INVAL)
        );
        let mut taken: HashMap<u32, (usize, u8)> = HashMap::new();
        let mut random = 7_u64;
        for step in 0..30_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let fills = (step / 3000) % 2 == 0;
            if (random >> 40) % 10 < if fills { 7 } else { 3 } {
                let bytes = 1 + (random >> 33) as usize % UNIT_BYTES_MAX;
                let unit = with(&segment, &heap, |guard| heap.take_unit(guard, bytes)).unwrap();
                let mark = step as u8;
                segment.copy_in(unit.offset(), &vec![mark; bytes]).unwrap();
                assert_eq!(unit.offset() % 64, 0);
                assert!(taken.insert(unit.raw(), (bytes, mark)).is_none(), "taken twice");
            } else if let Some((raw, (bytes, mark))) = taken.iter().next().map(|(raw, what)| (*raw, *what)) {
                let mut found = vec![0; bytes];
                let unit = Unit::from_raw(raw);
                segment.copy_out(unit.offset(), &mut found).unwrap();
                assert!(found.iter().all(|byte| *byte == mark), "somebody wrote into it");
                with(&segment, &heap, |guard| heap.free_unit(guard, unit, bytes)).unwrap();
                taken.remove(&raw);
            }
        }
        println!("{} units at the end", taken.len());
    });
}

#[test]
fn chains_of_pages_are_nobody_elses_and_come_back() {
    isolated(|| {
        let segment = segment();
        let heap = heap(&segment);
        let pages_of = |chain: Chain| {
            let mut pages = vec![chain.first];
            while pages.len() < chain.count as usize {
                pages.push(heap.next_page(*pages.last().unwrap()).unwrap());
            }
            assert_eq!(pages.last(), Some(&chain.last));
            pages
        };
        let chains: Vec<_> = [1, 300, 7, 1000, 2]
            .map(|count| with(&segment, &heap, |guard| heap.take_pages(guard, count)).unwrap())
            .into();
        let mut pages: Vec<_> = chains.iter().flat_map(|chain| pages_of(*chain)).collect();
        assert!(pages.iter().all(|page| heap.page_offset(*page).is_ok()));
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 1310);
        let len = segment.len();
        for chain in chains {
            with(&segment, &heap, |guard| heap.free_pages(guard, chain)).unwrap();
        }
        let again = with(&segment, &heap, |guard| heap.take_pages(guard, 1310)).unwrap();
        assert_eq!(segment.len(), len, "it has grown though there was enough");
        let mut found = pages_of(again);
        found.sort_unstable();
        assert_eq!(found, pages);
    });
}

#[test]
fn what_is_not_committed_is_not_taken() {
    isolated(|| {
        let segment = segment();
        let heap = heap(&segment);
        let first = with(&segment, &heap, |guard| heap.take_unit(guard, 100)).unwrap();
        let undone = {
            let mut guard = Lock::of(&segment).acquire(None).unwrap();
            heap.take_unit(&mut guard, 100).unwrap()
        };
        let second = with(&segment, &heap, |guard| heap.take_unit(guard, 100)).unwrap();
        assert_eq!(undone, second);
        assert_ne!(first, second);
        let mut guard = Lock::of(&segment).acquire(None).unwrap();
        heap.free_unit(&mut guard, first, 100).unwrap();
        heap.free_unit(&mut guard, second, 100).unwrap();
        assert_eq!(heap.free_unit(&mut guard, second, 100), Err(Errno::UCLEAN), "freed twice");
    });
}

#[test]
fn killed_at_every_instruction_of_giving_back_and_making_again_no_page_is_lost() {
    isolated_for(crate::common::limit(), || {
        let stride = common::stride_or(61);
        for making in [false, true] {
            let mut kills = 0;
            for steps in (0..).step_by(stride) {
                let segment = segment();
                let heap = heap(&segment);
                let object = Box(&heap);
                let waiters = Waiters::of(&segment, WAITERS, 8, &object).unwrap();
                let idle = || {
                    let guard = waiters.enter(None).unwrap();
                    let (free, holes) = heap.idle_pages(&guard).unwrap();
                    waiters.leave(guard);
                    free + holes
                };
                let chain = with(&segment, &heap, |guard| heap.take_pages(guard, 40)).unwrap();
                with(&segment, &heap, |guard| heap.free_pages(guard, chain)).unwrap();
                let before = idle();
                if making {
                    assert!(heap.give_back(&waiters, GIVEN, 0, None).unwrap());
                    let mut guard = waiters.enter(None).unwrap();
                    assert_eq!(heap.take_pages(&mut guard, 30), Err(Errno::NOBUFS));
                    waiters.leave(guard);
                }
                let victim = Stepped::start(|| {
                    if making {
                        assert!(heap.make_from_holes(&waiters, GIVEN, Patience::Endless).unwrap());
                    } else {
                        assert!(heap.give_back(&waiters, GIVEN, 3, None).unwrap());
                    }
                });
                let in_work = (0..steps).all(|_| victim.step());
                victim.kill();
                assert_eq!(idle(), before, "killed after {steps} instructions, making: {making}");
                heap.give_back(&waiters, GIVEN, 0, None).unwrap();
                // The header, the object's page, and the heap's table.
                assert!(resident(&segment) <= 3 * 4096, "{} bytes", resident(&segment));
                // All of it can be used again, without the file growing.
                let len = segment.len();
                loop {
                    let mut guard = waiters.enter(None).unwrap();
                    let taken = heap.take_pages(&mut guard, before);
                    waiters.leave(guard);
                    match taken {
                        Err(Errno::NOBUFS) => {
                            assert!(heap.make_from_holes(&waiters, GIVEN, Patience::Endless).unwrap())
                        }
                        taken => break assert_eq!(taken.unwrap().count, before),
                    }
                }
                assert_eq!(segment.len(), len);
                kills += 1;
                if !in_work {
                    break;
                }
            }
            println!("making: {making}: {kills} kills");
            common::crash(&format!("heap: pages given back (made again: {making})"));
            assert!(kills > 10);
        }
    });
}

#[test]
fn a_full_file_system_is_an_error_and_nothing_is_lost() {
    isolated(|| {
        let room = std::path::Path::new("/dev/shm/small");
        std::fs::create_dir(room).unwrap();
        rustix::mount::mount("none", room, "tmpfs", rustix::mount::MountFlags::empty(), c"size=256k")
            .unwrap();
        let directory = rustix::fs::open(room, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        let segment =
            Segment::create(directory, c"heap", Mode::RUSR | Mode::WUSR, 1 << 30, |_| Ok(())).unwrap();
        let heap = heap(&segment);
        let mut taken = Vec::new();
        let errno = loop {
            match with(&segment, &heap, |guard| heap.take_unit(guard, 2000)) {
                Ok(unit) => taken.push(unit),
                Err(errno) => break errno,
            }
        };
        assert_eq!(errno, Errno::NOSPC);
        assert!(taken.len() > 100);
        for unit in &taken {
            segment.copy_in(unit.offset(), &[1; 2000]).unwrap();
        }
        for unit in taken {
            with(&segment, &heap, |guard| heap.free_unit(guard, unit, 2000)).unwrap();
        }
        assert!(with(&segment, &heap, |guard| heap.take_pages(guard, 50)).is_ok());
    });
}
