//! `sem_overview(7)`: glibc's, on the kernel's memory file system and futexes. A handle is the address of the `sem_t`.

use std::time::Duration;

use super::{Behind, Symbols, done, later};
use crate::home::PosixSemaphores;
use crate::{Errno, Result};

unsafe extern "C" {
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

fn at(semaphore: usize) -> *mut libc::sem_t {
    semaphore as *mut libc::sem_t
}

impl<B: Behind> PosixSemaphores for Symbols<B> {
    fn sem_open(&self, name: &str, flags: i32, mode: u32, value: u32) -> Result<usize> {
        let name = self.name(name)?;
        // SAFETY: the name is NUL-terminated.
        let semaphore = unsafe { libc::sem_open(name.as_ptr(), flags, mode, value) };
        if semaphore == libc::SEM_FAILED {
            // SAFETY: errno is the thread's own.
            return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
        }
        Ok(semaphore as usize)
    }

    fn sem_close(&self, semaphore: usize) -> Result<()> {
        // SAFETY: here and below, an open semaphore's handle.
        done(unsafe { libc::sem_close(at(semaphore)) })
    }

    fn sem_unlink(&self, name: &str) -> Result<()> {
        // SAFETY: the name is NUL-terminated.
        done(unsafe { libc::sem_unlink(self.name(name)?.as_ptr()) })
    }

    fn sem_wait(&self, semaphore: usize) -> Result<()> {
        // SAFETY: an open semaphore's handle.
        done(unsafe { libc::sem_wait(at(semaphore)) })
    }

    fn sem_trywait(&self, semaphore: usize) -> Result<()> {
        // SAFETY: an open semaphore's handle.
        done(unsafe { libc::sem_trywait(at(semaphore)) })
    }

    fn sem_timedwait(&self, semaphore: usize, timeout: Duration) -> Result<()> {
        // SAFETY: an open semaphore's handle; the call reads the timespec.
        done(unsafe { libc::sem_timedwait(at(semaphore), &later(libc::CLOCK_REALTIME, timeout)) })
    }

    fn sem_clockwait(&self, semaphore: usize, timeout: Duration) -> Result<()> {
        let clock = libc::CLOCK_MONOTONIC;
        // SAFETY: an open semaphore's handle; the call reads the timespec.
        done(unsafe { sem_clockwait(at(semaphore), clock, &later(clock, timeout)) })
    }

    fn sem_post(&self, semaphore: usize) -> Result<()> {
        // SAFETY: an open semaphore's handle.
        done(unsafe { libc::sem_post(at(semaphore)) })
    }

    fn sem_getvalue(&self, semaphore: usize) -> Result<i32> {
        let mut value = 0;
        // SAFETY: an open semaphore's handle; the call fills the value.
        done(unsafe { libc::sem_getvalue(at(semaphore), &mut value) })?;
        Ok(value)
    }
}
