//! System V message queue: `msgget(2)`, `msgop(2)`, `msgctl(2)`.
//!
//! # What a user sees
//! A queue of typed messages that outlives its processes, reached by a [`Key`] or by its id. Receivers select by type.
//! Differences from the bare calls: an empty payload is fine on both sides (as in C), [`SysvQueue::recv_vec`] finds the
//! size by itself, and the calls have deadlines, which the kernel's have not (see [`crate::deadline_signal`]).
//! `poll` does not work on a System V queue: it has no descriptor.
//!
//! A handle is an id: dropping it leaves the queue where it is, as `fclose` leaves a file. [`SysvQueue::private`] makes
//! a queue that nobody else can find by name; that one is removed with its handle.
//!
//! # How it works inside
//! The kernel wants the type in front of the payload, in one piece: payloads pass through a scratch buffer of the
//! thread's, which grows to the largest message seen.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::time::SystemTime;

use rustix::io::Errno;

use crate::error::{Error, Label, Result};
use crate::sysv::{self, GetFlags, Key, Permissions};
use crate::wait::{Attempt, check};
use crate::{Deadline, interrupt};

const FAMILY: &str = "sysv-msg";
const TYPE_BYTES: usize = size_of::<libc::c_long>();

/// Which message a receiver takes: the `msgtyp` of `msgrcv(2)`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue};
///
/// let queue = SysvQueue::private()?;
/// for message_type in [5, 3, 8] {
///     queue.send(message_type, b"")?;
/// }
/// let mut none = [];
/// assert_eq!(queue.recv(Select::UpTo(6), &mut none)?.message_type, 3);
/// assert_eq!(queue.recv(Select::Except(5), &mut none)?.message_type, 8);
/// assert_eq!(queue.recv(Select::Type(5), &mut none)?.message_type, 5);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Select {
    /// The first message, whatever its type (0).
    Any,
    /// The first message of this type (> 0).
    Type(i64),
    /// The first message of the lowest type that is at most this one (a negative `msgtyp`).
    UpTo(i64),
    /// The first message of any type but this one (`MSG_EXCEPT`).
    Except(i64),
}

impl Select {
    /// `msgtyp` and the flag for `msgrcv`, or why there is none.
    fn raw(self) -> Result<(i64, i32), &'static str> {
        match self {
            Select::Any => Ok((0, 0)),
            Select::Type(wanted) if wanted > 0 => Ok((wanted, 0)),
            Select::UpTo(highest) if highest > 0 => Ok((-highest, 0)),
            Select::Except(unwanted) if unwanted > 0 => Ok((unwanted, libc::MSG_EXCEPT)),
            _ => Err("a message type is greater than 0"),
        }
    }
}

/// What [`SysvQueue::recv`] took from the queue; the payload is in the caller's buffer.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue};
///
/// let queue = SysvQueue::private()?;
/// queue.send(7, b"over the garden wall")?;
///
/// let mut buffer = [0; 64];
/// let got = queue.recv(Select::Any, &mut buffer)?;
/// assert_eq!((got.message_type, &buffer[..got.len]), (7, &b"over the garden wall"[..]));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// The type it was sent with.
    pub message_type: i64,
    /// How many bytes of the buffer it fills.
    pub len: usize,
}

/// A message with its payload: what [`SysvQueue::recv_vec`] gives.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue, sysv_queue::Message};
///
/// let queue = SysvQueue::private()?;
/// queue.send(7, b"over the garden wall")?;
/// let message = queue.recv_vec(Select::Any)?;
/// assert_eq!(message, Message { message_type: 7, payload: b"over the garden wall".to_vec() });
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The type it was sent with.
    pub message_type: i64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A System V message queue.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{Select, SysvQueue};
///
/// let queue = SysvQueue::private()?;
/// queue.send(1, b"first")?;
/// queue.send(2, b"second")?;
///
/// let message = queue.recv_vec(Select::Type(2))?;
/// assert_eq!(message.payload, b"second");
/// assert_eq!(queue.status()?.messages, 1);
/// assert!(queue.try_recv(Select::Type(2), &mut [0; 16]).unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvQueue {
    id: i32,
    object: Label,
    /// The process that removes the queue when it drops the handle. A forked child's copy does not.
    removed_by: Option<u32>,
}

/// How to open or make a [`SysvQueue`]: see [`SysvQueue::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::SysvQueue;
/// use ginnel::sysv::Key;
///
/// let queue = SysvQueue::options().create_new(true).mode(0o660).open(Key::PRIVATE)?;
/// assert_eq!(queue.status()?.permissions.mode, 0o660);
/// queue.remove()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SysvQueueOptions {
    flags: GetFlags,
}

impl SysvQueueOptions {
    /// Make the queue if there is none with this key (`IPC_CREAT`).
    pub fn create(mut self, create: bool) -> Self {
        self.flags.create = create;
        self
    }

    /// Make the queue, and fail with `EEXIST` if there is one already (`IPC_CREAT | IPC_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.flags.create_new = create_new;
        self
    }

    /// The permission bits of a queue that is made; 0600 unless said. The umask does not apply.
    pub fn mode(mut self, mode: u32) -> Self {
        self.flags.mode = mode;
        self
    }

    /// Opens the queue with this key.
    ///
    /// # Errors
    /// `ENOENT`: no such queue, and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: the mode of
    /// the existing queue grants less than was asked for. `ENOSPC`: the host has `kernel.msgmni` queues already.
    /// `ENOMEM`, `ENOSYS` (a kernel without System V IPC).
    pub fn open(self, key: impl Into<Key>) -> Result<SysvQueue> {
        let key = key.into();
        // SAFETY: msgget takes no pointers.
        match check(unsafe { libc::msgget(key.raw(), self.flags.raw(key)) }) {
            Ok(id) => {
                Ok(SysvQueue { id: id as i32, object: sysv::label(FAMILY, key, id as i32), removed_by: None })
            }
            Err(errno) => {
                Err(self.explain(Error::new("msgget", errno, &Label::new(format!("{FAMILY}:{key}")))))
            }
        }
    }

    fn explain(self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint("no queue has this key; make it first, or open with `create`"),
            Errno::EXIST => {
                error.with_hint("a queue with this key exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => {
                error.with_hint("its mode does not grant this user what was asked; see `ipcs -q -i ID`")
            }
            Errno::NOSPC => error.with_hint(sysv::limit_hint("no more queues on this host", "kernel.msgmni")),
            _ => error,
        }
    }
}

impl SysvQueue {
    /// Opens a queue with every choice spelled out.
    pub fn options() -> SysvQueueOptions {
        SysvQueueOptions { flags: GetFlags::DEFAULT }
    }

    /// Opens the queue with this key, which must exist.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn open(key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::options().open(key)
    }

    /// Opens the queue with this key, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn create(key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::options().create(true).open(key)
    }

    /// Makes a queue without a key (mode 0600), removed when this handle is dropped.
    ///
    /// Other processes reach it by [`SysvQueue::id`], passed on to them, and [`SysvQueue::from_id`]. In a child made by
    /// `fork` the handle does not remove it. [`SysvQueue::keep`] lets it stay.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn private() -> Result<SysvQueue> {
        let mut queue = SysvQueue::options().open(Key::PRIVATE)?;
        queue.removed_by = Some(std::process::id());
        Ok(queue)
    }

    /// The queue with this id (`msqid`), which is not looked at before the first call on it.
    pub fn from_id(id: i32) -> SysvQueue {
        SysvQueue { id, object: sysv::label(FAMILY, Key::PRIVATE, id), removed_by: None }
    }

    /// The kernel's id (`msqid`): what `ipcs -q` shows and [`SysvQueue::from_id`] takes.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Lets the queue live on when the handle is dropped.
    pub fn keep(&mut self) {
        self.removed_by = None;
    }

    /// Every queue of the IPC namespace with its state, whatever its mode: what `ipcs -q` shows (`MSG_STAT_ANY`, since
    /// Linux 4.17; before, only those that the caller may read).
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::message::SysvQueue;
    ///
    /// let queue = SysvQueue::private()?;
    /// let listed = SysvQueue::list()?;
    /// assert!(listed.iter().any(|(id, status)| *id == queue.id() && status.messages == 0));
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn list() -> Result<Vec<(i32, Status)>> {
        Ok(all_queues()?.map(|(id, raw)| (id, Status::from_raw(&raw))).collect())
    }

    /// The IPC namespace's limits, and what of them is used (`IPC_INFO` and `MSG_INFO`).
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn limits() -> Result<Limits> {
        let (limits, _) = info(libc::IPC_INFO)?;
        let (used, _) = info(libc::MSG_INFO)?;
        Ok(Limits {
            queues_max: limits.msgmni as u64,
            message_bytes_max: limits.msgmax as u64,
            queue_bytes_max: limits.msgmnb as u64,
            queues: used.msgpool as u64,
            messages: used.msgmap as u64,
            bytes: used.msgtql as u64,
        })
    }

    /// Sends a message; waits while the queue is full.
    ///
    /// # Errors
    /// `EINVAL`: `message_type` is not greater than 0, the payload is longer than `kernel.msgmax`, or the queue was
    /// removed earlier ([`Error::is_removed`]). `EACCES`: no write permission. `EIDRM`: removed while waiting.
    /// `EINTR`: a signal handler ran. `ENOMEM`.
    ///
    /// # Blocking
    /// Until the queue's bytes and its number of messages, both with it at most `msg_qbytes`, leave room. Waiting senders
    /// are woken in order; a call that just then finds room goes first. A message longer than the queue's `msg_qbytes`
    /// never fits: it waits for ever. `msgsnd(2)`.
    pub fn send(&self, message_type: i64, payload: &[u8]) -> Result<()> {
        self.send_deadline(message_type, payload, Deadline::NEVER)
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// `EAGAIN`: the queue is full. Else as [`SysvQueue::send`].
    pub fn try_send(&self, message_type: i64, payload: &[u8]) -> Result<()> {
        self.send_deadline(message_type, payload, Deadline::NOW)
    }

    /// Sends a message; waits until the deadline while the queue is full.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the message was not sent. Else as [`SysvQueue::send`].
    pub fn send_deadline(
        &self,
        message_type: i64,
        payload: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        with_scratch(payload.len(), |scratch| {
            scratch.set_type(message_type);
            scratch.payload_mut()[..payload.len()].copy_from_slice(payload);
            interrupt::until(deadline.into(), "msgsnd", &self.object, |attempt| {
                // SAFETY: the scratch holds the type and payload.len() bytes after it.
                check(unsafe {
                    libc::msgsnd(self.id, scratch.as_ptr().cast(), payload.len(), no_wait(attempt))
                })
            })
        })
        .map(drop)
        .map_err(|error| self.explain_send(error, message_type, payload.len()))
    }

    /// Receives the message that `select` picks into `buffer`; waits until there is one.
    ///
    /// # Errors
    /// `E2BIG`: the message is longer than `buffer`; it stays in the queue. `EINVAL`: a type in `select` is not greater
    /// than 0, or the queue was removed earlier ([`Error::is_removed`]). `EACCES`: no read permission. `EIDRM`: removed
    /// while waiting. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until a message that `select` picks is there. `msgrcv(2)`.
    pub fn recv(&self, select: Select, buffer: &mut [u8]) -> Result<Received> {
        self.recv_deadline(select, buffer, Deadline::NEVER)
    }

    /// Receives the message that `select` picks, if there is one now.
    ///
    /// # Errors
    /// `ENOMSG`: there is none. Else as [`SysvQueue::recv`].
    pub fn try_recv(&self, select: Select, buffer: &mut [u8]) -> Result<Received> {
        self.recv_deadline(select, buffer, Deadline::NOW)
    }

    /// Receives the message that `select` picks; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`SysvQueue::recv`].
    pub fn recv_deadline(
        &self,
        select: Select,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Received> {
        self.recv_flags(select, buffer, 0, deadline.into())
    }

    /// Receives as much of the message as the buffer holds; the rest of it is lost (`MSG_NOERROR`).
    ///
    /// # Errors
    /// As [`SysvQueue::recv_deadline`], without `E2BIG`.
    pub fn recv_truncated(
        &self,
        select: Select,
        buffer: &mut [u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Received> {
        self.recv_flags(select, buffer, libc::MSG_NOERROR, deadline.into())
    }

    /// Receives a message of any length; waits until there is one.
    ///
    /// # Errors
    /// As [`SysvQueue::recv`], without `E2BIG`.
    pub fn recv_vec(&self, select: Select) -> Result<Message> {
        self.recv_vec_deadline(select, Deadline::NEVER)
    }

    /// Receives a message of any length; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`SysvQueue::recv_deadline`], without `E2BIG`.
    pub fn recv_vec_deadline(&self, select: Select, deadline: impl Into<Deadline>) -> Result<Message> {
        let deadline = deadline.into();
        grow_until_it_fits(|buffer| self.recv_deadline(select, buffer, deadline))
    }

    /// Copies the message at `index` (0 is the oldest) and leaves it in the queue (`MSG_COPY`).
    ///
    /// # Errors
    /// `ENOMSG`: the queue holds `index` messages or fewer. `E2BIG`: the message is longer than `buffer`. `ENOSYS`: a
    /// kernel without `CONFIG_CHECKPOINT_RESTORE`. `EACCES`, `EIDRM`, `EINVAL` as [`SysvQueue::recv`].
    pub fn peek(&self, index: usize, buffer: &mut [u8]) -> Result<Received> {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        self.recv_raw(index, libc::MSG_COPY, buffer, Deadline::NOW).map_err(|error| match error.raw() {
            Errno::NOSYS => error.with_hint("MSG_COPY needs a kernel with CONFIG_CHECKPOINT_RESTORE"),
            _ => error,
        })
    }

    /// Copies the message at `index`, whatever its length, and leaves it in the queue.
    ///
    /// # Errors
    /// As [`SysvQueue::peek`], without `E2BIG`.
    pub fn peek_vec(&self, index: usize) -> Result<Message> {
        grow_until_it_fits(|buffer| self.peek(index, buffer))
    }

    /// The queue's state: how much it holds, who used it last (`IPC_STAT`).
    ///
    /// # Errors
    /// `EACCES`: no read permission. `EINVAL`, `EIDRM`: removed.
    pub fn status(&self) -> Result<Status> {
        Ok(Status::from_raw(&self.stat()?))
    }

    /// Changes owner, group, mode and the limit of the queue's bytes (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged, or `bytes_max` is above `kernel.msgmnb` and the
    /// caller lacks `CAP_SYS_RESOURCE`. `EINVAL`, `EIDRM`: removed.
    pub fn set(&self, change: Change) -> Result<()> {
        let mut raw = match self.stat() {
            // An owner may change a queue that its mode does not let him read, and reading is what IPC_STAT asks for.
            Err(error) if error.raw() == Errno::ACCESS => self.stat_any().ok_or(error)?,
            other => other?,
        };
        raw.msg_perm.uid = change.uid.unwrap_or(raw.msg_perm.uid);
        raw.msg_perm.gid = change.gid.unwrap_or(raw.msg_perm.gid);
        raw.msg_perm.mode = change.mode.map_or(raw.msg_perm.mode, |mode| mode as _);
        raw.msg_qbytes = change.bytes_max.map_or(raw.msg_qbytes, |bytes| bytes as _);
        self.control(libc::IPC_SET, &raw mut raw).map_err(|error| match (error.raw(), change.bytes_max) {
            (Errno::PERM, Some(bytes)) => error.with_hint(sysv::limit_hint(
                &format!("a limit of {bytes} bytes needs CAP_SYS_RESOURCE when it is above the host's"),
                "kernel.msgmnb",
            )),
            (Errno::PERM, None) => error.with_hint("only its owner, its creator or root may change it"),
            _ => error,
        })
    }

    /// Removes the queue with all it holds, at once (`IPC_RMID`); whoever waits on it gets `EIDRM`.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it was removed before.
    pub fn remove(&self) -> Result<()> {
        self.control(libc::IPC_RMID, std::ptr::null_mut()).map_err(|error| match error.raw() {
            Errno::PERM => error.with_hint("only its owner, its creator or root may remove it"),
            _ => error,
        })
    }

    fn recv_flags(
        &self,
        select: Select,
        buffer: &mut [u8],
        flags: i32,
        deadline: Deadline,
    ) -> Result<Received> {
        let (message_type, select_flag) =
            select.raw().map_err(|why| Error::invalid("msgrcv", &self.object, why))?;
        self.recv_raw(message_type, flags | select_flag, buffer, deadline)
    }

    fn recv_raw(
        &self,
        message_type: i64,
        flags: i32,
        buffer: &mut [u8],
        deadline: Deadline,
    ) -> Result<Received> {
        let size = buffer.len();
        with_scratch(size, |scratch| {
            let len = interrupt::until(deadline, "msgrcv", &self.object, |attempt| {
                let flags = flags | no_wait(attempt);
                // SAFETY: the scratch has room for the type and `size` bytes after it.
                check(
                    unsafe { libc::msgrcv(self.id, scratch.as_mut_ptr().cast(), size, message_type, flags) }
                        as i64,
                )
            })? as usize;
            buffer[..len].copy_from_slice(&scratch.payload_mut()[..len]);
            Ok(Received { message_type: scratch.get_type(), len })
        })
        .map_err(|error: Error| match error.raw() {
            Errno::TOOBIG => error.with_hint(format!(
                "the message is longer than the buffer of {size} bytes; it is still queued"
            )),
            _ => self.explain(error),
        })
    }

    fn stat(&self) -> Result<libc::msqid_ds> {
        let mut raw = zeroed_status();
        self.control(libc::IPC_STAT, &raw mut raw)?;
        Ok(raw)
    }

    fn stat_any(&self) -> Option<libc::msqid_ds> {
        all_queues().ok()?.find(|(id, _)| *id == self.id).map(|(_, raw)| raw)
    }

    /// `msgctl(2)`; the commands used here read or fill a `msqid_ds`, or use no buffer.
    fn control(&self, command: i32, buffer: *mut libc::msqid_ds) -> Result<()> {
        // SAFETY: the callers pass a pointer to a whole msqid_ds, or null where the command takes none.
        check(unsafe { libc::msgctl(self.id, command, buffer) })
            .map(drop)
            .map_err(|errno| self.explain(Error::new("msgctl", errno, &self.object)))
    }

    /// Whether the id no longer names a queue.
    fn is_gone(&self) -> bool {
        let mut raw = zeroed_status();
        // SAFETY: the buffer is a whole msqid_ds.
        let outcome = check(unsafe { libc::msgctl(self.id, libc::IPC_STAT, &raw mut raw) });
        matches!(outcome, Err(Errno::INVAL | Errno::IDRM))
    }

    fn explain_send(&self, error: Error, message_type: i64, len: usize) -> Error {
        let msgmax = || sysv::sysctl("kernel.msgmax").and_then(|text| text.parse::<usize>().ok());
        match error.raw() {
            Errno::INVAL if message_type <= 0 => error.with_hint("a message type is greater than 0"),
            Errno::INVAL if msgmax().is_some_and(|max| len > max) => {
                error.with_hint(sysv::limit_hint(&format!("the message has {len} bytes"), "kernel.msgmax"))
            }
            _ => self.explain(error),
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            // EINVAL is the kernel's word for an id whose queue was removed before the call.
            Errno::INVAL | Errno::IDRM if self.is_gone() => error.gone(),
            Errno::ACCESS => error.with_hint("its mode does not let this user do that; see `ipcs -q -i ID`"),
            _ => error,
        }
    }
}

impl Drop for SysvQueue {
    fn drop(&mut self) {
        if self.removed_by == Some(std::process::id()) {
            // Gone already is what was wanted.
            let _ = self.remove();
        }
    }
}

/// A queue's state: `struct msqid_ds` of `msgctl(2)`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::SysvQueue;
///
/// let queue = SysvQueue::private()?;
/// queue.send(1, b"sweep")?;
///
/// let status = queue.status()?;
/// assert_eq!((status.messages, status.bytes), (1, 5));
/// assert_eq!(status.last_send_pid, std::process::id() as i32);
/// assert!(status.last_send.is_some() && status.last_recv.is_none());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Owner, creator, mode, key.
    pub permissions: Permissions,
    /// Messages in the queue now.
    pub messages: u64,
    /// Bytes of payload in the queue now.
    pub bytes: u64,
    /// The most bytes it may hold (`msg_qbytes`).
    pub bytes_max: u64,
    /// The last process that sent; 0 for none yet. It may be gone, and its number in use again.
    pub last_send_pid: i32,
    /// The last process that received; 0 for none yet.
    pub last_recv_pid: i32,
    /// When the last message was sent.
    pub last_send: Option<SystemTime>,
    /// When the last message was received.
    pub last_recv: Option<SystemTime>,
    /// When it was made or last [`set`](SysvQueue::set).
    pub last_change: Option<SystemTime>,
}

impl Status {
    fn from_raw(raw: &libc::msqid_ds) -> Status {
        Status {
            permissions: Permissions::from_raw(&raw.msg_perm),
            messages: raw.msg_qnum,
            bytes: raw.__msg_cbytes,
            bytes_max: raw.msg_qbytes,
            last_send_pid: raw.msg_lspid,
            last_recv_pid: raw.msg_lrpid,
            last_send: sysv::time(raw.msg_stime),
            last_recv: sysv::time(raw.msg_rtime),
            last_change: sysv::time(raw.msg_ctime),
        }
    }
}

/// What an IPC namespace allows, and what of it is in use: [`SysvQueue::limits`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::SysvQueue;
///
/// let queue = SysvQueue::private()?;
/// let limits = SysvQueue::limits()?;
/// assert!((1..=limits.queues_max).contains(&limits.queues));
/// assert_eq!(queue.status()?.bytes_max, limits.queue_bytes_max);
///
/// let too_long = vec![0; limits.message_bytes_max as usize + 1];
/// assert_eq!(queue.try_send(1, &too_long).unwrap_err().errno_name(), "EINVAL");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most queues (`kernel.msgmni`).
    pub queues_max: u64,
    /// The longest message (`kernel.msgmax`).
    pub message_bytes_max: u64,
    /// What a new queue may hold (`kernel.msgmnb`): the start value of [`Status::bytes_max`].
    pub queue_bytes_max: u64,
    /// Queues there are.
    pub queues: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// Bytes of payload in all of them.
    pub bytes: u64,
}

/// What [`SysvQueue::set`] is to change; `None` leaves it as it is.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{SysvQueue, sysv_queue::Change};
///
/// let queue = SysvQueue::private()?;
/// queue.set(Change { bytes_max: Some(4096), ..Change::default() })?;
/// assert_eq!(queue.status()?.bytes_max, 4096);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// The new owner.
    pub uid: Option<u32>,
    /// The new group.
    pub gid: Option<u32>,
    /// The new permission bits.
    pub mode: Option<u32>,
    /// The new `msg_qbytes`.
    pub bytes_max: Option<u64>,
}

fn zeroed_status() -> libc::msqid_ds {
    // SAFETY: a msqid_ds is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// `IPC_INFO` or `MSG_INFO`, and the highest slot in use.
fn info(command: i32) -> Result<(libc::msginfo, i32)> {
    // SAFETY: a msginfo is numbers only, for which all zeros is a value.
    let mut raw: libc::msginfo = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: these two commands fill a msginfo, whatever the declared type of the pointer.
    let highest = check(unsafe { libc::msgctl(0, command, (&raw mut raw).cast()) })
        .map_err(|errno| Error::new("msgctl", errno, &FAMILY.into()))?;
    Ok((raw, highest as i32))
}

/// Every queue that is there while its slot is looked at. Slots may be empty, and empty themselves meanwhile.
fn all_queues() -> Result<impl Iterator<Item = (i32, libc::msqid_ds)>> {
    const MSG_STAT_ANY: i32 = 13;
    let (_, highest) = info(libc::MSG_INFO)?;
    Ok((0..=highest).filter_map(|slot| {
        let mut raw = zeroed_status();
        // SAFETY: these commands take a slot in place of an id, and fill a whole msqid_ds.
        let found = unsafe {
            check(libc::msgctl(slot, MSG_STAT_ANY, &raw mut raw))
                .or_else(|_| check(libc::msgctl(slot, libc::MSG_STAT, &raw mut raw)))
        };
        found.ok().map(|id| (id as i32, raw))
    }))
}

fn no_wait(attempt: Attempt) -> i32 {
    match attempt {
        Attempt::NonBlocking => libc::IPC_NOWAIT,
        Attempt::Blocking => 0,
    }
}

fn grow_until_it_fits(mut receive: impl FnMut(&mut [u8]) -> Result<Received>) -> Result<Message> {
    let mut payload = vec![0; 8192];
    loop {
        match receive(&mut payload) {
            Ok(got) => {
                payload.truncate(got.len);
                return Ok(Message { message_type: got.message_type, payload });
            }
            Err(error) if error.raw() == Errno::TOOBIG => payload.resize(payload.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// The kernel's `struct msgbuf`: the type, then the payload.
#[derive(Default)]
struct Scratch(Vec<u64>);

impl Scratch {
    fn fit(&mut self, payload_bytes: usize) {
        let words = 1 + payload_bytes.div_ceil(TYPE_BYTES);
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
    }

    fn set_type(&mut self, message_type: i64) {
        self.0[0] = message_type as u64;
    }

    fn get_type(&self) -> i64 {
        self.0[0] as i64
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0[1..])
    }

    fn as_ptr(&self) -> *const u64 {
        self.0.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u64 {
        self.0.as_mut_ptr()
    }
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch(Vec::new())) };
}

/// Lends out the thread's scratch buffer. A signal handler that calls in here meanwhile finds an empty one.
fn with_scratch<T>(payload_bytes: usize, body: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take();
    scratch.fit(payload_bytes);
    let value = body(&mut scratch);
    SCRATCH.set(scratch);
    value
}
