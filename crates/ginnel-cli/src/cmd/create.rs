//! `ginnel create`: make an object that exists by itself.

use std::process::ExitCode;

use ginnel::Endpoint;
use serde::Serialize;

use crate::args;
use crate::failure::{Failure, Result};
use crate::home::{self, HomeArgs};
use crate::objects::{self, Plan};
use crate::output;

/// Make a FIFO, queue, shared memory, semaphore or file, and print its endpoint (and id).
///
/// With --namespace the object is made in user space, in a directory of a memory file system, and so is the namespace
/// if there is none (for this user alone): programs reach it by this library, within no limit of the kernel's.
///
/// It stays until it is removed (`ginnel rm`), or the host goes down. That it exists already is an error, unless
/// --exist-ok is given: then it stays as it is. The mode is what is said, whatever the umask.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel create fifo:/tmp/a
  ginnel create sysv-msg:0x2a --mode 0660
  ginnel create posix-mq:/jobs --messages 5 --message-size 1KiB
  ginnel create sysv-shm:0x2a --size 1MiB --exist-ok
  ginnel create sysv-sem:0x2a --value 1,0
  ginnel create posix-sem:/slots --value 3
  ginnel create sysv-msg:0
  ginnel create --namespace jobs posix-mq:/work --messages 1000 --message-size 64KiB")]
pub(crate) struct Args {
    /// What to make: KIND:NAME, see `ginnel endpoints`. The key 0 is a new object without a key.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// The permission bits.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = args::mode)]
    mode: u32,
    /// How large memory or a file is.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    size: Option<u64>,
    /// How many semaphores a set has; as many as there are values, or 1, unless said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    semaphores: Option<u16>,
    /// The first value of a semaphore, or of each of a set; 0 unless said.
    #[arg(long = "value", value_name = "N", value_delimiter = ',')]
    values: Vec<u32>,
    /// How many messages a POSIX queue holds.
    #[arg(long, value_name = "N")]
    messages: Option<usize>,
    /// How long a message of a POSIX queue may be.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    message_size: Option<u64>,
    /// How many bytes of messages a System V queue holds.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    bytes_max: Option<u64>,
    /// It is no error if there is one already.
    #[arg(long)]
    exist_ok: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Created {
    endpoint: String,
    id: Option<i32>,
    existed: bool,
}

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose_or_make()?;
    let plan = args.plan()?;
    // What `mkfifo -m` does: a mode that was asked for is the mode.
    rustix::process::umask(rustix::fs::Mode::empty());
    let made = objects::create(&args.endpoint, &plan)?;
    let endpoint = made.endpoint.to_string();
    if args.json {
        output::json_line(&Created { endpoint, id: made.id, existed: made.existed })?;
    } else {
        match made.id {
            Some(id) if !endpoint.contains("id=") => output::line(format!("{endpoint}  id={id}"))?,
            _ => output::line(endpoint)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        let endpoint = &self.endpoint;
        let is_memory =
            matches!(endpoint, Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..));
        let is_set = matches!(endpoint, Endpoint::SysvSemaphore(..));
        let is_semaphore = is_set || matches!(endpoint, Endpoint::PosixSemaphore(_));
        let is_posix_queue = matches!(endpoint, Endpoint::PosixQueue(_));
        let is_sysv_queue = matches!(endpoint, Endpoint::SysvQueue(_));
        let limits = self.messages.is_some() || self.message_size.is_some();
        let wrong = [
            (self.size.is_some() && !is_memory, "--size is for memory: sysv-shm, posix-shm, file"),
            (self.semaphores.is_some() && !is_set, "--semaphores is for sysv-sem"),
            (!self.values.is_empty() && !is_semaphore, "--value is for sysv-sem and posix-sem"),
            (self.values.len() > 1 && !is_set, "a POSIX semaphore has one --value"),
            (is_set && self.values.iter().any(|value| *value > 32767), "--value: 32767 is the most"),
            (limits && is_sysv_queue, "a System V queue is limited by --bytes-max"),
            (limits && !is_posix_queue, "--messages and --message-size are for posix-mq"),
            (self.bytes_max.is_some() && is_posix_queue, "a POSIX queue is limited by --messages"),
            (self.bytes_max.is_some() && !is_sysv_queue, "--bytes-max is for sysv-msg"),
            (
                home::current().is_kernel() && self.bytes_max.is_some_and(|bytes| bytes > i32::MAX as u64),
                // The kernel has an int there, and takes the low half of anything larger.
                "--bytes-max: 2147483647 is the most",
            ),
            (is_memory && self.size.unwrap_or(0) == 0 && !self.exist_ok, "--size says how large it is to be"),
        ];
        if let Some((_, why)) = wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            objects::check_can_be_made(endpoint)?;
            return Err(Failure::usage(format!("{endpoint}: {why}")));
        }
        Ok(Plan {
            exist_ok: self.exist_ok,
            mode: self.mode,
            size: self.size.unwrap_or(0),
            values: self.first_values()?,
            messages: self.messages,
            message_bytes: self.message_size.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            queue_bytes: self.bytes_max,
        })
    }

    /// One for each semaphore: a single value is for all of them.
    fn first_values(&self) -> Result<Vec<u32>> {
        let count = self.semaphores.map_or(self.values.len().max(1), usize::from);
        match self.values.as_slice() {
            [] => Ok(vec![0; count]),
            [value] => Ok(vec![*value; count]),
            values if values.len() == count => Ok(values.to_vec()),
            values => {
                let why = format!("{}: {} values for {count} semaphores", self.endpoint, values.len());
                Err(Failure::usage(why))
            }
        }
    }
}
