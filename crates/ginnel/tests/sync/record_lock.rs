use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::Deadline;
use ginnel::sync::record_lock::{Owner, Range};
use ginnel::sync::{Flock, LockKind, RecordLocks};
use ginnel_testkit::{c_program, fork, isolated, run_ok, unprivileged, wait_blocked_in, wait_until};

use crate::{Peer, catch, lock_file};

use LockKind::{Exclusive, Shared};

const SHORT: Duration = Duration::from_millis(20);
const OWNERS: [Owner; 2] = [Owner::OpenFile, Owner::Process];

fn open(path: &Path, owner: Owner) -> RecordLocks {
    RecordLocks::options().owner(owner).open(path).unwrap()
}

fn range(start: u64, end: u64) -> Range {
    Range { start, end: Some(end) }
}

fn peer(action: &str, owner: Owner, path: &Path, words: [&str; 3]) -> Command {
    let mut command = Command::new(c_program!("tests/sync/record_lock.c"));
    let owner = if owner == Owner::OpenFile { "ofd" } else { "posix" };
    command.args([action, owner]).arg(path).args(words);
    command
}

/// What `lslocks` says of this file: type, mode, start, end.
fn lslocks(path: &Path, pid: i32) -> Vec<String> {
    let text = run_ok(Command::new("lslocks").args(["-r", "-n", "-u", "-o", "PID,TYPE,MODE,START,END,PATH"]));
    let prefix = format!("{pid} ");
    let file = format!(" {}", path.display());
    text.lines()
        .filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix(&file))
        .map(str::to_owned)
        .collect()
}

#[test]
fn ranges_conflict_as_they_overlap_and_kinds_as_they_must() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let mine = open(&path, owner);
            let _shared = mine.lock(0..100, Shared).unwrap();
            let _exclusive = mine.lock(100..=199, Exclusive).unwrap();
            let _tail = mine.lock(300.., Exclusive).unwrap();
            fork(|| {
                for other in OWNERS {
                    let other = open(&path, other);
                    drop(other.try_lock(0..100, Shared).unwrap());
                    drop(other.try_lock(200..300, Exclusive).unwrap());
                    for (range, kind) in [
                        (range(0, 1), Exclusive),
                        (range(99, 100), Exclusive),
                        (range(100, 101), Shared),
                        (range(199, 250), Shared),
                        (range(250, 301), Shared),
                        (range(1 << 40, (1 << 40) + 1), Shared),
                        (Range { start: 0, end: None }, Shared),
                    ] {
                        let refused = other.try_lock(range, kind).unwrap_err();
                        assert_eq!(refused.errno_name(), "EAGAIN", "{range} {kind:?}");
                    }
                }
            })
            .assert_ok();
        }
    });
}

#[test]
fn every_form_waits_as_it_must() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let mine = open(&path, owner);
            let guard = mine.lock(.., Exclusive).unwrap();
            fork(|| {
                let other = open(&path, owner);
                let before = Instant::now();
                let late = other.lock_deadline(5..6, Shared, SHORT).unwrap_err();
                assert!(before.elapsed() >= SHORT, "did not return before the deadline");
                assert_eq!((late.errno_name(), late.operation()), ("ETIMEDOUT", "fcntl"));
                assert_eq!(late.object(), format!("lock:{}", path.display()));
                let passed = Instant::now() - SHORT;
                assert!(other.lock_deadline(5..6, Shared, passed).unwrap_err().is_timed_out());
            })
            .assert_ok();
            for deadline in [Deadline::NEVER, Duration::from_secs(100).into()] {
                let waiter = fork(|| {
                    catch(libc::SIGUSR1, 0);
                    let other = open(&path, owner);
                    assert!(other.lock_deadline(.., Shared, deadline).unwrap_err().is_interrupted());
                });
                wait_blocked_in(waiter.pid(), libc::SYS_fcntl);
                waiter.signal(libc::SIGUSR1);
                waiter.assert_ok();
            }
            let waiter = fork(|| {
                drop(open(&path, owner).lock_deadline(.., Exclusive, Duration::from_secs(100)).unwrap());
                drop(open(&path, owner).lock(.., Exclusive).unwrap());
            });
            wait_blocked_in(waiter.pid(), libc::SYS_fcntl);
            guard.unlock().unwrap();
            waiter.assert_ok();
        }
    });
}

#[test]
fn a_killed_holders_locks_are_gone() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let holder = fork(|| {
                let locks = open(&path, owner);
                let _guard = locks.lock(.., Exclusive).unwrap();
                loop {
                    std::thread::park();
                }
            });
            let mine = open(&path, owner);
            wait_until("it holds the lock", || mine.holder(.., Shared).unwrap().is_some());
            holder.kill();
            drop(mine.lock_deadline(.., Exclusive, Duration::from_secs(15)).unwrap());
        }
    });
}

#[test]
fn the_holder_is_named_whoever_owns_the_lock() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let elsewhere = Peer::holding(&mut peer("hold", Owner::OpenFile, &path, ["w", "50", "20"]));
        for owner in OWNERS {
            let peer = Peer::holding(&mut peer("hold", owner, &path, ["w", "10", "20"]));
            for asker in OWNERS {
                let mine = open(&path, asker);
                assert_eq!(mine.holder(..10, Exclusive).unwrap(), None);
                let holder = mine.holder(..40, Shared).unwrap().unwrap();
                assert_eq!(
                    (holder.pids, holder.range, holder.kind),
                    (vec![peer.process.pid()], range(10, 30), Exclusive)
                );
            }
            peer.process.kill();
            peer.process.wait();
        }
        // Two processes with one open file description.
        let mine = open(&path, Owner::OpenFile);
        drop(elsewhere);
        let _guard = mine.lock(4.., Shared).unwrap();
        let child = fork(|| {
            loop {
                std::thread::park();
            }
        });
        let holder = open(&path, Owner::Process).holder(.., Exclusive).unwrap().unwrap();
        assert_eq!(holder.pids, [std::process::id() as i32, child.pid()]);
        assert_eq!((holder.range, holder.kind), (Range { start: 4, end: None }, Shared));
    });
}

#[test]
fn an_owner_that_the_caller_may_not_look_at_is_not_named() {
    isolated(|| {
        let directory = ginnel_testkit::temp_dir();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.path().join("data");
        let mine = RecordLocks::options().create(true).mode(0o666).open(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let _guard = mine.lock(.., Exclusive).unwrap();
        unprivileged(|| {
            // Its own copy of the descriptor would tell it.
            drop(copy_of(mine.as_fd().as_raw_fd()));
            let holder = RecordLocks::open(&path).unwrap().holder(.., Shared).unwrap().unwrap();
            assert_eq!(holder.pids, []);
        })
        .assert_ok();
    });
}

fn copy_of(fd: i32) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: in a forked child that ends by _exit: nobody else closes its copy.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
}

#[test]
fn a_circle_of_waiters_is_refused() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = open(&path, Owner::Process);
        let _first = mine.lock(0..1, Exclusive).unwrap();
        let other = fork(|| {
            let other = open(&path, Owner::Process);
            let _second = other.lock(1..2, Exclusive).unwrap();
            drop(other.lock(0..1, Exclusive).unwrap());
        });
        wait_blocked_in(other.pid(), libc::SYS_fcntl);
        for refused in
            [mine.lock(1..2, Exclusive), mine.lock_deadline(1..2, Shared, Duration::from_secs(100))]
        {
            let refused = refused.unwrap_err();
            assert!(refused.is_deadlock(), "{refused}");
            assert!(refused.hint().unwrap().contains("one order"), "{refused}");
        }
        drop(_first);
        other.assert_ok();
    });
}

#[test]
fn what_the_same_owner_holds_already_is_refused() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let mine = open(&path, owner);
            let guard = mine.lock(10..20, Shared).unwrap();
            for overlapping in [range(0, 11), range(19, 30), range(12, 13), Range { start: 0, end: None }] {
                let refused = mine.try_lock(overlapping, Shared).unwrap_err();
                assert!(refused.is_deadlock(), "{refused}");
                assert!(refused.hint().unwrap().contains("10..20 itself"), "{refused}");
            }
            drop(mine.lock(..10, Exclusive).unwrap());
            drop(mine.lock(20.., Exclusive).unwrap());
            let second = open(&path, owner);
            // Another handle is another owner, or the same process.
            assert_eq!(second.try_lock(10..20, Shared).is_ok(), owner == Owner::OpenFile);
            drop(guard);
            drop(second.lock(10..20, Exclusive).unwrap());
        }
        // A thread that waits is in the way of others with the same handle, until it is through.
        let (mine, other) = (open(&path, Owner::OpenFile), open(&path, Owner::OpenFile));
        let guard = other.lock(.., Exclusive).unwrap();
        let waits = std::thread::scope(|scope| {
            let waits = scope.spawn(|| mine.lock(0..5, Exclusive).map(drop));
            wait_until("one waits", || mine.try_lock(0..5, Shared).unwrap_err().is_deadlock());
            drop(guard);
            waits.join().unwrap()
        });
        waits.unwrap();
        drop(mine.lock(0..5, Exclusive).unwrap());
    });
}

#[test]
fn locks_are_upgraded_and_downgraded_in_place() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let locks = open(&path, owner);
            let mut guard = locks.lock(0..10, Shared).unwrap();
            let pid = std::process::id() as i32;
            guard.upgrade().unwrap();
            assert_eq!((guard.kind(), guard.range()), (Exclusive, range(0, 10)));
            assert!(guard.is_held().unwrap());
            fork(|| assert!(open(&path, owner).try_lock(0..1, Shared).is_err())).assert_ok();
            guard.downgrade().unwrap();

            let (reader, writer) = std::io::pipe().unwrap();
            let other = fork(|| {
                let other = open(&path, owner);
                let _guard = other.lock(5..6, Shared).unwrap();
                std::io::Read::read(&mut &reader, &mut [0]).unwrap();
            });
            wait_blocked_in(other.pid(), libc::SYS_read);
            assert!(guard.try_upgrade().unwrap_err().is_would_block());
            assert!(guard.upgrade_deadline(SHORT).unwrap_err().is_timed_out());
            assert!(guard.is_held().unwrap() && guard.kind() == Shared, "still shared");
            std::io::Write::write_all(&mut &writer, b"x").unwrap();
            guard.upgrade_deadline(Duration::from_secs(15)).unwrap();
            other.assert_ok();
            if owner == Owner::Process {
                assert_eq!(lslocks(&path, pid), ["POSIX WRITE 0 9"]);
            }
        }
    });
}

#[test]
fn wrong_ranges_and_wrong_descriptors_are_refused_with_a_hint() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = open(&path, Owner::OpenFile);
        #[allow(clippy::reversed_empty_ranges)]
        for empty in [range(5, 5), range(7, 3), range(u64::MAX - 1, u64::MAX), range(0, 1 << 63 | 1)] {
            let refused = mine.lock(empty, Shared).unwrap_err();
            assert_eq!(refused.errno_name(), "EINVAL", "{empty}");
            assert!(refused.hint().unwrap().contains("not empty"));
        }
        assert_eq!(mine.lock(..=u64::MAX, Shared).unwrap_err().errno_name(), "EINVAL");
        // The last byte that there is.
        let last = i64::MAX as u64;
        let guard = mine.lock(last..=last, Exclusive).unwrap();
        assert_eq!(guard.range(), Range { start: last, end: None });
        assert!(mine.try_lock(last.., Exclusive).unwrap_err().is_deadlock());
        drop(guard);

        for owner in OWNERS {
            let reader = RecordLocks::options().owner(owner).write(false).open(&path).unwrap();
            let refused = reader.lock(.., Exclusive).unwrap_err();
            assert_eq!(refused.errno_name(), "EBADF");
            assert!(refused.hint().unwrap().contains("writing"), "{refused}");
            let mut shared = reader.lock(.., Shared).unwrap();
            assert_eq!(shared.upgrade().unwrap_err().errno_name(), "EBADF");
            drop(shared);
            let writer = RecordLocks::options().owner(owner).read(false).open(&path).unwrap();
            assert!(writer.lock(.., Shared).unwrap_err().hint().unwrap().contains("reading"));
            drop(writer.lock(.., Exclusive).unwrap());
        }
        assert!(RecordLocks::open(path.with_extension("none")).unwrap_err().is_not_found());
        let new = RecordLocks::options().create_new(true);
        assert!(new.open(&path).unwrap_err().is_already_exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
    });
}

#[test]
fn closing_a_handle_does_not_release_what_the_process_holds() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = open(&path, Owner::Process);
        let guard = mine.lock(0..10, Exclusive).unwrap();
        let open_files = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == path)).count()
        };
        for owner in OWNERS {
            drop(open(&path, owner));
        }
        drop(Flock::open(&path).unwrap());
        assert!(guard.is_held().unwrap());
        assert_eq!(lslocks(&path, std::process::id() as i32), ["POSIX WRITE 0 9"]);
        assert_eq!(open_files(), 4);

        // Somebody who knows nothing of it.
        drop(File::open(&path).unwrap());
        assert!(!guard.is_held().unwrap(), "the trap of close");
        drop(guard);
        assert_eq!(open_files(), 1, "what was kept open is closed with the last lock");
        drop(mine);
        assert_eq!(open_files(), 0);
    });
}

#[test]
fn a_forked_copy_of_a_guard_unlocks_nothing() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for owner in OWNERS {
            let mine = open(&path, owner);
            let mut guard = mine.lock(.., Exclusive).unwrap();
            fork(|| {
                assert_eq!(guard.downgrade().unwrap_err().errno_name(), "EPERM");
                assert!(!guard.is_held().unwrap());
                // SAFETY: the copy is dropped once, in a process that ends by _exit.
                drop(unsafe { std::ptr::read(&raw const guard) });
                if owner == Owner::Process {
                    // The child is another owner, and its registry is empty.
                    assert!(mine.try_lock(.., Shared).unwrap_err().is_would_block());
                }
            })
            .assert_ok();
            assert!(guard.is_held().unwrap());
            assert!(open(&path, Owner::OpenFile).try_lock(.., Shared).is_err());
        }
    });
}

#[test]
fn a_program_in_c_is_the_other_end() {
    isolated(|| {
        let (_directory, path) = lock_file();
        for (ours, theirs) in OWNERS.into_iter().flat_map(|ours| OWNERS.map(|theirs| (ours, theirs))) {
            let mine = open(&path, ours);
            // It holds, we wait.
            let holder = Peer::holding(&mut peer("hold", theirs, &path, ["r", "0", "0"]));
            assert!(mine.try_lock(7..8, Exclusive).unwrap_err().is_would_block());
            let waiter = fork(|| drop(open(&path, ours).lock(7..8, Exclusive).unwrap()));
            wait_blocked_in(waiter.pid(), libc::SYS_fcntl);
            drop(mine.lock(.., Shared).unwrap());
            holder.end();
            waiter.assert_ok();

            // We hold: it sees who, and waits.
            let guard = mine.lock(5..15, Exclusive).unwrap();
            let pid = if ours == Owner::OpenFile { -1 } else { std::process::id() as i32 };
            let seen = run_ok(&mut peer("who", theirs, &path, ["r", "0", "100"]));
            assert_eq!(seen, format!("{pid} w 5 10\n"));
            let mut holder = Peer::start(&mut peer("hold", theirs, &path, ["w", "0", "0"]));
            wait_blocked_in(holder.process.pid(), libc::SYS_fcntl);
            drop(guard);
            assert_eq!(holder.line(), "held");
            holder.end();
            assert_eq!(run_ok(&mut peer("who", theirs, &path, ["w", "0", "0"])), "free\n");
        }
    });
}

#[test]
fn no_descriptor_survives_exec() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = open(&path, Owner::OpenFile);
        let _guard = mine.lock(.., Exclusive).unwrap();
        let seen = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!seen.contains("data"), "{seen}");
    });
}

#[test]
fn many_counters_in_one_file_are_never_updated_at_the_same_time() {
    isolated(|| {
        use std::os::unix::fs::FileExt;
        let (_directory, path) = lock_file();
        std::fs::write(&path, [0; 16]).unwrap();
        for owner in OWNERS {
            let children: Vec<_> = (0..4)
                .map(|_| {
                    fork(|| {
                        let file = File::options().read(true).write(true).open(&path).unwrap();
                        let locks = open(&path, owner);
                        for round in 0..100 {
                            let at = round % 2 * 8;
                            let _guard = locks.lock(at..at + 8, Exclusive).unwrap();
                            let mut bytes = [0; 8];
                            file.read_exact_at(&mut bytes, at).unwrap();
                            let next = u64::from_ne_bytes(bytes) + 1;
                            file.write_all_at(&next.to_ne_bytes(), at).unwrap();
                        }
                        std::mem::forget(file);
                    })
                })
                .collect();
            children.into_iter().for_each(|child| child.assert_ok());
        }
        let counters = std::fs::read(&path).unwrap();
        assert_eq!(counters, [400u64, 400].map(u64::to_ne_bytes).concat());
    });
}

#[cfg(feature = "tokio")]
#[test]
fn async_forms_wait() {
    use ginnel::tokio::Polled;
    isolated(|| {
        let (_directory, path) = lock_file();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mine = Polled::new(open(&path, Owner::OpenFile));
            let other = Polled::new(open(&path, Owner::OpenFile));
            let guard = mine.lock(0..5, Exclusive).await.unwrap();
            assert!(tokio::time::timeout(SHORT, other.lock(.., Shared)).await.is_err());
            let (waited, ()) = tokio::join!(other.lock(.., Shared), async {
                tokio::task::yield_now().await;
                drop(guard);
            });
            assert_eq!(waited.unwrap().kind(), Shared);
        });
    });
}
