//! Whole messages: what is sent in one call is received in one call.
//!
//! | mechanism | boundaries kept by | selects | carries besides the payload |
//! | --- | --- | --- | --- |
//! | [`SysvQueue`] | the kernel's queue, by key | by type | a type |

pub mod sysv_queue;

pub use sysv_queue::{Select, SysvQueue};
