//! Whether anybody serves a queue: a queue itself does not tell.
//!
//! A server of a queue binds a datagram socket whose abstract name says which queue, from which PID namespace and by
//! which process it is served; the kernel puts that lamp out when the process ends, whatever ends it. Clients read the
//! lamps in `/proc/net/unix` and watch the process by a pidfd. So a client knows at once that nobody serves, and that
//! the server died before its reply.
//!
//! A lamp is seen from the same network namespace only, and a server that is not `ginnel serve` has none:
//! `ginnel call --foreign` looks for none. Anybody may light a false lamp; that makes a client wait, no more.

use ginnel::message::UnixDatagram;
use ginnel::notify::PidFd;

use super::namespace;
use crate::failure::{Context, Result};

/// A queue, as its lamps name it.
#[derive(Clone, Debug)]
pub(crate) struct Place(String);

impl Place {
    /// `object` is what the kernel knows the queue by in this IPC namespace: an id, a name.
    pub(crate) fn new(scheme: &str, object: &str) -> Place {
        // A queue's name may be longer than a socket's.
        let object = object.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Place(format!("@ginnel-serve/{scheme}/{}/{object:016x}/", namespace("ipc")))
    }
}

/// Shows that this process serves the place, until it is dropped.
pub(crate) struct Lamp {
    _socket: UnixDatagram,
}

impl Lamp {
    pub(crate) fn light(place: &Place) -> Result<Lamp> {
        let name = format!("{}{}/{}", place.0, namespace("pid"), std::process::id());
        Ok(Lamp { _socket: UnixDatagram::bind(name)? })
    }
}

/// The servers of a place.
pub(crate) enum Servers {
    Nobody,
    /// They live in another PID namespace: what they know as this process's PID is another process's.
    Elsewhere,
    Here(Vec<PidFd>),
}

impl Servers {
    pub(crate) fn of(place: &Place) -> Result<Servers> {
        let own_namespace = namespace("pid");
        let lit = lit(place)?;
        let here = lit.iter().filter(|(namespace, _)| *namespace == own_namespace);
        let watched: Vec<PidFd> = here.filter_map(|(_, pid)| PidFd::open(*pid).ok()).collect();
        // A process that ended between the two reads may have left its number to another one.
        let still = self::lit(place)?;
        let watched: Vec<PidFd> =
            watched.into_iter().filter(|server| still.contains(&(own_namespace, server.pid()))).collect();
        Ok(match watched.is_empty() {
            false => Servers::Here(watched),
            true if still.iter().any(|(namespace, _)| *namespace != own_namespace) => Servers::Elsewhere,
            true => Servers::Nobody,
        })
    }
}

/// The PID namespaces and PIDs of the lamps that are lit.
fn lit(place: &Place) -> Result<Vec<(u64, i32)>> {
    let sockets = std::fs::read_to_string("/proc/net/unix").context("/proc/net/unix")?;
    let names = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
    let ours = names.filter_map(|name| name.strip_prefix(&place.0)?.split_once('/'));
    Ok(ours.filter_map(|(namespace, pid)| Some((namespace.parse().ok()?, pid.parse().ok()?))).collect())
}
