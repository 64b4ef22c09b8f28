//! Process-shared barriers: all go on together, round after round, and deaths do not count.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ginnel::memory::Anonymous;
use ginnel::sync::Barrier;
use ginnel_testkit::{fork, isolated, wait_blocked_in};

const SHORT: Duration = Duration::from_millis(20);
const COUNT: usize = Barrier::size_bytes(3);

#[test]
fn nobody_goes_on_before_all_have_come() {
    isolated(|| {
        let memory = Anonymous::map(COUNT + 64).unwrap();
        let _made = Barrier::in_mapping(&memory, 0, 3).unwrap();
        let parties: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    let barrier = Barrier::open_in_mapping(&memory, 0).unwrap();
                    assert_eq!(barrier.parties(), 3);
                    let (arrived, led) =
                        (memory.atomic_u32(COUNT).unwrap(), memory.atomic_u32(COUNT + 4).unwrap());
                    for round in 1..=100 {
                        arrived.fetch_add(1, Ordering::SeqCst);
                        led.fetch_add(u32::from(barrier.wait().unwrap()), Ordering::SeqCst);
                        assert!(arrived.load(Ordering::SeqCst) >= 3 * round);
                    }
                })
            })
            .collect();
        parties.into_iter().for_each(|party| party.assert_ok());
        assert_eq!(memory.load_u32(COUNT + 4).unwrap(), 100, "one leads each round");
    });
}

#[test]
fn who_gave_up_or_was_killed_does_not_count() {
    isolated(|| {
        let memory = Anonymous::map(COUNT + 64).unwrap();
        let barrier = Barrier::in_mapping(&memory, 0, 2).unwrap();
        assert!(barrier.wait_deadline(SHORT).unwrap_err().is_timed_out());
        let killed = fork(|| drop(barrier.wait()));
        wait_blocked_in(killed.pid(), libc::SYS_futex_waitv);
        killed.kill();
        killed.wait();
        assert!(barrier.wait_deadline(SHORT).unwrap_err().is_timed_out());
        let other = fork(|| assert!(!barrier.wait().unwrap()));
        wait_blocked_in(other.pid(), libc::SYS_futex_waitv);
        assert!(barrier.wait().unwrap(), "the last to come leads");
        other.assert_ok();
    });
}

#[test]
fn what_does_not_do_is_refused() {
    isolated(|| {
        let memory = Anonymous::map(4096).unwrap();
        for (offset, parties) in [(1, 1), (0, 0), (0, 70_000), (4096, 1), (0, 10_000)] {
            let refused = Barrier::in_mapping(&memory, offset, parties).unwrap_err();
            assert_eq!(refused.errno_name(), "EINVAL", "{offset} {parties}");
        }
        assert!(Barrier::open_in_mapping(&memory, 0).unwrap_err().is_corrupted());
    });
}
