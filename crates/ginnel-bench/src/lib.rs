//! What `ginnel bench` measures: the same work in the kernel's home and in the user-space home, interleaved.
//!
//! A crate of its own because the command forbids `unsafe`, and the kernel's side is the C library's calls and nothing
//! between: a wrapper's cost on that side would flatter the other. (It is a crate that the command needs, so it is
//! published with it.)
//!
//! # What is done
//! [`rows`] lists the work. [`measure`] does one row in this process and in children of it, as often as asked: in each
//! *run* both homes, in random order, each for a moment. Payloads are written by the sender and read and checked by the
//! receiver, every word. Before and after each run it asks how long a cache line takes between the two CPUs and who else
//! used them; runs in which the host moved the CPUs, or somebody worked on them, are dropped and said so.
//!
//! | module | what |
//! | --- | --- |
//! | `rows` | the table of the work, and of what is to be reached |
//! | `home` | queues, semaphores and mutexes as both homes have them; `home/kernel.rs`, `home/user.rs` |
//! | `work` | the timed loops |
//! | `sleep` | what a blocked process costs |
//! | `run` | runs, interleaved; which of them count |
//! | `cpus` | pinning, the cache line's time, other people's use of the CPUs |
//! | `place` | names, namespaces and limits |
//! | `report` | medians, ratios, verdicts |

mod cpus;
mod error;
mod home;
mod message;
mod place;
mod process;
mod report;
mod rows;
mod run;
mod sleep;
mod work;

pub use cpus::Distance;
pub use place::{Limits, OBJECTS_MAX, Place};
pub use report::{Figures, Home, Measured, Outcome, Verdict, verdicts};
pub use rows::{Figure, Row, Target, rows};
pub use run::{Settings, measure};
