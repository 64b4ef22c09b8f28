//! UDP: whole messages over IP, to one receiver, to many (multicast) or to all (broadcast) (`udp(7)`, `ip(7)`, `ipv6(7)`).
//!
//! # What a user sees
//! A datagram arrives whole or not at all. On one host it is lost only when the receiver's buffer is full, and then
//! silently: nothing here can tell. Whoever sends to a port where nobody is gets `ECONNREFUSED` on the *next* call of a
//! connected socket; an unconnected one is not told.
//!
//! A datagram longer than the buffer is cut by the kernel. The `recv` forms make an error of that, with both lengths;
//! [`UdpSocket::recv_truncated`] gives what there is, and [`UdpSocket::recv_vec`] finds the size by itself.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, sockopt};

use crate::error::{Error, Label, Result};
use crate::message::packet::{self, BufferSizes, Datagram};
use crate::{Deadline, resolve};

/// A UDP socket.
///
/// ```
/// use ginnel::message::UdpSocket;
///
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let client = UdpSocket::connect(server.local_address()?)?;
/// client.send(b"ping")?;
///
/// let mut buffer = [0; 1500];
/// let got = server.recv_from(&mut buffer)?;
/// assert_eq!(&buffer[..got.len], b"ping");
/// server.send_to(b"pong", got.sender)?;
/// assert_eq!(client.recv_vec()?, b"pong");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    object: Label,
    is_v6: bool,
}

/// How to bind a [`UdpSocket`]: see [`UdpSocket::options`].
///
/// ```
/// use ginnel::message::UdpSocket;
///
/// let first = UdpSocket::options().reuse_port(true).bind("127.0.0.1:0")?;
/// let second = UdpSocket::options().reuse_port(true).bind(first.local_address()?)?;
/// assert_eq!(first.local_address()?, second.local_address()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpSocketOptions {
    reuse_address: bool,
    reuse_port: bool,
    only_v6: bool,
}

impl UdpSocketOptions {
    /// Let several sockets bind the same address (`SO_REUSEADDR`): each gets every multicast and broadcast, and the one
    /// bound last everything else.
    pub fn reuse_address(mut self, reuse_address: bool) -> Self {
        self.reuse_address = reuse_address;
        self
    }

    /// Let several sockets of one user bind the same address, and share what comes (`SO_REUSEPORT`).
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// On `[::]`, do not receive IPv4 as well (`IPV6_V6ONLY`).
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = only_v6;
        self
    }

    /// Makes a socket bound to `address`: the first that works, where a name has several. Port 0 is any that is free.
    ///
    /// # Errors
    /// `EADDRINUSE`: the port is taken. `EADDRNOTAVAIL`: not an address of this host. `EACCES`: a port below
    /// `net.ipv4.ip_unprivileged_port_start`. `EINVAL`: not an address. `EIO`: the name does not resolve; the hint tells.
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn bind(self, address: impl ToSocketAddrs + Debug) -> Result<UdpSocket> {
        resolve::each("udp", address, |address| {
            let object = label(address);
            let socket = UdpSocket::make(address, object)?;
            let fail = |errno| Error::new("setsockopt", errno, &socket.object);
            if self.reuse_address {
                sockopt::set_socket_reuseaddr(&socket.fd, true).map_err(fail)?;
            }
            if self.reuse_port {
                sockopt::set_socket_reuseport(&socket.fd, true).map_err(fail)?;
            }
            if socket.is_v6 {
                sockopt::set_ipv6_v6only(&socket.fd, self.only_v6).map_err(fail)?;
            }
            rustix::net::bind(&socket.fd, &address)
                .map_err(|errno| explain_bind(Error::new("bind", errno, &socket.object)))?;
            Ok(socket)
        })
    }
}

impl UdpSocket {
    /// Binds with every choice spelled out.
    pub fn options() -> UdpSocketOptions {
        UdpSocketOptions::default()
    }

    /// Makes a socket bound to `address` (`"0.0.0.0:7000"`, `"[::]:7000"`, `("localhost", 0)`).
    ///
    /// # Errors
    /// See [`UdpSocketOptions::bind`].
    pub fn bind(address: impl ToSocketAddrs + Debug) -> Result<UdpSocket> {
        UdpSocket::options().bind(address)
    }

    /// Makes a socket that sends to `address` and receives from it only; its own port is one that is free.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EHOSTUNREACH`: no way there. `EACCES`: a broadcast address. `EINVAL`: not an address. `EIO`: the
    /// name does not resolve; the hint tells. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn connect(address: impl ToSocketAddrs + Debug) -> Result<UdpSocket> {
        resolve::each("udp", address, |address| {
            let socket = UdpSocket::make(address, label(address))?;
            socket.connect_to(address)?;
            Ok(socket)
        })
    }

    /// A socket that came as a descriptor: inherited, or passed over a Unix socket.
    ///
    /// # Errors
    /// `EPROTOTYPE`: the descriptor is not an IP datagram socket. `ENOTSOCK`.
    pub fn from_fd(fd: OwnedFd) -> Result<UdpSocket> {
        let object = Label::from("udp");
        let fail = |errno| Error::new("getsockopt", errno, &object);
        let domain = sockopt::socket_domain(&fd).map_err(fail)?;
        let is_udp = sockopt::socket_type(&fd).map_err(fail)? == SocketType::DGRAM
            && sockopt::socket_protocol(&fd).map_err(fail)? == Some(rustix::net::ipproto::UDP);
        if !is_udp || !matches!(domain, AddressFamily::INET | AddressFamily::INET6) {
            return Err(fail(Errno::PROTOTYPE).with_hint("the descriptor is not a UDP socket"));
        }
        Ok(UdpSocket { fd, object, is_v6: domain == AddressFamily::INET6 })
    }

    fn make(address: SocketAddr, object: Label) -> Result<UdpSocket> {
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::new("socket", errno, &object))?;
        Ok(UdpSocket { fd, object, is_v6: address.is_ipv6() })
    }

    /// Sets where [`send`](UdpSocket::send) sends to, and receives from nobody else from now on. May be done again.
    ///
    /// # Errors
    /// As [`UdpSocket::connect`]; `EAFNOSUPPORT`: an IPv6 address for an IPv4 socket.
    pub fn connect_to(&self, address: SocketAddr) -> Result<()> {
        rustix::net::connect(&self.fd, &self.mapped(address))
            .map_err(|errno| explain_send(Error::new("connect", errno, &self.object)))
    }

    /// Where this socket is bound.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn local_address(&self) -> Result<SocketAddr> {
        let fail = |errno| Error::new("getsockname", errno, &self.object);
        SocketAddr::try_from(rustix::net::getsockname(&self.fd).map_err(fail)?).map_err(fail)
    }

    /// To what this socket is connected.
    ///
    /// # Errors
    /// `ENOTCONN`: it is not.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        let fail = |errno| Error::new("getpeername", errno, &self.object);
        let raw = rustix::net::getpeername(&self.fd).map_err(fail)?.ok_or_else(|| fail(Errno::NOTCONN))?;
        SocketAddr::try_from(raw).map_err(fail)
    }

    /// Sends a datagram to the peer; waits while the send buffer is full. Datagrams can be empty.
    ///
    /// # Errors
    /// `EDESTADDRREQ`: not connected. `ECONNREFUSED`: an earlier datagram came to a port where nobody is; this one was not
    /// sent. `EMSGSIZE`: longer than a datagram can be. `ENETUNREACH`, `EHOSTUNREACH`, `EPERM` (a firewall), `ENOBUFS`.
    /// `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until the network device has taken enough of what was sent before. `send(2)`.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NEVER)
    }

    /// Sends a datagram to the peer if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UdpSocket::send`].
    pub fn try_send(&self, payload: &[u8]) -> Result<()> {
        self.send_deadline(payload, Deadline::NOW)
    }

    /// Sends a datagram to the peer; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`UdpSocket::send`].
    pub fn send_deadline(&self, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        packet::send(self.fd.as_fd(), payload, deadline.into(), &self.object).map_err(explain_send)
    }

    /// Sends a datagram to `address`; waits while the send buffer is full.
    ///
    /// # Errors
    /// `EACCES`: a broadcast address, without [`set_broadcast`](UdpSocket::set_broadcast). `EAFNOSUPPORT`: an IPv6 address
    /// for an IPv4 socket. `EINVAL`: port 0. Else as [`UdpSocket::send`].
    ///
    /// # Blocking
    /// As [`UdpSocket::send`].
    pub fn send_to(&self, payload: &[u8], address: SocketAddr) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NEVER)
    }

    /// Sends a datagram to `address` if there is room now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UdpSocket::send_to`].
    pub fn try_send_to(&self, payload: &[u8], address: SocketAddr) -> Result<()> {
        self.send_to_deadline(payload, address, Deadline::NOW)
    }

    /// Sends a datagram to `address`; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`UdpSocket::send_to`].
    pub fn send_to_deadline(
        &self,
        payload: &[u8],
        address: SocketAddr,
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let address = self.mapped(address);
        packet::send_to(self.fd.as_fd(), payload, &address, deadline.into(), &self.object)
            .map_err(explain_send)
    }

    /// Receives a datagram into `buffer` and gives its length; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: it was longer than `buffer`, and its rest is lost. `ECONNREFUSED`: on a connected socket, what was sent
    /// came to a port where nobody is. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a datagram comes. It may have been lost: use a deadline. `recvfrom(2)`.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a datagram if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UdpSocket::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_deadline(buffer, Deadline::NOW)
    }

    /// Receives a datagram; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UdpSocket::recv`].
    pub fn recv_deadline(&self, buffer: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        self.recv_from_deadline(buffer, deadline).map(|got| got.len)
    }

    /// Receives a datagram and tells who sent it; waits until there is one.
    ///
    /// # Errors
    /// As [`UdpSocket::recv`].
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<SocketAddr>> {
        self.recv_from_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a datagram and tells who sent it, if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UdpSocket::recv`].
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<SocketAddr>> {
        self.recv_from_deadline(buffer, Deadline::NOW)
    }

    /// Receives a datagram and tells who sent it; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_deadline`].
    pub fn recv_from_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<SocketAddr>> {
        self.recv_truncated(buffer, deadline)?.whole(&self.object)
    }

    /// Receives as much of a datagram as the buffer holds; [`Datagram::full_len`] tells what it had, the rest is lost.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_deadline`], without `EMSGSIZE`.
    pub fn recv_truncated(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<SocketAddr>> {
        self.recv_flags(buffer, RecvFlags::empty(), deadline.into())
    }

    /// Looks at the next datagram and leaves it where it is (`MSG_PEEK`); waits until there is one.
    ///
    /// # Errors
    /// As [`UdpSocket::recv`], without `EMSGSIZE`.
    ///
    /// # Blocking
    /// As [`UdpSocket::recv`].
    pub fn peek(&self, buffer: &mut [u8]) -> Result<Datagram<SocketAddr>> {
        self.peek_deadline(buffer, Deadline::NEVER)
    }

    /// Looks at the next datagram and leaves it where it is, if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`UdpSocket::peek`].
    pub fn try_peek(&self, buffer: &mut [u8]) -> Result<Datagram<SocketAddr>> {
        self.peek_deadline(buffer, Deadline::NOW)
    }

    /// Looks at the next datagram and leaves it where it is; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`UdpSocket::peek`].
    pub fn peek_deadline(
        &self,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Datagram<SocketAddr>> {
        self.recv_flags(buffer, RecvFlags::PEEK, deadline.into())
    }

    /// Receives a datagram of any length; waits until there is one.
    ///
    /// # Errors
    /// As [`UdpSocket::recv`], without `EMSGSIZE`.
    pub fn recv_vec(&self) -> Result<Vec<u8>> {
        self.recv_vec_deadline(Deadline::NEVER)
    }

    /// Receives a datagram of any length; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_deadline`], without `EMSGSIZE`.
    pub fn recv_vec_deadline(&self, deadline: impl Into<Deadline>) -> Result<Vec<u8>> {
        packet::recv_vec(self.fd.as_fd(), deadline.into(), &self.object).map(|(payload, _)| payload)
    }

    fn recv_flags(
        &self,
        buffer: &mut [u8],
        flags: RecvFlags,
        deadline: Deadline,
    ) -> Result<Datagram<SocketAddr>> {
        let got =
            packet::recv(self.fd.as_fd(), buffer, flags, deadline, &self.object).map_err(
                |error| match error.raw() {
                    Errno::CONNREFUSED => error.with_hint("nobody is at the port that was sent to"),
                    _ => error,
                },
            )?;
        let sender = got.sender.as_ref().map_or(Err(Errno::NOTCONN), ip_address);
        let sender = sender.map_err(|errno| Error::new("recvfrom", errno, &self.object))?;
        Ok(got.map(|_| sender))
    }

    /// An IPv4 address as an IPv6 socket takes it.
    fn mapped(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.is_v6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        }
    }
}

/// The socket's options.
impl UdpSocket {
    /// Allows sending to broadcast addresses (`SO_BROADCAST`).
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        self.set(sockopt::set_socket_broadcast(&self.fd, on))
    }

    /// Receives what is sent to the multicast group, on the interface of that index; 0 lets the kernel choose.
    ///
    /// # Errors
    /// `EINVAL`: not a multicast address, or not of the socket's family. `EADDRINUSE`: joined already. `ENODEV`: no such
    /// interface, or no route to tell which. `ENOBUFS`: `net.ipv4.igmp_max_memberships`.
    pub fn join(&self, group: IpAddr, interface: u32) -> Result<()> {
        self.set(match group {
            IpAddr::V4(group) => sockopt::set_ip_add_membership_with_ifindex(
                &self.fd,
                &group,
                &Ipv4Addr::UNSPECIFIED,
                interface,
            ),
            IpAddr::V6(group) => sockopt::set_ipv6_add_membership(&self.fd, &group, interface),
        })
        .map_err(|error| match error.raw() {
            Errno::NODEV => error
                .with_hint("no such interface, or no route for multicast; name an interface by its index"),
            Errno::INVAL => error.with_hint("not a multicast address (224.0.0.0/4, ff00::/8)"),
            _ => error,
        })
    }

    /// Leaves a multicast group that was joined with the same interface.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`: it was not joined.
    pub fn leave(&self, group: IpAddr, interface: u32) -> Result<()> {
        self.set(match group {
            IpAddr::V4(group) => sockopt::set_ip_drop_membership_with_ifindex(
                &self.fd,
                &group,
                &Ipv4Addr::UNSPECIFIED,
                interface,
            ),
            IpAddr::V6(group) => sockopt::set_ipv6_drop_membership(&self.fd, &group, interface),
        })
    }

    /// Sends multicasts through the interface of that index.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`, `ENODEV`: no such interface.
    pub fn set_multicast_interface(&self, interface: u32) -> Result<()> {
        self.set(if self.is_v6 {
            sockopt::set_ipv6_multicast_if(&self.fd, interface)
        } else {
            sockopt::set_ip_multicast_if_with_ifindex(
                &self.fd,
                &Ipv4Addr::UNSPECIFIED,
                &Ipv4Addr::UNSPECIFIED,
                interface,
            )
        })
    }

    /// Whether this host's members of a group get what this socket sends to it; yes unless said.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn set_multicast_loop(&self, on: bool) -> Result<()> {
        self.set(if self.is_v6 {
            sockopt::set_ipv6_multicast_loop(&self.fd, on)
        } else {
            sockopt::set_ip_multicast_loop(&self.fd, on)
        })
    }

    /// How many routers a datagram to one receiver passes (`IP_TTL`, `IPV6_UNICAST_HOPS`), 1 to 255.
    ///
    /// # Errors
    /// `EINVAL`: 0.
    pub fn set_ttl(&self, hops: u8) -> Result<()> {
        self.set(match (self.is_v6, hops) {
            // The kernel takes this one for "as the host has it".
            (true, 0) => Err(Errno::INVAL),
            (true, _) => sockopt::set_ipv6_unicast_hops(&self.fd, Some(hops)),
            (false, _) => sockopt::set_ip_ttl(&self.fd, hops.into()),
        })
    }

    /// How many routers a datagram to one receiver passes.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn ttl(&self) -> Result<u8> {
        let hops = if self.is_v6 {
            sockopt::ipv6_unicast_hops(&self.fd)
        } else {
            sockopt::ip_ttl(&self.fd).map(|hops| hops as u8)
        };
        hops.map_err(|errno| Error::new("getsockopt", errno, &self.object))
    }

    /// How many routers a multicast passes; 1, this network only, unless said. 0 is this host only.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn set_multicast_ttl(&self, hops: u8) -> Result<()> {
        self.set(if self.is_v6 {
            sockopt::set_ipv6_multicast_hops(&self.fd, hops.into())
        } else {
            sockopt::set_ip_multicast_ttl(&self.fd, hops.into())
        })
    }

    /// How much the socket buffers. What comes while the receive buffer is full is lost.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn buffer_sizes(&self) -> Result<BufferSizes> {
        packet::buffer_sizes(self.fd.as_fd(), &self.object)
    }

    /// Sets the buffers. The kernel doubles them, and silently caps them at `net.core.wmem_max`, `net.core.rmem_max`.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn set_buffer_sizes(&self, send_bytes: Option<usize>, recv_bytes: Option<usize>) -> Result<()> {
        packet::set_buffer_sizes(self.fd.as_fd(), send_bytes, recv_bytes, &self.object)
    }

    fn set(&self, outcome: Result<(), Errno>) -> Result<()> {
        outcome.map_err(|errno| Error::new("setsockopt", errno, &self.object))
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The sender's address; an IPv4 sender seen by an IPv6 socket in the IPv4 notation.
fn ip_address(raw: &SocketAddrAny) -> Result<SocketAddr, Errno> {
    let address = SocketAddr::try_from(raw.clone())?;
    let plain = match address.ip() {
        IpAddr::V6(ip) => Ipv6Addr::to_ipv4_mapped(&ip),
        IpAddr::V4(_) => None,
    };
    Ok(plain.map_or(address, |ip| SocketAddr::new(ip.into(), address.port())))
}

fn label(address: SocketAddr) -> Label {
    Label::new(format!("udp:{address}"))
}

fn explain_bind(error: Error) -> Error {
    match error.raw() {
        Errno::ADDRINUSE => error.with_hint("another socket has this port; see `ss -ulpn`"),
        Errno::ADDRNOTAVAIL => error.with_hint("no interface of this host has this address"),
        Errno::ACCESS => {
            error.with_hint("ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
        }
        _ => error,
    }
}

fn explain_send(error: Error) -> Error {
    match error.raw() {
        Errno::ACCESS => error.with_hint("a broadcast address; allow it with set_broadcast"),
        Errno::CONNREFUSED => {
            error.with_hint("nobody was at the port that was sent to before; this datagram was not sent")
        }
        Errno::DESTADDRREQ => error.with_hint("connect it first, or name the receiver with send_to"),
        _ => error,
    }
}
