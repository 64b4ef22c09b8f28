//! The user-space home: objects in files of a memory file system, used through shared memory and futexes.
//!
//! Not a home yet. What is here is the ground that every object will stand on, and the proof that it holds when a
//! process is killed at any instruction:
//!
//! | module | what |
//! | --- | --- |
//! | [`segment`] | an object's file, mapped: every access checked, space reserved before it is used |
//! | [`lock`] | the object's lock, whose holder's death the kernel tells, and the journal that undoes what the dead began |
//! | [`heap`] | memory inside a segment, which grows with what is in it and is given back |
//! | [`wait`] | an object's blocked operations: served in order, by whoever changes the object, and nobody left asleep |
//! | [`namespace`] | the directory that is the registry: keys, ids and names, who may use what, what the dead leave |
//! | [`sync`] | semaphores, locks |
//! | [`memory`] | System V segments, POSIX shared memory |
//! | [`message`] | System V and POSIX message queues |
//! | `links` | the words that the kernel marks when a thread dies |
//! | `process` | whether a process is gone |
//! | `spin` | looking again for a moment before sleeping |
//! | `primitive` | the only place that touches atomics of shared memory, futexes and the robust list |
//!
//! # What it never does
//! No kernel IPC call (`msg*`, `sem*`, `shm*`, `mq_*`). No system call but the futex's while the lock is held. No
//! reference to shared memory but to atomics. No pointer in a segment, only offsets, and each is checked when it is
//! used: whoever scribbles over a segment gives the others `EUCLEAN`, never a signal, never a hang.
//!
//! The engine's errors are bare errnos, the kernel's for the same situation; `EUCLEAN` for a segment that does not hold
//! what it must.

#[cfg(not(ginnel_model))]
mod links;
#[cfg(ginnel_model)]
#[path = "primitive/model.rs"]
mod primitive;
#[cfg(not(ginnel_model))]
mod primitive;
pub mod process;
mod spin;

pub mod descriptor;
pub mod heap;
pub mod lock;
pub mod memory;
pub mod message;
pub mod namespace;
pub mod segment;
pub mod sync;
pub mod wait;

/// Threads of a model, see `tests/model.rs`.
#[cfg(ginnel_model)]
pub mod model {
    pub use crate::primitive::{spawn, start, story};
}

/// What a call of the engine fails with: the errno that the kernel would give.
///
/// ```
/// use ginnel_engine::Errno;
///
/// assert_eq!(Errno::UCLEAN.raw_os_error(), 117, "a segment that does not hold what it must");
/// ```
pub type Errno = rustix::io::Errno;

/// What a call of the engine gives.
///
/// ```
/// fn only_once(value: u64) -> ginnel_engine::Result<u64> {
///     if value == 0 { Ok(1) } else { Err(ginnel_engine::Errno::AGAIN) }
/// }
/// assert_eq!(only_once(0), Ok(1));
/// ```
pub type Result<T> = std::result::Result<T, Errno>;
