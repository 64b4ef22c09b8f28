//! System V message queue: `msgget(2)`, `msgop(2)`, `msgctl(2)`.
//!
//! # What a user sees
//! A queue of typed messages that outlives its processes, reached by a [`Key`] or by its id. Receivers select by type.
//! Differences from the bare calls: an empty payload is fine on both sides (as in C), [`SysvQueue::recv_vec`] finds the
//! size by itself, and the calls have deadlines, which the kernel's have not (see [`crate::deadline_signal`]).
//! The kernel's queues cannot be polled; one in a user-space home can: [`SysvQueue::descriptor`].
//!
//! A handle is an id: dropping it leaves the queue where it is, as `fclose` leaves a file. [`SysvQueue::private`] makes
//! a queue that nobody else can find by name; that one is removed with its handle.
//!
//! # How it works inside
//! The calls of the two homes are in `sysv_queue/kernel.rs` and `sysv_queue/user.rs`, under the same names.

mod kernel;
mod user;

use std::os::fd::BorrowedFd;
use std::time::SystemTime;

use rustix::io::Errno;

use crate::error::{Error, Label, Result};
use crate::sysv::{self, GetFlags, Key, Permissions};
use crate::{Deadline, Namespace};

const FAMILY: &str = "sysv-msg";

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
    home: Home,
    id: i32,
    object: Label,
    /// The process that removes the queue when it drops the handle. A forked child's copy does not.
    removed_by: Option<u32>,
}

#[derive(Debug)]
enum Home {
    Kernel,
    User(user::Queue),
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
#[derive(Clone, Debug)]
pub struct SysvQueueOptions {
    namespace: Namespace,
    flags: GetFlags,
}

impl SysvQueueOptions {
    /// In which home; the kernel's unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

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
        let outcome = match self.namespace.user() {
            None => kernel::get(key.raw(), self.flags.raw(key)),
            Some(home) => user::get(home, key.raw(), self.flags.raw(key)),
        };
        match outcome {
            Ok(id) => Ok(SysvQueue::of(&self.namespace, id, key)),
            Err(errno) => {
                Err(self.explain(Error::new("msgget", errno, &Label::new(format!("{FAMILY}:{key}")))))
            }
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint(format!(
                "no queue has this key{}; make it first, or open with `create`",
                self.namespace.inside()
            )),
            Errno::EXIST => {
                error.with_hint("a queue with this key exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint(match self.namespace.user() {
                None => "its mode does not grant this user what was asked; see `ipcs -q -i ID`",
                Some(_) => "its mode does not grant this user to read and to write it",
            }),
            Errno::NOSPC => error.with_hint(match self.namespace.user() {
                None => sysv::limit_hint("no more queues on this host", "kernel.msgmni"),
                Some(_) => "the memory file system is full; see `df`".to_string(),
            }),
            _ => error,
        }
    }
}

impl SysvQueue {
    /// Opens a queue with every choice spelled out.
    pub fn options() -> SysvQueueOptions {
        SysvQueueOptions { namespace: Namespace::kernel(), flags: GetFlags::DEFAULT }
    }

    /// Opens the queue with this key, which must exist.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn open(key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::open_in(&Namespace::kernel(), key)
    }

    /// [`SysvQueue::open`] in another home.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn open_in(namespace: &Namespace, key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::options().namespace(namespace).open(key)
    }

    /// Opens the queue with this key, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn create(key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::create_in(&Namespace::kernel(), key)
    }

    /// [`SysvQueue::create`] in another home.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn create_in(namespace: &Namespace, key: impl Into<Key>) -> Result<SysvQueue> {
        SysvQueue::options().namespace(namespace).create(true).open(key)
    }

    /// Makes a queue without a key (mode 0600), removed when this handle is dropped.
    ///
    /// Other processes reach it by [`SysvQueue::id`], passed on to them, and [`SysvQueue::from_id`]. In a child made by
    /// `fork` the handle does not remove it. [`SysvQueue::keep`] lets it stay.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn private() -> Result<SysvQueue> {
        SysvQueue::private_in(&Namespace::kernel())
    }

    /// [`SysvQueue::private`] in another home.
    ///
    /// # Errors
    /// See [`SysvQueueOptions::open`].
    pub fn private_in(namespace: &Namespace) -> Result<SysvQueue> {
        let mut queue = SysvQueue::options().namespace(namespace).open(Key::PRIVATE)?;
        queue.removed_by = Some(std::process::id());
        Ok(queue)
    }

    /// The queue with this id (`msqid`), which is not looked at before the first call on it.
    pub fn from_id(id: i32) -> SysvQueue {
        SysvQueue::from_id_in(&Namespace::kernel(), id)
    }

    /// [`SysvQueue::from_id`] in another home.
    pub fn from_id_in(namespace: &Namespace, id: i32) -> SysvQueue {
        SysvQueue::of(namespace, id, Key::PRIVATE)
    }

    fn of(namespace: &Namespace, id: i32, key: Key) -> SysvQueue {
        let home = namespace.user().map_or(Home::Kernel, |home| Home::User(user::Queue::new(home, id)));
        SysvQueue { home, id, object: sysv::label(FAMILY, key, id), removed_by: None }
    }

    /// Its id (`msqid`): what `ipcs -q` shows of the kernel's, and [`SysvQueue::from_id`] takes.
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
        SysvQueue::list_in(&Namespace::kernel())
    }

    /// [`SysvQueue::list`] of another home, where it shows what the caller may read.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory may not be read.
    pub fn list_in(namespace: &Namespace) -> Result<Vec<(i32, Status)>> {
        let outcome = match namespace.user() {
            None => kernel::list(),
            Some(home) => user::list(home),
        };
        outcome.map_err(|errno| Error::new("msgctl", errno, &FAMILY.into()))
    }

    /// The IPC namespace's limits, and what of them is used (`IPC_INFO` and `MSG_INFO`).
    ///
    /// # Errors
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn limits() -> Result<Limits> {
        SysvQueue::limits_in(&Namespace::kernel())
    }

    /// [`SysvQueue::limits`] of another home, where the number of queues has none.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory may not be read.
    pub fn limits_in(namespace: &Namespace) -> Result<Limits> {
        let outcome = match namespace.user() {
            None => kernel::limits(),
            Some(home) => user::limits(home),
        };
        outcome.map_err(|errno| Error::new("msgctl", errno, &FAMILY.into()))
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
        let deadline = deadline.into();
        let outcome = match &self.home {
            Home::Kernel => kernel::send(self.id, message_type, payload, deadline, &self.object),
            Home::User(queue) => queue
                .send(message_type, payload, deadline)
                .map_err(|errno| Error::new("msgsnd", errno, &self.object)),
        };
        outcome.map_err(|error| self.explain_send(error, message_type, payload.len()))
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
        self.look().map_err(|errno| self.explain(Error::new("msgctl", errno, &self.object)))
    }

    /// Changes owner, group, mode and the limit of the queue's bytes (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged, or `bytes_max` is above `kernel.msgmnb` and the
    /// caller lacks `CAP_SYS_RESOURCE`. `EINVAL`, `EIDRM`: removed.
    pub fn set(&self, change: Change) -> Result<()> {
        let outcome = match &self.home {
            Home::Kernel => kernel::set(self.id, change),
            Home::User(queue) => queue.set(change),
        };
        outcome.map_err(|errno| {
            let error = self.explain(Error::new("msgctl", errno, &self.object));
            match (errno, change.bytes_max, &self.home) {
                (Errno::PERM, Some(bytes), Home::Kernel) => error.with_hint(sysv::limit_hint(
                    &format!("a limit of {bytes} bytes needs CAP_SYS_RESOURCE when it is above the host's"),
                    "kernel.msgmnb",
                )),
                (Errno::PERM, ..) => error.with_hint("only its owner, its creator or root may change it"),
                _ => error,
            }
        })
    }

    /// The queue's descriptor for `poll(2)`, `select(2)` and `epoll(7)`, in a user-space home: readable while there is a
    /// message, of whatever type, and writable while there is room for a byte. It is open for as long as the handle, and
    /// not to be read or written. While somebody has asked for it, sending and receiving cost more.
    ///
    /// Try first, and wait if that would block: a sender that was refused is told when there is more room (until then the
    /// descriptor is not writable, for anybody). Who receives by type must listen for edges (`EPOLLET`), and then hears of
    /// each further message: those of other types stay readable. A queue that is removed becomes readable and writable;
    /// the next call says so.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::Namespace;
    /// use ginnel::message::{Select, SysvQueue};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let home = Namespace::private()?;
    /// let queue = SysvQueue::private_in(&home)?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let mut watched = [
    ///     PollFd::from_borrowed_fd(queue.descriptor()?, PollFlags::IN),
    ///     PollFd::new(&reader, PollFlags::IN),
    /// ];
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| queue.send(7, b"knock").unwrap());
    ///     poll(&mut watched, None)
    /// })?;
    /// assert!(watched[0].revents().contains(PollFlags::IN) && watched[1].revents().is_empty());
    /// assert_eq!(queue.try_recv(Select::Any, &mut [0; 64])?.message_type, 7);
    /// # drop(std::io::Write::write(&mut writer, b""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `ENOTSUP`: the queue is the kernel's. `EACCES`: its mode does not let this user read and write it; or others may
    /// poll it only once its owner has asked. `EINVAL`, `EIDRM`: removed. `EMFILE`, `ENFILE`.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        match &self.home {
            Home::Kernel => Err(Error::new("poll", Errno::NOTSUP, &self.object).with_hint(
                "the kernel's System V queues cannot be polled; open one in a user-space namespace",
            )),
            Home::User(queue) => {
                queue.descriptor().map_err(|errno| self.explain(Error::new("poll", errno, &self.object)))
            }
        }
    }

    /// Removes the queue with all it holds, at once (`IPC_RMID`); whoever waits on it gets `EIDRM`.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it was removed before.
    pub fn remove(&self) -> Result<()> {
        let outcome = match &self.home {
            Home::Kernel => kernel::remove(self.id),
            Home::User(queue) => queue.remove(),
        };
        outcome.map_err(|errno| {
            let error = self.explain(Error::new("msgctl", errno, &self.object));
            match errno {
                Errno::PERM => error.with_hint("only its owner, its creator or root may remove it"),
                _ => error,
            }
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
        let outcome = match &self.home {
            Home::Kernel => kernel::recv(self.id, message_type, flags, buffer, deadline, &self.object),
            Home::User(queue) => queue
                .recv(message_type, flags, buffer, deadline)
                .map_err(|errno| Error::new("msgrcv", errno, &self.object)),
        };
        outcome.map_err(|error| match error.raw() {
            Errno::TOOBIG => error.with_hint(format!(
                "the message is longer than the buffer of {size} bytes; it is still queued"
            )),
            _ => self.explain(error),
        })
    }

    fn look(&self) -> Result<Status, Errno> {
        match &self.home {
            Home::Kernel => kernel::status(self.id),
            Home::User(queue) => queue.status(),
        }
    }

    /// Whether the id no longer names a queue.
    fn is_gone(&self) -> bool {
        matches!(self.look(), Err(Errno::INVAL | Errno::IDRM))
    }

    fn explain_send(&self, error: Error, message_type: i64, len: usize) -> Error {
        let limit = || match &self.home {
            Home::Kernel => kernel::size_hint(len),
            Home::User(queue) => queue.size_hint(len),
        };
        match error.raw() {
            Errno::INVAL if message_type <= 0 => error.with_hint("a message type is greater than 0"),
            Errno::INVAL => match limit() {
                Some(hint) => error.with_hint(hint),
                None => self.explain(error),
            },
            _ => self.explain(error),
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            // EINVAL is the kernel's word for an id whose queue was removed before the call.
            Errno::INVAL | Errno::IDRM if self.is_gone() => error.gone(),
            Errno::ACCESS => error.with_hint(match &self.home {
                Home::Kernel => "its mode does not let this user do that; see `ipcs -q -i ID`",
                Home::User(_) => "its mode does not let this user read and write it",
            }),
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
