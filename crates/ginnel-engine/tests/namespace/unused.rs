//! Objects that nobody has: found when they are asked for, and only those.
#![allow(unsafe_code)]

use std::os::unix::fs::symlink;

use ginnel_engine::Errno;
use ginnel_engine::memory::posix_shm::PosixShm;
use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::posix_queue::PosixQueue;
use ginnel_engine::message::sysv_queue::SysvQueue;
use ginnel_engine::namespace::{Doubt, Finding, Kind, Namespace, What};
use ginnel_engine::segment::HEADER_BYTES;
use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, as_user, fork, isolated, wait_blocked_in, wait_until};
use libc::{O_CREAT, O_RDWR};

use super::*;

/// One of each kind.
fn make_all(home: &Namespace) {
    let id = SysvQueue::get(home, 5, NEW | 0o600).unwrap();
    SysvQueue::open(home, id).unwrap().send(1, b"for somebody", 0, Patience::None).unwrap();
    SysvSemaphores::get(home, 5, 2, NEW | 0o600).unwrap();
    SysvSegment::get(home, 5, 4096, NEW | 0o600).unwrap();
    PosixQueue::open(home, b"/jobs", O_CREAT | O_RDWR, 0o600, None).unwrap();
    PosixSemaphore::open(home, b"/lock", O_CREAT, 0o600, 1).unwrap();
    let file = PosixShm::open(home, b"/pixels", O_CREAT | O_RDWR, 0o600).unwrap();
    PosixShm::resize(&file, 4096).unwrap();
}

/// A process that has one of each kind; of the plain memory the mapping alone, without a descriptor.
fn user_of_all(home: &Namespace) -> Child {
    let child = fork(|| {
        let _queue = SysvQueue::open(home, SysvQueue::get(home, 5, 0).unwrap()).unwrap();
        let _set = SysvSemaphores::open(home, SysvSemaphores::get(home, 5, 0, 0).unwrap()).unwrap();
        SysvSegment::attach(home, SysvSegment::get(home, 5, 0, 0).unwrap(), 0, 0).unwrap();
        let _jobs = PosixQueue::open(home, b"/jobs", O_RDWR, 0, None).unwrap();
        let _lock = PosixSemaphore::open(home, b"/lock", 0, 0, 0).unwrap();
        let file = PosixShm::open(home, b"/pixels", O_RDWR, 0).unwrap();
        // SAFETY: a new mapping, which nobody uses.
        unsafe {
            let (protection, shared) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
            rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, shared, &file, 0).unwrap();
        }
        drop(file);
        common::pause_for_ever();
    });
    wait_blocked_in(child.pid(), libc::SYS_pause);
    child
}

fn kinds(findings: &[Finding]) -> Vec<Kind> {
    assert!(findings.iter().all(|finding| finding.what == What::Unused), "{findings:?}");
    findings.iter().map(|finding| finding.kind).collect()
}

fn everything(home: &Namespace) -> Vec<Vec<String>> {
    Kind::ALL.iter().map(|kind| files(home, *kind)).collect()
}

#[test]
fn what_killed_users_leave_is_found_when_it_is_asked_for() {
    isolated(|| {
        let home = home("jobs");
        make_all(&home);
        let users = [user_of_all(&home), user_of_all(&home)];
        let before = everything(&home);
        let unused = home.collect_unused(false, Doubt::Ignore).unwrap();
        assert_eq!((unused.findings, unused.unseen), (vec![], vec![]), "root sees all");
        let [one, other] = users;
        common::killed(one);
        assert_eq!(home.collect_unused(false, Doubt::Ignore).unwrap().findings, [], "the other one lives");
        common::killed(other);
        // They are whole, so they are nobody's leftovers.
        assert_eq!(home.collect(false).unwrap(), []);
        let dry = home.collect_unused(true, Doubt::Spare).unwrap();
        assert_eq!(kinds(&dry.findings), Kind::ALL);
        assert!(dry.findings.iter().all(|finding| finding.removed), "{dry:?}");
        assert_eq!(everything(&home), before, "a dry run");
        // Whoever comes in between finds them as they were left.
        let queue = SysvQueue::open(&home, SysvQueue::get(&home, 5, 0).unwrap()).unwrap();
        assert_eq!(queue.recv(&mut [0; 64], 0, 0, Patience::None), Ok((1, 12)));
        let wet = home.collect_unused(false, Doubt::Spare).unwrap();
        assert_eq!(kinds(&wet.findings), Kind::ALL[1..], "the queue is in use");
        drop(queue);
        let wet = home.collect_unused(false, Doubt::Spare).unwrap();
        assert_eq!(kinds(&wet.findings), [QUEUE]);
        assert!(everything(&home).iter().all(Vec::is_empty), "{:?}", everything(&home));
        assert_eq!(std::fs::read_dir(home.path().join("bell")).unwrap().count(), 0);
    });
}

#[test]
fn half_made_corrupt_and_strange_files_are_not_taken_for_unused_objects() {
    isolated(|| {
        let home = home("jobs");
        make_all(&home);
        let path = |name: &str| home.path().join(name);
        // Killed between its two names.
        let stepped = common::Stepped::start(|| {
            home.get(QUEUE, 6, NEW | 0o600, 0, plain).unwrap();
        });
        while files(&home, QUEUE).len() != 3 {
            assert!(stepped.step_call());
        }
        stepped.kill();
        // Cut off, of another name, linked twice, of anything, of no file's kind.
        let cut = SysvSemaphores::get(&home, 7, 1, NEW | 0o600).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path(&format!("sem/i.{cut}"))).unwrap();
        file.set_len(5000).unwrap();
        drop(file);
        std::fs::rename(path("psem/sem.lock"), path("psem/sem.other")).unwrap();
        std::fs::hard_link(path("pshm/pixels"), "/dev/shm/kept").unwrap();
        std::fs::write(path("msg/i.78"), "mine").unwrap();
        std::fs::write(path("msg/notes"), "mine").unwrap();
        symlink("/dev/shm/kept", path("pshm/link")).unwrap();
        for fifo in ["msg/i.77", "mq/fifo", "psem/sem.fifo", "pshm/fifo"] {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path(fifo), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }
        std::fs::create_dir(path("pshm/directory")).unwrap();
        let found = home.collect_unused(false, Doubt::Ignore).unwrap().findings;
        assert_eq!(kinds(&found), [QUEUE, SET, Kind::SysvSegment, Kind::PosixQueue]);
        assert!(found.iter().all(|finding| finding.removed), "{found:?}");
        let left = everything(&home);
        assert_eq!(left.iter().map(Vec::len).sum::<usize>(), 4 + 2 + 1 + 2 + 4, "{left:?}");
        // And those that are ours are `collect`'s.
        let removed = home.collect(false).unwrap().into_iter().filter(|finding| finding.removed);
        let removed: Vec<_> = removed.map(|finding| (finding.kind, finding.what)).collect();
        assert_eq!(
            removed,
            [
                (QUEUE, What::HalfMade),
                (SET, What::Corrupt),
                (SET, What::Corrupt),
                (Kind::PosixSemaphore, What::Corrupt)
            ]
        );
        assert_eq!(std::fs::read("/dev/shm/kept").unwrap().len(), 4096, "not touched through its links");
    });
}

#[test]
fn objects_that_scribblers_left_are_removed_or_stay_and_nothing_hangs() {
    isolated(|| {
        let home = home("jobs");
        let queue = |key| SysvQueue::get(&home, key, IPC_CREAT | 0o600);
        for offset in (0..HEADER_BYTES + 512).step_by(8) {
            for word in [0, u64::MAX, 0x0102_0304_0506_0708] {
                let id = queue(5).unwrap();
                let file = home.path().join(format!("msg/i.{id}"));
                let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
                rustix::io::pwrite(&file, &u64::to_ne_bytes(word), offset as u64).unwrap();
                drop(file);
                home.collect_unused(false, Doubt::Ignore).unwrap();
                home.collect(false).unwrap();
                // What neither believes to be an object of this library.
                for name in files(&home, QUEUE) {
                    assert!(offset < 0x40, "{name} is left, word {offset:#x}");
                    std::fs::remove_file(home.path().join("msg").join(name)).unwrap();
                }
            }
        }
    });
}

#[test]
fn what_a_process_may_have_that_cannot_be_looked_at_is_spared() {
    isolated(|| {
        let home = shared();
        rustix::process::umask(rustix::fs::Mode::empty());
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            SysvQueue::get(&home, 5, NEW | 0o600).unwrap();
            SysvQueue::get(&home, 6, NEW | 0o666).unwrap();
        })
        .assert_ok();
        // Root has the one, which its owner cannot see.
        let holder = fork(|| {
            let open = SysvQueue::open(&home, SysvQueue::get(&home, 5, 0).unwrap()).unwrap();
            common::signal_self(libc::SIGSTOP);
            // It learns of the removal, as of any.
            let sent = open.send(1, b"x", libc::IPC_NOWAIT, Patience::None);
            assert!(matches!(sent, Err(Errno::INVAL | Errno::IDRM)), "{sent:?}");
        });
        wait_until("it has it open", || common::is_stopped(&holder));
        let root = (holder.pid() as u32, 0);
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let spared = home.collect_unused(false, Doubt::Spare).unwrap();
            assert!(spared.unseen.iter().any(|unseen| (unseen.pid, unseen.uid) == root), "{spared:?}");
            assert_eq!(kinds(&spared.findings), [QUEUE, QUEUE]);
            assert!(spared.findings.iter().all(|finding| !finding.removed), "{spared:?}");
        })
        .assert_ok();
        assert_eq!(files(&home, QUEUE).len(), 4);
        // Another user may not remove them, whatever it says.
        as_user(1002, 1002, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let found = home.collect_unused(false, Doubt::Ignore).unwrap().findings;
            assert_eq!(found.iter().filter(|finding| finding.removed).count(), 0, "{found:?}");
        })
        .assert_ok();
        assert_eq!(files(&home, QUEUE).len(), 4);
        // Root sees who has what.
        let found = home.collect_unused(true, Doubt::Spare).unwrap();
        assert_eq!((found.findings.len(), found.unseen.len()), (1, 0), "{found:?}");
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let found = home.collect_unused(false, Doubt::Ignore).unwrap().findings;
            assert!(found.len() == 2 && found.iter().all(|finding| finding.removed), "{found:?}");
        })
        .assert_ok();
        holder.signal(libc::SIGCONT);
        holder.assert_ok();
    });
}
