//! What a review of the ground has found: each was wrong once.
#![allow(unsafe_code)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{directory, handle};
use ginnel_engine::lock::{Guard, Lock};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::wait::{Object, Patience, Waiters, Words};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{fork, isolated, wait_blocked_in, wait_until};
use rustix::fs::Mode;

const COUNT: usize = HEADER_BYTES;
const WAITERS: usize = HEADER_BYTES + 0x100;
const FREE_LIST: usize = WAITERS + 0x10;
const SLEEPERS: usize = WAITERS + 0x20;
const EPOCH: usize = WAITERS + 0x30;
const MEMBERS: usize = WAITERS + 0x38;
const ROOM: usize = WAITERS + 0x48;
const SLOTS: u32 = 256;

/// Units to take; none to take is one to give.
struct Units;

impl Object for Units {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let count = guard.get(COUNT)?;
        let rest = if words[0] == 0 { count.checked_add(1) } else { count.checked_sub(words[0]) };
        rest.map_or(Ok(false), |rest| guard.set(COUNT, rest).map(|()| true))
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        guard.set(COUNT, guard.get(COUNT)?.wrapping_add(words[0]))
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        guard.set(COUNT, guard.get(COUNT)?.wrapping_add(words[0]))
    }
}

fn units(count: u64) -> Segment {
    let _ = std::fs::remove_file("/dev/shm/units");
    let mode = Mode::RUSR | Mode::WUSR;
    let segment = Segment::create(directory(), c"units", mode, 1 << 20, |_| Ok(())).unwrap();
    set(&segment, COUNT, count);
    segment
}

fn waiters(segment: &Segment) -> Waiters<'_, Units> {
    Waiters::of(segment, WAITERS, SLOTS, &Units).unwrap()
}

fn take(segment: &Segment, count: u64, patience: Patience) -> Result<Words> {
    waiters(segment).run([count, 0, 0, 0, 0, 0, 0], patience)
}

fn raw(segment: &Segment, offset: usize) -> u64 {
    segment.word64(offset).unwrap().load(Ordering::SeqCst)
}

fn set(segment: &Segment, offset: usize, value: u64) {
    segment.word64(offset).unwrap().store(value, Ordering::SeqCst);
}

/// Which word the kernel looks at when this thread dies, beside the list.
fn pending() -> usize {
    let mut head: *const [usize; 3] = std::ptr::null();
    let mut len = 0_usize;
    // SAFETY: both are ours to write.
    unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    // SAFETY: the calling thread's own.
    unsafe { std::ptr::read_volatile(&raw const (*head)[2]) }
}

#[test]
fn who_buries_on_leaving_has_the_kernel_look_at_nothing_afterwards() {
    isolated(|| {
        let segment = units(0);
        let sleeper = fork(|| _ = take(&segment, 1, Patience::Endless));
        wait_until("one sleeps", || raw(&segment, SLEEPERS) == 1);
        let mortal = fork(|| _ = take(&segment, 1, Patience::Endless));
        wait_until("two sleep", || raw(&segment, SLEEPERS) == 2);
        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
        wait_blocked_in(mortal.pid(), libc::SYS_futex_waitv);
        // It is not to be first.
        sleeper.signal(libc::SIGSTOP);
        assert_eq!(pending(), 0);
        let waiters = waiters(&segment);
        let guard = waiters.enter(None).unwrap();
        mortal.kill();
        // The first look round finds it, while this holds the lock.
        wait_until("it is marked", || {
            raw(&segment, WAITERS + 0x80) as u32 & 0x4000_0000 != 0
                || raw(&segment, WAITERS + 0x100) as u32 & 0x4000_0000 != 0
        });
        waiters.leave(guard);
        assert_eq!(pending(), 0, "a word that may be unmapped");
        drop(sleeper);
    });
}

#[test]
fn a_free_slot_that_was_never_used_is_an_error_and_no_endless_try() {
    isolated(|| {
        let segment = units(0);
        set(&segment, FREE_LIST, u64::from(SLOTS));
        set(&segment, ROOM, 0);
        let soon = Patience::Until(Instant::now() + Duration::from_secs(5));
        assert_eq!(take(&segment, 1, soon), Err(Errno::UCLEAN));
    });
}

#[test]
fn a_stake_is_heard_of_when_the_low_half_of_the_epoch_comes_to_nothing() {
    isolated(|| {
        let segment = units(1);
        set(&segment, EPOCH, u64::from(u32::MAX) - 1);
        let sleeper = fork(|| _ = take(&segment, 2, Patience::Endless).unwrap());
        wait_until("it sleeps", || raw(&segment, SLEEPERS) == 1);
        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
        assert_eq!(raw(&segment, EPOCH), u64::from(u32::MAX));
        let borrower = fork(|| {
            let waiters = waiters(&segment);
            let mut guard = waiters.enter(None).unwrap();
            let _stake = waiters.stake(&mut guard, &[1, 0, 0, 0, 0, 0, 0]).unwrap();
            guard.checkpoint();
            waiters.leave(guard);
            common::pause_for_ever();
        });
        wait_until("it has a stake", || raw(&segment, MEMBERS) == 2);
        wait_blocked_in(borrower.pid(), libc::SYS_pause);
        borrower.kill();
        sleeper.assert_ok();
    });
}

#[test]
fn the_last_moment_of_all_is_a_deadline() {
    isolated(|| {
        let mut last = Instant::now();
        for shift in (0..63).rev() {
            last = last.checked_add(Duration::from_secs(1 << shift)).unwrap_or(last);
        }
        let segment = units(0);
        let sleeper = fork(|| _ = take(&segment, 1, Patience::Until(last)).unwrap());
        wait_until("it sleeps", || raw(&segment, SLEEPERS) == 1);
        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
        take(&segment, 0, Patience::None).unwrap();
        sleeper.assert_ok();
    });
}

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn who_is_interrupted_while_the_lock_is_held_has_been_interrupted() {
    isolated(|| {
        let segment = units(0);
        let sleeper = fork(|| {
            handle(libc::SIGUSR1, nothing);
            assert_eq!(take(&segment, 1, Patience::Endless), Err(Errno::INTR));
        });
        wait_until("it sleeps", || raw(&segment, SLEEPERS) == 1);
        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
        let guard = Lock::of(&segment).acquire(None).unwrap();
        sleeper.signal(libc::SIGUSR1);
        sleeper.assert_ok();
        drop(guard);
    });
}

static SEGMENT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn takes_the_lock(_: libc::c_int) {
    // SAFETY: the test's own, which is waiting for this handler.
    let segment = unsafe { &*std::ptr::with_exposed_provenance::<Segment>(SEGMENT.load(Ordering::SeqCst)) };
    assert_eq!(Lock::of(segment).acquire(None).err(), Some(Errno::DEADLK));
}

#[test]
fn a_handler_that_comes_upon_its_own_threads_lock_is_told_so() {
    isolated(|| {
        let segment = units(0);
        SEGMENT.store(std::ptr::from_ref(&segment).expose_provenance(), Ordering::SeqCst);
        handle(libc::SIGUSR1, takes_the_lock);
        let mut guard = Lock::of(&segment).acquire(None).unwrap();
        guard.set(COUNT, 7).unwrap();
        // To this thread.
        // SAFETY: no memory is involved.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        guard.commit();
        assert_eq!(raw(&segment, COUNT), 7);
    });
}

#[test]
fn a_stake_that_was_forgotten_keeps_its_segment_mapped() {
    isolated(|| {
        let forgotten = units(0);
        {
            let waiters = waiters(&forgotten);
            let mut guard = waiters.enter(None).unwrap();
            std::mem::forget(waiters.stake(&mut guard, &[0; 7]).unwrap());
            guard.checkpoint();
        }
        let other = units(0);
        let waiters = waiters(&other);
        let mut guard = waiters.enter(None).unwrap();
        let below = waiters.stake(&mut guard, &[0; 7]).unwrap();
        guard.checkpoint();
        let last = units(0);
        {
            let waiters = self::waiters(&last);
            let mut guard = waiters.enter(None).unwrap();
            std::mem::forget(waiters.stake(&mut guard, &[0; 7]).unwrap());
            guard.checkpoint();
        }
        drop((forgotten, last));
        // What is in front of it in the list is written to.
        waiters.give_up(&mut guard, below).unwrap();
        waiters.leave(guard);
    });
}

/// A child of which the C library knows nothing, as of `_Fork(3)` and a bare `clone(2)`.
fn bare_fork(work: impl FnOnce()) -> i32 {
    // SAFETY: a fork without handlers; the child works with the engine alone, and waits to be killed.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as i32;
    if child == 0 {
        work();
        common::pause_for_ever();
    }
    child
}

fn kill_bare(child: i32) {
    // SAFETY: our own child; the null pointer is allowed.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
}

#[test]
fn a_child_that_no_handler_has_told_of_goes_by_its_own_number() {
    isolated(|| {
        let segment = units(5);
        take(&segment, 1, Patience::None).unwrap();
        // One that holds the lock when it is killed.
        let child = bare_fork(|| {
            let mut guard = Lock::of(&segment).acquire(None).unwrap();
            guard.set(COUNT, 77).unwrap();
            std::mem::forget(guard);
        });
        wait_blocked_in(child, libc::SYS_pause);
        assert_eq!(raw(&segment, 0x40) as u32 & 0x3fff_ffff, child as u32);
        kill_bare(child);
        let soon = Patience::Until(Instant::now() + Duration::from_secs(15));
        take(&segment, 1, soon).unwrap();
        assert_eq!(raw(&segment, COUNT), 3);
        // One that is blocked when it is killed, and its own child, which ends.
        let child = bare_fork(|| {
            kill_bare(bare_fork(|| take(&segment, 1, Patience::None).map(drop).unwrap()));
            let _ = take(&segment, 100, Patience::Endless);
        });
        wait_blocked_in(child, libc::SYS_futex_waitv);
        kill_bare(child);
        take(&segment, 0, soon).unwrap();
        let waiters = waiters(&segment);
        let guard = waiters.enter(None).unwrap();
        assert_eq!(waiters.members(&guard), Ok(0));
        waiters.leave(guard);
    });
}
