//! POSIX shared memory: `shm_open(3)`, `shm_unlink(3)`, `shm_overview(7)`.
//!
//! # What a user sees
//! A plain file in the namespace, by the rules that glibc has for names in `/dev/shm`: leading slashes do not count, the
//! rest is 1 to 255 bytes without a slash. It is used as any file: `ftruncate`, `mmap`, `fstat`, `fchmod`. Its name can
//! be taken away while it is used.
//!
//! `ftruncate` reserves nothing: if the memory file system fills up, to touch a new page is a `SIGBUS`, in the
//! kernel's home as in this one. [`PosixShm::resize`] reserves, or fails.
//!
//! A link that somebody planted under a name, symbolic or hard, is `EUCLEAN`, and what it leads to stays as it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FallocateFlags;

use crate::Result;
use crate::namespace::{Kind, Namespace};

/// POSIX shared memory in a namespace: calls shaped as the C library's.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::memory::posix_shm::PosixShm;
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// let file = PosixShm::open(&home, b"/pixels", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
/// PosixShm::resize(&file, 1 << 20)?;
/// assert_eq!(rustix::fs::fstat(&file)?.st_size, 1 << 20);
/// PosixShm::unlink(&home, b"/pixels")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PosixShm;

impl PosixShm {
    /// Opens shared memory, or makes it, of no bytes: `shm_open(3)`. The descriptor is closed by `exec`.
    ///
    /// # Errors
    /// `EINVAL`, `ENAMETOOLONG`: what is no name. `ENOENT`, `EEXIST`, `EACCES`: as `open(2)`. `EUCLEAN`: a link stands there.
    pub fn open(namespace: &Namespace, name: &[u8], flags: i32, mode: u32) -> Result<OwnedFd> {
        namespace.open_shm_file(name, flags, mode)
    }

    /// Makes it `size_bytes` long, with space for all of it.
    ///
    /// # Errors
    /// `ENOSPC`: the memory file system is full; it is as long as it was. `EBADF`, `EINVAL`: not open for writing.
    pub fn resize(file: impl AsFd, size_bytes: u64) -> Result<()> {
        let file = file.as_fd();
        let before = rustix::fs::fstat(file)?.st_size as u64;
        if size_bytes > before {
            // From the beginning: what is there may have holes. It grows only if there is space for all of it.
            rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size_bytes)?;
        }
        rustix::fs::ftruncate(file, size_bytes)
    }

    /// Takes the name away: `shm_unlink(3)`.
    ///
    /// # Errors
    /// `ENOENT`: there is none, or it is no name. `ENAMETOOLONG`. `EACCES`: it is not the caller's to remove.
    pub fn unlink(namespace: &Namespace, name: &[u8]) -> Result<()> {
        namespace.unlink_named(Kind::PosixShm, name)
    }
}
