//! `ginnel pipe --picture`: the launch call by call, then what the pipeline writes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use ginnel::stream::Pipeline;
use ginnel_inspect::picture::{Outcome, Renderer, StageOutcome, Step, picture};

use super::Args;
use crate::failure::{Context, Failure, Result};
use crate::output;

pub(super) fn run(pipeline: &Pipeline, args: &Args) -> Result {
    if pipeline.stages().iter().any(|stage| !stage.redirects.is_empty()) {
        return Err(Failure::usage(
            "--picture shows pipe, fork, dup2, close and exec, and has no redirections; leave out <, > and 2>&1, or \
             put them into a stage of its own: sh -c '... < file'",
        ));
    }
    let stages: Vec<Vec<OsString>> = pipeline.stages().iter().map(|stage| stage.arguments.clone()).collect();
    let mut closed = false;
    let outcome = match args.json {
        true => json(&stages, &mut closed)?,
        false => text(&stages, &mut closed),
    };
    match outcome {
        Ok(outcome) => {
            if args.status {
                output::tell(super::statuses_text(outcome.stages.iter().map(named_status)));
            }
            let failed =
                outcome.stages.iter().rev().map(StageOutcome::shell_status).find(|status| *status != 0);
            Ok(ExitCode::from(failed.unwrap_or(0) as u8))
        }
        Err(_) if closed => Err(Failure::OutputClosed),
        Err(error) => Err(Failure::failed(error)),
    }
}

type Pictured = ginnel_inspect::Result<Outcome>;

/// The steps on standard output, a line below them, and the pipeline's own output below that.
fn text(stages: &[Vec<OsString>], closed: &mut bool) -> Pictured {
    let mut out = io::stdout();
    let columns = match rustix::termios::isatty(&out) {
        true => rustix::termios::tcgetwinsize(&out).map_or(100, |size| usize::from(size.ws_col)),
        false => 100,
    };
    let mut renderer = Renderer::new().columns(columns);
    let mut launch = Launch { stages: stages.len(), forks: 0 };
    picture(stages, |step| {
        let mut text = renderer.render(step);
        if launch.is_over(step) {
            text += &format!(
                "    all programs start now; what follows is their output\n{}\n",
                "-".repeat(columns)
            );
        }
        noted(out.write_all(text.as_bytes()).and_then(|()| out.flush()), closed)
    })
}

/// A JSON object a step on standard output; what the pipeline writes there goes to standard error.
fn json(stages: &[Vec<OsString>], closed: &mut bool) -> Result<Pictured> {
    let ours: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .map_err(io::Error::from)
        .context("standard output")?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(io::Error::from).context("standard error")?;
    let mut out = File::from(ours);
    Ok(picture(stages, |step| {
        let line = serde_json::to_string(step).map_err(io::Error::from)?;
        noted(out.write_all(format!("{line}\n").as_bytes()), closed)
    }))
}

/// Notes that whoever read the steps has gone.
fn noted(written: io::Result<()>, closed: &mut bool) -> io::Result<()> {
    *closed |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    written
}

/// Tells which step is the last.
struct Launch {
    stages: usize,
    forks: usize,
}

impl Launch {
    /// The shell's last call is to close the pipe that the last stage reads; where there is no pipe, the child's last.
    fn is_over(&mut self, step: &Step) -> bool {
        let by_shell = step.process == "shell";
        self.forks +=
            usize::from(by_shell && step.call.starts_with("fork() = ") && !step.call.contains("= -1"));
        let last_call = match self.stages {
            1 => {
                step.call.starts_with("_exit")
                    || step.call.starts_with("execve") && !step.call.contains(" = -1 ")
            }
            _ => by_shell && step.call.starts_with("close"),
        };
        self.forks == self.stages && last_call
    }
}

fn named_status(stage: &StageOutcome) -> (&str, ExitStatus) {
    let raw = match (stage.code, stage.signal) {
        (Some(code), _) => code << 8,
        (None, signal) => signal.unwrap_or(0),
    };
    (stage.command.as_str(), ExitStatus::from_raw(raw))
}
