//! `sem_wait(3)`, `sem_post(3)`, `sem_getvalue(3)`.

use std::time::{Duration, Instant};

use super::{NAME, semaphore, value};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{LONG, SHORT, blocked, elsewhere, fails, interrupted, restarted};
use crate::home::PosixSemaphores;

const WAIT: &str = "sem_wait(3)";
const POST: &str = "sem_post(3)";

pub(super) fn clauses<H: PosixSemaphores>() -> Vec<Clause<H>> {
    let mut all = at_once();
    all.extend(waiting());
    all
}

fn at_once<H: PosixSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(WAIT, "wait", "sem_wait takes one and returns at once while there is one", |h: &H| {
            let mine = semaphore(h, 2);
            h.sem_wait(mine).unwrap();
            h.sem_wait(mine).unwrap();
            assert_eq!(value(h, mine), 0);
        }),
        clause(WAIT, "trywait", "sem_trywait takes one, or is EAGAIN", |h: &H| {
            let mine = semaphore(h, 1);
            h.sem_trywait(mine).unwrap();
            fails(Errno::AGAIN, h.sem_trywait(mine));
            assert_eq!(value(h, mine), 0);
        }),
        clause(
            WAIT,
            "timedwait_at_once",
            "sem_timedwait with a passed deadline takes what is there",
            |h: &H| {
                let mine = semaphore(h, 1);
                h.sem_timedwait(mine, Duration::ZERO).unwrap();
                fails(Errno::TIMEDOUT, h.sem_timedwait(mine, Duration::ZERO));
            },
        ),
        clause(WAIT, "clockwait_at_once", "so does sem_clockwait", |h: &H| {
            let mine = semaphore(h, 1);
            h.sem_clockwait(mine, Duration::ZERO).unwrap();
            fails(Errno::TIMEDOUT, h.sem_clockwait(mine, Duration::ZERO));
        }),
        clause(POST, "post", "sem_post adds one", |h: &H| {
            let mine = semaphore(h, 0);
            for expected in 1..100 {
                h.sem_post(mine).unwrap();
                assert_eq!(value(h, mine), expected);
            }
        }),
        clause(POST, "overflow", "beyond SEM_VALUE_MAX it is EOVERFLOW, and the value stays", |h: &H| {
            let mine = semaphore(h, i32::MAX as u32);
            fails(Errno::OVERFLOW, h.sem_post(mine));
            assert_eq!(value(h, mine), i32::MAX);
            h.sem_wait(mine).unwrap();
            h.sem_post(mine).unwrap();
        }),
        clause(POST, "post_by_anybody", "who posts need not have waited", |h: &H| {
            let mine = semaphore(h, 1);
            h.sem_wait(mine).unwrap();
            elsewhere(|| h.sem_post(h.sem_open(NAME, 0, 0, 0).unwrap()).unwrap());
            assert_eq!(value(h, mine), 1);
        }),
        clause("sem_getvalue(3)", "getvalue_waiting", "while processes wait the value is 0", |h: &H| {
            let mine = semaphore(h, 0);
            let waiters = [(); 2].map(|()| blocked(h, || h.sem_wait(mine).unwrap()));
            assert_eq!(value(h, mine), 0);
            h.sem_post(mine).unwrap();
            h.sem_post(mine).unwrap();
            waiters.into_iter().for_each(|child| child.assert_ok());
            assert_eq!(value(h, mine), 0);
        }),
        clause("sem_overview(7)", "counted", "many processes' waits and posts all count", |h: &H| {
            let mine = semaphore(h, 3);
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    ginnel_testkit::fork(|| {
                        let own = h.sem_open(NAME, 0, 0, 0).unwrap();
                        for _ in 0..500 {
                            h.sem_wait(own).unwrap();
                            h.sem_post(own).unwrap();
                        }
                    })
                })
                .collect();
            workers.into_iter().for_each(|child| child.assert_ok());
            assert_eq!(value(h, mine), 3);
        }),
        clause("sem_overview(7)", "excludes", "with the value 1 it excludes", |h: &H| {
            let mine = semaphore(h, 1);
            let directory = ginnel_testkit::temp_dir();
            let path = directory.path().join("taken");
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    ginnel_testkit::fork(|| {
                        for _ in 0..100 {
                            h.sem_wait(mine).unwrap();
                            std::fs::File::create_new(&path).expect("alone");
                            std::fs::remove_file(&path).unwrap();
                            h.sem_post(mine).unwrap();
                        }
                    })
                })
                .collect();
            workers.into_iter().for_each(|child| child.assert_ok());
        }),
    ]
}

fn waiting<H: PosixSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(WAIT, "waits", "sem_wait at 0 waits for a post", |h: &H| {
            let mine = semaphore(h, 0);
            let waiter = blocked(h, || h.sem_wait(h.sem_open(NAME, 0, 0, 0).unwrap()).unwrap());
            h.sem_post(mine).unwrap();
            waiter.assert_ok();
            assert_eq!(value(h, mine), 0);
        }),
        clause(WAIT, "one_a_post", "a post lets one waiter go", |h: &H| {
            let mine = semaphore(h, 0);
            let mut waiters: Vec<_> = (0..3).map(|_| blocked(h, || h.sem_wait(mine).unwrap())).collect();
            for left in (0..3).rev() {
                h.sem_post(mine).unwrap();
                ginnel_testkit::wait_until("one has gone", || {
                    waiters.iter().filter(|child| child.is_alive()).count() == left
                });
                std::thread::sleep(Duration::from_millis(2));
                let (alive, gone) = waiters.into_iter().partition::<Vec<_>, _>(|child| child.is_alive());
                assert_eq!((alive.len(), gone.len()), (left, 1));
                gone.into_iter().for_each(|child| child.assert_ok());
                waiters = alive;
            }
        }),
        clause(WAIT, "timedwait_waits", "sem_timedwait is served in time", |h: &H| {
            let mine = semaphore(h, 0);
            let waiter = blocked(h, || h.sem_timedwait(mine, LONG).unwrap());
            h.sem_post(mine).unwrap();
            waiter.assert_ok();
        }),
        clause(
            WAIT,
            "timedwait_times_out",
            "or is ETIMEDOUT when its time has passed, and not before",
            |h: &H| {
                let mine = semaphore(h, 0);
                let start = Instant::now();
                fails(Errno::TIMEDOUT, h.sem_timedwait(mine, SHORT));
                assert!(start.elapsed() >= SHORT);
                h.sem_post(mine).unwrap();
                assert_eq!(value(h, mine), 1, "nobody waits any more");
            },
        ),
        clause(WAIT, "clockwait_waits", "sem_clockwait is served in time", |h: &H| {
            let mine = semaphore(h, 0);
            let waiter = blocked(h, || h.sem_clockwait(mine, LONG).unwrap());
            h.sem_post(mine).unwrap();
            waiter.assert_ok();
        }),
        clause(WAIT, "clockwait_times_out", "or is ETIMEDOUT when its time has passed", |h: &H| {
            let mine = semaphore(h, 0);
            let start = Instant::now();
            fails(Errno::TIMEDOUT, h.sem_clockwait(mine, SHORT));
            assert!(start.elapsed() >= SHORT);
        }),
        clause(
            WAIT,
            "interrupted",
            "a handler that runs ends the wait with EINTR; nothing is taken",
            |h: &H| {
                let mine = semaphore(h, 0);
                interrupted(h, 0, || h.sem_wait(mine));
                h.sem_post(mine).unwrap();
                assert_eq!(value(h, mine), 1);
            },
        ),
        clause(WAIT, "timedwait_interrupted", "so in sem_timedwait and sem_clockwait", |h: &H| {
            let mine = semaphore(h, 0);
            interrupted(h, 0, || h.sem_timedwait(mine, LONG));
            interrupted(h, 0, || h.sem_clockwait(mine, LONG));
            h.sem_post(mine).unwrap();
            assert_eq!(value(h, mine), 1);
        }),
        clause("signal(7)", "restarted", "with SA_RESTART sem_wait goes on waiting", |h: &H| {
            let mine = semaphore(h, 0);
            restarted(h, || h.sem_wait(mine), || h.sem_post(mine).unwrap());
        }),
        // signal(7) says that it is restarted; the kernel does not restart a futex wait that has a deadline.
        clause("signal(7)", "timedwait_not_restarted", "sem_timedwait ends with EINTR also then", |h: &H| {
            let mine = semaphore(h, 0);
            interrupted(h, libc::SA_RESTART, || h.sem_timedwait(mine, LONG));
            interrupted(h, libc::SA_RESTART, || h.sem_clockwait(mine, LONG));
        }),
        clause(WAIT, "killed", "a waiter that is killed takes nothing", |h: &H| {
            let mine = semaphore(h, 0);
            let [first, second] = [(); 2].map(|()| blocked(h, || h.sem_wait(mine).unwrap()));
            first.kill();
            first.wait();
            h.sem_post(mine).unwrap();
            second.assert_ok();
            h.sem_post(mine).unwrap();
            assert_eq!(value(h, mine), 1);
        }),
        clause("sem_unlink(3)", "unlinked_waiting", "unlinking ends no wait", |h: &H| {
            let mine = semaphore(h, 0);
            let waiter = blocked(h, || h.sem_wait(mine).unwrap());
            h.sem_unlink(NAME).unwrap();
            std::thread::sleep(SHORT);
            h.wait_blocked(waiter.pid());
            h.sem_post(mine).unwrap();
            waiter.assert_ok();
        }),
        clause("signal(7)", "stopped", "a stop and a continuation are no end of the wait", |h: &H| {
            let mine = semaphore(h, 0);
            let waiter = blocked(h, || h.sem_wait(mine).unwrap());
            waiter.signal(libc::SIGSTOP);
            std::thread::sleep(SHORT);
            waiter.signal(libc::SIGCONT);
            std::thread::sleep(SHORT);
            h.wait_blocked(waiter.pid());
            h.sem_post(mine).unwrap();
            waiter.assert_ok();
        }),
    ]
}
