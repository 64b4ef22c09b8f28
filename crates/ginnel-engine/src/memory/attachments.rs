//! Who has a System V segment attached, told by the kernel: `F_OFD_SETLK` of `fcntl(2)`.
//!
//! A process that has a segment attached keeps the segment's file open and has a shared lock on a range of it, far beyond
//! its end: the range begins at a place that the process has picked at random, and is as long as the process has the
//! segment attached times. The kernel takes the lock back when the file is closed: when the process ends, is killed, or executes
//! another program. So the number of attaches is the sum of the ranges, nobody has to be asked whether it is alive, and
//! there is no table that one process could corrupt for another. To have it attached for reading takes the permission to
//! read, as in the kernel; who has it can also take such locks without attaching, and so keep a removed segment, as by
//! attaching it.
//!
//! Who destroys a segment takes the whole range exclusively, which fails as long as anybody has it attached. Who is about to
//! attach it finds the range taken, and with it the segment as good as gone. Nobody waits for a lock.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};

use crate::namespace::random;
use crate::segment::PAGE_BYTES;
use crate::{Errno, Result};

/// Where the ranges begin.
const BASE: i64 = 1 << 62;
/// How often one process can have a segment attached.
pub(crate) const TIMES_MAX: i64 = 1 << 21;
/// How many places a process tries.
const PICKS: usize = 20;
const SLOTS: i64 = 1 << 40;
const END: i64 = BASE + SLOTS * TIMES_MAX;
/// How many ranges are looked at before a count is given as it is: each process needs two looks.
const LOOKS_MAX: usize = 1 << 17;

fn range(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    // SAFETY: all zeroes is a valid value.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as i16;
    range.l_whence = libc::SEEK_SET as i16;
    range.l_start = start;
    range.l_len = len;
    range
}

fn control(file: BorrowedFd<'_>, command: libc::c_int, range: &mut libc::flock) -> Result<()> {
    // SAFETY: `range` is a valid `struct flock` for the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, range) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// A process's place in the range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(i64);

impl Slot {
    /// One that nobody has. Should two processes ever pick the same at the same moment, they count as the one of them that
    /// has it attached more often.
    pub(crate) fn pick(file: BorrowedFd<'_>) -> Result<Slot> {
        let mut start = 0;
        for _ in 0..PICKS {
            start = BASE + (random()? % SLOTS as u64) as i64 * TIMES_MAX;
            if first_in(file, start, start + TIMES_MAX)?.is_none() {
                break;
            }
        }
        // Somebody has locks all over the place: that one, and this process, cannot be told apart.
        Ok(Slot(start))
    }

    /// Notes that the process has the segment attached `times` times, where it was fewer.
    ///
    /// # Errors
    /// `EIDRM`: somebody is destroying it. `ENOLCK`: no memory for it.
    pub(crate) fn hold(self, file: BorrowedFd<'_>, times: i64) -> Result<()> {
        let mut range = range(libc::F_RDLCK, self.0, times.clamp(1, TIMES_MAX));
        match control(file, libc::F_OFD_SETLK, &mut range) {
            Err(Errno::AGAIN | Errno::ACCESS) => Err(Errno::IDRM),
            outcome => outcome,
        }
    }

    /// Notes that the process has it attached only `times` times.
    pub(crate) fn give_back(self, file: BorrowedFd<'_>, times: i64) -> Result<()> {
        control(file, libc::F_OFD_SETLK, &mut range(libc::F_UNLCK, self.0 + times, TIMES_MAX - times))
    }
}

/// A lock in this part of the range, of another open file than this: whether it is a shared one, and its range.
fn first_in(file: BorrowedFd<'_>, start: i64, end: i64) -> Result<Option<(bool, i64, i64)>> {
    let mut found = range(libc::F_WRLCK, start, end - start);
    control(file, libc::F_OFD_GETLK, &mut found)?;
    if found.l_type == libc::F_UNLCK as i16 {
        return Ok(None);
    }
    let until = if found.l_len == 0 { end } else { found.l_start.saturating_add(found.l_len) };
    Ok(Some((found.l_type == libc::F_RDLCK as i16, found.l_start.max(start), until.min(end))))
}

/// How often the segment is attached, by all processes; it is enough to know of `enough`.
fn count_to(file: BorrowedFd<'_>, enough: u64) -> Result<u64> {
    // Anew: the locks of the open file that is asked are not told.
    let file = open_again(file, OFlags::RDONLY)?;
    let mut sum = 0_u64;
    let mut parts = vec![(BASE, END)];
    for _ in 0..LOOKS_MAX {
        let Some((start, end)) = parts.pop() else { break };
        if start >= end {
            continue;
        }
        // The kernel gives any of those that are there: what is before it and what is behind it is looked at too.
        let Some((shared, from, to)) = first_in(file.as_fd(), start, end)? else { continue };
        if to <= from {
            continue;
        }
        if shared {
            sum = sum.saturating_add((to - from) as u64);
            if sum >= enough {
                break;
            }
        }
        parts.push((to, end));
        parts.push((start, from));
    }
    Ok(sum)
}

/// How often the segment is attached, by all processes.
pub(crate) fn count(file: BorrowedFd<'_>) -> Result<u64> {
    count_to(file, u64::MAX)
}

/// Whether anybody has the segment attached.
pub(crate) fn any(file: BorrowedFd<'_>) -> Result<bool> {
    count_to(file, 1).map(|sum| sum > 0)
}

/// A file, opened once more: locks belong to the open file.
pub(crate) fn open_again(file: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::openat(CWD, path, access | OFlags::CLOEXEC, Mode::empty())
}

/// A segment that nobody has attached, and that nobody can attach as long as this is there.
#[derive(Debug)]
pub(crate) struct Shut(OwnedFd);

impl Shut {
    /// None: somebody has it attached, or the caller may not tell.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Option<Shut>> {
        let file = match open_again(file, OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM) => return Ok(None),
            outcome => outcome?,
        };
        match control(file.as_fd(), libc::F_OFD_SETLK, &mut range(libc::F_WRLCK, BASE, END - BASE)) {
            Ok(()) => Ok(Some(Shut(file))),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the memory back where the file's name cannot be taken away: another user's, in a sticky directory.
    pub(crate) fn release(&self) {
        let size = rustix::fs::fstat(&self.0).map_or(0, |status| status.st_size as u64);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Some(len) = size.checked_sub(PAGE_BYTES as u64).filter(|len| *len > 0) {
            let _ = rustix::fs::fallocate(&self.0, flags, PAGE_BYTES as u64, len);
        }
    }
}

impl AsFd for Shut {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
