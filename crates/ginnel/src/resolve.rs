//! `host:port` to addresses (`getaddrinfo(3)`), each of which is tried in turn: UDP and TCP.

use std::fmt::Debug;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};

use rustix::io::Errno;

use crate::error::{Error, Label, Result};

/// Runs `attempt` on each address of `host:port`: its first success, or its last failure.
///
/// # Errors
/// `EINVAL`: not `host:port`. `EIO`: the name does not resolve; the hint tells. `EADDRNOTAVAIL`: it has no address. Else
/// what `attempt` fails with.
pub(crate) fn each<T>(
    scheme: &str,
    address: impl ToSocketAddrs + Debug,
    mut attempt: impl FnMut(SocketAddr) -> Result<T>,
) -> Result<T> {
    // Whatever is an address has a Debug, and a pair of host and port no Display; the quotes are Debug's.
    let object = Label::new(format!("{scheme}:{address:?}").replace('"', ""));
    let found = address.to_socket_addrs().map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => {
            Error::invalid("getaddrinfo", &object, format!("{error}; an address is HOST:PORT"))
        }
        _ => Error::from_io("getaddrinfo", &error, &object),
    })?;
    let mut outcome = Err(Error::new("getaddrinfo", Errno::ADDRNOTAVAIL, &object));
    for address in found {
        outcome = attempt(address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
