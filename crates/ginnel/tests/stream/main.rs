//! Tests of the stream family, a file a mechanism.
#![allow(unsafe_code)]

mod examples;
mod fifo;
mod framing;
mod pipe;
mod pipeline;
mod popen;
mod pty;
mod socketpair;
mod tcp;
#[cfg(feature = "tokio")]
mod tokio;
mod unix;

use std::time::Duration;

use ginnel::Result;

/// Long enough for anything that is to happen.
const LONG: Duration = Duration::from_secs(20);
/// What `wait::ready` waits in.
const POLL: i64 = libc::SYS_ppoll;
/// What a FIFO is opened by.
#[cfg(target_arch = "x86_64")]
const OPEN: i64 = libc::SYS_open;
#[cfg(not(target_arch = "x86_64"))]
const OPEN: i64 = libc::SYS_openat;
/// A deadline that is to pass.
const SHORT: Duration = Duration::from_millis(30);

/// Gives a signal a handler that does nothing, without `SA_RESTART`.
fn catch(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; all zeros is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// Waits for ever: what a child does that is to be killed.
fn stay() {
    // SAFETY: it takes nothing.
    unsafe { libc::pause() };
}

/// Gives `SIGPIPE` its default action, as in a C program: Rust's runtime ignores it.
fn sigpipe_kills() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// That `call` gives `ETIMEDOUT`, and not before its deadline.
fn times_out<T: std::fmt::Debug>(call: impl FnOnce(Duration) -> Result<T>) {
    let start = std::time::Instant::now();
    let error = call(SHORT).unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert!(start.elapsed() >= SHORT, "gave up early");
}

/// That a child blocked in `syscall` by `call` gets `EINTR` from a signal that has a handler.
fn interrupted<T: std::fmt::Debug>(syscall: i64, call: impl FnOnce() -> Result<T>) {
    let child = ginnel_testkit::fork(|| {
        catch(libc::SIGUSR1);
        let error = call().unwrap_err();
        assert!(error.is_interrupted(), "{error}");
    });
    // Blocked in the call means that the handler is there.
    ginnel_testkit::wait_blocked_in(child.pid(), syscall);
    child.signal(libc::SIGUSR1);
    child.assert_ok();
}

/// The bytes 0, 1, ... 250, 0, 1, ...
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
