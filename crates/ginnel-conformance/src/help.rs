//! What clauses are written with: errnos asserted, calls that block, signals, other users.
#![allow(unsafe_code)]

use std::fmt::Debug;
use std::time::Duration;

use ginnel_testkit::{Child, as_user, fork};

use crate::home::Home;
use crate::{Errno, Result};

/// A user of the permission clauses: the owner. Its group has the same number.
pub const ALICE: u32 = 1001;
/// Another one.
pub const BOB: u32 = 1002;

/// Short enough to be waited for.
pub const SHORT: Duration = Duration::from_millis(20);
/// No clause lives that long.
pub const LONG: Duration = Duration::from_secs(1000);

/// That the call fails with this errno.
#[track_caller]
pub fn fails<T: Debug>(errno: Errno, call: Result<T>) {
    assert_eq!(call.map_err(name).err().unwrap_or_else(|| "success".into()), name(errno));
}

fn name(errno: Errno) -> String {
    format!("{errno:?} ({})", errno.raw_os_error())
}

/// A process in which `call` is blocked; it is to end by itself, without a panic.
#[track_caller]
pub fn blocked<H: Home>(home: &H, call: impl FnOnce()) -> Child {
    let child = fork(call);
    home.wait_blocked(child.pid());
    child
}

/// Does it in another process, to its end.
#[track_caller]
pub fn elsewhere(act: impl FnOnce()) {
    fork(act).assert_ok();
}

/// Does it in another process, as that user, to its end.
#[track_caller]
pub fn as_other(uid: u32, gid: u32, act: impl FnOnce()) {
    as_user(uid, gid, act).assert_ok();
}

/// Gives a signal a handler that does nothing.
pub fn catch(signal: i32, flags: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; all zeros is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// That a blocked `call` ends with `EINTR` when a handler, installed with these flags, has run.
#[track_caller]
pub fn interrupted<H: Home, T: Debug>(home: &H, flags: i32, call: impl FnOnce() -> Result<T>) {
    let child = blocked(home, || {
        catch(libc::SIGUSR1, flags);
        fails(Errno::INTR, call());
    });
    child.signal(libc::SIGUSR1);
    child.assert_ok();
}

/// That a blocked `call` goes on after a handler, installed with `SA_RESTART`, has run; `release` then ends it well.
#[track_caller]
pub fn restarted<H: Home, T: Debug>(home: &H, call: impl FnOnce() -> Result<T>, release: impl FnOnce()) {
    let child = blocked(home, || {
        catch(libc::SIGUSR1, libc::SA_RESTART);
        call().unwrap();
    });
    child.signal(libc::SIGUSR1);
    // It has left the call for the handler, and is back in it.
    std::thread::sleep(SHORT);
    home.wait_blocked(child.pid());
    release();
    child.assert_ok();
}

/// The processes of a clause that ended with it are no users of anything.
pub fn pid() -> i32 {
    std::process::id() as i32
}

/// Seconds since 1970, as the kernel stamps objects.
pub fn now() -> i64 {
    // SAFETY: time with a null pointer only returns.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// That a stamp was made between then and now. The clock it is read from may lag a tick behind.
#[track_caller]
pub fn recent(stamp: i64, since: i64) {
    assert!((since - 1..=now() + 1).contains(&stamp), "stamp {stamp}, expected {since} or a little later");
}

/// Replaces this process by a program that does nothing until it is killed.
pub fn exec_sleeper() -> ! {
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new("sleep").arg("1000").exec();
    panic!("exec of sleep: {error}");
}

/// Waits until the process has become the program of [`exec_sleeper`], and its libraries are loaded.
#[track_caller]
pub fn wait_exec(pid: i32) {
    ginnel_testkit::wait_until("it has executed sleep", || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
            && ginnel_testkit::blocked_in(pid, libc::SYS_clock_nanosleep)
    });
}

/// Takes a signal that is blocked and pending: its number, value, code and sender.
pub fn pending_signal(signal: i32, timeout: Duration) -> Option<(i32, i32, i32)> {
    // SAFETY: the set and the siginfo are ours; si_value and si_pid are what a queued signal has.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let limit =
            libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        (libc::sigtimedwait(&set, &mut info, &limit) == signal)
            .then(|| (info.si_value().sival_ptr as usize as i32, info.si_code, info.si_pid()))
    }
}

/// Blocks a signal in this process.
pub fn block_signal(signal: i32) {
    // SAFETY: the set is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        assert_eq!(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()), 0);
    }
}
