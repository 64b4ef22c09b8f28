//! Groups, sessions and the foreground of a terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::notify::{Code, Disposition, Group, Session, Signal, SignalSet, Target, group};
use ginnel_testkit::{Exit, c_program, fork, isolated, wait_blocked_in, wait_until};

use super::Talker;

#[test]
fn a_signal_to_a_group_reaches_all_of_it_and_nobody_else() {
    isolated(|| {
        let program = c_program!("tests/notify/group.c");
        let mut first = Talker::start(Command::new(&program).process_group(0));
        let group = Group::of(first.process.pid()).unwrap();
        assert_eq!(group.id(), first.process.pid());
        let mut second = Talker::start(Command::new(&program).process_group(group.id()));
        let mut outside = Talker::start(Command::new(&program).process_group(0));
        for talker in [&mut first, &mut second] {
            assert!(talker.line().starts_with(&format!("{group} ")));
        }
        outside.line();
        assert_eq!(group.members().unwrap(), [first.process.pid(), second.process.pid()]);
        assert_eq!(group.target(), Target::Group(group.id()));
        group.send(Signal::USR1).unwrap();
        for talker in [&mut first, &mut second] {
            assert_eq!(talker.line(), format!("from {}", std::process::id()));
        }
        first.process.assert_ok();
        second.process.assert_ok();
        assert!(!group.exists().unwrap());
        assert_eq!(group.send(Signal::USR1).unwrap_err().errno_name(), "ESRCH");
        assert!(outside.process.is_alive());
        outside.process.kill();
    });
}

#[test]
fn children_of_a_group_are_reaped_as_they_end() {
    isolated(|| {
        let first = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let group = Group::of(first.id() as i32).unwrap();
        let second = Command::new("false").process_group(group.id()).spawn().unwrap();
        let end = group.reap().unwrap();
        assert_eq!((end.pid, end.code, end.status), (second.id() as i32, Code::ChildExited, Some(1)));
        assert!(group.try_reap().unwrap_err().is_would_block());
        let begin = Instant::now();
        assert!(group.reap_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
        assert!(begin.elapsed() >= Duration::from_millis(20));
        group.send(Signal::KILL).unwrap();
        assert_eq!(group.reap_deadline(Duration::from_secs(10)).unwrap().code, Code::ChildKilled);
        assert_eq!(group.reap().unwrap_err().errno_name(), "ECHILD");
    });
}

#[test]
fn making_joining_adopting() {
    isolated(|| {
        fork(|| {
            let (before, me) = (Group::own(), std::process::id() as i32);
            let mine = Group::create().unwrap();
            assert_eq!((mine, mine.id()), (Group::own(), me));
            assert_ne!(before, mine);
            assert_eq!(Session::create().unwrap_err().errno_name(), "EPERM");
            let child = fork(|| {
                Group::create().unwrap();
                mine.join().unwrap();
                assert_eq!(Group::own(), mine);
                rustix::event::pause();
            });
            wait_blocked_in(child.pid(), libc::SYS_pause);
            assert_eq!(Group::of(child.pid()).unwrap(), mine);
            let childs = Group::from_id(child.pid()).unwrap();
            childs.adopt(child.pid()).unwrap();
            assert_eq!(Group::of(child.pid()).unwrap(), childs);
            // Signals to the own group do not reach it any more.
            let _blocked = SignalSet::from(Signal::USR1).block().unwrap();
            Target::OwnGroup.send(Signal::USR1).unwrap();
            assert!(SignalSet::from(Signal::USR1).wait().is_ok());
            assert!(child.is_alive());
            childs.send(Signal::USR2).unwrap();
            assert_eq!(child.wait(), Exit::Signal(libc::SIGUSR2));

            let error = Group::from_id(30_000).unwrap().join().unwrap_err();
            assert_eq!((error.errno_name(), error.operation()), ("EPERM", "setpgid"));
            let sleep = ginnel_testkit::spawn(Command::new("sleep").arg("1000"));
            wait_until("it executes", || {
                std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid())).unwrap() == "sleep\n"
            });
            let error = mine.adopt(sleep.pid()).unwrap_err();
            assert_eq!(error.errno_name(), "EACCES");
            assert!(error.to_string().contains("process_group"), "{error}");
            assert_eq!(mine.adopt(1).unwrap_err().errno_name(), "ESRCH");
            assert_eq!(Group::of(30_000).unwrap_err().errno_name(), "ESRCH");
            for bad in [0, -1] {
                assert_eq!(Group::from_id(bad).unwrap_err().errno_name(), "EINVAL");
                assert_eq!(Group::of(bad).unwrap_err().errno_name(), "EINVAL");
                assert_eq!(Session::of(bad).unwrap_err().errno_name(), "EINVAL");
            }
        })
        .assert_ok();
    });
}

/// A group or session that this PID namespace does not see has the number 0.
#[test]
fn a_number_outside_of_the_namespace_is_zero() {
    isolated(|| {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<i32> = text
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .skip(2)
            .take(2)
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!([Group::own().id(), Session::own().id()], fields[..]);
        assert_eq!(Session::own(), Session::of(std::process::id() as i32).unwrap());
        if Group::own().id() == 0 {
            assert_eq!(Group::own().send(Signal::CONT).unwrap_err().errno_name(), "EINVAL");
        }
    });
}

/// A new session on a new terminal; gives the terminal and keeps its other end open.
fn on_a_terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let session = Session::create().unwrap();
    assert_eq!(session.id(), std::process::id() as i32);
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    assert_eq!(Group::in_foreground(&terminal).unwrap_err().errno_name(), "ENOTTY");
    assert_eq!(group::is_foreground().unwrap_err().errno_name(), "ENXIO");
    Session::claim_terminal(&terminal).unwrap();
    // When the master is closed, at the end.
    Signal::HUP.ignore().unwrap();
    (master, terminal)
}

#[test]
fn the_foreground_is_handed_over_and_comes_back() {
    isolated(|| {
        fork(|| {
            let (_master, terminal) = on_a_terminal();
            assert_eq!(Session::of_terminal(&terminal).unwrap(), Session::own());
            assert_eq!(Group::in_foreground(&terminal).unwrap(), Group::own());
            assert!(group::is_foreground().unwrap());
            let job = fork(|| {
                rustix::event::pause();
            });
            let jobs = Group::from_id(job.pid()).unwrap();
            jobs.adopt(job.pid()).unwrap();
            {
                let _its_turn = jobs.to_foreground(&terminal).unwrap();
                assert_eq!(Group::in_foreground(&terminal).unwrap(), jobs);
                assert!(!group::is_foreground().unwrap());
                // Back again, from the background: SIGTTOU would stop this process here.
            }
            assert_eq!(Group::in_foreground(&terminal).unwrap(), Group::own());
            jobs.to_foreground(&terminal).unwrap().keep();
            assert_eq!(Group::in_foreground(&terminal).unwrap(), jobs);
            assert_eq!(Disposition::current(Signal::TTOU).unwrap(), Disposition::Default);
            assert!(SignalSet::blocked().is_empty());
            let error = Group::from_id(1).unwrap().to_foreground(&terminal).unwrap_err();
            assert_eq!(error.errno_name(), "EPERM");
            job.kill();
            assert_eq!(job.wait(), Exit::Signal(libc::SIGKILL));
        })
        .assert_ok();
    });
}

/// Ctrl-C on the terminal is a signal of the kernel's to the foreground group, not to the others.
#[test]
fn control_c_reaches_the_foreground_only() {
    isolated(|| {
        fork(|| {
            let (master, terminal) = on_a_terminal();
            let job = fork(|| {
                let interrupts = SignalSet::from(Signal::INT);
                let _blocked = interrupts.block().unwrap();
                let info = interrupts.wait().unwrap();
                assert_eq!((info.code, info.pid), (Code::Kernel, 0));
            });
            let jobs = Group::from_id(job.pid()).unwrap();
            jobs.adopt(job.pid()).unwrap();
            wait_blocked_in(job.pid(), libc::SYS_rt_sigtimedwait);
            let _its_turn = jobs.to_foreground(&terminal).unwrap();
            rustix::io::write(master.as_fd(), b"\x03").unwrap();
            job.assert_ok();
        })
        .assert_ok();
    });
}

#[test]
fn no_terminal() {
    let (pipe, _writer) = std::io::pipe().unwrap();
    for error in [
        Group::in_foreground(&pipe).map(drop),
        Session::of_terminal(&pipe).map(drop),
        Group::own().to_foreground(&pipe).map(drop),
        Session::claim_terminal(&pipe),
    ] {
        assert_eq!(error.unwrap_err().errno_name(), "ENOTTY");
    }
}
