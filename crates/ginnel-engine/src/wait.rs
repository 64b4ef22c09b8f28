//! An object's blocked operations, and nobody left asleep by a death: `futex_waitv(2)`, `set_robust_list(2)`.
//!
//! # What a user of it sees
//! An [`Object`] says how an operation is attempted. [`Waiters::run`] does an operation at once, or blocks until somebody
//! else's operation has made it possible: that somebody then does it on the sleeper's behalf, under the lock, in the order
//! in which the sleepers came, as the kernel does. An operation whose process is killed before it could return was never
//! done: [`Object::take_back`].
//!
//! # How it works inside
//! A blocked operation stands in a *slot*: its words, its `state` (a futex), its neighbours in the list, and its `life`,
//! which holds the sleeper's thread id and is linked into its robust list. Who changes the object sets `dirty` in the
//! same transaction, then serves whom it can, each in a transaction of its own; who finds `dirty` goes on with it. A
//! served slot stays in the list until its owner has taken the result, or is found dead.
//!
//! Who has given the lock back *looks round*: wakes each served slot that was not rung for this serving yet, and takes the
//! lock again if it sees a dead one.
//!
//! The kernel's part: whoever is in an operation has the lock's word as its pending word. So a death is told to
//! whoever sleeps on that word, the *bell*, if nobody holds the lock; and if somebody does, that one looks round later:
//! the kernel marks `life` before it reads the lock's word.
//!
//! # Who hears of a death
//! Needed: if sleeper `A` dies, or one who had not rung yet, and others remain, then one of them takes the lock.
//! - Somebody holds the lock when the kernel reads it: that one looks round after giving it back. Dies it before: its own
//!   death is told, and so on.
//! - Nobody does, and somebody stands in the bell's queue: is woken. Dies it before it has taken the lock: as above.
//! - Nobody does, and the others are all just about to sleep. A wake is not remembered, so what they go to sleep on must
//!   show it. Each sleeps on its `state` (shows a serving), the bell, the `life` of the slot before it, in a ring (shows
//!   a mark), and `epoch`, which changes with the ring, **in this order**: the slot behind `A` compares the `life` of
//!   `A` after it has joined the bell's queue, so the mark came before, and shows, or the bell comes after, and is heard.
//!   That it compares the right one shows in `epoch`: if the ring changes later still, the change's maker dies later still.
//!
//! # Barriers
//! - **W1** the words of a slot before the transaction that makes it `SLEEPING` or `SERVED` is committed.
//! - **W2** `ticket` before `state` when serving, `ticket` before `state` when looking round: then `rung == ticket` means
//!   that a wake came after the state of this very serving, not of one that was undone. `ticket` is never undone.
//! - **W3** `life` and its link before the slot is in the list; the slot out of the list before `life` is unlinked.
//!
//! # Crash points
//! | killed | what the others find |
//! | --- | --- |
//! | before its enqueueing is committed | undone with the journal; a mark in a free slot says nothing |
//! | asleep | its slot marked: removed, and those behind it are served anew |
//! | served, before it has committed taking the result | the slot `SERVED` and marked: `take_back`, then as above |
//! | after that | it was done; the mark is in a free slot |
//! | after changing the object, before having served all | `dirty` |
//! | after serving, before ringing | `SERVED` slots whose `rung` is not `ticket`: the next to look round rings |
//!
//! # What is left
//! A handler installed with `SA_RESTART` does not end the sleep: the kernel restarts `futex_waitv`, not `semop`.

use std::time::{Duration, Instant};

use crate::lock::{Guard, Lock, WORD_OFFSET};
use crate::primitive::{
    AtomicU32, AtomicU64, FUTEX_OFFSET, Linked, OWNER_DIED, Ordering, Thread, Watch, futex_wait_any,
    futex_wake,
};
use crate::segment::Segment;
use crate::{Errno, Result};

/// How many words an operation has for what it asks and what it gets.
pub const WORDS: usize = 7;

/// What an operation asks; once it is done, what it got.
///
/// ```
/// use ginnel_engine::wait::{WORDS, Words};
///
/// let take_three: Words = [3, 0, 0, 0, 0, 0, 0];
/// assert_eq!(take_three.len(), WORDS);
/// ```
pub type Words = [u64; WORDS];

/// How long after its deadline, or a signal, a sleeper tries for the lock to leave in an orderly way. A process that was
/// stopped with the lock keeps it for longer: then the slot is left behind, like a dead one's.
const GRACE: Duration = Duration::from_secs(1);

// The header, relative to the place of the waiters.
const HEAD: usize = 0x00;
const TAIL: usize = 0x08;
const FREE_LIST: usize = 0x10;
/// How many slots have ever been used.
const HIGH: usize = 0x18;
const SLEEPERS: usize = 0x20;
const DIRTY: usize = 0x28;
const EPOCH: usize = 0x30;
const HEADER: usize = 0x40;

// A slot.
const LIFE: usize = 0x00;
const STATE: usize = 0x08;
const RUNG: usize = 0x10;
const ENTRY_BEFORE: usize = 0x18;
const ENTRY: usize = 0x20;
const NEXT: usize = 0x28;
const PREVIOUS: usize = 0x30;
const TICKET: usize = 0x38;
const PROCESS: usize = 0x40;
const FIRST_WORD: usize = 0x48;
const SLOT: usize = 0x80;
const _: () = assert!(ENTRY as isize + FUTEX_OFFSET == LIFE as isize && FIRST_WORD + 8 * WORDS == SLOT);

// States: an errno stands above the lowest byte of `SERVED`.
const SLOT_FREE: u64 = 0;
const SLEEPING: u64 = 1;
const SERVED: u64 = 2;

/// Where the low half of a 64-bit word is: the kernel's futexes have 32 bits.
const LOW_HALF: usize = if cfg!(target_endian = "big") { 4 } else { 0 };

/// What can be asked of an object, and how to undo what was done for somebody who never learned of it.
///
/// ```
/// use ginnel_engine::Result;
/// use ginnel_engine::lock::Guard;
/// use ginnel_engine::segment::HEADER_BYTES;
/// use ginnel_engine::wait::{Object, Words};
///
/// /// Units to take, as many as the first word says, from a number that stands behind the header.
/// struct Units;
///
/// impl Object for Units {
///     fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
///         match guard.get(HEADER_BYTES)?.checked_sub(words[0]) {
///             Some(rest) => guard.set(HEADER_BYTES, rest).map(|()| true),
///             None => Ok(false), // it waits
///         }
///     }
///
///     fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
///         let rest = guard.get(HEADER_BYTES)?;
///         guard.set(HEADER_BYTES, rest.wrapping_add(words[0]))
///     }
/// }
/// ```
pub trait Object {
    /// Does the operation and puts what it got into `words`; `false` if it must wait.
    ///
    /// # Errors
    /// The operation ends with this errno. `EUCLEAN`: the object does not hold what it must; nobody is served. In both
    /// cases, and if it must wait, nothing may have been changed.
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool>;

    /// Undoes an operation that was done for a process that died before it could see the result in `words`.
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must.
    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()>;

    /// What an operation that is about to be blocked leaves for those who will serve it: `words` as they are to see them,
    /// and what [`Waiters::with_room`] has set aside at `room`, to be written without the journal. It was attempted last
    /// by this holder of the lock.
    ///
    /// # Errors
    /// The operation is not blocked, and ends with this errno.
    fn enlist(&self, _guard: &Guard<'_>, _room: usize, _words: &mut Words) -> Result<()> {
        Ok(())
    }

    /// Serves those who can go on since the object has changed: those who came first before others, unless the object
    /// knows better.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must.
    fn serve<'a>(&self, guard: &mut Guard<'a>, waiters: &Waiters<'a, Self>) -> Result<()>
    where
        Self: Sized,
    {
        waiters.serve_in_order(guard)
    }
}

/// One blocked operation, for an object that serves in an order of its own ([`Waiters::walk`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocked {
    slot: usize,
    /// What stands behind its words, see [`Waiters::with_room`].
    pub(crate) room: usize,
    pub(crate) words: Words,
}

/// Where [`Waiters::walk`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    FromTheFirst,
}

/// How long an operation may be blocked.
///
/// ```
/// use std::time::{Duration, Instant};
/// use ginnel_engine::wait::Patience;
///
/// let soon = Patience::Until(Instant::now() + Duration::from_millis(5));
/// assert_ne!(soon, Patience::Endless);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// For ever.
    Endless,
}

impl Patience {
    fn deadline(self) -> Option<Instant> {
        if let Patience::Until(deadline) = self { Some(deadline) } else { None }
    }
}

/// The blocked operations of an object.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::lock::Guard;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
/// use ginnel_engine::wait::{Object, Patience, Waiters, Words};
/// use ginnel_engine::{Errno, Result};
///
/// /// A box for one number: the first word says whether to put one in, the second is the number.
/// struct Slot;
/// const CONTENT: usize = HEADER_BYTES;
///
/// impl Object for Slot {
///     fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
///         let (put, content) = (words[0] == 1, guard.get(CONTENT)?);
///         if put == (content != 0) {
///             return Ok(false); // full, or empty
///         }
///         guard.set(CONTENT, if put { words[1] } else { 0 })?;
///         words[1] = content;
///         Ok(true)
///     }
///
///     fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
///         guard.set(CONTENT, if words[0] == 1 { 0 } else { words[1] })
///     }
/// }
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// let segment = Segment::create(&directory, c"box", mode, 1 << 20, |_| Ok(()))?;
/// let waiters = Waiters::of(&segment, HEADER_BYTES + 64, 100, &Slot)?;
/// std::thread::scope(|scope| {
///     let taker = scope.spawn(|| waiters.run([0; 7], Patience::Endless));
///     waiters.run([1, 42, 0, 0, 0, 0, 0], Patience::None)?;
///     assert_eq!(taker.join().unwrap()?[1], 42);
///     assert_eq!(waiters.run([0; 7], Patience::None), Err(Errno::AGAIN));
///     Ok::<(), Errno>(())
/// })?;
/// # Ok::<(), Errno>(())
/// ```
#[derive(Debug)]
pub struct Waiters<'a, O> {
    segment: &'a Segment,
    base: usize,
    capacity: u64,
    /// From slot to slot.
    stride: usize,
    object: &'a O,
}

impl<'a, O: Object> Waiters<'a, O> {
    /// How many bytes `capacity` blocked operations need. They are taken as they are needed.
    pub const fn size_bytes(capacity: usize) -> usize {
        HEADER + capacity * SLOT
    }

    /// How many bytes `capacity` blocked operations need that have so much room of their own.
    pub const fn size_bytes_with_room(capacity: usize, room: usize) -> usize {
        HEADER + capacity * (SLOT + room)
    }

    /// Where an object whose waiters are at `base` finds how many are blocked.
    pub(crate) const fn sleepers_at(base: usize) -> usize {
        base + SLEEPERS
    }

    /// Where such an object leaves word that there is something to do for whoever comes next, in the transaction that
    /// makes it so.
    pub(crate) const fn dirty_at(base: usize) -> usize {
        base + DIRTY
    }

    /// The blocked operations of `object`, `capacity` at most, at `base` in its segment.
    ///
    /// # Errors
    /// `EINVAL`: the place is not aligned to 64 bytes.
    pub fn of(segment: &'a Segment, base: usize, capacity: u32, object: &'a O) -> Result<Waiters<'a, O>> {
        if !base.is_multiple_of(HEADER) {
            return Err(Errno::INVAL);
        }
        Ok(Waiters { segment, base, capacity: u64::from(capacity), stride: SLOT, object })
    }

    /// As [`Waiters::of`], with `room` bytes of the object's own in each slot.
    ///
    /// # Errors
    /// `EINVAL`: not aligned to 64 bytes.
    pub fn with_room(
        segment: &'a Segment,
        base: usize,
        capacity: u32,
        room: usize,
        object: &'a O,
    ) -> Result<Waiters<'a, O>> {
        let plain = Waiters::of(segment, base, capacity, object)?;
        let stride = SLOT.checked_add(room).filter(|stride| stride.is_multiple_of(64)).ok_or(Errno::INVAL)?;
        Ok(Waiters { stride, ..plain })
    }

    /// Does an operation, blocked for as long as patience allows: what it got.
    ///
    /// # Errors
    /// `EAGAIN`: it cannot be done now ([`Patience::None`]). `ETIMEDOUT`. `EINTR`: a signal handler ran. `ENOSPC`: as many
    /// are blocked as may be, or the file system is full. `EUCLEAN`: the segment does not hold what it must.
    /// `EOPNOTSUPP`: this thread's C library would not let its death be told. Those of the object. In each case nothing
    /// was done.
    pub fn run(&self, request: Words, patience: Patience) -> Result<Words> {
        let thread = Thread::current();
        let _bell = Watch::on(thread, self.bell()?);
        loop {
            let mut guard = self.enter(patience.deadline())?;
            let mut words = request;
            match self.object.attempt(&mut guard, &mut words) {
                Ok(true) => return self.serve_others(guard).map(|()| words),
                Ok(false) if patience != Patience::None => {}
                otherwise => {
                    self.leave(guard);
                    return Err(otherwise.err().unwrap_or(Errno::AGAIN));
                }
            }
            let needed = match self.index_for_next(&guard) {
                Ok(index) => self.slot(index),
                Err(errno) => {
                    self.leave(guard);
                    return Err(errno);
                }
            };
            if self.segment.word64(needed + self.stride - 8).is_ok() {
                return self.block(guard, thread, &request, patience.deadline());
            }
            // Room is made without the lock: others may have changed the object meanwhile, so it is attempted again.
            self.leave(guard);
            self.segment.grow(needed + self.stride)?;
        }
    }

    /// The lock, with all done that others left to do: for looking at the object. Give it back with [`Waiters::leave`].
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn enter(&self, deadline: Option<Instant>) -> Result<Guard<'a>> {
        let mut guard = Lock::of(self.segment).acquire(deadline)?;
        if self.get(&guard, SLEEPERS)? != 0 || self.get(&guard, DIRTY)? != 0 {
            self.keep_house(&mut guard)?;
        }
        Ok(guard)
    }

    /// Gives the lock back, undoing what was not committed, and wakes whom it must.
    pub fn leave(&self, guard: Guard<'a>) {
        let mut guard = guard;
        // Each turn removes the dead it has seen; there are no more than slots unless somebody scribbles.
        for _ in 0..=self.capacity {
            let alone = matches!(self.get(&guard, SLEEPERS), Ok(0));
            drop(guard);
            if alone || !self.look_round().unwrap_or(false) {
                return;
            }
            guard = match self.enter(Some(Instant::now() + GRACE)) {
                Ok(guard) => guard,
                Err(_) => return self.ring_bell(),
            };
        }
    }

    /// How many operations are blocked, and what each asks, in their order.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must.
    pub fn for_each(&self, guard: &Guard<'_>, mut see: impl FnMut(&Words)) -> Result<()> {
        let mut at = self.get(guard, HEAD)?;
        for _ in 0..=self.capacity {
            if at == 0 {
                return Ok(());
            }
            let slot = self.checked_slot(at)?;
            if guard.get(slot + STATE)? == SLEEPING {
                see(&self.words(guard, slot)?);
            }
            at = guard.get(slot + NEXT)?;
        }
        Err(Errno::UCLEAN)
    }

    /// Commits the operation, serves those who can go on since, and gives the lock back.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must.
    pub(crate) fn serve_others(&self, mut guard: Guard<'a>) -> Result<()> {
        let marked = match self.get(&guard, SLEEPERS) {
            Ok(0) => Ok(false),
            Ok(_) => self.set(&mut guard, DIRTY, 1).map(|()| true),
            Err(errno) => Err(errno),
        };
        if marked.is_ok() {
            guard.checkpoint();
        }
        if marked == Ok(true) {
            // The caller's own operation is done, whatever becomes of the others'.
            let _ = self.serve(&mut guard);
        }
        self.leave(guard);
        marked.map(drop)
    }

    /// Buries the dead and serves the living, if that is still to do.
    #[cold]
    fn keep_house(&self, guard: &mut Guard<'a>) -> Result<()> {
        for index in 0..self.high()? {
            let slot = self.slot(index);
            if self.is_dead(slot)? {
                self.bury(guard, slot)?;
            }
        }
        if self.get(guard, DIRTY)? != 0 { self.serve(guard) } else { Ok(()) }
    }

    fn bury(&self, guard: &mut Guard<'a>, slot: usize) -> Result<()> {
        match guard.get(slot + STATE)? {
            SLOT_FREE => {}
            state => {
                if state == SERVED {
                    let words = self.words(guard, slot)?;
                    self.object.take_back(guard, &words)?;
                }
                self.unlink(guard, slot)?;
                self.set(guard, DIRTY, 1)?;
                guard.checkpoint();
            }
        }
        self.segment.word32(slot + LIFE)?.store(0, Ordering::Release);
        Ok(())
    }

    fn serve(&self, guard: &mut Guard<'a>) -> Result<()> {
        self.object.serve(guard, self)?;
        self.set(guard, DIRTY, 0)?;
        guard.checkpoint();
        Ok(())
    }

    /// Serves all who can be, from the first again after each: what one got may let an earlier one go on.
    pub(crate) fn serve_in_order(&self, guard: &mut Guard<'a>) -> Result<()> {
        let mut at = self.get(guard, HEAD)?;
        let mut steps = 0;
        while at != 0 {
            let slot = self.checked_slot(at)?;
            steps += 1;
            if steps > self.capacity {
                return Err(Errno::UCLEAN);
            }
            at = guard.get(slot + NEXT)?;
            if guard.get(slot + STATE)? != SLEEPING {
                continue;
            }
            if self.is_dead(slot)? {
                self.bury(guard, slot)?;
            } else if !self.serve_one(guard, slot)? {
                continue;
            }
            at = self.get(guard, HEAD)?;
            steps = 0;
        }
        Ok(())
    }

    /// Shows the blocked operations of the living in their order. The visitor may end some of them ([`Waiters::end`]), and
    /// may walk too.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must. What the visitor fails with.
    pub(crate) fn walk(
        &self,
        guard: &mut Guard<'a>,
        mut visit: impl FnMut(&mut Guard<'a>, &Blocked) -> Result<Step>,
    ) -> Result<()> {
        let mut at = self.get(guard, HEAD)?;
        let (mut steps, mut rounds) = (0, 0);
        while at != 0 {
            let slot = self.checked_slot(at)?;
            steps += 1;
            if steps > self.capacity || rounds > self.capacity {
                return Err(Errno::UCLEAN);
            }
            at = guard.get(slot + NEXT)?;
            if guard.get(slot + STATE)? == SLEEPING && !self.is_dead(slot)? {
                let blocked = Blocked { slot, room: slot + SLOT, words: self.words(guard, slot)? };
                if visit(guard, &blocked)? == Step::FromTheFirst {
                    at = self.get(guard, HEAD)?;
                    steps = 0;
                    rounds += 1;
                }
            }
        }
        Ok(())
    }

    /// Changes what a blocked operation has in one of its words, for the time that it stays blocked.
    pub(crate) fn amend(&self, guard: &mut Guard<'a>, blocked: &Blocked, word: usize, value: u64) -> Result<()> {
        guard.set(blocked.slot + FIRST_WORD + 8 * word.min(WORDS - 1), value)
    }

    /// Ends a blocked operation, and makes it count together with what has been changed for it.
    pub(crate) fn end(&self, guard: &mut Guard<'a>, blocked: &Blocked, result: Result<()>) -> Result<()> {
        let state = match result {
            Ok(()) => SERVED,
            Err(errno) => SERVED | (errno.raw_os_error() as u64) << 8,
        };
        self.mark_served(guard, blocked.slot, state)
    }

    fn serve_one(&self, guard: &mut Guard<'a>, slot: usize) -> Result<bool> {
        let request = self.words(guard, slot)?;
        let mut words = request;
        let state = match self.object.attempt(guard, &mut words) {
            Ok(true) => SERVED,
            Ok(false) => return Ok(false),
            Err(Errno::UCLEAN) => return Err(Errno::UCLEAN),
            Err(errno) => SERVED | (errno.raw_os_error() as u64) << 8,
        };
        for (index, (new, old)) in words.iter().zip(request).enumerate() {
            if *new != old {
                guard.set(slot + FIRST_WORD + 8 * index, *new)?;
            }
        }
        self.mark_served(guard, slot, state)?;
        Ok(true)
    }

    fn mark_served(&self, guard: &mut Guard<'a>, slot: usize, state: u64) -> Result<()> {
        // W2.
        let ticket = self.segment.word64(slot + TICKET)?;
        ticket.store(ticket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        guard.set(slot + STATE, state)?;
        guard.checkpoint();
        Ok(())
    }

    /// Without the lock: rings each slot that was served and not rung. Whether a dead one was seen.
    fn look_round(&self) -> Result<bool> {
        let mut dead = false;
        for index in 0..self.high()? {
            let slot = self.slot(index);
            dead |= self.is_dead(slot)?;
            let ticket = self.segment.word64(slot + TICKET)?.load(Ordering::Acquire);
            if self.segment.word64(slot + STATE)?.load(Ordering::Acquire) & 0xff == SERVED {
                let rung = self.segment.word64(slot + RUNG)?;
                if rung.load(Ordering::Acquire) != ticket {
                    futex_wake(self.low_half(slot + STATE)?, 1);
                    rung.store(ticket, Ordering::Release);
                }
            }
        }
        Ok(dead)
    }

    /// Has somebody look after the object, in the place of one who could not.
    fn ring_bell(&self) {
        if let Ok(bell) = self.bell() {
            futex_wake(bell, 1);
        }
    }

    fn bell(&self) -> Result<&'a AtomicU32> {
        self.segment.word32(WORD_OFFSET)
    }

    fn is_dead(&self, slot: usize) -> Result<bool> {
        Ok(self.segment.word32(slot + LIFE)?.load(Ordering::SeqCst) & OWNER_DIED != 0)
    }

    fn get(&self, guard: &Guard<'_>, field: usize) -> Result<u64> {
        guard.get(self.base + field)
    }

    fn set(&self, guard: &mut Guard<'_>, field: usize, value: u64) -> Result<()> {
        guard.set(self.base + field, value)
    }

    /// How many slots there are to look at.
    fn high(&self) -> Result<u64> {
        Ok(self.segment.word64(self.base + HIGH)?.load(Ordering::Acquire).min(self.capacity))
    }

    fn slot(&self, index: u64) -> usize {
        self.base + HEADER + index as usize * self.stride
    }

    /// The slot that a link names: its index and one, in a segment that anybody may have written.
    fn checked_slot(&self, link: u64) -> Result<usize> {
        let index = link.checked_sub(1).filter(|index| *index < self.capacity).ok_or(Errno::UCLEAN)?;
        Ok(self.slot(index))
    }

    fn link_of(&self, slot: usize) -> u64 {
        ((slot - self.base - HEADER) / self.stride) as u64 + 1
    }

    fn words(&self, guard: &Guard<'_>, slot: usize) -> Result<Words> {
        let mut words = Words::default();
        for (index, word) in words.iter_mut().enumerate() {
            *word = guard.get(slot + FIRST_WORD + 8 * index)?;
        }
        Ok(words)
    }

    fn low_half(&self, offset: usize) -> Result<&'a AtomicU32> {
        self.segment.word32(offset + LOW_HALF)
    }

    /// The slot that the next to be blocked will have.
    fn index_for_next(&self, guard: &Guard<'_>) -> Result<u64> {
        match self.get(guard, FREE_LIST)? {
            0 => match self.get(guard, HIGH)? {
                high if high < self.capacity => Ok(high),
                high if high == self.capacity => Err(Errno::NOSPC),
                _ => Err(Errno::UCLEAN),
            },
            link => Ok(self.link_of(self.checked_slot(link)?) - 1),
        }
    }

    /// Takes a slot out of the list and puts it among the free ones.
    fn unlink(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        let (next, previous) = (guard.get(slot + NEXT)?, guard.get(slot + PREVIOUS)?);
        let after_previous =
            if previous == 0 { self.base + HEAD } else { self.checked_slot(previous)? + NEXT };
        let before_next = if next == 0 { self.base + TAIL } else { self.checked_slot(next)? + PREVIOUS };
        let link = self.link_of(slot);
        if guard.get(after_previous)? != link || guard.get(before_next)? != link {
            return Err(Errno::UCLEAN);
        }
        guard.set(after_previous, next)?;
        guard.set(before_next, previous)?;
        guard.set(slot + STATE, SLOT_FREE)?;
        let free = self.get(guard, FREE_LIST)?;
        guard.set(slot + NEXT, free)?;
        self.set(guard, FREE_LIST, link)?;
        let sleepers = self.get(guard, SLEEPERS)?;
        self.set(guard, SLEEPERS, sleepers.wrapping_sub(1))?;
        self.turn_epoch(guard)
    }

    fn turn_epoch(&self, guard: &mut Guard<'_>) -> Result<()> {
        let epoch = self.get(guard, EPOCH)?;
        self.set(guard, EPOCH, epoch.wrapping_add(1))
    }
}

/// A slot in the list that belongs to the calling thread. Dropped without having been given up, it is left as the dead
/// leave theirs.
struct Seat<'w, 'a, O: Object> {
    waiters: &'w Waiters<'a, O>,
    slot: usize,
    thread: Thread,
    life: &'a AtomicU32,
    state: &'a AtomicU64,
    linked: Option<Linked>,
}

/// What a sleeper has seen under the lock and goes to sleep on.
struct View<'a> {
    epoch: u64,
    before: Option<(&'a AtomicU32, u32)>,
}

impl<'a, O: Object> Waiters<'a, O> {
    /// Blocks: the operation is in the list, and its result comes by somebody else's hand.
    #[cold]
    fn block(
        &self,
        guard: Guard<'a>,
        thread: Thread,
        request: &Words,
        deadline: Option<Instant>,
    ) -> Result<Words> {
        let mut guard = guard;
        let mut seat = match self.take_seat(&mut guard, thread, request) {
            Ok(seat) => seat,
            Err(errno) => {
                self.leave(guard);
                return Err(errno);
            }
        };
        guard.checkpoint();
        loop {
            let view = seat.view(&guard);
            self.leave(guard);
            let woken = seat.sleep(&view?, deadline);
            if !thread.is_current() {
                seat.linked = None;
                std::mem::forget(seat); // The parent's.
                return Err(Errno::INTR);
            }
            guard = seat.come_back(deadline, woken.is_err())?;
            match guard.get(seat.slot + STATE)? {
                SLEEPING => {
                    let Err(errno) = woken else { continue };
                    self.unlink(&mut guard, seat.slot)?;
                    self.set(&mut guard, DIRTY, 1)?;
                    seat.give_up(&mut guard);
                    let _ = self.serve(&mut guard);
                    self.leave(guard);
                    return Err(errno);
                }
                state if state & 0xff == SERVED => {
                    let words = self.words(&guard, seat.slot)?;
                    self.unlink(&mut guard, seat.slot)?;
                    seat.give_up(&mut guard);
                    self.leave(guard);
                    let errno = (state >> 8) as i32;
                    return if errno == 0 { Ok(words) } else { Err(Errno::from_raw_os_error(errno & 0xfff)) };
                }
                _ => return Err(Errno::UCLEAN),
            }
        }
    }

    fn take_seat<'w>(
        &'w self,
        guard: &mut Guard<'a>,
        thread: Thread,
        request: &Words,
    ) -> Result<Seat<'w, 'a, O>> {
        let index = self.index_for_next(guard)?;
        let slot = self.slot(index);
        if guard.get(slot + STATE)? != SLOT_FREE {
            return Err(Errno::UCLEAN);
        }
        let word = |field: usize| self.segment.word64(slot + field);
        let mut words = *request;
        self.object.enlist(guard, slot + SLOT, &mut words)?;
        for (index, word) in words.iter().enumerate() {
            self.segment.word64(slot + FIRST_WORD + 8 * index)?.store(*word, Ordering::Release);
        }
        word(PROCESS)?.store(u64::from(std::process::id()), Ordering::Release);
        let life = self.segment.word32(slot + LIFE)?;
        life.store(thread.id, Ordering::Release);
        // W3.
        let linked = Some(thread.link(life, word(ENTRY_BEFORE)?, word(ENTRY)?)?);
        let seat = Seat { waiters: self, slot, thread, life, state: word(STATE)?, linked };
        if self.get(guard, FREE_LIST)? == 0 {
            self.set(guard, HIGH, index + 1)?;
        } else {
            let free = guard.get(slot + NEXT)?;
            self.set(guard, FREE_LIST, free)?;
        }
        let tail = self.get(guard, TAIL)?;
        let after_tail = if tail == 0 { self.base + HEAD } else { self.checked_slot(tail)? + NEXT };
        guard.set(after_tail, index + 1)?;
        guard.set(slot + NEXT, 0)?;
        guard.set(slot + PREVIOUS, tail)?;
        self.set(guard, TAIL, index + 1)?;
        let sleepers = self.get(guard, SLEEPERS)?;
        self.set(guard, SLEEPERS, sleepers.wrapping_add(1))?;
        guard.set(slot + STATE, SLEEPING)?;
        self.turn_epoch(guard)?;
        Ok(seat)
    }
}

impl<'a, O: Object> Seat<'_, 'a, O> {
    fn view(&self, guard: &Guard<'_>) -> Result<View<'a>> {
        let waiters = self.waiters;
        let before = match guard.get(self.slot + PREVIOUS)? {
            0 => waiters.get(guard, TAIL)?,
            link => link,
        };
        let before = match waiters.checked_slot(before)? {
            slot if slot == self.slot => None,
            slot => {
                let life = waiters.segment.word32(slot + LIFE)?;
                Some((life, life.load(Ordering::SeqCst)))
            }
        };
        // One who died since this holder entered is one that it has to bury: not to be slept on.
        let before = before.map(|(life, value)| (life, value & !OWNER_DIED));
        Ok(View { epoch: waiters.get(guard, EPOCH)?, before })
    }

    /// Sleeps until there may be something to do under the lock.
    fn sleep(&self, view: &View<'a>, deadline: Option<Instant>) -> Result<()> {
        let waiters = self.waiters;
        let bell = waiters.bell()?;
        let state = waiters.low_half(self.slot + STATE)?;
        let epoch_word = waiters.segment.word64(waiters.base + EPOCH)?;
        let epoch = waiters.low_half(waiters.base + EPOCH)?;
        loop {
            let value = bell.load(Ordering::SeqCst);
            let unchanged = self.state.load(Ordering::SeqCst) == SLEEPING
                && view.before.is_none_or(|(life, value)| life.load(Ordering::SeqCst) == value)
                && epoch_word.load(Ordering::SeqCst) == view.epoch;
            if !unchanged || value & OWNER_DIED != 0 {
                return Ok(());
            }
            // In this order: see the head of the file.
            let (first, last) = ([(state, SLEEPING as u32), (bell, value)], (epoch, view.epoch as u32));
            let slept = match view.before {
                Some(before) => futex_wait_any(&[first[0], first[1], before, last], deadline),
                None => futex_wait_any(&[first[0], first[1], last], deadline),
            };
            // Mostly the lock has been taken or given back between the look and the sleep.
            if slept != Err(Errno::AGAIN) {
                return slept;
            }
        }
    }

    /// Takes the lock again. Without the time for it, or to end the sleep, only for a moment longer than allowed.
    fn come_back(&self, deadline: Option<Instant>, leaving: bool) -> Result<Guard<'a>> {
        let limit =
            if leaving { Some(Instant::now() + GRACE) } else { deadline.map(|deadline| deadline + GRACE) };
        loop {
            match self.waiters.enter(limit) {
                Err(Errno::INTR) if limit.is_some() => {}
                outcome => return outcome,
            }
        }
    }

    /// What was done with the slot counts; it is somebody else's from here on.
    fn give_up(&mut self, guard: &mut Guard<'_>) {
        guard.checkpoint();
        // W3. The lock is still held: nobody has the slot yet.
        self.life.store(0, Ordering::Release);
        self.linked = None;
    }
}

impl<O: Object> Drop for Seat<'_, '_, O> {
    fn drop(&mut self) {
        if self.linked.is_some() {
            let left =
                self.life.compare_exchange(self.thread.id, OWNER_DIED, Ordering::SeqCst, Ordering::SeqCst);
            self.linked = None;
            if left.is_ok() {
                self.waiters.ring_bell();
            }
        }
    }
}
