//! Permission to go on: semaphores and locks.
//!
//! | mechanism | named by | a killed holder's share | finds deadlocks | costs a system call |
//! | --- | --- | --- | --- | --- |
//! | [`SysvSemaphores`] | a key | comes back, with undo ([`Permit`]) | no | always |
//! | [`PosixSemaphore`] | `/name` | is lost | no | only to wait and to wake |
//! | [`UnnamedSemaphore`] | its place in shared memory | is lost | no | only to wait and to wake |
//! | [`Mutex`], [`RwLock`] | its place in shared memory | comes back, and the next is told | of one's own with oneself | only to wait and to wake |
//! | [`Condvar`], [`Barrier`] | its place in shared memory | is passed on | no | only to wait and to wake |
//! | [`RecordLocks`] | a range of a file | comes back | with [`Owner::Process`](record_lock::Owner) | always |
//! | [`Flock`] | a file | comes back | no | always |

pub mod barrier;
pub mod condvar;
pub mod flock;
mod lock_table;
pub mod mutex;
pub mod posix_semaphore;
pub mod record_lock;
mod record_lock_raw;
pub mod rwlock;
pub mod sysv_semaphore;
pub mod sysv_semaphore_status;

pub use barrier::Barrier;
pub use condvar::Condvar;
pub use flock::{Flock, FlockGuard};
pub use mutex::{Mutex, MutexGuard};
pub use posix_semaphore::{PosixSemaphore, PosixSemaphoreOptions, Semaphore, UnnamedSemaphore};
pub use record_lock::{LockKind, RecordGuard, RecordLocks, RecordLocksOptions};
pub(crate) use record_lock_raw::LockedFile;
pub use rwlock::{RwLock, RwLockGuard};
pub use sysv_semaphore::{Operation, Permit, SysvSemaphores, SysvSemaphoresOptions};
