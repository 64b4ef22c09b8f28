//! The calls behind `RecordLocks`, and what a process's own locks need: `fcntl(2)`.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::io::Errno;

use super::lock_table::{Entry, LockKind};
use super::record_lock::{Owner, Range, lock};
use crate::wait::check;

/// Locks (`kind`), or unlocks (`None`).
pub(super) fn set(
    file: BorrowedFd<'_>,
    owner: Owner,
    range: Range,
    kind: Option<LockKind>,
    wait: bool,
) -> Result<(), Errno> {
    let command = match (owner, wait) {
        (Owner::OpenFile, true) => libc::F_OFD_SETLKW,
        (Owner::OpenFile, false) => libc::F_OFD_SETLK,
        (Owner::Process, true) => libc::F_SETLKW,
        (Owner::Process, false) => libc::F_SETLK,
    };
    let mut request = request(range, kind);
    // SAFETY: the descriptor is open and `request` is a whole struct flock.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut request) })?;
    Ok(())
}

/// A lock of another owner that would be in the way, if there is one.
pub(super) fn get(
    file: BorrowedFd<'_>,
    owner: Owner,
    range: Range,
    kind: LockKind,
) -> Result<Option<Entry>, Errno> {
    let command = match owner {
        Owner::OpenFile => libc::F_OFD_GETLK,
        Owner::Process => libc::F_GETLK,
    };
    let mut found = request(range, Some(kind));
    // SAFETY: the descriptor is open and `found` is a whole struct flock, which the kernel fills.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut found) })?;
    let kind = match i32::from(found.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => LockKind::Shared,
        _ => LockKind::Exclusive,
    };
    let start = found.l_start as u64;
    let end = (found.l_len != 0).then(|| start + found.l_len as u64);
    Ok(Some(Entry { pid: found.l_pid, kind, range: Range { start, end } }))
}

fn request(range: Range, kind: Option<LockKind>) -> libc::flock {
    // SAFETY: a struct flock is numbers only, for which all zeros is a value (and l_pid must be 0 for F_OFD_*).
    let mut request: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    request.l_type = match kind {
        None => libc::F_UNLCK,
        Some(LockKind::Shared) => libc::F_RDLCK,
        Some(LockKind::Exclusive) => libc::F_WRLCK,
    } as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_start = range.start as libc::off_t;
    request.l_len = range.end.map_or(0, |end| end - range.start) as libc::off_t;
    request
}

/// What this process holds on one file with [`Owner::Process`].
#[derive(Default)]
pub(super) struct Held {
    /// Ranges that guards have, or are about to.
    pub(super) held: Vec<Range>,
    /// Descriptors of dropped handles: closing one would release all of the above.
    parked: Vec<OwnedFd>,
}

struct Registry {
    /// A forked child holds nothing of its parent's.
    owner: u32,
    files: HashMap<(u64, u64), Held>,
}

/// Runs `body` on what this process holds on that file, and closes what was parked once nothing is held.
pub(super) fn with_registry<T>(file: (u64, u64), body: impl FnOnce(&mut Held) -> T) -> T {
    static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);
    let mut registry = lock(&REGISTRY);
    let pid = std::process::id();
    if registry.as_ref().is_none_or(|registry| registry.owner != pid) {
        *registry = Some(Registry { owner: pid, files: HashMap::new() });
    }
    let Some(Registry { files, .. }) = registry.as_mut() else { unreachable!("made above") };
    let held = files.entry(file).or_default();
    let value = body(held);
    if held.held.is_empty() {
        files.remove(&file);
    }
    value
}

/// The descriptor of a file that this process may hold locks of its own on.
///
/// Closing any descriptor of the file would release them all, whatever the descriptor was for. So it is parked where
/// there are some, until the last of them is released.
#[derive(Debug)]
pub(crate) struct LockedFile {
    descriptor: ManuallyDrop<OwnedFd>,
    pub(super) identity: (u64, u64),
}

impl LockedFile {
    pub(crate) fn new(descriptor: OwnedFd) -> Result<LockedFile, Errno> {
        let status = rustix::fs::fstat(&descriptor)?;
        Ok(LockedFile { descriptor: ManuallyDrop::new(descriptor), identity: (status.st_dev, status.st_ino) })
    }
}

impl AsFd for LockedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // SAFETY: taken once, here; nobody uses the field afterwards.
        let descriptor = unsafe { ManuallyDrop::take(&mut self.descriptor) };
        with_registry(self.identity, |held| held.parked.push(descriptor));
    }
}
