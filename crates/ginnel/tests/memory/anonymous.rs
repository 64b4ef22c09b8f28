//! Anonymous memory: shared by relatives.

use std::sync::atomic::Ordering;

use ginnel::memory::Anonymous;
use ginnel_testkit::{fork, isolated, wait_until};

#[test]
fn a_parent_and_its_children_share_it() {
    isolated(|| {
        let shared = Anonymous::map(8192).unwrap();
        let children: Vec<_> = (0..8_u8)
            .map(|i| {
                let shared = &shared;
                fork(move || {
                    shared.write_at(100 + usize::from(i), i + 1).unwrap();
                    for _ in 0..10_000 {
                        shared.atomic_u64(0).unwrap().fetch_add(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(shared.load_u64(0).unwrap(), 80_000);
        assert_eq!(shared.read_vec(100..108).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    });
}

#[test]
fn what_a_killed_child_wrote_stays_and_its_drop_unmaps_nothing_of_ours() {
    isolated(|| {
        let shared = Anonymous::options().populate(true).no_reserve(true).map(4096).unwrap();
        let child = fork(|| {
            shared.atomic_u32(0).unwrap().store(7, Ordering::Release);
            loop {
                std::thread::park();
            }
        });
        wait_until("the child's store", || shared.load_u32(0).unwrap() == 7);
        child.kill();
        child.wait();
        assert_eq!(shared.load_u32(0).unwrap(), 7);

        let shared = Anonymous::map(4096).unwrap();
        fork(|| {
            // SAFETY: the child's own copy, which it does not use afterwards (it ends by _exit).
            drop(unsafe { std::ptr::read(&shared) });
        })
        .assert_ok();
        shared.write_at(0, 1_u8).unwrap();
    });
}
