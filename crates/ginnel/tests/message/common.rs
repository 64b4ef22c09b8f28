//! What several mechanisms' tests need.

use std::time::{Duration, Instant};

use ginnel_testkit::{fork, wait_blocked_in};

/// Long enough that a wait which needs it is a failed test, by the test's own limit.
pub(crate) const LONG: Duration = Duration::from_secs(50);
pub(crate) const SHORT: Duration = Duration::from_millis(30);

/// Installs a handler that does nothing, without `SA_RESTART`: the signal ends a waiting call with `EINTR`.
pub(crate) fn interrupt_by(signal: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all zeros is a valid sigaction, and the handler does nothing.
    let outcome = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(outcome, 0);
}

/// That `call`, waiting in `syscall`, is ended with `EINTR` by a signal that has a handler.
#[track_caller]
pub(crate) fn assert_interrupted<T: std::fmt::Debug>(syscall: i64, call: impl FnOnce() -> ginnel::Result<T>) {
    let child = fork(|| {
        interrupt_by(libc::SIGUSR1);
        let error = call().expect_err("a signal came");
        assert!(error.is_interrupted(), "{error}");
    });
    wait_blocked_in(child.pid(), syscall);
    child.signal(libc::SIGUSR1);
    child.assert_ok();
}

/// That `call` gives `ETIMEDOUT`, and not before its deadline.
#[track_caller]
pub(crate) fn assert_times_out<T: std::fmt::Debug>(call: impl FnOnce(Duration) -> ginnel::Result<T>) {
    let start = Instant::now();
    let error = call(SHORT).expect_err("the deadline passed");
    assert!(error.is_timed_out(), "{error}");
    assert!(start.elapsed() >= SHORT, "returned after {:?}", start.elapsed());
}

/// That `call` gives this errno, and says something of what to try.
#[track_caller]
pub(crate) fn assert_fails<T: std::fmt::Debug>(errno: &str, call: ginnel::Result<T>) -> ginnel::Error {
    let error = call.expect_err(errno);
    assert_eq!(error.errno_name(), errno, "{error}");
    error
}

/// That a program started by `exec` inherits no descriptor but the standard three.
#[track_caller]
pub(crate) fn assert_close_on_exec() {
    let listing =
        ginnel_testkit::run_ok(std::process::Command::new("sh").args([
            "-c",
            "for fd in /proc/$$/fd/*; do link=$(readlink $fd) && echo \"${fd##*/} $link\"; done",
        ]));
    let stray =
        |line: &&str| line.contains("socket:") || line.contains("mqueue") || line.contains(" /ginnel");
    assert_eq!(listing.lines().filter(stray).collect::<Vec<_>>(), Vec::<&str>::new());
}
