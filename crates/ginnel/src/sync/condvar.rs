//! Process-shared condition variable: `pthread_cond_wait(3p)`, `pthread_cond_signal(3p)`.
//!
//! # What a user sees
//! Waiting for what a [`Mutex`](super::Mutex) guards to change. As with all condition variables, a wait may return without a
//! notification, so what is waited for is looked at again, in a loop; and all who wait at a time do so with the same mutex.
//!
//! Anybody may be killed: a waiter that was chosen and dies passes the notification on; one that dies with the mutex wakes
//! those who wait, of whom the first is told ([`MutexGuard::owner_died`](super::MutexGuard::owner_died)). Nothing has to
//! be destroyed.
//!
//! # How it works inside
//! `ginnel_engine::sync::condvar`.

use std::fmt;
use std::time::Instant;

use ginnel_engine::sync::condvar as engine;
use ginnel_engine::wait::Patience;

use super::mutex::{MutexGuard, explain, explain_place};
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::memory::{Mapping, Witness};

const NOUN: Label = Label::Static("condition variable");

/// A condition variable in shared memory.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::{Condvar, Mutex};
///
/// let memory = Anonymous::map(4096)?;
/// let (mutex, changed) = (Mutex::in_mapping(&memory, 0)?, Condvar::in_mapping(&memory, 64)?);
/// let is_ready = AtomicBool::new(false); // stands for something in the memory
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let guard = mutex.lock().unwrap();
///         is_ready.store(true, Ordering::Relaxed);
///         drop(guard);
///         changed.notify_one();
///     });
///     let mut guard = mutex.lock()?;
///     while !is_ready.load(Ordering::Relaxed) {
///         changed.wait(&mut guard)?;
///     }
///     Ok::<(), ginnel::Error>(())
/// })?;
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct Condvar<'a> {
    condvar: engine::Condvar<'a>,
    mapping: &'a Mapping,
    witness: Option<Witness>,
}

impl<'a> Condvar<'a> {
    /// The bytes that a condition variable takes.
    pub const BYTES: usize = engine::Condvar::SIZE;
    /// What its address is a multiple of.
    pub const ALIGN: usize = engine::Condvar::ALIGN;

    /// Makes a condition variable. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: the offset is not aligned or not within the mapping, or the mapping is private. `EFAULT`: the memory is
    /// gone.
    pub fn in_mapping(mapping: &'a Mapping, offset: usize) -> Result<Condvar<'a>> {
        let region = mapping.region("pthread_cond_init", offset, Condvar::BYTES)?;
        Condvar::placed(engine::Condvar::init(region, 0), mapping, offset)
    }

    /// The condition variable that another process has made.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none ([`Error::is_corrupted`]). Else as [`Condvar::in_mapping`].
    pub fn open_in_mapping(mapping: &'a Mapping, offset: usize) -> Result<Condvar<'a>> {
        let region = mapping.region("pthread_cond_init", offset, Condvar::BYTES)?;
        Condvar::placed(engine::Condvar::open(region, 0), mapping, offset)
    }

    fn placed(
        outcome: ginnel_engine::Result<engine::Condvar<'a>>,
        mapping: &'a Mapping,
        offset: usize,
    ) -> Result<Condvar<'a>> {
        let explain =
            |errno| explain_place(Error::new("pthread_cond_init", errno, &NOUN), offset, Condvar::ALIGN);
        let witness = mapping.witness(offset..offset + Condvar::BYTES);
        Ok(Condvar { condvar: outcome.map_err(explain)?, mapping, witness })
    }

    /// Unlocks the mutex, waits for a notification, and locks the mutex again. May return without a notification.
    ///
    /// # Errors
    /// `ENOTRECOVERABLE`, `EUCLEAN`, `ENOLCK`: the mutex could not be locked again; the guard holds nothing any more.
    /// `EFAULT`: the memory is gone. `EPERM`: the guard holds nothing.
    ///
    /// # Blocking
    /// Until a notification, a signal handler's run, or somebody's death; then until the mutex is free.
    pub fn wait(&self, guard: &mut MutexGuard<'_>) -> Result<()> {
        self.wait_deadline(guard, Deadline::NEVER)
    }

    /// As [`Condvar::wait`], until the deadline for a notification.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the mutex is locked again. Else as [`Condvar::wait`].
    pub fn wait_deadline(&self, guard: &mut MutexGuard<'_>, deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = moment(deadline.into());
        let outcome = guard.sleep(|mutex| self.condvar.wait(mutex, deadline));
        self.check("pthread_cond_wait")?;
        outcome.map_err(|errno| explain(Error::new("pthread_cond_wait", errno, &NOUN)))
    }

    /// Wakes one of those who wait. Who notifies need not hold the mutex.
    ///
    /// # Errors
    /// `EFAULT`: the memory is gone.
    pub fn notify_one(&self) -> Result<()> {
        self.condvar.notify_one();
        self.check("pthread_cond_signal")
    }

    /// Wakes all who wait.
    ///
    /// # Errors
    /// `EFAULT`: the memory is gone.
    pub fn notify_all(&self) -> Result<()> {
        self.condvar.notify_all();
        self.check("pthread_cond_broadcast")
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        self.witness.as_ref().map_or(Ok(()), |witness| witness.check(operation, &NOUN))
    }
}

impl fmt::Debug for Condvar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").field("mapping", self.mapping).finish_non_exhaustive()
    }
}

/// The moment to give up at.
pub(super) fn moment(deadline: Deadline) -> Option<Instant> {
    match deadline.patience() {
        Patience::None => Some(Instant::now()),
        Patience::Until(moment) => Some(moment),
        Patience::Endless => None,
    }
}
