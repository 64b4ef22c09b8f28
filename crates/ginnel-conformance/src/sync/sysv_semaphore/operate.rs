//! `semop(2)`: what happens at once.

use libc::{IPC_CREAT, IPC_NOWAIT, SEM_UNDO};

use super::{KEY, MOST, at_once, holds, op, set, undone};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{BOB, as_other, elsewhere, fails, now, pid, recent};
use crate::home::SysvSemaphores;

const PAGE: &str = "semop(2)";

pub(super) fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    let mut all = changes();
    all.extend(refusals());
    all
}

fn changes<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "add", "a positive operation adds and never waits", |h: &H| {
            let id = set(h, &[3, 0]);
            h.semop(id, &[op(0, 4)]).unwrap();
            holds(h, id, &[7, 0]);
        }),
        clause(PAGE, "take", "a negative one takes what is there", |h: &H| {
            let id = set(h, &[5, 1]);
            h.semop(id, &[op(0, -5)]).unwrap();
            holds(h, id, &[0, 1]);
        }),
        clause(PAGE, "take_refused", "with IPC_NOWAIT taking too much is EAGAIN", |h: &H| {
            let id = set(h, &[2]);
            fails(Errno::AGAIN, h.semop(id, &[at_once(0, -3)]));
            holds(h, id, &[2]);
        }),
        clause(PAGE, "zero", "an operation of 0 asks for the value 0", |h: &H| {
            let id = set(h, &[0, 1]);
            h.semop(id, &[op(0, 0)]).unwrap();
            fails(Errno::AGAIN, h.semop(id, &[at_once(1, 0)]));
            holds(h, id, &[0, 1]);
        }),
        clause(PAGE, "all_or_nothing", "all operations of a call are done, or none", |h: &H| {
            let id = set(h, &[2, 0, 4]);
            fails(Errno::AGAIN, h.semop(id, &[op(0, -2), op(2, 1), at_once(1, -1)]));
            holds(h, id, &[2, 0, 4]);
            h.semop(id, &[op(0, -2), op(2, 1), op(1, 1)]).unwrap();
            holds(h, id, &[0, 1, 5]);
        }),
        clause(PAGE, "in_order", "they are done in the order of the array", |h: &H| {
            let id = set(h, &[0]);
            h.semop(id, &[op(0, 0), op(0, 3), op(0, -2)]).unwrap();
            holds(h, id, &[1]);
            fails(Errno::AGAIN, h.semop(id, &[at_once(0, -2), at_once(0, 5)]));
            holds(h, id, &[1]);
        }),
        clause(PAGE, "through_zero", "zero is asked for where the array has come to", |h: &H| {
            let id = set(h, &[1]);
            h.semop(id, &[op(0, -1), op(0, 0), op(0, 2)]).unwrap();
            holds(h, id, &[2]);
            fails(Errno::AGAIN, h.semop(id, &[op(0, 1), at_once(0, 0)]));
            holds(h, id, &[2]);
        }),
        clause(
            PAGE,
            "whose_nowait",
            "the IPC_NOWAIT that counts is that of the operation that cannot proceed",
            |h: &H| {
                let id = set(h, &[0, 0]);
                fails(Errno::AGAIN, h.semop(id, &[op(0, 1), at_once(1, -1)]));
                let waits = crate::help::blocked(h, || h.semop(id, &[at_once(0, 1), op(1, -1)]).unwrap());
                holds(h, id, &[0, 0]);
                h.semop(id, &[op(1, 1)]).unwrap();
                waits.assert_ok();
                holds(h, id, &[1, 0]);
            },
        ),
        clause(PAGE, "status", "a call stamps otime, and each semaphore has the caller's pid", |h: &H| {
            let (id, since) = (set(h, &[5, 0, 1]), now());
            let ctime = h.sem_status(id).unwrap().ctime;
            let child = ginnel_testkit::fork(|| h.semop(id, &[op(0, -1), op(1, 0)]).unwrap());
            let caller = child.pid();
            child.assert_ok();
            assert_eq!([0, 1].map(|number| h.sem_getpid(id, number).unwrap()), [caller, caller]);
            assert_ne!(h.sem_getpid(id, 2), Ok(caller));
            let status = h.sem_status(id).unwrap();
            recent(status.otime, since);
            assert_eq!(status.ctime, ctime);
        }),
        clause(PAGE, "failed_status", "one that fails leaves the pids and otime alone", |h: &H| {
            let id = set(h, &[1, 1]);
            let before = [0, 1].map(|number| h.sem_getpid(id, number).unwrap());
            elsewhere(|| fails(Errno::AGAIN, h.semop(id, &[op(0, -1), at_once(1, -2)])));
            assert_eq!([0, 1].map(|number| h.sem_getpid(id, number).unwrap()), before);
            assert_eq!(h.sem_status(id).unwrap().otime, 0);
        }),
        clause(PAGE, "many_operations", "500 operations go in one call", |h: &H| {
            let id = set(h, &[0, 0]);
            h.semop(id, &[op(1, 2); 500]).unwrap();
            holds(h, id, &[0, 1000]);
        }),
        clause(PAGE, "same_twice", "one semaphore may be in a call several times", |h: &H| {
            let id = set(h, &[4]);
            h.semop(id, &[op(0, -1), op(0, -1), op(0, -2)]).unwrap();
            holds(h, id, &[0]);
            assert_eq!(h.sem_getpid(id, 0), Ok(pid()));
        }),
    ]
}

fn refusals<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "no_operations", "no operations at all are EINVAL", |h: &H| {
            let id = set(h, &[1]);
            fails(Errno::INVAL, h.semop(id, &[]));
        }),
        clause(
            PAGE,
            "too_many_operations",
            "more than 500 operations are E2BIG, whatever the set",
            |h: &H| {
                let id = set(h, &[1]);
                fails(Errno::TOOBIG, h.semop(id, &[op(0, 1); 501]));
                fails(Errno::TOOBIG, h.semop(id + 1, &[op(0, 1); 501]));
                holds(h, id, &[1]);
            },
        ),
        clause(PAGE, "no_such_semaphore", "a semaphore that the set does not have is EFBIG", |h: &H| {
            let id = set(h, &[1, 1]);
            fails(Errno::FBIG, h.semop(id, &[op(0, -1), op(2, 1)]));
            fails(Errno::FBIG, h.semop(id, &[op(u16::MAX, 0)]));
            holds(h, id, &[1, 1]);
        }),
        clause(PAGE, "too_high", "a value above 32,767 is ERANGE, and nothing is done", |h: &H| {
            let id = set(h, &[MOST as u16, 5]);
            fails(Errno::RANGE, h.semop(id, &[op(1, 1), op(0, 1)]));
            holds(h, id, &[MOST as u16, 5]);
            h.semop(id, &[op(0, -1), op(0, 1)]).unwrap();
        }),
        clause(PAGE, "too_high_in_between", "also where a later operation would take it back", |h: &H| {
            let id = set(h, &[MOST as u16]);
            fails(Errno::RANGE, h.semop(id, &[op(0, 1), op(0, -1)]));
            holds(h, id, &[MOST as u16]);
        }),
        clause(PAGE, "undo_too_high", "a sum of undo beyond 32,768 is ERANGE", |h: &H| {
            let id = set(h, &[0]);
            h.semop(id, &[undone(0, 32767)]).unwrap();
            h.semop(id, &[op(0, -32767)]).unwrap();
            fails(Errno::RANGE, h.semop(id, &[undone(0, 2)]));
            h.semop(id, &[op(0, 2)]).unwrap();
            holds(h, id, &[2]);
        }),
        clause(PAGE, "bad_id", "an id that is no set's is EINVAL", |h: &H| {
            let id = set(h, &[1]);
            for id in [-1, i32::MIN, id + 1, i32::MAX] {
                fails(Errno::INVAL, h.semop(id, &[op(0, 1)]));
            }
        }),
        clause(PAGE, "removed_id", "a removed set's id is EINVAL", |h: &H| {
            let id = set(h, &[1]);
            h.semop(id, &[undone(0, 1)]).unwrap();
            elsewhere(|| h.sem_remove(id).unwrap());
            fails(Errno::INVAL, h.semop(id, &[op(0, 1)]));
        }),
        clause(PAGE, "change_denied", "changing without alter permission is EACCES", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o644).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.semop(id, &[op(0, 1)]));
                fails(Errno::ACCESS, h.semop(id, &[op(0, 0), at_once(0, -1)]));
            });
            holds(h, id, &[0]);
        }),
        clause(PAGE, "zero_with_read", "asking for zero needs read permission only", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o644).unwrap();
            as_other(BOB, BOB, || h.semop(id, &[op(0, 0)]).unwrap());
        }),
        clause(PAGE, "zero_denied", "and is EACCES without it", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.semop(id, &[op(0, 0)])));
        }),
        clause(PAGE, "change_write_only", "alter permission alone lets change, and not read", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o622).unwrap();
            as_other(BOB, BOB, || {
                h.semop(id, &[op(0, 2)]).unwrap();
                fails(Errno::ACCESS, h.sem_getval(id, 0));
                fails(Errno::ACCESS, h.semop(id, &[at_once(0, 0)]));
            });
            holds(h, id, &[2]);
        }),
        clause(PAGE, "shared", "what the mode grants to everybody another user may do", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o666).unwrap();
            as_other(BOB, BOB, || h.semop(id, &[op(0, 2), undone(0, 1)]).unwrap());
            ginnel_testkit::wait_until("its undo", || h.sem_getval(id, 0) == Ok(2));
        }),
        clause(PAGE, "checks_in_order", "the number is checked before the permission", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || fails(Errno::FBIG, h.semop(id, &[op(1, 1)])));
        }),
        clause(PAGE, "flags_together", "IPC_NOWAIT and SEM_UNDO go together", |h: &H| {
            let id = set(h, &[1]);
            let both = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: (IPC_NOWAIT | SEM_UNDO) as i16 };
            elsewhere(|| {
                h.semop(id, &[both]).unwrap();
                fails(Errno::AGAIN, h.semop(id, &[both]));
            });
            ginnel_testkit::wait_until("its undo", || h.sem_getval(id, 0) == Ok(1));
        }),
    ]
}
