//! Process-shared read-write lock, robust: `pthread_rwlock_rdlock(3p)`, `pthread_rwlock_wrlock(3p)`.
//!
//! # What a user sees
//! Many readers or one writer, of several processes, in the order in which they came. A killed holder's share is given
//! back; after a writer's death the next is told ([`RwLockGuard::owner_died`]), as with a [`Mutex`](super::Mutex), and a
//! writer puts things right. It is made for a number of threads that hold it or wait for it at the same time.
//!
//! # How it works inside
//! `ginnel_engine::sync::rwlock`. As with a mutex, a mapping in which a guard was forgotten is never unmapped.

use std::fmt;
use std::marker::PhantomData;

use ginnel_engine::sync::mutex::Locked;
use ginnel_engine::sync::rwlock as engine;

use super::mutex::{explain, explain_place};
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::memory::{Mapping, Witness};

const NOUN: Label = Label::Static("read-write lock");

/// A read-write lock in shared memory.
///
/// ```
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::RwLock;
///
/// let memory = Anonymous::map(RwLock::size_bytes(8))?;
/// let lock = RwLock::in_mapping(&memory, 0, 8)?;
/// {
///     let _reading = lock.read()?;
///     std::thread::scope(|scope| {
///         scope.spawn(|| {
///             lock.try_read().expect("many may read");
///             assert!(lock.try_write().unwrap_err().is_would_block());
///         });
///     });
/// }
/// drop(lock.write()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct RwLock<'a> {
    lock: engine::RwLock<'a>,
    mapping: &'a Mapping,
    witness: Option<Witness>,
}

impl<'a> RwLock<'a> {
    /// What its address is a multiple of.
    pub const ALIGN: usize = engine::RwLock::ALIGN;

    /// The bytes that a lock takes which so many may hold or wait for.
    pub const fn size_bytes(holders_max: u32) -> usize {
        engine::RwLock::size_bytes(holders_max)
    }

    /// Makes a lock, free, for so many. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: for nobody, or for more than 65,536; the offset is not aligned or not within the mapping, or the mapping is
    /// private. `EFAULT`: the memory is gone.
    pub fn in_mapping(mapping: &'a Mapping, offset: usize, holders_max: u32) -> Result<RwLock<'a>> {
        let region = mapping.region("pthread_rwlock_init", offset, RwLock::size_bytes(1))?;
        RwLock::placed(engine::RwLock::init(region, 0, holders_max), mapping, offset)
    }

    /// The lock that another process has made.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none ([`Error::is_corrupted`]). Else as [`RwLock::in_mapping`].
    pub fn open_in_mapping(mapping: &'a Mapping, offset: usize) -> Result<RwLock<'a>> {
        let region = mapping.region("pthread_rwlock_init", offset, RwLock::size_bytes(1))?;
        RwLock::placed(engine::RwLock::open(region, 0), mapping, offset)
    }

    fn placed(
        outcome: ginnel_engine::Result<engine::RwLock<'a>>,
        mapping: &'a Mapping,
        offset: usize,
    ) -> Result<RwLock<'a>> {
        let explain =
            |errno| explain_place(Error::new("pthread_rwlock_init", errno, &NOUN), offset, RwLock::ALIGN);
        let witness = mapping.witness(offset..offset + RwLock::size_bytes(1));
        Ok(RwLock { lock: outcome.map_err(explain)?, mapping, witness })
    }

    /// Takes it for reading; waits while a writer holds it or came before.
    ///
    /// # Errors
    /// `EDEADLK`: it would wait for this thread. `ENOTRECOVERABLE`: a writer died, and the next did not put things right.
    /// `ENOLCK`: as many hold it or wait as it was made for, or this thread holds too many. `EUCLEAN`: it was overwritten.
    /// `EFAULT`: the memory is gone. `EOPNOTSUPP`: this thread's C library does not let its death be told.
    ///
    /// # Blocking
    /// While a writer is in front. No signal ends that.
    pub fn read(&self) -> Result<RwLockGuard<'_>> {
        self.read_deadline(Deadline::NEVER)
    }

    /// Takes it for reading if that needs no waiting.
    ///
    /// # Errors
    /// `EBUSY`: it does ([`Error::is_would_block`]). Else as [`RwLock::read`].
    pub fn try_read(&self) -> Result<RwLockGuard<'_>> {
        self.read_deadline(Deadline::NOW)
    }

    /// Takes it for reading; waits until the deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`RwLock::read`].
    pub fn read_deadline(&self, deadline: impl Into<Deadline>) -> Result<RwLockGuard<'_>> {
        self.take("pthread_rwlock_rdlock", || self.lock.read(deadline.into().patience()))
    }

    /// Takes it for writing; waits while anybody holds it or came before.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    ///
    /// # Blocking
    /// While anybody is in front. No signal ends that.
    pub fn write(&self) -> Result<RwLockGuard<'_>> {
        self.write_deadline(Deadline::NEVER)
    }

    /// Takes it for writing if nobody holds it.
    ///
    /// # Errors
    /// As [`RwLock::try_read`].
    pub fn try_write(&self) -> Result<RwLockGuard<'_>> {
        self.write_deadline(Deadline::NOW)
    }

    /// Takes it for writing; waits until the deadline.
    ///
    /// # Errors
    /// As [`RwLock::read_deadline`].
    pub fn write_deadline(&self, deadline: impl Into<Deadline>) -> Result<RwLockGuard<'_>> {
        self.take("pthread_rwlock_wrlock", || self.lock.write(deadline.into().patience()))
    }

    fn take(
        &self,
        operation: &'static str,
        take: impl FnOnce() -> ginnel_engine::Result<engine::Hold>,
    ) -> Result<RwLockGuard<'_>> {
        self.mapping.hold();
        match take() {
            Ok(hold) => {
                let guard = RwLockGuard { lock: self, hold: Some(hold), of_this_thread: PhantomData };
                self.check(operation)?;
                Ok(guard)
            }
            Err(errno) => {
                self.mapping.release();
                self.check(operation)?;
                Err(explain(Error::new(operation, errno, &NOUN)))
            }
        }
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        self.witness.as_ref().map_or(Ok(()), |witness| witness.check(operation, &NOUN))
    }
}

impl fmt::Debug for RwLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("mapping", self.mapping).finish_non_exhaustive()
    }
}

/// A [`RwLock`], held by this thread; given back when this is dropped.
///
/// A child made by `fork` does not hold its parent's locks: its copy of the guard gives nothing back.
///
/// ```
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::RwLock;
///
/// let memory = Anonymous::map(RwLock::size_bytes(8))?;
/// let lock = RwLock::in_mapping(&memory, 0, 8)?;
/// let guard = lock.write()?;
/// assert!(guard.is_write() && !guard.owner_died());
/// guard.unlock()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "it is given back when the guard is dropped"]
pub struct RwLockGuard<'m> {
    lock: &'m RwLock<'m>,
    hold: Option<engine::Hold>,
    /// The kernel tells the deaths of threads: another one must not give it back.
    of_this_thread: PhantomData<*const ()>,
}

impl RwLockGuard<'_> {
    /// Whether a writer died with it, and what it guards may be half changed.
    pub fn owner_died(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.locked() == Locked::OwnerDied)
    }

    /// Whether it is held for writing.
    pub fn is_write(&self) -> bool {
        self.hold.as_ref().is_some_and(engine::Hold::is_write)
    }

    /// What it guards has been put right, by this writer.
    ///
    /// # Errors
    /// `EINVAL`: no writer has died, or it is held for reading.
    pub fn mark_consistent(&self) -> Result<()> {
        let outcome = self.hold.as_ref().map_or(Ok(()), |hold| self.lock.lock.mark_consistent(hold));
        outcome.map_err(|errno| Error::new("pthread_mutex_consistent", errno, &NOUN))
    }

    /// Gives it back, and says whether that worked, which a drop does not.
    ///
    /// # Errors
    /// `EUCLEAN`: it was overwritten. `EPERM`: the thread that took it is another one (this is a forked child).
    pub fn unlock(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let outcome = self.lock.lock.unlock(hold);
        self.lock.mapping.release();
        self.lock.check("pthread_rwlock_unlock")?;
        outcome.map_err(|errno| explain(Error::new("pthread_rwlock_unlock", errno, &NOUN)))
    }
}

impl Drop for RwLockGuard<'_> {
    fn drop(&mut self) {
        // What is overwritten, or a parent's, is not ours to give back.
        let _ = self.give_back();
    }
}
