//! Two terminals that talk over two FIFOs: who sits where (here), and what is said ([`conversation`]).
//!
//! # What a user sees
//! `/tmp/talk.a` carries what side a says, `/tmp/talk.b` what side b says. Whoever comes takes a free side, a first. What
//! goes through is plain lines: `cat /tmp/talk.a` and `echo hello > /tmp/talk.b` are an other side too.
//!
//! # How it works inside
//! A side is taken by an exclusive `flock` on the FIFO that it reads, held until its process ends: two never read the
//! same FIFO, and a side that was killed is free at once. Taking and leaving hold a `flock` on the directory, so nobody
//! removes what somebody just takes.
//!
//! Who leaves removes the FIFOs if nobody is left: if both locks are to be had. Only those that `ginnel chat` made, which
//! have the sticky bit (it means nothing else for a FIFO), since the last one need not be the one that made them. A side
//! leaves by itself when it ends, and its guardian leaves for it, whatever ended it.

pub(crate) mod conversation;

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ginnel::stream::{Fifo, FifoReader};
use ginnel::sync::{Flock, LockKind};
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Result};

/// The mark of a FIFO that `ginnel chat` made.
const MADE_BY_CHAT: u32 = 0o1000;
/// How long another one may hold the directory's lock: somebody who holds it for longer is no chat.
const PATIENCE: Duration = Duration::from_secs(2);

/// The two FIFOs of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    paths: [PathBuf; 2],
}

/// A side of a chat that this process has taken.
pub(crate) struct Side {
    /// What the other side says; the lock is this open file's.
    pub(crate) input: FifoReader,
    /// Where to say something.
    pub(crate) output: Fifo,
    input_path: PathBuf,
}

impl Seat {
    /// The FIFOs `NAME.a` and `NAME.b`.
    pub(crate) fn named(name: &Path) -> Seat {
        let with = |suffix: &str| {
            let mut name = name.as_os_str().to_owned();
            name.push(suffix);
            name.into()
        };
        Seat { paths: [with(".a"), with(".b")] }
    }

    /// Any two FIFOs: what this side reads, what it writes.
    pub(crate) fn of(input: &Path, output: &Path) -> Seat {
        Seat { paths: [output.into(), input.into()] }
    }

    /// Takes the side that writes the first FIFO, or with `either` the other one if that is taken. Makes what is missing.
    pub(crate) fn take(&self, mode: u32, either: bool) -> Result<Side> {
        let directories = self.directories()?;
        let _locked = lock(&directories)?;
        for path in &self.paths {
            Fifo::options().create(true).mode(MADE_BY_CHAT | mode).open(path)?;
        }
        let [a, b] = &self.paths;
        let sides = if either { &[(b, a), (a, b)][..] } else { &[(b, a)][..] };
        for (input, output) in sides {
            if let Some(reader) = claim(input)? {
                let output = Fifo::open(output)?;
                return Ok(Side { input: reader, output, input_path: (*input).clone() });
            }
        }
        Err(Failure::failed(match either {
            true => format!(
                "{} and {}: both sides of this chat are taken; use another --name",
                a.display(),
                b.display()
            ),
            false => format!("{}: another chat reads from it; for the other side swap the two", b.display()),
        }))
    }

    /// Removes the FIFOs if nobody has a side and a chat made them.
    pub(crate) fn leave(&self) -> Result<()> {
        self.leave_from(None)
    }

    fn leave_from(&self, own: Option<&Path>) -> Result<()> {
        let directories = self.directories()?;
        let _locked = lock(&directories)?;
        let mut claims = Vec::new();
        for path in &self.paths {
            if own == Some(path) || !path.exists() {
                continue;
            }
            match claim(path)? {
                Some(reader) => claims.push(reader),
                None => return Ok(()),
            }
        }
        for path in &self.paths {
            let mode = std::fs::metadata(path).map(|status| status.permissions().mode());
            if mode.is_ok_and(|mode| mode & MADE_BY_CHAT != 0) {
                Fifo::open(path)?.remove()?;
            }
        }
        Ok(())
    }

    /// The directories of the FIFOs, in the order in which they are locked.
    fn directories(&self) -> Result<Vec<Flock>> {
        let mut paths = Vec::new();
        for path in &self.paths {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = parent.unwrap_or(Path::new("."));
            paths.push(directory.canonicalize().context(directory.display())?);
        }
        paths.sort();
        paths.dedup();
        Ok(paths.iter().map(Flock::open).collect::<ginnel::Result<_>>()?)
    }
}

impl Side {
    /// Removes the FIFOs if nobody is on the other side and a chat made them.
    pub(crate) fn leave(&self, seat: &Seat) -> Result<()> {
        seat.leave_from(Some(&self.input_path))
    }
}

fn lock(directories: &[Flock]) -> Result<Vec<ginnel::sync::FlockGuard<'_>>> {
    directories.iter().map(|directory| Ok(directory.lock_deadline(LockKind::Exclusive, PATIENCE)?)).collect()
}

/// Opens a FIFO for reading and takes its lock, which lasts as long as the reader; `None` if somebody has it.
fn claim(path: &Path) -> Result<Option<FifoReader>> {
    let reader = Fifo::open(path)?.try_open_reader()?;
    let duplicate = reader.as_fd().try_clone_to_owned().context(path.display())?;
    let lock = Flock::from_file(duplicate.into())?;
    let taken = match lock.try_lock(LockKind::Exclusive) {
        Ok(guard) => {
            // The lock belongs to the open file, which the reader keeps open.
            std::mem::forget(guard);
            Ok(true)
        }
        Err(error) if error.is_would_block() => Ok(false),
        Err(error) => Err(error),
    };
    Ok(taken?.then_some(reader))
}
