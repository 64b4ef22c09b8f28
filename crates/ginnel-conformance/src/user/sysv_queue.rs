//! `msgget(2)`, `msgop(2)`, `msgctl(2)` over `ginnel_engine::message::sysv_queue`.

use std::sync::Arc;

use ginnel_engine::message::sysv_queue::{Change, SysvQueue as Queue};

use super::{User, patience, permissions};
use crate::home::{Owner, QueueStatus, SysvMessages};
use crate::{Errno, Result};

impl User {
    fn queue(&self, id: i32) -> Result<Arc<Queue>> {
        self.queues_by_id.get(id, || Queue::open(&self.namespace, id))
    }

    /// A call on an open queue. One that is removed is open no more.
    fn on_queue<T>(&self, id: i32, call: impl FnOnce(&Queue) -> Result<T>) -> Result<T> {
        let outcome = call(&*self.queue(id)?);
        if matches!(outcome, Err(Errno::INVAL | Errno::IDRM)) {
            self.queues_by_id.forget(id);
        }
        outcome
    }
}

impl SysvMessages for User {
    const MESSAGE_BYTES_MAX: usize = 1 << 30;

    fn msgget(&self, key: i32, flags: i32) -> Result<i32> {
        Queue::get(&self.namespace, key, flags)
    }

    fn msgsnd(&self, id: i32, mtype: i64, text: &[u8], flags: i32) -> Result<()> {
        // As the kernel does, before it looks for the queue.
        if id < 0 || mtype < 1 || text.len() as u64 > self.namespace.limits().msgmax {
            return Err(Errno::INVAL);
        }
        self.on_queue(id, |queue| queue.send(mtype, text, flags, patience(None)))
    }

    fn msgrcv(&self, id: i32, text: &mut [u8], mtype: i64, flags: i32) -> Result<(i64, usize)> {
        if id < 0 {
            return Err(Errno::INVAL);
        }
        self.on_queue(id, |queue| queue.recv(text, mtype, flags, patience(None)))
    }

    fn msg_status(&self, id: i32) -> Result<QueueStatus> {
        let status = Queue::status(&self.namespace, id)?;
        Ok(QueueStatus {
            perm: permissions(&status.object),
            stime: status.sent,
            rtime: status.received,
            ctime: status.changed,
            cbytes: status.bytes,
            qnum: status.messages,
            qbytes: status.bytes_max,
            lspid: status.last_sender,
            lrpid: status.last_receiver,
        })
    }

    fn msg_set(&self, id: i32, owner: Owner, qbytes: u64) -> Result<()> {
        let change = Change { uid: owner.uid, gid: owner.gid, mode: owner.mode, bytes_max: qbytes };
        Queue::set(&self.namespace, id, change)
    }

    fn msg_remove(&self, id: i32) -> Result<()> {
        Queue::remove(&self.namespace, id)?;
        self.queues_by_id.forget(id);
        Ok(())
    }
}
