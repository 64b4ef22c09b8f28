//! What the three System V kinds have in common: `struct ipc_perm`, indices for those who list them all.

use ginnel_engine::namespace::{Change, Kind, Namespace, Status};
use ginnel_engine::{Errno, Result};

/// `struct ipc_perm`.
pub(crate) fn permissions(status: &Status) -> libc::ipc_perm {
    // SAFETY: numbers only, all of which may be 0.
    #[allow(unsafe_code)]
    let mut perm: libc::ipc_perm = unsafe { std::mem::zeroed() };
    perm.__key = status.key;
    perm.uid = status.uid;
    perm.gid = status.gid;
    perm.cuid = status.cuid;
    perm.cgid = status.cgid;
    perm.mode = status.mode as _;
    perm.__seq = (status.id >> 15) as _;
    perm
}

/// What `IPC_SET` takes of it.
pub(crate) fn change(perm: &libc::ipc_perm) -> Change {
    Change { uid: perm.uid, gid: perm.gid, mode: perm.mode as u32 }
}

/// The id with that index of `MSG_STAT` and the like: a place among all, in the order of their ids.
pub(crate) fn id_at(namespace: &Namespace, kind: Kind, index: i32) -> Result<i32> {
    let index = usize::try_from(index).map_err(|_| Errno::INVAL)?;
    namespace.list(kind)?.get(index).map(|listed| listed.id).ok_or(Errno::INVAL)
}

/// The highest index, as `IPC_INFO` gives it: 0 also if there is none.
pub(crate) fn last_index(count: usize) -> i32 {
    i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX)
}

/// A limit in a C `int`.
pub(crate) fn int(limit: u64) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}
