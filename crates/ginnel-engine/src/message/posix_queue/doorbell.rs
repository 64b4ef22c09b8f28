//! A queue's descriptor for `poll(2)`, `select(2)` and `epoll(7)`: a FIFO that is kept as full as the queue.
//!
//! # How it works inside
//! The FIFO has two slots of a packet each. No packet: writable, like an empty queue; one: readable and writable; two:
//! readable, like a full queue. It is kept in step only while somebody *polls*, that is, has it open for reading:
//! `polled` says so, and is cleared by who finds nobody there (opening a FIFO for writing only fails then).
//!
//! Setting it takes system calls, so it is done without the lock. Who changes what the FIFO must show sets `out_of_step`
//! in the same transaction, and afterwards sees to it: becomes the *ringer* (a word of its own, changed with the lock
//! only), sets the FIFO, looks again with the lock, and goes on until what it has set is what there is; then it clears
//! both words in one transaction. Who finds a ringer at work leaves it to that one, which will look again after the
//! change. Only who polls the queue itself waits for a ringer, and only for one that is running: to be told of a message
//! that it has just taken would have it block. Nobody waits for one that was stopped.
//!
//! # Crash points
//! | killed | what is left |
//! | --- | --- |
//! | before its change is committed | undone |
//! | after that, before or while it rings | `out_of_step`, perhaps with a dead ringer: the next operation rings |
//! | after it has set the FIFO, before it says so | as above: it is found right |
//!
//! So a poller may learn late of what was changed by somebody who was killed at that moment: with the next operation of
//! anybody's on the queue. What is not told late is never forgotten.
//!
//! # Differences from the kernel's queue
//! An edge-triggered epoll hears of a queue that has become readable or writable, and not of each further message.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use super::store::{BELL_NAME, MORE_WORDS, OUT_OF_STEP, POLLED};
use super::{Call, PosixQueue, after_grace};
use crate::descriptor::Kept;
use crate::lock::Guard;
use crate::namespace::{BELLS, Namespace};
use crate::primitive::{Ordering, Thread, thread_exists};
use crate::process::is_stopped;
use crate::segment::Segment;
use crate::{Errno, Result};

const RINGER: usize = MORE_WORDS;

/// Two slots: a packet takes a page.
const FIFO_BYTES: usize = 2 * 4096;
/// How often the queue may have changed while a ringer rings: then it is left to the next one.
const CHANGES_SEEN_MAX: u32 = 1000;

/// The FIFO, not yet opened for reading or writing: that would count as polling.
#[derive(Debug)]
pub(super) struct Doorbell {
    place: Kept,
    polling: OnceLock<Kept>,
}

/// The FIFO's name in the namespace. Of which queue it is shows in the number of the queue's file, which nobody can choose:
/// so no queue can lead to the FIFO of another.
#[derive(Debug)]
pub(super) struct BellName(CString);

impl BellName {
    pub(super) fn of(segment: &Segment) -> Result<BellName> {
        let status = rustix::fs::fstat(segment.file()?)?;
        let number = segment.word64(BELL_NAME)?.load(Ordering::Relaxed);
        let name = format!("{BELLS}/{:016x}.{number:016x}", status.st_ino);
        Ok(BellName(CString::new(name).map_err(|_| Errno::INVAL)?))
    }

    pub(super) fn remove(&self, home: &Namespace) {
        if let Ok(root) = home.root() {
            let _ = rustix::fs::unlinkat(root, &self.0, AtFlags::empty());
        }
    }
}

/// The FIFOs of a namespace, and the number of the file of each one's queue. Whoever opens a queue whose FIFO is not there
/// makes it again.
pub(crate) fn bells(home: &Namespace) -> Result<Vec<(String, u64)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(home.root()?, BELLS, flags, Mode::empty())?;
    let mut bells = Vec::new();
    for entry in Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_str().ok();
        bells.extend(name.and_then(|name| Some((name.to_owned(), queue_of(name)?))));
    }
    Ok(bells)
}

/// The number of the file whose FIFO has this name.
fn queue_of(name: &str) -> Option<u64> {
    let (file, number) = name.split_once('.')?;
    u64::from_str_radix(number, 16).ok()?;
    u64::from_str_radix(file, 16).ok()
}

impl Doorbell {
    /// Makes the FIFO of a queue.
    pub(super) fn make(home: &Namespace, segment: &Segment) -> Result<BellName> {
        let name = BellName::of(segment)?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(segment.file()?)?.st_mode & 0o777);
        rustix::fs::mknodat(home.root()?, &name.0, FileType::Fifo, mode, 0)?;
        Ok(name)
    }

    /// Opens the FIFO of a queue; makes it again if it is not there.
    ///
    /// # Errors
    /// `ENOENT`: the queue has just been unlinked.
    pub(super) fn open(home: &Namespace, segment: &Segment) -> Result<Doorbell> {
        let name = BellName::of(segment)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut place = rustix::fs::openat(home.root()?, &name.0, flags, Mode::empty());
        if matches!(place, Err(Errno::NOENT)) {
            match Doorbell::make(home, segment) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            if rustix::fs::fstat(segment.file()?)?.st_nlink == 0 {
                name.remove(home);
                return Err(Errno::NOENT);
            }
            place = rustix::fs::openat(home.root()?, &name.0, flags, Mode::empty());
        }
        let place = place?;
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Fifo {
            return Err(Errno::UCLEAN);
        }
        Ok(Doorbell { place: Kept::new(place), polling: OnceLock::new() })
    }

    fn reopen(&self, access: OFlags) -> Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        rustix::fs::openat(CWD, path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
    }

    fn open_both(&self) -> Result<OwnedFd> {
        let fifo = self.reopen(OFlags::RDWR)?;
        if rustix::pipe::fcntl_getpipe_size(&fifo)? != FIFO_BYTES {
            rustix::pipe::fcntl_setpipe_size(&fifo, FIFO_BYTES)?;
        }
        // `open` refuses it for a FIFO.
        rustix::fs::fcntl_setfl(&fifo, OFlags::DIRECT | OFlags::NONBLOCK)?;
        Ok(fifo)
    }

    /// Whether anybody has it open for reading.
    fn has_pollers(&self) -> Result<bool> {
        match self.reopen(OFlags::WRONLY) {
            Ok(_) => Ok(true),
            Err(Errno::NXIO) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Puts as many packets into it.
    fn set(&self, packets: u64) -> Result<()> {
        let opened;
        let fifo = match self.polling.get() {
            Some(fifo) => fifo.as_fd(),
            None => {
                opened = self.open_both()?;
                opened.as_fd()
            }
        };
        let mut there = rustix::io::ioctl_fionread(fifo)?;
        while there > packets {
            match rustix::io::read(fifo, &mut [0; 1]) {
                Err(Errno::INTR) => continue,
                // A user of the descriptor has read it.
                Err(Errno::AGAIN) => there = 0,
                outcome => there -= outcome.map(|_| 1)?,
            }
        }
        while there < packets {
            match rustix::io::write(fifo, &[0]) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                outcome => there += outcome.map(|_| 1)?,
            }
        }
        Ok(())
    }
}

/// What the FIFO is to show: how many packets.
#[inline]
fn packets(count: u32, messages_max: u32) -> u64 {
    if count == 0 { 0 } else { 1 + u64::from(count >= messages_max) }
}

impl PosixQueue {
    /// The queue's descriptor for `poll(2)`: readable while it holds a message, writable while it has room. Not to be
    /// read or written. It is open for as long as the queue; from now on all who change the queue keep it in step.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`. `EACCES`: its mode does not grant it. `EUCLEAN`.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        let bell = &self.bell;
        if bell.polling.get().is_none() {
            let fifo = bell.open_both()?;
            let _ = bell.polling.set(Kept::new(fifo));
        }
        let call = Call::of(self);
        let waiters = call.waiters();
        let mut guard = waiters.enter(None)?;
        let marked = (|| {
            let polled = guard.get(POLLED)?;
            guard.set(POLLED, (polled | 1).wrapping_add(2))?;
            guard.set(OUT_OF_STEP, 1)
        })();
        if marked.is_ok() {
            guard.checkpoint();
        }
        waiters.leave(guard);
        marked?;
        self.ring()?;
        bell.polling.get().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// A descriptor that is open for as long as the queue and can do nothing; `poll(2)` says `POLLNVAL` of it, `epoll_ctl(2)`
    /// `EBADF`. For who has to give a descriptor where [`PosixQueue::descriptor`] has failed.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.bell.place.as_fd()
    }

    /// In the transaction that changes how many messages there are.
    #[inline]
    pub(super) fn count_changes(&self, guard: &mut Guard<'_>, old: u32, new: u32) -> Result<()> {
        if guard.get(POLLED)? & 1 == 0 {
            return Ok(());
        }
        let max = self.geometry.messages_max;
        if packets(old, max) != packets(new, max) { guard.set(OUT_OF_STEP, 1) } else { Ok(()) }
    }

    /// Without the lock: has the FIFO in step, or leaves it to who is at it.
    #[cold]
    pub(super) fn ring(&self) -> Result<()> {
        let own = Thread::current().id();
        let Some((mut polled, mut shown)) = self.become_ringer(own)? else {
            return self.let_ringer_finish(own);
        };
        let mut outcome = Ok(());
        for _ in 0..CHANGES_SEEN_MAX {
            let silent = self.bell.polling.get().is_none() && !self.bell.has_pollers().unwrap_or(true);
            if !silent {
                outcome = self.bell.set(shown);
            }
            let call = Call::of(self);
            let waiters = call.waiters();
            let mut guard = waiters.enter(after_grace())?;
            let done = (|| {
                let (now_polled, now) = self.to_show(&guard)?;
                let settled = (now_polled, now) == (polled, shown) || outcome.is_err();
                if settled {
                    if silent {
                        guard.set(POLLED, polled & !1)?;
                    }
                    guard.set(OUT_OF_STEP, u64::from(outcome.is_err()))?;
                    guard.set(RINGER, 0)?;
                }
                (polled, shown) = (now_polled, now);
                Ok(settled)
            })();
            if done.is_ok() {
                guard.checkpoint();
            }
            waiters.leave(guard);
            if done? {
                return outcome;
            }
        }
        outcome
    }

    /// Another one is at it. Who polls this queue, and has just taken its last message, would be told that there is one, and
    /// block on it: so a poller lets a ringer finish that is running.
    fn let_ringer_finish(&self, own: u32) -> Result<()> {
        const YIELDS: u32 = 200;
        /// A second: the word may hold anybody's number.
        const LOOKS_MAX: u32 = 10_000;
        const PAUSE: Duration = Duration::from_micros(100);
        if self.bell.polling.get().is_none() {
            return Ok(());
        }
        let (out_of_step, ringer) = (self.segment.word64(OUT_OF_STEP)?, self.segment.word64(RINGER)?);
        for look in 0..LOOKS_MAX {
            let at_it = ringer.load(Ordering::Relaxed) as u32;
            if out_of_step.load(Ordering::Relaxed) == 0 || at_it == 0 || at_it == own {
                break;
            }
            if look < YIELDS {
                std::thread::yield_now();
            } else if is_stopped(at_it) {
                break;
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn to_show(&self, guard: &Guard<'_>) -> Result<(u64, u64)> {
        let count = self.store().state(guard)?.count;
        Ok((guard.get(POLLED)?, packets(count, self.geometry.messages_max)))
    }

    /// What to show, if this thread is to see to it.
    fn become_ringer(&self, own: u32) -> Result<Option<(u64, u64)>> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let mut found_dead = None;
        loop {
            let mut guard = waiters.enter(after_grace())?;
            let mut other = None;
            let outcome = (|| {
                let ringer = guard.get(RINGER)?;
                if guard.get(OUT_OF_STEP)? == 0 {
                    return Ok(None);
                }
                if ringer != 0 && ringer != u64::from(own) && found_dead != Some(ringer) {
                    other = Some(ringer);
                    return Ok(None);
                }
                guard.set(RINGER, u64::from(own))?;
                self.to_show(&guard).map(Some)
            })();
            if outcome.is_ok() {
                guard.checkpoint();
            }
            waiters.leave(guard);
            match other {
                // Asked without the lock.
                Some(ringer) if !thread_exists(ringer as u32) => found_dead = Some(ringer),
                _ => return outcome,
            }
        }
    }
}
