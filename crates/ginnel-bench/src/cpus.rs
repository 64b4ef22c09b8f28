//! Which CPUs, how far they are from each other, and whether anybody else used them.
//!
//! A virtual machine's CPUs are moved about by the host: now they are two threads of one core, now they are far apart, and
//! ratios change fourfold with it. So the time that a cache line takes there and back is measured before and after each
//! run, and a run in which it changed its class says nothing.

use std::fmt;
use std::sync::atomic::Ordering;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::process::{Board, Worker, delay_ns, now_ns};

/// The CPUs that a measurement may use.
#[derive(Clone)]
pub(crate) struct Cpus {
    allowed: CpuSet,
    pub(crate) first: usize,
    /// None where there is one only.
    pub(crate) second: Option<usize>,
}

impl Cpus {
    /// The two that were asked for, or the first two that this process may use.
    pub(crate) fn choose(wanted: Option<(usize, usize)>) -> Result<Cpus> {
        let allowed = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (first, second) = match wanted {
            Some((first, second)) => (first, Some(second)),
            None => (usable.next().unwrap_or(0), usable.next()),
        };
        for cpu in [Some(first), second].into_iter().flatten() {
            if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
                return Err(Error::failed(format!("this process may not use CPU {cpu}")));
            }
        }
        Ok(Cpus { allowed, first, second: second.filter(|second| *second != first) })
    }

    /// The second, for what needs two.
    pub(crate) fn other(&self) -> Result<usize> {
        self.second.ok_or_else(|| Error::Unavailable("it needs two CPUs, and there is one".into()))
    }

    /// Where this process runs from here on.
    pub(crate) fn pin(&self, cpu: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        Ok(sched_setaffinity(None, &set)?)
    }

    /// It may run on all of them.
    pub(crate) fn unpin(&self) -> Result<()> {
        Ok(sched_setaffinity(None, &self.allowed)?)
    }

    fn is_used(&self, cpu: usize, everywhere: bool) -> bool {
        match everywhere {
            true => cpu < CpuSet::MAX_CPU && self.allowed.is_set(cpu),
            false => cpu == self.first || Some(cpu) == self.second,
        }
    }
}

/// How far two CPUs are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// Two threads of one core: about 52 ns there and back.
    Hyperthreads,
    /// Two cores with a cache between them: 100 to 125 ns.
    Near,
    /// Two sockets, or two halves of a large one: about 485 ns.
    Far,
}

impl Distance {
    /// The class of a time there and back.
    pub fn of(line_ns: f64) -> Distance {
        match line_ns {
            ns if ns < 80.0 => Distance::Hyperthreads,
            ns if ns < 250.0 => Distance::Near,
            _ => Distance::Far,
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distance::Hyperthreads => "hyperthreads",
            Distance::Near => "near",
            Distance::Far => "far",
        })
    }
}

const PROBES: usize = 41;
const TRIPS: u64 = 100;

/// How long a cache line takes from the first CPU to the second and back, in ns: the median of 41 times 100 trips.
pub(crate) fn line_ns(cpus: &Cpus) -> Result<Option<f64>> {
    let Some(second) = cpus.second else { return Ok(None) };
    const BALL: usize = 0;
    const READY: usize = 1;
    let board = Board::new()?;
    let last = 2 * TRIPS * PROBES as u64;
    let peer = Worker::start(|| {
        cpus.pin(second)?;
        board.word(READY).store(1, Ordering::Release);
        let ball = board.word(BALL);
        let mut turn = 1;
        while turn < last {
            while ball.load(Ordering::Acquire) != turn {}
            ball.store(turn + 1, Ordering::Release);
            turn += 2;
        }
        Ok(())
    })?;
    cpus.pin(cpus.first)?;
    board.wait_for(READY, 1);
    let ball = board.word(BALL);
    let mut turn = 0;
    let mut times = [0; PROBES];
    for time in &mut times {
        let began = now_ns();
        for _ in 0..TRIPS {
            ball.store(turn + 1, Ordering::Release);
            turn += 2;
            while ball.load(Ordering::Acquire) != turn {}
        }
        *time = now_ns() - began;
    }
    peer.finish()?;
    cpus.unpin()?;
    times.sort_unstable();
    Ok(Some(times[PROBES / 2] as f64 / TRIPS as f64))
}

/// What the CPUs have done so far: theirs, and what of it was ours.
pub(crate) struct Meter {
    busy_ns: u64,
    stolen_ns: u64,
    own_ns: u64,
    delay_ns: u64,
    at_ns: u64,
    count: u64,
}

/// What `/proc/stat` counts in: `USER_HZ`, 100 on every machine that Linux knows.
const TICK_NS: u64 = 10_000_000;
/// The counts are by ticks: of less than this nothing can be said.
const BLUR_NS: u64 = 30_000_000;
/// The kernel's own threads keep everybody waiting for as long as this now and then.
const DELAY_NS: u64 = 1_000_000;

impl Meter {
    /// Reads it: of the two CPUs, or of all that this process may use.
    pub(crate) fn read(cpus: &Cpus, everywhere: bool) -> Result<Meter> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let mut meter = Meter {
            busy_ns: 0,
            stolen_ns: 0,
            own_ns: own_ns(),
            delay_ns: delay_ns()?,
            at_ns: now_ns(),
            count: 0,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let cpu = words.next().and_then(|word| word.strip_prefix("cpu")).and_then(|n| n.parse().ok());
            let Some(cpu) = cpu else { continue };
            if cpus.is_used(cpu, everywhere) {
                let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
                // user nice system idle iowait irq softirq steal
                let at = |index: usize| ticks.get(index).copied().unwrap_or(0) * TICK_NS;
                meter.busy_ns += at(0) + at(1) + at(2) + at(5) + at(6);
                meter.stolen_ns += at(7);
                meter.count += 1;
            }
        }
        Ok(meter)
    }

    /// Who else used the CPUs since `before`, if anybody did for more than can be told from nobody. `alone`: of our own
    /// processes each has a CPU of its own, so whoever had to wait for it waited for somebody else's.
    pub(crate) fn disturbed_since(&self, before: &Meter, alone: bool) -> Option<String> {
        let available = (self.at_ns - before.at_ns) * self.count;
        let stolen = self.stolen_ns.saturating_sub(before.stolen_ns);
        if stolen > (available / 50).max(2 * TICK_NS) {
            return Some(format!("the host took the CPUs away for {} ms", stolen / 1_000_000));
        }
        let delay = self.delay_ns.saturating_sub(before.delay_ns);
        if alone && delay > (available / 50).max(DELAY_NS) {
            return Some(format!("others kept ours waiting for {} ms", delay / 1_000_000));
        }
        let own = self.own_ns.saturating_sub(before.own_ns);
        let others = self.busy_ns.saturating_sub(before.busy_ns).saturating_sub(own);
        (others > (available / 20).max(BLUR_NS))
            .then(|| format!("others used the CPUs for {} ms", others / 1_000_000))
    }
}

/// The CPU time of this process and of those of its children that have ended.
fn own_ns() -> u64 {
    let self_ns = clock_ns(rustix::time::ClockId::ProcessCPUTime);
    self_ns + children_ns()
}

fn clock_ns(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[allow(unsafe_code)]
fn children_ns() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for the call, and an all-zero value is one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        assert_eq!(
            [52.0, 125.0, 485.0].map(Distance::of),
            [Distance::Hyperthreads, Distance::Near, Distance::Far]
        );
    }

    #[test]
    fn who_else_was_there() {
        let meter = |busy: u64, stolen: u64, own: u64, delay: u64, at: u64| Meter {
            busy_ns: busy * 1_000_000,
            stolen_ns: stolen * 1_000_000,
            own_ns: own * 1_000_000,
            delay_ns: delay * 1_000_000,
            at_ns: at * 1_000_000,
            count: 2,
        };
        let before = meter(100, 0, 0, 0, 0);
        let against = |after: Meter, alone| after.disturbed_since(&before, alone).unwrap_or_default();
        assert_eq!(against(meter(1100, 0, 1000, 0, 1000), true), "");
        assert!(against(meter(1300, 0, 1000, 0, 1000), false).contains("200 ms"));
        assert!(against(meter(1100, 90, 1000, 0, 1000), false).contains("90 ms"));
        assert!(against(meter(1100, 0, 1000, 70, 1000), true).contains("70 ms"));
        assert_eq!(against(meter(1100, 0, 1000, 70, 1000), false), "", "two of ours on one CPU");
    }
}
