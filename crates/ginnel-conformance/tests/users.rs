//! Two users and five modes, in both homes: what each of them could do with an object of each kind.
//!
//! The owner is a third one; root only makes the place. The table has the kernel's answer, and the user-space home's behind
//! a slash where it is another: `cargo test -p ginnel-conformance --test users -- --nocapture`.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use ginnel_conformance::home::{
    Home, Owner, PosixMemory, PosixQueues, PosixSemaphores, SysvMemory, SysvMessages, SysvSemaphores,
};
use ginnel_conformance::kernel::Kernel;
use ginnel_conformance::{Errno, Result};
use ginnel_engine::memory::posix_shm::PosixShm;
use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::posix_queue::{PosixQueue, QueueLimits};
use ginnel_engine::message::sysv_queue::{self, SysvQueue};
use ginnel_engine::namespace::{Change, Kind, Namespace};
use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores as Set;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{as_user, isolated_for};
use libc::{
    IPC_CREAT, IPC_EXCL, IPC_NOWAIT, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, SHM_RDONLY,
};

const MODES: [u32; 5] = [0o600, 0o660, 0o640, 0o622, 0o666];
const GROUP: u32 = 1500;
const OWNER: (u32, u32) = (1001, GROUP);
/// In the object's group, and not.
const USERS: [(&str, (u32, u32)); 2] = [("group", (1002, GROUP)), ("other", (1003, 1003))];
const KEY: i32 = 0x0d1f;
const NEW: i32 = IPC_CREAT | IPC_EXCL;
const SHORT: Duration = Duration::from_millis(1);
const PLACE: &str = "/dev/shm/everybody";

const READ: i32 = 0o400;
const WRITE: i32 = 0o200;
const DOWN: libc::sembuf = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: IPC_NOWAIT as i16 };
const ZERO: libc::sembuf = libc::sembuf { sem_num: 1, sem_op: 0, sem_flg: IPC_NOWAIT as i16 };

/// What is asked of a home.
type Ask<H> = fn(&H) -> Result<()>;
/// By the owner: a new object of this mode, in which there is something to take.
type Make<H> = fn(&H, u32);
/// A call, as the kernel has it and as the user-space home does.
type Call = (&'static str, Ask<Kernel>, Ask<Namespace>);

struct Mechanism {
    name: &'static str,
    make: (Make<Kernel>, Make<Namespace>),
    calls: &'static [Call],
    /// By root.
    remove: (Ask<Kernel>, Ask<Namespace>),
}

fn other(mode: u32) -> Owner {
    Owner { uid: OWNER.0, gid: OWNER.1, mode }
}

fn change() -> Change {
    Change { uid: OWNER.0, gid: OWNER.1, mode: 0o777 }
}

const QUEUE: Mechanism = Mechanism {
    name: "System V queue",
    make: (
        |h, mode| {
            let id = h.msgget(KEY, NEW | mode as i32).unwrap();
            h.msgsnd(id, 1, b"x", IPC_NOWAIT).unwrap();
        },
        |home, mode| {
            let queue = SysvQueue::open(home, SysvQueue::get(home, KEY, NEW | mode as i32).unwrap()).unwrap();
            queue.send(1, b"x", IPC_NOWAIT, Patience::None).unwrap();
        },
    ),
    calls: &[
        ("get", |h| h.msgget(KEY, 0).map(drop), |home| SysvQueue::get(home, KEY, 0).map(drop)),
        ("get to read", |h| h.msgget(KEY, READ).map(drop), |home| SysvQueue::get(home, KEY, READ).map(drop)),
        (
            "get to write",
            |h| h.msgget(KEY, WRITE).map(drop),
            |home| SysvQueue::get(home, KEY, WRITE).map(drop),
        ),
        (
            "stat",
            |h| h.msg_status(h.msgget(KEY, 0)?).map(drop),
            |home| SysvQueue::status(home, SysvQueue::get(home, KEY, 0)?).map(drop),
        ),
        (
            "send",
            |h| h.msgsnd(h.msgget(KEY, 0)?, 2, b"y", IPC_NOWAIT),
            |home| {
                SysvQueue::open(home, SysvQueue::get(home, KEY, 0)?)?.send(
                    2,
                    b"y",
                    IPC_NOWAIT,
                    Patience::None,
                )
            },
        ),
        (
            "receive",
            |h| h.msgrcv(h.msgget(KEY, 0)?, &mut [0; 8], 1, IPC_NOWAIT).map(drop),
            |home| {
                let queue = SysvQueue::open(home, SysvQueue::get(home, KEY, 0)?)?;
                queue.recv(&mut [0; 8], 1, IPC_NOWAIT, Patience::None).map(drop)
            },
        ),
        (
            "set",
            |h| h.msg_set(h.msgget(KEY, 0)?, other(0o777), 100),
            |home| {
                let Change { uid, gid, mode } = change();
                let change = sysv_queue::Change { uid, gid, mode, bytes_max: 100 };
                SysvQueue::set(home, SysvQueue::get(home, KEY, 0)?, change)
            },
        ),
        (
            "remove",
            |h| h.msg_remove(h.msgget(KEY, 0)?),
            |home| SysvQueue::remove(home, SysvQueue::get(home, KEY, 0)?),
        ),
    ],
    remove: (
        |h| h.msg_remove(h.msgget(KEY, 0)?),
        |home| SysvQueue::remove(home, SysvQueue::get(home, KEY, 0)?),
    ),
};

fn set(home: &Namespace) -> Result<Set> {
    Set::open(home, Set::get(home, KEY, 0, 0)?)
}

const SET: Mechanism = Mechanism {
    name: "System V semaphores",
    make: (
        |h, mode| {
            let id = h.semget(KEY, 2, NEW | mode as i32).unwrap();
            h.sem_setval(id, 0, 5).unwrap();
        },
        |home, mode| {
            let id = Set::get(home, KEY, 2, NEW | mode as i32).unwrap();
            Set::open(home, id).unwrap().set_value(0, 5).unwrap();
        },
    ),
    calls: &[
        ("get", |h| h.semget(KEY, 0, 0).map(drop), |home| Set::get(home, KEY, 0, 0).map(drop)),
        ("get to read", |h| h.semget(KEY, 0, READ).map(drop), |home| Set::get(home, KEY, 0, READ).map(drop)),
        (
            "get to write",
            |h| h.semget(KEY, 0, WRITE).map(drop),
            |home| Set::get(home, KEY, 0, WRITE).map(drop),
        ),
        (
            "stat",
            |h| h.sem_status(h.semget(KEY, 0, 0)?).map(drop),
            |home| Set::status(home, Set::get(home, KEY, 0, 0)?).map(drop),
        ),
        ("value", |h| h.sem_getval(h.semget(KEY, 0, 0)?, 0).map(drop), |home| set(home)?.value(0).map(drop)),
        (
            "wait for zero",
            |h| h.semop(h.semget(KEY, 0, 0)?, &[ZERO]),
            |home| set(home)?.operate(&[ZERO], Patience::None),
        ),
        (
            "semop",
            |h| h.semop(h.semget(KEY, 0, 0)?, &[DOWN]),
            |home| set(home)?.operate(&[DOWN], Patience::None),
        ),
        ("set value", |h| h.sem_setval(h.semget(KEY, 0, 0)?, 0, 5), |home| set(home)?.set_value(0, 5)),
        (
            "set",
            |h| h.sem_set(h.semget(KEY, 0, 0)?, other(0o777)),
            |home| home.set(Kind::SysvSemaphores, Set::get(home, KEY, 0, 0)?, change()),
        ),
        (
            "remove",
            |h| h.sem_remove(h.semget(KEY, 0, 0)?),
            |home| Set::remove(home, Set::get(home, KEY, 0, 0)?),
        ),
    ],
    remove: (|h| h.sem_remove(h.semget(KEY, 0, 0)?), |home| Set::remove(home, Set::get(home, KEY, 0, 0)?)),
};

const SEGMENT: Mechanism = Mechanism {
    name: "System V memory",
    make: (
        |h, mode| _ = h.shmget(KEY, 4096, NEW | mode as i32).unwrap(),
        |home, mode| {
            SysvSegment::get(home, KEY, 4096, NEW | mode as i32).unwrap();
        },
    ),
    calls: &[
        ("get", |h| h.shmget(KEY, 0, 0).map(drop), |home| SysvSegment::get(home, KEY, 0, 0).map(drop)),
        (
            "get to read",
            |h| h.shmget(KEY, 0, READ).map(drop),
            |home| SysvSegment::get(home, KEY, 0, READ).map(drop),
        ),
        (
            "get to write",
            |h| h.shmget(KEY, 0, WRITE).map(drop),
            |home| SysvSegment::get(home, KEY, 0, WRITE).map(drop),
        ),
        (
            "stat",
            |h| h.shm_status(h.shmget(KEY, 0, 0)?).map(drop),
            |home| SysvSegment::status(home, SysvSegment::get(home, KEY, 0, 0)?).map(drop),
        ),
        (
            "attach to read",
            |h| h.shmat(h.shmget(KEY, 0, 0)?, 0, SHM_RDONLY).map(drop),
            |home| SysvSegment::attach(home, SysvSegment::get(home, KEY, 0, 0)?, 0, SHM_RDONLY).map(drop),
        ),
        (
            "attach",
            |h| h.shmat(h.shmget(KEY, 0, 0)?, 0, 0).map(drop),
            |home| SysvSegment::attach(home, SysvSegment::get(home, KEY, 0, 0)?, 0, 0).map(drop),
        ),
        (
            "set",
            |h| h.shm_set(h.shmget(KEY, 0, 0)?, other(0o777)),
            |home| SysvSegment::set(home, SysvSegment::get(home, KEY, 0, 0)?, change()),
        ),
        (
            "remove",
            |h| h.shm_remove(h.shmget(KEY, 0, 0)?),
            |home| SysvSegment::remove(home, SysvSegment::get(home, KEY, 0, 0)?),
        ),
    ],
    remove: (
        |h| h.shm_remove(h.shmget(KEY, 0, 0)?),
        |home| SysvSegment::remove(home, SysvSegment::get(home, KEY, 0, 0)?),
    ),
};

fn theirs(h: &Kernel, flags: i32) -> Result<i32> {
    h.mq_open("/jobs", flags | O_NONBLOCK, 0, None)
}

fn ours(home: &Namespace, flags: i32) -> Result<PosixQueue> {
    PosixQueue::open(home, b"/jobs", flags | O_NONBLOCK, 0, None)
}

const POSIX_QUEUE: Mechanism = Mechanism {
    name: "POSIX queue",
    make: (
        |h, mode| {
            let queue = h.mq_open("/jobs", O_CREAT | O_EXCL | O_RDWR, mode, Some((4, 8))).unwrap();
            h.mq_timedsend(queue, b"x", 0, Some(SHORT)).unwrap();
        },
        |home, mode| {
            let limits = QueueLimits { messages_max: 4, message_bytes_max: 8 };
            let flags = O_CREAT | O_EXCL | O_RDWR;
            let queue = PosixQueue::open(home, b"/jobs", flags, mode, Some(limits)).unwrap();
            queue.send(0, b"x", Patience::None).unwrap();
        },
    ),
    calls: &[
        ("open to read", |h| theirs(h, O_RDONLY).map(drop), |home| ours(home, O_RDONLY).map(drop)),
        ("open to write", |h| theirs(h, O_WRONLY).map(drop), |home| ours(home, O_WRONLY).map(drop)),
        ("open for both", |h| theirs(h, O_RDWR).map(drop), |home| ours(home, O_RDWR).map(drop)),
        (
            "send",
            |h| h.mq_timedsend(theirs(h, O_WRONLY)?, b"y", 1, None),
            |home| ours(home, O_WRONLY)?.send(1, b"y", Patience::None),
        ),
        (
            "receive",
            |h| h.mq_timedreceive(theirs(h, O_RDONLY)?, &mut [0; 8], None).map(drop),
            |home| ours(home, O_RDONLY)?.receive(&mut [0; 8], Patience::None).map(drop),
        ),
        ("unlink", |h| h.mq_unlink("/jobs"), |home| PosixQueue::unlink(home, b"/jobs")),
    ],
    remove: (|h| h.mq_unlink("/jobs"), |home| PosixQueue::unlink(home, b"/jobs")),
};

const POSIX_SEMAPHORE: Mechanism = Mechanism {
    name: "POSIX semaphore",
    make: (
        |h, mode| _ = h.sem_open("/lock", O_CREAT | O_EXCL, mode, 1).unwrap(),
        |home, mode| {
            PosixSemaphore::open(home, b"/lock", O_CREAT | O_EXCL, mode, 1).unwrap();
        },
    ),
    calls: &[
        (
            "open",
            |h| h.sem_open("/lock", 0, 0, 0).map(drop),
            |home| PosixSemaphore::open(home, b"/lock", 0, 0, 0).map(drop),
        ),
        (
            "wait",
            |h| h.sem_trywait(h.sem_open("/lock", 0, 0, 0)?),
            |home| PosixSemaphore::open(home, b"/lock", 0, 0, 0)?.semaphore().wait(Patience::None),
        ),
        (
            "post",
            |h| h.sem_post(h.sem_open("/lock", 0, 0, 0)?),
            |home| PosixSemaphore::open(home, b"/lock", 0, 0, 0)?.semaphore().post(),
        ),
        ("unlink", |h| h.sem_unlink("/lock"), |home| PosixSemaphore::unlink(home, b"/lock")),
    ],
    remove: (|h| h.sem_unlink("/lock"), |home| PosixSemaphore::unlink(home, b"/lock")),
};

const POSIX_MEMORY: Mechanism = Mechanism {
    name: "POSIX memory",
    make: (
        |h, mode| _ = h.shm_open("/pixels", O_CREAT | O_EXCL | O_RDWR, mode).unwrap(),
        |home, mode| {
            PosixShm::open(home, b"/pixels", O_CREAT | O_EXCL | O_RDWR, mode).unwrap();
        },
    ),
    calls: &[
        (
            "open to read",
            |h| h.shm_open("/pixels", O_RDONLY, 0).map(drop),
            |home| PosixShm::open(home, b"/pixels", O_RDONLY, 0).map(drop),
        ),
        (
            "open to write",
            |h| h.shm_open("/pixels", O_WRONLY, 0).map(drop),
            |home| PosixShm::open(home, b"/pixels", O_WRONLY, 0).map(drop),
        ),
        (
            "open for both",
            |h| h.shm_open("/pixels", O_RDWR, 0).map(drop),
            |home| PosixShm::open(home, b"/pixels", O_RDWR, 0).map(drop),
        ),
        ("unlink", |h| h.shm_unlink("/pixels"), |home| PosixShm::unlink(home, b"/pixels")),
    ],
    remove: (|h| h.shm_unlink("/pixels"), |home| PosixShm::unlink(home, b"/pixels")),
};

/// What the kernel allows and a file cannot: all of it, each with `EACCES`. To use a queue or a set is to read and to
/// write its file, so who has one permission has none.
const FAILS_CLOSED: [(&str, &str, u32, &str); 15] = [
    ("System V queue", "send", 0o622, "group"),
    ("System V queue", "send", 0o622, "other"),
    ("System V queue", "receive", 0o640, "group"),
    ("System V semaphores", "value", 0o640, "group"),
    ("System V semaphores", "wait for zero", 0o640, "group"),
    ("System V semaphores", "semop", 0o622, "group"),
    ("System V semaphores", "semop", 0o622, "other"),
    ("System V semaphores", "set value", 0o622, "group"),
    ("System V semaphores", "set value", 0o622, "other"),
    ("POSIX queue", "open to read", 0o640, "group"),
    ("POSIX queue", "open to write", 0o622, "group"),
    ("POSIX queue", "open to write", 0o622, "other"),
    ("POSIX queue", "send", 0o622, "group"),
    ("POSIX queue", "send", 0o622, "other"),
    ("POSIX queue", "receive", 0o640, "group"),
];

/// Does it in another process as that user: what came of each call, 0 or the errno.
fn ask(user: (u32, u32), count: usize, call: impl Fn(usize) -> Result<()>) -> Vec<i32> {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    as_user(user.0, user.1, || {
        for index in 0..count {
            let outcome = call(index).map_or_else(Errno::raw_os_error, |()| 0);
            writer.write_all(&outcome.to_ne_bytes()).unwrap();
        }
    })
    .assert_ok();
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 4 * count);
    bytes.chunks_exact(4).map(|word| i32::from_ne_bytes(word.try_into().unwrap())).collect()
}

fn home() -> Namespace {
    Namespace::open(PLACE).unwrap()
}

fn name(errno: i32) -> String {
    match errno {
        0 => "ok".into(),
        libc::EACCES => "EACCES".into(),
        libc::EPERM => "EPERM".into(),
        other => format!("{:?}", Errno::from_raw_os_error(other)),
    }
}

#[test]
fn two_users_and_five_modes_in_both_homes() {
    isolated_for(Duration::from_secs(120), || {
        rustix::process::umask(rustix::fs::Mode::empty());
        let shared = Namespace::options().create(true).mode(0o1777).open(PLACE).unwrap();
        let directories = Kind::ALL.map(|kind| shared.path().join(kind.directory()));
        for directory in directories.iter().map(|path| path.as_path()).chain([shared.path()]) {
            assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o1777, "{directory:?}");
        }
        let kernel = Kernel::fresh();
        let columns: Vec<String> =
            MODES.iter().flat_map(|mode| USERS.map(|(who, _)| format!("{mode:04o} {who}"))).collect();
        let columns = columns.iter().map(|column| format!("{column:<11}")).collect::<String>();
        println!("{:<36}{columns}", "what the kernel says / user space, if it is another");
        let mut closed = Vec::new();
        let mut asked = 0;
        for mechanism in [QUEUE, SET, SEGMENT, POSIX_QUEUE, POSIX_SEMAPHORE, POSIX_MEMORY] {
            let count = mechanism.calls.len();
            let mut rows = vec![String::new(); count];
            for mode in MODES {
                for (who, user) in USERS {
                    // New for each, as calls that succeed take something away.
                    as_user(OWNER.0, OWNER.1, || {
                        (mechanism.make.0)(&kernel, mode);
                        (mechanism.make.1)(&home(), mode);
                    })
                    .assert_ok();
                    let kernels = ask(user, count, |index| mechanism.calls[index].1(&kernel));
                    let ours = ask(user, count, |index| mechanism.calls[index].2(&home()));
                    // What nobody but the owner may remove is still there.
                    (mechanism.remove.0)(&kernel).unwrap();
                    (mechanism.remove.1)(&shared).unwrap();
                    for (index, (theirs, ours)) in kernels.into_iter().zip(ours).enumerate() {
                        asked += 1;
                        let call = mechanism.calls[index].0;
                        let place = format!("{}: {call}, {mode:04o}, {who}", mechanism.name);
                        for outcome in [theirs, ours] {
                            assert!([0, libc::EACCES, libc::EPERM].contains(&outcome), "{place}: {outcome}");
                        }
                        assert!(
                            theirs == 0 || ours != 0,
                            "{place}: the kernel refuses what user space allows"
                        );
                        let mut cell = name(theirs);
                        if theirs != ours {
                            cell = format!("{cell}/{}", name(ours));
                            closed.push((mechanism.name, call, mode, who, theirs, ours));
                        }
                        rows[index].push_str(&format!("{cell:<11}"));
                    }
                }
            }
            for (call, row) in mechanism.calls.iter().zip(rows) {
                println!("{:<36}{row}", format!("{}: {}", mechanism.name, call.0));
            }
        }
        println!("{asked} answers of each home, {} of them not the same", closed.len());
        // A refusal is the same refusal; what is allowed there and refused here is on the list, and nothing else.
        let mut expected = FAILS_CLOSED.to_vec();
        let mut found: Vec<_> = closed.iter().map(|one| (one.0, one.1, one.2, one.3)).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(closed.iter().all(|one| (one.4, one.5) == (0, libc::EACCES)), "{closed:?}");
    });
}
