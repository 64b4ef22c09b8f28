//! System V semaphore sets, their values, owners, limits and list: `semctl(2)`.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;
use std::time::SystemTime;

use rustix::io::Errno;

use super::sysv_semaphore::SysvSemaphores;
use crate::error::{Error, Result};
use crate::sysv::{self, Permissions};
use crate::wait::check;

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

/// A set's state: `struct semid_ds` of `semctl(2)`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::SysvSemaphores;
///
/// let set = SysvSemaphores::private(3)?;
/// assert_eq!((set.status()?.count, set.status()?.permissions.mode), (3, 0o600));
/// assert_eq!(set.status()?.last_operation, None);
/// set.post(0)?;
/// assert!(set.status()?.last_operation.is_some());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Owner, creator, mode, key.
    pub permissions: Permissions,
    /// How many semaphores it has.
    pub count: u32,
    /// When the last operation was done; `None` before the first one.
    pub last_operation: Option<SystemTime>,
    /// When it was made, last [`set`](SysvSemaphores::set), or a value was set.
    pub last_change: Option<SystemTime>,
}

impl Status {
    fn from_raw(raw: &libc::semid_ds) -> Status {
        Status {
            permissions: Permissions::from_raw(&raw.sem_perm),
            count: raw.sem_nsems as u32,
            last_operation: sysv::time(raw.sem_otime),
            last_change: sysv::time(raw.sem_ctime),
        }
    }
}

/// What [`SysvSemaphores::set`] is to change; `None` leaves it as it is.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::{SysvSemaphores, sysv_semaphore_status::Change};
///
/// let set = SysvSemaphores::private(1)?;
/// set.set(Change { mode: Some(0o640), ..Change::default() })?;
/// assert_eq!(set.status()?.permissions.mode, 0o640);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// The new owner.
    pub uid: Option<u32>,
    /// The new group.
    pub gid: Option<u32>,
    /// The new permission bits.
    pub mode: Option<u32>,
}

/// The limits of the IPC namespace and how much of them is used (`IPC_INFO`, `SEM_INFO`); set by `kernel.sem`.
///
/// ```
/// let limits = ginnel::sync::SysvSemaphores::limits()?;
/// assert_eq!(limits.value_max, 32767);
/// assert!(limits.sets <= limits.sets_max);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `SEMMSL`: semaphores in one set; the first number of `kernel.sem`.
    pub per_set_max: u32,
    /// `SEMMNS`: semaphores in all sets together; the second number.
    pub semaphores_max: u32,
    /// `SEMOPM`: operations in one call; the third number.
    pub operations_max: u32,
    /// `SEMMNI`: sets; the fourth number.
    pub sets_max: u32,
    /// `SEMVMX`: the highest value.
    pub value_max: u32,
    /// Sets there are now.
    pub sets: u32,
    /// Semaphores there are now in all sets together.
    pub semaphores: u32,
}

/// One line of [`SysvSemaphores::list`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::SysvSemaphores;
///
/// let set = SysvSemaphores::private(3)?;
/// let all = SysvSemaphores::list()?;
/// let listed = all.iter().find(|listed| listed.id == set.id()).unwrap();
/// assert_eq!(listed.status, set.status()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The kernel's id (`semid`), for [`SysvSemaphores::from_id`].
    pub id: i32,
    /// Its state.
    pub status: Status,
}

impl SysvSemaphores {
    /// A semaphore's value (`GETVAL`).
    ///
    /// # Errors
    /// `EINVAL`: an index that the set has not, or the set was removed ([`Error::is_removed`]). `EACCES`: no read
    /// permission. `EIDRM`.
    pub fn value(&self, index: u16) -> Result<u16> {
        self.number(index, libc::GETVAL).map(|value| value as u16)
    }

    /// All values (`GETALL`), as of one moment.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn values(&self) -> Result<Vec<u16>> {
        let count = self.status()?.count as usize;
        let mut values = room_for_any_set(count)?;
        self.control(0, libc::GETALL, Argument { array: values.as_mut_ptr() })?;
        values.truncate(count);
        Ok(values)
    }

    /// Sets a semaphore's value (`SETVAL`). Wakes whom it lets go on, and clears what any process has to undo on it.
    ///
    /// # Errors
    /// `ERANGE`: above 32767. `EINVAL`: no such index, or removed. `EACCES`: no write permission. `EIDRM`.
    pub fn set_value(&self, index: u16, value: u16) -> Result<()> {
        self.control(index, libc::SETVAL, Argument { val: value.into() }).map(drop)
    }

    /// Sets all values at once (`SETALL`). Wakes whom it lets go on, and clears what any process has to undo.
    ///
    /// # Errors
    /// `EINVAL`: not as many values as the set has semaphores. Else as [`SysvSemaphores::set_value`].
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        let count = match self.raw_status() {
            Ok(raw) => raw.sem_nsems as usize,
            // Without read permission the size cannot be known.
            Err(errno) => return Err(self.explain(Error::new("semctl", errno, &self.object))),
        };
        if values.len() != count {
            let why = format!("{} values for {count} semaphores", values.len());
            return Err(Error::invalid("semctl", &self.object, why));
        }
        let mut all = room_for_any_set(count)?;
        all[..count].copy_from_slice(values);
        self.control(0, libc::SETALL, Argument { array: all.as_mut_ptr() }).map(drop)
    }

    /// The process that last operated on a semaphore or set its value (`GETPID`); 0 for none yet, or for one in
    /// another PID namespace. It may be gone, and its number in use again.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn last_pid(&self, index: u16) -> Result<i32> {
        self.number(index, libc::GETPID)
    }

    /// How many callers wait for a semaphore to have more (`GETNCNT`).
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting(&self, index: u16) -> Result<u32> {
        self.number(index, libc::GETNCNT).map(|count| count as u32)
    }

    /// How many callers wait for a semaphore to be 0 (`GETZCNT`).
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting_zero(&self, index: u16) -> Result<u32> {
        self.number(index, libc::GETZCNT).map(|count| count as u32)
    }

    /// The set's state (`IPC_STAT`).
    ///
    /// # Errors
    /// `EACCES`: no read permission. `EINVAL`, `EIDRM`: removed.
    pub fn status(&self) -> Result<Status> {
        match self.raw_status() {
            Ok(raw) => Ok(Status::from_raw(&raw)),
            Err(errno) => Err(self.explain(Error::new("semctl", errno, &self.object))),
        }
    }

    /// Changes owner, group and mode (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: removed.
    pub fn set(&self, change: Change) -> Result<()> {
        let now = match self.status() {
            // An owner may change a set that its mode does not let him read, and reading is what IPC_STAT asks for.
            Err(error) if error.raw() == Errno::ACCESS => {
                SysvSemaphores::list()?.into_iter().find(|set| set.id == self.id).ok_or(error)?.status
            }
            other => other?,
        };
        let mut raw = empty_status();
        raw.sem_perm.uid = change.uid.unwrap_or(now.permissions.uid);
        raw.sem_perm.gid = change.gid.unwrap_or(now.permissions.gid);
        raw.sem_perm.mode = change.mode.unwrap_or(now.permissions.mode) as _;
        self.control(0, libc::IPC_SET, Argument { buf: &raw mut raw }).map(drop)
    }

    /// Removes the set at once (`IPC_RMID`); whoever waits on it gets `EIDRM`.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it was removed before.
    pub fn remove(&self) -> Result<()> {
        self.control(0, libc::IPC_RMID, NONE).map(drop)
    }

    /// The limits of this IPC namespace, and how much of them is used.
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn limits() -> Result<Limits> {
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

    /// All sets of this IPC namespace (`SEM_STAT_ANY`, Linux 4.17), whoever may use them; what is made or removed
    /// meanwhile may be in it or not.
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn list() -> Result<Vec<Listed>> {
        let (highest, _) = information(libc::SEM_INFO)?;
        let sets = (0..=highest).filter_map(|slot| {
            let mut raw = empty_status();
            let argument = Argument { buf: &raw mut raw };
            // SAFETY: the buffer is a whole semid_ds, which the kernel fills. A free slot is EINVAL.
            let id = check(unsafe { libc::semctl(slot, 0, libc::SEM_STAT_ANY, argument) }).ok()? as i32;
            Some(Listed { id, status: Status::from_raw(&raw) })
        });
        Ok(sets.collect())
    }

    pub(super) fn raw_status(&self) -> Result<libc::semid_ds, Errno> {
        let mut raw = empty_status();
        let argument = Argument { buf: &raw mut raw };
        // SAFETY: the buffer is a whole semid_ds, which the kernel fills.
        check(unsafe { libc::semctl(self.id, 0, libc::IPC_STAT, argument) })?;
        Ok(raw)
    }

    fn number(&self, index: u16, command: i32) -> Result<i32> {
        self.control(index, command, NONE)
    }

    /// The commands used here take no argument, a number, a whole `semid_ds`, or an array of one number for each
    /// semaphore of the set.
    fn control(&self, index: u16, command: i32, argument: Argument) -> Result<i32> {
        // SAFETY: each caller passes what its command takes, valid for the call.
        match check(unsafe { libc::semctl(self.id, index.into(), command, argument) }) {
            Ok(value) => Ok(value as i32),
            Err(errno) => Err(self.explain_control(Error::new("semctl", errno, &self.object), index)),
        }
    }

    fn explain_control(&self, error: Error, index: u16) -> Error {
        match (error.raw(), self.raw_status()) {
            (Errno::PERM, _) => error.with_hint("only its owner, its creator or root may do that"),
            (Errno::RANGE, _) => error.with_hint("a semaphore's value is 32767 (SEMVMX) at the most"),
            (Errno::INVAL, Ok(raw)) if u64::from(index) >= raw.sem_nsems => error.with_hint(format!(
                "there is no semaphore {index}: the set has {}, counted from 0",
                raw.sem_nsems
            )),
            _ => self.explain(error),
        }
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
    let argument = Argument { info: &raw mut raw };
    // SAFETY: the buffer is a whole seminfo, which the kernel fills.
    match check(unsafe { libc::semctl(0, 0, command, argument) }) {
        Ok(highest) => Ok((highest as i32, raw)),
        Err(errno) => Err(Error::new("semctl", errno, &"sysv-sem".into())),
    }
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
    match SysvSemaphores::limits() {
        Ok(limits) if limits.sets < limits.sets_max => {
            let what =
                format!("the host has {} semaphores, and {count} more are too many", limits.semaphores);
            limit_hint(&what, 1)
        }
        Ok(limits) => limit_hint(&format!("the host has {} semaphore sets", limits.sets), 3),
        Err(_) => limit_hint("no more semaphore sets on this host", 3),
    }
}
