//! A shell's pipeline without a shell, and how each of its stages ended.
//!
//!     cargo run --example pipeline -- 'cat failures.txt | grep NAME | sort > sorted.txt'
//!
//! Quotes, backslash, `|`, `<`, `>`, `>>`, `2>` and `2>&1` work as in a shell; what else is special there is refused and
//! named. All stages are one process group in the terminal's foreground: Ctrl-C ends them and not this program, which
//! then says how each one ended.

use std::process::ExitCode;

use ginnel::stream::Pipeline;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [line] = &arguments[..] else {
        eprintln!("usage: pipeline 'COMMAND | COMMAND ...'");
        return ExitCode::from(2);
    };
    match run(line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: &str) -> ginnel::Result<bool> {
    let mut running = Pipeline::parse(line)?.foreground(true).spawn()?;
    let status = running.wait()?;
    for stage in &status.stages {
        eprintln!("{:>7}  {}  {}", stage.pid, stage.status, stage.command);
    }
    Ok(status.success())
}
