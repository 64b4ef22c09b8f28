//! Semaphore sets in the kernel's home: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

use crate::sync::sysv_semaphore_status::{Change, Limits, Listed, Status};
use crate::sysv::{self, Permissions};
use crate::wait::check;
use crate::{Deadline, interrupt};

type Result<T> = std::result::Result<T, Errno>;

// The libc crate has it not, though every libc has.
unsafe extern "C" {
    fn semtimedop(
        semid: libc::c_int,
        sops: *mut libc::sembuf,
        nsops: libc::size_t,
        timeout: *const libc::timespec,
    ) -> libc::c_int;
}

/// The fourth argument of `semctl(2)`, which programs have to define themselves.
#[repr(C)]
#[derive(Clone, Copy)]
union Argument {
    val: libc::c_int,
    buf: *mut libc::semid_ds,
    array: *mut libc::c_ushort,
    info: *mut libc::seminfo,
}

const NONE: Argument = Argument { array: ptr::null_mut() };

pub(in crate::sync) fn get(key: i32, count: i32, flags: i32) -> Result<i32> {
    // SAFETY: semget takes no pointers.
    check(unsafe { libc::semget(key, count, flags) }).map(|id| id as i32)
}

/// `may_not_wait`: one of the operations asks for `EAGAIN` itself.
pub(in crate::sync) fn operate(
    id: i32,
    operations: &mut [libc::sembuf],
    deadline: Deadline,
    may_not_wait: bool,
) -> Result<()> {
    let outcome = match deadline.remaining().filter(|_| !deadline.is_now()) {
        // SAFETY: a slice of operations of that length.
        None => unsafe { libc::semop(id, operations.as_mut_ptr(), operations.len()) },
        Some(left) => {
            let left = interrupt::timespec(left);
            // SAFETY: as above; `left` is valid for the call.
            unsafe { semtimedop(id, operations.as_mut_ptr(), operations.len(), &raw const left) }
        }
    };
    check(outcome).map(drop).map_err(|errno| match errno {
        // The kernel's word for a time limit as well as for IPC_NOWAIT.
        Errno::AGAIN if !deadline.is_now() && !may_not_wait => Errno::TIMEDOUT,
        Errno::AGAIN if !deadline.is_now() && deadline.has_passed() => Errno::TIMEDOUT,
        errno => errno,
    })
}

pub(in crate::sync) fn value(id: i32, index: u16) -> Result<u16> {
    control(id, index, libc::GETVAL, NONE).map(|value| value as u16)
}

pub(in crate::sync) fn last_pid(id: i32, index: u16) -> Result<i32> {
    control(id, index, libc::GETPID, NONE)
}

pub(in crate::sync) fn waiting(id: i32, index: u16) -> Result<u32> {
    control(id, index, libc::GETNCNT, NONE).map(|count| count as u32)
}

pub(in crate::sync) fn waiting_zero(id: i32, index: u16) -> Result<u32> {
    control(id, index, libc::GETZCNT, NONE).map(|count| count as u32)
}

pub(in crate::sync) fn values(id: i32) -> Result<Vec<u16>> {
    let count = status(id)?.count as usize;
    let mut values = room_for_any_set(count)?;
    control(id, 0, libc::GETALL, Argument { array: values.as_mut_ptr() })?;
    values.truncate(count);
    Ok(values)
}

pub(in crate::sync) fn set_value(id: i32, index: u16, value: u16) -> Result<()> {
    control(id, index, libc::SETVAL, Argument { val: value.into() }).map(drop)
}

/// As many as the set has.
pub(in crate::sync) fn set_values(id: i32, values: &[u16]) -> Result<()> {
    let mut all = room_for_any_set(values.len())?;
    all[..values.len()].copy_from_slice(values);
    control(id, 0, libc::SETALL, Argument { array: all.as_mut_ptr() }).map(drop)
}

pub(in crate::sync) fn status(id: i32) -> Result<Status> {
    let mut raw = empty_status();
    control(id, 0, libc::IPC_STAT, Argument { buf: &raw mut raw })?;
    Ok(from_raw(&raw))
}

pub(in crate::sync) fn set(id: i32, change: Change) -> Result<()> {
    let now = match status(id) {
        // An owner may change a set that its mode does not let him read, and reading is what IPC_STAT asks for.
        Err(Errno::ACCESS) => list()?.into_iter().find(|set| set.id == id).ok_or(Errno::ACCESS)?.status,
        other => other?,
    };
    let mut raw = empty_status();
    raw.sem_perm.uid = change.uid.unwrap_or(now.permissions.uid);
    raw.sem_perm.gid = change.gid.unwrap_or(now.permissions.gid);
    raw.sem_perm.mode = change.mode.unwrap_or(now.permissions.mode) as _;
    control(id, 0, libc::IPC_SET, Argument { buf: &raw mut raw }).map(drop)
}

pub(in crate::sync) fn remove(id: i32) -> Result<()> {
    control(id, 0, libc::IPC_RMID, NONE).map(drop)
}

pub(in crate::sync) fn limits() -> Result<Limits> {
    let limits = information(libc::IPC_INFO)?.1;
    let used = information(libc::SEM_INFO)?.1;
    Ok(Limits {
        per_set_max: limits.semmsl as u32,
        semaphores_max: limits.semmns as u32,
        operations_max: limits.semopm as u32,
        sets_max: limits.semmni as u32,
        value_max: limits.semvmx as u32,
        // SEM_INFO puts what is used into these two.
        sets: used.semusz as u32,
        semaphores: used.semaem as u32,
    })
}

pub(in crate::sync) fn list() -> Result<Vec<Listed>> {
    let (highest, _) = information(libc::SEM_INFO)?;
    let sets = (0..=highest).filter_map(|slot| {
        let mut raw = empty_status();
        // A free slot is EINVAL.
        let id = control(slot, 0, libc::SEM_STAT_ANY, Argument { buf: &raw mut raw }).ok()?;
        Some(Listed { id, status: from_raw(&raw) })
    });
    Ok(sets.collect())
}

/// The commands used here take no argument, a number, a whole `semid_ds`, or an array of one number for each
/// semaphore of the set.
fn control(id: i32, index: u16, command: i32, argument: Argument) -> Result<i32> {
    // SAFETY: each caller passes what its command takes, valid for the call.
    check(unsafe { libc::semctl(id, index.into(), command, argument) }).map(|value| value as i32)
}

fn from_raw(raw: &libc::semid_ds) -> Status {
    Status {
        permissions: Permissions::from_raw(&raw.sem_perm),
        count: raw.sem_nsems as u32,
        last_operation: sysv::time(raw.sem_otime),
        last_change: sysv::time(raw.sem_ctime),
    }
}

fn empty_status() -> libc::semid_ds {
    // SAFETY: a semid_ds is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Zeros for the values of the largest set that there can be: between two calls, the set with `count` semaphores may be
/// removed, and its id given to a larger one, all of which the kernel copies.
fn room_for_any_set(count: usize) -> Result<Vec<u16>> {
    let (_, limits) = information(libc::IPC_INFO)?;
    Ok(vec![0; count.max(limits.semmsl as usize)])
}

/// `IPC_INFO` or `SEM_INFO`: the highest slot in use, and the numbers.
fn information(command: i32) -> Result<(i32, libc::seminfo)> {
    // SAFETY: a seminfo is numbers only, for which all zeros is a value.
    let mut raw: libc::seminfo = unsafe { MaybeUninit::zeroed().assume_init() };
    let highest = control(0, 0, command, Argument { info: &raw mut raw })?;
    Ok((highest, raw))
}

/// "...: SEMOPM, the 3rd number of kernel.sem (32000 1024000000 500 32000), is 500; raise it with ...".
pub(super) fn limit_hint(what: &str, number: usize) -> String {
    const NAMES: [(&str, &str); 4] =
        [("SEMMSL", "1st"), ("SEMMNS", "2nd"), ("SEMOPM", "3rd"), ("SEMMNI", "4th")];
    let (name, place) = NAMES[number];
    let all = sysv::sysctl("kernel.sem").unwrap_or_default();
    match all.split_whitespace().nth(number) {
        Some(value) => format!(
            "{what}: {name}, the {place} number of kernel.sem ({all}), is {value}; raise it with \
             `sysctl -w kernel.sem='...'` (needs root)"
        ),
        None => format!("{what}: see {name}, the {place} number of the sysctl kernel.sem"),
    }
}

/// Which of the two limits behind `ENOSPC` was hit by a new set of `count` semaphores.
pub(super) fn no_space_hint(count: u32) -> String {
    match limits() {
        Ok(limits) if limits.sets < limits.sets_max => {
            let what =
                format!("the host has {} semaphores, and {count} more are too many", limits.semaphores);
            limit_hint(&what, 1)
        }
        Ok(limits) => limit_hint(&format!("the host has {} semaphore sets", limits.sets), 3),
        Err(_) => limit_hint("no more semaphore sets on this host", 3),
    }
}
