//! `shm_open(3)`, `shm_unlink(3)`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::IntoRawFd;

use ginnel_engine::memory::posix_shm::PosixShm;
use libc::{c_char, c_int, mode_t};

use crate::call::mapped;
use crate::home::serve;
use crate::next::next;

/// `shm_open(3)`: a descriptor of the namespace's file.
///
/// # Safety
/// As the C library's: `name` ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shm_open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    serve!(|home| {
        mapped(name)?;
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        Ok(PosixShm::open(home, name.to_bytes(), flags, mode)?.into_raw_fd())
    }, else next!(shm_open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int))
}

/// `shm_unlink(3)`.
///
/// # Safety
/// As [`shm_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shm_unlink(name: *const c_char) -> c_int {
    serve!(|home| {
        mapped(name)?;
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        PosixShm::unlink(home, name.to_bytes()).map(|()| 0)
    }, else next!(shm_unlink(name: *const c_char) -> c_int))
}
