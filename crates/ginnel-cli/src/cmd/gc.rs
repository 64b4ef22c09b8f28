//! `ginnel gc`: remove what the dead have left in a namespace.

use std::process::ExitCode;

use ginnel::namespace::{Finding, Kind, What};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::home::HomeArgs;
use crate::output;

/// Remove what killed programs have left in a namespace. Without --yes: only say what would be removed.
///
/// Half-made, half-removed and corrupt objects are removed; objects in use, and files that are not of this library or that
/// this user may not read, are never touched. Nothing that is found in a file is believed. The kernel's home has no such
/// thing: it does not know who uses an object; see `ginnel ls` and `ginnel rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel gc --namespace jobs
  ginnel gc --namespace /dev/shm/shared --yes
  GINNEL_NAMESPACE=jobs ginnel gc --yes")]
pub(crate) struct Args {
    #[command(flatten)]
    home: HomeArgs,
    /// Do remove it.
    #[arg(long)]
    yes: bool,
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
}

pub(crate) fn run(args: Args) -> Result {
    let home = args.home.choose()?;
    if home.is_kernel() {
        return Err(Failure::usage("which namespace? The kernel's objects are listed by `ginnel ls`"));
    }
    let found = if args.yes { home.collect()? } else { home.leftovers()? };
    // What nobody may touch is no failure.
    let is_stuck =
        |finding: &Finding| !finding.removed && !matches!(finding.what, What::Foreign | What::Closed);
    let failed = args.yes && found.iter().any(is_stuck);
    for finding in found {
        args.tell(finding)?;
    }
    if !args.yes {
        output::note("nothing was removed; --yes removes");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

impl Args {
    fn tell(&self, finding: Finding) -> Result<()> {
        let found = Found {
            kind: scheme(finding.kind),
            name: finding.name,
            what: words(finding.what),
            removed: finding.removed,
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
        output::line(format!("{verb} {} {name}: {}", found.kind, found.what))
    }
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
        _ => "no object in use",
    }
}
