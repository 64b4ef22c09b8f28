//! Descriptors that stand for an open queue where a program wants a number for it: the drop-in's `mqd_t`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::{PosixQueue, bell_name};
use crate::message::doorbell::bells;
use crate::namespace::{BELLS, Kind, Namespace};
use crate::segment::Segment;
use crate::{Errno, Result};

impl PosixQueue {
    /// Opens the queue whose file this is: open for the access with which the file is. Also one from
    /// [`PosixQueue::open_pollable`], as long as the queue has its name: then for all that its mode grants.
    ///
    /// # Errors
    /// `EBADF`: it is no queue of this namespace. `EMFILE`, `ENOMEM`.
    pub fn of_file(home: &Namespace, file: BorrowedFd<'_>) -> Result<PosixQueue> {
        let status = rustix::fs::fstat(file)?;
        let there = rustix::fs::fstat(home.root()?)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Fifo && status.st_dev == there.st_dev {
            return PosixQueue::of_bell(home, status.st_ino);
        }
        // Nothing is mapped of a file of another kind, or of another file system.
        if !FileType::from_raw_mode(status.st_mode).is_file() || status.st_dev != there.st_dev {
            return Err(Errno::BADF);
        }
        let access = rustix::fs::fcntl_getfl(file)?.bits() as i32 & libc::O_ACCMODE;
        let segment = Segment::of(reopened(file, OFlags::RDWR)?).map_err(|_| Errno::BADF)?;
        let bell = bell_name(&segment)?.open_or_make(home, segment.file()?).map_err(|_| Errno::BADF)?;
        PosixQueue::with(segment, bell, access).map_err(|_| Errno::BADF)
    }

    /// The queue whose FIFO has that number. No other is opened on the way: to close a queue ends what is registered.
    fn of_bell(home: &Namespace, number: u64) -> Result<PosixQueue> {
        let number_of = |path: &[u8]| {
            let status = rustix::fs::statat(home.root()?, path, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok::<u64, Errno>(status.st_ino)
        };
        let bells = bells(home)?;
        let bell =
            bells.iter().find(|(name, _)| number_of(&[BELLS, "/", name].concat().into_bytes()) == Ok(number));
        let Some((_, file)) = bell else { return Err(Errno::BADF) };
        let place = Kind::PosixQueue.directory();
        for name in home.list_named(Kind::PosixQueue)? {
            if number_of(&[place.as_bytes(), b"/", &name].concat()) != Ok(*file) {
                continue;
            }
            let name = [b"/", &name[..]].concat();
            let open = |access| PosixQueue::open(home, &name, access, 0, None);
            let queue =
                open(libc::O_RDWR).or_else(|_| open(libc::O_RDONLY)).or_else(|_| open(libc::O_WRONLY));
            return queue.map_err(|_| Errno::BADF);
        }
        Err(Errno::BADF)
    }

    /// A descriptor of the queue's file, with an open file description of its own, that of `access` can do what it says
    /// (`O_RDONLY`, `O_WRONLY`, `O_RDWR`, `O_NONBLOCK`), and is told by [`PosixQueue::of_file`].
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn open_file(&self, access: i32) -> Result<OwnedFd> {
        let flags = access & (libc::O_ACCMODE | libc::O_NONBLOCK);
        reopened(self.segment.file()?, OFlags::from_bits_retain(flags as u32))
    }

    /// As [`PosixQueue::descriptor`], with an open file description of its own.
    ///
    /// # Errors
    /// As [`PosixQueue::descriptor`].
    pub fn open_pollable(&self) -> Result<OwnedFd> {
        reopened(self.descriptor()?.as_fd(), OFlags::RDWR | OFlags::NONBLOCK)
    }
}

fn reopened(file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
}
