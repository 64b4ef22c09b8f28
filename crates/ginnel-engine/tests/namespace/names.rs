//! Objects by name.

use std::os::unix::fs::MetadataExt;

use ginnel_engine::Errno;
use ginnel_engine::namespace::{Kind, Namespace, What};
use ginnel_engine::segment::HEADER_BYTES;
use ginnel_testkit::{as_user, isolated};

use super::*;

#[test]
fn names_follow_the_kernels_and_glibcs_rules() {
    isolated(|| {
        let home = home("jobs");
        let long = |len: usize| format!("/{}", "a".repeat(len));
        let names =
            ["", "/", "//", "a", "/a", "//a", "/a/b", "a/b", "/.", "/..", "/a/", "///", "/sem.x", "/ä"];
        let names =
            names.map(str::to_owned).into_iter().chain([250, 251, 252, 255, 256, 259, 260, 300].map(long));
        for name in names {
            let theirs = kernel_names(&name);
            let create = |kind| match home.open_or_create(kind, name.as_bytes(), libc::O_CREAT, 0o600, plain)
            {
                Ok(_) => 0,
                Err(errno) => errno.raw_os_error(),
            };
            let unlink =
                |kind| home.unlink_named(kind, name.as_bytes()).map_or_else(Errno::raw_os_error, |()| 0);
            let shm = ginnel_engine::memory::posix_shm::PosixShm::open(
                &home,
                name.as_bytes(),
                libc::O_RDWR | libc::O_CREAT,
                0o600,
            );
            let ours = [
                create(Kind::PosixQueue),
                unlink(Kind::PosixQueue),
                unlink(Kind::PosixQueue),
                create(Kind::PosixSemaphore),
                unlink(Kind::PosixSemaphore),
                unlink(Kind::PosixSemaphore),
                shm.map_or_else(Errno::raw_os_error, |_| 0),
                unlink(Kind::PosixShm),
                unlink(Kind::PosixShm),
            ];
            assert_eq!(ours, theirs, "{name}");
        }
    });
}

/// For a queue, a semaphore, shared memory: the errno of making it, of removing it, of removing it again.
#[allow(unsafe_code)]
fn kernel_names(name: &str) -> [i32; 9] {
    let name = std::ffi::CString::new(name).unwrap();
    let errno = |failed: bool| {
        if failed { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
    };
    let flags = libc::O_RDWR | libc::O_CREAT;
    // SAFETY: the name is a string, and what is opened is left open in a process that ends soon.
    unsafe {
        [
            errno(libc::mq_open(name.as_ptr(), flags, 0o600, std::ptr::null_mut::<libc::mq_attr>()) == -1),
            errno(libc::mq_unlink(name.as_ptr()) == -1),
            errno(libc::mq_unlink(name.as_ptr()) == -1),
            errno(libc::sem_open(name.as_ptr(), flags, 0o600, 1) == libc::SEM_FAILED),
            errno(libc::sem_unlink(name.as_ptr()) == -1),
            errno(libc::sem_unlink(name.as_ptr()) == -1),
            errno(libc::shm_open(name.as_ptr(), flags, 0o600) == -1),
            errno(libc::shm_unlink(name.as_ptr()) == -1),
            errno(libc::shm_unlink(name.as_ptr()) == -1),
        ]
    }
}

#[test]
fn named_objects_are_found_made_and_unlinked() {
    isolated(|| {
        let home = home("jobs");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let open = |flags| home.open_or_create(Kind::PosixQueue, b"/jobs", flags, 0o666, plain);
        assert_eq!(open(0).unwrap_err(), Errno::NOENT);
        assert_eq!(open(libc::O_EXCL).unwrap_err(), Errno::NOENT);
        let (made, new) = open(libc::O_CREAT | libc::O_EXCL).unwrap();
        assert!(new);
        assert_eq!(
            home.path().join("mq/jobs").metadata().unwrap().mode() & 0o7777,
            0o644,
            "the umask counts"
        );
        assert_eq!(open(libc::O_CREAT | libc::O_EXCL).unwrap_err(), Errno::EXIST);
        let (found, new) = open(libc::O_CREAT).unwrap();
        assert!(!new);
        made.word64(HEADER_BYTES).unwrap().store(7, std::sync::atomic::Ordering::Release);
        assert_eq!(found.word64(HEADER_BYTES).unwrap().load(std::sync::atomic::Ordering::Acquire), 7);
        assert_eq!(home.list_named(Kind::PosixQueue).unwrap(), [b"jobs".to_vec()]);
        home.unlink_named(Kind::PosixQueue, b"/jobs").unwrap();
        assert_eq!(open(0).unwrap_err(), Errno::NOENT);
        assert_eq!(
            found.word64(HEADER_BYTES).unwrap().load(std::sync::atomic::Ordering::Acquire),
            7,
            "in use"
        );
        // One of another name, linked here; one of another kind.
        open(libc::O_CREAT).unwrap();
        let path = |name: &str| home.path().join(name);
        std::fs::rename(path("mq/jobs"), path("mq/other")).unwrap();
        let other = |kind, name: &[u8]| home.open_or_create(kind, name, 0, 0, plain).map(drop);
        assert_eq!(other(Kind::PosixQueue, b"/other"), Err(Errno::UCLEAN));
        std::fs::rename(path("mq/other"), path("psem/sem.jobs")).unwrap();
        assert_eq!(other(Kind::PosixSemaphore, b"/jobs"), Err(Errno::UCLEAN));
        let findings = home.collect(false).unwrap();
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].what, findings[0].removed), (What::Corrupt, true));
    });
}

#[test]
fn named_objects_of_another_user() {
    isolated(|| {
        let home = shared();
        rustix::process::umask(rustix::fs::Mode::empty());
        for (mode, name) in [(0o600, "/mine"), (0o644, "/read"), (0o622, "/write"), (0o666, "/both")] {
            home.open_or_create(Kind::PosixQueue, name.as_bytes(), libc::O_CREAT, mode, plain).unwrap();
        }
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let open = |name: &str| {
                home.open_or_create(Kind::PosixQueue, name.as_bytes(), libc::O_CREAT, 0o600, never).map(drop)
            };
            assert_eq!(
                ["/mine", "/read", "/write", "/both"].map(open),
                [Err(Errno::ACCESS), Err(Errno::ACCESS), Err(Errno::ACCESS), Ok(())]
            );
            assert_eq!(home.unlink_named(Kind::PosixQueue, b"/both"), Err(Errno::ACCESS));
        })
        .assert_ok();
    });
}
