//! The process-shared mutex, with real processes killed at every instruction of locking and unlocking it.

#![allow(unsafe_code)]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, Stepped, hostile, is_stopped, killed, number, pause_for_ever, stride_or};
use ginnel_engine::Errno;
use ginnel_engine::sync::mutex::{Locked, Mutex};
use ginnel_engine::sync::region::Region;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};

const ENDLESS: Patience = Patience::Endless;
const FROM: usize = 0;
const TO: usize = 1;
const STOP: usize = 2;

fn mutex() -> Mutex<'static> {
    Mutex::init(common::region(), 64).unwrap()
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

fn get(index: usize) -> u64 {
    number(index).load(Ordering::Relaxed)
}

fn set(index: usize, value: u64) {
    number(index).store(value, Ordering::Relaxed);
}

/// Puts right what a dead holder left, if it did.
fn lock(mutex: Mutex<'_>) -> bool {
    match mutex.lock(soon()).unwrap() {
        Locked::Whole => {
            assert_eq!(get(FROM), 0_u64.wrapping_sub(get(TO)), "somebody is in there as well");
            false
        }
        Locked::OwnerDied => {
            set(FROM, 0_u64.wrapping_sub(get(TO)));
            mutex.mark_consistent().unwrap();
            true
        }
    }
}

/// Moves one unit: two words that must change together.
fn transfer(mutex: Mutex<'_>) {
    lock(mutex);
    set(FROM, get(FROM).wrapping_sub(1));
    set(TO, get(TO).wrapping_add(1));
    mutex.unlock().unwrap();
}

#[test]
fn the_rules_of_locking() {
    isolated(|| {
        let mutex = mutex();
        assert_eq!(mutex.unlock(), Err(Errno::PERM));
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::Whole));
        assert_eq!(mutex.lock(ENDLESS), Err(Errno::DEADLK));
        assert_eq!(mutex.lock(Patience::None), Err(Errno::DEADLK));
        assert_eq!(mutex.mark_consistent(), Err(Errno::INVAL));
        let other = fork(|| {
            assert!(!mutex.is_held(), "a child holds none of its parent's");
            assert_eq!(mutex.unlock(), Err(Errno::PERM));
            assert_eq!(mutex.lock(Patience::None), Err(Errno::BUSY));
            let until = Instant::now() + Duration::from_millis(50);
            assert_eq!(mutex.lock(Patience::Until(until)), Err(Errno::TIMEDOUT));
            assert!(Instant::now() >= until, "before its deadline");
        });
        other.assert_ok();
        mutex.unlock().unwrap();
        assert_eq!(mutex.unlock(), Err(Errno::PERM));
        let long_ago = Patience::Until(Instant::now());
        assert_eq!(mutex.lock(long_ago), Ok(Locked::Whole), "it is free");
        mutex.unlock().unwrap();
    });
}

#[test]
fn where_it_can_be() {
    isolated(|| {
        let region = Region::anonymous(4096).unwrap();
        for offset in [1, 8, 32, 4096, 4096 - 32, usize::MAX, usize::MAX - 63] {
            assert_eq!(Mutex::init(region, offset).unwrap_err(), Errno::INVAL, "{offset}");
        }
        assert_eq!(Mutex::open(region, 0).unwrap_err(), Errno::UCLEAN, "nobody has made one");
        Mutex::init(region, 4096 - Mutex::SIZE).unwrap();
        Mutex::open(region, 4096 - Mutex::SIZE).unwrap();
    });
}

#[test]
fn many_processes_and_threads_lose_nothing() {
    isolated(|| {
        const ROUNDS: u64 = 20_000;
        let mutex = mutex();
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    std::thread::scope(|scope| {
                        for _ in 0..2 {
                            scope.spawn(|| (0..ROUNDS / 2).for_each(|_| transfer(mutex)));
                        }
                    });
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(get(TO), 4 * ROUNDS);
    });
}

#[test]
fn many_at_once_given_back_in_any_order_and_all_told_of_a_death() {
    isolated(|| {
        let region = common::region();
        let mutexes: Vec<_> = (0..600).map(|index| Mutex::init(region, index * 64).unwrap()).collect();
        let holder = fork(|| {
            let mut random = Random(1);
            let mut held: Vec<_> = mutexes.iter().take(480).collect();
            held.iter().for_each(|mutex| assert_eq!(mutex.lock(ENDLESS), Ok(Locked::Whole)));
            assert_eq!(mutexes[500].lock(ENDLESS), Err(Errno::NOLCK));
            for _ in 0..5000 {
                let place = random.below(held.len() as u64) as usize;
                held[place].unlock().unwrap();
                if random.below(3) != 0 || held.len() < 100 {
                    held[place].lock(ENDLESS).unwrap();
                } else {
                    held.swap_remove(place);
                }
            }
            assert!(held.iter().all(|mutex| mutex.is_held()));
            number(0).store(held.len() as u64, Ordering::SeqCst);
            pause_for_ever();
        });
        wait_until("it holds them", || get(0) != 0);
        killed(holder);
        let died = mutexes.iter().filter(|mutex| mutex.lock(ENDLESS) == Ok(Locked::OwnerDied)).count();
        assert_eq!(died as u64, get(0));
    });
}

/// A robust mutex of the C library's, in shared memory.
struct Theirs(*mut libc::pthread_mutex_t);

impl Theirs {
    fn new() -> Theirs {
        let bytes = size_of::<libc::pthread_mutex_t>();
        // SAFETY: new memory, large enough, shared; the attributes are made before they are used.
        unsafe {
            let place =
                libc::mmap(std::ptr::null_mut(), bytes, 3, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
            let mut attributes = std::mem::zeroed();
            libc::pthread_mutexattr_init(&mut attributes);
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            assert_eq!(libc::pthread_mutex_init(place.cast(), &attributes), 0);
            Theirs(place.cast())
        }
    }

    fn lock(&self) -> i32 {
        // SAFETY: initialised, and mapped for ever.
        unsafe { libc::pthread_mutex_lock(self.0) }
    }

    fn unlock(&self) {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.0) }, 0);
    }
}

#[test]
fn among_robust_mutexes_of_the_c_library() {
    isolated(|| {
        let region = common::region();
        let ours: Vec<_> = (0..6).map(|index| Mutex::init(region, index * 64).unwrap()).collect();
        let theirs: Vec<_> = (0..6).map(|_| Theirs::new()).collect();
        for round in 0..40_u64 {
            let holder = fork(|| {
                let mut random = Random(round);
                let mut held = [false; 12];
                for _ in 0..500 {
                    let place = random.below(12) as usize;
                    match (held[place], place.is_multiple_of(2)) {
                        (false, true) => assert_eq!(theirs[place / 2].lock(), 0),
                        (true, true) => theirs[place / 2].unlock(),
                        (false, false) => assert_eq!(ours[place / 2].lock(ENDLESS), Ok(Locked::Whole)),
                        (true, false) => ours[place / 2].unlock().unwrap(),
                    }
                    held[place] = !held[place];
                }
                (0..12).for_each(|place| set(place, u64::from(held[place])));
                common::signal_self(libc::SIGKILL);
            });
            holder.wait();
            for place in 0..12 {
                let died = get(place) == 1;
                if place.is_multiple_of(2) {
                    assert_eq!(theirs[place / 2].lock(), if died { libc::EOWNERDEAD } else { 0 });
                    if died {
                        // SAFETY: held, after its owner's death.
                        unsafe { libc::pthread_mutex_consistent(theirs[place / 2].0) };
                    }
                    theirs[place / 2].unlock();
                } else {
                    let expected = if died { Locked::OwnerDied } else { Locked::Whole };
                    assert_eq!(ours[place / 2].lock(soon()), Ok(expected), "round {round}, {place}");
                    let _ = ours[place / 2].mark_consistent();
                    ours[place / 2].unlock().unwrap();
                }
            }
        }
    });
}

#[test]
fn what_is_not_put_right_is_nobodys_any_more() {
    isolated(|| {
        let mutex = mutex();
        let die = || {
            let holder = fork(|| {
                mutex.lock(ENDLESS).unwrap();
                common::signal_self(libc::SIGKILL);
            });
            holder.wait();
        };
        die();
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::OwnerDied));
        mutex.mark_consistent().unwrap();
        assert_eq!(mutex.mark_consistent(), Err(Errno::INVAL), "it has been said");
        mutex.unlock().unwrap();
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::Whole));
        mutex.unlock().unwrap();
        die();
        let second = fork(|| {
            assert_eq!(mutex.lock(ENDLESS), Ok(Locked::OwnerDied));
            common::signal_self(libc::SIGKILL);
        });
        second.wait();
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::OwnerDied), "the one who was told died as well");
        let sleepers: Vec<_> =
            (0..3).map(|_| fork(|| assert_eq!(mutex.lock(ENDLESS), Err(Errno::NOTRECOVERABLE)))).collect();
        sleepers.iter().for_each(|sleeper| wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv));
        mutex.unlock().unwrap();
        sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
        assert_eq!(mutex.lock(Patience::None), Err(Errno::NOTRECOVERABLE));
        assert_eq!(mutex.unlock(), Err(Errno::PERM));
    });
}

#[test]
fn a_thread_that_ends_and_a_program_that_becomes_another_are_deaths() {
    isolated(|| {
        let mutex = mutex();
        std::thread::scope(|scope| scope.spawn(|| mutex.lock(ENDLESS).map(drop)).join().unwrap()).unwrap();
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::OwnerDied));
        mutex.mark_consistent().unwrap();
        mutex.unlock().unwrap();
        let holder = fork(|| {
            mutex.lock(ENDLESS).unwrap();
            let error = std::os::unix::process::CommandExt::exec(&mut std::process::Command::new("true"));
            panic!("{error}");
        });
        holder.assert_ok();
        assert_eq!(mutex.lock(ENDLESS), Ok(Locked::OwnerDied));
    });
}

#[test]
fn a_stopped_holder_delays_and_breaks_nothing() {
    isolated(|| {
        let mutex = mutex();
        let holder = fork(|| {
            mutex.lock(ENDLESS).unwrap();
            common::signal_self(libc::SIGSTOP);
            mutex.unlock().unwrap();
        });
        wait_until("the holder stops", || is_stopped(&holder));
        let short = Patience::Until(Instant::now() + Duration::from_millis(250));
        assert_eq!(mutex.lock(short), Err(Errno::TIMEDOUT));
        let waiter = fork(|| transfer(mutex));
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        holder.signal(libc::SIGCONT);
        holder.assert_ok();
        waiter.assert_ok();
    });
}

#[test]
fn killed_at_every_instruction_the_next_gets_it() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut told) = (0, 0);
        for steps in (0..).step_by(stride_or(1)) {
            let mutex = mutex();
            set(FROM, 0);
            set(TO, 0);
            let victim = Stepped::start(|| {
                mutex.lock(ENDLESS).unwrap();
                mutex.unlock().unwrap();
            });
            let in_work = (0..steps).all(|_| victim.step());
            victim.kill();
            told += u64::from(lock(mutex));
            mutex.unlock().unwrap();
            transfer(mutex);
            kills += 1;
            if !in_work {
                break;
            }
        }
        println!("{kills} kills, {told} of them with the mutex");
        crate::common::crash("mutex lock, unlock");
        assert!(kills > 30 && told > 5);
    });
}

#[test]
fn killed_at_every_instruction_whoever_sleeps_behind_it_gets_it() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(7)) {
            let mutex = mutex();
            set(FROM, 0);
            set(TO, 0);
            let victim = Stepped::start(|| transfer(mutex));
            let mut sleepers = Vec::new();
            let mut in_work = true;
            for _ in 0..steps {
                in_work = victim.step();
                if sleepers.is_empty() && mutex.lock(Patience::None) == Err(Errno::BUSY) {
                    for _ in 0..2 {
                        let sleeper = fork(|| transfer(mutex));
                        wait_blocked_in(sleeper.pid(), libc::SYS_futex_waitv);
                        sleepers.push(sleeper);
                    }
                } else if mutex.is_held() {
                    let _ = mutex.mark_consistent();
                    mutex.unlock().unwrap();
                }
                if !in_work {
                    break;
                }
            }
            victim.kill();
            sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
            transfer(mutex);
            kills += 1;
            if !in_work {
                break;
            }
        }
        println!("{kills} kills with two asleep");
        crate::common::crash("mutex lock, unlock, two asleep");
        assert!(kills > 5);
    });
}

/// What glibc's mutex loses: `B` is woken and killed, after another has locked.
#[test]
fn a_wake_that_a_dead_one_had_is_not_lost_to_who_came_before_it() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(61)) {
            let mutex = mutex();
            set(FROM, 0);
            set(TO, 0);
            mutex.lock(ENDLESS).unwrap();
            let victim = Stepped::start(|| transfer(mutex));
            let mut sleeper = None;
            while sleeper.is_none() {
                assert!(victim.step_watched(|_| {
                    if sleeper.is_none() {
                        let behind = fork(|| transfer(mutex));
                        wait_blocked_in(behind.pid(), libc::SYS_futex_waitv);
                        sleeper = Some(behind);
                        mutex.unlock().unwrap();
                        mutex.lock(Patience::None).unwrap();
                    }
                }));
            }
            let mut at_end = false;
            for _ in 0..steps {
                let mut asleep = false;
                at_end = !victim.step_unless(&mut asleep) || asleep;
                if at_end {
                    break;
                }
            }
            victim.kill();
            mutex.unlock().unwrap();
            sleeper.unwrap().assert_ok();
            kills += 1;
            if at_end {
                break;
            }
        }
        println!("{kills} kills of one who was woken");
        crate::common::crash("mutex lock, woken");
        assert!(kills > 3);
    });
}

#[test]
fn many_processes_killed_at_random_keep_the_total_and_nobody_sleeps_on() {
    isolated_for(Duration::from_secs(120), || {
        let mutex = mutex();
        let start = || {
            fork(|| {
                while get(STOP) == 0 {
                    transfer(mutex);
                }
            })
        };
        let mut children: Vec<_> = (0..8).map(|_| start()).collect();
        let mut random = Random(7);
        let end = Instant::now() + Duration::from_secs(5);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(random.below(700)));
            for _ in 0..=random.below(3) {
                let place = random.below(8) as usize;
                let victim = std::mem::replace(&mut children[place], start());
                killed(victim);
                kills += 1;
            }
        }
        let before = get(TO);
        wait_until("those who are left go on", || get(TO) > before + 1000);
        set(STOP, 1);
        children.into_iter().for_each(|child| child.assert_ok());
        lock(mutex);
        println!("{kills} kills, {} transfers", get(TO));
        assert!(kills > 100);
    });
}

#[test]
fn who_waits_for_it_uses_next_to_no_processor() {
    isolated(|| {
        let mutex = mutex();
        mutex.lock(ENDLESS).unwrap();
        let waiter = fork(|| transfer(mutex));
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        let switches = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", waiter.pid())).unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = switches();
        // Not a wait for something: the time in which it hardly runs. It asks for the holder less and less often.
        std::thread::sleep(Duration::from_secs(3));
        assert!(switches() - before <= 6);
        mutex.unlock().unwrap();
        waiter.assert_ok();
    });
}

#[test]
fn overwritten_it_works_or_is_an_error_and_never_hangs() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for held in [false, true] {
            for offset in (0..Mutex::SIZE).step_by(8) {
                for value in hostile(offset) {
                    let mutex = Mutex::init(common::region(), 0).unwrap();
                    let short = || Patience::Until(Instant::now() + Duration::from_millis(60));
                    let user = fork(|| {
                        if held {
                            mutex.lock(ENDLESS).unwrap();
                            set(0, 1);
                            while get(1) == 0 {
                                std::thread::yield_now();
                            }
                            let _ = mutex.unlock();
                        } else {
                            set(0, 1);
                        }
                        let _ = mutex.lock(short()).map(|_| mutex.unlock());
                    });
                    wait_until("it is there", || get(0) == 1);
                    let sleeper = fork(|| {
                        let _ = mutex.lock(short()).map(|_| mutex.unlock());
                    });
                    if held {
                        wait_until("it waits", || {
                            !sleeper.is_alive() || blocked_in(sleeper.pid(), libc::SYS_futex_waitv)
                        });
                    }
                    common::word(offset).store(value, Ordering::SeqCst);
                    set(1, 1);
                    user.assert_ok();
                    sleeper.assert_ok();
                    // Killed with it, so that the list in there is gone through.
                    let dying = fork(|| {
                        let _ = mutex.lock(short());
                        common::word(offset).store(value, Ordering::SeqCst);
                        common::signal_self(libc::SIGKILL);
                    });
                    dying.wait();
                    let _ = mutex.lock(short());
                    set(0, 0);
                    set(1, 0);
                    tried += 1;
                }
            }
        }
        crate::common::tried("mutex", tried);
    });
}
