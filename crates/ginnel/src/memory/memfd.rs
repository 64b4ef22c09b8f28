//! Memory behind a descriptor, with seals: `memfd_create(2)`, `fcntl(2)` `F_ADD_SEALS`.
//!
//! # What a user sees
//! Shared memory without a name in any file system, gone with its last descriptor and mapping. Others get it by a
//! fork, by an inherited descriptor, or in a message over a Unix socket.
//!
//! A seal is a promise that the kernel keeps, for everybody and for good. It is what lets a receiver trust memory
//! from a stranger:
//!
//! - [`Seals::SHRINK`]: no byte goes away. A read of it never meets a missing page, so it never fails with `EFAULT`,
//!   and a reference to an atomic in it stays one to shared memory.
//! - [`Seals::WRITE`] as well: no byte changes. What was checked once stays checked; it can be handed round without
//!   copying.
//!
//! The receiver asks with [`MemFd::require`] *before* it maps, since a seal, once seen, stays.

use std::fmt;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::backing::{self, Reserve, Status};
use super::mapping::{HugePages, Kind, Mapping, ReadOnly, ReadWrite, map_part};
use crate::error::{Error, Label, Result};

/// What can no longer be done to a [`MemFd`], by anybody: `F_SEAL_*`.
///
/// ```
/// use ginnel::memory::Seals;
///
/// let both = Seals::SHRINK | Seals::GROW;
/// assert!(both.contains(Seals::GROW) && !both.contains(Seals::WRITE));
/// assert_eq!(format!("{both:?}"), "SHRINK | GROW");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seals(u32);

impl Seals {
    /// No seal.
    pub const NONE: Seals = Seals(0);
    /// No more seals may be added (`F_SEAL_SEAL`).
    pub const SEAL: Seals = Seals(SealFlags::SEAL.bits());
    /// It cannot get shorter (`F_SEAL_SHRINK`).
    pub const SHRINK: Seals = Seals(SealFlags::SHRINK.bits());
    /// It cannot get longer (`F_SEAL_GROW`).
    pub const GROW: Seals = Seals(SealFlags::GROW.bits());
    /// Its bytes cannot change (`F_SEAL_WRITE`); refused while it is mapped for writing anywhere.
    pub const WRITE: Seals = Seals(SealFlags::WRITE.bits());
    /// Only the mappings for writing that there are now can change its bytes (`F_SEAL_FUTURE_WRITE`).
    pub const FUTURE_WRITE: Seals = Seals(SealFlags::FUTURE_WRITE.bits());
    /// Its mode's execute bits cannot change (`F_SEAL_EXEC`).
    pub const EXEC: Seals = Seals(SealFlags::EXEC.bits());

    const NAMES: [(Seals, &'static str); 6] = [
        (Seals::SEAL, "SEAL"),
        (Seals::SHRINK, "SHRINK"),
        (Seals::GROW, "GROW"),
        (Seals::WRITE, "WRITE"),
        (Seals::FUTURE_WRITE, "FUTURE_WRITE"),
        (Seals::EXEC, "EXEC"),
    ];

    /// Whether all of these are among them.
    pub const fn contains(self, seals: Seals) -> bool {
        self.0 & seals.0 == seals.0
    }

    /// The bits, as `fcntl(2)` has them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Seals {
    type Output = Seals;

    fn bitor(self, other: Seals) -> Seals {
        Seals(self.0 | other.0)
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Seals::NAMES.iter().filter(|(seal, _)| self.contains(*seal)).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "NONE".to_string() } else { names.join(" | ") }.as_str())
    }
}

/// Memory behind a descriptor.
///
/// ```
/// use ginnel::memory::{MemFd, Seals};
///
/// let memory = MemFd::options().allow_sealing(true).size(4096).create("report")?;
/// memory.map()?.write_bytes(0, b"final")?;
/// memory.seal(Seals::SHRINK | Seals::GROW | Seals::WRITE)?;
///
/// // The other side has got the descriptor.
/// # let descriptor = std::os::fd::AsFd::as_fd(&memory).try_clone_to_owned().unwrap();
/// let received = MemFd::from(descriptor);
/// received.require(Seals::SHRINK | Seals::WRITE)?;
/// assert_eq!(received.map_read_only()?.read_vec(..5)?, b"final");
/// assert!(received.map().unwrap_err().is_permission_denied());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct MemFd {
    fd: OwnedFd,
    object: Label,
}

/// How to make a [`MemFd`]: see [`MemFd::options`].
///
/// ```
/// use ginnel::memory::{MemFd, Seals};
///
/// let memory = MemFd::options().no_exec(true).size(64).create("data")?;
/// assert!(memory.seals()?.contains(Seals::EXEC));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MemFdOptions {
    flags: MemfdFlags,
    huge_pages: Option<HugePages>,
    size_bytes: u64,
}

impl MemFdOptions {
    /// Let seals be added (`MFD_ALLOW_SEALING`); without, it has [`Seals::SEAL`] from the start.
    pub fn allow_sealing(mut self, allow: bool) -> Self {
        self.flags.set(MemfdFlags::ALLOW_SEALING, allow);
        self
    }

    /// Make it not executable, for good (`MFD_NOEXEC_SEAL`, Linux 6.3); it allows sealing too. Some hosts want this or
    /// [`executable`](MemFdOptions::executable) said (`vm.memfd_noexec`).
    pub fn no_exec(mut self, no_exec: bool) -> Self {
        self.flags.set(MemfdFlags::NOEXEC_SEAL, no_exec);
        self
    }

    /// Make it executable (`MFD_EXEC`, Linux 6.3).
    pub fn executable(mut self, executable: bool) -> Self {
        self.flags.set(MemfdFlags::EXEC, executable);
        self
    }

    /// Make it of huge pages (`MFD_HUGETLB`), of which the host must have some reserved. Its size is a multiple of
    /// theirs.
    pub fn huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some(size);
        self
    }

    /// Its size, with memory for all of it; 0 unless said.
    pub fn size(mut self, size_bytes: u64) -> Self {
        self.size_bytes = size_bytes;
        self
    }

    /// Let programs that this process executes inherit the descriptor; unless said, it is closed by `exec`.
    pub fn inheritable(mut self, inheritable: bool) -> Self {
        self.flags.set(MemfdFlags::CLOEXEC, !inheritable);
        self
    }

    /// Makes it. The name is for people only (`/proc/PID/maps`), and need not be unique.
    ///
    /// # Errors
    /// `EINVAL`: the name is longer than 249 bytes or has a NUL in it, or the kernel does not know an option.
    /// `ENOSPC`,
    /// `ENOMEM`: no memory, or no huge pages. `EACCES`: the host lets nobody make executable ones (`vm.memfd_noexec`).
    /// `EMFILE`, `ENFILE`: no more descriptors. `EPERM`: no right to huge pages.
    pub fn create(self, name: &str) -> Result<MemFd> {
        let object = Label::new(format!("memfd {name}"));
        let huge = self.huge_pages.map_or(MemfdFlags::empty(), |size| {
            MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(size.flags())
        });
        let fd = rustix::fs::memfd_create(name, self.flags | huge)
            .map_err(|errno| self.explain(Error::new("memfd_create", errno, &object), name))?;
        let memory = MemFd { fd, object };
        if self.size_bytes > 0 {
            memory.resize(self.size_bytes).map_err(|error| self.explain(error, name))?;
        }
        Ok(memory)
    }

    fn explain(self, error: Error, name: &str) -> Error {
        match error.raw() {
            Errno::INVAL if name.len() > 249 => error.with_hint("a memfd's name has at most 249 bytes"),
            Errno::INVAL if name.contains('\0') => error.with_hint("a memfd's name has no NUL in it"),
            Errno::NOMEM | Errno::NOSPC | Errno::PERM | Errno::NODEV if self.huge_pages.is_some() => {
                error.with_hint(HugePages::HINT)
            }
            Errno::INVAL if self.huge_pages.is_some() => {
                error.with_hint("the size is a multiple of the huge pages'")
            }
            Errno::ACCESS => error.with_hint("vm.memfd_noexec forbids executable ones; use `no_exec`"),
            _ => error,
        }
    }
}

impl MemFd {
    /// Makes one with every choice spelled out.
    pub fn options() -> MemFdOptions {
        MemFdOptions { flags: MemfdFlags::CLOEXEC, huge_pages: None, size_bytes: 0 }
    }

    /// Makes one of that size that can be sealed.
    ///
    /// # Errors
    /// See [`MemFdOptions::create`].
    pub fn create(name: &str, size_bytes: u64) -> Result<MemFd> {
        MemFd::options().allow_sealing(true).size(size_bytes).create(name)
    }

    /// Makes it that long, with memory for all of it.
    ///
    /// # Errors
    /// `EPERM`: a seal forbids it. `ENOSPC`, `ENOMEM`: there is no memory for it. `EINVAL`: not a multiple of its huge
    /// pages.
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        backing::set_size(self.fd.as_fd(), size_bytes, Reserve::All, &self.object)
    }

    /// Adds seals; they cannot be taken off. `fcntl(2)` with `F_ADD_SEALS`.
    ///
    /// # Errors
    /// `EBUSY`: [`Seals::WRITE`] while it is mapped for writing. `EPERM`: it does not allow sealing (any more), or the
    /// descriptor is not open for writing. `EINVAL`: it is not a memfd, or the kernel does not know the seal.
    pub fn seal(&self, seals: Seals) -> Result<()> {
        rustix::fs::fcntl_add_seals(&self.fd, SealFlags::from_bits_retain(seals.0)).map_err(|errno| {
            let error = Error::new("fcntl", errno, &self.object);
            match errno {
                Errno::BUSY => error.with_hint(
                    "it is mapped for writing: unmap it everywhere (`into_read_only` does not do), or seal FUTURE_WRITE",
                ),
                Errno::PERM => {
                    error.with_hint("it was made without `allow_sealing`, or is sealed against more seals")
                }
                Errno::INVAL => error.with_hint("the descriptor is no memfd"),
                _ => error,
            }
        })
    }

    /// The seals it has. `fcntl(2)` with `F_GET_SEALS`.
    ///
    /// # Errors
    /// `EINVAL`: it is not a memfd.
    pub fn seals(&self) -> Result<Seals> {
        let seals = rustix::fs::fcntl_get_seals(&self.fd).map_err(|errno| {
            let error = Error::new("fcntl", errno, &self.object);
            if errno == Errno::INVAL { error.with_hint("the descriptor is no memfd") } else { error }
        })?;
        Ok(Seals(seals.bits()))
    }

    /// Makes sure that a descriptor from somebody else is a memfd with these seals.
    ///
    /// # Errors
    /// `EPERM`: a seal is missing. `EINVAL`: it is not a memfd.
    pub fn require(&self, seals: Seals) -> Result<()> {
        let has = self.seals()?;
        if has.contains(seals) {
            return Ok(());
        }
        let missing = Seals(seals.0 & !has.0);
        Err(Error::new("fcntl", Errno::PERM, &self.object).with_hint(format!(
            "the sender has not sealed it with {missing:?}; do not rely on what it holds"
        )))
    }

    /// Maps all of it for reading and writing.
    ///
    /// # Errors
    /// `EPERM`: sealed with [`Seals::WRITE`] or [`Seals::FUTURE_WRITE`]. `EACCES`: the descriptor is not open for
    /// writing.
    /// `EINVAL`: it has no bytes yet. `ENOMEM`: no address space.
    pub fn map(&self) -> Result<Mapping<ReadWrite>> {
        map_part(self.fd.as_fd(), None, Kind::Shared, false, &self.object)
    }

    /// Maps all of it for reading only.
    ///
    /// # Errors
    /// `EINVAL`: it has no bytes yet. `ENOMEM`: no address space.
    pub fn map_read_only(&self) -> Result<Mapping<ReadOnly>> {
        map_part(self.fd.as_fd(), None, Kind::Shared, false, &self.object)
    }

    /// Maps all of it copy on write: a private copy, for which memory is used only where it is changed.
    ///
    /// # Errors
    /// As [`MemFd::map_read_only`].
    pub fn map_private(&self) -> Result<Mapping<ReadWrite>> {
        map_part(self.fd.as_fd(), None, Kind::Private, false, &self.object)
    }

    /// Its size, mode and owner. `fstat(2)`.
    ///
    /// # Errors
    /// None is known.
    pub fn status(&self) -> Result<Status> {
        backing::status(&self.fd, &self.object)
    }
}

impl From<OwnedFd> for MemFd {
    /// A descriptor that was passed on. It is not looked at: [`MemFd::require`] does that.
    fn from(fd: OwnedFd) -> MemFd {
        MemFd { fd, object: Label::from("memfd") }
    }
}

impl From<MemFd> for OwnedFd {
    fn from(memory: MemFd) -> OwnedFd {
        memory.fd
    }
}

impl AsFd for MemFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
