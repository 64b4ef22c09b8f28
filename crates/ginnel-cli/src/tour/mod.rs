//! The tour's rows: each mechanism at work between real processes, checked byte for byte and timed.
//!
//! `cmd/tour.rs` starts one *runner* process a row (`ginnel __tour-row NAME`), which makes the mechanism, starts its
//! *peer* (`ginnel __tour-row NAME --peer ...`), works through it and prints its [`Outcome`] as JSON. So a row that
//! hangs or crashes is a failed row, and nothing of one row reaches the next.

pub(crate) mod message;
pub(crate) mod peer;
pub(crate) mod work;

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::sysv::Key;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::guardian::Guardian;
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

/// `Failed` unless `condition` holds.
pub(crate) fn ensure(condition: bool, otherwise: impl Into<String>) -> RowResult<()> {
    if condition { Ok(()) } else { Err(RowError::Failed(otherwise.into())) }
}

/// What a row's runner works with.
pub(crate) struct Run {
    pub(crate) row: &'static Row,
    pub(crate) guardian: Guardian,
}

impl Run {
    /// A key that nobody uses, whose object the guardian removes should we be killed.
    fn sysv_key(&mut self, endpoint: fn(SysvName) -> Endpoint) -> RowResult<Key> {
        let key = Key::new((RandomState::new().hash_one(std::process::id()) as i32) | 1);
        self.guardian.adopt(&endpoint(SysvName::Key(key)))?;
        Ok(key)
    }
}

/// All rows, in the order of the table.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    [message::ROWS].into_iter().flatten()
}

/// One row, or its other end.
#[derive(Debug, clap::Args)]
pub(crate) struct RowArgs {
    name: String,
    /// Be the peer, with what it needs to know.
    #[arg(long, num_args = 0.., allow_hyphen_values = true)]
    peer: Option<Vec<String>>,
}

/// Runs one row and prints its outcome, or is its peer.
pub(crate) fn run_row(args: RowArgs) -> Result {
    // Ctrl-C ends the tour's process; what it started is in other process groups and must not go on without it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| Failure::failed(format!("prctl: {error}")))?;
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
    let mut run = Run { row, guardian: Guardian::start()? };
    let outcome = match (row.run)(&mut run) {
        Ok(measured) => Outcome::Verified(measured),
        Err(RowError::Failed(reason)) => Outcome::Failed { reason },
        Err(RowError::Unavailable(reason)) => Outcome::Unavailable { reason },
    };
    output::json(&outcome)?;
    Ok(ExitCode::SUCCESS)
}
