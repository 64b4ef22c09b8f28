//! Permission to go on: semaphores, locks.

pub mod sysv_semaphore;
