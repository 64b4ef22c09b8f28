//! A deadline for calls that the kernel gives none: `msgsnd(2)`, `msgrcv(2)`, `fcntl(2)` `F_SETLKW`, `flock(2)`.
//!
//! # What a user sees
//! The `*_deadline` forms of System V queues and of file locks wait inside the kernel, use no CPU and no extra
//! thread, and give `ETIMEDOUT` when the time is over. For as long as such a call waits, one real-time signal can
//! reach the calling thread: the highest one that has no handler when the first such call is made (`SIGRTMAX` as a
//! rule; [`deadline_signal`] tells). Its handler does nothing. A program that wants that signal for itself must
//! install its handler before its first call with a deadline; the next lower one is taken then.
//!
//! # How it works
//! Each thread has one timer (`timer_create(2)`, `SIGEV_THREAD_ID`, made at the first use, gone with the thread)
//! that interrupts this thread's system call with `EINTR`. A signal that arrives just before the thread enters the
//! call would be lost, so the timer fires again each millisecond until it is disarmed, which it is as soon as the
//! call returns: one wasted signal at the most, and none before the deadline. `EINTR` with time left came from
//! somebody else's signal and is the caller's to see.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{Attempt, check};

const REFIRE: Duration = Duration::from_millis(1);

/// Runs `attempt`, which must be one system call that `EINTR` can end, until `deadline`.
///
/// When there is a deadline `attempt` gets [`Attempt::NonBlocking`] first: most calls need not wait, and then no timer
/// is armed.
pub(crate) fn until<T>(
    deadline: Deadline,
    operation: &'static str,
    object: &Label,
    mut attempt: impl FnMut(Attempt) -> Result<T, Errno>,
) -> Result<T> {
    let fail = |errno| Error::new(operation, errno, object);
    if deadline.is_never() {
        return attempt(Attempt::Blocking).map_err(fail);
    }
    match attempt(Attempt::NonBlocking) {
        Err(Errno::AGAIN | Errno::NOMSG) if !deadline.is_now() => {}
        other => return other.map_err(fail),
    }
    let Some(left) = deadline.remaining().filter(|left| !left.is_zero()) else {
        return Err(fail(Errno::TIMEDOUT));
    };
    let outcome = with_alarm(left, || attempt(Attempt::Blocking));
    match outcome {
        Err(Errno::INTR) if deadline.has_passed() => Err(fail(Errno::TIMEDOUT)),
        other => other.map_err(fail),
    }
}

/// Runs `call`, one system call that `EINTR` can end, for `limit` at the most: `ETIMEDOUT` then.
///
/// Without a signal to be had (`EBUSY` of [`deadline_signal`]) there is no limit.
pub(crate) fn bounded<T>(limit: Duration, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if claim_signal().is_err() {
        return call();
    }
    let deadline = Deadline::from(limit);
    match with_alarm(limit, call) {
        Err(Errno::INTR) if deadline.has_passed() => Err(Errno::TIMEDOUT),
        other => other,
    }
}

/// The signal that ends a System V or lock call at its deadline, in the thread that made the call.
///
/// Chosen once a process: the highest real-time signal that has no handler at that time.
///
/// ```
/// let signal = ginnel::deadline_signal().unwrap();
/// assert!(signal > 32, "a real-time signal");
/// ```
///
/// # Errors
/// `EBUSY`: every real-time signal has a handler of the program's own.
pub fn deadline_signal() -> Result<i32> {
    claim_signal().map_err(|errno| {
        Error::new("sigaction", errno, &"deadline signal".into())
            .with_hint("every real-time signal has a handler; leave one free for calls with a deadline")
    })
}

fn claim_signal() -> Result<i32, Errno> {
    static SIGNAL: OnceLock<Option<i32>> = OnceLock::new();
    SIGNAL
        .get_or_init(|| (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|signal| install_handler(*signal)))
        .ok_or(Errno::BUSY)
}

/// Installs the handler that does nothing, unless the signal has one: whether it did.
fn install_handler(signal: i32) -> bool {
    extern "C" fn nothing(_: i32) {}
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `old` is valid for the kernel's answer, which is read only when the call succeeded.
    let taken = unsafe {
        libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) != 0
            || old.assume_init().sa_sigaction != libc::SIG_DFL
    };
    if taken {
        return false;
    }
    // SAFETY: all zeros is a valid sigaction: no flags (above all no SA_RESTART), an empty mask.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the handler is async-signal-safe: it does nothing.
    unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) == 0 }
}

/// Runs `call` with this thread's alarm set to go off after `left` and each [`REFIRE`] from then on.
fn with_alarm<T>(left: Duration, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let signal = claim_signal()?;
    TIMER.with_borrow_mut(|slot| {
        // A timer belongs to the process that made it: after a fork the child makes its own.
        let pid = std::process::id();
        if slot.as_ref().is_none_or(|timer| timer.owner != pid) {
            std::mem::forget(slot.take());
            *slot = Some(Timer::new(signal, pid)?);
        }
        let timer = slot.as_ref().ok_or(Errno::AGAIN)?;
        let _unblocked = Unblocked::new(signal)?;
        timer.set(left, REFIRE)?;
        let outcome = call();
        timer.set(Duration::ZERO, Duration::ZERO)?;
        outcome
    })
}

thread_local! {
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// A `timer_create(2)` timer that signals the thread that made it.
struct Timer {
    id: libc::timer_t,
    owner: u32,
}

impl Timer {
    fn new(signal: i32, owner: u32) -> Result<Timer, Errno> {
        // SAFETY: all zeros is a valid sigevent; the fields that count are set below.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut id = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) })?;
        Ok(Timer { id, owner })
    }

    fn set(&self, first: Duration, then: Duration) -> Result<(), Errno> {
        let timespec = |duration: Duration| libc::timespec {
            tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        };
        let spec = libc::itimerspec { it_interval: timespec(then), it_value: timespec(first) };
        // SAFETY: the timer is this process's own and not deleted before `self` is dropped.
        check(unsafe { libc::timer_settime(self.id, 0, &raw const spec, ptr::null_mut()) })?;
        Ok(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // SAFETY: made by timer_create in this process, and deleted once.
            unsafe { libc::timer_delete(self.id) };
        }
    }
}

/// Keeps a signal unblocked in this thread, and puts the thread's mask back afterwards.
struct Unblocked {
    signal: i32,
    before: libc::sigset_t,
}

impl Unblocked {
    fn new(signal: i32) -> Result<Unblocked, Errno> {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises `set`; pthread_sigmask fills `before` when it succeeds.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            match libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Unblocked { signal, before: before.assume_init() }),
                errno => Err(Errno::from_raw_os_error(errno)),
            }
        }
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        // SAFETY: `before` came from pthread_sigmask; the sets are valid for the calls.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
            if libc::sigismember(&raw const self.before, self.signal) == 1 {
                // The program keeps it blocked: what came late must not stay pending for it to see.
                let mut set = MaybeUninit::uninit();
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), self.signal);
                let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const no_wait);
            }
        }
    }
}
