//! The descriptor of a POSIX queue: see [`doorbell`](crate::message::doorbell).
//!
//! # Differences from the kernel's queue
//! An edge-triggered epoll hears of a queue that has become readable or writable, and not of each further message.

use std::os::fd::BorrowedFd;

use super::store::{MORE_WORDS, OUT_OF_STEP, POLLED};
use super::{Call, PosixQueue};
use crate::Result;
use crate::lock::Guard;
use crate::message::doorbell::{self, Doorbell, Places, Pollable};
use crate::wait::Patience;

const PLACES: Places = Places { polled: POLLED, out_of_step: OUT_OF_STEP, ringer: MORE_WORDS };

/// What the FIFO is to show: how many packets.
#[inline]
fn packets(count: u32, messages_max: u32) -> u64 {
    if count == 0 { 0 } else { 1 + u64::from(count >= messages_max) }
}

impl PosixQueue {
    /// The queue's descriptor for `poll(2)`: readable while it holds a message, writable while it has room. Not to be
    /// read or written. It is open for as long as the queue; from now on all who change the queue keep it in step.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`. `EACCES`: its mode does not grant it. `EUCLEAN`.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        doorbell::descriptor(self)
    }

    /// A descriptor that is open for as long as the queue and can do nothing; `poll(2)` says `POLLNVAL` of it, `epoll_ctl(2)`
    /// `EBADF`. For who has to give a descriptor where [`PosixQueue::descriptor`] has failed.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.bell.place()
    }

    /// In the transaction that changes how many messages there are.
    #[inline]
    pub(super) fn count_changes(&self, guard: &mut Guard<'_>, old: u32, new: u32) -> Result<()> {
        if guard.get(POLLED)? & 1 == 0 {
            return Ok(());
        }
        let max = self.geometry.messages_max;
        if packets(old, max) != packets(new, max) { doorbell::mark(guard, PLACES) } else { Ok(()) }
    }
}

impl Pollable for PosixQueue {
    const PLACES: Places = PLACES;

    fn bell(&self) -> Result<&Doorbell> {
        Ok(&self.bell)
    }

    fn settle<T>(&self, patience: Patience, look: impl FnOnce(&mut Guard<'_>) -> Result<T>) -> Result<T> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let mut guard = waiters.enter_with(patience)?;
        let outcome = look(&mut guard);
        if outcome.is_ok() {
            guard.checkpoint();
        }
        waiters.leave(guard);
        outcome
    }

    fn packets(&self, guard: &Guard<'_>) -> Result<u64> {
        Ok(packets(self.store().state(guard)?.count, self.geometry.messages_max))
    }
}
