//! Blocked operations, with real processes killed at every instruction of blocking, of being served and of serving.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Stepped, directory};
use ginnel_engine::lock::Guard;
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::wait::{Object, Patience, Waiters, Words};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, Exit, blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};
use rustix::fs::Mode;

const COUNT: usize = HEADER_BYTES;
const TOTAL: usize = HEADER_BYTES + 8;
const REMOVED: usize = HEADER_BYTES + 16;
const STOP: usize = HEADER_BYTES + 24;
/// How many units each numbered taker has.
const HELD: usize = HEADER_BYTES + 64;
const TAKERS: u64 = 64;
const WAITERS: usize = HEADER_BYTES + 0x280;
const SLEEPERS: usize = WAITERS + 0x20;
const SLOTS: usize = WAITERS + 0x80;
const LOCK_WORD: usize = 0x40;
const JOURNAL_COUNT: usize = 0x58;

const TAKE: u64 = 0;
const ADD: u64 = 1;
const PUT_BACK: u64 = 2;
const RECLAIM: u64 = 3;
const REMOVE: u64 = 4;

/// A number of units: takers wait while there are too few.
#[derive(Debug)]
struct Units;

fn held(taker: u64) -> usize {
    HELD + 8 * (taker % TAKERS) as usize
}

impl Object for Units {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let [operation, units, taker, ..] = *words;
        let count = guard.get(COUNT)?;
        if guard.get(REMOVED)? != 0 {
            return Err(Errno::IDRM);
        }
        let holds = guard.get(held(taker))?;
        match operation {
            TAKE if count < units => return Ok(false),
            TAKE => {
                guard.set(COUNT, count - units)?;
                guard.set(held(taker), holds.wrapping_add(units))?;
                words[3] = count;
            }
            ADD => {
                guard.set(COUNT, count.wrapping_add(units))?;
                guard.set(TOTAL, guard.get(TOTAL)?.wrapping_add(units))?;
            }
            PUT_BACK | RECLAIM => {
                let units = if operation == RECLAIM { holds } else { units };
                guard.set(COUNT, count.wrapping_add(units))?;
                guard.set(held(taker), holds.wrapping_sub(units))?;
            }
            REMOVE => guard.set(REMOVED, 1)?,
            _ => return Err(Errno::INVAL),
        }
        Ok(true)
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        let [_, units, taker, ..] = *words;
        guard.set(COUNT, guard.get(COUNT)?.wrapping_add(units))?;
        guard.set(held(taker), guard.get(held(taker))?.wrapping_sub(units))
    }
}

fn units() -> Segment {
    let _ = std::fs::remove_file("/dev/shm/units");
    Segment::create(directory(), c"units", Mode::RUSR | Mode::WUSR, 1 << 20, |_| Ok(())).unwrap()
}

fn run(segment: &Segment, operation: u64, units: u64, taker: u64, patience: Patience) -> Result<Words> {
    let request = [operation, units, taker, 0, 0, 0, 0];
    Waiters::of(segment, WAITERS, 256, &Units).unwrap().run(request, patience)
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

fn give(segment: &Segment, units: u64) {
    run(segment, ADD, units, 0, soon()).unwrap();
}

fn take(segment: &Segment, taker: u64) {
    run(segment, TAKE, 1, taker, Patience::Endless).unwrap();
}

/// As it stands, without taking the lock: taking it would do what a sleeper has to.
fn raw(segment: &Segment, offset: usize) -> u64 {
    segment.word64(offset).unwrap().load(Ordering::SeqCst)
}

fn all_held(segment: &Segment) -> u64 {
    (0..TAKERS).map(|taker| raw(segment, held(taker))).sum()
}

/// Whether a process has a slot in which it sleeps.
fn is_listed(segment: &Segment, process: i32) -> bool {
    (0..8)
        .map(|index| SLOTS + index * 0x80)
        .any(|slot| raw(segment, slot + 0x08) == 1 && raw(segment, slot + 0x40) as u32 == process as u32)
}

/// Processes that want a unit each, asleep in this order.
fn sleeping_takers(segment: &Segment, numbers: std::ops::RangeInclusive<u64>) -> Vec<Child> {
    let mut children = Vec::new();
    for number in numbers {
        let child = fork(|| take(segment, number));
        wait_until("a taker is in the list", || is_listed(segment, child.pid()));
        wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
        children.push(child);
    }
    children
}

#[test]
fn what_can_be_done_is_done_at_once_and_what_cannot_is_refused_or_waited_for() {
    isolated(|| {
        let segment = units();
        assert_eq!(run(&segment, TAKE, 1, 1, Patience::None), Err(Errno::AGAIN));
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(run(&segment, TAKE, 1, 1, Patience::Until(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until, "before its deadline");
        assert_eq!(run(&segment, 99, 1, 1, Patience::None), Err(Errno::INVAL));
        give(&segment, 2);
        assert_eq!(run(&segment, TAKE, 1, 1, Patience::None).unwrap()[3], 2);
        assert_eq!((raw(&segment, COUNT), raw(&segment, SLEEPERS)), (1, 0));
    });
}

#[test]
fn sleepers_are_served_in_their_order_and_no_others_are_woken() {
    isolated(|| {
        let segment = units();
        let takers = sleeping_takers(&segment, 1..=4);
        for (number, taker) in (1..).zip(takers) {
            give(&segment, 1);
            taker.assert_ok();
            assert_eq!(raw(&segment, held(number)), 1, "out of order");
            assert_eq!(raw(&segment, SLEEPERS), 4 - number);
        }
    });
}

#[test]
fn a_removal_wakes_everybody() {
    isolated(|| {
        let segment = units();
        let takers: Vec<_> = (1..=5)
            .map(|number| {
                let segment = &segment;
                fork(move || {
                    assert_eq!(run(segment, TAKE, 1, number, Patience::Endless), Err(Errno::IDRM));
                })
            })
            .collect();
        takers.iter().for_each(|taker| wait_blocked_in(taker.pid(), libc::SYS_futex_waitv));
        wait_until("five in the list", || raw(&segment, SLEEPERS) == 5);
        run(&segment, REMOVE, 0, 0, soon()).unwrap();
        takers.into_iter().for_each(|taker| taker.assert_ok());
        assert_eq!(raw(&segment, SLEEPERS), 0);
    });
}

#[test]
fn a_killed_sleeper_is_not_served() {
    isolated(|| {
        let segment = units();
        let mut takers = sleeping_takers(&segment, 1..=3);
        let second = takers.remove(1);
        second.kill();
        assert_eq!(second.wait(), Exit::Signal(libc::SIGKILL));
        wait_until("somebody has buried it", || raw(&segment, SLEEPERS) == 2);
        give(&segment, 2);
        takers.into_iter().for_each(|taker| taker.assert_ok());
        assert_eq!((raw(&segment, held(2)), raw(&segment, COUNT)), (0, 0));
    });
}

#[test]
fn a_signal_ends_the_sleep_unless_it_was_served() {
    isolated(|| {
        let segment = units();
        extern "C" fn on_signal(_: libc::c_int) {}
        let sleeper = fork(|| {
            common::handle(libc::SIGUSR1, on_signal);
            assert_eq!(run(&segment, TAKE, 1, 1, Patience::Endless), Err(Errno::INTR));
        });
        wait_until("it sleeps", || is_listed(&segment, sleeper.pid()));
        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
        sleeper.signal(libc::SIGUSR1);
        sleeper.assert_ok();
        assert_eq!((raw(&segment, SLEEPERS), raw(&segment, COUNT)), (0, 0));

        let served = fork(|| {
            common::handle(libc::SIGUSR1, on_signal);
            take(&segment, 2);
        });
        wait_until("it sleeps", || is_listed(&segment, served.pid()));
        wait_blocked_in(served.pid(), libc::SYS_futex_waitv);
        served.signal(libc::SIGSTOP);
        wait_until("it is stopped", || is_stopped(&served));
        give(&segment, 1);
        served.signal(libc::SIGUSR1);
        served.signal(libc::SIGCONT);
        served.assert_ok();
        assert_eq!((raw(&segment, held(2)), raw(&segment, COUNT)), (1, 0));
    });
}

#[test]
fn a_sleeper_uses_no_processor() {
    isolated(|| {
        let segment = units();
        let takers = sleeping_takers(&segment, 1..=3);
        let switches = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
            status.lines().filter(|line| line.contains("ctxt_switches")).map(String::from).collect::<Vec<_>>()
        };
        let before: Vec<_> = takers.iter().map(switches).collect();
        // Not a wait for something: the time in which it must not run.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(takers.iter().map(switches).collect::<Vec<_>>(), before, "it ran");
        give(&segment, 3);
        takers.into_iter().for_each(|taker| taker.assert_ok());
    });
}

/// Whether a taker that has been served, and is stopped, has taken its unit for good: its slot is free again, and that
/// is committed.
fn has_taken(segment: &Segment, process: i32) -> bool {
    let slots = (0..8).map(|index| SLOTS + index * 0x80);
    let mut own = slots.filter(|slot| raw(segment, slot + 0x40) as u32 == process as u32);
    raw(segment, JOURNAL_COUNT) == 0 && own.all(|slot| raw(segment, slot + 0x08) == 0)
}

/// What is left after a taker (number 1) was killed, with `others` asleep around it: they get what there is. `taken`
/// says whether it had taken its unit, if one was given.
fn after_a_killed_taker(segment: &Segment, others: Vec<Child>, taken: Option<bool>, at: &str) {
    let mut owed = others.len() as u64;
    if taken == Some(false) {
        // The next one gets it, without anybody's help.
        wait_until(&format!("the unit has another owner, {at}"), || {
            (2..).take(others.len()).any(|number| raw(segment, held(number)) == 1)
        });
        owed -= 1;
    }
    give(segment, owed);
    for other in others {
        other.assert_ok();
    }
    assert_eq!((raw(segment, SLEEPERS), raw(segment, COUNT)), (0, 0), "{at}");
    assert_eq!(raw(segment, held(1)), u64::from(taken == Some(true)), "{at}");
    assert_eq!(all_held(segment), raw(segment, TOTAL), "{at}");
}

/// Every how many instructions: all take minutes, `GINNEL_STRIDE=1` is for them.
fn stride() -> usize {
    crate::common::stride_or(29)
}

/// Kills a taker at each `stride`-th instruction: of blocking, of waking up, of taking the result.
fn taker_killed(others: u64, first: bool, stride: usize) -> (usize, usize) {
    let mut kills = (0, 0);
    for steps in (0..).step_by(stride) {
        let segment = units();
        let mut sleepers = if first { Vec::new() } else { sleeping_takers(&segment, 2..=1 + others) };
        let victim = Stepped::start(|| take(&segment, 1));
        let mut given = false;
        let mut in_work = true;
        for _ in 0..steps {
            in_work = victim.step_watched(|_| {
                if !given && raw(&segment, SLEEPERS) == sleepers.len() as u64 + 1 {
                    if first {
                        sleepers = sleeping_takers(&segment, 2..=1 + others);
                        give(&segment, 1);
                    } else {
                        // Those before it must have theirs for it to be served; as many come again behind it.
                        give(&segment, others);
                        sleepers.drain(..).for_each(|taker| taker.assert_ok());
                        for number in 2..=1 + others {
                            run(&segment, PUT_BACK, 0, number, soon()).unwrap();
                            segment.word64(held(number)).unwrap().store(0, Ordering::SeqCst);
                        }
                        segment.word64(TOTAL).unwrap().store(0, Ordering::SeqCst);
                        sleepers = sleeping_takers(&segment, 2..=1 + others);
                        give(&segment, 1);
                    }
                    given = true;
                }
            });
            if !in_work {
                break;
            }
        }
        let taken = given.then(|| has_taken(&segment, victim.pid()));
        if first && !given {
            // Killed before it slept: those who come then.
            victim.kill();
            sleepers = sleeping_takers(&segment, 2..=1 + others);
        } else {
            victim.kill();
        }
        after_a_killed_taker(&segment, sleepers, taken, &format!("killed after {steps} instructions"));
        if given {
            kills.1 += 1
        } else {
            kills.0 += 1
        }
        if !in_work {
            return kills;
        }
    }
    unreachable!("an operation has an end")
}

#[test]
fn a_taker_killed_at_every_instruction_loses_nothing_and_keeps_nobody() {
    isolated_for(crate::common::limit(), || {
        let (before, after) = taker_killed(1, true, stride());
        println!("{before} kills before it was served, {after} after, one sleeper behind");
        crate::common::crash("wait queue: take, one behind");
        assert!(before > 20 && after > 20);
    });
}

#[test]
fn a_taker_killed_with_three_behind_it() {
    isolated_for(crate::common::limit(), || {
        let (before, after) = taker_killed(3, true, 7 * stride());
        println!("{before} kills before it was served, {after} after, three sleepers behind");
        crate::common::crash("wait queue: take, three behind");
    });
}

#[test]
fn a_taker_killed_with_sleepers_before_and_behind_it() {
    isolated_for(crate::common::limit(), || {
        let (before, after) = taker_killed(2, false, 11 * stride());
        println!("{before} kills before it was served, {after} after, two sleepers before it, two behind");
        crate::common::crash("wait queue: take, two before, two behind");
    });
}

/// Kills who gives `others` sleepers a unit each, at every instruction.
fn giver_killed(others: u64, stride: usize) -> (usize, usize) {
    let mut kills = (0, 0);
    for steps in (0..).step_by(stride) {
        let segment = units();
        let takers = sleeping_takers(&segment, 1..=others);
        let giver = Stepped::start(|| give(&segment, others));
        let in_work = (0..steps).all(|_| giver.step_watched(|_| ()));
        giver.kill();
        let at = format!("killed after {steps} instructions");
        wait_until(&format!("the lock is free and the journal empty, {at}"), || {
            raw(&segment, LOCK_WORD) as u32 == 0 && raw(&segment, JOURNAL_COUNT) == 0
        });
        if raw(&segment, TOTAL) == 0 {
            assert_eq!((raw(&segment, COUNT), all_held(&segment)), (0, 0), "{at}");
            give(&segment, others);
            kills.0 += 1;
        } else {
            kills.1 += 1;
        }
        takers.into_iter().for_each(|taker| taker.assert_ok());
        assert_eq!((raw(&segment, SLEEPERS), raw(&segment, COUNT)), (0, 0), "{at}");
        assert_eq!((all_held(&segment), raw(&segment, TOTAL)), (others, others), "{at}");
        if !in_work {
            return kills;
        }
    }
    unreachable!("an operation has an end")
}

#[test]
fn a_giver_killed_at_every_instruction_leaves_nobody_asleep() {
    isolated_for(crate::common::limit(), || {
        let (before, after) = giver_killed(1, stride());
        println!("{before} kills before the commit, {after} after, one sleeper");
        crate::common::crash("wait queue: give, one asleep");
        assert!(before > 20 && after > 20);
    });
}

#[test]
fn a_giver_killed_with_three_asleep() {
    isolated_for(crate::common::limit(), || {
        let (before, after) = giver_killed(3, 3 * stride());
        println!("{before} kills before the commit, {after} after, three sleepers");
        crate::common::crash("wait queue: give, three asleep");
    });
}

fn is_stopped(child: &Child) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") T ")
}

/// A taker that sleeps, stopped, and has been served without knowing.
fn served_unknowing(segment: &Segment, number: u64) -> Child {
    let taker = sleeping_takers(segment, number..=number).remove(0);
    taker.signal(libc::SIGSTOP);
    wait_until("it is stopped", || is_stopped(&taker));
    give(segment, 1);
    assert_eq!(raw(segment, held(number)), 1);
    taker
}

fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

/// Stops a taker after so many instructions, unless it sleeps by then.
fn stopped_after(steps: usize, work: impl Fn()) -> Option<Stepped> {
    let taker = Stepped::start(work);
    for _ in 0..steps {
        let mut sleeps = false;
        let in_work = taker.step_unless(&mut sleeps);
        if sleeps {
            taker.kill();
            return None;
        }
        assert!(in_work, "it must not be served");
    }
    Some(taker)
}

#[test]
fn who_is_about_to_sleep_hears_of_a_death_before_it_in_the_list() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride()) {
            let segment = units();
            let dying = served_unknowing(&segment, 1);
            let Some(taker) = stopped_after(steps, || take(&segment, 2)) else {
                killed(dying);
                break;
            };
            killed(dying);
            taker
                .finish(&format!("the taker gets what the dead one had, stopped after {steps} instructions"));
            assert_eq!((raw(&segment, held(1)), raw(&segment, held(2))), (0, 1));
            kills += 1;
        }
        println!("{kills} deaths before one who is about to sleep");
        crate::common::crash("wait queue: served, before one about to sleep");
        assert!(kills > 20);
    });
}

#[test]
fn who_is_about_to_sleep_hears_of_a_death_behind_it_in_the_list() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut listed) = (0, 0);
        for steps in (0..).step_by(stride()) {
            let segment = units();
            let both = || run(&segment, TAKE, 2, 2, Patience::Endless).map(drop).unwrap();
            let Some(taker) = stopped_after(steps, both) else { break };
            if raw(&segment, LOCK_WORD) as u32 != 0 {
                taker.kill();
                continue;
            }
            listed += raw(&segment, SLEEPERS);
            let dying = served_unknowing(&segment, 1);
            give(&segment, 1);
            killed(dying);
            taker
                .finish(&format!("the taker gets what the dead one had, stopped after {steps} instructions"));
            assert_eq!((raw(&segment, held(1)), raw(&segment, held(2))), (0, 2));
            kills += 1;
        }
        println!("{kills} deaths behind one who is about to sleep, {listed} of them in the list");
        crate::common::crash("wait queue: served, behind one about to sleep");
        assert!(kills > 10 && listed > 3);
    });
}

#[test]
fn many_processes_killed_at_random_lose_no_unit_and_leave_nobody_asleep() {
    isolated_for(Duration::from_secs(120), || {
        const PROCESSES: u64 = 16;
        const UNITS: u64 = 3;
        let segment = units();
        give(&segment, UNITS);
        let start = |number: u64| {
            let segment = &segment;
            fork(move || {
                while raw(segment, STOP) == 0 {
                    take(segment, number);
                    run(segment, PUT_BACK, 1, number, Patience::Endless).unwrap();
                }
            })
        };
        let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let end = Instant::now() + Duration::from_secs(8);
        let mut kills = 0;
        while Instant::now() < end {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros(random >> 54));
            // Up to four at once: a death may be told to one who dies of the next.
            let first = random >> 33;
            let victims: Vec<_> = (0..=(random >> 20) % 4).map(|nth| (first + nth * 5) % PROCESSES).collect();
            victims.iter().for_each(|number| children[*number as usize].kill());
            for number in victims {
                let stat = format!("/proc/{}/stat", children[number as usize].pid());
                wait_until("it is dead", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
                run(&segment, RECLAIM, 0, number, soon()).unwrap();
                let victim = std::mem::replace(&mut children[number as usize], start(number));
                assert_eq!(victim.wait(), Exit::Signal(libc::SIGKILL));
                kills += 1;
            }
        }
        segment.word64(STOP).unwrap().store(1, Ordering::SeqCst);
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!((raw(&segment, COUNT), all_held(&segment)), (UNITS, 0));
        println!("{kills} kills among {PROCESSES} processes");
        assert!(kills > 100);
    });
}

#[test]
fn scribbled_slots_are_an_error_or_work_and_never_hang() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for offset in (WAITERS..SLOTS + 3 * 0x80).step_by(8) {
            for value in [0, u64::MAX, 3, 0x4000_0000, 0x9e37_79b9_7f4a_7c15 ^ offset as u64] {
                let segment = units();
                let takers: Vec<_> = (1..=2)
                    .map(|number| {
                        let segment = &segment;
                        let until = Patience::Until(Instant::now() + Duration::from_millis(60));
                        fork(move || match run(segment, TAKE, 1, number, until) {
                            Ok(_) | Err(Errno::UCLEAN | Errno::TIMEDOUT | Errno::NOSPC | Errno::NOMEM) => {}
                            // A state that says SERVED may say anything about the errno.
                            Err(errno) => assert!(errno.raw_os_error() > 0),
                        })
                    })
                    .collect();
                wait_until("both sleep, or have ended", || {
                    takers
                        .iter()
                        .all(|taker| !taker.is_alive() || blocked_in(taker.pid(), libc::SYS_futex_waitv))
                });
                segment.word64(offset).unwrap().store(value, Ordering::SeqCst);
                let until = Patience::Until(Instant::now() + Duration::from_millis(500));
                match run(&segment, ADD, 2, 0, until) {
                    Ok(_) | Err(Errno::UCLEAN | Errno::TIMEDOUT) => {}
                    Err(errno) => panic!("{value:#x} at {offset:#x}: {errno}"),
                }
                takers.into_iter().for_each(|taker| taker.assert_ok());
                tried += 1;
            }
        }
        crate::common::tried("wait queue", tried);
    });
}

/// Changes something, and only then finds that it cannot be done: for whom it serves, when the count is not 0.
struct Hasty;

impl Object for Hasty {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        if guard.get(COUNT)? == 0 {
            return Ok(false);
        }
        for at in 0..3 {
            guard.set(TOTAL, 7 + at)?;
        }
        words[1] = 9;
        Err(Errno::RANGE)
    }

    fn take_back(&self, _: &mut Guard<'_>, _: &Words) -> Result<()> {
        Err(Errno::UCLEAN)
    }
}

#[test]
fn what_was_changed_for_somebody_whose_operation_then_failed_is_undone() {
    isolated(|| {
        let segment = units();
        let waiters = Waiters::of(&segment, WAITERS, 100, &Hasty).unwrap();
        let total = || segment.word64(TOTAL).unwrap().load(Ordering::SeqCst);
        let before = total();
        let sleepers: Vec<_> = (0..3)
            .map(|_| {
                let child = fork(|| assert_eq!(waiters.run([0; 7], Patience::Endless), Err(Errno::RANGE)));
                wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
                child
            })
            .collect();
        let mut guard = waiters.enter(None).unwrap();
        guard.set(COUNT, 1).unwrap();
        waiters.serve_others(guard).unwrap();
        sleepers.into_iter().for_each(|child| child.assert_ok());
        assert_eq!((total(), segment.word64(COUNT).unwrap().load(Ordering::SeqCst)), (before, 1));
        // One's own is undone as well.
        assert_eq!(waiters.run([0; 7], Patience::None), Err(Errno::RANGE));
        assert_eq!(total(), before);
    });
}
