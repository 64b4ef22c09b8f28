//! The kernel's home, through libc's symbols and not raw system calls: preloaded, the drop-in takes their place.
//!
//! A `Kernel` may stand apart from others in the same namespaces: its keys and names are its own. So the kernel can be
//! compared with itself.
#![allow(unsafe_code)]

mod c_calls;
mod limits;
mod posix_queue;
mod posix_semaphore;
mod posix_shm;
mod sysv_queue;
mod sysv_segment;
mod sysv_semaphore;

use std::ffi::CString;
use std::time::Duration;

use crate::home::{Home, Owner, Permissions};
use crate::{Errno, Result};

pub use c_calls::clauses as c_calls;
pub use limits::clauses as limits;

/// The kernel's home.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    apart: i32,
}

impl Kernel {
    /// One whose keys and names are not those of one with another number. 0 has them as they are.
    pub fn apart(number: i32) -> Kernel {
        Kernel { apart: number }
    }

    /// The key in the kernel; and back.
    fn key(&self, key: i32) -> i32 {
        if key == libc::IPC_PRIVATE { key } else { key ^ (self.apart << 24) }
    }

    fn name(&self, name: &str) -> Result<CString> {
        let name = match name.strip_prefix('/') {
            Some(rest) if self.apart != 0 => format!("/{}.{rest}", self.apart),
            _ => name.to_owned(),
        };
        CString::new(name).map_err(|_| Errno::INVAL)
    }

    fn permissions(&self, perm: &libc::ipc_perm) -> Permissions {
        Permissions {
            key: self.key(perm.__key),
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: u32::from(perm.mode) & 0o777,
        }
    }
}

impl Home for Kernel {
    const NAME: &'static str = "kernel";

    fn fresh() -> Kernel {
        // SAFETY: no memory is involved.
        let done = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
        assert_eq!(done, 0, "unshare: {}", std::io::Error::last_os_error());
        for entry in std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        Kernel::apart(0)
    }
}

/// A call's result, or `errno`.
fn check(result: i64) -> Result<i64> {
    if result == -1 {
        // SAFETY: errno is the thread's own.
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(result)
}

fn done(result: i32) -> Result<()> {
    check(result.into()).map(drop)
}

fn number(result: i32) -> Result<i32> {
    check(result.into()).map(|number| number as i32)
}

/// A time-out as `semtimedop` takes it.
fn interval(timeout: Duration) -> libc::timespec {
    libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() }
}

/// The time on a clock, that much later.
fn later(clock: libc::clockid_t, timeout: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours to write.
    unsafe { libc::clock_gettime(clock, &mut now) };
    interval(Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + timeout)
}

fn set_owner(perm: &mut libc::ipc_perm, owner: Owner) {
    (perm.uid, perm.gid, perm.mode) = (owner.uid, owner.gid, owner.mode as _);
}
