//! Process groups, sessions and the terminal's foreground: `setpgid(2)`, `setsid(2)`, `killpg(3)`, `tcsetpgrp(3)`,
//! `credentials(7)`.
//!
//! # What a user sees
//! A group is a job: the processes of a pipeline, which a shell signals as one. A session is what runs on one terminal;
//! it has one group in the foreground, which gets Ctrl-C and may read.
//!
//! A command starts in a group of its own with `std`'s `CommandExt::process_group(0)`; the group's number is the first
//! process's id, and others join by `process_group(id)`. The group lasts as long as any process is in it.
//!
//! A process in the background that sets the terminal's foreground group is stopped by `SIGTTOU`:
//! [`Group::to_foreground`] blocks that signal for the call, as every shell does.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::pidfd::waitid;
use super::siginfo::Info;
use super::signal::{Signal, Target};
use super::signal_set::SignalSet;
use crate::error::{Error, Label, Result};
use crate::{Deadline, interrupt};

/// A process group.
///
/// ```
/// use std::os::unix::process::CommandExt;
/// use std::process::Command;
/// use ginnel::notify::{Group, Signal};
///
/// let mut first = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
/// let group = Group::of(first.id() as i32)?;
/// let mut second = Command::new("sleep").arg("1000").process_group(group.id()).spawn().unwrap();
/// assert_eq!(group.members()?.len(), 2);
///
/// group.send(Signal::TERM)?;
/// assert!(!first.wait().unwrap().success());
/// assert!(!second.wait().unwrap().success());
/// assert!(!group.exists()?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Group(Pid);

impl Group {
    /// The calling process's group.
    pub fn own() -> Group {
        Group(rustix::process::getpgrp())
    }

    /// The group that a process is in. `getpgid(2)`.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. `EINVAL`: an id is greater than 0.
    pub fn of(pid: i32) -> Result<Group> {
        let object = process(pid);
        let pid = valid("getpgid", pid, &object)?;
        rustix::process::getpgid(Some(pid)).map(Group).map_err(|errno| failed("getpgid", errno, &object))
    }

    /// The group with this number, which is not looked at before the first call on it.
    ///
    /// # Errors
    /// `EINVAL`: it is not greater than 0.
    pub fn from_id(id: i32) -> Result<Group> {
        Ok(Group(valid("getpgid", id, &label(id))?))
    }

    /// Puts the calling process into a new group, which it leads.
    ///
    /// # Errors
    /// `EPERM`: it leads a session.
    pub fn create() -> Result<Group> {
        let me = rustix::process::getpid();
        Group(me).adopt(me.as_raw_nonzero().get())?;
        Ok(Group(me))
    }

    /// Puts the calling process into this group.
    ///
    /// # Errors
    /// `EPERM`: there is no such group in its session, or it leads a session.
    pub fn join(self) -> Result<()> {
        self.adopt(std::process::id() as i32)
    }

    /// Puts a child, before it executes a program, into this group (with its own id: a new one). `setpgid(2)`.
    ///
    /// # Errors
    /// `EACCES`: the child has executed a program already: use `CommandExt::process_group` with a `Command`. `EPERM`: the
    /// group is in another session, or there is none, or the child leads a session or is in another. `ESRCH`: it is
    /// neither the caller nor its child.
    pub fn adopt(self, pid: i32) -> Result<()> {
        let object = process(pid);
        let raw = valid("setpgid", pid, &object)?;
        rustix::process::setpgid(Some(raw), Some(self.0)).map_err(|errno| failed("setpgid", errno, &object))
    }

    /// Its number: the id of the process that made it.
    pub fn id(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// The target for a signal.
    pub fn target(self) -> Target {
        Target::Group(self.id())
    }

    /// Sends a signal to every process in it. `killpg(3)`.
    ///
    /// # Errors
    /// `ESRCH`: no process is in it. `EPERM`: the caller may signal none of them. `EINVAL`: group 1, see
    /// [`Target`].
    pub fn send(self, signal: Signal) -> Result<()> {
        self.target().send(signal)
    }

    /// Whether any process is in it.
    ///
    /// # Errors
    /// `EINVAL` as [`Group::send`].
    pub fn exists(self) -> Result<bool> {
        self.target().exists()
    }

    /// The processes in it now, by `/proc`; those that ended and were not waited for are among them.
    ///
    /// # Errors
    /// `ENOENT`: `/proc` is not mounted.
    pub fn members(self) -> Result<Vec<i32>> {
        let failed = |error: std::io::Error| Error::from_io("readdir", &error, &label(self.id()));
        let entries = std::fs::read_dir("/proc").map_err(failed)?;
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut members: Vec<i32> = pids.filter(|pid| group_of(*pid) == Some(self.id())).collect();
        members.sort_unstable();
        Ok(members)
    }

    /// Waits until any of the caller's children in this group ends, and reaps it. `waitid(2)` with `P_PGID`.
    ///
    /// # Errors
    /// `ECHILD`: the caller has no child in it. `EINTR`: a signal handler ran.
    pub fn reap(self) -> Result<Info> {
        self.reap_deadline(Deadline::NEVER)
    }

    /// Reaps a child in this group, if one has ended.
    ///
    /// # Errors
    /// `EAGAIN`: none has ended. `ECHILD` as [`Group::reap`].
    pub fn try_reap(self) -> Result<Info> {
        self.reap_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for the end of a child in this group, and reaps it.
    ///
    /// # Errors
    /// `ETIMEDOUT`: none ended. Else as [`Group::reap`]. `EBUSY` as [`deadline_signal`](crate::deadline_signal).
    pub fn reap_deadline(self, deadline: impl Into<Deadline>) -> Result<Info> {
        interrupt::until(deadline.into(), "waitid", &label(self.id()), |attempt| {
            waitid(libc::P_PGID, self.id() as u32, libc::WEXITED, attempt)
        })
        .map_err(|error| match error.raw() {
            Errno::CHILD => error.with_hint("no child of this process is in the group"),
            _ => error,
        })
    }

    /// The group in the foreground of a terminal. `tcgetpgrp(3)`.
    ///
    /// # Errors
    /// `ENOTTY`: it is no terminal, or not the caller's. `EOPNOTSUPP`: no group is in the foreground.
    pub fn in_foreground(terminal: impl AsFd) -> Result<Group> {
        rustix::termios::tcgetpgrp(terminal).map(Group).map_err(|errno| on_terminal("tcgetpgrp", errno))
    }

    /// Puts this group into the foreground of the caller's terminal until the guard is dropped: the group that was there
    /// goes back then. `tcsetpgrp(3)`.
    ///
    /// # Errors
    /// `ENOTTY`: it is no terminal, or not the caller's. `EPERM`: the group is not in the caller's session. `EMFILE`: no
    /// more descriptors.
    pub fn to_foreground(self, terminal: impl AsFd) -> Result<Foreground> {
        let before = Group::in_foreground(&terminal)?;
        let terminal = terminal
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::from_io("fcntl", &error, &"terminal".into()))?;
        set_foreground(&terminal, self)?;
        Ok(Foreground { terminal, before })
    }
}

impl std::fmt::Display for Group {
    /// Its number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id())
    }
}

/// A group's place in the foreground; dropping it puts back the group that was there before.
///
/// ```no_run
/// use std::os::unix::process::CommandExt;
/// use ginnel::notify::Group;
///
/// let mut editor = std::process::Command::new("vi").process_group(0).spawn().unwrap();
/// let _its_turn = Group::of(editor.id() as i32)?.to_foreground(std::io::stdin())?;
/// editor.wait().unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the foreground goes back when this is dropped"]
pub struct Foreground {
    terminal: OwnedFd,
    before: Group,
}

impl Foreground {
    /// The group that was in the foreground before.
    pub fn before(&self) -> Group {
        self.before
    }

    /// Leaves the group in the foreground.
    pub fn keep(self) {
        let Foreground { ref terminal, .. } = self;
        // The descriptor is closed; only the giving back is left out.
        let duplicate = terminal.try_clone();
        drop(duplicate);
        std::mem::forget(self);
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = set_foreground(&self.terminal, self.before);
    }
}

fn set_foreground(terminal: &OwnedFd, group: Group) -> Result<()> {
    let _blocked = SignalSet::from(Signal::TTOU).block()?;
    rustix::termios::tcsetpgrp(terminal, group.0).map_err(|errno| on_terminal("tcsetpgrp", errno))
}

/// Whether the calling process is in the foreground of its terminal: may it read the keyboard?
///
/// # Errors
/// `ENXIO`: it has no terminal.
pub fn is_foreground() -> Result<bool> {
    let terminal = std::fs::File::open("/dev/tty").map_err(|error| {
        Error::from_io("open", &error, &"pty:/dev/tty".into()).with_hint("this process has no terminal")
    })?;
    Ok(Group::in_foreground(&terminal)? == Group::own())
}

/// A session: the groups on one terminal, or a daemon's, on none.
///
/// ```
/// use ginnel::notify::{Group, Session};
///
/// let child = ginnel::process::fork(|| {
///     // A forked child leads no group, so it may begin a session.
///     let session = Session::create().unwrap();
///     u8::from(session.id() != Group::own().id())
/// });
/// # // A doctest's process has threads or not, as rustdoc likes.
/// # if let Ok(child) = child {
/// assert_eq!(child.wait()?.code(), Some(0));
/// # }
/// assert_eq!(Session::own(), Session::of(std::process::id() as i32)?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Session(Option<Pid>);

impl Session {
    /// The calling process's session.
    pub fn own() -> Session {
        Session(rustix::process::getsid(None).ok())
    }

    /// The session that a process is in. `getsid(2)`.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. `EINVAL`: an id is greater than 0.
    pub fn of(pid: i32) -> Result<Session> {
        let object = process(pid);
        let pid = valid("getsid", pid, &object)?;
        rustix::process::getsid(Some(pid))
            .map(|id| Session(Some(id)))
            .map_err(|errno| failed("getsid", errno, &object))
    }

    /// Begins a new session with a new group, which the calling process leads, without a terminal. `setsid(2)`.
    ///
    /// # Errors
    /// `EPERM`: the caller leads a group already; fork first.
    pub fn create() -> Result<Session> {
        rustix::process::setsid()
            .map(|id| Session(Some(id)))
            .map_err(|errno| failed("setsid", errno, &process(std::process::id() as i32)))
    }

    /// The session of a terminal. `tcgetsid(3)`.
    ///
    /// # Errors
    /// `ENOTTY`: it is no terminal, or no session's.
    pub fn of_terminal(terminal: impl AsFd) -> Result<Session> {
        rustix::termios::tcgetsid(terminal)
            .map(|id| Session(Some(id)))
            .map_err(|errno| on_terminal("tcgetsid", errno))
    }

    /// Its number: its leader's process id; 0 when that is outside of the caller's PID namespace.
    pub fn id(self) -> i32 {
        self.0.map_or(0, |pid| pid.as_raw_nonzero().get())
    }

    /// Makes a terminal the controlling terminal of the caller, who must lead a session that has none (`TIOCSCTTY`).
    ///
    /// # Errors
    /// `EPERM`: the caller leads no session, has a terminal already, or the terminal belongs to another session.
    /// `ENOTTY`: it is no terminal.
    pub fn claim_terminal(terminal: impl AsFd) -> Result<()> {
        rustix::process::ioctl_tiocsctty(terminal).map_err(|errno| on_terminal("ioctl_tty", errno))
    }
}

/// The group of a process, by the third field after the command's name, which may hold blanks and parentheses.
fn group_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

fn valid(operation: &'static str, pid: i32, object: &Label) -> Result<Pid> {
    Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or_else(|| Error::invalid(operation, object, "an id is greater than 0"))
}

fn process(pid: i32) -> Label {
    Label::new(format!("process {pid}"))
}

fn label(group: i32) -> Label {
    Label::new(format!("signal:-{group}"))
}

fn failed(operation: &'static str, errno: Errno, object: &Label) -> Error {
    let error = Error::new(operation, errno, object);
    match (operation, errno) {
        ("setsid", Errno::PERM) => error.with_hint("the caller leads a process group already; fork first"),
        ("setpgid", Errno::PERM) => {
            error.with_hint("no such group in this session, or the process leads a session or is in another")
        }
        ("setpgid", Errno::ACCESS) => error.with_hint(
            "the child has executed a program already; use CommandExt::process_group when it is started",
        ),
        ("setpgid", Errno::SRCH) => error.with_hint("it is neither the caller nor its child"),
        (_, Errno::SRCH) => error.with_hint("no such process"),
        _ => error,
    }
}

fn on_terminal(operation: &'static str, errno: Errno) -> Error {
    let error = Error::new(operation, errno, &"terminal".into());
    match errno {
        Errno::NOTTY => error.with_hint("it is no terminal, or not this session's"),
        Errno::PERM if operation == "tcsetpgrp" => error.with_hint("the group is not in this session"),
        Errno::PERM => error.with_hint("the caller must lead a session without a terminal (setsid)"),
        _ => error,
    }
}
