//! Forks and commands: how they end is what is reported, and none outlives its handle.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel_testkit::{
    Exit, blocked_in, c_program, fork, isolated, run, run_ok, run_within, spawn, temp_dir, unprivileged,
    wait_blocked_in, wait_until,
};

/// Long enough to block, or to print, before it is over.
const SOON: Duration = Duration::from_millis(500);

fn message(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it did not panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

#[test]
fn a_child_ends_as_its_closure_does() {
    isolated(|| {
        assert_eq!(fork(|| {}).wait(), Exit::Code(0));
        assert_eq!(fork(|| panic!("a panic in a child")).wait(), Exit::Code(101));
        assert_eq!(fork(|| std::process::exit(4)).wait(), Exit::Code(4));
        assert_eq!(fork(|| std::process::abort()).wait(), Exit::Signal(libc::SIGABRT));
        fork(|| {}).assert_ok();
        let failed = message(|| fork(|| panic!("on purpose")).assert_ok());
        assert!(failed.contains("failed: Code(101)"), "{failed}");
    });
}

#[test]
fn a_panic_in_a_child_is_printed() {
    let failed = message(|| isolated(|| fork(|| panic!("the child's own words")).assert_ok()));
    assert!(failed.contains("the child's own words"), "{failed}");
}

#[test]
fn signals_reach_a_child() {
    isolated(|| {
        let child = fork(sleep_for_ever);
        assert!(child.is_alive());
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        let child = fork(sleep_for_ever);
        child.signal(libc::SIGTERM);
        wait_until("SIGTERM ends the child", || !child.is_alive());
        assert_eq!(child.wait(), Exit::Signal(libc::SIGTERM));
    });
}

#[test]
fn a_dropped_child_is_gone() {
    isolated(|| {
        let child = fork(sleep_for_ever);
        let proc = format!("/proc/{}", child.pid());
        assert!(std::fs::exists(&proc).unwrap());
        drop(child);
        assert!(!std::fs::exists(&proc).unwrap());
    });
}

#[test]
fn a_grandchild_dies_with_the_child() {
    isolated(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let child = fork(|| {
            let grandchild = fork(sleep_for_ever);
            writer.write_all(&grandchild.pid().to_ne_bytes()).unwrap();
            sleep_for_ever();
        });
        let mut pid = [0; 4];
        reader.read_exact(&mut pid).unwrap();
        let proc = format!("/proc/{}", i32::from_ne_bytes(pid));
        assert!(std::fs::exists(&proc).unwrap());
        child.kill();
        wait_until("the grandchild is reaped by init", || !std::fs::exists(&proc).unwrap());
    });
}

#[test]
fn where_a_child_blocks_is_seen() {
    isolated(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = fork(|| assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 1));
        wait_blocked_in(child.pid(), libc::SYS_read);
        assert!(!blocked_in(child.pid(), libc::SYS_write));
        (&writer).write_all(b"x").unwrap();
        child.assert_ok();
    });
}

#[test]
fn a_hung_child_is_a_panic_that_says_where() {
    isolated(|| {
        let failed = message(|| {
            fork(|| drop(std::os::unix::net::UnixListener::bind("/dev/shm/s").unwrap().accept()))
                .wait_within(SOON);
        });
        assert!(failed.contains("did not end in 500 ms"), "{failed}");
        assert!(failed.contains(&format!("syscall {} ", libc::SYS_accept4)), "{failed}");
    });
}

#[test]
fn an_unprivileged_child_is_nobody() {
    isolated(|| {
        let secret = temp_dir();
        let file = secret.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let child = unprivileged(|| {
            assert_eq!(std::fs::read(&file).unwrap_err().raw_os_error(), Some(libc::EACCES));
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
            assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
            assert_eq!(line("Gid:"), "65534\t65534\t65534\t65534");
            assert_eq!(line("Groups:"), "");
            assert_eq!(line("CapEff:"), "0000000000000000");
            // Its own descriptors can be opened again, as in any process.
            std::fs::File::open("/proc/self/fd/0").unwrap();
        });
        child.assert_ok();
    });
}

#[test]
fn an_unprivileged_grandchild_dies_with_its_parent() {
    isolated(|| {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // Moved: where nobody cannot be, the pipe closes and the read below fails at once.
        let child = fork(move || {
            let grandchild = unprivileged(|| {
                writer.write_all(&std::process::id().to_ne_bytes()).unwrap();
                sleep_for_ever();
            });
            grandchild.wait();
        });
        let mut pid = [0; 4];
        reader.read_exact(&mut pid).unwrap();
        child.kill();
        let proc = format!("/proc/{}", u32::from_ne_bytes(pid));
        wait_until("nobody's process is gone", || !std::fs::exists(&proc).unwrap());
    });
}

#[test]
fn commands_run_to_their_end() {
    isolated(|| {
        assert_eq!(run_ok(Command::new("sh").args(["-c", "echo out; echo err >&2"])), "out\n");
        let output = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        let failed =
            message(|| drop(run_ok(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))));
        assert!(
            failed.contains("exit status: 3") && failed.contains("out") && failed.contains("err"),
            "{failed}"
        );
        // More than a pipe holds, on both.
        let big = "yes | head -c 300000; yes | head -c 300000 >&2";
        let output = run(Command::new("sh").args(["-c", big]));
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    });
}

#[test]
fn a_hung_command_is_a_panic_with_its_output() {
    isolated(|| {
        let failed = message(|| {
            drop(run_within(Command::new("sh").args(["-c", "echo so far; exec sleep 1000"]), SOON))
        });
        assert!(failed.contains("did not end in 500 ms") && failed.contains("so far"), "{failed}");
    });
}

#[test]
fn a_background_process_that_keeps_the_output_open_holds_nothing_up() {
    isolated(|| {
        let started = std::time::Instant::now();
        assert_eq!(run_ok(Command::new("sh").args(["-c", "sleep 15 & echo done"])), "done\n");
        assert!(started.elapsed() < Duration::from_secs(15), "it waited for the end of the output");
    });
}

#[test]
fn a_spawned_command_is_fed_signalled_and_dropped() {
    isolated(|| {
        let mut cat = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()));
        cat.stdin().unwrap().write_all(b"fed").unwrap();
        assert_eq!(cat.wait_with_output().stdout, b"fed");
        let sleep = spawn(Command::new("sleep").arg("1000"));
        assert!(sleep.is_alive());
        sleep.signal(libc::SIGTERM);
        assert_eq!(sleep.wait(), Exit::Signal(libc::SIGTERM));
        let sleep = spawn(Command::new("sleep").arg("1000"));
        let proc = format!("/proc/{}", sleep.pid());
        drop(sleep);
        assert!(!std::fs::exists(proc).unwrap());
        spawn(&mut Command::new(c_program!("tests/hello.c"))).wait();
    });
}
