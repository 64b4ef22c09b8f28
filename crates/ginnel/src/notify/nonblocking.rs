//! Reading whole records from a descriptor, without touching its `O_NONBLOCK`: `preadv2(2)` with `RWF_NOWAIT`.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, ReadWriteFlags};

use crate::wait::Attempt;

/// One read of a descriptor that has no position (a pipe, an eventfd, a signalfd).
pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], attempt: Attempt) -> Result<usize, Errno> {
    if attempt == Attempt::Blocking {
        return rustix::io::read(fd, buffer);
    }
    // -1: the current position, which such a file has not.
    let at = u64::MAX;
    match rustix::io::preadv2(fd, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT) {
        // A kernel that cannot (before 5.8, for a signalfd before 6.10): ask first. Should another reader be faster,
        // this one waits for the next record.
        Err(Errno::OPNOTSUPP) => {
            if !is_ready(fd, PollFlags::IN)? {
                return Err(Errno::AGAIN);
            }
            rustix::io::read(fd, buffer)
        }
        other => other,
    }
}

/// Whether the descriptor has one of `events` now.
pub(super) fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}
