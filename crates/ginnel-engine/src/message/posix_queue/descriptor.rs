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
use crate::segment::Segment;
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
    /// `EMFILE`, `ENFILE`, `ENOMEM`. `EACCES`: its mode does not grant it. `EAGAIN`: see [`Patience::None`]. `EUCLEAN`.
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
        if packets(old, max) != packets(new, max) { doorbell::mark_change(guard, PLACES) } else { Ok(()) }
    }
}

impl Pollable for PosixQueue {
    const PLACES: Places = PLACES;

    fn segment(&self) -> &Segment {
        &self.segment
    }

    fn bell(&self) -> Result<&Doorbell> {
        Ok(&self.bell)
    }

    fn settle<T>(&self, patience: Patience, look: impl FnOnce(&mut Guard<'_>) -> Result<T>) -> Result<T> {
        let call = Call::of(self);
        call.waiters().with_lock(patience, look)
    }

    fn packets(&self, guard: &Guard<'_>) -> Result<u64> {
        Ok(packets(self.store().state(guard)?.count, self.geometry.messages_max))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::OwnedFd;

    use ginnel_testkit::isolated;
    use rustix::buffer::spare_capacity;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::time::Timespec;

    use super::{Call, PLACES, PosixQueue};
    use crate::lock::Guard;
    use crate::message::doorbell::{self, Doorbell, Places, Pollable};
    use crate::namespace::Namespace;
    use crate::segment::Segment;
    use crate::wait::Patience;
    use crate::{Errno, Result};

    fn queue() -> PosixQueue {
        let home = Namespace::private().unwrap();
        let flags = libc::O_RDWR | libc::O_CREAT;
        let queue = PosixQueue::open(&home, b"/bells", flags, 0o600, None).unwrap();
        // There is room for a message from here on.
        queue.send(0, b"x", Patience::None).unwrap();
        queue.receive(&mut [0; 8192], Patience::None).unwrap();
        queue
    }

    fn edges(queue: &PosixQueue) -> OwnedFd {
        let edges = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let events = EventFlags::IN | EventFlags::ET;
        epoll::add(&edges, queue.descriptor().unwrap(), EventData::new_u64(1), events).unwrap();
        edges
    }

    fn is_told(edges: &OwnedFd) -> bool {
        let mut events = Vec::with_capacity(8);
        epoll::wait(edges, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        !events.is_empty()
    }

    /// As an operation that has not rung yet.
    fn send(queue: &PosixQueue) {
        let send = |guard: &mut Guard<'_>| Call::of(queue).send_small(guard, &mut [0; 7], 0, b"x", false);
        assert_eq!(queue.settle(Patience::None, send), Ok(true));
    }

    fn receive(queue: &PosixQueue) -> Result<bool> {
        let mut buffer = [0; 8192];
        queue.settle(Patience::None, |guard| {
            let call = Call::of(queue);
            call.buffer.set(&mut buffer);
            call.receive_small(guard, &mut [0; 7])
        })
    }

    #[test]
    fn an_edge_is_told_though_the_descriptor_never_showed_what_was_between() {
        isolated(|| {
            let queue = queue();
            let edges = edges(&queue);
            queue.send(0, b"x", Patience::None).unwrap();
            assert!(is_told(&edges) && !is_told(&edges));
            // Another one receives it, this one is refused, a third one sends; and only then does one of them ring.
            assert_eq!(receive(&queue), Ok(true));
            assert_eq!(receive(&queue), Ok(false));
            send(&queue);
            doorbell::ring(&queue).unwrap();
            assert!(is_told(&edges), "who was refused hears of the message");
        });
    }

    /// A queue whose lock is not to be had after so many times.
    struct Stuck<'q>(&'q PosixQueue, Cell<u32>);

    impl Pollable for Stuck<'_> {
        const PLACES: Places = PLACES;

        fn segment(&self) -> &Segment {
            &self.0.segment
        }

        fn bell(&self) -> Result<&Doorbell> {
            self.0.bell()
        }

        fn settle<T>(&self, patience: Patience, look: impl FnOnce(&mut Guard<'_>) -> Result<T>) -> Result<T> {
            let left = self.1.get().checked_sub(1).ok_or(Errno::TIMEDOUT)?;
            self.1.set(left);
            self.0.settle(patience, look)
        }

        fn packets(&self, guard: &Guard<'_>) -> Result<u64> {
            self.0.packets(guard)
        }
    }

    #[test]
    fn a_ringer_that_gave_up_leaves_it_to_the_next() {
        isolated(|| {
            let queue = queue();
            let edges = edges(&queue);
            send(&queue);
            std::thread::scope(|scope| {
                let (gave_up, has_given_up) = std::sync::mpsc::channel();
                let (over, is_over) = std::sync::mpsc::channel::<()>();
                let queue = &queue;
                scope.spawn(move || {
                    gave_up.send(doorbell::ring(&Stuck(queue, Cell::new(1)))).unwrap();
                    let _ = is_over.recv();
                });
                assert_eq!(has_given_up.recv().unwrap(), Err(Errno::TIMEDOUT));
                assert_eq!(receive(queue), Ok(true));
                send(queue);
                let _ = is_told(&edges);
                // It lives on, and does not come back.
                doorbell::ring(queue).unwrap();
                assert!(is_told(&edges));
                drop(over);
            });
        });
    }
}
