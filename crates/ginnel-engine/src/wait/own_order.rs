//! For an object that serves in an order of its own, and whose blocked operations need more than their words.

use super::slots::{
    DIRTY, FIRST_WORD, HEAD, HEADER, HELD_BY_PROCESS, HELD_UNWATCHED, HIGH, LIFE, MEMBERS, NEXT, PROCESS,
    SERVED, SLEEPERS, SLEEPING, SLOT, STATE, UNWATCHED,
};
use super::{LOOKS_MAX, Object, Patience, WORDS, Waiters, Words};
use crate::lock::{Change, Guard, Lock};
use crate::primitive::{OWNER_DIED, Ordering, Thread, Watch};
use crate::segment::Segment;
use crate::{Errno, Result, spin};

/// One blocked operation, shown by [`Waiters::walk`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocked {
    slot: usize,
    /// Where its room begins, see [`Waiters::with_room`].
    pub(crate) room: usize,
    pub(crate) words: Words,
}

/// Where [`Waiters::walk`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    FromTheFirst,
}

/// Where the waiters of an object are: what [`Waiters::with_room`] is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base: usize,
    pub(crate) capacity: u32,
    pub(crate) room: usize,
}

/// What came of an attempt in [`Place::run_alone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Done,
    /// It must wait.
    Waits,
    /// It is to be done in the general way.
    Otherwise,
}

/// What came of [`Place::run_alone`].
pub(crate) enum Alone {
    Done,
    /// To be done in the general way.
    Otherwise(General),
}

/// How an operation goes on in the general way.
#[derive(Default)]
pub(crate) struct General {
    /// While it is kept, those who are blocked hear of this thread's death.
    #[allow(dead_code, reason = "kept, not read")]
    pub(crate) watch: Option<Watch>,
    /// It must wait, and has looked for what it waits for.
    pub(crate) has_looked: bool,
    /// It had to wait: from then on, to the caller, it is blocked.
    pub(crate) has_waited: bool,
}

impl Place {
    /// Does an operation if nobody is blocked and nothing is left to do, as it mostly is, and if `attempt` can do it; else
    /// nothing was done. Less than [`Waiters::run`] has to, in as few steps as
    /// possible: nobody is to be served, and nobody to hear of this thread's death.
    ///
    /// One that must wait looks for the change that it awaits, for a moment, before it is given up; `approach` then says
    /// what it will need ([`Object::approach`]).
    ///
    /// # Errors
    /// As [`Waiters::run`].
    #[inline(always)]
    pub(crate) fn run_alone(
        self,
        segment: &Segment,
        patience: Patience,
        awaits: Change,
        approach: impl Fn(),
        mut attempt: impl FnMut(&mut Guard<'_>) -> Result<Attempt>,
    ) -> Result<Alone> {
        let header = segment.words::<{ HEADER / 8 }>(self.base)?;
        let thread = Thread::current();
        let lock = Lock::of(segment);
        let expected = spin::expected();
        let mut seen = None;
        if expected != 0 && patience != Patience::None {
            seen = lock.look_ahead(expected, awaits);
            lock.approach();
            approach();
        }
        let mut looks = LOOKS_MAX;
        let mut has_waited = false;
        loop {
            let before = lock.take_word(thread, patience.limit(), seen.is_some())?;
            let mut guard = Guard::holding(segment, thread, before);
            guard.crosses = expected != 0;
            if let Some(seen) = seen {
                lock.learn(seen);
            }
            let word = |field: usize| header[field / 8].load(Ordering::Relaxed);
            let others = word(SLEEPERS) | word(DIRTY) | word(UNWATCHED);
            if others != 0 || (word(MEMBERS) != 0 && !self.all_live(segment, word(HIGH))?) {
                let watch = Some(guard.release_with_fence());
                return Ok(Alone::Otherwise(General { watch, has_looked: false, has_waited }));
            }
            match attempt(&mut guard)? {
                Attempt::Done => {
                    guard.checkpoint();
                    return Ok(Alone::Done);
                }
                Attempt::Waits if patience == Patience::None => return Err(Errno::AGAIN),
                Attempt::Waits => {
                    let version = lock.version(awaits);
                    drop(guard);
                    has_waited = true;
                    seen =
                        if looks == 0 { None } else { lock.look_for(awaits, version, patience.deadline()) };
                    if seen.is_none() {
                        return Ok(Alone::Otherwise(General { watch: None, has_looked: true, has_waited }));
                    }
                    looks -= 1;
                    lock.approach();
                    approach();
                }
                Attempt::Otherwise => {
                    return Ok(Alone::Otherwise(General { watch: None, has_looked: false, has_waited }));
                }
            }
        }
    }

    /// Whether no slot has a mark.
    #[inline]
    fn all_live(self, segment: &Segment, high: u64) -> Result<bool> {
        let high = high.min(u64::from(self.capacity)) as usize;
        let mut marks = 0;
        for index in 0..high {
            let slot = self.base + HEADER + index * (SLOT + self.room);
            marks |= segment.word32(slot + LIFE)?.load(Ordering::Acquire);
        }
        Ok(marks & OWNER_DIED == 0)
    }
}

impl<'a, O: Object> Waiters<'a, O> {
    /// How many are blocked.
    #[inline]
    pub(crate) fn sleepers(&self, guard: &Guard<'_>) -> Result<u64> {
        self.get(guard, SLEEPERS)
    }

    /// How many stakes there are.
    pub(crate) fn stakes(&self, guard: &Guard<'_>) -> Result<u64> {
        Ok(self.get(guard, MEMBERS)?.wrapping_sub(self.get(guard, SLEEPERS)?))
    }

    /// Leaves word, in the transaction that makes it so, that there is something to do for whoever comes next.
    pub(crate) fn leave_dirty(&self, guard: &mut Guard<'_>) -> Result<()> {
        if self.get(guard, DIRTY)? == 0 { self.set(guard, DIRTY, 1) } else { Ok(()) }
    }

    /// Shows the blocked operations of the living in their order. The visitor may end some of them ([`Waiters::end`]), and
    /// may walk too.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must. What the visitor fails with.
    pub(crate) fn walk(
        &self,
        guard: &mut Guard<'_>,
        mut visit: impl FnMut(&mut Guard<'_>, &Blocked) -> Result<Step>,
    ) -> Result<()> {
        let mut at = self.get(guard, HEAD)?;
        let (mut steps, mut rounds) = (0, 0);
        while at != 0 {
            let slot = self.checked_slot(at)?;
            steps += 1;
            if steps > self.capacity || rounds > self.capacity {
                return Err(Errno::UCLEAN);
            }
            at = guard.get(slot + NEXT)?;
            if guard.get(slot + STATE)? == SLEEPING && !self.is_dead(slot)? {
                let blocked = Blocked { slot, room: slot + SLOT, words: self.words(guard, slot)? };
                if visit(guard, &blocked)? == Step::FromTheFirst {
                    at = self.get(guard, HEAD)?;
                    steps = 0;
                    rounds += 1;
                }
            }
        }
        Ok(())
    }

    /// Changes one of the words of a blocked operation, for the time that it stays blocked.
    pub(crate) fn amend(
        &self,
        guard: &mut Guard<'_>,
        blocked: &Blocked,
        word: usize,
        value: u64,
    ) -> Result<()> {
        guard.set(blocked.slot + FIRST_WORD + 8 * word.min(WORDS - 1), value)
    }

    /// Ends a blocked operation, and makes that count together with what has been changed for it.
    pub(crate) fn end(&self, guard: &mut Guard<'_>, blocked: &Blocked, result: Result<()>) -> Result<()> {
        let state = match result {
            Ok(()) => SERVED,
            Err(errno) => SERVED | (errno.raw_os_error() as u64) << 8,
        };
        self.mark_served(guard, blocked.slot, state)
    }

    /// Whether `room`, as it was read from the segment, is that of a stake of this process.
    pub(crate) fn is_room_of(&self, guard: &Guard<'_>, room: usize, process: u32) -> Result<bool> {
        let slot = self.slot_with(room)?;
        let held = matches!(guard.get(slot + STATE)?, HELD_BY_PROCESS | HELD_UNWATCHED);
        Ok(held && guard.get(slot + PROCESS)? == u64::from(process))
    }

    /// The slot that has this room.
    pub(crate) fn slot_with(&self, room: usize) -> Result<usize> {
        let first = self.base + HEADER + SLOT;
        let from_first = room.checked_sub(first).ok_or(Errno::UCLEAN)?;
        let is_one =
            from_first.is_multiple_of(self.stride) && ((from_first / self.stride) as u64) < self.capacity;
        if is_one { Ok(room - SLOT) } else { Err(Errno::UCLEAN) }
    }
}
