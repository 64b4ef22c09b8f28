//! The same calls, in the kernel's home.

use super::{Errno, Result};

fn outcome(result: isize) -> Result<isize> {
    if result == -1 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap())
    } else {
        Ok(result)
    }
}

pub(super) fn get(key: i32, size: usize, flags: i32) -> Result<i32> {
    // SAFETY: no memory is involved.
    outcome(unsafe { libc::shmget(key, size, flags) } as isize).map(|id| id as i32)
}

pub(super) fn attach(id: i32, address: usize, flags: i32) -> Result<usize> {
    // SAFETY: the tests replace only what they have mapped.
    let address = unsafe { libc::shmat(id, std::ptr::with_exposed_provenance_mut(address), flags) };
    outcome(address.expose_provenance() as isize).map(|address| address as usize)
}

pub(super) fn detach(address: usize) -> Result<()> {
    // SAFETY: the tests detach what they have attached.
    outcome(unsafe { libc::shmdt(std::ptr::with_exposed_provenance_mut(address)) } as isize).map(drop)
}

pub(super) fn status(id: i32) -> Result<libc::shmid_ds> {
    // SAFETY: all zeroes is valid, and the call fills it.
    unsafe {
        let mut status: libc::shmid_ds = std::mem::zeroed();
        outcome(libc::shmctl(id, libc::IPC_STAT, &mut status) as isize)?;
        Ok(status)
    }
}

pub(super) fn set(id: i32, mode: u16) -> Result<()> {
    let mut status = status(id)?;
    status.shm_perm.mode = mode as _;
    // SAFETY: the status is valid.
    outcome(unsafe { libc::shmctl(id, libc::IPC_SET, &mut status) } as isize).map(drop)
}

pub(super) fn control(id: i32, command: i32) -> Result<()> {
    // SAFETY: these commands take no structure.
    outcome(unsafe { libc::shmctl(id, command, std::ptr::null_mut()) } as isize).map(drop)
}
