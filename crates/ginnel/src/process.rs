//! Making processes that share something with their parent: `fork(2)`, `waitpid(2)`, and what a command inherits.
//!
//! What a parent passes to its children without a name (an anonymous mapping, an unnamed semaphore in one) survives
//! `fork` and not `exec`, so [`std::process::Command`] cannot pass it on. [`fork`] can. A descriptor can go to a command
//! too: [`inherit`].
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};

use crate::Deadline;
use crate::error::{Error, Label, Result};
use crate::notify::{PidFd, Signal, SignalSet, Target};
use crate::wait::{self, check};

/// A child process made by [`fork`]. Dropping it neither ends nor reaps the child; [`ForkedChild::wait`] does.
///
/// ```standalone_crate
/// let child = ginnel::process::fork(|| 7)?;
/// assert_eq!(child.wait()?.code(), Some(7));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct ForkedChild {
    pid: Pid,
    /// Whether its id may be another process's now. Held while the id is used, so that no other thread reaps meanwhile.
    reaped: Mutex<bool>,
}

/// Runs `body` in a child process, which ends with its value as the exit status (101 for a panic).
///
/// The child is a copy of this process: it has the same memory (copied when written, except what is mapped shared),
/// the same descriptors and the same mappings. It ends by `_exit`: no destructor, no `atexit` function of the parent
/// runs in it. What it printed is flushed; what the parent had printed before, earlier, by this function.
///
/// # Errors
/// `EBUSY`: this process has more than one thread. A fork would copy the locks that the other threads hold, and nobody
/// would ever release them; fork first, start threads later. `EAGAIN`: the limit of processes (`RLIMIT_NPROC`,
/// `kernel.pid_max`, the cgroup's `pids.max`). `ENOMEM`.
pub fn fork(body: impl FnOnce() -> u8) -> Result<ForkedChild> {
    let object = Label::from("fork");
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => {}
        Ok(threads) => {
            return Err(Error::new("fork", Errno::BUSY, &object).with_hint(format!(
                "this process has {threads} threads; fork before any thread is started"
            )));
        }
        Err(error) => {
            return Err(Error::from_io("readdir", &error, &object)
                .with_hint("whether there are other threads is read from /proc/self/task"));
        }
    }
    // What is buffered would be printed twice.
    let _ = std::io::stdout().flush();
    // SAFETY: this process has this thread only, so the child is a full copy with no lock held by a thread it lacks.
    match check(unsafe { libc::fork() }) {
        Err(errno) => Err(Error::new("fork", errno, &object).with_hint(match errno {
            Errno::AGAIN => "the limit of processes: RLIMIT_NPROC (`ulimit -u`), kernel.pid_max, pids.max",
            _ => "not enough memory",
        })),
        Ok(0) => {
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
                // Its destructor could panic again, and unwind into the parent's code.
                std::mem::forget(panic);
                101
            });
            let _ = std::io::stdout().flush();
            // SAFETY: _exit is always sound; the parent's destructors must not run here.
            unsafe { libc::_exit(status.into()) }
        }
        Ok(pid) => Ok(ForkedChild {
            pid: Pid::from_raw(pid as i32).expect("fork gives a positive number"),
            reaped: Mutex::new(false),
        }),
    }
}

/// Lets a command inherit a descriptor: the number that it has there.
///
/// Descriptors are close-on-exec. This one, a duplicate, is kept by `command` and made inheritable in the child only, after
/// the fork: a command that another thread starts meanwhile does not get it. It is closed here when `command` is
/// dropped; until then a pipe, for one, has another end open.
///
/// ```
/// use std::process::Command;
/// use ginnel::notify::EventFd;
///
/// let event = EventFd::new()?;
/// let mut command = Command::new("sh");
/// let number = ginnel::process::inherit(&mut command, &event)?;
/// // Eight bytes, 1 in the machine's order: what eventfd(2) has a program write.
/// command.arg("-c").arg(format!(r"printf '\1\0\0\0\0\0\0\0' >&{number}"));
/// assert!(command.status().unwrap().success());
/// # #[cfg(target_endian = "little")]
/// assert_eq!(event.wait()?, 1);
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// # Errors
/// `EMFILE`: no more descriptors.
pub fn inherit(command: &mut Command, descriptor: impl AsFd) -> Result<RawFd> {
    // From 3: the child's standard streams are put in place before.
    let duplicate = rustix::io::fcntl_dupfd_cloexec(descriptor, 3)
        .map_err(|errno| Error::new("fcntl", errno, &"descriptor".into()))?;
    let number = duplicate.as_raw_fd();
    let prepare = move || Ok(rustix::io::fcntl_setfd(&duplicate, rustix::io::FdFlags::empty())?);
    // SAFETY: the closure makes one system call, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Ok(number)
}

/// Has a command start with no signal blocked and none ignored, whatever its parent has done.
///
/// A child inherits what its parent blocks and ignores, and keeps it over `exec`: a command started by a program that
/// takes `SIGTERM` by a [`SignalFd`](crate::notify::SignalFd) cannot be terminated, one started under `nohup` does not
/// hear of a hang-up.
///
/// ```
/// use ginnel::notify::Signal;
///
/// let _blocked = (Signal::TERM | Signal::INT).block()?;
/// let mut command = std::process::Command::new("grep");
/// command.args(["-q", "^SigBlk:.*[1-9a-f]", "/proc/self/status"]);
/// assert!(command.status().unwrap().success(), "SigBlk has a bit set");
/// ginnel::process::reset_signals(&mut command);
/// assert!(!command.status().unwrap().success(), "SigBlk is all zeros");
/// # Ok::<(), ginnel::Error>(())
/// ```
pub fn reset_signals(command: &mut Command) {
    let none = SignalSet::EMPTY.to_libc();
    let prepare = move || {
        // The kernel's struct sigaction: SIG_DFL, no flags, no restorer, an empty mask. The system call and not libc's
        // function, which leaves out the two signals of its own; a parent may have ignored those as well.
        // As many bytes as it has on any machine.
        let default = [0_u64; 4];
        let mask_bytes = 8;
        for signal in 1..=64 {
            // SAFETY: async-signal-safe, with a valid argument; EINVAL for SIGKILL and SIGSTOP is of no consequence. The C
            // library loses handlers that exec would take from it next.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    std::ptr::null_mut::<u64>(),
                    mask_bytes,
                );
            }
        }
        // SAFETY: pthread_sigmask is async-signal-safe in practice (one system call), and the set is valid.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe calls only.
    unsafe { command.pre_exec(prepare) };
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
        self.signal(Signal::KILL)
    }

    /// Sends the child a signal. Before it was waited for nobody else has its id.
    ///
    /// # Errors
    /// `ESRCH`: it was waited for already. `EPERM`: it has become another user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let _not_reaped = self.not_reaped("kill")?;
        Target::Process(self.pid()).send(signal)
    }

    /// A descriptor of the child: to poll for its end, to wait with a deadline, to signal it from elsewhere.
    ///
    /// # Errors
    /// As [`PidFd::open`]. `ESRCH`: it was waited for already.
    pub fn pidfd(&self) -> Result<PidFd> {
        let _not_reaped = self.not_reaped("pidfd_open")?;
        PidFd::open(self.pid())
    }

    /// Waits for the child's end and reaps it. `waitpid(2)`.
    ///
    /// # Errors
    /// `ECHILD`: it was waited for already. `EINTR`: a signal handler ran.
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.reap()? {
                return Ok(status);
            }
            // Waits without the lock, and leaves the child to be reaped with it.
            rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                .map_err(|errno| self.error("waitpid", errno))?;
        }
    }

    /// Reaps the child if it has ended.
    ///
    /// # Errors
    /// `EAGAIN`: it still runs. `ECHILD`: it was waited for already.
    pub fn try_wait(&self) -> Result<ExitStatus> {
        self.reap()?.ok_or_else(|| self.error("waitpid", Errno::AGAIN))
    }

    /// Waits until the deadline for the child's end and reaps it.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it still runs. `ECHILD`: it was waited for already. `EINTR`: a signal handler ran.
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<ExitStatus> {
        if let Some(status) = self.reap()? {
            return Ok(status);
        }
        let pidfd = self.pidfd()?;
        wait::until_ready(&pidfd, PollFlags::IN, deadline.into(), "waitpid", &self.label(), |_| {
            self.waitpid()?.ok_or(Errno::AGAIN)
        })
    }

    fn reap(&self) -> Result<Option<ExitStatus>> {
        self.waitpid().map_err(|errno| self.error("waitpid", errno))
    }

    /// Reaps the child if it has ended.
    fn waitpid(&self) -> Result<Option<ExitStatus>, Errno> {
        let mut reaped = self.reaped();
        if *reaped {
            return Err(Errno::CHILD);
        }
        let outcome = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG)?;
        *reaped = outcome.is_some();
        Ok(outcome.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
    }

    fn reaped(&self) -> MutexGuard<'_, bool> {
        self.reaped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held the id is the child's.
    fn not_reaped(&self, operation: &'static str) -> Result<MutexGuard<'_, bool>> {
        let reaped = self.reaped();
        if *reaped {
            return Err(self.error(operation, Errno::SRCH).with_hint("it was waited for already"));
        }
        Ok(reaped)
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::new(operation, errno, &self.label())
    }

    fn label(&self) -> Label {
        Label::new(format!("process {}", self.pid()))
    }
}
