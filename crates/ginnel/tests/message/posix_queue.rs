//! POSIX queues: priorities, the three forms, limits, names, notices, and C at the other end.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use ginnel::Namespace;
use ginnel::message::PosixQueue;
use ginnel::message::posix_queue::PRIORITIES;
use ginnel::namespace::Limits;
use ginnel_testkit::{
    Exit, Objects, c_program, fork, isolated, run_ok, spawn, unprivileged, wait_blocked_in, wait_until,
};

use crate::common::{
    LONG, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out, interrupt_by,
};
use crate::homes::{in_both_homes, sleeping, wait_blocked};

const NAME: &str = "/ginnel";

fn small(home: &Namespace, messages_max: usize) -> PosixQueue {
    PosixQueue::options()
        .namespace(home)
        .create_new(true)
        .messages_max(messages_max)
        .message_bytes_max(64)
        .open(NAME)
        .unwrap()
}

fn take(queue: &PosixQueue) -> (u32, String) {
    let message = queue.recv_vec_deadline(LONG).unwrap();
    (message.priority, String::from_utf8(message.payload).unwrap())
}

#[test]
fn the_highest_priority_comes_first_and_within_it_the_oldest() {
    in_both_homes(|home| {
        let queue = PosixQueue::create_in(home, NAME).unwrap();
        for (priority, text) in [(1, "a"), (5, "b"), (0, "c"), (5, "d"), (PRIORITIES - 1, "e"), (1, "")] {
            queue.send(priority, text.as_bytes()).unwrap();
        }
        let got: Vec<_> = (0..6).map(|_| take(&queue)).collect();
        let texts: Vec<_> = got.iter().map(|(priority, text)| (*priority, text.as_str())).collect();
        assert_eq!(texts, [(PRIORITIES - 1, "e"), (5, "b"), (5, "d"), (1, "a"), (1, ""), (0, "c")]);
        let error = assert_fails("EINVAL", queue.send(PRIORITIES, b"x"));
        assert!(error.hint().unwrap().contains("32767"), "{error}");
    });
}

#[test]
fn the_three_forms() {
    in_both_homes(|home| {
        let queue = small(home, 1);
        let mut buffer = [0; 64];
        assert!(assert_fails("EAGAIN", queue.try_recv(&mut buffer)).is_would_block());
        assert_times_out(|limit| queue.recv_deadline(&mut buffer, limit));
        let receiver = fork(|| assert_eq!(take(&queue), (3, "wake up".into())));
        wait_blocked(home, receiver.pid(), libc::SYS_mq_timedreceive);
        queue.try_send(3, b"wake up").unwrap();
        receiver.assert_ok();

        queue.send(0, b"fills it").unwrap();
        assert!(assert_fails("EAGAIN", queue.try_send(0, b"x")).is_would_block());
        assert_times_out(|limit| queue.send_deadline(0, b"x", limit));
        let sender = fork(|| queue.send(1, b"after").unwrap());
        wait_blocked(home, sender.pid(), libc::SYS_mq_timedsend);
        assert_eq!(take(&queue).1, "fills it");
        sender.assert_ok();
        assert_eq!(take(&queue).1, "after");
        // The open queue was never made non-blocking: whoever shares it still blocks.
        if home.is_kernel() {
            assert_eq!(rustix_flags(&queue) & libc::O_NONBLOCK, 0);
        }
    });
}

fn rustix_flags(fd: impl AsFd) -> i32 {
    // SAFETY: F_GETFL takes no pointer.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

#[test]
fn all_forms_keep_their_word_when_a_sharer_has_set_o_nonblock() {
    isolated(|| {
        let home = &Namespace::kernel();
        let queue = small(home, 1);
        // SAFETY: F_SETFL takes no pointer.
        unsafe { libc::fcntl(queue.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK) };
        assert_fails("EAGAIN", queue.try_recv(&mut [0; 64]));
        assert_times_out(|limit| queue.recv_deadline(&mut [0; 64], limit));
        let receiver = fork(|| {
            queue.recv(&mut [0; 64]).unwrap();
        });
        wait_blocked_in(receiver.pid(), libc::SYS_ppoll);
        queue.send(1, b"x").unwrap();
        receiver.assert_ok();
    });
}

#[test]
fn signals_interrupt_and_kill() {
    in_both_homes(|home| {
        let queue = small(home, 1);
        assert_interrupted(sleeping(home, libc::SYS_mq_timedreceive), || queue.recv(&mut [0; 64]));
        assert_interrupted(sleeping(home, libc::SYS_mq_timedreceive), || {
            queue.recv_deadline(&mut [0; 64], LONG)
        });
        let receiver = fork(|| drop(queue.recv_vec()));
        wait_blocked(home, receiver.pid(), libc::SYS_mq_timedreceive);
        receiver.kill();
        assert_eq!(receiver.wait(), Exit::Signal(libc::SIGKILL));
        queue.send(0, b"safe").unwrap();
        assert_interrupted(sleeping(home, libc::SYS_mq_timedsend), || queue.send(0, b"x"));
        assert_eq!(queue.status().unwrap().messages, 1);
        assert_eq!(take(&queue).1, "safe");
    });
}

#[test]
fn sizes_are_checked_and_named() {
    in_both_homes(|home| {
        let queue = small(home, 2);
        assert_eq!(queue.message_bytes_max(), 64);
        let error = assert_fails("EMSGSIZE", queue.send(0, &[0; 65]));
        assert!(
            error.hint().unwrap().contains("65 bytes") && error.hint().unwrap().contains("64"),
            "{error}"
        );
        queue.send(0, &[9; 64]).unwrap();
        let error = assert_fails("EMSGSIZE", queue.recv(&mut [0; 63]));
        assert!(error.hint().unwrap().contains("needs 64"), "{error}");
        let status = queue.status().unwrap();
        assert_eq!((status.messages, status.bytes, status.messages_max), (1, Some(64), 2));
        assert_eq!(queue.recv_vec().unwrap().payload, [9; 64]);
    });
}

#[test]
fn names_are_opened_as_files_are() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let error = assert_fails("ENOENT", PosixQueue::open_in(home, NAME));
        assert_eq!(error.object(), "posix-mq:/ginnel");
        let queue = PosixQueue::options().namespace(home).create_new(true).mode(0o640).open(NAME).unwrap();
        assert_fails("EEXIST", PosixQueue::options().namespace(home).create_new(true).open(NAME));
        queue.send(1, b"still here").unwrap();
        drop(queue);
        assert_eq!(PosixQueue::list_in(home).unwrap(), [NAME]);
        let queue = PosixQueue::create_in(home, NAME).unwrap();
        PosixQueue::remove_in(home, NAME).unwrap();
        assert_eq!(take(&queue).1, "still here", "who has it open goes on");
        assert_fails("ENOENT", PosixQueue::remove_in(home, NAME));
        assert_fails("ENOENT", PosixQueue::open_in(home, NAME));
        for (name, errno) in [
            ("jobs", "EINVAL"),
            ("", "EINVAL"),
            ("/", "ENOENT"),
            ("/a/b", "EACCES"),
            ("//a", "EACCES"),
            ("/a\0b", "EINVAL"),
            (&format!("/{}", "x".repeat(256)), "ENAMETOOLONG"),
        ] {
            assert!(assert_fails(errno, PosixQueue::create_in(home, name)).hint().is_some(), "{name}");
            assert!(assert_fails(errno, PosixQueue::remove_in(home, name)).hint().is_some(), "{name}");
        }
        let longest = format!("/{}", "x".repeat(255));
        PosixQueue::create_in(home, &longest).unwrap();
        PosixQueue::remove_in(home, &longest).unwrap();
        before.assert_same();
    });
}

#[test]
fn reading_and_writing_only() {
    in_both_homes(|home| {
        let queue = small(home, 2);
        let reader = PosixQueue::options().namespace(home).write(false).open(NAME).unwrap();
        let writer = PosixQueue::options().namespace(home).read(false).open(NAME).unwrap();
        assert!(assert_fails("EBADF", reader.send(0, b"x")).hint().unwrap().contains("reading"));
        assert!(assert_fails("EBADF", writer.recv(&mut [0; 64])).hint().unwrap().contains("writing"));
        writer.send(0, b"x").unwrap();
        assert_eq!(writer.status().unwrap().bytes, if home.is_kernel() { None } else { Some(1) });
        assert_eq!(reader.status().unwrap().bytes, Some(1));
        take(&reader);
        assert_fails("EINVAL", PosixQueue::options().namespace(home).read(false).write(false).open(NAME));
        drop(queue);
    });
}

#[test]
fn limits_are_named_when_they_are_hit() {
    isolated(|| {
        let attempt = |messages, bytes| {
            PosixQueue::options().create(true).messages_max(messages).message_bytes_max(bytes).open(NAME)
        };
        // Root may exceed the first two, up to the kernel's hard limit; nobody else may.
        unprivileged(|| {
            let error = assert_fails("EINVAL", attempt(11, 64));
            assert!(error.hint().unwrap().contains("fs.mqueue.msg_max is 10"), "{error}");
            let error = assert_fails("EINVAL", attempt(10, 8193));
            assert!(error.hint().unwrap().contains("fs.mqueue.msgsize_max is 8192"), "{error}");
            assert!(assert_fails("EINVAL", attempt(0, 64)).hint().unwrap().contains("at least 1"));
        })
        .assert_ok();
        std::fs::write("/proc/sys/fs/mqueue/msg_max", "1000").unwrap();
        let error = assert_fails("EMFILE", attempt(1000, 8192));
        assert!(error.hint().unwrap().contains("RLIMIT_MSGQUEUE (819200 bytes"), "{error}");
        let queue = attempt(500, 64).unwrap();
        (0..500).for_each(|n| queue.try_send(n % 7, &n.to_ne_bytes()).unwrap());
        assert_fails("EAGAIN", queue.try_send(0, b""));

        std::fs::write("/proc/sys/fs/mqueue/queues_max", "1").unwrap();
        unprivileged(|| {
            let error = assert_fails("ENOSPC", PosixQueue::create("/another"));
            assert!(error.hint().unwrap().contains("fs.mqueue.queues_max is 1"), "{error}");
        })
        .assert_ok();
        PosixQueue::remove(NAME).unwrap();
    });
}

#[test]
fn the_limits_of_a_user_space_home_are_its_own() {
    isolated(|| {
        let limits = Limits {
            msg_max: 20,
            msgsize_max: 100,
            msg_default: 3,
            msgsize_default: 50,
            ..Limits::default()
        };
        let home = Namespace::options().create(true).limits(limits).open("limited").unwrap();
        let attempt = |messages, bytes| {
            let options = PosixQueue::options().namespace(&home).create(true);
            options.messages_max(messages).message_bytes_max(bytes).open(NAME)
        };
        let error = assert_fails("EINVAL", attempt(21, 100));
        assert!(error.hint().unwrap().contains("msg_max of /dev/shm/ginnel-0/limited is 20"), "{error}");
        let error = assert_fails("EINVAL", attempt(20, 101));
        assert!(error.hint().unwrap().contains("msgsize_max of /dev/shm/ginnel-0/limited is 100"), "{error}");
        assert!(assert_fails("EINVAL", attempt(0, 64)).hint().unwrap().contains("at least 1"));
        let status = PosixQueue::create_in(&home, NAME).unwrap().status().unwrap();
        assert_eq!((status.messages_max, status.message_bytes_max), (3, 50));
        // More than anybody may have in the kernel's home.
        let roomy = Namespace::private().unwrap();
        let options = PosixQueue::options().namespace(&roomy).create(true);
        let queue = options.messages_max(60_000).message_bytes_max(1 << 20).open(NAME).unwrap();
        (0..1000_u32).for_each(|n| queue.try_send(n % 7, &n.to_ne_bytes()).unwrap());
        assert_eq!(queue.status().unwrap().messages, 1000);
    });
}

#[test]
fn too_many_descriptors_is_not_mistaken_for_too_large_a_queue() {
    in_both_homes(|home| {
        fork(|| {
            let limit = libc::rlimit { rlim_cur: 3, rlim_max: 20 };
            // SAFETY: the limit is a whole rlimit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let error = assert_fails("EMFILE", PosixQueue::create_in(home, NAME));
            assert!(error.hint().unwrap().contains("RLIMIT_NOFILE"), "{error}");
        })
        .assert_ok();
    });
}

#[test]
fn another_user_may_do_what_the_mode_says() {
    in_both_homes(|home| {
        let queue = small(home, 2);
        unprivileged(|| {
            assert!(assert_fails("EACCES", PosixQueue::open_in(home, NAME)).is_permission_denied());
            assert!(
                assert_fails("EACCES", PosixQueue::remove_in(home, NAME)).hint().unwrap().contains("owner")
            );
            let mine =
                PosixQueue::options().namespace(home).create_new(true).mode(0o606).open("/mine").unwrap();
            mine.send(0, b"x").unwrap();
            PosixQueue::remove_in(home, "/mine").unwrap();
        })
        .assert_ok();
        drop(queue);
    });
}

#[test]
fn a_queue_is_a_descriptor() {
    in_both_homes(|home| {
        let queue = small(home, 1);
        assert_close_on_exec();
        let events = |fd: &PosixQueue| {
            let mut poll =
                libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 };
            // SAFETY: one whole pollfd.
            unsafe { libc::poll(&mut poll, 1, 0) };
            poll.revents
        };
        assert_eq!(events(&queue), libc::POLLOUT);
        queue.send(0, b"x").unwrap();
        assert_eq!(events(&queue), libc::POLLIN);
        if !home.is_kernel() {
            take(&queue);
            assert_eq!(events(&queue), libc::POLLOUT);
            assert_fails("EBADF", PosixQueue::from_fd(queue.as_fd().try_clone_to_owned().unwrap()));
            return;
        }
        let copy = PosixQueue::from_fd(queue.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(take(&copy).1, "x");
        assert_fails("EBADF", PosixQueue::from_fd(std::fs::File::open("/etc/passwd").unwrap().into()));
    });
}

#[test]
fn a_signal_is_sent_once_with_its_payload() {
    // In a process of one thread: the kernel picks any thread that does not block the signal.
    in_both_homes(|home| fork(|| a_signal_is_sent_once(home)).assert_ok());
}

fn a_signal_is_sent_once(home: &Namespace) {
    let queue = small(home, 4);
    interrupt_by(libc::SIGUSR2);
    let wait_info = || {
        // SAFETY: the set and the siginfo are whole; SI_MESGQ carries a value and a process.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGRTMIN());
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let signal = libc::sigtimedwait(&set, &mut info, &none);
            let payload = info.si_value().sival_ptr as usize as u32 as i32;
            (signal == libc::SIGRTMIN()).then(|| (info.si_code, payload, info.si_pid()))
        }
    };
    assert_eq!(wait_info(), None);
    queue.notify_signal(libc::SIGRTMIN(), -7).unwrap();
    let me = std::process::id() as i32;
    assert_eq!(queue.status().unwrap().notifies_pid, Some(me));
    let error = assert_fails("EBUSY", queue.notify_signal(libc::SIGRTMIN(), 8));
    assert!(error.hint().unwrap().contains(&format!("process {me}")), "{error}");
    fork(|| drop(assert_fails("EBUSY", queue.notify_none()))).assert_ok();

    let sender = fork(|| queue.send(1, b"first").unwrap());
    let sender_pid = sender.pid();
    sender.assert_ok();
    assert_eq!(wait_info(), Some((libc::SI_MESGQ, -7, sender_pid)));
    assert_eq!(queue.status().unwrap().notifies_pid, None);

    // Not on a queue that is not empty, and not when somebody waits in a receive, with a deadline or without.
    queue.notify_signal(libc::SIGRTMIN(), 9).unwrap();
    queue.send(1, b"second").unwrap();
    assert_eq!(wait_info(), None);
    take(&queue);
    take(&queue);
    for _ in 0..2 {
        let receiver = fork(|| drop(queue.recv_vec_deadline(LONG).unwrap()));
        wait_blocked(home, receiver.pid(), libc::SYS_mq_timedreceive);
        queue.send(1, b"for the receiver").unwrap();
        receiver.assert_ok();
        assert_eq!(wait_info(), None);
    }
    queue.notify_cancel().unwrap();
    queue.send(1, b"nobody is told").unwrap();
    assert_eq!(wait_info(), None);
    queue.notify_cancel().unwrap();
    assert_fails("EINVAL", queue.notify_signal(12345, 0));
}

#[test]
fn a_thread_is_told_once_and_none_when_cancelled() {
    in_both_homes(|home| {
        let queue = small(home, 4);
        let (tell, told) = mpsc::channel();
        let notice = |number: u32| {
            let tell = tell.clone();
            queue.notify_thread(move || tell.send(number).unwrap())
        };
        notice(1).unwrap();
        assert_fails("EBUSY", notice(100));
        queue.send(0, b"x").unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok(1));
        queue.send(0, b"y").unwrap();
        take(&queue);
        take(&queue);

        notice(2).unwrap();
        queue.notify_cancel().unwrap();
        queue.send(0, b"x").unwrap();
        take(&queue);
        notice(3).unwrap();
        queue.send(0, b"x").unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok(3), "the cancelled one was dropped");

        // Its thread ends with the queue's handle, and takes its descriptor along.
        let queue_2 = PosixQueue::create_in(home, "/second").unwrap();
        let (keeper, kept) = mpsc::channel::<()>();
        queue_2.notify_thread(move || keeper.send(()).unwrap()).unwrap();
        drop(queue_2);
        assert_eq!(kept.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "dropped, not run");
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        drop(queue);
        let before = threads();
        wait_until("no thread waits for notices", || {
            std::fs::read_dir("/proc/self/task").unwrap().flatten().all(|task| {
                std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() != "mq_notify")
            })
        });
        assert!(threads() <= before);
    });
}

#[test]
fn none_reserves_the_place() {
    in_both_homes(|home| {
        let queue = small(home, 1);
        queue.notify_none().unwrap();
        fork(|| drop(assert_fails("EBUSY", queue.notify_signal(libc::SIGUSR1, 0)))).assert_ok();
        queue.send(0, b"x").unwrap();
        fork(|| queue.notify_signal(libc::SIGUSR1, 0).unwrap()).assert_ok();
    });
}

#[test]
fn c_sends_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/posix_queue.c");
        run_ok(Command::new(&program).args(["send", NAME, "7", "from C"]));
        let queue = PosixQueue::open(NAME).unwrap();
        assert_eq!(take(&queue), (7, "from C".into()));
        queue.send(3, b"from Rust").unwrap();
        assert_eq!(run_ok(Command::new(&program).args(["recv", NAME])), "3 from Rust\n");

        let mut c = spawn(Command::new(&program).args(["thread", NAME]).stdout(Stdio::piped()));
        let mut lines = BufReader::new(c.stdout().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "registered");
        assert_eq!(queue.status().unwrap().notifies_pid, Some(c.pid()));
        assert_fails("EBUSY", queue.notify_thread(|| ()));
        queue.send(0, b"wake").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "noticed 42");
        c.assert_ok();
        run_ok(Command::new(&program).args(["remove", NAME]));
        assert_fails("ENOENT", PosixQueue::open(NAME));
    });
}

#[test]
fn many_writers_and_readers_lose_and_double_nothing() {
    in_both_homes(|home| {
        const WRITERS: u32 = 3;
        const EACH: u32 = 400;
        let queue = small(home, 10);
        let results = PosixQueue::options()
            .namespace(home)
            .create(true)
            .messages_max(10)
            .message_bytes_max(8)
            .open("/sums")
            .unwrap();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let queue = &queue;
                fork(move || (0..EACH).for_each(|n| queue.send(writer, &n.to_ne_bytes()).unwrap()))
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                fork(|| {
                    let mut sum = 0_u64;
                    let mut buffer = [0; 64];
                    loop {
                        let got = queue.recv(&mut buffer).unwrap();
                        if got.len == 0 {
                            break;
                        }
                        sum += u64::from(u32::from_ne_bytes(buffer[..4].try_into().unwrap()));
                    }
                    results.send(0, &sum.to_ne_bytes()).unwrap();
                })
            })
            .collect();
        writers.into_iter().for_each(ginnel_testkit::Child::assert_ok);
        // The lowest priority: after everything else.
        (0..2).for_each(|_| queue.send(0, b"").unwrap());
        readers.into_iter().for_each(ginnel_testkit::Child::assert_ok);
        let sums: u64 =
            (0..2).map(|_| u64::from_ne_bytes(results.recv_vec().unwrap().payload.try_into().unwrap())).sum();
        assert_eq!(sums, u64::from(WRITERS) * u64::from(EACH * (EACH - 1) / 2));
    });
}
