//! Processes killed at any instruction of a queue's operations, and queues that somebody has scribbled over.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::message::sysv_queue::LARGE_BYTES;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, Exit, fork, isolated, isolated_for, wait_until};

use super::common::Stepped;
use super::{LATER, NOWAIT, Queue, Random, blocked, counts, drain, queue, recv, resident, send, take};

fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

fn stride() -> usize {
    crate::common::stride_or(101)
}

/// Where a message is received to. On the stack and small: each byte that is filled is an instruction to be killed at.
fn room() -> [u8; 9_000] {
    [0; 9_000]
}

/// What a queue holds that nobody is using: everything is in its place if all can be received and the memory comes back.
fn assert_sound(queue: &Queue, at: &str) {
    drain(queue);
    assert_eq!(counts(queue), (0, 0), "{at}");
    queue.set_bytes_max(1 << 20).unwrap();
    send(queue, 1, &[0; 60_000]);
    assert_eq!(take(queue, 0).unwrap().1.len(), 60_000, "{at}");
    assert!(resident(queue) <= 16384, "{at}: {} bytes leaked", resident(queue) - 16384);
}

/// Kills an operation at each `stride`-th instruction of it, without anybody else.
fn killed_alone(
    what: &str,
    stride: usize,
    prepare: impl Fn(&Queue),
    operation: impl Fn(&Queue),
    check: impl Fn(&[(i64, Vec<u8>)]) -> bool,
) {
    let mut kills = (0, 0);
    for steps in (0..).step_by(stride) {
        let queue = queue();
        prepare(&queue);
        let victim = Stepped::start(|| operation(&queue));
        let in_work = (0..steps).all(|_| victim.step());
        victim.kill();
        let at = format!("{what}, killed after {steps} instructions");
        let left = {
            let (messages, bytes) = counts(&queue);
            let left = drain(&queue);
            assert_eq!(left.len() as u64, messages, "{at}");
            assert_eq!(left.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>(), bytes, "{at}");
            left
        };
        if check(&left) {
            kills.1 += 1
        } else {
            kills.0 += 1
        }
        assert_sound(&queue, &at);
        if !in_work {
            println!("{what}: {} kills before it counted, {} after", kills.0, kills.1);
            crate::common::crash(&format!("msg: {what}"));
            assert!(kills.0 > 2 && kills.1 > 0);
            return;
        }
    }
}

#[test]
fn killed_at_every_instruction_a_send_has_sent_or_not() {
    isolated_for(crate::common::limit(), || {
        let other = (2, b"other".to_vec());
        for (len, stride) in [(64, stride()), (1500, stride()), (5000, 3 * stride()), (9_000, 5 * stride())] {
            let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
            killed_alone(
                &format!("a send of {len} bytes"),
                stride,
                |queue| {
                    queue.set_bytes_max(1 << 20).unwrap();
                    send(queue, 2, b"other");
                },
                |queue| queue.send(1, &payload, 0, LATER).unwrap(),
                |left| match left {
                    [first] => {
                        assert_eq!(first, &other);
                        false
                    }
                    [first, second] => {
                        assert!(first == &other && second == &(1, payload.clone()));
                        true
                    }
                    _ => panic!("{} messages", left.len()),
                },
            );
        }
    });
}

#[test]
fn killed_at_every_instruction_a_receive_has_received_or_not() {
    isolated_for(crate::common::limit(), || {
        let sent: Vec<(i64, Vec<u8>)> =
            vec![(3, vec![3; 30]), (2, vec![2; 9_000]), (1, vec![1; 10]), (2, vec![4; 40])];
        for (kind, flags, gets, every) in
            [(0, 0, 0, 1), (1, 0, 2, 1), (-2, 0, 2, 2), (3, libc::MSG_EXCEPT, 1, 3), (2, 0, 1, 3)]
        {
            let mut less = sent.clone();
            less.remove(gets);
            killed_alone(
                &format!("a receive of type {kind}, flags {flags:#o}"),
                every * stride(),
                |queue| {
                    queue.set_bytes_max(1 << 20).unwrap();
                    sent.iter().for_each(|(kind, payload)| send(queue, *kind, payload));
                },
                |queue| assert!(queue.recv(&mut room(), kind, flags, LATER).is_ok()),
                |left| {
                    assert!(left == sent || left == less);
                    left == less
                },
            );
        }
    });
}

#[test]
fn killed_at_every_instruction_of_copying_nothing_is_received() {
    isolated_for(crate::common::limit(), || {
        let sent = [(3, vec![3; 30]), (2, vec![2; 9_000]), (1, vec![1; 10])];
        for (index, every) in [(0, 1), (1, 3)] {
            let copied = crate::common::number(0);
            killed_alone(
                &format!("a copy (MSG_COPY) of {} bytes", sent[index].1.len()),
                every * stride(),
                |queue| {
                    queue.set_bytes_max(1 << 20).unwrap();
                    sent.iter().for_each(|(kind, payload)| send(queue, *kind, payload));
                    copied.store(0, Ordering::SeqCst);
                },
                |queue| {
                    let mut room = room();
                    let (kind, len) =
                        queue.recv(&mut room, index as i64, libc::MSG_COPY | NOWAIT, LATER).unwrap();
                    copied.store(1, Ordering::SeqCst);
                    assert!(kind == sent[index].0 && room[..len] == sent[index].1[..]);
                },
                |left| {
                    assert!(left == sent);
                    copied.load(Ordering::SeqCst) == 1
                },
            );
        }
    });
}

#[test]
fn killed_at_every_instruction_of_cutting_a_message_off_it_is_whole_or_gone() {
    isolated_for(crate::common::limit(), || {
        for (len, every) in [(40, 1), (9_000, 3)] {
            let (cut, stays) = ((2, vec![2; len]), (1, vec![1; 10]));
            killed_alone(
                &format!("a receive that cuts off {len} bytes (MSG_NOERROR)"),
                every * stride(),
                |queue| {
                    queue.set_bytes_max(1 << 20).unwrap();
                    send(queue, cut.0, &cut.1);
                    send(queue, stays.0, &stays.1);
                },
                |queue| assert_eq!(queue.recv(&mut [0; 20], 2, libc::MSG_NOERROR, LATER), Ok((2, 20))),
                |left| {
                    assert!(left.last() == Some(&stays));
                    assert!(left.len() == 1 || (left.len() == 2 && left[0] == cut));
                    left.len() == 1
                },
            );
        }
    });
}

#[test]
fn killed_at_every_instruction_of_removing_all_are_told_or_nobody() {
    isolated_for(crate::common::limit(), || {
        let mut kills = (0, 0);
        for steps in (0..).step_by(7 * stride()) {
            let queue = queue();
            let told = |kind: i64| {
                let queue = &queue;
                move || assert!(matches!(recv(queue, kind, 0, LATER), Ok(_) | Err(Errno::IDRM)))
            };
            let waiting = [blocked(told(5)), blocked(told(6))];
            let victim = Stepped::start(|| queue.remove().unwrap());
            let in_work = (0..steps).all(|_| victim.step());
            victim.kill();
            let at = format!("removing, killed after {steps} instructions");
            match queue.send(5, b"five", 0, LATER) {
                Ok(()) => {
                    queue.send(6, b"six", 0, LATER).expect(&at);
                    kills.0 += 1;
                }
                Err(errno) => {
                    assert!(matches!(errno, Errno::INVAL | Errno::IDRM), "{at}: {errno}");
                    kills.1 += 1;
                }
            }
            waiting.into_iter().for_each(|child| child.assert_ok());
            // Whoever comes next completes it.
            assert!(matches!(queue.remove(), Ok(()) | Err(Errno::INVAL)), "{at}");
            assert_eq!(queue.send(1, b"", 0, LATER), Err(Errno::INVAL), "{at}");
            if !in_work {
                break;
            }
        }
        crate::common::crash("msgctl IPC_RMID with two asleep");
        assert!(kills.0 > 0 && kills.1 > 0, "{kills:?}");
    });
}

#[test]
fn killed_at_every_instruction_of_making_room_for_many() {
    isolated_for(crate::common::limit(), || {
        // The 33rd makes the tables wider.
        killed_alone(
            "a send that widens the tables",
            7 * stride(),
            |queue| {
                queue.set_bytes_max(1 << 20).unwrap();
                (1..33).for_each(|kind| send(queue, kind, b"some"));
            },
            |queue| queue.send(33, b"more", 0, LATER).unwrap(),
            |left| {
                assert!(left.iter().zip(1..).all(|((kind, _), expected)| *kind == expected));
                assert!(left.len() == 32 || left.len() == 33);
                left.len() == 33
            },
        );
        // The 65th place is taken by writing all that is left into the other half.
        killed_alone(
            "a send that writes the ring anew",
            stride(),
            |queue| {
                queue.set_bytes_max(1 << 20).unwrap();
                send(queue, 100, b"stays");
                for kind in 1..64 {
                    send(queue, kind, b"goes");
                    if kind % 9 != 0 {
                        take(queue, kind).unwrap();
                    }
                }
            },
            |queue| queue.send(64, b"more", 0, LATER).unwrap(),
            |left| {
                let kinds: Vec<i64> = left.iter().map(|(kind, _)| *kind).collect();
                let mut expected = vec![100, 9, 18, 27, 36, 45, 54, 63];
                if kinds.len() == 9 {
                    expected.push(64);
                }
                assert_eq!(kinds, expected);
                kinds.len() == 9
            },
        );
    });
}

#[test]
fn a_receiver_killed_at_every_instruction_of_being_served_leaves_the_message_in_its_place() {
    isolated_for(crate::common::limit(), || {
        for len in [40, 9_000] {
            let mut kills = (0, 0);
            let payload = vec![7; len];
            for steps in (0..).step_by(if len > LARGE_BYTES { 5 } else { 1 } * stride()) {
                let queue = queue();
                queue.set_bytes_max(1 << 20).unwrap();
                let mut served = false;
                let victim = Stepped::start(|| assert!(queue.recv(&mut room(), 5, 0, LATER).is_ok()));
                let mut in_work = true;
                for _ in 0..steps {
                    in_work = victim.step_watched(|_| {
                        if !served {
                            send(&queue, 5, &payload);
                            send(&queue, 6, b"behind");
                            send(&queue, 5, b"last");
                            served = true;
                        }
                    });
                    if !in_work {
                        break;
                    }
                }
                victim.kill();
                let at = format!("{len} bytes, killed after {steps} instructions");
                if served {
                    let left = drain(&queue);
                    let behind = [(6, b"behind".to_vec()), (5, b"last".to_vec())];
                    let first = left.len() - 2;
                    assert_eq!(left[first..], behind, "{at}");
                    if first == 1 {
                        assert!(left[0] == (5, payload.clone()), "{at}");
                        kills.0 += 1;
                    } else {
                        assert_eq!(first, 0, "{at}");
                        kills.1 += 1;
                    }
                }
                assert_sound(&queue, &at);
                if !in_work {
                    break;
                }
            }
            println!("{len} bytes: {} kills before it had it, {} after", kills.0, kills.1);
            crate::common::crash(&format!("msg: a receive that is served, {len} bytes"));
            assert!(kills.0 > 2 && kills.1 > 0);
        }
    });
}

#[test]
fn a_blocked_sender_killed_at_every_instruction_has_sent_or_not() {
    isolated_for(crate::common::limit(), || {
        for len in [40, 9_000] {
            let mut kills = (0, 0);
            let payload = vec![7; len];
            for steps in (0..).step_by(if len > LARGE_BYTES { 7 } else { 3 } * stride()) {
                let queue = queue();
                queue.set_bytes_max(4).unwrap();
                send(&queue, 1, b"full");
                let mut served = false;
                let victim = Stepped::start(|| queue.send(5, &payload, 0, LATER).unwrap());
                let mut in_work = true;
                for _ in 0..steps {
                    in_work = victim.step_watched(|_| {
                        if !served {
                            queue.set_bytes_max(1 << 20).unwrap();
                            served = true;
                        }
                    });
                    if !in_work {
                        break;
                    }
                }
                victim.kill();
                let at = format!("{len} bytes, killed after {steps} instructions");
                let left = drain(&queue);
                assert_eq!(left[0], (1, b"full".to_vec()), "{at}");
                match left.len() {
                    1 => kills.0 += 1,
                    2 => {
                        assert!(left[1] == (5, payload.clone()), "{at}");
                        kills.1 += 1
                    }
                    _ => panic!("{at}: {} messages", left.len()),
                }
                assert_sound(&queue, &at);
                if !in_work {
                    break;
                }
            }
            println!("{len} bytes: {} kills before it was sent, {} after", kills.0, kills.1);
            crate::common::crash(&format!("msg: a blocked send of {len} bytes"));
            assert!(kills.0 > 2 && kills.1 > 0);
        }
    });
}

#[test]
fn messages_of_several_dead_receivers_go_back_in_their_order() {
    isolated(|| {
        let queue = queue();
        let stopped: Vec<_> = (0..4)
            .map(|_| {
                let child = blocked(|| drop(recv(&queue, 1, 0, LATER)));
                child.signal(libc::SIGSTOP);
                let stat = format!("/proc/{}/stat", child.pid());
                wait_until("it is stopped", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
                child
            })
            .collect();
        for number in 0..4_u8 {
            send(&queue, 1, &[number]);
            send(&queue, 2, &[number]);
        }
        send(&queue, 1, &[4]);
        assert_eq!(counts(&queue), (5, 5));
        // Much comes and goes meanwhile.
        for _ in 0..300 {
            send(&queue, 3, b"passes");
            take(&queue, 3).unwrap();
        }
        assert_eq!(take(&queue, 2).unwrap().1, [0]);
        for index in [2, 0, 3, 1] {
            stopped[index].kill();
        }
        stopped.into_iter().for_each(|child| assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL)));
        let left: Vec<_> = drain(&queue).into_iter().map(|(kind, payload)| (kind, payload[0])).collect();
        assert_eq!(left, [(1, 0), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3), (1, 4)]);
        assert_sound(&queue, "after four deaths");
    });
}

#[test]
fn many_processes_lose_and_double_nothing_though_some_are_killed() {
    isolated_for(Duration::from_secs(120), || {
        const PROCESSES: i64 = 6;
        let queue = queue();
        queue.set_bytes_max(2000).unwrap();
        // A token goes round among types; whoever is killed with it in hand loses it, and it is counted here.
        let worker = |number: i64| {
            let queue = &queue;
            fork(move || {
                let mut random = Random(number as u64 + u64::from(std::process::id()));
                loop {
                    let len = [8, 300, 1500][random.below(3) as usize];
                    let kind = 1 + random.below(5) as i64;
                    match random.below(2) {
                        0 => {
                            let _ = queue.send(
                                kind,
                                &vec![kind as u8; len],
                                0,
                                Patience::Until(Instant::now() + Duration::from_millis(20)),
                            );
                        }
                        _ => {
                            let wanted = [0, kind, -kind][random.below(3) as usize];
                            let until = Patience::Until(Instant::now() + Duration::from_millis(20));
                            match recv(queue, wanted, 0, until) {
                                Ok((kind, payload)) => {
                                    assert!(payload.iter().all(|byte| i64::from(*byte) == kind))
                                }
                                Err(errno) => assert_eq!(errno, Errno::TIMEDOUT),
                            }
                        }
                    }
                }
            })
        };
        let mut children: Vec<_> = (0..PROCESSES).map(worker).collect();
        let mut random = Random(7);
        let end = Instant::now() + Duration::from_secs(8);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(random.below(2000)));
            let index = random.below(PROCESSES as u64) as usize;
            assert!(children[index].is_alive(), "a worker failed");
            let victim = std::mem::replace(&mut children[index], worker(index as i64));
            killed(victim);
            kills += 1;
        }
        children.into_iter().for_each(killed);
        println!("{kills} kills among {PROCESSES} processes");
        let (messages, bytes) = counts(&queue);
        let left = drain(&queue);
        assert_eq!(left.len() as u64, messages);
        assert_eq!(left.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>(), bytes);
        assert!(bytes <= 2000 + 6 * 1500, "more than went in and was put back");
        // A queue that is filled and drained all the time keeps some memory, for a second.
        std::thread::sleep(Duration::from_millis(2100));
        assert_sound(&queue, "after many deaths");
        assert!(kills > 50);
    });
}

/// What a scribbled queue may do: give a result, or say that it is corrupt.
fn use_scribbled(queue: &Queue, at: &str) {
    let until = || Patience::Until(Instant::now() + Duration::from_millis(40));
    let fine = |errno: Errno| {
        let known = [
            Errno::UCLEAN,
            Errno::TIMEDOUT,
            Errno::NOMSG,
            Errno::AGAIN,
            Errno::IDRM,
            Errno::TOOBIG,
            Errno::NOMEM,
            Errno::NOSPC,
            Errno::INVAL,
        ];
        assert!(known.contains(&errno), "{at}: {errno}");
    };
    for kind in [0, 2, -3] {
        let _ = recv(queue, kind, 0, until()).map_err(fine);
    }
    let _ = recv(queue, 1, libc::MSG_EXCEPT, until()).map_err(fine);
    let _ = recv(queue, 1, libc::MSG_COPY | NOWAIT, until()).map_err(fine);
    let _ = queue.send(2, &[9; 100], 0, until()).map_err(fine);
    let _ = queue.send(4, &[9; 10_000], 0, until()).map_err(fine);
    let _ = queue.set_bytes_max(1 << 16).map_err(fine);
    let _ = queue.send(5, &[9; 3000], 0, until()).map_err(fine);
    for _ in 0..12 {
        let _ = recv(queue, 0, NOWAIT, until()).map_err(fine);
    }
    let _ = queue.status().map_err(fine);
}

#[test]
fn a_scribbled_queue_is_an_error_or_works_and_never_hangs() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        let mut random = Random(3);
        let sizes: [usize; 6] = [10, 10, 3000, 500, 9000, 60];
        let full = || {
            let queue = queue();
            queue.set_bytes_max(1 << 20).unwrap();
            for round in 0..8 {
                for (kind, size) in (1..).zip(sizes) {
                    send(&queue, kind, &vec![round; size]);
                }
            }
            queue
        };
        let end = {
            let queue = full();
            rustix::fs::fstat(queue.segment().file().unwrap()).unwrap().st_size as usize
        };
        let heap = 258 * 4096;
        // The object's own words, the tables of the heap, and heads of messages.
        let words: Vec<usize> = (0x1000..0x1500)
            .chain(heap..heap + 0x400)
            .chain(heap + 0x1000..end.min(heap + 0x4000))
            .step_by(8)
            .collect();
        let every = crate::common::stride_or(7);
        for offset in words.into_iter().skip(random.below(every as u64) as usize).step_by(every) {
            for value in [0, u64::MAX, 1 << 31, random.below(u64::MAX >> 1), random.below(1 << 20)] {
                let queue = full();
                queue.segment().word64(offset).unwrap().store(value, Ordering::SeqCst);
                let child = fork(|| use_scribbled(&queue, &format!("{value:#x} at {offset:#x}")));
                assert_eq!(
                    child.wait_within(Duration::from_secs(20)),
                    Exit::Code(0),
                    "{value:#x} at {offset:#x}"
                );
                tried += 1;
            }
        }
        crate::common::tried("System V queue", tried);
    });
}
