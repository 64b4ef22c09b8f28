//! What a process does about its signals, seen from outside.

use std::os::unix::process::CommandExt;
use std::process::Command;

use ginnel::notify::{Disposition, Handler, Signal, SignalSet, Status, Target};
use ginnel_testkit::{Exit, fork, isolated, spawn, unprivileged, wait_blocked_in, wait_until};

use super::me;

#[test]
fn ignored_signals_do_nothing_and_survive_exec() {
    isolated(|| {
        fork(|| {
            assert_eq!(Signal::TERM.ignore().unwrap(), Disposition::Default);
            me().send(Signal::TERM).unwrap();
            let sleep = spawn(Command::new("sleep").arg("1000"));
            wait_until("it executes", || {
                std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid())).unwrap() == "sleep\n"
            });
            assert_eq!(Disposition::of(sleep.pid(), Signal::TERM).unwrap(), Disposition::Ignored);
            Target::Process(sleep.pid()).send(Signal::TERM).unwrap();
            Target::Process(sleep.pid()).send(Signal::INT).unwrap();
            assert_eq!(sleep.wait(), Exit::Signal(libc::SIGINT));
            assert_eq!(Signal::TERM.restore_default().unwrap(), Disposition::Ignored);
        })
        .assert_ok();
    });
}

#[test]
fn seen_from_outside() {
    isolated(|| {
        let child = fork(|| {
            let _handler = Handler::new(Signal::HUP).unwrap();
            Signal::INT.ignore().unwrap();
            let _blocked = SignalSet::from(Signal::realtime(3).unwrap()).block().unwrap();
            rustix::event::pause();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        Target::Process(child.pid()).queue(Signal::realtime(3).unwrap(), 1).unwrap();
        let pid = child.pid();
        // Anybody may look.
        unprivileged(move || {
            let status = Status::of(pid).unwrap();
            assert_eq!(status.disposition(Signal::HUP), Disposition::Caught);
            assert_eq!(status.disposition(Signal::INT), Disposition::Ignored);
            assert_eq!(status.disposition(Signal::TERM), Disposition::Default);
            assert_eq!(status.blocked, Signal::realtime(3).unwrap().into());
            assert_eq!(status.pending, Signal::realtime(3).unwrap().into());
            assert!(status.thread_pending.is_empty());
            assert!(status.queued >= 1 && status.queued_max > 0);
            assert_eq!((status.uid, status.saved_uid), (0, 0));
        })
        .assert_ok();
    });
}

#[test]
fn nobody_there() {
    isolated(|| {
        let error = Status::of(30_000).unwrap_err();
        assert_eq!(error.errno_name(), "ESRCH");
        assert!(error.is_not_found());
    });
}

#[test]
fn a_command_starts_with_clean_signals() {
    isolated(|| {
        fork(|| {
            Signal::TERM.ignore().unwrap();
            let _blocked = (Signal::INT | Signal::realtime(1).unwrap()).block().unwrap();
            let look = |command: &mut Command| {
                let text = ginnel_testkit::run_ok(command.args(["-E", "Sig(Blk|Ign)", "/proc/self/status"]));
                text.lines().map(|line| u64::from_str_radix(&line[8..], 16).unwrap()).collect::<Vec<_>>()
            };
            let mut inherits = Command::new("grep");
            assert!(look(&mut inherits).iter().all(|mask| *mask != 0));
            let mut clean = Command::new("grep");
            ginnel::process::reset_signals(clean.process_group(0));
            assert_eq!(look(&mut clean), [0, 0]);
        })
        .assert_ok();
    });
}
