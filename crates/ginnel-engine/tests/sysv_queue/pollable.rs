//! The descriptor of a queue: `poll`, `select` and `epoll` in real processes, some of which are killed.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ginnel_engine::message::sysv_queue::{Change, SysvQueue};
use ginnel_engine::namespace::{Namespace, What};
use ginnel_engine::wait::Patience::{self, None as Never};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, Exit, as_user, blocked_in, fork, isolated, isolated_for, wait_until};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::common::{Stepped, crash, limit, number};
use super::{LATER, NOWAIT, Queue, blocked, counts, drain, queue, send, soon, take};

const READ: i16 = libc::POLLIN;
const WRITE: i16 = libc::POLLOUT;

fn polled(fd: BorrowedFd<'_>, limit: i32) -> i16 {
    let mut fd = libc::pollfd { fd: fd.as_raw_fd(), events: READ | WRITE, revents: 0 };
    // SAFETY: one pollfd, ours to write.
    assert!(unsafe { libc::poll(&mut fd, 1, limit) } >= 0);
    fd.revents
}

fn shows(queue: &SysvQueue) -> i16 {
    polled(queue.descriptor().unwrap(), 0)
}

/// A process that is blocked in `poll` for this, and then has it.
fn poller(queue: &Queue, events: i16) -> Child {
    let child = fork(|| {
        let mut fd = libc::pollfd { fd: queue.descriptor().unwrap().as_raw_fd(), events, revents: 0 };
        // SAFETY: one pollfd, ours to write.
        assert_eq!(unsafe { libc::poll(&mut fd, 1, 15_000) }, 1);
        assert_eq!(fd.revents & events, events);
    });
    wait_until("it polls", || is_polling(child.pid()));
    child
}

fn is_polling(pid: i32) -> bool {
    let calls = [
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
    ];
    calls.iter().any(|call| blocked_in(pid, *call))
}

fn again(queue: &Queue) -> SysvQueue {
    SysvQueue::open(&queue.home, queue.id).unwrap()
}

struct Edges(OwnedFd);

impl Edges {
    fn of(queue: &SysvQueue, events: EventFlags) -> Edges {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let fd = queue.descriptor().unwrap();
        epoll::add(&epoll, fd, EventData::new_u64(1), events | EventFlags::ET).unwrap();
        Edges(epoll)
    }

    fn next(&self, seconds: i64) -> Option<EventFlags> {
        let limit = rustix::event::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut events = Vec::with_capacity(1);
        epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&limit)).unwrap();
        events.first().map(|event| event.flags)
    }

    fn clear(&self) {
        while self.next(0).is_some() {}
    }
}

#[test]
fn the_descriptor_shows_what_the_queue_can_do() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(3).unwrap();
        assert_eq!(shows(&queue), WRITE);
        for (kind, expected) in [(5, READ | WRITE), (1, READ | WRITE), (9, READ)] {
            fork(|| send(&queue, kind, b"x")).assert_ok();
            assert_eq!(polled(queue.descriptor().unwrap(), 0), expected);
        }
        let other = again(&queue);
        assert_eq!(shows(&other), READ, "asked for when it was full");
        for (kind, expected) in [(9, READ | WRITE), (0, READ | WRITE), (-5, WRITE)] {
            // Others, who never asked.
            fork(|| assert!(again(&queue).recv(&mut [0; 8], kind, NOWAIT, LATER).is_ok())).assert_ok();
            assert_eq!((shows(&queue), shows(&other)), (expected, expected));
        }
        queue.set_bytes_max(0).unwrap();
        assert_eq!(shows(&queue), WRITE, "empty: there is no other way to show it");
    });
}

#[test]
fn messages_without_bytes_fill_a_queue_too() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(2).unwrap();
        let fd = queue.descriptor().unwrap();
        for expected in [READ | WRITE, READ] {
            send(&queue, 1, b"");
            assert_eq!(polled(fd, 0), expected);
        }
        take(&queue, 0).unwrap();
        assert_eq!(polled(fd, 0), READ | WRITE);
    });
}

#[test]
fn who_polls_is_woken_by_another_process_in_both_directions() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(8).unwrap();
        for _ in 0..20 {
            let reader = poller(&queue, READ);
            fork(|| again(&queue).send(3, &[7; 8], 0, Never).unwrap()).assert_ok();
            reader.assert_ok();
            let writer = poller(&queue, WRITE);
            fork(|| assert!(again(&queue).recv(&mut [0; 8], 0, NOWAIT, Never).is_ok())).assert_ok();
            writer.assert_ok();
        }
    });
}

#[test]
fn all_who_watch_are_told_also_while_some_are_killed() {
    isolated(|| {
        let queue = queue();
        let mut watchers: Vec<_> = (0..6).map(|_| poller(&queue, READ)).collect();
        for victim in watchers.drain(..2) {
            victim.kill();
            assert_eq!(victim.wait(), Exit::Signal(libc::SIGKILL));
        }
        send(&queue, 3, b"x");
        watchers.into_iter().for_each(Child::assert_ok);
    });
}

#[test]
fn a_sender_that_was_refused_is_told_of_more_room() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(10).unwrap();
        for kind in [1, 2, 3] {
            send(&queue, kind, b"abc");
        }
        let fd = queue.descriptor().unwrap();
        assert_eq!(polled(fd, 0), READ | WRITE, "there is a byte");
        let edges = Edges::of(&queue, EventFlags::OUT);
        edges.clear();
        assert_eq!(queue.send(4, b"abcdef", 0, Never), Err(Errno::AGAIN));
        assert_eq!(polled(fd, 0), READ, "not for who was refused");
        assert_eq!(edges.next(0), None);
        take(&queue, 0).unwrap();
        assert_eq!(polled(fd, 0), READ | WRITE);
        assert!(edges.next(0).is_some());
        assert_eq!(queue.send(4, b"abcdef", NOWAIT, LATER), Err(Errno::AGAIN), "still too little");
        assert_eq!(polled(fd, 0), READ);
        take(&queue, 0).unwrap();
        assert!(edges.next(0).is_some());
        queue.send(4, b"abcdef", NOWAIT, LATER).unwrap();
        // Of a message that never fits, until the limit says otherwise.
        drain(&queue);
        edges.clear();
        assert_eq!(queue.send(4, &[0; 11], NOWAIT, LATER), Err(Errno::AGAIN));
        assert_eq!(edges.next(0), None);
        queue.set_bytes_max(11).unwrap();
        assert!(edges.next(0).is_some());
        queue.send(4, &[0; 11], NOWAIT, LATER).unwrap();
    });
}

#[test]
fn a_receiver_by_type_hears_of_each_further_message() {
    isolated(|| {
        let queue = queue();
        send(&queue, 1, b"of no interest");
        let edges = Edges::of(&queue, EventFlags::IN);
        assert!(edges.next(0).is_some());
        for kind in [2, 3, 7] {
            assert_eq!(take(&queue, 7), Err(Errno::NOMSG));
            assert_eq!(edges.next(0), None);
            assert_eq!(polled(queue.descriptor().unwrap(), 0), READ | WRITE, "any message is to be seen");
            edges.clear();
            fork(|| send(&queue, kind, b"x")).assert_ok();
            assert!(edges.next(0).is_some(), "{kind}");
        }
        assert_eq!(take(&queue, 7).unwrap(), (7, b"x".to_vec()));
    });
}

#[test]
fn many_receivers_by_type_that_sleep_in_epoll_get_theirs() {
    const ROUNDS: u64 = 200;
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(64).unwrap();
        let receivers: Vec<_> = (1..=4)
            .map(|kind| {
                fork(|| {
                    let own = again(&queue);
                    let edges = Edges::of(&own, EventFlags::IN);
                    for round in 0..ROUNDS {
                        let mut buffer = [0; 8];
                        while own.recv(&mut buffer, kind, NOWAIT, LATER) == Err(Errno::NOMSG) {
                            assert!(edges.next(20).is_some(), "forgotten in round {round}");
                        }
                        assert_eq!(u64::from_ne_bytes(buffer), round);
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (1..=4)
            .map(|kind| {
                fork(|| {
                    let own = again(&queue);
                    let edges = Edges::of(&own, EventFlags::OUT);
                    for round in 0..ROUNDS {
                        while own.send(kind, &round.to_ne_bytes(), NOWAIT, LATER) == Err(Errno::AGAIN) {
                            assert!(edges.next(20).is_some(), "a sender is forgotten in round {round}");
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().chain(receivers).for_each(Child::assert_ok);
        assert_eq!(counts(&queue), (0, 0));
    });
}

#[test]
fn who_is_blocked_and_who_polls_are_both_served() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(8).unwrap();
        let fd = queue.descriptor().unwrap();
        let receiver = blocked(|| assert_eq!(super::recv(&queue, 0, 0, soon()).unwrap().0, 3));
        send(&queue, 3, b"x");
        receiver.assert_ok();
        assert_eq!(polled(fd, 0), WRITE, "it never was in the queue");
        send(&queue, 1, &[0; 8]);
        let sender = blocked(|| queue.send(2, &[0; 8], 0, soon()).unwrap());
        assert_eq!(polled(fd, 0), READ);
        take(&queue, 0).unwrap();
        sender.assert_ok();
        assert_eq!(polled(fd, 0), READ, "the other's came into its place");
        // A message whose receiver is killed before it could have it is there again.
        drain(&queue);
        assert_eq!(polled(fd, 0), WRITE);
        let receiver = blocked(|| drop(super::recv(&queue, 0, 0, soon())));
        receiver.signal(libc::SIGSTOP);
        send(&queue, 5, b"back");
        receiver.kill();
        assert_eq!(receiver.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(counts(&queue), (1, 4));
        assert_eq!(polled(fd, 0), READ | WRITE);
    });
}

#[test]
fn a_large_message_is_told_of_too() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(100_000).unwrap();
        let fd = queue.descriptor().unwrap();
        let reader = poller(&queue, READ);
        send(&queue, 1, &[1; 100_000]);
        reader.assert_ok();
        assert_eq!(polled(fd, 0), READ);
        let mut buffer = vec![0; 100_000];
        queue.recv(&mut buffer, 0, NOWAIT, LATER).unwrap();
        assert_eq!(polled(fd, 0), WRITE);
    });
}

#[test]
fn a_removal_is_told() {
    isolated(|| {
        let queue = queue();
        queue.set_bytes_max(1).unwrap();
        let reader = poller(&queue, READ);
        send(&queue, 1, b"x");
        reader.assert_ok();
        let writer = poller(&queue, WRITE);
        let edges = Edges::of(&queue, EventFlags::OUT);
        edges.clear();
        fork(|| queue.remove().unwrap()).assert_ok();
        writer.assert_ok();
        assert!(edges.next(0).is_some());
        assert_eq!(queue.send(1, b"x", NOWAIT, LATER), Err(Errno::INVAL));
        let bells = queue.home.path().join("bell");
        assert_eq!(std::fs::read_dir(&bells).unwrap().count(), 0);
        assert_eq!(queue.home.collect(false).unwrap(), []);
        let other = super::queue();
        let opened = again(&other);
        other.remove().unwrap();
        assert_eq!(opened.descriptor().map(|_| ()), Err(Errno::IDRM));
        assert_eq!(std::fs::read_dir(other.home.path().join("bell")).unwrap().count(), 0);
    });
}

#[test]
fn who_polled_and_died_costs_nobody_anything_for_long() {
    isolated(|| {
        let queue = queue();
        fork(|| assert!(again(&queue).descriptor().is_ok())).assert_ok();
        let polled_word = || {
            let word = queue.segment().word64(ginnel_engine::segment::HEADER_BYTES + 0x20).unwrap();
            word.load(std::sync::atomic::Ordering::Relaxed) >> 63
        };
        assert_eq!(polled_word(), 1);
        send(&queue, 1, b"x");
        assert_eq!(polled_word(), 0, "found out by the first whose change was to be told");
        assert_eq!(shows(&queue), READ | WRITE, "and it can be asked for again");
    });
}

#[test]
fn a_queue_that_nobody_polls_has_no_fifo_and_one_left_behind_is_collected() {
    isolated(|| {
        let queue = queue();
        let bells = || std::fs::read_dir(queue.home.path().join("bell")).unwrap().count();
        send(&queue, 1, b"x");
        take(&queue, 0).unwrap();
        assert_eq!(bells(), 0);
        queue.descriptor().unwrap();
        assert_eq!(bells(), 1);
        assert_eq!(queue.home.collect(false).unwrap(), []);
        std::fs::remove_file(queue.home.path().join(format!("msg/i.{}", queue.id))).unwrap();
        let findings = queue.home.collect(false).unwrap();
        assert_eq!((findings.len(), findings[0].what, findings[0].removed), (1, What::Removed, true));
        assert_eq!(bells(), 0);
    });
}

#[test]
fn two_users_poll_what_the_mode_lets_both_use() {
    isolated(|| {
        // Shared by those who are forked from here on.
        number(1);
        let path = std::path::Path::new("/dev/shm/both");
        drop(Namespace::options().create(true).mode(0o1777).open(path).unwrap());
        let open = || Namespace::open(path).unwrap();
        let ours = SysvQueue::get(&open(), libc::IPC_PRIVATE, 0o600).unwrap();
        let shared = SysvQueue::get(&open(), libc::IPC_PRIVATE, 0o666).unwrap();
        let given = SysvQueue::get(&open(), libc::IPC_PRIVATE, 0o600).unwrap();
        let status = SysvQueue::status(&open(), given).unwrap();
        let change = Change { mode: 0o666, ..Change::none(&status) };
        SysvQueue::set(&open(), given, change).unwrap();
        assert_eq!(std::fs::read_dir(path.join("bell")).unwrap().count(), 2);
        as_user(1234, 1234, || {
            assert!(SysvQueue::open(&open(), ours).is_err());
        })
        .assert_ok();
        for id in [shared, given] {
            let queue = SysvQueue::open(&open(), id).unwrap();
            queue.descriptor().unwrap();
            let other = as_user(1234, 1234, || {
                let queue = SysvQueue::open(&open(), id).unwrap();
                let fd = queue.descriptor().unwrap();
                assert_eq!(polled(fd, 0), WRITE);
                queue.send(1, b"from the other", 0, Never).unwrap();
                assert_eq!(polled(fd, 15_000), READ | WRITE);
                number(1).store(1, std::sync::atomic::Ordering::SeqCst);
                wait_until("its owner has received it", || polled(fd, 0) == WRITE);
            });
            wait_until("it was told", || number(1).swap(0, std::sync::atomic::Ordering::SeqCst) == 1);
            assert_eq!(polled(queue.descriptor().unwrap(), 0), READ | WRITE);
            queue.recv(&mut [0; 64], 0, NOWAIT, Patience::None).unwrap();
            other.assert_ok();
        }
        // Taken back: who may not use it any more may not ask.
        let queue = as_user(1234, 1234, || {
            let queue = SysvQueue::open(&open(), given).unwrap();
            number(1).store(1, std::sync::atomic::Ordering::SeqCst);
            wait_until("it was taken back", || number(2).load(std::sync::atomic::Ordering::SeqCst) == 1);
            assert_eq!(queue.descriptor().map(|_| ()), Err(Errno::ACCESS));
        });
        wait_until("it is open", || number(1).load(std::sync::atomic::Ordering::SeqCst) == 1);
        SysvQueue::set(&open(), given, Change { mode: 0o600, ..change }).unwrap();
        number(2).store(1, std::sync::atomic::Ordering::SeqCst);
        queue.assert_ok();
        drop(std::fs::remove_dir_all(path));
    });
}

/// Kills `work` at each `stride`-th instruction; then the next who enters finds, or makes, the descriptor right.
fn killed_ringing(what: &str, prepare: impl Fn(&Queue), work: impl Fn(&SysvQueue), polls: bool) {
    let stride = super::common::stride_or(307);
    for steps in (0..).step_by(stride) {
        let queue = queue();
        queue.set_bytes_max(2).unwrap();
        let fd = queue.descriptor().unwrap();
        prepare(&queue);
        let other = again(&queue);
        let victim = Stepped::start(|| work(if polls { &queue } else { &other }));
        let in_work = (0..steps).all(|_| victim.step());
        victim.kill();
        let at = format!("{what}, killed after {steps} instructions");
        // The next one to come: `IPC_STAT`.
        let expected = match counts(&queue).0 {
            0 => WRITE,
            1 => READ | WRITE,
            _ => READ,
        };
        assert_eq!(polled(fd, 0), expected, "{at}");
        drain(&queue);
        assert_eq!(polled(fd, 0), WRITE, "{at}");
        if !in_work {
            return crash(&format!("msg: {what}"));
        }
    }
}

#[test]
fn who_is_killed_ringing_leaves_the_descriptor_right_for_the_next_to_come() {
    isolated_for(limit(), || {
        for polls in [false, true] {
            let once = |queue: &SysvQueue, kind| queue.send(kind, b"x", 0, Never).unwrap();
            killed_ringing(
                &format!("send and receive, ringing (polls: {polls})"),
                |_| (),
                |queue| {
                    once(queue, 1);
                    once(queue, 2);
                    queue.recv(&mut [0; 8], 2, NOWAIT, Never).unwrap();
                },
                polls,
            );
        }
    });
}

#[test]
fn who_is_killed_removing_leaves_it_to_the_next_to_tell() {
    isolated_for(limit(), || {
        for steps in 0.. {
            let queue = queue();
            queue.set_bytes_max(1).unwrap();
            let fd = queue.descriptor().unwrap();
            send(&queue, 1, b"x");
            assert_eq!(polled(fd, 0), READ);
            let victim = Stepped::start(|| queue.remove().unwrap());
            let in_work = (0..steps).all(|_| victim.step_call());
            victim.kill();
            let at = format!("killed after {steps} calls");
            // Whoever looks for it completes what was begun.
            let gone = SysvQueue::open(&queue.home, queue.id).is_err();
            let _: Result<_> = queue.status().map(drop);
            assert_eq!(polled(fd, 0), if gone { READ | WRITE } else { READ }, "{at}");
            drop(queue.home.collect(false).unwrap());
            let left = std::fs::read_dir(queue.home.path().join("bell")).unwrap().count();
            assert_eq!(left, usize::from(!gone), "{at}");
            if !in_work {
                assert!(gone);
                return crash("msg: remove, polled");
            }
        }
    });
}
