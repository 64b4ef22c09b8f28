//! What the sockets with connections (Unix stream and seqpacket, TCP) have in common: making, accepting, connecting.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};

use super::io::{clear_nonblock, set_nonblock};
use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt};

/// A listener's socket: never shared before it is made, so its `O_NONBLOCK` is ours, and an `accept` after a `poll`
/// that another process was faster at does not wait.
pub(super) fn for_listening(family: AddressFamily, object: &Label) -> Result<OwnedFd> {
    make(family, SocketFlags::NONBLOCK, object)
}

/// A socket to connect with, which blocks as everybody expects.
pub(super) fn for_connecting(family: AddressFamily, object: &Label) -> Result<OwnedFd> {
    make(family, SocketFlags::empty(), object)
}

fn make(family: AddressFamily, flags: SocketFlags, object: &Label) -> Result<OwnedFd> {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
        .map_err(|errno| Error::new("socket", errno, object))
}

/// The next connection, and who it is from.
pub(crate) fn accept(
    listener: impl AsFd,
    deadline: Deadline,
    object: &Label,
) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    wait::until_ready(&listener, PollFlags::IN, deadline, "accept", object, |attempt| {
        if attempt == Attempt::NonBlocking {
            // A listener that somebody else made may block: not before something is there.
            wait::ready(listener.as_fd(), PollFlags::IN, Deadline::NOW, "accept", object)
                .map_err(|error| error.raw())?;
        }
        rustix::net::acceptfrom_with(&listener, SocketFlags::CLOEXEC)
    })
    .map_err(|error| match error.raw() {
        Errno::INVAL => error.with_hint("it does not listen (any more)"),
        Errno::MFILE => error.with_hint("this process has as many descriptors as `ulimit -n` allows"),
        _ => error,
    })
}

/// Connects a fresh socket.
///
/// The kernel's own time-out for a blocking connect is `SO_SNDTIMEO`: that waits where a non-blocking connect cannot,
/// on a Unix listener whose queue is full. It is set for this call only, on a socket that nobody else has yet.
pub(crate) fn connect(
    socket: &OwnedFd,
    address: &impl SocketAddrArg,
    deadline: Deadline,
    object: &Label,
) -> Result<()> {
    let fail = |errno| Error::new("connect", errno, object);
    let Some(left) = deadline.remaining() else {
        return rustix::net::connect(socket, address).map_err(fail);
    };
    if deadline.is_now() {
        set_nonblock(socket).map_err(fail)?;
        rustix::net::connect(socket, address).map_err(|errno| match errno {
            Errno::INPROGRESS => fail(Errno::AGAIN),
            errno => fail(errno),
        })?;
        return clear_nonblock(socket).map_err(fail);
    }
    // Zero would be for ever.
    let left = left.max(Duration::from_micros(1));
    sockopt::set_socket_timeout(socket, Timeout::Send, Some(left)).map_err(fail)?;
    let outcome = rustix::net::connect(socket, address).map_err(|errno| match errno {
        // A Unix socket's word, and a TCP socket's, for a time that is over.
        Errno::AGAIN | Errno::INPROGRESS => fail(deadline.errno()),
        errno => fail(errno),
    });
    sockopt::set_socket_timeout(socket, Timeout::Send, None).map_err(fail)?;
    outcome
}

pub(super) fn explain_connect(error: Error) -> Error {
    match error.raw() {
        Errno::CONNREFUSED => error.with_hint("nobody listens there; start the server first"),
        Errno::TIMEDOUT => error.with_hint("no answer; the server is not accepting, or a firewall drops it"),
        _ => error,
    }
}
