//! Whole messages: what is sent in one call is received in one call.
//!
//! | mechanism | boundaries kept by | selects | carries besides the payload |
//! | --- | --- | --- | --- |
//! | [`SysvQueue`] | the kernel's queue, by key | by type | a type |
//! | [`PosixQueue`] | the kernel's queue, by name | highest priority | a priority |

mod posix_notify;
pub mod posix_queue;
pub mod sysv_queue;

pub use posix_queue::PosixQueue;
pub use sysv_queue::{Select, SysvQueue};
