//! `ginnel peek`.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use ginnel::message::{PosixQueue, SysvQueue, UnixDatagram};
use ginnel::stream::Fifo;
use ginnel_testkit::{isolated, run, spawn, unprivileged, wait_blocked_in};

use crate::support::{fails, failures, ginnel, json_lines, ok, start, wrong_usage};

#[test]
fn a_queue_is_shown_and_keeps_its_messages() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        for (message_type, text) in [(5, &b"one"[..]), (3, b"two\n"), (8, b"\xff")] {
            queue.send(message_type, text).unwrap();
        }
        let output = run(&mut ginnel(&["peek", "sysv-msg:0x2a"]));
        assert_eq!(output.stdout, b"0\t5\tone\n1\t3\ttwo\n2\t8\t\xff\n");
        assert_eq!(ok(&["peek", "sysv-msg:0x2a", "--index", "1"]), "1\t3\ttwo\n");
        assert_eq!(ok(&["peek", "sysv-msg:0x2a", "--count", "1"]), "0\t5\tone\n");
        let lines = json_lines(&ok(&["peek", "sysv-msg:0x2a", "--json"]));
        assert_eq!((&lines[2]["index"], &lines[2]["message_type"]), (&2.into(), &8.into()));
        assert_eq!(lines[2]["hex"], "ff");
        assert_eq!(queue.status().unwrap().messages, 3);
        failures(&[
            (&["peek", "sysv-msg:0x2a", "--index", "3"], &["no message 3", "it holds 3 messages"]),
            (&["peek", "sysv-msg:0x2b"], &["ENOENT", "ginnel create"]),
        ]);
    });
}

#[test]
fn what_cannot_be_looked_into_shows_its_state() {
    isolated(|| {
        let queue = PosixQueue::create("/jobs").unwrap();
        queue.send(1, b"hello").unwrap();
        let output = run(&mut ginnel(&["peek", "posix-mq:/jobs"]));
        assert!(output.status.success());
        assert_eq!(output.stdout, b"posix-mq:/jobs: 1 message, 5 B\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("receivers only"));
        let state = json_lines(&ok(&["peek", "posix-mq:/jobs", "--json"])).remove(0);
        assert_eq!((&state["messages"], &state["messages_max"]), (&1.into(), &10.into()));

        ok(&["create", "posix-sem:/s", "--value", "3"]);
        assert_eq!(ok(&["peek", "posix-sem:/s"]), "posix-sem:/s: value 3, not in use\n");
        ok(&["create", "sysv-sem:0x2a", "--value", "1,7"]);
        assert_eq!(ok(&["peek", "sysv-sem:0x2a"]), "sysv-sem:0x2a: values 1,7\n");
        assert_eq!(ok(&["peek", "sysv-sem:0x2a[1]"]), "sysv-sem:0x2a[1]: value 7\n");
        assert_eq!(queue.status().unwrap().messages, 1);
        failures(&[(&["peek", "sysv-sem:0x2a[2]"], &["EINVAL"]), (&["peek", "posix-mq:/none"], &["ENOENT"])]);
    });
}

#[test]
fn a_fifo_keeps_its_bytes() {
    isolated(|| {
        let fifo = Fifo::create("/dev/shm/a").unwrap();
        let (mut reader, mut writer) = fifo.open_both().unwrap();
        writer.write_all(b"knock knock\n").unwrap();
        assert_eq!(ok(&["peek", "fifo:/dev/shm/a"]), "knock knock\n");
        assert_eq!(ok(&["peek", "fifo:/dev/shm/a", "--length", "5"]), "knock");
        let bytes = json_lines(&ok(&["peek", "fifo:/dev/shm/a", "--json"])).remove(0);
        assert_eq!(bytes["text"], "knock knock\n");
        let mut buffer = [0; 64];
        assert_eq!(std::io::Read::read(&mut reader, &mut buffer).unwrap(), 12);
        assert_eq!(ok(&["peek", "fifo:/dev/shm/a"]), "");
    });
}

#[test]
fn another_processs_pipe_is_looked_into() {
    isolated(|| {
        let mut command = Command::new("sleep");
        let mut sleeper = spawn(command.arg("1000").stdin(Stdio::piped()));
        let mut input = sleeper.stdin().unwrap();
        input.write_all(b"unread").unwrap();
        let endpoint = format!("fifo:/proc/{}/fd/0", sleeper.pid());
        assert_eq!(ok(&["peek", &endpoint]), "unread");
        assert_eq!(ok(&["peek", &endpoint]), "unread");
    });
}

#[test]
fn a_datagram_waits_on() {
    isolated(|| {
        for name in ["/dev/shm/d", "@d"] {
            let endpoint = format!("unix-dgram:{name}");
            // The receiver is another process: it has the socket as its standard input.
            let (sender, socket) = (UnixDatagram::unbound().unwrap(), UnixDatagram::bind(name).unwrap());
            let mut command = Command::new("sleep");
            let inherited = socket.as_fd().try_clone_to_owned().unwrap();
            let _receiver = spawn(command.arg("1000").stdin(inherited));
            drop(command);
            assert_eq!(ok(&["peek", &endpoint]), "");
            sender.send_to(b"first", name).unwrap();
            sender.send_to(b"second", name).unwrap();
            assert_eq!(ok(&["peek", &endpoint]), "first\n");
            assert_eq!(json_lines(&ok(&["peek", &endpoint, "--json"]))[0]["text"], "first");
            assert_eq!(socket.recv_vec().unwrap(), b"first");
        }
        failures(&[(&["peek", "unix-dgram:/dev/shm/none"], &["no socket is bound"])]);
        let receiver = start(&["recv", "unix-dgram:@mine"]);
        wait_blocked_in(receiver.pid(), libc::SYS_recvfrom);
        unprivileged(|| {
            assert!(fails(1, &["peek", "unix-dgram:@mine"]).contains("cannot be seen"));
        })
        .assert_ok();
    });
}

#[test]
fn a_look_does_not_let_a_waiting_writer_go_on() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        let writer = spawn(Command::new("sh").args(["-c", "echo hello >/dev/shm/a"]));
        wait_blocked_in(writer.pid(), libc::SYS_openat);
        let output = run(&mut ginnel(&["peek", "fifo:/dev/shm/a"]));
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
        assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"));
        wait_blocked_in(writer.pid(), libc::SYS_openat);
        assert_eq!(ok(&["recv", "fifo:/dev/shm/a"]), "hello\n");
        writer.assert_ok();
    });
}

#[test]
fn memory_is_dumped() {
    isolated(|| {
        std::fs::write("/dev/shm/x", [b"hello\n", &[0xff; 1000][..]].concat()).unwrap();
        let dump = ok(&["peek", "posix-shm:/x"]);
        assert_eq!(dump.lines().count(), 16);
        assert!(dump.starts_with("00000000  68 65 6c 6c 6f 0a ff ff  ff"), "{dump}");
        assert!(dump.lines().next().unwrap().ends_with("|hello...........|"), "{dump}");
        let dump = ok(&["peek", "file:/dev/shm/x", "--offset", "4", "--length", "3"]);
        assert!(dump.starts_with("00000004  6f 0a ff "), "{dump}");
        assert_eq!(ok(&["peek", "file:/dev/shm/x#4+3"]), dump);
        ok(&["create", "sysv-shm:0x2a", "--size", "4096"]);
        assert_eq!(ok(&["peek", "sysv-shm:0x2a"]).lines().count(), 16);
        assert_eq!(json_lines(&ok(&["peek", "sysv-shm:0x2a", "--json"]))[0]["bytes"], 256);
    });
}

#[test]
fn what_means_nothing_is_refused() {
    isolated(|| {
        wrong_usage(&[
            (&["peek", "unix-seqpacket:/a"], "ginnel recv"),
            (&["peek", "tcp:a:1"], "ginnel recv"),
            (&["peek", "icmp:a"], "nothing waits"),
            (&["peek", "signal:1"], "nothing waits"),
            (&["peek", "posix-mq:/a", "--index", "1"], "--index and --count are for sysv-msg"),
            (&["peek", "fifo:/a", "--offset", "1"], "--offset is for memory"),
            (&["peek", "sysv-msg:1", "--length", "1"], "--length is for memory and FIFOs"),
        ]);
        ok(&["create", "sysv-msg:0x2a"]);
        ok(&["create", "posix-shm:/a", "--size", "8"]);
        unprivileged(|| {
            for endpoint in ["sysv-msg:0x2a", "posix-shm:/a"] {
                assert!(fails(1, &["peek", endpoint]).contains("EACCES"));
            }
        })
        .assert_ok();
    });
}

#[test]
fn a_reader_that_goes_away_is_success() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        (0..1000).for_each(|_| queue.send(1, b"0123456789").unwrap());
        let command = format!("{} peek sysv-msg:0x2a; echo $? >&2", env!("CARGO_BIN_EXE_ginnel"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{{ {command}; }} | head -1")]);
        let running = spawn(shell.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let output = running.wait_with_output();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"0\t1\t0123456789\n"[..], &b"0\n"[..]));
    });
}
