//! The tour's rows of the message family.

use ginnel::Endpoint;
use ginnel::message::{Select, SysvQueue};
use ginnel::sysv::Key;

use super::peer::Peer;
use super::work::{Channel, Flood, Measured, answer, measure};
use super::{Direction, Family, Passes, Processes, Row, RowError, RowResult, Run};

pub(crate) const ROWS: &[Row] = &[Row {
    name: "System V queue",
    family: Family::Message,
    passes: Passes::Message,
    direction: Direction::BothWays,
    processes: Processes::Unrelated,
    name_space: "System V key",
    run: sysv_queue,
    peer: sysv_queue_peer,
}];

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
    let queue = SysvQueue::options().create_new(true).open(key)?;
    let peer = Peer::unrelated(run.row, &[key.to_string()])?;
    let mut channel = OverSysvQueue { queue, sends: 1, takes: 2 };
    let measured = measure(&mut channel, SYSV_FLOOD)?;
    peer.finish()?;
    channel.queue.remove()?;
    Ok(measured)
}

fn sysv_queue_peer(words: &[String]) -> RowResult<()> {
    let [key] = words else { return Err(RowError::Failed("a peer takes a key".into())) };
    let queue = SysvQueue::open(key.parse::<Key>()?)?;
    answer(&mut OverSysvQueue { queue, sends: 2, takes: 1 }, SYSV_FLOOD)
}
