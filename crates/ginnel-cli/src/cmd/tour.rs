//! `ginnel tour`: every mechanism at work, checked and timed, in one table.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use ginnel::Namespace;
use ginnel::notify::{PidFd, Signal, Target};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Context, Failure, Result};
use crate::guardian::Guardian;
use crate::home;
use crate::output;
use crate::tour::work::{RoundTrip, Throughput};
use crate::tour::{self, Direction, Family, Outcome, Passes, Processes, Row};
use crate::units;

/// Run every mechanism live between real processes, check what arrives, time it, and print one table.
///
/// Each row is a mechanism of the kernel's, worked by two processes of their own: payloads are written by one and read
/// and checked byte for byte by the other. System V and POSIX objects are worked in user space as well, in a namespace
/// that goes with the tour: the last columns. A mechanism that this host lacks is named with the reason. Exit code 1 if any
/// row failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel tour
  ginnel tour --only message
  ginnel tour --only 'pipe,POSIX queue' --json")]
pub(crate) struct Args {
    /// Only these rows or families, by (part of) their names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Print JSON: numbers as numbers, times in ns.
    #[arg(long)]
    json: bool,
}

/// A row that takes longer than this hangs.
const ROW_LIMIT: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Report {
    schema: u32,
    rows: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    mechanism: &'static str,
    family: Family,
    passes: Passes,
    direction: Direction,
    processes: Processes,
    name_space: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
    /// The same in a user-space home; null for what has none.
    user_space: Option<Outcome>,
}

pub(crate) fn run(args: Args) -> Result {
    let rows = chosen(&args.only)?;
    let progress = progress_bar(rows.len());
    let mut lines = Vec::new();
    // Whatever ends this process, the guardian takes it away.
    let mut guardian = Guardian::start()?;
    guardian.leave_terminal()?;
    let directory = Path::new("/dev/shm").join(format!("ginnel-tour-{}", std::process::id()));
    guardian.adopt_directory(&directory)?;
    let home = Namespace::options().create(true).at(&directory);
    for row in rows {
        progress.set_message(row.name);
        let outcome = run_row(row, "kernel")?;
        let user_space = match (&home, row.has_homes()) {
            (_, false) => None,
            (Ok(home), true) => Some(run_row(row, &home.to_string())?),
            (Err(error), true) => Some(Outcome::Unavailable { reason: error.to_string() }),
        };
        progress.inc(1);
        lines.push(Line {
            mechanism: row.name,
            family: row.family,
            passes: row.passes,
            direction: row.direction,
            processes: row.processes,
            name_space: row.name_space,
            outcome,
            user_space,
        });
    }
    progress.finish_and_clear();
    let _ = std::fs::remove_dir_all(&directory);
    drop(guardian);
    let has_failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. });
    let failed = lines
        .iter()
        .any(|line| has_failed(&line.outcome) || line.user_space.as_ref().is_some_and(has_failed));
    if args.json {
        output::json(&Report { schema: 1, rows: lines })?;
    } else {
        output::print(text(&lines))?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>> {
    let matches = |row: &Row, word: &String| {
        let word = word.to_lowercase();
        format!("{:?}", row.family).to_lowercase() == word || row.name.to_lowercase().contains(&word)
    };
    for word in only {
        if !tour::rows().any(|row| matches(row, word)) {
            let names = tour::rows().map(|row| row.name).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!(
                "--only {word}: no row or family has that in its name. Families: stream, message, memory, sync, notify. Rows: {names}"
            )));
        }
    }
    Ok(tour::rows().filter(|row| only.is_empty() || only.iter().any(|word| matches(row, word))).collect())
}

/// On standard error, and only if that is a terminal.
fn progress_bar(rows: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{pos:>3}/{len} {wide_msg}").expect("a valid template");
    ProgressBar::new(rows as u64).with_style(style)
}

/// Runs a row's runner in a process group of its own, so that a row that hangs can be ended with all its processes.
fn run_row(row: &Row, home: &str) -> Result<Outcome> {
    let mut runner = Command::new(std::env::current_exe().context("finding this program")?)
        .args([tour::VERB, row.name, "--parent", &std::process::id().to_string()])
        .env(home::VARIABLE, home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting a process")?;
    let ended = ends_within(&runner, ROW_LIMIT)?;
    if !ended {
        // A group that has just ended by itself is what we want too.
        let _ = Target::Group(runner.id() as i32).send(Signal::KILL);
    }
    let (printed, complaints) = (drain(runner.stdout.take())?, drain(runner.stderr.take())?);
    let status = runner.wait().context("waiting for a row")?;
    if !ended {
        return Ok(Outcome::Failed { reason: format!("not done after {ROW_LIMIT:?}; {complaints}") });
    }
    Ok(match serde_json::from_str(&printed) {
        Ok(Outcome::Failed { reason }) if !complaints.is_empty() => {
            Outcome::Failed { reason: format!("{reason}; {}", complaints.trim()) }
        }
        Ok(outcome) => outcome,
        Err(_) => {
            Outcome::Failed { reason: format!("its process ended with {status}: {}", complaints.trim()) }
        }
    })
}

fn ends_within(child: &Child, limit: Duration) -> Result<bool> {
    match PidFd::of_child(child)?.wait_deadline(limit) {
        Ok(()) => Ok(true),
        Err(error) if error.is_timed_out() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn drain(pipe: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_string(&mut text).context("reading from a row's process")?;
    }
    Ok(text)
}

/// The table, a block a family, and what fell short below it.
fn text(lines: &[Line]) -> String {
    let header = [
        "MECHANISM",
        "PASSES",
        "DIRECTION",
        "PROCESSES",
        "NAME SPACE",
        "VERIFIED",
        "RTT P50",
        "P99",
        "THROUGHPUT",
        "USER SPACE P50",
        "P99",
        "THROUGHPUT",
    ];
    let mut table = output::table(&header, &[6, 7, 8, 9, 10, 11]);
    let mut family = None;
    for line in lines {
        if family != Some(line.family) {
            family = Some(line.family);
            table.add_row([word(&line.family)]);
        }
        table.add_row(cells(line));
    }
    let mut text = format!("{}\n", output::trim_lines(&table.to_string()));
    for line in lines {
        let mut tell = |outcome: &Outcome, place: &str| match outcome {
            Outcome::Failed { reason } => text += &format!("\n{}{place} FAILED: {reason}", line.mechanism),
            Outcome::Unavailable { reason } => {
                text += &format!("\n{}{place} is not to be had here: {reason}", line.mechanism)
            }
            Outcome::Verified(_) => {}
        };
        tell(&line.outcome, "");
        if let Some(outcome) = &line.user_space {
            tell(outcome, " in user space");
        }
    }
    let verified = lines.iter().filter(|line| matches!(line.outcome, Outcome::Verified(_))).count();
    let homes: Vec<_> = lines.iter().filter_map(|line| line.user_space.as_ref()).collect();
    let ours = homes.iter().filter(|outcome| matches!(outcome, Outcome::Verified(_))).count();
    let ours = match homes.len() {
        0 => String::new(),
        all => format!(", {ours} of {all} in user space as well"),
    };
    text + &format!("\n{verified} of {} verified{ours}\n{LEGEND}", lines.len())
}

const LEGEND: &str = "\
RTT: a request and its reply, 64 B each; semaphores: a turn there and back; locks: lock, count and unlock, while another
process does the same; signals: there and back; pidfd: from the kill to the news. Two processes, payload written, read and
checked; shared memory hands over by looking and yielding. User space: the same work on the same kind of object in a
directory of a memory file system, by shared memory and futexes. Throughput of semaphores, locks and eventfd: what one process
can do alone. Figures of one short run: compare rows, not machines.
";

fn cells(line: &Line) -> Vec<String> {
    let mut cells = vec![
        format!("  {}", line.mechanism),
        word(&line.passes),
        word(&line.direction),
        word(&line.processes),
        line.name_space.to_string(),
    ];
    cells.push(match &line.outcome {
        Outcome::Verified(_) => "yes".into(),
        Outcome::Failed { .. } => "FAILED".into(),
        Outcome::Unavailable { .. } => "not here".into(),
    });
    cells.extend(figures(&line.outcome, line.passes, ""));
    if let Some(outcome) = &line.user_space {
        let word = match outcome {
            Outcome::Verified(_) => "",
            Outcome::Failed { .. } => "FAILED",
            Outcome::Unavailable { .. } => "not here",
        };
        cells.extend(figures(outcome, line.passes, word));
    }
    cells
}

/// Round trip and throughput; a word instead of the first where there are none.
fn figures(outcome: &Outcome, passes: Passes, without: &str) -> [String; 3] {
    let Outcome::Verified(measured) = outcome else {
        return [without.to_string(), String::new(), String::new()];
    };
    let time = |of: fn(&RoundTrip) -> u64| {
        measured.round_trip.as_ref().map_or("-".into(), |trip| units::nanoseconds(of(trip)))
    };
    let flow = measured.throughput.as_ref().map_or("-".into(), |flow| rate(flow, passes));
    [time(|trip| trip.p50_ns), time(|trip| trip.p99_ns), flow]
}

/// Bytes a second where bytes flow, messages a second where messages do.
fn rate(flow: &Throughput, passes: Passes) -> String {
    match passes {
        Passes::Stream | Passes::Memory => format!("{}/s", units::bytes(flow.bytes_per_s)),
        Passes::Message => {
            format!("{}/s of {}", units::count(flow.messages_per_s), units::bytes(flow.message_bytes as f64))
        }
        Passes::Permission | Passes::Event => format!("{}/s", units::count(flow.messages_per_s)),
    }
}

/// A name of the report as a person reads it.
fn word(name: &impl Serialize) -> String {
    serde_json::to_value(name)
        .ok()
        .and_then(|value| value.as_str().map(|name| name.replace('-', " ")))
        .unwrap_or_default()
}
