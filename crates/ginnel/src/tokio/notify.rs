//! Async forms of the notify family.
