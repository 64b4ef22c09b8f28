//! POSIX message queue: `mq_overview(7)`, `mq_open(3)`, `mq_send(3)`, `mq_receive(3)`, `mq_notify(3)`.
//!
//! # What a user sees
//! What the kernel's queue does, with limits of one's own choosing for each queue. Differences: blocked threads are served
//! in the order in which they came, whatever their scheduling priority; what `notify` and `descriptor` say of notices and of
//! the descriptor.
//!
//! A message longer than [`LARGE`] is copied without the lock.
//!
//! # How it works inside
//! Where messages lie, and how the first is found: `store`. Who is blocked: [`wait`](crate::wait). A blocked sender has
//! put its message into a slot already; who makes room puts that slot into the list. A blocked receiver is given a slot,
//! and empties it when it runs again, in the transaction in which it leaves the list of the blocked. A message that comes
//! while a receiver is blocked thus goes to it before anybody else can have the lock.
//!
//! A large message has a slot that a *stake* holds: the sender copies into it, then puts it into the list (or is blocked
//! with it); the receiver takes it out of the list, then copies. Who puts a slot into the list, or gives it to a blocked
//! receiver, changes the word of the stake in the same transaction, so that there is one who answers for the slot at any
//! moment.
//!
//! # Crash points
//! | killed | what is left |
//! | --- | --- |
//! | sending, before the commit | nothing; the slot of a large message is free again (`forfeit`), or that of one blocked (`abandon`) |
//! | sending, after it | the message, whether it was still blocked or not: its send has happened |
//! | receiving, before the commit | the message, at its place |
//! | blocked, having been given a message that it did not take yet | the message, before all others of its priority (`take_back`) |
//! | copying a large message out | the same (`forfeit`) |
//! | between reserving memory and noting it | memory that nobody knows of; reserving it again finds it there |
//! | changing the arenas, before their memory was given back | the next to find the queue empty and large gives it back |
//!
//! A message that is put back may be one more than the queue is to hold: it is full until that one is gone.

use std::sync::atomic::AtomicBool;

use crate::lock::Guard;
use crate::message::doorbell::{self, BellName, Doorbell, within_grace};
use crate::namespace::{Draft, Kind, Namespace, random};
use crate::primitive::{Ordering, Thread, thread_exists};
use crate::segment::Segment;
use crate::wait::{Alone, General, Object, Patience, Stake, Waiters, Words};
use crate::{Errno, Result};

mod call;
mod descriptor;
mod file;
mod flags;
mod notify;
mod quick;
mod store;

use call::{Call, Long};
use flags::Flags;
pub use notify::{Notification, Registration};
use quick::{Got, Last};
use store::{
    BELL_NAME, BYTES, Geometry, KIND, LIMIT_BYTES, LIMIT_MESSAGES, NOTICE, OUT_OF_STEP, State, Store, Stored,
};

/// One more than the highest priority.
pub const PRIORITIES: u32 = store::PRIORITIES;
/// Messages of more bytes are copied without the lock.
pub const LARGE: usize = 8 << 10;
/// The memory of messages of as many bytes is fetched before the lock is taken.
const WARMED: usize = 2048;

/// "posixmq" and the version of what follows.
const POSIX_QUEUE: u64 = u64::from_le_bytes(*b"posixmq\x01");
/// How often to try again what others have made impossible meanwhile. What is impossible for longer is not sound.
const TRIES_MAX: u32 = 1000;

// What a blocked operation asks. The second word is the slot of a message, the third the place of a stake's word that
// names it, or 0.
const SEND: u64 = 1;
const RECEIVE: u64 = 2;
/// The second word is a registration, the third becomes 1 if a notice has ended it.
const NOTICE_AWAITED: u64 = 3;

// What a stake holds; the second word is the slot, or 0.
const TO_SEND: u64 = 1;
const RECEIVED: u64 = 2;

/// What a queue is made for: `mq_maxmsg` and `mq_msgsize` of `mq_attr`.
///
/// ```
/// use ginnel_engine::message::posix_queue::QueueLimits;
///
/// let limits = QueueLimits { messages_max: 1000, message_bytes_max: 64 };
/// assert_ne!(limits, QueueLimits { messages_max: 10, ..limits });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// The most messages that it holds.
    pub messages_max: u64,
    /// The longest message that it takes.
    pub message_bytes_max: u64,
}

/// A queue's state: `mq_attr` of `mq_getattr(3)`, and the bytes that `mq_overview(7)` shows of its file.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::posix_queue::PosixQueue;
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let queue = PosixQueue::open(&home, b"/state", libc::O_RDWR | libc::O_CREAT, 0o600, None)?;
/// queue.send(1, b"sweep", Patience::Endless)?;
/// let attributes = queue.attributes()?;
/// assert_eq!((attributes.messages, attributes.bytes, attributes.flags), (1, 5, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `O_NONBLOCK` of this open queue, or 0.
    pub flags: i32,
    /// What it was made for.
    pub limits: QueueLimits,
    /// Messages in the queue now.
    pub messages: u64,
    /// Bytes of payload in the queue now.
    pub bytes: u64,
}

/// What [`PosixQueue::receive`] took from the queue; the payload is in the caller's buffer.
///
/// ```
/// use ginnel_engine::message::posix_queue::Received;
///
/// let got = Received { priority: 9, len: 5 };
/// assert_eq!(&b"sweep the yard"[..got.len], b"sweep");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The priority it was sent with.
    pub priority: u32,
    /// How many bytes of the buffer it fills.
    pub len: usize,
}

/// An open POSIX message queue. A fork shares it, as it shares the kernel's.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::message::posix_queue::{PosixQueue, Received};
/// use ginnel_engine::namespace::Namespace;
/// use ginnel_engine::wait::Patience;
///
/// let home = Namespace::private()?;
/// let queue = PosixQueue::open(&home, b"/jobs", libc::O_RDWR | libc::O_CREAT, 0o600, None)?;
/// queue.send(1, b"sweep the yard", Patience::Endless)?;
/// queue.send(9, b"the kettle boils", Patience::Endless)?;
///
/// let mut buffer = [0; 8192];
/// let got = queue.receive(&mut buffer, Patience::Endless)?;
/// assert_eq!(got, Received { priority: 9, len: 16 });
/// assert_eq!(&buffer[..got.len], b"the kettle boils");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PosixQueue {
    segment: Segment,
    geometry: Geometry,
    may_receive: bool,
    may_send: bool,
    flags: Flags,
    bell: Doorbell,
    /// Whether the last message that was received here was long: so will be the next.
    was_long: AtomicBool,
    last: Last,
}

impl PosixQueue {
    /// Opens the queue of this name (`/jobs`) in a namespace, or makes it: `O_RDONLY`, `O_WRONLY` or `O_RDWR`, with
    /// `O_CREAT`, `O_EXCL`, `O_NONBLOCK` (`mq_open(3)`). Of the mode of a new queue the umask takes its part; its limits
    /// are the namespace's default ones if none are given.
    ///
    /// # Errors
    /// Those of [`Namespace::open_or_create`]. `EINVAL`: a limit that is 0, or above the namespace's; neither reading nor
    /// writing, of a queue that exists. `ENOMEM`: more than a process can map. `ENOSPC`: the file system is full.
    /// `EMFILE`, `ENFILE`. `EUCLEAN`: the file holds no queue.
    pub fn open(
        home: &Namespace,
        name: &[u8],
        flags: i32,
        mode: u32,
        limits: Option<QueueLimits>,
    ) -> Result<PosixQueue> {
        for _ in 0..TRIES_MAX {
            let mut drafted = None;
            let opened = home.open_or_create(Kind::PosixQueue, name, flags, mode, |draft| {
                let (segment, bell) = PosixQueue::draft(home, draft, limits)?;
                drafted = Some(bell);
                Ok(segment)
            });
            let (segment, made) = match opened {
                Ok((segment, true)) => (segment, true),
                otherwise => {
                    // Somebody else was first.
                    if let Some(bell) = drafted {
                        bell.remove(home);
                    }
                    otherwise?
                }
            };
            if !made && flags & libc::O_ACCMODE == libc::O_ACCMODE {
                return Err(Errno::INVAL);
            }
            let bell = bell_name(&segment).and_then(|name| name.open_or_make(home, segment.file()?));
            match bell {
                // It has just been unlinked.
                Err(Errno::NOENT) => {}
                bell => return PosixQueue::with(segment, bell?, flags),
            }
        }
        Err(Errno::UCLEAN)
    }

    /// A queue that nobody knows yet, and its FIFO's name.
    fn draft(
        home: &Namespace,
        draft: &Draft<'_>,
        limits: Option<QueueLimits>,
    ) -> Result<(Segment, BellName)> {
        let most = home.limits();
        let limits = limits.unwrap_or(QueueLimits {
            messages_max: most.msg_default,
            message_bytes_max: most.msgsize_default,
        });
        if limits.messages_max > most.msg_max || limits.message_bytes_max > most.msgsize_max {
            return Err(Errno::INVAL);
        }
        let geometry = Geometry::new(limits.messages_max, limits.message_bytes_max)?;
        let mut bell = None;
        let segment = draft.segment(geometry.capacity, |segment| {
            let number = random()?;
            let words = [
                (KIND, POSIX_QUEUE),
                (LIMIT_MESSAGES, limits.messages_max),
                (LIMIT_BYTES, limits.message_bytes_max),
                (BELL_NAME, number),
            ];
            for (place, value) in words {
                segment.word64(place)?.store(value, Ordering::Relaxed);
            }
            let name = bell_name(segment)?;
            name.make(home, segment.file()?)?;
            bell = Some(name);
            Ok(())
        })?;
        Ok((segment, bell.ok_or(Errno::UCLEAN)?))
    }

    /// What it is open for: `O_RDONLY`, `O_WRONLY`, `O_RDWR`.
    pub fn access(&self) -> i32 {
        match (self.may_receive, self.may_send) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        }
    }

    fn with(segment: Segment, bell: Doorbell, flags: i32) -> Result<PosixQueue> {
        let word = |place| Ok(segment.word64(place)?.load(Ordering::Relaxed));
        if word(KIND)? != POSIX_QUEUE {
            return Err(Errno::UCLEAN);
        }
        let geometry = Geometry::new(word(LIMIT_MESSAGES)?, word(LIMIT_BYTES)?).map_err(|_| Errno::UCLEAN)?;
        if geometry.capacity != segment.capacity() {
            return Err(Errno::UCLEAN);
        }
        let access = flags & libc::O_ACCMODE;
        Ok(PosixQueue {
            geometry,
            may_receive: access == libc::O_RDONLY || access == libc::O_RDWR,
            may_send: access == libc::O_WRONLY || access == libc::O_RDWR,
            flags: Flags::new(flags & libc::O_NONBLOCK != 0)?,
            segment,
            bell,
            was_long: AtomicBool::new(false),
            last: Last::default(),
        })
    }

    /// Takes a queue's name away (`mq_unlink(3)`). Who has it open goes on using it.
    ///
    /// # Errors
    /// Those of [`Namespace::unlink_named`].
    pub fn unlink(home: &Namespace, name: &[u8]) -> Result<()> {
        let mut bell = None;
        // Who may unlink it may not be allowed to open it, and what is there may be no queue.
        if let Ok((segment, _)) = home.open_or_create(Kind::PosixQueue, name, 0, 0, |_| Err(Errno::NOENT)) {
            bell = bell_name(&segment).ok();
        }
        home.unlink_named(Kind::PosixQueue, name)?;
        if let Some(bell) = bell {
            bell.remove(home);
        }
        Ok(())
    }

    /// Sends a message; blocked while the queue is full (`mq_send(3)`, `mq_timedsend(3)`).
    ///
    /// # Errors
    /// `EINVAL`: a priority of [`PRIORITIES`] or more. `EBADF`: not open for sending. `EMSGSIZE`: longer than the queue
    /// takes. `EAGAIN`: full, and this open queue is `O_NONBLOCK`, or there is no patience. `ETIMEDOUT`, `EINTR`. `ENOMEM`:
    /// the file system is full. `EUCLEAN`. In each case nothing was sent.
    #[inline]
    pub fn send(&self, priority: u32, payload: &[u8], patience: Patience) -> Result<()> {
        if priority >= PRIORITIES {
            return Err(Errno::INVAL);
        }
        if !self.may_send {
            return Err(Errno::BADF);
        }
        if payload.len() > self.geometry.message_bytes_max {
            return Err(Errno::MSGSIZE);
        }
        let patience = self.patience(patience);
        if payload.len() > LARGE {
            return self.send_large(priority, payload, patience);
        }
        match self.send_alone(priority, payload, patience)? {
            Alone::Done => Ok(()),
            Alone::Otherwise(how) => self.send_among_others(priority, payload, patience, how),
        }
    }

    #[inline(never)]
    fn send_among_others(
        &self,
        priority: u32,
        payload: &[u8],
        patience: Patience,
        how: General,
    ) -> Result<()> {
        let mut how = Some(how);
        let mut call = Call::of(self);
        if payload.len() >= WARMED {
            call.long = Long::In(payload.len());
        }
        let waiters = call.waiters();
        let waits = patience != Patience::None;
        for _ in 0..TRIES_MAX {
            let (how, mut words) = (how.take().unwrap_or_default(), [SEND, 0, 0, 0, 0, 0, 0]);
            let outcome = waiters.run_on(how, &mut words, patience, |guard, words| {
                call.send_small(guard, words, priority, payload, waits)
            });
            self.see_to_the_rest();
            match outcome {
                Ok(()) => return Ok(()),
                Err(errno) => self.before_another_try(errno, priority, payload.len(), patience)?,
            }
        }
        Err(Errno::UCLEAN)
    }

    /// Receives the oldest message of the highest priority; blocked while there is none (`mq_receive(3)`,
    /// `mq_timedreceive(3)`).
    ///
    /// # Errors
    /// `EBADF`: not open for receiving. `EMSGSIZE`: the buffer is smaller than the longest message that the queue takes.
    /// `EAGAIN`, `ETIMEDOUT`, `EINTR`, `EUCLEAN` as [`PosixQueue::send`]. In each case nothing was received.
    #[inline]
    pub fn receive(&self, buffer: &mut [u8], patience: Patience) -> Result<Received> {
        if !self.may_receive {
            return Err(Errno::BADF);
        }
        if buffer.len() < self.geometry.message_bytes_max {
            return Err(Errno::MSGSIZE);
        }
        let patience = self.patience(patience);
        // With large messages about, one cannot be blocked without a stake.
        let may_block = self.geometry.message_bytes_max <= LARGE || patience == Patience::None;
        let got = Got::default();
        let outcome = match self.receive_alone(buffer, patience, may_block, &got) {
            Ok(Alone::Done) => {
                if got.has_surplus.get() {
                    self.give_memory_back();
                }
                Ok(Received { priority: got.priority.get(), len: got.len.get() })
            }
            Ok(Alone::Otherwise(how)) => self.receive_among_others(buffer, patience, may_block, how),
            Err(errno) => Err(errno),
        };
        match outcome {
            Ok(received) => {
                let is_long = received.len >= WARMED;
                if is_long != self.was_long.load(Ordering::Relaxed) {
                    self.was_long.store(is_long, Ordering::Relaxed);
                }
                Ok(received)
            }
            Err(Errno::FBIG) => self.receive_large(buffer, patience),
            Err(errno) => Err(full(errno)),
        }
    }

    #[inline(never)]
    fn receive_among_others(
        &self,
        buffer: &mut [u8],
        patience: Patience,
        may_block: bool,
        how: General,
    ) -> Result<Received> {
        let mut call = Call::of(self);
        call.buffer.set(buffer);
        if self.was_long.load(Ordering::Relaxed) {
            call.long = Long::Out;
        }
        let mut words = [RECEIVE, 0, 0, 0, 0, 0, 0];
        let outcome = call.waiters().run_on(how, &mut words, patience, |guard, words| {
            let is_done = call.receive_small(guard, words)?;
            if is_done || may_block { Ok(is_done) } else { Err(Errno::FBIG) }
        });
        self.see_to_the_rest();
        outcome?;
        if call.surplus.get() {
            self.give_memory_back();
        }
        Ok(Received { priority: words[3] as u32, len: words[4] as usize })
    }

    /// The queue's state (`mq_getattr(3)`).
    ///
    /// # Errors
    /// `EUCLEAN`. `EINTR`.
    pub fn attributes(&self) -> Result<Attributes> {
        let (messages, bytes) =
            self.look(|guard| Ok((u64::from(self.store().state(guard)?.count), guard.get(BYTES)?)))?;
        let limits = QueueLimits {
            messages_max: u64::from(self.geometry.messages_max),
            message_bytes_max: self.geometry.message_bytes_max as u64,
        };
        let flags = if self.flags.is_nonblocking() { libc::O_NONBLOCK } else { 0 };
        Ok(Attributes { flags, limits, messages, bytes })
    }

    /// Sets `O_NONBLOCK` of this open queue, or clears it (`mq_setattr(3)`).
    ///
    /// # Errors
    /// `EINVAL`: another flag.
    pub fn set_flags(&self, flags: i32) -> Result<()> {
        if flags & !libc::O_NONBLOCK != 0 {
            return Err(Errno::INVAL);
        }
        self.flags.set_nonblocking(flags != 0);
        Ok(())
    }

    #[inline]
    fn store(&self) -> Store<'_> {
        Store { segment: &self.segment, geometry: &self.geometry }
    }

    #[inline]
    fn patience(&self, patience: Patience) -> Patience {
        if self.flags.is_nonblocking() { Patience::None } else { patience }
    }

    /// With the lock, and without changing anything.
    fn look<T>(&self, see: impl FnOnce(&Guard<'_>) -> Result<T>) -> Result<T> {
        let seen = self.look_with(Patience::Endless, see);
        self.see_to_the_rest();
        seen
    }

    fn look_with<T>(&self, patience: Patience, see: impl FnOnce(&Guard<'_>) -> Result<T>) -> Result<T> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let guard = waiters.enter_with(patience)?;
        let seen = see(&guard);
        waiters.leave(guard);
        seen
    }

    /// A transaction that is neither a send nor a receive.
    fn change<T>(
        &self,
        patience: Patience,
        mut change: impl FnMut(&mut Guard<'_>) -> Result<T>,
    ) -> Result<T> {
        let call = Call::of(self);
        let mut result = Err(Errno::AGAIN);
        let outcome = call.waiters().run_own([0; 7], patience, |guard, _| {
            result = change(guard);
            result.as_ref().map(|_| true).map_err(|errno| *errno)
        });
        outcome.and(result)
    }

    /// Without the lock: what the last operation, or a dead one's, has left to do in system calls.
    #[inline]
    fn see_to_the_rest(&self) {
        let left = |place| self.segment.word64(place).map_or(0, |word| word.load(Ordering::Relaxed));
        if left(OUT_OF_STEP) | left(NOTICE) != 0 {
            // The operation itself is done: what fails here is left to the next one.
            let _ = self.send_notice(false);
            let _ = doorbell::ring(self);
        }
    }

    /// Does what an attempt has asked for, or fails as it did.
    #[cold]
    fn before_another_try(&self, errno: Errno, priority: u32, len: usize, patience: Patience) -> Result<()> {
        match errno {
            Errno::NOBUFS => self.make_room(priority, len, patience),
            Errno::ALREADY => self.send_notice(true),
            errno => Err(full(errno)),
        }
    }

    fn make_room(&self, priority: u32, len: usize, patience: Patience) -> Result<()> {
        let store = self.store();
        let wanted = self.look_with(patience, |guard| store.wanted(guard))?;
        let limit = store.make_room(&wanted, priority, len)?;
        self.change(patience, |guard| store.note(guard, &wanted, limit, priority, len))
    }

    /// Gives the memory of a queue that is empty, and was large, back to the kernel.
    #[cold]
    fn give_memory_back(&self) {
        let thread = Thread::current().id();
        let store = self.store();
        let call = Call::of(self);
        let giver = self.segment.word64(store::GIVER).map_or(0, |word| word.load(Ordering::Relaxed)) as u32;
        let giver_is_dead = giver != 0 && !thread_exists(giver);
        let surplus = self.change(Patience::None, |guard| match store.giver(guard)? {
            0 if store.state(guard)?.count == 0 && call.is_idle(guard)? && store.has_surplus(guard)? => {
                store.change_arenas(guard, thread).map(Some)
            }
            other if other != 0 && giver_is_dead && other == giver => {
                store.surplus_of_dead(guard, thread).map(Some)
            }
            _ => Ok(None),
        });
        if let Ok(Some(surplus)) = surplus {
            store.give_back(surplus);
            let _ = self.change(Patience::None, |guard| store.has_given_back(guard, thread));
        }
    }

    #[cold]
    fn send_large(&self, priority: u32, payload: &[u8], patience: Patience) -> Result<()> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let mut tries = 0..TRIES_MAX;
        let (stake, message) = loop {
            tries.next().ok_or(Errno::UCLEAN)?;
            match self.stake_for(&waiters, patience, |guard, state| {
                if patience == Patience::None && state.count >= self.geometry.messages_max {
                    return Err(Errno::AGAIN);
                }
                let message = self.store().take(guard, state, priority, payload.len())?;
                Ok(([TO_SEND, message.link, 0, 0, 0, 0, 0], message))
            }) {
                Ok(staked) => break staked,
                Err(Errno::NOBUFS) => {
                    self.make_room(priority, payload.len(), patience)?;
                    waiters.make_room(patience).map_err(full)?;
                }
                Err(errno) => return Err(full(errno)),
            }
        };
        let copied = self.store().copy_in(&message, payload);
        let request = [SEND, message.link, stake.word_offset(1) as u64, 0, 0, 0, 0];
        let outcome = copied.and_then(|()| {
            for _ in 0..TRIES_MAX {
                let outcome = waiters.run_own(request, patience, |guard, words| call.put(guard, words, true));
                match outcome {
                    Err(Errno::ALREADY) => self.send_notice(true)?,
                    outcome => return outcome,
                }
            }
            Err(Errno::UCLEAN)
        });
        let unsent = outcome.is_err().then_some(message);
        // One that cannot be ended in time is left as a dead one's: its message has gone, or goes with it.
        let _ = self.end_stake(&waiters, stake, unsent, patience);
        self.see_to_the_rest();
        outcome.map(drop).map_err(full)
    }

    #[cold]
    fn receive_large(&self, buffer: &mut [u8], patience: Patience) -> Result<Received> {
        let call = Call::of(self);
        let waiters = call.waiters();
        let mut tries = 0..TRIES_MAX;
        let stake = loop {
            tries.next().ok_or(Errno::UCLEAN)?;
            match self.stake_for(&waiters, patience, |_, _| Ok(([RECEIVED, 0, 0, 0, 0, 0, 0], ()))) {
                Ok((stake, ())) => break stake,
                Err(Errno::NOBUFS) => waiters.make_room(patience).map_err(full)?,
                Err(errno) => return Err(full(errno)),
            }
        };
        let request = [RECEIVE, 0, stake.word_offset(1) as u64, 0, 0, 0, 0];
        let outcome = waiters.run_own(request, patience, |guard, words| call.attempt(guard, words));
        let outcome = outcome.and_then(|words| {
            let message = self.store().stored(words[1])?;
            self.store().copy_out(&message, buffer)?;
            Ok(message)
        });
        // Where this fails, the stake is left as a dead one's, and the message goes back into the queue.
        let ended = self.end_stake(&waiters, stake, outcome.ok(), patience);
        self.see_to_the_rest();
        let message = outcome.and_then(|message| ended.map(|()| message)).map_err(full)?;
        if self.look_with(Patience::None, |guard| self.store().has_surplus(guard)) == Ok(true) {
            self.give_memory_back();
        }
        Ok(Received { priority: message.priority, len: message.len })
    }

    /// Takes a stake in the transaction in which `take` takes what it is to hold.
    fn stake_for<'a, T>(
        &'a self,
        waiters: &Waiters<'a, Call<'a, '_>>,
        patience: Patience,
        take: impl FnOnce(&mut Guard<'_>, &mut State) -> Result<(Words, T)>,
    ) -> Result<(Stake<'a>, T)> {
        let mut guard = waiters.enter_with(patience)?;
        let outcome = (|| {
            let mut state = self.store().state(&guard)?;
            let (words, taken) = take(&mut guard, &mut state)?;
            self.store().set_state(&mut guard, state)?;
            Ok((waiters.stake(&mut guard, &words)?, taken))
        })();
        if outcome.is_ok() {
            guard.checkpoint();
        }
        waiters.leave(guard);
        outcome
    }

    /// Ends a stake, and frees the slot that it held. If that fails, it is left as a dead one's.
    fn end_stake<'a>(
        &'a self,
        waiters: &Waiters<'a, Call<'a, '_>>,
        stake: Stake<'a>,
        message: Option<Stored>,
        patience: Patience,
    ) -> Result<()> {
        let limit = if patience == Patience::Endless { Patience::Endless } else { within_grace() };
        let mut guard = loop {
            match waiters.enter_with(limit) {
                Err(Errno::INTR) => {}
                outcome => break outcome?,
            }
        };
        let freed = message.map_or(Ok(()), |message| {
            let mut state = self.store().state(&guard)?;
            self.store().free(&mut state, &message)?;
            self.store().set_state(&mut guard, state)
        });
        let ended = freed.and_then(|()| waiters.give_up(&mut guard, stake));
        waiters.leave(guard);
        ended
    }
}

fn bell_name(segment: &Segment) -> Result<BellName> {
    BellName::of(segment.file()?, segment.word64(BELL_NAME)?.load(Ordering::Relaxed))
}

impl Drop for PosixQueue {
    fn drop(&mut self) {
        self.end_own_registration();
    }
}

/// What the file system's being full is to a caller of these functions.
fn full(errno: Errno) -> Errno {
    if errno == Errno::NOSPC { Errno::NOMEM } else { errno }
}
