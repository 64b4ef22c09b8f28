//! Objects through which whole messages pass: queues.

pub mod posix_queue;
pub mod sysv_queue;
