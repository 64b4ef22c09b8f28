//! The same test in both homes.

use ginnel::Namespace;
use ginnel_testkit::{isolated, kernel_objects, wait_blocked_in};

const HOME: &str = "home";

/// Runs a test in namespaces of its own: in the kernel's home first, where it must pass before it judges ours, and then in
/// a user-space one, which everybody may use.
#[track_caller]
pub(crate) fn in_both_homes(test: impl Fn(&Namespace)) {
    isolated(|| {
        println!("in the kernel's home");
        test(&Namespace::kernel());
        println!("in a user-space home");
        test(&Namespace::options().create(true).mode(0o1777).at(format!("/dev/shm/{HOME}")).unwrap());
    });
}

/// Waits until a process is blocked: in this system call of the kernel's home, or on the futexes of ours.
#[track_caller]
pub(crate) fn wait_blocked(home: &Namespace, pid: i32, call: libc::c_long) {
    wait_blocked_in(pid, sleeping(home, call));
}

/// The system call in which one is blocked.
pub(crate) fn sleeping(home: &Namespace, call: libc::c_long) -> libc::c_long {
    if home.is_kernel() { call } else { libc::SYS_futex_waitv }
}

/// The kernel's objects, which a user-space home must add nothing to.
pub(crate) fn other_objects() -> String {
    let all = kernel_objects();
    all.lines()
        .filter(|line| !line.starts_with(&format!("dev-shm {HOME} ")))
        .map(|line| line.to_string() + "\n")
        .collect()
}
