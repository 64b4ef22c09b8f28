//! System V message queues: `msgget(2)`, `msgop(2)`, `msgctl(2)`.

mod control;
mod get;
mod receive;
mod send;

use libc::{IPC_NOWAIT, IPC_PRIVATE, MSG_COPY};

use crate::clause::Clause;
use crate::home::SysvMessages;

/// All clauses, a page after the other.
pub fn clauses<H: SysvMessages>() -> Vec<Clause<H>> {
    [get::clauses(), send::clauses(), receive::clauses(), control::clauses()].into_iter().flatten().collect()
}

const KEY: i32 = 0x4d51;

fn private<H: SysvMessages>(home: &H) -> i32 {
    home.msgget(IPC_PRIVATE, 0o600).unwrap()
}

/// A queue that holds that many bytes.
fn holding<H: SysvMessages>(home: &H, qbytes: u64) -> i32 {
    let id = private(home);
    limit(home, id, qbytes);
    id
}

fn limit<H: SysvMessages>(home: &H, id: i32, qbytes: u64) {
    home.msg_set(id, home.msg_status(id).unwrap().perm.owner(), qbytes).unwrap();
}

#[track_caller]
fn put<H: SysvMessages>(home: &H, id: i32, messages: &[(i64, &str)]) {
    for (mtype, text) in messages {
        home.msgsnd(id, *mtype, text.as_bytes(), IPC_NOWAIT).unwrap();
    }
}

/// Takes a message without waiting.
fn take<H: SysvMessages>(home: &H, id: i32, mtype: i64, flags: i32) -> crate::Result<(i64, String)> {
    let mut text = [0; 128];
    let (mtype, len) = home.msgrcv(id, &mut text, mtype, IPC_NOWAIT | flags)?;
    Ok((mtype, String::from_utf8(text[..len].to_vec()).unwrap()))
}

/// Takes a message, and waits for it.
fn wait_for<H: SysvMessages>(home: &H, id: i32, mtype: i64, flags: i32) -> crate::Result<(i64, String)> {
    let mut text = [0; 128];
    let (mtype, len) = home.msgrcv(id, &mut text, mtype, flags)?;
    Ok((mtype, String::from_utf8(text[..len].to_vec()).unwrap()))
}

/// The texts in the queue, which stay there.
#[track_caller]
fn texts<H: SysvMessages>(home: &H, id: i32) -> Vec<String> {
    let count = home.msg_status(id).unwrap().qnum as i64;
    (0..count).map(|index| take(home, id, index, MSG_COPY).unwrap().1).collect()
}
