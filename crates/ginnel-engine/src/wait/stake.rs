//! Stakes: what a thread or a process holds in an object, given back by others when it dies.
//!
//! # What a user of it sees
//! A *thread's stake* ([`Waiters::stake`]) lasts for a part of an operation, or for as long as a thread holds something.
//! A *process's stake* ([`Waiters::stake_of_process`]) lasts until the process is gone, whichever of its threads took it,
//! and also when the process becomes another program (`exec`). When the holder is dead, whoever enters next calls
//! [`Object::forfeit`](super::Object::forfeit), and those who are blocked hear of the death.
//!
//! # How it works inside
//! A stake is a slot in the list of the blocked, with a `life` as theirs. It has `FUTEX_WAITERS` set, so that the kernel
//! wakes one who listens to that very word: the first sleeper behind it in the ring (see `slots`).
//!
//! A process's stake is watched through the thread that took it. When that thread ends, the stake is *unwatched*: whoever
//! enters asks whether the process is gone (without the lock, see `process`), and sleepers look from time to time. The
//! next use by the process has it watched again. So is one whose thread has as many watched words as the kernel would go
//! through: a process may hold something in any number of objects.
//!
//! # Crash points
//! | killed | what the others find |
//! | --- | --- |
//! | before its slot is committed | undone with the journal; a mark in a free slot says nothing |
//! | with the stake | its slot marked: `forfeit` |
//! | having committed that it gives it up | a free slot; the mark says nothing |
//! | in the middle of a `forfeit` | done again by the next, from its last checkpoint |

#[cfg(not(ginnel_model))]
use super::slots::ENTRY;
use super::slots::{
    DIRTY, EPOCH, FIRST_WORD, HELD, HELD_BY_PROCESS, HELD_UNWATCHED, HIGH, Link, PROCESS, SLEEPERS, SLOT,
    START_WORD, STATE, UNWATCHED,
};
use super::{Object, WORDS, Waiters, Words};
use crate::lock::Guard;
use crate::primitive::{AtomicU32, OWNER_DIED, Ordering, Thread, WAITERS, futex_wake};
use crate::process::Process;
use crate::segment::Segment;
use crate::{Errno, Result};

/// How many processes to ask for at once.
const ASKED_MAX: usize = 16;

/// What the calling thread holds in an object. Dropped without [`Waiters::give_up`], it is forfeited as a dead one's.
///
/// See [`Waiters::stake`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::lock::Guard;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
/// use ginnel_engine::wait::{Object, Waiters, Words};
/// use ginnel_engine::{Errno, Result};
///
/// /// Lends one thing: its word is 0 while it is lent.
/// struct Lender;
///
/// impl Object for Lender {
///     fn attempt(&self, _: &mut Guard<'_>, _: &mut Words) -> Result<bool> {
///         Ok(false)
///     }
///
///     fn take_back(&self, _: &mut Guard<'_>, _: &Words) -> Result<()> {
///         Ok(())
///     }
///
///     fn forfeit(&self, guard: &mut Guard<'_>, _: &Words) -> Result<()> {
///         guard.set(HEADER_BYTES, 1)
///     }
/// }
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// let segment = Segment::create(&directory, c"lender", mode, 1 << 20, |_| Ok(()))?;
/// let waiters = Waiters::of(&segment, HEADER_BYTES + 64, 100, &Lender)?;
/// waiters.make_room(Patience::Endless)?;
/// let mut guard = waiters.enter(None)?;
/// let stake = waiters.stake(&mut guard, &[0; 7])?; // whoever dies from here on, the thing comes back
/// guard.commit();
///
/// let mut guard = waiters.enter(None)?;
/// guard.set(HEADER_BYTES, 1)?;
/// waiters.give_up(&mut guard, stake)?;
/// waiters.serve_others(guard)?;
/// # Ok::<(), Errno>(())
/// ```
#[derive(Debug)]
pub struct Stake<'a> {
    segment: &'a Segment,
    base: usize,
    slot: usize,
    life: &'a AtomicU32,
    bell: &'a AtomicU32,
    thread: Thread,
    linked: Option<Link<'a>>,
}

/// Which slot is the stake of the calling process: to be kept in memory of its own, and checked at each use by
/// [`Waiters::stake_is_own`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::lock::Guard;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
/// use ginnel_engine::wait::{Object, Waiters, Words};
/// use ginnel_engine::{Errno, Result};
///
/// /// Lends one thing: its word is 0 while it is lent.
/// struct Lender;
///
/// impl Object for Lender {
///     fn attempt(&self, _: &mut Guard<'_>, _: &mut Words) -> Result<bool> {
///         Ok(false)
///     }
///
///     fn take_back(&self, _: &mut Guard<'_>, _: &Words) -> Result<()> {
///         Ok(())
///     }
///
///     fn forfeit(&self, guard: &mut Guard<'_>, _: &Words) -> Result<()> {
///         guard.set(HEADER_BYTES, 1)
///     }
/// }
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// let segment = Segment::create(&directory, c"lender", mode, 1 << 20, |_| Ok(()))?;
/// let waiters = Waiters::of(&segment, HEADER_BYTES + 64, 100, &Lender)?;
/// waiters.make_room(Patience::Endless)?;
/// let mut guard = waiters.enter(None)?;
/// let stake = waiters.stake_of_process(&mut guard, &[0; 7])?; // to the end of this process
/// assert!(waiters.stake_is_own(&mut guard, stake)?);
/// waiters.leave(guard);
/// # Ok::<(), Errno>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStake(usize);

impl ProcessStake {
    /// Where its word stands: `index` is less than [`WORDS`] - 1.
    pub fn word_offset(self, index: usize) -> usize {
        self.0 + FIRST_WORD + 8 * index
    }

    /// Where its room begins, see [`Waiters::with_room`].
    pub(crate) fn room(self) -> usize {
        self.0 + SLOT
    }

    /// Whether it is the calling process's still, and watched.
    #[inline]
    pub(crate) fn is_own(self, guard: &Guard<'_>) -> Result<bool> {
        Ok(guard.get(self.0 + STATE)? == HELD_BY_PROCESS
            && guard.get(self.0 + PROCESS)? == u64::from(guard.process())
            && guard.get(self.word_offset(START_WORD))? == Process::current().start)
    }

    /// The object has been removed: nobody asks for this stake any more, and this thread has room for another. Where
    /// another thread has taken it, nothing changes.
    #[cfg(not(ginnel_model))]
    pub(crate) fn let_go(self, segment: &Segment) {
        if segment.word64(self.0 + ENTRY).is_ok_and(|entry| Thread::current().unlink_entry(entry)) {
            segment.unlinked();
        }
    }

    /// As a number, for a cell that threads share: none is 0.
    pub(crate) fn to_raw(self) -> usize {
        self.0
    }

    pub(crate) fn from_raw(raw: usize) -> Option<ProcessStake> {
        (raw != 0).then_some(ProcessStake(raw))
    }
}

impl Stake<'_> {
    /// Where its word stands: `index` is less than [`WORDS`].
    pub fn word_offset(&self, index: usize) -> usize {
        self.slot + FIRST_WORD + 8 * index
    }
}

impl<'a, O: Object> Waiters<'a, O> {
    /// The calling thread holds something from the moment that this transaction is committed; `words` say what.
    ///
    /// # Errors
    /// `ENOBUFS`: give the lock back, [`Waiters::make_room`], and do all of it again. `ENOSPC`: too many slots in use.
    /// `EUCLEAN`. `EOPNOTSUPP`: this thread's C library would not let its death be told.
    pub fn stake(&self, guard: &mut Guard<'a>, words: &Words) -> Result<Stake<'a>> {
        let thread = Thread::current();
        let (slot, life, linked) = self.take_slot(guard, thread, words, HELD)?;
        let bell = self.bell()?;
        let linked = Some(linked);
        Ok(Stake { segment: self.segment, base: self.base, slot, life, bell, thread, linked })
    }

    /// Ends a stake, and commits the transaction in which what it held is given back. To be followed by
    /// [`Waiters::serve_others`].
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn give_up(&self, guard: &mut Guard<'a>, stake: Stake<'a>) -> Result<()> {
        let mut stake = stake;
        if !std::ptr::eq(stake.segment, self.segment)
            || stake.base != self.base
            || guard.get(stake.slot + STATE)? != HELD
        {
            return Err(Errno::UCLEAN);
        }
        self.unlink(guard, stake.slot)?;
        // What was given back may let others go on: whoever comes next serves them, should this thread be killed first.
        if self.get(guard, SLEEPERS)? != 0 {
            self.set(guard, DIRTY, 1)?;
        }
        guard.checkpoint();
        // As in `Seat::give_up`.
        stake.life.store(0, Ordering::Release);
        stake.linked = None;
        Ok(())
    }

    /// The calling process holds something, to its end: what it is may be written into the words later. The last word is
    /// taken for the process's start. Commits: for the beginning of a transaction.
    ///
    /// # Errors
    /// As [`Waiters::stake`].
    pub fn stake_of_process(&self, guard: &mut Guard<'_>, words: &Words) -> Result<ProcessStake> {
        let (process, thread) = (Process::current(), Thread::current());
        let mut words = *words;
        words[START_WORD] = process.start;
        if !thread.has_room() {
            return self.stake_unwatched(guard, thread, &words);
        }
        let (slot, _, linked) = self.take_slot(guard, thread, &words, HELD_BY_PROCESS)?;
        guard.checkpoint();
        // The kernel goes through the list when the thread ends: the memory stays.
        std::mem::forget(linked);
        Ok(ProcessStake(slot))
    }

    #[cold]
    fn stake_unwatched(&self, guard: &mut Guard<'_>, thread: Thread, words: &Words) -> Result<ProcessStake> {
        let index = self.index_for_next(guard)?;
        let slot = self.slot(index);
        if !self.has_room(guard)? {
            return Err(Errno::NOBUFS);
        }
        self.fill_words(guard, slot, thread, words)?;
        self.append(guard, index, HELD_UNWATCHED)?;
        self.add(guard, UNWATCHED, 1)?;
        guard.checkpoint();
        Ok(ProcessStake(slot))
    }

    fn take_slot(
        &self,
        guard: &mut Guard<'_>,
        thread: Thread,
        words: &Words,
        state: u64,
    ) -> Result<(usize, &'a AtomicU32, Link<'a>)> {
        let index = self.index_for_next(guard)?;
        let slot = self.slot(index);
        if !self.has_room(guard)? {
            return Err(Errno::NOBUFS);
        }
        let (life, linked) = self.fill(guard, slot, thread, words)?;
        self.append(guard, index, state)?;
        Ok((slot, life, linked))
    }

    /// Whether this stake is the calling process's still. If nothing would tell of the process's end, something will from
    /// here on; that commits: for the beginning of a transaction.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn stake_is_own(&self, guard: &mut Guard<'_>, stake: ProcessStake) -> Result<bool> {
        let process = u64::from(guard.process());
        if guard.get(stake.0 + PROCESS)? != process {
            return Ok(false);
        }
        match guard.get(stake.0 + STATE)? {
            HELD_BY_PROCESS => Ok(guard.get(stake.word_offset(START_WORD))? == Process::current().start),
            HELD_UNWATCHED if guard.get(stake.word_offset(START_WORD))? == Process::current().start => {
                self.watch_again(guard, stake.0).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// The stake of the calling process, where it has none at hand: after `exec`, or in another handle.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn find_own_stake(&self, guard: &mut Guard<'_>) -> Result<Option<ProcessStake>> {
        for index in 0..self.get(guard, HIGH)?.min(self.capacity) {
            let stake = ProcessStake(self.slot(index));
            if self.stake_is_own(guard, stake)? {
                return Ok(Some(stake));
            }
        }
        Ok(None)
    }

    /// Goes through the stakes of processes.
    ///
    /// # Errors
    /// `EUCLEAN`, and what `see` fails with.
    pub fn for_each_process_stake(
        &self,
        guard: &mut Guard<'_>,
        mut see: impl FnMut(&mut Guard<'_>, ProcessStake) -> Result<()>,
    ) -> Result<()> {
        for index in 0..self.get(guard, HIGH)?.min(self.capacity) {
            let slot = self.slot(index);
            if matches!(guard.get(slot + STATE)?, HELD_BY_PROCESS | HELD_UNWATCHED) {
                see(guard, ProcessStake(slot))?;
            }
        }
        Ok(())
    }

    #[cold]
    fn watch_again(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        let thread = Thread::current();
        if !thread.has_room() {
            return Ok(());
        }
        let (_, linked) = self.bring_to_life(slot, thread)?;
        std::mem::forget(linked);
        guard.set(slot + STATE, HELD_BY_PROCESS)?;
        self.add(guard, UNWATCHED, -1)?;
        self.touch_sleeper_after(guard, slot)?;
        self.add(guard, EPOCH, 1)?;
        guard.checkpoint();
        Ok(())
    }

    /// A process's stake whose thread has ended.
    pub(super) fn unwatch(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        guard.set(slot + STATE, HELD_UNWATCHED)?;
        self.add(guard, UNWATCHED, 1)?;
        self.touch_sleeper_after(guard, slot)?;
        self.add(guard, EPOCH, 1)?;
        guard.checkpoint();
        Ok(())
    }

    /// Those of the unwatched stakes whose processes are gone. The lock is not needed: each is looked at again with it.
    pub(super) fn gone(&self) -> Result<[Option<(usize, Process)>; ASKED_MAX]> {
        let mut gone = [None; ASKED_MAX];
        let mut count = 0;
        for index in 0..self.high()? {
            let slot = self.slot(index);
            if self.segment.word64(slot + STATE)?.load(Ordering::Acquire) != HELD_UNWATCHED {
                continue;
            }
            let Some(place) = gone.get_mut(count) else { break };
            let holder = self.holder(slot)?;
            if holder.is_gone() {
                *place = Some((slot, holder));
                count += 1;
            }
        }
        Ok(gone)
    }

    pub(super) fn holder(&self, slot: usize) -> Result<Process> {
        let id = self.segment.word64(slot + PROCESS)?.load(Ordering::Acquire) as u32;
        let start = self.segment.word64(slot + FIRST_WORD + 8 * START_WORD)?.load(Ordering::Acquire);
        Ok(Process { id, start })
    }

    /// Gives back what dead holders held.
    pub(super) fn forfeit(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        let words = self.words(guard, slot)?;
        self.object.forfeit(guard, &words)?;
        self.unlink(guard, slot)
    }
}

const _: () = assert!(START_WORD < WORDS);

impl Drop for Stake<'_> {
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if !self.linked.as_ref().is_some_and(Link::is_own) {
            return;
        }
        let dead = WAITERS | OWNER_DIED;
        let own = self.thread.id() | WAITERS;
        let left = self.life.compare_exchange(own, dead, Ordering::SeqCst, Ordering::SeqCst);
        self.linked = None;
        if left.is_ok() {
            futex_wake(self.life, 1);
            futex_wake(self.bell, 1);
        }
    }
}
