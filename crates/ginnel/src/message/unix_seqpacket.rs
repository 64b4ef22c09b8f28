//! Unix seqpacket socket: a connection of whole messages (`unix(7)`, `accept(2)`, `send(2)`, `recv(2)`).
//!
//! # What a user sees
//! A connection as of a stream socket, with the boundaries of a datagram socket: each `recv` gives what one `send` sent,
//! in order, nothing lost, and the end is seen. A message has at most the size of the sender's buffer.
//!
//! The kernel gives 0 bytes both for the end and for an empty message. Here the end is `None`, and an empty message
//! `Some(0)`. After the peer has gone, what it sent is still received first; if it left messages unread, then one receive
//! fails with `ECONNRESET`, as the kernel tells that they are lost.
//!
//! # How it works inside
//! A connection that this library makes has `SO_TIMESTAMP` on: a message carries a time stamp then, however short it is,
//! and the end does not. That tells them apart, and nothing else does for a socket whose peer has closed. A program that
//! gets the socket and receives control data would see the time stamps: `OwnedFd::from` turns them off, and
//! [`UnixSeqpacket::from_fd`] does not turn them on. On such a socket an empty message just before the end is lost in it.
//!
//! Accepting and connecting are a stream socket's: see `stream/socket.rs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::SocketType;

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::message::control::{self, Incoming};
use crate::message::packet::{self, BufferSizes, Datagram};
use crate::stream::socket;
use crate::unix_socket::{self, BindOptions, BoundPath, Credentials, UnixAddress};
use crate::wait;

const FAMILY: &str = "unix-seqpacket";

/// A connected Unix seqpacket socket.
///
/// ```
/// use ginnel::message::UnixSeqpacket;
///
/// let (parent, child) = UnixSeqpacket::pair()?;
/// parent.send(b"one")?;
/// parent.send(b"")?;
/// drop(parent);
/// let mut buffer = [0; 64];
/// assert_eq!(child.recv(&mut buffer)?, Some(3));
/// assert_eq!(child.recv(&mut buffer)?, Some(0));
/// assert_eq!(child.recv(&mut buffer)?, None);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixSeqpacket {
    fd: OwnedFd,
    object: Label,
    has_timestamps: bool,
}

/// A Unix seqpacket socket that takes connections.
///
/// ```
/// use ginnel::message::{UnixSeqpacket, UnixSeqpacketListener};
///
/// let name = format!("@ginnel-doc-{}", std::process::id());
/// let listener = UnixSeqpacketListener::bind(&name)?;
/// let client = UnixSeqpacket::connect(&name)?;
/// let server = listener.accept()?;
/// client.send(b"hello")?;
/// assert_eq!(server.recv_vec()?, Some(b"hello".to_vec()));
/// assert_eq!(server.peer_credentials()?.pid, std::process::id() as i32);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixSeqpacketListener {
    // Before the socket: see there.
    bound: BoundPath,
    fd: OwnedFd,
    object: Label,
}

/// How to bind a [`UnixSeqpacketListener`]: see [`UnixSeqpacketListener::options`].
///
/// ```
/// use ginnel::message::UnixSeqpacketListener;
///
/// let name = format!("@ginnel-doc-options-{}", std::process::id());
/// let listener = UnixSeqpacketListener::options().backlog(5).bind(&name)?;
/// assert!(listener.try_accept().unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UnixSeqpacketListenerOptions {
    bind: BindOptions,
    backlog: i32,
}

impl UnixSeqpacketListenerOptions {
    /// The permission bits of the socket file, of which the umask takes away; 0600 unless said. Connecting needs write
    /// permission.
    pub fn mode(mut self, mode: u32) -> Self {
        self.bind.mode = mode;
        self
    }

    /// Whether a socket file that no socket is bound to, as a killed process leaves it, is replaced; it is unless said.
    pub fn replace_stale(mut self, replace: bool) -> Self {
        self.bind.replace_stale = replace;
        self
    }

    /// Whether the socket file goes when the listener is dropped; it does unless said.
    pub fn remove_on_drop(mut self, remove: bool) -> Self {
        self.bind.remove_on_drop = remove;
        self
    }

    /// How many connections may wait to be accepted; 128 unless said, `net.core.somaxconn` at the most.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections.try_into().unwrap_or(i32::MAX);
        self
    }

    /// Makes a socket of this name that takes connections.
    ///
    /// # Errors
    /// `EADDRINUSE`: somebody has the name, or a file that is no socket, or a stale one that was not to be replaced. `ENOENT`: no such directory. `EACCES`, `EROFS`: no right to make a file there.
    /// `EINVAL`, `ENAMETOOLONG`: no name for a socket. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn bind(self, address: impl Into<UnixAddress>) -> Result<UnixSeqpacketListener> {
        let address = address.into();
        let object = address.label(FAMILY);
        let fd = unix_socket::socket(SocketType::SEQPACKET, &object)?;
        // Ours alone so far: an accept after a poll that another process was faster at must not wait.
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| Error::new("ioctl", errno, &object))?;
        let bound = unix_socket::bind(fd.as_fd(), &address, self.bind, &object)?;
        rustix::net::listen(&fd, self.backlog).map_err(|errno| Error::new("listen", errno, &object))?;
        Ok(UnixSeqpacketListener { fd, object, bound: bound.settled(self.bind) })
    }
}

impl UnixSeqpacketListener {
    /// Binds with every choice spelled out.
    pub fn options() -> UnixSeqpacketListenerOptions {
        UnixSeqpacketListenerOptions { bind: BindOptions::DEFAULT, backlog: 128 }
    }

    /// Takes connections under this name: a path, whose file goes with the listener, or `@name`.
    ///
    /// # Errors
    /// See [`UnixSeqpacketListenerOptions::bind`].
    pub fn bind(address: impl Into<UnixAddress>) -> Result<UnixSeqpacketListener> {
        UnixSeqpacketListener::options().bind(address)
    }

    /// Takes the next connection; waits until there is one.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`: the connection goes on waiting. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a client connects. `accept(2)`.
    pub fn accept(&self) -> Result<UnixSeqpacket> {
        self.accept_deadline(Deadline::NEVER)
    }

    /// Takes the next connection if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixSeqpacketListener::accept`].
    pub fn try_accept(&self) -> Result<UnixSeqpacket> {
        self.accept_deadline(Deadline::NOW)
    }

    /// Takes the next connection; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixSeqpacketListener::accept`].
    pub fn accept_deadline(&self, deadline: impl Into<Deadline>) -> Result<UnixSeqpacket> {
        let (fd, _) = socket::accept(&self.fd, deadline.into(), &self.object)?;
        UnixSeqpacket::from_labelled(fd, self.object.clone())
    }

    /// Lets the socket file stay when the listener is dropped.
    pub fn keep(&mut self) {
        self.bound.keep();
    }

    /// Where this socket is bound.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn local_address(&self) -> Result<UnixAddress> {
        UnixAddress::of(self.fd.as_fd()).map_err(|errno| Error::new("getsockname", errno, &self.object))
    }
}

impl AsFd for UnixSeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl UnixSeqpacket {
    /// Connects to the listener of this name; waits while its queue of connections is full.
    ///
    /// # Errors
    /// `ECONNREFUSED`: there is a file, and nobody listens. `ENOENT`: no such file. `EACCES`: no write permission on it.
    /// `EPROTOTYPE`: a socket of another type. `EINVAL`, `ENAMETOOLONG`: no name for a socket. `EMFILE`, `ENFILE`,
    /// `ENOMEM`. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until the listener's queue has room; not until it accepts. `connect(2)`.
    pub fn connect(address: impl Into<UnixAddress>) -> Result<UnixSeqpacket> {
        UnixSeqpacket::connect_deadline(address, Deadline::NEVER)
    }

    /// Connects if the listener has room in its queue now.
    ///
    /// # Errors
    /// `EAGAIN`: it has none. Else as [`UnixSeqpacket::connect`].
    pub fn try_connect(address: impl Into<UnixAddress>) -> Result<UnixSeqpacket> {
        UnixSeqpacket::connect_deadline(address, Deadline::NOW)
    }

    /// Connects; waits until the deadline for room in the listener's queue.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixSeqpacket::connect`].
    pub fn connect_deadline(
        address: impl Into<UnixAddress>,
        deadline: impl Into<Deadline>,
    ) -> Result<UnixSeqpacket> {
        let address = address.into();
        let object = address.label(FAMILY);
        let raw = address.to_raw("connect", &object)?;
        let fd = unix_socket::socket(SocketType::SEQPACKET, &object)?;
        socket::connect(&fd, &raw, deadline.into(), &object)
            .map_err(|error| unix_socket::explain_connect(error, &address))?;
        UnixSeqpacket::from_labelled(fd, object)
    }

    /// Makes two sockets that are each other's peer, for a parent and the child that it forks.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn pair() -> Result<(UnixSeqpacket, UnixSeqpacket)> {
        let object = Label::from("unix-seqpacket pair");
        let (a, b) = unix_socket::pair(SocketType::SEQPACKET, &object)?;
        Ok((UnixSeqpacket::from_labelled(a, object.clone())?, UnixSeqpacket::from_labelled(b, object)?))
    }

    /// A connected socket that came as a descriptor: inherited, or passed over another socket.
    ///
    /// Its options are left as they are, for others may share it: an empty message just before the end is taken for the
    /// end.
    ///
    /// # Errors
    /// `EPROTOTYPE`: the descriptor is not a Unix seqpacket socket. `ENOTSOCK`.
    pub fn from_fd(fd: OwnedFd) -> Result<UnixSeqpacket> {
        unix_socket::check_type(fd.as_fd(), SocketType::SEQPACKET, &FAMILY.into())?;
        Ok(UnixSeqpacket { fd, object: FAMILY.into(), has_timestamps: false })
    }

    fn from_labelled(fd: OwnedFd, object: Label) -> Result<UnixSeqpacket> {
        control::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)
            .map_err(|errno| Error::new("setsockopt", errno, &object))?;
        Ok(UnixSeqpacket { fd, object, has_timestamps: true })
    }

    /// Who is at the other end: the process that connected, listened or made the pair.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn peer_credentials(&self) -> Result<Credentials> {
        unix_socket::peer_credentials(self.fd.as_fd(), &self.object)
    }

    /// Where this socket is bound.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn local_address(&self) -> Result<UnixAddress> {
        UnixAddress::of(self.fd.as_fd()).map_err(|errno| Error::new("getsockname", errno, &self.object))
    }

    /// Where the other end is bound.
    ///
    /// # Errors
    /// `ENOTCONN`: it was shut down.
    pub fn peer_address(&self) -> Result<UnixAddress> {
        UnixAddress::of_peer(self.fd.as_fd()).map_err(|errno| Error::new("getpeername", errno, &self.object))
    }

    /// Sends a message; waits while the send buffer is full. Messages can be empty.
    ///
    /// # Errors
    /// `EPIPE`: the peer has closed, or was shut down; no `SIGPIPE` is raised. `ECONNRESET`: it closed with messages
    /// unread. `EMSGSIZE`: longer than the send buffer. `ENOBUFS`, `ENOMEM`. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until the receiver has made room. `send(2)`.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NEVER)
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixSeqpacket::send`].
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NOW)
    }

    /// Sends a message; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`UnixSeqpacket::send`].
    pub fn send_deadline(&self, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        packet::send(self.fd.as_fd(), payload, deadline.into(), &self.object).map_err(|error| {
            match error.raw() {
                Errno::PIPE | Errno::CONNRESET => error.with_hint("the peer has closed its socket"),
                _ => error,
            }
        })
    }

    /// Receives a message into `buffer` and gives its length, `None` at the end; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: the message was longer than `buffer`, and its rest is lost. `ECONNRESET`: the peer closed with messages
    /// from here unread. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a message comes or the peer closes. `recv(2)`.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.recv_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a message if there is one now; `None` at the end.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixSeqpacket::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.recv_deadline(buffer, Deadline::NOW)
    }

    /// Receives a message, `None` at the end; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixSeqpacket::recv`].
    pub fn recv_deadline(&self, buffer: &mut [u8], deadline: impl Into<Deadline>) -> Result<Option<usize>> {
        match self.recv_truncated(buffer, deadline)? {
            Some(got) => Ok(Some(got.whole(&self.object)?.len)),
            None => Ok(None),
        }
    }

    /// Receives as much of a message as the buffer holds; [`Datagram::full_len`] tells what it had, the rest is lost.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::recv_deadline`], without `EMSGSIZE`.
    pub fn recv_truncated(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Option<Datagram<()>>> {
        self.recv_flags(buffer, 0, deadline.into())
    }

    /// Looks at the next message and leaves it where it is (`MSG_PEEK`), `None` at the end; waits until there is one.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::recv`], without `EMSGSIZE`.
    ///
    /// # Blocking
    /// As [`UnixSeqpacket::recv`].
    pub fn peek(&self, buffer: &mut [u8]) -> Result<Option<Datagram<()>>> {
        self.peek_deadline(buffer, Deadline::NEVER)
    }

    /// Looks at the next message and leaves it where it is, if there is one now; `None` at the end.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixSeqpacket::peek`].
    pub fn try_peek(&self, buffer: &mut [u8]) -> Result<Option<Datagram<()>>> {
        self.peek_deadline(buffer, Deadline::NOW)
    }

    /// Looks at the next message and leaves it where it is, `None` at the end; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixSeqpacket::peek`].
    pub fn peek_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Option<Datagram<()>>> {
        self.recv_flags(buffer, libc::MSG_PEEK, deadline.into())
    }

    /// Receives a message of any length, `None` at the end; waits until there is one.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::recv`]; `EMSGSIZE` only when several receivers share the socket and another one was faster.
    pub fn recv_vec(&self) -> Result<Option<Vec<u8>>> {
        self.recv_vec_deadline(Deadline::NEVER)
    }

    /// Receives a message of any length, `None` at the end; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::recv_vec`], and `ETIMEDOUT`.
    pub fn recv_vec_deadline(&self, deadline: impl Into<Deadline>) -> Result<Option<Vec<u8>>> {
        let deadline = deadline.into();
        let Some(next) = self.peek_deadline(&mut [], deadline)? else { return Ok(None) };
        let mut payload = vec![0; next.full_len];
        let Some(len) = self.recv_deadline(&mut payload, deadline)? else { return Ok(None) };
        payload.truncate(len);
        Ok(Some(payload))
    }

    /// How much the socket buffers; the send buffer bounds the length of a message.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn buffer_sizes(&self) -> Result<BufferSizes> {
        packet::buffer_sizes(self.fd.as_fd(), &self.object)
    }

    /// Sets the send buffer. The kernel doubles it, and silently caps it at `net.core.wmem_max`.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn set_send_buffer(&self, bytes: usize) -> Result<()> {
        packet::set_buffer_sizes(self.fd.as_fd(), Some(bytes), None, &self.object)
    }

    /// Ends one direction or both, for everybody who shares the socket (`shutdown(2)`).
    ///
    /// # Errors
    /// `ENOTCONN`: the peer is gone.
    pub fn shutdown(&self, how: std::net::Shutdown) -> Result<()> {
        let how = match how {
            std::net::Shutdown::Read => rustix::net::Shutdown::Read,
            std::net::Shutdown::Write => rustix::net::Shutdown::Write,
            std::net::Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(&self.fd, how).map_err(|errno| Error::new("shutdown", errno, &self.object))
    }

    fn has_peer_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::RDHUP)];
        let no_wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&no_wait)).is_ok_and(|ready| ready > 0)
    }

    fn recv_flags(&self, buffer: &mut [u8], flags: i32, deadline: Deadline) -> Result<Option<Datagram<()>>> {
        let got: Incoming =
            wait::until_ready(&self.fd, PollFlags::IN, deadline, "recvmsg", &self.object, |attempt| {
                control::receive(self.fd.as_fd(), buffer, flags | libc::MSG_TRUNC, attempt)
            })?;
        if got.len == 0 && !got.has_timestamp && (self.has_timestamps || self.has_peer_closed()) {
            return Ok(None);
        }
        Ok(Some(Datagram { len: got.len.min(buffer.len()), full_len: got.len, sender: () }))
    }
}

impl AsFd for UnixSeqpacket {
    /// A program that is handed a duplicate, and not this handle by `OwnedFd::from`, finds `SO_TIMESTAMP` on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<UnixSeqpacket> for OwnedFd {
    fn from(socket: UnixSeqpacket) -> OwnedFd {
        if socket.has_timestamps {
            // It cannot fail on a socket that took it.
            let _ = control::set_option(socket.fd.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMP, 0);
        }
        socket.fd
    }
}
