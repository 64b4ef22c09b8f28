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
//! Where a change is to be told that the FIFO does not show, `out_of_step` counts it: the ringer then fills the FIFO and
//! empties it to where it was, which an edge-triggered epoll hears.
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

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};

use crate::descriptor::Kept;
use crate::lock::Guard;
use crate::namespace::{BELLS, Namespace};
use crate::primitive::{Ordering, Thread, thread_exists};
use crate::process::is_stopped;
use crate::segment::Segment;
use crate::wait::Patience;
use crate::{Errno, Result};

const SLOTS: u64 = 2;
/// A packet takes a page.
const FIFO_BYTES: usize = SLOTS as usize * 4096;
/// How often the queue may have changed while a ringer rings: then it is left to the next one.
const CHANGES_SEEN_MAX: u32 = 1000;

/// The FIFO, not yet opened for reading or writing: that would count as polling.
#[derive(Debug)]
pub(crate) struct Doorbell {
    place: Kept,
    polling: OnceLock<Kept>,
}

/// The FIFO's name in the namespace. Of which queue it is shows in the number of the queue's file, which nobody can choose:
/// so no queue can lead to the FIFO of another.
#[derive(Debug)]
pub(crate) struct BellName(CString);

impl BellName {
    /// `number` is the queue's own.
    pub(crate) fn of(queue: BorrowedFd<'_>, number: u64) -> Result<BellName> {
        let file = rustix::fs::fstat(queue)?.st_ino;
        Ok(BellName(CString::new(format!("{BELLS}/{file:016x}.{number:016x}")).map_err(|_| Errno::INVAL)?))
    }

    pub(crate) fn remove(&self, home: &Namespace) {
        if let Ok(root) = home.root() {
            let _ = rustix::fs::unlinkat(root, &self.0, AtFlags::empty());
        }
    }

    /// Makes the FIFO of a queue; of its mode the umask takes its part.
    pub(crate) fn make(&self, home: &Namespace, queue: BorrowedFd<'_>) -> Result<()> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(queue)?.st_mode & 0o777);
        rustix::fs::mknodat(home.root()?, &self.0, FileType::Fifo, mode, 0)
    }

    /// Opens the FIFO of a queue.
    ///
    /// # Errors
    /// `ENOENT`: it is not there.
    pub(crate) fn open(&self, home: &Namespace) -> Result<Doorbell> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(home.root()?, &self.0, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Fifo {
            return Err(Errno::UCLEAN);
        }
        Ok(Doorbell { place: Kept::new(place), polling: OnceLock::new() })
    }

    /// As [`BellName::open`]; makes it again if it is not there.
    ///
    /// # Errors
    /// `ENOENT`: the queue has just been unlinked.
    pub(crate) fn open_or_make(&self, home: &Namespace, queue: BorrowedFd<'_>) -> Result<Doorbell> {
        match self.open(home) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        match self.make(home, queue) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if rustix::fs::fstat(queue)?.st_nlink == 0 {
            self.remove(home);
            return Err(Errno::NOENT);
        }
        self.open(home)
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
    /// A descriptor of it that can do nothing.
    pub(crate) fn place(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }

    /// As its queue, whatever the umask has taken.
    pub(crate) fn change(&self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        let status = rustix::fs::fstat(&self.place)?;
        if (status.st_uid, status.st_gid) != (uid, gid) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.place, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if status.st_mode & 0o777 != mode & 0o777 {
            let path = format!("/proc/self/fd/{}", self.place.as_raw_fd());
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode & 0o777), AtFlags::empty())?;
        }
        Ok(())
    }

    /// The descriptor that is polled.
    fn polling(&self) -> Result<BorrowedFd<'_>> {
        if self.polling.get().is_none() {
            let _ = self.polling.set(Kept::new(self.open_both()?));
        }
        self.polling.get().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// For somebody who may not use the queue: shows one packet to whoever polls.
    pub(crate) fn show_one(&self) -> Result<()> {
        if self.has_pollers()? { self.tell(1) } else { Ok(()) }
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

    /// As [`Doorbell::set`], and whoever listens for edges hears one.
    fn tell(&self, packets: u64) -> Result<()> {
        self.set(if packets < SLOTS { SLOTS } else { SLOTS - 1 })?;
        self.set(packets)
    }
}

/// Where a queue has the words of its doorbell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Bit 0, and a number that changes with each who begins to poll.
    pub(crate) polled: usize,
    /// Bit 0, and how many changes are to be told that the FIFO does not show.
    pub(crate) out_of_step: usize,
    pub(crate) ringer: usize,
}

/// One [`Places::out_of_step`] to be told.
pub(crate) const ONE_TO_TELL: u64 = 2;

/// A queue that has a doorbell.
pub(crate) trait Pollable {
    const PLACES: Places;

    fn segment(&self) -> &Segment;

    /// Its FIFO.
    fn bell(&self) -> Result<&Doorbell>;

    /// With the lock; what `look` has changed counts if it succeeds.
    fn settle<T>(&self, patience: Patience, look: impl FnOnce(&mut Guard<'_>) -> Result<T>) -> Result<T>;

    /// How many packets the FIFO is to show.
    fn packets(&self, guard: &Guard<'_>) -> Result<u64>;

    /// Somebody polls from here on, or nobody: where else that is to be noted.
    fn note_polled(&self, guard: &mut Guard<'_>, is_polled: bool) -> Result<()> {
        let _ = (guard, is_polled);
        Ok(())
    }
}

/// What a ringer has shown, or is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    polled: u64,
    packets: u64,
    to_tell: u64,
}

/// The descriptor of a queue that is polled from now on.
pub(crate) fn descriptor<Q: Pollable>(queue: &Q) -> Result<BorrowedFd<'_>> {
    let places = Q::PLACES;
    let descriptor = queue.bell()?.polling()?;
    queue.settle(Patience::None, |guard| {
        let polled = guard.get(places.polled)?;
        guard.set(places.polled, (polled | 1).wrapping_add(2))?;
        queue.note_polled(guard, true)?;
        mark(guard, places)
    })?;
    ring(queue)?;
    Ok(descriptor)
}

/// In the transaction that changes what the FIFO is to show, from one thing to another. If it does not show the one yet, it
/// may show the other still: somebody who has met the one meanwhile, and listens for edges, would not hear of the change.
pub(crate) fn mark_change(guard: &mut Guard<'_>, places: Places) -> Result<()> {
    let before = guard.get(places.out_of_step)?;
    let after = if before & 1 == 0 { before } else { before.wrapping_add(ONE_TO_TELL) };
    guard.set(places.out_of_step, after | 1)
}

/// In the transaction after which the FIFO is to be looked at.
pub(crate) fn mark(guard: &mut Guard<'_>, places: Places) -> Result<()> {
    let before = guard.get(places.out_of_step)?;
    if before & 1 == 0 { guard.set(places.out_of_step, before | 1) } else { Ok(()) }
}

/// Without the lock: has the FIFO in step, or leaves it to who is at it.
#[cold]
pub(crate) fn ring<Q: Pollable>(queue: &Q) -> Result<()> {
    let places = Q::PLACES;
    let own = Thread::current().id();
    let Some(shown) = become_ringer(queue, own)? else { return let_ringer_finish(queue, own) };
    let outcome = ring_until_settled(queue, shown);
    // Without the lock in time, or with too many changes: whoever comes next is not to wait for one that has left. While the
    // word names this living thread, nobody else writes it: so it is given up without the lock.
    if let Ok(word) = queue.segment().word64(places.ringer) {
        let _ = word.compare_exchange(u64::from(own), 0, Ordering::Release, Ordering::Relaxed);
    }
    outcome
}

fn ring_until_settled<Q: Pollable>(queue: &Q, first: Shown) -> Result<()> {
    let places = Q::PLACES;
    let (mut shown, mut outcome, mut told) = (first, Ok(()), 0);
    for _ in 0..CHANGES_SEEN_MAX {
        let mut silent = false;
        outcome = queue.bell().and_then(|bell| {
            silent = bell.polling.get().is_none() && !bell.has_pollers().unwrap_or(true);
            match silent {
                true => Ok(()),
                false if shown.to_tell == told => bell.set(shown.packets),
                false => bell.tell(shown.packets),
            }
        });
        told = shown.to_tell;
        let done = queue.settle(within_grace(), |guard| {
            let now = to_show(queue, guard)?;
            let settled = now == shown || outcome.is_err();
            if settled {
                if silent {
                    guard.set(places.polled, shown.polled & !1)?;
                    queue.note_polled(guard, false)?;
                }
                guard.set(places.out_of_step, u64::from(outcome.is_err()))?;
                guard.set(places.ringer, 0)?;
            }
            shown = now;
            Ok(settled)
        })?;
        if done {
            return outcome;
        }
    }
    outcome
}

/// Another one is at it. Who polls this queue, and has just taken its last message, would be told that there is one, and
/// block on it: so a poller lets a ringer finish that is running.
fn let_ringer_finish<Q: Pollable>(queue: &Q, own: u32) -> Result<()> {
    const YIELDS: u32 = 20;
    /// A fifth of a second: the word may hold anybody's number.
    const LOOKS_MAX: u32 = 2_000;
    const PAUSE: Duration = Duration::from_micros(100);
    if queue.bell()?.polling.get().is_none() {
        return Ok(());
    }
    for look in 0..LOOKS_MAX {
        let at_it = queue.settle(within_grace(), |guard| {
            let is_out_of_step = guard.get(Q::PLACES.out_of_step)? != 0;
            Ok(if is_out_of_step { guard.get(Q::PLACES.ringer)? as u32 } else { 0 })
        })?;
        if at_it == 0 || at_it == own {
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

fn to_show<Q: Pollable>(queue: &Q, guard: &Guard<'_>) -> Result<Shown> {
    let to_tell = guard.get(Q::PLACES.out_of_step)? / ONE_TO_TELL;
    Ok(Shown { polled: guard.get(Q::PLACES.polled)?, packets: queue.packets(guard)?, to_tell })
}

/// What to show, if this thread is to see to it.
fn become_ringer<Q: Pollable>(queue: &Q, own: u32) -> Result<Option<Shown>> {
    let places = Q::PLACES;
    let mut found_dead = None;
    loop {
        let mut other = None;
        let shown = queue.settle(within_grace(), |guard| {
            let ringer = guard.get(places.ringer)?;
            if guard.get(places.out_of_step)? == 0 {
                return Ok(None);
            }
            if ringer != 0 && ringer != u64::from(own) && found_dead != Some(ringer) {
                other = Some(ringer);
                return Ok(None);
            }
            guard.set(places.ringer, u64::from(own))?;
            to_show(queue, guard).map(Some)
        })?;
        match other {
            // Asked without the lock.
            Some(ringer) if !thread_exists(ringer as u32) => found_dead = Some(ringer),
            _ => return Ok(shown),
        }
    }
}

/// How long what is left to do after an operation waits for the lock: who holds it for longer has been stopped.
pub(crate) fn within_grace() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(1))
}
