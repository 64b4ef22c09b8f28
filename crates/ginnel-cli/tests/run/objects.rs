//! Whose objects they are: the namespace's, for the tools of Linux and for this command; the kernel's own untouched.

use std::process::{Command, Stdio};

use ginnel_testkit::{isolated, kernel_objects, run_ok, spawn, wait_until};

use crate::support::{ginnel, inside, objects, ok};

const ALL: [(&str, &str); 6] = [
    ("sysv-msg", "0x2a"),
    ("posix-mq", "/jobs"),
    ("sysv-sem", "0x2a"),
    ("posix-sem", "/jobs"),
    ("sysv-shm", "0x2a"),
    ("posix-shm", "/jobs"),
];

fn endpoint(kind: &str, name: &str) -> String {
    format!("{kind}:{name}")
}

fn host(program: &str, args: &[&str]) -> String {
    run_ok(Command::new(program).args(args))
}

/// How many objects of each of the three kinds a run of `ipcs -a` shows.
fn shown(printed: &str) -> [usize; 3] {
    ["Message Queues", "Shared Memory Segments", "Semaphore Arrays"].map(|title| {
        let part = printed.split("------ ").find(|part| part.starts_with(title)).expect(title);
        part.lines().skip(2).filter(|line| line.starts_with("0x")).count()
    })
}

#[test]
fn the_tools_of_linux_show_and_remove_the_namespaces() {
    isolated(|| {
        inside(&["true"]);
        for what in [&["-Q"][..], &["-S", "2"], &["-M", "100"]] {
            host("ipcmk", what);
        }
        let kernels = kernel_objects();
        assert_eq!(shown(&inside(&["ipcs", "-a"])), [0, 0, 0]);
        for (what, printed) in [
            (&["-Q"][..], "Message queue id: "),
            (&["-S", "3"], "Semaphore id: "),
            (&["-M", "4096"], "Shared memory id: "),
        ] {
            let line = inside(&[&["ipcmk"], what].concat());
            assert!(line.starts_with(printed), "{line}");
        }
        inside(&[&objects(), "put", "sysv-msg", "0x2a", "hello"]);
        inside(&[&objects(), "put", "sysv-sem", "0x2a"]);

        let all = inside(&["ipcs", "-a"]);
        assert_eq!(shown(&all), [2, 1, 2], "{all}");
        assert_eq!(shown(&host("ipcs", &["-a"])), [1, 1, 1]);
        let queue = all.lines().find(|line| line.starts_with("0x0000002a")).expect("the queue");
        let fields: Vec<&str> = queue.split_whitespace().collect();
        assert_eq!(fields[2..], ["root", "600", "5", "1"], "{all}");
        // Of one of them, by msgctl(2) and the like.
        let id = fields[1];
        let one = inside(&["ipcs", "-q", "-i", id]);
        assert!(one.contains("cbytes=5") && one.contains("qnum=1") && one.contains("mode=0600"), "{one}");
        let limits = inside(&["ipcs", "-l"]);
        assert!(limits.contains("max queues system wide = 2147483647"), "{limits}");

        let listed =
            inside(&["lsipc", "-q", "--bytes", "--noheadings", "-o", "KEY,ID,MSGS,USEDBYTES", "--raw"]);
        assert!(listed.lines().any(|line| line == format!("0x0000002a {id} 1 5")), "{listed}");
        assert_eq!(listed.lines().count(), 2, "{listed}");
        let summary = inside(&["lsipc", "--noheadings", "-o", "RESOURCE,USED", "--raw"]);
        assert!(summary.lines().any(|line| line == "MSGMNI 2"), "{summary}");
        assert!(summary.lines().any(|line| line == "SHMMNI 1"), "{summary}");
        assert!(summary.lines().any(|line| line == "SEMMNI 2"), "{summary}");

        inside(&["ipcrm", "-Q", "0x2a", "-S", "0x2a"]);
        assert_eq!(shown(&inside(&["ipcs", "-a"])), [1, 1, 1]);
        inside(&["ipcrm", "-a"]);
        assert_eq!(shown(&inside(&["ipcs", "-a"])), [0, 0, 0]);
        assert_eq!(kernel_objects(), kernels);
    });
}

#[test]
fn the_kernels_tables_are_the_namespaces() {
    isolated(|| {
        inside(&[&objects(), "put", "sysv-msg", "42", "hello"]);
        inside(&[&objects(), "put", "sysv-shm", "43", "hello"]);
        inside(&[&objects(), "put", "sysv-sem", "44"]);
        let kinds = [("msg", "42"), ("shm", "43"), ("sem", "44")];
        for (kind, key) in kinds {
            let path = format!("/proc/sysvipc/{kind}");
            let kernels = host("cat", &[&path]);
            assert_eq!(kernels.lines().count(), 1, "{kernels}");
            for command in [
                &["cat", &path][..],
                &["head", "-n", "9", &path],
                &["python3", "-c", "import sys; print(open(sys.argv[1]).read(), end='')", &path],
            ] {
                let table = inside(command);
                let lines: Vec<&str> = table.lines().collect();
                assert_eq!(lines[0], kernels.trim_end_matches('\n'), "{command:?}");
                assert_eq!(lines.len(), 2, "{command:?}: {table}");
                assert_eq!(lines[1].split_whitespace().next(), Some(key), "{command:?}: {table}");
            }
            // By a shell's redirection, and when it is not to be read.
            assert_eq!(inside(&["sh", "-c", &format!("cat < {path}")]).lines().count(), 2);
        }
        // The same columns as the kernel's, of an object that is alike.
        host(&objects(), &["put", "sysv-msg", "42", "hello"]);
        let stable = |table: &str| -> Vec<String> {
            let line = table.lines().nth(1).expect("an object").to_owned();
            let columns = line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            [&columns[..1], &columns[2..5], &columns[7..11]].concat()
        };
        let path = "/proc/sysvipc/msg";
        assert_eq!(stable(&inside(&["cat", path])), stable(&host("cat", &[path])));
        host("ipcrm", &["-a"]);
        assert_eq!(inside(&["cat", path]).lines().count(), 2);
    });
}

#[test]
fn what_a_program_puts_this_command_takes() {
    isolated(|| {
        let program = objects();
        for (kind, name) in ALL {
            inside(&[&program, "put", kind, name, "from C"]);
            let taken = ok(&["recv", "--namespace", "jobs", &endpoint(kind, name)]);
            match kind {
                "sysv-msg" | "posix-mq" => assert_eq!(taken, "from C\n", "{kind}"),
                "sysv-shm" | "posix-shm" => assert_eq!(&taken[..6], "from C", "{kind}"),
                _ => {
                    // Its only unit.
                    let again = ["recv", "--namespace", "jobs", &endpoint(kind, name), "--timeout", "0"];
                    assert!(!ginnel_testkit::run(&mut ginnel(&again)).status.success(), "{kind}");
                }
            }
        }
        let listed = ok(&["ls", "--namespace", "jobs", "--noheadings"]);
        assert_eq!(listed.lines().count(), 6, "{listed}");
    });
}

#[test]
fn what_this_command_puts_a_program_takes() {
    isolated(|| {
        let program = objects();
        for (kind, name) in ALL {
            let endpoint = endpoint(kind, name);
            let size: &[&str] = if kind.ends_with("-shm") { &["--size", "64"] } else { &[] };
            ok(&[&["create", "--namespace", "jobs", &endpoint], size].concat());
            let is_semaphore = kind.ends_with("-sem");
            let text: &[&str] = if is_semaphore { &[] } else { &["from Rust"] };
            ok(&[&["send", "--namespace", "jobs", &endpoint], text].concat());
            let taken = inside(&[&program, "take", kind, name]);
            assert_eq!(taken, if is_semaphore { "taken\n" } else { "from Rust\n" }, "{kind}");
        }
        assert_eq!(host("ipcs", &[]).matches("0x").count(), 0);
    });
}

/// Each waits for the other: wake-ups go both ways.
#[test]
fn a_program_and_this_command_wait_for_each_other() {
    isolated(|| {
        let program = objects();
        for (kind, name) in ALL.into_iter().filter(|(kind, _)| !kind.ends_with("-shm")) {
            let endpoint = endpoint(kind, name);
            let text: &[&str] = if kind.ends_with("-sem") { &[] } else { &["awaited"] };
            ok(&["create", "--namespace", "jobs", &endpoint]);

            let mut take = ginnel(&["run", "--namespace", "jobs", "--", &program, "take", kind, name]);
            let take = spawn(take.stdout(Stdio::piped()));
            wait_asleep(take.pid());
            ok(&[&["send", "--namespace", "jobs", &endpoint], text].concat());
            take.assert_ok();

            let mut recv = ginnel(&["recv", "--namespace", "jobs", &endpoint]);
            let recv = spawn(recv.stdout(Stdio::piped()));
            wait_asleep(recv.pid());
            inside(&[&program, "put", kind, name, "awaited"]);
            recv.assert_ok();
        }
    });
}

fn wait_asleep(pid: i32) {
    wait_until("it sleeps on a futex", || {
        [libc::SYS_futex, libc::SYS_futex_waitv].iter().any(|call| ginnel_testkit::blocked_in(pid, *call))
    });
}
