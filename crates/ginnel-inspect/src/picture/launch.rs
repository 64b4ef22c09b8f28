#![allow(unsafe_code)]
//! The shell of the picture: the process that launches the pipeline, call by call as the textbooks do.
//!
//! ```text
//! for each stage:
//!     pipe()                         unless it is the last
//!     fork()
//!     in the child:
//!         dup2(left, 0)              unless it is the first
//!         dup2(write, 1)             unless it is the last
//!         close() of left, read, write, whichever there are
//!         execve()
//!     close() of left and write, whichever there are; read is the next stage's left
//! wait() for all of them
//! ```
//!
//! [`Plan::start`] forks that process, and stops it before its first call and after its last (`SIGSTOP` to itself,
//! seen by its tracer). After the fork only calls are made that `signal-safety(7)` allows; all strings are made before.
//! It uses libc and bare numbers, not rustix and `OwnedFd`: which descriptors are open, and when, is what is shown.
//!
//! Calls that textbooks leave out, so the picture does too: until its first stop the shell closes what is
//! close-on-exec (a real shell came from an `execve`), and opens `/dev/null` for whichever of 0, 1 and 2 is missing;
//! a child asks to be killed when the shell ends (`PR_SET_PDEATHSIG`), sets `SIGPIPE` to its default, which Rust
//! ignores, and takes back the signal mask. The shell blocks all signals, so the caller's handlers cannot run in it.

use super::board::Board;
use super::trace;
use crate::{Error, Result};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::{env, io, mem};

/// The command's file is not there: what shells exit with.
const NOT_FOUND: i32 = 127;
/// The command's file is there, but cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// The shell could not do its own part.
const SHELL_FAILED: i32 = 125;

/// One command of the pipeline, ready for `execve(2)`.
pub(super) struct Command {
    /// The command's name without its directories.
    pub(super) label: String,
    /// The call, for the reader.
    pub(super) exec_call: String,
    path: CString,
    _arguments: Vec<CString>,
    /// Pointers to the arguments, and the null that ends them.
    argv: Vec<*const libc::c_char>,
}

/// What the stages get of the caller's signals; `execve` resets the rest.
struct Signals {
    mask: libc::sigset_t,
    ignores_sigchld: bool,
}

/// All that the forked processes need, made before the fork.
pub(super) struct Plan {
    pub(super) commands: Vec<Command>,
    pub(super) board: Board,
    _environment: Vec<CString>,
    envp: Vec<*const libc::c_char>,
}

impl Plan {
    pub(super) fn new(stages: &[Vec<OsString>]) -> Result<Self> {
        if stages.is_empty() {
            return Err(Error::new(
                "execve",
                "a pipeline of no stages",
                io::Error::from_raw_os_error(libc::EINVAL),
            ));
        }
        let environment = env::vars_os()
            .map(|(name, value)| c_string(&[name.as_os_str(), OsStr::new("="), &value].join(OsStr::new(""))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            commands: stages.iter().map(|words| Command::new(words)).collect::<Result<_>>()?,
            board: Board::new(stages.len())?,
            envp: pointers(&environment),
            _environment: environment,
        })
    }

    /// Forks the shell. The caller is to trace it; it stops itself as soon as that is so.
    pub(super) fn start(&self) -> Result<i32> {
        let caller = rustix::process::getpid().as_raw_pid();
        // SAFETY: a mask of zeros is valid storage for sigfillset, which sets all of it.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { mem::zeroed() };
        // SAFETY: both masks are live; blocking signals in this thread breaks no one's memory.
        unsafe {
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut before);
        }
        // SAFETY: the child runs `shell` only, which is async-signal-safe and does not return.
        let forked = unsafe { fork() };
        if forked == 0 {
            // SAFETY: this is the forked process, of one thread, with all signals blocked.
            unsafe { self.shell(caller, &before) }
        }
        let failure = io::Error::last_os_error();
        // SAFETY: `before` was set by pthread_sigmask above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
        if forked < 0 { Err(Error::new("fork", "the shell", failure)) } else { Ok(forked) }
    }

    /// The shell, from its fork to its end.
    ///
    /// # Safety
    /// Only in a process just forked, with all signals blocked. `mask` is what the stages start with.
    unsafe fn shell(&self, caller: i32, mask: &libc::sigset_t) -> ! {
        // SAFETY: system calls on numbers and on memory of this process; nothing allocates, nothing takes a lock.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // The caller may have died before the request: then no signal comes, so look.
            if libc::getppid() != caller || !trace::trace_me() {
                libc::_exit(SHELL_FAILED);
            }
            stop();
            self.tidy();
            // Where the caller ignores SIGCHLD, the children's statuses would be thrown away.
            let sigchld = libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            stop();
            self.launch(&Signals { mask: *mask, ignores_sigchld: sigchld == libc::SIG_IGN });
            stop();
            self.wait_for_all();
            libc::_exit(0)
        }
    }

    /// The descriptors of a process that came from an `execve`: nothing close-on-exec, and 0, 1 and 2 open.
    unsafe fn tidy(&self) {
        // SAFETY: as for `shell`. The descriptors are this process's copies, and no owner of them runs here.
        unsafe {
            for fd in 0..=self.board.highest_descriptor().load(SeqCst) {
                let flags = libc::fcntl(fd, libc::F_GETFD);
                if flags >= 0 && flags & libc::FD_CLOEXEC != 0 {
                    libc::close(fd);
                }
            }
            for fd in 0..3 {
                if libc::fcntl(fd, libc::F_GETFD) < 0 {
                    // The lowest number that is free: this one.
                    libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                }
            }
        }
    }

    /// The textbook's loop. Where a call fails the shell ends: its tracer has seen which, and why.
    unsafe fn launch(&self, signals: &Signals) {
        let last = self.commands.len() - 1;
        let mut left = None;
        for (index, command) in self.commands.iter().enumerate() {
            // SAFETY: as for `shell`; pipe writes two numbers into `ends`.
            unsafe {
                let right = (index < last).then(|| {
                    let mut ends = [0; 2];
                    check(libc::pipe(ends.as_mut_ptr()));
                    ends
                });
                let pid = check(fork());
                if pid == 0 {
                    self.child(command, left, right, signals);
                }
                self.board.pid(index).store(pid, SeqCst);
                if let Some(read) = left {
                    check(libc::close(read));
                }
                if let Some([_, write]) = right {
                    check(libc::close(write));
                }
                left = right.map(|[read, _]| read);
            }
        }
    }

    /// One stage, from its fork to its `execve`.
    unsafe fn child(
        &self,
        command: &Command,
        left: Option<i32>,
        right: Option<[i32; 2]>,
        signals: &Signals,
    ) -> ! {
        // SAFETY: as for `shell`. `path`, `argv` and `envp` were made before the fork, end in null, and outlive it.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if let Some(read) = left {
                check(libc::dup2(read, 0));
            }
            if let Some([_, write]) = right {
                check(libc::dup2(write, 1));
            }
            // 0, 1 and 2 were open before the first pipe, so none of these is one of them.
            for fd in left.into_iter().chain(right.into_iter().flatten()) {
                check(libc::close(fd));
            }
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            if signals.ignores_sigchld {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &signals.mask, ptr::null_mut());
            libc::execve(command.path.as_ptr(), command.argv.as_ptr(), self.envp.as_ptr());
            let not_found = io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
            libc::_exit(if not_found { NOT_FOUND } else { NOT_EXECUTABLE })
        }
    }

    /// Waits for the stages in their order, and leaves what they ended with on the board.
    unsafe fn wait_for_all(&self) {
        // SAFETY: as for `shell`; waitpid writes to `status` only.
        unsafe {
            for index in 0..self.commands.len() {
                let mut status = 0;
                check(libc::waitpid(self.board.pid(index).load(SeqCst), &mut status, 0));
                self.board.status(index).store(status, SeqCst);
            }
        }
    }
}

impl Command {
    fn new(words: &[OsString]) -> Result<Self> {
        let Some(name) = words.first() else {
            return Err(Error::new(
                "execve",
                "a stage of no words",
                io::Error::from_raw_os_error(libc::EINVAL),
            ));
        };
        let path = look_up(name);
        let arguments = words.iter().map(|word| c_string(word)).collect::<Result<Vec<_>>>()?;
        let shown: Vec<_> = words.iter().map(|word| format!("{:?}", word.to_string_lossy())).collect();
        Ok(Self {
            label: Path::new(name).file_name().unwrap_or(name).to_string_lossy().into_owned(),
            exec_call: format!("execve({:?}, [{}])", path.to_string_lossy(), shown.join(", ")),
            path: c_string(&path)?,
            argv: pointers(&arguments),
            _arguments: arguments,
        })
    }
}

/// The file that `execvp(3)` would execute: the first in PATH that can be. Where none can, the last that `execvp` would
/// try, or the first that is there but may not be executed, so that `execve` gives the same error.
fn look_up(name: &OsStr) -> OsString {
    if name.as_bytes().contains(&b'/') || name.is_empty() {
        return name.to_owned();
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let candidates: Vec<_> = env::split_paths(&path)
        .map(|directory| if directory.as_os_str().is_empty() { ".".into() } else { directory })
        .map(|directory| directory.join(name))
        .collect();
    let executable = |path: &&std::path::PathBuf| {
        path.is_file() && rustix::fs::access(path.as_path(), rustix::fs::Access::EXEC_OK).is_ok()
    };
    let chosen = candidates.iter().find(executable).or_else(|| candidates.iter().find(|path| path.is_file()));
    chosen.or(candidates.last()).map_or_else(|| name.to_owned(), |path| path.clone().into_os_string())
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|error| Error::new("execve", text.display(), error))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// `fork(2)` as the kernel has it, without the C library's handlers: those may take locks that a thread, which is not
/// there in the child, holds for ever.
///
/// # Safety
/// The child may make async-signal-safe calls only.
unsafe fn fork() -> i32 {
    let flags = libc::SIGCHLD as libc::c_ulong;
    let none = 0 as libc::c_ulong;
    // SAFETY: without CLONE_VM and without a stack, clone is fork: the child has its own copy of all memory.
    unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) as i32 }
}

/// Stops this process until its tracer lets it go on.
unsafe fn stop() {
    // SAFETY: a signal to this process itself. `raise` would use a thread number from before the fork.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Ends this process where a call has failed.
unsafe fn check(result: i32) -> i32 {
    if result < 0 {
        // SAFETY: _exit ends the process without running anything of it.
        unsafe { libc::_exit(SHELL_FAILED) }
    }
    result
}
