//! FIFO, a pipe with a name: `fifo(7)`, `mkfifo(3)`, `open(2)`.
//!
//! # What a user sees
//! [`Fifo`] is the name; [`FifoReader`] and [`FifoWriter`] are what opening it gives. An open waits for somebody at the
//! other end, as the kernel's does, and comes in the three forms:
//!
//! | | nobody at the other end | somebody |
//! | --- | --- | --- |
//! | `open_reader`, `open_writer` | waits | opens |
//! | `try_open_reader` | opens: it may wait for data later | opens |
//! | `try_open_writer` | `ENXIO` | opens |
//! | `open_reader_deadline`, `open_writer_deadline` | waits, then `ETIMEDOUT` | opens |
//! | `open_both` | opens: it is its own other end | opens |
//!
//! A reader sees the end (0 bytes) when the last writer has closed; when a writer comes again, so does data:
//! [`FifoReader::wait_for_writer`] waits for that. A writer without any reader left gets `EPIPE`.
//!
//! # How it works inside
//! An open with a deadline is the blocking `open(2)` itself, ended by this thread's timer (see
//! [`crate::deadline_signal`]): no helper thread, no polling, and the other end sees exactly what it sees of a plain
//! open. `poll(2)` and inotify cannot do it: neither tells of a peer that itself waits inside `open`.
//!
//! `RWF_NOWAIT` does not work on a FIFO (`EOPNOTSUPP`, Linux 6.18), so the descriptions that are opened here have
//! `O_NONBLOCK` from the start, and the blocking forms poll.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::io::{Nature, Stream, has_descriptor, reads, set_nonblock, writes};
use super::pipe::{peek, pipe, write_atomic};
use crate::error::{Error, Label, Result};
use crate::unix_socket::{Identity, identity};
use crate::wait::{self, Attempt};
use crate::{Deadline, interrupt};

/// How long [`FifoReader::wait_for_writer`] sleeps without a look whether a silent writer has come.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The name of a FIFO.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::stream::{ByteRead, ByteWrite, Fifo};
///
/// let directory = ginnel_testkit::temp_dir();
/// let fifo = Fifo::options().create_new(true).remove_on_drop(true).open(directory.path().join("door"))?;
///
/// let nobody = fifo.try_open_writer().unwrap_err();
/// assert_eq!(nobody.errno_name(), "ENXIO");
///
/// let reader = fifo.try_open_reader()?;
/// let writer = fifo.try_open_writer()?;
/// writer.try_write(b"knock")?;
/// assert_eq!(reader.try_read(&mut [0; 16])?, 5);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    object: Label,
    /// The process that removes the name when it drops the handle, and the file it is to be then.
    removed_by: Option<(u32, Identity)>,
}

/// How to open or make a [`Fifo`]: see [`Fifo::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::stream::Fifo;
///
/// let path = ginnel_testkit::temp_dir().path().join("door");
/// assert!(Fifo::open(&path).unwrap_err().is_not_found());
/// # let directory = ginnel_testkit::temp_dir(); let path = directory.path().join("door");
/// let fifo = Fifo::options().create(true).mode(0o620).open(&path)?;
/// assert!(Fifo::options().create_new(true).open(&path).unwrap_err().is_already_exists());
/// fifo.remove()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FifoOptions {
    create: bool,
    create_new: bool,
    mode: u32,
    remove_on_drop: bool,
}

impl FifoOptions {
    /// Make the FIFO if there is nothing of that name.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make the FIFO, and fail with `EEXIST` if there is something of that name already.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// The permission bits of a FIFO that is made; 0600 unless said. The umask takes bits away, as for every file.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Remove the name when the [`Fifo`] is dropped, if this call made it and it still is the same file.
    ///
    /// Ends that are open by then stay usable. In a child made by `fork` the handle does not remove it.
    pub fn remove_on_drop(mut self, remove: bool) -> Self {
        self.remove_on_drop = remove;
        self
    }

    /// Makes the FIFO if that was asked for, and checks that it is one. No end is opened yet.
    ///
    /// # Errors
    /// `ENOENT`: there is none, and it was not to be made; or its directory is not there. `EEXIST`: it exists and was
    /// to be new. `EINVAL`: something else than a FIFO has that name. `EACCES`, `ENOTDIR`, `ENOSPC`, `EROFS`,
    /// `ENAMETOOLONG`: as `mkfifo(3)`.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Fifo> {
        let path = path.as_ref();
        let object = Label::new(format!("fifo:{}", path.display()));
        // The process may change its directory while the handle lives.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let mut made = false;
        if self.create || self.create_new {
            match rustix::fs::mkfifoat(CWD, &path, Mode::from_raw_mode(self.mode & 0o7777)) {
                Ok(()) => made = true,
                Err(Errno::EXIST) if !self.create_new => {}
                Err(errno) => return Err(explain_make(Error::new("mkfifo", errno, &object))),
            }
        }
        let id = check_is_fifo(&path, &object)?;
        let removed_by = (made && self.remove_on_drop).then(|| (std::process::id(), id));
        Ok(Fifo { path, object, removed_by })
    }
}

fn explain_make(error: Error) -> Error {
    match error.raw() {
        Errno::EXIST => {
            error.with_hint("something of that name exists; open it without `create_new`, or remove it")
        }
        Errno::NOENT => error.with_hint("its directory does not exist"),
        Errno::ACCESS => error.with_hint("this user may not make files in that directory"),
        _ => error,
    }
}

/// That the path names a FIFO, and which.
fn check_is_fifo(path: &Path, object: &Label) -> Result<Identity> {
    let status = std::fs::metadata(path).map_err(|error| {
        let error = Error::from_io("stat", &error, object);
        match error.raw() {
            Errno::NOENT => error.with_hint("there is no such FIFO; make it first, or open with `create`"),
            _ => error,
        }
    })?;
    if !status.file_type().is_fifo() {
        let kind = kind_of(status.file_type());
        return Err(Error::invalid("open", object, format!("this is {kind}, not a FIFO")));
    }
    Ok(identity(&status))
}

fn kind_of(kind: std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_file() => "a regular file",
        () if kind.is_dir() => "a directory",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

impl Fifo {
    /// Opens or makes a FIFO with every choice spelled out.
    pub fn options() -> FifoOptions {
        FifoOptions { create: false, create_new: false, mode: 0o600, remove_on_drop: false }
    }

    /// The FIFO of this name, which must exist.
    ///
    /// # Errors
    /// See [`FifoOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Fifo> {
        Fifo::options().open(path)
    }

    /// The FIFO of this name, made (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`FifoOptions::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Fifo> {
        Fifo::options().create(true).open(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the name. Ends that are open stay usable; whoever waits to open one waits on.
    ///
    /// # Errors
    /// `ENOENT`: it is gone already. `EINVAL`: something else has the name by now. `EACCES`, `EPERM`, `EROFS`: as
    /// `unlink(2)`.
    pub fn remove(&self) -> Result<()> {
        check_is_fifo(&self.path, &self.object)?;
        rustix::fs::unlink(&self.path).map_err(|errno| Error::new("unlink", errno, &self.object))
    }

    /// Lets the name stay when the handle is dropped.
    pub fn keep(&mut self) {
        self.removed_by = None;
    }

    /// Opens the reading end; waits until somebody has the writing end open.
    ///
    /// # Errors
    /// `ENOENT`: it was removed. `EACCES`: no read permission. `EINVAL`: something else has the name by now. `EINTR`: a
    /// signal handler ran. `EMFILE`, `ENFILE`.
    ///
    /// # Blocking
    /// Until there is a writer. `fifo(7)`, `open(2)`.
    pub fn open_reader(&self) -> Result<FifoReader> {
        self.open_reader_deadline(Deadline::NEVER)
    }

    /// Opens the reading end, whether or not there is a writer. Without one a read gives the end (0 bytes) at once.
    ///
    /// # Errors
    /// As [`Fifo::open_reader`].
    pub fn try_open_reader(&self) -> Result<FifoReader> {
        self.open_reader_deadline(Deadline::NOW)
    }

    /// Opens the reading end; waits until the deadline for somebody who has the writing end open.
    ///
    /// # Errors
    /// `ETIMEDOUT`: nobody came. Else as [`Fifo::open_reader`].
    pub fn open_reader_deadline(&self, deadline: impl Into<Deadline>) -> Result<FifoReader> {
        let deadline = deadline.into();
        let fd = self.open_end(deadline, |attempt| match attempt {
            Attempt::NonBlocking if !deadline.is_now() => Err(Errno::AGAIN),
            _ => open_raw(&self.path, OFlags::RDONLY, attempt),
        })?;
        Ok(FifoReader { stream: self.stream(fd)? })
    }

    /// Opens the writing end; waits until somebody has the reading end open.
    ///
    /// # Errors
    /// `ENOENT`: it was removed. `EACCES`: no write permission. `EINVAL`: something else has the name by now. `EINTR`:
    /// a signal handler ran. `EMFILE`, `ENFILE`.
    ///
    /// # Blocking
    /// Until there is a reader. `fifo(7)`, `open(2)`.
    pub fn open_writer(&self) -> Result<FifoWriter> {
        self.open_writer_deadline(Deadline::NEVER)
    }

    /// Opens the writing end if somebody has the reading end open.
    ///
    /// # Errors
    /// `ENXIO`: nobody has. Else as [`Fifo::open_writer`].
    pub fn try_open_writer(&self) -> Result<FifoWriter> {
        let fd = self.explain(
            open_raw(&self.path, OFlags::WRONLY, Attempt::NonBlocking)
                .map_err(|errno| Error::new("open", errno, &self.object)),
        )?;
        Ok(FifoWriter { stream: self.stream(fd)? })
    }

    /// Opens the writing end; waits until the deadline for somebody who has the reading end open.
    ///
    /// # Errors
    /// `ETIMEDOUT`: nobody came. Else as [`Fifo::open_writer`].
    pub fn open_writer_deadline(&self, deadline: impl Into<Deadline>) -> Result<FifoWriter> {
        let deadline = deadline.into();
        if deadline.is_now() {
            return self.try_open_writer();
        }
        let fd = self.open_end(deadline, |attempt| {
            match open_raw(&self.path, OFlags::WRONLY, attempt) {
                // "Nobody there" is what this form waits for.
                Err(Errno::NXIO) => Err(Errno::AGAIN),
                other => other,
            }
        })?;
        Ok(FifoWriter { stream: self.stream(fd)? })
    }

    /// Opens both ends at once (`O_RDWR`), whoever else is there. POSIX leaves that open; Linux has it.
    ///
    /// As long as the two are held the reader sees no end and a writer no `EPIPE`: how a server keeps its FIFO alive
    /// between clients.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL`, `EMFILE`, `ENFILE` as [`Fifo::open_reader`]; `EACCES`: needs both permissions.
    pub fn open_both(&self) -> Result<(FifoReader, FifoWriter)> {
        let (reader, writer) = self.explain(
            open_raw(&self.path, OFlags::RDWR, Attempt::NonBlocking)
                .and_then(|held| {
                    // Opened by name three times, but while `held` is there neither of the next two has to wait.
                    let reader = open_raw(&self.path, OFlags::RDONLY, Attempt::NonBlocking)?;
                    let writer = open_raw(&self.path, OFlags::WRONLY, Attempt::NonBlocking)?;
                    drop(held);
                    Ok((reader, writer))
                })
                .map_err(|errno| Error::new("open", errno, &self.object)),
        )?;
        Ok((FifoReader { stream: self.stream(reader)? }, FifoWriter { stream: self.stream(writer)? }))
    }

    fn open_end(
        &self,
        deadline: Deadline,
        attempt: impl FnMut(Attempt) -> Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd> {
        self.explain(interrupt::until(deadline, "open", &self.object, attempt))
    }

    fn explain<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match error.raw() {
            Errno::NXIO => {
                error.with_hint("nobody has it open for reading; start the reader, or wait for it")
            }
            Errno::TIMEDOUT => error.with_hint("nobody opened the other end"),
            Errno::NOENT => error.with_hint("the FIFO was removed"),
            Errno::ACCESS => error.with_hint("its mode does not let this user open that end"),
            Errno::INVAL => error.with_hint("something else than a FIFO has that name now"),
            _ => error,
        })
    }

    fn stream(&self, fd: OwnedFd) -> Result<Stream> {
        set_nonblock(&fd).map_err(|errno| Error::new("fcntl", errno, &self.object))?;
        Ok(Stream::new(fd, self.object.clone(), Nature::NonBlocking))
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let Some((pid, id)) = self.removed_by else { return };
        if pid == std::process::id() && check_is_fifo(&self.path, &self.object).is_ok_and(|now| now == id) {
            // Gone already is what was wanted.
            let _ = self.remove();
        }
    }
}

/// Opens an end, and makes sure that it is a FIFO's: the name may stand for something else by now.
fn open_raw(path: &Path, access: OFlags, attempt: Attempt) -> Result<OwnedFd, Errno> {
    let wait = match attempt {
        Attempt::NonBlocking => OFlags::NONBLOCK,
        Attempt::Blocking => OFlags::empty(),
    };
    let fd = rustix::fs::open(path, access | wait | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo() {
        true => Ok(fd),
        false => Err(Errno::INVAL),
    }
}

/// The end of a FIFO that reads: what [`Fifo::open_reader`] gives.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::stream::{ByteRead, ByteWrite, Fifo};
///
/// let directory = ginnel_testkit::temp_dir();
/// let (reader, writer) = Fifo::create(directory.path().join("door"))?.open_both()?;
/// writer.try_write(b"knock")?;
/// let mut buffer = [0; 16];
/// assert_eq!(reader.try_peek(&mut buffer)?, 5);
/// assert_eq!(reader.available()?, 5);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct FifoReader {
    stream: Stream,
}

/// The end of a FIFO that writes: what [`Fifo::open_writer`] gives.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::stream::{ByteRead, Fifo};
///
/// let directory = ginnel_testkit::temp_dir();
/// let (reader, writer) = Fifo::create(directory.path().join("door"))?.open_both()?;
/// writer.try_write_atomic(b"never mixed with another writer's line\n")?;
/// drop(reader);
/// assert!(writer.try_write_atomic(b"x").unwrap_err().is_disconnected());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct FifoWriter {
    stream: Stream,
}

has_descriptor!(FifoReader);
has_descriptor!(FifoWriter);
reads!(FifoReader);
writes!(FifoWriter);

impl FifoReader {
    /// How many bytes the FIFO can hold (`F_GETPIPE_SZ`).
    ///
    /// # Errors
    /// None known.
    pub fn capacity(&self) -> Result<usize> {
        self.stream.capacity()
    }

    /// Changes how many bytes the FIFO can hold, for as long as somebody has it open (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// As [`PipeWriter::set_capacity`](super::PipeWriter::set_capacity).
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        self.stream.set_capacity(bytes)
    }

    /// Copies what is in the FIFO and leaves it there; waits for the first byte. 0 is the end.
    ///
    /// # Errors
    /// As [`PipeReader::peek`](super::PipeReader::peek).
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NEVER)
    }

    /// Copies what is in the FIFO now and leaves it there. 0 is the end.
    ///
    /// # Errors
    /// `EAGAIN`: it is empty. Else as [`FifoReader::peek`].
    pub fn try_peek(&self, buf: &mut [u8]) -> Result<usize> {
        self.peek_deadline(buf, Deadline::NOW)
    }

    /// Copies what is in the FIFO and leaves it there; waits until the deadline for the first byte. 0 is the end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`FifoReader::peek`].
    pub fn peek_deadline(&self, buf: &mut [u8], deadline: impl Into<Deadline>) -> Result<usize> {
        peek(&self.stream, buf, deadline.into())
    }
}

impl FifoReader {
    /// Waits until somebody has the writing end open, or data is there: what a server does after it has read the end.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran. `EMFILE`, `ENFILE`. `ENOENT`: `/proc` is not mounted.
    ///
    /// # Blocking
    /// In `poll(2)`, which tells at once of data and of a writer that has come and gone, whatever it left; and with a look
    /// every quarter of a second whether one has come that is silent, of which it does not tell.
    pub fn wait_for_writer(&self) -> Result<()> {
        self.wait_for_writer_deadline(Deadline::NEVER)
    }

    /// Whether somebody has the writing end open now, or data is there.
    ///
    /// # Errors
    /// `EAGAIN`: neither. `EMFILE`, `ENFILE`.
    pub fn try_wait_for_writer(&self) -> Result<()> {
        self.wait_for_writer_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for somebody who has the writing end open, or for data.
    ///
    /// # Errors
    /// `ETIMEDOUT`: nobody came. Else as [`FifoReader::wait_for_writer`].
    pub fn wait_for_writer_deadline(&self, deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let fail = |operation| move |errno| self.stream.error(operation, errno);
        if deadline.is_now() {
            return self.has_writer().map_err(fail("tee"));
        }
        // `poll` calls this description hung up for ever, once it has had a writer. A fresh one is hung up when a writer
        // has come and gone since it was opened: so it is opened before the look whether one is there, and none is missed.
        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        let fresh = open_raw(path.as_ref(), OFlags::RDONLY, Attempt::NonBlocking).map_err(fail("open"))?;
        loop {
            match self.has_writer() {
                Err(Errno::AGAIN) => {}
                other => return other.map_err(fail("tee")),
            }
            let limit = deadline.remaining().map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            match wait::ready(fresh.as_fd(), PollFlags::IN, limit.into(), "poll", self.stream.object()) {
                Err(error) if error.is_timed_out() && !deadline.has_passed() => {}
                other => return other,
            }
        }
    }

    /// A `tee(2)` of an empty pipe is 0 without a writer and `EAGAIN` with one; it takes nothing.
    fn has_writer(&self) -> Result<(), Errno> {
        let (_scratch, copy) = pipe().map_err(|error| error.raw())?;
        match rustix::pipe::tee(self, &copy, 1, SpliceFlags::NONBLOCK) {
            Ok(0) => Err(Errno::AGAIN),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl FifoWriter {
    /// How many bytes the FIFO can hold (`F_GETPIPE_SZ`).
    ///
    /// # Errors
    /// None known.
    pub fn capacity(&self) -> Result<usize> {
        self.stream.capacity()
    }

    /// Changes how many bytes the FIFO can hold, for as long as somebody has it open (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// As [`PipeWriter::set_capacity`](super::PipeWriter::set_capacity).
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        self.stream.set_capacity(bytes)
    }

    /// Writes all of `buf` in one piece that no other writer's bytes get into; waits for room.
    ///
    /// # Errors
    /// As [`PipeWriter::write_atomic`](super::PipeWriter::write_atomic).
    pub fn write_atomic(&self, buf: &[u8]) -> Result<()> {
        self.write_atomic_deadline(buf, Deadline::NEVER)
    }

    /// Writes all of `buf` in one piece if there is room for it now.
    ///
    /// # Errors
    /// `EAGAIN`: there is not. Else as [`FifoWriter::write_atomic`].
    pub fn try_write_atomic(&self, buf: &[u8]) -> Result<()> {
        self.write_atomic_deadline(buf, Deadline::NOW)
    }

    /// Writes all of `buf` in one piece; waits until the deadline for room.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed; nothing was written. Else as [`FifoWriter::write_atomic`].
    pub fn write_atomic_deadline(&self, buf: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        write_atomic(&self.stream, buf, deadline.into())
    }
}
