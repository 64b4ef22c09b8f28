//! The POSIX queue of the user-space home: what the man pages say and the kernel does, with real processes.
#![allow(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod kills;

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::message::posix_queue::{LARGE, Notification, PosixQueue, QueueLimits, Received};
use ginnel_engine::namespace::{Namespace, What};
use ginnel_engine::wait::Patience::{self, Endless, None as Never};
use ginnel_testkit::{Child, Exit, blocked_in, fork, isolated, wait_blocked_in, wait_until};

const BOTH: i32 = libc::O_RDWR;
const CREATE: i32 = libc::O_RDWR | libc::O_CREAT;

fn home() -> Namespace {
    Namespace::options().create(true).open_named("queues").unwrap()
}

fn path(name: &str) -> std::path::PathBuf {
    home().path().join(name)
}

fn limits(messages_max: u64, message_bytes_max: u64) -> Option<QueueLimits> {
    Some(QueueLimits { messages_max, message_bytes_max })
}

fn queue(messages_max: u64, message_bytes_max: u64) -> PosixQueue {
    let _ = PosixQueue::unlink(&home(), b"/queue");
    let flags = CREATE | libc::O_EXCL;
    PosixQueue::open(&home(), b"/queue", flags, 0o600, limits(messages_max, message_bytes_max)).unwrap()
}

fn again(flags: i32) -> Result<PosixQueue, Errno> {
    PosixQueue::open(&home(), b"/queue", flags, 0o600, None)
}

fn take(queue: &PosixQueue, patience: Patience) -> Result<(u32, Vec<u8>), Errno> {
    let mut buffer = vec![0; queue.attributes()?.limits.message_bytes_max as usize];
    let Received { priority, len } = queue.receive(&mut buffer, patience)?;
    buffer.truncate(len);
    Ok((priority, buffer))
}

fn count(queue: &PosixQueue) -> u64 {
    queue.attributes().unwrap().messages
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

fn past() -> Patience {
    Patience::Until(Instant::now())
}

/// A child that is blocked in the queue.
fn blocked(work: impl FnOnce()) -> Child {
    let child = fork(work);
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

#[test]
fn a_queue_is_made_opened_and_unlinked_by_the_rules() {
    isolated(|| {
        let open =
            |name: &[u8], flags, limits| PosixQueue::open(&home(), name, flags, 0o600, limits).map(drop);
        assert_eq!(open(b"/a", BOTH, None), Err(Errno::NOENT));
        assert_eq!(open(b"/a", CREATE, None), Ok(()));
        assert_eq!(open(b"/a", CREATE, limits(0, 0)), Ok(()), "the limits are for a new one");
        assert_eq!(open(b"/a", CREATE | libc::O_EXCL, None), Err(Errno::EXIST));
        assert_eq!(open(b"/a", BOTH | libc::O_EXCL, None), Ok(()));
        assert_eq!(open(b"/a", libc::O_ACCMODE, None), Err(Errno::INVAL));
        assert_eq!(open(b"/a", libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL, None), Err(Errno::EXIST));
        for (messages, bytes) in
            [(0, 1), (1, 0), (0, 0), (u64::MAX, 1), (1, u64::MAX), (65_537, 1), (1, (16 << 20) + 1)]
        {
            assert_eq!(
                open(b"/b", CREATE, limits(messages, bytes)),
                Err(Errno::INVAL),
                "{messages} x {bytes}"
            );
        }
        assert_eq!(
            open(b"/c", CREATE, limits(65_536, 16 << 20)),
            Ok(()),
            "what it may hold need not be there"
        );
        assert_eq!(PosixQueue::unlink(&home(), b"/c"), Ok(()));
        assert_eq!(open(b"/b", BOTH, None), Err(Errno::NOENT));
        assert_eq!(PosixQueue::unlink(&home(), b"/a"), Ok(()));
        assert_eq!(PosixQueue::unlink(&home(), b"/a"), Err(Errno::NOENT));
        for (name, errno) in [("jobs", Errno::INVAL), ("/", Errno::NOENT), ("/a/b", Errno::ACCESS)] {
            assert_eq!(open(name.as_bytes(), CREATE, None), Err(errno));
            assert_eq!(PosixQueue::unlink(&home(), name.as_bytes()), Err(errno));
        }
        for directory in ["mq", "bell"] {
            assert_eq!(std::fs::read_dir(path(directory)).unwrap().count(), 0, "nothing is left");
        }
    });
}

#[test]
fn what_is_no_queue_is_refused() {
    isolated(|| {
        std::fs::write(path("mq/text"), vec![b'x'; 20_000]).unwrap();
        assert_eq!(PosixQueue::open(&home(), b"/text", BOTH, 0, None).err(), Some(Errno::UCLEAN));
        std::os::unix::fs::symlink("queue", path("mq/link")).unwrap();
        drop(queue(1, 1));
        assert_eq!(PosixQueue::open(&home(), b"/link", BOTH, 0, None).err(), Some(Errno::UCLEAN));
    });
}

#[test]
fn the_umask_takes_its_part_of_the_mode() {
    isolated(|| {
        drop(home());
        fork(|| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
            PosixQueue::open(&home(), b"/modes", CREATE, 0o666, None).unwrap();
            use std::os::unix::fs::PermissionsExt;
            for directory in ["mq", "bell"] {
                let entry = std::fs::read_dir(path(directory)).unwrap().next().unwrap();
                assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o640);
            }
        })
        .assert_ok();
    });
}

#[test]
fn the_highest_priority_first_and_in_order_within() {
    isolated(|| {
        let queue = queue(1000, 8);
        let priorities = [0, 5, 32767, 5, 511, 512, 0, 63, 64, 5, 32767, 1023, 16384, 0];
        let mut sent = Vec::new();
        for (number, priority) in priorities.into_iter().enumerate() {
            queue.send(priority, &[number as u8], Never).unwrap();
            sent.push((priority, vec![number as u8]));
        }
        assert_eq!(count(&queue), 14);
        assert_eq!(queue.attributes().unwrap().bytes, 14);
        sent.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        for message in sent {
            assert_eq!(take(&queue, Never).unwrap(), message);
        }
        assert_eq!(take(&queue, Never), Err(Errno::AGAIN));
        assert_eq!(queue.attributes().unwrap().bytes, 0);
    });
}

#[test]
fn random_sends_and_receives_are_those_of_a_sorted_list() {
    isolated(|| {
        for (max, bytes, spread) in
            [(1, 64, 3), (10, 200, 4), (500, 64, 32768), (70, 20_000, 1000), (9, 90_000, 2)]
        {
            let queue = queue(max, bytes);
            let mut list: Vec<(u32, Vec<u8>)> = Vec::new();
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            for step in 0..20_000_u32 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let priority = (random >> 40) as u32 % spread;
                if random >> 63 == 0 {
                    let len = if step % 50 == 0 { bytes } else { (random >> 20) % bytes.min(100) };
                    let message = vec![step as u8; len as usize];
                    let sent = queue.send(priority, &message, Never);
                    if list.len() as u64 == max {
                        assert_eq!(sent, Err(Errno::AGAIN));
                    } else {
                        assert_eq!(sent, Ok(()));
                        list.push((priority, message));
                    }
                } else {
                    let first = list
                        .iter()
                        .enumerate()
                        .max_by_key(|(at, (priority, _))| (*priority, usize::MAX - at));
                    match first.map(|(at, _)| at) {
                        Some(at) => assert_eq!(take(&queue, Never).unwrap(), list.remove(at)),
                        None => assert_eq!(take(&queue, Never), Err(Errno::AGAIN)),
                    }
                }
                if step % 1000 == 0 {
                    let bytes: usize = list.iter().map(|(_, message)| message.len()).sum();
                    let now = queue.attributes().unwrap();
                    assert_eq!((now.messages, now.bytes), (list.len() as u64, bytes as u64));
                }
            }
        }
    });
}

#[test]
fn a_call_that_is_not_allowed_has_the_kernels_errno() {
    isolated(|| {
        let queue = queue(2, 8);
        let (reader, writer) = (again(libc::O_RDONLY).unwrap(), again(libc::O_WRONLY).unwrap());
        assert_eq!(writer.send(32768, b"", Never), Err(Errno::INVAL));
        assert_eq!(reader.send(32768, b"123456789", Never), Err(Errno::INVAL), "before all else");
        assert_eq!(reader.send(0, b"123456789", Never), Err(Errno::BADF), "before the length");
        assert_eq!(writer.send(0, b"123456789", Never), Err(Errno::MSGSIZE));
        assert_eq!(writer.send(32767, b"12345678", Never), Ok(()));
        assert_eq!(writer.send(0, b"", Never), Ok(()));
        assert_eq!(writer.send(0, b"123456789", Never), Err(Errno::MSGSIZE), "before being full");
        assert_eq!(writer.send(0, b"", Never), Err(Errno::AGAIN));
        assert_eq!(writer.send(0, b"", past()), Err(Errno::TIMEDOUT));
        assert_eq!(writer.receive(&mut [0; 7], Never), Err(Errno::BADF));
        assert_eq!(reader.receive(&mut [0; 7], Never), Err(Errno::MSGSIZE), "however short the message");
        assert_eq!(
            reader.receive(&mut [0; 9], past()),
            Ok(Received { priority: 32767, len: 8 }),
            "there was one"
        );
        assert_eq!(reader.receive(&mut [0; 8], Never), Ok(Received { priority: 0, len: 0 }));
        assert_eq!(reader.receive(&mut [0; 8], Never), Err(Errno::AGAIN));
        assert_eq!(reader.receive(&mut [0; 8], past()), Err(Errno::TIMEDOUT));
        assert_eq!(writer.send(0, b"", past()), Ok(()), "there is room");
        assert_eq!(count(&queue), 1);
    });
}

#[test]
fn a_deadline_ends_the_wait_and_not_before() {
    isolated(|| {
        let queue = queue(1, 8);
        for full in [false, true] {
            let until = Instant::now() + Duration::from_millis(60);
            let outcome = match full {
                false => take(&queue, Patience::Until(until)).map(drop),
                true => queue.send(0, b"second", Patience::Until(until)),
            };
            assert_eq!(outcome, Err(Errno::TIMEDOUT));
            assert!(Instant::now() >= until);
            let _ = queue.send(0, b"first", Never);
        }
        assert_eq!(take(&queue, Never).unwrap(), (0, b"first".to_vec()));
        assert_eq!(take(&queue, Never), Err(Errno::AGAIN), "what timed out was not sent");
    });
}

#[test]
fn nonblocking_belongs_to_the_open_queue_and_a_fork_shares_it() {
    isolated(|| {
        let queue = queue(1, 8);
        let other = again(BOTH | libc::O_NONBLOCK).unwrap();
        assert_eq!(queue.attributes().unwrap().flags, 0);
        assert_eq!(other.attributes().unwrap().flags, libc::O_NONBLOCK);
        assert_eq!(take(&other, Endless), Err(Errno::AGAIN));
        assert_eq!(take(&other, soon()), Err(Errno::AGAIN), "a deadline is no matter");
        assert_eq!(queue.set_flags(libc::O_NONBLOCK | libc::O_APPEND), Err(Errno::INVAL));
        fork(|| queue.set_flags(libc::O_NONBLOCK).unwrap()).assert_ok();
        assert_eq!(queue.attributes().unwrap().flags, libc::O_NONBLOCK);
        assert_eq!(take(&queue, Endless), Err(Errno::AGAIN));
        other.set_flags(0).unwrap();
        assert_eq!(other.attributes().unwrap().flags, 0);
        assert_eq!(take(&other, past()), Err(Errno::TIMEDOUT));
    });
}

#[test]
fn an_unlinked_queue_lives_on_for_its_users_and_its_name_is_free() {
    isolated(|| {
        let old = queue(1, 8);
        let child = blocked(|| assert_eq!(take(&old, Endless).unwrap().1, b"old"));
        let new = queue(2, 16);
        assert_eq!(take(&new, Never), Err(Errno::AGAIN));
        old.descriptor().unwrap();
        old.send(0, b"old", Never).unwrap();
        child.assert_ok();
        assert_eq!((count(&old), count(&new)), (0, 0));
    });
}

#[test]
fn a_message_goes_straight_to_the_receiver_that_came_first() {
    isolated(|| {
        let queue = queue(10, 8);
        let receivers: Vec<_> = (0..3)
            .map(|number: u8| {
                blocked(|| assert_eq!(take(&queue, Endless).unwrap(), (number.into(), vec![number])))
            })
            .collect();
        for number in 0..3 {
            queue.send(number.into(), &[number], Never).unwrap();
            assert_eq!(count(&queue), 0, "it is nobody else's");
            assert_eq!(take(&queue, Never), Err(Errno::AGAIN));
        }
        receivers.into_iter().for_each(|receiver| receiver.assert_ok());
    });
}

#[test]
fn blocked_senders_are_served_in_their_order_and_their_messages_by_priority() {
    isolated(|| {
        for bytes in [8, 2 * LARGE] {
            let queue = queue(2, bytes as u64);
            let message = |first: u8| {
                let mut message = vec![7; bytes];
                message[0] = first;
                message
            };
            queue.send(5, &message(0), Never).unwrap();
            queue.send(5, &message(1), Never).unwrap();
            let senders: Vec<_> = [(2, 9), (3, 0), (4, 32767)]
                .map(|(number, priority)| {
                    blocked(|| queue.send(priority, &message(number), Endless).unwrap())
                })
                .into_iter()
                .collect();
            assert_eq!(count(&queue), 2);
            // Each makes room for one, who puts its message where its priority says.
            for (priority, number) in [(5, 0), (9, 2), (5, 1), (32767, 4), (0, 3)] {
                assert!(take(&queue, Never).unwrap() == (priority, message(number)), "{number}");
            }
            senders.into_iter().for_each(|sender| sender.assert_ok());
            assert_eq!(count(&queue), 0);
        }
    });
}

static SIGNALS: AtomicI32 = AtomicI32::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_signal_ends_the_wait_and_nothing_was_done() {
    isolated(|| {
        for bytes in [8, 3 * LARGE] {
            let queue = queue(1, bytes as u64);
            let work = |full: bool| {
                common::handle(libc::SIGUSR1, count_signal);
                let outcome = if full {
                    queue.send(1, &vec![1; bytes], Endless)
                } else {
                    take(&queue, Endless).map(drop)
                };
                assert_eq!(outcome, Err(Errno::INTR));
            };
            let receiver = blocked(|| work(false));
            receiver.signal(libc::SIGUSR1);
            receiver.assert_ok();
            queue.send(0, b"x", Never).unwrap();
            let sender = blocked(|| work(true));
            sender.signal(libc::SIGUSR1);
            sender.assert_ok();
            assert_eq!(take(&queue, Never).unwrap(), (0, b"x".to_vec()));
            assert_eq!(take(&queue, Never), Err(Errno::AGAIN));
        }
    });
}

#[test]
fn who_is_killed_while_blocked_leaves_no_trace() {
    isolated(|| {
        for bytes in [8, 3 * LARGE] {
            let queue = queue(1, bytes as u64);
            let message = |value: u8| vec![value; bytes];
            // One slot more than the queue needs would be used each time if one were lost.
            for _ in 0..20 {
                let receivers = [(); 2].map(|()| blocked(|| drop(take(&queue, Endless))));
                for receiver in receivers {
                    receiver.kill();
                    assert_eq!(receiver.wait(), Exit::Signal(libc::SIGKILL));
                }
                queue.send(0, &message(1), Never).unwrap();
                assert_eq!(count(&queue), 1, "nobody waits for it");
                let senders = [(); 2].map(|()| blocked(|| queue.send(0, &message(2), Endless).unwrap()));
                for sender in senders {
                    sender.kill();
                    assert_eq!(sender.wait(), Exit::Signal(libc::SIGKILL));
                }
                assert!(take(&queue, Never).unwrap().1 == message(1));
                assert_eq!(take(&queue, Never), Err(Errno::AGAIN), "a killed sender's message was not sent");
            }
        }
    });
}

#[test]
fn many_processes_pass_each_message_once() {
    isolated(|| {
        for bytes in [16, 2 * LARGE] {
            const SENDERS: u64 = 4;
            const EACH: u64 = 400;
            let queue = queue(3, bytes as u64);
            let (result_reader, result_writer) = std::io::pipe().unwrap();
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let queue = &queue;
                    fork(move || {
                        for number in 0..EACH {
                            let mut message = vec![sender as u8; bytes];
                            message[..8].copy_from_slice(&(sender << 32 | number).to_le_bytes());
                            queue.send((number % 3) as u32, &message, Endless).unwrap();
                        }
                    })
                })
                .collect();
            let receivers: Vec<_> = (0..3)
                .map(|_| {
                    fork(|| {
                        loop {
                            let (_, message) = take(&queue, Endless).unwrap();
                            if message.is_empty() {
                                break;
                            }
                            assert!(message[8..].iter().all(|byte| *byte == message[4]), "a mixture");
                            std::io::Write::write_all(&mut &result_writer, &message[..8]).unwrap();
                        }
                    })
                })
                .collect();
            let mut seen = vec![false; (SENDERS * EACH) as usize];
            for _ in 0..SENDERS * EACH {
                let mut number = [0; 8];
                std::io::Read::read_exact(&mut &result_reader, &mut number).unwrap();
                let number = u64::from_le_bytes(number);
                let place = ((number >> 32) * EACH + (number & 0xffff_ffff)) as usize;
                assert!(!std::mem::replace(&mut seen[place], true), "twice");
            }
            receivers.iter().for_each(|_| queue.send(0, b"", soon()).unwrap());
            senders.into_iter().chain(receivers).for_each(|child| child.assert_ok());
            assert_eq!(count(&queue), 0);
        }
    });
}

#[test]
fn an_empty_queue_has_little_memory_and_a_large_one_gives_it_back() {
    isolated(|| {
        use std::os::linux::fs::MetadataExt;
        let resident = || std::fs::metadata(path("mq/queue")).unwrap().st_blocks() * 512;
        for (messages, bytes) in [(60_000, 200), (64, 1 << 20), (10, 8192), (4000, 8192)] {
            let queue = queue(messages, bytes);
            assert!(resident() <= 16 << 10, "{} bytes of an empty queue", resident());
            for round in 0..3 {
                let message = vec![round; bytes as usize];
                for number in 0..messages {
                    queue.send(number as u32 % 7, &message, Never).unwrap();
                }
                assert!(resident() >= messages * bytes);
                assert!(resident() <= messages * (bytes + 4200) + (1 << 21), "{}", resident());
                for _ in 0..messages {
                    assert!(take(&queue, Never).unwrap().1 == message);
                }
                let kept = (1 << 20) + 4 * bytes + (64 << 10);
                assert!(resident() <= kept, "{} bytes of {messages} x {bytes} left", resident());
            }
        }
    });
}

#[test]
fn a_full_file_system_is_an_errno_and_the_queue_goes_on() {
    isolated(|| {
        std::fs::create_dir("/dev/shm/small").unwrap();
        rustix::mount::mount(
            "small",
            "/dev/shm/small",
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            c"size=1m",
        )
        .unwrap();
        let small = Namespace::options().create(true).open("/dev/shm/small/queues").unwrap();
        for bytes in [1000, 100_000] {
            let _ = PosixQueue::unlink(&small, b"/queue");
            let queue = PosixQueue::open(&small, b"/queue", CREATE, 0o600, limits(5000, bytes)).unwrap();
            let message = vec![9; bytes as usize];
            let mut sent = 0;
            let errno = loop {
                match queue.send(sent % 4, &message, Never) {
                    Ok(()) => sent += 1,
                    Err(errno) => break errno,
                }
            };
            assert_eq!(errno, Errno::NOMEM);
            assert!(u64::from(sent) * bytes > 700_000, "{sent}");
            assert_eq!(count(&queue), sent.into());
            assert_eq!(take(&queue, Never).unwrap(), (3, message.clone()));
            queue.send(3, &message, Never).unwrap();
            assert_eq!(queue.send(3, &message, Never), Err(Errno::NOMEM));
        }
    });
}

static VALUE: AtomicU64 = AtomicU64::new(0);
static FROM: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_signal(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a whole siginfo_t.
    unsafe {
        VALUE.store((*info).si_value().sival_ptr.addr() as u64, Ordering::SeqCst);
        FROM.store((*info).si_pid(), Ordering::SeqCst);
        CODE.store((*info).si_code, Ordering::SeqCst);
    }
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

fn note_signals(signal: i32) {
    // SAFETY: all zeroes is a valid sigaction; the handler only writes atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
    SIGNALS.store(0, Ordering::SeqCst);
}

fn signals() -> i32 {
    SIGNALS.load(Ordering::SeqCst)
}

const BY_SIGNAL: Notification = Notification::Signal { signal: 10, value: 42 };

#[test]
fn a_notice_comes_once_on_empty_to_not_empty_from_the_sender() {
    isolated(|| {
        note_signals(libc::SIGUSR1);
        let queue = queue(10, 8);
        queue.send(0, b"before", Never).unwrap();
        queue.notify(BY_SIGNAL).unwrap();
        assert_eq!(queue.registered_process().unwrap(), Some(std::process::id()));
        queue.send(0, b"second", Never).unwrap();
        assert_eq!(signals(), 0);
        take(&queue, Never).unwrap();
        take(&queue, Never).unwrap();
        let sender = fork(|| queue.send(0, b"first", Never).unwrap());
        let pid = sender.pid();
        sender.assert_ok();
        wait_until("the notice", || signals() == 1);
        assert_eq!((VALUE.load(Ordering::SeqCst), FROM.load(Ordering::SeqCst)), (42, pid));
        assert_eq!(CODE.load(Ordering::SeqCst), -3, "SI_MESGQ");
        assert_eq!(queue.registered_process().unwrap(), None);
        take(&queue, Never).unwrap();
        queue.send(0, b"again", Never).unwrap();
        assert_eq!(signals(), 1, "once");
        take(&queue, Never).unwrap();
        queue.notify(BY_SIGNAL).unwrap();
        queue.send(0, b"own", Never).unwrap();
        wait_until("the notice", || signals() == 2);
        assert_eq!(FROM.load(Ordering::SeqCst), std::process::id() as i32);
    });
}

#[test]
fn no_notice_for_what_a_blocked_receiver_gets_nor_for_what_a_blocked_sender_had() {
    isolated(|| {
        note_signals(libc::SIGUSR1);
        let queue = queue(1, 8);
        queue.notify(BY_SIGNAL).unwrap();
        let receiver = blocked(|| drop(take(&queue, Endless).unwrap()));
        queue.send(0, b"direct", Never).unwrap();
        receiver.assert_ok();
        assert_eq!(signals(), 0);
        assert_eq!(queue.registered_process().unwrap(), Some(std::process::id()));
        queue.cancel_notify().unwrap();
        queue.send(0, b"first", Never).unwrap();
        queue.notify(BY_SIGNAL).unwrap();
        let sender = blocked(|| queue.send(0, b"second", Endless).unwrap());
        assert_eq!(take(&queue, Never).unwrap().1, b"first");
        sender.assert_ok();
        assert_eq!((count(&queue), signals()), (1, 0), "it came while the queue was full");
        take(&queue, Never).unwrap();
        queue.send(0, b"third", Never).unwrap();
        wait_until("the notice", || signals() == 1);
    });
}

#[test]
fn one_process_is_registered_until_it_ends_it_by_any_means() {
    isolated(|| {
        let queue = queue(10, 8);
        assert_eq!(queue.notify(Notification::Signal { signal: 65, value: 0 }), Err(Errno::INVAL));
        queue.notify(Notification::Nothing).unwrap();
        assert_eq!(queue.notify(BY_SIGNAL), Err(Errno::BUSY), "also of the same process");
        fork(|| {
            assert_eq!(queue.notify(BY_SIGNAL), Err(Errno::BUSY));
            queue.cancel_notify().unwrap();
            drop(again(BOTH).unwrap());
        })
        .assert_ok();
        assert_eq!(queue.notify(BY_SIGNAL), Err(Errno::BUSY), "another's cannot be taken back");
        queue.send(0, b"x", Never).unwrap();
        take(&queue, Never).unwrap();
        queue.notify(BY_SIGNAL).expect("no signal, but a notice all the same");
        queue.cancel_notify().unwrap();
        queue.cancel_notify().unwrap();
        queue.notify(BY_SIGNAL).unwrap();
        drop(again(BOTH).unwrap());
        queue.notify(BY_SIGNAL).expect("closing any handle ended it");
        queue.cancel_notify().unwrap();
        let child = fork(|| {
            queue.notify(BY_SIGNAL).unwrap();
            common::pause_for_ever();
        });
        wait_until("it is registered", || queue.registered_process().unwrap() == Some(child.pid() as u32));
        assert_eq!(queue.notify(BY_SIGNAL), Err(Errno::BUSY));
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(queue.registered_process().unwrap(), None);
        queue.notify(BY_SIGNAL).expect("it is dead");
    });
}

#[test]
fn a_thread_is_told_by_its_return() {
    isolated(|| {
        let queue = queue(10, 8);
        let registration = queue.notify(Notification::Thread).unwrap();
        assert_eq!(queue.wait_notice(registration, Never), Err(Errno::AGAIN));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.wait_notice(registration, soon()));
            wait_until("it is blocked, or was told", || waiter.is_finished() || count(&queue) == 0);
            queue.send(0, b"x", Never).unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(true));
        });
        assert_eq!(queue.wait_notice(registration, Never), Ok(true), "also later");
        let second = queue.notify(Notification::Thread).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.wait_notice(second, soon()));
            queue.cancel_notify().unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(false), "taken back");
        });
        let third = queue.notify(Notification::Nothing).unwrap();
        assert_eq!(queue.wait_notice(registration, Never), Ok(true));
        assert_eq!(queue.wait_notice(second, Never), Ok(false));
        take(&queue, Never).unwrap();
        fork(|| queue.send(0, b"x", Never).unwrap()).assert_ok();
        assert_eq!(queue.wait_notice(third, Never), Ok(true));
    });
}

fn polled(queue: &PosixQueue) -> i16 {
    let mut fd = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&queue.descriptor().unwrap()),
        events: libc::POLLIN | libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd, ours to write.
    assert!(unsafe { libc::poll(&mut fd, 1, 0) } >= 0);
    fd.revents
}

#[test]
fn the_descriptor_shows_what_the_queue_can_do() {
    isolated(|| {
        let (read, write) = (libc::POLLIN, libc::POLLOUT);
        let queue = queue(3, 8);
        assert_eq!(polled(&queue), write);
        for expected in [read | write, read | write, read] {
            fork(|| queue.send(0, b"x", Never).unwrap()).assert_ok();
            assert_eq!(polled(&queue), expected);
        }
        let other = again(BOTH).unwrap();
        assert_eq!(polled(&other), read, "asked for when it was full");
        for expected in [read | write, read | write, write] {
            take(&queue, Never).unwrap();
            assert_eq!((polled(&queue), polled(&other)), (expected, expected));
        }
        let one = self::queue(1, 8);
        assert_eq!(polled(&one), write);
        one.send(0, b"x", Never).unwrap();
        assert_eq!(polled(&one), read);
        // Others, who never asked, and who have it by its name.
        fork(|| drop(take(&again(BOTH).unwrap(), Never).unwrap())).assert_ok();
        assert_eq!(polled(&one), write);
    });
}

#[test]
fn epoll_waits_for_two_queues_and_a_pipe() {
    isolated(|| {
        let first = queue(2, 8);
        let second = PosixQueue::open(&home(), b"/second", CREATE, 0o600, limits(2, 8)).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let add = |fd: std::os::fd::BorrowedFd<'_>, number| {
            use rustix::event::epoll::{EventData, EventFlags};
            rustix::event::epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN).unwrap();
        };
        add(first.descriptor().unwrap(), 1);
        add(second.descriptor().unwrap(), 2);
        add(std::os::fd::AsFd::as_fd(&reader), 3);
        let mut events = Vec::with_capacity(4);
        let mut wait = |limit: i64| {
            let limit = rustix::event::Timespec { tv_sec: limit, tv_nsec: 0 };
            let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let limit = if limit.tv_sec == 0 { none } else { limit };
            events.clear();
            rustix::event::epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit))
                .unwrap();
            let mut found: Vec<_> = events.iter().map(|event| event.data.u64()).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(wait(0), []);
        let waiting = rustix::thread::gettid().as_raw_nonzero().get();
        let sender = fork(|| {
            let calls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
            wait_until("the other sleeps", || calls.iter().any(|call| blocked_in(waiting, *call)));
            again(libc::O_WRONLY).unwrap().send(0, b"x", Never).unwrap();
        });
        assert_eq!(wait(15), [1]);
        sender.assert_ok();
        second.send(1, b"y", Never).unwrap();
        std::io::Write::write_all(&mut &writer, b"z").unwrap();
        assert_eq!(wait(0), [1, 2, 3]);
        take(&first, Never).unwrap();
        take(&second, Never).unwrap();
        assert_eq!(wait(0), [3]);
    });
}

#[test]
fn who_polled_and_died_costs_nobody_anything_for_long() {
    isolated(|| {
        let queue = queue(3, 8);
        let poller = fork(|| {
            again(BOTH).unwrap().descriptor().unwrap();
        });
        poller.assert_ok();
        queue.send(0, b"x", Never).unwrap();
        take(&queue, Never).unwrap();
        // Nobody polls: the two above have found it out, so this one makes no system call.
        let fifos = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap();
            entries.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok()).count()
        };
        let before = fifos();
        queue.send(0, b"x", Never).unwrap();
        assert_eq!(fifos(), before);
        assert_eq!(polled(&queue), libc::POLLIN | libc::POLLOUT, "and it can be asked for again");
    });
}

#[test]
fn a_fifo_that_was_left_behind_is_collected_and_one_that_is_missing_made_again() {
    isolated(|| {
        let old = queue(3, 8);
        let bell = || std::fs::read_dir(path("bell")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(home().collect(false).unwrap(), []);
        std::fs::remove_file(path("mq/queue")).unwrap();
        let findings = home().collect(false).unwrap();
        assert_eq!((findings.len(), findings[0].what, findings[0].removed), (1, What::Removed, true));
        assert_eq!(std::fs::read_dir(path("bell")).unwrap().count(), 0);
        assert_eq!(polled(&old), libc::POLLOUT, "who has it open keeps it");
        drop(queue(3, 8));
        let name = bell();
        std::fs::remove_file(&name).unwrap();
        drop(again(BOTH).unwrap());
        assert_eq!(bell(), name);
    });
}
