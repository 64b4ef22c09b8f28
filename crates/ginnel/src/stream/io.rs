//! What all streams have in common: the traits, and one way to read and write a descriptor until a deadline.
//!
//! How a call is kept from waiting depends on what the descriptor is ([`Nature`]); `wait::until_ready` does the rest.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::PIPE_BUF;

use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt};
use crate::{Deadline, sysv};

/// `preadv2(2)`: use and move the file's own offset, which a pipe does not have.
const NO_OFFSET: u64 = u64::MAX;

/// Something that bytes can be read from: the forms that `std::io::Read` has not.
///
/// Implemented by every reading end of [`ginnel::stream`](crate::stream), and for references to one. The blocking form
/// is [`std::io::Read`], which all of them implement too.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{ByteRead, ByteWrite, socketpair};
///
/// fn greeting(from: &impl ByteRead) -> ginnel::Result<Vec<u8>> {
///     let mut buffer = [0; 64];
///     let len = from.read_deadline(&mut buffer, Duration::from_secs(5))?;
///     Ok(buffer[..len].to_vec())
/// }
///
/// let (near, far) = socketpair()?;
/// near.try_write(b"hello")?;
/// assert_eq!(far.available()?, 5);
/// assert_eq!(greeting(&far)?, b"hello");
/// # Ok::<(), ginnel::Error>(())
/// ```
pub trait ByteRead: AsFd {
    /// Reads what is there, at most `buf.len()` bytes; waits until the deadline for the first. 0 is the end: every
    /// writer has closed.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. `EINTR`: a signal handler ran. `ECONNRESET`: the peer of a socket died or
    /// closed it with data unread. `EBADF`: not an end that reads.
    ///
    /// # Blocking
    /// Until at least one byte is there, the end is reached, or the deadline passes. `read(2)`, `recv(2)`, `poll(2)`.
    fn read_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize>;

    /// Reads what is there now. 0 is the end: every writer has closed.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there. Else as [`read_deadline`](ByteRead::read_deadline).
    fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        self.read_deadline(buf, Deadline::NOW)
    }

    /// Fills `buf`; waits until the deadline for as many bytes.
    ///
    /// # Errors
    /// [`Incomplete`] says how many bytes of `buf` were filled, and why not all: `ECONNRESET` when the end came first,
    /// else as [`read_deadline`](ByteRead::read_deadline).
    fn read_exact_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<(), Incomplete> {
        let (deadline, total) = (deadline.into(), buf.len());
        let mut done = 0;
        while done < total {
            let error = match self.read_deadline(&mut buf[done..], deadline) {
                Ok(0) => Error::new("read", Errno::CONNRESET, &Label::from("stream"))
                    .with_hint(format!("the other end closed after {done} of {total} bytes")),
                Ok(len) => {
                    done += len;
                    continue;
                }
                Err(error) => error,
            };
            return Err(Incomplete { done, total, error });
        }
        Ok(())
    }

    /// How many bytes can be read without waiting (`FIONREAD`).
    ///
    /// # Errors
    /// `EINVAL`, `ENOTTY`: the descriptor does not say.
    fn available(&self) -> Result<usize> {
        rustix::io::ioctl_fionread(self)
            .map(|bytes| bytes as usize)
            .map_err(|errno| Error::new("ioctl", errno, &Label::from("stream")))
    }
}

/// Something that bytes can be written to: the forms that `std::io::Write` has not.
///
/// Implemented by every writing end of [`ginnel::stream`](crate::stream), and for references to one. The blocking form
/// is [`std::io::Write`], which all of them implement too.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{ByteWrite, pipe};
///
/// let (_reader, writer) = pipe()?;
/// let too_much = vec![b'x'; 2 * writer.capacity()?];
/// let short = writer.write_all_deadline(&too_much, Duration::from_millis(5)).unwrap_err();
/// assert!(short.error.is_timed_out());
/// assert_eq!(short.done, writer.capacity()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub trait ByteWrite: AsFd {
    /// Writes as much of `buf` as there is room for, at least one byte; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed, nothing was written. `EPIPE`: every reader has closed. `EINTR`: a signal
    /// handler ran, nothing was written. `ECONNRESET`: the peer of a socket died. `EBADF`: not an end that writes.
    ///
    /// # Blocking
    /// Until there is room or the deadline passes. Without a deadline a pipe, as `write(2)` has it, waits until all of
    /// `buf` is written. `write(2)`, `send(2)`, `poll(2)`.
    fn write_deadline(&self, buf: &[u8], deadline: impl Into<Deadline>) -> Result<usize>;

    /// Writes as much of `buf` as there is room for now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none (a pipe: not for all of `buf`, when that is `PIPE_BUF` bytes or less). Else as
    /// [`write_deadline`](ByteWrite::write_deadline).
    fn try_write(&self, buf: &[u8]) -> Result<usize> {
        self.write_deadline(buf, Deadline::NOW)
    }

    /// Writes all of `buf`; waits until the deadline for room.
    ///
    /// # Errors
    /// [`Incomplete`] says how many bytes were written, and why not all: as
    /// [`write_deadline`](ByteWrite::write_deadline).
    fn write_all_deadline(&self, buf: &[u8], deadline: impl Into<Deadline>) -> Result<(), Incomplete> {
        let deadline = deadline.into();
        let mut done = 0;
        while done < buf.len() {
            match self.write_deadline(&buf[done..], deadline) {
                Ok(len) => done += len,
                Err(error) => return Err(Incomplete { done, total: buf.len(), error }),
            }
        }
        Ok(())
    }

    /// Tells the reader that no more comes, where that is possible without closing the descriptor: a socket shuts its
    /// writing half down. The end of anything else comes when its last descriptor is closed; this does nothing then.
    ///
    /// # Errors
    /// `ENOTCONN`: the socket is not connected.
    fn shutdown_write(&self) -> Result<()> {
        Ok(())
    }
}

impl<T: ByteRead + ?Sized> ByteRead for &T {
    fn read_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        (**self).read_deadline(buf, deadline)
    }
}

impl<T: ByteWrite + ?Sized> ByteWrite for &T {
    fn write_deadline(&self, buf: &[u8], deadline: impl Into<Deadline>) -> Result<usize> {
        (**self).write_deadline(buf, deadline)
    }

    fn shutdown_write(&self) -> Result<()> {
        (**self).shutdown_write()
    }
}

/// A `read_exact_deadline` or `write_all_deadline` that got part of the way: how far, and what stopped it.
///
/// Turns into an [`Error`] by `?`, with the numbers in its hint.
///
/// ```
/// use ginnel::Deadline;
/// use ginnel::stream::{ByteRead, ByteWrite, pipe};
///
/// let (reader, writer) = pipe()?;
/// writer.try_write(b"abc")?;
/// let short = reader.read_exact_deadline(&mut [0; 8], Deadline::NOW).unwrap_err();
/// assert_eq!((short.done, short.total), (3, 8));
/// assert!(short.error.is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Incomplete {
    /// How many bytes were read or written.
    pub done: usize,
    /// How many were to be.
    pub total: usize,
    /// What stopped it.
    pub error: Error,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {} bytes done)", self.error, self.done, self.total)
    }
}

impl std::error::Error for Incomplete {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Incomplete> for Error {
    fn from(short: Incomplete) -> Error {
        let so_far = format!("{} of {} bytes were done", short.done, short.total);
        match short.error.hint() {
            Some(hint) => {
                let hint = format!("{hint}; {so_far}");
                short.error.with_hint(hint)
            }
            None => short.error.with_hint(so_far),
        }
    }
}

impl From<Incomplete> for std::io::Error {
    fn from(short: Incomplete) -> std::io::Error {
        Error::from(short).into()
    }
}

/// How a single call on a descriptor is kept from waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// `RWF_NOWAIT`; where the kernel does not know it for this file, `poll` first.
    Pipe,
    /// `MSG_DONTWAIT`, and never a `SIGPIPE`.
    Socket,
    /// The description is ours and has had `O_NONBLOCK` from its birth.
    NonBlocking,
    /// The same; `EIO`, which is what a terminal's hang-up gives, is the end.
    Terminal,
}

/// A descriptor, what it is called, and what it is.
#[derive(Debug)]
pub(super) struct Stream {
    fd: OwnedFd,
    object: Label,
    nature: Nature,
}

impl Stream {
    pub(super) fn new(fd: OwnedFd, object: Label, nature: Nature) -> Stream {
        Stream { fd, object, nature }
    }

    pub(super) fn object(&self) -> &Label {
        &self.object
    }

    pub(super) fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, errno, &self.object)
    }

    pub(super) fn read(&self, buf: &mut [u8], deadline: Deadline) -> Result<usize> {
        let outcome = wait::until_ready(&self.fd, PollFlags::IN, deadline, "read", &self.object, |attempt| {
            read_once(self.fd.as_fd(), self.nature, attempt, buf)
        });
        outcome.map_err(|error| match error.raw() {
            Errno::CONNRESET => error.with_hint("the peer died, or closed with data of ours unread"),
            _ => error,
        })
    }

    pub(super) fn write(&self, buf: &[u8], deadline: Deadline) -> Result<usize> {
        let outcome =
            wait::until_ready(&self.fd, PollFlags::OUT, deadline, "write", &self.object, |attempt| {
                write_once(self.fd.as_fd(), self.nature, attempt, buf)
            });
        outcome.map_err(|error| match error.raw() {
            Errno::PIPE if self.nature == Nature::Socket => error.with_hint("the peer closed the connection"),
            Errno::PIPE => error.with_hint("every reader has closed its end"),
            Errno::IO if self.nature == Nature::Terminal => error.with_hint("the other side has hung up"),
            Errno::CONNRESET => error.with_hint("the peer died, or closed with data of ours unread"),
            _ => error,
        })
    }

    /// Copies what is there without taking it: sockets only.
    pub(super) fn peek_socket(&self, buf: &mut [u8], deadline: Deadline) -> Result<usize> {
        wait::until_ready(&self.fd, PollFlags::IN, deadline, "recv", &self.object, |attempt| {
            let (len, _) = rustix::net::recv(&self.fd, &mut *buf, RecvFlags::PEEK | recv_flags(attempt))?;
            Ok(len)
        })
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(&self.fd, how).map_err(|errno| self.error("shutdown", errno))
    }

    pub(super) fn capacity(&self) -> Result<usize> {
        rustix::pipe::fcntl_getpipe_size(&self.fd).map_err(|errno| self.error("fcntl", errno))
    }

    pub(super) fn set_capacity(&self, bytes: usize) -> Result<usize> {
        rustix::pipe::fcntl_setpipe_size(&self.fd, bytes).map_err(|errno| {
            let error = self.error("fcntl", errno);
            match errno {
                Errno::PERM => error.with_hint(sysv::limit_hint(
                    &format!("{bytes} bytes are more than an unprivileged user may have"),
                    "fs.pipe-max-size",
                )),
                Errno::BUSY => {
                    error.with_hint(format!("the pipe holds more than {bytes} bytes now; read first"))
                }
                _ => error,
            }
        })
    }

    /// The descriptor, for somebody who expects it to block.
    pub(super) fn into_fd(self) -> OwnedFd {
        match self.nature {
            Nature::Pipe | Nature::Socket => self.fd,
            Nature::NonBlocking => without_nonblock(self.fd),
            // Not opened anew: that would make another pseudo-terminal out of `/dev/ptmx`.
            Nature::Terminal => {
                let _ = clear_nonblock(&self.fd);
                self.fd
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn recv_flags(attempt: Attempt) -> RecvFlags {
    match attempt {
        Attempt::NonBlocking => RecvFlags::DONTWAIT,
        Attempt::Blocking => RecvFlags::empty(),
    }
}

fn read_once(fd: BorrowedFd<'_>, nature: Nature, attempt: Attempt, buf: &mut [u8]) -> Result<usize, Errno> {
    match (nature, attempt) {
        (Nature::Socket, _) => rustix::net::recv(fd, buf, recv_flags(attempt)).map(|(len, _)| len),
        (Nature::Pipe, Attempt::NonBlocking) => {
            let mut slices = [IoSliceMut::new(&mut *buf)];
            match rustix::io::preadv2(fd, &mut slices, NO_OFFSET, ReadWriteFlags::NOWAIT) {
                // A FIFO that somebody else opened. Should another reader be faster than this read, it waits.
                Err(Errno::OPNOTSUPP) => poll_now(fd, PollFlags::IN).and_then(|()| rustix::io::read(fd, buf)),
                other => other,
            }
        }
        (Nature::Terminal, _) => match rustix::io::read(fd, buf) {
            Err(Errno::IO) => Ok(0),
            other => other,
        },
        (Nature::Pipe | Nature::NonBlocking, _) => rustix::io::read(fd, buf),
    }
}

fn write_once(fd: BorrowedFd<'_>, nature: Nature, attempt: Attempt, buf: &[u8]) -> Result<usize, Errno> {
    match (nature, attempt) {
        (Nature::Socket, Attempt::Blocking) => rustix::net::send(fd, buf, SendFlags::NOSIGNAL),
        (Nature::Socket, Attempt::NonBlocking) => {
            rustix::net::send(fd, buf, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        }
        (Nature::Pipe, Attempt::NonBlocking) => {
            match rustix::io::pwritev2(fd, &[IoSlice::new(buf)], NO_OFFSET, ReadWriteFlags::NOWAIT) {
                // As above. A pipe that polls writable has a free slot, which holds PIPE_BUF bytes.
                Err(Errno::OPNOTSUPP) => poll_now(fd, PollFlags::OUT)
                    .and_then(|()| rustix::io::write(fd, &buf[..buf.len().min(PIPE_BUF)])),
                other => other,
            }
        }
        (Nature::Pipe | Nature::NonBlocking | Nature::Terminal, _) => rustix::io::write(fd, buf),
    }
}

fn poll_now(fd: BorrowedFd<'_>, events: PollFlags) -> Result<(), Errno> {
    wait::ready(fd, events, Deadline::NOW, "poll", &Label::from("stream")).map_err(|error| error.raw())
}

pub(super) fn set_nonblock(fd: impl AsFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
}

pub(super) fn clear_nonblock(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK)
}

/// The same file through a description without `O_NONBLOCK`.
///
/// A forked child may share the old description and count on its `O_NONBLOCK`, so the file is opened anew. Where that
/// cannot be (no `/proc`, no right any more, a FIFO without a reader) the flag is cleared: we set it, so we may.
fn without_nonblock(fd: OwnedFd) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let access = rustix::fs::fcntl_getfl(&fd).map(|flags| flags & OFlags::RWMODE);
    let again = access.and_then(|access| {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let again = rustix::fs::open(path, flags, Mode::empty())?;
        clear_nonblock(&again)?;
        Ok(again)
    });
    again.unwrap_or_else(|_| {
        let _ = clear_nonblock(&fd);
        fd
    })
}

/// `ByteRead`, and `std::io::Read` for the type and for a reference, by its field `stream`.
macro_rules! reads {
    ($type:ty) => {
        impl $crate::stream::ByteRead for $type {
            fn read_deadline(
                &self,
                buf: &mut [u8],
                deadline: impl Into<$crate::Deadline>,
            ) -> $crate::Result<usize> {
                self.stream.read(buf, deadline.into())
            }
        }

        impl std::io::Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                Ok(self.stream.read(buf, $crate::Deadline::NEVER)?)
            }
        }

        impl std::io::Read for &$type {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                Ok(self.stream.read(buf, $crate::Deadline::NEVER)?)
            }
        }
    };
}

/// `ByteWrite`, and `std::io::Write` for the type and for a reference, by its field `stream`.
macro_rules! writes {
    ($type:ty $(, $shutdown:item)?) => {
        impl $crate::stream::ByteWrite for $type {
            fn write_deadline(
                &self,
                buf: &[u8],
                deadline: impl Into<$crate::Deadline>,
            ) -> $crate::Result<usize> {
                self.stream.write(buf, deadline.into())
            }

            $($shutdown)?
        }

        impl std::io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                Ok(self.stream.write(buf, $crate::Deadline::NEVER)?)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for &$type {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                Ok(self.stream.write(buf, $crate::Deadline::NEVER)?)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// The descriptor of a type by its field `stream`: lent, and given away for a child's standard stream.
macro_rules! has_descriptor {
    ($type:ty) => {
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.stream.as_fd()
            }
        }

        impl From<$type> for std::os::fd::OwnedFd {
            /// The descriptor, without `O_NONBLOCK` where this library had set it.
            fn from(end: $type) -> std::os::fd::OwnedFd {
                end.stream.into_fd()
            }
        }

        impl From<$type> for std::process::Stdio {
            /// A child's standard stream: the one way to let it inherit this end.
            fn from(end: $type) -> std::process::Stdio {
                std::os::fd::OwnedFd::from(end).into()
            }
        }
    };
}

pub(super) use {has_descriptor, reads, writes};
