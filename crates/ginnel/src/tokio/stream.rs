//! Async forms of the stream family.
