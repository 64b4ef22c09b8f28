//! `mq_send(3)`, `mq_receive(3)`: what waits, and what ends it; `poll(2)`.

use std::time::{Duration, Instant};

use libc::{O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, POLLIN, POLLOUT};

use super::{NAME, count, drain, put, queue, receive, take};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{LONG, SHORT, blocked, elsewhere, fails, interrupted, restarted};
use crate::home::PosixQueues;

const SEND: &str = "mq_send(3)";
const RECEIVE: &str = "mq_receive(3)";
const POLL: &str = "mq_overview(7)";

pub(super) fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    let mut all = receiving();
    all.extend(sending());
    all.extend(polling());
    all
}

/// What poll says at once.
fn ready<H: PosixQueues>(h: &H, queue: i32) -> i16 {
    h.mq_poll(queue, POLLIN | POLLOUT, Duration::ZERO).unwrap()
}

fn receiving<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(RECEIVE, "receive_waits", "a receiver waits until a message comes", |h: &H| {
            let mine = queue(h, 1);
            let receiver = blocked(h, || assert_eq!(receive(h, mine, None), Ok((3, "hello".into()))));
            put(h, mine, &[(3, "hello")]);
            receiver.assert_ok();
            assert_eq!(count(h, mine), 0);
        }),
        clause(
            RECEIVE,
            "receive_in_turn",
            "waiting receivers are served in the order in which they came",
            |h: &H| {
                let mine = queue(h, 3);
                let receivers: Vec<_> = ["a", "b", "c"]
                    .map(|text| blocked(h, move || assert_eq!(receive(h, mine, None).unwrap().1, text)))
                    .into();
                put(h, mine, &[(0, "a"), (1, "b"), (2, "c")]);
                receivers.into_iter().for_each(|child| child.assert_ok());
            },
        ),
        clause(
            RECEIVE,
            "receive_times_out",
            "ETIMEDOUT when the deadline has passed, and not before",
            |h: &H| {
                let mine = queue(h, 1);
                let start = Instant::now();
                fails(Errno::TIMEDOUT, receive(h, mine, Some(SHORT)));
                assert!(start.elapsed() >= SHORT);
                put(h, mine, &[(0, "x")]);
                assert_eq!(count(h, mine), 1, "nobody waits any more");
            },
        ),
        clause(RECEIVE, "receive_in_time", "before the deadline it is served", |h: &H| {
            let mine = queue(h, 1);
            let receiver = blocked(h, || assert_eq!(receive(h, mine, Some(LONG)).unwrap().1, "x"));
            put(h, mine, &[(0, "x")]);
            receiver.assert_ok();
        }),
        clause(RECEIVE, "receive_interrupted", "a handler that runs ends the wait with EINTR", |h: &H| {
            let mine = queue(h, 1);
            interrupted(h, 0, || receive(h, mine, None));
            put(h, mine, &[(0, "kept")]);
            assert_eq!(drain(h, mine), "kept");
        }),
        clause("signal(7)", "receive_restarted", "with SA_RESTART it goes on waiting", |h: &H| {
            let mine = queue(h, 1);
            restarted(h, || receive(h, mine, None), || put(h, mine, &[(0, "x")]));
        }),
        clause(RECEIVE, "receive_killed", "a receiver killed while it waits takes nothing", |h: &H| {
            let mine = queue(h, 2);
            let [first, second] = [(); 2].map(|()| blocked(h, || _ = receive(h, mine, None).unwrap()));
            first.kill();
            first.wait();
            put(h, mine, &[(0, "a"), (0, "b")]);
            second.assert_ok();
            assert_eq!(drain(h, mine), "b");
        }),
        clause("mq_unlink(3)", "receive_unlinked", "unlinking ends no wait", |h: &H| {
            let mine = queue(h, 1);
            let receiver = blocked(h, || assert_eq!(receive(h, mine, None).unwrap().1, "x"));
            h.mq_unlink(NAME).unwrap();
            std::thread::sleep(SHORT);
            h.wait_blocked(receiver.pid());
            put(h, mine, &[(0, "x")]);
            receiver.assert_ok();
        }),
        clause(RECEIVE, "receive_stranger", "who opened the queue by itself is served alike", |h: &H| {
            let mine = queue(h, 1);
            let receiver = blocked(h, || {
                let own = h.mq_open(NAME, O_RDONLY, 0, None).unwrap();
                assert_eq!(receive(h, own, None), Ok((8, "x".into())));
            });
            put(h, mine, &[(8, "x")]);
            receiver.assert_ok();
        }),
    ]
}

fn sending<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(SEND, "send_waits", "a sender waits until there is room", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "first")]);
            let sender = blocked(h, || h.mq_timedsend(mine, b"second", 5, None).unwrap());
            assert_eq!((count(h, mine), take(h, mine)), (1, Ok((0, "first".into()))));
            sender.assert_ok();
            assert_eq!(take(h, mine), Ok((5, "second".into())));
        }),
        clause(
            SEND,
            "send_in_turn",
            "waiting senders are served in the order in which they came",
            |h: &H| {
                let mine = queue(h, 1);
                put(h, mine, &[(0, "0")]);
                let senders: Vec<_> = [(1, "1"), (9, "2"), (5, "3")]
                    .map(|(priority, text)| {
                        blocked(h, move || h.mq_timedsend(mine, text.as_bytes(), priority, None).unwrap())
                    })
                    .into();
                let got: String = (0..4).map(|_| receive(h, mine, None).unwrap().1).collect();
                assert_eq!(got, "0123", "whatever their messages' priorities");
                senders.into_iter().for_each(|child| child.assert_ok());
            },
        ),
        clause(SEND, "send_served_at_once", "room goes to a waiting sender, not to a newcomer", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "0")]);
            let sender = blocked(h, || h.mq_timedsend(mine, b"waiting", 0, None).unwrap());
            take(h, mine).unwrap();
            fails(Errno::TIMEDOUT, h.mq_timedsend(mine, b"newcomer", 9, Some(Duration::ZERO)));
            sender.assert_ok();
            assert_eq!(drain(h, mine), "waiting");
        }),
        clause(
            SEND,
            "send_times_out",
            "ETIMEDOUT when the deadline has passed, and nothing is sent",
            |h: &H| {
                let mine = queue(h, 1);
                put(h, mine, &[(0, "x")]);
                let start = Instant::now();
                fails(Errno::TIMEDOUT, h.mq_timedsend(mine, b"y", 0, Some(SHORT)));
                assert!(start.elapsed() >= SHORT);
                assert_eq!(drain(h, mine), "x");
            },
        ),
        clause(
            SEND,
            "send_interrupted",
            "a handler that runs ends the wait with EINTR; nothing is sent",
            |h: &H| {
                let mine = queue(h, 1);
                put(h, mine, &[(0, "x")]);
                interrupted(h, 0, || h.mq_timedsend(mine, b"y", 0, None));
                assert_eq!(drain(h, mine), "x");
            },
        ),
        clause("signal(7)", "send_restarted", "with SA_RESTART it goes on waiting", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "x")]);
            restarted(h, || h.mq_timedsend(mine, b"y", 0, None), || _ = take(h, mine).unwrap());
            assert_eq!(drain(h, mine), "y");
        }),
        clause(SEND, "send_killed", "a sender killed while it waits has sent nothing", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "x")]);
            let sender = blocked(h, || h.mq_timedsend(mine, b"y", 0, None).unwrap());
            sender.kill();
            sender.wait();
            assert_eq!(drain(h, mine), "x");
            put(h, mine, &[(0, "z")]);
        }),
    ]
}

fn polling<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(POLL, "poll_states", "empty is writable, partly full is both, full is readable", |h: &H| {
            let mine = queue(h, 2);
            assert_eq!(ready(h, mine), POLLOUT);
            put(h, mine, &[(0, "a")]);
            assert_eq!(ready(h, mine), POLLIN | POLLOUT);
            put(h, mine, &[(0, "b")]);
            assert_eq!(ready(h, mine), POLLIN);
            take(h, mine).unwrap();
            assert_eq!(ready(h, mine), POLLIN | POLLOUT);
            take(h, mine).unwrap();
            assert_eq!(ready(h, mine), POLLOUT);
        }),
        clause(POLL, "poll_wakes_reader", "poll waits for a message", |h: &H| {
            let mine = queue(h, 2);
            let poller = blocked(h, || assert_eq!(h.mq_poll(mine, POLLIN, LONG), Ok(POLLIN)));
            put(h, mine, &[(0, "a")]);
            poller.assert_ok();
        }),
        clause(POLL, "poll_wakes_writer", "and for room", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "a")]);
            let poller = blocked(h, || assert_eq!(h.mq_poll(mine, POLLOUT, LONG), Ok(POLLOUT)));
            take(h, mine).unwrap();
            poller.assert_ok();
        }),
        clause(POLL, "poll_stranger", "also of a queue that another process fills", |h: &H| {
            let mine = queue(h, 1);
            let poller = blocked(h, || {
                let own = h.mq_open(NAME, O_RDONLY | O_NONBLOCK, 0, None).unwrap();
                assert_eq!(h.mq_poll(own, POLLIN, LONG), Ok(POLLIN));
                assert_eq!(take(h, own).unwrap().1, "x");
            });
            elsewhere(|| put(h, h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), &[(0, "x")]));
            poller.assert_ok();
            assert_eq!(ready(h, mine), POLLOUT);
        }),
        clause(POLL, "poll_handed_over", "what a waiting receiver takes is not there to poll", |h: &H| {
            let mine = queue(h, 1);
            let receiver = blocked(h, || _ = receive(h, mine, None).unwrap());
            put(h, mine, &[(0, "x")]);
            assert_eq!(ready(h, mine), POLLOUT);
            receiver.assert_ok();
        }),
        clause(POLL, "poll_many", "several pollers all see a message", |h: &H| {
            let mine = queue(h, 1);
            let pollers =
                [(); 3].map(|()| blocked(h, || assert_eq!(h.mq_poll(mine, POLLIN, LONG), Ok(POLLIN))));
            put(h, mine, &[(0, "x")]);
            pollers.into_iter().for_each(|child| child.assert_ok());
        }),
        clause(POLL, "poll_times_out", "poll of an empty queue for reading ends with its time", |h: &H| {
            let mine = queue(h, 1);
            assert_eq!(h.mq_poll(mine, POLLIN, SHORT), Ok(0));
        }),
        clause(POLL, "poll_any_opening", "an opening for sending only is polled like any other", |h: &H| {
            let mine = queue(h, 1);
            let writer = h.mq_open(NAME, O_WRONLY, 0, None).unwrap();
            assert_eq!(ready(h, writer), POLLOUT);
            put(h, mine, &[(0, "x")]);
            assert_eq!(ready(h, writer), POLLIN);
        }),
        clause(POLL, "poll_after_a_wait", "poll is right after waits that ended in every way", |h: &H| {
            let mine = h.mq_open(NAME, O_RDWR | libc::O_CREAT, 0o600, Some((1, 16))).unwrap();
            fails(Errno::TIMEDOUT, receive(h, mine, Some(SHORT)));
            assert_eq!(ready(h, mine), POLLOUT);
            put(h, mine, &[(0, "x")]);
            fails(Errno::TIMEDOUT, h.mq_timedsend(mine, b"y", 0, Some(SHORT)));
            assert_eq!(ready(h, mine), POLLIN);
        }),
    ]
}
