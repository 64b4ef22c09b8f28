//! `shmget(2)`.

use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, SHM_NORESERVE};

use super::{KEY, PAGE_BYTES, attached, peek, poke, private};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails, now, pid, recent};
use crate::home::SysvMemory;

const PAGE: &str = "shmget(2)";

pub(super) fn clauses<H: SysvMemory>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "private", "IPC_PRIVATE makes a new segment each time, whatever the flags", |h: &H| {
            let ids = [0o600, 0o600 | IPC_CREAT, 0o600 | IPC_CREAT | IPC_EXCL, 0o600 | IPC_EXCL]
                .map(|flags| h.shmget(IPC_PRIVATE, 1, flags).unwrap());
            assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        }),
        clause(PAGE, "same_key", "a key leads every process to the same bytes", |h: &H| {
            let id = h.shmget(KEY, 100, IPC_CREAT | 0o600).unwrap();
            elsewhere(|| {
                assert_eq!(h.shmget(KEY, 100, 0), Ok(id));
                poke(attached(h, id) + 99, 42);
            });
            assert_eq!(peek(attached(h, id) + 99), 42);
        }),
        clause(PAGE, "unknown_key", "a key without a segment is ENOENT without IPC_CREAT", |h: &H| {
            fails(Errno::NOENT, h.shmget(KEY, 1, 0o600));
            fails(Errno::NOENT, h.shmget(KEY, 0, IPC_EXCL));
        }),
        clause(PAGE, "exclusive", "IPC_CREAT with IPC_EXCL is EEXIST where there is a segment", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            fails(Errno::EXIST, h.shmget(KEY, 1, IPC_CREAT | IPC_EXCL | 0o600));
            assert_eq!(h.shmget(KEY, 1, IPC_CREAT | 0o600), Ok(id));
        }),
        clause(
            PAGE,
            "first_status",
            "a new segment is unattached, its maker is cpid, its ctime now",
            |h: &H| {
                let since = now();
                let id = h.shmget(KEY, 5000, IPC_CREAT | 0o640).unwrap();
                let status = h.shm_status(id).unwrap();
                assert_eq!((status.segsz, status.nattch, status.atime, status.dtime), (5000, 0, 0, 0));
                assert_eq!((status.cpid, status.lpid, status.doomed), (pid(), 0, false));
                assert_eq!((status.perm.key, status.perm.mode), (KEY, 0o640));
                recent(status.ctime, since);
            },
        ),
        clause(
            PAGE,
            "first_owner",
            "owner and creator are the caller's effective user and group",
            |h: &H| {
                as_other(ALICE, BOB, || _ = h.shmget(KEY, 1, IPC_CREAT | 0o644).unwrap());
                let perm = h.shm_status(h.shmget(KEY, 0, 0).unwrap()).unwrap().perm;
                assert_eq!((perm.uid, perm.gid, perm.cuid, perm.cgid), (ALICE, BOB, ALICE, BOB));
            },
        ),
        clause(PAGE, "first_bytes", "its bytes are 0, to the end of its last page", |h: &H| {
            let at = attached(h, private(h, PAGE_BYTES + 1));
            assert!((0..2 * PAGE_BYTES).all(|offset| peek(at + offset) == 0));
            poke(at + 2 * PAGE_BYTES - 1, 1);
        }),
        clause(PAGE, "size_none", "a new segment of 0 bytes is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.shmget(KEY, 0, IPC_CREAT | 0o600));
            fails(Errno::INVAL, h.shmget(IPC_PRIVATE, 0, 0o600));
        }),
        clause(PAGE, "size_most", "a size beyond every limit is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.shmget(IPC_PRIVATE, usize::MAX, 0o600));
            fails(Errno::NOENT, h.shmget(KEY, 0, 0));
        }),
        clause(PAGE, "size_unsaid", "who opens a segment need not say its size, or may say less", |h: &H| {
            let id = h.shmget(KEY, 5000, IPC_CREAT | 0o600).unwrap();
            assert_eq!(h.shmget(KEY, 0, 0), Ok(id));
            assert_eq!(h.shmget(KEY, 4999, IPC_CREAT | 0o600), Ok(id));
            assert_eq!(h.shm_status(id).unwrap().segsz, 5000);
        }),
        clause(
            PAGE,
            "size_more",
            "more than an existing segment has is EINVAL, be it within its last page",
            |h: &H| {
                h.shmget(KEY, 5000, IPC_CREAT | 0o600).unwrap();
                fails(Errno::INVAL, h.shmget(KEY, 5001, 0));
                fails(Errno::INVAL, h.shmget(KEY, 5001, IPC_CREAT | 0o600));
            },
        ),
        clause(PAGE, "exists_before_size", "EEXIST is said before the size is looked at", |h: &H| {
            h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            fails(Errno::EXIST, h.shmget(KEY, 9, IPC_CREAT | IPC_EXCL | 0o600));
        }),
        clause(PAGE, "nine_bits", "the mode is the lowest nine bits of the flags", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o751).unwrap();
            assert_eq!(h.shm_status(id).unwrap().perm.mode, 0o751);
        }),
        clause(PAGE, "no_umask", "the umask takes nothing away", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o666).unwrap();
            assert_eq!(h.shm_status(id).unwrap().perm.mode, 0o666);
        }),
        clause(
            PAGE,
            "asks_too_much",
            "bits in the flags that the mode does not grant are EACCES",
            |h: &H| {
                h.shmget(KEY, 1, IPC_CREAT | 0o644).unwrap();
                as_other(BOB, BOB, || {
                    h.shmget(KEY, 1, 0o444).unwrap();
                    fails(Errno::ACCESS, h.shmget(KEY, 1, 0o666));
                });
            },
        ),
        clause(PAGE, "asks_nothing", "without bits in the flags anybody learns the id", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || {
                assert_eq!(h.shmget(KEY, 1, 0), Ok(id));
                fails(Errno::ACCESS, h.shmat(id, 0, 0));
            });
        }),
        clause(PAGE, "key_again", "a removed segment's key is free, its id is not the new one's", |h: &H| {
            let old = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            h.shm_remove(old).unwrap();
            fails(Errno::NOENT, h.shmget(KEY, 1, 0));
            let new = h.shmget(KEY, 9, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            assert_ne!(old, new);
            fails(Errno::INVAL, h.shmat(old, 0, 0));
        }),
        clause(PAGE, "outlives_its_maker", "a segment and its bytes outlive every process", |h: &H| {
            elsewhere(|| poke(attached(h, h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap()), 9));
            assert_eq!(peek(attached(h, h.shmget(KEY, 0, 0).unwrap())), 9);
        }),
        clause(PAGE, "noreserve", "SHM_NORESERVE changes nothing that is seen", |h: &H| {
            let id = h.shmget(IPC_PRIVATE, 1 << 20, 0o600 | SHM_NORESERVE).unwrap();
            let at = attached(h, id);
            poke(at + (1 << 20) - 1, 3);
            assert_eq!((peek(at), h.shm_status(id).unwrap().segsz), (0, 1 << 20));
        }),
    ]
}
