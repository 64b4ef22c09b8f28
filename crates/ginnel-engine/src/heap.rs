//! Memory inside a segment: units for what is small, chains of pages for what is not: `fallocate(2)`.
//!
//! # What a user of it sees
//! [`Heap::take_unit`] and [`Heap::take_pages`] give memory under the object's lock, as part of its transaction, and never
//! make any: where there is none they fail with `ENOBUFS`, and [`Heap::make`] gets it from the file system without the lock,
//! for another try. [`Heap::give_back`] returns what nobody uses.
//!
//! # How it works inside
//! The heap's pages begin at `first`. The first of each 256 is a *table*, with two words for each of the others:
//! ```text
//! word 0   free units u32 | kind << 32      of a page of units: a bit for each unit that is free
//! word 1   next u32 | previous u32 << 32    a page's neighbours in its list
//! ```
//! A page is *plain* (kind 0: free, a link of somebody's chain, or given back) or carved into units of one class. Pages of
//! units with a free one stand in their class's list. So to take or free a unit changes one word, that of its page, and
//! rarely the list. A page whose last unit is freed becomes plain, unless it is the only one of its list. One unit of each
//! class is kept at hand: to free it and take it again does not concern its page.
//!
//! Free pages are a chain: to take a thousand from its head is to change one word, and so is to put a chain before it.
//! What is linked behind a chain's last page is of no meaning.
//!
//! `end` is the first page that nobody has taken from the file's end. The file's pages from there on have space: it only
//! grows by what has been reserved. Pages below it have space too, but those in the chain of *holes*.
//!
//! # Memory given back, and its crash points
//! A giver takes pages out of the free chain and has a stake in them, in one transaction; punches them without the lock; and
//! puts them into the chain of holes, giving up the stake, in another. The other way round it takes holes with a stake,
//! reserves them, and puts them among the free. Nobody else can reach the pages meanwhile.
//!
//! | killed | what becomes of the pages |
//! | --- | --- |
//! | before the first transaction is committed | they are where they were |
//! | with the stake, wherever | its heirs put them among the holes ([`Heap::forfeit`]); some may have space: the next giver punches all holes |
//! | after the second | they are holes, or free |
//!
//! A thread's death is told when it is in no system call any more: what it punched, it has punched.

use std::cell::Cell;
use std::time::Instant;

use crate::lock::Guard;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::{PAGE_BYTES, Segment};
use crate::wait::{Object, Patience, Waiters, Words};
use crate::{Errno, Result};

/// The sizes of units. Each is a multiple of 64, so that a unit's first bytes share a cache line.
const CLASSES: [usize; 9] = [128, 192, 256, 384, 512, 768, 1024, 1344, 2048];
/// The largest unit.
pub const UNIT_BYTES_MAX: usize = CLASSES[CLASSES.len() - 1];

/// The class for so many lines of 64 bytes.
const CLASS_FOR: [u8; UNIT_BYTES_MAX / 64 + 1] = {
    let mut classes = [0; UNIT_BYTES_MAX / 64 + 1];
    let mut lines = 0;
    let mut class = 0;
    while lines < classes.len() {
        if lines * 64 > CLASSES[class] {
            class += 1;
        }
        classes[lines] = class as u8;
        lines += 1;
    }
    classes
};

const fn units_a_page(class: usize) -> u32 {
    (PAGE_BYTES / CLASSES[class]) as u32
}

const fn all_free(class: usize) -> u64 {
    (1 << units_a_page(class)) - 1
}

// The heap's words, relative to its place.
/// How many pages are free, and the first of them.
const FREE: usize = 0x00;
/// The first page not yet taken from the file's end, counted from the heap's first.
const END: usize = 0x08;
/// How many pages have no space, and the first of them.
const HOLES: usize = 0x10;
/// For each class, the first page that has free units, and a unit that was freed last << 32.
const LISTS: usize = 0x18;
/// Whether some of the holes may have space.
const DOUBTED: usize = LISTS + 8 * CLASSES.len();
/// How many bytes the heap has in the object's own words.
pub const HEAP_BYTES: usize = DOUBTED + 8;

const PAGES_A_TABLE: u64 = 256;
const ENTRY_BYTES: usize = PAGE_BYTES / PAGES_A_TABLE as usize;
/// How many pages are made beyond those needed, at most.
const SPARE_MAX: usize = 64;
/// How many pages one round gives back at most.
const ROUND_MAX: u32 = 1 << 16;

/// The memory of a segment from a page on.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::Errno;
/// use ginnel_engine::heap::Heap;
/// use ginnel_engine::lock::Lock;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// let segment = Segment::create(&directory, c"heap", mode, 1 << 20, |_| Ok(()))?;
/// let heap = Heap::of(&segment, HEADER_BYTES, 2);
/// let unit = loop {
///     let mut guard = Lock::of(&segment).acquire(None)?;
///     match heap.take_unit(&mut guard, 200) {
///         Err(Errno::NOBUFS) => {
///             drop(guard);
///             heap.make()?; // without the lock
///         }
///         unit => {
///             guard.commit();
///             break unit?;
///         }
///     }
/// };
/// segment.copy_in(unit.offset(), b"two hundred bytes at most")?;
///
/// let mut guard = Lock::of(&segment).acquire(None)?;
/// heap.free_unit(&mut guard, unit, 200)?;
/// guard.commit();
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Debug)]
pub struct Heap<'a> {
    segment: &'a Segment,
    base: usize,
    first: u64,
    /// How many pages the last taker lacked, and how long the file would have to be for them, in pages: that taker may
    /// have had others before.
    wanted: Cell<(u32, u64)>,
}

/// A unit's place. Whatever number it is made from, it is checked when it is used.
///
/// ```
/// use ginnel_engine::heap::Unit;
///
/// let unit = Unit::from_raw(0x2003);
/// assert_eq!((unit.raw(), unit.offset()), (0x2003, 0x800c0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit(u32);

impl Unit {
    /// As it stands in a segment: 0 is no unit, and less than 2^31.
    #[inline]
    pub fn raw(self) -> u32 {
        self.0
    }

    /// From a number in a segment.
    #[inline]
    pub fn from_raw(raw: u32) -> Unit {
        Unit(raw)
    }

    /// Where it lies in the segment.
    #[inline]
    pub fn offset(self) -> usize {
        self.0 as usize * 64
    }
}

/// Pages that are linked to each other: a heap's own, or somebody's who has taken them.
///
/// ```
/// use ginnel_engine::heap::Chain;
///
/// let nothing = Chain::default();
/// assert_eq!(nothing.count, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its first page.
    pub first: u32,
    /// Its last page.
    pub last: u32,
    /// How many there are.
    pub count: u32,
}

const KIND_SHIFT: u32 = 32;
const HALF: u64 = 0xffff_ffff;

impl<'a> Heap<'a> {
    /// The heap whose words stand at `base` and whose pages begin with the segment's page `first`.
    #[inline]
    pub fn of(segment: &'a Segment, base: usize, first: u32) -> Heap<'a> {
        Heap { segment, base, first: u64::from(first), wanted: Cell::new((0, 0)) }
    }

    /// How many bytes a unit has that can hold so many.
    ///
    /// # Errors
    /// `EINVAL`: more than [`UNIT_BYTES_MAX`].
    #[inline(always)]
    fn class_for(bytes: usize) -> Result<usize> {
        CLASS_FOR.get(bytes.div_ceil(64)).map(|class| *class as usize).ok_or(Errno::INVAL)
    }

    #[inline]
    fn get(&self, guard: &Guard<'_>, field: usize) -> Result<u64> {
        guard.get(self.base + field)
    }

    /// Where the two words of a page stand.
    #[inline]
    fn entry(&self, page: u64) -> Result<usize> {
        let index = page.checked_sub(self.first).ok_or(Errno::UCLEAN)?;
        let within = index % PAGES_A_TABLE;
        if within == 0 {
            return Err(Errno::UCLEAN);
        }
        Ok((page - within) as usize * PAGE_BYTES + within as usize * ENTRY_BYTES)
    }

    /// Where a page lies that is one of the heap's.
    ///
    /// # Errors
    /// `EUCLEAN`: it is not.
    #[inline]
    pub fn page_offset(&self, page: u32) -> Result<usize> {
        let offset = page as usize * PAGE_BYTES;
        let index = u64::from(page).checked_sub(self.first).ok_or(Errno::UCLEAN)?;
        if index.is_multiple_of(PAGES_A_TABLE) || offset >= self.segment.len() {
            // Not known here yet, perhaps.
            self.segment.word64(offset)?;
            if index.is_multiple_of(PAGES_A_TABLE) {
                return Err(Errno::UCLEAN);
            }
        }
        Ok(offset)
    }

    /// The word that names the unit at hand for so many bytes, if there is one, and what it says.
    ///
    /// # Errors
    /// `EINVAL`: more than [`UNIT_BYTES_MAX`].
    #[inline(always)]
    pub(crate) fn at_hand(&self, bytes: usize) -> Result<(&'a AtomicU64, u64)> {
        let listed = self.segment.word64(self.base + LISTS + 8 * Self::class_for(bytes)?)?;
        Ok((listed, listed.load(Ordering::Relaxed)))
    }

    /// The unit that [`Heap::at_hand`] tells of, and what is to be said once it is taken.
    #[inline(always)]
    pub(crate) fn unit_at_hand(listed: u64) -> Option<(Unit, u64)> {
        if listed > HALF { Some((Unit((listed >> 32) as u32), listed & HALF)) } else { None }
    }

    /// What is to be said once this unit is at hand, if none is.
    #[inline(always)]
    pub(crate) fn with_unit_at_hand(listed: u64, unit: Unit) -> Option<u64> {
        if listed > HALF { None } else { Some(listed | u64::from(unit.0) << 32) }
    }

    /// The unit that the next taker is likely to get, for who prepares without the lock.
    pub(crate) fn likely_unit(&self, bytes: usize) -> Result<Option<Unit>> {
        let class = Self::class_for(bytes)?;
        let (_, listed) = self.at_hand(bytes)?;
        if let Some((unit, _)) = Self::unit_at_hand(listed) {
            return Ok(Some(unit));
        }
        if listed == 0 {
            return Ok(None);
        }
        let free = self.segment.word64(self.entry(listed)?)?.load(Ordering::Relaxed) & all_free(class);
        free.checked_ilog2().map(|index| Self::unit(listed, class, index)).transpose()
    }

    /// The page that the next taker is likely to get first.
    pub(crate) fn likely_page(&self) -> Result<u32> {
        Ok((self.segment.word64(self.base + FREE)?.load(Ordering::Relaxed) >> 32) as u32)
    }

    /// Takes a unit that holds so many bytes.
    ///
    /// # Errors
    /// `ENOBUFS`: give the lock back, [`Heap::make`], and do all of it again. `EINVAL`: more than [`UNIT_BYTES_MAX`].
    /// `EUCLEAN`: the heap does not hold what it must.
    #[inline]
    pub fn take_unit(&self, guard: &mut Guard<'_>, bytes: usize) -> Result<Unit> {
        let class = Self::class_for(bytes)?;
        let list = self.base + LISTS + 8 * class;
        let listed = self.segment.word64(list)?;
        let word = listed.load(Ordering::Relaxed);
        if word > HALF {
            guard.change(listed, word, word & HALF)?;
            return Ok(Unit((word >> 32) as u32));
        }
        let page = word;
        if page == 0 {
            return self.take_first_unit(guard, class);
        }
        let entry = self.entry(page)?;
        let words = self.segment.words::<2>(entry)?;
        let word = words[0].load(Ordering::Relaxed);
        let free = word & all_free(class);
        if word >> KIND_SHIFT != class as u64 + 1 || free == 0 {
            return Err(Errno::UCLEAN);
        }
        // From the page's end: its beginning has the same place in the processor's cache as the object's own words.
        let index = free.ilog2();
        guard.change(&words[0], word, word & !(1 << index))?;
        if free.is_power_of_two() {
            self.unlist(guard, list, words[1].load(Ordering::Relaxed))?;
        }
        Self::unit(page, class, index)
    }

    #[inline]
    fn unit(page: u64, class: usize, index: u32) -> Result<Unit> {
        let raw = page * (PAGE_BYTES / 64) as u64 + u64::from(index) * (CLASSES[class] / 64) as u64;
        u32::try_from(raw).map(Unit).map_err(|_| Errno::UCLEAN)
    }

    #[cold]
    #[inline(never)]
    fn take_first_unit(&self, guard: &mut Guard<'_>, class: usize) -> Result<Unit> {
        let page = u64::from(self.take_pages(guard, 1)?.first);
        let entry = self.entry(page)?;
        let kind = (class as u64 + 1) << KIND_SHIFT;
        let last = units_a_page(class) - 1;
        guard.set(entry, kind | (all_free(class) & !(1 << last)))?;
        guard.set(entry + 8, 0)?;
        // There was neither a page nor a unit at hand.
        guard.set(self.base + LISTS + 8 * class, page)?;
        Self::unit(page, class, last)
    }

    /// Takes a page with these links out of a list.
    #[cold]
    fn unlist(&self, guard: &mut Guard<'_>, list: usize, links: u64) -> Result<()> {
        let (next, previous) = (links & HALF, links >> 32);
        if previous == 0 {
            let old = guard.get(list)?;
            guard.set(list, old & !HALF | next)?;
        } else {
            let entry = self.entry(previous)? + 8;
            let old = guard.get(entry)?;
            guard.set(entry, old & !HALF | next)?;
        }
        if next != 0 {
            let entry = self.entry(next)? + 8;
            let old = guard.get(entry)?;
            guard.set(entry, old & HALF | previous << 32)?;
        }
        Ok(())
    }

    /// Frees a unit that was taken for so many bytes.
    ///
    /// # Errors
    /// `EUCLEAN`: it is none, or free.
    #[inline]
    pub fn free_unit(&self, guard: &mut Guard<'_>, unit: Unit, bytes: usize) -> Result<()> {
        let class = Self::class_for(bytes)?;
        let listed = self.segment.word64(self.base + LISTS + 8 * class)?;
        let word = listed.load(Ordering::Relaxed);
        if word <= HALF {
            // For the next taker. Its page does not hear of it, nor does the page's list.
            return guard.change(listed, word, word | u64::from(unit.0) << 32);
        }
        self.free_in_page(guard, unit)
    }

    /// Frees a unit so that its page shows it.
    fn free_in_page(&self, guard: &mut Guard<'_>, unit: Unit) -> Result<()> {
        let page = u64::from(unit.0) / (PAGE_BYTES / 64) as u64;
        let entry = self.entry(page)?;
        let place = self.segment.word64(entry)?;
        let word = place.load(Ordering::Relaxed);
        let class = (word >> KIND_SHIFT).checked_sub(1).ok_or(Errno::UCLEAN)? as usize;
        let size = CLASSES.get(class).ok_or(Errno::UCLEAN)? / 64;
        let within = unit.0 as usize % (PAGE_BYTES / 64);
        let index = within / size;
        if index * size != within || index >= units_a_page(class) as usize || word >> index & 1 != 0 {
            return Err(Errno::UCLEAN);
        }
        let freed = word | 1 << index;
        guard.change(place, word, freed)?;
        if word & HALF == 0 || freed & HALF == all_free(class) {
            return self.relist(guard, page, entry, class, word & HALF == 0);
        }
        Ok(())
    }

    /// A page of units has its first free one, or its last used one is freed.
    #[cold]
    fn relist(
        &self,
        guard: &mut Guard<'_>,
        page: u64,
        entry: usize,
        class: usize,
        was_full: bool,
    ) -> Result<()> {
        let list = self.base + LISTS + 8 * class;
        if was_full {
            let listed = guard.get(list)?;
            let head = listed & HALF;
            guard.set(entry + 8, head)?;
            if head != 0 {
                let links = self.entry(head)? + 8;
                let old = guard.get(links)?;
                guard.set(links, old & HALF | page << 32)?;
            }
            return guard.set(list, listed & !HALF | page);
        }
        let links = guard.get(entry + 8)?;
        if links == 0 {
            return Ok(());
        }
        self.unlist(guard, list, links)?;
        self.make_plain(guard, page, entry)
    }

    fn make_plain(&self, guard: &mut Guard<'_>, page: u64, entry: usize) -> Result<()> {
        guard.set(entry, 0)?;
        let page = page as u32;
        // The links are part of the transaction: they may have been others before.
        let free = self.get(guard, FREE)?;
        guard.set(entry + 8, free >> 32)?;
        guard.set(self.base + FREE, u64::from(page) << 32 | (free & HALF).wrapping_add(1) & HALF)
    }

    /// The page linked behind one.
    ///
    /// # Errors
    /// `EUCLEAN`: it is no plain page of the heap.
    #[inline]
    pub fn next_page(&self, page: u32) -> Result<u32> {
        let words = self.segment.words::<2>(self.entry(u64::from(page))?)?;
        if words[0].load(Ordering::Relaxed) != 0 {
            return Err(Errno::UCLEAN);
        }
        Ok(words[1].load(Ordering::Relaxed) as u32)
    }

    /// Takes so many pages, linked to each other. What they hold is anything.
    ///
    /// # Errors
    /// `ENOBUFS`: give the lock back, [`Heap::make`], and do all of it again. `EUCLEAN`.
    pub fn take_pages(&self, guard: &mut Guard<'_>, count: u32) -> Result<Chain> {
        if count == 0 {
            return Ok(Chain::default());
        }
        if self.get(guard, FREE)? & HALF < u64::from(count) {
            self.take_from_end(guard, count)?;
        }
        self.pop(guard, FREE, count)
    }

    /// Takes the first pages of a chain of the heap's own, which has as many.
    fn pop(&self, guard: &mut Guard<'_>, field: usize, count: u32) -> Result<Chain> {
        let word = self.get(guard, field)?;
        let first = (word >> 32) as u32;
        let mut last = first;
        for _ in 1..count {
            last = self.next_page(last)?;
        }
        let next = self.next_page(last)?;
        let left = (word & HALF).checked_sub(u64::from(count)).ok_or(Errno::UCLEAN)?;
        let next = if left == 0 { 0 } else { u64::from(next) };
        guard.set(self.base + field, next << 32 | left)?;
        Ok(Chain { first, last, count })
    }

    /// Puts a chain before one of the heap's own.
    fn push(&self, guard: &mut Guard<'_>, field: usize, chain: Chain) -> Result<()> {
        if chain.count == 0 {
            return Ok(());
        }
        let word = self.get(guard, field)?;
        guard.set(self.entry(u64::from(chain.last))? + 8, word >> 32)?;
        let count = (word & HALF).wrapping_add(u64::from(chain.count)) & HALF;
        guard.set(self.base + field, u64::from(chain.first) << 32 | count)
    }

    /// Frees a chain.
    ///
    /// # Errors
    /// `EUCLEAN`: these are no pages of the heap.
    pub fn free_pages(&self, guard: &mut Guard<'_>, chain: Chain) -> Result<()> {
        self.push(guard, FREE, chain)
    }

    /// Puts what the file has at its end among the free pages, unless it is too little.
    #[cold]
    #[inline(never)]
    fn take_from_end(&self, guard: &mut Guard<'_>, count: u32) -> Result<()> {
        let word = self.get(guard, FREE)?;
        let (mut head, mut free) = (word >> 32, word & HALF);
        let end = self.get(guard, END)?;
        let from = self.first.checked_add(end).ok_or(Errno::UCLEAN)?;
        if end > 0 {
            // It has been in the file.
            self.segment.word64((from as usize).checked_mul(PAGE_BYTES).ok_or(Errno::UCLEAN)? - 8)?;
        }
        let lacking = u64::from(count).saturating_sub(free);
        // Where the file ends as far as this process knows, or else as far as it must.
        let needed = Self::with_tables(end, lacking);
        let needed_end = from.saturating_add(needed);
        self.wanted.set((lacking.min(HALF) as u32, needed_end));
        let needed_end = usize::try_from(needed_end).map_err(|_| Errno::NOMEM)?;
        let mut len = self.segment.len();
        if len / PAGE_BYTES < needed_end {
            let last = needed_end.checked_mul(PAGE_BYTES).ok_or(Errno::NOBUFS)? - 8;
            self.segment.word64(last).map_err(|_| Errno::NOBUFS)?;
            len = self.segment.len();
        }
        let until = (len / PAGE_BYTES) as u64;
        for page in (from..until).rev() {
            if (page - self.first).is_multiple_of(PAGES_A_TABLE) {
                continue;
            }
            // Nobody looks at them before the end is moved.
            let words = self.segment.words::<2>(self.entry(page)?)?;
            words[0].store(0, Ordering::Release);
            words[1].store(head, Ordering::Release);
            head = page;
            free += 1;
        }
        guard.set(self.base + FREE, head << 32 | free & HALF)?;
        guard.set(self.base + END, until - self.first)
    }

    /// How many pages so many are with the tables among them, from an index on.
    fn with_tables(from: u64, count: u64) -> u64 {
        let within = from % PAGES_A_TABLE;
        let tables = if within == 0 {
            count.div_ceil(PAGES_A_TABLE - 1)
        } else {
            count.saturating_sub(PAGES_A_TABLE - within).div_ceil(PAGES_A_TABLE - 1)
        };
        count.saturating_add(tables)
    }

    /// Makes the file longer by what the last taker lacked, without the lock. Others may be there first.
    ///
    /// # Errors
    /// `ENOSPC`: the file system is full. `ENOMEM`: the segment's capacity.
    pub fn make(&self) -> Result<()> {
        let (_, least) = self.wanted.get();
        let spare = (least.saturating_sub(self.first) as usize / 8).min(SPARE_MAX) * PAGE_BYTES;
        let least = usize::try_from(least).ok().and_then(|pages| pages.checked_mul(PAGE_BYTES));
        let least = least.ok_or(Errno::NOMEM)?;
        self.segment.lengthen(least.saturating_add(spare)).or_else(|_| self.segment.lengthen(least))
    }
}

/// What a stake of a giver or taker of pages says: see [`Heap::forfeit`].
fn words_of(kind: u64, chain: Chain) -> Words {
    [kind, u64::from(chain.first), u64::from(chain.last), u64::from(chain.count), 0, 0, 0]
}

fn chain_of(words: &Words) -> Result<Chain> {
    let half = |word: u64| u32::try_from(word).map_err(|_| Errno::UCLEAN);
    Ok(Chain { first: half(words[1])?, last: half(words[2])?, count: half(words[3])? })
}

impl<'a> Heap<'a> {
    /// Gives free pages back to the file system until at most `keep` are left: whether there were any to give. The lock is tried for until the deadline. `kind` is
    /// what the object's stakes are told apart by: its `forfeit` calls [`Heap::forfeit`] for words that begin with it.
    ///
    /// # Errors
    /// Those of [`Waiters::stake`] and of the file system. Nothing is lost.
    pub fn give_back<O: Object>(
        &self,
        waiters: &Waiters<'a, O>,
        kind: u64,
        keep: u32,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let mut gave = false;
        loop {
            let mut guard = waiters.enter(deadline)?;
            self.empty_lists(&mut guard)?;
            let free = (self.get(&guard, FREE)? & HALF) as u32;
            let holes = (self.get(&guard, HOLES)? & HALF) as u32;
            let is_doubted = self.get(&guard, DOUBTED)? != 0 && holes != 0;
            let (from, count) =
                if is_doubted { (HOLES, holes) } else { (FREE, free.saturating_sub(keep).min(ROUND_MAX)) };
            if count == 0 {
                waiters.serve_others(guard)?;
                return Ok(gave);
            }
            let chain = self.pop(&mut guard, from, count)?;
            if is_doubted {
                guard.set(self.base + DOUBTED, 0)?;
            }
            let stake = match waiters.stake(&mut guard, &words_of(kind, chain)) {
                Ok(stake) => stake,
                Err(errno) => {
                    waiters.leave(guard);
                    if errno != Errno::NOBUFS {
                        return Err(errno);
                    }
                    waiters.make_room(deadline.map_or(Patience::Endless, Patience::Until))?;
                    continue;
                }
            };
            guard.checkpoint();
            waiters.leave(guard);
            let punched = self.for_each_run(chain, |offset, len| self.segment.punch(offset, len));
            let mut guard = waiters.enter(deadline)?;
            self.push(&mut guard, HOLES, chain)?;
            waiters.give_up(&mut guard, stake)?;
            waiters.serve_others(guard)?;
            punched?;
            gave = true;
        }
    }

    /// Makes memory as [`Heap::make`] does, from pages that were given back as long as there are any: whether there were.
    ///
    /// # Errors
    /// As [`Heap::make`], and those of [`Waiters::stake`].
    #[cold]
    pub fn make_from_holes<O: Object>(
        &self,
        waiters: &Waiters<'a, O>,
        kind: u64,
        patience: Patience,
    ) -> Result<bool> {
        let wanted = self.wanted.get().0.max(1);
        if self.segment.word64(self.base + HOLES)?.load(Ordering::Relaxed) & HALF == 0 {
            return self.make().map(|()| false);
        }
        let mut guard = waiters.enter_with(patience)?;
        let count = self.get(&guard, HOLES)? & HALF;
        // A few more than needed, as if they came from the end.
        let spare = (self.get(&guard, END)?.saturating_sub(count) / 8).min(SPARE_MAX as u64);
        let count = count.min(u64::from(wanted) + spare) as u32;
        if count == 0 {
            waiters.leave(guard);
            return self.make().map(|()| false);
        }
        let chain = self.pop(&mut guard, HOLES, count)?;
        let stake = match waiters.stake(&mut guard, &words_of(kind, chain)) {
            Ok(stake) => stake,
            Err(errno) => {
                waiters.leave(guard);
                return Err(errno);
            }
        };
        guard.checkpoint();
        waiters.leave(guard);
        let reserved = self.for_each_run(chain, |offset, len| self.segment.reserve(offset, len));
        let mut guard = waiters.enter_with(patience)?;
        self.push(&mut guard, if reserved.is_ok() { FREE } else { HOLES }, chain)?;
        waiters.give_up(&mut guard, stake)?;
        waiters.serve_others(guard)?;
        reserved.map(|()| true)
    }

    /// Puts among the holes what a dead giver or taker had.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        guard.set(self.base + DOUBTED, 1)?;
        self.push(guard, HOLES, chain_of(words)?)
    }

    /// How many pages are free, as far as can be seen without the lock.
    #[inline]
    pub(crate) fn free_pages_now(&self) -> Result<u32> {
        Ok(self.segment.word64(self.base + FREE)?.load(Ordering::Relaxed) as u32)
    }

    /// Whether there are free pages, or pages of units of several classes: more than an empty object should keep.
    #[inline]
    pub(crate) fn has_spare(&self) -> Result<bool> {
        let lists = self.segment.words::<{ CLASSES.len() }>(self.base + LISTS)?;
        let kept = lists.iter().filter(|list| list.load(Ordering::Relaxed) != 0).count();
        let is_doubted = self.segment.word64(self.base + DOUBTED)?.load(Ordering::Relaxed) != 0;
        Ok(kept > 1 || self.free_pages_now()? != 0 || is_doubted)
    }

    /// [`Heap::has_spare`], if all units have been freed and this is what the last one's list says: fewer steps.
    #[inline(always)]
    pub(crate) fn has_spare_beside(&self, listed: u64) -> Result<bool> {
        let lists = self.segment.words::<{ CLASSES.len() + 1 }>(self.base + LISTS)?;
        let mut sum = u64::from(self.free_pages_now()?);
        for list in lists {
            sum = sum.wrapping_add(list.load(Ordering::Relaxed));
        }
        Ok(sum != listed)
    }

    /// How many pages are free, and how many have been given back.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn idle_pages(&self, guard: &Guard<'_>) -> Result<(u32, u32)> {
        Ok((self.get(guard, FREE)? as u32, self.get(guard, HOLES)? as u32))
    }

    /// Makes plain those pages of units that are kept though no unit of theirs is used.
    fn empty_lists(&self, guard: &mut Guard<'_>) -> Result<()> {
        for class in 0..CLASSES.len() {
            let list = self.base + LISTS + 8 * class;
            let word = guard.get(list)?;
            if word > HALF {
                guard.set(list, word & HALF)?;
                self.free_in_page(guard, Unit((word >> 32) as u32))?;
            }
            let page = guard.get(list)?;
            if page == 0 {
                continue;
            }
            let entry = self.entry(page)?;
            let (word, links) = (guard.get(entry)?, guard.get(entry + 8)?);
            if word & HALF == all_free(class) && links == 0 {
                guard.set(list, 0)?;
                self.make_plain(guard, page, entry)?;
            }
        }
        Ok(())
    }

    /// Goes through pages that nobody else can reach, those that are neighbours at once.
    fn for_each_run(&self, chain: Chain, mut each: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        let mut pages = Vec::new();
        let mut page = chain.first;
        for left in (0..chain.count).rev() {
            self.page_offset(page)?;
            pages.push(page as usize);
            if left > 0 {
                page = self.next_page(page)?;
            }
        }
        pages.sort_unstable();
        pages
            .chunk_by(|page, next| page + 1 == *next)
            .try_for_each(|run| each(run[0] * PAGE_BYTES, run.len() * PAGE_BYTES))
    }
}
