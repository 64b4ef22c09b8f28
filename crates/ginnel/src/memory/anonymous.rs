//! Anonymous shared memory: `mmap(2)` with `MAP_SHARED | MAP_ANONYMOUS`.
//!
//! # What a user sees
//! Memory without a name that a process shares with the children it forks afterwards ([`crate::process::fork`]); a
//! child by `exec` does not have it (a [`MemFd`](super::MemFd) passes through `exec`). It is gone with the last
//! process that has it mapped.
#![allow(unsafe_code)]

use std::ptr;

use rustix::io::Errno;
use rustix::mm::MapFlags;

use super::mapping::{HugePages, Kind, Mapping, ReadWrite, protection};
use crate::error::{Error, Label, Result};

/// Shared memory for a process and the children it forks.
///
/// ```no_run
/// use std::sync::atomic::Ordering;
/// use ginnel::memory::Anonymous;
///
/// let shared = Anonymous::map(4096)?;
/// let child = ginnel::process::fork(|| match shared.write_at(8, 42_u32) {
///     Ok(()) => 0,
///     Err(_) => 1,
/// })?;
/// child.wait()?;
/// assert_eq!(shared.read_at::<u32>(8)?, 42);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub enum Anonymous {}

/// How to make [`Anonymous`] memory: see [`Anonymous::options`].
///
/// ```
/// use ginnel::memory::Anonymous;
///
/// let mapping = Anonymous::options().populate(true).map(100_000)?;
/// assert_eq!(mapping.len(), 100_000);
/// assert!(mapping.read_vec(..)?.iter().all(|byte| *byte == 0));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AnonymousOptions {
    huge_pages: Option<HugePages>,
    populate: bool,
    no_reserve: bool,
    locked: bool,
}

impl Anonymous {
    /// Maps that many bytes of zeros.
    ///
    /// # Errors
    /// See [`AnonymousOptions::map`].
    pub fn map(size_bytes: usize) -> Result<Mapping<ReadWrite>> {
        Anonymous::options().map(size_bytes)
    }

    /// Every choice spelled out.
    pub fn options() -> AnonymousOptions {
        AnonymousOptions::default()
    }
}

impl AnonymousOptions {
    /// Use huge pages (`MAP_HUGETLB`), of which the host must have some reserved.
    pub fn huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some(size);
        self
    }

    /// Have all pages present from the start (`MAP_POPULATE`).
    pub fn populate(mut self, populate: bool) -> Self {
        self.populate = populate;
        self
    }

    /// Reserve no swap space (`MAP_NORESERVE`): a page may turn out not to be there when it is first used, which is
    /// `EFAULT` for huge pages and the out-of-memory killer for others.
    pub fn no_reserve(mut self, no_reserve: bool) -> Self {
        self.no_reserve = no_reserve;
        self
    }

    /// Keep all of it in memory from the start (`MAP_LOCKED`).
    pub fn locked(mut self, locked: bool) -> Self {
        self.locked = locked;
        self
    }

    /// Maps that many bytes of zeros.
    ///
    /// # Errors
    /// `EINVAL`: 0 bytes. `ENOMEM`: no memory, no address space (`RLIMIT_AS`), or no huge pages. `EAGAIN`, `EPERM`:
    /// more locked memory than `RLIMIT_MEMLOCK` allows.
    pub fn map(self, size_bytes: usize) -> Result<Mapping<ReadWrite>> {
        let object = Label::from("anonymous mapping");
        let mut flags = MapFlags::SHARED;
        flags.set(MapFlags::POPULATE, self.populate);
        flags.set(MapFlags::NORESERVE, self.no_reserve);
        flags.set(MapFlags::LOCKED, self.locked);
        let mut page_bytes = rustix::param::page_size();
        if let Some(size) = self.huge_pages {
            flags |= MapFlags::HUGETLB | MapFlags::from_bits_retain(size.flags());
            page_bytes = size.bytes();
        }
        let explain = |errno| self.explain(Error::new("mmap", errno, &object), size_bytes);
        let pages_len = size_bytes
            .checked_next_multiple_of(page_bytes)
            .filter(|len| *len <= isize::MAX as usize)
            .ok_or_else(|| explain(Errno::NOMEM))?;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), pages_len, protection::<ReadWrite>(), flags)
        }
        .map_err(explain)?;
        // SAFETY: mapped just now with that length and protection, for nobody else.
        unsafe { Mapping::adopt(base, pages_len, 0, size_bytes, Kind::Shared, &object) }
    }

    fn explain(self, error: Error, size_bytes: usize) -> Error {
        match error.raw() {
            Errno::INVAL if size_bytes == 0 => error.with_hint("a mapping has at least one byte"),
            Errno::NOMEM if self.huge_pages.is_some() => error.with_hint(HugePages::HINT),
            Errno::INVAL if self.huge_pages.is_some() => {
                error.with_hint("the host has no huge pages of this size; see /sys/kernel/mm/hugepages")
            }
            Errno::NOMEM => error.with_hint(format!(
                "no memory or address space for {size_bytes} bytes; see RLIMIT_AS and vm.overcommit_memory"
            )),
            Errno::AGAIN | Errno::PERM => error.with_hint("see RLIMIT_MEMLOCK (`ulimit -l`)"),
            _ => error,
        }
    }
}
