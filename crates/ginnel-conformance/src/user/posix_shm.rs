//! `shm_open(3)` over `ginnel_engine::memory::posix_shm`.

use std::os::fd::IntoRawFd;

use ginnel_engine::memory::posix_shm::PosixShm;

use super::User;
use crate::Result;
use crate::home::PosixMemory;

impl PosixMemory for User {
    fn shm_open(&self, name: &str, flags: i32, mode: u32) -> Result<i32> {
        PosixShm::open(&self.namespace, name.as_bytes(), flags, mode).map(IntoRawFd::into_raw_fd)
    }

    fn shm_unlink(&self, name: &str) -> Result<()> {
        PosixShm::unlink(&self.namespace, name.as_bytes())
    }
}
