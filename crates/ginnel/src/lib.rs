//! Every way that processes on a Unix host talk to each other, in one vocabulary.
//!
//! | family | what passes | module |
//! | --- | --- | --- |
//! | stream | bytes, no boundaries | [`stream`] |
//! | message | whole messages | [`message`] |
//! | memory | shared bytes | [`memory`] |
//! | sync | permission to go on | [`sync`] |
//! | notify | that something happened | [`notify`] |
//!
//! # One vocabulary
//!
//! Whatever can wait comes in three forms: `recv` waits, `try_recv` does not, `recv_deadline` waits until a
//! [`Deadline`]; with the feature `tokio` there is an async form of the same name. Everything fails with one
//! [`Error`], which names the call, the object and what to try. Objects that have a name are opened as files are:
//! `options()`, `open`, `create`. What has a descriptor gives it by `AsFd`, close-on-exec by default.
//!
//! ```
//! # ginnel_testkit::private();
//! use std::time::Duration;
//! use ginnel::message::{Select, SysvQueue};
//!
//! let queue = SysvQueue::private()?;
//! queue.send(7, b"over the garden wall")?;
//!
//! let mut buffer = [0; 64];
//! let got = queue.recv_deadline(Select::Any, &mut buffer, Duration::from_secs(1))?;
//! assert_eq!((got.message_type, &buffer[..got.len]), (7, &b"over the garden wall"[..]));
//!
//! let nothing = queue.recv_deadline(Select::Type(9), &mut buffer, Duration::from_millis(5));
//! assert!(nothing.unwrap_err().is_timed_out());
//! # Ok::<(), ginnel::Error>(())
//! ```

//! # Two homes
//!
//! System V and POSIX objects live in the kernel, where every program finds them, or in a user-space [`Namespace`]: a
//! directory of a memory file system, used through shared memory and futexes, with limits of one's own. The type is the
//! same:
//!
//! ```
//! # ginnel_testkit::private();
//! use ginnel::Namespace;
//! use ginnel::message::{Select, SysvQueue};
//!
//! fn over_the_wall(queue: &SysvQueue) -> ginnel::Result<Vec<u8>> {
//!     queue.send(7, b"a cup of sugar")?;
//!     Ok(queue.recv_vec(Select::Type(7))?.payload)
//! }
//! let kernels = SysvQueue::private()?;
//! let ours = SysvQueue::private_in(&Namespace::private()?)?;
//! assert_eq!(over_the_wall(&kernels)?, over_the_wall(&ours)?);
//!
//! let large = vec![1; 1 << 20]; // the kernel's longest message has 8 KiB
//! ours.try_send(1, &large)?;
//! assert_eq!(kernels.try_send(1, &large).unwrap_err().errno_name(), "EINVAL");
//! # Ok::<(), ginnel::Error>(())
//! ```

mod deadline;
mod error;
mod interrupt;
mod resolve;
mod unix_socket;
mod wait;

pub mod endpoint;
pub mod memory;
pub mod message;
pub mod namespace;
pub mod notify;
pub mod process;
pub mod stream;
pub mod sync;
pub mod sysv;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use deadline::Deadline;
pub use endpoint::Endpoint;
pub use error::{Error, Result};
pub use interrupt::deadline_signal;
pub use namespace::{Namespace, NamespaceOptions};
pub use unix_socket::{Credentials, UnixAddress};

/// The README's Rust is compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
