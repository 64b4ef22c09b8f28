//! What threads and processes hold in an object, given back when they are killed, with real processes killed at every
//! instruction of taking, of giving back and of forfeiting.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Stepped, directory, signal_self};
use ginnel_engine::Result;
use ginnel_engine::lock::Guard;
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::wait::{Object, Patience, ProcessStake, Waiters, Words};
use ginnel_testkit::{Child, Exit, fork, isolated, isolated_for, wait_blocked_in, wait_until};
use rustix::fs::Mode;

const COUNT: usize = HEADER_BYTES;
const TOTAL: usize = HEADER_BYTES + 8;
const GONE: usize = HEADER_BYTES + 16;
const WAITERS: usize = HEADER_BYTES + 0x100;
const SLEEPERS: usize = WAITERS + 0x20;
const MEMBERS: usize = WAITERS + 0x38;

/// The second word of who only waits for so many.
const LOOK: u64 = 1;

/// Units that are borrowed: those who want to keep one for good wait until there is one.
#[derive(Debug)]
struct Units;

impl Object for Units {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let count = guard.get(COUNT)?;
        if count < words[0] {
            return Ok(false);
        }
        if words[1] == LOOK {
            return Ok(true);
        }
        guard.set(COUNT, count - words[0])?;
        guard.set(GONE, guard.get(GONE)?.wrapping_add(words[0]))?;
        Ok(true)
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        if words[1] == LOOK {
            return Ok(());
        }
        guard.set(COUNT, guard.get(COUNT)?.wrapping_add(words[0]))?;
        guard.set(GONE, guard.get(GONE)?.wrapping_sub(words[0]))
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        guard.set(COUNT, guard.get(COUNT)?.wrapping_add(words[0]))
    }
}

fn units(count: u64) -> Segment {
    let _ = std::fs::remove_file("/dev/shm/units");
    let segment =
        Segment::create(directory(), c"units", Mode::RUSR | Mode::WUSR, 1 << 20, |_| Ok(())).unwrap();
    segment.word64(COUNT).unwrap().store(count, Ordering::SeqCst);
    segment.word64(TOTAL).unwrap().store(count, Ordering::SeqCst);
    segment
}

fn waiters(segment: &Segment) -> Waiters<'_, Units> {
    Waiters::of(segment, WAITERS, 256, &Units).unwrap()
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(15))
}

fn raw(segment: &Segment, offset: usize) -> u64 {
    segment.word64(offset).unwrap().load(Ordering::SeqCst)
}

/// As it stands when nobody is in an operation and everybody dead is buried.
fn settled(segment: &Segment) -> (u64, u64) {
    let waiters = waiters(segment);
    let guard = waiters.enter(soon()).unwrap();
    let state = (guard.get(COUNT).unwrap(), guard.get(GONE).unwrap());
    waiters.leave(guard);
    state
}

/// A unit is borrowed, `then` something is done, and the unit is given back.
fn borrow(segment: &Segment, then: impl FnOnce()) {
    let waiters = waiters(segment);
    let mut guard = waiters.enter(soon()).unwrap();
    guard.set(COUNT, guard.get(COUNT).unwrap() - 1).unwrap();
    let stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
    guard.checkpoint();
    waiters.leave(guard);
    then();
    let mut guard = waiters.enter(soon()).unwrap();
    guard.set(COUNT, guard.get(COUNT).unwrap() + 1).unwrap();
    waiters.give_up(&mut guard, stake).unwrap();
    waiters.leave(guard);
}

/// A unit is borrowed by this process for good.
fn borrow_for_process(segment: &Segment) -> ProcessStake {
    let waiters = waiters(segment);
    let mut guard = waiters.enter(soon()).unwrap();
    let stake = match waiters.find_own_stake(&mut guard).unwrap() {
        Some(stake) => stake,
        None => waiters.stake_of_process(&mut guard, &[0; 7]).unwrap(),
    };
    let held = guard.get(stake.word_offset(0)).unwrap();
    guard.set(stake.word_offset(0), held + 1).unwrap();
    guard.set(COUNT, guard.get(COUNT).unwrap() - 1).unwrap();
    guard.checkpoint();
    waiters.leave(guard);
    stake
}

fn keep_one(segment: &Segment) -> Result<Words> {
    waiters(segment).run([1, 0, 0, 0, 0, 0, 0], Patience::Endless)
}

fn sleeping_keepers(segment: &Segment, count: u64) -> Vec<Child> {
    (0..count)
        .map(|_| {
            let before = raw(segment, SLEEPERS);
            let keeper = fork(|| _ = keep_one(segment).unwrap());
            wait_until("it sleeps", || raw(segment, SLEEPERS) == before + 1);
            wait_blocked_in(keeper.pid(), libc::SYS_futex_waitv);
            keeper
        })
        .collect()
}

/// A process that has borrowed a unit in the one or in the other way, and does nothing more.
fn borrower(segment: &Segment, for_process: bool) -> Child {
    let before = raw(segment, MEMBERS);
    let child = fork(|| {
        if for_process {
            borrow_for_process(segment);
            common::pause_for_ever();
        }
        borrow(segment, || common::pause_for_ever());
    });
    wait_until("it has borrowed", || raw(segment, MEMBERS) == before + 1);
    wait_blocked_in(child.pid(), libc::SYS_pause);
    child
}

fn kill(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

/// Every how many instructions: all take minutes, `GINNEL_STRIDE=1` is for them.
fn stride() -> usize {
    crate::common::stride_or(29)
}

#[test]
fn what_is_given_back_is_there_again_and_what_is_dropped_is_forfeited() {
    isolated(|| {
        let segment = units(2);
        borrow(&segment, || assert_eq!(settled(&segment).0, 1));
        assert_eq!((settled(&segment).0, raw(&segment, MEMBERS)), (2, 0));

        let waiters = waiters(&segment);
        let mut guard = waiters.enter(None).unwrap();
        guard.set(COUNT, 1).unwrap();
        let stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
        guard.checkpoint();
        waiters.leave(guard);
        drop(stake);
        assert_eq!((settled(&segment).0, raw(&segment, MEMBERS)), (2, 0));
    });
}

#[test]
fn what_a_killed_process_held_is_there_for_who_sleeps_and_for_who_comes() {
    isolated(|| {
        for for_process in [false, true] {
            let segment = units(3);
            // One before, one between, one after those who sleep.
            let first = borrower(&segment, for_process);
            let second = borrower(&segment, for_process);
            let third = borrower(&segment, for_process);
            let mut sleepers = sleeping_keepers(&segment, 1);
            kill(second);
            sleepers.remove(0).assert_ok();
            let mut sleepers = sleeping_keepers(&segment, 2);
            kill(first);
            sleepers.remove(0).assert_ok();
            // Its place in the ring has changed: another listens to it now.
            kill(third);
            sleepers.remove(0).assert_ok();
            assert_eq!((settled(&segment), raw(&segment, MEMBERS)), ((0, 3), 0), "{for_process}");
        }
    });
}

#[test]
fn a_stake_that_comes_after_the_sleepers_is_heard_of_too() {
    isolated(|| {
        for (for_process, victim) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
            let segment = units(0);
            let mut sleepers = sleeping_keepers(&segment, 3);
            segment.word64(COUNT).unwrap().store(1, Ordering::SeqCst);
            let holder = borrower(&segment, for_process);
            // Whoever listens to it may be gone before it is.
            kill(sleepers.remove(victim));
            wait_until("buried", || raw(&segment, SLEEPERS) == 2);
            kill(holder);
            sleepers.remove(0).assert_ok();
            assert_eq!((settled(&segment), raw(&segment, SLEEPERS)), ((0, 1), 1));
        }
    });
}

#[test]
fn sleepers_beside_stakes_use_no_processor() {
    isolated(|| {
        let segment = units(2);
        let holders = [borrower(&segment, false), borrower(&segment, true)];
        let sleepers = sleeping_keepers(&segment, 2);
        let switches = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
            status.lines().filter(|line| line.contains("ctxt_switches")).map(String::from).collect::<Vec<_>>()
        };
        let before: Vec<_> = sleepers.iter().map(switches).collect();
        // Not a wait for something: the time in which they must not run.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(sleepers.iter().map(switches).collect::<Vec<_>>(), before, "they ran");
        holders.into_iter().for_each(kill);
        sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
    });
}

#[test]
fn a_process_holds_on_when_its_thread_ends_and_when_it_becomes_another_program() {
    isolated(|| {
        let segment = units(2);
        let threaded = fork(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| borrow_for_process(&segment)).join().unwrap();
            });
            signal_self(libc::SIGSTOP);
            // Found again, and told of again.
            borrow_for_process(&segment);
            common::pause_for_ever();
        });
        wait_until("its thread has borrowed", || raw(&segment, COUNT) == 1);
        wait_until("it is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", threaded.pid())).unwrap();
            stat.contains(") T ")
        });
        for _ in 0..3 {
            assert_eq!(settled(&segment).0, 1, "the thread's end is not the process's");
        }
        let sleeper = {
            segment.word64(COUNT).unwrap().store(0, Ordering::SeqCst);
            sleeping_keepers(&segment, 1).remove(0)
        };
        segment.word64(COUNT).unwrap().store(1, Ordering::SeqCst);
        threaded.signal(libc::SIGCONT);
        wait_until("it has borrowed another", || raw(&segment, COUNT) == 0);
        wait_blocked_in(threaded.pid(), libc::SYS_pause);
        kill(threaded);
        sleeper.assert_ok();
        assert_eq!(settled(&segment), (1, 1));

        let program = fork(|| {
            borrow_for_process(&segment);
            let error =
                std::os::unix::process::CommandExt::exec(std::process::Command::new("sleep").arg("1000"));
            panic!("{error}");
        });
        wait_until("it is another program", || {
            std::fs::read_to_string(format!("/proc/{}/comm", program.pid())).unwrap() == "sleep\n"
        });
        let sleeper = sleeping_keepers(&segment, 1).remove(0);
        assert_eq!(settled(&segment), (0, 1), "kept across exec");
        kill(program);
        sleeper.assert_ok();
        assert_eq!((settled(&segment), raw(&segment, MEMBERS)), ((0, 2), 0));
    });
}

#[test]
fn killed_at_every_instruction_nothing_is_lost_or_doubled() {
    isolated_for(crate::common::limit(), || {
        for (what, sleeps) in [("alone", false), ("with a sleeper", true)] {
            let mut kills = 0;
            for steps in (0..).step_by(stride()) {
                let segment = units(0);
                let sleepers = sleeping_keepers(&segment, u64::from(sleeps));
                segment.word64(COUNT).unwrap().store(2, Ordering::SeqCst);
                // What the sleeper did not see: it keeps one as soon as somebody looks after the object.
                let victim = Stepped::start(|| borrow(&segment, || {}));
                let in_work = (0..steps).all(|_| victim.step_watched(|_| {}));
                victim.kill();
                let at = format!("{what}, killed after {steps} instructions");
                if sleeps {
                    waiters(&segment).run([0; 7], Patience::None).unwrap();
                    sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
                }
                let kept = u64::from(sleeps);
                assert_eq!((settled(&segment), raw(&segment, MEMBERS)), ((2 - kept, kept), 0), "{at}");
                kills += 1;
                if !in_work {
                    break;
                }
            }
            println!("borrowing and giving back, {what}: killed at {kills} instructions");
            crate::common::crash(&format!("stake: borrow and give back, {what}"));
        }
        let mut kills = 0;
        for steps in (0..).step_by(stride()) {
            let segment = units(2);
            let victim = Stepped::start(|| _ = borrow_for_process(&segment));
            let in_work = (0..steps).all(|_| victim.step_watched(|_| {}));
            victim.kill();
            assert_eq!(settled(&segment), (2, 0), "a process's, killed after {steps} instructions");
            assert_eq!(raw(&segment, MEMBERS), 0, "a process's, killed after {steps} instructions");
            kills += 1;
            if !in_work {
                break;
            }
        }
        println!("a process's stake: killed at {kills} instructions");
        crate::common::crash("stake of a process");
    });
}

#[test]
fn killed_at_every_instruction_of_forfeiting_somebody_else_does_it() {
    isolated_for(crate::common::limit(), || {
        for for_process in [false, true] {
            let mut kills = 0;
            for steps in (0..).step_by(stride()) {
                let segment = units(1);
                kill(borrower(&segment, for_process));
                let heir = Stepped::start(|| _ = settled(&segment));
                let in_work = (0..steps).all(|_| heir.step_watched(|_| {}));
                heir.kill();
                assert_eq!(settled(&segment), (1, 0), "{for_process}: killed after {steps} instructions");
                kills += 1;
                if !in_work {
                    break;
                }
            }
            println!("forfeiting, {for_process}: killed at {kills} instructions");
            crate::common::crash(&format!("stake: forfeit another's (of a process: {for_process})"));
        }
    });
}

#[test]
fn many_are_killed_at_random_and_those_who_wait_for_all_to_be_home_go_on() {
    isolated_for(Duration::from_secs(120), || {
        let segment = units(3);
        let start = |number: usize| {
            let segment = &segment;
            fork(move || {
                loop {
                    if number.is_multiple_of(2) {
                        wait_for_all(segment);
                    } else if raw(segment, COUNT) > 0 {
                        try_borrow(segment);
                    }
                }
            })
        };
        let mut children: Vec<_> = (0..8).map(start).collect();
        let mut seed = 7_u64;
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (seed >> 33) as usize % children.len();
            kill(std::mem::replace(&mut children[number], start(number)));
        }
        let last: Vec<_> = (0..3).map(|_| fork(|| wait_for_all(&segment))).collect();
        children.into_iter().for_each(kill);
        last.into_iter().for_each(|child| child.assert_ok());
        assert_eq!((settled(&segment), raw(&segment, MEMBERS)), ((3, 0), 0));
    });
}

fn wait_for_all(segment: &Segment) {
    waiters(segment).run([3, LOOK, 0, 0, 0, 0, 0], Patience::Endless).unwrap();
}

fn try_borrow(segment: &Segment) {
    let waiters = waiters(segment);
    let mut guard = waiters.enter(soon()).unwrap();
    let count = guard.get(COUNT).unwrap();
    if count == 0 {
        return waiters.leave(guard);
    }
    guard.set(COUNT, count - 1).unwrap();
    let stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
    guard.checkpoint();
    waiters.leave(guard);
    let mut guard = waiters.enter(soon()).unwrap();
    guard.set(COUNT, guard.get(COUNT).unwrap() + 1).unwrap();
    waiters.give_up(&mut guard, stake).unwrap();
    waiters.serve_others(guard).unwrap();
}
