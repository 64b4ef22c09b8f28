//! Looking again for a moment before sleeping: `sched_yield(2)`.
//!
//! # How it decides
//! Who waits for another that runs on another CPU spins: what it waits for may come in a tenth of a microsecond, and to
//! sleep and be woken costs some fifty. On the same CPU the other cannot run while this one spins: it is let run by
//! `sched_yield`. Which of the two it is cannot be told beforehand, so each thread goes by what helped last, does a little
//! of the other in between, and now and then tries the other first.
//!
//! On a busy host, whoever lets others run may be gone for a whole slice of some milliseconds, while a sleeper that is woken
//! goes first. So when letting others run has taken long, a thread sleeps instead, for many a time.
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

/// To let others run for longer is to have lost the processor.
const SLOW: Duration = Duration::from_micros(150);
/// How often not to let others run from then on.
const BUSY: u32 = 256;

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
    /// How often not to let others run.
    busy: u32,
}

/// How it came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    BySpinning,
    ByYielding,
    Not,
    /// It may have come or not: the processor was gone for long.
    Slowly(bool),
}

thread_local! {
    /// By what it waits for.
    static EXPECTS: [Cell<bool>; KINDS] = const { [const { Cell::new(false) }; KINDS] };
    static HABIT: Cell<Habit> = const { Cell::new(Habit { shift: 0, yields: false, times: 0, busy: 0 }) };
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
    let found = look(habit, other, deadline, &mut there);
    habit.busy = habit.busy.saturating_sub(1);
    match found {
        Found::BySpinning | Found::ByYielding => {
            habit.yields = found == Found::ByYielding;
            habit.shift = habit.shift.saturating_sub(2);
        }
        Found::Not => habit.shift = (habit.shift + 1).min(SHIFT_MOST),
        Found::Slowly(_) => habit = Habit { busy: BUSY, yields: false, ..habit },
    }
    EXPECTS.with(|expects| expects[kind % KINDS].set(found == Found::BySpinning));
    HABIT.set(habit);
    !matches!(found, Found::Not | Found::Slowly(false))
}

fn look(habit: Habit, other: bool, deadline: Option<Instant>, there: &mut impl FnMut() -> bool) -> Found {
    if (habit.yields == other || habit.busy > 0) && spin(LOOKS >> habit.shift, there) {
        return Found::BySpinning;
    }
    if habit.busy > 0 {
        return Found::Not;
    }
    let mut now = Instant::now();
    let limit = now + LONGEST / (1 << habit.shift);
    let limit = deadline.map_or(limit, |deadline| deadline.min(limit));
    loop {
        rustix::thread::sched_yield();
        let before = std::mem::replace(&mut now, Instant::now());
        if now - before > SLOW {
            return Found::Slowly(there());
        }
        if there() {
            return Found::ByYielding;
        }
        if spin(LOOKS_BETWEEN, there) {
            return Found::BySpinning;
        }
        if now >= limit {
            return Found::Not;
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
