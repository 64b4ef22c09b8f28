//! The calls that change who the process is: what it may do with the objects that it has open is asked anew.
#![allow(unsafe_code)]

use ginnel_engine::process::credentials_may_have_changed;
use libc::{c_char, c_int, gid_t, size_t, uid_t};

use crate::next::next;

fn changed(outcome: c_int) -> c_int {
    credentials_may_have_changed();
    outcome
}

/// `setuid(2)`.
///
/// # Safety
/// As the C library's, as all in here.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setuid(user: uid_t) -> c_int {
    changed(next!(setuid(user: uid_t) -> c_int))
}

/// `seteuid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn seteuid(user: uid_t) -> c_int {
    changed(next!(seteuid(user: uid_t) -> c_int))
}

/// `setreuid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setreuid(real: uid_t, effective: uid_t) -> c_int {
    changed(next!(setreuid(real: uid_t, effective: uid_t) -> c_int))
}

/// `setresuid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int {
    changed(next!(setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int))
}

/// `setgid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setgid(group: gid_t) -> c_int {
    changed(next!(setgid(group: gid_t) -> c_int))
}

/// `setegid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setegid(group: gid_t) -> c_int {
    changed(next!(setegid(group: gid_t) -> c_int))
}

/// `setregid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setregid(real: gid_t, effective: gid_t) -> c_int {
    changed(next!(setregid(real: gid_t, effective: gid_t) -> c_int))
}

/// `setresgid(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setresgid(real: gid_t, effective: gid_t, saved: gid_t) -> c_int {
    changed(next!(setresgid(real: gid_t, effective: gid_t, saved: gid_t) -> c_int))
}

/// `setgroups(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setgroups(count: size_t, groups: *const gid_t) -> c_int {
    changed(next!(setgroups(count: size_t, groups: *const gid_t) -> c_int))
}

/// `initgroups(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn initgroups(user: *const c_char, group: gid_t) -> c_int {
    changed(next!(initgroups(user: *const c_char, group: gid_t) -> c_int))
}
