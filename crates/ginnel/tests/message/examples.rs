//! The examples, as the processes that a user starts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};

use ginnel::message::SysvQueue;
use ginnel_testkit::{
    Objects, Spawned, example, isolated, run, run_ok, spawn, temp_dir, wait_blocked_in, wait_until,
};

fn command(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command.args(words);
    command
}

fn ok(name: &str, words: &[&str]) -> String {
    run_ok(&mut command(name, words))
}

/// That it fails with this status, and says this.
#[track_caller]
fn fails(status: i32, says: &str, name: &str, words: &[&str]) {
    let output = run(&mut command(name, words));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(says), "{text}");
}

fn start(name: &str, words: &[&str]) -> (Spawned, Lines<BufReader<ChildStdout>>) {
    let mut child = spawn(command(name, words).stdout(Stdio::piped()));
    let lines = BufReader::new(child.stdout().unwrap()).lines();
    (child, lines)
}

fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    lines.next().expect("another line").unwrap()
}

#[test]
fn every_example_has_a_usage_line() {
    for name in [
        "mailbox",
        "request_reply",
        "priorities",
        "task_queue",
        "direct_indirect",
        "datagram",
        "pass_descriptor",
        "ping",
    ] {
        fails(2, "usage: ", name, &["nonsense", "0", "0", "0", "0", "0"]);
    }
}

#[test]
fn mailbox_keeps_a_message_for_a_later_receiver() {
    isolated(|| {
        let before = Objects::snapshot();
        let dir = temp_dir();
        let file = dir.path().join("agreed");
        std::fs::write(&file, "").unwrap();
        for key in ["0x2a", &format!("{}#7", file.display())] {
            ok("mailbox", &["send", key, "the kettle boils"]);
            let listed = ok("mailbox", &["list"]);
            let line = listed.lines().nth(1).expect("one queue");
            assert!(line.ends_with(" 1 16"), "{listed}");
            assert_eq!(ok("mailbox", &["recv", key]), "the kettle boils\n");
            assert!(ok("mailbox", &["list"]).lines().nth(1).unwrap().ends_with(" 0 0"));
            ok("mailbox", &["remove", key]);
        }
        fails(1, "no queue has this key", "mailbox", &["remove", "0x2a"]);
        fails(1, "a key is", "mailbox", &["send", "what", "x"]);

        let (receiver, mut lines) = start("mailbox", &["recv", "0x2a"]);
        wait_blocked_in(receiver.pid(), libc::SYS_msgrcv);
        ok("mailbox", &["send", "0x2a", "receiver first"]);
        assert_eq!(next(&mut lines), "receiver first");
        receiver.assert_ok();
        ok("mailbox", &["remove", "0x2a"]);
        before.assert_same();
    });
}

#[test]
fn request_reply_serves_64_clients_through_a_killed_server() {
    isolated(|| {
        const CLIENTS: usize = 64;
        let (server, mut lines) = start("request_reply", &["server", "0x2b"]);
        assert_eq!(next(&mut lines), "serving");
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|client| start("request_reply", &["client", "0x2b", &format!("client-{client}"), "10"]))
            .collect();
        // Some have got some: the server dies, and another takes over.
        assert_eq!(next(&mut clients[0].1), "CLIENT-0 0");
        server.kill();
        server.wait();
        let (server, mut lines) = start("request_reply", &["server", "0x2b"]);
        assert_eq!(next(&mut lines), "serving");
        for (client, (child, lines)) in clients.into_iter().enumerate() {
            let got: Vec<_> = lines.map(Result::unwrap).collect();
            let first = usize::from(client == 0);
            let expected: Vec<_> = (first..10).map(|index| format!("CLIENT-{client} {index}")).collect();
            assert_eq!(got, expected);
            child.assert_ok();
        }
        server.kill();
        ok("request_reply", &["remove", "0x2b"]);
    });
}

#[test]
fn request_reply_refuses_another_pid_namespace_and_process_1() {
    isolated(|| {
        let (_server, mut lines) = start("request_reply", &["server", "0x2b"]);
        assert_eq!(next(&mut lines), "serving");
        let client = example("request_reply");
        let elsewhere = |script: &str| {
            let words = ["--pid", "--fork", "sh", "-c", script, client.to_str().unwrap()];
            let output = run(Command::new("unshare").args(words));
            assert!(!output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        let said = elsewhere("$0 client 0x2b hello; exit $?");
        assert!(said.contains("another PID namespace"), "{said}");
        let said = elsewhere("exec $0 client 0x2b hello");
        assert!(said.contains("process 1"), "{said}");
        assert_eq!(ok("request_reply", &["client", "0x2b", "hello"]), "HELLO 0\n");
    });
}

#[test]
fn priorities_come_in_their_order_and_are_announced() {
    isolated(|| {
        for (priority, text) in [("1", "low"), ("9", "high"), ("1", "low too")] {
            ok("priorities", &["send", "/yard", priority, text]);
        }
        assert_eq!(ok("priorities", &["recv", "/yard"]), "9 high\n");
        assert_eq!(ok("priorities", &["try-recv", "/yard"]), "1 low\n");
        assert_eq!(ok("priorities", &["recv-within", "/yard", "5000"]), "1 low too\n");
        fails(1, "EAGAIN", "priorities", &["try-recv", "/yard"]);
        fails(1, "ETIMEDOUT", "priorities", &["recv-within", "/yard", "20"]);
        fails(1, "begins with a slash", "priorities", &["recv", "yard"]);
        for (how, told) in
            [("on-signal", "told by signal, payload 42"), ("on-thread", "told by thread mq_notify")]
        {
            let (listener, mut lines) = start("priorities", &[how, "/yard"]);
            assert_eq!(next(&mut lines), "registered");
            fails(1, &format!("process {} is registered", listener.pid()), "priorities", &[how, "/yard"]);
            ok("priorities", &["send", "/yard", "3", "news"]);
            assert!(next(&mut lines).starts_with(told));
            assert_eq!(next(&mut lines), "3 news");
            listener.assert_ok();
        }
        ok("priorities", &["remove", "/yard"]);
    });
}

#[test]
fn task_queue_loses_and_doubles_nothing_when_a_worker_dies_between_tasks() {
    isolated(|| {
        let mut workers: Vec<_> = (0..3).map(|_| start("task_queue", &["work", "0x2c"])).collect();
        let idle = |workers: &[(Spawned, Lines<BufReader<ChildStdout>>)]| {
            workers.iter().for_each(|(worker, _)| wait_blocked_in(worker.pid(), libc::SYS_msgrcv));
        };
        ok("task_queue", &["produce", "0x2c", "60"]);
        let queue = SysvQueue::open(0x2c).unwrap();
        wait_until("all tasks are taken", || queue.status().unwrap().messages == 0);
        idle(&workers);
        let (killed, killed_lines) = workers.remove(1);
        killed.kill();
        killed.wait();
        ok("task_queue", &["produce", "0x2c", "60", "60"]);
        ok("task_queue", &["finish", "0x2c", "2"]);
        let mut done = BTreeMap::new();
        let lines = workers.into_iter().flat_map(|(worker, lines)| {
            let lines: Vec<_> = lines.map(Result::unwrap).collect();
            worker.assert_ok();
            lines
        });
        for line in killed_lines.map(Result::unwrap).chain(lines) {
            let task: u32 = line.strip_prefix("did ").unwrap().parse().unwrap();
            *done.entry(task).or_insert(0) += 1;
        }
        assert_eq!(done, (0..120).map(|task| (task, 1)).collect());
        ok("task_queue", &["remove", "0x2c"]);
    });
}

#[test]
fn direct_mailboxes_go_with_their_process_and_ports_do_not() {
    isolated(|| {
        let (owner, mut lines) = start("direct_indirect", &["own"]);
        let pid = next(&mut lines);
        assert_eq!(pid, owner.pid().to_string());
        ok("direct_indirect", &["tell", &pid, "hello"]);
        assert_eq!(next(&mut lines), "hello");
        assert_eq!(ok("direct_indirect", &["meet", &pid, "face to face"]), format!("received by {pid}\n"));
        assert_eq!(next(&mut lines), "face to face");

        // Rendezvous waits for a receiver that does not receive, and asynchronous does not.
        owner.signal(libc::SIGSTOP);
        let (meeting, mut met) = start("direct_indirect", &["meet", &pid, "take your time"]);
        wait_blocked_in(meeting.pid(), libc::SYS_ppoll);
        ok("direct_indirect", &["tell", &pid, "bye"]);
        assert!(meeting.is_alive());
        owner.signal(libc::SIGCONT);
        assert_eq!(next(&mut met), format!("received by {pid}"));
        meeting.assert_ok();
        assert_eq!((next(&mut lines), next(&mut lines)), ("take your time".into(), "bye".into()));
        owner.assert_ok();
        fails(1, "ECONNREFUSED", "direct_indirect", &["tell", &pid, "too late"]);

        let (owner, mut lines) = start("direct_indirect", &["own"]);
        let pid = next(&mut lines);
        owner.signal(libc::SIGSTOP);
        let meeting = spawn(command("direct_indirect", &["meet", &pid, "x"]).stderr(Stdio::piped()));
        wait_blocked_in(meeting.pid(), libc::SYS_ppoll);
        owner.kill();
        owner.wait();
        let output = meeting.wait_with_output();
        assert_eq!(output.status.code(), Some(1), "who waits for the dead is told");

        let receivers: Vec<_> = (0..3).map(|_| start("direct_indirect", &["port-recv", "0x2d"])).collect();
        for text in ["a", "b", "c"] {
            ok("direct_indirect", &["port-send", "0x2d", text]);
        }
        let mut got: Vec<_> = receivers
            .into_iter()
            .map(|(receiver, mut lines)| {
                let text = next(&mut lines);
                receiver.assert_ok();
                text
            })
            .collect();
        got.sort();
        assert_eq!(got, ["a", "b", "c"]);
    });
}

#[test]
fn datagrams_are_answered_over_udp_and_unix() {
    isolated(|| {
        let dir = temp_dir();
        let path = format!("unix-dgram:{}/s", dir.path().display());
        for endpoint in ["udp:127.0.0.1:0", "udp:[::1]:0", "unix-dgram:@upper", &path] {
            let (server, mut lines) = start("datagram", &["serve", endpoint]);
            let at = next(&mut lines);
            for _ in 0..2 {
                assert_eq!(ok("datagram", &["ask", &at, "hello"]), "HELLO\n");
            }
            server.kill();
            server.wait();
            fails(1, "ECONNREFUSED", "datagram", &["ask", &at, "hello"]);
        }
        // The file of the killed one is replaced.
        let (_server, mut lines) = start("datagram", &["serve", &path]);
        assert_eq!(next(&mut lines), path);
        fails(1, "alive", "datagram", &["serve", &path]);
        fails(1, "did you mean udp", "datagram", &["ask", "upd:localhost:9", "x"]);
        fails(2, "usage", "datagram", &["ask", "tcp:localhost:9", "x"]);
    });
}

#[test]
fn an_open_file_is_passed_and_its_giver_known() {
    isolated(|| {
        let dir = temp_dir();
        let file = dir.path().join("letter");
        std::fs::write(&file, "dear neighbour\n").unwrap();
        let (taker, mut lines) = start("pass_descriptor", &["take", "@hatch"]);
        assert_eq!(next(&mut lines), "waiting at @hatch");
        let (giver, _) = start("pass_descriptor", &["give", "@hatch", file.to_str().unwrap()]);
        assert_eq!(next(&mut lines), format!("from process {} of user 0", giver.pid()));
        assert_eq!(next(&mut lines), "with my compliments");
        assert_eq!(next(&mut lines), "dear neighbour");
        taker.assert_ok();
        giver.assert_ok();
        fails(1, "nobody has this name", "pass_descriptor", &["give", "@hatch", file.to_str().unwrap()]);
        fails(1, "absent", "pass_descriptor", &["give", "@hatch", "/absent"]);
    });
}

#[test]
fn ping_reaches_this_host_and_says_what_right_is_missing() {
    isolated(|| {
        for host in ["127.0.0.1", "::1", "localhost"] {
            let said = ok("ping", &[host, "2"]);
            assert!(said.contains("raw socket") && said.ends_with("2 of 2\n"), "{said}");
        }
        let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let as_nobody = |words_of_ping: &[&str]| {
            // Beside the test, where nobody may look.
            let mut command = Command::new("setpriv");
            command.args(words).arg(example("ping")).args(words_of_ping);
            run(&mut command)
        };
        let output = as_nobody(&["127.0.0.1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("CAP_NET_RAW") && said.contains("ping_group_range"), "{said}");
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let output = as_nobody(&["127.0.0.1", "1"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("ping socket"));
        fails(1, "ENETUNREACH", "ping", &["192.0.2.1"]);
    });
}
