//! Signals as something to read: `signalfd(2)`.
//!
//! # What a user sees
//! A descriptor from which the *reading* process and thread takes its own pending signals: those sent to the process,
//! and those sent to the thread that reads. It reads as ready while there is one. Nothing is lost while nobody reads:
//! the signals stay pending.
//!
//! The signals must be blocked in every thread, or they are delivered before anybody reads. [`SignalFd::new`] blocks
//! them in the calling thread for good (the threads that it starts inherit that): make it in `main`, first.
//! [`SignalFd::of`] leaves the mask alone.
//!
//! In a child made by `fork` the inherited descriptor gives the *child's* signals. In `epoll` it is ready for the
//! signals of the process that added it, whoever waits: add it after the fork.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::nonblocking;
use super::siginfo::Info;
use super::signal_set::SignalSet;
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{self, check};

/// Signals by a descriptor.
///
/// ```
/// use ginnel::notify::{Signal, SignalFd};
///
/// let signals = SignalFd::new(Signal::USR1 | Signal::USR2)?;
/// assert!(signals.try_read().unwrap_err().is_would_block());
/// Signal::USR1.raise()?;
/// assert_eq!(signals.read()?.signal, Signal::USR1);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
    signals: SignalSet,
    object: Label,
}

impl SignalFd {
    /// A descriptor for these signals, which the calling thread, and those that it starts, block from now on.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no more descriptors. `ENOMEM`.
    pub fn new(signals: impl Into<SignalSet>) -> Result<SignalFd> {
        let signals = signals.into();
        let made = SignalFd::of(signals)?;
        signals.block()?.keep();
        Ok(made)
    }

    /// A descriptor for these signals; to block them is the caller's to do.
    ///
    /// # Errors
    /// As [`SignalFd::new`].
    pub fn of(signals: impl Into<SignalSet>) -> Result<SignalFd> {
        let signals = signals.into();
        let fd = signalfd(-1, signals)?;
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(SignalFd { fd, signals, object: signals.label() })
    }

    /// The signals that it gives.
    pub fn signals(&self) -> SignalSet {
        self.signals
    }

    /// Has it give other signals, for all who share the open file description.
    ///
    /// # Errors
    /// None that the man page knows for valid arguments.
    pub fn set_signals(&mut self, signals: impl Into<SignalSet>) -> Result<()> {
        use std::os::fd::AsRawFd;
        let signals = signals.into();
        signalfd(self.fd.as_raw_fd(), signals)?;
        self.signals = signals;
        self.object = signals.label();
        Ok(())
    }

    /// Takes a pending signal; waits until there is one.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran that interrupts (see
    /// [`Signal::set_interrupts`](super::Signal::set_interrupts)).
    pub fn read(&self) -> Result<Info> {
        self.read_deadline(Deadline::NEVER)
    }

    /// Takes a pending signal, if there is one.
    ///
    /// # Errors
    /// `EAGAIN`: there is none.
    pub fn try_read(&self) -> Result<Info> {
        self.read_deadline(Deadline::NOW)
    }

    /// Takes a pending signal; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none came. `EINTR`: a signal handler ran.
    pub fn read_deadline(&self, deadline: impl Into<Deadline>) -> Result<Info> {
        wait::until_ready(self, PollFlags::IN, deadline.into(), "read", &self.object, |attempt| {
            let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
            let len = nonblocking::read(self.fd.as_fd(), &mut buffer, attempt)?;
            if len != buffer.len() {
                return Err(Errno::PROTO);
            }
            // SAFETY: the buffer has the struct's size and is initialised; the struct is numbers only.
            let raw = unsafe { buffer.as_ptr().cast::<libc::signalfd_siginfo>().read_unaligned() };
            Info::from_signalfd(&raw).ok_or(Errno::PROTO)
        })
    }
}

impl AsFd for SignalFd {
    /// Readable while a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `signalfd(2)`, close-on-exec: a new descriptor for -1, else the same one with other signals.
fn signalfd(fd: i32, signals: SignalSet) -> Result<i32> {
    let set = signals.to_libc();
    // SAFETY: the set is initialised and valid for the call; any descriptor number is.
    check(unsafe { libc::signalfd(fd, &raw const set, libc::SFD_CLOEXEC) }).map(|fd| fd as i32).map_err(
        |errno| {
            let error: Error = signals.error("signalfd", errno);
            match errno {
                Errno::MFILE => error.with_hint("raise the limit of descriptors (`ulimit -n`)"),
                _ => error,
            }
        },
    )
}
