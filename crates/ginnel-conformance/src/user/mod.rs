//! The user-space home: what the drop-in does with `ginnel_engine`, without C.
//!
//! As the drop-in does, a process opens an object when it first needs it, and keeps it open. A forked child opens its own.

pub mod differences;
mod posix_queue;
mod posix_semaphore;
mod posix_shm;
mod sysv_queue;
mod sysv_segment;
mod sysv_semaphore;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ginnel_engine::message::sysv_queue::SysvQueue;
use ginnel_engine::namespace::{Change, Limits, Namespace, Status};
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;

use crate::Result;
use crate::home::{Home, Owner, Permissions};

/// The user-space home.
#[derive(Debug)]
pub struct User {
    namespace: Namespace,
    sets: Open<SysvSemaphores>,
    queues_by_id: Open<SysvQueue>,
    queues: posix_queue::Queues,
    semaphores: posix_semaphore::Semaphores,
}

impl Home for User {
    const NAME: &'static str = "user space";
    // Nobody is there to do it: who asks later sees that the process is gone, and does not count it.
    const STAMPS_DEATHS: bool = false;
    // A death wakes one of them, who then stands at the end.
    const SEMAPHORES_IN_TURN: bool = false;

    fn fresh() -> User {
        User::with(Limits::default())
    }
}

impl User {
    /// A new home that grants a queue what the kernel does when nothing is said: for comparing the two.
    pub fn as_narrow_as_the_kernel() -> User {
        User::with(Limits { msgmax: 8192, msgmnb: 16384, ..Limits::default() })
    }

    fn with(limits: Limits) -> User {
        let path = "/dev/shm/ginnel-conformance";
        let _ = std::fs::remove_dir_all(path);
        let namespace = Namespace::options().create(true).mode(0o1777).limits(limits).open(path);
        User {
            namespace: namespace.unwrap_or_else(|error| panic!("{error:?}")),
            sets: Open::default(),
            queues_by_id: Open::default(),
            queues: posix_queue::Queues::default(),
            semaphores: posix_semaphore::Semaphores::default(),
        }
    }
}

/// What this process has open, by id.
#[derive(Debug)]
struct Open<T> {
    inner: Mutex<(u32, HashMap<i32, Arc<T>>)>,
}

impl<T> Default for Open<T> {
    fn default() -> Open<T> {
        Open { inner: Mutex::new((0, HashMap::new())) }
    }
}

impl<T> Open<T> {
    fn get(&self, id: i32, open: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut inner = self.inner.lock().expect("nobody panics with it");
        let pid = std::process::id();
        if inner.0 != pid {
            *inner = (pid, HashMap::new());
        }
        if let Some(object) = inner.1.get(&id) {
            return Ok(object.clone());
        }
        let object = Arc::new(open()?);
        inner.1.insert(id, object.clone());
        Ok(object)
    }

    fn forget(&self, id: i32) {
        self.inner.lock().expect("nobody panics with it").1.remove(&id);
    }
}

fn patience(timeout: Option<Duration>) -> Patience {
    match timeout {
        None => Patience::Endless,
        Some(Duration::ZERO) => Patience::Until(Instant::now()),
        Some(timeout) => Patience::Until(Instant::now() + timeout),
    }
}

fn permissions(status: &Status) -> Permissions {
    Permissions {
        key: status.key,
        uid: status.uid,
        gid: status.gid,
        cuid: status.cuid,
        cgid: status.cgid,
        mode: status.mode,
    }
}

fn change(owner: Owner) -> Change {
    Change { uid: owner.uid, gid: owner.gid, mode: owner.mode }
}
