//! The proof that every home of the System V and POSIX objects behaves as the man pages say and as the kernel does.
//!
//! | part | what |
//! | --- | --- |
//! | [`home`] | what a home offers, at the level of the C calls: a trait a mechanism |
//! | [`kernel`] | the kernel's home: libc's symbols, so that under `LD_PRELOAD` the same tests judge the drop-in |
//! | [`user`] | the user-space home: `ginnel_engine` |
//! | [`clause`] | a clause of a man page, and the runner that asks a home all of them |
//! | [`message`], [`sync`], [`memory`] | the clauses, a file a mechanism |
//! | [`differential`] | seeded random operations in two homes at once, by several processes, every result compared |
//!
//! A clause is green on the kernel's home before it judges another. Where the user-space home differs on purpose, the
//! difference is an entry of [`user::differences`], with its reason and with what holds instead, and both are asserted:
//! the kernel's clause must fail there, and the other must fail on the kernel.

pub mod clause;
pub mod differential;
pub mod help;
pub mod home;
pub mod kernel;
pub mod memory;
pub mod message;
pub mod sync;
pub mod user;

pub use rustix::io::Errno;

/// What a call of a home gives.
pub type Result<T> = std::result::Result<T, Errno>;
