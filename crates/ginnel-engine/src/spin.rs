//! Looking again for a moment before sleeping: `sched_yield(2)`.
//!
//! # How it decides
//! Who waits for another that runs on another CPU spins: what it waits for may come in a tenth of a microsecond, and to
//! sleep and be woken costs some fifty. On the same CPU the other cannot run while this one spins: it is let run by
//! `sched_yield`. Which of the two it is cannot be told beforehand, so each thread goes by what helped last, does a little
//! of the other in between, and now and then tries the other first.
//!
//! Either way it is bounded, and the bound follows what was seen: a thread whose looking was in vain looks less long the
//! next time, down to next to nothing, and longer again once it was worth it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What waking a sleeper costs, about: to look for longer is a loss.
const LONGEST: Duration = Duration::from_micros(60);
/// How many looks, a pause between them, until it is time to let others run: about three microseconds.
const LOOKS: u32 = 128;
/// How many before it is known that there is nothing: about half a microsecond.
const LOOKS_AHEAD: u32 = 32;
/// How many after others were let run.
const LOOKS_BETWEEN: u32 = 16;
/// How often to halve the longest at most.
const SHIFT_MOST: u32 = 6;
/// Every so often the other way is tried.
const TRY_OTHER: u32 = 64;

/// How many kinds of change there are to wait for.
const KINDS: usize = 3;

#[derive(Clone, Copy)]
struct Habit {
    /// The longest is halved so often.
    shift: u32,
    /// Whether letting others run is what helped.
    yields: bool,
    /// How many times it was done like this.
    times: u32,
}

thread_local! {
    /// By what it waits for.
    static EXPECTS: [Cell<bool>; KINDS] = const { [const { Cell::new(false) }; KINDS] };
    static HABIT: Cell<Habit> = const { Cell::new(Habit { shift: 0, yields: false, times: 0 }) };
}

/// Whether what this thread last waited for, of this kind, came while it was spinning.
#[inline]
pub(crate) fn expects_to_wait(kind: usize) -> bool {
    EXPECTS.with(|expects| expects[kind % KINDS].get())
}

/// Looks for as long as a busy other may need.
#[cold]
#[inline(never)]
pub(crate) fn look_ahead(kind: usize, mut there: impl FnMut() -> bool) -> bool {
    let found = spin(LOOKS_AHEAD, &mut there);
    EXPECTS.with(|expects| expects[kind % KINDS].set(found));
    found
}

/// Looks until `there` says so, for a moment at most: whether it did.
pub(crate) fn look_for(kind: usize, deadline: Option<Instant>, mut there: impl FnMut() -> bool) -> bool {
    if cfg!(ginnel_model) {
        return there();
    }
    let mut habit = HABIT.get();
    habit.times = habit.times.wrapping_add(1);
    let other = habit.times.is_multiple_of(TRY_OTHER);
    let found = look(habit.yields != other, habit.shift, deadline, &mut there);
    match found {
        Some(by_yield) => {
            habit.yields = by_yield;
            habit.shift = habit.shift.saturating_sub(2);
        }
        None => habit.shift = (habit.shift + 1).min(SHIFT_MOST),
    }
    EXPECTS.with(|expects| expects[kind % KINDS].set(found == Some(false)));
    HABIT.set(habit);
    found.is_some()
}

/// Whether letting others run is what brought it; none if it did not come.
fn look(
    yields: bool,
    shift: u32,
    deadline: Option<Instant>,
    there: &mut impl FnMut() -> bool,
) -> Option<bool> {
    if !yields && spin(LOOKS >> shift, there) {
        return Some(false);
    }
    let limit = Instant::now() + LONGEST / (1 << shift);
    let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
    loop {
        rustix::thread::sched_yield();
        if there() {
            return Some(true);
        }
        if spin(LOOKS_BETWEEN, there) {
            return Some(false);
        }
        if Instant::now() >= limit {
            return None;
        }
    }
}

fn spin(looks: u32, there: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..looks {
        if there() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}
