//! Objects by key and id: what the kernel's calls give, who may do what, what is planted or scribbled over.

use std::os::unix::fs::symlink;

use ginnel_engine::namespace::{Change, Draft, Namespace, REMOVED, What, state};
use ginnel_engine::segment::{HEADER_BYTES, Segment};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{as_user, fork, isolated};
use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};

use super::*;

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
