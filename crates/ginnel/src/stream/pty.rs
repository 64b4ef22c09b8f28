//! Pseudo-terminal: `pty(7)`, `posix_openpt(3)`, `termios(3)`, `setsid(2)`.
//!
//! # What a user sees
//! [`Pty`] is the side of the terminal emulator (the "master"), [`Terminal`] the side of the program. What is written to
//! one is read from the other, through the kernel's line discipline: lines are edited, input is echoed, `\n` becomes
//! `\r\n` on the way out, and control characters become signals, until the terminal is made [raw](Terminal::set_raw).
//! [`Pty::spawn`] runs a program that has it as its controlling terminal.
//!
//! When the last descriptor of the program's side is closed, a read of the [`Pty`] is `EIO` to the kernel and the end (0
//! bytes) here, after all that was written has been read. When the `Pty` is closed, programs that have the terminal get
//! `SIGHUP`, and read the end.
//!
//! # How it works inside
//! `RWF_NOWAIT` does not work on a terminal: both sides are opened with `O_NONBLOCK`, and the blocking forms poll. What a
//! spawned program gets is opened anew, without.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};

use super::io::{Nature, Stream, has_descriptor, reads, set_nonblock, writes};
use super::popen::explain_spawn;
use crate::error::{Error, Label, Result};

/// Makes a pseudo-terminal: the emulator's side and the program's.
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut emulator, mut terminal) = ginnel::stream::pty()?;
/// emulator.write_all(b"hullo\x7f\x7f\x7f\x7fello\r")?;
/// let mut line = [0; 64];
/// let len = terminal.read(&mut line)?;
/// assert_eq!(&line[..len], b"hello\n", "edited, as on every terminal");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`PtyOptions::open`].
pub fn pty() -> Result<(Pty, Terminal)> {
    let pty = Pty::options().open()?;
    let terminal = pty.terminal()?;
    Ok((pty, terminal))
}

/// How large a terminal is, in characters.
///
/// ```
/// use ginnel::stream::pty::Size;
///
/// let (emulator, terminal) = ginnel::stream::pty()?;
/// assert_eq!(terminal.size()?, Size { rows: 24, columns: 80 });
/// emulator.set_size(Size { rows: 50, columns: 132 })?;
/// assert_eq!(terminal.size()?, Size { rows: 50, columns: 132 }, "and its programs get SIGWINCH");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

impl Size {
    fn raw(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// How to make a [`Pty`]: see [`Pty::options`].
///
/// ```
/// use ginnel::stream::pty::{Pty, Size};
///
/// let emulator = Pty::options().size(Size { rows: 50, columns: 132 }).raw(true).open()?;
/// assert_eq!(emulator.size()?.columns, 132);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PtyOptions {
    size: Size,
    raw: bool,
}

impl PtyOptions {
    /// Its size; 24 lines of 80 characters unless said.
    pub fn size(mut self, size: Size) -> Self {
        self.size = size;
        self
    }

    /// Whether bytes go through unchanged, without echo, editing and signals.
    pub fn raw(mut self, raw: bool) -> Self {
        self.raw = raw;
        self
    }

    /// Makes the pseudo-terminal.
    ///
    /// # Errors
    /// `EAGAIN`: as many as `kernel.pty.max` allows are open (the kernel's `ENOSPC`). `ENOENT`: `/dev/pts` is not
    /// mounted. `EMFILE`, `ENFILE`.
    pub fn open(self) -> Result<Pty> {
        let unnamed = Label::from("pty");
        let fail = |operation: &'static str, object: &Label| {
            let object = object.clone();
            move |errno| Error::new(operation, errno, &object)
        };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let fd = rustix::pty::openpt(flags).map_err(|errno| {
            let error = fail("posix_openpt", &unnamed)(errno);
            match errno {
                Errno::AGAIN => {
                    error.with_hint(crate::sysv::limit_hint("no more pseudo-terminals", "kernel.pty.max"))
                }
                Errno::NOENT => error.with_hint("is /dev/pts mounted?"),
                _ => error,
            }
        })?;
        rustix::pty::grantpt(&fd).map_err(fail("grantpt", &unnamed))?;
        rustix::pty::unlockpt(&fd).map_err(fail("unlockpt", &unnamed))?;
        let name = rustix::pty::ptsname(&fd, Vec::new()).map_err(fail("ptsname", &unnamed))?;
        let path = PathBuf::from(OsStr::from_bytes(name.as_bytes()));
        let object = Label::new(format!("pty:{}", path.display()));
        set_nonblock(&fd).map_err(fail("fcntl", &object))?;
        let pty = Pty { stream: Stream::new(fd, object, Nature::Terminal), path };
        pty.set_size(self.size)?;
        if self.raw {
            set_raw(&pty.stream)?;
        }
        Ok(pty)
    }
}

/// The emulator's side of a pseudo-terminal: what it reads is the program's output, what it writes is typed.
///
/// ```
/// use std::io::Read;
/// use std::process::Command;
/// use ginnel::stream::Pty;
///
/// let mut emulator = Pty::options().open()?;
/// let mut command = Command::new("sh");
/// command.args(["-c", "test -t 0 && stty size"]);
/// let mut child = emulator.spawn(command)?;
///
/// let mut screen = String::new();
/// emulator.read_to_string(&mut screen)?;
/// assert_eq!(screen, "24 80\r\n");
/// assert!(child.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pty {
    stream: Stream,
    path: PathBuf,
}

/// The program's side of a pseudo-terminal.
///
/// ```
/// use std::io::{Read, Write};
/// use ginnel::stream::{ByteRead, pty};
///
/// let (mut emulator, mut terminal) = pty()?;
/// terminal.set_raw()?;
/// terminal.write_all(b"no \\r is put in:\n")?;
/// let mut screen = [0; 64];
/// assert_eq!(emulator.read(&mut screen)?, 17);
/// drop(emulator);
/// assert_eq!(terminal.try_read(&mut screen)?, 0, "hung up");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Terminal {
    stream: Stream,
}

has_descriptor!(Pty);
has_descriptor!(Terminal);
reads!(Pty);
reads!(Terminal);
writes!(Pty);
writes!(Terminal);

impl Pty {
    /// Makes a pseudo-terminal with every choice spelled out.
    pub fn options() -> PtyOptions {
        PtyOptions { size: Size { rows: 24, columns: 80 }, raw: false }
    }

    /// The terminal's device: `/dev/pts/3`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the program's side, for this process to use; it does not become its controlling terminal.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn terminal(&self) -> Result<Terminal> {
        let fd = self.open_terminal()?;
        set_nonblock(&fd).map_err(|errno| self.stream.error("fcntl", errno))?;
        Ok(Terminal { stream: Stream::new(fd, self.stream.object().clone(), Nature::Terminal) })
    }

    /// Opens the other side without its name, which another mount of `/dev/pts` may not have.
    fn open_terminal(&self) -> Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        match rustix::pty::ioctl_tiocgptpeer(&self.stream, flags) {
            // Kernels before 4.13.
            Err(Errno::NOTTY | Errno::INVAL) => {
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::open(&self.path, flags, Mode::empty())
            }
            other => other,
        }
        .map_err(|errno| self.stream.error("open", errno))
    }

    /// Starts a program in a session of its own, with this as its controlling terminal and its three standard streams.
    ///
    /// The command is used up: it would keep the terminal open, and the end of the stream would not come.
    ///
    /// # Errors
    /// As `execve(2)`: `ENOENT`, `EACCES`, `ENOEXEC`; as `fork(2)`: `EAGAIN`, `ENOMEM`; `EMFILE`.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        let object = Label::new(format!("command {}", command.get_program().to_string_lossy()));
        let terminal = self.open_terminal()?;
        let again =
            || terminal.try_clone().map_err(|error| Error::from_io("dup", &error, self.stream.object()));
        command.stdin(again()?).stdout(again()?).stderr(again()?);
        // SAFETY: between fork and exec this makes two system calls, both async-signal-safe; it allocates nothing and
        // takes no lock. The closure owns the descriptor.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(&terminal)?)
            });
        }
        command.spawn().map_err(|error| explain_spawn(&error, &object))
    }

    /// How large it is (`TIOCGWINSZ`).
    ///
    /// # Errors
    /// `EIO`: hung up.
    pub fn size(&self) -> Result<Size> {
        size(&self.stream)
    }

    /// Changes its size (`TIOCSWINSZ`); the program in its foreground gets `SIGWINCH`.
    ///
    /// # Errors
    /// `EIO`: hung up.
    pub fn set_size(&self, size: Size) -> Result<()> {
        rustix::termios::tcsetwinsize(&self.stream, size.raw())
            .map_err(|errno| self.stream.error("ioctl", errno))
    }
}

impl Terminal {
    /// Opens the terminal device of this path, such as `/dev/pts/3`; it does not become the controlling terminal.
    ///
    /// # Errors
    /// `ENOENT`, `ENXIO`, `EIO`: no terminal there, or nobody has its other side. `EACCES`: no permission. `ENOTTY`: it
    /// is no terminal. `EMFILE`, `ENFILE`.
    pub fn open(path: impl AsRef<Path>) -> Result<Terminal> {
        let path = path.as_ref();
        let object = Label::new(format!("pty:{}", path.display()));
        // With O_NONBLOCK from birth, nothing but a terminal is waited for or read from before it is told from one.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
            let error = Error::new("open", errno, &object);
            match errno {
                Errno::NOENT | Errno::NXIO | Errno::IO => {
                    error.with_hint("a terminal is there while a process has its other side open")
                }
                _ => error,
            }
        })?;
        if !rustix::termios::isatty(&fd) {
            return Err(Error::new("isatty", Errno::NOTTY, &object).with_hint("this is no terminal"));
        }
        Ok(Terminal { stream: Stream::new(fd, object, Nature::Terminal) })
    }

    /// How large it is (`TIOCGWINSZ`).
    ///
    /// # Errors
    /// `EIO`: hung up.
    pub fn size(&self) -> Result<Size> {
        size(&self.stream)
    }

    /// Lets bytes through unchanged both ways: no echo, no editing, no signals (`cfmakeraw(3)`).
    ///
    /// # Errors
    /// `EIO`: hung up.
    pub fn set_raw(&self) -> Result<()> {
        set_raw(&self.stream)
    }
}

fn size(stream: &Stream) -> Result<Size> {
    rustix::termios::tcgetwinsize(stream)
        .map(|raw| Size { rows: raw.ws_row, columns: raw.ws_col })
        .map_err(|errno| stream.error("ioctl", errno))
}

fn set_raw(stream: &Stream) -> Result<()> {
    let fail = |errno| stream.error("tcsetattr", errno);
    let mut modes = rustix::termios::tcgetattr(stream).map_err(fail)?;
    modes.make_raw();
    rustix::termios::tcsetattr(stream, OptionalActions::Now, &modes).map_err(fail)
}
