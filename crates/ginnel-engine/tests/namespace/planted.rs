//! What somebody has planted in place of an object, in a directory that everybody may write to: refused by each of the six.

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use ginnel_engine::Errno;
use ginnel_engine::memory::posix_shm::PosixShm;
use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::posix_queue::PosixQueue;
use ginnel_engine::message::sysv_queue::SysvQueue;
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_testkit::{as_user, isolated};
use libc::{IPC_CREAT, O_CREAT, O_RDWR, O_TRUNC};
use rustix::fs::{CWD, FileType, Mode};

use super::*;

/// Opens or makes the object with the key 5, or the name `/x`: what its users call first.
fn open(home: &Namespace, kind: Kind) -> Result<()> {
    let flags = IPC_CREAT | 0o600;
    match kind {
        Kind::SysvQueue => SysvQueue::open(home, SysvQueue::get(home, 5, flags)?).map(drop),
        Kind::SysvSemaphores => SysvSemaphores::open(home, SysvSemaphores::get(home, 5, 1, flags)?).map(drop),
        Kind::SysvSegment => {
            SysvSegment::attach(home, SysvSegment::get(home, 5, 4096, flags)?, 0, 0).map(drop)
        }
        Kind::PosixQueue => PosixQueue::open(home, b"/x", O_CREAT | O_RDWR, 0o600, None).map(drop),
        Kind::PosixSemaphore => PosixSemaphore::open(home, b"/x", O_CREAT, 0o600, 1).map(drop),
        Kind::PosixShm => PosixShm::open(home, b"/x", O_CREAT | O_RDWR | O_TRUNC, 0o600).map(drop),
    }
}

/// The name that leads to it.
fn path(home: &Namespace, kind: Kind) -> std::path::PathBuf {
    let name = match kind {
        Kind::PosixSemaphore => "sem.x",
        Kind::PosixQueue | Kind::PosixShm => "x",
        _ => "k.00000005",
    };
    home.path().join(kind.directory()).join(name)
}

fn special(path: &Path, kind: FileType) {
    let device = if kind == FileType::CharacterDevice { rustix::fs::makedev(1, 3) } else { 0 };
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
}

#[test]
fn what_stands_in_place_of_an_object_is_refused_and_left_alone() {
    isolated(|| {
        rustix::process::umask(Mode::empty());
        let home = shared();
        std::fs::write("/dev/shm/precious", vec![7; 8192]).unwrap();
        type Planted = (&'static str, fn(&Path));
        let planted: [Planted; 7] = [
            ("a symbolic link", |path| symlink("/dev/shm/precious", path).unwrap()),
            ("a symbolic link to nothing", |path| symlink("/dev/shm/to-be-made", path).unwrap()),
            ("a hard link", |path| std::fs::hard_link("/dev/shm/precious", path).unwrap()),
            ("a FIFO", |path| special(path, FileType::Fifo)),
            ("a socket", |path| special(path, FileType::Socket)),
            ("a device", |path| special(path, FileType::CharacterDevice)),
            ("a directory", |path| std::fs::create_dir(path).unwrap()),
        ];
        for kind in Kind::ALL {
            for (what, plant) in planted {
                let path = path(&home, kind);
                plant(&path);
                let before = std::fs::symlink_metadata(&path).unwrap();
                let outcome = open(&home, kind);
                // The kernel itself refuses to open devices there; a key is looked at when it cannot be opened.
                let is_device = before.file_type().is_char_device();
                let expected = if is_device && !kind.is_sysv() { Errno::ACCESS } else { Errno::UCLEAN };
                assert_eq!(outcome, Err(expected), "{what} in place of {kind:?}");
                assert_eq!(home.collect(false).unwrap().iter().filter(|finding| finding.removed).count(), 0);
                let after = std::fs::symlink_metadata(&path).unwrap();
                assert_eq!(
                    (before.ino(), before.mode()),
                    (after.ino(), after.mode()),
                    "{what} is left alone"
                );
                if before.is_dir() {
                    std::fs::remove_dir(&path).unwrap();
                } else {
                    std::fs::remove_file(&path).unwrap();
                }
            }
            assert_eq!(std::fs::read("/dev/shm/precious").unwrap(), vec![7; 8192]);
            assert!(!Path::new("/dev/shm/to-be-made").exists(), "nothing is made through a link");
            open(&home, kind).unwrap();
        }
    });
}

/// Who makes a name first has it, as in the kernel: who is not let in by its mode gets `EACCES`, and nobody takes an object of
/// another kind, or a file of anything, for what it asked for.
#[test]
fn a_name_that_another_user_has_squatted_is_that_users() {
    isolated(|| {
        rustix::process::umask(Mode::empty());
        let home = shared();
        let another = |act: &dyn Fn(&Namespace)| {
            as_user(1001, 1001, || act(&Namespace::open("/dev/shm/everybody").unwrap())).assert_ok();
        };
        for kind in Kind::ALL {
            another(&|home| open(home, kind).unwrap());
            as_user(1002, 1002, || {
                let home = Namespace::open("/dev/shm/everybody").unwrap();
                assert_eq!(open(&home, kind), Err(Errno::ACCESS), "{kind:?}");
            })
            .assert_ok();
            assert_eq!(std::fs::metadata(path(&home, kind)).unwrap().uid(), 1001);
        }
        // Files that anybody may read and write, but of no object.
        let home = Namespace::options().create(true).mode(0o1777).open("/dev/shm/another").unwrap();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::PosixShm) {
            let path = path(&home, kind);
            as_user(1001, 1001, || {
                std::fs::write(&path, vec![0; 1 << 16]).unwrap();
            })
            .assert_ok();
            as_user(1002, 1002, || {
                let home = Namespace::open("/dev/shm/another").unwrap();
                assert_eq!(open(&home, kind), Err(Errno::UCLEAN), "{kind:?}");
            })
            .assert_ok();
            assert_eq!(std::fs::read(&path).unwrap(), vec![0; 1 << 16], "not written to");
        }
    });
}

/// The words say what stands there, whose it is, and what to do.
#[test]
fn a_planted_namespace_is_refused_in_words_to_a_user_without_privileges() {
    isolated(|| {
        let at = |name: &str| format!("/dev/shm/{name}");
        let plant = |name: &str, mode: u32| {
            rustix::fs::mkdir(at(name), Mode::from_raw_mode(mode)).unwrap();
            rustix::fs::chmod(at(name), Mode::from_raw_mode(mode)).unwrap();
        };
        as_user(1001, 1001, || {
            plant("squatted", 0o1777);
            symlink(at("squatted"), at("link")).unwrap();
            std::fs::write(at("file"), "").unwrap();
            special(Path::new(&at("fifo")), FileType::Fifo);
            // Another user's base, and one of that user's names in it.
            plant("ginnel-1002", 0o1777);
        })
        .assert_ok();
        as_user(1002, 1002, || {
            let words =
                |name: &str| Namespace::options().create(true).open(at(name)).unwrap_err().to_string();
            for (name, expected) in [
                ("squatted", "it belongs to user 1001, not to you (user 1002) or root"),
                ("link", "a symbolic link stands there, which somebody may have planted"),
                ("file", "it is not a directory"),
                ("fifo", "it is not a directory"),
            ] {
                let words = words(name);
                assert!(words.contains(expected) && words.contains(name), "{name}: {words}");
            }
            for outcome in [Namespace::options().create(true).open_named("jobs"), Namespace::private()] {
                let words = outcome.unwrap_err().to_string();
                assert!(words.contains("/dev/shm/ginnel-1002") && words.contains("user 1001"), "{words}");
            }
        })
        .assert_ok();
    });
}
