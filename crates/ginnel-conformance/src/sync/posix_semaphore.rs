//! x
use crate::clause::Clause;
use crate::home::PosixSemaphores;
/// All.
pub fn clauses<H: PosixSemaphores>() -> Vec<Clause<H>> { vec![] }
