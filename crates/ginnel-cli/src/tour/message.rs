//! The tour's rows of the message family.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ginnel::Endpoint;
use ginnel::message::{
    IcmpEcho, PosixQueue, Select, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacket, UnixSeqpacketListener,
    descriptor,
};
use ginnel::sysv::Key;

use super::peer::{Peer, announce};
use super::work::{Channel, Flood, Measured, SMALL_BYTES, answer, fill, measure, time_trips};
use super::{Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, ensure, no_peer, refused};
use crate::home;

const BASE: Row = Row {
    name: "",
    family: Family::Message,
    passes: Passes::Message,
    direction: Direction::BothWays,
    processes: Processes::Unrelated,
    name_space: "",
    run: |_| Err(RowError::Failed("a row without work".into())),
    peer: no_peer,
};

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "System V queue",
        name_space: "System V key",
        run: sysv_queue,
        peer: sysv_queue_peer,
        ..BASE
    },
    Row {
        name: "POSIX queue",
        name_space: "/name",
        direction: Direction::OneWay,
        run: posix_queue,
        peer: posix_queue_peer,
        ..BASE
    },
    Row { name: "Unix datagram", name_space: "path or @name", run: datagram, peer: datagram_peer, ..BASE },
    Row { name: "Unix seqpacket", name_space: "path or @name", run: seqpacket, peer: seqpacket_peer, ..BASE },
    Row { name: "UDP", name_space: "host and port", run: udp, peer: udp_peer, ..BASE },
    Row { name: "ICMP echo", name_space: "host", run: icmp, ..BASE },
    Row {
        name: "passed descriptor",
        name_space: "path or @name",
        direction: Direction::OneWay,
        run: passed_descriptor,
        peer: descriptor_peer,
        ..BASE
    },
];

/// Requests have type 1, replies type 2: one queue serves both directions.
struct OverSysvQueue {
    queue: SysvQueue,
    sends: i64,
    takes: i64,
}

const SYSV_FLOOD: Flood = Flood::of(1024);

impl Channel for OverSysvQueue {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(self.queue.send(self.sends, payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        Ok(self.queue.recv(Select::Type(self.takes), buffer)?.len)
    }
}

fn sysv_queue(run: &mut Run) -> RowResult<Measured> {
    let key = run.sysv_key(Endpoint::SysvQueue)?;
    let queue =
        SysvQueue::options().namespace(home::current()).create_new(true).open(key).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[key.to_string()])?;
    let mut channel = OverSysvQueue { queue, sends: 1, takes: 2 };
    let measured = measure(&mut channel, SYSV_FLOOD)?;
    peer.finish()?;
    channel.queue.remove()?;
    Ok(measured)
}

fn sysv_queue_peer(words: &[String]) -> RowResult<()> {
    let [key] = super::words(words)?;
    let queue = SysvQueue::open_in(home::current(), key.parse::<Key>()?)?;
    answer(&mut OverSysvQueue { queue, sends: 2, takes: 1 }, SYSV_FLOOD)
}

/// One queue each way.
struct OverPosixQueues {
    to: PosixQueue,
    from: PosixQueue,
}

const POSIX_FLOOD: Flood = Flood::of(1024);

impl Channel for OverPosixQueues {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(self.to.send(0, payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        // A receiver's buffer holds the queue's longest message, or the call is EMSGSIZE.
        let mut longest = [0; POSIX_FLOOD.message_bytes];
        let len = self.from.recv(&mut longest)?.len;
        let taken = len.min(buffer.len());
        buffer[..taken].copy_from_slice(&longest[..taken]);
        Ok(len)
    }
}

fn posix_queue(run: &mut Run) -> RowResult<Measured> {
    let names = [run.posix_name(Endpoint::PosixQueue)?, run.posix_name(Endpoint::PosixQueue)?];
    let make = |name: &str| {
        let options = PosixQueue::options()
            .namespace(home::current())
            .create_new(true)
            .message_bytes_max(POSIX_FLOOD.message_bytes);
        options.open(name).map_err(refused)
    };
    let mut channel = OverPosixQueues { to: make(&names[0])?, from: make(&names[1])? };
    let peer = Peer::unrelated(run.row, &names)?;
    let measured = measure(&mut channel, POSIX_FLOOD)?;
    peer.finish()?;
    names.iter().try_for_each(|name| PosixQueue::remove_in(home::current(), name))?;
    Ok(measured)
}

fn posix_queue_peer(words: &[String]) -> RowResult<()> {
    let [from, to] = super::words(words)?;
    answer(
        &mut OverPosixQueues {
            to: PosixQueue::open_in(home::current(), to)?,
            from: PosixQueue::open_in(home::current(), from)?,
        },
        POSIX_FLOOD,
    )
}

/// The kernel blocks a sender to a full socket: no window is needed.
const UNIX_FLOOD: Flood = Flood::of(4096);

impl Channel for UnixDatagram {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(UnixDatagram::send(self, payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        Ok(UnixDatagram::recv(self, buffer)?)
    }
}

fn datagram(run: &mut Run) -> RowResult<Measured> {
    let directory = run.directory()?;
    let names = [directory.join("runner"), directory.join("peer")].map(|path| path.display().to_string());
    let mut socket = UnixDatagram::bind(&names[0]).map_err(refused)?;
    let peer = Peer::announced(run.row, &mut Peer::command(run.row, &names)?)?;
    socket.connect_to(&names[1])?;
    let measured = measure(&mut socket, UNIX_FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn datagram_peer(words: &[String]) -> RowResult<()> {
    let [runner, own] = super::words(words)?;
    let mut socket = UnixDatagram::bind(own)?;
    socket.connect_to(runner)?;
    announce()?;
    answer(&mut socket, UNIX_FLOOD)
}

impl Channel for UnixSeqpacket {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(UnixSeqpacket::send(self, payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        UnixSeqpacket::recv(self, buffer)?.ok_or_else(|| RowError::Failed("the other end has gone".into()))
    }
}

fn seqpacket(run: &mut Run) -> RowResult<Measured> {
    let path = run.directory()?.join("socket");
    let listener = UnixSeqpacketListener::bind(&path).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[path.display().to_string()])?;
    let mut connection = listener.accept()?;
    let measured = measure(&mut connection, UNIX_FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn seqpacket_peer(words: &[String]) -> RowResult<()> {
    let [path] = super::words(words)?;
    answer(&mut UnixSeqpacket::connect(path)?, UNIX_FLOOD)
}

/// What does not fit the receiver's buffer is dropped: the sender waits for word every few datagrams.
const UDP_FLOOD: Flood = Flood { message_bytes: 1024, window: Some(32) };

impl Channel for UdpSocket {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(UdpSocket::send(self, payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        Ok(UdpSocket::recv(self, buffer)?)
    }
}

fn udp(run: &mut Run) -> RowResult<Measured> {
    let mut socket = UdpSocket::bind("127.0.0.1:0").map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[socket.local_address()?.to_string()])?;
    // The first datagram only tells where the peer is.
    let hello = socket.recv_from(&mut [0; 1])?;
    socket.connect_to(hello.sender)?;
    let measured = measure(&mut socket, UDP_FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn udp_peer(words: &[String]) -> RowResult<()> {
    let [address] = super::words(words)?;
    let mut socket = UdpSocket::connect(address)?;
    socket.send(b"!")?;
    answer(&mut socket, UDP_FLOOD)
}

/// The other end is the kernel's: it echoes what it is sent.
fn icmp(_: &mut Run) -> RowResult<Measured> {
    let echo = IcmpEcho::open(Ipv4Addr::LOCALHOST).map_err(refused)?;
    let mut request = [0; SMALL_BYTES];
    let mut reply = [0; SMALL_BYTES];
    let round_trip = time_trips(|number| {
        fill(&mut request, number);
        echo.send(number as u16, &request)?;
        let got = echo.recv(&mut reply)?;
        ensure(
            got.sequence == number as u16 && got.len == SMALL_BYTES && reply == request,
            format!("echo {number} came back changed"),
        )
    })?;
    let checked = format!("{} echoes of {SMALL_BYTES} B from the kernel", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: None })
}

/// Each trip passes the write end of a new pipe, into which the peer answers.
fn passed_descriptor(run: &mut Run) -> RowResult<Measured> {
    let path = run.directory()?.join("socket");
    let listener = UnixSeqpacketListener::bind(&path).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[path.display().to_string()])?;
    let connection = listener.accept()?;
    let mut request = [0; SMALL_BYTES];
    let round_trip = time_trips(|number| {
        let (mut reader, writer) = std::io::pipe()?;
        fill(&mut request, number);
        descriptor::send_with(&connection, &request, &[writer.as_fd()])?;
        drop(writer);
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer)?;
        ensure(answer == request, format!("descriptor {number} did not lead back here"))
    })?;
    drop(connection);
    peer.finish()?;
    let checked = format!("{} descriptors passed, each written to by the other process", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: None })
}

/// Writes each message into the descriptor that came with it, until the runner has gone.
fn descriptor_peer(words: &[String]) -> RowResult<()> {
    let [path] = super::words(words)?;
    let connection = UnixSeqpacket::connect(path)?;
    let mut message = [0; SMALL_BYTES];
    loop {
        let parcel = descriptor::recv_with(&connection, &mut message)?;
        let Some(passed) = parcel.descriptors.into_iter().next() else { return Ok(()) };
        File::from(passed).write_all(&message[..parcel.len])?;
    }
}
