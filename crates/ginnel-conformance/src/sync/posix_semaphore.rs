//! Named POSIX semaphores: `sem_overview(7)`.

mod count;
mod open;

use crate::clause::Clause;
use crate::home::PosixSemaphores;

/// All clauses, a page after the other.
pub fn clauses<H: PosixSemaphores>() -> Vec<Clause<H>> {
    [open::clauses(), count::clauses()].into_iter().flatten().collect()
}

const NAME: &str = "/ginnel";

fn semaphore<H: PosixSemaphores>(home: &H, value: u32) -> usize {
    home.sem_open(NAME, libc::O_CREAT | libc::O_EXCL, 0o600, value).unwrap()
}

fn value<H: PosixSemaphores>(home: &H, semaphore: usize) -> i32 {
    home.sem_getvalue(semaphore).unwrap()
}
