//! System V shared memory segment: `shmget(2)`, `shmop(2)`, `shmctl(2)`.
//!
//! # What a user sees
//! The kernel's calls: [`SysvSegment::get`] gives an id, [`SysvSegment::attach`] an address, [`SysvSegment::detach`] takes
//! that address. Removal is deferred as on Linux: the key is gone at once, the id stays usable while somebody has the
//! segment attached, the memory goes with the last attach. The number of attaches is right when it is asked for, also after
//! processes were killed, have forked, or have executed another program (see `attachments`).
//!
//! All space is reserved when the segment is made (`ENOMEM` if there is none, and nothing is made), but with
//! `SHM_NORESERVE`.
//!
//! Deliberate differences:
//! - If the last process that had a removed segment attached was *killed*, the memory comes back when somebody next
//!   asks for that id, lists the segments, collects what is left, or finds no space for a new one.
//! - Who may only read a segment leaves no trace in its times and in its last process.
//! - A part that the program itself unmaps by `munmap` counts as attached until it calls `shmdt` or ends.
//! - `SHM_LOCK` is noted and shown; pages of a file cannot be kept from being swapped out but by each process for itself.
//! - `SHM_HUGETLB` is `ENOMEM`; `SHM_EXEC` is `EACCES` where the memory file system is mounted `noexec`.
//!
//! # How it works inside
//! A file: the header's page, then the user's data, which is all that is mapped. The header is read and written as a file
//! is, so nothing in it can be a bad address:
//! ```text
//! 0x040  atime  i64
//! 0x048  lpid   u64
//! 0x050  dtime  i64
//! 0x058  cpid   u64
//! 0x060  flags  u64   bit 0: SHM_LOCK
//! 0x1000 the data
//! ```
//! An attach counts itself, then looks whether the segment is still there, then maps. Who destroys one keeps others from
//! counting themselves meanwhile.
//!
//! # Crash points
//! | killed | what is left |
//! | --- | --- |
//! | making one | see `namespace` |
//! | after counting, before mapping; after unmapping | nothing: the count dies with the process |
//! | after marking it for removal, before the key is gone | whoever meets the key, or the id, goes on |
//! | as the last one that has a marked one attached | the id, until somebody asks for it |
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::area::Area;
use super::attached::{Attached, FileId, Object, Table, file_id, table};
use super::attachments::{self, open_again};
use crate::namespace::{Change, Draft, Identity, Kind, Namespace, Status, may_access, now, write_all};
use crate::segment::{MAGIC, PAGE_BYTES};
use crate::{Errno, Result};

const KIND: Kind = Kind::SysvSegment;
const DATA_OFFSET: u64 = PAGE_BYTES as u64;
const ATIME_OFFSET: usize = 0x40;
const LPID_OFFSET: usize = 0x48;
const CPID_OFFSET: usize = 0x58;
const FLAGS_OFFSET: usize = 0x60;
const LOCKED: u64 = 1;
/// `SHMLBA`: addresses are multiples of it.
const BOUNDARY: usize = PAGE_BYTES;
/// How much is reserved in one call: a signal makes the kernel give back what the call has reserved so far.
const RESERVE_BYTES: u64 = 16 << 20;

/// Bit of [`SegmentStatus::mode`]: to be destroyed with the last attach.
pub const SHM_DEST: u32 = 0o1000;
/// Bit of [`SegmentStatus::mode`]: `SHM_LOCK` was called.
pub const SHM_LOCKED: u32 = 0o2000;

/// System V shared memory in a namespace: calls shaped as the kernel's.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::memory::sysv_segment::SysvSegment;
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// let id = SysvSegment::get(&home, 0x2a, 1000, libc::IPC_CREAT | 0o600)?;
/// let address = SysvSegment::attach(&home, id, 0, 0)?;
/// // SAFETY: a thousand bytes are attached there, and nobody else uses them.
/// unsafe { (address as *mut u8).write(7) };
/// assert_eq!(SysvSegment::status(&home, id)?.attached, 1);
///
/// SysvSegment::remove(&home, id)?;
/// assert!(SysvSegment::status(&home, id).is_ok(), "it goes with its last attach");
/// SysvSegment::detach(address)?;
/// assert_eq!(SysvSegment::status(&home, id).unwrap_err(), ginnel_engine::Errno::INVAL);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SysvSegment;

/// `struct shmid_ds`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::memory::sysv_segment::SysvSegment;
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// let id = SysvSegment::get(&home, libc::IPC_PRIVATE, 1000, 0o600)?;
/// let status = SysvSegment::status(&home, id)?;
/// assert_eq!((status.size_bytes, status.attached, status.mode), (1000, 0, 0o600));
/// assert_eq!(status.creator_process, std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStatus {
    /// Owner, group, key, and what else each System V object has.
    pub object: Status,
    /// The permission bits, [`SHM_DEST`] and [`SHM_LOCKED`].
    pub mode: u32,
    /// `shm_segsz`: as it was asked for.
    pub size_bytes: u64,
    /// `shm_nattch`.
    pub attached: u64,
    /// `shm_cpid`.
    pub creator_process: u32,
    /// `shm_lpid`: who last attached or detached it.
    pub last_process: u32,
    /// `shm_atime`: seconds since 1970, 0 for never.
    pub attach_time: i64,
    /// `shm_dtime`.
    pub detach_time: i64,
}

/// What all segments of a namespace are together: `SHM_INFO`.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::memory::sysv_segment::SysvSegment;
/// use ginnel_engine::namespace::Namespace;
///
/// let home = Namespace::private()?;
/// SysvSegment::get(&home, libc::IPC_PRIVATE, 5000, 0o600)?;
/// let usage = SysvSegment::usage(&home)?;
/// assert_eq!((usage.segments, usage.pages), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUsage {
    /// `used_ids`.
    pub segments: u64,
    /// `shm_tot`: pages of all segments.
    pub pages: u64,
    /// `shm_rss` and `shm_swp`: pages that take up memory.
    pub resident_pages: u64,
}

impl SysvSegment {
    /// Finds or makes a segment: `shmget(2)`. Gives its id.
    ///
    /// # Errors
    /// `EINVAL`: there is one, and it is smaller; or one is to be made, of 0 bytes or of more than the limit. `ENOENT`,
    /// `EEXIST`, `EACCES`: as [`Namespace::get`]. `ENOMEM`: no space; `SHM_HUGETLB`.
    pub fn get(namespace: &Namespace, key: i32, size_bytes: usize, flags: i32) -> Result<i32> {
        let size = size_bytes as u64;
        let make = |draft: &Draft<'_>| {
            if size == 0 || size > namespace.limits().shmmax || i64::try_from(size).is_err() {
                return Err(Errno::INVAL);
            }
            if flags & libc::SHM_HUGETLB != 0 {
                return Err(Errno::NOMEM);
            }
            let file = draft.file()?;
            match fill(file.as_fd(), size, flags & libc::SHM_NORESERVE == 0) {
                Err(Errno::NOSPC | Errno::NOMEM) => {
                    // What killed processes have left behind may be in the way.
                    namespace.list(KIND)?;
                    fill(file.as_fd(), size, flags & libc::SHM_NORESERVE == 0)?;
                }
                outcome => outcome?,
            }
            Ok(file)
        };
        namespace.get_with(KIND, key, flags, size, make, |file| Ok(file.as_fd()))
    }

    /// Attaches a segment: `shmat(2)`. Gives the address.
    ///
    /// `address` is 0 for any, `flags` are `SHM_RDONLY`, `SHM_EXEC`, `SHM_RND` and `SHM_REMAP`, which replaces what is
    /// mapped there.
    ///
    /// # Errors
    /// `EINVAL`: no such segment; an address that is not a multiple of the page, without `SHM_RND`; something is mapped
    /// there, without `SHM_REMAP`; `SHM_REMAP` without an address. `EACCES`. `EIDRM`: it was destroyed meanwhile. `ENOMEM`.
    /// `EUCLEAN`: its file is not as long as it must be.
    pub fn attach(namespace: &Namespace, id: i32, address: usize, flags: i32) -> Result<usize> {
        if id < 0 {
            return Err(Errno::INVAL);
        }
        let fixed = place(address, flags)?;
        let (protection, bits, access) = permissions(flags);
        let found = namespace.find(KIND, id, access)?;
        if !may_access(&found.status, Some(&found.identity), bits) {
            return Err(Errno::ACCESS);
        }
        let size = found.identity.extent;
        let len = length(size, found.status.st_size)?;
        if fixed.is_some_and(|(address, replaces)| !replaces && address.checked_add(size as usize).is_none())
        {
            return Err(Errno::INVAL);
        }
        let object = file_id(&found.status);
        let mut table = table();
        table.add(object, found.file.as_fd(), || {
            let root = rustix::fs::fstat(namespace.root()?)?;
            Ok((namespace.path().to_owned(), file_id(&root)))
        })?;
        let replaces = fixed.is_some_and(|(_, replaces)| replaces);
        let before = if replaces { Area::all() } else { Vec::new() };
        let mapped =
            still_there(found.file.as_fd()).and_then(|()| map(found.file.as_fd(), fixed, len, protection));
        let address = match mapped {
            Ok(address) => address,
            Err(errno) => {
                table.subtract(object);
                return Err(errno);
            }
        };
        let new = Attached { len, object };
        let replaced = if replaces { forget_replaced(&mut table, address, new, &before) } else { Vec::new() };
        table.attached.entry(address).or_default().push(new);
        let last: Vec<_> = replaced.into_iter().filter_map(|object| let_go(&mut table, object)).collect();
        drop(table);
        last.into_iter().for_each(finish);
        note(found.file.as_fd(), ATIME_OFFSET, &[now() as u64, u64::from(std::process::id())]);
        Ok(address)
    }

    /// Detaches what [`SysvSegment::attach`] has attached at this address: `shmdt(2)`. With the last one goes a segment that
    /// is marked for removal.
    ///
    /// # Errors
    /// `EINVAL`: nothing is attached there.
    pub fn detach(address: usize) -> Result<()> {
        let mut table = table();
        let here = table.attached.remove(&address).ok_or(Errno::INVAL)?;
        let end = here.iter().map(|one| address.saturating_add(one.len)).max().unwrap_or(address);
        let areas = Area::within(address, end);
        // The one whose first page is the first: as the kernel finds it. Of some there may be nothing left.
        let (mut left, gone): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|one| areas.iter().any(|area| is_of(area, address, *one)));
        left.sort_by_key(|one| areas.iter().find(|area| is_of(area, address, *one)).map(|area| area.start));
        let found = (!left.is_empty()).then(|| left.remove(0));
        if !left.is_empty() {
            table.attached.insert(address, left);
        }
        if let Some(found) = found {
            areas
                .iter()
                .filter(|area| is_of(area, address, found))
                .for_each(|area| unmap(area.start, area.end));
        }
        let released: Vec<_> = gone.into_iter().chain(found).collect();
        let last: Vec<_> = released.iter().filter_map(|one| let_go(&mut table, one.object)).collect();
        drop(table);
        last.into_iter().for_each(finish);
        found.map(drop).ok_or(Errno::INVAL)
    }

    /// What is known of a segment: `IPC_STAT`.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EACCES`: the caller may not read it. `EUCLEAN`.
    pub fn status(namespace: &Namespace, id: i32) -> Result<SegmentStatus> {
        let found = namespace.find(KIND, id, OFlags::RDONLY)?;
        if !may_access(&found.status, Some(&found.identity), 0o444) {
            return Err(Errno::ACCESS);
        }
        let mut bytes = [0; FLAGS_OFFSET + 8 - ATIME_OFFSET];
        if rustix::io::pread(&found.file, &mut bytes, ATIME_OFFSET as u64)? != bytes.len() {
            return Err(Errno::UCLEAN);
        }
        let mut words =
            bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        let mut word = || words.next().unwrap_or_default();
        let (attach_time, last, detach_time, creator, flags) = (word(), word(), word(), word(), word());
        let object = found.status();
        let doomed = if found.identity.is_doomed() { SHM_DEST } else { 0 };
        let locked = if flags & LOCKED != 0 { SHM_LOCKED } else { 0 };
        Ok(SegmentStatus {
            object,
            mode: object.mode | doomed | locked,
            size_bytes: object.extent,
            attached: attachments::count(found.file.as_fd())?,
            creator_process: creator as u32,
            last_process: last as u32,
            attach_time: attach_time as i64,
            detach_time: detach_time as i64,
        })
    }

    /// Changes owner, group and mode: `IPC_SET`.
    ///
    /// # Errors
    /// As [`Namespace::set`].
    pub fn set(namespace: &Namespace, id: i32, change: Change) -> Result<()> {
        namespace.set(KIND, id, change)
    }

    /// Removes a segment: `IPC_RMID`. Its key is free at once; it goes with its last attach.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EPERM`: the caller is neither owner nor creator, or may not remove the file.
    pub fn remove(namespace: &Namespace, id: i32) -> Result<()> {
        namespace.remove_segment(id)
    }

    /// Notes that a segment is to be kept in memory, or need not be: `SHM_LOCK`, `SHM_UNLOCK`.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EPERM`: the caller is neither owner nor creator.
    pub fn lock(namespace: &Namespace, id: i32, locked: bool) -> Result<()> {
        let found = namespace.find_controlled(KIND, id)?;
        write_all(&found.file, &(if locked { LOCKED } else { 0 }).to_ne_bytes(), FLAGS_OFFSET)
    }

    /// What all segments are together: `SHM_INFO`.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn usage(namespace: &Namespace) -> Result<SegmentUsage> {
        let mut usage = SegmentUsage::default();
        for listed in namespace.list(KIND)? {
            let Ok(status) = namespace.stat_id(KIND, listed.id) else { continue };
            usage.segments += 1;
            let bytes = (status.st_size as u64).saturating_sub(DATA_OFFSET);
            usage.pages = usage.pages.saturating_add(bytes / PAGE_BYTES as u64);
            let resident = (status.st_blocks as u64).saturating_mul(512) / PAGE_BYTES as u64;
            usage.resident_pages = usage.resident_pages.saturating_add(resident.saturating_sub(1));
        }
        Ok(usage)
    }
}

/// Makes the file a segment of this size.
fn fill(file: BorrowedFd<'_>, size: u64, reserved: bool) -> Result<()> {
    let end = size.checked_next_multiple_of(PAGE_BYTES as u64).and_then(|len| len.checked_add(DATA_OFFSET));
    let end = end.filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::NOMEM)?;
    let too_much = |errno| if matches!(errno, Errno::NOSPC | Errno::FBIG) { Errno::NOMEM } else { errno };
    // At once for the file system to refuse what it can never give, then bit by bit.
    rustix::fs::ftruncate(file, end).map_err(too_much)?;
    let until = if reserved { end } else { DATA_OFFSET };
    if reserved
        && rustix::fs::fstatvfs(file)
            .is_ok_and(|system| system.f_blocks > 0 && end / system.f_frsize > system.f_bavail)
    {
        return Err(Errno::NOMEM);
    }
    let mut start = 0;
    while start < until {
        let len = RESERVE_BYTES.min(until - start);
        match rustix::fs::fallocate(file, FallocateFlags::empty(), start, len) {
            Ok(()) => start += len,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(too_much(errno)),
        }
    }
    let head = [MAGIC, end].map(u64::to_ne_bytes).concat();
    write_all(file, &head, 0)?;
    write_all(file, &u64::from(std::process::id()).to_ne_bytes(), CPID_OFFSET)
}

/// Where it is to be mapped, and whether over what is there. None: anywhere.
fn place(address: usize, flags: i32) -> Result<Option<(usize, bool)>> {
    let remaps = flags & libc::SHM_REMAP != 0;
    if address == 0 {
        return if remaps { Err(Errno::INVAL) } else { Ok(None) };
    }
    if address.is_multiple_of(BOUNDARY) {
        return Ok(Some((address, remaps)));
    }
    if flags & libc::SHM_RND == 0 {
        return Err(Errno::INVAL);
    }
    let address = address / BOUNDARY * BOUNDARY;
    // As the kernel, which looks for what is mapped only above 0.
    if address == 0 && remaps { Err(Errno::INVAL) } else { Ok(Some((address, remaps || address == 0))) }
}

/// How it is mapped, which permissions that takes, how the file is opened for it: who attaches for reading cannot turn that
/// into writing later.
fn permissions(flags: i32) -> (ProtFlags, u32, OFlags) {
    let (mut protection, mut bits, access) = if flags & libc::SHM_RDONLY != 0 {
        (ProtFlags::READ, 0o444, OFlags::RDONLY)
    } else {
        (ProtFlags::READ | ProtFlags::WRITE, 0o666, OFlags::RDWR)
    };
    if flags & libc::SHM_EXEC != 0 {
        protection |= ProtFlags::EXEC;
        bits |= 0o111;
    }
    (protection, bits, access)
}

/// How many bytes are mapped, if the file is as long as its header says.
pub(crate) fn length(size: u64, file_size: i64) -> Result<usize> {
    let len = size.checked_next_multiple_of(PAGE_BYTES as u64).filter(|len| *len > 0).ok_or(Errno::UCLEAN)?;
    let expected = len.checked_add(DATA_OFFSET).ok_or(Errno::UCLEAN)?;
    if u64::try_from(file_size) == Ok(expected) { Ok(len as usize) } else { Err(Errno::UCLEAN) }
}

/// Whether a segment that this process has counted itself in was not destroyed before.
fn still_there(file: BorrowedFd<'_>) -> Result<()> {
    let gone = rustix::fs::fstat(file)?.st_nlink == 0 || Identity::read(file)?.is_removed();
    if gone { Err(Errno::IDRM) } else { Ok(()) }
}

fn map(
    file: BorrowedFd<'_>,
    fixed: Option<(usize, bool)>,
    len: usize,
    protection: ProtFlags,
) -> Result<usize> {
    let (address, flags) = match fixed {
        None => (0, MapFlags::empty()),
        Some((address, true)) => (address, MapFlags::FIXED),
        Some((address, false)) => (address, MapFlags::FIXED_NOREPLACE),
    };
    let address = ptr::with_exposed_provenance_mut(address);
    // SAFETY: without `SHM_REMAP`, nothing that is mapped is replaced. With it, that is what the caller asks for: the
    // same contract as the kernel's call.
    let mapped =
        unsafe { rustix::mm::mmap(address, len, protection, MapFlags::SHARED | flags, file, DATA_OFFSET) };
    match mapped {
        Ok(mapped) => Ok(mapped.expose_provenance()),
        Err(Errno::EXIST) => Err(Errno::INVAL),
        // Mounted `noexec`.
        Err(Errno::PERM) if protection.contains(ProtFlags::EXEC) => Err(Errno::ACCESS),
        Err(errno) => Err(errno),
    }
}

/// Forgets the attaches of which a new one has left nothing.
fn forget_replaced(table: &mut Table, address: usize, new: Attached, before: &[Area]) -> Vec<FileId> {
    let after = Area::all();
    let end = address.saturating_add(new.len);
    let (mut forgotten, mut shortened) = (Vec::new(), Vec::new());
    for (start, here) in table.attached.range_mut(..end) {
        here.retain(|one| {
            let of_it = |area: &&Area| is_of(area, *start, *one);
            if !before.iter().filter(of_it).any(|area| area.start < end && area.end > address) {
                return true;
            }
            // The new one's pages look like those of an older one of the same segment at the same place.
            let same = *start == address && *one == new;
            let left = !same && after.iter().any(|area| of_it(&area));
            if left {
                shortened.push(one.object)
            } else {
                forgotten.push(one.object)
            }
            left
        });
    }
    table.attached.retain(|_, here| !here.is_empty());
    // The kernel takes it for an attach of one part more and a detach.
    for file in shortened.iter().filter_map(|object| table.file(*object)) {
        let (process, time) = (u64::from(std::process::id()), now() as u64);
        note(file, ATIME_OFFSET, &[time, process, time]);
    }
    forgotten
}

fn unmap(start: usize, end: usize) {
    // SAFETY: pages of an attach, which the caller of `shmdt` has no more use for: the kernel's contract.
    let _ = unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(start), end - start) };
}

/// Whether what is mapped is a part of an attach, at its place.
fn is_of(area: &Area, address: usize, attached: Attached) -> bool {
    let inside = area.start >= address && area.end <= address.saturating_add(attached.len);
    let place = area.offset.checked_sub(DATA_OFFSET);
    inside && area.file == attached.object && place == Some(area.start.wrapping_sub(address) as u64)
}

/// Writes words of the header, if the caller may write to the segment.
fn note(file: BorrowedFd<'_>, offset: usize, words: &[u64]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if write_all(file, &bytes, offset).is_err()
        && let Ok(file) = open_again(file, OFlags::WRONLY)
    {
        // Of use to whoever asks; nobody depends on it.
        let _ = write_all(file, &bytes, offset);
    }
}

/// Counts one attach less, and notes who it was. Gives what `finish` needs if it was the process's last.
fn let_go(table: &mut Table, object: FileId) -> Option<Object> {
    if let Some(file) = table.file(object) {
        note(file, LPID_OFFSET, &[u64::from(std::process::id()), now() as u64]);
    }
    table.subtract(object)
}

/// Destroys a segment that is marked, if that was its last attach.
fn finish(last: Object) {
    if !Identity::read(last.file()).is_ok_and(|identity| identity.is_doomed()) {
        return;
    }
    let (device, inode) = last.namespace_id;
    if let Ok(namespace) = Namespace::again(&last.namespace, device, inode) {
        // If somebody else has it attached, that one does; if it cannot be done now, whoever next asks for it.
        let _ = namespace.complete_removal(KIND, last.file());
    }
}
