//! Deadlines of calls that have none of their own, by way of `flock` and System V queues.

use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ginnel::message::{Select, SysvQueue};
use ginnel::sync::{Flock, LockKind};
use ginnel::{Error, deadline_signal};
use ginnel_testkit::{fork, isolated, wait_blocked_in, wait_until};

use crate::{catch, lock_file};

const SHORT: Duration = Duration::from_millis(20);

/// Waits for a lock that somebody else has, checks that it was not for less than the time given, and returns the error.
fn wait_for(path: &Path, time: Duration) -> Error {
    let other = Flock::open(path).unwrap();
    let before = Instant::now();
    let error = other.lock_deadline(LockKind::Shared, time).unwrap_err();
    assert!(!error.is_timed_out() || before.elapsed() >= time, "did not return before the deadline");
    error
}

fn must_time_out(path: &Path, time: Duration) {
    let error = wait_for(path, time);
    assert!(error.is_timed_out(), "{error}");
}

/// Runs the body with the path of a file that this process has locked.
fn with_a_locked_file(body: impl FnOnce(&Path)) {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        let _guard = mine.lock(LockKind::Exclusive).unwrap();
        body(&path);
    });
}

/// Sleeps in one system call: whether it was not interrupted.
fn sleeps_through(time: Duration) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    // SAFETY: the time is valid for the call.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) == 0 }
}

fn timers() -> usize {
    let timers = std::fs::read_to_string("/proc/self/timers").unwrap();
    timers.lines().filter(|line| line.starts_with("ID:")).count()
}

#[test]
fn many_threads_wait_with_deadlines_of_their_own() {
    with_a_locked_file(|path| {
        let queue = SysvQueue::private().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let queue = &queue;
                scope.spawn(move || {
                    for round in 1..6 {
                        let time = Duration::from_millis((thread * 7 + round * 5) % 40 + 1);
                        must_time_out(path, time);
                        let before = Instant::now();
                        let late = queue.recv_deadline(Select::Any, &mut [], time).unwrap_err();
                        assert!(late.is_timed_out(), "{late}");
                        assert!(before.elapsed() >= time, "did not return before the deadline");
                    }
                });
            }
        });
        wait_until("a thread's timer is gone with it", || timers() == 0);
        must_time_out(path, SHORT);
        assert_eq!(timers(), 1);
    });
}

#[test]
fn a_signal_before_the_call_is_not_lost() {
    with_a_locked_file(|path| {
        for nanoseconds in (0..3000).map(|round| round * 37) {
            must_time_out(path, Duration::from_nanos(nanoseconds));
        }
    });
}

#[test]
fn no_signal_comes_after_the_call() {
    with_a_locked_file(|path| {
        let mine = Flock::open(path.parent().unwrap()).unwrap();
        for round in 0..100 {
            must_time_out(path, Duration::from_micros(round * 20));
            assert!(sleeps_through(Duration::from_millis(3)));
            drop(mine.lock_deadline(LockKind::Exclusive, Duration::from_micros(100)).unwrap());
            assert!(sleeps_through(Duration::from_millis(1)));
        }
    });
}

#[test]
fn a_forked_child_has_deadlines_and_a_timer_of_its_own() {
    with_a_locked_file(|path| {
        must_time_out(path, SHORT);
        fork(|| {
            assert_eq!(timers(), 0);
            must_time_out(path, SHORT);
            assert_eq!(timers(), 1);
            fork(|| must_time_out(path, SHORT)).assert_ok();
        })
        .assert_ok();
        must_time_out(path, SHORT);
        assert_eq!(timers(), 1);
    });
}

#[test]
fn a_forked_child_with_its_parents_pid_is_not_its_parent() {
    with_a_locked_file(|path| {
        // SAFETY: no memory is involved.
        let unshare = || assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
        // Each is pid 1 of a namespace of its own.
        let child = fork(|| {
            unshare();
            // SAFETY: this process has one thread.
            match unsafe { libc::fork() } {
                0 => {
                    must_time_out(path, SHORT);
                    unshare();
                    // SAFETY: as above.
                    if unsafe { libc::fork() } == 0 {
                        assert_eq!(std::process::id(), 1);
                        must_time_out(path, SHORT);
                        must_time_out(path, SHORT);
                        // SAFETY: _exit runs nothing of this process.
                        unsafe { libc::_exit(7) };
                    }
                    // SAFETY: as above.
                    unsafe { libc::_exit(reap()) };
                }
                _ => assert_eq!(reap(), 7),
            }
        });
        child.assert_ok();
    });
}

fn reap() -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours to write.
    unsafe { libc::waitpid(-1, &raw mut status, 0) };
    libc::WEXITSTATUS(status)
}

#[test]
fn a_thread_that_blocks_the_signal_waits_no_longer_and_finds_it_blocked_after() {
    with_a_locked_file(|path| {
        let signal = deadline_signal().unwrap();
        let sets = || -> [libc::sigset_t; 2] {
            // SAFETY: all zeros is a signal set, which the calls fill.
            unsafe {
                let mut sets: [libc::sigset_t; 2] = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut sets[0]);
                libc::sigpending(&raw mut sets[1]);
                sets
            }
        };
        // SAFETY: a signal set of our own.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        }
        for time in 0..50 {
            must_time_out(path, Duration::from_micros(time * 100));
            let [blocked, pending] = sets();
            // SAFETY: signal sets that the calls have filled.
            unsafe {
                assert_eq!(libc::sigismember(&raw const blocked, signal), 1);
                assert_eq!(libc::sigismember(&raw const blocked, libc::SIGUSR1), 1);
                assert_eq!(libc::sigismember(&raw const pending, signal), 0);
            }
        }
    });
}

#[test]
fn a_signal_that_the_program_uses_is_left_alone() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_: i32) {
        SEEN.fetch_add(1, Ordering::Relaxed);
    }
    let handle = |signal: i32, handler: libc::sighandler_t| {
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    };
    let count = count as extern "C" fn(i32) as libc::sighandler_t;
    with_a_locked_file(|path| {
        let highest = libc::SIGRTMAX();
        handle(highest, count);
        handle(highest - 1, libc::SIG_IGN);
        assert_eq!(deadline_signal().unwrap(), highest - 2);
        must_time_out(path, SHORT);
        // Taken afterwards: the next one.
        handle(highest - 2, count);
        must_time_out(path, SHORT);
        assert_eq!(deadline_signal().unwrap(), highest - 3);
        // Set back to its default, which would end the process.
        handle(highest - 3, libc::SIG_DFL);
        must_time_out(path, SHORT);
        assert_eq!(deadline_signal().unwrap(), highest - 3);
        assert_eq!(SEEN.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn without_a_signal_or_a_timer_it_tries_again_and_again() {
    with_a_locked_file(|path| {
        let wait_in_vain_and_not = || {
            must_time_out(path, SHORT);
            let (_directory, path) = lock_file();
            let mine = Flock::open(&path).unwrap();
            let guard = mine.lock(LockKind::Exclusive).unwrap();
            let waiter = fork(|| {
                let other = Flock::open(&path).unwrap();
                drop(other.lock_deadline(LockKind::Shared, Duration::from_secs(15)).unwrap());
            });
            wait_blocked_in(waiter.pid(), libc::SYS_clock_nanosleep);
            drop(guard);
            waiter.assert_ok();

            let _guard = mine.lock(LockKind::Exclusive).unwrap();
            let interrupted = fork(|| {
                catch(libc::SIGUSR1, 0);
                assert!(wait_for(&path, Duration::from_secs(100)).is_interrupted());
            });
            wait_blocked_in(interrupted.pid(), libc::SYS_clock_nanosleep);
            // It sleeps most of the time, and not all of it.
            wait_until("the signal finds it asleep", || {
                if interrupted.is_alive() {
                    interrupted.signal(libc::SIGUSR1);
                }
                !interrupted.is_alive()
            });
            interrupted.assert_ok();
        };
        fork(|| {
            (libc::SIGRTMIN()..=libc::SIGRTMAX()).for_each(|signal| catch(signal, 0));
            let error = deadline_signal().unwrap_err();
            assert_eq!(error.errno_name(), "EBUSY");
            wait_in_vain_and_not();
            assert_eq!(timers(), 0);
        })
        .assert_ok();
        fork(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the limits are valid for the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const none) }, 0);
            must_time_out(path, SHORT);
            assert_eq!(timers(), 0, "there is no timer to be had");
        })
        .assert_ok();
    });
}

static INNER: AtomicI32 = AtomicI32::new(0);
static INNER_MS: AtomicU32 = AtomicU32::new(0);

/// A program's handler that waits itself, for the lock that the call it interrupts waits for.
extern "C" fn wait_in_handler(_: i32) {
    let path = std::env::var_os("LOCKED").unwrap();
    let time = Duration::from_millis(INNER_MS.load(Ordering::Relaxed).into());
    INNER.store(wait_for(Path::new(&path), time).errno(), Ordering::Relaxed);
}

#[test]
fn a_handler_that_waits_itself_disturbs_nobody() {
    with_a_locked_file(|path| {
        // SAFETY: this process has no other thread that reads the environment.
        unsafe { std::env::set_var("LOCKED", path) };
        // The inner call is over before the outer one is, or after.
        for (inner, outer) in [(20, 700), (700, 500)] {
            for first_use in [true, false] {
                let (ready, go) = std::io::pipe().unwrap();
                let waiter = fork(|| {
                    INNER_MS.store(inner, Ordering::Relaxed);
                    if !first_use {
                        must_time_out(path, SHORT);
                    }
                    // SAFETY: an all-zero sigaction with a handler; what it calls holds no lock here.
                    unsafe {
                        let mut action: libc::sigaction = std::mem::zeroed();
                        action.sa_sigaction = wait_in_handler as extern "C" fn(i32) as libc::sighandler_t;
                        action.sa_flags = libc::SA_RESTART;
                        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
                    }
                    std::io::Write::write_all(&mut &go, b"x").unwrap();
                    must_time_out(path, Duration::from_millis(outer));
                    assert_eq!(INNER.load(Ordering::Relaxed), libc::ETIMEDOUT);
                    assert!(sleeps_through(Duration::from_millis(3)), "no alarm is left");
                    must_time_out(path, SHORT);
                    assert_eq!(timers(), 1);
                });
                std::io::Read::read_exact(&mut &ready, &mut [0]).unwrap();
                wait_blocked_in(waiter.pid(), libc::SYS_flock);
                waiter.signal(libc::SIGUSR1);
                waiter.assert_ok();
            }
        }
    });
}

#[test]
fn a_thread_that_ends_can_wait_to_its_last() {
    struct WaitsAtTheEnd(std::path::PathBuf);
    impl Drop for WaitsAtTheEnd {
        fn drop(&mut self) {
            must_time_out(&self.0, SHORT);
            DONE.fetch_add(1, Ordering::Relaxed);
        }
    }
    static DONE: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static FIRST: std::cell::OnceCell<WaitsAtTheEnd> = const { std::cell::OnceCell::new() };
        static LAST: std::cell::OnceCell<WaitsAtTheEnd> = const { std::cell::OnceCell::new() };
    }
    with_a_locked_file(|path| {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Destroyed after the thread's timer and before it, whichever way round that is.
                FIRST.with(|cell| drop(cell.set(WaitsAtTheEnd(path.to_owned()))));
                must_time_out(path, SHORT);
                LAST.with(|cell| drop(cell.set(WaitsAtTheEnd(path.to_owned()))));
            });
            thread.join().unwrap();
        });
        wait_until("both have waited", || DONE.load(Ordering::Relaxed) == 2);
        wait_until("no timer is left", || timers() == 0);
    });
}
