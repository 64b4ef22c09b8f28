//! Unix stream socket: `unix(7)`, `socket(2)`, `connect(2)`, `accept(2)`.
//!
//! # What a user sees
//! A [`UnixListener`] has a name, a path or `@name` in the abstract namespace, and accepts [`UnixStream`]s. Differences
//! from the bare calls:
//!
//! - A socket file that a dead server left behind is replaced. One that a live server listens on is `EADDRINUSE`, and a
//!   file that is no socket is never touched. Two servers that start at once do not take each other's name.
//! - The file's mode is 0600 unless said, from the moment it exists (and less the umask, as for every file).
//! - The file goes when the listener is dropped: by the process that made it, if it is still the same file.
//!
//! Names, stale files and credentials are the same for every Unix socket: see [`UnixAddress`] and [`Credentials`].

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};

use super::io::{Nature, Stream, has_descriptor, reads, set_nonblock, writes};
use super::socket;
use crate::error::{Error, Label, Result};
use crate::unix_socket::{self, BindOptions, BoundPath};
use crate::{Credentials, Deadline, UnixAddress};

const SCHEME: &str = "unix";

/// A Unix stream socket that accepts connections under a name.
///
/// ```
/// # ginnel_testkit::private();
/// use std::io::{Read, Write};
/// use ginnel::stream::{UnixListener, UnixStream};
///
/// let directory = ginnel_testkit::temp_dir();
/// let path = directory.path().join("door");
/// let listener = UnixListener::bind(&path)?;
/// assert!(UnixListener::bind(&path).unwrap_err().is_already_exists(), "somebody is in");
///
/// let mut client = UnixStream::connect(&path)?;
/// let mut served = listener.accept()?;
/// client.write_all(b"hello")?;
/// let mut word = [0; 5];
/// served.read_exact(&mut word)?;
/// assert_eq!(served.peer_credentials()?.pid, std::process::id() as i32);
///
/// drop(listener);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UnixListener {
    // Before the socket: see there.
    bound: BoundPath,
    fd: OwnedFd,
    object: Label,
}

/// How to make a [`UnixListener`]: see [`UnixListener::options`].
///
/// ```
/// use ginnel::stream::UnixListener;
///
/// let name = format!("@ginnel-options-{}", std::process::id());
/// let listener = UnixListener::options().backlog(16).bind(&name)?;
/// assert!(listener.try_accept().unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UnixListenerOptions {
    bind: BindOptions,
    backlog: i32,
}

impl UnixListenerOptions {
    /// The permission bits of the socket file; 0600 unless said. Connecting takes write permission. The umask takes
    /// bits away. An abstract name has no permissions: everybody in its network namespace may connect.
    pub fn mode(mut self, mode: u32) -> Self {
        self.bind.mode = mode;
        self
    }

    /// How many connections may wait to be accepted; 128 unless said, `net.core.somaxconn` at the most.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections.try_into().unwrap_or(i32::MAX);
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

    /// Listens under this name: a path, or `@name`.
    ///
    /// # Errors
    /// `EADDRINUSE`: somebody has the name, or a file that is no socket, or a stale one that was not to be replaced.
    /// `ENAMETOOLONG`: more than 107 bytes. `ENOENT`: its directory is not there. `EACCES`, `EROFS`, `ENOSPC`: the file
    /// cannot be made. `EMFILE`, `ENFILE`.
    pub fn bind(self, name: impl Into<UnixAddress>) -> Result<UnixListener> {
        let address = name.into();
        let object = address.label(SCHEME);
        let fd = unix_socket::socket(SocketType::STREAM, &object)?;
        // Ours alone so far: an accept after a poll that another process was faster at must not wait.
        set_nonblock(&fd).map_err(|errno| Error::new("fcntl", errno, &object))?;
        let bound = unix_socket::bind(fd.as_fd(), &address, self.bind, &object)?;
        rustix::net::listen(&fd, self.backlog).map_err(|errno| Error::new("listen", errno, &object))?;
        Ok(UnixListener { bound: bound.settled(self.bind), fd, object })
    }
}

impl UnixListener {
    /// Makes a listener with every choice spelled out.
    pub fn options() -> UnixListenerOptions {
        UnixListenerOptions { bind: BindOptions::DEFAULT, backlog: 128 }
    }

    /// Listens under this name, a path or `@name`, with mode 0600.
    ///
    /// # Errors
    /// See [`UnixListenerOptions::bind`].
    pub fn bind(name: impl Into<UnixAddress>) -> Result<UnixListener> {
        UnixListener::options().bind(name)
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `EMFILE`, `ENFILE`: no more descriptors. `EINVAL`: it does not listen.
    ///
    /// # Blocking
    /// Until somebody connects. `accept(2)`.
    pub fn accept(&self) -> Result<UnixStream> {
        self.accept_deadline(Deadline::NEVER)
    }

    /// Takes a connection that waits already.
    ///
    /// # Errors
    /// `EAGAIN`: none does. Else as [`UnixListener::accept`].
    pub fn try_accept(&self) -> Result<UnixStream> {
        self.accept_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for a connection.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none came. Else as [`UnixListener::accept`].
    pub fn accept_deadline(&self, deadline: impl Into<Deadline>) -> Result<UnixStream> {
        let (fd, _) = socket::accept(&self.fd, deadline.into(), &self.object)?;
        Ok(UnixStream::labelled(fd, self.object.clone()))
    }

    /// Lets the socket file stay when the listener is dropped.
    pub fn keep(&mut self) {
        self.bound.keep();
    }

    /// The name it listens under.
    ///
    /// # Errors
    /// `ENOTSOCK`: no socket.
    pub fn local_address(&self) -> Result<UnixAddress> {
        UnixAddress::of(self.fd.as_fd()).map_err(|errno| Error::new("getsockname", errno, &self.object))
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for UnixListener {
    /// Takes a socket that listens already: an inherited one, or `std`'s.
    fn from(fd: OwnedFd) -> UnixListener {
        UnixListener { bound: BoundPath::NONE, fd, object: Label::from("unix listener") }
    }
}

/// One end of a Unix stream connection.
///
/// ```
/// use std::time::Duration;
/// use ginnel::stream::{ByteRead, ByteWrite, UnixListener, UnixStream};
///
/// let name = format!("@ginnel-doc-{}", std::process::id());
/// let listener = UnixListener::bind(&name)?;
/// let client = UnixStream::connect_deadline(&name, Duration::from_secs(1))?;
/// let served = listener.accept()?;
///
/// client.write_all_deadline(b"hello", Duration::from_secs(1))?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// let mut buffer = [0; 16];
/// assert_eq!(served.peek(&mut buffer)?, 5);
/// assert_eq!(served.try_read(&mut buffer)?, 5);
/// assert_eq!(served.try_read(&mut buffer)?, 0, "the end");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixStream {
    stream: Stream,
}

has_descriptor!(UnixStream);
reads!(UnixStream);
writes!(
    UnixStream,
    fn shutdown_write(&self) -> Result<()> {
        self.shutdown(Shutdown::Write)
    }
);

impl From<OwnedFd> for UnixStream {
    /// Takes a connected Unix stream socket: an inherited one.
    fn from(fd: OwnedFd) -> UnixStream {
        UnixStream::labelled(fd, Label::from("unix stream"))
    }
}

impl UnixStream {
    pub(super) fn labelled(fd: OwnedFd, object: Label) -> UnixStream {
        UnixStream { stream: Stream::new(fd, object, Nature::Socket) }
    }

    /// Connects to the server of this name, a path or `@name`; waits while its queue is full.
    ///
    /// # Errors
    /// `ENOENT`: no such socket. `ECONNREFUSED`: nobody listens on it. `EACCES`: no write permission on it.
    /// `EPROTOTYPE`: a datagram or seqpacket socket. `ENAMETOOLONG`. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// While as many connections wait to be accepted as the server's backlog allows. `connect(2)`.
    pub fn connect(name: impl Into<UnixAddress>) -> Result<UnixStream> {
        UnixStream::connect_deadline(name, Deadline::NEVER)
    }

    /// Connects to the server of this name if its queue is not full.
    ///
    /// # Errors
    /// `EAGAIN`: it is. Else as [`UnixStream::connect`].
    pub fn try_connect(name: impl Into<UnixAddress>) -> Result<UnixStream> {
        UnixStream::connect_deadline(name, Deadline::NOW)
    }

    /// Connects to the server of this name; waits until the deadline while its queue is full.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it stayed full. Else as [`UnixStream::connect`].
    pub fn connect_deadline(
        name: impl Into<UnixAddress>,
        deadline: impl Into<Deadline>,
    ) -> Result<UnixStream> {
        let address = name.into();
        let object = address.label(SCHEME);
        let raw = address.to_raw("connect", &object)?;
        let fd = socket::for_connecting(AddressFamily::UNIX, &object)?;
        socket::connect(&fd, &raw, deadline.into(), &object)
            .map_err(|error| unix_socket::explain_connect(error, &address))?;
        Ok(UnixStream::labelled(fd, object))
    }

    /// Closes one direction, or both, for everybody who has this end.
    ///
    /// # Errors
    /// `ENOTCONN`: the peer is gone.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.stream.shutdown(how)
    }

    /// Who is at the other end: who connected, listened, or made the pair (`SO_PEERCRED`). It may have passed the
    /// socket on since.
    ///
    /// # Errors
    /// `ENOTSOCK`: no socket.
    pub fn peer_credentials(&self) -> Result<Credentials> {
        unix_socket::peer_credentials(self.as_fd(), self.stream.object())
    }

    /// Copies what is there and leaves it; waits for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `ECONNRESET`: the peer died with data unread.
    ///
    /// # Blocking
    /// Until something is there or the peer has closed. `recv(2)`, `MSG_PEEK`.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NEVER)
    }

    /// Copies what is there now and leaves it. 0 is the end.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there. Else as [`UnixStream::peek`].
    pub fn try_peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NOW)
    }

    /// Copies what is there and leaves it; waits until the deadline for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UnixStream::peek`].
    pub fn peek_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        self.stream.peek_socket(buf, deadline.into())
    }
}
