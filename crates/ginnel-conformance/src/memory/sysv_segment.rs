//! System V shared memory: `shmget(2)`, `shmop(2)`, `shmctl(2)`.
#![allow(unsafe_code)]

mod attach;
mod control;
mod get;

use ginnel_testkit::wait_until;
use libc::IPC_PRIVATE;

use crate::clause::Clause;
use crate::home::SysvMemory;

/// All clauses, a page after the other.
pub fn clauses<H: SysvMemory>() -> Vec<Clause<H>> {
    [get::clauses(), attach::clauses(), control::clauses()].into_iter().flatten().collect()
}

const KEY: i32 = 0x5351;
const PAGE_BYTES: usize = 4096;

fn private<H: SysvMemory>(home: &H, size: usize) -> i32 {
    home.shmget(IPC_PRIVATE, size, 0o600).unwrap()
}

fn attached<H: SysvMemory>(home: &H, id: i32) -> usize {
    home.shmat(id, 0, 0).unwrap()
}

/// Reads a byte of attached memory.
fn peek(address: usize) -> u8 {
    // SAFETY: the clauses read only what they have attached.
    unsafe { (address as *const u8).read_volatile() }
}

/// Writes one.
fn poke(address: usize, byte: u8) {
    // SAFETY: the clauses write only what they have attached for writing.
    unsafe { (address as *mut u8).write_volatile(byte) };
}

fn attaches<H: SysvMemory>(home: &H, id: i32) -> u64 {
    home.shm_status(id).unwrap().nattch
}

/// That the number of attaches is this, now or, where a process has just died, in a moment.
#[track_caller]
fn attaches_become<H: SysvMemory>(home: &H, id: i32, count: u64) {
    wait_until(&format!("{count} attaches"), || attaches(home, id) == count);
}
