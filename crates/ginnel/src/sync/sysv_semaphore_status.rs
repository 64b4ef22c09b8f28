//! System V semaphore sets, their values, owners, limits and list: `semctl(2)`.

use std::time::SystemTime;

use rustix::io::Errno;

use super::sysv_semaphore::{Home, SysvSemaphores, kernel, user};
use crate::Namespace;
use crate::error::{Error, Result};
use crate::sysv::Permissions;

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
        let outcome = match &self.home {
            Home::Kernel => kernel::value(self.id, index),
            Home::User(set) => set.value(index),
        };
        outcome.map_err(|errno| self.failed_at(errno, index))
    }

    /// All values (`GETALL`), as of one moment.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn values(&self) -> Result<Vec<u16>> {
        let outcome = match &self.home {
            Home::Kernel => kernel::values(self.id),
            Home::User(set) => set.values(),
        };
        outcome.map_err(|errno| self.failed(errno))
    }

    /// Sets a semaphore's value (`SETVAL`). Wakes whom it lets go on, and clears what any process has to undo on it.
    ///
    /// # Errors
    /// `ERANGE`: above 32767. `EINVAL`: no such index, or removed. `EACCES`: no write permission. `EIDRM`.
    pub fn set_value(&self, index: u16, value: u16) -> Result<()> {
        let outcome = match &self.home {
            Home::Kernel => kernel::set_value(self.id, index, value),
            Home::User(set) => set.set_value(index, value),
        };
        outcome.map_err(|errno| self.failed_at(errno, index))
    }

    /// Sets all values at once (`SETALL`). Wakes whom it lets go on, and clears what any process has to undo.
    ///
    /// # Errors
    /// `EINVAL`: not as many values as the set has semaphores. Else as [`SysvSemaphores::set_value`].
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        // Without read permission the size cannot be known.
        let count = self.look().map_err(|errno| self.failed(errno))?.count as usize;
        if values.len() != count {
            let why = format!("{} values for {count} semaphores", values.len());
            return Err(Error::invalid("semctl", &self.object, why));
        }
        let outcome = match &self.home {
            Home::Kernel => kernel::set_values(self.id, values),
            Home::User(set) => set.set_values(values),
        };
        outcome.map_err(|errno| self.failed(errno))
    }

    /// The process that last operated on a semaphore or set its value (`GETPID`); 0 for none yet, or for one in
    /// another PID namespace. It may be gone, and its number in use again.
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn last_pid(&self, index: u16) -> Result<i32> {
        let outcome = match &self.home {
            Home::Kernel => kernel::last_pid(self.id, index),
            Home::User(set) => set.last_pid(index),
        };
        outcome.map_err(|errno| self.failed_at(errno, index))
    }

    /// How many callers wait for a semaphore to have more (`GETNCNT`).
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting(&self, index: u16) -> Result<u32> {
        let outcome = match &self.home {
            Home::Kernel => kernel::waiting(self.id, index),
            Home::User(set) => set.waiting(index),
        };
        outcome.map_err(|errno| self.failed_at(errno, index))
    }

    /// How many callers wait for a semaphore to be 0 (`GETZCNT`).
    ///
    /// # Errors
    /// As [`SysvSemaphores::value`].
    pub fn waiting_zero(&self, index: u16) -> Result<u32> {
        let outcome = match &self.home {
            Home::Kernel => kernel::waiting_zero(self.id, index),
            Home::User(set) => set.waiting_zero(index),
        };
        outcome.map_err(|errno| self.failed_at(errno, index))
    }

    /// The set's state (`IPC_STAT`).
    ///
    /// # Errors
    /// `EACCES`: no read permission. `EINVAL`, `EIDRM`: removed.
    pub fn status(&self) -> Result<Status> {
        self.look().map_err(|errno| self.failed(errno))
    }

    /// Changes owner, group and mode (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: removed.
    pub fn set(&self, change: Change) -> Result<()> {
        let outcome = match &self.home {
            Home::Kernel => kernel::set(self.id, change),
            Home::User(set) => set.set(change),
        };
        outcome.map_err(|errno| self.failed_at(errno, 0))
    }

    /// Removes the set at once (`IPC_RMID`); whoever waits on it gets `EIDRM`.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it was removed before.
    pub fn remove(&self) -> Result<()> {
        let outcome = match &self.home {
            Home::Kernel => kernel::remove(self.id),
            Home::User(set) => set.remove(),
        };
        outcome.map_err(|errno| self.failed_at(errno, 0))
    }

    /// The limits of this IPC namespace, and how much of them is used.
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn limits() -> Result<Limits> {
        SysvSemaphores::limits_in(&Namespace::kernel())
    }

    /// [`SysvSemaphores::limits`] of another home, where the numbers of sets and of semaphores have none.
    ///
    /// # Errors
    /// As [`SysvSemaphores::limits`].
    pub fn limits_in(namespace: &Namespace) -> Result<Limits> {
        let outcome = match namespace.user() {
            None => kernel::limits(),
            Some(home) => user::limits(home),
        };
        outcome.map_err(|errno| Error::new("semctl", errno, &"sysv-sem".into()))
    }

    /// All sets of this IPC namespace (`SEM_STAT_ANY`, Linux 4.17), whoever may use them; what is made or removed
    /// meanwhile may be in it or not.
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn list() -> Result<Vec<Listed>> {
        SysvSemaphores::list_in(&Namespace::kernel())
    }

    /// [`SysvSemaphores::list`] of another home, where it shows what the caller may read.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory may not be read.
    pub fn list_in(namespace: &Namespace) -> Result<Vec<Listed>> {
        let outcome = match namespace.user() {
            None => kernel::list(),
            Some(home) => user::list(home),
        };
        outcome.map_err(|errno| Error::new("semctl", errno, &"sysv-sem".into()))
    }

    pub(super) fn look(&self) -> Result<Status, Errno> {
        match &self.home {
            Home::Kernel => kernel::status(self.id),
            Home::User(set) => set.status(),
        }
    }

    fn failed(&self, errno: Errno) -> Error {
        self.explain(Error::new("semctl", errno, &self.object))
    }

    fn failed_at(&self, errno: Errno, index: u16) -> Error {
        let error = Error::new("semctl", errno, &self.object);
        match (errno, self.look()) {
            (Errno::PERM, _) => error.with_hint("only its owner, its creator or root may do that"),
            (Errno::RANGE, _) => error.with_hint("a semaphore's value is 32767 (SEMVMX) at the most"),
            (Errno::INVAL, Ok(status)) if u32::from(index) >= status.count => error.with_hint(format!(
                "there is no semaphore {index}: the set has {}, counted from 0",
                status.count
            )),
            _ => self.explain(error),
        }
    }
}
