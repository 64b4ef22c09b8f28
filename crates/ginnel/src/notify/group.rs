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
//!
//! A group or session whose number lies outside of the caller's PID namespace has the number 0, as the kernel says it:
//! such a one can be compared and not signalled. ([`Target::OwnGroup`] reaches one's own, whatever its number.)
//! rustix takes that 0 for impossible, so this file asks libc.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;

use super::pidfd::waitid;
use super::siginfo::Info;
use super::signal::{Signal, Target};
use super::signal_set::SignalSet;
use crate::error::{Error, Label, Result};
use crate::wait::check;
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
pub struct Group(i32);

impl Group {
    /// The calling process's group.
    pub fn own() -> Group {
        // SAFETY: getpgrp takes nothing and cannot fail.
        Group(unsafe { libc::getpgrp() })
    }

    /// The group that a process is in. `getpgid(2)`.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. `EINVAL`: an id is greater than 0.
    pub fn of(pid: i32) -> Result<Group> {
        let object = process(pid);
        valid("getpgid", pid, &object)?;
        // SAFETY: getpgid takes a number.
        match check(unsafe { libc::getpgid(pid) }) {
            Ok(id) => Ok(Group(id as i32)),
            Err(errno) => Err(failed("getpgid", errno, &object)),
        }
    }

    /// The group with this number, which is not looked at before the first call on it.
    ///
    /// # Errors
    /// `EINVAL`: it is not greater than 0.
    pub fn from_id(id: i32) -> Result<Group> {
        valid("getpgid", id, &label(id))?;
        Ok(Group(id))
    }

    /// Puts the calling process into a new group, which it leads.
    ///
    /// # Errors
    /// `EPERM`: it leads a session.
    pub fn create() -> Result<Group> {
        let me = std::process::id() as i32;
        Group(me).adopt(me)?;
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
        valid("setpgid", pid, &object)?;
        valid("setpgid", self.0, &label(self.0))?;
        // SAFETY: setpgid takes numbers.
        check(unsafe { libc::setpgid(pid, self.0) })
            .map(drop)
            .map_err(|errno| failed("setpgid", errno, &object))
    }

    /// Its number: the id of the process that made it.
    pub const fn id(self) -> i32 {
        self.0
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
    /// `ETIMEDOUT`: none ended. Else as [`Group::reap`].
    ///
    /// # Blocking
    /// By [`deadline_signal`](crate::deadline_signal): a group has no descriptor.
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
    /// `ENOTTY`: it is no terminal, or not the caller's.
    pub fn in_foreground(terminal: impl AsFd) -> Result<Group> {
        // SAFETY: the descriptor is open.
        match check(unsafe { libc::tcgetpgrp(terminal.as_fd().as_raw_fd()) }) {
            Ok(id) => Ok(Group(id as i32)),
            Err(errno) => Err(on_terminal("tcgetpgrp", errno)),
        }
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
        Ok(Foreground { terminal, before: Some(before) })
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
    before: Option<Group>,
}

impl Foreground {
    /// Leaves the group in the foreground.
    pub fn keep(mut self) {
        self.before = None;
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Its processes may all be gone.
            let _ = set_foreground(&self.terminal, before);
        }
    }
}

fn set_foreground(terminal: &OwnedFd, group: Group) -> Result<()> {
    let _blocked = SignalSet::from(Signal::TTOU).block()?;
    // SAFETY: the descriptor is open; the group is a number.
    check(unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group.0) })
        .map(drop)
        .map_err(|errno| on_terminal("tcsetpgrp", errno))
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
/// ```standalone_crate
/// use ginnel::notify::{Group, Session};
///
/// let child = ginnel::process::fork(|| {
///     // A forked child leads no group, so it may begin a session.
///     let session = Session::create().unwrap();
///     u8::from(session.id() != Group::own().id())
/// })?;
/// assert_eq!(child.wait()?.code(), Some(0));
/// assert_eq!(Session::own(), Session::of(std::process::id() as i32)?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Session(i32);

impl Session {
    /// The calling process's session.
    pub fn own() -> Session {
        // SAFETY: getsid takes a number, and 0, the caller, always is there.
        Session(unsafe { libc::getsid(0) })
    }

    /// The session that a process is in. `getsid(2)`.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process. `EINVAL`: an id is greater than 0.
    pub fn of(pid: i32) -> Result<Session> {
        let object = process(pid);
        valid("getsid", pid, &object)?;
        // SAFETY: getsid takes a number.
        match check(unsafe { libc::getsid(pid) }) {
            Ok(id) => Ok(Session(id as i32)),
            Err(errno) => Err(failed("getsid", errno, &object)),
        }
    }

    /// Begins a new session with a new group, which the calling process leads, without a terminal. `setsid(2)`.
    ///
    /// # Errors
    /// `EPERM`: the caller leads a group already; fork first.
    pub fn create() -> Result<Session> {
        // SAFETY: setsid takes nothing.
        match check(unsafe { libc::setsid() }) {
            Ok(id) => Ok(Session(id as i32)),
            Err(errno) => Err(failed("setsid", errno, &process(std::process::id() as i32))),
        }
    }

    /// The session of a terminal. `tcgetsid(3)`.
    ///
    /// # Errors
    /// `ENOTTY`: it is no terminal, or no session's.
    pub fn of_terminal(terminal: impl AsFd) -> Result<Session> {
        // SAFETY: the descriptor is open.
        match check(unsafe { libc::tcgetsid(terminal.as_fd().as_raw_fd()) }) {
            Ok(id) => Ok(Session(id as i32)),
            Err(errno) => Err(on_terminal("tcgetsid", errno)),
        }
    }

    /// Its number: its leader's process id; 0 when that is outside of the caller's PID namespace.
    pub const fn id(self) -> i32 {
        self.0
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

fn valid(operation: &'static str, id: i32, object: &Label) -> Result<()> {
    if id > 0 { Ok(()) } else { Err(Error::invalid(operation, object, "an id is greater than 0")) }
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
