//! `semget(2)`.

use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

use super::{KEY, at_once, holds};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, recent};
use crate::home::SysvSemaphores;

const PAGE: &str = "semget(2)";

pub(super) fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "private", "IPC_PRIVATE makes a new set each time, whatever the flags", |h: &H| {
            let ids = [0o600, 0o600 | IPC_CREAT, 0o600 | IPC_CREAT | IPC_EXCL, 0o600 | IPC_EXCL]
                .map(|flags| h.semget(IPC_PRIVATE, 1, flags).unwrap());
            assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        }),
        clause(PAGE, "same_key", "a key leads every process to the same set", |h: &H| {
            let id = h.semget(KEY, 2, IPC_CREAT | 0o600).unwrap();
            elsewhere(|| {
                assert_eq!(h.semget(KEY, 2, 0), Ok(id));
                h.semop(id, &[at_once(1, 3)]).unwrap();
            });
            holds(h, id, &[0, 3]);
        }),
        clause(PAGE, "unknown_key", "a key without a set is ENOENT without IPC_CREAT", |h: &H| {
            fails(Errno::NOENT, h.semget(KEY, 1, 0o600));
            fails(Errno::NOENT, h.semget(KEY, 1, 0o600 | IPC_EXCL));
        }),
        clause(PAGE, "exclusive", "IPC_CREAT with IPC_EXCL is EEXIST where there is a set", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            fails(Errno::EXIST, h.semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600));
            assert_eq!(h.semget(KEY, 1, IPC_CREAT | 0o600), Ok(id));
        }),
        clause(
            PAGE,
            "first_status",
            "a new set's values, pids and otime are 0, its ctime is now",
            |h: &H| {
                let since = now();
                let id = h.semget(KEY, 3, IPC_CREAT | 0o640).unwrap();
                let status = h.sem_status(id).unwrap();
                assert_eq!((status.nsems, status.otime), (3, 0));
                assert_eq!((status.perm.key, status.perm.mode), (KEY, 0o640));
                recent(status.ctime, since);
                holds(h, id, &[0, 0, 0]);
                assert_eq!(h.sem_getpid(id, 2), Ok(0));
            },
        ),
        clause(
            PAGE,
            "first_owner",
            "owner and creator are the caller's effective user and group",
            |h: &H| {
                as_other(ALICE, BOB, || _ = h.semget(KEY, 1, IPC_CREAT | 0o644).unwrap());
                let perm = h.sem_status(h.semget(KEY, 0, 0).unwrap()).unwrap().perm;
                assert_eq!((perm.uid, perm.gid, perm.cuid, perm.cgid), (ALICE, BOB, ALICE, BOB));
            },
        ),
        clause(PAGE, "nine_bits", "the mode is the lowest nine bits of the flags", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o7751).unwrap();
            assert_eq!(h.sem_status(id).unwrap().perm.mode, 0o751);
        }),
        clause(PAGE, "no_umask", "the umask takes nothing away", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let id = h.semget(KEY, 1, IPC_CREAT | 0o666).unwrap();
            assert_eq!(h.sem_status(id).unwrap().perm.mode, 0o666);
        }),
        clause(PAGE, "count_negative", "fewer than 0 semaphores are EINVAL", |h: &H| {
            fails(Errno::INVAL, h.semget(KEY, -1, IPC_CREAT | 0o600));
            fails(Errno::INVAL, h.semget(IPC_PRIVATE, i32::MIN, 0o600));
            h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            fails(Errno::INVAL, h.semget(KEY, -1, 0));
        }),
        clause(PAGE, "count_none", "a new set of none is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.semget(KEY, 0, IPC_CREAT | 0o600));
            fails(Errno::INVAL, h.semget(IPC_PRIVATE, 0, 0o600));
            fails(Errno::NOENT, h.semget(KEY, 0, 0));
        }),
        clause(PAGE, "count_unsaid", "who opens a set need not say how many there are", |h: &H| {
            let id = h.semget(KEY, 5, IPC_CREAT | 0o600).unwrap();
            assert_eq!(h.semget(KEY, 0, 0), Ok(id));
            assert_eq!(h.semget(KEY, 3, IPC_CREAT | 0o600), Ok(id));
        }),
        clause(PAGE, "count_more", "more than an existing set has are EINVAL", |h: &H| {
            let id = h.semget(KEY, 5, IPC_CREAT | 0o600).unwrap();
            fails(Errno::INVAL, h.semget(KEY, 6, 0));
            fails(Errno::INVAL, h.semget(KEY, 6, IPC_CREAT | 0o600));
            assert_eq!(h.sem_status(id).unwrap().nsems, 5);
        }),
        clause(PAGE, "count_most", "a set of 32,000 works to its last; one more is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.semget(IPC_PRIVATE, 32001, 0o600));
            let id = h.semget(IPC_PRIVATE, 32000, 0o600).unwrap();
            h.semop(id, &[at_once(31999, 7), at_once(0, 1)]).unwrap();
            let values = h.sem_getall(id).unwrap();
            assert_eq!((values.len(), values[0], values[1], values[31999]), (32000, 1, 0, 7));
        }),
        clause(
            PAGE,
            "asks_too_much",
            "bits in the flags that the mode does not grant are EACCES",
            |h: &H| {
                h.semget(KEY, 1, IPC_CREAT | 0o644).unwrap();
                as_other(BOB, BOB, || {
                    h.semget(KEY, 1, 0o444).unwrap();
                    fails(Errno::ACCESS, h.semget(KEY, 1, 0o666));
                });
            },
        ),
        clause(PAGE, "asks_nothing", "without bits in the flags anybody learns the id", |h: &H| {
            let id = h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || {
                assert_eq!(h.semget(KEY, 1, 0), Ok(id));
                fails(Errno::ACCESS, h.sem_getval(id, 0));
            });
        }),
        clause(PAGE, "exists_before_count", "EEXIST is said before the number is looked at", |h: &H| {
            h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            fails(Errno::EXIST, h.semget(KEY, 9, IPC_CREAT | IPC_EXCL | 0o600));
        }),
        clause(PAGE, "count_before_access", "a number too large is EINVAL also without access", |h: &H| {
            h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::INVAL, h.semget(KEY, 2, 0o600));
                fails(Errno::ACCESS, h.semget(KEY, 1, 0o600));
            });
        }),
        clause(PAGE, "key_again", "a removed set's key is free, its id is not the new one's", |h: &H| {
            let old = h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            h.sem_remove(old).unwrap();
            fails(Errno::NOENT, h.semget(KEY, 1, 0));
            let new = h.semget(KEY, 4, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            assert_ne!(old, new);
            fails(Errno::INVAL, h.semop(old, &[at_once(0, 1)]));
            holds(h, new, &[0; 4]);
        }),
        clause(PAGE, "outlives_its_maker", "a set outlives every process", |h: &H| {
            elsewhere(|| {
                let id = h.semget(KEY, 1, IPC_CREAT | 0o600).unwrap();
                h.semop(id, &[at_once(0, 9)]).unwrap();
            });
            holds(h, h.semget(KEY, 1, 0).unwrap(), &[9]);
        }),
        clause(PAGE, "raced", "of many that make one key exclusively one succeeds", |h: &H| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    ginnel_testkit::fork(|| match h.semget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600) {
                        Ok(id) => h.semop(id, &[at_once(0, 1)]).unwrap(),
                        Err(errno) => assert_eq!(errno, Errno::EXIST),
                    })
                })
                .collect();
            racers.into_iter().for_each(|racer| racer.assert_ok());
            holds(h, h.semget(KEY, 1, 0).unwrap(), &[1]);
        }),
    ]
}
