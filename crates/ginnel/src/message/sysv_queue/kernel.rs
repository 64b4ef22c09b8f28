//! System V queues in the kernel's home: `msgget(2)`, `msgop(2)`, `msgctl(2)`.
//!
//! The kernel wants the type in front of the payload, in one piece: payloads pass through a scratch buffer of the
//! thread's, which grows to the largest message seen.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;

use rustix::io::Errno;

use super::{Change, Limits, Received, Status};
use crate::error::{Error, Label};
use crate::sysv::{self, Permissions};
use crate::wait::{Attempt, check};
use crate::{Deadline, interrupt};

type Result<T, E = Errno> = std::result::Result<T, E>;

const TYPE_BYTES: usize = size_of::<libc::c_long>();

pub(super) fn get(key: i32, flags: i32) -> Result<i32> {
    // SAFETY: msgget takes no pointers.
    check(unsafe { libc::msgget(key, flags) }).map(|id| id as i32)
}

pub(super) fn send(
    id: i32,
    message_type: i64,
    payload: &[u8],
    deadline: Deadline,
    object: &Label,
) -> Result<(), Error> {
    with_scratch(payload.len(), |scratch| {
        scratch.set_type(message_type);
        scratch.payload_mut()[..payload.len()].copy_from_slice(payload);
        interrupt::until(deadline, "msgsnd", object, |attempt| {
            // SAFETY: the scratch holds the type and payload.len() bytes after it.
            check(unsafe { libc::msgsnd(id, scratch.as_ptr().cast(), payload.len(), no_wait(attempt)) })
        })
    })
    .map(drop)
}

pub(super) fn recv(
    id: i32,
    message_type: i64,
    flags: i32,
    buffer: &mut [u8],
    deadline: Deadline,
    object: &Label,
) -> Result<Received, Error> {
    let size = buffer.len();
    with_scratch(size, |scratch| {
        let len = interrupt::until(deadline, "msgrcv", object, |attempt| {
            let flags = flags | no_wait(attempt);
            // SAFETY: the scratch has room for the type and `size` bytes after it.
            check(unsafe { libc::msgrcv(id, scratch.as_mut_ptr().cast(), size, message_type, flags) } as i64)
        })? as usize;
        buffer[..len].copy_from_slice(&scratch.payload_mut()[..len]);
        Ok(Received { message_type: scratch.get_type(), len })
    })
}

pub(super) fn status(id: i32) -> Result<Status> {
    raw_status(id).map(|raw| from_raw(&raw))
}

pub(super) fn set(id: i32, change: Change) -> Result<()> {
    let mut raw = match raw_status(id) {
        // An owner may change a queue that its mode does not let him read, and reading is what IPC_STAT asks for.
        Err(Errno::ACCESS) => all()?.find(|(other, _)| *other == id).ok_or(Errno::ACCESS)?.1,
        other => other?,
    };
    raw.msg_perm.uid = change.uid.unwrap_or(raw.msg_perm.uid);
    raw.msg_perm.gid = change.gid.unwrap_or(raw.msg_perm.gid);
    raw.msg_perm.mode = change.mode.map_or(raw.msg_perm.mode, |mode| mode as _);
    raw.msg_qbytes = change.bytes_max.map_or(raw.msg_qbytes, |bytes| bytes as _);
    control(id, libc::IPC_SET, &raw mut raw).map(drop)
}

pub(super) fn remove(id: i32) -> Result<()> {
    control(id, libc::IPC_RMID, std::ptr::null_mut()).map(drop)
}

pub(super) fn list() -> Result<Vec<(i32, Status)>> {
    Ok(all()?.map(|(id, raw)| (id, from_raw(&raw))).collect())
}

pub(super) fn limits() -> Result<Limits> {
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

/// If the size is what was wrong with a message.
pub(super) fn size_hint(len: usize) -> Option<String> {
    let max: usize = sysv::sysctl("kernel.msgmax")?.parse().ok()?;
    (len > max).then(|| sysv::limit_hint(&format!("the message has {len} bytes"), "kernel.msgmax"))
}

fn raw_status(id: i32) -> Result<libc::msqid_ds> {
    let mut raw = zeroed_status();
    control(id, libc::IPC_STAT, &raw mut raw)?;
    Ok(raw)
}

/// `msgctl(2)`; the commands used here read or fill a `msqid_ds`, or use no buffer.
fn control(id: i32, command: i32, buffer: *mut libc::msqid_ds) -> Result<i32> {
    // SAFETY: the callers pass a pointer to a whole msqid_ds, or null where the command takes none.
    check(unsafe { libc::msgctl(id, command, buffer) }).map(|value| value as i32)
}

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

fn zeroed_status() -> libc::msqid_ds {
    // SAFETY: a msqid_ds is numbers only, for which all zeros is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// `IPC_INFO` or `MSG_INFO`, and the highest slot in use.
fn info(command: i32) -> Result<(libc::msginfo, i32)> {
    // SAFETY: a msginfo is numbers only, for which all zeros is a value.
    let mut raw: libc::msginfo = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: these two commands fill a msginfo, whatever the declared type of the pointer.
    let highest = check(unsafe { libc::msgctl(0, command, (&raw mut raw).cast()) })?;
    Ok((raw, highest as i32))
}

/// Every queue that is there while its slot is looked at. Slots may be empty, and empty themselves meanwhile.
fn all() -> Result<impl Iterator<Item = (i32, libc::msqid_ds)>> {
    const MSG_STAT_ANY: i32 = 13;
    let (_, highest) = info(libc::MSG_INFO)?;
    Ok((0..=highest).filter_map(|slot| {
        let mut raw = zeroed_status();
        // These commands take a slot in place of an id.
        let found = control(slot, MSG_STAT_ANY, &raw mut raw)
            .or_else(|_| control(slot, libc::MSG_STAT, &raw mut raw));
        found.ok().map(|id| (id, raw))
    }))
}

fn no_wait(attempt: Attempt) -> i32 {
    match attempt {
        Attempt::NonBlocking => libc::IPC_NOWAIT,
        Attempt::Blocking => 0,
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
