//! Semaphore sets in a user-space home: `ginnel_engine::sync::sysv_semaphore`.

use std::sync::Arc;

use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::sync::sysv_semaphore as engine;
use rustix::io::Errno;

use crate::Deadline;
use crate::namespace::{Opened, change as changed, limit_hint};
use crate::sync::sysv_semaphore_status::{Change, Limits, Listed, Status};
use crate::sysv::{self, Permissions};

type Result<T> = std::result::Result<T, Errno>;

/// A set, opened by the first call that needs it: an id alone is not looked at.
#[derive(Debug)]
pub(in crate::sync) struct Set(Opened<engine::SysvSemaphores>);

pub(in crate::sync) fn get(home: &Namespace, key: i32, count: i32, flags: i32) -> Result<i32> {
    engine::SysvSemaphores::get(home, key, count, flags)
}

pub(in crate::sync) fn limits(home: &Namespace) -> Result<Limits> {
    let sets = list(home)?;
    let limits = home.limits();
    Ok(Limits {
        per_set_max: limits.semmsl as u32,
        semaphores_max: u32::MAX,
        operations_max: limits.semopm as u32,
        sets_max: i32::MAX as u32,
        value_max: limits.semvmx as u32,
        sets: sets.len() as u32,
        semaphores: sets.iter().map(|set| set.status.count).fold(0, u32::saturating_add),
    })
}

pub(in crate::sync) fn list(home: &Namespace) -> Result<Vec<Listed>> {
    let sets = home.list(Kind::SysvSemaphores)?;
    // What was removed meanwhile, and what may not be read, is left out.
    let status = |id| engine::SysvSemaphores::status(home, id).map(|status| from_engine(&status));
    Ok(sets.iter().filter_map(|set| Some(Listed { id: set.id, status: status(set.id).ok()? })).collect())
}

pub(super) fn count_hint(home: &Namespace) -> String {
    limit_hint(home, "a new one may not have as many", "semmsl", home.limits().semmsl)
}

impl Set {
    pub(super) fn new(home: &Arc<Namespace>, id: i32) -> Set {
        Set(Opened::new(home, id))
    }

    #[inline]
    pub(super) fn operate(&self, operations: &[libc::sembuf], deadline: Deadline) -> Result<()> {
        self.opened()?.operate(operations, deadline.patience())
    }

    pub(in crate::sync) fn value(&self, index: u16) -> Result<u16> {
        self.opened()?.value(index.into())
    }

    pub(in crate::sync) fn last_pid(&self, index: u16) -> Result<i32> {
        self.opened()?.last_pid(index.into()).map(|pid| pid as i32)
    }

    pub(in crate::sync) fn waiting(&self, index: u16) -> Result<u32> {
        self.opened()?.waiting(index.into())
    }

    pub(in crate::sync) fn waiting_zero(&self, index: u16) -> Result<u32> {
        self.opened()?.waiting_zero(index.into())
    }

    pub(in crate::sync) fn values(&self) -> Result<Vec<u16>> {
        let set = self.opened()?;
        let mut values = vec![0; set.count()];
        set.values(&mut values)?;
        Ok(values)
    }

    pub(in crate::sync) fn set_value(&self, index: u16, value: u16) -> Result<()> {
        self.opened()?.set_value(index.into(), value)
    }

    pub(in crate::sync) fn set_values(&self, values: &[u16]) -> Result<()> {
        self.opened()?.set_values(values)
    }

    pub(in crate::sync) fn status(&self) -> Result<Status> {
        engine::SysvSemaphores::status(&self.0.home, self.0.id).map(|status| from_engine(&status))
    }

    pub(in crate::sync) fn set(&self, change: Change) -> Result<()> {
        let Opened { home, id, .. } = &self.0;
        let change = changed(home, Kind::SysvSemaphores, *id, (change.uid, change.gid, change.mode))?;
        home.set(Kind::SysvSemaphores, *id, change)
    }

    pub(in crate::sync) fn remove(&self) -> Result<()> {
        engine::SysvSemaphores::remove(&self.0.home, self.0.id)
    }

    /// The command that removes it.
    pub(super) fn removal(&self) -> String {
        format!("ginnel rm --namespace {} sysv-sem:id={}", self.0.home.path().display(), self.0.id)
    }

    pub(super) fn operations_hint(&self, what: &str) -> String {
        limit_hint(&self.0.home, what, "semopm", self.0.home.limits().semopm)
    }

    fn opened(&self) -> Result<&engine::SysvSemaphores> {
        self.0.get(engine::SysvSemaphores::open)
    }
}

fn from_engine(status: &engine::Status) -> Status {
    Status {
        permissions: Permissions::of_user(&status.object),
        count: status.count as u32,
        last_operation: sysv::time(status.last_operation as i64),
        last_change: sysv::time(status.last_change as i64),
    }
}
