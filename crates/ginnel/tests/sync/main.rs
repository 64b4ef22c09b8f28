//! Tests of the sync family, a file a mechanism.
#![allow(unsafe_code)]

mod barrier;
mod condvar;
mod examples;
mod flock;
/// Not every suite needs all of it.
#[allow(dead_code)]
#[path = "../common/homes.rs"]
mod homes;
mod interrupt;
mod mutex;
mod posix_semaphore;
mod record_lock;
mod rwlock;
mod sysv_semaphore;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ginnel_testkit::Spawned;

/// Gives a signal a handler that does nothing.
fn catch(signal: i32, flags: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; all zeros is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// A C program that says "held" (or another word) when it has what it was to take, and then waits for its end.
struct Peer {
    process: Spawned,
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(command: &mut Command) -> Peer {
        let mut process = ginnel_testkit::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let output = BufReader::new(process.stdout().unwrap());
        let input = process.stdin().unwrap();
        Peer { process, input, output }
    }

    /// Its next line of output; empty at its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets it end. (A forked child has a copy of the pipe: its end alone would not be seen.)
    fn end(mut self) {
        self.enter();
        self.process.assert_ok();
    }

    /// Gives it a line to read.
    fn enter(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// Starts it and waits for its "held".
    fn holding(command: &mut Command) -> Peer {
        let mut peer = Peer::start(command);
        assert_eq!(peer.line(), "held");
        peer
    }
}

/// A file in a directory of its own.
fn lock_file() -> (ginnel_testkit::TempDir, std::path::PathBuf) {
    let directory = ginnel_testkit::temp_dir();
    let path = directory.path().join("data");
    std::fs::write(&path, "content").unwrap();
    (directory, path)
}
