//! What the sockets that keep message boundaries have in common: the calls in their three forms, and truncation told.

use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny};

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::sysv;
use crate::wait::{self, Attempt};

/// What came: how many bytes of the buffer it fills, how many it had, and who sent it.
///
/// ```
/// use std::time::Duration;
/// use ginnel::message::UdpSocket;
///
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let client = UdpSocket::connect(server.local_address()?)?;
/// client.send(b"over the garden wall")?;
///
/// let mut buffer = [0; 8];
/// let got = server.recv_truncated(&mut buffer, Duration::from_secs(10))?;
/// assert_eq!((&buffer[..got.len], got.full_len), (&b"over the"[..], 20));
/// assert!(got.is_truncated());
/// assert_eq!(got.sender, client.local_address()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<A> {
    /// How many bytes of the buffer it fills.
    pub len: usize,
    /// How many bytes were sent: more than `len` when the buffer was too small.
    pub full_len: usize,
    /// Who sent it.
    pub sender: A,
}

impl<A> Datagram<A> {
    /// Whether the buffer was too small for it.
    pub fn is_truncated(&self) -> bool {
        self.full_len > self.len
    }

    /// `EMSGSIZE` for a datagram that was cut.
    pub(super) fn whole(self, object: &Label) -> Result<Datagram<A>> {
        if !self.is_truncated() {
            return Ok(self);
        }
        Err(Error::new("recvfrom", Errno::MSGSIZE, object).with_hint(format!(
            "the message had {} bytes and the buffer {}; the rest of it is lost (recv_vec finds the size by itself)",
            self.full_len, self.len
        )))
    }

    pub(super) fn map<B>(self, change: impl FnOnce(A) -> B) -> Datagram<B> {
        Datagram { len: self.len, full_len: self.full_len, sender: change(self.sender) }
    }
}

/// A received datagram whose sender is still as the kernel gave it.
pub(super) type RawDatagram = Datagram<Option<SocketAddrAny>>;

fn send_flags(attempt: Attempt) -> SendFlags {
    match attempt {
        Attempt::NonBlocking => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        Attempt::Blocking => SendFlags::NOSIGNAL,
    }
}

pub(super) fn recv_flags(attempt: Attempt) -> RecvFlags {
    match attempt {
        Attempt::NonBlocking => RecvFlags::DONTWAIT,
        Attempt::Blocking => RecvFlags::empty(),
    }
}

/// Sends to the socket's peer.
pub(super) fn send(socket: BorrowedFd<'_>, payload: &[u8], deadline: Deadline, object: &Label) -> Result<()> {
    wait::until_ready(socket, PollFlags::OUT, deadline, "send", object, |attempt| {
        rustix::net::send(socket, payload, send_flags(attempt)).map(drop)
    })
    .map_err(|error| explain_size(error, socket, payload.len()))
}

/// Sends to an address, where `poll(2)` tells when there is room.
pub(super) fn send_to(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    address: &impl SocketAddrArg,
    deadline: Deadline,
    object: &Label,
) -> Result<()> {
    wait::until_ready(socket, PollFlags::OUT, deadline, "sendto", object, |attempt| {
        rustix::net::sendto(socket, payload, send_flags(attempt), address).map(drop)
    })
    .map_err(|error| explain_size(error, socket, payload.len()))
}

/// One attempt to send to an address.
pub(super) fn send_to_once(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    address: &impl SocketAddrArg,
    attempt: Attempt,
) -> Result<(), Errno> {
    rustix::net::sendto(socket, payload, send_flags(attempt), address).map(drop)
}

/// Receives into `buffer`; what does not fit is cut, and told in the answer.
pub(super) fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    extra: RecvFlags,
    deadline: Deadline,
    object: &Label,
) -> Result<RawDatagram> {
    wait::until_ready(socket, PollFlags::IN, deadline, "recvfrom", object, |attempt| {
        let flags = extra | RecvFlags::TRUNC | recv_flags(attempt);
        let (len, full_len, sender) = rustix::net::recvfrom(socket, &mut *buffer, flags)?;
        Ok(Datagram { len, full_len, sender })
    })
}

/// Receives a datagram of any length: asks for the length of the next one first.
///
/// Another receiver of the same socket may take that one in between, and the next be longer still: the room for more
/// than any UDP datagram makes that rare, and it is an error, not silence.
pub(super) fn recv_vec(
    socket: BorrowedFd<'_>,
    deadline: Deadline,
    object: &Label,
) -> Result<(Vec<u8>, Option<SocketAddrAny>)> {
    const ROOM_BYTES: usize = 1 << 16;
    let next = recv(socket, &mut [], RecvFlags::PEEK, deadline, object)?;
    let mut room = vec![0; next.full_len.max(ROOM_BYTES)];
    let got = recv(socket, &mut room, RecvFlags::empty(), deadline, object)?.whole(object)?;
    Ok((room[..got.len].to_vec(), got.sender))
}

/// The buffers' sizes, as the kernel counts: with its own overhead, and doubled when set (`socket(7)`).
pub(super) fn buffer_sizes(socket: BorrowedFd<'_>, object: &Label) -> Result<BufferSizes> {
    let fail = |errno| Error::new("getsockopt", errno, object);
    Ok(BufferSizes {
        send_bytes: rustix::net::sockopt::socket_send_buffer_size(socket).map_err(fail)?,
        recv_bytes: rustix::net::sockopt::socket_recv_buffer_size(socket).map_err(fail)?,
    })
}

/// Sets the buffers' sizes.
pub(super) fn set_buffer_sizes(
    socket: BorrowedFd<'_>,
    send_bytes: Option<usize>,
    recv_bytes: Option<usize>,
    object: &Label,
) -> Result<()> {
    let fail = |errno| Error::new("setsockopt", errno, object);
    if let Some(bytes) = send_bytes {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes).map_err(fail)?;
    }
    if let Some(bytes) = recv_bytes {
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, bytes).map_err(fail)?;
    }
    Ok(())
}

/// How much a socket buffers, counted by the kernel with its own overhead: `SO_SNDBUF` and `SO_RCVBUF` of `socket(7)`.
///
/// ```
/// use ginnel::message::UdpSocket;
///
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.set_buffer_sizes(Some(16384), Some(32768))?;
/// let sizes = socket.buffer_sizes()?;
/// assert_eq!((sizes.send_bytes, sizes.recv_bytes), (32768, 65536), "doubled, for the overhead");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes {
    /// What is sent and not yet received; on a Unix socket this is what bounds a message.
    pub send_bytes: usize,
    /// What is received and not yet read.
    pub recv_bytes: usize,
}

/// Says how large a message may be.
pub(super) fn explain_size(error: Error, socket: BorrowedFd<'_>, len: usize) -> Error {
    if error.raw() != Errno::MSGSIZE {
        return error;
    }
    let is_unix = rustix::net::sockopt::socket_domain(socket) == Ok(rustix::net::AddressFamily::UNIX);
    let buffer = rustix::net::sockopt::socket_send_buffer_size(socket).unwrap_or(0);
    if is_unix {
        let what = format!(
            "the message has {len} bytes and the socket's send buffer {buffer}; make that larger \
             (set_send_buffer), up to twice"
        );
        return error.with_hint(sysv::limit_hint(&what, "net.core.wmem_max"));
    }
    error.with_hint(format!(
        "the message has {len} bytes; a datagram holds 65507 over IPv4 (65527 over IPv6), and less where the path's \
         MTU may not be exceeded"
    ))
}
