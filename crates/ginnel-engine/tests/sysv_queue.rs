//! System V queues of the user-space home against the kernel's own, with real processes, killed at any instruction.

mod common;

#[path = "sysv_queue/kernel.rs"]
mod kernel;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::Stepped;
use ginnel_engine::message::sysv_queue::{Change, LARGE_BYTES, MESSAGE_BYTES_MAX, Status, SysvQueue};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, Exit, fork, isolated, isolated_for, wait_blocked_in, wait_until};
use kernel::KernelQueue;

/// A queue in a namespace of its own, with the limit that the kernel's have.
struct Queue {
    home: Namespace,
    id: i32,
    queue: SysvQueue,
}

impl std::ops::Deref for Queue {
    type Target = SysvQueue;

    fn deref(&self) -> &SysvQueue {
        &self.queue
    }
}

impl Queue {
    fn status(&self) -> Result<Status> {
        SysvQueue::status(&self.home, self.id)
    }

    fn set_bytes_max(&self, bytes_max: u64) -> Result<()> {
        SysvQueue::set(&self.home, self.id, Change { bytes_max, ..Change::none(&self.status()?) })
    }

    fn remove(&self) -> Result<()> {
        SysvQueue::remove(&self.home, self.id)
    }
}

fn queue() -> Queue {
    let home = Namespace::private().unwrap();
    let id = SysvQueue::get(&home, libc::IPC_PRIVATE, 0o600).unwrap();
    let queue = Queue { queue: SysvQueue::open(&home, id).unwrap(), home, id };
    queue.set_bytes_max(16384).unwrap();
    queue
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

const LATER: Patience = Patience::Endless;
const NOWAIT: i32 = libc::IPC_NOWAIT;

fn send(queue: &Queue, kind: i64, payload: &[u8]) {
    queue.send(kind, payload, 0, soon()).unwrap();
}

/// What there is, by a type, without waiting.
fn take(queue: &Queue, kind: i64) -> Result<(i64, Vec<u8>)> {
    recv(queue, kind, NOWAIT, LATER)
}

fn recv(queue: &Queue, kind: i64, flags: i32, patience: Patience) -> Result<(i64, Vec<u8>)> {
    let mut buffer = vec![0; 1 << 16];
    let (kind, len) = queue.recv(&mut buffer, kind, flags, patience)?;
    buffer.truncate(len);
    Ok((kind, buffer))
}

fn counts(queue: &Queue) -> (u64, u64) {
    let status = queue.status().unwrap();
    (status.messages, status.bytes)
}

fn drain(queue: &Queue) -> Vec<(i64, Vec<u8>)> {
    std::iter::from_fn(|| take(queue, 0).ok()).collect()
}

fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

/// A process that is blocked in an operation.
fn blocked(operation: impl FnOnce()) -> Child {
    let child = fork(operation);
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn stride() -> usize {
    std::env::var("GINNEL_STRIDE").map_or(29, |stride| stride.parse().unwrap())
}

/// The same operations on a queue of each home: each result, each errno, each state.
fn compare(seed: u64, operations: usize, types: u64, depth: u64) {
    let (ours, theirs) = (queue(), KernelQueue::create());
    let limit = depth * 20;
    ours.set_bytes_max(limit).unwrap();
    theirs.set_bytes_max(limit);
    let mut random = Random(seed);
    for step in 0..operations {
        let at = format!("seed {seed}, step {step}");
        let kind = random.below(types + 2) as i64 - 1;
        let sends = random.below(100) < if step / 500 % 2 == 0 { 60 } else { 35 };
        if sends {
            let len = if random.below(50) == 0 { random.below(5000) } else { random.below(60) } as usize;
            let payload: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            let sent = ours.send(kind, &payload, NOWAIT, LATER);
            assert_eq!(sent, theirs.send(kind, &payload, NOWAIT), "{at}: send {kind}, {len} bytes");
        } else {
            let kind = match random.below(4) {
                0 => 0,
                1 => -kind - 1,
                _ => kind,
            };
            let mut flags = NOWAIT;
            for (flag, one_in) in [(libc::MSG_NOERROR, 3), (libc::MSG_EXCEPT, 4), (libc::MSG_COPY, 8)] {
                if random.below(one_in) == 0 {
                    flags |= flag;
                }
            }
            let kind = if flags & libc::MSG_COPY != 0 { random.below(depth + 2) as i64 - 1 } else { kind };
            let room = if random.below(8) == 0 { random.below(60) } else { 5000 } as usize;
            let (mut own, mut other) = (vec![0; room], vec![0; room]);
            let got = ours.recv(&mut own, kind, flags, LATER);
            assert_eq!(
                got,
                theirs.recv(&mut other, kind, flags),
                "{at}: receive {kind}, {flags:#o}, {room} bytes"
            );
            if got.is_ok() {
                assert_eq!(own, other, "{at}: another message");
            }
        }
        if step % 16 == 0 {
            let status = ours.status().unwrap();
            assert_eq!((status.messages, status.bytes), theirs.counts(), "{at}");
        }
        if step % 700 == 699 {
            let limit = depth * (5 + random.below(20));
            ours.set_bytes_max(limit).unwrap();
            theirs.set_bytes_max(limit);
        }
    }
}

#[test]
fn each_operation_does_what_the_kernels_does() {
    isolated_for(Duration::from_secs(300), || {
        kernel::raise_limits();
        for (types, depth) in [(1, 5), (3, 40), (10, 300), (400, 300), (1 << 40, 3000), (2000, 3000)] {
            for seed in 0..4 {
                compare(seed * 977 + types, 12_000, types, depth);
            }
        }
    });
}

#[test]
fn what_cannot_be_is_refused() {
    isolated(|| {
        let queue = queue();
        let mut buffer = [0; 8];
        assert_eq!(queue.send(0, b"", 0, LATER), Err(Errno::INVAL));
        assert_eq!(queue.send(-1, b"", 0, LATER), Err(Errno::INVAL));
        assert_eq!(queue.recv(&mut buffer, 0, NOWAIT, LATER), Err(Errno::NOMSG));
        assert_eq!(queue.recv(&mut buffer, 0, 0, Patience::None), Err(Errno::NOMSG));
        assert_eq!(queue.recv(&mut buffer, 0, libc::MSG_COPY, LATER), Err(Errno::INVAL));
        let flags = libc::MSG_COPY | libc::MSG_EXCEPT | NOWAIT;
        assert_eq!(queue.recv(&mut buffer, 0, flags, LATER), Err(Errno::INVAL));
        queue.set_bytes_max(10).unwrap();
        assert_eq!(queue.send(1, &[0; 11], NOWAIT, LATER), Err(Errno::AGAIN));
        assert_eq!(queue.send(1, &[0; 11], 0, Patience::None), Err(Errno::AGAIN));
        let until = Instant::now() + Duration::from_millis(30);
        assert_eq!(queue.send(1, &[0; 11], 0, Patience::Until(until)), Err(Errno::TIMEDOUT));
        assert_eq!(queue.recv(&mut buffer, 0, 0, Patience::Until(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until);
        assert_eq!(counts(&queue), (0, 0));
        const { assert!(MESSAGE_BYTES_MAX >= 1 << 30) };
    });
}

#[test]
fn a_message_goes_to_who_waits_for_it_and_is_never_counted() {
    isolated(|| {
        let queue = queue();
        let want = |kind: i64, payload: &'static [u8]| {
            let queue = &queue;
            blocked(move || assert_eq!(recv(queue, kind, 0, LATER).unwrap().1, payload))
        };
        let first = want(5, b"five");
        let second = want(-3, b"two");
        let third = want(0, b"nine");
        send(&queue, 2, b"two");
        second.assert_ok();
        send(&queue, 9, b"nine");
        third.assert_ok();
        send(&queue, 5, b"five");
        first.assert_ok();
        let except = blocked(|| {
            assert_eq!(recv(&queue, 4, libc::MSG_EXCEPT, LATER).unwrap(), (6, b"six".to_vec()));
        });
        send(&queue, 4, b"four");
        send(&queue, 6, b"six");
        except.assert_ok();
        assert_eq!(counts(&queue), (1, 4));
    });
}

#[test]
fn a_waiting_receiver_with_too_little_room_gets_an_error_and_the_message_stays() {
    isolated(|| {
        kernel::raise_limits();
        let kernels = KernelQueue::create();
        let waits = fork(|| assert_eq!(kernels.recv(&mut [0; 2], 1, 0), Err(Errno::TOOBIG)));
        wait_blocked_in(waits.pid(), libc::SYS_msgrcv);
        kernels.send(1, b"three", 0).unwrap();
        waits.assert_ok();
        assert_eq!(kernels.counts(), (1, 5));

        let queue = queue();
        let short = blocked(|| assert_eq!(queue.recv(&mut [0; 2], 1, 0, LATER), Err(Errno::TOOBIG)));
        let cut = blocked(|| {
            let mut room = [0; 2];
            assert_eq!(queue.recv(&mut room, 2, libc::MSG_NOERROR, LATER), Ok((2, 2)));
            assert_eq!(&room, b"fo");
        });
        send(&queue, 1, b"three");
        short.assert_ok();
        assert_eq!(counts(&queue), (1, 5));
        send(&queue, 2, b"four");
        cut.assert_ok();
        assert_eq!(counts(&queue), (1, 5));
    });
}

#[test]
fn a_blocked_sender_whose_message_fits_passes_one_whose_does_not() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(100).unwrap();
        send(&queue, 1, &[1; 60]);
        send(&queue, 1, &[2; 30]);
        let big = blocked(|| queue.send(2, &[3; 90], 0, LATER).unwrap());
        let small = blocked(|| queue.send(3, &[4; 20], 0, LATER).unwrap());
        assert_eq!(counts(&queue), (2, 90));
        assert_eq!(take(&queue, 1).unwrap().1, [1; 60]);
        small.assert_ok();
        assert!(big.is_alive());
        assert_eq!(counts(&queue), (2, 50));
        // A newcomer that fits need not wait for those who do not.
        queue.send(4, &[5; 50], NOWAIT, LATER).unwrap();
        queue.set_bytes_max(200).unwrap();
        big.assert_ok();
        assert_eq!(counts(&queue), (4, 190));
    });
}

#[test]
fn messages_without_bytes_are_limited_too() {
    isolated(|| {
        kernel::raise_limits();
        let (ours, theirs) = (queue(), KernelQueue::create());
        ours.set_bytes_max(3).unwrap();
        theirs.set_bytes_max(3);
        for _ in 0..5 {
            assert_eq!(ours.send(1, b"", NOWAIT, LATER), theirs.send(1, b"", NOWAIT));
        }
        assert_eq!(counts(&ours), theirs.counts());
    });
}

#[test]
fn a_removal_ends_all_that_wait_at_once() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(10).unwrap();
        send(&queue, 1, &[0; 10]);
        let removed = |errno: Errno| assert_eq!(errno, Errno::IDRM);
        let mut waiting: Vec<_> = (2..6)
            .map(|kind| {
                blocked({
                    let queue = &queue;
                    move || removed(recv(queue, kind, 0, LATER).unwrap_err())
                })
            })
            .collect();
        waiting.push(blocked(|| removed(queue.send(1, b"more", 0, LATER).unwrap_err())));
        waiting.push(blocked(|| removed(queue.send(1, &vec![0; 3 * LARGE_BYTES], 0, LATER).unwrap_err())));
        queue.remove().unwrap();
        waiting.into_iter().for_each(|child| child.assert_ok());
        // Its id leads nowhere.
        assert_eq!(queue.send(1, b"", 0, LATER), Err(Errno::INVAL));
        assert_eq!(take(&queue, 0), Err(Errno::INVAL));
        assert_eq!(queue.status().unwrap_err(), Errno::INVAL);
        assert_eq!(queue.remove(), Err(Errno::INVAL));
    });
}

#[test]
fn a_signal_ends_the_waiting() {
    isolated(|| {
        extern "C" fn on_signal(_: libc::c_int) {}
        let queue = queue();
        queue.set_bytes_max(1).unwrap();
        let sends = fork(|| {
            common::handle(libc::SIGUSR1, on_signal);
            assert_eq!(queue.send(1, b"long", 0, LATER), Err(Errno::INTR));
        });
        let receives = fork(|| {
            common::handle(libc::SIGUSR1, on_signal);
            assert_eq!(recv(&queue, 0, 0, LATER), Err(Errno::INTR));
        });
        for child in [sends, receives] {
            wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
            child.signal(libc::SIGUSR1);
            child.assert_ok();
        }
        assert_eq!(counts(&queue), (0, 0));
        queue.set_bytes_max(100).unwrap();
        send(&queue, 1, b"x");
        assert_eq!(drain(&queue).len(), 1);
    });
}

#[test]
fn status_says_who_and_when() {
    isolated(|| {
        let queue = queue();
        let fresh = queue.status().unwrap();
        assert_eq!((fresh.sent, fresh.received, fresh.last_sender, fresh.last_receiver), (0, 0, 0, 0));
        assert_eq!(fresh.bytes_max, 16384);
        let before = fresh.changed;
        assert!(before > 0);
        let sender = fork(|| send(&queue, 1, b"abc"));
        let pid = sender.pid();
        sender.assert_ok();
        let sent = queue.status().unwrap();
        assert_eq!((sent.last_sender, sent.last_receiver, sent.received), (pid, 0, 0));
        assert!(sent.sent >= before);
        let receiver = blocked(|| drop(recv(&queue, 2, 0, LATER).unwrap()));
        let pid = receiver.pid();
        send(&queue, 2, b"def");
        receiver.assert_ok();
        let received = queue.status().unwrap();
        assert_eq!(received.last_receiver, pid);
        assert!(received.received >= before);
        assert_eq!((received.messages, received.bytes), (1, 3));
    });
}

#[test]
fn what_is_large_arrives_whole() {
    isolated_for(Duration::from_secs(120), || {
        let queue = queue();
        queue.set_bytes_max(1 << 30).unwrap();
        for len in [0, 1, 80, 81, 2000, 2001, LARGE_BYTES, LARGE_BYTES + 1, 100_000, 5 << 20] {
            let payload: Vec<u8> = (0..len).map(|index| (index * 7 + index / 4096) as u8).collect();
            send(&queue, 1, &payload);
            let mut copy = vec![0; len];
            assert_eq!(queue.recv(&mut copy, 0, NOWAIT | libc::MSG_COPY, LATER), Ok((1, len)));
            assert!(copy == payload, "{len} bytes, copied");
            let mut got = vec![0; len];
            assert_eq!(queue.recv(&mut got, 1, 0, LATER), Ok((1, len)));
            assert!(got == payload, "{len} bytes");
            // To one who waits.
            let waits = blocked(|| {
                let mut got = vec![0; len + 10];
                assert_eq!(queue.recv(&mut got, 1, 0, LATER), Ok((1, len)));
                assert!(got[..len] == payload, "{len} bytes, waited for");
            });
            send(&queue, 1, &payload);
            waits.assert_ok();
            // From one who waits.
            queue.set_bytes_max(1).unwrap();
            send(&queue, 9, b"x");
            let waits = blocked(|| queue.send(1, &payload, 0, LATER).unwrap());
            queue.set_bytes_max(1 << 30).unwrap();
            assert_eq!(take(&queue, 9).unwrap().1, b"x");
            waits.assert_ok();
            assert_eq!(queue.recv(&mut got, 1, NOWAIT, LATER), Ok((1, len)));
            assert!(got == payload, "{len} bytes, from one who waited");
            assert_eq!(counts(&queue), (0, 0));
        }
    });
}

fn resident(queue: &Queue) -> i64 {
    rustix::fs::fstat(queue.segment().file().unwrap()).unwrap().st_blocks * 512
}

#[test]
fn memory_grows_with_what_is_in_it_and_is_given_back() {
    isolated_for(Duration::from_secs(120), || {
        let queue = queue();
        assert!(resident(&queue) <= 16384, "{}", resident(&queue));
        queue.set_bytes_max(1 << 30).unwrap();
        for round in 0..3 {
            for kind in 1..20_000 {
                send(&queue, kind, &[1; 100]);
            }
            send(&queue, 1, &vec![2; 10 << 20]);
            assert!(resident(&queue) > 12 << 20);
            for kind in 1..20_000 {
                assert_eq!(take(&queue, kind).unwrap().1.len(), 100);
            }
            assert_eq!(queue.recv(&mut vec![0; 10 << 20], 1, 0, LATER), Ok((1, 10 << 20)));
            // The heap's tables stay: a page for each 255.
            assert!(resident(&queue) <= 16384 + (16 << 20) / 255, "round {round}: {}", resident(&queue));
        }
    });
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
            assert!(kills.0 > 5 && kills.1 > 0);
            return;
        }
    }
}

#[test]
fn killed_at_every_instruction_a_send_has_sent_or_not() {
    isolated_for(Duration::from_secs(600), || {
        let other = (2, b"other".to_vec());
        for (len, stride) in [(64, stride()), (1500, stride()), (5000, 3 * stride()), (20_000, 5 * stride())]
        {
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
    isolated_for(Duration::from_secs(600), || {
        let sent: Vec<(i64, Vec<u8>)> =
            vec![(3, vec![3; 30]), (2, vec![2; 20_000]), (1, vec![1; 10]), (2, vec![4; 40])];
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
                |queue| assert!(recv(queue, kind, flags, LATER).is_ok()),
                |left| {
                    assert!(left == sent || left == less);
                    left == less
                },
            );
        }
    });
}

#[test]
fn killed_at_every_instruction_of_making_room_for_many() {
    isolated_for(Duration::from_secs(600), || {
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
    isolated_for(Duration::from_secs(600), || {
        for len in [40, 20_000] {
            let mut kills = (0, 0);
            let payload = vec![7; len];
            for steps in (0..).step_by(if len > LARGE_BYTES { 5 } else { 3 } * stride()) {
                let queue = queue();
                queue.set_bytes_max(1 << 20).unwrap();
                let mut served = false;
                let victim = Stepped::start(|| drop(recv(&queue, 5, 0, LATER).unwrap()));
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
            assert!(kills.0 > 5 && kills.1 > 0);
        }
    });
}

#[test]
fn a_blocked_sender_killed_at_every_instruction_has_sent_or_not() {
    isolated_for(Duration::from_secs(600), || {
        for len in [40, 20_000] {
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
            assert!(kills.0 > 5 && kills.1 > 0);
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
    isolated_for(Duration::from_secs(600), || {
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
        let every = std::env::var("GINNEL_STRIDE").map_or(7, |stride| stride.parse().unwrap());
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
        println!("{tried} words written");
    });
}
