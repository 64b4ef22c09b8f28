//! What belongs to an open queue, whichever process uses it: `O_NONBLOCK`, in a page that a fork shares.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::primitive::{AtomicU32, Ordering};
use crate::{Errno, Result};

const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct Flags(NonNull<AtomicU32>);

// SAFETY: the page belongs to this value until it is dropped, and is used through an atomic only.
unsafe impl Send for Flags {}
// SAFETY: as above.
unsafe impl Sync for Flags {}

impl Flags {
    pub(super) fn new(is_nonblocking: bool) -> Result<Flags> {
        // SAFETY: fresh memory, which nobody else knows of.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        let flags = Flags(NonNull::new(page.cast()).ok_or(Errno::NOMEM)?);
        flags.set_nonblocking(is_nonblocking);
        Ok(flags)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, and begins with zeroes, for as long as this value lives.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn is_nonblocking(&self) -> bool {
        self.word().load(Ordering::Relaxed) != 0
    }

    pub(super) fn set_nonblocking(&self, is_nonblocking: bool) {
        self.word().store(u32::from(is_nonblocking), Ordering::Relaxed);
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        // SAFETY: the page is this value's own, and no reference into it outlives it.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
