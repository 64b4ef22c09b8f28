//! Clauses of limits that only the kernel has: the sysctls of an IPC namespace and the limits of a process.
//!
//! A user-space home has limits of its own, or none; under the drop-in these are not asked.

use libc::{IPC_CREAT, IPC_NOWAIT, IPC_PRIVATE, O_CREAT, O_RDWR};

use super::Kernel;
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, as_other, fails};
use crate::home::{PosixQueues, SysvMemory, SysvMessages, SysvSemaphores};

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// All of them.
pub fn clauses() -> Vec<Clause<Kernel>> {
    let mut all = sysv();
    all.extend(posix());
    all
}

fn sysv() -> Vec<Clause<Kernel>> {
    vec![
        clause("msgget(2)", "msgmni", "one queue more than MSGMNI is ENOSPC", |h| {
            sysctl("kernel/msgmni", "2");
            let ids = [h.msgget(IPC_PRIVATE, 0o600).unwrap(), h.msgget(1, IPC_CREAT | 0o600).unwrap()];
            fails(Errno::NOSPC, h.msgget(2, IPC_CREAT | 0o600));
            assert_eq!(h.msgget(1, IPC_CREAT), Ok(ids[1]), "what exists is opened");
            h.msg_remove(ids[0]).unwrap();
            h.msgget(2, IPC_CREAT | 0o600).unwrap();
        }),
        clause("msgget(2)", "msgmnb", "a new queue's qbytes is MSGMNB", |h| {
            sysctl("kernel/msgmnb", "777");
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            assert_eq!(h.msg_status(id).unwrap().qbytes, 777);
        }),
        clause("msgop(2)", "msgmax", "MSGMAX bounds a message", |h| {
            sysctl("kernel/msgmax", "10");
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            fails(Errno::INVAL, h.msgsnd(id, 1, &[0; 11], IPC_NOWAIT));
            h.msgsnd(id, 1, &[0; 10], IPC_NOWAIT).unwrap();
        }),
        clause("semget(2)", "semmni", "one set more than SEMMNI is ENOSPC", |h| {
            sysctl("kernel/sem", "32000 1024000000 500 2");
            h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            h.semget(1, 1, IPC_CREAT | 0o600).unwrap();
            fails(Errno::NOSPC, h.semget(2, 1, IPC_CREAT | 0o600));
        }),
        clause("semget(2)", "semmns", "one semaphore more than SEMMNS is ENOSPC", |h| {
            sysctl("kernel/sem", "32000 10 500 32000");
            let id = h.semget(IPC_PRIVATE, 6, 0o600).unwrap();
            fails(Errno::NOSPC, h.semget(IPC_PRIVATE, 5, 0o600));
            h.semget(IPC_PRIVATE, 4, 0o600).unwrap();
            h.sem_remove(id).unwrap();
            h.semget(IPC_PRIVATE, 6, 0o600).unwrap();
        }),
        clause("semget(2)", "semmsl", "more semaphores in a set than SEMMSL are EINVAL", |h| {
            sysctl("kernel/sem", "3 1024000000 500 32000");
            h.semget(IPC_PRIVATE, 3, 0o600).unwrap();
            fails(Errno::INVAL, h.semget(IPC_PRIVATE, 4, 0o600));
        }),
        clause("semop(2)", "semopm", "more operations than SEMOPM are E2BIG", |h| {
            sysctl("kernel/sem", "32000 1024000000 3 32000");
            let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            let up = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
            h.semop(id, &[up; 3]).unwrap();
            fails(Errno::TOOBIG, h.semop(id, &[up; 4]));
            assert_eq!(h.sem_getval(id, 0), Ok(3));
        }),
        clause("shmget(2)", "shmmax", "a segment larger than SHMMAX is EINVAL", |h| {
            sysctl("kernel/shmmax", "8192");
            fails(Errno::INVAL, h.shmget(IPC_PRIVATE, 8193, 0o600));
            h.shmget(IPC_PRIVATE, 8192, 0o600).unwrap();
        }),
        clause("shmget(2)", "shmmni", "one segment more than SHMMNI is ENOSPC", |h| {
            sysctl("kernel/shmmni", "1");
            h.shmget(IPC_PRIVATE, 1, 0o600).unwrap();
            fails(Errno::NOSPC, h.shmget(IPC_PRIVATE, 1, 0o600));
        }),
        clause("shmget(2)", "shmall", "more pages than SHMALL are ENOSPC", |h| {
            sysctl("kernel/shmall", "3");
            h.shmget(IPC_PRIVATE, 2 * 4096, 0o600).unwrap();
            fails(Errno::NOSPC, h.shmget(IPC_PRIVATE, 2 * 4096, 0o600));
            h.shmget(IPC_PRIVATE, 1, 0o600).unwrap();
        }),
    ]
}

fn posix() -> Vec<Clause<Kernel>> {
    let mut all = vec![
        clause("mq_open(3)", "queues_max", "one queue more than queues_max is ENOSPC", |h: &Kernel| {
            sysctl("fs/mqueue/queues_max", "1");
            h.mq_open("/a", O_CREAT | O_RDWR, 0o666, None).unwrap();
            as_other(ALICE, ALICE, || fails(Errno::NOSPC, h.mq_open("/b", O_CREAT | O_RDWR, 0o600, None)));
        }),
        clause("mq_open(3)", "msg_max", "without a privilege maxmsg above msg_max is EINVAL", |h| {
            as_other(ALICE, ALICE, || {
                fails(Errno::INVAL, h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((11, 8))));
                h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((10, 8))).unwrap();
            });
        }),
        clause("mq_open(3)", "msgsize_max", "and msgsize above msgsize_max", |h| {
            as_other(ALICE, ALICE, || {
                fails(Errno::INVAL, h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((1, 8193))));
                h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((1, 8192))).unwrap();
            });
        }),
        clause("mq_overview(7)", "defaults", "msg_default and msgsize_default are a new queue's", |h| {
            sysctl("fs/mqueue/msg_default", "3");
            sysctl("fs/mqueue/msgsize_default", "300");
            let queue = h.mq_open("/a", O_CREAT | O_RDWR, 0o600, None).unwrap();
            let attr = h.mq_getattr(queue).unwrap();
            assert_eq!((attr.maxmsg, attr.msgsize), (3, 300));
        }),
    ];
    all.push(clause(
        "getrlimit(2)",
        "rlimit_msgqueue",
        "a user's queues within RLIMIT_MSGQUEUE, or EMFILE",
        |h| {
            // Its own user: what others' namespaces still hold while they are torn down counts for Alice.
            as_other(1099, 1099, || {
                rustix::process::setrlimit(
                    rustix::process::Resource::Msgqueue,
                    rustix::process::Rlimit { current: Some(1000), maximum: Some(1000) },
                )
                .unwrap();
                fails(Errno::MFILE, h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((10, 1000))));
                h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((1, 10))).unwrap();
            });
        },
    ));
    all
}
