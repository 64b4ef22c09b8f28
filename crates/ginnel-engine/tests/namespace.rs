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
use ginnel_testkit::{as_user, fork, isolated, isolated_for, wait_blocked_in, wait_until};
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

fn make_and_remove(home: &Namespace, key: i32) {
    let id = home.get(QUEUE, key, IPC_CREAT | 0o600, 0, plain).unwrap();
    home.remove_id(QUEUE, id, doom).unwrap();
}

/// Kills a process before and after each system call of `work`: how many it was. Between two of them nobody sees a change:
/// all that the registry does to what others see are calls.
fn kill_everywhere(work: impl Fn(), mut check: impl FnMut(usize)) -> usize {
    for at in 0.. {
        let stepped = Stepped::start(&work);
        let inside = (0..at).all(|_| stepped.step_call());
        stepped.kill();
        check(at);
        if !inside {
            return at;
        }
    }
    unreachable!("the test's own deadline comes first")
}

#[test]
fn killed_anywhere_in_making_or_removing_the_next_completes_it() {
    isolated(|| {
        let home = home("jobs");
        // Whoever looks: by key, by id, listing, collecting.
        let mut ids = Vec::new();
        let look: [&dyn Fn() -> bool; 3] =
            [&|| home.get(QUEUE, 5, 0, 0, never).is_ok(), &|| !home.list(QUEUE).unwrap().is_empty(), &|| {
                assert!(home.collect(false).unwrap().iter().all(|finding| finding.removed));
                !home.list(QUEUE).unwrap().is_empty()
            }];
        let (mut made, mut half, mut kills) = (0, 0, 0);
        for look in look {
            kills += kill_everywhere(
                || make_and_remove(&home, 5),
                |at| {
                    half += usize::from(files(&home, QUEUE).len() == 1);
                    let there = look();
                    // There whole, or not at all.
                    assert_eq!(home.get(QUEUE, 5, 0, 0, never).is_ok(), there, "killed at {at}");
                    if there {
                        made += 1;
                        let id = home.get(QUEUE, 5, 0, 0, never).unwrap();
                        ids.push(id);
                        home.open_id(QUEUE, id).unwrap();
                        home.remove_id(QUEUE, id, doom).unwrap();
                    }
                    // A key that was given up in the middle is free.
                    let id = home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                    home.remove_id(QUEUE, id, doom).unwrap();
                    assert_eq!(home.list(QUEUE).unwrap(), [], "killed at {at}");
                    home.collect(false).unwrap();
                    assert_eq!(files(&home, QUEUE), [""; 0], "killed at {at}");
                },
            );
        }
        println!("{kills} kills, of which {made} left an object and {half} a half of one");
        assert!(kills > 60 && made > 10 && half > 3);
        assert!(ids.iter().all(|id| home.open_id(QUEUE, *id).unwrap_err() == Errno::INVAL));
    });
}

#[test]
fn a_dry_run_finds_the_same_and_removes_nothing() {
    isolated(|| {
        let home = home("jobs");
        let mut seen = Vec::new();
        kill_everywhere(
            || make_and_remove(&home, 5),
            |at| {
                let before = files(&home, QUEUE);
                let dry = home.collect(true).unwrap();
                assert_eq!(files(&home, QUEUE), before, "killed at {at}");
                let wet = home.collect(false).unwrap();
                // An id that is removed takes its key with it, so fewer are seen.
                assert_eq!(dry.is_empty(), wet.is_empty(), "killed at {at}");
                assert!(dry.iter().chain(&wet).all(|finding| finding.removed));
                seen.extend(dry.into_iter().map(|finding| finding.what));
                for listed in home.list(QUEUE).unwrap() {
                    home.remove_id(QUEUE, listed.id, doom).unwrap();
                }
                assert_eq!(files(&home, QUEUE), [""; 0], "killed at {at}");
            },
        );
        assert!(seen.contains(&What::HalfMade) && seen.contains(&What::Removed));
    });
}

#[test]
fn an_object_that_is_being_made_is_not_taken_for_a_dead_ones() {
    isolated(|| {
        let home = home("jobs");
        let stepped = Stepped::start(|| {
            home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
        });
        while files(&home, QUEUE).len() != 1 {
            assert!(stepped.step_call());
        }
        // Its maker is stopped between its two names.
        assert_eq!(home.collect(false).unwrap(), []);
        assert_eq!(home.list(QUEUE).unwrap(), []);
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Err(Errno::NOENT));
        assert_eq!(files(&home, QUEUE).len(), 1);
        stepped.finish("the maker makes it");
        let id = home.get(QUEUE, 5, 0, 0, never).unwrap();
        home.open_id(QUEUE, id).unwrap();
    });
}

#[test]
fn one_of_many_makers_makes_it_and_none_is_left_over() {
    isolated(|| {
        let home = home("jobs");
        for round in 0..50 {
            let (reader, writer) = std::io::pipe().unwrap();
            let makers: Vec<_> = (0..4)
                .map(|maker| {
                    fork(|| {
                        let flags = if maker % 2 == 0 { NEW } else { IPC_CREAT } | 0o600;
                        let id = match home.get(QUEUE, 5, flags, 0, plain) {
                            Ok(id) => id,
                            Err(errno) => {
                                assert_eq!(errno, Errno::EXIST);
                                -1
                            }
                        };
                        std::io::Write::write_all(&mut &writer, &id.to_ne_bytes()).unwrap();
                    })
                })
                .collect();
            drop(writer);
            makers.into_iter().for_each(|maker| maker.assert_ok());
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut &reader, &mut bytes).unwrap();
            let ids = bytes.chunks_exact(4).map(|id| i32::from_ne_bytes(id.try_into().unwrap()));
            let id = home.get(QUEUE, 5, 0, 0, never).unwrap();
            assert!(ids.filter(|one| *one >= 0).all(|one| one == id), "round {round}");
            assert_eq!(files(&home, QUEUE).len(), 2);
            home.remove_id(QUEUE, id, doom).unwrap();
        }
    });
}

#[test]
fn making_and_removing_the_same_key_by_many_while_they_are_killed() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let home = home("jobs");
        let work = || {
            loop {
                match home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain) {
                    Ok(id) => match home.open_id(QUEUE, id).and_then(|_| home.remove_id(QUEUE, id, doom)) {
                        Ok(()) | Err(Errno::INVAL) => {}
                        Err(errno) => panic!("{errno}"),
                    },
                    Err(errno) => panic!("{errno}"),
                }
            }
        };
        let mut workers: Vec<_> = (0..3).map(|_| fork(work)).collect();
        for round in 0..60_u64 {
            std::thread::sleep(std::time::Duration::from_micros(500 + round * 137 % 3000));
            let worker = workers.remove(0);
            assert!(worker.is_alive(), "it failed");
            worker.kill();
            worker.wait();
            workers.push(fork(work));
        }
        for worker in workers {
            assert!(worker.is_alive(), "it failed");
            worker.kill();
            worker.wait();
        }
        if let Ok(id) = home.get(QUEUE, 5, 0, 0, never) {
            home.remove_id(QUEUE, id, doom).unwrap();
        }
        assert!(home.collect(false).unwrap().iter().all(|finding| finding.removed));
        assert_eq!(files(&home, QUEUE), [""; 0]);
    });
}

#[test]
fn another_users_leftover_is_nobodys_object() {
    isolated(|| {
        let home = shared();
        // A user dies in the middle of removing: marked, and both names are there.
        let dying = as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let id = home.get(QUEUE, 5, IPC_CREAT | 0o666, 0, plain).unwrap();
            let _ = home.remove_id(QUEUE, id, |segment| {
                mark_removed(segment);
                common::signal_self(libc::SIGKILL);
                Ok(())
            });
        });
        dying.wait();
        assert_eq!(files(&home, QUEUE).len(), 2);
        as_user(1002, 1002, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            assert_eq!(home.list(QUEUE).unwrap(), []);
            // Not this user's to take away: it is told, and nothing is done to the names.
            assert_eq!(home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain), Err(Errno::PERM));
            let findings = home.collect(false).unwrap();
            assert!(!findings.is_empty() && findings.iter().all(|finding| !finding.removed), "{findings:?}");
        })
        .assert_ok();
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
        })
        .assert_ok();
        assert_eq!(files(&home, QUEUE).len(), 2);
    });
}

#[test]
fn who_keeps_an_objects_lock_delays_its_removal_and_hangs_nobody() {
    isolated(|| {
        let home = home("jobs");
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let file = std::fs::File::open(home.path().join("msg/k.00000005")).unwrap();
        file.lock().unwrap();
        assert_eq!(home.remove_id(QUEUE, id, doom), Err(Errno::BUSY));
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Ok(id));
        home.open_id(QUEUE, id).unwrap();
        drop(file);
        home.remove_id(QUEUE, id, doom).unwrap();
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
        assert_eq!(Namespace::sweep(), 1);
        assert!(!path.exists());
        assert_eq!(refusal(Namespace::open(&path)), Refusal::Missing);
        // By a relative path, left from somewhere else.
        let home = Namespace::private().unwrap();
        std::env::set_current_dir("/dev/shm/ginnel-0").unwrap();
        let again = Namespace::open(home.path().file_name().unwrap()).unwrap();
        drop(home);
        std::env::set_current_dir("/").unwrap();
        drop(again);
        assert_eq!(std::fs::read_dir("/dev/shm/ginnel-0").unwrap().count(), 0);
    });
}

#[test]
fn killed_anywhere_in_making_a_private_namespace_the_next_sweeps_it() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let left = || std::fs::read_dir("/dev/shm/ginnel-0").map_or(0, |entries| entries.count());
        let mut swept = 0;
        let kills = kill_everywhere(
            || {
                let home = Namespace::private().unwrap();
                home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
            },
            |at| {
                swept += left();
                let home = Namespace::private().unwrap();
                assert_eq!(left(), 1, "killed at {at}: only the new one");
                assert!(home.get(QUEUE, 5, NEW | 0o600, 0, plain).is_ok());
                drop(home);
                assert_eq!(left(), 0, "killed at {at}");
            },
        );
        println!("{kills} kills, {swept} swept");
        assert!(kills > 60 && swept > 30);
    });
}

#[test]
fn killed_anywhere_in_making_a_named_namespace_the_next_makes_it() {
    isolated_for(std::time::Duration::from_secs(120), || {
        let options = Namespace::options().create(true).mode(0o1777);
        let kills = kill_everywhere(
            || drop(options.open("/dev/shm/everybody").unwrap()),
            |at| {
                let home = options.open("/dev/shm/everybody").unwrap();
                home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                for directory in Kind::ALL.map(|kind| home.path().join(kind.directory())) {
                    assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o1777, "killed at {at}");
                }
                std::fs::remove_dir_all(home.path()).unwrap();
            },
        );
        println!("{kills} kills");
        assert!(kills > 40);
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
        assert_eq!(std::fs::read_dir("/dev/shm/ginnel-0").unwrap().count(), 0);
    });
}

#[test]
fn scribbled_headers_are_euclean_and_can_be_removed() {
    isolated(|| {
        let home = home("jobs");
        for word in (0..0x40).step_by(4) {
            for value in [0_u32, u32::MAX, 0x5a5a_5a5a, 5, 1, 2, 3] {
                let id = home.get(QUEUE, 5, NEW | 0o600, 0, plain).unwrap();
                let other = home.get(QUEUE, 6, IPC_CREAT | 0o600, 0, plain).unwrap();
                let segment = home.open_id(QUEUE, id).unwrap();
                rustix::io::pwrite(segment.file().unwrap(), &value.to_ne_bytes(), word).unwrap();
                drop(segment);
                let _ = (home.open_id(QUEUE, id), home.stat(QUEUE, id), home.list(QUEUE).unwrap());
                let _ = home.collect(true).unwrap();
                match home.remove_id(QUEUE, id, doom) {
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(errno) => panic!("word {word:#x} value {value:#x}: {errno}"),
                }
                home.collect(false).unwrap();
                assert_eq!(
                    home.get(QUEUE, 5, 0, 0, never),
                    Err(Errno::NOENT),
                    "word {word:#x} value {value:#x}"
                );
                assert_eq!(home.get(QUEUE, 6, 0, 0, never), Ok(other), "no other object is harmed");
            }
        }
    });
}

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

#[test]
fn collecting_touches_only_what_is_ours() {
    isolated(|| {
        let home = home("jobs");
        let path = |name: &str| home.path().join(name);
        let id = home.get(QUEUE, 5, IPC_CREAT | 0o600, 0, plain).unwrap();
        let strange =
            ["msg/notes", "msg/i.77", "msg/k.00000077", "msg/i.-1", "msg/i.007", "mq/letter", "psem/x"];
        strange.iter().for_each(|name| std::fs::write(path(name), "mine").unwrap());
        std::fs::write("/dev/shm/precious", "mine").unwrap();
        symlink("/dev/shm/precious", path("msg/i.78")).unwrap();
        std::fs::write(path("pshm/pixels"), "mine").unwrap();
        let findings = home.collect(false).unwrap();
        assert_eq!(findings.len(), strange.len() + 1, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.what == What::Foreign && !finding.removed));
        assert!(strange.iter().all(|name| path(name).exists()) && path("msg/i.78").is_symlink());
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Ok(id));
        // One that somebody has cut off.
        let cut = home.get(SET, 6, IPC_CREAT | 0o600, 1, plain).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path(&format!("sem/i.{cut}"))).unwrap();
        file.set_len(5000).unwrap();
        assert_eq!(home.open_id(SET, cut).unwrap_err(), Errno::UCLEAN);
        let findings = home.collect(false).unwrap();
        let removed: Vec<_> = findings.iter().filter(|finding| finding.removed).collect();
        assert_eq!(removed.len(), 2, "{findings:?}");
        assert!(removed.iter().all(|finding| (finding.kind, finding.what) == (SET, What::Corrupt)));
        // Ours, under names that are not theirs.
        std::fs::rename(path(&format!("msg/i.{id}")), path("msg/i.79")).unwrap();
        let findings = home.collect(false).unwrap();
        let removed: Vec<_> = findings.iter().filter(|finding| finding.removed).collect();
        assert_eq!(removed.len(), 2, "{findings:?}");
        assert!(removed.iter().all(|finding| finding.what == What::Corrupt));
        assert_eq!(home.get(QUEUE, 5, 0, 0, never), Err(Errno::NOENT));
    });
}
