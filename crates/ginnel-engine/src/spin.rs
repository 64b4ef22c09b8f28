//! Looking again for a moment before sleeping: `sched_yield(2)`.
//!
//! # How it decides
//! Who waits for another that runs on another CPU spins: what it waits for may come in a tenth of a microsecond, and to
//! sleep and be woken costs some fifty. On the same CPU the other cannot run while this one spins: it is let run by
//! `sched_yield`. Which of the two it is cannot be told beforehand, so each thread goes by what helped last and does a little
//! of the other in between; and who lets others run now and then spins first.
//!
//! On a busy host, whoever lets others run may be gone for a whole slice of some milliseconds, while a sleeper that is woken
//! goes first. So when letting others run has taken long, a thread sleeps instead, for many a time.
//!
//! Either way it is bounded, and the bound follows what was seen: a thread whose looking was in vain looks less long the
//! next time, down to next to nothing, and longer again once it was worth it.
//!
//! # How it keeps off
//! Where another changes an object in full swing, to take each change as it comes costs both: the object's cache lines
//! go to and fro for each. So who was late for several changes in a row waits for a moment once it sees the next one, and
//! then finds several; twice as long each time, half as long once there was only one. So also for a taken lock, see `lock`.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What waking a sleeper costs, about: to look for longer is a loss.
const LONGEST: Duration = Duration::from_micros(60);
/// How many looks, a pause between them, until it is time to let others run: about three microseconds.
const LOOKS: u32 = 128;
/// How many before an operation that will have to wait: longer than a busy other takes for its turn.
const LOOKS_AHEAD: u32 = 96;
/// How many after others were let run.
const LOOKS_BETWEEN: u32 = 16;
/// How often to halve the longest at most.
const SHIFT_MOST: u32 = 6;
/// Every so often who lets others run spins first.
const TRY_OTHER: u32 = 64;

/// To let others run for longer is to have lost the processor.
const SLOW: Duration = Duration::from_micros(150);
/// After how many quick ones in a row only every so many is timed.
const QUICK: u32 = 32;
const TIMED: u32 = 4;
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
    /// How often in a row letting others run was quick.
    quick: u32,
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

/// How long to keep off, in pauses, at most: some eight microseconds.
const OFF_MOST: u32 = 256;

thread_local! {
    /// For how many pauses to let go on who makes the changes that this thread waits for, once it has seen one.
    static OFF: [Cell<u32>; KINDS] = const { [const { Cell::new(0) }; KINDS] };
    /// For how many pauses to let go on who holds a lock.
    static OFF_LOCK: Cell<u32> = const { Cell::new(0) };
    /// A bit for each kind of change that it waits for.
    static EXPECTS: Cell<u32> = const { Cell::new(0) };
    static HABIT: Cell<Habit> = const { Cell::new(Habit { shift: 0, yields: false, times: 0, busy: 0, quick: 0 }) };
}

/// For which kinds of change the last that this thread waited for came while it was spinning, a bit each: 0 for one that has
/// not met another on another CPU.
#[inline]
pub(crate) fn expected() -> u32 {
    EXPECTS.get()
}

/// Whether a kind is among those of [`expected`].
#[inline]
pub(crate) fn is_among(expected: u32, kind: usize) -> bool {
    expected >> kind & 1 != 0
}

fn expect(kind: usize, expects: bool) {
    let others = EXPECTS.get() & !(1 << kind);
    EXPECTS.set(others | u32::from(expects) << kind);
}

/// Looks for as long as a busy other may need.
#[cold]
#[inline(never)]
pub(crate) fn look_ahead(kind: usize, mut there: impl FnMut() -> bool) -> bool {
    let found = spin(LOOKS_AHEAD, &mut there);
    expect(kind, found);
    found
}

/// Looks until `there` says so, for a moment at most: whether it did.
pub(crate) fn look_for(kind: usize, deadline: Option<Instant>, mut there: impl FnMut() -> bool) -> bool {
    if cfg!(ginnel_model) {
        return there();
    }
    let mut habit = HABIT.get();
    habit.times = habit.times.wrapping_add(1);
    let found = look(habit, deadline, &mut there);
    habit.busy = habit.busy.saturating_sub(1);
    match found {
        Found::BySpinning | Found::ByYielding => {
            habit.yields = found == Found::ByYielding;
            habit.shift = habit.shift.saturating_sub(2);
            habit.quick = if habit.yields { (habit.quick + 1).min(QUICK) } else { 0 };
        }
        Found::Not => habit.shift = (habit.shift + 1).min(SHIFT_MOST),
        Found::Slowly(_) => habit = Habit { busy: BUSY, yields: false, quick: 0, ..habit },
    }
    expect(kind, found == Found::BySpinning);
    HABIT.set(habit);
    !matches!(found, Found::Not | Found::Slowly(false))
}

fn look(habit: Habit, deadline: Option<Instant>, there: &mut impl FnMut() -> bool) -> Found {
    let looks = match habit.yields && habit.busy == 0 {
        true if habit.times.is_multiple_of(TRY_OTHER) => LOOKS_BETWEEN * 2,
        true => 0,
        false => LOOKS >> habit.shift,
    };
    if spin(looks, there) {
        return Found::BySpinning;
    }
    if habit.busy > 0 {
        return Found::Not;
    }
    // To read the clock takes as long as half the operation.
    if habit.yields && habit.quick >= QUICK && !habit.times.is_multiple_of(TIMED) {
        rustix::thread::sched_yield();
        if there() {
            return Found::ByYielding;
        }
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

/// Once a change was seen: lets who made it go on if it lately made several in a row.
#[inline]
pub(crate) fn keep_off(kind: usize) {
    OFF.with(|off| pause(off[kind % KINDS].get()));
}

/// How many more changes there were between the one that was seen and the moment at which this thread had the lock. If there
/// were some, the next operation need not wait: it is not to look for a change that it does not need.
#[inline]
pub(crate) fn learn(kind: usize, changes: u32) {
    OFF.with(|off| {
        let off = &off[kind % KINDS];
        match changes {
            0 => off.set(off.get() / 2),
            _ => {
                off.set(more(off.get()));
                expect(kind, false);
            }
        }
    });
}

/// Lets who holds a lock go on with it, if this thread lately met one who took it again and again: whether it did.
pub(crate) fn keep_off_lock() -> bool {
    let pauses = OFF_LOCK.get();
    pause(pauses);
    pauses > 0
}

/// A taken lock was had: whether it took long.
pub(crate) fn took_lock(keen: bool, long: bool) {
    if keen && !long {
        return;
    }
    let off = OFF_LOCK.get();
    OFF_LOCK.set(if long { more(off) } else { off - off.div_ceil(4) });
}

/// For how long to keep off when so long was not enough.
fn more(off: u32) -> u32 {
    (off * 2 + 4).min(OFF_MOST)
}

fn pause(pauses: u32) {
    if !cfg!(ginnel_model) {
        for _ in 0..pauses {
            std::hint::spin_loop();
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
