//! POSIX semaphores: `sem_overview(7)`, `sem_open(3)`, `sem_init(3)`, `sem_wait(3)`, `sem_post(3)`.
//!
//! # What a user sees
//! A counter. A named one ([`PosixSemaphore`]) is an object of a namespace; an unnamed one ([`Semaphore::init`]) lies at any
//! place of any shared mapping, in the 32 bytes of a `sem_t`. Results and errnos are glibc's.
//!
//! Nobody knows who holds a unit: a killed holder's are lost. But a process that is killed after it was woken and before
//! it has taken its unit loses nothing: another one who waits is woken (glibc's sleep on at a value above 0).
//!
//! Whoever can write to it may overwrite it: then it has some other value, and there is no other harm.
//!
//! # How it works inside
//! `state` holds the value and, above it, a number that is not 0 while somebody may sleep. While it is 0, waiting and
//! posting are one exchange each. Who has to sleep moves that number on, in an exchange that finds the value 0. Who posts
//! and finds a number moves `turn` on and wakes one who sleeps on it; if there was nobody, it sets the number to 0, unless
//! it has moved meanwhile.
//!
//! # Who hears of a death
//! While a thread waits, or posts to somebody who sleeps, its pending word (see `primitive`) is `bell`, which is always 0:
//! should it die, the kernel wakes one who sleeps there. All sleepers sleep on `turn`, the value and `bell` at once. So a
//! unit that was posted has somebody on its way to it, or its way was ended by a death that has woken another. A wake by
//! the bell may meet one who was woken already; so whoever has taken a unit after a sleep, and sees another, wakes one more.
//!
//! # Barriers
//! Who goes to sleep reads `turn`, then moves the number, then compares `turn` and the value (in the kernel). Who posts adds
//! to the value, which shows the number, then moves `turn`, then wakes; all of it sequentially consistent. So if the number
//! was seen, `turn` has moved since it was read.
//!
//! # Crash points
//! | killed | the others |
//! | --- | --- |
//! | posting, before the exchange | nothing has happened |
//! | after it, before the wake | the kernel wakes one, or who is about to sleep finds the value |
//! | asleep | nothing is owed |
//! | woken, before the exchange that takes the unit | the kernel wakes another |
//! | after it | the unit is taken: another is woken as well, in vain |
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::time::Instant;

use rustix::time::{ClockId, Timespec};

use super::region::{Region, Words};
use crate::namespace::{Kind, Namespace};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, Thread, futex_wait_which, futex_wake, monotonic};
use crate::segment::{HEADER_BYTES, Segment};
use crate::spin;
use crate::wait::Patience;
use crate::{Errno, Result};

/// `SEM_VALUE_MAX`: the highest value.
pub const VALUE_MAX: u32 = i32::MAX as u32;

/// "ginnelSe".
const MAGIC: u64 = u64::from_le_bytes(*b"ginnelSe");
/// The header, and a page of which it needs 32 bytes.
const CAPACITY: usize = HEADER_BYTES + 0x1000;
const NANOSECONDS: i64 = 1_000_000_000;

#[repr(C, align(8))]
#[derive(Debug)]
struct SemaphoreWords {
    /// The value; above it, whether somebody may sleep.
    state: AtomicU64,
    turn: AtomicU32,
    /// Always 0.
    bell: AtomicU32,
    magic: AtomicU64,
    unused: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Words for SemaphoreWords {}

const _: () = assert!(size_of::<SemaphoreWords>() == size_of::<libc::sem_t>());

/// One arrival of somebody who sleeps.
const ARRIVAL: u64 = 1 << 32;

#[inline]
fn value_of(state: u64) -> u32 {
    state as u32
}

#[inline]
fn arrivals_of(state: u64) -> u64 {
    state & !(ARRIVAL - 1)
}

/// A semaphore, wherever it lies.
///
/// ```
/// use ginnel_engine::Errno;
/// use ginnel_engine::sync::posix_semaphore::Semaphore;
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::wait::Patience;
///
/// let region = Region::anonymous(4096)?;
/// let slots = Semaphore::init(region, 64, 2)?;
/// slots.wait(Patience::Endless)?;
///
/// let elsewhere = Semaphore::open(region, 64)?; // in another process, as a rule
/// elsewhere.wait(Patience::None)?;
/// assert_eq!(elsewhere.wait(Patience::None), Err(Errno::AGAIN));
/// elsewhere.post()?;
/// assert_eq!(slots.value(), 1);
/// # Ok::<(), Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Semaphore<'a> {
    words: &'a SemaphoreWords,
}

/// How long to wait.
#[derive(Clone, Copy)]
enum Limit {
    Endless,
    Never,
    By(ClockId, Timespec),
}

impl Limit {
    fn has_passed(self) -> bool {
        match self {
            Limit::Endless => false,
            Limit::Never => true,
            Limit::By(clock, until) => {
                let now = rustix::time::clock_gettime(clock);
                (now.tv_sec, now.tv_nsec) >= (until.tv_sec, until.tv_nsec)
            }
        }
    }

    fn for_futex(self) -> Option<(ClockId, Timespec)> {
        if let Limit::By(clock, until) = self { Some((clock, until)) } else { None }
    }
}

impl<'a> Semaphore<'a> {
    /// How many bytes it takes: those of a `sem_t`.
    pub const SIZE: usize = size_of::<SemaphoreWords>();
    /// What its address is a multiple of.
    pub const ALIGN: usize = align_of::<SemaphoreWords>();

    /// Makes a semaphore (`sem_init(3)` with `pshared`). For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: a value above [`VALUE_MAX`]; it does not lie within the region, or is not aligned.
    pub fn init(region: Region<'a>, offset: usize, value: u32) -> Result<Semaphore<'a>> {
        if value > VALUE_MAX {
            return Err(Errno::INVAL);
        }
        let words: &SemaphoreWords = region.place(offset)?;
        words.magic.store(0, Ordering::Relaxed);
        words.state.store(u64::from(value), Ordering::Relaxed);
        words.turn.store(0, Ordering::Relaxed);
        words.bell.store(0, Ordering::Relaxed);
        words.magic.store(MAGIC, Ordering::Release);
        Thread::current(); // A signal handler may post.
        Ok(Semaphore { words })
    }

    /// The semaphore that somebody has made here.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none. `EINVAL` as [`Semaphore::init`].
    pub fn open(region: Region<'a>, offset: usize) -> Result<Semaphore<'a>> {
        let words: &SemaphoreWords = region.place(offset)?;
        if words.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Errno::UCLEAN);
        }
        Thread::current();
        Ok(Semaphore { words })
    }

    /// Takes a unit.
    ///
    /// # Errors
    /// `EAGAIN`: there is none ([`Patience::None`]). `ETIMEDOUT`. `EINTR`: a signal handler ran (one with `SA_RESTART` lets
    /// it go on).
    ///
    /// # Blocking
    /// While the value is 0. Who waits longest is not served first for certain. `sem_wait(3)`, `sem_trywait(3)`.
    #[inline]
    pub fn wait(&self, patience: Patience) -> Result<()> {
        if self.take() { Ok(()) } else { self.wait_long(patience) }
    }

    /// Takes a unit, blocked until a time of a clock at most: `sem_timedwait(3)` with `CLOCK_REALTIME`, `sem_clockwait(3)`.
    ///
    /// # Errors
    /// `EINVAL`: no such clock, or no such time. Else as [`Semaphore::wait`].
    pub fn wait_clock(&self, clock: libc::clockid_t, until: libc::timespec) -> Result<()> {
        let nanoseconds = until.tv_nsec;
        let clock = match clock {
            libc::CLOCK_REALTIME => ClockId::Realtime,
            libc::CLOCK_MONOTONIC => ClockId::Monotonic,
            _ => return Err(Errno::INVAL),
        };
        if !(0..NANOSECONDS).contains(&nanoseconds) {
            return Err(Errno::INVAL);
        }
        if self.take() {
            return Ok(());
        }
        // Long ago, as the kernel sees it too.
        if until.tv_sec < 0 {
            return Err(Errno::TIMEDOUT);
        }
        self.wait_watched(Limit::By(clock, Timespec { tv_sec: until.tv_sec, tv_nsec: nanoseconds }), None)
    }

    /// A unit, if there is one.
    #[inline]
    fn take(&self) -> bool {
        let state = &self.words.state;
        let mut seen = state.load(Ordering::Relaxed);
        while value_of(seen) != 0 {
            match state.compare_exchange_weak(seen, seen - 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    #[cold]
    fn wait_long(&self, patience: Patience) -> Result<()> {
        match patience {
            Patience::None => Err(Errno::AGAIN),
            Patience::Endless => self.wait_watched(Limit::Endless, None),
            Patience::Until(deadline) if deadline <= Instant::now() => {
                self.wait_watched(Limit::Never, Some(deadline))
            }
            Patience::Until(deadline) => {
                self.wait_watched(Limit::By(ClockId::Monotonic, monotonic(deadline)), Some(deadline))
            }
        }
    }

    #[cold]
    fn wait_watched(&self, limit: Limit, deadline: Option<Instant>) -> Result<()> {
        let words = self.words;
        let thread = Thread::current();
        if !limit.has_passed() {
            let there = || value_of(words.state.load(Ordering::Relaxed)) != 0;
            spin::look_for(0, deadline, there);
        }
        let before = thread.remember(&words.bell);
        let outcome = self.wait_asleep(limit);
        thread.forget(before);
        outcome
    }

    /// With the bell pending.
    fn wait_asleep(&self, limit: Limit) -> Result<()> {
        let words = self.words;
        loop {
            if self.take() {
                self.pass_on();
                return Ok(());
            }
            if limit.has_passed() {
                return Err(Errno::TIMEDOUT);
            }
            let turn = words.turn.load(Ordering::SeqCst);
            let seen = words.state.load(Ordering::SeqCst);
            // 0 means nobody.
            let arrivals = Some(arrivals_of(seen).wrapping_add(ARRIVAL)).filter(|next| *next != 0);
            let announced = arrivals.unwrap_or(ARRIVAL);
            if value_of(seen) != 0
                || words.state.compare_exchange(seen, announced, Ordering::SeqCst, Ordering::Relaxed).is_err()
            {
                continue;
            }
            if words.bell.load(Ordering::Relaxed) != 0 {
                words.bell.store(0, Ordering::Relaxed);
            }
            let sleeps_on = [(&words.turn, turn), (self.value_word(), 0), (&words.bell, 0)];
            match futex_wait_which(&sleeps_on, limit.for_futex()) {
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Where the kernel compares the value: this process accesses the whole.
    fn value_word(&self) -> &AtomicU32 {
        let whole = self.words.state.as_ptr().cast::<u32>();
        let index = usize::from(cfg!(target_endian = "big"));
        // SAFETY: half of 8 bytes that are aligned to 8, and atomic.
        unsafe { AtomicU32::from_ptr(whole.add(index)) }
    }

    /// A wake of another's may have been spent on this one, which was woken already.
    fn pass_on(&self) {
        let state = self.words.state.load(Ordering::SeqCst);
        if value_of(state) != 0 && arrivals_of(state) != 0 {
            self.wake_one();
        }
    }

    fn wake_one(&self) -> usize {
        self.words.turn.fetch_add(1, Ordering::SeqCst);
        futex_wake(&self.words.turn, 1)
    }

    /// Adds a unit. May be called in a signal handler.
    ///
    /// # Errors
    /// `EOVERFLOW`: the value is [`VALUE_MAX`].
    #[inline]
    pub fn post(&self) -> Result<()> {
        let words = self.words;
        let mut seen = words.state.load(Ordering::Relaxed);
        while arrivals_of(seen) == 0 {
            if value_of(seen) >= VALUE_MAX {
                return Err(Errno::OVERFLOW);
            }
            match words.state.compare_exchange_weak(seen, seen + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
        self.post_to_sleepers()
    }

    #[cold]
    fn post_to_sleepers(&self) -> Result<()> {
        let thread = Thread::current();
        let before = thread.remember(&self.words.bell);
        let outcome = self.post_watched();
        thread.forget(before);
        outcome
    }

    /// With the bell pending.
    fn post_watched(&self) -> Result<()> {
        let state = &self.words.state;
        let more = |seen: u64| (value_of(seen) < VALUE_MAX).then(|| seen + 1);
        let before =
            state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).map_err(|_| Errno::OVERFLOW)?;
        let arrivals = arrivals_of(before);
        if arrivals != 0 && self.wake_one() == 0 {
            // Nobody sleeps, unless it has come since.
            let none = |seen: u64| (arrivals_of(seen) == arrivals).then(|| u64::from(value_of(seen)));
            let _ = state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, none);
        }
        Ok(())
    }

    /// The units there are now: old news by the time it is read. `sem_getvalue(3)`.
    pub fn value(&self) -> u32 {
        value_of(self.words.state.load(Ordering::Relaxed)).min(VALUE_MAX)
    }

    /// Where it lies in this process.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self.words).addr()
    }

    /// Nobody opens it here any more (`sem_destroy(3)`). Who has it open goes on.
    pub fn destroy(self) {
        self.words.magic.store(0, Ordering::Release);
    }
}

/// A semaphore with a name in a namespace. Closed when dropped.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::Errno;
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let slots = PosixSemaphore::open(&home, b"/slots", libc::O_CREAT, 0o660, 2)?;
/// slots.semaphore().wait(Patience::Endless)?;
///
/// let elsewhere = PosixSemaphore::open(&home, b"/slots", 0, 0, 0)?;
/// assert_eq!(elsewhere.semaphore().value(), 1);
/// PosixSemaphore::unlink(&home, b"/slots")?;
/// elsewhere.semaphore().post()?;
/// assert_eq!(PosixSemaphore::unlink(&home, b"/slots"), Err(Errno::NOENT));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PosixSemaphore {
    segment: Segment,
    words: NonNull<SemaphoreWords>,
}

// SAFETY: the words are the segment's, which any thread may use.
unsafe impl Send for PosixSemaphore {}
// SAFETY: as above.
unsafe impl Sync for PosixSemaphore {}

impl PosixSemaphore {
    /// Opens a semaphore, or makes it with this value: `sem_open(3)`. Of `flags` count `O_CREAT` and `O_EXCL`; `mode` loses
    /// the umask's bits.
    ///
    /// # Errors
    /// `EINVAL`: no such name can be, or the value is above [`VALUE_MAX`]. `ENAMETOOLONG`. `ENOENT`: there is none, and it
    /// was not to be made. `EEXIST`: there is one, and it was to be new. `EACCES`: no permission to read and to write it.
    /// `ENOSPC`, `EMFILE`, `ENOMEM`. `EUCLEAN`: what stands there is no semaphore.
    pub fn open(
        namespace: &Namespace,
        name: &[u8],
        flags: i32,
        mode: u32,
        value: u32,
    ) -> Result<PosixSemaphore> {
        let new = libc::O_CREAT | libc::O_EXCL;
        let kind = Kind::PosixSemaphore;
        if flags & new == new && value > VALUE_MAX {
            return Err(Errno::INVAL); // As glibc: before the name is looked up.
        }
        let (segment, _) = namespace.open_or_create(kind, name, flags, mode, |draft| {
            if value > VALUE_MAX {
                return Err(Errno::INVAL);
            }
            draft.segment(CAPACITY, |segment| {
                Semaphore::init(region(segment)?, 0, value)?;
                Ok(())
            })
        })?;
        let words = NonNull::from(Semaphore::open(region(&segment)?, 0)?.words);
        Ok(PosixSemaphore { segment, words })
    }

    /// Takes a name away: `sem_unlink(3)`. Who has the semaphore open goes on with it.
    ///
    /// # Errors
    /// `ENOENT`: there is none. `EACCES`: it is not the caller's to remove. `ENAMETOOLONG`.
    pub fn unlink(namespace: &Namespace, name: &[u8]) -> Result<()> {
        namespace.unlink_named(Kind::PosixSemaphore, name)
    }

    /// What one does with it.
    #[inline]
    pub fn semaphore(&self) -> Semaphore<'_> {
        // SAFETY: in the segment's mapping, which stays where it is for as long as `self` lives.
        Semaphore { words: unsafe { self.words.as_ref() } }
    }

    /// Its file.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }
}

/// Where the semaphore lies in its file.
fn region(segment: &Segment) -> Result<Region<'_>> {
    segment.word64(HEADER_BYTES + size_of::<SemaphoreWords>())?;
    let first = NonNull::from(segment.word64(HEADER_BYTES)?).cast::<u8>();
    // SAFETY: both ends are mapped, for as long as the segment is borrowed.
    Ok(unsafe { Region::new(first, size_of::<SemaphoreWords>()) })
}
