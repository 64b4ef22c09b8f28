//! POSIX shared memory: names, sizes, rights; C agrees.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use ginnel::memory::PosixShm;
use ginnel_testkit::{Objects, c_program, fork, isolated, run_ok, spawn, unprivileged};

use crate::homes::in_both_homes;
use crate::{PAGE, errno, hint};

#[test]
fn two_processes_share_memory_by_name() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        let shm = PosixShm::create_in(home, "/x", 10_000).unwrap();
        let mapping = shm.map().unwrap();
        assert_eq!(mapping.len(), 10_000);
        fork(|| {
            let theirs = PosixShm::open_in(home, "/x").unwrap();
            theirs.map().unwrap().write_bytes(9_995, b"hello").unwrap();
        })
        .assert_ok();
        assert_eq!(mapping.read_vec(9_995..).unwrap(), b"hello");
        PosixShm::remove_in(home, "/x").unwrap();
        assert_eq!(errno(PosixShm::open_in(home, "/x")), "ENOENT");
        mapping.write_at(0, 1_u8).unwrap();
        assert_eq!(shm.status().unwrap().links, 0);
        before.assert_same();
    });
}

#[test]
fn c_writes_and_rust_reads() {
    isolated(|| {
        run_ok(Command::new(c_program!("tests/memory/posix_shm.c")).args(["write", "/c", "from C"]));
        let mapping = PosixShm::open_read_only("/c").unwrap().map_read_only().unwrap();
        assert_eq!(mapping.load_u32(0).unwrap(), 6);
        assert_eq!(mapping.read_vec(64..70).unwrap(), b"from C");
    });
}

#[test]
fn rust_writes_and_c_reads() {
    isolated(|| {
        let mapping = PosixShm::create("/r", 4096).unwrap().map().unwrap();
        let program = c_program!("tests/memory/posix_shm.c");
        let reader = spawn(Command::new(program).args(["read", "/r"]).stdout(Stdio::piped()));
        mapping.write_bytes(64, b"from Rust").unwrap();
        mapping.atomic_u32(0).unwrap().store(9, Ordering::Release);
        assert_eq!(reader.wait_with_output().stdout, b"from Rust\n");
    });
}

#[test]
fn opening_says_what_is_wrong() {
    in_both_homes(|home| {
        assert_eq!(errno(PosixShm::open_in(home, "/none")), "ENOENT");
        assert_eq!(errno(PosixShm::remove_in(home, "/none")), "ENOENT");
        for name in ["", "/", "none", "/a/b", "/.", "/..", "/a\0b"] {
            assert_eq!(errno(PosixShm::create_in(home, name, 1)), "EINVAL", "{name:?}");
            assert_eq!(errno(PosixShm::remove_in(home, name)), "EINVAL", "{name:?}");
        }
        assert_eq!(errno(PosixShm::open_in(home, &format!("/{}", "x".repeat(255)))), "ENAMETOOLONG");
        PosixShm::create_in(home, &format!("/{}", "x".repeat(254)), 1).unwrap();

        let shm = PosixShm::options().namespace(home).create_new(true).mode(0o644).open("/new").unwrap();
        assert_eq!(errno(PosixShm::options().namespace(home).create_new(true).open("/new")), "EEXIST");
        assert!(hint(shm.map()).contains("set its size first"));
        shm.resize(100).unwrap();
        let reader = PosixShm::open_read_only_in(home, "/new").unwrap();
        assert_eq!(errno(reader.map()), "EACCES");
        assert_eq!(errno(reader.resize(200)), "EBADF");
        assert_eq!(reader.map_read_only().unwrap().len(), 100);
        assert!(
            hint(PosixShm::options().namespace(home).read_only(true).size(200).open("/new"))
                .contains("100 bytes")
        );
        let directory = home.path().map_or("/dev/shm".into(), |path| path.join("pshm"));
        std::os::unix::fs::symlink("/etc/passwd", directory.join("link")).unwrap();
        let planted = errno(PosixShm::open_read_only_in(home, "/link"));
        assert_eq!(planted, if home.is_kernel() { "ELOOP" } else { "EUCLEAN" });
        unprivileged(|| {
            assert_eq!(errno(PosixShm::open_in(home, "/new")), "EACCES");
            PosixShm::open_read_only_in(home, "/new").unwrap();
            assert_eq!(errno(PosixShm::remove_in(home, "/new")), "EACCES");
        })
        .assert_ok();
    });
}

#[test]
fn it_appears_with_its_size_and_many_makers_agree_on_one() {
    in_both_homes(|home| {
        for round in 0..20 {
            let name = format!("/race{round}");
            let makers: Vec<_> = (0..4)
                .map(|_| {
                    fork(|| {
                        let shm = PosixShm::create_in(home, &name, 2 * PAGE as u64).unwrap();
                        shm.map().unwrap().atomic_u32(PAGE).unwrap().fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            let shm = loop {
                match PosixShm::open_read_only_in(home, &name) {
                    Ok(shm) => break shm,
                    Err(error) => assert!(error.is_not_found(), "{error}"),
                }
            };
            assert_eq!(shm.status().unwrap().size_bytes, 2 * PAGE as u64, "never seen smaller");
            makers.into_iter().for_each(|maker| maker.assert_ok());
            assert_eq!(shm.map_read_only().unwrap().load_u32(PAGE).unwrap(), 4);
        }
    });
}

#[test]
fn a_size_is_a_lower_bound_for_what_exists_and_reserved() {
    in_both_homes(|home| {
        let shm = PosixShm::create_in(home, "/size", 5000).unwrap();
        assert_eq!(shm.status().unwrap().allocated_bytes, 8192);
        shm.map().unwrap().write_at(4999, 9_u8).unwrap();
        assert_eq!(PosixShm::create_in(home, "/size", 100).unwrap().status().unwrap().size_bytes, 5000);
        assert_eq!(PosixShm::create_in(home, "/size", 9000).unwrap().status().unwrap().size_bytes, 9000);
        let mapping = shm.map_range(4999, 4001).unwrap();
        assert_eq!((mapping.read_at::<u8>(0).unwrap(), mapping.len()), (9, 4001));
        assert!(hint(shm.map_range(4999, 4002)).contains("it has 9000 bytes"));
        assert_eq!(errno(shm.map_range(u64::MAX, 1)), "EOVERFLOW");
        assert_eq!(errno(shm.map_range(0, 0)), "EINVAL");
        shm.resize_sparse(1 << 40).unwrap();
        assert!(shm.status().unwrap().allocated_bytes < 1 << 20);
        shm.resize(10).unwrap();
        assert_eq!(shm.status().unwrap().size_bytes, 10);
        let empty = PosixShm::options().namespace(home).truncate(true).open("/size").unwrap();
        assert_eq!(empty.status().unwrap().size_bytes, 0);
        // SAFETY: umask has no preconditions.
        unsafe { libc::umask(0o027) };
        let shm = PosixShm::options().namespace(home).create(true).mode(0o666).open("/mode").unwrap();
        assert_eq!(shm.status().unwrap().mode, 0o640);
    });
}

#[test]
fn the_descriptor_is_closed_by_exec() {
    in_both_homes(|home| {
        let shm = PosixShm::create_in(home, "/cloexec", 1).unwrap();
        let listing = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!listing.contains("cloexec") && !listing.contains("/dev/shm/#"), "{listing}");
        let fd: OwnedFd = shm.into();
        assert!(rustix::io::fcntl_getfd(fd.as_fd()).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    });
}
