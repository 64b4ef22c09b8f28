//! System V queues in a user-space home: `ginnel_engine::message::sysv_queue`.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ginnel_engine::message::sysv_queue as engine;
use ginnel_engine::namespace::{Kind, Namespace};
use rustix::io::Errno;

use super::{Change, Limits, Received, Status};
use crate::Deadline;
use crate::namespace::{Opened, change as changed, limit_hint};
use crate::sysv::{self, Permissions};

type Result<T> = std::result::Result<T, Errno>;

const KIND: Kind = Kind::SysvQueue;

/// A queue, opened by the first call that needs it: an id alone is not looked at.
#[derive(Debug)]
pub(super) struct Queue(Opened<engine::SysvQueue>);

pub(super) fn get(home: &Namespace, key: i32, flags: i32) -> Result<i32> {
    engine::SysvQueue::get(home, key, flags)
}

pub(super) fn list(home: &Namespace) -> Result<Vec<(i32, Status)>> {
    let all = home.list(KIND)?;
    // What was removed meanwhile, and what may not be read, is left out.
    Ok(all.iter().filter_map(|listed| Some((listed.id, status(home, listed.id).ok()?))).collect())
}

pub(super) fn limits(home: &Namespace) -> Result<Limits> {
    let all = list(home)?;
    let sum = |number: fn(&Status) -> u64| all.iter().map(|(_, status)| number(status)).sum();
    Ok(Limits {
        queues_max: i32::MAX as u64,
        message_bytes_max: home.limits().msgmax,
        queue_bytes_max: home.limits().msgmnb,
        queues: all.len() as u64,
        messages: sum(|status| status.messages),
        bytes: sum(|status| status.bytes),
    })
}

fn status(home: &Namespace, id: i32) -> Result<Status> {
    engine::SysvQueue::status(home, id).map(|status| from_engine(&status))
}

impl Queue {
    pub(super) fn new(home: &Arc<Namespace>, id: i32) -> Queue {
        Queue(Opened::new(home, id))
    }

    #[inline]
    pub(super) fn send(&self, message_type: i64, payload: &[u8], deadline: Deadline) -> Result<()> {
        self.opened()?.send(message_type, payload, 0, deadline.patience())
    }

    #[inline]
    pub(super) fn recv(
        &self,
        message_type: i64,
        flags: i32,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<Received> {
        let no_wait = if deadline.is_now() { libc::IPC_NOWAIT } else { 0 };
        let queue = self.opened()?;
        let (message_type, len) = queue.recv(buffer, message_type, flags | no_wait, deadline.patience())?;
        Ok(Received { message_type, len })
    }

    pub(super) fn status(&self) -> Result<Status> {
        status(&self.0.home, self.0.id)
    }

    pub(super) fn set(&self, change: Change) -> Result<()> {
        let Opened { home, id, .. } = &self.0;
        let new = changed(home, KIND, *id, (change.uid, change.gid, change.mode))?;
        // An owner whose mode does not let him read cannot know the limit, and need not to leave it as it is.
        let bytes_max = match change.bytes_max {
            Some(bytes) => bytes,
            None => match engine::SysvQueue::status(home, *id) {
                Ok(status) => status.bytes_max,
                Err(Errno::ACCESS) => return home.set(KIND, *id, new),
                Err(errno) => return Err(errno),
            },
        };
        let change = engine::Change { uid: new.uid, gid: new.gid, mode: new.mode, bytes_max };
        engine::SysvQueue::set(home, *id, change)
    }

    pub(super) fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.opened()?.descriptor()
    }

    pub(super) fn remove(&self) -> Result<()> {
        engine::SysvQueue::remove(&self.0.home, self.0.id)
    }

    #[inline]
    fn opened(&self) -> Result<&engine::SysvQueue> {
        self.0.get(engine::SysvQueue::open)
    }

    /// If the size is what was wrong with a message.
    pub(super) fn size_hint(&self, len: usize) -> Option<String> {
        let home = &self.0.home;
        let max = home.limits().msgmax;
        (len as u64 > max).then(|| limit_hint(home, &format!("the message has {len} bytes"), "msgmax", max))
    }
}

fn from_engine(status: &engine::Status) -> Status {
    Status {
        permissions: Permissions::of_user(&status.object),
        messages: status.messages,
        bytes: status.bytes,
        bytes_max: status.bytes_max,
        last_send_pid: status.last_sender,
        last_recv_pid: status.last_receiver,
        last_send: sysv::time(status.sent),
        last_recv: sysv::time(status.received),
        last_change: sysv::time(status.changed),
    }
}
