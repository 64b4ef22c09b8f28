//! Looking again for a moment before sleeping: `sched_yield(2)`, `sched_getcpu(3)`.
//!
//! # How it decides
//! Who waits for another that runs on another CPU spins: what it waits for may come in a tenth of a microsecond, and to
//! sleep and be woken costs some fifty. On the same CPU the other cannot run while this one spins: it is let run by
//! `sched_yield`, a few times. Either way it is bounded, and the bound follows what was seen: a thread whose looking was
//! in vain looks less long the next time, down to next to nothing, and longer again once it was worth it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::primitive::Thread;

/// What waking a sleeper costs, about: to spin for longer is a loss.
const LONGEST: Duration = Duration::from_micros(60);
const SHORTEST: Duration = Duration::from_micros(1);
/// How often to let others run, at most: each time costs about half a microsecond.
const YIELDS_MOST: u32 = 24;
const YIELDS_LEAST: u32 = 1;
/// How many looks for one at the clock, which costs as much as a look.
const LOOKS_A_CLOCK: u32 = 16;

thread_local! {
    /// How long this thread looks before it sleeps, as a share of the longest: halved when it was in vain.
    static SHIFT: Cell<u32> = const { Cell::new(0) };
}

const SHIFT_MOST: u32 = 6;

/// Looks until `there` says so, for a moment at most: whether it did. `cpu` is where the other was last seen.
pub(crate) fn look_for(cpu: u32, deadline: Option<Instant>, mut there: impl FnMut() -> bool) -> bool {
    let shift = SHIFT.get();
    let found = if cpu == Thread::cpu() {
        yield_for((YIELDS_MOST >> shift).max(YIELDS_LEAST), &mut there)
    } else {
        spin_for((LONGEST / (1 << shift)).max(SHORTEST), deadline, &mut there)
    };
    SHIFT.set(if found { shift.saturating_sub(2) } else { (shift + 1).min(SHIFT_MOST) });
    found
}

fn yield_for(times: u32, there: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..times {
        rustix::thread::sched_yield();
        if there() {
            return true;
        }
    }
    false
}

fn spin_for(longest: Duration, deadline: Option<Instant>, there: &mut impl FnMut() -> bool) -> bool {
    let limit = Instant::now() + longest;
    let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
    loop {
        for _ in 0..LOOKS_A_CLOCK {
            if there() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= limit {
            return false;
        }
    }
}
