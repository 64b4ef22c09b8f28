//! Where a queue's messages lie: slots of memory, and a list of them for each priority.
//!
//! # Slots
//! A message has a slot for itself: a head of four words, then its bytes. Free slots are a list, those given back last
//! first, so that a queue that is hardly used stays in the cache. There are two *arenas* of slots, one of which is in use:
//! when a queue that has become large is found empty, the other one is taken, and the memory of the first given back to
//! the kernel, without the lock. So nobody uses what is being given back, and who is stopped meanwhile keeps nobody
//! waiting: it only keeps the arenas from changing again.
//!
//! Memory is reserved before it is used, and without the lock: who finds too little gives the lock back, reserves, notes
//! what there is, unless the arenas have changed meanwhile, and tries again. Small slots are reserved in growing groups
//! (`limit` says how many there are); large ones one by one, as far as they were ever filled (`reserved`, in the slot).
//!
//! # Priorities
//! A *shelf* has 512 priorities: a line of bits that say which of them have messages, and for each the first and the last
//! of its list, in one word. Another word says which shelves have messages. So the highest priority is found in three
//! looks. A shelf is reserved when a message for it comes. The list that was emptied last keeps its bits (`stale`): mostly
//! the next message is for it.
//!
//! # What is journaled
//! Only what says which slots are in use and which are in a list. A slot's own words are written while it is neither free
//! nor in a list, or lie behind the last of a list, where nobody looks.

use super::{Call, LARGE};
use crate::lock::Guard;
use crate::primitive::{AtomicU64, Ordering};
use crate::segment::{HEADER_BYTES, Segment};
use crate::wait::Waiters;
use crate::{Errno, Result};

/// One more than the highest priority.
pub(super) const PRIORITIES: u32 = 32768;
/// The most messages that a queue can be made for.
pub(super) const MESSAGES_MAX: u64 = 1 << 24;
/// The longest message that a queue can be made for.
pub(super) const MESSAGE_BYTES_MAX: u64 = 1 << 30;
/// How many threads can be blocked, or copy a large message, at once: half as many, each has two places.
pub(super) const WAITERS_MAX: u32 = 4096;

// The queue's own words. First what never changes.
pub(super) const KIND: usize = HEADER_BYTES;
pub(super) const LIMIT_MESSAGES: usize = HEADER_BYTES + 0x08;
pub(super) const LIMIT_BYTES: usize = HEADER_BYTES + 0x10;
pub(super) const BELL_NAME: usize = HEADER_BYTES + 0x18;
// A line that each operation reads.
/// How many messages there are, and the first free slot: see [`State`].
pub(super) const STATE: usize = HEADER_BYTES + 0x40;
/// Which shelves have messages.
const TOP: usize = HEADER_BYTES + 0x48;
/// How many bytes the messages have.
pub(super) const BYTES: usize = HEADER_BYTES + 0x50;
/// How many slots of the arena have ever been used, and how many are reserved.
const HIGH: usize = HEADER_BYTES + 0x58;
pub(super) const POLLED: usize = HEADER_BYTES + 0x60;
pub(super) const OUT_OF_STEP: usize = HEADER_BYTES + 0x68;
pub(super) const NOTIFIED: usize = HEADER_BYTES + 0x70;
pub(super) const NOTICE: usize = HEADER_BYTES + 0x78;
/// The line as it is in memory, and which of its words is which.
pub(super) type Line<'a> = &'a [AtomicU64; 8];
pub(super) const STATE_WORD: usize = 0;
const TOP_WORD: usize = (TOP - STATE) / 8;
pub(super) const BYTES_WORD: usize = (BYTES - STATE) / 8;
pub(super) const POLLED_WORD: usize = (POLLED - STATE) / 8;
pub(super) const OUT_OF_STEP_WORD: usize = (OUT_OF_STEP - STATE) / 8;
pub(super) const NOTIFIED_WORD: usize = (NOTIFIED - STATE) / 8;
pub(super) const NOTICE_WORD: usize = (NOTICE - STATE) / 8;
/// The lower half of a word.
pub(super) const BELOW: u64 = 0xffff_ffff;
// Seldom used.
const LIMIT: usize = HEADER_BYTES + 0x80;
/// Which shelves are reserved.
const SHELVES_MADE: usize = HEADER_BYTES + 0x88;
/// How often the arenas have changed.
const EPOCH: usize = HEADER_BYTES + 0x90;
/// The thread that gives the other arena's memory back.
pub(super) const GIVER: usize = HEADER_BYTES + 0x98;
/// A priority, and one, whose bit may stand though its list is empty: that of the list that was emptied last.
const STALE: usize = HEADER_BYTES + 0xa0;
/// Where the words of the notices and of the bell begin: see `notify`, `doorbell`.
pub(super) const MORE_WORDS: usize = HEADER_BYTES + 0xc0;
pub(super) const WAITERS: usize = HEADER_BYTES + 0x180;

/// How many bytes the blocked have.
pub(super) const WAITERS_BYTES: usize = Waiters::<Call<'_, '_>>::size_bytes(WAITERS_MAX as usize);

const PAGE: usize = 4096;
const SHELVES: usize = (WAITERS + WAITERS_BYTES).next_multiple_of(PAGE);
const SHELF_PRIORITIES: u32 = 512;
const SHELF_BITS: usize = 64;
const SHELF: usize = SHELF_BITS + 8 * SHELF_PRIORITIES as usize;
const SHELVES_COUNT: usize = (PRIORITIES / SHELF_PRIORITIES) as usize;
const ARENAS: usize = (SHELVES + SHELF * SHELVES_COUNT).next_multiple_of(PAGE);

/// What an operation needs: its words, and the list of the lowest priority.
pub(super) const LINES: [usize; 5] = [STATE, LIMIT, WAITERS, SHELVES, SHELVES + SHELF_BITS];

// A slot.
const FREE_NEXT: usize = 0x00;
pub(super) const LIST_NEXT: usize = 0x08;
/// Its length, and its priority in the upper half.
const WHAT: usize = 0x10;
const RESERVED: usize = 0x18;
const SLOT_HEAD: usize = 0x20;

/// Slots of more than this are reserved as far as they are filled.
const SPARSE: usize = 64 << 10;
/// How many bytes of slots are reserved at once, at most.
const GROUP_BYTES: usize = 1 << 20;
/// How much memory an empty queue keeps, at least.
const KEPT_BYTES: usize = 1 << 20;

const _: () = assert!(WAITERS.is_multiple_of(128) && SHELF.is_multiple_of(64));

/// What never changes of a queue, kept in memory of this process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) messages_max: u32,
    pub(super) message_bytes_max: usize,
    stride: usize,
    /// In each of the two arenas.
    slots: u64,
    pub(super) capacity: usize,
    /// How many slots an empty queue keeps.
    kept: u64,
}

impl Geometry {
    pub(super) fn new(messages_max: u64, message_bytes_max: u64) -> Result<Geometry> {
        if !(1..=MESSAGES_MAX).contains(&messages_max)
            || !(1..=MESSAGE_BYTES_MAX).contains(&message_bytes_max)
        {
            return Err(Errno::INVAL);
        }
        let filled = SLOT_HEAD + message_bytes_max as usize;
        let stride = filled.next_multiple_of(if filled > SPARSE { PAGE } else { 64 });
        // Whole pages, so that the second arena begins with one.
        let slots = (messages_max + u64::from(WAITERS_MAX)).next_multiple_of(64);
        let arenas = (slots as usize).checked_mul(2 * stride).ok_or(Errno::NOMEM)?;
        // What no process can map.
        let capacity = arenas.checked_add(ARENAS).filter(|bytes| *bytes < 1 << 46).ok_or(Errno::NOMEM)?;
        Ok(Geometry {
            messages_max: messages_max as u32,
            message_bytes_max: message_bytes_max as usize,
            stride,
            slots,
            capacity,
            kept: (KEPT_BYTES.max(2 * stride) / stride) as u64,
        })
    }

    fn is_sparse(&self) -> bool {
        self.stride > SPARSE
    }
}

/// The word that each operation changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) count: u32,
    /// A slot's link: its number and one.
    free: u32,
}

impl State {
    #[inline]
    pub(super) fn with(self, count: u32) -> State {
        State { count, ..self }
    }
}

/// A message in its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) link: u64,
    pub(super) priority: u32,
    pub(super) len: usize,
    place: usize,
}

/// The slots and lists of a queue. All but [`Store::make_room`] and [`Store::give_back`] with the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store<'a> {
    pub(super) segment: &'a Segment,
    pub(super) geometry: &'a Geometry,
}

impl Store<'_> {
    #[inline]
    pub(super) fn state(&self, guard: &Guard<'_>) -> Result<State> {
        let word = guard.get(STATE)?;
        Ok(State { count: word as u32, free: (word >> 32) as u32 })
    }

    #[inline]
    pub(super) fn set_state(&self, guard: &mut Guard<'_>, state: State) -> Result<()> {
        guard.set(STATE, u64::from(state.free) << 32 | u64::from(state.count))
    }

    #[inline]
    fn place(&self, link: u64) -> Result<usize> {
        let index = link.wrapping_sub(1);
        if index >= 2 * self.geometry.slots {
            return Err(Errno::UCLEAN);
        }
        Ok(ARENAS + index as usize * self.geometry.stride)
    }

    #[inline]
    fn load(&self, offset: usize) -> Result<u64> {
        Ok(self.segment.word64(offset)?.load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, offset: usize, value: u64) -> Result<()> {
        self.segment.word64(offset)?.store(value, Ordering::Release);
        Ok(())
    }

    /// A slot for a message, out of the free ones: in no list, and in `state` no longer free.
    ///
    /// # Errors
    /// `ENOBUFS`: [`Store::make_room`], without the lock, then again.
    #[inline]
    pub(super) fn take(
        &self,
        guard: &mut Guard<'_>,
        state: &mut State,
        priority: u32,
        len: usize,
    ) -> Result<Stored> {
        if guard.get(SHELVES_MADE)? & 1 << (priority / SHELF_PRIORITIES) == 0 {
            return Err(Errno::NOBUFS);
        }
        let link = if state.free != 0 { u64::from(state.free) } else { self.take_unused(guard)? };
        let place = self.place(link)?;
        if self.geometry.is_sparse() && self.load(place + RESERVED)? < (SLOT_HEAD + len) as u64 {
            return Err(Errno::NOBUFS);
        }
        if state.free != 0 {
            state.free = u32::try_from(self.load(place + FREE_NEXT)?).map_err(|_| Errno::UCLEAN)?;
        }
        self.store(place + WHAT, u64::from(priority) << 32 | len as u64)?;
        Ok(Stored { link, priority, len, place })
    }

    fn take_unused(&self, guard: &mut Guard<'_>) -> Result<u64> {
        let high = guard.get(HIGH)?;
        if high >= guard.get(LIMIT)?.min(self.geometry.slots) {
            return Err(Errno::NOBUFS);
        }
        guard.set(HIGH, high + 1)?;
        Ok(self.first_index(guard)? + high + 1)
    }

    fn first_index(&self, guard: &Guard<'_>) -> Result<u64> {
        Ok((guard.get(EPOCH)? & 1) * self.geometry.slots)
    }

    /// Puts a slot among the free ones.
    #[inline]
    pub(super) fn free(&self, state: &mut State, message: &Stored) -> Result<()> {
        self.store(message.place + FREE_NEXT, u64::from(state.free))?;
        state.free = message.link as u32;
        Ok(())
    }

    /// The message that a link names.
    #[inline]
    pub(super) fn stored(&self, link: u64) -> Result<Stored> {
        let place = self.place(link)?;
        let what = self.load(place + WHAT)?;
        let (priority, len) = ((what >> 32) as u32, (what & 0xffff_ffff) as usize);
        if priority >= PRIORITIES || len > self.geometry.message_bytes_max {
            return Err(Errno::UCLEAN);
        }
        Ok(Stored { link, priority, len, place })
    }

    #[inline]
    pub(super) fn copy_in(&self, message: &Stored, payload: &[u8]) -> Result<()> {
        self.segment.copy_in(message.place + SLOT_HEAD, payload)
    }

    /// `buffer` has room for it.
    #[inline]
    pub(super) fn copy_out(&self, message: &Stored, buffer: &mut [u8]) -> Result<()> {
        let buffer = buffer.get_mut(..message.len).ok_or(Errno::UCLEAN)?;
        self.segment.copy_out(message.place + SLOT_HEAD, buffer)
    }

    /// Has the processor fetch, without the lock, the slot that the next message is likely to get: whoever copies what has
    /// to come from another processor first keeps all others waiting for the lock meanwhile.
    pub(super) fn warm_free(&self, len: usize) -> Result<()> {
        let free = self.load(STATE)? >> 32;
        let link = if free != 0 {
            free
        } else {
            (self.load(EPOCH)? & 1) * self.geometry.slots + self.load(HIGH)? + 1
        };
        self.segment.warm(self.place(link)?, SLOT_HEAD + len, true);
        Ok(())
    }

    /// The same for the message that is likely to be received next.
    pub(super) fn warm_first(&self) -> Result<()> {
        if self.load(STATE)? as u32 == 0 {
            return Ok(());
        }
        let Some(shelf) = self.load(TOP)?.checked_ilog2() else { return Ok(()) };
        for word in (0..8).rev() {
            let bits = self.load(SHELVES + shelf as usize % SHELVES_COUNT * SHELF + 8 * word)?;
            if let Some(bit) = bits.checked_ilog2() {
                let list = List::of(shelf * SHELF_PRIORITIES + 64 * word as u32 + bit);
                let message = self.stored(self.load(list.ends())? & 0xffff_ffff)?;
                // One that is larger is copied without the lock.
                self.segment.warm(message.place, SLOT_HEAD + message.len.min(LARGE), false);
                break;
            }
        }
        Ok(())
    }

    /// Puts a message behind those of its priority.
    #[inline]
    pub(super) fn push_back(&self, guard: &mut Guard<'_>, message: &Stored) -> Result<()> {
        let list = List::of(message.priority);
        let ends = guard.get(list.ends())?;
        if ends == 0 {
            return self.push_first(guard, message);
        }
        self.store(self.place(ends >> 32)? + LIST_NEXT, message.link)?;
        guard.set(list.ends(), ends & 0xffff_ffff | message.link << 32)
    }

    /// Puts a message before those of its priority.
    pub(super) fn push_front(&self, guard: &mut Guard<'_>, message: &Stored) -> Result<()> {
        let list = List::of(message.priority);
        let ends = guard.get(list.ends())?;
        if ends == 0 {
            return self.push_first(guard, message);
        }
        self.store(message.place + LIST_NEXT, ends & 0xffff_ffff)?;
        guard.set(list.ends(), ends >> 32 << 32 | message.link)
    }

    #[inline]
    fn push_first(&self, guard: &mut Guard<'_>, message: &Stored) -> Result<()> {
        let list = List::of(message.priority);
        guard.set(list.ends(), message.link << 32 | message.link)?;
        let bits = guard.get(list.bits())?;
        if bits & list.bit() != 0 {
            return Ok(()); // The stale one.
        }
        guard.set(list.bits(), bits | list.bit())?;
        let top = guard.get(TOP)?;
        if top & list.shelf_bit() == 0 {
            guard.set(TOP, top | list.shelf_bit())?;
        }
        Ok(())
    }

    /// The first message of the highest priority.
    #[inline]
    pub(super) fn first(&self, guard: &Guard<'_>) -> Result<Stored> {
        let list = self.highest(guard)?;
        let message = self.stored(guard.get(list.ends())? & 0xffff_ffff)?;
        if message.priority == list.0 { Ok(message) } else { Err(Errno::UCLEAN) }
    }

    #[inline]
    fn highest(&self, guard: &Guard<'_>) -> Result<List> {
        let mut top = guard.get(TOP)? & guard.get(SHELVES_MADE)?;
        let stale = self.stale(guard)?;
        // The stale one may have a shelf for itself.
        for _ in 0..2 {
            let shelf = top.checked_ilog2().ok_or(Errno::UCLEAN)?;
            let line = SHELVES + shelf as usize * SHELF;
            for word in (0..8).rev() {
                let place = line + 8 * word;
                let mut bits = guard.get(place)?;
                if let Some(stale) = stale.filter(|stale| stale.bits() == place) {
                    bits &= !stale.bit();
                }
                if let Some(bit) = bits.checked_ilog2() {
                    return Ok(List(shelf * SHELF_PRIORITIES + 64 * word as u32 + bit));
                }
            }
            top &= !(1 << shelf);
        }
        Err(Errno::UCLEAN)
    }

    /// The list that has its bits and no message.
    #[inline]
    fn stale(&self, guard: &Guard<'_>) -> Result<Option<List>> {
        match guard.get(STALE)? as u32 {
            0 => Ok(None),
            stale => {
                let list = List::of(stale.wrapping_sub(1));
                Ok(if guard.get(list.ends())? == 0 { Some(list) } else { None })
            }
        }
    }

    /// Takes what [`Store::first`] gave out of its list.
    #[inline]
    pub(super) fn pop(&self, guard: &mut Guard<'_>, message: &Stored) -> Result<()> {
        let list = List(message.priority);
        let ends = guard.get(list.ends())?;
        if ends & 0xffff_ffff != ends >> 32 {
            let next = self.load(message.place + LIST_NEXT)? & 0xffff_ffff;
            return guard.set(list.ends(), ends >> 32 << 32 | next);
        }
        if guard.get(STALE)? as u32 != message.priority + 1 {
            if let Some(stale) = self.stale(guard)? {
                self.clear_bits(guard, stale)?;
            }
            guard.set(STALE, u64::from(message.priority) + 1)?;
        }
        guard.set(list.ends(), 0)
    }

    fn clear_bits(&self, guard: &mut Guard<'_>, list: List) -> Result<()> {
        let bits = guard.get(list.bits())? & !list.bit();
        guard.set(list.bits(), bits)?;
        let line = SHELVES + list.shelf() * SHELF;
        for word in 0..8 {
            if guard.get(line + 8 * word)? != 0 {
                return Ok(());
            }
        }
        let top = guard.get(TOP)?;
        guard.set(TOP, top & !list.shelf_bit())
    }
}

/// A slot as the short way uses it: its head found once.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) place: usize,
    pub(super) words: &'a [AtomicU64; SLOT_HEAD / 8],
}

impl Slot<'_> {
    /// The priority and the length of its message.
    #[inline(always)]
    pub(super) fn what(self) -> (u32, usize) {
        let what = self.words[WHAT / 8].load(Ordering::Relaxed);
        ((what >> 32) as u32, (what & BELOW) as usize)
    }
}

/// For the short way, see `quick`: the same in fewer steps.
impl<'a> Store<'a> {
    /// The lines that the next operation needs first.
    #[inline(always)]
    pub(super) fn approach(&self) {
        for line in LINES {
            self.segment.prefetch(line);
        }
    }

    #[inline(always)]
    pub(super) fn line(&self) -> Result<Line<'a>> {
        self.segment.words(STATE)
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> Result<(&'a AtomicU64, u64)> {
        let word = self.segment.word64(offset)?;
        Ok((word, word.load(Ordering::Relaxed)))
    }

    #[inline(always)]
    pub(super) fn slot(&self, link: u64) -> Result<Slot<'a>> {
        let place = self.place(link)?;
        Ok(Slot { place, words: self.segment.words(place)? })
    }

    /// Whether there is memory for the lists of a priority.
    #[inline(always)]
    pub(super) fn has_shelf(&self, priority: u32) -> Result<bool> {
        Ok(self.word(SHELVES_MADE)?.1 & List::of(priority).shelf_bit() != 0)
    }

    /// Whether a slot has memory for so many bytes.
    #[inline(always)]
    pub(super) fn is_reserved(&self, slot: Slot<'_>, len: usize) -> bool {
        !self.geometry.is_sparse()
            || slot.words[RESERVED / 8].load(Ordering::Relaxed) >= (SLOT_HEAD + len) as u64
    }

    /// The word of a priority's list, and what it says.
    #[inline(always)]
    pub(super) fn ends(&self, priority: u32) -> Result<(&'a AtomicU64, u64)> {
        self.word(List::of(priority).ends())
    }

    /// Whether the bits say that a priority's list has messages.
    #[inline(always)]
    pub(super) fn is_marked(&self, priority: u32) -> Result<bool> {
        let list = List::of(priority);
        Ok(self.word(list.bits())?.1 & list.bit() != 0)
    }

    /// Whether a priority's bits may stand though its list is empty.
    #[inline(always)]
    pub(super) fn is_stale(&self, priority: u32) -> Result<bool> {
        Ok(self.word(STALE)?.1 as u32 == priority + 1)
    }

    /// Writes a message into a slot that is free, and is in no list: the next free one.
    #[inline(always)]
    pub(super) fn fill(&self, slot: Slot<'_>, priority: u32, payload: &[u8]) -> Result<u64> {
        let free = slot.words[FREE_NEXT / 8].load(Ordering::Relaxed);
        if free > BELOW {
            return Err(Errno::UCLEAN);
        }
        let what = u64::from(priority) << 32 | payload.len() as u64;
        slot.words[WHAT / 8].store(what, Ordering::Release);
        self.segment.copy_in(slot.place + SLOT_HEAD, payload)?;
        Ok(free)
    }

    /// Copies the message out of a slot that is to be the first of the free ones.
    #[inline(always)]
    pub(super) fn empty(&self, slot: Slot<'_>, len: usize, free: u64, out: &mut [u8]) -> Result<()> {
        let out = out.get_mut(..len).ok_or(Errno::UCLEAN)?;
        self.segment.copy_out(slot.place + SLOT_HEAD, out)?;
        slot.words[FREE_NEXT / 8].store(free, Ordering::Release);
        Ok(())
    }

    /// The highest priority that has messages, the word of its list, and what it says. None: it takes a longer look.
    #[inline(always)]
    pub(super) fn highest_quickly(&self, line: Line<'_>) -> Result<Option<(u32, &'a AtomicU64, u64)>> {
        let top = line[TOP_WORD].load(Ordering::Relaxed) & self.word(SHELVES_MADE)?.1;
        let Some(shelf) = top.checked_ilog2() else { return Err(Errno::UCLEAN) };
        let shelf_bits = self.segment.words::<8>(SHELVES + shelf as usize * SHELF)?;
        for (index, bits) in shelf_bits.iter().enumerate().rev() {
            let mut bits = bits.load(Ordering::Relaxed);
            while let Some(bit) = bits.checked_ilog2() {
                let priority = shelf * SHELF_PRIORITIES + 64 * index as u32 + bit;
                let (word, ends) = self.ends(priority)?;
                if ends != 0 {
                    return Ok(Some((priority, word, ends)));
                }
                if !self.is_stale(priority)? {
                    return Err(Errno::UCLEAN);
                }
                bits &= !(1 << bit);
            }
        }
        Ok(None)
    }
}

/// The place of a priority's list.
#[derive(Clone, Copy)]
struct List(u32);

impl List {
    #[inline]
    fn of(priority: u32) -> List {
        List(priority % PRIORITIES)
    }

    #[inline]
    fn shelf(self) -> usize {
        (self.0 / SHELF_PRIORITIES) as usize
    }

    #[inline]
    fn shelf_bit(self) -> u64 {
        1 << self.shelf()
    }

    #[inline]
    fn ends(self) -> usize {
        SHELVES + self.shelf() * SHELF + SHELF_BITS + 8 * (self.0 % SHELF_PRIORITIES) as usize
    }

    #[inline]
    fn bits(self) -> usize {
        SHELVES + self.shelf() * SHELF + 8 * (self.0 % SHELF_PRIORITIES / 64) as usize
    }

    #[inline]
    fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// What [`Store::make_room`] has seen with the lock, and reserves without it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    epoch: u64,
    shelves_made: u64,
    /// Within the arena.
    index: u64,
    limit: u64,
}

/// What [`Store::give_back`] is to give back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surplus {
    offset: usize,
    len: usize,
}

impl Store<'_> {
    /// What a slot would need.
    pub(super) fn wanted(&self, guard: &Guard<'_>) -> Result<Wanted> {
        let free = self.state(guard)?.free;
        let high = guard.get(HIGH)?;
        let index = match u64::from(free) {
            0 => high,
            link => link.wrapping_sub(1).wrapping_sub(self.first_index(guard)?),
        };
        let (epoch, shelves_made) = (guard.get(EPOCH)?, guard.get(SHELVES_MADE)?);
        Ok(Wanted { epoch, shelves_made, index, limit: guard.get(LIMIT)? })
    }

    /// Without the lock: reserves what a message of this length needs. What there is then, for [`Store::note`].
    ///
    /// # Errors
    /// `ENOMEM`: the file system is full, or all slots are in use. `EUCLEAN`.
    pub(super) fn make_room(&self, wanted: &Wanted, priority: u32, len: usize) -> Result<u64> {
        let full = |errno| if errno == Errno::NOSPC { Errno::NOMEM } else { errno };
        let list = List::of(priority);
        if wanted.shelves_made & list.shelf_bit() == 0 {
            self.segment.reserve(SHELVES + list.shelf() * SHELF, SHELF).map_err(full)?;
        }
        let Geometry { stride, slots, .. } = *self.geometry;
        if wanted.index >= slots || wanted.limit > slots {
            return Err(if wanted.index == slots { Errno::NOMEM } else { Errno::UCLEAN });
        }
        let base = ARENAS + (wanted.epoch & 1) as usize * slots as usize * stride;
        if self.geometry.is_sparse() {
            let place = base + wanted.index as usize * stride;
            self.segment.reserve(place, SLOT_HEAD + len).map_err(full)?;
            return Ok(wanted.limit.max(wanted.index + 1));
        }
        if wanted.index < wanted.limit {
            return Ok(wanted.limit);
        }
        let first = base + wanted.limit as usize * stride;
        let group = (wanted.limit).max((PAGE / stride) as u64).min((GROUP_BYTES / stride) as u64).max(1);
        let group = group.min(slots - wanted.limit);
        match self.segment.reserve(first, group as usize * stride) {
            Ok(()) => Ok(wanted.limit + group),
            Err(_) => self.segment.reserve(first, stride).map_err(full).map(|()| wanted.limit + 1),
        }
    }

    /// Notes what was reserved, unless the arenas have changed.
    pub(super) fn note(
        &self,
        guard: &mut Guard<'_>,
        wanted: &Wanted,
        limit: u64,
        priority: u32,
        len: usize,
    ) -> Result<()> {
        let made = guard.get(SHELVES_MADE)?;
        guard.set(SHELVES_MADE, made | List::of(priority).shelf_bit())?;
        if guard.get(EPOCH)? != wanted.epoch {
            return Ok(());
        }
        if self.geometry.is_sparse() {
            let place = self.place(self.first_index(guard)? + wanted.index + 1)?;
            let reserved = self.load(place + RESERVED)?;
            // Nothing to undo: it is reserved, whatever becomes of this.
            self.store(place + RESERVED, reserved.max((SLOT_HEAD + len) as u64))?;
        }
        if guard.get(LIMIT)? < limit {
            guard.set(LIMIT, limit)?;
        }
        Ok(())
    }

    /// Whether an empty queue has more memory than it is to keep.
    #[inline]
    pub(super) fn has_surplus(&self, guard: &Guard<'_>) -> Result<bool> {
        Ok(guard.get(HIGH)? > self.geometry.kept)
    }

    /// Changes the arenas of a queue of which no slot is in use: what is to be given back.
    pub(super) fn change_arenas(&self, guard: &mut Guard<'_>, thread: u32) -> Result<Surplus> {
        let epoch = guard.get(EPOCH)?;
        let used = guard.get(LIMIT)?.min(self.geometry.slots);
        guard.set(EPOCH, epoch.wrapping_add(1))?;
        guard.set(HIGH, 0)?;
        guard.set(LIMIT, 0)?;
        self.set_state(guard, State { count: 0, free: 0 })?;
        guard.set(GIVER, u64::from(thread))?;
        Ok(self.surplus(epoch, used))
    }

    /// What somebody who died was about to give back, and perhaps has.
    pub(super) fn surplus_of_dead(&self, guard: &mut Guard<'_>, thread: u32) -> Result<Surplus> {
        guard.set(GIVER, u64::from(thread))?;
        Ok(self.surplus(guard.get(EPOCH)?.wrapping_add(1), self.geometry.slots))
    }

    fn surplus(&self, epoch: u64, slots: u64) -> Surplus {
        let Geometry { stride, slots: all, .. } = *self.geometry;
        Surplus {
            offset: ARENAS + (epoch & 1) as usize * all as usize * stride,
            len: slots as usize * stride,
        }
    }

    /// Who gives the other arena's memory back: nobody if 0.
    pub(super) fn giver(&self, guard: &Guard<'_>) -> Result<u32> {
        Ok(guard.get(GIVER)? as u32)
    }

    /// Without the lock. If the kernel can't, the memory stays, and is used again.
    pub(super) fn give_back(&self, surplus: Surplus) {
        let _ = self.segment.punch(surplus.offset, surplus.len);
    }

    pub(super) fn has_given_back(&self, guard: &mut Guard<'_>, thread: u32) -> Result<()> {
        if self.giver(guard)? == thread { guard.set(GIVER, 0) } else { Ok(()) }
    }
}
