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
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::SystemTime;

use rustix::io::Errno;

use super::mapping::{Access, HugePages, Kind, Mapping, ReadOnly, ReadWrite, is_writable};
use crate::error::{Error, Label, Result};
use crate::sysv::{self, GetFlags, Key, Permissions};
use crate::wait::check;

const FAMILY: &str = "sysv-shm";

// Of <sys/shm.h>, not in libc.
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

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
#[derive(Clone, Copy, Debug)]
pub struct SysvSegmentOptions {
    flags: GetFlags,
    size_bytes: usize,
    huge_pages: Option<HugePages>,
    no_reserve: bool,
}

impl SysvSegmentOptions {
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

    /// Make it of huge pages (`SHM_HUGETLB`), of which the host must have some reserved.
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
        // SAFETY: shmget takes no pointers.
        match check(unsafe { libc::shmget(key.raw(), self.size_bytes, flags) }) {
            Ok(id) => Ok(SysvSegment {
                id: id as i32,
                object: sysv::label(FAMILY, key, id as i32),
                removed_by: None,
            }),
            Err(errno) => {
                Err(self.explain(Error::new("shmget", errno, &Label::new(format!("{FAMILY}:{key}"))), key))
            }
        }
    }

    fn explain(self, error: Error, key: Key) -> Error {
        match error.raw() {
            Errno::NOENT => error.with_hint("no segment has this key; make it first, or open with `create`"),
            Errno::EXIST => {
                error.with_hint("a segment with this key exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => {
                error.with_hint("its mode does not grant this user what was asked; see `ipcs -m -i ID`")
            }
            Errno::INVAL => error.with_hint(self.why_invalid(key)),
            Errno::NOSPC => error.with_hint(match limits() {
                Ok(limits) if limits.segments >= limits.segments_max => {
                    sysv::limit_hint("no more segments on this host", "kernel.shmmni")
                }
                _ => sysv::limit_hint("no more pages for segments on this host", "kernel.shmall"),
            }),
            Errno::NOMEM | Errno::PERM if self.huge_pages.is_some() => error.with_hint(HugePages::HINT),
            _ => error,
        }
    }

    fn why_invalid(self, key: Key) -> String {
        let size = self.size_bytes;
        // A private key never finds what exists, and asks for a new segment.
        let existing = if key.is_private() { None } else { SysvSegment::open(key).ok() };
        match existing.and_then(|existing| existing.status().ok()) {
            Some(existing) => format!(
                "a segment with this key exists and has {} bytes, fewer than {size}",
                existing.size_bytes
            ),
            None if size == 0 => "a new segment has at least one byte".to_string(),
            None => sysv::limit_hint(&format!("{size} bytes"), "kernel.shmmax"),
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
        let address: *const c_void = ptr::with_exposed_provenance(self.address);
        // SAFETY: without SHM_REMAP nothing that is mapped is replaced.
        let base = unsafe { libc::shmat(segment.id, address, read_only | round | executable) };
        if base.addr() == usize::MAX {
            return Err(self.explain(Error::new("shmat", crate::error::last_errno(), &segment.object)));
        }
        // Asked after attaching: the id names what we have attached now, which nobody can take away any more.
        let size = segment.stat().map(|raw| raw.shm_segsz).inspect_err(|_| {
            // SAFETY: attached just now, and nobody knows of it.
            unsafe { libc::shmdt(base) };
        })?;
        let pages_len = size.next_multiple_of(rustix::param::page_size());
        // SAFETY: attached just now with that size and protection; only shmdt detaches it.
        unsafe { Mapping::adopt(base, pages_len, 0, size, Kind::Attached, &segment.object) }
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
        SysvSegmentOptions { flags: GetFlags::DEFAULT, size_bytes: 0, huge_pages: None, no_reserve: false }
    }

    /// Opens the segment with this key, which must exist.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn open(key: impl Into<Key>) -> Result<SysvSegment> {
        SysvSegment::options().open(key)
    }

    /// Opens the segment with this key, of at least that size, and makes it (mode 0600) if there is none.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn create(key: impl Into<Key>, size_bytes: usize) -> Result<SysvSegment> {
        SysvSegment::options().create(true).size(size_bytes).open(key)
    }

    /// Makes a segment without a key (mode 0600), removed when this handle is dropped.
    ///
    /// Other processes reach it by [`SysvSegment::id`], passed on to them, and [`SysvSegment::from_id`]. In a child
    /// made by `fork` the handle does not remove it. [`SysvSegment::keep`] lets it stay.
    ///
    /// # Errors
    /// See [`SysvSegmentOptions::open`].
    pub fn private(size_bytes: usize) -> Result<SysvSegment> {
        let mut segment = SysvSegment::options().size(size_bytes).open(Key::PRIVATE)?;
        segment.removed_by = Some(std::process::id());
        Ok(segment)
    }

    /// The segment with this id (`shmid`), which is not looked at before the first call on it.
    pub fn from_id(id: i32) -> SysvSegment {
        SysvSegment { id, object: sysv::label(FAMILY, Key::PRIVATE, id), removed_by: None }
    }

    /// The kernel's id (`shmid`): what `ipcs -m` shows and [`SysvSegment::from_id`] takes.
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
        Ok(Status::from_raw(self.id, &self.stat()?))
    }

    /// Changes owner, group and mode (`IPC_SET`): what `change` leaves out stays.
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: gone.
    pub fn set(&self, change: Change) -> Result<()> {
        let now = match self.status() {
            // An owner may change a segment that its mode does not let him read, and reading is what IPC_STAT asks for.
            Err(error) if error.raw() == Errno::ACCESS => {
                SysvSegment::list()?.into_iter().find(|status| status.id == self.id).ok_or(error)?
            }
            other => other?,
        };
        // SAFETY: a shmid_ds is numbers only, for which all zeros is a value.
        let mut raw: libc::shmid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
        raw.shm_perm.uid = change.uid.unwrap_or(now.permissions.uid);
        raw.shm_perm.gid = change.gid.unwrap_or(now.permissions.gid);
        raw.shm_perm.mode = change.mode.unwrap_or(now.permissions.mode) as _;
        self.control(libc::IPC_SET, &raw mut raw)
    }

    /// Keeps the segment's pages in memory, whoever uses it, once they are there (`SHM_LOCK`).
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator, or its `RLIMIT_MEMLOCK` is 0. `ENOMEM`: more than
    /// `RLIMIT_MEMLOCK` allows. `EINVAL`, `EIDRM`: gone.
    pub fn lock(&self) -> Result<()> {
        self.control(libc::SHM_LOCK, ptr::null_mut()).map_err(|error| match error.raw() {
            Errno::NOMEM => error.with_hint("see RLIMIT_MEMLOCK (`ulimit -l`)"),
            _ => error,
        })
    }

    /// Lets the segment's pages be paged out again (`SHM_UNLOCK`).
    ///
    /// # Errors
    /// As [`SysvSegment::lock`].
    pub fn unlock(&self) -> Result<()> {
        self.control(libc::SHM_UNLOCK, ptr::null_mut())
    }

    /// Removes the segment: its key at once, itself when the last process has detached it (`IPC_RMID`).
    ///
    /// # Errors
    /// `EPERM`: the caller is neither owner nor creator nor privileged. `EINVAL`, `EIDRM`: it is gone already.
    pub fn remove(&self) -> Result<()> {
        self.control(libc::IPC_RMID, ptr::null_mut())
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
        let object = Label::from(FAMILY);
        let mut info = MaybeUninit::<ShmInfo>::zeroed();
        // SAFETY: SHM_INFO fills a shm_info, which `info` is.
        let highest = check(unsafe { libc::shmctl(0, SHM_INFO, info.as_mut_ptr().cast()) })
            .map_err(|errno| Error::new("shmctl", errno, &object))?;
        let mut all = Vec::new();
        for index in 0..=highest as i32 {
            let mut raw = MaybeUninit::<libc::shmid_ds>::zeroed();
            // SAFETY: SHM_STAT_ANY takes an index for the id and fills a shmid_ds, which `raw` is.
            match check(unsafe { libc::shmctl(index, SHM_STAT_ANY, raw.as_mut_ptr()) }) {
                // SAFETY: filled by the call; a shmid_ds is numbers only.
                Ok(id) => all.push(Status::from_raw(id as i32, unsafe { raw.assume_init_ref() })),
                // No segment in this place of the table, or one that is just going.
                Err(Errno::INVAL | Errno::IDRM) => {}
                Err(errno) => return Err(Error::new("shmctl", errno, &object)),
            }
        }
        Ok(all)
    }

    fn stat(&self) -> Result<libc::shmid_ds> {
        // SAFETY: a shmid_ds is numbers only, for which all zeros is a value.
        let mut raw: libc::shmid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
        self.control(libc::IPC_STAT, &raw mut raw)?;
        Ok(raw)
    }

    /// `shmctl(2)`; the commands used here read or fill a `shmid_ds`, or use no buffer.
    fn control(&self, command: i32, buffer: *mut libc::shmid_ds) -> Result<()> {
        // SAFETY: the callers pass a pointer to a whole shmid_ds, or null where the command takes none.
        check(unsafe { libc::shmctl(self.id, command, buffer) })
            .map(drop)
            .map_err(|errno| self.explain(Error::new("shmctl", errno, &self.object)))
    }

    /// Whether the id no longer names a segment.
    fn is_gone(&self) -> bool {
        let mut raw = MaybeUninit::<libc::shmid_ds>::zeroed();
        // SAFETY: the buffer is a whole shmid_ds.
        let outcome = check(unsafe { libc::shmctl(self.id, libc::IPC_STAT, raw.as_mut_ptr()) });
        matches!(outcome, Err(Errno::INVAL | Errno::IDRM))
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            // EINVAL is the kernel's word for an id whose segment is gone.
            Errno::INVAL | Errno::IDRM if self.is_gone() => error.gone(),
            Errno::ACCESS => error.with_hint("its mode does not let this user do that; see `ipcs -m -i ID`"),
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

impl Status {
    fn from_raw(id: i32, raw: &libc::shmid_ds) -> Status {
        let flags = u32::from(raw.shm_perm.mode);
        Status {
            id,
            permissions: Permissions::from_raw(&raw.shm_perm),
            size_bytes: raw.shm_segsz as u64,
            attached: raw.shm_nattch,
            creator_pid: raw.shm_cpid,
            last_pid: raw.shm_lpid,
            last_attach: sysv::time(raw.shm_atime),
            last_detach: sysv::time(raw.shm_dtime),
            last_change: sysv::time(raw.shm_ctime),
            is_removed: flags & SHM_DEST != 0,
            is_locked: flags & SHM_LOCKED != 0,
        }
    }
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
    let fail = |errno| Error::new("shmctl", errno, &Label::from(FAMILY));
    let mut max = ShmMax::default();
    // SAFETY: IPC_INFO fills a shminfo, which `max` is.
    check(unsafe { libc::shmctl(0, libc::IPC_INFO, (&raw mut max).cast()) }).map_err(fail)?;
    let mut used = ShmInfo::default();
    // SAFETY: SHM_INFO fills a shm_info, which `used` is.
    check(unsafe { libc::shmctl(0, SHM_INFO, (&raw mut used).cast()) }).map_err(fail)?;
    Ok(Limits {
        size_bytes_max: max.shmmax,
        segments_max: max.shmmni,
        pages_max: max.shmall,
        segments: used.used_ids.try_into().unwrap_or(0),
        pages: used.shm_tot,
        pages_resident: used.shm_rss,
        pages_swapped: used.shm_swp,
    })
}

/// `struct shminfo` of `<sys/shm.h>`.
#[repr(C)]
#[derive(Default)]
struct ShmMax {
    shmmax: libc::c_ulong,
    shmmin: libc::c_ulong,
    shmmni: libc::c_ulong,
    shmseg: libc::c_ulong,
    shmall: libc::c_ulong,
    reserved: [libc::c_ulong; 4],
}

/// `struct shm_info` of `<sys/shm.h>`.
#[repr(C)]
#[derive(Default)]
struct ShmInfo {
    used_ids: libc::c_int,
    shm_tot: libc::c_ulong,
    shm_rss: libc::c_ulong,
    shm_swp: libc::c_ulong,
    swap_attempts: libc::c_ulong,
    swap_successes: libc::c_ulong,
}
