//! The process-shared condition variable, with real processes killed at every instruction of waiting and notifying.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, Stepped, handle, hostile, killed, number, pause_for_ever, stride_or};
use ginnel_engine::Errno;
use ginnel_engine::sync::condvar::Condvar;
use ginnel_engine::sync::mutex::{Locked, Mutex};
use ginnel_engine::sync::region::Region;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};

const ENDLESS: Patience = Patience::Endless;
const STOP: usize = 0;
const ITEMS: usize = 1;
/// All that were ever put in.
const GIVEN: usize = 2;
/// How many each numbered taker has had.
const TAKEN: usize = 8;
const TAKERS: usize = 16;
/// How many there may be.
const ROOM: u64 = 4;

#[derive(Clone, Copy)]
struct Store {
    mutex: Mutex<'static>,
    filled: Condvar<'static>,
    emptied: Condvar<'static>,
}

fn get(index: usize) -> u64 {
    number(index).load(Ordering::SeqCst)
}

fn set(index: usize, value: u64) {
    number(index).store(value, Ordering::SeqCst);
}

fn taken() -> u64 {
    (0..TAKERS).map(|taker| get(TAKEN + taker)).sum()
}

fn store() -> Store {
    (0..TAKEN + TAKERS).for_each(|index| set(index, 0));
    let region = common::region();
    Store {
        mutex: Mutex::init(region, 0).unwrap(),
        filled: Condvar::init(region, 64).unwrap(),
        emptied: Condvar::init(region, 128).unwrap(),
    }
}

impl Store {
    /// Puts right what a dead holder left half done: what was given or taken counts.
    fn locked(self, locked: Locked) {
        if locked == Locked::OwnerDied {
            set(ITEMS, get(GIVEN) - taken());
            self.mutex.mark_consistent().unwrap();
            // What the dead one may not have said.
            self.filled.notify_all();
            self.emptied.notify_all();
        }
        assert_eq!(get(ITEMS), get(GIVEN) - taken(), "somebody is in there as well");
    }

    fn lock(self) {
        self.locked(self.mutex.lock(ENDLESS).unwrap());
    }

    fn take(self, taker: usize) {
        self.lock();
        while get(ITEMS) == 0 {
            self.locked(self.filled.wait(&self.mutex, None).unwrap());
        }
        set(TAKEN + taker, get(TAKEN + taker) + 1);
        set(ITEMS, get(ITEMS) - 1);
        self.emptied.notify_one();
        self.mutex.unlock().unwrap();
    }

    fn give(self, count: u64) {
        self.lock();
        while get(ITEMS) + count > ROOM {
            self.locked(self.emptied.wait(&self.mutex, None).unwrap());
        }
        set(GIVEN, get(GIVEN) + count);
        set(ITEMS, get(ITEMS) + count);
        if count == 1 {
            self.filled.notify_one()
        } else {
            self.filled.notify_all()
        }
        self.mutex.unlock().unwrap();
    }
}

fn sleeping(store: Store, taker: usize) -> Child {
    let child = fork(|| store.take(taker));
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

#[test]
fn the_rules_of_waiting() {
    isolated(|| {
        let region = Region::anonymous(4096).unwrap();
        assert_eq!(Condvar::init(region, 32).unwrap_err(), Errno::INVAL, "not aligned");
        assert_eq!(Condvar::open(region, 0).unwrap_err(), Errno::UCLEAN, "nobody has made one");
        Condvar::init(region, 4032).unwrap();
        Condvar::open(region, 4032).unwrap();

        let store = store();
        assert_eq!(store.filled.wait(&store.mutex, None), Err(Errno::PERM));
        store.lock();
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(store.filled.wait(&store.mutex, Some(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until, "before its deadline");
        assert!(store.mutex.is_held(), "it is held again");
        store.filled.notify_one();
        store.filled.notify_all();
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(store.filled.wait(&store.mutex, Some(until)), Err(Errno::TIMEDOUT), "not remembered");
    });
}

#[test]
fn one_is_woken_or_all_are() {
    isolated(|| {
        let store = store();
        let takers: Vec<_> = (0..4).map(|taker| sleeping(store, taker)).collect();
        store.give(1);
        wait_until("one has it", || taken() == 1);
        assert_eq!(get(ITEMS), 0);
        store.give(3);
        takers.into_iter().for_each(|taker| taker.assert_ok());
        assert_eq!((taken(), get(ITEMS)), (4, 0));
    });
}

#[test]
fn a_signal_is_a_return_without_a_notification() {
    isolated(|| {
        extern "C" fn on_signal(_: libc::c_int) {}
        let store = store();
        let waiter = fork(|| {
            handle(libc::SIGUSR1, on_signal);
            store.lock();
            assert_eq!(store.filled.wait(&store.mutex, None), Ok(Locked::Whole));
            assert!(store.mutex.is_held());
            store.mutex.unlock().unwrap();
        });
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        waiter.signal(libc::SIGUSR1);
        waiter.assert_ok();
    });
}

#[test]
fn who_waits_is_told_of_the_death_of_a_holder() {
    isolated(|| {
        let store = store();
        let waiter = fork(|| {
            store.lock();
            assert_eq!(store.filled.wait(&store.mutex, None), Ok(Locked::OwnerDied));
            // Not put right: nobody's any more.
            store.mutex.unlock().unwrap();
        });
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        let other = fork(|| {
            store.lock();
            loop {
                match store.filled.wait(&store.mutex, None) {
                    Ok(Locked::Whole) => {}
                    outcome => return assert_eq!(outcome, Err(Errno::NOTRECOVERABLE)),
                }
            }
        });
        wait_blocked_in(other.pid(), libc::SYS_futex_waitv);
        let holder = fork(|| {
            store.lock();
            pause_for_ever();
        });
        wait_blocked_in(holder.pid(), libc::SYS_pause);
        killed(holder);
        // Either may be the first.
        let ends = [waiter.wait(), other.wait()];
        let ok = ginnel_testkit::Exit::Code(0);
        assert!(ends.contains(&ok), "{ends:?}");
        assert_eq!(store.mutex.lock(Patience::None), Err(Errno::NOTRECOVERABLE));
    });
}

#[test]
fn a_waiter_uses_no_processor() {
    isolated(|| {
        let store = store();
        let takers: Vec<_> = (0..3).map(|taker| sleeping(store, taker)).collect();
        let switches = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
            status.lines().filter(|line| line.contains("ctxt_switches")).map(String::from).collect::<Vec<_>>()
        };
        let before: Vec<_> = takers.iter().map(switches).collect();
        // Not a wait for something: the time in which it must not run.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(takers.iter().map(switches).collect::<Vec<_>>(), before, "it ran");
        store.give(3);
        takers.into_iter().for_each(|taker| taker.assert_ok());
    });
}

/// As far as the sleep of one who takes, then `meanwhile`.
fn stepped_to_its_sleep(store: Store, mut meanwhile: impl FnMut()) -> Stepped {
    let victim = Stepped::start(|| store.take(0));
    let mut slept = false;
    while !slept {
        assert!(victim.step_watched(|_| {
            if !slept {
                slept = true;
                meanwhile();
            }
        }));
    }
    victim
}

#[test]
fn a_waiter_killed_at_every_instruction_passes_the_notification_on() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut passed) = (0, 0);
        for steps in (0..).step_by(stride_or(31)) {
            let store = store();
            let mut other = None;
            let victim = stepped_to_its_sleep(store, || {
                other = Some(sleeping(store, 1));
                store.give(1);
            });
            let in_work = (0..steps).all(|_| victim.step());
            let has_taken = get(TAKEN) == 1;
            victim.kill();
            let at = format!("killed {steps} instructions after it was woken");
            if has_taken {
                store.give(1);
            } else {
                passed += 1;
            }
            // Without anybody's help.
            wait_until(&format!("the item has another owner, {at}"), || get(TAKEN + 1) == 1);
            other.unwrap().assert_ok();
            assert_eq!(get(TAKEN), u64::from(has_taken), "{at}");
            kills += 1;
            if !in_work {
                break;
            }
        }
        println!("{kills} kills of one who was notified, {passed} before it had taken the item");
        crate::common::crash("condvar wait, notified");
        assert!(kills > 5 && passed > 3);
    });
}

#[test]
fn a_notified_one_killed_while_another_has_the_mutex_passes_the_notification_on() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(499)) {
            let store = store();
            let mut other = None;
            let victim = stepped_to_its_sleep(store, || {
                other = Some(sleeping(store, 1));
                store.give(1);
                // Not its owner's death, nor its own exchange: the word is another's.
                store.lock();
            });
            let mut asleep = false;
            let busy = (0..steps).all(|_| victim.step_unless(&mut asleep) && !asleep);
            victim.kill();
            store.mutex.unlock().unwrap();
            wait_until(&format!("the item has another owner, killed after {steps} instructions"), || {
                get(TAKEN + 1) == 1
            });
            other.unwrap().assert_ok();
            kills += 1;
            if !busy {
                break;
            }
        }
        println!("{kills} kills of one who was notified and wanted the mutex");
        crate::common::crash("condvar wait, notified, mutex taken");
        assert!(kills > 1);
    });
}

/// It may have seen the mutex free, and be about to take it.
#[test]
fn a_notified_one_killed_after_another_took_the_mutex_first_passes_the_notification_on() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut first) = (0, 0);
        for steps in (0..).step_by(stride_or(17)) {
            let store = store();
            let mut other = None;
            let victim = stepped_to_its_sleep(store, || {
                other = Some(sleeping(store, 1));
                store.give(1);
            });
            let in_work = (0..steps).all(|_| victim.step());
            let taken_first = store.mutex.lock(Patience::None);
            if get(TAKEN) == 1 || !in_work {
                victim.kill();
                break;
            }
            victim.kill();
            if let Ok(locked) = taken_first {
                store.locked(locked);
                store.mutex.unlock().unwrap();
                first += 1;
            }
            wait_until(&format!("the item has another owner, killed after {steps} instructions"), || {
                get(TAKEN + 1) == 1
            });
            other.unwrap().assert_ok();
            kills += 1;
        }
        println!("{kills} kills of one who was notified, {first} of them after another took the mutex");
        crate::common::crash("condvar wait, notified, another first");
        assert!(kills > 3 && first > 1);
    });
}

#[test]
fn a_notifier_killed_at_every_instruction_leaves_nobody_asleep() {
    isolated_for(crate::common::limit(), || {
        for count in [1, 3] {
            let (mut before, mut after) = (0, 0);
            for steps in (0..).step_by(stride_or(7)) {
                let store = store();
                let takers: Vec<_> = (1..4).map(|taker| sleeping(store, taker)).collect();
                let victim = Stepped::start(|| store.give(count));
                let in_work = (0..steps).all(|_| victim.step());
                let given = get(GIVEN);
                victim.kill();
                // What was given is taken without anybody's help: the death with the mutex is told as well.
                wait_until(&format!("all is taken, killed after {steps} instructions"), || taken() == given);
                store.give(3 - given);
                takers.into_iter().for_each(|taker| taker.assert_ok());
                if given == 0 {
                    before += 1
                } else {
                    after += 1
                }
                if !in_work {
                    break;
                }
            }
            println!("{before} kills before {count} was given, {after} after");
            crate::common::crash(&format!("condvar notify, {count} given"));
            assert!(before > 1 && after > 1);
        }
    });
}

#[test]
fn who_is_about_to_sleep_hears_of_the_death_of_one_who_was_notified() {
    isolated_for(crate::common::limit(), || {
        let (mut kills, mut sleeps) = (0, false);
        for steps in (0..).step_by(stride_or(37)) {
            let store = store();
            let mut waiter = None;
            let mut held = false;
            let notified = stepped_to_its_sleep(store, || {
                let second = Stepped::start(|| store.take(1));
                for _ in 0..steps {
                    assert!(second.step_unless(&mut sleeps), "there is nothing to take");
                    if sleeps {
                        break;
                    }
                }
                waiter = Some(second);
                if let Ok(locked) = store.mutex.lock(Patience::None) {
                    store.locked(locked);
                    set(GIVEN, 1);
                    set(ITEMS, 1);
                    store.filled.notify_one();
                    store.mutex.unlock().unwrap();
                } else {
                    held = true;
                    store.filled.notify_one();
                }
            });
            notified.kill();
            let waiter = waiter.unwrap();
            if sleeps || held {
                waiter.kill();
            } else {
                waiter.finish(&format!("the item, stopped after {steps} instructions"));
                assert_eq!(get(TAKEN + 1), 1);
                kills += 1;
            }
            if sleeps {
                break;
            }
        }
        println!("{kills} deaths before one who is about to sleep");
        crate::common::crash("condvar wait, about to sleep");
        assert!(kills > 3);
    });
}

#[test]
fn many_processes_killed_at_random_keep_the_total_and_nobody_sleeps_on() {
    isolated_for(Duration::from_secs(120), || {
        let store = store();
        let start = |place: u64| {
            fork(move || {
                while get(STOP) == 0 {
                    if place < 5 { store.take(place as usize) } else { store.give(1 + place % 2) }
                }
            })
        };
        let mut children: Vec<_> = (0..10).map(start).collect();
        let mut random = Random(5);
        let end = Instant::now() + Duration::from_secs(6);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(random.below(900)));
            let first = random.below(10);
            let victims = 1 + random.below(4);
            (0..victims).for_each(|nth| children[((first + 3 * nth) % 10) as usize].kill());
            for place in (0..victims).map(|nth| (first + 3 * nth) % 10) {
                killed(std::mem::replace(&mut children[place as usize], start(place)));
                kills += 1;
            }
            if kills % 50 < 4 {
                let before = taken();
                wait_until("those who are left go on", || taken() > before + 10);
            }
        }
        println!("{kills} kills, {} items taken", taken());
        assert!(kills > 100);
    });
}

#[test]
fn overwritten_it_returns_by_its_deadline() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for offset in (0..3 * 64).step_by(8) {
            for value in hostile(offset) {
                if offset == 0 && value == 3 {
                    continue; // The number of a process that lives cannot be told from one that was stopped with it.
                }
                let store = store();
                let until = Instant::now() + Duration::from_millis(60);
                let waiters: Vec<_> = (0..2)
                    .map(|_| {
                        fork(|| {
                            let _ = store.mutex.lock(Patience::Until(until));
                            while store.mutex.is_held() && Instant::now() < until {
                                let _ = store.filled.wait(&store.mutex, Some(until));
                            }
                            let _ = store.mutex.unlock();
                        })
                    })
                    .collect();
                wait_until("they sleep, or have ended", || {
                    let asleep = |child: &Child| blocked_in(child.pid(), libc::SYS_futex_waitv);
                    waiters.iter().all(|waiter| !waiter.is_alive() || asleep(waiter))
                });
                common::word(offset).store(value, Ordering::SeqCst);
                store.filled.notify_one();
                store.filled.notify_all();
                waiters.into_iter().for_each(|waiter| waiter.assert_ok());
                tried += 1;
            }
        }
        crate::common::tried("condition variable", tried);
    });
}
