//! The asking side: one client, one request at a time, over whatever the endpoint is.

use std::net::ToSocketAddrs;
use std::time::Duration;

use ginnel::endpoint::SysvName;
use ginnel::message::{PosixQueue, Select, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacket};
use ginnel::notify::PidFd;
use ginnel::stream::{Framed, TcpStream, UnixStream};
use ginnel::{Deadline, Endpoint, Error, UnixAddress};

use super::connections::FRAME_BYTES_MAX;
use super::datagrams::UDP_BYTES_MAX;
use super::lamp::{Place, Servers};
use super::{Answer, Request, Tag, namespace, posix, random, sysv};
use crate::failure::{Failure, Result};
use crate::guardian::Guardian;
use crate::home;

/// How long a client that the kernel will not tell of its server's death waits before it looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long between two looks for a server that is to come.
const PAUSE: Duration = Duration::from_millis(50);

const CLOSED: &str = "the server died, or closed the connection, before it replied";

/// A client of the server at an endpoint.
pub(crate) struct Client {
    endpoint: Endpoint,
    wire: Wire,
    pid: i32,
    pid_namespace: u64,
    tag: Tag,
    /// The last failure was a server's word: it can be asked again.
    was_answered: bool,
}

/// How a client gets at its server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Approach {
    /// Wait for a server that is not there yet.
    pub(crate) wait: bool,
    /// Do not look for a queue's server.
    pub(crate) foreign: bool,
}

enum Wire {
    Sysv {
        queue: SysvQueue,
        servers: Vec<PidFd>,
    },
    Posix {
        requests: PosixQueue,
        replies: PosixQueue,
        servers: Vec<PidFd>,
        _guardian: Guardian,
    },
    Unix(Framed<UnixStream>),
    Tcp(Framed<TcpStream>),
    Seqpacket(UnixSeqpacket),
    Datagram {
        socket: UnixDatagram,
        server: UnixAddress,
    },
    Udp {
        socket: UdpSocket,
        /// The request, to be sent again while nobody listens yet and the client is to wait for a server.
        again: Option<Vec<u8>>,
    },
}

/// Why there is no client.
struct Refusal {
    failure: Failure,
    /// It may be otherwise in a moment: the server has not been started yet.
    for_now: bool,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal { failure, for_now: false }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { for_now: error.is_not_found(), failure: error.into() }
    }
}

impl Client {
    pub(crate) fn open(endpoint: &Endpoint, approach: Approach, deadline: Deadline) -> Result<Client> {
        let client = random();
        loop {
            let refusal = match Wire::open(endpoint, client, approach, deadline) {
                Ok(wire) => {
                    let pid = match endpoint {
                        Endpoint::Udp(_) | Endpoint::Tcp(_) => 0,
                        _ => std::process::id() as i32,
                    };
                    let tag = Tag { client, number: 0 };
                    let pid_namespace = namespace("pid");
                    return Ok(Client {
                        endpoint: endpoint.clone(),
                        wire,
                        pid,
                        pid_namespace,
                        tag,
                        was_answered: true,
                    });
                }
                Err(refusal) => refusal,
            };
            if !approach.wait || !refusal.for_now {
                return Err(refusal.failure);
            }
            if deadline.has_passed() {
                return Err(Failure::failed(format!("{endpoint}: no server came in time")));
            }
            std::thread::sleep(deadline.remaining().map_or(PAUSE, |left| left.min(PAUSE)));
        }
    }

    /// Whether there is sense in asking again: the last request was answered, if only by an error.
    pub(crate) fn is_usable(&self) -> bool {
        self.was_answered
    }

    /// Asks, and gives what the server's command printed, or in words why there is nothing.
    pub(crate) fn call(&mut self, payload: &[u8], deadline: Deadline) -> Result<Vec<u8>> {
        self.tag.number += 1;
        self.was_answered = false;
        let Client { pid, pid_namespace, tag, .. } = *self;
        let request = Request { pid, pid_namespace, tag, payload: payload.to_vec() }.encode();
        self.wire.fits(&self.endpoint, request.len())?;
        self.patiently(deadline, "the request was not taken in time", |wire, slice| {
            wire.send(&request, slice)
        })?;
        loop {
            let received = self.patiently(deadline, "no reply came in time", Wire::recv)?;
            let bytes = received.ok_or_else(|| self.failed(CLOSED))?;
            match Answer::decode(&bytes) {
                Some((tag, answer)) if tag == self.tag => {
                    self.was_answered = true;
                    return answer.into_result().map_err(|why| self.failed(why));
                }
                // A reply that came too late, or for a process that had this PID before.
                _ => {}
            }
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{}: {why}", self.endpoint))
    }

    /// Makes a call again and again, each time a little longer if need be, looking after the server in between.
    fn patiently<T>(
        &mut self,
        deadline: Deadline,
        in_time: &str,
        mut call: impl FnMut(&mut Wire, Deadline) -> ginnel::Result<T>,
    ) -> Result<T> {
        loop {
            let slice = match (self.wire.must_look(), deadline.remaining()) {
                (true, None) => LOOK.into(),
                (true, Some(left)) if left > LOOK => LOOK.into(),
                _ => deadline,
            };
            match call(&mut self.wire, slice) {
                Err(error) if error.is_timed_out() || error.is_would_block() => {
                    if self.wire.must_look() && !self.wire.server_is_there() {
                        // Its last words may have been our reply.
                        return call(&mut self.wire, Deadline::NOW)
                            .map_err(|_| self.failed("the server died before it replied"));
                    }
                    if deadline.has_passed() {
                        return Err(self.failed(in_time));
                    }
                }
                Err(error) if error.is_removed() => {
                    return Err(self.failed("the queue was removed: its server has ended"));
                }
                Err(error) if error.is_disconnected() => {
                    return Err(self.failed(CLOSED));
                }
                Err(error) if error.is_not_found() => return Err(self.failed("nobody listens there")),
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl Wire {
    fn open(
        endpoint: &Endpoint,
        client: u64,
        Approach { wait, foreign }: Approach,
        deadline: Deadline,
    ) -> std::result::Result<Wire, Refusal> {
        Ok(match endpoint {
            Endpoint::SysvQueue(name) => {
                let queue = match name {
                    SysvName::Key(key) => SysvQueue::open_in(home::current(), *key)?,
                    SysvName::Id(id) => SysvQueue::from_id_in(home::current(), *id),
                };
                if std::process::id() == 1 {
                    return Err(Failure::failed(format!(
                        "{endpoint}: PID 1 cannot be a client: a reply to it would be a request (type 1)"
                    ))
                    .into());
                }
                // An id that is wrong says so now.
                queue.status()?;
                let servers =
                    servers(endpoint, &sysv::place(&queue), foreign, "replies are addressed by PID")?;
                Wire::Sysv { queue, servers }
            }
            Endpoint::PosixQueue(name) => {
                let requests = PosixQueue::options().namespace(home::current()).read(false).open(name)?;
                let why = "the queue for replies is named after the PID";
                let servers = servers(endpoint, &posix::place(name), foreign, why)?;
                let name = posix::reply_queue(std::process::id() as i32, client);
                let mut guardian = Guardian::start()?;
                guardian.adopt(&Endpoint::PosixQueue(name.clone()))?;
                let replies = PosixQueue::options()
                    .namespace(home::current())
                    .create_new(true)
                    .write(false)
                    .messages_max(1)
                    .message_bytes_max(requests.message_bytes_max())
                    .open(&name)?;
                Wire::Posix { requests, replies, servers, _guardian: guardian }
            }
            Endpoint::UnixStream(name) => {
                Wire::Unix(Framed::with_max(UnixStream::connect_deadline(name, deadline)?, FRAME_BYTES_MAX))
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_deadline(address, deadline)?;
                stream.set_nodelay(true)?;
                Wire::Tcp(Framed::with_max(stream, FRAME_BYTES_MAX))
            }
            Endpoint::UnixSeqpacket(name) => {
                Wire::Seqpacket(UnixSeqpacket::connect_deadline(name.as_str(), deadline)?)
            }
            Endpoint::UnixDatagram(name) => {
                let server = UnixAddress::from(name);
                // Somebody must be there: a datagram socket that is connected says so at once.
                drop(UnixDatagram::connect(&server)?);
                let socket =
                    UnixDatagram::bind(format!("@ginnel-call-{}-{client:016x}", std::process::id()))?;
                Wire::Datagram { socket, server }
            }
            Endpoint::Udp(address) => {
                // A name that does not resolve is no server that may still come.
                address.to_socket_addrs().map_err(|error| Failure::failed(format!("{endpoint}: {error}")))?;
                Wire::Udp { socket: UdpSocket::connect(address)?, again: wait.then(Vec::new) }
            }
            _ => return Err(not_here(endpoint).into()),
        })
    }

    fn send(&mut self, request: &[u8], deadline: Deadline) -> ginnel::Result<()> {
        match self {
            Wire::Sysv { queue, .. } => queue.send_deadline(sysv::REQUEST, request, deadline),
            Wire::Posix { requests, .. } => requests.send_deadline(0, request, deadline),
            Wire::Unix(frames) => {
                frames.send_deadline(request, deadline)?;
                frames.flush_deadline(deadline)
            }
            Wire::Tcp(frames) => {
                frames.send_deadline(request, deadline)?;
                frames.flush_deadline(deadline)
            }
            Wire::Seqpacket(socket) => socket.send_deadline(request, deadline),
            Wire::Datagram { socket, server } => socket.send_to_deadline(request, &*server, deadline),
            Wire::Udp { socket, again } => {
                if let Some(again) = again {
                    *again = request.to_vec();
                }
                socket.send_deadline(request, deadline)
            }
        }
    }

    /// `None`: the server closed the connection.
    fn recv(&mut self, deadline: Deadline) -> ginnel::Result<Option<Vec<u8>>> {
        Ok(Some(match self {
            Wire::Sysv { queue, .. } => {
                queue.recv_vec_deadline(Select::Type(std::process::id().into()), deadline)?.payload
            }
            Wire::Posix { replies, .. } => replies.recv_vec_deadline(deadline)?.payload,
            Wire::Unix(frames) => return frames.recv_deadline(deadline),
            Wire::Tcp(frames) => return frames.recv_deadline(deadline),
            Wire::Seqpacket(socket) => return socket.recv_vec_deadline(deadline),
            Wire::Datagram { socket, .. } => socket.recv_vec_deadline(deadline)?,
            Wire::Udp { socket, again } => loop {
                match (socket.recv_vec_deadline(deadline), &again) {
                    (Err(error), Some(request)) if error.is_not_found() => {
                        std::thread::sleep(deadline.remaining().map_or(PAUSE, |left| left.min(PAUSE)));
                        socket.send_deadline(request, deadline)?;
                    }
                    (outcome, _) => break outcome?,
                }
            },
        }))
    }

    /// A message that never fits would wait for ever on a System V queue.
    fn fits(&self, endpoint: &Endpoint, bytes: usize) -> Result<()> {
        let too_long = |max: usize, what: &str| {
            Err(Failure::failed(format!(
                "{endpoint}: the request has {} bytes, the most is {}: {what}",
                bytes - super::REQUEST_BYTES,
                max.saturating_sub(super::REQUEST_BYTES)
            )))
        };
        match self {
            Wire::Sysv { queue, .. } => match queue.status()?.bytes_max as usize {
                max if bytes > max => too_long(max, "more never fits the queue (its msg_qbytes)"),
                _ => Ok(()),
            },
            Wire::Udp { .. } if bytes > UDP_BYTES_MAX => {
                too_long(UDP_BYTES_MAX, "a UDP datagram holds no more")
            }
            _ => Ok(()),
        }
    }

    /// Whether only looking tells that the server has died.
    fn must_look(&self) -> bool {
        match self {
            Wire::Sysv { servers, .. } | Wire::Posix { servers, .. } => !servers.is_empty(),
            Wire::Datagram { .. } => true,
            Wire::Unix(_) | Wire::Tcp(_) | Wire::Seqpacket(_) | Wire::Udp { .. } => false,
        }
    }

    fn server_is_there(&self) -> bool {
        match self {
            Wire::Sysv { servers, .. } | Wire::Posix { servers, .. } => servers.iter().any(PidFd::is_alive),
            Wire::Datagram { server, .. } => match UnixDatagram::connect(server) {
                Err(error) => !error.is_not_found(),
                Ok(_) => true,
            },
            Wire::Unix(_) | Wire::Tcp(_) | Wire::Seqpacket(_) | Wire::Udp { .. } => true,
        }
    }
}

/// The processes that serve a queue; none to watch if the server is foreign.
fn servers(
    endpoint: &Endpoint,
    place: &Place,
    foreign: bool,
    why_not_elsewhere: &str,
) -> std::result::Result<Vec<PidFd>, Refusal> {
    if foreign {
        return Ok(Vec::new());
    }
    match Servers::of(place)? {
        Servers::Here(servers) => Ok(servers),
        Servers::Elsewhere => Err(Failure::failed(format!(
            "{endpoint}: the server is in another PID namespace, and {why_not_elsewhere}: use a socket"
        ))
        .into()),
        Servers::Nobody => Err(Refusal {
            for_now: true,
            failure: Failure::failed(format!(
                "{endpoint}: nobody serves this queue; start `ginnel serve {endpoint} -- COMMAND`, or wait for it with \
                 --wait (if the server is another program, or in another network namespace: --foreign)"
            )),
        }),
    }
}

/// What neither `serve` nor `call` does.
pub(crate) fn not_here(endpoint: &Endpoint) -> Failure {
    Failure::usage(format!(
        "{endpoint}: a {} carries no requests and replies; what does: sysv-msg, posix-mq, unix, tcp, unix-seqpacket, \
         unix-dgram, udp",
        endpoint.scheme()
    ))
}
