//! Catching signals without undefined behaviour: `sigaction(2)` by the crate `signal-hook-registry`.
//!
//! # What a user sees
//! No code of the user's runs inside a signal handler. A [`Handler`] writes down each signal with its [`Info`], for any
//! thread to read: by waiting, by `poll`, in an async task. A [`Flag`] is raised, for a loop to look at. Several may catch
//! the same signal, here or by other users of `signal-hook-registry` (tokio, `signal-hook`): each gets it.
//!
//! When the last of them is dropped the signal is still caught, by nobody: it does nothing. Say
//! [`Signal::restore_default`] to have it end the process again.
//!
//! # How it works inside
//! The handler writes the `siginfo_t`, 128 bytes, into a pipe of which the writing end does not block. What does not fit
//! (512 signals unread; fewer for a user at `fs.pipe-user-pages-soft`) is counted and lost: [`Handler::lost`]. A
//! [`SignalFd`](super::SignalFd) has no such limit.
//! In a child made by `fork` the handler writes nothing: the pipe is its parent's, whose signals the child would take away
//! if it read. It makes a [`Handler`] of its own.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use signal_hook_registry::SigId;

use super::disposition::{Disposition, action, set_action};
use super::nonblocking;
use super::siginfo::{Info, RawInfo};
use super::signal::Signal;
use super::signal_set::SignalSet;
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt};

/// Catches signals and keeps them, each with its [`Info`], until they are read.
///
/// ```
/// use ginnel::notify::{Handler, Signal};
///
/// let caught = Handler::new(Signal::HUP | Signal::USR1)?;
/// assert!(caught.try_wait().unwrap_err().is_would_block());
///
/// Signal::USR1.raise()?;
/// assert_eq!(caught.wait()?.signal, Signal::USR1);
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// # Blocking
/// A call that a caught signal falls into is restarted by the kernel, where the kernel restarts calls
/// (`SA_RESTART`); [`Signal::set_interrupts`] changes that.
#[derive(Debug)]
pub struct Handler {
    records: OwnedFd,
    lost: Arc<AtomicU64>,
    signals: SignalSet,
    object: Label,
    _registration: Registration,
}

impl Handler {
    /// Catches these signals from now on.
    ///
    /// # Errors
    /// `EINVAL`: `SIGKILL`, `SIGSTOP` cannot be caught; `SIGSEGV`, `SIGBUS`, `SIGILL` and `SIGFPE` cannot be survived by a
    /// handler that returns: the instruction would fault again, for ever. `EMFILE`, `ENFILE`: no more descriptors.
    pub fn new(signals: impl Into<SignalSet>) -> Result<Handler> {
        let signals = signals.into();
        let object = signals.label();
        let failed = |operation, errno| Error::new(operation, errno, &object);
        let (records, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("pipe2", errno))?;
        // The writing end has an open file description of its own, which nobody else has.
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(|errno| failed("fcntl", errno))?;
        let lost = Arc::new(AtomicU64::new(0));
        let record = recorder(writer, lost.clone());
        // SAFETY: `record` is async-signal-safe.
        let registration = unsafe { Registration::new(signals, record) }?;
        Ok(Handler { records, lost, signals, object, _registration: registration })
    }

    /// The signals that it catches.
    pub fn signals(&self) -> SignalSet {
        self.signals
    }

    /// How many signals came while 512 were unread, and were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes the oldest signal that was caught; waits until there is one.
    ///
    /// # Errors
    /// `EINTR`: the handler of another signal ran.
    pub fn wait(&self) -> Result<Info> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Takes the oldest signal that was caught, if there is one.
    ///
    /// # Errors
    /// `EAGAIN`: there is none.
    pub fn try_wait(&self) -> Result<Info> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Takes the oldest signal that was caught; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none came. `EINTR`: the handler of another signal ran.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<Info> {
        let deadline = deadline.into();
        let mut raw = RawInfo::ZERO;
        let mut read = |attempt| {
            let bytes = bytemuck::bytes_of_mut(&mut raw);
            match nonblocking::read(self.records.as_fd(), bytes, attempt)? {
                len if len == size_of::<RawInfo>() => Ok(()),
                // A record is written in one piece, smaller than PIPE_BUF; and one writer is in this process.
                _ => Err(Errno::PIPE),
            }
        };
        match wait::until_ready(self, PollFlags::IN, deadline, "read", &self.object, &mut read) {
            // It may be this handler that interrupted.
            Err(error) if error.is_interrupted() => {
                read(Attempt::NonBlocking).map_err(|_| error)?;
            }
            other => other?,
        }
        Info::from_raw(&raw).ok_or_else(|| Error::new("read", Errno::PROTO, &self.object))
    }
}

impl AsFd for Handler {
    /// Readable while a signal is to be taken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

/// What runs in the signal handler: async-signal-safe (`getpid`, `write`, an atomic), it does not panic or allocate.
fn recorder(writer: OwnedFd, lost: Arc<AtomicU64>) -> impl Fn(&libc::siginfo_t) + Send + Sync + Clone {
    let writer = Arc::new(writer);
    let owner = std::process::id() as i32;
    move |info| {
        let raw = RawInfo::copied(info);
        // SAFETY: getpid takes nothing; write reads a whole RawInfo and the descriptor is open while `writer` lives.
        // The registry keeps errno over this.
        let written = unsafe {
            if libc::getpid() != owner {
                return;
            }
            libc::write(writer.as_raw_fd(), raw.as_ptr().cast(), size_of::<RawInfo>())
        };
        if written < 0 {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A flag that a signal raises.
///
/// ```
/// use ginnel::notify::{Flag, Signal};
///
/// let hang_up = Flag::new(Signal::HUP)?;
/// assert!(!hang_up.is_raised());
/// Signal::HUP.raise()?;
/// assert!(hang_up.take());
/// assert!(!hang_up.is_raised());
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// # Blocking
/// The signal ends a blocking call of its thread with `EINTR`, so that the loop around it gets to look at the flag. That
/// holds for all who catch the signal, and stays when the flag is dropped ([`Signal::set_interrupts`] undoes it).
/// A signal that comes just before the call is not seen until the call ends: to wait for other things *and* signals,
/// poll a [`Handler`] or a [`SignalFd`](super::SignalFd).
#[derive(Debug)]
pub struct Flag {
    raised: Arc<AtomicBool>,
    _registration: Registration,
}

impl Flag {
    /// Raises the flag for any of these signals from now on.
    ///
    /// # Errors
    /// As [`Handler::new`].
    pub fn new(signals: impl Into<SignalSet>) -> Result<Flag> {
        let raised = Arc::new(AtomicBool::new(false));
        let flag = raised.clone();
        let signals = signals.into();
        // SAFETY: a store to an atomic is async-signal-safe.
        let registration =
            unsafe { Registration::new(signals, move |_: &_| flag.store(true, Ordering::SeqCst)) }?;
        signals.iter().try_for_each(|signal| signal.set_interrupts(true))?;
        Ok(Flag { raised, _registration: registration })
    }

    /// Whether one of the signals came.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Whether one of the signals came since the flag was taken last; lowers it.
    pub fn take(&self) -> bool {
        self.raised.swap(false, Ordering::SeqCst)
    }
}

/// An action that runs for each of some signals, until this is dropped.
#[derive(Debug)]
struct Registration(Vec<SigId>);

/// What signal-hook-registry has installed, by signal. It installs once: a signal that was set to be ignored afterwards
/// would stay so.
static INSTALLED: Mutex<Option<HashMap<Signal, libc::sigaction>>> = Mutex::new(None);

impl Registration {
    /// # Safety
    /// `action` must be async-signal-safe.
    unsafe fn new(
        signals: SignalSet,
        action: impl Fn(&libc::siginfo_t) + Send + Sync + Clone + 'static,
    ) -> Result<Registration> {
        // The registry lets SIGBUS pass.
        let forbidden = |signal: &Signal| {
            *signal == Signal::BUS || signal_hook_registry::FORBIDDEN.contains(&signal.number())
        };
        if let Some(signal) = signals.iter().find(forbidden) {
            let why = format!("{signal} cannot be caught, or not survived by a handler");
            return Err(Error::invalid("sigaction", &signal.label(), why));
        }
        let mut registration = Registration(Vec::new());
        for signal in signals.iter() {
            // SAFETY: async-signal-safe by this function's contract; none of the forbidden signals.
            let id = unsafe { signal_hook_registry::register_sigaction(signal.number(), action.clone()) }
                .map_err(|error| Error::from_io("sigaction", &error, &signal.label()))?;
            registration.0.push(id);
            ensure_installed(signal)?;
        }
        Ok(registration)
    }
}

fn ensure_installed(signal: Signal) -> Result<()> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let installed = installed.get_or_insert_default();
    if Disposition::current(signal)? == Disposition::Caught {
        installed.entry(signal).or_insert(action(signal)?);
        return Ok(());
    }
    match installed.get(&signal) {
        // SAFETY: the registry's own handler, which stays valid for the process's life.
        Some(action) => unsafe { set_action(signal, action) },
        None => Err(Error::new("sigaction", Errno::BUSY, &signal.label()).with_hint(
            "another user of signal-hook-registry had caught it before it was set to be ignored or default",
        )),
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            signal_hook_registry::unregister(id);
        }
    }
}
