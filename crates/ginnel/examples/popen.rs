//! popen(3), with an argument vector as well as a shell line.
//!
//!     cargo run --example popen -- read -c 'ls | wc -l'      prints what the shell line writes
//!     cargo run --example popen -- read ls -l /tmp           the same for a program and its arguments
//!     cargo run --example popen -- write sort -r             gives our input to it
//!     cargo run --example popen -- both tr a-z A-Z           both at once
//!
//! The exit code is the command's.

use std::io::{Read, Write};
use std::process::{Command, ExitCode, ExitStatus};

use ginnel::Deadline;
use ginnel::stream::Popen;
use ginnel::stream::popen::{argv, shell};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((mode, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return usage();
    };
    let command = match rest {
        [flag, line] if flag == "-c" => shell(line),
        words => argv(words),
    };
    match run(mode, command) {
        Ok(Some(status)) => ExitCode::from(status.code().unwrap_or(1) as u8),
        Ok(None) => usage(),
        Err(error) => {
            eprintln!("popen: {error}");
            ExitCode::from(127)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: popen read|write|both PROGRAM [ARGUMENT...]\n       popen read|write|both -c 'SHELL LINE'"
    );
    ExitCode::from(2)
}

fn run(mode: &str, command: Command) -> std::io::Result<Option<ExitStatus>> {
    let (mut stdin, mut stdout) = (std::io::stdin(), std::io::stdout());
    let mut popen = match mode {
        "read" => {
            let mut popen = Popen::read(command)?;
            std::io::copy(&mut popen, &mut stdout)?;
            popen
        }
        "write" => {
            let mut popen = Popen::write(command)?;
            std::io::copy(&mut stdin, &mut popen)?;
            popen
        }
        "both" => {
            let mut input = Vec::new();
            stdin.read_to_end(&mut input)?;
            let mut popen = Popen::both(command)?;
            stdout.write_all(&popen.communicate(&input, Deadline::NEVER)?)?;
            popen
        }
        _ => return Ok(None),
    };
    Ok(Some(popen.close()?))
}
