//! One call's operations: attempted one after the other on the values as the earlier ones would leave them, and done if
//! all can be. What the kernel's `perform_atomic_semop` does, in one pass and without going back.

use libc::sembuf;

use super::{
    JOURNAL_SHARE, PLAN_LIST, PLAN_TABLE, PLAN_WHO, SysvSemaphores, VALUE_MAX, VALUES, list_of, undo,
};
use crate::lock::Guard;
use crate::primitive::Ordering;
use crate::{Errno, Result};

/// How many operations a call usually has, at most.
const FEW: usize = 8;
/// An adjustment that no operation has needed so far.
const UNKNOWN: i32 = i32::MIN;
const NO_WAIT: u64 = libc::IPC_NOWAIT as u64;
const UNDO: u64 = libc::SEM_UNDO as u64;

/// One operation as a word: semaphore, change, flags, and where the last operation before it on the same semaphore
/// stands, from 1.
#[inline]
pub(super) fn pack(operation: &sembuf, before: usize) -> u64 {
    u64::from(operation.sem_num)
        | u64::from(operation.sem_op as u16) << 16
        | u64::from(operation.sem_flg as u16) << 32
        | (before as u64) << 48
}

#[inline]
pub(super) fn index(operation: u64) -> usize {
    usize::from(operation as u16)
}

#[inline]
pub(super) fn change(operation: u64) -> i32 {
    i32::from((operation >> 16) as i16)
}

#[inline]
pub(super) fn undoes(operation: u64) -> bool {
    operation >> 32 & UNDO != 0
}

fn before(operation: u64) -> usize {
    usize::from((operation >> 48) as u16)
}

/// A semaphore's word.
#[inline]
pub(super) fn word(value: u16, who: u32) -> u64 {
    u64::from(value) | u64::from(who) << 32
}

/// The value in a semaphore's word.
#[inline]
pub(super) fn value_of(word: u64) -> Result<u16> {
    let value = word as u16;
    if value > VALUE_MAX { Err(Errno::UCLEAN) } else { Ok(value) }
}

/// The operations of a call, more than one.
pub(super) struct Request {
    few: [u64; FEW],
    many: Vec<u64>,
    count: usize,
}

impl Request {
    pub(super) fn new(operations: &[sembuf]) -> Request {
        let count = operations.len();
        let mut request = Request { few: [0; FEW], many: Vec::new(), count };
        if count <= FEW {
            for (at, operation) in operations.iter().enumerate() {
                let same = |other: &sembuf| other.sem_num == operation.sem_num;
                let before = operations[..at].iter().rposition(same).map_or(0, |before| before + 1);
                request.few[at] = pack(operation, before);
            }
            return request;
        }
        let mut order: Vec<_> =
            operations.iter().enumerate().map(|(at, operation)| (operation.sem_num, at)).collect();
        order.sort_unstable();
        request.many = operations.iter().map(|operation| pack(operation, 0)).collect();
        for pair in order.windows(2) {
            let ((index, before), (next, at)) = (pair[0], pair[1]);
            if index == next {
                request.many[at] = pack(&operations[at], before + 1);
            }
        }
        request
    }

    pub(super) fn operations(&self) -> &[u64] {
        if self.count <= FEW { &self.few[..self.count] } else { &self.many }
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// The words that it changes are more than the journal may have: they are written down as a plan, to be carried out
    /// as soon as this transaction is committed.
    Planned,
    /// This operation would wait.
    Blocked(usize),
}

/// A semaphore after one of the operations.
#[derive(Clone, Copy)]
struct After {
    value: u16,
    adjustment: i32,
    /// No later operation is on the same semaphore.
    is_last: bool,
}

const NOTHING: After = After { value: 0, adjustment: UNKNOWN, is_last: false };

/// On whose behalf operations are done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) process: u32,
    /// Where its adjustments are, if one of the operations has `SEM_UNDO`.
    pub(super) table: Option<usize>,
}

impl SysvSemaphores {
    /// Does a single operation.
    #[inline]
    pub(super) fn attempt_one(
        &self,
        guard: &mut Guard<'_>,
        operation: u64,
        caller: Caller,
    ) -> Result<Verdict> {
        let at = VALUES + 8 * index(operation);
        let before = guard.get(at)?;
        let Some(value) = changed(value_of(before)?, operation)? else { return Ok(Verdict::Blocked(0)) };
        if undoes(operation) {
            let table = caller.table.ok_or(Errno::UCLEAN)?;
            let old = undo::adjustment(guard, table, index(operation))?;
            let new = adjusted(i32::from(old), operation)?;
            undo::set_adjustment(guard, table, index(operation), new)?;
        }
        let after = word(value, caller.process);
        if after != before {
            guard.set(at, after)?;
        }
        Ok(Verdict::Done)
    }

    /// [`SysvSemaphores::attempt_one`] for a transaction of its own, with nobody to be served: each word is found once.
    #[inline(always)]
    pub(super) fn attempt_alone(
        &self,
        guard: &mut Guard<'_>,
        operation: u64,
        caller: Caller,
    ) -> Result<Verdict> {
        let place = self.segment.word64(VALUES + 8 * index(operation))?;
        let before = place.load(Ordering::Relaxed);
        let Some(value) = changed(value_of(before)?, operation)? else { return Ok(Verdict::Blocked(0)) };
        let after = word(value, caller.process);
        if undoes(operation) {
            let table = caller.table.ok_or(Errno::UCLEAN)?;
            let (adjustments, four) = undo::adjustments(&self.segment, table, index(operation))?;
            let new = adjusted(i32::from(undo::of(four, index(operation))), operation)?;
            let four_after = undo::with(four, index(operation), new);
            guard.change_all([(place, before, after), (adjustments, four, four_after)])?;
        } else if after != before {
            guard.change_only(place, after)?;
        }
        Ok(Verdict::Done)
    }

    /// Does the calling process's own operations.
    #[inline]
    pub(super) fn attempt_all(
        &self,
        guard: &mut Guard<'_>,
        operations: &[u64],
        caller: Caller,
    ) -> Result<Verdict> {
        match operations {
            [operation] => self.attempt_one(guard, *operation, caller),
            operations => {
                let operation = |at: usize| operations.get(at).copied().ok_or(Errno::UCLEAN);
                self.attempt_many(guard, operations.len(), &operation, caller)
            }
        }
    }

    /// Does several operations. `operation` gives each of the `count`.
    pub(super) fn attempt_many(
        &self,
        guard: &mut Guard<'_>,
        count: usize,
        operation: &dyn Fn(usize) -> Result<u64>,
        caller: Caller,
    ) -> Result<Verdict> {
        if count <= FEW {
            self.attempt_within(guard, operation, caller, &mut [NOTHING; FEW][..count])
        } else {
            let mut after = [NOTHING; super::OPERATIONS_MAX];
            let after = after.get_mut(..count).ok_or(Errno::UCLEAN)?;
            self.attempt_within(guard, operation, caller, after)
        }
    }

    fn attempt_within(
        &self,
        guard: &mut Guard<'_>,
        operation: &dyn Fn(usize) -> Result<u64>,
        caller: Caller,
        after: &mut [After],
    ) -> Result<Verdict> {
        for at in 0..after.len() {
            let operation = operation(at)?;
            let index = self.checked_index(operation)?;
            let (value, mut adjustment) = match before(operation) {
                0 => (value_of(guard.get(VALUES + 8 * index)?)?, UNKNOWN),
                before if before <= at => {
                    after[before - 1].is_last = false;
                    (after[before - 1].value, after[before - 1].adjustment)
                }
                _ => return Err(Errno::UCLEAN),
            };
            let Some(value) = changed(value, operation)? else { return Ok(Verdict::Blocked(at)) };
            if undoes(operation) {
                if adjustment == UNKNOWN {
                    let table = caller.table.ok_or(Errno::UCLEAN)?;
                    adjustment = i32::from(undo::adjustment(guard, table, index)?);
                }
                adjustment = i32::from(adjusted(adjustment, operation)?);
            }
            after[at] = After { value, adjustment, is_last: true };
        }
        let last = after.iter().filter(|after| after.is_last);
        let changes: usize = last.map(|after| 1 + usize::from(after.adjustment != UNKNOWN)).sum();
        if changes <= JOURNAL_SHARE {
            self.write(guard, operation, caller, after)
        } else {
            self.write_plan(guard, operation, caller, after)
        }
    }

    fn write(
        &self,
        guard: &mut Guard<'_>,
        operation: &dyn Fn(usize) -> Result<u64>,
        caller: Caller,
        after: &[After],
    ) -> Result<Verdict> {
        for (at, after) in after.iter().enumerate().filter(|(_, after)| after.is_last) {
            let index = self.checked_index(operation(at)?)?;
            guard.set(VALUES + 8 * index, word(after.value, caller.process))?;
            if after.adjustment != UNKNOWN {
                let table = caller.table.ok_or(Errno::UCLEAN)?;
                undo::set_adjustment(guard, table, index, after.adjustment as i16)?;
            }
        }
        Ok(Verdict::Done)
    }

    fn write_plan(
        &self,
        guard: &mut Guard<'_>,
        operation: &dyn Fn(usize) -> Result<u64>,
        caller: Caller,
        after: &[After],
    ) -> Result<Verdict> {
        let mut count = 0;
        for (at, after) in after.iter().enumerate().filter(|(_, after)| after.is_last) {
            let index = self.checked_index(operation(at)?)? as u64;
            let mut entry = index | u64::from(after.value) << 16;
            if after.adjustment != UNKNOWN {
                entry |= u64::from(after.adjustment as u16) << 32 | 1 << 48;
            }
            // Not through the journal: nobody reads it before the plan is committed.
            self.segment.word64(list_of(self.count) + 8 * count)?.store(entry, Ordering::Release);
            count += 1;
        }
        guard.set(PLAN_WHO, u64::from(caller.process))?;
        guard.set(PLAN_TABLE, caller.table.unwrap_or(0) as u64)?;
        guard.set(super::PLAN, PLAN_LIST | (count as u64) << 8)?;
        Ok(Verdict::Planned)
    }

    /// The semaphore of an operation that was read from the segment.
    #[inline]
    pub(super) fn checked_index(&self, operation: u64) -> Result<usize> {
        let index = index(operation);
        if index < self.count { Ok(index) } else { Err(Errno::UCLEAN) }
    }
}

/// A value after an operation; `None` if it must wait for that.
#[inline]
fn changed(value: u16, operation: u64) -> Result<Option<u16>> {
    let change = change(operation);
    let after = i32::from(value) + change;
    if (change == 0 && value != 0) || after < 0 {
        return if operation >> 32 & NO_WAIT != 0 { Err(Errno::AGAIN) } else { Ok(None) };
    }
    if after > i32::from(VALUE_MAX) { Err(Errno::RANGE) } else { Ok(Some(after as u16)) }
}

/// A process's adjustment after an operation.
#[inline]
fn adjusted(adjustment: i32, operation: u64) -> Result<i16> {
    i16::try_from(adjustment - change(operation)).map_err(|_| Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_knows_the_last_one_before_it_on_its_semaphore() {
        for count in [FEW, 3 * FEW] {
            let operations: Vec<_> =
                (0..count).map(|at| sembuf { sem_num: (at % 3) as u16, sem_op: -1, sem_flg: 0 }).collect();
            let request = Request::new(&operations);
            assert_eq!(request.operations().len(), count);
            for (at, operation) in request.operations().iter().enumerate() {
                assert_eq!(before(*operation), (at + 1).saturating_sub(3), "{at} of {count}");
                assert_eq!((index(*operation), change(*operation)), (at % 3, -1));
            }
        }
    }
}
