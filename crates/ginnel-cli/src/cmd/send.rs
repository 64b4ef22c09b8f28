//! `ginnel send`: one end of anything that can be sent to.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ginnel::Endpoint;
use ginnel::message::{IcmpEcho, PosixQueue, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacket};
use ginnel::notify::Signal;
use ginnel::sync::{Operation, PosixSemaphore};

use crate::args::{self, Wait};
use crate::cmd::signal;
use crate::failure::{Context, Failure, Result};
use crate::home::{self, HomeArgs};
use crate::memory::{self, Part};
use crate::objects::{self, Plan, explain};
use crate::output;
use crate::streams::{CHUNK, Writer};
use crate::units;

/// Send messages or bytes, write into shared memory, post a semaphore, signal a process.
///
/// Each MESSAGE is sent as a message of its own; without one, standard input is. Through a byte stream (FIFO, terminal,
/// Unix socket, TCP) a MESSAGE is followed by a newline and standard input goes as it is. Into memory (sysv-shm,
/// posix-shm, file) the bytes are written where the object begins, or at --offset. To a semaphore, sending is adding
/// --count units. To a process, the MESSAGE is the name of the signal. An echo (icmp) is waited for 10 s unless --timeout
/// says otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel send sysv-msg:0x2a --create --type 3 'sweep the yard'
  ginnel send posix-mq:/jobs --priority 9 urgent
  seq 5 | ginnel send unix-dgram:/tmp/d --lines
  tar c . | ginnel send tcp:localhost:7000
  ginnel send fifo:/tmp/a --timeout 5s hello
  ginnel send posix-sem:/slots --count 3
  ginnel send icmp:localhost --count 4")]
pub(crate) struct Args {
    /// Where to send to: KIND:NAME, see `ginnel endpoints`.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// What to send.
    #[arg(value_name = "MESSAGE", conflicts_with = "lines")]
    messages: Vec<OsString>,
    /// Each line of standard input is a message.
    #[arg(long)]
    lines: bool,
    /// Through a byte stream: no newline after each MESSAGE or line.
    #[arg(short = 'n', long)]
    no_newline: bool,
    /// The type of a System V message; 1 unless said.
    #[arg(long = "type", value_name = "N", allow_negative_numbers = true)]
    message_type: Option<i64>,
    /// The priority of a POSIX queue's message, 0 to 32767; 0 unless said.
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// Send it all this many times; how many units a semaphore gets.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The number that goes with a signal.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    value: Option<i32>,
    /// Where in the memory to write.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    offset: Option<u64>,
    /// Make the object if there is none.
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    wait: Wait,
}

/// How long an echo may take unless said: what is not there does not say so.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose()?;
    args.check()?;
    match &args.endpoint {
        Endpoint::Fifo(_) | Endpoint::Pty(_) | Endpoint::UnixStream(_) | Endpoint::Tcp(_) => args.stream(),
        Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..) => args.memory(),
        Endpoint::SysvSemaphore(..) | Endpoint::PosixSemaphore(_) => args.post(),
        Endpoint::Signal(target) => {
            let name = args.messages.first().map_or("TERM".into(), |name| name.to_string_lossy());
            let chosen: Signal = name.parse().map_err(Failure::usage)?;
            (0..args.count).try_for_each(|_| signal::send(*target, chosen, args.value))
        }
        Endpoint::Icmp(host) => args.echo(host),
        Endpoint::RecordLock(..) | Endpoint::Flock(_) => {
            Err(Failure::usage(objects::not_by_itself(&args.endpoint)))
        }
        _ => args.message(),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Refuses what means nothing for this kind of endpoint.
    fn check(&self) -> Result<()> {
        let endpoint = &self.endpoint;
        let is_sysv_queue = matches!(endpoint, Endpoint::SysvQueue(_));
        let is_posix_queue = matches!(endpoint, Endpoint::PosixQueue(_));
        let is_memory =
            matches!(endpoint, Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..));
        let is_semaphore = matches!(endpoint, Endpoint::SysvSemaphore(..) | Endpoint::PosixSemaphore(_));
        let is_signal = matches!(endpoint, Endpoint::Signal(_));
        let has_words = !self.messages.is_empty() || self.lines;
        let wrong = [
            (self.message_type.is_some() && is_posix_queue, "a POSIX message has a --priority and no --type"),
            (self.message_type.is_some() && !is_sysv_queue, "--type is for sysv-msg"),
            (self.priority.is_some() && is_sysv_queue, "a System V message has a --type and no --priority"),
            (self.priority.is_some() && !is_posix_queue, "--priority is for posix-mq"),
            (self.offset.is_some() && !is_memory, "--offset is for memory: sysv-shm, posix-shm, file"),
            (self.value.is_some() && !is_signal, "--value is for signal"),
            (self.count > 1 && is_memory, "memory is written once; --count means nothing"),
            (is_semaphore && has_words, "a semaphore carries no bytes; --count N adds N units"),
            (is_signal && (self.messages.len() > 1 || self.lines), "a signal carries no bytes but --value"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(Failure::usage(format!("{endpoint}: {why}"))),
            None => Ok(()),
        }
    }

    fn stream(&self) -> Result<()> {
        if self.create {
            objects::create(&self.endpoint, &Plan::BESIDES)?;
        }
        let open = Writer::open(&self.endpoint, self.wait.deadline());
        let writer = open.map_err(|error| explain(&self.endpoint, error))?.expect("a stream's endpoint");
        let write = |bytes: &[u8]| {
            writer.write_all(bytes, self.wait.deadline()).map_err(|error| explain(&self.endpoint, error))
        };
        if self.messages.is_empty() && !self.lines && self.count == 1 {
            let mut buffer = vec![0; CHUNK];
            loop {
                match io::stdin().read(&mut buffer).context("standard input")? {
                    0 => break,
                    len => write(&buffer[..len])?,
                }
            }
        } else {
            let newline = !self.no_newline && (self.lines || !self.messages.is_empty());
            self.each_message(|message| {
                let mut bytes = message.to_vec();
                if newline {
                    bytes.push(b'\n');
                }
                write(&bytes)
            })?;
        }
        writer.finish();
        Ok(())
    }

    fn message(&self) -> Result<()> {
        if self.create {
            objects::create(&self.endpoint, &Plan::BESIDES)?;
        }
        let explained = |error| explain(&self.endpoint, error);
        let outlet = Outlet::open(self).map_err(explained)?;
        self.each_message(|message| outlet.send(message, self.wait).map_err(explained))?;
        outlet.check_arrival().map_err(explained)
    }

    /// Calls `send` with each message, as often as --count says.
    fn each_message(&self, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.lines && self.count == 1 {
            // As they come: a line is sent before the next one is read.
            let mut input = io::stdin().lock();
            let mut line = Vec::new();
            while input.read_until(b'\n', &mut line).context("standard input")? > 0 {
                send(line.strip_suffix(b"\n").unwrap_or(&line))?;
                line.clear();
            }
            return Ok(());
        }
        let messages: Vec<Vec<u8>> = if self.messages.is_empty() {
            let all = stdin()?;
            match self.lines {
                true => all
                    .strip_suffix(b"\n")
                    .unwrap_or(&all)
                    .split(|byte| *byte == b'\n')
                    .map(<[u8]>::to_vec)
                    .collect(),
                false => vec![all],
            }
        } else {
            self.messages.iter().map(|message| message.as_bytes().to_vec()).collect()
        };
        (0..self.count).try_for_each(|_| messages.iter().try_for_each(|message| send(message)))
    }

    fn memory(&self) -> Result<()> {
        let bytes = match self.messages.is_empty() {
            true => stdin()?,
            false => self.messages.join(OsStr::new("\n")).into_vec(),
        };
        let part = Part::of(&self.endpoint, self.offset, None)?;
        if self.create {
            let size = part.offset.saturating_add(bytes.len() as u64).max(1);
            let whole = memory::whole(&self.endpoint);
            objects::create(&whole, &Plan { size, ..Plan::BESIDES })?;
        }
        memory::write(&self.endpoint, part, &bytes)
    }

    fn post(&self) -> Result<()> {
        let explained = |error| explain(&self.endpoint, error);
        match &self.endpoint {
            Endpoint::SysvSemaphore(name, index) => {
                if self.create {
                    let values = vec![0; usize::from(index.unwrap_or(0)) + 1];
                    objects::create(&self.endpoint, &Plan { values, ..Plan::BESIDES })?;
                }
                let units = objects::sysv_units(self.count)?;
                let set = objects::sysv_semaphores(*name).map_err(explained)?;
                let add = Operation::add(index.unwrap_or(0), units);
                set.operate_deadline(&[add], self.wait.deadline()).map_err(explained)
            }
            Endpoint::PosixSemaphore(name) => {
                let semaphore = PosixSemaphore::options()
                    .namespace(home::current())
                    .create(self.create)
                    .open(name)
                    .map_err(explained)?;
                (0..self.count).try_for_each(|_| semaphore.post()).map_err(explained)
            }
            _ => unreachable!("only semaphores are posted"),
        }
    }

    fn echo(&self, host: &str) -> Result<()> {
        let address = resolve(host)?;
        let explained = |error| explain(&self.endpoint, error);
        let echo = IcmpEcho::open(address).map_err(explained)?;
        let mut buffer = vec![0; 65536];
        let messages = match self.messages.is_empty() {
            true => vec!["ginnel".into()],
            false => self.messages.clone(),
        };
        let requests = (0..self.count).flat_map(|_| &messages);
        for (sequence, message) in requests.enumerate() {
            let wait = Wait { timeout: self.wait.timeout.or(Some(ECHO_TIMEOUT)) };
            let (sequence, deadline) = (sequence as u16, wait.deadline());
            let start = Instant::now();
            echo.send_deadline(sequence, message.as_bytes(), deadline).map_err(explained)?;
            let reply = loop {
                let reply = echo.recv_deadline(&mut buffer, deadline).map_err(explained)?;
                if reply.sequence == sequence {
                    break reply;
                }
            };
            let time = units::nanoseconds(start.elapsed().as_nanos() as u64);
            output::line(format!("{} bytes from {}: sequence {sequence}, {time}", reply.len, reply.sender))?;
        }
        Ok(())
    }
}

/// What whole messages go through.
enum Outlet<'a> {
    SysvQueue(SysvQueue, i64),
    PosixQueue(PosixQueue, u32),
    UnixDatagram(UnixDatagram, &'a str),
    UnixSeqpacket(UnixSeqpacket),
    Udp(UdpSocket),
}

impl Outlet<'_> {
    fn open(args: &Args) -> ginnel::Result<Outlet<'_>> {
        Ok(match &args.endpoint {
            Endpoint::SysvQueue(name) => {
                Outlet::SysvQueue(objects::sysv_queue(*name)?, args.message_type.unwrap_or(1))
            }
            Endpoint::PosixQueue(name) => {
                let queue = PosixQueue::options().namespace(home::current()).read(false).open(name)?;
                Outlet::PosixQueue(queue, args.priority.unwrap_or(0))
            }
            Endpoint::UnixDatagram(name) => Outlet::UnixDatagram(UnixDatagram::unbound()?, name),
            Endpoint::UnixSeqpacket(name) => {
                Outlet::UnixSeqpacket(UnixSeqpacket::connect_deadline(name, args.wait.deadline())?)
            }
            Endpoint::Udp(address) => Outlet::Udp(UdpSocket::connect(address)?),
            _ => unreachable!("only endpoints of messages are opened for them"),
        })
    }

    fn send(&self, message: &[u8], wait: Wait) -> ginnel::Result<()> {
        let deadline = wait.deadline();
        match self {
            Outlet::SysvQueue(queue, message_type) => queue.send_deadline(*message_type, message, deadline),
            Outlet::PosixQueue(queue, priority) => queue.send_deadline(*priority, message, deadline),
            Outlet::UnixDatagram(socket, name) => socket.send_to_deadline(message, *name, deadline),
            Outlet::UnixSeqpacket(socket) => socket.send_deadline(message, deadline),
            Outlet::Udp(socket) => socket.send_deadline(message, deadline),
        }
    }

    /// A host that has nobody at a UDP port says so after the datagram has gone; on this host that is at once.
    fn check_arrival(&self) -> ginnel::Result<()> {
        match self {
            Outlet::Udp(socket) => match socket.try_peek(&mut []) {
                Err(error) if !error.is_would_block() => Err(error),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
    Ok(bytes)
}

fn resolve(host: &str) -> Result<IpAddr> {
    let mut addresses = (host, 0).to_socket_addrs().context(format_args!("icmp:{host}"))?;
    let address =
        addresses.next().ok_or_else(|| Failure::failed(format!("icmp:{host}: it has no address")))?;
    Ok(address.ip())
}
