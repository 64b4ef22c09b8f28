//! `ginnel run` and `ginnel env`, as a stranger runs them: unmodified programs, in namespaces of their own.

mod objects;
mod private;
mod refused;
mod started;
mod support;
