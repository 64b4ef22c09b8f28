//! A queue's descriptor for `poll(2)`, `select(2)` and `epoll(7)`, which the kernel's System V queues have not.
//!
//! # What a user sees
//! [`SysvQueue::descriptor`] is readable while there is a message, of whatever type, and writable while there is room for a
//! byte. Who asks for more than that is told too, if the call is made first and the descriptor waited on after it has
//! failed:
//! - A sender that was refused (`EAGAIN`) is told when there is more room: until the next message is received the
//!   descriptor is not writable, for anybody, though a smaller message may fit.
//! - A receiver by type that found nothing (`ENOMSG`) is told of each further message, if it waits for *edges*
//!   (`EPOLLET`): the descriptor stays readable.
//!
//! A queue that has been removed is readable and writable: the next call says so.
//!
//! # How it works inside
//! See [`doorbell`]. The bits of [`TO_BE_TOLD`] stand in the word that says whether there is a short way: so nobody takes
//! it while somebody polls, and while nobody does, nobody looks for them. Who is refused sets its bit, rings, and tries
//! again: so it was refused with the bit set, or somebody else has rung since.
//!
//! The FIFO is made when somebody asks for it first. Another user than the queue's owner could not make it as its owner's:
//! so that of a queue which others may use is made with the queue, or by `IPC_SET`.
//!
//! # Crash points
//! Those of the doorbell. Removing: the mark is there before the FIFO shows it; killed in between, whoever finds the queue
//! half removed does the rest.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::call::Call;
use super::store::{AWAY, BELL_NUMBER, OUT_OF_STEP, POLLED, RINGER, Store};
use super::{READ, SysvQueue, WRITE};
use crate::lock::Guard;
use crate::message::doorbell::{self, BellName, Doorbell, ONE_TO_TELL, Places, Pollable, within_grace};
use crate::namespace::{self, Namespace, REMOVED};
use crate::primitive::Ordering;
use crate::segment::{HEADER_BYTES, Reader, Segment};
use crate::wait::Patience;
use crate::{Errno, Result};

/// Somebody polls.
const IS_POLLED: u64 = 1 << 63;
/// A sender was refused since the last message was received.
const REFUSED: u64 = 1 << 62;
/// A receiver was refused since the last message was sent.
const MISSED: u64 = 1 << 61;
/// The bits that stand beside the number of the messages that are away.
pub(super) const TO_BE_TOLD: u64 = IS_POLLED | REFUSED | MISSED;

/// The permissions of others than the owner.
const OF_OTHERS: u32 = 0o066;

/// Where the FIFO is to be found, by whoever has the queue open.
#[derive(Debug)]
pub(super) struct Bell {
    home: PathBuf,
    /// Device and inode of the namespace's directory.
    id: (u64, u64),
    opened: OnceLock<Doorbell>,
}

impl Bell {
    pub(super) fn of(home: &Namespace) -> Result<Bell> {
        let status = rustix::fs::fstat(home.root()?)?;
        let id = (status.st_dev, status.st_ino);
        Ok(Bell { home: home.path().to_owned(), id, opened: OnceLock::new() })
    }

    fn home(&self) -> Result<Namespace> {
        Namespace::again(&self.home, self.id.0, self.id.1)
    }
}

/// The FIFO of a queue that others than its owner may use. That of a new queue, or of one that is just given to them.
pub(super) fn provide(home: &Namespace, segment: &Segment, uid: u32, gid: u32, mode: u32) -> Result<()> {
    let name = name_of(segment)?;
    let bell = match name.open(home) {
        Err(Errno::NOENT) if mode & OF_OTHERS == 0 => return Ok(()),
        Err(Errno::NOENT) => name.open_or_make(home, segment.file()?)?,
        outcome => outcome?,
    };
    bell.change(uid, gid, mode)
}

/// Of a new queue, which has no name yet.
pub(super) fn provide_new(home: &Namespace, segment: &Segment, mode: u32) -> Result<()> {
    segment.word64(HEADER_BYTES + BELL_NUMBER)?.store(namespace::random()?, Ordering::Relaxed);
    if mode & OF_OTHERS == 0 {
        return Ok(());
    }
    let file = segment.file()?;
    let status = rustix::fs::fstat(file)?;
    let name = name_of(segment)?;
    name.make(home, file)?;
    name.open(home)?.change(status.st_uid, status.st_gid, mode)
}

/// Shows those who poll a queue that it has been removed, and takes the FIFO's name away.
pub(crate) fn dismiss(home: &Namespace, queue: BorrowedFd<'_>) {
    let number = queue
        .try_clone_to_owned()
        .map_err(|_| Errno::MFILE)
        .and_then(|file| Reader::of(file).word64(HEADER_BYTES + BELL_NUMBER));
    let Ok(name) = number.and_then(|number| BellName::of(queue, number)) else { return };
    if let Ok(bell) = name.open(home) {
        let _ = bell.show_one();
        name.remove(home);
    }
}

fn name_of(segment: &Segment) -> Result<BellName> {
    let number = segment.word64(HEADER_BYTES + BELL_NUMBER)?.load(Ordering::Relaxed);
    BellName::of(segment.file()?, number)
}

impl SysvQueue {
    /// The queue's descriptor for `poll(2)`: readable while it holds a message, of any type; writable while it has room
    /// for a byte, and nobody was refused since a message was last received. Not to be read or written. It is open for as
    /// long as the queue; from now on all who change the queue keep it in step.
    ///
    /// Try first, then wait: [`SysvQueue::send`] and [`SysvQueue::recv`] with `IPC_NOWAIT`, and if they are refused, this.
    /// Who receives by type listens for edges (`EPOLLET`), since the messages of other types stay readable. A queue that
    /// is removed becomes readable and writable.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel_engine::Errno;
    /// use ginnel_engine::message::sysv_queue::SysvQueue;
    /// use ginnel_engine::namespace::Namespace;
    /// use ginnel_engine::wait::Patience;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let home = Namespace::private()?;
    /// let queue = SysvQueue::open(&home, SysvQueue::get(&home, libc::IPC_PRIVATE, 0o600)?)?;
    /// let mut buffer = [0; 64];
    /// let mut watched = [PollFd::from_borrowed_fd(queue.descriptor()?, PollFlags::IN)];
    /// assert_eq!(queue.recv(&mut buffer, 0, libc::IPC_NOWAIT, Patience::None), Err(Errno::NOMSG));
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| queue.send(7, b"knock", 0, Patience::Endless).unwrap());
    ///     poll(&mut watched, None)
    /// })?;
    /// assert_eq!(queue.recv(&mut buffer, 0, libc::IPC_NOWAIT, Patience::None), Ok((7, 5)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `EIDRM`: the queue was removed. `EACCES`: the caller may not use it; or its FIFO is not there, and only its owner can
    /// make it: let that one ask first. `EAGAIN`: see [`Patience::None`]. `EMFILE`, `ENFILE`, `ENOMEM`, `EUCLEAN`.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.rights.check(&self.segment, READ | WRITE)?;
        if self.bell.opened.get().is_none() {
            let opened = self.open_or_make_bell()?;
            let _ = self.bell.opened.set(opened);
        }
        doorbell::descriptor(self)
    }

    fn open_or_make_bell(&self) -> Result<Doorbell> {
        let (home, name) = (self.bell.home()?, name_of(&self.segment)?);
        match name.open(&home) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        let file = self.segment.file()?;
        let status = rustix::fs::fstat(file)?;
        if namespace::state(&self.segment) & REMOVED != 0 || status.st_nlink == 0 {
            return Err(Errno::IDRM);
        }
        let me = rustix::process::geteuid();
        if !me.is_root() && me.as_raw() != status.st_uid {
            return Err(Errno::ACCESS);
        }
        let bell = match name.open_or_make(&home, file) {
            Err(Errno::NOENT) => return Err(Errno::IDRM),
            outcome => outcome?,
        };
        bell.change(status.st_uid, status.st_gid, status.st_mode & 0o777)?;
        // Removed meanwhile, by somebody who has looked for the FIFO before it was there.
        if namespace::state(&self.segment) & REMOVED != 0 {
            name.remove(&home);
            return Err(Errno::IDRM);
        }
        Ok(bell)
    }

    /// After an operation in the general way: has those who poll told what it has changed.
    #[inline]
    pub(super) fn see_to_the_rest(&self) {
        let word = self.segment.word64(HEADER_BYTES + OUT_OF_STEP);
        if word.is_ok_and(|word| word.load(Ordering::Relaxed) != 0) {
            // The operation itself is done: what fails here is left to the next one.
            let _ = doorbell::ring(self);
        }
    }

    /// A sender was refused: whether it is to try again, since somebody polls.
    #[cold]
    pub(super) fn note_refused(&self) -> bool {
        self.note(REFUSED)
    }

    /// A receiver was refused: whether it is to try again, since somebody polls.
    #[cold]
    pub(super) fn note_missed(&self) -> bool {
        self.note(MISSED)
    }

    fn note(&self, bit: u64) -> bool {
        let Ok(store) = Store::of(&self.segment) else { return false };
        if store.hot(AWAY) & IS_POLLED == 0 {
            return false;
        }
        let noted = self.settle(within_grace(), |guard| {
            let away = store.hot(AWAY);
            if away & IS_POLLED == 0 || away & bit != 0 {
                return Ok(());
            }
            let shown = store.packets();
            store.set_hot(guard, AWAY, away | bit)?;
            if store.packets() == shown { Ok(()) } else { doorbell::mark(guard, Self::PLACES) }
        });
        self.see_to_the_rest();
        noted.is_ok()
    }

    /// The limit has changed: whoever was refused may fit now.
    pub(super) fn note_limit(store: &Store<'_>, guard: &mut Guard<'_>) -> Result<()> {
        let away = store.hot(AWAY);
        if away & IS_POLLED == 0 {
            return Ok(());
        }
        store.set_hot(guard, AWAY, away & !REFUSED)?;
        let before = store.get(guard, OUT_OF_STEP)?;
        store.set(guard, OUT_OF_STEP, before.wrapping_add(ONE_TO_TELL) | 1)
    }
}

impl Store<'_> {
    /// How many packets the FIFO is to show.
    pub(super) fn packets(&self) -> u64 {
        if namespace::state(self.segment) & REMOVED != 0 {
            return 1;
        }
        let is_full = self.hot(AWAY) & REFUSED != 0 || !self.fits(1);
        if self.messages() == 0 { 0 } else { 1 + u64::from(is_full) }
    }

    /// So many messages more are in the queue than when the FIFO was to show this.
    #[cold]
    pub(super) fn note_change(&self, guard: &mut Guard<'_>, shown: u64, messages: i64) -> Result<()> {
        let (away, before) = (self.hot(AWAY), self.get(guard, OUT_OF_STEP)?);
        let answered = if messages < 0 { REFUSED } else { MISSED };
        let mut after = before;
        if away & answered != 0 {
            self.set_hot(guard, AWAY, away & !answered)?;
            after = after.wrapping_add(ONE_TO_TELL);
        }
        if after != before || self.packets() != shown {
            after |= 1;
        }
        if after == before { Ok(()) } else { self.set(guard, OUT_OF_STEP, after) }
    }
}

impl Pollable for SysvQueue {
    const PLACES: Places = Places {
        polled: HEADER_BYTES + POLLED,
        out_of_step: HEADER_BYTES + OUT_OF_STEP,
        ringer: HEADER_BYTES + RINGER,
    };

    fn segment(&self) -> &Segment {
        &self.segment
    }

    fn bell(&self) -> Result<&Doorbell> {
        if self.bell.opened.get().is_none() {
            let opened = name_of(&self.segment)?.open(&self.bell.home()?)?;
            let _ = self.bell.opened.set(opened);
        }
        self.bell.opened.get().ok_or(Errno::BADF)
    }

    fn settle<T>(&self, patience: Patience, look: impl FnOnce(&mut Guard<'_>) -> Result<T>) -> Result<T> {
        let store = Store::of(&self.segment)?;
        let call = Call::new(&store, 0, &[], &mut []);
        self.waiters(&call)?.with_lock(patience, look)
    }

    fn packets(&self, _: &Guard<'_>) -> Result<u64> {
        Ok(Store::of(&self.segment)?.packets())
    }

    fn note_polled(&self, guard: &mut Guard<'_>, is_polled: bool) -> Result<()> {
        let store = Store::of(&self.segment)?;
        let away = store.hot(AWAY);
        store.set_hot(guard, AWAY, if is_polled { away | IS_POLLED } else { away & !TO_BE_TOLD })
    }
}
