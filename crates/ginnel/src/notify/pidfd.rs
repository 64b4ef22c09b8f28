//! A process by a descriptor: `pidfd_open(2)`, `pidfd_send_signal(2)`, `pidfd_getfd(2)`, `waitid(2)` with `P_PIDFD`, and
//! `ioctl_pidfd(2)`.
//!
//! # What a user sees
//! A process id may be given to another process as soon as its first owner was waited for. A [`PidFd`] stays with its
//! process: a signal sent by it reaches that one or nobody. It tells of the end of *any* process, by
//! [`PidFd::wait`] and by `poll`; how it ended, the parent asks with [`PidFd::reap`] and anybody else with
//! [`PidFd::exit_status`].
//!
//! Between reading a process id somewhere and [`PidFd::open`] the id may change hands. A parent's own child cannot,
//! before it was waited for.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::ioctl::{Updater, opcode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::nonblocking;
use super::siginfo::{Info, Payload, RawInfo};
use super::signal::{self, Signal};
use crate::error::{Error, Label, Result};
use crate::wait::{self, Attempt, check};
use crate::{Deadline, interrupt};

/// A process, held by a descriptor.
///
/// ```
/// use ginnel::notify::{Code, PidFd, Signal};
///
/// let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
/// let process = PidFd::of_child(&child)?;
/// assert!(process.is_alive());
/// assert!(process.try_wait().unwrap_err().is_would_block());
///
/// process.send(Signal::TERM)?;
/// let end = process.reap()?;
/// assert_eq!((end.code, end.status), (Code::ChildKilled, Some(Signal::TERM.number())));
/// assert!(!process.is_alive());
/// assert!(process.send(Signal::TERM).unwrap_err().is_not_found());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    object: Label,
    pid: i32,
}

impl PidFd {
    /// The process with this id. It may be anybody's.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. `EINVAL`: not an id of a process: less than 1, or a thread's (`ENOENT` on
    /// newer kernels). `EMFILE`, `ENFILE`: no more descriptors. `ENOSYS`: before Linux 5.3.
    pub fn open(pid: i32) -> Result<PidFd> {
        PidFd::open_with(pid, PidfdFlags::empty(), "process")
    }

    /// The thread with this id: `PIDFD_THREAD`, Linux 6.9. It ends when the thread does; signals go to the thread.
    ///
    /// # Errors
    /// As [`PidFd::open`]. `EINVAL` too on an older kernel.
    pub fn open_thread(thread: i32) -> Result<PidFd> {
        PidFd::open_with(thread, PidfdFlags::from_bits_retain(libc::O_EXCL as u32), "thread")
    }

    /// The calling process.
    ///
    /// # Errors
    /// As [`PidFd::open`].
    pub fn this_process() -> Result<PidFd> {
        PidFd::open(std::process::id() as i32)
    }

    /// A child, which must not have been waited for yet: its id might be another process's by now.
    ///
    /// # Errors
    /// As [`PidFd::open`].
    pub fn of_child(child: &std::process::Child) -> Result<PidFd> {
        PidFd::open(child.id() as i32)
    }

    /// Takes on a pidfd that came from elsewhere: by inheritance, a socket, `clone3(2)`.
    ///
    /// # Errors
    /// `EINVAL`: the descriptor is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<PidFd> {
        match super::fdinfo(fd.as_fd(), "Pid").and_then(|pid| pid.parse().ok()) {
            Some(pid) => Ok(PidFd { fd, object: label("process", pid), pid }),
            None => Err(Error::invalid("pidfd_open", &"pidfd".into(), "the descriptor is no pidfd")),
        }
    }

    fn open_with(pid: i32, flags: PidfdFlags, kind: &str) -> Result<PidFd> {
        let object = label(kind, pid);
        // Pid::from_raw panics on a negative number.
        let valid = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let valid = valid.ok_or_else(|| Error::invalid("pidfd_open", &object, "an id is greater than 0"))?;
        match rustix::process::pidfd_open(valid, flags) {
            Ok(fd) => Ok(PidFd { fd, object, pid }),
            Err(errno) => {
                let error = Error::new("pidfd_open", errno, &object);
                Err(match errno {
                    Errno::SRCH => {
                        error.with_hint("no such process: it ended and was waited for, or never was")
                    }
                    Errno::INVAL | Errno::NOENT if kind == "process" => {
                        error.with_hint("this is the id of a thread that is not its process's first")
                    }
                    Errno::INVAL => error.with_hint("a pidfd of a thread needs Linux 6.9"),
                    Errno::MFILE => error.with_hint("raise the limit of descriptors (`ulimit -n`)"),
                    _ => error,
                })
            }
        }
    }

    /// The process id that it was opened with. Once the process was waited for the number may be another's.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the process has not ended. One that ended is not alive even while nobody has waited for it.
    pub fn is_alive(&self) -> bool {
        !matches!(nonblocking::is_ready(self.as_fd(), PollFlags::IN), Ok(true))
    }

    /// Waits for the process's end, whosever child it is, and reaps nothing.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran.
    pub fn wait(&self) -> Result<()> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Whether the process has ended: `Ok` if it has.
    ///
    /// # Errors
    /// `EAGAIN`: it has not.
    pub fn try_wait(&self) -> Result<()> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for the process's end, and reaps nothing.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it has not ended. `EINTR`: a signal handler ran.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<()> {
        wait::ready(self.as_fd(), PollFlags::IN, deadline.into(), "poll", &self.object)
    }

    /// Waits for a child's end and reaps it: how it ended.
    ///
    /// # Errors
    /// `ECHILD`: it is not a child of this process, or was waited for already. `EINTR`: a signal handler ran.
    pub fn reap(&self) -> Result<Info> {
        self.reap_deadline(Deadline::NEVER)
    }

    /// Reaps a child, if it has ended.
    ///
    /// # Errors
    /// `EAGAIN`: it has not. `ECHILD` as [`PidFd::reap`].
    pub fn try_reap(&self) -> Result<Info> {
        self.reap_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for a child's end and reaps it.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it has not ended. `ECHILD`, `EINTR` as [`PidFd::reap`].
    pub fn reap_deadline(&self, deadline: impl Into<Deadline>) -> Result<Info> {
        let deadline = deadline.into();
        wait::until_ready(self, PollFlags::IN, deadline, "waitid", &self.object, |attempt| {
            self.waitid(libc::WEXITED, attempt)
        })
        .map_err(no_child)
    }

    /// How a child that has ended ended, without reaping it (`WNOWAIT`).
    ///
    /// # Errors
    /// `EAGAIN`: it has not ended. `ECHILD` as [`PidFd::reap`].
    pub fn peek(&self) -> Result<Info> {
        self.waitid(libc::WEXITED | libc::WNOWAIT, Attempt::NonBlocking)
            .map_err(|errno| no_child(self.error("waitid", errno)))
    }

    /// Waits until a child ends (and reaps it), is stopped by a signal, or goes on (`WSTOPPED`, `WCONTINUED`).
    ///
    /// # Errors
    /// As [`PidFd::reap`].
    pub fn change(&self) -> Result<Info> {
        self.change_deadline(Deadline::NEVER)
    }

    /// What became of a child, if it has ended, stopped or gone on since it was asked for last.
    ///
    /// # Errors
    /// `EAGAIN`: it has not. `ECHILD` as [`PidFd::reap`].
    pub fn try_change(&self) -> Result<Info> {
        self.change_deadline(Deadline::NOW)
    }

    /// As [`PidFd::change`]; waits until the deadline. A stop makes no pidfd ready, so this waits by
    /// [`deadline_signal`](crate::deadline_signal).
    ///
    /// # Errors
    /// `ETIMEDOUT`: nothing became of it. Else as [`PidFd::reap`].
    pub fn change_deadline(&self, deadline: impl Into<Deadline>) -> Result<Info> {
        let any = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
        interrupt::until(deadline.into(), "waitid", &self.object, |attempt| self.waitid(any, attempt))
            .map_err(no_child)
    }

    /// How the process ended, whosever child it is.
    ///
    /// Of a child, as soon as it has ended, waited for or not. Of others, after their parent has waited for them
    /// (`PIDFD_GET_INFO`, Linux 6.15): until then the kernel keeps it to the parent.
    ///
    /// # Errors
    /// `EAGAIN`: it has not ended, or has not been waited for by its parent. `ENOTTY`, `EINVAL`, `ESRCH`: the kernel is
    /// too old to tell.
    pub fn exit_status(&self) -> Result<ExitStatus> {
        match self.peek() {
            Err(error) if error.raw() == Errno::CHILD => {}
            Ok(info) => {
                return info.exit_status().ok_or_else(|| self.error("waitid", Errno::PROTO));
            }
            Err(error) => return Err(error),
        }
        let raw = self.get_info(PIDFD_INFO_EXIT).map_err(|error| {
            error.with_hint("the kernel does not tell how another's child ended: Linux 6.15 does")
        })?;
        if raw.mask & PIDFD_INFO_EXIT == 0 {
            let why = if self.is_alive() { "it still runs" } else { "its parent has not waited for it yet" };
            return Err(self.error("ioctl", Errno::AGAIN).with_hint(why));
        }
        Ok(ExitStatus::from_raw(raw.exit_code))
    }

    /// Who the process is: ids, user, group (`PIDFD_GET_INFO`, Linux 6.13).
    ///
    /// # Errors
    /// `ESRCH`: it has been waited for. `ENOTTY`, `EINVAL`: the kernel is too old.
    pub fn info(&self) -> Result<ProcessInfo> {
        let raw = self.get_info(PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_CGROUPID)?;
        if raw.mask & PIDFD_INFO_PID == 0 {
            return Err(self.error("ioctl", Errno::SRCH).with_hint("it ended and was waited for"));
        }
        Ok(ProcessInfo {
            pid: raw.tgid as i32,
            parent: raw.ppid as i32,
            uid: raw.ruid,
            gid: raw.rgid,
            effective_uid: raw.euid,
            effective_gid: raw.egid,
            saved_uid: raw.suid,
            saved_gid: raw.sgid,
            cgroup_id: (raw.mask & PIDFD_INFO_CGROUPID != 0).then_some(raw.cgroupid),
        })
    }

    /// Sends a signal to this process and no other. Whoever holds the descriptor needs the right to signal all the same.
    ///
    /// # Errors
    /// `ESRCH`: it has ended and was waited for. `EPERM`: the caller may not signal it. `EINVAL`: the process is in a
    /// PID namespace that is not the caller's own or below it.
    pub fn send(&self, signal: Signal) -> Result<()> {
        self.send_raw(signal, None, 0)
    }

    /// Sends a signal with a payload (`SI_QUEUE`), as [`Target::queue`](super::Target::queue) does.
    ///
    /// # Errors
    /// `EAGAIN`: too many signals are queued for its user (`RLIMIT_SIGPENDING`). Else as [`PidFd::send`].
    pub fn queue(&self, signal: Signal, payload: impl Into<Payload>) -> Result<()> {
        self.send_raw(signal, Some(RawInfo::queued(signal, payload.into())), 0)
    }

    /// Sends a signal to the process group of which this process is the leader: `PIDFD_SIGNAL_PROCESS_GROUP`, Linux
    /// 6.9.
    ///
    /// # Errors
    /// `ESRCH`: it is the leader of no group, or no process of it is left. `EPERM`: none of them may be signalled.
    /// `EINVAL`: the kernel is too old.
    pub fn send_group(&self, signal: Signal) -> Result<()> {
        const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
        self.send_raw(signal, None, PIDFD_SIGNAL_PROCESS_GROUP)
    }

    /// Copies a descriptor out of the process, close-on-exec: the same open file description, as `dup(2)` has it.
    ///
    /// # Errors
    /// `EBADF`: the process has no such descriptor. `EPERM`: the caller may not trace it. `ESRCH`: it has ended.
    /// `EMFILE`: no more descriptors. `ENOSYS`: before Linux 5.6.
    pub fn get_fd(&self, descriptor: i32) -> Result<OwnedFd> {
        rustix::process::pidfd_getfd(&self.fd, descriptor, PidfdGetfdFlags::empty()).map_err(|errno| {
            let error = self.error("pidfd_getfd", errno);
            match errno {
                Errno::PERM => error.with_hint(
                    "this needs the right to trace it: the same user and a dumpable process, or CAP_SYS_PTRACE (see \
                     kernel.yama.ptrace_scope)",
                ),
                Errno::BADF => error.with_hint(format!("it has no descriptor {descriptor}")),
                Errno::SRCH => error.with_hint("it has ended"),
                _ => error,
            }
        })
    }

    fn send_raw(&self, signal: Signal, info: Option<RawInfo>, flags: u32) -> Result<()> {
        let info = info.as_ref().map_or(ptr::null(), RawInfo::as_ptr);
        let fd = self.fd.as_raw_fd();
        // SAFETY: the siginfo_t is whole, or the pointer null; the signal is none of the C library's own.
        let outcome =
            check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal.number(), info, flags) });
        outcome.map(drop).map_err(|errno| {
            let error = self.error("pidfd_send_signal", errno);
            match errno {
                Errno::SRCH if flags != 0 => {
                    error.with_hint("it leads no process group, or nobody of it is left")
                }
                Errno::SRCH => error.with_hint("it ended and was waited for"),
                Errno::PERM => error.with_hint(signal::permission_hint(self.pid)),
                Errno::AGAIN => error.with_hint(signal::queue_hint(self.pid)),
                _ => error,
            }
        })
    }

    /// `waitid(2)`: `EAGAIN` where there is nothing to tell yet.
    fn waitid(&self, options: i32, attempt: Attempt) -> Result<Info, Errno> {
        waitid(libc::P_PIDFD, self.fd.as_raw_fd() as u32, options, attempt)
    }

    fn get_info(&self, mask: u64) -> Result<RawProcessInfo> {
        const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<RawProcessInfo>(0xff, 11);
        let mut raw = RawProcessInfo { mask, ..RawProcessInfo::default() };
        // SAFETY: the kernel reads and fills a struct of the size that the request number says.
        unsafe { rustix::ioctl::ioctl(&self.fd, Updater::<GET_INFO, RawProcessInfo>::new(&mut raw)) }
            .map_err(|errno| self.error("ioctl", errno))?;
        Ok(raw)
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, errno, &self.object)
    }
}

/// `waitid(2)`, which gives `EAGAIN` where there is nothing to tell yet.
pub(super) fn waitid(kind: libc::idtype_t, id: u32, options: i32, attempt: Attempt) -> Result<Info, Errno> {
    let no_hang = if attempt == Attempt::NonBlocking { libc::WNOHANG } else { 0 };
    let mut raw = RawInfo::ZERO;
    // SAFETY: the siginfo_t is the kernel's to fill.
    check(unsafe { libc::waitid(kind, id, raw.as_mut_ptr().cast(), options | no_hang) })?;
    if !raw.is_filled() {
        return Err(Errno::AGAIN);
    }
    Info::from_raw(&raw).ok_or(Errno::PROTO)
}

fn no_child(error: Error) -> Error {
    match error.raw() {
        Errno::CHILD => error.with_hint("it is no child of this process, or was waited for already"),
        _ => error,
    }
}

fn label(kind: &str, pid: i32) -> Label {
    Label::new(format!("{kind} {pid}"))
}

impl AsFd for PidFd {
    /// Readable once the process has ended; hung up once it was waited for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(process: PidFd) -> OwnedFd {
        process.fd
    }
}

/// Who a process is: [`PidFd::info`].
///
/// ```
/// use ginnel::notify::PidFd;
///
/// match PidFd::this_process()?.info() {
///     Ok(info) => assert_eq!(info.pid, std::process::id() as i32),
///     Err(error) => println!("{error}"), // Before Linux 6.13.
/// }
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its process id, in the caller's PID namespace.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its real user.
    pub uid: u32,
    /// Its real group.
    pub gid: u32,
    /// The user whose rights it has.
    pub effective_uid: u32,
    /// The group whose rights it has.
    pub effective_gid: u32,
    /// The user it can go back to.
    pub saved_uid: u32,
    /// The group it can go back to.
    pub saved_gid: u32,
    /// The inode number of its cgroup's directory.
    pub cgroup_id: Option<u64>,
}

const PIDFD_INFO_PID: u64 = 1 << 0;
const PIDFD_INFO_CREDS: u64 = 1 << 1;
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` in its first size, 64 bytes.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawProcessInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const _: () = assert!(size_of::<RawProcessInfo>() == 64);
