//! Where the objects of a row stand: names nobody else has, and for the kernel's home an IPC namespace with raised limits.
#![allow(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Names for the objects of one row, which whoever started the row removes should it be killed.
#[derive(Clone, Debug)]
pub struct Place {
    /// A new, empty directory in a memory file system, for the user-space home.
    pub directory: PathBuf,
    /// System V keys: this one and the [`OBJECTS_MAX`] - 1 that follow.
    pub key: i32,
    /// POSIX names: this, with `-0` and so on at its end. It begins with a slash.
    pub name: String,
}

/// How many objects of a kind a row has at the most.
pub const OBJECTS_MAX: u32 = 2;

impl Place {
    /// The key of a System V object.
    pub fn key_of(&self, number: u32) -> i32 {
        self.key.wrapping_add(number as i32)
    }

    /// The name of a POSIX object.
    pub fn name_of(&self, number: u32) -> String {
        format!("{}-{number}", self.name)
    }
}

/// What the kernel's home allows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Whether the kernel's objects stood in an IPC namespace of the measurement's own.
    pub private_namespace: bool,
    /// Why its limits are the host's, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_raised: Option<String>,
    /// `kernel.msgmax`.
    pub sysv_message_bytes: u64,
    /// `kernel.msgmnb`.
    pub sysv_queue_bytes: u64,
    /// `fs.mqueue.msg_max`.
    pub posix_messages: u64,
    /// `fs.mqueue.msgsize_max`.
    pub posix_message_bytes: u64,
    /// `RLIMIT_MSGQUEUE`: what a user's POSIX queues may take together.
    pub posix_bytes: u64,
}

/// What is written to the limits of a namespace of one's own.
const RAISED: [(&str, &str); 4] = [
    ("kernel/msgmax", "16777216"),
    ("kernel/msgmnb", "67108864"),
    ("fs/mqueue/msg_max", "65536"),
    ("fs/mqueue/msgsize_max", "16777216"),
];

/// Puts this process into an IPC namespace of its own with high limits, as far as it may.
///
/// What others of this process see afterwards: that its parent's death no longer ends it (the kernel forgets that where a
/// user namespace is needed); ask for it again.
pub(crate) fn enter() -> Limits {
    let before = namespace();
    let not_raised = match unshare() {
        Ok(()) => raise().err(),
        Err(why) => Some(why),
    };
    let number = |path: &str| read(path).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Msgqueue).current;
    Limits {
        private_namespace: namespace() != before,
        not_raised,
        sysv_message_bytes: number(RAISED[0].0),
        sysv_queue_bytes: number(RAISED[1].0),
        posix_messages: number(RAISED[2].0),
        posix_message_bytes: number(RAISED[3].0),
        posix_bytes: limit.unwrap_or(u64::MAX),
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok()
}

fn namespace() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/ns/ipc").ok()
}

fn unshare() -> std::result::Result<(), String> {
    // SAFETY: the call takes flags only; this process has one thread and no System V objects yet.
    if unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0 {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) } != 0 {
        return Err(format!("no IPC namespace of its own: {}", std::io::Error::last_os_error()));
    }
    // Its limits are root's to raise: this user is root in there, and nobody outside.
    std::fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
        .map_err(|error| format!("a user namespace without its user: {error}"))
}

fn raise() -> std::result::Result<(), String> {
    for (name, value) in RAISED {
        // What is higher already stays.
        let now: u64 = read(name).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if value.parse().is_ok_and(|value: u64| now < value) {
            std::fs::write(format!("/proc/sys/{name}"), value)
                .map_err(|error| format!("{}: {error}", name.replace('/', ".")))?;
        }
    }
    Ok(())
}

impl Limits {
    /// The most messages of a size that a POSIX queue of this user can have, up to `wanted`.
    ///
    /// The kernel counts, besides the payload, a pointer and a tree node for each message.
    pub(crate) fn posix_depth(&self, message_bytes: usize, wanted: u64) -> Result<u64> {
        const EACH: u64 = 48 + 64 + 8;
        if message_bytes as u64 > self.posix_message_bytes {
            return Err(Error::Unavailable(format!(
                "fs.mqueue.msgsize_max is {} bytes, and could not be raised",
                self.posix_message_bytes
            )));
        }
        // Two queues at a time, each with half of what is left by those of others.
        let fit = self.posix_bytes / 4 / (message_bytes as u64 + EACH);
        match wanted.min(self.posix_messages).min(fit) {
            0 => Err(Error::Unavailable(format!(
                "RLIMIT_MSGQUEUE is {} bytes, and may not be raised",
                self.posix_bytes
            ))),
            depth => Ok(depth),
        }
    }

    /// The bytes that a System V queue can have, up to `wanted`, and at least `needed`.
    pub(crate) fn sysv_bytes(&self, message_bytes: usize, wanted: u64, needed: u64) -> Result<u64> {
        if message_bytes as u64 > self.sysv_message_bytes {
            return Err(Error::Unavailable(format!(
                "kernel.msgmax is {} bytes, and could not be raised",
                self.sysv_message_bytes
            )));
        }
        match wanted.min(self.sysv_queue_bytes) {
            bytes if bytes < needed => Err(Error::Unavailable(format!(
                "kernel.msgmnb is {} bytes, and could not be raised",
                self.sysv_queue_bytes
            ))),
            bytes => Ok(bytes),
        }
    }
}
