//! An object's lock, and the journal that makes what is done under it whole or undone: `futex(2)`.
//!
//! # What a user of it sees
//! [`Lock::acquire`] gives a [`Guard`]. Changes go through [`Guard::set`] and count from [`Guard::commit`] on, all of them
//! or, when the process is killed before or the guard is dropped, none. A holder that dies keeps nobody waiting.
//!
//! # How it works inside
//! The lock's word is 0, or the holder's thread id with `WAITERS`. A thread that wants it first tells the kernel which
//! word to look at should it die (see `primitive`), then exchanges 0 for its id. Who finds it taken spins for a moment,
//! counts itself in `arrivals`, and sleeps on two words at once: `turn`, which who gives the lock back moves on and wakes,
//! and the lock's own word, on which only deaths are told. (Those whose operation is blocked sleep on the lock's word
//! too, see `wait`: hence a `turn` of its own, so that giving the lock back wakes one who wants the lock.)
//!
//! # Two at once
//! An operation takes a fraction of what it takes to fetch its cache lines from another processor. So two that use an
//! object at once are fastest if each does many operations in a row. Who finds the lock taken, and lately found it taken
//! again and again, *keeps off* first: it does not look at the lock's line for some microseconds, more of them the more
//! often this was to no avail (see `spin`). Then it sets `wanted`; who gives the lock back and sees that leaves it alone
//! for a moment, which lets the other in. What stands in `wanted` is a hint, and costs a moment at most.
//!
//! A thread that has just seen the change that it was waiting for does not keep off here: whoever made the change is about
//! to give the lock back. If it sees later that there were several changes in a row by the time it had the lock, it
//! keeps off when it sees the next, and finds several at once.
//!
//! # Who is told
//! `WAITERS` always stands in a taken word, since all it says is that the kernel is to wake somebody when the holder
//! dies; set only when somebody sleeps, there would be a moment in which a holder dies unheard.
//!
//! Whether to wake is told by `arrivals != cleared`. `cleared` follows only when a wake has found nobody asleep, so a
//! sleeper that dies with the wake meant for another leaves the next holder no less inclined to wake.
//!
//! Before a word changes, its place and its old value are written to the journal and the journal's count is raised. To
//! commit is to set the count to 0. Who takes the lock from a dead holder puts the old values back, last first.
//!
//! # Barriers
//! All stores are `Release` and the lock is taken with `Acquire`: a reader of the journal after a death sees the stores
//! of the dead in their order, up to the one at which it died.
//! - **J1** the entry before the count that covers it ([`Guard::set`]); **J2** the count before the word it speaks of;
//!   **J3** all words before the count is 0 ([`Guard::commit`]); **J4** the count before the lock is given back.
//! - **L1** who sleeps reads `turn`, then counts itself, then has every thread that may be giving a lock back pass a fence
//!   (`membarrier(2)`), then looks at the word; **L2** who gives back frees the word, then reads `arrivals`, then moves
//!   `turn`, then wakes. The fence stands for one between the freeing and the reading, which would cost more than all
//!   else here. So either the arrival is seen or the free word is; and if a wake finds nobody, each arrival that was
//!   seen finds `turn` moved and looks again.
//!
//! # Crash points
//! | killed | the kernel finds | what the next holder does |
//! | --- | --- | --- |
//! | before the exchange that takes it | another id; or 0: wakes one sleeper, who takes it | nothing |
//! | asleep or woken | another id, whose holder wakes the next: `arrivals` still says so; or 0: as above | nothing |
//! | while holding it | the dead one's id: marks it, wakes one | undoes the journal |
//! | in the middle of undoing | as above | undoes it again from the start: old values are old values |
//! | after the exchange that frees it, before the wake | 0: wakes one; another id: its holder wakes | nothing |
//!
//! # A word that cannot be true
//! A word that names no living thread, and that the kernel has not marked, was written by somebody who may not hold
//! locks, or by a thread whose list the kernel did not see. It is taken over like a dead one's.
//!
//! # A journal that cannot be true
//! It was scribbled over, and what was begun can be neither undone nor finished: the object is not whole, and nobody can make
//! it so. Who finds that gets `EUCLEAN` and leaves the lock as a dead holder's, so that everybody else finds it too, from
//! then on; those who sleep are woken to be told. To go on with half an operation done would be to hand out a message twice,
//! or a unit that nobody gave. What can still be done with the object is to remove it.

use std::time::{Duration, Instant};

use crate::primitive::{
    AtomicU32, AtomicU64, OWNER, OWNER_DIED, Ordering, Thread, WAITERS, Watch, compiler_fence, fence_all,
    futex_wait_any_heeding, futex_wake, thread_exists,
};
use crate::segment::{HEADER_BYTES, JOURNAL_OFFSET, Segment};
use crate::spin;
use crate::{Errno, Result};

pub(crate) const WORD_OFFSET: usize = 0x40;
const TURN_OFFSET: usize = 0x44;
const ARRIVALS_OFFSET: usize = 0x48;
const CLEARED_OFFSET: usize = 0x50;
const JOURNAL_COUNT_OFFSET: usize = 0x58;
const WANTED_OFFSET: usize = 0x60;
/// A line each: who spins for a change reads it all the time.
const MORE_OFFSET: usize = 0x80;
const LESS_OFFSET: usize = 0xc0;
/// How many words one operation on an object in a file may change: see [`Segment::changes_max`].
pub const CHANGES_MAX: usize = (HEADER_BYTES - 0x100) / 16;

/// For how many pauses a taken lock is looked at before sleeping: about ten microseconds.
const PAUSES: u32 = if cfg!(ginnel_model) { 1 } else { 400 };
/// For how many it may be that it is just about to be given back, and nobody is asked for it.
const PAUSES_SHORT: u32 = 4;
/// For how many it is looked at without a break: longer than it takes to be let in.
const PAUSES_CLOSE: u32 = 48;
/// How many at a time from then on.
const PAUSE_LONG: u32 = 16;
/// For how many pauses who gives it back lets another in.
const LET_IN: u32 = if cfg!(ginnel_model) { 1 } else { 8 };

/// How long to sleep before asking whether the holder is alive at all. Death itself wakes at once: this is for a word
/// that names nobody, and long enough for a wake that got lost to be seen in a test.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How often in a row to look again, and find that nobody has given it back, until [`Limit::WhileItMoves`] is reached.
const LOOKS_STUCK: u32 = 10;
/// In how many sleeps a signal handler's run is no reason to give up.
const SLEEPS_FIRM: u32 = 8;

/// The lock of a segment.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::lock::Lock;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// let segment = Segment::create(&directory, c"accounts", mode, 1 << 20, |_| Ok(()))?;
/// let (from, to) = (HEADER_BYTES, HEADER_BYTES + 8);
///
/// let mut guard = Lock::of(&segment).acquire(None)?;
/// guard.set(from, guard.get(from)?.wrapping_sub(5))?;
/// guard.set(to, guard.get(to)? + 5)?;
/// guard.commit();
///
/// let mut guard = Lock::of(&segment).acquire(None)?;
/// guard.set(to, 1000)?;
/// drop(guard); // not committed: undone
/// assert_eq!(Lock::of(&segment).acquire(None)?.get(to)?, 5);
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a> {
    segment: &'a Segment,
}

/// The lock, held. Dropping it undoes what was not committed and gives the lock back.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::lock::Lock;
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
///
/// # let directory = rustix::fs::open("/dev/shm", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
/// # let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
/// # let segment = Segment::create(&directory, c"example", mode, 1 << 20, |_| Ok(()))?;
/// let mut guard = Lock::of(&segment).acquire(None)?;
/// guard.set(HEADER_BYTES, 7)?;
/// assert_eq!(guard.get(HEADER_BYTES)?, 7, "its holder sees it already");
/// drop(guard);
/// assert_eq!(Lock::of(&segment).acquire(None)?.get(HEADER_BYTES)?, 0, "and it was never there");
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Debug)]
pub struct Guard<'a> {
    segment: &'a Segment,
    thread: Thread,
    /// What the kernel would have looked at but for this lock.
    before: *const u8,
    /// How many journal entries this holder has written: the segment's own count is for the next one.
    changes: usize,
    change: Change,
    /// Whether the object goes to and fro between this holder's CPU and another's.
    pub(crate) crosses: bool,
}

/// A change of an object that was seen without the lock.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    change: Change,
    version: u32,
}

/// What an operation does to an object, for those who look for it before they sleep.
///
/// ```
/// use ginnel_engine::lock::Change;
///
/// let (sent, received) = (Change::More, Change::Less);
/// assert_ne!(sent, received);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is more in it: messages, units.
    More,
    /// There is less in it: more room.
    Less,
    /// One, or the other, or something else.
    Any,
}

/// For how long to wait for a lock.
///
/// # Who has no time at all
/// An operation that must not block waits for the lock too: it is held for a microsecond, and to say `EAGAIN` because somebody
/// is in there would be false. But a holder that was stopped (`SIGSTOP`, a debugger) may hold it for ever, and a call that
/// never blocks, in the middle of an event loop, must not hang with it. So it waits while the lock *moves*: only when for ten
/// looks in a row, a second in all, nobody has given it back is the answer `EAGAIN`. The operation cannot be done
/// now, which is true; nobody is taken for dead. Looks are counted, and not the time, since the caller may have been stopped
/// itself. The kernel knows no such case: nobody is stopped inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Endless,
    Until(Instant),
    WhileItMoves,
}

impl From<Option<Instant>> for Limit {
    #[inline]
    fn from(deadline: Option<Instant>) -> Limit {
        deadline.map_or(Limit::Endless, Limit::Until)
    }
}

thread_local! {
    /// Which signal handlers have run while this thread slept for a lock, and it went on.
    static INTERRUPTED: std::cell::Cell<Handlers> =
        const { std::cell::Cell::new(Handlers { any: false, without_restart: false }) };
}

/// Whether signal handlers have run: any at all, as far as it can be told, and one without `SA_RESTART`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handlers {
    pub(crate) any: bool,
    pub(crate) without_restart: bool,
}

/// The signal handlers that have run, since this was last asked, while this thread slept for a lock that it then waited
/// on for.
pub(crate) fn interrupted_by() -> Handlers {
    INTERRUPTED.take()
}

fn note_handler(without_restart: bool) {
    let before = INTERRUPTED.get();
    INTERRUPTED.set(Handlers { any: true, without_restart: without_restart | before.without_restart });
}

impl<'a> Lock<'a> {
    /// The lock of this segment.
    pub fn of(segment: &'a Segment) -> Lock<'a> {
        Lock { segment }
    }

    /// A number that changes with each such change of the object.
    #[inline]
    pub(crate) fn version(self, change: Change) -> u32 {
        let word = |offset: usize| self.segment.header32(offset).load(Ordering::Acquire);
        match change {
            Change::More => word(MORE_OFFSET),
            Change::Less => word(LESS_OFFSET),
            Change::Any => word(MORE_OFFSET).wrapping_add(word(LESS_OFFSET)),
        }
    }

    /// Looks, without the lock, for such a change since `version`, for a moment at most: the one that there was.
    pub(crate) fn look_for(self, change: Change, version: u32, deadline: Option<Instant>) -> Option<Seen> {
        let mut seen = version;
        let found = spin::look_for(change as usize, deadline, || {
            seen = self.version(change);
            seen != version
        });
        found.then(|| self.saw(change, seen))
    }

    /// Somebody has changed the object: lets that one go on if it does so again and again.
    fn saw(self, change: Change, version: u32) -> Seen {
        spin::keep_off(change as usize);
        Seen { change, version }
    }

    /// For the holder of the lock, which has seen a change before it took it: whether there were more of them since.
    #[inline]
    pub(crate) fn learn(self, seen: Seen) {
        spin::learn(seen.change as usize, self.version(seen.change).wrapping_sub(seen.version));
    }

    /// As [`Lock::look_for`], and only if this thread's last operations had to wait like this ([`spin::expected`]): it will
    /// again, and who makes the change need not fight for the lock with one who cannot go on yet.
    #[inline]
    pub(crate) fn look_ahead(self, expected: u32, change: Change) -> Option<Seen> {
        if !spin::is_among(expected, change as usize) {
            return None;
        }
        let version = self.version(change);
        let mut seen = version;
        let found = spin::look_ahead(change as usize, || {
            seen = self.version(change);
            seen != version
        });
        found.then(|| self.saw(change, seen))
    }

    /// Has the processor fetch what the next operation needs.
    pub(crate) fn approach(self) {
        self.segment.prefetch(WORD_OFFSET);
        self.segment.prefetch(JOURNAL_OFFSET);
    }

    /// Takes the lock, and undoes what a dead holder began.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; whoever holds the lock has been stopped. `EINTR`: a signal handler ran while
    /// this thread slept. `EDEADLK`: this thread holds it: this is a signal handler that has come in between, or that left
    /// with `longjmp`. `EUCLEAN`: the journal does not hold what it must.
    #[inline]
    pub fn acquire(self, deadline: Option<Instant>) -> Result<Guard<'a>> {
        self.acquire_as(Thread::current(), deadline.into())
    }

    /// [`Lock::acquire`] for who knows itself already.
    #[inline]
    pub(crate) fn acquire_as(self, thread: Thread, limit: Limit) -> Result<Guard<'a>> {
        let before = self.take_word(thread, limit, false)?;
        Ok(Guard::holding(self.segment, thread, before))
    }

    /// The first half of [`Lock::acquire_as`]; the other is [`Guard::holding`]. `keen`: what this thread waited for has just
    /// come. In two halves, no guard is moved about in
    /// a `Result`, which costs a third of all that an operation costs.
    #[inline]
    pub(crate) fn take_word(self, thread: Thread, limit: Limit, keen: bool) -> Result<*const u8> {
        let word = self.segment.header32(WORD_OFFSET);
        let before = thread.remember(word);
        if word.compare_exchange(0, thread.id() | WAITERS, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.take(thread, before, limit, keen)?;
        }
        Ok(before)
    }

    /// Takes the lock from a holder, living or dead.
    #[cold]
    #[inline(never)]
    fn take(self, thread: Thread, before: *const u8, limit: Limit, keen: bool) -> Result<()> {
        let taken = self.wait_and_take(thread, limit, keen);
        if taken.is_err() {
            thread.forget(before);
            return taken;
        }
        let guard = std::mem::ManuallyDrop::new(Guard::holding(self.segment, thread, before));
        let recovered = guard.recover();
        if recovered.is_err() {
            guard.condemn();
        }
        recovered
    }

    fn wait_and_take(self, thread: Thread, limit: Limit, keen: bool) -> Result<()> {
        let word = self.segment.header32(WORD_OFFSET);
        if is_held_by(word.load(Ordering::Relaxed), thread) {
            return Err(Errno::DEADLK);
        }
        let turn = self.segment.header32(TURN_OFFSET);
        let arrivals = self.segment.header64(ARRIVALS_OFFSET);
        let wanted = self.segment.header32(WANTED_OFFSET);
        let has_kept_off = !keen && spin::keep_off_lock();
        let mut pauses = if has_kept_off { PAUSES_SHORT } else { 0 };
        let mut sleeps = 0;
        // What the lock was like when it was first found like this, and how often since.
        let mut stuck = ((0, 0), 0);
        let deadline = if let Limit::Until(deadline) = limit { Some(deadline) } else { None };
        loop {
            let value = word.load(Ordering::Relaxed);
            if is_free(value) {
                let taken = thread.id() | WAITERS;
                if word.compare_exchange(value, taken, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    spin::took_lock(keen, pauses > PAUSES_SHORT);
                    return Ok(());
                }
                continue;
            }
            if pauses < PAUSES {
                if pauses >= PAUSES_SHORT && wanted.load(Ordering::Relaxed) == 0 {
                    wanted.store(1, Ordering::Relaxed);
                }
                let pause = if pauses < PAUSES_CLOSE { 1 } else { PAUSE_LONG };
                for _ in 0..pause {
                    std::hint::spin_loop();
                }
                pauses += pause;
                continue;
            }
            if !thread_exists(value & OWNER) {
                // Marked as the kernel would have: taken over in the next turn, by whoever is first.
                let marked = WAITERS | OWNER_DIED;
                let _ = word.compare_exchange(value, marked, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            }
            // L1.
            let seen = turn.load(Ordering::SeqCst);
            arrivals.fetch_add(1, Ordering::SeqCst);
            fence_all();
            let value = word.load(Ordering::SeqCst);
            if !is_free(value) {
                match sleep(&[(turn, seen), (word, value)], deadline) {
                    // Not to wait for the operation, but for the lock: that is nothing to be interrupted, unless its
                    // holder has been stopped. Who is blocked in an operation asks afterwards.
                    Err(Errno::INTR) if sleeps < SLEEPS_FIRM => note_handler(true),
                    Ok(Slept::InVain) if stuck.0 == (seen, value) => stuck.1 += 1,
                    Ok(Slept::InVain) => stuck = ((seen, value), 1),
                    Ok(Slept::Woken) => stuck.1 = 0,
                    Err(errno) => return Err(errno),
                }
                if matches!(limit, Limit::WhileItMoves) && stuck.1 >= LOOKS_STUCK {
                    return Err(Errno::AGAIN);
                }
                sleeps += 1;
            }
        }
    }
}

/// Whether a lock's word may be exchanged for one's own.
#[inline]
fn is_free(value: u32) -> bool {
    value & OWNER == 0 || value & OWNER_DIED != 0
}

/// Whether a thread comes upon its own lock: in a signal handler, say.
#[inline]
fn is_held_by(value: u32, thread: Thread) -> bool {
    value & OWNER == thread.id() && value & OWNER_DIED == 0
}

/// How a sleep has ended.
enum Slept {
    /// A word has changed.
    Woken,
    /// It is time to look again.
    InVain,
}

/// Sleeps until a word changes, until it is time to look again, or until the deadline, which is an error.
fn sleep(words: &[(&AtomicU32, u32)], deadline: Option<Instant>) -> Result<Slept> {
    let now = Instant::now();
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Err(Errno::TIMEDOUT);
    }
    let look = now + ASK_AGAIN;
    let limit = deadline.map_or(look, |deadline| deadline.min(look));
    let outcome = loop {
        let (outcome, has_handled) = futex_wait_any_heeding(words, Some(limit));
        if has_handled && outcome != Err(Errno::INTR) {
            note_handler(false);
        }
        // The handler may be all that there was: no word has changed then, and it sleeps on.
        if !(has_handled && outcome == Err(Errno::AGAIN)) {
            break outcome;
        }
    };
    match outcome {
        Err(Errno::TIMEDOUT) => Ok(Slept::InVain),
        Err(Errno::AGAIN) | Ok(()) => Ok(Slept::Woken),
        Err(errno) => Err(errno),
    }
}

impl<'a> Guard<'a> {
    /// For who has taken the lock's word, and was given `before` by it.
    #[inline]
    pub(crate) fn holding(segment: &'a Segment, thread: Thread, before: *const u8) -> Guard<'a> {
        Guard { segment, thread, before, changes: 0, change: Change::Any, crosses: false }
    }
}

impl Guard<'_> {
    /// A word of the object.
    ///
    /// # Errors
    /// `EUCLEAN`: the offset is not in the segment, or not aligned.
    #[inline]
    pub fn get(&self, offset: usize) -> Result<u64> {
        Ok(self.segment.word64(offset)?.load(Ordering::Relaxed))
    }

    /// Changes a word of the object, until [`Guard::commit`] on probation.
    ///
    /// # Errors
    /// `EUCLEAN`: the offset is not in the segment, not aligned, or in the header. `E2BIG`: more than
    /// [`Segment::changes_max`] changes.
    #[inline]
    pub fn set(&mut self, offset: usize, value: u64) -> Result<()> {
        if offset < self.segment.header_bytes() {
            return Err(Errno::UCLEAN);
        }
        if self.changes == self.segment.changes_max() {
            return Err(Errno::TOOBIG);
        }
        let word = self.segment.word64(offset)?;
        let (place, old) = self.segment.journal_entry(self.changes);
        place.store(offset as u64, Ordering::Release);
        old.store(word.load(Ordering::Relaxed), Ordering::Release);
        self.changes += 1;
        // J1 above, J2 below.
        self.segment.header64(JOURNAL_COUNT_OFFSET).store(self.changes as u64, Ordering::Release);
        word.store(value, Ordering::Release);
        Ok(())
    }

    /// [`Guard::set`], for who has the word at hand and has read it.
    ///
    /// # Errors
    /// As [`Guard::set`].
    #[inline(always)]
    pub(crate) fn change(&mut self, word: &AtomicU64, old: u64, value: u64) -> Result<()> {
        let offset = self.segment.offset_of(word);
        if offset < self.segment.header_bytes() {
            return Err(Errno::UCLEAN);
        }
        if self.changes == self.segment.changes_max() {
            return Err(Errno::TOOBIG);
        }
        let entry = self.segment.journal_entry(self.changes);
        entry.0.store(offset as u64, Ordering::Release);
        entry.1.store(old, Ordering::Release);
        self.changes += 1;
        // J1 above, J2 below.
        self.segment.header64(JOURNAL_COUNT_OFFSET).store(self.changes as u64, Ordering::Release);
        word.store(value, Ordering::Release);
        Ok(())
    }

    /// [`Guard::change`] of several different words.
    ///
    /// # Errors
    /// As [`Guard::set`]. Nothing has been changed then.
    #[inline(always)]
    pub(crate) fn change_all<const COUNT: usize>(
        &mut self,
        changes: [(&AtomicU64, u64, u64); COUNT],
    ) -> Result<()> {
        if self.changes + COUNT > self.segment.changes_max() {
            return Err(Errno::TOOBIG);
        }
        for (index, (word, old, _)) in changes.iter().enumerate() {
            let offset = self.segment.offset_of(word);
            if offset < self.segment.header_bytes() {
                return Err(Errno::UCLEAN);
            }
            let entry = self.segment.journal_entry(self.changes + index);
            entry.0.store(offset as u64, Ordering::Release);
            entry.1.store(*old, Ordering::Release);
        }
        self.changes += COUNT;
        // J1 above, J2 below.
        self.segment.header64(JOURNAL_COUNT_OFFSET).store(self.changes as u64, Ordering::Release);
        for (word, _, value) in changes {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    /// A transaction that changes a single word: that needs no journal, it is done or not. Nothing may have been changed
    /// before.
    ///
    /// # Errors
    /// As [`Guard::set`]. Nothing has been changed then.
    #[inline(always)]
    pub(crate) fn change_only(&mut self, word: &AtomicU64, value: u64) -> Result<()> {
        if self.changes != 0 || self.segment.offset_of(word) < self.segment.header_bytes() {
            return Err(Errno::UCLEAN);
        }
        word.store(value, Ordering::Release);
        self.show_change();
        Ok(())
    }

    /// The process that holds the lock: this one.
    #[inline]
    pub fn process(&self) -> u32 {
        self.thread.process()
    }

    /// Makes the changes count, all at once, and gives the lock back.
    #[inline]
    pub fn commit(self) {
        let mut guard = self;
        guard.checkpoint();
    }

    /// Makes the changes so far count, all at once, and goes on: what is changed from here on counts for itself.
    #[inline]
    pub fn checkpoint(&mut self) {
        // J3: after every change. What was changed cannot be taken back from here on.
        if self.changes > 0 {
            self.segment.header64(JOURNAL_COUNT_OFFSET).store(0, Ordering::Release);
            self.changes = 0;
            self.show_change();
        }
    }

    #[inline(always)]
    fn show_change(&self) {
        match self.change {
            Change::More => self.show(MORE_OFFSET),
            Change::Less => self.show(LESS_OFFSET),
            Change::Any => {
                self.show(MORE_OFFSET);
                self.show(LESS_OFFSET);
            }
        }
    }

    /// Says what the changes of this transaction, and of those to come, are to those who spin: [`Change::Any`] until then.
    #[inline]
    pub fn makes(&mut self, change: Change) {
        self.change = change;
    }

    /// A hint for those who spin, whatever else stands there.
    #[inline]
    fn show(&self, offset: usize) {
        let version = self.segment.header32(offset);
        version.store(version.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Where the changes of this transaction end so far: for [`Guard::undo_to`].
    #[inline]
    pub(crate) fn mark(&self) -> usize {
        self.changes
    }

    /// Undoes this transaction's changes since `mark`. Whoever finds this holder dead in it undoes all of them.
    ///
    /// # Errors
    /// `EUCLEAN`: the journal does not hold what it must.
    pub(crate) fn undo_to(&mut self, mark: usize) -> Result<()> {
        for index in (mark..self.changes).rev() {
            let (place, old) = self.segment.journal_entry(index);
            let offset = usize::try_from(place.load(Ordering::Relaxed)).map_err(|_| Errno::UCLEAN)?;
            if offset < self.segment.header_bytes() {
                return Err(Errno::UCLEAN);
            }
            self.segment.word64(offset)?.store(old.load(Ordering::Relaxed), Ordering::Release);
        }
        self.changes = self.changes.min(mark);
        self.segment.header64(JOURNAL_COUNT_OFFSET).store(self.changes as u64, Ordering::Release);
        Ok(())
    }

    /// Undoes what the journal has: a dead holder's changes, or this one's own.
    #[cold]
    #[inline(never)]
    fn recover(&self) -> Result<()> {
        let count = self.segment.header64(JOURNAL_COUNT_OFFSET);
        let entries = usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if entries > self.segment.changes_max() {
            return Err(Errno::UCLEAN);
        }
        for index in (0..entries).rev() {
            let (place, old) = self.segment.journal_entry(index);
            let offset = usize::try_from(place.load(Ordering::Relaxed)).map_err(|_| Errno::UCLEAN)?;
            if offset < self.segment.header_bytes() {
                return Err(Errno::UCLEAN);
            }
            self.segment.word64(offset)?.store(old.load(Ordering::Relaxed), Ordering::Release);
        }
        count.store(0, Ordering::Release);
        Ok(())
    }

    /// Gives the lock back, and what this thread reads afterwards is read after that: what is dropped may be seen as
    /// taken still, by the kernel too, while this thread goes on reading.
    ///
    /// The kernel goes on looking at the lock's word should this thread die, until what this gives is dropped.
    pub(crate) fn release_with_fence(self) -> Watch {
        let guard = std::mem::ManuallyDrop::new(self);
        if guard.undo().is_ok() {
            guard.segment.header32(WORD_OFFSET).swap(0, Ordering::SeqCst);
            guard.wake_arrivals();
        } else {
            guard.give_up();
        }
        Watch::from_before(guard.thread, guard.before)
    }

    /// This holder took the lock while the kernel was told by `watch` to look at its word: what the kernel looked at
    /// before that is what it looks at afterwards.
    pub(crate) fn instead_of(&mut self, watch: Watch) {
        self.before = watch.into_before();
    }

    #[inline]
    fn undo(&self) -> Result<()> {
        // The entries are this holder's own; but somebody may have scribbled over them meanwhile.
        if self.changes > 0 { self.recover() } else { Ok(()) }
    }

    /// Instead of being dropped: the journal cannot be true. Everybody is told from here on.
    #[cold]
    fn condemn(&self) {
        self.give_up();
        self.thread.forget(self.before);
    }

    /// Leaves the lock like a dead holder's.
    #[cold]
    fn give_up(&self) {
        let word = self.segment.header32(WORD_OFFSET);
        word.swap(WAITERS | OWNER_DIED, Ordering::SeqCst);
        futex_wake(word, u32::MAX);
        self.wake_arrivals();
    }

    #[inline]
    fn wake_arrivals(&self) {
        let arrivals = self.segment.header64(ARRIVALS_OFFSET).load(Ordering::SeqCst);
        let cleared = self.segment.header64(CLEARED_OFFSET).load(Ordering::Relaxed);
        let wanted = self.segment.header32(WANTED_OFFSET).load(Ordering::Relaxed);
        if arrivals ^ cleared | u64::from(wanted) != 0 {
            self.wake_next(arrivals, arrivals != cleared, wanted != 0);
        }
    }

    /// Lets one in who spins for the lock, and wakes one who sleeps for it.
    #[cold]
    #[inline(never)]
    fn wake_next(&self, arrivals: u64, sleeps: bool, spins: bool) {
        if spins {
            self.segment.header32(WANTED_OFFSET).store(0, Ordering::Relaxed);
            let word = self.segment.header32(WORD_OFFSET);
            for _ in 0..LET_IN {
                std::hint::spin_loop();
                if word.load(Ordering::Relaxed) != 0 {
                    break;
                }
            }
        }
        if sleeps {
            let turn = self.segment.header32(TURN_OFFSET);
            turn.fetch_add(1, Ordering::SeqCst);
            if futex_wake(turn, 1) == 0 {
                self.segment.header64(CLEARED_OFFSET).store(arrivals, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.undo().is_err() {
            return self.condemn();
        }
        // J4. Who sleeps is woken also if this thread dies before the wake: the kernel finds a 0. L2 from here on.
        let word = self.segment.header32(WORD_OFFSET);
        if self.thread.is_registered() {
            word.store(0, Ordering::Release);
            // The compiler's order; the processor's comes by the fence of who goes to sleep.
            compiler_fence(Ordering::SeqCst);
        } else {
            word.swap(0, Ordering::SeqCst);
        }
        self.wake_arrivals();
        self.thread.forget(self.before);
    }
}
