//! ICMP echo, what `ping` does: through a raw socket, or through the kernel's ping socket, which needs no privilege
//! (`icmp(7)`, `raw(7)`, RFC 792, RFC 4443).
//!
//! # What a user sees
//! [`IcmpEcho::send`] sends an echo request, [`IcmpEcho::recv`] receives the reply to one: of this socket, from the host that
//! was asked, with a right checksum. Everything else that a raw socket hears is passed over, other processes' replies above
//! all.
//!
//! # How it works inside
//! A ping socket's identifier is chosen by the kernel, unique on the host, as a port is. A raw socket's is drawn at random:
//! two of 65536 that happen to have the same would see each other's replies. The socket is connected, so that the kernel
//! drops what other hosts send, and reports that a host is unreachable.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::message::packet;

/// Type, code, checksum, identifier, sequence.
const HEADER_BYTES: usize = 8;
const IPV4_HEADER_BYTES_MAX: usize = 60;

/// Through which kind of socket echo requests go.
///
/// ```
/// # ginnel_testkit::private();
/// use std::net::Ipv4Addr;
/// use ginnel::message::icmp::{EchoSocket, IcmpEcho};
///
/// match IcmpEcho::options().socket(EchoSocket::Raw).open(Ipv4Addr::LOCALHOST) {
///     Ok(echo) => assert!(echo.is_raw()),
///     Err(error) => assert!(error.is_permission_denied()), // no CAP_NET_RAW
/// }
/// assert_eq!(EchoSocket::default(), EchoSocket::Either);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EchoSocket {
    /// The ping socket if this user may have one, a raw socket if not.
    #[default]
    Either,
    /// A ping socket (`SOCK_DGRAM`, `IPPROTO_ICMP`), for the groups in `net.ipv4.ping_group_range`.
    Ping,
    /// A raw socket (`SOCK_RAW`, `IPPROTO_ICMP`), for `CAP_NET_RAW`.
    Raw,
}

/// An echo reply; its payload is in the caller's buffer.
///
/// ```
/// # ginnel_testkit::private();
/// use std::net::Ipv4Addr;
/// use std::time::Duration;
/// use ginnel::message::IcmpEcho;
///
/// let echo = match IcmpEcho::open(Ipv4Addr::LOCALHOST) {
///     Err(error) if error.is_permission_denied() => return Ok(()),
///     other => other?,
/// };
/// echo.send(7, b"hullo")?;
/// let reply = echo.recv_deadline(&mut [0; 64], Duration::from_secs(10))?;
/// assert_eq!((reply.sequence, reply.len, reply.sender), (7, 5, Ipv4Addr::LOCALHOST.into()));
/// assert_eq!(reply.ttl.is_some(), echo.is_raw());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoReply {
    /// The number that the request was sent with.
    pub sequence: u16,
    /// How many bytes of the buffer the payload fills.
    pub len: usize,
    /// Who replied.
    pub sender: IpAddr,
    /// How many more routers the reply could have passed; `None` where the kernel does not show it (ping sockets, IPv6).
    pub ttl: Option<u8>,
}

/// A socket that asks one host for echoes.
///
/// ```
/// # ginnel_testkit::private();
/// use std::net::Ipv4Addr;
/// use std::time::Duration;
/// use ginnel::message::IcmpEcho;
///
/// let echo = match IcmpEcho::open(Ipv4Addr::LOCALHOST) {
///     Err(error) if error.is_permission_denied() => return Ok(()), // its hint tells which right
///     other => other?,
/// };
/// echo.send(1, b"is anybody there?")?;
/// let mut buffer = [0; 64];
/// let reply = echo.recv_deadline(&mut buffer, Duration::from_secs(10))?;
/// assert_eq!((reply.sequence, &buffer[..reply.len]), (1, &b"is anybody there?"[..]));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct IcmpEcho {
    fd: OwnedFd,
    object: Label,
    host: IpAddr,
    identifier: u16,
    is_raw: bool,
}

/// How to open an [`IcmpEcho`]: see [`IcmpEcho::options`].
///
/// ```no_run
/// use ginnel::message::icmp::{EchoSocket, IcmpEcho};
///
/// let echo = IcmpEcho::options().socket(EchoSocket::Raw).identifier(7).open([127, 0, 0, 1])?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IcmpEchoOptions {
    socket: EchoSocket,
    identifier: Option<u16>,
}

impl IcmpEchoOptions {
    /// Which kind of socket; either unless said.
    pub fn socket(mut self, socket: EchoSocket) -> Self {
        self.socket = socket;
        self
    }

    /// The identifier of the requests; unless said, random for a raw socket and the kernel's choice for a ping socket. So is
    /// 0 for a ping socket.
    pub fn identifier(mut self, identifier: u16) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// Opens a socket that asks `host`.
    ///
    /// # Errors
    /// `EACCES`: a ping socket, and no group of this user is in `net.ipv4.ping_group_range`. `EPERM`: a raw socket, and no
    /// `CAP_NET_RAW`. `ENETUNREACH`, `EHOSTUNREACH`: no way to the host. `EADDRINUSE`: another ping socket has the
    /// identifier. `EACCES` too for a broadcast address. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open(self, host: impl Into<IpAddr>) -> Result<IcmpEcho> {
        let host = host.into();
        let object = Label::new(format!("icmp:{host}"));
        let (fd, is_raw) = match self.socket {
            EchoSocket::Ping => (make(host, SocketType::DGRAM, &object)?, false),
            EchoSocket::Raw => (make(host, SocketType::RAW, &object)?, true),
            EchoSocket::Either => match make(host, SocketType::DGRAM, &object) {
                Ok(fd) => (fd, false),
                Err(ping) if ping.is_permission_denied() => (
                    make(host, SocketType::RAW, &object).map_err(|raw| {
                        raw.with_hint(
                            "either CAP_NET_RAW, or a group in net.ipv4.ping_group_range, is needed",
                        )
                    })?,
                    true,
                ),
                Err(error) => return Err(error),
            },
        };
        let fail = |operation, errno| Error::new(operation, errno, &object);
        if let (Some(identifier), false) = (self.identifier, is_raw) {
            // A ping socket's port is its identifier. The kernel makes ping sockets with SO_REUSEADDR on, and two of them
            // with one identifier would take each other's replies.
            rustix::net::sockopt::set_socket_reuseaddr(&fd, false)
                .map_err(|errno| fail("setsockopt", errno))?;
            let any = if host.is_ipv6() { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0, 0, 0, 0]) };
            rustix::net::bind(&fd, &SocketAddr::new(any, identifier)).map_err(|errno| fail("bind", errno))?;
        }
        rustix::net::connect(&fd, &SocketAddr::new(host, 0)).map_err(|errno| fail("connect", errno))?;
        let identifier = match self.identifier {
            Some(identifier) if is_raw => identifier,
            None if is_raw => RandomState::new().hash_one(std::process::id()) as u16,
            // The one asked for; for 0, which the kernel takes for no wish, the one it chose.
            _ => {
                let bound = rustix::net::getsockname(&fd).and_then(SocketAddr::try_from);
                bound.map_err(|errno| fail("getsockname", errno))?.port()
            }
        };
        Ok(IcmpEcho { fd, object, host, identifier, is_raw })
    }
}

impl IcmpEcho {
    /// Opens with every choice spelled out.
    pub fn options() -> IcmpEchoOptions {
        IcmpEchoOptions::default()
    }

    /// Opens a socket that asks `host`: a ping socket if this user may have one, a raw socket if not.
    ///
    /// # Errors
    /// See [`IcmpEchoOptions::open`].
    pub fn open(host: impl Into<IpAddr>) -> Result<IcmpEcho> {
        IcmpEcho::options().open(host)
    }

    /// The identifier that its requests, and the replies to them, carry.
    pub fn identifier(&self) -> u16 {
        self.identifier
    }

    /// Whether it is a raw socket.
    pub fn is_raw(&self) -> bool {
        self.is_raw
    }

    /// Sends an echo request; waits while the send buffer is full.
    ///
    /// # Errors
    /// `EMSGSIZE`: longer than a packet can be. `EHOSTUNREACH`, `ENETUNREACH`, `ECONNREFUSED`: what the network said of an
    /// earlier request. `ENOBUFS`. `EPERM`: a firewall. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until the network device has taken enough of what was sent before. `send(2)`.
    pub fn send(&self, sequence: u16, payload: &[u8]) -> Result<()> {
        self.send_deadline(sequence, payload, Deadline::NEVER)
    }

    /// Sends an echo request if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`IcmpEcho::send`].
    pub fn try_send(&self, sequence: u16, payload: &[u8]) -> Result<()> {
        self.send_deadline(sequence, payload, Deadline::NOW)
    }

    /// Sends an echo request; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`IcmpEcho::send`].
    pub fn send_deadline(&self, sequence: u16, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        let request = self.request(sequence, payload);
        packet::send(self.fd.as_fd(), &request, deadline.into(), &self.object)
    }

    /// Receives the reply to one of this socket's requests; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: its payload was longer than `buffer`, and is lost. `EHOSTUNREACH`, `ENETUNREACH`: what the network said
    /// of a request. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a reply comes, which may be never: use a deadline.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<EchoReply> {
        self.recv_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a reply if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`IcmpEcho::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<EchoReply> {
        self.recv_deadline(buffer, Deadline::NOW)
    }

    /// Receives a reply; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`IcmpEcho::recv`].
    pub fn recv_deadline(&self, buffer: &mut [u8], deadline: impl Into<Deadline>) -> Result<EchoReply> {
        let deadline = deadline.into();
        let mut bytes = vec![0; buffer.len() + HEADER_BYTES + IPV4_HEADER_BYTES_MAX];
        let mut passed_over = false;
        loop {
            // What is not for us must not keep us past the deadline, however much of it there is.
            if passed_over && deadline.has_passed() {
                return Err(Error::new("recvfrom", deadline.errno(), &self.object));
            }
            passed_over = !deadline.is_now();
            let got = packet::recv(self.fd.as_fd(), &mut bytes, RecvFlags::empty(), deadline, &self.object)?;
            let Some((ttl, message)) = self.without_ip_header(&bytes[..got.len]) else { continue };
            let Some((sequence, payload)) = self.parse(message, got.is_truncated()) else { continue };
            let full_len = payload.len() + (got.full_len - got.len);
            if full_len > buffer.len() {
                return Err(Error::new("recvfrom", Errno::MSGSIZE, &self.object)
                    .with_hint(format!("the reply had {full_len} bytes and the buffer {}", buffer.len())));
            }
            buffer[..payload.len()].copy_from_slice(payload);
            return Ok(EchoReply { sequence, len: payload.len(), sender: self.host, ttl });
        }
    }

    fn request(&self, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let kind = if self.host.is_ipv6() { 128 } else { 8 };
        let mut request = vec![kind, 0, 0, 0];
        request.extend(self.identifier.to_be_bytes());
        request.extend(sequence.to_be_bytes());
        request.extend(payload);
        // Over IPv6 the checksum covers addresses that the kernel chooses: it fills it in, as on any ping socket.
        if self.is_raw && !self.host.is_ipv6() {
            let sum = checksum(&request);
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        request
    }

    /// The ICMP message, and the TTL where the kernel shows the IP header.
    fn without_ip_header<'a>(&self, packet: &'a [u8]) -> Option<(Option<u8>, &'a [u8])> {
        if !self.is_raw || self.host.is_ipv6() {
            return Some((None, packet));
        }
        let header_bytes = usize::from(packet.first()? & 0xf) * 4;
        Some((Some(*packet.get(8)?), packet.get(header_bytes..)?))
    }

    /// Sequence and payload, if it is the reply to a request of this socket.
    fn parse<'a>(&self, message: &'a [u8], is_truncated: bool) -> Option<(u16, &'a [u8])> {
        let (header, payload) = message.split_first_chunk::<HEADER_BYTES>()?;
        let [kind, code, _, _, id_high, id_low, sequence_high, sequence_low] = *header;
        let is_reply = (kind, code) == if self.host.is_ipv6() { (129, 0) } else { (0, 0) };
        let is_ours = u16::from_be_bytes([id_high, id_low]) == self.identifier;
        // The kernel has checked it for a ping socket and over IPv6.
        let is_whole = is_truncated || !self.is_raw || self.host.is_ipv6() || checksum(message) == 0;
        (is_reply && is_ours && is_whole)
            .then(|| (u16::from_be_bytes([sequence_high, sequence_low]), payload))
    }
}

impl AsFd for IcmpEcho {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn make(host: IpAddr, kind: SocketType, object: &Label) -> Result<OwnedFd> {
    let (family, protocol) = if host.is_ipv6() {
        (AddressFamily::INET6, ipproto::ICMPV6)
    } else {
        (AddressFamily::INET, ipproto::ICMP)
    };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)).map_err(|errno| {
        let error = Error::new("socket", errno, object);
        match errno {
            Errno::PERM => error.with_hint(
                "a raw socket needs CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep` the program",
            ),
            Errno::ACCESS => error.with_hint(
                "no group of this user is in net.ipv4.ping_group_range; widen it with \
                 `sysctl -w net.ipv4.ping_group_range='0 2147483647'` (needs root), or use a raw socket",
            ),
            _ => error,
        }
    })
}

/// The Internet checksum of RFC 1071; 0 for bytes that hold their own right checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
        assert_eq!(checksum(&[]), 0xffff);
    }
}
