//! POSIX message queues: `mq_overview(7)`.
#![allow(unsafe_code)]

mod notify;
mod open;
mod process;
mod transfer;
mod waiting;

use std::time::Duration;

use libc::{O_CREAT, O_EXCL, O_RDWR};

use crate::clause::Clause;
use crate::home::PosixQueues;

/// All clauses, a page after the other.
pub fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    [open::clauses(), transfer::clauses(), waiting::clauses(), notify::clauses(), process::clauses()]
        .into_iter()
        .flatten()
        .collect()
}

/// Those that ask the kernel about a queue's descriptor: for homes whose calls are C's.
pub fn descriptors<H: PosixQueues>() -> Vec<Clause<H>> {
    process::descriptors()
}

const NAME: &str = "/ginnel";
const NEW: i32 = O_CREAT | O_EXCL | O_RDWR;

/// A queue of that many messages of 16 bytes.
fn queue<H: PosixQueues>(home: &H, messages: i64) -> i32 {
    home.mq_open(NAME, NEW, 0o600, Some((messages, 16))).unwrap()
}

#[track_caller]
fn put<H: PosixQueues>(home: &H, queue: i32, messages: &[(u32, &str)]) {
    for (priority, text) in messages {
        home.mq_timedsend(queue, text.as_bytes(), *priority, Some(Duration::ZERO)).unwrap();
    }
}

/// Takes a message, within that time or however long it takes.
fn receive<H: PosixQueues>(home: &H, queue: i32, timeout: Option<Duration>) -> crate::Result<(u32, String)> {
    let mut text = [0; 16];
    let (len, priority) = home.mq_timedreceive(queue, &mut text, timeout)?;
    Ok((priority, String::from_utf8(text[..len].to_vec()).unwrap()))
}

/// Takes one that is there.
fn take<H: PosixQueues>(home: &H, queue: i32) -> crate::Result<(u32, String)> {
    receive(home, queue, Some(Duration::ZERO))
}

/// Takes all that are there: their texts.
fn drain<H: PosixQueues>(home: &H, queue: i32) -> String {
    std::iter::from_fn(|| take(home, queue).ok()).map(|(_, text)| text).collect()
}

fn count<H: PosixQueues>(home: &H, queue: i32) -> i64 {
    home.mq_getattr(queue).unwrap().curmsgs
}
