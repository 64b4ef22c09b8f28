//! `mq_overview(7)` over `ginnel_engine::message::posix_queue`.
//!
//! A queue's number is that of a descriptor that stands for it and does nothing; what is polled is the engine's.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ginnel_engine::message::posix_queue::{Attributes, Notification, PosixQueue, QueueLimits};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::{User, patience};
use crate::home::{Notice, PosixQueues, QueueAttributes};
use crate::{Errno, Result};

/// What this process has open, by number. A fork has it open too.
#[derive(Debug, Default)]
pub(super) struct Queues {
    inner: Mutex<HashMap<i32, (OwnedFd, Arc<PosixQueue>)>>,
}

impl Queues {
    fn get(&self, number: i32) -> Result<Arc<PosixQueue>> {
        let inner = self.inner.lock().expect("nobody panics with it");
        inner.get(&number).map(|(_, queue)| queue.clone()).ok_or(Errno::BADF)
    }
}

fn attributes(attributes: &Attributes) -> QueueAttributes {
    QueueAttributes {
        flags: attributes.flags.into(),
        maxmsg: attributes.limits.messages_max as i64,
        msgsize: attributes.limits.message_bytes_max as i64,
        curmsgs: attributes.messages as i64,
    }
}

fn limit(asked: i64) -> u64 {
    // Less than none is as wrong as none.
    asked.max(0) as u64
}

impl PosixQueues for User {
    fn mq_open(&self, name: &str, flags: i32, mode: u32, limits: Option<(i64, i64)>) -> Result<i32> {
        let number = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let limits = limits.map(|(messages, bytes)| QueueLimits {
            messages_max: limit(messages),
            message_bytes_max: limit(bytes),
        });
        let queue = PosixQueue::open(&self.namespace, name.as_bytes(), flags, mode, limits)?;
        let raw = number.as_raw_fd();
        self.queues.inner.lock().expect("nobody panics with it").insert(raw, (number, Arc::new(queue)));
        Ok(raw)
    }

    fn mq_close(&self, queue: i32) -> Result<()> {
        let closed = self.queues.inner.lock().expect("nobody panics with it").remove(&queue);
        let (_number, queue) = closed.ok_or(Errno::BADF)?;
        // As the kernel does, through whichever of its descriptors the process was registered.
        queue.cancel_notify()
    }

    fn mq_unlink(&self, name: &str) -> Result<()> {
        PosixQueue::unlink(&self.namespace, name.as_bytes())
    }

    fn mq_timedsend(&self, queue: i32, text: &[u8], priority: u32, timeout: Option<Duration>) -> Result<()> {
        self.queues.get(queue)?.send(priority, text, patience(timeout))
    }

    fn mq_timedreceive(
        &self,
        queue: i32,
        text: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<(usize, u32)> {
        let received = self.queues.get(queue)?.receive(text, patience(timeout))?;
        Ok((received.len, received.priority))
    }

    fn mq_notify(&self, queue: i32, notice: Option<Notice>) -> Result<()> {
        let queue = self.queues.get(queue)?;
        let notification = match notice {
            None => return queue.cancel_notify(),
            Some(Notice::None) => Notification::Nothing,
            Some(Notice::Signal(signal, value)) => Notification::Signal {
                signal: u32::try_from(signal).map_err(|_| Errno::INVAL)?,
                value: value as u64,
            },
        };
        queue.notify(notification).map(drop)
    }

    fn mq_getattr(&self, queue: i32) -> Result<QueueAttributes> {
        Ok(attributes(&self.queues.get(queue)?.attributes()?))
    }

    fn mq_setattr(&self, queue: i32, flags: i64) -> Result<QueueAttributes> {
        let queue = self.queues.get(queue)?;
        let old = queue.attributes()?;
        queue.set_flags(i32::try_from(flags).map_err(|_| Errno::INVAL)?)?;
        Ok(attributes(&old))
    }

    fn mq_poll(&self, queue: i32, events: i16, timeout: Duration) -> Result<i16> {
        let queue = self.queues.get(queue)?;
        let descriptor = queue.descriptor()?;
        let mut fds = [PollFd::new(&descriptor, PollFlags::from_bits_retain(events as u16))];
        let limit = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        rustix::event::poll(&mut fds, Some(&limit))?;
        Ok(fds[0].revents().bits() as i16)
    }
}
