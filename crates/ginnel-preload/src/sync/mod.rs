//! Semaphores.

mod posix_semaphore;
pub(crate) mod sysv_semaphore;
