//! Request and reply over one System V queue: requests have type 1, a reply has its client's PID as its type.
//!
//! # What could go wrong, and what is done
//! **Requests and replies share one budget** (`msg_qbytes`): clients that fill the queue with requests keep replies out,
//! and wait for those replies: a deadlock. So the server never stops taking requests while a reply waits to be sent:
//! they move to its memory. (While none waits it takes at most [`BACKLOG_BYTES`] of them, and leaves the others, and
//! their clients, where they are.)
//!
//! **A client that does not take its reply**, stopped or hung, occupies the budget. When a reply finds no room, the
//! server takes replies back that it sent earlier, which nobody has taken yet, and sends them again later, each in its
//! turn. A client that waits is handed its reply by the kernel at that moment, so it is always served.
//!
//! **A client that died** never takes its reply. The server does not send to a PID that is gone, sweeps the replies of
//! those that are gone by now each second, and, when it starts, those that an earlier server left.
//!
//! **A PID that is used again**: the newcomer drops a reply that is not to a request of its own (its tag tells).
//!
//! **Two PID namespaces** have the same PIDs. A request says where its client is, and one from elsewhere is refused, on
//! the server's standard error: the reply's type could not reach it. `ginnel call` refuses by itself: the lamp tells.
//! PID 1 cannot be a client, since its replies would be requests.
//!
//! # Threads
//! One takes requests; as many workers as commands may run take them from the backlog; one, the postman, sends. The
//! office's lock is never held over a system call that waits.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ginnel::message::{Select, SysvQueue};
use ginnel::notify::Target;
use ginnel::{Deadline, Error};

use super::jobs::{Caller, Jobs, ReplyLimit};
use super::lamp::Place;
use super::{Answer, REPLY_BYTES, Request, namespace};
use crate::failure::{Failure, Result};
use crate::home;
use crate::output;

/// The type of every request.
pub(crate) const REQUEST: i64 = 1;

const BACKLOG_BYTES: usize = 4 << 20;
/// How long the postman waits for room before it makes some.
const PATIENCE: Duration = Duration::from_millis(20);
const SWEEP: Duration = Duration::from_secs(1);

/// The queue as lamps name it.
pub(crate) fn place(queue: &SysvQueue) -> Place {
    let (id, home) = (queue.id(), home::current().path());
    Place::new("sysv-msg", &home.map_or(id.to_string(), |home| format!("{}/{id}", home.display())))
}

/// The longest reply that fits.
pub(crate) fn reply_limit(queue: &SysvQueue) -> Result<ReplyLimit> {
    let room = queue.status()?.bytes_max as usize;
    let limits = SysvQueue::limits_in(home::current());
    let message = limits.map_or(8192, |limits| limits.message_bytes_max as usize);
    let why = if room < message {
        format!("fit this queue (msg_qbytes is {room})")
    } else {
        let limit = if home::current().is_kernel() { "kernel.msgmax" } else { "the namespace's msgmax" };
        format!("a message of a System V queue holds ({limit} is {message})")
    };
    Ok(ReplyLimit { bytes: room.min(message).saturating_sub(REPLY_BYTES), why })
}

/// Serves until the queue is removed.
pub(crate) fn serve(queue: SysvQueue, jobs: Arc<Jobs>) -> Result<()> {
    let limit = reply_limit(&queue)?;
    let office = Arc::new(Office { queue, desk: Mutex::default(), changed: Condvar::new() });
    office.clear_old_replies()?;
    for _ in 0..jobs.parallel {
        let (office, jobs, limit) = (office.clone(), jobs.clone(), limit.clone());
        spawn("worker", move || office.work(&jobs, &limit))?;
    }
    let postman = office.clone();
    spawn("postman", move || postman.deliver())?;
    office.take_requests()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    thread.map(drop).map_err(|error| Failure::failed(format!("starting a thread: {error}")))
}

struct Office {
    queue: SysvQueue,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// What is in the server's memory.
#[derive(Default)]
struct Desk {
    requests: VecDeque<Request>,
    request_bytes: usize,
    replies: VecDeque<Letter>,
    /// A reply that the postman has in hand: out of `replies` and not in the queue.
    posting: bool,
    /// The queue is gone, and why.
    closed: Option<Error>,
}

/// A reply on its way.
struct Letter {
    pid: i32,
    bytes: Vec<u8>,
}

impl Letter {
    fn receiver_is_gone(&self) -> bool {
        is_gone(self.pid)
    }
}

fn is_gone(pid: i32) -> bool {
    matches!(Target::Process(pid).exists(), Ok(false))
}

impl Office {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the replies that an earlier server left: those of the dead are dropped, the others sent again.
    fn clear_old_replies(&self) -> Result<()> {
        let mut others = Vec::new();
        loop {
            match self.queue.recv_vec_deadline(Select::Except(REQUEST), Deadline::NOW) {
                Ok(message) if Answer::decode(&message.payload).is_none() => others.push(message),
                Ok(message) => {
                    let letter = Letter { pid: message.message_type as i32, bytes: message.payload };
                    self.desk().replies.push_back(letter);
                }
                Err(error) if error.is_would_block() => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Whoever else uses this queue gets its messages back.
        for message in others {
            self.queue.send(message.message_type, &message.payload)?;
        }
        Ok(())
    }

    /// The thread that takes requests.
    fn take_requests(&self) -> Result<()> {
        let own_namespace = namespace("pid");
        loop {
            let mut desk = self.desk();
            // A reply that waits may wait for the room that requests occupy: go on then.
            while desk.closed.is_none()
                && desk.request_bytes > BACKLOG_BYTES
                && desk.replies.is_empty()
                && !desk.posting
            {
                desk = self.wait(desk);
            }
            if let Some(error) = &desk.closed {
                return Err(Failure::failed(error));
            }
            drop(desk);
            let message = match self.queue.recv_vec(Select::Type(REQUEST)) {
                Ok(message) => message,
                Err(error) if error.is_interrupted() => continue,
                Err(error) => return Err(error.into()),
            };
            match Request::decode(&message.payload) {
                None => {
                    output::note(format_args!("a message of {} bytes was no request", message.payload.len()))
                }
                Some(request) if request.pid <= REQUEST as i32 => {
                    output::note(format_args!(
                        "a request from PID {} cannot be answered over this queue",
                        request.pid
                    ));
                }
                Some(request) if ![0, own_namespace].contains(&request.pid_namespace) => {
                    output::note(format_args!(
                        "a request from PID {} of another PID namespace was refused: replies go to PIDs of this one",
                        request.pid
                    ))
                }
                Some(request) => {
                    let mut desk = self.desk();
                    desk.request_bytes += request.payload.len() + super::REQUEST_BYTES;
                    desk.requests.push_back(request);
                    self.changed.notify_all();
                }
            }
        }
    }

    /// A thread that answers requests.
    fn work(&self, jobs: &Jobs, limit: &ReplyLimit) {
        loop {
            let mut desk = self.desk();
            let request = loop {
                match desk.requests.pop_front() {
                    Some(request) => break request,
                    None => desk = self.wait(desk),
                }
            };
            desk.request_bytes -= request.payload.len() + super::REQUEST_BYTES;
            drop(desk);
            self.changed.notify_all();
            if is_gone(request.pid) {
                continue;
            }
            let caller = Caller { pid: Some(request.pid), uid: None };
            let answer = jobs.run(caller, &request.payload, limit);
            let letter = Letter { pid: request.pid, bytes: answer.encode(request.tag) };
            self.desk().replies.push_back(letter);
            self.changed.notify_all();
        }
    }

    /// The thread that sends replies.
    fn deliver(&self) {
        // To whom was sent what may still be in the queue.
        let mut posted = HashSet::new();
        loop {
            let outcome = match self.next_letter() {
                Some(letter) => self.post(letter, &mut posted),
                None => self.sweep(&mut posted),
            };
            let mut desk = self.desk();
            desk.posting = false;
            if let Err(error) = outcome {
                desk.closed = Some(error);
                self.changed.notify_all();
                return;
            }
        }
    }

    /// The next reply to send; `None` when it is time to sweep.
    fn next_letter(&self) -> Option<Letter> {
        let wait = self.changed.wait_timeout_while(self.desk(), SWEEP, |desk| desk.replies.is_empty());
        let (mut desk, _) = wait.unwrap_or_else(PoisonError::into_inner);
        let letter = desk.replies.pop_front();
        desk.posting = letter.is_some();
        // The requests may have to move out of its way.
        self.changed.notify_all();
        letter
    }

    fn post(&self, letter: Letter, posted: &mut HashSet<i32>) -> ginnel::Result<()> {
        if letter.receiver_is_gone() {
            return Ok(());
        }
        match self.queue.send_deadline(letter.pid.into(), &letter.bytes, PATIENCE) {
            Ok(()) => {
                posted.insert(letter.pid);
                Ok(())
            }
            Err(error) if error.is_timed_out() || error.is_interrupted() => {
                self.take_back(posted)?;
                // First in the line, before those that were just taken back.
                self.desk().replies.push_front(letter);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes room: takes the replies that nobody has taken out of the queue, to send them again later.
    fn take_back(&self, posted: &mut HashSet<i32>) -> ginnel::Result<()> {
        for pid in posted.drain() {
            while let Some(letter) = self.untaken(pid)? {
                if !letter.receiver_is_gone() {
                    self.desk().replies.push_back(letter);
                }
            }
        }
        Ok(())
    }

    /// Drops the replies of clients that have died since.
    fn sweep(&self, posted: &mut HashSet<i32>) -> ginnel::Result<()> {
        if self.queue.status()?.messages == 0 {
            posted.clear();
        }
        let gone: Vec<i32> = posted.iter().copied().filter(|pid| is_gone(*pid)).collect();
        for pid in gone {
            while self.untaken(pid)?.is_some() {}
            posted.remove(&pid);
        }
        Ok(())
    }

    fn untaken(&self, pid: i32) -> ginnel::Result<Option<Letter>> {
        match self.queue.recv_vec_deadline(Select::Type(pid.into()), Deadline::NOW) {
            Ok(message) => Ok(Some(Letter { pid, bytes: message.payload })),
            Err(error) if error.is_would_block() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
