//! Adjustments: what the kernel's `SEM_UNDO` gives back when a process ends.
//!
//! # How it works inside
//! A process that uses `SEM_UNDO` on a set has a stake in it (see `wait`), whose room has one adjustment, an `i16`, for
//! each semaphore. It is kept until the process is gone: across `exec`, whichever of its threads took it, and not for its
//! children. Then whoever enters adds the adjustments, each limited to what a semaphore may hold.
//!
//! # Crash points
//! | killed | what the next finds |
//! | --- | --- |
//! | while the adjustments of a dead process are added | those that were added are 0; it adds the others before it looks at anything |

use std::sync::atomic::{AtomicUsize, Ordering};

use super::operate::{value_of, word};
use super::serve::Call;
use super::{SysvSemaphores, VALUE_MAX, VALUES};
use crate::lock::Guard;
use crate::primitive::AtomicU64;
use crate::segment::Segment;
use crate::wait::{Patience, ProcessStake, Words};
use crate::{Errno, Result};

/// How many words of adjustments are added in one transaction: each changes five words.
const WORDS_AT_ONCE: usize = 32;

/// The calling process's stake in a set, as this process remembers it.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    stake: AtomicUsize,
}

impl Accounts {
    #[inline]
    pub(super) fn stake(&self) -> Option<ProcessStake> {
        ProcessStake::from_raw(self.stake.load(Ordering::Relaxed))
    }

    fn remember(&self, stake: ProcessStake) {
        self.stake.store(stake.to_raw(), Ordering::Relaxed);
    }
}

/// A process's adjustment of one semaphore.
#[inline]
pub(super) fn adjustment(guard: &Guard<'_>, table: usize, index: usize) -> Result<i16> {
    Ok(of(guard.get(table + 8 * (index / 4))?, index))
}

/// The word that has a process's adjustment of one semaphore among others, and what it says.
#[inline(always)]
pub(super) fn adjustments(segment: &Segment, table: usize, index: usize) -> Result<(&AtomicU64, u64)> {
    let word = segment.word64(table + 8 * (index / 4))?;
    Ok((word, word.load(Ordering::Relaxed)))
}

#[inline(always)]
pub(super) fn of(four: u64, index: usize) -> i16 {
    (four >> (16 * (index % 4))) as i16
}

/// Sets a process's adjustment of one semaphore.
#[inline]
pub(super) fn set_adjustment(guard: &mut Guard<'_>, table: usize, index: usize, value: i16) -> Result<()> {
    let at = table + 8 * (index / 4);
    let old = guard.get(at)?;
    let new = with(old, index, value);
    if new == old { Ok(()) } else { guard.set(at, new) }
}

#[inline(always)]
pub(super) fn with(four: u64, index: usize, value: i16) -> u64 {
    let shift = 16 * (index % 4);
    four & !(0xffff << shift) | u64::from(value as u16) << shift
}

impl SysvSemaphores {
    /// Finds or makes the calling process's stake.
    #[cold]
    pub(super) fn open_account(&self, patience: Patience) -> Result<()> {
        let call = Call::new(self, &[]);
        let waiters = self.waiters(&call)?;
        loop {
            let mut guard = call.enter_with(patience)?;
            let opened = call.find_or_make_stake(&mut guard);
            waiters.leave(guard);
            match opened {
                Ok(stake) => {
                    self.accounts.remember(stake);
                    return Ok(());
                }
                Err(Errno::NOBUFS) => waiters.make_room(patience)?,
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Call<'_> {
    fn find_or_make_stake(&self, guard: &mut Guard<'_>) -> Result<ProcessStake> {
        let waiters = self.waiters()?;
        let stake = match waiters.find_own_stake(guard)? {
            Some(stake) => stake,
            // Its adjustments are not there yet.
            None => waiters.stake_of_process(guard, &[0, u64::from(guard.process()), 0, 0, 0, 0, 0])?,
        };
        if guard.get(stake.word_offset(0))? != stake.room() as u64 {
            for at in 0..self.set.count.div_ceil(4) {
                self.set.segment.word64(stake.room() + 8 * at)?.store(0, Ordering::Release);
            }
            guard.set(stake.word_offset(0), stake.room() as u64)?;
            guard.checkpoint();
        }
        Ok(stake)
    }

    /// A process is gone: its adjustments are added.
    pub(super) fn give_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // What it says is older.
        self.carry_out(guard)?;
        self.set.stamp()?;
        self.leave_unserved(guard)?;
        if words[0] == 0 {
            return Ok(());
        }
        let table = usize::try_from(words[0]).map_err(|_| Errno::UCLEAN)?;
        self.waiters()?.slot_with(table)?;
        let who = words[1] as u32;
        let mut written = 0;
        for at in 0..self.set.count.div_ceil(4) {
            let four = guard.get(table + 8 * at)?;
            if four == 0 {
                continue;
            }
            for index in (4 * at..4 * at + 4).take_while(|index| *index < self.set.count) {
                let adjustment = (four >> (16 * (index % 4))) as i16;
                if adjustment != 0 {
                    let value = i32::from(value_of(guard.get(VALUES + 8 * index)?)?) + i32::from(adjustment);
                    guard.set(VALUES + 8 * index, word(value.clamp(0, i32::from(VALUE_MAX)) as u16, who))?;
                }
            }
            guard.set(table + 8 * at, 0)?;
            written += 1;
            if written == WORDS_AT_ONCE {
                guard.checkpoint();
                written = 0;
            }
        }
        Ok(())
    }

    /// No process has an adjustment of this semaphore any more, or of any. Not through the journal: for a plan.
    pub(super) fn forget(&self, guard: &mut Guard<'_>, index: Option<usize>) -> Result<()> {
        let words = match index {
            Some(index) => index / 4..index / 4 + 1,
            None => 0..self.set.count.div_ceil(4),
        };
        self.waiters()?.for_each_process_stake(guard, |guard, stake| {
            if guard.get(stake.word_offset(0))? == 0 {
                return Ok(());
            }
            for at in words.clone() {
                let four = self.set.segment.word64(stake.room() + 8 * at)?;
                let new = index.map_or(0, |index| with(four.load(Ordering::Relaxed), index, 0));
                four.store(new, Ordering::Release);
            }
            Ok(())
        })
    }

    /// Sets an adjustment for a plan.
    pub(super) fn store_adjustment(&self, table: usize, index: usize, value: i16) -> Result<()> {
        let four = self.set.segment.word64(table + 8 * (index / 4))?;
        four.store(with(four.load(Ordering::Relaxed), index, value), Ordering::Release);
        Ok(())
    }
}
