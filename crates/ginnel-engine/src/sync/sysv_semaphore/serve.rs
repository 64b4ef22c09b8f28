//! Who goes on when values have changed, in the kernel's order.
//!
//! # The order
//! As the kernel's `do_smart_update` has it:
//! 1. Calls that only wait for zero: those of one operation first, then those of several, each in the order in which they
//!    came. Those of several are tried only if a semaphore that was changed is 0.
//! 2. The others in their order. Once one has gone on, step 1 for what it changed; and if calls of several operations
//!    are blocked, the others again from the first, since it may have made possible what was not. A later one may go on
//!    before an earlier one that still cannot: there is no protection from that in the kernel either.
//!
//! A call that can go on, but not any more without waiting for an operation with `IPC_NOWAIT`, or not without leaving the
//! range, ends with that error.
//!
//! # What is counted as waiting for what
//! A blocked call counts for the operation that stopped it when it was last tried. It is not tried when nothing has
//! changed that could let it go on, so this is kept and not found out.
//!
//! # What a blocked call has in its slot
//! Word 0: process << 32 | how many operations. Word 1: its adjustments, then, from bit 40, which operation stopped it.
//! Word 2 on, and the slot's room: its operations.

use std::cell::Cell;

use super::operate::{Caller, Verdict, change, index, undoes, value_of};
use super::{OPERATIONS_MAX, SysvSemaphores, UNSERVED, VALUES};
use crate::lock::Guard;
use crate::primitive::Ordering;
use crate::wait::{Blocked, Object, Patience, Step, WORDS, Waiters, Words};
use crate::{Errno, Result};

const FIRST_OPERATION: usize = 2;
/// How many operations a slot's words hold.
const IN_WORDS: usize = WORDS - FIRST_OPERATION;
const STOPPED_SHIFT: u32 = 40;

/// One call to a set.
pub(super) struct Call<'s> {
    pub(super) set: &'s SysvSemaphores,
    operations: &'s [u64],
    /// Which operation stopped it.
    stopped: Cell<usize>,
    was_tried: Cell<bool>,
    /// Its operations have just been done, and others not yet been served.
    is_fresh: Cell<bool>,
}

/// What kinds of calls are blocked.
#[derive(Clone, Copy, Default)]
struct Kinds {
    zero: bool,
    zeroes: bool,
    several: bool,
    changing: bool,
}

/// A blocked call, as it stands in its slot.
struct Sleeper<'b> {
    blocked: &'b Blocked,
    count: usize,
    caller: Caller,
}

impl<'s> Call<'s> {
    #[inline]
    pub(super) fn new(set: &'s SysvSemaphores, operations: &'s [u64]) -> Call<'s> {
        Call {
            set,
            operations,
            stopped: Cell::new(0),
            was_tried: Cell::new(false),
            is_fresh: Cell::new(false),
        }
    }

    #[inline]
    pub(super) fn waiters(&self) -> Result<Waiters<'_, Call<'s>>> {
        self.set.waiters(self)
    }

    /// It has had to wait already: a removal ends it with `EIDRM`.
    #[inline]
    pub(super) fn has_waited(&self) {
        self.was_tried.set(true);
    }

    /// The lock, if the set was not removed.
    pub(super) fn enter(&self) -> Result<Guard<'_>> {
        self.enter_with(Patience::Endless)
    }

    /// The lock, if the set was not removed, for an operation with this patience.
    pub(super) fn enter_with(&self, patience: Patience) -> Result<Guard<'_>> {
        let waiters = self.waiters()?;
        loop {
            match waiters.enter_with(patience) {
                // These calls are not interrupted.
                Err(Errno::INTR) if patience == Patience::Endless => {}
                Err(errno) => return Err(errno),
                Ok(guard) => {
                    if !self.set.is_removed() {
                        return Ok(guard);
                    }
                    waiters.leave(guard);
                    return Err(Errno::INVAL);
                }
            }
        }
    }

    /// Leaves word, in the transaction that changes values, that others may be able to go on.
    pub(super) fn leave_unserved(&self, guard: &mut Guard<'_>) -> Result<()> {
        let waiters = self.waiters()?;
        if waiters.sleepers(guard)? == 0 {
            return Ok(());
        }
        if guard.get(UNSERVED)? == 0 {
            guard.set(UNSERVED, 1)?;
        }
        waiters.leave_dirty(guard)
    }

    /// How many are blocked by an operation on this semaphore.
    pub(super) fn count_blocked(
        &self,
        guard: &mut Guard<'_>,
        semaphore: usize,
        by_zero: bool,
    ) -> Result<u32> {
        let mut count = 0;
        self.waiters()?.walk(guard, |guard, blocked| {
            let sleeper = self.sleeper(blocked)?;
            let operation = sleeper.operation(guard, stopped_by(blocked))?;
            count += u32::from(index(operation) == semaphore && (change(operation) == 0) == by_zero);
            Ok(Step::Next)
        })?;
        Ok(count)
    }

    fn sleeper<'b>(&self, blocked: &'b Blocked) -> Result<Sleeper<'b>> {
        let count = usize::from(blocked.words[0] as u16);
        if count == 0 || count > OPERATIONS_MAX {
            return Err(Errno::UCLEAN);
        }
        let table = (blocked.words[1] & ((1 << STOPPED_SHIFT) - 1)) as usize;
        let process = (blocked.words[0] >> 32) as u32;
        Ok(Sleeper { blocked, count, caller: Caller { process, table: (table != 0).then_some(table) } })
    }

    fn try_sleeper(&self, guard: &mut Guard<'_>, sleeper: &Sleeper<'_>) -> Result<Verdict> {
        if let Some(table) = sleeper.caller.table
            && !self.waiters()?.is_room_of(guard, table, sleeper.caller.process)?
        {
            // Its process is gone and has given back what it had; this thread of it has not been marked yet.
            return Ok(Verdict::Blocked(stopped_by(sleeper.blocked)));
        }
        if sleeper.count == 1 {
            let operation = sleeper.operation(guard, 0)?;
            self.set.checked_index(operation)?;
            self.set.attempt_one(guard, operation, sleeper.caller)
        } else {
            // The operations are its own until it is served, and it is not while this holder has the lock.
            let operations = sleeper.all(guard)?;
            let operation = |at: usize| operations.get(at).copied().ok_or(Errno::UCLEAN);
            self.set.attempt_many(guard, sleeper.count, &operation, sleeper.caller)
        }
    }

    /// Tries one: whether it went on. An error of its own ends it too.
    fn serve_one(&self, guard: &mut Guard<'_>, sleeper: &Sleeper<'_>) -> Result<bool> {
        let waiters = self.waiters()?;
        let mark = guard.mark();
        match self.try_sleeper(guard, sleeper) {
            Ok(Verdict::Done) => {
                self.set.stamp()?;
                waiters.end(guard, sleeper.blocked, Ok(()))?;
                Ok(true)
            }
            Ok(Verdict::Planned) => {
                self.set.stamp()?;
                waiters.end(guard, sleeper.blocked, Ok(()))?;
                self.carry_out(guard)?;
                Ok(true)
            }
            Ok(Verdict::Blocked(at)) => {
                if at != stopped_by(sleeper.blocked) {
                    waiters.amend(guard, sleeper.blocked, 1, with_stopped(sleeper.blocked.words[1], at))?;
                    guard.checkpoint();
                }
                Ok(false)
            }
            Err(Errno::UCLEAN) => Err(Errno::UCLEAN),
            Err(errno) => {
                guard.undo_to(mark)?;
                waiters.end(guard, sleeper.blocked, Err(errno)).map(|()| false)
            }
        }
    }

    /// Those who wait for zero, after a change of these operations' semaphores, or of any. Whether one was tried.
    fn serve_zero(&self, guard: &mut Guard<'_>, kinds: Kinds, changed: Option<&[u64]>) -> Result<bool> {
        if !kinds.zero && !kinds.zeroes || !self.has_zero(guard, changed)? {
            return Ok(false);
        }
        for several in [false, true] {
            if !(if several { kinds.zeroes } else { kinds.zero }) {
                continue;
            }
            self.waiters()?.walk(guard, |guard, blocked| {
                let sleeper = self.sleeper(blocked)?;
                if (sleeper.count > 1) == several && !sleeper.changes(guard)? {
                    self.serve_one(guard, &sleeper)?;
                }
                Ok(Step::Next)
            })?;
        }
        Ok(true)
    }

    fn has_zero(&self, guard: &Guard<'_>, changed: Option<&[u64]>) -> Result<bool> {
        let is_zero = |index: usize| Ok(value_of(guard.get(VALUES + 8 * index)?)? == 0);
        let mut found = false;
        match changed {
            Some(operations) => {
                for operation in operations {
                    found |= is_zero(self.set.checked_index(*operation)?)?;
                }
            }
            None => {
                for index in 0..self.set.count {
                    found |= is_zero(index)?;
                }
            }
        }
        Ok(found)
    }

    fn kinds(&self, guard: &mut Guard<'_>) -> Result<Kinds> {
        let mut kinds = Kinds::default();
        self.waiters()?.walk(guard, |guard, blocked| {
            let sleeper = self.sleeper(blocked)?;
            let (several, changes) = (sleeper.count > 1, sleeper.changes(guard)?);
            kinds.several |= several;
            kinds.changing |= changes;
            kinds.zero |= !several && !changes;
            kinds.zeroes |= several && !changes;
            Ok(Step::Next)
        })?;
        Ok(kinds)
    }

    fn serve_all(&self, guard: &mut Guard<'_>, changed: Option<&[u64]>) -> Result<()> {
        let kinds = self.kinds(guard)?;
        self.serve_zero(guard, kinds, changed)?;
        if !kinds.changing {
            return Ok(());
        }
        self.waiters()?.walk(guard, |guard, blocked| {
            let sleeper = self.sleeper(blocked)?;
            if !sleeper.changes(guard)? || !self.serve_one(guard, &sleeper)? {
                return Ok(Step::Next);
            }
            let walked = if sleeper.count == 1 {
                self.serve_zero(guard, kinds, Some(&[sleeper.operation(guard, 0)?]))?
            } else {
                let operations = sleeper.all(guard)?;
                let operations = operations.get(..sleeper.count).ok_or(Errno::UCLEAN)?;
                self.serve_zero(guard, kinds, Some(operations))?
            };
            Ok(if walked || kinds.several { Step::FromTheFirst } else { Step::Next })
        })
    }

    fn dismiss_all(&self, guard: &mut Guard<'_>) -> Result<()> {
        let waiters = self.waiters()?;
        waiters
            .walk(guard, |guard, blocked| waiters.end(guard, blocked, Err(Errno::IDRM)).map(|()| Step::Next))
    }

    /// Attempts this call's own operations. The transaction is empty before.
    #[inline]
    pub(super) fn attempt_own(&self, guard: &mut Guard<'_>) -> Result<bool> {
        let set = self.set;
        if set.is_removed() {
            return Err(if self.was_tried.get() { Errno::IDRM } else { Errno::INVAL });
        }
        let mut caller = Caller { process: guard.process(), table: None };
        if self.operations.iter().any(|operation| undoes(*operation)) {
            let Some(stake) = set.accounts.stake() else { return Err(Errno::STALE) };
            if !self.waiters()?.stake_is_own(guard, stake)? {
                return Err(Errno::STALE);
            }
            caller.table = Some(stake.room());
        }
        let verdict = set.attempt_all(guard, self.operations, caller)?;
        if let Verdict::Blocked(at) = verdict {
            self.stopped.set(at);
            self.was_tried.set(true);
            return Ok(false);
        }
        set.stamp()?;
        let waiters = self.waiters()?;
        if waiters.sleepers(guard)? != 0 && self.operations.iter().any(|operation| change(*operation) != 0) {
            self.leave_unserved(guard)?;
            self.is_fresh.set(true);
        }
        if verdict == Verdict::Planned {
            waiters.leave_dirty(guard)?;
            guard.checkpoint();
            // From here on it is done, whatever becomes of the rest.
            let _ = self.carry_out(guard);
        }
        Ok(true)
    }
}

impl Object for Call<'_> {
    const NEVER_RESTARTED: bool = true;

    #[inline]
    fn attempt(&self, guard: &mut Guard<'_>, _words: &mut Words) -> Result<bool> {
        self.attempt_own(guard)
    }

    /// What was done for somebody who is dead now was done before it died, as in the kernel. What it did with `SEM_UNDO`
    /// is given back with the rest of its process's.
    fn take_back(&self, _guard: &mut Guard<'_>, _words: &Words) -> Result<()> {
        Ok(())
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        self.give_back(guard, words)
    }

    fn enlist(&self, guard: &mut Guard<'_>, room: usize, words: &mut Words) -> Result<()> {
        words[0] = u64::from(guard.process()) << 32 | self.operations.len() as u64;
        let undoes = self.operations.iter().any(|operation| undoes(*operation));
        let table = if undoes { self.set.accounts.stake().map_or(0, |stake| stake.room()) } else { 0 };
        words[1] = with_stopped(table as u64, self.stopped.get());
        for (at, operation) in self.operations.iter().enumerate() {
            match words.get_mut(FIRST_OPERATION + at) {
                Some(word) => *word = *operation,
                None => {
                    let word = self.set.segment.word64(room + 8 * (at - IN_WORDS))?;
                    word.store(*operation, Ordering::Release);
                }
            }
        }
        Ok(())
    }

    fn serve(&self, guard: &mut Guard<'_>, waiters: &Waiters<'_, Self>) -> Result<()> {
        self.carry_out(guard)?;
        let fresh = self.is_fresh.take();
        if self.set.is_removed() {
            return self.dismiss_all(guard);
        }
        if guard.get(UNSERVED)? == 0 || waiters.sleepers(guard)? == 0 {
            return Ok(());
        }
        self.serve_all(guard, if fresh { Some(self.operations) } else { None })?;
        guard.set(UNSERVED, 0)
    }
}

impl Sleeper<'_> {
    fn operation(&self, guard: &Guard<'_>, at: usize) -> Result<u64> {
        match self.blocked.words.get(FIRST_OPERATION + at) {
            Some(word) => Ok(*word),
            None if at < self.count => guard.get(self.blocked.room + 8 * (at - IN_WORDS)),
            None => Err(Errno::UCLEAN),
        }
    }

    /// All operations, and zeroes behind them.
    fn all(&self, guard: &Guard<'_>) -> Result<[u64; OPERATIONS_MAX]> {
        let mut all = [0; OPERATIONS_MAX];
        for (at, operation) in all.iter_mut().enumerate().take(self.count) {
            *operation = self.operation(guard, at)?;
        }
        Ok(all)
    }

    /// Whether it does more than wait for zero.
    fn changes(&self, guard: &Guard<'_>) -> Result<bool> {
        for at in 0..self.count {
            if change(self.operation(guard, at)?) != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn stopped_by(blocked: &Blocked) -> usize {
    (blocked.words[1] >> STOPPED_SHIFT) as usize
}

fn with_stopped(word: u64, at: usize) -> u64 {
    word & ((1 << STOPPED_SHIFT) - 1) | (at as u64) << STOPPED_SHIFT
}
