//! Process-shared read-write locks: many readers or one writer, and deaths.

use std::time::Duration;

use ginnel::memory::Anonymous;
use ginnel::sync::RwLock;
use ginnel_testkit::{fork, isolated, wait_blocked_in, wait_until};

const SHORT: Duration = Duration::from_millis(20);
const HOLDERS: u32 = 8;
const COUNT: usize = RwLock::size_bytes(HOLDERS);

#[test]
fn many_read_and_one_writes() {
    isolated(|| {
        let memory = Anonymous::map(COUNT + 64).unwrap();
        let lock = RwLock::in_mapping(&memory, 0, HOLDERS).unwrap();
        let reading = lock.read().unwrap();
        assert!(!reading.is_write());
        fork(|| {
            let lock = RwLock::open_in_mapping(&memory, 0).unwrap();
            drop(lock.read().unwrap());
            let busy = lock.try_write().unwrap_err();
            assert!(busy.is_would_block(), "{busy}");
            assert!(lock.write_deadline(SHORT).unwrap_err().is_timed_out());
        })
        .assert_ok();
        let writer = fork(|| {
            let guard = lock.write().unwrap();
            assert!(guard.is_write() && !guard.owner_died());
            memory.write_at(COUNT, 1_u8).unwrap();
        });
        wait_blocked_in(writer.pid(), libc::SYS_futex_waitv);
        assert_eq!(memory.read_at::<u8>(COUNT).unwrap(), 0);
        reading.unlock().unwrap();
        writer.assert_ok();
        assert_eq!(memory.read_at::<u8>(COUNT).unwrap(), 1);

        let _writing = lock.write().unwrap();
        fork(|| {
            assert!(lock.try_read().unwrap_err().is_would_block());
            assert!(lock.read_deadline(SHORT).unwrap_err().is_timed_out());
        })
        .assert_ok();
    });
}

#[test]
fn writers_lose_nothing() {
    isolated(|| {
        let memory = Anonymous::map(COUNT + 64).unwrap();
        let lock = RwLock::in_mapping(&memory, 0, HOLDERS).unwrap();
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    for _ in 0..300 {
                        let before = {
                            let _reading = lock.read().unwrap();
                            memory.read_at::<u64>(COUNT).unwrap()
                        };
                        let _writing = lock.write().unwrap();
                        let count = memory.read_at::<u64>(COUNT).unwrap();
                        assert!(count >= before);
                        memory.write_at(COUNT, count + 1).unwrap();
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(memory.read_at::<u64>(COUNT).unwrap(), 1200);
    });
}

#[test]
fn the_killed_give_it_back_and_of_a_writer_the_next_is_told() {
    isolated(|| {
        let memory = Anonymous::map(COUNT + 64).unwrap();
        let lock = RwLock::in_mapping(&memory, 0, HOLDERS).unwrap();
        for is_writer in [false, true] {
            let holder = fork(|| {
                std::mem::forget(if is_writer { lock.write() } else { lock.read() }.unwrap());
                memory.write_at(COUNT, 1_u8).unwrap();
                loop {
                    std::thread::park();
                }
            });
            wait_until("it holds it", || memory.read_at::<u8>(COUNT).unwrap() == 1);
            memory.write_at(COUNT, 0_u8).unwrap();
            holder.kill();
            holder.wait();
            let guard = lock.write().unwrap();
            assert_eq!(guard.owner_died(), is_writer);
            assert_eq!(guard.mark_consistent().is_ok(), is_writer);
        }
        assert!(!lock.read().unwrap().owner_died());
    });
}

#[test]
fn what_does_not_do_is_refused() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        for (offset, holders) in [(1, 1), (0, 0), (0, 70_000), (4096, 1), (0, 100_000)] {
            let refused = RwLock::in_mapping(&memory, offset, holders).unwrap_err();
            assert_eq!(refused.errno_name(), "EINVAL", "{offset} {holders}");
        }
        assert!(RwLock::open_in_mapping(&memory, 0).unwrap_err().is_corrupted());
        let lock = RwLock::in_mapping(&memory, 0, 1).unwrap();
        let _held = lock.read().unwrap();
        fork(|| {
            let full = lock.read_deadline(SHORT).unwrap_err();
            assert_eq!(full.errno_name(), "ENOLCK");
            assert!(full.hint().is_some(), "{full}");
        })
        .assert_ok();
    });
}
