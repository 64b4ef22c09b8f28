//! Process-shared condition variables: who waits is told, also after deaths.

use std::time::Duration;

use ginnel::memory::{Anonymous, Mapping};
use ginnel::sync::{Condvar, Mutex};
use ginnel_testkit::{fork, isolated, wait_blocked_in};

const SHORT: Duration = Duration::from_millis(20);
const VALUE: usize = 256;

fn made(memory: &Mapping) -> (Mutex<'_>, Condvar<'_>) {
    (Mutex::in_mapping(memory, 0).unwrap(), Condvar::in_mapping(memory, 64).unwrap())
}

#[test]
fn a_waiter_in_another_process_sees_the_change() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let (mutex, changed) = made(&memory);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    let changed = Condvar::open_in_mapping(&memory, 64).unwrap();
                    let mut guard = mutex.lock().unwrap();
                    while memory.read_at::<u32>(VALUE).unwrap() == 0 {
                        changed.wait(&mut guard).unwrap();
                    }
                    let left = memory.read_at::<u32>(VALUE).unwrap() - 1;
                    memory.write_at(VALUE, left).unwrap();
                })
            })
            .collect();
        for waiter in &waiters {
            wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        }
        let guard = mutex.lock().unwrap();
        memory.write_at(VALUE, 1_u32).unwrap();
        guard.unlock().unwrap();
        changed.notify_one().unwrap();
        let guard = loop {
            let guard = mutex.lock().unwrap();
            if memory.read_at::<u32>(VALUE).unwrap() == 0 {
                break guard;
            }
            drop(guard);
            std::thread::yield_now();
        };
        memory.write_at(VALUE, 2_u32).unwrap();
        drop(guard);
        changed.notify_all().unwrap();
        waiters.into_iter().for_each(|waiter| waiter.assert_ok());
        assert_eq!(memory.read_at::<u32>(VALUE).unwrap(), 0);
    });
}

#[test]
fn a_deadline_gives_the_mutex_back() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let (mutex, changed) = made(&memory);
        let mut guard = mutex.lock().unwrap();
        // Without a notification: so it is the deadline, or a look in between.
        while !changed.wait_deadline(&mut guard, SHORT).is_err_and(|error| error.is_timed_out()) {}
        fork(|| assert!(mutex.try_lock().unwrap_err().is_would_block())).assert_ok();
        guard.unlock().unwrap();
    });
}

#[test]
fn a_notification_is_not_lost_with_a_killed_waiter() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let (mutex, changed) = made(&memory);
        let wait = || {
            let mut guard = mutex.lock().unwrap();
            if guard.owner_died() {
                guard.mark_consistent().unwrap();
            }
            while memory.read_at::<u32>(VALUE).unwrap() == 0 {
                changed.wait(&mut guard).unwrap();
                if guard.owner_died() {
                    let _ = guard.mark_consistent();
                }
            }
        };
        let (first, second) = (fork(wait), fork(wait));
        for waiter in [&first, &second] {
            wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        }
        let guard = mutex.lock().unwrap();
        memory.write_at(VALUE, 1_u32).unwrap();
        changed.notify_one().unwrap();
        // It was the first's, or not; it is gone before it could take it.
        first.kill();
        first.wait();
        drop(guard);
        second.assert_ok();
    });
}

#[test]
fn a_holders_death_ends_the_wait_with_news_of_it() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let (mutex, changed) = made(&memory);
        let waiter = fork(|| {
            let mut guard = mutex.lock().unwrap();
            while !guard.owner_died() {
                changed.wait(&mut guard).unwrap();
            }
            guard.mark_consistent().unwrap();
        });
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        fork(|| std::mem::forget(mutex.lock().unwrap())).assert_ok();
        waiter.assert_ok();
        assert!(!mutex.lock().unwrap().owner_died());
    });
}
