//! Processes with deadlines: forks of the test itself, and commands. `fork(2)`, `pidfd_open(2)`, `prctl(2)`.
//!
//! Every one is killed when its parent *thread* ends (`PR_SET_PDEATHSIG`), when its handle is dropped, and when it does
//! not end within 20 seconds of being waited for. Until its handle waits, it is not reaped: its pid stays its own.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::process::{LIMIT, Output, collect, describe, duration, has_ended, pidfd};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match status.code() {
            Some(code) => Exit::Code(code),
            None => Exit::Signal(status.signal().expect("neither exited nor killed")),
        }
    }
}

/// A fork of the test process, from [`fork`], [`as_user`] or [`unprivileged`]. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    owner: u32,
    reaped: bool,
}

/// Forks the test process; the child runs `f` and ends by `_exit`: 0 after a return, 101 after a panic (printed).
///
/// The child has copies of everything that the calling thread sees; a value that `f` *moves* is dropped in both
/// processes. Nothing else of the parent's is destroyed in the child. Fork from the test's own thread: the child dies
/// with the thread that made it.
pub fn fork(f: impl FnOnce()) -> Child {
    fork_prepared(|| {}, f)
}

/// As [`fork`], as user 65534 and group 65534 (`nobody`), with no other groups and no capabilities.
///
/// Panics unless the test runs as real root: a user namespace with one id has nobody to become.
pub fn unprivileged(f: impl FnOnce()) -> Child {
    as_user(65534, 65534, f)
}

/// As [`unprivileged`], as that user and that group.
pub fn as_user(uid: u32, gid: u32, f: impl FnOnce()) -> Child {
    for (map, id) in [("/proc/self/uid_map", uid), ("/proc/self/gid_map", gid)] {
        assert!(
            rustix::process::geteuid().is_root() && is_mapped(map, id),
            "this test becomes another user (id {id}), which this user namespace does not have: run it as root"
        );
    }
    fork_prepared(move || become_user(uid, gid), f)
}

fn is_mapped(map: &str, id: u32) -> bool {
    let text = std::fs::read_to_string(map).unwrap_or_default();
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first + count).contains(&id.into()))
    })
}

fn become_user(uid: u32, gid: u32) {
    let parent = std::os::unix::process::parent_id() as i32;
    let done = |what: &str, result: i32| {
        assert!(result == 0, "{what}: {}", std::io::Error::last_os_error());
    };
    // SAFETY: these calls take numbers and, for setgroups, an empty list. The process has a single thread.
    unsafe {
        done("setgroups", libc::setgroups(0, std::ptr::null()));
        done("setresgid", libc::setresgid(gid, gid, gid));
        done("setresuid", libc::setresuid(uid, uid, uid));
        // As after an exec: without it, /proc/self would still be root's.
        done("PR_SET_DUMPABLE", libc::prctl(libc::PR_SET_DUMPABLE, 1));
    }
    // A change of credentials clears it.
    die_with(parent);
}

/// Async-signal-safe: asks to be killed when the thread that forked this process ends, and is if it has ended already.
pub(crate) fn die_with(parent: i32) {
    // SAFETY: no memory is involved; a process may always kill itself.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}

fn fork_prepared(prepare: impl FnOnce(), f: impl FnOnce()) -> Child {
    // What is buffered would be printed twice.
    let _ = std::io::stdout().flush();
    let parent = std::process::id();
    // SAFETY: glibc's fork leaves the allocator usable in the child. Another thread may have held a lock of Rust's at
    // that moment; under libtest the only other thread is asleep in a channel, and a child that hangs has a deadline.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            die_with(parent as i32);
            let result = catch_unwind(AssertUnwindSafe(|| {
                prepare();
                f();
            }));
            let _ = std::io::stdout().flush();
            // SAFETY: _exit does not return and runs nothing of this process.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 101 }) }
        }
        pid => Child { pid, pidfd: pidfd(pid), owner: parent, reaped: false },
    }
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `SIGKILL`.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Sends a signal (`libc::SIG*`).
    pub fn signal(&self, signal: i32) {
        send(self.pid, signal);
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        !has_ended(&self.pidfd)
    }

    /// Waits for its end; panics after 20 seconds with where it hangs.
    #[track_caller]
    pub fn wait(self) -> Exit {
        self.wait_within(LIMIT)
    }

    /// As [`wait`](Child::wait), with another limit.
    #[track_caller]
    pub fn wait_within(mut self, limit: Duration) -> Exit {
        if !collect(self.pidfd.as_fd(), &mut [], Instant::now() + limit) {
            panic!("child {} did not end in {}:\n{}", self.pid, duration(limit), describe(self.pid));
        }
        self.reap()
    }

    /// Waits for its end; panics unless it exits with status 0.
    #[track_caller]
    pub fn assert_ok(self) {
        let pid = self.pid;
        let exit = self.wait();
        assert!(exit == Exit::Code(0), "child {pid} failed: {exit:?}");
    }

    fn reap(&mut self) -> Exit {
        let mut status = 0;
        // SAFETY: `status` is ours to write; the pid is a child's that has not been waited for.
        while unsafe { libc::waitpid(self.pid, &mut status, 0) } != self.pid {
            let error = std::io::Error::last_os_error();
            assert!(error.kind() == std::io::ErrorKind::Interrupted, "waitpid({}): {error}", self.pid);
        }
        self.reaped = true;
        ExitStatus::from_raw(status).into()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A handle that a forked child inherited is not its own child's.
        if !self.reaped && self.owner == std::process::id() {
            self.kill();
            self.reap();
        }
    }
}

fn send(pid: i32, signal: i32) {
    // SAFETY: the pid is a child's that has not been reaped, so it is no other process's.
    let result = unsafe { libc::kill(pid, signal) };
    assert!(result == 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
}

/// A command that was started with [`spawn`]. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Spawned {
    child: std::process::Child,
    pidfd: OwnedFd,
    command: String,
    owner: u32,
}

/// Starts a command that dies with this thread. Its standard streams are as the caller set them.
#[track_caller]
pub fn spawn(command: &mut Command) -> Spawned {
    let parent = std::process::id() as i32;
    let prepare = move || {
        die_with(parent);
        Ok(())
    };
    // SAFETY: `die_with` is async-signal-safe.
    unsafe { command.pre_exec(prepare) };
    guarded(command).unwrap_or_else(|error| panic!("{command:?} did not start: {error}"))
}

/// Starts a command that arranges for its own end should its parent's come first.
pub(crate) fn guarded(command: &mut Command) -> std::io::Result<Spawned> {
    let child = command.spawn()?;
    let pidfd = pidfd(child.id() as i32);
    Ok(Spawned { child, pidfd, command: format!("{command:?}"), owner: std::process::id() })
}

impl Spawned {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends `SIGKILL`.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Sends a signal (`libc::SIG*`).
    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        !has_ended(&self.pidfd)
    }

    /// The writing end of its standard input, once, if that was `Stdio::piped`.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// The reading end of its standard output, once, if that was `Stdio::piped`.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// The reading end of its standard error, once, if that was `Stdio::piped`.
    pub fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }

    /// Closes its piped standard input and waits for its end; panics after 20 seconds with where it hangs.
    #[track_caller]
    pub fn wait(self) -> Exit {
        self.wait_with_output().status.into()
    }

    /// As [`wait`](Spawned::wait), collecting what it writes to those of its streams that are piped and not taken.
    #[track_caller]
    pub fn wait_with_output(self) -> std::process::Output {
        self.finish(LIMIT)
    }

    /// Waits for its end; panics, with its output, unless it exits with status 0.
    #[track_caller]
    pub fn assert_ok(self) {
        let command = self.command.clone();
        assert_success(&command, &self.wait_with_output());
    }

    #[track_caller]
    fn finish(mut self, limit: Duration) -> std::process::Output {
        drop(self.child.stdin.take());
        let stdout = self.child.stdout.take().map_or_else(Output::none, Output::new);
        let stderr = self.child.stderr.take().map_or_else(Output::none, Output::new);
        let mut outputs = [stdout, stderr];
        if !self.collect(&mut outputs, Instant::now() + limit) {
            let [stdout, stderr] = outputs.map(|output| output.text());
            let (command, pid) = (&self.command, self.pid());
            let (limit, place) = (duration(limit), describe(pid));
            panic!("{command} did not end in {limit}:\n{place}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        }
        let status = self.reap();
        let [stdout, stderr] = outputs.map(|output| output.bytes);
        std::process::Output { status, stdout, stderr }
    }

    pub(crate) fn collect(&self, outputs: &mut [Output], deadline: Instant) -> bool {
        collect(self.pidfd.as_fd(), outputs, deadline)
    }

    pub(crate) fn reap(&mut self) -> ExitStatus {
        self.child.wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.command))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // A handle that a forked child inherited is not its own child's. Both do nothing once it is reaped.
        if self.owner == std::process::id() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end and returns its output; panics with the output after 20 seconds.
///
/// Standard output and error are captured, wherever the caller had sent them.
#[track_caller]
pub fn run(command: &mut Command) -> std::process::Output {
    run_within(command, LIMIT)
}

/// Runs a command to its end and returns its standard output; panics with all its output unless it succeeds.
#[track_caller]
pub fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    assert_success(&format!("{command:?}"), &output);
    String::from_utf8(output.stdout).unwrap_or_else(|error| panic!("{command:?} printed no UTF-8: {error}"))
}

/// As [`run`], with another limit.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> std::process::Output {
    spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).finish(limit)
}

#[track_caller]
fn assert_success(command: &str, output: &std::process::Output) {
    if !output.status.success() {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        panic!("{command} failed: {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", output.status);
    }
}
