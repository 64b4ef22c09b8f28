//! POSIX shared memory beside glibc's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use ginnel_engine::memory::posix_shm::PosixShm;
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{as_user, fork, isolated};
use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

fn home() -> Namespace {
    Namespace::options().create(true).open_named("pictures").unwrap()
}

fn length(file: &OwnedFd) -> i64 {
    rustix::fs::fstat(file).unwrap().st_size
}

#[allow(unsafe_code)]
mod glibc {
    use std::ffi::CString;
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::{Errno, Result};

    pub(super) fn open(name: &str, flags: i32, mode: u32) -> Result<OwnedFd> {
        let name = CString::new(name).unwrap();
        // SAFETY: the name is a string, and a descriptor that is given is ours.
        unsafe {
            match libc::shm_open(name.as_ptr(), flags, mode) {
                -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
                fd => Ok(OwnedFd::from_raw_fd(fd)),
            }
        }
    }
}

#[test]
fn every_combination_of_flags_gives_what_glibc_gives() {
    isolated(|| {
        let home = home();
        let flags = |bits: usize| {
            [O_RDONLY, O_RDWR, O_WRONLY][bits % 3]
                | if bits / 3 % 2 == 1 { O_CREAT } else { 0 }
                | if bits / 6 % 2 == 1 { O_EXCL } else { 0 }
                | if bits / 12 % 2 == 1 { O_TRUNC } else { 0 }
        };
        // Each after each: one makes it, another finds it.
        for first in 0..24 {
            for second in 0..24 {
                for bits in [first, second] {
                    let ours = PosixShm::open(&home, b"/pixels", flags(bits), 0o640);
                    let theirs = glibc::open("/pixels", flags(bits), 0o640);
                    match (ours, theirs) {
                        (Ok(ours), Ok(theirs)) => {
                            assert_eq!(length(&ours), length(&theirs), "{first} {second}");
                            let both = [&ours, &theirs].map(|file| {
                                let written = rustix::io::pwrite(file, b"hello", 0);
                                let read = rustix::io::pread(file, &mut [0; 5], 0);
                                let mode = rustix::fs::fstat(file).unwrap().st_mode;
                                (written, read, mode, rustix::io::fcntl_getfd(file).unwrap())
                            });
                            assert_eq!(both[0], both[1], "{first} {second}");
                        }
                        (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop), "{first} {second}"),
                    }
                }
                let ours = PosixShm::unlink(&home, b"/pixels");
                assert_eq!(ours.is_ok(), std::fs::remove_file("/dev/shm/pixels").is_ok());
            }
        }
    });
}

#[test]
fn processes_share_it_also_after_its_name_is_gone() {
    isolated(|| {
        let home = home();
        let file = PosixShm::open(&home, b"/pixels", O_RDWR | O_CREAT | O_EXCL, 0o600).unwrap();
        PosixShm::resize(&file, 10_000).unwrap();
        fork(|| {
            let file = PosixShm::open(&home, b"pixels", O_RDWR, 0).unwrap();
            rustix::io::pwrite(&file, b"x", 9_999).unwrap();
        })
        .assert_ok();
        assert_eq!(home.list_named(Kind::PosixShm).unwrap(), [b"pixels".to_vec()]);
        PosixShm::unlink(&home, b"/pixels").unwrap();
        assert_eq!(PosixShm::open(&home, b"/pixels", O_RDWR, 0).unwrap_err(), Errno::NOENT);
        let mut byte = [0];
        rustix::io::pread(&file, &mut byte, 9_999).unwrap();
        assert_eq!(byte, *b"x");
    });
}

#[test]
#[allow(unsafe_code)]
fn space_is_reserved_or_refused_and_nothing_changes() {
    isolated(|| {
        let home = home();
        let file = PosixShm::open(&home, b"/pixels", O_RDWR | O_CREAT, 0o600).unwrap();
        // SAFETY: the arguments are strings and a number; it is this test's own mount.
        let outcome = unsafe {
            let data = c"size=4m".as_ptr().cast();
            libc::mount(c"none".as_ptr(), c"/dev/shm".as_ptr(), std::ptr::null(), libc::MS_REMOUNT, data)
        };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
        PosixShm::resize(&file, 1 << 20).unwrap();
        let blocks = || rustix::fs::fstat(&file).unwrap().st_blocks * 512;
        assert_eq!((length(&file), blocks()), (1 << 20, 1 << 20));
        assert_eq!(PosixShm::resize(&file, 8 << 20), Err(Errno::NOSPC));
        assert_eq!((length(&file), blocks()), (1 << 20, 1 << 20));
        PosixShm::resize(&file, 100).unwrap();
        assert_eq!((length(&file), blocks()), (100, 4096));
        PosixShm::resize(&file, 0).unwrap();
        assert_eq!((length(&file), blocks()), (0, 0));
        let reader = PosixShm::open(&home, b"/pixels", O_RDONLY, 0).unwrap();
        assert!(PosixShm::resize(&reader, 4096).is_err());
    });
}

#[test]
fn a_planted_link_is_refused_and_its_target_stays_as_it_is() {
    isolated(|| {
        let home = home();
        let at = |name: &str| home.path().join("pshm").join(name);
        std::fs::write("/dev/shm/precious", "mine").unwrap();
        symlink("/dev/shm/precious", at("soft")).unwrap();
        std::fs::hard_link("/dev/shm/precious", at("hard")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        for name in ["soft", "hard", "directory"] {
            for flags in [O_RDWR, O_RDWR | O_CREAT, O_RDWR | O_TRUNC, O_RDWR | O_CREAT | O_TRUNC, O_RDONLY] {
                let outcome = PosixShm::open(&home, name.as_bytes(), flags, 0o600);
                assert_eq!(outcome.unwrap_err(), Errno::UCLEAN, "{name} {flags:o}");
            }
            let outcome = PosixShm::open(&home, name.as_bytes(), O_RDWR | O_CREAT | O_EXCL, 0o600);
            assert_eq!(outcome.unwrap_err(), Errno::EXIST, "{name}");
        }
        assert_eq!(std::fs::read("/dev/shm/precious").unwrap(), b"mine");
    });
}

#[test]
fn another_user_can_do_what_the_mode_says() {
    isolated(|| {
        let home = Namespace::options().create(true).mode(0o1777).open("/dev/shm/everybody").unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());
        for mode in [0o600, 0o604, 0o602, 0o606] {
            PosixShm::open(&home, format!("/{mode:o}").as_bytes(), O_RDWR | O_CREAT, mode).unwrap();
            glibc::open(&format!("/{mode:o}"), O_RDWR | O_CREAT, mode).unwrap();
        }
        assert_eq!(home.path().join("pshm/604").metadata().unwrap().mode() & 0o777, 0o604);
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            for mode in [0o600, 0o604, 0o602, 0o606] {
                for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
                    let name = format!("/{mode:o}");
                    let ours = PosixShm::open(&home, name.as_bytes(), flags, 0).map(drop);
                    assert_eq!(ours, glibc::open(&name, flags, 0).map(drop), "{name} {flags:o}");
                }
            }
            assert_eq!(PosixShm::unlink(&home, b"/606"), Err(Errno::ACCESS));
            let own = PosixShm::open(&home, b"/own", O_RDWR | O_CREAT, 0o600).unwrap();
            assert!(own.as_fd().as_raw_fd() > 2);
            PosixShm::unlink(&home, b"/own").unwrap();
        })
        .assert_ok();
    });
}
