//! `/proc/sysvipc/{msg,sem,shm}` and the limits under `/proc/sys`, as `ipcs(1)` and `lsipc(1)` read them: of the namespace.
//!
//! Those programs could do without (`msgctl(2)` with `MSG_INFO` and `MSG_STAT` tells the same), but they look here first, and
//! so does whoever types `cat /proc/sysvipc/msg`. So opening one of these files for reading, by the C library's `open(2)` or
//! `fopen(3)`, gives a file in memory with the namespace's lines, in the kernel's format. Every other path, and every other
//! use of these, is the C library's.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::sysv_queue::SysvQueue;
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use libc::{FILE, c_char, c_int, mode_t};

use crate::call::mapped;
use crate::home::{is_chosen, namespace};
use crate::next::next;

/// What is in one of these files now; `None` for any other path.
fn content(home: &Namespace, path: &[u8]) -> Option<String> {
    let limits = home.limits();
    Some(match path.strip_prefix(b"/proc/")? {
        b"sysvipc/msg" => queues(home),
        b"sysvipc/sem" => sets(home),
        b"sysvipc/shm" => segments(home),
        b"sys/kernel/msgmax" => number(limits.msgmax),
        b"sys/kernel/msgmnb" => number(limits.msgmnb),
        b"sys/kernel/msgmni" | b"sys/kernel/shmmni" => number(i32::MAX as u64),
        b"sys/kernel/shmmax" => number(limits.shmmax),
        b"sys/kernel/shmall" => number(limits.shmmax >> 12),
        b"sys/kernel/sem" => {
            format!("{}\t{}\t{}\t{}\n", limits.semmsl, i32::MAX, limits.semopm, i32::MAX)
        }
        b"sys/fs/mqueue/msg_max" => number(limits.msg_max),
        b"sys/fs/mqueue/msgsize_max" => number(limits.msgsize_max),
        b"sys/fs/mqueue/msg_default" => number(limits.msg_default),
        b"sys/fs/mqueue/msgsize_default" => number(limits.msgsize_default),
        _ => return None,
    })
}

fn number(limit: u64) -> String {
    format!("{limit}\n")
}

fn queues(home: &Namespace) -> String {
    let mut text = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
    );
    for listed in home.list(Kind::SysvQueue).unwrap_or_default() {
        let Ok(queue) = SysvQueue::status(home, listed.id) else { continue };
        let object = &queue.object;
        let _ = writeln!(
            text,
            "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
            object.key,
            object.id,
            object.mode,
            queue.bytes,
            queue.messages,
            queue.last_sender,
            queue.last_receiver,
            object.uid,
            object.gid,
            object.cuid,
            object.cgid,
            queue.sent,
            queue.received,
            queue.changed,
        );
    }
    text
}

fn sets(home: &Namespace) -> String {
    let mut text = String::from(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    );
    for listed in home.list(Kind::SysvSemaphores).unwrap_or_default() {
        let Ok(set) = SysvSemaphores::status(home, listed.id) else { continue };
        let object = &set.object;
        let _ = writeln!(
            text,
            "{:10} {:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
            object.key,
            object.id,
            object.mode,
            set.count,
            object.uid,
            object.gid,
            object.cuid,
            object.cgid,
            set.last_operation,
            set.last_change,
        );
    }
    text
}

fn segments(home: &Namespace) -> String {
    let mut text = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
    );
    for listed in home.list(Kind::SysvSegment).unwrap_or_default() {
        let Ok(segment) = SysvSegment::status(home, listed.id) else { continue };
        let object = &segment.object;
        let _ = writeln!(
            text,
            "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}",
            object.key,
            object.id,
            segment.mode,
            segment.size_bytes,
            segment.creator_process,
            segment.last_process,
            segment.attached,
            object.uid,
            object.gid,
            object.cuid,
            object.cgid,
            segment.attach_time,
            segment.detach_time,
            object.ctime,
            // All of it is reserved when the segment is made.
            segment.size_bytes,
            0,
        );
    }
    text
}

/// A file in memory with what is there now, if the path is one of these and is to be read.
///
/// # Safety
/// `path` ends with a zero byte.
#[inline]
unsafe fn served(path: *const c_char, flags: c_int) -> Option<OwnedFd> {
    if !is_chosen() || flags & libc::O_ACCMODE != libc::O_RDONLY || mapped(path).is_err() {
        return None;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path.starts_with(b"/proc/sys") { file(path, flags) } else { None }
}

#[cold]
fn file(path: &[u8], flags: c_int) -> Option<OwnedFd> {
    let text = content(namespace().ok()??, path)?;
    let kept = if flags & libc::O_CLOEXEC != 0 {
        rustix::fs::MemfdFlags::CLOEXEC
    } else {
        rustix::fs::MemfdFlags::empty()
    };
    let file = rustix::fs::memfd_create(c"sysvipc", kept).ok()?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).ok()?;
        rest = rest.get(written..)?;
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).ok()?;
    Some(file)
}

/// `open(2)`. In C it has a variable number of arguments, which are passed as any others.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int),
    }
}

/// `open(2)` of programs with 64-bit file offsets.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int),
    }
}

/// `openat(2)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int),
    }
}

/// `openat(2)` of programs with 64-bit file offsets.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn openat64(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(openat64(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int),
    }
}

/// `open(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(__open_2(path: *const c_char, flags: c_int) -> c_int),
    }
}

/// `open(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(__open64_2(path: *const c_char, flags: c_int) -> c_int),
    }
}

/// `openat(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __openat_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(__openat_2(at: c_int, path: *const c_char, flags: c_int) -> c_int),
    }
}

/// `openat(2)`, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __openat64_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { served(path, flags) } {
        Some(file) => file.into_raw_fd(),
        None => next!(__openat64_2(at: c_int, path: *const c_char, flags: c_int) -> c_int),
    }
}

/// `fopen(3)`.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    match unsafe { stream(path, mode) } {
        Some(stream) => stream,
        None => next!(fopen(path: *const c_char, mode: *const c_char) -> *mut FILE),
    }
}

/// `fopen(3)` of programs with 64-bit file offsets.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's promise.
    match unsafe { stream(path, mode) } {
        Some(stream) => stream,
        None => next!(fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE),
    }
}

/// # Safety
/// As [`fopen`].
unsafe fn stream(path: *const c_char, mode: *const c_char) -> Option<*mut FILE> {
    if !is_chosen() || mapped(mode).is_err() {
        return None;
    }
    // SAFETY: the caller's promise.
    let mode_bytes = unsafe { CStr::from_ptr(mode) }.to_bytes();
    if mode_bytes.first() != Some(&b'r') || mode_bytes.contains(&b'+') {
        return None;
    }
    let kept = if mode_bytes.contains(&b'e') { libc::O_CLOEXEC } else { 0 };
    // SAFETY: as above.
    let file = unsafe { served(path, libc::O_RDONLY | kept)? };
    // SAFETY: an open descriptor, which is the stream's if there is one.
    let stream = unsafe { libc::fdopen(file.as_raw_fd(), mode) };
    if stream.is_null() {
        return None;
    }
    let _ = file.into_raw_fd();
    Some(stream)
}
