//! Homes behind libc's symbols, which are called and not the system calls: the kernel's, and, in a process in which the drop-in
//! is preloaded, the drop-in's.
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
use std::marker::PhantomData;
use std::time::Duration;

use ginnel_engine::namespace::Namespace;

use crate::home::{Home, Owner, Permissions, SysvMessages};
use crate::user::User;
use crate::{Errno, Result};

pub use c_calls::clauses as c_calls;
pub use limits::clauses as limits;

/// Who stands behind the symbols.
pub trait Behind: Sync + Sized + 'static {
    /// See [`Home`].
    const NAME: &'static str;
    /// The longest System V message.
    const MESSAGE_BYTES_MAX: usize;
    /// See [`Home`].
    const STAMPS_DEATHS: bool;
    /// See [`Home`].
    const SEMAPHORES_IN_TURN: bool;

    /// Has an empty home stand behind them.
    fn empty();
}

/// Nobody but the C library.
#[derive(Debug, Clone, Copy)]
pub struct CLibrary;

/// The drop-in, preloaded, in a namespace that each process opens when it needs it.
#[derive(Debug, Clone, Copy)]
pub struct Preloaded;

/// A home behind libc's symbols.
#[derive(Debug, Clone, Copy)]
pub struct Symbols<B> {
    apart: i32,
    behind: PhantomData<B>,
}

/// The kernel's home.
pub type Kernel = Symbols<CLibrary>;
/// The user-space home as a C program sees it under the drop-in.
pub type DropIn = Symbols<Preloaded>;

impl Behind for CLibrary {
    const NAME: &'static str = "kernel";
    const MESSAGE_BYTES_MAX: usize = 8192;
    const STAMPS_DEATHS: bool = true;
    const SEMAPHORES_IN_TURN: bool = true;

    fn empty() {
        // SAFETY: no memory is involved.
        let done = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
        assert_eq!(done, 0, "unshare: {}", std::io::Error::last_os_error());
        for entry in std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Preloaded {
    /// What `GINNEL_NAMESPACE` is to be in a process that asks this home.
    pub const NAMESPACE: &'static str = "/dev/shm/ginnel-drop-in";
}

impl Behind for Preloaded {
    const NAME: &'static str = "drop-in";
    const MESSAGE_BYTES_MAX: usize = <User as SysvMessages>::MESSAGE_BYTES_MAX;
    const STAMPS_DEATHS: bool = User::STAMPS_DEATHS;
    const SEMAPHORES_IN_TURN: bool = User::SEMAPHORES_IN_TURN;

    fn empty() {
        let _ = std::fs::remove_dir_all(Preloaded::NAMESPACE);
        let options = Namespace::options().create(true).mode(0o1777);
        options.open(Preloaded::NAMESPACE).unwrap_or_else(|error| panic!("{error:?}"));
    }
}

impl<B: Behind> Symbols<B> {
    /// One whose keys and names are not those of one with another number. 0 has them as they are.
    pub fn apart(number: i32) -> Symbols<B> {
        Symbols { apart: number, behind: PhantomData }
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

impl<B: Behind> Home for Symbols<B> {
    const NAME: &'static str = B::NAME;
    const STAMPS_DEATHS: bool = B::STAMPS_DEATHS;
    const SEMAPHORES_IN_TURN: bool = B::SEMAPHORES_IN_TURN;

    fn fresh() -> Symbols<B> {
        B::empty();
        Symbols::apart(0)
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
