//! Isolation isolates, ends, and tells.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel_testkit::{
    Objects, Spawned, is_isolated, isolated, isolated_for, kernel_objects, run_ok, spawn, temp_dir,
    wait_until,
};

const STAGE: &str = "GINNEL_TESTKIT_STAGE";

fn message(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it did not panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

fn make_queue(key: i32) {
    // SAFETY: numbers only.
    let id = unsafe { libc::msgget(key, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(id >= 0, "msgget: {}", std::io::Error::last_os_error());
}

fn make_posix_queue() {
    // SAFETY: the name is NUL-terminated, the attributes are the default ones.
    let fd = unsafe {
        let attributes = std::ptr::null::<libc::mq_attr>();
        libc::mq_open(c"/testkit".as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600, attributes)
    };
    assert!(fd >= 0, "mq_open: {}", std::io::Error::last_os_error());
}

/// A test of this file that is ignored in a plain run, as a process that is outside of isolation.
fn helper(name: &str, stage: &std::path::Path) -> Spawned {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(STAGE, stage)
        .env_remove("GINNEL_ISOLATED");
    spawn(command.env("TMPDIR", "/tmp").stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// None in a run of the ignored tests by hand, in which a helper has nothing to do.
fn stage() -> Option<PathBuf> {
    Some(std::env::var_os(STAGE)?.into())
}

#[test]
fn the_namespaces_are_empty_and_its_own() {
    isolated(|| {
        assert_eq!(kernel_objects(), "");
        assert!(is_isolated());
        assert!(std::process::id() <= 3, "pid {}", std::process::id());
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok());
        assert_eq!(pids.count(), 2, "init and the test");
        assert_eq!(std::env::temp_dir(), PathBuf::from("/dev/shm"));
        let listener = std::net::TcpListener::bind("127.0.0.1:80").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
}

/// Two isolations, one inside the other, so that the host sees nothing of it.
#[test]
fn objects_are_visible_inside_only() {
    isolated(|| {
        make_queue(0x10);
        make_posix_queue();
        std::fs::write("/dev/shm/outer", "").unwrap();
        let before = Objects::snapshot();
        let expected =
            "dev-shm outer mode 644\nposix-mq /testkit mode 600\nsysv-msg key 0x10 id 0 mode 600\n";
        assert_eq!(kernel_objects(), expected);

        // A directory that both see: /dev/shm is not.
        let stage = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/objects_are_visible_inside_only"));
        let _ = std::fs::remove_dir_all(&stage);
        std::fs::create_dir_all(&stage).unwrap();
        let inner = helper("helper_makes_objects", &stage);
        let ready = stage.join("ready");
        wait_until("the inner test has made its objects", || ready.exists() || !inner.is_alive());
        assert!(inner.is_alive());
        before.assert_same();
        std::fs::write(stage.join("seen"), "").unwrap();
        inner.assert_ok();
        before.assert_same();
        std::fs::remove_dir_all(&stage).unwrap();
    });
}

#[test]
#[ignore = "run by objects_are_visible_inside_only"]
fn helper_makes_objects() {
    let Some(stage) = stage() else { return };
    isolated(|| {
        assert_eq!(kernel_objects(), "");
        make_queue(0x10);
        make_queue(0x11);
        make_posix_queue();
        std::fs::write("/dev/shm/inner", "").unwrap();
        let found = kernel_objects();
        assert_eq!(found.lines().count(), 4, "{found}");
        std::fs::write(stage.join("ready"), "").unwrap();
        wait_until("the outer test has looked", || stage.join("seen").exists());
    });
}

#[test]
fn every_kind_of_object_is_listed_and_its_traffic_is_not() {
    isolated(|| {
        let before = Objects::snapshot();
        make_queue(0x10);
        // SAFETY: numbers only.
        unsafe {
            assert!(libc::semget(0x11, 1, libc::IPC_CREAT | 0o640) >= 0);
            assert!(libc::shmget(0x12, 4096, libc::IPC_CREAT | 0o600) >= 0);
        }
        let found = kernel_objects();
        let lines: Vec<&str> = found.lines().collect();
        let expected = [
            "sysv-msg key 0x10 id 0 mode 600",
            "sysv-sem key 0x11 id 0 mode 640",
            "sysv-shm key 0x12 id 0 mode 600",
        ];
        assert_eq!(lines, expected);
        let differ = message(|| before.assert_same());
        assert!(differ.contains("sysv-sem key 0x11"), "{differ}");
        let now = Objects::snapshot();
        // SAFETY: the message is a type and one byte, and that size is what is passed.
        unsafe { assert_eq!(libc::msgsnd(0, [1_i64, 7].as_ptr().cast(), 1, 0), 0) };
        let _scratch = temp_dir();
        now.assert_same();
    });
}

#[test]
fn a_temporary_directory_goes_with_its_owner() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().to_owned();
        assert!(path.starts_with("/dev/shm") && path.is_dir());
        assert_ne!(path, temp_dir().path());
        std::fs::write(path.join("file"), "x").unwrap();
        ginnel_testkit::fork(|| drop(dir)).assert_ok();
        assert!(!path.exists(), "moved into the closure, it is dropped in the parent as well");
    });
}

#[test]
fn a_panic_inside_fails_the_outer_with_its_message() {
    let failed = message(|| isolated(|| panic!("the reason of it")));
    assert!(
        failed.contains(
            "isolated test a_panic_inside_fails_the_outer_with_its_message failed: exit status: 101"
        )
    );
    assert!(failed.contains("the reason of it"), "{failed}");
}

#[test]
#[should_panic(expected = "as it should")]
fn should_panic_sees_a_panic_inside() {
    isolated(|| panic!("as it should"));
}

#[test]
fn a_signal_inside_is_named() {
    let failed = message(|| isolated(|| std::process::abort()));
    assert!(failed.contains("(signal 6)"), "{failed}");
}

#[test]
fn a_hung_test_fails_and_says_where() {
    let failed = message(|| {
        isolated_for(Duration::from_millis(700), || {
            println!("printed before");
            let (reader, _writer) = std::io::pipe().unwrap();
            let _ = std::io::Read::read(&mut &reader, &mut [0]);
        });
    });
    assert!(failed.contains("a_hung_test_fails_and_says_where did not finish in 700 ms"), "{failed}");
    assert!(failed.contains("printed before"), "{failed}");
    // Init, the test's main thread, and the thread that hangs in read(2).
    assert!(failed.contains(&format!("syscall {} ", libc::SYS_read)), "{failed}");
    assert!(failed.lines().filter(|line| line.starts_with("pid ")).count() >= 3, "{failed}");
}

#[test]
fn what_a_test_leaves_running_does_not_hold_it_up() {
    isolated(|| {
        drop(run_ok(Command::new("sh").args(["-c", "(trap '' TERM HUP; setsid sleep 1000) & echo"])))
    });
}

#[test]
fn a_thread_without_a_name_is_refused() {
    let result = std::thread::spawn(|| isolated(|| {})).join();
    let panic = result.unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("must be called on the thread of a `#[test]`"), "{message}");
}

#[test]
fn a_thread_of_another_name_is_no_pass() {
    let thread = std::thread::Builder::new().name("no such test".into());
    let panic = thread.spawn(|| isolated(|| {})).unwrap().join().unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("did not run"), "{message}");
}

/// All processes that have this in their environment, which forks and executions pass on.
fn descendants(stage: &str) -> Vec<i32> {
    let mark = format!("{STAGE}={stage}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids.filter(marked).collect()
}

/// Which of the line outer, anchor, init, test is killed: whichever, none of them survives.
#[test]
fn a_kill_at_any_level_leaves_no_process() {
    for level in 0..4 {
        let stage = PathBuf::from(format!("{}/kill_at_level_{level}", env!("CARGO_TARGET_TMPDIR")));
        let _ = std::fs::remove_dir_all(&stage);
        std::fs::create_dir_all(&stage).unwrap();
        let name = stage.to_str().unwrap();
        let outer = helper("helper_hangs", &stage);
        wait_until("the hanging test hangs", || stage.join("ready").exists() || !outer.is_alive());
        let mut line = descendants(name);
        line.sort();
        // Outer, anchor, init, test, the test's fork, its command.
        assert_eq!(line.len(), 6, "{line:?}");
        // SAFETY: numbers only; the process is a descendant of ours that nobody has killed.
        assert_eq!(unsafe { libc::kill(line[level], libc::SIGKILL) }, 0);
        wait_until("all of its processes are gone", || {
            // The outer is our child: a zombie, without an environment, until it is waited for.
            descendants(name).is_empty()
        });
        outer.wait();
        std::fs::remove_dir_all(&stage).unwrap();
    }
}

#[test]
#[ignore = "run by a_kill_at_any_level_leaves_no_process"]
fn helper_hangs() {
    let Some(stage) = stage() else { return };
    isolated(|| {
        let _child = ginnel_testkit::fork(|| std::thread::sleep(Duration::from_secs(1000)));
        let _command = spawn(Command::new("sleep").arg("1000"));
        std::fs::write(stage.join("ready"), "").unwrap();
        std::thread::sleep(Duration::from_secs(1000));
    });
}
