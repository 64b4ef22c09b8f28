//! A process-shared condition variable: `pthread_cond_wait(3p)`, `pthread_cond_signal(3p)`.
//!
//! # What a user sees
//! [`Condvar::wait`] gives a [`Mutex`] back, sleeps until somebody notifies, and has the mutex again when it returns. It may
//! return without a notification, as all condition variables do: what is waited for is looked at again, in a loop.
//!
//! Anybody may be killed at any instruction. A waiter that was chosen by [`Condvar::notify_one`] and dies before it has
//! returned passes the notification on. Somebody who dies while it notifies has notified, if its notification counted
//! already. A process that dies with the mutex wakes those who wait: the first of them is told [`Locked::OwnerDied`].
//! There is nothing to destroy.
//!
//! All who wait at a time do so with the same mutex. Who notifies need not hold it.
//!
//! # How it works inside
//! `seq` counts the notifications. Who waits notes it while it holds the mutex, and sleeps as long as it is that. Whether
//! anybody is to be woken is told by `arrivals` and `cleared`, as with the mutex. The sleep is the mutex's own
//! (`robust`), which passes on what the dead were told.
//!
//! # Crash points
//! | killed | the others |
//! | --- | --- |
//! | notifying, before `seq` counts | nothing has happened |
//! | after that, before the wake | the kernel rings `bell`: one who sleeps tells all, and they see `seq` |
//! | waiting | see `robust`: others are told, also if it was asleep and knew of nothing |
//!
//! So a death may wake more than it has to. It is rare, and they look again.
//!
//! # Barriers
//! Who waits counts itself in `arrivals`, then compares `seq` (in the kernel); who notifies moves `seq`, then reads
//! `arrivals`; all of it sequentially consistent. So either the arrival is seen, or the move is.

use std::time::Instant;

use super::mutex::{Locked, Mutex};
use super::region::{Region, Words};
use super::robust::{Call, Slept};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, Thread, futex_wake};
use crate::spin;
use crate::wait::Patience;
use crate::{Errno, Result};

/// "ginnelCv".
const MAGIC: u64 = u64::from_le_bytes(*b"ginnelCv");

#[repr(C, align(64))]
#[derive(Debug)]
struct CondvarWords {
    magic: AtomicU64,
    seq: Halves,
    arrivals: AtomicU64,
    cleared: AtomicU64,
    /// Always 0: what the kernel wakes one on when somebody dies who notifies.
    bell: AtomicU32,
    unused: [AtomicU32; 7],
}

// SAFETY: atomics only.
#[allow(unsafe_code)]
unsafe impl Words for CondvarWords {}

const _: () = assert!(size_of::<CondvarWords>() == 64);

/// A 64-bit counter, both halves of which the kernel can compare.
#[repr(transparent)]
#[derive(Debug)]
pub(super) struct Halves(AtomicU64);

impl Halves {
    pub(super) fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn store(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Both halves, as they are in a value: the one that is woken first.
    pub(super) fn words(&self, value: u64) -> [(&AtomicU32, u32); 2] {
        let [low, high] = self.halves();
        [(low, value as u32), (high, (value >> 32) as u32)]
    }

    pub(super) fn low(&self) -> &AtomicU32 {
        self.halves()[0]
    }

    /// For the kernel only: this process accesses the whole.
    fn halves(&self) -> [&AtomicU32; 2] {
        let whole = self.0.as_ptr().cast::<u32>();
        // SAFETY: 8 bytes, aligned to 8, are two words of 4, and atomics.
        #[allow(unsafe_code)]
        let halves = unsafe { [AtomicU32::from_ptr(whole), AtomicU32::from_ptr(whole.add(1))] };
        if cfg!(target_endian = "big") { [halves[1], halves[0]] } else { halves }
    }
}

/// A condition variable in shared memory.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use ginnel_engine::sync::condvar::Condvar;
/// use ginnel_engine::sync::mutex::Mutex;
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::wait::Patience;
///
/// let region = Region::anonymous(4096)?;
/// let (mutex, changed) = (Mutex::init(region, 0)?, Condvar::init(region, 64)?);
/// let ready = AtomicBool::new(false); // stands for something in the region
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         mutex.lock(Patience::Endless)?;
///         ready.store(true, Ordering::Relaxed);
///         changed.notify_one();
///         mutex.unlock()
///     });
///     mutex.lock(Patience::Endless)?;
///     while !ready.load(Ordering::Relaxed) {
///         changed.wait(&mutex, None)?;
///     }
///     mutex.unlock()
/// })?;
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Condvar<'a> {
    words: &'a CondvarWords,
}

impl<'a> Condvar<'a> {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<CondvarWords>();
    /// What its address is a multiple of.
    pub const ALIGN: usize = align_of::<CondvarWords>();

    /// Makes a condition variable. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: it does not lie within the region, or is not aligned.
    pub fn init(region: Region<'a>, offset: usize) -> Result<Condvar<'a>> {
        let words: &CondvarWords = region.place(offset)?;
        words.magic.store(0, Ordering::Relaxed);
        words.seq.store(0);
        words.arrivals.store(0, Ordering::Relaxed);
        words.cleared.store(0, Ordering::Relaxed);
        words.bell.store(0, Ordering::Relaxed);
        words.magic.store(MAGIC, Ordering::Release);
        Ok(Condvar { words })
    }

    /// The condition variable that somebody has made here.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none. `EINVAL` as [`Condvar::init`].
    pub fn open(region: Region<'a>, offset: usize) -> Result<Condvar<'a>> {
        let words: &CondvarWords = region.place(offset)?;
        if words.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Errno::UCLEAN);
        }
        Ok(Condvar { words })
    }

    /// Gives the mutex back, waits for a notification, or until the deadline, and takes the mutex again. May return
    /// without either.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the mutex is held again. `EPERM`: this thread does not hold the mutex.
    /// `ENOTRECOVERABLE`, `EUCLEAN`, and whatever else: the mutex could not be taken again, and is not held. A holder's
    /// death ([`Locked::OwnerDied`]) comes before the deadline's end.
    ///
    /// # Blocking
    /// Until the deadline, and then until the mutex is free. A signal handler that runs is a return without a
    /// notification.
    pub fn wait(&self, mutex: &Mutex<'_>, deadline: Option<Instant>) -> Result<Locked> {
        let thread = Thread::current();
        if !mutex.is_held() {
            return Err(Errno::PERM);
        }
        let words = self.words;
        // What happens before this is known to who holds the mutex.
        let seen = words.seq.load();
        let call = Call {
            words: words.seq.words(seen),
            bell: Some(&words.bell),
            deadline,
            relock: Patience::Endless,
        };
        let unchanged = || words.seq.load() == seen;
        let prepare = || {
            // While nobody sleeps, who notifies needs no wake.
            let nobody = words.arrivals.load(Ordering::Relaxed) == words.cleared.load(Ordering::Relaxed);
            if nobody && spin::look_for(1, deadline, || !unchanged()) {
                return;
            }
            words.arrivals.fetch_add(1, Ordering::SeqCst);
        };
        let (slept, locked) = mutex.robust().sleep(thread, &call, prepare, unchanged);
        finish(slept, locked?)
    }

    /// Wakes one of those who wait.
    #[inline]
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes all who wait.
    #[inline]
    pub fn notify_all(&self) {
        self.notify(i32::MAX as u32);
    }

    #[inline]
    fn notify(&self, count: u32) {
        let words = self.words;
        let thread = Thread::current();
        let before = thread.remember(&words.bell);
        words.seq.0.fetch_add(1, Ordering::SeqCst);
        let arrivals = words.arrivals.load(Ordering::SeqCst);
        if arrivals != words.cleared.load(Ordering::Relaxed) && futex_wake(words.seq.low(), count) == 0 {
            words.cleared.store(arrivals, Ordering::Relaxed);
        }
        thread.forget(before);
    }
}

fn finish(slept: Slept, locked: Locked) -> Result<Locked> {
    match (slept, locked) {
        (Slept::TimedOut, Locked::Whole) => Err(Errno::TIMEDOUT),
        _ => Ok(locked),
    }
}
