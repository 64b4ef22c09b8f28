//! POSIX shared memory: `shm_overview(7)`, `shm_open(3)`.
//!
//! # What a user sees
//! Memory with a name (`/x`), that outlives its processes until it is removed or the host restarts. Linux keeps it as
//! the file `/dev/shm/x`.
//!
//! Two differences from the bare calls. Memory is reserved when the size is set: where there is none, that fails
//! with `ENOSPC`, and no later access gets a `SIGBUS`. And memory that is made with a size appears under its name with
//! that size: no other process ever opens it while it is still empty.
//!
//! # How it works inside
//! `O_TMPFILE`, then the size, then `linkat`. A size for memory that exists already (made by a program that called
//! `shm_open` and has not yet called `ftruncate`, say) is a lower bound. In a user-space home it is a file of the directory
//! `pshm`, of which `ginnel_engine::memory::posix_shm` refuses links that somebody has planted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ginnel_engine::memory::posix_shm as engine;
use ginnel_engine::namespace::Kind as Named;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::backing::{self, Reserve, Status};
use super::mapping::{Access, Kind, Mapping, ReadOnly, ReadWrite, map_part};
use crate::Namespace;
use crate::error::{Error, Label, Result};

const DIRECTORY: &str = "/dev/shm";

/// POSIX shared memory, by name.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::PosixShm;
///
/// let shm = PosixShm::create("/ginnel-doc", 4096)?;
/// shm.map()?.write_bytes(100, b"hello")?;
///
/// let other = PosixShm::open_read_only("/ginnel-doc")?;
/// assert_eq!(other.map_read_only()?.read_vec(100..105)?, b"hello");
/// PosixShm::remove("/ginnel-doc")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixShm {
    fd: OwnedFd,
    object: Label,
}

/// How to open or make [`PosixShm`]: see [`PosixShm::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::PosixShm;
///
/// let shm = PosixShm::options().create_new(true).mode(0o660).size(10_000).open("/ginnel-doc-options")?;
/// assert_eq!(shm.status()?.size_bytes, 10_000);
/// PosixShm::remove("/ginnel-doc-options")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PosixShmOptions {
    namespace: Namespace,
    read_only: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
    mode: u32,
    size_bytes: u64,
}

impl PosixShmOptions {
    /// In which home; the kernel's (that is, `/dev/shm`) unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

    /// Open it for reading only (`O_RDONLY`).
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Make it if there is none (`O_CREAT`).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make it, and fail with `EEXIST` if there is one already (`O_CREAT | O_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Cut what exists to no bytes (`O_TRUNC`). Whoever has it mapped loses the memory.
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// The permission bits of what is made, less the umask; 0600 unless said.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How many bytes it is to have at least: what is made has as many, what exists is grown to them and never shrunk.
    pub fn size(mut self, size_bytes: u64) -> Self {
        self.size_bytes = size_bytes;
        self
    }

    /// Opens the shared memory of this name: `/`, then up to 254 bytes without a slash.
    ///
    /// # Errors
    /// `ENOENT`: there is none, and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: its mode
    /// does not grant it. `EINVAL`: no such name is allowed, or a size for memory opened read-only that has fewer
    /// bytes.
    /// `ENAMETOOLONG`. `ENOSPC`: no memory left for the size. `ELOOP`: the name is a symbolic link. `EMFILE`,
    /// `ENFILE`.
    pub fn open(self, name: &str) -> Result<PosixShm> {
        let object = label(name);
        let path = path(&self.namespace, name, "shm_open", &object)?;
        let explain = |error| explain(&self.namespace, error);
        let fd = loop {
            match self.open_existing(name, &path) {
                Err(Errno::NOENT) if self.create || self.create_new => {}
                Err(errno) => return Err(explain(Error::new("shm_open", errno, &object))),
                Ok(fd) => break fd,
            }
            match self.make(&path, &object)? {
                Some(fd) => break fd,
                None if self.create_new => {
                    return Err(explain(Error::new("shm_open", Errno::EXIST, &object)));
                }
                // Another process was faster: open what it has made.
                None => {}
            }
        };
        let shm = PosixShm { fd, object };
        let size_bytes = backing::size(&shm.fd, &shm.object)?;
        if size_bytes < self.size_bytes {
            if self.read_only {
                let why = format!("it has {size_bytes} bytes, and growing it takes the right to write");
                return Err(Error::invalid("ftruncate", &shm.object, why));
            }
            backing::grow(shm.fd.as_fd(), self.size_bytes, Reserve::All, &shm.object)?;
        }
        Ok(shm)
    }

    fn open_existing(&self, name: &str, path: &str) -> Result<OwnedFd, Errno> {
        if self.create_new {
            return match rustix::fs::lstat(path) {
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            };
        }
        let truncate = if self.truncate { OFlags::TRUNC } else { OFlags::empty() };
        if let Some(home) = self.namespace.user() {
            let flags = (self.access() | truncate).bits() as i32;
            return engine::PosixShm::open(home, name.as_bytes(), flags, 0);
        }
        rustix::fs::open(path, self.access() | truncate | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Makes it whole, then gives it its name: `None` if that is taken.
    fn make(&self, path: &str, object: &Label) -> Result<Option<OwnedFd>> {
        let fail = |errno| explain(&self.namespace, Error::new("shm_open", errno, object));
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        let made = rustix::fs::open(
            directory(&self.namespace),
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            mode,
        );
        let fd = match made {
            Ok(fd) => fd,
            // A file system without nameless files: as shm_open does it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                return self.make_by_name(path, mode).map_err(fail);
            }
            Err(errno) => return Err(fail(errno)),
        };
        backing::set_size(fd.as_fd(), self.size_bytes, Reserve::All, object)?;
        let nameless = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let fd_to_give = match self.read_only {
            false => None,
            true => match rustix::fs::open(&nameless, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(read_only) => Some(read_only),
                Err(Errno::NOENT) => return self.make_by_name(path, mode).map_err(fail),
                Err(errno) => return Err(fail(errno)),
            },
        };
        match rustix::fs::linkat(CWD, nameless, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(Some(fd_to_give.unwrap_or(fd))),
            Err(Errno::EXIST) => Ok(None),
            // No /proc.
            Err(Errno::NOENT) => self.make_by_name(path, mode).map_err(fail),
            Err(errno) => Err(fail(errno)),
        }
    }

    fn make_by_name(&self, path: &str, mode: Mode) -> Result<Option<OwnedFd>, Errno> {
        let flags = self.access() | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(path, flags, mode) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn access(&self) -> OFlags {
        if self.read_only { OFlags::RDONLY } else { OFlags::RDWR }
    }
}

impl PosixShm {
    /// Opens shared memory with every choice spelled out.
    pub fn options() -> PosixShmOptions {
        PosixShmOptions {
            namespace: Namespace::kernel(),
            read_only: false,
            create: false,
            create_new: false,
            truncate: false,
            mode: 0o600,
            size_bytes: 0,
        }
    }

    /// Opens the shared memory of this name, which must exist, for reading and writing.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn open(name: &str) -> Result<PosixShm> {
        PosixShm::open_in(&Namespace::kernel(), name)
    }

    /// [`PosixShm::open`] in another home.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn open_in(namespace: &Namespace, name: &str) -> Result<PosixShm> {
        PosixShm::options().namespace(namespace).open(name)
    }

    /// Opens the shared memory of this name, which must exist, for reading.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn open_read_only(name: &str) -> Result<PosixShm> {
        PosixShm::open_read_only_in(&Namespace::kernel(), name)
    }

    /// [`PosixShm::open_read_only`] in another home.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn open_read_only_in(namespace: &Namespace, name: &str) -> Result<PosixShm> {
        PosixShm::options().namespace(namespace).read_only(true).open(name)
    }

    /// Opens the shared memory of this name, of at least that size, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn create(name: &str, size_bytes: u64) -> Result<PosixShm> {
        PosixShm::create_in(&Namespace::kernel(), name, size_bytes)
    }

    /// [`PosixShm::create`] in another home.
    ///
    /// # Errors
    /// See [`PosixShmOptions::open`].
    pub fn create_in(namespace: &Namespace, name: &str, size_bytes: u64) -> Result<PosixShm> {
        PosixShm::options().namespace(namespace).create(true).size(size_bytes).open(name)
    }

    /// Takes the name away; the memory goes with its last user. `shm_unlink(3)`.
    ///
    /// # Errors
    /// `ENOENT`: there is none. `EACCES`, `EPERM`: it is another user's. `EINVAL`: no such name is allowed.
    pub fn remove(name: &str) -> Result<()> {
        PosixShm::remove_in(&Namespace::kernel(), name)
    }

    /// [`PosixShm::remove`] in another home.
    ///
    /// # Errors
    /// As [`PosixShm::remove`].
    pub fn remove_in(namespace: &Namespace, name: &str) -> Result<()> {
        let object = label(name);
        let path = path(namespace, name, "shm_unlink", &object)?;
        let outcome = match namespace.user() {
            None => rustix::fs::unlink(path),
            Some(home) => engine::PosixShm::unlink(home, name.as_bytes()),
        };
        outcome.map_err(|errno| {
            // As glibc has it: in a sticky directory it is the caller who lacks access.
            let errno = if errno == Errno::PERM { Errno::ACCESS } else { errno };
            explain(namespace, Error::new("shm_unlink", errno, &object))
        })
    }

    /// The names of all there are, sorted: the files in `/dev/shm` but for semaphores.
    ///
    /// # Errors
    /// As `readdir(3)`: `ENOENT` where there is no `/dev/shm`.
    pub fn list() -> Result<Vec<String>> {
        let failed = |error| Error::from_io("readdir", &error, &Label::from(DIRECTORY));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(DIRECTORY).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_file && !name.starts_with("sem.") {
                names.push(format!("/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }

    /// [`PosixShm::list`] of another home.
    ///
    /// # Errors
    /// As [`PosixShm::list`].
    pub fn list_in(namespace: &Namespace) -> Result<Vec<String>> {
        match namespace.user() {
            None => PosixShm::list(),
            Some(_) => namespace.names(Named::PosixShm),
        }
    }

    /// Makes it that long, with memory for all of it. `posix_fallocate(3)`, `ftruncate(2)`.
    ///
    /// Mappings stay as they are: to see more, map again; what a mapping has beyond the new end is gone.
    ///
    /// # Errors
    /// `ENOSPC`: there is no memory for it; it stays as it was. `EBADF`, `EINVAL`: open for reading only. `EFBIG`:
    /// more than `RLIMIT_FSIZE` (the process gets `SIGXFSZ`). `EINTR`: a signal came while memory was reserved;
    /// nothing was.
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        backing::set_size(self.fd.as_fd(), size_bytes, Reserve::All, &self.object)
    }

    /// Makes it that long and reserves nothing: for memory of which only some pages will be used. `ftruncate(2)`.
    ///
    /// A page that is not to be had when it is first written is `EFAULT`.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL`: open for reading only. `EFBIG`: too large.
    pub fn resize_sparse(&self, size_bytes: u64) -> Result<()> {
        backing::set_size(self.fd.as_fd(), size_bytes, Reserve::Nothing, &self.object)
    }

    /// Maps all of it for reading and writing.
    ///
    /// # Errors
    /// `EACCES`: open for reading only. `EINVAL`: it has no bytes yet. `ENOMEM`: no address space.
    pub fn map(&self) -> Result<Mapping<ReadWrite>> {
        self.map_all()
    }

    /// Maps all of it for reading only.
    ///
    /// # Errors
    /// As [`PosixShm::map`].
    pub fn map_read_only(&self) -> Result<Mapping<ReadOnly>> {
        self.map_all()
    }

    /// Maps `len` bytes from `offset` on for reading and writing.
    ///
    /// # Errors
    /// As [`PosixShm::map`]; `EINVAL` too when it has no such bytes.
    pub fn map_range(&self, offset: u64, len: usize) -> Result<Mapping<ReadWrite>> {
        map_part(self.fd.as_fd(), Some((offset, len)), Kind::Shared, false, &self.object)
    }

    /// Its size, mode, owner and times. `fstat(2)`.
    ///
    /// # Errors
    /// None is known.
    pub fn status(&self) -> Result<Status> {
        backing::status(&self.fd, &self.object)
    }

    fn map_all<A: Access>(&self) -> Result<Mapping<A>> {
        map_part(self.fd.as_fd(), None, Kind::Shared, false, &self.object)
    }
}

impl AsFd for PosixShm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PosixShm> for OwnedFd {
    fn from(shm: PosixShm) -> OwnedFd {
        shm.fd
    }
}

fn label(name: &str) -> Label {
    Label::new(format!("posix-shm:{name}"))
}

fn directory(namespace: &Namespace) -> String {
    match namespace.path() {
        None => DIRECTORY.to_string(),
        Some(home) => format!("{}/{}", home.display(), Named::PosixShm.directory()),
    }
}

fn path(namespace: &Namespace, name: &str, operation: &'static str, object: &Label) -> Result<String> {
    let rest = name.strip_prefix('/').unwrap_or("");
    if rest.is_empty() || rest == "." || rest == ".." || rest.contains(['/', '\0']) {
        let why = "a name is a slash and then characters without one: /jobs";
        return Err(Error::invalid(operation, object, why));
    }
    if name.len() > 255 {
        return Err(Error::new(operation, Errno::NAMETOOLONG, object));
    }
    Ok(directory(namespace) + name)
}

fn explain(namespace: &Namespace, error: Error) -> Error {
    match error.raw() {
        Errno::NOENT => error.with_hint(format!(
            "there is none of this name (see `ls {}`); make it, or open with `create`",
            directory(namespace)
        )),
        Errno::EXIST => {
            error.with_hint("there is one of this name; open it without `create_new`, or remove it")
        }
        Errno::ACCESS => error.with_hint(format!(
            "its mode does not grant this user that; see `ls -l {}`",
            directory(namespace)
        )),
        Errno::UCLEAN => error.with_hint("a link stands there, which somebody may have planted"),
        Errno::LOOP => error.with_hint("the name is a symbolic link, which shared memory never is"),
        _ => error,
    }
}
