//! Shared memory: System V segments, POSIX shared memory.

mod area;
mod attached;
pub(crate) mod attachments;
pub mod posix_shm;
pub mod sysv_segment;
