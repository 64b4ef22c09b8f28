use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::ptr::NonNull;
use std::time::{Duration, Instant, SystemTime};

use ginnel::memory::{FileMapping, PosixShm};
use ginnel::sync::posix_semaphore::VALUE_MAX;
use ginnel::sync::{PosixSemaphore, Semaphore, UnnamedSemaphore};
use ginnel::{Deadline, Namespace};
use ginnel_testkit::{Objects, c_program, fork, isolated, run_ok, unprivileged, wait_blocked_in};

use crate::homes::{in_both_homes, other_objects, wait_blocked};
use crate::{Peer, catch};

const SHORT: Duration = Duration::from_millis(20);

fn peer(words: &[&str]) -> Command {
    let mut command = Command::new(c_program!("tests/sync/posix_semaphore.c"));
    command.args(words);
    command
}

/// What every semaphore must do, named or not.
fn counts_and_waits(home: &Namespace, semaphore: &Semaphore) {
    assert_eq!(semaphore.value().unwrap(), 0);
    assert_eq!(semaphore.try_wait().unwrap_err().errno_name(), "EAGAIN");
    let before = Instant::now();
    let late = semaphore.wait_deadline(SHORT).unwrap_err();
    assert!(before.elapsed() >= SHORT, "did not return before the deadline");
    assert!(late.is_timed_out(), "{late}");
    for passed in [Deadline::from(Instant::now() - SHORT), Deadline::from(SystemTime::now() - SHORT)] {
        assert!(semaphore.wait_deadline(passed).unwrap_err().is_timed_out());
    }

    let waiter = fork(|| semaphore.wait().unwrap());
    wait_blocked(home, waiter.pid(), libc::SYS_futex);
    assert_eq!(semaphore.value().unwrap(), 0);
    semaphore.post().unwrap();
    waiter.assert_ok();

    for deadline in [Deadline::NEVER, Duration::from_secs(100).into(), Duration::MAX.into()] {
        let interrupted = fork(|| {
            catch(libc::SIGUSR1, 0);
            assert!(semaphore.wait_deadline(deadline).unwrap_err().is_interrupted());
        });
        wait_blocked(home, interrupted.pid(), libc::SYS_futex);
        interrupted.signal(libc::SIGUSR1);
        interrupted.assert_ok();
    }

    semaphore.post().unwrap();
    {
        let _unit = semaphore.acquire().unwrap();
        assert!(semaphore.try_acquire().unwrap_err().is_would_block());
        assert!(semaphore.acquire_deadline(SHORT).unwrap_err().is_timed_out());
    }
    assert_eq!(semaphore.value().unwrap(), 1);
    let unit = semaphore.acquire_deadline(SHORT).unwrap();
    // SAFETY: the copy is dropped once, in a process that ends by _exit.
    fork(|| drop(unsafe { std::ptr::read(&raw const unit) })).assert_ok();
    assert_eq!(semaphore.value().unwrap(), 0, "the child does not hold it, and posts nothing");
    unit.keep();
    assert_eq!(semaphore.value().unwrap(), 0);

    // Many at once: none lost, none twice.
    let children: Vec<_> = (0..4)
        .map(|_| {
            fork(|| {
                for _ in 0..200 {
                    semaphore.post().unwrap();
                    semaphore.wait().unwrap();
                }
                semaphore.post().unwrap();
            })
        })
        .collect();
    children.into_iter().for_each(|child| child.assert_ok());
    assert_eq!(semaphore.value().unwrap(), 4);
}

#[test]
fn a_named_one_counts_and_waits() {
    in_both_homes(|home| counts_and_waits(home, &PosixSemaphore::create_in(home, "/count", 0).unwrap()));
}

#[test]
fn an_unnamed_one_counts_and_waits() {
    isolated(|| counts_and_waits(&Namespace::kernel(), &UnnamedSemaphore::anonymous(0).unwrap()));
}

#[test]
fn names_open_as_files_do() {
    in_both_homes(|home| {
        let missing = PosixSemaphore::open_in(home, "/slots").unwrap_err();
        assert!(missing.is_not_found() && missing.object() == "posix-sem:/slots", "{missing}");

        let made =
            PosixSemaphore::options().namespace(home).create_new(true).value(3).open("/slots").unwrap();
        assert_eq!(made.value().unwrap(), 3);
        let again = PosixSemaphore::options().namespace(home).create_new(true).open("/slots").unwrap_err();
        assert!(again.is_already_exists());
        assert_eq!(
            PosixSemaphore::create_in(home, "/slots", 9).unwrap().value().unwrap(),
            3,
            "it keeps its own"
        );
        assert_eq!(PosixSemaphore::list_in(home).unwrap(), ["/slots"]);
        let in_the_kernels = if home.is_kernel() { "dev-shm sem.slots mode 600\n" } else { "" };
        assert_eq!(other_objects(), in_the_kernels);

        PosixSemaphore::remove_in(home, "/slots").unwrap();
        assert!(PosixSemaphore::remove_in(home, "/slots").unwrap_err().is_not_found());
        made.post().unwrap();
        assert_eq!(made.value().unwrap(), 4, "without a name it goes on");
        assert_eq!(other_objects(), "");
    });
}

#[test]
fn impossible_names_and_values_are_refused_with_a_hint() {
    in_both_homes(|home| {
        for name in ["", "slots", "/", "/a/b", "//a", "/a\0b"] {
            let error = PosixSemaphore::create_in(home, name, 0).unwrap_err();
            assert_eq!(error.errno_name(), "EINVAL", "{name:?}");
            assert!(error.hint().unwrap().starts_with("a name"), "{error}");
            assert_eq!(PosixSemaphore::remove_in(home, name).unwrap_err().errno_name(), "EINVAL", "{name:?}");
        }
        let longest = format!("/{}", "x".repeat(251));
        drop(PosixSemaphore::create_in(home, &longest, 0).unwrap());
        PosixSemaphore::remove_in(home, &longest).unwrap();
        let long = PosixSemaphore::create_in(home, format!("{longest}x"), 0).unwrap_err();
        assert_eq!(long.errno_name(), "ENAMETOOLONG");

        let high = PosixSemaphore::create_in(home, "/high", VALUE_MAX + 1).unwrap_err();
        assert!(high.errno_name() == "EINVAL" && high.hint().unwrap().contains("2147483647"), "{high}");
        assert_eq!(UnnamedSemaphore::anonymous(VALUE_MAX + 1).unwrap_err().errno_name(), "EINVAL");
        let full = UnnamedSemaphore::anonymous(VALUE_MAX).unwrap();
        assert_eq!(full.post().unwrap_err().errno_name(), "EOVERFLOW");
        assert_eq!(full.value().unwrap(), VALUE_MAX);
        assert_eq!(other_objects(), "");
    });
}

#[test]
fn a_file_that_is_no_semaphore_is_an_error_and_no_sigbus() {
    isolated(|| {
        std::fs::write("/dev/shm/sem.empty", "").unwrap();
        for error in [PosixSemaphore::open("/empty"), PosixSemaphore::create("/empty", 1)] {
            let error = error.unwrap_err();
            assert!(error.is_corrupted() && error.hint().unwrap().contains("/dev/shm/sem.empty"), "{error}");
        }
        assert!(PosixSemaphore::options().create_new(true).open("/empty").is_err());
    });
}

#[test]
fn opening_twice_is_the_same_semaphore_until_the_last_is_closed() {
    isolated(|| {
        let first = PosixSemaphore::create("/twice", 0).unwrap();
        // By its inode: a mapping keeps the temporary name under which the file was made.
        let file = std::fs::metadata("/dev/shm/sem.twice").unwrap().ino().to_string();
        let maps = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&file)).count()
        };
        let second = PosixSemaphore::open("/twice").unwrap();
        assert_eq!(maps(), 1);
        drop(first);
        second.post().unwrap();
        assert_eq!(second.value().unwrap(), 1);
        drop(second);
        assert_eq!(maps(), 0);

        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let _open = PosixSemaphore::open("/twice").unwrap();
        assert_eq!(count(), before, "no descriptor stays open");
    });
}

#[test]
fn an_anonymous_one_is_unmapped_with_its_handle() {
    isolated(|| {
        let zero = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/dev/zero").count();
        let before = zero();
        let semaphore = UnnamedSemaphore::anonymous(1).unwrap();
        assert_eq!(zero(), before + 1);
        drop(semaphore);
        assert_eq!(zero(), before);
    });
}

#[test]
fn permissions_are_the_modes() {
    in_both_homes(|home| {
        let _private = PosixSemaphore::create_in(home, "/private", 1).unwrap();
        unprivileged(|| {
            let refused = PosixSemaphore::open_in(home, "/private").unwrap_err();
            assert!(refused.is_permission_denied() && refused.hint().is_some(), "{refused}");
            // /dev/shm is sticky.
            assert!(PosixSemaphore::remove_in(home, "/private").unwrap_err().is_permission_denied());
            drop(PosixSemaphore::create_in(home, "/own", 0).unwrap());
            PosixSemaphore::remove_in(home, "/own").unwrap();
        })
        .assert_ok();
    });
}

#[test]
fn a_killed_holders_unit_is_lost() {
    isolated(|| {
        let semaphore = PosixSemaphore::create("/lost", 1).unwrap();
        let holder = Peer::holding(&mut peer(&["hold", "/lost"]));
        holder.process.kill();
        holder.process.wait();
        assert!(semaphore.try_wait().unwrap_err().is_would_block());
    });
}

#[test]
fn a_program_in_c_is_the_other_end() {
    isolated(|| {
        let before = Objects::snapshot();
        run_ok(&mut peer(&["create", "/both", "1"]));
        let semaphore = PosixSemaphore::open("/both").unwrap();
        semaphore.wait().unwrap();

        let mut waiter = Peer::start(&mut peer(&["wait", "/both"]));
        wait_blocked_in(waiter.process.pid(), libc::SYS_futex);
        semaphore.post().unwrap();
        assert_eq!(waiter.line(), "done");

        let ours = fork(|| semaphore.wait().unwrap());
        wait_blocked_in(ours.pid(), libc::SYS_futex);
        run_ok(&mut peer(&["post", "/both"]));
        ours.assert_ok();
        semaphore.post().unwrap();
        assert_eq!(run_ok(&mut peer(&["value", "/both"])), "1\n");
        PosixSemaphore::remove("/both").unwrap();
        before.assert_same();
    });
}

#[test]
fn an_unnamed_one_of_a_program_in_c_is_used_in_place() {
    isolated(|| {
        let directory = ginnel_testkit::temp_dir();
        let path = directory.path().join("memory");
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(4096).unwrap();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut peer = Peer::holding(&mut peer(&["memory", path.to_str().unwrap()]));
        // SAFETY: a new mapping of a whole page of the file, never unmapped.
        let memory = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        // SAFETY: the C program has initialised it.
        let semaphore = unsafe { UnnamedSemaphore::from_raw(NonNull::new(memory.cast()).unwrap()) };
        wait_blocked_in(peer.process.pid(), libc::SYS_futex);
        semaphore.post().unwrap();
        assert_eq!(peer.line(), "done");
        // SAFETY: the C program is through with it.
        let anew = unsafe { UnnamedSemaphore::init(NonNull::new(memory.cast()).unwrap(), 5) };
        assert_eq!(anew.unwrap().value().unwrap(), 5);
    });
}

#[test]
fn one_in_a_mapping_is_shared_by_all_who_map_it() {
    isolated(|| {
        let ours = PosixShm::create("/memory", 4096).unwrap().map().unwrap();
        let semaphore = UnnamedSemaphore::in_mapping(&ours, 64, 0).unwrap();
        let child = fork(|| {
            let theirs = PosixShm::open("/memory").unwrap().map().unwrap();
            UnnamedSemaphore::open_in_mapping(&theirs, 64).unwrap().wait().unwrap();
        });
        wait_blocked_in(child.pid(), libc::SYS_futex);
        semaphore.post().unwrap();
        child.assert_ok();

        let none = UnnamedSemaphore::open_in_mapping(&ours, 128).unwrap_err();
        assert!(none.is_corrupted() && none.hint().is_some(), "{none}");
        for offset in [4, 65, 4096 - 24, 4096, usize::MAX] {
            let refused = UnnamedSemaphore::in_mapping(&ours, offset, 0).unwrap_err();
            assert_eq!(refused.errno_name(), "EINVAL", "{offset}: {refused}");
        }
        UnnamedSemaphore::in_mapping(&ours, 4096 - UnnamedSemaphore::BYTES, 0).unwrap();
        let high = UnnamedSemaphore::in_mapping(&ours, 0, VALUE_MAX + 1).unwrap_err();
        assert_eq!(high.errno_name(), "EINVAL");
    });
}

#[cfg(feature = "tokio")]
#[test]
fn async_forms_wait() {
    use ginnel::tokio::Polled;
    in_both_homes(|home| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let named = Polled::new(PosixSemaphore::create_in(home, "/async", 0).unwrap());
            assert!(tokio::time::timeout(SHORT, named.wait()).await.is_err());
            named.get_ref().post().unwrap();
            let unit = named.acquire().await.unwrap();
            assert!(named.get_ref().try_wait().unwrap_err().is_would_block());
            drop(unit);
            named.wait().await.unwrap();

            let unnamed = Polled::new(UnnamedSemaphore::anonymous(1).unwrap());
            drop(unnamed.acquire().await.unwrap());
            unnamed.wait().await.unwrap();
            assert_eq!(unnamed.get_ref().value().unwrap(), 0);
        });
    });
}

#[test]
fn a_semaphore_whose_file_is_truncated_says_so() {
    isolated(|| {
        let directory = ginnel_testkit::temp_dir();
        let path = directory.path().join("ring");
        let lost = |call: fn(&Semaphore) -> ginnel::Result<()>| {
            let mapping = FileMapping::create(&path, 64).unwrap();
            let semaphore = UnnamedSemaphore::in_mapping(&mapping, 0, 1).unwrap();
            semaphore.post().unwrap();
            std::fs::File::create(&path).unwrap();
            assert!(call(&semaphore).unwrap_err().is_truncated());
        };
        lost(|semaphore| semaphore.wait());
        lost(|semaphore| semaphore.try_wait());
        lost(|semaphore| semaphore.wait_deadline(Duration::from_millis(1)));
        lost(|semaphore| semaphore.post());
        lost(|semaphore| semaphore.value().map(drop));
    });
}
