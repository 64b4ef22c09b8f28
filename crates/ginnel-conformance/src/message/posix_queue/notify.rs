//! `mq_notify(3)`.

use std::time::Duration;

use ginnel_testkit::{Child, fork, wait_until};
use libc::{O_RDWR, O_WRONLY, SIGUSR1};

use super::{NAME, drain, put, queue, receive, take};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{LONG, SHORT, block_signal, blocked, elsewhere, fails, pending_signal, pid};
use crate::home::{Notice, PosixQueues};

const PAGE: &str = "mq_notify(3)";
const TELL: Option<Notice> = Some(Notice::Signal(SIGUSR1, 41));
const NOT_YET: Duration = Duration::ZERO;
/// `SI_MESGQ` of `<bits/siginfo-consts.h>`.
const SI_MESGQ: i32 = -3;

/// A process that is registered, and lives on.
fn registered_elsewhere<H: PosixQueues>(h: &H) -> Child {
    let (reader, writer) = std::io::pipe().unwrap();
    let child = fork(|| {
        let own = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
        h.mq_notify(own, Some(Notice::None)).unwrap();
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        loop {
            std::thread::park();
        }
    });
    std::io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
    child
}

pub(super) fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    let mut all = telling();
    all.extend(registration());
    all
}

fn telling<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(
            PAGE,
            "notify",
            "a message on an empty queue sends the signal, with its value, SI_MESGQ and the sender",
            |h: &H| {
                block_signal(SIGUSR1);
                let mine = queue(h, 2);
                h.mq_notify(mine, TELL).unwrap();
                assert_eq!(pending_signal(SIGUSR1, NOT_YET), None);
                let sender = fork(|| put(h, h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), &[(0, "x")]));
                let sender_pid = sender.pid();
                sender.assert_ok();
                assert_eq!(pending_signal(SIGUSR1, LONG), Some((41, SI_MESGQ, sender_pid)));
                assert_eq!(drain(h, mine), "x");
            },
        ),
        clause(PAGE, "notify_own", "also where the process itself sends", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            put(h, mine, &[(0, "x")]);
            assert_eq!(pending_signal(SIGUSR1, NOT_YET), Some((41, SI_MESGQ, pid())));
        }),
        clause(PAGE, "notify_once", "once: the registration ends with it", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            put(h, mine, &[(0, "x")]);
            pending_signal(SIGUSR1, NOT_YET).unwrap();
            take(h, mine).unwrap();
            put(h, mine, &[(0, "y")]);
            assert_eq!(pending_signal(SIGUSR1, SHORT), None);
            take(h, mine).unwrap();
            h.mq_notify(mine, TELL).unwrap();
            put(h, mine, &[(0, "z")]);
            assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
        }),
        clause(PAGE, "notify_not_nonempty", "not for a message on a queue that has some", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 4);
            put(h, mine, &[(0, "there")]);
            h.mq_notify(mine, TELL).unwrap();
            put(h, mine, &[(9, "more")]);
            assert_eq!(pending_signal(SIGUSR1, SHORT), None);
            drain(h, mine);
            put(h, mine, &[(0, "first")]);
            assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
        }),
        clause(
            PAGE,
            "notify_not_while_waiting",
            "not where a waiting receiver takes it: the registration stays",
            |h: &H| {
                block_signal(SIGUSR1);
                let mine = queue(h, 2);
                h.mq_notify(mine, TELL).unwrap();
                let receiver = blocked(h, || assert_eq!(receive(h, mine, None).unwrap().1, "x"));
                put(h, mine, &[(0, "x")]);
                receiver.assert_ok();
                assert_eq!(pending_signal(SIGUSR1, SHORT), None);
                put(h, mine, &[(0, "y")]);
                assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
            },
        ),
        clause(PAGE, "notify_none", "SIGEV_NONE registers and tells nothing", |h: &H| {
            let mine = queue(h, 2);
            h.mq_notify(mine, Some(Notice::None)).unwrap();
            elsewhere(|| {
                fails(Errno::BUSY, h.mq_notify(h.mq_open(NAME, O_RDWR, 0, None).unwrap(), TELL));
            });
            put(h, mine, &[(0, "x")]);
            take(h, mine).unwrap();
            elsewhere(|| h.mq_notify(h.mq_open(NAME, O_RDWR, 0, None).unwrap(), TELL).unwrap());
        }),
        clause(PAGE, "notify_handler", "the signal runs a handler", |h: &H| {
            let mine = queue(h, 2);
            let waiting = blocked(h, || {
                crate::help::catch(SIGUSR1, 0);
                let own = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
                h.mq_notify(own, TELL).unwrap();
                let mut fds = libc::pollfd { fd: -1, events: 0, revents: 0 };
                // SAFETY: `fds` is one pollfd.
                let ended = unsafe { libc::poll(&mut fds, 1, 10_000) };
                assert_eq!((ended, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINTR)));
            });
            put(h, mine, &[(0, "x")]);
            waiting.assert_ok();
        }),
        clause(PAGE, "notify_any_priority", "whatever the message's priority and length", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            put(h, mine, &[(32767, "")]);
            assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
        }),
        clause(
            PAGE,
            "notify_write_only",
            "an opening for sending only may be registered through",
            |h: &H| {
                block_signal(SIGUSR1);
                let mine = queue(h, 2);
                h.mq_notify(h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), TELL).unwrap();
                put(h, mine, &[(0, "x")]);
                assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
            },
        ),
        clause(PAGE, "notify_unlinked", "unlinking the queue ends no registration", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            h.mq_unlink(NAME).unwrap();
            put(h, mine, &[(0, "x")]);
            assert!(pending_signal(SIGUSR1, NOT_YET).is_some());
        }),
    ]
}

fn registration<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "notify_busy", "while one process is registered another's attempt is EBUSY", |h: &H| {
            let mine = queue(h, 2);
            let _other = registered_elsewhere(h);
            fails(Errno::BUSY, h.mq_notify(mine, TELL));
            fails(Errno::BUSY, h.mq_notify(mine, Some(Notice::None)));
        }),
        clause(PAGE, "notify_busy_self", "so is the same process's second one", |h: &H| {
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            fails(Errno::BUSY, h.mq_notify(mine, TELL));
            fails(Errno::BUSY, h.mq_notify(h.mq_open(NAME, O_RDWR, 0, None).unwrap(), TELL));
        }),
        clause(PAGE, "notify_taken_back", "a null notice takes the registration back", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            h.mq_notify(mine, None).unwrap();
            put(h, mine, &[(0, "x")]);
            assert_eq!(pending_signal(SIGUSR1, SHORT), None);
            elsewhere(|| h.mq_notify(h.mq_open(NAME, O_RDWR, 0, None).unwrap(), TELL).unwrap());
        }),
        clause(PAGE, "notify_nothing_to_take_back", "where none is registered it is no error", |h: &H| {
            h.mq_notify(queue(h, 2), None).unwrap();
        }),
        clause(PAGE, "notify_not_anothers", "another process's is not taken back by it", |h: &H| {
            let mine = queue(h, 2);
            let _other = registered_elsewhere(h);
            h.mq_notify(mine, None).unwrap();
            fails(Errno::BUSY, h.mq_notify(mine, TELL));
        }),
        clause(
            PAGE,
            "notify_closed",
            "closing a descriptor of the queue ends the process's registration",
            |h: &H| {
                let mine = queue(h, 2);
                let through = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
                h.mq_notify(through, TELL).unwrap();
                h.mq_close(through).unwrap();
                let _other = registered_elsewhere(h);
                fails(Errno::BUSY, h.mq_notify(mine, TELL));
            },
        ),
        clause(PAGE, "notify_dead", "a dead process's registration is over", |h: &H| {
            let mine = queue(h, 2);
            let other = registered_elsewhere(h);
            fails(Errno::BUSY, h.mq_notify(mine, TELL));
            other.kill();
            other.wait();
            wait_until("it is over", || h.mq_notify(mine, TELL).is_ok());
        }),
        clause(PAGE, "notify_no_signal", "a signal that there is not is EINVAL", |h: &H| {
            let mine = queue(h, 2);
            fails(Errno::INVAL, h.mq_notify(mine, Some(Notice::Signal(65, 0))));
            fails(Errno::INVAL, h.mq_notify(mine, Some(Notice::Signal(-1, 0))));
            h.mq_notify(mine, TELL).unwrap();
        }),
        clause(PAGE, "notify_not_forked", "a fork is not registered: its parent is told", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            h.mq_notify(mine, TELL).unwrap();
            elsewhere(|| {
                put(h, h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), &[(0, "x")]);
                assert_eq!(pending_signal(SIGUSR1, SHORT), None);
            });
            assert!(pending_signal(SIGUSR1, LONG).is_some());
        }),
        clause(PAGE, "notify_two_queues", "a process may be registered with several queues", |h: &H| {
            block_signal(SIGUSR1);
            let mine = queue(h, 2);
            let other = h.mq_open("/other", super::NEW, 0o600, Some((1, 16))).unwrap();
            h.mq_notify(mine, Some(Notice::Signal(SIGUSR1, 1))).unwrap();
            h.mq_notify(other, Some(Notice::Signal(SIGUSR1, 2))).unwrap();
            put(h, other, &[(0, "x")]);
            assert_eq!(pending_signal(SIGUSR1, NOT_YET).unwrap().0, 2);
            put(h, mine, &[(0, "x")]);
            assert_eq!(pending_signal(SIGUSR1, NOT_YET).unwrap().0, 1);
        }),
    ]
}
