//! POSIX semaphores against glibc's, with real processes killed at every instruction of waiting and posting.

#![allow(unsafe_code)]

mod common;

use std::ffi::CString;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, Stepped, handle, hostile, is_stopped, killed, number, stride_or};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::posix_semaphore::{PosixSemaphore, Semaphore, VALUE_MAX};
use ginnel_engine::sync::region::Region;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Child, as_user, blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};

const ENDLESS: Patience = Patience::Endless;
const STOP: usize = 0;
/// How many units each numbered taker has had.
const TAKEN: usize = 8;

fn semaphore(value: u32) -> Semaphore<'static> {
    Semaphore::init(common::region(), 64, value).unwrap()
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

fn taken() -> u64 {
    (0..64).map(|taker| number(TAKEN + taker).load(Ordering::SeqCst)).sum()
}

/// The exchange that takes the unit, and the note of it, cannot be one: so the note comes after.
fn take(semaphore: Semaphore<'_>, taker: usize) {
    semaphore.wait(ENDLESS).unwrap();
    number(TAKEN + taker).fetch_add(1, Ordering::SeqCst);
}

fn sleeping(semaphore: Semaphore<'static>, taker: usize) -> Child {
    let child = fork(|| take(semaphore, taker));
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

#[test]
fn the_rules_of_waiting_and_posting() {
    isolated(|| {
        let region = common::region();
        assert_eq!(Semaphore::init(region, 0, VALUE_MAX + 1).unwrap_err(), Errno::INVAL);
        assert_eq!(Semaphore::init(region, 4, 0).unwrap_err(), Errno::INVAL, "not aligned");
        assert_eq!(Semaphore::open(region, 128).unwrap_err(), Errno::UCLEAN, "nobody has made one");
        let full = Semaphore::init(region, 0, VALUE_MAX).unwrap();
        assert_eq!((full.post(), full.value()), (Err(Errno::OVERFLOW), VALUE_MAX));
        full.wait(Patience::None).unwrap();
        full.post().unwrap();

        let empty = semaphore(0);
        assert_eq!(empty.wait(Patience::None), Err(Errno::AGAIN));
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(empty.wait(Patience::Until(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until, "before its deadline");
        assert_eq!(empty.wait(Patience::Until(until)), Err(Errno::TIMEDOUT));
        empty.post().unwrap();
        assert_eq!(empty.wait(Patience::Until(until)), Ok(()), "there is one");
        assert_eq!(empty.value(), 0);
        empty.destroy();
        assert_eq!(Semaphore::open(region, 64).unwrap_err(), Errno::UCLEAN);
    });
}

unsafe extern "C" {
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

fn errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap())
}

#[test]
fn deadlines_of_each_clock_are_judged_as_glibc_does() {
    isolated(|| {
        let now = |clock| {
            // SAFETY: the time is ours to write.
            unsafe {
                let mut now = std::mem::zeroed();
                libc::clock_gettime(clock, &mut now);
                now
            }
        };
        for value in [0, 1] {
            for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, 99] {
                for (seconds, nanoseconds) in [
                    (-1, 0),
                    (0, 0),
                    (-1, 5),
                    (1, -1),
                    (1, 1_000_000_000),
                    (-1, 999_999_999),
                    (1, 2_000_000_000),
                ] {
                    let until = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
                    // SAFETY: a semaphore on the stack, initialised before it is used.
                    let glibc = unsafe {
                        let mut theirs: libc::sem_t = std::mem::zeroed();
                        libc::sem_init(&mut theirs, 0, value);
                        if sem_clockwait(&mut theirs, clock, &until) == 0 { Ok(()) } else { Err(errno()) }
                    };
                    assert_eq!(
                        semaphore(value).wait_clock(clock, until),
                        glibc,
                        "value {value}, clock {clock}, {seconds} s, {nanoseconds} ns"
                    );
                }
            }
        }
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
            let mut until: libc::timespec = now(clock);
            until.tv_sec += 1;
            let waiter = fork(|| assert_eq!(semaphore(0).wait_clock(clock, until), Err(Errno::TIMEDOUT)));
            waiter.assert_ok();
            let late = now(clock);
            assert!((late.tv_sec, late.tv_nsec) >= (until.tv_sec, until.tv_nsec), "before its deadline");
        }
    });
}

/// What the C library makes of the same call, in its own directory.
fn glibc_open(name: &[u8], flags: i32, mode: u32, value: u32) -> Result<()> {
    let name = CString::new(name).unwrap();
    // SAFETY: a string with its end; what was opened is closed.
    unsafe {
        let semaphore = libc::sem_open(name.as_ptr(), flags, mode, value);
        if semaphore == libc::SEM_FAILED {
            return Err(errno());
        }
        libc::sem_close(semaphore);
        Ok(())
    }
}

fn glibc_unlink(name: &[u8]) -> Result<()> {
    let name = CString::new(name).unwrap();
    // SAFETY: a string with its end.
    if unsafe { libc::sem_unlink(name.as_ptr()) } == 0 { Ok(()) } else { Err(errno()) }
}

#[test]
fn names_flags_and_values_are_judged_as_glibc_does() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        let long = |length| [b"/".as_slice(), &vec![b'x'; length]].concat();
        let names: Vec<Vec<u8>> =
            [b"/a".as_slice(), b"a", b"//a", b"/", b"", b"/a/b", b"/.", b"/..", b"a/", b"/ ", b"/\xff"]
                .map(<[u8]>::to_vec)
                .into_iter()
                .chain([250, 251, 252, 255, 256, 300].map(long))
                .collect();
        let (create, new) = (libc::O_CREAT, libc::O_CREAT | libc::O_EXCL);
        let mut calls = 0;
        for name in &names {
            for flags in [0, libc::O_EXCL, create, 0, new, libc::O_RDWR, create, new] {
                for value in [VALUE_MAX + 1, 3, u32::MAX] {
                    let what = format!("{:?}, {flags:#o}, {value}", String::from_utf8_lossy(name));
                    let ours = PosixSemaphore::open(&home, name, flags, 0o600, value).map(drop);
                    assert_eq!(ours, glibc_open(name, flags, 0o600, value), "{what}");
                    calls += 1;
                }
                if flags == libc::O_RDWR {
                    assert_eq!(PosixSemaphore::unlink(&home, name), glibc_unlink(name), "{name:?}");
                }
            }
            for _ in 0..2 {
                assert_eq!(PosixSemaphore::unlink(&home, name), glibc_unlink(name), "{name:?}");
            }
        }
        println!("{calls} calls");
    });
}

#[test]
fn a_named_one_is_shared_and_outlives_its_name() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        // SAFETY: no memory is involved.
        unsafe { libc::umask(0o027) };
        let made = PosixSemaphore::open(&home, b"/slots", libc::O_CREAT, 0o666, 2).unwrap();
        let mode = rustix::fs::fstat(made.segment().file().unwrap()).unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o640, "the umask counts");
        let child = fork(|| {
            let found = PosixSemaphore::open(&home, b"slots", libc::O_CREAT, 0, 9).unwrap();
            assert_eq!(found.semaphore().value(), 2, "the value is that of its making");
            PosixSemaphore::unlink(&home, b"/slots").unwrap();
            (0..3).for_each(|_| found.semaphore().wait(ENDLESS).unwrap());
        });
        wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
        made.semaphore().post().unwrap();
        child.assert_ok();
        let other = PosixSemaphore::open(&home, b"/slots", libc::O_CREAT, 0o600, 7).unwrap();
        assert_eq!((made.semaphore().value(), other.semaphore().value()), (0, 7));
    });
}

#[test]
fn who_may_open_one_is_whom_glibc_lets() {
    isolated(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::umask(0) };
        std::fs::set_permissions("/dev/shm", std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let home = Namespace::options().create(true).mode(0o1777).open("/dev/shm/shared-home").unwrap();
        for mode in [0o600, 0o660, 0o606, 0o604, 0o602, 0o666, 0] {
            let name = format!("/m{mode:o}");
            let name = name.as_bytes();
            PosixSemaphore::open(&home, name, libc::O_CREAT, mode, 1).unwrap();
            glibc_open(name, libc::O_CREAT, mode, 1).unwrap();
            as_user(65534, 65534, || {
                let home = Namespace::options().owned_by(0).open("/dev/shm/shared-home").unwrap();
                for flags in [0, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL] {
                    let ours = PosixSemaphore::open(&home, name, flags, 0o600, 0).map(drop);
                    assert_eq!(ours, glibc_open(name, flags, 0o600, 0), "mode {mode:o}, flags {flags:#o}");
                }
                assert_eq!(PosixSemaphore::unlink(&home, name), glibc_unlink(name), "mode {mode:o}");
            })
            .assert_ok();
        }
    });
}

#[test]
fn a_signal_ends_the_wait_and_one_with_restart_does_not() {
    isolated(|| {
        extern "C" fn on_signal(_: libc::c_int) {}
        let empty = semaphore(0);
        let waiter = fork(|| {
            handle(libc::SIGUSR1, on_signal);
            assert_eq!(empty.wait(ENDLESS), Err(Errno::INTR));
            assert_eq!(empty.wait(soon()), Err(Errno::INTR));
        });
        for _ in 0..2 {
            wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
            waiter.signal(libc::SIGUSR1);
            wait_until("it goes on", || {
                !waiter.is_alive() || blocked_in(waiter.pid(), libc::SYS_futex_waitv)
            });
        }
        waiter.assert_ok();
        let waiter = fork(|| {
            // SAFETY: all zeroes is a valid sigaction; the handler does nothing.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            }
            take(empty, 0);
        });
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        waiter.signal(libc::SIGUSR1);
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        empty.post().unwrap();
        waiter.assert_ok();
    });
}

#[test]
fn a_stopped_waiter_takes_nothing_from_the_others() {
    isolated(|| {
        let empty = semaphore(0);
        let stopped = sleeping(empty, 0);
        let other = sleeping(empty, 1);
        stopped.signal(libc::SIGSTOP);
        wait_until("it is stopped", || is_stopped(&stopped));
        empty.post().unwrap();
        other.assert_ok();
        stopped.signal(libc::SIGCONT);
        wait_blocked_in(stopped.pid(), libc::SYS_futex_waitv);
        empty.post().unwrap();
        stopped.assert_ok();
    });
}

#[test]
fn a_waiter_killed_at_every_instruction_passes_its_unit_on() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut passed) = (0, 0);
        for steps in (0..).step_by(stride_or(7)) {
            let empty = semaphore(0);
            (0..64).for_each(|taker| number(TAKEN + taker).store(0, Ordering::SeqCst));
            let victim = Stepped::start(|| empty.wait(ENDLESS).unwrap());
            let mut other = None;
            // As far as its sleep, in which the unit comes; then so many instructions.
            while other.is_none() {
                assert!(victim.step_watched(|_| {
                    if other.is_none() {
                        other = Some(sleeping(empty, 1));
                        empty.post().unwrap();
                    }
                }));
            }
            let in_work = (0..steps).all(|_| victim.step());
            let at = format!("killed {steps} instructions after it was woken");
            let untaken = empty.value() == 1;
            victim.kill();
            if untaken {
                // Without anybody's help.
                wait_until(&format!("the unit has another owner, {at}"), || taken() == 1);
                passed += 1;
            } else {
                empty.post().unwrap();
            }
            other.unwrap().assert_ok();
            assert_eq!((empty.value(), taken()), (0, 1), "{at}");
            kills += 1;
            if !in_work {
                break;
            }
        }
        println!("{kills} kills of one who was woken, {passed} before it had taken its unit");
        crate::common::crash("POSIX semaphore wait, woken");
        assert!(kills > 3 && passed > 1);
    });
}

#[test]
fn who_is_about_to_sleep_gets_the_unit_of_one_who_dies() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(397)) {
            let empty = semaphore(0);
            (0..64).for_each(|taker| number(TAKEN + taker).store(0, Ordering::SeqCst));
            let woken = Stepped::start(|| empty.wait(ENDLESS).unwrap());
            let mut waiter = None;
            let mut sleeps = false;
            while waiter.is_none() {
                assert!(woken.step_watched(|_| {
                    if waiter.is_none() {
                        let second = Stepped::start(|| take(empty, 1));
                        for _ in 0..steps {
                            assert!(second.step_unless(&mut sleeps), "there is nothing to take");
                            if sleeps {
                                break;
                            }
                        }
                        waiter = Some(second);
                        empty.post().unwrap();
                    }
                }));
            }
            woken.kill();
            if sleeps {
                // It has been tried at each instruction before that.
                waiter.unwrap().kill();
                break;
            }
            waiter.unwrap().finish(&format!("the unit, stopped after {steps} instructions"));
            assert_eq!((empty.value(), taken()), (0, 1));
            kills += 1;
        }
        println!("{kills} deaths before one who is about to sleep");
        crate::common::crash("POSIX semaphore wait, about to sleep");
        assert!(kills > 3);
    });
}

#[test]
fn a_poster_killed_at_every_instruction_leaves_nobody_asleep_at_a_unit() {
    isolated_for(crate::common::limit(), || {
        let (mut before, mut after) = (0, 0);
        for steps in (0..).step_by(stride_or(1)) {
            let empty = semaphore(0);
            (0..64).for_each(|taker| number(TAKEN + taker).store(0, Ordering::SeqCst));
            let sleepers = [sleeping(empty, 1), sleeping(empty, 2)];
            let poster = Stepped::start(|| empty.post().unwrap());
            // Seen right after the instruction that adds it: once somebody is woken, the unit is on its way.
            let mut posted = false;
            let in_work = (0..steps).all(|_| {
                let goes_on = poster.step();
                posted |= !goes_on || empty.value() == 1;
                goes_on
            });
            poster.kill();
            wait_until(&format!("the unit is taken, killed after {steps} instructions"), || {
                empty.value() == 0 && taken() == u64::from(posted)
            });
            (0..2 - u64::from(posted)).for_each(|_| empty.post().unwrap());
            sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
            if posted {
                after += 1
            } else {
                before += 1
            }
            if !in_work {
                break;
            }
        }
        println!("{before} kills before the unit was there, {after} after");
        crate::common::crash("POSIX semaphore post");
        assert!(before > 0 && after > 0);
    });
}

#[test]
fn waiters_killed_at_random_leave_nobody_asleep_at_a_unit() {
    isolated_for(Duration::from_secs(120), || {
        let units = semaphore(0);
        let start = |taker: u64| {
            fork(move || {
                while number(STOP).load(Ordering::SeqCst) == 0 {
                    take(units, taker as usize);
                }
            })
        };
        let mut children: Vec<_> = (0..8).map(start).collect();
        let mut random = Random(11);
        let end = Instant::now() + Duration::from_secs(5);
        let mut kills = 0;
        while Instant::now() < end {
            let first = random.below(8);
            let victims = 1 + random.below(4);
            for _ in 0..random.below(5) {
                units.post().unwrap();
            }
            (0..random.below(200)).for_each(|_| std::hint::spin_loop());
            (0..victims).for_each(|nth| children[((first + nth) % 8) as usize].kill());
            wait_until("the others have taken all", || units.value() == 0);
            for place in (0..victims).map(|nth| (first + nth) % 8) {
                killed(std::mem::replace(&mut children[place as usize], start(place)));
                kills += 1;
            }
        }
        number(STOP).store(1, Ordering::SeqCst);
        (0..8).for_each(|_| units.post().unwrap());
        children.into_iter().for_each(|child| child.assert_ok());
        println!("{kills} kills, {} units taken", taken());
        assert!(kills > 100 && taken() > 100);
    });
}

#[test]
fn many_processes_keep_the_count() {
    isolated(|| {
        let units = semaphore(3);
        let children: Vec<_> = (0..6)
            .map(|taker| {
                fork(move || {
                    for _ in 0..20_000 {
                        take(units, taker);
                        units.post().unwrap();
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!((units.value(), taken()), (3, 120_000));
    });
}

#[test]
fn overwritten_it_has_some_value_and_never_hangs() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for offset in (0..Semaphore::SIZE).step_by(8) {
            for value in hostile(offset) {
                let empty = Semaphore::init(common::region(), 0, 0).unwrap();
                let until = Patience::Until(Instant::now() + Duration::from_millis(60));
                let waiters: Vec<_> = (0..2)
                    .map(|_| fork(|| assert!(matches!(empty.wait(until), Ok(()) | Err(Errno::TIMEDOUT)))))
                    .collect();
                wait_until("they sleep, or have ended", || {
                    let asleep = |child: &Child| blocked_in(child.pid(), libc::SYS_futex_waitv);
                    waiters.iter().all(|waiter| !waiter.is_alive() || asleep(waiter))
                });
                common::word(offset).store(value, Ordering::SeqCst);
                assert!(matches!(empty.post(), Ok(()) | Err(Errno::OVERFLOW)));
                assert!(empty.value() <= VALUE_MAX);
                waiters.into_iter().for_each(|waiter| waiter.assert_ok());
                let again = Patience::Until(Instant::now() + Duration::from_millis(20));
                assert!(matches!(empty.wait(again), Ok(()) | Err(Errno::TIMEDOUT)));
                tried += 1;
            }
        }
        crate::common::tried("POSIX semaphore", tried);
    });
}

#[test]
fn it_fits_a_sem_t() {
    assert_eq!(Semaphore::SIZE, size_of::<libc::sem_t>());
    let region = Region::anonymous(Semaphore::SIZE).unwrap();
    Semaphore::init(region, 0, 1).unwrap();
}
