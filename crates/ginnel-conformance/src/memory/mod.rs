//! The clauses of the memory family.

pub mod posix_shm;
pub mod sysv_segment;
