//! `ginnel recv`: the other end of anything that can be sent to.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use ginnel::message::Select;
use ginnel::notify::{Handler, Signal};
use ginnel::sync::posix_semaphore::Unit;
use ginnel::sync::{Operation, PosixSemaphore};
use ginnel::{Deadline, Endpoint};
use serde::Serialize;

use crate::args::{self, Wait};
use crate::failure::{Failure, Result};
use crate::home::{self, HomeArgs};
use crate::memory::{self, Part};
use crate::objects::{self, Plan, explain};
use crate::output;
use crate::payload::Payload;
use crate::source::{Acceptor, Cut, Item, Source};
use crate::{signals, streams};

/// Receive messages or bytes, read shared memory, take from a semaphore.
///
/// From what carries messages one is received (or --count of them) and printed with a newline after it unless it ends in
/// one. A byte stream (FIFO, terminal, Unix socket, TCP) is copied to standard output until its end; with --count, that
/// many lines of it. Memory (sysv-shm, posix-shm, file) is printed as it is. From a semaphore one unit (or --count of
/// them) is taken. Datagram sockets are bound to the name; so are, with --create, stream and seqpacket sockets, which
/// connect to it otherwise. What was bound goes when this ends, however it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel recv sysv-msg:0x2a --type '<=5'
  ginnel recv posix-mq:/jobs --follow --json
  ginnel recv unix-dgram:/tmp/d --count 3 --timeout 5s
  ginnel recv tcp:localhost:7000 --create > copy.tar
  ginnel recv fifo:/tmp/a --create --follow
  ginnel recv posix-sem:/slots --timeout 2s && echo got a slot
  ginnel recv file:/data#4096+512 | hexdump -C")]
pub(crate) struct Args {
    /// Where to receive from: KIND:NAME, see `ginnel endpoints`.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// Which message of a System V queue: any, 3 (that type), <=3 or -3 (the lowest type up to it), !3 (any other).
    #[arg(long = "type", value_name = "SELECT", value_parser = args::select, allow_hyphen_values = true)]
    select: Option<Select>,
    /// Only to say that there is no such thing.
    #[arg(long, value_name = "N", hide = true)]
    priority: Option<u32>,
    /// How many messages, lines or units.
    #[arg(long, value_name = "N", conflicts_with = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Go on for ever: when a peer goes, wait for the next one.
    #[arg(long, short)]
    follow: bool,
    /// Make the object if there is none; bind the socket and take connections.
    #[arg(long, visible_alias = "bind")]
    create: bool,
    /// Print messages as they are, without a newline.
    #[arg(long)]
    raw: bool,
    /// Print a JSON object a line for each message (of a stream: for each line), with its type, priority and sender.
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Where in the memory to begin.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    offset: Option<u64>,
    /// How much of the memory to read; to its end unless said.
    #[arg(long, value_name = "BYTES", value_parser = args::size)]
    length: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

/// How long to wait before the next attempt to connect to a server that is not there.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Record<'a> {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Serialize)]
struct Taken {
    endpoint: String,
    taken: u32,
}

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose()?;
    args.check()?;
    match &args.endpoint {
        Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..) => args.memory(),
        Endpoint::SysvSemaphore(..) | Endpoint::PosixSemaphore(_) => args.take(),
        Endpoint::Icmp(_) => {
            let why = format!("{}: an echo comes back to who asked for it: ginnel send", args.endpoint);
            Err(Failure::usage(why))
        }
        Endpoint::Signal(pid) => Err(Failure::usage(format!(
            "{}: signals reach that process only; `ginnel signal {pid} --timeout 1m` sends one and waits for its end",
            args.endpoint
        ))),
        Endpoint::RecordLock(..) | Endpoint::Flock(_) => {
            Err(Failure::usage(objects::not_by_itself(&args.endpoint)))
        }
        _ => args.receive(),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Refuses what means nothing for this kind of endpoint.
    fn check(&self) -> Result<()> {
        let endpoint = &self.endpoint;
        let is_memory =
            matches!(endpoint, Endpoint::SysvSegment(_) | Endpoint::PosixShm(_) | Endpoint::File(..));
        let is_semaphore = matches!(endpoint, Endpoint::SysvSemaphore(..) | Endpoint::PosixSemaphore(_));
        let is_posix_queue = matches!(endpoint, Endpoint::PosixQueue(_));
        let selects = self.select.is_some();
        let wrong = [
            (
                self.priority.is_some() || (selects && is_posix_queue),
                "there is no choosing by --priority or --type: a POSIX queue gives the highest priority first, and no \
                 other queue has priorities",
            ),
            (selects && !matches!(endpoint, Endpoint::SysvQueue(_)), "--type is for sysv-msg"),
            (
                (self.offset.is_some() || self.length.is_some()) && !is_memory,
                "--offset and --length are for memory: sysv-shm, posix-shm, file",
            ),
            (self.count.is_some() && is_memory, "memory has no messages to count; --length says how much"),
            (self.follow && (is_memory || is_semaphore), "--follow is for messages and streams"),
            (self.create && is_memory, "new memory holds nothing to be read: ginnel create"),
            (self.create && matches!(endpoint, Endpoint::Pty(_)), "a terminal cannot be made"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(Failure::usage(format!("{endpoint}: {why}"))),
            None => Ok(()),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::Fifo(_) | Endpoint::Pty(_) | Endpoint::UnixStream(_) | Endpoint::Tcp(_)
        )
    }

    fn cut(&self) -> Cut {
        match (self.count, self.json) {
            (Some(_), _) => Cut::ExactLines,
            (None, true) => Cut::Lines,
            (None, false) => Cut::Chunks,
        }
    }

    fn explained(&self, error: ginnel::Error) -> Failure {
        explain(&self.endpoint, error)
    }

    fn receive(&self) -> Result<()> {
        let binds = self.create || matches!(self.endpoint, Endpoint::UnixDatagram(_));
        let _guardian = if binds { objects::guard_socket(&self.endpoint)? } else { None };
        let acceptor = match self.create {
            true => Acceptor::bind(&self.endpoint, self.cut()).map_err(|error| self.explained(error))?,
            false => None,
        };
        match acceptor {
            Some(acceptor) if self.follow => self.serve(acceptor),
            Some(acceptor) => {
                let source = acceptor.accept(self.wait.deadline()).map_err(|error| self.explained(error))?;
                self.drain(source)
            }
            None => {
                let is_socket = matches!(self.endpoint, Endpoint::UnixDatagram(_) | Endpoint::Udp(_));
                if self.create && !is_socket {
                    objects::create(&self.endpoint, &Plan::BESIDES)?;
                }
                self.drain(self.open()?)
            }
        }
    }

    fn open(&self) -> Result<Source> {
        let select = self.select.unwrap_or(Select::Any);
        let deadline = self.wait.deadline();
        loop {
            match Source::open(&self.endpoint, select, self.cut(), deadline) {
                // A server that is not there may come; what is no connection is not waited for.
                Err(error) if self.follow && self.connects() && error.is_not_found() => {
                    if deadline.has_passed() {
                        return Err(self.explained(error));
                    }
                    thread::sleep(RETRY.min(deadline.remaining().unwrap_or(RETRY)));
                }
                other => return other.map_err(|error| self.explained(error)),
            }
        }
    }

    fn connects(&self) -> bool {
        matches!(self.endpoint, Endpoint::UnixStream(_) | Endpoint::Tcp(_) | Endpoint::UnixSeqpacket(_))
    }

    /// Prints what comes, until there is enough of it or the end.
    fn drain(&self, mut source: Source) -> Result<()> {
        let wanted = match (self.count, self.is_stream()) {
            _ if self.follow => None,
            (Some(count), _) => Some(count),
            (None, true) => None,
            (None, false) => Some(1),
        };
        let mut received = 0;
        while wanted.is_none_or(|wanted| received < wanted) {
            match source.next(self.wait.deadline()) {
                Ok(Some(item)) => {
                    self.print(&item)?;
                    received += 1;
                }
                Ok(None) if !self.follow && wanted.is_none() => return Ok(()),
                Ok(None) if !self.follow => {
                    let wanted = wanted.unwrap_or_default();
                    let why = format!("{}: the end came after {received} of {wanted}", self.endpoint);
                    return Err(Failure::failed(why));
                }
                Ok(None) => self.again(&mut source)?,
                Err(error) if self.follow && self.connects() && error.is_disconnected() => {
                    self.again(&mut source)?;
                }
                Err(error) => return Err(self.explained(error)),
            }
        }
        Ok(())
    }

    /// After the end: the next writer, or the next server.
    fn again(&self, source: &mut Source) -> Result<()> {
        match source.resume(self.wait.deadline()) {
            Some(resumed) => resumed.map_err(|error| self.explained(error)),
            None => {
                *source = self.open()?;
                Ok(())
            }
        }
    }

    /// Takes connection after connection, all at the same time.
    fn serve(&self, acceptor: Acceptor) -> Result<()> {
        let (sender, items) = mpsc::sync_channel(16);
        let acceptor = Arc::new(acceptor);
        let for_thread = acceptor.clone();
        thread::spawn(move || accept_all(&for_thread, &sender));
        let outcome = self.print_all(&items);
        // The thread keeps the listener, and the name with it, for as long as this process lives. While it is bound the
        // name is ours; the guardian would take it for somebody else's.
        if objects::has_socket_file(&self.endpoint) {
            objects::remove(&self.endpoint)?;
        }
        drop(acceptor);
        outcome
    }

    fn print_all(&self, items: &Receiver<ginnel::Result<Item>>) -> Result<()> {
        loop {
            let next = match self.wait.timeout {
                Some(timeout) => items.recv_timeout(timeout),
                None => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Ok(item)) => self.print(&item)?,
                Ok(Err(error)) => return Err(self.explained(error)),
                Err(RecvTimeoutError::Timeout) => {
                    let why = format!("{}: nothing came before the --timeout passed", self.endpoint);
                    return Err(Failure::failed(why));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn print(&self, item: &Item) -> Result<()> {
        if self.json {
            let record = Record {
                endpoint: self.endpoint.to_string(),
                message_type: item.message_type,
                priority: item.priority,
                peer: item.peer.as_deref(),
                payload: Payload::new(&item.payload),
            };
            return output::json_line(&record);
        }
        let is_whole = !self.is_stream() || self.cut() != Cut::Chunks;
        let needs_newline = is_whole && !self.raw && !item.payload.ends_with(b"\n");
        match needs_newline {
            true => output::print([item.payload.as_slice(), b"\n"].concat()),
            false => output::print(&item.payload),
        }
    }

    fn memory(&self) -> Result<()> {
        let part = Part::of(&self.endpoint, self.offset, self.length)?;
        let bytes = memory::read(&self.endpoint, part, u64::MAX)?;
        if !self.json {
            return output::print(bytes);
        }
        output::json_line(&Record {
            endpoint: self.endpoint.to_string(),
            message_type: None,
            priority: None,
            peer: None,
            payload: Payload::new(&bytes),
        })
    }

    /// All units or none.
    fn take(&self) -> Result<()> {
        let count = self.count.unwrap_or(1);
        let deadline = self.wait.deadline();
        match &self.endpoint {
            Endpoint::SysvSemaphore(name, index) => {
                if self.create {
                    let values = vec![0; usize::from(index.unwrap_or(0)) + 1];
                    objects::create(&self.endpoint, &Plan { values, ..Plan::BESIDES })?;
                }
                let units = objects::sysv_units(count)?;
                let take = Operation::take(index.unwrap_or(0), units);
                let set = objects::sysv_semaphores(*name).map_err(|error| self.explained(error))?;
                set.operate_deadline(&[take], deadline).map_err(|error| self.explained(error))?;
            }
            Endpoint::PosixSemaphore(name) => {
                let semaphore =
                    PosixSemaphore::options().namespace(home::current()).create(self.create).open(name);
                let semaphore = semaphore.map_err(|error| self.explained(error))?;
                self.take_units(&semaphore, count, deadline)?;
            }
            _ => unreachable!("only semaphores are taken from"),
        }
        match self.json {
            true => output::json_line(&Taken { endpoint: self.endpoint.to_string(), taken: count }),
            false => Ok(()),
        }
    }
}

/// A signal that ends this process goes unnoticed for so long while it waits for a unit.
const LOOK: Duration = Duration::from_millis(100);

impl Args {
    /// Each unit that was taken goes back if a later one is not to be had, or a signal ends this process before.
    fn take_units(&self, semaphore: &PosixSemaphore, count: u32, deadline: Deadline) -> Result<()> {
        let ending = if count > 1 { &[Signal::INT, Signal::TERM, Signal::HUP][..] } else { &[] };
        let caught = Handler::new(signals::unless_ignored(ending)?)?;
        let mut taken = Vec::new();
        while taken.len() < count as usize {
            let slice = match deadline.remaining() {
                Some(left) if left <= LOOK => deadline,
                _ => LOOK.into(),
            };
            match semaphore.acquire_deadline(slice) {
                Ok(unit) => taken.push(unit),
                Err(error) if error.is_interrupted() => {}
                Err(error) if error.is_timed_out() && !deadline.has_passed() => {}
                Err(error) => return Err(self.explained(error)),
            }
            if let Ok(info) = caught.try_wait() {
                drop(taken);
                signals::die_of(info.signal);
                return Err(Failure::failed(format!("{}: ended by {}", self.endpoint, info.signal)));
            }
        }
        taken.into_iter().for_each(Unit::keep);
        Ok(())
    }
}

/// Runs until a connection cannot be taken, or nobody wants the items any more.
fn accept_all(acceptor: &Acceptor, items: &SyncSender<ginnel::Result<Item>>) {
    loop {
        match acceptor.accept(Deadline::NEVER) {
            Ok(source) => {
                let items = items.clone();
                if let Err(error) = thread::Builder::new().spawn(move || hand_on(source, &items)) {
                    output::note(format_args!("a connection was given up: starting a thread: {error}"));
                }
            }
            Err(error) if streams::is_for_now(&error) => {}
            Err(error) => {
                let _ = items.send(Err(error));
                return;
            }
        }
    }
}

/// Until the peer's end. How one peer ends is no reason to leave the others.
fn hand_on(mut source: Source, items: &SyncSender<ginnel::Result<Item>>) {
    loop {
        match source.next(Deadline::NEVER) {
            Ok(Some(item)) => {
                if items.send(Ok(item)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                output::note(error);
                return;
            }
        }
    }
}
