//! The timed loops: what a row does in one home, once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cpus::Cpus;
use crate::error::{Error, Result, ensure};
use crate::home::{Mutex, Queue, Semaphores, Shape};
use crate::message::{LAST, Message};
use crate::place::{Limits, Place};
use crate::process::{Board, Worker, now_ns};
use crate::report::Figures;
use crate::rows::Cores;

/// What the loops need to know.
pub(crate) struct Context {
    pub(crate) place: Place,
    pub(crate) limits: Limits,
    pub(crate) cpus: Cpus,
    /// How long a loop goes on.
    pub(crate) time: Duration,
    /// How long a sleeper is watched.
    pub(crate) sleep: Duration,
}

pub(crate) const SMALL_BYTES: usize = 64;
pub(crate) const SMALL: Shape =
    Shape { message_bytes: SMALL_BYTES, bytes: 16 << 10, bytes_needed: 0, messages: 10 };
/// What a queue holds in the one-way rows: enough that neither side waits for each message of the other.
const FLOW_BYTES: u64 = 1 << 20;
const FLOW_MESSAGES: u64 = 1024;
const THINKING_NS: u64 = 200_000;
/// How often the caches are warmed before the clock counts, at the least.
const WARM_UP_MIN: u64 = 20;
/// Fewer than this make no percentile.
const BATCHES_MIN: u64 = 20;
const REPLY: i64 = 2;

/// The times of a loop, and when it ends.
struct Timer {
    times: Histogram<u64>,
    batch: u64,
    count: u64,
    warm_until: u64,
    end: u64,
    warming: u64,
}

impl Timer {
    fn new(time: Duration, batch: u64) -> Result<Timer> {
        const MINUTE_NS: u64 = 60_000_000_000;
        let times = Histogram::new_with_bounds(1, MINUTE_NS, 3).map_err(Error::failed)?;
        let (now, time) = (now_ns(), time.as_nanos() as u64);
        let warm_until = now + time / 10;
        Ok(Timer { times, batch, count: 0, warm_until, end: warm_until + time, warming: 0 })
    }

    /// Takes a batch's time; whether to go on.
    #[inline]
    fn record(&mut self, began: u64, ended: u64) -> bool {
        if self.warming < WARM_UP_MIN || began < self.warm_until {
            self.warming += 1;
            return true;
        }
        self.times.saturating_record(ended - began);
        self.count += 1;
        ended < self.end || self.count < BATCHES_MIN
    }

    fn figures(&self) -> Figures {
        let at = |quantile| Some(self.times.value_at_quantile(quantile) as f64 / self.batch as f64);
        Figures {
            count: self.count * self.batch,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            ..Figures::default()
        }
    }
}

/// Removes what was made, when a measurement ends.
pub(crate) struct Made<F: Fn()>(F);

impl<F: Fn()> Drop for Made<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) fn make_queues<Q: Queue>(context: &Context, count: u32, shape: Shape) -> Result<Made<impl Fn()>> {
    let made = Made(move || (0..count).for_each(|number| Q::remove(&context.place, number)));
    for number in 0..count {
        Q::make(&context.place, number, shape, &context.limits)?;
    }
    Ok(made)
}

pub(crate) fn make_semaphores<S: Semaphores>(context: &Context, values: [u16; 2]) -> Result<Made<impl Fn()>> {
    let made = Made(|| S::remove(&context.place));
    S::make(&context.place, values)?;
    Ok(made)
}

/// Times `operation`, which gets its number, in batches.
fn time_batches(
    context: &Context,
    batch: u64,
    mut operation: impl FnMut(u64) -> Result<()>,
) -> Result<Figures> {
    let mut timer = Timer::new(context.time, batch)?;
    let mut number = 0;
    loop {
        let began = now_ns();
        for _ in 0..batch {
            operation(number)?;
            number += 1;
        }
        if !timer.record(began, now_ns()) {
            return Ok(timer.figures());
        }
    }
}

/// Send and receive, by one process.
pub(crate) fn queue_pair<Q: Queue>(context: &Context, batch: u64) -> Result<Figures> {
    let _made = make_queues::<Q>(context, 1, SMALL)?;
    context.cpus.pin(context.cpus.first)?;
    let queue = Q::open(&context.place, 0)?;
    let (mut out, mut back) = (Message::new(SMALL_BYTES), Message::new(SMALL_BYTES));
    time_batches(context, batch, |number| {
        out.stamp(1, number);
        queue.send(&out)?;
        queue.recv(&mut back, 0)?;
        ensure(back.check() == Some(number), "the message is not what was sent")
    })
}

/// Take and give, by one process.
pub(crate) fn semaphore_pair<S: Semaphores>(context: &Context, batch: u64) -> Result<Figures> {
    let _made = make_semaphores::<S>(context, [1, 0])?;
    context.cpus.pin(context.cpus.first)?;
    let semaphores = S::open(&context.place)?;
    time_batches(context, batch, |_| {
        semaphores.take(0)?;
        semaphores.give(0)
    })
}

/// Lock and unlock, by one process.
pub(crate) fn mutex_pair<M: Mutex>(context: &Context, batch: u64) -> Result<Figures> {
    context.cpus.pin(context.cpus.first)?;
    let mutex = M::make(&context.place)?;
    time_batches(context, batch, |_| {
        mutex.lock()?;
        mutex.unlock()
    })
}

/// Where the asking and the answering process run.
fn places(context: &Context, cores: Cores) -> Result<[Option<usize>; 2]> {
    let first = Some(context.cpus.first);
    Ok(match cores {
        Cores::Two => [first, Some(context.cpus.other()?)],
        Cores::One => [first, first],
        Cores::Any => [None, None],
    })
}

fn go_to(cpus: &Cpus, place: Option<usize>) -> Result<()> {
    match place {
        Some(cpu) => cpus.pin(cpu),
        None => cpus.unpin(),
    }
}

/// A request and its reply, between two processes; before each request the asking one works for so long.
///
/// The clock is read once a trip, so writing and checking the payloads is part of it.
pub(crate) fn queue_trips<Q: Queue>(context: &Context, cores: Cores, thinking: bool) -> Result<Figures> {
    let [asking, answering] = places(context, cores)?;
    let _made = make_queues::<Q>(context, 2, SMALL)?;
    let peer = Worker::start(|| {
        go_to(&context.cpus, answering)?;
        let (requests, replies) = (Q::open(&context.place, 0)?, Q::open(&context.place, 1)?);
        let (mut request, mut reply) = (Message::new(SMALL_BYTES), Message::new(SMALL_BYTES));
        loop {
            requests.recv(&mut request, 0)?;
            let sequence = request.check().ok_or_else(|| Error::failed("a request came changed"))?;
            // What only one who has read the request can know.
            reply.stamp(REPLY, !sequence);
            replies.send(&reply)?;
            if sequence == LAST {
                return Ok(());
            }
        }
    })?;
    go_to(&context.cpus, asking)?;
    let (requests, replies) = (Q::open(&context.place, 0)?, Q::open(&context.place, 1)?);
    let (mut request, mut reply) = (Message::new(SMALL_BYTES), Message::new(SMALL_BYTES));
    let mut trip = |sequence: u64| {
        request.stamp(1, sequence);
        requests.send(&request)?;
        replies.recv(&mut reply, 0)?;
        ensure(reply.check() == Some(!sequence), "a reply is not what was to come back")
    };
    let figures = time_trips(context, thinking, &mut trip)?;
    trip(LAST)?;
    peer.finish()?;
    Ok(figures)
}

fn time_trips(context: &Context, thinking: bool, mut trip: impl FnMut(u64) -> Result<()>) -> Result<Figures> {
    let mut timer = Timer::new(context.time, 1)?;
    let mut began = now_ns();
    for sequence in 0.. {
        if thinking {
            let until = began + THINKING_NS;
            while began < until {
                began = now_ns();
            }
        }
        trip(sequence)?;
        let ended = now_ns();
        if !timer.record(began, ended) {
            break;
        }
        began = ended;
    }
    Ok(timer.figures())
}

/// A turn there and back, by two semaphores.
pub(crate) fn semaphore_trips<S: Semaphores>(context: &Context, cores: Cores) -> Result<Figures> {
    const STOP: usize = 0;
    let [asking, answering] = places(context, cores)?;
    let _made = make_semaphores::<S>(context, [0, 0])?;
    let board = Board::new()?;
    let peer = Worker::start(|| {
        go_to(&context.cpus, answering)?;
        let semaphores = S::open(&context.place)?;
        loop {
            semaphores.take(0)?;
            let stop = board.word(STOP).load(Ordering::Acquire) != 0;
            semaphores.give(1)?;
            if stop {
                return Ok(());
            }
        }
    })?;
    go_to(&context.cpus, asking)?;
    let semaphores = S::open(&context.place)?;
    let mut trip = |_| {
        semaphores.give(0)?;
        semaphores.take(1)
    };
    let figures = time_trips(context, false, &mut trip)?;
    board.word(STOP).store(1, Ordering::Release);
    trip(0)?;
    peer.finish()?;
    Ok(figures)
}

/// One way, as fast as it goes: from the first send until the last message has been read and checked.
pub(crate) fn flow<Q: Queue>(context: &Context, bytes: usize) -> Result<Figures> {
    const READY: usize = 0;
    const DONE: usize = 1;
    let second = context.cpus.other()?;
    // Two long ones at the least, so that one is written while the other is read.
    let shape = Shape {
        message_bytes: bytes,
        bytes: FLOW_BYTES.max(8 * bytes as u64),
        bytes_needed: bytes as u64,
        messages: FLOW_MESSAGES,
    };
    let _made = make_queues::<Q>(context, 1, shape)?;
    let board = Board::new()?;
    let peer = Worker::start(|| {
        context.cpus.pin(second)?;
        let queue = Q::open(&context.place, 0)?;
        let mut message = Message::new(bytes);
        board.word(READY).store(1, Ordering::Release);
        let mut due = 0;
        loop {
            queue.recv(&mut message, 0)?;
            match message.check() {
                Some(LAST) => break,
                Some(sequence) if sequence == due => due += 1,
                _ => return Err(Error::failed(format!("message {due} came changed, or in another's place"))),
            }
        }
        board.word(DONE).store(now_ns(), Ordering::Release);
        Ok(())
    })?;
    context.cpus.pin(context.cpus.first)?;
    let queue = Q::open(&context.place, 0)?;
    let mut message = Message::new(bytes);
    board.wait_for(READY, 1);
    let began = now_ns();
    let end = began + context.time.as_nanos() as u64;
    // The clock is read every 64 KiB or 64 messages.
    let batch = ((64 << 10) / bytes as u64).clamp(1, 64);
    let mut sent = 0;
    while now_ns() < end {
        for _ in 0..batch {
            message.stamp(1, sent);
            queue.send(&message)?;
            sent += 1;
        }
    }
    message.stamp(1, LAST);
    queue.send(&message)?;
    peer.finish()?;
    Ok(rate(sent, bytes, board.word(DONE).load(Ordering::Acquire) - began))
}

fn rate(messages: u64, bytes: usize, ns: u64) -> Figures {
    let per_s = messages as f64 / (ns as f64 / 1e9);
    Figures {
        count: messages,
        messages_per_s: Some(per_s),
        bytes_per_s: Some(per_s * bytes as f64),
        ..Figures::default()
    }
}

const SENDERS: usize = 8;
const RECEIVERS: usize = 8;

/// Eight senders and eight receivers on all CPUs, through one queue; every message is counted on both sides.
pub(crate) fn crowd<Q: Queue>(context: &Context) -> Result<Figures> {
    const READY: usize = 0;
    const GO: usize = 1;
    const STOP: usize = 2;
    const COUNTS: usize = 3;
    const ENDS: usize = COUNTS + SENDERS + RECEIVERS;
    let shape = Shape {
        message_bytes: SMALL_BYTES,
        bytes: FLOW_BYTES,
        bytes_needed: SMALL_BYTES as u64,
        messages: FLOW_MESSAGES,
    };
    let _made = make_queues::<Q>(context, 1, shape)?;
    context.cpus.unpin()?;
    let board = Board::new()?;
    let start = |index: usize| {
        Worker::start(|| {
            let queue = Q::open(&context.place, 0)?;
            board.word(READY).fetch_add(1, Ordering::AcqRel);
            board.wait_for(GO, 1);
            let count = match index < SENDERS {
                true => send_until(&queue, || board.word(STOP).load(Ordering::Relaxed) != 0)?,
                false => recv_until_last(&queue)?,
            };
            board.word(COUNTS + index).store(count, Ordering::Release);
            board.word(ENDS + index).store(now_ns(), Ordering::Release);
            Ok(())
        })
    };
    let senders = (0..SENDERS).map(start).collect::<Result<Vec<_>>>()?;
    let receivers = (SENDERS..SENDERS + RECEIVERS).map(start).collect::<Result<Vec<_>>>()?;
    board.wait_for(READY, (SENDERS + RECEIVERS) as u64);
    let began = now_ns();
    board.word(GO).store(1, Ordering::Release);
    std::thread::sleep(context.time);
    board.word(STOP).store(1, Ordering::Release);
    senders.into_iter().try_for_each(Worker::finish)?;
    // Behind all that was sent: each receiver takes one.
    let queue = Q::open(&context.place, 0)?;
    let mut message = Message::new(SMALL_BYTES);
    for _ in 0..RECEIVERS {
        message.stamp(1, LAST);
        queue.send(&message)?;
    }
    receivers.into_iter().try_for_each(Worker::finish)?;
    let word = |index: usize| board.word(index).load(Ordering::Acquire);
    let sent: u64 = (0..SENDERS).map(|index| word(COUNTS + index)).sum();
    let received: u64 = (SENDERS..SENDERS + RECEIVERS).map(|index| word(COUNTS + index)).sum();
    if sent != received {
        return Err(Error::failed(format!("{sent} messages were sent and {received} received")));
    }
    let end = (SENDERS..SENDERS + RECEIVERS).map(|index| word(ENDS + index)).max().unwrap_or(began);
    Ok(rate(sent, SMALL_BYTES, end - began))
}

fn send_until(queue: &impl Queue, stop: impl Fn() -> bool) -> Result<u64> {
    let mut message = Message::new(SMALL_BYTES);
    let mut count = 0;
    while !stop() {
        message.stamp(1, count);
        queue.send(&message)?;
        count += 1;
    }
    Ok(count)
}

fn recv_until_last(queue: &impl Queue) -> Result<u64> {
    let mut message = Message::new(SMALL_BYTES);
    let mut count = 0;
    loop {
        queue.recv(&mut message, 0)?;
        match message.check() {
            Some(LAST) => return Ok(count),
            Some(_) => count += 1,
            None => return Err(Error::failed(format!("message {count} came changed"))),
        }
    }
}

/// One message of a random type out of `depth`, each of a type of its own, and back in: the depth stays.
pub(crate) fn by_type<Q: Queue>(context: &Context, depth: u64, batch: u64) -> Result<Figures> {
    let bytes = depth * SMALL_BYTES as u64;
    let shape = Shape {
        message_bytes: SMALL_BYTES,
        bytes: bytes.max(SMALL.bytes),
        bytes_needed: bytes,
        messages: depth,
    };
    let _made = make_queues::<Q>(context, 1, shape)?;
    context.cpus.pin(context.cpus.first)?;
    let queue = Q::open(&context.place, 0)?;
    let mut message = Message::new(SMALL_BYTES);
    for kind in 1..=depth {
        message.stamp(kind as i64, kind);
        queue.send(&message)?;
    }
    let mut random = Random::new();
    time_batches(context, batch, |_| {
        let kind = 1 + random.below(depth);
        queue.recv(&mut message, kind as i64)?;
        ensure(message.check() == Some(kind), "the message is not of the type that was asked for")?;
        message.stamp(kind as i64, kind);
        queue.send(&message)
    })
}

/// A xorshift generator with a seed of its own each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        use std::hash::{BuildHasher, RandomState};
        Random(RandomState::new().hash_one(0) | 1)
    }

    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(limit)) >> 64) as u64
    }
}
