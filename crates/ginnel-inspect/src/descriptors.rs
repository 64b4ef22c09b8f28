//! A process's descriptor table, as `/proc/PID/fd` and `/proc/PID/fdinfo` have it: `proc_pid_fd(5)`, `proc_pid_fdinfo(5)`.
//!
//! A table is read entry by entry, so for a process that runs meanwhile it is not a snapshot: a descriptor that closes
//! during the reading is left out. For a stopped process it is exact.

use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The descriptor table of one process: each number, and what it leads to.
///
/// ```
/// use ginnel_inspect::descriptors::{Access, DescriptorTable, Kind};
///
/// let (reader, _writer) = std::io::pipe()?;
/// let table = DescriptorTable::read(std::process::id() as i32)?;
///
/// let descriptor = &table.descriptors[&std::os::fd::AsRawFd::as_raw_fd(&reader)];
/// assert_eq!((descriptor.kind, descriptor.access), (Kind::Pipe, Access::Read));
/// assert!(descriptor.target.starts_with("pipe:["));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DescriptorTable {
    /// The process.
    pub pid: i32,
    /// The descriptors by their number.
    pub descriptors: BTreeMap<i32, Descriptor>,
}

/// One entry of a descriptor table, with what the open file description behind it says.
///
/// ```
/// use ginnel_inspect::descriptors::{Access, DescriptorTable};
/// use std::io::{Seek, SeekFrom};
/// use std::os::fd::AsRawFd;
///
/// let mut file = std::fs::File::open("/etc/passwd")?;
/// file.seek(SeekFrom::Start(7))?;
/// let table = DescriptorTable::read(std::process::id() as i32)?;
///
/// let descriptor = &table.descriptors[&file.as_raw_fd()];
/// assert_eq!(descriptor.target, "/etc/passwd");
/// assert_eq!((descriptor.access, descriptor.offset, descriptor.close_on_exec), (Access::Read, 7, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// The text of the link in `/proc/PID/fd`: `pipe:[123]`, `/etc/passwd`, `socket:[456]`, `anon_inode:[eventfd]`.
    pub target: String,
    /// What sort of object it is.
    pub kind: Kind,
    /// How the description was opened.
    pub access: Access,
    /// Whether the descriptor closes at `execve(2)`. This belongs to the descriptor, all else to the description.
    pub close_on_exec: bool,
    /// The file offset in bytes; 0 where the object has none.
    pub offset: u64,
    /// The object itself. Two descriptors of one object may still be of different open file descriptions.
    #[serde(flatten)]
    pub object: ObjectId,
}

/// An object's device and inode numbers. All anonymous inodes of one sort share theirs.
///
/// ```
/// use ginnel_inspect::descriptors::{DescriptorTable, ObjectId};
/// use std::os::{fd::AsRawFd, unix::fs::MetadataExt};
///
/// let (one, two) = (std::fs::File::open("/etc")?, std::fs::File::open("/etc")?);
/// let table = DescriptorTable::read(std::process::id() as i32)?;
///
/// let object = table.descriptors[&one.as_raw_fd()].object;
/// assert_eq!(object, table.descriptors[&two.as_raw_fd()].object, "opened twice, and one directory");
/// let metadata = std::fs::metadata("/etc")?;
/// assert_eq!(object, ObjectId { device: metadata.dev(), inode: metadata.ino() });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectId {
    /// The device number, `st_dev`.
    pub device: u64,
    /// The inode number, `st_ino`.
    pub inode: u64,
}

/// What a descriptor leads to.
///
/// ```
/// use ginnel_inspect::descriptors::{DescriptorTable, Kind};
/// use std::os::fd::AsRawFd;
///
/// let null = std::fs::File::open("/dev/null")?;
/// let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
/// let table = DescriptorTable::read(std::process::id() as i32)?;
///
/// assert_eq!(table.descriptors[&null.as_raw_fd()].kind, Kind::CharacterDevice);
/// assert_eq!(table.descriptors[&socket.as_raw_fd()].kind, Kind::Socket);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character device: a terminal, `/dev/null`.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A pipe without a name: `pipe(2)`.
    Pipe,
    /// A pipe with a name: `fifo(7)`.
    Fifo,
    /// A socket of any family.
    Socket,
    /// Memory without a name: `memfd_create(2)`.
    Memfd,
    /// Something that exists as descriptors only: `eventfd(2)`, `epoll(7)`, `timerfd_create(2)`, `pidfd_open(2)`.
    Anonymous,
}

/// How an open file description may be used: `O_ACCMODE` and `O_PATH` of `open(2)`.
///
/// ```
/// use ginnel_inspect::descriptors::{Access, DescriptorTable};
/// use std::os::fd::AsRawFd;
///
/// let (reader, writer) = std::io::pipe()?;
/// let table = DescriptorTable::read(std::process::id() as i32)?;
///
/// assert_eq!(table.descriptors[&reader.as_raw_fd()].access, Access::Read);
/// assert_eq!(table.descriptors[&writer.as_raw_fd()].access, Access::Write);
/// assert_eq!(Access::ReadWrite.to_string(), "rw");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Access {
    /// `O_RDONLY`
    #[serde(rename = "r")]
    Read,
    /// `O_WRONLY`
    #[serde(rename = "w")]
    Write,
    /// `O_RDWR`
    #[serde(rename = "rw")]
    ReadWrite,
    /// `O_PATH`: neither read nor write, only a place in the file tree.
    #[serde(rename = "-")]
    Path,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::ReadWrite => "rw",
            Self::Path => "-",
        })
    }
}

impl DescriptorTable {
    /// Reads the table of the process `pid`.
    ///
    /// The caller's own table has one entry more than before the call: the descriptor that reads the directory.
    ///
    /// # Errors
    /// - `ENOENT`: there is no such process.
    /// - `EACCES`, `EPERM`: it is another user's, or it may not be dumped, and the caller lacks `CAP_SYS_PTRACE`.
    pub fn read(pid: i32) -> Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}/fd"));
        let failed = |error| Error::new("readdir", directory.display(), error);
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = match entry {
                Ok(entry) => entry.file_name(),
                Err(error) if is_gone(&error) => break,
                Err(error) => return Err(failed(error)),
            };
            let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            match Descriptor::read(pid, fd) {
                Ok(descriptor) => drop(descriptors.insert(fd, descriptor)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(Error::new("readlink", directory.join(name).display(), error)),
            }
        }
        Ok(Self { pid, descriptors })
    }
}

impl Descriptor {
    fn read(pid: i32, fd: i32) -> io::Result<Self> {
        let link = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        let target = fs::read_link(&link)?.to_string_lossy().into_owned();
        let metadata = fs::metadata(&link)?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
        let flags = field(&info, "flags:").and_then(|text| i32::from_str_radix(text, 8).ok()).unwrap_or(0);
        Ok(Self {
            kind: kind(&target, metadata.file_type()),
            target,
            access: access(flags),
            close_on_exec: flags & libc::O_CLOEXEC != 0,
            offset: field(&info, "pos:").and_then(|text| text.parse().ok()).unwrap_or(0),
            object: ObjectId { device: metadata.dev(), inode: metadata.ino() },
        })
    }
}

/// What comes after `name` on the line of `fdinfo` that starts with it.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn access(flags: i32) -> Access {
    if flags & libc::O_PATH != 0 {
        return Access::Path;
    }
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => Access::Read,
        libc::O_WRONLY => Access::Write,
        _ => Access::ReadWrite,
    }
}

fn kind(target: &str, file_type: fs::FileType) -> Kind {
    if file_type.is_fifo() {
        if Path::new(target).is_absolute() { Kind::Fifo } else { Kind::Pipe }
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_char_device() {
        Kind::CharacterDevice
    } else if file_type.is_block_device() {
        Kind::BlockDevice
    } else if target.starts_with("/memfd:") {
        Kind::Memfd
    } else if !Path::new(target).is_absolute() {
        Kind::Anonymous
    } else if file_type.is_dir() {
        Kind::Directory
    } else {
        Kind::File
    }
}

/// A descriptor that closed, or a process that ended, between the listing and the look.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
