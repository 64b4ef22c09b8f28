use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::Deadline;
use ginnel::sync::{Flock, LockKind, RecordLocks};
use ginnel_testkit::{c_program, fork, isolated, run_ok, wait_blocked_in};

use crate::{Peer, catch, lock_file};

use LockKind::{Exclusive, Shared};

const SHORT: Duration = Duration::from_millis(20);

fn peer(action: &str, path: &Path, kind: &str) -> Command {
    let mut command = Command::new(c_program!("tests/sync/flock.c"));
    command.arg(action).arg(path).arg(kind);
    command
}

#[test]
fn handles_shut_each_other_out_in_every_form() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let (mine, other) = (Flock::create(&path).unwrap(), Flock::open(&path).unwrap());
        let guard = mine.lock(Exclusive).unwrap();
        let refused = other.try_lock(Shared).unwrap_err();
        assert_eq!((refused.errno_name(), refused.operation()), ("EAGAIN", "flock"));
        let before = Instant::now();
        assert!(other.lock_deadline(Exclusive, SHORT).unwrap_err().is_timed_out());
        assert!(before.elapsed() >= SHORT, "did not return before the deadline");
        drop(guard);

        let first = mine.lock(Shared).unwrap();
        let second = other.lock_deadline(Shared, SHORT).unwrap();
        drop(first);
        assert!(mine.try_lock(Exclusive).unwrap_err().is_would_block());
        second.unlock().unwrap();
        assert_eq!(mine.lock(Exclusive).unwrap().kind(), Exclusive);
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        // A directory, too.
        drop(Flock::open(path.parent().unwrap()).unwrap().lock(Exclusive).unwrap());
        assert!(Flock::open(path.with_extension("none")).unwrap_err().is_not_found());
        // Record locks are another matter.
        let _guard = mine.lock(Exclusive).unwrap();
        drop(RecordLocks::open(&path).unwrap().try_lock(.., Exclusive).unwrap());
    });
}

#[test]
fn waiters_go_on_or_are_interrupted() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        let guard = mine.lock(Exclusive).unwrap();
        for deadline in [Deadline::NEVER, Duration::from_secs(100).into()] {
            let waiter = fork(|| {
                catch(libc::SIGUSR1, 0);
                let other = Flock::open(&path).unwrap();
                assert!(other.lock_deadline(Shared, deadline).unwrap_err().is_interrupted());
                // And can try again.
                assert!(other.try_lock(Shared).unwrap_err().is_would_block());
            });
            wait_blocked_in(waiter.pid(), libc::SYS_flock);
            waiter.signal(libc::SIGUSR1);
            waiter.assert_ok();
        }
        let waiter = fork(|| drop(Flock::open(&path).unwrap().lock(Exclusive).unwrap()));
        wait_blocked_in(waiter.pid(), libc::SYS_flock);
        drop(guard);
        waiter.assert_ok();
    });
}

#[test]
fn one_handle_is_one_owner() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        let guard = mine.lock(Shared).unwrap();
        let refused = mine.lock(Shared).unwrap_err();
        assert!(refused.is_deadlock() && refused.hint().unwrap().contains("this handle"), "{refused}");
        drop(guard);
        drop(mine.lock(Shared).unwrap());
    });
}

#[test]
fn kinds_are_converted() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let (mine, other) = (Flock::open(&path).unwrap(), Flock::open(&path).unwrap());
        let exclusive = mine.lock(Shared).unwrap().upgrade().unwrap();
        assert!(other.try_lock(Shared).is_err());
        let shared = exclusive.downgrade().unwrap();
        assert!(shared.is_held().unwrap() && shared.kind() == Shared);
        let theirs = other.try_lock(Shared).unwrap();
        // The kernel gives the shared lock up first: a conversion that fails has lost it.
        assert!(shared.try_upgrade().unwrap_err().is_would_block());
        assert_eq!(mine.holders().unwrap().len(), 1);
        let shared = mine.lock(Shared).unwrap();
        assert!(shared.upgrade_deadline(SHORT).unwrap_err().is_timed_out());
        drop(theirs.upgrade().unwrap());
    });
}

#[test]
fn holders_are_named() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        assert_eq!(mine.holders().unwrap(), []);
        let me = std::process::id() as i32;
        let _guard = mine.lock(Shared).unwrap();
        let theirs = Peer::holding(&mut peer("hold", &path, "s"));
        let mut pids: Vec<_> = mine.holders().unwrap().into_iter().flat_map(|holder| holder.pids).collect();
        pids.sort_unstable();
        let mut expected = [me, theirs.process.pid()];
        expected.sort_unstable();
        assert_eq!(pids, expected);

        let text = run_ok(Command::new("lslocks").args(["-r", "-n", "-o", "PID,TYPE,MODE,PATH"]));
        for pid in expected {
            let line = format!("{pid} FLOCK READ {}", path.display());
            assert!(text.lines().any(|other| other == line), "{line} is in\n{text}");
        }
    });
}

#[test]
fn a_lock_lives_as_long_as_its_open_file_description() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        let guard = mine.lock(Exclusive).unwrap();
        // A child's copy of the guard unlocks nothing.
        // SAFETY: the copy is dropped once, in a process that ends by _exit.
        fork(|| drop(unsafe { std::ptr::read(&raw const guard) })).assert_ok();
        assert!(guard.is_held().unwrap());
        // The child holds it as well, and goes on when we forget it.
        let child = fork(|| {
            loop {
                std::thread::park();
            }
        });
        let me = std::process::id() as i32;
        assert_eq!(mine.holders().unwrap()[0].pids, [me, child.pid()]);
        std::mem::forget(guard);
        drop(mine);
        let other = Flock::open(&path).unwrap();
        assert!(other.try_lock(Shared).unwrap_err().is_would_block());
        assert_eq!(other.holders().unwrap()[0].pids, [child.pid()]);
        child.kill();
        child.wait();
        drop(other.try_lock(Exclusive).unwrap());

        // A duplicate is the same owner.
        let file = File::open(&path).unwrap();
        let (first, second) =
            (Flock::from_file(file.try_clone().unwrap()).unwrap(), Flock::from_file(file).unwrap());
        let _both = (first.lock(Exclusive).unwrap(), second.try_lock(Exclusive).unwrap());
    });
}

#[test]
fn a_killed_holders_lock_is_gone() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let holder = Peer::holding(&mut peer("hold", &path, "x"));
        let mine = Flock::open(&path).unwrap();
        assert_eq!(mine.holders().unwrap()[0].pids, [holder.process.pid()]);
        holder.process.kill();
        drop(mine.lock_deadline(Exclusive, Duration::from_secs(15)).unwrap());
    });
}

#[test]
fn a_program_in_c_is_the_other_end() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let mine = Flock::open(&path).unwrap();
        let holder = Peer::holding(&mut peer("hold", &path, "x"));
        let waiter = fork(|| drop(Flock::open(&path).unwrap().lock(Shared).unwrap()));
        wait_blocked_in(waiter.pid(), libc::SYS_flock);
        holder.end();
        waiter.assert_ok();

        let guard = mine.lock(Shared).unwrap();
        assert_eq!(run_ok(&mut peer("try", &path, "s")), "free\n");
        assert_eq!(run_ok(&mut peer("try", &path, "x")), "taken\n");
        let mut waiter = Peer::start(&mut peer("hold", &path, "x"));
        wait_blocked_in(waiter.process.pid(), libc::SYS_flock);
        drop(guard);
        assert_eq!(waiter.line(), "held");
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
            let mine = Polled::new(Flock::open(&path).unwrap());
            let other = Polled::new(Flock::open(&path).unwrap());
            let guard = mine.lock(Exclusive).await.unwrap();
            assert!(tokio::time::timeout(SHORT, other.lock(Shared)).await.is_err());
            drop(guard);
            assert_eq!(other.lock(Shared).await.unwrap().kind(), Shared);
        });
    });
}
