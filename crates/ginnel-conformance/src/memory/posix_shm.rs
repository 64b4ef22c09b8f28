//! x
use crate::clause::Clause;
use crate::home::PosixMemory;
/// All.
pub fn clauses<H: PosixMemory>() -> Vec<Clause<H>> { vec![] }
