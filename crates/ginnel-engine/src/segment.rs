//! An object's file in a memory file system, mapped: `openat(2)`, `fallocate(2)`, `linkat(2)`, `mmap(2)`.
//!
//! # What holds
//! - A segment becomes visible whole or not at all: it is made without a name (`O_TMPFILE`), filled, then linked.
//! - Space is reserved before it is used, so a full file system is `ENOSPC` where it grows, and never a `SIGBUS`.
//! - Every access goes through [`Segment::word32`], [`Segment::word64`] or a copy, which check offset and alignment
//!   against what *this* process has mapped. Nothing in the segment is believed to be an address or a length.
//! - The address range for the whole capacity is set aside at once, so what is mapped never moves.
//!
//! # Layout
//! ```text
//! 0x000   magic         u64   what kind of file this is, and which version
//! 0x008   capacity      u64   the most bytes it may grow to
//! 0x010   identity      48 B  which object this is
//! 0x040   lock          192 B see `lock`
//! 0x100   journal             see `lock`
//! 0x1000  the object's own, from here on
//! ```
//! What lies in somebody else's mapping ([`Segment::over`]) has a shorter journal: its own bytes begin at
//! [`SHORT_HEADER_BYTES`].
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::descriptor::Kept;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::{Errno, Result};

/// Where an object's own bytes begin in a file.
pub const HEADER_BYTES: usize = 0x1000;
/// Where an object's own bytes begin in a mapping of somebody else's.
pub const SHORT_HEADER_BYTES: usize = 0x400;
/// Segments grow by whole pages.
pub(crate) const PAGE_BYTES: usize = 4096;
/// "ginnel" and the version of the layout.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"ginnel\x00\x01");
/// The header, and a page for the object's own.
const LEAST_BYTES: usize = HEADER_BYTES + PAGE_BYTES;
const MAGIC_OFFSET: usize = 0;
pub(crate) const JOURNAL_OFFSET: usize = 0x100;
const JOURNAL_ENTRY_BYTES: usize = 16;
const CAPACITY_OFFSET: usize = 8;

/// A mapped object file. Threads of a process share one.
///
/// ```
/// # ginnel_testkit::private();
/// use std::sync::atomic::Ordering;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
///
/// let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// let made = Segment::create(&directory, c"box", rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 1 << 20, |_| Ok(()))?;
/// made.word64(HEADER_BYTES)?.store(7, Ordering::Release);
///
/// let opened = Segment::open(&directory, c"box")?;
/// assert_eq!(opened.word64(HEADER_BYTES)?.load(Ordering::Acquire), 7);
/// assert!(opened.word64(1 << 20).is_err(), "beyond its end");
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    /// How much address space is set aside: the capacity.
    capacity: usize,
    /// How much of it is the file's; grows, never shrinks.
    mapped: AtomicUsize,
    header_bytes: usize,
    /// None if the memory is somebody else's.
    file: Option<Kept>,
    /// How many words in here the kernel has been told of: as long as there are any, it stays mapped.
    linked: AtomicUsize,
}

// SAFETY: the mapping belongs to the segment, which unmaps it when the last user drops it; all access to it is by atomics
// and raw copies, which any thread may make at any time.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a segment and gives it its name when `fill` has filled it.
    ///
    /// # Errors
    /// `EEXIST`: the name is taken. `ENOSPC`: the file system is full. `EINVAL`: a capacity that is no whole number of
    /// pages, or less than two. What `fill` fails with. In each case nothing has been made.
    pub fn create(
        directory: impl AsFd,
        name: &CStr,
        mode: Mode,
        capacity: usize,
        fill: impl FnOnce(&Segment) -> Result<()>,
    ) -> Result<Segment> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, c".", flags, mode)?;
        // The umask has no say in an IPC object's mode.
        rustix::fs::fchmod(&file, mode)?;
        let segment = Segment::format(file, capacity, fill)?;
        link(segment.file()?, directory.as_fd(), name)?;
        Ok(segment)
    }

    /// Makes a segment of an empty file that nobody else knows.
    ///
    /// # Errors
    /// As [`Segment::create`].
    pub fn format(
        file: OwnedFd,
        capacity: usize,
        fill: impl FnOnce(&Segment) -> Result<()>,
    ) -> Result<Segment> {
        if capacity < LEAST_BYTES || !capacity.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::INVAL);
        }
        reserve(file.as_fd(), 0, LEAST_BYTES)?;
        let segment = Segment::map(file, capacity, LEAST_BYTES)?;
        segment.word64(MAGIC_OFFSET)?.store(MAGIC, Ordering::Relaxed);
        segment.word64(CAPACITY_OFFSET)?.store(capacity as u64, Ordering::Relaxed);
        fill(&segment)?;
        Ok(segment)
    }

    /// Opens a segment.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`. `ELOOP`: the name is a symbolic link. `EUCLEAN`: it is no segment, or not whole.
    pub fn open(directory: impl AsFd, name: &CStr) -> Result<Segment> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Segment::of(rustix::fs::openat(directory, name, flags, Mode::empty())?)
    }

    /// Maps a segment's file, which is open for reading and writing.
    ///
    /// # Errors
    /// `EUCLEAN`: it is no segment, or not whole.
    pub fn of(file: OwnedFd) -> Result<Segment> {
        let (capacity, size) = measures(file.as_fd())?;
        Segment::map(file, capacity, size)
    }

    fn map(file: OwnedFd, capacity: usize, size: usize) -> Result<Segment> {
        // SAFETY: a fresh range of addresses, without access: nobody's memory is touched.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                capacity,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        // A capacity that nobody can map is no capacity of ours.
        .map_err(|errno| if errno == Errno::NOMEM { Errno::UCLEAN } else { errno })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let segment = Segment {
            base,
            capacity,
            mapped: AtomicUsize::new(0),
            header_bytes: HEADER_BYTES,
            file: Some(Kept::new(file)),
            linked: AtomicUsize::new(0),
        };
        segment.map_up_to(size)?;
        Ok(segment)
    }

    /// An object in memory that somebody else has mapped: a header of [`SHORT_HEADER_BYTES`], then the object's own bytes.
    /// All zeroes is a header that nobody has used. It does not grow.
    ///
    /// # Errors
    /// `EINVAL`: not aligned to 64 bytes, or shorter than the header.
    ///
    /// # Safety
    /// The bytes are mapped, readable and writable, for as long as the segment lives (to the process's end once
    /// a process has a stake in it), and whoever else uses them does so by atomics or raw copies.
    pub unsafe fn over(base: NonNull<u8>, len: usize) -> Result<Segment> {
        if !base.addr().get().is_multiple_of(64) || len < SHORT_HEADER_BYTES {
            return Err(Errno::INVAL);
        }
        Ok(Segment {
            base,
            capacity: len,
            mapped: AtomicUsize::new(len),
            header_bytes: SHORT_HEADER_BYTES,
            file: None,
            linked: AtomicUsize::new(0),
        })
    }

    /// Where the object's own bytes begin.
    #[inline]
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// A thread's robust list has one more entry in here: until [`Segment::unlinked`] it stays mapped, also when this is
    /// dropped before. The kernel goes through the list at the thread's end, and the thread writes to its entries.
    pub(crate) fn linked(&self) {
        self.linked.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn unlinked(&self) {
        self.linked.fetch_sub(1, Ordering::Relaxed);
    }

    /// The object's file.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: it lies in somebody else's mapping.
    pub fn file(&self) -> Result<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd).ok_or(Errno::OPNOTSUPP)
    }

    /// Maps what is not yet mapped of the file's first `size` bytes, which must be whole pages that exist.
    fn map_up_to(&self, size: usize) -> Result<()> {
        let mapped = self.mapped.load(Ordering::Acquire);
        if size <= mapped {
            return Ok(());
        }
        // SAFETY: the range lies within what `map` set aside for this segment, and beyond what is in use. Two threads may
        // do this at once: both put the same pages of the same file there, and neither removes what the other reads.
        unsafe {
            rustix::mm::mmap(
                self.base.as_ptr().add(mapped).cast(),
                size - mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                self.file()?,
                mapped as u64,
            )?;
        }
        self.mapped.fetch_max(size, Ordering::Release);
        Ok(())
    }

    /// Makes the file at least `size` bytes long, with space for all of them.
    ///
    /// # Errors
    /// `ENOSPC`: the file system is full. `ENOMEM`: more than the segment's capacity, or no file. It is as long as it was then.
    pub fn grow(&self, size: usize) -> Result<()> {
        let size = size.checked_next_multiple_of(PAGE_BYTES).ok_or(Errno::NOMEM)?;
        if size > self.capacity || self.file.is_none() {
            return Err(Errno::NOMEM);
        }
        reserve(self.file()?, 0, size)?;
        self.map_up_to(size)
    }

    /// Makes space for some bytes, wherever they are: what lies between may stay a hole.
    ///
    /// # Errors
    /// As [`Segment::grow`].
    pub fn reserve(&self, offset: usize, len: usize) -> Result<()> {
        let end = offset.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
        let end = end.filter(|end| *end <= self.capacity).ok_or(Errno::NOMEM)?;
        let start = offset / PAGE_BYTES * PAGE_BYTES;
        reserve(self.file.as_ref().ok_or(Errno::NOMEM)?.as_fd(), start, end - start)?;
        self.map_up_to(end)
    }

    /// Gives the memory of some bytes back: they are a hole from here on, and read as 0.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: no file, or a file system that cannot. `EINVAL`: not in the segment.
    pub fn punch(&self, offset: usize, len: usize) -> Result<()> {
        if offset < self.header_bytes || offset.checked_add(len).is_none_or(|end| end > self.capacity) {
            return Err(Errno::INVAL);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.file()?, flags, offset as u64, len as u64)
    }

    /// The most bytes it may grow to.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Copies bytes into the segment.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the segment.
    #[inline]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let place = self.check_range(offset, bytes.len())?;
        // SAFETY: the range is mapped; nobody has a reference to it, and a copy of what others write meanwhile is only
        // a mixture.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes out of the segment.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the segment.
    #[inline]
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let place = self.check_range(offset, bytes.len())?;
        // SAFETY: as in `copy_in`.
        unsafe { std::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    #[inline]
    fn check_range(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        if !self.reaches(offset, len) {
            return Err(Errno::UCLEAN);
        }
        // SAFETY: the offset is within the mapping, or at its end.
        Ok(unsafe { self.base.add(offset) })
    }

    /// Makes the file at least `size` bytes long. What is added is a hole: [`Segment::reserve`] it before it is used.
    ///
    /// # Errors
    /// `ENOMEM`: more than the segment's capacity, or no file.
    pub fn extend(&self, size: usize) -> Result<()> {
        let size = size.checked_next_multiple_of(PAGE_BYTES).ok_or(Errno::NOMEM)?;
        if size > self.capacity || self.file.is_none() {
            return Err(Errno::NOMEM);
        }
        if (rustix::fs::fstat(self.file()?)?.st_size as usize) < size {
            rustix::fs::ftruncate(self.file()?, size as u64)?;
        }
        self.map_up_to(size)
    }

    /// Makes the file at least `size` bytes long, with space for all that is added. Holes stay holes.
    ///
    /// # Errors
    /// As [`Segment::grow`].
    pub fn lengthen(&self, size: usize) -> Result<()> {
        let size = size.checked_next_multiple_of(PAGE_BYTES).ok_or(Errno::NOMEM)?;
        if size > self.capacity || self.file.is_none() {
            return Err(Errno::NOMEM);
        }
        let has = rustix::fs::fstat(self.file()?)?.st_size as usize;
        if has < size {
            reserve(self.file()?, has, size - has)?;
        }
        self.map_up_to(size)
    }

    /// How many bytes this process has mapped.
    #[inline]
    pub fn len(&self) -> usize {
        self.mapped.load(Ordering::Acquire)
    }

    /// Never: a segment has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The 32-bit word at an offset.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the segment, or not aligned.
    #[inline]
    pub fn word32(&self, offset: usize) -> Result<&AtomicU32> {
        let address = self.check(offset, 4)?;
        // SAFETY: checked to lie in the mapping and to be aligned; atomics may be shared with anybody.
        Ok(unsafe { AtomicU32::from_ptr(address.as_ptr().cast()) })
    }

    /// The 64-bit word at an offset.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the segment, or not aligned.
    #[inline(always)]
    pub fn word64(&self, offset: usize) -> Result<&AtomicU64> {
        let address = self.check(offset, 8)?;
        // SAFETY: as in `word32`.
        Ok(unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) })
    }

    /// Neighbouring words at an offset.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the segment, or not aligned.
    #[inline(always)]
    pub fn words<const COUNT: usize>(&self, offset: usize) -> Result<&[AtomicU64; COUNT]> {
        if !offset.is_multiple_of(8) || !self.reaches(offset, 8 * COUNT) {
            return Err(Errno::UCLEAN);
        }
        // SAFETY: all of them are checked to lie in the mapping, and to be aligned. Atomics may be shared with anybody.
        Ok(unsafe { self.base.add(offset).cast().as_ref() })
    }

    /// Where a word lies that this segment gave. One of another's lies nowhere: beyond all offsets, or in the header's.
    #[inline(always)]
    pub(crate) fn offset_of(&self, word: &AtomicU64) -> usize {
        let offset = word.as_ptr().addr().wrapping_sub(self.base.addr().get());
        if offset < self.capacity { offset } else { 0 }
    }

    /// A word of the header, which is always mapped.
    #[inline]
    pub(crate) fn header64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset <= SHORT_HEADER_BYTES - 8 && offset.is_multiple_of(8));
        // SAFETY: each segment is mapped up to its header's end at least, and the offset is aligned.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// A word of the header, which is always mapped.
    #[inline]
    pub(crate) fn header32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset <= SHORT_HEADER_BYTES - 4 && offset.is_multiple_of(4));
        // SAFETY: as in `header64`.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// A pair of words of the journal, which is always mapped.
    #[inline(always)]
    pub(crate) fn journal_entry(&self, index: usize) -> (&AtomicU64, &AtomicU64) {
        assert!(index < self.changes_max());
        let offset = JOURNAL_OFFSET + index * JOURNAL_ENTRY_BYTES;
        // SAFETY: as in `header64`.
        unsafe {
            let address = self.base.as_ptr().add(offset);
            (AtomicU64::from_ptr(address.cast()), AtomicU64::from_ptr(address.add(8).cast()))
        }
    }

    /// Has the processor fetch the line at an offset, to be written, while this thread goes on.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if offset < self.len() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, for an address in the mapping; nothing is read or written.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_ET0>(self.base.as_ptr().add(offset).cast_const().cast());
            }
        }
    }

    /// [`Segment::prefetch`] of all lines of so many bytes: to be read, or to be written.
    #[inline]
    pub(crate) fn warm(&self, offset: usize, len: usize, to_write: bool) {
        let end = offset.saturating_add(len).min(self.len());
        #[cfg(target_arch = "x86_64")]
        for line in (offset & !63..end).step_by(64) {
            // SAFETY: as in `prefetch`.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
                let address = self.base.as_ptr().add(line).cast_const().cast();
                if to_write {
                    _mm_prefetch::<_MM_HINT_ET0>(address);
                } else {
                    _mm_prefetch::<_MM_HINT_T0>(address);
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (end, to_write);
    }

    /// How many words one operation may change.
    #[inline]
    pub fn changes_max(&self) -> usize {
        (self.header_bytes - JOURNAL_OFFSET) / JOURNAL_ENTRY_BYTES
    }

    /// The address of `offset` if a word of `size` bytes is mapped there and aligned.
    #[inline(always)]
    fn check(&self, offset: usize, size: usize) -> Result<NonNull<u8>> {
        // The file may have been grown by another process: that is looked for where this fails.
        if !offset.is_multiple_of(size) || !self.reaches(offset, size) {
            return Err(Errno::UCLEAN);
        }
        // SAFETY: the offset is below the length of the mapping.
        Ok(unsafe { self.base.add(offset) })
    }

    #[inline(always)]
    fn reaches(&self, offset: usize, size: usize) -> bool {
        let fits = |len: usize| offset.checked_add(size).is_some_and(|end| end <= len);
        fits(self.len()) || (fits(self.capacity) && self.reaches_since(offset, size))
    }

    /// Whether that is so with what others have added to the file.
    #[cold]
    #[inline(never)]
    fn reaches_since(&self, offset: usize, size: usize) -> bool {
        self.catch_up().is_ok() && offset.checked_add(size).is_some_and(|end| end <= self.len())
    }

    /// Maps what others have added to the file.
    fn catch_up(&self) -> Result<()> {
        let size = rustix::fs::fstat(self.file()?)?.st_size as usize;
        self.map_up_to(size.min(self.capacity) / PAGE_BYTES * PAGE_BYTES)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.file.is_none() || self.linked.load(Ordering::Relaxed) != 0 {
            return;
        }
        // SAFETY: the range was set aside for this segment, and all references into it were borrowed from it.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.capacity) };
    }
}

/// A segment's capacity and size, if its file is whole: read, not mapped.
pub(crate) fn measures(file: BorrowedFd<'_>) -> Result<(usize, usize)> {
    let status = rustix::fs::fstat(file)?;
    if !FileType::from_raw_mode(status.st_mode).is_file() || status.st_size < LEAST_BYTES as i64 {
        return Err(Errno::UCLEAN);
    }
    let mut head = [0; 16];
    if rustix::io::pread(file, &mut head, 0)? != head.len() {
        return Err(Errno::UCLEAN);
    }
    let word = |offset: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[offset..offset + 8]);
        u64::from_le_bytes(bytes)
    };
    let capacity = usize::try_from(word(CAPACITY_OFFSET)).map_err(|_| Errno::UCLEAN)?;
    let sound = word(MAGIC_OFFSET) == MAGIC && capacity.is_multiple_of(PAGE_BYTES);
    let size = status.st_size as usize;
    if !sound || size > capacity || !size.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::UCLEAN);
    }
    Ok((capacity, size))
}

/// An object's file, for who may only read it: nothing is mapped, and each word is read from the file.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::segment::{HEADER_BYTES, Reader, Segment};
/// use rustix::fs::{Mode, OFlags};
///
/// let directory = rustix::fs::open("/dev/shm", OFlags::DIRECTORY, Mode::empty())?;
/// let made = Segment::create(&directory, c"box", Mode::RUSR, 1 << 20, |_| Ok(()))?;
/// made.word64(HEADER_BYTES)?.store(7, std::sync::atomic::Ordering::Release);
///
/// let reader = Reader::of(rustix::fs::openat(&directory, c"box", OFlags::RDONLY, Mode::empty())?);
/// assert_eq!(reader.word64(HEADER_BYTES)?, 7);
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    file: OwnedFd,
}

impl Reader {
    /// Of an open file.
    pub fn of(file: OwnedFd) -> Reader {
        Reader { file }
    }

    /// The 64-bit word at an offset. Nobody is kept from changing it: two words may be of two moments.
    ///
    /// # Errors
    /// `EUCLEAN`: not in the file.
    pub fn word64(&self, offset: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        match rustix::io::pread(&self.file, &mut bytes, offset as u64)? {
            8 => Ok(u64::from_ne_bytes(bytes)),
            _ => Err(Errno::UCLEAN),
        }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes the file long enough for these bytes, none of which is a hole then.
pub(crate) fn reserve(file: BorrowedFd<'_>, offset: usize, len: usize) -> Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), offset as u64, len as u64)
}

/// Gives an unnamed file its name.
pub(crate) fn link(file: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
}
