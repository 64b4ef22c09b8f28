//! `sem_overview(7)` over `ginnel_engine::sync::posix_semaphore`.
//!
//! A fork has open what its parent has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::wait::Patience;

use super::User;
use crate::home::PosixSemaphores;
use crate::{Errno, Result};

/// What this process has open, by handle.
#[derive(Debug, Default)]
pub(super) struct Semaphores {
    inner: Mutex<(usize, HashMap<usize, Arc<PosixSemaphore>>)>,
}

impl Semaphores {
    fn get(&self, handle: usize) -> Result<Arc<PosixSemaphore>> {
        self.inner.lock().expect("nobody panics with it").1.get(&handle).cloned().ok_or(Errno::INVAL)
    }
}

/// That much later, on that clock.
fn later(clock: rustix::time::ClockId, timeout: Duration) -> libc::timespec {
    let now = rustix::time::clock_gettime(clock);
    let sum = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + timeout;
    libc::timespec { tv_sec: sum.as_secs() as i64, tv_nsec: sum.subsec_nanos().into() }
}

impl PosixSemaphores for User {
    fn sem_open(&self, name: &str, flags: i32, mode: u32, value: u32) -> Result<usize> {
        let semaphore = PosixSemaphore::open(&self.namespace, name.as_bytes(), flags, mode, value)?;
        let mut inner = self.semaphores.inner.lock().expect("nobody panics with it");
        inner.0 += 1;
        let handle = inner.0;
        inner.1.insert(handle, Arc::new(semaphore));
        Ok(handle)
    }

    fn sem_close(&self, semaphore: usize) -> Result<()> {
        let mut inner = self.semaphores.inner.lock().expect("nobody panics with it");
        inner.1.remove(&semaphore).map(drop).ok_or(Errno::INVAL)
    }

    fn sem_unlink(&self, name: &str) -> Result<()> {
        PosixSemaphore::unlink(&self.namespace, name.as_bytes())
    }

    fn sem_wait(&self, semaphore: usize) -> Result<()> {
        self.semaphores.get(semaphore)?.semaphore().wait(Patience::Endless)
    }

    fn sem_trywait(&self, semaphore: usize) -> Result<()> {
        self.semaphores.get(semaphore)?.semaphore().wait(Patience::None)
    }

    fn sem_timedwait(&self, semaphore: usize, timeout: Duration) -> Result<()> {
        let until = later(rustix::time::ClockId::Realtime, timeout);
        self.semaphores.get(semaphore)?.semaphore().wait_clock(libc::CLOCK_REALTIME, until)
    }

    fn sem_clockwait(&self, semaphore: usize, timeout: Duration) -> Result<()> {
        let until = later(rustix::time::ClockId::Monotonic, timeout);
        self.semaphores.get(semaphore)?.semaphore().wait_clock(libc::CLOCK_MONOTONIC, until)
    }

    fn sem_post(&self, semaphore: usize) -> Result<()> {
        self.semaphores.get(semaphore)?.semaphore().post()
    }

    fn sem_getvalue(&self, semaphore: usize) -> Result<i32> {
        Ok(self.semaphores.get(semaphore)?.semaphore().value() as i32)
    }
}
