//! Async forms on tokio, under the same names.
//!
//! What has a descriptor is wrapped in [`Async`] and waits in tokio's reactor:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ginnel::Result<()> {
//! use ginnel::notify::EventFd;
//! use ginnel::tokio::Async;
//!
//! let event = EventFd::new()?;
//! let other_end = event.try_clone()?;
//! let event = Async::new(event)?;
//! let (sum, sent) = tokio::join!(event.wait(), async { other_end.add(3) });
//! assert_eq!((sum?, sent?), (3, ()));
//! # Ok(()) }
//! ```
//!
//! What has none (System V objects, but for queues in a user-space home; POSIX semaphores, record locks) gives the kernel
//! nothing that a reactor could wait on. Those try, and try again after a pause that grows from 50 us to 5 ms: no thread a call, nothing lost when the
//! future is dropped, and at the most 200 short system calls a second while waiting.
//!
//! A deadline is `tokio::time::timeout` around the call. Every future here may be dropped at any await: a message is
//! either received by the caller or still where it was.

#![allow(unsafe_code)]

mod message;
mod notify;
mod stream;
mod sync;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::error::{Error, Label, Result};

/// A mechanism with a descriptor, in tokio's reactor.
///
/// The mechanism's `try_` form does the work and this type does the waiting; the descriptor's `O_NONBLOCK`, which other
/// processes may share, is left as it is. Make it once per mechanism and keep it: it registers a duplicate of the
/// descriptor, which is closed with it.
///
/// What has no method here is done by [`read_with`](Async::read_with) and [`write_with`](Async::write_with):
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ginnel::Result<()> {
/// use ginnel::notify::{PidFd, Signal};
/// use ginnel::tokio::Async;
///
/// let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
/// let process = Async::new(PidFd::of_child(&child)?)?;
/// process.get_ref().send(Signal::TERM)?;
/// let end = process.read_with(PidFd::try_change).await?;
/// assert_eq!(end.status, Some(Signal::TERM.number()));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Async<T: AsFd> {
    reactor: AsyncFd<OwnedFd>,
    mechanism: T,
}

impl<T: AsFd> Async<T> {
    /// Registers `mechanism` with the runtime of the calling task.
    ///
    /// # Errors
    /// `EPERM`: the descriptor cannot be polled (a plain file). `EMFILE`, `ENOMEM`, `ENOSPC`
    /// (`fs.epoll.max_user_watches`).
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one without the I/O driver.
    pub fn new(mechanism: T) -> Result<Async<T>> {
        let reactor = register(mechanism.as_fd())?;
        Ok(Async { reactor, mechanism })
    }

    /// The mechanism.
    pub fn get_ref(&self) -> &T {
        &self.mechanism
    }

    /// Takes the mechanism out of the reactor.
    pub fn into_inner(self) -> T {
        self.mechanism
    }

    /// Runs `attempt`, a `try_` form that reads, until it no longer says "would block".
    ///
    /// # Errors
    /// What `attempt` fails with.
    pub async fn read_with<R>(&self, mut attempt: impl FnMut(&T) -> Result<R>) -> Result<R> {
        wait_with(&self.reactor, Interest::READABLE, || attempt(self.get_ref())).await
    }

    /// Runs `attempt`, a `try_` form that writes, until it no longer says "would block".
    ///
    /// # Errors
    /// What `attempt` fails with.
    pub async fn write_with<R>(&self, mut attempt: impl FnMut(&T) -> Result<R>) -> Result<R> {
        wait_with(&self.reactor, Interest::WRITABLE, || attempt(self.get_ref())).await
    }
}

fn register(descriptor: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    let duplicate = descriptor.try_clone_to_owned().map_err(|error| failed("dup", &error))?;
    // SAFETY: an OwnedFd is one descriptor, which stays open until the AsyncFd that owns it has deregistered it.
    unsafe { AsyncFd::register(duplicate) }.map_err(|error| failed("epoll_ctl", &io::Error::from(error)))
}

/// Runs `attempt` each time that the reactor says "ready", until it no longer says "would block".
async fn wait_with<R>(
    reactor: &AsyncFd<OwnedFd>,
    interest: Interest,
    mut attempt: impl FnMut() -> Result<R>,
) -> Result<R> {
    loop {
        let mut ready = reactor.ready(interest).await.map_err(|error| failed("epoll_wait", &error))?;
        match attempt() {
            Err(error) if error.is_would_block() => ready.clear_ready(),
            other => return other,
        }
    }
}

fn failed(operation: &'static str, error: &io::Error) -> Error {
    Error::from_io(operation, error, &Label::from("tokio"))
}

const PAUSE_FIRST: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// Runs `attempt`, a `try_` form of something without a descriptor, until it no longer says "would block".
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ginnel::Result<()> {
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue};
///
/// let queue = SysvQueue::private()?;
/// queue.send(1, b"hello")?;
/// let mut buffer = [0; 64];
/// let got = ginnel::tokio::retry(|| queue.try_recv(Select::Any, &mut buffer)).await?;
/// assert_eq!(got.len, 5);
/// # Ok(()) }
/// ```
///
/// # Errors
/// What `attempt` fails with.
pub async fn retry<R>(mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
    let mut pause = PAUSE_FIRST;
    loop {
        match attempt() {
            Err(error) if error.is_would_block() => {
                ::tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            other => return other,
        }
    }
}

/// A mechanism without a descriptor, with async forms of the same names as its blocking ones.
///
/// Waits as [`retry`] does: by trying, with a pause that grows from 50 us to 5 ms. A [`SysvQueue`] in a user-space home
/// has a descriptor after all, and waits in the reactor.
///
/// [`SysvQueue`]: crate::message::SysvQueue
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ginnel::Result<()> {
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue};
/// use ginnel::tokio::Polled;
///
/// let queue = Polled::new(SysvQueue::private()?);
/// queue.send(1, b"hello").await?;
/// let mut buffer = [0; 64];
/// assert_eq!(queue.recv(Select::Any, &mut buffer).await?.len, 5);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Polled<T>(T);

impl<T> Polled<T> {
    /// Gives `mechanism` its async forms.
    pub fn new(mechanism: T) -> Polled<T> {
        Polled(mechanism)
    }

    /// The mechanism.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// Gives the mechanism back.
    pub fn into_inner(self) -> T {
        self.0
    }
}
