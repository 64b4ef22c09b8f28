//! Shared memory.

mod posix_shm;
pub(crate) mod sysv_segment;
