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
//! # How it works inside
//! Not waiting is `mq_timedreceive` with a moment that has long passed: the kernel gives `ETIMEDOUT` without sleeping.
//! Waiting with a deadline is the plain blocking call, ended by the thread's alarm (see [`crate::deadline_signal`]):
//! the caller stands in the kernel's line of receivers, as `mq_notify(3)` and fairness among receivers want it, which a
//! caller in `poll` does not.
//!
//! Notices are in `posix_notify.rs`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Resource;

use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt, check};
use crate::{Deadline, interrupt, sysv};

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
    fd: OwnedFd,
    object: Label,
    message_bytes_max: usize,
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
#[derive(Clone, Copy, Debug)]
pub struct PosixQueueOptions {
    create: bool,
    create_new: bool,
    read: bool,
    write: bool,
    mode: u32,
    messages_max: Option<usize>,
    message_bytes_max: Option<usize>,
}

impl PosixQueueOptions {
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

    /// The most messages that a queue that is made holds (`mq_maxmsg`); `fs.mqueue.msg_default` unless said.
    pub fn messages_max(mut self, messages: usize) -> Self {
        self.messages_max = Some(messages);
        self
    }

    /// The longest message that a queue that is made takes (`mq_msgsize`); `fs.mqueue.msgsize_default` unless said.
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
        let attributes = self.attributes();
        let attributes_ptr = attributes.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the name is NUL-terminated; the attributes are null or live until after the call.
        let opened = check(unsafe {
            libc::mq_open(
                c_name.as_ptr(),
                access | create | exclusive | libc::O_CLOEXEC,
                self.mode & 0o777,
                attributes_ptr,
            )
        });
        let raw = opened.map_err(|errno| self.explain(Error::new("mq_open", errno, &object)))?;
        // SAFETY: mq_open has just made this descriptor, and nobody else owns it.
        PosixQueue::from_labelled(unsafe { OwnedFd::from_raw_fd(raw as i32) }, object)
    }

    /// Both limits or neither: the kernel takes no half.
    fn attributes(self) -> Option<libc::mq_attr> {
        if self.messages_max.is_none() && self.message_bytes_max.is_none() {
            return None;
        }
        let default = |name, fallback| {
            sysv::sysctl(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(fallback)
        };
        let messages = self.messages_max.unwrap_or_else(|| default("fs.mqueue.msg_default", 10));
        let bytes = self.message_bytes_max.unwrap_or_else(|| default("fs.mqueue.msgsize_default", 8192));
        let mut attributes = zeroed_attributes();
        attributes.mq_maxmsg = messages.try_into().unwrap_or(i64::MAX);
        attributes.mq_msgsize = bytes.try_into().unwrap_or(i64::MAX);
        Some(attributes)
    }

    fn explain(self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint("no queue has this name; make it first, or open with `create`"),
            Errno::EXIST => {
                error.with_hint("a queue of this name exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint("its mode does not grant this user what was asked"),
            Errno::NOSPC => {
                error.with_hint(sysv::limit_hint("no more queues on this host", "fs.mqueue.queues_max"))
            }
            Errno::MFILE => error.with_hint(self.explain_emfile()),
            Errno::INVAL => match self.attributes() {
                Some(attributes) => error.with_hint(explain_limits(&attributes)),
                None => error,
            },
            _ => error,
        }
    }

    /// Two limits share one errno.
    fn explain_emfile(self) -> String {
        let probe = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        if let Err(Errno::MFILE) = probe {
            return "this process has as many descriptors as it may (RLIMIT_NOFILE)".to_string();
        }
        let limit = rustix::process::getrlimit(Resource::Msgqueue).current.unwrap_or(u64::MAX);
        let size = self.attributes().map_or(String::new(), |attributes| {
            format!(" {} messages of {} bytes", attributes.mq_maxmsg, attributes.mq_msgsize)
        });
        format!(
            "the queue{size} does not fit what is left of this user's RLIMIT_MSGQUEUE ({limit} bytes for all queues \
             together); ask for less, remove queues, or raise it with `ulimit -q` (needs root)"
        )
    }
}

impl PosixQueue {
    /// Opens a queue with every choice spelled out.
    pub fn options() -> PosixQueueOptions {
        PosixQueueOptions {
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
        PosixQueue::options().open(name)
    }

    /// Opens the queue of this name, and makes it (mode 0600, the host's default limits) if there is none.
    ///
    /// # Errors
    /// See [`PosixQueueOptions::open`].
    pub fn create(name: &str) -> Result<PosixQueue> {
        PosixQueue::options().create(true).open(name)
    }

    /// A queue that came as a descriptor: inherited, or passed over a socket.
    ///
    /// # Errors
    /// `EBADF`: the descriptor is not a POSIX queue's.
    pub fn from_fd(fd: OwnedFd) -> Result<PosixQueue> {
        // Where there is a name, the descriptor's link is it.
        let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map_or_else(|_| String::from("(unnamed)"), |link| link.to_string_lossy().into_owned());
        PosixQueue::from_labelled(fd, label(&name))
    }

    fn from_labelled(fd: OwnedFd, object: Label) -> Result<PosixQueue> {
        let mut queue = PosixQueue { fd, object, message_bytes_max: 0 };
        queue.message_bytes_max = queue.attributes()?.mq_msgsize as usize;
        Ok(queue)
    }

    /// Takes the queue's name away (`mq_unlink(3)`). Whoever has it open goes on using it; it is gone with the last
    /// of them.
    ///
    /// # Errors
    /// `ENOENT`: no such queue. `EACCES`: the caller is neither its owner nor privileged, or the name has a second slash.
    /// `EINVAL`: the name does not begin with a slash. `ENAMETOOLONG`.
    pub fn remove(name: &str) -> Result<()> {
        let object = label(name);
        let c_name = check_name("mq_unlink", name, &object)?;
        // SAFETY: the name is NUL-terminated.
        match check(unsafe { libc::mq_unlink(c_name.as_ptr()) }) {
            Ok(_) => Ok(()),
            Err(errno) => {
                let error = Error::new("mq_unlink", errno, &object);
                Err(match errno {
                    Errno::NOENT => error.with_hint("no queue has this name"),
                    Errno::ACCESS | Errno::PERM => error.with_hint("only its owner or root may remove it"),
                    _ => error,
                })
            }
        }
    }

    /// The names of all queues of the IPC namespace, sorted.
    ///
    /// Reads the mqueue file system: a mount of its own that is attached nowhere, or, for a caller that may not mount,
    /// the one that is attached (`/dev/mqueue` as a rule), which shows the IPC namespace that it was mounted in.
    ///
    /// # Errors
    /// `ENOENT`: none is attached, and this process may not mount. `EACCES`: the directory may not be read.
    pub fn list() -> Result<Vec<String>> {
        let fail = |errno| Error::new("opendir", errno, &"posix-mq".into());
        let directory = mqueue_directory().map_err(|errno| match errno {
            Errno::NOENT => fail(errno).with_hint(
                "listing needs the mqueue file system: `mount -t mqueue none /dev/mqueue` (as root); \
                 using queues does not",
            ),
            _ => fail(errno),
        })?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(format!("/{name}"));
            }
        }
        names.sort();
        Ok(names)
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
        let fd = self.fd.as_raw_fd();
        self.run("mq_send", PollFlags::OUT, deadline.into(), |moment| {
            // SAFETY: the payload is readable for its length; `moment` is null or a whole timespec.
            unsafe { libc::mq_timedsend(fd, payload.as_ptr().cast(), payload.len(), priority, moment) }.into()
        })
        .map(drop)
        .map_err(|error| match error.raw() {
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
        let fd = self.fd.as_raw_fd();
        let mut priority = 0;
        let len = self
            .run("mq_receive", PollFlags::IN, deadline.into(), |moment| {
                let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
                // SAFETY: the buffer is writable for its length; `moment` is null or a whole timespec.
                unsafe { libc::mq_timedreceive(fd, start, size, &raw mut priority, moment) as i64 }
            })
            .map_err(|error| match error.raw() {
                Errno::MSGSIZE => error.with_hint(format!(
                    "the buffer has {} bytes; it needs {} (message_bytes_max), however short the message",
                    buffer.len(),
                    self.message_bytes_max
                )),
                Errno::BADF => error.with_hint("it was opened for writing only"),
                _ => error,
            })?;
        Ok(Received { priority, len: len as usize })
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
        let attributes = self.attributes()?;
        let mut text = [0; 128];
        // Read at 0, since the offset belongs to everybody who shares the open queue.
        let len = rustix::io::pread(&self.fd, &mut text, 0).unwrap_or(0);
        let field = |name: &str| {
            let text = std::str::from_utf8(&text[..len]).ok()?;
            text.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<i64>().ok())
        };
        Ok(Status {
            messages: attributes.mq_curmsgs as u64,
            messages_max: attributes.mq_maxmsg as u64,
            message_bytes_max: attributes.mq_msgsize as u64,
            bytes: field("QSIZE:").map(|bytes| bytes as u64),
            notifies_pid: field("NOTIFY_PID:").map(|pid| pid as i32).filter(|pid| *pid != 0),
        })
    }

    pub(super) fn label(&self) -> &Label {
        &self.object
    }

    fn attributes(&self) -> Result<libc::mq_attr> {
        let mut attributes = zeroed_attributes();
        // SAFETY: the kernel fills a whole mq_attr.
        check(unsafe { libc::mq_getattr(self.fd.as_raw_fd(), &raw mut attributes) })
            .map(|_| attributes)
            .map_err(|errno| Error::new("mq_getattr", errno, &self.object))
    }

    /// Runs `call` in one of the three forms; it gets the `abs_timeout` to use.
    fn run(
        &self,
        operation: &'static str,
        events: PollFlags,
        deadline: Deadline,
        mut call: impl FnMut(*const libc::timespec) -> i64,
    ) -> Result<i64> {
        let mut attempt = |attempt| match attempt {
            Attempt::Blocking => check(call(std::ptr::null())),
            Attempt::NonBlocking => loop {
                let long_past = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                match check(call(&raw const long_past)) {
                    Err(Errno::TIMEDOUT) => return Err(Errno::AGAIN),
                    // A handler ran, and a call that does not wait has nothing to be interrupted in.
                    Err(Errno::INTR) => {}
                    other => return other,
                }
            },
        };
        match interrupt::until(deadline, operation, &self.object, &mut attempt) {
            // Somebody who shares the open queue has set O_NONBLOCK.
            Err(error) if error.is_would_block() && !deadline.is_now() => {
                wait::until_ready(&self.fd, events, deadline, operation, &self.object, attempt)
            }
            other => other,
        }
    }
}

impl AsFd for PosixQueue {
    /// For `poll(2)`: readable while it holds a message, writable while it has room.
    ///
    /// Closing a duplicate of it in this process ends the process's registration for notices, as closing the queue
    /// itself does.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PosixQueue> for OwnedFd {
    fn from(queue: PosixQueue) -> OwnedFd {
        queue.fd
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
    /// Bytes of payload in the queue now; `None` when it was opened for writing only.
    pub bytes: Option<u64>,
    /// The process that is registered for a notice; `None` if there is none, or the queue was opened for writing only.
    pub notifies_pid: Option<i32>,
}

fn zeroed_attributes() -> libc::mq_attr {
    // SAFETY: an mq_attr is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn label(name: &str) -> Label {
    Label::new(format!("posix-mq:{name}"))
}

fn mqueue_directory() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let detached = || {
        let context = rustix::mount::fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        rustix::fs::openat(&mount, ".", flags, Mode::empty())
    };
    detached().or_else(|_: Errno| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let place = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            (kind == "mqueue").then(|| place.replace("\\040", " "))
        });
        rustix::fs::open(place.ok_or(Errno::NOENT)?, flags, Mode::empty())
    })
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

/// Which of the two limits of a new queue is out of range.
fn explain_limits(attributes: &libc::mq_attr) -> String {
    let max = |name| sysv::sysctl(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(i64::MAX);
    if attributes.mq_maxmsg < 1 || attributes.mq_msgsize < 1 {
        return "messages_max and message_bytes_max are at least 1".to_string();
    }
    if attributes.mq_maxmsg > max("fs.mqueue.msg_max") {
        let what = format!("messages_max {} is too much", attributes.mq_maxmsg);
        return sysv::limit_hint(&what, "fs.mqueue.msg_max");
    }
    if attributes.mq_msgsize > max("fs.mqueue.msgsize_max") {
        let what = format!("message_bytes_max {} is too much", attributes.mq_msgsize);
        return sysv::limit_hint(&what, "fs.mqueue.msgsize_max");
    }
    "messages_max and message_bytes_max are out of the kernel's range".to_string()
}
