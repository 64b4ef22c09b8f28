//! File mapping: `mmap(2)`, `msync(2)`, `madvise(2)`.
//!
//! # What a user sees
//! A file, or any part of it, as memory: shared, so that every process that maps the file and every `read(2)` of it
//! sees a write at once, or private (copy on write). What is written stays in the file after all processes have gone;
//! [`Mapping::flush`] waits until it is on the disk.
//!
//! Differences from the bare calls: a part may begin and end anywhere (`mmap` wants a page's beginning); a range
//! beyond the file's end is refused when it is mapped; a file that grows through [`FileMapping::resize`] gets its disk
//! blocks then; and a file that another process truncates is an error (`EFAULT`), not a `SIGBUS`. Only the rest of the
//! last page behind a file's end can be neither refused nor noticed: it reads as zeros, and what is written there is
//! lost. `mmap(2)` says so, and no program can tell.
//!
//! A mapping does not lock: see [`crate::sync`] for record locks, which go well with parts of files.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::backing::{self, Reserve, Status};
use super::mapping::{Access, Kind, Mapping, ReadOnly, ReadWrite, is_writable, map_part};
use crate::error::{Error, Label, Result};
use crate::sync::LockedFile;

/// A file, or a part of one, mapped; a [`Mapping`] that keeps its file open and can follow its size.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::FileMapping;
///
/// let path = std::env::temp_dir().join(format!("ginnel-doc-{}", std::process::id()));
/// let mut file = FileMapping::options().create(true).size(10).open(&path)?;
/// file.write_bytes(0, b"0123456789")?;
///
/// file.resize(12)?;
/// file.write_bytes(10, b"ab")?;
/// file.flush(..)?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"0123456789ab");
///
/// let part = FileMapping::options().range(3, 4).open_read_only(&path)?;
/// assert_eq!(part.read_vec(..)?, b"3456");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct FileMapping<A: Access = ReadWrite> {
    fd: LockedFile,
    mapping: Mapping<A>,
    what: What,
    object: Label,
}

/// What of the file is mapped, and how.
#[derive(Clone, Copy, Debug)]
struct What {
    range: Option<(u64, usize)>,
    kind: Kind,
    populate: bool,
}

/// How to open and map a file: see [`FileMapping::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::FileMapping;
///
/// let path = std::env::temp_dir().join(format!("ginnel-doc-private-{}", std::process::id()));
/// std::fs::write(&path, b"as it was").unwrap();
///
/// let private = FileMapping::options().private(true).open(&path)?;
/// private.write_bytes(0, b"so")?;
/// assert_eq!(private.read_vec(..)?, b"so it was");
/// assert_eq!(std::fs::read(&path).unwrap(), b"as it was");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    what: What,
    create: bool,
    create_new: bool,
    truncate: bool,
    mode: u32,
    size_bytes: u64,
}

impl FileOptions {
    /// Make the file if there is none; needs a [`size`](FileOptions::size).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make the file, and fail with `EEXIST` if there is one already.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Empty the file first. Whoever has it mapped loses the memory.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// The permission bits of a file that is made, less the umask; 0600 unless said.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How many bytes the file is to have at least: it is grown to them, with blocks for them, and never shrunk.
    pub fn size(mut self, size_bytes: u64) -> Self {
        self.size_bytes = size_bytes;
        self
    }

    /// Map `len` bytes from `offset` on; the whole file unless said.
    pub fn range(mut self, offset: u64, len: usize) -> Self {
        self.what.range = Some((offset, len));
        self
    }

    /// Copy a page when this process first writes to it, so that nobody else sees the change (`MAP_PRIVATE`). The
    /// right to read the file is enough. Whether others' later changes to the file are seen is not specified.
    pub fn private(mut self, private: bool) -> Self {
        self.what.kind = if private { Kind::Private } else { Kind::Shared };
        self
    }

    /// Read all pages in now (`MAP_POPULATE`).
    pub fn populate(mut self, populate: bool) -> Self {
        self.what.populate = populate;
        self
    }

    /// Opens a file and maps it for reading and writing.
    ///
    /// # Errors
    /// As `open(2)`: `ENOENT`, `EEXIST`, `EACCES`, `EISDIR`, `EROFS`, `ETXTBSY`, ... `EINVAL`: the file is empty, or
    /// has no such range. `ENODEV`: this kind of file cannot be mapped. `ENOSPC`: no blocks for the size. `ENOMEM`: no
    /// address space.
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileMapping<ReadWrite>> {
        self.open_as(path.as_ref())
    }

    /// Opens a file and maps it for reading only.
    ///
    /// # Errors
    /// As [`FileOptions::open`]; the right to write is needed only to make or to grow it.
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<FileMapping<ReadOnly>> {
        self.open_as(path.as_ref())
    }

    /// Maps an open file for reading and writing.
    ///
    /// # Errors
    /// As [`FileOptions::open`]; `EACCES`: the descriptor is not open for both.
    pub fn map(self, file: impl Into<OwnedFd>) -> Result<FileMapping<ReadWrite>> {
        self.map_as(file.into(), Label::from("file"))
    }

    /// Maps an open file for reading only.
    ///
    /// # Errors
    /// As [`FileOptions::open`]; `EACCES`: the descriptor is not open for reading.
    pub fn map_read_only(self, file: impl Into<OwnedFd>) -> Result<FileMapping<ReadOnly>> {
        self.map_as(file.into(), Label::from("file"))
    }

    fn open_as<A: Access>(self, path: &Path) -> Result<FileMapping<A>> {
        let object = Label::new(match self.what.range {
            Some((offset, len)) => format!("file:{}#{offset}+{len}", path.display()),
            None => format!("file:{}", path.display()),
        });
        let makes = self.create || self.create_new;
        let writes = (is_writable::<A>() && self.what.kind != Kind::Private)
            || makes
            || self.truncate
            || self.size_bytes > 0;
        let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
        flags |= if writes { OFlags::RDWR } else { OFlags::RDONLY };
        flags.set(OFlags::TRUNC, self.truncate);
        let (fd, is_made) = self
            .open_or_make(path, flags)
            .map_err(|errno| explain_open(Error::new("open", errno, &object), makes))?;
        let identity = if is_made { Some(backing::status(&fd, &object)?.identity) } else { None };
        self.map_as(fd, object).inspect_err(|_| {
            // Nothing half-made is left; nor is anything removed that has taken its name meanwhile.
            if rustix::fs::lstat(path).is_ok_and(|raw| identity == Some(backing::identity(&raw))) {
                let _ = rustix::fs::unlink(path);
            }
        })
    }

    /// Opens the file, and tells whether this made it.
    fn open_or_make(self, path: &Path, flags: OFlags) -> Result<(OwnedFd, bool), Errno> {
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        let open = |more| rustix::fs::open(path, flags | more, mode);
        if !self.create_new {
            match open(OFlags::empty()) {
                Err(Errno::NOENT) if self.create => {}
                other => return other.map(|fd| (fd, false)),
            }
        }
        match open(OFlags::CREATE | OFlags::EXCL) {
            // Another process was faster, or the name is a link that leads to no file yet.
            Err(Errno::EXIST) if !self.create_new => open(OFlags::CREATE).map(|fd| (fd, false)),
            other => other.map(|fd| (fd, true)),
        }
    }

    fn map_as<A: Access>(self, fd: OwnedFd, object: Label) -> Result<FileMapping<A>> {
        // From here on its closing does not release locks that this process has on the file.
        let fd = LockedFile::new(fd).map_err(|errno| Error::new("fstat", errno, &object))?;
        if self.size_bytes > 0 {
            backing::grow(fd.as_fd(), self.size_bytes, Reserve::Growth, &object)?;
        }
        let mapping = self.what.map(fd.as_fd(), &object)?;
        Ok(FileMapping { fd, mapping, what: self.what, object })
    }
}

impl What {
    fn map<A: Access>(self, fd: BorrowedFd<'_>, object: &Label) -> Result<Mapping<A>> {
        map_part(fd, self.range, self.kind, self.populate, object)
    }
}

impl FileMapping {
    /// Opens and maps with every choice spelled out.
    pub fn options() -> FileOptions {
        FileOptions {
            what: What { range: None, kind: Kind::Shared, populate: false },
            create: false,
            create_new: false,
            truncate: false,
            mode: 0o600,
            size_bytes: 0,
        }
    }

    /// Maps all of a file, which must exist and have at least a byte, for reading and writing.
    ///
    /// # Errors
    /// See [`FileOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<FileMapping<ReadWrite>> {
        FileMapping::options().open(path)
    }

    /// Maps all of a file, which must exist and have at least a byte, for reading only.
    ///
    /// # Errors
    /// See [`FileOptions::open`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<FileMapping<ReadOnly>> {
        FileMapping::options().open_read_only(path)
    }

    /// Maps all of a file, of at least that size, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`FileOptions::open`].
    pub fn create(path: impl AsRef<Path>, size_bytes: u64) -> Result<FileMapping<ReadWrite>> {
        FileMapping::options().create(true).size(size_bytes).open(path)
    }

    /// Makes the file that long, and maps it anew as [`FileMapping::refresh`] does. What it grows by has its blocks.
    ///
    /// # Errors
    /// `ENOSPC`: no blocks for it. `EBADF`, `EINVAL`: the file is open for reading only. `EFBIG`: more than the file
    /// system or `RLIMIT_FSIZE` allows (the process gets `SIGXFSZ`). `EINTR`. Else as [`FileMapping::refresh`]. When
    /// it fails, the mapping is as it was.
    pub fn resize(&mut self, size_bytes: u64) -> Result<()> {
        backing::set_size(self.fd.as_fd(), size_bytes, Reserve::Growth, &self.object)?;
        self.refresh()
    }
}

impl<A: Access> FileMapping<A> {
    /// Maps the file anew, as long as it is now: after another process has made it longer, or has truncated it. The
    /// changes of a private mapping are lost.
    ///
    /// # Errors
    /// `EINVAL`: the file is empty now, or no longer has the range. `ENOMEM`: no address space. The mapping is as it
    /// was.
    pub fn refresh(&mut self) -> Result<()> {
        self.mapping = self.what.map(self.fd.as_fd(), &self.object)?;
        Ok(())
    }

    /// The file's size, mode, owner and times. `fstat(2)`.
    ///
    /// # Errors
    /// `EIO`, and what else the file system has to say.
    pub fn status(&self) -> Result<Status> {
        backing::status(&self.fd, &self.object)
    }

    /// The mapping alone; the file is closed, which a mapping survives.
    pub fn into_mapping(self) -> Mapping<A> {
        self.mapping
    }
}

impl<A: Access> Deref for FileMapping<A> {
    type Target = Mapping<A>;

    fn deref(&self) -> &Mapping<A> {
        &self.mapping
    }
}

impl<A: Access> AsFd for FileMapping<A> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<A: Access> fmt::Debug for FileMapping<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMapping").field("fd", &self.fd).field("mapping", &self.mapping).finish()
    }
}

fn explain_open(error: Error, makes: bool) -> Error {
    match error.raw() {
        Errno::NOENT if makes => error.with_hint("the directory does not exist"),
        Errno::NOENT => error.with_hint("no such file; make it first, or open with `create` and a size"),
        Errno::EXIST => error.with_hint("the file exists; open it without `create_new`"),
        Errno::ISDIR => error.with_hint("a directory cannot be mapped"),
        Errno::TXTBSY => error.with_hint("it is a program that runs; map it privately or read-only"),
        _ => error,
    }
}
