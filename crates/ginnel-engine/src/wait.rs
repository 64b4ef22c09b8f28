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
//! Where a signal handler is to end an operation whatever its `SA_RESTART` says ([`Object::NEVER_RESTARTED`]), it is seen
//! if it runs while the thread sleeps: a word that the signal's frame overwrites is one of those slept on, see `sentinel`.
//! One that runs while the thread still looks for the change that it awaits, or in the microsecond between its enqueueing and
//! its sleep, was before the sleep and ends nothing: the kernel, where this is one step, ends the call. Nor does one on
//! an alternate stack (`SA_ONSTACK`), or on a processor other than x86-64.

use std::time::{Duration, Instant};

use crate::lock::{Change, Guard, Limit, Lock, Seen, WORD_OFFSET};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, Thread, Watch, futex_wake};
use crate::segment::Segment;
use crate::{Errno, Result, spin};

mod own_order;
mod seat;
mod slots;
mod stake;

pub(crate) use own_order::{Alone, Attempt, Blocked, General, Place, Step};

use slots::{
    DIRTY, FIRST_WORD, HEAD, HEADER, HELD, HELD_BY_PROCESS, HELD_UNWATCHED, LIFE, MEMBERS, NEXT, RUNG,
    SERVED, SLEEPERS, SLEEPING, SLOT, SLOT_FREE, STATE, TICKET, UNWATCHED,
};
pub use stake::{ProcessStake, Stake};

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
/// How many changes of the object an operation sees that do not let it go on, before it sleeps.
const LOOKS_MAX: u32 = 8;

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
    /// Whether a signal handler ends a blocked operation whatever its `SA_RESTART` says, as it ends the kernel's System V
    /// calls (`signal(7)`). Otherwise `SA_RESTART` has it go on.
    const NEVER_RESTARTED: bool = false;

    /// Does the operation and puts what it got into `words`; `false` if it must wait.
    ///
    /// # Errors
    /// The operation ends with this errno, and what it has changed is undone. `EUCLEAN`: the object does not hold what it
    /// must; nobody is served. If it must wait, nothing may have been changed but what changes nothing for anybody.
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool>;

    /// Undoes an operation that was done for a process that died before it could see the result in `words`.
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must.
    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()>;

    /// The calling thread's own operation, which somebody has done for it: it takes what it got, in the same transaction
    /// in which it leaves the list.
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must.
    fn collect(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<()> {
        let _ = (guard, words);
        Ok(())
    }

    /// Whether what the calling thread's own operation got is first to be fetched ([`Object::fetch`]).
    fn is_to_be_fetched(&self, words: &Words) -> bool {
        let _ = words;
        false
    }

    /// Gets, without the lock, what is too much for [`Object::collect`], which comes next. Whoever dies in here is one
    /// who never saw the result.
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must.
    fn fetch(&self, words: &Words) -> Result<()> {
        let _ = words;
        Ok(())
    }

    /// An operation leaves the list without having been done: its process is dead, it gives up, or it ended with an errno.
    /// Gives back what was put aside for it when it was enqueued ([`Waiters::run_own`]).
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must.
    fn abandon(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        let _ = (guard, words);
        Ok(())
    }

    /// What an operation that is about to be blocked leaves for those who will serve it: `words` as they are to see them,
    /// and what [`Waiters::with_room`] has set aside at `room`, to be written without the journal. It was attempted last
    /// by this holder of the lock. What it changes is committed with the enqueueing; [`Object::abandon`] undoes it.
    ///
    /// # Errors
    /// The operation is not blocked, and ends with this errno.
    fn enlist(&self, _guard: &mut Guard<'_>, _room: usize, _words: &mut Words) -> Result<()> {
        Ok(())
    }

    /// Serves those who can go on since the object has changed: those who came first before others, unless the object
    /// knows better.
    ///
    /// # Errors
    /// `EUCLEAN`: the segment does not hold what it must.
    fn serve(&self, guard: &mut Guard<'_>, waiters: &Waiters<'_, Self>) -> Result<()>
    where
        Self: Sized,
    {
        waiters.serve_in_order(guard)
    }

    /// What change lets this operation go on, for looking before it sleeps; see [`Guard::makes`].
    #[inline]
    fn awaits(&self, words: &Words) -> Change {
        let _ = words;
        Change::Any
    }

    /// An operation is about to be attempted that may have to fetch the object from another processor: says what it will
    /// need, with [`Segment::prefetch`].
    #[inline]
    fn approach(&self, segment: &Segment) {
        let _ = segment;
    }

    /// Gives back what somebody held who died ([`Waiters::stake`], [`Waiters::stake_of_process`]). May commit a part
    /// ([`Guard::checkpoint`]) if what is left can be given back by another call with the same words.
    ///
    /// # Errors
    /// `EUCLEAN`: the object does not hold what it must; also if nobody can hold anything of it.
    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        let _ = (guard, words);
        Err(Errno::UCLEAN)
    }
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
    /// Not at all. If whoever has the object's lock was stopped with it, so that nobody has given it back for a second, the
    /// operation ends as if it had to wait.
    None,
    /// Until then.
    Until(Instant),
    /// For ever.
    Endless,
}

impl Patience {
    pub(crate) fn deadline(self) -> Option<Instant> {
        if let Patience::Until(deadline) = self { Some(deadline) } else { None }
    }

    /// For how long to wait for the lock.
    #[inline]
    pub(crate) fn limit(self) -> Limit {
        match self {
            Patience::None => Limit::WhileItMoves,
            Patience::Until(deadline) => Limit::Until(deadline),
            Patience::Endless => Limit::Endless,
        }
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
    header: &'a [AtomicU64; HEADER / 8],
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

    /// The blocked operations of `object`, `capacity` at most, at `base` in its segment.
    ///
    /// # Errors
    /// `EINVAL`: the place is not aligned to 64 bytes. `EUCLEAN`: it is not in the segment.
    #[inline]
    pub fn of(segment: &'a Segment, base: usize, capacity: u32, object: &'a O) -> Result<Waiters<'a, O>> {
        if !base.is_multiple_of(64) {
            return Err(Errno::INVAL);
        }
        let header = segment.words(base)?;
        Ok(Waiters { segment, header, base, capacity: u64::from(capacity), stride: SLOT, object })
    }

    /// As [`Waiters::of`], with `room` bytes of the object's own in each slot.
    ///
    /// # Errors
    /// `EINVAL`: not aligned to 64 bytes. `EUCLEAN`: it is not in the segment.
    #[inline]
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

    /// How many operations are blocked, or were and have not returned yet, and how many stakes there are.
    ///
    /// # Errors
    /// `EUCLEAN`.
    pub fn members(&self, guard: &Guard<'_>) -> Result<u64> {
        self.get(guard, MEMBERS)
    }

    /// Does an operation, blocked for as long as patience allows: what it got.
    ///
    /// # Errors
    /// `EAGAIN`: it cannot be done now ([`Patience::None`]). `ETIMEDOUT`. `EINTR`: a signal handler ran. `ENOSPC`: as many
    /// are blocked as may be, or the file system is full. `EUCLEAN`: the segment does not hold what it must.
    /// `EOPNOTSUPP`: this thread's C library would not let its death be told. `EDEADLK`: a signal handler came upon the lock of
    /// its own thread. Those of the object. In each case nothing was done.
    #[inline(always)]
    pub fn run(&self, request: Words, patience: Patience) -> Result<Words> {
        self.run_own(request, patience, |guard, words| self.object.attempt(guard, words))
    }

    /// As [`Waiters::run`], with another way for the caller itself to attempt it first: it has its buffers at hand. What
    /// it changes before it must wait, in the object and in `words`, is committed with its enqueueing; whoever serves it
    /// later finds these words, and [`Object::abandon`] undoes it. It may be attempted several times, each time with the
    /// words as it left them, and the object as if it had not been.
    ///
    /// # Errors
    /// As [`Waiters::run`].
    #[inline(always)]
    pub fn run_own(
        &self,
        request: Words,
        patience: Patience,
        attempt: impl FnMut(&mut Guard<'a>, &mut Words) -> Result<bool>,
    ) -> Result<Words> {
        let mut words = request;
        self.run_in_place(&mut words, patience, attempt)?;
        Ok(words)
    }

    /// [`Waiters::run_own`] where the words are: on the short way they are not copied.
    ///
    /// # Errors
    /// As [`Waiters::run`].
    #[inline]
    pub fn run_in_place(
        &self,
        words: &mut Words,
        patience: Patience,
        mut attempt: impl FnMut(&mut Guard<'a>, &mut Words) -> Result<bool>,
    ) -> Result<()> {
        let thread = Thread::current();
        let lock = Lock::of(self.segment);
        let expected = spin::expected();
        let mut seen = None;
        if expected != 0 && patience != Patience::None {
            seen = lock.look_ahead(expected, self.object.awaits(words));
            self.approach();
        }
        let before = lock.take_word(thread, patience.limit(), seen.is_some())?;
        let mut guard = Guard::holding(self.segment, thread, before);
        if let Some(seen) = seen {
            lock.learn(seen);
        }
        if !self.is_alone() {
            let _bell = guard.release_with_fence();
            return self.run_among_others(thread, words, patience, None, LOOKS_MAX, &mut attempt);
        }
        // Nobody to hear of this one's death, and nobody to serve.
        match attempt(&mut guard, words) {
            Ok(true) => {
                guard.checkpoint();
                return Ok(());
            }
            Ok(false) if patience != Patience::None => {}
            Ok(false) => return Err(Errno::AGAIN),
            Err(errno) => return Err(errno),
        }
        let version = lock.version(self.object.awaits(words));
        drop(guard);
        self.run_among_others(thread, words, patience, Some(version), LOOKS_MAX, &mut attempt)
    }

    /// [`Waiters::run_in_place`] for what [`Place::run_alone`] has left.
    pub(crate) fn run_on(
        &self,
        how: General,
        words: &mut Words,
        patience: Patience,
        mut attempt: impl FnMut(&mut Guard<'a>, &mut Words) -> Result<bool>,
    ) -> Result<()> {
        let looks = if how.has_looked { 0 } else { LOOKS_MAX };
        self.run_among_others(Thread::current(), words, patience, None, looks, &mut attempt)
    }

    fn approach(&self) {
        Lock::of(self.segment).approach();
        self.object.approach(self.segment);
    }

    #[cold]
    #[inline(never)]
    fn run_among_others(
        &self,
        thread: Thread,
        words: &mut Words,
        patience: Patience,
        version: Option<u32>,
        looks: u32,
        attempt: &mut impl FnMut(&mut Guard<'a>, &mut Words) -> Result<bool>,
    ) -> Result<()> {
        let _bell = Watch::on(thread, self.bell()?);
        let mut looks = if patience == Patience::None { 0 } else { looks };
        let mut seen = version.and_then(|version| self.look(words, version, patience, &mut looks));
        loop {
            let mut guard = self.enter_as(thread, patience.limit())?;
            if let Some(seen) = seen.take() {
                Lock::of(self.segment).learn(seen);
            }
            match attempt(&mut guard, words) {
                Ok(true) => return self.serve_others(guard),
                Ok(false) if patience != Patience::None => {}
                otherwise => {
                    self.leave(guard);
                    return Err(otherwise.err().unwrap_or(Errno::AGAIN));
                }
            }
            if looks > 0 {
                let version = Lock::of(self.segment).version(self.object.awaits(words));
                self.leave(guard);
                seen = self.look(words, version, patience, &mut looks);
                continue;
            }
            match self.has_room(&guard) {
                Ok(true) => {
                    *words = self.block(guard, thread, words, patience.deadline())?;
                    return Ok(());
                }
                Ok(false) => {
                    // Without the lock: others may change the object meanwhile, so it is attempted again.
                    self.leave(guard);
                    self.make_room(patience)?;
                }
                Err(errno) => {
                    self.leave(guard);
                    return Err(errno);
                }
            }
        }
    }

    /// Looks for the change that would let an operation go on, and counts how often to look again.
    fn look(&self, words: &Words, version: u32, patience: Patience, looks: &mut u32) -> Option<Seen> {
        let change = self.object.awaits(words);
        let seen = Lock::of(self.segment).look_for(change, version, patience.deadline());
        match seen {
            Some(_) => {
                self.approach();
                *looks = looks.saturating_sub(1);
            }
            None => *looks = 0,
        }
        seen
    }

    /// Whether there are neither sleepers nor stakes nor anything left to do. For the holder of the lock.
    #[inline]
    fn is_alone(&self) -> bool {
        let word = |field: usize| self.header[field / 8].load(Ordering::Relaxed);
        word(MEMBERS) | word(DIRTY) == 0
    }

    /// The lock, with all done that others left to do: for looking at the object. Give it back with [`Waiters::leave`].
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn enter(&self, deadline: Option<Instant>) -> Result<Guard<'a>> {
        self.enter_as(Thread::current(), deadline.into())
    }

    /// As [`Waiters::enter`], for an operation with this patience.
    pub(crate) fn enter_with(&self, patience: Patience) -> Result<Guard<'a>> {
        self.enter_as(Thread::current(), patience.limit())
    }

    /// A transaction that neither serves nor waits: what `look` has changed counts if it succeeds.
    ///
    /// # Errors
    /// As [`Lock::acquire`], and those of `look`.
    pub(crate) fn with_lock<T>(
        &self,
        patience: Patience,
        look: impl FnOnce(&mut Guard<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut guard = self.enter_with(patience)?;
        let outcome = look(&mut guard);
        if outcome.is_ok() {
            guard.checkpoint();
        }
        self.leave(guard);
        outcome
    }

    #[inline]
    fn enter_as(&self, thread: Thread, limit: Limit) -> Result<Guard<'a>> {
        let guard = Lock::of(self.segment).acquire_as(thread, limit)?;
        if self.is_alone() { Ok(guard) } else { self.settle(guard, limit) }
    }

    /// Does what others left to do: for the dead, and for those whose processes are found gone.
    fn settle(&self, guard: Guard<'a>, limit: Limit) -> Result<Guard<'a>> {
        let mut guard = guard;
        self.keep_house(&mut guard)?;
        if self.get(&guard, UNWATCHED)? == 0 {
            return Ok(guard);
        }
        for _ in 0..=self.capacity {
            // Asking takes system calls. Who was served just now is not rung yet: the kernel tells if this thread dies here.
            let bell = guard.release_with_fence();
            let gone = self.gone()?;
            guard = Lock::of(self.segment).acquire_as(Thread::current(), limit)?;
            guard.instead_of(bell);
            self.keep_house(&mut guard)?;
            for (slot, process) in gone.into_iter().flatten() {
                if guard.get(slot + STATE)? == HELD_UNWATCHED && self.holder(slot)? == process {
                    self.forfeit(&mut guard, slot)?;
                    self.set(&mut guard, DIRTY, 1)?;
                    guard.checkpoint();
                }
            }
            // There may be more than are asked for at once.
            if gone.contains(&None) {
                break;
            }
        }
        if self.get(&guard, DIRTY)? != 0 {
            self.serve(&mut guard)?;
        }
        Ok(guard)
    }

    /// Gives the lock back, undoing what was not committed, and wakes whom it must.
    pub fn leave(&self, guard: Guard<'a>) {
        let mut guard = guard;
        // Each turn removes the dead it has seen; there are no more than slots unless somebody scribbles.
        for _ in 0..=self.capacity {
            if matches!(self.get(&guard, SLEEPERS), Ok(0)) {
                return;
            }
            let bell = guard.release_with_fence();
            if !self.look_round().unwrap_or(false) {
                return;
            }
            guard = match self.enter(Some(Instant::now() + GRACE)) {
                Ok(guard) => guard,
                Err(_) => return self.ring_bell(),
            };
            guard.instead_of(bell);
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
    pub fn serve_others(&self, mut guard: Guard<'a>) -> Result<()> {
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
    fn keep_house(&self, guard: &mut Guard<'_>) -> Result<()> {
        for index in 0..self.high()? {
            let slot = self.slot(index);
            if self.is_dead(slot)? {
                self.bury(guard, slot)?;
            }
        }
        if self.get(guard, DIRTY)? != 0 { self.serve(guard) } else { Ok(()) }
    }

    fn bury(&self, guard: &mut Guard<'_>, slot: usize) -> Result<()> {
        match guard.get(slot + STATE)? {
            SLOT_FREE | HELD_UNWATCHED => {}
            HELD_BY_PROCESS => self.unwatch(guard, slot)?,
            state => {
                match state {
                    SERVED => {
                        let words = self.words(guard, slot)?;
                        self.object.take_back(guard, &words)?;
                        self.unlink(guard, slot)?;
                    }
                    HELD => self.forfeit(guard, slot)?,
                    _ => {
                        let words = self.words(guard, slot)?;
                        self.object.abandon(guard, &words)?;
                        self.unlink(guard, slot)?;
                    }
                }
                self.set(guard, DIRTY, 1)?;
                guard.checkpoint();
            }
        }
        self.segment.word32(slot + LIFE)?.store(0, Ordering::Release);
        Ok(())
    }

    fn serve(&self, guard: &mut Guard<'_>) -> Result<()> {
        self.object.serve(guard, self)?;
        self.set(guard, DIRTY, 0)?;
        guard.checkpoint();
        Ok(())
    }

    /// Serves all who can be, from the first again after each: what one got may let an earlier one go on.
    pub(crate) fn serve_in_order(&self, guard: &mut Guard<'_>) -> Result<()> {
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

    fn serve_one(&self, guard: &mut Guard<'_>, slot: usize) -> Result<bool> {
        let request = self.words(guard, slot)?;
        let mut words = request;
        let mark = guard.mark();
        let state = match self.object.attempt(guard, &mut words) {
            Ok(true) => SERVED,
            Ok(false) => return Ok(false),
            Err(Errno::UCLEAN) => return Err(Errno::UCLEAN),
            Err(errno) => {
                // What it had changed by then is not to count.
                guard.undo_to(mark)?;
                SERVED | (errno.raw_os_error() as u64) << 8
            }
        };
        for (index, (new, old)) in words.iter().zip(request).enumerate() {
            if *new != old {
                guard.set(slot + FIRST_WORD + 8 * index, *new)?;
            }
        }
        self.mark_served(guard, slot, state)?;
        Ok(true)
    }

    fn mark_served(&self, guard: &mut Guard<'_>, slot: usize, state: u64) -> Result<()> {
        // W2.
        self.turn_ticket(slot)?;
        guard.set(slot + STATE, state)?;
        guard.checkpoint();
        Ok(())
    }

    /// Without the lock: rings each slot that was served, or is to look again, and was not rung for it. Whether a dead
    /// sleeper or stake was seen.
    fn look_round(&self) -> Result<bool> {
        let mut dead = false;
        for index in 0..self.high()? {
            let slot = self.slot(index);
            dead |= self.is_dead(slot)?;
            // W2.
            let ticket = self.segment.word64(slot + TICKET)?.load(Ordering::Acquire);
            let state = self.segment.word64(slot + STATE)?.load(Ordering::Acquire) & 0xff;
            if state == SLEEPING && self.is_touched(slot)? {
                futex_wake(self.low_half(slot + STATE)?, 1);
            } else if state == SERVED {
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
}
