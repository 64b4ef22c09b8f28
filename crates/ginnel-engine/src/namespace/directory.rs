//! Opening a namespace: what is refused, the `info` file, and private ones that go with their last user.
//!
//! # Private ones
//! Each user holds a shared `flock(2)` on the directory itself. Who leaves closes it, opens the directory anew and asks for
//! the lock exclusively: who gets it was the last, and removes the directory with all that is in it. A forked child shares
//! its parent's open file, so it counts until both are gone. The kernel gives the lock back for who is killed.
//!
//! The directory of a user's namespaces goes with the last of them, if it is as this library makes it. Who is just about to
//! make a namespace in it, and finds it gone, makes it again.
//!
//! # Crash points
//! | killed | what is left | who cleans up |
//! | --- | --- | --- |
//! | making one, before `info` is linked | a directory without it, holding nothing but empty directories | named: the next `create` goes on with it; private: the next sweep, as nobody holds its lock |
//! | using a private one | its directory | the next of that user's namespaces that is opened by name or made private, or `sweep` |
//! | removing one | part of it, without a lock | as above |

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat};

use super::Namespace;
use super::identity::{Kind, random};
use super::limits::Limits;
use crate::Errno;
use crate::descriptor::Kept;
use crate::segment::link;

const MEMORY_FILE_SYSTEM: &str = "/dev/shm";
const INFO: &str = "info";
pub(super) const PRIVATE_PREFIX: &str = "private-";
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// How often to make the directory of the user's namespaces again, or a private one.
const BASES_MAX: usize = 1000;

/// "ginnelns"
const INFO_MAGIC: u64 = u64::from_ne_bytes(*b"ginnelns");
const INFO_VERSION: u64 = 1;
/// Magic, version, PID namespace, private or not, limits.
const INFO_WORDS: usize = 4 + Limits::WORDS;

/// Why a directory is not opened as a namespace.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Namespace, Refusal};
///
/// assert_eq!(Namespace::options().open_named("none").unwrap_err().why, Refusal::Missing);
/// assert_eq!(Namespace::options().open_named(".").unwrap_err().why, Refusal::Name);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is none, and none was to be made.
    Missing,
    /// A name that cannot be a directory's beside others.
    Name,
    /// A symbolic link stands there.
    Link,
    /// Something else than a directory stands there.
    NotADirectory,
    /// Not in a memory file system (tmpfs).
    NotMemory,
    /// It belongs to somebody who could replace what is in it.
    Owner {
        /// Whose it is.
        owner: u32,
    },
    /// Others may write to it and remove what is not theirs: it lacks the sticky bit.
    Writable {
        /// Its permission bits.
        mode: u32,
    },
    /// There are things in it that are not a namespace's.
    Foreign,
    /// Its `info` file was made by somebody else, is a link, or does not hold what it must.
    Info,
    /// It was made by another version of this library.
    Version {
        /// Which.
        version: u64,
    },
    /// It was made in another PID namespace: the thread ids in its objects mean other threads here.
    PidNamespace,
    /// Limits that cannot be.
    Limits,
    /// A system call failed.
    System {
        /// Which.
        call: &'static str,
        /// How.
        errno: Errno,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let me = rustix::process::geteuid().as_raw();
        match self {
            Refusal::Missing => f.write_str("there is no such namespace"),
            Refusal::Name => f.write_str("a namespace's name is 1 to 200 bytes, without `/`, not beginning with `.`"),
            Refusal::Link => f.write_str("a symbolic link stands there, which somebody may have planted"),
            Refusal::NotADirectory => f.write_str("it is not a directory"),
            Refusal::NotMemory => f.write_str("it is not in a memory file system: use a directory under /dev/shm"),
            Refusal::Owner { owner } => write!(
                f,
                "it belongs to user {owner}, not to you (user {me}) or root; its owner could replace every object in it"
            ),
            Refusal::Writable { mode } => write!(
                f,
                "others may remove what is not theirs from it (mode {mode:o}): a shared directory needs the sticky bit, \
                 mode 1777"
            ),
            Refusal::Foreign => f.write_str("it holds things that are not a namespace's"),
            Refusal::Info => f.write_str("its file `info` is not one that its owner made with this library"),
            Refusal::Version { version } => {
                write!(f, "it has version {version} of the layout, and this library knows {INFO_VERSION}")
            }
            Refusal::PidNamespace => {
                f.write_str("it was made in another PID namespace (another container), whose processes cannot be told apart here")
            }
            Refusal::Limits => f.write_str("its limits are beyond what is possible"),
            Refusal::System { call, errno } => write!(f, "{call}: {errno}"),
        }
    }
}

/// A directory that was not opened as a namespace, and why.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Namespace, Refusal};
///
/// let error = Namespace::options().open("/etc").unwrap_err();
/// assert_eq!(error.why, Refusal::NotMemory);
/// assert_eq!(
///     error.to_string(),
///     "namespace /etc: it is not in a memory file system: use a directory under /dev/shm"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// Which directory.
    pub path: PathBuf,
    /// Why not.
    pub why: Refusal,
}

impl OpenError {
    /// The errno that comes closest.
    pub fn errno(&self) -> Errno {
        match &self.why {
            Refusal::Missing => Errno::NOENT,
            Refusal::Name | Refusal::Limits => Errno::INVAL,
            Refusal::Link => Errno::LOOP,
            Refusal::NotADirectory => Errno::NOTDIR,
            Refusal::NotMemory => Errno::OPNOTSUPP,
            Refusal::Owner { .. } | Refusal::Writable { .. } => Errno::PERM,
            Refusal::Foreign => Errno::NOTEMPTY,
            Refusal::Info => Errno::UCLEAN,
            Refusal::Version { .. } => Errno::PROTONOSUPPORT,
            Refusal::PidNamespace => Errno::XDEV,
            Refusal::System { errno, .. } => *errno,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for OpenError {}

/// How to open or make a [`Namespace`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Limits, Namespace};
///
/// let limits = Limits { msgmnb: 1 << 20, ..Limits::default() };
/// let made = Namespace::options().create(true).limits(limits).open_named("jobs")?;
/// let opened = Namespace::options().open_named("jobs")?;
/// assert_eq!(opened.limits().msgmnb, 1 << 20);
/// # Ok::<(), ginnel_engine::namespace::OpenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    create: bool,
    mode: u32,
    limits: Limits,
    owner: Option<u32>,
}

impl Options {
    pub(super) fn new() -> Options {
        Options { create: false, mode: 0o700, limits: Limits::default(), owner: None }
    }

    /// Make it if there is none; but not with a name that begins with `private-`.
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// The directory's mode if it is made: 0700 unless said otherwise, 01777 for one that everybody shares. Bits for writing
    /// that are not the owner's need the sticky bit (01000).
    pub fn mode(mut self, mode: u32) -> Options {
        self.mode = mode;
        self
    }

    /// The limits of what is made. One that is there keeps its own.
    pub fn limits(mut self, limits: Limits) -> Options {
        self.limits = limits;
        self
    }

    /// Trust a directory of this user too, as one's own and root's are trusted: its owner can remove and replace each object
    /// in it.
    pub fn owned_by(mut self, uid: u32) -> Options {
        self.owner = Some(uid);
        self
    }

    /// Opens the namespace that is this directory, which must be in a tmpfs.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Namespace, OpenError> {
        let path = path.as_ref();
        let refused = |why| OpenError { path: path.to_owned(), why };
        // It is found again when it is left, wherever the process has gone meanwhile.
        let whole = std::path::absolute(path).map_err(|_| refused(Refusal::Name))?;
        self.open_directory(&whole, false).map_err(refused)
    }

    /// Opens the namespace of this name among the user's own: `/dev/shm/ginnel-<uid>/<name>`.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open_named(&self, name: &str) -> Result<Namespace, OpenError> {
        let base = base();
        let path = base.join(name);
        let fits = !name.is_empty() && name.len() <= 200 && !name.starts_with('.');
        if !fits || name.contains(['/', '\0']) {
            return Err(OpenError { path, why: Refusal::Name });
        }
        let mut outcome = Err(OpenError { path: path.clone(), why: Refusal::Missing });
        let makes = self.create && !name.starts_with(PRIVATE_PREFIX);
        for _ in 0..if makes { BASES_MAX } else { 1 } {
            outcome = open_base(&base, self.create)
                .map_err(|why| OpenError { path: base.clone(), why })
                .and_then(|_| {
                    sweep_base(&base, false);
                    self.open(&path)
                });
            if !matches!(&outcome, Err(error) if is_gone(&error.why)) {
                break;
            }
        }
        outcome
    }

    /// Makes a namespace of a random name, which goes with its last user.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn private(&self) -> Result<Namespace, OpenError> {
        let base = base();
        let refused = |why| OpenError { path: base.clone(), why };
        let options = Options { create: true, mode: 0o700, ..self.clone() };
        // Again if a sweep of another process took the new directory for a dead one's, or the base for a left one.
        for nth in 0..BASES_MAX {
            match open_base(&base, true) {
                Err(why) if is_gone(&why) => continue,
                outcome => drop(outcome.map_err(refused)?),
            }
            if nth == 0 {
                sweep_base(&base, false);
            }
            let number = random().map_err(|errno| refused(Refusal::System { call: "getrandom", errno }))?;
            let path = base.join(format!("{PRIVATE_PREFIX}{number:016x}"));
            match options.open_directory(&path, true) {
                Err(why) if is_gone(&why) => {}
                outcome => return outcome.map_err(|why| OpenError { path, why }),
            }
        }
        Err(refused(Refusal::Missing))
    }

    fn open_directory(&self, path: &Path, private: bool) -> Result<Namespace, Refusal> {
        if self.mode & 0o022 != 0 && self.mode & 0o1000 == 0 {
            return Err(Refusal::Writable { mode: self.mode });
        }
        if !self.limits.are_possible() {
            return Err(Refusal::Limits);
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let named_private = name.starts_with(PRIVATE_PREFIX.as_bytes());
        // What has such a name and no user is swept: none is made but by `private`.
        let create = self.create && named_private == private;
        if create && rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT) {
            in_memory(open_parent(path)?.as_fd())?;
            make_directory(CWD, path.as_os_str().as_bytes(), self.mode)?;
        }
        let directory = open_checked(CWD, path.as_os_str().as_bytes(), self.owner)?;
        let space = pid_namespace()?;
        if private && !self.join(directory.as_fd())? {
            return Err(Refusal::Missing);
        }
        let owner = status(directory.as_fd())?.st_uid;
        let info = match read_info(directory.as_fd(), owner)? {
            Some(info) => info,
            None if !create => return Err(Refusal::Missing),
            None => {
                self.furnish(directory.as_fd(), space, private)?;
                read_info(directory.as_fd(), owner)?.ok_or(Refusal::Info)?
            }
        };
        if info.space != space {
            return Err(Refusal::PidNamespace);
        }
        for name in directories() {
            open_checked(directory.as_fd(), name.as_bytes(), Some(owner))?;
        }
        // Removed with all that is in it: so its name must say so too.
        if info.private && !named_private {
            return Err(Refusal::Info);
        }
        if info.private && !private && !self.join(directory.as_fd())? {
            return Err(Refusal::Missing);
        }
        Ok(Namespace {
            directory: Some(Kept::new(directory)),
            path: path.to_owned(),
            limits: info.limits,
            private: info.private,
        })
    }

    /// Becomes a user of a private namespace: whether it is still there.
    fn join(&self, directory: BorrowedFd<'_>) -> Result<bool, Refusal> {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockShared) {
            // Only who removes it holds it exclusively.
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(Refusal::System { call: "flock", errno }),
            Ok(()) => Ok(status(directory)?.st_nlink > 0),
        }
    }

    /// Makes what a namespace's directory holds, its `info` last.
    fn furnish(&self, directory: BorrowedFd<'_>, space: u64, private: bool) -> Result<(), Refusal> {
        let system = |call| move |errno| Refusal::System { call, errno };
        let status = status(directory)?;
        let me = rustix::process::geteuid();
        // Nobody makes a namespace of somebody else's directory, but root.
        if status.st_uid != me.as_raw() && !me.is_root() {
            return Err(Refusal::Missing);
        }
        for entry in Dir::read_from(directory).map_err(system("readdir"))? {
            let entry = entry.map_err(system("readdir"))?;
            let name = entry.file_name().to_bytes();
            let ours = directories().any(|directory| directory.as_bytes() == name);
            if !ours && !matches!(name, b"." | b"..") && name != INFO.as_bytes() {
                return Err(Refusal::Foreign);
            }
        }
        // A maker that was killed early has left it with the mode that it is born with.
        let mode = match status.st_mode & 0o7777 {
            0o700 => self.mode & 0o1777,
            mode => mode & 0o1777,
        };
        rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)).map_err(system("chmod"))?;
        for name in directories() {
            make_directory(directory, name.as_bytes(), mode)?;
            set_mode(directory, name.as_bytes(), mode)?;
        }
        let words =
            [INFO_MAGIC, INFO_VERSION, space, u64::from(private)].into_iter().chain(self.limits.words());
        let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        let mode = Mode::from_raw_mode(0o644);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let info = rustix::fs::openat(directory, ".", flags, mode).map_err(system("open"))?;
        rustix::fs::fchmod(&info, mode).map_err(system("chmod"))?;
        super::identity::write_all(&info, &bytes, 0).map_err(system("write"))?;
        match link(info.as_fd(), directory, c"info") {
            // Somebody else was first: that one's is read.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Refusal::System { call: "link", errno }),
        }
    }
}

/// What a namespace's directory has directories for.
fn directories() -> impl Iterator<Item = &'static str> {
    Kind::ALL.iter().map(|kind| kind.directory()).chain([super::BELLS])
}

struct Info {
    space: u64,
    private: bool,
    limits: Limits,
}

fn read_info(directory: BorrowedFd<'_>, owner: u32) -> Result<Option<Info>, Refusal> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, INFO, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Refusal::Info),
        Err(errno) => return Err(Refusal::System { call: "open", errno }),
    };
    let status = status(file.as_fd())?;
    let regular = FileType::from_raw_mode(status.st_mode).is_file() && status.st_nlink == 1;
    if !regular || (status.st_uid != owner && status.st_uid != 0) || status.st_mode & 0o022 != 0 {
        return Err(Refusal::Info);
    }
    let mut bytes = [0; INFO_WORDS * 8];
    let len =
        rustix::io::pread(&file, &mut bytes, 0).map_err(|errno| Refusal::System { call: "read", errno })?;
    let mut words = [0; INFO_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    if len < 16 || words[0] != INFO_MAGIC {
        return Err(Refusal::Info);
    }
    if words[1] != INFO_VERSION {
        return Err(Refusal::Version { version: words[1] });
    }
    let limits = Limits::from_words(&words[4..]).filter(Limits::are_possible).ok_or(Refusal::Info)?;
    if len != bytes.len() {
        return Err(Refusal::Info);
    }
    Ok(Some(Info { space: words[2], private: words[3] != 0, limits }))
}

/// Where the namespaces of the calling user are.
fn base() -> PathBuf {
    Path::new(MEMORY_FILE_SYSTEM).join(format!("ginnel-{}", rustix::process::geteuid().as_raw()))
}

fn open_base(base: &Path, create: bool) -> Result<OwnedFd, Refusal> {
    if create {
        make_directory(CWD, base.as_os_str().as_bytes(), 0o700)?;
    }
    let directory = open_checked(CWD, base.as_os_str().as_bytes(), None)?;
    let status = status(directory.as_fd())?;
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Refusal::Owner { owner: status.st_uid });
    }
    if status.st_mode & 0o022 != 0 {
        return Err(Refusal::Writable { mode: status.st_mode & 0o7777 });
    }
    Ok(directory)
}

/// Whether it may be that somebody has just removed a directory that was left.
fn is_gone(why: &Refusal) -> bool {
    matches!(why, Refusal::Missing | Refusal::System { errno: Errno::NOENT, .. })
}

/// Removes the directory of the calling user's namespaces if there is none in it, and nobody has given it another mode.
fn remove_base(base: &Path) {
    let as_made = rustix::fs::lstat(base).is_ok_and(|status| {
        let is_directory = FileType::from_raw_mode(status.st_mode).is_dir();
        is_directory
            && status.st_uid == rustix::process::geteuid().as_raw()
            && status.st_mode & 0o7777 == 0o700
    });
    if as_made {
        // It fails if it is not empty: so nothing can be lost.
        let _ = rustix::fs::rmdir(base);
    }
}

fn make_directory(at: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Refusal> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => set_mode(at, name, mode),
        // Its mode is its owner's business.
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Refusal::System { call: "mkdir", errno }),
    }
}

/// The umask, and a parent directory that hands its group on, have no say.
fn set_mode(at: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Err(Refusal::Missing),
        Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => return Err(what_stands_there(at, name, errno)),
        Err(errno) => return Err(Refusal::System { call: "open", errno }),
    };
    if status(directory.as_fd())?.st_mode & 0o7777 == mode {
        return Ok(());
    }
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))
        .map_err(|errno| Refusal::System { call: "chmod", errno })
}

/// Opens a directory and refuses what others could have planted or could tamper with.
fn open_checked(at: BorrowedFd<'_>, name: &[u8], trusted: Option<u32>) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Err(Refusal::Missing),
        Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => return Err(what_stands_there(at, name, errno)),
        Err(errno) => return Err(Refusal::System { call: "open", errno }),
    };
    let status = status(directory.as_fd())?;
    let me = rustix::process::geteuid().as_raw();
    if status.st_uid != me && status.st_uid != 0 && Some(status.st_uid) != trusted {
        return Err(Refusal::Owner { owner: status.st_uid });
    }
    if status.st_mode & 0o022 != 0 && status.st_mode & 0o1000 == 0 {
        return Err(Refusal::Writable { mode: status.st_mode & 0o7777 });
    }
    in_memory(directory.as_fd())?;
    Ok(directory)
}

fn in_memory(directory: BorrowedFd<'_>) -> Result<(), Refusal> {
    let system = rustix::fs::fstatfs(directory).map_err(|errno| Refusal::System { call: "statfs", errno })?;
    // Other memory file systems cannot reserve space: to write to what is mapped could be a SIGBUS.
    if system.f_type as u64 == TMPFS_MAGIC { Ok(()) } else { Err(Refusal::NotMemory) }
}

fn open_parent(path: &Path) -> Result<OwnedFd, Refusal> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match rustix::fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Err(Refusal::Missing),
        outcome => outcome.map_err(|errno| Refusal::System { call: "open", errno }),
    }
}

/// `O_DIRECTORY` and `O_NOFOLLOW` together say `ENOTDIR` of a link too.
fn what_stands_there(at: BorrowedFd<'_>, name: &[u8], errno: Errno) -> Refusal {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) if FileType::from_raw_mode(status.st_mode).is_symlink() => Refusal::Link,
        Ok(_) if errno == Errno::NOTDIR => Refusal::NotADirectory,
        Ok(_) | Err(_) => Refusal::System { call: "open", errno },
    }
}

fn status(file: BorrowedFd<'_>) -> Result<Stat, Refusal> {
    rustix::fs::fstat(file).map_err(|errno| Refusal::System { call: "stat", errno })
}

/// The inode that the kernel has for this process's PID namespace.
fn pid_namespace() -> Result<u64, Refusal> {
    rustix::fs::stat("/proc/self/ns/pid")
        .map(|status| status.st_ino)
        .map_err(|errno| Refusal::System { call: "stat /proc/self/ns/pid", errno })
}

/// Removes what killed users have left of private namespaces, or only looks for it.
fn sweep_base(base: &Path, dry_run: bool) -> Vec<PathBuf> {
    let Ok(directory) = open_base(base, false) else { return Vec::new() };
    let Ok(entries) = Dir::read_from(&directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_bytes().starts_with(PRIVATE_PREFIX.as_bytes()))
        .filter(|entry| remove_unused(directory.as_fd(), entry.file_name().to_bytes(), dry_run))
        .map(|entry| base.join(OsStr::from_bytes(entry.file_name().to_bytes())))
        .collect()
}

/// As `sweep_base`, in the place for the calling user's namespaces.
pub(super) fn sweep(dry_run: bool) -> Vec<PathBuf> {
    let base = base();
    let swept = sweep_base(&base, dry_run);
    if !dry_run {
        remove_base(&base);
    }
    swept
}

/// Leaves a private namespace, whose directory the caller has closed: the last one removes it.
pub(super) fn leave(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(directory) = rustix::fs::openat(CWD, parent, flags, Mode::empty())
        && remove_unused(directory.as_fd(), name.as_bytes(), false)
        && parent == base()
    {
        remove_base(parent);
    }
}

/// Removes a private namespace's directory if nobody uses it. Whether nobody did.
fn remove_unused(base: BorrowedFd<'_>, name: &[u8], dry_run: bool) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::openat(base, name, flags, Mode::empty()) else { return false };
    let mine =
        status(directory.as_fd()).is_ok_and(|status| status.st_uid == rustix::process::geteuid().as_raw());
    if !mine || rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    if dry_run {
        return true;
    }
    // The directory of this name cannot be another by now: only who holds this lock removes it.
    for name in directories() {
        if let Ok(inner) = rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            remove_files(inner.as_fd());
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR);
        }
    }
    remove_files(directory.as_fd());
    rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR).is_ok()
}

fn remove_files(directory: BorrowedFd<'_>) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let _ = rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty());
    }
}
