//! `ginnel lock`.

use std::process::{Command, Stdio};

use ginnel::notify::Signal;
use ginnel::stream::{ByteRead, ByteWrite};
use ginnel::sync::{Flock, LockKind, RecordLocks};
use ginnel_testkit::{Exit, Spawned, isolated, run, spawn, unprivileged, wait_blocked_in, wait_until};

use crate::support::{fails, ginnel, ok, wrong_usage};

/// Runs `sleep` under a lock, and waits until it runs.
fn holding(args: &[&str]) -> Spawned {
    let mut command =
        ginnel(&[&["lock"], args, &["--", "sh", "-c", "echo locked; exec sleep 1000"]].concat());
    let mut holder = spawn(command.stdout(Stdio::piped()));
    let mut word = [0; 7];
    std::io::Read::read_exact(&mut holder.stdout().unwrap(), &mut word).unwrap();
    holder
}

fn is_free(range: impl std::ops::RangeBounds<u64>) -> bool {
    RecordLocks::create("/dev/shm/l").unwrap().try_lock(range, LockKind::Exclusive).is_ok()
}

fn is_free_whole() -> bool {
    Flock::create("/dev/shm/l").unwrap().try_lock(LockKind::Exclusive).is_ok()
}

#[test]
fn the_lock_is_held_while_the_command_runs() {
    isolated(|| {
        for kind in ["ofd", "posix"] {
            let holder = holding(&["/dev/shm/l", "--kind", kind]);
            assert!(!is_free(..), "{kind}");
            assert!(is_free_whole(), "{kind}");
            // To the command, which ends by it: so does the lock.
            holder.signal(libc::SIGTERM);
            assert_eq!(holder.wait(), Exit::Code(128 + libc::SIGTERM));
            assert!(is_free(..), "{kind}");
        }
        let holder = holding(&["flock:/dev/shm/l"]);
        assert!(!is_free_whole() && is_free(..));
        holder.signal(libc::SIGTERM);
        assert_eq!(holder.wait(), Exit::Code(128 + libc::SIGTERM));
        assert!(is_free_whole());
    });
}

#[test]
fn a_range_leaves_the_rest() {
    isolated(|| {
        for args in [&["/dev/shm/l", "--range", "10+5"][..], &["lock:/dev/shm/l#10+5"]] {
            let holder = holding(args);
            assert!(is_free(0..10) && is_free(15..));
            assert!(!is_free(14..15));
            holder.signal(libc::SIGTERM);
            holder.wait();
            assert!(is_free(..));
        }
        let holder = holding(&["/dev/shm/l", "--range", "10+0"]);
        assert!(is_free(0..10) && !is_free(1000..1001));
        drop(holder);
    });
}

#[test]
fn shared_ones_go_together() {
    isolated(|| {
        for kind in ["ofd", "posix", "flock"] {
            let file = format!("/dev/shm/{kind}");
            let _holder = holding(&[&file, "--shared", "--kind", kind]);
            ok(&["lock", "--shared", "--nonblock", "--kind", kind, &file, "--", "true"]);
            let stderr = fails(1, &["lock", "--nonblock", "--kind", kind, &file, "--", "true"]);
            assert!(stderr.contains("shared"), "{stderr}");
        }
    });
}

#[test]
fn the_holder_is_named() {
    isolated(|| {
        for (kind, whole) in [("ofd", false), ("posix", false), ("flock", true)] {
            let file = format!("/dev/shm/{kind}");
            let range: &[&str] = if whole { &[] } else { &["--range", "0+100"] };
            let holder = holding(&[&[file.as_str(), "--kind", kind], range].concat());
            for (how, errno) in [(&["--nonblock"][..], "EAGAIN"), (&["--timeout", "5ms"], "ETIMEDOUT")] {
                let args = [&["lock", "--kind", kind, &file], how, &["--", "true"]].concat();
                let stderr = fails(1, &args);
                let who = format!("process {} (ginnel)", holder.pid());
                assert!(stderr.contains(&who) && stderr.contains(errno), "{stderr}");
                let what = if whole { "the whole file, exclusive" } else { "bytes 0..100, exclusive" };
                assert!(stderr.contains(what), "{stderr}");
                // The command has the lock too, except that of a process.
                let holders = stderr.matches("process ").count();
                assert_eq!(holders, if kind == "posix" { 1 } else { 2 }, "{stderr}");
            }
        }
    });
}

#[test]
fn the_exit_code_is_the_commands() {
    isolated(|| {
        let code = |command: &[&str]| {
            let args = [&["lock", "/dev/shm/l", "--"], command].concat();
            run(&mut ginnel(&args)).status.code().unwrap()
        };
        assert_eq!(code(&["true"]), 0);
        assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 137);
        assert_eq!(code(&["/nonesuch"]), 127);
        assert_eq!(code(&["/dev/shm/l"]), 126);
    });
}

#[test]
fn the_command_has_its_streams_and_arguments() {
    isolated(|| {
        let text = ok(&["lock", "/dev/shm/l", "--", "printf", "%s|", "a b", "--", "-c"]);
        assert_eq!(text, "a b|--|-c|");
    });
}

#[test]
fn a_killed_ginnel_leaves_the_lock_to_the_command() {
    isolated(|| {
        for kind in ["ofd", "flock"] {
            let mut command = ginnel(&["lock", "/dev/shm/l", "--kind", kind, "--", "sh", "-c"]);
            command.arg("echo $$; exec cat >/dev/null").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut holder = spawn(&mut command);
            let input = holder.stdin().unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout().unwrap()), &mut line)
                .unwrap();
            holder.kill();
            holder.wait();
            let free = || if kind == "ofd" { is_free(..) } else { is_free_whole() };
            assert!(!free(), "{kind}");
            drop(input);
            wait_until("the command ends and the lock with it", free);
        }
    });
}

#[test]
fn what_runs_on_from_the_command_does_not_keep_the_lock() {
    isolated(|| {
        for kind in ["ofd", "posix", "flock"] {
            let line = "sleep 1000 >/dev/null 2>&1 &";
            ok(&["lock", "/dev/shm/l", "--kind", kind, "--", "sh", "-c", line]);
            assert!(is_free(..) && is_free_whole(), "{kind}");
        }
    });
}

#[test]
fn close_keeps_the_file_from_the_command() {
    isolated(|| {
        let list = "readlink /proc/self/fd/* | grep -c /dev/shm/l; true";
        assert_eq!(ok(&["lock", "/dev/shm/l", "--", "sh", "-c", list]), "1\n");
        assert_eq!(ok(&["lock", "/dev/shm/l", "--close", "--", "sh", "-c", list]), "0\n");
    });
}

#[test]
fn signals_go_to_the_command() {
    isolated(|| {
        for (signal, name) in [(libc::SIGINT, "INT"), (libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP")] {
            let trap = format!("trap 'echo {name}; exit 3' {name}; echo ready; while :; do read x; done");
            let mut command = ginnel(&["lock", "/dev/shm/l", "--", "sh", "-c", &trap]);
            let mut holder = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
            let _input = holder.stdin().unwrap();
            let mut output = holder.stdout().unwrap();
            std::io::Read::read_exact(&mut output, &mut [0; 6]).unwrap();
            holder.signal(signal);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut output, &mut text).unwrap();
            assert_eq!(text, format!("{name}\n"));
            assert_eq!(holder.wait(), Exit::Code(3));
        }
    });
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    isolated(|| {
        let pty = ginnel::stream::Pty::options().open().unwrap();
        let script = "n=0; trap 'n=$((n+1)); echo $n times' INT; echo ready; read x; read x; exit $n";
        let command = ginnel(&["lock", "/dev/shm/l", "--", "bash", "-c", script]);
        let mut holder = pty.spawn(command).unwrap();
        let mut shown = String::new();
        let mut until = |words: &str| {
            while !shown.contains(words) {
                let mut buffer = [0; 256];
                let len = pty.read_deadline(&mut buffer, std::time::Duration::from_secs(20)).unwrap();
                assert_ne!(len, 0, "{shown}");
                shown.push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        };
        until("ready");
        // So that what it would send on is not one with what the terminal sends.
        let ginnel = ginnel::notify::PidFd::of_child(&holder).unwrap();
        ginnel.send(Signal::STOP).unwrap();
        pty.write_all_deadline(b"\x03", std::time::Duration::from_secs(20)).unwrap();
        until("1 times");
        ginnel.send(Signal::CONT).unwrap();
        wait_blocked_in(holder.id() as i32, libc::SYS_ppoll);
        pty.write_all_deadline(b"\n\n", std::time::Duration::from_secs(20)).unwrap();
        assert_eq!(holder.wait().unwrap().code(), Some(1), "{shown}");
    });
}

#[test]
fn what_is_ignored_stays_ignored() {
    isolated(|| {
        let mut command = Command::new("sh");
        let line = format!(
            "trap '' HUP; exec {} lock /dev/shm/l -- sh -c 'kill -HUP $$; echo alive'",
            env!("CARGO_BIN_EXE_ginnel")
        );
        let output = run(command.args(["-c", &line]));
        assert_eq!(output.stdout, b"alive\n");
    });
}

#[test]
fn one_that_waits_is_ended_by_ctrl_c() {
    isolated(|| {
        let _holder = holding(&["/dev/shm/l"]);
        let waiter = spawn(&mut ginnel(&["lock", "/dev/shm/l", "--", "true"]));
        wait_until("it waits", || std::fs::read_to_string("/proc/locks").unwrap().contains("-> OFDLCK"));
        waiter.signal(libc::SIGINT);
        assert_eq!(waiter.wait(), Exit::Signal(libc::SIGINT));
    });
}

#[test]
fn bad_input() {
    isolated(|| {
        wrong_usage(&[
            (&["lock", "/dev/shm/l"], "COMMAND"),
            (&["lock", "--range", "5", "/dev/shm/l", "--", "true"], "OFFSET+LENGTH"),
            (&["lock", "--range", "0+5", "--kind", "flock", "/dev/shm/l", "--", "true"], "whole files"),
            (&["lock", "--nonblock", "--timeout", "1s", "/dev/shm/l", "--", "true"], "--timeout"),
            (&["lock", "lock:/dev/shm/l#x", "--", "true"], "OFFSET+LENGTH"),
        ]);
        assert!(fails(1, &["lock", "/nowhere/l", "--", "true"]).contains("ENOENT"));
        assert!(fails(1, &["lock", "/dev/shm", "--", "true"]).contains("EISDIR"));
        let set_mode = |mode| {
            std::fs::set_permissions("/dev/shm/l", std::os::unix::fs::PermissionsExt::from_mode(mode))
                .unwrap();
        };
        std::fs::write("/dev/shm/l", "").unwrap();
        set_mode(0o600);
        unprivileged(|| {
            for kind in ["ofd", "posix", "flock"] {
                let stderr = fails(1, &["lock", "--kind", kind, "/dev/shm/l", "--", "true"]);
                assert!(stderr.contains("EACCES"), "{stderr}");
            }
        })
        .assert_ok();
        set_mode(0o644);
        unprivileged(|| {
            // A shared lock, and any flock, needs the right to read only.
            ok(&["lock", "--shared", "/dev/shm/l", "--", "true"]);
            ok(&["lock", "--kind", "flock", "/dev/shm/l", "--", "true"]);
            assert!(fails(1, &["lock", "/dev/shm/l", "--", "true"]).contains("EACCES"));
        })
        .assert_ok();
    });
}
