//! The clauses of the sync family.

pub mod posix_semaphore;
pub mod sysv_semaphore;
