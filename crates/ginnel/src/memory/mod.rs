//! Shared bytes: what one process writes, the others see.
