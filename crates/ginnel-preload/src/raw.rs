//! `syscall(2)` of the C library: a program that makes the calls by their numbers is served too.
//!
//! The kernel's calls differ from the C library's in little: `mq_open(2)` takes a name without its slash, and
//! `mq_getsetattr(2)` is two in one.
#![allow(unsafe_code)]

use std::ffi::CStr;

use libc::{c_char, c_long, c_void};

use crate::call::{answer, mapped};
use crate::home::is_chosen;
use crate::memory::sysv_segment::{shmat, shmctl, shmdt, shmget};
use crate::message::posix_queue::{
    mq_getattr, mq_notify, mq_open, mq_setattr, mq_timedreceive, mq_timedsend, mq_unlink,
};
use crate::message::sysv_queue::{msgctl, msgget, msgrcv, msgsnd};
use crate::next::next;
use crate::sync::sysv_semaphore::{semctl, semget, semop, semtimedop};

/// `syscall(2)`. In C it has a variable number of arguments, which are passed as any others.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn syscall(
    call: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if is_chosen() {
        // SAFETY: the caller's promise.
        if let Some(outcome) = unsafe { served(call, [a, b, c, d, e]) } {
            return outcome;
        }
    }
    next!(syscall(
        call: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize
    ) -> c_long)
}

/// # Safety
/// As [`syscall`].
unsafe fn served(call: c_long, [a, b, c, d, e]: [usize; 5]) -> Option<c_long> {
    // SAFETY: the caller's promise, for each.
    let outcome = unsafe {
        match call {
            libc::SYS_msgget => msgget(a as _, b as _).into(),
            libc::SYS_msgsnd => msgsnd(a as _, b as _, c, d as _).into(),
            libc::SYS_msgrcv => msgrcv(a as _, b as _, c, d as _, e as _) as c_long,
            libc::SYS_msgctl => msgctl(a as _, b as _, c as _).into(),
            libc::SYS_semget => semget(a as _, b as _, c as _).into(),
            libc::SYS_semop => semop(a as _, b as _, c).into(),
            libc::SYS_semtimedop => semtimedop(a as _, b as _, c, d as _).into(),
            libc::SYS_semctl => semctl(a as _, b as _, c as _, d).into(),
            libc::SYS_shmget => shmget(a as _, b, c as _).into(),
            libc::SYS_shmat => shmat(a as _, b as _, c as _) as c_long,
            libc::SYS_shmdt => shmdt(a as _).into(),
            libc::SYS_shmctl => shmctl(a as _, b as _, c as _).into(),
            libc::SYS_mq_open => {
                return with_slash(a as _, |name| mq_open(name, b as _, c as _, d as _).into());
            }
            libc::SYS_mq_unlink => return with_slash(a as _, |name| mq_unlink(name).into()),
            libc::SYS_mq_timedsend => mq_timedsend(a as _, b as _, c, d as _, e as _).into(),
            libc::SYS_mq_timedreceive => mq_timedreceive(a as _, b as _, c, d as _, e as _) as c_long,
            libc::SYS_mq_notify => mq_notify(a as _, b as _).into(),
            libc::SYS_mq_getsetattr if b == 0 && c != 0 => mq_getattr(a as _, c as _).into(),
            libc::SYS_mq_getsetattr => mq_setattr(a as _, b as _, c as _).into(),
            _ => return None,
        }
    };
    Some(outcome)
}

/// The C library's name for what the kernel calls by this one.
///
/// # Safety
/// `name` ends with a zero byte.
unsafe fn with_slash(name: *const c_char, call: impl FnOnce(*const c_char) -> c_long) -> Option<c_long> {
    if let Err(errno) = mapped(name) {
        return Some(answer(|| Err(errno)));
    }
    let mut whole = vec![b'/'];
    // SAFETY: the caller's promise.
    whole.extend_from_slice(unsafe { CStr::from_ptr(name) }.to_bytes_with_nul());
    Some(call(whole.as_ptr().cast::<c_void>().cast()))
}
