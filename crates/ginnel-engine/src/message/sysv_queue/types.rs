//! The types: a hash table of those that are present, each with the FIFO of its messages.
//!
//! A bucket holds the head of its first type's FIFO, and that message's head the next in the bucket. So to append to
//! a FIFO, or to take its head, or to add or remove a type, is to change one word. Whoever makes the table wider writes
//! the other of a message's two links, and one word says which is meant.

use super::order::{CACHED, PLACES_A_PAGE, SMALL, WIDE, blocks_log};
use super::store::{
    CHAINS, Found, LAST, SHAPE, SIZE, STAGING, Store, TYPE, TYPES_INLINE, TYPES_LAST_PAGE, TYPES_ROOTS, half,
    with_half,
};
use crate::lock::Guard;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::HEADER_BYTES;
use crate::{Errno, Result};

const SHIFT: u32 = 16;

/// The table as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    log: u32,
    parity: u32,
    roots: usize,
}

/// The word, and which half of it, that names a FIFO's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    offset: usize,
    upper: u32,
}

/// Multiplicative hashing: neighbouring types lie in different buckets.
#[inline]
fn bucket_of(kind: i64, log: u32) -> usize {
    ((kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - log)) as usize
}

impl Types {
    /// Which of a message's two links is meant.
    #[inline]
    pub(super) fn parity(self) -> u32 {
        self.parity
    }
}

impl<'a> Store<'a> {
    #[inline(always)]
    pub(super) fn types(&self) -> Result<Types> {
        let shape = (self.hot(SHAPE) >> SHIFT) as u32;
        let log = shape & 0xff;
        if log != SMALL && !(WIDE..=30).contains(&log) {
            return Err(Errno::UCLEAN);
        }
        Ok(Types { log, parity: shape >> 8 & 1, roots: TYPES_ROOTS })
    }

    #[inline(always)]
    fn bucket(&self, types: Types, bucket: usize) -> Result<Link> {
        let offset = if types.log == SMALL {
            HEADER_BYTES + TYPES_INLINE
        } else {
            self.table_page(types.roots, bucket / PLACES_A_PAGE)?
        };
        Ok(Link { offset: offset + bucket % PLACES_A_PAGE / 2 * 8, upper: bucket as u32 % 2 })
    }

    #[inline]
    fn linked(&self, link: Link) -> Result<u32> {
        Ok(half(self.segment.word64(link.offset)?.load(Ordering::Relaxed), link.upper))
    }

    #[inline]
    fn relink(&self, guard: &mut Guard<'_>, link: Link, unit: u32) -> Result<()> {
        let word = self.segment.word64(link.offset)?;
        let old = word.load(Ordering::Relaxed);
        guard.change(word, old, with_half(old, link.upper, unit))
    }

    #[inline]
    fn chain_link(unit: u32, parity: u32) -> Link {
        Link { offset: unit as usize * 64 + 8 * CHAINS, upper: parity }
    }

    /// The word of a type's bucket, and which half of it.
    #[inline(always)]
    pub(super) fn bucket_word(&self, types: Types, kind: i64) -> Result<(&'a AtomicU64, u32)> {
        let link = self.bucket(types, bucket_of(kind, types.log))?;
        Ok((self.segment.word64(link.offset)?, link.upper))
    }

    /// Has the processor fetch, without the lock, what [`Store::find_head`] is likely to find: in a long queue that takes
    /// longer than all else, and here some of it passes while the lock is taken.
    #[inline(always)]
    pub(super) fn foresee(&self, kind: i64) {
        if kind > 0 && self.hot(SHAPE) as u32 & 0xff > CACHED {
            let Ok(types) = self.types() else { return };
            let Ok((bucket, upper)) = self.bucket_word(types, kind) else { return };
            let place = half(bucket.load(Ordering::Relaxed), upper) as usize * 64;
            self.segment.prefetch(place);
            self.segment.prefetch(place + 64);
        }
    }

    /// The head of a type's FIFO, or 0, and the word, and which half of it, that names it.
    #[inline(always)]
    pub(super) fn find_head(
        &self,
        types: Types,
        bucket: &'a AtomicU64,
        upper: u32,
        kind: i64,
    ) -> Result<(u32, &'a AtomicU64, u32)> {
        let (mut word, mut upper) = (bucket, upper);
        // There are no more types than messages.
        for _ in 0..=self.messages() {
            let unit = half(word.load(Ordering::Relaxed), upper);
            if unit == 0 {
                return Ok((0, word, upper));
            }
            let block = self.block(unit)?;
            if block[TYPE].load(Ordering::Relaxed) as i64 == kind {
                return Ok((unit, word, upper));
            }
            (word, upper) = (&block[CHAINS], types.parity);
        }
        Err(Errno::UCLEAN)
    }

    /// The oldest message of a type.
    #[inline]
    pub(super) fn find_type(&self, _guard: &Guard<'_>, kind: i64) -> Result<Option<Found>> {
        let types = self.types()?;
        let mut link = self.bucket(types, bucket_of(kind, types.log))?;
        // There are no more types than messages.
        for _ in 0..=self.messages() {
            let unit = self.linked(link)?;
            if unit == 0 {
                return Ok(None);
            }
            let block = self.block(unit)?;
            if block[TYPE].load(Ordering::Relaxed) as i64 == kind {
                let size = half(block[SIZE].load(Ordering::Relaxed), 0);
                return Ok(Some(Found { unit, size, kind, link }));
            }
            link = Self::chain_link(unit, types.parity);
        }
        Err(Errno::UCLEAN)
    }

    /// Puts a message at the end of its type's FIFO: whether it is the first of its type.
    #[inline]
    pub(super) fn append(&self, guard: &mut Guard<'_>, unit: u32, kind: i64) -> Result<bool> {
        match self.find_type(guard, kind)? {
            Some(head) => {
                let block = self.block(head.unit)?;
                let word = block[LAST].load(Ordering::Relaxed);
                // What stands behind the last one has no meaning yet.
                let last = &self.block(half(word, 0))?[SIZE];
                last.store(with_half(last.load(Ordering::Relaxed), 1, unit), Ordering::Release);
                self.set_block(guard, head.unit, LAST, with_half(word, 0, unit))?;
                Ok(false)
            }
            None => self.add_type(guard, unit, kind).map(|()| true),
        }
    }

    /// Makes a message, which is in no FIFO, the only one of a new type.
    #[inline]
    fn add_type(&self, guard: &mut Guard<'_>, unit: u32, kind: i64) -> Result<()> {
        let types = self.types()?;
        let link = self.bucket(types, bucket_of(kind, types.log))?;
        let block = self.block(unit)?;
        self.write_chain(unit, types.parity, self.linked(link)?)?;
        let last = with_half(block[LAST].load(Ordering::Relaxed), 0, unit);
        block[LAST].store(last, Ordering::Release);
        self.relink(guard, link, unit)
    }

    /// Writes the next in the bucket of a message that is in none yet.
    #[inline]
    fn write_chain(&self, unit: u32, parity: u32, next: u32) -> Result<()> {
        let word = &self.block(unit)?[CHAINS];
        word.store(with_half(word.load(Ordering::Relaxed), parity, next), Ordering::Release);
        Ok(())
    }

    /// Takes a FIFO's head out of it.
    #[inline]
    pub(super) fn remove_head(&self, guard: &mut Guard<'_>, found: &Found) -> Result<()> {
        let parity = self.types()?.parity;
        let block = self.block(found.unit)?;
        let chain = half(block[CHAINS].load(Ordering::Relaxed), parity);
        let last = half(block[LAST].load(Ordering::Relaxed), 0);
        if last == found.unit {
            return self.relink(guard, found.link, chain);
        }
        let next = half(block[SIZE].load(Ordering::Relaxed), 1);
        let next_block = self.block(next)?;
        self.write_chain(next, parity, chain)?;
        let word = &next_block[LAST];
        word.store(with_half(word.load(Ordering::Relaxed), 0, last), Ordering::Release);
        self.relink(guard, found.link, next)
    }

    /// Puts a message that is back in its place back into its FIFO, among younger ones: whether it is the only one of its
    /// type.
    pub(super) fn insert(&self, guard: &mut Guard<'_>, unit: u32, kind: i64) -> Result<bool> {
        let Some(head) = self.find_type(guard, kind)? else {
            return self.add_type(guard, unit, kind).map(|()| true);
        };
        let ring = self.ring()?;
        let age = |unit: u32| self.age(ring, unit);
        let block = self.block(unit)?;
        let own = age(unit)?;
        let head_block = self.block(head.unit)?;
        let last = half(head_block[LAST].load(Ordering::Relaxed), 0);
        let set_next = |block: super::store::Block<'_>, next: u32| {
            block[SIZE].store(with_half(block[SIZE].load(Ordering::Relaxed), 1, next), Ordering::Release);
        };
        if own < age(head.unit)? {
            let parity = self.types()?.parity;
            self.write_chain(unit, parity, half(head_block[CHAINS].load(Ordering::Relaxed), parity))?;
            block[LAST].store(with_half(block[LAST].load(Ordering::Relaxed), 0, last), Ordering::Release);
            set_next(block, head.unit);
            self.relink(guard, head.link, unit)?;
            return Ok(false);
        }
        let mut before = head.unit;
        for _ in 0..=self.messages() {
            let word = self.block(before)?[SIZE].load(Ordering::Relaxed);
            if before == last {
                // Its last one is another now: what was behind it had no meaning.
                set_next(self.block(before)?, unit);
                let word = head_block[LAST].load(Ordering::Relaxed);
                return self.set_block(guard, head.unit, LAST, with_half(word, 0, unit)).map(|()| false);
            }
            let next = half(word, 1);
            if own < age(next)? {
                set_next(block, next);
                return self.set_block(guard, before, SIZE, with_half(word, 1, unit)).map(|()| false);
            }
            before = next;
        }
        Err(Errno::UCLEAN)
    }

    /// Shows all types that are present.
    fn for_each_head(&self, types: Types, mut see: impl FnMut(u32, i64) -> Result<()>) -> Result<()> {
        let mut left = self.messages();
        const RUN: usize = 1 << (SMALL - 1);
        // Two buckets to a word; mostly empty.
        for first in (0..1 << types.log).step_by(2 * RUN) {
            let run = self.segment.words::<RUN>(self.bucket(types, first)?.offset)?;
            for word in run {
                let word = word.load(Ordering::Relaxed);
                if word == 0 {
                    continue;
                }
                for mut unit in [half(word, 0), half(word, 1)] {
                    while unit != 0 {
                        left = left.checked_sub(1).ok_or(Errno::UCLEAN)?;
                        let block = self.block(unit)?;
                        // Read first: `see` may write the other link.
                        let next = half(block[CHAINS].load(Ordering::Relaxed), types.parity);
                        see(unit, block[TYPE].load(Ordering::Relaxed) as i64)?;
                        unit = next;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows all types that are present.
    pub(super) fn for_each_type(&self, mut see: impl FnMut(i64) -> Result<()>) -> Result<()> {
        self.for_each_head(self.types()?, |_, kind| see(kind))
    }

    /// Goes back to the table in the queue's own page: there are no types.
    pub(super) fn shrink_types(&self, guard: &mut Guard<'_>) -> Result<()> {
        let types = self.types()?;
        if types.log == SMALL {
            return Ok(());
        }
        let old = self.pages_of_tables(guard, TYPES_ROOTS, TYPES_LAST_PAGE, 1, 1 << (types.log - WIDE))?;
        // Nobody looks there yet.
        self.zero(HEADER_BYTES + TYPES_INLINE, 4 << SMALL)?;
        let shape = self.hot(SHAPE) & !(0x1ff << SHIFT);
        self.set(guard, SHAPE, shape | u64::from(SMALL) << SHIFT)?;
        self.heap.free_pages(guard, old)
    }

    /// Makes the table as wide as the ring is about to be, half of which messages may fill.
    pub(super) fn widen_types(&self, guard: &mut Guard<'_>, ring_log: u32) -> Result<()> {
        let types = self.types()?;
        let log = blocks_log(ring_log).max(WIDE);
        if types.log != SMALL && types.log >= log {
            return Ok(());
        }
        let old = match types.log {
            SMALL => None,
            log => {
                let pages = 1 << (log - WIDE);
                Some(self.pages_of_tables(guard, TYPES_ROOTS, TYPES_LAST_PAGE, 1, pages)?)
            }
        };
        let last = self.make_tables(guard, 1, 1 << (log - WIDE))?;
        let to = Types { log, parity: types.parity ^ 1, roots: STAGING };
        for page in 0..1 << (log - WIDE) {
            self.zero(self.table_page(STAGING, page)?, usize::MAX)?;
        }
        self.for_each_head(types, |unit, kind| {
            let link = self.bucket(to, bucket_of(kind, log))?;
            self.write_chain(unit, to.parity, self.linked(link)?)?;
            let word = self.segment.word64(link.offset)?;
            word.store(with_half(word.load(Ordering::Relaxed), link.upper, unit), Ordering::Release);
            Ok(())
        })?;
        let shape = self.hot(SHAPE) & !(0x1ff << SHIFT);
        self.set(guard, SHAPE, shape | u64::from(log | to.parity << 8) << SHIFT)?;
        self.adopt_roots(guard, TYPES_ROOTS, 1)?;
        self.set(guard, TYPES_LAST_PAGE, u64::from(last))?;
        match old {
            Some(old) => self.heap.free_pages(guard, old),
            None => Ok(()),
        }
    }
}
