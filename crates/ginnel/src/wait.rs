//! Waiting on a descriptor until a deadline: `poll(2)` around calls that do not block.
//!
//! A blocking call has no deadline and `O_NONBLOCK` belongs to everybody who shares the descriptor, so a wait with a
//! deadline is: try without blocking; if that would block, poll for what is left of the time; try again, since
//! another reader may have been faster.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, Label, Result};
use crate::{Deadline, error};

/// Waits until `fd` has one of `events` (or an error or a hang-up).
///
/// # Errors
/// `EINTR`: a signal handler ran. `ETIMEDOUT` (`EAGAIN` for [`Deadline::NOW`]): the deadline passed.
pub(crate) fn ready(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Deadline,
    operation: &'static str,
    object: &Label,
) -> Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    match rustix::event::poll(&mut fds, deadline.remaining_timespec().as_ref()) {
        Ok(0) => Err(Error::new(operation, deadline.errno(), object)),
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::new(operation, errno, object)),
    }
}

/// How one attempt of a call is to behave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Return `EAGAIN` rather than wait.
    NonBlocking,
    /// May wait in the kernel: the caller has no deadline.
    Blocking,
}

/// Runs `attempt` until it succeeds, fails for good, or `deadline` passes, polling `fd` for `events` in between.
///
/// Without a deadline the first attempt is a blocking one: one system call, no poll. If the descriptor's open file
/// description has `O_NONBLOCK` all the same, that attempt gives `EAGAIN` and polling takes over.
pub(crate) fn until_ready<T>(
    fd: impl AsFd,
    events: PollFlags,
    deadline: Deadline,
    operation: &'static str,
    object: &Label,
    mut attempt: impl FnMut(Attempt) -> Result<T, Errno>,
) -> Result<T> {
    let how = if deadline.is_never() { Attempt::Blocking } else { Attempt::NonBlocking };
    loop {
        match attempt(how) {
            Ok(value) => return Ok(value),
            // A descriptor may stay ready and the call have nothing for us all the same: it has an error queue, other
            // readers are faster each time, or a child that has ended is its tracer\'s to reap first.
            Err(Errno::AGAIN) if deadline.has_passed() => {
                return Err(Error::new(operation, deadline.errno(), object));
            }
            Err(Errno::AGAIN) => ready(fd.as_fd(), events, deadline, operation, object)?,
            Err(errno) => return Err(Error::new(operation, errno, object)),
        }
    }
}

/// `Ok` for a libc call's result, or the thread's errno for -1.
pub(crate) fn check(result: impl Into<i64>) -> Result<i64, Errno> {
    match result.into() {
        -1 => Err(error::last_errno()),
        value => Ok(value),
    }
}
