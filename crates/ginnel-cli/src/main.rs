//! The command `ginnel`: every mechanism from the shell.
//!
//! `cli.rs` says what can be typed, `cmd/<verb>.rs` does it. What the verbs share: [`failure`] (messages and exit
//! codes), [`output`] (tables, JSON, a closed pipe), [`guardian`] (nothing stays behind, whatever kills us).
#![forbid(unsafe_code)]
// They panic where nobody reads what they print.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cli;
mod cmd;
mod drop_in;
mod failure;
mod guardian;
mod home;
mod memory;
mod objects;
mod output;
mod payload;
mod rpc;
mod signals;
mod source;
mod state;
mod streams;
mod talk;
mod tour;
mod units;
mod warden;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cmd::run(cli::Cli::parse().verb) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
