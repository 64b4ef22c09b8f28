//! System V semaphore sets of the user-space home: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.
//!
//! # What a user of it sees
//! What the kernel's sets do: [`SysvSemaphores::operate`] does several operations, all of them or none, and is blocked
//! until they can be done; `SEM_UNDO` gives back what a process had when it ends, however it ends. A deadline that passes
//! is `ETIMEDOUT` here, `EAGAIN` in C. What a dead process had is given back when somebody next uses the set, or waits
//! for it: the time of the last operation is that time.
//!
//! # How it works inside
//! A semaphore is one word: its value, and who changed it last. Whoever changes values serves those whom that lets go
//! on, in the kernel's order (`serve`). Adjustments of processes that used `SEM_UNDO` lie in `undo`, how operations are
//! done in `operate`.
//!
//! The journal has room for a few hundred words, a set for 32,000 semaphores. What may change more writes down first, in
//! a place of its own, what the words will be, then commits that it is to be so, in one word (`plan`), then makes it so.
//! Doing that twice does no harm: whoever takes the lock from a dead holder finds the plan and carries it out.
//!
//! # Layout
//! ```text
//! 0x00  nsems       u64
//! 0x08  otime       u64   seconds; written without the journal: it may be that of an operation that was undone
//! 0x10  ctime       u64   when values were set last
//! 0x20  unserved    u64   since the last change that could let others go on, not all have been looked at
//! 0x28  plan        u64   what is to be carried out, and how much of it
//! 0x30  plan_who    u64   by which process
//! 0x38  plan_table  u64   and whose adjustments
//! 0x40  values      8 B each: value, pid << 32
//! then  plan_list         only where the journal may be too short
//! then  the blocked
//! ```
//!
//! # Crash points
//! | killed | what the next finds |
//! | --- | --- |
//! | before `operate` commits | nothing was done: undone with the journal |
//! | after it, before all are served | `dirty` and `unserved`: it serves them |
//! | between writing the plan's list and committing the plan | a list that nobody reads |
//! | while carrying out a plan | the plan: it carries it out from the start |
//! | blocked and not served | as in `wait`: never done |
//! | served, before it knows | done, as the kernel has it; what it did with `SEM_UNDO` is given back |
#![allow(unsafe_code)]

mod operate;
mod plan;
mod serve;
mod undo;

use libc::sembuf;

use crate::lock::{CHANGES_MAX, Change, Guard};
use crate::namespace::{self, Kind, Namespace, REMOVED, Rights};
use crate::primitive::Ordering;
use crate::segment::{HEADER_BYTES, Segment};
use crate::wait::{Alone, Attempt, General, Patience, Place, WORDS, Waiters, Words};
use crate::{Errno, Result};

use operate::{Caller, Request, Verdict};
use serve::Call;
use undo::Accounts;

/// The most a semaphore holds: `SEMVMX`.
pub const VALUE_MAX: u16 = 32767;
/// The most semaphores of a set: `SEMMSL`.
pub const COUNT_MAX: usize = 32000;
/// The most operations of a call: `SEMOPM`.
pub const OPERATIONS_MAX: usize = 500;

const COUNT: usize = HEADER_BYTES;
const OTIME: usize = HEADER_BYTES + 0x08;
const CTIME: usize = HEADER_BYTES + 0x10;
const UNSERVED: usize = HEADER_BYTES + 0x20;
const PLAN: usize = HEADER_BYTES + 0x28;
const PLAN_WHO: usize = HEADER_BYTES + 0x30;
const PLAN_TABLE: usize = HEADER_BYTES + 0x38;
const VALUES: usize = HEADER_BYTES + 0x40;

// What a plan is to do, in its lowest byte; above it, to how many, or to which.
const PLAN_NONE: u64 = 0;
/// The list has semaphores with what they are to be.
const PLAN_LIST: u64 = 1;
/// The list has a value for each semaphore, four to a word.
const PLAN_VALUES: u64 = 2;
/// No process has an adjustment of this semaphore any more.
const PLAN_FORGET: u64 = 3;
/// No process has an adjustment of any.
const PLAN_FORGET_ALL: u64 = 4;

/// How many may be blocked at once.
const BLOCKED_MAX: u32 = 16384;
/// What a slot has beside its words: the operations of a call that has many of them, or a process's adjustments.
const ROOM_LEAST: usize = 4032;
/// How often a call has its process's account looked for.
const ACCOUNT_TRIES: u32 = 16;
/// How many journal entries an operation may take; the others are for those who serve and are served.
const JOURNAL_SHARE: usize = CHANGES_MAX - 48;

/// What permission it takes to look at a set.
const READ: u32 = 0o444;
/// What permission it takes to change one.
const WRITE: u32 = 0o222;

/// A semaphore set, opened.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::Errno;
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let id = SysvSemaphores::get(&home, 0x2a, 2, libc::IPC_CREAT | 0o600)?;
/// let set = SysvSemaphores::open(&home, id)?;
/// set.set_values(&[1, 0])?;
/// let take = |sem_num| libc::sembuf { sem_num, sem_op: -1, sem_flg: libc::IPC_NOWAIT as i16 };
/// set.operate(&[take(0)], Patience::Endless)?;
/// assert_eq!(set.operate(&[take(0)], Patience::Endless), Err(Errno::AGAIN));
/// assert_eq!(set.value(0)?, 0);
/// SysvSemaphores::remove(&home, id)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SysvSemaphores {
    segment: Segment,
    /// How many semaphores, as it stood when the set was opened: a set keeps its number.
    count: usize,
    place: Place,
    accounts: Accounts,
    rights: Rights,
}

/// State of a set: `struct semid_ds`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
///
/// let home = Namespace::private()?;
/// let id = SysvSemaphores::get(&home, libc::IPC_PRIVATE, 2, 0o600)?;
/// let status = SysvSemaphores::status(&home, id)?;
/// assert_eq!((status.count, status.last_operation, status.object.mode), (2, 0, 0o600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Key, owner, mode.
    pub object: namespace::Status,
    /// How many semaphores.
    pub count: u64,
    /// When the last operation was done, in seconds since 1970; 0: none has been.
    pub last_operation: u64,
    /// When it was made, or values or permissions were set last, in seconds since 1970.
    pub last_change: u64,
}

#[cfg(not(ginnel_model))]
impl Drop for SysvSemaphores {
    /// A process may use `SEM_UNDO` on any number of sets, one after the other.
    fn drop(&mut self) {
        if self.is_removed()
            && let Some(stake) = self.accounts.stake()
        {
            stake.let_go(&self.segment);
        }
    }
}

impl SysvSemaphores {
    /// Finds a set of at least `count` semaphores, or makes one, all 0; `semget(2)`. Gives its id.
    ///
    /// # Errors
    /// `EINVAL`: less than 0 or more than the namespace's `semmsl`; none, for a new set; more than the set has. Those of
    /// [`Namespace::get`].
    pub fn get(home: &Namespace, key: i32, count: i32, flags: i32) -> Result<i32> {
        let count = usize::try_from(count).map_err(|_| Errno::INVAL)?;
        if count as u64 > home.limits().semmsl.min(COUNT_MAX as u64) {
            return Err(Errno::INVAL);
        }
        home.get(Kind::SysvSemaphores, key, flags, count as u64, |draft| match count {
            0 => Err(Errno::INVAL),
            _ => draft.segment(capacity_of(count), |segment| fill(segment, count)),
        })
    }

    /// Opens a set by its id.
    ///
    /// # Errors
    /// As [`Namespace::open_id`]. `EUCLEAN`: it holds no set.
    pub fn open(home: &Namespace, id: i32) -> Result<SysvSemaphores> {
        SysvSemaphores::of(home.open_id(Kind::SysvSemaphores, id)?)
    }

    fn of(segment: Segment) -> Result<SysvSemaphores> {
        let count = segment.word64(COUNT)?.load(Ordering::Relaxed);
        let count = usize::try_from(count).map_err(|_| Errno::UCLEAN)?;
        if count == 0 || count > COUNT_MAX {
            return Err(Errno::UCLEAN);
        }
        segment.word64(waiters_of(count))?;
        let rights = Rights::of(&segment);
        let place = Place { base: waiters_of(count), capacity: BLOCKED_MAX, room: room_of(count) };
        Ok(SysvSemaphores { segment, count, place, accounts: Accounts::default(), rights })
    }

    /// State of the set; `IPC_STAT`. It takes the permission to read alone.
    ///
    /// # Errors
    /// As [`Namespace::stat`].
    pub fn status(home: &Namespace, id: i32) -> Result<Status> {
        let object = home.stat(Kind::SysvSemaphores, id)?;
        let reader = home.read_id(Kind::SysvSemaphores, id)?;
        Ok(Status {
            object,
            count: reader.word64(COUNT)?,
            last_operation: reader.word64(OTIME)?,
            last_change: reader.word64(CTIME)?.max(object.ctime as u64),
        })
    }

    /// Removes the set: who is blocked gets `EIDRM`, who comes later `EINVAL`; `IPC_RMID`.
    ///
    /// # Errors
    /// As [`Namespace::remove_id`].
    pub fn remove(home: &Namespace, id: i32) -> Result<()> {
        home.remove_id(Kind::SysvSemaphores, id, |segment| {
            let file = segment.file()?.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            SysvSemaphores::of(Segment::of(file)?)?.dismiss()
        })
    }

    /// Marks the set as removed and wakes all who are blocked.
    fn dismiss(&self) -> Result<()> {
        let call = Call::new(self, &[]);
        let mut guard = call.enter()?;
        let waiters = self.waiters(&call)?;
        let left = waiters.leave_dirty(&mut guard);
        if let Err(errno) = left {
            waiters.leave(guard);
            return Err(errno);
        }
        // First: the mark is not in the journal, and whoever finds it must find that there is something to do.
        guard.checkpoint();
        namespace::mark_removed(&self.segment);
        waiters.serve_others(guard)
    }

    /// How many semaphores the set has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Does all operations at once, blocked for as long as patience allows; `semop(2)`.
    ///
    /// # Errors
    /// `EACCES`. `EINVAL`: no operations; the set was removed before. `E2BIG`: more than [`OPERATIONS_MAX`]. `EFBIG`: no such
    /// semaphore. `ERANGE`: a value above [`VALUE_MAX`], or an adjustment that is out of range. `EAGAIN`: an operation
    /// with `IPC_NOWAIT` would be blocked. `EIDRM`: the set was removed. `ETIMEDOUT`, `EINTR`, `ENOSPC`, `EUCLEAN`: as
    /// [`Waiters::run`]. In each case nothing was done.
    #[inline]
    pub fn operate(&self, operations: &[sembuf], patience: Patience) -> Result<()> {
        match operations {
            [operation] => self.operate_one(operation, patience),
            _ => self.operate_many(operations, patience),
        }
    }

    #[inline]
    fn operate_one(&self, operation: &sembuf, patience: Patience) -> Result<()> {
        if usize::from(operation.sem_num) >= self.count {
            return Err(self.no_such(std::slice::from_ref(operation), patience));
        }
        // One that must not be blocked must not wait for a stopped holder of the lock either.
        let may_block = i32::from(operation.sem_flg) & libc::IPC_NOWAIT == 0;
        let patience = if may_block { patience } else { Patience::None };
        let operation = operate::pack(operation, 0);
        let undoes = operate::undoes(operation);
        let (awaits, makes) = match operate::change(operation) {
            i32::MIN..0 => (Change::More, Change::Less),
            0 => (Change::Less, Change::Any),
            _ => (Change::Less, Change::More),
        };
        let attempt = |guard: &mut Guard<'_>, caller| {
            guard.makes(makes);
            self.attempt_alone(guard, operation, caller)
        };
        match self.run_alone(undoes, patience, awaits, attempt) {
            Ok(Alone::Done) => Ok(()),
            Ok(Alone::Otherwise(how)) => self.run(&[operation], patience, how),
            Err(errno) => Err(errno),
        }
    }

    /// What is to be done when all is as it mostly is; whatever it finds otherwise is for [`SysvSemaphores::run`].
    #[inline(always)]
    fn run_alone(
        &self,
        undoes: bool,
        patience: Patience,
        awaits: Change,
        mut attempt: impl FnMut(&mut Guard<'_>, Caller) -> Result<Verdict>,
    ) -> Result<Alone> {
        let approach = || self.segment.prefetch(HEADER_BYTES);
        self.place.run_alone(&self.segment, patience, awaits, approach, |guard| {
            if !self.rights.hold(&self.segment) {
                return Ok(Attempt::Otherwise);
            }
            let mut caller = Caller { process: guard.process(), table: None };
            if undoes {
                match self.accounts.stake() {
                    Some(stake) if stake.is_own(guard)? => caller.table = Some(stake.room()),
                    _ => return Ok(Attempt::Otherwise),
                }
            }
            match attempt(guard, caller)? {
                Verdict::Done => self.stamp().map(|()| Attempt::Done),
                Verdict::Blocked(_) => Ok(Attempt::Waits),
                Verdict::Planned => Ok(Attempt::Otherwise),
            }
        })
    }

    fn operate_many(&self, operations: &[sembuf], patience: Patience) -> Result<()> {
        if operations.is_empty() {
            return Err(Errno::INVAL);
        }
        if operations.len() > OPERATIONS_MAX {
            return Err(Errno::TOOBIG);
        }
        if operations.iter().any(|operation| usize::from(operation.sem_num) >= self.count) {
            return Err(self.no_such(operations, patience));
        }
        // As in `operate_one`: if none of those that could be blocked may be.
        let may_block = |operation: &sembuf| {
            operation.sem_op <= 0 && i32::from(operation.sem_flg) & libc::IPC_NOWAIT == 0
        };
        let has_nowait =
            operations.iter().any(|operation| i32::from(operation.sem_flg) & libc::IPC_NOWAIT != 0);
        let patience =
            if has_nowait && !operations.iter().any(may_block) { Patience::None } else { patience };
        let request = Request::new(operations);
        let operations = request.operations();
        if operations.len() * 2 > JOURNAL_SHARE {
            return self.run(operations, patience, General::default());
        }
        let undoes = operations.iter().any(|operation| operate::undoes(*operation));
        let attempt = |guard: &mut Guard<'_>, caller| self.attempt_all(guard, operations, caller);
        match self.run_alone(undoes, patience, Change::Any, attempt) {
            Ok(Alone::Done) => Ok(()),
            Ok(Alone::Otherwise(how)) => self.run(operations, patience, how),
            Err(errno) => Err(errno),
        }
    }

    /// A set that is removed has no semaphores to be beyond. Who has asked for an undo is one of those whose end is noted,
    /// whatever becomes of what was asked: so the kernel has it.
    #[cold]
    fn no_such(&self, operations: &[sembuf], patience: Patience) -> Errno {
        if namespace::state(&self.segment) & REMOVED != 0 {
            return Errno::INVAL;
        }
        let undoes = |operation: &sembuf| i32::from(operation.sem_flg) & libc::SEM_UNDO != 0;
        if operations.iter().any(undoes) {
            // If it cannot be noted, it is not.
            let _ = self.open_account(patience);
        }
        Errno::FBIG
    }

    #[inline(never)]
    fn run(&self, operations: &[u64], patience: Patience, how: General) -> Result<()> {
        let mut how = Some(how);
        if !self.rights.hold(&self.segment) {
            let changes = operations.iter().any(|operation| operate::change(*operation) != 0);
            self.rights.check(&self.segment, if changes { WRITE } else { READ })?;
        }
        let call = Call::new(self, operations);
        if how.as_ref().is_some_and(|how| how.has_waited) {
            call.has_waited();
        }
        for _ in 0..ACCOUNT_TRIES {
            let how = how.take().unwrap_or_default();
            let attempt = |guard: &mut Guard<'_>, _: &mut Words| call.attempt_own(guard);
            match self.waiters(&call)?.run_on(how, &mut [0; WORDS], patience, attempt) {
                // This process has no account of adjustments yet, or another handle's, or was forked.
                Err(Errno::STALE) => self.open_account(patience)?,
                outcome => return outcome,
            }
        }
        // An account that does not stay was written over.
        Err(Errno::UCLEAN)
    }

    /// The value of a semaphore; `GETVAL`.
    ///
    /// # Errors
    /// `EINVAL`: no such semaphore; the set was removed. `EUCLEAN`, `EINTR`: as [`Waiters::enter`].
    pub fn value(&self, index: usize) -> Result<u16> {
        self.look(index, |_, guard| operate::value_of(guard.get(VALUES + 8 * index)?))
    }

    /// The process that changed the semaphore last, by an operation, by setting it or by its end; 0: none has; `GETPID`.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn last_pid(&self, index: usize) -> Result<u32> {
        self.look(index, |_, guard| Ok((guard.get(VALUES + 8 * index)? >> 32) as u32))
    }

    /// How many are blocked until the value increases; `GETNCNT`. A call is blocked by its first operation that cannot
    /// be done.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting(&self, index: usize) -> Result<u32> {
        self.look(index, |call, guard| call.count_blocked(guard, index, false))
    }

    /// How many are blocked until the value is 0; `GETZCNT`.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting_zero(&self, index: usize) -> Result<u32> {
        self.look(index, |call, guard| call.count_blocked(guard, index, true))
    }

    /// The values of all semaphores, at one instant; `GETALL`.
    ///
    /// # Errors
    /// `EINVAL`: not as many as the set has; the set was removed. `EUCLEAN`, `EINTR`: as [`Waiters::enter`].
    pub fn values(&self, values: &mut [u16]) -> Result<()> {
        if values.len() != self.count {
            return Err(Errno::INVAL);
        }
        self.look(0, |_, guard| {
            for (index, value) in values.iter_mut().enumerate() {
                *value = operate::value_of(guard.get(VALUES + 8 * index)?)?;
            }
            Ok(())
        })
    }

    /// Gives a semaphore its value; every process loses its adjustment of it; `SETVAL`.
    ///
    /// # Errors
    /// `ERANGE`: above [`VALUE_MAX`]. `EINVAL`: no such semaphore; the set was removed. `EUCLEAN`, `EINTR`: as
    /// [`Waiters::enter`].
    pub fn set_value(&self, index: usize, value: u16) -> Result<()> {
        if value > VALUE_MAX {
            return Err(Errno::RANGE);
        }
        self.change(index, |call, guard| {
            guard.set(VALUES + 8 * index, operate::word(value, guard.process()))?;
            call.plan_to_forget(guard, PLAN_FORGET | (index as u64) << 8)
        })
    }

    /// Gives all semaphores their values, at one instant; every process loses its adjustments; `SETALL`.
    ///
    /// # Errors
    /// `ERANGE`: one above [`VALUE_MAX`]. `EINVAL`: not as many as the set has; the set was removed. `EUCLEAN`, `EINTR`:
    /// as [`Waiters::enter`].
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        if values.len() != self.count {
            return Err(Errno::INVAL);
        }
        if values.iter().any(|value| *value > VALUE_MAX) {
            return Err(Errno::RANGE);
        }
        self.change(0, |call, guard| {
            if self.count <= JOURNAL_SHARE {
                for (index, value) in values.iter().enumerate() {
                    guard.set(VALUES + 8 * index, operate::word(*value, guard.process()))?;
                }
                return call.plan_to_forget(guard, PLAN_FORGET_ALL);
            }
            for (index, four) in values.chunks(4).enumerate() {
                let word = four.iter().rev().fold(0, |word, value| word << 16 | u64::from(*value));
                self.segment.word64(list_of(self.count) + 8 * index)?.store(word, Ordering::Release);
            }
            guard.set(PLAN_WHO, u64::from(guard.process()))?;
            call.plan(guard, PLAN_VALUES)
        })
    }

    fn look<T>(&self, index: usize, look: impl FnOnce(&Call<'_>, &mut Guard<'_>) -> Result<T>) -> Result<T> {
        if index >= self.count {
            return Err(Errno::INVAL);
        }
        self.rights.check(&self.segment, READ)?;
        let call = Call::new(self, &[]);
        let mut guard = call.enter()?;
        let seen = look(&call, &mut guard);
        self.waiters(&call)?.leave(guard);
        seen
    }

    /// A change of values that is no operation.
    fn change(
        &self,
        index: usize,
        change: impl FnOnce(&Call<'_>, &mut Guard<'_>) -> Result<()>,
    ) -> Result<()> {
        if index >= self.count {
            return Err(Errno::INVAL);
        }
        self.rights.check(&self.segment, WRITE)?;
        let call = Call::new(self, &[]);
        let mut guard = call.enter()?;
        let changed = guard
            .set(CTIME, now())
            .and_then(|()| call.leave_unserved(&mut guard))
            .and_then(|()| change(&call, &mut guard));
        let waiters = self.waiters(&call)?;
        match changed {
            Ok(()) => {
                guard.checkpoint();
                let carried_out = call.carry_out(&mut guard);
                waiters.serve_others(guard).and(carried_out)
            }
            Err(errno) => {
                waiters.leave(guard);
                Err(errno)
            }
        }
    }

    #[inline]
    fn is_removed(&self) -> bool {
        namespace::state(&self.segment) & REMOVED != 0
    }

    /// The time of the last operation is now. Without the journal: see the layout.
    #[inline]
    fn stamp(&self) -> Result<()> {
        let (otime, now) = (self.segment.word64(OTIME)?, now());
        if otime.load(Ordering::Relaxed) != now {
            otime.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    #[inline]
    fn waiters<'a, 's>(&'a self, call: &'a Call<'s>) -> Result<Waiters<'a, Call<'s>>> {
        let Place { base, capacity, room } = self.place;
        Waiters::with_room(&self.segment, base, capacity, room, call)
    }
}

fn fill(segment: &Segment, count: usize) -> Result<()> {
    segment.grow(waiters_of(count) + Waiters::<Call<'_>>::size_bytes_with_room(0, 0))?;
    segment.word64(COUNT)?.store(count as u64, Ordering::Relaxed);
    Ok(())
}

/// Where a plan has its list, in sets that need one.
const fn list_of(count: usize) -> usize {
    VALUES + 8 * count
}

#[inline]
const fn waiters_of(count: usize) -> usize {
    let list = match count {
        // Each semaphore's value and each one's adjustment.
        _ if count * 2 <= JOURNAL_SHARE => 0,
        // One word for each that a call may change, or all values, four to a word.
        _ if count / 4 >= OPERATIONS_MAX => count.div_ceil(4) * 8,
        _ => OPERATIONS_MAX * 8,
    };
    (list_of(count) + list).next_multiple_of(128)
}

/// A slot's room: its size and a slot's are no multiple of a page, so slots do not fall all into one set of a cache.
#[inline]
const fn room_of(count: usize) -> usize {
    let table = (count * 2).next_multiple_of(64);
    if table < ROOM_LEAST { ROOM_LEAST } else { table }
}

fn capacity_of(count: usize) -> usize {
    let blocked = Waiters::<Call<'_>>::size_bytes_with_room(BLOCKED_MAX as usize, room_of(count));
    (waiters_of(count) + blocked).next_multiple_of(4096)
}

/// Seconds since 1970.
#[inline]
fn now() -> u64 {
    // A tenth of what `clock_gettime` takes.
    // SAFETY: the call takes no pointer.
    unsafe { libc::time(std::ptr::null_mut()) as u64 }
}
