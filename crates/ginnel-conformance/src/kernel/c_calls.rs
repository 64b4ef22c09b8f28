//! Clauses that only C can break: pointers to nothing, commands that there are not, times that are none.
//!
//! Asked of libc's symbols, whoever stands behind them.

use std::ffi::CString;

use libc::{IPC_CREAT, IPC_NOWAIT, IPC_PRIVATE, O_CREAT, O_RDWR};

use super::sysv_semaphore::semtimedop;
use super::{Behind, Symbols, check, done};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::fails;
use crate::home::{PosixQueues, PosixSemaphores, SysvMemory, SysvMessages, SysvSemaphores};

/// An address that no process has.
const NOWHERE: usize = 8;
const DOWN: libc::sembuf = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
const NO_TIMES: [libc::timespec; 3] = [
    libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 },
    libc::timespec { tv_sec: 0, tv_nsec: -1 },
    libc::timespec { tv_sec: -1, tv_nsec: 0 },
];

fn queue<B: Behind>(h: &Symbols<B>) -> i32 {
    h.mq_open("/a", O_CREAT | O_RDWR, 0o600, Some((1, 8))).unwrap()
}

/// All of them.
pub fn clauses<B: Behind>() -> Vec<Clause<Symbols<B>>> {
    let mut all = sysv();
    all.extend(posix());
    all
}

// SAFETY of all calls below: each is given an address that is no one's on purpose, or memory of its own.

fn sysv<B: Behind>() -> Vec<Clause<Symbols<B>>> {
    vec![
        clause("msgop(2)", "send_fault", "a text that is not there is EFAULT", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::FAULT, done(unsafe { libc::msgsnd(id, NOWHERE as *const _, 1, 0) }));
            assert_eq!(h.msg_status(id).unwrap().qnum, 0);
        }),
        clause("msgop(2)", "send_negative", "a length below 0 is EINVAL", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::INVAL, done(unsafe { libc::msgsnd(id, [1u64, 0].as_ptr().cast(), usize::MAX, 0) }));
        }),
        clause("msgop(2)", "receive_fault", "a buffer that is not there is EFAULT", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            h.msgsnd(id, 1, b"x", 0).unwrap();
            // SAFETY: see above.
            let got = unsafe { libc::msgrcv(id, NOWHERE as *mut _, 1, 0, IPC_NOWAIT) };
            fails(Errno::FAULT, check(got as i64));
        }),
        clause("msgop(2)", "receive_negative", "a size below 0 is EINVAL", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            // SAFETY: see above.
            let got = unsafe { libc::msgrcv(id, [0u64; 2].as_mut_ptr().cast(), usize::MAX, 0, IPC_NOWAIT) };
            fails(Errno::INVAL, check(got as i64));
        }),
        clause("msgctl(2)", "msgctl_fault", "a status that is not there is EFAULT", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            for command in [libc::IPC_STAT, libc::IPC_SET] {
                // SAFETY: see above.
                fails(Errno::FAULT, done(unsafe { libc::msgctl(id, command, NOWHERE as *mut _) }));
            }
        }),
        clause("msgctl(2)", "msgctl_command", "a command that there is not is EINVAL", |h| {
            let id = h.msgget(IPC_PRIVATE, 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::INVAL, done(unsafe { libc::msgctl(id, 77, std::ptr::null_mut()) }));
        }),
        clause("semop(2)", "semop_fault", "operations that are not there are EFAULT", |h| {
            let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::FAULT, done(unsafe { libc::semop(id, NOWHERE as *mut _, 1) }));
        }),
        clause("semop(2)", "semtimedop_fault", "a time-out that is not there is EFAULT", |h| {
            let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            let mut down = DOWN;
            // SAFETY: see above.
            fails(Errno::FAULT, done(unsafe { semtimedop(id, &mut down, 1, NOWHERE as *const _) }));
        }),
        clause(
            "semop(2)",
            "semtimedop_no_time",
            "a time-out that is no time is EINVAL, waiting or not",
            |h| {
                let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
                let (mut down, mut up) = (DOWN, libc::sembuf { sem_op: 1, ..DOWN });
                for time in &NO_TIMES {
                    // SAFETY: see above.
                    unsafe {
                        fails(Errno::INVAL, done(semtimedop(id, &mut down, 1, time)));
                        fails(Errno::INVAL, done(semtimedop(id, &mut up, 1, time)));
                    }
                }
                assert_eq!(h.sem_getval(id, 0), Ok(0));
            },
        ),
        clause("semctl(2)", "semctl_fault", "values that are not there are EFAULT", |h| {
            let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            for command in [libc::GETALL, libc::SETALL, libc::IPC_STAT, libc::IPC_SET] {
                // SAFETY: see above.
                fails(Errno::FAULT, done(unsafe { libc::semctl(id, 0, command, NOWHERE) }));
            }
        }),
        clause("semctl(2)", "semctl_command", "a command that there is not is EINVAL", |h| {
            let id = h.semget(IPC_PRIVATE, 1, 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::INVAL, done(unsafe { libc::semctl(id, 0, 77) }));
        }),
        clause("shmctl(2)", "shmctl_fault", "a status that is not there is EFAULT", |h| {
            let id = h.shmget(IPC_PRIVATE, 1, 0o600).unwrap();
            for command in [libc::IPC_STAT, libc::IPC_SET] {
                // SAFETY: see above.
                fails(Errno::FAULT, done(unsafe { libc::shmctl(id, command, NOWHERE as *mut _) }));
            }
        }),
        clause("shmctl(2)", "shmctl_command", "a command that there is not is EINVAL", |h| {
            let id = h.shmget(IPC_PRIVATE, 1, IPC_CREAT | 0o600).unwrap();
            // SAFETY: see above.
            fails(Errno::INVAL, done(unsafe { libc::shmctl(id, 77, std::ptr::null_mut()) }));
        }),
    ]
}

fn posix<B: Behind>() -> Vec<Clause<Symbols<B>>> {
    vec![
        clause("mq_send(3)", "mq_send_fault", "a text that is not there is EFAULT", |h| {
            let queue = queue(h);
            // SAFETY: see above.
            fails(Errno::FAULT, done(unsafe { libc::mq_send(queue, NOWHERE as *const _, 1, 0) }));
            assert_eq!(h.mq_getattr(queue).unwrap().curmsgs, 0);
        }),
        clause("mq_send(3)", "mq_send_no_time", "a time that is none is EINVAL", |h| {
            let queue = queue(h);
            h.mq_timedsend(queue, b"x", 0, None).unwrap();
            for time in &NO_TIMES {
                // SAFETY: see above.
                fails(Errno::INVAL, done(unsafe { libc::mq_timedsend(queue, c"x".as_ptr(), 1, 0, time) }));
            }
        }),
        clause("mq_receive(3)", "mq_receive_no_time", "a time that is none is EINVAL", |h| {
            let (queue, mut text, mut priority) = (queue(h), [0; 8], 0);
            for time in &NO_TIMES {
                // SAFETY: see above.
                let got = unsafe { libc::mq_timedreceive(queue, text.as_mut_ptr(), 8, &mut priority, time) };
                fails(Errno::INVAL, check(got as i64));
            }
        }),
        clause("mq_receive(3)", "mq_receive_before_1970", "a deadline before 1970's end is long past", |h| {
            let (queue, mut text) = (queue(h), [0; 8]);
            let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: see above.
            let got =
                unsafe { libc::mq_timedreceive(queue, text.as_mut_ptr(), 8, std::ptr::null_mut(), &time) };
            fails(Errno::TIMEDOUT, check(got as i64));
        }),
        clause("mq_receive(3)", "mq_receive_no_priority", "the priority need not be asked for", |h| {
            let (queue, mut text) = (queue(h), [0; 8]);
            h.mq_timedsend(queue, b"xyz", 5, None).unwrap();
            // SAFETY: see above.
            let got = unsafe { libc::mq_receive(queue, text.as_mut_ptr(), 8, std::ptr::null_mut()) };
            assert_eq!(got, 3);
        }),
        clause("mq_notify(3)", "mq_notify_kind", "a kind of notice that there is not is EINVAL", |h| {
            let queue = queue(h);
            // SAFETY: all zeros is a valid sigevent.
            unsafe {
                let mut event: libc::sigevent = std::mem::zeroed();
                event.sigev_notify = 77;
                fails(Errno::INVAL, done(libc::mq_notify(queue, &event)));
            }
        }),
        clause("mq_getattr(3)", "mq_getattr_fault", "attributes that are not there are EFAULT", |h| {
            let queue = queue(h);
            // SAFETY: see above.
            fails(Errno::FAULT, done(unsafe { libc::mq_getattr(queue, NOWHERE as *mut _) }));
        }),
        clause("mq_getattr(3)", "mq_setattr_old", "what was before need not be asked for", |h| {
            let queue = queue(h);
            // SAFETY: all zeros is a valid mq_attr.
            unsafe {
                let mut new: libc::mq_attr = std::mem::zeroed();
                new.mq_flags = libc::O_NONBLOCK.into();
                done(libc::mq_setattr(queue, &new, std::ptr::null_mut())).unwrap();
            }
            assert_eq!(h.mq_getattr(queue).unwrap().flags, libc::O_NONBLOCK.into());
        }),
        clause(
            "sem_wait(3)",
            "sem_no_time",
            "a time whose nanoseconds are none is EINVAL where it waits",
            |h| {
                let semaphore = h.sem_open("/a", O_CREAT, 0o600, 0).unwrap();
                for time in &NO_TIMES[..2] {
                    // SAFETY: see above.
                    fails(Errno::INVAL, done(unsafe { libc::sem_timedwait(semaphore as *mut _, time) }));
                }
            },
        ),
        clause("sem_open(3)", "sem_open_twice", "opening twice in a process gives the same address", |h| {
            let name = CString::new("/a").unwrap();
            let one = h.sem_open("/a", O_CREAT, 0o600, 1).unwrap();
            // SAFETY: see above.
            assert_eq!(unsafe { libc::sem_open(name.as_ptr(), 0) } as usize, one);
            h.sem_close(one).unwrap();
            assert_eq!(h.sem_getvalue(one), Ok(1), "it is still open once");
        }),
    ]
}
