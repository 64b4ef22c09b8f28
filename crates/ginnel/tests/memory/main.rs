//! Shared memory: the kernel's objects, real processes, C programs as the other end.
#![allow(unsafe_code)]

mod anonymous;
mod examples;
mod fault;
mod file;
mod mapping;
mod memfd;
mod posix_shm;
mod sysv_segment;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Starts a program that says so on its standard output (a line) when it is ready, and ends when its input does.
fn start_ready(program: &Path, args: &[&str]) -> (Spawned, String) {
    let mut child = spawn(Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(child.stdout().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim_end().to_string())
}
