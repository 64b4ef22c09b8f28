//! POSIX shared memory: `shm_open(3)`, `shm_overview(7)`.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC};

use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, exec_sleeper, fails, wait_exec};
use crate::home::PosixMemory;
use crate::{Errno, Result};

const OPEN: &str = "shm_open(3)";
const NAME: &str = "/ginnel";
const NEW: i32 = O_CREAT | O_EXCL | O_RDWR;

fn open<H: PosixMemory>(h: &H, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: the descriptor is new, and the caller's.
    h.shm_open(NAME, flags, mode).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn write(fd: &OwnedFd, text: &[u8]) -> Result<()> {
    rustix::io::pwrite(fd, text, 0).map(drop)
}

#[track_caller]
fn reads(fd: &OwnedFd, text: &[u8]) {
    let mut back = [0; 32];
    let len = rustix::io::pread(fd, &mut back, 0).unwrap();
    assert_eq!(&back[..len], text);
}

fn no_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// All clauses.
pub fn clauses<H: PosixMemory>() -> Vec<Clause<H>> {
    let mut all = names();
    all.extend(objects());
    all.extend(rights());
    all
}

fn names<H: PosixMemory>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "same_name", "a name leads every process to the same bytes", |h: &H| {
            let mine = open(h, NEW, 0o600).unwrap();
            elsewhere(|| write(&open(h, O_RDWR, 0).unwrap(), b"stranger").unwrap());
            reads(&mine, b"stranger");
        }),
        clause(OPEN, "unknown_name", "a name without an object is ENOENT without O_CREAT", |h: &H| {
            fails(Errno::NOENT, open(h, O_RDWR, 0o600));
        }),
        clause(OPEN, "exclusive", "O_CREAT with O_EXCL is EEXIST where there is one", |h: &H| {
            write(&open(h, NEW, 0o600).unwrap(), b"kept").unwrap();
            fails(Errno::EXIST, open(h, NEW, 0o600));
            reads(&open(h, O_CREAT | O_RDWR, 0o600).unwrap(), b"kept");
        }),
        clause(
            OPEN,
            "slash_or_not",
            "a slash in front, or several, or none: it is the same name",
            |h: &H| {
                write(&open(h, NEW, 0o600).unwrap(), b"x").unwrap();
                for name in ["ginnel", "//ginnel"] {
                    h.shm_open(name, O_RDWR, 0).unwrap();
                }
            },
        ),
        clause(OPEN, "malformed", "a name that is none, or has another slash, is EINVAL", |h: &H| {
            for name in ["/", "", "/a/b", "/a/"] {
                fails(Errno::INVAL, h.shm_open(name, NEW, 0o600));
            }
        }),
        clause(OPEN, "long_name", "255 bytes after the slash are a name, 256 are ENAMETOOLONG", |h: &H| {
            let name = format!("/{}", "n".repeat(255));
            h.shm_open(&name, NEW, 0o600).unwrap();
            h.shm_unlink(&name).unwrap();
            fails(Errno::NAMETOOLONG, h.shm_open(&format!("{name}n"), NEW, 0o600));
        }),
        clause(OPEN, "unlink", "unlinking takes the name at once; who has it open goes on", |h: &H| {
            let mine = open(h, NEW, 0o600).unwrap();
            h.shm_unlink(NAME).unwrap();
            fails(Errno::NOENT, open(h, O_RDWR, 0));
            write(&mine, b"still").unwrap();
            reads(&mine, b"still");
        }),
        clause(OPEN, "unlink_and_make", "one made again under the name is another one", |h: &H| {
            let old = open(h, NEW, 0o600).unwrap();
            write(&old, b"old").unwrap();
            h.shm_unlink(NAME).unwrap();
            reads(&open(h, NEW, 0o600).unwrap(), b"");
            reads(&old, b"old");
        }),
        clause(OPEN, "unlink_unknown", "a name without an object is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.shm_unlink(NAME));
        }),
        clause(OPEN, "unlink_malformed", "of a name that is none it is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.shm_unlink("/"));
            fails(Errno::NOENT, h.shm_unlink("/a/b"));
        }),
        clause("shm_overview(7)", "persistence", "an object and its bytes outlive every process", |h: &H| {
            elsewhere(|| write(&open(h, NEW, 0o600).unwrap(), b"left").unwrap());
            reads(&open(h, O_RDONLY, 0).unwrap(), b"left");
        }),
    ]
}

fn objects<H: PosixMemory>() -> Vec<Clause<H>> {
    vec![
        clause(
            OPEN,
            "first_size",
            "a new one has no bytes; ftruncate gives it some, which are 0",
            |h: &H| {
                let mine = open(h, NEW, 0o600).unwrap();
                assert_eq!(rustix::fs::fstat(&mine).unwrap().st_size, 0);
                rustix::fs::ftruncate(&mine, 5).unwrap();
                reads(&mine, &[0; 5]);
            },
        ),
        clause(OPEN, "mapped", "mapped by two processes it is the same memory", |h: &H| {
            use rustix::mm::{MapFlags, ProtFlags, mmap};
            let map = |fd: &OwnedFd| {
                // SAFETY: a fresh mapping, of a page that the object has.
                let at = unsafe {
                    mmap(
                        std::ptr::null_mut(),
                        4096,
                        ProtFlags::READ | ProtFlags::WRITE,
                        MapFlags::SHARED,
                        fd,
                        0,
                    )
                };
                at.unwrap().cast::<u8>()
            };
            let mine = open(h, NEW, 0o600).unwrap();
            rustix::fs::ftruncate(&mine, 4096).unwrap();
            let at = map(&mine);
            elsewhere(|| {
                let there = map(&open(h, O_RDWR, 0).unwrap());
                // SAFETY: both pages are mapped for as long as their processes live.
                unsafe { there.add(9).write_volatile(42) };
            });
            // SAFETY: as above.
            assert_eq!(unsafe { at.add(9).read_volatile() }, 42);
        }),
        clause(OPEN, "truncated", "O_TRUNC takes the bytes of an existing one", |h: &H| {
            write(&open(h, NEW, 0o600).unwrap(), b"gone").unwrap();
            let mine = open(h, O_RDWR | O_TRUNC, 0).unwrap();
            assert_eq!(rustix::fs::fstat(&mine).unwrap().st_size, 0);
        }),
        clause(OPEN, "read_only", "O_RDONLY reads; writing is EBADF", |h: &H| {
            write(&open(h, NEW, 0o600).unwrap(), b"text").unwrap();
            let reader = open(h, O_RDONLY, 0).unwrap();
            reads(&reader, b"text");
            fails(Errno::BADF, write(&reader, b"x"));
        }),
        clause(OPEN, "descriptor", "the descriptor is the lowest free one, and close-on-exec", |h: &H| {
            let probe = std::fs::File::open("/dev/null").unwrap();
            let lowest = std::os::fd::AsRawFd::as_raw_fd(&probe);
            drop(probe);
            let fd = h.shm_open(NAME, NEW, 0o600).unwrap();
            assert_eq!(fd, lowest);
            // SAFETY: the descriptor is open.
            let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).unwrap();
            assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
        }),
        clause(OPEN, "executed", "exec closes it", |h: &H| {
            let fd = h.shm_open(NAME, NEW, 0o600).unwrap();
            let child = ginnel_testkit::fork(|| exec_sleeper());
            wait_exec(child.pid());
            let link = std::fs::read_link(format!("/proc/{}/fd/{fd}", child.pid()));
            assert!(link.is_err(), "{link:?}");
        }),
        clause(OPEN, "many_files", "with no descriptor left it is EMFILE", |h: &H| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let full = Rlimit { current: Some(3), maximum: Some(1000) };
            setrlimit(Resource::Nofile, full).unwrap();
            fails(Errno::MFILE, h.shm_open(NAME, NEW, 0o600));
        }),
    ]
}

fn rights<H: PosixMemory>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "mode", "the mode is what was asked for, owner and group the caller's", |h: &H| {
            no_umask();
            as_other(ALICE, BOB, || _ = open(h, NEW, 0o646).unwrap());
            let status = rustix::fs::fstat(open(h, O_RDONLY, 0).unwrap()).unwrap();
            assert_eq!((status.st_mode & 0o777, status.st_uid, status.st_gid), (0o646, ALICE, BOB));
        }),
        clause(OPEN, "umask", "the umask takes from it", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
            let mine = open(h, NEW, 0o666).unwrap();
            assert_eq!(rustix::fs::fstat(&mine).unwrap().st_mode & 0o777, 0o640);
        }),
        clause(OPEN, "denied", "opening for what the mode does not grant is EACCES", |h: &H| {
            no_umask();
            open(h, NEW, 0o644).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, open(h, O_RDWR, 0));
                open(h, O_RDONLY, 0).unwrap();
            });
        }),
        clause(
            OPEN,
            "truncate_denied",
            "O_TRUNC without write permission is EACCES, and takes nothing",
            |h: &H| {
                no_umask();
                write(&open(h, NEW, 0o644).unwrap(), b"kept").unwrap();
                as_other(BOB, BOB, || fails(Errno::ACCESS, open(h, O_RDONLY | O_TRUNC, 0)));
                reads(&open(h, O_RDONLY, 0).unwrap(), b"kept");
            },
        ),
        clause(OPEN, "shared", "what the mode grants to everybody another user may do", |h: &H| {
            no_umask();
            let mine = open(h, NEW, 0o666).unwrap();
            as_other(BOB, BOB, || write(&open(h, O_RDWR, 0).unwrap(), b"bob's").unwrap());
            reads(&mine, b"bob's");
        }),
        clause(OPEN, "unlink_denied", "unlinking another user's is EACCES", |h: &H| {
            as_other(ALICE, ALICE, || {
                no_umask();
                open(h, NEW, 0o666).unwrap();
            });
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.shm_unlink(NAME)));
            open(h, O_RDWR, 0).unwrap();
            as_other(ALICE, ALICE, || h.shm_unlink(NAME).unwrap());
        }),
    ]
}
