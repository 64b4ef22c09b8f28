//! Shared memory: the kernel's objects, real processes, C programs as the other end.
#![allow(unsafe_code)]

mod anonymous;
mod examples;
mod fault;
mod file;
/// Not every suite needs all of it.
#[allow(dead_code)]
#[path = "../common/homes.rs"]
mod homes;
mod mapping;
mod memfd;
mod posix_shm;
mod sysv_segment;

use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStdout, Command, Stdio};

use ginnel_testkit::{Spawned, spawn};

const PAGE: usize = 4096;

/// The errno's name of an error that must be one.
#[track_caller]
fn errno<T: std::fmt::Debug>(result: ginnel::Result<T>) -> &'static str {
    result.expect_err("an error").errno_name()
}

/// The hint of an error that must have one.
#[track_caller]
fn hint<T: std::fmt::Debug>(result: ginnel::Result<T>) -> String {
    let error = result.expect_err("an error");
    error.hint().unwrap_or_else(|| panic!("{error} has no hint")).to_string()
}

/// A program that was started, its first line of output, and what it says afterwards.
struct Started {
    child: Spawned,
    line: String,
    output: BufReader<ChildStdout>,
}

/// Starts a program, and waits for the line that it prints when it is ready. Its input is a pipe.
fn start(command: &mut Command) -> Started {
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut output = BufReader::new(child.stdout().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    Started { child, line: line.trim_end().to_string(), output }
}

impl Started {
    /// All that it prints from now on.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }
}
