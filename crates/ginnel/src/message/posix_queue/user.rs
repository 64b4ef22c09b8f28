//! POSIX queues in a user-space home: `ginnel_engine::message::posix_queue`.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ginnel_engine::message::posix_queue as engine;
use ginnel_engine::namespace::Namespace;
use rustix::io::Errno;

use super::{Received, Status};
use crate::Deadline;
use crate::namespace::limit_hint;

type Result<T> = std::result::Result<T, Errno>;

/// An open queue. Shared with the thread that waits for a notice, if there is one.
#[derive(Debug)]
pub(in crate::message) struct Queue(Arc<engine::PosixQueue>);

impl Queue {
    /// `limits`: messages and bytes of each.
    pub(super) fn open(
        home: &Namespace,
        name: &str,
        flags: i32,
        mode: u32,
        limits: Option<(usize, usize)>,
    ) -> Result<Queue> {
        let limits = limits.map(|(messages, bytes)| engine::QueueLimits {
            messages_max: messages as u64,
            message_bytes_max: bytes as u64,
        });
        engine::PosixQueue::open(home, name.as_bytes(), flags, mode, limits)
            .map(|queue| Queue(Arc::new(queue)))
    }

    #[inline]
    pub(super) fn send(&self, priority: u32, payload: &[u8], deadline: Deadline) -> Result<()> {
        self.0.send(priority, payload, deadline.patience())
    }

    #[inline]
    pub(super) fn recv(&self, buffer: &mut [u8], deadline: Deadline) -> Result<Received> {
        let got = self.0.receive(buffer, deadline.patience())?;
        Ok(Received { priority: got.priority, len: got.len })
    }

    pub(super) fn status(&self) -> Result<Status> {
        let attributes = self.0.attributes()?;
        Ok(Status {
            messages: attributes.messages,
            messages_max: attributes.limits.messages_max,
            message_bytes_max: attributes.limits.message_bytes_max,
            bytes: Some(attributes.bytes),
            notifies_pid: self.0.registered_process()?.map(|pid| pid as i32),
        })
    }

    pub(super) fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.0.handle()
    }

    /// For notices.
    pub(in crate::message) fn engine(&self) -> &Arc<engine::PosixQueue> {
        &self.0
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // The thread that waits for a notice keeps the queue open: its registration ends here all the same.
        if Arc::strong_count(&self.0) > 1 {
            let _ = self.0.cancel_notify();
        }
    }
}

pub(super) fn remove(home: &Namespace, name: &str) -> Result<()> {
    engine::PosixQueue::unlink(home, name.as_bytes())
}

/// Which of the two limits of a new queue is out of range.
pub(super) fn explain_limits(home: &Namespace, (messages, bytes): (usize, usize)) -> String {
    let limits = home.limits();
    if messages < 1 || bytes < 1 {
        "messages_max and message_bytes_max are at least 1".to_string()
    } else if messages as u64 > limits.msg_max {
        limit_hint(home, &format!("messages_max {messages} is too much"), "msg_max", limits.msg_max)
    } else {
        limit_hint(home, &format!("message_bytes_max {bytes} is too much"), "msgsize_max", limits.msgsize_max)
    }
}
