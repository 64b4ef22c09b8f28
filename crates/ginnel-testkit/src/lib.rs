//! What the tests of Ginnel stand on: namespaces of their own, real processes, C programs, deadlines.
//!
//! A test that makes a kernel object is the body of [`isolated`]; it makes other processes with [`fork`], [`run`] and
//! [`c_program!`], waits for them to block with [`wait_blocked_in`], and nothing it does outlives it.
//!
//! ```no_run
//! use ginnel_testkit::{Objects, fork, isolated, wait_blocked_in};
//!
//! // In a test file this is `#[test] fn a_reader_sleeps()`.
//! fn a_reader_sleeps() {
//!     isolated(|| {
//!         let before = Objects::snapshot();
//!         let (reader, writer) = std::io::pipe().unwrap();
//!         let child = fork(|| {
//!             std::io::Read::read(&mut &reader, &mut [0]).unwrap();
//!         });
//!         wait_blocked_in(child.pid(), libc::SYS_read);
//!         std::io::Write::write(&mut &writer, b"x").unwrap();
//!         child.assert_ok();
//!         before.assert_same();
//!     });
//! }
//! # a_reader_sleeps();
//! ```

mod c;
mod child;
mod isolate;
mod objects;
mod process;
mod temp;
mod wait;

pub use c::{c_program, example};
pub use child::{Child, Exit, Spawned, as_user, fork, run, run_ok, run_within, spawn, unprivileged};
pub use isolate::{is_isolated, isolated, isolated_for, private};
pub use objects::{Objects, kernel_objects};
pub use temp::{TempDir, temp_dir};
pub use wait::{blocked_in, wait_blocked_in, wait_until};
