//! memfd: seals, inheritance, what a receiver can rely on; C agrees.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use ginnel::memory::{HugePages, MemFd, Seals};
use ginnel_testkit::{c_program, fork, isolated, run_ok, temp_dir};

use crate::{PAGE, errno, hint, start};

#[test]
fn every_seal_does_what_it_says() {
    isolated(|| {
        let memory = MemFd::create("seals", PAGE as u64).unwrap();
        assert_eq!(memory.seals().unwrap(), Seals::NONE);
        memory.seal(Seals::SHRINK).unwrap();
        assert_eq!(errno(memory.resize(1)), "EPERM");
        memory.resize(2 * PAGE as u64).unwrap();
        memory.seal(Seals::GROW).unwrap();
        assert_eq!(errno(memory.resize(3 * PAGE as u64)), "EPERM");

        let mapping = memory.map().unwrap();
        assert!(hint(memory.seal(Seals::WRITE)).contains("mapped for writing"));
        memory.seal(Seals::FUTURE_WRITE).unwrap();
        mapping.write_at(0, 4_u8).unwrap();
        assert_eq!(errno(memory.map()), "EPERM");
        drop(mapping);
        memory.seal(Seals::WRITE).unwrap();
        assert_eq!(memory.map_read_only().unwrap().read_at::<u8>(0).unwrap(), 4);
        let private = memory.map_private().unwrap();
        private.write_at(0, 9_u8).unwrap();
        assert_eq!(memory.map_read_only().unwrap().read_at::<u8>(0).unwrap(), 4);

        memory.seal(Seals::EXEC).unwrap();
        memory.seal(Seals::SEAL).unwrap();
        assert!(hint(memory.seal(Seals::GROW)).contains("sealed against more"));
        let all =
            Seals::SEAL | Seals::SHRINK | Seals::GROW | Seals::WRITE | Seals::FUTURE_WRITE | Seals::EXEC;
        assert_eq!(memory.seals().unwrap(), all);
        memory.require(all).unwrap();
    });
}

#[test]
fn a_receiver_refuses_what_is_not_sealed() {
    isolated(|| {
        let memory = MemFd::create("loose", 1).unwrap();
        memory.seal(Seals::GROW).unwrap();
        let received = MemFd::from(memory.as_fd().try_clone_to_owned().unwrap());
        let error = received.require(Seals::SHRINK | Seals::GROW).unwrap_err();
        assert!(error.is_permission_denied());
        assert!(error.hint().unwrap().contains("not sealed it with SHRINK;"), "{error}");

        let directory = temp_dir();
        std::fs::write(directory.path().join("file"), "no memfd").unwrap();
        let file: OwnedFd = File::open(directory.path().join("file")).unwrap().into();
        assert!(MemFd::from(file).require(Seals::SHRINK).is_err());
        let (pipe, _) = std::io::pipe().unwrap();
        assert!(hint(MemFd::from(OwnedFd::from(pipe)).require(Seals::SHRINK)).contains("no memfd"));
    });
}

#[test]
fn sealing_is_allowed_only_where_it_was() {
    isolated(|| {
        let memory = MemFd::options().size(1).create("plain").unwrap();
        assert_eq!(memory.seals().unwrap(), Seals::SEAL);
        assert_eq!(errno(memory.seal(Seals::GROW)), "EPERM");
        let memory = MemFd::options().no_exec(true).create("data").unwrap();
        assert_eq!(memory.seals().unwrap(), Seals::EXEC);
        assert_eq!(memory.status().unwrap().mode & 0o111, 0);
        assert_eq!(
            MemFd::options().executable(true).create("code").unwrap().status().unwrap().mode & 0o111,
            0o111
        );
        assert_eq!(errno(MemFd::options().executable(true).no_exec(true).create("both")), "EINVAL");
        assert!(hint(MemFd::options().create(&"x".repeat(250))).contains("249 bytes"));
        assert_eq!(errno(MemFd::options().create("a\0b")), "EINVAL");
        assert!(hint(MemFd::options().create("empty").unwrap().map()).contains("set its size first"));
        let _ = MemFd::options().huge_pages(HugePages::DEFAULT).create("huge");
    });
}

#[test]
fn c_inherits_what_rust_has_sealed() {
    isolated(|| {
        let memory = MemFd::options()
            .allow_sealing(true)
            .inheritable(true)
            .size(PAGE as u64)
            .create("passed")
            .unwrap();
        memory.map().unwrap().write_bytes(0, b"sealed by Rust").unwrap();
        let seals = Seals::SHRINK | Seals::GROW | Seals::WRITE;
        memory.seal(seals).unwrap();
        let program = c_program!("tests/memory/memfd.c");
        let number = memory.as_fd().as_raw_fd().to_string();
        let output = run_ok(Command::new(program).args(["inherit", &number]));
        assert_eq!(output, format!("{} 4096 sealed by Rust\n", seals.bits()));
    });
}

#[test]
fn rust_reads_what_c_has_sealed() {
    isolated(|| {
        let seals = Seals::SHRINK | Seals::WRITE;
        let program = c_program!("tests/memory/memfd.c");
        let maker = start(Command::new(program).args(["make", "sealed by C", &seals.bits().to_string()]));
        let file = File::open(format!("/proc/{}/fd/{}", maker.child.pid(), maker.line)).unwrap();
        maker.child.kill();
        let received = MemFd::from(OwnedFd::from(file));
        received.require(seals).unwrap();
        assert_eq!(received.map_read_only().unwrap().read_vec(..).unwrap(), b"sealed by C");
    });
}

#[test]
fn it_is_closed_by_exec_and_shared_by_fork() {
    isolated(|| {
        let memory = MemFd::create("cloexec", 64).unwrap();
        let listing = run_ok(Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!listing.contains("memfd"), "{listing}");
        fork(|| memory.map().unwrap().write_at(0, 6_u8).unwrap()).assert_ok();
        assert_eq!(memory.map_read_only().unwrap().read_at::<u8>(0).unwrap(), 6);
        let fd: OwnedFd = memory.into();
        drop(fd);
    });
}
