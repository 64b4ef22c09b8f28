//! A process-shared mutex: `pthread_mutex_lock(3p)`, `pthread_mutexattr_setrobust(3)`, `PTHREAD_MUTEX_ERRORCHECK`.
//!
//! # What a user sees
//! [`Mutex::lock`] and [`Mutex::unlock`], at any place of any shared mapping. Its holder may die at any instruction, of its
//! process or as a thread: who locks next is told [`Locked::OwnerDied`] and finds out what is half changed. If it says
//! [`Mutex::mark_consistent`], all is as before; if it unlocks without that, nobody gets the mutex any more
//! (`ENOTRECOVERABLE`). A holder that was stopped keeps it, and delays the others.
//!
//! Locking twice is `EDEADLK`, unlocking another's `EPERM`. A thread holds up to 480 at once, and gives them back in any
//! order. A child made by `fork` holds none of its parent's. All processes are of one PID namespace.
//!
//! # Why it is not the C library's
//! glibc's robust, process-shared, error-checking mutex (2.36) loses a sleeper: `A` unlocks and so wakes `B`; `D` locks
//! before `B` looks, and since the word shows nobody waiting then, sets no mark; `B` is killed. The kernel finds the mutex
//! to be `D`'s and wakes nobody; `D` unlocks, sees no mark and wakes nobody: `C` sleeps for ever at a free mutex. Here,
//! who sleeps is told by `arrivals`, which stay. And condition variables and read-write locks need to be told of the deaths
//! of those who want the mutex. See `robust` for how it works and the crash points.

use super::region::Region;
use super::robust::Robust;
use crate::Result;
use crate::primitive::Thread;
use crate::wait::Patience;

pub use super::robust::Locked;

/// "ginnelMu".
const MAGIC: u64 = u64::from_le_bytes(*b"ginnelMu");

/// A mutex in shared memory.
///
/// ```
/// use ginnel_engine::sync::mutex::{Locked, Mutex};
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::wait::Patience;
/// use ginnel_engine::Errno;
///
/// let region = Region::anonymous(4096)?;
/// let mutex = Mutex::init(region, 0)?;
/// std::thread::spawn(move || mutex.lock(Patience::Endless)).join().unwrap()?; // ends with the mutex
///
/// let elsewhere = Mutex::open(region, 0)?; // in another process, as a rule
/// assert_eq!(elsewhere.lock(Patience::Endless)?, Locked::OwnerDied);
/// elsewhere.mark_consistent()?; // having put right what it guards
/// assert_eq!(elsewhere.lock(Patience::Endless), Err(Errno::DEADLK));
/// elsewhere.unlock()?;
/// assert_eq!(elsewhere.unlock(), Err(Errno::PERM));
/// # Ok::<(), Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Mutex<'a> {
    robust: &'a Robust,
}

impl<'a> Mutex<'a> {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<Robust>();
    /// What its address is a multiple of.
    pub const ALIGN: usize = align_of::<Robust>();

    /// Makes a mutex, free. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: it does not lie within the region, or is not aligned.
    pub fn init(region: Region<'a>, offset: usize) -> Result<Mutex<'a>> {
        let robust: &Robust = region.place(offset)?;
        robust.init(MAGIC);
        Ok(Mutex { robust })
    }

    /// The mutex that somebody has made here.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none. `EINVAL` as [`Mutex::init`].
    pub fn open(region: Region<'a>, offset: usize) -> Result<Mutex<'a>> {
        let robust: &Robust = region.place(offset)?;
        robust.check(MAGIC)?;
        Ok(Mutex { robust })
    }

    /// Locks it.
    ///
    /// # Errors
    /// `EBUSY`: another holds it ([`Patience::None`]). `ETIMEDOUT`. `EDEADLK`: this thread holds it. `ENOTRECOVERABLE`: a
    /// holder died, and the next did not put it right. `ENOLCK`: this thread holds too many. `EUCLEAN`: it was overwritten.
    /// `EOPNOTSUPP`: this thread's C library would not let its death be told.
    ///
    /// # Blocking
    /// While another holds it. No signal ends that.
    #[inline]
    pub fn lock(&self, patience: Patience) -> Result<Locked> {
        self.robust.lock(Thread::current(), patience)
    }

    /// Unlocks it. If its former holder had died and nobody has said [`Mutex::mark_consistent`], for good.
    ///
    /// # Errors
    /// `EPERM`: this thread does not hold it. `EUCLEAN`: it was overwritten; this thread holds it no more.
    #[inline]
    pub fn unlock(&self) -> Result<()> {
        self.robust.unlock(Thread::current())
    }

    /// What it guards has been put right (`pthread_mutex_consistent(3)`).
    ///
    /// # Errors
    /// `EINVAL`: this thread did not get it from a dead holder, or has said so already.
    pub fn mark_consistent(&self) -> Result<()> {
        self.robust.mark_consistent(Thread::current())
    }

    /// Whether the calling thread holds it.
    pub fn is_held(&self) -> bool {
        self.robust.is_held(Thread::current())
    }

    pub(super) fn robust(&self) -> &'a Robust {
        self.robust
    }
}
