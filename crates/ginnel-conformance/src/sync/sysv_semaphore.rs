//! x
use crate::clause::Clause;
use crate::home::SysvSemaphores;
/// All.
pub fn clauses<H: SysvSemaphores>() -> Vec<Clause<H>> { vec![] }
