//! `ginnel tour`, as a stranger runs it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel::stream::Pty;
use ginnel_testkit::{Exit, Objects, isolated_for, run, run_within, spawn, unprivileged, wait_until};
use serde_json::Value;

const ROWS: [&str; 34] = [
    "pipe",
    "two pipes",
    "FIFO",
    "pipeline",
    "popen",
    "Unix stream",
    "socketpair",
    "TCP",
    "pseudo-terminal",
    "System V queue",
    "POSIX queue",
    "Unix datagram",
    "Unix seqpacket",
    "UDP",
    "ICMP echo",
    "passed descriptor",
    "System V segment",
    "POSIX shared memory",
    "mapped file",
    "anonymous mapping",
    "memfd",
    "plain file",
    "System V semaphore set",
    "POSIX named semaphore",
    "POSIX unnamed semaphore",
    "fcntl record lock",
    "open-file-description lock",
    "flock",
    "signal",
    "queued real-time signal",
    "signalfd",
    "eventfd",
    "pidfd",
    "process group",
];

const MINUTES: Duration = Duration::from_secs(300);

fn tour(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.arg("tour").args(arguments);
    command
}

fn json(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = run_within(tour(arguments).arg("--json"), MINUTES);
    let text = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), output.status.code())
}

fn row<'a>(report: &'a Value, mechanism: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter()
        .find(|row| row["mechanism"] == mechanism)
        .unwrap_or_else(|| panic!("no {mechanism}: {report}"))
}

#[test]
fn every_mechanism_is_verified_and_nothing_stays() {
    isolated_for(MINUTES, || {
        let before = Objects::snapshot();
        let (report, code) = json(&[]);
        let rows = report["rows"].as_array().unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row["mechanism"].as_str().unwrap()).collect();
        assert_eq!(names, ROWS);
        for row in rows {
            assert_eq!(row["outcome"], "verified", "{row}");
            assert!(row["checked"].as_str().unwrap().chars().any(|c| c.is_ascii_digit()), "{row}");
            if row["mechanism"] != "pipe" {
                let trip = &row["round_trip"];
                assert!(trip["p50_ns"].as_u64().unwrap() > 0, "{row}");
                assert!(trip["p99_ns"].as_u64() >= trip["p50_ns"].as_u64(), "{row}");
                assert!(trip["count"].as_u64().unwrap() >= 100, "{row}");
            }
            if ["stream", "memory"].contains(&row["family"].as_str().unwrap()) {
                assert!(row["throughput"]["bytes_per_s"].as_f64().unwrap() > 0.0, "{row}");
            }
        }
        let in_user_space = rows.iter().filter(|row| !row["user_space"].is_null());
        let outcomes: Vec<_> = in_user_space.map(|row| &row["user_space"]["outcome"]).collect();
        assert_eq!(outcomes, ["verified"; 6]);
        assert_eq!(code, Some(0));
        before.assert_same();
        assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0, "temporary directories stayed");
    });
}

#[test]
fn the_table_is_aligned_and_has_no_progress_in_it() {
    isolated_for(MINUTES, || {
        let output = run_within(&mut tour(&["--only", "pipe,sync"]), MINUTES);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("NAME SPACE").unwrap();
        let pipe = lines.iter().find(|line| line.starts_with("  pipe ")).unwrap();
        assert!(pipe[column..].starts_with("inherited descriptor"), "{text}");
        assert!(lines.contains(&"stream") && lines.contains(&"sync"), "{text}");
        assert!(text.contains("\n9 of 9 verified, 2 of 2 in user space as well\n"), "{text}");
    });
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    isolated_for(MINUTES, || {
        let line = "set -o pipefail; \"$0\" tour --only signalfd | head -1";
        let output = run(Command::new("bash").args(["-c", line, env!("CARGO_BIN_EXE_ginnel")]));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with("MECHANISM"));
    });
}

#[test]
fn an_unknown_row_is_a_usage_error_that_names_the_rows() {
    let output = run(&mut tour(&["--only", "carrier pigeon"]));
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("carrier pigeon") && text.contains("POSIX unnamed semaphore"), "{text}");
}

#[test]
fn what_the_host_lacks_is_named_with_the_reason() {
    isolated_for(MINUTES, || {
        for limit in ["kernel/msgmni", "kernel/shmmni", "fs/mqueue/queues_max"] {
            std::fs::write(format!("/proc/sys/{limit}"), "0").unwrap();
        }
        let (report, code) = json(&["--only", "queue,segment"]);
        let rows = [("System V queue", "kernel.msgmni is 0"), ("System V segment", "kernel.shmmni is 0")];
        for (mechanism, reason) in rows {
            let row = row(&report, mechanism);
            assert_eq!(row["outcome"], "unavailable", "{row}");
            assert!(row["reason"].as_str().unwrap().contains(reason), "{row}");
        }
        assert_eq!(code, Some(0), "what is lacking has not failed");
    });
}

#[test]
fn without_the_right_to_raw_sockets_the_row_says_so() {
    isolated_for(MINUTES, || {
        unprivileged(|| {
            let (report, code) = json(&["--only", "ICMP"]);
            let row = row(&report, "ICMP echo");
            assert_eq!(row["outcome"], "unavailable", "{row}");
            assert!(row["reason"].as_str().unwrap().contains("ping_group_range"), "{row}");
            assert_eq!(code, Some(0));
        })
        .assert_ok();
    });
}

#[test]
fn a_row_that_fails_makes_the_exit_code_1() {
    isolated_for(MINUTES, || {
        let output = run(tour(&["--only", "FIFO"]).env("TMPDIR", "/nowhere/at/all"));
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("FIFO FAILED: ") && text.contains("0 of 1 verified"), "{text}");
    });
}

#[test]
fn killed_half_way_it_leaves_nothing() {
    isolated_for(MINUTES, || {
        let before = Objects::snapshot();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
            let mut command = tour(&["--only", "System V,POSIX,FIFO"]);
            let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
            wait_until("the tour makes a queue", || System::queues() > 0);
            child.signal(signal);
            assert_eq!(child.wait(), Exit::Signal(signal));
            wait_until("the guardian has removed everything and ended", || {
                System::queues() == 0 && System::files() == 0 && System::processes() == 0
            });
            before.assert_same();
        }
    });
}

/// A forked child does not inherit its parent's wish to be killed with its own parent.
#[test]
fn killed_with_a_forked_child_it_leaves_no_process() {
    isolated_for(MINUTES, || {
        for row in ["anonymous mapping", "POSIX unnamed semaphore"] {
            let start = || {
                let mut command = tour(&["--only", row]);
                spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
            };
            let mut child = start();
            wait_until("tour, runner, guardian and forked child run", || {
                if !child.is_alive() {
                    // On a busy machine it was through before we looked.
                    child = start();
                }
                System::processes() == 4
            });
            child.kill();
            assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
            wait_until("all others have ended", || System::processes() == 0);
        }
    });
}

#[test]
fn a_killed_guardian_s_directory_is_removed_all_the_same() {
    isolated_for(MINUTES, || {
        // On a busy machine a row may be over before it was seen: then another.
        let (child, guardian) = loop {
            let mut command = tour(&["--only", "FIFO"]);
            let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
            let mut guardian = None;
            wait_until("the row has its directory, or is over", || {
                guardian = System::process("__guardian").filter(|_| System::files() == 1);
                guardian.is_some() || !child.is_alive()
            });
            match guardian {
                Some(guardian) => break (child, guardian),
                None => assert_eq!(child.wait(), Exit::Code(0)),
            }
        };
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(guardian).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        assert_eq!(child.wait(), Exit::Code(0));
        assert_eq!(System::files(), 0);
    });
}

/// Its guardians are in the background there, where setting the terminal stops a process.
#[test]
fn on_a_terminal() {
    isolated_for(MINUTES, || {
        let pty = Pty::options().open().unwrap();
        let mut child = pty.spawn(tour(&["--only", "pipe,eventfd"])).unwrap();
        let mut text = Vec::new();
        // The end of the other side is the hang-up, EIO.
        let _ = (&pty).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        assert!(child.wait().unwrap().success() && text.contains("4 of 4 verified"), "{text}");
    });
}

#[test]
fn nobody_else_s_directory_is_removed() {
    isolated_for(MINUTES, || {
        for directory in ["/dev/shm/a", "/dev/shm/a\nb"] {
            std::fs::create_dir(directory).unwrap();
        }
        let output = run(tour(&["--only", "FIFO"]).env("TMPDIR", "/dev/shm/a\nb"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("FIFO FAILED: a name with a line feed"), "{text}");
        assert_eq!(System::files(), 2);
    });
}

#[test]
fn without_file_systems_for_names_the_rows_say_so() {
    isolated_for(MINUTES, || {
        let line = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec \"$0\" tour --json --only pseudo,POSIX";
        let output =
            run(Command::new("sh").args(["-c", line, env!("CARGO_BIN_EXE_ginnel")]).env("TMPDIR", "/"));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        for mechanism in ["pseudo-terminal", "POSIX shared memory", "POSIX named semaphore"] {
            assert_eq!(row(&report, mechanism)["outcome"], "unavailable", "{report}");
        }
    });
}

#[test]
fn a_full_standard_error_does_not_change_the_exit_code() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = tour(&["--only", "carrier pigeon"]);
    assert_eq!(spawn(command.stderr(full)).wait(), Exit::Code(2));
}

/// What there is in the namespaces of the test.
struct System;

impl System {
    fn queues() -> usize {
        std::fs::read_to_string("/proc/sysvipc/msg").unwrap().lines().count() - 1
    }

    fn files() -> usize {
        std::fs::read_dir("/dev/shm").unwrap().count()
    }

    /// Those that run our program.
    fn processes() -> usize {
        let is_ours = |path: std::path::PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "ginnel")
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_ours(entry.path())).count()
    }

    /// The one that has this word in its command line.
    fn process(word: &str) -> Option<i32> {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.split('\0').any(|other| other == word).then_some(entry.file_name().to_str()?.parse().ok()?)
        })
    }
}
