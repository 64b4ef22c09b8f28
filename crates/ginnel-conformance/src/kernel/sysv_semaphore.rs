//! `semget(2)`, `semop(2)`, `semctl(2)`.

use std::time::Duration;

use super::{Behind, Symbols, done, interval, number, set_owner};
use crate::Result;
use crate::home::{Owner, SetStatus, SysvSemaphores};

fn get(id: i32, semaphore: i32, command: i32) -> Result<i32> {
    // SAFETY: these commands take no fourth argument.
    number(unsafe { libc::semctl(id, semaphore, command) })
}

fn status(id: i32) -> Result<libc::semid_ds> {
    // SAFETY: all zeros is a valid semid_ds; the call fills it.
    unsafe {
        let mut ds: libc::semid_ds = std::mem::zeroed();
        done(libc::semctl(id, 0, libc::IPC_STAT, &raw mut ds))?;
        Ok(ds)
    }
}

impl<B: Behind> SysvSemaphores for Symbols<B> {
    fn semget(&self, key: i32, count: i32, flags: i32) -> Result<i32> {
        // SAFETY: numbers only.
        number(unsafe { libc::semget(self.key(key), count, flags) })
    }

    fn semtimedop(&self, id: i32, operations: &[libc::sembuf], timeout: Option<Duration>) -> Result<()> {
        let (first, count) = (operations.as_ptr().cast_mut(), operations.len());
        // SAFETY: the call reads `count` operations and, if there is one, the timespec.
        done(unsafe {
            match timeout {
                None => libc::semop(id, first, count),
                Some(timeout) => semtimedop(id, first, count, &interval(timeout)),
            }
        })
    }

    fn sem_getval(&self, id: i32, semaphore: i32) -> Result<i32> {
        get(id, semaphore, libc::GETVAL)
    }

    fn sem_getpid(&self, id: i32, semaphore: i32) -> Result<i32> {
        get(id, semaphore, libc::GETPID)
    }

    fn sem_getncnt(&self, id: i32, semaphore: i32) -> Result<i32> {
        get(id, semaphore, libc::GETNCNT)
    }

    fn sem_getzcnt(&self, id: i32, semaphore: i32) -> Result<i32> {
        get(id, semaphore, libc::GETZCNT)
    }

    fn sem_getall(&self, id: i32) -> Result<Vec<u16>> {
        // Who may not ask how many there are may not read them either. No set has more than that.
        let mut values = vec![0u16; 32768];
        // SAFETY: the array has room for the largest set.
        done(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
        values.truncate(status(id)?.sem_nsems as usize);
        Ok(values)
    }

    fn sem_setval(&self, id: i32, semaphore: i32, value: i32) -> Result<()> {
        // SAFETY: a number only.
        done(unsafe { libc::semctl(id, semaphore, libc::SETVAL, value) })
    }

    fn sem_setall(&self, id: i32, values: &[u16]) -> Result<()> {
        let mut all = vec![0u16; values.len().max(32000)];
        all[..values.len()].copy_from_slice(values);
        // SAFETY: the array is as long as the largest set; the call reads it.
        done(unsafe { libc::semctl(id, 0, libc::SETALL, all.as_ptr()) })
    }

    fn sem_status(&self, id: i32) -> Result<SetStatus> {
        let ds = status(id)?;
        Ok(SetStatus {
            perm: self.permissions(&ds.sem_perm),
            otime: ds.sem_otime,
            ctime: ds.sem_ctime,
            nsems: ds.sem_nsems,
        })
    }

    fn sem_set(&self, id: i32, owner: Owner) -> Result<()> {
        // SAFETY: all zeros is a valid semid_ds; the call reads it.
        unsafe {
            let mut ds: libc::semid_ds = std::mem::zeroed();
            set_owner(&mut ds.sem_perm, owner);
            done(libc::semctl(id, 0, libc::IPC_SET, &raw mut ds))
        }
    }

    fn sem_remove(&self, id: i32) -> Result<()> {
        // SAFETY: IPC_RMID takes no pointer.
        done(unsafe { libc::semctl(id, 0, libc::IPC_RMID) })
    }
}

unsafe extern "C" {
    /// Not in the libc crate.
    pub(super) fn semtimedop(
        id: libc::c_int,
        operations: *mut libc::sembuf,
        count: libc::size_t,
        timeout: *const libc::timespec,
    ) -> libc::c_int;
}
