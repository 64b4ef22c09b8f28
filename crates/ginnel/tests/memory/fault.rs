//! A file that is truncated under a mapping is an error, and no other `SIGBUS` is swallowed.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use ginnel::memory::{Advice, FileMapping, HugePages, MemFd, PosixShm, Seals, SysvSegment};
use ginnel::sysv::Key;
use ginnel_testkit::{Exit, TempDir, fork, isolated, run_ok, temp_dir};

use crate::{PAGE, errno};

const PAGES: usize = 100;
const SIZE: usize = PAGES * PAGE;

struct Scratch {
    path: PathBuf,
    file: File,
    _directory: TempDir,
}

fn file_of(size: usize) -> Scratch {
    let directory = temp_dir();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![7; size]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    Scratch { path, file, _directory: directory }
}

/// A child that empties the file and fills it with holes again, for ever.
fn truncate_for_ever(scratch: &Scratch) -> ginnel_testkit::Child {
    fork(|| {
        loop {
            scratch.file.set_len(0).unwrap();
            // On a busy machine the others would hardly ever see it empty.
            std::thread::yield_now();
            scratch.file.set_len(SIZE as u64).unwrap();
            std::thread::yield_now();
        }
    })
}

/// Runs an access until it has met a truncation that many times, mapping anew each time.
fn meet_truncations(count: u32, mut access: impl FnMut(&FileMapping) -> ginnel::Result<()>) {
    let scratch = file_of(SIZE);
    let mut mapping = FileMapping::options().range(0, SIZE).open(&scratch.path).unwrap();
    let child = truncate_for_ever(&scratch);
    for _ in 0..count {
        let error = loop {
            if let Err(error) = access(&mapping) {
                break error;
            }
        };
        assert_eq!(error.errno_name(), "EFAULT", "{error}");
        assert!(error.is_truncated());
        // Lost pages stay lost, whatever the file is by now.
        assert_eq!(errno(mapping.check()), "EFAULT");
        while let Err(error) = mapping.refresh() {
            assert_eq!(error.errno_name(), "EINVAL", "{error}");
        }
        mapping.check().unwrap();
    }
    assert!(child.is_alive());
}

#[test]
fn another_process_truncates_while_we_read() {
    isolated(|| {
        let mut buffer = vec![0; SIZE];
        meet_truncations(50, |mapping| mapping.read_bytes(0, &mut buffer));
    });
}

#[test]
fn another_process_truncates_while_we_write() {
    isolated(|| {
        let data = vec![9; SIZE];
        meet_truncations(50, |mapping| mapping.write_bytes(0, &data));
    });
}

#[test]
fn another_process_truncates_under_small_accesses_of_every_kind() {
    isolated(|| {
        let mut at = 0;
        meet_truncations(50, |mapping| {
            at = (at + PAGE) % SIZE;
            mapping.read_at::<u64>(at)?;
            mapping.write_at(at + 8, 1_u32)?;
            mapping.load_u16(at)?;
            mapping.copy_within(at..at + 100, at + 200)?;
            mapping.fill(at..at + 300, 1)
        });
    });
}

#[test]
fn what_is_still_there_stays_readable() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let mapping = FileMapping::open(&scratch.path).unwrap();
        scratch.file.set_len(10 * PAGE as u64).unwrap();
        let error = mapping.read_vec(..).unwrap_err();
        assert!(error.is_truncated(), "{error}");
        assert_eq!(error.operation(), "memory read");
        assert!(error.hint().unwrap().contains("bytes from 40960 to"), "{error}");
        assert!(mapping.read_vec(..10 * PAGE).unwrap().iter().all(|byte| *byte == 7));
        assert_eq!(errno(mapping.read_at::<u8>(10 * PAGE)), "EFAULT");
        assert_eq!(errno(mapping.write_at(SIZE - 1, 0_u8)), "EFAULT");
        mapping.write_at(10 * PAGE - 8, 5_u64).unwrap();
        assert_eq!(errno(mapping.write_bytes(10 * PAGE - 1, &[1, 1])), "EFAULT");
    });
}

#[test]
fn a_file_that_grows_again_heals_by_mapping_anew_only() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let mut mapping = FileMapping::open(&scratch.path).unwrap();
        scratch.file.set_len(0).unwrap();
        assert_eq!(errno(mapping.read_at::<u64>(PAGE)), "EFAULT");
        scratch.file.set_len(SIZE as u64).unwrap();
        assert_eq!(errno(mapping.read_at::<u64>(PAGE)), "EFAULT", "would be this process's own page");
        assert_eq!(mapping.read_at::<u64>(5 * PAGE).unwrap(), 0, "was not accessed in the meantime");
        mapping.refresh().unwrap();
        mapping.write_at(PAGE, 3_u64).unwrap();
        assert_eq!(std::fs::read(&scratch.path).unwrap()[PAGE], 3);
    });
}

#[test]
fn an_atomic_outlives_its_file_and_check_tells() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let mapping = FileMapping::open(&scratch.path).unwrap();
        let atomic = mapping.atomic_u32(PAGE).unwrap();
        assert_eq!(atomic.load(Ordering::Acquire), 0x0707_0707);
        scratch.file.set_len(0).unwrap();
        mapping.check().unwrap();
        assert_eq!(atomic.fetch_add(1, Ordering::SeqCst), 0);
        assert_eq!(atomic.load(Ordering::SeqCst), 1);
        assert!(mapping.check().unwrap_err().is_truncated());
        assert_eq!(errno(mapping.atomic_u32(PAGE + 4)), "EFAULT");
        assert_eq!(errno(mapping.flush(..)), "EFAULT");
    });
}

#[test]
fn a_thread_meets_it_too() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let mapping = FileMapping::open_read_only(&scratch.path).unwrap();
        scratch.file.set_len(0).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|i| {
                    let mapping = &mapping;
                    scope.spawn(move || {
                        (0..PAGES)
                            .all(|page| errno(mapping.read_at::<u8>((page + i) % PAGES * PAGE)) == "EFAULT")
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
    });
}

#[test]
fn private_mappings_posix_memory_and_memfds_meet_it_too() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let private = FileMapping::options().private(true).open(&scratch.path).unwrap();
        private.write_at(0, 1_u8).unwrap();
        scratch.file.set_len(0).unwrap();
        assert_eq!(errno(private.read_at::<u8>(0)), "EFAULT");
        assert_eq!(errno(private.write_at(PAGE, 0_u8)), "EFAULT");

        let shm = PosixShm::create("/truncated", SIZE as u64).unwrap();
        let mapping = shm.map().unwrap();
        fork(|| PosixShm::open("/truncated").unwrap().resize(PAGE as u64).unwrap()).assert_ok();
        mapping.write_at(PAGE - 1, 1_u8).unwrap();
        assert_eq!(errno(mapping.write_at(PAGE, 1_u8)), "EFAULT");

        let memory = MemFd::create("truncated", SIZE as u64).unwrap();
        let mapping = memory.map_read_only().unwrap();
        memory.resize(0).unwrap();
        assert_eq!(errno(mapping.read_vec(..)), "EFAULT");
    });
}

#[test]
fn a_memfd_sealed_against_shrinking_is_never_truncated() {
    isolated(|| {
        let memory = MemFd::create("sealed", SIZE as u64).unwrap();
        memory.seal(Seals::SHRINK).unwrap();
        let mapping = memory.map().unwrap();
        assert_eq!(errno(memory.resize(0)), "EPERM");
        mapping.read_vec(..).unwrap();
    });
}

#[test]
fn memory_that_is_not_there_is_an_error_at_once_where_reserved_and_at_its_use_where_not() {
    isolated(|| {
        run_ok(Command::new("mount").args(["-o", "remount,size=1m", "/dev/shm"]));
        let shm = PosixShm::create("/full", PAGE as u64).unwrap();
        let error = shm.resize(4 << 20).unwrap_err();
        assert_eq!((error.operation(), error.errno_name()), ("fallocate", "ENOSPC"));
        assert!(error.hint().unwrap().contains("4194304 bytes"), "{error}");
        assert_eq!(shm.status().unwrap().size_bytes, PAGE as u64, "it stays as it was");

        shm.resize_sparse(4 << 20).unwrap();
        let mapping = shm.map().unwrap();
        assert_eq!(errno(mapping.fill(.., 1)), "EFAULT");
        assert_eq!(mapping.read_at::<u8>(0).unwrap(), 1);
        assert!(mapping.advise(.., Advice::PopulateWrite).is_err());
        assert_eq!(errno(PosixShm::create("/fuller", 4 << 20)), "ENOSPC");
        assert!(!std::path::Path::new("/dev/shm/fuller").exists(), "nothing is left of it");
    });
}

#[test]
fn entries_are_used_again_and_faults_go_to_the_right_mapping() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let healthy = file_of(SIZE);
        for round in 0..20 {
            let sound: Vec<_> = (0..round).map(|_| FileMapping::open(&healthy.path).unwrap()).collect();
            let mapping = FileMapping::open(&scratch.path).unwrap();
            let later: Vec<_> = (0..round).map(|_| FileMapping::open(&healthy.path).unwrap()).collect();
            scratch.file.set_len(0).unwrap();
            assert_eq!(errno(mapping.read_vec(..)), "EFAULT");
            sound.iter().chain(&later).for_each(|mapping| {
                mapping.check().unwrap();
                mapping.read_vec(..).unwrap();
            });
            scratch.file.set_len(SIZE as u64).unwrap();
        }
    });
}

/// Maps the file without the library, and reads what is not there.
fn foreign_fault(scratch: &Scratch) {
    scratch.file.set_len(SIZE as u64).unwrap();
    let file = File::open(&scratch.path).unwrap();
    // SAFETY: a new mapping, used by the volatile read alone.
    unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file.as_fd());
        let base = libc::mmap(std::ptr::null_mut(), SIZE, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        assert_ne!(base, libc::MAP_FAILED);
        scratch.file.set_len(0).unwrap();
        base.cast::<u8>().read_volatile();
    }
}

fn handle_sigbus(handler: usize, flags: i32) {
    // SAFETY: the handlers below only _exit, or return where the signal was sent.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn exit_with_code(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's siginfo; _exit is async-signal-safe.
    unsafe {
        let whole = signal == libc::SIGBUS && (*info).si_code == libc::BUS_ADRERR && !context.is_null();
        libc::_exit(if whole { 42 } else { 43 });
    }
}

extern "C" fn exit_plainly(_: i32) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(44) }
}

/// One fault of ours, which is an error; what `then` does afterwards decides how the child ends.
fn after_a_fault_of_ours(handler: usize, flags: i32, then: impl Fn(&Scratch)) -> Exit {
    let scratch = file_of(SIZE);
    fork(|| {
        handle_sigbus(handler, flags);
        let mapping = FileMapping::open(&scratch.path).unwrap();
        scratch.file.set_len(0).unwrap();
        assert_eq!(errno(mapping.read_vec(..)), "EFAULT");
        then(&scratch);
    })
    .wait()
}

fn send_sigbus(_: &Scratch) {
    // SAFETY: a process may signal itself.
    unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
}

#[test]
fn a_handler_that_was_there_gets_what_is_not_ours() {
    isolated(|| {
        let with_info = exit_with_code as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize;
        let plain = exit_plainly as extern "C" fn(i32) as usize;
        assert_eq!(after_a_fault_of_ours(with_info, libc::SA_SIGINFO, foreign_fault), Exit::Code(42));
        assert_eq!(after_a_fault_of_ours(plain, 0, foreign_fault), Exit::Code(44));
        assert_eq!(after_a_fault_of_ours(plain, libc::SA_NODEFER, send_sigbus), Exit::Code(44));
    });
}

#[test]
fn a_handler_keeps_its_mask_and_is_reset_where_it_wanted_to_be() {
    extern "C" fn once(_: i32) {
        // SAFETY: sigprocmask only reads the mask.
        unsafe {
            let mut mask = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask);
            if libc::sigismember(&mask, libc::SIGBUS) != 1 {
                libc::_exit(45);
            }
        }
    }
    isolated(|| {
        let once = once as extern "C" fn(i32) as usize;
        let twice = |scratch: &Scratch| (0..2).for_each(|_| send_sigbus(scratch));
        assert_eq!(after_a_fault_of_ours(once, libc::SA_RESETHAND, twice), Exit::Signal(libc::SIGBUS));
        assert_eq!(after_a_fault_of_ours(once, 0, twice), Exit::Code(0));
    });
}

#[test]
fn what_nobody_handles_kills_as_it_would() {
    isolated(|| {
        let killed = Exit::Signal(libc::SIGBUS);
        assert_eq!(after_a_fault_of_ours(libc::SIG_DFL, 0, foreign_fault), killed);
        assert_eq!(after_a_fault_of_ours(libc::SIG_DFL, 0, send_sigbus), killed);
        assert_eq!(after_a_fault_of_ours(libc::SIG_IGN, 0, foreign_fault), killed, "a fault is not ignored");
        assert_eq!(after_a_fault_of_ours(libc::SIG_IGN, 0, send_sigbus), Exit::Code(0));
    });
}

#[test]
fn what_rust_itself_has_installed_lets_a_foreign_fault_kill() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let child = fork(|| {
            let _mapping = FileMapping::open(&scratch.path).unwrap();
            foreign_fault(&scratch);
        });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGBUS));
    });
}

#[test]
fn a_fault_where_a_mapping_of_ours_was_kills() {
    isolated(|| {
        let scratch = file_of(SIZE);
        let child = fork(|| {
            handle_sigbus(libc::SIG_DFL, 0);
            drop(FileMapping::open(&scratch.path).unwrap());
            foreign_fault(&scratch);
        });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGBUS));
    });
}

#[test]
fn a_handler_for_one_signal_only_does_not_take_ours_along() {
    extern "C" fn nothing(_: i32) {}
    isolated(|| {
        let once = nothing as extern "C" fn(i32) as usize;
        let ours_after_it = |scratch: &Scratch| {
            send_sigbus(scratch);
            scratch.file.set_len(SIZE as u64).unwrap();
            let mapping = FileMapping::open(&scratch.path).unwrap();
            scratch.file.set_len(0).unwrap();
            assert_eq!(errno(mapping.read_vec(..)), "EFAULT");
        };
        assert_eq!(after_a_fault_of_ours(once, libc::SA_RESETHAND, ours_after_it), Exit::Code(0));
    });
}

#[test]
fn a_segment_that_lost_pages_is_detached_whole() {
    isolated(|| {
        // Huge pages that nobody has reserved: none is there when it is used.
        if std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap().trim() != "0" {
            return;
        }
        let huge_bytes = 2 << 20;
        for size in [64, 3 * huge_bytes] {
            let segment = SysvSegment::options().size(size).huge_pages(HugePages::DEFAULT).no_reserve(true);
            let segment = segment.open(Key::PRIVATE).unwrap();
            let mapping = segment.attach().unwrap();
            let place = mapping.as_ptr().addr();
            assert_eq!(errno(mapping.write_at(0, 1_u8)), "EFAULT");
            assert!(is_mapped(place));
            drop(mapping);
            assert!(!is_mapped(place) && !is_mapped(place + size - 1));
            assert_eq!(segment.status().unwrap().attached, 0);
            segment.remove().unwrap();
        }
    });
}

fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let number = |hex| usize::from_str_radix(hex, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    })
}

#[test]
fn threads_that_map_and_unmap_do_not_disturb_those_that_meet_a_truncation() {
    isolated(|| {
        let healthy = file_of(2 * PAGE);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mapping = FileMapping::open(&healthy.path).unwrap();
                        assert_eq!(mapping.read_vec(..).unwrap(), [7; 2 * PAGE]);
                        mapping.check().unwrap();
                    }
                });
            }
            let meet = || {
                for _ in 0..200 {
                    let memory = MemFd::create("met", SIZE as u64).unwrap();
                    let mapping = memory.map().unwrap();
                    memory.resize(0).unwrap();
                    assert_eq!(errno(mapping.read_vec(..)), "EFAULT");
                }
            };
            let meeting: Vec<_> = (0..2).map(|_| scope.spawn(meet)).collect();
            let met: Vec<_> = meeting.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(met.iter().all(Result::is_ok));
        });
    });
}
