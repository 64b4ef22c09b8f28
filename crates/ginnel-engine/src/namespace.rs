//! The directory that is the registry of a user-space home: `sysvipc(7)`, `mq_overview(7)`, `flock(2)`, `linkat(2)`.
//!
//! # What a user sees
//! A [`Namespace`] is a directory in a memory file system: `/dev/shm/ginnel-<uid>/<name>`, any other in a tmpfs, or a
//! private one that goes with its last user. It holds objects of six [`Kind`]s. System V objects have keys and ids and are
//! found, made, removed and asked as the kernel's are: the same results, the same errnos, in the same order. POSIX
//! objects have names, with the kernel's and glibc's rules for them.
//!
//! An object is a file, and its owner, group and mode are the file's: the kernel enforces them. What files cannot
//! express fails closed:
//! - To use a queue or a semaphore is to read and to write its memory: it needs both permissions, where the kernel's calls
//!   need one of them. With the permission to read alone, an object can be asked for its status.
//! - Who made an object but gave it away (which needs a privilege) has no more rights to its memory than others have.
//! - A directory shared with others is sticky, as `/tmp`: to remove an object takes its owner, the directory's, or root.
//!
//! Deliberate differences: ids are random, so that an id is not used again soon and nobody counts on the next one; the
//! number of objects is limited by the memory only.
//!
//! # How it works inside
//! ```text
//! info              made with the namespace: version, PID namespace, limits
//! msg/k.0000002a    the queue with key 0x2a
//! msg/i.12345       the queue with id 12345: the same file
//! sem/, shm/        as msg/
//! mq/jobs           the POSIX queue /jobs
//! psem/sem.lock     the POSIX semaphore /lock
//! pshm/pixels       the POSIX shared memory /pixels: a plain file
//! bell/             the queues' FIFOs, for `poll`: see `message::doorbell`
//! ```
//! An object is made without a name (`O_TMPFILE`) and linked when it is whole. A System V object has two names, so its
//! life has steps; each is taken under an exclusive `flock(2)` on the object's own file, which the kernel takes back from
//! the dead:
//!
//! | step | names | state | who sees it |
//! | --- | --- | --- | --- |
//! | 1 made | none | 0 | nobody |
//! | 2 has its id | `i.` | 0 | half-made: for everybody, there is none |
//! | 3 has its key: it exists | `i.`, `k.` | 0 | everybody (without a key, step 2 is where it exists) |
//! | 4 marked: it is removed | `i.`, `k.` | removed | its users, as `EIDRM`; for everybody else there is none |
//! | 5 key given up | `i.` | removed | |
//! | 6 gone | none | removed | its users, until they close it |
//!
//! Which step it is shows in the number of names and the state, so whoever meets a file between two steps with nobody
//! holding its `flock` completes it: step 2 backwards, steps 4 and 5 forwards. A name is taken away only under the lock
//! of the file that it leads to: so it cannot lead to another by then.
//!
//! # For those who build objects
//! [`Namespace::get`] makes or finds, [`Namespace::open_id`] opens, [`Namespace::remove_id`] removes; for POSIX
//! [`Namespace::open_or_create`] and [`Namespace::unlink_named`]. One load of [`state`] tells each later call on an open
//! object whether it was removed or its permissions were changed.
//!
//! # Crash points
//! Those of the table above, and: `IPC_SET` changes owner and group first and mode next; killed between the two, it
//! has done the one and not the other. Who may not open its own object (mode 0) gets it by changing the mode for a moment;
//! killed then, the owner keeps the permission. For the directory itself see `namespace/directory.rs`.

mod collect;
mod directory;
mod identity;
mod limits;
mod posix;
mod sysv;
mod unused;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, Stat};

pub use collect::{Finding, What};
pub use directory::{OpenError, Options, Refusal};
pub use identity::{DOOMED, Kind, REMOVED, STATE_OFFSET, mark_removed, state};
pub(crate) use identity::{Identity, Rights, may_access, now, random, write_all};
pub use limits::Limits;
pub use sysv::{Change, Listed, Status};
pub use unused::{Doubt, Unseen, Unused};

use crate::descriptor::Kept;
use crate::segment::Segment;
use crate::{Errno, Result};

/// The directory of the queues' FIFOs.
pub(crate) const BELLS: &str = "bell";

/// A directory that holds objects.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Kind, Namespace};
///
/// let home = Namespace::options().create(true).open_named("example")?;
/// let flags = libc::IPC_CREAT | 0o600;
/// let id = home.get(Kind::SysvQueue, 0x2a, flags, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
///
/// let again = home.get(Kind::SysvQueue, 0x2a, 0, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
/// assert_eq!(again, id, "found by its key");
/// assert!(home.open_id(Kind::SysvQueue, id).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Namespace {
    /// None once it has been closed: only while it is dropped.
    directory: Option<Kept>,
    path: std::path::PathBuf,
    limits: Limits,
    private: bool,
}

impl Namespace {
    /// How to open or make one.
    pub fn options() -> Options {
        Options::new()
    }

    /// Opens a directory that is a namespace.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(path: impl AsRef<Path>) -> std::result::Result<Namespace, OpenError> {
        Namespace::options().open(path)
    }

    /// Makes one with a random name, gone with its last user. Others join by opening its [`path`](Namespace::path); a forked
    /// child is a user too; a program that is executed must open it for itself.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn private() -> std::result::Result<Namespace, OpenError> {
        Namespace::options().private()
    }

    /// Removes what killed users have left of the calling user's private namespaces, unless this is a dry run: which.
    pub fn sweep(dry_run: bool) -> Vec<std::path::PathBuf> {
        directory::sweep(dry_run)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its objects may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it goes with its last user.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether the caller may do, with an object that is open, what these bits stand for (any of the mode's three digits):
    /// the kernel's rule, asked of the file as it is now.
    ///
    /// # Errors
    /// `EACCES`: it may not.
    pub fn allows(&self, segment: &Segment, bits: u32) -> Result<()> {
        identity::allows(segment, bits)
    }

    /// The directory at this path, if it still is the one it was: to complete a removal. Not a user of it.
    pub(crate) fn again(path: &Path, device: u64, inode: u64) -> Result<Namespace> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&directory)?;
        if (status.st_dev, status.st_ino) != (device, inode) {
            return Err(Errno::NOENT);
        }
        let path = path.to_owned();
        Ok(Namespace {
            directory: Some(Kept::new(directory)),
            path,
            limits: Limits::default(),
            private: false,
        })
    }

    pub(crate) fn root(&self) -> Result<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    /// Opens a file by its name in here, without following links and without waiting for a FIFO's other end.
    fn open_at(&self, path: &[u8], access: OFlags) -> Result<OwnedFd> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(self.root()?, path, flags, Mode::empty()) {
            // Something that is not ours was planted there.
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => Err(Errno::UCLEAN),
            outcome => outcome,
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.directory = None;
        if self.private {
            directory::leave(&self.path);
        }
    }
}

/// An object that is being made: a file without a name, of the right owner and mode.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Draft, Kind, Namespace};
/// use ginnel_engine::segment::{HEADER_BYTES, Segment};
///
/// fn counter(draft: &Draft<'_>) -> ginnel_engine::Result<Segment> {
///     draft.segment(1 << 20, |segment| {
///         segment.word64(HEADER_BYTES)?.store(1, std::sync::atomic::Ordering::Release);
///         Ok(())
///     })
/// }
///
/// let home = Namespace::private()?;
/// let id = home.get(Kind::SysvSemaphores, libc::IPC_PRIVATE, 0o600, 1, counter)?;
/// assert!(home.open_id(Kind::SysvSemaphores, id).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Draft<'n> {
    namespace: &'n Namespace,
    kind: Kind,
    mode: u32,
    /// System V knows no umask, POSIX does.
    masked: bool,
}

impl Draft<'_> {
    /// The file, empty, open for reading and writing.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory is not the caller's to write. `ENOSPC`, `EMFILE`.
    pub fn file(&self) -> Result<OwnedFd> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.mode & 0o777);
        let file = rustix::fs::openat(self.namespace.root()?, self.kind.directory(), flags, mode)?;
        if !self.masked {
            rustix::fs::fchmod(&file, mode)?;
        }
        Ok(file)
    }

    /// The file as a segment, filled by `fill`.
    ///
    /// # Errors
    /// As [`Segment::create`], and those of `fill`.
    pub fn segment(&self, capacity: usize, fill: impl FnOnce(&Segment) -> Result<()>) -> Result<Segment> {
        Segment::format(self.file()?, capacity, fill)
    }
}

/// How often a call looks again when it meets objects that others are just making or removing.
const RETRIES: usize = 10_000;

fn is_same(one: &Stat, other: &Stat) -> bool {
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
}
