//! System V semaphore sets: `semget(2)`, `semop(2)`, `semctl(2)`.

mod control;
mod get;
mod operate;
mod undo;
mod waiting;

use libc::{IPC_NOWAIT, IPC_PRIVATE, SEM_UNDO, sembuf};

use crate::clause::Clause;
use crate::home::SysvSemaphores;

/// All clauses, a page after the other.
pub fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> {
    [get::clauses(), operate::clauses(), waiting::clauses(), undo::clauses(), control::clauses()]
        .into_iter()
        .flatten()
        .collect()
}

const KEY: i32 = 0x5e51;
/// The highest value: SEMVMX.
const MOST: i32 = 32767;

/// An operation that waits if it must.
const fn op(semaphore: u16, change: i16) -> sembuf {
    sembuf { sem_num: semaphore, sem_op: change, sem_flg: 0 }
}

/// One that does not wait.
const fn at_once(semaphore: u16, change: i16) -> sembuf {
    sembuf { sem_num: semaphore, sem_op: change, sem_flg: IPC_NOWAIT as i16 }
}

/// One that is undone when its process ends.
const fn undone(semaphore: u16, change: i16) -> sembuf {
    sembuf { sem_num: semaphore, sem_op: change, sem_flg: SEM_UNDO as i16 }
}

/// A set of these values.
fn set<H: SysvSemaphores>(home: &H, values: &[u16]) -> i32 {
    let id = home.semget(IPC_PRIVATE, values.len() as i32, 0o600).unwrap();
    home.sem_setall(id, values).unwrap();
    id
}

#[track_caller]
fn holds<H: SysvSemaphores>(home: &H, id: i32, values: &[u16]) {
    assert_eq!(home.sem_getall(id).unwrap(), values);
}
