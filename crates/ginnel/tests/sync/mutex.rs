//! Process-shared mutexes: they exclude, they are robust, they say what is wrong.

use std::time::Duration;

use ginnel::memory::{Anonymous, FileMapping, PosixShm};
use ginnel::sync::Mutex;
use ginnel_testkit::{Exit, fork, isolated, wait_blocked_in, wait_until};

const SHORT: Duration = Duration::from_millis(20);
const COUNT: usize = 128;

#[test]
fn processes_that_map_it_each_in_their_own_way_exclude_each_other() {
    isolated(|| {
        let ours = PosixShm::create("/memory", 4096).unwrap().map().unwrap();
        let _mutex = Mutex::in_mapping(&ours, 64).unwrap();
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    let theirs = PosixShm::open("/memory").unwrap().map().unwrap();
                    let mutex = Mutex::open_in_mapping(&theirs, 64).unwrap();
                    for _ in 0..2000 {
                        let _guard = mutex.lock().unwrap();
                        let count = theirs.read_at::<u64>(COUNT).unwrap();
                        theirs.write_at(COUNT, count + 1).unwrap();
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(ours.read_at::<u64>(COUNT).unwrap(), 8000);
    });
}

#[test]
fn the_three_forms() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let mutex = Mutex::in_mapping(&memory, 0).unwrap();
        let guard = mutex.lock().unwrap();
        assert!(mutex.lock().unwrap_err().is_deadlock());
        fork(|| {
            let busy = mutex.try_lock().unwrap_err();
            assert!(busy.is_would_block() && busy.errno_name() == "EBUSY", "{busy}");
            assert!(mutex.lock_deadline(SHORT).unwrap_err().is_timed_out());
        })
        .assert_ok();
        let waiter = fork(|| drop(mutex.lock().unwrap()));
        wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
        guard.unlock().unwrap();
        waiter.assert_ok();
        drop(mutex.lock_deadline(SHORT).unwrap());
        drop(mutex.try_lock().unwrap());
    });
}

#[test]
fn a_killed_holder_is_told_of_and_who_does_not_put_it_right_ends_it() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let mutex = Mutex::in_mapping(&memory, 0).unwrap();
        let kill_a_holder = || {
            let holder = fork(|| {
                let guard = mutex.lock().unwrap();
                memory.write_at(COUNT, 1_u8).unwrap();
                std::mem::forget(guard);
                loop {
                    std::thread::park();
                }
            });
            wait_until("it holds it", || memory.read_at::<u8>(COUNT).unwrap() == 1);
            let waiter = fork(|| {
                let guard = mutex.lock().unwrap();
                assert!(guard.owner_died());
                guard.mark_consistent().unwrap();
                assert_eq!(guard.mark_consistent().unwrap_err().errno_name(), "EINVAL");
            });
            wait_blocked_in(waiter.pid(), libc::SYS_futex_waitv);
            memory.write_at(COUNT, 0_u8).unwrap();
            holder.kill();
            assert_eq!(holder.wait(), Exit::Signal(libc::SIGKILL));
            waiter.assert_ok();
        };
        kill_a_holder();
        assert!(!mutex.lock().unwrap().owner_died(), "it was put right");

        // One that ends while it holds it, and one that gives it back as it found it.
        fork(|| std::mem::forget(mutex.lock().unwrap())).assert_ok();
        assert!(mutex.lock().unwrap().owner_died());
        let error = mutex.lock().unwrap_err();
        assert_eq!(error.errno_name(), "ENOTRECOVERABLE");
        assert!(error.hint().unwrap().contains("mark_consistent"), "{error}");
    });
}

#[test]
fn a_childs_copy_of_a_guard_unlocks_nothing() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        let mutex = Mutex::in_mapping(&memory, 0).unwrap();
        let guard = mutex.lock().unwrap();
        // SAFETY: the copy is dropped once, in a process that ends by _exit.
        fork(|| drop(unsafe { std::ptr::read(&raw const guard) })).assert_ok();
        fork(|| assert!(mutex.try_lock().unwrap_err().is_would_block())).assert_ok();
        guard.unlock().unwrap();
    });
}

#[test]
fn memory_with_a_forgotten_guard_stays() {
    isolated(|| {
        let other = Anonymous::map(4096).unwrap();
        let mutex = Mutex::in_mapping(&other, 0).unwrap();
        let outer = mutex.lock().unwrap();
        let address = {
            let memory = Anonymous::map(4096).unwrap();
            std::mem::forget(Mutex::in_mapping(&memory, 0).unwrap().lock().unwrap());
            memory.as_ptr().addr()
        };
        // The thread's list of locks runs through it.
        drop(outer);
        drop(mutex.lock().unwrap());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_there = |line: &str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        };
        assert!(maps.lines().any(is_there), "{maps}");
    });
}

#[test]
fn places_that_do_not_do_are_refused_and_what_is_not_one_too() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        for offset in [1, 32, 4096 - 63, 4096, usize::MAX] {
            let refused = Mutex::in_mapping(&memory, offset).unwrap_err();
            assert_eq!(refused.errno_name(), "EINVAL", "{offset}");
            assert!(refused.hint().is_some(), "{refused}");
        }
        Mutex::in_mapping(&memory, 4096 - Mutex::BYTES).unwrap();
        let none = Mutex::open_in_mapping(&memory, 128).unwrap_err();
        assert!(none.is_corrupted() && none.hint().unwrap().contains("nobody has made one"), "{none}");
        let mutex = Mutex::in_mapping(&memory, 0).unwrap();
        memory.write_bytes(0, &[0xff; 64]).unwrap();
        let error = mutex.lock_deadline(SHORT).unwrap_err();
        assert!(error.is_corrupted() || error.is_timed_out(), "{error}");
    });
}

#[test]
fn one_whose_file_is_truncated_says_so() {
    isolated(|| {
        let directory = ginnel_testkit::temp_dir();
        let path = directory.path().join("locks");
        let mapping = FileMapping::create(&path, 64).unwrap();
        let mutex = Mutex::in_mapping(&mapping, 0).unwrap();
        drop(mutex.lock().unwrap());
        std::fs::File::create(&path).unwrap();
        assert!(mutex.lock().unwrap_err().is_truncated());
    });
}
