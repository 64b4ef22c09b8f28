//! The short way: a message that is copied with the lock, while nobody is blocked and nothing but the message changes.
//!
//! The same words are changed as by `Call::send_small` and `Call::receive_small`, by the same rules. What is different: each
//! word is found once and nothing is handed on in memory, which would cost more than the work itself. Whatever needs more
//! than that (a slot never used before, a priority's first message, a notice, a poller) is left to the general way.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use super::store::{
    BELOW, BYTES_WORD, LIST_NEXT, Line, NOTICE_WORD, NOTIFIED_WORD, OUT_OF_STEP_WORD, POLLED_WORD,
    STATE_WORD, Store, WAITERS, WAITERS_MAX,
};
use super::{LARGE, PosixQueue, WARMED};
use crate::lock::{Change, Guard};
use crate::primitive::Ordering;
use crate::segment::JOURNAL_OFFSET;
use crate::wait::{Alone, Attempt, Patience, Place};
use crate::{Errno, Result};

/// What a receiver got.
#[derive(Default)]
pub(super) struct Got {
    pub(super) priority: Cell<u32>,
    pub(super) len: Cell<usize>,
    /// The queue is empty since, and has more memory than it needs.
    pub(super) has_surplus: Cell<bool>,
}

/// What a handle's last operation left, and where: the next one mostly needs the same lines. If others use the queue too,
/// they are fetched from the other processor all at once, before the first is looked at.
#[derive(Debug, Default)]
pub(super) struct Last {
    state: AtomicU64,
    is_shared: AtomicBool,
    /// Of a message that was the only one: the next has the same, since what was freed last is taken first. Or 0.
    slot: AtomicUsize,
}

impl Last {
    #[inline(always)]
    fn note(&self, state: [u64; 2], slot: usize) {
        let is_shared = state[0] != self.state.load(Ordering::Relaxed);
        if is_shared != self.is_shared.load(Ordering::Relaxed) {
            self.is_shared.store(is_shared, Ordering::Relaxed);
        }
        self.state.store(state[1], Ordering::Relaxed);
        self.slot.store(slot, Ordering::Relaxed);
    }
}

impl PosixQueue {
    #[inline]
    fn place(&self) -> Place {
        Place { base: WAITERS, capacity: WAITERS_MAX, room: 0 }
    }

    /// Sends a message if nothing stands in the way.
    #[inline(always)]
    pub(super) fn send_alone(&self, priority: u32, payload: &[u8], patience: Patience) -> Result<Alone> {
        let store = self.store();
        let warm = || {
            if payload.len() >= WARMED {
                // A hint: what is not as it seems is not fetched.
                let _ = store.warm_free(payload.len());
            }
        };
        let approach = || {
            self.approach();
            warm();
        };
        warm();
        self.place().run_alone(&self.segment, patience, Change::Less, approach, |guard| {
            self.approach_shared();
            self.send_quickly(guard, &store, priority, payload)
        })
    }

    /// Receives a message if nothing stands in the way.
    #[inline(always)]
    pub(super) fn receive_alone(
        &self,
        out: &mut [u8],
        patience: Patience,
        may_block: bool,
        got: &Got,
    ) -> Result<Alone> {
        let store = self.store();
        let was_long = self.was_long.load(Ordering::Relaxed);
        let warm = || {
            if was_long {
                let _ = store.warm_first();
            }
        };
        let approach = || {
            self.approach();
            warm();
        };
        warm();
        self.place().run_alone(&self.segment, patience, Change::More, approach, |guard| {
            self.approach_shared();
            match self.receive_quickly(guard, &store, out, got) {
                Ok(Attempt::Waits) if !may_block => Err(Errno::FBIG),
                attempt => attempt,
            }
        })
    }

    /// The lines that the next operation needs first.
    #[inline(always)]
    fn approach(&self) {
        self.store().approach();
        let slot = self.last.slot.load(Ordering::Relaxed);
        if slot != 0 {
            self.segment.prefetch(slot);
            self.segment.prefetch(slot + 64);
        }
    }

    /// For the holder of the lock.
    #[inline(always)]
    fn approach_shared(&self) {
        if self.last.is_shared.load(Ordering::Relaxed) {
            self.segment.prefetch(JOURNAL_OFFSET);
            self.approach();
        }
    }

    /// Whether there is a poller, or something left to be done without the lock.
    #[inline(always)]
    fn is_plain(line: Line<'_>) -> bool {
        let word = |word: usize| line[word].load(Ordering::Relaxed);
        word(POLLED_WORD) & 1 | word(OUT_OF_STEP_WORD) | word(NOTICE_WORD) == 0
    }

    #[inline(always)]
    fn send_quickly(
        &self,
        guard: &mut Guard<'_>,
        store: &Store<'_>,
        priority: u32,
        payload: &[u8],
    ) -> Result<Attempt> {
        let line = store.line()?;
        if !Self::is_plain(line) {
            return Ok(Attempt::Otherwise);
        }
        let state = line[STATE_WORD].load(Ordering::Relaxed);
        let (count, link) = (state & BELOW, state >> 32);
        if count >= u64::from(self.geometry.messages_max) {
            return Ok(Attempt::Waits);
        }
        let has_notice = count == 0 && line[NOTIFIED_WORD].load(Ordering::Relaxed) != 0;
        if has_notice || link == 0 || !store.has_shelf(priority)? {
            return Ok(Attempt::Otherwise);
        }
        let slot = store.slot(link)?;
        if !store.is_reserved(slot, payload.len()) {
            return Ok(Attempt::Otherwise);
        }
        let (ends_word, ends) = store.ends(priority)?;
        let named = if ends == 0 {
            if !store.is_marked(priority)? {
                return Ok(Attempt::Otherwise);
            }
            link << 32 | link
        } else {
            // What stands behind the last one has no meaning yet.
            store.slot(ends >> 32)?.words[LIST_NEXT / 8].store(link, Ordering::Release);
            ends & BELOW | link << 32
        };
        let free = store.fill(slot, priority, payload)?;
        let bytes = line[BYTES_WORD].load(Ordering::Relaxed);
        let sent = free << 32 | (count + 1);
        guard.change_all([
            (&line[STATE_WORD], state, sent),
            (&line[BYTES_WORD], bytes, bytes.wrapping_add(payload.len() as u64)),
            (ends_word, ends, named),
        ])?;
        guard.makes(Change::More);
        self.last.note([state, sent], if count == 0 { slot.place } else { 0 });
        Ok(Attempt::Done)
    }

    #[inline(always)]
    fn receive_quickly(
        &self,
        guard: &mut Guard<'_>,
        store: &Store<'_>,
        out: &mut [u8],
        got: &Got,
    ) -> Result<Attempt> {
        let line = store.line()?;
        if !Self::is_plain(line) {
            return Ok(Attempt::Otherwise);
        }
        let state = line[STATE_WORD].load(Ordering::Relaxed);
        let (count, free) = (state & BELOW, state >> 32);
        if count == 0 {
            return Ok(Attempt::Waits);
        }
        let Some((priority, ends_word, ends)) = store.highest_quickly(line)? else {
            return Ok(Attempt::Otherwise);
        };
        let (link, last) = (ends & BELOW, ends >> 32);
        let slot = store.slot(link)?;
        let (of, len) = slot.what();
        if of != priority || len > self.geometry.message_bytes_max {
            return Err(Errno::UCLEAN);
        }
        if len > LARGE {
            return Err(Errno::FBIG);
        }
        let named = if link != last {
            last << 32 | slot.words[LIST_NEXT / 8].load(Ordering::Relaxed) & BELOW
        } else if store.is_stale(priority)? {
            0
        } else {
            return Ok(Attempt::Otherwise);
        };
        store.empty(slot, len, free, out)?;
        let bytes = line[BYTES_WORD].load(Ordering::Relaxed);
        let left = count - 1;
        let received = link << 32 | left;
        guard.change_all([
            (&line[STATE_WORD], state, received),
            (&line[BYTES_WORD], bytes, bytes.wrapping_sub(len as u64)),
            (ends_word, ends, named),
        ])?;
        guard.makes(Change::Less);
        got.priority.set(priority);
        got.len.set(len);
        got.has_surplus.set(left == 0 && store.has_surplus(guard)?);
        self.last.note([state, received], if left == 0 { slot.place } else { 0 });
        Ok(Attempt::Done)
    }
}
