//! The example programs, as real processes.
