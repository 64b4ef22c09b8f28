//! The registry: what the kernel's `get` and `ctl` calls give, who may do what, what is refused, what the dead leave.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::Stepped;
use ginnel_engine::namespace::{
    Change, Draft, Kind, Limits, Namespace, OpenError, REMOVED, Refusal, What, mark_removed, state,
};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{as_user, fork, isolated, isolated_for};
use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

const QUEUE: Kind = Kind::SysvQueue;
const SET: Kind = Kind::SysvSemaphores;
const NEW: i32 = IPC_CREAT | IPC_EXCL;

fn plain(draft: &Draft<'_>) -> Result<Segment> {
    draft.segment(1 << 20, |_| Ok(()))
}

fn never(_: &Draft<'_>) -> Result<Segment> {
    panic!("nothing is to be made")
}

fn home(name: &str) -> Namespace {
    Namespace::options().create(true).open_named(name).unwrap()
}

/// One that everybody shares.
fn shared() -> Namespace {
    Namespace::options().create(true).mode(0o1777).open("/dev/shm/everybody").unwrap()
}

fn doom(segment: &Segment) -> Result<()> {
    mark_removed(segment);
    Ok(())
}

fn files(home: &Namespace, kind: Kind) -> Vec<String> {
    let entries = std::fs::read_dir(home.path().join(kind.directory())).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn get_finds_and_makes_as_the_kernel_does() {
    isolated(|| {
        let home = home("jobs");
        assert_eq!(home.get(QUEUE, 5, 0o600, 0, never), Err(Errno::NOENT));
        assert_eq!(home.get(QUEUE, 5, IPC_EXCL | 0o600, 0, never), Err(Errno::NOENT));
        let id = home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
        assert!(id >= 0);
        assert_eq!(home.get(QUEUE, 5, NEW | 0o600, 0, never), Err(Errno::EXIST));
        assert_eq!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, never), Ok(id));
        assert_eq!(home.get(QUEUE, 5, IPC_EXCL, 0, never), Ok(id));
        // Another kind, another key, keys that are negative.
        assert_ne!(home.get(SET, 5, IPC_CREAT | 0o600, 3, plain), Ok(id));
        let negative = home.get(QUEUE, -2, IPC_CREAT | 0o600, 0, plain).unwrap();
        assert_eq!(home.get(QUEUE, -2, 0, 0, never), Ok(negative));
        // Two without a key are two.
        let one = home.get(QUEUE, IPC_PRIVATE, 0o600, 0, plain).unwrap();
        let other = home.get(QUEUE, IPC_PRIVATE, NEW | 0o600, 0, plain).unwrap();
        assert_ne!(one, other);
        assert_eq!(home.list(QUEUE).unwrap().len(), 4);
    });
}

#[test]
fn more_than_there_is_is_einval_but_eexist_comes_first() {
    isolated(|| {
        let home = home("jobs");
        let id = home.get(SET, 5, IPC_CREAT | 0o400, 3, plain).unwrap();
        assert_eq!(home.get(SET, 5, 0, 3, never), Ok(id));
        assert_eq!(home.get(SET, 5, 0, 4, never), Err(Errno::INVAL));
        assert_eq!(home.get(SET, 5, NEW | 0o600, 4, never), Err(Errno::EXIST));
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    isolated(|| {
        let home = home("jobs");
        let fails = |_: &Draft<'_>| -> Result<Segment> { Err(Errno::INVAL) };
        assert_eq!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, fails), Err(Errno::INVAL));
        let fills = |draft: &Draft<'_>| draft.segment(1 << 20, |_| Err(Errno::NOSPC));
        assert_eq!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, fills), Err(Errno::NOMEM));
        assert_eq!(files(&home, QUEUE), [""; 0]);
    });
}

#[test]
fn the_status_is_the_files_and_the_makers() {
    isolated(|| {
        let home = home("jobs");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o7666, 0, plain).unwrap();
        let status = home.stat(QUEUE, id).unwrap();
        assert_eq!((status.id, status.key, status.mode, status.extent), (id, 5, 0o666, 0));
        assert_eq!((status.uid, status.gid, status.cuid, status.cgid), (0, 0, 0, 0));
        assert!(status.ctime > 1_500_000_000);
        assert_eq!(home.stat(QUEUE, id.wrapping_add(1) & i32::MAX), Err(Errno::INVAL));
        assert_eq!(home.stat(QUEUE, -1), Err(Errno::INVAL));
    });
}

#[test]
fn a_removed_object_is_gone_by_both_names_and_its_users_know() {
    isolated(|| {
        let home = home("jobs");
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let segment = home.open_id(QUEUE, id).unwrap();
        home.remove_id(QUEUE, id, doom).unwrap();
        assert_eq!(state(&segment) & REMOVED, REMOVED);
        assert_eq!(files(&home, QUEUE), [""; 0]);
        assert_eq!(home.open_id(QUEUE, id).unwrap_err(), Errno::INVAL);
        assert_eq!(home.remove_id(QUEUE, id, doom), Err(Errno::INVAL));
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Err(Errno::NOENT));
        assert_ne!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain), Ok(id));
    });
}

#[test]
fn an_object_removed_by_a_closure_that_cannot_is_removed_all_the_same() {
    isolated(|| {
        let home = home("jobs");
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let segment = home.open_id(QUEUE, id).unwrap();
        assert_eq!(home.remove_id(QUEUE, id, |_| Err(Errno::INTR)), Err(Errno::INTR));
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Ok(id), "still there");
        home.remove_id(QUEUE, id, |_| Err(Errno::UCLEAN)).unwrap();
        assert_eq!(state(&segment) & REMOVED, REMOVED);
        assert_eq!(files(&home, QUEUE), [""; 0]);
    });
}

#[test]
fn set_changes_the_file_and_is_seen_by_who_has_it_open() {
    isolated(|| {
        let home = shared();
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let segment = home.open_id(QUEUE, id).unwrap();
        let before = state(&segment);
        home.set(QUEUE, id, Change { uid: 1001, gid: 1002, mode: 0o7640 }).unwrap();
        assert_ne!(state(&segment), before);
        let status = home.stat(QUEUE, id).unwrap();
        assert_eq!(
            (status.uid, status.gid, status.cuid, status.cgid, status.mode),
            (1001, 1002, 0, 0, 0o640)
        );
        assert_eq!(home.set(QUEUE, id, Change { uid: u32::MAX, gid: 0, mode: 0 }), Err(Errno::INVAL));
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            // Its owner now, but it is not the creator's to give away.
            assert_eq!(home.set(QUEUE, id, Change { uid: 1003, gid: 1002, mode: 0o600 }), Err(Errno::PERM));
            home.set(QUEUE, id, Change { uid: 1001, gid: 1002, mode: 0 }).unwrap();
            assert_eq!(home.open_id(QUEUE, id).unwrap_err(), Errno::ACCESS);
            assert_eq!(home.stat(QUEUE, id).unwrap_err(), Errno::ACCESS);
            // The owner can change and remove it whatever its mode.
            home.set(QUEUE, id, Change { uid: 1001, gid: 1002, mode: 0o200 }).unwrap();
            home.remove_id(QUEUE, id, doom).unwrap();
        })
        .assert_ok();
        assert_eq!(files(&home, QUEUE), [""; 0]);
    });
}

/// Mode, and what another user who is not in the group gets for: asking for reading, for writing, for both, for
/// nothing; the status; using it.
const ANOTHER_USER: [(i32, [bool; 6]); 5] = [
    (0o600, [false, false, false, true, false, false]),
    (0o640, [false, false, false, true, false, false]),
    (0o644, [true, false, false, true, true, false]),
    // Writing alone: memory cannot be written without being read.
    (0o622, [false, true, false, true, false, false]),
    (0o666, [true, true, true, true, true, true]),
];

#[test]
fn another_user_can_do_what_the_mode_says() {
    isolated(|| {
        let home = shared();
        let ids = ANOTHER_USER.map(|(mode, _)| home.get(QUEUE, mode, IPC_CREAT | mode, 0, plain).unwrap());
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            for ((mode, expected), id) in ANOTHER_USER.into_iter().zip(ids) {
                let get = |bits| match home.get(QUEUE, mode, bits, 0, never) {
                    Ok(found) => found == id,
                    Err(errno) => {
                        assert_eq!(errno, Errno::ACCESS, "{mode:o}");
                        false
                    }
                };
                let got = [
                    get(0o400),
                    get(0o200),
                    get(0o600),
                    get(0),
                    home.stat(QUEUE, id).is_ok(),
                    home.open_id(QUEUE, id).is_ok(),
                ];
                assert_eq!(got, expected, "{mode:o}");
                assert_eq!(home.remove_id(QUEUE, id, doom), Err(Errno::PERM), "{mode:o}");
                let change = Change { uid: 1001, gid: 1001, mode: 0o666 };
                assert_eq!(home.set(QUEUE, id, change), Err(Errno::PERM), "{mode:o}");
            }
            assert_eq!(home.list(QUEUE).unwrap().len(), ids.len());
        })
        .assert_ok();
        // One of the group.
        as_user(1002, 0, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            assert_eq!(home.get(QUEUE, 0o640, 0o440, 0, never), Ok(ids[1]));
            assert_eq!(home.get(QUEUE, 0o640, 0o600, 0, never), Err(Errno::ACCESS));
            assert!(home.read_id(QUEUE, ids[1]).unwrap().word64(HEADER_BYTES).is_ok());
        })
        .assert_ok();
    });
}

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
fn what_is_planted_as_an_object_is_euclean() {
    isolated(|| {
        let home = home("jobs");
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let directory = home.path().join("msg");
        let at = |name: &str| directory.join(name);
        let get = |key| home.get(QUEUE, key, IPC_CREAT | 0o600, 0, never);
        // A hard link and a symbolic link of another key, a directory, a FIFO, a file of anything.
        std::fs::hard_link(at("k.00000005"), at("k.00000006")).unwrap();
        assert_eq!(get(6), Err(Errno::UCLEAN));
        assert_eq!(get(5), Err(Errno::UCLEAN), "it has one name too many");
        assert_eq!(home.open_id(QUEUE, id).unwrap_err(), Errno::UCLEAN);
        std::fs::remove_file(at("k.00000006")).unwrap();
        assert_eq!(get(5), Ok(id));
        symlink(at("k.00000005"), at("k.00000007")).unwrap();
        assert_eq!(get(7), Err(Errno::UCLEAN));
        std::fs::create_dir(at("k.00000008")).unwrap();
        assert_eq!(get(8), Err(Errno::UCLEAN));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("i.77"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(home.open_id(QUEUE, 77).unwrap_err(), Errno::UCLEAN);
        std::fs::write(at("i.78"), vec![7; 8192]).unwrap();
        assert_eq!(home.open_id(QUEUE, 78).unwrap_err(), Errno::UCLEAN);
        // An object of another kind.
        std::fs::rename(at(&format!("i.{id}")), home.path().join(format!("sem/i.{id}"))).unwrap();
        assert_eq!(home.open_id(SET, id).unwrap_err(), Errno::UCLEAN);
        // It can be removed for all that.
        home.remove_id(QUEUE, 78, doom).unwrap();
        home.remove_id(SET, id, doom).unwrap();
    });
}
