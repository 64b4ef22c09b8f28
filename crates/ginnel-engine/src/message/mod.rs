//! Whole messages: queues.

pub mod posix_queue;
pub mod sysv_queue;
