//! `--namespace`, `GINNEL_NAMESPACE` and `ginnel gc`: the six kinds of objects in a user-space home.

use std::process::Stdio;

use ginnel::Namespace;
use ginnel::message::{PosixQueue, Select, SysvQueue};
use ginnel_testkit::{as_user, fork, isolated, run, run_ok, spawn, wait_blocked_in, wait_until};

use crate::support::{failures, ginnel, ok, wrong_usage};

const ALL: [&str; 6] =
    ["sysv-msg:0x2a", "posix-mq:/jobs", "sysv-shm:0x2a", "posix-shm:/x", "sysv-sem:0x2a", "posix-sem:/s"];

/// The arguments with `--namespace` among them.
fn inside(args: &[&str]) -> String {
    ok(&[&args[..1], &["--namespace", "jobs"], &args[1..]].concat())
}

fn make_all() {
    for endpoint in ALL {
        let size: &[&str] = if endpoint.contains("-shm:") { &["--size", "64"] } else { &[] };
        inside(&[&["create", endpoint], size].concat());
    }
}

#[test]
fn objects_of_all_kinds_are_made_listed_and_removed() {
    isolated(|| {
        make_all();
        let listed = inside(&["ls", "--noheadings"]);
        assert_eq!(listed.lines().count(), 6, "{listed}");
        assert!(ALL.iter().all(|endpoint| listed.contains(endpoint)), "{listed}");
        let kernels = ok(&["ls"]);
        assert!(ALL.iter().all(|endpoint| !kernels.contains(endpoint)), "{kernels}");
        let home = Namespace::open("jobs").unwrap();
        assert!(SysvQueue::open_in(&home, 0x2a).is_ok() && PosixQueue::open_in(&home, "/jobs").is_ok());

        let told = inside(&[&["rm"], &ALL[..]].concat());
        assert_eq!(told.lines().filter(|line| line.starts_with("would remove ")).count(), 6, "{told}");
        let told = inside(&[&["rm", "--yes"], &ALL[..]].concat());
        assert_eq!(told.lines().filter(|line| line.starts_with("removed ")).count(), 6, "{told}");
        assert_eq!(inside(&["ls"]), "");
    });
}

#[test]
fn what_one_sends_the_other_receives() {
    isolated(|| {
        make_all();
        inside(&["send", "sysv-msg:0x2a", "--type", "3", "hello"]);
        assert_eq!(inside(&["peek", "sysv-msg:0x2a"]), "0\t3\thello\n");
        assert_eq!(inside(&["recv", "sysv-msg:0x2a"]), "hello\n");
        inside(&["send", "posix-mq:/jobs", "--priority", "9", "work"]);
        assert_eq!(inside(&["recv", "posix-mq:/jobs"]), "work\n");
        inside(&["send", "posix-shm:/x", "abc"]);
        assert_eq!(&inside(&["recv", "posix-shm:/x"])[..3], "abc");
        inside(&["send", "sysv-shm:0x2a", "abc"]);
        assert_eq!(&inside(&["recv", "sysv-shm:0x2a"])[..3], "abc");
        inside(&["send", "posix-sem:/s", "--count", "2"]);
        inside(&["recv", "posix-sem:/s", "--count", "2", "--timeout", "0"]);
        inside(&["send", "sysv-sem:0x2a"]);
        assert!(inside(&["peek", "sysv-sem:0x2a"]).contains("1"));
    });
}

#[test]
fn the_variable_says_it_for_all_and_the_option_goes_first() {
    isolated(|| {
        make_all();
        let home = Namespace::open("jobs").unwrap();
        let path = home.path().unwrap().to_str().unwrap();
        for name in ["jobs", path] {
            run_ok(ginnel(&["send", "sysv-msg:0x2a", "hello"]).env("GINNEL_NAMESPACE", name));
        }
        assert_eq!(SysvQueue::open_in(&home, 0x2a).unwrap().status().unwrap().messages, 2);
        let kernels = ["ls", "--namespace", "kernel", "sysv-msg"];
        assert_eq!(run_ok(ginnel(&kernels).env("GINNEL_NAMESPACE", "jobs")), "");
        // Not for what has no home.
        run_ok(ginnel(&["create", "fifo:/dev/shm/a"]).env("GINNEL_NAMESPACE", "jobs"));
    });
}

#[test]
fn a_server_is_asked_in_there_and_takes_its_queue_away() {
    isolated(|| {
        make_all();
        for endpoint in ["sysv-msg:0x2b", "posix-mq:/served"] {
            let args = ["serve", "--namespace", "jobs", endpoint, "--create", "--", "tr", "a-z", "A-Z"];
            let server = spawn(ginnel(&args).stderr(Stdio::null()));
            wait_until("it serves", || inside(&["ls"]).contains(endpoint));
            assert_eq!(inside(&["call", "--wait", endpoint, "shout"]), "SHOUT");
            server.signal(libc::SIGTERM);
            server.wait();
            wait_until("its queue is gone", || !inside(&["ls"]).contains(endpoint));
        }
    });
}

#[test]
fn gc_removes_what_the_dead_left_and_nothing_else() {
    isolated(|| {
        make_all();
        let home = Namespace::open("jobs").unwrap();
        let path = home.path().unwrap();
        std::fs::write(path.join("msg/notes"), "mine").unwrap();
        // A queue with another's name.
        std::fs::copy(path.join("mq/jobs"), path.join("mq/other")).unwrap();
        let dry = inside(&["gc", "--keep-unused"]);
        assert!(dry.contains("would remove posix-mq other: corrupt"), "{dry}");
        assert!(dry.contains("would leave sysv-msg notes: not an object"), "{dry}");
        assert_eq!(dry.lines().count(), 2, "{dry}");
        assert!(path.join("mq/other").exists());
        let done = inside(&["gc", "--keep-unused", "--yes"]);
        assert!(done.contains("removed posix-mq other: corrupt"), "{done}");
        assert!(!path.join("mq/other").exists() && path.join("msg/notes").exists());
        assert_eq!(inside(&["ls", "--noheadings"]).lines().count(), 6);
    });
}

#[test]
fn gc_removes_what_no_process_has_any_more() {
    isolated(|| {
        make_all();
        inside(&["send", "sysv-msg:0x2a", "hello"]);
        let home = Namespace::open("jobs").unwrap();
        let users: Vec<_> = (0..2)
            .map(|_| {
                fork(|| {
                    let queue = SysvQueue::open_in(&home, 0x2a).unwrap();
                    let _status = queue.try_send(1, b"of one who will be killed");
                    let _jobs = PosixQueue::open_in(&home, "/jobs").unwrap();
                    let _waits = queue.recv(Select::Type(77), &mut [0; 8]);
                })
            })
            .collect();
        users.iter().for_each(|user| wait_blocked_in(user.pid(), libc::SYS_futex_waitv));
        let of_queues = |text: &str| {
            text.lines().filter(|line| line.contains("sysv-msg") || line.contains("posix-mq")).count()
        };
        let dry = inside(&["gc"]);
        assert_eq!((dry.lines().count(), of_queues(&dry)), (4, 0), "{dry}");
        assert!(
            dry.contains("would remove posix-sem sem.s: no process has it open or attached (value 0"),
            "{dry}"
        );
        for user in users {
            user.kill();
            user.wait();
        }
        let dry = inside(&["gc"]);
        assert_eq!((dry.lines().count(), of_queues(&dry)), (6, 2), "{dry}");
        assert!(dry.contains("attached (3 messages, 55 B)"), "{dry}");
        assert_eq!(inside(&["ls", "--noheadings"]).lines().count(), 6, "nothing was touched");
        let one = SysvQueue::open_in(&home, 0x2a).unwrap();
        one.status().unwrap();
        one.try_send(1, b"").unwrap();
        let done = inside(&["gc", "--yes"]);
        assert_eq!((done.lines().count(), of_queues(&done)), (5, 1), "{done}");
        assert!(done.lines().all(|line| line.starts_with("removed ")), "{done}");
        assert_eq!(inside(&["ls", "--noheadings"]).lines().count(), 1);
        drop(one);
        let json = inside(&["gc", "--yes", "--json"]);
        assert!(json.contains(r#""removed":true"#) && json.contains(r#""messages":4"#), "{json}");
        assert_eq!(inside(&["ls", "--noheadings"]), "");
    });
}

#[test]
fn gc_leaves_what_somebody_may_have_who_may_not_be_looked_at() {
    isolated(|| {
        let path = "/dev/shm/all";
        ok(&["create", "--namespace", path, "posix-sem:/roots"]);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        for directory in
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o1777))
                .unwrap();
        }
        as_user(1234, 1234, || {
            ok(&["create", "--namespace", path, "posix-sem:/own"]);
            let output = run(&mut ginnel(&["gc", "--namespace", path, "--yes"]));
            let (told, why) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(told.contains("left posix-sem sem.own"), "{told}{why}");
            assert!(why.contains("may not be looked at") && why.contains("--ignore-unseen"), "{why}");
            assert!(output.status.success(), "{why}");
            let told = ok(&["gc", "--namespace", path, "--ignore-unseen"]);
            assert!(told.contains("would remove posix-sem sem.own"), "{told}");
        })
        .assert_ok();
    });
}

#[test]
fn what_does_not_fit_is_said() {
    isolated(|| {
        failures(&[
            (&["ls", "--namespace", "none"], &["no such namespace", "ginnel create --namespace none"]),
            (&["ls", "--namespace", "/etc"], &["/etc", "memory file system"]),
            (&["send", "--namespace", ".hidden", "sysv-msg:0x2a", "x"], &["EINVAL", "1 to 200 bytes"]),
        ]);
        make_all();
        failures(&[(&["send", "--namespace", "jobs", "sysv-msg:0x2c", "x"], &["ENOENT", "there is none"])]);
        wrong_usage(&[
            (&["send", "--namespace", "jobs", "fifo:/dev/shm/a", "x"], "leave --namespace out"),
            (&["ls", "--namespace", "jobs", "unix"], "leave --namespace out"),
            (&["gc"], "which namespace"),
        ]);
    });
}
