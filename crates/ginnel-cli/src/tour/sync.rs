//! The tour's rows of the sync family: semaphores hand a turn to and fro, locks guard a counter.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ginnel::sync::record_lock::{LockKind, Owner, RecordLocks};
use ginnel::sync::{Flock, PosixSemaphore, Semaphore, SysvSemaphores, UnnamedSemaphore};
use ginnel::sysv::Key;
use ginnel::{Deadline, Endpoint};

use super::peer::{Forked, Peer, announce};
use super::work::{Measured, operations_per_s, time_trips};
use super::{
    Direction, Family, Passes, Processes, Row, RowError, RowResult, Run, ensure, no_peer, refused, words,
};
use crate::home;

const BASE: Row = Row {
    name: "",
    family: Family::Sync,
    passes: Passes::Permission,
    direction: Direction::BothWays,
    processes: Processes::Unrelated,
    name_space: "path",
    run: |_| Err(RowError::Failed("a row without work".into())),
    peer: no_peer,
};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "System V semaphore set", name_space: "System V key", run: sysv, peer: sysv_peer, ..BASE },
    Row { name: "POSIX named semaphore", name_space: "/name", run: named, peer: named_peer, ..BASE },
    Row {
        name: "POSIX unnamed semaphore",
        name_space: "inherited by fork",
        processes: Processes::Related,
        run: unnamed,
        ..BASE
    },
    Row { name: "fcntl record lock", run: fcntl, peer: fcntl_peer, ..BASE },
    Row { name: "open-file-description lock", run: ofd, peer: ofd_peer, ..BASE },
    Row { name: "flock", run: flock, peer: flock_peer, ..BASE },
];

/// The turn of the peer, the turn of the runner, and one for the runner alone.
const SET: [u16; 3] = [0, 0, 0];

fn sysv(run: &mut Run) -> RowResult<Measured> {
    let key = run.sysv_key(|name| Endpoint::SysvSemaphore(name, None))?;
    let options = SysvSemaphores::options().namespace(home::current()).create_new(true);
    let set = options.open_with(key, &SET, Deadline::NEVER).map_err(refused)?;
    let peer = Peer::unrelated(run.row, &[key.to_string()])?;
    ensure_no_turn(set.try_wait(1))?;
    let round_trip = time_trips(|_| {
        set.post(0)?;
        set.wait(1)?;
        Ok(())
    })?;
    ensure(set.values()? == SET, "a turn was lost or doubled")?;
    ensure_no_turn(set.try_wait(1))?;
    ensure(set.last_pid(1)? == std::process::id() as i32, "somebody else took the runner's turn")?;
    let throughput = operations_per_s(64, || {
        set.post(2)?;
        Ok(set.wait(2)?)
    })?;
    set.remove()?;
    peer.finish()?;
    Ok(handed_over(round_trip, throughput))
}

/// Answers each turn until the set is removed.
fn sysv_peer(peer_words: &[String]) -> RowResult<()> {
    let [key] = words(peer_words)?;
    let set = SysvSemaphores::open_in(home::current(), key.parse::<Key>()?)?;
    loop {
        match set.wait(0).and_then(|()| set.post(1)) {
            Err(error) if error.is_removed() => return Ok(()),
            other => other?,
        }
    }
}

/// A semaphore that lets everybody through would hand over turns as well.
fn ensure_no_turn(taken: ginnel::Result<()>) -> RowResult<()> {
    match taken {
        Err(error) if error.is_would_block() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(RowError::Failed("a turn was to be had that nobody had given".into())),
    }
}

fn handed_over(round_trip: super::work::RoundTrip, throughput: super::work::Throughput) -> Measured {
    let checked = format!("{} turns handed over each way, none lost or doubled", round_trip.count);
    Measured { checked, round_trip: Some(round_trip), throughput: Some(throughput) }
}

/// Both POSIX kinds, from the runner's side.
fn hand_over(to: &Semaphore, from: &Semaphore) -> RowResult<Measured> {
    ensure_no_turn(from.try_wait())?;
    let round_trip = time_trips(|_| {
        to.post()?;
        Ok(from.wait()?)
    })?;
    ensure((to.value()?, from.value()?) == (0, 0), "a turn was lost or doubled")?;
    ensure_no_turn(from.try_wait())?;
    let throughput = operations_per_s(64, || {
        from.post()?;
        Ok(from.wait()?)
    })?;
    Ok(handed_over(round_trip, throughput))
}

/// Both POSIX kinds, from the peer's side; the runner ends it.
fn answer_turns(to: &Semaphore, from: &Semaphore) -> RowResult<()> {
    loop {
        from.wait()?;
        to.post()?;
    }
}

fn named(run: &mut Run) -> RowResult<Measured> {
    let names = [run.posix_name(Endpoint::PosixSemaphore)?, run.posix_name(Endpoint::PosixSemaphore)?];
    let make = |name: &String| {
        PosixSemaphore::options().namespace(home::current()).create_new(true).open(name).map_err(refused)
    };
    let (to, from) = (make(&names[0])?, make(&names[1])?);
    let _peer = Peer::unrelated(run.row, &names)?;
    let measured = hand_over(&to, &from)?;
    names.iter().try_for_each(|name| PosixSemaphore::remove_in(home::current(), name))?;
    Ok(measured)
}

fn named_peer(peer_words: &[String]) -> RowResult<()> {
    let [from, to] = words(peer_words)?;
    let (to, from) =
        (PosixSemaphore::open_in(home::current(), to)?, PosixSemaphore::open_in(home::current(), from)?);
    answer_turns(&to, &from)
}

fn unnamed(_: &mut Run) -> RowResult<Measured> {
    let (to, from) = (UnnamedSemaphore::anonymous(0)?, UnnamedSemaphore::anonymous(0)?);
    let _child = Forked::start(|| answer_turns(&from, &to))?;
    hand_over(&to, &from)
}

/// A file with two numbers, which only the holder of its lock reads and writes: a count, and whether to stop.
struct Counter {
    file: File,
}

impl Counter {
    fn create(path: &Path) -> RowResult<Counter> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(16)?;
        Ok(Counter { file })
    }

    fn get(&self, place: u64) -> RowResult<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, place * 8)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn set(&self, place: u64, value: u64) -> RowResult<()> {
        Ok(self.file.write_all_at(&value.to_le_bytes(), place * 8)?)
    }
}

const COUNT: u64 = 0;
const STOP: u64 = 1;

/// The lock of a row: runs what it is given while it holds it.
type Locked<'a> = &'a dyn Fn(&mut dyn FnMut() -> RowResult<()>) -> RowResult<()>;

/// Two processes count under the lock for as long as the budget lasts; no count may be missing.
fn count_together(run: &Run, path: &Path, locked: Locked<'_>) -> RowResult<Measured> {
    let counter = Counter::create(&path.with_extension("counter"))?;
    let peer = Peer::announced(run.row, &mut Peer::command(run.row, &[path.display().to_string()])?)?;
    let round_trip = time_trips(|_| locked(&mut || counter.set(COUNT, counter.get(COUNT)? + 1)))?;
    ensure_exclusive(&counter, round_trip.count, locked)?;
    locked(&mut || counter.set(STOP, 1))?;
    peer.finish()?;
    let (total, of_peer) = (counter.get(COUNT)?, counter.get(STOP)? - 1);
    ensure(
        total == round_trip.count + of_peer,
        format!("{} and {of_peer} counts made {total}", round_trip.count),
    )?;
    let throughput = operations_per_s(64, || locked(&mut || Ok(())))?;
    let checked = format!("a counter raised {total} times by two processes, none lost");
    Ok(Measured { checked, round_trip: Some(round_trip), throughput: Some(throughput) })
}

/// How long the lock is held, to see whether the other process is kept out.
const HOLD: Duration = Duration::from_millis(5);

/// While the lock is held here the other process, which counts whenever it can, does not; when it is free, it does.
fn ensure_exclusive(counter: &Counter, own: u64, locked: Locked<'_>) -> RowResult<()> {
    locked(&mut || {
        let before = counter.get(COUNT)?;
        std::thread::sleep(HOLD);
        ensure(counter.get(COUNT)? == before, "the other process counted while the lock was held here")
    })?;
    loop {
        let mut total = 0;
        locked(&mut || {
            total = counter.get(COUNT)?;
            Ok(())
        })?;
        if total > own {
            return Ok(());
        }
        std::thread::sleep(HOLD);
    }
}

/// Counts until told to stop, and leaves behind how often, plus 1, in the place of the word to stop.
fn count_along(path: &Path, locked: Locked<'_>) -> RowResult<()> {
    let counter = Counter::create(&path.with_extension("counter"))?;
    announce()?;
    let (mut own, mut stop) = (0, false);
    while !stop {
        locked(&mut || {
            stop = counter.get(STOP)? != 0;
            if stop {
                return counter.set(STOP, own + 1);
            }
            own += 1;
            counter.set(COUNT, counter.get(COUNT)? + 1)
        })?;
    }
    Ok(())
}

fn with_record_lock<T>(
    path: &Path,
    owner: Owner,
    work: impl FnOnce(Locked<'_>) -> RowResult<T>,
) -> RowResult<T> {
    let locks = RecordLocks::options().create(true).owner(owner).open(path)?;
    work(&|body| {
        let guard = locks.lock(.., LockKind::Exclusive)?;
        body()?;
        Ok(guard.unlock()?)
    })
}

fn with_flock<T>(path: &Path, work: impl FnOnce(Locked<'_>) -> RowResult<T>) -> RowResult<T> {
    let lock = Flock::create(path)?;
    work(&|body| {
        let guard = lock.lock(LockKind::Exclusive)?;
        body()?;
        Ok(guard.unlock()?)
    })
}

fn lock_path(run: &mut Run) -> RowResult<PathBuf> {
    Ok(run.directory()?.join("lock"))
}

fn fcntl(run: &mut Run) -> RowResult<Measured> {
    let path = lock_path(run)?;
    with_record_lock(&path, Owner::Process, |locked| count_together(run, &path, locked))
}

fn fcntl_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    with_record_lock(path.as_ref(), Owner::Process, |locked| count_along(path.as_ref(), locked))
}

fn ofd(run: &mut Run) -> RowResult<Measured> {
    let path = lock_path(run)?;
    with_record_lock(&path, Owner::OpenFile, |locked| count_together(run, &path, locked))
}

fn ofd_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    with_record_lock(path.as_ref(), Owner::OpenFile, |locked| count_along(path.as_ref(), locked))
}

fn flock(run: &mut Run) -> RowResult<Measured> {
    let path = lock_path(run)?;
    with_flock(&path, |locked| count_together(run, &path, locked))
}

fn flock_peer(peer_words: &[String]) -> RowResult<()> {
    let [path] = words(peer_words)?;
    with_flock(path.as_ref(), |locked| count_along(path.as_ref(), locked))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What `ensure_exclusive` says of a lock, by which another thread counts in the same file.
    fn verdict(lock: impl Fn(&mut dyn FnMut() -> RowResult<()>) -> RowResult<()> + Sync) -> RowResult<()> {
        let path = std::env::temp_dir().join(format!("ginnel-tour-test-{:x}", super::super::random()));
        let (counter, stop) = (Counter::create(&path).unwrap(), AtomicBool::new(false));
        std::fs::remove_file(path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    lock(&mut || counter.set(COUNT, counter.get(COUNT)? + 1)).unwrap();
                }
            });
            let verdict = ensure_exclusive(&counter, 0, &lock);
            stop.store(true, Ordering::Relaxed);
            verdict
        })
    }

    #[test]
    fn a_lock_that_locks_nobody_out_is_found_out() {
        let mutex = Mutex::new(());
        verdict(|body| {
            let _held = mutex.lock().unwrap();
            body()
        })
        .unwrap();
        // On a machine that is busy the other thread may not run while the lock is held; it will at some time.
        assert!((0..1000).any(|_| matches!(verdict(|body| body()), Err(RowError::Failed(_)))));
    }
}
