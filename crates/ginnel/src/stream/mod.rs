//! Bytes without boundaries: what one side writes the other reads, in order, in pieces of any size.
//!
//! | mechanism | made by | between | extras |
//! | --- | --- | --- | --- |
//! | [anonymous pipe](pipe()) | [`pipe()`] | relatives | packet mode, `splice`, `tee`, atomic writes |
//! | [FIFO](Fifo) | [`Fifo::create`] | anybody who may open the file | two ends that find each other by a path |
//! | [pipeline](Pipeline) | [`Pipeline::parse`] | commands, as in a shell | every stage's status, one process group |
//! | [popen](Popen) | [`Popen::read`] and its sisters | a command and its caller | argument vector or shell line |
//! | [Unix stream socket](UnixStream) | [`UnixListener::bind`] | processes of one host | both directions, the peer's credentials |
//! | [socket pair](socketpair()) | [`socketpair()`] | relatives | a pipe for both directions |
//! | [TCP](TcpStream) | [`TcpListener::bind`] | hosts | keepalive, no delay |
//! | [pseudo-terminal](Pty) | [`pty()`] | a program and its terminal | line editing, window size, job control |
//!
//! # One way to read and write
//! Each end implements [`ByteRead`], [`ByteWrite`] or both: `try_read`, `read_deadline`, `write_all_deadline` and so
//! on. The blocking forms are `std`'s: [`std::io::Read`] and [`std::io::Write`], for the type and for a reference to it,
//! so that everything that takes those takes a Ginnel stream (they retry `EINTR` where `std` does: `read_exact`,
//! `write_all`, `read_to_end`; the bare `read` and `write` give it as [`Interrupted`](std::io::ErrorKind::Interrupted)).
//! [`Framed`] turns any of them into whole messages.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use ginnel::stream::{ByteRead, pipe};
//!
//! let (mut reader, mut writer) = pipe()?;
//! assert!(reader.try_read(&mut [0; 8]).unwrap_err().is_would_block());
//!
//! writer.write_all(b"over the garden wall")?;
//! let mut word = [0; 4];
//! reader.read_exact_deadline(&mut word, Duration::from_secs(1)).map_err(|short| short.error)?;
//! assert_eq!(&word, b"over");
//!
//! drop(writer);
//! let mut rest = String::new();
//! reader.read_to_string(&mut rest)?;
//! assert_eq!(rest, " the garden wall");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Never in anybody's way
//! The open file description behind a descriptor may be shared with other processes: this module never changes its
//! `O_NONBLOCK` unless it opened it itself. A pipe is tried with `RWF_NOWAIT`, a socket with `MSG_DONTWAIT`. FIFOs and
//! terminals know neither on Linux: Ginnel opens them with `O_NONBLOCK` itself, waits with `poll(2)`, and hands them to
//! others (as [`OwnedFd`](std::os::fd::OwnedFd) or [`Stdio`](std::process::Stdio)) without.
//!
//! A writer whose readers are gone gets `EPIPE`. A socket never raises `SIGPIPE`. A pipe and a FIFO do, as `write(2)` has
//! it: a Rust program ignores that signal from its start, a Rust library in a C program should say so to its users.

mod child;
mod foreground;
mod io;
pub(crate) mod socket;
mod words;

pub mod fifo;
pub mod framing;
pub mod pipe;
pub mod pipeline;
pub mod popen;
pub mod pty;
pub mod socketpair;
pub mod tcp;
pub mod unix;

pub use fifo::{Fifo, FifoReader, FifoWriter};
pub use framing::Framed;
pub use io::{ByteRead, ByteWrite, Incomplete};
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pipeline::{Pipeline, RunningPipeline};
pub use popen::Popen;
pub use pty::{Pty, Terminal, pty};
pub use socketpair::socketpair;
pub use tcp::{TcpListener, TcpStream};
pub use unix::{UnixListener, UnixStream};
