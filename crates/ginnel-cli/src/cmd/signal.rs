//! `ginnel signal`: to a process or a process group, with a number if it is to carry one.

use std::process::ExitCode;

use ginnel::Endpoint;
use ginnel::notify::{PidFd, Signal, Target};

use crate::args::Wait;
use crate::failure::{Failure, Result};
use crate::output;

/// Send a signal, and with --timeout wait until the process has ended.
///
/// The process is held by a descriptor (a pidfd) from before the signal until its end: another process that gets the same
/// number meanwhile is not mistaken for it. With --timeout the exit code is 1 if it still runs then.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel signal 4711
  ginnel signal 4711 -s USR1 --value 3
  ginnel signal -s INT -- -4711
  ginnel signal 4711 -s TERM --timeout 10s || ginnel signal 4711 -s KILL
  ginnel signal --list")]
pub(crate) struct Args {
    /// A process (4711), a process group (-4711), or either as signal:4711.
    #[arg(required_unless_present = "list", allow_negative_numbers = true, value_parser = target)]
    target: Option<i32>,
    /// TERM, SIGTERM, 15, RTMIN+2.
    #[arg(short, long, default_value = "TERM", value_parser = str::parse::<Signal>)]
    signal: Signal,
    /// A number that goes with it (sigqueue): a handler or signalfd reads it.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    value: Option<i32>,
    /// Send it this many times; real-time signals queue, others do not.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// List the signals: number, name, what they do by default, what they mean.
    #[arg(long, conflicts_with = "target")]
    list: bool,
    #[command(flatten)]
    wait: Wait,
}

fn target(text: &str) -> std::result::Result<i32, String> {
    let endpoint = if text.starts_with("signal:") { text.to_string() } else { format!("signal:{text}") };
    match endpoint.parse() {
        Ok(Endpoint::Signal(target)) => Ok(target),
        _ => Err("a target is a process, 4711, or a process group, -4711".into()),
    }
}

pub(crate) fn run(args: Args) -> Result {
    let Some(target) = args.target else { return list() };
    if args.wait.timeout.is_none() {
        for _ in 0..args.count {
            send(target, args.signal, args.value)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if target < 0 {
        return Err(Failure::usage("--timeout waits for the end of one process, not of a process group"));
    }
    let process = PidFd::open(target)?;
    for _ in 0..args.count {
        match args.value {
            Some(value) => process.queue(args.signal, value)?,
            None => process.send(args.signal)?,
        }
    }
    process.wait_deadline(args.wait.deadline()).map_err(|error| {
        let still_runs = error.is_timed_out() || error.is_would_block();
        let why =
            || format!("signal:{target}: the process still runs: it has not ended before the --timeout");
        if still_runs { Failure::failed(why()) } else { error.into() }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Sends it once.
pub(crate) fn send(target: i32, signal: Signal, value: Option<i32>) -> Result<()> {
    let to = Target::from_kill(target);
    match value {
        Some(_) if target < 0 => {
            Err(Failure::usage("--value goes to one process: the kernel queues none for a process group"))
        }
        Some(value) => Ok(to.queue(signal, value)?),
        None => Ok(to.send(signal)?),
    }
}

fn list() -> Result {
    let mut table = output::table(&["NUMBER", "NAME", "DEFAULT", "MEANING"], &[0]);
    for signal in Signal::all() {
        let action = format!("{:?}", signal.default_action()).to_lowercase();
        table.add_row([
            signal.number().to_string(),
            signal.to_string(),
            action,
            signal.meaning().to_string(),
        ]);
    }
    output::line(output::trim_lines(&table.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
