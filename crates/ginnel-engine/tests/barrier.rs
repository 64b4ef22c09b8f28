//! The process-shared barrier, with real processes killed at every instruction of waiting and completing a round.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, Stepped, hostile, is_stopped, killed, number, stride_or};
use ginnel_engine::Errno;
use ginnel_engine::sync::barrier::Barrier;
use ginnel_testkit::{Child, blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};

const LEADERS: usize = 0;
const STOP: usize = 1;
const ROUNDS: usize = 2;

fn barrier(parties: u32) -> Barrier<'static> {
    number(LEADERS).store(0, Ordering::SeqCst);
    Barrier::init(common::region(), 64, parties).unwrap()
}

fn get(index: usize) -> u64 {
    number(index).load(Ordering::SeqCst)
}

fn come(barrier: Barrier<'_>) {
    if barrier.wait(None).unwrap() {
        number(LEADERS).fetch_add(1, Ordering::SeqCst);
    }
}

fn waiting(barrier: Barrier<'static>) -> Child {
    let child = fork(|| come(barrier));
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

#[test]
fn the_rules() {
    isolated(|| {
        let region = common::region();
        assert_eq!(Barrier::init(region, 0, 0).unwrap_err(), Errno::INVAL);
        assert_eq!(Barrier::init(region, 32, 2).unwrap_err(), Errno::INVAL, "not aligned");
        assert_eq!(Barrier::init(region, 0, 60_000).unwrap_err(), Errno::INVAL, "no room");
        assert_eq!(Barrier::open(region, 0).unwrap_err(), Errno::UCLEAN, "nobody has made one");
        Barrier::init(region, 0, 7).unwrap();
        assert_eq!(Barrier::open(region, 0).unwrap().parties(), 7);
        let alone = barrier(1);
        (0..3).for_each(|_| assert_eq!(alone.wait(None), Ok(true)));
    });
}

#[test]
fn all_go_on_together_and_one_leads() {
    isolated(|| {
        let three = barrier(3);
        let others = [waiting(three), waiting(three)];
        assert_eq!(get(LEADERS), 0);
        come(three);
        others.into_iter().for_each(|other| other.assert_ok());
        assert_eq!(get(LEADERS), 1);
    });
}

#[test]
fn round_after_round_nobody_is_ahead() {
    isolated(|| {
        const EACH: u64 = 3000;
        let four = barrier(4);
        let children: Vec<_> = (0..4)
            .map(|place| {
                fork(move || {
                    for round in 0..EACH {
                        number(8 + place).store(round, Ordering::SeqCst);
                        come(four);
                        let others = (0..4).map(|other| get(8 + other));
                        assert!(others.clone().all(|other| other == round || other == round + 1));
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(get(LEADERS), EACH);
    });
}

#[test]
fn who_gives_up_or_is_killed_does_not_count() {
    isolated(|| {
        let three = barrier(3);
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(three.wait(Some(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until, "before its deadline");
        let first = waiting(three);
        (0..20).for_each(|_| killed(waiting(three)));
        let second = waiting(three);
        assert!(first.is_alive(), "only two have come");
        come(three);
        first.assert_ok();
        second.assert_ok();
    });
}

#[test]
fn one_that_was_stopped_on_its_way_out_keeps_nobody() {
    isolated(|| {
        let two = barrier(2);
        let stopped = waiting(two);
        stopped.signal(libc::SIGSTOP);
        wait_until("it is stopped", || is_stopped(&stopped));
        come(two);
        for _ in 0..3 {
            let other = waiting(two);
            come(two);
            other.assert_ok();
        }
        stopped.signal(libc::SIGCONT);
        stopped.assert_ok();
        assert_eq!(get(LEADERS), 4);
    });
}

#[test]
fn a_party_killed_at_every_instruction_counts_or_does_not() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(97)) {
            let three = barrier(3);
            let first = waiting(three);
            let victim = Stepped::start(|| come(three));
            let mut asleep = false;
            let going = (0..steps).all(|_| victim.step_unless(&mut asleep) && !asleep);
            victim.kill();
            let second = waiting(three);
            come(three);
            first.assert_ok();
            second.assert_ok();
            kills += 1;
            if !going {
                break;
            }
        }
        println!("{kills} kills of one who comes");
        crate::common::crash("barrier wait");
        assert!(kills > 3);
    });
}

#[test]
fn who_completes_the_round_killed_at_every_instruction_leaves_nobody_behind() {
    isolated_for(crate::common::limit(), || {
        let (mut before, mut after) = (0, 0);
        for steps in (0..).step_by(stride_or(7)) {
            let three = barrier(3);
            let others = [waiting(three), waiting(three)];
            let victim = Stepped::start(|| come(three));
            let going = (0..steps).all(|_| victim.step());
            // The round's number stands behind that of the parties.
            let complete = common::word(64 + 64 + 8).load(Ordering::SeqCst) == 1;
            victim.kill();
            if complete {
                after += 1;
            } else {
                before += 1;
                come(three);
            }
            others.into_iter().for_each(|other| other.assert_ok());
            if !going {
                break;
            }
        }
        println!("{before} kills before the round was complete, {after} after");
        crate::common::crash("barrier wait, the last one");
        assert!(before > 3 && after > 3);
    });
}

#[test]
fn a_party_killed_at_every_instruction_on_its_way_out_keeps_nobody() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(61)) {
            let two = barrier(2);
            let victim = Stepped::start(|| come(two));
            let mut slept = false;
            while !slept {
                assert!(victim.step_watched(|_| {
                    if !slept {
                        slept = true;
                        come(two);
                    }
                }));
            }
            let going = (0..steps).all(|_| victim.step());
            victim.kill();
            for _ in 0..3 {
                let other = waiting(two);
                come(two);
                other.assert_ok();
            }
            kills += 1;
            if !going {
                break;
            }
        }
        println!("{kills} kills on the way out");
        crate::common::crash("barrier wait, on the way out");
        assert!(kills > 3);
    });
}

#[test]
fn many_processes_killed_at_random_and_the_rest_go_on() {
    isolated_for(Duration::from_secs(120), || {
        let four = barrier(4);
        let start = || {
            fork(|| {
                while get(STOP) == 0 {
                    if four.wait(Some(Instant::now() + Duration::from_secs(10))).unwrap() {
                        number(ROUNDS).fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        let mut children: Vec<_> = (0..8).map(|_| start()).collect();
        let mut random = Random(3);
        let end = Instant::now() + Duration::from_secs(5);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(random.below(900)));
            let first = random.below(8);
            let victims = 1 + random.below(4);
            (0..victims).for_each(|nth| children[((first + 3 * nth) % 8) as usize].kill());
            for place in (0..victims).map(|nth| (first + 3 * nth) % 8) {
                killed(std::mem::replace(&mut children[place as usize], start()));
                kills += 1;
            }
        }
        let before = get(ROUNDS);
        wait_until("those who are left go on", || get(ROUNDS) > before + 100);
        println!("{kills} kills, {} rounds", get(ROUNDS));
        assert!(kills > 100);
    });
}

#[test]
fn overwritten_it_returns_by_its_deadline() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for offset in (64..64 + Barrier::size_bytes(2)).step_by(8) {
            for value in hostile(offset) {
                let two = barrier(2);
                let until = Instant::now() + Duration::from_millis(40);
                let party = fork(|| {
                    let _ = two.wait(Some(until));
                });
                wait_until("it waits, or has ended", || {
                    !party.is_alive() || blocked_in(party.pid(), libc::SYS_futex_waitv)
                });
                common::word(offset).store(value, Ordering::SeqCst);
                let _ = two.wait(Some(Instant::now() + Duration::from_millis(20)));
                party.assert_ok();
                tried += 1;
            }
        }
        crate::common::tried("barrier", tried);
    });
}
