//! System V message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.
//!
//! # What a user sees
//! What the kernel's queues do, call by call and errno by errno. Beyond that: every call can have a deadline, `msg_qbytes` is
//! what its owner says, a message may have a gibibyte, and to receive by type costs the same however deep the queue is.
//!
//! A blocked sender's message goes into the queue the moment it fits, by the hand of whoever made it fit; a message that
//! somebody is blocked for is that receiver's the moment it is sent, and nobody else ever sees it, unless the receiver
//! is killed before it could return: then it is back in its place in the order.
//!
//! Deliberate differences: `msg_lrpid` is always a process's id (the kernel puts a thread's there if the receiver was
//! blocked). `MSG_COPY` works whatever the kernel was built with.
//!
//! # How it works inside
//! See `store` for what a queue holds, `order` and `types` for how a message is found, `heap` for its memory.
//! An operation is attempted under the lock with the caller's own buffers. One that must wait has its
//! message written into the segment first, so that whoever serves it needs nothing of its process.
//!
//! Payloads of more than [`LARGE_BYTES`] are copied without the lock. A large message to be sent is first *prepared*: its
//! memory is taken, with a stake in it, and filled; then it is enqueued by a word. One to be received is *claimed*, with a
//! stake in it, or with the slot of the receiver if that was blocked; then copied; then freed.
//!
//! # Crash points
//! | killed | what becomes of the message |
//! | --- | --- |
//! | sending, before the commit | there was none; a large one's memory goes with the stake |
//! | blocked as a sender | there was none: its memory goes with the slot |
//! | having been served as a sender, without knowing | it was sent |
//! | receiving, before the commit | it is in the queue |
//! | having claimed it, or been served, before having come for it | it is back at its place in the queue |
//! | after that | it was received |
//! | giving memory back, or making it | see `heap` |

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::lock::{self, Guard, Lock};
use crate::namespace::{self, Kind, Namespace, REMOVED, Rights};
use crate::primitive::{Ordering, Thread, seconds};
use crate::segment::{HEADER_BYTES, PAGE_BYTES, Segment};
use crate::wait::{Alone, General, Object, Patience, Place, Stake, Waiters, Words};
use crate::{Errno, Result};

mod least;
mod order;
mod quick;
mod store;
mod table;
mod types;

use quick::Got;
use store::{
    AWAY, BLOCKED_MAX, CHANGED, COUNTS, FIRST_PAGE, Found, LIMIT, RECEIVED, REGROWN, SENT, SHAPE, Select,
    Store, TYPE, WAITERS, WHOLE_MAX, half,
};

/// The largest message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// From how many bytes on a payload is copied without the lock.
pub const LARGE_BYTES: usize = 8192;

/// What permission it takes to receive.
const READ: u32 = 0o444;
/// What permission it takes to send.
const WRITE: u32 = 0o222;
/// The most that a queue's file may grow to.
const CAPACITY: usize = 1 << 34;
/// How long an operation whose outcome is decided tries for the lock to clean up after itself. Others do it otherwise.
const GRACE: Duration = Duration::from_secs(1);
/// How often memory is made anew, with at most a second between, before a drained queue keeps some; and how much.
const REGROWN_OFTEN: u64 = 4;
/// Memory was made anew since the queue was drained last.
const REGROWN_SINCE: u64 = 0x80;
const KEPT_PAGES: u32 = 4096;
/// How often a large message that stays is copied without the lock before it is copied with it.
const COPIES_MAX: u32 = 8;

// The first word of a request, and of a stake.
const SEND: u64 = 1;
const RECEIVE: u64 = 2;
const PREPARED: u64 = 3;
const CLAIMED: u64 = 4;
const PAGES: u64 = 5;
// A request's other words.
const UNIT: usize = 1;
const KIND: usize = 2;
const SIZE: usize = 3;
const PROCESS: usize = 4;
const FLAGS: usize = 5;
/// Where a sender's stake names its message; the message that a receiver got, and its size.
const STAKE: usize = 6;
const GOT: usize = 6;

/// What `IPC_STAT` tells.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::sysv_queue::SysvQueue;
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// let id = SysvQueue::get(&home, libc::IPC_PRIVATE, 0o600)?;
/// let status = SysvQueue::status(&home, id)?;
/// assert_eq!((status.messages, status.object.mode), (0, 0o600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Key, owner, mode.
    pub object: namespace::Status,
    /// `msg_qnum`.
    pub messages: u64,
    /// `msg_cbytes`.
    pub bytes: u64,
    /// `msg_qbytes`.
    pub bytes_max: u64,
    /// `msg_lspid`.
    pub last_sender: i32,
    /// `msg_lrpid`.
    pub last_receiver: i32,
    /// `msg_stime`, in seconds since 1970; 0: never.
    pub sent: i64,
    /// `msg_rtime`.
    pub received: i64,
    /// `msg_ctime`.
    pub changed: i64,
}

/// What `IPC_SET` sets.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::sysv_queue::{Change, SysvQueue};
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// let id = SysvQueue::get(&home, libc::IPC_PRIVATE, 0o600)?;
/// let status = SysvQueue::status(&home, id)?;
/// SysvQueue::set(&home, id, Change { bytes_max: 1 << 30, ..Change::none(&status) })?;
/// assert_eq!(SysvQueue::status(&home, id)?.bytes_max, 1 << 30);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new owner.
    pub uid: u32,
    /// The new group.
    pub gid: u32,
    /// The new mode, of which the low nine bits count.
    pub mode: u32,
    /// The new `msg_qbytes`: it takes no privilege to raise it.
    pub bytes_max: u64,
}

impl Change {
    /// All as it is.
    pub fn none(status: &Status) -> Change {
        let object = &status.object;
        Change { uid: object.uid, gid: object.gid, mode: object.mode, bytes_max: status.bytes_max }
    }
}

/// A queue. Threads of a process share one.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::Errno;
/// use ginnel_engine::message::sysv_queue::SysvQueue;
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let id = SysvQueue::get(&home, 0x2a, libc::IPC_CREAT | 0o600)?;
/// let queue = SysvQueue::open(&home, id)?;
/// queue.send(7, b"for seven", 0, Patience::Endless)?;
/// queue.send(3, b"for three", 0, Patience::Endless)?;
///
/// let mut buffer = [0; 64];
/// assert_eq!(queue.recv(&mut buffer, 3, 0, Patience::Endless)?, (3, 9));
/// assert_eq!(&buffer[..9], b"for three");
/// assert_eq!(queue.recv(&mut buffer, 3, libc::IPC_NOWAIT, Patience::Endless), Err(Errno::NOMSG));
/// assert_eq!(SysvQueue::status(&home, id)?.messages, 1);
/// SysvQueue::remove(&home, id)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SysvQueue {
    segment: Segment,
    rights: Rights,
    /// The namespace's `msgmax`.
    message_max: usize,
}

/// One call, as those it waits for may find it.
struct Call<'s, 'a, 'b> {
    store: &'s Store<'a>,
    /// What the object's state was when the caller's rights were checked.
    state: u32,
    /// Whether the queue was there when the call began.
    has_begun: Cell<bool>,
    kind: i64,
    payload: &'b [u8],
    out: RefCell<&'b mut [u8]>,
    got: Cell<(i64, usize)>,
    is_fetched: Cell<bool>,
    has_drained: Cell<bool>,
}

impl<'s, 'a, 'b> Call<'s, 'a, 'b> {
    #[inline]
    fn new(store: &'s Store<'a>, kind: i64, payload: &'b [u8], out: &'b mut [u8]) -> Call<'s, 'a, 'b> {
        Call {
            store,
            state: state_of(store.segment),
            has_begun: Cell::new(false),
            kind,
            payload,
            out: RefCell::new(out),
            got: Cell::new((0, 0)),
            is_fetched: Cell::new(false),
            has_drained: Cell::new(false),
        }
    }

    /// Whether the caller may go on: the queue is there, and nobody has changed who may use it since that was checked.
    #[inline]
    fn begin(&self) -> Result<()> {
        let state = namespace::state(self.store.segment);
        if state & REMOVED != 0 {
            // Its id leads nowhere; but who has waited for it is told.
            return Err(if self.has_begun.get() { Errno::IDRM } else { Errno::INVAL });
        }
        self.has_begun.set(true);
        if state == self.state { Ok(()) } else { Err(Errno::RESTART) }
    }

    /// The message for a receiver, if there is one that it can have.
    #[inline]
    fn find(&self, guard: &mut Guard<'_>, kind: i64, flags: i32, room: u64) -> Result<Option<Found>> {
        let select = Select::of(kind, flags);
        if matches!(select, Select::AtMost(_)) {
            self.store.clear_top(guard)?;
        }
        match self.store.find(guard, select)? {
            Some(found) if u64::from(found.size) > room && flags & libc::MSG_NOERROR == 0 => {
                Err(Errno::TOOBIG)
            }
            found => Ok(found),
        }
    }

    /// How much of a message of this size the caller gets.
    #[inline]
    fn wanted(&self, size: u32) -> usize {
        self.out.try_borrow().map_or(0, |out| out.len()).min(size as usize)
    }

    /// Whether the queue is empty, and holds memory that it may give back.
    #[inline]
    fn note_drained(&self) -> Result<()> {
        if self.store.messages() == 0 && self.store.hot(AWAY) == 0 {
            self.has_drained.set(!self.store.is_small() || self.store.heap.has_spare()?);
        }
        Ok(())
    }

    /// Receives, by the caller's own hand, what is not large.
    #[inline]
    fn take(&self, guard: &mut Guard<'_>, found: &Found, process: u32) -> Result<()> {
        let len = self.store.read_payload(found.unit, found.size, &self.out)?;
        self.store.remove(guard, found)?;
        self.store.stamp(guard, RECEIVED, process)?;
        self.got.set((found.kind, len));
        guard.makes(lock::Change::Less);
        self.note_drained()
    }

    /// The message at an index, its type and its size, for one who copies it.
    fn see(&self, _guard: &Guard<'_>, index: i64, room: usize, flags: i32) -> Result<(u32, i64, u32)> {
        self.begin()?;
        let index = u64::try_from(index).map_err(|_| Errno::NOMSG)?;
        let unit = self.store.message_at(index)?.ok_or(Errno::NOMSG)?;
        let block = self.store.block(unit)?;
        let size = half(block[store::SIZE].load(Ordering::Relaxed), 0);
        if room < size as usize {
            // The kernel copies into a message of the buffer's size, which this one does not fit.
            let may_be_cut = flags & libc::MSG_NOERROR != 0;
            return Err(if may_be_cut { Errno::INVAL } else { Errno::TOOBIG });
        }
        Ok((unit, block[TYPE].load(Ordering::Relaxed) as i64, size))
    }

    /// Takes the memory for a message that others will enqueue, and counts it.
    fn prepare(&self, guard: &mut Guard<'_>) -> Result<u32> {
        let unit = self.store.reserve(guard, self.kind, self.payload.len())?;
        self.store.count_away(guard, 0, 1)?;
        Ok(unit)
    }

    fn unprepare(&self, guard: &mut Guard<'_>, unit: u32) -> Result<()> {
        self.store.count_away(guard, 0, -1)?;
        self.store.free(guard, unit)
    }
}

/// The state of an object but for whether it is removed.
#[inline]
fn state_of(segment: &Segment) -> u32 {
    namespace::state(segment) & !REMOVED
}

/// What stands in a request about a message that was got.
fn got_of(words: &Words) -> (u32, u32) {
    (half(words[GOT], 0), half(words[GOT], 1))
}

impl Object for Call<'_, '_, '_> {
    fn attempt(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<bool> {
        let state = namespace::state(self.store.segment);
        if state & REMOVED != 0 {
            return Err(Errno::IDRM);
        }
        // Who may use the queue has changed: each looks for itself.
        let is_sure = u64::from(state) == words[FLAGS] >> 32;
        let process = words[PROCESS] as u32;
        match words[0] {
            SEND => {
                let size = u32::try_from(words[SIZE]).map_err(|_| Errno::UCLEAN)?;
                if !self.store.fits(words[SIZE]) {
                    return Ok(false);
                }
                if !is_sure {
                    return Err(Errno::RESTART);
                }
                self.store.enqueue(guard, words[UNIT] as u32, words[KIND] as i64, size)?;
                self.store.count_away(guard, 0, -1)?;
                self.store.stamp(guard, SENT, process)?;
                if words[STAKE] != 0 {
                    let stake = usize::try_from(words[STAKE]).map_err(|_| Errno::UCLEAN)?;
                    if !(HEADER_BYTES + WAITERS..FIRST_PAGE as usize * PAGE_BYTES).contains(&stake) {
                        return Err(Errno::UCLEAN);
                    }
                    guard.set(stake, 0)?;
                }
                Ok(true)
            }
            RECEIVE if !is_sure => Err(Errno::RESTART),
            RECEIVE => {
                let found = self.find(guard, words[KIND] as i64, words[FLAGS] as i32, words[SIZE])?;
                let Some(found) = found else { return Ok(false) };
                self.store.claim(guard, &found)?;
                self.store.stamp(guard, RECEIVED, process)?;
                words[GOT] = u64::from(found.unit) | u64::from(found.size) << 32;
                Ok(true)
            }
            _ => Err(Errno::UCLEAN),
        }
    }

    #[inline]
    fn awaits(&self, words: &Words) -> lock::Change {
        match words[0] {
            SEND => lock::Change::Less,
            RECEIVE => lock::Change::More,
            _ => lock::Change::Any,
        }
    }

    fn take_back(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // A message that was sent is sent, whoever knows.
        if words[0] == RECEIVE { self.store.put_back(guard, got_of(words).0) } else { Ok(()) }
    }

    fn is_to_be_fetched(&self, words: &Words) -> bool {
        words[0] == RECEIVE && self.wanted(got_of(words).1) > LARGE_BYTES
    }

    fn fetch(&self, words: &Words) -> Result<()> {
        let (unit, size) = got_of(words);
        self.store.read_payload(unit, size, &self.out)?;
        self.is_fetched.set(true);
        Ok(())
    }

    fn collect(&self, guard: &mut Guard<'_>, words: &mut Words) -> Result<()> {
        if words[0] != RECEIVE {
            return Ok(());
        }
        let (unit, size) = got_of(words);
        let kind = self.store.block(unit)?[TYPE].load(Ordering::Relaxed) as i64;
        if !self.is_fetched.get() {
            self.store.read_payload(unit, size, &self.out)?;
        }
        self.got.set((kind, self.wanted(size)));
        self.store.finish_claim(guard, unit)?;
        self.note_drained()
    }

    fn enlist(&self, guard: &mut Guard<'_>, _room: usize, words: &mut Words) -> Result<()> {
        if words[0] == SEND && words[UNIT] == 0 {
            let unit = self.prepare(guard)?;
            self.store.write_payload(unit, self.payload)?;
            words[UNIT] = u64::from(unit);
        }
        Ok(())
    }

    fn abandon(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        // A large message is its sender's stake.
        if words[0] == SEND && words[STAKE] == 0 {
            self.unprepare(guard, words[UNIT] as u32)?;
        }
        Ok(())
    }

    fn forfeit(&self, guard: &mut Guard<'_>, words: &Words) -> Result<()> {
        match (words[0], words[UNIT] as u32) {
            (PREPARED, 0) => Ok(()),
            (PREPARED, unit) => self.unprepare(guard, unit),
            (CLAIMED, unit) => self.store.put_back(guard, unit),
            (PAGES, _) => self.store.heap.forfeit(guard, words),
            _ => Err(Errno::UCLEAN),
        }
    }
}

impl SysvQueue {
    /// Finds a queue or makes one; `msgget(2)`. Gives its id.
    ///
    /// # Errors
    /// Those of [`Namespace::get`].
    pub fn get(home: &Namespace, key: i32, flags: i32) -> Result<i32> {
        let bytes_max = home.limits().msgmnb;
        home.get(Kind::SysvQueue, key, flags, 0, |draft| {
            draft.segment(CAPACITY, |segment| fill(segment, bytes_max))
        })
    }

    /// Opens a queue by its id.
    ///
    /// # Errors
    /// As [`Namespace::open_id`]. `EUCLEAN`: it holds no queue.
    pub fn open(home: &Namespace, id: i32) -> Result<SysvQueue> {
        let limit = usize::try_from(home.limits().msgmax).unwrap_or(usize::MAX);
        SysvQueue::of(home.open_id(Kind::SysvQueue, id)?, limit.min(MESSAGE_BYTES_MAX))
    }

    fn of(segment: Segment, message_max: usize) -> Result<SysvQueue> {
        segment.words::<8>(HEADER_BYTES + WAITERS)?;
        let rights = Rights::of(&segment);
        Ok(SysvQueue { segment, rights, message_max })
    }

    /// `IPC_STAT`. It takes the permission to read alone.
    ///
    /// # Errors
    /// As [`Namespace::stat`].
    pub fn status(home: &Namespace, id: i32) -> Result<Status> {
        let object = home.stat(Kind::SysvQueue, id)?;
        let reader = home.read_id(Kind::SysvQueue, id)?;
        let word = |field: usize| reader.word64(HEADER_BYTES + field);
        let (messages, bytes) = store::counts_in(word(COUNTS)?);
        let ((sent, last_sender), (received, last_receiver)) =
            (store::stamp_in(word(SENT)?), store::stamp_in(word(RECEIVED)?));
        Ok(Status {
            object,
            messages,
            bytes,
            bytes_max: word(LIMIT)?,
            last_sender,
            last_receiver,
            sent,
            received,
            changed: object.ctime.max(word(CHANGED)? as i64),
        })
    }

    /// `IPC_SET`. Blocked senders whose messages fit now are sent; those who are blocked and may not use the queue any
    /// more get `EACCES`.
    ///
    /// # Errors
    /// As [`Namespace::set`].
    pub fn set(home: &Namespace, id: i32, change: Change) -> Result<()> {
        let found = home.find_controlled(Kind::SysvQueue, id)?;
        let object = found.status();
        // Who has the queue open must look again at what it may do, which costs: only if there is something to see.
        if (object.uid, object.gid, object.mode) != (change.uid, change.gid, change.mode & 0o777) {
            home.set(
                Kind::SysvQueue,
                id,
                namespace::Change { uid: change.uid, gid: change.gid, mode: change.mode },
            )?;
        }
        let queue = SysvQueue::of(Segment::of(found.file)?, 0)?;
        let store = Store::of(&queue.segment)?;
        let call = Call::new(&store, 0, &[], &mut []);
        let attempt = |guard: &mut Guard<'_>, _: &mut Words| {
            if namespace::state(&queue.segment) & REMOVED != 0 {
                return Err(Errno::IDRM);
            }
            store.set(guard, LIMIT, change.bytes_max)?;
            store.set(guard, CHANGED, seconds())?;
            Ok(true)
        };
        queue.waiters(&call)?.run_own(Words::default(), Patience::None, attempt).map(drop)
    }

    /// Removes a queue: who is blocked gets `EIDRM`, who comes later `EINVAL`; `IPC_RMID`.
    ///
    /// # Errors
    /// As [`Namespace::remove_id`].
    pub fn remove(home: &Namespace, id: i32) -> Result<()> {
        home.remove_id(Kind::SysvQueue, id, |segment| {
            let file = segment.file()?.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            SysvQueue::of(Segment::of(file)?, 0)?.dismiss()
        })
    }

    /// Marks the queue as removed and wakes all who are blocked.
    fn dismiss(&self) -> Result<()> {
        let store = Store::of(&self.segment)?;
        let call = Call::new(&store, 0, &[], &mut []);
        let waiters = self.waiters(&call)?;
        let mut guard = waiters.enter(None)?;
        let left = waiters.leave_dirty(&mut guard);
        if let Err(errno) = left {
            waiters.leave(guard);
            return Err(errno);
        }
        // First: the mark is not in the journal, and whoever finds it must find that there is something to do.
        guard.checkpoint();
        namespace::mark_removed(&self.segment);
        waiters.serve_others(guard)
    }

    /// The segment it lies in.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// `msgsnd`: sends a message of a type. `flags`: `IPC_NOWAIT`.
    ///
    /// # Errors
    /// `EINVAL`: the type is less than 1, or the message larger than [`MESSAGE_BYTES_MAX`]. `EAGAIN`: the queue is full
    /// (`IPC_NOWAIT`, or [`Patience::None`]). `ETIMEDOUT`. `EINTR`: a signal handler ran. `EIDRM`: the queue was
    /// removed. `ENOMEM`: no memory for the message. `EUCLEAN`: the segment does not hold what it must.
    #[inline]
    pub fn send(&self, kind: i64, payload: &[u8], flags: i32, patience: Patience) -> Result<()> {
        loop {
            match self.try_send(kind, payload, flags, patience) {
                // Somebody has changed who may use the queue.
                Err(Errno::RESTART) => {}
                outcome => return outcome,
            }
        }
    }

    #[inline]
    fn try_send(&self, kind: i64, payload: &[u8], flags: i32, patience: Patience) -> Result<()> {
        if kind < 1 || payload.len() > self.message_max {
            return Err(Errno::INVAL);
        }
        let store = Store::of(&self.segment)?;
        let patience = if flags & libc::IPC_NOWAIT != 0 { Patience::None } else { patience };
        let how = if payload.len() <= WHOLE_MAX {
            match self.send_alone(&store, kind, payload, patience)? {
                Alone::Done => return Ok(()),
                Alone::Otherwise(how) => how,
            }
        } else {
            General::new()
        };
        self.send_among_others(&store, kind, payload, patience, how)
    }

    #[inline(never)]
    fn send_among_others(
        &self,
        store: &Store<'_>,
        kind: i64,
        payload: &[u8],
        patience: Patience,
        how: General,
    ) -> Result<()> {
        let mut how = Some(how);
        let call = Call::new(store, kind, payload, &mut []);
        self.rights.check(&self.segment, WRITE)?;
        let waiters = self.waiters(&call)?;
        if payload.len() > LARGE_BYTES {
            return self.send_large(&call, &waiters, patience);
        }
        let size = payload.len() as u32;
        let state = u64::from(call.state) << 32;
        let request =
            [SEND, 0, kind as u64, u64::from(size), u64::from(Thread::current().process()), state, 0];
        loop {
            let how = how.take().unwrap_or_default();
            let outcome = waiters.run_on(how, &mut { request }, patience, |guard, words| {
                call.begin()?;
                if !store.fits(u64::from(size)) {
                    return Ok(false);
                }
                let unit = store.reserve(guard, kind, payload.len())?;
                store.write_payload(unit, payload)?;
                store.enqueue(guard, unit, kind, size)?;
                store.stamp(guard, SENT, words[PROCESS] as u32)?;
                guard.makes(lock::Change::More);
                Ok(true)
            });
            match outcome {
                Ok(_) => return Ok(()),
                Err(Errno::NOBUFS) => self.make_memory(store, &waiters)?,
                Err(Errno::NOSPC) => return Err(Errno::NOMEM),
                Err(errno) => return Err(errno),
            }
        }
    }

    #[cold]
    fn send_large(
        &self,
        call: &Call<'_, '_, '_>,
        waiters: &Waiters<'_, Call<'_, '_, '_>>,
        patience: Patience,
    ) -> Result<()> {
        let store = call.store;
        let size = call.payload.len() as u32;
        let (unit, stake) = self.prepare_large(call, waiters, patience)?;
        let written = store.write_payload(unit, call.payload);
        let named = stake.word_offset(UNIT);
        let process = Thread::current().process();
        let (kind, state) = (call.kind as u64, u64::from(call.state) << 32);
        let request = [SEND, u64::from(unit), kind, u64::from(size), u64::from(process), state, named as u64];
        let outcome = written.and_then(|()| {
            loop {
                let outcome = waiters.run_own(request, patience, |guard, words| {
                    call.begin()?;
                    call.attempt(guard, words)
                });
                match outcome {
                    Err(Errno::NOBUFS) => waiters.make_room()?,
                    Err(Errno::NOSPC) => break Err(Errno::NOMEM),
                    outcome => break outcome.map(drop),
                }
            }
        });
        // If the lock is not to be had, others find the stake of somebody who has left.
        let mut guard = Self::enter_again(waiters)?;
        if guard.get(named)? != 0 {
            call.unprepare(&mut guard, unit)?;
        }
        let given_up = waiters.give_up(&mut guard, stake);
        waiters.leave(guard);
        outcome.and(given_up)
    }

    /// The memory of a large message, with a stake in it.
    fn prepare_large<'w>(
        &self,
        call: &Call<'_, '_, '_>,
        waiters: &Waiters<'w, Call<'_, '_, '_>>,
        patience: Patience,
    ) -> Result<(u32, Stake<'w>)> {
        loop {
            let mut guard = waiters.enter(patience.deadline())?;
            let checked = call.begin().and_then(|()| {
                let may_go_on = patience != Patience::None || call.store.fits(call.payload.len() as u64);
                if may_go_on { Ok(()) } else { Err(Errno::AGAIN) }
            });
            let prepared = checked.and_then(|()| call.prepare(&mut guard));
            let unit = match prepared {
                Ok(unit) => unit,
                Err(errno) => {
                    waiters.leave(guard);
                    if errno != Errno::NOBUFS {
                        return Err(errno);
                    }
                    self.make_memory(call.store, waiters)?;
                    continue;
                }
            };
            match waiters.stake(&mut guard, &[PREPARED, u64::from(unit), 0, 0, 0, 0, 0]) {
                Ok(stake) => {
                    waiters.serve_others(guard)?;
                    return Ok((unit, stake));
                }
                Err(errno) => {
                    waiters.leave(guard);
                    if errno != Errno::NOBUFS {
                        return Err(errno);
                    }
                    waiters
                        .make_room()
                        .map_err(|errno| if errno == Errno::NOSPC { Errno::NOMEM } else { errno })?;
                }
            }
        }
    }

    /// The lock, to clean up after an operation whose outcome is decided.
    fn enter_again<'w>(waiters: &Waiters<'w, Call<'_, '_, '_>>) -> Result<Guard<'w>> {
        let limit = Instant::now() + GRACE;
        loop {
            match waiters.enter(Some(limit)) {
                Err(Errno::INTR) => {}
                outcome => return outcome,
            }
        }
    }

    /// `msgrcv`: receives a message into `out`: its type and its length. `kind` is `msgtyp`; `flags`: `IPC_NOWAIT`,
    /// `MSG_NOERROR`, `MSG_EXCEPT`, `MSG_COPY`.
    ///
    /// # Errors
    /// `ENOMSG`: there is none (`IPC_NOWAIT`, or [`Patience::None`]). `E2BIG`: it is longer than `out`; it stays (without
    /// `MSG_NOERROR`). `EINVAL`: `MSG_COPY` without `IPC_NOWAIT`, or with `MSG_EXCEPT`, or of a message longer than `out`
    /// with `MSG_NOERROR`. `ETIMEDOUT`. `EINTR`: a signal handler ran. `EIDRM`: the queue was removed. `EUCLEAN`: the
    /// segment does not hold what it must.
    #[inline]
    pub fn recv(&self, out: &mut [u8], kind: i64, flags: i32, patience: Patience) -> Result<(i64, usize)> {
        loop {
            let outcome = if flags & libc::MSG_COPY == 0 {
                self.try_recv(out, kind, flags, patience)
            } else {
                self.copy(out, kind, flags, patience)
            };
            match outcome {
                // Somebody has changed who may use the queue.
                Err(Errno::RESTART) => {}
                outcome => return outcome,
            }
        }
    }

    #[inline]
    fn try_recv(&self, out: &mut [u8], kind: i64, flags: i32, patience: Patience) -> Result<(i64, usize)> {
        let store = Store::of(&self.segment)?;
        let patience = if flags & libc::IPC_NOWAIT != 0 { Patience::None } else { patience };
        let how = if kind >= 0 && flags & libc::MSG_EXCEPT == 0 {
            let got = Got { kind: Cell::new(0), len: Cell::new(0), has_drained: Cell::new(false) };
            let may_cut = flags & libc::MSG_NOERROR != 0;
            match self.recv_alone(&store, out, kind, may_cut, patience, &got) {
                Ok(Alone::Done) => {
                    if got.has_drained.get() {
                        self.tidy_now(&store);
                    }
                    return Ok((got.kind.get(), got.len.get()));
                }
                Ok(Alone::Otherwise(how)) => how,
                Err(Errno::AGAIN) => return Err(Errno::NOMSG),
                Err(errno) => return Err(errno),
            }
        } else {
            General::new()
        };
        self.recv_among_others(&store, out, kind, flags, patience, how)
    }

    #[inline(never)]
    fn recv_among_others(
        &self,
        store: &Store<'_>,
        out: &mut [u8],
        kind: i64,
        flags: i32,
        patience: Patience,
        how: General,
    ) -> Result<(i64, usize)> {
        let mut how = Some(how);
        let room = out.len() as u64;
        let call = Call::new(store, kind, &[], out);
        self.rights.check(&self.segment, READ)?;
        let waiters = self.waiters(&call)?;
        let process = Thread::current().process();
        let marks = u64::from(flags.cast_unsigned()) | u64::from(call.state) << 32;
        let request = [RECEIVE, 0, kind as u64, room, u64::from(process), marks, 0];
        let mut may_index = kind < 0;
        let mut lacks_place = false;
        let mut claimed = None;
        loop {
            let how = how.take().unwrap_or_default();
            let outcome = waiters.run_on(how, &mut { request }, patience, |guard, _| {
                call.begin()?;
                if may_index && !store.is_small() {
                    store.make_least(guard)?;
                }
                let Some(found) = call.find(guard, kind, flags, room)? else { return Ok(false) };
                if call.wanted(found.size) <= LARGE_BYTES {
                    return call.take(guard, &found, process).map(|()| true);
                }
                lacks_place = true;
                let stake = waiters.stake(guard, &[CLAIMED, u64::from(found.unit), 0, 0, 0, 0, 0])?;
                lacks_place = false;
                store.claim(guard, &found)?;
                store.stamp(guard, RECEIVED, process)?;
                claimed = Some((stake, found));
                Ok(true)
            });
            match outcome {
                Ok(_) => break,
                Err(Errno::NOBUFS) if lacks_place => {
                    lacks_place = false;
                    waiters.make_room()?;
                }
                // The index is for speed: it can be done without.
                Err(Errno::NOBUFS) => may_index = may_index && self.make_memory(store, &waiters).is_ok(),
                Err(Errno::NOMEM) if may_index => may_index = false,
                Err(Errno::AGAIN) => return Err(Errno::NOMSG),
                Err(errno) => return Err(errno),
            }
        }
        if let Some((stake, found)) = claimed {
            Self::fetch_claimed(&call, &waiters, stake, &found)?;
        }
        if call.has_drained.get() {
            self.tidy(store, &waiters);
        }
        Ok(call.got.get())
    }

    /// Copies a large message that this thread has claimed, and frees it.
    #[cold]
    fn fetch_claimed<'w>(
        call: &Call<'_, '_, '_>,
        waiters: &Waiters<'w, Call<'_, '_, '_>>,
        stake: Stake<'w>,
        found: &Found,
    ) -> Result<()> {
        let len = call.store.read_payload(found.unit, found.size, &call.out)?;
        let mut guard = Self::enter_again(waiters)?;
        call.store.finish_claim(&mut guard, found.unit)?;
        call.note_drained()?;
        let outcome = waiters.give_up(&mut guard, stake);
        waiters.leave(guard);
        call.got.set((found.kind, len));
        outcome
    }

    /// `MSG_COPY`: the message at an index, which stays.
    #[cold]
    fn copy(&self, out: &mut [u8], index: i64, flags: i32, patience: Patience) -> Result<(i64, usize)> {
        if flags & libc::MSG_EXCEPT != 0 || flags & libc::IPC_NOWAIT == 0 {
            return Err(Errno::INVAL);
        }
        let store = Store::of(&self.segment)?;
        let room = out.len();
        let call = Call::new(&store, index, &[], out);
        self.rights.check(&self.segment, READ)?;
        let waiters = self.waiters(&call)?;
        for round in 1..=COPIES_MAX {
            let guard = waiters.enter(patience.deadline())?;
            let version = Lock::of(&self.segment).version(lock::Change::Any);
            let seen = call.see(&guard, index, room, flags);
            let is_last = round == COPIES_MAX;
            let copied = seen.and_then(|(unit, kind, size)| {
                if size as usize > LARGE_BYTES && !is_last {
                    return Ok(None);
                }
                store.read_payload(unit, size, &call.out).map(|len| Some((kind, len)))
            });
            waiters.leave(guard);
            if let Some(copied) = copied? {
                return Ok(copied);
            }
            // Without the lock: it counts if nothing at all has changed meanwhile.
            let (unit, kind, size) = seen?;
            let len = store.read_payload(unit, size, &call.out);
            let guard = waiters.enter(patience.deadline())?;
            let is_same = Lock::of(&self.segment).version(lock::Change::Any) == version;
            waiters.leave(guard);
            if is_same {
                return len.map(|len| (kind, len));
            }
        }
        Err(Errno::UCLEAN)
    }

    /// [`SysvQueue::tidy`] after the short way.
    #[cold]
    #[inline(never)]
    fn tidy_now(&self, store: &Store<'_>) {
        let call = Call::new(store, 0, &[], &mut []);
        if let Ok(waiters) = self.waiters(&call) {
            self.tidy(store, &waiters);
        }
    }

    #[inline]
    fn place(&self) -> Place {
        Place { base: HEADER_BYTES + WAITERS, capacity: BLOCKED_MAX, room: 0 }
    }

    #[inline]
    fn waiters<'w, O: Object>(&'w self, call: &'w O) -> Result<Waiters<'w, O>> {
        Waiters::of(&self.segment, HEADER_BYTES + WAITERS, BLOCKED_MAX, call)
    }

    /// Gets the memory that an operation lacked, without the lock.
    #[cold]
    fn make_memory<'w, O: Object>(&self, store: &Store<'w>, waiters: &Waiters<'w, O>) -> Result<()> {
        let outcome = match store.heap.make_from_holes(waiters, PAGES) {
            Ok(false) => Ok(()),
            Ok(true) => self.note_regrown(),
            // It was not memory that was lacking, but a place for a stake in it.
            Err(Errno::NOBUFS) => waiters.make_room(),
            Err(errno) => Err(errno),
        };
        outcome.map_err(|errno| if errno == Errno::NOSPC { Errno::NOMEM } else { errno })
    }

    /// A hint: who drains a queue that is filled all the time keeps some memory.
    fn note_regrown(&self) -> Result<()> {
        let word = self.segment.word64(HEADER_BYTES + REGROWN)?;
        let (before, now) = (word.load(Ordering::Relaxed), seconds());
        if before & REGROWN_SINCE == 0 {
            let count = if now.wrapping_sub(before >> 8) <= 1 { (before & 0x3f).min(0x3e) + 1 } else { 1 };
            word.store(now << 8 | REGROWN_SINCE | count, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back the memory of an empty queue. The caller's operation is done, whatever becomes of this.
    #[cold]
    fn tidy<'w, O: Object>(&self, store: &Store<'w>, waiters: &Waiters<'w, O>) {
        let often = self.segment.word64(HEADER_BYTES + REGROWN).map_or(0, |word| {
            let often = word.load(Ordering::Relaxed);
            if often & REGROWN_SINCE != 0 {
                word.store(often & !REGROWN_SINCE, Ordering::Relaxed);
            }
            often
        });
        let is_busy = often & 0x3f >= REGROWN_OFTEN && seconds().wrapping_sub(often >> 8) <= 1;
        let kept = if is_busy { KEPT_PAGES } else { 0 };
        if is_busy && store.heap.free_pages_now().is_ok_and(|free| free <= kept) {
            return;
        }
        let limit = Instant::now() + GRACE;
        let outcome = waiters.enter(Some(limit)).and_then(|mut guard| {
            let shrunk = store.shrink(&mut guard);
            if shrunk.is_ok() {
                waiters.serve_others(guard)
            } else {
                waiters.leave(guard);
                shrunk
            }
        });
        if outcome.is_ok() {
            let _ = store.heap.give_back(waiters, PAGES, kept, Some(limit));
        }
    }
}

/// Makes an empty queue of a new segment.
fn fill(segment: &Segment, bytes_max: u64) -> Result<()> {
    segment.extend(FIRST_PAGE as usize * PAGE_BYTES)?;
    let word = |field: usize| segment.word64(HEADER_BYTES + field);
    word(LIMIT)?.store(bytes_max, Ordering::Relaxed);
    word(SHAPE)?.store(u64::from(order::SMALL) * 0x1_0001, Ordering::Relaxed);
    word(CHANGED)?.store(seconds(), Ordering::Relaxed);
    Ok(())
}
