//! The slots of blocked operations and of stakes, and the list in which they stand.
//!
//! # What holds
//! Each stake's `life` is listened to by the first sleeper behind it in the ring: a sleeper listens to all stakes between
//! itself and the sleeper before it, and who changes the list so that another would have to, has that one look again
//! ([`Waiters::touch_sleeper_after`]).

use super::{Patience, WORDS, Waiters, Words};
use crate::lock::{Guard, Lock};
use crate::primitive::{AtomicU32, FUTEX_OFFSET, Linked, OWNER_DIED, Ordering, Thread};
use crate::segment::{PAGE_BYTES, Segment};
use crate::{Errno, Result};

// The header, relative to the place of the waiters.
pub(super) const HEAD: usize = 0x00;
pub(super) const TAIL: usize = 0x08;
pub(super) const FREE_LIST: usize = 0x10;
/// How many slots have ever been used.
pub(super) const HIGH: usize = 0x18;
pub(super) const SLEEPERS: usize = 0x20;
pub(super) const DIRTY: usize = 0x28;
pub(super) const EPOCH: usize = 0x30;
/// Sleepers and stakes.
pub(super) const MEMBERS: usize = 0x38;
/// Stakes of processes whose end nothing would tell.
pub(super) const UNWATCHED: usize = 0x40;
/// For how many slots there is space in the file, beyond those that share a page with the header.
pub(super) const ROOM: usize = 0x48;
pub(super) const HEADER: usize = 0x80;

// A slot.
pub(super) const LIFE: usize = 0x00;
pub(super) const STATE: usize = 0x08;
pub(super) const RUNG: usize = 0x10;
pub(super) const ENTRY_BEFORE: usize = 0x18;
pub(super) const ENTRY: usize = 0x20;
pub(super) const NEXT: usize = 0x28;
pub(super) const PREVIOUS: usize = 0x30;
pub(super) const TICKET: usize = 0x38;
/// The process; and in the upper half, for a sleeper, which epoch it is to have seen.
pub(super) const PROCESS: usize = 0x40;
/// Which epoch a sleeper has seen.
pub(super) const SEEN: usize = 0x04;
pub(super) const FIRST_WORD: usize = 0x48;
pub(super) const SLOT: usize = 0x80;
const _: () = assert!(ENTRY as isize + FUTEX_OFFSET == LIFE as isize && FIRST_WORD + 8 * WORDS == SLOT);

// States: an errno stands above the lowest byte of `SERVED`.
pub(super) const SLOT_FREE: u64 = 0;
pub(super) const SLEEPING: u64 = 1;
pub(super) const SERVED: u64 = 2;
/// A thread's stake.
pub(super) const HELD: u64 = 3;
/// A process's stake, whose end the kernel tells.
pub(super) const HELD_BY_PROCESS: u64 = 4;
/// A process's stake, whose end must be asked for.
pub(super) const HELD_UNWATCHED: u64 = 5;
/// The word of a process's stake that says when the process was started.
pub(super) const START_WORD: usize = WORDS - 1;

/// Where the low half of a 64-bit word is: the kernel's futexes have 32 bits.
pub(super) const LOW_HALF: usize = if cfg!(target_endian = "big") { 4 } else { 0 };

/// A slot's `life`, linked: its segment stays mapped until this is dropped. Forgotten, to the process's end.
#[derive(Debug)]
pub(super) struct Link<'a> {
    linked: Linked,
    segment: &'a Segment,
}

impl<'a> Link<'a> {
    pub(super) fn new(segment: &'a Segment, linked: Linked) -> Link<'a> {
        segment.linked();
        Link { linked, segment }
    }

    pub(super) fn is_own(&self) -> bool {
        self.linked.is_own()
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        // It is borrowed until after the unlinking.
        self.segment.unlinked();
    }
}

impl<'a, O> Waiters<'a, O> {
    pub(super) fn get(&self, guard: &Guard<'_>, field: usize) -> Result<u64> {
        guard.get(self.base + field)
    }

    pub(super) fn set(&self, guard: &mut Guard<'_>, field: usize, value: u64) -> Result<()> {
        guard.set(self.base + field, value)
    }

    pub(super) fn add(&self, guard: &mut Guard<'_>, field: usize, change: i64) -> Result<()> {
        let value = self.get(guard, field)?;
        self.set(guard, field, value.wrapping_add_signed(change))
    }

    pub(super) fn is_dead(&self, slot: usize) -> Result<bool> {
        Ok(self.segment.word32(slot + LIFE)?.load(Ordering::SeqCst) & OWNER_DIED != 0)
    }

    /// How many slots there are to look at.
    pub(super) fn high(&self) -> Result<u64> {
        Ok(self.segment.word64(self.base + HIGH)?.load(Ordering::Acquire).min(self.capacity))
    }

    pub(super) fn slot(&self, index: u64) -> usize {
        self.base + HEADER + index as usize * self.stride
    }

    /// The slot that a link names: its index and one, in a segment that anybody may have written.
    pub(super) fn checked_slot(&self, link: u64) -> Result<usize> {
        let index = link.checked_sub(1).filter(|index| *index < self.capacity).ok_or(Errno::UCLEAN)?;
        Ok(self.slot(index))
    }

    pub(super) fn link_of(&self, slot: usize) -> u64 {
        ((slot - self.base - HEADER) / self.stride) as u64 + 1
    }

    pub(super) fn words(&self, guard: &Guard<'_>, slot: usize) -> Result<Words> {
        let mut words = Words::default();
        for (index, word) in words.iter_mut().enumerate() {
            *word = guard.get(slot + FIRST_WORD + 8 * index)?;
        }
        Ok(words)
    }

    pub(super) fn low_half(&self, offset: usize) -> Result<&'a AtomicU32> {
        self.segment.word32(offset + LOW_HALF)
    }

    /// Whether there is space for the slot that the next will have. What lies in the file need not be: it has holes.
    pub(super) fn has_room(&self, guard: &Guard<'_>) -> Result<bool> {
        let index = self.index_for_next(guard)?;
        let end = self.slot(index) + self.stride;
        if end <= self.first_page_end() || index < self.get(guard, ROOM)? || self.segment.file().is_err() {
            return Ok(self.segment.word64(end - 8).is_ok());
        }
        Ok(false)
    }

    /// Where the page ends that has the header: it was made with the object.
    fn first_page_end(&self) -> usize {
        (self.base / PAGE_BYTES + 1) * PAGE_BYTES
    }

    /// Makes room for one more slot, without the lock but for noting it: after `ENOBUFS`.
    ///
    /// # Errors
    /// `ENOSPC`: the file system is full, or as many slots are in use as may be. `ENOMEM`: the segment's capacity. Those of
    /// [`Lock::acquire`]; `EAGAIN`: see [`Patience::None`].
    pub fn make_room(&self, patience: Patience) -> Result<()> {
        let index = self.high()?;
        let page = (self.slot(index) + self.stride - 1) / PAGE_BYTES * PAGE_BYTES;
        let before = self.slot(index) / PAGE_BYTES * PAGE_BYTES;
        let whole = self.slot(self.capacity).next_multiple_of(PAGE_BYTES);
        let end = (page + PAGE_BYTES).min(whole);
        if index >= self.capacity {
            return Err(Errno::NOSPC);
        }
        self.segment.reserve(before, end - before)?;
        let room = ((end - self.base - HEADER) / self.stride) as u64;
        let mut guard = Lock::of(self.segment).acquire_as(Thread::current(), patience.limit())?;
        if self.get(&guard, ROOM)? < room {
            self.set(&mut guard, ROOM, room)?;
        }
        guard.commit();
        Ok(())
    }

    /// The slot that the next to be blocked will have.
    pub(super) fn index_for_next(&self, guard: &Guard<'_>) -> Result<u64> {
        match self.get(guard, FREE_LIST)? {
            0 => match self.get(guard, HIGH)? {
                high if high < self.capacity => Ok(high),
                high if high == self.capacity => Err(Errno::NOSPC),
                _ => Err(Errno::UCLEAN),
            },
            // One that was never used may have no space in the file, and would never get any.
            link => match self.link_of(self.checked_slot(link)?) - 1 {
                index if index < self.get(guard, HIGH)? => Ok(index),
                _ => Err(Errno::UCLEAN),
            },
        }
    }

    /// Puts the slot that [`Waiters::index_for_next`] gave at the end of the list.
    pub(super) fn append(&self, guard: &mut Guard<'_>, index: u64, state: u64) -> Result<()> {
        let slot = self.slot(index);
        if self.get(guard, FREE_LIST)? == 0 {
            self.set(guard, HIGH, index + 1)?;
        } else {
            let free = guard.get(slot + NEXT)?;
            self.set(guard, FREE_LIST, free)?;
        }
        let tail = self.get(guard, TAIL)?;
        let after_tail = if tail == 0 { self.base + HEAD } else { self.checked_slot(tail)? + NEXT };
        guard.set(after_tail, index + 1)?;
        guard.set(slot + NEXT, 0)?;
        guard.set(slot + PREVIOUS, tail)?;
        self.set(guard, TAIL, index + 1)?;
        guard.set(slot + STATE, state)?;
        self.add(guard, MEMBERS, 1)?;
        if state == SLEEPING {
            self.add(guard, SLEEPERS, 1)?;
        } else {
            self.touch_sleeper_after(guard, slot)?;
        }
        self.add(guard, EPOCH, 1)
    }

    /// Takes a slot out of the list and puts it among the free ones.
    pub(super) fn unlink(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        let (next, previous) = (guard.get(slot + NEXT)?, guard.get(slot + PREVIOUS)?);
        let after_previous =
            if previous == 0 { self.base + HEAD } else { self.checked_slot(previous)? + NEXT };
        let before_next = if next == 0 { self.base + TAIL } else { self.checked_slot(next)? + PREVIOUS };
        let link = self.link_of(slot);
        if guard.get(after_previous)? != link || guard.get(before_next)? != link {
            return Err(Errno::UCLEAN);
        }
        let state = guard.get(slot + STATE)? & 0xff;
        if state == SLEEPING || state == SERVED {
            if self.get(guard, MEMBERS)? != self.get(guard, SLEEPERS)? {
                self.touch_sleeper_after(guard, slot)?;
            }
            self.add(guard, SLEEPERS, -1)?;
        } else if state == HELD_UNWATCHED {
            self.add(guard, UNWATCHED, -1)?;
        }
        guard.set(after_previous, next)?;
        guard.set(before_next, previous)?;
        guard.set(slot + STATE, SLOT_FREE)?;
        let free = self.get(guard, FREE_LIST)?;
        guard.set(slot + NEXT, free)?;
        self.set(guard, FREE_LIST, link)?;
        self.add(guard, MEMBERS, -1)?;
        self.add(guard, EPOCH, 1)
    }

    /// Has the first sleeper behind a slot, round the ring, woken to see again which stakes it listens to.
    /// To be followed by a change of the epoch in the same transaction.
    pub(super) fn touch_sleeper_after(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        let mut at = slot;
        for _ in 0..=self.capacity {
            let next = match guard.get(at + NEXT)? {
                0 => self.get(guard, HEAD)?,
                link => link,
            };
            if next == 0 {
                return Ok(());
            }
            at = self.checked_slot(next)?;
            if at == slot {
                return Ok(());
            }
            if guard.get(at + STATE)? & 0xff == SLEEPING {
                let epoch = self.get(guard, EPOCH)? as u32;
                let process = guard.get(at + PROCESS)? & u64::from(u32::MAX);
                return guard.set(at + PROCESS, process | u64::from(epoch.wrapping_add(1)) << 32);
            }
        }
        Err(Errno::UCLEAN)
    }

    /// Whether its owner is to look again: it has seen the list only as it was before.
    pub(super) fn is_touched(&self, slot: usize) -> Result<bool> {
        let touched = (self.segment.word64(slot + PROCESS)?.load(Ordering::SeqCst) >> 32) as u32;
        let seen = self.segment.word32(slot + SEEN)?.load(Ordering::SeqCst);
        Ok((touched.wrapping_sub(seen) as i32) > 0)
    }

    /// Whoever looks round once it is served rings this slot.
    pub(super) fn turn_ticket(&self, slot: usize) -> Result<()> {
        let ticket = self.segment.word64(slot + TICKET)?;
        ticket.store(ticket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        Ok(())
    }
}
