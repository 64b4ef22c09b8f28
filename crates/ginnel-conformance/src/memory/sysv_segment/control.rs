//! `shmctl(2)`.

use ginnel_testkit::{fork, wait_until};
use libc::{IPC_CREAT, IPC_EXCL, SHM_RDONLY};

use super::{KEY, attached, attaches, attaches_become, peek, poke, private};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, recent};
use crate::home::{Owner, SysvMemory};

const PAGE: &str = "shmctl(2)";

/// A segment of Alice's.
fn of_alice<H: SysvMemory>(h: &H, mode: i32) -> i32 {
    as_other(ALICE, ALICE, || _ = h.shmget(KEY, 10, IPC_CREAT | IPC_EXCL | mode).unwrap());
    h.shmget(KEY, 0, 0).unwrap()
}

pub(super) fn clauses<H: SysvMemory>() -> Vec<Clause<H>> {
    let mut all = removal();
    all.extend(rights());
    all
}

fn removal<H: SysvMemory>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "control_bad_id", "every command on an id that is no segment's is EINVAL", |h: &H| {
            let id = private(h, 1);
            for id in [-1, i32::MIN, id + 1] {
                fails(Errno::INVAL, h.shm_status(id));
                fails(Errno::INVAL, h.shm_set(id, Owner { uid: 0, gid: 0, mode: 0o600 }));
                fails(Errno::INVAL, h.shm_remove(id));
            }
        }),
        clause(PAGE, "control_removed_id", "and on a removed one's", |h: &H| {
            let id = private(h, 1);
            elsewhere(|| h.shm_remove(id).unwrap());
            fails(Errno::INVAL, h.shm_status(id));
            fails(Errno::INVAL, h.shm_remove(id));
        }),
        clause(PAGE, "remove_unattached", "an unattached segment is gone with its removal", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            h.shmdt(attached(h, id)).unwrap();
            h.shm_remove(id).unwrap();
            fails(Errno::INVAL, h.shm_status(id));
            fails(Errno::NOENT, h.shmget(KEY, 0, 0));
        }),
        clause(
            PAGE,
            "remove_attached",
            "an attached one lives on, without its key, marked SHM_DEST",
            |h: &H| {
                let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
                let at = attached(h, id);
                poke(at, 6);
                h.shm_remove(id).unwrap();
                assert_eq!(peek(at), 6);
                let status = h.shm_status(id).unwrap();
                assert_eq!((status.doomed, status.nattch, status.perm.key), (true, 1, 0));
                fails(Errno::NOENT, h.shmget(KEY, 0, 0));
                assert_ne!(h.shmget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600), Ok(id));
            },
        ),
        clause(PAGE, "attach_removed", "it can still be attached by its id", |h: &H| {
            let id = private(h, 1);
            poke(attached(h, id), 6);
            h.shm_remove(id).unwrap();
            elsewhere(|| assert_eq!(peek(attached(h, id)), 6));
            attaches_become(h, id, 1);
        }),
        clause(PAGE, "last_detach", "the last detach destroys it", |h: &H| {
            let id = private(h, 1);
            let (one, two) = (attached(h, id), attached(h, id));
            h.shm_remove(id).unwrap();
            h.shmdt(one).unwrap();
            assert_eq!(attaches(h, id), 1);
            h.shmdt(two).unwrap();
            fails(Errno::INVAL, h.shm_status(id));
            fails(Errno::INVAL, h.shmat(id, 0, 0));
        }),
        clause(PAGE, "last_death", "so does the last attached process's death", |h: &H| {
            let id = private(h, 1);
            let child = fork(|| {
                attached(h, id);
                loop {
                    std::thread::park();
                }
            });
            attaches_become(h, id, 1);
            h.shm_remove(id).unwrap();
            h.shm_status(id).unwrap();
            child.kill();
            child.wait();
            wait_until("it is gone", || h.shm_status(id) == Err(Errno::INVAL));
        }),
        clause(PAGE, "remove_twice", "removing it again is no error while it lives", |h: &H| {
            let id = private(h, 1);
            attached(h, id);
            h.shm_remove(id).unwrap();
            h.shm_remove(id).unwrap();
            assert!(h.shm_status(id).unwrap().doomed);
        }),
        clause(
            PAGE,
            "stale_ids",
            "no id comes back soon: a stale one is EINVAL and harms nobody",
            |h: &H| {
                let old: Vec<i32> = (0..200)
                    .map(|_| {
                        let id = private(h, 1);
                        h.shm_remove(id).unwrap();
                        id
                    })
                    .collect();
                let live = private(h, 1);
                assert_eq!(old.iter().collect::<std::collections::HashSet<_>>().len(), 200);
                for id in old {
                    fails(Errno::INVAL, h.shmat(id, 0, 0));
                    fails(Errno::INVAL, h.shm_remove(id));
                }
                attached(h, live);
            },
        ),
    ]
}

fn rights<H: SysvMemory>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "stat_denied", "IPC_STAT without read permission is EACCES", |h: &H| {
            let id = of_alice(h, 0o622);
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.shm_status(id)));
        }),
        clause(PAGE, "stat_allowed", "with it, it is anybody's to read", |h: &H| {
            let id = of_alice(h, 0o604);
            as_other(BOB, BOB, || assert_eq!(h.shm_status(id).unwrap().segsz, 10));
        }),
        clause(
            PAGE,
            "owner_class_first",
            "the owner has the owner's bits, be they fewer than others'",
            |h: &H| {
                let id = of_alice(h, 0o066);
                as_other(ALICE, ALICE, || fails(Errno::ACCESS, h.shmat(id, 0, SHM_RDONLY)));
                as_other(BOB, BOB, || _ = attached(h, id));
            },
        ),
        clause(PAGE, "set", "IPC_SET sets owner, group and mode, and stamps ctime", |h: &H| {
            let (id, since) = (private(h, 1), now());
            h.shm_set(id, Owner { uid: ALICE, gid: BOB, mode: 0o642 }).unwrap();
            let status = h.shm_status(id).unwrap();
            assert_eq!((status.perm.uid, status.perm.gid, status.perm.mode), (ALICE, BOB, 0o642));
            assert_eq!((status.perm.cuid, status.perm.cgid, status.segsz), (0, 0, 1));
            recent(status.ctime, since);
        }),
        clause(PAGE, "set_denied", "IPC_SET by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            as_other(BOB, ALICE, || {
                fails(Errno::PERM, h.shm_set(id, Owner { uid: BOB, gid: BOB, mode: 0o777 }));
            });
            assert_eq!(h.shm_status(id).unwrap().perm.uid, ALICE);
        }),
        clause(PAGE, "set_by_owner", "the owner may, whatever the mode", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, ALICE, || {
                h.shm_set(id, Owner { uid: ALICE, gid: ALICE, mode: 0o600 }).unwrap();
                poke(attached(h, id), 1);
            });
        }),
        clause(PAGE, "creator_keeps_rights", "owner and creator both have the owner's rights", |h: &H| {
            let id = of_alice(h, 0o600);
            as_other(ALICE, ALICE, || {
                h.shm_set(id, Owner { uid: BOB, gid: BOB, mode: 0o600 }).unwrap();
                poke(attached(h, id), 3);
            });
            as_other(BOB, BOB, || assert_eq!(peek(attached(h, id)), 3));
            as_other(ALICE, ALICE, || h.shm_remove(id).unwrap());
        }),
        clause(
            PAGE,
            "set_leaves_attaches",
            "who is attached stays so, whatever the mode becomes",
            |h: &H| {
                let id = private(h, 1);
                let at = attached(h, id);
                h.shm_set(id, Owner { uid: 0, gid: 0, mode: 0 }).unwrap();
                poke(at, 5);
                assert_eq!(peek(at), 5);
            },
        ),
        clause(PAGE, "remove_denied", "removal by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            as_other(BOB, ALICE, || fails(Errno::PERM, h.shm_remove(id)));
            assert!(!h.shm_status(id).unwrap().doomed);
        }),
        clause(PAGE, "remove_by_owner", "the owner needs no bit of the mode for it", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, BOB, || h.shm_remove(id).unwrap());
            fails(Errno::NOENT, h.shmget(KEY, 0, 0));
        }),
        clause(PAGE, "privileged", "who is privileged does all of it to anybody's", |h: &H| {
            let id = of_alice(h, 0o000);
            poke(attached(h, id), 1);
            h.shm_set(id, Owner { uid: 0, gid: 0, mode: 0o600 }).unwrap();
            h.shm_remove(id).unwrap();
        }),
    ]
}
