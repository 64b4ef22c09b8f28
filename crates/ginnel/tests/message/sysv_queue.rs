//! System V queues: every selection, every form, every errno of msgop(2), msgget(2) and msgctl(2) that can be had.

use std::process::Command;
use std::time::Duration;

use ginnel::Namespace;
use ginnel::message::sysv_queue::{Change, Received};
use ginnel::message::{Select, SysvQueue};
use ginnel::namespace::Limits;
use ginnel::sysv::Key;
use ginnel_testkit::{Exit, Objects, c_program, fork, isolated, run, run_ok, temp_dir, unprivileged};

use crate::common::{LONG, SHORT, assert_fails, assert_interrupted, assert_times_out};
use crate::homes::{in_both_homes, sleeping, wait_blocked};

const KEY: Key = Key::new(0x6769);

fn filled(home: &Namespace, messages: &[(i64, &str)]) -> SysvQueue {
    let queue = SysvQueue::private_in(home).unwrap();
    for (message_type, text) in messages {
        queue.send(*message_type, text.as_bytes()).unwrap();
    }
    queue
}

fn take(queue: &SysvQueue, select: Select) -> (i64, String) {
    let message = queue.recv_vec_deadline(select, LONG).unwrap();
    (message.message_type, String::from_utf8(message.payload).unwrap())
}

fn full(home: &Namespace, bytes_max: u64) -> SysvQueue {
    let queue = SysvQueue::private_in(home).unwrap();
    queue.set(Change { bytes_max: Some(bytes_max), ..Change::default() }).unwrap();
    queue.send(1, &vec![7; bytes_max as usize]).unwrap();
    queue
}

#[test]
fn every_selection_takes_the_message_that_the_man_page_says() {
    in_both_homes(|home| {
        let queue = filled(home, &[(5, "a"), (3, "b"), (3, "c"), (9, "d"), (5, "e"), (2, "f")]);
        assert_eq!(take(&queue, Select::Type(3)), (3, "b".into()));
        assert_eq!(take(&queue, Select::UpTo(5)), (2, "f".into()));
        assert_eq!(take(&queue, Select::UpTo(5)), (3, "c".into()));
        assert_eq!(take(&queue, Select::Except(5)), (9, "d".into()));
        assert_eq!(take(&queue, Select::UpTo(i64::MAX)), (5, "a".into()));
        assert_eq!(take(&queue, Select::Any), (5, "e".into()));
        for select in [Select::Any, Select::Type(5), Select::UpTo(5), Select::Except(5)] {
            assert!(assert_fails("ENOMSG", queue.try_recv(select, &mut [0; 8])).is_would_block());
        }
        for select in
            [Select::Type(0), Select::Type(-3), Select::UpTo(0), Select::UpTo(i64::MIN), Select::Except(0)]
        {
            assert!(assert_fails("EINVAL", queue.try_recv(select, &mut [0; 8])).hint().is_some());
        }
        for message_type in [0, -1, i64::MIN] {
            assert!(
                assert_fails("EINVAL", queue.send(message_type, b""))
                    .hint()
                    .unwrap()
                    .contains("greater than 0")
            );
        }
        queue.send(i64::MAX, b"").unwrap();
        assert_eq!(take(&queue, Select::Type(i64::MAX)), (i64::MAX, String::new()));
    });
}

#[test]
fn a_long_message_stays_or_is_cut_as_was_asked() {
    in_both_homes(|home| {
        let queue = filled(home, &[(1, "twelve bytes")]);
        let mut buffer = [0; 6];
        assert_fails("E2BIG", queue.recv(Select::Any, &mut buffer));
        assert_eq!(queue.status().unwrap().messages, 1);
        let got = queue.recv_truncated(Select::Any, &mut buffer, SHORT).unwrap();
        assert_eq!((got, &buffer), (Received { message_type: 1, len: 6 }, b"twelve"));
        assert_eq!(queue.status().unwrap().messages, 0);
        let large: Vec<u8> = (0..8192).map(|n| n as u8).collect();
        queue.send(2, &large).unwrap();
        assert_eq!(queue.recv_vec(Select::Any).unwrap().payload, large);
    });
}

#[test]
fn peek_copies_any_message_and_leaves_it() {
    in_both_homes(|home| {
        let queue = filled(home, &[(4, "first"), (2, "second, which is longer")]);
        assert_eq!(queue.peek_vec(0).unwrap().payload, b"first");
        let second = queue.peek_vec(1).unwrap();
        assert_eq!((second.message_type, &second.payload[..6]), (2, &b"second"[..]));
        assert_fails("E2BIG", queue.peek(1, &mut [0; 4]));
        assert!(assert_fails("ENOMSG", queue.peek_vec(2)).is_would_block());
        assert_fails("ENOMSG", queue.peek_vec(usize::MAX));
        assert_eq!(queue.status().unwrap().messages, 2);
    });
}

#[test]
fn deadlines_pass_even_where_their_signal_is_blocked() {
    in_both_homes(|home| {
        let empty = SysvQueue::private_in(home).unwrap();
        let full = full(home, 64);
        assert_fails("EAGAIN", full.try_send(1, b"x"));
        let both = || {
            assert_times_out(|limit| empty.recv_deadline(Select::Any, &mut [0; 8], limit));
            assert_times_out(|limit| full.send_deadline(1, b"x", limit));
        };
        both();
        let mask = |how| {
            // SAFETY: the sets are whole and valid for the calls.
            unsafe {
                let (mut set, mut old) = (std::mem::zeroed(), std::mem::zeroed());
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, ginnel::deadline_signal().unwrap());
                libc::pthread_sigmask(how, &set, &mut old);
                libc::sigismember(&old, ginnel::deadline_signal().unwrap())
            }
        };
        mask(libc::SIG_BLOCK);
        both();
        std::thread::scope(|scope| {
            scope.spawn(both);
        });
        assert_eq!(mask(libc::SIG_BLOCK), 1, "the thread's mask is as it was");
        // SAFETY: the set is whole.
        let pending = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigpending(&mut set);
            libc::sigismember(&set, ginnel::deadline_signal().unwrap())
        };
        assert_eq!(pending, 0, "no late signal is left for the program");
        assert_eq!(full.status().unwrap().messages, 1);
    });
}

#[test]
fn a_message_ends_a_wait_with_a_deadline() {
    in_both_homes(|home| {
        let queue = SysvQueue::private_in(home).unwrap();
        let receiver = fork(|| assert_eq!(take(&queue, Select::Type(2)), (2, "for you".into())));
        wait_blocked(home, receiver.pid(), libc::SYS_msgrcv);
        queue.send(1, b"for another").unwrap();
        queue.send(2, b"for you").unwrap();
        receiver.assert_ok();

        let full = full(home, 64);
        let sender = fork(|| full.send_deadline(2, b"after you", LONG).unwrap());
        wait_blocked(home, sender.pid(), libc::SYS_msgsnd);
        take(&full, Select::Any);
        sender.assert_ok();
        assert_eq!(take(&full, Select::Any), (2, "after you".into()));
    });
}

#[test]
fn another_signal_interrupts_with_and_without_a_deadline() {
    in_both_homes(|home| {
        let empty = SysvQueue::private_in(home).unwrap();
        assert_interrupted(sleeping(home, libc::SYS_msgrcv), || empty.recv(Select::Any, &mut [0; 8]));
        assert_interrupted(sleeping(home, libc::SYS_msgrcv), || {
            empty.recv_deadline(Select::Any, &mut [0; 8], LONG)
        });
        let full = full(home, 64);
        assert_interrupted(sleeping(home, libc::SYS_msgsnd), || full.send(1, b"x"));
        assert_interrupted(sleeping(home, libc::SYS_msgsnd), || full.send_deadline(1, b"x", LONG));
        assert_eq!(full.status().unwrap().messages, 1);
    });
}

#[test]
fn removal_wakes_everybody_and_is_told_ever_after() {
    in_both_homes(|home| {
        let queue = full(home, 64);
        let waiters = [
            (libc::SYS_msgrcv, fork(|| assert_gone("EIDRM", queue.recv(Select::Type(99), &mut [0; 8])))),
            (
                libc::SYS_msgrcv,
                fork(|| assert_gone("EIDRM", queue.recv_vec_deadline(Select::Type(99), LONG))),
            ),
            (libc::SYS_msgsnd, fork(|| assert_gone("EIDRM", queue.send(1, b"x")))),
        ];
        for (syscall, waiter) in &waiters {
            wait_blocked(home, waiter.pid(), *syscall);
        }
        queue.remove().unwrap();
        for (_, waiter) in waiters {
            waiter.assert_ok();
        }
        assert_gone("EINVAL", queue.send(1, b"x"));
        assert_gone("EINVAL", queue.try_recv(Select::Any, &mut [0; 8]));
        assert_gone("EINVAL", queue.status());
        assert_gone("EINVAL", queue.remove());
        assert_gone("EINVAL", queue.peek_vec(0));
    });
}

#[track_caller]
fn assert_gone<T: std::fmt::Debug>(errno: &str, outcome: ginnel::Result<T>) {
    let error = assert_fails(errno, outcome);
    assert!(error.is_removed() && error.hint().unwrap().contains("removed"), "{error}");
}

#[test]
fn a_killed_receiver_takes_nothing_with_it() {
    in_both_homes(|home| {
        let queue = SysvQueue::private_in(home).unwrap();
        let receiver = fork(|| drop(queue.recv_vec(Select::Any)));
        wait_blocked(home, receiver.pid(), libc::SYS_msgrcv);
        receiver.kill();
        assert_eq!(receiver.wait(), Exit::Signal(libc::SIGKILL));
        queue.send(1, b"safe").unwrap();
        assert_eq!(take(&queue, Select::Any), (1, "safe".into()));
    });
}

#[test]
fn names_are_opened_as_files_are() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let error = assert_fails("ENOENT", SysvQueue::open_in(home, KEY));
        assert_eq!(error.object(), "sysv-msg:0x6769");
        let queue = SysvQueue::options().namespace(home).create_new(true).mode(0o640).open(KEY).unwrap();
        assert_fails("EEXIST", SysvQueue::options().namespace(home).create_new(true).open(KEY));
        assert_eq!(SysvQueue::open_in(home, KEY).unwrap().id(), queue.id());
        assert_eq!(SysvQueue::create_in(home, KEY).unwrap().id(), queue.id());
        let status = queue.status().unwrap();
        assert_eq!((status.permissions.key, status.permissions.mode), (KEY, 0o640));
        drop(queue);
        let queue = SysvQueue::open_in(home, KEY).expect("dropping a handle leaves the queue");
        queue.remove().unwrap();
        before.assert_same();
    });
}

#[test]
fn a_private_queue_goes_with_its_maker_and_no_other() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let queue = SysvQueue::private_in(home).unwrap();
        let id = queue.id();
        // Moved in: dropped by the child at its end as well.
        let kept = SysvQueue::from_id_in(home, id);
        let child = fork(move || drop(queue));
        // The parent's own copy was moved out and dropped with the closure.
        child.assert_ok();
        assert_gone("EINVAL", kept.status());

        let queue = SysvQueue::private_in(home).unwrap();
        let child = fork(|| {
            // SAFETY: a bitwise copy, as fork makes one, and the original is never dropped here: _exit ends the child.
            drop(unsafe { std::ptr::read(&raw const queue) });
        });
        child.assert_ok();
        queue.status().expect("the child's copy does not remove it");

        let mut queue = queue;
        queue.keep();
        let id = queue.id();
        drop(queue);
        SysvQueue::from_id_in(home, id).remove().expect("kept");
        before.assert_same();
    });
}

#[test]
fn another_user_may_do_what_the_mode_says() {
    isolated(|| {
        let queue = SysvQueue::options().create_new(true).mode(0o600).open(KEY).unwrap();
        let id = queue.id();
        unprivileged(move || {
            SysvQueue::open(KEY).expect("opening asks for no right; each call does");
            assert_fails("EACCES", SysvQueue::options().create(true).mode(0o600).open(KEY));
            let queue = SysvQueue::from_id(id);
            assert!(assert_fails("EACCES", queue.send(1, b"x")).is_permission_denied());
            assert_fails("EACCES", queue.try_recv(Select::Any, &mut [0; 8]));
            assert_fails("EACCES", queue.status());
            assert_fails("EACCES", queue.peek_vec(0));
            assert!(assert_fails("EPERM", queue.remove()).hint().unwrap().contains("owner"));
            let listed = SysvQueue::list().unwrap();
            assert!(listed.iter().any(|(listed, _)| *listed == id), "listed all the same");
        })
        .assert_ok();

        queue.set(Change { mode: Some(0o602), ..Change::default() }).unwrap();
        unprivileged(move || {
            let queue = SysvQueue::from_id(id);
            queue.send(1, b"may write").unwrap();
            assert_fails("EACCES", queue.recv(Select::Any, &mut [0; 32]));
        })
        .assert_ok();
        assert_eq!(take(&queue, Select::Any).1, "may write");

        // An owner whose mode lets him not even read may still change it.
        queue.set(Change { uid: Some(65534), mode: Some(0o200), ..Change::default() }).unwrap();
        unprivileged(move || {
            let queue = SysvQueue::from_id(id);
            assert_fails("EACCES", queue.status());
            queue.set(Change { mode: Some(0o600), ..Change::default() }).unwrap();
            assert_eq!(queue.status().unwrap().permissions.uid, 65534);
            let too_much = queue.status().unwrap().bytes_max + 1;
            let error =
                assert_fails("EPERM", queue.set(Change { bytes_max: Some(too_much), ..Change::default() }));
            assert!(error.hint().unwrap().contains("kernel.msgmnb"), "{error}");
            queue.remove().unwrap();
        })
        .assert_ok();
    });
}

#[test]
fn the_host_s_limits_are_named_when_they_are_hit() {
    isolated(|| {
        let limits = SysvQueue::limits().unwrap();
        assert_eq!((limits.queues, limits.messages, limits.bytes), (0, 0, 0));
        let queue = SysvQueue::private().unwrap();
        assert_eq!(queue.status().unwrap().bytes_max, limits.queue_bytes_max);
        let error = assert_fails("EINVAL", queue.send(1, &vec![0; limits.message_bytes_max as usize + 1]));
        assert!(error.hint().unwrap().contains("kernel.msgmax is 8192"), "{error}");
        queue.send(1, b"four").unwrap();
        std::fs::write("/proc/sys/kernel/msgmni", "1").unwrap();
        let error = assert_fails("ENOSPC", SysvQueue::create(KEY));
        assert!(error.hint().unwrap().contains("kernel.msgmni is 1"), "{error}");
        let limits = SysvQueue::limits().unwrap();
        assert_eq!((limits.queues_max, limits.queues, limits.messages, limits.bytes), (1, 1, 1, 4));

        std::fs::write("/proc/sys/kernel/msgmax", "100000").unwrap();
        std::fs::write("/proc/sys/kernel/msgmnb", "100000").unwrap();
        queue.set(Change { bytes_max: Some(100_000), ..Change::default() }).unwrap();
        let large: Vec<u8> = (0..90_000).map(|n| (n * 7) as u8).collect();
        queue.send(2, &large).unwrap();
        assert_eq!(queue.peek_vec(1).unwrap().payload, large);
        assert_eq!(queue.recv_vec(Select::Type(2)).unwrap().payload, large);
    });
}

#[test]
fn the_limits_of_a_user_space_home_are_its_own() {
    isolated(|| {
        let limits = Limits { msgmax: 100, msgmnb: 150, ..Limits::default() };
        let home = Namespace::options().create(true).limits(limits).open("limited").unwrap();
        let queue = SysvQueue::create_in(&home, KEY).unwrap();
        assert_eq!(queue.status().unwrap().bytes_max, 150);
        let error = assert_fails("EINVAL", queue.send(1, &[0; 101]));
        assert!(error.hint().unwrap().contains("msgmax of /dev/shm/ginnel-0/limited is 100"), "{error}");
        queue.send(1, &[0; 100]).unwrap();
        assert_fails("EAGAIN", queue.try_send(1, &[0; 51]));
        let limits = SysvQueue::limits_in(&home).unwrap();
        assert_eq!((limits.message_bytes_max, limits.queue_bytes_max), (100, 150));
        assert_eq!((limits.queues, limits.messages, limits.bytes), (1, 1, 100));
        unprivileged(|| {
            // Longer than the kernel's home takes, and no privilege.
            let home = Namespace::private().unwrap();
            let queue = SysvQueue::private_in(&home).unwrap();
            queue.set(Change { bytes_max: Some(1 << 30), ..Change::default() }).unwrap();
            let large: Vec<u8> = (0..1 << 20).map(|n| (n * 7) as u8).collect();
            queue.try_send(2, &large).unwrap();
            assert_eq!(queue.peek_vec(0).unwrap().payload, large);
            assert_eq!(queue.recv_vec(Select::Any).unwrap().payload, large);
        })
        .assert_ok();
    });
}

#[test]
fn in_a_user_space_home_to_use_is_to_read_and_to_write() {
    isolated(|| {
        let home = Namespace::options().create(true).mode(0o1777).at("/dev/shm/home").unwrap();
        let queue = SysvQueue::options().namespace(&home).create_new(true).mode(0o602).open(KEY).unwrap();
        let id = queue.id();
        for mode in [0o602, 0o604] {
            queue.set(Change { mode: Some(mode), ..Change::default() }).unwrap();
            unprivileged(|| {
                let queue = SysvQueue::from_id_in(&home, id);
                let refused = assert_fails("EACCES", queue.send(1, b"x"));
                assert!(refused.hint().unwrap().contains("read and write"), "{refused}");
                assert_fails("EACCES", queue.try_recv(Select::Any, &mut [0; 8]));
                assert!(assert_fails("EPERM", queue.remove()).hint().unwrap().contains("owner"));
            })
            .assert_ok();
        }
        queue.set(Change { mode: Some(0o606), ..Change::default() }).unwrap();
        unprivileged(|| SysvQueue::from_id_in(&home, id).send(1, b"may use").unwrap()).assert_ok();
        assert_eq!(take(&queue, Select::Any).1, "may use");
    });
}

#[test]
fn many_writers_and_readers_lose_and_double_nothing() {
    in_both_homes(|home| {
        const WRITERS: u8 = 4;
        const EACH: u32 = 500;
        let (queue, results) = (SysvQueue::private_in(home).unwrap(), SysvQueue::private_in(home).unwrap());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let queue = &queue;
                fork(move || {
                    for number in 0..EACH {
                        queue.send(1 + i64::from(writer), &number.to_ne_bytes()).unwrap();
                    }
                })
            })
            .collect();
        // One reader a type: what one writer sends comes in order.
        let readers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (queue, results) = (&queue, &results);
                fork(move || {
                    for number in 0..EACH {
                        let mut buffer = [0; 4];
                        queue.recv(Select::Type(1 + i64::from(writer)), &mut buffer).unwrap();
                        assert_eq!(u32::from_ne_bytes(buffer), number);
                    }
                    results.send(1, b"done").unwrap();
                })
            })
            .collect();
        writers.into_iter().chain(readers).for_each(ginnel_testkit::Child::assert_ok);
        assert_eq!(queue.status().unwrap().messages, 0);
        assert_eq!(results.status().unwrap().messages, u64::from(WRITERS));
    });
}

#[test]
fn status_tells_who_and_how_much() {
    in_both_homes(|home| {
        let queue = SysvQueue::private_in(home).unwrap();
        let status = queue.status().unwrap();
        assert_eq!((status.last_send, status.last_recv, status.last_send_pid), (None, None, 0));
        assert!(status.last_change.is_some());
        let sender = fork(|| queue.send(1, b"seven b").unwrap());
        let sender_pid = sender.pid();
        sender.assert_ok();
        let status = queue.status().unwrap();
        assert_eq!((status.messages, status.bytes, status.last_send_pid), (1, 7, sender_pid));
        take(&queue, Select::Any);
        assert_eq!(queue.status().unwrap().last_recv_pid, std::process::id() as i32);
    });
}

#[test]
fn ipcs_ipcrm_and_ipcmk_see_the_same() {
    isolated(|| {
        let queue = SysvQueue::options().create_new(true).mode(0o644).open(KEY).unwrap();
        queue.send(1, b"0123456789").unwrap();
        let shown = run_ok(Command::new("ipcs").arg("-q"));
        let line = shown.lines().find(|line| line.starts_with("0x00006769")).expect(&shown);
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1..], [&queue.id().to_string(), "root", "644", "10", "1"], "{shown}");

        run_ok(Command::new("ipcrm").args(["-Q", "0x6769"]));
        assert_gone("EINVAL", queue.status());

        let made = run_ok(Command::new("ipcmk").args(["-Q", "-p", "0660"]));
        let id: i32 = made.trim().rsplit(' ').next().unwrap().parse().expect(&made);
        let listed = SysvQueue::list().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].0, listed[0].1.permissions.mode), (id, 0o660));
        let found = SysvQueue::open(listed[0].1.permissions.key).unwrap();
        assert_eq!(found.id(), id);
        found.remove().unwrap();
        assert!(run_ok(Command::new("ipcs").arg("-q")).lines().all(|line| !line.starts_with("0x")));
    });
}

#[test]
fn c_sends_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/sysv_queue.c");
        run_ok(Command::new(&program).args(["send", "0x6769", "7", "from C"]));
        let queue = SysvQueue::open(KEY).unwrap();
        assert_eq!(take(&queue, Select::Type(7)), (7, "from C".into()));
        queue.send(9, b"from Rust").unwrap();
        queue.send(8, b"").unwrap();
        assert_eq!(run_ok(Command::new(&program).args(["recv", "0x6769", "-9"])), "8 \n");
        assert_eq!(run_ok(Command::new(&program).args(["recv", "0x6769", "9"])), "9 from Rust\n");
    });
}

#[test]
fn keys_from_paths_are_those_of_c() {
    isolated(|| {
        let program = c_program!("tests/message/sysv_queue.c");
        let dir = temp_dir();
        let file = dir.path().join("agreed");
        std::fs::write(&file, "").unwrap();
        for path in [file.as_path(), std::path::Path::new("/etc/passwd"), std::path::Path::new("/proc/self")]
        {
            for project in [1_u8, 77, 255] {
                let shown = run_ok(Command::new(&program).arg("ftok").arg(path).arg(project.to_string()));
                let ours = Key::from_path(path, project).unwrap().raw();
                if path.starts_with("/proc/self") {
                    // Another process's directory: another file.
                    assert_ne!(shown.trim(), ours.to_string());
                } else {
                    assert_eq!(shown.trim(), ours.to_string(), "{} {project}", path.display());
                }
            }
        }
        assert_fails("ENOENT", Key::from_path(dir.path().join("absent"), 1));
        assert_fails("EINVAL", Key::from_path(&file, 0));
        assert!(!run(Command::new(&program).arg("ftok")).status.success());
    });
}

#[test]
fn a_message_longer_than_the_queue_never_fits() {
    in_both_homes(|home| {
        let queue = SysvQueue::private_in(home).unwrap();
        queue.set(Change { bytes_max: Some(16), ..Change::default() }).unwrap();
        assert_fails("EAGAIN", queue.try_send(1, &[0; 17]));
        assert_times_out(|limit| queue.send_deadline(1, &[0; 17], limit));
        queue.send_deadline(1, &[0; 16], Duration::ZERO).unwrap();
    });
}

#[test]
fn the_maker_of_a_private_queue_may_use_it() {
    in_both_homes(|home| {
        unprivileged(|| {
            let queue = SysvQueue::private_in(home).unwrap();
            queue.send(1, b"mine").unwrap();
            assert_eq!(queue.status().unwrap().permissions.mode, 0o600);
        })
        .assert_ok();
    });
}
