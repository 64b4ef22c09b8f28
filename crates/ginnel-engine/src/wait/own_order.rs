//! For an object that serves in an order of its own, and whose blocked operations need more than their words.

use super::slots::{
    DIRTY, FIRST_WORD, HEAD, HEADER, HELD_BY_PROCESS, HELD_UNWATCHED, MEMBERS, NEXT, PROCESS, SERVED,
    SLEEPERS, SLEEPING, SLOT, STATE,
};
use super::{Object, WORDS, Waiters, Words};
use crate::lock::Guard;
use crate::{Errno, Result};

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
