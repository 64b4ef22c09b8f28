//! `mq_send(3)`, `mq_receive(3)`: what happens at once.

use std::time::Duration;

use libc::{O_NONBLOCK, O_RDWR};

use super::{NAME, NEW, count, drain, put, queue, take};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{LONG, elsewhere, fails};
use crate::home::PosixQueues;

const SEND: &str = "mq_send(3)";
const RECEIVE: &str = "mq_receive(3)";

pub(super) fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(RECEIVE, "highest_first", "the message of the highest priority comes first", |h: &H| {
            let mine = queue(h, 5);
            put(h, mine, &[(1, "c"), (9, "b"), (0, "d"), (32767, "a")]);
            assert_eq!(drain(h, mine), "abcd");
        }),
        clause(RECEIVE, "oldest_first", "of one priority the oldest", |h: &H| {
            let mine = queue(h, 6);
            put(h, mine, &[(1, "b"), (2, "a"), (1, "c"), (1, "d"), (0, "f"), (1, "e")]);
            assert_eq!(drain(h, mine), "abcdef");
        }),
        clause(RECEIVE, "priority_told", "its priority is told, and its length returned", |h: &H| {
            let mine = queue(h, 2);
            put(h, mine, &[(77, "three")]);
            assert_eq!(h.mq_timedreceive(mine, &mut [0; 16], None), Ok((5, 77)));
        }),
        clause(SEND, "priorities", "32,767 is the highest priority; above it is EINVAL", |h: &H| {
            let mine = queue(h, 2);
            for priority in [32768, u32::MAX] {
                fails(Errno::INVAL, h.mq_timedsend(mine, b"x", priority, None));
            }
            put(h, mine, &[(32767, "x"), (0, "y")]);
            assert_eq!(take(h, mine), Ok((32767, "x".into())));
        }),
        clause(SEND, "nothing", "a message may be empty", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(4, "")]);
            assert_eq!(count(h, mine), 1);
            assert_eq!(take(h, mine), Ok((4, String::new())));
        }),
        clause(SEND, "bytes", "it is bytes of any value, kept as they are", |h: &H| {
            let mine = h.mq_open(NAME, NEW, 0o600, Some((1, 8192))).unwrap();
            let text: Vec<u8> = (0..=255).cycle().take(8192).collect();
            h.mq_timedsend(mine, &text, 0, None).unwrap();
            let mut back = vec![0; 8192];
            assert_eq!(h.mq_timedreceive(mine, &mut back, None), Ok((8192, 0)));
            assert_eq!(back, text);
        }),
        clause(SEND, "too_long", "longer than mq_msgsize is EMSGSIZE", |h: &H| {
            let mine = queue(h, 1);
            fails(Errno::MSGSIZE, h.mq_timedsend(mine, &[0; 17], 0, None));
            h.mq_timedsend(mine, &[0; 16], 0, None).unwrap();
            fails(Errno::MSGSIZE, h.mq_timedsend(mine, &[0; 17], 0, None));
        }),
        clause(
            RECEIVE,
            "buffer_too_small",
            "a buffer below mq_msgsize is EMSGSIZE, whatever is there",
            |h: &H| {
                let mine = queue(h, 1);
                fails(Errno::MSGSIZE, h.mq_timedreceive(mine, &mut [0; 15], Some(Duration::ZERO)));
                put(h, mine, &[(0, "x")]);
                fails(Errno::MSGSIZE, h.mq_timedreceive(mine, &mut [0; 15], None));
                fails(Errno::MSGSIZE, h.mq_timedreceive(mine, &mut [], None));
                assert_eq!(take(h, mine), Ok((0, "x".into())));
            },
        ),
        clause(RECEIVE, "nothing_behind", "nothing is written behind the message", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "ab")]);
            let mut text = [9; 20];
            assert_eq!(h.mq_timedreceive(mine, &mut text, None), Ok((2, 0)));
            assert_eq!((&text[..2], &text[2..]), (&b"ab"[..], &[9; 18][..]));
        }),
        clause(SEND, "full", "O_NONBLOCK makes a full queue EAGAIN, and leaves it as it is", |h: &H| {
            let mine = queue(h, 2);
            let never = h.mq_open(NAME, O_RDWR | O_NONBLOCK, 0, None).unwrap();
            put(h, mine, &[(0, "a"), (0, "b")]);
            fails(Errno::AGAIN, h.mq_timedsend(never, b"c", 9, None));
            fails(Errno::AGAIN, h.mq_timedsend(never, b"c", 9, Some(LONG)));
            assert_eq!(drain(h, mine), "ab");
        }),
        clause(RECEIVE, "empty", "and an empty one", |h: &H| {
            let mine = queue(h, 2);
            let never = h.mq_open(NAME, O_RDWR | O_NONBLOCK, 0, None).unwrap();
            fails(Errno::AGAIN, h.mq_timedreceive(never, &mut [0; 16], None));
            fails(Errno::AGAIN, h.mq_timedreceive(never, &mut [0; 16], Some(LONG)));
            put(h, mine, &[(0, "x")]);
            assert_eq!(drain(h, never), "x");
        }),
        clause(SEND, "full_is_counted", "a queue is full by the number of its messages", |h: &H| {
            let mine = queue(h, 3);
            put(h, mine, &[(0, ""), (0, ""), (0, "0123456789abcdef")]);
            fails(Errno::TIMEDOUT, h.mq_timedsend(mine, b"", 0, Some(Duration::ZERO)));
            take(h, mine).unwrap();
            put(h, mine, &[(0, "0123456789abcdef")]);
        }),
        clause(
            SEND,
            "passed_deadline",
            "a deadline that has passed does not stop what need not wait",
            |h: &H| {
                let mine = queue(h, 1);
                h.mq_timedsend(mine, b"x", 0, Some(Duration::ZERO)).unwrap();
                assert_eq!(take(h, mine), Ok((0, "x".into())));
                fails(Errno::TIMEDOUT, take(h, mine));
            },
        ),
        clause(SEND, "checks_in_order", "what is wrong with a call is said before it would wait", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "x")]);
            fails(Errno::INVAL, h.mq_timedsend(mine, &[0; 17], 32768, None));
            fails(Errno::MSGSIZE, h.mq_timedsend(mine, &[0; 17], 0, None));
        }),
        clause("mq_overview(7)", "strangers", "what one process sends another receives in order", |h: &H| {
            let mine = queue(h, 10);
            elsewhere(|| put(h, h.mq_open(NAME, O_RDWR, 0, None).unwrap(), &[(1, "b"), (2, "a")]));
            elsewhere(|| put(h, h.mq_open(NAME, O_RDWR, 0, None).unwrap(), &[(1, "c"), (0, "d")]));
            assert_eq!(drain(h, mine), "abcd");
        }),
        clause("mq_overview(7)", "many_priorities", "each of many priorities keeps its place", |h: &H| {
            let mine = h.mq_open(NAME, NEW, 0o600, Some((10, 16))).unwrap();
            for round in 0..20u32 {
                let priorities: Vec<u32> = (0..10).map(|n| (n * 7919 + round * 104_729) % 32768).collect();
                priorities.iter().for_each(|priority| put(h, mine, &[(*priority, "x")]));
                let mut sorted = priorities.clone();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                let got: Vec<u32> = (0..10).map(|_| take(h, mine).unwrap().0).collect();
                assert_eq!(got, sorted);
            }
        }),
    ]
}
