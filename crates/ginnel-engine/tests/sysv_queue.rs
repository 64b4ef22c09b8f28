//! System V queues of the user-space home against the kernel's own, with real processes, killed at any instruction.

mod common;

#[path = "sysv_queue/kernel.rs"]
mod kernel;
#[path = "sysv_queue/killed.rs"]
mod killed;
#[path = "sysv_queue/pollable.rs"]
mod pollable;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ginnel_engine::message::sysv_queue::{Change, LARGE_BYTES, MESSAGE_BYTES_MAX, Status, SysvQueue};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, as_user, fork, isolated, isolated_for, wait_blocked_in};
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
    });
}

#[test]
fn a_queue_of_the_smallest_messages_is_full_before_anything_lacks() {
    isolated_for(Duration::from_secs(300), || {
        let queue = queue();
        queue.set_bytes_max(64 << 20).unwrap();
        let mut sent = 0;
        let full = loop {
            match queue.send(1, b"x", 0, Patience::None) {
                Ok(()) => sent += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!((full, queue.status().unwrap().messages), (Errno::AGAIN, sent));
        queue.recv(&mut [0; 8], 0, 0, Patience::None).unwrap();
        queue.send(1, b"y", 0, Patience::None).unwrap();
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
fn a_removal_while_a_call_only_looks_is_one_while_it_waits() {
    isolated(|| {
        for sends in [false, true] {
            let queue = queue();
            queue.set_bytes_max(if sends { 1 } else { 100 }).unwrap();
            if sends {
                send(&queue, 1, b"x");
            }
            let caller = common::Stepped::start(|| {
                let outcome =
                    if sends { queue.send(1, b"y", 0, LATER) } else { recv(&queue, 0, 0, LATER).map(drop) };
                assert_eq!(outcome, Err(Errno::IDRM), "sends: {sends}");
            });
            // It has had the lock, and found that it must wait.
            let is_locked = || queue.segment().word32(0x40).unwrap().load(Ordering::SeqCst) != 0;
            while !is_locked() {
                assert!(caller.step());
            }
            while is_locked() {
                assert!(caller.step());
            }
            assert!(caller.step());
            queue.remove().unwrap();
            caller.finish("it is told");
        }
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

#[test]
fn who_may_not_use_it_any_more_is_told_also_while_it_waits() {
    isolated(|| {
        // What the kernel does.
        kernel::raise_limits();
        let kernels = KernelQueue::create();
        kernels.set_mode(0o666);
        let waits = as_user(1000, 1000, || assert_eq!(kernels.recv(&mut [0; 2], 1, 0), Err(Errno::ACCESS)));
        wait_blocked_in(waits.pid(), libc::SYS_msgrcv);
        kernels.set_mode(0o600);
        waits.assert_ok();

        let home = Namespace::options().create(true).mode(0o1777).open("/dev/shm/shared").unwrap();
        let id = SysvQueue::get(&home, 0x2a, libc::IPC_CREAT | 0o666).unwrap();
        let queue = SysvQueue::open(&home, id).unwrap();
        let set_mode = |mode: u32| {
            let status = SysvQueue::status(&home, id).unwrap();
            SysvQueue::set(&home, id, Change { mode, ..Change::none(&status) }).unwrap();
        };
        let stays = blocked(|| assert_eq!(queue.recv(&mut [0; 8], 2, 0, LATER), Ok((2, 3))));
        let leaves = as_user(1000, 1000, || {
            let home = Namespace::options().owned_by(0).open("/dev/shm/shared").unwrap();
            let queue = SysvQueue::open(&home, id).unwrap();
            assert_eq!(queue.recv(&mut [0; 8], 1, 0, LATER), Err(Errno::ACCESS));
            assert_eq!(queue.send(1, b"no", 0, LATER), Err(Errno::ACCESS));
            assert_eq!(SysvQueue::remove(&home, id), Err(Errno::PERM));
        });
        wait_blocked_in(leaves.pid(), libc::SYS_futex_waitv);
        set_mode(0o600);
        leaves.assert_ok();
        queue.send(2, b"yes", 0, soon()).unwrap();
        stays.assert_ok();
    });
}

#[test]
fn a_message_of_the_limit_and_one_more_byte() {
    isolated(|| {
        let queue = queue();
        let limit = queue.home.limits().msgmax as usize;
        assert_eq!(limit, MESSAGE_BYTES_MAX);
        // Nobody looks into it: its size is checked first.
        let large = vec![0; limit + 1];
        assert_eq!(queue.send(1, &large, NOWAIT, LATER), Err(Errno::INVAL));
        assert_eq!(queue.send(1, &large[1..], NOWAIT, LATER), Err(Errno::AGAIN));
    });
}
