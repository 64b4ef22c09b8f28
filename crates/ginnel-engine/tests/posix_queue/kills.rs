//! Processes killed at every instruction of sending, receiving, being notified, making and unlinking.
//!
//! Each kind of kill uses one queue for all its kills: what one of them leaves behind, the next ones meet.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ginnel_engine::Errno;
use ginnel_engine::message::posix_queue::{LARGE, Notification, PosixQueue};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::wait::Patience::{Endless, None as Never};
use ginnel_testkit::{Child, Exit, fork, isolated_for, wait_blocked_in, wait_until};
use rustix::fs::{Mode, OFlags};

use crate::common::{self, Stepped};
use crate::{BOTH, CREATE, SIGNALS, again, count, home, note_signals, path, polled, queue, soon, take};

const JOURNAL_COUNT: usize = 0x58;
const LOCK_WORD: usize = 0x40;
/// How many slots were ever used.
const HIGH: usize = HEADER_BYTES + 0x58;
/// Blocked operations and stakes.
const MEMBERS: usize = HEADER_BYTES + 0x180 + 0x38;

/// Every how many instructions: all take minutes, `GINNEL_STRIDE=1` is for them.
fn stride() -> usize {
    crate::common::stride_or(29)
}

/// The queue's words, as they stand.
fn words() -> Segment {
    let directory = rustix::fs::open(path("mq"), OFlags::DIRECTORY, Mode::empty()).unwrap();
    Segment::open(directory, c"queue").unwrap()
}

fn raw(words: &Segment, offset: usize) -> u64 {
    words.word64(offset).unwrap().load(Ordering::SeqCst)
}

/// Kills `work` after each `stride`-th instruction of it, of a long one after fewer later on; `during` is called while it is blocked. Gives how many kills.
fn killed(
    stride: usize,
    mut before: impl FnMut(),
    work: impl Fn(),
    mut during: impl FnMut(i32),
    mut after: impl FnMut(&str),
) -> usize {
    let first = 100 * stride;
    let sparse = (first..).step_by(20 * stride);
    for (kills, steps) in (0..first).step_by(stride).chain(sparse).enumerate() {
        before();
        let victim = Stepped::start(&work);
        let in_work = (0..steps).all(|_| victim.step_watched(&mut during));
        victim.kill();
        after(&format!("killed after {steps} instructions"));
        if !in_work {
            return kills;
        }
    }
    unreachable!("an operation has an end")
}

/// All messages there are, without waiting.
fn drained(queue: &PosixQueue, at: &str) -> Vec<(u32, Vec<u8>)> {
    let mut messages = Vec::new();
    loop {
        match take(queue, Never) {
            Ok(message) => messages.push(message),
            Err(errno) => {
                assert_eq!(errno, Errno::AGAIN, "{at}");
                let now = queue.attributes().unwrap();
                assert_eq!((now.messages, now.bytes), (0, 0), "{at}");
                return messages;
            }
        }
    }
}

fn message(number: u8, bytes: usize) -> Vec<u8> {
    vec![number; bytes]
}

/// After all kills: no slot was lost, nobody is in a list.
fn assert_tidy(queue: &PosixQueue, slots: u64) {
    drained(queue, "at the end");
    let words = words();
    assert_eq!((raw(&words, MEMBERS), raw(&words, JOURNAL_COUNT), raw(&words, LOCK_WORD) as u32), (0, 0, 0));
    assert!(raw(&words, HIGH) <= slots, "{} slots used", raw(&words, HIGH));
}

#[test]
fn a_sender_killed_has_sent_its_message_or_not() {
    isolated_for(crate::common::limit(), || {
        for (held, bytes, stride) in
            [(0, 64, stride()), (2, 64, 2 * stride()), (1, LARGE + 64, 40 * stride())]
        {
            let queue = queue(4, bytes as u64);
            let mut sent = [0, 0];
            let own = message(9, bytes);
            let kills = killed(
                stride,
                || (0..held).for_each(|number| queue.send(1, &message(number, bytes), soon()).unwrap()),
                || queue.send(7, &own, Never).unwrap(),
                |_| (),
                |at| {
                    let messages = drained(&queue, at);
                    let was_sent = messages.len() == held as usize + 1;
                    let own = was_sent.then(|| (7, own.clone()));
                    let expected: Vec<_> =
                        own.into_iter().chain((0..held).map(|number| (1, message(number, bytes)))).collect();
                    assert!(messages == expected, "{at}");
                    sent[usize::from(was_sent)] += 1;
                },
            );
            println!("{kills} kills of a sender, {bytes} bytes, {held} before: {} had sent", sent[1]);
            crate::common::crash(&format!("mq_send, {bytes} bytes, {held} before"));
            assert!(sent[0] > 0 && sent[1] > 0);
            assert_tidy(&queue, held as u64 + 1);
        }
    });
}

#[test]
fn a_receiver_killed_has_received_the_message_or_it_is_there() {
    isolated_for(crate::common::limit(), || {
        for (bytes, stride) in [(64, stride()), (LARGE + 64, 40 * stride())] {
            let queue = queue(4, bytes as u64);
            let mut there = [0, 0];
            let buffer = Cell::new(vec![0; bytes]);
            let receive = || {
                let mut buffer = buffer.take();
                queue.receive(&mut buffer, Never).unwrap();
            };
            let kills = killed(
                stride,
                || {
                    queue.send(1, &message(0, bytes), soon()).unwrap();
                    queue.send(7, &message(1, bytes), soon()).unwrap();
                    queue.send(7, &message(2, bytes), soon()).unwrap();
                },
                receive,
                |_| (),
                |at| {
                    let messages = drained(&queue, at);
                    let is_there = messages.len() == 3;
                    let expected = [(7, message(1, bytes)), (7, message(2, bytes)), (1, message(0, bytes))];
                    assert!(messages == expected[usize::from(!is_there)..], "{at}");
                    there[usize::from(is_there)] += 1;
                },
            );
            println!("{kills} kills of a receiver, {bytes} bytes: {} left it there", there[1]);
            crate::common::crash(&format!("mq_receive, {bytes} bytes"));
            assert!(there[0] > 0 && there[1] > 0);
            assert_tidy(&queue, 3);
        }
    });
}

/// A receiver that sleeps, behind others.
fn sleeping_receiver(queue: &PosixQueue) -> Child {
    let receiver = fork(|| drop(take(queue, Endless).unwrap()));
    wait_blocked_in(receiver.pid(), libc::SYS_futex_waitv);
    receiver
}

#[test]
fn a_blocked_receiver_killed_leaves_the_message_to_the_next() {
    isolated_for(crate::common::limit(), || {
        for (bytes, stride) in [(64, 7 * stride()), (LARGE + 64, 60 * stride())] {
            let queue = queue(4, bytes as u64);
            let next = std::cell::RefCell::new(Vec::new());
            let given = Cell::new(false);
            let buffer = Cell::new(vec![0; bytes]);
            let receive = || {
                let mut buffer = buffer.take();
                queue.receive(&mut buffer, Endless).unwrap();
            };
            let (mut got, mut left) = (0, 0);
            let kills = killed(
                stride,
                || given.set(false),
                receive,
                |_| {
                    if !given.replace(true) {
                        next.borrow_mut().push(sleeping_receiver(&queue));
                        queue.send(3, &message(5, bytes), soon()).unwrap();
                    }
                },
                |at| {
                    for next in next.take() {
                        let words = words();
                        // The victim has it for good, or the next one gets it with nobody's help.
                        wait_until(&format!("one of the two has the message, {at}"), || {
                            !next.is_alive() || raw(&words, MEMBERS) == if bytes > LARGE { 2 } else { 1 }
                        });
                        if next.is_alive() {
                            let _ = queue.send(3, &message(6, bytes), soon());
                            got += 1;
                        } else {
                            left += 1;
                        }
                        next.assert_ok();
                    }
                    let more = drained(&queue, at);
                    assert!(more.is_empty() || more == [(3, message(6, bytes))], "{at}");
                },
            );
            println!("{kills} kills of a blocked receiver, {bytes} bytes: {got} had got it, {left} left it");
            crate::common::crash(&format!("mq_receive, blocked, {bytes} bytes"));
            assert!(got > 0 && left > 0);
            assert_tidy(&queue, 3);
        }
    });
}

#[test]
fn a_blocked_sender_killed_has_sent_its_message_or_not() {
    isolated_for(crate::common::limit(), || {
        for (bytes, stride) in [(64, 7 * stride()), (LARGE + 64, 60 * stride())] {
            let queue = queue(1, bytes as u64);
            let made_room = Cell::new(false);
            let message_sent = message(9, bytes);
            let mut sent = [0, 0];
            let kills = killed(
                stride,
                || {
                    made_room.set(false);
                    queue.send(1, &message(0, bytes), soon()).unwrap();
                },
                || queue.send(7, &message_sent, Endless).unwrap(),
                |_| {
                    if !made_room.replace(true) {
                        assert!(take(&queue, soon()).unwrap().1 == message(0, bytes));
                    }
                },
                |at| {
                    // Its end is heard of by the next to come at the latest.
                    let messages = drained(&queue, at);
                    let own = messages == [(7, message(9, bytes))];
                    assert!(own || messages.is_empty() || messages == [(1, message(0, bytes))], "{at}");
                    assert!(own || !made_room.get() || messages.is_empty(), "{at}");
                    sent[usize::from(own)] += 1;
                },
            );
            println!("{kills} kills of a blocked sender, {bytes} bytes: {} had sent", sent[1]);
            crate::common::crash(&format!("mq_send, blocked, {bytes} bytes"));
            assert!(sent[0] > 0 && sent[1] > 0);
            assert_tidy(&queue, 3);
        }
    });
}

#[test]
fn a_sender_killed_loses_no_notice() {
    isolated_for(crate::common::limit(), || {
        note_signals(libc::SIGUSR1);
        let queue = queue(4, 64);
        let mut told = 0;
        let kills = killed(
            stride(),
            || {
                queue.cancel_notify().unwrap();
                queue.notify(Notification::Signal { signal: libc::SIGUSR1 as u32, value: 1 }).unwrap();
                SIGNALS.store(0, Ordering::SeqCst);
            },
            || queue.send(1, b"x", Never).unwrap(),
            |_| (),
            |at| {
                // Whoever comes next sends what is still to be sent.
                let sent = count(&queue) == 1;
                if sent {
                    wait_until(&format!("the notice, {at}"), || SIGNALS.load(Ordering::SeqCst) > 0);
                    told += 1;
                }
                assert!(SIGNALS.load(Ordering::SeqCst) <= 2 * i32::from(sent), "{at}");
                assert_eq!(queue.registered_process().unwrap().is_some(), !sent, "{at}");
                drained(&queue, at);
            },
        );
        println!("{kills} kills of a sender that gives notice: {told} had sent");
        crate::common::crash("mq_send, giving notice");
        assert!(told > 0 && told < kills);
        assert_tidy(&queue, 1);
    });
}

#[test]
fn who_is_killed_registering_or_cancelling_keeps_nobody_else_from_it() {
    isolated_for(crate::common::limit(), || {
        let queue = queue(4, 64);
        let kills = killed(
            stride(),
            || (),
            || {
                queue.notify(Notification::Thread).unwrap();
                queue.cancel_notify().unwrap();
            },
            |_| (),
            |at| {
                queue.notify(Notification::Nothing).expect(at);
                queue.cancel_notify().unwrap();
            },
        );
        println!("{kills} kills of one that registers");
        crate::common::crash("mq_notify, register and cancel");
        assert_tidy(&queue, 0);
    });
}

#[test]
fn who_is_killed_ringing_leaves_the_descriptor_right_for_the_next_to_come() {
    isolated_for(crate::common::limit(), || {
        let queue = queue(2, 64);
        let (read, write) = (libc::POLLIN, libc::POLLOUT);
        for polls in [false, true] {
            // With the descriptor that it inherits, or as one who never asked for it.
            let other = again(BOTH).unwrap();
            let sender = if polls { &queue } else { &other };
            queue.descriptor().unwrap();
            let kills = killed(
                3 * stride(),
                || (),
                || {
                    sender.send(1, b"x", Never).unwrap();
                    sender.send(1, b"y", Never).unwrap();
                    take(sender, Never).unwrap();
                },
                |_| (),
                |at| {
                    let expected = match count(&queue) {
                        0 => write,
                        1 => read | write,
                        _ => read,
                    };
                    assert_eq!(polled(&queue), expected, "{at}");
                    drained(&queue, at);
                    assert_eq!(polled(&queue), write, "{at}");
                },
            );
            println!("{kills} kills of one that rings");
            crate::common::crash(&format!("mq_send, ringing (polls: {polls})"));
        }
        assert_tidy(&queue, 2);
    });
}

#[test]
fn who_is_killed_giving_memory_back_or_taking_it_harms_no_message() {
    isolated_for(crate::common::limit(), || {
        const MESSAGES: u64 = 600;
        let queue = queue(MESSAGES, 2000);
        let resident = || {
            use std::os::linux::fs::MetadataExt;
            std::fs::metadata(path("mq/queue")).unwrap().st_blocks() * 512
        };
        let fill = |from: u64| {
            (from..MESSAGES).for_each(|number| queue.send(0, &message(number as u8, 2000), soon()).unwrap());
        };
        let all = |at: &str| {
            for (number, message) in drained(&queue, at).into_iter().enumerate() {
                assert!(message.1 == self::message(number as u8, 2000), "{at}");
            }
        };
        let kills = killed(
            97 * stride(),
            || {
                fill(0);
                (1..MESSAGES).for_each(|_| drop(take(&queue, soon()).unwrap()));
            },
            || {
                // The last one: gives back; then what needs memory again.
                take(&queue, Never).unwrap();
                (0..40).for_each(|number| queue.send(0, &message(number, 2000), Never).unwrap());
            },
            |_| (),
            |at| {
                let there = count(&queue);
                if there > 1 || take(&queue, Never).map_or(true, |(_, first)| first == message(0, 2000)) {
                    drained(&queue, at);
                }
                drained(&queue, at);
                fill(0);
                all(at);
            },
        );
        println!("{kills} kills of one that gives memory back");
        crate::common::crash("mq_receive, giving memory back");
        fill(0);
        all("at the end");
        assert!(resident() < 2 << 20, "{} bytes left", resident());
        assert_tidy(&queue, MESSAGES);
    });
}

#[test]
fn who_is_killed_making_or_unlinking_leaves_a_whole_queue_or_none() {
    isolated_for(crate::common::limit(), || {
        drop(queue(2, 8));
        PosixQueue::unlink(&home(), b"/queue").unwrap();
        let entries = |directory| std::fs::read_dir(path(directory)).unwrap().count();
        let mut left = 0;
        let kills = killed(
            61 * stride(),
            || (),
            || {
                drop(PosixQueue::open(&home(), b"/queue", CREATE | libc::O_EXCL, 0o600, None).unwrap());
                PosixQueue::unlink(&home(), b"/queue").unwrap();
            },
            |_| (),
            |at| {
                match again(BOTH) {
                    Ok(queue) => {
                        queue.send(1, b"x", Never).unwrap();
                        assert_eq!(take(&queue, Never).unwrap(), (1, b"x".to_vec()), "{at}");
                        assert_eq!(polled(&queue), libc::POLLOUT, "{at}");
                        drop(queue);
                        PosixQueue::unlink(&home(), b"/queue").unwrap();
                    }
                    Err(errno) => assert_eq!(errno, Errno::NOENT, "{at}"),
                }
                left += entries("bell");
                home().collect(false).unwrap();
                assert_eq!((entries("mq"), entries("bell")), (0, 0), "{at}");
            },
        );
        println!("{kills} kills of one that makes and unlinks: {left} FIFOs left to collect");
        crate::common::crash("mq_open, mq_unlink");
    });
}

#[test]
fn many_killed_at_random_lose_no_more_than_their_own_message() {
    isolated_for(Duration::from_secs(120), || {
        const SENDERS: u64 = 6;
        let queue = queue(3, 64);
        let shared = words_for_counts();
        let start_sender = |sender: u64| {
            let (queue, shared) = (&queue, &shared);
            fork(move || {
                loop {
                    let number = shared.word64(HEADER_BYTES + 8 * sender as usize).unwrap();
                    let mut message = [sender as u8; 64];
                    message[..8].copy_from_slice(&number.load(Ordering::SeqCst).to_le_bytes());
                    queue.send(sender as u32, &message, Endless).unwrap();
                    number.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let idle_receiver = || fork(|| while take(&queue, Endless).is_ok() {});
        let mut senders: Vec<_> = (0..SENDERS).map(start_sender).collect();
        let mut receiver = idle_receiver();
        let mut last = [None::<u64>; SENDERS as usize];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let end = std::time::Instant::now() + Duration::from_secs(6);
        let (mut kills, mut received, mut given_back) = (0, 0, 0);
        while std::time::Instant::now() < end {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for _ in 0..20 {
                let (priority, message) = take(&queue, soon()).unwrap();
                assert!(message[8..].iter().all(|byte| u32::from(*byte) == priority));
                let number = u64::from_le_bytes(message[..8].try_into().unwrap());
                // One that was killed after its send, before it counted it, sends the same number again. What a killed
                // receiver was given and had not taken goes back: one message for each that was killed, which others
                // may have overtaken.
                let latest = &mut last[priority as usize];
                if latest.is_some_and(|latest| number < latest) {
                    assert!(given_back > 0, "{number} after {latest:?}");
                    given_back -= 1;
                } else {
                    *latest = Some(number);
                }
                received += 1;
            }
            let victim = (random >> 33) as usize % (SENDERS as usize + 1);
            let old = match senders.get_mut(victim) {
                Some(sender) => std::mem::replace(sender, fork(common_pause)),
                None => std::mem::replace(&mut receiver, fork(common_pause)),
            };
            old.kill();
            assert_eq!(old.wait(), Exit::Signal(libc::SIGKILL));
            match senders.get_mut(victim) {
                Some(sender) => *sender = start_sender(victim as u64),
                None => {
                    receiver = idle_receiver();
                    given_back += 1;
                }
            }
            kills += 1;
        }
        println!("{kills} kills, {received} messages");
        for child in senders.into_iter().chain([receiver]) {
            child.kill();
            assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        }
        assert!(kills > 50);
        // A message in the hands of a dead receiver is one more.
        assert!(drained(&queue, "at the end").len() <= 4);
        assert_tidy(&queue, 3 + SENDERS + 3);
    });
}

fn common_pause() {
    common::pause_for_ever();
}

/// Memory that the forks share.
fn words_for_counts() -> Segment {
    let directory = rustix::fs::open("/dev/shm", OFlags::DIRECTORY, Mode::empty()).unwrap();
    Segment::create(directory, c"counts", Mode::RUSR | Mode::WUSR, 1 << 16, |_| Ok(())).unwrap()
}
