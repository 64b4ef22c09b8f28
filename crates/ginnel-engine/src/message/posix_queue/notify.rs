//! Notices that a queue is no longer empty: `mq_notify(3)`.
//!
//! # What a user sees
//! One process is registered at a time, for one notice: when a message comes into the empty queue and no receiver is
//! blocked. The registration ends with the notice, when the process takes it back or closes any of its handles of the
//! queue, and with the process.
//!
//! Differences from the kernel's queue: a process that becomes another program (`exec`) with the registration in force
//! keeps it; a signal to a process of another user needs the right to send it one (`kill(2)`), without which it is not
//! sent; and processes see each other's ids, so they are in one pid namespace.
//!
//! # How it works inside
//! Who puts the message into the queue ends the registration in the same transaction, and puts what is to be sent into the
//! *notice* words, with its own thread id: it sends the signal when it has given the lock back, and then clears them. Who
//! finds a notice of a dead thread sends it in its place; who needs the words for the next notice sends the one that is
//! there, whoever was to. A signal is thus sent at least once; twice only if a process was killed, or stopped, between
//! sending it and saying so.
//!
//! A thread that is to run a function ([`Notification::Thread`]) is blocked in [`PosixQueue::wait_notice`]: an operation as
//! any other, which can be done once its registration has ended.
//!
//! # Crash points
//! | killed | what is left |
//! | --- | --- |
//! | before the message is committed | neither message nor notice |
//! | after that, before the signal | a notice of a dead thread: whoever comes next sends it |
//! | after the signal, before saying so | the same: it is sent again |
//! | the receiver to whom a message went directly, before it had it | the message is in the queue: as if it came then |
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use rustix::process::{Pid, PidfdFlags};

use super::store::{MORE_WORDS, NOTICE, NOTIFIED};
use super::{Call, NOTICE_AWAITED, PosixQueue};
use crate::lock::Guard;
use crate::primitive::{Ordering, Thread, thread_exists};
use crate::process::Process;
use crate::wait::{Patience, Words};
use crate::{Errno, Result};

// `NOTIFIED` holds the registered process's id.
const START: usize = MORE_WORDS + 0x10;
/// How, and the signal in the second byte.
const HOW: usize = MORE_WORDS + 0x18;
const VALUE: usize = MORE_WORDS + 0x20;
/// The number of the registration in force, or of the last one.
const NUMBER: usize = MORE_WORDS + 0x28;
/// A bit for each of the last registrations: whether a notice ended it.
const OUTCOMES: usize = MORE_WORDS + 0x30;

// What is to be sent: `NOTICE` holds the id of the thread that is to.
const TO: usize = MORE_WORDS + 0x40;
const TO_START: usize = MORE_WORDS + 0x48;
const SIGNAL: usize = MORE_WORDS + 0x50;
const SENT_VALUE: usize = MORE_WORDS + 0x58;
/// The sender's process, and its user in the upper half.
const FROM: usize = MORE_WORDS + 0x60;
/// Which notice it is.
const SERIAL: usize = MORE_WORDS + 0x68;

const BY_NOTHING: u64 = 0;
const BY_SIGNAL: u64 = 1;
const BY_THREAD: u64 = 2;

/// `si_code` of a notice.
const SI_MESGQ: i32 = -3;
/// The highest signal.
const SIGNAL_MAX: u32 = 64;

/// How a process is told: `sigev_notify` of `sigevent(3type)`.
///
/// ```
/// use ginnel_engine::message::posix_queue::Notification;
///
/// let by_signal = Notification::Signal { signal: 10, value: 42 };
/// assert_ne!(by_signal, Notification::Nothing);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Not at all: it only keeps others from registering (`SIGEV_NONE`).
    Nothing,
    /// By a signal with `SI_MESGQ` and this `si_value` (`SIGEV_SIGNAL`).
    Signal {
        /// 0 to 64; 0 is no signal.
        signal: u32,
        /// What `si_value` holds.
        value: u64,
    },
    /// By the return of [`PosixQueue::wait_notice`] (`SIGEV_THREAD`).
    Thread,
}

/// A registration: what [`PosixQueue::wait_notice`] waits for.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::posix_queue::{Notification, PosixQueue};
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let queue = PosixQueue::open(&home, b"/bells", libc::O_RDWR | libc::O_CREAT, 0o600, None)?;
/// let registration = queue.notify(Notification::Thread)?;
/// queue.send(0, b"here", Patience::None)?;
/// assert!(queue.wait_notice(registration, Patience::Endless)?, "and not taken back");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration(u64);

impl PosixQueue {
    /// Registers the calling process for a notice (`mq_notify(3)`).
    ///
    /// # Errors
    /// `EBUSY`: a process is registered, perhaps this one. `EINVAL`: not a signal. `EUCLEAN`.
    pub fn notify(&self, notification: Notification) -> Result<Registration> {
        let (how, value) = match notification {
            Notification::Nothing => (BY_NOTHING, 0),
            Notification::Signal { signal, .. } if signal > SIGNAL_MAX => return Err(Errno::INVAL),
            Notification::Signal { signal, value } => (BY_SIGNAL | u64::from(signal) << 8, value),
            Notification::Thread => (BY_THREAD, 0),
        };
        let own = Process::current();
        let mut gone = None;
        loop {
            let mut other = None;
            let outcome = self.change(Patience::Endless, |guard| {
                match self.registered(guard)? {
                    Some(process) if gone == Some(process) => self.end_registration(guard, false)?,
                    Some(process) => {
                        other = Some(process);
                        return Err(Errno::BUSY);
                    }
                    None => {}
                }
                let number = guard.get(NUMBER)?.wrapping_add(1);
                guard.set(NUMBER, number)?;
                guard.set(START, own.start)?;
                guard.set(HOW, how)?;
                guard.set(VALUE, value)?;
                guard.set(NOTIFIED, u64::from(own.id))?;
                Ok(Registration(number))
            });
            match other {
                // Asked without the lock.
                Some(process) if gone != other && process.is_gone() => gone = other,
                _ => return outcome,
            }
        }
    }

    /// Takes the calling process's registration back, if it has one.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn cancel_notify(&self) -> Result<()> {
        self.cancel_notify_with(Patience::Endless)
    }

    fn cancel_notify_with(&self, patience: Patience) -> Result<()> {
        let own = Process::current();
        self.change(patience, |guard| {
            if self.registered(guard)? == Some(own) { self.end_registration(guard, false) } else { Ok(()) }
        })
    }

    /// Waits until a registration has ended: whether by a notice. For the thread that runs what
    /// [`Notification::Thread`] asks for.
    ///
    /// # Errors
    /// `EAGAIN`, `ETIMEDOUT`, `EINTR`, `ENOMEM`. `EUCLEAN`.
    pub fn wait_notice(&self, registration: Registration, patience: Patience) -> Result<bool> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let request = [NOTICE_AWAITED, registration.0, 0, 0, 0, 0, 0];
        let outcome = waiters.run_own(request, patience, |guard, words| self.notice_has_come(guard, words));
        self.see_to_the_rest();
        Ok(outcome.map_err(super::full)?[2] == 1)
    }

    /// The process that is registered now.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn registered_process(&self) -> Result<Option<u32>> {
        let registered = self.look(|guard| self.registered(guard))?;
        Ok(registered.filter(|process| !process.is_gone()).map(|process| process.id))
    }

    pub(super) fn notice_has_come(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let (number, now) = (words[1], guard.get(NUMBER)?);
        let in_force = guard.get(NOTIFIED)? != 0;
        if in_force && now == number {
            return Ok(false);
        }
        let age = now.wrapping_sub(number).wrapping_sub(u64::from(in_force));
        // Of what is longer past than anybody remembers, a notice is more likely.
        words[2] = if age < 64 { guard.get(OUTCOMES)? >> age & 1 } else { 1 };
        Ok(true)
    }

    fn registered(&self, guard: &Guard<'_>) -> Result<Option<Process>> {
        match guard.get(NOTIFIED)? {
            0 => Ok(None),
            id => Ok(Some(Process { id: id as u32, start: guard.get(START)? })),
        }
    }

    fn end_registration(&self, guard: &mut Guard<'_>, by_notice: bool) -> Result<()> {
        let outcomes = guard.get(OUTCOMES)?;
        guard.set(OUTCOMES, outcomes << 1 | u64::from(by_notice))?;
        guard.set(NOTIFIED, 0)
    }

    /// A message has come into the empty queue, and no receiver is blocked.
    ///
    /// # Errors
    /// `EALREADY`: another notice is to be sent first ([`PosixQueue::send_notice`], without the lock).
    #[cold]
    pub(super) fn give_notice(&self, guard: &mut Guard<'_>) -> Result<()> {
        let how = guard.get(HOW)?;
        if how & 0xff == BY_SIGNAL && how >> 8 != 0 {
            if guard.get(NOTICE)? != 0 {
                return Err(Errno::ALREADY);
            }
            let thread = Thread::current();
            let user = rustix::process::getuid().as_raw();
            for (to, from) in [(TO, NOTIFIED), (TO_START, START), (SENT_VALUE, VALUE)] {
                let value = guard.get(from)?;
                guard.set(to, value)?;
            }
            guard.set(SIGNAL, how >> 8)?;
            guard.set(FROM, u64::from(user) << 32 | u64::from(thread.process()))?;
            let serial = guard.get(SERIAL)?;
            guard.set(SERIAL, serial.wrapping_add(1))?;
            guard.set(NOTICE, u64::from(thread.id()))?;
        }
        self.end_registration(guard, true)
    }

    /// Without the lock: sends the notice that is to be sent, if it is this thread's, or a dead one's, or `at_once`.
    #[cold]
    pub(super) fn send_notice(&self, at_once: bool) -> Result<()> {
        let thread = self.segment.word64(NOTICE)?.load(Ordering::Acquire) as u32;
        if thread == 0 || !(at_once || thread == Thread::current().id() || !thread_exists(thread)) {
            return Ok(());
        }
        let words = self.look_with(Patience::None, |guard| {
            if guard.get(NOTICE)? as u32 != thread {
                return Ok(None);
            }
            let mut words = [0; 6];
            for (word, place) in words.iter_mut().zip([TO, TO_START, SIGNAL, SENT_VALUE, FROM, SERIAL]) {
                *word = guard.get(place)?;
            }
            Ok(Some(words))
        })?;
        let Some([to, start, signal, value, from, serial]) = words else { return Ok(()) };
        send_signal(Process { id: to as u32, start }, signal, value, from);
        self.change(Patience::None, |guard| {
            if guard.get(SERIAL)? == serial && guard.get(NOTICE)? != 0 {
                guard.set(NOTICE, 0)
            } else {
                Ok(())
            }
        })
    }

    /// Without the lock: at the end of each handle.
    pub(super) fn end_own_registration(&self) {
        let registered = self.segment.word64(NOTIFIED).map(|word| word.load(Ordering::Acquire));
        if registered == Ok(u64::from(Thread::current().process())) {
            let _ = self.cancel_notify_with(Patience::None);
        }
    }
}

/// `siginfo_t` as the kernel lays it out for a queued signal.
#[repr(C)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    #[cfg(target_pointer_width = "64")]
    padding: i32,
    process: i32,
    user: u32,
    value: usize,
    rest: [u8; 128 - 24 - size_of::<usize>()],
}

const _: () = assert!(size_of::<Info>() == 128 || cfg!(target_pointer_width = "32"));

/// Sends a signal to that very process, if there is one and it may be sent.
fn send_signal(to: Process, signal: u64, value: u64, from: u64) {
    let (Ok(id), Ok(signal)) = (i32::try_from(to.id), i32::try_from(signal)) else { return };
    let Some(pid) = Pid::from_raw(id) else { return };
    // The descriptor names one process: is it the one that is meant?
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    if to.is_gone() {
        return;
    }
    let info = Info {
        signal,
        errno: 0,
        code: SI_MESGQ,
        #[cfg(target_pointer_width = "64")]
        padding: 0,
        process: from as u32 as i32,
        user: (from >> 32) as u32,
        value: value as usize,
        rest: [0; 128 - 24 - size_of::<usize>()],
    };
    // SAFETY: `info` is as long as the kernel's siginfo_t, and lives until after the call.
    let _ = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, &raw const info, 0_u32)
    };
}
