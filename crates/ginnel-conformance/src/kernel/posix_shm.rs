//! `shm_overview(7)`: glibc's, on the kernel's memory file system.

use super::{Behind, Symbols, done, number};
use crate::Result;
use crate::home::PosixMemory;

impl<B: Behind> PosixMemory for Symbols<B> {
    fn shm_open(&self, name: &str, flags: i32, mode: u32) -> Result<i32> {
        // SAFETY: the name is NUL-terminated.
        number(unsafe { libc::shm_open(self.name(name)?.as_ptr(), flags, mode) })
    }

    fn shm_unlink(&self, name: &str) -> Result<()> {
        // SAFETY: the name is NUL-terminated.
        done(unsafe { libc::shm_unlink(self.name(name)?.as_ptr()) })
    }
}
