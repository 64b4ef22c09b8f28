//! Signals under the drop-in: notices, handlers, what they interrupt, and what goes on.

mod common;

use std::process::Command;

use ginnel_testkit::{c_program, isolated, run_ok};

fn case(name: &str) -> String {
    common::both(&c_program!("tests/signals.c"), &[name])
}

#[test]
fn a_notice_is_a_signal() {
    isolated(|| assert_eq!(case("notice_signal"), "notice_signal\n"));
}

#[test]
fn a_notice_is_a_function_in_a_thread() {
    isolated(|| assert_eq!(case("notice_thread"), "notice_thread\n"));
}

/// Which calls a handler ends with `EINTR`, and which go on with `SA_RESTART`: the kernel says.
#[test]
fn a_handler_interrupts_what_the_kernel_interrupts() {
    isolated(|| {
        let told = case("interrupt");
        assert_eq!(told.lines().count(), 17, "{told}");
        assert_eq!(told.lines().filter(|line| line.ends_with(": restarted")).count(), 4, "{told}");
        // The deliberate difference, as in the engine: see `differences.rs` of the conformance suite.
        let program = c_program!("tests/signals.c");
        let last = ["interrupt", "last"];
        let kernels = run_ok(Command::new(&program).args(last));
        assert_eq!(kernels, "sem_timedwait SA_RESTART: Interrupted system call\n");
        assert_eq!(run_ok(common::served(&program).args(last)), "sem_timedwait SA_RESTART: restarted\n");
    });
}

#[test]
fn a_handler_posts_a_semaphore_at_any_moment() {
    isolated(|| assert_eq!(case("post_in_handler"), "post_in_handler\n"));
}
