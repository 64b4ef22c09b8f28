//! `ginnel bench`: the user-space home against the kernel's, measured in the same run.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::notify::{PidFd, Signal, Target as Whom};
use ginnel::sysv::Key;
use ginnel_bench::{
    Distance, Figure, Figures, Home, Limits, Measured, OBJECTS_MAX, Outcome, Place, Row, Settings, Target,
    Verdict, measure, rows, verdicts,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Context, Failure, Result};
use crate::guardian::Guardian;
use crate::{output, units};

/// The verb that measures one row.
pub(crate) const VERB: &str = "__bench-row";

/// Measure the user-space home against the kernel's home, on this machine, and print one table.
///
/// Each row is a piece of work that real processes do in both homes, interleaved in random order in the same run, with
/// payloads that are written, read and checked. The kernel's home is the C library's calls and nothing between. Rows
/// named pair/... are one process with nobody waiting; trip/... a request and its reply between two processes that do
/// nothing else, think/... with 200 us of work before each request; flow/... messages one way; crowd/... 16 processes at
/// one queue; type/... a receive by type out of a long queue; asleep/... what a blocked process costs.
///
/// Figures are medians over runs. Before and after each run the time of a cache line from one CPU to the other and back is
/// measured; a run in which it changed its class, or in which others used the CPUs, is dropped. Where no run was left to
/// itself the figures are marked with ~ and prove nothing. Nothing of the host's is touched: the kernel's objects are made in
/// an IPC namespace of their own, with high limits, where that is allowed; where not, rows that need more than the host's
/// limits say so. Exit code 1 if a row failed; a target that is missed is no failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel bench
  ginnel bench --quick pair trip/two-cores
  ginnel bench flow --runs 9 --seconds 0.5 --json
  ginnel bench --list")]
pub(crate) struct Args {
    /// Only rows with this in their names; `--list` prints them.
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// Three short runs: to see that it works.
    #[arg(long, conflicts_with_all = ["runs", "seconds"])]
    quick: bool,
    /// How many undisturbed runs to take the median of; up to twice as many are tried.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=999))]
    runs: u64,
    /// How long each home works in each run.
    #[arg(long, value_name = "S", default_value = "0.2", value_parser = seconds)]
    seconds: Duration,
    /// The two CPUs to work on, for instance 0,1; the first two that this process may use unless said.
    #[arg(long, value_name = "A,B", value_parser = cpus)]
    cpus: Option<(usize, usize)>,
    /// Print the rows and their targets, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Print JSON: numbers as numbers, times in ns.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|time| (Duration::from_millis(1)..=Duration::from_secs(60)).contains(time))
        .ok_or_else(|| "a number of seconds, from 0.001 to 60".into())
}

fn cpus(text: &str) -> std::result::Result<(usize, usize), String> {
    let pair = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    pair.filter(|(a, b)| a != b).ok_or_else(|| "two different CPUs, as in 0,1".into())
}

/// How long a blocked process is watched.
const SLEEP: Duration = Duration::from_secs(10);
const QUICK_SLEEP: Duration = Duration::from_secs(1);
const QUICK: (u64, Duration) = (3, Duration::from_millis(50));

#[derive(Serialize)]
struct Report {
    schema: u32,
    machine: Machine,
    settings: Chosen,
    rows: Vec<Line>,
}

/// What the figures are of.
#[derive(Serialize)]
struct Machine {
    kernel: String,
    cpu: Option<String>,
    cpus: usize,
}

#[derive(Serialize)]
struct Chosen {
    runs: u64,
    seconds: f64,
    blocked_seconds: f64,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    what: &'static str,
    figure: Figure,
    /// How many operations were timed together.
    batch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_bytes: Option<usize>,
    #[serde(flatten)]
    outcome: Outcome,
    targets: Vec<Verdict>,
    #[serde(skip)]
    row: &'static Row,
}

pub(crate) fn run(args: Args) -> Result {
    let rows = chosen(&args.what)?;
    if args.list {
        return list(&rows, args.json);
    }
    let (runs, time) = if args.quick { QUICK } else { (args.runs, args.seconds) };
    let sleep = if args.quick { QUICK_SLEEP } else { SLEEP };
    let settings = Settings { runs, time, sleep, cpus: args.cpus };
    let progress = progress_bar(rows.len());
    let mut lines = Vec::new();
    for row in rows {
        progress.set_message(row.name);
        let outcome = run_row(row, &settings)?;
        progress.inc(1);
        lines.push(line(row, outcome, Vec::new()));
    }
    progress.finish_and_clear();
    judge(&mut lines);
    let failed = lines.iter().any(|line| matches!(line.outcome, Outcome::Failed { .. }));
    let machine = machine();
    if args.json {
        let settings =
            Chosen { runs, seconds: time.as_secs_f64(), blocked_seconds: settings.sleep.as_secs_f64() };
        output::json(&Report { schema: 1, machine, settings, rows: lines })?;
    } else {
        output::print(text(&machine, &lines))?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn line(row: &'static Row, outcome: Outcome, targets: Vec<Verdict>) -> Line {
    Line {
        name: row.name,
        what: row.what,
        figure: row.figure(),
        batch: row.batch(),
        message_bytes: row.message_bytes(),
        outcome,
        targets,
        row,
    }
}

fn measured(line: &Line) -> Option<&Measured> {
    match &line.outcome {
        Outcome::Measured(measured) => Some(measured),
        _ => None,
    }
}

/// Some targets compare a row with another: so all must have been measured before.
fn judge(lines: &mut [Line]) {
    let other = |lines: &[Line], name: &str| lines.iter().position(|line| line.name == name);
    let all: Vec<Vec<Verdict>> = lines
        .iter()
        .map(|line| match measured(line) {
            Some(of) => {
                verdicts(line.row, of, |name| other(lines, name).and_then(|index| measured(&lines[index])))
            }
            None => Vec::new(),
        })
        .collect();
    for (line, targets) in lines.iter_mut().zip(all) {
        line.targets = targets;
    }
}

fn chosen(what: &[String]) -> Result<Vec<&'static Row>> {
    let matches = |row: &Row, word: &String| row.name.contains(&word.to_lowercase());
    for word in what {
        if !rows().iter().any(|row| matches(row, word)) {
            return Err(Failure::usage(format!(
                "{word}: no row has that in its name; `ginnel bench --list` prints them"
            )));
        }
    }
    Ok(rows().iter().filter(|row| what.is_empty() || what.iter().any(|word| matches(row, word))).collect())
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    what: &'static str,
    targets: &'static [Target],
}

fn list(rows: &[&'static Row], json: bool) -> Result {
    if json {
        let rows = rows.iter().map(|row| Listed { name: row.name, what: row.what, targets: row.targets });
        output::json(&rows.collect::<Vec<_>>())?;
    } else {
        let mut table = output::table(&["ROW", "WHAT", "TARGET"], &[]);
        for row in rows {
            let targets: Vec<_> = row.targets.iter().map(target).collect();
            table.add_row([row.name, row.what, &targets.join(", ")]);
        }
        output::line(output::trim_lines(&table.to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// On standard error, and only if that is a terminal.
fn progress_bar(rows: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{pos:>3}/{len} {wide_msg}").expect("a valid template");
    ProgressBar::new(rows as u64).with_style(style)
}

/// Measures a row in a process group of its own, so that one that hangs can be ended with all its processes.
fn run_row(row: &Row, settings: &Settings) -> Result<Outcome> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args([VERB, row.name, "--parent", &std::process::id().to_string()]);
    command.args(["--runs", &settings.runs.to_string()]);
    command.args(["--seconds", &settings.time.as_secs_f64().to_string()]);
    command.args(["--sleep", &settings.sleep.as_secs_f64().to_string()]);
    if let Some((first, second)) = settings.cpus {
        command.args(["--cpus", &format!("{first},{second}")]);
    }
    let mut runner = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("starting a process")?;
    let limit = limit(settings);
    let ended = match PidFd::of_child(&runner)?.wait_deadline(limit) {
        Ok(()) => true,
        Err(error) if error.is_timed_out() => false,
        Err(error) => return Err(error.into()),
    };
    if !ended {
        // A group that has just ended by itself is what we want too.
        let _ = Whom::Group(runner.id() as i32).send(Signal::KILL);
    }
    let (printed, complaints) = (drain(runner.stdout.take())?, drain(runner.stderr.take())?);
    let (status, complaints) = (runner.wait().context("waiting for a row")?, complaints.trim());
    if !ended {
        return Ok(Outcome::Failed { reason: format!("not done after {limit:?}; {complaints}") });
    }
    Ok(match serde_json::from_str(&printed) {
        Ok(Outcome::Failed { reason }) if !complaints.is_empty() => {
            Outcome::Failed { reason: format!("{reason}; {complaints}") }
        }
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failed { reason: format!("its process ended with {status}: {complaints}") },
    })
}

/// A row that takes longer than this hangs.
fn limit(settings: &Settings) -> Duration {
    // Filling a queue with 100,000 messages, or 16 processes that start on a busy machine, take their time too.
    let one = settings.time.mul_f64(1.1) + Duration::from_secs(3);
    let attempts = u32::try_from(2 * settings.attempts()).unwrap_or(u32::MAX);
    settings.sleep + one.saturating_mul(attempts) + Duration::from_secs(10)
}

fn drain(pipe: Option<impl Read>) -> Result<String> {
    let mut text = String::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_string(&mut text).context("reading from a row's process")?;
    }
    Ok(text)
}

/// One row, to be measured by this process.
#[derive(Debug, clap::Args)]
pub(crate) struct RowArgs {
    name: String,
    /// The process that started this one, and without which it is to end.
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    runs: u64,
    #[arg(long, value_parser = seconds)]
    seconds: Duration,
    #[arg(long, value_parser = seconds)]
    sleep: Duration,
    #[arg(long, value_parser = cpus)]
    cpus: Option<(usize, usize)>,
}

/// Measures one row and prints its outcome.
pub(crate) fn measure_row(args: RowArgs) -> Result {
    let row = rows()
        .iter()
        .find(|row| row.name == args.name)
        .ok_or_else(|| Failure::usage(format!("there is no row {:?}", args.name)))?;
    let mut guardian = Guardian::start()?;
    guardian.leave_terminal()?;
    let place = place(&mut guardian)?;
    let settings = Settings { runs: args.runs, time: args.seconds, sleep: args.sleep, cpus: args.cpus };
    let directory = place.directory.clone();
    let outcome = measure(row, &settings, place, args.parent);
    // The guardian does it again, unless it was killed.
    let _ = std::fs::remove_dir_all(directory);
    output::json(&outcome)?;
    Ok(ExitCode::SUCCESS)
}

/// Names that nobody has, of objects and a directory that the guardian removes should we be killed.
fn place(guardian: &mut Guardian) -> Result<Place> {
    let random = RandomState::new().hash_one(std::process::id());
    let place = Place {
        directory: Path::new("/dev/shm").join(format!("ginnel-bench-{random:x}")),
        key: random as i32 | 1 << 30,
        name: format!("/ginnel-bench-{random:x}"),
    };
    for number in 0..OBJECTS_MAX {
        let key = SysvName::Key(Key::new(place.key_of(number)));
        let name = place.name_of(number);
        guardian.adopt(&Endpoint::SysvQueue(key))?;
        guardian.adopt(&Endpoint::SysvSemaphore(key, None))?;
        guardian.adopt(&Endpoint::PosixQueue(name.clone()))?;
        guardian.adopt(&Endpoint::PosixSemaphore(name))?;
    }
    guardian.adopt_directory(&place.directory)?;
    std::fs::create_dir(&place.directory).context(format!("mkdir {}", place.directory.display()))?;
    Ok(place)
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.trim().into()));
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().into(),
        cpu: model,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The table, and what is to be said about it.
fn text(machine: &Machine, lines: &[Line]) -> String {
    let header = [
        "WHAT",
        "KERNEL P50",
        "P99",
        "P99.9",
        "USER P50",
        "P99",
        "P99.9",
        "RATIO",
        "TARGET",
        "REACHED",
        "MET",
    ];
    let mut table = output::table(&header, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    lines.iter().for_each(|line| {
        table.add_row(cells(line));
    });
    let mut text = format!("{}\n", output::trim_lines(&table.to_string()));
    for line in lines {
        text += &remarks(line);
    }
    let all: Vec<&Verdict> = lines.iter().flat_map(|line| &line.targets).collect();
    let met = all.iter().filter(|verdict| verdict.met == Some(true)).count();
    let cpu = machine.cpu.as_deref().unwrap_or("unknown CPUs");
    text += &format!("\n{met} of {} targets met\n", all.len());
    text += &format!("{cpu}, {} CPUs, Linux {}\n", machine.cpus, machine.kernel);
    text += &lines.iter().filter_map(measured).next().map(where_measured).unwrap_or_default();
    text + LEGEND
}

const LEGEND: &str = "\
Times are of one operation: pair/... in batches of 100 and type/... of 10, since reading the clock takes 22 ns; the others
one by one, the clock's time included. Figures are medians over runs with the homes in random order; RATIO is of the medians,
P50 or messages a second. ~: every run was disturbed.
";

fn where_measured(measured: &Measured) -> String {
    let line = match (measured.line_ns, measured.distance) {
        (Some(ns), Some(distance)) => format!(
            "A cache line there and back between the two CPUs: {ns:.0} ns ({}).\n",
            match distance {
                Distance::Hyperthreads => "two threads of one core",
                Distance::Near => "near",
                Distance::Far => "far",
            }
        ),
        _ => "One CPU: nothing is known of the way between two.\n".into(),
    };
    line + &limits(&measured.limits)
}

fn limits(limits: &Limits) -> String {
    let namespace = if limits.private_namespace { "in an IPC namespace of its own" } else { "in the host's" };
    match &limits.not_raised {
        None => format!("The kernel's home: {namespace}, with high limits.\n"),
        Some(why) => format!("The kernel's home: {namespace}, with the limits that were there ({why}).\n"),
    }
}

/// What a person should know of a row besides its figures.
fn remarks(line: &Line) -> String {
    let name = line.name;
    let measured = match &line.outcome {
        Outcome::Failed { reason } => return format!("\n{name} FAILED: {reason}"),
        Outcome::Unavailable { reason } => return format!("\n{name} is not to be had here: {reason}"),
        Outcome::Measured(measured) => measured,
    };
    let mut text = String::new();
    for (home, side) in [(&measured.kernel, "the kernel's home"), (&measured.user, "user space")] {
        if let Home::None { unavailable } = home {
            text += &format!("\n{name}, {side}: {unavailable}");
        }
    }
    let mut reasons = |what: &str, runs: &[String]| {
        if let Some(first) = runs.first() {
            let more = if runs.len() > 1 { ", ..." } else { "" };
            text += &format!("\n{name}: {} runs {what}: {first}{more}", runs.len());
        }
    };
    reasons("dropped", &measured.dropped);
    reasons("disturbed", &measured.disturbances);
    text
}

fn cells(line: &Line) -> Vec<String> {
    let mark = if measured(line).is_some_and(|of| of.disturbed) { " ~" } else { "" };
    let mut cells = vec![format!("{}{mark}", line.name)];
    match &line.outcome {
        Outcome::Failed { .. } => cells.push("FAILED".into()),
        Outcome::Unavailable { .. } => cells.push("not here".into()),
        Outcome::Measured(of) => {
            cells.extend(home(&of.kernel, line));
            cells.extend(home(&of.user, line));
            cells.push(of.ratio.map_or("-".into(), times));
        }
    }
    for verdict in &line.targets {
        cells.push(limit(verdict));
        cells.push(reached(verdict));
        cells.push(match verdict.met {
            Some(true) => "yes".into(),
            Some(false) => "NO".into(),
            None => "?".into(),
        });
    }
    return cells;

    fn limit(verdict: &Verdict) -> String {
        match (verdict.target, verdict.limit) {
            (Target::Ratio { at_least }, _) => format!(">= {}", times(at_least)),
            (_, Some(ns)) => format!("<= {}", units::nanoseconds(ns as u64)),
            (other, None) => target(&other),
        }
    }

    fn reached(verdict: &Verdict) -> String {
        match (verdict.target, verdict.reached) {
            (_, None) => "-".into(),
            (Target::Ratio { .. }, Some(ratio)) => times(ratio),
            (_, Some(ns)) => units::nanoseconds(ns as u64),
        }
    }
}

/// Three cells of a home.
fn home(home: &Home, line: &Line) -> [String; 3] {
    let Some(figures) = home.figures() else { return ["-"; 3].map(String::from) };
    let rate = || match line.message_bytes {
        Some(large) if large >= 1 << 20 => {
            figures.bytes_per_s.map_or("-".into(), |rate| format!("{:.2} GB/s", rate / 1e9))
        }
        _ => figures.messages_per_s.map_or("-".into(), |rate| format!("{}/s", units::count(rate))),
    };
    match line.figure {
        Figure::Time => [figures.p50_ns, figures.p99_ns, figures.p999_ns].map(time),
        Figure::Rate => [rate(), String::new(), String::new()],
        Figure::Sleep => [asleep(figures), String::new(), String::new()],
    }
}

fn asleep(figures: &Figures) -> String {
    let (cpu, switches) = (figures.cpu_ns.unwrap_or(0.0), figures.context_switches.unwrap_or(0.0));
    format!("{} CPU, {switches:.0} switches", units::nanoseconds(cpu as u64))
}

fn time(ns: Option<f64>) -> String {
    match ns {
        None => "-".into(),
        // Batches give fractions of a ns.
        Some(ns) if ns < 100.0 => format!("{ns:.1} ns"),
        Some(ns) => units::nanoseconds(ns as u64),
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 10.0 || ratio.fract() == 0.0 => format!("{ratio:.0}x"),
        ratio => format!("{ratio:.2}x"),
    }
}

/// A target as a person reads it.
fn target(target: &Target) -> String {
    match target {
        Target::Ratio { at_least } => format!("at least {} the kernel's speed", times(*at_least)),
        Target::Line { times } => format!("at most 0.5 us or {times} times the cache line"),
        Target::Within { times, of } => format!("at most {times} times {of}"),
        Target::CpuNs { at_most } => format!("at most {} of CPU", units::nanoseconds(*at_most as u64)),
    }
}
