//! `shmop(2)`.

use ginnel_testkit::{Exit, fork};
use libc::{IPC_CREAT, SHM_EXEC, SHM_RDONLY, SHM_REMAP, SHM_RND};

use super::{KEY, PAGE_BYTES, attached, attaches, attaches_become, peek, poke, private};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{BOB, as_other, elsewhere, exec_sleeper, fails, now, pid, recent, wait_exec};
use crate::home::SysvMemory;

const PAGE: &str = "shmop(2)";

/// An address at which nothing is: where something just was.
fn free_address<H: SysvMemory>(h: &H, pages: usize) -> usize {
    let at = attached(h, private(h, pages * PAGE_BYTES));
    h.shmdt(at).unwrap();
    at
}

pub(super) fn clauses<H: SysvMemory>() -> Vec<Clause<H>> {
    let mut all = attaching();
    all.extend(ends());
    all
}

fn attaching<H: SysvMemory>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "attach", "a segment may be attached several times: the bytes are the same", |h: &H| {
            let id = private(h, 2 * PAGE_BYTES);
            let (one, two) = (attached(h, id), attached(h, id));
            assert_ne!(one, two);
            assert_eq!((one % PAGE_BYTES, attaches(h, id)), (0, 2));
            poke(one + PAGE_BYTES, 7);
            assert_eq!(peek(two + PAGE_BYTES), 7);
        }),
        clause(PAGE, "attach_status", "attaching counts, stamps atime, and sets lpid", |h: &H| {
            let (id, since) = (private(h, 1), now());
            let child = fork(|| {
                attached(h, id);
                assert_eq!(attaches(h, id), 1);
            });
            let other = child.pid();
            child.assert_ok();
            attaches_become(h, id, 0);
            let status = h.shm_status(id).unwrap();
            assert_eq!((status.lpid, status.cpid), (other, pid()));
            recent(status.atime, since);
            attached(h, id);
            assert_eq!(h.shm_status(id).unwrap().lpid, pid());
        }),
        clause(PAGE, "attach_there", "an aligned address is where it is attached", |h: &H| {
            let at = free_address(h, 4);
            let id = private(h, PAGE_BYTES);
            assert_eq!(h.shmat(id, at + PAGE_BYTES, 0), Ok(at + PAGE_BYTES));
            poke(at + PAGE_BYTES, 1);
        }),
        clause(PAGE, "attach_unaligned", "one that is not on a page is EINVAL", |h: &H| {
            let at = free_address(h, 4);
            let id = private(h, 1);
            fails(Errno::INVAL, h.shmat(id, at + 1, 0));
            fails(Errno::INVAL, h.shmat(id, at + 8, 0));
            assert_eq!(attaches(h, id), 0);
        }),
        clause(PAGE, "attach_rounded", "SHM_RND rounds it down", |h: &H| {
            let at = free_address(h, 4);
            let id = private(h, 1);
            assert_eq!(h.shmat(id, at + PAGE_BYTES + 77, SHM_RND), Ok(at + PAGE_BYTES));
        }),
        clause(PAGE, "attach_taken", "where something is mapped it is EINVAL", |h: &H| {
            let there = attached(h, private(h, 2 * PAGE_BYTES));
            let id = private(h, 2 * PAGE_BYTES);
            fails(Errno::INVAL, h.shmat(id, there, 0));
            fails(Errno::INVAL, h.shmat(id, there + PAGE_BYTES, 0));
            assert_eq!(attaches(h, id), 0);
        }),
        clause(PAGE, "attach_over", "with SHM_REMAP it takes the place of what is there", |h: &H| {
            let old = private(h, PAGE_BYTES);
            let at = attached(h, old);
            poke(at, 1);
            let id = private(h, PAGE_BYTES);
            assert_eq!(h.shmat(id, at, SHM_REMAP), Ok(at));
            assert_eq!(peek(at), 0);
            poke(at, 2);
            assert_eq!((attaches(h, id), attaches(h, old)), (1, 0));
            assert_eq!(peek(attached(h, old)), 1);
        }),
        clause(PAGE, "attach_over_nothing", "SHM_REMAP without an address is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.shmat(private(h, 1), 0, SHM_REMAP));
        }),
        clause(PAGE, "attach_read_only", "SHM_RDONLY attaches for reading: a write is SIGSEGV", |h: &H| {
            let id = private(h, 1);
            poke(attached(h, id), 5);
            let child = fork(|| {
                let at = h.shmat(id, 0, SHM_RDONLY).unwrap();
                assert_eq!(peek(at), 5);
                poke(at, 6);
            });
            assert_eq!(child.wait(), Exit::Signal(libc::SIGSEGV));
            assert_eq!(peek(attached(h, id)), 5);
        }),
        clause(PAGE, "attach_exec", "SHM_EXEC needs execute permission", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o666).unwrap();
            let executable = h.shmget(KEY + 1, 1, IPC_CREAT | 0o777).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.shmat(id, 0, SHM_EXEC));
                h.shmat(executable, 0, SHM_EXEC).unwrap();
            });
        }),
        clause(PAGE, "attach_bad_id", "an id that is no segment's is EINVAL", |h: &H| {
            let id = private(h, 1);
            for id in [-1, i32::MIN, id + 1, i32::MAX] {
                fails(Errno::INVAL, h.shmat(id, 0, 0));
            }
        }),
        clause(PAGE, "attach_removed_id", "a removed segment's is EINVAL", |h: &H| {
            let id = private(h, 1);
            elsewhere(|| h.shm_remove(id).unwrap());
            fails(Errno::INVAL, h.shmat(id, 0, 0));
        }),
        clause(PAGE, "attach_denied", "attaching without the permission is EACCES", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o600).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.shmat(id, 0, 0));
                fails(Errno::ACCESS, h.shmat(id, 0, SHM_RDONLY));
            });
            assert_eq!(attaches(h, id), 0);
        }),
        clause(
            PAGE,
            "attach_for_reading",
            "read permission alone lets attach with SHM_RDONLY only",
            |h: &H| {
                let id = h.shmget(KEY, 1, IPC_CREAT | 0o644).unwrap();
                poke(attached(h, id), 8);
                as_other(BOB, BOB, || {
                    fails(Errno::ACCESS, h.shmat(id, 0, 0));
                    assert_eq!(peek(h.shmat(id, 0, SHM_RDONLY).unwrap()), 8);
                });
            },
        ),
        clause(PAGE, "attach_for_writing", "write permission alone lets attach not at all", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o622).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.shmat(id, 0, 0));
                fails(Errno::ACCESS, h.shmat(id, 0, SHM_RDONLY));
            });
        }),
        clause(PAGE, "attach_shared", "what the mode grants to everybody another user may do", |h: &H| {
            let id = h.shmget(KEY, 1, IPC_CREAT | 0o666).unwrap();
            as_other(BOB, BOB, || poke(attached(h, id), 11));
            assert_eq!(peek(attached(h, id)), 11);
        }),
    ]
}

fn ends<H: SysvMemory>() -> Vec<Clause<H>> {
    vec![
        clause(PAGE, "detach", "detaching counts down, stamps dtime, and sets lpid", |h: &H| {
            let (id, since) = (private(h, 1), now());
            let at = attached(h, id);
            attached(h, id);
            assert_eq!(h.shm_status(id).unwrap().dtime, 0);
            h.shmdt(at).unwrap();
            let status = h.shm_status(id).unwrap();
            assert_eq!((status.nattch, status.lpid), (1, pid()));
            recent(status.dtime, since);
        }),
        clause(PAGE, "detached_is_gone", "what is detached is not there any more", |h: &H| {
            let at = attached(h, private(h, 1));
            h.shmdt(at).unwrap();
            let child = fork(|| _ = peek(at));
            assert_eq!(child.wait(), Exit::Signal(libc::SIGSEGV));
        }),
        clause(PAGE, "detach_elsewhere", "an address at which nothing is attached is EINVAL", |h: &H| {
            let at = attached(h, private(h, 3 * PAGE_BYTES));
            for address in [0, at + PAGE_BYTES, at + 1, 0x1000] {
                fails(Errno::INVAL, h.shmdt(address));
            }
            h.shmdt(at).unwrap();
            fails(Errno::INVAL, h.shmdt(at));
        }),
        clause(PAGE, "detach_not_ours", "memory of another kind is not detached", |h: &H| {
            let page = [0u8; 2 * PAGE_BYTES];
            let address = page.as_ptr() as usize;
            fails(Errno::INVAL, h.shmdt(address.next_multiple_of(PAGE_BYTES)));
        }),
        clause(PAGE, "forked", "a fork inherits the attaches, and counts", |h: &H| {
            let id = private(h, 1);
            let at = attached(h, id);
            let child = fork(|| {
                poke(at, 3);
                assert_eq!(attaches(h, id), 2);
            });
            child.assert_ok();
            attaches_become(h, id, 1);
            assert_eq!(peek(at), 3);
        }),
        clause(PAGE, "forked_detach", "a fork's detaching leaves its parent attached", |h: &H| {
            let id = private(h, 1);
            let at = attached(h, id);
            elsewhere(|| {
                h.shmdt(at).unwrap();
                assert_eq!(attaches(h, id), 1);
            });
            poke(at, 4);
            attaches_become(h, id, 1);
        }),
        clause(PAGE, "executed", "exec detaches", |h: &H| {
            let id = private(h, 1);
            let child = fork(|| {
                attached(h, id);
                exec_sleeper();
            });
            wait_exec(child.pid());
            attaches_become(h, id, 0);
        }),
        clause(PAGE, "exited", "exit detaches", |h: &H| {
            let (id, since) = (private(h, 1), now());
            elsewhere(|| _ = (attached(h, id), attached(h, id)));
            attaches_become(h, id, 0);
            recent(h.shm_status(id).unwrap().dtime, since);
        }),
        clause(PAGE, "killed", "a killed process is detached", |h: &H| {
            let id = private(h, 1);
            let child = fork(|| {
                attached(h, id);
                loop {
                    std::thread::park();
                }
            });
            attached(h, id);
            attaches_become(h, id, 2);
            child.kill();
            child.wait();
            attaches_become(h, id, 1);
        }),
    ]
}
