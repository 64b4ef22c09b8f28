//! `shmget(2)`, `shmop(2)`, `shmctl(2)`.

use super::{Behind, Symbols, check, done, number, set_owner};
use crate::Result;
use crate::home::{Owner, SegmentStatus, SysvMemory};

/// `SHM_DEST` of `<sys/shm.h>`.
const SHM_DEST: u32 = 0o1000;

impl<B: Behind> SysvMemory for Symbols<B> {
    fn shmget(&self, key: i32, size: usize, flags: i32) -> Result<i32> {
        // SAFETY: numbers only.
        number(unsafe { libc::shmget(self.key(key), size, flags) })
    }

    fn shmat(&self, id: i32, address: usize, flags: i32) -> Result<usize> {
        // SAFETY: the clauses ask for addresses that are free, or, with SHM_REMAP, theirs.
        let at = unsafe { libc::shmat(id, address as *const libc::c_void, flags) };
        check(at as i64).map(|at| at as usize)
    }

    fn shmdt(&self, address: usize) -> Result<()> {
        // SAFETY: who detaches a segment uses it no more.
        done(unsafe { libc::shmdt(address as *const libc::c_void) })
    }

    fn shm_status(&self, id: i32) -> Result<SegmentStatus> {
        // SAFETY: all zeros is a valid shmid_ds; the call fills it.
        let ds = unsafe {
            let mut ds: libc::shmid_ds = std::mem::zeroed();
            done(libc::shmctl(id, libc::IPC_STAT, &mut ds))?;
            ds
        };
        Ok(SegmentStatus {
            perm: self.permissions(&ds.shm_perm),
            doomed: u32::from(ds.shm_perm.mode) & SHM_DEST != 0,
            segsz: ds.shm_segsz as u64,
            atime: ds.shm_atime,
            dtime: ds.shm_dtime,
            ctime: ds.shm_ctime,
            cpid: ds.shm_cpid,
            lpid: ds.shm_lpid,
            nattch: ds.shm_nattch,
        })
    }

    fn shm_set(&self, id: i32, owner: Owner) -> Result<()> {
        // SAFETY: all zeros is a valid shmid_ds; the call reads it.
        unsafe {
            let mut ds: libc::shmid_ds = std::mem::zeroed();
            set_owner(&mut ds.shm_perm, owner);
            done(libc::shmctl(id, libc::IPC_SET, &mut ds))
        }
    }

    fn shm_remove(&self, id: i32) -> Result<()> {
        // SAFETY: IPC_RMID takes no pointer.
        done(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) })
    }
}
