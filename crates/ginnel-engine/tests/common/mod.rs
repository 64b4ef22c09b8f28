//! Processes that are stepped and killed at any instruction.
#![allow(unsafe_code, dead_code, missing_docs, unreachable_pub)]

use ginnel_testkit::{Child, Exit, blocked_in, fork, wait_until};
use rustix::fs::{Mode, OFlags};

pub fn directory() -> std::os::fd::OwnedFd {
    rustix::fs::open("/dev/shm", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn signal_self(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Installs a handler, without `SA_RESTART`.
pub fn handle(signal: i32, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is a valid sigaction; the handler does nothing that is not allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

pub fn pause_for_ever() -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
}

/// A child that stops itself before and after `work`, traced by this process.
pub struct Stepped(Child);

impl Stepped {
    pub fn start(work: impl Fn()) -> Stepped {
        let child = fork(|| {
            // SAFETY: this request takes no pointers.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
            signal_self(libc::SIGSTOP);
            work();
            signal_self(libc::SIGSTOP);
        });
        let stepped = Stepped(child);
        assert_eq!(stepped.stop(), libc::SIGSTOP);
        stepped
    }

    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Waits for its next stop: the signal.
    pub fn stop(&self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL) };
        assert!(libc::WIFSTOPPED(status), "the stepped process ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// One instruction: whether it is still in the work.
    pub fn step(&self) -> bool {
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0.pid(), 0, 0) }, 0);
        self.stop() == libc::SIGTRAP
    }

    /// As far as the beginning or the end of its next system call: whether it is still in the work. Enough for what changes
    /// only files: nobody sees a difference between two calls.
    pub fn step_call(&self) -> bool {
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.0.pid(), 0, 0) }, 0);
        self.stop() == libc::SIGTRAP
    }

    /// One instruction, or into a system call that blocks: `blocked` is asked time and again until the instruction ends.
    /// Gives what [`Stepped::step`] gives.
    pub fn step_watched(&self, mut blocked: impl FnMut(i32)) -> bool {
        self.step_while(|pid| {
            blocked(pid);
            true
        })
    }

    /// One instruction, or as far as the sleep in which it ends.
    pub fn step_unless(&self, sleeps: &mut bool) -> bool {
        self.step_while(|_| {
            *sleeps = true;
            false
        })
    }

    fn step_while(&self, mut patient: impl FnMut(i32) -> bool) -> bool {
        // SAFETY: as in `step`.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0.pid(), 0, 0) }, 0);
        for look in 1_u64.. {
            let mut status = 0;
            // SAFETY: `status` is ours to write.
            if unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL | libc::WNOHANG) } != 0 {
                assert!(libc::WIFSTOPPED(status), "the stepped process ended: {status:#x}");
                return libc::WSTOPSIG(status) == libc::SIGTRAP;
            }
            let asleep = look.is_multiple_of(200) && blocked_in(self.0.pid(), libc::SYS_futex_waitv);
            if asleep && !patient(self.0.pid()) {
                return true;
            }
        }
        unreachable!("the test's own deadline comes first")
    }

    /// Lets it run to the end of its work.
    pub fn finish(self, what: &str) {
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_CONT, self.0.pid(), 0, 0) }, 0);
        let mut status = 0;
        wait_until(what, || {
            // SAFETY: `status` is ours to write.
            unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL | libc::WNOHANG) != 0 }
        });
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "{what}: {status:#x}");
        self.kill();
    }

    pub fn kill(self) {
        self.0.kill();
        assert_eq!(self.0.wait(), Exit::Signal(libc::SIGKILL));
    }
}
