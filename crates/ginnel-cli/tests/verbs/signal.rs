//! `ginnel signal`.

use std::process::{Command, Stdio};

use ginnel::notify::{Signal, SignalSet};
use ginnel_testkit::{Exit, fork, isolated, spawn, unprivileged, wait_blocked_in};

use crate::support::{fails, failures, finished, ok, start, wrong_usage};

#[test]
fn a_process_is_ended_and_waited_for() {
    isolated(|| {
        let sleeper = spawn(Command::new("sleep").arg("1000"));
        ok(&["signal", &sleeper.pid().to_string(), "--timeout", "20s"]);
        assert_eq!(sleeper.wait(), Exit::Signal(libc::SIGTERM));
        let sleeper = spawn(Command::new("sleep").arg("1000"));
        ok(&["signal", &format!("signal:{}", sleeper.pid()), "-s", "kill"]);
        assert_eq!(sleeper.wait(), Exit::Signal(libc::SIGKILL));
    });
}

#[test]
fn one_that_goes_on_is_told() {
    isolated(|| {
        let stubborn = fork(|| {
            let _blocked = SignalSet::from(Signal::TERM).block().unwrap();
            SignalSet::from(Signal::USR1).wait().unwrap();
        });
        wait_blocked_in(stubborn.pid(), libc::SYS_rt_sigtimedwait);
        let pid = stubborn.pid().to_string();
        for timeout in ["5ms", "0"] {
            let stderr = fails(1, &["signal", &pid, "--timeout", timeout]);
            assert!(stderr.contains("still runs"), "{stderr}");
        }
        // The wait is ended by the process's end, not by the signal.
        let waiter = start(&["signal", &pid, "-s", "CONT", "--timeout", "20s"]);
        wait_blocked_in(waiter.pid(), libc::SYS_ppoll);
        stubborn.kill();
        stubborn.wait();
        finished(waiter);
    });
}

#[test]
fn real_time_signals_queue_with_their_values() {
    isolated(|| {
        let child = fork(|| {
            let signals = SignalSet::from(Signal::realtime(2).unwrap());
            let _blocked = (signals | Signal::USR1).block().unwrap();
            SignalSet::from(Signal::USR1).wait().unwrap();
            for expected in [7, 7, 7, -1] {
                assert_eq!(signals.wait().unwrap().payload.unwrap().int(), expected);
            }
        });
        wait_blocked_in(child.pid(), libc::SYS_rt_sigtimedwait);
        let pid = child.pid().to_string();
        ok(&["signal", &pid, "-s", "RTMIN+2", "--value", "7", "--count", "3"]);
        ok(&["signal", &pid, "-s", "SIGRTMIN+2", "--value", "-1"]);
        ok(&["signal", &pid, "-s", "10"]);
        child.assert_ok();
    });
}

#[test]
fn a_process_group_is_reached() {
    isolated(|| {
        let mut command = Command::new("sh");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["-c", "sleep 1000 & echo ready; wait"]).stdout(Stdio::piped());
        let mut group = spawn(&mut command);
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut group.stdout().unwrap(), &mut ready).unwrap();
        ok(&["signal", "-s", "TERM", "--", &format!("-{}", group.pid())]);
        assert_eq!(group.wait(), Exit::Signal(libc::SIGTERM));

        let mut command = Command::new("sleep");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let group = spawn(command.arg("1000"));
        ok(&["signal", &format!("-{}", group.pid()), "-s", "INT"]);
        assert_eq!(group.wait(), Exit::Signal(libc::SIGINT));
    });
}

#[test]
fn the_list_has_names_and_numbers() {
    let list = ok(&["signal", "--list"]);
    for (number, name) in [("15", "SIGTERM"), ("9", "SIGKILL"), ("36", "SIGRTMIN+2")] {
        let found = list.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[..2] == [number, name]
        });
        assert!(found, "{name}: {list}");
    }
}

#[test]
fn bad_input() {
    isolated(|| {
        failures(&[
            (&["signal", "999999"], &["signal:999999", "ESRCH", "no such process"]),
            (&["signal", "999999", "--timeout", "1s"], &["ESRCH"]),
            (&["signal", "-s", "INT", "--", "-999999"], &["ESRCH"]),
        ]);
        wrong_usage(&[
            (&["signal"], "required"),
            (&["signal", "0"], "a target is a process"),
            (&["signal", "init"], "a target is a process"),
            (&["signal", "1", "-s", "USR17"], "USR17"),
            (&["signal", "--value", "1", "--", "-5"], "goes to one process"),
            (&["signal", "--timeout", "1s", "--", "-5"], "the end of one process"),
        ]);
        unprivileged(|| {
            let stderr = fails(1, &["signal", "1"]);
            assert!(stderr.contains("EPERM"), "{stderr}");
        })
        .assert_ok();
    });
}
