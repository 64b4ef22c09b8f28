//! `ginnel pipe`: a pipeline run, pictured call by call, or measured.
//!
//! The stages stay in this process's group, as those of `sh -c` do: Ctrl-C and Ctrl-Z reach them all, they may read
//! from the terminal, and so may whatever this command is piped into.

mod picture;
mod relay;
mod stats;
mod watch;

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use ginnel::notify::Signal;
use ginnel::stream::Pipeline;
use ginnel::stream::pipeline::{PipelineStatus, StageStatus};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::guardian::Guardian;
use crate::output;
use crate::signals;
use relay::Relay;
use watch::{End, Watch};

/// Run a pipeline as a shell does; show how it is launched, or which stage holds the others up.
///
/// LINE is commands with | between them, with quotes and with <, >, >>, 2> and 2>&1 as in a shell. What needs a shell
/// ($, *, ;, &) is refused.
///
/// The exit code is the last one that is not 0 of any stage (as with `set -o pipefail`), 128 and the signal for a stage
/// that a signal killed. 127: a program is not there; 126: it cannot be executed. Nothing has run then.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --picture the steps are on standard output, and what the pipeline writes follows them, below a line.
With --picture --json it goes to standard error: on standard output there is one JSON object a step, no more.
With --stats and --status standard output is the pipeline's, and what they tell is on standard error, JSON too.
--stats has two pipes between two stages, and moves the bytes from one to the other.

Examples:
  ginnel pipe 'cat /etc/passwd | grep root | sort'
  ginnel pipe --picture 'cat /etc/passwd | grep root | sort'
  ginnel pipe --stats 'zcat access.log.gz | grep -v bot | sort | uniq -c' > pages
  ginnel pipe --timeout 5s --status 'find / -name core | head -1'")]
#[command(group = clap::ArgGroup::new("report").args(["picture", "stats", "status"]).multiple(true))]
pub(crate) struct Args {
    /// The pipeline, quoted as one word.
    line: String,
    /// Launch it call by call, with every descriptor table and the open file table after each.
    #[arg(long, conflicts_with_all = ["stats", "timeout"])]
    picture: bool,
    /// Count the bytes between the stages, and find the stage that the others wait for.
    #[arg(long)]
    stats: bool,
    /// Tell how each stage ended.
    #[arg(long)]
    status: bool,
    /// Print JSON in place of text: numbers as numbers, times in ns.
    #[arg(long, requires = "report")]
    json: bool,
    /// Kill all that still runs after this time (500ms, 5s, 2m), and exit with 1.
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    timeout: Option<Duration>,
}

/// A stage's end, for `--status --json`.
#[derive(Serialize)]
struct StageEnd {
    command: String,
    code: Option<i32>,
    signal: Option<i32>,
}

impl From<&StageStatus> for StageEnd {
    fn from(stage: &StageStatus) -> StageEnd {
        let StageStatus { command, status, .. } = stage;
        StageEnd { command: command.clone(), code: status.code(), signal: status.signal() }
    }
}

pub(crate) fn run(args: Args) -> Result {
    let pipeline = Pipeline::parse(&args.line).map_err(|error| {
        let why = error.hint().map_or_else(|| error.to_string(), str::to_owned);
        Failure::usage(format!("{:?} is no pipeline: {why}", args.line))
    })?;
    if args.picture {
        return picture::run(&pipeline, &args);
    }
    let mut guardian = Guardian::start()?;
    guardian.leave_terminal()?;
    let caught = watch::signals()?;
    let mut running =
        match pipeline.callers_group(true).tapped(args.stats).announce(guardian.process_ids()?).spawn() {
            Ok(running) => running,
            Err(error) => return Ok(not_started(&error)),
        };
    let mut relay = Relay::new(std::mem::take(&mut running.taps), running.pids().len());
    let mut watch = Watch::new(&running, caught)?;
    let end = watch.until_ended(&mut relay, args.timeout)?;
    if let End::TimedOut = end {
        let late = watch.living();
        watch.kill();
        running.wait()?;
        return Err(Failure::failed(timed_out(args.timeout.unwrap_or_default(), &late)));
    }
    let status = running.wait()?;
    // Now, so that nothing is said after what is said below.
    drop(guardian);
    match (args.stats, args.json, args.status) {
        (true, true, _) => output::tell(relay.json(&status) + "\n"),
        (true, false, _) => output::tell(relay.text(&status)),
        (false, true, true) => output::tell(statuses_json(&status.stages) + "\n"),
        _ => {}
    }
    if args.status && !args.json {
        output::tell(statuses_text(status.stages.iter().map(|stage| (stage.command.as_str(), stage.status))));
    }
    if let Some(signal) = watch.received() {
        signals::die_of(signal);
    }
    Ok(exit_code(&status))
}

fn not_started(error: &ginnel::Error) -> ExitCode {
    output::tell(format!("ginnel: {error}\n"));
    match (error.operation(), error.errno_name()) {
        ("execve", "ENOENT") => ExitCode::from(127),
        ("execve", _) => ExitCode::from(126),
        _ => ExitCode::from(1),
    }
}

fn timed_out(limit: Duration, late: &[String]) -> String {
    let names = late.join(", ");
    format!("not done after {limit:?}; killed what still ran: {names}; give it longer with --timeout")
}

fn exit_code(status: &PipelineStatus) -> ExitCode {
    let failed = status.stages.iter().rev().find(|stage| !stage.status.success());
    ExitCode::from(failed.map_or(0, |stage| shell_status(stage.status) as u8))
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// `stage 2 (grep root): exited with 1`, a line each.
fn statuses_text<'a>(stages: impl Iterator<Item = (&'a str, ExitStatus)>) -> String {
    let line = |(index, (command, status)): (usize, (&str, ExitStatus))| {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(number)) => match Signal::from_number(number) {
                Ok(signal) => format!("killed by {signal}"),
                Err(_) => format!("killed by signal {number}"),
            },
            (None, None) => "ended".into(),
        };
        format!("stage {} ({command}): {how}\n", index + 1)
    };
    stages.enumerate().map(line).collect()
}

fn statuses_json(stages: &[StageStatus]) -> String {
    let stages: Vec<_> = stages.iter().map(StageEnd::from).collect();
    serde_json::json!({ "stages": stages }).to_string()
}
