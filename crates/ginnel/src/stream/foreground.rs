//! A [`Pipeline`](super::Pipeline) in the terminal's foreground, as a shell's job is: `tcsetpgrp(3)`.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::Pid;

use super::pipeline::duplicate;
use crate::error::Result;

/// The controlling terminal, lent to a pipeline; taken back when this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    tty: OwnedFd,
    ours: Pid,
    lender: u32,
}

impl Terminal {
    /// The terminal, if there is one and this process is in its foreground.
    pub(super) fn controlling() -> Option<Terminal> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let ours = own_group()?;
        let foreground = rustix::termios::tcgetpgrp(&tty).ok()?;
        (foreground == ours).then(|| Terminal { tty: tty.into(), ours, lender: std::process::id() })
    }

    /// Makes the command's group the foreground before it runs: later it might have been stopped already.
    pub(super) fn hand_over_at_exec(&self, command: &mut Command) -> Result<()> {
        let tty = duplicate(&self.tty)?;
        // SAFETY: between fork and exec this changes the signal mask and makes one ioctl, all async-signal-safe; it
        // allocates nothing and takes no lock. The closure owns the descriptor.
        unsafe {
            command.pre_exec(move || {
                let group = own_group().ok_or(Errno::SRCH)?;
                Ok(without_ttou(|| rustix::termios::tcsetpgrp(&tty, group))?)
            });
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.lender != std::process::id() {
            return;
        }
        // A terminal that has hung up is nobody's.
        let _ = without_ttou(|| rustix::termios::tcsetpgrp(&self.tty, self.ours));
    }
}

/// This process's group; `None` for one outside of its PID namespace, which the kernel calls 0 and rustix cannot say.
fn own_group() -> Option<Pid> {
    // SAFETY: getpgrp takes nothing and cannot fail.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// Runs `body` with `SIGTTOU` blocked, which a process of the background gets for changing the foreground.
fn without_ttou<T>(body: impl FnOnce() -> T) -> T {
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut ttou = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that the other two read; pthread_sigmask fills `before`, and cannot fail
    // with SIG_BLOCK and valid pointers.
    unsafe {
        libc::sigemptyset(ttou.as_mut_ptr());
        libc::sigaddset(ttou.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, ttou.as_ptr(), before.as_mut_ptr());
    }
    let value = body();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    value
}
