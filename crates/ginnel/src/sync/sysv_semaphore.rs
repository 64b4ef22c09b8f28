//! System V semaphore sets: `semget(2)`, `semop(2)`, `semtimedop(2)`.
//!
//! # What a user sees
//! A set of counters that outlives its processes, reached by a [`Key`] or by its id. One call does several operations,
//! all of them or none. What an operation with [`undo`](Operation::undo) did is undone by the kernel when its process
//! ends, however it ends: a killed holder's units come back. [`Permit`] is that as a guard.
//! State, owner, limits and the list of all sets are in [`sysv_semaphore_status`](super::sysv_semaphore_status).
//!
//! Differences from the bare calls: taking or adding 0 units is refused, since the kernel would read it as "wait for
//! zero"; a time limit that passes is `ETIMEDOUT` and not `EAGAIN`.
//!
//! A handle is an id: dropping it leaves the set where it is. [`SysvSemaphores::private`] makes a set that nobody else
//! can find by name; that one is removed with its handle.
//!
//! # Who gives the first values
//! `semget` makes a set and cannot give it values; a second process may open it in between. The kernel leaves the time
//! of the last operation at 0 until the first `semop`, so [`create_with`](SysvSemaphores::create_with) lets exactly one
//! process, the maker, set the values and then do one operation; everybody else waits for that.
//! Crash point: a maker killed between the two leaves a set that nobody calls ready; the others get `ETIMEDOUT`.
//!
//! # How it works inside
//! The calls of the two homes are in `sysv_semaphore/kernel.rs` and `sysv_semaphore/user.rs`, under the same names.

pub(super) mod kernel;
pub(super) mod user;

use rustix::io::Errno;

use crate::error::{Error, Label, Result};
use crate::sysv::{self, GetFlags, Key};
use crate::{Deadline, Namespace, interrupt};

pub(super) const FAMILY: &str = "sysv-sem";
/// As many operations need no allocation.
const FEW: usize = 4;
/// `SEMVMX`, the highest value of a semaphore: a constant of the kernel's.
pub const VALUE_MAX: u16 = 32767;

/// One step of [`SysvSemaphores::operate`]: what is to happen to which semaphore of the set.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::{Operation, SysvSemaphores};
///
/// let set = SysvSemaphores::private(3)?;
/// set.set_values(&[5, 1, 0])?;
/// // Two of the first, one of the second, and only while the third is 0: all at once.
/// set.operate(&[Operation::take(0, 2), Operation::take(1, 1), Operation::wait_zero(2)])?;
/// assert_eq!(set.values()?, [3, 0, 0]);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    index: u16,
    /// What is added; `None` waits for zero.
    change: Option<i32>,
    flags: i16,
}

impl Operation {
    /// Adds units to the semaphore with this index (from 0): never waits.
    pub const fn add(index: u16, units: u16) -> Operation {
        Operation { index, change: Some(units as i32), flags: 0 }
    }

    /// Takes units from the semaphore: waits until it has that many.
    pub const fn take(index: u16, units: u16) -> Operation {
        Operation { index, change: Some(-(units as i32)), flags: 0 }
    }

    /// Waits until the semaphore's value is 0.
    pub const fn wait_zero(index: u16) -> Operation {
        Operation { index, change: None, flags: 0 }
    }

    /// The kernel is to undo this step when the process ends (`SEM_UNDO`).
    ///
    /// A process has one account for each semaphore: what is taken with undo and added with undo cancels out. The
    /// account survives `exec`, is not passed on by `fork`, is shared by the process's threads, and is cleared, in all
    /// processes, when somebody sets the value.
    pub const fn undo(mut self) -> Operation {
        self.flags |= libc::SEM_UNDO as i16;
        self
    }

    /// The whole call is to fail with `EAGAIN` rather than wait for this step (`IPC_NOWAIT` of one operation).
    pub const fn no_wait(mut self) -> Operation {
        self.flags |= libc::IPC_NOWAIT as i16;
        self
    }

    fn raw(self, flags: i16) -> Result<libc::sembuf, (Errno, &'static str)> {
        let sem_op = match self.change {
            Some(0) => return Err((Errno::INVAL, "0 units: the kernel would wait for zero instead")),
            Some(change) => i16::try_from(change)
                .ok()
                .filter(|change| *change != i16::MIN)
                .ok_or((Errno::RANGE, "a semaphore holds 32767 (SEMVMX) at the most"))?,
            None => 0,
        };
        Ok(libc::sembuf { sem_num: self.index, sem_op, sem_flg: self.flags | flags })
    }

    fn may_not_wait(&self) -> bool {
        self.flags & libc::IPC_NOWAIT as i16 != 0
    }
}

/// A System V semaphore set.
///
/// ```
/// # ginnel_testkit::private();
/// use std::time::Duration;
/// use ginnel::sync::SysvSemaphores;
///
/// let slots = SysvSemaphores::private(1)?;
/// slots.set_value(0, 2)?;
/// slots.wait(0)?;
/// let second = slots.acquire(&[(0, 1)])?;
/// assert!(slots.try_wait(0).unwrap_err().is_would_block());
/// assert!(slots.wait_deadline(0, Duration::from_millis(2)).unwrap_err().is_timed_out());
/// drop(second);
/// assert_eq!(slots.value(0)?, 1);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvSemaphores {
    pub(super) home: Home,
    pub(super) id: i32,
    pub(super) object: Label,
    /// The process that removes the set when it drops the handle. A forked child's copy does not.
    removed_by: Option<u32>,
}

#[derive(Debug)]
pub(super) enum Home {
    Kernel,
    User(user::Set),
}

/// How to open or make [`SysvSemaphores`]: see [`SysvSemaphores::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::SysvSemaphores;
/// use ginnel::Deadline;
///
/// let set = SysvSemaphores::options().create_new(true).mode(0o660).open_with(0x2a, &[3, 0], Deadline::NEVER)?;
/// assert_eq!(SysvSemaphores::open(0x2a)?.values()?, [3, 0]);
/// set.remove()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SysvSemaphoresOptions {
    namespace: Namespace,
    flags: GetFlags,
    count: u32,
}

impl SysvSemaphoresOptions {
    /// In which home; the kernel's unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

    /// Make the set if there is none with this key (`IPC_CREAT`).
    pub fn create(mut self, create: bool) -> Self {
        self.flags.create = create;
        self
    }

    /// Make the set, and fail with `EEXIST` if there is one already (`IPC_CREAT | IPC_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.flags.create_new = create_new;
        self
    }

    /// The permission bits of a set that is made; 0600 unless said. The umask does not apply.
    pub fn mode(mut self, mode: u32) -> Self {
        self.flags.mode = mode;
        self
    }

    /// How many semaphores a new set has, and an existing one must have at least; 0, unless said, for "any".
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Opens the set with this key. Linux makes new semaphores with the value 0.
    ///
    /// # Errors
    /// `ENOENT`: no such set, and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: the mode of
    /// the existing set grants less than was asked for. `EINVAL`: a new set of 0 semaphores or of more than `SEMMSL`,
    /// or an existing one that has fewer than [`count`](Self::count). `ENOSPC`: the host has `SEMMNI` sets or `SEMMNS`
    /// semaphores already. `ENOMEM`, `ENOSYS` (a kernel without System V IPC).
    pub fn open(self, key: impl Into<Key>) -> Result<SysvSemaphores> {
        let key = key.into();
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        let outcome = match self.namespace.user() {
            None => kernel::get(key.raw(), count, self.flags.raw(key)),
            Some(home) => user::get(home, key.raw(), count, self.flags.raw(key)),
        };
        match outcome {
            Ok(id) => Ok(SysvSemaphores::of(&self.namespace, id, key)),
            Err(errno) => {
                Err(self.explain(Error::new("semget", errno, &Label::new(format!("{FAMILY}:{key}")))))
            }
        }
    }

    /// Opens the set with this key and these first values, or waits until the process that makes it has given its own.
    ///
    /// Nobody who opens the set by this sees it without values; an existing set keeps those that it has. A set whose
    /// maker has used neither this nor any semaphore of it yet counts as not ready.
    ///
    /// # Errors
    /// `ETIMEDOUT` (`EAGAIN` for [`Deadline::NOW`]): the set exists, and its maker has not given it values. `ERANGE`:
    /// a value above 32767. `EACCES`: no read permission. Else as [`open`](Self::open).
    pub fn open_with(
        self,
        key: impl Into<Key>,
        values: &[u16],
        deadline: impl Into<Deadline>,
    ) -> Result<SysvSemaphores> {
        let (key, deadline) = (key.into(), deadline.into());
        let wanted = self.count(u32::try_from(values.len()).unwrap_or(u32::MAX));
        let makes = wanted.flags.create || wanted.flags.create_new;
        loop {
            if makes {
                match wanted.clone().create_new(true).open(key) {
                    Ok(set) => return set.with_first_values(values),
                    Err(error) if error.is_already_exists() && !wanted.flags.create_new => {}
                    Err(error) => return Err(error),
                }
            }
            match wanted.clone().create(false).open(key).and_then(|set| set.once_ready(deadline)) {
                // Its maker failed and took it away, or somebody else removed it.
                Err(error) if makes && (error.is_removed() || error.raw() == Errno::NOENT) => {}
                other => return other,
            }
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint(format!(
                "no set has this key{}; make it first, or open with `create`",
                self.namespace.inside()
            )),
            Errno::EXIST => {
                error.with_hint("a set with this key exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint(match self.namespace.user() {
                None => "its mode does not grant this user what was asked; see `ipcs -s -i ID`",
                Some(_) => "its mode does not grant this user to read and to write it",
            }),
            Errno::INVAL if self.count == 0 => error.with_hint("a new set needs a `count` of at least 1"),
            Errno::INVAL => error.with_hint(format!(
                "the existing set has fewer than {} semaphores, or {}",
                self.count,
                match self.namespace.user() {
                    None => kernel::limit_hint("a new one may not have as many", 0),
                    Some(home) => user::count_hint(home),
                }
            )),
            Errno::NOSPC => error.with_hint(match self.namespace.user() {
                None => kernel::no_space_hint(self.count),
                Some(_) => "the memory file system is full; see `df`".into(),
            }),
            _ => error,
        }
    }
}

impl SysvSemaphores {
    /// Opens a set with every choice spelled out.
    pub fn options() -> SysvSemaphoresOptions {
        SysvSemaphoresOptions { namespace: Namespace::kernel(), flags: GetFlags::DEFAULT, count: 0 }
    }

    /// Opens the set with this key, which must exist.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn open(key: impl Into<Key>) -> Result<SysvSemaphores> {
        SysvSemaphores::open_in(&Namespace::kernel(), key)
    }

    /// [`SysvSemaphores::open`] in another home.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn open_in(namespace: &Namespace, key: impl Into<Key>) -> Result<SysvSemaphores> {
        SysvSemaphores::options().namespace(namespace).open(key)
    }

    /// Opens the set with this key, and makes it (mode 0600, all values 0) if there is none.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn create(key: impl Into<Key>, count: u32) -> Result<SysvSemaphores> {
        SysvSemaphores::create_in(&Namespace::kernel(), key, count)
    }

    /// [`SysvSemaphores::create`] in another home.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn create_in(namespace: &Namespace, key: impl Into<Key>, count: u32) -> Result<SysvSemaphores> {
        SysvSemaphores::options().namespace(namespace).create(true).count(count).open(key)
    }

    /// Opens the set with this key, and makes it (mode 0600) with these values if there is none: race-free among all
    /// who open it by this, whoever comes first.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open_with`].
    pub fn create_with(
        key: impl Into<Key>,
        values: &[u16],
        deadline: impl Into<Deadline>,
    ) -> Result<SysvSemaphores> {
        SysvSemaphores::create_with_in(&Namespace::kernel(), key, values, deadline)
    }

    /// [`SysvSemaphores::create_with`] in another home.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open_with`].
    pub fn create_with_in(
        namespace: &Namespace,
        key: impl Into<Key>,
        values: &[u16],
        deadline: impl Into<Deadline>,
    ) -> Result<SysvSemaphores> {
        SysvSemaphores::options().namespace(namespace).create(true).open_with(key, values, deadline)
    }

    /// Makes a set without a key (mode 0600, all values 0), removed when this handle is dropped.
    ///
    /// Other processes reach it by [`SysvSemaphores::id`], passed on to them, and [`SysvSemaphores::from_id`]. In a
    /// child made by `fork` the handle does not remove it. [`SysvSemaphores::keep`] lets it stay.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn private(count: u32) -> Result<SysvSemaphores> {
        SysvSemaphores::private_in(&Namespace::kernel(), count)
    }

    /// [`SysvSemaphores::private`] in another home.
    ///
    /// # Errors
    /// See [`SysvSemaphoresOptions::open`].
    pub fn private_in(namespace: &Namespace, count: u32) -> Result<SysvSemaphores> {
        let mut set = SysvSemaphores::options().namespace(namespace).count(count).open(Key::PRIVATE)?;
        set.removed_by = Some(std::process::id());
        Ok(set)
    }

    /// The set with this id (`semid`), which is not looked at before the first call on it.
    pub fn from_id(id: i32) -> SysvSemaphores {
        SysvSemaphores::from_id_in(&Namespace::kernel(), id)
    }

    /// [`SysvSemaphores::from_id`] in another home.
    pub fn from_id_in(namespace: &Namespace, id: i32) -> SysvSemaphores {
        SysvSemaphores::of(namespace, id, Key::PRIVATE)
    }

    fn of(namespace: &Namespace, id: i32, key: Key) -> SysvSemaphores {
        let home = namespace.user().map_or(Home::Kernel, |home| Home::User(user::Set::new(home, id)));
        SysvSemaphores { home, id, object: sysv::label(FAMILY, key, id), removed_by: None }
    }

    /// Its id (`semid`): what `ipcs -s` shows of the kernel's, and [`SysvSemaphores::from_id`] takes.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Lets the set live on when the handle is dropped.
    pub fn keep(&mut self) {
        self.removed_by = None;
    }

    /// Does all the operations at once, in order, as soon as all of them are possible: none of them before.
    ///
    /// # Errors
    /// `EAGAIN`: an operation with [`no_wait`](Operation::no_wait) would have to wait. `E2BIG`: more than `SEMOPM`
    /// operations. `EFBIG`: an index that the set has not. `ERANGE`: a value would go above 32767. `EINVAL`: 0 units,
    /// no operations, or the set was removed earlier ([`Error::is_removed`]). `EACCES`: the mode lets this user not
    /// write (read, if all are waits for zero). `EIDRM`: removed while waiting. `EINTR`: a signal handler ran; this
    /// call is not restarted, whatever `SA_RESTART` says. `ENOMEM`: for an undo.
    ///
    /// # Blocking
    /// Until all operations are possible at the same time. Linux tries waiting callers in order of arrival, and lets
    /// later ones pass those that cannot go on yet. `semop(2)`.
    pub fn operate(&self, operations: &[Operation]) -> Result<()> {
        self.operate_deadline(operations, Deadline::NEVER)
    }

    /// Does all the operations at once if all of them are possible now.
    ///
    /// # Errors
    /// `EAGAIN`: they are not. Else as [`SysvSemaphores::operate`].
    pub fn try_operate(&self, operations: &[Operation]) -> Result<()> {
        self.operate_deadline(operations, Deadline::NOW)
    }

    /// Does all the operations at once; waits until the deadline for all of them to be possible.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was done. Else as [`SysvSemaphores::operate`].
    ///
    /// # Blocking
    /// In `semtimedop(2)`, which counts the time that is left on the monotonic clock.
    pub fn operate_deadline(&self, operations: &[Operation], deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let flags = if deadline.is_now() { libc::IPC_NOWAIT as i16 } else { 0 };
        let mut few = [libc::sembuf { sem_num: 0, sem_op: 0, sem_flg: 0 }; FEW];
        let mut many = Vec::new();
        let raw = if let Some(few) = few.get_mut(..operations.len()) {
            few
        } else {
            many.resize(operations.len(), few[0]);
            &mut many[..]
        };
        for (raw, step) in raw.iter_mut().zip(operations) {
            *raw = step.raw(flags).map_err(|(errno, why)| {
                Error::new("semop", errno, &self.object).with_hint(format!("{step:?}: {why}"))
            })?;
        }
        let outcome = match &self.home {
            Home::Kernel => {
                let may_not_wait = operations.iter().any(Operation::may_not_wait);
                kernel::operate(self.id, raw, deadline, may_not_wait)
            }
            Home::User(set) => set.operate(raw, deadline),
        };
        outcome.map_err(|errno| {
            let limited = !deadline.is_now() && !deadline.is_never();
            let operation = if limited { "semtimedop" } else { "semop" };
            self.explain_operation(Error::new(operation, errno, &self.object), operations)
        })
    }

    /// Adds one unit to a semaphore, and so lets a waiter go on.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`]; never waits.
    pub fn post(&self, index: u16) -> Result<()> {
        self.operate(&[Operation::add(index, 1)])
    }

    /// Takes one unit from a semaphore; waits until it has one.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`].
    pub fn wait(&self, index: u16) -> Result<()> {
        self.wait_deadline(index, Deadline::NEVER)
    }

    /// Takes one unit from a semaphore if it has one now.
    ///
    /// # Errors
    /// `EAGAIN`: it has none. Else as [`SysvSemaphores::operate`].
    pub fn try_wait(&self, index: u16) -> Result<()> {
        self.wait_deadline(index, Deadline::NOW)
    }

    /// Takes one unit from a semaphore; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`SysvSemaphores::operate`].
    pub fn wait_deadline(&self, index: u16, deadline: impl Into<Deadline>) -> Result<()> {
        self.operate_deadline(&[Operation::take(index, 1)], deadline)
    }

    /// Waits until a semaphore's value is 0. Needs read permission only.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`].
    pub fn wait_zero(&self, index: u16) -> Result<()> {
        self.wait_zero_deadline(index, Deadline::NEVER)
    }

    /// Succeeds if a semaphore's value is 0 now.
    ///
    /// # Errors
    /// `EAGAIN`: it is not. Else as [`SysvSemaphores::operate`].
    pub fn try_wait_zero(&self, index: u16) -> Result<()> {
        self.wait_zero_deadline(index, Deadline::NOW)
    }

    /// Waits until the deadline for a semaphore's value to be 0.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`SysvSemaphores::operate`].
    pub fn wait_zero_deadline(&self, index: u16, deadline: impl Into<Deadline>) -> Result<()> {
        self.operate_deadline(&[Operation::wait_zero(index)], deadline)
    }

    /// Takes units of one or several semaphores (`(index, units)`), all at once, until the permit is dropped or this
    /// process ends.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`].
    pub fn acquire(&self, units: &[(u16, u16)]) -> Result<Permit<'_>> {
        self.acquire_deadline(units, Deadline::NEVER)
    }

    /// Takes the units if all of them are there now.
    ///
    /// # Errors
    /// `EAGAIN`: they are not. Else as [`SysvSemaphores::operate`].
    pub fn try_acquire(&self, units: &[(u16, u16)]) -> Result<Permit<'_>> {
        self.acquire_deadline(units, Deadline::NOW)
    }

    /// Takes the units, all at once; waits until the deadline for them.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was taken. Else as [`SysvSemaphores::operate`].
    pub fn acquire_deadline(
        &self,
        units: &[(u16, u16)],
        deadline: impl Into<Deadline>,
    ) -> Result<Permit<'_>> {
        let take: Vec<_> =
            units.iter().map(|(index, units)| Operation::take(*index, *units).undo()).collect();
        // Made before the units are taken: nothing can fail between the two.
        let permit = Permit { set: self, units: units.to_vec(), taker: std::process::id() };
        match self.operate_deadline(&take, deadline) {
            Ok(()) => Ok(permit),
            Err(error) => {
                permit.defuse();
                Err(error)
            }
        }
    }

    /// The maker's part of [`SysvSemaphoresOptions::open_with`].
    fn with_first_values(self, values: &[u16]) -> Result<SysvSemaphores> {
        // Then one operation that changes nothing, for the time stamp.
        let stamp: &[Operation] = match values.first() {
            Some(0) => &[Operation::wait_zero(0)],
            _ => &[Operation::take(0, 1), Operation::add(0, 1)],
        };
        let outcome = self.set_values(values).and_then(|()| self.try_operate(stamp));
        match outcome {
            Ok(()) => Ok(self),
            Err(error) => {
                // Half-made, and its maker's to take away.
                let _ = self.remove();
                Err(error)
            }
        }
    }

    /// Everybody else's part of [`SysvSemaphoresOptions::open_with`].
    fn once_ready(self, deadline: Deadline) -> Result<SysvSemaphores> {
        let is_ready = || match self.look() {
            Ok(status) if status.last_operation.is_some() => Ok(()),
            Ok(_) => Err(Errno::AGAIN),
            Err(errno) => Err(errno),
        };
        let outcome = match is_ready() {
            Err(Errno::AGAIN) if !deadline.is_now() => interrupt::try_again_until(deadline, is_ready),
            other => other,
        };
        match outcome {
            Ok(()) => Ok(self),
            Err(errno @ (Errno::AGAIN | Errno::TIMEDOUT)) => Err(Error::new("semget", errno, &self.object)
                .with_hint(format!(
                    "the process that made it has not given it values yet, or was killed before it could, or does \
                     not mean to; if nobody uses it, remove it: {}",
                    match &self.home {
                        Home::Kernel => format!("ipcrm -s {}", self.id),
                        Home::User(set) => set.removal(),
                    }
                ))),
            Err(errno) => Err(self.explain(Error::new("semctl", errno, &self.object))),
        }
    }

    fn explain_operation(&self, error: Error, operations: &[Operation]) -> Error {
        match error.raw() {
            Errno::TOOBIG => {
                let what = format!("{} operations in one call", operations.len());
                error.with_hint(match &self.home {
                    Home::Kernel => kernel::limit_hint(&what, 2),
                    Home::User(set) => set.operations_hint(&what),
                })
            }
            Errno::FBIG => {
                let highest = operations.iter().map(|operation| operation.index).max().unwrap_or(0);
                match self.look() {
                    Ok(status) => error.with_hint(format!(
                        "there is no semaphore {highest}: the set has {}, counted from 0",
                        status.count
                    )),
                    Err(_) => error.with_hint(format!("there is no semaphore {highest} in the set")),
                }
            }
            Errno::RANGE => error.with_hint(
                "a semaphore's value, and what a process has to undo, may not go above 32767 (SEMVMX)",
            ),
            Errno::INVAL if operations.is_empty() => error.with_hint("no operations"),
            Errno::NOMEM => error.with_hint("no memory for the undo account"),
            _ => self.explain(error),
        }
    }

    pub(super) fn explain(&self, error: Error) -> Error {
        match error.raw() {
            // EINVAL is the kernel's word for an id whose set was removed before the call.
            Errno::INVAL | Errno::IDRM if self.is_gone() => error.gone(),
            Errno::ACCESS => error.with_hint(match &self.home {
                Home::Kernel => "its mode does not let this user do that; see `ipcs -s -i ID`",
                Home::User(_) => "its mode does not let this user read and write it",
            }),
            _ => error,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.look(), Err(Errno::INVAL | Errno::IDRM))
    }
}

impl Drop for SysvSemaphores {
    fn drop(&mut self) {
        if self.removed_by == Some(std::process::id()) {
            // Gone already is what was wanted.
            let _ = self.remove();
        }
    }
}

/// Units of a [`SysvSemaphores`], given back when this is dropped, or by the kernel if the process ends first.
///
/// A child made by `fork` does not hold its parent's units: its copy of the permit gives nothing back. After somebody
/// has set the semaphore's value (`SETVAL`), the kernel gives nothing back for a killed holder.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::SysvSemaphores;
///
/// // Two turns, and it is the first one's.
/// let turns = SysvSemaphores::private(2)?;
/// turns.set_values(&[1, 0])?;
///
/// let first = turns.acquire(&[(0, 1)])?;
/// // Whoever is killed here leaves the first turn to be taken again. From here on it is the second one's:
/// first.pass_on(&[(1, 1)])?;
/// assert_eq!(turns.values()?, [0, 1]);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the units are given back when the permit is dropped"]
pub struct Permit<'a> {
    set: &'a SysvSemaphores,
    units: Vec<(u16, u16)>,
    taker: u32,
}

impl Permit<'_> {
    /// The units held: `(index, units)`.
    pub fn units(&self) -> &[(u16, u16)] {
        &self.units
    }

    /// Gives the units back, and says whether that worked, which a drop does not.
    ///
    /// # Errors
    /// `EIDRM`, `EINVAL`: the set was removed. `ERANGE`: somebody raised the value meanwhile.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    /// Keeps the units taken for good, and gives out others (`(index, units)`) instead, in one step.
    ///
    /// Nobody sees a moment in which both or neither are there. This is how a turn passes from one to the next: a
    /// holder that is killed before it leaves its own turn to be taken again, one that is killed after it has passed
    /// the turn on.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`], without waiting; the units have been given back then.
    pub fn pass_on(mut self, instead: &[(u16, u16)]) -> Result<()> {
        if self.taker != std::process::id() {
            return Err(Error::new("semop", Errno::PERM, &self.set.object)
                .with_hint("the process that took these units is another one"));
        }
        let mut steps = Vec::with_capacity(self.units.len() * 2 + instead.len());
        for (index, units) in &self.units {
            // Added on the kernel's account for this process, and taken off it: the value is the same, the account 0.
            steps.push(Operation::add(*index, *units).undo());
            steps.push(Operation::take(*index, *units));
        }
        steps.extend(instead.iter().map(|(index, units)| Operation::add(*index, *units)));
        self.set.try_operate(&steps)?;
        self.units.clear();
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        let units = std::mem::take(&mut self.units);
        if units.is_empty() || self.taker != std::process::id() {
            return Ok(());
        }
        let give: Vec<_> = units.iter().map(|(index, units)| Operation::add(*index, *units).undo()).collect();
        self.set.try_operate(&give)
    }

    fn defuse(mut self) {
        self.units.clear();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A removed set has no units to give back.
        let _ = self.give_back();
    }
}
