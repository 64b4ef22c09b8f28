//! `shmget(2)`, `shmop(2)`, `shmctl(2)` over `ginnel_engine::memory::sysv_segment`.

use ginnel_engine::memory::sysv_segment::{SHM_DEST, SysvSegment as Segment};

use super::{User, change, permissions};
use crate::Result;
use crate::home::{Owner, SegmentStatus, SysvMemory};

impl SysvMemory for User {
    fn shmget(&self, key: i32, size: usize, flags: i32) -> Result<i32> {
        Segment::get(&self.namespace, key, size, flags)
    }

    fn shmat(&self, id: i32, address: usize, flags: i32) -> Result<usize> {
        Segment::attach(&self.namespace, id, address, flags)
    }

    fn shmdt(&self, address: usize) -> Result<()> {
        Segment::detach(address)
    }

    fn shm_status(&self, id: i32) -> Result<SegmentStatus> {
        let status = Segment::status(&self.namespace, id)?;
        Ok(SegmentStatus {
            perm: permissions(&status.object),
            doomed: status.mode & SHM_DEST != 0,
            segsz: status.size_bytes,
            atime: status.attach_time,
            dtime: status.detach_time,
            ctime: status.object.ctime,
            cpid: status.creator_process as i32,
            lpid: status.last_process as i32,
            nattch: status.attached,
        })
    }

    fn shm_set(&self, id: i32, owner: Owner) -> Result<()> {
        Segment::set(&self.namespace, id, change(owner))
    }

    fn shm_remove(&self, id: i32) -> Result<()> {
        Segment::remove(&self.namespace, id)
    }
}
