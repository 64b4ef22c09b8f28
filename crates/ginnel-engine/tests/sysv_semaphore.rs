//! Semaphore sets: the rules of `semop(2)` and `semctl(2)`, one by one and against the kernel's own.
#![allow(unsafe_code)]

mod common;

#[path = "sysv_semaphore/kernel.rs"]
mod kernel;
#[path = "sysv_semaphore/killed.rs"]
mod killed;
#[path = "sysv_semaphore/undo.rs"]
mod undo;

use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::namespace::{Change, Kind, Namespace};
use ginnel_engine::segment::HEADER_BYTES;
use ginnel_engine::sync::sysv_semaphore::{COUNT_MAX, OPERATIONS_MAX, Status, SysvSemaphores, VALUE_MAX};
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, as_user, fork, isolated, wait_blocked_in, wait_until};
use libc::sembuf;

const NO_WAIT: i16 = libc::IPC_NOWAIT as i16;
const UNDO: i16 = libc::SEM_UNDO as i16;

/// A set in a namespace of its own.
struct Home {
    home: Namespace,
    id: i32,
    set: SysvSemaphores,
}

impl std::ops::Deref for Home {
    type Target = SysvSemaphores;

    fn deref(&self) -> &SysvSemaphores {
        &self.set
    }
}

impl Home {
    fn remove(&self) -> Result<(), Errno> {
        SysvSemaphores::remove(&self.home, self.id)
    }

    fn status(&self) -> Result<Status, Errno> {
        SysvSemaphores::status(&self.home, self.id)
    }
}

fn fresh(count: usize) -> Home {
    let home = Namespace::private().unwrap();
    let id = SysvSemaphores::get(&home, libc::IPC_PRIVATE, count as i32, 0o600).unwrap();
    let set = SysvSemaphores::open(&home, id).unwrap();
    Home { home, id, set }
}

fn set_of(values: &[u16]) -> Home {
    let set = fresh(values.len());
    set.set_values(values).unwrap();
    set
}

fn op(sem_num: u16, sem_op: i16) -> sembuf {
    sembuf { sem_num, sem_op, sem_flg: 0 }
}

fn flagged(sem_num: u16, sem_op: i16, sem_flg: i16) -> sembuf {
    sembuf { sem_num, sem_op, sem_flg }
}

fn values(set: &SysvSemaphores) -> Vec<u16> {
    let mut values = vec![0; set.count()];
    set.values(&mut values).unwrap();
    values
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

fn operate(set: &SysvSemaphores, operations: &[sembuf]) -> Result<(), Errno> {
    set.operate(operations, soon())
}

/// A process that does these operations, blocked in them.
fn blocked(set: &SysvSemaphores, operations: &[sembuf]) -> Child {
    ends_with(set, operations, Ok(()))
}

fn ends_with(set: &SysvSemaphores, operations: &[sembuf], result: Result<(), Errno>) -> Child {
    let child = fork(|| assert_eq!(operate(set, operations), result));
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

fn still_blocked(child: &Child) -> bool {
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child.is_alive()
}

#[test]
fn a_set_has_between_1_and_32000_semaphores_all_0() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        let get = |count, flags| SysvSemaphores::get(&home, 0x2a, count, flags);
        assert_eq!(get(1, 0), Err(Errno::NOENT));
        assert_eq!(get(-1, 0), Err(Errno::INVAL));
        assert_eq!(get(COUNT_MAX as i32 + 1, 0), Err(Errno::INVAL));
        assert_eq!(get(0, libc::IPC_CREAT | 0o600), Err(Errno::INVAL));
        let id = get(2, libc::IPC_CREAT | 0o600).unwrap();
        assert_eq!((get(0, 0), get(2, libc::IPC_CREAT), get(1, 0o400)), (Ok(id), Ok(id), Ok(id)));
        assert_eq!(get(3, 0), Err(Errno::INVAL));
        assert_eq!(get(3, libc::IPC_CREAT | libc::IPC_EXCL), Err(Errno::EXIST));
        for count in [1, 97, 98, 99, 195, 196, 197, 2000, COUNT_MAX] {
            let set = fresh(count);
            assert_eq!((set.count(), values(&set)), (count, vec![0; count]));
            assert_eq!(set.last_pid(count - 1), Ok(0));
            let other = SysvSemaphores::open(&set.home, set.id).unwrap();
            other.set_value(count - 1, 5).unwrap();
            assert_eq!((other.count(), set.value(count - 1)), (count, Ok(5)));
        }
    });
}

#[test]
fn what_a_call_may_not_ask_for() {
    isolated(|| {
        let set = set_of(&[0, VALUE_MAX]);
        assert_eq!(operate(&set, &[]), Err(Errno::INVAL));
        assert_eq!(operate(&set, &[op(0, 1); OPERATIONS_MAX + 1]), Err(Errno::TOOBIG));
        assert_eq!(operate(&set, &[op(2, 1)]), Err(Errno::FBIG));
        assert_eq!(operate(&set, &[op(0, 1), op(u16::MAX, 1)]), Err(Errno::FBIG));
        assert_eq!(operate(&set, &[op(1, 1)]), Err(Errno::RANGE));
        assert_eq!(operate(&set, &[op(0, 1), op(1, 1)]), Err(Errno::RANGE));
        assert_eq!(values(&set), [0, VALUE_MAX], "all or nothing");
        assert_eq!(set.set_value(0, VALUE_MAX + 1), Err(Errno::RANGE));
        assert_eq!(set.set_value(2, 0), Err(Errno::INVAL));
        assert_eq!(set.set_values(&[0, VALUE_MAX + 1]), Err(Errno::RANGE));
        assert_eq!(set.set_values(&[0]), Err(Errno::INVAL));
        assert_eq!(set.value(2), Err(Errno::INVAL));
        assert_eq!(set.last_pid(2), Err(Errno::INVAL));
        assert_eq!(set.waiting(2), Err(Errno::INVAL));
        assert_eq!(set.waiting_zero(2), Err(Errno::INVAL));
    });
}

#[test]
fn operations_see_what_earlier_ones_of_the_same_call_did() {
    isolated(|| {
        let set = set_of(&[0, 3]);
        operate(&set, &[op(0, 2), op(0, -1), op(1, -3), op(1, 0), op(1, 7), op(0, -1), op(0, 0)]).unwrap();
        assert_eq!(values(&set), [0, 7]);
        // In this order, none can be done later.
        assert_eq!(operate(&set, &[flagged(0, -1, NO_WAIT), op(0, 1)]), Err(Errno::AGAIN));
        assert_eq!(operate(&set, &[op(1, VALUE_MAX as i16), op(1, -7)]), Err(Errno::RANGE));
        assert_eq!(operate(&set, &[op(1, -7), flagged(1, -1, NO_WAIT)]), Err(Errno::AGAIN));
        assert_eq!(operate(&set, &[op(0, 1), flagged(0, 0, NO_WAIT)]), Err(Errno::AGAIN));
        assert_eq!(values(&set), [0, 7]);
    });
}

#[test]
fn whether_to_wait_is_asked_of_the_operation_that_would() {
    isolated(|| {
        let set = set_of(&[0, 0]);
        assert_eq!(operate(&set, &[flagged(0, -1, NO_WAIT)]), Err(Errno::AGAIN));
        assert_eq!(operate(&set, &[flagged(0, 1, NO_WAIT), flagged(1, -1, NO_WAIT)]), Err(Errno::AGAIN));
        let until = Patience::Until(Instant::now() + Duration::from_millis(30));
        assert_eq!(set.operate(&[flagged(0, 1, NO_WAIT), op(1, -1)], until), Err(Errno::TIMEDOUT));
        // Blocked by the one that may wait; when that can go on, the other would be, and may not.
        let child = ends_with(&set, &[op(0, -1), flagged(1, -1, NO_WAIT)], Err(Errno::AGAIN));
        operate(&set, &[op(0, 1)]).unwrap();
        child.assert_ok();
        assert_eq!(values(&set), [1, 0]);
    });
}

#[test]
fn a_blocked_call_is_done_by_whoever_makes_it_possible() {
    isolated(|| {
        let set = set_of(&[0, 1]);
        let child = blocked(&set, &[op(0, -2), op(1, -1), op(1, 3)]);
        operate(&set, &[op(0, 1)]).unwrap();
        assert!(still_blocked(&child));
        assert_eq!((values(&set), set.waiting(0), set.waiting(1)), (vec![1, 1], Ok(1), Ok(0)));
        let pid = child.pid();
        operate(&set, &[op(0, 1)]).unwrap();
        assert_eq!(values(&set), [0, 3], "done before that call returned");
        assert_eq!((set.last_pid(0), set.last_pid(1)), (Ok(pid as u32), Ok(pid as u32)));
        child.assert_ok();
    });
}

#[test]
fn who_waits_for_zero_goes_before_who_would_change_it() {
    isolated(|| {
        let set = set_of(&[0, 1]);
        let changes = blocked(&set, &[op(0, -1), op(1, 1)]);
        let zero = blocked(&set, &[op(1, 0)]);
        operate(&set, &[op(0, 1), op(1, -1)]).unwrap();
        zero.assert_ok();
        changes.assert_ok();
        assert_eq!(values(&set), [0, 1]);
    });
}

#[test]
fn first_come_first_served_but_what_can_go_on_does() {
    isolated(|| {
        let set = set_of(&[0]);
        let three = blocked(&set, &[op(0, -3)]);
        let one = blocked(&set, &[op(0, -1)]);
        let two = blocked(&set, &[op(0, -2)]);
        assert_eq!(set.waiting(0), Ok(3));
        operate(&set, &[op(0, 1)]).unwrap();
        one.assert_ok();
        operate(&set, &[op(0, 3)]).unwrap();
        three.assert_ok();
        assert!(still_blocked(&two));
        operate(&set, &[op(0, 3)]).unwrap();
        two.assert_ok();
        assert_eq!((values(&set), set.waiting(0)), (vec![1], Ok(0)));
    });
}

#[test]
fn one_that_goes_on_may_let_an_earlier_one_go_on() {
    isolated(|| {
        let set = set_of(&[0, 0, 0]);
        let earlier = blocked(&set, &[op(0, -1), op(1, 1)]);
        let later = blocked(&set, &[op(2, -1), op(0, 1)]);
        operate(&set, &[op(2, 1)]).unwrap();
        later.assert_ok();
        earlier.assert_ok();
        assert_eq!(values(&set), [0, 1, 0]);
    });
}

#[test]
fn a_blocked_call_counts_for_the_operation_that_stops_it() {
    isolated(|| {
        let set = set_of(&[1, 1, 1]);
        let counts = |set: &SysvSemaphores| {
            (0..3)
                .map(|index| (set.waiting(index).unwrap(), set.waiting_zero(index).unwrap()))
                .collect::<Vec<_>>()
        };
        let child = blocked(&set, &[op(0, -1), op(1, -2), op(2, 0)]);
        assert_eq!(counts(&set), [(0, 0), (1, 0), (0, 0)]);
        operate(&set, &[op(1, 1)]).unwrap();
        assert_eq!(counts(&set), [(0, 0), (0, 0), (0, 1)]);
        operate(&set, &[op(0, -1)]).unwrap();
        assert_eq!(counts(&set), [(1, 0), (0, 0), (0, 0)]);
        operate(&set, &[op(0, 1), op(2, -1)]).unwrap();
        child.assert_ok();
        assert_eq!((counts(&set), values(&set)), (vec![(0, 0); 3], vec![0, 0, 0]));
    });
}

#[test]
fn a_deadline_a_signal_and_a_removal_end_a_call() {
    isolated(|| {
        let set = set_of(&[0]);
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(set.operate(&[op(0, -1)], Patience::Until(until)), Err(Errno::TIMEDOUT));
        assert!(Instant::now() >= until, "before its deadline");

        extern "C" fn on_signal(_: libc::c_int) {}
        let interrupted = fork(|| {
            common::handle(libc::SIGUSR1, on_signal);
            assert_eq!(operate(&set, &[op(0, -1)]), Err(Errno::INTR));
        });
        wait_blocked_in(interrupted.pid(), libc::SYS_futex_waitv);
        interrupted.signal(libc::SIGUSR1);
        interrupted.assert_ok();

        let ended = [
            ends_with(&set, &[op(0, -1)], Err(Errno::IDRM)),
            ends_with(&set, &[op(0, 1), op(0, 0)], Err(Errno::IDRM)),
        ];
        assert_eq!(set.waiting(0), Ok(1));
        set.remove().unwrap();
        ended.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(operate(&set, &[op(0, 1)]), Err(Errno::INVAL));
        assert_eq!(set.value(0), Err(Errno::INVAL));
        assert_eq!(set.set_value(0, 1), Err(Errno::INVAL));
        assert_eq!(set.status().map(drop), Err(Errno::INVAL));
        assert_eq!(set.remove(), Err(Errno::INVAL));
    });
}

#[test]
fn a_removal_while_a_call_only_looks_is_one_while_it_waits() {
    isolated(|| {
        for operations in [&[op(0, -1)][..], &[op(1, -1), op(0, -1)]] {
            let set = set_of(&[0, 1]);
            let caller = common::Stepped::start(|| {
                assert_eq!(operate(&set, operations), Err(Errno::IDRM), "{} operations", operations.len());
            });
            // It has had the lock, and found that it must wait.
            let raw = set.home.open_id(Kind::SysvSemaphores, set.id).unwrap();
            let is_locked = || raw.word32(0x40).unwrap().load(std::sync::atomic::Ordering::SeqCst) != 0;
            while !is_locked() {
                assert!(caller.step());
            }
            while is_locked() {
                assert!(caller.step());
            }
            assert!(caller.step());
            set.remove().unwrap();
            caller.finish("it is told");
        }
    });
}

#[test]
fn setting_values_wakes_and_says_who() {
    isolated(|| {
        let set = set_of(&[0, 1]);
        let (one, zero) = (blocked(&set, &[op(0, -1)]), blocked(&set, &[op(1, 0)]));
        set.set_value(0, 3).unwrap();
        one.assert_ok();
        assert_eq!(values(&set), [2, 1]);
        assert!(still_blocked(&zero));
        set.set_values(&[7, 0]).unwrap();
        let pid = zero.pid() as u32;
        zero.assert_ok();
        assert_eq!((values(&set), set.last_pid(0)), (vec![7, 0], Ok(std::process::id())));
        assert_eq!(set.last_pid(1), Ok(pid), "waiting for zero counts as an operation");
    });
}

#[test]
fn the_times_are_of_the_last_operation_and_of_the_last_change() {
    isolated(|| {
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let before = now();
        let set = fresh(1);
        let made = set.status().unwrap();
        assert!(made.last_operation == 0 && (before - 1..=now()).contains(&made.last_change));
        set.set_value(0, 1).unwrap();
        assert_eq!(set.status().unwrap().last_operation, 0, "no operation, and nobody was blocked");
        assert_eq!(operate(&set, &[flagged(0, 0, NO_WAIT)]), Err(Errno::AGAIN));
        assert_eq!(set.status().unwrap().last_operation, 0, "it was not done");
        operate(&set, &[op(0, -1)]).unwrap();
        assert!((before - 1..=now()).contains(&set.status().unwrap().last_operation));
    });
}

#[test]
fn who_has_a_set_open_heeds_a_change_of_its_permissions() {
    isolated(|| {
        let set = set_of(&[5]);
        let mode = |mode| {
            set.home.set(Kind::SysvSemaphores, set.id, Change { uid: 0, gid: 0, mode }).unwrap();
            set.status().unwrap().last_change
        };
        let changed = mode(0o666);
        assert_eq!(set.status().unwrap().last_operation, 0);
        assert!(changed > 0);
        let take = || operate(&set, &[op(0, -1)]);
        as_user(1000, 1000, || assert_eq!(take(), Ok(()))).assert_ok();
        mode(0o664);
        as_user(1000, 1000, || {
            assert_eq!(take(), Err(Errno::ACCESS));
            assert_eq!(operate(&set, &[flagged(0, 0, NO_WAIT)]), Err(Errno::AGAIN), "that only looks");
            assert_eq!((set.value(0), set.set_value(0, 1)), (Ok(4), Err(Errno::ACCESS)));
        })
        .assert_ok();
        mode(0o600);
        as_user(1000, 1000, || {
            assert_eq!((take(), set.value(0)), (Err(Errno::ACCESS), Err(Errno::ACCESS)));
        })
        .assert_ok();
        assert_eq!(take(), Ok(()), "its owner");
    });
}

#[test]
fn five_hundred_operations_wait_and_are_done_at_once() {
    isolated(|| {
        for count in [1_u16, 3, 100, 250, 600] {
            let set = fresh(usize::from(count) + 1);
            let mut operations: Vec<_> = (0..OPERATIONS_MAX as u16 - 1).map(|at| op(at % count, 1)).collect();
            operations.push(op(count, -1));
            let child = blocked(&set, &operations);
            operations.pop();
            operate(&set, &operations).unwrap();
            let once: Vec<_> =
                (0..count).map(|index| (0..499).filter(|at| at % count == index).count()).collect();
            let expected = |times: usize| {
                let mut all: Vec<_> = once.iter().map(|once| (once * times) as u16).collect();
                all.push(0);
                all
            };
            assert_eq!(values(&set), expected(1), "{count}");
            operate(&set, &[op(count, 1)]).unwrap();
            let pid = child.pid() as u32;
            child.assert_ok();
            assert_eq!(values(&set), expected(2), "{count}");
            assert_eq!(set.last_pid(0), Ok(pid));
        }
    });
}

#[test]
fn thirty_two_thousand_semaphores_are_set_at_one_instant() {
    isolated(|| {
        let set = fresh(COUNT_MAX);
        let stop = fork(|| {
            for round in 1..=30 {
                set.set_values(&vec![round; COUNT_MAX]).unwrap();
            }
        });
        let pid = stop.pid() as u32;
        loop {
            let seen = values(&set);
            assert!(seen.iter().all(|value| *value == seen[0]), "a mixture");
            if seen[0] == 30 {
                break;
            }
        }
        stop.assert_ok();
        assert_eq!((set.last_pid(0), set.last_pid(COUNT_MAX - 1)), (Ok(pid), Ok(pid)));
        let child = blocked(&set, &[op(31_999, -31), op(15_000, -30), op(0, 0)]);
        operate(&set, &[op(31_999, 1)]).unwrap();
        assert_eq!(set.waiting_zero(0), Ok(1));
        set.set_value(0, 0).unwrap();
        child.assert_ok();
        assert_eq!((set.value(31_999), set.value(15_000)), (Ok(0), Ok(0)));
    });
}

#[test]
fn threads_are_served_like_processes() {
    isolated(|| {
        let set = set_of(&[0, 0]);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| operate(&set, &[op(0, -1), op(1, 1)]))).collect();
            wait_until("four are blocked", || set.waiting(0) == Ok(4));
            operate(&set, &[op(0, 4)]).unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!(values(&set), [0, 4]);
    });
}

#[test]
fn processes_that_take_turns_lose_no_unit() {
    isolated(|| {
        let set = set_of(&[2, 3, 0]);
        let children: Vec<_> = (0..6)
            .map(|number| {
                let set = &set;
                fork(move || {
                    for round in 0..2_000 {
                        let (first, second) = if number % 2 == 0 { (0, 1) } else { (1, 0) };
                        if round % 3 == 0 {
                            operate(set, &[op(first, -1), op(second, -1), op(2, 1)]).unwrap();
                            operate(set, &[op(2, -1), op(second, 1), op(first, 1)]).unwrap();
                        } else {
                            operate(set, &[op(first, -1)]).unwrap();
                            operate(set, &[op(first, 1)]).unwrap();
                        }
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(values(&set), [2, 3, 0]);
    });
}

/// Where a set of one page has its words, the slots of three blocked calls included.
#[test]
fn who_has_no_patience_is_not_refused_because_others_are_at_it() {
    isolated(|| {
        let set = set_of(&[1000, 0]);
        let nowait = |sem_num, sem_op| sembuf { sem_num, sem_op, sem_flg: NO_WAIT };
        let others = [0; 6].map(|_| {
            fork(|| {
                for _ in 0..20_000 {
                    set.operate(&[nowait(0, -1), nowait(1, 1)], Patience::Endless).unwrap();
                    set.operate(&[nowait(0, 1), nowait(1, -1)], Patience::None).unwrap();
                    set.operate(&[nowait(0, -2)], Patience::Endless).unwrap();
                    set.operate(&[op(0, 2)], Patience::None).unwrap();
                }
            })
        });
        others.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(values(&set), [1000, 0]);
    });
}

fn words_of_a_small_set() -> impl Iterator<Item = usize> {
    let waiters = HEADER_BYTES + 0x80;
    let slots = (0..3).map(move |slot| waiters + 0x80 + slot * 4160);
    (HEADER_BYTES..waiters + 0x80).step_by(8).chain(slots.flat_map(|slot| (slot..slot + 0x100).step_by(8)))
}

#[test]
fn scribbled_words_are_an_error_or_a_result_and_never_hang() {
    ginnel_testkit::isolated_for(Duration::from_secs(300), || {
        let mut tried = 0;
        for offset in words_of_a_small_set() {
            for value in [0, u64::MAX, 0x9e37_79b9_7f4a_7c15_u64.rotate_left(offset as u32 / 8)] {
                let set = set_of(&[1, 0, 0]);
                let briefly = || Patience::Until(Instant::now() + Duration::from_millis(60));
                let sleeper = |operations: &[sembuf]| {
                    let child = fork(|| {
                        let _ = set.operate(operations, briefly());
                    });
                    wait_until("it sleeps", || {
                        !child.is_alive() || ginnel_testkit::blocked_in(child.pid(), libc::SYS_futex_waitv)
                    });
                    child
                };
                operate(&set, &[flagged(1, 1, UNDO), op(1, -1)]).unwrap();
                let sleepers = [sleeper(&[flagged(1, -1, UNDO)]), sleeper(&[op(0, 0), op(2, -1), op(1, -1)])];
                let raw = set.home.open_id(Kind::SysvSemaphores, set.id).unwrap();
                raw.word64(offset).unwrap().store(value, std::sync::atomic::Ordering::SeqCst);
                let _ = set.operate(&[op(1, 1)], briefly());
                let _ = set.operate(&[flagged(0, -1, UNDO), op(2, 1)], briefly());
                let _ = set.waiting(1);
                let _ = set.waiting_zero(0);
                let _ = set.set_value(1, 5);
                let _ = set.set_values(&[1, 1, 1]);
                let _ = set.values(&mut [0; 3]);
                sleepers.into_iter().for_each(|sleeper| sleeper.assert_ok());
                let _ = set.remove();
                tried += 1;
            }
        }
        crate::common::tried("System V semaphores", tried);
        assert!(tried > 300);
    });
}
