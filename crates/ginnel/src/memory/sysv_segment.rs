//! System V shared memory segment: `shmget(2)`, `shmop(2)`, `shmctl(2)`.
//!
//! # What a user sees
//! A segment of a fixed size, reached by a [`Key`] or by its id, that outlives its processes. [`SysvSegment::attach`]
//! maps it; dropping the [`Mapping`] detaches it (`shmdt`), and so does the end of the process, `SIGKILL` included.
//!
//! Removal is deferred: [`SysvSegment::remove`] takes the key away at once, and the segment goes with its last attach.
//! Until then Linux (unlike other systems) still lets processes attach it by its id.
//!
//! A handle is an id: dropping it leaves the segment where it is. [`SysvSegment::private`] makes a segment that nobody
//! else can find by name; that one is removed with its handle, and lives on while somebody has it attached.
//!
//! Not here: `SHM_REMAP`, which replaces whatever is mapped at an address, and has no safe form.
//!
//! # How it works inside
//! The calls of the two homes are in `sysv_segment/kernel.rs` and `sysv_segment/user.rs`, under the same names.
#![allow(unsafe_code)]

mod kernel;
mod user;

use std::time::SystemTime;

use rustix::io::Errno;

use super::mapping::{Access, HugePages, Kind, Mapping, ReadOnly, ReadWrite, is_writable};
use crate::Namespace;
use crate::error::{Error, Label, Result};
use crate::sysv::{self, GetFlags, Key, Permissions};

const FAMILY: &str = "sysv-shm";

/// A System V shared memory segment.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::SysvSegment;
///
/// let segment = SysvSegment::private(1000)?;
/// let writer = segment.attach()?;
/// let reader = segment.attach_read_only()?;
///
/// writer.write_bytes(0, b"hello")?;
/// assert_eq!(reader.read_vec(..5)?, b"hello");
/// assert_eq!(segment.status()?.attached, 2);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct SysvSegment {
    namespace: Namespace,
    id: i32,
    object: Label,
    /// The process that removes the segment when it drops the handle. A forked child's copy does not.
    removed_by: Option<u32>,
}

/// How to open or make a [`SysvSegment`]: see [`SysvSegment::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::SysvSegment;
/// use ginnel::sysv::Key;
///
/// let segment = SysvSegment::options().create_new(true).mode(0o660).size(4096).open(Key::PRIVATE)?;
/// assert_eq!(segment.status()?.size_bytes, 4096);
/// segment.remove()?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SysvSegmentOptions {
    namespace: Namespace,
    flags: GetFlags,
    size_bytes: usize,
    huge_pages: Option<HugePages>,
    no_reserve: bool,
}

impl SysvSegmentOptions {
    /// In which home; the kernel's unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

    /// Make the segment if there is none with this key (`IPC_CREAT`); needs a [`size`](SysvSegmentOptions::size).
    pub fn create(mut self, create: bool) -> Self {
        self.flags.create = create;
        self
    }

    /// Make the segment, and fail with `EEXIST` if there is one already (`IPC_CREAT | IPC_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.flags.create_new = create_new;
        self
    }

    /// The permission bits of a segment that is made; 0600 unless said. The umask does not apply.
    pub fn mode(mut self, mode: u32) -> Self {
        self.flags.mode = mode;
        self
    }

    /// The size of a segment that is made; an existing one must have that many bytes at least. 0 unless said.
    pub fn size(mut self, size_bytes: usize) -> Self {
        self.size_bytes = size_bytes;
        self
    }

    /// Make it of huge pages (`SHM_HUGETLB`), of which the host must have some reserved. A user-space home has none.
    pub fn huge_pages(mut self, size: HugePages) -> Self {
        self.huge_pages = Some(size);
        self
    }

    /// Reserve no swap space for it (`SHM_NORESERVE`): a page may turn out not to be there when it is first used.
    pub fn no_reserve(mut self, no_reserve: bool) -> Self {
        self.no_reserve = no_reserve;
        self
    }

    /// Opens the segment with this key.
    ///
    /// # Errors
    /// `ENOENT`: no such segment, and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: the mode
    /// of the existing segment grants less than was asked for. `EINVAL`: the size is 0 for a new one, above
    /// `kernel.shmmax`, or above the existing one's. `ENOSPC`: the host has `kernel.shmmni` segments, or
    /// `kernel.shmall` pages in segments, already. `ENOMEM`: no memory, or no huge pages. `EPERM`: no right to huge
    /// pages.
    /// `ENOSYS`: a kernel without System V IPC.
    pub fn open(self, key: impl Into<Key>) -> Result<SysvSegment> {
        let key = key.into();
        let huge = self.huge_pages.map_or(0, |size| libc::SHM_HUGETLB | size.flags() as i32);
        let no_reserve = if self.no_reserve { libc::SHM_NORESERVE } else { 0 };
        let flags = self.flags.raw(key) | huge | no_reserve;
        let outcome = match self.namespace.user() {
            None => kernel::get(key.raw(), self.size_bytes, flags),
            Some(home) => user::get(home, key.raw(), self.size_bytes, flags),
        };
        match outcome {
            Ok(id) => Ok(SysvSegment::of(&self.namespace, id, key)),
            Err(errno) => {
                Err(self.explain(Error::new("shmget", errno, &Label::new(format!("{FAMILY}:{key}"))), key))
            }
        }
    }

    fn explain(&self, error: Error, key: Key) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint(format!(
                "no segment has this key{}; make it first, or open with `create`",
                self.namespace.inside()
            )),
            Errno::EXIST => {
                error.with_hint("a segment with this key exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint(match self.namespace.user() {
                None => "its mode does not grant this user what was asked; see `ipcs -m -i ID`",
                Some(_) => "its mode does not grant this user what was asked",
            }),
            Errno::INVAL => error.with_hint(self.why_invalid(key)),
            Errno::NOSPC => error.with_hint(kernel::no_space_hint()),
            Errno::NOMEM | Errno::PERM if self.huge_pages.is_some() => {
                error.with_hint(match self.namespace.user() {
                    None => HugePages::HINT,
                    Some(_) => "a user-space home has no huge pages",
                })
            }
            Errno::NOMEM if self.namespace.user().is_some() => {
                error.with_hint("the memory file system has no room for it; see `df`")
            }
            _ => error,
        }
    }

    fn why_invalid(&self, key: Key) -> String {
        let size = self.size_bytes;
        // A private key never finds what exists, and asks for a new segment.
        let existing = if key.is_private() { None } else { SysvSegment::open_in(&self.namespace, key).ok() };
        match existing.and_then(|existing| existing.status().ok()) {
            Some(existing) => format!(
                "a segment with this key exists and has {} bytes, fewer than {size}",
                existing.size_bytes
            ),
            None if size == 0 => "a new segment has at least one byte".to_string(),
            None => match self.namespace.user() {
                None => sysv::limit_hint(&format!("{size} bytes"), "kernel.shmmax"),
                Some(home) => user::size_hint(home, size),
            },
        }
    }
}

/// How to attach a [`SysvSegment`]: see [`SysvSegment::attach_options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::SysvSegment;
///
/// let segment = SysvSegment::private(4096)?;
/// let mapping = segment.attach_options().at(0x5000_0000_0123).round(true).attach()?;
/// assert_eq!(mapping.as_ptr() as usize, 0x5000_0000_0000);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions<'a> {
    segment: &'a SysvSegment,
    address: usize,
    round: bool,
    executable: bool,
}

impl AttachOptions<'_> {
    /// Attach at this address, where nothing may be mapped; the kernel chooses unless said. It is a multiple of
    /// `SHMLBA`, the page size, unless it is to be [rounded](AttachOptions::round).
    pub fn at(mut self, address: usize) -> Self {
        self.address = address;
        self
    }

    /// Round the address down to a multiple of `SHMLBA` (`SHM_RND`).
    pub fn round(mut self, round: bool) -> Self {
        self.round = round;
        self
    }

    /// Let the memory be executed (`SHM_EXEC`).
    pub fn executable(mut self, executable: bool) -> Self {
        self.executable = executable;
        self
    }

    /// Attaches it for reading and writing.
    ///
    /// # Errors
    /// `EACCES`: the mode does not grant it. `EINVAL`: the address is not a multiple of `SHMLBA`, or something is
    /// mapped there, or the segment is gone ([`Error::is_removed`]). `EIDRM`: gone. `ENOMEM`: no memory or address
    /// space.
    pub fn attach(self) -> Result<Mapping<ReadWrite>> {
        self.map()
    }

    /// Attaches it for reading only (`SHM_RDONLY`).
    ///
    /// # Errors
    /// As [`AttachOptions::attach`].
    pub fn attach_read_only(self) -> Result<Mapping<ReadOnly>> {
        self.map()
    }

    fn map<A: Access>(self) -> Result<Mapping<A>> {
        let segment = self.segment;
        let read_only = if is_writable::<A>() { 0 } else { libc::SHM_RDONLY };
        let round = if self.round { libc::SHM_RND } else { 0 };
        let executable = if self.executable { libc::SHM_EXEC } else { 0 };
        if self.round && self.address != 0 && self.address < rustix::param::page_size() {
            // The kernel takes it for an address that was asked for, and lets root have it.
            return Err(Error::invalid(
                "shmat",
                &segment.object,
                "the address rounds down to the null pointer",
            ));
        }
        let flags = read_only | round | executable;
        let (outcome, kind) = match segment.namespace.user() {
            None => (kernel::attach(segment.id, self.address, flags), Kind::Attached),
            Some(home) => (user::attach(home, segment.id, self.address, flags), Kind::AttachedByUs),
        };
        let base = outcome.map_err(|errno| self.explain(Error::new("shmat", errno, &segment.object)))?;
        // Asked after attaching: the id names what we have attached now, which nobody can take away any more.
        let size = match segment.look() {
            Ok(status) => status.size_bytes as usize,
            Err(errno) => {
                match segment.namespace.user() {
                    None => kernel::detach(base),
                    Some(_) => user::detach(base),
                }
                return Err(segment.failed(errno));
            }
        };
        let pages_len = size.next_multiple_of(rustix::param::page_size());
        // SAFETY: attached just now with that size and protection; only a detach ends that.
        unsafe { Mapping::adopt(base, pages_len, 0, size, kind, &segment.object) }
    }

    fn explain(self, error: Error) -> Error {
        let page_bytes = rustix::param::page_size();
        match error.raw() {
            Errno::INVAL if self.address != 0 && !self.segment.is_gone() => {
                if !self.round && !self.address.is_multiple_of(page_bytes) {
                    error.with_hint(format!(
                        "the address is not a multiple of {page_bytes}; `round` rounds it down"
                    ))
                } else {
                    error.with_hint("something is mapped there, or it is not an address for programs")
                }
            }
            Errno::NOMEM => error.with_hint("no memory or address space for it; see RLIMIT_AS"),
            _ => self.segment.explain(error),
        }
    }
}

impl SysvSegment {
    /// Opens a segment with every choice spelled out.
    pub fn options() -> SysvSegmentOptions {
        SysvSegmentOptions {
            namespace: Namespace::kernel(),
            flags: GetFlags::DEFAULT,
            size_bytes: 0,
            huge_pages: None,
            no_reserve: false,
        }
    }

    /// Opens the segment with this key, which must exist.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn open(key: impl Into<Key>) -> Result<SysvSegment> {
        SysvSegment::open_in(&Namespace::kernel(), key)
    }

    /// [`SysvSegment::open`] in another home.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn open_in(namespace: &Namespace, key: impl Into<Key>) -> Result<SysvSegment> {
        SysvSegment::options().namespace(namespace).open(key)
    }

    /// Opens the segment with this key, of at least that size, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn create(key: impl Into<Key>, size_bytes: usize) -> Result<SysvSegment> {
        SysvSegment::create_in(&Namespace::kernel(), key, size_bytes)
    }

    /// [`SysvSegment::create`] in another home.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn create_in(namespace: &Namespace, key: impl Into<Key>, size_bytes: usize) -> Result<SysvSegment> {
        SysvSegment::options().namespace(namespace).create(true).size(size_bytes).open(key)
    }

    /// Makes a segment without a key (mode 0600), removed when this handle is dropped.
    ///
    /// Other processes reach it by [`SysvSegment::id`], passed on to them, and [`SysvSegment::from_id`]. In a child
    /// made by `fork` the handle does not remove it. [`SysvSegment::keep`] lets it stay.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn private(size_bytes: usize) -> Result<SysvSegment> {
        SysvSegment::private_in(&Namespace::kernel(), size_bytes)
    }

    /// [`SysvSegment::private`] in another home.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn private_in(namespace: &Namespace, size_bytes: usize) -> Result<SysvSegment> {
        let options = SysvSegment::options().namespace(namespace).size(size_bytes);
        let mut segment = options.open(Key::PRIVATE)?;
        segment.removed_by = Some(std::process::id());
        Ok(segment)
    }

    /// The segment with this id (`shmid`), which is not looked at before the first call on it.
    pub fn from_id(id: i32) -> SysvSegment {
        SysvSegment::from_id_in(&Namespace::kernel(), id)
    }

    /// [`SysvSegment::from_id`] in another home.
    pub fn from_id_in(namespace: &Namespace, id: i32) -> SysvSegment {
        SysvSegment::of(namespace, id, Key::PRIVATE)
    }

    fn of(namespace: &Namespace, id: i32, key: Key) -> SysvSegment {
        let object = sysv::label(FAMILY, key, id);
        SysvSegment { namespace: namespace.clone(), id, object, removed_by: None }
    }

    /// Its id (`shmid`): what `ipcs -m` shows of the kernel's, and [`SysvSegment::from_id`] takes.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Lets the segment live on when the handle is dropped.
    pub fn keep(&mut self) {
        self.removed_by = None;
    }

    /// Attaches the segment for reading and writing.
    ///
    /// # Errors
    /// See [`AttachOptions::attach`].
    pub fn attach(&self) -> Result<Mapping<ReadWrite>> {
        self.attach_options().attach()
    }

    /// Attaches the segment for reading only; the kernel kills who writes there all the same (`SIGSEGV`).
    ///
    /// # Errors
    /// See [`AttachOptions::attach`].
    pub fn attach_read_only(&self) -> Result<Mapping<ReadOnly>> {
        self.attach_options().attach_read_only()
    }

    /// Attaches it with every choice spelled out.
    pub fn attach_options(&self) -> AttachOptions<'_> {
        AttachOptions { segment: self, address: 0, round: false, executable: false }
    }

    /// The segment's state: its size, who has used it, how many have it attached (`IPC_STAT`).
    ///
    /// # Errors
    /// `EACCES`: no read permission. `EINVAL`, `EIDRM`: gone.
    pub fn status(&self) -> Result<Status> {
        self.look().map_err(|errno| self.failed(errno))
    }

    /// Changes owner, group and mode (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: gone.
    pub fn set(&self, change: Change) -> Result<()> {
        let outcome = match self.namespace.user() {
            None => kernel::set(self.id, change),
            Some(home) => user::set(home, self.id, change),
        };
        outcome.map_err(|errno| self.failed(errno))
    }

    /// Keeps the segment's pages in memory, whoever uses it, once they are there (`SHM_LOCK`). In a user-space home that is
    /// noted and shown and no more: each process may [pin](Mapping::pin) what it has attached.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator, or its `RLIMIT_MEMLOCK` is 0. `ENOMEM`: more than
    /// `RLIMIT_MEMLOCK` allows. `EINVAL`, `EIDRM`: gone.
    pub fn lock(&self) -> Result<()> {
        self.set_locked(true).map_err(|error| match error.raw() {
            Errno::NOMEM => error.with_hint("see RLIMIT_MEMLOCK (`ulimit -l`)"),
            _ => error,
        })
    }

    /// Lets the segment's pages be paged out again (`SHM_UNLOCK`).
    ///
    /// # Errors
    /// As [`SysvSegment::lock`].
    pub fn unlock(&self) -> Result<()> {
        self.set_locked(false)
    }

    /// Removes the segment: its key at once, itself when the last process has detached it (`IPC_RMID`).
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it is gone already.
    pub fn remove(&self) -> Result<()> {
        let outcome = match self.namespace.user() {
            None => kernel::remove(self.id),
            Some(home) => user::remove(home, self.id),
        };
        outcome.map_err(|errno| self.failed(errno))
    }

    /// All segments of this IPC namespace, whoever may read them (`SHM_STAT_ANY`), in the order of the kernel's table.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::memory::SysvSegment;
    ///
    /// let segment = SysvSegment::private(64)?;
    /// let all = SysvSegment::list()?;
    /// assert!(all.iter().any(|status| status.id == segment.id()));
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EINVAL`: a kernel before 4.17. `ENOSYS`: one without System V IPC.
    pub fn list() -> Result<Vec<Status>> {
        SysvSegment::list_in(&Namespace::kernel())
    }

    /// [`SysvSegment::list`] of another home, where it shows what the caller may read, in the order of the ids.
    ///
    /// # Errors
    /// `EACCES`: the namespace's directory may not be read.
    pub fn list_in(namespace: &Namespace) -> Result<Vec<Status>> {
        let outcome = match namespace.user() {
            None => kernel::list(),
            Some(home) => user::list(home),
        };
        outcome.map_err(|errno| Error::new("shmctl", errno, &FAMILY.into()))
    }

    fn look(&self) -> Result<Status, Errno> {
        match self.namespace.user() {
            None => kernel::status(self.id),
            Some(home) => user::status(home, self.id),
        }
    }

    fn set_locked(&self, locked: bool) -> Result<()> {
        let outcome = match self.namespace.user() {
            None => kernel::lock(self.id, locked),
            Some(home) => user::lock(home, self.id, locked),
        };
        outcome.map_err(|errno| self.failed(errno))
    }

    /// Whether the id no longer names a segment.
    fn is_gone(&self) -> bool {
        matches!(self.look(), Err(Errno::INVAL | Errno::IDRM))
    }

    fn failed(&self, errno: Errno) -> Error {
        self.explain(Error::new("shmctl", errno, &self.object))
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            // EINVAL is the kernel's word for an id whose segment is gone.
            Errno::INVAL | Errno::IDRM if self.is_gone() => error.gone(),
            Errno::ACCESS => error.with_hint(match self.namespace.user() {
                None => "its mode does not let this user do that; see `ipcs -m -i ID`",
                Some(_) => "its mode does not let this user do that",
            }),
            Errno::PERM => error.with_hint("only its owner, its creator or root may do that"),
            _ => error,
        }
    }
}

impl Drop for SysvSegment {
    fn drop(&mut self) {
        if self.removed_by == Some(std::process::id()) {
            // Gone already is what was wanted.
            let _ = self.remove();
        }
    }
}

/// A segment's state: `struct shmid_ds` of `shmctl(2)`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::SysvSegment;
///
/// let segment = SysvSegment::private(1000)?;
/// let _mapping = segment.attach()?;
/// segment.remove()?;
///
/// let status = segment.status()?;
/// assert_eq!((status.size_bytes, status.attached, status.is_removed), (1000, 1, true));
/// assert_eq!(status.creator_pid, std::process::id() as i32);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id (`shmid`).
    pub id: i32,
    /// Owner, creator, mode, key. The key is [`Key::PRIVATE`] once the segment is marked for removal.
    pub permissions: Permissions,
    /// Its size, as asked for when it was made; it occupies whole pages.
    pub size_bytes: u64,
    /// How many times it is attached now (`shm_nattch`); a process may have attached it more than once.
    pub attached: u64,
    /// The process that made it. It may be gone, and its number in use again.
    pub creator_pid: i32,
    /// The last process that attached or detached it; 0 for none yet.
    pub last_pid: i32,
    /// When it was last attached.
    pub last_attach: Option<SystemTime>,
    /// When it was last detached.
    pub last_detach: Option<SystemTime>,
    /// When it was made or last [`set`](SysvSegment::set).
    pub last_change: Option<SystemTime>,
    /// It is removed, and goes with its last attach (`SHM_DEST`).
    pub is_removed: bool,
    /// Its pages stay in memory (`SHM_LOCKED`).
    pub is_locked: bool,
}

/// What [`SysvSegment::set`] is to change; `None` leaves it as it is.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::{SysvSegment, sysv_segment::Change};
///
/// let segment = SysvSegment::private(64)?;
/// segment.set(Change { mode: Some(0o640), ..Change::default() })?;
/// assert_eq!(segment.status()?.permissions.mode, 0o640);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// The new owner.
    pub uid: Option<u32>,
    /// The new group.
    pub gid: Option<u32>,
    /// The new permission bits.
    pub mode: Option<u32>,
}

/// The limits of this IPC namespace, and how much of them is used (`IPC_INFO`, `SHM_INFO`).
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::memory::{SysvSegment, sysv_segment::limits};
///
/// let _segment = SysvSegment::private(1 << 20)?;
/// let limits = limits()?;
/// assert!(limits.size_bytes_max >= 1 << 20);
/// assert!((1..=limits.segments_max).contains(&limits.segments));
/// assert!((1..=limits.pages_max).contains(&limits.pages));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes a segment may have (`kernel.shmmax`).
    pub size_bytes_max: u64,
    /// The most segments (`kernel.shmmni`).
    pub segments_max: u64,
    /// The most pages in all segments together (`kernel.shmall`).
    pub pages_max: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How many pages they have together, touched or not.
    pub pages: u64,
    /// How many of these are in memory.
    pub pages_resident: u64,
    /// How many are in swap.
    pub pages_swapped: u64,
}

/// The limits for segments, and what is used of them.
///
/// ```
/// let limits = ginnel::memory::sysv_segment::limits()?;
/// assert!(limits.segments <= limits.segments_max);
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// # Errors
/// `ENOSYS`: a kernel without System V IPC.
pub fn limits() -> Result<Limits> {
    limits_in(&Namespace::kernel())
}

/// [`limits`] of another home, where the numbers of segments and pages have none.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::Namespace;
/// use ginnel::memory::{SysvSegment, sysv_segment::limits_in};
///
/// let home = Namespace::private()?;
/// let _segment = SysvSegment::private_in(&home, 5000)?;
/// assert_eq!((limits_in(&home)?.segments, limits_in(&home)?.pages), (1, 2));
/// # Ok::<(), ginnel::Error>(())
/// ```
///
/// # Errors
/// `EACCES`: the namespace's directory may not be read.
pub fn limits_in(namespace: &Namespace) -> Result<Limits> {
    let outcome = match namespace.user() {
        None => kernel::limits(),
        Some(home) => user::limits(home),
    };
    outcome.map_err(|errno| Error::new("shmctl", errno, &FAMILY.into()))
}
