//! The objects that live in any mapping (mutex, condition variable, read-write lock, barrier), overwritten word by word and
//! bit by bit while two processes work with them and with others of their kinds in the same memory.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ginnel_engine::sync::barrier::Barrier;
use ginnel_engine::sync::condvar::Condvar;
use ginnel_engine::sync::mutex::{Locked, Mutex};
use ginnel_engine::sync::rwlock::RwLock;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, Exit, fork, wait_blocked_in, wait_until};

use crate::common::{self, Random, hostile, number, pause_for_ever, region, stride_or, word};
use crate::{ROUNDS, STOP};

/// What the two beside it have done under their lock; and how often they came to the barrier.
const DONE: usize = 10;
const MADE: usize = 11;
const TAKEN: usize = 12;
const HOLDERS: u32 = 4;
const PARTIES: u32 = 2;

/// One of each, at a place of the region.
#[derive(Clone, Copy)]
struct Objects {
    mutex: Mutex<'static>,
    condvar: Condvar<'static>,
    rwlock: RwLock<'static>,
    barrier: Barrier<'static>,
}

/// Which of them is overwritten: its place and size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Mutex,
    Condvar,
    RwLock,
    Barrier,
}

const RWLOCK_AT: usize = 128;
const BARRIER_AT: usize = RWLOCK_AT + RwLock::size_bytes(HOLDERS).next_multiple_of(64);
const END: usize = BARRIER_AT + Barrier::size_bytes(PARTIES).next_multiple_of(64);

impl Which {
    fn words(self) -> std::iter::StepBy<std::ops::Range<usize>> {
        let range = match self {
            Which::Mutex => 0..64,
            Which::Condvar => 64..128,
            Which::RwLock => RWLOCK_AT..RWLOCK_AT + RwLock::size_bytes(HOLDERS),
            Which::Barrier => BARRIER_AT..BARRIER_AT + Barrier::size_bytes(PARTIES),
        };
        range.step_by(8)
    }
}

fn make(at: usize) -> Objects {
    (at..at + END).step_by(8).for_each(|offset| word(offset).store(0, Ordering::SeqCst));
    let region = region();
    Objects {
        mutex: Mutex::init(region, at).unwrap(),
        condvar: Condvar::init(region, at + 64).unwrap(),
        rwlock: RwLock::init(region, at + RWLOCK_AT, HOLDERS).unwrap(),
        barrier: Barrier::init(region, at + BARRIER_AT, PARTIES).unwrap(),
    }
}

fn in_ms(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// An errno that a caller must expect of one that was overwritten.
fn expected<T>(outcome: Result<T>) -> Option<T> {
    const KNOWN: [Errno; 9] = [
        Errno::UCLEAN,
        Errno::TIMEDOUT,
        Errno::BUSY,
        Errno::NOTRECOVERABLE,
        Errno::DEADLK,
        Errno::PERM,
        Errno::NOLCK,
        Errno::INVAL,
        Errno::AGAIN,
    ];
    match outcome {
        Ok(value) => Some(value),
        Err(errno) => {
            assert!(KNOWN.contains(&errno), "{errno}");
            None
        }
    }
}

/// All that can be done with one of each, whatever comes of it; each call by its deadline.
fn use_overwritten(objects: Objects) {
    let Objects { mutex, condvar, rwlock, barrier } = objects;
    let late = in_ms(2000);
    if let Some(locked) = expected(mutex.lock(Patience::Until(in_ms(8)))) {
        if locked == Locked::OwnerDied {
            expected(mutex.mark_consistent());
        }
        expected(condvar.wait(&mutex, Some(in_ms(3))));
        condvar.notify_one();
        expected(mutex.unlock());
    }
    condvar.notify_all();
    for writes in [false, true] {
        let patience = Patience::Until(in_ms(8));
        if let Some(hold) = expected(if writes { rwlock.write(patience) } else { rwlock.read(patience) }) {
            if hold.locked() == Locked::OwnerDied {
                expected(rwlock.mark_consistent(&hold));
            }
            expected(rwlock.unlock(hold));
        }
    }
    expected(barrier.wait(Some(in_ms(3))));
    // A grace of a second, where somebody seems to have been stopped with the lock.
    assert!(Instant::now() < late + Duration::from_secs(8), "far beyond the deadlines");
}

/// The same of those beside it, which nobody harms: all of it does what it must.
fn use_sound(objects: Objects) {
    let Objects { mutex, condvar, rwlock, barrier } = objects;
    let soon = Patience::Until(in_ms(20_000));
    assert_eq!(mutex.lock(soon), Ok(Locked::Whole));
    let done = number(DONE).load(Ordering::Relaxed);
    number(MADE).fetch_add(1, Ordering::Relaxed);
    number(DONE).store(done + 1, Ordering::Relaxed);
    condvar.notify_one();
    while number(MADE).load(Ordering::Relaxed) == 0 {
        condvar.wait(&mutex, Some(in_ms(20_000))).unwrap();
    }
    number(MADE).fetch_sub(1, Ordering::Relaxed);
    number(TAKEN).fetch_add(1, Ordering::Relaxed);
    mutex.unlock().unwrap();
    let hold = rwlock.write(soon).unwrap();
    rwlock.unlock(hold).unwrap();
    let hold = rwlock.read(soon).unwrap();
    rwlock.unlock(hold).unwrap();
    match barrier.wait(Some(in_ms(1))) {
        Ok(_) | Err(Errno::TIMEDOUT) => {}
        Err(errno) => panic!("the barrier beside it: {errno}"),
    }
}

/// Two processes that work with both until [`STOP`], and once more after that.
fn two_at_work(victim: Objects, beside: Objects) -> [Child; 2] {
    [STOP, ROUNDS, ROUNDS + 1].into_iter().for_each(|index| number(index).store(0, Ordering::SeqCst));
    let children = [0, 1].map(|which| {
        fork(move || {
            let mut last = 0;
            while last < 2 {
                last += number(STOP).load(Ordering::SeqCst);
                use_overwritten(victim);
                use_sound(beside);
                number(ROUNDS + which).fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    wait_until("both are at work", || (0..2).all(|which| number(ROUNDS + which).load(Ordering::SeqCst) > 0));
    children
}

fn end(children: [Child; 2], beside: Objects, at: &str) {
    number(STOP).store(1, Ordering::SeqCst);
    for child in children {
        assert_eq!(child.wait_within(Duration::from_secs(40)), Exit::Code(0), "{at}");
    }
    let [made, done, taken] = [MADE, DONE, TAKEN].map(|index| number(index).load(Ordering::SeqCst));
    assert_eq!((made, done), (0, taken), "{at}");
    // The death of one who has not touched what was overwritten is told.
    let holder = fork(|| {
        beside.mutex.lock(Patience::Endless).unwrap();
        let _held = beside.rwlock.write(Patience::Endless).unwrap();
        pause_for_ever()
    });
    wait_blocked_in(holder.pid(), libc::SYS_pause);
    let waiting = fork(|| assert_eq!(beside.mutex.lock(Patience::Endless), Ok(Locked::OwnerDied)));
    wait_blocked_in(waiting.pid(), libc::SYS_futex_waitv);
    common::killed(holder);
    waiting.assert_ok();
    let hold = beside.rwlock.write(Patience::Endless).unwrap();
    assert_eq!(hold.locked(), Locked::OwnerDied, "{at}");
}

fn beside() -> Objects {
    [DONE, MADE, TAKEN].into_iter().for_each(|index| number(index).store(0, Ordering::SeqCst));
    make(END.next_multiple_of(4096))
}

/// A mutex that says it is held by a process that lives cannot be told from one that was stopped with it, and who has waited
/// for a condition waits for the mutex without a deadline. There are no more than some thousands of processes here.
fn is_a_number_of_the_living(which: Which, offset: usize, value: u64) -> bool {
    matches!(which, Which::Mutex) && offset == 0 && (1..1 << 15).contains(&(value & 0x3fff_ffff))
}

pub(crate) fn every_word(which: Which) {
    let mut tried = 0;
    for offset in which.words() {
        for value in hostile(offset) {
            if is_a_number_of_the_living(which, offset, value) {
                continue;
            }
            let at = format!("{which:?}, {value:#x} at {offset:#x}");
            let (victim, beside) = (make(0), beside());
            let children = two_at_work(victim, beside);
            word(offset).store(value, Ordering::SeqCst);
            end(children, beside, &at);
            tried += 1;
        }
    }
    common::tried(&format!("{which:?}, two at work, others beside it"), tried);
}

pub(crate) fn flipped_bits(which: Which) {
    let mut random = Random(9 + which as u64);
    let words: Vec<_> = which.words().collect();
    let (rounds, mut flips) = (if stride_or(2) == 1 { 1000 } else { 100 }, 0);
    for round in 0..rounds {
        let (victim, beside) = (make(0), beside());
        let children = two_at_work(victim, beside);
        for _ in 0..1 + random.below(12) {
            let offset = words[random.below(words.len() as u64) as usize];
            let bit = 1 << random.below(64);
            if !is_a_number_of_the_living(which, offset, bit) {
                word(offset).fetch_xor(bit, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_micros(random.below(300)));
            flips += 1;
        }
        end(children, beside, &format!("{which:?}, round {round} of bits"));
    }
    common::tried(&format!("{which:?}, bits flipped, two at work, others beside it"), flips);
}
