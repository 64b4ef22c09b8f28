//! Several processes in each home, an operation at a time.
//!
//! A driver tells a worker of each home the same operation. Then it waits until every worker is at rest: has answered,
//! or is blocked. Who that is, and all answers, must be the same in both homes; and so must be what the driver sees of
//! the objects. A worker may be killed, asked or blocked, and is replaced; one that is blocked may get a signal. At
//! least one is never blocked.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::time::{Duration, Instant};

use ginnel_testkit::{Child, fork};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Difference, Kind, Log, Op, Outcome, Rng, SLOTS, Shared};
use crate::help::catch;
use crate::home::Home;

/// Numbers in what a worker is told: the operation, and the ids.
const TOLD: usize = 7 + SLOTS;
/// Numbers in its answer: how many came out, the ids, and what came out.
const ANSWER: usize = 1 + SLOTS + 8;
/// How long the homes may take to come to the same rest.
const LIMIT: Duration = Duration::from_secs(5);

struct Worker {
    process: Child,
    to: PipeWriter,
    from: PipeReader,
    /// What it is doing.
    busy: Option<Op>,
    /// The ids that it was told.
    told: [i32; SLOTS],
    /// What it slept in when it was last seen at rest.
    rest: String,
}

/// A home with its workers.
struct Side<'h, H, K> {
    home: &'h H,
    own: K,
    shared: Shared,
    workers: Vec<Worker>,
}

fn encode(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn decode<const N: usize>(from: &mut impl Read) -> std::io::Result<[i64; N]> {
    let mut bytes = [[0; 8]; N];
    from.read_exact(bytes.as_flattened_mut())?;
    Ok(bytes.map(i64::from_ne_bytes))
}

/// A worker's life: told, it does and answers.
fn work<H: Home, K: Kind<H>>(home: &H, shared: &mut Shared, mut told: PipeReader, mut answer: PipeWriter) {
    catch(libc::SIGUSR2, 0);
    let mut own = K::default();
    while let Ok(numbers) = decode::<TOLD>(&mut told) {
        let op = Op { verb: numbers[0], args: numbers[1..7].try_into().expect("six") };
        for (slot, id) in shared.ids.iter_mut().zip(&numbers[7..]) {
            *slot = *id as i32;
        }
        let came = own.act(home, shared, &op);
        assert!(came.len() <= 8, "{came:?}");
        let mut numbers = [0; ANSWER];
        numbers[0] = came.len() as i64;
        for (number, id) in numbers[1..].iter_mut().zip(shared.ids) {
            *number = id.into();
        }
        numbers[1 + SLOTS..1 + SLOTS + came.len()].copy_from_slice(&came);
        answer.write_all(&encode(&numbers)).expect("an answer");
    }
}

fn sleeping_in(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default()
}

impl<'h, H: Home, K: Kind<H>> Side<'h, H, K> {
    fn new(home: &'h H, workers: usize) -> Side<'h, H, K> {
        let mut side = Side { home, own: K::default(), shared: Shared::new(), workers: Vec::new() };
        for number in 0..workers {
            let worker = side.start(number);
            side.workers.push(worker);
        }
        side
    }

    fn start(&mut self, number: usize) -> Worker {
        let (told, to) = pipe().expect("a pipe");
        let (from, answer) = pipe().expect("a pipe");
        // The writing ends that it inherits keep no reader waiting: workers end by SIGKILL, with their parent.
        let process = fork(|| {
            let pid = std::process::id() as i32;
            self.shared.processes.insert(pid, number as i64);
            let (told, answer) = (told.try_clone().expect("fd"), answer.try_clone().expect("fd"));
            work::<H, K>(self.home, &mut self.shared, told, answer);
        });
        self.shared.processes.insert(process.pid(), number as i64);
        Worker { process, to, from, busy: None, told: self.shared.ids, rest: String::new() }
    }

    fn tell(&mut self, number: usize, op: &Op) {
        let mut numbers = vec![op.verb];
        numbers.extend(op.args);
        numbers.extend(self.shared.ids.map(i64::from));
        let worker = &mut self.workers[number];
        worker.busy = Some(*op);
        worker.told = self.shared.ids;
        worker.rest.clear();
        worker.to.write_all(&encode(&numbers)).expect("a worker");
    }

    /// The answer of a worker, if it comes within that time.
    fn answer(&mut self, number: usize, limit: Duration) -> Option<Outcome> {
        let worker = &mut self.workers[number];
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as i64 };
        let mut fds = [PollFd::new(&worker.from, PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&limit)) != Ok(1) {
            return None;
        }
        let numbers = decode::<ANSWER>(&mut worker.from).expect("an answer");
        worker.busy = None;
        // Only what it has changed: while it was blocked, others may have changed the rest.
        for (slot, (id, told)) in self.shared.ids.iter_mut().zip(numbers[1..].iter().zip(worker.told)) {
            if *id as i32 != told {
                *slot = *id as i32;
            }
        }
        Some(numbers[1 + SLOTS..1 + SLOTS + numbers[0] as usize].to_vec())
    }

    /// Whether a busy worker is blocked for good: it sleeps where it slept.
    fn rests(&mut self, number: usize) -> bool {
        let worker = &mut self.workers[number];
        let pid = worker.process.pid();
        if !worker.rest.is_empty() && sleeping_in(pid) == worker.rest {
            return true;
        }
        worker.rest.clear();
        if self.home.is_blocked(pid) {
            worker.rest = sleeping_in(pid);
        }
        !worker.rest.is_empty() && !worker.rest.starts_with("running")
    }

    /// Adds what has been answered; whether all others are at rest.
    fn look(&mut self, answers: &mut [Option<Outcome>], patience: Duration) -> bool {
        for (number, answer) in answers.iter_mut().enumerate() {
            if self.workers[number].busy.is_some() && answer.is_none() {
                let fresh = self.workers[number].rest.is_empty();
                let limit = if fresh { patience } else { Duration::ZERO };
                *answer = self.answer(number, limit);
            }
        }
        // Only now: whoever has answered may have woken others before, who then go back to sleep.
        let mut at_rest = true;
        for number in 0..answers.len() {
            at_rest &= self.workers[number].busy.is_none() || self.rests(number);
        }
        at_rest
    }

    fn replace(&mut self, number: usize) {
        let worker = self.start(number);
        let old = std::mem::replace(&mut self.workers[number], worker);
        old.process.kill();
        old.process.wait();
    }

    fn state(&mut self, op: &Op) -> Outcome {
        self.own.state(self.home, &self.shared, true, op)
    }
}

/// What is done at a step.
#[derive(Clone, Copy)]
enum Event {
    Act(usize, Op),
    Kill(usize),
    Signal(usize),
}

/// Drives `workers` processes in each home.
///
/// # Errors
/// The first difference.
pub fn lockstep<K, A, B>(
    a: &A,
    b: &B,
    seed: u64,
    operations: u64,
    workers: usize,
) -> Result<(), Box<Difference>>
where
    A: Home,
    B: Home,
    K: Kind<A> + Kind<B>,
{
    let mut rng = Rng::new(seed);
    let mut one = Side::<A, K>::new(a, workers);
    let mut other = Side::<B, K>::new(b, workers);
    let stamps_deaths = A::STAMPS_DEATHS && B::STAMPS_DEATHS;
    (one.shared.stamps_deaths, other.shared.stamps_deaths) = (stamps_deaths, stamps_deaths);
    let mut log = Log::default();
    for step in 0..operations {
        let event = choose::<A, B, K>(&mut rng, &one);
        log.add(show::<A, K>(&event));
        let outcome = perform(&mut one, &mut other, event).and_then(|()| settle(&mut one, &mut other));
        let op = Op { verb: 0, args: [0; 6] };
        let outcome = outcome.and_then(|answers| {
            for (number, answer) in answers.iter().enumerate() {
                if let Some(answer) = answer {
                    log.add(format!("    worker {number}: {answer:?}"));
                }
            }
            same_state(&mut one, &mut other, &op, matches!(event, Event::Kill(_)))
        });
        if let Err(what) = outcome {
            return Err(Box::new(Difference {
                kind: <K as Kind<A>>::NAME,
                seed,
                step,
                in_lockstep: true,
                what: format!("{} and {}: {what}", A::NAME, B::NAME),
                tail: log.0.into(),
            }));
        }
    }
    Ok(())
}

fn choose<A: Home, B: Home, K: Kind<A> + Kind<B>>(rng: &mut Rng, side: &Side<'_, A, K>) -> Event {
    let idle: Vec<usize> =
        (0..side.workers.len()).filter(|number| side.workers[*number].busy.is_none()).collect();
    let waiting: Vec<Op> = side.workers.iter().filter_map(|worker| worker.busy).collect();
    if rng.one_in(100) {
        return Event::Kill(rng.below(side.workers.len() as u64) as usize);
    }
    if rng.one_in(60) && !waiting.is_empty() {
        let blocked: Vec<usize> =
            (0..side.workers.len()).filter(|number| side.workers[*number].busy.is_some()).collect();
        return Event::Signal(rng.pick(&blocked));
    }
    let worker = rng.pick(&idle);
    let op = <K as Kind<A>>::choose(rng);
    let op = <K as Kind<A>>::instead(&op, &waiting).unwrap_or(op);
    let op = <K as Kind<B>>::instead(&op, &waiting).unwrap_or(op);
    Event::Act(worker, if idle.len() == 1 { <K as Kind<A>>::calm(op) } else { op })
}

fn show<H: Home, K: Kind<H>>(event: &Event) -> String {
    match event {
        Event::Act(worker, op) => format!("worker {worker}: {}", K::show(op)),
        Event::Kill(worker) => format!("worker {worker} is killed, and replaced"),
        Event::Signal(worker) => format!("worker {worker} gets a signal"),
    }
}

fn perform<A: Home, B: Home, K: Kind<A> + Kind<B>>(
    one: &mut Side<'_, A, K>,
    other: &mut Side<'_, B, K>,
    event: Event,
) -> Result<(), String> {
    match event {
        Event::Act(worker, op) => {
            one.tell(worker, &op);
            other.tell(worker, &op);
        }
        Event::Kill(worker) => {
            one.replace(worker);
            other.replace(worker);
        }
        Event::Signal(worker) => {
            one.workers[worker].process.signal(libc::SIGUSR2);
            other.workers[worker].process.signal(libc::SIGUSR2);
            one.workers[worker].rest.clear();
            other.workers[worker].rest.clear();
        }
    }
    Ok(())
}

/// Waits until both homes are at the same rest; what was answered.
fn settle<A: Home, B: Home, K: Kind<A> + Kind<B>>(
    one: &mut Side<'_, A, K>,
    other: &mut Side<'_, B, K>,
) -> Result<Vec<Option<Outcome>>, String> {
    let mut left = vec![None; one.workers.len()];
    let mut right = left.clone();
    let deadline = Instant::now() + LIMIT;
    loop {
        let patience = Duration::from_millis(1);
        let at_rest = one.look(&mut left, patience) & other.look(&mut right, patience);
        if at_rest && left == right {
            return Ok(left);
        }
        let both = left.iter().zip(&right).position(|(l, r)| l.is_some() && r.is_some() && l != r);
        if both.is_some() || Instant::now() >= deadline {
            let rest = if at_rest { "" } else { ", and not all are at rest" };
            return Err(format!("answers {left:?} and {right:?}{rest}"));
        }
    }
}

/// Compares what is seen of the objects. A dead process's are given a moment.
fn same_state<A: Home, B: Home, K: Kind<A> + Kind<B>>(
    one: &mut Side<'_, A, K>,
    other: &mut Side<'_, B, K>,
    op: &Op,
    moment: bool,
) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (left, right) = (one.state(op), other.state(op));
        if left == right {
            return Ok(());
        }
        if !moment || Instant::now() >= deadline {
            return Err(format!("states {left:?} and {right:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
