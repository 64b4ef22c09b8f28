//! `sem_open(3)`, `sem_close(3)`, `sem_unlink(3)`; `sem_wait(3)`, `sem_post(3)` and the like of a namespace's semaphores.
//!
//! A `sem_t *` of the namespace is where the engine's semaphore is mapped: it fits into a `sem_t`, and has a mark where
//! glibc's, which `sem_init(3)` makes, has nothing. So the calls know by the mark whose it is.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ginnel_engine::sync::posix_semaphore::{PosixSemaphore, Semaphore};
use ginnel_engine::sync::region::Region;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{c_char, c_int, c_uint, clockid_t, mode_t, sem_t, timespec};

use crate::call::{answer, cancellation_point, mapped};
use crate::fork::changing;
use crate::home::{is_chosen, serve};
use crate::next::next;

/// A semaphore that this process has open, and how many times.
struct Opened {
    semaphore: PosixSemaphore,
    times: usize,
}

/// Those open, by address: opened twice, it has one. Locked by who has [`changing`] only.
static OPEN: Mutex<BTreeMap<usize, Opened>> = Mutex::new(BTreeMap::new());

fn open_ones() -> MutexGuard<'static, BTreeMap<usize, Opened>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The namespace's semaphore at this address, if it is one.
///
/// # Safety
/// `semaphore` is where a `sem_t` is, if anything is there.
#[inline]
unsafe fn ours<'a>(semaphore: *mut sem_t) -> Option<Semaphore<'a>> {
    if !is_chosen() || mapped(semaphore).is_err() {
        return None;
    }
    let place = NonNull::new(semaphore.cast::<u8>())?;
    // SAFETY: a `sem_t` is there, which stays while it is used.
    let region = unsafe { Region::new(place, Semaphore::SIZE) };
    Semaphore::open(region, 0).ok()
}

/// `sem_open(3)`. In C it has a variable number of arguments, which are passed as any others.
///
/// # Safety
/// As the C library's: `name` ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_open(
    name: *const c_char,
    flags: c_int,
    mode: mode_t,
    value: c_uint,
) -> *mut sem_t {
    serve!(|home| {
        mapped(name)?;
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        let semaphore = PosixSemaphore::open(home, name.to_bytes(), flags, mode, value)?;
        keep(semaphore)
    }, else next!(sem_open(name: *const c_char, flags: c_int, mode: mode_t, value: c_uint) -> *mut sem_t))
}

/// The address of a semaphore that has been opened.
fn keep(semaphore: PosixSemaphore) -> Result<*mut sem_t> {
    let file = |semaphore: &PosixSemaphore| -> Result<(u64, u64)> {
        let status = rustix::fs::fstat(semaphore.segment().file()?)?;
        Ok((status.st_dev, status.st_ino))
    };
    let opened = file(&semaphore)?;
    let _changing = changing();
    let mut all = open_ones();
    for (address, other) in all.iter_mut() {
        if file(&other.semaphore)? == opened {
            other.times += 1;
            return Ok(*address as *mut sem_t);
        }
    }
    let address = semaphore.semaphore().address();
    all.insert(address, Opened { semaphore, times: 1 });
    Ok(address as *mut sem_t)
}

/// `sem_close(3)`.
///
/// # Safety
/// As the C library's: nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_close(semaphore: *mut sem_t) -> c_int {
    if is_chosen() {
        let _changing = changing();
        let mut all = open_ones();
        if let Some(opened) = all.get_mut(&(semaphore as usize)) {
            opened.times -= 1;
            if opened.times == 0 {
                all.remove(&(semaphore as usize));
            }
            return 0;
        }
    }
    next!(sem_close(semaphore: *mut sem_t) -> c_int)
}

/// `sem_unlink(3)`.
///
/// # Safety
/// As [`sem_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_unlink(name: *const c_char) -> c_int {
    serve!(|home| {
        mapped(name)?;
        // SAFETY: the caller's promise.
        PosixSemaphore::unlink(home, unsafe { CStr::from_ptr(name) }.to_bytes()).map(|()| 0)
    }, else next!(sem_unlink(name: *const c_char) -> c_int))
}

/// `sem_wait(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        Some(semaphore) => answer(|| semaphore.wait(Patience::Endless).map(|()| 0)),
        None => next!(sem_wait(semaphore: *mut sem_t) -> c_int),
    }
}

/// `sem_trywait(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_trywait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        Some(semaphore) => answer(|| semaphore.wait(Patience::None).map(|()| 0)),
        None => next!(sem_trywait(semaphore: *mut sem_t) -> c_int),
    }
}

/// `sem_timedwait(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        // SAFETY: as above.
        Some(semaphore) => answer(|| unsafe { wait_until(semaphore, libc::CLOCK_REALTIME, until) }),
        None => next!(sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int),
    }
}

/// `sem_clockwait(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    cancellation_point();
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        // SAFETY: as above.
        Some(semaphore) => answer(|| unsafe { wait_until(semaphore, clock, until) }),
        None => {
            next!(sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int)
        }
    }
}

/// # Safety
/// `until` is a time, if anything is there.
unsafe fn wait_until(semaphore: Semaphore<'_>, clock: clockid_t, until: *const timespec) -> Result<c_int> {
    mapped(until)?;
    // SAFETY: the caller's promise.
    semaphore.wait_clock(clock, unsafe { until.read_unaligned() }).map(|()| 0)
}

/// `sem_post(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        Some(semaphore) => answer(|| semaphore.post().map(|()| 0)),
        None => next!(sem_post(semaphore: *mut sem_t) -> c_int),
    }
}

/// `sem_getvalue(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sem_getvalue(semaphore: *mut sem_t, value: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { ours(semaphore) } {
        Some(semaphore) => answer(|| {
            mapped(value).map_err(|_| Errno::INVAL)?;
            // SAFETY: as above.
            unsafe { value.write_unaligned(semaphore.value() as c_int) };
            Ok(0)
        }),
        None => next!(sem_getvalue(semaphore: *mut sem_t, value: *mut c_int) -> c_int),
    }
}
