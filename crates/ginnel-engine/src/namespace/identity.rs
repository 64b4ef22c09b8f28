//! Which object a file is, in the words 0x010 to 0x040 of its header; and who may do what with it.
//!
//! ```text
//! 0x010  kind    u32   see `Kind`
//! 0x014  state   u32   bit 0 removed, bit 1 to go with its last attach; above: how often `IPC_SET` was done
//! 0x018  id      i32   System V: the id, then the key. POSIX: both words are a hash of the name
//! 0x01c  key     i32
//! 0x020  cuid    u32   who made it
//! 0x024  cgid    u32
//! 0x028  extent  u64   what the kind counts: semaphores of a set, bytes of a segment
//! 0x030  serial  u64   random: no other object ever has it
//! 0x038  ctime   i64   when it was made or `IPC_SET` last changed it
//! ```
//! The words are read from the file, not through a mapping: so a file of any content can be looked at. Whoever may write to
//! an object can write them too. That is why they decide nothing about other objects: a name is taken away only while it
//! is seen to be the same file's, and a file whose words do not match its name is `EUCLEAN`.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Stat;
use rustix::thread::CapabilitySet;

use crate::process;
use crate::segment::{MAGIC, Segment};
use crate::{Errno, Result};

/// The mechanisms whose objects have names in a namespace.
///
/// ```
/// use ginnel_engine::namespace::Kind;
///
/// assert_eq!(Kind::SysvQueue.directory(), "msg");
/// assert_eq!(Kind::ALL.len(), 6);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// System V message queue.
    SysvQueue,
    /// System V semaphore set.
    SysvSemaphores,
    /// System V shared memory segment.
    SysvSegment,
    /// POSIX message queue.
    PosixQueue,
    /// Named POSIX semaphore.
    PosixSemaphore,
    /// POSIX shared memory: a plain file.
    PosixShm,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::SysvQueue,
        Kind::SysvSemaphores,
        Kind::SysvSegment,
        Kind::PosixQueue,
        Kind::PosixSemaphore,
        Kind::PosixShm,
    ];

    /// The directory of the namespace that its objects' names stand in.
    pub const fn directory(self) -> &'static str {
        match self {
            Kind::SysvQueue => "msg",
            Kind::SysvSemaphores => "sem",
            Kind::SysvSegment => "shm",
            Kind::PosixQueue => "mq",
            Kind::PosixSemaphore => "psem",
            Kind::PosixShm => "pshm",
        }
    }

    /// Whether its objects have keys and ids, and not names.
    pub const fn is_sysv(self) -> bool {
        matches!(self, Kind::SysvQueue | Kind::SysvSemaphores | Kind::SysvSegment)
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Kind::SysvQueue => 1,
            Kind::SysvSemaphores => 2,
            Kind::SysvSegment => 3,
            Kind::PosixQueue => 4,
            Kind::PosixSemaphore => 5,
            Kind::PosixShm => 6,
        }
    }
}

/// How long a call waits for somebody else who is changing an object's names: a few system calls.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) const IDENTITY_OFFSET: usize = 0x10;
/// The header's word that says whether the object is removed, and that changes with each `IPC_SET`.
pub const STATE_OFFSET: usize = 0x14;
pub(crate) const CTIME_OFFSET: usize = 0x38;
/// Bit of the state: the object has been removed, each call on it is `EIDRM`.
pub const REMOVED: u32 = 1;
/// Bit of the state: a System V segment that goes with its last attach.
pub const DOOMED: u32 = 2;
/// What `IPC_SET` adds to the state.
pub(crate) const CHANGE: u32 = 4;

/// What the header says about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) kind: u32,
    pub(crate) state: u32,
    pub(crate) id: i32,
    pub(crate) key: i32,
    pub(crate) cuid: u32,
    pub(crate) cgid: u32,
    pub(crate) extent: u64,
    pub(crate) serial: u64,
    pub(crate) ctime: i64,
}

impl Identity {
    /// Of a new object, made by the calling process.
    pub(crate) fn new(kind: Kind, key: i32, extent: u64) -> Result<Identity> {
        Ok(Identity {
            kind: kind.number(),
            state: 0,
            id: 0,
            key,
            cuid: rustix::process::geteuid().as_raw(),
            cgid: rustix::process::getegid().as_raw(),
            extent,
            serial: random()?,
            ctime: now(),
        })
    }

    /// # Errors
    /// `EUCLEAN`: the file is not the engine's.
    pub(crate) fn read(file: impl AsFd) -> Result<Identity> {
        let mut head = [0; 0x40];
        if rustix::io::pread(file, &mut head, 0)? != head.len() {
            return Err(Errno::UCLEAN);
        }
        let word64 = |offset: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[offset..offset + 8]);
            u64::from_ne_bytes(bytes)
        };
        let word32 = |offset: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&head[offset..offset + 4]);
            u32::from_ne_bytes(bytes)
        };
        if word64(0) != MAGIC {
            return Err(Errno::UCLEAN);
        }
        Ok(Identity {
            kind: word32(0x10),
            state: word32(0x14),
            id: word32(0x18) as i32,
            key: word32(0x1c) as i32,
            cuid: word32(0x20),
            cgid: word32(0x24),
            extent: word64(0x28),
            serial: word64(0x30),
            ctime: word64(0x38) as i64,
        })
    }

    pub(crate) fn write(&self, file: impl AsFd) -> Result<()> {
        let mut bytes = Vec::with_capacity(0x30);
        for word in [self.kind, self.state, self.id as u32, self.key as u32, self.cuid, self.cgid] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for word in [self.extent, self.serial, self.ctime as u64] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        write_all(file, &bytes, IDENTITY_OFFSET)
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.state & REMOVED != 0
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.state & DOOMED != 0
    }
}

/// Bytes of a header, written in one call.
pub(crate) fn write_all(file: impl AsFd, bytes: &[u8], offset: usize) -> Result<()> {
    match rustix::io::pwrite(file, bytes, offset as u64)? {
        len if len == bytes.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// The state of the object, in one load: 0 as long as nobody removed it or changed its permissions. Where it differs
/// from what it was when the object was opened, and [`REMOVED`] is not set, ask [`Namespace::allows`] again.
///
/// [`Namespace::allows`]: crate::namespace::Namespace::allows
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Kind, Namespace, REMOVED, mark_removed, state};
///
/// let home = Namespace::private()?;
/// let id = home.get(Kind::SysvQueue, libc::IPC_PRIVATE, 0o600, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
/// let queue = home.open_id(Kind::SysvQueue, id)?;
/// assert_eq!(state(&queue), 0);
/// home.remove_id(Kind::SysvQueue, id, |queue| Ok(mark_removed(queue)))?;
/// assert_eq!(state(&queue) & REMOVED, REMOVED);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn state(segment: &Segment) -> u32 {
    segment.header32(STATE_OFFSET).load(Ordering::Acquire)
}

/// Marks an object as removed: there is no way back. For the closure of [`Namespace::remove_id`], under the object's lock.
///
/// [`Namespace::remove_id`]: crate::namespace::Namespace::remove_id
pub fn mark_removed(segment: &Segment) {
    segment.header32(STATE_OFFSET).fetch_or(REMOVED, Ordering::SeqCst);
}

/// Whether the caller is the object's owner or creator, or may act as such (`IPC_SET`, `IPC_RMID`).
pub(crate) fn may_control(status: &Stat, identity: Option<&Identity>) -> bool {
    let me = rustix::process::geteuid().as_raw();
    status.st_uid == me
        || identity.is_some_and(|identity| identity.cuid == me)
        || has(CapabilitySet::SYS_ADMIN)
}

/// The kernel's `ipcperms`: whether all of the bits in `flags` (any of its three digits) are granted.
pub(crate) fn may_access(status: &Stat, identity: Option<&Identity>, flags: u32) -> bool {
    let requested = (flags >> 6 | flags >> 3 | flags) & 7;
    let me = rustix::process::geteuid().as_raw();
    let of_user = status.st_uid == me || identity.is_some_and(|identity| identity.cuid == me);
    let granted = if of_user {
        status.st_mode >> 6
    } else if is_member(status.st_gid) || identity.is_some_and(|identity| is_member(identity.cgid)) {
        status.st_mode >> 3
    } else {
        status.st_mode
    };
    requested & !granted == 0 || has(CapabilitySet::IPC_OWNER)
}

/// Whether the caller may do what these bits stand for with an object that is open: asked of the file as it is now.
pub(crate) fn allows(segment: &Segment, bits: u32) -> Result<()> {
    let file = segment.file()?;
    let status = rustix::fs::fstat(file)?;
    let identity = Identity::read(file)?;
    if may_access(&status, Some(&identity), bits) { Ok(()) } else { Err(Errno::ACCESS) }
}

/// What the state of an open object was when its permissions were last seen to be enough for all.
#[derive(Debug)]
pub(crate) struct Rights {
    state: AtomicU32,
    /// As whom it was asked.
    credentials: AtomicU32,
}

impl Rights {
    /// Of an object that was just opened: for reading and writing.
    pub(crate) fn of(segment: &Segment) -> Rights {
        Rights {
            state: AtomicU32::new(state(segment) & !REMOVED),
            credentials: AtomicU32::new(process::credentials()),
        }
    }

    /// Whether the caller is who it was. To be asked before the lock is taken: so its first operation as somebody else takes
    /// it no more often than any.
    #[inline]
    pub(crate) fn are_the_callers(&self) -> bool {
        process::credentials() == self.credentials.load(Ordering::Relaxed)
    }

    /// Whether the object was neither removed nor its permissions changed since.
    #[inline]
    pub(crate) fn hold(&self, segment: &Segment) -> bool {
        state(segment) == self.state.load(Ordering::Relaxed)
    }

    /// Whether the caller may still do what these bits stand for (any of the mode's three digits). A removal is not looked
    /// at.
    ///
    /// # Errors
    /// `EACCES`.
    #[inline]
    pub(crate) fn check(&self, segment: &Segment, bits: u32) -> Result<()> {
        if self.are_the_callers() && self.hold(segment) { Ok(()) } else { self.ask(segment, bits) }
    }

    #[cold]
    fn ask(&self, segment: &Segment, bits: u32) -> Result<()> {
        let (now, credentials) = (state(segment) & !REMOVED, process::credentials());
        allows(segment, bits)?;
        if allows(segment, 0o666).is_ok() {
            self.state.store(now, Ordering::Relaxed);
            self.credentials.store(credentials, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_member(group: u32) -> bool {
    rustix::process::getegid().as_raw() == group
        || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|one| one.as_raw() == group))
}

pub(crate) fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// A number that nobody can guess.
pub(crate) fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(len) => filled += len,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(u64::from_ne_bytes(bytes))
}

pub(crate) fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec
}

/// A name's hash, for the words of id and key (FNV-1a): binds a POSIX object's file to its name.
pub(crate) fn hash(name: &[u8]) -> u64 {
    name.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The exclusive lock on an object's file (`flock(2)`), under which its names are given and taken away.
pub(crate) struct Naming<'f>(BorrowedFd<'f>);

impl<'f> Naming<'f> {
    /// Waits for it: whoever has it is about to name the object, or to take its names away.
    ///
    /// # Errors
    /// `EBUSY`: that takes longer than it ever should. The other process has been stopped in the middle of it, or whoever
    /// may read the file keeps the lock out of malice.
    pub(crate) fn lock(file: BorrowedFd<'f>) -> Result<Naming<'f>> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(20);
        loop {
            match Naming::try_lock(file) {
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(pause),
                Err(Errno::WOULDBLOCK) => return Err(Errno::BUSY),
                outcome => return outcome,
            }
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    pub(crate) fn try_lock(file: BorrowedFd<'f>) -> Result<Naming<'f>> {
        rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Naming(file))
    }
}

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        // Not by closing: a child that another thread forked meanwhile has the file open too.
        let _ = rustix::fs::flock(self.0, rustix::fs::FlockOperation::Unlock);
    }
}
