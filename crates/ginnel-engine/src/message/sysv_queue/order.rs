//! The order of sending: a ring of places, each with its message, or empty once that was received.
//!
//! Places count on for ever (modulo 2^32); a place's slot in the ring is its lowest bits. All messages stand in
//! `first .. next`; claimed ones may also stand before that, from `head` on. When the ring is full of places, most of them
//! empty, those that are not are written close to each other into the ring's other *half*, and one word says which half
//! is meant; a message notes its place in each half. There are never more messages than half a ring, so that this
//! always makes room, and never needs memory. A sender for whose message that would not hold makes the ring wider first.
//! A ring that is not the smallest or the widest is made wider when a quarter is full: one that is half full would be
//! written anew each time as many messages have come as there are, which is much of what an operation costs.

use super::store::{
    AWAY, EXCEPT_PLACE, EXCEPT_TYPE, HEAD, PLACES, RING, RING_INLINE, RING_LAST_PAGE, RING_ROOTS, SHAPE,
    STAGING, Store, TYPE, half, with_half,
};
use super::table::ROOTS;
use crate::lock::Guard;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::HEADER_BYTES;
use crate::{Errno, Result};

/// The ring of a small queue, as a power of two.
pub(super) const SMALL: u32 = 6;
pub(super) const PLACES_A_PAGE: usize = 1024;
pub(super) const WIDE: u32 = PLACES_A_PAGE.ilog2();
/// The widest that the roots can name.
pub(super) const WIDEST: u32 = 23;
/// Of a place's number in the ring.
const CLAIMED: u32 = 1 << 31;
/// How many empty places one operation passes at most when it takes the first message.
const PASSED_MAX: u32 = 16;
/// What a longer ring's messages take is more than a processor keeps, as a power of two.
pub(super) const CACHED: u32 = 15;
/// How far ahead messages are fetched when the ring is copied.
const COPIED_AHEAD: u32 = 16;

/// The ring as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    log: u32,
    half: u32,
    first: u32,
    next: u32,
    /// Where its directories are named.
    roots: usize,
}

impl Ring {
    fn places(self) -> u32 {
        1 << self.log
    }

    #[inline]
    pub(super) fn first(self) -> u32 {
        self.first
    }

    #[inline]
    pub(super) fn next(self) -> u32 {
        self.next
    }

    #[inline]
    pub(super) fn half(self) -> u32 {
        self.half
    }

    /// While no message is claimed.
    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.next.wrapping_sub(self.first) >= self.places()
    }
}

/// [`blocks_log`] of each: looked up with each message.
const BLOCKS_LOG: [u8; 32] = {
    let mut logs = [0; 32];
    let mut log = 0;
    while log < logs.len() {
        logs[log] = blocks_log(log as u32) as u8;
        log += 1;
    }
    logs
};

/// How many messages a ring is to hold, as a power of two.
pub(super) const fn blocks_log(ring_log: u32) -> u32 {
    ring_log.saturating_sub(if ring_log == SMALL || ring_log == WIDEST { 1 } else { 2 })
}

/// A place's number in the ring.
#[inline]
pub(super) fn place_in(ring: Ring, place: u32) -> u32 {
    place & (ring.places() - 1)
}

impl<'a> Store<'a> {
    #[inline(always)]
    pub(super) fn ring(&self) -> Result<Ring> {
        let (shape, ring) = (self.hot(SHAPE), self.hot(RING));
        let log = shape as u32 & 0xff;
        let found = Ring {
            log,
            half: shape as u32 >> 8 & 1,
            first: half(ring, 0),
            next: half(ring, 1),
            roots: RING_ROOTS,
        };
        let sound = log == SMALL || (WIDE..=WIDEST).contains(&log);
        if !sound || found.next.wrapping_sub(found.first) > found.places() {
            return Err(Errno::UCLEAN);
        }
        Ok(found)
    }

    /// How many messages there may be before the ring is made wider.
    #[inline]
    pub(super) fn blocks_max(&self) -> u64 {
        1 << BLOCKS_LOG[self.hot(SHAPE) as usize & 0x1f]
    }

    /// Where a place's word stands, and which half of that it is.
    #[inline]
    fn place(&self, ring: Ring, place: u32) -> Result<(usize, u32)> {
        let index = (place & (ring.places() - 1)) as usize;
        let offset = if ring.log == SMALL {
            HEADER_BYTES + RING_INLINE + ((ring.half as usize) << (SMALL + 2))
        } else {
            self.table_page(ring.roots + ring.half as usize * ROOTS * 4, index / PLACES_A_PAGE)?
        };
        Ok((offset + index % PLACES_A_PAGE / 2 * 8, index as u32 % 2))
    }

    #[inline]
    fn place_word(&self, ring: Ring, place: u32) -> Result<(&'a AtomicU64, u32)> {
        let (offset, upper) = self.place(ring, place)?;
        Ok((self.segment.word64(offset)?, upper))
    }

    /// [`Store::place_word`], in few steps for a small ring.
    #[inline(always)]
    pub(super) fn place_at(&self, ring: Ring, place: u32) -> Result<(&'a AtomicU64, u32)> {
        let index = place_in(ring, place);
        let word = if ring.log == SMALL {
            let offset = HEADER_BYTES + RING_INLINE + ((ring.half as usize) << (SMALL + 2));
            self.segment.word64(offset + index as usize / 2 * 8)?
        } else {
            self.segment.word64(self.place(ring, place)?.0)?
        };
        Ok((word, index % 2))
    }

    #[inline]
    fn at(&self, ring: Ring, place: u32) -> Result<u32> {
        let (word, upper) = self.place_word(ring, place)?;
        Ok(half(word.load(Ordering::Relaxed), upper))
    }

    /// Writes a place that nobody looks at yet.
    #[inline]
    fn write(&self, ring: Ring, place: u32, value: u32) -> Result<()> {
        let (word, upper) = self.place_word(ring, place)?;
        word.store(with_half(word.load(Ordering::Relaxed), upper, value), Ordering::Release);
        Ok(())
    }

    #[inline]
    fn change(&self, guard: &mut Guard<'_>, ring: Ring, place: u32, value: u32) -> Result<()> {
        let (word, upper) = self.place_word(ring, place)?;
        let old = word.load(Ordering::Relaxed);
        guard.change(word, old, with_half(old, upper, value))
    }

    /// The first place that is in use.
    #[inline]
    fn ring_head(&self, ring: Ring) -> u32 {
        if half(self.hot(AWAY), 0) == 0 { ring.first } else { self.hot(HEAD) as u32 }
    }

    /// How many places there are before a message's.
    pub(super) fn age(&self, ring: Ring, unit: u32) -> Result<u32> {
        let place = half(self.block(unit)?[PLACES].load(Ordering::Relaxed), ring.half);
        Ok(place.wrapping_sub(self.ring_head(ring)))
    }

    /// Puts a message at the end.
    #[inline]
    pub(super) fn push(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let mut ring = self.ring()?;
        if ring.next.wrapping_sub(self.ring_head(ring)) >= ring.places() {
            ring = self.compact(guard, ring)?;
        }
        self.write(ring, ring.next, unit)?;
        let block = self.block(unit)?;
        let places = block[PLACES].load(Ordering::Relaxed);
        block[PLACES].store(with_half(places, ring.half, ring.next), Ordering::Release);
        let next = ring.next.wrapping_add(1);
        if next & (ring.places() - 1) == 0 {
            // What was noted of a place must not be taken for one that comes 2^32 later.
            self.store(EXCEPT_TYPE, 0)?;
        }
        self.set_hot(guard, RING, u64::from(ring.first) | u64::from(next) << 32)
    }

    /// Where a message is said to stand, which it does, perhaps marked.
    #[inline]
    fn place_of(&self, ring: Ring, unit: u32, mark: u32) -> Result<u32> {
        let place = half(self.block(unit)?[PLACES].load(Ordering::Relaxed), ring.half);
        if self.at(ring, place)? != unit | mark {
            return Err(Errno::UCLEAN);
        }
        Ok(place)
    }

    /// A message leaves its place.
    #[inline]
    pub(super) fn vacate(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let ring = self.ring()?;
        let place = self.place_of(ring, unit, 0)?;
        // While a message is claimed, `first` may go back to before this place.
        if place != ring.first || half(self.hot(AWAY), 0) != 0 {
            self.change(guard, ring, place, 0)?;
        }
        self.pass(guard, ring, place)
    }

    /// If the first place has become empty, the next one is the first.
    #[inline]
    fn pass(&self, guard: &mut Guard<'_>, ring: Ring, place: u32) -> Result<()> {
        if place != ring.first {
            return Ok(());
        }
        let first = self.next_first(ring)?;
        self.set_hot(guard, RING, u64::from(first) | u64::from(ring.next) << 32)
    }

    /// The place that is the first when that which is has become empty.
    #[inline(always)]
    pub(super) fn next_first(&self, ring: Ring) -> Result<u32> {
        let mut first = ring.first.wrapping_add(1);
        for _ in 0..PASSED_MAX {
            if first == ring.next || self.at(ring, first)? != 0 {
                break;
            }
            first = first.wrapping_add(1);
        }
        Ok(first)
    }

    /// A message leaves the queue, but its place stays its own. Before it is counted as claimed.
    pub(super) fn mark_claimed(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let ring = self.ring()?;
        let place = self.place_of(ring, unit, 0)?;
        if half(self.hot(AWAY), 0) == 0 {
            self.set(guard, HEAD, u64::from(ring.first))?;
        }
        self.change(guard, ring, place, unit | CLAIMED)?;
        self.pass(guard, ring, place)
    }

    /// A claimed message leaves its place.
    pub(super) fn drop_claimed(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let ring = self.ring()?;
        let place = self.place_of(ring, unit, CLAIMED)?;
        self.change(guard, ring, place, 0)
    }

    /// A claimed message is the queue's again.
    pub(super) fn unmark_claimed(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        let ring = self.ring()?;
        let place = self.place_of(ring, unit, CLAIMED)?;
        self.change(guard, ring, place, unit)?;
        self.store(EXCEPT_TYPE, 0)?;
        let head = self.ring_head(ring);
        if place.wrapping_sub(head) < ring.first.wrapping_sub(head) {
            self.set_hot(guard, RING, u64::from(place) | u64::from(ring.next) << 32)?;
        }
        Ok(())
    }

    /// Shows the messages from a place on, in their order, until `see` has seen enough: the place at which that was.
    fn scan(
        &self,
        ring: Ring,
        from: u32,
        mut see: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Option<(u32, u32)>> {
        let mut place = from;
        while place != ring.next {
            let unit = self.at(ring, place)?;
            if unit != 0 && unit & CLAIMED == 0 && see(unit)? {
                return Ok(Some((place, unit)));
            }
            place = place.wrapping_add(1);
        }
        Ok(None)
    }

    /// The oldest message. What it passes on the way is passed for good.
    #[inline]
    pub(super) fn first_message(&self, _guard: &Guard<'_>) -> Result<Option<u32>> {
        let ring = self.ring()?;
        if self.messages() == 0 {
            return Ok(None);
        }
        let unit = self.at(ring, ring.first)?;
        if unit != 0 && unit & CLAIMED == 0 && ring.first != ring.next {
            return Ok(Some(unit));
        }
        let Some((place, unit)) = self.scan(ring, ring.first, |_| Ok(true))? else {
            return Err(Errno::UCLEAN);
        };
        // Only what was empty lies between, or claimed and with `head` before it: as true if this operation is undone.
        self.line[RING / 8].store(u64::from(place) | u64::from(ring.next) << 32, Ordering::Release);
        Ok(Some(unit))
    }

    /// The oldest message of another type. How far there was none is noted, so that a crowd of that type is passed once.
    pub(super) fn first_except(&self, guard: &Guard<'_>, kind: i64) -> Result<Option<u32>> {
        let ring = self.ring()?;
        let mut from = ring.first;
        if self.get(guard, EXCEPT_TYPE)? == kind as u64 {
            let noted = self.get(guard, EXCEPT_PLACE)? as u32;
            if noted.wrapping_sub(ring.first) <= ring.next.wrapping_sub(ring.first) {
                from = noted;
            }
        }
        let found =
            self.scan(ring, from, |unit| Ok(self.block(unit)?[TYPE].load(Ordering::Relaxed) as i64 != kind))?;
        let place = found.map_or(ring.next, |(place, _)| place);
        if place != from {
            self.store(EXCEPT_TYPE, 0)?;
            self.store(EXCEPT_PLACE, u64::from(place))?;
            self.store(EXCEPT_TYPE, kind as u64)?;
        }
        Ok(found.map(|(_, unit)| unit))
    }

    /// The message at an index, from the oldest on.
    pub(super) fn message_at(&self, index: u64) -> Result<Option<u32>> {
        let ring = self.ring()?;
        if index >= self.messages() {
            return Ok(None);
        }
        let places = u64::from(ring.next.wrapping_sub(ring.first));
        if places == self.messages() {
            let unit = self.at(ring, ring.first.wrapping_add(index as u32))?;
            return if unit & CLAIMED == 0 && unit != 0 { Ok(Some(unit)) } else { Err(Errno::UCLEAN) };
        }
        let mut left = index;
        let found = self.scan(ring, ring.first, |_| {
            left = left.wrapping_sub(1);
            Ok(left == u64::MAX)
        })?;
        found.map(|(_, unit)| Some(unit)).ok_or(Errno::UCLEAN)
    }

    /// Writes what is in use close to each other into the other half, which may be another table: how it is then.
    fn copy_ring(&self, from: Ring, to: Ring) -> Result<(u32, Ring)> {
        let head = self.ring_head(from);
        if from.next.wrapping_sub(head) > from.places() {
            return Err(Errno::UCLEAN);
        }
        let mut to = Ring { first: 0, next: 0, ..to };
        let mut place = head;
        let mut seen_first = false;
        while place != from.next {
            seen_first |= place == from.first;
            // Each message lies elsewhere: several are fetched at once.
            let ahead = place.wrapping_add(COPIED_AHEAD);
            if from.log > CACHED && from.next.wrapping_sub(ahead) <= from.places() {
                self.segment.prefetch((self.at(from, ahead)? & !CLAIMED) as usize * 64);
            }
            let value = self.at(from, place)?;
            place = place.wrapping_add(1);
            // Before `first` there is nothing but claimed ones.
            if value == 0 || (!seen_first && value & CLAIMED == 0) {
                continue;
            }
            if to.next == to.places() {
                return Err(Errno::UCLEAN);
            }
            self.write(to, to.next, value)?;
            let block = self.block(value & !CLAIMED)?;
            let places = block[PLACES].load(Ordering::Relaxed);
            block[PLACES].store(with_half(places, to.half, to.next), Ordering::Release);
            to.next += 1;
            if !seen_first {
                to.first = to.next;
            }
        }
        Ok((0, to))
    }

    /// From here on the ring is another.
    fn switch_ring(&self, guard: &mut Guard<'_>, head: u32, ring: Ring) -> Result<()> {
        self.store(EXCEPT_TYPE, 0)?;
        let shape = self.hot(SHAPE) & !0x1ff;
        self.set(guard, SHAPE, shape | u64::from(ring.log) | u64::from(ring.half) << 8)?;
        self.set(guard, HEAD, u64::from(head))?;
        self.set_hot(guard, RING, u64::from(ring.first) | u64::from(ring.next) << 32)
    }

    #[cold]
    #[inline(never)]
    fn compact(&self, guard: &mut Guard<'_>, ring: Ring) -> Result<Ring> {
        let (head, compact) = self.copy_ring(ring, Ring { half: ring.half ^ 1, ..ring })?;
        if compact.next == compact.places() {
            return Err(Errno::UCLEAN);
        }
        self.switch_ring(guard, head, compact)?;
        Ok(compact)
    }

    /// Whether the tables stand in the queue's own page.
    pub(super) fn is_small(&self) -> bool {
        self.hot(SHAPE) as u32 & 0xff == SMALL
    }

    /// Goes back to the tables in the queue's own page, if there is nothing in the others. Memory is freed by that.
    pub(super) fn shrink(&self, guard: &mut Guard<'_>) -> Result<()> {
        if self.is_small() || self.messages() != 0 || self.away() != (0, 0) {
            return Ok(());
        }
        let ring = self.ring()?;
        self.drop_least(guard)?;
        self.shrink_types(guard)?;
        let pages = 1 << (ring.log.saturating_sub(WIDE));
        let old = self.pages_of_tables(guard, RING_ROOTS, RING_LAST_PAGE, 2, pages)?;
        self.heap.free_pages(guard, old)?;
        self.switch_ring(guard, 0, Ring { log: SMALL, half: 0, first: 0, next: 0, ..ring })
    }

    /// Makes the tables wide enough for one message more than there are.
    #[cold]
    #[inline(never)]
    pub(super) fn widen(&self, guard: &mut Guard<'_>, blocks: u64) -> Result<()> {
        let ring = self.ring()?;
        let log = (ring.log + 1).max(WIDE);
        if log > WIDEST {
            return Err(Errno::NOMEM);
        }
        if blocks >= 1 << (log - 1) {
            return Err(Errno::UCLEAN);
        }
        self.widen_types(guard, log)?;
        let old = match ring.log {
            SMALL => None,
            log => {
                let pages = 1 << (log - WIDE);
                Some(self.pages_of_tables(guard, RING_ROOTS, RING_LAST_PAGE, 2, pages)?)
            }
        };
        let last = self.make_tables(guard, 2, 1 << (log - WIDE))?;
        let (head, wide) = self.copy_ring(ring, Ring { log, half: ring.half ^ 1, roots: STAGING, ..ring })?;
        self.switch_ring(guard, head, wide)?;
        self.adopt_roots(guard, RING_ROOTS, 2)?;
        self.set(guard, RING_LAST_PAGE, u64::from(last))?;
        if let Some(old) = old {
            self.heap.free_pages(guard, old)?;
        }
        Ok(())
    }
}
