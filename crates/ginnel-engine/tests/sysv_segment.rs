//! System V segments beside the kernel's, and the count of attaches under fork, exec and `SIGKILL`.
#![allow(unsafe_code)]

mod common;
#[path = "sysv_segment/kernel.rs"]
mod kernel;
#[path = "sysv_segment/killed.rs"]
mod killed;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};

use common::{Stepped, pause_for_ever};
use ginnel_engine::memory::sysv_segment::{SHM_DEST, SHM_LOCKED, SysvSegment};
use ginnel_engine::namespace::{Change, Kind, Namespace};
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Exit, as_user, fork, isolated, isolated_for, wait_blocked_in, wait_until};
use libc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, SHM_EXEC, SHM_RDONLY, SHM_REMAP, SHM_RND};

fn home() -> Namespace {
    Namespace::options().create(true).open_named("segments").unwrap()
}

fn shared() -> Namespace {
    Namespace::options().create(true).mode(0o1777).open("/dev/shm/everybody").unwrap()
}

fn attached(home: &Namespace, id: i32) -> u64 {
    SysvSegment::status(home, id).unwrap().attached
}

fn byte(address: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address)
}

fn peek(address: usize) -> u8 {
    // SAFETY: the tests attach what they look at.
    unsafe { byte(address).read_volatile() }
}

fn poke(address: usize, value: u8) {
    // SAFETY: as above.
    unsafe { byte(address).write_volatile(value) };
}

fn pages_used() -> u64 {
    let system = rustix::fs::statvfs("/dev/shm").unwrap();
    system.f_blocks - system.f_bfree
}

/// A generator that gives the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;

/// What the two homes say, side by side; ids and addresses differ, so they are compared by what they lead to.
struct Pair {
    home: Namespace,
    /// The engine's ids, and the kernel's for the same segment.
    ids: Vec<(i32, i32)>,
    /// As above, of what is attached.
    addresses: Vec<(usize, usize)>,
    by_id: BTreeMap<i32, i32>,
}

impl Pair {
    fn step(&mut self, numbers: &mut Numbers) -> String {
        match numbers.below(100) {
            0..25 => self.get(numbers),
            25..50 => self.attach(numbers),
            50..65 => self.detach(numbers),
            65..85 => self.status(numbers),
            _ => self.control(numbers),
        }
    }

    fn get(&mut self, numbers: &mut Numbers) -> String {
        let key = numbers.one_of(&[IPC_PRIVATE, 1, 2, 3, -1]);
        let size = numbers.one_of(&[0, 1, 100, 4096, 4097, 10_000, usize::MAX, usize::MAX - (1 << 24) + 1]);
        let flags =
            numbers.one_of(&[0, IPC_CREAT, IPC_CREAT | IPC_EXCL, IPC_EXCL, IPC_CREAT | libc::SHM_NORESERVE])
                | numbers.one_of(&[0o600, 0o666, 0o400, 0, 0o777]);
        let what = format!("get {key} {size} {flags:#o}");
        let (ours, theirs) = (SysvSegment::get(&self.home, key, size, flags), kernel::get(key, size, flags));
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => match self.by_id.insert(ours, theirs) {
                Some(before) => assert_eq!(before, theirs, "{what}: another segment"),
                None => self.ids.push((ours, theirs)),
            },
            (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop), "{what}"),
        }
        what
    }

    fn id(&self, numbers: &mut Numbers) -> (i32, i32) {
        let known = self.ids.len().min(6);
        if known == 0 || numbers.below(20) == 0 {
            return numbers.one_of(&[(-1, -1), (i32::MAX, i32::MAX), (0x7fff_0000, 0x7fff_0000)]);
        }
        self.ids[self.ids.len() - 1 - numbers.below(known)]
    }

    fn attach(&mut self, numbers: &mut Numbers) -> String {
        let (ours, theirs) = self.id(numbers);
        let flags = numbers.one_of(&[
            0,
            0,
            SHM_RDONLY,
            SHM_RND,
            SHM_RND | SHM_RDONLY,
            SHM_REMAP,
            SHM_REMAP | SHM_RND,
        ]);
        // One of ours to replace; not of those that the system gave out, whose neighbours are the other home's.
        let placed = self.addresses.iter().rev().find(|(ours, _)| *ours < 0x20_0000_0000);
        let near = placed.copied().unwrap_or((0x7000_0000_0000, 0x7100_0000_0000));
        // Free ones lie far below what the system gives out, each home in a range of its own.
        let free = 0x10_0000_0000 + numbers.below(64) * 0x10_000;
        let (here, there) = numbers.one_of(&[
            (0, 0),
            (0, 0),
            (free, free + (1 << 32)),
            (free + 77, free + 77 + (1 << 32)),
            (near.0, near.1),
            (near.0 + 1, near.1 + 1),
            (0x7fff_ffff_f000, 0x7fff_ffff_f000),
            (usize::MAX - 4095, usize::MAX - 4095),
        ]);
        let what = format!("attach {ours}/{theirs} at {here:x}/{there:x} {flags:#o}");
        match (SysvSegment::attach(&self.home, ours, here, flags), kernel::attach(theirs, there, flags)) {
            (Ok(ours), Ok(theirs)) => {
                if here != 0 {
                    assert_eq!((ours & !0xfff, theirs & !0xfff), (here & !0xfff, there & !0xfff), "{what}");
                }
                assert_eq!(peek(ours), peek(theirs), "{what}: contents");
                if flags & SHM_RDONLY == 0 {
                    let value = numbers.below(256) as u8;
                    poke(ours, value);
                    poke(theirs, value);
                }
                if flags & SHM_REMAP != 0 {
                    self.addresses.retain(|(one, _)| *one != ours);
                }
                self.addresses.push((ours, theirs));
            }
            (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop), "{what}"),
        }
        what
    }

    fn detach(&mut self, numbers: &mut Numbers) -> String {
        if self.addresses.is_empty() || numbers.below(10) == 0 {
            let (ours, theirs) = self.addresses.last().copied().unwrap_or((0x5000, 0x5000));
            let off = numbers.one_of(&[1, 4095]);
            assert_eq!(SysvSegment::detach(ours + off), kernel::detach(theirs + off));
            return "detach off".into();
        }
        let (ours, theirs) = self.addresses.swap_remove(numbers.below(self.addresses.len()));
        let what = format!("detach {ours:x}/{theirs:x}");
        detach_all(ours, theirs);
        what
    }

    fn status(&self, numbers: &mut Numbers) -> String {
        let (ours, theirs) = self.id(numbers);
        let what = format!("status {ours}/{theirs}");
        match (SysvSegment::status(&self.home, ours), kernel::status(theirs)) {
            (Ok(ours), Ok(theirs)) => {
                let permissions = &theirs.shm_perm;
                assert_eq!(ours.mode, permissions.mode as u32, "{what}: mode");
                assert_eq!(ours.object.key, permissions.__key, "{what}: key");
                assert_eq!((ours.object.uid, ours.object.gid), (permissions.uid, permissions.gid), "{what}");
                assert_eq!(
                    (ours.object.cuid, ours.object.cgid),
                    (permissions.cuid, permissions.cgid),
                    "{what}"
                );
                assert_eq!(ours.size_bytes, theirs.shm_segsz as u64, "{what}: size");
                assert_eq!(ours.attached, theirs.shm_nattch, "{what}: nattch");
                assert_eq!(ours.creator_process, theirs.shm_cpid as u32, "{what}: cpid");
                assert_eq!(ours.last_process, theirs.shm_lpid as u32, "{what}: lpid");
                let pairs = [
                    (ours.attach_time, theirs.shm_atime),
                    (ours.detach_time, theirs.shm_dtime),
                    (ours.object.ctime, theirs.shm_ctime),
                ];
                for (ours, theirs) in pairs {
                    assert_eq!(ours == 0, theirs == 0, "{what}: {pairs:?}");
                    // The two calls were made one after the other.
                    assert!((ours - theirs).abs() <= 5, "{what}: {pairs:?}");
                }
            }
            (ours, theirs) => assert_eq!(ours.map(drop), theirs.map(drop), "{what}"),
        }
        what
    }

    fn control(&self, numbers: &mut Numbers) -> String {
        let (ours, theirs) = self.id(numbers);
        match numbers.below(4) {
            0 => {
                assert_eq!(SysvSegment::remove(&self.home, ours), kernel::control(theirs, libc::IPC_RMID));
                format!("remove {ours}/{theirs}")
            }
            1 => {
                let mode = numbers.one_of(&[0o600, 0o7777, 0o444]);
                let change = Change { uid: 0, gid: 0, mode: u32::from(mode) };
                assert_eq!(SysvSegment::set(&self.home, ours, change), kernel::set(theirs, mode));
                format!("set {ours}/{theirs} {mode:o}")
            }
            number => {
                let (lock, command) = if number == 2 { (true, SHM_LOCK) } else { (false, SHM_UNLOCK) };
                assert_eq!(SysvSegment::lock(&self.home, ours, lock), kernel::control(theirs, command));
                format!("lock {ours}/{theirs} {lock}")
            }
        }
    }
}

/// Also what a shorter attach has replaced the beginning of: that one is detached at the same address.
fn detach_all(ours: usize, theirs: usize) {
    for times in 0.. {
        let (here, there) = (SysvSegment::detach(ours), kernel::detach(theirs));
        assert_eq!(here, there, "detach {ours:x}/{theirs:x} for the {times}th time");
        if here.is_err() {
            assert!(times > 0);
            return;
        }
    }
}

#[test]
fn random_calls_give_what_the_kernel_gives() {
    // More on request: how many times 1500 calls.
    let seeds = std::env::var("GINNEL_SEEDS").map_or(20, |seeds| seeds.parse().unwrap());
    isolated_for(std::time::Duration::from_secs(60 + seeds), || {
        for seed in 1..=seeds {
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let home = Namespace::private().unwrap();
            let mut pair = Pair { home, ids: Vec::new(), addresses: Vec::new(), by_id: BTreeMap::new() };
            let mut done = Vec::new();
            for step in 0..1500 {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.step(&mut numbers)));
                match outcome {
                    Ok(what) => done.push(what),
                    Err(_) => {
                        panic!("seed {seed} step {step} after {:#?}", &done[done.len().saturating_sub(12)..])
                    }
                }
            }
            pair.addresses.into_iter().for_each(|(ours, theirs)| detach_all(ours, theirs));
            for (ours, theirs) in pair.ids {
                assert_eq!(SysvSegment::remove(&pair.home, ours), kernel::control(theirs, libc::IPC_RMID));
            }
            assert_eq!(pair.home.list(Kind::SysvSegment).unwrap(), []);
        }
    });
}

#[test]
fn what_one_process_writes_another_reads() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 10_000, IPC_CREAT | 0o600).unwrap();
        let here = SysvSegment::attach(&home, id, 0, 0).unwrap();
        fork(|| {
            let home = Namespace::options().open_named("segments").unwrap();
            let id = SysvSegment::get(&home, 7, 0, 0).unwrap();
            let there = SysvSegment::attach(&home, id, 0, 0).unwrap();
            (0..10_000).for_each(|index| poke(there + index, index as u8));
        })
        .assert_ok();
        assert!((0..10_000).all(|index| peek(here + index) == index as u8));
    });
}

#[test]
fn a_read_only_attach_cannot_be_made_writable() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let address = SysvSegment::attach(&home, id, 0, SHM_RDONLY).unwrap();
        // SAFETY: the range is attached.
        let outcome =
            unsafe { libc::mprotect(byte(address).cast(), 4096, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!((outcome, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EACCES)));
        let writer = fork(|| poke(address, 1));
        assert_eq!(writer.wait(), Exit::Signal(libc::SIGSEGV));
        let executable = SysvSegment::attach(&home, id, 0, SHM_EXEC).unwrap();
        // SAFETY: a function that returns at once, in memory that is executable.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            byte(executable).write(0xc3);
            std::mem::transmute::<*mut u8, extern "C" fn()>(byte(executable))();
        }
        SysvSegment::detach(executable).unwrap();
    });
}

#[test]
fn the_count_follows_fork_exit_and_sigkill() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let one = SysvSegment::attach(&home, id, 0, 0).unwrap();
        let other = SysvSegment::attach(&home, id, 0, SHM_RDONLY).unwrap();
        assert_eq!(attached(&home, id), 2);
        let child = fork(|| {
            assert_eq!(attached(&home, id), 4, "a child has what its parent has");
            fork(|| assert_eq!(attached(&home, id), 6)).assert_ok();
            SysvSegment::detach(one).unwrap();
            assert_eq!(attached(&home, id), 3);
            SysvSegment::attach(&home, id, 0, 0).unwrap();
            SysvSegment::attach(&home, id, 0, 0).unwrap();
            pause_for_ever();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        assert_eq!(attached(&home, id), 5);
        SysvSegment::detach(one).unwrap();
        assert_eq!(attached(&home, id), 4, "the child's count is its own");
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(attached(&home, id), 1);
        // A parent that dies before its child.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let parent = fork(|| {
            SysvSegment::attach(&home, id, 0, 0).unwrap();
            // SAFETY: the child runs a fork of this test, as its parent does.
            if unsafe { libc::fork() } == 0 {
                pause_for_ever();
            }
            writeln!(writer, "{}", attached(&home, id)).unwrap();
            pause_for_ever();
        });
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "5");
        parent.kill();
        parent.wait();
        // The kernel closes a killed process's files when it gets to it; the grandchild has its parent's open as well
        // until its fork is done.
        wait_until("only the grandchild's are left", || attached(&home, id) == 3);
        SysvSegment::detach(other).unwrap();
        assert_eq!(attached(&home, id), 2);
    });
}

#[test]
fn a_fork_that_the_c_library_knows_nothing_of_counts_once_it_comes_by() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
        // SAFETY: a fork without handlers; the child makes calls and ends.
        let child = unsafe { libc::syscall(libc::SYS_fork) };
        if child == 0 {
            let counted = attached(&home, id);
            let detached = SysvSegment::detach(address).is_ok();
            // SAFETY: the child's own end.
            unsafe { libc::_exit(i32::from(!(counted == 1 && detached && attached(&home, id) == 1))) };
        }
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        unsafe { libc::waitpid(child as i32, &mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(attached(&home, id), 1);
    });
}

#[test]
fn a_vfork_and_a_spawned_program_count_as_nobody() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        SysvSegment::attach(&home, id, 0, 0).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        wait_until("the other program runs", || attached(&home, id) == 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(attached(&home, id), 1);
    });
}

#[test]
fn exec_detaches() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let child = fork(|| {
            SysvSegment::attach(&home, id, 0, 0).unwrap();
            assert_eq!(attached(&home, id), 1);
            let error =
                std::os::unix::process::CommandExt::exec(std::process::Command::new("sleep").arg("1000"));
            panic!("exec: {error}");
        });
        wait_until("the other program runs", || {
            std::fs::read_to_string(format!("/proc/{}/comm", child.pid())).unwrap().trim() == "sleep"
        });
        assert_eq!(attached(&home, id), 0);
        assert!(child.is_alive());
    });
}

#[test]
fn many_threads_that_fork_and_attach_come_out_right() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
                        SysvSegment::detach(address).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..50 {
                    // SAFETY: the child only makes a call of the engine, whose table the fork has kept whole.
                    let child = unsafe { libc::fork() };
                    if child == 0 {
                        let attached = SysvSegment::attach(&home, id, 0, 0).and_then(SysvSegment::detach);
                        // SAFETY: the child's own end.
                        unsafe { libc::_exit(i32::from(attached.is_err())) };
                    }
                    let mut status = 0;
                    // SAFETY: `status` is ours to write.
                    unsafe { libc::waitpid(child, &mut status, 0) };
                    assert_eq!(status, 0);
                }
            });
        });
        assert_eq!(attached(&home, id), 0);
    });
}

#[test]
fn memory_goes_with_the_last_attach() {
    isolated(|| {
        let home = home();
        let before = pages_used();
        let id = SysvSegment::get(&home, 7, 1 << 20, IPC_CREAT | 0o600).unwrap();
        assert!(pages_used() >= before + 256, "reserved");
        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
        SysvSegment::remove(&home, id).unwrap();
        assert_eq!(SysvSegment::get(&home, 7, 0, 0), Err(Errno::NOENT), "its key is free");
        let status = SysvSegment::status(&home, id).unwrap();
        assert_eq!((status.mode, status.object.key, status.attached), (0o600 | SHM_DEST, 0, 1));
        let other = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        fork(|| {
            let again = SysvSegment::attach(&home, id, 0, 0).unwrap();
            poke(again, 9);
            assert_eq!(
                SysvSegment::status(&home, id).unwrap().attached,
                3,
                "the parent's, inherited, its own"
            );
        })
        .assert_ok();
        assert_eq!(peek(address), 9);
        SysvSegment::detach(address).unwrap();
        assert_eq!(SysvSegment::status(&home, id).unwrap_err(), Errno::INVAL);
        SysvSegment::remove(&home, other).unwrap();
        assert_eq!(pages_used(), before);
    });
}

#[test]
fn a_killed_last_user_leaves_memory_to_the_next_who_asks() {
    isolated(|| {
        let home = home();
        let before = pages_used();
        let look: [(&str, &dyn Fn(i32)); 4] = [
            ("stat", &|id| assert_eq!(SysvSegment::status(&home, id).unwrap_err(), Errno::INVAL)),
            ("attach", &|id| assert_eq!(SysvSegment::attach(&home, id, 0, 0).unwrap_err(), Errno::INVAL)),
            ("list", &|_| assert_eq!(home.list(Kind::SysvSegment).unwrap(), [])),
            ("collect", &|_| assert!(home.collect(false).unwrap().iter().all(|finding| finding.removed))),
        ];
        for (what, look) in look {
            let id = SysvSegment::get(&home, 7, 1 << 20, IPC_CREAT | 0o600).unwrap();
            let child = fork(|| {
                SysvSegment::attach(&home, id, 0, 0).unwrap();
                pause_for_ever();
            });
            wait_blocked_in(child.pid(), libc::SYS_pause);
            SysvSegment::remove(&home, id).unwrap();
            assert_eq!(attached(&home, id), 1);
            child.kill();
            child.wait();
            assert!(pages_used() > before, "{what}");
            look(id);
            assert_eq!(pages_used(), before, "{what}");
        }
    });
}

#[test]
fn a_full_file_system_is_enomem_and_nothing_is_made() {
    isolated(|| {
        let home = home();
        let free = |home: &Namespace| {
            let system = rustix::fs::statvfs(home.path()).unwrap();
            system.f_bavail * system.f_frsize
        };
        // SAFETY: the arguments are strings and a number; it is this test's own mount.
        let outcome = unsafe {
            libc::mount(
                c"none".as_ptr(),
                c"/dev/shm".as_ptr(),
                std::ptr::null(),
                libc::MS_REMOUNT,
                c"size=8m".as_ptr().cast(),
            )
        };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
        let before = free(&home);
        assert_eq!(SysvSegment::get(&home, 7, before as usize + 1, IPC_CREAT | 0o600), Err(Errno::NOMEM));
        assert_eq!(SysvSegment::get(&home, 7, 1 << 40, IPC_CREAT | 0o600), Err(Errno::NOMEM));
        assert_eq!(SysvSegment::get(&home, 7, 1 << 62, IPC_CREAT | 0o600), Err(Errno::NOMEM));
        assert_eq!(free(&home), before);
        assert_eq!(home.list(Kind::SysvSegment).unwrap(), []);
        // Sparse: as long as the kernel's limit, of which two pages are used.
        let id = SysvSegment::get(&home, 7, 1 << 30, IPC_CREAT | libc::SHM_NORESERVE | 0o600).unwrap();
        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
        poke(address + (1 << 29), 1);
        SysvSegment::detach(address).unwrap();
        SysvSegment::remove(&home, id).unwrap();
        assert_eq!(free(&home), before);
        // What a killed process has left is reclaimed for it.
        let id = SysvSegment::get(&home, IPC_PRIVATE, 6 << 20, 0o600).unwrap();
        let child = fork(|| {
            SysvSegment::attach(&home, id, 0, 0).unwrap();
            pause_for_ever();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        SysvSegment::remove(&home, id).unwrap();
        assert_eq!(SysvSegment::get(&home, 7, 6 << 20, IPC_CREAT | 0o600), Err(Errno::NOMEM));
        child.kill();
        child.wait();
        assert!(SysvSegment::get(&home, 7, 6 << 20, IPC_CREAT | 0o600).is_ok());
    });
}

/// Mode; what another user gets: attaching to read and write, to read, the status.
const ANOTHER_USER: [(i32, [bool; 3]); 5] = [
    (0o600, [false, false, false]),
    (0o604, [false, true, true]),
    (0o602, [false, false, false]),
    (0o606, [true, true, true]),
    (0o660, [false, false, false]),
];

#[test]
fn another_user_can_do_what_the_mode_says() {
    isolated(|| {
        let home = shared();
        let ids =
            ANOTHER_USER.map(|(mode, _)| SysvSegment::get(&home, mode, 4096, IPC_CREAT | mode).unwrap());
        let theirs = ANOTHER_USER.map(|(mode, _)| kernel::get(mode, 4096, IPC_CREAT | mode).unwrap());
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            for (((mode, expected), id), kernels) in ANOTHER_USER.into_iter().zip(ids).zip(theirs) {
                let attach = |flags| SysvSegment::attach(&home, id, 0, flags);
                let got = [
                    attach(0).map(drop),
                    attach(SHM_RDONLY).map(drop),
                    SysvSegment::status(&home, id).map(drop),
                ];
                let kernel = [
                    kernel::attach(kernels, 0, 0).map(drop),
                    kernel::attach(kernels, 0, SHM_RDONLY).map(drop),
                    kernel::status(kernels).map(drop),
                ];
                assert_eq!(got, kernel, "{mode:o}");
                assert_eq!(got.map(|outcome| outcome.is_ok()), expected, "{mode:o}");
                assert_eq!(SysvSegment::remove(&home, id), Err(Errno::PERM));
                assert_eq!(kernel::control(kernels, libc::IPC_RMID), Err(Errno::PERM));
                assert_eq!(SysvSegment::lock(&home, id, true), Err(Errno::PERM));
            }
            // An attach for reading counts, although nothing could be written for it.
            assert_eq!(SysvSegment::status(&home, ids[1]).unwrap().attached, 1);
        })
        .assert_ok();
        // One who has a segment of another user attached as the last, and may not remove its name.
        let before = pages_used();
        let id = SysvSegment::get(&home, IPC_PRIVATE, 1 << 20, 0o666).unwrap();
        let child = as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
            common::signal_self(libc::SIGSTOP);
            SysvSegment::detach(address).unwrap();
            assert_eq!(SysvSegment::status(&home, id).unwrap_err(), Errno::INVAL);
        });
        wait_until("it is attached", || attached(&home, id) == 1);
        wait_until("it is stopped", || {
            std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") T ")
        });
        SysvSegment::remove(&home, id).unwrap();
        child.signal(libc::SIGCONT);
        child.assert_ok();
        assert!(pages_used() <= before + 1, "the memory is back, if not the name");
        assert_eq!(SysvSegment::attach(&home, id, 0, 0).unwrap_err(), Errno::INVAL);
        assert_eq!(pages_used(), before);
    });
}

#[test]
fn an_owner_who_gave_up_his_own_permissions_can_still_remove() {
    isolated(|| {
        let _home = shared();
        as_user(1001, 1001, || {
            let home = Namespace::open("/dev/shm/everybody").unwrap();
            let id = SysvSegment::get(&home, 5, 4096, IPC_CREAT).unwrap();
            assert_eq!(SysvSegment::attach(&home, id, 0, SHM_RDONLY).unwrap_err(), Errno::ACCESS);
            assert_eq!(SysvSegment::get(&home, 5, 0, 0), Ok(id));
            assert_eq!(SysvSegment::get(&home, 5, 0, 0o400), Err(Errno::ACCESS));
            SysvSegment::lock(&home, id, true).unwrap();
            assert_eq!(std::fs::read_dir(home.path().join("shm")).unwrap().count(), 2);
            SysvSegment::set(&home, id, Change { uid: 1001, gid: 1001, mode: 0o400 }).unwrap();
            assert_eq!(SysvSegment::status(&home, id).unwrap().mode, 0o400 | SHM_LOCKED);
            SysvSegment::remove(&home, id).unwrap();
            assert_eq!(SysvSegment::get(&home, 5, 0, 0), Err(Errno::NOENT));
        })
        .assert_ok();
    });
}

#[test]
fn what_the_program_unmapped_or_replaced_itself_stays_its_own() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4 * 4096, IPC_CREAT | 0o600).unwrap();
        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
        // SAFETY: pages of the attach, which this test does not use otherwise.
        unsafe {
            let own = rustix::mm::mmap_anonymous(
                byte(address + 4096).cast(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED,
            )
            .unwrap();
            own.cast::<u8>().write(5);
            rustix::mm::munmap(byte(address + 2 * 4096).cast(), 4096).unwrap();
        }
        SysvSegment::detach(address).unwrap();
        assert_eq!(peek(address + 4096), 5, "not unmapped");
        assert_eq!(attached(&home, id), 0);
        let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
        // SAFETY: as above.
        unsafe { rustix::mm::munmap(byte(address).cast(), 4 * 4096).unwrap() };
        assert_eq!(SysvSegment::detach(address), Err(Errno::INVAL), "as the kernel");
        assert_eq!(attached(&home, id), 0);
    });
}

#[test]
fn a_program_that_closes_every_descriptor_harms_nobody() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let path = home.path().to_owned();
        fork(|| {
            let one = SysvSegment::attach(&home, id, 0, 0).unwrap();
            // SAFETY: as a daemon does.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
            // The numbers are used again, by files of the program's own.
            let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
            std::mem::forget(home);
            let home = Namespace::open(&path).unwrap();
            let other = SysvSegment::attach(&home, id, 0, 0).unwrap();
            assert_eq!(attached(&home, id), 2);
            SysvSegment::detach(one).unwrap();
            SysvSegment::detach(other).unwrap();
            assert_eq!(attached(&home, id), 0);
            assert!(files.iter().all(|file| file.metadata().is_ok()), "nobody closed them");
        })
        .assert_ok();
    });
}

#[test]
fn a_scribbled_header_or_a_file_cut_off_is_an_error_and_no_signal() {
    isolated(|| {
        let home = home();
        let other = SysvSegment::get(&home, 8, 4096, IPC_CREAT | 0o600).unwrap();
        let path = |id: i32| home.path().join(format!("shm/i.{id}"));
        let open = |id| std::fs::OpenOptions::new().write(true).open(path(id)).unwrap();
        let use_it = |id: i32| {
            let attached = SysvSegment::attach(&home, id, 0, 0).and_then(|address| {
                let _ = SysvSegment::status(&home, id);
                SysvSegment::detach(address)
            });
            let _ = (SysvSegment::lock(&home, id, true), home.collect(true).unwrap());
            SysvSegment::usage(&home).unwrap();
            attached
        };
        let mut tried = 0;
        for word in (0..0x80).step_by(8) {
            for value in [0, u64::MAX, 1, 1 << 32, 0x5a5a_5a5a_5a5a_5a5a, 4096, 1 << 62, i64::MAX as u64] {
                let id = SysvSegment::get(&home, 7, 10_000, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&open(id), &value.to_ne_bytes(), word).unwrap();
                let _ = use_it(id);
                match SysvSegment::remove(&home, id) {
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(errno) => panic!("word {word:#x} value {value:#x}: {errno}"),
                }
                home.collect(false).unwrap();
                assert_eq!(
                    SysvSegment::get(&home, 7, 0, 0),
                    Err(Errno::NOENT),
                    "word {word:#x} value {value:#x}"
                );
                tried += 1;
            }
        }
        for len in [0, 1, 0x3f, 0x40, 4095, 4096, 4097, 8192, 1 << 30] {
            let id = SysvSegment::get(&home, 7, 10_000, IPC_CREAT | IPC_EXCL | 0o600).unwrap();
            open(id).set_len(len).unwrap();
            assert_eq!(use_it(id), Err(Errno::UCLEAN), "{len} bytes");
            SysvSegment::remove(&home, id).unwrap();
            home.collect(false).unwrap();
            assert_eq!(SysvSegment::get(&home, 7, 0, 0), Err(Errno::NOENT), "{len} bytes");
        }
        crate::common::tried("System V segment", tried);
        assert_eq!(use_it(other), Ok(()), "no other segment is harmed");
        assert_eq!(home.list(Kind::SysvSegment).unwrap().len(), 1);
    });
}

#[test]
fn locks_of_somebody_who_is_up_to_no_good_hang_nobody() {
    isolated(|| {
        let home = home();
        let id = SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap();
        let path = home.path().join(format!("shm/i.{id}"));
        let take = |kind: i32, start: i64, len: i64| {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            // SAFETY: all zeroes is valid, and the call reads it.
            unsafe {
                let mut lock: libc::flock = std::mem::zeroed();
                (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, len);
                assert_eq!(
                    libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_OFD_SETLK, &mut lock),
                    0
                );
            }
            file
        };
        for (kind, start, len) in [
            (libc::F_WRLCK, 0, 0),
            (libc::F_RDLCK, 0, 0),
            (libc::F_WRLCK, 1 << 62, 1 << 61),
            (libc::F_RDLCK, (1 << 62) + 5, 1 << 30),
            (libc::F_WRLCK, (1 << 62) + 77, 1),
        ] {
            let lock = take(kind, start, len);
            let attached = SysvSegment::attach(&home, id, 0, 0).and_then(SysvSegment::detach);
            assert!(matches!(attached, Ok(()) | Err(Errno::IDRM)), "{attached:?}");
            SysvSegment::status(&home, id).unwrap();
            home.collect(false).unwrap();
            drop(lock);
        }
        SysvSegment::attach(&home, id, 0, 0).and_then(SysvSegment::detach).unwrap();
        assert_eq!(attached(&home, id), 0);
        let _lock = take(libc::F_RDLCK, 0, 0);
        // As if it were attached by the one who has the lock: its key is gone, its id is not.
        SysvSegment::remove(&home, id).unwrap();
        assert_eq!(SysvSegment::get(&home, 7, 0, 0), Err(Errno::NOENT));
    });
}
