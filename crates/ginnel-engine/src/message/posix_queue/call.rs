//! What an operation does with the lock: for itself, and on behalf of those who are blocked.

use std::cell::Cell;

use super::store::{BYTES, NOTICE, NOTIFIED, State, Stored, WAITERS, WAITERS_BYTES, WAITERS_MAX};
use super::{LARGE, NOTICE_AWAITED, PosixQueue, RECEIVE, RECEIVED, SEND, TO_SEND};
use crate::lock::{Change, Guard};
use crate::segment::Segment;
use crate::wait::{Object, Waiters, Words};
use crate::{Errno, Result};

/// One operation of one thread: what those who serve the blocked do for them, and what it does for itself.
pub(super) struct Call<'q, 'b> {
    queue: &'q PosixQueue,
    pub(super) buffer: Cell<&'b mut [u8]>,
    /// Whether the queue was left with more memory than it needs.
    pub(super) surplus: Cell<bool>,
    /// What is to be copied is likely to be long, see [`Call::warm`].
    pub(super) long: Long,
}

/// Whether an operation is likely to copy much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Long {
    No,
    /// So many bytes.
    In(usize),
    Out,
}

impl<'q, 'b> Call<'q, 'b> {
    #[inline]
    pub(super) fn of(queue: &'q PosixQueue) -> Call<'q, 'b> {
        Call { queue, buffer: Cell::default(), surplus: Cell::new(false), long: Long::No }
    }

    /// Has the processor fetch what is to be copied, before the lock is taken.
    #[inline]
    pub(super) fn warm(&self) {
        // A hint: what is not as it seems is not fetched.
        let _ = match self.long {
            Long::No => Ok(()),
            Long::In(len) => self.queue.store().warm_free(len),
            Long::Out => self.queue.store().warm_first(),
        };
    }

    #[inline]
    pub(super) fn waiters<'c>(&'c self) -> Waiters<'c, Call<'q, 'b>>
    where
        'q: 'c,
    {
        Waiters::of(&self.queue.segment, WAITERS, WAITERS_MAX, self).expect("an aligned place in the segment")
    }

    #[inline]
    pub(super) fn send_small(
        &self,
        guard: &mut Guard<'_>,
        words: &mut Words,
        priority: u32,
        payload: &[u8],
        waits: bool,
    ) -> Result<bool> {
        let store = self.queue.store();
        let mut state = store.state(guard)?;
        let is_full = state.count >= self.queue.geometry.messages_max;
        if is_full && !waits {
            return Ok(false);
        }
        let message = store.take(guard, &mut state, priority, payload.len())?;
        store.copy_in(&message, payload)?;
        if is_full {
            // It is blocked with its message put aside.
            *words = [SEND, message.link, 0, 0, 0, 0, 0];
            return store.set_state(guard, state).map(|()| false);
        }
        guard.makes(Change::More);
        self.insert(guard, state, &message, true).map(|()| true)
    }

    #[inline]
    pub(super) fn receive_small(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let store = self.queue.store();
        let state = store.state(guard)?;
        if state.count == 0 {
            *words = [RECEIVE, 0, 0, 0, 0, 0, 0];
            return Ok(false);
        }
        let message = store.first(guard)?;
        if message.len > LARGE {
            return Err(Errno::FBIG);
        }
        self.take_out(&message, words)?;
        let mut state = self.remove(guard, state, &message)?;
        store.free(&mut state, &message)?;
        guard.makes(Change::Less);
        store.set_state(guard, state)?;
        if state.count == 0 && store.has_surplus(guard)? {
            self.surplus.set(true);
        }
        Ok(true)
    }

    #[inline]
    fn take_out(&self, message: &Stored, words: &mut Words) -> Result<()> {
        let buffer = self.buffer.take();
        let copied = self.queue.store().copy_out(message, buffer);
        self.buffer.set(buffer);
        (words[3], words[4]) = (u64::from(message.priority), message.len as u64);
        copied
    }

    /// A message that lies in a slot comes into the queue.
    #[inline]
    fn insert(&self, guard: &mut Guard<'_>, state: State, message: &Stored, notices: bool) -> Result<()> {
        let store = self.queue.store();
        if notices && state.count == 0 && guard.get(NOTIFIED)? != 0 && self.receivers(guard)? == 0 {
            self.queue.give_notice(guard)?;
        }
        store.push_back(guard, message)?;
        self.count_one_more(guard, state, message)
    }

    #[inline]
    fn count_one_more(&self, guard: &mut Guard<'_>, state: State, message: &Stored) -> Result<()> {
        let count = state.count.checked_add(1).ok_or(Errno::UCLEAN)?;
        self.queue.store().set_state(guard, state.with(count))?;
        let bytes = guard.get(BYTES)?;
        guard.set(BYTES, bytes.wrapping_add(message.len as u64))?;
        self.queue.count_changes(guard, state.count, count)
    }

    /// A message leaves the queue; it stays in its slot. The state is the caller's to set.
    #[inline]
    fn remove(&self, guard: &mut Guard<'_>, state: State, message: &Stored) -> Result<State> {
        self.queue.store().pop(guard, message)?;
        let count = state.count.wrapping_sub(1);
        let bytes = guard.get(BYTES)?;
        guard.set(BYTES, bytes.wrapping_sub(message.len as u64))?;
        self.queue.count_changes(guard, state.count, count)?;
        Ok(state.with(count))
    }

    /// A message that its receiver did not live to take.
    fn put_back(&self, guard: &mut Guard<'_>, link: u64) -> Result<()> {
        let store = self.queue.store();
        let message = store.stored(link)?;
        let state = store.state(guard)?;
        store.push_front(guard, &message)?;
        self.count_one_more(guard, state, &message)?;
        if state.count == 0 && self.receivers(guard)? == 0 { self.give_late_notice(guard) } else { Ok(()) }
    }

    /// The queue is found with a message of which nobody was told, since there seemed to be a receiver.
    fn give_late_notice(&self, guard: &mut Guard<'_>) -> Result<()> {
        // A notice that is to be sent first cannot be sent now. Then the registration stays.
        if guard.get(NOTIFIED)? != 0 && guard.get(NOTICE)? == 0 {
            self.queue.give_notice(guard)
        } else {
            Ok(())
        }
    }

    /// A message in a slot that its sender, blocked or not, has put aside: whether there is room for it now.
    pub(super) fn put(&self, guard: &mut Guard<'_>, words: &mut Words, notices: bool) -> Result<bool> {
        let store = self.queue.store();
        let state = store.state(guard)?;
        if state.count >= self.queue.geometry.messages_max {
            return Ok(false);
        }
        self.set_stake(guard, words[2], 0)?;
        self.insert(guard, state, &store.stored(words[1])?, notices)?;
        Ok(true)
    }

    /// The slot that a stake holds from here on.
    fn set_stake(&self, guard: &mut Guard<'_>, place: u64, link: u64) -> Result<()> {
        if place == 0 {
            return Ok(());
        }
        let place = usize::try_from(place).map_err(|_| Errno::UCLEAN)?;
        let end = WAITERS + WAITERS_BYTES;
        if (WAITERS..end).contains(&place) { guard.set(place, link) } else { Err(Errno::UCLEAN) }
    }

    /// How many receivers are blocked.
    fn receivers(&self, guard: &Guard<'_>) -> Result<u64> {
        let mut count = 0;
        self.waiters().for_each(guard, |words| count += u64::from(words[0] == RECEIVE))?;
        Ok(count)
    }

    /// Whether no slot is held by anybody blocked, or copying.
    pub(super) fn is_idle(&self, guard: &Guard<'_>) -> Result<bool> {
        let mut without = 0;
        self.waiters().for_each(guard, |words| without += u64::from(words[0] == NOTICE_AWAITED))?;
        Ok(self.waiters().members(guard)? == without)
    }
}

impl Object for Call<'_, '_> {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        // Mostly for others, whatever the caller has done itself.
        guard.makes(Change::Any);
        match words[0] {
            // No notice: the queue was full.
            SEND => self.put(guard, words, false),
            RECEIVE => {
                let store = self.queue.store();
                let state = store.state(guard)?;
                if state.count == 0 {
                    return Ok(false);
                }
                let message = store.first(guard)?;
                let state = self.remove(guard, state, &message)?;
                store.set_state(guard, state)?;
                self.set_stake(guard, words[2], message.link)?;
                words[1] = message.link;
                Ok(true)
            }
            NOTICE_AWAITED => self.queue.notice_has_come(guard, words),
            _ => Err(Errno::UCLEAN),
        }
    }

    #[inline]
    fn awaits(&self, words: &Words) -> Change {
        match words[0] {
            SEND => Change::Less,
            RECEIVE => Change::More,
            _ => Change::Any,
        }
    }

    #[inline]
    fn approach(&self, _segment: &Segment) {
        self.queue.store().approach();
        self.warm();
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // What a stake holds is given back with the stake.
        if words[0] == RECEIVE && words[2] == 0 { self.put_back(guard, words[1]) } else { Ok(()) }
    }

    fn collect(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<()> {
        if words[0] != RECEIVE || words[2] != 0 {
            return Ok(());
        }
        let store = self.queue.store();
        let message = store.stored(words[1])?;
        self.take_out(&message, words)?;
        let mut state = store.state(guard)?;
        store.free(&mut state, &message)?;
        store.set_state(guard, state)
    }

    fn abandon(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        let store = self.queue.store();
        let mut state = store.state(guard)?;
        match words[0] {
            SEND if words[2] == 0 => {
                store.free(&mut state, &store.stored(words[1])?)?;
                store.set_state(guard, state)
            }
            // A message came while this one seemed to be there to receive it.
            RECEIVE if state.count > 0 && self.receivers(guard)? <= 1 => self.give_late_notice(guard),
            _ => Ok(()),
        }
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        let store = self.queue.store();
        match (words[0], words[1]) {
            (TO_SEND | RECEIVED, 0) => Ok(()),
            (TO_SEND, link) => {
                let mut state = store.state(guard)?;
                store.free(&mut state, &store.stored(link)?)?;
                store.set_state(guard, state)
            }
            (RECEIVED, link) => self.put_back(guard, link),
            _ => Err(Errno::UCLEAN),
        }
    }
}
