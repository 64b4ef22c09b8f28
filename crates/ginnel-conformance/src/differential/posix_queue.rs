//! POSIX queues, with their notices.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, POLLIN, POLLOUT};

use super::{Kind, Op, Outcome, Rng, Shared, digest, outcome, payload};
use crate::help::{block_signal, pending_signal};
use crate::home::{Notice, PosixQueues};
use crate::{Errno, Result};

const OPEN: i64 = 0;
const CLOSE: i64 = 1;
const UNLINK: i64 = 2;
const SEND: i64 = 3;
const RECEIVE: i64 = 4;
const NOTIFY: i64 = 5;
const FORGET: i64 = 6;
const SIGNAL: i64 = 7;
const SET: i64 = 8;
const POLL: i64 = 9;
const NAMES: i64 = 3;
/// How many queues a process keeps open.
const OPENINGS: i64 = 4;

/// What a process has open.
#[derive(Debug)]
pub struct Queues {
    open: [Option<i32>; OPENINGS as usize],
    /// Its own in the process, which may be two homes': one that is queued.
    signal: i32,
    signal_is_blocked: bool,
}

impl Default for Queues {
    fn default() -> Queues {
        static NEXT: AtomicI32 = AtomicI32::new(0);
        let signal = libc::SIGRTMIN() + NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        Queues { open: [None; OPENINGS as usize], signal, signal_is_blocked: false }
    }
}

fn name(number: i64) -> String {
    format!("/difference{number}")
}

impl Queues {
    fn queue(&self, op: &Op) -> Result<i32> {
        self.open[op.args[0] as usize].ok_or(Errno::NODEV)
    }

    fn try_act<H: PosixQueues>(&mut self, h: &H, shared: &Shared, op: &Op) -> Result<Outcome> {
        if !self.signal_is_blocked {
            block_signal(self.signal);
            self.signal_is_blocked = true;
        }
        let [place, first, second, third, now, _] = op.args;
        let timeout = (now != 0).then_some(Duration::ZERO);
        match op.verb {
            OPEN => {
                if let Some(old) = self.open[place as usize].take() {
                    h.mq_close(old)?;
                }
                let queue = h.mq_open(&name(first), second as i32, 0o600, Some((third, 16)))?;
                self.open[place as usize] = Some(queue);
                Ok(Vec::new())
            }
            CLOSE => {
                let queue = self.queue(op)?;
                self.open[place as usize] = None;
                h.mq_close(queue).map(|()| Vec::new())
            }
            UNLINK => h.mq_unlink(&name(first)).map(|()| Vec::new()),
            SEND => {
                let text = payload(third, second as usize);
                h.mq_timedsend(self.queue(op)?, &text, first as u32, timeout).map(|()| Vec::new())
            }
            RECEIVE => {
                let mut text = [0; 16];
                let size = first as usize;
                let (len, priority) = h.mq_timedreceive(self.queue(op)?, &mut text[..size], timeout)?;
                Ok(vec![len as i64, priority.into(), digest(&text[..len])])
            }
            NOTIFY => {
                let notice =
                    if first == 0 { Notice::None } else { Notice::Signal(self.signal, first as i32) };
                h.mq_notify(self.queue(op)?, Some(notice)).map(|()| Vec::new())
            }
            FORGET => h.mq_notify(self.queue(op)?, None).map(|()| Vec::new()),
            SIGNAL => Ok(match pending_signal(self.signal, Duration::ZERO) {
                None => vec![0],
                Some((value, code, sender)) => vec![value.into(), code.into(), shared.process(sender)],
            }),
            SET => {
                let old = h.mq_setattr(self.queue(op)?, first)?;
                Ok(vec![old.flags, old.maxmsg, old.msgsize, old.curmsgs])
            }
            _ => Ok(vec![h.mq_poll(self.queue(op)?, POLLIN | POLLOUT, Duration::ZERO)?.into()]),
        }
    }

    fn one<H: PosixQueues>(h: &H, name: &str) -> Result<Outcome> {
        let queue = h.mq_open(name, O_RDONLY, 0, None)?;
        let attr = h.mq_getattr(queue)?;
        let ready = h.mq_poll(queue, POLLIN | POLLOUT, Duration::ZERO)?;
        h.mq_close(queue)?;
        Ok(vec![attr.maxmsg, attr.msgsize, attr.curmsgs, ready.into()])
    }
}

impl<H: PosixQueues> Kind<H> for Queues {
    const NAME: &'static str = "POSIX queues";

    fn choose(rng: &mut Rng) -> Op {
        let place = rng.range(0, OPENINGS - 1);
        let now = i64::from(!rng.one_in(3));
        let (verb, first, second, third) = match rng.below(100) {
            0..8 => {
                let access = rng.pick(&[O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY]);
                let make = rng.pick(&[0, O_CREAT, O_CREAT, O_CREAT | O_EXCL]);
                let never = if rng.one_in(8) { O_NONBLOCK } else { 0 };
                let most = if rng.one_in(16) { 0 } else { rng.range(1, 4) };
                (OPEN, rng.range(0, NAMES - 1), (access | make | never).into(), most)
            }
            8..10 => (CLOSE, 0, 0, 0),
            10..11 => (UNLINK, rng.range(0, NAMES - 1), 0, 0),
            11..48 => {
                let priority = if rng.one_in(64) { 32768 } else { rng.range(0, 4) };
                let len = if rng.one_in(64) { 17 } else { rng.range(0, 16) };
                (SEND, priority, len, rng.range(0, 255))
            }
            48..84 => (RECEIVE, if rng.one_in(32) { 15 } else { 16 }, 0, 0),
            84..89 => (NOTIFY, rng.range(0, 9), 0, 0),
            89..90 => (FORGET, 0, 0, 0),
            90..95 => (SIGNAL, 0, 0, 0),
            95..97 => (SET, rng.pick(&[0, 0, O_NONBLOCK.into(), 1]), 0, 0),
            _ => (POLL, 0, 0, 0),
        };
        Op { verb, args: [place, first, second, third, now, 0] }
    }

    fn calm(mut op: Op) -> Op {
        op.args[4] = 1;
        op
    }

    fn act(&mut self, home: &H, shared: &mut Shared, op: &Op) -> Outcome {
        outcome(self.try_act(home, shared, op))
    }

    fn state(&mut self, home: &H, _shared: &Shared, deep: bool, op: &Op) -> Outcome {
        if !deep {
            return match self.open[op.args[0] as usize] {
                Some(queue) => outcome(home.mq_getattr(queue).map(|attr| vec![attr.flags, attr.curmsgs])),
                None => Vec::new(),
            };
        }
        (0..NAMES).flat_map(|number| outcome(Queues::one(home, &name(number)))).collect()
    }

    fn show(op: &Op) -> String {
        let [place, first, second, third, now, _] = op.args;
        let wait = if now == 0 { ", waits" } else { "" };
        match op.verb {
            OPEN => format!("q{place} = mq_open({}, {second:#o}, {third} messages)", name(first)),
            CLOSE => format!("mq_close(q{place})"),
            UNLINK => format!("mq_unlink({})", name(first)),
            SEND => format!("mq_send(q{place}, {second} bytes from {third}, priority {first}{wait})"),
            RECEIVE => format!("mq_receive(q{place}, {first} bytes{wait})"),
            NOTIFY => format!("mq_notify(q{place}, {first})"),
            FORGET => format!("mq_notify(q{place}, null)"),
            SIGNAL => "is there a signal?".into(),
            SET => format!("mq_setattr(q{place}, {first:#o})"),
            _ => format!("poll(q{place})"),
        }
    }
}
