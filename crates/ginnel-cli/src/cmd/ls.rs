//! `ginnel ls`: what there is.

use std::collections::HashMap;
use std::fs;
use std::process::ExitCode;

use clap::ValueEnum;
use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::memory::{PosixShm, SysvSegment};
use ginnel::message::{PosixQueue, SysvQueue};
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use serde::Serialize;

use crate::failure::{Context, Failure, Result};
use crate::home::{self, HomeArgs};
use crate::objects::without_hint;
use crate::output;
use crate::state::{self, Holds, SocketType, State, UnixSocket, Users};

/// List the objects that exist: System V and POSIX queues, memory and semaphores, and Unix sockets that receive.
///
/// FIFOs and mapped files are in no list of the kernel's, so they are not in this one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel ls
  ginnel ls sysv-msg posix-mq
  ginnel ls --namespace jobs
  ginnel ls --json | jq '.objects[] | select(.kind == \"sysv-shm\")'")]
pub(crate) struct Args {
    /// Only these kinds.
    #[arg(value_enum, value_name = "KIND")]
    kinds: Vec<Kind>,
    #[command(flatten)]
    home: HomeArgs,
    /// Print JSON: numbers as numbers.
    #[arg(long)]
    json: bool,
    /// No line with the columns' names.
    #[arg(long, conflicts_with = "json")]
    noheadings: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    SysvMsg,
    PosixMq,
    SysvShm,
    PosixShm,
    SysvSem,
    PosixSem,
    Unix,
    UnixDgram,
    UnixSeqpacket,
}

#[derive(Default, Serialize)]
struct Listing {
    schema: u32,
    objects: Vec<State>,
    /// What could not be looked at, and why.
    notes: Vec<String>,
    #[serde(skip)]
    users: Users,
}

pub(crate) fn run(args: Args) -> Result {
    let home = args.home.choose()?;
    let mut listing = Listing { schema: 1, ..Listing::default() };
    let all = args.kinds.is_empty();
    // Sockets are the kernel's.
    let is_socket = |kind: &Kind| matches!(kind, Kind::Unix | Kind::UnixDgram | Kind::UnixSeqpacket);
    if !home.is_kernel() && args.kinds.iter().any(is_socket) {
        return Err(Failure::usage("sockets are in no namespace; leave --namespace out"));
    }
    let there = |kind: &Kind| home.is_kernel() || !is_socket(kind);
    let kinds =
        Kind::value_variants().iter().filter(|kind| (all && there(kind)) || args.kinds.contains(kind));
    for kind in kinds {
        listing.add(*kind)?;
    }
    for note in &listing.notes {
        output::note(format_args!("{note}"));
    }
    let failed = !all && !listing.notes.is_empty();
    if args.json {
        output::json(&listing)?;
    } else if !listing.objects.is_empty() {
        output::line(table(&listing.objects, args.noheadings))?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

impl Listing {
    fn add(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::SysvMsg => {
                let queues = self.noting(SysvQueue::list_in(home::current()))?;
                self.objects.extend(
                    queues
                        .into_iter()
                        .map(|(id, status)| State::of_sysv_queue(SysvName::Id(id), id, &status)),
                );
            }
            Kind::SysvShm => {
                let segments = self.noting(SysvSegment::list_in(home::current()))?;
                self.objects.extend(
                    segments
                        .into_iter()
                        .map(|status| State::of_sysv_segment(SysvName::Id(status.id), &status)),
                );
            }
            Kind::SysvSem => {
                let sets = self.noting(SysvSemaphores::list_in(home::current()))?;
                self.objects.extend(
                    sets.into_iter()
                        .map(|set| State::of_sysv_semaphores(SysvName::Id(set.id), set.id, &set.status)),
                );
            }
            Kind::PosixMq => {
                let names = self.noting(PosixQueue::list_in(home::current()))?;
                self.add_named(names.into_iter().map(Endpoint::PosixQueue));
            }
            Kind::PosixShm => {
                if !home::current().is_kernel() {
                    let names = self.noting(PosixShm::list_in(home::current()))?;
                    self.add_named(names.into_iter().map(Endpoint::PosixShm));
                    return Ok(());
                }
                let names = dev_shm()?.into_iter().filter(|name| !name.starts_with("sem."));
                self.add_named(names.map(|name| Endpoint::PosixShm(format!("/{name}"))));
            }
            Kind::PosixSem => {
                if !home::current().is_kernel() {
                    let names = self.noting(PosixSemaphore::list_in(home::current()))?;
                    self.add_named(names.into_iter().map(Endpoint::PosixSemaphore));
                    return Ok(());
                }
                let names = dev_shm()?;
                let names = names.iter().filter_map(|name| name.strip_prefix("sem."));
                self.add_named(names.map(|name| Endpoint::PosixSemaphore(format!("/{name}"))));
            }
            Kind::Unix => {
                self.add_sockets(SocketType::Stream, Endpoint::UnixStream, || Holds::Unix { live: true })?;
            }
            Kind::UnixDgram => {
                let holds = || Holds::UnixDgram { live: true };
                self.add_sockets(SocketType::Datagram, Endpoint::UnixDatagram, holds)?;
            }
            Kind::UnixSeqpacket => {
                let holds = || Holds::UnixSeqpacket { live: true };
                self.add_sockets(SocketType::Seqpacket, Endpoint::UnixSeqpacket, holds)?;
            }
        }
        Ok(())
    }

    /// A list that cannot be had is noted, and not taken for an empty one.
    fn noting<T>(&mut self, list: ginnel::Result<Vec<T>>) -> Result<Vec<T>> {
        match list {
            Ok(list) => Ok(list),
            Err(error) if matches!(error.errno_name(), "ENOENT" | "ENOSYS" | "EACCES") => {
                let hint = error.hint().unwrap_or("not on this host");
                self.notes.push(format!("not listed: {}: {hint}", without_hint(&error)));
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What was removed since it was listed is left out.
    fn add_named(&mut self, endpoints: impl Iterator<Item = Endpoint>) {
        let users = &self.users;
        self.objects.extend(endpoints.filter_map(|endpoint| State::of(&endpoint, users).ok()));
    }

    fn add_sockets(
        &mut self,
        wanted: SocketType,
        endpoint: fn(String) -> Endpoint,
        holds: fn() -> Holds,
    ) -> Result<()> {
        for UnixSocket { socket, name, .. } in state::unix_sockets()? {
            if socket == wanted {
                let state = State::of_socket(&endpoint(name.clone()), &name, holds());
                // Its file is in another mount namespace, was moved away, or not to be reached.
                self.objects.push(state.unwrap_or_else(|_| State {
                    endpoint: endpoint(name).to_string(),
                    id: None,
                    uid: None,
                    mode: None,
                    holds: holds(),
                }));
            }
        }
        Ok(())
    }
}

/// The regular files, sorted.
fn dev_shm() -> Result<Vec<String>> {
    let entries = match fs::read_dir("/dev/shm") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("/dev/shm")?,
    };
    let files = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn table(objects: &[State], no_headings: bool) -> String {
    let mut table = output::table(&["ENDPOINT", "ID", "OWNER", "MODE", "SIZE", "HOLDS"], &[1, 4]);
    let users = user_names();
    for object in objects {
        let owner = |uid: u32| users.get(&uid).cloned().unwrap_or_else(|| uid.to_string());
        table.add_row([
            // Names are their owners' choice.
            output::harmless(&object.endpoint).into_owned(),
            object.id.map_or_else(|| "-".into(), |id| id.to_string()),
            object.uid.map_or_else(|| "-".into(), owner),
            object.mode.map_or_else(|| "-".into(), |mode| format!("{mode:03o}")),
            object.holds.size(),
            object.holds.to_string(),
        ]);
    }
    let text = output::trim_lines(&table.to_string());
    match text.split_once('\n') {
        Some((_, rows)) if no_headings => rows.to_string(),
        _ => text,
    }
}

/// Who has which number, as far as `/etc/passwd` knows.
fn user_names() -> HashMap<u32, String> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?);
            Some((uid.parse().ok()?, name.to_string()))
        })
        .collect()
}
