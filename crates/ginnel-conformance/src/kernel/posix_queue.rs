//! `mq_overview(7)`.

use std::time::Duration;

use super::{Behind, Symbols, check, done, later, number};
use crate::Result;
use crate::home::{Notice, PosixQueues, QueueAttributes};

fn zeroed() -> libc::mq_attr {
    // SAFETY: all zeros is a valid mq_attr.
    unsafe { std::mem::zeroed() }
}

fn attributes(attr: &libc::mq_attr) -> QueueAttributes {
    QueueAttributes {
        flags: attr.mq_flags,
        maxmsg: attr.mq_maxmsg,
        msgsize: attr.mq_msgsize,
        curmsgs: attr.mq_curmsgs,
    }
}

impl<B: Behind> PosixQueues for Symbols<B> {
    fn mq_open(&self, name: &str, flags: i32, mode: u32, limits: Option<(i64, i64)>) -> Result<i32> {
        let name = self.name(name)?;
        let mut attr = zeroed();
        let limits = limits.map(|(maxmsg, msgsize)| {
            (attr.mq_maxmsg, attr.mq_msgsize) = (maxmsg, msgsize);
            &raw mut attr
        });
        // SAFETY: the name is NUL-terminated; the attributes are null or valid, and only read.
        number(unsafe { libc::mq_open(name.as_ptr(), flags, mode, limits.unwrap_or(std::ptr::null_mut())) })
    }

    fn mq_close(&self, queue: i32) -> Result<()> {
        // SAFETY: a number only; the clauses close what they opened.
        done(unsafe { libc::mq_close(queue) })
    }

    fn mq_unlink(&self, name: &str) -> Result<()> {
        // SAFETY: the name is NUL-terminated.
        done(unsafe { libc::mq_unlink(self.name(name)?.as_ptr()) })
    }

    fn mq_timedsend(&self, queue: i32, text: &[u8], priority: u32, timeout: Option<Duration>) -> Result<()> {
        // SAFETY: the call reads the text and, if there is one, the timespec.
        done(unsafe {
            match timeout {
                None => libc::mq_send(queue, text.as_ptr().cast(), text.len(), priority),
                Some(timeout) => {
                    let until = later(libc::CLOCK_REALTIME, timeout);
                    libc::mq_timedsend(queue, text.as_ptr().cast(), text.len(), priority, &until)
                }
            }
        })
    }

    fn mq_timedreceive(
        &self,
        queue: i32,
        text: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<(usize, u32)> {
        let mut priority = 0;
        let (buffer, size) = (text.as_mut_ptr().cast(), text.len());
        // SAFETY: the call writes at most `size` bytes, and the priority.
        let len = unsafe {
            match timeout {
                None => libc::mq_receive(queue, buffer, size, &mut priority),
                Some(timeout) => {
                    let until = later(libc::CLOCK_REALTIME, timeout);
                    libc::mq_timedreceive(queue, buffer, size, &mut priority, &until)
                }
            }
        };
        Ok((check(len as i64)? as usize, priority))
    }

    fn mq_notify(&self, queue: i32, notice: Option<Notice>) -> Result<()> {
        // SAFETY: all zeros is a valid sigevent; the call reads it.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            match notice {
                None => return done(libc::mq_notify(queue, std::ptr::null())),
                Some(Notice::None) => event.sigev_notify = libc::SIGEV_NONE,
                Some(Notice::Signal(signal, value)) => {
                    event.sigev_notify = libc::SIGEV_SIGNAL;
                    event.sigev_signo = signal;
                    event.sigev_value.sival_ptr = value as usize as *mut libc::c_void;
                }
            }
            done(libc::mq_notify(queue, &event))
        }
    }

    fn mq_getattr(&self, queue: i32) -> Result<QueueAttributes> {
        let mut attr = zeroed();
        // SAFETY: the call fills the attributes.
        done(unsafe { libc::mq_getattr(queue, &mut attr) })?;
        Ok(attributes(&attr))
    }

    fn mq_setattr(&self, queue: i32, flags: i64) -> Result<QueueAttributes> {
        let (mut new, mut old) = (zeroed(), zeroed());
        new.mq_flags = flags;
        // SAFETY: the call reads the one and fills the other.
        done(unsafe { libc::mq_setattr(queue, &new, &mut old) })?;
        Ok(attributes(&old))
    }

    fn mq_poll(&self, queue: i32, events: i16, timeout: Duration) -> Result<i16> {
        let mut poll = libc::pollfd { fd: queue, events, revents: 0 };
        // SAFETY: `poll` is one pollfd.
        done(unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) })?;
        Ok(poll.revents)
    }
}
