//! Messages.

mod notice;
pub(crate) mod posix_queue;
pub(crate) mod sysv_queue;
