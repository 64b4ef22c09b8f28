//! A command whose input or output is a stream of this process: `popen(3)`, done with `exec`'s safety.
//!
//! # What a user sees
//! [`Popen::read`], [`Popen::write`] and [`Popen::both`] start a command, given as an argument vector ([`argv`]) or as a
//! shell line ([`shell`]); nothing is split or expanded unless the shell is asked to. [`Popen::close`] closes the pipes
//! and gives the exit status. Differences from `popen(3)`: both directions at once; a command that cannot be started is
//! an error here and not an exit status 127 later; no descriptor of other popens is inherited; deadlines.
//!
//! A `Popen` that is dropped without [`close`](Popen::close) is killed (`SIGKILL`) and reaped: no zombie stays, and a
//! panic leaves nothing running. A shell line's own children are not killed with it: for that see
//! [`Pipeline`](super::Pipeline), which has a process group.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::Errno;

use super::child;
use super::io::{ByteRead, ByteWrite};
use super::pipe::{PipeReader, PipeWriter, pipe};
use crate::Deadline;
use crate::error::{Error, Label, Result};

/// The command with exactly these arguments; the first is the program, looked up in `PATH`.
///
/// ```
/// use std::io::Read;
/// use ginnel::stream::{Popen, popen::argv};
///
/// let mut echo = Popen::read(argv(["echo", "$HOME is not expanded"]))?;
/// let mut text = String::new();
/// echo.read_to_string(&mut text)?;
/// assert_eq!(text, "$HOME is not expanded\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn argv<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut arguments = arguments.into_iter();
    let mut command = match arguments.next() {
        Some(program) => Command::new(program),
        None => Command::new(""),
    };
    command.args(arguments);
    command
}

/// The command `/bin/sh -c LINE`. What the line contains the shell will do: never build it from what strangers sent.
///
/// ```
/// use std::io::Read;
/// use ginnel::stream::{Popen, popen::shell};
///
/// let mut count = Popen::read(shell("printf 'b\\na\\n' | sort | head -n1"))?;
/// let mut text = String::new();
/// count.read_to_string(&mut text)?;
/// assert_eq!(text, "a\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shell(line: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line);
    command
}

/// A running command and the pipes to it.
///
/// ```
/// use std::io::Write;
/// use std::time::Duration;
/// use ginnel::stream::{Popen, popen::argv};
///
/// let mut sort = Popen::both(argv(["sort"]))?;
/// let sorted = sort.communicate(b"pear\napple\n", Duration::from_secs(10))?;
/// assert_eq!(sorted, b"apple\npear\n");
/// assert!(sort.close()?.success());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Popen {
    child: Child,
    object: Label,
    input: Option<PipeWriter>,
    output: Option<PipeReader>,
    status: Option<ExitStatus>,
    /// The process whose child it is. A forked child's copy neither kills nor reaps it.
    parent: u32,
}

impl Popen {
    /// Starts a command and reads what it writes to its standard output; its other streams are this process's.
    ///
    /// # Errors
    /// As `execve(2)`: `ENOENT` (no such program), `EACCES`, `ENOEXEC`; as `fork(2)`: `EAGAIN`, `ENOMEM`; `EMFILE`.
    pub fn read(command: Command) -> Result<Popen> {
        Popen::start(command, false, true)
    }

    /// Starts a command and writes what it reads from its standard input; its other streams are this process's.
    ///
    /// # Errors
    /// As [`Popen::read`].
    pub fn write(command: Command) -> Result<Popen> {
        Popen::start(command, true, false)
    }

    /// Starts a command and has both its standard input and its standard output.
    ///
    /// Mind the deadlock: a command that writes while nobody reads stops reading. [`Popen::communicate`] does both at
    /// once.
    ///
    /// # Errors
    /// As [`Popen::read`].
    pub fn both(command: Command) -> Result<Popen> {
        Popen::start(command, true, true)
    }

    fn start(mut command: Command, input: bool, output: bool) -> Result<Popen> {
        let object = Label::new(format!("command {}", command.get_program().to_string_lossy()));
        let mut ours = (None, None);
        if input {
            let (reader, writer) = pipe()?;
            command.stdin(Stdio::from(reader));
            ours.0 = Some(writer);
        }
        if output {
            let (reader, writer) = pipe()?;
            command.stdout(Stdio::from(writer));
            ours.1 = Some(reader);
        }
        // The command owns the child's ends; it goes at the end of this function, and with it our copies of them.
        let child = command.spawn().map_err(|error| explain_spawn(&error, &object))?;
        Ok(Popen { child, object, input: ours.0, output: ours.1, status: None, parent: std::process::id() })
    }

    /// The command's process id.
    pub fn pid(&self) -> i32 {
        child::pid(&self.child).as_raw_nonzero().get()
    }

    /// The end that the command's standard input reads from, until it is closed.
    pub fn input(&self) -> Option<&PipeWriter> {
        self.input.as_ref()
    }

    /// The end that the command's standard output writes to.
    pub fn output(&self) -> Option<&PipeReader> {
        self.output.as_ref()
    }

    /// Closes the command's standard input: it reads the end.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Writes all of `input`, closes it, and reads until the output's end: all at once, so that neither side waits for
    /// the other.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. `EINTR`: a signal handler ran. What was read until then is lost. A command
    /// that does not read all of its input is no error.
    ///
    /// # Blocking
    /// Until the command has closed its output, or the deadline passes.
    pub fn communicate(&mut self, input: &[u8], deadline: impl Into<Deadline>) -> Result<Vec<u8>> {
        let input = self.input.take().map(|writer| (writer, input));
        let said = child::converse(input, self.output.as_ref(), None, deadline.into(), &self.object)?;
        Ok(said.output)
    }

    /// Closes the pipes, waits for the command's end, and gives its exit status. `pclose(3)`.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran; the command still runs, its pipes are closed, close it again.
    ///
    /// # Blocking
    /// Until the command ends, which one that does not look at its pipes need not do.
    pub fn close(&mut self) -> Result<ExitStatus> {
        self.close_deadline(Deadline::NEVER)
    }

    /// Closes the pipes and gives the command's exit status if it has ended.
    ///
    /// # Errors
    /// `EAGAIN`: it still runs.
    pub fn try_close(&mut self) -> Result<ExitStatus> {
        self.close_deadline(Deadline::NOW)
    }

    /// Closes the pipes and waits until the deadline for the command's end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: it still runs; its pipes are closed. Else as [`Popen::close`].
    pub fn close_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<ExitStatus> {
        self.input = None;
        self.output = None;
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = child::wait_deadline(&mut self.child, deadline.into(), &self.object)?;
        self.status = Some(status);
        Ok(status)
    }

    /// Sends the command a standard signal, by its number.
    ///
    /// # Errors
    /// `EINVAL`: no such signal. `ESRCH`: it has ended and was closed. `EPERM`: it changed its user.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = child::signal(signal, &self.object)?;
        let outcome = match self.status {
            Some(_) => Err(Errno::SRCH),
            None => rustix::process::kill_process(child::pid(&self.child), signal),
        };
        outcome.map_err(|errno| Error::new("kill", errno, &self.object))
    }

    /// Ends the command with `SIGKILL`; [`close`](Popen::close) it to reap it.
    ///
    /// # Errors
    /// `ESRCH`: it has ended and was closed.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }
}

impl Drop for Popen {
    fn drop(&mut self) {
        if self.status.is_none() && self.parent == std::process::id() {
            // It may have ended already; then there is only the reaping to do.
            let _ = self.kill();
            let _ = self.child.wait();
        }
    }
}

impl io::Read for Popen {
    /// Reads the command's standard output: `EBADF` when it was not opened for that.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.output {
            Some(output) => Ok(output.read_deadline(buf, Deadline::NEVER)?),
            None => Err(Error::new("read", Errno::BADF, &self.object).into()),
        }
    }
}

impl io::Write for Popen {
    /// Writes to the command's standard input: `EBADF` when it was not opened for that.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &self.input {
            Some(input) => Ok(input.write_deadline(buf, Deadline::NEVER)?),
            None => Err(Error::new("write", Errno::BADF, &self.object).into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a command could not be started.
pub(super) fn explain_spawn(error: &io::Error, object: &Label) -> Error {
    let error = Error::from_io("execve", error, object);
    match error.raw() {
        Errno::NOENT => error.with_hint(
            "no such program in PATH (or its interpreter, or its directory, is missing); for a word of the shell's \
             own use `sh -c '...'`",
        ),
        Errno::ACCESS => error.with_hint("it is not executable for this user"),
        Errno::NOEXEC => error.with_hint("it is neither a binary for this machine nor a script with `#!`"),
        Errno::TOOBIG => error.with_hint("its arguments and environment are too long"),
        _ => error,
    }
}
