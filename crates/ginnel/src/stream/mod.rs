//! Bytes in order, without boundaries.
