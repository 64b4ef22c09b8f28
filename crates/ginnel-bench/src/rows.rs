//! The rows: what is measured, and what it is to be compared with.

use serde::Serialize;

/// One row of the table: one piece of work, done in both homes.
#[derive(Debug)]
pub struct Row {
    /// Its name, by which it is chosen: `pair/sysv-queue`.
    pub name: &'static str,
    /// What is done, in words.
    pub what: &'static str,
    /// What is to be reached.
    pub targets: &'static [Target],
    pub(crate) work: Work,
    pub(crate) object: Object,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// So many times faster than the kernel's home.
    Ratio {
        /// The ratio.
        at_least: f64,
    },
    /// A round trip within half a microsecond, or this many times what a cache line takes, whichever is longer.
    Line {
        /// How many times.
        times: f64,
    },
    /// No more than so many times what another row takes in the user-space home.
    Within {
        /// How many times.
        times: f64,
        /// The other row's name.
        of: &'static str,
    },
    /// No more CPU time than this, over the whole of the sleep.
    CpuNs {
        /// In ns.
        at_most: f64,
    },
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// By one process, with nobody waiting: there and back, taking and giving, locking and unlocking.
    Pair,
    /// A request and its reply between two processes that do nothing else.
    Trip(Cores),
    /// The same, with a pause before each request in which the asking process works.
    Think,
    /// One way, as fast as it goes.
    Flow { bytes: usize },
    /// Eight that send and eight that receive, through one queue.
    Crowd,
    /// One message out of as many types as there are messages, and back in.
    ByType { depth: u64 },
    /// Blocked, for a long time.
    Asleep,
}

/// Where two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Each on a CPU of its own.
    Two,
    /// Both on the same one.
    One,
    /// Where the scheduler has them.
    Any,
}

/// With what it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    SysvQueue,
    PosixQueue,
    SysvSemaphores,
    SysvSemaphoresUndo,
    PosixSemaphores,
    Mutex,
}

/// What the figures of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// The time of one operation.
    Time,
    /// Messages a second.
    Rate,
    /// CPU time and context switches of a sleeper.
    Sleep,
}

impl Row {
    /// What its figures are.
    pub fn figure(&self) -> Figure {
        match self.work {
            Work::Flow { .. } | Work::Crowd => Figure::Rate,
            Work::Asleep => Figure::Sleep,
            _ => Figure::Time,
        }
    }

    /// The bytes of one message, where they are what matters.
    pub fn message_bytes(&self) -> Option<usize> {
        match self.work {
            Work::Flow { bytes } => Some(bytes),
            _ => None,
        }
    }

    /// How many operations are timed together: reading the clock takes 22 ns, which would be most of a short one.
    pub fn batch(&self) -> u64 {
        match self.work {
            Work::Pair => 100,
            Work::ByType { .. } => 10,
            _ => 1,
        }
    }

    /// Whether each of its processes has a CPU of its own.
    pub(crate) fn is_alone(&self) -> bool {
        !matches!(self.work, Work::Crowd | Work::Trip(Cores::Any | Cores::One))
    }

    /// Whether it may run on all CPUs.
    pub(crate) fn is_everywhere(&self) -> bool {
        matches!(self.work, Work::Crowd | Work::Trip(Cores::Any))
    }
}

/// All rows, in the order of the table.
pub fn rows() -> &'static [Row] {
    &ROWS
}

const fn at_least(ratio: f64) -> Target {
    Target::Ratio { at_least: ratio }
}

/// Nothing is promised.
const NONE: &[Target] = &[];
const TEN: &[Target] = &[at_least(10.0)];
const TWENTY: &[Target] = &[at_least(20.0)];
const HALF_AS_LONG_AGAIN: &[Target] = &[at_least(1.5)];
const LINE: &[Target] = &[Target::Line { times: 4.0 }];
const ASLEEP: &[Target] = &[Target::CpuNs { at_most: 1_000_000.0 }];

const fn row(
    name: &'static str,
    object: Object,
    work: Work,
    targets: &'static [Target],
    what: &'static str,
) -> Row {
    Row { name, what, targets, work, object }
}

use Object::{Mutex, PosixQueue, PosixSemaphores, SysvQueue, SysvSemaphores, SysvSemaphoresUndo};
use Work::{Asleep, ByType, Crowd, Flow, Pair, Think, Trip};

static ROWS: [Row; 35] = [
    row("pair/sysv-queue", SysvQueue, Pair, &[at_least(25.0)], "send and receive, 64 B, by one process"),
    row("pair/posix-queue", PosixQueue, Pair, TWENTY, "send and receive, 64 B, by one process"),
    row("pair/semop", SysvSemaphores, Pair, TWENTY, "take and give, by one process"),
    row("pair/semop-undo", SysvSemaphoresUndo, Pair, TEN, "take and give with SEM_UNDO, by one process"),
    row(
        "pair/posix-semaphore",
        PosixSemaphores,
        Pair,
        NONE,
        "take and give, by one process (the C library's)",
    ),
    row("pair/mutex", Mutex, Pair, NONE, "lock and unlock, robust, by one process (the C library's)"),
    row("trip/two-cores/sysv-queue", SysvQueue, Trip(Cores::Two), LINE, "round trip, 64 B, each on its core"),
    row(
        "trip/two-cores/posix-queue",
        PosixQueue,
        Trip(Cores::Two),
        LINE,
        "round trip, 64 B, each on its core",
    ),
    row("trip/two-cores/semop", SysvSemaphores, Trip(Cores::Two), LINE, "there and back, each on its core"),
    row(
        "trip/two-cores/posix-semaphore",
        PosixSemaphores,
        Trip(Cores::Two),
        NONE,
        "there and back, each on its core",
    ),
    row(
        "trip/one-core/sysv-queue",
        SysvQueue,
        Trip(Cores::One),
        HALF_AS_LONG_AGAIN,
        "round trip, 64 B, both on one core",
    ),
    row(
        "trip/one-core/posix-queue",
        PosixQueue,
        Trip(Cores::One),
        HALF_AS_LONG_AGAIN,
        "round trip, 64 B, both on one core",
    ),
    row(
        "trip/one-core/semop",
        SysvSemaphores,
        Trip(Cores::One),
        HALF_AS_LONG_AGAIN,
        "there and back, both on one core",
    ),
    row(
        "trip/one-core/posix-semaphore",
        PosixSemaphores,
        Trip(Cores::One),
        NONE,
        "there and back, both on one core",
    ),
    row(
        "trip/unpinned/sysv-queue",
        SysvQueue,
        Trip(Cores::Any),
        NONE,
        "round trip, 64 B, where the scheduler has them",
    ),
    row(
        "trip/unpinned/posix-queue",
        PosixQueue,
        Trip(Cores::Any),
        NONE,
        "round trip, 64 B, where the scheduler has them",
    ),
    row(
        "think/sysv-queue",
        SysvQueue,
        Think,
        HALF_AS_LONG_AGAIN,
        "round trip after 200 us of thinking, two cores",
    ),
    row(
        "think/posix-queue",
        PosixQueue,
        Think,
        HALF_AS_LONG_AGAIN,
        "round trip after 200 us of thinking, two cores",
    ),
    row("flow/64/sysv-queue", SysvQueue, Flow { bytes: 64 }, TEN, "one way, 64 B, two cores"),
    row("flow/64/posix-queue", PosixQueue, Flow { bytes: 64 }, TEN, "one way, 64 B, two cores"),
    row("flow/1k/sysv-queue", SysvQueue, Flow { bytes: 1 << 10 }, NONE, "one way, 1 KiB, two cores"),
    row("flow/1k/posix-queue", PosixQueue, Flow { bytes: 1 << 10 }, NONE, "one way, 1 KiB, two cores"),
    row("flow/8k/sysv-queue", SysvQueue, Flow { bytes: 8 << 10 }, NONE, "one way, 8 KiB, two cores"),
    row("flow/8k/posix-queue", PosixQueue, Flow { bytes: 8 << 10 }, NONE, "one way, 8 KiB, two cores"),
    row(
        "flow/1m/sysv-queue",
        SysvQueue,
        Flow { bytes: 1 << 20 },
        &[at_least(3.0)],
        "one way, 1 MiB, two cores",
    ),
    row(
        "flow/1m/posix-queue",
        PosixQueue,
        Flow { bytes: 1 << 20 },
        &[at_least(3.0)],
        "one way, 1 MiB, two cores",
    ),
    row(
        "crowd/sysv-queue",
        SysvQueue,
        Crowd,
        &[at_least(1.0)],
        "8 senders, 8 receivers, 64 B, one queue, all cores",
    ),
    row(
        "crowd/posix-queue",
        PosixQueue,
        Crowd,
        &[at_least(1.0)],
        "8 senders, 8 receivers, 64 B, one queue, all cores",
    ),
    row(
        "type/10",
        SysvQueue,
        ByType { depth: 10 },
        NONE,
        "receive by type out of 10 messages, and send back",
    ),
    row(
        "type/1000",
        SysvQueue,
        ByType { depth: 1000 },
        NONE,
        "receive by type out of 1,000 messages, and send back",
    ),
    row(
        "type/10000",
        SysvQueue,
        ByType { depth: 10_000 },
        NONE,
        "receive by type out of 10,000 messages, and send back",
    ),
    row(
        "type/100000",
        SysvQueue,
        ByType { depth: 100_000 },
        &[Target::Within { times: 2.0, of: "type/10" }],
        "receive by type out of 100,000 messages, and send back",
    ),
    row("asleep/sysv-queue", SysvQueue, Asleep, ASLEEP, "blocked in a receive: CPU time, context switches"),
    row("asleep/posix-queue", PosixQueue, Asleep, ASLEEP, "blocked in a receive: CPU time, context switches"),
    row("asleep/semop", SysvSemaphores, Asleep, ASLEEP, "blocked in a take: CPU time, context switches"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_targets_name_rows() {
        for row in rows() {
            assert_eq!(rows().iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
            for target in row.targets {
                if let Target::Within { of, .. } = target {
                    assert!(rows().iter().any(|other| other.name == *of), "{of}");
                }
            }
        }
    }
}
