//! The least type at most so large: a heap of the types that are present, made when somebody first asks.
//!
//! A type is noted when it becomes present; when it ceases to be, nothing is done: who finds it on top and not present drops
//! it. So the heap may hold a type twice, or one that is gone, and all that are present. When it is full it is dropped as
//! a whole, and made anew by the next who asks: queues whose types nobody asks for in this way pay nothing.
//!
//! The heap is eight wide: a level's children share a cache line.

use super::store::{LEAST_LAST_PAGE, LEAST_LEN, LEAST_ROOTS, LEAST_SHIFT, SHAPE, STAGING, Store};
use crate::lock::Guard;
use crate::primitive::Ordering;
use crate::segment::PAGE_BYTES;
use crate::{Errno, Result};

const CHILDREN: usize = 8;
const TYPES_A_PAGE: usize = PAGE_BYTES / 8;
const LEAST_LOG: u32 = TYPES_A_PAGE.ilog2();
/// In the shape: 0 for no heap, or how many types it holds, as a power of two.
const SHIFT: u32 = LEAST_SHIFT;

impl Store<'_> {
    /// How many types the heap can hold; 0 if there is none.
    fn least_capacity(&self) -> Result<usize> {
        match (self.hot(SHAPE) >> SHIFT) as u32 & 0xff {
            0 => Ok(0),
            log @ LEAST_LOG..=22 => Ok(1 << log),
            _ => Err(Errno::UCLEAN),
        }
    }

    fn least_len(&self, guard: &Guard<'_>, capacity: usize) -> Result<usize> {
        let len = self.get(guard, LEAST_LEN)? as usize;
        if len > capacity { Err(Errno::UCLEAN) } else { Ok(len) }
    }

    /// Where an entry stands. The root is entry 7, so that each family begins at a multiple of eight.
    fn least_at(&self, roots: usize, index: usize) -> Result<usize> {
        Ok(self.table_page(roots, index / TYPES_A_PAGE)? + index % TYPES_A_PAGE * 8)
    }

    fn least_get(&self, roots: usize, index: usize) -> Result<i64> {
        Ok(self.segment.word64(self.least_at(roots, index)?)?.load(Ordering::Relaxed) as i64)
    }

    /// The least type that is present, if it is at most `most`.
    pub(super) fn least_type(&self, guard: &Guard<'_>, most: i64) -> Result<Option<i64>> {
        let capacity = self.least_capacity()?;
        if capacity == 0 {
            // Nobody had the memory for a heap. The kernel, too, looks at all there are.
            let mut least = None;
            self.for_each_type(|kind| {
                least = Some(least.map_or(kind, |least: i64| least.min(kind)));
                Ok(())
            })?;
            return Ok(least.filter(|least| *least <= most));
        }
        let len = self.least_len(guard, capacity)?;
        if len <= ROOT {
            return Ok(None);
        }
        let top = self.least_get(LEAST_ROOTS, ROOT)?;
        if top > most {
            return Ok(None);
        }
        Ok(Some(top))
    }

    /// Drops what is on top and gone. Each drop counts for itself: for the beginning of a transaction.
    pub(super) fn clear_top(&self, guard: &mut Guard<'_>) -> Result<()> {
        loop {
            let capacity = self.least_capacity()?;
            if capacity == 0 || self.least_len(guard, capacity)? <= ROOT {
                return Ok(());
            }
            let top = self.least_get(LEAST_ROOTS, ROOT)?;
            if self.find_type(guard, top)?.is_some() {
                return Ok(());
            }
            self.drop_top(guard, capacity)?;
            guard.checkpoint();
        }
    }

    fn drop_top(&self, guard: &mut Guard<'_>, capacity: usize) -> Result<()> {
        let end = self.least_len(guard, capacity)? - 1;
        let moved = self.least_get(LEAST_ROOTS, end)?;
        self.set(guard, LEAST_LEN, end as u64)?;
        if end == ROOT {
            return Ok(());
        }
        self.sift_down(LEAST_ROOTS, ROOT, end, moved, |offset, kind| guard.set(offset, kind as u64))
    }

    /// Puts a type where all below it are larger, from an entry on that is free.
    fn sift_down(
        &self,
        roots: usize,
        from: usize,
        end: usize,
        kind: i64,
        mut write: impl FnMut(usize, i64) -> Result<()>,
    ) -> Result<()> {
        let mut at = from;
        loop {
            let children = first_child(at);
            let mut least = (kind, at);
            for child in children..end.min(children + CHILDREN) {
                let found = self.least_get(roots, child)?;
                if found < least.0 {
                    least = (found, child);
                }
            }
            let place = self.least_at(roots, at)?;
            if least.1 == at {
                return write(place, kind);
            }
            write(place, least.0)?;
            at = least.1;
        }
    }

    /// A type has become present.
    #[inline]
    pub(super) fn note_type(&self, guard: &mut Guard<'_>, kind: i64) -> Result<()> {
        if self.hot(SHAPE) >> SHIFT & 0xff == 0 { Ok(()) } else { self.add_to_least(guard, kind) }
    }

    #[cold]
    #[inline(never)]
    fn add_to_least(&self, guard: &mut Guard<'_>, kind: i64) -> Result<()> {
        let capacity = self.least_capacity()?;
        let len = self.least_len(guard, capacity)?.max(ROOT);
        if len == capacity {
            return self.drop_least(guard);
        }
        let mut at = len;
        while at > ROOT {
            let parent = parent_of(at);
            let above = self.least_get(LEAST_ROOTS, parent)?;
            if above <= kind {
                break;
            }
            guard.set(self.least_at(LEAST_ROOTS, at)?, above as u64)?;
            at = parent;
        }
        guard.set(self.least_at(LEAST_ROOTS, at)?, kind as u64)?;
        self.set(guard, LEAST_LEN, len as u64 + 1)
    }

    pub(super) fn drop_least(&self, guard: &mut Guard<'_>) -> Result<()> {
        let capacity = self.least_capacity()?;
        if capacity == 0 {
            return Ok(());
        }
        let pages = capacity / TYPES_A_PAGE;
        let old = self.pages_of_tables(guard, LEAST_ROOTS, LEAST_LAST_PAGE, 1, pages)?;
        let shape = self.hot(SHAPE) & !(0xff << SHIFT);
        self.set(guard, SHAPE, shape)?;
        self.heap.free_pages(guard, old)
    }

    /// Makes the heap of all types that are present, if there is none. Counts for itself.
    ///
    /// # Errors
    /// `ENOBUFS`: there is not the memory.
    pub(super) fn make_least(&self, guard: &mut Guard<'_>) -> Result<()> {
        if self.least_capacity()? != 0 {
            return Ok(());
        }
        // Twice as many as there may be now, for those that come and go.
        let capacity = (2 * self.messages() as usize + TYPES_A_PAGE).next_power_of_two();
        if capacity > 1 << 22 {
            return Err(Errno::NOMEM);
        }
        let last = self.make_tables(guard, 1, capacity / TYPES_A_PAGE)?;
        let mut len = ROOT;
        self.for_each_type(|kind| {
            let place = self.segment.word64(self.least_at(STAGING, len)?)?;
            place.store(kind as u64, Ordering::Release);
            len += 1;
            if len > capacity { Err(Errno::UCLEAN) } else { Ok(()) }
        })?;
        // From the last parent to the root.
        if len > ROOT + 1 {
            for at in (ROOT..=parent_of(len - 1)).rev() {
                let kind = self.least_get(STAGING, at)?;
                self.sift_down(STAGING, at, len, kind, |offset, kind| {
                    self.segment.word64(offset)?.store(kind as u64, Ordering::Release);
                    Ok(())
                })?;
            }
        }
        let shape = self.hot(SHAPE) | u64::from(capacity.ilog2()) << SHIFT;
        self.set(guard, SHAPE, shape)?;
        self.set(guard, LEAST_LEN, len as u64)?;
        self.set(guard, LEAST_LAST_PAGE, u64::from(last))?;
        self.adopt_roots(guard, LEAST_ROOTS, 1)?;
        guard.checkpoint();
        Ok(())
    }
}

/// Where the heap begins.
const ROOT: usize = CHILDREN - 1;

fn first_child(at: usize) -> usize {
    (at - ROOT + 1) * CHILDREN
}

fn parent_of(at: usize) -> usize {
    at / CHILDREN - 1 + ROOT
}
