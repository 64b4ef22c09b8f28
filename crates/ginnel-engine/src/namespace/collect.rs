//! What was left behind: found and removed without believing anything that it says. `ginnel gc`.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags, Stat};

use super::identity::{Identity, Kind, Naming, hash};
use super::sysv::{id_of, id_path, key_of, key_path, regular};
use super::{BELLS, Namespace, is_same};
use crate::memory::{attachments, sysv_segment};
use crate::message::doorbell;
use crate::segment::measures;
use crate::{Errno, Result};

/// What is wrong with a file of a namespace.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Namespace, What};
///
/// let home = Namespace::private()?;
/// std::fs::write(home.path().join("mq/jobs"), "no queue")?;
/// assert_eq!(home.collect(true)?[0].what, What::Foreign);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Somebody died in making it: nobody could ever use it.
    HalfMade,
    /// It was removed, and somebody died before its names were gone; or its last user was killed.
    Removed,
    /// It is an object of this library and does not hold what it must.
    Corrupt,
    /// Not of this library, or not what its name says: never touched.
    Foreign,
    /// The caller may not look at it: never touched.
    Closed,
    /// A sound object that nobody has open or attached: only [`Namespace::collect_unused`] looks for it.
    Unused,
}

/// A file that is not an object in use, and what was done with it.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Namespace, What};
///
/// let home = Namespace::private()?;
/// std::fs::write(home.path().join("msg/notes"), "mine")?;
/// let findings = home.collect(false)?;
/// assert_eq!((findings[0].name.as_str(), findings[0].what, findings[0].removed), ("notes", What::Foreign, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which directory it is.
    pub kind: Kind,
    /// The file's name.
    pub name: String,
    /// What it is.
    pub what: What,
    /// Whether it was removed, or would be.
    pub removed: bool,
}

impl Namespace {
    /// Looks for what the dead have left, and removes it unless this is a dry run.
    ///
    /// Nothing is mapped: files are read, and names are taken away only while they lead to what was looked at.
    ///
    /// # Errors
    /// Those of reading a directory. What cannot be removed is told in the findings.
    pub fn collect(&self, dry_run: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for kind in [Kind::SysvQueue, Kind::SysvSemaphores, Kind::SysvSegment] {
            let mut names = self.names(kind)?;
            // Ids first: a key goes with its id.
            names.sort();
            for name in names {
                let seen = if let Some(id) = id_of(&name) {
                    self.look_at_id(kind, id, dry_run)
                } else if let Some(key) = key_of(&name) {
                    self.look_at_key(kind, key, dry_run)
                } else {
                    Some((What::Foreign, false))
                };
                findings.extend(seen.map(|(what, removed)| Finding { kind, name, what, removed }));
            }
        }
        for kind in [Kind::PosixQueue, Kind::PosixSemaphore] {
            for name in self.names(kind)? {
                let seen = self.look_at_name(kind, &name, dry_run);
                findings.extend(seen.map(|(what, removed)| Finding { kind, name, what, removed }));
            }
        }
        findings.extend(self.look_at_bells(dry_run)?);
        Ok(findings)
    }

    /// The FIFOs of queues that are gone.
    fn look_at_bells(&self, dry_run: bool) -> Result<Vec<Finding>> {
        let bells = doorbell::bells(self)?;
        let mut queues = HashSet::new();
        for kind in [Kind::PosixQueue, Kind::SysvQueue] {
            for name in self.names(kind)? {
                let status = self.stat_at(format!("{}/{name}", kind.directory()).as_bytes());
                queues.extend(status.map(|status| status.st_ino));
            }
        }
        let left = bells.into_iter().filter(|(_, queue)| !queues.contains(queue));
        let finding = |(name, _): (String, u64)| {
            let path = format!("{BELLS}/{name}");
            let removed = dry_run || rustix::fs::unlinkat(self.root()?, path, AtFlags::empty()).is_ok();
            Ok(Finding { kind: Kind::PosixQueue, name, what: What::Removed, removed })
        };
        left.map(finding).collect()
    }

    /// The file, if it can be read and is the engine's.
    fn open_ours(&self, path: &[u8]) -> std::result::Result<Option<(OwnedFd, Stat, Identity)>, What> {
        let file = match self.open_at(path, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::UCLEAN) => return Err(What::Foreign),
            Err(_) => return Err(What::Closed),
        };
        let status = regular(&file).map_err(|_| What::Foreign)?;
        let identity = Identity::read(&file).map_err(|_| What::Foreign)?;
        Ok(Some((file, status, identity)))
    }

    pub(super) fn look_at_id(&self, kind: Kind, id: i32, dry_run: bool) -> Option<(What, bool)> {
        let (file, status, identity) = match self.open_ours(id_path(kind, id).as_bytes()) {
            Ok(found) => found?,
            Err(what) => return Some((what, false)),
        };
        let names = if identity.key == libc::IPC_PRIVATE { 1 } else { 2 };
        let sound = identity.kind == kind.number() && identity.id == id;
        let doomed = sound && identity.is_doomed() && kind == Kind::SysvSegment;
        if !sound || status.st_nlink > 2 || (identity.is_doomed() && !doomed) {
            return Some((
                What::Corrupt,
                dry_run || self.remove(&file, &status, id_path(kind, id).as_bytes()),
            ));
        }
        if identity.is_removed() || (doomed && attachments::any(file.as_fd()) == Ok(false)) {
            let gone = dry_run || self.complete_removal(kind, file.as_fd()) == Ok(true);
            return Some((What::Removed, gone));
        }
        if doomed {
            return None;
        }
        if status.st_nlink > names || (status.st_nlink == names && !is_whole(kind, &file, &status, &identity))
        {
            return Some((
                What::Corrupt,
                dry_run || self.remove(&file, &status, id_path(kind, id).as_bytes()),
            ));
        }
        if status.st_nlink < names {
            // Being made at this moment: its maker holds the lock.
            let naming = Naming::try_lock(file.as_fd()).ok()?;
            let status = regular(&file).ok()?;
            if status.st_nlink != 1 || Identity::read(&file).ok()?.state != identity.state {
                return None;
            }
            let gone = dry_run || self.unlink_if_same(&id_path(kind, id), &status).is_ok();
            drop(naming);
            return Some((What::HalfMade, gone));
        }
        None
    }

    fn look_at_key(&self, kind: Kind, key: i32, dry_run: bool) -> Option<(What, bool)> {
        let path = key_path(kind, key);
        let (file, status, identity) = match self.open_ours(path.as_bytes()) {
            Ok(found) => found?,
            Err(what) => return Some((what, false)),
        };
        let sound = identity.kind == kind.number() && identity.key == key;
        if sound && (identity.is_removed() || identity.is_doomed()) {
            let gone = dry_run || self.complete_removal(kind, file.as_fd()).is_ok();
            return Some((What::Removed, gone));
        }
        // The id that it says must lead to the same file.
        let other = self.stat_at(id_path(kind, identity.id).as_bytes());
        if sound && other.is_ok_and(|other| is_same(&status, &other)) {
            return None;
        }
        Some((What::Corrupt, dry_run || self.remove(&file, &status, path.as_bytes())))
    }

    pub(super) fn look_at_name(&self, kind: Kind, name: &str, dry_run: bool) -> Option<(What, bool)> {
        let path = format!("{}/{name}", kind.directory());
        let (file, status, identity) = match self.open_ours(path.as_bytes()) {
            Ok(found) => found?,
            Err(what) => return Some((what, false)),
        };
        let number = hash(name.as_bytes());
        let named = (identity.key as u32, identity.id as u32) == ((number >> 32) as u32, number as u32);
        let sound = identity.kind == kind.number() && named && status.st_nlink <= 1;
        if sound && is_whole(kind, &file, &status, &identity) {
            return None;
        }
        Some((What::Corrupt, dry_run || self.remove(&file, &status, path.as_bytes())))
    }

    /// Takes a name away that still leads to this file.
    fn remove(&self, file: &OwnedFd, status: &Stat, path: &[u8]) -> bool {
        let Ok(_naming) = Naming::try_lock(file.as_fd()) else { return false };
        let same = self.stat_at(path).is_ok_and(|other| is_same(status, &other));
        same && self.root().and_then(|root| rustix::fs::unlinkat(root, path, AtFlags::empty())).is_ok()
    }
}

/// Whether a file is as long as it must be to be opened.
fn is_whole(kind: Kind, file: &OwnedFd, status: &Stat, identity: &Identity) -> bool {
    match kind {
        Kind::SysvSegment => sysv_segment::length(identity.extent, status.st_size).is_ok(),
        _ => measures(file.as_fd()).is_ok(),
    }
}
