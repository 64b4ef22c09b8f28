//! `mq_overview(7)`, `mq_open(3)`: descriptors across fork, exec and dup.

use std::io::Write;

use ginnel_testkit::fork;
use libc::O_RDWR;

use super::{NAME, count, drain, put, queue, take};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{elsewhere, exec_sleeper, fails, wait_exec};
use crate::home::PosixQueues;

pub(super) fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause("mq_overview(7)", "forked", "a fork inherits the open queue", |h: &H| {
            let mine = queue(h, 2);
            elsewhere(|| put(h, mine, &[(1, "from the fork")]));
            assert_eq!(take(h, mine), Ok((1, "from the fork".into())));
        }),
        clause("mq_overview(7)", "forked_close", "a fork's closing leaves its parent's open", |h: &H| {
            let mine = queue(h, 2);
            elsewhere(|| {
                h.mq_close(mine).unwrap();
                fails(Errno::BADF, h.mq_getattr(mine));
            });
            put(h, mine, &[(1, "x")]);
        }),
        clause("mq_open(3)", "close_on_exec", "exec closes it", |h: &H| {
            let mine = queue(h, 2);
            let child = fork(|| {
                h.mq_getattr(mine).unwrap();
                exec_sleeper();
            });
            wait_exec(child.pid());
            let open = std::fs::read_dir(format!("/proc/{}/fd", child.pid())).unwrap();
            let numbers: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
            assert!(!numbers.contains(&mine.to_string().into()), "{numbers:?}");
        }),
        clause(
            "mq_overview(7)",
            "is_a_descriptor",
            "a queue is a file descriptor: the lowest that is free",
            |h: &H| {
                let probe = std::fs::File::open("/dev/null").unwrap();
                let lowest = std::os::fd::AsRawFd::as_raw_fd(&probe);
                drop(probe);
                assert_eq!(queue(h, 1), lowest);
                // SAFETY: F_GETFD takes no pointer.
                assert_eq!(unsafe { libc::fcntl(lowest, libc::F_GETFD) }, libc::FD_CLOEXEC);
            },
        ),
        clause("mq_overview(7)", "nameless", "a fork uses a queue whose name is gone since", |h: &H| {
            let mine = queue(h, 2);
            let (reader, writer) = std::io::pipe().unwrap();
            let child = fork(|| {
                std::io::Read::read_exact(&mut &reader, &mut [0]).unwrap();
                put(h, mine, &[(2, "late")]);
            });
            h.mq_unlink(NAME).unwrap();
            (&writer).write_all(b"x").unwrap();
            child.assert_ok();
            assert_eq!(take(h, mine), Ok((2, "late".into())));
        }),
    ]
}

/// That a queue's descriptor is a file like any other: of homes whose calls are C's.
pub(super) fn descriptors<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause("mq_overview(7)", "access_mode", "its access mode is what it was opened for", |h: &H| {
            let mine = queue(h, 1);
            let reader = h.mq_open(NAME, libc::O_RDONLY, 0, None).unwrap();
            // SAFETY: F_GETFL takes no pointer.
            let modes = [mine, reader].map(|fd| unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_ACCMODE);
            assert_eq!(modes, [O_RDWR, libc::O_RDONLY]);
        }),
        clause("mq_overview(7)", "duplicated", "its duplicate is the same open queue", |h: &H| {
            let mine = queue(h, 2);
            // SAFETY: dup takes no pointer.
            let again = unsafe { libc::dup(mine) };
            put(h, again, &[(1, "x")]);
            h.mq_setattr(again, libc::O_NONBLOCK.into()).unwrap();
            assert_eq!(h.mq_getattr(mine).unwrap().flags, libc::O_NONBLOCK.into());
            h.mq_close(mine).unwrap();
            assert_eq!(drain(h, again), "x");
        }),
        clause("mq_overview(7)", "plain_close", "close(2) closes it like mq_close", |h: &H| {
            let mine = queue(h, 2);
            // SAFETY: the descriptor is ours.
            assert_eq!(unsafe { libc::close(mine) }, 0);
            fails(Errno::BADF, h.mq_getattr(mine));
            let again = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
            assert_eq!(again, mine, "the number is free");
            assert_eq!(count(h, again), 0);
        }),
    ]
}
