//! One call of a queue, and what is done for it by others: attempted, collected, abandoned, taken back.

use std::cell::{Cell, RefCell};

use super::LARGE_BYTES;
use super::store::{self, FIRST_PAGE, Found, RECEIVED, SENT, Select, Store, TYPE, WAITERS, half};
use crate::lock::{self, Guard};
use crate::namespace::{self, REMOVED};
use crate::primitive::Ordering;
use crate::segment::{HEADER_BYTES, PAGE_BYTES, Segment};
use crate::wait::{Object, Words};
use crate::{Errno, Result};

// The first word of a request, and of a stake.
pub(super) const SEND: u64 = 1;
pub(super) const RECEIVE: u64 = 2;
pub(super) const PREPARED: u64 = 3;
pub(super) const CLAIMED: u64 = 4;
pub(super) const PAGES: u64 = 5;
// A request's other words.
pub(super) const UNIT: usize = 1;
pub(super) const KIND: usize = 2;
pub(super) const SIZE: usize = 3;
pub(super) const PROCESS: usize = 4;
pub(super) const FLAGS: usize = 5;
/// Where a sender's stake names its message; the message that a receiver got, and its size.
pub(super) const STAKE: usize = 6;
pub(super) const GOT: usize = 6;

/// One call, as those it waits for may find it.
pub(super) struct Call<'s, 'a, 'b> {
    pub(super) store: &'s Store<'a>,
    /// What the object's state was when the caller's rights were checked.
    pub(super) state: u32,
    /// Whether the queue was there when the call began.
    pub(super) has_begun: Cell<bool>,
    pub(super) kind: i64,
    pub(super) payload: &'b [u8],
    pub(super) out: RefCell<&'b mut [u8]>,
    pub(super) got: Cell<(i64, usize)>,
    pub(super) is_fetched: Cell<bool>,
    pub(super) has_drained: Cell<bool>,
    /// Whether what is to be received is likely to be long.
    pub(super) was_long: bool,
}

impl<'s, 'a, 'b> Call<'s, 'a, 'b> {
    #[inline]
    pub(super) fn new(
        store: &'s Store<'a>,
        kind: i64,
        payload: &'b [u8],
        out: &'b mut [u8],
    ) -> Call<'s, 'a, 'b> {
        Call {
            store,
            state: state_of(store.segment),
            has_begun: Cell::new(false),
            kind,
            payload,
            out: RefCell::new(out),
            got: Cell::new((0, 0)),
            is_fetched: Cell::new(false),
            has_drained: Cell::new(false),
            was_long: false,
        }
    }

    /// Whether the caller may go on: the queue is there, and nobody has changed who may use it since that was checked.
    #[inline]
    pub(super) fn begin(&self) -> Result<()> {
        let state = namespace::state(self.store.segment);
        if state & REMOVED != 0 {
            // Its id leads nowhere; but who has waited for it is told.
            return Err(if self.has_begun.get() { Errno::IDRM } else { Errno::INVAL });
        }
        self.has_begun.set(true);
        if state == self.state { Ok(()) } else { Err(Errno::RESTART) }
    }

    /// The message for a receiver, if there is one that it can have.
    #[inline]
    pub(super) fn find(
        &self,
        guard: &mut Guard<'_>,
        kind: i64,
        flags: i32,
        room: u64,
    ) -> Result<Option<Found>> {
        let select = Select::of(kind, flags);
        if matches!(select, Select::AtMost(_)) {
            self.store.clear_top(guard)?;
        }
        match self.store.find(guard, select)? {
            Some(found) if u64::from(found.size) > room && flags & libc::MSG_NOERROR == 0 => {
                Err(Errno::TOOBIG)
            }
            found => Ok(found),
        }
    }

    /// How much of a message of this size the caller gets.
    #[inline]
    pub(super) fn wanted(&self, size: u32) -> usize {
        self.out.try_borrow().map_or(0, |out| out.len()).min(size as usize)
    }

    /// Whether the queue is empty, and holds memory that it may give back.
    #[inline]
    pub(super) fn note_drained(&self) -> Result<()> {
        if self.store.messages() == 0 && self.store.away() == (0, 0) {
            self.has_drained.set(!self.store.is_small() || self.store.heap.has_spare()?);
        }
        Ok(())
    }

    /// Receives, by the caller's own hand, what is not large.
    #[inline]
    pub(super) fn take(&self, guard: &mut Guard<'_>, found: &Found, process: u32) -> Result<()> {
        let len = self.store.read_payload(found.unit, found.size, &self.out)?;
        self.store.remove(guard, found)?;
        self.store.stamp(guard, RECEIVED, process)?;
        self.got.set((found.kind, len));
        guard.makes(lock::Change::Less);
        self.note_drained()
    }

    /// The message at an index, its type and its size, for one who copies it.
    pub(super) fn see(
        &self,
        _guard: &Guard<'_>,
        index: i64,
        room: usize,
        flags: i32,
    ) -> Result<(u32, i64, u32)> {
        self.begin()?;
        let index = u64::try_from(index).map_err(|_| Errno::NOMSG)?;
        let unit = self.store.message_at(index)?.ok_or(Errno::NOMSG)?;
        let block = self.store.block(unit)?;
        let size = half(block[store::SIZE].load(Ordering::Relaxed), 0);
        if room < size as usize {
            // The kernel copies into a message of the buffer's size, which this one does not fit.
            let may_be_cut = flags & libc::MSG_NOERROR != 0;
            return Err(if may_be_cut { Errno::INVAL } else { Errno::TOOBIG });
        }
        Ok((unit, block[TYPE].load(Ordering::Relaxed) as i64, size))
    }

    /// Takes the memory for a message that others will enqueue, and counts it.
    pub(super) fn prepare(&self, guard: &mut Guard<'_>) -> Result<u32> {
        let unit = self.store.reserve(guard, self.kind, self.payload.len())?;
        self.store.count_away(guard, 0, 1)?;
        Ok(unit)
    }

    pub(super) fn unprepare(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        self.store.count_away(guard, 0, -1)?;
        self.store.free(guard, unit)
    }
}

/// The state of an object but for whether it is removed.
#[inline]
fn state_of(segment: &Segment) -> u32 {
    namespace::state(segment) & !REMOVED
}

/// What stands in a request about a message that was got.
fn got_of(words: &Words) -> (u32, u32) {
    (half(words[GOT], 0), half(words[GOT], 1))
}

impl Object for Call<'_, '_, '_> {
    const NEVER_RESTARTED: bool = true;

    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let state = namespace::state(self.store.segment);
        if state & REMOVED != 0 {
            return Err(Errno::IDRM);
        }
        // Who may use the queue has changed: each looks for itself.
        let is_sure = u64::from(state) == words[FLAGS] >> 32;
        let process = words[PROCESS] as u32;
        match words[0] {
            SEND => {
                let size = u32::try_from(words[SIZE]).map_err(|_| Errno::UCLEAN)?;
                if !self.store.fits(words[SIZE]) {
                    return Ok(false);
                }
                if !is_sure {
                    return Err(Errno::RESTART);
                }
                self.store.enqueue(guard, words[UNIT] as u32, words[KIND] as i64, size)?;
                self.store.count_away(guard, 0, -1)?;
                self.store.stamp(guard, SENT, process)?;
                if words[STAKE] != 0 {
                    let stake = usize::try_from(words[STAKE]).map_err(|_| Errno::UCLEAN)?;
                    if !(HEADER_BYTES + WAITERS..FIRST_PAGE as usize * PAGE_BYTES).contains(&stake) {
                        return Err(Errno::UCLEAN);
                    }
                    guard.set(stake, 0)?;
                }
                Ok(true)
            }
            RECEIVE if !is_sure => Err(Errno::RESTART),
            RECEIVE => {
                let found = self.find(guard, words[KIND] as i64, words[FLAGS] as i32, words[SIZE])?;
                let Some(found) = found else { return Ok(false) };
                self.store.claim(guard, &found)?;
                self.store.stamp(guard, RECEIVED, process)?;
                words[GOT] = u64::from(found.unit) | u64::from(found.size) << 32;
                Ok(true)
            }
            _ => Err(Errno::UCLEAN),
        }
    }

    #[inline]
    fn awaits(&self, words: &Words) -> lock::Change {
        match words[0] {
            SEND => lock::Change::Less,
            RECEIVE => lock::Change::More,
            _ => lock::Change::Any,
        }
    }

    #[inline]
    fn approach(&self, _segment: &Segment) {
        self.store.approach();
        self.store.warm_for_sending(self.payload.len());
        self.store.warm_for_receiving(self.was_long, self.kind);
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // A message that was sent is sent, whoever knows.
        if words[0] == RECEIVE { self.store.put_back(guard, got_of(words).0) } else { Ok(()) }
    }

    fn is_to_be_fetched(&self, words: &Words) -> bool {
        words[0] == RECEIVE && self.wanted(got_of(words).1) > LARGE_BYTES
    }

    fn fetch(&self, words: &Words) -> Result<()> {
        let (unit, size) = got_of(words);
        self.store.read_payload(unit, size, &self.out)?;
        self.is_fetched.set(true);
        Ok(())
    }

    fn collect(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<()> {
        if words[0] != RECEIVE {
            return Ok(());
        }
        let (unit, size) = got_of(words);
        let kind = self.store.block(unit)?[TYPE].load(Ordering::Relaxed) as i64;
        if !self.is_fetched.get() {
            self.store.read_payload(unit, size, &self.out)?;
        }
        self.got.set((kind, self.wanted(size)));
        self.store.finish_claim(guard, unit)?;
        self.note_drained()
    }

    fn enlist(&self, guard: &mut Guard<'_>, _room: usize, words: &mut Words) -> Result<()> {
        if words[0] == SEND && words[UNIT] == 0 {
            let unit = self.prepare(guard)?;
            self.store.write_payload(unit, self.payload)?;
            words[UNIT] = u64::from(unit);
        }
        Ok(())
    }

    fn abandon(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // A large message is its sender's stake.
        if words[0] == SEND && words[STAKE] == 0 {
            self.unprepare(guard, words[UNIT] as u32)?;
        }
        Ok(())
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        match (words[0], words[UNIT] as u32) {
            (PREPARED, 0) => Ok(()),
            (PREPARED, unit) => self.unprepare(guard, unit),
            (CLAIMED, unit) => self.store.put_back(guard, unit),
            (PAGES, _) => self.store.heap.forfeit(guard, words),
            _ => Err(Errno::UCLEAN),
        }
    }
}
