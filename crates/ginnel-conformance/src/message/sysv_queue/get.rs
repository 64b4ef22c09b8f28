//! `msgget(2)`.

use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

use super::{KEY, private, put, texts};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, recent};
use crate::home::SysvMessages;

const PAGE: &str = "msgget(2)";

pub(super) fn clauses<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "private", "IPC_PRIVATE makes a new queue each time, whatever the flags", |h: &H| {
            let ids = [0o600, 0o600 | IPC_CREAT, 0o600 | IPC_CREAT | IPC_EXCL, 0o600 | IPC_EXCL]
                .map(|flags| h.msgget(IPC_PRIVATE, flags).unwrap());
            assert!(ids.iter().all(|id| *id >= 0));
            assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
            assert_eq!(h.msg_status(ids[3]).unwrap().perm.key, IPC_PRIVATE);
        }),
        clause(PAGE, "same_key", "a key leads every process to the same queue", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            elsewhere(|| {
                assert_eq!(h.msgget(KEY, 0), Ok(id));
                put(h, id, &[(1, "from a stranger")]);
            });
            assert_eq!(texts(h, id), ["from a stranger"]);
            assert_ne!(h.msgget(KEY + 1, IPC_CREAT | 0o600), Ok(id));
        }),
        clause(PAGE, "unknown_key", "a key without a queue is ENOENT without IPC_CREAT", |h: &H| {
            fails(Errno::NOENT, h.msgget(KEY, 0o600));
            fails(Errno::NOENT, h.msgget(KEY, 0o600 | IPC_EXCL));
            h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
        }),
        clause(PAGE, "exclusive", "IPC_CREAT with IPC_EXCL is EEXIST where there is a queue", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            fails(Errno::EXIST, h.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o600));
            assert_eq!(h.msgget(KEY, IPC_CREAT | 0o600), Ok(id), "without IPC_EXCL it is opened");
        }),
        clause(PAGE, "exclusive_alone", "IPC_EXCL without IPC_CREAT asks nothing", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            assert_eq!(h.msgget(KEY, IPC_EXCL), Ok(id));
        }),
        clause(
            PAGE,
            "first_status",
            "a new queue is empty, its stamps and pids 0, its ctime now",
            |h: &H| {
                let since = now();
                let id = h.msgget(KEY, IPC_CREAT | 0o640).unwrap();
                let status = h.msg_status(id).unwrap();
                assert_eq!((status.qnum, status.cbytes, status.stime, status.rtime), (0, 0, 0, 0));
                assert_eq!((status.lspid, status.lrpid), (0, 0));
                assert_eq!((status.perm.key, status.perm.mode), (KEY, 0o640));
                recent(status.ctime, since);
            },
        ),
        clause(
            PAGE,
            "first_owner",
            "owner and creator are the caller's effective user and group",
            |h: &H| {
                as_other(ALICE, ALICE, || {
                    h.msgget(KEY, IPC_CREAT | 0o644).unwrap();
                });
                let perm = h.msg_status(h.msgget(KEY, 0).unwrap()).unwrap().perm;
                assert_eq!((perm.uid, perm.gid, perm.cuid, perm.cgid), (ALICE, ALICE, ALICE, ALICE));
            },
        ),
        clause(PAGE, "nine_bits", "the mode is the lowest nine bits of the flags, execute too", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o7751).unwrap();
            assert_eq!(h.msg_status(id).unwrap().perm.mode, 0o751);
        }),
        clause(PAGE, "no_umask", "the umask takes nothing away", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let id = h.msgget(KEY, IPC_CREAT | 0o666).unwrap();
            assert_eq!(h.msg_status(id).unwrap().perm.mode, 0o666);
        }),
        clause(PAGE, "existing_keeps_its_mode", "opening with another mode changes none", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o640).unwrap();
            assert_eq!(h.msgget(KEY, IPC_CREAT | 0o666), Ok(id));
            assert_eq!(h.msg_status(id).unwrap().perm.mode, 0o640);
        }),
        clause(
            PAGE,
            "asks_too_much",
            "bits in the flags that the mode does not grant are EACCES",
            |h: &H| {
                h.msgget(KEY, IPC_CREAT | 0o644).unwrap();
                as_other(BOB, BOB, || {
                    h.msgget(KEY, 0o444).unwrap();
                    fails(Errno::ACCESS, h.msgget(KEY, 0o666));
                    fails(Errno::ACCESS, h.msgget(KEY, 0o200));
                });
            },
        ),
        clause(PAGE, "asks_nothing", "without bits in the flags anybody learns the id", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || {
                assert_eq!(h.msgget(KEY, 0), Ok(id));
                fails(Errno::ACCESS, h.msg_status(id));
            });
        }),
        clause(PAGE, "group_bits", "the group's bits are for the owner's group", |h: &H| {
            as_other(ALICE, ALICE, || _ = h.msgget(KEY, IPC_CREAT | 0o640).unwrap());
            as_other(BOB, ALICE, || {
                h.msgget(KEY, 0o040).unwrap();
                fails(Errno::ACCESS, h.msgget(KEY, 0o060));
            });
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msgget(KEY, 0o004)));
        }),
        clause(
            PAGE,
            "any_class_asks",
            "which of the three classes asks for a bit is all the same",
            |h: &H| {
                as_other(ALICE, ALICE, || _ = h.msgget(KEY, IPC_CREAT | 0o400).unwrap());
                as_other(ALICE, ALICE, || {
                    h.msgget(KEY, 0o444).unwrap();
                    h.msgget(KEY, 0o004).unwrap();
                    fails(Errno::ACCESS, h.msgget(KEY, 0o002));
                });
            },
        ),
        clause(PAGE, "exists_before_access", "EEXIST is said also to who has no access", |h: &H| {
            h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || fails(Errno::EXIST, h.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o600)));
        }),
        clause(PAGE, "privileged", "CAP_IPC_OWNER passes every mode", |h: &H| {
            as_other(ALICE, ALICE, || {
                let id = h.msgget(KEY, IPC_CREAT).unwrap();
                fails(Errno::ACCESS, h.msgget(KEY, 0o600));
                fails(Errno::ACCESS, h.msg_status(id));
            });
            let id = h.msgget(KEY, 0o666).unwrap();
            put(h, id, &[(1, "root")]);
            assert_eq!(texts(h, id), ["root"]);
        }),
        clause(PAGE, "outlives_its_maker", "a queue and its messages outlive every process", |h: &H| {
            elsewhere(|| put(h, h.msgget(KEY, IPC_CREAT | 0o600).unwrap(), &[(1, "left")]));
            assert_eq!(texts(h, h.msgget(KEY, 0).unwrap()), ["left"]);
        }),
        clause(PAGE, "negative_key", "every key but 0 is a key", |h: &H| {
            let keys = [-1, i32::MIN, i32::MAX, 1];
            let ids = keys.map(|key| h.msgget(key, IPC_CREAT | IPC_EXCL | 0o600).unwrap());
            assert_eq!(keys.map(|key| h.msgget(key, 0).unwrap()), ids);
            assert_eq!(h.msg_status(ids[1]).unwrap().perm.key, i32::MIN);
        }),
        clause(PAGE, "key_again", "a removed queue's key is free, its id is not the new one's", |h: &H| {
            let old = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            h.msg_remove(old).unwrap();
            fails(Errno::NOENT, h.msgget(KEY, 0));
            let new = h.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            assert_ne!(old, new);
            fails(Errno::INVAL, h.msgsnd(old, 1, b"x", 0));
        }),
        clause(PAGE, "raced", "of many that make one key exclusively one succeeds", |h: &H| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    ginnel_testkit::fork(|| match h.msgget(KEY, IPC_CREAT | IPC_EXCL | 0o600) {
                        Ok(id) => put(h, id, &[(1, "made")]),
                        Err(errno) => assert_eq!(errno, Errno::EXIST),
                    })
                })
                .collect();
            racers.into_iter().for_each(|racer| racer.assert_ok());
            assert_eq!(texts(h, h.msgget(KEY, 0).unwrap()), ["made"]);
        }),
        clause(PAGE, "private_unlisted", "a private queue has no key to find it by", |h: &H| {
            let id = private(h);
            assert_ne!(h.msgget(IPC_PRIVATE, 0o600), Ok(id));
            elsewhere(|| put(h, id, &[(1, "by id")]));
            assert_eq!(texts(h, id), ["by id"]);
        }),
    ]
}
