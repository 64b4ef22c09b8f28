//! The lock and its journal, with real processes killed at every instruction.

mod common;

use std::time::{Duration, Instant};

use common::{Stepped, directory, pause_for_ever, signal_self};
use ginnel_engine::lock::{CHANGES_MAX, Lock};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Exit, fork, isolated, isolated_for, wait_blocked_in};
use rustix::fs::Mode;

const FROM: usize = HEADER_BYTES;
const TO: usize = HEADER_BYTES + 8;
const BEGINNING: u64 = 1_000_000;
const LOCK_WORD: usize = 0x40;
const JOURNAL_COUNT: usize = 0x58;

fn accounts() -> Segment {
    let mode = Mode::RUSR | Mode::WUSR;
    Segment::create(directory(), c"accounts", mode, 1 << 20, |segment| {
        segment.word64(FROM)?.store(BEGINNING, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    })
    .unwrap()
}

/// Moves one unit: two words that must change together.
fn transfer(segment: &Segment) -> Result<()> {
    let mut guard = Lock::of(segment).acquire(None)?;
    guard.set(FROM, guard.get(FROM)?.wrapping_sub(1))?;
    guard.set(TO, guard.get(TO)?.wrapping_add(1))?;
    guard.commit();
    Ok(())
}

/// Both words, taken together.
fn balance(segment: &Segment) -> (u64, u64) {
    let guard = Lock::of(segment).acquire(Some(Instant::now() + Duration::from_secs(10))).unwrap();
    (guard.get(FROM).unwrap(), guard.get(TO).unwrap())
}

#[test]
fn what_is_not_committed_is_undone() {
    isolated(|| {
        let segment = accounts();
        transfer(&segment).unwrap();
        let mut guard = Lock::of(&segment).acquire(None).unwrap();
        guard.set(FROM, 7).unwrap();
        guard.set(TO, 8).unwrap();
        guard.set(FROM, 9).unwrap();
        drop(guard);
        assert_eq!(balance(&segment), (BEGINNING - 1, 1));
    });
}

#[test]
fn the_journal_has_an_end_and_guards_the_header() {
    isolated(|| {
        let segment = accounts();
        let mut guard = Lock::of(&segment).acquire(None).unwrap();
        assert_eq!(guard.set(LOCK_WORD, 1), Err(Errno::UCLEAN));
        assert_eq!(guard.set(TO + 1, 1), Err(Errno::UCLEAN));
        assert_eq!(guard.set(1 << 30, 1), Err(Errno::UCLEAN));
        for change in 0..CHANGES_MAX {
            guard.set(TO, change as u64).unwrap();
        }
        assert_eq!(guard.set(TO, 0), Err(Errno::TOOBIG));
        drop(guard);
        assert_eq!(balance(&segment), (BEGINNING, 0));
    });
}

#[test]
fn many_processes_and_threads_lose_nothing() {
    isolated(|| {
        const ROUNDS: u64 = 20_000;
        let segment = accounts();
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    // Opened anew: at another address.
                    let segment = Segment::open(directory(), c"accounts").unwrap();
                    std::thread::scope(|scope| {
                        for _ in 0..2 {
                            scope.spawn(|| (0..ROUNDS / 2).for_each(|_| transfer(&segment).unwrap()));
                        }
                    });
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(balance(&segment), (BEGINNING - 4 * ROUNDS, 4 * ROUNDS));
    });
}

#[test]
fn a_stopped_holder_delays_and_breaks_nothing() {
    isolated(|| {
        let segment = accounts();
        let holder = fork(|| {
            let guard = Lock::of(&segment).acquire(None).unwrap();
            signal_self(libc::SIGSTOP);
            drop(guard);
        });
        ginnel_testkit::wait_until("the holder stops", || {
            segment.word32(LOCK_WORD).unwrap().load(std::sync::atomic::Ordering::Relaxed) != 0
                && std::fs::read_to_string(format!("/proc/{}/stat", holder.pid())).unwrap().contains(") T ")
        });
        let soon = Some(Instant::now() + Duration::from_millis(250));
        assert_eq!(Lock::of(&segment).acquire(soon).unwrap_err(), Errno::TIMEDOUT);
        let waiter = fork(|| transfer(&segment).unwrap());
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        holder.signal(libc::SIGCONT);
        holder.assert_ok();
        waiter.assert_ok();
        assert_eq!(balance(&segment), (BEGINNING - 1, 1));
    });
}

#[test]
fn a_holder_killed_with_sleepers_behind_it_keeps_nobody() {
    isolated(|| {
        let segment = accounts();
        for _ in 0..20 {
            let holder = fork(|| {
                let mut guard = Lock::of(&segment).acquire(None).unwrap();
                guard.set(FROM, 0).unwrap();
                pause_for_ever();
            });
            wait_blocked_in(holder.pid(), libc::SYS_pause);
            let sleepers: Vec<_> = (0..4).map(|_| fork(|| transfer(&segment).unwrap())).collect();
            sleepers.iter().for_each(|child| wait_blocked_in(child.pid(), libc::SYS_futex_waitv));
            holder.kill();
            assert_eq!(holder.wait(), Exit::Signal(libc::SIGKILL));
            sleepers.into_iter().for_each(|child| child.assert_ok());
        }
        assert_eq!(balance(&segment), (BEGINNING - 80, 80));
    });
}

#[test]
fn a_thread_that_ends_with_the_lock_is_a_death_too() {
    isolated(|| {
        let segment = accounts();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut guard = Lock::of(&segment).acquire(None).unwrap();
                guard.set(FROM, 0).unwrap();
                std::mem::forget(guard);
            });
        });
        assert_eq!(balance(&segment), (BEGINNING, 0));
    });
}

#[test]
fn an_exec_with_the_lock_is_a_death_too() {
    isolated(|| {
        let segment = accounts();
        let holder = fork(|| {
            let mut guard = Lock::of(&segment).acquire(None).unwrap();
            guard.set(FROM, 0).unwrap();
            std::mem::forget(guard);
            let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("true"));
            panic!("{error}");
        });
        holder.assert_ok();
        assert_eq!(balance(&segment), (BEGINNING, 0));
    });
}

/// Kills a process after its first, second, third ... instruction of `work`, until the work is done before the kill.
/// After each kill `check` looks at what is left. Gives the number of kills.
fn kill_at_every_instruction(work: impl Fn(), mut check: impl FnMut(u32)) -> u32 {
    for steps in 0.. {
        let child = Stepped::start(&work);
        let in_work = (0..steps).all(|_| child.step());
        child.kill();
        check(steps);
        if !in_work {
            return steps;
        }
    }
    unreachable!("an operation has an end")
}

#[test]
fn killed_at_every_instruction_a_transfer_is_whole_or_undone() {
    isolated_for(crate::common::limit(), || {
        let segment = accounts();
        let mut done = 0;
        let kills = kill_at_every_instruction(
            || transfer(&segment).unwrap(),
            |steps| {
                let (from, to) = balance(&segment);
                assert_eq!(from + to, BEGINNING, "half done after {steps} instructions");
                assert!(to == done || to == done + 1, "after {steps} instructions");
                done = to;
            },
        );
        assert!(done >= 1 && kills > 50, "{kills} kills, {done} transfers");
        println!("{kills} instructions, {kills} kills, {done} of them after the commit");
        crate::common::crash("lock, a change, commit");
    });
}

#[test]
fn killed_at_every_instruction_somebody_waiting_goes_on() {
    isolated_for(crate::common::limit(), || {
        let segment = accounts();
        let mut transfers = 0;
        let mut kills = 0;
        for steps in 0.. {
            let child = Stepped::start(|| transfer(&segment).unwrap());
            let in_work = (0..steps).all(|_| child.step());
            // Asleep behind it, if it holds the lock; else at once done.
            let waiter = fork(|| transfer(&segment).unwrap());
            if segment.word32(LOCK_WORD).unwrap().load(std::sync::atomic::Ordering::Relaxed) != 0 {
                wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
            }
            child.kill();
            waiter.assert_ok();
            kills += 1;
            let (from, to) = balance(&segment);
            assert_eq!(from + to, BEGINNING, "half done after {steps} instructions");
            assert!(to == transfers + 1 || to == transfers + 2, "after {steps} instructions");
            transfers = to;
            if !in_work {
                break;
            }
        }
        println!("{kills} kills, each with somebody waiting");
        crate::common::crash("lock, with somebody waiting");
        assert!(kills > 50);
    });
}

#[test]
fn killed_at_every_instruction_of_undoing_it_is_undone_by_the_next() {
    isolated_for(crate::common::limit(), || {
        let segment = accounts();
        let kills = kill_at_every_instruction(
            || {
                // What a holder that died in the middle left behind.
                drop(Lock::of(&segment).acquire(None).unwrap());
            },
            |steps| {
                assert_eq!(balance(&segment), (BEGINNING, 0), "after {steps} instructions");
                let dead = fork(|| {
                    let mut guard = Lock::of(&segment).acquire(None).unwrap();
                    guard.set(FROM, 1).unwrap();
                    guard.set(TO, 2).unwrap();
                    signal_self(libc::SIGKILL);
                });
                assert_eq!(dead.wait(), Exit::Signal(libc::SIGKILL));
            },
        );
        assert!(kills > 20, "{kills} kills");
    });
}

#[test]
fn a_scribbled_lock_is_an_error_or_works_and_never_hangs() {
    isolated_for(Duration::from_secs(120), || {
        let segment = accounts();
        let mut words =
            vec![0, 1, u64::MAX, u64::MAX / 2, 0x4000_0000, 0x8000_0000, 0xc000_0000, 0x3fff_ffff];
        words.extend((1..60).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for offset in (LOCK_WORD..HEADER_BYTES).step_by(8) {
            for value in &words {
                segment.word64(offset).unwrap().store(*value, std::sync::atomic::Ordering::Relaxed);
                // The number of a process that lives cannot be told from one that was stopped with the lock.
                let names_somebody = offset == LOCK_WORD && (1..10).contains(&(*value as u32 & 0x3fff_ffff));
                let limit = if names_somebody { Duration::from_millis(50) } else { Duration::from_secs(5) };
                match Lock::of(&segment).acquire(Some(Instant::now() + limit)).map(drop) {
                    Ok(()) | Err(Errno::UCLEAN) => {}
                    Err(Errno::TIMEDOUT) if names_somebody => {}
                    Err(errno) => panic!("{value:#x} at {offset:#x}: {errno}"),
                }
                // As the next object would find it.
                segment.word64(LOCK_WORD).unwrap().store(0, std::sync::atomic::Ordering::Relaxed);
                segment.word64(JOURNAL_COUNT).unwrap().store(0, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
}

#[test]
fn a_journal_that_cannot_be_true_is_refused() {
    isolated(|| {
        let segment = accounts();
        let dead_with = |count: u64, offset: u64| {
            let word = |at: usize| segment.word64(at).unwrap();
            word(JOURNAL_COUNT).store(count, std::sync::atomic::Ordering::Relaxed);
            word(0x100).store(offset, std::sync::atomic::Ordering::Relaxed);
            let lock = segment.word32(LOCK_WORD).unwrap();
            lock.store(0x4000_0000 | 0x3fff, std::sync::atomic::Ordering::Relaxed);
            Lock::of(&segment).acquire(None).map(drop)
        };
        assert_eq!(dead_with(CHANGES_MAX as u64 + 1, FROM as u64), Err(Errno::UCLEAN));
        assert_eq!(dead_with(1, 0), Err(Errno::UCLEAN), "into the header");
        assert_eq!(dead_with(1, FROM as u64 + 3), Err(Errno::UCLEAN), "not aligned");
        assert_eq!(dead_with(1, 1 << 40), Err(Errno::UCLEAN), "outside");
        // And by everybody: nobody goes on with half of it done.
        assert_eq!(Lock::of(&segment).acquire(None).map(drop), Err(Errno::UCLEAN));
        assert_eq!(Lock::of(&segment).acquire(None).map(drop), Err(Errno::UCLEAN), "for ever");
        assert_eq!(dead_with(1, FROM as u64), Ok(()));
        assert_eq!(Lock::of(&segment).acquire(None).map(drop), Ok(()));
    });
}

#[test]
fn who_finds_that_its_own_journal_was_scribbled_over_leaves_it_to_nobody() {
    isolated(|| {
        let segment = accounts();
        let mut guard = Lock::of(&segment).acquire(None).unwrap();
        guard.set(FROM, 5).unwrap();
        segment.word64(0x100).unwrap().store(3, std::sync::atomic::Ordering::Relaxed);
        let waits = fork(|| assert_eq!(Lock::of(&segment).acquire(None).map(drop), Err(Errno::UCLEAN)));
        ginnel_testkit::wait_blocked_in(waits.pid(), libc::SYS_futex_waitv);
        drop(guard);
        waits.assert_ok();
        assert_eq!(Lock::of(&segment).acquire(None).map(drop), Err(Errno::UCLEAN));
    });
}
