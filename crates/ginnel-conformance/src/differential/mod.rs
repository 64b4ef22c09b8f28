//! Seeded random operations in two homes at once, every result compared.
//!
//! Two ways. [`stretch`] drives both homes from one process, without ever waiting: millions of operations. [`lockstep`]
//! drives several processes in each home: an operation may block, its process may be killed, and who is blocked, who
//! goes on, with what result, must be the same in both after every single operation.
//!
//! What differs by nature is made comparable: an id is told by which of the remembered ids it equals, a process by its
//! number, an address not at all, a stamp by whether it is 0. A difference names the seed and the step, which together
//! are its replay, and shows the operations that led to it.

mod lockstep;
mod posix_queue;
mod posix_semaphore;
mod sysv_queue;
mod sysv_segment;
mod sysv_semaphore;

use std::collections::HashMap;
use std::fmt;

pub use lockstep::lockstep;
pub use posix_queue::Queues;
pub use posix_semaphore::Semaphores;
pub use sysv_queue::Messages;
pub use sysv_segment::Segments;
pub use sysv_semaphore::Sets;

use crate::Result;
use crate::home::Home;

/// How many ids are remembered: the current ones, then their forerunners.
pub const SLOTS: usize = 8;
/// How many operations a difference shows.
const SHOWN: usize = 20;

/// Numbers from a seed: xorshift*.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Any seed will do.
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From `first` to `last`.
    pub fn range(&mut self, first: i64, last: i64) -> i64 {
        first + self.below((last - first + 1) as u64) as i64
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// An operation: what it is, and numbers whose meaning depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// Which.
    pub verb: i64,
    /// On what, and how.
    pub args: [i64; 6],
}

/// What a home's processes share: the ids that they remember, and which process is which.
#[derive(Debug, Clone)]
pub struct Shared {
    /// -1: none yet.
    pub ids: [i32; SLOTS],
    /// A process's number by its pid. Dead ones stay.
    pub processes: HashMap<i32, i64>,
    /// Whether both homes stamp what a process's end does.
    pub stamps_deaths: bool,
}

impl Shared {
    fn new() -> Shared {
        let processes = HashMap::from([(0, -1), (std::process::id() as i32, 1000)]);
        Shared { ids: [-1; SLOTS], processes, stamps_deaths: true }
    }

    /// A process by its number.
    pub fn process(&self, pid: i32) -> i64 {
        self.processes.get(&pid).copied().unwrap_or(-2)
    }

    /// Which remembered ids this one is.
    fn same(&self, id: i32) -> i64 {
        (0..SLOTS).filter(|slot| self.ids[*slot] == id).map(|slot| 1 << slot).sum()
    }
}

/// What an operation gave: an errno or 0, then what came out.
pub type Outcome = Vec<i64>;

/// A kind of object, and what a process keeps to use it. Each home's every process has one.
pub trait Kind<H: Home>: Default {
    /// What reports call it.
    const NAME: &'static str;

    /// A random operation.
    fn choose(rng: &mut Rng) -> Op;

    /// The same, but it does not wait.
    fn calm(op: Op) -> Op;

    /// What to do instead, where the scheduler would decide what comes of it while those wait.
    fn instead(_op: &Op, _waiting: &[Op]) -> Option<Op> {
        None
    }

    /// Does it.
    fn act(&mut self, home: &H, shared: &mut Shared, op: &Op) -> Outcome;

    /// What everybody sees of the objects: of that one, or of all of them to their last byte.
    fn state(&mut self, home: &H, shared: &Shared, deep: bool, op: &Op) -> Outcome;

    /// In words.
    fn show(op: &Op) -> String;
}

/// Two homes gave different results.
#[derive(Debug)]
pub struct Difference {
    /// The kind of object.
    pub kind: &'static str,
    /// Of the random numbers.
    pub seed: u64,
    /// At which operation, from 0.
    pub step: u64,
    /// Whether by several processes.
    pub in_lockstep: bool,
    /// What differs.
    pub what: String,
    /// The last operations, this one included.
    pub tail: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.kind, self.what)?;
        writeln!(
            f,
            "replay: GINNEL_SEED={} {}={} (the last is the one)",
            self.seed,
            if self.in_lockstep { "GINNEL_LOCKSTEP" } else { "GINNEL_OPERATIONS" },
            self.step + 1
        )?;
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// What has been done, for a difference to show.
#[derive(Debug, Default)]
struct Log(std::collections::VecDeque<String>);

impl Log {
    fn add(&mut self, line: String) {
        if self.0.len() == SHOWN {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

/// What a home's process sees: outcome and state, or an errno as a negative number first.
fn outcome(result: Result<Outcome>) -> Outcome {
    match result {
        Ok(mut values) => {
            values.insert(0, 0);
            values
        }
        Err(errno) => vec![errno.raw_os_error().into()],
    }
}

/// A payload's bytes, from a number.
fn payload(seed: i64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (seed as usize).wrapping_add(index.wrapping_mul(7)) as u8).collect()
}

/// Bytes as a number: FNV-1a.
fn digest(bytes: &[u8]) -> i64 {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    (bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix) >> 1) as i64
}

/// Drives both homes from this process, without waiting.
///
/// # Errors
/// The first difference.
pub fn stretch<K, A, B>(a: &A, b: &B, seed: u64, operations: u64) -> std::result::Result<(), Box<Difference>>
where
    A: Home,
    B: Home,
    K: Kind<A> + Kind<B>,
{
    let mut rng = Rng::new(seed);
    let (mut one, mut other) = (K::default(), K::default());
    let (mut shared_a, mut shared_b) = (Shared::new(), Shared::new());
    let mut tail = std::collections::VecDeque::with_capacity(SHOWN);
    for step in 0..operations {
        let op = <K as Kind<A>>::calm(<K as Kind<A>>::choose(&mut rng));
        if tail.len() == SHOWN {
            tail.pop_front();
        }
        tail.push_back(op);
        let deep = step % 512 == 0;
        let results = [
            (one.act(a, &mut shared_a, &op), other.act(b, &mut shared_b, &op)),
            (one.state(a, &shared_a, deep, &op), other.state(b, &shared_b, deep, &op)),
        ];
        for (what, (left, right)) in ["result", "state"].into_iter().zip(results) {
            if left != right {
                return Err(Box::new(Difference {
                    kind: <K as Kind<A>>::NAME,
                    seed,
                    step,
                    in_lockstep: false,
                    what: format!("{what}: {} gave {left:?}, {} {right:?}", A::NAME, B::NAME),
                    tail: tail.iter().map(<K as Kind<A>>::show).collect(),
                }));
            }
        }
    }
    Ok(())
}
