//! The clauses of the message family.

pub mod posix_queue;
pub mod sysv_queue;
