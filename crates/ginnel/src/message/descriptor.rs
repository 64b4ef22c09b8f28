//! Passing descriptors and credentials over any Unix socket: `SCM_RIGHTS`, `SCM_CREDENTIALS`, `SO_PASSCRED` of `unix(7)`.
//!
//! # What a user sees
//! A message with up to 253 descriptors, which are the receiver's own then, as if made by `dup(2)`: the same open file,
//! with its offset and flags, under other numbers. They are close-on-exec from birth. Credentials are vouched for by the
//! kernel: a process without privileges can send its own only.
//!
//! It works on what has a Unix socket's descriptor: [`UnixDatagram`](super::UnixDatagram),
//! [`UnixSeqpacket`](super::UnixSeqpacket), this library's and `std`'s Unix streams. On a stream one receive brings the
//! descriptors of one send: it can begin with bytes that were sent before theirs, and ends with theirs at the latest. As on
//! any stream, fewer bytes may be sent or received than were asked for.
//!
//! Nothing leaks: when a message is refused, because it was cut or this process may not have so many descriptors, those
//! that arrived are closed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::message::control::{self, Incoming};
use crate::unix_socket::Credentials;
use crate::wait;

pub use crate::message::control::DESCRIPTORS_MAX;

const SO_PASSPIDFD: i32 = 76;

/// A received message with what came along.
///
/// ```
/// use std::os::fd::AsFd;
/// use ginnel::message::{UnixSeqpacket, descriptor};
///
/// let (giver, taker) = UnixSeqpacket::pair()?;
/// descriptor::pass_credentials(&taker, true)?;
/// let file = std::fs::File::open("/etc/hostname").unwrap();
/// descriptor::send_with(&giver, b"read this", &[file.as_fd()])?;
///
/// let mut buffer = [0; 64];
/// let parcel = descriptor::recv_with(&taker, &mut buffer)?;
/// assert_eq!((parcel.len, parcel.descriptors.len()), (9, 1));
/// assert_eq!(parcel.credentials.unwrap().pid, std::process::id() as i32);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Parcel {
    /// How many bytes of the buffer it fills. 0 on a stream or seqpacket socket is its end, or an empty message.
    pub len: usize,
    /// The descriptors, in the order of sending, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Who sent it, if [`pass_credentials`] was on.
    pub credentials: Option<Credentials>,
    /// The sending process as a pidfd, if [`pass_process`] was on and it still runs.
    pub process: Option<OwnedFd>,
}

/// Sends bytes with descriptors, which stay open here too; waits while there is no room. Gives the number of bytes sent:
/// all of them, except on a stream.
///
/// # Errors
/// `EINVAL`: no byte, where a stream needs one to carry the descriptors. `ETOOMANYREFS`: this user has more than
/// `RLIMIT_NOFILE` descriptors on the way. `E2BIG` from this library: more than [`DESCRIPTORS_MAX`]. `EPIPE`,
/// `ECONNREFUSED`, `ECONNRESET`, `ENOTCONN`: the peer is gone, or there is none. `EMSGSIZE`: longer than the send buffer.
/// `EINTR`: a signal handler ran.
///
/// # Blocking
/// As a send of that socket without descriptors. `sendmsg(2)`.
pub fn send_with(socket: impl AsFd, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize> {
    send_with_deadline(socket, payload, descriptors, Deadline::NEVER)
}

/// Sends bytes with descriptors if there is room now.
///
/// # Errors
/// `EAGAIN`: there is none. Else as [`send_with`].
pub fn try_send_with(socket: impl AsFd, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize> {
    send_with_deadline(socket, payload, descriptors, Deadline::NOW)
}

/// Sends bytes with descriptors; waits until the deadline for room.
///
/// # Errors
/// `ETIMEDOUT`: the deadline passed; nothing was sent. Else as [`send_with`].
pub fn send_with_deadline(
    socket: impl AsFd,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
    deadline: impl Into<Deadline>,
) -> Result<usize> {
    send(socket.as_fd(), payload, descriptors, None, deadline.into())
}

/// Sends bytes and these credentials, which a receiver with [`pass_credentials`] gets instead of the kernel's own word.
///
/// # Errors
/// `EPERM`: they are not this process's own, and it lacks `CAP_SYS_ADMIN` (for the process), `CAP_SETUID` or
/// `CAP_SETGID`. `ESRCH`: no such process. Else as [`send_with`].
pub fn send_credentials(
    socket: impl AsFd,
    payload: &[u8],
    credentials: Credentials,
    deadline: impl Into<Deadline>,
) -> Result<usize> {
    send(socket.as_fd(), payload, &[], Some(credentials), deadline.into())
}

/// Receives bytes with what comes along; waits until something is there.
///
/// # Errors
/// `EMSGSIZE`: the message was longer than `buffer`. `EMFILE`: this process may not have so many descriptors. In both
/// cases the message is lost and the descriptors that came with it are closed. `ECONNRESET`: the peer closed with
/// something unread. `ENOTCONN`. `EINTR`: a signal handler ran.
///
/// # Blocking
/// As a receive of that socket. `recvmsg(2)`.
pub fn recv_with(socket: impl AsFd, buffer: &mut [u8]) -> Result<Parcel> {
    recv_with_deadline(socket, buffer, Deadline::NEVER)
}

/// Receives bytes with what comes along, if something is there now.
///
/// # Errors
/// `EAGAIN`: nothing is. Else as [`recv_with`].
pub fn try_recv_with(socket: impl AsFd, buffer: &mut [u8]) -> Result<Parcel> {
    recv_with_deadline(socket, buffer, Deadline::NOW)
}

/// Receives bytes with what comes along; waits until the deadline.
///
/// # Errors
/// `ETIMEDOUT`: the deadline passed. Else as [`recv_with`].
pub fn recv_with_deadline(
    socket: impl AsFd,
    buffer: &mut [u8],
    deadline: impl Into<Deadline>,
) -> Result<Parcel> {
    let object = object();
    let got = wait::until_ready(&socket, PollFlags::IN, deadline.into(), "recvmsg", &object, |attempt| {
        control::receive(socket.as_fd(), buffer, 0, attempt)
    })?;
    check_whole(&got, buffer.len(), &object)?;
    Ok(Parcel {
        len: got.len,
        descriptors: got.descriptors,
        credentials: got.credentials,
        process: got.process,
    })
}

/// Has every message that this socket receives tell who sent it (`SO_PASSCRED`).
///
/// Turned on before the first message is received: messages sent before tell too.
///
/// # Errors
/// `EOPNOTSUPP`: not a Unix socket. `ENOTSOCK`.
pub fn pass_credentials(socket: impl AsFd, on: bool) -> Result<()> {
    rustix::net::sockopt::set_socket_passcred(socket, on)
        .map_err(|errno| Error::new("setsockopt", errno, &object()))
}

/// Has every message that this socket receives bring its sender as a pidfd (`SO_PASSPIDFD`, since Linux 6.5).
///
/// # Errors
/// `ENOPROTOOPT`: a kernel before 6.5. `EOPNOTSUPP`: not a Unix socket. `ENOTSOCK`.
pub fn pass_process(socket: impl AsFd, on: bool) -> Result<()> {
    control::set_option(socket.as_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, i32::from(on)).map_err(|errno| {
        let error = Error::new("setsockopt", errno, &object());
        if errno == Errno::NOPROTOOPT { error.with_hint("SO_PASSPIDFD needs Linux 6.5") } else { error }
    })
}

fn send(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
    credentials: Option<Credentials>,
    deadline: Deadline,
) -> Result<usize> {
    let object = object();
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(Error::new("sendmsg", Errno::TOOBIG, &object).with_hint(format!(
            "one message carries up to {DESCRIPTORS_MAX} descriptors; send {} in several",
            descriptors.len()
        )));
    }
    if payload.is_empty() && rustix::net::sockopt::socket_type(socket) == Ok(rustix::net::SocketType::STREAM)
    {
        // The kernel would send nothing, drop the descriptors and call it a success.
        return Err(Error::invalid("sendmsg", &object, "a stream carries descriptors with a byte; send one"));
    }
    wait::until_ready(socket, PollFlags::OUT, deadline, "sendmsg", &object, |attempt| {
        control::transmit(socket, payload, descriptors, credentials, attempt)
    })
    .map_err(|error| match error.raw() {
        Errno::TOOMANYREFS => error.with_hint(
            "as many descriptors of this user are on the way, sent and not received, as one process may have",
        ),
        Errno::PERM if credentials.is_some() => {
            error.with_hint("only a privileged process may claim to be another")
        }
        _ => error,
    })
}

/// That nothing of the message is missing. What came is closed with `got` if something is.
fn check_whole(got: &Incoming, buffer_bytes: usize, object: &Label) -> Result<()> {
    if got.payload_cut {
        return Err(Error::new("recvmsg", Errno::MSGSIZE, object).with_hint(format!(
            "the message was longer than the buffer of {buffer_bytes} bytes; it is lost, and {} descriptors that came \
             with it were closed",
            got.descriptors.len()
        )));
    }
    if got.control_cut {
        return Err(Error::new("recvmsg", Errno::MFILE, object).with_hint(format!(
            "not all descriptors could be received: this process has as many as it may (RLIMIT_NOFILE), or a \
             security module forbade one; the {} that came were closed",
            got.descriptors.len()
        )));
    }
    Ok(())
}

fn object() -> Label {
    Label::from("unix socket")
}
