//! Sets of signals, the calling thread's mask, and waiting: `sigprocmask(2)`, `sigpending(2)`, `sigwaitinfo(2)`,
//! `sigsuspend(2)`.
//!
//! # What a user sees
//! A blocked signal stays pending until it is waited for ([`SignalSet::wait`], [`SignalFd`](super::SignalFd)) or
//! unblocked. That is how a program takes signals without handlers: block them first, then wait.
//!
//! The mask is the *thread's*. A signal sent to the process goes to any thread that does not block it, so block in the
//! first thread, before others are started: they inherit the mask. A child inherits it too, and keeps it over `exec`;
//! [`process::reset_signals`](crate::process::reset_signals) gives a command an empty one.
//!
//! [`SignalSet::wait`] unblocks the signals for as long as it sleeps, so a signal that comes only then is taken as
//! well; one that comes earlier, unblocked, does whatever its disposition says. Of several pending signals the lowest
//! number is taken first.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{BitOr, BitOrAssign, Not, Sub};
use std::ptr;
use std::str::FromStr;

use rustix::io::Errno;

use super::siginfo::{Info, RawInfo};
use super::signal::Signal;
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::check;

/// A set of signals: `sigset_t`.
///
/// ```
/// use ginnel::notify::{Signal, SignalSet};
///
/// let signals = Signal::INT | Signal::TERM;
/// assert!(signals.contains(Signal::INT));
/// assert_eq!(signals.to_string(), "INT,TERM");
/// assert_eq!("int,TERM".parse::<SignalSet>()?, signals);
/// assert!(!(!signals).contains(Signal::INT));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: SignalSet = SignalSet(0);

    /// Every signal. `SIGKILL` and `SIGSTOP` in a set are passed over by the kernel.
    pub fn full() -> SignalSet {
        Signal::all().collect()
    }

    /// This set with one more.
    pub fn with(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 | bit(signal))
    }

    /// This set without that one.
    pub fn without(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 & !bit(signal))
    }

    /// Whether the signal is in it.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & bit(signal) != 0
    }

    /// Whether it holds no signal.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many it holds.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Its signals, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |signal| self.contains(*signal))
    }

    /// The kernel's mask: bit 0 is signal 1. The numbers that the C library keeps for itself are left out.
    pub(super) fn from_bits(bits: u64) -> SignalSet {
        SignalSet(bits & SignalSet::full().0)
    }

    pub(crate) fn to_libc(self) -> libc::sigset_t {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, sigaddset changes it; the numbers are signals.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in self.iter() {
                libc::sigaddset(set.as_mut_ptr(), signal.number());
            }
            set.assume_init()
        }
    }

    fn from_libc(set: &libc::sigset_t) -> SignalSet {
        // SAFETY: the set is initialised, the numbers are signals.
        Signal::all().filter(|signal| unsafe { libc::sigismember(set, signal.number()) } == 1).collect()
    }

    /// Blocks these signals in the calling thread, besides those that it blocks already, until the guard is dropped.
    ///
    /// # Errors
    /// None that the man page knows for valid arguments.
    pub fn block(self) -> Result<MaskGuard> {
        self.change_mask(libc::SIG_BLOCK)
    }

    /// Unblocks these signals in the calling thread until the guard is dropped. Those that are pending are delivered
    /// before this returns.
    ///
    /// # Errors
    /// None that the man page knows for valid arguments.
    pub fn unblock(self) -> Result<MaskGuard> {
        self.change_mask(libc::SIG_UNBLOCK)
    }

    /// Blocks these signals in the calling thread and no others, until the guard is dropped (`SIG_SETMASK`).
    ///
    /// # Errors
    /// None that the man page knows for valid arguments.
    pub fn set_mask(self) -> Result<MaskGuard> {
        self.change_mask(libc::SIG_SETMASK)
    }

    fn change_mask(self, how: i32) -> Result<MaskGuard> {
        let before =
            mask(how, Some(&self.to_libc())).map_err(|errno| self.error("pthread_sigmask", errno))?;
        Ok(MaskGuard { before, _of_this_thread: PhantomData })
    }

    /// The signals that the calling thread blocks.
    pub fn blocked() -> SignalSet {
        mask(libc::SIG_BLOCK, None).map_or(SignalSet::EMPTY, |set| SignalSet::from_libc(&set))
    }

    /// The signals that were sent to the calling thread or its process and wait, blocked: `sigpending(2)`.
    pub fn pending() -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the pointer is valid; the call fails only for a bad one.
        match check(unsafe { libc::sigpending(set.as_mut_ptr()) }) {
            // SAFETY: sigpending filled it.
            Ok(_) => SignalSet::from_libc(unsafe { set.assume_init_ref() }),
            Err(_) => SignalSet::EMPTY,
        }
    }

    /// Takes one of these signals, sent to the thread or the process; waits until there is one.
    ///
    /// # Errors
    /// `EINTR`: the handler of a signal that is not in the set ran (or the process was stopped and went on).
    ///
    /// # Blocking
    /// The signals should be blocked in every thread of the process: see the head of this module. `sigwaitinfo(2)`.
    pub fn wait(self) -> Result<Info> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Takes one of these signals if one is pending.
    ///
    /// # Errors
    /// `EAGAIN`: none is pending.
    pub fn try_wait(self) -> Result<Info> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Takes one of these signals; waits until the deadline for one. `sigtimedwait(2)`.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none came. `EINTR` as [`SignalSet::wait`].
    pub fn wait_deadline(self, deadline: impl Into<Deadline>) -> Result<Info> {
        let deadline = deadline.into();
        let left = timespec(deadline);
        let limit = left.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut info = RawInfo::ZERO;
        // The system call and not glibc's wrapper, which passes tgkill off as kill.
        // SAFETY: the mask, the siginfo_t and the timespec (or null) are valid for the call; 8 is the mask's size.
        let outcome = check(unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const self.0, info.as_mut_ptr(), limit, 8)
        });
        match outcome {
            Ok(_) => Info::from_raw(&info).ok_or_else(|| self.error("sigwaitinfo", Errno::PROTO)),
            Err(Errno::AGAIN) => Err(self.error("sigtimedwait", deadline.errno())),
            Err(errno) => Err(self.error("sigwaitinfo", errno)),
        }
    }

    /// Makes this set the thread's mask, waits until a signal handler has run, and puts the mask back: all at once, so
    /// that a signal cannot slip in between. `sigsuspend(2)`.
    ///
    /// # Errors
    /// None: to be interrupted is what it waits for.
    pub fn suspend(self) -> Result<()> {
        self.suspend_deadline(Deadline::NEVER)
    }

    /// As [`SignalSet::suspend`], but only if a signal is pending that the mask lets through.
    ///
    /// # Errors
    /// `EAGAIN`: no handler ran.
    pub fn try_suspend(self) -> Result<()> {
        self.suspend_deadline(Deadline::NOW)
    }

    /// As [`SignalSet::suspend`]; waits until the deadline. `ppoll(2)` without descriptors.
    ///
    /// # Errors
    /// `ETIMEDOUT`: no handler ran.
    pub fn suspend_deadline(self, deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let left = timespec(deadline);
        let limit = left.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mask = self.to_libc();
        // SAFETY: no descriptors, so no array; the timespec (or null) and the mask are valid for the call.
        let outcome = check(unsafe { libc::ppoll(ptr::null_mut(), 0, limit, &raw const mask) });
        match outcome {
            Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(self.error("ppoll", errno)),
            Ok(_) => Err(self.error("sigsuspend", deadline.errno())),
        }
    }

    pub(super) fn label(self) -> Label {
        if self.is_empty() { "no signal".into() } else { Label::new(format!("signals {self}")) }
    }

    pub(super) fn error(self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, errno, &self.label())
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.number() - 1)
}

fn timespec(deadline: Deadline) -> Option<libc::timespec> {
    deadline
        .remaining_timespec()
        .map(|left| libc::timespec { tv_sec: left.tv_sec as _, tv_nsec: left.tv_nsec as _ })
}

/// Changes the calling thread's mask, or only asks for it: the one before.
fn mask(how: i32, set: Option<&libc::sigset_t>) -> Result<libc::sigset_t, Errno> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: `set` is valid or null, `before` is the call's to fill, and filled when it succeeds.
    unsafe {
        match libc::pthread_sigmask(how, set.map_or(ptr::null(), ptr::from_ref), before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }
}

/// Puts the calling thread's mask back as it was when it is dropped. It stays in its thread.
///
/// ```
/// use ginnel::notify::{Signal, SignalSet};
///
/// let before = SignalSet::blocked();
/// {
///     let _guard = SignalSet::from(Signal::USR1).block()?;
///     assert!(SignalSet::blocked().contains(Signal::USR1));
/// }
/// assert_eq!(SignalSet::blocked(), before);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[must_use = "the mask is put back when this is dropped"]
pub struct MaskGuard {
    before: libc::sigset_t,
    /// A mask belongs to a thread: neither `Send` nor `Sync`.
    _of_this_thread: PhantomData<*const ()>,
}

impl MaskGuard {
    /// The mask that will be put back.
    pub fn before(&self) -> SignalSet {
        SignalSet::from_libc(&self.before)
    }

    /// Leaves the mask as it is now.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        let _ = mask(libc::SIG_SETMASK, Some(&self.before));
    }
}

impl fmt::Debug for MaskGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskGuard").field("before", &self.before()).finish()
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> SignalSet {
        SignalSet(bit(signal))
    }
}

impl<const N: usize> From<[Signal; N]> for SignalSet {
    fn from(signals: [Signal; N]) -> SignalSet {
        signals.into_iter().collect()
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        signals.into_iter().fold(SignalSet::EMPTY, SignalSet::with)
    }
}

impl Extend<Signal> for SignalSet {
    fn extend<I: IntoIterator<Item = Signal>>(&mut self, signals: I) {
        *self |= signals.into_iter().collect::<SignalSet>();
    }
}

impl<R: Into<SignalSet>> BitOr<R> for SignalSet {
    type Output = SignalSet;

    fn bitor(self, other: R) -> SignalSet {
        SignalSet(self.0 | other.into().0)
    }
}

impl<R: Into<SignalSet>> BitOr<R> for Signal {
    type Output = SignalSet;

    fn bitor(self, other: R) -> SignalSet {
        SignalSet::from(self) | other
    }
}

impl<R: Into<SignalSet>> BitOrAssign<R> for SignalSet {
    fn bitor_assign(&mut self, other: R) {
        self.0 |= other.into().0;
    }
}

impl<R: Into<SignalSet>> Sub<R> for SignalSet {
    type Output = SignalSet;

    /// The signals that are not in the other set.
    fn sub(self, other: R) -> SignalSet {
        SignalSet(self.0 & !other.into().0)
    }
}

impl Not for SignalSet {
    type Output = SignalSet;

    fn not(self) -> SignalSet {
        SignalSet::from_bits(!self.0)
    }
}

impl fmt::Display for SignalSet {
    /// `INT,TERM,RTMIN+3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|signal| signal.to_string()[3..].to_owned()).collect();
        f.pad(&names.join(","))
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for SignalSet {
    type Err = Error;

    /// Signals with commas between them; nothing for the empty set.
    fn from_str(text: &str) -> Result<SignalSet> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse::<Signal>).collect()
    }
}
