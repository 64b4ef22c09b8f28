//! Process-shared mutex, robust: `pthread_mutex_lock(3p)`, `pthread_mutexattr_setrobust(3)`, `get_robust_list(2)`.
//!
//! # What a user sees
//! A lock in memory that processes share: the bytes at an offset of a [`Mapping`]. Locked and unlocked without a system
//! call unless somebody has to wait. Who holds it may be killed: the next one gets it at once, and is told
//! ([`MutexGuard::owner_died`]), since what it guards may be half changed. It puts that right and says so
//! ([`MutexGuard::mark_consistent`]); gives it back without, and nobody gets it any more (`ENOTRECOVERABLE`).
//!
//! Differences from the C library's: it is found wherever it is mapped, by whoever knows the offset; locking it twice is
//! `EDEADLK`; memory that is overwritten is an error (`EUCLEAN`) and not undefined. A C program cannot use it.
//!
//! # How it works inside
//! `ginnel_engine::sync::mutex`. The kernel's list of a thread's locks runs through the memory, so a mapping in which a
//! guard was forgotten is never unmapped.

use std::fmt;
use std::marker::PhantomData;

use ginnel_engine::sync::mutex as engine;
use rustix::io::Errno;

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::memory::{Mapping, Witness};

const NOUN: Label = Label::Static("mutex");

/// A mutex in shared memory.
///
/// ```
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::Mutex;
///
/// let memory = Anonymous::map(4096)?; // for the children of this process
/// let mutex = Mutex::in_mapping(&memory, 0)?;
/// {
///     let guard = mutex.lock()?;
///     if guard.owner_died() {
///         memory.write_at(Mutex::BYTES, 0_u64)?; // whatever puts it right
///         guard.mark_consistent()?;
///     }
///     let count = memory.read_at::<u64>(Mutex::BYTES)?;
///     memory.write_at(Mutex::BYTES, count + 1)?;
///     assert_eq!(mutex.lock().unwrap_err().errno_name(), "EDEADLK", "this thread holds it");
/// }
/// let elsewhere = Mutex::open_in_mapping(&memory, 0)?; // in another process, as a rule
/// drop(elsewhere.try_lock()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct Mutex<'a> {
    mutex: engine::Mutex<'a>,
    mapping: &'a Mapping,
    witness: Option<Witness>,
}

impl<'a> Mutex<'a> {
    /// The bytes that a mutex takes.
    pub const BYTES: usize = engine::Mutex::SIZE;
    /// What its address is a multiple of.
    pub const ALIGN: usize = engine::Mutex::ALIGN;

    /// Makes a mutex, free. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: the offset is not aligned or not within the mapping, or the mapping is private. `EFAULT`: the memory is
    /// gone.
    pub fn in_mapping(mapping: &'a Mapping, offset: usize) -> Result<Mutex<'a>> {
        Mutex::place(mapping, offset, engine::Mutex::init)
    }

    /// The mutex that another process has made.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none ([`Error::is_corrupted`]). Else as [`Mutex::in_mapping`].
    pub fn open_in_mapping(mapping: &'a Mapping, offset: usize) -> Result<Mutex<'a>> {
        Mutex::place(mapping, offset, engine::Mutex::open)
    }

    fn place(
        mapping: &'a Mapping,
        offset: usize,
        place: fn(ginnel_engine::sync::region::Region<'a>, usize) -> Result<engine::Mutex<'a>, Errno>,
    ) -> Result<Mutex<'a>> {
        let region = mapping.region("pthread_mutex_init", offset, Mutex::BYTES)?;
        let mutex = place(region, 0).map_err(|errno| {
            explain_place(Error::new("pthread_mutex_init", errno, &NOUN), offset, Mutex::ALIGN)
        })?;
        Ok(Mutex { mutex, mapping, witness: mapping.witness(offset..offset + Mutex::BYTES) })
    }

    /// Locks it; waits while another thread holds it, of this process or of another.
    ///
    /// # Errors
    /// `EDEADLK`: this thread holds it ([`Error::is_deadlock`]). `ENOTRECOVERABLE`: a holder died, and the next did not put
    /// things right. `ENOLCK`: this thread holds too many. `EUCLEAN`: it was overwritten. `EFAULT`: the memory is gone.
    /// `EOPNOTSUPP`: this thread's C library does not let its death be told.
    ///
    /// # Blocking
    /// While another holds it. No signal ends that.
    pub fn lock(&self) -> Result<MutexGuard<'_>> {
        self.lock_deadline(Deadline::NEVER)
    }

    /// Locks it if nobody holds it.
    ///
    /// # Errors
    /// `EBUSY`: somebody does ([`Error::is_would_block`]). Else as [`Mutex::lock`].
    pub fn try_lock(&self) -> Result<MutexGuard<'_>> {
        self.lock_deadline(Deadline::NOW)
    }

    /// Locks it; waits until the deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`Mutex::lock`].
    pub fn lock_deadline(&self, deadline: impl Into<Deadline>) -> Result<MutexGuard<'_>> {
        let deadline = deadline.into();
        let operation = match deadline {
            Deadline::NEVER => "pthread_mutex_lock",
            Deadline::NOW => "pthread_mutex_trylock",
            _ => "pthread_mutex_clocklock",
        };
        self.mapping.hold();
        match self.mutex.lock(deadline.patience()) {
            Ok(locked) => {
                let guard = MutexGuard {
                    mutex: self,
                    is_held: true,
                    owner_died: locked == engine::Locked::OwnerDied,
                    of_this_thread: PhantomData,
                };
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

impl fmt::Debug for Mutex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("mapping", self.mapping).finish_non_exhaustive()
    }
}

/// A [`Mutex`], locked by this thread; unlocked when this is dropped.
///
/// A child made by `fork` does not hold its parent's locks: its copy of the guard unlocks nothing.
///
/// ```
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::Mutex;
///
/// let memory = Anonymous::map(4096)?;
/// let mutex = Mutex::in_mapping(&memory, 0)?;
/// std::thread::scope(|scope| {
///     // Ends with the mutex, as one that is killed.
///     scope.spawn(|| std::mem::forget(mutex.lock()));
/// });
/// let guard = mutex.lock()?;
/// assert!(guard.owner_died());
/// guard.mark_consistent()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "it is unlocked when the guard is dropped"]
pub struct MutexGuard<'m> {
    mutex: &'m Mutex<'m>,
    is_held: bool,
    owner_died: bool,
    /// The kernel tells the deaths of threads: another one must not unlock it.
    of_this_thread: PhantomData<*const ()>,
}

impl MutexGuard<'_> {
    /// Whether its last holder died with it (`EOWNERDEAD`), and what it guards may be half changed.
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// What it guards has been put right (`pthread_mutex_consistent(3)`).
    ///
    /// # Errors
    /// `EINVAL`: its last holder did not die, or this was said already.
    pub fn mark_consistent(&self) -> Result<()> {
        let outcome = self.mutex.mutex.mark_consistent();
        outcome.map_err(|errno| Error::new("pthread_mutex_consistent", errno, &NOUN))
    }

    /// Unlocks it, and says whether that worked, which a drop does not.
    ///
    /// # Errors
    /// `EUCLEAN`: it was overwritten; this thread holds it no more. `EPERM`: the thread that locked it is another one (this
    /// is a forked child).
    pub fn unlock(mut self) -> Result<()> {
        self.give_back()
    }

    /// Sleeps by `sleep`, which gives the mutex back meanwhile: see `condvar`.
    pub(super) fn sleep(
        &mut self,
        sleep: impl FnOnce(&engine::Mutex<'_>) -> Result<engine::Locked, Errno>,
    ) -> Result<(), Errno> {
        if !self.is_held {
            return Err(Errno::PERM);
        }
        match sleep(&self.mutex.mutex) {
            Ok(locked) => self.owner_died |= locked == engine::Locked::OwnerDied,
            Err(errno @ (Errno::TIMEDOUT | Errno::PERM)) => return Err(errno),
            Err(errno) => {
                self.is_held = false;
                self.mutex.mapping.release();
                return Err(errno);
            }
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_held) {
            return Ok(());
        }
        let outcome = self.mutex.mutex.unlock();
        self.mutex.mapping.release();
        self.mutex.check("pthread_mutex_unlock")?;
        outcome.map_err(|errno| explain(Error::new("pthread_mutex_unlock", errno, &NOUN)))
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        // What is overwritten, or a parent's, is not ours to unlock.
        let _ = self.give_back();
    }
}

/// What is wrong with a place for a lock.
pub(super) fn explain_place(error: Error, offset: usize, align: usize) -> Error {
    match error.raw() {
        Errno::INVAL => error.with_hint(format!(
            "at offset {offset} it does not fit into the mapping, or its address is no multiple of {align}"
        )),
        Errno::UCLEAN => error.with_hint(format!("at offset {offset}, nobody has made one")),
        _ => error,
    }
}

pub(super) fn explain(error: Error) -> Error {
    match error.raw() {
        Errno::DEADLK => error.with_hint("this thread holds it already"),
        Errno::NOTRECOVERABLE => error.with_hint(
            "its holder died, and the next one gave it back without `mark_consistent`; make it anew",
        ),
        Errno::NOLCK => error.with_hint("this thread holds too many, or as many hold it as it was made for"),
        Errno::UCLEAN => error.with_hint("somebody wrote over it; make it anew"),
        _ => error,
    }
}
