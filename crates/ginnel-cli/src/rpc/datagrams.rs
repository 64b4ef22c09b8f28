//! Request and reply by datagrams: Unix and UDP. The reply goes to the address that the request came from.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ginnel::UnixAddress;
use ginnel::message::{Datagram, UdpSocket, UnixDatagram};

use super::connections::packet_limit;
use super::jobs::{Caller, Jobs, ReplyLimit};
use super::{REPLY_BYTES, Request};
use crate::failure::{Failure, Result};

/// The longest UDP datagram over IPv4.
pub(crate) const UDP_BYTES_MAX: usize = 65_507;

/// Serves a Unix datagram socket for ever.
pub(crate) fn serve_unix(socket: UnixDatagram, jobs: &Arc<Jobs>) -> Result<()> {
    let limit = packet_limit(socket.buffer_sizes()?.send_bytes);
    let socket = Arc::new(socket);
    let replies = socket.clone();
    let mut buffer = vec![0; limit.bytes + REPLY_BYTES + 32];
    let send = move |reply: &[u8], client: &UnixAddress| match replies.try_send_to(reply, client) {
        // This socket's send buffer may be full of replies to others who do not take theirs: one of its own helps then.
        // If it is the client's own queue that is full, the client loses the reply.
        Err(error) if error.is_would_block() => UnixDatagram::unbound()?.try_send_to(reply, client),
        outcome => outcome,
    };
    serve(
        jobs,
        &limit,
        move || socket.recv_truncated(&mut buffer, ginnel::Deadline::NEVER).map(|got| taken(got, &buffer)),
        send,
    )
}

/// Serves a UDP socket for ever.
pub(crate) fn serve_udp(socket: UdpSocket, jobs: &Arc<Jobs>) -> Result<()> {
    let limit = ReplyLimit { bytes: UDP_BYTES_MAX - REPLY_BYTES, why: "a UDP datagram holds".into() };
    let socket = Arc::new(socket);
    let replies = socket.clone();
    let mut buffer = vec![0; UDP_BYTES_MAX];
    serve(
        jobs,
        &limit,
        move || socket.recv_truncated(&mut buffer, ginnel::Deadline::NEVER).map(|got| taken(got, &buffer)),
        move |reply, client: &std::net::SocketAddr| replies.send_to(reply, *client),
    )
}

/// A datagram and its sender; `None` for one that was cut.
fn taken<A>(got: Datagram<A>, buffer: &[u8]) -> (Option<Vec<u8>>, A) {
    ((!got.is_truncated()).then(|| buffer[..got.len].to_vec()), got.sender)
}

fn serve<A: Send + 'static>(
    jobs: &Arc<Jobs>,
    limit: &ReplyLimit,
    mut recv: impl FnMut() -> ginnel::Result<(Option<Vec<u8>>, A)>,
    send: impl Fn(&[u8], &A) -> ginnel::Result<()> + Clone + Send + 'static,
) -> Result<()> {
    let (backlog, requests) = mpsc::sync_channel::<(Request, A)>(jobs.parallel);
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..jobs.parallel {
        let (requests, jobs, limit, send) = (requests.clone(), jobs.clone(), limit.clone(), send.clone());
        let work = move || {
            loop {
                let next = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((request, client)) = next else { return };
                let caller = Caller { pid: (request.pid > 0).then_some(request.pid), uid: None };
                let answer = jobs.run(caller, &request.payload, &limit);
                match send(&answer.encode(request.tag), &client) {
                    // It has gone, and took its address along.
                    Err(error) if error.is_not_found() || error.is_disconnected() => {}
                    Err(error) => eprintln!("ginnel: a reply was lost: {error}"),
                    Ok(()) => {}
                }
            }
        };
        std::thread::Builder::new()
            .spawn(work)
            .map_err(|error| Failure::failed(format!("starting a thread: {error}")))?;
    }
    loop {
        let (bytes, client) = match recv() {
            Ok(got) => got,
            // A reply of ours did not reach its client: the socket tells it here.
            Err(error) if error.is_interrupted() || error.is_not_found() || error.is_disconnected() => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match bytes.as_deref().and_then(Request::decode) {
            Some(request) => backlog.send((request, client)).map_err(Failure::failed)?,
            None => eprintln!("ginnel: a datagram was no request"),
        }
    }
}
