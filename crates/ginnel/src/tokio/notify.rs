//! Async forms of the notify family.
//!
//! A [`SignalFd`] gives the signals sent to the process, and those sent to the thread that reads: a task may run on any
//! of the runtime's threads, so send to the process, and block the signals before the runtime starts its threads.

use super::Async;
use crate::error::Result;
use crate::notify::{EventFd, Handler, Info, PidFd, SignalFd};

impl Async<SignalFd> {
    /// [`SignalFd::read`].
    ///
    /// # Errors
    /// As [`SignalFd::read`].
    pub async fn read(&self) -> Result<Info> {
        self.read_with(SignalFd::try_read).await
    }
}

impl Async<Handler> {
    /// [`Handler::wait`].
    ///
    /// # Errors
    /// As [`Handler::wait`].
    pub async fn wait(&self) -> Result<Info> {
        self.read_with(Handler::try_wait).await
    }
}

impl Async<EventFd> {
    /// [`EventFd::add`].
    ///
    /// # Errors
    /// As [`EventFd::add`].
    pub async fn add(&self, value: u64) -> Result<()> {
        self.write_with(|event| event.try_add(value)).await
    }

    /// [`EventFd::wait`].
    ///
    /// # Errors
    /// As [`EventFd::wait`].
    pub async fn wait(&self) -> Result<u64> {
        self.read_with(EventFd::try_wait).await
    }
}

impl Async<PidFd> {
    /// [`PidFd::wait`].
    ///
    /// # Errors
    /// As [`PidFd::wait`].
    pub async fn wait(&self) -> Result<()> {
        self.read_with(PidFd::try_wait).await
    }

    /// [`PidFd::reap`].
    ///
    /// # Errors
    /// As [`PidFd::reap`].
    pub async fn reap(&self) -> Result<Info> {
        self.read_with(PidFd::try_reap).await
    }
}
