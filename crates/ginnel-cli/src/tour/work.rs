//! What the two processes of a row do with their mechanism: round trips, then a flood one way.
//!
//! Every payload is a pattern that depends on its sequence number; the peer checks each byte of a request and answers
//! with its complement, so a reply that is right has been through the peer's hands.

use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{RowError, RowResult, ensure};

/// How long each of the two measurements of a row goes on.
const BUDGET: Duration = Duration::from_millis(200);
/// Fewer round trips than this make no percentile.
const ROUND_TRIPS_MIN: u64 = 100;
/// The bytes of a round trip's request and reply.
pub(crate) const SMALL_BYTES: usize = 64;
/// The sequence number that ends a measurement.
const LAST: u64 = u64::MAX;

/// What a verified row has to show.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// What was checked, in words.
    pub(crate) checked: String,
    pub(crate) round_trip: Option<RoundTrip>,
    pub(crate) throughput: Option<Throughput>,
}

/// From the request's first byte to the reply's last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RoundTrip {
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// One way, written by one process, read and checked by the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) messages: u64,
    pub(crate) message_bytes: usize,
    pub(crate) messages_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

/// What a mechanism must do to be worked: whole messages for those that keep boundaries; [`OverStream`] for the others.
pub(crate) trait Channel {
    fn send(&mut self, payload: &[u8]) -> RowResult<()>;
    /// Receives one message, of the buffer's size at the most: its length.
    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize>;
}

/// A stream (or a pair of one-way streams) whose messages are as long as the receiver expects.
pub(crate) struct OverStream<R, W> {
    pub(crate) reader: R,
    pub(crate) writer: W,
}

impl<R: Read, W: Write> Channel for OverStream<R, W> {
    fn send(&mut self, payload: &[u8]) -> RowResult<()> {
        Ok(self.writer.write_all(payload)?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> RowResult<usize> {
        self.reader.read_exact(buffer)?;
        Ok(buffer.len())
    }
}

/// How the flood runs.
#[derive(Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) message_bytes: usize,
    /// After how many messages the sender waits for the receiver's word; for mechanisms that drop what does not fit.
    pub(crate) window: Option<u64>,
}

impl Flood {
    pub(crate) const fn of(message_bytes: usize) -> Flood {
        Flood { message_bytes, window: None }
    }
}

/// Both measurements, from the runner's side.
pub(crate) fn measure(channel: &mut impl Channel, flood: Flood) -> RowResult<Measured> {
    let round_trip = round_trips(channel)?;
    let throughput = send_flood(channel, flood)?;
    Ok(Measured {
        checked: format!(
            "{} requests and replies of {SMALL_BYTES} B, {} messages of {} B one way",
            round_trip.count, throughput.messages, throughput.message_bytes
        ),
        round_trip: Some(round_trip),
        throughput: Some(throughput),
    })
}

/// Both measurements, from the peer's side.
pub(crate) fn answer(channel: &mut impl Channel, flood: Flood) -> RowResult<()> {
    answer_round_trips(channel)?;
    take_flood(channel, flood)
}

/// Times `trip`, called with the number of the trip, until the budget is used up.
pub(crate) fn time_trips(mut trip: impl FnMut(u64) -> RowResult<()>) -> RowResult<RoundTrip> {
    collect_trips(|count| {
        let began = Instant::now();
        trip(count)?;
        Ok(began.elapsed())
    })
}

/// Collects the times that `trip` takes of itself, until the budget is used up.
pub(crate) fn collect_trips(mut trip: impl FnMut(u64) -> RowResult<Duration>) -> RowResult<RoundTrip> {
    let minute_ns = 60_000_000_000;
    let mut times = Histogram::<u64>::new_with_bounds(1, minute_ns, 3)
        .map_err(|error| RowError::Failed(error.to_string()))?;
    let start = Instant::now();
    let mut count = 0;
    while count < ROUND_TRIPS_MIN || start.elapsed() < BUDGET {
        times.saturating_record(trip(count)?.as_nanos() as u64);
        count += 1;
    }
    Ok(RoundTrip { count, p50_ns: times.value_at_quantile(0.5), p99_ns: times.value_at_quantile(0.99) })
}

/// How often `operation` can be done a second by one process, in batches of `batch`.
pub(crate) fn operations_per_s(
    batch: u64,
    mut operation: impl FnMut() -> RowResult<()>,
) -> RowResult<Throughput> {
    let start = Instant::now();
    let mut operations = 0;
    while operations == 0 || start.elapsed() < BUDGET {
        for _ in 0..batch {
            operation()?;
        }
        operations += batch;
    }
    Ok(throughput(operations, 0, start.elapsed()))
}

/// Both measurements for a filter that turns every bit: what is written comes out as its complement.
pub(crate) fn through(
    mut writer: impl Write + Send,
    mut reader: impl Read + Send,
    message_bytes: usize,
) -> RowResult<Measured> {
    let (mut request, mut reply, mut due) = ([0; SMALL_BYTES], [0; SMALL_BYTES], [0; SMALL_BYTES]);
    let round_trip = time_trips(|sequence| {
        fill(&mut request, sequence);
        writer.write_all(&request)?;
        reader.read_exact(&mut reply)?;
        complement(&request, &mut due);
        ensure(reply == due, format!("message {sequence} is not what was to come out"))
    })?;
    let start = Instant::now();
    // Moved in, so closed at the end: the filter's input ends.
    let feed = move || -> std::io::Result<()> {
        let mut payload = vec![0; message_bytes];
        for sequence in 0.. {
            let last = sequence > 0 && start.elapsed() >= BUDGET;
            fill(&mut payload, if last { LAST } else { sequence });
            writer.write_all(&payload)?;
            if last {
                break;
            }
        }
        Ok(())
    };
    // What does not fit the pipes would block a single thread that writes before it reads.
    let messages = std::thread::scope(|scope| {
        let feeder = scope.spawn(feed);
        // Moved in, so closed on an error: the feeder gets EPIPE, and does not wait for ever.
        let messages = take_complements(reader, message_bytes)?;
        feeder.join().map_err(|_| RowError::Failed("the writing thread panicked".into()))??;
        Ok::<_, RowError>(messages)
    })?;
    let throughput = throughput(messages, message_bytes, start.elapsed());
    let checked = format!(
        "{} times {SMALL_BYTES} B and {messages} times {message_bytes} B, each turned by every stage",
        round_trip.count
    );
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: Some(throughput) })
}

fn take_complements(mut reader: impl Read, message_bytes: usize) -> RowResult<u64> {
    let (mut payload, mut plain) = (vec![0; message_bytes], vec![0; message_bytes]);
    for due in 0.. {
        reader.read_exact(&mut payload)?;
        complement(&payload, &mut plain);
        let sequence = sequence_of(&plain);
        ensure(is_filled(&plain, sequence), format!("message {due} came out changed"))?;
        if sequence == LAST {
            ensure(reader.read(&mut [0; 1])? == 0, "more came out than went in")?;
            return Ok(due);
        }
        ensure(sequence == due, format!("message {sequence} came where {due} was due"))?;
    }
    Ok(0)
}

fn round_trips(channel: &mut impl Channel) -> RowResult<RoundTrip> {
    let mut request = [0; SMALL_BYTES];
    let mut reply = [0; SMALL_BYTES];
    let mut expected = [0; SMALL_BYTES];
    let timed = time_trips(|sequence| {
        fill(&mut request, sequence);
        channel.send(&request)?;
        let len = channel.recv(&mut reply)?;
        complement(&request, &mut expected);
        ensure(
            len == SMALL_BYTES && reply == expected,
            format!("reply {sequence} is not what was to come back"),
        )
    })?;
    fill(&mut request, LAST);
    channel.send(&request)?;
    Ok(timed)
}

fn answer_round_trips(channel: &mut impl Channel) -> RowResult<()> {
    let mut request = [0; SMALL_BYTES];
    let mut reply = [0; SMALL_BYTES];
    for expected in 0.. {
        let len = channel.recv(&mut request)?;
        let sequence = sequence_of(&request);
        ensure(
            len == SMALL_BYTES && is_filled(&request, sequence),
            format!("request {expected} came changed"),
        )?;
        if sequence == LAST {
            break;
        }
        ensure(sequence == expected, format!("request {sequence} came where {expected} was due"))?;
        complement(&request, &mut reply);
        channel.send(&reply)?;
    }
    Ok(())
}

/// Sends for as long as the budget lasts; the receiver's verdict ends the measurement.
pub(crate) fn send_flood(channel: &mut impl Channel, flood: Flood) -> RowResult<Throughput> {
    let mut payload = vec![0; flood.message_bytes];
    let mut word = [0; SMALL_BYTES];
    let start = Instant::now();
    let mut messages = 0;
    while messages == 0 || start.elapsed() < BUDGET {
        fill(&mut payload, messages);
        channel.send(&payload)?;
        messages += 1;
        if flood.window.is_some_and(|window| messages % window == 0) {
            channel.recv(&mut word)?;
            ensure(is_filled(&word, messages), format!("the receiver's word came changed after {messages}"))?;
        }
    }
    fill(&mut payload, LAST);
    channel.send(&payload)?;
    channel.recv(&mut word)?;
    ensure(is_filled(&word, messages), "the receiver counted another number of messages than were sent")?;
    Ok(throughput(messages, flood.message_bytes, start.elapsed()))
}

/// Receives and checks until the last message, then says how many there were.
pub(crate) fn take_flood(channel: &mut impl Channel, flood: Flood) -> RowResult<()> {
    let mut payload = vec![0; flood.message_bytes];
    let mut word = [0; SMALL_BYTES];
    let mut messages = 0;
    loop {
        let len = channel.recv(&mut payload)?;
        let sequence = sequence_of(&payload);
        ensure(
            len == payload.len() && is_filled(&payload, sequence),
            format!("message {messages} came changed"),
        )?;
        if sequence == LAST {
            break;
        }
        ensure(sequence == messages, format!("message {sequence} came where {messages} was due"))?;
        messages += 1;
        if flood.window.is_some_and(|window| messages % window == 0) {
            fill(&mut word, messages);
            channel.send(&word)?;
        }
    }
    fill(&mut word, messages);
    channel.send(&word)
}

pub(crate) fn throughput(messages: u64, message_bytes: usize, elapsed: Duration) -> Throughput {
    let messages_per_s = messages as f64 / elapsed.as_secs_f64();
    Throughput { messages, message_bytes, messages_per_s, bytes_per_s: messages_per_s * message_bytes as f64 }
}

/// The pattern of a sequence number: the number itself, then random bytes from a place that depends on it.
///
/// Made and compared at the speed of memory, so that a flood measures the mechanism.
pub(crate) fn fill(payload: &mut [u8], sequence: u64) {
    payload.copy_from_slice(&pattern(sequence)[..payload.len()]);
    let number = sequence.to_le_bytes();
    let len = payload.len().min(number.len());
    payload[..len].copy_from_slice(&number[..len]);
}

pub(crate) fn is_filled(payload: &[u8], sequence: u64) -> bool {
    let number = sequence.to_le_bytes();
    let split = payload.len().min(number.len());
    payload[..split] == number[..split] && payload[split..] == pattern(sequence)[split..payload.len()]
}

/// The longest message of a flood.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How many places there are for a pattern to begin.
const PLACES: u64 = 4099;

fn pattern(sequence: u64) -> &'static [u8] {
    static RANDOM: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let words = (MESSAGE_BYTES_MAX + 8 * PLACES as usize) as u64 / 8;
        (1..=words).flat_map(|word| scramble(word).to_le_bytes()).collect()
    });
    &RANDOM[8 * (sequence % PLACES) as usize..]
}

/// The last steps of splitmix64: every bit of the result depends on every bit of the word.
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn sequence_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn complement(request: &[u8], reply: &mut [u8]) {
    for (to, from) in reply.iter_mut().zip(request) {
        *to = !from;
    }
}
