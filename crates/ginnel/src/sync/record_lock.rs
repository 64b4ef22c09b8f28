//! Record locks: ranges of a file, shared or exclusive: `fcntl_locking(2)`, `F_SETLK(2const)`, `F_OFD_SETLK(2const)`.
//!
//! # What a user sees
//! [`RecordLocks`] is a file opened for locking; [`lock`](RecordLocks::lock) takes a range of it (`..`, `0..100`, `512..`)
//! and gives a guard. Locks are advisory, and the kernel releases them when their owner ends, however it ends. The owner
//! is one of two:
//!
//! | [`Owner`] | owned by | trap |
//! | --- | --- | --- |
//! | `OpenFile` (the default) | this handle, which forked children share | no `EDEADLK`: a circle of waiters waits for ever |
//! | `Process` | the process | closing *any* descriptor of the file releases all its locks on that file |
//!
//! Both conflict with each other, and neither with [`Flock`](super::Flock).
//!
//! # Differences from the bare calls
//! The kernel lets an owner lock again what it has locked: it changes the kind, and one unlock releases both. Two
//! threads with one handle would be let in together. So a range that overlaps one that the same owner holds here is
//! refused with `EDEADLK`; [`RecordGuard::upgrade`] and [`downgrade`](RecordGuard::downgrade) are for changing the kind.
//! An empty range is refused, since the kernel would read it as "to the end of the file and beyond". Ranges count from
//! the file's start; `SEEK_CUR` and `SEEK_END` of the bare call are left out.
//!
//! # The trap of `close`
//! A handle of this library, of whatever owner, that is dropped while this process holds locks of its own
//! ([`Owner::Process`]) on the same file, keeps its descriptor open until the last of them is released. What this cannot
//! prevent is other code that opens and closes the file, a library that reads it, say: [`RecordGuard::is_held`] tells.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::{Bound, RangeBounds};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

pub use super::lock_table::LockKind;
use super::lock_table::{self, Entry, Mechanism};
use super::record_lock_raw::{self as raw, LockedFile};
use crate::error::{Error, Label, Result};
use crate::wait::Attempt;
use crate::{Deadline, interrupt};

const FAMILY: &str = "lock";

/// Whose the locks of a handle are.
///
/// ```
/// use ginnel::sync::{LockKind, RecordLocks, record_lock::Owner};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path().join("table");
/// let open = |owner| RecordLocks::options().create(true).owner(owner).open(&path);
///
/// let (one, two) = (open(Owner::Process)?, open(Owner::Process)?);
/// let _lock = one.lock(0..10, LockKind::Exclusive)?;
/// assert_eq!(two.holder(0..10, LockKind::Exclusive)?, None, "the same process, the same owner");
/// assert!(open(Owner::OpenFile)?.holder(0..10, LockKind::Exclusive)?.is_some());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The open file description, that is the handle: two handles in one process shut each other out (`F_OFD_SETLK`).
    OpenFile,
    /// The process, as POSIX has it: what programs in C use as a rule (`F_SETLK`).
    Process,
}

/// Bytes of a file, from `start` to before `end`, or to the end of the file and beyond where that is `None`.
///
/// ```
/// use ginnel::sync::{LockKind, RecordLocks, record_lock::Range};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path().join("table");
/// let locks = RecordLocks::create(&path)?;
/// let (head, tail) = (locks.lock(0..=99, LockKind::Shared)?, locks.lock(100.., LockKind::Shared)?);
/// assert_eq!(head.range(), Range { start: 0, end: Some(100) });
/// assert_eq!((head.range().to_string(), tail.range().to_string()), ("0..100".into(), "100..".into()));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one; `None` for no end, however the file grows.
    pub end: Option<u64>,
}

impl Range {
    fn from_bounds(bounds: impl RangeBounds<u64>) -> Option<Range> {
        let start = match bounds.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match bounds.end_bound() {
            Bound::Included(last) => Some(last.checked_add(1)?),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        // The last byte that the kernel can lock is number i64::MAX.
        let highest = i64::MAX as u64;
        let fits = start <= highest && end.is_none_or(|end| end > start && end - 1 <= highest);
        fits.then_some(Range { start, end: end.filter(|end| end - 1 < highest) })
    }

    fn overlaps(self, other: Range) -> bool {
        let before = |end: Option<u64>, start| end.is_some_and(|end| end <= start);
        !before(self.end, other.start) && !before(other.end, self.start)
    }
}

impl RangeBounds<u64> for Range {
    fn start_bound(&self) -> Bound<&u64> {
        Bound::Included(&self.start)
    }

    fn end_bound(&self) -> Bound<&u64> {
        self.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.end {
            Some(end) => write!(f, "{}..{end}", self.start),
            None => write!(f, "{}..", self.start),
        }
    }
}

/// A lock that somebody else holds: what [`RecordLocks::holder`] and [`Flock::holders`](super::Flock::holders) find.
///
/// ```
/// use ginnel::sync::{LockKind, RecordLocks};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path().join("table");
/// let (mine, other) = (RecordLocks::create(&path)?, RecordLocks::create(&path)?);
/// let _lock = mine.lock(512..1024, LockKind::Shared)?;
///
/// let holder = other.holder(.., LockKind::Exclusive)?.unwrap();
/// assert_eq!((holder.range.to_string(), holder.kind), ("512..1024".into(), LockKind::Shared));
/// assert_eq!(holder.pids, [std::process::id() as i32]);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The processes that hold it: one as a rule; several where an open file description that owns the lock is shared by
    /// forked processes; none where they cannot be seen (another PID namespace, another user, another host).
    pub pids: Vec<i32>,
    /// What it holds.
    pub range: Range,
    /// How.
    pub kind: LockKind,
}

/// A file, opened for locking ranges of it.
///
/// ```
/// # ginnel_testkit::private();
/// use std::time::Duration;
/// use ginnel::sync::{LockKind, RecordLocks};
///
/// # let path = std::env::temp_dir().join(format!("ginnel-doc-record-lock-{}", std::process::id()));
/// let mine = RecordLocks::create(&path)?;
/// let first_page = mine.lock(0..4096, LockKind::Exclusive)?;
///
/// let other = RecordLocks::open(&path)?;
/// let _second_page = other.lock(4096..8192, LockKind::Shared)?;
/// assert!(other.try_lock(100..200, LockKind::Shared).unwrap_err().is_would_block());
/// assert!(other.lock_deadline(..4096, LockKind::Shared, Duration::from_millis(2)).unwrap_err().is_timed_out());
/// assert_eq!(other.holder(.., LockKind::Exclusive)?.unwrap().pids, [std::process::id() as i32]);
///
/// drop(first_page);
/// assert_eq!(other.holder(.., LockKind::Exclusive)?, None);
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct RecordLocks {
    file: LockedFile,
    owner: Owner,
    object: Label,
    /// With [`Owner::OpenFile`]: the ranges that guards of this handle have, or are about to.
    held: Mutex<Vec<Range>>,
}

/// How to open [`RecordLocks`]: see [`RecordLocks::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::{LockKind, RecordLocks, record_lock::Owner};
///
/// # let path = std::env::temp_dir().join(format!("ginnel-doc-record-options-{}", std::process::id()));
/// # std::fs::write(&path, "").unwrap();
/// let reader = RecordLocks::options().write(false).owner(Owner::Process).open(&path)?;
/// let _lock = reader.lock(.., LockKind::Shared)?;
/// let refused = reader.lock(.., LockKind::Exclusive).unwrap_err();
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RecordLocksOptions {
    read: bool,
    write: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    owner: Owner,
}

impl RecordLocksOptions {
    /// Open for reading, which shared locks need; so unless said.
    pub fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Open for writing, which exclusive locks need; so unless said.
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Make the file if there is none.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make the file, and fail with `EEXIST` if there is one already.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// The permission bits of a file that is made; 0600 unless said. The umask applies.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Whose the locks are; [`Owner::OpenFile`] unless said.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// Opens the file. Nothing is locked yet, and nothing in the file is changed.
    ///
    /// # Errors
    /// As `open(2)`: `ENOENT`, `EEXIST`, `EACCES`, `EISDIR`, `EMFILE`. `EINVAL`: neither reading nor writing.
    pub fn open(self, path: impl AsRef<Path>) -> Result<RecordLocks> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = path.as_ref();
        let object = Label::new(format!("{FAMILY}:{}", path.display()));
        let file = std::fs::OpenOptions::new()
            .read(self.read)
            .write(self.write)
            .create(self.create)
            .create_new(self.create_new)
            .mode(self.mode)
            .open(path)
            .map_err(|error| Error::from_io("open", &error, &object))?;
        RecordLocks::with_label(file.into(), self.owner, object)
    }
}

impl RecordLocks {
    /// Opens a file with every choice spelled out.
    pub fn options() -> RecordLocksOptions {
        RecordLocksOptions {
            read: true,
            write: true,
            create: false,
            create_new: false,
            mode: 0o600,
            owner: Owner::OpenFile,
        }
    }

    /// Opens the file, which must exist, for reading and writing; the locks are this handle's.
    ///
    /// # Errors
    /// See [`RecordLocksOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<RecordLocks> {
        RecordLocks::options().open(path)
    }

    /// Opens the file for reading and writing, and makes it (mode 0600) if there is none; the locks are this handle's.
    ///
    /// # Errors
    /// See [`RecordLocksOptions::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<RecordLocks> {
        RecordLocks::options().create(true).open(path)
    }

    /// Locks in a file that is open already.
    ///
    /// With [`Owner::OpenFile`], duplicates of the descriptor are the same owner: what one locks, the other may too.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn from_file(file: File, owner: Owner) -> Result<RecordLocks> {
        RecordLocks::with_label(file.into(), owner, Label::from("record lock"))
    }

    fn with_label(file: OwnedFd, owner: Owner, object: Label) -> Result<RecordLocks> {
        let file = LockedFile::new(file).map_err(|errno| Error::new("fstat", errno, &object))?;
        Ok(RecordLocks { file, owner, object, held: Mutex::new(Vec::new()) })
    }

    /// Whose the locks are.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Locks a range; waits until nobody holds a lock in it that conflicts.
    ///
    /// # Errors
    /// `EBADF`: a shared lock needs a file open for reading, an exclusive one for writing. `EDEADLK`: waiting would
    /// close a circle of waiters ([`Owner::Process`] only), or the same owner holds a part of the range already.
    /// `EINVAL`: an empty range, one beyond the largest offset, or a file system without locks. `EINTR`: a signal
    /// handler ran. `ENOLCK`: too many locks, or a network file system whose server gives none.
    ///
    /// # Blocking
    /// Until it is free. `fcntl(2)`, `F_SETLKW`, `F_OFD_SETLKW`.
    pub fn lock(&self, range: impl RangeBounds<u64>, kind: LockKind) -> Result<RecordGuard<'_>> {
        self.lock_deadline(range, kind, Deadline::NEVER)
    }

    /// Locks a range if nobody holds a lock in it that conflicts.
    ///
    /// # Errors
    /// `EAGAIN`: somebody does; [`RecordLocks::holder`] tells who. Else as [`RecordLocks::lock`].
    pub fn try_lock(&self, range: impl RangeBounds<u64>, kind: LockKind) -> Result<RecordGuard<'_>> {
        self.lock_deadline(range, kind, Deadline::NOW)
    }

    /// Locks a range; waits until the deadline for it to be free.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`RecordLocks::lock`].
    pub fn lock_deadline(
        &self,
        range: impl RangeBounds<u64>,
        kind: LockKind,
        deadline: impl Into<Deadline>,
    ) -> Result<RecordGuard<'_>> {
        let range = self.range(range)?;
        self.reserve(range)?;
        match self.set(range, kind, deadline.into()) {
            Ok(()) => Ok(RecordGuard { locks: self, range, kind, taker: std::process::id() }),
            Err(error) => {
                self.forget(range);
                Err(error)
            }
        }
    }

    /// Somebody else's lock that keeps this handle from locking the range in this way now, if there is one (`F_GETLK`,
    /// `F_OFD_GETLK`). Where there are several, it is any of them: not always that of the lowest byte.
    ///
    /// Locks of the same owner keep it from nothing, and are not found. The kernel does not say which process holds a
    /// lock that an open file description owns; that is looked up in `/proc`, which takes a moment.
    ///
    /// # Errors
    /// `EINVAL` as [`RecordLocks::lock`].
    pub fn holder(&self, range: impl RangeBounds<u64>, kind: LockKind) -> Result<Option<Holder>> {
        let range = self.range(range)?;
        let found = raw::get(self.file.as_fd(), self.owner, range, kind)
            .map_err(|errno| self.explain(Error::new("fcntl", errno, &self.object), kind))?;
        Ok(found.map(|entry| {
            let Entry { pid, kind, range } = entry;
            let pids = match (pid, lock_table::file_key(&self.file)) {
                (1.., _) => vec![pid],
                // Owned by an open file description, or by a process of another PID namespace.
                (-1, Some(file)) => lock_table::processes(Mechanism::OpenFile, &file, &entry),
                _ => Vec::new(),
            };
            Holder { pids, range, kind }
        }))
    }

    fn range(&self, bounds: impl RangeBounds<u64>) -> Result<Range> {
        let refused = || {
            let why = "a range is not empty and ends at 2^63 at the most; `..` is the whole file";
            Error::invalid("fcntl", &self.object, why)
        };
        Range::from_bounds(bounds).ok_or_else(refused)
    }

    fn set(&self, range: Range, kind: LockKind, deadline: Deadline) -> Result<()> {
        interrupt::until(deadline, "fcntl", &self.object, |attempt| {
            raw::set(self.file.as_fd(), self.owner, range, Some(kind), attempt == Attempt::Blocking)
        })
        .map_err(|error| self.explain(error, kind))
    }

    fn unset(&self, range: Range) -> Result<()> {
        raw::set(self.file.as_fd(), self.owner, range, None, false)
            .map_err(|errno| Error::new("fcntl", errno, &self.object))
    }

    fn explain(&self, error: Error, kind: LockKind) -> Error {
        match (error.raw(), kind) {
            (Errno::BADF, LockKind::Shared) => {
                error.with_hint("a shared lock needs a file that is open for reading")
            }
            (Errno::BADF, LockKind::Exclusive) => {
                error.with_hint("an exclusive lock needs a file that is open for writing")
            }
            (Errno::DEADLK, _) => error.with_hint(
                "whoever holds it waits, itself or through others, for a lock that this process holds: release that \
                 one, and take locks in one order everywhere",
            ),
            (Errno::NOLCK, _) => {
                error.with_hint("the lock table is full, or the file is on a network file system without a lock server")
            }
            (Errno::INVAL, _) => error.with_hint("the file system has no such locks"),
            _ => error,
        }
    }

    /// Notes that a guard is to have this range; two that overlap cannot be told apart by the kernel.
    fn reserve(&self, range: Range) -> Result<()> {
        let refused = |other: Range| {
            Error::new("fcntl", Errno::DEADLK, &self.object).with_hint(match self.owner {
                Owner::OpenFile => format!(
                    "this handle has {other} itself, or waits for it: open the file again for another owner, or \
                     use `upgrade`"
                ),
                Owner::Process => format!(
                    "this process has {other} itself, or waits for it: its threads are one owner (Owner::OpenFile \
                     is not), or use `upgrade`"
                ),
            })
        };
        match self.owner {
            Owner::OpenFile => insert(&mut lock(&self.held), range).map_err(refused),
            Owner::Process => {
                raw::with_registry(self.file.identity, |file| insert(&mut file.held, range)).map_err(refused)
            }
        }
    }

    fn forget(&self, range: Range) {
        let remove = |held: &mut Vec<Range>| held.retain(|other| *other != range);
        match self.owner {
            Owner::OpenFile => remove(&mut lock(&self.held)),
            Owner::Process => raw::with_registry(self.file.identity, |file| remove(&mut file.held)),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(held: &mut Vec<Range>, range: Range) -> Result<(), Range> {
    match held.iter().find(|other| other.overlaps(range)) {
        Some(other) => Err(*other),
        None => {
            held.push(range);
            Ok(())
        }
    }
}

impl AsFd for RecordLocks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A locked range, unlocked when this is dropped.
///
/// A child made by `fork` does not hold it, and its copy of the guard unlocks nothing. Its copy of the *descriptor*,
/// with [`Owner::OpenFile`], keeps the lock until the child has closed it too.
///
/// ```
/// use ginnel::sync::{LockKind, RecordLocks};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path().join("table");
/// let (mine, other) = (RecordLocks::create(&path)?, RecordLocks::create(&path)?);
///
/// let mut guard = mine.lock(0..512, LockKind::Shared)?;
/// guard.upgrade()?;
/// assert!(other.try_lock(0..1, LockKind::Shared).unwrap_err().is_would_block());
/// guard.unlock()?;
/// let _guard = other.try_lock(0..1, LockKind::Shared)?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the range is unlocked when the guard is dropped"]
pub struct RecordGuard<'a> {
    locks: &'a RecordLocks,
    range: Range,
    kind: LockKind,
    taker: u32,
}

impl RecordGuard<'_> {
    /// The range.
    pub fn range(&self) -> Range {
        self.range
    }

    /// How it is locked.
    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// Makes the lock exclusive; waits until no other owner holds a part of the range. The shared lock is kept
    /// meanwhile.
    ///
    /// # Errors
    /// As [`RecordLocks::lock`]; the lock is still shared then. With [`Owner::OpenFile`], two holders that upgrade at
    /// the same time wait for each other for ever: give a deadline.
    pub fn upgrade(&mut self) -> Result<()> {
        self.upgrade_deadline(Deadline::NEVER)
    }

    /// Makes the lock exclusive if no other owner holds a part of the range now.
    ///
    /// # Errors
    /// `EAGAIN`: another does; the lock is still shared. Else as [`RecordLocks::lock`].
    pub fn try_upgrade(&mut self) -> Result<()> {
        self.upgrade_deadline(Deadline::NOW)
    }

    /// Makes the lock exclusive; waits until the deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the lock is still shared. Else as [`RecordLocks::lock`].
    pub fn upgrade_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<()> {
        self.must_be_mine()?;
        self.locks.set(self.range, LockKind::Exclusive, deadline.into())?;
        self.kind = LockKind::Exclusive;
        Ok(())
    }

    /// Makes the lock shared, and so lets other readers in. Never waits, and there is no moment without a lock.
    ///
    /// # Errors
    /// `EBADF`: a shared lock needs a file open for reading. `ENOLCK`.
    pub fn downgrade(&mut self) -> Result<()> {
        self.must_be_mine()?;
        self.locks.set(self.range, LockKind::Shared, Deadline::NOW)?;
        self.kind = LockKind::Shared;
        Ok(())
    }

    /// Whether the kernel still has the lock: with [`Owner::Process`], some other code of this process may have closed
    /// the file, and lost it.
    ///
    /// # Errors
    /// `ENOSYS`: `/proc` is not mounted, or does not show locks.
    pub fn is_held(&self) -> Result<bool> {
        let mechanism = match self.locks.owner {
            Owner::OpenFile => Mechanism::OpenFile,
            Owner::Process => Mechanism::Process,
        };
        let Some(file) = lock_table::file_key(self.locks) else {
            return Err(Error::new("fcntl", Errno::NOSYS, &self.locks.object));
        };
        let pid = std::process::id() as i32;
        let held = lock_table::held_by(pid, self.locks.as_fd().as_raw_fd(), mechanism, &file);
        // The kernel joins ranges that touch.
        Ok(self.taker == std::process::id()
            && held.iter().any(|entry| {
                let ends_after = match (entry.range.end, self.range.end) {
                    (None, _) => true,
                    (Some(entry), Some(mine)) => entry >= mine,
                    (Some(_), None) => false,
                };
                entry.kind == self.kind && entry.range.start <= self.range.start && ends_after
            }))
    }

    /// Unlocks the range, and says whether that worked, which a drop does not.
    ///
    /// # Errors
    /// As `fcntl(2)`: `ENOLCK` where unlocking the middle of a range needs another entry.
    pub fn unlock(self) -> Result<()> {
        ManuallyDrop::new(self).release()
    }

    fn must_be_mine(&self) -> Result<()> {
        if self.taker == std::process::id() {
            return Ok(());
        }
        Err(Error::new("fcntl", Errno::PERM, &self.locks.object)
            .with_hint("the process that took this lock is another one"))
    }

    fn release(&mut self) -> Result<()> {
        if self.taker != std::process::id() {
            return Ok(());
        }
        let outcome = self.locks.unset(self.range);
        self.locks.forget(self.range);
        outcome
    }
}

impl Drop for RecordGuard<'_> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}
