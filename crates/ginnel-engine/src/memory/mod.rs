//! Shared memory: System V segments, POSIX shared memory.

pub(crate) mod attachments;
