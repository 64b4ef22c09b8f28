//! Segments in the kernel's home: `shmget(2)`, `shmop(2)`, `shmctl(2)`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use super::{Change, Limits, Status};
use crate::sysv::{self, Permissions};
use crate::wait::check;

type Result<T> = std::result::Result<T, Errno>;

// Of <sys/shm.h>, not in libc.
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

pub(super) fn get(key: i32, size_bytes: usize, flags: i32) -> Result<i32> {
    // SAFETY: shmget takes no pointers.
    check(unsafe { libc::shmget(key, size_bytes, flags) }).map(|id| id as i32)
}

/// Without `SHM_REMAP`.
pub(super) fn attach(id: i32, address: usize, flags: i32) -> Result<*mut c_void> {
    let address: *const c_void = ptr::with_exposed_provenance(address);
    // SAFETY: without SHM_REMAP nothing that is mapped is replaced.
    let base = unsafe { libc::shmat(id, address, flags & !libc::SHM_REMAP) };
    if base.addr() == usize::MAX { Err(crate::error::last_errno()) } else { Ok(base) }
}

/// What was attached just now, and nobody knows of.
pub(super) fn detach(base: *mut c_void) {
    // SAFETY: see above.
    unsafe { libc::shmdt(base) };
}

pub(super) fn status(id: i32) -> Result<Status> {
    let mut raw = empty_status();
    control(id, libc::IPC_STAT, &raw mut raw)?;
    Ok(from_raw(id, &raw))
}

pub(super) fn set(id: i32, change: Change) -> Result<()> {
    let now = match status(id) {
        // An owner may change a segment that its mode does not let him read, and reading is what IPC_STAT asks for.
        Err(Errno::ACCESS) => list()?.into_iter().find(|status| status.id == id).ok_or(Errno::ACCESS)?,
        other => other?,
    };
    let mut raw = empty_status();
    raw.shm_perm.uid = change.uid.unwrap_or(now.permissions.uid);
    raw.shm_perm.gid = change.gid.unwrap_or(now.permissions.gid);
    raw.shm_perm.mode = change.mode.unwrap_or(now.permissions.mode) as _;
    control(id, libc::IPC_SET, &raw mut raw).map(drop)
}

pub(super) fn lock(id: i32, locked: bool) -> Result<()> {
    let command = if locked { libc::SHM_LOCK } else { libc::SHM_UNLOCK };
    control(id, command, ptr::null_mut()).map(drop)
}

pub(super) fn remove(id: i32) -> Result<()> {
    control(id, libc::IPC_RMID, ptr::null_mut()).map(drop)
}

pub(super) fn list() -> Result<Vec<Status>> {
    let (highest, _) = used()?;
    let mut all = Vec::new();
    for index in 0..=highest {
        let mut raw = empty_status();
        // Takes an index for the id.
        match control(index, SHM_STAT_ANY, &raw mut raw) {
            Ok(id) => all.push(from_raw(id, &raw)),
            // No segment in this place of the table, or one that is just going.
            Err(Errno::INVAL | Errno::IDRM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

pub(super) fn limits() -> Result<Limits> {
    let mut max = ShmMax::default();
    // SAFETY: IPC_INFO fills a shminfo, which `max` is.
    check(unsafe { libc::shmctl(0, libc::IPC_INFO, (&raw mut max).cast()) })?;
    let (_, used) = used()?;
    Ok(Limits {
        size_bytes_max: max.shmmax,
        segments_max: max.shmmni,
        pages_max: max.shmall,
        segments: used.used_ids.try_into().unwrap_or(0),
        pages: used.shm_tot,
        pages_resident: used.shm_rss,
        pages_swapped: used.shm_swp,
    })
}

/// Which of the two limits behind `ENOSPC` was hit.
pub(super) fn no_space_hint() -> String {
    match limits() {
        Ok(limits) if limits.segments >= limits.segments_max => {
            sysv::limit_hint("no more segments on this host", "kernel.shmmni")
        }
        _ => sysv::limit_hint("no more pages for segments on this host", "kernel.shmall"),
    }
}

/// The highest place in use of the kernel's table, and the numbers.
fn used() -> Result<(i32, ShmInfo)> {
    let mut used = ShmInfo::default();
    // SAFETY: SHM_INFO fills a shm_info, which `used` is.
    let highest = check(unsafe { libc::shmctl(0, SHM_INFO, (&raw mut used).cast()) })?;
    Ok((highest as i32, used))
}

/// `shmctl(2)`; the commands used here read or fill a `shmid_ds`, or use no buffer.
fn control(id: i32, command: i32, buffer: *mut libc::shmid_ds) -> Result<i32> {
    // SAFETY: the callers pass a pointer to a whole shmid_ds, or null where the command takes none.
    check(unsafe { libc::shmctl(id, command, buffer) }).map(|value| value as i32)
}

fn empty_status() -> libc::shmid_ds {
    // SAFETY: a shmid_ds is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn from_raw(id: i32, raw: &libc::shmid_ds) -> Status {
    let flags = u32::from(raw.shm_perm.mode);
    Status {
        id,
        permissions: Permissions::from_raw(&raw.shm_perm),
        size_bytes: raw.shm_segsz as u64,
        attached: raw.shm_nattch,
        creator_pid: raw.shm_cpid,
        last_pid: raw.shm_lpid,
        last_attach: sysv::time(raw.shm_atime),
        last_detach: sysv::time(raw.shm_dtime),
        last_change: sysv::time(raw.shm_ctime),
        is_removed: flags & SHM_DEST != 0,
        is_locked: flags & SHM_LOCKED != 0,
    }
}

/// `struct shminfo` of `<sys/shm.h>`.
#[repr(C)]
#[derive(Default)]
struct ShmMax {
    shmmax: libc::c_ulong,
    shmmin: libc::c_ulong,
    shmmni: libc::c_ulong,
    shmseg: libc::c_ulong,
    shmall: libc::c_ulong,
    reserved: [libc::c_ulong; 4],
}

/// `struct shm_info` of `<sys/shm.h>`.
#[repr(C)]
#[derive(Default)]
struct ShmInfo {
    used_ids: libc::c_int,
    shm_tot: libc::c_ulong,
    shm_rss: libc::c_ulong,
    shm_swp: libc::c_ulong,
    swap_attempts: libc::c_ulong,
    swap_successes: libc::c_ulong,
}
