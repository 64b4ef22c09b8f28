//! Where the user-space home differs on purpose: the clause that does not hold, why, and what holds instead.
//!
//! Asserted in both directions: there the clause must fail and the other hold, in the kernel's home the other must fail.

use libc::{IPC_CREAT, IPC_EXCL};

use crate::Errno;
use crate::clause::Difference;
use crate::help::{ALICE, BOB, SHORT, as_other, blocked, fails, restarted};
use crate::home::{Owner, SysvSemaphores};

/// To wait, or to take the lock, is to write to the object's file.
const BOTH: &str =
    "to use an object is to read and to write its file: one permission alone grants neither (fails closed)";
/// The file's owner is the object's, and only root gives files away.
const GIVING: &str = "an object's owner is its file's: to give it to somebody else takes a privilege (EPERM)";
/// What the object holds cannot be seen through a file that may not be read.
const UNSEEN: &str = "what is in a file that the caller may not open is not known: EACCES comes first";
/// `futex_waitv(2)` is restarted by the kernel, and nobody can ask it not to.
const RESTARTED: &str =
    "the kernel restarts futex_waitv(2) after a handler with SA_RESTART, and after a stop";

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
        difference("never_restarted", RESTARTED, |h: &H| {
            let id = set(h, 0o600);
            restarted(h, || h.semop(id, &[change(-1)]), || h.semop(id, &[change(1)]).unwrap());
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
