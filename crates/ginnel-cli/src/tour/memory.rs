//! The tour's rows of the memory family: one message box in shared bytes for each direction.
//!
//! Shared memory passes bytes and nothing else, so the two sides agree on a word that says whose turn a box is. Here
//! they look at it again and again, yielding the CPU in between: what is timed is the memory, not a second mechanism.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use ginnel::Endpoint;
use ginnel::memory::{Anonymous, FileMapping, Mapping, MemFd, PosixShm, ReadWrite, SysvSegment};
use ginnel::sync::record_lock::{LockKind, Owner, RecordLocks};
use ginnel::sysv::Key;

use super::peer::{Forked, Peer};
use super::work::{Channel, Flood, Measured, answer, measure};
use super::{
    Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, ensure, no_peer, refused, words,
};
use crate::home;

const BASE: Row = Row {
    name: "",
    family: Family::Memory,
    passes: Passes::Memory,
    direction: Direction::BothWays,
    processes: Processes::Unrelated,
    name_space: "",
    run: |_| Err(RowError::Failed("a row without work".into())),
    peer: no_peer,
};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "System V segment", name_space: "System V key", run: sysv, peer: sysv_peer, ..BASE },
    Row { name: "POSIX shared memory", name_space: "/name", run: posix, peer: posix_peer, ..BASE },
    Row { name: "mapped file", name_space: "path", run: mapped_file, peer: mapped_file_peer, ..BASE },
    Row {
        name: "anonymous mapping",
        name_space: "inherited by fork",
        processes: Processes::Related,
        run: anonymous,
        ..BASE
    },
    Row {
        name: "memfd",
        name_space: "inherited descriptor",
        processes: Processes::Related,
        run: memfd,
        peer: memfd_peer,
        ..BASE
    },
    Row { name: "plain file", name_space: "path", run: plain_file, peer: plain_file_peer, ..BASE },
];

/// The flood's messages: what fits a box.
const FLOOD: Flood = Flood::of(64 << 10);
/// A box: a word that is 0 when it is empty and the message's length plus 1 when it is full; the payload begins in the
/// next cache line.
const PAYLOAD_OFFSET: usize = 64;
const BOX_BYTES: usize = PAYLOAD_OFFSET + FLOOD.message_bytes;
const SIZE_BYTES: usize = 2 * BOX_BYTES;

/// The two sides of a pair of boxes.
#[derive(Clone, Copy)]
enum Side {
    Runner,
    Peer,
}

impl Side {
    /// Where this side writes, and where it reads.
    fn boxes(self) -> (usize, usize) {
        match self {
            Side::Runner => (0, BOX_BYTES),
            Side::Peer => (BOX_BYTES, 0),
        }
    }
}

struct OverMapping {
    mapping: Mapping<ReadWrite>,
    side: Side,
}

impl OverMapping {
    fn turn(&self, offset: usize) -> RowResult<&AtomicU32> {
        Ok(self.mapping.atomic_u32(offset)?)
    }
}

impl Channel for OverMapping {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        let (offset, _) = self.side.boxes();
        let turn = self.turn(offset)?;
        while turn.load(Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        self.mapping.write_bytes(offset + PAYLOAD_OFFSET, payload)?;
        turn.store(payload.len() as u32 + 1, Ordering::Release);
        Ok(())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        let (_, offset) = self.side.boxes();
        let turn = self.turn(offset)?;
        let len = loop {
            match turn.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                len => break len as usize - 1,
            }
        };
        ensure(
            len <= buffer.len(),
            format!("a message of {len} bytes came where {} were due", buffer.len()),
        )?;
        self.mapping.read_bytes(offset + PAYLOAD_OFFSET, &mut buffer[..len])?;
        turn.store(0, Ordering::Release);
        Ok(len)
    }
}

fn work(mapping: Mapping<ReadWrite>, peer: Peer) -> RowResult<Measured> {
    let measured = measure(&mut OverMapping { mapping, side: Side::Runner }, FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn be_peer(mapping: Mapping<ReadWrite>) -> RowResult<()> {
    answer(&mut OverMapping { mapping, side: Side::Peer }, FLOOD)
}

fn sysv(run: &mut Run) -> RowResult<Measured> {
    let key = run.sysv_key(Endpoint::SysvSegment)?;
    let segment = SysvSegment::options()
        .namespace(home::current())
        .create_new(true)
        .size(SIZE_BYTES)
        .open(key)
        .map_err(refused)?;
    let mapping = segment.attach()?;
    let peer = Peer::unrelated(run.row, &[key.to_string()])?;
    let measured = work(mapping, peer)?;
    segment.remove()?;
    Ok(measured)
}

fn sysv_peer(peer_words: &[String]) -> RowResult<()> {
    let [key] = words(peer_words)?;
    be_peer(SysvSegment::open_in(home::current(), key.parse::<Key>()?)?.attach()?)
}

fn posix(run: &mut Run) -> RowResult<Measured> {
    let name = run.posix_name(Endpoint::PosixShm)?;
    let options = PosixShm::options().namespace(home::current()).create_new(true).size(SIZE_BYTES as u64);
    let mapping = options.open(&name).map_err(refused)?.map()?;
    let peer = Peer::unrelated(run.row, std::slice::from_ref(&name))?;
    let measured = work(mapping, peer)?;
    PosixShm::remove_in(home::current(), &name)?;
    Ok(measured)
}

fn posix_peer(peer_words: &[String]) -> RowResult<()> {
    let [name] = words(peer_words)?;
    be_peer(PosixShm::open_in(home::current(), name)?.map()?)
}

fn mapped_file(run: &mut Run) -> RowResult<Measured> {
    let path = run.directory()?.join("mapped");
    let mapping = FileMapping::create(&path, SIZE_BYTES as u64)?.into_mapping();
    let peer = Peer::unrelated(run.row, &[path.display().to_string()])?;
    work(mapping, peer)
}

fn mapped_file_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    be_peer(FileMapping::open(path)?.into_mapping())
}

fn anonymous(_: &mut Run) -> RowResult<Measured> {
    let mapping = Anonymous::map(SIZE_BYTES)?;
    let mut channel = OverMapping { mapping, side: Side::Peer };
    let child = Forked::start(|| answer(&mut channel, FLOOD))?;
    channel.side = Side::Runner;
    let measured = measure(&mut channel, FLOOD)?;
    child.finish()?;
    Ok(measured)
}

fn memfd(run: &mut Run) -> RowResult<Measured> {
    let memfd = MemFd::create("ginnel-tour", SIZE_BYTES as u64).map_err(refused)?;
    let inherited = memfd.as_fd().try_clone_to_owned()?;
    let nothing = File::options().write(true).open("/dev/null")?;
    let peer = Peer::inheriting(run.row, &[], inherited, nothing)?;
    work(memfd.map()?, peer)
}

fn memfd_peer(_: &[String]) -> RowResult<()> {
    let inherited: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    be_peer(FileMapping::options().map(inherited)?.into_mapping())
}

/// The boxes in a file that nobody maps: read and written at their places, under a lock on the whole.
struct OverPlainFile {
    lock: RecordLocks,
    file: File,
    side: Side,
}

impl OverPlainFile {
    fn open(path: &Path, side: Side) -> RowResult<OverPlainFile> {
        let lock = RecordLocks::options().create(true).owner(Owner::OpenFile).open(path)?;
        Ok(OverPlainFile { lock, file: File::options().read(true).write(true).open(path)?, side })
    }

    /// Tries `step` under the lock until it has found the box as it must be.
    fn until(&self, mut step: impl FnMut(&File, u32) -> RowResult<bool>, offset: usize) -> RowResult<()> {
        loop {
            let lock = self.lock.lock(.., LockKind::Exclusive)?;
            let mut turn = [0; 4];
            self.file.read_exact_at(&mut turn, offset as u64)?;
            let done = step(&self.file, u32::from_le_bytes(turn))?;
            lock.unlock()?;
            if done {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}

impl Channel for OverPlainFile {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        let (offset, _) = self.side.boxes();
        let write = |file: &File, turn: u32| {
            if turn == 0 {
                file.write_all_at(payload, (offset + PAYLOAD_OFFSET) as u64)?;
                file.write_all_at(&(payload.len() as u32 + 1).to_le_bytes(), offset as u64)?;
            }
            Ok(turn == 0)
        };
        self.until(write, offset)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        let (_, offset) = self.side.boxes();
        let mut len = 0;
        let read = |file: &File, turn: u32| {
            if turn != 0 {
                len = turn as usize - 1;
                ensure(len <= buffer.len(), "a message is longer than was due")?;
                file.read_exact_at(&mut buffer[..len], (offset + PAYLOAD_OFFSET) as u64)?;
                file.write_all_at(&[0; 4], offset as u64)?;
            }
            Ok(turn != 0)
        };
        self.until(read, offset)?;
        Ok(len)
    }
}

fn plain_file(run: &mut Run) -> RowResult<Measured> {
    let path = run.directory()?.join("plain");
    let mut channel = OverPlainFile::open(&path, Side::Runner)?;
    channel.file.set_len(SIZE_BYTES as u64)?;
    let peer = Peer::unrelated(run.row, &[path.display().to_string()])?;
    let measured = measure(&mut channel, FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn plain_file_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    answer(&mut OverPlainFile::open(Path::new(path), Side::Peer)?, FLOOD)
}
