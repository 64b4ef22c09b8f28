//! The verbs at one end of anything, as a stranger runs them.

mod create;
mod lock;
mod ls;
mod namespace;
mod peek;
mod recv;
mod rm;
mod send;
mod signal;
mod support;
