//! Mapped files: shared and private, whole and in part, growing; C agrees.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::Ordering;

use ginnel::memory::{Advice, Anonymous, FileMapping};
use ginnel::sync::record_lock::Owner;
use ginnel::sync::{LockKind, RecordLocks};
use ginnel_testkit::{c_program, fork, isolated, run_ok, temp_dir, unprivileged};

use crate::{PAGE, errno, hint};

#[test]
fn what_is_written_is_in_the_file_and_stays() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        fork(|| {
            let file = FileMapping::create(&path, 3 * PAGE as u64).unwrap();
            file.write_bytes(PAGE - 2, b"over the page").unwrap();
            // SAFETY: a process may always end itself.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        })
        .wait();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len(), 3 * PAGE);
        assert_eq!(&content[PAGE - 2..PAGE + 11], b"over the page");
        let file = FileMapping::open_read_only(&path).unwrap();
        assert_eq!(file.read_vec(PAGE - 2..PAGE + 11).unwrap(), b"over the page");
        File::options().write(true).open(&path).unwrap().write_all_at(b"by write", 5).unwrap();
        assert_eq!(file.read_vec(5..13).unwrap(), b"by write");
        assert_eq!(file.status().unwrap().mode, 0o600);
    });
}

#[test]
fn c_and_rust_see_each_other() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        let file = FileMapping::create(&path, 5000).unwrap();
        let program = c_program!("tests/memory/file.c");
        let name = path.to_str().unwrap();
        run_ok(Command::new(&program).args(["write", name, "4090", "from C"]));
        assert_eq!(file.read_vec(4090..4096).unwrap(), b"from C");
        file.write_bytes(4990, b"from Rust").unwrap();
        assert_eq!(run_ok(Command::new(&program).args(["read", name, "4990", "9"])), "from Rust\n");
    });
}

#[test]
fn a_part_begins_and_ends_anywhere() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        let content: Vec<u8> = (0..3 * PAGE).map(|i| (i % 253) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        for (offset, len) in [(0, 1), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE - 1), (3 * PAGE - 1, 1)] {
            let part = FileMapping::options().range(offset as u64, len).open(&path).unwrap();
            assert_eq!(part.len(), len);
            assert_eq!(part.read_vec(..).unwrap(), content[offset..offset + len], "{offset} {len}");
            part.write_at(len - 1, content[offset + len - 1]).unwrap();
            assert_eq!(errno(part.read_at::<u8>(len)), "EINVAL");
        }
        let beyond = FileMapping::options().range(PAGE as u64, 2 * PAGE + 1).open(&path);
        let error = beyond.unwrap_err();
        assert_eq!(error.object(), format!("file:{}#4096+8193", path.display()));
        assert!(error.hint().unwrap().contains("it has 12288 bytes"), "{error}");
        assert_eq!(errno(FileMapping::options().range(u64::MAX, 1).open(&path)), "EOVERFLOW");
        assert_eq!(errno(FileMapping::options().range(0, usize::MAX).open(&path)), "EINVAL");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    });
}

#[test]
fn a_private_mapping_changes_nothing_for_others_and_can_be_reverted() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        std::fs::write(&path, vec![1; PAGE + 100]).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        unprivileged(|| {
            let private = FileMapping::options().private(true).populate(true).open(&path).unwrap();
            assert!(private.is_private());
            private.fill(.., 2).unwrap();
            assert_eq!(private.read_vec(..).unwrap(), vec![2; PAGE + 100]);
            assert_eq!(std::fs::read(&path).unwrap(), vec![1; PAGE + 100]);
            assert!(hint(private.advise(.., Advice::DontNeed)).contains("revert"));
            private.revert(PAGE..).unwrap();
            assert_eq!(private.read_vec(PAGE..).unwrap(), [1; 100]);
            assert_eq!(private.read_vec(..PAGE).unwrap(), [2; PAGE]);
            assert_eq!(errno(private.revert(1..)), "EINVAL");
            assert_eq!(errno(private.discard(..PAGE)), "EACCES");
            assert_eq!(errno(FileMapping::open(&path)), "EACCES");
        })
        .assert_ok();
    });
}

#[test]
fn it_grows_and_shrinks_with_the_file() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        let mut file = FileMapping::create(&path, 10).unwrap();
        let mut reader = FileMapping::open_read_only(&path).unwrap();
        file.write_bytes(0, b"0123456789").unwrap();
        file.resize(3 * PAGE as u64).unwrap();
        file.write_at(3 * PAGE - 1, 7_u8).unwrap();
        assert_eq!(reader.len(), 10);
        reader.refresh().unwrap();
        assert_eq!((reader.len(), reader.read_at::<u8>(3 * PAGE - 1).unwrap()), (3 * PAGE, 7));
        file.resize(5).unwrap();
        assert_eq!(file.read_vec(..).unwrap(), b"01234");
        assert!(reader.read_vec(..).unwrap_err().is_truncated());
        reader.refresh().unwrap();
        assert_eq!(reader.read_vec(..).unwrap(), b"01234");
        assert_eq!(errno(file.resize(0)), "EINVAL", "nothing is left to map");
        assert_eq!(file.len(), 5, "the mapping is as it was");
        assert_eq!(FileMapping::create(&path, 8).unwrap().len(), 8);
        assert_eq!(FileMapping::create(&path, 4).unwrap().len(), 8, "a lower bound");
    });
}

#[test]
fn a_full_file_system_is_an_error_when_the_size_is_set() {
    isolated(|| {
        let directory = temp_dir();
        let small = directory.path().join("small");
        std::fs::create_dir(&small).unwrap();
        run_ok(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small));
        assert_eq!(errno(FileMapping::create(small.join("large"), 1 << 20)), "ENOSPC");
        let mut file = FileMapping::create(small.join("data"), PAGE as u64).unwrap();
        assert_eq!(errno(file.resize(1 << 20)), "ENOSPC");
        assert_eq!(file.status().unwrap().size_bytes, PAGE as u64);
        // A hole that somebody else has left is an error when it is written.
        File::options().write(true).open(small.join("data")).unwrap().set_len(1 << 20).unwrap();
        file.refresh().unwrap();
        assert!(file.fill(.., 1).unwrap_err().is_truncated());
        run_ok(Command::new("umount").arg("-l").arg(&small));
    });
}

#[test]
fn opening_says_what_is_wrong() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        assert_eq!(errno(FileMapping::open(&path)), "ENOENT");
        assert!(hint(FileMapping::create(directory.path().join("no/where"), 1)).contains("directory"));
        assert_eq!(errno(FileMapping::open(directory.path())), "EISDIR");
        assert_eq!(errno(FileMapping::open_read_only(directory.path())), "ENODEV");
        let empty = FileMapping::options().create_new(true).open(&path);
        assert!(hint(empty).contains("set its size first"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(errno(FileMapping::options().create_new(true).size(1).open(&path)), "EEXIST");
        let proc = FileMapping::open_read_only("/proc/self/status");
        assert_eq!(errno(proc), "ENODEV");
        assert_eq!(errno(FileMapping::options().range(0, 100).open_read_only("/proc/self/status")), "ENODEV");
        let zeros = FileMapping::options().range(0, 100).private(true).open("/dev/zero").unwrap();
        assert_eq!(zeros.read_vec(..).unwrap(), [0; 100]);

        std::fs::write(&path, "content").unwrap();
        let read_only = File::open(&path).unwrap();
        assert!(hint(FileMapping::options().map(read_only)).contains("open for reading and writing"));
        let mapped = FileMapping::options().map_read_only(File::open(&path).unwrap()).unwrap();
        assert_eq!(mapped.read_vec(..).unwrap(), b"content");
        assert_eq!(mapped.into_mapping().read_vec(..3).unwrap(), b"con");
        let truncated = FileMapping::options().truncate(true).size(3).open(&path).unwrap();
        assert_eq!(truncated.read_vec(..).unwrap(), [0; 3]);
    });
}

#[test]
fn the_descriptor_is_closed_by_exec() {
    isolated(|| {
        let directory = temp_dir();
        let _file = FileMapping::create(directory.path().join("cloexec"), 1).unwrap();
        let listing = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!listing.contains("cloexec"), "{listing}");
    });
}

#[test]
fn opening_with_a_size_never_cuts_what_another_makes_longer() {
    isolated(|| {
        const SIZES: [u64; 2] = [4096, 8192];
        let directory = temp_dir();
        let gate = Anonymous::map(PAGE).unwrap();
        let rounds = 600;
        let open_all = |size: u64| {
            for round in 0..rounds {
                // Both at once.
                let arrived = gate.atomic_u32(round * 4 % PAGE).unwrap();
                arrived.fetch_add(1, Ordering::SeqCst);
                let both = 2 * (round * 4 / PAGE + 1) as u32;
                while arrived.load(Ordering::SeqCst) < both {
                    std::thread::yield_now();
                }
                FileMapping::create(directory.path().join(round.to_string()), size).unwrap();
            }
        };
        let children = SIZES.map(|size| fork(|| open_all(size)));
        children.into_iter().for_each(|child| child.assert_ok());
        for round in 0..rounds {
            let size = std::fs::metadata(directory.path().join(round.to_string())).unwrap().len();
            assert_eq!(size, SIZES[1], "round {round}");
        }
    });
}

#[test]
fn a_file_that_could_not_be_mapped_is_not_left_behind() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("new");
        assert_eq!(errno(FileMapping::options().create(true).open(&path)), "EINVAL");
        assert!(!path.exists());
        assert_eq!(
            errno(FileMapping::options().create_new(true).size(10).range(5, 10).open(&path)),
            "EINVAL"
        );
        assert!(!path.exists());

        // What was there stays, and so does what a dangling link leads to.
        std::fs::write(&path, b"").unwrap();
        assert_eq!(errno(FileMapping::options().create(true).open(&path)), "EINVAL");
        assert!(path.exists());
        std::os::unix::fs::symlink("target", directory.path().join("link")).unwrap();
        FileMapping::create(directory.path().join("link"), 10).unwrap();
        assert_eq!(std::fs::metadata(directory.path().join("target")).unwrap().len(), 10);
    });
}

#[test]
fn closing_a_mapped_file_keeps_the_processs_own_locks_on_it() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("locked");
        std::fs::write(&path, [0; 10]).unwrap();
        let locks = RecordLocks::options().owner(Owner::Process).open(&path).unwrap();
        let guard = locks.lock(.., LockKind::Exclusive).unwrap();
        drop(FileMapping::open(&path).unwrap());
        assert!(guard.is_held().unwrap());
        let mapping = FileMapping::open(&path).unwrap().into_mapping();
        assert!(guard.is_held().unwrap());
        assert_eq!(errno(FileMapping::options().range(5, 10).open(&path)), "EINVAL");
        assert!(guard.is_held().unwrap());
        drop(guard);
        drop((mapping, locks));
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        assert!(open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).all(|target| target != path));
    });
}

#[test]
fn a_flush_of_what_was_truncated_away_is_no_success() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("data");
        let file = FileMapping::create(&path, 4 * PAGE as u64).unwrap();
        file.fill(.., 1).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2 * PAGE as u64).unwrap();
        file.flush(..2 * PAGE).unwrap();
        file.flush(0..0).unwrap();
        assert_eq!(errno(file.flush(..)), "EFAULT");
        assert_eq!(errno(file.flush_async(PAGE..3 * PAGE)), "EFAULT");
        file.check().unwrap();
    });
}
