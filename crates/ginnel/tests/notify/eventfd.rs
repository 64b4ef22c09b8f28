//! The counter: both modes, its end, inheritance, C on the other end.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::notify::{EventFd, Flag, Signal};
use ginnel_testkit::{Objects, c_program, fork, isolated, run, run_ok, spawn, wait_blocked_in, wait_until};

#[test]
fn all_at_once() {
    let event = EventFd::options().initial(3).open().unwrap();
    event.add(4).unwrap();
    event.try_add(5).unwrap();
    event.add_deadline(6, Duration::from_secs(1)).unwrap();
    event.add(0).unwrap();
    assert_eq!(event.count(), Some(18));
    assert_eq!(event.wait().unwrap(), 18);
    assert_eq!(event.try_wait().unwrap_err().errno_name(), "EAGAIN");
    let begin = Instant::now();
    let late = event.wait_deadline(Duration::from_millis(20)).unwrap_err();
    assert!(late.is_timed_out() && begin.elapsed() >= Duration::from_millis(20));
}

#[test]
fn one_at_a_time() {
    let event = EventFd::options().semaphore(true).initial(2).open().unwrap();
    event.add(1).unwrap();
    for _ in 0..3 {
        assert_eq!(event.wait().unwrap(), 1);
    }
    assert!(event.try_wait().is_err());
}

#[test]
fn the_end_of_the_counter() {
    isolated(|| {
        for nonblocking in [false, true] {
            let event = EventFd::options().nonblocking(nonblocking).initial(EventFd::MAX - 5).open().unwrap();
            assert_eq!(event.count(), Some(EventFd::MAX - 5));
            // POLLOUT says that 1 fits, 6 does not.
            for value in [6, 7, EventFd::MAX] {
                assert_eq!(event.try_add(value).unwrap_err().errno_name(), "EAGAIN", "{value}");
            }
            let begin = Instant::now();
            let late = event.add_deadline(6, Duration::from_millis(20)).unwrap_err();
            assert!(late.is_timed_out() && begin.elapsed() >= Duration::from_millis(20), "{late}");
            event.try_add(5).unwrap();
            assert_eq!(event.try_add(1).unwrap_err().errno_name(), "EAGAIN");
            assert!(event.add_deadline(1, Duration::from_millis(1)).unwrap_err().is_timed_out());
            assert_eq!(event.try_wait().unwrap(), EventFd::MAX);
            event.try_add(EventFd::MAX).unwrap();
            event.try_add(0).unwrap();
        }
        let event = EventFd::new().unwrap();
        for error in [event.add(u64::MAX), event.try_add(u64::MAX)] {
            assert_eq!(error.unwrap_err().errno_name(), "EINVAL");
        }
        assert_eq!(EventFd::options().initial(u64::MAX).open().unwrap_err().errno_name(), "EINVAL");
    });
}

/// Eight that add to a counter with room for a few: each unit is added once, and `try_add` never hangs.
#[test]
fn racing_for_the_last_room() {
    isolated(|| {
        let event = EventFd::options().initial(EventFd::MAX - 10).open().unwrap();
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    let mut added = 0;
                    for _ in 0..50 {
                        match event.try_add(3) {
                            Ok(()) => added += 1,
                            Err(error) => assert!(error.is_would_block(), "{error}"),
                        }
                    }
                    std::process::exit(added);
                })
            })
            .collect();
        let added: i32 = children
            .into_iter()
            .map(|child| match child.wait() {
                ginnel_testkit::Exit::Code(code) => code,
                exit => panic!("{exit:?}"),
            })
            .sum();
        assert_eq!(added, 3);
        assert_eq!(event.wait().unwrap(), EventFd::MAX - 1);
    });
}

#[test]
fn waiting_and_adding_sleep() {
    isolated(|| {
        let event = EventFd::new().unwrap();
        let reader = fork(|| assert_eq!(event.wait().unwrap(), 7));
        wait_blocked_in(reader.pid(), libc::SYS_read);
        event.add(7).unwrap();
        reader.assert_ok();

        event.add(EventFd::MAX).unwrap();
        for deadline in [None, Some(Duration::from_secs(15))] {
            let writer = fork(|| event.add_deadline(9, deadline).unwrap());
            wait_blocked_in(writer.pid(), libc::SYS_write);
            assert_eq!(event.wait().unwrap(), EventFd::MAX);
            writer.assert_ok();
            assert_eq!(event.wait().unwrap(), 9);
            event.add(EventFd::MAX).unwrap();
        }
    });
}

/// The blocking forms wait though the description, made by somebody else, does not block.
#[test]
fn a_nonblocking_description_waits_all_the_same() {
    isolated(|| {
        let event = EventFd::options().nonblocking(true).open().unwrap();
        let reader = fork(|| assert_eq!(event.wait().unwrap(), 2));
        wait_until("it polls", || {
            ginnel_testkit::blocked_in(reader.pid(), libc::SYS_poll)
                || ginnel_testkit::blocked_in(reader.pid(), libc::SYS_ppoll)
        });
        event.add(2).unwrap();
        reader.assert_ok();
        event.add(EventFd::MAX).unwrap();
        let writer = fork(|| event.add(2).unwrap());
        wait_until("it polls", || {
            ginnel_testkit::blocked_in(writer.pid(), libc::SYS_poll)
                || ginnel_testkit::blocked_in(writer.pid(), libc::SYS_ppoll)
        });
        assert_eq!(event.wait().unwrap(), EventFd::MAX);
        writer.assert_ok();
    });
}

#[test]
fn a_handler_interrupts() {
    isolated(|| {
        let event = EventFd::new().unwrap();
        let child = fork(|| {
            let _flag = Flag::new(Signal::USR1).unwrap();
            assert!(event.wait().unwrap_err().is_interrupted());
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        child.signal(libc::SIGUSR1);
        child.assert_ok();
        assert!(event.try_wait().unwrap_err().is_would_block());
    });
}

/// A reader that is killed takes nothing with it.
#[test]
fn a_killed_reader_takes_nothing() {
    isolated(|| {
        let event = EventFd::new().unwrap();
        let child = fork(|| drop(event.wait()));
        wait_blocked_in(child.pid(), libc::SYS_read);
        child.kill();
        child.wait();
        event.add(1).unwrap();
        assert_eq!(event.try_wait().unwrap(), 1);
    });
}

#[test]
fn many_add_none_is_lost() {
    isolated(|| {
        let event = EventFd::new().unwrap();
        let adders: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    for n in 0..1000 {
                        if n % 2 == 0 { event.add(1) } else { event.try_add(1) }.unwrap();
                    }
                })
            })
            .collect();
        let mut sum = 0;
        while sum < 4000 {
            sum += event.wait().unwrap();
        }
        adders.into_iter().for_each(ginnel_testkit::Child::assert_ok);
        assert_eq!(sum, 4000);
        assert!(event.try_wait().is_err());
    });
}

#[test]
fn c_inherits_it() {
    isolated(|| {
        let program = c_program!("tests/notify/eventfd.c");
        let event = EventFd::new().unwrap();
        let mut writes = Command::new(&program);
        let number = ginnel::process::inherit(&mut writes, &event).unwrap();
        run_ok(writes.arg(number.to_string()).args(["40", "2"]));
        assert_eq!(event.wait().unwrap(), 42);

        let mut reads = Command::new(&program);
        let number = ginnel::process::inherit(&mut reads, &event).unwrap();
        reads.arg(number.to_string()).arg("read").stdout(std::process::Stdio::piped());
        let child = spawn(&mut reads);
        // Its description blocks: O_NONBLOCK was not set for our own purposes.
        wait_blocked_in(child.pid(), libc::SYS_read);
        event.add(0x1_0000_0001).unwrap();
        assert_eq!(child.wait_with_output().stdout, b"4294967297\n");
    });
}

#[test]
fn close_on_exec_and_no_leak() {
    isolated(|| {
        let before = Objects::snapshot();
        let event = EventFd::new().unwrap();
        let other = event.try_clone().unwrap();
        let text = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!text.contains("eventfd"), "{text}");
        // Inherited by the command it was given to, and by nobody else.
        let mut command = Command::new("ls");
        ginnel::process::inherit(&mut command, &event).unwrap();
        let text = run_ok(command.args(["-l", "/proc/self/fd"]));
        assert_eq!(text.matches("eventfd").count(), 1, "{text}");
        let output = run(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("eventfd"));
        drop((event, other, command));
        before.assert_same();
    });
}

#[test]
fn taken_on_from_elsewhere() {
    let event = EventFd::new().unwrap();
    event.add(5).unwrap();
    let fd: OwnedFd = event.into();
    let event = EventFd::from_fd(fd).unwrap();
    assert_eq!(event.try_wait().unwrap(), 5);
    let (pipe, _writer) = std::io::pipe().unwrap();
    assert_eq!(EventFd::from_fd(pipe.into()).unwrap_err().errno_name(), "EINVAL");
    let _ = event.as_fd();
}
