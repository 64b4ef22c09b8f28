//! A test in namespaces of its own. `unshare(2)`, `pid_namespaces(7)`, `ipc_namespaces(7)`, `prctl(2)`.
//!
//! What a user sees: the body of [`isolated`] runs in another process, in which `/dev/shm`, System V objects, POSIX
//! queues, abstract socket names, ports and process ids are the test's alone. Whatever ends it, nothing is left.
//!
//! How it works inside: the test binary runs itself for that one test. Four processes are in line, each forked by the
//! one before it, and each is killed when the one before it dies:
//!
//! ```text
//! outer    the test thread that called `isolated`; reads the output, keeps the deadline
//! anchor   made the namespaces; waits for init, exits with its status
//! init     pid 1 in there; reaps everything, exits with the test's status; its death kills the namespace
//! test     pid 2 in there; mounts, brings `lo` up, then executes the test binary with GINNEL_ISOLATED=1
//! ```
//!
//! Anchor and init are forks of a process with threads: they run only async-signal-safe code, on memory made before.
//!
//! Crash points: the anchor may die between init's fork and init's `PR_SET_PDEATHSIG`. It holds the writing end of a
//! pipe, and init looks for the hang-up after it has asked for the signal.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::child::{Spawned, die_with, guarded};
use crate::process::{Output, all_pids, collect, describe, duration};

const MARK: &str = "GINNEL_ISOLATED";

/// Runs the body of a `#[test]` in namespaces of its own, for at most 60 seconds.
///
/// In there: new IPC, mount, PID and network namespaces (and a user namespace with one id, root, where the caller may not
/// have the others), an empty `/dev/shm`, a `/proc` of that PID namespace, `lo` up, `TMPDIR=/dev/shm`, standard input from
/// `/dev/null`. When the body panics, this panics with what it printed.
///
/// The whole test function runs twice: code around the call runs in both processes, the body only in the isolated one.
/// In that one, `isolated` called again runs its body directly.
///
/// # Panics
/// Outside of a libtest thread (its name is how the test binary finds the test again), and where namespaces are refused.
#[track_caller]
pub fn isolated(test: impl FnOnce()) {
    isolated_for(Duration::from_secs(60), test);
}

/// As [`isolated`], with another limit.
#[track_caller]
pub fn isolated_for(limit: Duration, test: impl FnOnce()) {
    if !is_isolated() {
        return run_outside(limit);
    }
    // The panic's message is printed already. To end here spares libtest's summary, and lets `should_panic` work:
    // it is the outer test that panics.
    if catch_unwind(AssertUnwindSafe(test)).is_err() {
        std::process::exit(101);
    }
}

/// Whether this process is inside of [`isolated`].
pub fn is_isolated() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Puts the calling thread into IPC, mount and network namespaces of its own, with an empty `/dev/shm` and `/tmp`.
///
/// For documentation examples, which [`isolated`] cannot run again: a hidden first line keeps what they make off the
/// host, however they end. Without root it needs a process with one thread, which examples are not always: then it says
/// on standard error that the host's namespaces are used, and the example removes what it makes.
///
/// ```
/// ginnel_testkit::private();
/// assert_eq!(std::fs::read_dir("/dev/shm")?.count(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn private() {
    let flags = libc::CLONE_NEWIPC | libc::CLONE_NEWNS | libc::CLONE_NEWNET;
    let outcome = Plan::new()
        .unshare(flags)
        .and_then(|()| check("mount of / as private", mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)))
        .and_then(|_| check("mount of /dev/shm", mount(c"tmpfs", c"/dev/shm", libc::MS_NODEV)))
        .and_then(|_| check("mount of /tmp", mount(c"tmpfs", c"/tmp", libc::MS_NODEV)))
        .and_then(|_| loopback_up());
    if let Err(error) = outcome {
        eprintln!("no namespaces of its own for this example ({error}): it runs in the host's");
    }
}

#[track_caller]
fn run_outside(limit: Duration) {
    let name = test_name();
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut command = Command::new(std::env::current_exe().expect("the test binary's path"));
    command.args([&name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
    command.env(MARK, "1").env("TMPDIR", "/dev/shm").stdin(Stdio::null());
    command.stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
    let plan = Plan::new();
    // SAFETY: `signal` and `enter` are async-signal-safe; all that they need is in `plan`. No handler is installed.
    unsafe {
        command.pre_exec(move || {
            // `nohup`, and a shell that starts the tests in its background, have them ignored: Ctrl-C would do nothing.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            plan.enter()
        });
    }

    let mut output = [Output::new(reader)];
    let deadline = Instant::now() + limit;
    let mut anchor = match guarded(&mut command) {
        Ok(anchor) => anchor,
        Err(error) => {
            output[0].drain();
            let hint = hint(&error);
            panic!("isolated test {name} could not start: {}{error}{hint}", output[0].text());
        }
    };
    if !anchor.collect(&mut output, deadline) {
        let processes = end(&anchor, &mut output);
        let printed = output[0].text();
        let limit = duration(limit);
        panic!(
            "isolated test {name} did not finish in {limit}\n{printed}\nprocesses then alive:\n{processes}"
        );
    }
    let status = anchor.reap();
    let printed = output[0].text();
    if !status.success() {
        let signal = status.code().filter(|code| *code > 128).map(|code| format!(" (signal {})", code - 128));
        panic!("isolated test {name} failed: {status}{}\n{printed}", signal.unwrap_or_default());
    }
    assert!(
        printed.contains("running 1 test"),
        "isolated test {name} did not run: call `isolated` on the thread of a `#[test]`\n{printed}"
    );
    print!("{printed}");
}

#[track_caller]
fn test_name() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        name => panic!(
            "ginnel_testkit::isolated must be called on the thread of a `#[test]`, which has the test's name; \
             this thread is {name:?}"
        ),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EINVAL) => {
            "\nthe tests need namespaces: root, or unprivileged user namespaces, which these allow:\n  \
             sysctl kernel.unprivileged_userns_clone=1\n  \
             sysctl user.max_user_namespaces=10000\n  \
             sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        }
        _ => "",
    }
}

/// Says where every process of the anchor's PID namespace is, then kills them all and takes the last output.
fn end(anchor: &Spawned, output: &mut [Output]) -> String {
    let space = std::fs::read_link(format!("/proc/{}/ns/pid_for_children", anchor.pid())).ok();
    let members = |space: &PathBuf| -> Vec<i32> {
        let of = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
        all_pids().into_iter().filter(|pid| of(pid).is_ok_and(|other| other == *space)).collect()
    };
    let alive = space.as_ref().map(members).unwrap_or_default();
    let processes: Vec<String> = alive.iter().map(|pid| describe(*pid)).collect();
    let init = alive.iter().copied().find(|pid| is_init(*pid));
    let pidfd =
        init.and_then(|pid| rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok());
    match &pidfd {
        // Looked up again: between the two, the pid might have become another process's.
        Some(pidfd) if init.is_some_and(is_init) => {
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        _ => anchor.kill(),
    }
    // The kernel lets init's end be seen only after that of all the others in its namespace.
    if !anchor.collect(output, Instant::now() + Duration::from_secs(10)) {
        anchor.kill();
        if let Some(pidfd) = &pidfd {
            collect(pidfd.as_fd(), output, Instant::now() + Duration::from_secs(10));
        }
    }
    processes.join("\n")
}

fn is_init(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().count() > 1 && ids.split_whitespace().last() == Some("1")
}

/// All that the code between fork and exec needs, allocated before.
struct Plan {
    outer: i32,
    uid_map: CString,
    gid_map: CString,
}

impl Plan {
    fn new() -> Plan {
        let map = |id: u32| CString::new(format!("0 {id} 1")).expect("no NUL");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Plan { outer: std::process::id() as i32, uid_map: map(uid), gid_map: map(gid) }
    }

    /// Runs in what becomes the anchor; returns in the test, or with an error.
    fn enter(&self) -> io::Result<()> {
        die_with(self.outer);
        self.unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET)?;
        // The change of credentials may have cleared it.
        die_with(self.outer);
        let mut alive = [-1; 2];
        // SAFETY: `alive` has room for the two descriptors.
        check("pipe", unsafe { libc::pipe2(alive.as_mut_ptr(), libc::O_CLOEXEC) })?;
        let init = fork("fork of init")?;
        if init != 0 {
            close_all_but(alive[1]);
            exit(reap_until(init));
        }
        die_with_anchor(alive);
        let test = fork("fork of the test")?;
        if test != 0 {
            close_all_but(-1);
            exit(reap_until(test));
        }
        die_with(1);
        mounts()?;
        loopback_up()?;
        // SAFETY: no memory is involved; every descriptor above 2 is closed by the exec.
        check("close_range", unsafe {
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) as i32
        })?;
        Ok(())
    }

    fn unshare(&self, flags: i32) -> io::Result<()> {
        // SAFETY: no memory is involved.
        if unsafe { libc::unshare(flags) } == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        check("unshare", unsafe { libc::unshare(flags | libc::CLONE_NEWUSER) })?;
        write_file(c"/proc/self/setgroups", c"deny")?;
        write_file(c"/proc/self/uid_map", &self.uid_map)?;
        write_file(c"/proc/self/gid_map", &self.gid_map)
    }
}

/// Names the call on standard error before its error goes up, without a lock or an allocation.
fn check(call: &'static str, result: i32) -> io::Result<i32> {
    if result >= 0 {
        return Ok(result);
    }
    let error = io::Error::last_os_error();
    for part in [call, ": "] {
        // SAFETY: the pointer and the length are one string's.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    Err(error)
}

fn fork(call: &'static str) -> io::Result<i32> {
    // SAFETY: the process is the fork of one with threads; it and its child run only async-signal-safe code.
    check(call, unsafe { libc::fork() })
}

fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// In init, whose parent has no pid in this namespace: getppid cannot tell whether it lives, so the pipe does.
fn die_with_anchor(alive: [i32; 2]) {
    let mut poll = libc::pollfd { fd: alive[0], events: 0, revents: 0 };
    // SAFETY: the descriptors are ours, `poll` is one pollfd.
    let dead = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::close(alive[1]);
        libc::poll(&mut poll, 1, 0) != 0
    };
    if dead {
        exit(1);
    }
}

/// The anchor and init must hold neither the output nor the pipe on which `Command` waits for the exec.
fn close_all_but(kept: i32) {
    let close = |first: u32, last: u32| {
        // SAFETY: this process uses no descriptor but `kept` from here on.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    };
    if kept < 0 {
        return close(0, u32::MAX);
    }
    let kept = kept as u32;
    if kept > 0 {
        close(0, kept - 1);
    }
    close(kept + 1, u32::MAX);
}

/// Reaps children until that one has ended; its status as a shell's.
fn reap_until(pid: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        let reaped = unsafe { libc::waitpid(-1, &mut status, 0) };
        if reaped == pid {
            return if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
        }
    }
}

fn write_file(path: &'static CStr, text: &CStr) -> io::Result<()> {
    let call = path.to_str().unwrap_or("open");
    // SAFETY: the path is NUL-terminated; the text's pointer and length are one buffer's; the descriptor is ours.
    unsafe {
        let fd = check(call, libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        check(call, libc::write(fd, text.as_ptr().cast(), text.count_bytes()) as i32)?;
        libc::close(fd);
    }
    Ok(())
}

fn mounts() -> io::Result<()> {
    let nothing = libc::MS_NOSUID | libc::MS_NODEV;
    check("mount of / as private", mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE))?;
    check("mount of /dev/shm", mount(c"tmpfs", c"/dev/shm", nothing))?;
    check("mount of /proc", mount(c"proc", c"/proc", nothing | libc::MS_NOEXEC))?;
    Ok(())
}

/// `mount(2)`; a tmpfs is for everybody.
fn mount(kind: &CStr, path: &CStr, flags: libc::c_ulong) -> i32 {
    let data = if kind == c"tmpfs" { c"mode=1777" } else { c"" };
    // SAFETY: all four are NUL-terminated strings.
    unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) }
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: an ifreq of zeros is one without a name and without flags; the ioctl reads that much and the socket is ours.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        let socket = check("socket", libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        check("SIOCSIFFLAGS on lo", libc::ioctl(socket, libc::SIOCSIFFLAGS, &request))?;
        libc::close(socket);
    }
    Ok(())
}
