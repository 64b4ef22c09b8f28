//! The descriptors by which `ginnel run --private` knows that somebody is left who may use the namespace.
//!
//! The program inherits a locked descriptor of the namespace's directory, and so do all that it starts; the namespace goes when
//! the last one is closed. Daemons, and whoever starts other programs with care, close all descriptors that they do not know:
//! to them these are not open, like the engine's own. `GINNEL_HELD` says which they are, and of which file: in a process
//! that has got the variable and not the descriptor, the number is the program's.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ginnel_engine::descriptor;

/// `number:device:inode`, one for each private namespace that this process is within, with commas between.
const VARIABLE: &CStr = c"GINNEL_HELD";
/// Namespaces within namespaces: of more, those beyond can be closed.
const HELD_MAX: usize = 4;

struct Held {
    number: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

static HELD: [Held; HELD_MAX] =
    [const { Held { number: AtomicI32::new(-1), device: AtomicU64::new(0), inode: AtomicU64::new(0) } };
        HELD_MAX];

/// Reads the variable, when the library is loaded.
pub(crate) fn load() {
    // SAFETY: the loader runs this before the program's own threads, so nobody changes the environment meanwhile.
    let value = unsafe {
        let value = libc::getenv(VARIABLE.as_ptr());
        if value.is_null() {
            return;
        }
        CStr::from_ptr(value)
    };
    let Ok(all) = value.to_str() else { return };
    for (place, one) in HELD.iter().zip(all.split(',')) {
        let mut numbers = one.split(':');
        let mut next = || numbers.next().and_then(|number| number.parse::<u64>().ok());
        let (Some(number), Some(device), Some(inode)) = (next(), next(), next()) else { continue };
        place.device.store(device, Ordering::Relaxed);
        place.inode.store(inode, Ordering::Relaxed);
        place.number.store(i32::try_from(number).unwrap_or(-1), Ordering::Relaxed);
    }
}

/// Whether the number is none of the program's: one of these, or the engine's.
#[inline]
pub(crate) fn is_kept(number: i32) -> bool {
    descriptor::is_kept(number) || is_held(number)
}

#[inline]
fn is_held(number: i32) -> bool {
    number >= 0 && HELD.iter().any(|held| held.number.load(Ordering::Relaxed) == number && held.is_open())
}

impl Held {
    /// Whether it is what the variable says.
    #[cold]
    fn is_open(&self) -> bool {
        // SAFETY: if it is not open, the kernel says so.
        let file = unsafe { BorrowedFd::borrow_raw(self.number.load(Ordering::Relaxed)) };
        rustix::fs::fstat(file).is_ok_and(|status| {
            status.st_dev == self.device.load(Ordering::Relaxed)
                && status.st_ino == self.inode.load(Ordering::Relaxed)
        })
    }
}

/// Those of which [`is_kept`] is true, from the least on.
pub(crate) fn all_kept() -> Vec<i32> {
    let held = HELD.iter().map(|held| held.number.load(Ordering::Relaxed)).filter(|number| is_held(*number));
    let mut all: Vec<i32> = descriptor::all_kept().into_iter().chain(held).collect();
    all.sort_unstable();
    all
}
