//! Processes by a descriptor: their end, how they ended, signals, descriptors out of them.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::notify::{Code, Flag, PidFd, Signal, SignalSet, Target};
use ginnel_testkit::{
    Exit, Objects, as_user, fork, isolated, run_ok, unprivileged, wait_blocked_in, wait_until,
};

/// A child that nobody but the test waits for: a fork of `std`'s own.
fn sleeper() -> std::process::Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// The pidfd reads as ready then, and there is nothing to reap: the deadline holds all the same.
#[test]
fn a_child_that_is_its_tracer_s_to_reap_first() {
    isolated(|| {
        let child = sleeper();
        let process = PidFd::of_child(&child).unwrap();
        let tracer = fork(|| {
            // SAFETY: PTRACE_SEIZE takes numbers.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.id(), 0, 0) };
            assert_eq!(seized, 0, "{}", std::io::Error::last_os_error());
            process.send(Signal::KILL).unwrap();
            rustix::event::pause();
        });
        process.wait().unwrap();
        assert!(process.reap_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
        tracer.kill();
        tracer.wait();
        assert_eq!(process.reap().unwrap().code, Code::ChildKilled);
    });
}

#[test]
fn waiting_for_ones_own_child() {
    isolated(|| {
        let child = sleeper();
        let process = PidFd::of_child(&child).unwrap();
        assert!(process.is_alive());
        assert_eq!(process.try_wait().unwrap_err().errno_name(), "EAGAIN");
        assert_eq!(process.try_reap().unwrap_err().errno_name(), "EAGAIN");
        assert_eq!(process.peek().unwrap_err().errno_name(), "EAGAIN");
        assert_eq!(process.exit_status().unwrap_err().errno_name(), "EAGAIN");
        let begin = Instant::now();
        assert!(process.wait_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
        assert!(process.reap_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
        assert!(begin.elapsed() >= Duration::from_millis(40));

        process.send(Signal::INT).unwrap();
        process.wait().unwrap();
        assert!(!process.is_alive());
        let peeked = process.peek().unwrap();
        assert_eq!((peeked.code, peeked.pid), (Code::ChildKilled, child.id() as i32));
        assert_eq!(process.exit_status().unwrap().signal(), Some(libc::SIGINT));
        // A zombie can be signalled.
        process.send(Signal::INT).unwrap();
        assert_eq!(process.try_reap().unwrap(), peeked);
        let error = process.reap().unwrap_err();
        assert_eq!((error.errno_name(), error.operation()), ("ECHILD", "waitid"));
        assert!(process.send(Signal::INT).unwrap_err().is_not_found());
        // The kernel keeps it for whoever has a descriptor.
        assert_eq!(process.exit_status().unwrap().signal(), Some(libc::SIGINT));
        process.try_wait().unwrap();
    });
}

#[test]
fn anothers_child_is_waited_for_and_its_status_comes_when_its_parent_has_it() {
    isolated(|| {
        let (mut hear, tell) = std::io::pipe().unwrap();
        let (listen, mut go) = std::io::pipe().unwrap();
        let parent = fork(move || {
            let grandchild = fork(|| {
                rustix::io::read(&listen, &mut [0; 1]).unwrap();
                std::process::exit(42);
            });
            std::io::Write::write_all(&mut &tell, &grandchild.pid().to_ne_bytes()).unwrap();
            rustix::event::pause();
            drop(grandchild);
        });
        let mut pid = [0; 4];
        std::io::Read::read_exact(&mut hear, &mut pid).unwrap();
        let process = PidFd::open(i32::from_ne_bytes(pid)).unwrap();
        let info = process.info().unwrap();
        assert_eq!((info.pid, info.parent, info.uid), (process.pid(), parent.pid(), 0));
        assert_eq!(process.reap().unwrap_err().errno_name(), "ECHILD");
        let runs = process.exit_status().unwrap_err();
        assert!(runs.is_would_block() && runs.to_string().contains("still runs"), "{runs}");
        std::io::Write::write_all(&mut go, b"x").unwrap();
        process.wait().unwrap();
        let zombie = process.exit_status().unwrap_err();
        assert!(zombie.is_would_block() && zombie.to_string().contains("its parent"), "{zombie}");
        // Its parent dies, init reaps it.
        parent.kill();
        parent.wait();
        wait_until("init reaps it", || process.exit_status().is_ok());
        assert_eq!(process.exit_status().unwrap().code(), Some(42));
        assert_eq!(process.info().unwrap_err().errno_name(), "ESRCH");
    });
}

#[test]
fn a_childs_fault_is_caught_and_reported() {
    isolated(|| {
        // Rust's own handler looks whether it is a stack overflow, and lets the fault happen again.
        let child = ginnel_testkit::spawn(Command::new("sh").args(["-c", "ulimit -c 0; kill -SEGV $$"]));
        let process = PidFd::open(child.pid()).unwrap();
        process.wait().unwrap();
        let end = process.peek().unwrap();
        assert_eq!(end.signal, Signal::CHLD);
        assert!(matches!(end.code, Code::ChildKilled | Code::ChildDumped));
        assert_eq!(end.status, Some(libc::SIGSEGV));
        let status = end.exit_status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
        assert_eq!(status.core_dumped(), end.code == Code::ChildDumped);
        assert_eq!(child.wait(), Exit::Signal(libc::SIGSEGV));
    });
}

#[test]
fn stopping_and_going_on() {
    isolated(|| {
        let child = sleeper();
        let process = PidFd::of_child(&child).unwrap();
        assert!(process.try_change().unwrap_err().is_would_block());
        let begin = Instant::now();
        assert!(process.change_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
        assert!(begin.elapsed() >= Duration::from_millis(20));
        process.send(Signal::STOP).unwrap();
        let stopped = process.change().unwrap();
        assert_eq!((stopped.code, stopped.status), (Code::ChildStopped, Some(libc::SIGSTOP)));
        assert_eq!(stopped.exit_status(), None);
        process.send(Signal::CONT).unwrap();
        assert_eq!(process.change_deadline(Duration::from_secs(10)).unwrap().code, Code::ChildContinued);
        process.send(Signal::KILL).unwrap();
        assert_eq!(process.change().unwrap().code, Code::ChildKilled);
        assert_eq!(process.change().unwrap_err().errno_name(), "ECHILD");
    });
}

#[test]
fn nobody_there() {
    isolated(|| {
        let error = PidFd::open(30_000).unwrap_err();
        assert_eq!((error.errno_name(), error.operation()), ("ESRCH", "pidfd_open"));
        assert!(error.hint().is_some());
        for bad in [0, -1, i32::MIN] {
            assert_eq!(PidFd::open(bad).unwrap_err().errno_name(), "EINVAL");
        }
        // A thread that is not its process's first (EINVAL; ENOENT on newer kernels).
        let me = PidFd::this_process().unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        assert_ne!(thread, me.pid(), "libtest runs a test in a thread");
        let error = PidFd::open(thread).unwrap_err();
        assert!(matches!(error.errno_name(), "EINVAL" | "ENOENT"), "{error}");
        assert!(error.to_string().contains("thread"), "{error}");
    });
}

#[test]
fn a_thread_of_its_own() {
    isolated(|| {
        let signals = SignalSet::from(Signal::USR1);
        let _blocked = signals.block().unwrap();
        let (tell, hear) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            signals.wait().unwrap()
        });
        let held = PidFd::open_thread(hear.recv().unwrap()).unwrap();
        held.send(Signal::USR1).unwrap();
        assert_eq!(thread.join().unwrap().signal, Signal::USR1);
        held.wait().unwrap();
        assert!(signals.try_wait().is_err());
    });
}

#[test]
fn payload_and_permission() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(5).unwrap();
            let signals = SignalSet::from(realtime);
            let _blocked = signals.block().unwrap();
            let me = PidFd::this_process().unwrap();
            me.queue(realtime, 55).unwrap();
            me.send(realtime).unwrap();
            let info = signals.wait().unwrap();
            assert_eq!((info.code, info.payload.unwrap().int()), (Code::Queue, 55));
            assert_eq!(signals.wait().unwrap().code, Code::User);
        })
        .assert_ok();
        let roots = std::process::id() as i32;
        unprivileged(move || {
            let process = PidFd::open(roots).unwrap();
            let error = process.send(Signal::TERM).unwrap_err();
            assert_eq!((error.errno_name(), error.operation()), ("EPERM", "pidfd_send_signal"));
            assert!(error.to_string().contains("belongs to user 0"), "{error}");
            assert!(process.is_alive());
            let error = process.get_fd(0).unwrap_err();
            assert_eq!(error.errno_name(), "EPERM");
            assert!(error.to_string().contains("trace"), "{error}");
        })
        .assert_ok();
    });
}

#[test]
fn the_group_it_leads() {
    isolated(|| {
        use std::os::unix::process::CommandExt;
        let first = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let second = Command::new("sleep").arg("1000").process_group(first.id() as i32).spawn().unwrap();
        let (first, second) = (PidFd::of_child(&first).unwrap(), PidFd::of_child(&second).unwrap());
        let error = second.send_group(Signal::TERM).unwrap_err();
        assert_eq!(error.errno_name(), "ESRCH");
        first.send_group(Signal::TERM).unwrap();
        assert_eq!(first.reap().unwrap().status, Some(libc::SIGTERM));
        assert_eq!(second.reap().unwrap().status, Some(libc::SIGTERM));
    });
}

#[test]
fn a_descriptor_out_of_another_process() {
    isolated(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = writer.as_raw_fd();
        let child = fork(|| {
            rustix::event::pause();
        });
        let process = PidFd::open(child.pid()).unwrap();
        drop(writer);
        let copy = process.get_fd(number).unwrap();
        rustix::io::write(&copy, b"from the child's pipe").unwrap();
        assert!(rustix::io::fcntl_getfd(&copy).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        drop(copy);
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "from the child's pipe");
        assert_eq!(process.get_fd(number).unwrap_err().errno_name(), "ESRCH");
        let me = PidFd::this_process().unwrap();
        assert_eq!(me.get_fd(9999).unwrap_err().errno_name(), "EBADF");
    });
}

#[test]
fn a_handler_interrupts() {
    isolated(|| {
        let waiter = fork(|| {
            let _flag = Flag::new(Signal::USR1).unwrap();
            let target = sleeper();
            let process = PidFd::of_child(&target).unwrap();
            assert!(process.reap().unwrap_err().is_interrupted());
            process.send(Signal::KILL).unwrap();
            process.reap().unwrap();
        });
        wait_blocked_in(waiter.pid(), libc::SYS_waitid);
        waiter.signal(libc::SIGUSR1);
        waiter.assert_ok();
    });
}

/// The number is another process's now; the descriptor is not.
#[test]
fn a_reused_number_is_not_signalled() {
    isolated(|| {
        let first = fork(|| {});
        let (pid, process) = (first.pid(), PidFd::open(first.pid()).unwrap());
        first.assert_ok();
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let second = fork(rustix::event::pause);
        assert_eq!(second.pid(), pid, "the number is in use again");
        assert!(process.send(Signal::KILL).unwrap_err().is_not_found());
        assert!(!process.is_alive());
        wait_blocked_in(pid, libc::SYS_pause);
        Target::Process(pid).send(Signal::TERM).unwrap();
        assert_eq!(second.wait(), Exit::Signal(libc::SIGTERM));
    });
}

#[test]
fn close_on_exec_conversion_and_no_leak() {
    isolated(|| {
        let before = Objects::snapshot();
        let me = PidFd::this_process().unwrap();
        let text = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!text.contains("pidfd"), "{text}");
        let fd: OwnedFd = me.into();
        let me = PidFd::from_fd(fd).unwrap();
        assert_eq!(me.pid(), std::process::id() as i32);
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert_eq!(PidFd::from_fd(pipe.into()).unwrap_err().errno_name(), "EINVAL");
        drop((me, _writer));
        before.assert_same();
    });
}

#[test]
fn another_users_process_can_be_waited_for() {
    isolated(|| {
        let child = as_user(1000, 1000, rustix::event::pause);
        let pid = child.pid();
        wait_blocked_in(pid, libc::SYS_pause);
        let watcher = unprivileged(move || PidFd::open(pid).unwrap().wait().unwrap());
        wait_until("it polls", || {
            ginnel_testkit::blocked_in(watcher.pid(), libc::SYS_poll)
                || ginnel_testkit::blocked_in(watcher.pid(), libc::SYS_ppoll)
        });
        child.kill();
        child.wait();
        watcher.assert_ok();
    });
}
