//! Whole messages: queues.

pub mod sysv_queue;
