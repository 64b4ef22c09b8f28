//! Segments in a user-space home: `ginnel_engine::memory::sysv_segment`.

use std::ffi::c_void;
use std::ptr;

use ginnel_engine::memory::sysv_segment::{SHM_DEST, SHM_LOCKED, SegmentStatus, SysvSegment};
use ginnel_engine::namespace::{Kind, Namespace};
use rustix::io::Errno;

use super::{Change, Limits, Status};
use crate::namespace::{change as changed, limit_hint};
use crate::sysv::{self, Permissions};

type Result<T> = std::result::Result<T, Errno>;

pub(super) fn get(home: &Namespace, key: i32, size_bytes: usize, flags: i32) -> Result<i32> {
    SysvSegment::get(home, key, size_bytes, flags)
}

/// Without `SHM_REMAP`.
pub(super) fn attach(home: &Namespace, id: i32, address: usize, flags: i32) -> Result<*mut c_void> {
    let base = SysvSegment::attach(home, id, address, flags & !libc::SHM_REMAP)?;
    Ok(ptr::with_exposed_provenance_mut(base))
}

pub(super) fn detach(base: *mut c_void) {
    // Attached just now: there is something to detach.
    let _ = SysvSegment::detach(base.addr());
}

pub(super) fn status(home: &Namespace, id: i32) -> Result<Status> {
    SysvSegment::status(home, id).map(|status| from_engine(&status))
}

pub(super) fn set(home: &Namespace, id: i32, change: Change) -> Result<()> {
    let change = changed(home, Kind::SysvSegment, id, (change.uid, change.gid, change.mode))?;
    SysvSegment::set(home, id, change)
}

pub(super) fn lock(home: &Namespace, id: i32, locked: bool) -> Result<()> {
    SysvSegment::lock(home, id, locked)
}

pub(super) fn remove(home: &Namespace, id: i32) -> Result<()> {
    SysvSegment::remove(home, id)
}

pub(super) fn list(home: &Namespace) -> Result<Vec<Status>> {
    let all = home.list(Kind::SysvSegment)?;
    // What was removed meanwhile, and what may not be read, is left out.
    Ok(all.iter().filter_map(|listed| status(home, listed.id).ok()).collect())
}

pub(super) fn limits(home: &Namespace) -> Result<Limits> {
    let usage = SysvSegment::usage(home)?;
    Ok(Limits {
        size_bytes_max: home.limits().shmmax,
        segments_max: i32::MAX as u64,
        pages_max: u64::MAX,
        segments: usage.segments,
        pages: usage.pages,
        pages_resident: usage.resident_pages,
        pages_swapped: 0,
    })
}

pub(super) fn size_hint(home: &Namespace, size: usize) -> String {
    limit_hint(home, &format!("{size} bytes"), "shmmax", home.limits().shmmax)
}

fn from_engine(status: &SegmentStatus) -> Status {
    Status {
        id: status.object.id,
        permissions: Permissions::of_user(&status.object),
        size_bytes: status.size_bytes,
        attached: status.attached,
        creator_pid: status.creator_process as i32,
        last_pid: status.last_process as i32,
        last_attach: sysv::time(status.attach_time),
        last_detach: sysv::time(status.detach_time),
        last_change: sysv::time(status.object.ctime),
        is_removed: status.mode & SHM_DEST != 0,
        is_locked: status.mode & SHM_LOCKED != 0,
    }
}
