//! POSIX message queue: `mq_overview(7)`, `mq_open(3)`, `mq_send(3)`, `mq_receive(3)`, `mq_notify(3)`.
//!
//! # What a user sees
//! A queue of messages with priorities, reached by a name such as `/jobs`: the highest priority first, in order of
//! sending within one. A [`PosixQueue`] is a descriptor: it can be polled, passed to a child by `fork`, and it is
//! close-on-exec. Dropping it leaves the queue where it is; [`PosixQueue::remove`] takes the name away.
//!
//! Differences from the bare calls: deadlines are kept on the monotonic clock (the calls' own are on the wall clock);
//! [`PosixQueue::try_send`] and [`PosixQueue::try_recv`] do not need `O_NONBLOCK`, which belongs to everybody who shares
//! the open queue; [`PosixQueue::notify_thread`] runs a closure.
//!
//! In a user-space home the descriptor is a FIFO's beside the queue, which is polled and nothing else.
//!
//! # How it works inside
//! The calls of the two homes are in `posix_queue/kernel.rs` and `posix_queue/user.rs`, under the same names; notices are in
//! `posix_notify.rs`.

pub(super) mod kernel;
pub(super) mod user;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ginnel_engine::namespace::Kind;
use rustix::io::Errno;

use crate::error::{Error, Label, Result};
use crate::{Deadline, Namespace, sysv};

/// One more than the highest priority (`MQ_PRIO_MAX` of Linux).
pub const PRIORITIES: u32 = 32768;

/// What [`PosixQueue::recv`] took from the queue; the payload is in the caller's buffer.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::PosixQueue;
///
/// let queue = PosixQueue::create("/doc-received")?;
/// queue.send(9, b"the kettle boils")?;
///
/// let mut buffer = vec![0; queue.message_bytes_max()];
/// let got = queue.recv(&mut buffer)?;
/// assert_eq!((got.priority, &buffer[..got.len]), (9, &b"the kettle boils"[..]));
/// # PosixQueue::remove("/doc-received")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// The priority it was sent with.
    pub priority: u32,
    /// How many bytes of the buffer it fills.
    pub len: usize,
}

/// A message with its payload: what [`PosixQueue::recv_vec`] gives.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::{PosixQueue, posix_queue::Message};
///
/// let queue = PosixQueue::create("/doc-message")?;
/// queue.send(9, b"the kettle boils")?;
/// assert_eq!(queue.recv_vec()?, Message { priority: 9, payload: b"the kettle boils".to_vec() });
/// # PosixQueue::remove("/doc-message")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The priority it was sent with.
    pub priority: u32,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A POSIX message queue.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::PosixQueue;
///
/// let queue = PosixQueue::create("/doc-jobs")?;
/// queue.send(1, b"sweep the yard")?;
/// queue.send(9, b"the kettle boils")?;
///
/// assert_eq!(queue.recv_vec()?.payload, b"the kettle boils");
/// assert_eq!(queue.status()?.messages, 1);
/// # PosixQueue::remove("/doc-jobs")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixQueue {
    home: Home,
    object: Label,
    message_bytes_max: usize,
}

#[derive(Debug)]
pub(super) enum Home {
    Kernel(OwnedFd),
    User(user::Queue),
}

/// How to open or make a [`PosixQueue`]: see [`PosixQueue::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::PosixQueue;
///
/// let queue = PosixQueue::options()
///     .create_new(true)
///     .mode(0o660)
///     .messages_max(4)
///     .message_bytes_max(128)
///     .open("/doc-options")?;
/// assert_eq!(queue.status()?.messages_max, 4);
/// # PosixQueue::remove("/doc-options")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PosixQueueOptions {
    namespace: Namespace,
    create: bool,
    create_new: bool,
    read: bool,
    write: bool,
    mode: u32,
    messages_max: Option<usize>,
    message_bytes_max: Option<usize>,
}

impl PosixQueueOptions {
    /// In which home; the kernel's unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

    /// Make the queue if there is none of this name (`O_CREAT`).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make the queue, and fail with `EEXIST` if there is one already (`O_CREAT | O_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Open for receiving; yes unless said.
    pub fn read(mut self, read: bool) -> Self {
        self.read = read;
        self
    }

    /// Open for sending; yes unless said.
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// The permission bits of a queue that is made, of which the umask takes away; 0600 unless said.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The most messages that a queue that is made holds (`mq_maxmsg`); `fs.mqueue.msg_default`, or
    /// the user-space home's `msg_default`, unless said.
    pub fn messages_max(mut self, messages: usize) -> Self {
        self.messages_max = Some(messages);
        self
    }

    /// The longest message that a queue that is made takes (`mq_msgsize`); `fs.mqueue.msgsize_default`,
    /// or the user-space home's `msgsize_default`, unless said.
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = Some(bytes);
        self
    }

    /// Opens the queue of this name: a slash and up to 255 bytes without a further one.
    ///
    /// # Errors
    /// `ENOENT`: no such queue, and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: its mode does
    /// not grant what was asked, or the name has a second slash. `EINVAL`: the name does not begin with a slash; a limit
    /// is 0 or above `fs.mqueue.msg_max`, `fs.mqueue.msgsize_max`; neither reading nor writing. `ENAMETOOLONG`. `EMFILE`:
    /// too many descriptors, or the queue does not fit this user's `RLIMIT_MSGQUEUE`. `ENOSPC`: the host has
    /// `fs.mqueue.queues_max` queues. `ENFILE`, `ENOMEM`, `ENOSYS` (a kernel without POSIX queues).
    pub fn open(self, name: &str) -> Result<PosixQueue> {
        let object = label(name);
        let c_name = check_name("mq_open", name, &object)?;
        let access = match (self.read, self.write) {
            (true, true) => libc::O_RDWR,
            (true, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (false, false) => {
                return Err(Error::invalid(
                    "mq_open",
                    &object,
                    "a queue is opened to read, to write or both",
                ));
            }
        };
        let create = if self.create || self.create_new { libc::O_CREAT } else { 0 };
        let exclusive = if self.create_new { libc::O_EXCL } else { 0 };
        let (flags, mode) = (access | create | exclusive, self.mode & 0o777);
        let opened = match self.namespace.user() {
            None => kernel::open(&c_name, flags, mode, self.limits()).map(Home::Kernel),
            Some(home) => user::Queue::open(home, name, flags, mode, self.limits()).map(Home::User),
        };
        let home = opened.map_err(|errno| self.explain(Error::new("mq_open", errno, &object)))?;
        PosixQueue::labelled(home, object)
    }

    /// Both limits or neither, messages and bytes: the kernel takes no half.
    fn limits(&self) -> Option<(usize, usize)> {
        if self.messages_max.is_none() && self.message_bytes_max.is_none() {
            return None;
        }
        let (messages, bytes) = match self.namespace.limits() {
            None => kernel::default_limits(),
            Some(limits) => (limits.msg_default as usize, limits.msgsize_default as usize),
        };
        Some((self.messages_max.unwrap_or(messages), self.message_bytes_max.unwrap_or(bytes)))
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint(format!(
                "no queue has this name{}; make it first, or open with `create`",
                self.namespace.inside()
            )),
            Errno::EXIST => {
                error.with_hint("a queue of this name exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint(match self.namespace.user() {
                None => "its mode does not grant this user what was asked",
                Some(_) => "its mode does not grant this user to read and to write it",
            }),
            Errno::NOSPC => error.with_hint(match self.namespace.user() {
                None => sysv::limit_hint("no more queues on this host", "fs.mqueue.queues_max"),
                Some(_) => "the memory file system is full; see `df`".to_string(),
            }),
            Errno::MFILE => error.with_hint(match self.namespace.user() {
                None => kernel::explain_emfile(self.limits()),
                Some(_) => "this process has as many descriptors as it may (RLIMIT_NOFILE)".to_string(),
            }),
            Errno::INVAL => match (self.limits(), self.namespace.user()) {
                (Some(limits), None) => error.with_hint(kernel::explain_limits(limits)),
                (Some(limits), Some(home)) => error.with_hint(user::explain_limits(home, limits)),
                _ => error,
            },
            _ => error,
        }
    }
}

impl PosixQueue {
    /// Opens a queue with every choice spelled out.
    pub fn options() -> PosixQueueOptions {
        PosixQueueOptions {
            namespace: Namespace::kernel(),
            create: false,
            create_new: false,
            read: true,
            write: true,
            mode: 0o600,
            messages_max: None,
            message_bytes_max: None,
        }
    }

    /// Opens the queue of this name, which must exist, for sending and receiving.
    ///
    /// # Errors
    /// See [`PosixQueueOptions::open`].
    pub fn open(name: &str) -> Result<PosixQueue> {
        PosixQueue::open_in(&Namespace::kernel(), name)
    }

    /// [`PosixQueue::open`] in another home.
    ///
    /// # Errors
    /// See [`PosixQueueOptions::open`].
    pub fn open_in(namespace: &Namespace, name: &str) -> Result<PosixQueue> {
        PosixQueue::options().namespace(namespace).open(name)
    }

    /// Opens the queue of this name, and makes it (mode 0600, the host's default limits) if there is none.
    ///
    /// # Errors
    /// See [`PosixQueueOptions::open`].
    pub fn create(name: &str) -> Result<PosixQueue> {
        PosixQueue::create_in(&Namespace::kernel(), name)
    }

    /// [`PosixQueue::create`] in another home.
    ///
    /// # Errors
    /// See [`PosixQueueOptions::open`].
    pub fn create_in(namespace: &Namespace, name: &str) -> Result<PosixQueue> {
        PosixQueue::options().namespace(namespace).create(true).open(name)
    }

    /// A queue of the kernel's that came as a descriptor: inherited, or passed over a socket.
    ///
    /// # Errors
    /// `EBADF`: the descriptor is not a POSIX queue's.
    pub fn from_fd(fd: OwnedFd) -> Result<PosixQueue> {
        PosixQueue::labelled(Home::Kernel(fd), "posix-mq".into())
    }

    fn labelled(home: Home, object: Label) -> Result<PosixQueue> {
        let mut queue = PosixQueue { home, object, message_bytes_max: 0 };
        queue.message_bytes_max = queue.status()?.message_bytes_max as usize;
        Ok(queue)
    }

    /// Takes the queue's name away (`mq_unlink(3)`). Whoever has it open goes on using it; it is gone with the last
    /// of them.
    ///
    /// # Errors
    /// `ENOENT`: no such queue. `EACCES`: the caller is neither its owner nor privileged, or the name has a second slash.
    /// `EINVAL`: the name does not begin with a slash. `ENAMETOOLONG`.
    pub fn remove(name: &str) -> Result<()> {
        PosixQueue::remove_in(&Namespace::kernel(), name)
    }

    /// [`PosixQueue::remove`] in another home.
    ///
    /// # Errors
    /// As [`PosixQueue::remove`].
    pub fn remove_in(namespace: &Namespace, name: &str) -> Result<()> {
        let object = label(name);
        let c_name = check_name("mq_unlink", name, &object)?;
        let outcome = match namespace.user() {
            None => kernel::remove(&c_name),
            Some(home) => user::remove(home, name),
        };
        outcome.map_err(|errno| {
            let error = Error::new("mq_unlink", errno, &object);
            match errno {
                Errno::NOENT => error.with_hint(format!("no queue has this name{}", namespace.inside())),
                Errno::ACCESS | Errno::PERM => error.with_hint("only its owner or root may remove it"),
                _ => error,
            }
        })
    }

    /// The names of all queues of the IPC namespace, sorted.
    ///
    /// Reads the mqueue file system: a mount of its own that is attached nowhere, or, for a caller that may not mount,
    /// the one that is attached (`/dev/mqueue` as a rule), which shows the IPC namespace that it was mounted in.
    ///
    /// # Errors
    /// `ENOENT`: none is attached, and this process may not mount. `EACCES`: the directory may not be read.
    pub fn list() -> Result<Vec<String>> {
        PosixQueue::list_in(&Namespace::kernel())
    }

    /// [`PosixQueue::list`] of another home.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory may not be read.
    pub fn list_in(namespace: &Namespace) -> Result<Vec<String>> {
        if !namespace.is_kernel() {
            return namespace.names(Kind::PosixQueue);
        }
        kernel::list().map_err(|errno| {
            let error = Error::new("opendir", errno, &"posix-mq".into());
            match errno {
                Errno::NOENT => error.with_hint(
                    "listing needs the mqueue file system: `mount -t mqueue none /dev/mqueue` (as root); \
                     using queues does not",
                ),
                _ => error,
            }
        })
    }

    /// The longest message that the queue takes, and the least buffer that it is received with.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Sends a message; waits while the queue is full. An empty payload is allowed.
    ///
    /// # Errors
    /// `EMSGSIZE`: longer than [`message_bytes_max`](PosixQueue::message_bytes_max). `EINVAL`: a priority of
    /// [`PRIORITIES`] or more. `EBADF`: opened for reading only. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until there are fewer messages than `messages_max`. Waiting senders are served in order. `mq_send(3)`.
    pub fn send(&self, priority: u32, payload: &[u8]) -> Result<()> {
        self.send_deadline(priority, payload, Deadline::NEVER)
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// `EAGAIN`: the queue is full. Else as [`PosixQueue::send`].
    pub fn try_send(&self, priority: u32, payload: &[u8]) -> Result<()> {
        self.send_deadline(priority, payload, Deadline::NOW)
    }

    /// Sends a message; waits until the deadline while the queue is full.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; the message was not sent. Else as [`PosixQueue::send`].
    pub fn send_deadline(&self, priority: u32, payload: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let outcome = match &self.home {
            Home::Kernel(fd) => kernel::send(fd, priority, payload, deadline, &self.object),
            Home::User(queue) => queue
                .send(priority, payload, deadline)
                .map_err(|errno| Error::new("mq_send", errno, &self.object)),
        };
        outcome.map_err(|error| match error.raw() {
            Errno::MSGSIZE => error.with_hint(format!(
                "the message has {} bytes, the queue takes up to {} (message_bytes_max, set when it is made)",
                payload.len(),
                self.message_bytes_max
            )),
            Errno::INVAL if priority >= PRIORITIES => {
                error.with_hint(format!("a priority is at most {}", PRIORITIES - 1))
            }
            Errno::BADF => error.with_hint("it was opened for reading only"),
            _ => error,
        })
    }

    /// Receives the oldest message of the highest priority; waits until there is one.
    ///
    /// # Errors
    /// `EMSGSIZE`: the buffer is smaller than [`message_bytes_max`](PosixQueue::message_bytes_max), however short the
    /// message is; nothing was received. `EBADF`: opened for writing only. `EINTR`: a signal handler ran.
    ///
    /// # Blocking
    /// Until there is a message. Waiting receivers are served in order. `mq_receive(3)`.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<Received> {
        self.recv_deadline(buffer, Deadline::NEVER)
    }

    /// Receives a message if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. Else as [`PosixQueue::recv`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<Received> {
        self.recv_deadline(buffer, Deadline::NOW)
    }

    /// Receives a message; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`PosixQueue::recv`].
    pub fn recv_deadline(&self, buffer: &mut [u8], deadline: impl Into<Deadline>) -> Result<Received> {
        let deadline = deadline.into();
        let outcome = match &self.home {
            Home::Kernel(fd) => kernel::recv(fd, buffer, deadline, &self.object),
            Home::User(queue) => {
                queue.recv(buffer, deadline).map_err(|errno| Error::new("mq_receive", errno, &self.object))
            }
        };
        outcome.map_err(|error| match error.raw() {
            Errno::MSGSIZE => error.with_hint(format!(
                "the buffer has {} bytes; it needs {} (message_bytes_max), however short the message",
                buffer.len(),
                self.message_bytes_max
            )),
            Errno::BADF => error.with_hint("it was opened for writing only"),
            _ => error,
        })
    }

    /// Receives a message into a buffer of the right size; waits until there is one.
    ///
    /// # Errors
    /// As [`PosixQueue::recv`], without `EMSGSIZE`.
    pub fn recv_vec(&self) -> Result<Message> {
        self.recv_vec_deadline(Deadline::NEVER)
    }

    /// Receives a message into a buffer of the right size; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`PosixQueue::recv_deadline`], without `EMSGSIZE`.
    pub fn recv_vec_deadline(&self, deadline: impl Into<Deadline>) -> Result<Message> {
        let mut payload = vec![0; self.message_bytes_max];
        let got = self.recv_deadline(&mut payload, deadline)?;
        payload.truncate(got.len);
        Ok(Message { priority: got.priority, payload })
    }

    /// The queue's limits and how much it holds (`mq_getattr(3)`, and the descriptor read as a file).
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn status(&self) -> Result<Status> {
        let outcome = match &self.home {
            Home::Kernel(fd) => kernel::status(fd),
            Home::User(queue) => queue.status(),
        };
        outcome.map_err(|errno| Error::new("mq_getattr", errno, &self.object))
    }

    /// For `poll(2)`, as [`AsFd`], and says why there is none.
    ///
    /// # Errors
    /// In a user-space home, where it is made when it is first asked for: `EMFILE`, `ENFILE`, `ENOMEM`. `EUCLEAN`: somebody
    /// wrote over the queue.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        match &self.home {
            Home::Kernel(fd) => Ok(fd.as_fd()),
            Home::User(queue) => {
                queue.descriptor().map_err(|errno| Error::new("mq_open", errno, &self.object))
            }
        }
    }

    pub(super) fn label(&self) -> &Label {
        &self.object
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }
}

impl AsFd for PosixQueue {
    /// For `poll(2)`: readable while it holds a message, writable while it has room.
    ///
    /// In the kernel's home, closing a duplicate of it in this process ends the process's registration for notices, as
    /// closing the queue itself does. In a user-space home it is not to be read or written; where there was no descriptor
    /// to be had (see [`PosixQueue::descriptor`]), it is one that `poll(2)` calls `POLLNVAL`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.home {
            Home::Kernel(fd) => fd.as_fd(),
            Home::User(queue) => queue.descriptor().unwrap_or_else(|_| queue.handle()),
        }
    }
}

impl TryFrom<PosixQueue> for OwnedFd {
    type Error = Error;

    /// Its descriptor.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: it is of a user-space home, where the descriptor alone is not the queue.
    fn try_from(queue: PosixQueue) -> Result<OwnedFd> {
        match queue.home {
            Home::Kernel(fd) => Ok(fd),
            Home::User(_) => Err(Error::new("dup", Errno::OPNOTSUPP, &queue.object)
                .with_hint("a queue of a user-space home is more than its descriptor: open it by its name")),
        }
    }
}

/// A queue's state: `struct mq_attr` of `mq_getattr(3)`, and what `mq_overview(7)` shows of its file.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::message::PosixQueue;
///
/// let queue = PosixQueue::options().create(true).messages_max(2).message_bytes_max(16).open("/doc-status")?;
/// queue.send(1, b"sweep")?;
///
/// let status = queue.status()?;
/// assert_eq!((status.messages, status.messages_max, status.message_bytes_max), (1, 2, 16));
/// assert_eq!((status.bytes, status.notifies_pid), (Some(5), None));
/// # PosixQueue::remove("/doc-status")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Messages in the queue now.
    pub messages: u64,
    /// The most messages it holds.
    pub messages_max: u64,
    /// The longest message it takes.
    pub message_bytes_max: u64,
    /// Bytes of payload in the queue now; `None` when it was opened for writing only (in the kernel's home).
    pub bytes: Option<u64>,
    /// The process that is registered for a notice; `None` if there is none, or the queue was opened for writing only.
    pub notifies_pid: Option<i32>,
}

fn label(name: &str) -> Label {
    Label::new(format!("posix-mq:{name}"))
}

/// The name for the kernel, or the errno that it would give, with the reason in words.
fn check_name(operation: &'static str, name: &str, object: &Label) -> Result<CString> {
    let refuse = |errno, why: &'static str| Err(Error::new(operation, errno, object).with_hint(why));
    let Some(rest) = name.strip_prefix('/') else {
        return refuse(Errno::INVAL, "a queue's name begins with a slash: /jobs");
    };
    match rest {
        "" => refuse(Errno::NOENT, "a queue's name has something after the slash: /jobs"),
        _ if rest.contains('/') => {
            refuse(Errno::ACCESS, "a queue's name has one slash, at its beginning: /jobs")
        }
        "." | ".." => refuse(Errno::ACCESS, "a queue's name is not a directory's"),
        _ if rest.len() > 255 => {
            refuse(Errno::NAMETOOLONG, "a queue's name has at most 255 bytes after the slash")
        }
        _ => CString::new(name).or_else(|_| refuse(Errno::INVAL, "a queue's name has no NUL byte")),
    }
}
