//! `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.
#![allow(unsafe_code)]

use std::os::raw::c_void;

use ginnel_engine::message::sysv_queue::{Change, MESSAGE_BYTES_MAX, Status, SysvQueue};
use ginnel_engine::namespace::{self, Kind, Namespace};
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{c_int, c_long, key_t, msqid_ds, size_t, ssize_t};

use crate::call::{cancellation_point, mapped};
use crate::home::serve;
use crate::next::next;
use crate::open::Open;
use crate::sysv;

const MSG_STAT: c_int = 11;
const MSG_INFO: c_int = 12;
const MSG_STAT_ANY: c_int = 13;
/// The text stands behind the type.
const TEXT: usize = size_of::<c_long>();

/// `struct msginfo`.
#[repr(C)]
struct Info {
    pool: c_int,
    map: c_int,
    max: c_int,
    mnb: c_int,
    mni: c_int,
    ssz: c_int,
    tql: c_int,
    seg: u16,
}

static OPEN: Open<SysvQueue> = Open::new();

/// A call on an open queue. One that is removed is open no more.
#[inline]
fn on_queue<T>(home: &Namespace, id: i32, call: impl FnOnce(&SysvQueue) -> Result<T>) -> Result<T> {
    let outcome = OPEN.with(id, || SysvQueue::open(home, id), call);
    if matches!(outcome, Err(Errno::INVAL | Errno::IDRM)) {
        OPEN.forget(id);
    }
    outcome
}

/// `msgget(2)`.
///
/// # Safety
/// None is needed: it is the C library's symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn msgget(key: key_t, flags: c_int) -> c_int {
    serve!(|home| SysvQueue::get(home, key, flags), else next!(msgget(key: key_t, flags: c_int) -> c_int))
}

/// `msgsnd(2)`.
///
/// # Safety
/// As the C library's: `message` is a type and `size` bytes of text.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn msgsnd(
    id: c_int,
    message: *const c_void,
    size: size_t,
    flags: c_int,
) -> c_int {
    cancellation_point();
    serve!(|home| {
        mapped(message)?;
        // SAFETY: the caller's promise.
        let kind = unsafe { message.cast::<c_long>().read_unaligned() };
        // As the kernel, before it looks for the queue.
        if size as u64 > home.limits().msgmax || size > MESSAGE_BYTES_MAX || id < 0 || kind < 1 {
            return Err(Errno::INVAL);
        }
        // SAFETY: as above.
        let text = unsafe { std::slice::from_raw_parts(message.cast::<u8>().add(TEXT), size) };
        on_queue(home, id, |queue| queue.send(kind, text, flags, Patience::Endless))?;
        Ok(0)
    }, else next!(msgsnd(id: c_int, message: *const c_void, size: size_t, flags: c_int) -> c_int))
}

/// `msgrcv(2)`.
///
/// # Safety
/// As the C library's: `message` has room for a type and `size` bytes of text.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn msgrcv(
    id: c_int,
    message: *mut c_void,
    size: size_t,
    kind: c_long,
    flags: c_int,
) -> ssize_t {
    cancellation_point();
    serve!(|home| {
        if id < 0 || isize::try_from(size).is_err() {
            return Err(Errno::INVAL);
        }
        mapped(message)?;
        // SAFETY: the caller's promise; no message is longer.
        let text = unsafe {
            std::slice::from_raw_parts_mut(message.cast::<u8>().add(TEXT), size.min(MESSAGE_BYTES_MAX))
        };
        let (kind, len) = on_queue(home, id, |queue| queue.recv(text, kind, flags, Patience::Endless))?;
        // SAFETY: as above.
        unsafe { message.cast::<c_long>().write_unaligned(kind) };
        Ok(len as ssize_t)
    }, else next!(msgrcv(id: c_int, message: *mut c_void, size: size_t, kind: c_long, flags: c_int) -> ssize_t))
}

/// `msgctl(2)`.
///
/// # Safety
/// As the C library's: `buffer` is what the command wants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn msgctl(id: c_int, command: c_int, buffer: *mut msqid_ds) -> c_int {
    serve!(
        // SAFETY: the caller's promise.
        |home| unsafe { control(home, id, command, buffer) },
        else next!(msgctl(id: c_int, command: c_int, buffer: *mut msqid_ds) -> c_int)
    )
}

/// # Safety
/// As [`msgctl`].
unsafe fn control(home: &Namespace, id: c_int, command: c_int, buffer: *mut msqid_ds) -> Result<c_int> {
    if id < 0 || command < 0 {
        return Err(Errno::INVAL);
    }
    match command {
        libc::IPC_RMID => {
            SysvQueue::remove(home, id)?;
            OPEN.forget(id);
            Ok(0)
        }
        libc::IPC_SET => {
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            let asked = unsafe { buffer.read_unaligned() };
            let namespace::Change { uid, gid, mode } = sysv::change(&asked.msg_perm);
            SysvQueue::set(home, id, Change { uid, gid, mode, bytes_max: asked.msg_qbytes })?;
            Ok(0)
        }
        libc::IPC_STAT => {
            let status = SysvQueue::status(home, id)?;
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            unsafe { buffer.write_unaligned(filled(&status)) };
            Ok(0)
        }
        MSG_STAT | MSG_STAT_ANY => {
            let id = sysv::id_at(home, Kind::SysvQueue, id)?;
            let status = SysvQueue::status(home, id)?;
            mapped(buffer)?;
            // SAFETY: the caller's promise.
            unsafe { buffer.write_unaligned(filled(&status)) };
            Ok(id)
        }
        libc::IPC_INFO | MSG_INFO => {
            mapped(buffer)?;
            let (info, last) = info(home, command == MSG_INFO)?;
            // SAFETY: the caller's promise: for these commands it is a `struct msginfo`.
            unsafe { buffer.cast::<Info>().write_unaligned(info) };
            Ok(last)
        }
        _ => Err(Errno::INVAL),
    }
}

fn filled(status: &Status) -> msqid_ds {
    // SAFETY: numbers only, all of which may be 0.
    let mut filled: msqid_ds = unsafe { std::mem::zeroed() };
    filled.msg_perm = sysv::permissions(&status.object);
    filled.msg_stime = status.sent;
    filled.msg_rtime = status.received;
    filled.msg_ctime = status.changed;
    filled.__msg_cbytes = status.bytes as _;
    filled.msg_qnum = status.messages as _;
    filled.msg_qbytes = status.bytes_max as _;
    filled.msg_lspid = status.last_sender;
    filled.msg_lrpid = status.last_receiver;
    filled
}

/// The limits, or what there is, and the highest index.
fn info(home: &Namespace, used: bool) -> Result<(Info, c_int)> {
    let queues = home.list(Kind::SysvQueue)?;
    let limits = home.limits();
    let mut info = Info {
        pool: 0,
        map: 0,
        max: sysv::int(limits.msgmax),
        mnb: sysv::int(limits.msgmnb),
        mni: i32::MAX,
        ssz: 16,
        tql: 0,
        seg: u16::MAX,
    };
    if used {
        let held = queues.iter().filter_map(|queue| SysvQueue::status(home, queue.id).ok());
        let (messages, bytes) =
            held.fold((0, 0), |(messages, bytes), status| (messages + status.messages, bytes + status.bytes));
        info.pool = sysv::int(queues.len() as u64);
        info.map = sysv::int(messages);
        info.tql = sysv::int(bytes);
    }
    Ok((info, sysv::last_index(queues.len())))
}
