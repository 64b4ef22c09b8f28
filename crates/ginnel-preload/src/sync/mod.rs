//! Semaphores.

mod posix_semaphore;
mod sysv_semaphore;
