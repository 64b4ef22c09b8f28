//! `ginnel serve` and `ginnel call`, as real processes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ginnel::message::{Select, SysvQueue};
use ginnel_testkit::{
    Objects, Spawned, c_program, fork, isolated, isolated_for, run, run_ok, spawn, temp_dir, unprivileged,
};
use ginnel_testkit::{blocked_in, wait_until};

const ENDPOINTS: &[&str] = &[
    "sysv-msg:0x2a",
    "posix-mq:/jobs",
    "unix:/dev/shm/stream",
    "unix:@stream",
    "unix-seqpacket:/dev/shm/packets",
    "unix-dgram:/dev/shm/datagrams",
    "tcp:127.0.0.1:7000",
    "udp:127.0.0.1:7001",
];

fn ginnel() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ginnel"))
}

/// Starts a server and waits until it says that it serves.
fn serve(endpoint: &str, options: &[&str], command: &[&str]) -> Spawned {
    let mut server = spawn(
        ginnel().arg("serve").arg(endpoint).args(options).arg("--").args(command).stderr(Stdio::piped()),
    );
    let mut errors = std::io::BufReader::new(server.stderr().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut errors, &mut line).unwrap();
    assert!(line.starts_with(&format!("serving {endpoint}")), "{line}");
    // What else it says goes to the test's own output.
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::stderr()));
    server
}

fn call(endpoint: &str, words: &[&str]) -> Output {
    run(ginnel().arg("call").arg(endpoint).args(words).stdin(Stdio::null()))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn fails(output: &Output, with: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(output).contains(with), "{:?} has no {with:?}", stderr(output));
    assert_eq!(stderr(output).matches("ginnel:").count(), 1, "told once: {}", stderr(output));
}

fn end(server: Spawned) {
    server.signal(libc::SIGINT);
    server.assert_ok();
}

#[test]
fn every_mechanism_answers_and_ctrl_c_leaves_nothing() {
    isolated(|| {
        let before = Objects::snapshot();
        for endpoint in ENDPOINTS {
            let server = serve(endpoint, &["--create"], &["sed", "s/^/re:/"]);
            assert_eq!(run_ok(ginnel().args(["call", endpoint, "hello"])), "re:hello", "{endpoint}");
            assert_eq!(run_ok(ginnel().args(["call", endpoint, ""])), "", "{endpoint}");
            let lines =
                run_ok(Command::new("sh").args([
                    "-c",
                    &format!("seq 3 | {} call --lines {endpoint}", env!("CARGO_BIN_EXE_ginnel")),
                ]));
            assert_eq!(lines, "re:1\nre:2\nre:3\n", "{endpoint}");
            end(server);
            before.assert_same();
            assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0, "{endpoint} left a file");
            assert_eq!(call(endpoint, &["--timeout", "5s", "x"]).status.code(), Some(1), "{endpoint}");
        }
    });
}

#[test]
fn a_killed_server_leaves_nothing_and_no_command_running() {
    isolated(|| {
        let before = Objects::snapshot();
        for endpoint in ["sysv-msg:0x2a", "posix-mq:/jobs", "unix:/dev/shm/s", "unix-dgram:/dev/shm/s"] {
            let server = serve(endpoint, &["--create"], &["sh", "-c", "echo $$ >/dev/shm/pid; sleep 1000"]);
            let client = spawn(ginnel().args(["call", endpoint, "x"]).stderr(Stdio::piped()));
            let started = || std::fs::read_to_string("/dev/shm/pid").is_ok_and(|pid| pid.ends_with('\n'));
            wait_until("the command runs", started);
            let pid = std::fs::read_to_string("/dev/shm/pid").unwrap();
            std::fs::remove_file("/dev/shm/pid").unwrap();
            server.kill();
            server.wait();
            let output = client.wait_with_output();
            // The queue goes with its server, and either may be seen first.
            assert_eq!(output.status.code(), Some(1), "{endpoint}");
            assert!(stderr(&output).contains("died") || stderr(&output).contains("removed"), "{output:?}");
            let command = format!("/proc/{}/cmdline", pid.trim());
            // Gone, or a zombie whose new parent does not care.
            wait_until("the command has ended", || {
                std::fs::read(&command).map_or(true, |words| words.is_empty())
            });
            wait_until("the guardian has cleaned up", || std::fs::read_dir("/dev/shm").unwrap().count() == 0);
            wait_until("the queue is removed", || call(endpoint, &["x"]).status.code() == Some(1));
        }
        wait_until("nothing is left", || Objects::snapshot() == before);
    });
}

#[test]
fn ctrl_c_ends_the_commands_that_run() {
    isolated(|| {
        let server = serve(
            "unix:/dev/shm/s",
            &[],
            &[
                "sh",
                "-c",
                "trap 'echo >/dev/shm/asked; exit 7' TERM; echo >/dev/shm/up; while :; do sleep 0.01; done",
            ],
        );
        let client = spawn(ginnel().args(["call", "unix:/dev/shm/s", "x"]).stderr(Stdio::piped()));
        wait_until("the command runs", || std::path::Path::new("/dev/shm/up").exists());
        end(server);
        assert!(std::path::Path::new("/dev/shm/asked").exists(), "SIGTERM first");
        // Or its command's last word, if that was faster.
        let output = client.wait_with_output();
        assert!(
            stderr(&output).contains("the server died") || stderr(&output).contains("exit status 7"),
            "{output:?}"
        );
    });
}

#[test]
fn what_was_there_before_stays() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        // Another program's message, of a type that is no PID's reply.
        queue.send(77, b"not mine").unwrap();
        let server = serve("sysv-msg:0x2a", &["--create"], &["cat"]);
        assert_eq!(run_ok(ginnel().args(["call", "sysv-msg:0x2a", "x"])), "x");
        end(server);
        assert_eq!(queue.recv_vec(Select::Type(77)).unwrap().payload, b"not mine");
        assert_eq!(queue.status().unwrap().messages, 0);
        queue.remove().unwrap();

        std::fs::write("/dev/shm/file", "precious").unwrap();
        let refused = run(ginnel().args(["serve", "unix:/dev/shm/file", "--", "cat"]));
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(std::fs::read("/dev/shm/file").unwrap(), b"precious");

        let first = serve("unix:/dev/shm/s", &[], &["cat"]);
        let second = run(ginnel().args(["serve", "unix:/dev/shm/s", "--", "false"]));
        assert_eq!(second.status.code(), Some(1), "the name is taken");
        assert_eq!(run_ok(ginnel().args(["call", "unix:/dev/shm/s", "still here"])), "still here");
        end(first);
    });
}

#[test]
fn a_failing_command_is_an_error_reply() {
    isolated(|| {
        for endpoint in ENDPOINTS {
            let script = "read word; case $word in bad) echo first >&2; echo no such job >&2; exit 3;; killed) kill -9 $$;; esac; echo $word";
            let server = serve(endpoint, &["--create"], &["sh", "-c", script]);
            fails(&call(endpoint, &["bad\n"]), "failed with exit status 3: no such job");
            fails(&call(endpoint, &["killed\n"]), "killed by signal 9");
            assert_eq!(run_ok(ginnel().args(["call", endpoint, "good\n"])), "good\n");
            end(server);
        }
        let server = serve("unix:/dev/shm/s", &[], &["no-such-program"]);
        fails(&call("unix:/dev/shm/s", &["x"]), "no-such-program: No such file");
        end(server);
    });
}

#[test]
fn a_line_that_fails_does_not_stop_the_others() {
    isolated(|| {
        let server =
            serve("sysv-msg:0x1", &["--create"], &["sh", "-c", "read n; [ $n != 2 ] || exit 9; echo $n"]);
        let mut client = spawn(
            ginnel()
                .args(["call", "--lines", "sysv-msg:0x1"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        client.stdin().unwrap().write_all(b"1\n2\n3").unwrap();
        let output = client.wait_with_output();
        assert_eq!(output.stdout, b"1\n3\n");
        assert!(
            stderr(&output).contains("line 2: sysv-msg:0x1: the server's command failed with exit status 9"),
            "{output:?}"
        );
        end(server);
    });
}

#[test]
fn a_reply_that_does_not_fit_is_an_error_that_says_the_limit() {
    isolated(|| {
        let limits = [
            ("sysv-msg:0x1", "8168 bytes", "kernel.msgmax is 8192"),
            ("posix-mq:/q", "8168 bytes", "mq_msgsize is 8192"),
            ("udp:127.0.0.1:7001", "65483 bytes", "UDP"),
            ("unix-dgram:@d", "bytes", "net.core.wmem_default"),
            ("unix-seqpacket:@q", "bytes", "net.core.wmem_default"),
            ("unix:@s", "16777192 bytes", "a frame holds"),
        ];
        for (endpoint, bytes, limit) in limits {
            let server = serve(endpoint, &["--create"], &["yes"]);
            let output = call(endpoint, &["x"]);
            fails(&output, limit);
            fails(&output, bytes);
            end(server);
        }
        // To the very byte.
        let server = serve("sysv-msg:0x1", &["--create"], &["sh", "-c", "head -c $(cat) /dev/zero"]);
        assert_eq!(run_ok(ginnel().args(["call", "sysv-msg:0x1", "8168"])).len(), 8168);
        fails(&call("sysv-msg:0x1", &["8169"]), "longer than 8168 bytes");
        end(server);
    });
}

#[test]
fn a_request_that_does_not_fit_says_so() {
    isolated(|| {
        let big = "x".repeat(70_000);
        for endpoint in ["sysv-msg:0x1", "posix-mq:/q", "udp:127.0.0.1:7001"] {
            let server = serve(endpoint, &["--create"], &["cat"]);
            assert_eq!(call(endpoint, &["--timeout", "20s", &big]).status.code(), Some(1), "{endpoint}");
            end(server);
        }
        let server = serve("tcp:127.0.0.1:7000", &[], &["wc", "-c"]);
        assert_eq!(run_ok(ginnel().args(["call", "tcp:127.0.0.1:7000", &big])).trim(), "70000");
        end(server);
    });
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    isolated(|| {
        let server = serve("unix:@s", &["--timeout", "100ms"], &["sh", "-c", "sleep 1000; echo done"]);
        fails(&call("unix:@s", &["x"]), "not done after 100ms");
        end(server);
    });
}

#[test]
fn nobody_there() {
    isolated(|| {
        fails(&call("sysv-msg:0x1", &["x"]), "ENOENT");
        SysvQueue::create(1).unwrap();
        fails(&call("sysv-msg:0x1", &["x"]), "nobody serves this queue");
        fails(&call("sysv-msg:0x1", &["--foreign", "--timeout", "50ms", "x"]), "no reply came in time");
        fails(&call("unix:/dev/shm/s", &["x"]), "ENOENT");
        fails(&call("tcp:127.0.0.1:7000", &["x"]), "ECONNREFUSED");
        fails(&call("udp:127.0.0.1:7000", &["x"]), "nobody listens");
        fails(&call("unix:@s", &["--wait", "--timeout", "60ms", "x"]), "no server came in time");
        let wrong = call("fifo:/tmp/x", &["x"]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(stderr(&wrong).contains("carries no requests"), "{wrong:?}");
        let missing = run(ginnel().args(["serve", "sysv-msg:9", "--", "cat"]));
        fails(&missing, "serve it with --create");
        assert_eq!(run(ginnel().args(["serve", "unix:@x"])).status.code(), Some(2), "no command");
    });
}

#[test]
fn the_client_may_come_first() {
    isolated(|| {
        for endpoint in ENDPOINTS {
            let client = spawn(ginnel().args(["call", "--wait", endpoint, "early"]).stdout(Stdio::piped()));
            wait_until("the client waits", || {
                blocked_in(client.pid(), libc::SYS_clock_nanosleep) || !client.is_alive()
            });
            let server = serve(endpoint, &["--create"], &["cat"]);
            let output = client.wait_with_output();
            assert_eq!(output.stdout, b"early", "{endpoint}");
            end(server);
        }
    });
}

#[test]
fn a_reply_that_comes_too_late_is_not_taken_for_another() {
    isolated(|| {
        for endpoint in ["sysv-msg:0x1", "unix-dgram:@d"] {
            let server =
                serve(endpoint, &["--create"], &["sh", "-c", "read x; [ $x = slow ] && sleep 0.3; echo $x"]);
            fails(&call(endpoint, &["--timeout", "10ms", "slow\n"]), "no reply came in time");
            assert_eq!(run_ok(ginnel().args(["call", endpoint, "next\n"])), "next\n");
            end(server);
        }
    });
}

#[test]
fn replies_of_dead_clients_do_not_stay() {
    isolated(|| {
        // What a server that was killed has left for a client that is gone, and for one that is not.
        let queue = SysvQueue::create(0x2a).unwrap();
        let gone = fork(|| {});
        let pid = gone.pid();
        gone.assert_ok();
        let reply = [b"GRP1".as_slice(), &[0; 20], b"old"].concat();
        queue.send(pid.into(), &reply).unwrap();
        queue.send(std::process::id().into(), &reply).unwrap();
        let server = serve(
            "sysv-msg:0x2a",
            &[],
            &["sh", "-c", "echo >/dev/shm/up; while [ -e /dev/shm/up ]; do sleep 0.01; done; echo late"],
        );
        assert_eq!(queue.recv_vec(Select::Type(std::process::id().into())).unwrap().payload, reply);
        wait_until("the dead one's is dropped", || queue.status().unwrap().messages == 0);

        // A client that dies while its command runs gets no reply.
        let client = spawn(ginnel().args(["call", "sysv-msg:0x2a", "x"]));
        wait_until("the command runs", || std::path::Path::new("/dev/shm/up").exists());
        client.kill();
        client.wait();
        std::fs::remove_file("/dev/shm/up").unwrap();

        // And one that dies with its reply in the queue, after it was stopped, leaves none.
        let client = spawn(ginnel().args(["call", "sysv-msg:0x2a", "x"]));
        wait_until("the command runs", || std::path::Path::new("/dev/shm/up").exists());
        client.signal(libc::SIGSTOP);
        wait_until("it is stopped", || {
            std::fs::read_to_string(format!("/proc/{}/stat", client.pid())).unwrap().contains(") T ")
        });
        std::fs::remove_file("/dev/shm/up").unwrap();
        wait_until("the reply is in the queue", || queue.status().unwrap().messages == 1);
        client.kill();
        client.wait();
        wait_until("it was swept", || queue.status().unwrap().messages == 0);
        end(server);
        queue.remove().unwrap();
    });
}

/// The textbook's deadlock: a queue that is full of requests has no room for replies.
#[test]
fn a_queue_full_of_requests_is_no_deadlock() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let bytes = "x".repeat(4000);
        // 64 clients, and a queue that holds three of their messages.
        let clients: Vec<Spawned> = (0..64)
            .map(|_| {
                spawn(ginnel().args(["call", "--foreign", "sysv-msg:0x2a", &bytes]).stdout(Stdio::piped()))
            })
            .collect();
        wait_until("the queue is full", || queue.status().unwrap().messages >= 4);
        let server = serve("sysv-msg:0x2a", &["--jobs", "2"], &["cat"]);
        for client in clients {
            let output = client.wait_with_output();
            assert!(output.status.success() && output.stdout == bytes.as_bytes(), "{:?}", stderr(&output));
        }
        end(server);
        assert_eq!(queue.status().unwrap().messages, 0);
        queue.remove().unwrap();
    });
}

/// Stopped clients whose replies fill the queue hold up nobody else.
#[test]
fn clients_that_do_not_take_their_replies_hold_nobody_up() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let script = "cat >/dev/shm/got.$GINNEL_CLIENT_PID; while [ -e /dev/shm/hold ]; do sleep 0.01; done; cat /dev/shm/got.$GINNEL_CLIENT_PID";
        std::fs::write("/dev/shm/hold", "").unwrap();
        let server = serve("sysv-msg:0x2a", &["--jobs", "8"], &["sh", "-c", script]);
        let bytes = "x".repeat(6000);
        let stopped: Vec<Spawned> = (0..5)
            .map(|_| spawn(ginnel().args(["call", "sysv-msg:0x2a", &bytes]).stdout(Stdio::piped())))
            .collect();
        for client in &stopped {
            let file = format!("/dev/shm/got.{}", client.pid());
            wait_until("its request is there", || {
                std::fs::metadata(&file).is_ok_and(|file| file.len() == 6000)
            });
            client.signal(libc::SIGSTOP);
        }
        std::fs::remove_file("/dev/shm/hold").unwrap();
        wait_until("their replies fill the queue", || queue.status().unwrap().bytes >= 12_000);
        for _ in 0..3 {
            assert_eq!(run_ok(ginnel().args(["call", "sysv-msg:0x2a", &bytes])), bytes);
        }
        for client in stopped {
            client.signal(libc::SIGCONT);
            assert_eq!(client.wait_with_output().stdout, bytes.as_bytes(), "in the end it gets its own");
        }
        end(server);
        queue.remove().unwrap();
    });
}

#[test]
fn the_kernel_vouches_for_the_client() {
    isolated(|| {
        for endpoint in ["unix:@s", "unix-seqpacket:@q", "sysv-msg:0x1", "posix-mq:/q", "unix-dgram:@d"] {
            let server = serve(
                endpoint,
                &["--create"],
                &["sh", "-c", "echo \"$GINNEL_CLIENT_PID $GINNEL_CLIENT_UID\""],
            );
            let client = spawn(ginnel().args(["call", endpoint, "x"]).stdout(Stdio::piped()));
            let pid = client.pid();
            let said = String::from_utf8(client.wait_with_output().stdout).unwrap();
            let uid = if endpoint.starts_with("unix:") || endpoint.contains("seq") { "0" } else { "" };
            assert_eq!(said, format!("{pid} {uid}\n"), "{endpoint}");
            end(server);
        }
    });
}

#[test]
fn without_the_right() {
    isolated(|| {
        let server = serve("sysv-msg:0x1", &["--create"], &["cat"]);
        let other = serve("unix:/dev/shm/s", &[], &["cat"]);
        unprivileged(|| {
            fails(&call("sysv-msg:0x1", &["x"]), "EACCES");
            fails(&call("unix:/dev/shm/s", &["x"]), "EACCES");
        })
        .assert_ok();
        end(server);
        end(other);
    });
}

#[test]
fn a_queue_that_is_removed_ends_both_sides() {
    isolated(|| {
        let queue = SysvQueue::create(1).unwrap();
        let server =
            spawn(ginnel().args(["serve", "sysv-msg:0x1", "--", "sleep", "1000"]).stderr(Stdio::piped()));
        let client = spawn(ginnel().args(["call", "--wait", "sysv-msg:0x1", "x"]).stderr(Stdio::piped()));
        wait_until("the request was taken", || queue.status().unwrap().last_recv_pid == server.pid());
        queue.remove().unwrap();
        fails(&client.wait_with_output(), "removed");
        let output = server.wait_with_output();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("it was removed"), "{output:?}");
    });
}

#[test]
fn a_closed_pipe_is_no_failure() {
    isolated(|| {
        let server = serve("unix:@s", &[], &["cat"]);
        let script = format!(
            "(seq 1000 | {} call --lines unix:@s; echo $? >/dev/shm/rc) | head -1",
            env!("CARGO_BIN_EXE_ginnel")
        );
        assert_eq!(run_ok(Command::new("sh").args(["-c", &script])), "1\n");
        assert_eq!(std::fs::read_to_string("/dev/shm/rc").unwrap(), "0\n");
        end(server);
    });
}

#[test]
fn a_client_in_c() {
    isolated(|| {
        let client = c_program!("tests/serve.c");
        let server = serve(
            "sysv-msg:0x2a",
            &["--create"],
            &["sh", "-c", "read x; [ $x != bad ] || { echo why >&2; exit 4; }; echo -n re:$x"],
        );
        let said = run_ok(Command::new(client).args(["0x2a", "one\n", "bad\n", "two\n"]));
        assert_eq!(said, "0 re:one\n4 why\n0 re:two\n");
        end(server);
    });
}

#[test]
fn one_pid_in_two_namespaces() {
    isolated(|| {
        let server = serve("sysv-msg:0x2a", &["--create"], &["cat"]);
        let elsewhere = |words: &[&str]| {
            let exe = env!("CARGO_BIN_EXE_ginnel");
            run(Command::new("unshare")
                .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
                .arg(format!("{exe} call sysv-msg:0x2a {}; exit $?", words.join(" "))))
        };
        fails(&elsewhere(&["x"]), "another PID namespace");
        // One that does not look: the server refuses.
        fails(&elsewhere(&["--foreign", "--timeout", "200ms", "x"]), "no reply came in time");
        assert_eq!(run_ok(ginnel().args(["call", "sysv-msg:0x2a", "x"])), "x");
        let first = run(Command::new("unshare").args([
            "--pid",
            "--fork",
            "--mount-proc",
            env!("CARGO_BIN_EXE_ginnel"),
            "call",
            "sysv-msg:0x2a",
            "x",
        ]));
        fails(&first, "PID 1 cannot be a client");
        end(server);
    });
}

/// 64 clients at once; `GINNEL_TEST_REQUESTS=1000` for the full number of requests each (see `just requests`).
#[test]
fn sixty_four_clients_get_their_own_replies() {
    let requests =
        std::env::var("GINNEL_TEST_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    isolated_for(Duration::from_secs(60 + requests), || {
        for endpoint in ["sysv-msg:0x2a", "unix:/dev/shm/s"] {
            crowd(endpoint, 64, requests);
        }
    });
}

#[test]
fn a_crowd_over_every_other_mechanism() {
    isolated(|| {
        for endpoint in ["unix-seqpacket:@q", "unix-dgram:@d", "tcp:127.0.0.1:7000"] {
            crowd(endpoint, 16, 5);
        }
        // Few: RLIMIT_MSGQUEUE counts the queues of all tests that run now.
        crowd("posix-mq:/jobs", 6, 5);
    });
}

fn crowd(endpoint: &str, clients: u64, requests: u64) {
    let server = serve(endpoint, &["--create", "--mode", "600"], &["sed", "s/^/re:/"]);
    let directory = temp_dir();
    let script = "for n in $(seq $2); do echo $1.$n; done >$4.asked; $5 call --lines $3 <$4.asked >$4.heard && sed s/^/re:/ $4.asked | cmp - $4.heard";
    let crowd: Vec<Spawned> = (0..clients)
        .map(|client| {
            let file = directory.path().join(client.to_string());
            spawn(
                Command::new("sh")
                    .args(["-c", script, "client", &client.to_string(), &requests.to_string(), endpoint])
                    .arg(file)
                    .arg(env!("CARGO_BIN_EXE_ginnel")),
            )
        })
        .collect();
    wait_until_all_done(&crowd);
    for client in crowd {
        client.assert_ok();
    }
    for client in 0..clients {
        let heard = std::fs::read_to_string(directory.path().join(format!("{client}.heard"))).unwrap();
        assert_eq!(heard.lines().count() as u64, requests, "client {client} over {endpoint}");
        assert!(heard.lines().all(|line| line.starts_with(&format!("re:{client}."))), "{heard}");
    }
    eprintln!("{endpoint}: {clients} clients, {requests} requests each, every reply at its asker");
    end(server);
}

/// The test's own deadline is the limit: a thousand requests take longer than a wait of the kit.
fn wait_until_all_done(crowd: &[Spawned]) {
    while crowd.iter().any(Spawned::is_alive) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A request as the wire format has it, in a frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let request = [b"GRQ1".as_slice(), &[0; 28], payload].concat();
    [&(request.len() as u32).to_be_bytes(), request.as_slice()].concat()
}

fn holds_nobody_up(endpoint: &str, connect: impl Fn() -> Box<dyn ReadWrite>) {
    const REPLY: usize = 8_000_000;
    let server = serve(endpoint, &["--jobs", "1"], &["sh", "-c", "head -c 8000000 /dev/zero"]);
    // Ask, twice at once even, and read nothing; connect, and ask for nothing.
    let mut slow = connect();
    slow.write_all(&[frame(b"x"), frame(b"y")].concat()).unwrap();
    let mut half = connect();
    half.write_all(&frame(b"x")[..7]).unwrap();
    for _ in 0..2 {
        assert_eq!(run_ok(ginnel().args(["call", endpoint, "x"])).len(), REPLY, "{endpoint}");
    }
    let mut replies = vec![0; 2 * (REPLY + 28)];
    slow.read_exact(&mut replies).unwrap();
    assert!(replies[4..].starts_with(b"GRP1") && replies[REPLY + 28 + 4..].starts_with(b"GRP1"));
    // Nonsense ends the connection, not the server.
    let mut wrong = connect();
    wrong.write_all(&[0xff; 64]).unwrap();
    assert_eq!(wrong.read_to_end(&mut Vec::new()).unwrap_or_default(), 0);
    assert_eq!(run_ok(ginnel().args(["call", endpoint, "x"])).len(), REPLY, "{endpoint}");
    end(server);
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_slow_client_holds_nobody_up() {
    isolated(|| {
        holds_nobody_up("unix:/dev/shm/s", || Box::new(UnixStream::connect("/dev/shm/s").unwrap()));
        holds_nobody_up("tcp:127.0.0.1:7000", || Box::new(TcpStream::connect("127.0.0.1:7000").unwrap()));
    });
}
