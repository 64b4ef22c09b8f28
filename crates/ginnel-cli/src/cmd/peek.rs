//! `ginnel peek`: look at what is there without taking it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::message::UnixDatagram;
use ginnel::notify::PidFd;
use ginnel::stream::Fifo;
use ginnel_inspect::descriptors::DescriptorTable;
use serde::Serialize;

use crate::args;
use crate::failure::{Context, Failure, Result};
use crate::home::HomeArgs;
use crate::memory::{self, Part};
use crate::objects::{self, explain};
use crate::output;
use crate::payload::{self, Payload};
use crate::state::{self, SocketType, State, Users};

/// Look at messages, bytes or values without taking them.
///
/// A System V queue's messages are copied, oldest first. A FIFO, or another process's pipe as fifo:/proc/PID/fd/N, shows
/// the bytes that wait in it. A Unix datagram socket shows its next message, to who may trace its process. Memory (sysv-shm, posix-shm, file) is dumped in hex. A semaphore shows its value. The kernel
/// lets nobody look into a POSIX queue: its state is shown instead.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel peek sysv-msg:0x2a
  ginnel peek sysv-msg:0x2a --index 0 --json
  ginnel peek fifo:/proc/4711/fd/1
  ginnel peek posix-shm:/x --offset 4096 --length 64
  ginnel peek posix-sem:/slots")]
pub(crate) struct Args {
    /// Where to look: KIND:NAME, see `ginnel endpoints`.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// The message with this number; 0 is the oldest.
    #[arg(long, value_name = "N")]
    index: Option<usize>,
    /// This many messages at the most.
    #[arg(long, value_name = "N", conflicts_with = "index")]
    count: Option<usize>,
    /// Where in the memory to begin.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    offset: Option<u64>,
    /// How many bytes of memory or of a pipe; 256 and 64KiB at the most unless said.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    length: Option<u64>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How much memory is dumped unless said.
const DUMP_BYTES: u64 = 256;

#[derive(Serialize)]
struct Peeked {
    endpoint: String,
    index: usize,
    message_type: i64,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Serialize)]
struct PeekedBytes {
    endpoint: String,
    offset: u64,
    #[serde(flatten)]
    payload: Payload,
}

/// Of one semaphore of a set.
#[derive(Serialize)]
struct PeekedValue {
    endpoint: String,
    value: u16,
}

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose()?;
    args.check()?;
    match &args.endpoint {
        Endpoint::SysvQueue(name) => args.messages(*name),
        Endpoint::PosixQueue(_) => {
            args.state()?;
            output::note(format_args!(
                "{}: a POSIX queue shows its messages to receivers only",
                args.endpoint
            ));
            Ok(())
        }
        Endpoint::SysvSemaphore(_, None) | Endpoint::PosixSemaphore(_) => args.state(),
        Endpoint::SysvSemaphore(name, Some(index)) => {
            let set = objects::sysv_semaphores(*name).map_err(|error| explain(&args.endpoint, error))?;
            let value = set.value(*index).map_err(|error| explain(&args.endpoint, error))?;
            args.value(value)
        }
        Endpoint::Fifo(path) => args.fifo(path),
        Endpoint::UnixDatagram(name) => args.datagram(name),
        Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..) => args.memory(),
        Endpoint::Pty(_)
        | Endpoint::UnixStream(_)
        | Endpoint::Tcp(_)
        | Endpoint::UnixSeqpacket(_)
        | Endpoint::Udp(_) => {
            let endpoint = &args.endpoint;
            let why = "what waits there waits in its receiver's descriptor, where only the receiver can look";
            Err(Failure::usage(format!("{endpoint}: {why}; be the receiver: ginnel recv")))
        }
        other => Err(Failure::usage(format!("{other}: nothing waits in it that could be looked at"))),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn check(&self) -> Result<()> {
        let is_memory =
            matches!(self.endpoint, Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..));
        let is_queue = matches!(self.endpoint, Endpoint::SysvQueue(_));
        let is_fifo = matches!(self.endpoint, Endpoint::Fifo(_));
        let wrong = [
            (
                (self.index.is_some() || self.count.is_some()) && !is_queue,
                "--index and --count are for sysv-msg",
            ),
            (self.offset.is_some() && !is_memory, "--offset is for memory: sysv-shm, posix-shm, file"),
            (self.length.is_some() && !is_memory && !is_fifo, "--length is for memory and FIFOs"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(Failure::usage(format!("{}: {why}", self.endpoint))),
            None => Ok(()),
        }
    }

    fn messages(&self, name: SysvName) -> Result<()> {
        let explained = |error| explain(&self.endpoint, error);
        let queue = objects::sysv_queue(name).map_err(explained)?;
        let first = self.index.unwrap_or(0);
        let count = if self.index.is_some() { 1 } else { self.count.unwrap_or(usize::MAX) };
        for index in (first..).take(count) {
            let message = match queue.peek_vec(index) {
                Ok(message) => message,
                Err(error) if error.errno_name() == "ENOMSG" && self.index.is_none() => break,
                Err(error) if error.errno_name() == "ENOMSG" => {
                    let held = queue.status().map_err(explained)?.messages;
                    let held = state::plural(held, "message");
                    return Err(Failure::failed(format!(
                        "{}: no message {index}: it holds {held}",
                        self.endpoint
                    )));
                }
                Err(error) => return Err(explained(error)),
            };
            if self.json {
                output::json_line(&Peeked {
                    endpoint: self.endpoint.to_string(),
                    index,
                    message_type: message.message_type,
                    payload: Payload::new(&message.payload),
                })?;
            } else {
                let newline: &[u8] = if message.payload.ends_with(b"\n") { b"" } else { b"\n" };
                let head = format!("{index}\t{}\t", message.message_type);
                output::print([head.as_bytes(), &message.payload, newline].concat())?;
            }
        }
        Ok(())
    }

    fn value(&self, value: u16) -> Result<()> {
        let endpoint = self.endpoint.to_string();
        match self.json {
            true => output::json_line(&PeekedValue { endpoint, value }),
            false => output::line(format!("{endpoint}: value {value}")),
        }
    }

    fn state(&self) -> Result<()> {
        let state = State::of(&self.endpoint, &Users::default())?;
        match self.json {
            true => output::json_line(&state),
            false => output::line(format!("{}: {}", state.endpoint, state.holds)),
        }
    }

    fn fifo(&self, path: &Path) -> Result<()> {
        let explained = |error| explain(&self.endpoint, error);
        let fifo = Fifo::open(path).map_err(explained)?;
        // Only while somebody has it open does it hold anything. To open it then, beside them, changes nothing for them;
        // otherwise it would let a writer go on that waits for a reader.
        let metadata = fs::metadata(path).context(&self.endpoint)?;
        if Users::default().of(&metadata).is_empty() {
            output::note(format_args!(
                "{}: nobody that can be seen has it open, so it holds nothing",
                self.endpoint
            ));
            return Ok(());
        }
        let reader = fifo.try_open_reader().map_err(explained)?;
        // What it holds now says how much memory that takes, not what was typed.
        let held =
            rustix::io::ioctl_fionread(&reader).map_err(std::io::Error::from).context(&self.endpoint)?;
        let len = held.min(self.length.unwrap_or(64 * 1024));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        match reader.try_peek(&mut bytes) {
            Ok(len) => bytes.truncate(len),
            Err(error) if error.is_would_block() => bytes.clear(),
            Err(error) => return Err(explained(error)),
        }
        self.print_bytes(&bytes, 0, |bytes| output::print(bytes))
    }

    /// The next message of a socket that another process has bound, through a copy of its descriptor.
    fn datagram(&self, name: &str) -> Result<()> {
        let explained = |error| explain(&self.endpoint, error);
        let mut sockets = state::unix_sockets()?.into_iter();
        let bound = sockets.find(|bound| bound.socket == SocketType::Datagram && bound.name == name);
        let missing = || Failure::failed(format!("{}: no socket is bound to this name", self.endpoint));
        let inode = bound.ok_or_else(missing)?.inode;
        let (pid, descriptor) = holder_of_socket(inode).ok_or_else(|| {
            Failure::failed(format!("{}: the process that has it cannot be seen from here", self.endpoint))
        })?;
        let copy = PidFd::open(pid).and_then(|process| process.get_fd(descriptor)).map_err(explained)?;
        let socket = UnixDatagram::from_fd(copy).map_err(explained)?;
        let mut buffer = vec![
            0;
            match socket.try_peek(&mut []) {
                Ok(next) => next.full_len,
                Err(error) if error.is_would_block() => return Ok(()),
                Err(error) => return Err(explained(error)),
            }
        ];
        // The receiver may have taken it meanwhile.
        match socket.try_peek(&mut buffer) {
            Ok(next) => buffer.truncate(next.len),
            Err(error) if error.is_would_block() => return Ok(()),
            Err(error) => return Err(explained(error)),
        }
        self.print_bytes(&buffer, 0, |bytes| {
            let newline: &[u8] = if bytes.ends_with(b"\n") { b"" } else { b"\n" };
            output::print([bytes, newline].concat())
        })
    }

    fn memory(&self) -> Result<()> {
        let whole = memory::whole(&self.endpoint);
        let part = Part::of(&self.endpoint, self.offset, self.length)?;
        let bytes = memory::read(&whole, part, DUMP_BYTES)?;
        self.print_bytes(&bytes, part.offset, |bytes| output::print(payload::dump(bytes, part.offset)))
    }

    fn print_bytes(&self, bytes: &[u8], offset: u64, print: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        if !self.json {
            return print(bytes);
        }
        let endpoint = self.endpoint.to_string();
        output::json_line(&PeekedBytes { endpoint, offset, payload: Payload::new(bytes) })
    }
}

/// Which process has the socket, under which number.
fn holder_of_socket(inode: u64) -> Option<(i32, i32)> {
    let target = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid| {
        let table = DescriptorTable::read(pid).ok()?;
        let mut descriptors = table.descriptors.into_iter();
        descriptors.find(|(_, descriptor)| descriptor.target == target).map(|(number, _)| (pid, number))
    })
}
