//! Forking, for mechanisms that only relatives can share: `fork(2)`, `waitpid(2)`.
//!
//! What a parent passes to its children without a name (an anonymous mapping, an unnamed semaphore in one) survives
//! `fork` and not `exec`, so [`std::process::Command`] cannot pass it on. [`fork`] can.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::wait::{self, check};

/// A child process made by [`fork`]. Dropping it neither ends nor reaps the child; [`ForkedChild::wait`] does.
///
/// ```no_run
/// let child = ginnel::process::fork(|| 7)?;
/// assert_eq!(child.wait()?.code(), Some(7));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct ForkedChild {
    pid: Pid,
}

/// Runs `body` in a child process, which ends with its value as the exit status (101 for a panic).
///
/// The child is a copy of this process: it has the same memory (copied when written, except what is mapped shared),
/// the same descriptors and the same mappings. It ends by `_exit`: no destructor, no `atexit` function of the parent
/// runs in it.
///
/// # Errors
/// `EBUSY`: this process has more than one thread. A fork would copy the locks that the other threads hold, and nobody
/// would ever release them; fork first, start threads later. `EAGAIN`: the limit of processes (`RLIMIT_NPROC`).
/// `ENOMEM`.
pub fn fork(body: impl FnOnce() -> u8) -> Result<ForkedChild> {
    let object = Label::from("fork");
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Error::new("fork", Errno::BUSY, &object)
            .with_hint(format!("this process has {threads} threads; fork before any thread is started")));
    }
    // SAFETY: this process has this thread only, so the child is a full copy with no lock held by a thread it lacks.
    match check(unsafe { libc::fork() }) {
        Err(errno) => Err(Error::new("fork", errno, &object)),
        Ok(0) => {
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: _exit is always sound; the parent's destructors must not run here.
            unsafe { libc::_exit(status.into()) }
        }
        Ok(pid) => Ok(ForkedChild { pid: Pid::from_raw(pid as i32).expect("fork gives a positive number") }),
    }
}

impl ForkedChild {
    /// The child's process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Ends the child with `SIGKILL`; it still has to be waited for.
    ///
    /// # Errors
    /// `ESRCH`: it was waited for already.
    pub fn kill(&self) -> Result<()> {
        rustix::process::kill_process(self.pid, Signal::KILL).map_err(|errno| self.error("kill", errno))
    }

    /// Waits for the child's end and reaps it. `waitpid(2)`.
    ///
    /// # Errors
    /// `ECHILD`: it was waited for already. `EINTR`: a signal handler ran.
    pub fn wait(&self) -> Result<ExitStatus> {
        self.reap(WaitOptions::empty())?.ok_or_else(|| self.error("waitpid", Errno::AGAIN))
    }

    /// Reaps the child if it has ended.
    ///
    /// # Errors
    /// `EAGAIN`: it still runs. `ECHILD`: it was waited for already.
    pub fn try_wait(&self) -> Result<ExitStatus> {
        self.reap(WaitOptions::NOHANG)?.ok_or_else(|| self.error("waitpid", Errno::AGAIN))
    }

    /// Waits until the deadline for the child's end and reaps it.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it still runs. `ECHILD`: it was waited for already. `EINTR`: a signal handler ran.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<ExitStatus> {
        let pidfd = rustix::process::pidfd_open(self.pid, PidfdFlags::empty())
            .map_err(|errno| self.error("pidfd_open", errno))?;
        let deadline = deadline.into();
        wait::until_ready(&pidfd, PollFlags::IN, deadline, "waitpid", &self.label(), |_| {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG)? {
                Some((_, status)) => Ok(ExitStatus::from_raw(status.as_raw())),
                None => Err(Errno::AGAIN),
            }
        })
    }

    fn reap(&self, options: WaitOptions) -> Result<Option<ExitStatus>> {
        match rustix::process::waitpid(Some(self.pid), options) {
            Ok(reaped) => Ok(reaped.map(|(_, status)| ExitStatus::from_raw(status.as_raw()))),
            Err(errno) => Err(self.error("waitpid", errno)),
        }
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, errno, &self.label())
    }

    fn label(&self) -> Label {
        Label::new(format!("process {}", self.pid()))
    }
}
