#![allow(unsafe_code)]
//! Numbers that the tracer and the shell leave for each other: memory that both map, as a pipe for them would be in the
//! picture.
//!
//! ```text
//! | highest descriptor | pid of stage 0 | its wait status | pid of stage 1 | its wait status | …
//! ```
//!
//! Neither side waits on it: each reads what the other wrote before a stop, or before its end.

use crate::{Error, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// No wait status is negative.
pub(super) const NOT_YET: i32 = -1;

pub(super) struct Board {
    cells: NonNull<AtomicI32>,
    count: usize,
}

impl Board {
    pub(super) fn new(stages: usize) -> Result<Self> {
        let count = 1 + 2 * stages;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let memory =
            unsafe { mmap_anonymous(ptr::null_mut(), count * size_of::<AtomicI32>(), protection, flags) }
                .map_err(|errno| Error::new("mmap", "the board of tracer and shell", errno))?;
        let cells = NonNull::new(memory.cast()).expect("mmap gives no null");
        let board = Self { cells, count };
        (0..stages).for_each(|stage| board.status(stage).store(NOT_YET, SeqCst));
        Ok(board)
    }

    /// From the tracer: the highest descriptor that the shell has inherited.
    pub(super) fn highest_descriptor(&self) -> &AtomicI32 {
        &self.cells()[0]
    }

    /// From the shell: the process of a stage.
    pub(super) fn pid(&self, stage: usize) -> &AtomicI32 {
        &self.cells()[1 + 2 * stage]
    }

    /// From the shell: what `waitpid(2)` gave for a stage, or [`NOT_YET`].
    pub(super) fn status(&self, stage: usize) -> &AtomicI32 {
        &self.cells()[2 + 2 * stage]
    }

    fn cells(&self) -> &[AtomicI32] {
        // SAFETY: the mapping has `count` cells, is page-aligned, starts as zeros, and lives as long as `self`. The other
        // process writes to it too, by atomics only.
        unsafe { slice::from_raw_parts(self.cells.as_ptr(), self.count) }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, and all borrows of it have ended. The shell has a mapping of its own.
        let unmapped = unsafe { munmap(self.cells.as_ptr().cast(), self.count * size_of::<AtomicI32>()) };
        debug_assert!(unmapped.is_ok());
    }
}
