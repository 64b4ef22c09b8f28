//! Request and reply over connections: Unix stream sockets, TCP (both framed) and Unix seqpacket sockets.
//!
//! Each connection has a thread: it takes a request, waits for its turn to run the command, sends the reply, and takes
//! the next. So the replies of a connection come in order, and a client that does not read holds up nobody else.

use std::sync::Arc;

use ginnel::message::{UnixSeqpacket, UnixSeqpacketListener};
use ginnel::stream::{ByteRead, ByteWrite, Framed, TcpListener, UnixListener};

use super::jobs::{Caller, Jobs, ReplyLimit};
use super::{Answer, REPLY_BYTES, Request};
use crate::failure::Result;
use crate::{output, streams};

/// The longest frame: [`Framed`]'s own limit.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

const STACK_BYTES: usize = 256 << 10;

/// Serves Unix stream connections for ever.
pub(crate) fn serve_unix(listener: &UnixListener, jobs: &Arc<Jobs>) -> Result<()> {
    accept_all(
        || listener.accept(),
        |stream| {
            let peer = stream.peer_credentials()?;
            let jobs = jobs.clone();
            let caller = Caller { pid: (peer.pid > 0).then_some(peer.pid), uid: Some(peer.uid) };
            start(move || answer_frames(stream, caller, &jobs));
            Ok(())
        },
    )
}

/// Serves TCP connections for ever.
pub(crate) fn serve_tcp(listener: &TcpListener, jobs: &Arc<Jobs>) -> Result<()> {
    accept_all(
        || listener.accept(),
        |stream| {
            // A reply is written in one piece: nothing is gained by waiting for more.
            stream.set_nodelay(true)?;
            let jobs = jobs.clone();
            start(move || answer_frames(stream, Caller::default(), &jobs));
            Ok(())
        },
    )
}

/// Serves seqpacket connections for ever.
pub(crate) fn serve_seqpacket(listener: &UnixSeqpacketListener, jobs: &Arc<Jobs>) -> Result<()> {
    accept_all(
        || listener.accept(),
        |socket| {
            let peer = socket.peer_credentials()?;
            let jobs = jobs.clone();
            let caller = Caller { pid: (peer.pid > 0).then_some(peer.pid), uid: Some(peer.uid) };
            start(move || answer_packets(&socket, caller, &jobs));
            Ok(())
        },
    )
}

/// Neither a client that went away meanwhile nor a host short of descriptors or memory ends a server.
fn accept_all<S>(
    mut accept: impl FnMut() -> ginnel::Result<S>,
    mut serve: impl FnMut(S) -> ginnel::Result<()>,
) -> Result<()> {
    loop {
        match accept() {
            Ok(connection) => {
                if let Err(error) = serve(connection) {
                    output::note(format_args!("a connection was given up: {error}"));
                }
            }
            Err(error) if streams::is_for_now(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A thread for a connection; without one the connection is closed.
fn start(body: impl FnOnce() -> ginnel::Result<()> + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || match body() {
        Err(error) if !error.is_disconnected() => {
            output::note(format_args!("a connection was given up: {error}"))
        }
        _ => {}
    });
    if let Err(error) = thread {
        output::note(format_args!("a connection was given up: starting a thread: {error}"));
    }
}

fn answer_frames(stream: impl ByteRead + ByteWrite, caller: Caller, jobs: &Jobs) -> ginnel::Result<()> {
    let limit = ReplyLimit { bytes: FRAME_BYTES_MAX - REPLY_BYTES, why: "a frame holds".into() };
    let mut frames = Framed::with_max(stream, FRAME_BYTES_MAX);
    while let Some(frame) = frames.recv()? {
        let reply = reply(&frame, caller, jobs, &limit);
        frames.send(&reply)?;
    }
    Ok(())
}

fn answer_packets(socket: &UnixSeqpacket, caller: Caller, jobs: &Jobs) -> ginnel::Result<()> {
    let limit = packet_limit(socket.buffer_sizes()?.send_bytes);
    while let Some(packet) = socket.recv_vec()? {
        socket.send(&reply(&packet, caller, jobs, &limit))?;
    }
    Ok(())
}

/// The longest reply for a send buffer, of which the kernel uses some for itself.
pub(crate) fn packet_limit(send_buffer_bytes: usize) -> ReplyLimit {
    let bytes = send_buffer_bytes.saturating_sub(REPLY_BYTES + 32);
    ReplyLimit {
        bytes,
        why: format!("the socket's send buffer holds (net.core.wmem_default is {send_buffer_bytes})"),
    }
}

/// The whole reply to what should be a request.
pub(crate) fn reply(bytes: &[u8], caller: Caller, jobs: &Jobs, limit: &ReplyLimit) -> Vec<u8> {
    match Request::decode(bytes) {
        Some(request) => jobs.run(caller, &request.payload, limit).encode(request.tag),
        None => Answer::refused("that was no request of `ginnel call`'s")
            .encode(super::Tag { client: 0, number: 0 }),
    }
}
