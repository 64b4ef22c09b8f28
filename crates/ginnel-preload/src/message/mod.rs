//! Messages.

mod sysv_queue;
