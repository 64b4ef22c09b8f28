//! TCP: `tcp(7)`, `socket(2)`, `connect(2)`, `accept(2)`.
//!
//! # What a user sees
//! [`TcpListener`] and [`TcpStream`], named as `host:port` (all addresses of a name are tried in turn, under one
//! deadline). `TCP_NODELAY` is on unless turned off, since what talks to a process on the same host wants its answer
//! now; a listener has `SO_REUSEADDR`, so that a restarted server gets its port back. `SIGPIPE` is never raised.
//!
//! [`TcpStream::try_connect`] cannot know at once whether it will succeed: it gives a [`TcpConnecting`], which a program
//! may poll.
//!
//! What leaves the host is neither encrypted nor authenticated.

use std::fmt::{Debug, Display};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, sockopt};

use super::io::{Nature, Stream, clear_nonblock, has_descriptor, reads, set_nonblock, writes};
use super::socket;
use crate::error::{Error, Label, Result};
use crate::{Deadline, resolve, wait};

fn label(address: impl Display) -> Label {
    Label::new(format!("tcp:{address}"))
}

fn family(address: &SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn ip_address(any: SocketAddrAny, stream: &Stream) -> Result<SocketAddr> {
    any.try_into().map_err(|errno| stream.error("getsockname", errno))
}

/// A TCP socket that accepts connections.
///
/// ```
/// use std::io::{Read, Write};
/// use ginnel::stream::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_address()?)?;
/// let mut served = listener.accept()?;
/// assert_eq!(served.peer_address()?, client.local_address()?);
///
/// client.write_all(b"hello")?;
/// let mut word = [0; 5];
/// served.read_exact(&mut word)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TcpListener {
    stream: Stream,
}

/// How to make a [`TcpListener`]: see [`TcpListener::options`].
///
/// ```
/// use ginnel::stream::TcpListener;
///
/// let listener = TcpListener::options().backlog(8).reuse_address(false).bind("127.0.0.1:0")?;
/// assert!(listener.try_accept().unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TcpListenerOptions {
    backlog: i32,
    reuse_address: bool,
    reuse_port: bool,
}

impl TcpListenerOptions {
    /// How many connections may wait to be accepted; 128 unless said, `net.core.somaxconn` at the most.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections.try_into().unwrap_or(i32::MAX);
        self
    }

    /// Whether a port may be bound that connections of an earlier server still hold (`SO_REUSEADDR`); yes unless said.
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// Whether several listeners of one user may share the port, connections spread over them (`SO_REUSEPORT`).
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Listens on `host:port`; port 0 is one the kernel chooses ([`TcpListener::local_address`] tells).
    ///
    /// # Errors
    /// `EADDRINUSE`: somebody listens there. `EADDRNOTAVAIL`: no address of this host. `EACCES`: a port below
    /// `net.ipv4.ip_unprivileged_port_start`. The resolver's failures are `EIO` with its words as the hint.
    pub fn bind(self, address: impl ToSocketAddrs + Debug) -> Result<TcpListener> {
        resolve::each("tcp", address, |address| self.bind_one(address))
    }

    fn bind_one(self, address: SocketAddr) -> Result<TcpListener> {
        let object = label(address);
        let fail = |operation| {
            let object = object.clone();
            move |errno| {
                let error = Error::new(operation, errno, &object);
                match errno {
                    Errno::ADDRINUSE => {
                        error.with_hint("another server listens on that port; see `ss -ltnp`")
                    }
                    Errno::ADDRNOTAVAIL => error.with_hint("no interface of this host has that address"),
                    Errno::ACCESS => error.with_hint(crate::sysv::limit_hint(
                        "a port this low needs CAP_NET_BIND_SERVICE",
                        "net.ipv4.ip_unprivileged_port_start",
                    )),
                    _ => error,
                }
            }
        };
        let fd = socket::for_listening(family(&address), &object)?;
        sockopt::set_socket_reuseaddr(&fd, self.reuse_address).map_err(fail("setsockopt"))?;
        sockopt::set_socket_reuseport(&fd, self.reuse_port).map_err(fail("setsockopt"))?;
        rustix::net::bind(&fd, &address).map_err(fail("bind"))?;
        rustix::net::listen(&fd, self.backlog).map_err(fail("listen"))?;
        // The port that was asked for may have been 0.
        let bound = rustix::net::getsockname(&fd).ok().and_then(|any| SocketAddr::try_from(any).ok());
        Ok(TcpListener { stream: Stream::new(fd, bound.map_or(object.clone(), label), Nature::Socket) })
    }
}

impl TcpListener {
    /// Makes a listener with every choice spelled out.
    pub fn options() -> TcpListenerOptions {
        TcpListenerOptions { backlog: 128, reuse_address: true, reuse_port: false }
    }

    /// Listens on `host:port`.
    ///
    /// # Errors
    /// See [`TcpListenerOptions::bind`].
    pub fn bind(address: impl ToSocketAddrs + Debug) -> Result<TcpListener> {
        TcpListener::options().bind(address)
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// `ENOTSOCK`: no socket.
    pub fn local_address(&self) -> Result<SocketAddr> {
        local_address(&self.stream)
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `ECONNABORTED`: the client gave up meanwhile. `EMFILE`, `ENFILE`: no more
    /// descriptors.
    ///
    /// # Blocking
    /// Until somebody connects. `accept(2)`.
    pub fn accept(&self) -> Result<TcpStream> {
        self.accept_deadline(Deadline::NEVER)
    }

    /// Takes a connection that waits already.
    ///
    /// # Errors
    /// `EAGAIN`: none does. Else as [`TcpListener::accept`].
    pub fn try_accept(&self) -> Result<TcpStream> {
        self.accept_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for a connection.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none came. Else as [`TcpListener::accept`].
    pub fn accept_deadline(&self, deadline: impl Into<Deadline>) -> Result<TcpStream> {
        let (fd, from) = socket::accept(&self.stream, deadline.into(), self.stream.object())?;
        let from = from.and_then(|any| SocketAddr::try_from(any).ok());
        TcpStream::connected(fd, from.map_or(self.stream.object().clone(), label))
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl From<OwnedFd> for TcpListener {
    /// Takes a socket that listens already: an inherited one, or `std`'s.
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener { stream: Stream::new(fd, Label::from("tcp listener"), Nature::Socket) }
    }
}

fn local_address(stream: &Stream) -> Result<SocketAddr> {
    let any = rustix::net::getsockname(stream).map_err(|errno| stream.error("getsockname", errno))?;
    ip_address(any, stream)
}

/// One end of a TCP connection.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{ByteRead, ByteWrite, TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect_deadline(listener.local_address()?, Duration::from_secs(1))?;
/// client.set_keepalive(Some(Duration::from_secs(30)))?;
/// let served = listener.accept()?;
/// assert!(served.nodelay()?);
///
/// served.write_all_deadline(b"welcome", Duration::from_secs(1))?;
/// let mut buffer = [0; 16];
/// assert_eq!(client.read_deadline(&mut buffer, Duration::from_secs(1))?, 7);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct TcpStream {
    stream: Stream,
}

has_descriptor!(TcpStream);
reads!(TcpStream);
writes!(
    TcpStream,
    fn shutdown_write(&self) -> Result<()> {
        self.shutdown(Shutdown::Write)
    }
);

impl From<OwnedFd> for TcpStream {
    /// Takes a connected TCP socket: an inherited one, or `std`'s.
    fn from(fd: OwnedFd) -> TcpStream {
        TcpStream { stream: Stream::new(fd, Label::from("tcp stream"), Nature::Socket) }
    }
}

impl TcpStream {
    fn connected(fd: OwnedFd, object: Label) -> Result<TcpStream> {
        let stream = TcpStream { stream: Stream::new(fd, object, Nature::Socket) };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Connects to `host:port`, to the first of its addresses that answers.
    ///
    /// # Errors
    /// The last address's: `ECONNREFUSED`: nobody listens there. `ETIMEDOUT`: no answer (`net.ipv4.tcp_syn_retries`).
    /// `ENETUNREACH`, `EHOSTUNREACH`, `EADDRNOTAVAIL`: no way there. `EINTR`: a signal handler ran; nothing is
    /// connected. The resolver's failures are `EIO` with its words as the hint.
    ///
    /// # Blocking
    /// In the resolver, then until the peer's kernel has answered. `connect(2)`, `getaddrinfo(3)`.
    pub fn connect(address: impl ToSocketAddrs + Debug) -> Result<TcpStream> {
        TcpStream::connect_deadline(address, Deadline::NEVER)
    }

    /// Connects to `host:port`; waits until the deadline for an answer, of all its addresses together. The resolver
    /// keeps to its own times.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. `EAGAIN`: it was [`Deadline::NOW`], and no answer is that fast: see
    /// [`TcpStream::try_connect`]. Else as [`TcpStream::connect`].
    pub fn connect_deadline(
        address: impl ToSocketAddrs + Debug,
        deadline: impl Into<Deadline>,
    ) -> Result<TcpStream> {
        let deadline = deadline.into();
        resolve::each("tcp", address, |address| {
            let object = label(address);
            let fd = socket::for_connecting(family(&address), &object)?;
            socket::connect(&fd, &address, deadline, &object).map_err(socket::explain_connect)?;
            TcpStream::connected(fd, object)
        })
    }

    /// Begins to connect and does not wait for the answer. Only the resolver may wait; an address needs none.
    ///
    /// # Errors
    /// As [`TcpStream::connect`], as far as they are known at once.
    pub fn try_connect(address: impl ToSocketAddrs + Debug) -> Result<TcpConnecting> {
        resolve::each("tcp", address, |address| {
            let object = label(address);
            let fd = socket::for_connecting(family(&address), &object)?;
            set_nonblock(&fd).map_err(|errno| Error::new("fcntl", errno, &object))?;
            match rustix::net::connect(&fd, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpConnecting { fd, object }),
                Err(errno) => Err(socket::explain_connect(Error::new("connect", errno, &object))),
            }
        })
    }

    /// This end's address.
    ///
    /// # Errors
    /// `ENOTSOCK`: no socket.
    pub fn local_address(&self) -> Result<SocketAddr> {
        local_address(&self.stream)
    }

    /// The other end's address.
    ///
    /// # Errors
    /// `ENOTCONN`: the connection is gone.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        match rustix::net::getpeername(&self.stream) {
            Ok(Some(any)) => ip_address(any, &self.stream),
            Ok(None) => Err(self.stream.error("getpeername", Errno::NOTCONN)),
            Err(errno) => Err(self.stream.error("getpeername", errno)),
        }
    }

    /// Whether small writes go out at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// `ENOTSOCK`, `EOPNOTSUPP`: no TCP socket.
    pub fn nodelay(&self) -> Result<bool> {
        sockopt::tcp_nodelay(&self.stream).map_err(|errno| self.stream.error("getsockopt", errno))
    }

    /// Whether small writes are to go out at once, or be gathered into larger segments.
    ///
    /// # Errors
    /// `ENOTSOCK`, `EOPNOTSUPP`: no TCP socket.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        self.set(sockopt::set_tcp_nodelay(&self.stream, nodelay))
    }

    /// Has the kernel ask a silent peer whether it is still there, first after `idle` and then as often, and give it up
    /// after nine answers missed (`net.ipv4.tcp_keepalive_probes`); `None` turns that off. Whole seconds.
    ///
    /// # Errors
    /// `EINVAL`: less than 1 s, or more than 32767 s.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> Result<()> {
        if let Some(idle) = idle {
            self.set(sockopt::set_tcp_keepidle(&self.stream, idle))?;
            self.set(sockopt::set_tcp_keepintvl(&self.stream, idle))?;
        }
        self.set(sockopt::set_socket_keepalive(&self.stream, idle.is_some()))
    }

    /// How long a close waits for what was written to arrive; zero throws it away and resets the connection; `None`
    /// (the default) does not wait and lets the kernel deliver it.
    ///
    /// # Errors
    /// `EINVAL`, `EDOM`: too long.
    pub fn set_linger(&self, linger: Option<Duration>) -> Result<()> {
        self.set(sockopt::set_socket_linger(&self.stream, linger))
    }

    fn set(&self, outcome: Result<(), Errno>) -> Result<()> {
        outcome.map_err(|errno| self.stream.error("setsockopt", errno))
    }

    /// Closes one direction, or both, for everybody who has this end.
    ///
    /// # Errors
    /// `ENOTCONN`: the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.stream.shutdown(how)
    }

    /// Copies what is there and leaves it; waits for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `ECONNRESET`: the peer died.
    ///
    /// # Blocking
    /// Until something is there or the peer has closed. `recv(2)`, `MSG_PEEK`.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NEVER)
    }

    /// Copies what is there now and leaves it. 0 is the end.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there. Else as [`TcpStream::peek`].
    pub fn try_peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NOW)
    }

    /// Copies what is there and leaves it; waits until the deadline for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`TcpStream::peek`].
    pub fn peek_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        self.stream.peek_socket(buf, deadline.into())
    }
}

/// A connection that is being made: what [`TcpStream::try_connect`] gives. Its descriptor polls writable when the
/// answer is there. Dropping it gives up.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let connecting = TcpStream::try_connect(listener.local_address()?)?;
/// let client = connecting.wait_deadline(Duration::from_secs(1))?;
/// assert_eq!(client.peer_address()?, listener.local_address()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct TcpConnecting {
    fd: OwnedFd,
    object: Label,
}

impl TcpConnecting {
    /// Waits for the connection.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]. `EINTR`: a signal handler ran; the attempt goes on, wait again.
    ///
    /// # Blocking
    /// Until the peer's kernel has answered, or has not for too long.
    pub fn wait(&self) -> Result<TcpStream> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// The connection, if the answer is there.
    ///
    /// # Errors
    /// `EAGAIN`: it is not. Else as [`TcpStream::connect`].
    pub fn try_wait(&self) -> Result<TcpStream> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for the connection.
    ///
    /// The stream that it gives is a descriptor of its own for the same socket; drop this one then.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the attempt goes on. Else as [`TcpStream::connect`].
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<TcpStream> {
        wait::ready(self.as_fd(), PollFlags::OUT, deadline.into(), "connect", &self.object)?;
        let fail = |errno| socket::explain_connect(Error::new("connect", errno, &self.object));
        sockopt::socket_error(&self.fd).map_err(fail)?.map_err(fail)?;
        // The failure was told once, and a socket without a connection polls ready too.
        rustix::net::getpeername(&self.fd).map_err(fail)?;
        let fd = self.fd.try_clone().map_err(|error| Error::from_io("dup", &error, &self.object))?;
        clear_nonblock(&fd).map_err(fail)?;
        TcpStream::connected(fd, self.object.clone())
    }
}

impl AsFd for TcpConnecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
