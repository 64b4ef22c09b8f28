//! A piece of shared memory in this process's address space: `mmap(2)`, `msync(2)`, `madvise(2)`, `mlock(2)`.
//!
//! # What a user sees
//! Every mechanism of this family ends in a [`Mapping`]: bytes that other processes see, and may change at any time.
//! So there is never a Rust reference to them: they are copied in and out (`read_at`, `write_at`, `read_bytes`, ...),
//! or accessed as atomics (`atomic_u32`, ...). Offsets count from the mapping's first byte; all of them are checked.
//! What may be written is in the type: a `Mapping<ReadOnly>` has no method that writes.
//!
//! A file that is truncated under a mapping gives an error (`EFAULT`), not a `SIGBUS`. A process-wide handler sees to
//! it: it is installed with the first mapping, and hands on every `SIGBUS` that is not about one of them. Two limits: a
//! program that installs a handler for `SIGBUS` *later* must call the one it replaced, and a thread that blocks `SIGBUS`
//! is killed (so take it out of a set of all signals that is blocked).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::sync::region::Region;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MsyncFlags, ProtFlags};

use super::backing;
use super::fault::{self, Watch};
use crate::error::{Error, Label, Result};

/// What a [`Mapping`] allows: [`ReadOnly`] or [`ReadWrite`].
///
/// ```
/// use ginnel::memory::{Access, Anonymous, Mapping};
///
/// fn sum(numbers: &Mapping<impl Access>) -> ginnel::Result<u32> {
///     Ok(numbers.read_vec(..)?.into_iter().map(u32::from).sum())
/// }
/// let numbers = Anonymous::map(4096)?;
/// numbers.write_bytes(0, &[1, 2, 3])?;
/// assert_eq!(sum(&numbers)?, 6);
/// assert_eq!(sum(&numbers.into_read_only()?)?, 6);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub trait Access: sealed::Sealed + Send + Sync + 'static {}

/// The mapping is read, and writing is a compile-time error.
///
/// ```
/// use ginnel::memory::{Mapping, MemFd, ReadOnly};
///
/// let memory = MemFd::create("doc", 4096)?;
/// let writer = memory.map()?;
/// let reader: Mapping<ReadOnly> = memory.map_read_only()?;
/// writer.write_at(0, 42_u32)?;
/// assert_eq!(reader.read_at::<u32>(0)?, 42);
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// ```compile_fail,E0599
/// fn write(reader: &ginnel::memory::Mapping<ginnel::memory::ReadOnly>) -> ginnel::Result<()> {
///     reader.write_at(0, 42_u32) // there is no such method
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}

/// The mapping is read and written.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use ginnel::memory::{Anonymous, Mapping, ReadWrite};
///
/// fn next_number(counter: &Mapping<ReadWrite>) -> ginnel::Result<u64> {
///     Ok(counter.atomic_u64(0)?.fetch_add(1, Ordering::Relaxed))
/// }
/// let counter: Mapping = Anonymous::map(4096)?; // a plain `Mapping` is one of these
/// assert_eq!((next_number(&counter)?, next_number(&counter)?), (0, 1));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}

impl Access for ReadOnly {}
impl Access for ReadWrite {}

mod sealed {
    pub trait Sealed {
        const WRITABLE: bool;
    }
    impl Sealed for super::ReadOnly {
        const WRITABLE: bool = false;
    }
    impl Sealed for super::ReadWrite {
        const WRITABLE: bool = true;
    }
}

pub(super) fn is_writable<A: Access>() -> bool {
    <A as sealed::Sealed>::WRITABLE
}

/// Shared memory, mapped; unmapped when dropped.
///
/// ```
/// use ginnel::memory::Anonymous;
///
/// let mapping = Anonymous::map(4096)?;
/// mapping.write_at(16, 42_u64)?;
/// assert_eq!(mapping.read_at::<u64>(16)?, 42);
///
/// let error = mapping.read_at::<u64>(4090).unwrap_err();
/// assert_eq!(error.errno_name(), "EINVAL");
/// assert!(error.hint().unwrap().contains("4096 bytes long"));
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct Mapping<A: Access = ReadWrite> {
    /// The first byte that the user sees, which need not begin a page.
    start: NonNull<u8>,
    len: usize,
    /// Whole pages, as mapped.
    pages: Range<usize>,
    /// `None` only while it is being dropped.
    watch: Option<Watch>,
    kind: Kind,
    object: Label,
    /// How many locks in it this process holds: the kernel's list of a thread's locks runs through the memory.
    holds: AtomicUsize,
    access: PhantomData<A>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Shared,
    /// Copied when written: other processes do not see what this one writes.
    Private,
    /// A System V attach, shared as well.
    Attached,
    /// The same in a user-space home.
    AttachedByUs,
}

// SAFETY: the memory is accessed through atomics and racy copies only, from any thread; the pointer is not to anything
// of one thread's.
unsafe impl<A: Access> Send for Mapping<A> {}
// SAFETY: as above.
unsafe impl<A: Access> Sync for Mapping<A> {}

/// Advice to the kernel about a range of a mapping: `madvise(2)`. None changes what the range holds.
///
/// ```
/// use ginnel::memory::{Advice, Anonymous};
///
/// let mapping = Anonymous::map(1 << 20)?;
/// mapping.advise(.., Advice::Sequential)?;
/// mapping.write_at(0, 42_u64)?;
/// mapping.advise(.., Advice::DontNeed)?;
/// assert_eq!(mapping.read_at::<u64>(0)?, 42, "the page came again from the object");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// No special treatment.
    Normal,
    /// It will be read from front to back: read ahead, free behind.
    Sequential,
    /// It will be read here and there: do not read ahead.
    Random,
    /// It will be needed soon: begin to read it in.
    WillNeed,
    /// It will not be needed soon: give the pages back; they come again from the object. Refused for a private
    /// mapping, which would lose its changes: see [`Mapping::revert`].
    DontNeed,
    /// Let huge pages be used.
    HugePage,
    /// Do not use huge pages.
    NoHugePage,
    /// Reclaim these pages first.
    Cold,
    /// Reclaim these pages now.
    PageOut,
    /// Make the pages present for reading now, and fail if one cannot be.
    PopulateRead,
    /// Make the pages present for writing now, and fail if one cannot be.
    PopulateWrite,
    /// Leave it out of core dumps.
    DontDump,
    /// Include it in core dumps.
    DoDump,
}

impl Advice {
    fn raw(self) -> rustix::mm::Advice {
        use rustix::mm::Advice as Raw;
        match self {
            Advice::Normal => Raw::Normal,
            Advice::Sequential => Raw::Sequential,
            Advice::Random => Raw::Random,
            Advice::WillNeed => Raw::WillNeed,
            Advice::DontNeed => Raw::LinuxDontNeed,
            Advice::HugePage => Raw::LinuxHugepage,
            Advice::NoHugePage => Raw::LinuxNoHugepage,
            Advice::Cold => Raw::LinuxCold,
            Advice::PageOut => Raw::LinuxPageOut,
            Advice::PopulateRead => Raw::LinuxPopulateRead,
            Advice::PopulateWrite => Raw::LinuxPopulateWrite,
            Advice::DontDump => Raw::LinuxDontDump,
            Advice::DoDump => Raw::LinuxDoDump,
        }
    }
}

/// The size of huge pages: `MAP_HUGETLB`, `SHM_HUGETLB`, `MFD_HUGETLB`.
///
/// ```
/// use ginnel::memory::HugePages;
///
/// assert!(HugePages::of_bytes(2 << 20).is_some());
/// assert!(HugePages::of_bytes(3 << 20).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// 0 for the host's default size.
    log2: u32,
}

impl HugePages {
    /// The host's default size: `Hugepagesize` in `/proc/meminfo`.
    pub const DEFAULT: HugePages = HugePages { log2: 0 };

    /// Huge pages of that size: a power of two, of which the host's `/sys/kernel/mm/hugepages` tells the possible
    /// ones.
    pub const fn of_bytes(bytes: u64) -> Option<HugePages> {
        if bytes.is_power_of_two() && bytes > 1 { Some(HugePages { log2: bytes.ilog2() }) } else { None }
    }

    /// The size where `MAP_*`, `SHM_*` and `MFD_*` all have it.
    pub(super) fn flags(self) -> u32 {
        self.log2 << libc::MAP_HUGE_SHIFT
    }

    pub(super) fn bytes(self) -> usize {
        if self.log2 > 0 {
            return 1 << self.log2;
        }
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
        kib.map_or(2 << 20, |kib| kib * 1024)
    }

    pub(super) const HINT: &str =
        "no huge pages to be had; reserve some with `sysctl -w vm.nr_hugepages=...` (needs root)";
}

/// Tells whether some bytes of a mapping are still there, for what works on them by raw calls (a semaphore). To be kept
/// no longer than the mapping is borrowed.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    watch: fault::Witness,
    /// As addresses.
    bytes: Range<usize>,
}

impl Witness {
    pub(crate) fn is_lost(&self) -> bool {
        let lost = self.watch.lost();
        lost.start < self.bytes.end && self.bytes.start < lost.end
    }

    pub(crate) fn check(&self, operation: &'static str, object: &Label) -> Result<()> {
        if self.is_lost() {
            return Err(Error::new(operation, Errno::FAULT, object)
                .with_hint("the memory that it is in is gone: the file was truncated; map it again"));
        }
        Ok(())
    }
}

/// What to map of a descriptor.
struct Request {
    offset: u64,
    len: usize,
    kind: Kind,
    populate: bool,
}

impl<A: Access> Mapping<A> {
    /// Maps a range of a descriptor; the range may begin and end anywhere in a page.
    fn of_fd(fd: BorrowedFd<'_>, request: &Request, object: &Label) -> Result<Mapping<A>> {
        let page_bytes = backing::page_bytes(fd);
        let lead = (request.offset % page_bytes as u64) as usize;
        let Some(pages_len) = request
            .len
            .checked_add(lead)
            .and_then(|len| len.checked_next_multiple_of(page_bytes))
            .filter(|len| *len <= isize::MAX as usize)
        else {
            return Err(Error::new("mmap", Errno::OVERFLOW, object));
        };
        let sharing = if request.kind == Kind::Private { MapFlags::PRIVATE } else { MapFlags::SHARED };
        let populate = if request.populate { MapFlags::POPULATE } else { MapFlags::empty() };
        let offset = request.offset - lead as u64;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), pages_len, protection::<A>(), sharing | populate, fd, offset)
        }
        .map_err(|errno| explain_map::<A>(Error::new("mmap", errno, object)))?;
        // SAFETY: mapped just now with that length, protection and kind; the lead and the length lie within.
        unsafe { Mapping::adopt(base, pages_len, lead, request.len, request.kind, object) }
    }

    /// Takes over what was mapped, and unmaps it if that fails.
    ///
    /// # Safety
    /// `base` is `pages_len` mapped bytes (whole pages) that nobody else unmaps, with `A`'s protection, got as `kind`
    /// says; `lead + len` is not more than that.
    pub(super) unsafe fn adopt(
        base: *mut c_void,
        pages_len: usize,
        lead: usize,
        len: usize,
        kind: Kind,
        object: &Label,
    ) -> Result<Mapping<A>> {
        let pages = base.expose_provenance()..base.expose_provenance() + pages_len;
        let watch = Watch::new(pages.clone(), is_writable::<A>());
        // SAFETY: within the mapping, which is not at 0.
        let start = unsafe { NonNull::new_unchecked(base.cast::<u8>().add(lead)) };
        let mapping = |watch| Mapping {
            start,
            len,
            pages,
            watch,
            kind,
            object: object.clone(),
            holds: AtomicUsize::new(0),
            access: PhantomData,
        };
        match watch {
            Ok(watch) => Ok(mapping(Some(watch))),
            Err(errno) => {
                drop(mapping(None));
                Err(Error::new("sigaction", errno, object))
            }
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes. The kernel maps none such.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is in this process; elsewhere in each other one.
    ///
    /// For `unsafe` code and for C. Rust's rules for memory that others write hold: no references but to atomics, and
    /// raw access only where nobody else writes at the time. Writing to a read-only mapping kills by `SIGSEGV`.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Whether it is a copy-on-write mapping, whose changes nobody else sees.
    pub fn is_private(&self) -> bool {
        self.kind == Kind::Private
    }

    /// Whether all of it is still there.
    ///
    /// References to atomics have no way to fail: after the memory behind one is gone (the file was truncated), it is
    /// an atomic of this process alone, that was 0 at first. This tells.
    ///
    /// # Errors
    /// `EFAULT`: this process accessed a page that was gone. It stays gone for this mapping: map again. What lies between
    /// two such pages counts as gone too.
    pub fn check(&self) -> Result<()> {
        self.check_range("memory access", 0..self.len)
    }

    /// Writes what was changed to the file, and waits until the disk has it. `msync(2)` with `MS_SYNC`.
    ///
    /// Other processes need none of this: they see a write at once, in their mappings and by `read(2)`.
    ///
    /// # Errors
    /// `EINVAL`: the range is not within the mapping. `EIO`: the disk failed. `EFAULT`: the range's end, or what this
    /// process accessed in it since, was truncated away.
    pub fn flush(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.sync(range, MsyncFlags::SYNC)
    }

    /// Has what was changed written to the file soon, without waiting. `msync(2)` with `MS_ASYNC`.
    ///
    /// Linux writes it back within about half a minute in any case, and this call does not hasten it.
    ///
    /// # Errors
    /// As [`Mapping::flush`].
    pub fn flush_async(&self, range: impl RangeBounds<usize>) -> Result<()> {
        self.sync(range, MsyncFlags::ASYNC)
    }

    /// Tells the kernel how the range will be used. `madvise(2)`.
    ///
    /// # Errors
    /// `EINVAL`: the range is not within the mapping, or the advice means nothing for this kind of memory.
    /// `EFAULT`, `ENOMEM` ([`Advice::PopulateRead`], [`Advice::PopulateWrite`]): a page is beyond the file's end, or
    /// there is no memory. `EIO`: the disk failed.
    pub fn advise(&self, range: impl RangeBounds<usize>, advice: Advice) -> Result<()> {
        if advice == Advice::DontNeed && self.is_private() {
            return Err(Error::invalid(
                "madvise",
                &self.object,
                "a private mapping would lose its changes: `revert` does that",
            ));
        }
        self.madvise(range, advice.raw())
    }

    /// Keeps the range in memory, all of it read in when the call returns. `mlock(2)`.
    ///
    /// # Errors
    /// `ENOMEM`: more than `RLIMIT_MEMLOCK` allows, or a page is beyond the file's end. `EPERM`: the limit is 0.
    /// `EAGAIN`: a page could not be locked. `EINVAL`: the range is not within the mapping.
    pub fn pin(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (address, len) = self.whole_pages("mlock", range)?;
        // SAFETY: pages of our own mapping; locking changes nothing in them.
        unsafe { rustix::mm::mlock(address, len) }.map_err(|errno| {
            let error = Error::new("mlock", errno, &self.object);
            match errno {
                Errno::NOMEM | Errno::PERM => error.with_hint("see RLIMIT_MEMLOCK (`ulimit -l`)"),
                _ => error,
            }
        })
    }

    /// Lets the range be paged out again. `munlock(2)`.
    ///
    /// # Errors
    /// `EINVAL`: the range is not within the mapping.
    pub fn unpin(&self, range: impl RangeBounds<usize>) -> Result<()> {
        let (address, len) = self.whole_pages("munlock", range)?;
        // SAFETY: pages of our own mapping; unlocking changes nothing in them.
        unsafe { rustix::mm::munlock(address, len) }
            .map_err(|errno| Error::new("munlock", errno, &self.object))
    }

    pub(crate) fn witness(&self, bytes: Range<usize>) -> Option<Witness> {
        let start = self.start.addr().get();
        let watch = self.watch.as_ref()?.witness();
        Some(Witness { watch, bytes: start + bytes.start..start + bytes.end })
    }

    pub(super) fn object(&self) -> &Label {
        &self.object
    }

    /// Fails if an access to one of these bytes may have met a page that is gone.
    pub(super) fn check_range(&self, operation: &'static str, bytes: Range<usize>) -> Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let lost = watch.lost();
        let start = self.start.addr().get();
        if lost.start < start + bytes.end && start + bytes.start < lost.end {
            let (from, to) = (lost.start.saturating_sub(start), (lost.end - start).min(self.len));
            return Err(Error::new(operation, Errno::FAULT, &self.object).with_hint(format!(
                "what is behind the mapping's bytes from {from} to {to} is gone, or some of it: the file was truncated, or its disk or \
                 file system had no page to give; map it again"
            )));
        }
        Ok(())
    }

    fn sync(&self, range: impl RangeBounds<usize>, flags: MsyncFlags) -> Result<()> {
        let bytes = self.bytes("msync", range)?;
        let (address, len) = self.pages_of(bytes.clone());
        // SAFETY: pages of our own mapping; writing them back changes nothing in them.
        unsafe { rustix::mm::msync(address, len, flags) }
            .map_err(|errno| Error::new("msync", errno, &self.object))?;
        self.check_range("msync", bytes.clone())?;
        // The kernel writes back what there is, and says nothing of pages beyond the file's end.
        if !bytes.is_empty() {
            match self.madvise(bytes.end - 1..bytes.end, rustix::mm::Advice::LinuxPopulateRead) {
                Err(error) if error.raw() == Errno::FAULT => {
                    return Err(Error::new("msync", Errno::FAULT, &self.object)
                        .with_hint("the file was truncated; map it again"));
                }
                // A kernel before 5.14 does not know this.
                _ => {}
            }
        }
        Ok(())
    }

    fn madvise(&self, range: impl RangeBounds<usize>, advice: rustix::mm::Advice) -> Result<()> {
        let (address, len) = self.whole_pages("madvise", range)?;
        // SAFETY: pages of our own mapping, which hold no Rust object; no advice of ours unmaps them.
        unsafe { rustix::mm::madvise(address, len, advice) }
            .map_err(|errno| Error::new("madvise", errno, &self.object))
    }

    fn whole_pages(
        &self,
        operation: &'static str,
        range: impl RangeBounds<usize>,
    ) -> Result<(*mut c_void, usize)> {
        Ok(self.pages_of(self.bytes(operation, range)?))
    }

    fn pages_of(&self, bytes: Range<usize>) -> (*mut c_void, usize) {
        let page_bytes = rustix::param::page_size();
        let start = (self.start.addr().get() + bytes.start) & !(page_bytes - 1);
        if bytes.is_empty() {
            return (ptr::with_exposed_provenance_mut(start), 0);
        }
        let end = (self.start.addr().get() + bytes.end).next_multiple_of(page_bytes);
        (ptr::with_exposed_provenance_mut(start), end - start)
    }

    /// A range of the user's as offsets, checked.
    pub(super) fn bytes(
        &self,
        operation: &'static str,
        range: impl RangeBounds<usize>,
    ) -> Result<Range<usize>> {
        within(range, self.len).map_err(|range| self.outside(operation, range))
    }

    pub(super) fn outside(&self, operation: &'static str, what: String) -> Error {
        Error::invalid(
            operation,
            &self.object,
            format!("{what} is not within the mapping, which is {} bytes long", self.len),
        )
    }
}

impl Mapping<ReadWrite> {
    /// What a lock is put into: the bytes from an offset on, of which it takes `len` at least.
    ///
    /// # Errors
    /// `EINVAL`: not within the mapping, or the mapping is private. `EFAULT`: the memory is gone.
    pub(crate) fn region(&self, operation: &'static str, offset: usize, len: usize) -> Result<Region<'_>> {
        let end = offset.saturating_add(len);
        let bytes = self.bytes(operation, offset..end)?;
        if self.is_private() {
            let why = "the mapping is private: no other process would see it";
            return Err(Error::invalid(operation, &self.object, why));
        }
        self.check_range(operation, bytes)?;
        // SAFETY: not 0, since within the mapping.
        let start = unsafe { NonNull::new_unchecked(self.start.as_ptr().wrapping_add(offset)) };
        // SAFETY: mapped, readable, writable and shared, for as long as `self` is borrowed, and for as long as a lock in it
        // is held (see `hold`). Whoever else uses the bytes does so by atomics or raw copies.
        Ok(unsafe { Region::new(start, self.len - offset) })
    }

    /// A lock in it is held from here on: it stays mapped until [`Mapping::release`].
    #[inline]
    pub(crate) fn hold(&self) {
        self.holds.fetch_add(1, Ordering::Relaxed);
    }

    /// A lock in it is held no more.
    #[inline]
    pub(crate) fn release(&self) {
        self.holds.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives up the right to write, for good: the kernel enforces it too. `mprotect(2)`.
    ///
    /// A memfd that is to be sealed against writing still counts it as mapped for writing: there, unmap it and map anew.
    ///
    /// # Errors
    /// `ENOMEM`: the kernel has no memory for it. `EACCES`: a security module refused.
    pub fn into_read_only(mut self) -> Result<Mapping<ReadOnly>> {
        let base = ptr::with_exposed_provenance_mut(self.pages.start);
        // SAFETY: our own pages; `self` is consumed, so nobody is left that could write there.
        unsafe { rustix::mm::mprotect(base, self.pages.len(), MprotectFlags::READ) }
            .map_err(|errno| Error::new("mprotect", errno, &self.object))?;
        let watch = self.watch.take();
        if let Some(watch) = &watch {
            watch.set_read_only();
        }
        let mapping = Mapping {
            start: self.start,
            len: self.len,
            pages: std::mem::take(&mut self.pages),
            watch,
            kind: self.kind,
            object: self.object.clone(),
            holds: AtomicUsize::new(self.holds.load(Ordering::Relaxed)),
            access: PhantomData,
        };
        Ok(mapping)
    }

    /// Gives the memory or disk blocks of a range back: its whole pages read as zeros from then on, for everybody.
    /// `madvise(2)` with `MADV_REMOVE`.
    ///
    /// # Errors
    /// `EINVAL`: the range is not within the mapping, or does not begin and end with a page. `EACCES`: the mapping is
    /// private. `EOPNOTSUPP`: the file system cannot punch holes. `EPERM`: a memfd sealed against writing, now or in
    /// future.
    pub fn discard(&self, range: impl RangeBounds<usize>) -> Result<()> {
        // A range that ends with the mapping but within a page would take what follows it in the file along.
        let bytes = self.aligned("discard", range, false)?;
        self.madvise(bytes, rustix::mm::Advice::LinuxRemove)
    }

    /// Throws away what this process has changed in a range of a private mapping: it reads as the file again.
    /// `madvise(2)` with `MADV_DONTNEED`.
    ///
    /// # Errors
    /// `EINVAL`: the range is not within the mapping, does not begin and end with a page (or with the mapping), or the
    /// mapping is not private.
    pub fn revert(&self, range: impl RangeBounds<usize>) -> Result<()> {
        if !self.is_private() {
            return Err(Error::invalid(
                "madvise",
                &self.object,
                "the mapping is shared: its changes are everybody's",
            ));
        }
        let bytes = self.aligned("revert", range, true)?;
        self.madvise(bytes, rustix::mm::Advice::LinuxDontNeed)
    }

    /// For advice that changes content: the range if it is whole pages. A page that the mapping ends within may count
    /// as one.
    fn aligned(
        &self,
        what: &str,
        range: impl RangeBounds<usize>,
        may_end_within: bool,
    ) -> Result<Range<usize>> {
        let bytes = self.bytes("madvise", range)?;
        let page_bytes = rustix::param::page_size();
        let is_aligned = |offset: usize| (self.start.addr().get() + offset).is_multiple_of(page_bytes);
        let ends_well = is_aligned(bytes.end) || (may_end_within && bytes.end == self.len);
        if !is_aligned(bytes.start) || !ends_well {
            let why = format!("{what} takes whole pages of {page_bytes} bytes");
            return Err(Error::invalid("madvise", &self.object, why));
        }
        Ok(bytes)
    }
}

impl<A: Access> Drop for Mapping<A> {
    fn drop(&mut self) {
        if *self.holds.get_mut() > 0 {
            // A guard was forgotten, and its lock is held to the thread's end: the memory stays to the process's.
            std::mem::forget(self.watch.take());
            return;
        }
        let replaced = self.watch.as_ref().and_then(Watch::lost_page_bytes);
        // The handler must not put a page where somebody else may map next.
        drop(self.watch.take());
        if self.pages.is_empty() {
            return;
        }
        let base: *mut c_void = ptr::with_exposed_provenance_mut(self.pages.start);
        // SAFETY: mapped by us and unmapped once; every reference to an atomic in there borrows `self`. A segment of
        // huge pages is attached in whole ones.
        unsafe {
            match (self.kind, replaced) {
                (Kind::Attached, None) => drop(libc::shmdt(base)),
                (Kind::AttachedByUs, _) => drop(SysvSegment::detach(base.addr())),
                // shmdt would leave what was put in the place of a lost page; munmap detaches as well.
                (_, page_bytes) => {
                    let len = self.pages.len().next_multiple_of(page_bytes.unwrap_or(1));
                    let _ = rustix::mm::munmap(base, len);
                }
            }
        }
    }
}

impl<A: Access> fmt::Debug for Mapping<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if is_writable::<A>() { "read-write" } else { "read-only" };
        write!(
            f,
            "Mapping({}, {} bytes at {:p}, {access}, {:?})",
            self.object, self.len, self.start, self.kind
        )
    }
}

/// Maps a part of a descriptor, or all of it, after a look at its size.
pub(super) fn map_part<A: Access>(
    fd: BorrowedFd<'_>,
    part: Option<(u64, usize)>,
    kind: Kind,
    populate: bool,
    object: &Label,
) -> Result<Mapping<A>> {
    let raw = rustix::fs::fstat(fd).map_err(|errno| Error::new("fstat", errno, object))?;
    let size_bytes = u64::try_from(raw.st_size).unwrap_or(0);
    // A device has no size; its driver judges the range.
    let is_sized = FileType::from_raw_mode(raw.st_mode) == FileType::RegularFile;
    let (offset, len) = match part {
        Some((offset, len)) => (offset, len),
        None => (0, usize::try_from(size_bytes).map_err(|_| Error::new("mmap", Errno::OVERFLOW, object))?),
    };
    let end = offset.checked_add(len as u64).ok_or_else(|| Error::new("mmap", Errno::OVERFLOW, object))?;
    let request = Request { offset, len, kind, populate };
    if len == 0 || (is_sized && end > size_bytes) {
        // What cannot be mapped at all (a file of /proc has no size either) says so itself.
        let page = Request { offset: 0, len: 1, kind, populate: false };
        if size_bytes == 0 {
            Mapping::<ReadOnly>::of_fd(fd, &page, object)?;
        }
        let why = match part {
            Some((_, 0)) => "a mapping has at least one byte".to_string(),
            _ if size_bytes == 0 => "it has no bytes yet: set its size first".to_string(),
            _ => format!("it has {size_bytes} bytes; there is nothing to map from {offset} to {end}"),
        };
        return Err(Error::invalid("mmap", object, why));
    }
    Mapping::of_fd(fd, &request, object)
}

/// A range of the user's as offsets, if it lies in `0..len`; what it is, if not.
pub(super) fn within(range: impl RangeBounds<usize>, len: usize) -> Result<Range<usize>, String> {
    let start = match range.start_bound() {
        Bound::Included(start) => Some(*start),
        Bound::Excluded(start) => start.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.checked_add(1),
        Bound::Excluded(end) => Some(*end),
        Bound::Unbounded => Some(len),
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= len => Ok(start..end),
        _ => Err(format!("the range {}..{}", Edge(start), Edge(end))),
    }
}

/// A bound that may have overflowed.
struct Edge(Option<usize>);

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, "{offset}"),
            None => f.write_str("2^64"),
        }
    }
}

pub(super) fn protection<A: Access>() -> ProtFlags {
    if is_writable::<A>() { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ }
}

fn explain_map<A: Access>(error: Error) -> Error {
    match error.raw() {
        Errno::ACCESS if is_writable::<A>() => error.with_hint(
            "a shared mapping that writes needs a descriptor open for reading and writing, and not for appending",
        ),
        Errno::ACCESS => error.with_hint("the descriptor is not open for reading, or not a file that can be mapped"),
        Errno::NODEV => error.with_hint("this kind of file cannot be mapped; read it instead"),
        Errno::PERM => error.with_hint("a seal (F_SEAL_WRITE, F_SEAL_FUTURE_WRITE) forbids mapping it for writing"),
        Errno::NOMEM => error.with_hint("no memory or address space for it; see RLIMIT_AS and vm.overcommit_memory"),
        _ => error,
    }
}
