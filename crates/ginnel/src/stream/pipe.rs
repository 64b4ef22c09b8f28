//! Anonymous pipe: `pipe(2)`, `pipe(7)`, `splice(2)`, `tee(2)`, `vmsplice(2)`.
//!
//! # What a user sees
//! Two ends, [`PipeReader`] and [`PipeWriter`], close-on-exec both. A child gets one by being forked with it, or by exec
//! as its standard input or output ([`Stdio`](std::process::Stdio)), or under a number of its own ([`inherit`]).
//! The reader sees the end when the *last* descriptor of the writer is closed, in whatever process it is: what a child
//! should not hold it must not get. That is the rule here: nothing is inherited by exec unless it is handed over.
//!
//! Writes of at most `PIPE_BUF` (4096) bytes are atomic: never mixed with those of another writer, whole or not at all.
//! [`PipeWriter::write_atomic`] refuses longer ones. In packet mode ([`PipeOptions::packet`]) each of them is read by
//! one read of its own.
//!
//! # How it works inside
//! `RWF_NOWAIT` for the forms that do not wait. A peek is a `tee(2)` into a pipe that lives for that call.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::PollFlags;
use rustix::io::{Errno, FdFlags};
use rustix::pipe::{IoSliceRaw, PIPE_BUF, PipeFlags, SpliceFlags};

use super::io::{Nature, Stream, has_descriptor, reads, writes};
use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt};
use crate::{Deadline, sysv};

/// Makes a pipe: what is written to the second is read from the first.
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut reader, mut writer) = ginnel::stream::pipe()?;
/// writer.write_all(b"one way only")?;
/// drop(writer);
/// let mut all = String::new();
/// reader.read_to_string(&mut all)?;
/// assert_eq!(all, "one way only");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EMFILE`, `ENFILE`: no more descriptors.
pub fn pipe() -> Result<(PipeReader, PipeWriter)> {
    PipeOptions::default().open()
}

/// How to make a pipe, where [`pipe()`] does not do.
///
/// ```
/// use ginnel::stream::{ByteRead, ByteWrite, pipe::PipeOptions};
///
/// let (reader, writer) = PipeOptions::default().packet(true).capacity(1 << 16).open()?;
/// writer.try_write(b"one")?;
/// writer.try_write(b"two")?;
/// let mut buffer = [0; 64];
/// assert_eq!(reader.try_read(&mut buffer)?, 3, "a packet a read");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PipeOptions {
    packet: bool,
    capacity: Option<usize>,
}

impl PipeOptions {
    /// Packet mode (`O_DIRECT`): each write of at most `PIPE_BUF` bytes is a packet, and a read takes one packet.
    ///
    /// A longer write is cut into packets of `PIPE_BUF`. What of a packet does not fit the reader's buffer is lost. A
    /// packet takes a slot of `PIPE_BUF` bytes however short it is: a pipe of 65536 bytes holds 16 packets.
    pub fn packet(mut self, packet: bool) -> PipeOptions {
        self.packet = packet;
        self
    }

    /// How many bytes the pipe holds, rounded up by the kernel to a power of two of pages; 65536 unless said.
    pub fn capacity(mut self, bytes: usize) -> PipeOptions {
        self.capacity = Some(bytes);
        self
    }

    /// Makes the pipe.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no more descriptors. `EPERM`: the capacity is above `fs.pipe-max-size`.
    pub fn open(self) -> Result<(PipeReader, PipeWriter)> {
        let mode = if self.packet { PipeFlags::DIRECT } else { PipeFlags::empty() };
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | mode).map_err(|errno| {
            let error = Error::new("pipe2", errno, &LABEL);
            match errno {
                Errno::MFILE => error.with_hint("this process has as many descriptors as `ulimit -n` allows"),
                Errno::NFILE => {
                    error.with_hint(sysv::limit_hint("no more open files on this host", "fs.file-max"))
                }
                _ => error,
            }
        })?;
        let (reader, writer) = (PipeReader::from(reader), PipeWriter::from(writer));
        if let Some(bytes) = self.capacity {
            writer.set_capacity(bytes)?;
        }
        Ok((reader, writer))
    }
}

const LABEL: Label = Label::Static("pipe");

/// The end of a pipe that reads. It sees the end of the stream when every writer has been closed, in every process.
///
/// ```
/// use ginnel::stream::{ByteRead, ByteWrite, pipe};
///
/// let (reader, writer) = pipe()?;
/// writer.try_write(b"look")?;
/// let mut buffer = [0; 16];
/// assert_eq!(reader.try_peek(&mut buffer)?, 4);
/// assert_eq!(reader.try_read(&mut buffer)?, 4, "it was still there");
/// drop(writer);
/// assert_eq!(reader.try_read(&mut buffer)?, 0, "the end");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeReader {
    stream: Stream,
}

/// The end of a pipe that writes. With no reader left, a write is `EPIPE`.
///
/// ```
/// use ginnel::stream::{ByteWrite, pipe};
///
/// let (reader, writer) = pipe()?;
/// writer.write_atomic(b"a line that is never torn\n")?;
/// drop(reader);
/// assert!(writer.try_write(b"x").unwrap_err().is_disconnected());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeWriter {
    stream: Stream,
}

has_descriptor!(PipeReader);
has_descriptor!(PipeWriter);
reads!(PipeReader);
writes!(PipeWriter);

impl From<OwnedFd> for PipeReader {
    /// Takes any descriptor that reads a pipe: an inherited one, `std::io::PipeReader`, `ChildStdout`.
    fn from(fd: OwnedFd) -> PipeReader {
        PipeReader { stream: Stream::new(fd, LABEL, Nature::Pipe) }
    }
}

impl From<OwnedFd> for PipeWriter {
    /// Takes any descriptor that writes to a pipe: an inherited one, `std::io::PipeWriter`, `ChildStdin`.
    fn from(fd: OwnedFd) -> PipeWriter {
        PipeWriter { stream: Stream::new(fd, LABEL, Nature::Pipe) }
    }
}

impl PipeReader {
    /// How many bytes the pipe can hold (`F_GETPIPE_SZ`).
    ///
    /// # Errors
    /// `EBADF`: the descriptor is no pipe.
    pub fn capacity(&self) -> Result<usize> {
        self.stream.capacity()
    }

    /// Changes how many bytes the pipe can hold, and gives what the kernel made of it (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// As [`PipeWriter::set_capacity`].
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        self.stream.set_capacity(bytes)
    }

    /// Copies what is in the pipe, at most `buf.len()` bytes, and leaves it there; waits for the first. 0 is the end.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `EMFILE`: no descriptors for the copy.
    ///
    /// # Blocking
    /// Until something is in the pipe or the last writer has closed. `tee(2)`.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NEVER)
    }

    /// Copies what is in the pipe now and leaves it there. 0 is the end.
    ///
    /// # Errors
    /// `EAGAIN`: it is empty. Else as [`PipeReader::peek`].
    pub fn try_peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NOW)
    }

    /// Copies what is in the pipe and leaves it there; waits until the deadline for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`PipeReader::peek`].
    pub fn peek_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        peek(&self.stream, buf, deadline.into())
    }
}

impl PipeWriter {
    /// How many bytes the pipe can hold (`F_GETPIPE_SZ`).
    ///
    /// # Errors
    /// `EBADF`: the descriptor is no pipe.
    pub fn capacity(&self) -> Result<usize> {
        self.stream.capacity()
    }

    /// Changes how many bytes the pipe can hold, and gives what the kernel made of it (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// `EPERM`: above `fs.pipe-max-size` and the caller lacks `CAP_SYS_RESOURCE`, or the user has
    /// `fs.pipe-user-pages-soft` pages in pipes already. `EBUSY`: the pipe holds more than that now. `EBADF`: no pipe.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        self.stream.set_capacity(bytes)
    }

    /// Writes all of `buf` in one piece that no other writer's bytes get into; waits for room.
    ///
    /// # Errors
    /// `EMSGSIZE`: longer than `PIPE_BUF` (4096), so the kernel would not keep it together. `EPIPE`: every reader has
    /// closed. `EINTR`: a signal handler ran, nothing was written.
    ///
    /// # Blocking
    /// Until there is room for all of it. `pipe(7)`.
    pub fn write_atomic(&self, buf: &[u8]) -> Result<()> {
        self.write_atomic_deadline(buf, Deadline::NEVER)
    }

    /// Writes all of `buf` in one piece if there is room for it now.
    ///
    /// # Errors
    /// `EAGAIN`: there is not. Else as [`PipeWriter::write_atomic`].
    pub fn try_write_atomic(&self, buf: &[u8]) -> Result<()> {
        self.write_atomic_deadline(buf, Deadline::NOW)
    }

    /// Writes all of `buf` in one piece; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was written. Else as [`PipeWriter::write_atomic`].
    pub fn write_atomic_deadline(&self, buf: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        write_atomic(&self.stream, buf, deadline.into())
    }

    /// Puts memory into the pipe without copying it; waits for room, and gives how many bytes went in.
    ///
    /// The pipe refers to the pages themselves until the reader has taken them, long after this call: memory that may
    /// change or be freed by then cannot be lent, so this takes what stays as it is for ever, such as a constant, a
    /// table made once and leaked, a read-only map that is never unmapped.
    ///
    /// # Errors
    /// `EPIPE`: every reader has closed. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until there is room for a page. `vmsplice(2)`.
    pub fn vmsplice(&self, memory: &'static [u8]) -> Result<usize> {
        self.vmsplice_deadline(memory, Deadline::NEVER)
    }

    /// Puts memory into the pipe without copying it, if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`PipeWriter::vmsplice`].
    pub fn try_vmsplice(&self, memory: &'static [u8]) -> Result<usize> {
        self.vmsplice_deadline(memory, Deadline::NOW)
    }

    /// Puts memory into the pipe without copying it; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`PipeWriter::vmsplice`].
    pub fn vmsplice_deadline(&self, memory: &'static [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        let object = self.stream.object();
        wait::until_ready(self, PollFlags::OUT, deadline.into(), "vmsplice", object, |attempt| {
            let slice = [IoSliceRaw::from_slice(memory)];
            // SAFETY: the kernel only reads the pages, and their readers get copies or references that they cannot
            // write through. As `memory` is borrowed for 'static nobody changes or frees it while the pipe refers to
            // it. The pages are not given away (no SPLICE_F_GIFT).
            unsafe { rustix::pipe::vmsplice(self, &slice, splice_flags(attempt)) }
        })
    }
}

pub(super) fn write_atomic(stream: &Stream, buf: &[u8], deadline: Deadline) -> Result<()> {
    if buf.len() > PIPE_BUF {
        return Err(stream.error("write", Errno::MSGSIZE).with_hint(format!(
            "{} bytes; writes are atomic up to {PIPE_BUF} (PIPE_BUF); send a longer one as a frame, by one writer",
            buf.len()
        )));
    }
    // The kernel writes PIPE_BUF bytes or less whole or not at all, so the count says nothing.
    stream.write(buf, deadline).map(drop)
}

pub(super) fn peek(stream: &Stream, buf: &mut [u8], deadline: Deadline) -> Result<usize> {
    let (scratch, copy) = PipeOptions::default().open()?;
    // As many slots as the source: each may hold a single byte. Where that is refused the copy is shorter.
    let _ = stream.capacity().and_then(|bytes| copy.set_capacity(bytes));
    let len = tee_deadline_as(stream, &copy, buf.len(), deadline, stream.object())?;
    let mut done = 0;
    while done < len {
        done += scratch.stream.read(&mut buf[done..len], Deadline::NOW)?;
    }
    Ok(len)
}

/// Moves at most `len` bytes from one descriptor to another inside the kernel; waits for the first. At least one of
/// the two is a pipe. 0 is the end.
///
/// ```
/// use std::io::{Read, Write};
/// use ginnel::stream::{pipe, pipe::splice, socketpair};
///
/// let (reader, mut writer) = pipe()?;
/// let (near, mut far) = socketpair()?;
/// writer.write_all(b"from the pipe into the socket")?;
/// let moved = splice(&reader, &near, 1 << 16)?;
/// let mut buffer = [0; 64];
/// assert_eq!(far.read(&mut buffer)?, moved);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EINVAL`: neither is a pipe, both are the same pipe, or the target was opened with `O_APPEND`. `EPIPE`: nobody reads
/// the target. `EINTR`: a signal handler ran. `EBADF`: one is open in the wrong direction.
///
/// # Blocking
/// Until a byte is there and there is room for it. `splice(2)`.
pub fn splice(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize> {
    splice_deadline(from, to, len, Deadline::NEVER)
}

/// Moves what is there now, at most `len` bytes, from one descriptor to another inside the kernel. 0 is the end.
///
/// # Errors
/// `EAGAIN`: the source is empty or the target full. Else as [`splice`].
pub fn try_splice(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize> {
    splice_deadline(from, to, len, Deadline::NOW)
}

/// Moves at most `len` bytes from one descriptor to another inside the kernel; waits until the deadline for the first.
/// 0 is the end.
///
/// # Errors
/// `ETIMEDOUT`: the deadline passed. Else as [`splice`].
pub fn splice_deadline(
    from: impl AsFd,
    to: impl AsFd,
    len: usize,
    deadline: impl Into<Deadline>,
) -> Result<usize> {
    between(&from, &to, deadline.into(), "splice", &LABEL, |attempt| {
        rustix::pipe::splice(&from, None, &to, None, len, splice_flags(attempt))
    })
}

/// Copies at most `len` bytes of one pipe into another and leaves them in the first; waits for one. 0 is the end.
///
/// ```
/// use std::io::{Read, Write};
/// use ginnel::stream::{ByteRead, pipe, pipe::tee};
///
/// let (source, mut writer) = pipe()?;
/// let (mut copy, copied) = pipe()?;
/// writer.write_all(b"twice")?;
/// assert_eq!(tee(&source, &copied, 100)?, 5);
/// assert_eq!((source.available()?, copy.available()?), (5, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EINVAL`: one is no pipe, or both are the same. `EPIPE`: nobody reads the target. `EINTR`: a signal handler ran.
///
/// # Blocking
/// Until a byte is there and the target has a free slot. `tee(2)`.
pub fn tee(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize> {
    tee_deadline(from, to, len, Deadline::NEVER)
}

/// Copies what one pipe holds now into another and leaves it in the first. 0 is the end.
///
/// # Errors
/// `EAGAIN`: the source is empty or the target full. Else as [`tee`].
pub fn try_tee(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize> {
    tee_deadline(from, to, len, Deadline::NOW)
}

/// Copies at most `len` bytes of one pipe into another and leaves them in the first; waits until the deadline for one.
/// 0 is the end.
///
/// # Errors
/// `ETIMEDOUT`: the deadline passed. Else as [`tee`].
pub fn tee_deadline(
    from: impl AsFd,
    to: impl AsFd,
    len: usize,
    deadline: impl Into<Deadline>,
) -> Result<usize> {
    tee_deadline_as(from, to, len, deadline.into(), &LABEL)
}

fn tee_deadline_as(
    from: impl AsFd,
    to: impl AsFd,
    len: usize,
    deadline: Deadline,
    object: &Label,
) -> Result<usize> {
    between(&from, &to, deadline, "tee", object, |attempt| {
        rustix::pipe::tee(&from, &to, len, splice_flags(attempt))
    })
}

/// `wait::until_ready` for two descriptors.
///
/// Both are polled before each attempt: `SPLICE_F_NONBLOCK` is about the pipe only, so a socket that has nothing would
/// be waited for inside the call.
fn between(
    from: &impl AsFd,
    to: &impl AsFd,
    deadline: Deadline,
    operation: &'static str,
    object: &Label,
    mut attempt: impl FnMut(Attempt) -> Result<usize, Errno>,
) -> Result<usize> {
    if deadline.is_never() {
        match attempt(Attempt::Blocking) {
            Err(Errno::AGAIN) => {}
            other => return other.map_err(|errno| Error::new(operation, errno, object)),
        }
    }
    loop {
        wait::ready(from.as_fd(), PollFlags::IN, deadline, operation, object)?;
        wait::ready(to.as_fd(), PollFlags::OUT, deadline, operation, object)?;
        match attempt(Attempt::NonBlocking) {
            Err(Errno::AGAIN) if !deadline.has_passed() => {}
            Err(Errno::AGAIN) => return Err(Error::new(operation, deadline.errno(), object)),
            other => return other.map_err(|errno| Error::new(operation, errno, object)),
        }
    }
}

fn splice_flags(attempt: Attempt) -> SpliceFlags {
    match attempt {
        Attempt::NonBlocking => SpliceFlags::NONBLOCK,
        Attempt::Blocking => SpliceFlags::empty(),
    }
}

/// Lets the program that `command` starts have `end` open, under the number that this gives; tell it the number by an
/// argument or its environment.
///
/// The end belongs to the command from now on: it is closed in this process when the `Command` is dropped, so drop it
/// once the child is started, or the reader never sees the end.
///
/// ```
/// use std::io::Read;
/// use std::process::Command;
/// use ginnel::stream::{pipe, pipe::inherit};
///
/// let (mut reader, writer) = pipe()?;
/// let mut command = Command::new("sh");
/// let number = inherit(&mut command, writer);
/// let mut child = command.args(["-c", "echo hello >&$0", &number.to_string()]).spawn()?;
/// drop(command);
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "hello\n");
/// child.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn inherit(command: &mut Command, end: impl Into<OwnedFd>) -> RawFd {
    let end = end.into();
    let number = end.as_raw_fd();
    // SAFETY: between fork and exec this makes one fcntl call, which is async-signal-safe, on a descriptor that the
    // closure owns; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&end, FdFlags::empty())?));
    }
    number
}
