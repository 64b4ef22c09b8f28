//! Waiting for something to become true, with an end: conditions, and processes that block in a system call.

use std::time::{Duration, Instant};

use crate::process::{LIMIT, describe, duration};

/// Polls `condition` every millisecond until it holds; panics, naming `what`, when 20 seconds have passed.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    until(LIMIT, condition, || format!("until: {what}"));
}

/// Whether the main thread of the process sleeps inside that system call (`libc::SYS_*`).
///
/// A call that the kernel restarts after a signal counts as `SYS_restart_syscall`.
pub fn blocked_in(pid: i32, syscall: i64) -> bool {
    // The kernel says "running" unless the thread is off the processor and not runnable.
    std::fs::read_to_string(format!("/proc/{pid}/syscall"))
        .is_ok_and(|text| text.split_whitespace().next() == Some(syscall.to_string().as_str()))
}

/// Waits until the main thread of the process sleeps inside that system call.
///
/// Panics after 20 seconds with what the process does instead.
#[track_caller]
pub fn wait_blocked_in(pid: i32, syscall: i64) {
    until_blocked(LIMIT, pid, syscall);
}

#[track_caller]
fn until_blocked(limit: Duration, pid: i32, syscall: i64) {
    let what = || format!("for process {pid} to block in system call {syscall}:\n{}", describe(pid));
    until(limit, || blocked_in(pid, syscall), what);
}

#[track_caller]
fn until(limit: Duration, mut condition: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            panic!("waited {} in vain {}", duration(limit), what());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{fork, isolated};

    const SOON: Duration = Duration::from_millis(200);

    fn message(f: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it did not panic");
        panic.downcast_ref::<String>().expect("a message").clone()
    }

    #[test]
    fn a_condition_is_polled_until_it_holds() {
        let mut polls = 0;
        wait_until("the third poll", || {
            polls += 1;
            polls == 3
        });
        assert_eq!(polls, 3);
    }

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let message = message(|| until(SOON, || false, || "until: pigs fly".into()));
        assert_eq!(message, "waited 200 ms in vain until: pigs fly");
    }

    #[test]
    fn a_process_that_blocks_elsewhere_is_described() {
        isolated(|| {
            let child = fork(|| std::thread::sleep(Duration::from_secs(1000)));
            wait_blocked_in(child.pid(), libc::SYS_clock_nanosleep);
            let message = message(|| until_blocked(SOON, child.pid(), libc::SYS_read));
            assert!(message.contains(&format!("syscall {} ", libc::SYS_clock_nanosleep)), "{message}");
        });
    }
}
