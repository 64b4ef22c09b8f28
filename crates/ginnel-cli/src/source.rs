//! What `recv` takes from: a byte stream, a queue or a socket, and the listener that makes such sources.

use ginnel::message::{PosixQueue, Select, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacket};
use ginnel::message::{UnixSeqpacketListener, sysv_queue};
use ginnel::{Deadline, Endpoint, Result, UnixAddress};

use crate::home;
use crate::objects;
use crate::streams::{CHUNK, Listener, Reader};

/// A message, or some bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Item {
    pub(crate) payload: Vec<u8>,
    pub(crate) message_type: Option<i64>,
    pub(crate) priority: Option<u32>,
    pub(crate) peer: Option<String>,
}

/// How a stream is cut into items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As it comes.
    Chunks,
    /// Into lines, without their newline.
    Lines,
    /// Into lines, and not a byte after the last one is taken from the stream.
    ExactLines,
}

/// One end that gives item after item.
pub(crate) enum Source {
    Stream { reader: Reader, peer: Option<String>, cut: Cut, pending: Pending },
    SysvQueue(SysvQueue, Select),
    PosixQueue(PosixQueue),
    UnixDatagram(UnixDatagram),
    UnixSeqpacket(UnixSeqpacket, Option<String>),
    Udp(UdpSocket),
}

impl Source {
    /// Opens the endpoint; a stream and a seqpacket socket as a client.
    pub(crate) fn open(endpoint: &Endpoint, select: Select, cut: Cut, deadline: Deadline) -> Result<Source> {
        if let Some(reader) = Reader::open(endpoint, deadline)? {
            return Ok(Source::stream(reader, cut));
        }
        Ok(match endpoint {
            Endpoint::SysvQueue(name) => Source::SysvQueue(objects::sysv_queue(*name)?, select),
            Endpoint::PosixQueue(name) => {
                Source::PosixQueue(PosixQueue::options().namespace(home::current()).write(false).open(name)?)
            }
            Endpoint::UnixDatagram(name) => Source::UnixDatagram(UnixDatagram::bind(name)?),
            Endpoint::UnixSeqpacket(name) => {
                Source::seqpacket(UnixSeqpacket::connect_deadline(name, deadline)?)
            }
            Endpoint::Udp(address) => Source::Udp(UdpSocket::bind(address)?),
            _ => unreachable!("only what gives messages or bytes is opened for them"),
        })
    }

    fn stream(reader: Reader, cut: Cut) -> Source {
        let peer = reader.peer();
        Source::Stream { reader, peer, cut, pending: Pending::default() }
    }

    fn seqpacket(socket: UnixSeqpacket) -> Source {
        let peer = socket.peer_credentials().ok().map(|peer| format!("process {}", peer.pid));
        Source::UnixSeqpacket(socket, peer)
    }

    /// The next item; `None` at the end.
    pub(crate) fn next(&mut self, deadline: Deadline) -> Result<Option<Item>> {
        Ok(Some(match self {
            Source::Stream { reader, peer, cut, pending } => {
                let Some(payload) = next_of_stream(reader, *cut, pending, deadline)? else { return Ok(None) };
                Item { payload, peer: peer.clone(), ..Item::default() }
            }
            Source::SysvQueue(queue, select) => {
                let sysv_queue::Message { message_type, payload } =
                    queue.recv_vec_deadline(*select, deadline)?;
                Item { payload, message_type: Some(message_type), ..Item::default() }
            }
            Source::PosixQueue(queue) => {
                let message = queue.recv_vec_deadline(deadline)?;
                Item { payload: message.payload, priority: Some(message.priority), ..Item::default() }
            }
            // We are the only receiver: what was peeked at is what is received.
            Source::UnixDatagram(socket) => {
                let mut payload = vec![0; socket.peek_deadline(&mut [], deadline)?.full_len];
                let sender = socket.recv_from_deadline(&mut payload, deadline)?.sender;
                let peer = (sender != UnixAddress::Unnamed).then(|| sender.to_string());
                Item { payload, peer, ..Item::default() }
            }
            Source::Udp(socket) => {
                let mut payload = vec![0; socket.peek_deadline(&mut [], deadline)?.full_len];
                let sender = socket.recv_from_deadline(&mut payload, deadline)?.sender;
                Item { payload, peer: Some(sender.to_string()), ..Item::default() }
            }
            Source::UnixSeqpacket(socket, peer) => {
                let Some(payload) = socket.recv_vec_deadline(deadline)? else { return Ok(None) };
                Item { payload, peer: peer.clone(), ..Item::default() }
            }
        }))
    }

    /// Waits for the next writer after the end, where the same end can go on: a FIFO's.
    pub(crate) fn resume(&self, deadline: Deadline) -> Option<Result<()>> {
        match self {
            Source::Stream { reader: Reader::Fifo(reader), .. } => {
                Some(reader.wait_for_writer_deadline(deadline))
            }
            _ => None,
        }
    }
}

fn next_of_stream(
    reader: &Reader,
    cut: Cut,
    pending: &mut Pending,
    deadline: Deadline,
) -> Result<Option<Vec<u8>>> {
    if let Some(line) = pending.next_line() {
        return Ok(Some(line));
    }
    let mut buffer = vec![0; if cut == Cut::ExactLines { 1 } else { CHUNK }];
    loop {
        match reader.read(&mut buffer, deadline)? {
            0 => return Ok(pending.rest()),
            len if cut == Cut::Chunks => {
                buffer.truncate(len);
                return Ok(Some(buffer));
            }
            len => pending.bytes.extend_from_slice(&buffer[..len]),
        }
        if let Some(line) = pending.next_line() {
            return Ok(Some(line));
        }
    }
}

/// The bytes of a stream that are still to be cut into lines. Each is looked at once, however long its line is.
#[derive(Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// There is no newline from `start` to here.
    searched: usize,
}

impl Pending {
    /// The next line, without its newline, if all of it is there.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        match self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(len) => {
                let end = self.searched + len;
                let line = self.bytes[self.start..end].to_vec();
                (self.start, self.searched) = (end + 1, end + 1);
                Some(line)
            }
            None => {
                self.bytes.drain(..self.start);
                (self.start, self.searched) = (0, self.bytes.len());
                None
            }
        }
    }

    /// At the end: the last line may lack its newline.
    fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(self);
        (rest.start < rest.bytes.len()).then(|| rest.bytes[rest.start..].to_vec())
    }
}

/// A name under which sources connect.
pub(crate) enum Acceptor {
    Stream(Listener, Cut),
    UnixSeqpacket(UnixSeqpacketListener),
}

impl Acceptor {
    /// Listens; `None` for an endpoint that takes no connections.
    pub(crate) fn bind(endpoint: &Endpoint, cut: Cut) -> Result<Option<Acceptor>> {
        if let Endpoint::UnixSeqpacket(name) = endpoint {
            let listener = UnixSeqpacketListener::bind(name)?;
            return Ok(Some(Acceptor::UnixSeqpacket(listener)));
        }
        Ok(Listener::bind(endpoint)?.map(|listener| Acceptor::Stream(listener, cut)))
    }

    pub(crate) fn accept(&self, deadline: Deadline) -> Result<Source> {
        Ok(match self {
            Acceptor::Stream(listener, cut) => Source::stream(listener.accept(deadline)?, *cut),
            Acceptor::UnixSeqpacket(listener) => Source::seqpacket(listener.accept_deadline(deadline)?),
        })
    }
}
