//! Who is in a lock that several are in at once: a slot each, which the kernel marks when its thread dies.
//!
//! # How it works inside
//! All is done with the lock of a [`Robust`] held, but for the marks. `life` holds the thread's id with `WAITERS`, and is
//! in the thread's robust list; 0 is a free slot. `number` says when it was taken or for which round, and tells those who
//! sleep on a slot that it has become another's. The stores are `Release`: the lock orders them for the living, and for the
//! dead their order is all that counts.
//!
//! # Crash points
//! | killed | what the others find |
//! | --- | --- |
//! | before `life` is set | a free slot |
//! | after that, before it is linked | `life` is the pending word: marked |
//! | in the slot | marked |
//! | after `life` is 0 | a free slot; who slept on it is woken by who takes the lock from the dead |

use super::region::Words;
use super::robust::Robust;
use crate::primitive::{
    AtomicU32, AtomicU64, FUTEX_OFFSET, OWNER, OWNER_DIED, Ordering, Thread, WAITERS, futex_wake,
    thread_exists,
};
use crate::{Errno, Result};

use super::condvar::Halves;

#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) life: AtomicU32,
    /// Whether somebody may sleep on it.
    heard: AtomicU32,
    /// What its owner does.
    pub(super) state: AtomicU64,
    pub(super) number: Halves,
    /// Of the robust list: the C library writes it.
    before: AtomicU64,
    entry: AtomicU64,
    unused: [AtomicU64; 3],
}

// SAFETY: atomics only.
#[allow(unsafe_code)]
unsafe impl Words for Slot {}

const _: () = assert!(
    size_of::<Slot>() == 64
        && std::mem::offset_of!(Slot, entry) as isize + FUTEX_OFFSET
            == std::mem::offset_of!(Slot, life) as isize
);

impl Slot {
    pub(super) fn init(&self) {
        self.life.store(0, Ordering::Relaxed);
        self.heard.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Relaxed);
        self.number.store(0);
        self.before.store(0, Ordering::Relaxed);
        self.entry.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_free(&self) -> bool {
        self.life.load(Ordering::SeqCst) == 0
    }

    /// Its owner's death was told.
    pub(super) fn is_dead(&self) -> bool {
        self.life.load(Ordering::SeqCst) & OWNER_DIED != 0
    }

    /// In use, by a thread that has not died.
    pub(super) fn is_alive(&self) -> bool {
        let life = self.life.load(Ordering::SeqCst);
        life & OWNER != 0 && life & OWNER_DIED == 0
    }

    pub(super) fn is_of(&self, thread: Thread) -> bool {
        self.life.load(Ordering::SeqCst) == thread.id() | WAITERS
    }

    /// Whether it is in the thread's list, whatever stands there.
    pub(super) fn is_linked(&self, thread: Thread) -> bool {
        thread.has_linked(&self.entry)
    }

    /// A free or dead one is the thread's from here on.
    ///
    /// # Errors
    /// `ENOLCK`, `EOPNOTSUPP` as [`Thread::link_entry`].
    pub(super) fn take(&self, thread: Thread, state: u64, number: u64) -> Result<()> {
        self.number.store(number);
        self.state.store(state, Ordering::Release);
        self.heard.store(0, Ordering::Release);
        let before = thread.remember(&self.life);
        self.life.store(thread.id() | WAITERS, Ordering::Release);
        let linked = thread.link_entry(&self.life, &self.entry);
        if linked.is_err() {
            self.life.store(0, Ordering::SeqCst);
        }
        thread.forget(before);
        linked
    }

    /// The thread's no more. Who sleeps on it is woken.
    ///
    /// # Errors
    /// `EPERM`: it was not this thread's. `EUCLEAN`: it was overwritten.
    pub(super) fn leave(&self, thread: Thread) -> Result<()> {
        if !self.is_linked(thread) {
            return Err(Errno::PERM);
        }
        let freed =
            self.life.compare_exchange(thread.id() | WAITERS, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        thread.unlink_entry(&self.entry);
        self.wake();
        if freed { Ok(()) } else { Err(Errno::UCLEAN) }
    }

    /// Leaves it as the dead leave theirs: for one who cannot get the lock.
    pub(super) fn abandon(&self, thread: Thread, robust: &Robust) {
        if !self.is_linked(thread) {
            return;
        }
        let before = thread.remember(&self.life);
        thread.unlink_entry(&self.entry);
        let dead = WAITERS | OWNER_DIED;
        let _ = self.life.compare_exchange(thread.id() | WAITERS, dead, Ordering::SeqCst, Ordering::SeqCst);
        futex_wake(&self.life, i32::MAX as u32);
        robust.tell();
        thread.forget(before);
    }

    /// A dead one is free again. Who sleeps on it is woken.
    pub(super) fn bury(&self) {
        self.life.store(0, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.heard.load(Ordering::SeqCst) != 0 {
            futex_wake(&self.life, i32::MAX as u32);
        }
    }

    /// What to sleep on until it is left, or taken by another: see [`Slot::is_same`]. For who holds the lock.
    pub(super) fn listen(&self) -> Seen {
        self.heard.store(1, Ordering::SeqCst);
        Seen { life: self.life.load(Ordering::SeqCst), number: self.number.load() }
    }

    pub(super) fn is_same(&self, seen: Seen) -> bool {
        self.life.load(Ordering::SeqCst) == seen.life && self.number.load() == seen.number
    }

    pub(super) fn words(&self, seen: Seen) -> [(&AtomicU32, u32); 2] {
        [(&self.life, seen.life), self.number.words(seen.number)[0]]
    }

    /// Marks one that names a thread that is no more, as the kernel would have.
    pub(super) fn ask(&self) {
        let life = self.life.load(Ordering::SeqCst);
        if life & OWNER_DIED == 0 && life != 0 && !thread_exists(life & OWNER) {
            let dead = WAITERS | OWNER_DIED;
            let _ = self.life.compare_exchange(life, dead, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    life: u32,
    number: u64,
}
