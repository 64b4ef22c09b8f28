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
//! A drained queue gives its memory back, but for a page in 256 of what it had. One that is filled and drained several
//! times a second keeps up to 16 MiB until that ends.
//!
//! `msg_lrpid` is a thread's id if the receiver had to wait, and else a process's: so the kernel has it.
//!
//! Deliberate differences: `MSG_COPY` works whatever the kernel was built with; a queue is full when it holds some four
//! million messages, whatever its limit in bytes.
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

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::lock::{self, Guard, Lock};
use crate::namespace::{self, Kind, Namespace, REMOVED, Rights};
use crate::primitive::{Ordering, Thread, seconds};
use crate::segment::{HEADER_BYTES, PAGE_BYTES, Reader, Segment};
use crate::wait::{Alone, General, Object, Patience, Place, Stake, Waiters, Words};
use crate::{Errno, Result};

mod call;
mod descriptor;
mod least;
mod memory;
mod order;
mod quick;
mod store;
mod table;
mod types;

use call::{CLAIMED, Call, PREPARED, PROCESS, RECEIVE, SEND, UNIT};
use descriptor::Bell;
pub(crate) use descriptor::dismiss;
use quick::{Got, Trail};
use store::{
    BLOCKED_MAX, CHANGED, COUNTS, FIRST_PAGE, Found, LIMIT, RECEIVED, SENT, SHAPE, Store, WAITERS, WHOLE_MAX,
};

/// The largest message.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// From how many bytes on a payload is copied without the lock.
pub const LARGE_BYTES: usize = 8192;
/// The memory of messages of as many bytes is fetched before the lock is taken.
const WARMED_BYTES: usize = 2048;

/// What permission it takes to receive.
const READ: u32 = 0o444;
/// What permission it takes to send.
const WRITE: u32 = 0o222;
/// The most that a queue's file may grow to.
const CAPACITY: usize = 1 << 34;
/// How long an operation whose outcome is decided tries for the lock to clean up after itself. Others do it otherwise.
const GRACE: Duration = Duration::from_secs(1);
/// How often a large message that stays is copied without the lock before it is copied with it.
const COPIES_MAX: u32 = 8;

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
    /// Whether the last message that was received here was long: so will be the next.
    was_long: AtomicBool,
    trail: Trail,
    bell: Bell,
}

impl SysvQueue {
    /// Finds a queue or makes one; `msgget(2)`. Gives its id.
    ///
    /// # Errors
    /// Those of [`Namespace::get`].
    pub fn get(home: &Namespace, key: i32, flags: i32) -> Result<i32> {
        let bytes_max = home.limits().msgmnb;
        home.get(Kind::SysvQueue, key, flags, 0, |draft| {
            draft.segment(CAPACITY, |segment| {
                fill(segment, bytes_max)?;
                descriptor::provide_new(home, segment, flags.cast_unsigned())
            })
        })
    }

    /// Opens a queue by its id.
    ///
    /// # Errors
    /// As [`Namespace::open_id`]. `EUCLEAN`: it holds no queue.
    pub fn open(home: &Namespace, id: i32) -> Result<SysvQueue> {
        let limit = usize::try_from(home.limits().msgmax).unwrap_or(usize::MAX);
        SysvQueue::of(home, home.open_id(Kind::SysvQueue, id)?, limit.min(MESSAGE_BYTES_MAX))
    }

    fn of(home: &Namespace, segment: Segment, message_max: usize) -> Result<SysvQueue> {
        segment.words::<8>(HEADER_BYTES + WAITERS)?;
        let rights = Rights::of(&segment);
        Ok(SysvQueue {
            segment,
            rights,
            message_max,
            was_long: AtomicBool::new(false),
            trail: Trail::default(),
            bell: Bell::of(home)?,
        })
    }

    /// `IPC_STAT`. It takes the permission to read alone.
    ///
    /// # Errors
    /// As [`Namespace::stat`].
    pub fn status(home: &Namespace, id: i32) -> Result<Status> {
        let object = home.stat(Kind::SysvQueue, id)?;
        // Who may write it as well takes the lock: what somebody is just doing, or has died in, does not show.
        let queue = SysvQueue::open(home, id);
        let call_store = queue.as_ref().ok().and_then(|queue| Store::of(&queue.segment).ok());
        let call = call_store.as_ref().map(|store| Call::new(store, 0, &[], &mut []));
        let waiters = match (&queue, &call) {
            (Ok(queue), Some(call)) => queue.waiters(call).ok(),
            _ => None,
        };
        let guard = waiters.as_ref().and_then(|waiters| Self::enter_again(waiters).ok());
        let status = Self::read_status(&object, &home.read_id(Kind::SysvQueue, id)?);
        if let (Some(waiters), Some(guard)) = (&waiters, guard) {
            waiters.leave(guard);
        }
        if let Ok(queue) = &queue {
            queue.see_to_the_rest();
        }
        status
    }

    fn read_status(object: &namespace::Status, reader: &Reader) -> Result<Status> {
        let word = |field: usize| reader.word64(HEADER_BYTES + field);
        let (messages, bytes) = store::counts_in(word(COUNTS)?);
        let ((sent, last_sender), (received, last_receiver)) =
            (store::stamp_in(word(SENT)?), store::stamp_in(word(RECEIVED)?));
        Ok(Status {
            object: *object,
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
        let queue = SysvQueue::of(home, Segment::of(found.file)?, 0)?;
        // Who cannot poll is told so when he asks.
        let _ = descriptor::provide(home, &queue.segment, change.uid, change.gid, change.mode & 0o777);
        let store = Store::of(&queue.segment)?;
        let call = Call::new(&store, 0, &[], &mut []);
        let attempt = |guard: &mut Guard<'_>, _: &mut Words| {
            if namespace::state(&queue.segment) & REMOVED != 0 {
                return Err(Errno::IDRM);
            }
            store.set(guard, LIMIT, change.bytes_max)?;
            store.set(guard, CHANGED, seconds())?;
            SysvQueue::note_limit(&store, guard)?;
            Ok(true)
        };
        let outcome = queue.waiters(&call)?.run_own(Words::default(), Patience::Endless, attempt);
        queue.see_to_the_rest();
        outcome.map(drop)
    }

    /// Removes a queue: who is blocked gets `EIDRM`, who comes later `EINVAL`; `IPC_RMID`.
    ///
    /// # Errors
    /// As [`Namespace::remove_id`].
    pub fn remove(home: &Namespace, id: i32) -> Result<()> {
        home.remove_id(Kind::SysvQueue, id, |segment| {
            let file = segment.file()?.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            SysvQueue::of(home, Segment::of(file)?, 0)?.dismiss()
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
        let mut again = false;
        loop {
            match self.try_send(kind, payload, flags, patience, again) {
                // Somebody has changed who may use the queue.
                Err(Errno::RESTART) => again = true,
                outcome => return outcome,
            }
        }
    }

    #[inline]
    fn try_send(&self, kind: i64, payload: &[u8], flags: i32, patience: Patience, again: bool) -> Result<()> {
        if kind < 1 || payload.len() > self.message_max {
            return Err(Errno::INVAL);
        }
        let patience = if flags & libc::IPC_NOWAIT != 0 { Patience::None } else { patience };
        let how = if payload.len() <= WHOLE_MAX {
            match self.send_alone(kind, payload, patience) {
                Ok(Alone::Done) => return Ok(()),
                Ok(Alone::Otherwise(how)) => how,
                Err(Errno::AGAIN) if self.note_refused() => General::default(),
                Err(errno) => return Err(errno),
            }
        } else {
            General::default()
        };
        let how = General { has_waited: how.has_waited || again, ..how };
        self.send_among_others(kind, payload, patience, how)
    }

    #[inline(never)]
    fn send_among_others(&self, kind: i64, payload: &[u8], patience: Patience, how: General) -> Result<()> {
        let mut outcome = self.send_generally(kind, payload, patience, how);
        if outcome == Err(Errno::AGAIN) && self.note_refused() {
            outcome = self.send_generally(kind, payload, patience, General::default());
        }
        self.see_to_the_rest();
        outcome
    }

    fn send_generally(&self, kind: i64, payload: &[u8], patience: Patience, how: General) -> Result<()> {
        let store = Store::of(&self.segment)?;
        let call = Call::new(&store, kind, payload, &mut []);
        call.has_begun.set(how.has_waited);
        let mut how = Some(how);
        self.rights.check(&self.segment, WRITE)?;
        let waiters = self.waiters(&call)?;
        if payload.len() > LARGE_BYTES {
            return self.send_large(&call, &waiters, patience);
        }
        if payload.len() > WHOLE_MAX {
            store.warm_for_sending(payload.len());
        }
        let size = payload.len() as u32;
        let state = u64::from(call.state) << 32;
        let request =
            [SEND, 0, kind as u64, u64::from(size), u64::from(Thread::current().process()), state, 0];
        loop {
            let (how, mut words) = (how.take().unwrap_or_default(), request);
            let outcome = waiters.run_on(how, &mut words, patience, |guard, words| {
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
                Err(Errno::NOBUFS) => self.make_memory(&store, &waiters, patience)?,
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
                    Err(Errno::NOBUFS) => waiters.make_room(patience)?,
                    Err(Errno::NOSPC) => break Err(Errno::NOMEM),
                    outcome => break outcome.map(drop),
                }
            }
        });
        // If the lock is not to be had, others find the stake of somebody who has left. A message that was sent is sent.
        let Ok(mut guard) = Self::enter_again(waiters) else { return outcome };
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
            let mut guard = waiters.enter_with(patience)?;
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
                    self.make_memory(call.store, waiters, patience)?;
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
                        .make_room(patience)
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
        let mut again = false;
        loop {
            let outcome = if flags & libc::MSG_COPY == 0 {
                self.try_recv(out, kind, flags, patience, again)
            } else {
                // It takes `IPC_NOWAIT`.
                match self.copy(out, kind, flags, Patience::None) {
                    Err(Errno::AGAIN) => Err(Errno::NOMSG),
                    copied => copied,
                }
            };
            match outcome {
                // Somebody has changed who may use the queue.
                Err(Errno::RESTART) => again = true,
                outcome => {
                    if let Ok((_, len)) = outcome {
                        let is_long = len >= WARMED_BYTES;
                        if is_long != self.was_long.load(Ordering::Relaxed) {
                            self.was_long.store(is_long, Ordering::Relaxed);
                        }
                    }
                    return outcome;
                }
            }
        }
    }

    #[inline]
    fn try_recv(
        &self,
        out: &mut [u8],
        kind: i64,
        flags: i32,
        patience: Patience,
        again: bool,
    ) -> Result<(i64, usize)> {
        let patience = if flags & libc::IPC_NOWAIT != 0 { Patience::None } else { patience };
        // What does not lie in one unit would be found to, with the lock, for nothing.
        let is_simple = kind >= 0 && flags & libc::MSG_EXCEPT == 0 && !self.was_long.load(Ordering::Relaxed);
        let how = if is_simple {
            let got = Got::default();
            let may_cut = flags & libc::MSG_NOERROR != 0;
            match self.recv_alone(out, kind, may_cut, patience, &got) {
                Ok(Alone::Done) => {
                    if got.has_drained.get() {
                        self.tidy_now();
                    }
                    return Ok((got.kind.get(), got.len.get()));
                }
                Ok(Alone::Otherwise(how)) => how,
                Err(Errno::AGAIN) if self.note_missed() => General::default(),
                Err(Errno::AGAIN) => return Err(Errno::NOMSG),
                Err(errno) => return Err(errno),
            }
        } else {
            General::default()
        };
        let how = General { has_waited: how.has_waited || again, ..how };
        self.recv_among_others(out, kind, flags, patience, how)
    }

    #[inline(never)]
    fn recv_among_others(
        &self,
        out: &mut [u8],
        kind: i64,
        flags: i32,
        patience: Patience,
        how: General,
    ) -> Result<(i64, usize)> {
        let mut outcome = self.recv_generally(out, kind, flags, patience, how);
        if outcome == Err(Errno::NOMSG) && self.note_missed() {
            outcome = self.recv_generally(out, kind, flags, patience, General::default());
        }
        self.see_to_the_rest();
        outcome
    }

    fn recv_generally(
        &self,
        out: &mut [u8],
        kind: i64,
        flags: i32,
        patience: Patience,
        how: General,
    ) -> Result<(i64, usize)> {
        let store = Store::of(&self.segment)?;
        let room = out.len() as u64;
        let mut call = Call::new(&store, kind, &[], out);
        call.was_long = self.was_long.load(Ordering::Relaxed);
        call.has_begun.set(how.has_waited);
        let has_waited = Cell::new(how.has_waited);
        let mut how = Some(how);
        call.store.warm_for_receiving(call.was_long, kind);
        self.rights.check(&self.segment, READ)?;
        let waiters = self.waiters(&call)?;
        // What is there is the process's, what was waited for is the thread's: so the kernel has it.
        let (process, thread) = (Thread::current().process(), Thread::current().id());
        let marks = u64::from(flags.cast_unsigned()) | u64::from(call.state) << 32;
        let request = [RECEIVE, 0, kind as u64, room, u64::from(thread), marks, 0];
        let mut may_index = kind < 0;
        let mut lacks_place = false;
        let mut claimed = None;
        loop {
            let (how, mut words) = (how.take().unwrap_or_default(), request);
            let outcome = waiters.run_on(how, &mut words, patience, |guard, _| {
                call.begin()?;
                if may_index && !store.is_small() {
                    store.make_least(guard)?;
                }
                let Some(found) = call.find(guard, kind, flags, room)? else {
                    has_waited.set(true);
                    return Ok(false);
                };
                let process = if has_waited.get() { thread } else { process };
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
                    waiters.make_room(patience)?;
                }
                // The index is for speed: it can be done without.
                Err(Errno::NOBUFS) => {
                    may_index = may_index && self.make_memory(&store, &waiters, patience).is_ok()
                }
                Err(Errno::NOMEM) if may_index => may_index = false,
                Err(Errno::AGAIN) => return Err(Errno::NOMSG),
                Err(errno) => return Err(errno),
            }
        }
        if let Some((stake, found)) = claimed {
            Self::fetch_claimed(&call, &waiters, stake, &found)?;
        }
        if call.has_drained.get() {
            self.tidy(&store, &waiters);
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
            let guard = waiters.enter_with(patience)?;
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
            let guard = waiters.enter_with(patience)?;
            let is_same = Lock::of(&self.segment).version(lock::Change::Any) == version;
            waiters.leave(guard);
            if is_same {
                return len.map(|len| (kind, len));
            }
        }
        Err(Errno::UCLEAN)
    }

    #[inline]
    fn place(&self) -> Place {
        Place { base: HEADER_BYTES + WAITERS, capacity: BLOCKED_MAX, room: 0 }
    }

    #[inline]
    fn waiters<'w, O: Object>(&'w self, call: &'w O) -> Result<Waiters<'w, O>> {
        Waiters::of(&self.segment, HEADER_BYTES + WAITERS, BLOCKED_MAX, call)
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
