//! A counter with a descriptor: `eventfd(2)`.
//!
//! # What a user sees
//! [`EventFd::add`] adds to the counter, [`EventFd::wait`] waits until it is not zero and takes all of it; with
//! [`EventFdOptions::semaphore`] it takes one. Relatives share it by inheritance
//! ([`process::inherit`](crate::process::inherit) hands it to a command), strangers by a Unix socket.
//! The most that the counter holds is [`EventFd::MAX`], 2^64 - 2: adding more waits.
//!
//! # How it works inside
//! Reading without waiting is one `preadv2` with `RWF_NOWAIT`. The kernel has no such thing for *writing* an eventfd,
//! so `try_add` looks first: `poll` says whether one fits, `/proc/self/fdinfo` whether more do. Should two that add at
//! the same time fill a counter that only one of them fits into, the other waits, at most 1 ms (then it says `EAGAIN`): see
//! [`deadline_signal`](crate::deadline_signal) for how.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::nonblocking;
use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt};
use crate::{Deadline, interrupt};

const OBJECT: Label = Label::Static("eventfd");
/// How long `try_add` may wait for a race that it lost.
const RACE_MAX: Duration = Duration::from_millis(1);

/// A counter to wait for.
///
/// ```
/// use ginnel::notify::EventFd;
///
/// let event = EventFd::new()?;
/// event.add(2)?;
/// event.add(3)?;
/// assert_eq!(event.wait()?, 5);
/// assert!(event.try_wait().unwrap_err().is_would_block());
///
/// let slots = EventFd::options().initial(2).semaphore(true).open()?;
/// assert_eq!((slots.wait()?, slots.wait()?), (1, 1));
/// assert!(slots.try_wait().unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

/// How to make an [`EventFd`]: see [`EventFd::options`].
///
/// ```
/// use ginnel::notify::EventFd;
///
/// let event = EventFd::options().initial(u64::MAX - 1).open()?;
/// assert!(event.try_add(1).unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFdOptions {
    initial: u64,
    semaphore: bool,
    nonblocking: bool,
}

impl EventFdOptions {
    /// What the counter begins with; 0 unless said.
    pub fn initial(mut self, initial: u64) -> Self {
        self.initial = initial;
        self
    }

    /// Whether waiting takes one, and not all (`EFD_SEMAPHORE`).
    pub fn semaphore(mut self, semaphore: bool) -> Self {
        self.semaphore = semaphore;
        self
    }

    /// Whether the open file description has `O_NONBLOCK` (`EFD_NONBLOCK`): for another program that inherits it and
    /// counts on that. The calls here wait or do not wait all the same, as their names say.
    pub fn nonblocking(mut self, nonblocking: bool) -> Self {
        self.nonblocking = nonblocking;
        self
    }

    /// Makes the counter, close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no more descriptors. `ENOMEM`. `EINVAL`: `initial` is greater than [`EventFd::MAX`].
    pub fn open(self) -> Result<EventFd> {
        let mut flags = EventfdFlags::CLOEXEC;
        flags.set(EventfdFlags::SEMAPHORE, self.semaphore);
        flags.set(EventfdFlags::NONBLOCK, self.nonblocking);
        // The system call's argument has 32 bits.
        let first = u32::try_from(self.initial).unwrap_or(0);
        let fd = rustix::event::eventfd(first, flags).map_err(|errno| {
            let error = Error::new("eventfd2", errno, &OBJECT);
            match errno {
                Errno::MFILE => error.with_hint("raise the limit of descriptors (`ulimit -n`)"),
                _ => error,
            }
        })?;
        let event = EventFd { fd };
        match self.initial - u64::from(first) {
            0 => {}
            rest => event.try_add(rest)?,
        }
        Ok(event)
    }
}

impl EventFd {
    /// The most that the counter holds.
    pub const MAX: u64 = u64::MAX - 1;

    /// A counter that is 0; waiting takes all of it.
    ///
    /// # Errors
    /// As [`EventFdOptions::open`].
    pub fn new() -> Result<EventFd> {
        EventFd::options().open()
    }

    /// Makes a counter with every choice spelled out.
    pub fn options() -> EventFdOptions {
        EventFdOptions::default()
    }

    /// Takes on an eventfd that came from elsewhere: by inheritance or a socket.
    ///
    /// # Errors
    /// `EINVAL`: the descriptor is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<EventFd> {
        let event = EventFd { fd };
        match event.field("eventfd-count") {
            Some(_) => Ok(event),
            None => Err(Error::invalid("eventfd2", &OBJECT, "the descriptor is no eventfd")),
        }
    }

    /// Another descriptor for the same counter, close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`: no more descriptors.
    pub fn try_clone(&self) -> Result<EventFd> {
        let fd = self.fd.try_clone().map_err(|error| Error::from_io("fcntl", &error, &OBJECT))?;
        Ok(EventFd { fd })
    }

    /// The counter now; `None` where `/proc` is not mounted.
    pub fn count(&self) -> Option<u64> {
        u64::from_str_radix(&self.field("eventfd-count")?, 16).ok()
    }

    /// Adds to the counter; waits while it would exceed [`EventFd::MAX`].
    ///
    /// # Errors
    /// `EINVAL`: `value` is `u64::MAX`, which never fits. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Only with a counter near its end. `eventfd(2)`.
    pub fn add(&self, value: u64) -> Result<()> {
        self.add_deadline(value, Deadline::NEVER)
    }

    /// Adds to the counter if there is room.
    ///
    /// # Errors
    /// `EAGAIN`: it would exceed [`EventFd::MAX`]. `EINVAL` as [`EventFd::add`].
    pub fn try_add(&self, value: u64) -> Result<()> {
        self.add_deadline(value, Deadline::NOW)
    }

    /// Adds to the counter; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: there was none. `EINVAL`, `EINTR` as [`EventFd::add`].
    ///
    /// # Blocking
    /// By [`deadline_signal`](crate::deadline_signal): `poll` tells of room for one only.
    pub fn add_deadline(&self, value: u64, deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        if value == u64::MAX {
            return Err(Error::invalid(
                "write",
                &OBJECT,
                "u64::MAX never fits; the counter holds u64::MAX - 1",
            ));
        }
        // POLLOUT says that *one* fits, so polling cannot wait for more: the write itself waits, the alarm ends it.
        loop {
            match interrupt::until(deadline, "write", &OBJECT, |attempt| self.write(value, attempt)) {
                // An O_NONBLOCK description does not wait; somebody must.
                Err(error) if error.raw() == Errno::AGAIN && !deadline.is_now() => self.pause(deadline)?,
                other => return other,
            }
        }
    }

    /// Waits until the counter is not 0, and takes all of it (one in semaphore mode): what it took.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran; nothing was taken.
    pub fn wait(&self) -> Result<u64> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Takes the counter, if it is not 0.
    ///
    /// # Errors
    /// `EAGAIN`: it is 0.
    pub fn try_wait(&self) -> Result<u64> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Takes the counter; waits until the deadline while it is 0.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it stayed 0. `EINTR`: a signal handler ran; nothing was taken.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<u64> {
        wait::until_ready(self, PollFlags::IN, deadline.into(), "read", &OBJECT, |attempt| {
            let mut value = [0; 8];
            nonblocking::read(self.fd.as_fd(), &mut value, attempt)?;
            Ok(u64::from_ne_bytes(value))
        })
    }

    fn write(&self, value: u64, attempt: Attempt) -> Result<(), Errno> {
        let bytes = value.to_ne_bytes();
        if attempt == Attempt::Blocking {
            return rustix::io::write(&self.fd, &bytes).map(drop);
        }
        if !self.has_room(value)? {
            return Err(Errno::AGAIN);
        }
        if self.is_nonblocking()? {
            return rustix::io::write(&self.fd, &bytes).map(drop);
        }
        // There was room. For the case that somebody else takes it this instant, not without an end.
        match interrupt::bounded(RACE_MAX, || rustix::io::write(&self.fd, &bytes)) {
            Err(Errno::TIMEDOUT) => Err(Errno::AGAIN),
            other => other.map(drop),
        }
    }

    fn has_room(&self, value: u64) -> Result<bool, Errno> {
        if value > 1 && self.count().is_some_and(|count| count > EventFd::MAX - value) {
            return Ok(false);
        }
        Ok(value == 0 || nonblocking::is_ready(self.fd.as_fd(), PollFlags::OUT)?)
    }

    fn is_nonblocking(&self) -> Result<bool, Errno> {
        Ok(rustix::fs::fcntl_getfl(&self.fd)?.contains(OFlags::NONBLOCK))
    }

    /// Waits for room to come, or a little while where `poll` cannot tell.
    fn pause(&self, deadline: Deadline) -> Result<()> {
        if deadline.has_passed() {
            return Err(Error::new("write", Errno::TIMEDOUT, &OBJECT));
        }
        if nonblocking::is_ready(self.fd.as_fd(), PollFlags::OUT)
            .map_err(|errno| Error::new("poll", errno, &OBJECT))?
        {
            std::thread::sleep(RACE_MAX);
            return Ok(());
        }
        wait::ready(self.fd.as_fd(), PollFlags::OUT, deadline, "write", &OBJECT)
    }

    /// A line of `/proc/self/fdinfo`.
    fn field(&self, name: &str) -> Option<String> {
        super::fdinfo(self.fd.as_fd(), name)
    }
}

impl AsFd for EventFd {
    /// Readable while the counter is not 0, writable while 1 can be added.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> OwnedFd {
        event.fd
    }
}
