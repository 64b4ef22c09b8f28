//! Async forms of the message family.

use std::net::{IpAddr, SocketAddr};

use ::tokio::io::Interest;
use rustix::io::Errno;

use super::{Async, Polled, register, retry, wait_with};
use crate::error::Result;
use crate::message::icmp::{EchoReply, IcmpEcho};
use crate::message::posix_queue::{self, PosixQueue};
use crate::message::sysv_queue::{self, Select, SysvQueue};
use crate::message::{Datagram, RawSocket, UdpSocket, UnixDatagram, UnixSeqpacket, UnixSeqpacketListener};
use crate::unix_socket::UnixAddress;

/// In a user-space home, waits in the reactor. A queue of the kernel's has no descriptor: by trying again, see [`Polled`].
impl Polled<SysvQueue> {
    /// [`SysvQueue::send`].
    ///
    /// # Errors
    /// As [`SysvQueue::send`].
    pub async fn send(&self, message_type: i64, payload: &[u8]) -> Result<()> {
        self.until_ready(Interest::WRITABLE, |queue| queue.try_send(message_type, payload)).await
    }

    /// [`SysvQueue::recv`].
    ///
    /// # Errors
    /// As [`SysvQueue::recv`].
    pub async fn recv(&self, select: Select, buffer: &mut [u8]) -> Result<sysv_queue::Received> {
        self.until_ready(Interest::READABLE, |queue| queue.try_recv(select, buffer)).await
    }

    /// Tries, and waits for the queue to have changed: whoever is refused while somebody polls is told.
    async fn until_ready<R>(
        &self,
        interest: Interest,
        mut attempt: impl FnMut(&SysvQueue) -> Result<R>,
    ) -> Result<R> {
        match attempt(&self.0) {
            Err(error) if error.is_would_block() => {}
            other => return other,
        }
        let descriptor = match self.0.descriptor() {
            Err(error) if error.raw() == Errno::NOTSUP => return retry(|| attempt(&self.0)).await,
            other => other?,
        };
        let reactor = register(descriptor)?;
        wait_with(&reactor, interest, || attempt(&self.0)).await
    }
}

/// Waits in the reactor. Dropping it ends this process's registration for the queue's notices, since it closes a
/// duplicate of the descriptor.
impl Async<PosixQueue> {
    /// [`PosixQueue::send`].
    ///
    /// # Errors
    /// As [`PosixQueue::send`].
    pub async fn send(&self, priority: u32, payload: &[u8]) -> Result<()> {
        self.write_with(|queue| queue.try_send(priority, payload)).await
    }

    /// [`PosixQueue::recv`].
    ///
    /// # Errors
    /// As [`PosixQueue::recv`].
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<posix_queue::Received> {
        self.read_with(|queue| queue.try_recv(buffer)).await
    }
}

/// Waits in the reactor, but for [`send_to`](Async::send_to).
impl Async<UnixDatagram> {
    /// [`UnixDatagram::send`].
    ///
    /// # Errors
    /// As [`UnixDatagram::send`].
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.write_with(|socket| socket.try_send(payload)).await
    }

    /// [`UnixDatagram::send_to`]. While the receiver is full it tries again, as [`Polled`] does: its room cannot be
    /// polled for.
    ///
    /// # Errors
    /// As [`UnixDatagram::send_to`].
    pub async fn send_to(&self, payload: &[u8], address: impl Into<UnixAddress>) -> Result<()> {
        let address = address.into();
        retry(|| self.get_ref().try_send_to(payload, &address)).await
    }

    /// [`UnixDatagram::recv`].
    ///
    /// # Errors
    /// As [`UnixDatagram::recv`].
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.read_with(|socket| socket.try_recv(buffer)).await
    }

    /// [`UnixDatagram::recv_from`].
    ///
    /// # Errors
    /// As [`UnixDatagram::recv`].
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<UnixAddress>> {
        self.read_with(|socket| socket.try_recv_from(buffer)).await
    }
}

/// Waits in the reactor.
impl Async<UnixSeqpacketListener> {
    /// [`UnixSeqpacketListener::accept`].
    ///
    /// # Errors
    /// As [`UnixSeqpacketListener::accept`].
    pub async fn accept(&self) -> Result<Async<UnixSeqpacket>> {
        Async::new(self.read_with(UnixSeqpacketListener::try_accept).await?)
    }
}

/// Waits in the reactor, but for [`connect`](Async::connect).
impl Async<UnixSeqpacket> {
    /// [`UnixSeqpacket::connect`]. While the listener's queue is full it tries again, as [`Polled`] does: its room cannot
    /// be polled for.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::connect`].
    pub async fn connect(address: impl Into<UnixAddress>) -> Result<Async<UnixSeqpacket>> {
        let address = address.into();
        Async::new(retry(|| UnixSeqpacket::try_connect(&address)).await?)
    }

    /// [`UnixSeqpacket::send`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::send`].
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.write_with(|socket| socket.try_send(payload)).await
    }

    /// [`UnixSeqpacket::recv`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::recv`].
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        self.read_with(|socket| socket.try_recv(buffer)).await
    }
}

/// Waits in the reactor.
impl Async<UdpSocket> {
    /// [`UdpSocket::send`].
    ///
    /// # Errors
    /// As [`UdpSocket::send`].
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        self.write_with(|socket| socket.try_send(payload)).await
    }

    /// [`UdpSocket::send_to`].
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`].
    pub async fn send_to(&self, payload: &[u8], address: SocketAddr) -> Result<()> {
        self.write_with(|socket| socket.try_send_to(payload, address)).await
    }

    /// [`UdpSocket::recv`].
    ///
    /// # Errors
    /// As [`UdpSocket::recv`].
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.read_with(|socket| socket.try_recv(buffer)).await
    }

    /// [`UdpSocket::recv_from`].
    ///
    /// # Errors
    /// As [`UdpSocket::recv`].
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<SocketAddr>> {
        self.read_with(|socket| socket.try_recv_from(buffer)).await
    }
}

/// Waits in the reactor.
impl Async<RawSocket> {
    /// [`RawSocket::send_to`].
    ///
    /// # Errors
    /// As [`RawSocket::send_to`].
    pub async fn send_to(&self, payload: &[u8], address: IpAddr) -> Result<()> {
        self.write_with(|socket| socket.try_send_to(payload, address)).await
    }

    /// [`RawSocket::recv_from`].
    ///
    /// # Errors
    /// As [`RawSocket::recv_from`].
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<Datagram<IpAddr>> {
        self.read_with(|socket| socket.try_recv_from(buffer)).await
    }
}

/// Waits in the reactor.
impl Async<IcmpEcho> {
    /// [`IcmpEcho::send`].
    ///
    /// # Errors
    /// As [`IcmpEcho::send`].
    pub async fn send(&self, sequence: u16, payload: &[u8]) -> Result<()> {
        self.write_with(|echo| echo.try_send(sequence, payload)).await
    }

    /// [`IcmpEcho::recv`].
    ///
    /// # Errors
    /// As [`IcmpEcho::recv`].
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<EchoReply> {
        self.read_with(|echo| echo.try_recv(buffer)).await
    }
}
