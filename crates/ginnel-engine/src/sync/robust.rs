//! A lock that lies anywhere and that one sleeps with, and nobody left asleep by a death: `futex_waitv(2)`,
//! `set_robust_list(2)`.
//!
//! # How it works inside
//! The lock's word is 0, or the holder's thread id with `WAITERS`, which always stands there: the kernel is to wake
//! somebody when the holder dies. A holder has the word in its robust list. `arrivals`, `cleared` and `turn` are as in
//! `lock`: who gives the lock back wakes one who wants it, on `turn`, unless nobody has come since a wake found nobody.
//!
//! Who holds the lock may sleep until something else happens ([`Robust::sleep`]): it gives the lock back, sleeps on words
//! of the caller's choice, and takes the lock again. Waiting for a condition, for a reader to leave or for the others at a
//! barrier is that.
//!
//! # Who hears of a death
//! Who was woken may die before it has acted on it, and a wake is not repeated. So whoever has slept owes something, and
//! its death must be told to others. The kernel tells it by the *pending* word (see `primitive`): one sleeper on a word is
//! woken if the word is 0 or the dying thread's own. It tells nobody if the word is another's.
//! - **Asleep, woken, wanting the lock**: the pending word is the *bell*, which is always 0. Everybody who sleeps here sleeps
//!   on the bell too. Who is woken by it, or by a death told on the lock's word, *tells*: it wakes all who sleep on the
//!   bell, and they look again. Dies it before: its own death rings the bell.
//! - **Taking and giving back**: the pending word must be the lock's. For a plain locker that is enough: what it owes is a
//!   wake of the next who wants the lock, and if the word is another's, that one will wake, since `arrivals` still says so.
//! - **Taking, woken by the caller's words** (a notification): also that is owed, to others who sleep on them. Such a
//!   *debtor* counts itself in `debtors` for the moment in which its pending word is the lock's. If it dies in there, and
//!   the lock is another's, that one finds the count when it gives the lock back, and tells. If the lock is free, the kernel
//!   wakes one, who tells or takes the lock and finds the count.
//! - **Holding**: the kernel marks the lock's word and wakes one; who takes the lock from the dead tells.
//!
//! Nobody is missed who is just about to sleep. It compares the lock's word, so a mark shows. And it compares the caller's
//! words: what was to be heard from these before they were read, it knew when it held the lock; and after, it will not
//! sleep.
//!
//! Being told twice is no harm: who sleeps here looks again whatever has woken it.
//!
//! # Which word was woken
//! `futex_waitv` gives the last of the words that were woken. So with the bells behind the caller's words, a sleeper for
//! whom both have come knows of the bell.
//!
//! # Crash points
//! | killed | the kernel finds | the others |
//! | --- | --- | --- |
//! | before the exchange that takes it | pending, 0: wakes one, who looks; another's: that one's `arrivals`, `debtors` | go on |
//! | after it, before the link | pending, its own: marks, wakes one | take it, told `OwnerDied` |
//! | holding it | in the list: marks, wakes one | as above |
//! | unlinked, before the exchange that frees it | pending, its own: as above | as above |
//! | after that, before the wake | pending, 0: wakes one; another's: that one's `arrivals` | go on |
//! | asleep, or woken | the bell: wakes one, who tells | look again |
//!
//! # A word that cannot be true
//! A word that names no living thread, and that the kernel has not marked, is taken over like a dead one's. A bell that is
//! not 0 is set to 0 by who goes to sleep. So all who share a lock must see each other's thread ids: one PID namespace.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec};

use super::region::Words;
use crate::primitive::{
    AtomicU32, AtomicU64, FUTEX_OFFSET, OWNER, OWNER_DIED, Ordering, Thread, WAITERS, futex_wait_which,
    futex_wake, monotonic, thread_exists,
};
use crate::spin;
use crate::wait::Patience;
use crate::{Errno, Result};

/// How a lock was taken.
///
/// ```
/// use ginnel_engine::sync::mutex::{Locked, Mutex};
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::wait::Patience;
///
/// let mutex = Mutex::init(Region::anonymous(4096)?, 0)?;
/// assert_eq!(mutex.lock(Patience::None)?, Locked::Whole);
/// # mutex.unlock()?;
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// As it should be.
    Whole,
    /// Its holder has died: what the lock guards may be half changed. `EOWNERDEAD`.
    OwnerDied,
}

#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Robust {
    word: AtomicU32,
    /// Moved on by each wake of one who wants the lock.
    turn: AtomicU32,
    arrivals: AtomicU64,
    cleared: AtomicU64,
    /// Of the robust list: the C library writes it.
    before: AtomicU64,
    entry: AtomicU64,
    /// How many debtors are in the moment of taking it, below a number that is changed when they are forgotten.
    debtors: AtomicU64,
    /// Always 0.
    bell: AtomicU32,
    health: AtomicU32,
    magic: AtomicU64,
}

// SAFETY: atomics only.
#[allow(unsafe_code)]
unsafe impl Words for Robust {}

const _: () = assert!(
    size_of::<Robust>() == 64
        && std::mem::offset_of!(Robust, entry) as isize + FUTEX_OFFSET
            == std::mem::offset_of!(Robust, word) as isize
);

const HEALTHY: u32 = 0;
/// A holder has died; the present one has not said that all is well again.
const INCONSISTENT: u32 = 1;
const NOT_RECOVERABLE: u32 = 2;

/// How long to sleep before asking whether the holder is alive at all; doubled each time. Its death itself wakes at once:
/// this is for a word that names nobody.
const ASK_FIRST: Duration = Duration::from_millis(100);
/// As many as there are.
const ALL: u32 = i32::MAX as u32;
/// How often a debtor tries to leave the count, which others change only while they come and go.
const LEAVING_MOST: u32 = 10_000;

/// What has ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slept {
    /// One of the caller's words was woken, or had changed, or somebody has died, or a signal handler ran: look again.
    Look,
    TimedOut,
}

/// What a sleeper goes to sleep on.
pub(super) struct Call<'c> {
    /// Woken by who has something to say, which one sleeper has to pass on if it dies.
    pub(super) words: [(&'c AtomicU32, u32); 2],
    /// Told of deaths, beside the lock's own.
    pub(super) bell: Option<&'c AtomicU32>,
    pub(super) deadline: Option<Instant>,
    /// How long to try for the lock afterwards.
    pub(super) relock: Patience,
}

impl Robust {
    /// As nobody has locked it yet.
    pub(super) fn init(&self, magic: u64) {
        self.magic.store(0, Ordering::Relaxed);
        self.word.store(0, Ordering::Relaxed);
        self.turn.store(0, Ordering::Relaxed);
        self.arrivals.store(0, Ordering::Relaxed);
        self.cleared.store(0, Ordering::Relaxed);
        self.before.store(0, Ordering::Relaxed);
        self.entry.store(0, Ordering::Relaxed);
        self.debtors.store(0, Ordering::Relaxed);
        self.bell.store(0, Ordering::Relaxed);
        self.health.store(HEALTHY, Ordering::Relaxed);
        self.magic.store(magic, Ordering::Release);
    }

    /// # Errors
    /// `EUCLEAN`: somebody has made something else here, or nothing.
    pub(super) fn check(&self, magic: u64) -> Result<()> {
        if self.magic.load(Ordering::Acquire) == magic { Ok(()) } else { Err(Errno::UCLEAN) }
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// `EBUSY` ([`Patience::None`]). `ETIMEDOUT`. `EDEADLK`: this thread has it. `ENOTRECOVERABLE`. `ENOLCK`: this thread has
    /// too many. `EUCLEAN`. `EOPNOTSUPP`: the C library would not let its death be told.
    #[inline]
    pub(super) fn lock(&self, thread: Thread, patience: Patience) -> Result<Locked> {
        if !thread.has_room() {
            return Err(Errno::NOLCK);
        }
        let before = thread.remember(&self.word);
        let taken = self.word.compare_exchange(0, own(thread), Ordering::Acquire, Ordering::Relaxed).is_ok();
        let outcome =
            if taken { self.taken(thread, false) } else { self.lock_taken(thread, patience, false) };
        thread.forget(before);
        outcome
    }

    /// After the exchange: the pending word is still the lock's.
    #[inline]
    fn taken(&self, thread: Thread, died: bool) -> Result<Locked> {
        if let Err(errno) = thread.link_entry(&self.word, &self.entry) {
            let _ = self.free(thread);
            return Err(errno);
        }
        if !died && self.health.load(Ordering::Relaxed) == HEALTHY {
            return Ok(Locked::Whole);
        }
        self.taken_ill(thread, died)
    }

    #[cold]
    fn taken_ill(&self, thread: Thread, died: bool) -> Result<Locked> {
        let errno = match self.health.load(Ordering::Relaxed) {
            HEALTHY | INCONSISTENT => {
                self.health.store(INCONSISTENT, Ordering::Release);
                if died {
                    self.tell();
                }
                return Ok(Locked::OwnerDied);
            }
            NOT_RECOVERABLE => Errno::NOTRECOVERABLE,
            _ => Errno::UCLEAN,
        };
        thread.unlink_entry(&self.entry);
        let _ = self.free(thread);
        Err(errno)
    }

    /// Takes the lock when it is, or was, another's. The pending word is the bell but for the moment of taking.
    #[cold]
    fn lock_taken(&self, thread: Thread, patience: Patience, debtor: bool) -> Result<Locked> {
        thread.remember(&self.bell);
        let deadline = if let Patience::Until(deadline) = patience { Some(deadline) } else { None };
        let mut ask = ASK_FIRST;
        let mut looked = false;
        loop {
            let value = self.word.load(Ordering::Relaxed);
            if is_free(value) {
                if let Some(outcome) = self.take(thread, value, debtor) {
                    return outcome;
                }
                continue;
            }
            if value & OWNER == thread.id() {
                return Err(Errno::DEADLK);
            }
            if !looked && patience != Patience::None {
                looked = true;
                if spin::look_for(2, deadline, || is_free(self.word.load(Ordering::Relaxed))) {
                    continue;
                }
            }
            if !thread_exists(value & OWNER) {
                // Marked as the kernel would have: taken over in the next turn, by whoever is first.
                let marked = WAITERS | OWNER_DIED;
                let _ = self.word.compare_exchange(value, marked, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            }
            if patience == Patience::None {
                return Err(Errno::BUSY);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Errno::TIMEDOUT);
            }
            // In this order: see `lock`.
            let seen = self.turn.load(Ordering::SeqCst);
            self.arrivals.fetch_add(1, Ordering::SeqCst);
            let value = self.word.load(Ordering::SeqCst);
            if is_free(value) {
                continue;
            }
            heal(&self.bell);
            let limit = deadline.map_or(now + ask, |deadline| deadline.min(now + ask));
            let words = [(&self.turn, seen), (&self.word, value), (&self.bell, 0)];
            match futex_wait_which(&words, Some((ClockId::Monotonic, monotonic(limit)))) {
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) => self.tell(),
                Err(Errno::TIMEDOUT) => ask = ask.saturating_mul(2).min(Duration::from_secs(3600)),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Exchanges a free word for one's own. None if another was faster.
    fn take(&self, thread: Thread, value: u32, debtor: bool) -> Option<Result<Locked>> {
        let number = debtor.then(|| self.debtors.fetch_add(1, Ordering::SeqCst) >> 32);
        thread.remember(&self.word);
        let taken =
            self.word.compare_exchange(value, own(thread), Ordering::SeqCst, Ordering::Relaxed).is_ok();
        let outcome = taken.then(|| self.taken(thread, value & OWNER_DIED != 0));
        if !taken {
            thread.remember(&self.bell);
        }
        if let Some(number) = number {
            self.leave_debtors(number);
        }
        outcome
    }

    fn leave_debtors(&self, number: u64) {
        for _ in 0..LEAVING_MOST {
            let seen = self.debtors.load(Ordering::SeqCst);
            if seen >> 32 != number || seen as u32 == 0 {
                return; // All were told meanwhile.
            }
            if self.debtors.compare_exchange(seen, seen - 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// `EPERM`: this thread does not hold it. `EUCLEAN`: somebody has overwritten its word meanwhile.
    #[inline]
    pub(super) fn unlock(&self, thread: Thread) -> Result<()> {
        let before = thread.remember(&self.word);
        let outcome = self.unlock_watched(thread);
        thread.forget(before);
        outcome
    }

    /// With the lock's word pending.
    #[inline]
    fn unlock_watched(&self, thread: Thread) -> Result<()> {
        let ill = self.health.load(Ordering::Relaxed) != HEALTHY;
        if ill && thread.has_linked(&self.entry) {
            self.give_up_on_it();
        }
        if !thread.unlink_entry(&self.entry) {
            return Err(Errno::PERM);
        }
        self.free(thread)?;
        if ill {
            self.tell();
        }
        Ok(())
    }

    /// Nobody has said that all is well again, and nobody else can know.
    #[cold]
    fn give_up_on_it(&self) {
        let _ =
            self.health.compare_exchange(INCONSISTENT, NOT_RECOVERABLE, Ordering::Release, Ordering::Relaxed);
    }

    /// After the unlinking: the pending word is the lock's.
    #[inline]
    fn free(&self, thread: Thread) -> Result<()> {
        let freed = self.word.compare_exchange(own(thread), 0, Ordering::SeqCst, Ordering::Relaxed);
        if freed.is_err() {
            return Err(Errno::UCLEAN);
        }
        let arrivals = self.arrivals.load(Ordering::SeqCst);
        let debtors = self.debtors.load(Ordering::SeqCst);
        if arrivals != self.cleared.load(Ordering::Relaxed) || debtors as u32 != 0 {
            self.wake_next(arrivals, debtors);
        }
        Ok(())
    }

    #[cold]
    fn wake_next(&self, arrivals: u64, debtors: u64) {
        if debtors as u32 != 0 {
            self.tell();
            let none = ((debtors >> 32).wrapping_add(1)) << 32;
            let _ = self.debtors.compare_exchange(debtors, none, Ordering::SeqCst, Ordering::Relaxed);
        }
        if arrivals != self.cleared.load(Ordering::Relaxed) {
            self.turn.fetch_add(1, Ordering::SeqCst);
            if futex_wake(&self.turn, 1) == 0 {
                self.cleared.store(arrivals, Ordering::Relaxed);
            }
        }
    }

    /// Whether the calling thread holds it.
    pub(super) fn is_held(&self, thread: Thread) -> bool {
        thread.has_linked(&self.entry)
    }

    /// What the lock guards is whole again.
    ///
    /// # Errors
    /// `EINVAL`: nobody has died, or this thread does not hold it.
    pub(super) fn mark_consistent(&self, thread: Thread) -> Result<()> {
        if self.is_held(thread) && self.health.load(Ordering::Relaxed) == INCONSISTENT {
            self.health.store(HEALTHY, Ordering::Release);
            return Ok(());
        }
        Err(Errno::INVAL)
    }

    /// As [`Robust::lock`], for what is made so that it is whole at every instruction.
    ///
    /// # Errors
    /// As [`Robust::lock`]; `EUCLEAN` for `ENOTRECOVERABLE`.
    pub(super) fn lock_whole(&self, thread: Thread, patience: Patience) -> Result<()> {
        self.whole(thread, self.lock(thread, patience))
    }

    fn whole(&self, thread: Thread, locked: Result<Locked>) -> Result<()> {
        match locked {
            Ok(Locked::Whole) => Ok(()),
            Ok(Locked::OwnerDied) => self.mark_consistent(thread).map_err(|_| Errno::UCLEAN),
            Err(Errno::NOTRECOVERABLE) => Err(Errno::UCLEAN),
            Err(errno) => Err(errno),
        }
    }

    /// Has all who sleep here look again.
    #[cold]
    pub(super) fn tell(&self) {
        futex_wake(&self.bell, ALL);
    }

    /// Gives the lock back, sleeps while `unchanged` and until a word of the call is woken, and takes the lock again.
    /// `prepare` is called before the sleep, without the lock.
    ///
    /// What the taking has come to is the second: in case of an error the lock is not held.
    #[cold]
    pub(super) fn sleep(
        &self,
        thread: Thread,
        call: &Call<'_>,
        prepare: impl FnOnce(),
        unchanged: impl Fn() -> bool,
    ) -> (Slept, Result<Locked>) {
        let before = thread.remember(&self.word);
        if let Err(errno) = self.unlock_watched(thread) {
            thread.forget(before);
            return (Slept::Look, Err(errno));
        }
        thread.remember(&self.bell);
        prepare();
        let (slept, debtor) = self.sleep_until(call, unchanged);
        // In a child that a signal handler has forked, another one.
        let thread = Thread::current();
        let locked = self.lock_taken(thread, call.relock, debtor);
        if debtor && locked.is_err() {
            self.tell(); // What is owed, others see to.
        }
        thread.forget(before);
        (slept, locked)
    }

    /// As [`Robust::sleep`], for what is whole at every instruction.
    pub(super) fn sleep_whole(
        &self,
        thread: Thread,
        call: &Call<'_>,
        unchanged: impl Fn() -> bool,
    ) -> (Slept, Result<()>) {
        let (slept, locked) = self.sleep(thread, call, || (), unchanged);
        (slept, self.whole(Thread::current(), locked))
    }

    /// Whether it was the caller's words that were woken comes second: then something is owed to others.
    fn sleep_until(&self, call: &Call<'_>, unchanged: impl Fn() -> bool) -> (Slept, bool) {
        let deadline: Option<(ClockId, Timespec)> =
            call.deadline.map(|deadline| (ClockId::Monotonic, monotonic(deadline)));
        let bell = call.bell.unwrap_or(&self.bell);
        loop {
            let value = self.word.load(Ordering::SeqCst);
            if value & OWNER_DIED != 0 {
                self.tell();
                return (Slept::Look, false);
            }
            if !unchanged() {
                return (Slept::Look, false);
            }
            heal(&self.bell);
            heal(bell);
            let words = [call.words[0], call.words[1], (bell, 0), (&self.word, value), (&self.bell, 0)];
            match futex_wait_which(&words, deadline) {
                Ok(0 | 1) => return (Slept::Look, true),
                Ok(_) => {
                    self.tell();
                    return (Slept::Look, false);
                }
                // Mostly the lock has been taken or given back between the look and the sleep.
                Err(Errno::AGAIN) if call.deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                Err(Errno::AGAIN | Errno::TIMEDOUT) => return (Slept::TimedOut, false),
                // A signal, or no memory for the call.
                Err(_) => return (Slept::Look, false),
            }
        }
    }
}

#[inline]
fn own(thread: Thread) -> u32 {
    thread.id() | WAITERS
}

/// Whether a lock's word may be exchanged for one's own.
#[inline]
fn is_free(value: u32) -> bool {
    value & OWNER == 0 || value & OWNER_DIED != 0
}

/// A bell that is not 0 was overwritten.
fn heal(bell: &AtomicU32) {
    if bell.load(Ordering::Relaxed) != 0 {
        bell.store(0, Ordering::Relaxed);
    }
}
