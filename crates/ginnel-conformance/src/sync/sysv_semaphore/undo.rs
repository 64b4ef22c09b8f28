//! `SEM_UNDO` of `semop(2)`.

use ginnel_testkit::{Child, fork, wait_until};

use super::{MOST, holds, op, set, undone};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{blocked, elsewhere, exec_sleeper, fails, now, recent, wait_exec};
use crate::home::SysvSemaphores;

const PAGE: &str = "semop(2)";

/// A process that has done `act` and lives on.
fn living<H: SysvSemaphores>(h: &H, act: impl FnOnce()) -> Child {
    let flag = set(h, &[0]);
    let child = fork(|| {
        act();
        h.semop(flag, &[op(0, 1)]).unwrap();
        loop {
            std::thread::park();
        }
    });
    wait_until("it has acted", || h.sem_getval(flag, 0) == Ok(1));
    child
}

/// Kills it, and waits for these values.
#[track_caller]
fn killed_leaves<H: SysvSemaphores>(h: &H, child: Child, id: i32, values: &[u16]) {
    child.kill();
    child.wait();
    comes_to(h, id, values);
}

#[track_caller]
fn comes_to<H: SysvSemaphores>(h: &H, id: i32, values: &[u16]) {
    let mut last = Vec::new();
    for _ in 0..2000 {
        last = h.sem_getall(id).unwrap();
        if last == values {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(last, values, "after 2 seconds");
}

pub(super) fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    let mut all = ends();
    all.extend(limits());
    all
}

fn ends<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "undo_at_exit", "SEM_UNDO gives back at the process's exit", |h: &H| {
            let id = set(h, &[5, 5]);
            elsewhere(|| {
                h.semop(id, &[undone(0, -3), op(1, -1)]).unwrap();
                holds(h, id, &[2, 4]);
            });
            comes_to(h, id, &[5, 4]);
        }),
        clause(PAGE, "undo_at_sigkill", "and where it is killed", |h: &H| {
            let id = set(h, &[5]);
            let holder = living(h, || h.semop(id, &[undone(0, -3)]).unwrap());
            holds(h, id, &[2]);
            killed_leaves(h, holder, id, &[5]);
        }),
        clause(PAGE, "undo_sums", "undo is the sum of all that was done", |h: &H| {
            let id = set(h, &[10, 0]);
            let holder = living(h, || {
                h.semop(id, &[undone(0, -3), undone(1, 2)]).unwrap();
                h.semop(id, &[undone(0, 1)]).unwrap();
                h.semop(id, &[undone(0, -4), op(1, 1)]).unwrap();
            });
            holds(h, id, &[4, 3]);
            killed_leaves(h, holder, id, &[10, 1]);
        }),
        clause(
            PAGE,
            "undo_given_back",
            "nothing is left to undo of what was given back with SEM_UNDO",
            |h: &H| {
                let id = set(h, &[1]);
                let holder = living(h, || {
                    h.semop(id, &[undone(0, -1)]).unwrap();
                    h.semop(id, &[undone(0, 1)]).unwrap();
                });
                killed_leaves(h, holder, id, &[1]);
            },
        ),
        clause(PAGE, "undo_only_where_asked", "of a call, only the operations with SEM_UNDO", |h: &H| {
            let id = set(h, &[5, 5]);
            let holder = living(h, || h.semop(id, &[undone(0, -1), op(0, -1), op(1, -1)]).unwrap());
            killed_leaves(h, holder, id, &[4, 5 - 1]);
        }),
        clause(PAGE, "undo_wakes", "undo serves who waits", |h: &H| {
            let id = set(h, &[1]);
            let holder = living(h, || h.semop(id, &[undone(0, -1)]).unwrap());
            let waiting = blocked(h, || h.semop(id, &[op(0, -1)]).unwrap());
            holder.kill();
            holder.wait();
            waiting.assert_ok();
            holds(h, id, &[0]);
        }),
        clause(PAGE, "undo_wakes_zero", "also who waits for zero", |h: &H| {
            let id = set(h, &[0]);
            let holder = living(h, || h.semop(id, &[undone(0, 2)]).unwrap());
            let waiting = blocked(h, || h.semop(id, &[op(0, 0)]).unwrap());
            holder.kill();
            holder.wait();
            waiting.assert_ok();
        }),
        clause(PAGE, "undo_of_the_served", "the undo of a call that had waited counts too", |h: &H| {
            let id = set(h, &[0, 0]);
            let taker = blocked(h, || {
                h.semop(id, &[undone(0, -1)]).unwrap();
                h.semop(id, &[op(1, 1)]).unwrap();
                loop {
                    std::thread::park();
                }
            });
            h.semop(id, &[op(0, 1)]).unwrap();
            wait_until("it is served", || h.sem_getval(id, 1) == Ok(1));
            holds(h, id, &[0, 1]);
            killed_leaves(h, taker, id, &[1, 1]);
        }),
        clause(PAGE, "undo_of_the_waiting", "a call that waits has nothing to undo yet", |h: &H| {
            let id = set(h, &[0, 3]);
            let taker = blocked(h, || h.semop(id, &[undone(1, -1), undone(0, -1)]).unwrap());
            killed_leaves(h, taker, id, &[0, 3]);
        }),
        clause(PAGE, "undo_of_the_failed", "a call that fails neither", |h: &H| {
            let id = set(h, &[1, MOST as u16]);
            let holder = living(h, || fails(Errno::RANGE, h.semop(id, &[undone(0, -1), undone(1, 1)])));
            killed_leaves(h, holder, id, &[1, MOST as u16]);
        }),
        clause(PAGE, "undo_not_forked", "a fork inherits no undo", |h: &H| {
            let id = set(h, &[3]);
            h.semop(id, &[undone(0, -1)]).unwrap();
            elsewhere(|| {});
            let child = living(h, || h.semop(id, &[undone(0, -1)]).unwrap());
            killed_leaves(h, child, id, &[2]);
        }),
        clause(
            PAGE,
            "undo_survives_the_fork",
            "a parent that has forked undoes once, at its own end",
            |h: &H| {
                let id = set(h, &[3]);
                let parent = living(h, || {
                    h.semop(id, &[undone(0, -2)]).unwrap();
                    elsewhere(|| h.semop(id, &[op(0, 1)]).unwrap());
                });
                holds(h, id, &[2]);
                killed_leaves(h, parent, id, &[4]);
            },
        ),
        clause(PAGE, "undo_survives_exec", "exec keeps it: the process lives on", |h: &H| {
            let id = set(h, &[1]);
            let holder = fork(|| {
                h.semop(id, &[undone(0, -1)]).unwrap();
                exec_sleeper();
            });
            wait_exec(holder.pid());
            std::thread::sleep(crate::help::SHORT);
            holds(h, id, &[0]);
            killed_leaves(h, holder, id, &[1]);
        }),
        clause(
            PAGE,
            "undo_of_a_thread",
            "threads share their process's undo: a thread's end undoes nothing",
            |h: &H| {
                let id = set(h, &[1]);
                let holder = living(h, || {
                    let thread = std::thread::scope(|scope| {
                        scope.spawn(|| h.semop(id, &[undone(0, -1)]).unwrap()).join()
                    });
                    thread.unwrap();
                });
                std::thread::sleep(crate::help::SHORT);
                holds(h, id, &[0]);
                killed_leaves(h, holder, id, &[1]);
            },
        ),
        clause(PAGE, "undo_stamps", "undoing stamps otime and leaves the dead process's pid", |h: &H| {
            let (id, since) = (set(h, &[1]), now());
            let holder = living(h, || h.semop(id, &[undone(0, -1)]).unwrap());
            let pid = holder.pid();
            h.semop(id, &[op(0, 3)]).unwrap();
            killed_leaves(h, holder, id, &[4]);
            assert_eq!(h.sem_getpid(id, 0), Ok(pid));
            recent(h.sem_status(id).unwrap().otime, since);
        }),
        clause(
            PAGE,
            "undo_refused_stamps",
            "so does the end of one whose calls were all refused",
            |h: &H| {
                let nowait = |operation: libc::sembuf| libc::sembuf {
                    sem_flg: operation.sem_flg | libc::IPC_NOWAIT as i16,
                    ..operation
                };
                for (errno, operations) in [
                    (Errno::AGAIN, [undone(0, 0), nowait(undone(0, -1))]),
                    (Errno::RANGE, [undone(0, MOST as i16), undone(0, MOST as i16)]),
                    (Errno::FBIG, [undone(0, 1), undone(9, 1)]),
                ] {
                    let (id, since) = (set(h, &[0]), now());
                    let refused = living(h, || fails(errno, h.semop(id, &operations)));
                    assert_eq!(h.sem_status(id).unwrap().otime, 0, "{errno}");
                    killed_leaves(h, refused, id, &[0]);
                    recent(h.sem_status(id).unwrap().otime, since);
                    assert_eq!(h.sem_getpid(id, 0), Ok(crate::help::pid()), "{errno}: who has set it");
                }
            },
        ),
    ]
}

fn limits<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "undo_not_below_zero", "what cannot be taken back stops at 0", |h: &H| {
            let id = set(h, &[0, 0]);
            let holder = living(h, || h.semop(id, &[undone(0, 5), undone(1, 5)]).unwrap());
            h.semop(id, &[op(0, -3)]).unwrap();
            killed_leaves(h, holder, id, &[0, 0]);
        }),
        clause(PAGE, "undo_not_above_most", "and what cannot be given back at 32,767", |h: &H| {
            let id = set(h, &[10]);
            let holder = living(h, || h.semop(id, &[undone(0, -10)]).unwrap());
            h.semop(id, &[op(0, MOST as i16)]).unwrap();
            killed_leaves(h, holder, id, &[MOST as u16]);
        }),
        clause(
            "semctl(2)",
            "setval_clears_undo",
            "SETVAL clears every process's undo of that semaphore",
            |h: &H| {
                let id = set(h, &[5, 5]);
                let holder = living(h, || h.semop(id, &[undone(0, -1), undone(1, -1)]).unwrap());
                h.sem_setval(id, 0, 9).unwrap();
                killed_leaves(h, holder, id, &[9, 5]);
            },
        ),
        clause("semctl(2)", "setall_clears_undo", "SETALL clears that of all of them", |h: &H| {
            let id = set(h, &[5, 5]);
            let holders =
                [(); 2].map(|()| living(h, || h.semop(id, &[undone(0, -1), undone(1, -1)]).unwrap()));
            h.sem_setall(id, &[1, 2]).unwrap();
            for holder in holders {
                killed_leaves(h, holder, id, &[1, 2]);
            }
        }),
        clause("semctl(2)", "undo_after_setval", "what is done after SETVAL is undone", |h: &H| {
            let id = set(h, &[5]);
            elsewhere(|| {
                h.semop(id, &[undone(0, -3)]).unwrap();
                h.sem_setval(id, 0, 2).unwrap();
                h.semop(id, &[undone(0, -1)]).unwrap();
            });
            comes_to(h, id, &[2]);
        }),
        clause("semctl(2)", "undo_of_removed", "removing a set ends all undo of it", |h: &H| {
            let id = set(h, &[5]);
            let holder = living(h, || h.semop(id, &[undone(0, -1)]).unwrap());
            h.sem_remove(id).unwrap();
            let again = set(h, &[7]);
            killed_leaves(h, holder, again, &[7]);
        }),
        clause(PAGE, "undo_of_many_sets", "a process's undo in many sets is applied in each", |h: &H| {
            let ids: Vec<i32> = (0..20).map(|_| set(h, &[3])).collect();
            let holder = living(h, || ids.iter().for_each(|id| h.semop(*id, &[undone(0, -2)]).unwrap()));
            holder.kill();
            holder.wait();
            ids.iter().for_each(|id| comes_to(h, *id, &[3]));
        }),
        clause(PAGE, "undo_of_many_processes", "each dead process's undo is its own", |h: &H| {
            let id = set(h, &[20]);
            let holders: Vec<_> =
                (1..6).map(|units| living(h, move || h.semop(id, &[undone(0, -units)]).unwrap())).collect();
            holds(h, id, &[5]);
            for (units, holder) in (1..6).zip(holders) {
                let before = h.sem_getval(id, 0).unwrap();
                killed_leaves(h, holder, id, &[(before + units) as u16]);
            }
        }),
    ]
}
