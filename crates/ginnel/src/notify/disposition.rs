//! What a process does about its signals: `sigaction(2)`, `siginterrupt(3)`, and `/proc/PID/status` of `proc(5)`.
//!
//! # What a user sees
//! A disposition belongs to the whole process. A child inherits it; after `exec`, what was ignored stays ignored and
//! what was caught is the default again. Handlers are made by [`Handler`](super::Handler) and [`Flag`](super::Flag);
//! here a signal is set to be ignored or to do its default, and here is what any process has made of its signals.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use super::signal::Signal;
use super::signal_set::SignalSet;
use crate::error::{Error, Label, Result};
use crate::wait::check;

/// What happens when a signal is delivered to a process.
///
/// ```
/// use ginnel::notify::{Disposition, Signal};
///
/// Signal::USR2.ignore()?;
/// assert_eq!(Disposition::current(Signal::USR2)?, Disposition::Ignored);
/// Signal::USR2.raise()?; // Nothing happens.
///
/// assert_eq!(Signal::USR2.restore_default()?, Disposition::Ignored);
/// let me = std::process::id() as i32;
/// assert_eq!(Disposition::of(me, Signal::USR2)?, Disposition::Default);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Its [default action](Signal::default_action) (`SIG_DFL`).
    Default,
    /// Nothing: it is thrown away (`SIG_IGN`).
    Ignored,
    /// A handler runs.
    Caught,
}

impl Disposition {
    /// What the calling process does about a signal.
    ///
    /// # Errors
    /// None that the man page knows for a valid signal.
    pub fn current(signal: Signal) -> Result<Disposition> {
        Ok(disposition(&action(signal)?))
    }

    /// What a process does about a signal.
    ///
    /// # Errors
    /// As [`Status::of`].
    pub fn of(pid: i32, signal: Signal) -> Result<Disposition> {
        Ok(Status::of(pid)?.disposition(signal))
    }
}

impl Signal {
    /// Has the process ignore this signal: what the disposition was before.
    ///
    /// Takes effect over a [`Handler`](super::Handler), which gets none until another one is made. To ignore `SIGCHLD`
    /// means that children leave no status behind: waiting for them gives `ECHILD`.
    ///
    /// # Errors
    /// `EINVAL`: `SIGKILL` and `SIGSTOP` cannot be ignored.
    pub fn ignore(self) -> Result<Disposition> {
        self.set_disposition(libc::SIG_IGN)
    }

    /// Gives the signal its [default action](Signal::default_action) back: what the disposition was before.
    ///
    /// # Errors
    /// `EINVAL`: `SIGKILL` and `SIGSTOP` have no other.
    pub fn restore_default(self) -> Result<Disposition> {
        self.set_disposition(libc::SIG_DFL)
    }

    /// Whether the signal, when it is caught, ends a blocking call with `EINTR`, or the kernel restarts the call
    /// (`SA_RESTART`): `siginterrupt(3)`.
    ///
    /// [`Handler`](super::Handler) restarts, [`Flag`](super::Flag) interrupts. Calls with a deadline, `poll`, and those
    /// of System V IPC are never restarted (`signal(7)` lists them).
    ///
    /// # Errors
    /// `EINVAL`: the signal is not caught, so there is nothing to set.
    pub fn set_interrupts(self, interrupts: bool) -> Result<()> {
        let mut action = action(self)?;
        if disposition(&action) != Disposition::Caught {
            return Err(Error::invalid(
                "sigaction",
                &self.label(),
                "the signal is not caught; catch it first",
            ));
        }
        if interrupts {
            action.sa_flags &= !libc::SA_RESTART;
        } else {
            action.sa_flags |= libc::SA_RESTART;
        }
        // SAFETY: the same handler that is installed, with the same kind of flags but for SA_RESTART.
        unsafe { set_action(self, &action) }
    }

    fn set_disposition(self, handler: usize) -> Result<Disposition> {
        // SAFETY: all zeros is a valid sigaction: no flags, an empty mask, no restorer.
        let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        new.sa_sigaction = handler;
        let before = action(self)?;
        // SAFETY: SIG_IGN and SIG_DFL run no code of ours.
        unsafe { set_action(self, &new) }?;
        Ok(disposition(&before))
    }

    pub(super) fn label(self) -> Label {
        Label::new(format!("signal {self}"))
    }
}

fn disposition(action: &libc::sigaction) -> Disposition {
    match action.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignored,
        _ => Disposition::Caught,
    }
}

/// What is installed for the signal.
pub(super) fn action(signal: Signal) -> Result<libc::sigaction> {
    let mut old = MaybeUninit::uninit();
    // SAFETY: `old` is the call's to fill.
    check(unsafe { libc::sigaction(signal.number(), ptr::null(), old.as_mut_ptr()) })
        .map_err(|errno| failed(signal, errno))?;
    // SAFETY: the call succeeded and filled it.
    Ok(unsafe { old.assume_init() })
}

/// Installs an action.
///
/// # Safety
/// Its handler must be one that may run for this signal at any time: async-signal-safe, of the kind its flags say.
pub(super) unsafe fn set_action(signal: Signal, action: &libc::sigaction) -> Result<()> {
    // SAFETY: the pointer is valid; the handler is the caller's word.
    check(unsafe { libc::sigaction(signal.number(), action, ptr::null_mut()) })
        .map(drop)
        .map_err(|errno| failed(signal, errno))
}

fn failed(signal: Signal, errno: Errno) -> Error {
    let error = Error::new("sigaction", errno, &signal.label());
    match errno {
        Errno::INVAL => error.with_hint(format!("{signal} always has its default action")),
        _ => error,
    }
}

/// What a process does about signals, and which are waiting for it: the `Sig` lines of `/proc/PID/status`.
///
/// ```
/// use ginnel::notify::{Signal, Status};
///
/// let status = Status::of(std::process::id() as i32)?;
/// assert!(status.ignored.contains(Signal::PIPE)); // Rust's runtime does that.
/// assert!(status.caught.contains(Signal::SEGV)); // And this, to tell of a stack overflow.
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The signals that it ignores (`SigIgn`).
    pub ignored: SignalSet,
    /// The signals that it catches (`SigCgt`).
    pub caught: SignalSet,
    /// The signals that its first thread blocks (`SigBlk`).
    pub blocked: SignalSet,
    /// The signals that wait for the process (`ShdPnd`).
    pub pending: SignalSet,
    /// The signals that wait for its first thread (`SigPnd`).
    pub thread_pending: SignalSet,
    /// How many signals are queued for all processes of its user (`SigQ`).
    pub queued: u64,
    /// How many may be: its `RLIMIT_SIGPENDING`.
    pub queued_max: u64,
    /// Its real user, who may signal it.
    pub uid: u32,
    /// Its saved user, who may signal it too.
    pub saved_uid: u32,
}

impl Status {
    /// Reads what a process does about signals. Anybody may, as far as `/proc` is not mounted with `hidepid`.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process.
    pub fn of(pid: i32) -> Result<Status> {
        let object = Label::new(format!("signal:{pid}"));
        let text =
            std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(
                |error| match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::SRCH) => Error::new("open", Errno::SRCH, &object)
                        .with_hint(format!("/proc shows no process {pid}")),
                    _ => Error::from_io("open", &error, &object),
                },
            )?;
        Status::parse(&text)
            .ok_or_else(|| Error::new("read", Errno::PROTO, &object).with_hint("unexpected /proc/PID/status"))
    }

    /// What the process does about a signal.
    pub fn disposition(&self, signal: Signal) -> Disposition {
        if self.ignored.contains(signal) {
            Disposition::Ignored
        } else if self.caught.contains(signal) {
            Disposition::Caught
        } else {
            Disposition::Default
        }
    }

    fn parse(text: &str) -> Option<Status> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let set = |name| Some(SignalSet::from_bits(u64::from_str_radix(field(name)?, 16).ok()?));
        let (queued, queued_max) = field("SigQ")?.split_once('/')?;
        let uids: Vec<u32> = field("Uid")?.split_whitespace().flat_map(str::parse).collect();
        Some(Status {
            ignored: set("SigIgn")?,
            caught: set("SigCgt")?,
            blocked: set("SigBlk")?,
            pending: set("ShdPnd")?,
            thread_pending: set("SigPnd")?,
            queued: queued.parse().ok()?,
            queued_max: queued_max.parse().ok()?,
            uid: *uids.first()?,
            saved_uid: *uids.get(2)?,
        })
    }
}
