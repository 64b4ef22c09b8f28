//! `msgrcv` of `msgop(2)`.

use libc::{IPC_CREAT, IPC_NOWAIT, MSG_COPY, MSG_EXCEPT, MSG_NOERROR};

use super::{KEY, private, put, take, texts, wait_for};
use ginnel_testkit::wait_until;

use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{BOB, as_other, blocked, elsewhere, fails, interrupted, now, recent};
use crate::home::SysvMessages;

const PAGE: &str = "msgop(2)";

pub(super) fn clauses<H: SysvMessages>() -> Vec<Clause<H>> {
    let mut all = selection();
    all.extend(sizes());
    all.extend(blocking());
    all.extend(copies());
    all
}

const MIXED: [(i64, &str); 6] = [(3, "a"), (1, "b"), (2, "c"), (3, "d"), (1, "e"), (5, "f")];

fn mixed<H: SysvMessages>(h: &H) -> i32 {
    let id = private(h);
    put(h, id, &MIXED);
    id
}

/// The texts that taking all messages with this type and these flags gives, in order.
fn taken<H: SysvMessages>(h: &H, id: i32, mtype: i64, flags: i32) -> String {
    std::iter::from_fn(|| take(h, id, mtype, flags).ok()).map(|(_, text)| text).collect()
}

fn selection<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "receive_any", "type 0 takes the oldest message", |h: &H| {
            let id = mixed(h);
            assert_eq!(taken(h, id, 0, 0), "abcdef");
        }),
        clause(PAGE, "receive_type", "a positive type takes the oldest of that type", |h: &H| {
            let id = mixed(h);
            assert_eq!((taken(h, id, 3, 0), taken(h, id, 1, 0)), ("ad".into(), "be".into()));
            assert_eq!(texts(h, id), ["c", "f"]);
        }),
        clause(
            PAGE,
            "receive_lowest",
            "a negative type takes the lowest type up to it, oldest first",
            |h: &H| {
                let id = mixed(h);
                assert_eq!(taken(h, id, -3, 0), "becad");
                assert_eq!(texts(h, id), ["f"]);
            },
        ),
        clause(PAGE, "receive_none_low_enough", "ENOMSG where every type is above it", |h: &H| {
            let id = private(h);
            put(h, id, &[(5, "f"), (9, "g")]);
            fails(Errno::NOMSG, take(h, id, -4, 0));
            assert_eq!(take(h, id, -5, 0), Ok((5, "f".into())));
        }),
        clause(
            PAGE,
            "receive_lowest_of_all",
            "the most negative type is a bound above every type",
            |h: &H| {
                let id = private(h);
                put(h, id, &[(i64::MAX, "z"), (4, "y")]);
                assert_eq!(taken(h, id, i64::MIN, 0), "yz");
            },
        ),
        clause(PAGE, "receive_except", "MSG_EXCEPT takes the oldest of another type", |h: &H| {
            let id = mixed(h);
            assert_eq!(taken(h, id, 3, MSG_EXCEPT), "bcef");
            assert_eq!(texts(h, id), ["a", "d"]);
            fails(Errno::NOMSG, take(h, id, 3, MSG_EXCEPT));
        }),
        clause(
            PAGE,
            "receive_except_any",
            "MSG_EXCEPT says nothing with type 0 or a negative one",
            |h: &H| {
                let id = mixed(h);
                assert_eq!(take(h, id, 0, MSG_EXCEPT).unwrap().1, "a");
                assert_eq!(taken(h, id, -2, MSG_EXCEPT), "bec");
            },
        ),
        clause(PAGE, "receive_empty", "with IPC_NOWAIT an empty queue is ENOMSG", |h: &H| {
            let id = private(h);
            for mtype in [0, 1, -1] {
                fails(Errno::NOMSG, take(h, id, mtype, 0));
            }
        }),
        clause(PAGE, "receive_no_such_type", "so is one without that type", |h: &H| {
            let id = mixed(h);
            fails(Errno::NOMSG, take(h, id, 4, 0));
            assert_eq!(texts(h, id).len(), 6);
        }),
        clause(PAGE, "receive_bad_id", "an id that is no queue's is EINVAL", |h: &H| {
            let id = private(h);
            for id in [-1, i32::MIN, id + 1, i32::MAX] {
                fails(Errno::INVAL, take(h, id, 0, 0));
            }
        }),
        clause(PAGE, "receive_removed_id", "a removed queue's id is EINVAL", |h: &H| {
            let id = mixed(h);
            elsewhere(|| h.msg_remove(id).unwrap());
            fails(Errno::INVAL, take(h, id, 0, 0));
        }),
        clause(PAGE, "receive_denied", "receiving without read permission is EACCES", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            put(h, id, &[(1, "x")]);
            as_other(BOB, BOB, || fails(Errno::ACCESS, take(h, id, 0, 0)));
            assert_eq!(texts(h, id), ["x"]);
        }),
        clause(PAGE, "receive_read_only", "read permission alone lets receive, and not send", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o644).unwrap();
            put(h, id, &[(1, "x"), (1, "y")]);
            as_other(BOB, BOB, || {
                assert_eq!(take(h, id, 0, 0), Ok((1, "x".into())));
                fails(Errno::ACCESS, h.msgsnd(id, 1, b"z", IPC_NOWAIT));
            });
            assert_eq!(texts(h, id), ["y"]);
        }),
        clause(PAGE, "receive_status", "receiving sets lrpid, rtime, qnum and cbytes", |h: &H| {
            let (id, since) = (mixed(h), now());
            let before = h.msg_status(id).unwrap();
            let child = ginnel_testkit::fork(|| drop(take(h, id, 2, 0).unwrap()));
            let pid = child.pid();
            child.assert_ok();
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.lrpid, status.qnum, status.cbytes), (pid, 5, 5));
            assert_eq!((status.lspid, status.stime), (before.lspid, before.stime));
            recent(status.rtime, since);
        }),
    ]
}

fn sizes<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "receive_too_big", "a message longer than the buffer is E2BIG, and stays", |h: &H| {
            let id = private(h);
            put(h, id, &[(1, "four")]);
            fails(Errno::TOOBIG, h.msgrcv(id, &mut [0; 3], 0, IPC_NOWAIT));
            assert_eq!(h.msg_status(id).unwrap().lrpid, 0);
            assert_eq!(h.msgrcv(id, &mut [0; 4], 0, IPC_NOWAIT), Ok((1, 4)));
        }),
        clause(
            PAGE,
            "receive_too_big_first",
            "E2BIG is of the message selected: no shorter one is looked for",
            |h: &H| {
                let id = private(h);
                put(h, id, &[(1, "four"), (1, "1"), (2, "2")]);
                fails(Errno::TOOBIG, h.msgrcv(id, &mut [0; 1], 1, IPC_NOWAIT));
                assert_eq!(h.msgrcv(id, &mut [0; 1], 2, IPC_NOWAIT), Ok((2, 1)));
                assert_eq!(texts(h, id), ["four", "1"]);
            },
        ),
        clause(PAGE, "receive_cut", "MSG_NOERROR cuts it to the buffer, and the rest is lost", |h: &H| {
            let id = private(h);
            put(h, id, &[(1, "abcdef"), (1, "next")]);
            let mut text = [0; 3];
            assert_eq!(h.msgrcv(id, &mut text, 0, IPC_NOWAIT | MSG_NOERROR), Ok((1, 3)));
            assert_eq!(&text, b"abc");
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.qnum, status.cbytes), (1, 4), "its whole length is given back");
            assert_eq!(texts(h, id), ["next"]);
        }),
        clause(
            PAGE,
            "receive_cut_to_nothing",
            "an empty buffer with MSG_NOERROR takes a message's type",
            |h: &H| {
                let id = private(h);
                put(h, id, &[(4, "abcdef")]);
                fails(Errno::TOOBIG, h.msgrcv(id, &mut [], 0, IPC_NOWAIT));
                assert_eq!(h.msgrcv(id, &mut [], 0, IPC_NOWAIT | MSG_NOERROR), Ok((4, 0)));
                assert_eq!(h.msg_status(id).unwrap().qnum, 0);
            },
        ),
        clause(PAGE, "receive_shorter", "MSG_NOERROR changes nothing for one that fits", |h: &H| {
            let id = private(h);
            put(h, id, &[(1, "abc")]);
            let mut text = *b"------";
            assert_eq!(h.msgrcv(id, &mut text, 0, IPC_NOWAIT | MSG_NOERROR), Ok((1, 3)));
            assert_eq!(&text, b"abc---");
        }),
    ]
}

fn blocking<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "receive_waits", "a receiver waits until a message comes", |h: &H| {
            let id = private(h);
            let receiver = blocked(h, || assert_eq!(wait_for(h, id, 0, 0), Ok((4, "hello".into()))));
            let pid = receiver.pid();
            put(h, id, &[(4, "hello")]);
            receiver.assert_ok();
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.qnum, status.lrpid), (0, pid));
            assert_ne!(status.rtime, 0);
        }),
        clause(
            PAGE,
            "receive_waits_in_thread",
            "lrpid is the thread's that waited, or else the process's",
            |h: &H| {
                let id = private(h);
                let receiver = ginnel_testkit::fork(|| {
                    std::thread::scope(|scope| {
                        let waits = || {
                            assert_eq!(wait_for(h, id, 0, 0), Ok((4, "waited for".into())));
                            drop(wait_for(h, id, 5, 0));
                        };
                        scope.spawn(waits).join().unwrap();
                    });
                });
                let tasks = format!("/proc/{}/task", receiver.pid());
                let mut thread = 0;
                wait_until("it has another thread", || {
                    let entries = std::fs::read_dir(&tasks).unwrap().map(|entry| entry.unwrap().file_name());
                    let mut ids = entries.map(|name| name.to_str().unwrap().parse::<i32>().unwrap());
                    ids.find(|id| *id != receiver.pid()).is_some_and(|id| {
                        thread = id;
                        true
                    })
                });
                h.wait_blocked(thread);
                put(h, id, &[(4, "waited for")]);
                wait_until("it has it", || h.msg_status(id).unwrap().lrpid != 0);
                assert_eq!(h.msg_status(id).unwrap().lrpid, thread);
                h.wait_blocked(thread);
                // What is there is the process's: nobody gave it to the thread.
                receiver.kill();
                receiver.wait();
                put(h, id, &[(5, "is there")]);
                elsewhere(|| {
                    std::thread::scope(|scope| {
                        let takes = || assert_eq!(wait_for(h, id, 5, 0), Ok((5, "is there".into())));
                        scope.spawn(takes).join().unwrap();
                        assert_eq!(h.msg_status(id).unwrap().lrpid, crate::help::pid());
                    });
                });
            },
        ),
        clause(PAGE, "receive_waits_for_type", "until one that it asks for comes", |h: &H| {
            let id = private(h);
            let receiver = blocked(h, || assert_eq!(wait_for(h, id, 4, 0), Ok((4, "mine".into()))));
            put(h, id, &[(3, "not mine")]);
            h.wait_blocked(receiver.pid());
            put(h, id, &[(4, "mine")]);
            receiver.assert_ok();
            assert_eq!(texts(h, id), ["not mine"]);
        }),
        clause(PAGE, "receive_waits_for_lower", "a negative type waits for one low enough", |h: &H| {
            let id = private(h);
            let receiver = blocked(h, || assert_eq!(wait_for(h, id, -2, 0), Ok((2, "low".into()))));
            put(h, id, &[(3, "high")]);
            h.wait_blocked(receiver.pid());
            put(h, id, &[(2, "low")]);
            receiver.assert_ok();
        }),
        clause(PAGE, "receive_waits_for_other", "MSG_EXCEPT waits for one of another type", |h: &H| {
            let id = private(h);
            let receiver = blocked(h, || assert_eq!(wait_for(h, id, 3, MSG_EXCEPT), Ok((4, "other".into()))));
            put(h, id, &[(3, "same")]);
            h.wait_blocked(receiver.pid());
            put(h, id, &[(4, "other")]);
            receiver.assert_ok();
            assert_eq!(texts(h, id), ["same"]);
        }),
        clause(
            PAGE,
            "receive_in_turn",
            "waiting receivers are served in the order in which they came",
            |h: &H| {
                let id = private(h);
                let receivers: Vec<_> = ["a", "b", "c"]
                    .map(|text| blocked(h, move || assert_eq!(wait_for(h, id, 1, 0), Ok((1, text.into())))))
                    .into();
                put(h, id, &[(1, "a"), (1, "b"), (1, "c")]);
                receivers.into_iter().for_each(|receiver| receiver.assert_ok());
            },
        ),
        clause(PAGE, "receive_who_asked", "a message goes to the first that asks for its type", |h: &H| {
            let id = private(h);
            let two = blocked(h, || assert_eq!(wait_for(h, id, 2, 0), Ok((2, "y".into()))));
            let any = blocked(h, || assert_eq!(wait_for(h, id, 0, 0), Ok((1, "x".into()))));
            let also_two = blocked(h, || assert_eq!(wait_for(h, id, 2, 0), Ok((2, "z".into()))));
            put(h, id, &[(1, "x"), (2, "y"), (2, "z")]);
            [two, any, also_two].into_iter().for_each(|receiver| receiver.assert_ok());
        }),
        clause(
            PAGE,
            "receive_too_big_waiting",
            "a waiting receiver too small for it gets E2BIG; the next is asked",
            |h: &H| {
                let id = private(h);
                let small = blocked(h, || fails(Errno::TOOBIG, h.msgrcv(id, &mut [0; 2], 0, 0)));
                let large = blocked(h, || assert_eq!(wait_for(h, id, 0, 0), Ok((1, "long".into()))));
                put(h, id, &[(1, "long")]);
                small.assert_ok();
                large.assert_ok();
                assert_eq!(h.msg_status(id).unwrap().qnum, 0);
            },
        ),
        clause(PAGE, "receive_too_big_alone", "if there is no other, the message stays", |h: &H| {
            let id = private(h);
            let small = blocked(h, || fails(Errno::TOOBIG, h.msgrcv(id, &mut [0; 2], 0, 0)));
            put(h, id, &[(1, "long")]);
            small.assert_ok();
            assert_eq!(texts(h, id), ["long"]);
        }),
        clause(PAGE, "receive_cut_waiting", "with MSG_NOERROR a waiting receiver gets it cut", |h: &H| {
            let id = private(h);
            let small = blocked(h, || {
                let mut text = [0; 2];
                assert_eq!(h.msgrcv(id, &mut text, 0, MSG_NOERROR), Ok((1, 2)));
                assert_eq!(&text, b"lo");
            });
            put(h, id, &[(1, "long")]);
            small.assert_ok();
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
        }),
        clause(PAGE, "receive_interrupted", "a handler that runs ends the wait with EINTR", |h: &H| {
            let id = private(h);
            interrupted(h, 0, || wait_for(h, id, 0, 0));
            put(h, id, &[(1, "kept")]);
            assert_eq!(texts(h, id), ["kept"]);
        }),
        clause(PAGE, "receive_never_restarted", "EINTR also where the handler has SA_RESTART", |h: &H| {
            let id = private(h);
            interrupted(h, libc::SA_RESTART, || wait_for(h, id, 0, 0));
        }),
        clause(
            PAGE,
            "receive_removed",
            "removing the queue ends every receiver's wait with EIDRM",
            |h: &H| {
                let id = private(h);
                let receivers: Vec<_> = [0, 1, -5]
                    .map(|mtype| blocked(h, move || fails(Errno::IDRM, wait_for(h, id, mtype, 0))))
                    .into();
                h.msg_remove(id).unwrap();
                receivers.into_iter().for_each(|receiver| receiver.assert_ok());
            },
        ),
        clause(PAGE, "receive_killed", "a receiver killed while it waits takes nothing", |h: &H| {
            let id = private(h);
            let [first, second] = [(); 2].map(|()| blocked(h, || drop(wait_for(h, id, 1, 0).unwrap())));
            first.kill();
            first.wait();
            put(h, id, &[(1, "for the second"), (1, "left")]);
            second.assert_ok();
            assert_eq!(texts(h, id), ["left"]);
        }),
        clause(
            PAGE,
            "receive_frees",
            "a message handed to a waiting receiver never fills the queue",
            |h: &H| {
                let id = super::holding(h, 4);
                put(h, id, &[(1, "four")]);
                let receiver = blocked(h, || assert_eq!(wait_for(h, id, 2, 0), Ok((2, "".into()))));
                fails(Errno::AGAIN, h.msgsnd(id, 2, b"five!", IPC_NOWAIT));
                put(h, id, &[(2, "")]);
                receiver.assert_ok();
                assert_eq!(texts(h, id), ["four"]);
            },
        ),
        clause(
            PAGE,
            "receive_chain",
            "a receiver's room lets a sender in, whose message serves a receiver",
            |h: &H| {
                let id = super::holding(h, 4);
                put(h, id, &[(1, "four")]);
                let receiver = blocked(h, || assert_eq!(wait_for(h, id, 2, 0), Ok((2, "more".into()))));
                let sender = blocked(h, || h.msgsnd(id, 2, b"more", 0).unwrap());
                assert_eq!(take(h, id, 1, 0), Ok((1, "four".into())));
                sender.assert_ok();
                receiver.assert_ok();
                assert_eq!(h.msg_status(id).unwrap().qnum, 0);
            },
        ),
    ]
}

fn copies<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "copy", "MSG_COPY gives a copy of the message at an index, and takes none", |h: &H| {
            let id = mixed(h);
            for (index, (mtype, text)) in MIXED.iter().enumerate() {
                assert_eq!(take(h, id, index as i64, MSG_COPY), Ok((*mtype, (*text).into())));
            }
            assert_eq!(h.msg_status(id).unwrap().qnum, 6);
        }),
        clause(PAGE, "copy_beyond", "an index beyond the last is ENOMSG", |h: &H| {
            let id = mixed(h);
            fails(Errno::NOMSG, take(h, id, 6, MSG_COPY));
            fails(Errno::NOMSG, take(h, private(h), 0, MSG_COPY));
            fails(Errno::NOMSG, take(h, id, -1, MSG_COPY));
        }),
        clause(PAGE, "copy_must_not_wait", "MSG_COPY without IPC_NOWAIT is EINVAL", |h: &H| {
            let id = mixed(h);
            fails(Errno::INVAL, h.msgrcv(id, &mut [0; 9], 0, MSG_COPY));
        }),
        clause(PAGE, "copy_except", "MSG_COPY with MSG_EXCEPT is EINVAL", |h: &H| {
            let id = mixed(h);
            fails(Errno::INVAL, take(h, id, 0, MSG_COPY | MSG_EXCEPT));
        }),
        clause(PAGE, "copy_status", "a copy changes neither lrpid nor rtime", |h: &H| {
            let id = mixed(h);
            let before = h.msg_status(id).unwrap();
            elsewhere(|| drop(take(h, id, 3, MSG_COPY).unwrap()));
            assert_eq!(h.msg_status(id), Ok(before));
        }),
        clause(
            PAGE,
            "copy_too_big",
            "a copy into a buffer too small fails, and the message stays",
            |h: &H| {
                let id = private(h);
                put(h, id, &[(1, "abcdef")]);
                assert!(h.msgrcv(id, &mut [0; 3], 0, IPC_NOWAIT | MSG_COPY).is_err());
                assert_eq!(texts(h, id), ["abcdef"]);
            },
        ),
        clause(PAGE, "copy_denied", "a copy needs read permission", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o600).unwrap();
            put(h, id, &[(1, "x")]);
            as_other(BOB, BOB, || fails(Errno::ACCESS, take(h, id, 0, MSG_COPY)));
        }),
        clause(PAGE, "copy_leaves_senders", "a copy makes no room", |h: &H| {
            let id = super::holding(h, 4);
            put(h, id, &[(1, "four")]);
            let sender = blocked(h, || h.msgsnd(id, 2, b"more", 0).unwrap());
            assert_eq!(texts(h, id), ["four"]);
            h.wait_blocked(sender.pid());
            take(h, id, 0, 0).unwrap();
            sender.assert_ok();
        }),
    ]
}
