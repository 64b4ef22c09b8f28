//! The memory of a queue: more of it when an operation lacks some, and back to the file system when the queue is empty.

use std::time::Instant;

use super::call::{Call, PAGES};
use super::store::{REGROWN, Store};
use super::{GRACE, SysvQueue};
use crate::primitive::{Ordering, seconds};
use crate::segment::HEADER_BYTES;
use crate::wait::{Object, Patience, Waiters};
use crate::{Errno, Result};

/// How often memory is made anew, with at most a second between, before a drained queue keeps some; and how much.
const REGROWN_OFTEN: u64 = 4;
/// Memory was made anew since the queue was drained last.
const REGROWN_SINCE: u64 = 0x80;
const KEPT_PAGES: u32 = 4096;

impl SysvQueue {
    /// [`SysvQueue::tidy`] after the short way.
    #[cold]
    #[inline(never)]
    pub(super) fn tidy_now(&self) {
        let Ok(store) = Store::of(&self.segment) else { return };
        let call = Call::new(&store, 0, &[], &mut []);
        if let Ok(waiters) = self.waiters(&call) {
            self.tidy(&store, &waiters);
        }
    }

    /// Gets the memory that an operation lacked, without the lock.
    #[cold]
    pub(super) fn make_memory<'w, O: Object>(
        &self,
        store: &Store<'w>,
        waiters: &Waiters<'w, O>,
        patience: Patience,
    ) -> Result<()> {
        let outcome = match store.heap.make_from_holes(waiters, PAGES, patience) {
            Ok(false) => Ok(()),
            Ok(true) => self.note_regrown(),
            // It was not memory that was lacking, but a place for a stake in it.
            Err(Errno::NOBUFS) => waiters.make_room(patience),
            Err(errno) => Err(errno),
        };
        outcome.map_err(|errno| if errno == Errno::NOSPC { Errno::NOMEM } else { errno })
    }

    /// A hint: who drains a queue that is filled all the time keeps some memory.
    fn note_regrown(&self) -> Result<()> {
        let word = self.segment.word64(HEADER_BYTES + REGROWN)?;
        let (before, now) = (word.load(Ordering::Relaxed), seconds());
        if before & REGROWN_SINCE == 0 {
            let count = if now.wrapping_sub(before >> 8) <= 1 { (before & 0x3f).min(0x3e) + 1 } else { 1 };
            word.store(now << 8 | REGROWN_SINCE | count, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back the memory of an empty queue. The caller's operation is done, whatever becomes of this.
    #[cold]
    pub(super) fn tidy<'w, O: Object>(&self, store: &Store<'w>, waiters: &Waiters<'w, O>) {
        let often = self.segment.word64(HEADER_BYTES + REGROWN).map_or(0, |word| {
            let often = word.load(Ordering::Relaxed);
            if often & REGROWN_SINCE != 0 {
                word.store(often & !REGROWN_SINCE, Ordering::Relaxed);
            }
            often
        });
        let is_busy = often & 0x3f >= REGROWN_OFTEN && seconds().wrapping_sub(often >> 8) <= 1;
        let kept = if is_busy { KEPT_PAGES } else { 0 };
        if is_busy && store.heap.free_pages_now().is_ok_and(|free| free <= kept) {
            return;
        }
        let limit = Instant::now() + GRACE;
        let outcome = waiters.enter(Some(limit)).and_then(|mut guard| {
            let shrunk = store.shrink(&mut guard);
            if shrunk.is_ok() {
                waiters.serve_others(guard)
            } else {
                waiters.leave(guard);
                shrunk
            }
        });
        if outcome.is_ok() {
            let _ = store.heap.give_back(waiters, PAGES, kept, Some(limit));
        }
    }
}
