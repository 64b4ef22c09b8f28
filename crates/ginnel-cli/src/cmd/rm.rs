//! `ginnel rm`: remove objects, after a look at what would be lost.

use std::process::ExitCode;

use ginnel::Endpoint;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::home::HomeArgs;
use crate::objects;
use crate::output;
use crate::state::{State, Users};

/// Remove queues, shared memory, semaphores, FIFOs, files and sockets. Without --yes: only say what would be removed.
///
/// Each line says what the object holds and who uses it. A file is removed only if it is of the kind that the endpoint
/// says. Exit code 1 if one of them was not there, or could not be removed; the others are. What can never be removed
/// is wrong usage, and then nothing is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel rm sysv-msg:0x2a posix-mq:/jobs
  ginnel rm --yes sysv-shm:id=3
  ginnel rm --yes --namespace jobs sysv-msg:0x2a
  ginnel rm --yes fifo:/tmp/a unix:/tmp/s")]
pub(crate) struct Args {
    /// What to remove: KIND:NAME, see `ginnel endpoints`.
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<Endpoint>,
    #[command(flatten)]
    home: HomeArgs,
    /// Do remove it.
    #[arg(long)]
    yes: bool,
    /// Print a JSON object a line: what `ginnel ls --json` tells, and whether it was removed.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed {
    endpoint: String,
    removed: bool,
    /// Null if this user may remove it and not read it.
    state: Option<State>,
}

pub(crate) fn run(args: Args) -> Result {
    args.endpoints.iter().try_for_each(|endpoint| args.home.check(endpoint))?;
    args.home.choose()?;
    // Before anything is removed.
    args.endpoints.iter().try_for_each(objects::check_can_be_removed)?;
    let mut failed = false;
    let mut printed = Ok(());
    let users = Users::default();
    for endpoint in &args.endpoints {
        match remove(endpoint, &users, args.yes) {
            // Whoever reads this may have enough; what was to be removed is removed all the same.
            Ok(state) => printed = printed.and_then(|()| args.tell(endpoint, state)),
            Err(Failure::Failed(why)) => {
                output::note(why);
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    if !args.yes {
        output::note("nothing was removed; --yes removes");
    }
    match printed {
        Err(closed) if !failed => Err(closed),
        _ => Ok(ExitCode::from(u8::from(failed))),
    }
}

impl Args {
    fn tell(&self, endpoint: &Endpoint, state: Option<State>) -> Result<()> {
        if self.json {
            let endpoint = endpoint.to_string();
            return output::json_line(&Removed { endpoint, removed: self.yes, state });
        }
        let verb = if self.yes { "removed" } else { "would remove" };
        output::line(match state {
            Some(State { id: Some(id), endpoint, holds, .. }) if !endpoint.contains("id=") => {
                format!("{verb} {endpoint} (id {id}): {holds}")
            }
            Some(State { endpoint, holds, .. }) => format!("{verb} {endpoint}: {holds}"),
            None => format!("{verb} {endpoint}"),
        })
    }
}

/// What it was like before; `None` if that cannot be told.
fn remove(endpoint: &Endpoint, users: &Users, yes: bool) -> Result<Option<State>> {
    let state = match State::of(endpoint, users) {
        // Who may remove it need not have the right to read it.
        Err(_) if yes => None,
        state => Some(state?),
    };
    if yes {
        objects::remove(endpoint)?;
    }
    Ok(state)
}
