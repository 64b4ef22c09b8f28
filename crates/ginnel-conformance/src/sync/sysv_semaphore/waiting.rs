//! `semop(2)` and `semtimedop`: what waits, and what ends it.

use std::time::{Duration, Instant};

use super::{MOST, at_once, holds, op, set};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{LONG, SHORT, blocked, elsewhere, fails, interrupted};
use crate::home::SysvSemaphores;

const PAGE: &str = "semop(2)";

pub(super) fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    let mut all = served();
    all.extend(ended());
    all
}

/// How many wait on the semaphore to take, and for zero.
#[track_caller]
fn counts<H: SysvSemaphores>(h: &H, id: i32, semaphore: i32) -> (i32, i32) {
    (h.sem_getncnt(id, semaphore).unwrap(), h.sem_getzcnt(id, semaphore).unwrap())
}

fn served<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "waits", "taking more than there is waits until it is there", |h: &H| {
            let id = set(h, &[1]);
            let taker = blocked(h, || h.semop(id, &[op(0, -3)]).unwrap());
            let pid = taker.pid();
            h.semop(id, &[op(0, 1)]).unwrap();
            h.wait_blocked(taker.pid());
            holds(h, id, &[2]);
            h.semop(id, &[op(0, 2)]).unwrap();
            taker.assert_ok();
            holds(h, id, &[1]);
            assert_eq!(h.sem_getpid(id, 0), Ok(pid));
        }),
        clause(PAGE, "waits_for_zero", "an operation of 0 waits until the value is 0", |h: &H| {
            let id = set(h, &[2]);
            let zero = blocked(h, || h.semop(id, &[op(0, 0)]).unwrap());
            h.semop(id, &[op(0, -1)]).unwrap();
            h.wait_blocked(zero.pid());
            h.semop(id, &[op(0, -1)]).unwrap();
            zero.assert_ok();
        }),
        clause(PAGE, "counts", "GETNCNT and GETZCNT count who waits on a semaphore", |h: &H| {
            let id = set(h, &[1, 1]);
            let first = blocked(h, || h.semop(id, &[op(0, -2)]).unwrap());
            let second = blocked(h, || h.semop(id, &[op(0, -3)]).unwrap());
            let third = blocked(h, || h.semop(id, &[op(1, 0)]).unwrap());
            assert_eq!((counts(h, id, 0), counts(h, id, 1)), ((2, 0), (0, 1)));
            h.semop(id, &[op(0, 4)]).unwrap();
            h.semop(id, &[op(1, -1)]).unwrap();
            [first, second, third].into_iter().for_each(|child| child.assert_ok());
            assert_eq!((counts(h, id, 0), counts(h, id, 1)), ((0, 0), (0, 0)));
        }),
        clause(PAGE, "counts_the_one", "a call waits on the first semaphore that stops it", |h: &H| {
            let id = set(h, &[0, 0, 0]);
            let taker = blocked(h, || h.semop(id, &[op(2, 1), op(0, -1), op(1, -1)]).unwrap());
            assert_eq!([0, 1, 2].map(|number| counts(h, id, number)), [(1, 0), (0, 0), (0, 0)]);
            h.semop(id, &[op(0, 1)]).unwrap();
            h.wait_blocked(taker.pid());
            assert_eq!([0, 1, 2].map(|number| counts(h, id, number)), [(0, 0), (1, 0), (0, 0)]);
            holds(h, id, &[1, 0, 0]);
            h.semop(id, &[op(1, 1)]).unwrap();
            taker.assert_ok();
            holds(h, id, &[0, 0, 1]);
        }),
        clause(
            PAGE,
            "takers_in_turn",
            "those that take alike are served in the order in which they came",
            |h: &H| {
                let id = set(h, &[0, 0]);
                let takers: Vec<_> =
                    (0..4).map(|_| blocked(h, || h.semop(id, &[op(0, -1)]).unwrap())).collect();
                for taker in takers {
                    h.semop(id, &[op(0, 1)]).unwrap();
                    taker.assert_ok();
                }
                holds(h, id, &[0, 0]);
            },
        ),
        clause(PAGE, "small_passes", "who can be served passes who cannot", |h: &H| {
            let id = set(h, &[0]);
            let big = blocked(h, || h.semop(id, &[op(0, -3)]).unwrap());
            let small = blocked(h, || h.semop(id, &[op(0, -1)]).unwrap());
            h.semop(id, &[op(0, 2)]).unwrap();
            small.assert_ok();
            h.wait_blocked(big.pid());
            holds(h, id, &[1]);
            h.semop(id, &[op(0, 2)]).unwrap();
            big.assert_ok();
        }),
        clause(PAGE, "newcomer_passes", "also a newcomer", |h: &H| {
            let id = set(h, &[2]);
            let big = blocked(h, || h.semop(id, &[op(0, -3)]).unwrap());
            h.semop(id, &[at_once(0, -2)]).unwrap();
            holds(h, id, &[0]);
            h.semop(id, &[op(0, 3)]).unwrap();
            big.assert_ok();
        }),
        clause(PAGE, "chain", "who is served may serve others", |h: &H| {
            let id = set(h, &[0, 0, 0]);
            let last = blocked(h, || h.semop(id, &[op(2, -1)]).unwrap());
            let middle = blocked(h, || h.semop(id, &[op(1, -1), op(2, 1)]).unwrap());
            let first = blocked(h, || h.semop(id, &[op(0, -1), op(1, 1)]).unwrap());
            h.semop(id, &[op(0, 1)]).unwrap();
            [first, middle, last].into_iter().for_each(|child| child.assert_ok());
            holds(h, id, &[0, 0, 0]);
        }),
        clause(PAGE, "zero_then_take", "all that wait for zero are served when it comes", |h: &H| {
            let id = set(h, &[1]);
            let zeros: Vec<_> = (0..3).map(|_| blocked(h, || h.semop(id, &[op(0, 0)]).unwrap())).collect();
            h.semop(id, &[op(0, -1)]).unwrap();
            zeros.into_iter().for_each(|child| child.assert_ok());
        }),
        clause(
            PAGE,
            "zero_and_raise",
            "of those that wait for zero and then raise it, one is served at a time",
            |h: &H| {
                let id = set(h, &[1]);
                let lockers: Vec<_> =
                    (0..2).map(|_| blocked(h, || h.semop(id, &[op(0, 0), op(0, 1)]).unwrap())).collect();
                h.semop(id, &[op(0, -1)]).unwrap();
                let mut lockers = lockers.into_iter();
                lockers.next().unwrap().assert_ok();
                let second = lockers.next().unwrap();
                h.wait_blocked(second.pid());
                holds(h, id, &[1]);
                h.semop(id, &[op(0, -1)]).unwrap();
                second.assert_ok();
            },
        ),
        clause(PAGE, "set_serves", "SETVAL and SETALL serve who waits", |h: &H| {
            let id = set(h, &[0, 5]);
            let taker = blocked(h, || h.semop(id, &[op(0, -2)]).unwrap());
            h.sem_setval(id, 0, 2).unwrap();
            taker.assert_ok();
            holds(h, id, &[0, 5]);
            let taker = blocked(h, || h.semop(id, &[op(0, -1)]).unwrap());
            let zero = blocked(h, || h.semop(id, &[op(1, 0)]).unwrap());
            h.sem_setall(id, &[1, 0]).unwrap();
            [taker, zero].into_iter().for_each(|child| child.assert_ok());
            holds(h, id, &[0, 0]);
        }),
        clause(
            PAGE,
            "late_overflow",
            "a waiting call that would overflow once it can go on ends with ERANGE",
            |h: &H| {
                let id = set(h, &[0, MOST as u16]);
                let taker = blocked(h, || fails(Errno::RANGE, h.semop(id, &[op(0, -1), op(1, 1)])));
                h.semop(id, &[op(0, 1)]).unwrap();
                taker.assert_ok();
                holds(h, id, &[1, MOST as u16]);
            },
        ),
        clause(
            PAGE,
            "late_nowait",
            "one whose next operation must not wait then ends with EAGAIN",
            |h: &H| {
                let id = set(h, &[0, 0]);
                let taker = blocked(h, || fails(Errno::AGAIN, h.semop(id, &[op(0, -1), at_once(1, -1)])));
                h.semop(id, &[op(0, 1)]).unwrap();
                taker.assert_ok();
                holds(h, id, &[1, 0]);
            },
        ),
    ]
}

fn ended<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(
            PAGE,
            "times_out",
            "semtimedop is EAGAIN when its time has passed, and not before",
            |h: &H| {
                let id = set(h, &[0]);
                let start = Instant::now();
                fails(Errno::AGAIN, h.semtimedop(id, &[op(0, -1)], Some(SHORT)));
                assert!(start.elapsed() >= SHORT);
                assert_eq!(counts(h, id, 0), (0, 0));
                h.semop(id, &[op(0, 1)]).unwrap();
                holds(h, id, &[1]);
            },
        ),
        clause(PAGE, "no_time", "a time of 0 does not wait", |h: &H| {
            let id = set(h, &[0]);
            fails(Errno::AGAIN, h.semtimedop(id, &[op(0, -1)], Some(Duration::ZERO)));
            h.semtimedop(id, &[op(0, 0)], Some(Duration::ZERO)).unwrap();
        }),
        clause(PAGE, "in_time", "within its time it is served", |h: &H| {
            let id = set(h, &[0]);
            let taker = blocked(h, || h.semtimedop(id, &[op(0, -1)], Some(LONG)).unwrap());
            h.semop(id, &[op(0, 1)]).unwrap();
            taker.assert_ok();
        }),
        clause(
            PAGE,
            "interrupted",
            "a handler that runs ends the wait with EINTR; nothing is done",
            |h: &H| {
                let id = set(h, &[0, 1]);
                interrupted(h, 0, || h.semop(id, &[op(1, -1), op(0, -1)]));
                assert_eq!(counts(h, id, 0), (0, 0));
                h.semop(id, &[op(0, 1)]).unwrap();
                holds(h, id, &[1, 1]);
            },
        ),
        clause(PAGE, "never_restarted", "EINTR also where the handler has SA_RESTART", |h: &H| {
            let id = set(h, &[0]);
            interrupted(h, libc::SA_RESTART, || h.semop(id, &[op(0, -1)]));
            interrupted(h, libc::SA_RESTART, || h.semtimedop(id, &[op(0, -1)], Some(LONG)));
        }),
        clause(
            "signal(7)",
            "stopped",
            "a stop and a continuation end the wait with EINTR, without a handler",
            |h: &H| {
                let id = set(h, &[0]);
                let taker = blocked(h, || fails(Errno::INTR, h.semop(id, &[op(0, -1)])));
                taker.signal(libc::SIGSTOP);
                std::thread::sleep(SHORT);
                taker.signal(libc::SIGCONT);
                taker.assert_ok();
                assert_eq!(counts(h, id, 0), (0, 0));
            },
        ),
        clause(PAGE, "ignored_signal", "an ignored signal ends no wait", |h: &H| {
            let id = set(h, &[0]);
            let taker = blocked(h, || h.semop(id, &[op(0, -1)]).unwrap());
            taker.signal(libc::SIGCHLD);
            std::thread::sleep(SHORT);
            h.wait_blocked(taker.pid());
            h.semop(id, &[op(0, 1)]).unwrap();
            taker.assert_ok();
        }),
        clause(PAGE, "removed", "removing the set ends every wait with EIDRM", |h: &H| {
            let id = set(h, &[0, 1]);
            let waiting = [
                blocked(h, || fails(Errno::IDRM, h.semop(id, &[op(0, -1)]))),
                blocked(h, || fails(Errno::IDRM, h.semop(id, &[op(1, 0)]))),
                blocked(h, || fails(Errno::IDRM, h.semop(id, &[op(1, -1), op(0, -1)]))),
                blocked(h, || fails(Errno::IDRM, h.semtimedop(id, &[op(0, -2)], Some(LONG)))),
            ];
            elsewhere(|| h.sem_remove(id).unwrap());
            waiting.into_iter().for_each(|child| child.assert_ok());
        }),
        clause(
            PAGE,
            "killed",
            "a process killed while it waits has done nothing, and is not counted",
            |h: &H| {
                let id = set(h, &[0, 7]);
                let taker = blocked(h, || h.semop(id, &[op(1, -7), op(0, -1)]).unwrap());
                taker.kill();
                taker.wait();
                ginnel_testkit::wait_until("it is not counted", || counts(h, id, 0) == (0, 0));
                h.semop(id, &[op(0, 1)]).unwrap();
                holds(h, id, &[1, 7]);
            },
        ),
    ]
}
