//! The tour's rows: each mechanism at work between real processes, checked byte for byte and timed.
//!
//! `cmd/tour.rs` starts one *runner* process a row (`ginnel __tour-row NAME`), which makes the mechanism, starts its
//! *peer* (`ginnel __tour-row NAME --peer ...`), works through it and prints its [`Outcome`] as JSON. So a row that
//! hangs or crashes is a failed row, and nothing of one row reaches the next.

pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod notify;
pub(crate) mod peer;
pub(crate) mod stream;
pub(crate) mod sync;
pub(crate) mod work;

use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::sysv::Key;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Result};
use crate::guardian::Guardian;
use crate::home;
use crate::output;
use work::Measured;

/// The verb that runs one row.
pub(crate) const VERB: &str = "__tour-row";

/// What distinguishes one row from another, and the two functions that are its two processes.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    pub(crate) passes: Passes,
    pub(crate) direction: Direction,
    pub(crate) processes: Processes,
    /// Where the two processes find each other.
    pub(crate) name_space: &'static str,
    pub(crate) run: fn(&mut Run) -> RowResult<Measured>,
    pub(crate) peer: fn(&[String]) -> RowResult<()>,
}

/// The five families, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    Stream,
    Message,
    Memory,
    Sync,
    Notify,
}

/// What goes from one process to the other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Passes {
    Stream,
    Message,
    Memory,
    Permission,
    Event,
}

/// Whether one object carries both directions.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    OneWay,
    BothWays,
}

/// Which processes can use it together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Processes {
    Related,
    Unrelated,
}

/// How a row ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Everything arrived as it was sent.
    Verified(Measured),
    /// Something did not arrive, arrived wrong, or a call failed.
    Failed { reason: String },
    /// This host lacks it.
    Unavailable { reason: String },
}

/// Why a row has no figures.
#[derive(Debug)]
pub(crate) enum RowError {
    Failed(String),
    Unavailable(String),
}

pub(crate) type RowResult<T> = std::result::Result<T, RowError>;

impl From<ginnel::Error> for RowError {
    fn from(error: ginnel::Error) -> RowError {
        RowError::Failed(error.to_string())
    }
}

impl From<std::io::Error> for RowError {
    fn from(error: std::io::Error) -> RowError {
        RowError::Failed(error.to_string())
    }
}

impl From<Failure> for RowError {
    fn from(failure: Failure) -> RowError {
        match failure {
            Failure::Failed(why) | Failure::Usage(why) => RowError::Failed(why),
            Failure::OutputClosed => RowError::Failed("standard output was closed".into()),
        }
    }
}

/// For the call that makes a row's mechanism: what this host refuses is not to be had, and any other error is a failure.
///
/// No such call or protocol in this kernel, no file system for its names (`/dev/shm`, `/dev/pts`), no right to it, or a
/// limit of zero (or used up).
pub(crate) fn refused(error: ginnel::Error) -> RowError {
    const REFUSALS: [&str; 9] = [
        "ENOSYS",
        "EPROTONOSUPPORT",
        "EAFNOSUPPORT",
        "EOPNOTSUPP",
        "ENOENT",
        "EPERM",
        "EACCES",
        "ENOSPC",
        "EMFILE",
    ];
    if REFUSALS.contains(&error.errno_name()) {
        RowError::Unavailable(error.to_string())
    } else {
        error.into()
    }
}

/// `Failed` unless `condition` holds.
pub(crate) fn ensure(condition: bool, otherwise: impl Into<String>) -> RowResult<()> {
    if condition { Ok(()) } else { Err(RowError::Failed(otherwise.into())) }
}

/// What a row's runner works with.
pub(crate) struct Run {
    pub(crate) row: &'static Row,
    pub(crate) guardian: Guardian,
    pub(crate) directories: Vec<PathBuf>,
}

impl Run {
    /// A key that nobody uses, whose object the guardian removes should we be killed.
    fn sysv_key(&mut self, endpoint: fn(SysvName) -> Endpoint) -> RowResult<Key> {
        let key = Key::new(random() as i32 | 1);
        self.guardian.adopt(&endpoint(SysvName::Key(key)))?;
        Ok(key)
    }

    /// A name with a slash in front that nobody uses, whose object the guardian removes should we be killed.
    fn posix_name(&mut self, endpoint: fn(String) -> Endpoint) -> RowResult<String> {
        let name = format!("/ginnel-tour-{:x}", random());
        self.guardian.adopt(&endpoint(name.clone()))?;
        Ok(name)
    }

    /// A new directory of our own, which the guardian removes with all it holds.
    fn directory(&mut self) -> RowResult<PathBuf> {
        let path = std::env::temp_dir().join(format!("ginnel-tour-{:x}", random()));
        // The peer is told of it in words.
        ensure(path.to_str().is_some(), format!("TMPDIR, {path:?}, is not UTF-8"))?;
        self.guardian.adopt_directory(&path)?;
        DirBuilder::new().mode(0o700).create(&path).context(format!("TMPDIR: mkdir {}", path.display()))?;
        self.directories.push(path.clone());
        Ok(path)
    }
}

impl Drop for Run {
    /// The guardian does the same, unless it was killed.
    fn drop(&mut self) {
        for directory in &self.directories {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// The words that a peer was started with, as many as it takes.
pub(crate) fn words<const N: usize>(words: &[String]) -> RowResult<[&str; N]> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let count = words.len();
    words.try_into().map_err(|_| RowError::Failed(format!("a peer of this row takes {N} words, not {count}")))
}

/// The peer of rows whose other process is the kernel or a program of its own.
pub(crate) fn no_peer(_: &[String]) -> RowResult<()> {
    Err(RowError::Failed("this row has no peer".into()))
}

impl Row {
    /// Whether its objects have a second home, in user space.
    pub(crate) fn has_homes(&self) -> bool {
        const NAMES: [&str; 6] = [
            "System V queue",
            "POSIX queue",
            "System V segment",
            "POSIX shared memory",
            "System V semaphore set",
            "POSIX named semaphore",
        ];
        NAMES.contains(&self.name)
    }
}

/// All rows, in the order of the table.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    [stream::ROWS, message::ROWS, memory::ROWS, sync::ROWS, notify::ROWS].into_iter().flatten()
}

/// One row, or its other end.
#[derive(Debug, clap::Args)]
pub(crate) struct RowArgs {
    name: String,
    /// The process that started this one, and without which it is to end.
    #[arg(long)]
    parent: u32,
    /// Be the peer, with what it needs to know.
    #[arg(long, num_args = 0.., allow_hyphen_values = true)]
    peer: Option<Vec<String>>,
}

/// Runs one row and prints its outcome, or is its peer.
pub(crate) fn run_row(args: RowArgs) -> Result {
    home::inherit()?;
    // Ctrl-C ends the tour's process; what it started is in other process groups and must not go on without it.
    peer::end_with(args.parent).map_err(|error| match error {
        RowError::Failed(why) | RowError::Unavailable(why) => Failure::failed(why),
    })?;
    let row = rows()
        .find(|row| row.name == args.name)
        .ok_or_else(|| Failure::usage(format!("the tour has no row {:?}", args.name)))?;
    if let Some(words) = args.peer {
        return match (row.peer)(&words) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(RowError::Failed(why) | RowError::Unavailable(why)) => {
                Err(Failure::failed(format!("{} (the peer): {why}", row.name)))
            }
        };
    }
    let mut guardian = Guardian::start()?;
    // A tour in the background must not touch what an editor in the foreground has set.
    guardian.leave_terminal()?;
    let mut run = Run { row, guardian, directories: Vec::new() };
    let outcome = match (row.run)(&mut run) {
        Ok(measured) => Outcome::Verified(measured),
        Err(RowError::Failed(reason)) => Outcome::Failed { reason },
        Err(RowError::Unavailable(reason)) => Outcome::Unavailable { reason },
    };
    output::json(&outcome)?;
    Ok(ExitCode::SUCCESS)
}
