//! Whole messages over a byte stream: each with its length in front.
//!
//! # What a user sees
//! [`Framed`] sends and receives frames over any stream of this family, in the three forms, and over any
//! [`std::io::Read`] or [`std::io::Write`] in the blocking one. On the wire a frame is its length, 4 bytes, the most
//! significant first, then as many bytes: what most protocols that have such a thing use, and easy from every language.
//!
//! A frame longer than the limit (16 MiB unless said) is refused by the sender before anything is sent, and by the
//! receiver when it sees the length: memory grows with what has arrived, never with what was announced.
//!
//! # How it works inside
//! A frame that arrives in pieces is kept between calls, and one that could be sent only in part is too, so a call that
//! gives up (a deadline, a signal, a dropped future) loses no byte and tears no frame. Nothing beyond the current frame
//! is read: [`Framed::into_inner`] gives a stream that stands between two frames.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::io::{ByteRead, ByteWrite};
use crate::Deadline;
use crate::error::{Error, Label, Result};

const HEADER_BYTES: usize = 4;
const FRAME_BYTES_MAX: usize = 16 << 20;
/// How much is read in one piece: an announced length is believed this far.
const CHUNK_BYTES: usize = 64 << 10;
const LABEL: Label = Label::Static("framed stream");

/// Frames over a stream.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{Framed, socketpair};
///
/// let (near, far) = socketpair()?;
/// let (mut near, mut far) = (Framed::new(near), Framed::new(far));
/// near.send(b"first")?;
/// near.send(b"")?;
/// assert_eq!(far.recv()?.unwrap(), b"first");
/// assert_eq!(far.recv_deadline(Duration::from_secs(1))?.unwrap(), b"");
/// assert!(far.try_recv().unwrap_err().is_would_block());
///
/// drop(near);
/// assert!(far.recv()?.is_none(), "the end, between two frames");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Framed<S> {
    stream: S,
    frame_bytes_max: usize,
    incoming: Incoming,
    /// What of frames that were taken has not been sent yet.
    outgoing: Vec<u8>,
}

/// The frame that is arriving.
#[derive(Debug, Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    payload: Vec<u8>,
    payload_len: usize,
}

impl Incoming {
    fn announced(&self) -> usize {
        u32::from_be_bytes(self.header) as usize
    }

    /// Where the next bytes of the frame go; `None` when it is complete.
    fn rest(&mut self, frame_bytes_max: usize) -> Result<Option<&mut [u8]>> {
        if self.header_len < HEADER_BYTES {
            return Ok(Some(&mut self.header[self.header_len..]));
        }
        let announced = self.announced();
        if announced > frame_bytes_max {
            return Err(Error::new("recv", Errno::MSGSIZE, &LABEL).with_hint(format!(
                "the peer announces a frame of {announced} bytes, the limit is {frame_bytes_max}: it is no peer of \
                 this protocol, or raise the limit on both sides"
            )));
        }
        if self.payload_len == announced {
            return Ok(None);
        }
        let wanted = announced.min(self.payload_len + CHUNK_BYTES);
        self.payload.resize(wanted, 0);
        Ok(Some(&mut self.payload[self.payload_len..]))
    }

    fn arrived(&mut self, len: usize) {
        if self.header_len < HEADER_BYTES {
            self.header_len += len;
        } else {
            self.payload_len += len;
        }
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).payload
    }

    /// The stream has ended: fine between two frames.
    fn end(&self) -> Result<Option<Vec<u8>>> {
        if self.header_len == 0 {
            return Ok(None);
        }
        let error = Error::new("recv", Errno::CONNRESET, &LABEL);
        Err(if self.header_len < HEADER_BYTES {
            error.with_hint("the peer closed or died in the middle of a frame's length")
        } else {
            error.with_hint(format!(
                "the peer closed or died after {} of a frame's {} bytes",
                self.payload_len,
                self.announced()
            ))
        })
    }

    /// Collects a frame by `read`, as far as it goes.
    fn collect(
        &mut self,
        frame_bytes_max: usize,
        mut read: impl FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<Option<Vec<u8>>> {
        while let Some(rest) = self.rest(frame_bytes_max)? {
            match read(rest)? {
                0 => return self.end(),
                len => self.arrived(len),
            }
        }
        Ok(Some(self.take()))
    }
}

impl<S> Framed<S> {
    /// Frames over `stream`, of 16 MiB at the most.
    pub fn new(stream: S) -> Framed<S> {
        Framed::with_max(stream, FRAME_BYTES_MAX)
    }

    /// Frames over `stream`, of `frame_bytes_max` bytes at the most. 4 GiB - 1 is the format's own limit.
    pub fn with_max(stream: S, frame_bytes_max: usize) -> Framed<S> {
        let frame_bytes_max = frame_bytes_max.min(u32::MAX as usize);
        Framed { stream, frame_bytes_max, incoming: Incoming::default(), outgoing: Vec::new() }
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Gives the stream back. A frame that has arrived or was sent only in part is lost.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// How many bytes of frames that were taken are still to be sent.
    pub fn pending(&self) -> usize {
        self.outgoing.len()
    }

    fn header(&self, frame: &[u8]) -> Result<[u8; HEADER_BYTES]> {
        if frame.len() > self.frame_bytes_max {
            return Err(Error::new("send", Errno::MSGSIZE, &LABEL).with_hint(format!(
                "the frame has {} bytes, the limit is {}; nothing was sent",
                frame.len(),
                self.frame_bytes_max
            )));
        }
        Ok((frame.len() as u32).to_be_bytes())
    }
}

impl<S: AsFd> AsFd for Framed<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: ByteRead> Framed<S> {
    /// Receives a frame; `None` is the stream's end, between two frames.
    ///
    /// # Errors
    /// `ECONNRESET`: the stream ended in the middle of a frame, or the peer died. `EMSGSIZE`: the frame is longer than
    /// the limit; the stream is of no use any more, and each further call says so. `EINTR`: a signal handler ran; what
    /// has arrived of the frame is kept.
    ///
    /// # Blocking
    /// Until the frame is complete.
    pub fn recv(&mut self) -> Result<Option<Vec<u8>>> {
        self.recv_deadline(Deadline::NEVER)
    }

    /// Receives a frame if all of it is there.
    ///
    /// # Errors
    /// `EAGAIN`: it is not; what there is of it is kept. Else as [`Framed::recv`].
    pub fn try_recv(&mut self) -> Result<Option<Vec<u8>>> {
        self.recv_deadline(Deadline::NOW)
    }

    /// Receives a frame; waits until the deadline for all of it.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it has not come; what there is of it is kept. Else as [`Framed::recv`].
    pub fn recv_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Vec<u8>>> {
        let deadline = deadline.into();
        let stream = &self.stream;
        self.incoming.collect(self.frame_bytes_max, |rest| stream.read_deadline(rest, deadline))
    }
}

impl<S: ByteWrite> Framed<S> {
    /// Sends a frame.
    ///
    /// # Errors
    /// `EMSGSIZE`: the frame is longer than the limit. `EPIPE`, `ECONNRESET`: the peer is gone. `EINTR`: a signal
    /// handler ran, nothing of this frame was sent. A signal after its first byte gives `Ok`, with the rest
    /// [`pending`](Framed::pending).
    ///
    /// # Blocking
    /// Until all of it is in the kernel.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.send_deadline(frame, Deadline::NEVER)
    }

    /// Sends a frame if there is room for its beginning. What there is no room for is kept, and sent before anything
    /// else: see [`Framed::flush_deadline`] and its sisters.
    ///
    /// # Errors
    /// `EAGAIN`: there is none; the frame was not taken, send it again. Else as [`Framed::send`].
    pub fn try_send(&mut self, frame: &[u8]) -> Result<()> {
        self.send_deadline(frame, Deadline::NOW)
    }

    /// Sends a frame; waits until the deadline for room. `Ok` means that the frame was taken: if there was room for
    /// some of it only, the rest is [`pending`](Framed::pending), and sent before anything else.
    ///
    /// # Errors
    /// `ETIMEDOUT`: there was no room; the frame was not taken, send it again. Else as [`Framed::send`].
    pub fn send_deadline(&mut self, frame: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let header = self.header(frame)?;
        self.flush_deadline(deadline)?;
        self.outgoing.reserve(HEADER_BYTES + frame.len());
        self.outgoing.extend_from_slice(&header);
        self.outgoing.extend_from_slice(frame);
        let whole = self.outgoing.len();
        match self.flush_deadline(deadline) {
            Ok(()) => Ok(()),
            // Something of it is on its way, so all of it will be.
            Err(error) if self.outgoing.len() < whole && is_temporary(&error) => Ok(()),
            Err(error) => {
                // A frame that was begun is not followed by another one in its middle, whatever went wrong.
                if self.outgoing.len() == whole {
                    self.outgoing.clear();
                }
                Err(error)
            }
        }
    }

    /// Sends what is pending.
    ///
    /// # Errors
    /// `EPIPE`, `ECONNRESET`: the peer is gone. `EINTR`: a signal handler ran; what was not sent stays pending.
    ///
    /// # Blocking
    /// Until all of it is in the kernel.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_deadline(Deadline::NEVER)
    }

    /// Sends what there is room for of what is pending.
    ///
    /// # Errors
    /// `EAGAIN`: something stays pending. Else as [`Framed::flush`].
    pub fn try_flush(&mut self) -> Result<()> {
        self.flush_deadline(Deadline::NOW)
    }

    /// Sends what is pending; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: something stays pending. Else as [`Framed::flush`].
    pub fn flush_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let outcome = self.stream.write_all_deadline(&self.outgoing, deadline);
        let done = outcome.as_ref().map_or_else(|short| short.done, |()| self.outgoing.len());
        self.outgoing.drain(..done);
        outcome.map_err(|short| short.error)
    }
}

fn is_temporary(error: &Error) -> bool {
    error.is_would_block() || error.is_timed_out() || error.is_interrupted()
}

impl<S: io::Read> Framed<S> {
    /// Receives a frame from any reader; `None` is its end, between two frames.
    ///
    /// ```
    /// use ginnel::stream::Framed;
    ///
    /// let mut framed = Framed::new(&b"\0\0\0\x05hello"[..]);
    /// assert_eq!(framed.read_frame()?.unwrap(), b"hello");
    /// assert!(framed.read_frame()?.is_none());
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Framed::recv`], and the reader's own; what has arrived of the frame is kept.
    pub fn read_frame(&mut self) -> Result<Option<Vec<u8>>> {
        let stream = &mut self.stream;
        self.incoming.collect(self.frame_bytes_max, |rest| {
            stream.read(rest).map_err(|error| Error::from_io("read", &error, &LABEL))
        })
    }
}

impl<S: io::Write> Framed<S> {
    /// Writes a frame to any writer, and flushes it.
    ///
    /// ```
    /// use ginnel::stream::Framed;
    ///
    /// let mut framed = Framed::new(Vec::new());
    /// framed.write_frame(b"hello")?;
    /// assert_eq!(framed.into_inner(), b"\0\0\0\x05hello");
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EMSGSIZE`: the frame is longer than the limit; nothing was written. Else the writer's own: the frame may be
    /// written in part then.
    pub fn write_frame(&mut self, frame: &[u8]) -> Result<()> {
        let header = self.header(frame)?;
        let mut whole = std::mem::take(&mut self.outgoing);
        whole.extend_from_slice(&header);
        whole.extend_from_slice(frame);
        let outcome = self.stream.write_all(&whole).and_then(|()| self.stream.flush());
        outcome.map_err(|error| Error::from_io("write", &error, &LABEL))
    }
}
