//! Where the user-space home differs on purpose: the clause that does not hold, why, and what holds instead.
//!
//! Asserted in both directions: there the clause must fail and the other hold, in the kernel's home the other must fail.

use ginnel_testkit::wait_until;
use libc::{IPC_CREAT, IPC_EXCL, IPC_NOWAIT, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};

use crate::Errno;
use crate::clause::Difference;
use crate::help::{ALICE, BOB, LONG, SHORT, as_other, blocked, elsewhere, fails, restarted};
use crate::home::{Owner, PosixQueues, PosixSemaphores, SysvMemory, SysvMessages, SysvSemaphores};

/// To wait, or to take the lock, is to write to the object's file.
const BOTH: &str =
    "to use an object is to read and to write its file: one permission alone grants neither (fails closed)";
/// The file's owner is the object's, and only root gives files away.
const GIVING: &str = "an object's owner is its file's: to give it to somebody else takes a privilege (EPERM)";
/// What the object holds cannot be seen through a file that may not be read.
const UNSEEN: &str = "what is in a file that the caller may not open is not known: EACCES comes first";
/// `futex_waitv(2)` is restarted by the kernel, and nobody can ask it not to. A handler leaves a trace; a stop does not.
const RESTARTED: &str =
    "the kernel restarts futex_waitv(2) after a stop, and after a handler with SA_RESTART";

/// A file knows its owner only.
const CREATOR: &str = "an object is the file's owner's and group's: who made it and gave it away has no more rights than others";
/// Nobody's memory but the user's own is used up.
const UNLIMITED: &str = "msg_qbytes is what the owner says, without a privilege";
/// Memory is the file system's to limit.
const ROOMY: &str = "a new queue holds 64 MiB: it is the namespace's limit, told when that is made";
/// Nobody runs at that moment who could note it.
const UNSEEN_DEATH: &str =
    "a process that ends without detaching counts no more, but leaves no time and no pid";

const KEY: i32 = 0x0d1f;

fn difference<H>(clause: &'static str, reason: &'static str, instead: fn(&H)) -> Difference<H> {
    Difference { clause, reason, instead }
}

/// Of semaphore sets.
pub fn sysv_semaphores<H: SysvSemaphores>() -> Vec<Difference<H>> {
    vec![
        difference("zero_with_read", BOTH, |h: &H| {
            let id = set(h, 0o644);
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.semop(id, &[wait_zero()])));
        }),
        difference("change_write_only", BOTH, |h: &H| {
            let id = set(h, 0o622);
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.semop(id, &[change(2)])));
            assert_eq!(h.sem_getval(id, 0), Ok(0));
        }),
        difference("reading_allowed", BOTH, |h: &H| {
            let id = set(h, 0o604);
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.sem_getval(id, 0));
                fails(Errno::ACCESS, h.sem_getall(id));
                assert_eq!(h.sem_status(id).unwrap().nsems, 2, "its status can be read");
            });
        }),
        difference("checks_in_order", UNSEEN, |h: &H| {
            let id = set(h, 0o600);
            let beyond = libc::sembuf { sem_num: 9, sem_op: 1, sem_flg: 0 };
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.semop(id, &[beyond])));
        }),
        difference("count_before_access", UNSEEN, |h: &H| {
            set(h, 0o600);
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.semget(KEY, 9, 0o600)));
        }),
        difference("stopped", RESTARTED, |h: &H| {
            let id = set(h, 0o600);
            let taker = blocked(h, || h.semop(id, &[change(-1)]).unwrap());
            taker.signal(libc::SIGSTOP);
            std::thread::sleep(SHORT);
            taker.signal(libc::SIGCONT);
            std::thread::sleep(SHORT);
            h.wait_blocked(taker.pid());
            h.semop(id, &[change(1)]).unwrap();
            taker.assert_ok();
        }),
        difference("creator_keeps_rights", GIVING, |h: &H| {
            as_other(ALICE, ALICE, || {
                let id = set(h, 0o600);
                fails(Errno::PERM, h.sem_set(id, Owner { uid: BOB, gid: BOB, mode: 0o600 }));
                assert_eq!(h.sem_status(id).unwrap().perm.uid, ALICE);
            });
        }),
    ]
}

fn set<H: SysvSemaphores>(h: &H, mode: i32) -> i32 {
    h.semget(KEY, 2, IPC_CREAT | IPC_EXCL | mode).unwrap()
}

fn change(units: i16) -> libc::sembuf {
    libc::sembuf { sem_num: 0, sem_op: units, sem_flg: 0 }
}

fn wait_zero() -> libc::sembuf {
    change(0)
}

/// Of System V queues.
pub fn sysv_messages<H: SysvMessages>() -> Vec<Difference<H>> {
    vec![
        difference("send_write_only", BOTH, |h: &H| {
            let id = queue(h, 0o622);
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT)));
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
        }),
        difference("receive_read_only", BOTH, |h: &H| {
            let id = queue(h, 0o644);
            h.msgsnd(id, 1, b"x", IPC_NOWAIT).unwrap();
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.msgrcv(id, &mut [0; 8], 0, IPC_NOWAIT)));
            assert_eq!(h.msg_status(id).unwrap().qnum, 1);
        }),
        difference("set_gives_rights", GIVING, is_not_given),
        difference("creator_keeps_rights", GIVING, is_not_given),
        difference("creator_group_keeps_rights", CREATOR, |h: &H| {
            as_other(ALICE, ALICE, || _ = queue(h, 0o660));
            let id = h.msgget(KEY, 0).unwrap();
            h.msg_set(id, Owner { uid: 0, gid: 0, mode: 0o060 }, 16384).unwrap();
            as_other(BOB, ALICE, || fails(Errno::ACCESS, h.msgsnd(id, 1, b"x", IPC_NOWAIT)));
        }),
        difference("set_more_than_msgmnb", UNLIMITED, |h: &H| {
            as_other(ALICE, ALICE, || {
                let id = queue(h, 0o600);
                h.msg_set(id, h.msg_status(id).unwrap().perm.owner(), 1 << 20).unwrap();
                assert_eq!(h.msg_status(id).unwrap().qbytes, 1 << 20);
            });
        }),
        difference("first_qbytes", ROOMY, |h: &H| {
            let id = queue(h, 0o600);
            assert_eq!(h.msg_status(id).unwrap().qbytes, 64 << 20);
        }),
    ]
}

fn queue<H: SysvMessages>(h: &H, mode: i32) -> i32 {
    h.msgget(KEY, IPC_CREAT | IPC_EXCL | mode).unwrap()
}

fn is_not_given<H: SysvMessages>(h: &H) {
    as_other(ALICE, ALICE, || {
        let id = queue(h, 0o600);
        fails(Errno::PERM, h.msg_set(id, Owner { uid: BOB, gid: BOB, mode: 0o600 }, 16384));
        assert_eq!(h.msg_status(id).unwrap().perm.uid, ALICE);
    });
}

/// Of System V shared memory.
pub fn sysv_memory<H: SysvMemory>() -> Vec<Difference<H>> {
    vec![
        difference("exited", UNSEEN_DEATH, |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            elsewhere(|| _ = h.shmat(id, 0, 0).unwrap());
            wait_until("it counts no more", || h.shm_status(id).unwrap().nattch == 0);
            assert_eq!(h.shm_status(id).unwrap().dtime, 0);
        }),
        difference("creator_keeps_rights", GIVING, |h: &H| {
            as_other(ALICE, ALICE, || {
                let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
                fails(Errno::PERM, h.shm_set(id, Owner { uid: BOB, gid: BOB, mode: 0o600 }));
            });
        }),
    ]
}

/// Of POSIX queues.
pub fn posix_queues<H: PosixQueues>() -> Vec<Difference<H>> {
    vec![
        difference("denied", BOTH, |h: &H| refuses(h, 0o644, O_RDONLY)),
        difference("write_permission_alone", BOTH, |h: &H| refuses(h, 0o622, O_WRONLY)),
        difference("group_bits", BOTH, |h: &H| refuses(h, 0o640, O_RDONLY)),
    ]
}

/// That who may do only the one may not even do that.
fn refuses<H: PosixQueues>(h: &H, mode: u32, access: i32) {
    rustix::process::umask(rustix::fs::Mode::empty());
    as_other(ALICE, ALICE, || _ = h.mq_open("/ginnel", O_CREAT | O_RDWR, mode, None).unwrap());
    as_other(BOB, ALICE, || fails(Errno::ACCESS, h.mq_open("/ginnel", access, 0, None)));
}

/// Of POSIX semaphores.
pub fn posix_semaphores<H: PosixSemaphores>() -> Vec<Difference<H>> {
    vec![difference("timedwait_not_restarted", RESTARTED, |h: &H| {
        let semaphore = h.sem_open("/ginnel", O_CREAT, 0o600, 0).unwrap();
        restarted(h, || h.sem_timedwait(semaphore, LONG), || h.sem_post(semaphore).unwrap());
    })]
}
