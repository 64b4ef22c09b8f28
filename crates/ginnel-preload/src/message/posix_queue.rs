//! `mq_open(3)` and its like: `mq_overview(7)`.
//!
//! # What a program sees
//! A `mqd_t` is a descriptor, which a fork inherits, `dup(2)` doubles and `close(2)` closes; `O_NONBLOCK` is its open file
//! description's, for `fcntl(2)` and `mq_setattr(3)` alike. `poll(2)`, `select(2)` and `epoll(7)` understand it.
//!
//! # How it works inside
//! The descriptor is one of the queue's file: cheap, and it says all that another program needs that inherits it by
//! `exec(2)`. Such a file is always ready for `poll`. So the calls that wait for descriptors come here first
//! (`descriptors.rs`), and a queue's number that is to be waited for is made one of the queue's doorbell, which is kept in
//! step with the queue from then on. Who never polls never pays for that.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ginnel_engine::message::posix_queue::{Notification, PosixQueue, QueueLimits};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{c_char, c_int, c_uint, mode_t, mq_attr, mqd_t, sigevent, size_t, ssize_t, timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::FdFlags;

use super::notice;
use crate::call::{cancellation_point, mapped};
use crate::held::is_kept;
use crate::home::{is_chosen, namespace, serve};
use crate::next::next;
use crate::open::Open;

/// A queue that a number stands for.
#[derive(Clone)]
pub(crate) struct Opened {
    queue: Arc<PosixQueue>,
    /// Whether the descriptor is the doorbell's.
    is_pollable: Arc<AtomicBool>,
}

impl Opened {
    fn new(queue: Arc<PosixQueue>, is_pollable: bool) -> Opened {
        Opened { queue, is_pollable: Arc::new(AtomicBool::new(is_pollable)) }
    }

    pub(super) fn queue(&self) -> &PosixQueue {
        &self.queue
    }
}

static OPEN: Open<Opened> = Open::new();
/// How many numbers there are, at least.
static NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// Whether this process has any queue open that it knows of.
#[inline]
pub(crate) fn has_any() -> bool {
    NUMBERS.load(Ordering::Relaxed) != 0
}

/// What a number stands for, for those that are known.
pub(crate) fn known(number: c_int) -> Option<Opened> {
    has_any().then(|| OPEN.with(number, || Err(Errno::BADF), |opened| Ok(opened.clone())).ok()).flatten()
}

/// Whether this is the child of a `vfork(2)`, which has descriptors of its own in its parent's memory: what it closes and
/// opens, before it becomes another program, is none of the parent's business.
fn is_borrowing() -> bool {
    rustix::process::getpid().as_raw_nonzero().get() != ginnel_engine::process::id() as i32
}

/// Another number for the same.
pub(crate) fn is_also(opened: &Opened, number: c_int) {
    if is_borrowing() {
        return;
    }
    let again = Opened::new(opened.queue.clone(), opened.is_pollable.load(Ordering::Relaxed));
    insert(number, again);
}

fn insert(number: c_int, opened: Opened) {
    // What the number stood for before was closed in a way that nobody here saw.
    forget(number);
    NUMBERS.fetch_add(1, Ordering::Relaxed);
    let _ = OPEN.with(number, || Ok(opened), |_| Ok(()));
}

/// The number stands for it no more; the descriptor is the caller's to close.
pub(crate) fn forget(number: c_int) -> bool {
    let Some(opened) = known(number) else { return false };
    if is_borrowing() {
        return true;
    }
    // As the kernel does, through whichever of its descriptors the process was registered.
    let _ = opened.queue.cancel_notify();
    OPEN.forget(number);
    NUMBERS.fetch_sub(1, Ordering::Relaxed);
    true
}

/// [`forget`] of all numbers from the first to the last.
pub(crate) fn forget_range(first: c_uint, last: c_uint) {
    for number in OPEN.ids() {
        if (first..=last).contains(&(number as c_uint)) {
            forget(number);
        }
    }
}

/// Has the number be one that can be waited for.
pub(crate) fn make_pollable(number: c_int) {
    let Some(opened) = known(number) else { return };
    if opened.is_pollable.load(Ordering::Acquire) {
        return;
    }
    let Ok(bell) = opened.queue.open_pollable() else { return };
    // SAFETY: the number is a queue's, and open.
    let old = unsafe { BorrowedFd::borrow_raw(number) };
    let Ok(status) = rustix::fs::fcntl_getfl(old) else { return };
    if !status.contains(OFlags::NONBLOCK) {
        // The bell is a description of its own: the flag says nothing but what the program asks of its queue.
        let _ = rustix::fs::fcntl_setfl(&bell, OFlags::empty());
    }
    // All numbers that are duplicates of each other stay so: they have the flag in common.
    for number in OPEN.ids() {
        if let Some(other) = known(number)
            && Arc::ptr_eq(&other.queue, &opened.queue)
            && !other.is_pollable.load(Ordering::Acquire)
            && put_in_place(&bell, number)
        {
            other.is_pollable.store(true, Ordering::Release);
        }
    }
}

/// Has the number be the bell's, and closed on exec if it was.
fn put_in_place(bell: &OwnedFd, number: c_int) -> bool {
    // SAFETY: if it is not open, the kernel says so.
    let old = unsafe { BorrowedFd::borrow_raw(number) };
    let Ok(flags) = rustix::io::fcntl_getfd(old) else { return false };
    let flag = if flags.contains(FdFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
    // SAFETY: both are open; what the number was is closed by the kernel in the same step.
    unsafe { libc::syscall(libc::SYS_dup3, bell.as_raw_fd(), number, flag) >= 0 }
}

/// The queues among the descriptors with which the program was started: before the first call that waits for descriptors,
/// which has to know them. Whoever calls a queue's function with one has it found by that.
#[inline]
pub(crate) fn find_inherited() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if is_chosen() && !DONE.load(Ordering::Relaxed) && !DONE.swap(true, Ordering::Relaxed) {
        look_for_inherited();
    }
}

#[cold]
fn look_for_inherited() {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()) else { return };
    let Ok(entries) = rustix::fs::Dir::read_from(&directory) else { return };
    for entry in entries.flatten() {
        let Ok(path) = rustix::fs::readlinkat(&directory, entry.file_name(), Vec::new()) else { continue };
        let is_in = |place: &[u8]| path.to_bytes().windows(place.len()).any(|part| part == place);
        // The namespace is opened for those only that may be one of its queues, or the FIFO of one.
        let number = entry.file_name().to_str().ok().and_then(|number| number.parse().ok());
        if let Some(number) = number
            && !is_kept(number)
            && (is_in(b"/mq/") || is_in(b"/bell/"))
            && let Ok(Some(home)) = namespace()
        {
            let _ = on_queue(home, number, |_| Ok(()));
        }
    }
}

/// A call on a queue.
#[inline]
fn on_queue<T>(home: &Namespace, number: mqd_t, call: impl FnOnce(&PosixQueue) -> Result<T>) -> Result<T> {
    OPEN.with(number, || find(home, number), |opened| call(&opened.queue))
}

/// A number that came by `exec(2)`, or in a way that the drop-in does not see.
#[cold]
fn find(home: &Namespace, number: mqd_t) -> Result<Opened> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: if it is not open, `fstat` says so.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let queue = PosixQueue::of_file(home, file)?;
    NUMBERS.fetch_add(1, Ordering::Relaxed);
    // After `exec(2)` of one that was waited for.
    let is_bell = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == FileType::Fifo;
    if is_bell {
        // From here on this process is one that polls.
        let _ = queue.descriptor();
    }
    Ok(Opened::new(Arc::new(queue), is_bell))
}

fn is_nonblocking(number: mqd_t) -> Result<bool> {
    // SAFETY: if it is not open, the kernel says so.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::fs::fcntl_getfl(file)?.contains(OFlags::NONBLOCK))
}

/// `mq_open(3)`. In C it has a variable number of arguments, which are passed as any others.
///
/// # Safety
/// As the C library's: `name` ends with a zero byte; `limits` is a `struct mq_attr` or null, if a queue may be made.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_open(
    name: *const c_char,
    flags: c_int,
    mode: mode_t,
    limits: *const mq_attr,
) -> mqd_t {
    serve!(|home| {
        mapped(name)?;
        let mut asked = None;
        if flags & libc::O_CREAT != 0 && !limits.is_null() {
            mapped(limits)?;
            // SAFETY: the caller's promise.
            let limits = unsafe { limits.read_unaligned() };
            // Less than none is as wrong as none.
            let at_least_none = |limit: i64| u64::try_from(limit).unwrap_or(0);
            asked = Some(QueueLimits {
                messages_max: at_least_none(limits.mq_maxmsg),
                message_bytes_max: at_least_none(limits.mq_msgsize),
            });
        }
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) };
        // `O_NONBLOCK` is the descriptor's.
        let queue = PosixQueue::open(home, name.to_bytes(), flags & !libc::O_NONBLOCK, mode, asked)?;
        let number = queue.open_file(flags)?.into_raw_fd();
        insert(number, Opened::new(Arc::new(queue), false));
        Ok(number)
    }, else next!(mq_open(name: *const c_char, flags: c_int, mode: mode_t, limits: *const mq_attr) -> mqd_t))
}

/// `mq_open(3)` without a mode, as `_FORTIFY_SOURCE` has it.
///
/// # Safety
/// As [`mq_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __mq_open_2(name: *const c_char, flags: c_int) -> mqd_t {
    // SAFETY: the caller's promise.
    unsafe { mq_open(name, flags, 0, std::ptr::null()) }
}

/// `mq_close(3)`.
///
/// # Safety
/// None is needed: it is the C library's symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_close(number: mqd_t) -> c_int {
    // One that came by `exec(2)` may have a registration that ends with it.
    if let Ok(Some(home)) = namespace() {
        let _ = on_queue(home, number, |_| Ok(()));
    }
    // As the C library's, it closes whatever it is given.
    // SAFETY: the caller's promise.
    unsafe { crate::descriptors::close(number) }
}

/// `mq_unlink(3)`.
///
/// # Safety
/// As [`mq_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_unlink(name: *const c_char) -> c_int {
    serve!(|home| {
        mapped(name)?;
        // SAFETY: the caller's promise.
        PosixQueue::unlink(home, unsafe { CStr::from_ptr(name) }.to_bytes()).map(|()| 0)
    }, else next!(mq_unlink(name: *const c_char) -> c_int))
}

/// `mq_send(3)`.
///
/// # Safety
/// As the C library's: `size` bytes stand there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_send(
    number: mqd_t,
    message: *const c_char,
    size: size_t,
    priority: c_uint,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { mq_timedsend(number, message, size, priority, std::ptr::null()) }
}

/// `mq_timedsend(3)`.
///
/// # Safety
/// As [`mq_send`]; `until` is a time or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_timedsend(
    number: mqd_t,
    message: *const c_char,
    size: size_t,
    priority: c_uint,
    until: *const timespec,
) -> c_int {
    cancellation_point();
    serve!(|home| {
        // SAFETY: the caller's promise.
        let patience = unsafe { patience(until)? };
        on_queue(home, number, |queue| {
            if size > 0 {
                mapped(message)?;
            }
            let text = match size {
                0 => &[][..],
                // SAFETY: as above.
                size => unsafe {
                    // No queue takes as many as would be too many.
                    std::slice::from_raw_parts(message.cast::<u8>(), size.min(isize::MAX as usize))
                },
            };
            match queue.send(priority, text, Patience::None) {
                Err(Errno::AGAIN) if !is_nonblocking(number)? => queue.send(priority, text, patience),
                outcome => outcome,
            }
        })?;
        Ok(0)
    }, else next!(mq_timedsend(
        number: mqd_t, message: *const c_char, size: size_t, priority: c_uint, until: *const timespec
    ) -> c_int))
}

/// `mq_receive(3)`.
///
/// # Safety
/// As the C library's: there is room for `size` bytes; `priority` has room for one, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_receive(
    number: mqd_t,
    message: *mut c_char,
    size: size_t,
    priority: *mut c_uint,
) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { mq_timedreceive(number, message, size, priority, std::ptr::null()) }
}

/// `mq_timedreceive(3)`.
///
/// # Safety
/// As [`mq_receive`]; `until` is a time or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_timedreceive(
    number: mqd_t,
    message: *mut c_char,
    size: size_t,
    priority: *mut c_uint,
    until: *const timespec,
) -> ssize_t {
    cancellation_point();
    serve!(|home| {
        // SAFETY: the caller's promise.
        let patience = unsafe { patience(until)? };
        let received = on_queue(home, number, |queue| {
            if size > 0 {
                mapped(message)?;
            }
            let text = match size {
                0 => &mut [][..],
                // SAFETY: as above.
                size => unsafe {
                    std::slice::from_raw_parts_mut(message.cast::<u8>(), size.min(isize::MAX as usize))
                },
            };
            match queue.receive(text, Patience::None) {
                Err(Errno::AGAIN) if !is_nonblocking(number)? => queue.receive(text, patience),
                outcome => outcome,
            }
        })?;
        if !priority.is_null() {
            mapped(priority)?;
            // SAFETY: as above.
            unsafe { priority.write_unaligned(received.priority) };
        }
        Ok(received.len as ssize_t)
    }, else next!(mq_timedreceive(
        number: mqd_t, message: *mut c_char, size: size_t, priority: *mut c_uint, until: *const timespec
    ) -> ssize_t))
}

/// A time of `CLOCK_REALTIME`, as it is now: that the clock is set while a call waits has no say.
///
/// # Safety
/// `until` is a time or null.
unsafe fn patience(until: *const timespec) -> Result<Patience> {
    if until.is_null() {
        return Ok(Patience::Endless);
    }
    mapped(until)?;
    // SAFETY: the caller's promise.
    let until = unsafe { until.read_unaligned() };
    if until.tv_sec < 0 || !(0..1_000_000_000).contains(&until.tv_nsec) {
        return Err(Errno::INVAL);
    }
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let now = Duration::new(clock.tv_sec.max(0) as u64, clock.tv_nsec as u32);
    let then = Duration::new(until.tv_sec as u64, until.tv_nsec as u32);
    let until = Instant::now().checked_add(then.saturating_sub(now));
    Ok(until.map_or(Patience::Endless, Patience::Until))
}

/// `mq_notify(3)`.
///
/// # Safety
/// As the C library's: `how` is a `struct sigevent` or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_notify(number: mqd_t, how: *const sigevent) -> c_int {
    serve!(|home| {
        if how.is_null() {
            return on_queue(home, number, PosixQueue::cancel_notify).map(|()| 0);
        }
        mapped(how)?;
        // SAFETY: the caller's promise.
        let how = unsafe { how.read_unaligned() };
        match how.sigev_notify {
            libc::SIGEV_NONE => {
                on_queue(home, number, |queue| queue.notify(Notification::Nothing).map(drop))?;
            }
            libc::SIGEV_SIGNAL => {
                let signal = u32::try_from(how.sigev_signo).map_err(|_| Errno::INVAL)?;
                let value = how.sigev_value.sival_ptr as u64;
                on_queue(home, number, |queue| {
                    queue.notify(Notification::Signal { signal, value }).map(drop)
                })?;
            }
            libc::SIGEV_THREAD => {
                let opened = OPEN.with(number, || find(home, number), |opened| Ok(opened.clone()))?;
                // SAFETY: the caller's promise.
                unsafe { notice::by_thread(opened, &how)? };
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(0)
    }, else next!(mq_notify(number: mqd_t, how: *const sigevent) -> c_int))
}

/// `mq_getattr(3)`.
///
/// # Safety
/// As the C library's: there is room for a `struct mq_attr`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_getattr(number: mqd_t, into: *mut mq_attr) -> c_int {
    serve!(|home| {
        let attributes = attributes(home, number)?;
        mapped(into)?;
        // SAFETY: the caller's promise.
        unsafe { into.write_unaligned(attributes) };
        Ok(0)
    }, else next!(mq_getattr(number: mqd_t, into: *mut mq_attr) -> c_int))
}

fn attributes(home: &Namespace, number: mqd_t) -> Result<mq_attr> {
    let found = on_queue(home, number, PosixQueue::attributes)?;
    // SAFETY: numbers only, all of which may be 0.
    let mut attributes: mq_attr = unsafe { std::mem::zeroed() };
    attributes.mq_flags = if is_nonblocking(number)? { libc::O_NONBLOCK.into() } else { 0 };
    attributes.mq_maxmsg = found.limits.messages_max as _;
    attributes.mq_msgsize = found.limits.message_bytes_max as _;
    attributes.mq_curmsgs = found.messages as _;
    Ok(attributes)
}

/// `mq_setattr(3)`.
///
/// # Safety
/// As the C library's: `new` is a `struct mq_attr`; `old` has room for one, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mq_setattr(number: mqd_t, new: *const mq_attr, old: *mut mq_attr) -> c_int {
    serve!(|home| {
        let asked = match new.is_null() {
            true => None,
            false => {
                mapped(new)?;
                // SAFETY: the caller's promise.
                Some(unsafe { new.read_unaligned() }.mq_flags)
            }
        };
        if asked.is_some_and(|flags| flags & !i64::from(libc::O_NONBLOCK) != 0) {
            return Err(Errno::INVAL);
        }
        let before = attributes(home, number)?;
        if let Some(flags) = asked {
            // SAFETY: a queue's number, which has just been used.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            let mut status = rustix::fs::fcntl_getfl(file)?;
            status.set(OFlags::NONBLOCK, flags != 0);
            rustix::fs::fcntl_setfl(file, status)?;
        }
        if !old.is_null() {
            mapped(old)?;
            // SAFETY: the caller's promise.
            unsafe { old.write_unaligned(before) };
        }
        Ok(0)
    }, else next!(mq_setattr(number: mqd_t, new: *const mq_attr, old: *mut mq_attr) -> c_int))
}
