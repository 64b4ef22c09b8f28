//! Async forms of the sync family.
