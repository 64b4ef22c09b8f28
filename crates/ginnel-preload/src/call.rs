//! How a C function answers: a value, or -1 (a null pointer) and `errno(3)`.

#![allow(unsafe_code)]

use ginnel_engine::{Errno, Result};

/// What a C function gives back when it fails.
pub(crate) trait Answer {
    const FAILED: Self;
}

impl Answer for i32 {
    const FAILED: i32 = -1;
}

impl Answer for isize {
    const FAILED: isize = -1;
}

impl Answer for i64 {
    const FAILED: i64 = -1;
}

impl<T> Answer for *mut T {
    const FAILED: *mut T = std::ptr::null_mut();
}

/// Does the work of a call. `errno` is as it was if it succeeds, whatever was tried on the way.
#[inline]
pub(crate) fn answer<T: Answer>(work: impl FnOnce() -> Result<T>) -> T {
    // SAFETY: the calling thread's own, for as long as it lives.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    match work() {
        Ok(value) => {
            *errno = before;
            value
        }
        Err(failed) => {
            *errno = failed.raw_os_error();
            T::FAILED
        }
    }
}

/// A cancellation point, as `pthreads(7)` lists them: a thread that was cancelled ends here.
///
/// The thread's stack is unwound from here on, through the frame of the C function that is served. So this is called where
/// that frame holds nothing that is to be dropped.
#[inline]
pub(crate) fn cancellation_point() {
    // Declared here: libc's declaration says that it does not unwind.
    unsafe extern "C-unwind" {
        fn pthread_testcancel();
    }
    // SAFETY: see above.
    unsafe { pthread_testcancel() };
}

/// `shmat(2)` gives `(void *) -1`.
pub(crate) fn address(outcome: isize) -> *mut libc::c_void {
    outcome as *mut libc::c_void
}

/// An address that can be somebody's. The kernel copies from and to any address and says `EFAULT` for one that is not mapped;
/// in the program's own process only those are told that never are.
#[inline]
pub(crate) fn mapped<T>(pointer: *const T) -> Result<()> {
    const PAGE: usize = 4096;
    /// Where the addresses of programs end.
    const END: usize = 1 << 47;
    if (PAGE..END).contains(&(pointer as usize)) { Ok(()) } else { Err(Errno::FAULT) }
}
