//! A process-shared barrier: `pthread_barrier_wait(3p)`.
//!
//! # What a user sees
//! [`Barrier::wait`] returns when as many have come as the barrier was made for: `true` to one of them, the last. It is
//! used again at once, for the next round.
//!
//! Only the living count. A party that is killed while it waits, or whose deadline passes, has not come: another one must
//! come in its place. Who was killed after the round was complete had come.
//!
//! # How it works inside
//! Who comes takes the barrier's lock (`robust`) and counts the living who have come for this round: each has a slot, which
//! the kernel marks at its death. The one that completes the round moves `round` on and wakes the others; it needs no slot.
//! There are twice as many slots as parties, since those of the last round may be still on their way out; a party for which
//! none is free waits for one.
//!
//! # Crash points
//! | killed | the others |
//! | --- | --- |
//! | waiting | its slot is marked: it does not count |
//! | having completed the round, before it has woken the others | the lock's holder is dead: the kernel wakes one, who tells all |
//! | on its way out | its slot is marked, and of an older round |

use std::time::{Duration, Instant};

use super::condvar::Halves;
use super::region::{Region, Words};
use super::robust::{Call, Robust, Slept};
use super::slots::Slot;
use crate::primitive::{AtomicU64, Ordering, Thread, futex_wake};
use crate::wait::Patience;
use crate::{Errno, Result};

/// "ginnelBa".
const MAGIC: u64 = u64::from_le_bytes(*b"ginnelBa");
/// For how many parties at most.
const PARTIES_MAX: u32 = 1 << 16;
/// How long after its deadline a party tries to leave in an orderly way: whoever was stopped with the lock keeps it longer.
const GRACE: Duration = Duration::from_secs(1);
/// How often to ask for parties that nothing would tell of.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The state of a slot.
const WAITING: u64 = 1;

#[repr(C, align(64))]
#[derive(Debug)]
struct BarrierWords {
    parties: AtomicU64,
    round: Halves,
    unused: [AtomicU64; 6],
}

// SAFETY: atomics only.
#[allow(unsafe_code)]
unsafe impl Words for BarrierWords {}

const _: () = assert!(size_of::<BarrierWords>() == 64);

/// A barrier in shared memory.
///
/// ```
/// use ginnel_engine::sync::barrier::Barrier;
/// use ginnel_engine::sync::region::Region;
///
/// let region = Region::anonymous(Barrier::size_bytes(3))?;
/// let start = Barrier::init(region, 0, 3)?;
/// let parties: Vec<_> = (0..3).map(|_| std::thread::spawn(move || start.wait(None))).collect();
/// let leaders = parties.into_iter().filter(|_| true).map(|party| party.join().unwrap());
/// assert_eq!(leaders.filter(|leads| *leads == Ok(true)).count(), 1);
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Barrier<'a> {
    robust: &'a Robust,
    words: &'a BarrierWords,
    slots: &'a [Slot],
    parties: usize,
}

impl<'a> Barrier<'a> {
    /// What its address is a multiple of.
    pub const ALIGN: usize = align_of::<Robust>();

    /// How many bytes a barrier for so many takes.
    pub const fn size_bytes(parties: u32) -> usize {
        size_of::<Robust>() + size_of::<BarrierWords>() + 2 * parties as usize * size_of::<Slot>()
    }

    /// Makes a barrier for so many parties. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: no party, or more than 65,536; it does not lie within the region, or is not aligned.
    pub fn init(region: Region<'a>, offset: usize, parties: u32) -> Result<Barrier<'a>> {
        let barrier = Barrier::place(region, offset, parties)?;
        barrier.robust.init(0);
        barrier.words.parties.store(u64::from(parties), Ordering::Relaxed);
        barrier.words.round.store(0);
        barrier.slots.iter().for_each(Slot::init);
        barrier.robust.init(MAGIC);
        Ok(barrier)
    }

    /// The barrier that somebody has made here.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none, or it would not lie within the region. `EINVAL` as [`Barrier::init`].
    pub fn open(region: Region<'a>, offset: usize) -> Result<Barrier<'a>> {
        region.place::<Robust>(offset)?.check(MAGIC)?;
        let words: &BarrierWords = region.place(offset + size_of::<Robust>())?;
        let parties = u32::try_from(words.parties.load(Ordering::Relaxed)).map_err(|_| Errno::UCLEAN)?;
        Barrier::place(region, offset, parties).map_err(|_| Errno::UCLEAN)
    }

    fn place(region: Region<'a>, offset: usize, parties: u32) -> Result<Barrier<'a>> {
        if parties == 0 || parties > PARTIES_MAX {
            return Err(Errno::INVAL);
        }
        let robust = region.place(offset)?;
        let words = region.place(offset + size_of::<Robust>())?;
        let slots_at = offset + size_of::<Robust>() + size_of::<BarrierWords>();
        let slots = region.places(slots_at, 2 * parties as usize)?;
        Ok(Barrier { robust, words, slots, parties: parties as usize })
    }

    /// For how many parties it is.
    pub fn parties(&self) -> u32 {
        self.parties as u32
    }

    /// Waits until all have come. Whether this party completed the round: the last to come has.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; this party does not count. `EUCLEAN`: the barrier was overwritten. `ENOLCK`: this
    /// thread is in too many locks. `EOPNOTSUPP`: the C library would not let its death be told.
    ///
    /// # Blocking
    /// Until all have come. No signal ends that.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let thread = Thread::current();
        self.robust.lock_whole(thread, deadline.map_or(Patience::Endless, Patience::Until))?;
        loop {
            let round = self.words.round.load();
            let here = |slot: &&Slot| slot.is_alive() && slot.number.load() == round;
            if self.slots.iter().filter(here).count() + 1 >= self.parties {
                self.words.round.store(round.wrapping_add(1));
                futex_wake(self.words.round.low(), i32::MAX as u32);
                return self.robust.unlock(thread).map(|()| true);
            }
            let Some(slot) = self.slots.iter().find(|slot| slot.is_free() || slot.is_dead()) else {
                self.wait_for_slot(thread, deadline)?;
                continue;
            };
            if let Err(errno) = slot.take(thread, WAITING, round) {
                let _ = self.robust.unlock(thread);
                return Err(errno);
            }
            return self.wait_in(slot, round, thread, deadline).map(|()| false);
        }
    }

    /// In a slot, until the round is complete.
    fn wait_in(&self, slot: &Slot, round: u64, thread: Thread, deadline: Option<Instant>) -> Result<()> {
        let relock = deadline.map_or(Patience::Endless, |deadline| Patience::Until(deadline + GRACE));
        let call = Call { words: self.words.round.words(round), bell: None, deadline, relock };
        let unchanged = || self.words.round.load() == round;
        loop {
            let (slept, locked) = self.robust.sleep_whole(thread, &call, unchanged);
            if let Err(errno) = locked {
                slot.abandon(thread, self.robust);
                return if unchanged() { Err(errno) } else { Ok(()) };
            }
            let outcome = match slept {
                _ if !unchanged() => Ok(()),
                Slept::TimedOut => Err(Errno::TIMEDOUT),
                Slept::Look => continue,
            };
            let left = slot.leave(thread);
            let unlocked = self.robust.unlock(thread);
            return outcome.and(left).and(unlocked);
        }
    }

    /// Those of the round before are on their way out.
    #[cold]
    fn wait_for_slot(&self, thread: Thread, deadline: Option<Instant>) -> Result<()> {
        self.slots.iter().for_each(Slot::ask);
        if self.slots.iter().any(Slot::is_dead) {
            return Ok(());
        }
        let round = self.words.round.load();
        let Some(slot) = self.slots.iter().find(|slot| slot.number.load() != round) else {
            let _ = self.robust.unlock(thread);
            return Err(Errno::UCLEAN);
        };
        let seen = slot.listen();
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            let _ = self.robust.unlock(thread);
            return Err(Errno::TIMEDOUT);
        }
        let look = now + ASK_AGAIN;
        let until = deadline.map_or(look, |deadline| deadline.min(look));
        let relock = deadline.map_or(Patience::Endless, |deadline| Patience::Until(deadline + GRACE));
        let call = Call { words: slot.words(seen), bell: None, deadline: Some(until), relock };
        self.robust.sleep_whole(thread, &call, || slot.is_same(seen)).1
    }
}
