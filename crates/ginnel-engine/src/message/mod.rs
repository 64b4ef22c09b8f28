//! Objects through which whole messages pass.

pub mod posix_queue;
