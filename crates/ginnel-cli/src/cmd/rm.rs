//! `ginnel rm`: remove objects, after a look at what would be lost.

use std::process::ExitCode;

use ginnel::Endpoint;

use crate::failure::{Failure, Result};
use crate::objects;
use crate::output;
use crate::state::{State, Users};

/// Remove queues, shared memory, semaphores, FIFOs, files and sockets. Without --yes: only say what would be removed.
///
/// Each line says what the object holds and who uses it. A file is removed only if it is of the kind that the endpoint
/// says. Exit code 1 if one of them was not there, or could not be removed; the others are.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel rm sysv-msg:0x2a posix-mq:/jobs
  ginnel rm --yes sysv-shm:id=3
  ginnel rm --yes fifo:/tmp/a unix:/tmp/s")]
pub(crate) struct Args {
    /// What to remove: KIND:NAME, see `ginnel endpoints`.
    #[arg(required = true, value_name = "ENDPOINT")]
    endpoints: Vec<Endpoint>,
    /// Do remove it.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: Args) -> Result {
    let mut failed = false;
    let users = Users::default();
    for endpoint in &args.endpoints {
        match remove(endpoint, &users, args.yes) {
            Ok(said) => output::line(said)?,
            Err(Failure::Failed(why)) => {
                eprintln!("ginnel: {why}");
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    if !args.yes {
        eprintln!("ginnel: nothing was removed; --yes removes");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn remove(endpoint: &Endpoint, users: &Users, yes: bool) -> Result<String> {
    objects::check_can_be_removed(endpoint)?;
    let state = match State::of(endpoint, users) {
        // Who may remove it need not have the right to read it.
        Err(_) if yes => None,
        state => Some(state?),
    };
    if yes {
        objects::remove(endpoint)?;
    }
    let verb = if yes { "removed" } else { "would remove" };
    Ok(match state {
        Some(State { id: Some(id), endpoint, holds, .. }) if !endpoint.contains("id=") => {
            format!("{verb} {endpoint} (id {id}): {holds}")
        }
        Some(State { endpoint, holds, .. }) => format!("{verb} {endpoint}: {holds}"),
        None => format!("{verb} {endpoint}"),
    })
}
