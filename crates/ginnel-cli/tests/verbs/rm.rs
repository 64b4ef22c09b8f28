//! `ginnel rm`.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use ginnel::message::SysvQueue;
use ginnel_testkit::{Exit, Objects, isolated, kernel_objects, run, spawn, unprivileged, wait_until};

use crate::support::{fails, ginnel, json_lines, ok, wrong_usage};

const ALL: [&str; 8] = [
    "fifo:/dev/shm/a",
    "sysv-msg:0x2a",
    "posix-mq:/jobs",
    "sysv-shm:0x2a",
    "posix-shm:/x",
    "file:/dev/shm/f",
    "sysv-sem:0x2a",
    "posix-sem:/s",
];

fn make_all() {
    for endpoint in ALL {
        let is_memory = endpoint.contains("-shm:") || endpoint.starts_with("file:");
        let size: &[&str] = if is_memory { &["--size", "64"] } else { &[] };
        ok(&[&["create", endpoint], size].concat());
    }
}

#[test]
fn nothing_is_removed_without_yes() {
    isolated(|| {
        make_all();
        let before = Objects::snapshot();
        let output = run(&mut ginnel(&[&["rm"], &ALL[..]].concat()));
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("would remove ")).count(), 8, "{text}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--yes"));
        before.assert_same();
        let text = ok(&[&["rm", "--yes"], &ALL[..]].concat());
        assert_eq!(text.lines().filter(|line| line.starts_with("removed ")).count(), 8, "{text}");
        assert_eq!(kernel_objects(), "");
    });
}

#[test]
fn what_would_be_lost_is_told() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        queue.send(1, b"hello").unwrap();
        let id = queue.id();
        assert_eq!(
            ok(&["rm", "sysv-msg:0x2a"]),
            format!("would remove sysv-msg:0x2a (id {id}): 1 message, 5 B\n")
        );
        let by_id = ok(&["rm", &format!("sysv-msg:id={id}")]);
        assert_eq!(by_id, format!("would remove sysv-msg:0x2a (id {id}): 1 message, 5 B\n"));

        ok(&["create", "posix-shm:/x", "--size", "64"]);
        let mapping = ginnel::memory::PosixShm::open("/x").unwrap().map().unwrap();
        assert!(ok(&["rm", "posix-shm:/x"]).ends_with(&format!("used by {}\n", std::process::id())));
        drop(mapping);
        assert!(ok(&["rm", "posix-shm:/x"]).ends_with("not in use\n"));

        ok(&["create", "sysv-shm:7", "--size", "64"]);
        let mapping = ginnel::memory::SysvSegment::open(7).unwrap().attach().unwrap();
        assert!(ok(&["rm", "--yes", "sysv-shm:7"]).ends_with("1 process attached\n"));
        drop(mapping);

        ok(&["create", "fifo:/dev/shm/a"]);
        let holder = spawn(Command::new("sh").args(["-c", "exec 3<>/dev/shm/a; exec sleep 1000"]));
        let used = format!("used by {}\n", holder.pid());
        wait_until("the FIFO is in use", || ok(&["rm", "fifo:/dev/shm/a"]).ends_with(&used));
    });
}

#[test]
fn sockets_are_live_or_stale() {
    isolated(|| {
        let listener = UnixListener::bind("/dev/shm/s").unwrap();
        assert!(ok(&["rm", "unix:/dev/shm/s"]).ends_with("listens\n"));
        drop(listener);
        assert!(ok(&["rm", "--yes", "unix:/dev/shm/s"]).contains("stale"));
        assert_eq!(kernel_objects(), "");
    });
}

#[test]
fn a_file_of_another_kind_stays() {
    isolated(|| {
        std::fs::write("/dev/shm/file", "precious").unwrap();
        std::os::unix::fs::symlink("/dev/shm/file", "/dev/shm/link").unwrap();
        std::fs::create_dir("/dev/shm/directory").unwrap();
        ok(&["create", "posix-sem:/s"]);
        ok(&["create", "fifo:/dev/shm/fifo"]);
        let before = Objects::snapshot();
        for (endpoint, is) in [
            ("fifo:/dev/shm/file", "a regular file"),
            ("unix:/dev/shm/file", "a regular file"),
            ("unix-dgram:/dev/shm/fifo", "a FIFO"),
            ("fifo:/dev/shm/directory", "a directory"),
            ("file:/dev/shm/directory", "a directory"),
            ("file:/dev/shm/link", "a symbolic link"),
            ("file:/dev/shm/fifo", "a FIFO"),
            ("posix-shm:/sem.s", "the semaphore posix-sem:/s"),
        ] {
            for args in [&["rm", endpoint][..], &["rm", "--yes", endpoint]] {
                let output = run(&mut ginnel(args));
                let stderr = String::from_utf8(output.stderr).unwrap();
                assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}: {stderr}");
                assert!(stderr.contains(is), "{args:?}: {stderr}");
            }
        }
        before.assert_same();
    });
}

#[test]
fn what_is_not_there_is_an_error_and_the_rest_goes() {
    isolated(|| {
        make_all();
        for endpoint in ALL {
            let missing = endpoint.replace("0x2a", "0x2b").replace("/jobs", "/none").replace("/x", "/none");
            let missing =
                missing.replace("shm/a", "shm/none").replace("shm/f", "shm/none").replace("/s", "/none");
            let missing = missing.replace("/dev/nonehm", "/dev/shm");
            assert_ne!(missing, endpoint);
            let output = run(&mut ginnel(&["rm", "--yes", &missing, endpoint]));
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(&missing), "{stderr}");
            assert!(String::from_utf8_lossy(&output.stdout).starts_with("removed "), "{stderr}");
        }
        assert_eq!(kernel_objects(), "");
        assert!(fails(1, &["rm", "--yes", "sysv-msg:id=77"]).contains("EINVAL"));
    });
}

#[test]
fn wrong_words_and_missing_rights() {
    isolated(|| {
        wrong_usage(&[
            (&["rm"], "ENDPOINT"),
            (&["rm", "tcp:a:1"], "port"),
            (&["rm", "signal:1"], "ginnel signal"),
            (&["rm", "lock:/a"], "ginnel lock"),
            (&["rm", "unix:@a"], "goes with its socket"),
            (&["rm", "sysv-sem:1[0]"], "sysv-sem:0x1"),
            (&["rm", "file:/a#1+1"], "file:/a"),
        ]);
        make_all();
        let before = Objects::snapshot();
        unprivileged(|| {
            for endpoint in ALL.iter().filter(|endpoint| !endpoint.contains("/dev/shm")) {
                let stderr = fails(1, &["rm", "--yes", endpoint]);
                let lacks = ["EPERM", "EACCES"].iter().any(|errno| stderr.contains(errno));
                assert!(lacks && stderr.contains(endpoint), "{stderr}");
            }
        })
        .assert_ok();
        before.assert_same();
    });
}

#[test]
fn a_reader_that_has_enough_does_not_stop_the_removing() {
    isolated(|| {
        make_all();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let remover = spawn(ginnel(&[&["rm", "--yes"], &ALL[..]].concat()).stdout(writer));
        assert_eq!(remover.wait(), Exit::Code(0));
        assert_eq!(kernel_objects(), "");
    });
}

#[test]
fn nobody_need_read_what_is_said_on_standard_error() {
    isolated(|| {
        make_all();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let dry_run = spawn(ginnel(&[&["rm"], &ALL[..]].concat()).stdout(Stdio::null()).stderr(writer));
        assert_eq!(dry_run.wait(), Exit::Code(0));
    });
}

#[test]
fn wrong_usage_removes_nothing() {
    isolated(|| {
        make_all();
        let before = Objects::snapshot();
        wrong_usage(&[(&["rm", "--yes", ALL[0], ALL[1], "tcp:localhost:1"], "a port is taken")]);
        before.assert_same();
    });
}

#[test]
fn a_socket_lives_by_whatever_name_of_its_file() {
    isolated(|| {
        let _listener = UnixListener::bind("/dev/shm/listener").unwrap();
        assert!(ok(&["rm", "unix:/dev/shm/../shm/listener"]).ends_with(": listens\n"));
        let mut elsewhere = ginnel(&["rm", "unix:listener"]);
        assert!(ginnel_testkit::run_ok(elsewhere.current_dir("/dev/shm")).ends_with(": listens\n"));
        drop(UnixListener::bind("/dev/shm/stale").unwrap());
        assert!(ok(&["rm", "unix:/dev/shm/stale"]).ends_with(": stale: nobody is bound to it\n"));
    });
}

#[test]
fn json_says_what_was_removed() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        queue.send(1, b"hello").unwrap();
        for (args, removed) in
            [(&["rm", "--json", "sysv-msg:42"][..], false), (&["rm", "--json", "--yes", "sysv-msg:42"], true)]
        {
            let line = &json_lines(&ok(args))[0];
            assert_eq!(line["endpoint"], "sysv-msg:0x2a");
            assert_eq!(line["removed"], removed);
            assert_eq!(line["state"]["messages"], 1);
        }
    });
}

#[test]
fn who_cannot_see_all_users_does_not_say_that_there_are_none() {
    isolated(|| {
        ok(&["create", "posix-shm:/x", "--size", "64", "--mode", "644"]);
        unprivileged(|| assert!(ok(&["rm", "posix-shm:/x"]).ends_with("as far as this user can see\n")))
            .assert_ok();
    });
}
