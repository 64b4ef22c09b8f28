//! Objects that nobody has open or attached: `proc_pid_fd(5)`, `proc_pid_maps(5)`. `ginnel gc`, when it is asked for them.
//!
//! # What a user sees
//! An object outlives its users, as in the kernel, and may hold messages for somebody who is still to come. So nobody but
//! its owner knows whether it is left over, and [`Namespace::collect`] leaves it alone. [`Namespace::collect_unused`] is
//! for who asks.
//!
//! The evidence is the kernel's: no process has a descriptor of the object's file, and none has it mapped. A process of
//! another user may not be looked at, except by root. Those are told, and an object that one of them may have is
//! spared, unless the caller says otherwise.
//!
//! What no process shows is not seen: a descriptor on its way through a socket.
//!
//! # How it works inside
//! First the names, then all processes, then what the files are, then all processes once more: so that one which was forked
//! by a process that ended before its turn came is seen the second time. Nothing is open here meanwhile. What is not sound,
//! half-made, or not ours is left to `collect`. Who opens an object after that finds it removed, as after `IPC_RMID`.
//!
//! # Crash points
//! Those of the removal: see `namespace.rs`.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags, Stat};

use super::collect::{Finding, What};
use super::identity::Kind;
use super::sysv::id_of;
use super::{Namespace, is_same};
use crate::memory::attachments;
use crate::memory::sysv_segment::SysvSegment;
use crate::message::posix_queue::PosixQueue;
use crate::message::sysv_queue::SysvQueue;
use crate::sync::sysv_semaphore::SysvSemaphores;
use crate::{Errno, Result};

/// The bit of a process's flags that says that it is the kernel's own.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What is to be done with an object that a process may have which may not be looked at.
///
/// ```
/// use ginnel_engine::namespace::Doubt;
///
/// let careful = true;
/// let doubt = if careful { Doubt::Spare } else { Doubt::Ignore };
/// assert_eq!(doubt, Doubt::Spare);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It stays.
    Spare,
    /// It is removed: the caller knows that nobody has it.
    Ignore,
}

/// A process that may not be looked at.
///
/// ```
/// use ginnel_engine::namespace::Unseen;
///
/// let unseen = Unseen { pid: 1, uid: 0 };
/// assert_eq!(format!("process {} of user {}", unseen.pid, unseen.uid), "process 1 of user 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Its number.
    pub pid: u32,
    /// Whose it is.
    pub uid: u32,
}

/// What [`Namespace::collect_unused`] found.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::sysv_queue::SysvQueue;
/// use ginnel_engine::namespace::{Doubt, Namespace, What};
///
/// let home = Namespace::private()?;
/// let id = SysvQueue::get(&home, 0x2a, libc::IPC_CREAT | 0o600)?;
/// let queue = SysvQueue::open(&home, id)?;
/// assert!(home.collect_unused(false, Doubt::Ignore)?.findings.is_empty(), "it is in use");
///
/// drop(queue);
/// let unused = home.collect_unused(true, Doubt::Ignore)?;
/// assert_eq!((unused.findings[0].name.as_str(), unused.findings[0].what), (&*format!("i.{id}"), What::Unused));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// The objects that no process has which could be looked at, as [`What::Unused`]; of a System V object the id's name.
    pub findings: Vec<Finding>,
    /// The processes that could not be looked at.
    pub unseen: Vec<Unseen>,
}

struct Candidate {
    kind: Kind,
    name: String,
    status: Stat,
}

impl Namespace {
    /// Looks for sound objects that nobody has open or attached, and removes them unless this is a dry run.
    ///
    /// They may hold messages, values or memory for somebody who is still to come.
    ///
    /// # Errors
    /// Those of reading the directory and `/proc`. What cannot be removed is told in the findings.
    pub fn collect_unused(&self, dry_run: bool, doubt: Doubt) -> Result<Unused> {
        let mut candidates = Vec::new();
        for kind in Kind::ALL {
            for name in self.names(kind)? {
                if kind.is_sysv() && id_of(&name).is_none() {
                    continue;
                }
                let Ok(status) = self.stat_at(path(kind, &name).as_bytes()) else { continue };
                if FileType::from_raw_mode(status.st_mode).is_file() {
                    candidates.push(Candidate { kind, name, status });
                }
            }
        }
        let mut seen = Processes::default();
        seen.look()?;
        candidates.retain(|candidate| !seen.have(&candidate.status) && self.is_sound(candidate));
        seen.look()?;
        candidates.retain(|candidate| !seen.have(&candidate.status));
        let finding = |candidate: Candidate| {
            let spared = doubt == Doubt::Spare && seen.unseen.iter().any(|one| one.may(&candidate.status));
            let removed = !spared && (dry_run || self.remove_unused(&candidate).is_ok());
            Finding { kind: candidate.kind, name: candidate.name, what: What::Unused, removed }
        };
        let findings = candidates.into_iter().map(finding).collect();
        Ok(Unused { findings, unseen: seen.unseen })
    }

    /// Whether there is nothing about it that `collect` would find.
    fn is_sound(&self, candidate: &Candidate) -> bool {
        let (kind, name) = (candidate.kind, candidate.name.as_str());
        match (kind, id_of(name)) {
            // A plain file: all that can be wrong with it is a second name.
            (Kind::PosixShm, _) => candidate.status.st_nlink == 1,
            (Kind::PosixQueue | Kind::PosixSemaphore, _) => self.look_at_name(kind, name, true).is_none(),
            (_, None) => false,
            (Kind::SysvSegment, Some(id)) => {
                let file = self.open_at(path(kind, name).as_bytes(), OFlags::RDONLY);
                let attached = file.and_then(|file| attachments::any(std::os::fd::AsFd::as_fd(&file)));
                attached == Ok(false) && self.look_at_id(kind, id, true).is_none()
            }
            (_, Some(id)) => self.look_at_id(kind, id, true).is_none(),
        }
    }

    fn remove_unused(&self, candidate: &Candidate) -> Result<()> {
        let (kind, name) = (candidate.kind, candidate.name.as_str());
        let path = path(kind, name);
        if !is_same(&candidate.status, &self.stat_at(path.as_bytes())?) {
            return Err(Errno::NOENT);
        }
        let id = id_of(name).ok_or(Errno::INVAL);
        match kind {
            Kind::SysvQueue => SysvQueue::remove(self, id?),
            Kind::SysvSemaphores => SysvSemaphores::remove(self, id?),
            Kind::SysvSegment => SysvSegment::remove(self, id?),
            Kind::PosixQueue => PosixQueue::unlink(self, format!("/{name}").as_bytes()),
            Kind::PosixSemaphore | Kind::PosixShm => {
                rustix::fs::unlinkat(self.root()?, path, AtFlags::empty())
            }
        }
    }
}

fn path(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.directory())
}

impl Unseen {
    /// Whether it may have this file: it is root's, or the mode lets it in. Which groups it has been in is not known.
    fn may(&self, status: &Stat) -> bool {
        self.uid == 0 || self.uid == status.st_uid || status.st_mode & 0o066 != 0
    }
}

/// The files that processes have, by device and inode.
#[derive(Default)]
struct Processes {
    files: HashSet<(u64, u64)>,
    unseen: Vec<Unseen>,
}

impl Processes {
    fn have(&self, status: &Stat) -> bool {
        self.files.contains(&(status.st_dev, status.st_ino))
    }

    fn look(&mut self) -> Result<()> {
        for entry in std::fs::read_dir("/proc").map_err(|error| errno(&error))? {
            let entry = entry.map_err(|error| errno(&error))?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.look_at(&entry.path()).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
                self.note(pid, &entry.path());
            }
        }
        // Mounted with `hidepid`: those of others are not even listed.
        if !Path::new("/proc/1").exists() {
            self.note(1, Path::new("/proc/1"));
        }
        Ok(())
    }

    /// Of each thread: it may have descriptors of its own, and the first may have ended before the others.
    fn look_at(&mut self, process: &Path) -> std::io::Result<()> {
        let mut mapped = false;
        for task in gone_is_none(std::fs::read_dir(process.join("task")))?.into_iter().flatten() {
            let task = task?.path();
            for file in gone_is_none(std::fs::read_dir(task.join("fd")))?.into_iter().flatten() {
                let file = file?.path();
                if let Some(status) = gone_is_none(rustix::fs::stat(&file).map_err(Into::into))? {
                    self.files.insert((status.st_dev, status.st_ino));
                }
            }
            if !mapped {
                let mut text = Vec::new();
                if let Some(mut maps) = gone_is_none(std::fs::File::open(task.join("maps")))? {
                    gone_is_none(maps.read_to_end(&mut text))?;
                }
                mapped = !text.is_empty();
                self.files.extend(text.split(|byte| *byte == b'\n').filter_map(mapping));
            }
        }
        Ok(())
    }

    fn note(&mut self, pid: u32, process: &Path) {
        let status = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // What is behind the name, which may hold anything.
        let mut words = status.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = words.next().unwrap_or_default();
        let flags: u64 = words.nth(5).and_then(|word| word.parse().ok()).unwrap_or(0);
        let threads: u64 = words.nth(10).and_then(|word| word.parse().ok()).unwrap_or(0);
        let is_dead = matches!(state, "Z" | "X") && threads <= 1;
        if is_dead || flags & KERNEL_THREAD != 0 || self.unseen.iter().any(|one| one.pid == pid) {
            return;
        }
        // Without an answer the worst is taken for granted.
        let uid = std::fs::read_to_string(process.join("status"))
            .ok()
            .and_then(|text| text.lines().find_map(effective_uid))
            .unwrap_or(0);
        self.unseen.push(Unseen { pid, uid });
    }
}

fn effective_uid(line: &str) -> Option<u32> {
    line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// A line of `maps`: device and inode of its file.
fn mapping(line: &[u8]) -> Option<(u64, u64)> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(3);
    let (major, minor) = std::str::from_utf8(words.next()?).ok()?.split_once(':')?;
    let device =
        rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    (inode != 0).then_some((device, inode))
}

/// What has ended meanwhile has nothing open.
fn gone_is_none<T>(outcome: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(errno(&error), Errno::NOENT | Errno::SRCH | Errno::BADF) => Ok(None),
        Err(error) => Err(error),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
