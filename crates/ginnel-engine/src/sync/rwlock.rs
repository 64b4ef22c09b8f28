//! A process-shared read-write lock: `pthread_rwlock_rdlock(3p)`, `pthread_rwlock_wrlock(3p)`.
//!
//! # What a user sees
//! Many [read](RwLock::read), or one [writes](RwLock::write). First come, first served: who reads waits for the writers that
//! came before it, who writes waits for all that came before it. So neither starves. One who holds it and comes again would
//! wait for itself: `EDEADLK`.
//!
//! Its holders may die at any instruction. Of a reader's death nothing is to be seen. A writer's leaves what it guards half
//! changed, perhaps: who comes next is told [`Locked::OwnerDied`], readers as well as writers, until a writer has said
//! [`RwLock::mark_consistent`]. If a writer that was told unlocks without that, nobody gets the lock any more
//! (`ENOTRECOVERABLE`), as with a mutex.
//!
//! It is made for a number of holders: those who hold it and those who wait, together.
//!
//! # How it works inside
//! Each who holds it or waits has a slot with a number, in the order in which they came. Nothing else says who holds the
//! lock: whoever has nobody in front of it that it has to wait for. Who waits sleeps on the slot of the last one that it has
//! to wait for, and looks again when that slot is left, or marked by the kernel. All this with a lock of its own held
//! (`robust`), which also passes on what the dead were told.
//!
//! # Crash points
//! | killed | the others |
//! | --- | --- |
//! | waiting | its slot is marked; who sleeps on it is woken and buries it |
//! | reading | as above |
//! | writing | as above, and `health` says so from then on |
//! | having left its slot, before it has woken who slept on it | the lock's holder is dead: the kernel wakes one, who tells all |
//!
//! A slot counts as holding from the moment in which `state` says so; before, its owner has not returned.

use std::time::{Duration, Instant};

use super::region::{Region, Words};
use super::robust::{Call, Locked, Robust, Slept};
use super::slots::Slot;
use crate::primitive::{AtomicU64, Ordering, Thread};
use crate::wait::Patience;
use crate::{Errno, Result};

/// "ginnelRw".
const MAGIC: u64 = u64::from_le_bytes(*b"ginnelRw");
const HOLDERS_MAX: u32 = 1 << 16;
/// As in `barrier`.
const GRACE: Duration = Duration::from_secs(1);

// The state of a slot: what it is for, and whether it holds the lock.
const READ: u64 = 1;
const WRITE: u64 = 2;
const HOLDS: u64 = 4;

// The health of what is guarded.
const WHOLE: u64 = 0;
const WRITER_DIED: u64 = 1;
const NOT_RECOVERABLE: u64 = 2;

#[repr(C, align(64))]
#[derive(Debug)]
struct RwLockWords {
    holders_max: AtomicU64,
    /// The number of the next who comes.
    next: AtomicU64,
    health: AtomicU64,
    /// How many slots have ever been used: the others need not be looked at.
    high: AtomicU64,
    unused: [AtomicU64; 4],
}

// SAFETY: atomics only.
#[allow(unsafe_code)]
unsafe impl Words for RwLockWords {}

const _: () = assert!(size_of::<RwLockWords>() == 64);

/// A read-write lock in shared memory.
///
/// ```
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::sync::rwlock::RwLock;
/// use ginnel_engine::wait::Patience;
/// use ginnel_engine::Errno;
///
/// let region = Region::anonymous(RwLock::size_bytes(32))?;
/// let lock = RwLock::init(region, 0, 32)?;
/// let reading = lock.read(Patience::Endless)?;
/// let (other, writer) = std::thread::spawn(move || {
///     let other = lock.read(Patience::None).and_then(|reading| lock.unlock(reading));
///     (other, lock.write(Patience::None).map(drop))
/// })
/// .join()
/// .unwrap();
/// assert_eq!((other, writer), (Ok(()), Err(Errno::BUSY)));
/// lock.unlock(reading)?;
///
/// let writing = lock.write(Patience::Endless)?;
/// lock.unlock(writing)?;
/// # Ok::<(), Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RwLock<'a> {
    robust: &'a Robust,
    words: &'a RwLockWords,
    slots: &'a [Slot],
}

/// A read-write lock, held by the calling thread: for [`RwLock::unlock`]. Dropped, it stays held to the thread's end.
///
/// ```
/// use ginnel_engine::sync::mutex::Locked;
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::sync::rwlock::RwLock;
/// use ginnel_engine::wait::Patience;
///
/// let lock = RwLock::init(Region::anonymous(RwLock::size_bytes(4))?, 0, 4)?;
/// let writing = lock.write(Patience::Endless)?;
/// assert!(writing.is_write() && writing.locked() == Locked::Whole);
/// lock.unlock(writing)?;
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Debug)]
#[must_use = "it is held until it is unlocked"]
pub struct Hold {
    slot: usize,
    number: u64,
    kind: u64,
    locked: Locked,
}

impl Hold {
    /// Whether a writer has died with the lock.
    pub fn locked(&self) -> Locked {
        self.locked
    }

    /// Whether it is held for writing.
    pub fn is_write(&self) -> bool {
        self.kind == WRITE
    }
}

impl<'a> RwLock<'a> {
    /// What its address is a multiple of.
    pub const ALIGN: usize = align_of::<Robust>();

    /// How many bytes a lock for so many holders takes, those who wait included.
    pub const fn size_bytes(holders_max: u32) -> usize {
        size_of::<Robust>() + size_of::<RwLockWords>() + holders_max as usize * size_of::<Slot>()
    }

    /// Makes a read-write lock. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: for no holder, or for more than 65,536; it does not lie within the region, or is not aligned.
    pub fn init(region: Region<'a>, offset: usize, holders_max: u32) -> Result<RwLock<'a>> {
        let lock = RwLock::place(region, offset, holders_max)?;
        lock.robust.init(0);
        lock.words.holders_max.store(u64::from(holders_max), Ordering::Relaxed);
        lock.words.next.store(1, Ordering::Relaxed);
        lock.words.health.store(WHOLE, Ordering::Relaxed);
        lock.words.high.store(0, Ordering::Relaxed);
        lock.slots.iter().for_each(Slot::init);
        lock.robust.init(MAGIC);
        Ok(lock)
    }

    /// The lock that somebody has made here.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none, or it would not lie within the region. `EINVAL` as [`RwLock::init`].
    pub fn open(region: Region<'a>, offset: usize) -> Result<RwLock<'a>> {
        region.place::<Robust>(offset)?.check(MAGIC)?;
        let words: &RwLockWords = region.place(offset + size_of::<Robust>())?;
        let max = u32::try_from(words.holders_max.load(Ordering::Relaxed)).map_err(|_| Errno::UCLEAN)?;
        RwLock::place(region, offset, max).map_err(|_| Errno::UCLEAN)
    }

    fn place(region: Region<'a>, offset: usize, holders_max: u32) -> Result<RwLock<'a>> {
        if holders_max == 0 || holders_max > HOLDERS_MAX {
            return Err(Errno::INVAL);
        }
        let robust = region.place(offset)?;
        let words = region.place(offset + size_of::<Robust>())?;
        let slots_at = offset + size_of::<Robust>() + size_of::<RwLockWords>();
        Ok(RwLock { robust, words, slots: region.places(slots_at, holders_max as usize)? })
    }

    /// Takes it for reading.
    ///
    /// # Errors
    /// `EBUSY`: it would have to wait ([`Patience::None`]). `ETIMEDOUT`. `EDEADLK`: it would wait for this thread.
    /// `ENOTRECOVERABLE`: a writer died, and the next did not put it right. `ENOLCK`: as many hold it or wait as it was made
    /// for, or this thread is in too many locks. `EUCLEAN`: it was overwritten. `EOPNOTSUPP`: the C library would not let
    /// the thread's death be told.
    ///
    /// # Blocking
    /// While a writer is in front. No signal ends that.
    pub fn read(&self, patience: Patience) -> Result<Hold> {
        self.lock(READ, patience)
    }

    /// Takes it for writing.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    ///
    /// # Blocking
    /// While anybody is in front. No signal ends that.
    pub fn write(&self, patience: Patience) -> Result<Hold> {
        self.lock(WRITE, patience)
    }

    fn lock(&self, kind: u64, patience: Patience) -> Result<Hold> {
        let thread = Thread::current();
        // The lock inside is another's for an instant only, unless that one was stopped.
        let inside =
            if patience == Patience::None { Patience::Until(Instant::now() + GRACE) } else { patience };
        self.robust.lock_whole(thread, inside).map_err(|errno| match errno {
            Errno::TIMEDOUT if patience == Patience::None => Errno::BUSY,
            errno => errno,
        })?;
        let place = match self.come(kind, thread, patience) {
            Ok(place) => place,
            Err(errno) => {
                let _ = self.robust.unlock(thread);
                return Err(errno);
            }
        };
        let number = self.slots[place].number.load();
        self.wait_in(place, number, kind, thread, patience)?;
        let slot = &self.slots[place];
        let locked = match self.words.health.load(Ordering::SeqCst) {
            WHOLE => Ok(Locked::Whole),
            WRITER_DIED => Ok(Locked::OwnerDied),
            NOT_RECOVERABLE => Err(Errno::NOTRECOVERABLE),
            _ => Err(Errno::UCLEAN),
        };
        match locked {
            Ok(_) => slot.state.store(kind | HOLDS, Ordering::Release),
            Err(_) => drop(slot.leave(thread)),
        }
        // Whatever was overwritten in the lock inside: this one is held.
        let _ = self.robust.unlock(thread);
        Ok(Hold { slot: place, number, kind, locked: locked? })
    }

    /// Takes a slot at the end of the line.
    fn come(&self, kind: u64, thread: Thread, patience: Patience) -> Result<usize> {
        self.bury_the_dead();
        let number = self.words.next.load(Ordering::SeqCst);
        let mut in_front = self.used().iter().filter(|slot| slot.is_alive() && is_for(kind, slot));
        if in_front.next().is_some() {
            let own = |slot: &Slot| slot.is_of(thread) && slot.state.load(Ordering::SeqCst) & HOLDS != 0;
            if self.used().iter().any(own) {
                return Err(Errno::DEADLK);
            }
            if patience == Patience::None {
                return Err(Errno::BUSY);
            }
        }
        let place = self.slots.iter().position(Slot::is_free).ok_or(Errno::NOLCK)?;
        self.words.next.store(number.wrapping_add(1), Ordering::Release);
        if self.words.high.load(Ordering::Relaxed) <= place as u64 {
            self.words.high.store(place as u64 + 1, Ordering::Release);
        }
        self.slots[place].take(thread, kind, number)?;
        Ok(place)
    }

    /// Until nobody is in front. In case of an error the slot was left, and the lock inside is not held.
    fn wait_in(
        &self,
        place: usize,
        number: u64,
        kind: u64,
        thread: Thread,
        patience: Patience,
    ) -> Result<()> {
        let deadline = if let Patience::Until(deadline) = patience { Some(deadline) } else { None };
        let relock = deadline.map_or(Patience::Endless, |deadline| Patience::Until(deadline + GRACE));
        let own = &self.slots[place];
        loop {
            let in_front =
                |slot: &&Slot| slot.is_alive() && is_for(kind, slot) && slot.number.load() < number;
            let last = self.used().iter().filter(in_front).max_by_key(|slot| slot.number.load());
            let Some(last) = last else { return Ok(()) };
            last.ask();
            let seen = last.listen();
            let call = Call { words: last.words(seen), bell: None, deadline, relock };
            let (slept, locked) = self
                .robust
                .sleep_whole(thread, &call, || last.is_same(seen) && last.is_alive() && own.is_of(thread));
            if let Err(errno) = locked {
                own.abandon(thread, self.robust);
                return Err(errno);
            }
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if slept == Slept::TimedOut || (over && in_front(&last)) || !own.is_of(thread) {
                let left = own.leave(thread);
                let _ = self.robust.unlock(thread);
                return left.and(Err(Errno::TIMEDOUT));
            }
            self.bury_the_dead();
        }
    }

    /// Those slots that may be in use.
    fn used(&self) -> &'a [Slot] {
        let high = usize::try_from(self.words.high.load(Ordering::SeqCst)).unwrap_or(usize::MAX);
        &self.slots[..high.min(self.slots.len())]
    }

    fn bury_the_dead(&self) {
        for slot in self.used() {
            if slot.is_dead() {
                if slot.state.load(Ordering::SeqCst) == WRITE | HOLDS {
                    let health = &self.words.health;
                    let _ = health.compare_exchange(WHOLE, WRITER_DIED, Ordering::SeqCst, Ordering::SeqCst);
                }
                slot.bury();
            }
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// `EPERM`: it is not this thread's, or another lock's. `EUCLEAN`: it was overwritten; this thread holds it no more.
    pub fn unlock(&self, hold: Hold) -> Result<()> {
        let thread = Thread::current();
        let slot = self.slots.get(hold.slot).ok_or(Errno::PERM)?;
        self.robust.lock_whole(thread, Patience::Endless)?;
        let is_own = slot.number.load() == hold.number && slot.is_linked(thread);
        if is_own && hold.kind == WRITE {
            let health = &self.words.health;
            if health.load(Ordering::Relaxed) == WRITER_DIED {
                // As with a mutex: nobody else can know.
                health.store(NOT_RECOVERABLE, Ordering::Release);
            }
        }
        let left = if is_own { slot.leave(thread) } else { Err(Errno::PERM) };
        left.and(self.robust.unlock(thread))
    }

    /// What the lock guards has been put right, by a writer.
    ///
    /// # Errors
    /// `EINVAL`: no writer has died, or this is no writer's.
    pub fn mark_consistent(&self, hold: &Hold) -> Result<()> {
        let thread = Thread::current();
        let slot = self.slots.get(hold.slot).ok_or(Errno::INVAL)?;
        let own = hold.kind == WRITE && slot.is_of(thread) && slot.number.load() == hold.number;
        let health = &self.words.health;
        if own && health.compare_exchange(WRITER_DIED, WHOLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Ok(());
        }
        Err(Errno::INVAL)
    }
}

/// Whether who comes for `kind` has to wait for who is in this slot.
fn is_for(kind: u64, slot: &Slot) -> bool {
    kind == WRITE || slot.state.load(Ordering::SeqCst) & WRITE != 0
}
