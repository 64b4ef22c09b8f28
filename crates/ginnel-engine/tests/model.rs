//! Lock, blocked operations, hand-off and stakes under each order of their accesses that chance comes upon, with threads
//! killed between any two of them: `just model`.
//!
//! An order in which somebody is forgotten is a deadlock, which shuttle reports with the schedule that leads to it.
#![cfg(ginnel_model)]
#![allow(unsafe_code, missing_docs)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ginnel_engine::Result;
use ginnel_engine::lock::{Guard, Lock};
use ginnel_engine::model;
use ginnel_engine::segment::{SHORT_HEADER_BYTES, Segment};
use ginnel_engine::wait::{Object, Patience, Waiters, Words};

const COUNT: usize = SHORT_HEADER_BYTES;
const TAKEN: usize = SHORT_HEADER_BYTES + 8;
const WAITERS: usize = SHORT_HEADER_BYTES + 0x100;
const BYTES: usize = 8192;

/// A segment in memory that stays for the test's time: who was killed may have left anything.
struct Memory(Segment);

fn memory() -> Arc<Memory> {
    let layout = std::alloc::Layout::from_size_align(BYTES, 4096).unwrap();
    // SAFETY: the layout has a size; the memory is never given back.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    // SAFETY: the bytes are there for ever.
    Arc::new(Memory(unsafe { Segment::over(NonNull::new(base).unwrap(), BYTES) }.unwrap()))
}

impl Memory {
    fn get(&self, offset: usize) -> u64 {
        self.0.word64(offset).unwrap().load(Ordering::SeqCst)
    }
}

fn iterations() -> usize {
    std::env::var("GINNEL_MODEL").map_or(2_000, |number| number.parse().unwrap())
}

/// Runs a scenario in random orders, and in orders in which few switches happen at the worst of moments.
fn check(scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 19;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    let run = {
        let scenario = scenario.clone();
        move || {
            model::start();
            scenario();
        }
    };
    let all = || {
        let random = shuttle::scheduler::RandomScheduler::new(iterations());
        shuttle::Runner::new(random, config.clone()).run(run.clone());
        for depth in [2, 4] {
            let few = shuttle::scheduler::PctScheduler::new(depth, iterations());
            shuttle::Runner::new(few, config.clone()).run(run.clone());
        }
    };
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)) {
        let story = model::story();
        let last = story.len().saturating_sub(4000);
        println!("the last of the {} accesses that led there:\n{}", story.len(), story[last..].join("\n"));
        std::panic::resume_unwind(payload);
    }
}

#[test]
fn a_lock_whose_holders_are_killed() {
    check(|| {
        let memory = memory();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(Some(120), move || {
                    for _ in 0..2 {
                        let mut guard = Lock::of(&memory.0).acquire(None).unwrap();
                        // Unequal in between: whole or undone.
                        guard.set(COUNT, guard.get(COUNT).unwrap() + 1).unwrap();
                        guard.set(TAKEN, guard.get(TAKEN).unwrap() + 1).unwrap();
                        guard.commit();
                    }
                })
            })
            .collect();
        let lived = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|lived| *lived).count();
        let heir = memory.clone();
        let last = model::spawn(None, move || drop(Lock::of(&heir.0).acquire(None).unwrap()));
        assert!(last.join().unwrap());
        let (count, taken) = (memory.get(COUNT), memory.get(TAKEN));
        assert_eq!(count, taken, "half of an operation");
        assert!(count >= 2 * lived as u64 && count <= 6);
    });
}

struct Units;

const TAKE: u64 = 0;
const GIVE: u64 = 1;

impl Object for Units {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let count = guard.get(COUNT)?;
        match words[0] {
            TAKE if count == 0 => return Ok(false),
            TAKE => {
                guard.set(COUNT, count - 1)?;
                guard.set(TAKEN, guard.get(TAKEN)? + 1)?;
            }
            _ => guard.set(COUNT, count + words[1])?,
        }
        Ok(true)
    }

    fn take_back(&self, guard: &mut Guard<'_>, _: &Words) -> Result<()> {
        guard.set(COUNT, guard.get(COUNT)? + 1)?;
        guard.set(TAKEN, guard.get(TAKEN)? - 1)
    }

    fn forfeit(&self, guard: &mut Guard<'_>, _: &Words) -> Result<()> {
        guard.set(COUNT, guard.get(COUNT)? + 1)
    }
}

fn run(memory: &Memory, operation: u64, units: u64) {
    let waiters = Waiters::of(&memory.0, WAITERS, 16, &Units).unwrap();
    waiters.run([operation, units, 0, 0, 0, 0, 0], Patience::Endless).unwrap();
}

/// Whoever comes buries the dead.
fn bury(memory: &Arc<Memory>) {
    let heir = memory.clone();
    assert!(model::spawn(None, move || run(&heir, GIVE, 0)).join().unwrap());
}

#[test]
fn takers_are_killed_and_the_others_are_served() {
    check(|| {
        let memory = memory();
        let taker = |within| {
            let memory = memory.clone();
            model::spawn(within, move || run(&memory, TAKE, 1))
        };
        let takers = [taker(Some(400)), taker(Some(400)), taker(None)];
        let giver = {
            let memory = memory.clone();
            model::spawn(None, move || {
                for _ in 0..3 {
                    run(&memory, GIVE, 1);
                }
            })
        };
        assert!(giver.join().unwrap());
        let lived =
            takers.map(|taker| taker.join().unwrap()).into_iter().filter(|lived| *lived).count() as u64;
        bury(&memory);
        let (count, taken) = (memory.get(COUNT), memory.get(TAKEN));
        assert_eq!(count + taken, 3, "lost or doubled");
        assert!(taken >= lived);
    });
}

#[test]
fn a_giver_is_killed_and_what_it_gave_goes_on() {
    check(|| {
        let memory = memory();
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(None, move || run(&memory, TAKE, 1))
            })
            .collect();
        let giver = {
            let memory = memory.clone();
            model::spawn(Some(500), move || run(&memory, GIVE, 2))
        };
        // What the giver has not given, this one does: both takers go on without anybody else's help.
        giver.join().unwrap();
        let heir = memory.clone();
        let heir = model::spawn(None, move || {
            let waiters = Waiters::of(&heir.0, WAITERS, 16, &Units).unwrap();
            let guard = waiters.enter(None).unwrap();
            let given = guard.get(COUNT).unwrap() + guard.get(TAKEN).unwrap();
            waiters.leave(guard);
            if given == 0 {
                run(&heir, GIVE, 2);
            }
        });
        assert!(heir.join().unwrap());
        assert!(takers.into_iter().all(|taker| taker.join().unwrap()));
    });
}

#[test]
fn a_holder_is_killed_and_who_waits_hears_of_it() {
    check(|| {
        let memory = memory();
        memory.0.word64(COUNT).unwrap().store(1, Ordering::SeqCst);
        let holder = {
            let memory = memory.clone();
            model::spawn(Some(400), move || {
                let waiters = Waiters::of(&memory.0, WAITERS, 16, &Units).unwrap();
                let mut guard = waiters.enter(None).unwrap();
                let count = guard.get(COUNT).unwrap();
                if count == 0 {
                    return waiters.leave(guard);
                }
                guard.set(COUNT, count - 1).unwrap();
                let stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
                guard.checkpoint();
                waiters.leave(guard);
                let mut guard = waiters.enter(None).unwrap();
                guard.set(COUNT, guard.get(COUNT).unwrap() + 1).unwrap();
                waiters.give_up(&mut guard, stake).unwrap();
                waiters.serve_others(guard).unwrap();
            })
        };
        // One of them gets it, and gives it on.
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(None, move || {
                    run(&memory, TAKE, 1);
                    run(&memory, GIVE, 1);
                })
            })
            .collect();
        holder.join().unwrap();
        assert!(takers.into_iter().all(|taker| taker.join().unwrap()));
        bury(&memory);
        assert_eq!(memory.get(COUNT), 1);
    });
}

/// Looks at the object without doing an operation: takes the lock, and gives it back.
fn look(memory: &Memory) {
    let waiters = Waiters::of(&memory.0, WAITERS, 16, &Units).unwrap();
    let guard = waiters.enter(None).unwrap();
    waiters.leave(guard);
}

#[test]
fn bystanders_are_killed_while_they_bury_others() {
    check(|| {
        let memory = memory();
        let taker = |within| {
            let memory = memory.clone();
            model::spawn(within, move || run(&memory, TAKE, 1))
        };
        let takers = [taker(Some(300)), taker(Some(300)), taker(None)];
        let bystanders: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(Some(400), move || {
                    look(&memory);
                    look(&memory);
                })
            })
            .collect();
        let giver = {
            let memory = memory.clone();
            model::spawn(None, move || {
                for _ in 0..3 {
                    run(&memory, GIVE, 1);
                }
            })
        };
        assert!(giver.join().unwrap());
        bystanders.into_iter().for_each(|bystander| _ = bystander.join().unwrap());
        let lived =
            takers.map(|taker| taker.join().unwrap()).into_iter().filter(|lived| *lived).count() as u64;
        bury(&memory);
        let (count, taken) = (memory.get(COUNT), memory.get(TAKEN));
        assert_eq!(count + taken, 3, "lost or doubled");
        assert!(taken >= lived);
    });
}

#[test]
fn givers_and_takers_are_all_killed() {
    check(|| {
        let memory = memory();
        let mortal = |operation| {
            let memory = memory.clone();
            model::spawn(Some(500), move || run(&memory, operation, 1))
        };
        let takers = [mortal(TAKE), mortal(TAKE)];
        let givers = [mortal(GIVE), mortal(GIVE)];
        let gave =
            givers.map(|giver| giver.join().unwrap()).into_iter().filter(|lived| *lived).count() as u64;
        // For those who live.
        let rest = memory.clone();
        assert!(model::spawn(None, move || run(&rest, GIVE, 2)).join().unwrap());
        let took =
            takers.map(|taker| taker.join().unwrap()).into_iter().filter(|lived| *lived).count() as u64;
        bury(&memory);
        let (count, taken) = (memory.get(COUNT), memory.get(TAKEN));
        assert!((gave + 2..=4).contains(&(count + taken)), "lost or doubled");
        assert!(taken >= took && taken <= 2);
    });
}

#[test]
fn two_holders_are_killed_and_several_wait() {
    check(|| {
        let memory = memory();
        memory.0.word64(COUNT).unwrap().store(2, Ordering::SeqCst);
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(Some(400), move || {
                    let waiters = Waiters::of(&memory.0, WAITERS, 16, &Units).unwrap();
                    let mut guard = waiters.enter(None).unwrap();
                    let count = guard.get(COUNT).unwrap();
                    if count == 0 {
                        return waiters.leave(guard);
                    }
                    guard.set(COUNT, count - 1).unwrap();
                    let stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
                    guard.checkpoint();
                    waiters.leave(guard);
                    let mut guard = waiters.enter(None).unwrap();
                    guard.set(COUNT, guard.get(COUNT).unwrap() + 1).unwrap();
                    waiters.give_up(&mut guard, stake).unwrap();
                    waiters.serve_others(guard).unwrap();
                })
            })
            .collect();
        let takers: Vec<_> = [None, None, Some(600)]
            .into_iter()
            .map(|within| {
                let memory = memory.clone();
                model::spawn(within, move || {
                    run(&memory, TAKE, 1);
                    run(&memory, GIVE, 1);
                })
            })
            .collect();
        holders.into_iter().for_each(|holder| _ = holder.join().unwrap());
        let lived: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        assert!(lived[0] && lived[1]);
        bury(&memory);
        let count = memory.get(COUNT);
        assert!(count == 2 || (count == 1 && !lived[2]), "the third may have kept one: {count}");
    });
}

#[test]
fn a_process_that_holds_is_killed_and_who_waits_hears_of_it() {
    check(|| {
        let memory = memory();
        memory.0.word64(COUNT).unwrap().store(1, Ordering::SeqCst);
        let holder = {
            let memory = memory.clone();
            model::spawn(Some(300), move || {
                let waiters = Waiters::of(&memory.0, WAITERS, 16, &Units).unwrap();
                let mut guard = waiters.enter(None).unwrap();
                let count = guard.get(COUNT).unwrap();
                if count > 0 {
                    // Units are given back by as many as the stakes' first words say: none before this one is taken.
                    guard.set(COUNT, count - 1).unwrap();
                    waiters.stake_of_process(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
                }
                waiters.leave(guard);
            })
        };
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let memory = memory.clone();
                model::spawn(None, move || {
                    run(&memory, TAKE, 1);
                    run(&memory, GIVE, 1);
                })
            })
            .collect();
        holder.join().unwrap();
        assert!(takers.into_iter().all(|taker| taker.join().unwrap()));
        bury(&memory);
        assert_eq!(memory.get(COUNT), 1);
    });
}
