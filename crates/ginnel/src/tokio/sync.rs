//! Async forms of the sync family.

use std::ops::RangeBounds;

use super::{Polled, retry};
use crate::error::Result;
use crate::sync::posix_semaphore::Unit;
use crate::sync::{
    Flock, FlockGuard, LockKind, Operation, Permit, PosixSemaphore, RecordGuard, RecordLocks, SysvSemaphores,
    UnnamedSemaphore,
};

impl Polled<SysvSemaphores> {
    /// [`SysvSemaphores::operate`], in which [`Operation::no_wait`] has no meaning: a try does not say which step it
    /// was that would have to wait.
    ///
    /// # Errors
    /// As [`SysvSemaphores::operate`].
    pub async fn operate(&self, operations: &[Operation]) -> Result<()> {
        retry(|| self.0.try_operate(operations)).await
    }

    /// [`SysvSemaphores::wait`].
    ///
    /// # Errors
    /// As [`SysvSemaphores::wait`].
    pub async fn wait(&self, index: u16) -> Result<()> {
        retry(|| self.0.try_wait(index)).await
    }

    /// [`SysvSemaphores::wait_zero`].
    ///
    /// # Errors
    /// As [`SysvSemaphores::wait_zero`].
    pub async fn wait_zero(&self, index: u16) -> Result<()> {
        retry(|| self.0.try_wait_zero(index)).await
    }

    /// [`SysvSemaphores::acquire`].
    ///
    /// # Errors
    /// As [`SysvSemaphores::acquire`].
    pub async fn acquire(&self, units: &[(u16, u16)]) -> Result<Permit<'_>> {
        retry(|| self.0.try_acquire(units)).await
    }
}

impl Polled<PosixSemaphore> {
    /// [`Semaphore::wait`](crate::sync::Semaphore::wait).
    ///
    /// # Errors
    /// As [`Semaphore::wait`](crate::sync::Semaphore::wait).
    pub async fn wait(&self) -> Result<()> {
        retry(|| self.0.try_wait()).await
    }

    /// [`Semaphore::acquire`](crate::sync::Semaphore::acquire).
    ///
    /// # Errors
    /// As [`Semaphore::acquire`](crate::sync::Semaphore::acquire).
    pub async fn acquire(&self) -> Result<Unit<'_>> {
        retry(|| self.0.try_acquire()).await
    }
}

impl Polled<UnnamedSemaphore<'_>> {
    /// [`Semaphore::wait`](crate::sync::Semaphore::wait).
    ///
    /// # Errors
    /// As [`Semaphore::wait`](crate::sync::Semaphore::wait).
    pub async fn wait(&self) -> Result<()> {
        retry(|| self.0.try_wait()).await
    }

    /// [`Semaphore::acquire`](crate::sync::Semaphore::acquire).
    ///
    /// # Errors
    /// As [`Semaphore::acquire`](crate::sync::Semaphore::acquire).
    pub async fn acquire(&self) -> Result<Unit<'_>> {
        retry(|| self.0.try_acquire()).await
    }
}

impl Polled<RecordLocks> {
    /// [`RecordLocks::lock`]. A circle of waiters is not found: nobody waits in the kernel.
    ///
    /// # Errors
    /// As [`RecordLocks::lock`].
    pub async fn lock(&self, range: impl RangeBounds<u64>, kind: LockKind) -> Result<RecordGuard<'_>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        retry(|| self.0.try_lock(range, kind)).await
    }
}

impl Polled<Flock> {
    /// [`Flock::lock`].
    ///
    /// # Errors
    /// As [`Flock::lock`].
    pub async fn lock(&self, kind: LockKind) -> Result<FlockGuard<'_>> {
        retry(|| self.0.try_lock(kind)).await
    }
}
