//! Keys and ids: the part of `msgget(2)`, `semget(2)`, `shmget(2)` and their `ctl` that the three have in common.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::thread::CapabilitySet;

use super::identity::{
    CHANGE, CTIME_OFFSET, DOOMED, Identity, Kind, Naming, REMOVED, STATE_OFFSET, has, may_access,
    may_control, now, random, write_all,
};
use super::{Draft, Namespace, RETRIES, is_same};
use crate::memory::attachments::{self, Shut};
use crate::message::sysv_queue;
use crate::segment::{Reader, Segment, link};
use crate::{Errno, Result};

/// What there is to know of a System V object: `struct ipc_perm`, and what the kind counts.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Kind, Namespace};
///
/// let home = Namespace::private()?;
/// let id = home.get(Kind::SysvQueue, 0x2a, libc::IPC_CREAT | 0o640, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
/// let status = home.stat(Kind::SysvQueue, id)?;
/// assert_eq!((status.id, status.key, status.mode), (id, 0x2a, 0o640));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub id: i32,
    /// Its key, 0 for none.
    pub key: i32,
    /// Whose it is: the file's owner.
    pub uid: u32,
    /// Its group: the file's.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// The maker's group.
    pub cgid: u32,
    /// The nine permission bits: the file's.
    pub mode: u32,
    /// When it was made or `IPC_SET` last changed it: seconds since 1970.
    pub ctime: i64,
    /// What the kind counts: semaphores of a set, bytes of a segment.
    pub extent: u64,
    /// A random number that no other object has.
    pub serial: u64,
    /// See [`state`](super::state).
    pub state: u32,
}

/// An object in a list.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Kind, Namespace};
///
/// let home = Namespace::private()?;
/// let id = home.get(Kind::SysvQueue, 0x2a, libc::IPC_CREAT | 0o600, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
/// let listed = home.list(Kind::SysvQueue)?;
/// assert_eq!(listed[0].id, id);
/// assert_eq!(listed[0].status.map(|status| status.key), Some(0x2a));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: i32,
    /// Whose it is.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The nine permission bits.
    pub mode: u32,
    /// The rest, if the caller may read it and it is not corrupt.
    pub status: Option<Status>,
}

/// What `IPC_SET` sets for every kind.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel_engine::namespace::{Change, Kind, Namespace};
///
/// let home = Namespace::private()?;
/// let id = home.get(Kind::SysvQueue, 0x2a, libc::IPC_CREAT | 0o600, 0, |draft| draft.segment(1 << 20, |_| Ok(())))?;
/// let status = home.stat(Kind::SysvQueue, id)?;
/// home.set(Kind::SysvQueue, id, Change { uid: status.uid, gid: status.gid, mode: 0o660 })?;
/// assert_eq!(home.stat(Kind::SysvQueue, id)?.mode, 0o660);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new owner.
    pub uid: u32,
    /// The new group.
    pub gid: u32,
    /// The new mode, of which the low nine bits count.
    pub mode: u32,
}

/// A System V object's file, seen to be what its name says.
pub(crate) struct Found {
    pub(crate) file: OwnedFd,
    pub(crate) status: Stat,
    pub(crate) identity: Identity,
}

impl Found {
    pub(crate) fn status(&self) -> Status {
        status_from(&self.status, &self.identity)
    }
}

fn status_from(status: &Stat, identity: &Identity) -> Status {
    Status {
        id: identity.id,
        key: if identity.is_doomed() { libc::IPC_PRIVATE } else { identity.key },
        uid: status.st_uid,
        gid: status.st_gid,
        cuid: identity.cuid,
        cgid: identity.cgid,
        mode: status.st_mode & 0o777,
        ctime: identity.ctime,
        extent: identity.extent,
        serial: identity.serial,
        state: identity.state,
    }
}

/// What a key leads to.
enum Keyed {
    Found(Found),
    /// The caller may not read it.
    Closed(i32, Stat),
}

impl Namespace {
    /// Finds or makes an object: `msgget(2)`, `semget(2)`, `shmget(2)`. Gives its id.
    ///
    /// `flags` are `IPC_CREAT`, `IPC_EXCL` and the mode's nine bits; the umask has no say. `extent` is what the kind counts
    /// (0 for queues): one that is there must not have less. `make` is called when there is none and one is to be made; it
    /// checks what only matters then, and makes it from the [`Draft`].
    ///
    /// # Errors
    /// `ENOENT`: no such key, without `IPC_CREAT`. `EEXIST`: there is one, with `IPC_CREAT | IPC_EXCL`. `EINVAL`: it has less
    /// than `extent`. `EACCES`: it does not grant what the mode asks for. `ENOMEM`: the file system is full. `EUCLEAN`: what
    /// stands there is no object of this key. What `make` fails with.
    pub fn get(
        &self,
        kind: Kind,
        key: i32,
        flags: i32,
        extent: u64,
        make: impl FnOnce(&Draft<'_>) -> Result<Segment>,
    ) -> Result<i32> {
        self.get_with(kind, key, flags, extent, make, Segment::file)
    }

    /// As [`Namespace::get`], for what is a file in some form.
    pub(crate) fn get_with<T>(
        &self,
        kind: Kind,
        key: i32,
        flags: i32,
        extent: u64,
        make: impl FnOnce(&Draft<'_>) -> Result<T>,
        file: impl FnOnce(&T) -> Result<BorrowedFd<'_>>,
    ) -> Result<i32> {
        if key != libc::IPC_PRIVATE {
            match self.look_up(kind, key)? {
                Some(found) => return found.accept(flags, extent),
                None if flags & libc::IPC_CREAT == 0 => return Err(Errno::NOENT),
                None => {}
            }
        }
        let draft = Draft { namespace: self, kind, mode: flags as u32 & 0o777, masked: false };
        let full = |errno| if errno == Errno::NOSPC { Errno::NOMEM } else { errno };
        let made = make(&draft).map_err(full)?;
        self.name(kind, key, flags, extent, file(&made)?).map_err(full)
    }

    /// Gives a new object its names.
    fn name(&self, kind: Kind, key: i32, flags: i32, extent: u64, file: BorrowedFd<'_>) -> Result<i32> {
        let mut identity = Identity::new(kind, key, extent)?;
        let _naming = Naming::lock(file)?;
        let mut tries = 0..RETRIES;
        loop {
            tries.next().ok_or(Errno::NOSPC)?;
            identity.id = (random()? & 0x7fff_ffff) as i32;
            identity.write(file)?;
            match link(file, self.root()?, &id_path(kind, identity.id)) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        if key == libc::IPC_PRIVATE {
            return Ok(identity.id);
        }
        for _ in tries {
            match link(file, self.root()?, &key_path(kind, key)) {
                Ok(()) => return Ok(identity.id),
                Err(Errno::EXIST) => {}
                Err(errno) => {
                    self.unlink(&id_path(kind, identity.id))?;
                    return Err(errno);
                }
            }
            // Somebody was faster; or has left something, which `look_up` has removed when it finds nothing.
            match self.look_up(kind, key) {
                Ok(None) => {}
                other => {
                    self.unlink(&id_path(kind, identity.id))?;
                    return other?.ok_or(Errno::BUSY)?.accept(flags, extent);
                }
            }
        }
        self.unlink(&id_path(kind, identity.id))?;
        Err(Errno::BUSY)
    }

    /// What a key leads to, after having completed what somebody died in.
    fn look_up(&self, kind: Kind, key: i32) -> Result<Option<Keyed>> {
        for _ in 0..RETRIES {
            let file = match self.open_at(key_path(kind, key).as_bytes(), OFlags::RDONLY) {
                Ok(file) => file,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::ACCESS) => match self.look_up_closed(kind, key)? {
                    Some((id, status)) => return Ok(Some(Keyed::Closed(id, status))),
                    None => continue,
                },
                Err(errno) => return Err(errno),
            };
            let status = regular(&file)?;
            // Read after the names were counted: who takes a name away has marked the object before.
            let identity = Identity::read(&file)?;
            if identity.kind != kind.number() || identity.key != key || identity.id < 0 {
                return Err(Errno::UCLEAN);
            }
            if status.st_nlink == 0 {
                continue;
            }
            if identity.is_removed() || identity.is_doomed() {
                self.complete_removal(kind, file.as_fd())?;
                continue;
            }
            if status.st_nlink != 2 {
                return Err(Errno::UCLEAN);
            }
            return Ok(Some(Keyed::Found(Found { file, status, identity })));
        }
        Err(Errno::BUSY)
    }

    /// The id of what the caller may not read: the other name of the same file.
    fn look_up_closed(&self, kind: Kind, key: i32) -> Result<Option<(i32, Stat)>> {
        let status = match self.stat_at(key_path(kind, key).as_bytes()) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        if !FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(Errno::UCLEAN);
        }
        for id in self.ids(kind)? {
            if self.stat_at(id_path(kind, id).as_bytes()).is_ok_and(|other| is_same(&status, &other)) {
                return Ok(Some((id, status)));
            }
        }
        Ok(None)
    }

    /// Opens an object by its id, to use it.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EACCES`: the caller may not read *and* write it. `EUCLEAN`: the file is not what its name
    /// says.
    pub fn open_id(&self, kind: Kind, id: i32) -> Result<Segment> {
        Segment::of(self.find(kind, id, OFlags::RDWR)?.file)
    }

    /// Opens an object by its id, to ask it for its status, which takes the permission to read.
    ///
    /// # Errors
    /// As [`Namespace::open_id`].
    pub fn read_id(&self, kind: Kind, id: i32) -> Result<Reader> {
        Ok(Reader::of(self.find(kind, id, OFlags::RDONLY)?.file))
    }

    /// The file of an id.
    pub(crate) fn find(&self, kind: Kind, id: i32, access: OFlags) -> Result<Found> {
        self.find_with(kind, id, |path| self.open_at(path, access))
    }

    fn find_with(&self, kind: Kind, id: i32, open: impl Fn(&[u8]) -> Result<OwnedFd>) -> Result<Found> {
        if id < 0 {
            return Err(Errno::INVAL);
        }
        for _ in 0..RETRIES {
            let file = match open(id_path(kind, id).as_bytes()) {
                Ok(file) => file,
                Err(Errno::NOENT) => return Err(Errno::INVAL),
                Err(errno) => return Err(errno),
            };
            let status = regular(&file)?;
            let identity = Identity::read(&file)?;
            if identity.kind != kind.number() || identity.id != id {
                return Err(Errno::UCLEAN);
            }
            if status.st_nlink == 0 {
                return Err(Errno::INVAL);
            }
            if identity.is_removed() {
                // If it is not the caller's to remove, it stays until somebody comes whose it is.
                let _ = self.complete_removal(kind, file.as_fd());
                return Err(Errno::INVAL);
            }
            if identity.is_doomed() {
                if kind != Kind::SysvSegment || status.st_nlink > 2 {
                    return Err(Errno::UCLEAN);
                }
                if self.complete_removal(kind, file.as_fd()) == Ok(true) || !attachments::any(file.as_fd())? {
                    return Err(Errno::INVAL);
                }
                return Ok(Found { file, status, identity });
            }
            let names = if identity.key == libc::IPC_PRIVATE { 1 } else { 2 };
            if status.st_nlink > names {
                return Err(Errno::UCLEAN);
            }
            if status.st_nlink < names {
                match self.discard_half_made(kind, &file) {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => return Err(Errno::INVAL),
                }
            }
            return Ok(Found { file, status, identity });
        }
        Err(Errno::BUSY)
    }

    /// What is known of an object: `IPC_STAT`.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EACCES`: the caller may not read it. `EUCLEAN`.
    pub fn stat(&self, kind: Kind, id: i32) -> Result<Status> {
        let found = self.find(kind, id, OFlags::RDONLY)?;
        if !may_access(&found.status, Some(&found.identity), 0o444) {
            return Err(Errno::ACCESS);
        }
        Ok(found.status())
    }

    /// What is known of an object that is open; its state tells whether it has been removed. No permission is asked.
    ///
    /// # Errors
    /// `EUCLEAN`: its header does not hold what it must.
    pub fn status_of(&self, segment: &Segment) -> Result<Status> {
        let file = segment.file()?;
        let (status, identity) = (regular(file)?, Identity::read(file)?);
        Ok(status_from(&status, &identity))
    }

    /// All objects of a kind, by their ids.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn list(&self, kind: Kind) -> Result<Vec<Listed>> {
        let mut ids = self.ids(kind)?;
        ids.sort_unstable();
        let mut listed = Vec::new();
        for id in ids {
            let status = match self.find(kind, id, OFlags::RDONLY) {
                Ok(found) => Some(found.status()),
                Err(Errno::INVAL) => continue,
                Err(_) => None,
            };
            let Ok(file) = self.stat_at(id_path(kind, id).as_bytes()) else { continue };
            listed.push(Listed {
                id,
                uid: file.st_uid,
                gid: file.st_gid,
                mode: file.st_mode & 0o777,
                status,
            });
        }
        Ok(listed)
    }

    /// Changes owner, group and mode: `IPC_SET`. Who has the object open learns of it by its [`state`](super::state).
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EPERM`: the caller is neither owner nor creator, or may not give the file away.
    pub fn set(&self, kind: Kind, id: i32, change: Change) -> Result<()> {
        let found = self.find_controlled(kind, id)?;
        if change.uid == u32::MAX || change.gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let _naming = Naming::lock(found.file.as_fd())?;
        let status = regular(&found.file)?;
        let identity = Identity::read(&found.file)?;
        if status.st_nlink == 0 || identity.is_removed() {
            return Err(Errno::IDRM);
        }
        if (status.st_uid, status.st_gid) != (change.uid, change.gid) {
            let (uid, gid) = (Uid::from_raw(change.uid), Gid::from_raw(change.gid));
            rustix::fs::fchown(&found.file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&found.file, Mode::from_raw_mode(change.mode & 0o777))?;
        let state = identity.state.wrapping_add(CHANGE);
        write_all(&found.file, &now().to_ne_bytes(), CTIME_OFFSET)?;
        write_all(&found.file, &state.to_ne_bytes(), STATE_OFFSET)
    }

    /// Removes an object: `IPC_RMID`. Its id and its key lead nowhere at once.
    ///
    /// `doom` is called with it, before its names go: it takes the object's lock, calls
    /// [`mark_removed`](super::mark_removed), and sees to it that whoever is blocked wakes with `EIDRM`. If the object is too
    /// corrupt for that, it is removed nevertheless.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EPERM`: the caller is neither owner nor creator, or may not remove the file. `EINTR`:
    /// a signal came while somebody else was changing the object's names.
    pub fn remove_id(&self, kind: Kind, id: i32, doom: impl FnOnce(&Segment) -> Result<()>) -> Result<()> {
        self.remove_found(kind, id, |file| {
            let segment = Segment::of(file.try_clone_to_owned().map_err(|_| Errno::MFILE)?)?;
            doom(&segment)
        })
    }

    /// As [`Namespace::remove_id`] for a segment, which keeps its id for as long as it is attached.
    pub(crate) fn remove_segment(&self, id: i32) -> Result<()> {
        let found = match self.find_controlled(Kind::SysvSegment, id) {
            Err(Errno::UCLEAN) => return self.remove_corrupt(Kind::SysvSegment, id),
            other => other?,
        };
        self.may_unlink(Kind::SysvSegment, &found.status)?;
        let _naming = Naming::lock(found.file.as_fd())?;
        if regular(&found.file)?.st_nlink == 0 || Identity::read(&found.file)?.is_removed() {
            return Err(Errno::INVAL);
        }
        mark(&found.file, DOOMED)?;
        self.complete_removal_locked(Kind::SysvSegment, found.file.as_fd()).map(drop)
    }

    fn remove_found(
        &self,
        kind: Kind,
        id: i32,
        doom: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let found = match self.find_controlled(kind, id) {
            Err(Errno::UCLEAN) => return self.remove_corrupt(kind, id),
            other => other?,
        };
        self.may_unlink(kind, &found.status)?;
        {
            let _naming = Naming::lock(found.file.as_fd())?;
            if regular(&found.file)?.st_nlink == 0 || Identity::read(&found.file)?.is_removed() {
                return Err(Errno::INVAL);
            }
            match doom(found.file.as_fd()) {
                Ok(()) | Err(Errno::UCLEAN) => {}
                Err(errno) => return Err(errno),
            }
            mark(&found.file, REMOVED)?;
        }
        self.complete_removal(kind, found.file.as_fd()).map(drop)
    }

    /// Removes a file that has an object's name and is none: nothing in it is believed.
    fn remove_corrupt(&self, kind: Kind, id: i32) -> Result<()> {
        let path = id_path(kind, id);
        let status = self.stat_at(path.as_bytes())?;
        if !may_control(&status, None) {
            return Err(Errno::PERM);
        }
        self.may_unlink(kind, &status)?;
        for name in self.names(kind)? {
            let path = format!("{}/{name}", kind.directory());
            if name.starts_with("k.")
                && self.stat_at(path.as_bytes()).is_ok_and(|other| is_same(&status, &other))
            {
                rustix::fs::unlinkat(self.root()?, path.as_str(), AtFlags::empty())?;
            }
        }
        self.unlink(&path)
    }

    /// Finds an object for its owner or creator, open for reading and writing whatever its mode.
    pub(crate) fn find_controlled(&self, kind: Kind, id: i32) -> Result<Found> {
        let found = self.find_with(kind, id, |path| match self.open_at(path, OFlags::RDWR) {
            Err(Errno::ACCESS) => self.open_own(path),
            outcome => outcome,
        })?;
        if may_control(&found.status, Some(&found.identity)) { Ok(found) } else { Err(Errno::PERM) }
    }

    /// Opens a file that its owner's own mode does not let it open.
    fn open_own(&self, path: &[u8]) -> Result<OwnedFd> {
        let handle = self.open_at(path, OFlags::PATH)?;
        let status = regular(&handle)?;
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::PERM);
        }
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let mode = Mode::from_raw_mode(status.st_mode & 0o777);
        rustix::fs::chmodat(CWD, link.as_str(), mode | Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        let file = rustix::fs::openat(CWD, link.as_str(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        rustix::fs::chmodat(CWD, link.as_str(), mode, AtFlags::empty())?;
        file
    }

    /// Whether the kernel will let the caller take this file's names away.
    fn may_unlink(&self, kind: Kind, status: &Stat) -> Result<()> {
        let directory = rustix::fs::statat(self.root()?, kind.directory(), AtFlags::SYMLINK_NOFOLLOW)?;
        let me = rustix::process::geteuid().as_raw();
        let sticky = directory.st_mode & 0o1000 != 0;
        if sticky && ![status.st_uid, directory.st_uid].contains(&me) && !has(CapabilitySet::FOWNER) {
            return Err(Errno::PERM);
        }
        let access = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(self.root()?, kind.directory(), access, AtFlags::EACCESS)
            .map_err(|_| Errno::PERM)
    }

    /// Takes the names of a marked object away, as far as its mark says: whether all are gone.
    pub(crate) fn complete_removal(&self, kind: Kind, file: BorrowedFd<'_>) -> Result<bool> {
        let _naming = Naming::lock(file)?;
        self.complete_removal_locked(kind, file)
    }

    pub(super) fn complete_removal_locked(&self, kind: Kind, file: BorrowedFd<'_>) -> Result<bool> {
        let status = rustix::fs::fstat(file)?;
        let identity = Identity::read(file)?;
        if !identity.is_removed() && !identity.is_doomed() {
            return Ok(false);
        }
        if kind == Kind::SysvQueue {
            sysv_queue::dismiss(self, file);
        }
        if identity.key != libc::IPC_PRIVATE {
            self.unlink_if_same(&key_path(kind, identity.key), &status)?;
        }
        if identity.is_removed() {
            self.unlink_if_same(&id_path(kind, identity.id), &status)?;
            return Ok(true);
        }
        // A segment that somebody has attached keeps its id.
        let Some(shut) = Shut::of(file)? else { return Ok(false) };
        mark(&shut, REMOVED)?;
        let gone = self.unlink_if_same(&id_path(kind, identity.id), &status);
        if gone.is_err() {
            shut.release();
        }
        gone.map(|()| true)
    }

    /// Takes away the id of what somebody died in making. True: it was not that, look again.
    fn discard_half_made(&self, kind: Kind, file: &OwnedFd) -> Result<bool> {
        let _naming = Naming::try_lock(file.as_fd())?;
        let status = rustix::fs::fstat(file)?;
        let identity = Identity::read(file)?;
        if status.st_nlink != 1 || identity.state & (REMOVED | DOOMED) != 0 {
            return Ok(true);
        }
        self.unlink_if_same(&id_path(kind, identity.id), &status)?;
        Ok(false)
    }

    /// Takes away a name that leads to this file. For who holds the file's [`Naming`].
    pub(super) fn unlink_if_same(&self, path: &std::ffi::CStr, status: &Stat) -> Result<()> {
        match self.stat_at(path.to_bytes()) {
            Ok(other) if is_same(status, &other) => self.unlink(path),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn unlink(&self, path: &std::ffi::CStr) -> Result<()> {
        rustix::fs::unlinkat(self.root()?, path, AtFlags::empty())
    }

    /// The file's own status, which takes no permission.
    pub(crate) fn stat_id(&self, kind: Kind, id: i32) -> Result<Stat> {
        self.stat_at(id_path(kind, id).as_bytes())
    }

    pub(super) fn stat_at(&self, path: &[u8]) -> Result<Stat> {
        rustix::fs::statat(self.root()?, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn ids(&self, kind: Kind) -> Result<Vec<i32>> {
        Ok(self.names(kind)?.iter().filter_map(|name| id_of(name)).collect())
    }

    /// What stands in a kind's directory, as far as it is text: all of ours is.
    pub(super) fn names(&self, kind: Kind) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(self.root()?, kind.directory(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let entry = entry?;
            names.extend(
                entry
                    .file_name()
                    .to_str()
                    .ok()
                    .filter(|name| !matches!(*name, "." | ".."))
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }
}

impl Keyed {
    /// What the `get` calls say of an object that is there, in the kernel's order.
    fn accept(&self, flags: i32, extent: u64) -> Result<i32> {
        let (id, status, identity) = match self {
            Keyed::Found(found) => (found.identity.id, &found.status, Some(&found.identity)),
            Keyed::Closed(id, status) => (*id, status, None),
        };
        let exclusive = libc::IPC_CREAT | libc::IPC_EXCL;
        if flags & exclusive == exclusive {
            return Err(Errno::EXIST);
        }
        if identity.is_some_and(|identity| extent > identity.extent) {
            return Err(Errno::INVAL);
        }
        if !may_access(status, identity, flags as u32 & 0o777) {
            return Err(Errno::ACCESS);
        }
        Ok(id)
    }
}

/// Sets bits of a file's state. For who holds its [`Naming`].
pub(crate) fn mark(file: impl AsFd, bits: u32) -> Result<()> {
    let state = Identity::read(&file)?.state;
    if state & bits == bits {
        return Ok(());
    }
    write_all(&file, &(state | bits).to_ne_bytes(), STATE_OFFSET)
}

pub(super) fn regular(file: impl AsFd) -> Result<Stat> {
    let status = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(status.st_mode).is_file() { Ok(status) } else { Err(Errno::UCLEAN) }
}

pub(super) fn id_path(kind: Kind, id: i32) -> std::ffi::CString {
    path(format!("{}/i.{id}", kind.directory()))
}

pub(super) fn key_path(kind: Kind, key: i32) -> std::ffi::CString {
    path(format!("{}/k.{key:08x}", kind.directory()))
}

fn path(text: String) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

/// The id that a name stands for, if it is exactly as this library writes it.
pub(super) fn id_of(name: &str) -> Option<i32> {
    let id: i32 = name.strip_prefix("i.")?.parse().ok()?;
    (id >= 0 && name == format!("i.{id}")).then_some(id)
}

/// The key that a name stands for, if it is exactly as this library writes it.
pub(super) fn key_of(name: &str) -> Option<i32> {
    let key = u32::from_str_radix(name.strip_prefix("k.")?, 16).ok()? as i32;
    (name == format!("k.{key:08x}")).then_some(key)
}
