//! Killed before and after each system call: what is left, and who completes it.

use std::os::unix::fs::MetadataExt;

use ginnel_engine::Errno;
use ginnel_engine::namespace::{Kind, Namespace, What};
use ginnel_testkit::{as_user, fork, isolated, isolated_for};
use libc::IPC_CREAT;

use super::*;
use crate::common::Stepped;

fn make_and_remove(home: &Namespace, key: i32) {
    let id = home.get(QUEUE, key, IPC_CREAT | 0o600, 0, plain).unwrap();
    home.remove_id(QUEUE, id, doom).unwrap();
}

/// Kills a process before and after each system call of `work`: how many it was. Between two of them nobody sees a change:
/// all that the registry does to what others see are calls.
fn kill_everywhere(work: impl Fn(), mut check: impl FnMut(usize)) -> usize {
    for at in 0.. {
        let stepped = Stepped::start(&work);
        let inside = (0..at).all(|_| stepped.step_call());
        stepped.kill();
        check(at);
        if !inside {
            return at;
        }
    }
    unreachable!("the test's own deadline comes first")
}

#[test]
fn killed_anywhere_in_making_or_removing_the_next_completes_it() {
    isolated(|| {
        let home = home("jobs");
        // Whoever looks: by key, by id, listing, collecting.
        let mut ids = Vec::new();
        let look: [&dyn Fn() -> bool; 3] =
            [&|| home.get(QUEUE, 5, 0, 0, never).is_ok(), &|| !home.list(QUEUE).unwrap().is_empty(), &|| {
                assert!(home.collect(false).unwrap().iter().all(|finding| finding.removed));
                !home.list(QUEUE).unwrap().is_empty()
            }];
        let (mut made, mut half, mut kills) = (0, 0, 0);
        for look in look {
            kills += kill_everywhere(
                || make_and_remove(&home, 5),
                |at| {
                    half += usize::from(files(&home, QUEUE).len() == 1);
                    let there = look();
                    // There whole, or not at all.
                    assert_eq!(home.get(QUEUE, 5, 0, 0, never).is_ok(), there, "killed at {at}");
                    if there {
                        made += 1;
                        let id = home.get(QUEUE, 5, 0, 0, never).unwrap();
                        ids.push(id);
                        home.open_id(QUEUE, id).unwrap();
                        home.remove_id(QUEUE, id, doom).unwrap();
                    }
                    // A key that was given up in the middle is free.
                    let id = home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                    home.remove_id(QUEUE, id, doom).unwrap();
                    assert_eq!(home.list(QUEUE).unwrap(), [], "killed at {at}");
                    home.collect(false).unwrap();
                    assert_eq!(files(&home, QUEUE), [""; 0], "killed at {at}");
                },
            );
        }
        println!("{kills} kills, of which {made} left an object and {half} a half of one");
        crate::common::crash("registry: make and remove (by system call)");
        assert!(kills > 60 && made > 10 && half > 3);
        assert!(ids.iter().all(|id| home.open_id(QUEUE, *id).unwrap_err() == Errno::INVAL));
    });
}

#[test]
fn a_dry_run_finds_the_same_and_removes_nothing() {
    isolated(|| {
        let home = home("jobs");
        let mut seen = Vec::new();
        kill_everywhere(
            || make_and_remove(&home, 5),
            |at| {
                let before = files(&home, QUEUE);
                let dry = home.collect(true).unwrap();
                assert_eq!(files(&home, QUEUE), before, "killed at {at}");
                let wet = home.collect(false).unwrap();
                // An id that is removed takes its key with it, so fewer are seen.
                assert_eq!(dry.is_empty(), wet.is_empty(), "killed at {at}");
                assert!(dry.iter().chain(&wet).all(|finding| finding.removed));
                seen.extend(dry.into_iter().map(|finding| finding.what));
                for listed in home.list(QUEUE).unwrap() {
                    home.remove_id(QUEUE, listed.id, doom).unwrap();
                }
                assert_eq!(files(&home, QUEUE), [""; 0], "killed at {at}");
            },
        );
        assert!(seen.contains(&What::HalfMade) && seen.contains(&What::Removed));
    });
}

#[test]
fn an_object_that_is_being_made_is_not_taken_for_a_dead_ones() {
    isolated(|| {
        let home = home("jobs");
        let stepped = Stepped::start(|| {
            home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
        });
        while files(&home, QUEUE).len() != 1 {
            assert!(stepped.step_call());
        }
        // Its maker is stopped between its two names.
        assert_eq!(home.collect(false).unwrap(), []);
        assert_eq!(home.list(QUEUE).unwrap(), []);
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Err(Errno::NOENT));
        assert_eq!(files(&home, QUEUE).len(), 1);
        stepped.finish("the maker makes it");
        let id = home.get(QUEUE, 5, 0, 0, never).unwrap();
        home.open_id(QUEUE, id).unwrap();
    });
}

#[test]
fn making_and_removing_the_same_key_by_many_while_they_are_killed() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let home = home("jobs");
        let work = || {
            loop {
                match home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain) {
                    Ok(id) => match home.open_id(QUEUE, id).and_then(|_| home.remove_id(QUEUE, id, doom)) {
                        Ok(()) | Err(Errno::INVAL) => {}
                        Err(errno) => panic!("{errno}"),
                    },
                    Err(errno) => panic!("{errno}"),
                }
            }
        };
        let mut workers: Vec<_> = (0..3).map(|_| fork(work)).collect();
        for round in 0..60_u64 {
            std::thread::sleep(std::time::Duration::from_micros(500 + round * 137 % 3000));
            let worker = workers.remove(0);
            assert!(worker.is_alive(), "it failed");
            worker.kill();
            worker.wait();
            workers.push(fork(work));
        }
        for worker in workers {
            assert!(worker.is_alive(), "it failed");
            worker.kill();
            worker.wait();
        }
        if let Ok(id) = home.get(QUEUE, 5, 0, 0, never) {
            home.remove_id(QUEUE, id, doom).unwrap();
        }
        assert!(home.collect(false).unwrap().iter().all(|finding| finding.removed));
        assert_eq!(files(&home, QUEUE), [""; 0]);
    });
}

#[test]
fn another_users_leftover_is_nobodys_object() {
    isolated(|| {
        let home = shared();
        // A user dies in the middle of removing: marked, and both names are there.
        let dying = as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let id = home.get(QUEUE, 5, IPC_CREAT | 0o666, 0, plain).unwrap();
            let _ = home.remove_id(QUEUE, id, |segment| {
                mark_removed(segment);
                common::signal_self(libc::SIGKILL);
                Ok(())
            });
        });
        dying.wait();
        assert_eq!(files(&home, QUEUE).len(), 2);
        as_user(1002, 1002, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            assert_eq!(home.list(QUEUE).unwrap(), []);
            // Not this user's to take away: it is told, and nothing is done to the names.
            assert_eq!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain), Err(Errno::PERM));
            let findings = home.collect(false).unwrap();
            assert!(!findings.is_empty() && findings.iter().all(|finding| !finding.removed), "{findings:?}");
        })
        .assert_ok();
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
        })
        .assert_ok();
        assert_eq!(files(&home, QUEUE).len(), 2);
    });
}

#[test]
fn killed_anywhere_in_making_a_private_namespace_the_next_sweeps_it() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let left = || std::fs::read_dir("/dev/shm/ginnel-0").map_or(0, |entries| entries.count());
        let mut swept = 0;
        let kills = kill_everywhere(
            || {
                let home = Namespace::private().unwrap();
                home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
            },
            |at| {
                swept += left();
                let home = Namespace::private().unwrap();
                assert_eq!(left(), 1, "killed at {at}: only the new one");
                assert!(home.get(QUEUE, 5, NEW | 0o600, 0, plain).is_ok());
                drop(home);
                assert_eq!(left(), 0, "killed at {at}");
            },
        );
        println!("{kills} kills, {swept} swept");
        crate::common::crash("registry: private namespace (by system call)");
        assert!(kills > 60 && swept > 30);
    });
}

#[test]
fn killed_anywhere_in_making_a_named_namespace_the_next_makes_it() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let options = Namespace::options().create(true).mode(0o1777);
        let kills = kill_everywhere(
            || drop(options.open("/dev/shm/everybody").unwrap()),
            |at| {
                let home = options.open("/dev/shm/everybody").unwrap();
                home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                for directory in Kind::ALL.map(|kind| home.path().join(kind.directory())) {
                    assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o1777, "killed at {at}");
                }
                std::fs::remove_dir_all(home.path()).unwrap();
            },
        );
        println!("{kills} kills");
        crate::common::crash("registry: named namespace (by system call)");
        assert!(kills > 40);
    });
}
