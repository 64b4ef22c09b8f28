//! Raw socket: any protocol on top of IP, without UDP or TCP (`raw(7)`, `packet` excluded).
//!
//! # What a user sees
//! What is sent gets an IP header from the kernel, unless [`RawSocketOptions::header_included`]. What is received begins
//! with the IP header over IPv4, and without it over IPv6: so the kernel does it. A raw socket gets a copy of every packet
//! of its protocol that comes to this host, in this network namespace, its own on the loopback interface too.
//!
//! It needs `CAP_NET_RAW`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::message::control;
use crate::message::packet::{self, Datagram};

/// A raw IP socket.
///
/// ```
/// # ginnel_testkit::private();
/// use std::net::Ipv4Addr;
/// use ginnel::message::RawSocket;
///
/// const EXPERIMENT: u8 = 253;
/// let socket = match RawSocket::open_v4(EXPERIMENT) {
///     Err(error) if error.is_permission_denied() => return Ok(()), // needs CAP_NET_RAW
///     other => other?,
/// };
/// socket.send_to(b"bare", Ipv4Addr::LOCALHOST.into())?;
/// let mut packet = [0; 1500];
/// let got = socket.recv_from(&mut packet)?;
/// assert_eq!(&packet[20..got.len], b"bare", "after the IPv4 header");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
    object: Label,
}

/// How to open a [`RawSocket`]: see [`RawSocket::options`].
///
/// ```no_run
/// use ginnel::message::RawSocket;
///
/// let socket = RawSocket::options().header_included(true).open_v4(253)?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RawSocketOptions {
    header_included: bool,
}

impl RawSocketOptions {
    /// What is sent begins with an IPv4 header of the sender's making (`IP_HDRINCL`); IPv4 only.
    pub fn header_included(mut self, header_included: bool) -> Self {
        self.header_included = header_included;
        self
    }

    /// Opens an IPv4 socket of this protocol (`/etc/protocols`; 255 only sends, and means `header_included`).
    ///
    /// # Errors
    /// `EPERM`: no `CAP_NET_RAW`. `EINVAL`: protocol 0. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open_v4(self, protocol: u8) -> Result<RawSocket> {
        let socket = RawSocket::make(AddressFamily::INET, protocol)?;
        if self.header_included {
            control::set_option(socket.fd.as_fd(), libc::IPPROTO_IP, libc::IP_HDRINCL, 1)
                .map_err(|errno| Error::new("setsockopt", errno, &socket.object))?;
        }
        Ok(socket)
    }
}

impl RawSocket {
    /// Opens with every choice spelled out.
    pub fn options() -> RawSocketOptions {
        RawSocketOptions::default()
    }

    /// Opens an IPv4 socket of this protocol.
    ///
    /// # Errors
    /// See [`RawSocketOptions::open_v4`].
    pub fn open_v4(protocol: u8) -> Result<RawSocket> {
        RawSocket::options().open_v4(protocol)
    }

    /// Opens an IPv6 socket of this protocol.
    ///
    /// # Errors
    /// See [`RawSocketOptions::open_v4`].
    pub fn open_v6(protocol: u8) -> Result<RawSocket> {
        RawSocket::make(AddressFamily::INET6, protocol)
    }

    fn make(family: AddressFamily, protocol: u8) -> Result<RawSocket> {
        let object = Label::new(format!("raw socket of protocol {protocol}"));
        let Some(number) = NonZero::new(u32::from(protocol)) else {
            return Err(Error::invalid("socket", &object, "a raw socket's protocol is 1 to 255"));
        };
        let protocol = Some(Protocol::from_raw(number));
        let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| explain_right(Error::new("socket", errno, &object)))?;
        Ok(RawSocket { fd, object })
    }

    /// Has the socket receive from `address` only, and hear what the network says of it (`connect(2)`).
    ///
    /// # Errors
    /// `ENETUNREACH`, `EHOSTUNREACH`: no way there. `EAFNOSUPPORT`: an address of the other family.
    pub fn connect_to(&self, address: IpAddr) -> Result<()> {
        rustix::net::connect(&self.fd, &SocketAddr::new(address, 0))
            .map_err(|errno| Error::new("connect", errno, &self.object))
    }

    /// Sends a packet; waits while the send buffer is full.
    ///
    /// # Errors
    /// `EMSGSIZE`: longer than a packet can be. `EINVAL`: an included header that is none. `EACCES`: a broadcast address.
    /// `EAFNOSUPPORT`: an address of the other family. `ENETUNREACH`, `EHOSTUNREACH`, `EPERM` (a firewall), `ENOBUFS`.
    /// `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until the network device has taken enough of what was sent before. `sendto(2)`.
    pub fn send_to(&self, payload: &[u8], address: IpAddr) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NEVER)
    }

    /// Sends a packet if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`RawSocket::send_to`].
    pub fn try_send_to(&self, payload: &[u8], address: IpAddr) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NOW)
    }

    /// Sends a packet; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`RawSocket::send_to`].
    pub fn send_to_deadline(
        &self,
        payload: &[u8],
        address: IpAddr,
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let address = SocketAddr::new(address, 0);
        packet::send_to(self.fd.as_fd(), payload, &address, deadline.into(), &self.object)
    }

    /// Receives a packet, over IPv4 with its header, and tells who sent it; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: it was longer than `buffer`, and its rest is lost. After [`connect_to`](RawSocket::connect_to), what the
    /// network said of what was sent: `ECONNREFUSED`, `EHOSTUNREACH`, `ENOPROTOOPT`. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a packet of this protocol comes. `recvfrom(2)`.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<IpAddr>> {
        self.recv_from_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a packet if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`RawSocket::recv_from`].
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<IpAddr>> {
        self.recv_from_deadline(buffer, Deadline::NOW)
    }

    /// Receives a packet; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`RawSocket::recv_from`].
    pub fn recv_from_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<IpAddr>> {
        let deadline = deadline.into();
        let got = packet::recv(self.fd.as_fd(), buffer, RecvFlags::empty(), deadline, &self.object)?;
        let got = got.whole(&self.object)?;
        let sender = got.sender.as_ref().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |raw| {
            SocketAddr::try_from(raw.clone())
                .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |address| address.ip())
        });
        Ok(got.map(|_| sender))
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn explain_right(error: Error) -> Error {
    match error.raw() {
        Errno::PERM | Errno::ACCESS => error
            .with_hint("a raw socket needs CAP_NET_RAW: run as root, or `setcap cap_net_raw+ep` the program"),
        _ => error,
    }
}
