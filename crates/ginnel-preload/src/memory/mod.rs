//! Shared memory.

mod posix_shm;
mod sysv_segment;
