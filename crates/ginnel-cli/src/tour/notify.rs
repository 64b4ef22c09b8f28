//! The tour's rows of the notify family.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use ginnel::notify::{EventFd, Group, PidFd, Signal, SignalFd, SignalSet, Target};

use super::peer::{Peer, announce};
use super::work::{Measured, collect_trips, operations_per_s, throughput, time_trips};
use super::{
    Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, ensure, no_peer, refused, words,
};

const BASE: Row = Row {
    name: "",
    family: Family::Notify,
    passes: Passes::Event,
    direction: Direction::OneWay,
    processes: Processes::Unrelated,
    name_space: "process id",
    run: |_| Err(RowError::Failed("a row without work".into())),
    peer: no_peer,
};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "signal", run: signal, peer: signal_peer, ..BASE },
    Row { name: "queued real-time signal", run: queued, peer: queued_peer, ..BASE },
    Row { name: "signalfd", run: signalfd, peer: signalfd_peer, ..BASE },
    Row {
        name: "eventfd",
        direction: Direction::BothWays,
        processes: Processes::Related,
        name_space: "inherited descriptor",
        run: eventfd,
        peer: eventfd_peer,
        ..BASE
    },
    Row { name: "pidfd", run: pidfd, peer: wait_for_the_end, ..BASE },
    Row { name: "process group", name_space: "group id", run: group, peer: group_peer, ..BASE },
];

/// Ends a peer's work.
const LAST: Signal = Signal::USR2;

fn own_pid() -> String {
    std::process::id().to_string()
}

fn runner(word: &str) -> RowResult<Target> {
    word.parse().map(Target::Process).map_err(|_| RowError::Failed(format!("{word} is no process id")))
}

fn signal(run: &mut Run) -> RowResult<Measured> {
    let _blocked = SignalSet::from(Signal::USR1).block()?;
    let peer = Peer::announced(run.row, &mut Peer::command(run.row, &[own_pid()])?)?;
    let target = Target::Process(peer.pid());
    let round_trip = time_trips(|_| {
        target.send(Signal::USR1)?;
        let info = SignalSet::from(Signal::USR1).wait()?;
        ensure(info.pid == peer.pid(), format!("the answer came from process {}", info.pid))
    })?;
    target.send(LAST)?;
    peer.finish()?;
    let checked = format!("{} signals each way, each from the right process", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: None })
}

fn signal_peer(peer_words: &[String]) -> RowResult<()> {
    answer_each(peer_words, |runner| runner.send(Signal::USR1))
}

/// Answers each signal until the last one comes.
fn answer_each(peer_words: &[String], answer: impl Fn(Target) -> ginnel::Result<()>) -> RowResult<()> {
    let [word] = words(peer_words)?;
    let runner = runner(word)?;
    let signals = Signal::USR1 | LAST;
    let _blocked = signals.block()?;
    announce()?;
    while signals.wait()?.signal != LAST {
        answer(runner)?;
    }
    Ok(())
}

/// How many queued signals may be on their way: far below any `RLIMIT_SIGPENDING`.
const QUEUED_MAX: i32 = 64;

/// Round trips with a payload, then batches one way; `receive` is how this side takes a signal.
fn trips_with_payload(peer: Peer, mut receive: impl FnMut() -> RowResult<i32>) -> RowResult<Measured> {
    let signal = Signal::realtime(0)?;
    let target = Target::Process(peer.pid());
    let round_trip = time_trips(|number| {
        let number = number as i32;
        target.queue(signal, number)?;
        ensure(receive()? == !number, format!("payload {number} came back changed"))
    })?;
    let start = Instant::now();
    let mut sent = 0;
    let rate = operations_per_s(1, || {
        for number in 0..QUEUED_MAX {
            target.queue(Signal::realtime(1)?, number)?;
        }
        sent += QUEUED_MAX as u64;
        ensure(receive()? == QUEUED_MAX, "a batch of queued signals did not arrive whole and in order")
    });
    rate?;
    let elapsed = start.elapsed();
    target.send(LAST)?;
    peer.finish()?;
    let checked = format!("{} payloads each way, {sent} one way in order", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: Some(throughput(sent, 0, elapsed)) })
}

fn answer_payloads(runner: Target, mut receive: impl FnMut() -> RowResult<(Signal, i32)>) -> RowResult<()> {
    let mut due = 0;
    loop {
        let (signal, payload) = receive()?;
        if signal == LAST {
            return Ok(());
        }
        if signal == Signal::realtime(0)? {
            runner.queue(signal, !payload)?;
            continue;
        }
        ensure(payload == due, format!("queued signal {payload} came where {due} was due"))?;
        due += 1;
        if due == QUEUED_MAX {
            due = 0;
            runner.queue(Signal::realtime(0)?, QUEUED_MAX)?;
        }
    }
}

fn payload_signals() -> RowResult<SignalSet> {
    Ok(Signal::realtime(0)? | Signal::realtime(1)? | LAST)
}

fn queued(run: &mut Run) -> RowResult<Measured> {
    let signals = payload_signals()?;
    let _blocked = signals.block()?;
    let peer = Peer::announced(run.row, &mut Peer::command(run.row, &[own_pid()])?)?;
    trips_with_payload(peer, || Ok(signals.wait()?.payload.unwrap_or_default().int()))
}

fn queued_peer(peer_words: &[String]) -> RowResult<()> {
    let [word] = words(peer_words)?;
    let signals = payload_signals()?;
    let _blocked = signals.block()?;
    announce()?;
    answer_payloads(runner(word)?, || {
        let info = signals.wait()?;
        Ok((info.signal, info.payload.unwrap_or_default().int()))
    })
}

fn signalfd(run: &mut Run) -> RowResult<Measured> {
    let signals = payload_signals()?;
    let _blocked = signals.block()?;
    let arrivals = SignalFd::of(signals).map_err(refused)?;
    let peer = Peer::announced(run.row, &mut Peer::command(run.row, &[own_pid()])?)?;
    trips_with_payload(peer, || Ok(arrivals.read()?.payload.unwrap_or_default().int()))
}

fn signalfd_peer(peer_words: &[String]) -> RowResult<()> {
    let [word] = words(peer_words)?;
    let signals = payload_signals()?;
    let _blocked = signals.block()?;
    let arrivals = SignalFd::of(signals)?;
    announce()?;
    answer_payloads(runner(word)?, || {
        let info = arrivals.read()?;
        Ok((info.signal, info.payload.unwrap_or_default().int()))
    })
}

/// The number that ends an eventfd peer's work; the others are far below it.
const EVENTS_LAST: u64 = 1 << 40;

fn eventfd(run: &mut Run) -> RowResult<Measured> {
    let (to, from) = (EventFd::new().map_err(refused)?, EventFd::new().map_err(refused)?);
    let peer =
        Peer::inheriting(run.row, &[], to.as_fd().try_clone_to_owned()?, from.as_fd().try_clone_to_owned()?)?;
    let round_trip = time_trips(|number| {
        to.add(number + 1)?;
        ensure(from.wait()? == number + 2, format!("count {number} came back wrong"))
    })?;
    to.add(EVENTS_LAST)?;
    peer.finish()?;
    let checked = format!("{} counts each way", round_trip.count);
    let throughput = operations_per_s(64, || {
        to.add(1)?;
        ensure(to.wait()? == 1, "an eventfd did not give back what was added")
    })?;
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: Some(throughput) })
}

fn eventfd_peer(_: &[String]) -> RowResult<()> {
    let inherited = |fd: std::io::Result<OwnedFd>| Ok::<_, RowError>(EventFd::from_fd(fd?)?);
    let from = inherited(std::io::stdin().as_fd().try_clone_to_owned())?;
    let to = inherited(std::io::stdout().as_fd().try_clone_to_owned())?;
    loop {
        let count = from.wait()?;
        if count == EVENTS_LAST {
            return Ok(());
        }
        to.add(count + 1)?;
    }
}

/// From the signal that ends a process to the news of its end.
fn pidfd(run: &mut Run) -> RowResult<Measured> {
    let round_trip = collect_trips(|_| {
        let peer = Peer::announced(run.row, &mut Peer::command(run.row, &[])?)?;
        let pidfd = PidFd::open(peer.pid()).map_err(refused)?;
        let began = Instant::now();
        pidfd.send(Signal::TERM)?;
        pidfd.wait()?;
        let elapsed = began.elapsed();
        // Reaped by the peer's end, which signals its number: that must not be another process's by then.
        let status = pidfd.peek()?.exit_status();
        ensure(
            status.and_then(|status| status.signal()) == Some(Signal::TERM.number()),
            format!("the process ended with {status:?}"),
        )?;
        Ok(elapsed)
    })?;
    let checked = format!("{} ends noticed, each with its signal", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: None })
}

fn wait_for_the_end(_: &[String]) -> RowResult<()> {
    announce()?;
    SignalSet::from(Signal::USR1).wait()?;
    Ok(())
}

const MEMBERS: usize = 3;

/// One signal to a group of three; each member answers with its process id.
fn group(run: &mut Run) -> RowResult<Measured> {
    let answers = SignalSet::from(Signal::realtime(0)?);
    let _blocked = answers.block()?;
    let first = Peer::announced(run.row, Peer::command(run.row, &[own_pid()])?.process_group(0))?;
    let leader = first.pid();
    let mut members = vec![first];
    for _ in 1..MEMBERS {
        let mut command = Peer::command(run.row, &[own_pid()])?;
        members.push(Peer::announced(run.row, command.process_group(leader))?);
    }
    let mut pids: Vec<i32> = members.iter().map(Peer::pid).collect();
    pids.sort_unstable();
    let group = Group::from_id(leader)?;
    let round_trip = time_trips(|_| {
        group.send(Signal::USR1)?;
        let mut answered = Vec::with_capacity(MEMBERS);
        for _ in 0..MEMBERS {
            answered.push(answers.wait()?.payload.unwrap_or_default().int());
        }
        answered.sort_unstable();
        ensure(answered == pids, format!("{answered:?} answered, not {pids:?}"))
    })?;
    group.send(LAST)?;
    members.into_iter().try_for_each(Peer::finish)?;
    let checked = format!("{} signals to {MEMBERS} processes, all answered", round_trip.count);
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: None })
}

fn group_peer(peer_words: &[String]) -> RowResult<()> {
    answer_each(peer_words, |runner| runner.queue(Signal::realtime(0)?, std::process::id() as i32))
}
