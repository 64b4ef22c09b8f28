//! Who talks to whom on this host.
//!
//! - [`descriptors`]: one process's descriptor table, as `/proc` has it.
//! - [`open_files`]: the open file table of several processes: which descriptors share one open file description.
//! - [`mod@picture`]: a pipeline launched call by call, with both tables after each call.

pub mod descriptors;
mod error;
pub mod open_files;
pub mod picture;

pub use error::{Error, Result};
