//! `cargo run -p ginnel-inspect --example picture -- 'cat /etc/passwd | grep root | sort'`: the launch of a pipeline, call
//! by call. Words are split at blanks, without quotes.

use ginnel_inspect::picture::{Renderer, picture};
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{Write, stdout};
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let line =
        env::args().nth(1).ok_or("a pipeline is missing, such as 'cat /etc/passwd | grep root | sort'")?;
    let stages: Vec<Vec<OsString>> =
        line.split('|').map(|stage| stage.split_whitespace().map(OsString::from).collect()).collect();

    let mut renderer = Renderer::new();
    let outcome = picture(&stages, |step| stdout().write_all(renderer.render(step).as_bytes()))?;

    Ok(ExitCode::from(outcome.stages.last().map_or(0, |stage| stage.shell_status() as u8)))
}
