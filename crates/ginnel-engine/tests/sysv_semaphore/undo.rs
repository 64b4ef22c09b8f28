//! `SEM_UNDO`: what is given back when a process ends, whichever way.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use ginnel_engine::Errno;
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::sysv_semaphore::{SysvSemaphores, VALUE_MAX};
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, Exit, fork, isolated, wait_blocked_in, wait_until};

use super::{NO_WAIT, UNDO, blocked, flagged, fresh, op, operate, set_of, still_blocked, values};
use crate::common::pause_for_ever;

/// A child that has done its work and does not end.
fn paused(work: impl FnOnce()) -> Child {
    let child = fork(|| {
        work();
        pause_for_ever()
    });
    wait_blocked_in(child.pid(), libc::SYS_pause);
    child
}

fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

#[test]
fn what_a_process_did_is_undone_when_it_ends() {
    isolated(|| {
        let set = set_of(&[5, 5, 5]);
        let child = fork(|| {
            operate(&set, &[flagged(0, -2, UNDO), flagged(1, 3, UNDO), op(2, -1)]).unwrap();
            operate(&set, &[flagged(0, -1, UNDO)]).unwrap();
            assert_eq!(values(&set), [2, 8, 4]);
        });
        let pid = child.pid() as u32;
        child.assert_ok();
        assert_eq!(values(&set), [5, 5, 4]);
        assert_eq!((set.last_pid(0), set.last_pid(1), set.last_pid(2)), (Ok(pid), Ok(pid), Ok(pid)));
    });
}

#[test]
fn it_is_undone_when_the_process_is_killed_and_wakes_who_waits() {
    isolated(|| {
        let set = set_of(&[1, 0]);
        let holder = paused(|| operate(&set, &[flagged(0, -1, UNDO), flagged(1, 1, UNDO)]).unwrap());
        let waiting = [blocked(&set, &[op(0, -1)]), blocked(&set, &[op(1, 0)])];
        killed(holder);
        waiting.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(values(&set), [0, 0]);
    });
}

#[test]
fn what_is_given_back_in_turn_cancels_out() {
    isolated(|| {
        let set = set_of(&[1]);
        fork(|| {
            operate(&set, &[flagged(0, -1, UNDO)]).unwrap();
            operate(&set, &[flagged(0, 1, UNDO)]).unwrap();
            operate(&set, &[op(0, 4)]).unwrap();
        })
        .assert_ok();
        assert_eq!(values(&set), [5]);
    });
}

#[test]
fn the_value_stays_within_its_range() {
    isolated(|| {
        let set = set_of(&[0, VALUE_MAX]);
        let holder = paused(|| operate(&set, &[flagged(0, 5, UNDO), flagged(1, -5, UNDO)]).unwrap());
        operate(&set, &[op(0, -3), op(1, 2)]).unwrap();
        killed(holder);
        assert_eq!(values(&set), [0, VALUE_MAX]);
    });
}

#[test]
fn an_adjustment_has_a_range_too() {
    isolated(|| {
        let set = fresh(2);
        fork(|| {
            let all = VALUE_MAX as i16;
            operate(&set, &[flagged(0, all, UNDO)]).unwrap();
            operate(&set, &[op(0, -all)]).unwrap();
            operate(&set, &[flagged(0, 1, UNDO)]).unwrap();
            assert_eq!(operate(&set, &[flagged(0, 1, UNDO)]), Err(Errno::RANGE), "-32768 is the least");
            assert_eq!(operate(&set, &[op(1, 1), flagged(0, 1, UNDO)]), Err(Errno::RANGE));
            operate(&set, &[op(1, all)]).unwrap();
            operate(&set, &[flagged(1, -all, UNDO)]).unwrap();
            operate(&set, &[op(1, 1)]).unwrap();
            assert_eq!(operate(&set, &[flagged(1, -1, UNDO)]), Err(Errno::RANGE), "32767 is the most");
            assert_eq!(values(&set), [1, 1]);
        })
        .assert_ok();
        assert_eq!(values(&set), [0, VALUE_MAX]);
    });
}

#[test]
fn a_child_has_none_of_its_parents_adjustments() {
    isolated(|| {
        let set = set_of(&[5]);
        let parent = paused(|| {
            operate(&set, &[flagged(0, -2, UNDO)]).unwrap();
            fork(|| {
                assert_eq!(values(&set), [3]);
                operate(&set, &[flagged(0, -1, UNDO)]).unwrap();
            })
            .assert_ok();
            assert_eq!(values(&set), [3]);
        });
        killed(parent);
        assert_eq!(values(&set), [5]);
    });
}

#[test]
fn another_program_in_the_same_process_keeps_them() {
    isolated(|| {
        let set = set_of(&[1]);
        let child = fork(|| {
            operate(&set, &[flagged(0, -1, UNDO)]).unwrap();
            panic!("{}", Command::new("sleep").arg("1000").exec());
        });
        wait_until("it is another program", || {
            std::fs::read_to_string(format!("/proc/{}/comm", child.pid())).unwrap() == "sleep\n"
        });
        assert_eq!(operate(&set, &[flagged(0, -1, NO_WAIT)]), Err(Errno::AGAIN));
        let waiting = blocked(&set, &[op(0, -1)]);
        assert!(still_blocked(&waiting));
        killed(child);
        waiting.assert_ok();
        assert_eq!(values(&set), [0]);
    });
}

#[test]
fn a_threads_end_is_not_its_processs() {
    isolated(|| {
        let set = set_of(&[2, 0]);
        let child = paused(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| operate(&set, &[flagged(0, -1, UNDO)]).unwrap());
            });
            assert_eq!(values(&set), [1, 0]);
            // Another of its threads, by the same account.
            operate(&set, &[flagged(0, -1, UNDO), flagged(0, 1, UNDO)]).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| operate(&set, &[flagged(1, 1, UNDO)]).unwrap());
            });
        });
        assert_eq!(values(&set), [1, 1]);
        let waiting = [blocked(&set, &[op(0, -2)]), blocked(&set, &[op(1, 0)])];
        assert!(waiting.iter().all(still_blocked));
        killed(child);
        waiting.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(values(&set), [0, 0]);
    });
}

#[test]
fn setting_a_value_clears_every_processs_adjustment_of_it() {
    isolated(|| {
        for count in [2, 150, 400] {
            let mut all = vec![5; count];
            let set = set_of(&all);
            let take = || paused(|| operate(&set, &[flagged(0, -1, UNDO), flagged(1, -1, UNDO)]).unwrap());
            let children = [take(), take()];
            set.set_value(0, 7).unwrap();
            children.into_iter().for_each(killed);
            all[0] = 7;
            assert_eq!(values(&set), all, "{count}");
            let children = [take(), take()];
            all.fill(9);
            set.set_values(&all).unwrap();
            children.into_iter().for_each(killed);
            assert_eq!(values(&set), all, "{count}");
        }
    });
}

#[test]
fn a_blocked_call_is_undone_for_the_process_that_was_blocked() {
    isolated(|| {
        let set = set_of(&[0, 0]);
        let served = fork(|| {
            operate(&set, &[flagged(0, -2, UNDO), flagged(1, 1, UNDO)]).unwrap();
            pause_for_ever()
        });
        wait_blocked_in(served.pid(), libc::SYS_futex_waitv);
        operate(&set, &[flagged(0, 2, UNDO)]).unwrap();
        wait_blocked_in(served.pid(), libc::SYS_pause);
        assert_eq!(values(&set), [0, 1]);
        let pid = served.pid() as u32;
        killed(served);
        assert_eq!((values(&set), set.last_pid(0)), (vec![2, 0], Ok(pid)));
        // A call that does nothing with undo leaves nothing to undo.
        let killed_while_blocked = blocked(&set, &[flagged(0, -3, UNDO)]);
        killed(killed_while_blocked);
        assert_eq!(values(&set), [2, 0]);
    });
}

#[test]
fn many_semaphores_are_undone_at_once() {
    isolated(|| {
        for count in [1_u16, 4, 97, 99, 300, 499] {
            let set = fresh(usize::from(count) + 1);
            let holder = paused(|| {
                let operations: Vec<_> = (0..count).map(|index| flagged(index, 3, UNDO)).collect();
                operate(&set, &operations).unwrap();
            });
            let mut expected = vec![3; usize::from(count)];
            expected.push(0);
            assert_eq!(values(&set), expected, "{count}");
            let operations: Vec<_> =
                (0..count).map(|index| flagged(index, -1, UNDO)).chain([op(count, -1)]).collect();
            let waiting = fork(|| {
                operate(&set, &operations).unwrap();
                pause_for_ever()
            });
            wait_blocked_in(waiting.pid(), libc::SYS_futex_waitv);
            operate(&set, &[op(count, 1)]).unwrap();
            wait_blocked_in(waiting.pid(), libc::SYS_pause);
            expected[..usize::from(count)].fill(2);
            assert_eq!(values(&set), expected, "{count}");
            killed(waiting);
            let zeroes: Vec<_> = (0..count).map(|index| op(index, 0)).collect();
            let zero = blocked(&set, &zeroes);
            killed(holder);
            zero.assert_ok();
            assert!(values(&set).iter().all(|value| *value == 0), "{count}");
        }
    });
}

#[test]
fn many_processes_have_accounts_of_their_own() {
    isolated(|| {
        let set = set_of(&[100]);
        for _ in 0..2 {
            let children: Vec<_> = (1..=20)
                .map(|units| {
                    paused(|| {
                        let _ = operate(&set, &[flagged(0, -units, UNDO | NO_WAIT)]);
                    })
                })
                .collect();
            let held: u16 = 100 - values(&set)[0];
            assert!(held > 80, "most of them got theirs");
            children.into_iter().for_each(killed);
            assert_eq!(values(&set), [100]);
        }
    });
}

#[test]
fn a_process_uses_undo_on_any_number_of_sets_one_after_the_other() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        for _ in 0..1_000 {
            let id = SysvSemaphores::get(&home, libc::IPC_PRIVATE, 1, 0o600).unwrap();
            let set = SysvSemaphores::open(&home, id).unwrap();
            set.operate(&[flagged(0, 1, UNDO)], Patience::None).unwrap();
            SysvSemaphores::remove(&home, id).unwrap();
        }
        // And its death is still told.
        let set = fresh(1);
        fork(|| set.operate(&[flagged(0, 1, UNDO)], Patience::None).unwrap()).assert_ok();
        assert_eq!(set.value(0), Ok(0));
    });
}

#[test]
fn a_process_uses_undo_on_thousands_of_sets_at_once() {
    const SETS: usize = 2000;
    isolated(|| {
        rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) },
        )
        .unwrap();
        let home = Namespace::private().unwrap();
        let ids: Vec<i32> = (0..SETS)
            .map(|_| SysvSemaphores::get(&home, libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600).unwrap())
            .collect();
        let open = |id: i32| SysvSemaphores::open(&home, id).unwrap();
        let value = |set: &SysvSemaphores| set.value(0).unwrap();
        let holder = paused(|| {
            let sets: Vec<_> = ids.iter().map(|id| open(*id)).collect();
            for set in &sets {
                operate(set, &[flagged(0, 3, UNDO)]).unwrap();
            }
            // Once more: also those that are asked for know their own adjustments.
            for set in &sets {
                operate(set, &[flagged(0, -1, UNDO)]).unwrap();
            }
            // A thread's death is still told: of locks, and of those who are blocked.
            assert_eq!(sets[SETS - 1].operate(&[op(0, -9)], Patience::None), Err(Errno::AGAIN));
            std::mem::forget(sets);
        });
        let last = open(ids[SETS - 1]);
        assert_eq!(value(&last), 2);
        // The process lives: nothing is undone, and others go on.
        operate(&last, &[op(0, 1)]).unwrap();
        let waiting = [blocked(&last, &[op(0, 0)]), blocked(&open(ids[0]), &[op(0, 0)])];
        operate(&last, &[op(0, -1)]).unwrap();
        assert_eq!(value(&last), 2);
        killed(holder);
        waiting.into_iter().for_each(|child| child.assert_ok());
        for id in &ids {
            assert_eq!(value(&open(*id)), 0);
        }
    });
}

#[test]
fn who_has_another_clock_takes_nobody_for_dead() {
    isolated(|| {
        let set = set_of(&[5]);
        // One that is asked for: the thread that took it has ended.
        let holder = paused(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| operate(&set, &[flagged(0, -2, UNDO)]).unwrap());
            });
        });
        let other = fork(|| {
            // SAFETY: nothing that threads share is taken apart.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWTIME) }.unwrap();
            std::fs::write("/proc/self/timens_offsets", "boottime 100000 7000000\n").unwrap();
            // In it are only those who are made from here on.
            let user = paused(|| {
                assert_eq!(values(&set), [3]);
                std::thread::scope(|scope| {
                    scope.spawn(|| operate(&set, &[flagged(0, -1, UNDO)]).unwrap());
                });
                assert_eq!(values(&set), [2]);
            });
            assert_eq!(values(&set), [2]);
            killed(user);
            assert_eq!(values(&set), [3]);
        });
        other.assert_ok();
        assert_eq!(values(&set), [3]);
        killed(holder);
        assert_eq!(values(&set), [5]);
    });
}
