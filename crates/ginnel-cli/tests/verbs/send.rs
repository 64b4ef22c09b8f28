//! `ginnel send`.

use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use ginnel::message::{PosixQueue, Select, SysvQueue, UnixSeqpacketListener};
use ginnel::notify::{Signal, SignalSet};
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use ginnel_testkit::{fork, isolated, run, spawn, temp_dir, unprivileged, wait_blocked_in};

use crate::support::{failed, fails, failures, fed, finished, ginnel, ok, start, wrong_usage};

fn messages(queue: &SysvQueue) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    while let Ok(message) = queue.recv_vec_deadline(Select::Any, ginnel::Deadline::NOW) {
        all.push((message.message_type, String::from_utf8(message.payload).unwrap()));
    }
    all
}

#[test]
fn each_argument_is_a_message() {
    isolated(|| {
        ok(&["send", "sysv-msg:0x2a", "--create", "one", "two words", ""]);
        ok(&["send", "sysv-msg:0x2a", "--type", "7", "--count", "2", "again"]);
        let queue = SysvQueue::open(0x2a).unwrap();
        let expected = [(1, "one"), (1, "two words"), (1, ""), (7, "again"), (7, "again")];
        assert_eq!(messages(&queue), expected.map(|(kind, text)| (kind, text.to_string())));
    });
}

#[test]
fn standard_input_is_one_message_or_one_a_line() {
    isolated(|| {
        ok(&["create", "sysv-msg:0x2a"]);
        fed(&["send", "sysv-msg:0x2a"], b"a\nb\n");
        fed(&["send", "sysv-msg:0x2a", "--lines"], b"c\n\nlast");
        fed(&["send", "sysv-msg:0x2a", "--lines", "--count", "2"], b"x\ny\n");
        let queue = SysvQueue::open(0x2a).unwrap();
        let texts: Vec<String> = messages(&queue).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a\nb\n", "c", "", "last", "x", "y", "x", "y"]);
    });
}

#[test]
fn any_bytes_are_a_message() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe\n");
        let mut command = ginnel(&["send", "sysv-msg:0x2a"]);
        assert!(run(command.arg::<&std::ffi::OsStr>(bytes)).status.success());
        assert_eq!(queue.recv_vec(Select::Any).unwrap().payload, b"\xff\xfe\n");
    });
}

#[test]
fn lines_are_sent_as_they_come() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let mut command = ginnel(&["send", "sysv-msg:0x2a", "--lines"]);
        let mut sender = spawn(command.stdin(Stdio::piped()));
        let mut input = sender.stdin().unwrap();
        for text in ["first", "second"] {
            std::io::Write::write_all(&mut input, format!("{text}\n").as_bytes()).unwrap();
            assert_eq!(queue.recv_vec(Select::Any).unwrap().payload, text.as_bytes());
        }
        drop(input);
        sender.assert_ok();
    });
}

#[test]
fn posix_queues_have_priorities() {
    isolated(|| {
        ok(&["send", "posix-mq:/jobs", "--create", "low"]);
        ok(&["send", "posix-mq:/jobs", "--priority", "9", "high"]);
        let queue = PosixQueue::open("/jobs").unwrap();
        let first = queue.recv_vec().unwrap();
        assert_eq!((first.priority, first.payload.as_slice()), (9, &b"high"[..]));
        assert_eq!(queue.recv_vec().unwrap().priority, 0);
    });
}

#[test]
fn a_stream_gets_a_newline_after_each_message() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("a").display().to_string();
        let fifo = format!("fifo:{path}");
        ok(&["create", &fifo]);
        let read = |args: &[&str], input: &[u8]| {
            let reader = spawn(Command::new("cat").arg(&path).stdout(Stdio::piped()));
            fed(args, input);
            finished(reader)
        };
        assert_eq!(read(&["send", &fifo, "one", "two"], b""), "one\ntwo\n");
        assert_eq!(read(&["send", &fifo, "-n", "one", "two"], b""), "onetwo");
        assert_eq!(read(&["send", &fifo], b"as\nit is"), "as\nit is");
        assert_eq!(read(&["send", &fifo, "--lines", "-n"], b"a\nb\n"), "ab");
        let large = vec![b'x'; 1 << 20];
        let counter = spawn(Command::new("wc").args(["-c", &path]).stdout(Stdio::piped()));
        fed(&["send", &fifo], &large);
        assert!(finished(counter).starts_with("1048576 "));
    });
}

#[test]
fn sockets_of_every_kind() {
    isolated(|| {
        let directory = temp_dir();
        let path = |name: &str| directory.path().join(name).display().to_string();

        let socket = UnixDatagram::bind(path("d")).unwrap();
        ok(&["send", &format!("unix-dgram:{}", path("d")), "one", ""]);
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 3);
        assert_eq!(socket.recv(&mut buffer).unwrap(), 0);

        let listener = UnixSeqpacketListener::bind("@ginnel-test").unwrap();
        ok(&["send", "unix-seqpacket:@ginnel-test", "one", "two"]);
        let client = listener.accept().unwrap();
        assert_eq!(client.recv_vec().unwrap().unwrap(), b"one");
        assert_eq!(client.recv_vec().unwrap().unwrap(), b"two");
        assert_eq!(client.recv_vec().unwrap(), None);

        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        ok(&["send", &format!("udp:{}", socket.local_addr().unwrap()), "datagram"]);
        assert_eq!(socket.recv(&mut buffer).unwrap(), 8);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        ok(&["send", &format!("tcp:{}", listener.local_addr().unwrap()), "bytes"]);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes\n");

        let listener = UnixListener::bind(path("s")).unwrap();
        ok(&["send", &format!("unix:{}", path("s")), "bytes"]);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes\n");
    });
}

#[test]
fn a_greeting_of_the_server_does_not_lose_what_is_sent() {
    isolated(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = start(&["send", &format!("tcp:{}", listener.local_addr().unwrap()), "hello"]);
        let (mut socket, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut socket, b"220 at your service\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
        finished(sender);
    });
}

#[test]
fn a_terminal_shows_what_is_sent() {
    isolated(|| {
        let pty = ginnel::stream::Pty::options().raw(true).open().unwrap();
        ok(&["send", &format!("pty:{}", pty.path().display()), "wall"]);
        let mut buffer = [0; 64];
        let len = ginnel::stream::ByteRead::try_read(&pty, &mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"wall\n");
        failures(&[(&["send", "pty:/dev/null", "x"], &["pty:/dev/null", "ENOTTY", "no terminal"])]);
    });
}

#[test]
fn memory_is_written_in_place() {
    isolated(|| {
        ok(&["create", "posix-shm:/x", "--size", "16"]);
        ok(&["send", "posix-shm:/x", "hello"]);
        fed(&["send", "posix-shm:/x", "--offset", "11"], b"world");
        assert_eq!(std::fs::read("/dev/shm/x").unwrap(), b"hello\0\0\0\0\0\0world");

        ok(&["send", "sysv-shm:0x2a", "--create", "segment"]);
        assert_eq!(ok(&["recv", "sysv-shm:0x2a", "--length", "7"]), "segment");

        ok(&["send", "file:/dev/shm/f", "--create", "0123456789"]);
        ok(&["send", "file:/dev/shm/f#4+2", "xy"]);
        assert_eq!(std::fs::read("/dev/shm/f").unwrap(), b"0123xy6789");
        failures(&[
            (&["send", "file:/dev/shm/f#4+2", "xyz"], &["3 bytes do not fit", "room for 2"]),
            (&["send", "posix-shm:/x", "--offset", "12", "world"], &["do not fit", "room for 4"]),
            (&["send", "posix-shm:/x", "--offset", "1G", "w"], &["do not fit", "room for 0"]),
            (&["send", "posix-shm:/none", "w"], &["ENOENT", "ginnel create posix-shm:/none"]),
            (&["send", "sysv-shm:0x2b", "w"], &["ENOENT", "ginnel create sysv-shm:0x2b"]),
            (&["send", "file:/dev/shm/none", "w"], &["ENOENT", "ginnel create file:/dev/shm/none"]),
        ]);
        assert_eq!(std::fs::read("/dev/shm/f").unwrap(), b"0123xy6789");
    });
}

#[test]
fn semaphores_are_posted() {
    isolated(|| {
        ok(&["send", "posix-sem:/s", "--create", "--count", "3"]);
        assert_eq!(PosixSemaphore::open("/s").unwrap().value().unwrap(), 3);
        ok(&["send", "sysv-sem:0x2a[1]", "--create", "--count", "5"]);
        ok(&["send", "sysv-sem:0x2a"]);
        assert_eq!(SysvSemaphores::open(0x2a).unwrap().values().unwrap(), [1, 5]);
        failures(&[
            (&["send", "posix-sem:/none"], &["ENOENT", "ginnel create posix-sem:/none"]),
            (&["send", "sysv-sem:0x2b"], &["ENOENT", "ginnel create sysv-sem:0x2b"]),
            (&["send", "sysv-sem:0x2a[2]"], &["EFBIG"]),
            (&["send", "sysv-sem:0x2a", "--count", "32767"], &["ERANGE"]),
        ]);
    });
}

#[test]
fn a_signal_is_sent_by_its_name() {
    isolated(|| {
        let child = fork(|| {
            let _blocked = (Signal::USR1 | Signal::TERM).block().unwrap();
            let info = SignalSet::from(Signal::USR1).wait().unwrap();
            assert_eq!(info.payload.unwrap().int(), -3);
            SignalSet::from(Signal::TERM).wait().unwrap();
        });
        wait_blocked_in(child.pid(), libc::SYS_rt_sigtimedwait);
        let target = format!("signal:{}", child.pid());
        ok(&["send", &target, "USR1", "--value", "-3"]);
        ok(&["send", &target]);
        child.assert_ok();
        wrong_usage(&[(&["send", &target, "USR17"], "USR17")]);
    });
}

#[test]
fn echoes_come_back_with_their_time() {
    isolated(|| {
        let text = ok(&["send", "icmp:127.0.0.1", "--count", "2", "--timeout", "10s", "12345"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("5 bytes from 127.0.0.1: sequence 0, "), "{text}");
        assert!(lines[1].contains("sequence 1, "), "{text}");
    });
}

#[test]
fn what_means_nothing_is_refused_with_what_does() {
    isolated(|| {
        wrong_usage(&[
            (&["send", "sysv-msg:1", "--priority", "1", "x"], "a System V message has a --type"),
            (&["send", "posix-mq:/a", "--type", "1", "x"], "a POSIX message has a --priority"),
            (&["send", "udp:a:1", "--type", "1", "x"], "--type is for sysv-msg"),
            (&["send", "udp:a:1", "--priority", "1", "x"], "--priority is for posix-mq"),
            (&["send", "udp:a:1", "--value", "1", "x"], "--value is for signal"),
            (&["send", "udp:a:1", "--offset", "1", "x"], "--offset is for memory"),
            (&["send", "posix-shm:/a", "--count", "2", "x"], "written once"),
            (&["send", "posix-sem:/a", "x"], "--count N adds N units"),
            (&["send", "signal:1", "USR1", "x"], "carries no bytes"),
            (&["send", "lock:/a"], "ginnel lock FILE"),
            (&["send", "flock:/a"], "ginnel lock FILE"),
            (&["send", "unix-dgram:/a", "--create", "x"], "ginnel recv --create"),
            (&["send", "tcp:a:1", "--create", "x"], "ginnel recv --create"),
            (&["send", "sysv-msg:id=3", "--create", "x"], "the kernel chooses ids"),
            (&["send", "sysv-mgs:1", "x"], "did you mean sysv-msg?"),
            (&["send", "jobs", "x"], "KIND:NAME"),
            (&["send", "posix-mq:jobs", "x"], "posix-mq:/jobs"),
            (&["send", "sysv-msg:1", "--timeout", "soon", "x"], "500ms"),
            (&["send", "sysv-msg:1", "--count", "0", "x"], "--count"),
            (&["send", "sysv-msg:1", "--lines", "x"], "--lines"),
        ]);
    });
}

#[test]
fn missing_objects_and_peers() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        drop(UnixListener::bind("/dev/shm/stale").unwrap());
        drop(UnixDatagram::bind("/dev/shm/stale-dgram").unwrap());
        failures(&[
            (
                &["send", "sysv-msg:0x2a", "x"],
                &["sysv-msg:0x2a: msgget", "ENOENT", "ginnel create sysv-msg:0x2a"],
            ),
            (&["send", "sysv-msg:id=77", "x"], &["EINVAL", "removed"]),
            (&["send", "posix-mq:/none", "x"], &["mq_open", "ENOENT", "ginnel create posix-mq:/none"]),
            (&["send", "fifo:/dev/shm/none", "x"], &["ENOENT", "ginnel create fifo:/dev/shm/none"]),
            (&["send", "fifo:/dev/shm/a", "--timeout", "0", "x"], &["ENXIO", "start the reader"]),
            (&["send", "fifo:/dev/shm/a", "--timeout", "5ms", "x"], &["ETIMEDOUT", "--timeout"]),
            (&["send", "unix:/dev/shm/none", "x"], &["ENOENT", "ginnel recv --create unix:/dev/shm/none"]),
            (&["send", "unix:/dev/shm/stale", "x"], &["ECONNREFUSED", "ginnel recv --create"]),
            (&["send", "unix-dgram:/dev/shm/none", "x"], &["ENOENT", "ginnel recv"]),
            (&["send", "unix-dgram:/dev/shm/stale-dgram", "x"], &["ECONNREFUSED", "ginnel recv"]),
            (&["send", "unix-seqpacket:@none", "x"], &["ECONNREFUSED", "ginnel recv"]),
            (&["send", "tcp:127.0.0.1:9", "x"], &["ECONNREFUSED", "ginnel recv"]),
            (&["send", "udp:127.0.0.1:9", "x"], &["ECONNREFUSED", "ginnel recv"]),
            (&["send", "pty:/dev/pts/999", "x"], &["ENOENT"]),
            (&["send", "signal:999999", "USR1"], &["ESRCH", "no such process"]),
        ]);
        std::fs::write("/dev/shm/file", "").unwrap();
        failures(&[(&["send", "fifo:/dev/shm/file", "x"], &["fifo:/dev/shm/file", "regular file"])]);
    });
}

#[test]
fn too_large_a_message_names_the_limit() {
    isolated(|| {
        ok(&["create", "sysv-msg:0x2a"]);
        ok(&["create", "posix-mq:/small", "--message-size", "8"]);
        let large = "x".repeat(9000);
        failures(&[
            (&["send", "sysv-msg:0x2a", &large], &["EINVAL", "9000 bytes", "kernel.msgmax is 8192"]),
            (&["send", "posix-mq:/small", "123456789"], &["EMSGSIZE"]),
        ]);
        let listener = UnixSeqpacketListener::bind("@large").unwrap();
        let socket = UnixDatagram::bind("/dev/shm/large").unwrap();
        let huge = vec![b'x'; 1 << 20];
        for endpoint in ["unix-seqpacket:@large", "unix-dgram:/dev/shm/large", "udp:127.0.0.1:9"] {
            std::fs::write("/dev/shm/huge", &huge).unwrap();
            let input = std::fs::File::open("/dev/shm/huge").unwrap();
            let args = ["send", endpoint];
            let stderr = failed(1, &args, &run(ginnel(&args).stdin(input)));
            assert!(stderr.contains("EMSGSIZE"), "{stderr}");
        }
        drop((listener, socket));
    });
}

#[test]
fn a_full_queue_waits_until_the_timeout() {
    isolated(|| {
        ok(&["create", "posix-mq:/full", "--messages", "1"]);
        ok(&["send", "posix-mq:/full", "x"]);
        ok(&["create", "sysv-msg:0x2a", "--bytes-max", "4"]);
        ok(&["send", "sysv-msg:0x2a", "full"]);
        failures(&[
            (&["send", "posix-mq:/full", "--timeout", "0", "x"], &["EAGAIN", "--timeout is 0"]),
            (&["send", "posix-mq:/full", "--timeout", "5ms", "x"], &["ETIMEDOUT", "--timeout passed"]),
            (&["send", "sysv-msg:0x2a", "--timeout", "0", "x"], &["EAGAIN", "--timeout is 0"]),
            (&["send", "sysv-msg:0x2a", "--timeout", "5ms", "x"], &["ETIMEDOUT", "--timeout passed"]),
        ]);
    });
}

#[test]
fn a_queue_that_is_removed_ends_the_wait() {
    isolated(|| {
        ok(&["create", "sysv-msg:0x2a", "--bytes-max", "4"]);
        ok(&["send", "sysv-msg:0x2a", "full"]);
        let args = ["send", "sysv-msg:0x2a", "more"];
        let sender = start(&args);
        wait_blocked_in(sender.pid(), libc::SYS_msgsnd);
        ok(&["rm", "--yes", "sysv-msg:0x2a"]);
        let stderr = failed(1, &args, &sender.wait_with_output());
        assert!(stderr.contains("EIDRM") && stderr.contains("removed"), "{stderr}");
    });
}

#[test]
fn a_dead_peer_is_told() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        let reader = spawn(Command::new("sleep").arg("1000").stdin(Stdio::null()));
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3</dev/shm/a; exec sleep 1000"]);
        let holder = spawn(&mut command);
        let mut command = ginnel(&["send", "fifo:/dev/shm/a"]);
        let mut sender = spawn(command.stdin(Stdio::piped()).stderr(Stdio::piped()));
        let mut input = sender.stdin().unwrap();
        wait_blocked_in(sender.pid(), libc::SYS_read);
        holder.kill();
        holder.wait();
        std::io::Write::write_all(&mut input, b"anybody?").unwrap();
        let stderr = failed(1, &["send"], &sender.wait_with_output());
        assert!(
            stderr.contains("fifo:/dev/shm/a") && stderr.contains("EPIPE") && stderr.contains("has gone"),
            "{stderr}"
        );
        drop(reader);

        let listener = UnixListener::bind("/dev/shm/s").unwrap();
        let mut command = ginnel(&["send", "unix:/dev/shm/s"]);
        let mut sender = spawn(command.stdin(Stdio::piped()).stderr(Stdio::piped()));
        let mut input = sender.stdin().unwrap();
        drop(listener.accept().unwrap());
        std::io::Write::write_all(&mut input, b"anybody?").unwrap();
        let stderr = failed(1, &["send"], &sender.wait_with_output());
        assert!(
            stderr.contains("unix:/dev/shm/s") && stderr.contains("EPIPE") && stderr.contains("has gone"),
            "{stderr}"
        );
    });
}

#[test]
fn missing_rights_are_named() {
    isolated(|| {
        for endpoint in
            ["sysv-msg:0x2a", "posix-mq:/a", "fifo:/dev/shm/fifo", "posix-sem:/a", "sysv-sem:0x2a"]
        {
            ok(&["create", endpoint]);
        }
        ok(&["create", "posix-shm:/a", "--size", "8"]);
        ok(&["create", "sysv-shm:0x2a", "--size", "8"]);
        let _listener = UnixListener::bind("/dev/shm/s").unwrap();
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0").unwrap();
        unprivileged(|| {
            for endpoint in [
                "sysv-msg:0x2a",
                "posix-mq:/a",
                "fifo:/dev/shm/fifo",
                "posix-shm:/a",
                "sysv-shm:0x2a",
                "unix:/dev/shm/s",
            ] {
                let stderr = fails(1, &["send", endpoint, "--timeout", "0", "x"]);
                assert!(stderr.contains("EACCES") && stderr.contains(endpoint), "{stderr}");
            }
            for endpoint in ["posix-sem:/a", "sysv-sem:0x2a"] {
                let stderr = fails(1, &["send", endpoint]);
                assert!(stderr.contains("EACCES"), "{stderr}");
            }
            let stderr = fails(1, &["send", "signal:1", "TERM"]);
            assert!(stderr.contains("EPERM"), "{stderr}");
            let stderr = fails(1, &["send", "icmp:127.0.0.1"]);
            assert!(stderr.contains("CAP_NET_RAW"), "{stderr}");
        })
        .assert_ok();
    });
}

#[test]
fn waiting_for_a_reader_is_ended_by_one() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/fifo"]);
        let sender = start(&["send", "fifo:/dev/shm/fifo", "hello"]);
        wait_blocked_in(sender.pid(), libc::SYS_open);
        assert_eq!(ok(&["recv", "fifo:/dev/shm/fifo"]), "hello\n");
        finished(sender);
    });
}
