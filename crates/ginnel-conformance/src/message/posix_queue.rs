//! x
use crate::clause::Clause;
use crate::home::PosixQueues;
/// All.
pub fn clauses<H: PosixQueues>() -> Vec<Clause<H>> { vec![] }
