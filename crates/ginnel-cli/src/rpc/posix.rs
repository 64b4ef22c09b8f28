//! Request and reply over POSIX queues: one for requests, and one for the replies of each client.
//!
//! The client makes its own queue, whose name follows from its request ([`reply_queue`]), and removes it; its guardian
//! does when it is killed. So a reply never waits: there is room for one, and a client that has not taken the last one
//! has not asked again, or loses it. The server opens only names of that form, so no client can have it write into any
//! other queue. It must be allowed to: client and server are the same user, or the server is root.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ginnel::message::PosixQueue;

use super::jobs::{Caller, Jobs, ReplyLimit};
use super::lamp::Place;
use super::{REPLY_BYTES, Request};
use crate::failure::{Failure, Result};
use crate::home;
use crate::output;

/// The queue as lamps name it.
pub(crate) fn place(name: &str) -> Place {
    let home = home::current().path();
    Place::new("posix-mq", &home.map_or(name.to_string(), |home| format!("{}{name}", home.display())))
}

/// The name of the queue for a client's replies.
pub(crate) fn reply_queue(pid: i32, client: u64) -> String {
    format!("/ginnel-reply-{pid}-{client:016x}")
}

/// Serves for ever.
pub(crate) fn serve(queue: &PosixQueue, jobs: &Arc<Jobs>) -> Result<()> {
    let bytes = queue.message_bytes_max();
    let why = format!("a message of this queue holds (its mq_msgsize is {bytes})");
    let limit = ReplyLimit { bytes: bytes.saturating_sub(REPLY_BYTES), why };
    // What waits for a worker here waits no longer in the queue: as many as there are workers.
    let (backlog, requests) = mpsc::sync_channel::<Request>(jobs.parallel);
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..jobs.parallel {
        let (requests, jobs, limit) = (requests.clone(), jobs.clone(), limit.clone());
        let work = move || {
            loop {
                let next = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(request) = next else { return };
                answer(&request, &jobs, &limit);
            }
        };
        std::thread::Builder::new()
            .spawn(work)
            .map_err(|error| Failure::failed(format!("starting a thread: {error}")))?;
    }
    loop {
        let message = match queue.recv_vec() {
            Ok(message) => message,
            Err(error) if error.is_interrupted() => continue,
            Err(error) => return Err(error.into()),
        };
        match Request::decode(&message.payload) {
            Some(request) => backlog.send(request).map_err(Failure::failed)?,
            None => output::note(format_args!("a message of {} bytes was no request", message.payload.len())),
        }
    }
}

fn answer(request: &Request, jobs: &Jobs, limit: &ReplyLimit) {
    let name = reply_queue(request.pid, request.tag.client);
    let replies = match PosixQueue::options().namespace(home::current()).read(false).open(&name) {
        Ok(replies) => replies,
        // The client is gone, and its queue with it.
        Err(error) if error.is_not_found() => return,
        Err(error) => return output::note(format_args!("a client cannot be answered: {error}")),
    };
    let own_bytes = replies.message_bytes_max();
    let own_limit = ReplyLimit {
        bytes: own_bytes.saturating_sub(REPLY_BYTES),
        why: format!("a message of the client's queue holds (its mq_msgsize is {own_bytes})"),
    };
    let limit = if own_limit.bytes < limit.bytes { &own_limit } else { limit };
    let caller = Caller { pid: Some(request.pid), uid: None };
    let answer = jobs.run(caller, &request.payload, limit);
    if let Err(error) = replies.try_send(0, &answer.encode(request.tag)) {
        output::note(format_args!("a client has not taken its last reply, and loses the next: {error}"));
    }
}
