//! What is behind a mapping with a descriptor: its size, its state, its pages. `fstat(2)`, `fallocate(2)`,
//! `ftruncate(2)`, `fstatfs(2)`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::{Error, Label, Result};

const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// The state of a mapped file, of POSIX shared memory or of a memfd: `struct stat` of `fstat(2)`.
///
/// ```
/// use ginnel::memory::FileMapping;
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let (path, link) = (directory.path().join("counters"), directory.path().join("link"));
/// let mapping = FileMapping::create(&path, 4096)?;
/// std::fs::hard_link(&path, &link)?;
///
/// let status = mapping.status()?;
/// assert_eq!((status.size_bytes, status.mode, status.links), (4096, 0o600, 2));
/// assert_eq!(FileMapping::open(&link)?.status()?.identity, status.identity, "one file, two names");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many bytes of it have memory or disk blocks; the rest are holes, which read as zeros.
    pub allocated_bytes: u64,
    /// How many names it has: 0 for a memfd, and for what was removed and lives until its last user is gone.
    pub links: u64,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
    /// Device and inode: the same for every name and descriptor of one object.
    pub identity: (u64, u64),
    /// When its bytes were last changed by a call (writes through a mapping are noted when they are flushed).
    pub modified: SystemTime,
}

pub(super) fn status(fd: impl AsFd, object: &Label) -> Result<Status> {
    let raw = rustix::fs::fstat(fd).map_err(|errno| Error::new("fstat", errno, object))?;
    let seconds = Duration::from_secs(raw.st_mtime.unsigned_abs());
    let nanoseconds = Duration::from_nanos(raw.st_mtime_nsec as u64);
    let modified = if raw.st_mtime < 0 {
        SystemTime::UNIX_EPOCH - seconds + nanoseconds
    } else {
        SystemTime::UNIX_EPOCH + seconds + nanoseconds
    };
    Ok(Status {
        size_bytes: raw.st_size.try_into().unwrap_or(0),
        allocated_bytes: u64::try_from(raw.st_blocks).unwrap_or(0) * 512,
        links: raw.st_nlink as u64,
        uid: raw.st_uid,
        gid: raw.st_gid,
        mode: raw.st_mode & 0o7777,
        identity: identity(&raw),
        modified,
    })
}

/// Device and inode.
pub(super) fn identity(raw: &rustix::fs::Stat) -> (u64, u64) {
    (raw.st_dev, raw.st_ino)
}

pub(super) fn size(fd: impl AsFd, object: &Label) -> Result<u64> {
    status(fd, object).map(|status| status.size_bytes)
}

/// Which part of a grown object gets its memory or disk blocks at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserve {
    /// All of it, holes included.
    All,
    /// What it grows by.
    Growth,
    /// Nothing.
    Nothing,
}

/// Makes the object that long. Where it grows, space that is not there is `ENOSPC` now and no `SIGBUS` later, and a
/// concurrent growth by another process is never undone.
pub(super) fn set_size(fd: BorrowedFd<'_>, size_bytes: u64, reserve: Reserve, object: &Label) -> Result<()> {
    let now = size(fd, object)?;
    match reserve {
        Reserve::All if size_bytes >= now => extend(fd, 0, size_bytes, object),
        Reserve::Growth if size_bytes > now => extend(fd, now, size_bytes, object),
        _ => truncate(fd, size_bytes, object),
    }
}

/// Makes the object that long if it is shorter, as [`set_size`]. Another process may make it longer meanwhile: it is
/// never made shorter, but on a file system without reservations.
pub(super) fn grow(fd: BorrowedFd<'_>, size_bytes: u64, reserve: Reserve, object: &Label) -> Result<()> {
    let now = size(fd, object)?;
    if size_bytes <= now {
        return Ok(());
    }
    extend(fd, if reserve == Reserve::All { 0 } else { now }, size_bytes, object)
}

fn extend(fd: BorrowedFd<'_>, from: u64, size_bytes: u64, object: &Label) -> Result<()> {
    if size_bytes == from {
        return Ok(());
    }
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), from, size_bytes - from) {
        Ok(()) => Ok(()),
        // A file system without reservations: grow it all the same.
        Err(Errno::OPNOTSUPP) => truncate(fd, size_bytes, object),
        Err(errno) => Err(explain(Error::new("fallocate", errno, object), size_bytes)),
    }
}

fn truncate(fd: BorrowedFd<'_>, size_bytes: u64, object: &Label) -> Result<()> {
    rustix::fs::ftruncate(fd, size_bytes)
        .map_err(|errno| explain(Error::new("ftruncate", errno, object), size_bytes))
}

fn explain(error: Error, size_bytes: u64) -> Error {
    match error.raw() {
        Errno::NOSPC => error.with_hint(format!(
            "the file system has no room for {size_bytes} bytes; see `df`, or remove what is left over"
        )),
        Errno::PERM => error.with_hint("a seal forbids it (F_SEAL_GROW, F_SEAL_SHRINK or F_SEAL_WRITE)"),
        Errno::BADF | Errno::INVAL if size_bytes <= i64::MAX as u64 => {
            error.with_hint("it is open for reading only")
        }
        Errno::FBIG => error
            .with_hint(format!("{size_bytes} bytes are more than the file system or RLIMIT_FSIZE allows")),
        _ => error,
    }
}

/// The size of the pages that the object is mapped by: larger than the system's for huge pages.
pub(super) fn page_bytes(fd: impl AsFd) -> usize {
    let usual = rustix::param::page_size();
    match rustix::fs::fstatfs(fd) {
        Ok(raw) if raw.f_type as u64 == HUGETLBFS_MAGIC => usize::try_from(raw.f_bsize).unwrap_or(usual),
        _ => usual,
    }
}
