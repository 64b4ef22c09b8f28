//! What a queue holds: its words, its messages, and what is done with them under the lock.
//!
//! A message is a *unit* of the heap: a head of six words, then as much of the payload as fits; the rest is in a chain of
//! pages. Three things find it: the ring (`order`), in the order of sending; the types (`types`), a hash table of FIFOs;
//! and, once somebody has asked for it, the heap of types (`least`). A usual operation changes one word of the
//! counts, one of the ring, one of the types and one of the memory, and rarely who it was and when.
//!
//! ```text
//! word 0  type
//! word 1  size u32 | the next of its type u32
//! word 2  the last of its type u32 (of a FIFO's head) | the chain's last page u32
//! word 3  its place in the ring, one u32 for each half
//! word 4  the next head in its bucket, one u32 for each parity of the table
//! word 5  the chain's first page u32
//! ```
//! Fields that have a meaning only in some state (the next of a FIFO's last; the place in the other half) are
//! written without the journal before they get that meaning.
//!
//! # A message away from the queue
//! One that was *claimed* for a receiver who has not come for it yet is neither counted nor found, but its place in the
//! ring stays, marked: there it goes back to if the receiver dies. One that is *prepared* belongs to a sender that waits.

use std::cell::RefCell;

use super::descriptor::TO_BE_TOLD;
use super::{LARGE_BYTES, WARMED_BYTES};
use crate::heap::{Chain, HEAP_BYTES, Heap, UNIT_BYTES_MAX, Unit};
use crate::lock::Guard;
use crate::primitive::{AtomicU64, Ordering, seconds};
use crate::segment::{HEADER_BYTES, PAGE_BYTES, Segment};
use crate::{Errno, Result};

// The queue's words, relative to the segment's own bytes. The first line is all that most operations need.
/// Bytes in the lower bits, messages in the upper.
pub(super) const COUNTS: usize = 0x00;
/// The first place that may hold a message | the place of the next one << 32.
pub(super) const RING: usize = 0x08;
/// Seconds, and the process in the lower bits.
pub(super) const SENT: usize = 0x10;
pub(super) const RECEIVED: usize = 0x18;
/// Claimed messages | prepared ones << 32 | what those who poll are to be told of. While it is not 0, there is no short way.
pub(super) const AWAY: usize = 0x20;
/// The first place that is in use, while a message is claimed.
pub(super) const HEAD: usize = 0x28;
/// `msg_qbytes`.
pub(super) const LIMIT: usize = 0x30;
/// How large the tables are, and which of two is meant.
pub(super) const SHAPE: usize = 0x38;
pub(super) const HEAP: usize = 0x40;
const _: () = assert!(HEAP + HEAP_BYTES <= CHANGED);
pub(super) const CHANGED: usize = 0xa8;
pub(super) const EXCEPT_TYPE: usize = 0xb0;
pub(super) const EXCEPT_PLACE: usize = 0xb8;
/// How many types stand in the heap of types.
pub(super) const LEAST_LEN: usize = 0xc0;
pub(super) const RING_LAST_PAGE: usize = 0xc8;
pub(super) const TYPES_LAST_PAGE: usize = 0xd0;
pub(super) const LEAST_LAST_PAGE: usize = 0xd8;
/// How often memory was made again after it was given back, and when last.
pub(super) const REGROWN: usize = 0xe0;
/// The directories of the tables, four words each.
pub(super) const RING_ROOTS: usize = 0x100;
pub(super) const TYPES_ROOTS: usize = 0x140;
pub(super) const LEAST_ROOTS: usize = 0x160;
/// The directories of a table that is being made.
pub(super) const STAGING: usize = 0x180;
/// The doorbell's.
pub(super) const BELL_NUMBER: usize = 0x1c0;
pub(super) const POLLED: usize = 0x1c8;
pub(super) const OUT_OF_STEP: usize = 0x1d0;
pub(super) const RINGER: usize = 0x1d8;
/// The tables of a small queue.
pub(super) const RING_INLINE: usize = 0x200;
pub(super) const TYPES_INLINE: usize = 0x400;
pub(super) const WAITERS: usize = 0x500;

/// Of the heap of types in the shape.
pub(super) const LEAST_SHIFT: u32 = 32;
pub(super) const COUNT_SHIFT: u32 = 36;
const BYTES: u64 = (1 << COUNT_SHIFT) - 1;
const MESSAGES_MAX: u64 = 1 << super::order::blocks_log(super::order::WIDEST);
/// A queue with so many is full, whatever its limit: the others may be on their way.
const MESSAGES_HELD_MAX: u64 = MESSAGES_MAX - BLOCKED_MAX as u64;
/// A process's id has 22 bits.
const PROCESS_SHIFT: u32 = 22;

/// The head of a message, before its payload.
pub(super) const HEAD_BYTES: usize = 48;
/// How much of a payload stands in the unit if not all of it does.
const INLINE_BYTES: usize = 80;
pub(super) const WHOLE_MAX: usize = UNIT_BYTES_MAX - HEAD_BYTES;

pub(super) const TYPE: usize = 0;
pub(super) const SIZE: usize = 1;
pub(super) const LAST: usize = 2;
pub(super) const PLACES: usize = 3;
pub(super) const CHAINS: usize = 4;
pub(super) const PAGES: usize = 5;

/// A message's head, in the segment.
pub(super) type Block<'a> = &'a [AtomicU64; 6];

/// One of the two numbers in a word.
#[inline]
pub(super) fn half(word: u64, upper: u32) -> u32 {
    (word >> (32 * upper)) as u32
}

#[inline]
pub(super) fn with_half(word: u64, upper: u32, value: u32) -> u64 {
    let shift = 32 * upper;
    word & !(0xffff_ffff << shift) | u64::from(value) << shift
}

/// Which message a receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    Any,
    Type(i64),
    Except(i64),
    AtMost(i64),
}

impl Select {
    /// As `msgrcv` has it.
    pub(super) fn of(kind: i64, flags: i32) -> Select {
        match kind {
            0 => Select::Any,
            // The kernel's: there is no -LONG_MIN.
            i64::MIN..0 => Select::AtMost(kind.checked_neg().unwrap_or(i64::MAX)),
            _ if flags & libc::MSG_EXCEPT != 0 => Select::Except(kind),
            _ => Select::Type(kind),
        }
    }
}

/// A message that was found, and where the types have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) unit: u32,
    pub(super) size: u32,
    pub(super) kind: i64,
    pub(super) link: super::types::Link,
}

/// Messages and bytes.
pub(super) fn counts_in(word: u64) -> (u64, u64) {
    (word >> COUNT_SHIFT, word & BYTES)
}

/// The time and the process that [`Store::stamp`] has written.
pub(super) fn stamp_in(word: u64) -> (i64, i32) {
    ((word >> PROCESS_SHIFT) as i64, (word & ((1 << PROCESS_SHIFT) - 1)) as i32)
}

/// A queue's content. All that takes a guard is done under the lock.
#[derive(Debug)]
pub(super) struct Store<'a> {
    pub(super) segment: &'a Segment,
    pub(super) line: &'a [AtomicU64; 8],
    pub(super) heap: Heap<'a>,
    first_byte: usize,
}

/// How many pages the blocked may take before the heap begins.
pub(super) const WAITERS_PAGES: usize = 256;
pub(super) const FIRST_PAGE: u32 = (HEADER_BYTES / PAGE_BYTES + 1 + WAITERS_PAGES) as u32;
/// How many operations may be blocked.
pub(super) const BLOCKED_MAX: u32 = ((PAGE_BYTES * (WAITERS_PAGES + 1) - WAITERS) / 128 - 1) as u32;

impl<'a> Store<'a> {
    #[inline(always)]
    pub(super) fn of(segment: &'a Segment) -> Result<Store<'a>> {
        Ok(Store {
            segment,
            line: segment.words::<8>(HEADER_BYTES)?,
            heap: Heap::of(segment, HEADER_BYTES + HEAP, FIRST_PAGE),
            first_byte: FIRST_PAGE as usize * PAGE_BYTES,
        })
    }

    /// A word of the first line.
    #[inline]
    pub(super) fn hot(&self, field: usize) -> u64 {
        self.line[field / 8].load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn get(&self, guard: &Guard<'_>, field: usize) -> Result<u64> {
        guard.get(HEADER_BYTES + field)
    }

    #[inline]
    pub(super) fn set(&self, guard: &mut Guard<'_>, field: usize, value: u64) -> Result<()> {
        guard.set(HEADER_BYTES + field, value)
    }

    /// Changes a word of the first line.
    #[inline]
    pub(super) fn set_hot(&self, guard: &mut Guard<'_>, field: usize, value: u64) -> Result<()> {
        let word = &self.line[field / 8];
        guard.change(word, word.load(Ordering::Relaxed), value)
    }

    /// Changes a word that is not to be undone.
    pub(super) fn store(&self, field: usize, value: u64) -> Result<()> {
        self.segment.word64(HEADER_BYTES + field)?.store(value, Ordering::Release);
        Ok(())
    }

    /// A message's head. Nothing of the object's own words can be taken for one.
    #[inline(always)]
    pub(super) fn block(&self, unit: u32) -> Result<Block<'a>> {
        let offset = Unit::from_raw(unit).offset();
        if offset < self.first_byte {
            return Err(Errno::UCLEAN);
        }
        self.segment.words::<6>(offset)
    }

    /// Journals a change of a message's head.
    #[inline]
    pub(super) fn set_block(&self, guard: &mut Guard<'_>, unit: u32, field: usize, value: u64) -> Result<()> {
        guard.set(Unit::from_raw(unit).offset() + 8 * field, value)
    }

    #[inline]
    pub(super) fn messages(&self) -> u64 {
        self.hot(COUNTS) >> COUNT_SHIFT
    }

    /// `msg_fits_inqueue` of the kernel.
    #[inline]
    pub(super) fn fits(&self, size: u64) -> bool {
        let counts = self.hot(COUNTS);
        let (bytes, messages) = (counts & BYTES, counts >> COUNT_SHIFT);
        let limit = self.hot(LIMIT);
        bytes + size <= limit && messages < limit.min(MESSAGES_HELD_MAX) && bytes + size <= BYTES
    }

    /// Who did it and when: mostly the same as before.
    #[inline(always)]
    pub(super) fn stamp(&self, guard: &mut Guard<'_>, field: usize, process: u32) -> Result<()> {
        let word = seconds() << PROCESS_SHIFT | u64::from(process) & ((1 << PROCESS_SHIFT) - 1);
        if self.hot(field) == word { Ok(()) } else { self.set_hot(guard, field, word) }
    }

    /// Takes the memory for a message and writes its head.
    #[inline]
    pub(super) fn reserve(&self, guard: &mut Guard<'_>, kind: i64, size: usize) -> Result<u32> {
        let (claimed, prepared) = self.away();
        let blocks = self.messages() + u64::from(claimed) + u64::from(prepared);
        if blocks >= self.blocks_max() {
            if blocks >= MESSAGES_MAX {
                return Err(Errno::NOMEM);
            }
            self.widen(guard, blocks)?;
        }
        let size_word = u32::try_from(size).map_err(|_| Errno::INVAL)?;
        let (unit, pages) = if size <= WHOLE_MAX {
            (self.heap.take_unit(guard, HEAD_BYTES + size)?, Chain::default())
        } else {
            let count = (size - INLINE_BYTES).div_ceil(PAGE_BYTES) as u32;
            // The pages first: what is lacking is then known for all of it but one page.
            let pages = self.heap.take_pages(guard, count)?;
            (self.heap.take_unit(guard, HEAD_BYTES + INLINE_BYTES)?, pages)
        };
        let block = self.block(unit.raw())?;
        block[TYPE].store(kind as u64, Ordering::Release);
        block[SIZE].store(u64::from(size_word), Ordering::Release);
        block[LAST].store(u64::from(unit.raw()) | u64::from(pages.last) << 32, Ordering::Release);
        block[PAGES].store(u64::from(pages.first), Ordering::Release);
        Ok(unit.raw())
    }

    /// Frees a message's memory.
    #[inline]
    pub(super) fn free(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let block = self.block(unit)?;
        let size = half(block[SIZE].load(Ordering::Relaxed), 0) as usize;
        let mut bytes = HEAD_BYTES + size;
        if size > WHOLE_MAX {
            bytes = HEAD_BYTES + INLINE_BYTES;
            let count = (size - INLINE_BYTES).div_ceil(PAGE_BYTES) as u32;
            let last = half(block[LAST].load(Ordering::Relaxed), 1);
            let first = half(block[PAGES].load(Ordering::Relaxed), 0);
            self.heap.free_pages(guard, Chain { first, last, count })?;
        }
        self.heap.free_unit(guard, Unit::from_raw(unit), bytes)
    }

    /// Goes through the places of a payload's first `len` bytes.
    #[inline]
    fn for_each_piece(
        &self,
        unit: u32,
        size: usize,
        len: usize,
        mut piece: impl FnMut(usize, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let start = Unit::from_raw(unit).offset() + HEAD_BYTES;
        if size <= WHOLE_MAX {
            return piece(start, 0..len);
        }
        piece(start, 0..len.min(INLINE_BYTES))?;
        let mut page = half(self.block(unit)?[PAGES].load(Ordering::Relaxed), 0);
        let mut done = INLINE_BYTES;
        while done < len {
            let end = len.min(done + PAGE_BYTES);
            piece(self.heap.page_offset(page)?, done..end)?;
            done = end;
            if done < len {
                page = self.heap.next_page(page)?;
            }
        }
        Ok(())
    }

    /// Has the processor fetch, without the lock, the memory that the next message is likely to get: whoever copies what
    /// has to come from another processor first keeps all others waiting for the lock meanwhile.
    #[inline(never)]
    pub(super) fn warm_free(&self, size: usize) -> Result<()> {
        let in_unit = HEAD_BYTES + if size <= WHOLE_MAX { size } else { INLINE_BYTES };
        if let Some(unit) = self.heap.likely_unit(in_unit)? {
            self.segment.warm(unit.offset(), in_unit, true);
        }
        if size > WHOLE_MAX { self.warm_pages(self.heap.likely_page()?, size, true) } else { Ok(()) }
    }

    /// The same for the message that is likely to be received next.
    #[inline(never)]
    pub(super) fn warm_first(&self, kind: i64) -> Result<()> {
        if self.messages() == 0 {
            return Ok(());
        }
        let unit = if kind == 0 {
            let ring = self.ring()?;
            let (word, upper) = self.place_at(ring, ring.first())?;
            half(word.load(Ordering::Relaxed), upper)
        } else {
            // Not the way through the bucket: without the lock it may lead anywhere.
            let (bucket, upper) = self.bucket_word(self.types()?, kind)?;
            half(bucket.load(Ordering::Relaxed), upper)
        };
        if unit == 0 {
            return Ok(());
        }
        let block = self.block(unit)?;
        let size = half(block[SIZE].load(Ordering::Relaxed), 0) as usize;
        let in_unit = HEAD_BYTES + if size <= WHOLE_MAX { size } else { INLINE_BYTES };
        self.segment.warm(Unit::from_raw(unit).offset(), in_unit, false);
        if size <= WHOLE_MAX || size > LARGE_BYTES {
            return Ok(());
        }
        self.warm_pages(half(block[PAGES].load(Ordering::Relaxed), 0), size, false)
    }

    /// [`Store::warm_free`] for a sender, if it is worth it.
    #[inline(always)]
    pub(super) fn warm_for_sending(&self, size: usize) {
        if (WARMED_BYTES..=LARGE_BYTES).contains(&size) {
            // A hint: what is not as it seems is not fetched.
            let _ = self.warm_free(size);
        }
    }

    /// [`Store::warm_first`] for a receiver, if it is likely to be worth it.
    #[inline(always)]
    pub(super) fn warm_for_receiving(&self, is_long: bool, kind: i64) {
        if is_long && kind >= 0 {
            let _ = self.warm_first(kind);
        }
    }

    fn warm_pages(&self, first: u32, size: usize, to_write: bool) -> Result<()> {
        let (mut page, mut left) = (first, size - INLINE_BYTES);
        while page != 0 {
            self.segment.warm(self.heap.page_offset(page)?, left.min(PAGE_BYTES), to_write);
            left = left.saturating_sub(PAGE_BYTES);
            if left == 0 {
                break;
            }
            page = self.heap.next_page(page)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write_payload(&self, unit: u32, payload: &[u8]) -> Result<()> {
        self.for_each_piece(unit, payload.len(), payload.len(), |offset, range| {
            self.segment.copy_in(offset, payload.get(range).unwrap_or_default())
        })
    }

    /// Copies as much as there is, or there is room for: how much that is.
    #[inline]
    pub(super) fn read_payload(&self, unit: u32, size: u32, out: &RefCell<&mut [u8]>) -> Result<usize> {
        let mut out = out.try_borrow_mut().map_err(|_| Errno::BUSY)?;
        let len = out.len().min(size as usize);
        self.for_each_piece(unit, size as usize, len, |offset, range| {
            self.segment.copy_out(offset, out.get_mut(range).unwrap_or_default())
        })?;
        Ok(len)
    }

    #[inline]
    fn count(&self, guard: &mut Guard<'_>, messages: i64, bytes: i64) -> Result<()> {
        let counts = self.hot(COUNTS);
        let changed = counts.wrapping_add_signed(messages << COUNT_SHIFT).wrapping_add_signed(bytes);
        if self.hot(AWAY) & TO_BE_TOLD == 0 {
            return self.set_hot(guard, COUNTS, changed);
        }
        let shown = self.packets();
        self.set_hot(guard, COUNTS, changed)?;
        self.note_change(guard, shown, messages)
    }

    /// How many messages are claimed, and how many prepared.
    #[inline]
    pub(super) fn away(&self) -> (u32, u32) {
        let away = self.hot(AWAY) & !TO_BE_TOLD;
        (half(away, 0), half(away, 1))
    }

    pub(super) fn count_away(&self, guard: &mut Guard<'_>, claimed: i64, prepared: i64) -> Result<()> {
        let (claimed_now, prepared_now) = self.away();
        let changed = |now: u32, by: i64| u32::try_from(i64::from(now) + by).map_err(|_| Errno::UCLEAN);
        let (claimed, prepared) = (changed(claimed_now, claimed)?, changed(prepared_now, prepared)?);
        let told = self.hot(AWAY) & TO_BE_TOLD;
        self.set(guard, AWAY, u64::from(claimed) | (u64::from(prepared) << 32) & !TO_BE_TOLD | told)
    }

    /// Puts a message that has been written at the end of the queue.
    #[inline]
    pub(super) fn enqueue(&self, guard: &mut Guard<'_>, unit: u32, kind: i64, size: u32) -> Result<()> {
        self.push(guard, unit)?;
        self.count(guard, 1, i64::from(size))?;
        if self.append(guard, unit, kind)? {
            self.note_type(guard, kind)?;
        }
        Ok(())
    }

    /// The message that a receiver gets, if there is one.
    #[inline]
    pub(super) fn find(&self, guard: &Guard<'_>, select: Select) -> Result<Option<Found>> {
        let found = match select {
            Select::Type(kind) => return self.find_type(guard, kind),
            Select::Any => self.first_message(guard)?,
            Select::Except(kind) => self.first_except(guard, kind)?,
            Select::AtMost(most) => match self.least_type(guard, most)? {
                Some(kind) => return self.find_type(guard, kind),
                None => None,
            },
        };
        let Some(unit) = found else { return Ok(None) };
        let kind = self.block(unit)?[TYPE].load(Ordering::Relaxed) as i64;
        // The first of all is the first of its type.
        match self.find_type(guard, kind)? {
            Some(found) if found.unit == unit => Ok(Some(found)),
            _ => Err(Errno::UCLEAN),
        }
    }

    /// Takes a message out of the queue. It is the caller's then; in the ring, its place is left to `place`.
    #[inline]
    fn detach(&self, guard: &mut Guard<'_>, found: &Found) -> Result<()> {
        self.count(guard, -1, -i64::from(found.size))?;
        self.remove_head(guard, found)
    }

    /// Takes a message out of the queue and frees it.
    #[inline]
    pub(super) fn remove(&self, guard: &mut Guard<'_>, found: &Found) -> Result<()> {
        self.detach(guard, found)?;
        self.vacate(guard, found.unit)?;
        self.free(guard, found.unit)
    }

    /// Takes a message out of the queue for a receiver who will come for it.
    pub(super) fn claim(&self, guard: &mut Guard<'_>, found: &Found) -> Result<()> {
        self.detach(guard, found)?;
        self.mark_claimed(guard, found.unit)?;
        self.count_away(guard, 1, 0)
    }

    /// The receiver of a claimed message has what it wanted.
    pub(super) fn finish_claim(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        self.drop_claimed(guard, unit)?;
        self.count_away(guard, -1, 0)?;
        self.free(guard, unit)
    }

    /// The receiver of a claimed message is dead: it goes back to its place.
    pub(super) fn put_back(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let block = self.block(unit)?;
        let kind = block[TYPE].load(Ordering::Relaxed) as i64;
        let size = half(block[SIZE].load(Ordering::Relaxed), 0);
        self.unmark_claimed(guard, unit)?;
        self.count_away(guard, -1, 0)?;
        self.count(guard, 1, i64::from(size))?;
        if self.insert(guard, unit, kind)? {
            self.note_type(guard, kind)?;
        }
        Ok(())
    }
}
