//! `ginnel lock`: a command that runs while a lock is held.

use std::ops::Bound;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::ValueEnum;
use ginnel::Endpoint;
use ginnel::endpoint::Range;
use ginnel::notify::{Code, Disposition, Handler, PidFd, Signal, SignalSet};
use ginnel::process::inherit;
use ginnel::sync::record_lock::{Holder, Owner};
use ginnel::sync::{Flock, LockKind, RecordLocks};
use rustix::event::{PollFd, PollFlags};

use crate::args::{self, Wait};
use crate::failure::{Context, Failure, Result};
use crate::objects::without_hint;

/// Run a command while a lock on a file is held.
///
/// The exit code is the command's, or 128 and the number of the signal that killed it; 126 or 127 if it could not be run.
/// If the lock cannot be had, the processes that hold it are named, and the exit code is 1. The file is made if there is
/// none. The command inherits the locked file, so that the lock holds on should this process be killed (not so with --kind
/// posix, whose locks are not inherited); it is released when the command ends, whatever runs on from it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel lock /var/lock/backup -- rsync -a /home /mnt
  ginnel lock --nonblock /tmp/once -- make
  ginnel lock --shared --range 0+100 /data -- cat /data
  ginnel lock --kind flock --timeout 5s /tmp/l -- sh -c 'echo mine'")]
pub(crate) struct Args {
    /// The file; also as lock:PATH#OFFSET+LENGTH or flock:PATH.
    file: String,
    /// Let others hold it in this way at the same time.
    #[arg(long)]
    shared: bool,
    /// Lock these bytes only: OFFSET+LENGTH; length 0 is to the end.
    #[arg(long, value_name = "RANGE", value_parser = args::range)]
    range: Option<Range>,
    /// Which kind of lock; ofd and posix shut each other out, flock neither of them.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Fail if it cannot be had at once.
    #[arg(long, short, conflicts_with = "timeout")]
    nonblock: bool,
    /// Do not let the command inherit the file.
    #[arg(long, short = 'o')]
    close: bool,
    #[command(flatten)]
    wait: Wait,
    /// What to run, with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Record lock of the open file (F_OFD_SETLK).
    Ofd,
    /// Record lock of the process (F_SETLK), as programs in C use it.
    Posix,
    /// Lock of the whole file (flock(2)), as flock(1) uses it.
    Flock,
}

/// What is to be locked, and how.
struct Wanted {
    path: PathBuf,
    range: (Bound<u64>, Bound<u64>),
    kind: Kind,
    share: LockKind,
}

pub(crate) fn run(args: Args) -> Result {
    let wanted = args.wanted()?;
    let deadline = if args.nonblock { ginnel::Deadline::NOW } else { args.wait.deadline() };
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    if wanted.kind == Kind::Flock {
        let file = Flock::create(&wanted.path).or_else(|error| match error.is_permission_denied() {
            // flock(2) needs no right to write.
            true => Flock::open(&wanted.path),
            false => Err(error),
        })?;
        let guard = match file.lock_deadline(wanted.share, deadline) {
            Ok(guard) => guard,
            Err(error) => return Err(denied(&error, &file.holders().unwrap_or_default())),
        };
        if !args.close {
            inherit(&mut command, &file)?;
        }
        let code = run_command(command)?;
        guard.unlock()?;
        return Ok(code);
    }
    let file = wanted.open()?;
    let guard = match file.lock_deadline(wanted.range, wanted.share, deadline) {
        Ok(guard) => guard,
        Err(error) => {
            let holder = file.holder(wanted.range, wanted.share).unwrap_or_default();
            return Err(denied(&error, holder.as_slice()));
        }
    };
    if !args.close && wanted.kind == Kind::Ofd {
        inherit(&mut command, &file)?;
    }
    let code = run_command(command)?;
    guard.unlock()?;
    Ok(code)
}

impl Args {
    fn wanted(&self) -> Result<Wanted> {
        let is_endpoint = self.file.starts_with("lock:") || self.file.starts_with("flock:");
        let (path, named_range, named_kind) = match is_endpoint.then(|| self.file.parse()).transpose() {
            Ok(Some(Endpoint::RecordLock(path, range))) => (path, range, None),
            Ok(Some(Endpoint::Flock(path))) => (path, None, Some(Kind::Flock)),
            Ok(_) => (PathBuf::from(&self.file), None, None),
            Err(error) => return Err(Failure::usage(error)),
        };
        let range = self.range.or(named_range);
        let kind = self.kind.or(named_kind).unwrap_or(Kind::Ofd);
        if range.is_some() && kind == Kind::Flock {
            return Err(Failure::usage("--kind flock locks whole files; a range takes --kind ofd or posix"));
        }
        let start = Bound::Included(range.map_or(0, |range| range.offset));
        let end = match range {
            Some(Range { offset, len }) if len > 0 => Bound::Excluded(offset.saturating_add(len)),
            _ => Bound::Unbounded,
        };
        let share = if self.shared { LockKind::Shared } else { LockKind::Exclusive };
        Ok(Wanted { path, range: (start, end), kind, share })
    }
}

impl Wanted {
    fn open(&self) -> Result<RecordLocks> {
        let owner = if self.kind == Kind::Posix { Owner::Process } else { Owner::OpenFile };
        let both = RecordLocks::options().owner(owner).read(true).write(true).create(true).open(&self.path);
        Ok(match both {
            // A read lock needs the right to read only.
            Err(error) if error.is_permission_denied() && self.share == LockKind::Shared => {
                RecordLocks::options().owner(owner).read(true).write(false).open(&self.path)?
            }
            other => other?,
        })
    }
}

/// Why the lock was not to be had, and who has it.
fn denied(error: &ginnel::Error, holders: &[Holder]) -> Failure {
    if !error.is_would_block() && !error.is_timed_out() && error.errno_name() != "EACCES" {
        return Failure::failed(error);
    }
    let holders: Vec<String> = holders.iter().map(holder).collect();
    let what = without_hint(error);
    match holders.is_empty() {
        true => {
            Failure::failed(format!("{what}: somebody held it who is gone now, or cannot be seen from here"))
        }
        false => Failure::failed(format!("{what}: held by {}", holders.join("; "))),
    }
}

/// `process 4711 (rsync): bytes 0..100, exclusive`
fn holder(holder: &Holder) -> String {
    let pids: Vec<String> = holder.pids.iter().map(|pid| process(*pid)).collect();
    let who =
        if pids.is_empty() { "a process that cannot be seen from here".into() } else { pids.join(", ") };
    let how = if holder.kind == LockKind::Shared { "shared" } else { "exclusive" };
    match (holder.range.start, holder.range.end) {
        (0, None) => format!("{who}: the whole file, {how}"),
        _ => format!("{who}: bytes {}, {how}", holder.range),
    }
}

fn process(pid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// Runs it to its end; what signals would end us go to it instead.
fn run_command(mut command: Command) -> Result {
    // What is ignored stays so, for the command too: nohup. What is caught is the command's default.
    let ending = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP];
    let ignored = |signal: &Signal| matches!(Disposition::current(*signal), Ok(Disposition::Ignored));
    let caught: SignalSet = ending.into_iter().filter(|signal| !ignored(signal)).collect();
    let signals = Handler::new(caught)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("ginnel: {name}: {error}");
            let is_there = error.kind() != std::io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if is_there { 126 } else { 127 }));
        }
    };
    // It held the child's copy of the locked file.
    drop(command);
    let status = wait(&mut child, &signals)?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn wait(child: &mut Child, signals: &Handler) -> Result<ExitStatus> {
    let process = PidFd::of_child(child)?;
    loop {
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::failed(format!("poll: {errno}"))),
        }
        while let Ok(info) = signals.try_wait() {
            // What the terminal sends, it sends to the command too.
            if info.code != Code::Kernel {
                let _ = process.send(info.signal);
            }
        }
        if !process.is_alive() {
            return child.wait().context("waiting for the command");
        }
    }
}
