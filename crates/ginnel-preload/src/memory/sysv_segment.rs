//! `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.
#![allow(unsafe_code)]

use std::os::raw::c_void;

use ginnel_engine::memory::sysv_segment::{SegmentStatus, SysvSegment};
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::{Errno, Result};
use libc::{c_int, c_ulong, key_t, shmid_ds, size_t};

use crate::call::{address, mapped};
use crate::home::serve;
use crate::next::next;
use crate::sysv;

const SHM_STAT: c_int = 13;
const SHM_INFO: c_int = 14;
const SHM_STAT_ANY: c_int = 15;

/// `struct shminfo`.
#[repr(C)]
struct Limits {
    max: c_ulong,
    min: c_ulong,
    mni: c_ulong,
    seg: c_ulong,
    all: c_ulong,
    unused: [c_ulong; 4],
}

/// `struct shm_info`.
#[repr(C)]
struct Usage {
    used_ids: c_int,
    total: c_ulong,
    resident: c_ulong,
    swapped: c_ulong,
    swap_attempts: c_ulong,
    swap_successes: c_ulong,
}

/// `shmget(2)`.
///
/// # Safety
/// None is needed: it is the C library's symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shmget(key: key_t, size: size_t, flags: c_int) -> c_int {
    serve!(
        |home| SysvSegment::get(home, key, size, flags),
        else next!(shmget(key: key_t, size: size_t, flags: c_int) -> c_int)
    )
}

/// `shmat(2)`.
///
/// # Safety
/// As the C library's: with `SHM_REMAP`, nobody uses what is mapped there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void {
    let attached: isize = serve!(
        |home| SysvSegment::attach(home, id, at as usize, flags).map(|address| address as isize),
        else next!(shmat(id: c_int, at: *const c_void, flags: c_int) -> isize)
    );
    address(attached)
}

/// `shmdt(2)`.
///
/// # Safety
/// As the C library's: nobody uses what is attached there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shmdt(at: *const c_void) -> c_int {
    serve!(
        |_home| SysvSegment::detach(at as usize).map(|()| 0),
        else next!(shmdt(at: *const c_void) -> c_int)
    )
}

/// `shmctl(2)`.
///
/// # Safety
/// As the C library's: `buffer` is what the command wants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shmctl(id: c_int, command: c_int, buffer: *mut shmid_ds) -> c_int {
    serve!(
        // SAFETY: the caller's promise.
        |home| unsafe { control(home, id, command, buffer) },
        else next!(shmctl(id: c_int, command: c_int, buffer: *mut shmid_ds) -> c_int)
    )
}

/// # Safety
/// As [`shmctl`].
unsafe fn control(home: &Namespace, id: c_int, command: c_int, buffer: *mut shmid_ds) -> Result<c_int> {
    if id < 0 || command < 0 {
        return Err(Errno::INVAL);
    }
    match command {
        libc::IPC_RMID => SysvSegment::remove(home, id).map(|()| 0),
        libc::SHM_LOCK | libc::SHM_UNLOCK => {
            SysvSegment::lock(home, id, command == libc::SHM_LOCK).map(|()| 0)
        }
        libc::IPC_SET => {
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            let asked = unsafe { buffer.read_unaligned() };
            SysvSegment::set(home, id, sysv::change(&asked.shm_perm))?;
            Ok(0)
        }
        libc::IPC_STAT => {
            let status = SysvSegment::status(home, id)?;
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            unsafe { buffer.write_unaligned(filled(&status)) };
            Ok(0)
        }
        SHM_STAT | SHM_STAT_ANY => {
            let id = sysv::id_at(home, Kind::SysvSegment, id)?;
            let status = SysvSegment::status(home, id)?;
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            unsafe { buffer.write_unaligned(filled(&status)) };
            Ok(id)
        }
        libc::IPC_INFO => {
            mapped(buffer)?;
            let limits = Limits {
                max: home.limits().shmmax,
                min: 1,
                mni: i32::MAX as c_ulong,
                seg: i32::MAX as c_ulong,
                all: c_ulong::MAX >> 12,
                unused: [0; 4],
            };
            // SAFETY: the caller's promise: for this command it is a `struct shminfo`.
            unsafe { buffer.cast::<Limits>().write_unaligned(limits) };
            Ok(sysv::last_index(home.list(Kind::SysvSegment)?.len()))
        }
        SHM_INFO => {
            mapped(buffer)?;
            let used = SysvSegment::usage(home)?;
            let usage = Usage {
                used_ids: sysv::int(used.segments),
                total: used.pages,
                resident: used.resident_pages,
                swapped: 0,
                swap_attempts: 0,
                swap_successes: 0,
            };
            // SAFETY: the caller's promise: for this command it is a `struct shm_info`.
            unsafe { buffer.cast::<Usage>().write_unaligned(usage) };
            Ok(sysv::last_index(home.list(Kind::SysvSegment)?.len()))
        }
        _ => Err(Errno::INVAL),
    }
}

fn filled(status: &SegmentStatus) -> shmid_ds {
    // SAFETY: numbers only, all of which may be 0.
    let mut filled: shmid_ds = unsafe { std::mem::zeroed() };
    filled.shm_perm = sysv::permissions(&status.object);
    filled.shm_perm.mode = status.mode as _;
    filled.shm_segsz = status.size_bytes as _;
    filled.shm_atime = status.attach_time;
    filled.shm_dtime = status.detach_time;
    filled.shm_ctime = status.object.ctime;
    filled.shm_cpid = status.creator_process as _;
    filled.shm_lpid = status.last_process as _;
    filled.shm_nattch = status.attached as _;
    filled
}
