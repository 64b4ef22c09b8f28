//! The notify family against the kernel, real processes and C programs.

// Children are reaped by their pidfds and groups here, which clippy does not see.
#![allow(clippy::zombie_processes)]

mod disposition;
mod eventfd;
mod examples;
mod group;
mod handler;
mod pidfd;
mod process;
mod siginfo;
mod signal;
mod signal_set;
mod signalfd;
#[cfg(feature = "tokio")]
mod tokio;

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use ginnel_testkit::{Spawned, spawn};

/// A command whose output is read line by line while it runs.
struct Talker {
    process: Spawned,
    output: BufReader<ChildStdout>,
}

impl Talker {
    fn start(command: &mut Command) -> Talker {
        let mut process = spawn(command.stdout(Stdio::piped()));
        let output = BufReader::new(process.stdout().unwrap());
        Talker { process, output }
    }

    /// The next line, without its end; empty at the end of the output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// The thread's own process, in which no other thread can take a signal.
fn me() -> ginnel::notify::Target {
    ginnel::notify::Target::this_process()
}
