//! The example programs, run as they are.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use ginnel_testkit::{Exit, Spawned, example, isolated, run, run_ok, spawn, temp_dir, wait_blocked_in};

use super::stay;

const WAITS: &str = "-- nobody there yet; the line waits";

/// A program that one types to, and reads line by line.
struct Dialogue {
    process: Spawned,
    keys: Option<ChildStdin>,
    screen: BufReader<ChildStdout>,
}

impl Dialogue {
    fn start(command: &mut Command) -> Dialogue {
        let mut process = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let keys = process.stdin();
        let screen = BufReader::new(process.stdout().unwrap());
        Dialogue { process, keys, screen }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.keys.as_mut().unwrap(), "{line}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.screen.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Its next line, whatever it says meanwhile of a line of its own that waits: which of the two comes first is open.
    fn hears(&mut self) -> String {
        loop {
            match self.line() {
                line if line == WAITS => {}
                line => return line,
            }
        }
    }

    fn leaves(mut self) {
        self.keys.take();
        self.process.assert_ok();
    }
}

#[test]
fn pipe_both_ways() {
    isolated(|| {
        let program = example("pipe_both_ways");
        let said = run_ok(Command::new(&program).args(["one", "two"]));
        assert_eq!(said, "ONE\nTWO\nthe child ended: exit status: 0\n");
        let output = run(Command::new(&program).args(["--impatient", "one", "two", "three"]));
        assert!(!output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ONE\n");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("EPIPE") && error.contains("every reader has closed"), "{error}");
    });
}

#[test]
fn pipeline() {
    isolated(|| {
        let directory = temp_dir();
        let list = directory.path().join("failures.txt");
        std::fs::write(&list, "bob 2\nann 1\nbob 1\n").unwrap();
        let line = format!("cat {} | grep bob | sort", list.display());
        let output = run(Command::new(example("pipeline")).arg(&line));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "bob 1\nbob 2\n");
        let stages = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stages.lines().count(), 3, "{stages}");
        assert!(stages.contains("exit status: 0  grep bob"), "{stages}");

        let output = run(Command::new(example("pipeline")).arg("cat /etc/passwd | grep no-such-name | sort"));
        assert_eq!(output.status.code(), Some(1), "grep's status counts");
        let output = run(Command::new(example("pipeline")).arg("rm -rf * "));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("* is for a shell to do") && error.contains("sh -c"), "{error}");
    });
}

#[test]
fn popen() {
    isolated(|| {
        let program = example("popen");
        assert_eq!(run_ok(Command::new(&program).args(["read", "-c", "echo $((6 * 7)) | cat"])), "42\n");
        assert_eq!(run_ok(Command::new(&program).args(["read", "printf", "%s", "$((6 * 7))"])), "$((6 * 7))");
        for mode in ["write", "both"] {
            let mut child = spawn(
                Command::new(&program).args([mode, "sort"]).stdin(Stdio::piped()).stdout(Stdio::piped()),
            );
            child.stdin().unwrap().write_all(b"b\na\n").unwrap();
            assert_eq!(child.wait_with_output().stdout, b"a\nb\n");
        }
        assert_eq!(run(Command::new(&program).args(["read", "-c", "exit 5"])).status.code(), Some(5));
        assert_eq!(run(Command::new(&program).args(["read", "no-such-program"])).status.code(), Some(127));
    });
}

#[test]
fn fifo_chat_in_any_order() {
    isolated(|| {
        let directory = temp_dir();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        let ann = || Dialogue::start(Command::new(example("fifo_chat")).args([&a, &b]));
        let bob = || Dialogue::start(Command::new(example("fifo_chat")).args([&b, &a]));
        let mut ann_here = ann();
        ann_here.types("is anybody there?");
        assert_eq!(ann_here.line(), WAITS);

        let mut bob_here = bob();
        assert_eq!(bob_here.hears(), "-- the other side is here");
        assert_eq!(bob_here.hears(), "> is anybody there?");
        bob_here.types("yes");
        assert_eq!(ann_here.hears(), "-- the other side is here");
        assert_eq!(ann_here.hears(), "> yes");
        // In real time, both ways.
        for number in 0..20 {
            ann_here.types(&format!("a{number}"));
            assert_eq!(bob_here.hears(), format!("> a{number}"));
            bob_here.types(&format!("b{number}"));
            assert_eq!(ann_here.hears(), format!("> b{number}"));
        }
        bob_here.leaves();
        assert_eq!(ann_here.hears(), "-- the other side left");
        ann_here.types("come back");
        assert_eq!(ann_here.line(), WAITS);
        let mut bob_here = bob();
        assert_eq!(bob_here.hears(), "-- the other side is here");
        assert_eq!(bob_here.hears(), "> come back");
        // Killed, not gone in peace.
        ann_here.process.kill();
        assert_eq!(ann_here.process.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(bob_here.hears(), "-- the other side left");
        let mut ann_here = ann();
        bob_here.types("hello again");
        let mut lines = [ann_here.hears(), ann_here.hears()];
        lines.sort();
        assert_eq!(lines, ["-- the other side is here", "> hello again"]);
        bob_here.leaves();
    });
}

#[test]
fn a_leaked_end_is_named() {
    isolated(|| {
        let output = run(Command::new(example("leaked_end")).arg("demo"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..2], ["read: that was all", "no end: somebody still holds the writing end"]);
        assert!(lines[2].contains("(sleep) writes it as descriptor"), "{said}");
        assert_eq!(lines[3..], ["after its death: the end"]);
        assert_eq!(output.status.code(), Some(1));

        // Somebody else's pipe: a forked child has a copy of its writing end.
        let (reader, writer) = ginnel::stream::pipe().unwrap();
        let ours = ginnel_testkit::fork(|| {
            stay();
        });
        wait_blocked_in(ours.pid(), libc::SYS_pause);
        let number = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&reader)).to_string();
        let me = std::process::id().to_string();
        let find = || run(Command::new(example("leaked_end")).args(["find", &me, &number]));
        drop(writer);
        let output = find();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("process {} ", ours.pid())) && said.contains(" writes it"), "{said}");
        drop(ours);
        assert_eq!(find().status.code(), Some(0));
    });
}

#[test]
fn a_server_with_many_clients_one_of_them_slow() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("s");
        let program = example("upper_server");
        for endpoint in
            [format!("unix:{}", path.display()), "unix:@upper".into(), "tcp:127.0.0.1:7000".into()]
        {
            let mut server =
                Dialogue::start(Command::new(&program).args(["serve", &endpoint]).stderr(Stdio::null()));
            assert_eq!(server.line(), format!("ready on {endpoint}"));
            // Connected, and says nothing for as long as the others are served.
            let slow: Box<dyn std::any::Any> = match endpoint.strip_prefix("tcp:") {
                Some(address) => Box::new(ginnel::stream::TcpStream::connect(address).unwrap()),
                None => Box::new(
                    ginnel::stream::UnixStream::connect(endpoint.strip_prefix("unix:").unwrap()).unwrap(),
                ),
            };
            let clients: Vec<_> = (0..16)
                .map(|number| {
                    let text = format!("client {number}");
                    spawn(Command::new(&program).args(["send", &endpoint, &text]).stdout(Stdio::piped()))
                })
                .collect();
            for (number, client) in clients.into_iter().enumerate() {
                assert_eq!(client.wait_with_output().stdout, format!("CLIENT {number}\n").as_bytes());
            }
            drop(slow);
            if let Some(path) = endpoint.strip_prefix("unix:/") {
                // A second server is refused, and after a kill the next one gets the name.
                let second = run(Command::new(&program).args(["serve", &endpoint]));
                assert!(String::from_utf8_lossy(&second.stderr).contains("EADDRINUSE"));
                server.process.kill();
                assert_eq!(server.process.wait(), Exit::Signal(libc::SIGKILL));
                assert!(std::path::Path::new(&format!("/{path}")).exists());
                let mut next = Dialogue::start(Command::new(&program).args(["serve", &endpoint]));
                assert_eq!(next.line(), format!("ready on {endpoint}"));
                assert_eq!(run_ok(Command::new(&program).args(["send", &endpoint, "again"])), "AGAIN\n");
            }
        }
        let error = run(Command::new(&program).args(["send", "unix:@nobody", "x"]));
        assert!(String::from_utf8_lossy(&error.stderr).contains("ECONNREFUSED"));
        let error = run(Command::new(&program).args(["send", "fifo:/x", "x"]));
        assert!(String::from_utf8_lossy(&error.stderr).contains("unix:PATH or tcp:HOST:PORT"));
    });
}

#[test]
fn socketpair_fork() {
    isolated(|| {
        let program = example("socketpair_fork");
        let said = run_ok(Command::new(&program).args(["12", "30", "-2"]));
        assert_eq!(said, "40 (the child ended: exit status: 0)\n");
        assert!(run_ok(Command::new(&program).arg("x")).starts_with("invalid digit"));
    });
}
