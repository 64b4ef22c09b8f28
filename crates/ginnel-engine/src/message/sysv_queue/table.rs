//! Tables that outgrow the queue's own page: a directory of directories of pages.

use super::store::{STAGING, Store, half, with_half};
use crate::heap::Chain;
use crate::lock::Guard;
use crate::primitive::Ordering;
use crate::segment::{HEADER_BYTES, PAGE_BYTES};
use crate::{Errno, Result};

/// How many pages a directory names.
const DIRECTORY: usize = 1024;
/// How many directories a table may have: its roots.
pub(super) const ROOTS: usize = 8;

impl Store<'_> {
    /// Where a page of a table lies.
    #[inline]
    pub(super) fn table_page(&self, roots: usize, page: usize) -> Result<usize> {
        let root = page / DIRECTORY;
        if root >= ROOTS {
            return Err(Errno::UCLEAN);
        }
        let word = self.segment.word64(HEADER_BYTES + roots + root / 2 * 8)?.load(Ordering::Relaxed);
        let directory = self.heap.page_offset(half(word, root as u32 % 2))?;
        let index = page % DIRECTORY;
        let word = self.segment.word64(directory + index / 2 * 8)?.load(Ordering::Relaxed);
        self.heap.page_offset(half(word, index as u32 % 2))
    }

    /// How many pages a table of so many is, with its directories.
    fn with_directories(pages: usize) -> usize {
        pages + pages.div_ceil(DIRECTORY)
    }

    /// Makes tables of so many pages each, named by the roots at `STAGING`, two tables at most: the last page of them all.
    /// What they hold is anything.
    pub(super) fn make_tables(&self, guard: &mut Guard<'_>, tables: usize, pages: usize) -> Result<u32> {
        if pages > DIRECTORY * ROOTS || tables > 2 {
            return Err(Errno::NOMEM);
        }
        let whole = self.heap.take_pages(guard, (Self::with_directories(pages) * tables) as u32)?;
        let mut next = whole.first;
        let mut left = whole.count;
        let mut take = || {
            let page = next;
            left = left.checked_sub(1).ok_or(Errno::UCLEAN)?;
            if left > 0 {
                next = self.heap.next_page(page)?;
            }
            Ok::<u32, Errno>(page)
        };
        // Nobody looks at any of it before the roots are adopted.
        let write = |offset: usize, index: usize, page: u32| {
            let word = self.segment.word64(offset + index / 2 * 8)?;
            let value = with_half(word.load(Ordering::Relaxed), index as u32 % 2, page);
            word.store(value, Ordering::Release);
            Ok::<(), Errno>(())
        };
        for table in 0..tables {
            for root in 0..pages.div_ceil(DIRECTORY) {
                let directory = take()?;
                write(HEADER_BYTES + STAGING, table * ROOTS + root, directory)?;
                let offset = self.heap.page_offset(directory)?;
                for index in 0..DIRECTORY.min(pages - root * DIRECTORY) {
                    write(offset, index, take()?)?;
                }
            }
        }
        Ok(whole.last)
    }

    /// From here on the tables that have been made are meant.
    pub(super) fn adopt_roots(&self, guard: &mut Guard<'_>, roots: usize, tables: usize) -> Result<()> {
        for word in 0..tables * ROOTS / 2 {
            let made = self.get(guard, STAGING + 8 * word)?;
            self.set(guard, roots + 8 * word, made)?;
        }
        Ok(())
    }

    /// The pages of tables that were made so, before others are made in their place.
    pub(super) fn pages_of_tables(
        &self,
        guard: &Guard<'_>,
        roots: usize,
        last: usize,
        tables: usize,
        pages: usize,
    ) -> Result<Chain> {
        let first = half(self.get(guard, roots)?, 0);
        let count = (Self::with_directories(pages) * tables) as u32;
        Ok(Chain { first, last: self.get(guard, last)? as u32, count })
    }

    pub(super) fn zero(&self, offset: usize, len: usize) -> Result<()> {
        const ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        self.segment.copy_in(offset, &ZEROES[..len.min(PAGE_BYTES)])
    }
}
