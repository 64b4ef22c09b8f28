//! POSIX queues in the kernel's home: `mq_open(3)`, `mq_send(3)`, `mq_receive(3)`, `mq_getattr(3)`.
//!
//! Not waiting is `mq_timedreceive` with a moment that has long passed: the kernel gives `ETIMEDOUT` without sleeping.
//! Waiting with a deadline is the plain blocking call, ended by the thread's alarm (see [`crate::deadline_signal`]):
//! the caller stands in the kernel's line of receivers, as `mq_notify(3)` and fairness among receivers want it, which a
//! caller in `poll` does not.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Resource;

use super::{Received, Status};
use crate::error::{Error, Label};
use crate::wait::{self, Attempt, check};
use crate::{Deadline, interrupt, sysv};

type Result<T, E = Errno> = std::result::Result<T, E>;

/// `limits`: messages and bytes of each.
pub(super) fn open(name: &CStr, flags: i32, mode: u32, limits: Option<(usize, usize)>) -> Result<OwnedFd> {
    let attributes = limits.map(|(messages, bytes)| {
        let mut attributes = zeroed_attributes();
        attributes.mq_maxmsg = messages.try_into().unwrap_or(i64::MAX);
        attributes.mq_msgsize = bytes.try_into().unwrap_or(i64::MAX);
        attributes
    });
    let attributes_ptr = attributes.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the name is NUL-terminated; the attributes are null or live until after the call.
    let opened =
        check(unsafe { libc::mq_open(name.as_ptr(), flags | libc::O_CLOEXEC, mode, attributes_ptr) });
    // SAFETY: mq_open has just made this descriptor, and nobody else owns it.
    opened.map(|raw| unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

pub(super) fn default_limits() -> (usize, usize) {
    let default =
        |name, fallback| sysv::sysctl(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(fallback);
    (default("fs.mqueue.msg_default", 10), default("fs.mqueue.msgsize_default", 8192))
}

pub(super) fn remove(name: &CStr) -> Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::mq_unlink(name.as_ptr()) }).map(drop)
}

pub(super) fn send(
    queue: &OwnedFd,
    priority: u32,
    payload: &[u8],
    deadline: Deadline,
    object: &Label,
) -> Result<(), Error> {
    let fd = queue.as_raw_fd();
    run(queue, "mq_send", PollFlags::OUT, deadline, object, |moment| {
        // SAFETY: the payload is readable for its length; `moment` is null or a whole timespec.
        unsafe { libc::mq_timedsend(fd, payload.as_ptr().cast(), payload.len(), priority, moment) }.into()
    })
    .map(drop)
}

pub(super) fn recv(
    queue: &OwnedFd,
    buffer: &mut [u8],
    deadline: Deadline,
    object: &Label,
) -> Result<Received, Error> {
    let fd = queue.as_raw_fd();
    let mut priority = 0;
    let len = run(queue, "mq_receive", PollFlags::IN, deadline, object, |moment| {
        let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for its length; `moment` is null or a whole timespec.
        unsafe { libc::mq_timedreceive(fd, start, size, &raw mut priority, moment) as i64 }
    })?;
    Ok(Received { priority, len: len as usize })
}

/// Runs `call` in one of the three forms; it gets the `abs_timeout` to use.
fn run(
    queue: &OwnedFd,
    operation: &'static str,
    events: PollFlags,
    deadline: Deadline,
    object: &Label,
    mut call: impl FnMut(*const libc::timespec) -> i64,
) -> Result<i64, Error> {
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
    match interrupt::until(deadline, operation, object, &mut attempt) {
        // Somebody who shares the open queue has set O_NONBLOCK.
        Err(error) if error.is_would_block() && !deadline.is_now() => {
            wait::until_ready(queue, events, deadline, operation, object, attempt)
        }
        other => other,
    }
}

pub(super) fn status(queue: &OwnedFd) -> Result<Status> {
    let mut attributes = zeroed_attributes();
    // SAFETY: the kernel fills a whole mq_attr.
    check(unsafe { libc::mq_getattr(queue.as_raw_fd(), &raw mut attributes) })?;
    let mut text = [0; 128];
    // Read at 0, since the offset belongs to everybody who shares the open queue.
    let len = rustix::io::pread(queue, &mut text, 0).unwrap_or(0);
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

pub(super) fn list() -> Result<Vec<String>> {
    let directory = mqueue_directory()?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(format!("/{name}"));
        }
    }
    names.sort();
    Ok(names)
}

fn zeroed_attributes() -> libc::mq_attr {
    // SAFETY: an mq_attr is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn mqueue_directory() -> Result<OwnedFd> {
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

/// Two limits share one errno.
pub(super) fn explain_emfile(limits: Option<(usize, usize)>) -> String {
    let probe = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    if let Err(Errno::MFILE) = probe {
        return "this process has as many descriptors as it may (RLIMIT_NOFILE)".to_string();
    }
    let limit = rustix::process::getrlimit(Resource::Msgqueue).current.unwrap_or(u64::MAX);
    let size =
        limits.map_or(String::new(), |(messages, bytes)| format!(" {messages} messages of {bytes} bytes"));
    format!(
        "the queue{size} does not fit what is left of this user's RLIMIT_MSGQUEUE ({limit} bytes for all queues \
         together); ask for less, remove queues, or raise it with `ulimit -q` (needs root)"
    )
}

/// Which of the two limits of a new queue is out of range.
pub(super) fn explain_limits((messages, bytes): (usize, usize)) -> String {
    let max = |name| sysv::sysctl(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(usize::MAX);
    if messages < 1 || bytes < 1 {
        return "messages_max and message_bytes_max are at least 1".to_string();
    }
    if messages > max("fs.mqueue.msg_max") {
        return sysv::limit_hint(&format!("messages_max {messages} is too much"), "fs.mqueue.msg_max");
    }
    if bytes > max("fs.mqueue.msgsize_max") {
        return sysv::limit_hint(&format!("message_bytes_max {bytes} is too much"), "fs.mqueue.msgsize_max");
    }
    "messages_max and message_bytes_max are out of the kernel's range".to_string()
}
