//! Processes killed at every instruction of a call, of being served, of giving back what a dead one had, of removing.

use std::time::Duration;

use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::{Errno, wait::Patience};
use ginnel_testkit::{Child, Exit, fork, isolated_for, wait_blocked_in, wait_until};
use libc::sembuf;

use super::{Home, UNDO, blocked, flagged, fresh, op, operate, set_of, still_blocked, values};
use crate::common::{Stepped, pause_for_ever};

/// Every how many instructions: all take minutes, `GINNEL_STRIDE=1` is for them.
fn stride() -> usize {
    crate::common::stride_or(127)
}

/// Kills a process at every `stride`-th instruction of `work`, `meanwhile` having been called before. Says how many there
/// were.
fn kill_at_every<T>(
    stride: usize,
    prepare: impl Fn() -> T,
    work: impl Fn(&T),
    meanwhile: impl Fn(&mut T),
    check: impl Fn(T, &str),
) -> usize {
    let mut kills = 0;
    for steps in (0..).step_by(stride) {
        let mut prepared = prepare();
        let victim = Stepped::start(|| work(&prepared));
        let in_work = (0..steps).all(|_| victim.step());
        meanwhile(&mut prepared);
        victim.kill();
        check(prepared, &format!("killed after {steps} instructions"));
        kills += 1;
        if !in_work {
            return kills;
        }
    }
    unreachable!("a call has an end")
}

fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

fn has_ended(children: &[Child]) -> bool {
    children.iter().all(|child| !child.is_alive())
}

#[test]
fn what_a_holder_took_comes_back_wherever_it_is_killed() {
    isolated_for(crate::common::limit(), || {
        let kills = kill_at_every(
            stride(),
            || (set_of(&[1]), None),
            |(set, _)| operate(set, &[flagged(0, -1, UNDO)]).unwrap(),
            |(set, waiting)| {
                // Blocked by what the victim took, or by the lock it holds; or not at all.
                let child = fork(|| operate(set, &[op(0, -1)]).unwrap());
                wait_until("it sleeps or has it", || {
                    !child.is_alive() || ginnel_testkit::blocked_in(child.pid(), libc::SYS_futex_waitv)
                });
                *waiting = Some(child);
            },
            |(set, waiting), at| {
                waiting.unwrap().assert_ok();
                assert_eq!((values(&set), set.waiting(0)), (vec![0], Ok(0)), "{at}");
            },
        );
        println!("{kills} kills");
        crate::common::crash("semop with undo");
        assert!(kills > 10);
    });
}

#[test]
fn taking_and_giving_in_turn_leaves_nothing_wherever_it_is_killed() {
    isolated_for(crate::common::limit(), || {
        let kills = kill_at_every(
            2 * stride(),
            || set_of(&[3, 0]),
            |set| {
                operate(set, &[flagged(0, -1, UNDO), flagged(1, 1, UNDO)]).unwrap();
                operate(set, &[flagged(0, 1, UNDO), flagged(1, -1, UNDO)]).unwrap();
            },
            |_| (),
            |set, at| {
                assert_eq!(values(&set), [3, 0], "{at}");
                operate(&set, &[op(0, -3), op(1, 0)]).unwrap();
            },
        );
        println!("{kills} kills");
        crate::common::crash("semop with undo, take and give");
        assert!(kills > 10);
    });
}

#[test]
fn whoever_gives_is_killed_and_nobody_stays_blocked() {
    isolated_for(crate::common::limit(), || {
        let kills = kill_at_every(
            3 * stride(),
            || {
                let set = set_of(&[0, 1]);
                let children = vec![
                    blocked(&set, &[op(0, -1)]),
                    blocked(&set, &[op(0, -1), op(0, 0)]),
                    blocked(&set, &[op(1, 0)]),
                ];
                (set, children)
            },
            |(set, _)| operate(set, &[op(0, 2), op(1, -1)]).unwrap(),
            |_| (),
            |(set, children), at| {
                if set.value(1) == Ok(1) {
                    assert_eq!(values(&set), [0, 1], "all or nothing, {at}");
                    assert!(children.iter().all(still_blocked));
                    operate(&set, &[op(0, 2), op(1, -1)]).unwrap();
                }
                children.into_iter().for_each(|child| child.assert_ok());
                assert_eq!(
                    (values(&set), set.waiting(0), set.waiting_zero(1)),
                    (vec![0, 0], Ok(0), Ok(0)),
                    "{at}"
                );
            },
        );
        println!("{kills} kills");
        crate::common::crash("semop, giving to three");
        assert!(kills > 10);
    });
}

/// Kills one that is blocked, served when it sleeps, at each `stride`-th instruction.
fn served_and_killed(
    stride: usize,
    flag: i16,
    check: impl Fn(&Home, &[Child], bool, &str),
) -> (usize, usize) {
    let mut kills = (0, 0);
    for steps in (0..).step_by(stride) {
        let set = set_of(&[0]);
        let victim = Stepped::start(|| operate(&set, &[flagged(0, -1, flag)]).unwrap());
        let mut given = false;
        let mut behind = Vec::new();
        let mut in_work = true;
        for _ in 0..steps {
            in_work = victim.step_watched(|_| {
                if !given && set.waiting(0) == Ok(1) {
                    behind.push(blocked(&set, &[op(0, -1)]));
                    operate(&set, &[op(0, 1)]).unwrap();
                    given = true;
                }
            });
            if !in_work {
                break;
            }
        }
        victim.kill();
        check(&set, &behind, given, &format!("killed after {steps} instructions"));
        if given {
            kills.1 += 1;
        } else {
            kills.0 += 1;
        }
        if !in_work {
            return kills;
        }
    }
    unreachable!("a call has an end")
}

#[test]
fn one_that_was_served_is_killed_and_the_next_gets_it() {
    isolated_for(crate::common::limit(), || {
        let kills = served_and_killed(stride(), UNDO, |set, behind, given, at| {
            if given {
                wait_until(&format!("the next has it, {at}"), || has_ended(behind));
            }
            assert_eq!((values(set), set.waiting(0)), (vec![0], Ok(0)), "{at}");
        });
        println!("{} kills before it was served, {} after", kills.0, kills.1);
        crate::common::crash("semop with undo, served");
        assert!(kills.0 > 10 && kills.1 > 2);
    });
}

#[test]
fn one_that_was_served_without_undo_has_taken_it() {
    isolated_for(crate::common::limit(), || {
        let kills = served_and_killed(3 * stride(), 0, |set, behind, given, at| {
            assert_eq!((values(set), set.waiting(0)), (vec![0], Ok(u32::from(given))), "{at}");
            operate(set, &[op(0, 1)]).unwrap();
            if given {
                wait_until(&format!("the next has its own, {at}"), || has_ended(behind));
            } else {
                assert_eq!(values(set), [1], "{at}");
            }
        });
        println!("{} kills before it was served, {} after", kills.0, kills.1);
        crate::common::crash("semop, served");
        assert!(kills.0 > 5 && kills.1 > 0);
    });
}

/// One that has taken a unit of each of so many semaphores, with undo.
fn holder_of(set: &SysvSemaphores, count: u16) -> Child {
    let operations: Vec<_> = (0..count).map(|index| flagged(index, -1, UNDO)).collect();
    let child = fork(|| {
        operate(set, &operations).unwrap();
        pause_for_ever()
    });
    wait_blocked_in(child.pid(), libc::SYS_pause);
    child
}

#[test]
fn setting_all_values_is_done_or_not_done_in_large_sets_too() {
    isolated_for(crate::common::limit(), || {
        for (count, stride) in [(2_usize, stride()), (150, 7 * stride()), (400, 15 * stride())] {
            let kills = kill_at_every(
                stride,
                || {
                    let set = set_of(&vec![5; count]);
                    let holder = holder_of(&set, 2);
                    (set, holder)
                },
                |(set, _)| set.set_values(&vec![9; count]).unwrap(),
                |_| (),
                |(set, holder), at| {
                    let seen = values(&set);
                    let expected = if seen[0] == 9 { [9, 9, 9] } else { [4, 4, 5] };
                    assert_eq!(seen[..2], expected[..2], "{at}, {count} semaphores");
                    assert!(seen[2..].iter().all(|value| *value == expected[2]), "{at}: {seen:?}");
                    killed(holder);
                    let after = if seen[0] == 9 { 9 } else { 5 };
                    assert!(values(&set).iter().all(|value| *value == after), "{at}, {count} semaphores");
                },
            );
            println!("{kills} kills with {count} semaphores");
            crate::common::crash(&format!("SETALL, {count} semaphores"));
            assert!(kills > 5);
        }
    });
}

#[test]
fn many_operations_of_one_call_are_done_or_not_done() {
    isolated_for(crate::common::limit(), || {
        const COUNT: u16 = 250;
        let all = |change: i16| (0..COUNT).map(|index| flagged(index, change, UNDO)).collect::<Vec<sembuf>>();
        let kills = kill_at_every(
            150 * stride(),
            || {
                let set = set_of(&[5; COUNT as usize]);
                let waiting = blocked(&set, &[op(0, 0)]);
                (set, waiting)
            },
            |(set, _)| {
                operate(set, &all(-2)).unwrap();
                operate(set, &all(-1)).unwrap();
            },
            |_| (),
            |(set, waiting), at| {
                assert!(values(&set).iter().all(|value| *value == 5), "{at}: {:?}", values(&set));
                operate(&set, &[op(0, -5)]).unwrap();
                waiting.assert_ok();
            },
        );
        println!("{kills} kills");
        crate::common::crash("semop with undo, 250 operations");
        assert!(kills > 5);
    });
}

#[test]
fn what_a_dead_one_had_is_given_back_once() {
    isolated_for(crate::common::limit(), || {
        const COUNT: u16 = 240;
        let kills = kill_at_every(
            9 * stride(),
            || {
                let set = set_of(&[5; COUNT as usize]);
                killed(holder_of(&set, COUNT));
                set
            },
            |set| assert_eq!(set.value(0), Ok(5)),
            |_| (),
            |set, at| assert!(values(&set).iter().all(|value| *value == 5), "{at}: {:?}", values(&set)),
        );
        println!("{kills} kills");
        crate::common::crash("semop: undo of a dead one, 240 semaphores");
        assert!(kills > 5);
    });
}

#[test]
fn a_set_is_removed_or_not_removed() {
    isolated_for(crate::common::limit(), || {
        let kills = kill_at_every(
            4 * stride(),
            || {
                let set = fresh(1);
                let wait = || set.operate(&[op(0, -1)], Patience::Endless);
                let child = fork(|| assert!(matches!(wait(), Ok(()) | Err(Errno::IDRM))));
                wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
                (set, child)
            },
            |(set, _)| set.remove().unwrap(),
            |_| (),
            |(set, child), at| {
                match operate(&set, &[op(0, 1)]) {
                    Ok(()) => assert_eq!(set.remove(), Ok(()), "{at}"),
                    Err(errno) => {
                        assert_eq!(errno, Errno::INVAL, "{at}");
                        assert!(matches!(set.remove(), Err(Errno::INVAL)), "{at}");
                    }
                }
                child.assert_ok();
            },
        );
        println!("{kills} kills");
        crate::common::crash("semctl IPC_RMID with a sleeper");
        assert!(kills > 10);
    });
}

#[test]
fn processes_killed_at_random_give_back_all_that_they_had() {
    isolated_for(Duration::from_secs(120), || {
        const PROCESSES: usize = 10;
        let set = set_of(&[2, 2, 4, 0]);
        let start = |number: usize| {
            let set = &set;
            fork(move || {
                let (first, second) = if number.is_multiple_of(2) { (0, 1) } else { (1, 0) };
                loop {
                    operate(set, &[flagged(first, -1, UNDO), flagged(2, -1, UNDO), flagged(3, 1, UNDO)])
                        .unwrap();
                    operate(set, &[flagged(second, -1, UNDO)]).unwrap_or(());
                    let back = [flagged(3, -1, UNDO), flagged(first, 1, UNDO), flagged(2, 1, UNDO)];
                    operate(set, &back).unwrap();
                    operate(set, &[flagged(second, 1, UNDO)]).unwrap();
                }
            })
        };
        let mut children: Vec<_> = (0..PROCESSES).map(start).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut kills = 0;
        let end = std::time::Instant::now() + Duration::from_secs(6);
        while std::time::Instant::now() < end {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros(random >> 52));
            for nth in 0..=(random >> 20) % 3 {
                let number = ((random >> 33) + nth * 3) as usize % PROCESSES;
                let victim = std::mem::replace(&mut children[number], start(number));
                killed(victim);
                kills += 1;
            }
            let seen = values(&set);
            assert!(seen[0] <= 2 && seen[1] <= 2 && seen[2] + seen[3] == 4, "{seen:?}");
        }
        children.into_iter().for_each(killed);
        assert_eq!(values(&set), [2, 2, 4, 0]);
        println!("{kills} kills among {PROCESSES} processes");
        assert!(kills > 50);
    });
}
