//! Socket pair: two connected, unnamed Unix stream sockets. `socketpair(2)`.
//!
//! What a pipe is for one direction this is for both: each end reads and writes, and is a [`UnixStream`] with all that
//! has. It is for relatives: forked with the child, or handed to it as its standard input and output.

use std::os::fd::OwnedFd;

use rustix::net::SocketType;

use super::unix::UnixStream;
use crate::error::{Label, Result};
use crate::unix_socket;

/// Makes two connected sockets.
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut near, mut far) = ginnel::stream::socketpair()?;
/// near.write_all(b"ping")?;
/// let mut word = [0; 4];
/// far.read_exact(&mut word)?;
/// far.write_all(b"pong")?;
/// near.read_exact(&mut word)?;
/// assert_eq!(&word, b"pong");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `EMFILE`, `ENFILE`: no more descriptors.
pub fn socketpair() -> Result<(UnixStream, UnixStream)> {
    let object = Label::from("socketpair");
    let (near, far) = unix_socket::pair(SocketType::STREAM, &object)?;
    Ok((UnixStream::labelled(near, object.clone()), UnixStream::labelled(far, object)))
}

impl From<UnixStream> for std::os::unix::net::UnixStream {
    /// `std`'s type for the same descriptor.
    fn from(stream: UnixStream) -> std::os::unix::net::UnixStream {
        OwnedFd::from(stream).into()
    }
}

impl From<std::os::unix::net::UnixStream> for UnixStream {
    /// Takes `std`'s. Its `set_nonblocking` and time-outs are the descriptor's and stay.
    fn from(stream: std::os::unix::net::UnixStream) -> UnixStream {
        OwnedFd::from(stream).into()
    }
}
