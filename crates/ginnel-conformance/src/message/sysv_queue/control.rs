//! `msgctl(2)`.

use ginnel_testkit::{as_user, wait_until};
use libc::{IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_PRIVATE};

use super::{KEY, holding, limit, private, put, take, texts};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, recent};
use crate::home::{Owner, SysvMessages};

const PAGE: &str = "msgctl(2)";

/// A queue of Alice's.
fn of_alice<H: SysvMessages>(h: &H, mode: i32) -> i32 {
    as_other(ALICE, ALICE, || _ = h.msgget(KEY, IPC_CREAT | IPC_EXCL | mode).unwrap());
    h.msgget(KEY, 0).unwrap()
}

fn give<H: SysvMessages>(h: &H, id: i32, owner: Owner) -> crate::Result<()> {
    h.msg_set(id, owner, 16384)
}

pub(super) fn clauses<H: SysvMessages>() -> Vec<Clause<H>> {
    let mut all = status_and_removal();
    all.extend(setting());
    all
}

fn status_and_removal<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "stat_bad_id", "every command on an id that is no queue's is EINVAL", |h: &H| {
            let id = private(h);
            let owner = h.msg_status(id).unwrap().perm.owner();
            for id in [-1, i32::MIN, id + 1, i32::MAX] {
                fails(Errno::INVAL, h.msg_status(id));
                fails(Errno::INVAL, h.msg_set(id, owner, 1));
                fails(Errno::INVAL, h.msg_remove(id));
            }
        }),
        clause(PAGE, "stat_removed_id", "and on a removed queue's", |h: &H| {
            let id = private(h);
            let owner = h.msg_status(id).unwrap().perm.owner();
            elsewhere(|| h.msg_remove(id).unwrap());
            fails(Errno::INVAL, h.msg_status(id));
            fails(Errno::INVAL, h.msg_set(id, owner, 1));
            fails(Errno::INVAL, h.msg_remove(id));
        }),
        clause(PAGE, "stat_denied", "IPC_STAT without read permission is EACCES", |h: &H| {
            let id = of_alice(h, 0o620);
            as_other(BOB, ALICE, || fails(Errno::ACCESS, h.msg_status(id)));
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msg_status(id)));
        }),
        clause(PAGE, "stat_allowed", "and with it, it is anybody's to read", |h: &H| {
            let id = of_alice(h, 0o604);
            as_other(BOB, BOB, || assert_eq!(h.msg_status(id).unwrap().perm.uid, ALICE));
            as_other(BOB, ALICE, || fails(Errno::ACCESS, h.msg_status(id)));
        }),
        clause(
            PAGE,
            "owner_class_first",
            "the owner has the owner's bits, be they fewer than others'",
            |h: &H| {
                let id = of_alice(h, 0o066);
                as_other(ALICE, ALICE, || {
                    fails(Errno::ACCESS, h.msg_status(id));
                    fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT));
                });
                as_other(BOB, BOB, || _ = h.msg_status(id).unwrap());
            },
        ),
        clause(PAGE, "remove_discards", "removal takes the queue and its messages at once", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            put(h, id, &[(1, "gone")]);
            h.msg_remove(id).unwrap();
            fails(Errno::NOENT, h.msgget(KEY, 0));
            let again = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            fails(Errno::NOMSG, take(h, again, 0, 0));
        }),
        clause(PAGE, "remove_denied", "removal by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            as_other(BOB, ALICE, || fails(Errno::PERM, h.msg_remove(id)));
            assert_eq!(h.msgget(KEY, 0), Ok(id));
        }),
        clause(PAGE, "remove_by_owner", "the owner needs no bit of the mode for it", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, BOB, || h.msg_remove(id).unwrap());
            fails(Errno::NOENT, h.msgget(KEY, 0));
        }),
        clause(PAGE, "remove_by_root", "who is privileged removes anybody's", |h: &H| {
            h.msg_remove(of_alice(h, 0o600)).unwrap();
        }),
        clause(
            PAGE,
            "stale_ids",
            "no id comes back soon: a stale one is EINVAL and harms nobody",
            |h: &H| {
                let mut old = Vec::new();
                for _ in 0..300 {
                    let id = private(h);
                    assert!(!old.contains(&id), "{id} again");
                    h.msg_remove(id).unwrap();
                    old.push(id);
                }
                let live = private(h);
                put(h, live, &[(1, "x")]);
                for id in old {
                    fails(Errno::INVAL, h.msg_remove(id));
                    fails(Errno::INVAL, take(h, id, 0, 0));
                }
                assert_eq!(texts(h, live), ["x"]);
            },
        ),
        clause(PAGE, "many", "a thousand queues live side by side", |h: &H| {
            let ids: Vec<i32> = (0..1000).map(|_| h.msgget(IPC_PRIVATE, 0o600).unwrap()).collect();
            for (number, id) in ids.iter().enumerate() {
                put(h, *id, &[(number as i64 + 1, "x")]);
            }
            for (number, id) in ids.iter().enumerate() {
                assert_eq!(take(h, *id, 0, 0).unwrap().0, number as i64 + 1);
            }
        }),
    ]
}

fn setting<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "set", "IPC_SET sets owner, group, mode and qbytes, and stamps ctime", |h: &H| {
            let (id, since) = (private(h), now());
            h.msg_set(id, Owner { uid: ALICE, gid: BOB, mode: 0o4651 }, 99).unwrap();
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.perm.uid, status.perm.gid), (ALICE, BOB));
            assert_eq!((status.perm.cuid, status.perm.cgid), (0, 0), "the creator stays");
            assert_eq!((status.perm.mode, status.qbytes), (0o651, 99), "of the mode nine bits");
            recent(status.ctime, since);
            assert_eq!((status.qnum, status.stime, status.lspid), (0, 0, 0));
        }),
        clause(PAGE, "set_denied", "IPC_SET by who is neither owner nor creator is EPERM", |h: &H| {
            let id = of_alice(h, 0o666);
            let before = h.msg_status(id).unwrap();
            as_other(BOB, ALICE, || {
                let owner = h.msg_status(id).unwrap().perm.owner();
                fails(Errno::PERM, give(h, id, owner));
            });
            assert_eq!(h.msg_status(id), Ok(before));
        }),
        clause(PAGE, "set_by_owner", "the owner may, whatever the mode", |h: &H| {
            let id = of_alice(h, 0o000);
            as_other(ALICE, ALICE, || {
                fails(Errno::ACCESS, h.msg_status(id));
                give(h, id, Owner { uid: ALICE, gid: ALICE, mode: 0o600 }).unwrap();
                assert_eq!(h.msg_status(id).unwrap().perm.mode, 0o600);
            });
        }),
        clause(PAGE, "set_gives_rights", "who a queue is given to has the owner's rights", |h: &H| {
            let id = of_alice(h, 0o600);
            as_other(ALICE, ALICE, || give(h, id, Owner { uid: BOB, gid: BOB, mode: 0o600 }).unwrap());
            as_other(BOB, BOB, || {
                put(h, id, &[(1, "mine now")]);
                h.msg_remove(id).unwrap();
            });
        }),
        clause(PAGE, "creator_keeps_rights", "the creator keeps them too", |h: &H| {
            let id = of_alice(h, 0o600);
            as_other(ALICE, ALICE, || {
                give(h, id, Owner { uid: BOB, gid: BOB, mode: 0o600 }).unwrap();
                put(h, id, &[(1, "still mine")]);
                assert_eq!(h.msg_status(id).unwrap().perm.uid, BOB);
                give(h, id, Owner { uid: BOB, gid: BOB, mode: 0o400 }).unwrap();
                fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT));
                h.msg_remove(id).unwrap();
            });
        }),
        clause(PAGE, "creator_group_keeps_rights", "and so does the creator's group", |h: &H| {
            let id = of_alice(h, 0o660);
            give(h, id, Owner { uid: 0, gid: 0, mode: 0o060 }).unwrap();
            as_other(BOB, ALICE, || put(h, id, &[(1, "group")]));
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT)));
        }),
        clause(PAGE, "set_narrows", "what a mode no longer grants is refused from then on", |h: &H| {
            let id = of_alice(h, 0o666);
            let (reader, writer) = std::io::pipe().unwrap();
            let bob = as_user(BOB, BOB, || {
                put(h, id, &[(1, "before")]);
                std::io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
                fails(Errno::ACCESS, h.msgsnd(id, 1, b"after", IPC_NOWAIT));
            });
            wait_until("Bob has sent", || h.msg_status(id).unwrap().qnum == 1);
            give(h, id, Owner { uid: ALICE, gid: ALICE, mode: 0o644 }).unwrap();
            std::io::Write::write_all(&mut &writer, b"x").unwrap();
            bob.assert_ok();
            assert_eq!(texts(h, id), ["before"]);
        }),
        clause(PAGE, "set_below_content", "qbytes may go below what is in it: nothing is lost", |h: &H| {
            let id = private(h);
            put(h, id, &[(1, "0123456789"), (1, "ab")]);
            limit(h, id, 5);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"", IPC_NOWAIT));
            assert_eq!(texts(h, id), ["0123456789", "ab"]);
            take(h, id, 0, 0).unwrap();
            put(h, id, &[(1, "abc")]);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"x", IPC_NOWAIT));
        }),
        clause(PAGE, "set_zero", "with qbytes 0 nothing goes in", |h: &H| {
            let id = holding(h, 0);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"", IPC_NOWAIT));
            limit(h, id, 1);
            put(h, id, &[(1, "")]);
        }),
        clause(PAGE, "set_more_than_msgmnb", "qbytes above MSGMNB needs a privilege: EPERM", |h: &H| {
            let id = of_alice(h, 0o600);
            as_other(ALICE, ALICE, || {
                let owner = h.msg_status(id).unwrap().perm.owner();
                h.msg_set(id, owner, 16384).unwrap();
                h.msg_set(id, owner, 100).unwrap();
                h.msg_set(id, owner, 16384).unwrap();
                fails(Errno::PERM, h.msg_set(id, owner, 16385));
            });
            assert_eq!(h.msg_status(id).unwrap().qbytes, 16384);
        }),
        clause(PAGE, "first_qbytes", "a new queue holds 16,384 bytes", |h: &H| {
            assert_eq!(h.msg_status(private(h)).unwrap().qbytes, 16384);
        }),
        clause(PAGE, "set_bad_owner", "an owner that is no user's number is EINVAL", |h: &H| {
            let id = private(h);
            fails(Errno::INVAL, give(h, id, Owner { uid: u32::MAX, gid: 0, mode: 0o600 }));
            fails(Errno::INVAL, give(h, id, Owner { uid: 0, gid: u32::MAX, mode: 0o600 }));
            assert_eq!(h.msg_status(id).unwrap().perm.mode, 0o600);
        }),
    ]
}
