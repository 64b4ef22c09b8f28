//! Objects through which whole messages pass: queues.

pub(crate) mod doorbell;
pub mod posix_queue;
pub mod sysv_queue;
