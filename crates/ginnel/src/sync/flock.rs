//! Locks on whole files: `flock(2)`.
//!
//! # What a user sees
//! [`Flock`] is a file opened for locking; [`lock`](Flock::lock) gives a guard. The lock is advisory and belongs to the
//! open file description, that is to the handle: two handles in one process shut each other out, a forked child shares
//! its parent's, and the kernel releases it when the last duplicate is closed, however that comes about. It works with
//! any file that one may open, directories too, and knows nothing of [`RecordLocks`](super::RecordLocks).
//!
//! Differences from the bare call: the kernel lets a handle lock again what it has locked, and changes the kind. Two
//! threads with one handle would be let in together, so that is refused with `EDEADLK`; [`FlockGuard::upgrade`] and
//! [`downgrade`](FlockGuard::downgrade) are for changing the kind. The kernel finds no circles of waiters.
//!
//! On NFS, Linux turns these locks into record locks of the whole file: an exclusive one needs a file open for writing.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::lock_table::{self, LockKind, Mechanism};
use super::record_lock::Holder;
use super::record_lock_raw::LockedFile;
use crate::error::{Error, Label, Result};
use crate::wait::Attempt;
use crate::{Deadline, interrupt};

const FAMILY: &str = "flock";

/// A file, opened for locking it as a whole.
///
/// ```
/// # ginnel_testkit::private();
/// use std::time::Duration;
/// use ginnel::sync::{Flock, LockKind};
///
/// # let path = std::env::temp_dir().join(format!("ginnel-doc-flock-{}", std::process::id()));
/// let mine = Flock::create(&path)?;
/// let lock = mine.lock(LockKind::Exclusive)?;
///
/// let other = Flock::open(&path)?;
/// assert!(other.try_lock(LockKind::Shared).unwrap_err().is_would_block());
/// assert!(other.lock_deadline(LockKind::Shared, Duration::from_millis(2)).unwrap_err().is_timed_out());
/// assert_eq!(other.holders()?[0].pids, [std::process::id() as i32]);
///
/// let lock = lock.downgrade()?;
/// let _both = other.lock(LockKind::Shared)?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Flock {
    file: LockedFile,
    object: Label,
    /// Whether a guard of this handle has the lock, or is about to.
    taken: AtomicBool,
}

impl Flock {
    /// Opens a file or a directory, which must exist, for reading.
    ///
    /// # Errors
    /// As `open(2)`: `ENOENT`, `EACCES`, `EMFILE`.
    pub fn open(path: impl AsRef<Path>) -> Result<Flock> {
        Flock::open_with(path.as_ref(), std::fs::OpenOptions::new().read(true))
    }

    /// Opens a file for reading and writing, and makes it (mode 0600) if there is none. What it holds is not changed.
    ///
    /// # Errors
    /// As `open(2)`: `EACCES`, `EISDIR`, `EMFILE`.
    pub fn create(path: impl AsRef<Path>) -> Result<Flock> {
        let mut options = std::fs::OpenOptions::new();
        Flock::open_with(
            path.as_ref(),
            options.read(true).write(true).create(true).truncate(false).mode(0o600),
        )
    }

    fn open_with(path: &Path, options: &std::fs::OpenOptions) -> Result<Flock> {
        let object = Label::new(format!("{FAMILY}:{}", path.display()));
        let file = options.open(path).map_err(|error| Error::from_io("open", &error, &object))?;
        Flock::with_label(file.into(), object)
    }

    /// Locks a file that is open already. Duplicates of the descriptor are the same owner.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn from_file(file: File) -> Result<Flock> {
        Flock::with_label(file.into(), Label::from(FAMILY))
    }

    fn with_label(file: OwnedFd, object: Label) -> Result<Flock> {
        let file = LockedFile::new(file).map_err(|errno| Error::new("fstat", errno, &object))?;
        Ok(Flock { file, object, taken: AtomicBool::new(false) })
    }

    /// Locks the file; waits until nobody holds a lock that conflicts.
    ///
    /// # Errors
    /// `EDEADLK`: a guard of this handle has the lock already. `EINTR`: a signal handler ran. `ENOLCK`: no memory for
    /// the lock, or no lock server. `EBADF`: an exclusive lock on NFS needs a file open for writing.
    ///
    /// # Blocking
    /// Until it is free. `flock(2)`.
    pub fn lock(&self, kind: LockKind) -> Result<FlockGuard<'_>> {
        self.lock_deadline(kind, Deadline::NEVER)
    }

    /// Locks the file if nobody holds a lock that conflicts.
    ///
    /// # Errors
    /// `EAGAIN`: somebody does; [`Flock::holders`] tells who. Else as [`Flock::lock`].
    pub fn try_lock(&self, kind: LockKind) -> Result<FlockGuard<'_>> {
        self.lock_deadline(kind, Deadline::NOW)
    }

    /// Locks the file; waits until the deadline for it to be free.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`Flock::lock`].
    pub fn lock_deadline(&self, kind: LockKind, deadline: impl Into<Deadline>) -> Result<FlockGuard<'_>> {
        if self.taken.swap(true, Ordering::Acquire) {
            return Err(Error::new("flock", Errno::DEADLK, &self.object).with_hint(
                "this handle has the lock itself, or waits for it: open the file again for another owner, or use \
                 `upgrade`",
            ));
        }
        match self.set(kind, deadline.into()) {
            Ok(()) => Ok(FlockGuard { flock: self, kind, taker: std::process::id() }),
            Err(error) => {
                self.taken.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Who holds the lock now, this handle included; read from `/proc/locks`.
    ///
    /// A holder is several processes where forked children share its open file description.
    ///
    /// # Errors
    /// `ENOSYS`: the file cannot be looked up.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        let file = lock_table::file_key(&self.file)
            .ok_or_else(|| Error::new("flock", Errno::NOSYS, &self.object))?;
        let held = lock_table::held(Mechanism::Flock, &file);
        let holder = |entry: &lock_table::Entry| {
            // The table has the process that took the lock, which may be gone while a child holds it.
            let mut pids = lock_table::processes(Mechanism::Flock, &file, entry);
            if entry.kind == LockKind::Shared || pids.is_empty() {
                pids = Some(entry.pid).filter(|pid| *pid > 0).into_iter().collect();
            }
            Holder { pids, range: entry.range, kind: entry.kind }
        };
        Ok(held.iter().map(holder).collect())
    }

    fn set(&self, kind: LockKind, deadline: Deadline) -> Result<()> {
        interrupt::until(deadline, "flock", &self.object, |attempt| {
            rustix::fs::flock(
                &self.file,
                match (kind, attempt) {
                    (LockKind::Shared, Attempt::Blocking) => FlockOperation::LockShared,
                    (LockKind::Shared, Attempt::NonBlocking) => FlockOperation::NonBlockingLockShared,
                    (LockKind::Exclusive, Attempt::Blocking) => FlockOperation::LockExclusive,
                    (LockKind::Exclusive, Attempt::NonBlocking) => FlockOperation::NonBlockingLockExclusive,
                },
            )
        })
        .map_err(|error| match error.raw() {
            Errno::NOLCK => error.with_hint("no memory for the lock, or a network file system without locks"),
            Errno::BADF => error.with_hint("an exclusive lock on NFS needs a file that is open for writing"),
            _ => error,
        })
    }
}

impl AsFd for Flock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The lock on a file, released when this is dropped.
///
/// A child made by `fork` shares the lock and its copy of the guard does not release it; the lock is there until the
/// child has closed its copy of the descriptor too, or this guard is dropped.
///
/// ```
/// use ginnel::sync::{Flock, LockKind};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path();
/// let (mine, other) = (Flock::open(path)?, Flock::open(path)?);
/// let guard = mine.lock(LockKind::Shared)?.upgrade()?;
/// assert_eq!((guard.kind(), guard.is_held()?), (LockKind::Exclusive, true));
/// assert!(other.try_lock(LockKind::Shared).unwrap_err().is_would_block());
/// drop(guard);
/// let _guard = other.try_lock(LockKind::Shared)?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the file is unlocked when the guard is dropped"]
pub struct FlockGuard<'a> {
    flock: &'a Flock,
    kind: LockKind,
    taker: u32,
}

impl<'a> FlockGuard<'a> {
    /// How it is locked.
    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// Makes the lock exclusive; waits until nobody else holds one.
    ///
    /// The kernel releases the shared lock first: somebody else may have it exclusively in between, and when this
    /// fails, the lock is gone. (Record locks are kept: [`RecordGuard::upgrade`](super::RecordGuard::upgrade).)
    ///
    /// # Errors
    /// As [`Flock::lock`].
    pub fn upgrade(self) -> Result<FlockGuard<'a>> {
        self.upgrade_deadline(Deadline::NEVER)
    }

    /// Makes the lock exclusive if nobody else holds one now. When somebody does, the lock is gone.
    ///
    /// # Errors
    /// `EAGAIN`. Else as [`Flock::lock`].
    pub fn try_upgrade(self) -> Result<FlockGuard<'a>> {
        self.upgrade_deadline(Deadline::NOW)
    }

    /// Makes the lock exclusive; waits until the deadline. When it passes, the lock is gone.
    ///
    /// # Errors
    /// `ETIMEDOUT`. Else as [`Flock::lock`].
    pub fn upgrade_deadline(self, deadline: impl Into<Deadline>) -> Result<FlockGuard<'a>> {
        self.convert(LockKind::Exclusive, deadline.into())
    }

    /// Makes the lock shared. An exclusive one may be given to somebody else in between, and then this waits.
    ///
    /// # Errors
    /// As [`Flock::lock`]; the lock is gone then.
    pub fn downgrade(self) -> Result<FlockGuard<'a>> {
        self.convert(LockKind::Shared, Deadline::NEVER)
    }

    fn convert(mut self, kind: LockKind, deadline: Deadline) -> Result<FlockGuard<'a>> {
        if self.taker != std::process::id() {
            return Err(Error::new("flock", Errno::PERM, &self.flock.object)
                .with_hint("the process that took this lock is another one"));
        }
        // Where it fails, the guard's drop releases what may be left of it.
        self.flock.set(kind, deadline)?;
        self.kind = kind;
        Ok(self)
    }

    /// Unlocks the file, and says whether that worked, which a drop does not.
    ///
    /// # Errors
    /// None known.
    pub fn unlock(self) -> Result<()> {
        ManuallyDrop::new(self).release()
    }

    /// Whether the kernel still has the lock: somebody with a duplicate of the descriptor may have released it.
    ///
    /// # Errors
    /// `ENOSYS`: the file cannot be looked up.
    pub fn is_held(&self) -> Result<bool> {
        let file = lock_table::file_key(&self.flock.file)
            .ok_or_else(|| Error::new("flock", Errno::NOSYS, &self.flock.object))?;
        let pid = std::process::id() as i32;
        let held = lock_table::held_by(pid, self.flock.as_fd().as_raw_fd(), Mechanism::Flock, &file);
        Ok(held.iter().any(|entry| entry.kind == self.kind))
    }

    fn release(&mut self) -> Result<()> {
        if self.taker != std::process::id() {
            return Ok(());
        }
        let outcome = rustix::fs::flock(&self.flock.file, FlockOperation::Unlock)
            .map_err(|errno| Error::new("flock", errno, &self.flock.object));
        self.flock.taken.store(false, Ordering::Release);
        outcome
    }
}

impl Drop for FlockGuard<'_> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}
