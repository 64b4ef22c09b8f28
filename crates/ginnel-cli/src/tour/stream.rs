//! The tour's rows of the stream family.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use ginnel::stream::pipeline::End;
use ginnel::stream::{
    Fifo, Pipeline, Popen, Pty, TcpListener, TcpStream, UnixListener, UnixStream, pipe, socketpair,
};

use super::peer::Peer;
use super::work::{Channel, Flood, Measured, OverStream, answer, measure, send_flood, take_flood, through};
use super::{
    Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, ensure, no_peer, refused, words,
};

const BASE: Row = Row {
    name: "",
    family: Family::Stream,
    passes: Passes::Stream,
    direction: Direction::BothWays,
    processes: Processes::Unrelated,
    name_space: "",
    run: |_| Err(RowError::Failed("a row without work".into())),
    peer: no_peer,
};

/// What a relative inherits.
const RELATED: Row = Row {
    processes: Processes::Related,
    name_space: "inherited descriptor",
    peer: standard_streams_peer,
    ..BASE
};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "pipe", direction: Direction::OneWay, run: one_pipe, peer: one_pipe_peer, ..RELATED },
    Row { name: "two pipes", run: two_pipes, ..RELATED },
    Row {
        name: "FIFO",
        direction: Direction::OneWay,
        name_space: "path",
        run: fifo,
        peer: fifo_peer,
        ..BASE
    },
    Row { name: "pipeline", direction: Direction::OneWay, run: pipeline, peer: stage, ..RELATED },
    Row { name: "popen", run: by_popen, ..RELATED },
    Row { name: "Unix stream", name_space: "path or @name", run: unix, peer: unix_peer, ..BASE },
    Row { name: "socketpair", run: pair, ..RELATED },
    Row { name: "TCP", name_space: "host and port", run: tcp, peer: tcp_peer, ..BASE },
    Row { name: "pseudo-terminal", name_space: "/dev/pts", run: pty, peer: pty_peer, ..BASE },
];

const FLOOD: Flood = Flood::of(64 << 10);
/// A terminal's line discipline has a buffer of 4 KiB.
const PTY_FLOOD: Flood = Flood::of(1024);

fn work(channel: &mut impl Channel, peer: Peer) -> RowResult<Measured> {
    let measured = measure(channel, FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

/// One way; the verdict comes back through a second pipe at the end.
fn one_pipe(run: &mut Run) -> RowResult<Measured> {
    let (theirs, ours) = pipe()?;
    let (verdict, says) = pipe()?;
    let peer = Peer::inheriting(run.row, &[], theirs, says)?;
    let throughput = send_flood(&mut OverStream { reader: verdict, writer: ours }, FLOOD)?;
    peer.finish()?;
    let checked = format!("{} messages of {} B one way", throughput.messages, throughput.message_bytes);
    Ok(Measured { checked, round_trip: None, throughput: Some(throughput) })
}

fn one_pipe_peer(_: &[String]) -> RowResult<()> {
    take_flood(&mut OverStream { reader: std::io::stdin(), writer: std::io::stdout() }, FLOOD)
}

fn two_pipes(run: &mut Run) -> RowResult<Measured> {
    let (theirs, writer) = pipe()?;
    let (reader, says) = pipe()?;
    let peer = Peer::inheriting(run.row, &[], theirs, says)?;
    work(&mut OverStream { reader, writer }, peer)
}

/// The descriptors themselves: standard output as the library of std has it looks for lines.
fn standard_streams() -> RowResult<OverStream<File, File>> {
    Ok(OverStream {
        reader: std::io::stdin().as_fd().try_clone_to_owned()?.into(),
        writer: std::io::stdout().as_fd().try_clone_to_owned()?.into(),
    })
}

fn standard_streams_peer(_: &[String]) -> RowResult<()> {
    answer(&mut standard_streams()?, FLOOD)
}

/// Two FIFOs, one each way. Both sides open them in the same order, or each would wait for the other.
fn fifo(run: &mut Run) -> RowResult<Measured> {
    let directory = run.directory()?;
    let (to, from) = (Fifo::create(directory.join("to"))?, Fifo::create(directory.join("from"))?);
    let paths = [&to, &from].map(|fifo| fifo.path().display().to_string());
    let peer = Peer::unrelated(run.row, &paths)?;
    let writer = to.open_writer()?;
    work(&mut OverStream { reader: from.open_reader()?, writer }, peer)
}

fn fifo_peer(peer_words: &[String]) -> RowResult<()> {
    let [from, to] = words(peer_words)?;
    let reader = Fifo::open(from)?.open_reader()?;
    answer(&mut OverStream { reader, writer: Fifo::open(to)?.open_writer()? }, FLOOD)
}

const STAGES: usize = 3;

/// Three stages, each of which turns every bit: what goes in comes out as its complement.
fn pipeline(run: &mut Run) -> RowResult<Measured> {
    let mut stage = vec![std::env::current_exe()?.into_os_string()];
    stage.extend(Peer::arguments(run.row).map(Into::into));
    let mut running =
        Pipeline::new(std::iter::repeat_n(stage, STAGES))?.stdin(End::Piped).stdout(End::Piped).spawn()?;
    let missing = || RowError::Failed("the pipeline has no outer end".into());
    let writer = running.stdin.take().ok_or_else(missing)?;
    let reader = running.stdout.take().ok_or_else(missing)?;
    let measured = through(writer, reader, FLOOD.message_bytes)?;
    let status = running.wait()?;
    ensure(status.success(), format!("a stage of the pipeline failed: {status:?}"))?;
    Ok(measured)
}

/// One stage: turns every bit, until its input ends.
fn stage(_: &[String]) -> RowResult<()> {
    let OverStream { mut reader, mut writer } = standard_streams()?;
    let mut buffer = vec![0; FLOOD.message_bytes];
    loop {
        let len = reader.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        buffer[..len].iter_mut().for_each(|byte| *byte = !*byte);
        writer.write_all(&buffer[..len])?;
    }
}

fn by_popen(run: &mut Run) -> RowResult<Measured> {
    let mut child = Popen::both(Peer::command(run.row, &[])?)?;
    let missing = || RowError::Failed("the child has no pipes".into());
    let (reader, writer) = (child.output().ok_or_else(missing)?, child.input().ok_or_else(missing)?);
    let measured = measure(&mut OverStream { reader, writer }, FLOOD)?;
    let status = child.close()?;
    ensure(status.success(), format!("the child ended with {status}"))?;
    Ok(measured)
}

/// A stream that goes both ways.
fn both<S>(stream: &S) -> OverStream<&S, &S> {
    OverStream { reader: stream, writer: stream }
}

fn unix(run: &mut Run) -> RowResult<Measured> {
    let path = run.directory()?.join("socket");
    let listener = UnixListener::bind(&path).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[path.display().to_string()])?;
    work(&mut both(&listener.accept()?), peer)
}

fn unix_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    answer(&mut both(&UnixStream::connect(path)?), FLOOD)
}

fn pair(run: &mut Run) -> RowResult<Measured> {
    let (ours, theirs) = socketpair().map_err(refused)?;
    let theirs = OwnedFd::from(theirs);
    let peer = Peer::inheriting(run.row, &[], theirs.try_clone()?, theirs)?;
    work(&mut both(&ours), peer)
}

fn tcp(run: &mut Run) -> RowResult<Measured> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[listener.local_address()?.to_string()])?;
    let stream = listener.accept()?;
    stream.set_nodelay(true)?;
    work(&mut both(&stream), peer)
}

fn tcp_peer(peer_words: &[String]) -> RowResult<()> {
    let [address] = words(peer_words)?;
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    answer(&mut both(&stream), FLOOD)
}

/// The terminal is raw: bytes pass as they are.
fn pty(run: &mut Run) -> RowResult<Measured> {
    let pty = Pty::options().raw(true).open().map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[pty.path().display().to_string()])?;
    let measured = measure(&mut both(&pty), PTY_FLOOD)?;
    peer.finish()?;
    Ok(measured)
}

fn pty_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    answer(&mut both(&File::options().read(true).write(true).open(path)?), PTY_FLOOD)
}
