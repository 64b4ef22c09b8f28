//! Process-shared barrier: `pthread_barrier_wait(3p)`.
//!
//! # What a user sees
//! Threads of several processes go on together: each waits until as many have come as the barrier was made for. It serves
//! round after round. Who is killed while it waits counts no more; another takes its place.
//!
//! # How it works inside
//! `ginnel_engine::sync::barrier`.

use std::fmt;

use ginnel_engine::sync::barrier as engine;

use super::condvar::moment;
use super::mutex::{explain, explain_place};
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::memory::{Mapping, Witness};

const NOUN: Label = Label::Static("barrier");

/// A barrier in shared memory.
///
/// ```
/// use ginnel::memory::Anonymous;
/// use ginnel::sync::Barrier;
///
/// let memory = Anonymous::map(Barrier::size_bytes(3))?;
/// let start = Barrier::in_mapping(&memory, 0, 3)?;
/// let leaders = std::thread::scope(|scope| {
///     let parties: Vec<_> = (0..3).map(|_| scope.spawn(|| start.wait())).collect();
///     parties.into_iter().map(|party| party.join().unwrap()).collect::<ginnel::Result<Vec<_>>>()
/// })?;
/// assert_eq!(leaders.iter().filter(|leads| **leads).count(), 1);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct Barrier<'a> {
    barrier: engine::Barrier<'a>,
    mapping: &'a Mapping,
    witness: Option<Witness>,
}

impl<'a> Barrier<'a> {
    /// What its address is a multiple of.
    pub const ALIGN: usize = engine::Barrier::ALIGN;

    /// The bytes that a barrier for so many takes.
    pub const fn size_bytes(parties: u32) -> usize {
        engine::Barrier::size_bytes(parties)
    }

    /// Makes a barrier for so many. For the process that makes the memory, before the others use it.
    ///
    /// # Errors
    /// `EINVAL`: for nobody, or for more than 65,536; the offset is not aligned or not within the mapping, or the mapping is
    /// private. `EFAULT`: the memory is gone.
    pub fn in_mapping(mapping: &'a Mapping, offset: usize, parties: u32) -> Result<Barrier<'a>> {
        let region = mapping.region("pthread_barrier_init", offset, Barrier::size_bytes(1))?;
        Barrier::placed(engine::Barrier::init(region, 0, parties), mapping, offset)
    }

    /// The barrier that another process has made.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none ([`Error::is_corrupted`]). Else as [`Barrier::in_mapping`].
    pub fn open_in_mapping(mapping: &'a Mapping, offset: usize) -> Result<Barrier<'a>> {
        let region = mapping.region("pthread_barrier_init", offset, Barrier::size_bytes(1))?;
        Barrier::placed(engine::Barrier::open(region, 0), mapping, offset)
    }

    fn placed(
        outcome: ginnel_engine::Result<engine::Barrier<'a>>,
        mapping: &'a Mapping,
        offset: usize,
    ) -> Result<Barrier<'a>> {
        let explain =
            |errno| explain_place(Error::new("pthread_barrier_init", errno, &NOUN), offset, Barrier::ALIGN);
        let barrier = outcome.map_err(explain)?;
        let witness = mapping.witness(offset..offset + Barrier::size_bytes(barrier.parties()));
        Ok(Barrier { barrier, mapping, witness })
    }

    /// For how many it is.
    pub fn parties(&self) -> u32 {
        self.barrier.parties()
    }

    /// Waits until all have come: true for one of them in each round, the last to come.
    ///
    /// # Errors
    /// `EUCLEAN`: it was overwritten. `ENOLCK`: this thread holds too many locks. `EFAULT`: the memory is gone.
    /// `EOPNOTSUPP`: this thread's C library does not let its death be told.
    ///
    /// # Blocking
    /// Until all have come. No signal ends that.
    pub fn wait(&self) -> Result<bool> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// As [`Barrier::wait`], until the deadline.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed, and this one does not count. Else as [`Barrier::wait`].
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<bool> {
        let outcome = self.barrier.wait(moment(deadline.into()));
        if let Some(witness) = &self.witness {
            witness.check("pthread_barrier_wait", &NOUN)?;
        }
        outcome.map_err(|errno| explain(Error::new("pthread_barrier_wait", errno, &NOUN)))
    }
}

impl fmt::Debug for Barrier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("mapping", self.mapping).finish_non_exhaustive()
    }
}
