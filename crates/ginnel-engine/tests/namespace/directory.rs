//! The directory: by name, by path, private; what is refused.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ginnel_engine::namespace::{Limits, Namespace, OpenError, Refusal};
use ginnel_testkit::{as_user, fork, isolated, wait_blocked_in, wait_until};
use libc::IPC_CREAT;

use super::*;

#[test]
fn a_namespace_is_opened_by_name_and_by_path_and_keeps_its_limits() {
    isolated(|| {
        assert_eq!(refusal(Namespace::options().open_named("jobs")), Refusal::Missing);
        let limits = Limits { msgmax: 100, ..Limits::default() };
        let made = Namespace::options().create(true).limits(limits).open_named("jobs").unwrap();
        assert_eq!(made.path(), Path::new("/dev/shm/ginnel-0/jobs"));
        assert_eq!(std::fs::metadata("/dev/shm/ginnel-0").unwrap().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::metadata(made.path()).unwrap().mode() & 0o7777, 0o700);
        let id = made.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let again = Namespace::options().create(true).open("/dev/shm/ginnel-0/jobs").unwrap();
        assert_eq!(*again.limits(), limits);
        assert_eq!(again.get(QUEUE, 5, 0, 0, never), Ok(id));
        drop((made, again));
        assert!(Path::new("/dev/shm/ginnel-0/jobs/info").exists(), "it outlives its users");
        for name in ["", ".", "..", "a/b", ".hidden", &"x".repeat(201)] {
            assert_eq!(refusal(Namespace::options().create(true).open_named(name)), Refusal::Name, "{name}");
        }
        let limits = Limits { semvmx: 40_000, ..Limits::default() };
        assert_eq!(
            refusal(Namespace::options().create(true).limits(limits).open_named("x")),
            Refusal::Limits
        );
    });
}

fn refusal(outcome: std::result::Result<Namespace, OpenError>) -> Refusal {
    outcome.expect_err("it was opened").why
}

#[test]
fn what_somebody_else_planted_is_refused_in_words() {
    isolated(|| {
        let create = || Namespace::options().create(true);
        std::fs::create_dir("/dev/shm/real").unwrap();
        symlink("/dev/shm/real", "/dev/shm/link").unwrap();
        assert_eq!(refusal(create().open("/dev/shm/link")), Refusal::Link);
        std::fs::write("/dev/shm/file", "").unwrap();
        assert_eq!(refusal(create().open("/dev/shm/file")), Refusal::NotADirectory);
        assert_eq!(refusal(create().open("/tmp/ginnel-not-memory")), Refusal::NotMemory);
        assert!(!Path::new("/tmp/ginnel-not-memory").exists(), "nothing is left of it");

        // Squatted by another user.
        std::fs::create_dir("/dev/shm/squatted").unwrap();
        std::os::unix::fs::chown("/dev/shm/squatted", Some(1001), Some(1001)).unwrap();
        let error = create().open("/dev/shm/squatted").unwrap_err();
        assert_eq!(error.why, Refusal::Owner { owner: 1001 });
        assert!(error.to_string().contains("belongs to user 1001, not to you (user 0)"), "{error}");
        assert!(create().owned_by(1001).open("/dev/shm/squatted").is_ok());

        // Writable by others without being sticky.
        std::fs::create_dir("/dev/shm/open").unwrap();
        std::fs::set_permissions("/dev/shm/open", std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(refusal(create().open("/dev/shm/open")), Refusal::Writable { mode: 0o777 });
        assert_eq!(refusal(create().mode(0o770).open("/dev/shm/new")), Refusal::Writable { mode: 0o770 });

        // Somebody's own directory.
        std::fs::create_dir("/dev/shm/mine").unwrap();
        std::fs::write("/dev/shm/mine/letters", "dear").unwrap();
        assert_eq!(refusal(create().open("/dev/shm/mine")), Refusal::Foreign);
        assert_eq!(refusal(Namespace::open("/dev/shm/mine")), Refusal::Missing);

        // The base of another user's.
        std::fs::create_dir("/dev/shm/ginnel-1001").unwrap();
        as_user(1001, 1001, || {
            assert_eq!(refusal(Namespace::private()), Refusal::Owner { owner: 0 });
        })
        .assert_ok();
    });
}

#[test]
fn an_info_file_that_is_not_the_owners_or_not_whole_is_refused() {
    isolated(|| {
        let make = |name: &str| {
            let path = home(name).path().to_owned();
            (path.clone(), path.join("info"))
        };
        let (path, info) = make("owner");
        std::os::unix::fs::chown(&info, Some(1001), Some(1001)).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Info);
        let (path, info) = make("hard");
        std::fs::hard_link(&info, "/dev/shm/other").unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Info);
        let (path, info) = make("soft");
        std::fs::rename(&info, "/dev/shm/moved").unwrap();
        symlink("/dev/shm/moved", &info).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Info);
        let (path, info) = make("mode");
        std::fs::set_permissions(&info, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Info);
        let (path, info) = make("short");
        std::fs::write(&info, "ginnel").unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Info);
        let (path, info) = make("version");
        let mut bytes = std::fs::read(&info).unwrap();
        bytes[8] = 99;
        std::fs::write(&info, &bytes).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Version { version: 99 });
        let (path, info) = make("space");
        let mut bytes = std::fs::read(&info).unwrap();
        bytes[16] ^= 1;
        std::fs::write(&info, &bytes).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::PidNamespace);
        // Every bit of it: opened, or refused.
        let (path, info) = make("bits");
        let bytes = std::fs::read(&info).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&info, &flipped).unwrap();
            let _ = Namespace::open(&path);
        }
        // One of its directories.
        let (path, _) = make("inner");
        std::fs::remove_dir(path.join("msg")).unwrap();
        symlink("/dev/shm", path.join("msg")).unwrap();
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Link);
    });
}

#[test]
fn a_private_namespace_goes_with_its_last_user() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        let path = home.path().to_owned();
        assert!(home.is_private() && path.starts_with("/dev/shm/ginnel-0/"));
        home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let other = Namespace::open(&path).unwrap();
        drop(home);
        assert!(other.get(QUEUE, 5, 0, 0, never).is_ok());
        // A child that inherited it, and outlives its parent's use.
        let child = fork(|| {
            common::signal_self(libc::SIGSTOP);
            assert!(other.get(QUEUE, 5, 0, 0, never).is_ok());
            drop(Namespace::open(other.path()).unwrap());
            assert!(other.path().exists());
            common::pause_for_ever();
        });
        drop(other);
        assert!(path.exists(), "the child uses it");
        wait_until("it is stopped", || {
            std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") T ")
        });
        child.signal(libc::SIGCONT);
        wait_blocked_in(child.pid(), libc::SYS_pause);
        assert!(path.exists(), "the child uses it");
        child.kill();
        child.wait();
        assert!(path.exists(), "nobody was there to remove it");
        assert_eq!(Namespace::sweep(true), [&*path]);
        assert!(path.exists(), "a dry run");
        assert_eq!(Namespace::sweep(false), [&*path]);
        assert!(!path.exists());
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Missing);
        // Nobody makes one with such a name, which would be swept while it is in use.
        assert_eq!(refusal(Namespace::options().create(true).open(&path)), Refusal::Missing);
        assert_eq!(refusal(Namespace::options().create(true).open_named("private-x")), Refusal::Missing);
        // By a relative path, left from somewhere else.
        let home = Namespace::private().unwrap();
        std::env::set_current_dir("/dev/shm/ginnel-0").unwrap();
        let again = Namespace::open(home.path().file_name().unwrap()).unwrap();
        drop(home);
        std::env::set_current_dir("/").unwrap();
        drop(again);
        assert!(!std::path::Path::new("/dev/shm/ginnel-0").exists());
    });
}

#[test]
fn the_directory_of_all_goes_with_the_last_of_them() {
    isolated(|| {
        let base = std::path::Path::new("/dev/shm/ginnel-0");
        let first = Namespace::private().unwrap();
        let second = Namespace::private().unwrap();
        drop(first);
        assert!(base.exists());
        drop(second);
        assert!(!base.exists());
        // One that is named stays, and so does the directory.
        drop(Namespace::options().create(true).open_named("jobs").unwrap());
        drop(Namespace::private().unwrap());
        assert!(base.join("jobs").exists());
        std::fs::remove_dir_all(base.join("jobs")).unwrap();
        // One of a killed user's goes with a sweep.
        let user = fork(|| {
            let _home = Namespace::private().unwrap();
            common::pause_for_ever();
        });
        wait_blocked_in(user.pid(), libc::SYS_pause);
        user.kill();
        user.wait();
        assert_eq!(Namespace::sweep(false).len(), 1);
        assert!(!base.exists());
        // One that somebody has made for a purpose of his own is his.
        std::fs::create_dir(base).unwrap();
        std::fs::set_permissions(base, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        drop(Namespace::private().unwrap());
        assert!(base.exists());
        std::fs::remove_dir(base).unwrap();
    });
}

#[test]
fn who_makes_a_namespace_while_the_last_other_goes_makes_it() {
    isolated(|| {
        let children: Vec<_> = (0..4)
            .map(|nth| {
                fork(move || {
                    for round in 0..200 {
                        if nth % 2 == 0 {
                            drop(Namespace::private().unwrap());
                        } else {
                            let name = format!("named{nth}");
                            let home = Namespace::options().create(true).open_named(&name);
                            let home = home.unwrap_or_else(|error| panic!("round {round}: {error}"));
                            std::fs::remove_dir_all(home.path()).unwrap();
                        }
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        drop(Namespace::sweep(false));
        assert!(!std::path::Path::new("/dev/shm/ginnel-0").exists());
    });
}

#[test]
fn private_namespaces_made_and_left_by_many_at_once() {
    isolated(|| {
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    for _ in 0..50 {
                        let home = Namespace::private().unwrap();
                        let again = Namespace::open(home.path()).unwrap();
                        home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                        drop(home);
                        assert!(again.get(QUEUE, 5, 0, 0, never).is_ok());
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|child| child.assert_ok());
        assert!(!std::path::Path::new("/dev/shm/ginnel-0").exists());
    });
}
