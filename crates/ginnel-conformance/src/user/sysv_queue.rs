//! `msgget(2)`, `msgop(2)`, `msgctl(2)` over `ginnel_engine::message::sysv_queue`.

use std::sync::Arc;

use ginnel_engine::message::sysv_queue::SysvQueue as Queue;
use ginnel_engine::namespace::{Kind, REMOVED, mark_removed, state};

use super::{User, change, patience, permissions};
use crate::home::{Owner, QueueStatus, SysvMessages};
use crate::{Errno, Result};

impl User {
    fn queue(&self, id: i32) -> Result<Arc<Queue>> {
        let queue =
            self.queues_by_id.get(id, || self.namespace.open_id(Kind::SysvQueue, id).map(Queue::over))?;
        if state(queue.segment()) & REMOVED != 0 {
            self.queues_by_id.forget(id);
            return Err(Errno::INVAL);
        }
        Ok(queue)
    }
}

impl SysvMessages for User {
    const MESSAGE_BYTES_MAX: usize = 1 << 30;

    fn msgget(&self, key: i32, flags: i32) -> Result<i32> {
        self.namespace.get(Kind::SysvQueue, key, flags, 0, |draft| draft.segment(1 << 34, Queue::fill))
    }

    fn msgsnd(&self, id: i32, mtype: i64, text: &[u8], flags: i32) -> Result<()> {
        if id < 0 || mtype < 1 || text.len() > Self::MESSAGE_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        self.queue(id)?.send(mtype, text, flags, patience(None))
    }

    fn msgrcv(&self, id: i32, text: &mut [u8], mtype: i64, flags: i32) -> Result<(i64, usize)> {
        if id < 0 {
            return Err(Errno::INVAL);
        }
        self.queue(id)?.recv(text, mtype, flags, patience(None))
    }

    fn msg_status(&self, id: i32) -> Result<QueueStatus> {
        let object = self.namespace.stat(Kind::SysvQueue, id)?;
        let status = self.queue(id)?.status()?;
        Ok(QueueStatus {
            perm: permissions(&object),
            stime: status.sent,
            rtime: status.received,
            ctime: status.changed.max(object.ctime),
            cbytes: status.bytes,
            qnum: status.messages,
            qbytes: status.bytes_max,
            lspid: status.last_sender,
            lrpid: status.last_receiver,
        })
    }

    fn msg_set(&self, id: i32, owner: Owner, qbytes: u64) -> Result<()> {
        self.namespace.set(Kind::SysvQueue, id, change(owner))?;
        self.queue(id)?.set_bytes_max(qbytes)
    }

    fn msg_remove(&self, id: i32) -> Result<()> {
        let queue = self.queue(id);
        self.namespace.remove_id(Kind::SysvQueue, id, |segment| {
            mark_removed(segment);
            if let Ok(queue) = queue {
                queue.remove()?;
            }
            Ok(())
        })?;
        self.queues_by_id.forget(id);
        Ok(())
    }
}
