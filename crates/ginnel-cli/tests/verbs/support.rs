//! Running the command, and what it says.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use ginnel_testkit::{Spawned, run, run_ok, spawn};
use serde_json::Value;

pub(crate) fn ginnel(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.args(args);
    command
}

/// Succeeds; its standard output.
#[track_caller]
pub(crate) fn ok(args: &[&str]) -> String {
    run_ok(&mut ginnel(args))
}

/// Ends with that exit code and prints nothing; its standard error.
#[track_caller]
pub(crate) fn fails(code: i32, args: &[&str]) -> String {
    failed(code, args, &run(&mut ginnel(args)))
}

#[track_caller]
pub(crate) fn failed(code: i32, args: &[&str], output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert!(stderr.starts_with("ginnel: ") || code == 2, "{args:?}: {stderr}");
    stderr
}

/// Each line is a wrong command line: exit code 2, and these words on standard error.
#[track_caller]
pub(crate) fn wrong_usage(cases: &[(&[&str], &str)]) {
    for (args, words) in cases {
        let stderr = fails(2, args);
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

/// Each line is a failure: exit code 1, and all of these words on standard error.
#[track_caller]
pub(crate) fn failures(cases: &[(&[&str], &[&str])]) {
    for (args, words) in cases {
        let stderr = fails(1, args);
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        for word in *words {
            assert!(stderr.contains(word), "{args:?} lacks {word:?}: {stderr}");
        }
    }
}

/// With this as its standard input; succeeds.
#[track_caller]
pub(crate) fn fed(args: &[&str], input: &[u8]) -> String {
    let mut command = ginnel(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = spawn(&mut command);
    running.stdin().unwrap().write_all(input).unwrap();
    let output = running.wait_with_output();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Started, with its output to be collected.
#[track_caller]
pub(crate) fn start(args: &[&str]) -> Spawned {
    spawn(ginnel(args).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// What it printed; it must have succeeded.
#[track_caller]
pub(crate) fn finished(running: Spawned) -> String {
    let output = running.wait_with_output();
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
