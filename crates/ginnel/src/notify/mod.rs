//! That something happened: signals, counters, the end of a process.
//!
//! | mechanism | tells | to whom | how many | waited for with |
//! | --- | --- | --- | --- | --- |
//! | [`Target::send`] | a standard signal, no data | a process, thread, group | one of a kind is pending, however many were sent | any of the four below |
//! | [`Target::queue`] | a real-time signal with a word | a process, thread | each one, in order, up to `RLIMIT_SIGPENDING` | any of the four below |
//! | [`EventFd`] | a number that is added up | who holds a descriptor of it | counted up to 2^64 - 2 | [`EventFd::wait`], `poll` |
//! | [`PidFd`] | that a process ended, and how | who holds one | once | [`PidFd::wait`], `poll` |
//! | [`Group`] | a signal to a job | all its processes | as a signal | [`Group::reap`] |
//!
//! Four ways to receive a signal:
//!
//! | | blocked first? | lost while nobody looks | a descriptor | in which thread |
//! | --- | --- | --- | --- | --- |
//! | [`SignalSet::wait`] | yes | no: stays pending | no | the one that waits |
//! | [`SignalFd`] | yes | no: stays pending | yes | the one that reads |
//! | [`Handler`] | no | past 512 unread | yes | any |
//! | [`Flag`] | no | counts to one | no | any |
//!
//! ```
//! use ginnel::notify::{Code, Signal, SignalSet, Target};
//!
//! // Ten standard signals of one kind are delivered as one, ten real-time signals as ten.
//! let realtime = Signal::realtime(1)?;
//! let signals = Signal::USR1 | realtime;
//! let _blocked = signals.block()?;
//! for number in 0..10 {
//!     Target::this_thread().send(Signal::USR1)?;
//!     Target::this_thread().queue(realtime, number)?;
//! }
//! assert_eq!(signals.wait()?.signal, Signal::USR1);
//! for number in 0..10 {
//!     let info = signals.wait()?;
//!     assert_eq!((info.signal, info.code), (realtime, Code::Queue));
//!     assert_eq!(info.payload.unwrap().int(), number);
//! }
//! assert!(signals.try_wait().unwrap_err().is_would_block());
//! # Ok::<(), ginnel::Error>(())
//! ```

use std::os::fd::{AsRawFd, BorrowedFd};

pub mod disposition;
pub mod eventfd;
pub mod group;
pub mod handler;
mod nonblocking;
pub mod pidfd;
pub mod siginfo;
pub mod signal;
pub mod signal_set;
pub mod signalfd;

pub use disposition::{Disposition, Status};
pub use eventfd::EventFd;
pub use group::{Foreground, Group, Session, is_foreground};
pub use handler::{Flag, Handler};
pub use pidfd::PidFd;
pub use siginfo::{Code, Info, Payload};
pub use signal::{DefaultAction, Signal, Target};
pub use signal_set::{MaskGuard, SignalSet};
pub use signalfd::SignalFd;

/// What `/proc` tells of a descriptor under `name`: a line of `/proc/thread-self/fdinfo/FD`.
fn fdinfo(fd: BorrowedFd<'_>, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
