//! What this process has attached: which addresses are which segment, and the files whose locks count them.
//!
//! One table a process, under one mutex, as `shmdt` is given nothing but an address. A fork takes the mutex, so that the
//! child finds the table whole, and opens each segment's file anew, with a lock that is to be the child's: so the child
//! counts from its first moment on. After the fork the parent closes those files, and the child closes its parent's. A
//! child of a fork that the C library does not know of shares its parent's locks, and both count as one, until it first
//! comes here and takes its own.
//!
//! A parent that is killed before its child has come back from the fork counts until then: the child has its file too.
//!
//! # Crash points
//! The lock is taken before the memory is mapped and given back after it is unmapped; whoever is killed between the two is
//! not attached any more anyhow.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, Once};

use rustix::fs::{OFlags, Stat};

use super::attachments::{self, Slot};
use crate::descriptor::Kept;
use crate::{Errno, Result};

/// Which file: device and inode.
pub(super) type FileId = (u64, u64);

/// A segment that this process has attached at least once.
#[derive(Debug)]
pub(super) struct Object {
    /// Open for its lock alone.
    file: Kept,
    slot: Slot,
    times: i64,
    /// For the child that is just being forked.
    child: Option<(OwnedFd, Slot)>,
    /// Whose lock it is.
    process: u32,
    /// Where its name is, to take it away with the last attach.
    pub(super) namespace: PathBuf,
    pub(super) namespace_id: FileId,
}

/// One attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) len: usize,
    pub(super) object: FileId,
}

#[derive(Debug)]
pub(super) struct Table {
    objects: BTreeMap<FileId, Object>,
    /// By address; several at one where `SHM_REMAP` has replaced only the beginning of a longer one.
    pub(super) attached: BTreeMap<usize, Vec<Attached>>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { objects: BTreeMap::new(), attached: BTreeMap::new() });
static HANDLERS: Once = Once::new();

thread_local! {
    /// Held by a thread while it forks.
    static FORKING: RefCell<Option<MutexGuard<'static, Table>>> = const { RefCell::new(None) };
}

/// The table of this process.
pub(super) fn table() -> MutexGuard<'static, Table> {
    HANDLERS.call_once(register);
    let mut table = lock();
    table.own();
    table
}

fn lock() -> MutexGuard<'static, Table> {
    // Nothing in here panics between two changes that belong together.
    TABLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[allow(unsafe_code)]
fn register() {
    // SAFETY: the handlers are functions of this program, and none of them unwinds.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
}

extern "C" fn before_fork() {
    let mut table = lock();
    table.own();
    for (id, object) in &mut table.objects {
        // Without a descriptor to be had, the child counts from its first call on.
        object.child = object.taken_again(*id).ok();
    }
    let _ = FORKING.try_with(|forking| forking.try_borrow_mut().map(|mut forking| *forking = Some(table)));
}

extern "C" fn in_parent() {
    after_fork(|object| object.child = None);
}

extern "C" fn in_child() {
    after_fork(|object| {
        if let Some((file, slot)) = object.child.take() {
            (object.file, object.slot, object.process) = (Kept::new(file), slot, std::process::id());
        }
    });
}

fn after_fork(each: impl Fn(&mut Object)) {
    let _ = FORKING.try_with(|forking| {
        if let Ok(mut forking) = forking.try_borrow_mut()
            && let Some(mut table) = forking.take()
        {
            table.objects.values_mut().for_each(each);
        }
    });
}

pub(super) fn file_id(status: &Stat) -> FileId {
    (status.st_dev, status.st_ino)
}

impl Table {
    /// Makes what a parent has left in here this process's own.
    fn own(&mut self) {
        let process = std::process::id();
        for (id, object) in &mut self.objects {
            if object.process != process {
                object.process = process;
                // If it cannot be opened (a privilege given up, no descriptors), parent and child go on counting as one.
                if let Ok((file, slot)) = object.taken_again(*id) {
                    (object.file, object.slot) = (Kept::new(file), slot);
                }
            }
        }
    }

    /// Counts one attach more of the segment in this file.
    pub(super) fn add(
        &mut self,
        id: FileId,
        file: BorrowedFd<'_>,
        namespace: impl FnOnce() -> Result<(PathBuf, FileId)>,
    ) -> Result<()> {
        if let Some(object) = self.objects.get_mut(&id) {
            if object.times >= attachments::TIMES_MAX {
                return Err(Errno::NOMEM);
            }
            if !object.is(id) {
                // The program has closed all descriptors, ours too.
                let file = file.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
                object.file.replace(file);
            }
            object.slot.hold(object.file.as_fd(), object.times + 1)?;
            object.times += 1;
            return Ok(());
        }
        let (namespace, namespace_id) = namespace()?;
        let file = Kept::new(file.try_clone_to_owned().map_err(|_| Errno::MFILE)?);
        let slot = Slot::pick(file.as_fd())?;
        slot.hold(file.as_fd(), 1)?;
        let process = std::process::id();
        self.objects
            .insert(id, Object { file, slot, times: 1, child: None, process, namespace, namespace_id });
        Ok(())
    }

    /// Counts one attach less. Gives the object back with the process's last one: its file is without a lock then.
    pub(super) fn subtract(&mut self, id: FileId) -> Option<Object> {
        let object = self.objects.get_mut(&id)?;
        object.times -= 1;
        let valid = object.is(id);
        if valid {
            let _ = object.slot.give_back(object.file.as_fd(), object.times);
        }
        if object.times > 0 {
            return None;
        }
        let object = self.objects.remove(&id)?;
        if valid {
            return Some(object);
        }
        // The number is somebody else's by now, or nobody's.
        object.file.forget();
        None
    }

    /// The file of a segment that is attached.
    pub(super) fn file(&self, id: FileId) -> Option<BorrowedFd<'_>> {
        self.objects.get(&id).filter(|object| object.is(id)).map(|object| object.file.as_fd())
    }
}

impl Object {
    /// Whether the descriptor still is the segment's file.
    fn is(&self, id: FileId) -> bool {
        rustix::fs::fstat(&self.file).is_ok_and(|status| file_id(&status) == id)
    }

    /// Its file, opened once more and locked for as many attaches.
    fn taken_again(&self, id: FileId) -> Result<(OwnedFd, Slot)> {
        if !self.is(id) {
            return Err(Errno::BADF);
        }
        let file = attachments::open_again(self.file.as_fd(), OFlags::RDONLY)?;
        let slot = Slot::pick(file.as_fd())?;
        slot.hold(file.as_fd(), self.times)?;
        Ok((file, slot))
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
