//! `semget(2)`, `semop(2)`, `semctl(2)` over `ginnel_engine::sync::sysv_semaphore`.

use std::sync::Arc;
use std::time::Duration;

use ginnel_engine::namespace::Kind;
use ginnel_engine::sync::sysv_semaphore::{OPERATIONS_MAX, SysvSemaphores as Set, VALUE_MAX};

use super::{User, change, patience, permissions};
use crate::home::{Owner, SetStatus, SysvSemaphores};
use crate::{Errno, Result};

impl User {
    fn set(&self, id: i32) -> Result<Arc<Set>> {
        self.sets.get(id, || Set::open(&self.namespace, id))
    }

    /// A call on an open set. One that is removed is open no more.
    fn on_set<T>(&self, id: i32, call: impl FnOnce(&Set) -> Result<T>) -> Result<T> {
        let outcome = call(&*self.set(id)?);
        // A call can be wrong with a set that is there: its handle stays, with what this process has to undo.
        if matches!(outcome, Err(Errno::INVAL | Errno::IDRM))
            && matches!(self.namespace.stat(Kind::SysvSemaphores, id), Err(Errno::INVAL | Errno::IDRM))
        {
            self.sets.forget(id);
        }
        outcome
    }
}

fn index(number: i32) -> Result<usize> {
    usize::try_from(number).map_err(|_| Errno::INVAL)
}

impl SysvSemaphores for User {
    fn semget(&self, key: i32, count: i32, flags: i32) -> Result<i32> {
        Set::get(&self.namespace, key, count, flags)
    }

    fn semtimedop(&self, id: i32, operations: &[libc::sembuf], timeout: Option<Duration>) -> Result<()> {
        // As the kernel does, before it looks for the set.
        if operations.is_empty() || id < 0 {
            return Err(Errno::INVAL);
        }
        if operations.len() > OPERATIONS_MAX {
            return Err(Errno::TOOBIG);
        }
        match self.on_set(id, |set| set.operate(operations, patience(timeout))) {
            Err(Errno::TIMEDOUT) => Err(Errno::AGAIN),
            outcome => outcome,
        }
    }

    fn sem_getval(&self, id: i32, number: i32) -> Result<i32> {
        self.on_set(id, |set| Ok(set.value(index(number)?)?.into()))
    }

    fn sem_getpid(&self, id: i32, number: i32) -> Result<i32> {
        self.on_set(id, |set| Ok(set.last_pid(index(number)?)? as i32))
    }

    fn sem_getncnt(&self, id: i32, number: i32) -> Result<i32> {
        self.on_set(id, |set| Ok(set.waiting(index(number)?)? as i32))
    }

    fn sem_getzcnt(&self, id: i32, number: i32) -> Result<i32> {
        self.on_set(id, |set| Ok(set.waiting_zero(index(number)?)? as i32))
    }

    fn sem_getall(&self, id: i32) -> Result<Vec<u16>> {
        self.on_set(id, |set| {
            let mut values = vec![0; set.count()];
            set.values(&mut values)?;
            Ok(values)
        })
    }

    fn sem_setval(&self, id: i32, number: i32, value: i32) -> Result<()> {
        // The kernel looks at the id's sign, then at the value, then for the set.
        if id < 0 {
            return Err(Errno::INVAL);
        }
        let value = u16::try_from(value).ok().filter(|value| *value <= VALUE_MAX).ok_or(Errno::RANGE)?;
        self.on_set(id, |set| set.set_value(index(number)?, value))
    }

    fn sem_setall(&self, id: i32, values: &[u16]) -> Result<()> {
        self.on_set(id, |set| set.set_values(values))
    }

    fn sem_status(&self, id: i32) -> Result<SetStatus> {
        let status = Set::status(&self.namespace, id)?;
        Ok(SetStatus {
            perm: permissions(&status.object),
            otime: status.last_operation as i64,
            ctime: status.last_change as i64,
            nsems: status.count,
        })
    }

    fn sem_set(&self, id: i32, owner: Owner) -> Result<()> {
        self.namespace.set(Kind::SysvSemaphores, id, change(owner))
    }

    fn sem_remove(&self, id: i32) -> Result<()> {
        Set::remove(&self.namespace, id)?;
        self.sets.forget(id);
        Ok(())
    }
}
