//! The ends of a byte stream, whichever kind the endpoint names: FIFO, terminal, Unix socket, TCP.

use std::time::Duration;

use ginnel::stream::{ByteRead, ByteWrite, Fifo, FifoReader, FifoWriter, TcpListener, TcpStream, Terminal};
use ginnel::stream::{UnixListener, UnixStream};
use ginnel::{Deadline, Endpoint, Error, Result};

use crate::output;

/// How many bytes are asked for at a time.
pub(crate) const CHUNK: usize = 64 * 1024;

/// How long to wait for descriptors or memory that were short.
const PAUSE: Duration = Duration::from_millis(50);

/// An end that writes.
pub(crate) enum Writer {
    Fifo(FifoWriter),
    Terminal(Terminal),
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Writer {
    /// Opens or connects; `None` for an endpoint that is no stream.
    pub(crate) fn open(endpoint: &Endpoint, deadline: Deadline) -> Result<Option<Writer>> {
        Ok(Some(match endpoint {
            Endpoint::Fifo(path) => Writer::Fifo(Fifo::open(path)?.open_writer_deadline(deadline)?),
            Endpoint::Pty(path) => Writer::Terminal(Terminal::open(path)?),
            Endpoint::UnixStream(name) => Writer::Unix(UnixStream::connect_deadline(name, deadline)?),
            Endpoint::Tcp(address) => Writer::Tcp(TcpStream::connect_deadline(address, deadline)?),
            _ => return Ok(None),
        }))
    }

    pub(crate) fn write_all(&self, bytes: &[u8], deadline: Deadline) -> Result<()> {
        match self {
            Writer::Fifo(end) => end.write_all_deadline(bytes, deadline),
            Writer::Terminal(end) => end.write_all_deadline(bytes, deadline),
            Writer::Unix(end) => end.write_all_deadline(bytes, deadline),
            Writer::Tcp(end) => end.write_all_deadline(bytes, deadline),
        }
        .map_err(Error::from)
    }

    /// Tells the peer that this was all.
    ///
    /// What a peer has said meanwhile is read first: a socket that is closed with something unread resets the
    /// connection, and what was sent might be lost with it.
    pub(crate) fn finish(self) {
        match self {
            Writer::Fifo(_) | Writer::Terminal(_) => {}
            Writer::Unix(end) => end_of(&end),
            Writer::Tcp(end) => end_of(&end),
        }
    }
}

fn end_of(end: &(impl ByteRead + ByteWrite)) {
    // A peer that has gone already has seen the end too.
    let _ = end.shutdown_write();
    let mut unread = [0; 4096];
    while matches!(end.try_read(&mut unread), Ok(1..)) {}
}

/// An end that reads.
pub(crate) enum Reader {
    Fifo(FifoReader),
    Terminal(Terminal),
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Reader {
    /// Opens or connects; `None` for an endpoint that is no stream.
    pub(crate) fn open(endpoint: &Endpoint, deadline: Deadline) -> Result<Option<Reader>> {
        Ok(Some(match endpoint {
            Endpoint::Fifo(path) => Reader::Fifo(Fifo::open(path)?.open_reader_deadline(deadline)?),
            Endpoint::Pty(path) => Reader::Terminal(Terminal::open(path)?),
            Endpoint::UnixStream(name) => Reader::Unix(UnixStream::connect_deadline(name, deadline)?),
            Endpoint::Tcp(address) => Reader::Tcp(TcpStream::connect_deadline(address, deadline)?),
            _ => return Ok(None),
        }))
    }

    /// 0 is the end.
    pub(crate) fn read(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
        match self {
            Reader::Fifo(end) => end.read_deadline(buffer, deadline),
            Reader::Terminal(end) => end.read_deadline(buffer, deadline),
            Reader::Unix(end) => end.read_deadline(buffer, deadline),
            Reader::Tcp(end) => end.read_deadline(buffer, deadline),
        }
    }

    /// Who sends, where that can be told.
    pub(crate) fn peer(&self) -> Option<String> {
        match self {
            Reader::Fifo(_) | Reader::Terminal(_) => None,
            Reader::Unix(end) => end.peer_credentials().ok().map(|peer| format!("process {}", peer.pid)),
            Reader::Tcp(end) => end.peer_address().ok().map(|address| address.to_string()),
        }
    }
}

/// Whether the next connection may be taken after this one was not: neither a client that went away meanwhile nor a host
/// short of descriptors or memory ends a server. Then it has waited a moment.
pub(crate) fn is_for_now(error: &Error) -> bool {
    if error.is_interrupted() || error.is_would_block() {
        return true;
    }
    let passes = ["ECONNABORTED", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"].contains(&error.errno_name());
    if passes {
        output::note(error);
        std::thread::sleep(PAUSE);
    }
    passes
}

/// A name under which connections are taken.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens; `None` for an endpoint that takes no connections of a stream.
    pub(crate) fn bind(endpoint: &Endpoint) -> Result<Option<Listener>> {
        Ok(Some(match endpoint {
            Endpoint::UnixStream(name) => Listener::Unix(UnixListener::bind(name)?),
            Endpoint::Tcp(address) => Listener::Tcp(TcpListener::bind(address)?),
            _ => return Ok(None),
        }))
    }

    pub(crate) fn accept(&self, deadline: Deadline) -> Result<Reader> {
        Ok(match self {
            Listener::Unix(listener) => Reader::Unix(listener.accept_deadline(deadline)?),
            Listener::Tcp(listener) => Reader::Tcp(listener.accept_deadline(deadline)?),
        })
    }
}
