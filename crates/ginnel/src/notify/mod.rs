//! That something happened: signals, counters, the end of a process.
