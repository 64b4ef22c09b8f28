//! The calls that change what a descriptor's number stands for, and those that wait for descriptors: as far as POSIX queues
//! are concerned, which are descriptors here as they are in Linux.
//!
//! The engine's own descriptors, and those that hold a private namespace ([`crate::held`]), are none of the program's: to the calls that close they are not open, and who puts something
//! on such a number is told that it may not have so many.
//!
//! Each does what the C library does, at once if this process has no queue open. Those that wait first have a queue's number
//! made one that can be waited for, see [`crate::message::posix_queue`].
#![allow(unsafe_code)]

use ginnel_engine::Errno;
use libc::{c_int, c_uint, c_ulong, epoll_event, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};

use crate::call::{answer, mapped};
use crate::held::{all_kept, is_kept};
use crate::message::posix_queue;
use crate::next::next;

/// `close(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn close(number: c_int) -> c_int {
    if is_kept(number) {
        return answer(|| Err(Errno::BADF));
    }
    if posix_queue::has_any() {
        posix_queue::forget(number);
    }
    next!(close(number: c_int) -> c_int)
}

/// `close_range(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    const CLOSE_ON_EXEC: c_int = 1 << 2;
    if posix_queue::has_any() && flags & CLOSE_ON_EXEC == 0 {
        posix_queue::forget_range(first, last);
    }
    each_range(
        first,
        last,
        |first, last| next!(close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int),
    )
}

/// The parts of a range that are not the engine's.
fn each_range(first: c_uint, last: c_uint, mut act: impl FnMut(c_uint, c_uint) -> c_int) -> c_int {
    let mut first = first;
    for kept in all_kept() {
        let kept = kept as c_uint;
        if !(first..=last).contains(&kept) {
            continue;
        }
        if kept > first {
            let outcome = act(first, kept - 1);
            if outcome != 0 {
                return outcome;
            }
        }
        first = kept + 1;
    }
    if first <= last { act(first, last) } else { 0 }
}

/// `closefrom(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn closefrom(first: c_int) {
    if posix_queue::has_any() {
        posix_queue::forget_range(first.max(0) as c_uint, c_uint::MAX);
    }
    each_range(first.max(0) as c_uint, c_uint::MAX, |first, last| {
        let flags = 0;
        next!(close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int)
    });
}

/// `dup(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup(number: c_int) -> c_int {
    doubled(number, next!(dup(number: c_int) -> c_int))
}

/// `dup2(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup2(number: c_int, wanted: c_int) -> c_int {
    if is_kept(wanted) {
        return answer(|| Err(Errno::BADF));
    }
    let outcome = next!(dup2(number: c_int, wanted: c_int) -> c_int);
    if number == wanted { outcome } else { replaced(number, outcome) }
}

/// `dup3(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup3(number: c_int, wanted: c_int, flags: c_int) -> c_int {
    if is_kept(wanted) {
        return answer(|| Err(Errno::BADF));
    }
    replaced(number, next!(dup3(number: c_int, wanted: c_int, flags: c_int) -> c_int))
}

/// `fcntl(2)`. In C it has a variable number of arguments, of which the third is passed as any other.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fcntl(number: c_int, command: c_int, argument: c_ulong) -> c_int {
    if is_refused(number, command) {
        return answer(|| Err(Errno::BADF));
    }
    let outcome = next!(fcntl(number: c_int, command: c_int, argument: c_ulong) -> c_int);
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) { doubled(number, outcome) } else { outcome }
}

/// `fcntl(2)` of programs with 64-bit file offsets.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fcntl64(number: c_int, command: c_int, argument: c_ulong) -> c_int {
    if is_refused(number, command) {
        return answer(|| Err(Errno::BADF));
    }
    let outcome = next!(fcntl64(number: c_int, command: c_int, argument: c_ulong) -> c_int);
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) { doubled(number, outcome) } else { outcome }
}

/// Who marks all descriptors that it does not know as closed on exec, instead of closing them.
fn is_refused(number: c_int, command: c_int) -> bool {
    command == libc::F_SETFD && is_kept(number)
}

/// `outcome` is another number for the same, unless it failed.
fn doubled(number: c_int, outcome: c_int) -> c_int {
    if outcome >= 0
        && let Some(opened) = posix_queue::known(number)
    {
        posix_queue::is_also(&opened, outcome);
    }
    outcome
}

/// As [`doubled`], and the number may have been a queue's before.
fn replaced(number: c_int, outcome: c_int) -> c_int {
    if outcome >= 0 && posix_queue::has_any() {
        posix_queue::forget(outcome);
    }
    doubled(number, outcome)
}

/// `poll(2)`.
///
/// # Safety
/// As the C library's: `count` of them stand there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn poll(waits: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { polled(waits, count) };
    next!(poll(waits: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int)
}

/// `poll(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __poll_chk(
    waits: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { polled(waits, count) };
    next!(__poll_chk(waits: *mut pollfd, count: nfds_t, timeout: c_int, size: usize) -> c_int)
}

/// `ppoll(2)`.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ppoll(
    waits: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { polled(waits, count) };
    next!(ppoll(waits: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int)
}

/// `ppoll(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As [`poll`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __ppoll_chk(
    waits: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { polled(waits, count) };
    next!(__ppoll_chk(
        waits: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, size: usize
    ) -> c_int)
}

/// # Safety
/// As [`poll`].
unsafe fn polled(waits: *mut pollfd, count: nfds_t) {
    posix_queue::find_inherited();
    if !posix_queue::has_any() || mapped(waits).is_err() {
        return;
    }
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        posix_queue::make_pollable(unsafe { (*waits.add(index)).fd });
    }
}

/// `select(2)`.
///
/// # Safety
/// As the C library's: the sets are sets or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn select(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { selected(count, &[reads, writes]) };
    next!(select(
        count: c_int, reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set, timeout: *mut timeval
    ) -> c_int)
}

/// `pselect(2)`.
///
/// # Safety
/// As [`select`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pselect(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { selected(count, &[reads, writes]) };
    next!(pselect(
        count: c_int, reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t
    ) -> c_int)
}

/// # Safety
/// As [`select`].
unsafe fn selected(count: c_int, sets: &[*mut fd_set]) {
    posix_queue::find_inherited();
    if !posix_queue::has_any() {
        return;
    }
    for set in sets.iter().filter(|set| mapped(**set).is_ok()) {
        for number in 0..count {
            // A program may have sets that are longer than the type says, as long as `count` needs.
            // SAFETY: the caller's promise.
            let byte = unsafe { *set.cast::<u8>().add(number as usize / 8) };
            if byte >> (number % 8) & 1 != 0 {
                posix_queue::make_pollable(number);
            }
        }
    }
}

/// `epoll_ctl(2)`.
///
/// # Safety
/// As the C library's: `event` is one or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_ctl(
    epoll: c_int,
    operation: c_int,
    number: c_int,
    event: *mut epoll_event,
) -> c_int {
    posix_queue::find_inherited();
    if posix_queue::has_any() {
        posix_queue::make_pollable(number);
    }
    next!(epoll_ctl(epoll: c_int, operation: c_int, number: c_int, event: *mut epoll_event) -> c_int)
}
