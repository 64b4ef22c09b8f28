//! `ginnel gc`: remove what the dead have left in a namespace.

use std::process::ExitCode;

use ginnel::endpoint::SysvName;
use ginnel::namespace::{Doubt, Finding, Kind, Unseen, Unused, What};
use ginnel::{Endpoint, Namespace};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::home::HomeArgs;
use crate::output;
use crate::state::{Holds, State, Users};

/// Remove what killed programs have left in a namespace. Without --yes: only say what would be removed.
///
/// Removed are half-made, half-removed and corrupt objects, and those that no process has open or attached: their users have
/// all ended. What those hold is said first; --keep-unused leaves them for somebody who is still to come. Objects in use,
/// and files that are not of this library or that this user may not read, are never touched. Nothing that is found in a
/// file is believed. The kernel's home has no such thing: it does not know who uses an object; see `ginnel ls` and
/// `ginnel rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel gc --namespace jobs
  ginnel gc --namespace jobs --keep-unused --yes
  ginnel gc --namespace /dev/shm/shared --yes
  GINNEL_NAMESPACE=jobs ginnel gc --yes")]
pub(crate) struct Args {
    #[command(flatten)]
    home: HomeArgs,
    /// Do remove it.
    #[arg(long)]
    yes: bool,
    /// Leave sound objects that nobody has open or attached.
    #[arg(long)]
    keep_unused: bool,
    /// Processes that this user may not look at have nothing open: without, what they may have open is left.
    #[arg(long)]
    ignore_unseen: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Found {
    kind: &'static str,
    name: String,
    what: &'static str,
    /// With --yes: whether it was removed. Without: whether it would be.
    removed: bool,
    /// Of an object that nobody has: what it holds, if this user may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<Holds>,
}

pub(crate) fn run(args: Args) -> Result {
    let home = args.home.choose()?;
    if home.is_kernel() {
        return Err(Failure::usage("which namespace? The kernel's objects are listed by `ginnel ls`"));
    }
    let found = if args.yes { home.collect()? } else { home.leftovers()? };
    let unused = args.unused(home)?;
    // What nobody may touch is no failure.
    let is_stuck =
        |finding: &Finding| !finding.removed && !matches!(finding.what, What::Foreign | What::Closed);
    let failed = args.yes && found.iter().chain(&unused.failed).any(is_stuck);
    let found = found.into_iter().map(|finding| (finding, None));
    for (finding, holds) in found.chain(unused.found) {
        args.tell(finding, holds)?;
    }
    if let Some(first) = unused.unseen.first() {
        output::note(format!(
            "{} processes may not be looked at (one is {}, of user {}); what they may have open is left, unless \
             --ignore-unseen",
            unused.unseen.len(),
            first.pid,
            first.uid
        ));
    }
    if !args.yes {
        output::note("nothing was removed; --yes removes");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// The objects that nobody has, and what they hold.
#[derive(Default)]
struct Left {
    found: Vec<(Finding, Option<Holds>)>,
    /// Those of them that could have been removed, and were not.
    failed: Vec<Finding>,
    /// The processes for whose sake some are left.
    unseen: Vec<Unseen>,
}

impl Args {
    fn unused(&self, home: &Namespace) -> Result<Left> {
        if self.keep_unused {
            return Ok(Left::default());
        }
        let doubt = if self.ignore_unseen { Doubt::Ignore } else { Doubt::Spare };
        let mut seen = home.unused(doubt)?;
        // Before they are gone.
        let users = Users::default();
        let held: Vec<_> = seen.findings.iter().map(|finding| holds(finding, &users)).collect();
        let may: Vec<bool> = seen.findings.iter().map(|finding| finding.removed).collect();
        let mut failed = Vec::new();
        if self.yes {
            let Unused { findings, .. } = home.collect_unused(doubt)?;
            for (finding, may) in seen.findings.iter_mut().zip(&may) {
                // One that somebody has opened meanwhile is not among them.
                let now = findings.iter().find(|now| (now.kind, &now.name) == (finding.kind, &finding.name));
                finding.removed = now.is_some_and(|now| now.removed);
                failed.extend(now.filter(|now| *may && !now.removed).cloned());
            }
        }
        let unseen = if may.contains(&false) { seen.unseen } else { Vec::new() };
        Ok(Left { found: seen.findings.into_iter().zip(held).collect(), failed, unseen })
    }

    fn tell(&self, finding: Finding, holds: Option<Holds>) -> Result<()> {
        let found = Found {
            kind: scheme(finding.kind),
            name: finding.name,
            what: words(finding.what),
            removed: finding.removed,
            holds,
        };
        if self.json {
            return output::json_line(&found);
        }
        let verb = match (found.removed, self.yes) {
            (true, true) => "removed",
            (true, false) => "would remove",
            (false, true) => "left",
            (false, false) => "would leave",
        };
        // Names are their owners' choice.
        let name = output::harmless(&found.name).into_owned();
        let holds = found.holds.map(|holds| format!(" ({holds})")).unwrap_or_default();
        output::line(format!("{verb} {} {name}: {}{holds}", found.kind, found.what))
    }
}

/// What an object holds that nobody has open.
fn holds(finding: &Finding, users: &Users) -> Option<Holds> {
    let id = || finding.name.strip_prefix("i.")?.parse().ok().map(SysvName::Id);
    let name = || format!("/{}", finding.name);
    let endpoint = match finding.kind {
        Kind::SysvQueue => Endpoint::SysvQueue(id()?),
        Kind::SysvSemaphores => Endpoint::SysvSemaphore(id()?, None),
        Kind::SysvSegment => Endpoint::SysvSegment(id()?),
        Kind::PosixQueue => Endpoint::PosixQueue(name()),
        Kind::PosixSemaphore => Endpoint::PosixSemaphore(format!("/{}", finding.name.strip_prefix("sem.")?)),
        Kind::PosixShm => Endpoint::PosixShm(name()),
    };
    State::of(&endpoint, users).ok().map(|state| state.holds)
}

fn scheme(kind: Kind) -> &'static str {
    match kind {
        Kind::SysvQueue => "sysv-msg",
        Kind::SysvSemaphores => "sysv-sem",
        Kind::SysvSegment => "sysv-shm",
        Kind::PosixQueue => "posix-mq",
        Kind::PosixSemaphore => "posix-sem",
        Kind::PosixShm => "posix-shm",
    }
}

fn words(what: What) -> &'static str {
    match what {
        What::HalfMade => "half-made: its maker was killed",
        What::Removed => "removed, and somebody was killed before it was gone",
        What::Corrupt => "corrupt: it does not hold what it must",
        What::Foreign => "not an object of this library",
        What::Closed => "this user may not look at it",
        What::Unused => "no process has it open or attached",
        _ => "no object in use",
    }
}
