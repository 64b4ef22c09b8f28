//! Unix datagram socket: whole messages between processes of one host (`unix(7)`, `sendto(2)`, `recvfrom(2)`).
//!
//! # What a user sees
//! Like UDP, without its losses: a message arrives whole, once and in the order of its sender, and a sender waits while
//! the receiver has `net.unix.max_dgram_qlen` (10 as a rule) messages waiting. Messages can be empty. A receiver that is to
//! answer needs a sender with a name: an unbound sender has none.
//!
//! A message longer than the buffer is cut by the kernel. The `recv` forms make an error of that, with both lengths;
//! [`UnixDatagram::recv_truncated`] gives what there is, and [`UnixDatagram::recv_vec`] finds the size by itself.
//!
//! # How it works inside
//! `poll(2)` does not tell whether the receiver named in a `sendto` has room: [`UnixDatagram::send_to_deadline`] waits in
//! the plain blocking call, ended by the thread's alarm (see [`crate::deadline_signal`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketType};

use crate::error::{Error, Label, Result};
use crate::message::packet::{self, BufferSizes, Datagram};
use crate::unix_socket::{self, BindOptions, BoundPath, UnixAddress};
use crate::{Deadline, interrupt};

const FAMILY: &str = "unix-dgram";

/// A Unix datagram socket.
///
/// ```
/// use ginnel::message::UnixDatagram;
///
/// let (parent, child) = UnixDatagram::pair()?;
/// parent.send(b"one")?;
/// parent.send(b"two")?;
/// let mut buffer = [0; 64];
/// assert_eq!(child.recv(&mut buffer)?, 3);
/// assert_eq!(child.recv_vec()?, b"two");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixDatagram {
    // Before the socket: see there.
    bound: BoundPath,
    fd: OwnedFd,
    object: Label,
}

/// How to bind a [`UnixDatagram`]: see [`UnixDatagram::options`].
///
/// ```
/// use ginnel::message::UnixDatagram;
///
/// let path = std::env::temp_dir().join(format!("ginnel-doc-{}.sock", std::process::id()));
/// let socket = UnixDatagram::options().mode(0o660).bind(&path)?;
/// assert_eq!(socket.local_address()?, (&path).into());
/// drop(socket);
/// assert!(!path.exists());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UnixDatagramOptions {
    bind: BindOptions,
}

impl UnixDatagramOptions {
    /// The permission bits of the socket file, of which the umask takes away; 0600 unless said. Sending to it needs
    /// write permission.
    pub fn mode(mut self, mode: u32) -> Self {
        self.bind.mode = mode;
        self
    }

    /// Whether a socket file that no socket is bound to, as a killed process leaves it, is replaced; it is unless said.
    pub fn replace_stale(mut self, replace: bool) -> Self {
        self.bind.replace_stale = replace;
        self
    }

    /// Whether the socket file goes when the socket is dropped; it does unless said.
    pub fn remove_on_drop(mut self, remove: bool) -> Self {
        self.bind.remove_on_drop = remove;
        self
    }

    /// Makes a socket of this name, from which anybody who may can receive.
    ///
    /// # Errors
    /// `EADDRINUSE`: somebody has the name, or a file that is no socket, or a stale one that was not to be replaced. `ENOENT`: no such directory. `EACCES`, `EROFS`: no right to make a file there.
    /// `EINVAL`, `ENAMETOOLONG`: no name for a socket. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn bind(self, address: impl Into<UnixAddress>) -> Result<UnixDatagram> {
        let address = address.into();
        let object = address.label(FAMILY);
        let fd = unix_socket::socket(SocketType::DGRAM, &object)?;
        let bound = unix_socket::bind(fd.as_fd(), &address, self.bind, &object)?;
        Ok(UnixDatagram { fd, object, bound: bound.settled(self.bind) })
    }
}

impl UnixDatagram {
    /// Binds with every choice spelled out.
    pub fn options() -> UnixDatagramOptions {
        UnixDatagramOptions { bind: BindOptions::DEFAULT }
    }

    /// Makes a socket of this name: a path, whose file goes with the socket, or `@name`.
    ///
    /// # Errors
    /// See [`UnixDatagramOptions::bind`].
    pub fn bind(address: impl Into<UnixAddress>) -> Result<UnixDatagram> {
        UnixDatagram::options().bind(address)
    }

    /// Makes a socket without a name: it can send, and nobody can answer.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn unbound() -> Result<UnixDatagram> {
        let object = Label::from(FAMILY);
        let fd = unix_socket::socket(SocketType::DGRAM, &object)?;
        Ok(UnixDatagram { fd, object, bound: BoundPath::NONE })
    }

    /// Makes a socket without a name that sends to `address`.
    ///
    /// # Errors
    /// As [`UnixDatagram::unbound`] and [`UnixDatagram::connect_to`].
    pub fn connect(address: impl Into<UnixAddress>) -> Result<UnixDatagram> {
        let address = address.into();
        let mut socket = UnixDatagram::unbound()?;
        socket.object = address.label(FAMILY);
        socket.connect_to(address)?;
        Ok(socket)
    }

    /// Makes two sockets that are each other's peer, for a parent and the child that it forks.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn pair() -> Result<(UnixDatagram, UnixDatagram)> {
        let object = Label::from("unix-dgram pair");
        let (a, b) = unix_socket::pair(SocketType::DGRAM, &object)?;
        let wrap = |fd| UnixDatagram { fd, object: object.clone(), bound: BoundPath::NONE };
        Ok((wrap(a), wrap(b)))
    }

    /// A socket that came as a descriptor: inherited, or passed over another socket. The file of its name, if it has
    /// one, is not removed with it.
    ///
    /// # Errors
    /// `EPROTOTYPE`: the descriptor is not a Unix datagram socket.
    pub fn from_fd(fd: OwnedFd) -> Result<UnixDatagram> {
        unix_socket::check_type(fd.as_fd(), SocketType::DGRAM, &FAMILY.into())?;
        let object = match UnixAddress::of(fd.as_fd()) {
            Ok(UnixAddress::Unnamed) | Err(_) => Label::from(FAMILY),
            Ok(address) => address.label(FAMILY),
        };
        Ok(UnixDatagram { fd, object, bound: BoundPath::NONE })
    }

    /// Sets where [`send`](UnixDatagram::send) sends to, and receives from nobody else from now on. May be done again.
    ///
    /// # Errors
    /// `ECONNREFUSED`: there is a file, and no socket. `ENOENT`: no such file. `EACCES`: no write permission on it.
    /// `EPROTOTYPE`: a socket of another type. `EPERM`: that socket is itself connected to another.
    pub fn connect_to(&self, address: impl Into<UnixAddress>) -> Result<()> {
        let address = address.into();
        let raw = address.to_raw("connect", &self.object)?;
        rustix::net::connect(&self.fd, &raw).map_err(|errno| self.explain_reach("connect", errno, &address))
    }

    /// Lets the socket file stay when the socket is dropped.
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

    /// To whom this socket is connected.
    ///
    /// # Errors
    /// `ENOTCONN`: it is not connected.
    pub fn peer_address(&self) -> Result<UnixAddress> {
        UnixAddress::of_peer(self.fd.as_fd()).map_err(|errno| Error::new("getpeername", errno, &self.object))
    }

    /// Sends a message to the peer; waits while the peer's queue or this socket's send buffer is full.
    ///
    /// # Errors
    /// `ENOTCONN`: not connected. `ECONNREFUSED`, `ECONNRESET`: the peer has closed its socket. `EMSGSIZE`: larger than
    /// the send buffer. `EPIPE`: the peer, or this socket, was shut down. `ENOBUFS`, `ENOMEM`. `EINTR`: a signal handler
    /// ran.
    ///
    /// # Blocking
    /// Until the peer has fewer than `net.unix.max_dgram_qlen` messages waiting. `send(2)`.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NEVER)
    }

    /// Sends a message to the peer if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixDatagram::send`].
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NOW)
    }

    /// Sends a message to the peer; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`UnixDatagram::send`].
    pub fn send_deadline(&self, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        packet::send(self.fd.as_fd(), payload, deadline.into(), &self.object).map_err(|error| {
            match error.raw() {
                Errno::NOTCONN => error.with_hint("connect it first, or name the receiver with send_to"),
                Errno::CONNREFUSED | Errno::CONNRESET => error.with_hint("the peer has closed its socket"),
                _ => error,
            }
        })
    }

    /// Sends a message to `address`; waits while the queue there, or this socket's send buffer, is full.
    ///
    /// # Errors
    /// `ECONNREFUSED`: there is a file, and no socket. `ENOENT`: no such file. `EACCES`: no write permission on it.
    /// `EPROTOTYPE`: a socket of another type. `EPERM`: the receiver is connected to another sender. `EMSGSIZE`,
    /// `EINTR` as [`UnixDatagram::send`].
    ///
    /// # Blocking
    /// As [`UnixDatagram::send`].
    pub fn send_to(&self, payload: &[u8], address: impl Into<UnixAddress>) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NEVER)
    }

    /// Sends a message to `address` if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixDatagram::send_to`].
    pub fn try_send_to(&self, payload: &[u8], address: impl Into<UnixAddress>) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NOW)
    }

    /// Sends a message to `address`; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`UnixDatagram::send_to`].
    pub fn send_to_deadline(
        &self,
        payload: &[u8],
        address: impl Into<UnixAddress>,
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let address = address.into();
        let raw = address.to_raw("sendto", &self.object)?;
        interrupt::until(deadline.into(), "sendto", &self.object, |attempt| {
            packet::send_to_once(self.fd.as_fd(), payload, &raw, attempt)
        })
        .map_err(|error| packet::explain_size(error, self.fd.as_fd(), payload.len()))
        .map_err(|error| unix_socket::explain_reach(error, &address))
    }

    /// Receives a message into `buffer` and gives its length; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: the message was longer than `buffer`, and its rest is lost. `ECONNRESET`: the peer closed its socket
    /// without having received all. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a message comes: there is no end of a datagram socket, whoever dies. A pair's other end too leaves no trace.
    /// `recvfrom(2)`.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a message if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixDatagram::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_deadline(buffer, Deadline::NOW)
    }

    /// Receives a message; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixDatagram::recv`].
    pub fn recv_deadline(&self, buffer: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        self.recv_from_deadline(buffer, deadline).map(|got| got.len)
    }

    /// Receives a message and tells who sent it; waits until there is one.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv`].
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<UnixAddress>> {
        self.recv_from_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a message and tells who sent it, if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixDatagram::recv`].
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<UnixAddress>> {
        self.recv_from_deadline(buffer, Deadline::NOW)
    }

    /// Receives a message and tells who sent it; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv_deadline`].
    pub fn recv_from_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<UnixAddress>> {
        self.recv_truncated(buffer, deadline)?.whole(&self.object)
    }

    /// Receives as much of a message as the buffer holds; [`Datagram::full_len`] tells what it had, the rest is lost.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv_deadline`], without `EMSGSIZE`.
    pub fn recv_truncated(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<UnixAddress>> {
        self.recv_flags(buffer, RecvFlags::empty(), deadline.into())
    }

    /// Looks at the next message and leaves it where it is (`MSG_PEEK`); waits until there is one.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv`], without `EMSGSIZE`.
    ///
    /// # Blocking
    /// As [`UnixDatagram::recv`].
    pub fn peek(&self, buffer: &mut [u8]) -> Result<Datagram<UnixAddress>> {
        self.peek_deadline(buffer, Deadline::NEVER)
    }

    /// Looks at the next message and leaves it where it is, if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UnixDatagram::peek`].
    pub fn try_peek(&self, buffer: &mut [u8]) -> Result<Datagram<UnixAddress>> {
        self.peek_deadline(buffer, Deadline::NOW)
    }

    /// Looks at the next message and leaves it where it is; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixDatagram::peek`].
    pub fn peek_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<UnixAddress>> {
        self.recv_flags(buffer, RecvFlags::PEEK, deadline.into())
    }

    /// Receives a message of any length; waits until there is one.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv`]; `EMSGSIZE` only when several receivers share the socket and another one was faster.
    pub fn recv_vec(&self) -> Result<Vec<u8>> {
        self.recv_vec_deadline(Deadline::NEVER)
    }

    /// Receives a message of any length; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`UnixDatagram::recv_vec`], and `ETIMEDOUT`.
    pub fn recv_vec_deadline(&self, deadline: impl Into<Deadline>) -> Result<Vec<u8>> {
        packet::recv_vec(self.fd.as_fd(), deadline.into(), &self.object).map(|(payload, _)| payload)
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

    fn recv_flags(
        &self,
        buffer: &mut [u8],
        flags: RecvFlags,
        deadline: Deadline,
    ) -> Result<Datagram<UnixAddress>> {
        packet::recv(self.fd.as_fd(), buffer, flags, deadline, &self.object)
            .map(|got| got.map(|sender| UnixAddress::from_raw(sender.as_ref())))
    }

    fn explain_reach(&self, operation: &'static str, errno: Errno, address: &UnixAddress) -> Error {
        unix_socket::explain_reach(Error::new(operation, errno, &self.object), address)
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
