//! The descriptors that the engine keeps open: for the files of objects, and for directories.
//!
//! A program knows nothing of them when it is served by the drop-in: it may count on its next descriptor being the lowest
//! free one, and may close all that it does not know. So a process can have them put above a number of its choice
//! ([`keep_from`]), and be told which are the engine's ([`is_kept`]), to leave them alone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// How many, from the least on, can be told from others.
const TOLD: usize = 1 << 16;

/// 0: they stay where they are.
static LEAST: AtomicI32 = AtomicI32::new(0);
static KEPT: [AtomicU64; TOLD / 64] = [const { AtomicU64::new(0) }; TOLD / 64];

/// From now on, has the engine's descriptors of this process be `least` or above, where the process may have so many.
///
/// ```
/// ginnel_engine::descriptor::keep_from(700);
/// assert!(!ginnel_engine::descriptor::is_kept(700), "nothing is open yet");
/// ```
pub fn keep_from(least: i32) {
    LEAST.store(least, Ordering::Relaxed);
}

/// Whether the number is that of a descriptor which the engine keeps open, and was put where [`keep_from`] says.
pub fn is_kept(number: i32) -> bool {
    place(number).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Those of which [`is_kept`] is true, from the least on.
pub fn all_kept() -> Vec<i32> {
    let least = LEAST.load(Ordering::Relaxed);
    let mut all = Vec::new();
    for (index, word) in KEPT.iter().enumerate() {
        let mut bits = word.load(Ordering::Relaxed);
        while bits != 0 {
            all.push(least + (index * 64) as i32 + bits.trailing_zeros() as i32);
            bits &= bits - 1;
        }
    }
    all
}

fn place(number: i32) -> Option<(&'static AtomicU64, u64)> {
    let least = LEAST.load(Ordering::Relaxed);
    let index = usize::try_from(number.checked_sub(least)?).ok().filter(|_| least > 0)?;
    Some((KEPT.get(index / 64)?, 1 << (index % 64)))
}

/// A descriptor that is kept open.
#[derive(Debug)]
pub(crate) struct Kept(OwnedFd);

impl Kept {
    pub(crate) fn new(descriptor: OwnedFd) -> Kept {
        let least = LEAST.load(Ordering::Relaxed);
        if least == 0 {
            return Kept(descriptor);
        }
        match rustix::io::fcntl_dupfd_cloexec(&descriptor, least) {
            Ok(moved) => {
                if let Some((word, bit)) = place(moved.as_raw_fd()) {
                    word.fetch_or(bit, Ordering::Relaxed);
                }
                Kept(moved)
            }
            // The process may not have so many.
            Err(_) => Kept(descriptor),
        }
    }
}

impl Kept {
    /// The number is somebody else's by now, or nobody's: it is not closed, and not told from others any more.
    pub(crate) fn forget(self) {
        self.untell();
        std::mem::forget(self);
    }

    /// As [`Kept::forget`], with another in its place, which may get the same number.
    pub(crate) fn replace(&mut self, descriptor: OwnedFd) {
        self.untell();
        std::mem::forget(std::mem::replace(self, Kept::new(descriptor)));
    }

    fn untell(&self) {
        if let Some((word, bit)) = place(self.0.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Kept {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.untell();
    }
}
