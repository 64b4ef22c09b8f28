//! Names: `mq_open(3)`, `sem_open(3)`, `shm_open(3)` and their `unlink`, as far as they are the same for what they name.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};

use super::identity::{Identity, Kind, hash};
use super::sysv::regular;
use super::{Draft, Namespace, RETRIES};
use crate::memory::attachments;
use crate::segment::{Segment, link};
use crate::{Errno, Result};

/// The longest file name.
const NAME_MAX: usize = 255;

/// What is being done with a name: glibc's errors differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Open,
    Unlink,
}

/// The file's name, if the object's is one: as the kernel has it for queues, as glibc has it for the others.
fn file_name(kind: Kind, name: &[u8], purpose: Purpose) -> Result<Vec<u8>> {
    if name.contains(&0) {
        return Err(Errno::INVAL);
    }
    if kind == Kind::PosixQueue {
        let rest = name.strip_prefix(b"/").ok_or(Errno::INVAL)?;
        return match rest {
            b"" => Err(Errno::NOENT),
            b"." | b".." => Err(Errno::ACCESS),
            _ if rest.contains(&b'/') => Err(Errno::ACCESS),
            _ if rest.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(rest.to_vec()),
        };
    }
    let first = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
    let rest = &name[first..];
    let wrong = if purpose == Purpose::Open { Errno::INVAL } else { Errno::NOENT };
    let semaphore = kind == Kind::PosixSemaphore;
    let prefix = if semaphore { b"sem.".as_slice() } else { b"" };
    // glibc has room for the prefix of semaphores, and does not tell beyond that what is wrong.
    if rest.is_empty() || rest.contains(&b'/') || prefix.len() + rest.len() > NAME_MAX + 4 {
        return Err(wrong);
    }
    if !semaphore && matches!(rest, b"." | b"..") {
        return Err(if purpose == Purpose::Open { Errno::INVAL } else { Errno::ISDIR });
    }
    let file = [prefix, rest].concat();
    if file.len() > NAME_MAX { Err(Errno::NAMETOOLONG) } else { Ok(file) }
}

fn path(kind: Kind, file: &[u8]) -> Vec<u8> {
    [kind.directory().as_bytes(), b"/", file].concat()
}

impl Namespace {
    /// Opens a queue or semaphore by its name, or makes it: `mq_open(3)`, `sem_open(3)`. Also gives whether it was made.
    ///
    /// Of `flags` count `O_CREAT` and `O_EXCL`; `mode` loses the umask's bits. To open one that is there takes the permission
    /// to read and to write it, whatever it is opened for.
    ///
    /// # Errors
    /// `ENOENT`: there is none, and `O_CREAT` is not in `flags`. `EEXIST`: there is one, with `O_CREAT | O_EXCL`. `EACCES`.
    /// `EINVAL`, `ENAMETOOLONG`, and for queues `EACCES` and `ENOENT`: what is no name. `ENOSPC`. `EUCLEAN`: what stands
    /// there is no object of this name. What `make` fails with.
    pub fn open_or_create(
        &self,
        kind: Kind,
        name: &[u8],
        flags: i32,
        mode: u32,
        make: impl FnOnce(&Draft<'_>) -> Result<Segment>,
    ) -> Result<(Segment, bool)> {
        let file = file_name(kind, name, Purpose::Open)?;
        let path = path(kind, &file);
        let (creates, exclusive) = (flags & libc::O_CREAT != 0, flags & libc::O_EXCL != 0);
        if !(creates && exclusive) {
            match self.open_named_file(kind, &file, &path) {
                Err(Errno::NOENT) if creates => {}
                outcome => return outcome.map(|segment| (segment, false)),
            }
        } else if self.stat_at(&path).is_ok() {
            return Err(Errno::EXIST);
        }
        let made = make(&Draft { namespace: self, kind, mode, masked: true })?;
        let number = hash(&file);
        let mut identity = Identity::new(kind, (number >> 32) as i32, 0)?;
        identity.id = number as i32;
        identity.write(made.file()?)?;
        let name = std::ffi::CString::new(path.clone()).map_err(|_| Errno::INVAL)?;
        for _ in 0..RETRIES {
            match link(made.file()?, self.root()?, &name) {
                Ok(()) => return Ok((made, true)),
                Err(Errno::EXIST) if !exclusive => {}
                Err(errno) => return Err(errno),
            }
            match self.open_named_file(kind, &file, &path) {
                Err(Errno::NOENT) => {}
                outcome => return outcome.map(|segment| (segment, false)),
            }
        }
        Err(Errno::BUSY)
    }

    fn open_named_file(&self, kind: Kind, name: &[u8], path: &[u8]) -> Result<Segment> {
        let (file, status) = self.open_plain(path, OFlags::RDWR)?;
        let identity = Identity::read(&file)?;
        let number = hash(name);
        let matches = identity.kind == kind.number()
            && (identity.key as u32, identity.id as u32) == ((number >> 32) as u32, number as u32);
        if !matches || status.st_nlink > 1 {
            return Err(Errno::UCLEAN);
        }
        Segment::of(file)
    }

    /// Opens a regular file; one that has lost its name meanwhile is not there.
    fn open_plain(&self, path: &[u8], access: OFlags) -> Result<(OwnedFd, Stat)> {
        for _ in 0..RETRIES {
            let file = self.open_at(path, access)?;
            let status = regular(&file)?;
            if status.st_nlink > 0 {
                return Ok((file, status));
            }
        }
        Err(Errno::BUSY)
    }

    /// Takes a name away: `mq_unlink(3)`, `sem_unlink(3)`, `shm_unlink(3)`. Who has the object open keeps it.
    ///
    /// # Errors
    /// `ENOENT`: there is none. `EACCES`: it is not the caller's to remove. `ENAMETOOLONG`, and for queues `EINVAL` and
    /// `EACCES`: what is no name.
    pub fn unlink_named(&self, kind: Kind, name: &[u8]) -> Result<()> {
        let path = path(kind, &file_name(kind, name, Purpose::Unlink)?);
        rustix::fs::unlinkat(self.root()?, path, AtFlags::empty())
            .map_err(|errno| if errno == Errno::PERM { Errno::ACCESS } else { errno })
    }

    /// The objects of a kind: their names, without the slash.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn list_named(&self, kind: Kind) -> Result<Vec<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(self.root()?, kind.directory(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let file = entry.file_name().to_bytes();
            let name = if kind == Kind::PosixSemaphore { file.strip_prefix(b"sem.") } else { Some(file) };
            names.extend(name.filter(|_| !matches!(file, b"." | b"..")).map(<[u8]>::to_vec));
        }
        names.sort();
        Ok(names)
    }

    /// Opens or makes a plain file: `shm_open(3)`.
    pub(crate) fn open_shm_file(&self, name: &[u8], flags: i32, mode: u32) -> Result<OwnedFd> {
        let path = path(Kind::PosixShm, &file_name(Kind::PosixShm, name, Purpose::Open)?);
        let bits = OFlags::from_bits_retain(flags as u32) | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Not emptied before it is seen to be what its name says.
        let careful = (bits | OFlags::NOFOLLOW).difference(OFlags::TRUNC);
        let mode = Mode::from_raw_mode(mode & 0o777);
        let file = match rustix::fs::openat(self.root()?, path, careful, mode) {
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(Errno::UCLEAN),
            outcome => outcome?,
        };
        if regular(file.as_fd())?.st_nlink > 1 {
            return Err(Errno::UCLEAN);
        }
        if !bits.contains(OFlags::TRUNC) {
            return Ok(file);
        }
        attachments::open_again(file.as_fd(), bits.difference(OFlags::CREATE | OFlags::EXCL))
    }
}
