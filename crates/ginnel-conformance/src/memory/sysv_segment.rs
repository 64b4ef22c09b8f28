//! x
use crate::clause::Clause;
use crate::home::SysvMemory;
/// All.
pub fn clauses<H: SysvMemory>() -> Vec<Clause<H>> { vec![] }
