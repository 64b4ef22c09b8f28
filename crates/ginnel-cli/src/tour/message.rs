//! The tour's rows of the message family.

use ginnel::Endpoint;
use ginnel::message::{PosixQueue, Select, SysvQueue};
use ginnel::sysv::Key;

use super::peer::Peer;
use super::work::{Channel, Flood, Measured, answer, measure};
use super::{Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, no_peer, refused};

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
    let queue = SysvQueue::options().create_new(true).open(key).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[key.to_string()])?;
    let mut channel = OverSysvQueue { queue, sends: 1, takes: 2 };
    let measured = measure(&mut channel, SYSV_FLOOD)?;
    peer.finish()?;
    channel.queue.remove()?;
    Ok(measured)
}

fn sysv_queue_peer(words: &[String]) -> RowResult<()> {
    let [key] = super::words(words)?;
    let queue = SysvQueue::open(key.parse::<Key>()?)?;
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
        let options = PosixQueue::options().create_new(true).message_bytes_max(POSIX_FLOOD.message_bytes);
        options.open(name).map_err(refused)
    };
    let mut channel = OverPosixQueues { to: make(&names[0])?, from: make(&names[1])? };
    let peer = Peer::unrelated(run.row, &names)?;
    let measured = measure(&mut channel, POSIX_FLOOD)?;
    peer.finish()?;
    names.iter().try_for_each(|name| PosixQueue::remove(name))?;
    Ok(measured)
}

fn posix_queue_peer(words: &[String]) -> RowResult<()> {
    let [from, to] = super::words(words)?;
    answer(&mut OverPosixQueues { to: PosixQueue::open(to)?, from: PosixQueue::open(from)? }, POSIX_FLOOD)
}
