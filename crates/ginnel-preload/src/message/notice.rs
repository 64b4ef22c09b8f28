//! `SIGEV_THREAD` of `mq_notify(3)`: a function that is run in a thread of its own when a message has come.
//!
//! A helper thread waits for the notice, as glibc's does, one for each registration in force: it starts with the
//! registration, blocks all signals, and has the stack that the program asked for, since it is the thread in which the
//! function runs.
#![allow(unsafe_code)]

use std::os::raw::c_void;
use std::ptr;

use ginnel_engine::message::posix_queue::{Notification, Registration};
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{pthread_attr_t, sigevent, sigset_t, sigval};

use super::posix_queue::Opened;

/// `struct sigevent` as C programs see it with `SIGEV_THREAD`.
#[repr(C)]
struct ThreadEvent {
    value: *mut c_void,
    signal: libc::c_int,
    how: libc::c_int,
    function: Option<unsafe extern "C" fn(sigval)>,
    attributes: *const pthread_attr_t,
}

struct Job {
    opened: Opened,
    registration: Registration,
    function: unsafe extern "C" fn(sigval),
    value: *mut c_void,
}

/// Registers the process, and starts the thread.
///
/// # Safety
/// `how` is of the kind `SIGEV_THREAD`, with a function that takes its value, and attributes of a thread or none.
pub(super) unsafe fn by_thread(opened: Opened, how: &sigevent) -> Result<()> {
    // SAFETY: the same memory by the names of another of the union's members; `sigevent` is longer.
    let event = unsafe { ptr::from_ref(how).cast::<ThreadEvent>().read_unaligned() };
    let function = event.function.ok_or(Errno::INVAL)?;
    let registration = opened.queue().notify(Notification::Thread)?;
    let job = Box::into_raw(Box::new(Job { opened, registration, function, value: event.value }));
    // SAFETY: the attributes are the caller's or ours; the job is the new thread's from here on.
    unsafe {
        let mut own: pthread_attr_t = std::mem::zeroed();
        let mut attributes = event.attributes;
        if attributes.is_null() {
            libc::pthread_attr_init(&mut own);
            libc::pthread_attr_setdetachstate(&mut own, libc::PTHREAD_CREATE_DETACHED);
            attributes = &own;
        }
        // A thread inherits the mask of who starts it.
        let mut all: sigset_t = std::mem::zeroed();
        let mut before: sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut thread: libc::pthread_t = 0;
        let failed = libc::pthread_create(&mut thread, attributes, run, job.cast());
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if failed != 0 {
            let job = Box::from_raw(job);
            let _ = job.opened.queue().cancel_notify();
            return Err(Errno::from_raw_os_error(failed));
        }
    }
    Ok(())
}

extern "C" fn run(job: *mut c_void) -> *mut c_void {
    // SAFETY: the box that `by_thread` made for this thread.
    let job = unsafe { Box::from_raw(job.cast::<Job>()) };
    let has_come = loop {
        match job.opened.queue().wait_notice(job.registration, Patience::Endless) {
            Err(Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    let Job { opened, function, value, .. } = *job;
    drop(opened);
    if matches!(has_come, Ok(true)) {
        // SAFETY: the function that the program gave for it.
        unsafe { function(sigval { sival_ptr: value }) };
    }
    ptr::null_mut()
}
