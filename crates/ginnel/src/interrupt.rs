//! A deadline for calls that the kernel gives none: `msgsnd(2)`, `msgrcv(2)`, `fcntl(2)` `F_SETLKW`, `flock(2)`.
//!
//! # What a user sees
//! The `*_deadline` forms of System V queues and of file locks wait inside the kernel, use no CPU and no extra
//! thread, and give `ETIMEDOUT` when the time is over. For as long as such a call waits, one real-time signal can
//! reach the calling thread: the highest one that has no handler when the first such call is made (`SIGRTMAX` as a
//! rule; [`deadline_signal`] tells). Its handler does nothing. A program that wants that signal for itself installs
//! its handler, before or after: the next lower one is taken then. A program that takes it without a handler (blocked, by
//! `sigwait` or a signalfd) must choose another one: what is sent to a waiting thread is lost to our handler. Where there is no signal or no timer to be had,
//! the call tries again every few milliseconds instead of waiting in the kernel.
//!
//! # How it works
//! Each thread has one timer (`timer_create(2)`, `SIGEV_THREAD_ID`, made at the first use, gone with the thread)
//! that interrupts this thread's system call with `EINTR`. A signal that arrives just before the thread enters the
//! call would be lost, so the timer fires again each millisecond until it is disarmed, which it is as soon as the
//! call returns: one wasted signal at the most, and none before the deadline. `EINTR` with time left came from
//! somebody else's signal and is the caller's to see.
//!
//! The signal is unblocked in this thread while the timer is armed, so none can be pending once it is disarmed: what
//! the timer has sent is delivered at the latest on the way back from `timer_settime(2)`.
//!
//! # A call within a call
//! A program's own signal handler may run while a call waits, and make such a call itself. No lock and no borrow is
//! held meanwhile. The inner call disarms the outer one's timer, and arms it again when it is through.
//! Nothing of the timer survives `fork(2)`: the child, which has the parent's thread-local memory, makes its own.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{Attempt, check};

const REFIRE: Duration = Duration::from_millis(1);
/// The pauses between tries where no alarm is to be had.
const PAUSE_FIRST: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(5);

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
    let outcome = match Alarm::arm(deadline) {
        Ok(_armed) => attempt(Attempt::Blocking),
        Err(NoAlarm) => try_again_until(deadline, || attempt(Attempt::NonBlocking)),
    };
    match outcome {
        Err(Errno::INTR) if deadline.has_passed() => Err(fail(Errno::TIMEDOUT)),
        other => other.map_err(fail),
    }
}

/// Runs `call`, one system call that `EINTR` can end, for `limit` at the most: `ETIMEDOUT` then.
///
/// Where no alarm is to be had there is no limit.
pub(crate) fn bounded<T>(limit: Duration, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let deadline = Deadline::from(limit);
    let armed = Alarm::arm(deadline);
    let outcome = call();
    drop(armed);
    match outcome {
        Err(Errno::INTR) if deadline.has_passed() => Err(Errno::TIMEDOUT),
        other => other,
    }
}

/// The way to wait that needs neither a signal nor a timer.
pub(crate) fn try_again_until<T>(
    deadline: Deadline,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mut pause = PAUSE_FIRST;
    loop {
        let left = deadline.remaining().unwrap_or(Duration::MAX);
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        let sleep = timespec(pause.min(left));
        // SAFETY: the timespec is valid for the call. std's sleep would hide the EINTR.
        check(unsafe { libc::nanosleep(&raw const sleep, ptr::null_mut()) })?;
        match attempt() {
            Err(Errno::AGAIN | Errno::NOMSG) => pause = (pause * 2).min(PAUSE_MAX),
            other => return other,
        }
    }
}

/// The signal that ends a System V or lock call at its deadline, in the thread that made the call.
///
/// The highest real-time signal that had no handler when the first such call was made; another one from the moment
/// that the program installs a handler for it.
///
/// ```
/// let signal = ginnel::deadline_signal().unwrap();
/// assert!(signal > 32, "a real-time signal");
/// ```
///
/// # Errors
/// `EBUSY`: every real-time signal has a handler of the program's own. Calls with a deadline work all the same, by
/// trying again every few milliseconds.
pub fn deadline_signal() -> Result<i32> {
    claim_signal().map_err(|NoAlarm| {
        Error::new("sigaction", Errno::BUSY, &"deadline signal".into())
            .with_hint("every real-time signal has a handler; leave one free for calls with a deadline")
    })
}

/// There is no signal or no timer for an alarm.
struct NoAlarm;

/// Finds the signal that has our handler, and gives it to one that has none if there is none.
///
/// No lock: a signal handler may come here while the thread that it interrupts is here. Two that choose at the same
/// time choose the same signal.
fn claim_signal() -> Result<i32, NoAlarm> {
    static SIGNAL: AtomicI32 = AtomicI32::new(0);
    let known = SIGNAL.load(Ordering::Relaxed);
    // Since it was chosen, the program may have given it a handler of its own, or none: that would be its end.
    if known != 0 && handler(known) == Some(ours()) {
        return Ok(known);
    }
    let chosen = (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|signal| install_handler(*signal));
    SIGNAL.store(chosen.unwrap_or(0), Ordering::Relaxed);
    chosen.ok_or(NoAlarm)
}

extern "C" fn nothing(_: i32) {}

fn ours() -> libc::sighandler_t {
    nothing as extern "C" fn(i32) as libc::sighandler_t
}

fn handler(signal: i32) -> Option<libc::sighandler_t> {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `now` is valid for the kernel's answer, which is read only when the call succeeded.
    unsafe {
        (libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) == 0).then(|| now.assume_init().sa_sigaction)
    }
}

/// Installs the handler that does nothing, unless the signal has another one: whether it is installed.
fn install_handler(signal: i32) -> bool {
    match handler(signal) {
        Some(now) if now == ours() => return true,
        Some(libc::SIG_DFL) => {}
        _ => return false,
    }
    // SAFETY: all zeros is a valid sigaction: an empty mask and no flags, above all no SA_RESTART.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = ours();
    // A thread may be on a stack too small for a signal's frame, and have another one for signals.
    new.sa_flags = libc::SA_ONSTACK;
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the handler is async-signal-safe: it does nothing. `old` is valid for the kernel's answer.
    if unsafe { libc::sigaction(signal, &raw const new, old.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so `old` is filled.
    let old = unsafe { old.assume_init() };
    if old.sa_sigaction == libc::SIG_DFL || old.sa_sigaction == ours() {
        return true;
    }
    // Another thread was faster: its handler goes back where it was.
    // SAFETY: `old` is what the kernel gave.
    unsafe { libc::sigaction(signal, &raw const old, ptr::null_mut()) };
    false
}

thread_local! {
    /// The thread's timer, while no call here uses it.
    static TIMER: Cell<Option<Timer>> = const { Cell::new(None) };
    /// The timer that is armed in this thread, and what for.
    static ARMED: Cell<Option<Armed>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Armed {
    timer: libc::timer_t,
    owner: u32,
    deadline: Deadline,
}

/// This thread's timer, armed: from the deadline on, it interrupts the thread each [`REFIRE`], until this is dropped.
struct Alarm {
    timer: Option<Timer>,
    /// The call that this one interrupted, by a signal handler.
    outer: Option<Armed>,
    _unblocked: Unblocked,
}

impl Alarm {
    fn arm(deadline: Deadline) -> Result<Alarm, NoAlarm> {
        let signal = claim_signal()?;
        let unblocked = Unblocked::new(signal)?;
        // A thread that is ending has lost its thread-local memory: it has a timer for one call, and no outer call.
        let pid = std::process::id();
        let outer = ARMED.try_with(Cell::get).ok().flatten().filter(|outer| outer.owner == pid);
        if let Some(outer) = outer {
            set_timer(outer.timer, Duration::ZERO, Duration::ZERO)?;
        }
        let timer = match TIMER.try_with(Cell::take).ok().flatten() {
            Some(timer) if timer.owner == pid && timer.signal == signal => Some(timer),
            _ => None,
        };
        let mut alarm = Alarm { timer, outer, _unblocked: unblocked };
        let left = || deadline.remaining().unwrap_or(Duration::MAX).max(Duration::from_nanos(1));
        // The pid of a forked child in a PID namespace of its own may be its parent's: the kernel knows no such timer.
        let armed = alarm.timer.as_ref().is_some_and(|timer| set_timer(timer.id, left(), REFIRE).is_ok());
        if !armed {
            // Not deleted: its number, which was no timer's, may be the new one's.
            std::mem::forget(alarm.timer.take());
            let timer = alarm.timer.insert(Timer::new(signal, pid)?);
            set_timer(timer.id, left(), REFIRE)?;
        }
        let now = alarm.timer.as_ref().map(|timer| Armed { timer: timer.id, owner: pid, deadline });
        let _ = ARMED.try_with(|armed| armed.set(now));
        Ok(alarm)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return self.rearm_outer() };
        let _ = ARMED.try_with(Cell::take);
        let disarmed = set_timer(timer.id, Duration::ZERO, Duration::ZERO).is_ok();
        // One that cannot be disarmed is deleted, and so is a second one that a signal handler has left meanwhile.
        if disarmed {
            let _ = TIMER.try_with(|slot| slot.replace(Some(timer)));
        }
        self.rearm_outer();
    }
}

impl Alarm {
    fn rearm_outer(&mut self) {
        if let Some(outer) = self.outer.take() {
            let left = outer.deadline.remaining().unwrap_or(Duration::MAX).max(Duration::from_nanos(1));
            let _ = set_timer(outer.timer, left, REFIRE);
            let _ = ARMED.try_with(|armed| armed.set(Some(outer)));
        }
    }
}

/// A `timer_create(2)` timer that signals the thread that made it.
struct Timer {
    id: libc::timer_t,
    owner: u32,
    signal: i32,
}

impl Timer {
    fn new(signal: i32, owner: u32) -> Result<Timer, NoAlarm> {
        // SAFETY: all zeros is a valid sigevent; the fields that count are set below.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut id = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        match check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) }) {
            Ok(_) => Ok(Timer { id, owner, signal }),
            // RLIMIT_SIGPENDING.
            Err(_) => Err(NoAlarm),
        }
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

fn set_timer(timer: libc::timer_t, first: Duration, then: Duration) -> Result<(), NoAlarm> {
    let spec = libc::itimerspec { it_interval: timespec(then), it_value: timespec(first) };
    // SAFETY: glibc hands the id to the kernel, which refuses one that is not this process's; `spec` is valid.
    match check(unsafe { libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut()) }) {
        Ok(_) => Ok(()),
        Err(_) => Err(NoAlarm),
    }
}

pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Keeps a signal unblocked in this thread, and blocks it again afterwards if it was.
struct Unblocked {
    signal: i32,
    was_blocked: bool,
}

impl Unblocked {
    fn new(signal: i32) -> Result<Unblocked, NoAlarm> {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let set = set_of(signal);
        // SAFETY: `set` is a signal set; pthread_sigmask fills `before` when it succeeds.
        unsafe {
            if libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, before.as_mut_ptr()) != 0 {
                return Err(NoAlarm);
            }
            let was_blocked = libc::sigismember(before.as_ptr(), signal) == 1;
            Ok(Unblocked { signal, was_blocked })
        }
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        if self.was_blocked {
            let set = set_of(self.signal);
            // SAFETY: `set` is a signal set. Only this signal: a handler may have changed the rest of the mask.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        }
    }
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises `set`.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        set.assume_init()
    }
}
