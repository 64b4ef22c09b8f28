//! What a home offers, at the level of the C calls: ids, descriptors and flags are plain numbers, as in C.
//!
//! Time is the exception: a time-out is a [`Duration`] from now, and a home makes of it what its calls want. A deadline
//! that passes is `EAGAIN` from `semtimedop` and `ETIMEDOUT` elsewhere, as in C.

use std::time::Duration;

use ginnel_testkit::wait_until;

use crate::Result;

/// A place where objects live. A value of it is one process's view of it; a forked child uses its copy.
pub trait Home: Sized + Sync + 'static {
    /// What reports call it.
    const NAME: &'static str;

    /// Whether a process's end is stamped in the objects that it used: detached, with its pid; undone, if only of nothing.
    const STAMPS_DEATHS: bool = true;

    /// Whether of several that wait for a POSIX semaphore the first is served first for certain.
    const SEMAPHORES_IN_TURN: bool = true;

    /// An empty one that nobody else uses. The process is isolated, and has a single thread.
    fn fresh() -> Self;

    /// Whether the process sleeps in a call of this home.
    fn is_blocked(&self, pid: i32) -> bool {
        sleeps(pid)
    }

    /// Waits until the process sleeps in a call of this home; panics if it does not come to that.
    #[track_caller]
    fn wait_blocked(&self, pid: i32) {
        wait_until(&format!("process {pid} is blocked in a call"), || self.is_blocked(pid));
    }
}

/// The calls in which a process waits for an object: the kernel's own, and what stands for them in user space.
const WAITS: [i64; 13] = [
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_restart_syscall,
    libc::SYS_epoll_wait,
];

/// Asleep in one of them, and still there a moment later: a short wait for somebody's lock is not that.
fn sleeps(pid: i32) -> bool {
    let look = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let first = look();
    let number = first.split_whitespace().next().and_then(|word| word.parse().ok());
    number.is_some_and(|number: i64| WAITS.contains(&number)) && {
        std::thread::sleep(Duration::from_micros(200));
        look() == first
    }
}

/// Owner, creator and mode of a System V object: `struct ipc_perm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The key it was made with.
    pub key: i32,
    /// The owner's user and group.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// The creator's user.
    pub cuid: u32,
    /// The creator's group.
    pub cgid: u32,
    /// The lowest nine bits.
    pub mode: u32,
}

/// What `IPC_SET` sets of every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The owner to be.
    pub uid: u32,
    /// The group to be.
    pub gid: u32,
    /// The mode to be.
    pub mode: u32,
}

impl Permissions {
    /// What `IPC_SET` takes, with nothing changed yet.
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// `struct msqid_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of msgctl(2)")]
pub struct QueueStatus {
    pub perm: Permissions,
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    pub cbytes: u64,
    pub qnum: u64,
    pub qbytes: u64,
    pub lspid: i32,
    pub lrpid: i32,
}

/// System V message queues: `msgget(2)`, `msgop(2)`, `msgctl(2)`.
#[allow(missing_docs, reason = "each method is the call of that name")]
pub trait SysvMessages: Home {
    /// The longest message.
    const MESSAGE_BYTES_MAX: usize;

    fn msgget(&self, key: i32, flags: i32) -> Result<i32>;
    fn msgsnd(&self, id: i32, mtype: i64, text: &[u8], flags: i32) -> Result<()>;
    fn msgrcv(&self, id: i32, text: &mut [u8], mtype: i64, flags: i32) -> Result<(i64, usize)>;
    fn msg_status(&self, id: i32) -> Result<QueueStatus>;
    fn msg_set(&self, id: i32, owner: Owner, qbytes: u64) -> Result<()>;
    fn msg_remove(&self, id: i32) -> Result<()>;
}

/// `struct semid_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of semctl(2)")]
pub struct SetStatus {
    pub perm: Permissions,
    pub otime: i64,
    pub ctime: i64,
    pub nsems: u64,
}

/// System V semaphore sets: `semget(2)`, `semop(2)`, `semctl(2)`.
#[allow(missing_docs, reason = "each method is the call, or the command of semctl(2), of that name")]
pub trait SysvSemaphores: Home {
    fn semget(&self, key: i32, count: i32, flags: i32) -> Result<i32>;
    fn semtimedop(&self, id: i32, operations: &[libc::sembuf], timeout: Option<Duration>) -> Result<()>;
    fn semop(&self, id: i32, operations: &[libc::sembuf]) -> Result<()> {
        self.semtimedop(id, operations, None)
    }
    fn sem_getval(&self, id: i32, number: i32) -> Result<i32>;
    fn sem_getpid(&self, id: i32, number: i32) -> Result<i32>;
    fn sem_getncnt(&self, id: i32, number: i32) -> Result<i32>;
    fn sem_getzcnt(&self, id: i32, number: i32) -> Result<i32>;
    fn sem_getall(&self, id: i32) -> Result<Vec<u16>>;
    fn sem_setval(&self, id: i32, number: i32, value: i32) -> Result<()>;
    /// As many values as the set has semaphores.
    fn sem_setall(&self, id: i32, values: &[u16]) -> Result<()>;
    fn sem_status(&self, id: i32) -> Result<SetStatus>;
    fn sem_set(&self, id: i32, owner: Owner) -> Result<()>;
    fn sem_remove(&self, id: i32) -> Result<()>;
}

/// `struct shmid_ds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of shmctl(2)")]
pub struct SegmentStatus {
    pub perm: Permissions,
    /// `SHM_DEST`: removed, and gone with its last user.
    pub doomed: bool,
    pub segsz: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: i32,
    pub lpid: i32,
    pub nattch: u64,
}

/// System V shared memory: `shmget(2)`, `shmop(2)`, `shmctl(2)`. Addresses are numbers.
#[allow(missing_docs, reason = "each method is the call of that name")]
pub trait SysvMemory: Home {
    fn shmget(&self, key: i32, size: usize, flags: i32) -> Result<i32>;
    fn shmat(&self, id: i32, address: usize, flags: i32) -> Result<usize>;
    fn shmdt(&self, address: usize) -> Result<()>;
    fn shm_status(&self, id: i32) -> Result<SegmentStatus>;
    fn shm_set(&self, id: i32, owner: Owner) -> Result<()>;
    fn shm_remove(&self, id: i32) -> Result<()>;
}

/// `struct mq_attr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of mq_getattr(3)")]
pub struct QueueAttributes {
    pub flags: i64,
    pub maxmsg: i64,
    pub msgsize: i64,
    pub curmsgs: i64,
}

/// How `mq_notify(3)` is to tell of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `SIGEV_NONE`.
    None,
    /// `SIGEV_SIGNAL`: this signal, with this value.
    Signal(i32, i32),
}

/// POSIX message queues: `mq_overview(7)`. A queue is a descriptor.
#[allow(missing_docs, reason = "each method is the call of that name")]
pub trait PosixQueues: Home {
    /// `limits` are `mq_maxmsg` and `mq_msgsize`.
    fn mq_open(&self, name: &str, flags: i32, mode: u32, limits: Option<(i64, i64)>) -> Result<i32>;
    fn mq_close(&self, queue: i32) -> Result<()>;
    fn mq_unlink(&self, name: &str) -> Result<()>;
    fn mq_timedsend(&self, queue: i32, text: &[u8], priority: u32, timeout: Option<Duration>) -> Result<()>;
    fn mq_timedreceive(&self, queue: i32, text: &mut [u8], timeout: Option<Duration>)
    -> Result<(usize, u32)>;
    fn mq_notify(&self, queue: i32, notice: Option<Notice>) -> Result<()>;
    fn mq_getattr(&self, queue: i32) -> Result<QueueAttributes>;
    /// Sets `mq_flags`; what was before.
    fn mq_setattr(&self, queue: i32, flags: i64) -> Result<QueueAttributes>;
    /// `poll(2)` of the descriptor, for this long: the events that hold.
    fn mq_poll(&self, queue: i32, events: i16, timeout: Duration) -> Result<i16>;
}

/// Named POSIX semaphores: `sem_overview(7)`. A semaphore is a handle of the process.
#[allow(missing_docs, reason = "each method is the call of that name")]
pub trait PosixSemaphores: Home {
    fn sem_open(&self, name: &str, flags: i32, mode: u32, value: u32) -> Result<usize>;
    fn sem_close(&self, semaphore: usize) -> Result<()>;
    fn sem_unlink(&self, name: &str) -> Result<()>;
    fn sem_wait(&self, semaphore: usize) -> Result<()>;
    fn sem_trywait(&self, semaphore: usize) -> Result<()>;
    fn sem_timedwait(&self, semaphore: usize, timeout: Duration) -> Result<()>;
    /// On `CLOCK_MONOTONIC`.
    fn sem_clockwait(&self, semaphore: usize, timeout: Duration) -> Result<()>;
    fn sem_post(&self, semaphore: usize) -> Result<()>;
    fn sem_getvalue(&self, semaphore: usize) -> Result<i32>;
}

/// POSIX shared memory: `shm_overview(7)`. An object is a descriptor.
#[allow(missing_docs, reason = "each method is the call of that name")]
pub trait PosixMemory: Home {
    fn shm_open(&self, name: &str, flags: i32, mode: u32) -> Result<i32>;
    fn shm_unlink(&self, name: &str) -> Result<()>;
}
