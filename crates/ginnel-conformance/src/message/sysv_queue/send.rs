//! `msgsnd` of `msgop(2)`.

use libc::{IPC_CREAT, IPC_NOWAIT};

use super::{KEY, holding, limit, private, put, take, texts, wait_for};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, SHORT, as_other, blocked, elsewhere, fails, interrupted, now, recent};
use crate::home::SysvMessages;

const PAGE: &str = "msgop(2)";
const TEN: &str = "0123456789";

pub(super) fn clauses<H: SysvMessages>() -> Vec<Clause<H>> {
    let mut all = plain();
    all.extend(blocking());
    all
}

fn plain<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "send_type_positive", "a type below 1 is EINVAL, and nothing is sent", |h: &H| {
            let id = private(h);
            for mtype in [0, -1, i64::MIN] {
                fails(Errno::INVAL, h.msgsnd(id, mtype, b"x", 0));
            }
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
            put(h, id, &[(i64::MAX, "x")]);
            assert_eq!(take(h, id, 0, 0), Ok((i64::MAX, "x".into())));
        }),
        clause(PAGE, "send_nothing", "a message may have no text", |h: &H| {
            let id = private(h);
            put(h, id, &[(7, "")]);
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.qnum, status.cbytes), (1, 0));
            assert_eq!(h.msgrcv(id, &mut [], 7, IPC_NOWAIT), Ok((7, 0)));
        }),
        clause(PAGE, "send_bytes", "the text is bytes of any value, kept as they are", |h: &H| {
            let id = private(h);
            let text: Vec<u8> = (0..=255).cycle().take(4099).collect();
            h.msgsnd(id, 1, &text, 0).unwrap();
            let mut back = vec![0; 5000];
            assert_eq!(h.msgrcv(id, &mut back, 0, IPC_NOWAIT), Ok((1, 4099)));
            assert_eq!(back[..4099], text);
            assert!(back[4099..].iter().all(|byte| *byte == 0), "nothing is written behind the text");
        }),
        clause(PAGE, "send_too_long", "a text longer than the system's most is EINVAL", |h: &H| {
            let id = private(h);
            fails(Errno::INVAL, h.msgsnd(id, 1, &vec![0; H::MESSAGE_BYTES_MAX + 1], IPC_NOWAIT));
            h.msgsnd(id, 1, &[1; 8192], IPC_NOWAIT).unwrap();
            assert_eq!(h.msg_status(id).unwrap().cbytes, 8192);
        }),
        clause(PAGE, "send_bad_id", "an id that is no queue's is EINVAL", |h: &H| {
            let id = private(h);
            for id in [-1, i32::MIN, id + 1, i32::MAX] {
                fails(Errno::INVAL, h.msgsnd(id, 1, b"x", 0));
            }
        }),
        clause(PAGE, "send_removed_id", "a removed queue's id is EINVAL", |h: &H| {
            let id = private(h);
            put(h, id, &[(1, "x")]);
            elsewhere(|| h.msg_remove(id).unwrap());
            fails(Errno::INVAL, h.msgsnd(id, 1, b"x", 0));
        }),
        clause(PAGE, "send_full", "with IPC_NOWAIT a full queue is EAGAIN and unchanged", |h: &H| {
            let id = holding(h, 20);
            put(h, id, &[(1, TEN), (2, "012345678")]);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"ab", IPC_NOWAIT));
            assert_eq!(texts(h, id), [TEN, "012345678"]);
            put(h, id, &[(1, "a")]);
            assert_eq!(h.msg_status(id).unwrap().cbytes, 20, "it is full to the last byte");
        }),
        clause(PAGE, "send_count", "messages without text are limited to as many as qbytes", |h: &H| {
            let id = holding(h, 3);
            put(h, id, &[(1, ""), (1, ""), (1, "")]);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"", IPC_NOWAIT));
            take(h, id, 0, 0).unwrap();
            put(h, id, &[(1, "")]);
        }),
        clause(PAGE, "send_never_fits", "longer than qbytes is no error of its own: EAGAIN", |h: &H| {
            let id = holding(h, 10);
            fails(Errno::AGAIN, h.msgsnd(id, 1, b"eleven byte", IPC_NOWAIT));
            put(h, id, &[(1, TEN)]);
        }),
        clause(PAGE, "send_status", "sending sets lspid, stime, qnum and cbytes", |h: &H| {
            let (id, since) = (private(h), now());
            let child = ginnel_testkit::fork(|| put(h, id, &[(1, "abc"), (2, "defg")]));
            let pid = child.pid();
            child.assert_ok();
            let status = h.msg_status(id).unwrap();
            assert_eq!((status.lspid, status.lrpid, status.qnum, status.cbytes), (pid, 0, 2, 7));
            recent(status.stime, since);
            assert_eq!(status.rtime, 0);
        }),
        clause(PAGE, "send_failed_status", "a call that fails leaves the status as it was", |h: &H| {
            let id = holding(h, 3);
            put(h, id, &[(1, "abc")]);
            let before = h.msg_status(id).unwrap();
            elsewhere(|| {
                fails(Errno::AGAIN, h.msgsnd(id, 1, b"x", IPC_NOWAIT));
                fails(Errno::INVAL, h.msgsnd(id, 0, b"x", IPC_NOWAIT));
                fails(Errno::NOMSG, take(h, id, 9, 0));
            });
            assert_eq!(h.msg_status(id), Ok(before));
        }),
        clause(PAGE, "send_denied", "sending without write permission is EACCES", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o644).unwrap();
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT)));
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
        }),
        clause(PAGE, "send_write_only", "write permission alone lets send, and nothing else", |h: &H| {
            let id = h.msgget(KEY, IPC_CREAT | 0o622).unwrap();
            as_other(BOB, BOB, || {
                put(h, id, &[(1, "x")]);
                fails(Errno::ACCESS, take(h, id, 0, 0));
                fails(Errno::ACCESS, h.msg_status(id));
            });
            assert_eq!(texts(h, id), ["x"]);
        }),
        clause(PAGE, "send_shared", "what the mode grants to everybody another user may do", |h: &H| {
            as_other(ALICE, ALICE, || put(h, h.msgget(KEY, IPC_CREAT | 0o666).unwrap(), &[(1, "a")]));
            as_other(BOB, BOB, || {
                let id = h.msgget(KEY, 0o666).unwrap();
                put(h, id, &[(1, "b")]);
                assert_eq!(take(h, id, 0, 0), Ok((1, "a".into())));
            });
            assert_eq!(texts(h, h.msgget(KEY, 0).unwrap()), ["b"]);
        }),
        clause(
            PAGE,
            "send_order_of_checks",
            "a bad type is EINVAL also on a full or foreign queue",
            |h: &H| {
                let id = holding(h, 1);
                put(h, id, &[(1, "x")]);
                fails(Errno::INVAL, h.msgsnd(id, 0, b"x", IPC_NOWAIT));
                as_other(BOB, BOB, || fails(Errno::INVAL, h.msgsnd(id, 0, b"x", IPC_NOWAIT)));
            },
        ),
    ]
}

fn blocking<H: SysvMessages>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "send_waits", "a sender waits until there is room", |h: &H| {
            let id = holding(h, 10);
            put(h, id, &[(1, TEN)]);
            let sender = blocked(h, || h.msgsnd(id, 2, b"late", 0).unwrap());
            let pid = sender.pid();
            assert_eq!(h.msg_status(id).unwrap().qnum, 1);
            assert_eq!(take(h, id, 0, 0), Ok((1, TEN.into())));
            sender.assert_ok();
            assert_eq!(take(h, id, 0, 0), Ok((2, "late".into())));
            assert_eq!(h.msg_status(id).unwrap().lspid, pid);
        }),
        clause(PAGE, "send_waits_for_count", "also where it is the number of messages", |h: &H| {
            let id = holding(h, 2);
            put(h, id, &[(1, ""), (2, "")]);
            let sender = blocked(h, || h.msgsnd(id, 3, b"", 0).unwrap());
            take(h, id, 2, 0).unwrap();
            sender.assert_ok();
            assert_eq!(h.msg_status(id).unwrap().qnum, 2);
        }),
        clause(PAGE, "send_one_a_room", "room for one lets one of several senders in", |h: &H| {
            let id = holding(h, 10);
            put(h, id, &[(9, TEN)]);
            let senders: Vec<_> = (1..4)
                .map(|mtype| blocked(h, move || h.msgsnd(id, mtype, TEN.as_bytes(), 0).unwrap()))
                .collect();
            let mut seen = Vec::new();
            take(h, id, 9, 0).unwrap();
            for _ in 0..3 {
                seen.push(wait_for(h, id, 0, 0).unwrap().0);
            }
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3], "each got in, once");
            senders.into_iter().for_each(|sender| sender.assert_ok());
        }),
        clause(
            PAGE,
            "send_small_passes",
            "a message that fits passes a waiting one that does not",
            |h: &H| {
                let id = holding(h, 20);
                put(h, id, &[(1, TEN)]);
                let big = blocked(h, || h.msgsnd(id, 2, &[b'b'; 15], 0).unwrap());
                put(h, id, &[(3, "small")]);
                h.wait_blocked(big.pid());
                assert_eq!(texts(h, id), [TEN, "small"]);
                take(h, id, 1, 0).unwrap();
                big.assert_ok();
                assert_eq!(texts(h, id)[0], "small");
            },
        ),
        clause(PAGE, "send_later_waiter_passes", "of waiting senders the one that fits goes in", |h: &H| {
            let id = holding(h, 20);
            put(h, id, &[(1, "12345"), (1, "678901234512345")]);
            let big = blocked(h, || h.msgsnd(id, 2, &[b'b'; 15], 0).unwrap());
            let small = blocked(h, || h.msgsnd(id, 3, b"small", 0).unwrap());
            take(h, id, 1, 0).unwrap();
            small.assert_ok();
            h.wait_blocked(big.pid());
            assert_eq!(texts(h, id), ["678901234512345", "small"]);
            take(h, id, 1, 0).unwrap();
            big.assert_ok();
        }),
        clause(
            PAGE,
            "send_interrupted",
            "a handler that runs ends the wait with EINTR; nothing is sent",
            |h: &H| {
                let id = holding(h, 1);
                put(h, id, &[(1, "x")]);
                interrupted(h, 0, || h.msgsnd(id, 2, b"y", 0));
                assert_eq!(texts(h, id), ["x"]);
                take(h, id, 0, 0).unwrap();
                assert_eq!(h.msg_status(id).unwrap().qnum, 0, "nobody is waiting any more");
            },
        ),
        clause(PAGE, "send_never_restarted", "EINTR also where the handler has SA_RESTART", |h: &H| {
            let id = holding(h, 1);
            put(h, id, &[(1, "x")]);
            interrupted(h, libc::SA_RESTART, || h.msgsnd(id, 2, b"y", 0));
            assert_eq!(texts(h, id), ["x"]);
        }),
        clause(PAGE, "send_removed", "removing the queue ends every sender's wait with EIDRM", |h: &H| {
            let id = holding(h, 1);
            put(h, id, &[(1, "x")]);
            let senders: Vec<_> =
                (0..3).map(|_| blocked(h, || fails(Errno::IDRM, h.msgsnd(id, 2, b"y", 0)))).collect();
            h.msg_remove(id).unwrap();
            senders.into_iter().for_each(|sender| sender.assert_ok());
        }),
        clause(PAGE, "send_wider", "raising qbytes lets a waiting sender in", |h: &H| {
            let id = holding(h, 5);
            put(h, id, &[(1, "01234")]);
            let sender = blocked(h, || h.msgsnd(id, 2, b"56789", 0).unwrap());
            limit(h, id, 9);
            std::thread::sleep(SHORT);
            h.wait_blocked(sender.pid());
            limit(h, id, 10);
            sender.assert_ok();
            assert_eq!(texts(h, id), ["01234", "56789"]);
        }),
        clause(PAGE, "send_killed", "a sender killed while it waits has sent nothing", |h: &H| {
            let id = holding(h, 1);
            put(h, id, &[(1, "x")]);
            let sender = blocked(h, || h.msgsnd(id, 2, b"y", 0).unwrap());
            sender.kill();
            assert_eq!(sender.wait(), ginnel_testkit::Exit::Signal(libc::SIGKILL));
            take(h, id, 0, 0).unwrap();
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
            put(h, id, &[(1, "z")]);
        }),
        clause("signal(7)", "send_stopped", "a stop and a continuation are no end of the wait", |h: &H| {
            let id = holding(h, 1);
            put(h, id, &[(1, "x")]);
            let sender = blocked(h, || h.msgsnd(id, 2, b"y", 0).unwrap());
            sender.signal(libc::SIGSTOP);
            std::thread::sleep(SHORT);
            sender.signal(libc::SIGCONT);
            std::thread::sleep(SHORT);
            h.wait_blocked(sender.pid());
            take(h, id, 0, 0).unwrap();
            sender.assert_ok();
        }),
    ]
}
