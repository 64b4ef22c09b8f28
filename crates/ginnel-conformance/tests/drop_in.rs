//! Every clause, asked of the C library's symbols in a process in which the drop-in is preloaded; and the deliberate
//! differences of the user-space home.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ginnel_conformance::clause::{Clause, Difference, run_with_differences};
use ginnel_conformance::home::Home;
use ginnel_conformance::kernel::{DropIn, Preloaded, c_calls};
use ginnel_conformance::user::differences;
use ginnel_conformance::{memory, message, sync};
use ginnel_testkit::isolated_for;

const LIMIT: Duration = Duration::from_secs(300);
const PRELOAD: &str = "LD_PRELOAD";

/// Cargo puts it beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let library = test.with_file_name("libginnel_preload.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}

/// Runs the body in a process in which the drop-in is preloaded.
fn preloaded(body: impl FnOnce()) {
    isolated_for(LIMIT, || {
        if std::env::var_os(PRELOAD).is_some() {
            return body();
        }
        let name = std::thread::current().name().expect("a test's thread").to_owned();
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args([&name, "--exact", "--nocapture", "--test-threads=1"])
            .env(PRELOAD, library())
            .env("GINNEL_NAMESPACE", Preloaded::NAMESPACE)
            .status()
            .expect("this test runs");
        assert!(status.success(), "{status}");
    });
}

fn ask<H: Home>(title: &'static str, clauses: Vec<Clause<H>>, differences: Vec<Difference<H>>) {
    preloaded(|| {
        run_with_differences(title, clauses, differences);
        for kind in ["msg", "sem", "shm"] {
            // By the kernel's own call: what the C library's `open` gives is the namespace's.
            let file = rustix::fs::open(
                format!("/proc/sysvipc/{kind}"),
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            );
            let mut table = [0; 4096];
            let len =
                rustix::io::read(file.expect("the kernel's table"), &mut table).expect("it can be read");
            let lines = table[..len].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines, 1, "the kernel has objects: {}", String::from_utf8_lossy(&table[..len]));
        }
    });
}

#[test]
fn sysv_messages() {
    // A fork keeps what its parent has open, and may do with it what the mode says.
    let mut differences = differences::sysv_messages();
    differences.retain(|difference| difference.clause != "receive_read_only");
    ask::<DropIn>("System V messages", message::sysv_queue::clauses(), differences);
}

#[test]
fn sysv_semaphores() {
    ask::<DropIn>("System V semaphores", sync::sysv_semaphore::clauses(), differences::sysv_semaphores());
}

#[test]
fn sysv_memory() {
    ask::<DropIn>("System V shared memory", memory::sysv_segment::clauses(), differences::sysv_memory());
}

#[test]
fn posix_queues() {
    ask::<DropIn>("POSIX queues", message::posix_queue::clauses(), differences::posix_queues());
}

#[test]
fn descriptors_of_posix_queues() {
    ask::<DropIn>("POSIX queues' descriptors", message::posix_queue::descriptors(), Vec::new());
}

#[test]
fn posix_semaphores() {
    ask::<DropIn>("POSIX semaphores", sync::posix_semaphore::clauses(), differences::posix_semaphores());
}

#[test]
fn posix_memory() {
    ask::<DropIn>("POSIX shared memory", memory::posix_shm::clauses(), Vec::new());
}

#[test]
fn what_only_c_can_break() {
    ask::<DropIn>("C calls", c_calls(), Vec::new());
}
