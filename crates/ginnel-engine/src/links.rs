//! The words that the kernel marks when this thread dies, one behind the other: `set_robust_list(2)`.
//!
//! # How it works inside
//! The list that the kernel follows runs through the memory that is shared: the entry of a word stands 32 bytes behind
//! it. Whoever may write there can lead the kernel astray, which then tells no further death of this thread, and no more:
//! this process never follows what stands there. It keeps the order of its own entries in a table, in memory of its own.
//!
//! The C library's robust mutexes are in the same list, and stay in front: it puts each new one first, and a new one of
//! ours goes behind its last. So what comes behind an entry of ours is ours, and nobody else changes it. The way to the
//! place in front of our first leads through the C library's entries, which it trusts itself. What it writes to us is the
//! word before the entry (its way back), which nobody reads.
//!
//! # Interrupted
//! By death: each change of the list is one store. By a signal handler that locks and unlocks in its turn: it finds the
//! table longer than it is, with a gap or with the same entry twice, and leaves it as it was.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;

use crate::primitive::{AtomicU64, Ordering, compiler_fence};
use crate::{Errno, Result};

/// How many words a thread can have linked at once. The kernel goes through 2048, with the C library's.
pub(crate) const LINKS_MAX: usize = 512;
/// How many of them only those who are blocked may have.
const RESERVED: usize = 32;
/// How long a list the kernel goes through.
const ROBUST_LIST_LIMIT: usize = 2048;

/// An entry of the list: it holds the address of the next.
type Entry = *const AtomicU64;

struct Links {
    /// Which fork it was filled after: a child's list is another, and empty.
    generation: Cell<u32>,
    count: Cell<usize>,
    /// The first of the list is the last here.
    entries: [Cell<Entry>; LINKS_MAX],
}

thread_local! {
    static LINKS: Links = const {
        Links {
            generation: Cell::new(0),
            count: Cell::new(0),
            entries: [const { Cell::new(ptr::null()) }; LINKS_MAX],
        }
    };
}

/// Whether a lock may be linked.
#[inline]
pub(crate) fn has_room(generation: u32) -> bool {
    LINKS.with(|links| links.generation.get() != generation || links.count.get() < LINKS_MAX - RESERVED)
}

/// Links an entry.
///
/// # Errors
/// `ENOLCK`: too many are. `EOPNOTSUPP`: the list does not come back to its head.
///
/// # Safety
/// `head` is the calling thread's; `entry` and the word before it stay mapped until it is removed, or the thread ends.
#[inline]
pub(crate) unsafe fn push(head: *mut Entry, generation: u32, entry: Entry) -> Result<()> {
    LINKS.with(|links| {
        links.renew(generation);
        let index = links.count.get();
        if index >= LINKS_MAX {
            return Err(Errno::NOLCK);
        }
        let next = links.below(index).unwrap_or(head.cast_const().cast());
        // SAFETY: the caller's head.
        let place = unsafe { place_before(head, next) }.ok_or(Errno::OPNOTSUPP)?;
        // SAFETY: the caller's entry.
        unsafe { &*entry }.store(next.addr() as u64, Ordering::Release);
        // In this order: a handler's own goes above.
        links.count.set(index + 1);
        compiler_fence(Ordering::SeqCst);
        links.entries[index].set(entry);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the head's first word or an entry of the C library's.
        unsafe { ptr::write_volatile(place, entry) };
        compiler_fence(Ordering::SeqCst);
        Ok(())
    })
}

/// Unlinks an entry: whether it was linked.
///
/// # Safety
/// `head` is the calling thread's; its entries are mapped.
#[inline]
pub(crate) unsafe fn remove(head: *mut Entry, generation: u32, entry: Entry) -> bool {
    LINKS.with(|links| {
        if links.generation.get() != generation {
            return false;
        }
        compiler_fence(Ordering::SeqCst);
        let count = links.count.get();
        let Some(index) = links.position(entry) else { return false };
        let next = links.below(index).unwrap_or(head.cast_const().cast());
        match links.above(index) {
            // SAFETY: an entry of ours, which is mapped.
            Some(above) => unsafe { &*above }.store(next.addr() as u64, Ordering::Release),
            None => {
                // SAFETY: the caller's head, then an entry of the C library's or the head.
                unsafe {
                    if let Some(place) = place_before(head, entry) {
                        ptr::write_volatile(place, next);
                    }
                }
            }
        }
        compiler_fence(Ordering::SeqCst);
        for index in index..count - 1 {
            links.entries[index].set(links.entries[index + 1].get());
        }
        links.entries[count - 1].set(ptr::null());
        compiler_fence(Ordering::SeqCst);
        links.count.set(count - 1);
        true
    })
}

/// Whether an entry is linked.
pub(crate) fn contains(generation: u32, entry: Entry) -> bool {
    LINKS.with(|links| links.generation.get() == generation && links.position(entry).is_some())
}

impl Links {
    #[inline]
    fn renew(&self, generation: u32) {
        if self.generation.get() != generation {
            self.forget_all(generation);
        }
    }

    #[cold]
    fn forget_all(&self, generation: u32) {
        let used = self.count.get().min(LINKS_MAX);
        self.entries[..used].iter().for_each(|entry| entry.set(ptr::null()));
        self.count.set(0);
        self.generation.set(generation);
    }

    /// Mostly the last.
    #[inline]
    fn position(&self, entry: Entry) -> Option<usize> {
        let count = self.count.get().min(LINKS_MAX);
        (0..count).rev().find(|index| self.entries[*index].get() == entry)
    }

    /// The next of our entries in the list.
    #[inline]
    fn below(&self, index: usize) -> Option<Entry> {
        self.entries[..index].iter().rev().map(Cell::get).find(|entry| !entry.is_null())
    }

    /// The one before it in the list.
    #[inline]
    fn above(&self, index: usize) -> Option<Entry> {
        let count = self.count.get().min(LINKS_MAX);
        let above = self.entries.get(index + 1..count)?;
        above.iter().map(Cell::get).find(|entry| !entry.is_null())
    }
}

/// The place in which the address of `target` stands, an entry of ours or the head, when nothing of ours comes before.
///
/// # Safety
/// `head` is the calling thread's.
#[inline]
unsafe fn place_before(head: *mut Entry, target: Entry) -> Option<*mut Entry> {
    let mut place = head;
    for _ in 0..ROBUST_LIST_LIMIT {
        // SAFETY: the head's first word, or the entry of a mutex of the C library's, which reads it in the same way.
        let found = unsafe { ptr::read_volatile(place) };
        // The lowest bit says what kind of mutex it is.
        let address = found.map_addr(|address| address & !1);
        if address == target {
            return Some(place);
        }
        if address.is_null() || address == head.cast_const().cast() {
            return None;
        }
        place = address.cast_mut().cast();
    }
    None
}
