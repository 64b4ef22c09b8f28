//! `semctl(2)`.

use libc::{IPC_CREAT, IPC_EXCL};

use super::{KEY, MOST, at_once, holds, op, set};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, pid, recent};
use crate::home::{Owner, SysvSemaphores};

const PAGE: &str = "semctl(2)";

/// A set of two of Alice's.
fn of_alice<H: SysvSemaphores>(h: &H, mode: i32) -> i32 {
    as_other(ALICE, ALICE, || _ = h.semget(KEY, 2, IPC_CREAT | IPC_EXCL | mode).unwrap());
    h.semget(KEY, 0, 0).unwrap()
}

/// That every command is refused so.
#[track_caller]
fn all_fail<H: SysvSemaphores>(h: &H, errno: Errno, id: i32) {
    fails(errno, h.sem_getval(id, 0));
    fails(errno, h.sem_getpid(id, 0));
    fails(errno, h.sem_getncnt(id, 0));
    fails(errno, h.sem_getzcnt(id, 0));
    fails(errno, h.sem_getall(id));
    fails(errno, h.sem_status(id));
}

pub(super) fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    let mut all = values();
    all.extend(rights());
    all
}

fn values<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "setval", "SETVAL sets a value, its pid, and ctime", |h: &H| {
            let (id, since) = (set(h, &[1, 2]), now());
            let child = ginnel_testkit::fork(|| h.sem_setval(id, 1, 7).unwrap());
            let caller = child.pid();
            child.assert_ok();
            holds(h, id, &[1, 7]);
            assert_eq!(h.sem_getpid(id, 1), Ok(caller));
            let status = h.sem_status(id).unwrap();
            assert_eq!(status.otime, 0);
            recent(status.ctime, since);
        }),
        clause(PAGE, "setval_range", "a value below 0 or above 32,767 is ERANGE", |h: &H| {
            let id = set(h, &[4]);
            for value in [-1, MOST + 1, i32::MIN, i32::MAX] {
                fails(Errno::RANGE, h.sem_setval(id, 0, value));
            }
            holds(h, id, &[4]);
            h.sem_setval(id, 0, MOST).unwrap();
            h.sem_setval(id, 0, 0).unwrap();
        }),
        clause(PAGE, "setall", "SETALL sets every value, every pid, and ctime", |h: &H| {
            let id = h.semget(libc::IPC_PRIVATE, 3, 0o600).unwrap();
            h.sem_setall(id, &[3, 0, MOST as u16]).unwrap();
            holds(h, id, &[3, 0, MOST as u16]);
            assert_eq!([0, 1, 2].map(|number| h.sem_getpid(id, number).unwrap()), [pid(); 3]);
        }),
        clause(
            PAGE,
            "setall_range",
            "a value above 32,767 among them is ERANGE, and none is set",
            |h: &H| {
                let id = set(h, &[1, 2]);
                fails(Errno::RANGE, h.sem_setall(id, &[5, MOST as u16 + 1]));
                holds(h, id, &[1, 2]);
            },
        ),
        clause(PAGE, "getval", "GETVAL is the value", |h: &H| {
            let id = set(h, &[1, 2, MOST as u16]);
            assert_eq!([0, 1, 2].map(|number| h.sem_getval(id, number).unwrap()), [1, 2, MOST]);
        }),
        clause(PAGE, "getpid", "GETPID is who changed or asked for it last", |h: &H| {
            let id = set(h, &[0, 0]);
            let child = ginnel_testkit::fork(|| h.semop(id, &[op(0, 1)]).unwrap());
            let first = child.pid();
            child.assert_ok();
            assert_eq!(h.sem_getpid(id, 0), Ok(first));
            h.semop(id, &[at_once(0, -1)]).unwrap();
            assert_eq!(h.sem_getpid(id, 0), Ok(pid()));
        }),
        clause(PAGE, "no_such_number", "a semaphore that the set does not have is EINVAL", |h: &H| {
            let id = set(h, &[1, 1]);
            for number in [2, -1, i32::MAX] {
                fails(Errno::INVAL, h.sem_getval(id, number));
                fails(Errno::INVAL, h.sem_getpid(id, number));
                fails(Errno::INVAL, h.sem_getncnt(id, number));
                fails(Errno::INVAL, h.sem_getzcnt(id, number));
                fails(Errno::INVAL, h.sem_setval(id, number, 1));
            }
        }),
        clause(PAGE, "control_bad_id", "every command on an id that is no set's is EINVAL", |h: &H| {
            let id = set(h, &[1]);
            for id in [-1, i32::MIN, id + 1] {
                all_fail(h, Errno::INVAL, id);
                fails(Errno::INVAL, h.sem_setval(id, 0, 1));
                fails(Errno::INVAL, h.sem_setall(id, &[1]));
                fails(Errno::INVAL, h.sem_remove(id));
            }
        }),
        clause(PAGE, "control_removed_id", "and on a removed set's", |h: &H| {
            let id = set(h, &[1]);
            elsewhere(|| h.sem_remove(id).unwrap());
            all_fail(h, Errno::INVAL, id);
            fails(Errno::INVAL, h.sem_setval(id, 0, 1));
            fails(Errno::INVAL, h.sem_remove(id));
        }),
        clause(
            PAGE,
            "stale_ids",
            "no id comes back soon: a stale one is EINVAL and harms nobody",
            |h: &H| {
                let old: Vec<i32> = (0..200)
                    .map(|_| {
                        let id = set(h, &[1]);
                        h.sem_remove(id).unwrap();
                        id
                    })
                    .collect();
                let live = set(h, &[7]);
                assert_eq!(old.iter().collect::<std::collections::HashSet<_>>().len(), 200);
                for id in old {
                    fails(Errno::INVAL, h.sem_setval(id, 0, 0));
                    fails(Errno::INVAL, h.sem_remove(id));
                }
                holds(h, live, &[7]);
            },
        ),
    ]
}

fn rights<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "reading_denied", "without read permission nothing is told: EACCES", |h: &H| {
            let id = of_alice(h, 0o622);
            as_other(BOB, BOB, || all_fail(h, Errno::ACCESS, id));
        }),
        clause(PAGE, "reading_allowed", "with it, all is", |h: &H| {
            let id = of_alice(h, 0o604);
            as_other(BOB, BOB, || {
                holds(h, id, &[0, 0]);
                assert_eq!((h.sem_getval(id, 1), h.sem_getncnt(id, 0)), (Ok(0), Ok(0)));
                assert_eq!(h.sem_status(id).unwrap().perm.uid, ALICE);
            });
        }),
        clause(PAGE, "setting_denied", "SETVAL and SETALL without alter permission are EACCES", |h: &H| {
            let id = of_alice(h, 0o644);
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.sem_setval(id, 0, 1));
                fails(Errno::ACCESS, h.sem_setall(id, &[1, 1]));
            });
            holds(h, id, &[0, 0]);
        }),
        clause(PAGE, "setting_allowed", "with it, they are anybody's", |h: &H| {
            let id = of_alice(h, 0o666);
            as_other(BOB, BOB, || h.sem_setval(id, 0, 1).unwrap());
            as_other(BOB, BOB, || h.sem_setall(id, &[1, 4]).unwrap());
            holds(h, id, &[1, 4]);
        }),
        clause(
            PAGE,
            "owner_class_first",
            "the owner has the owner's bits, be they fewer than others'",
            |h: &H| {
                let id = of_alice(h, 0o066);
                as_other(ALICE, ALICE, || all_fail(h, Errno::ACCESS, id));
                as_other(BOB, BOB, || holds(h, id, &[0, 0]));
            },
        ),
        clause(PAGE, "set", "IPC_SET sets owner, group and mode, and stamps ctime", |h: &H| {
            let (id, since) = (set(h, &[1]), now());
            h.sem_set(id, Owner { uid: ALICE, gid: BOB, mode: 0o7642 }).unwrap();
            let status = h.sem_status(id).unwrap();
            assert_eq!((status.perm.uid, status.perm.gid, status.perm.mode), (ALICE, BOB, 0o642));
            assert_eq!((status.perm.cuid, status.perm.cgid), (0, 0));
            recent(status.ctime, since);
            holds(h, id, &[1]);
        }),
        clause(PAGE, "set_denied", "IPC_SET by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            let before = h.sem_status(id).unwrap();
            as_other(BOB, ALICE, || {
                fails(Errno::PERM, h.sem_set(id, Owner { uid: BOB, gid: BOB, mode: 0o777 }));
            });
            assert_eq!(h.sem_status(id), Ok(before));
        }),
        clause(PAGE, "set_by_owner", "the owner may, whatever the mode", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, ALICE, || {
                h.sem_set(id, Owner { uid: ALICE, gid: ALICE, mode: 0o600 }).unwrap();
                h.sem_setval(id, 0, 3).unwrap();
            });
            holds(h, id, &[3, 0]);
        }),
        clause(PAGE, "creator_keeps_rights", "owner and creator both have the owner's rights", |h: &H| {
            let id = of_alice(h, 0o600);
            as_other(ALICE, ALICE, || {
                h.sem_set(id, Owner { uid: BOB, gid: BOB, mode: 0o600 }).unwrap();
                h.sem_setval(id, 0, 3).unwrap();
            });
            as_other(BOB, BOB, || h.sem_setval(id, 1, 4).unwrap());
            holds(h, id, &[3, 4]);
            as_other(ALICE, ALICE, || h.sem_remove(id).unwrap());
        }),
        clause(PAGE, "remove_denied", "removal by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            as_other(BOB, ALICE, || fails(Errno::PERM, h.sem_remove(id)));
            holds(h, id, &[0, 0]);
        }),
        clause(PAGE, "remove_by_owner", "the owner needs no bit of the mode for it", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, BOB, || h.sem_remove(id).unwrap());
            fails(Errno::NOENT, h.semget(KEY, 0, 0));
        }),
        clause(PAGE, "privileged", "who is privileged does all of it to anybody's", |h: &H| {
            let id = of_alice(h, 0o000);
            h.sem_setval(id, 0, 1).unwrap();
            holds(h, id, &[1, 0]);
            h.sem_set(id, Owner { uid: 0, gid: 0, mode: 0o600 }).unwrap();
            h.sem_remove(id).unwrap();
        }),
    ]
}
