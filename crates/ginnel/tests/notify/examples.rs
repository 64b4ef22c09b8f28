//! The example programs, as real processes.

use std::process::Command;

use ginnel_testkit::{Exit, example, isolated, run, run_ok, unprivileged, wait_until};

use super::Talker;

fn signals(arguments: &[&str]) -> Command {
    let mut command = Command::new(example("signals"));
    command.args(arguments);
    command
}

fn start(arguments: &[&str]) -> (Talker, String) {
    let mut talker = Talker::start(&mut signals(arguments));
    let pid = talker.process.pid().to_string();
    assert!(talker.line().starts_with(&format!("{pid}: ")));
    (talker, pid)
}

#[test]
fn three_ways_to_receive() {
    isolated(|| {
        for way in ["catch", "wait", "read"] {
            let (mut receiver, pid) = start(&[way, "TERM,USR1,RTMIN+2", "12"]);
            run_ok(&mut signals(&["send", &pid, "TERM"]));
            let line = receiver.line();
            assert!(
                line.starts_with("SIGTERM by kill, from process ") && line.ends_with("of user 0"),
                "{line}"
            );
            for number in 0..10 {
                run_ok(&mut signals(&["send", &pid, "RTMIN+2", &number.to_string()]));
            }
            for number in 0..10 {
                let line = receiver.line();
                assert!(line.starts_with("SIGRTMIN+2 queued"), "{line}");
                assert!(line.ends_with(&format!("payload {number}")), "{line}");
            }
            run_ok(&mut signals(&["send", &format!("{pid}/{pid}"), "USR1"]));
            assert!(receiver.line().starts_with("SIGUSR1 to this thread"));
            receiver.process.assert_ok();
        }
    });
}

#[test]
fn what_is_not_caught_ends_it() {
    isolated(|| {
        let (receiver, pid) = start(&["catch", "TERM"]);
        run_ok(&mut signals(&["send", &pid, "HUP"]));
        assert_eq!(receiver.process.wait(), Exit::Signal(libc::SIGHUP));
    });
}

#[test]
fn ignored() {
    isolated(|| {
        let mut command = signals(&["ignore", "TERM,INT"]);
        let mut receiver = Talker::start(command.stdin(std::process::Stdio::piped()));
        let pid = receiver.process.pid().to_string();
        assert!(receiver.line().ends_with("ignoring INT,TERM"));
        run_ok(&mut signals(&["send", &pid, "TERM"]));
        let shown = run_ok(&mut signals(&["show", &pid]));
        assert!(shown.contains("ignored  INT,PIPE,TERM\n") || shown.contains(",TERM"), "{shown}");
        assert!(shown.contains("this user may signal it"), "{shown}");
        drop(receiver.process.stdin());
        assert_eq!(receiver.line(), "still here");
        receiver.process.assert_ok();
    });
}

#[test]
fn blocked_signals_wait_in_the_open() {
    isolated(|| {
        let (receiver, pid) = start(&["wait", "USR1,RTMIN+2"]);
        receiver.process.signal(libc::SIGSTOP);
        wait_until("it stops", || {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")
        });
        for _ in 0..10 {
            run_ok(&mut signals(&["send", &pid, "USR1"]));
            run_ok(&mut signals(&["send", &pid, "RTMIN+2", "1"]));
        }
        let shown = run_ok(&mut signals(&["show", &pid]));
        assert!(shown.contains("pending  USR1,RTMIN+2\n"), "{shown}");
        receiver.process.kill();
    });
}

#[test]
fn ten_and_ten() {
    isolated(|| {
        let text = run_ok(&mut signals(&["burst"]));
        assert_eq!(
            text,
            "sent 10 SIGUSR1 and 10 SIGRTMIN+2\n\
             received 1 SIGUSR1 and 10 SIGRTMIN+2: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"
        );
    });
}

#[test]
fn a_group() {
    isolated(|| {
        let text = run_ok(&mut signals(&["group"]));
        assert_eq!(text.matches("ended by SIGTERM").count(), 3, "{text}");
        assert!(text.trim_end().ends_with("is gone"), "{text}");
    });
}

#[test]
fn a_group_by_its_number() {
    isolated(|| {
        use std::os::unix::process::CommandExt;
        let mut first = Talker::start(signals(&["catch", "USR1", "1"]).process_group(0));
        let group = first.process.pid();
        let mut second = Talker::start(signals(&["wait", "USR1", "1"]).process_group(group));
        first.line();
        second.line();
        run_ok(&mut signals(&["send", &format!("-{group}"), "USR1"]));
        for mut member in [first, second] {
            assert!(member.line().starts_with("SIGUSR1 by kill"));
            member.process.assert_ok();
        }
    });
}

#[test]
fn a_fault() {
    isolated(|| {
        let text = run_ok(&mut signals(&["fault"]));
        assert!(text.contains(" died of SIGSEGV: an invalid memory reference\n"), "{text}");
    });
}

#[test]
fn nobody_may_not() {
    isolated(|| {
        let (receiver, pid) = start(&["catch", "TERM"]);
        unprivileged(move || {
            // In this process, as nobody: the program's own file may be out of nobody's reach.
            let target: ginnel::notify::Target = pid.parse().unwrap();
            let error = target.send(ginnel::notify::Signal::TERM).unwrap_err();
            assert!(error.to_string().contains("(EPERM): process"), "{error}");
        })
        .assert_ok();
        receiver.process.kill();
    });
}

#[test]
fn errors_are_told_as_they_are() {
    isolated(|| {
        let fails = |arguments: &[&str], code, text: &str| {
            let output = run(&mut signals(arguments));
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{stderr}");
            assert!(stderr.contains(text), "{stderr}");
        };
        fails(&[], 2, "usage: signals");
        fails(&["send", "30000", "TERM"], 1, "signal:30000: kill: No such process (ESRCH)");
        fails(&["send", "1", "TREM"], 1, "did you mean TERM?");
        fails(&["send", "-1000", "USR1", "5"], 1, "each member of the group");
        fails(&["catch", "KILL"], 1, "SIGKILL cannot be caught");
        fails(&["show", "30000"], 1, "ESRCH");
    });
}
