//! `ginnel recv`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use ginnel::message::{PosixQueue, SysvQueue, UnixSeqpacket};
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use ginnel_testkit::{
    Exit, Objects, Spawned, isolated, run, spawn, temp_dir, unprivileged, wait_blocked_in, wait_until,
};

use crate::support::{failed, fails, failures, finished, ginnel, json_lines, ok, start, wrong_usage};

#[test]
fn the_type_selects() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let refill = || {
            for message_type in [5, 3, 8] {
                queue.send(message_type, message_type.to_string().as_bytes()).unwrap();
            }
        };
        let take = |select: &str| ok(&["recv", "sysv-msg:0x2a", "--timeout", "0", "--type", select]);
        refill();
        assert_eq!((take("8"), take("any"), take("3")), ("8\n".into(), "5\n".into(), "3\n".into()));
        refill();
        assert_eq!((take("<=6"), take("-6"), take("!5")), ("3\n".into(), "5\n".into(), "8\n".into()));
        let nothing = fails(1, &["recv", "sysv-msg:0x2a", "--timeout", "0"]);
        assert!(nothing.contains("ENOMSG") && nothing.contains("--timeout is 0"), "{nothing}");
    });
}

#[test]
fn json_has_numbers_text_and_hex() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        queue.send(7, "schön\n".as_bytes()).unwrap();
        queue.send(8, b"\xff\x00").unwrap();
        let lines = json_lines(&ok(&["recv", "sysv-msg:0x2a", "--count", "2", "--json"]));
        assert_eq!(
            lines[0],
            serde_json::json!({"endpoint": "sysv-msg:0x2a", "message_type": 7, "bytes": 7, "text": "schön\n"})
        );
        assert_eq!(
            lines[1],
            serde_json::json!({"endpoint": "sysv-msg:0x2a", "message_type": 8, "bytes": 2, "hex": "ff00"})
        );
        PosixQueue::create("/jobs").unwrap().send(9, b"x").unwrap();
        let lines = json_lines(&ok(&["recv", "posix-mq:/jobs", "--json"]));
        assert_eq!(lines[0]["priority"], 9);
    });
}

#[test]
fn a_newline_only_where_there_is_none() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let refill = || [&b"one"[..], b"two\n", b""].map(|text| queue.send(1, text).unwrap());
        refill();
        assert_eq!(ok(&["recv", "sysv-msg:0x2a", "--count", "3"]), "one\ntwo\n\n");
        refill();
        assert_eq!(ok(&["recv", "sysv-msg:0x2a", "--count", "3", "--raw"]), "onetwo\n");
    });
}

#[test]
fn one_message_is_taken_and_no_more() {
    isolated(|| {
        let queue = PosixQueue::create("/jobs").unwrap();
        let _ = [b"a", b"b", b"c"].map(|text| queue.send(0, text).unwrap());
        assert_eq!(ok(&["recv", "posix-mq:/jobs"]), "a\n");
        assert_eq!(queue.status().unwrap().messages, 2);
    });
}

#[test]
fn following_a_queue_goes_on() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        let mut receiver = start(&["recv", "sysv-msg:0x2a", "--follow"]);
        let mut lines = BufReader::new(receiver.stdout().unwrap()).lines();
        for text in ["one", "two", "three"] {
            queue.send(1, text.as_bytes()).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), text);
        }
        wait_blocked_in(receiver.pid(), libc::SYS_msgrcv);
        receiver.signal(libc::SIGINT);
        assert_eq!(receiver.wait(), Exit::Signal(libc::SIGINT));
    });
}

#[test]
fn a_stream_is_copied_to_its_end() {
    isolated(|| {
        let payload: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write("/dev/shm/payload", &payload).unwrap();
        let receiver = start(&["recv", "tcp:127.0.0.1:7000", "--create", "--timeout", "20s"]);
        wait_blocked_in(receiver.pid(), libc::SYS_ppoll);
        let collected = std::thread::spawn(move || receiver.wait_with_output().stdout);
        let input = std::fs::File::open("/dev/shm/payload").unwrap();
        assert!(run(ginnel(&["send", "tcp:127.0.0.1:7000"]).stdin(input)).status.success());
        assert!(collected.join().unwrap() == payload);
    });
}

#[test]
fn as_a_client_it_reads_what_the_server_says() {
    isolated(|| {
        let listener = UnixListener::bind("/dev/shm/s").unwrap();
        let receiver = start(&["recv", "unix:/dev/shm/s"]);
        let mut server = listener.accept().unwrap().0;
        server.write_all(b"220 welcome\r\nbye").unwrap();
        drop(server);
        assert_eq!(finished(receiver), "220 welcome\r\nbye");
    });
}

#[test]
fn lines_are_counted_and_the_rest_stays() {
    isolated(|| {
        let fifo = ginnel::stream::Fifo::create("/dev/shm/a").unwrap();
        let (_reader, mut writer) = fifo.open_both().unwrap();
        writer.write_all(b"one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(ok(&["recv", "fifo:/dev/shm/a", "--count", "2"]), "one\ntwo\n");
        let lines = json_lines(&ok(&["recv", "fifo:/dev/shm/a", "--count", "1", "--json"]));
        assert_eq!(lines[0]["text"], "three");
        assert_eq!(ok(&["recv", "fifo:/dev/shm/a", "--count", "1", "--raw"]), "four");
    });
}

#[test]
fn a_terminal_is_read_until_it_hangs_up() {
    isolated(|| {
        let pty = ginnel::stream::Pty::options().raw(true).open().unwrap();
        let endpoint = format!("pty:{}", pty.path().display());
        ginnel::stream::ByteWrite::try_write(&pty, b"typed\nand more").unwrap();
        assert_eq!(ok(&["recv", &endpoint, "--count", "1"]), "typed\n");
        let mut receiver = start(&["recv", &endpoint]);
        let mut words = [0; 8];
        receiver.stdout().unwrap().read_exact(&mut words).unwrap();
        assert_eq!(&words, b"and more");
        drop(pty);
        assert_eq!(receiver.wait(), Exit::Code(0));
    });
}

#[test]
fn an_end_before_the_last_line_is_a_failure() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        let receiver = start(&["recv", "fifo:/dev/shm/a", "--count", "3"]);
        std::fs::write("/dev/shm/a", "one\ntwo").unwrap();
        let output = receiver.wait_with_output();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"one\ntwo\n"[..]));
        assert!(String::from_utf8_lossy(&output.stderr).contains("the end came after 2 of 3"));
    });
}

#[test]
fn json_of_a_stream_is_a_line_a_line() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        let receiver = start(&["recv", "fifo:/dev/shm/a", "--json"]);
        std::fs::write("/dev/shm/a", "one\n\nlast").unwrap();
        let lines = json_lines(&finished(receiver));
        let texts: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["one", "", "last"]);
    });
}

#[test]
fn following_a_fifo_outlives_its_writers() {
    isolated(|| {
        let mut receiver = start(&["recv", "fifo:/dev/shm/a", "--create", "--follow"]);
        let mut lines = BufReader::new(receiver.stdout().unwrap()).lines();
        // In the open of the FIFO at the beginning, and in a poll after each end.
        for (text, call) in [("one", libc::SYS_open), ("two", libc::SYS_ppoll), ("three", libc::SYS_ppoll)] {
            wait_blocked_in(receiver.pid(), call);
            ok(&["send", "fifo:/dev/shm/a", text]);
            assert_eq!(lines.next().unwrap().unwrap(), text);
        }
        wait_blocked_in(receiver.pid(), libc::SYS_ppoll);
        let mut killed = spawn(
            Command::new("sh").args(["-c", "exec >/dev/shm/a; echo four; read x"]).stdin(Stdio::piped()),
        );
        let _open = killed.stdin().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "four");
        killed.kill();
        killed.wait();
        wait_blocked_in(receiver.pid(), libc::SYS_ppoll);
        assert!(receiver.is_alive());
    });
}

#[test]
fn a_slow_client_holds_nobody_up() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("s").display().to_string();
        for endpoint in [format!("unix:{path}"), "tcp:127.0.0.1:7000".to_string()] {
            let mut server = start(&["recv", &endpoint, "--create", "--follow", "--json"]);
            let mut lines = BufReader::new(server.stdout().unwrap()).lines();
            let connect = || -> Box<dyn Write> {
                match endpoint.strip_prefix("unix:") {
                    Some(path) => {
                        wait_until("the server listens", || UnixStream::connect(path).is_ok());
                        Box::new(UnixStream::connect(path).unwrap())
                    }
                    None => {
                        wait_until("the server listens", || TcpStream::connect("127.0.0.1:7000").is_ok());
                        Box::new(TcpStream::connect("127.0.0.1:7000").unwrap())
                    }
                }
            };
            let mut slow = connect();
            slow.write_all(b"half a ").unwrap();
            for text in ["one", "two"] {
                ok(&["send", &endpoint, text]);
                let line = json_lines(&lines.next().unwrap().unwrap()).remove(0);
                assert_eq!(line["text"], text);
                assert!(line["peer"].is_string(), "{line}");
            }
            slow.write_all(b"line\n").unwrap();
            assert_eq!(json_lines(&lines.next().unwrap().unwrap())[0]["text"], "half a line");
            server.signal(libc::SIGTERM);
            assert_eq!(server.wait(), Exit::Signal(libc::SIGTERM));
        }
        wait_until("the socket file is gone", || !Path::new(&path).exists());
    });
}

#[test]
fn seqpacket_and_datagram_sockets_keep_messages_apart() {
    isolated(|| {
        let receiver = start(&["recv", "unix-seqpacket:@s", "--create", "--count", "3", "--json"]);
        wait_until("the server listens", || {
            let Ok(client) = UnixSeqpacket::connect("@s") else { return false };
            let _ = [&b"one"[..], b"", b"three\n"].map(|text| client.send(text).unwrap());
            true
        });
        let lines = json_lines(&finished(receiver));
        assert_eq!(lines.iter().map(|line| line["bytes"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 0, 6]);
        assert_eq!(lines[0]["peer"], format!("process {}", std::process::id()));

        let receiver = start(&["recv", "udp:127.0.0.1:7000", "--count", "2", "--json"]);
        wait_blocked_in(receiver.pid(), libc::SYS_recvfrom);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = [&b""[..], &[b'x'; 60_000]].map(|text| sender.send_to(text, "127.0.0.1:7000").unwrap());
        let lines = json_lines(&finished(receiver));
        assert_eq!((&lines[0]["bytes"], &lines[1]["bytes"]), (&0.into(), &60_000.into()));
        assert_eq!(lines[0]["peer"], sender.local_addr().unwrap().to_string());

        let receiver = start(&["recv", "unix-dgram:/dev/shm/d", "--json"]);
        wait_until("the socket is bound", || Path::new("/dev/shm/d").exists());
        UnixDatagram::bind("/dev/shm/me").unwrap().send_to(b"x", "/dev/shm/d").unwrap();
        assert_eq!(json_lines(&finished(receiver))[0]["peer"], "/dev/shm/me");
        assert!(!Path::new("/dev/shm/d").exists());
    });
}

fn bound(endpoint: &str, file: &str) -> Spawned {
    let receiver = start(&["recv", endpoint, "--create"]);
    wait_until("the socket is bound", || Path::new(file).exists());
    receiver
}

#[test]
fn what_was_bound_is_removed_however_it_ends() {
    isolated(|| {
        let before = Objects::snapshot();
        for kind in ["unix", "unix-dgram", "unix-seqpacket"] {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
                let receiver = bound(&format!("{kind}:/dev/shm/s"), "/dev/shm/s");
                receiver.signal(signal);
                assert_eq!(receiver.wait(), Exit::Signal(signal));
                wait_until("the socket file is gone", || !Path::new("/dev/shm/s").exists());
            }
            let args = ["recv", &format!("{kind}:/dev/shm/s"), "--create", "--timeout", "5ms"];
            assert!(fails(1, &args).contains("ETIMEDOUT"));
            assert!(!Path::new("/dev/shm/s").exists());
        }
        let args = ["recv", "unix:/dev/shm/s", "--create", "--follow", "--timeout", "5ms"];
        assert!(fails(1, &args).contains("--timeout"));
        before.assert_same();
    });
}

#[test]
fn anothers_socket_is_neither_replaced_nor_removed() {
    isolated(|| {
        let live = UnixListener::bind("/dev/shm/s").unwrap();
        std::fs::write("/dev/shm/file", "precious").unwrap();
        for kind in ["unix", "unix-dgram", "unix-seqpacket"] {
            failures(&[
                (&["recv", &format!("{kind}:/dev/shm/s"), "--create"], &["/dev/shm/s", "EADDRINUSE"]),
                (&["recv", &format!("{kind}:/dev/shm/file"), "--create"], &["/dev/shm/file", "EADDRINUSE"]),
            ]);
        }
        assert!(UnixStream::connect("/dev/shm/s").is_ok());
        assert_eq!(std::fs::read("/dev/shm/file").unwrap(), b"precious");
        // A stale one, which a killed process has left, is replaced.
        drop(live);
        let receiver = start(&["recv", "unix:/dev/shm/s", "--create"]);
        wait_until("the server listens", || UnixStream::connect("/dev/shm/s").is_ok());
        assert_eq!(finished(receiver), "");
        assert!(!Path::new("/dev/shm/s").exists());
    });
}

#[test]
fn a_reader_that_goes_away_is_success() {
    isolated(|| {
        let queue = SysvQueue::create(0x2a).unwrap();
        (0..100).for_each(|_| queue.send(1, b"x").unwrap());
        let mut receiver = start(&["recv", "sysv-msg:0x2a", "--follow"]);
        let mut output = receiver.stdout().unwrap();
        output.read_exact(&mut [0; 2]).unwrap();
        drop(output);
        // It notices when it prints the next one.
        wait_until("it ends", || {
            let _ = queue.try_send(1, b"y");
            !receiver.is_alive()
        });
        let output = receiver.wait_with_output();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    });
}

#[test]
fn memory_is_printed_as_it_is() {
    isolated(|| {
        std::fs::write("/dev/shm/x", b"0123456789").unwrap();
        assert_eq!(ok(&["recv", "posix-shm:/x"]), "0123456789");
        assert_eq!(ok(&["recv", "posix-shm:/x", "--offset", "3", "--length", "2"]), "34");
        assert_eq!(ok(&["recv", "file:/dev/shm/x#7+2"]), "78");
        assert_eq!(ok(&["recv", "file:/dev/shm/x#7+0"]), "789");
        assert_eq!(json_lines(&ok(&["recv", "file:/dev/shm/x", "--json"]))[0]["text"], "0123456789");
        failures(&[
            (&["recv", "posix-shm:/x", "--offset", "11"], &["it has 10 bytes"]),
            (&["recv", "file:/dev/shm/x#7+4"], &["it has 10 bytes"]),
            (&["recv", "posix-shm:/none"], &["ENOENT", "ginnel create"]),
        ]);
        wrong_usage(&[(&["recv", "file:/dev/shm/x#7+4", "--offset", "1"], "in the endpoint already")]);
    });
}

#[test]
fn units_are_taken_all_or_none() {
    isolated(|| {
        let semaphore = PosixSemaphore::create("/s", 3).unwrap();
        let set = SysvSemaphores::create_with(0x2a, &[0, 3], ginnel::Deadline::NEVER).unwrap();
        for endpoint in ["posix-sem:/s", "sysv-sem:0x2a[1]"] {
            assert_eq!(ok(&["recv", endpoint]), "");
            let args = ["recv", endpoint, "--count", "3", "--timeout", "5ms"];
            assert!(fails(1, &args).contains("ETIMEDOUT"));
            let args = ["recv", endpoint, "--count", "3", "--timeout", "0"];
            assert!(fails(1, &args).contains("EAGAIN"));
            let taken = json_lines(&ok(&["recv", endpoint, "--count", "2", "--json"])).remove(0);
            assert_eq!(taken, serde_json::json!({"endpoint": endpoint, "taken": 2}));
        }
        assert_eq!((semaphore.value().unwrap(), set.values().unwrap()), (0, vec![0, 0]));
        let waiter = start(&["recv", "sysv-sem:0x2a"]);
        wait_until("it waits", || set.waiting(0).unwrap() == 1);
        set.post(0).unwrap();
        finished(waiter);
        failures(&[
            (&["recv", "posix-sem:/none"], &["ENOENT", "ginnel create"]),
            (&["recv", "sysv-sem:0x2b"], &["ENOENT", "ginnel create"]),
        ]);
    });
}

#[test]
fn a_queue_or_set_that_is_removed_ends_the_wait() {
    isolated(|| {
        SysvQueue::create(0x2a).unwrap();
        SysvSemaphores::create(0x2a, 1).unwrap();
        for (endpoint, syscall) in
            [("sysv-msg:0x2a", libc::SYS_msgrcv), ("sysv-sem:0x2a", libc::SYS_semtimedop)]
        {
            let args = ["recv", endpoint];
            let waiter = start(&args);
            wait_until("it waits", || {
                [syscall, libc::SYS_semop].iter().any(|call| ginnel_testkit::blocked_in(waiter.pid(), *call))
            });
            ok(&["rm", "--yes", endpoint]);
            let stderr = failed(1, &args, &waiter.wait_with_output());
            assert!(stderr.contains("EIDRM") && stderr.contains("removed"), "{stderr}");
        }
    });
}

#[test]
fn what_means_nothing_is_refused_with_what_does() {
    isolated(|| {
        wrong_usage(&[
            (&["recv", "posix-mq:/a", "--priority", "3"], "highest priority first"),
            (&["recv", "posix-mq:/a", "--type", "3"], "highest priority first"),
            (&["recv", "fifo:/a", "--type", "3"], "--type is for sysv-msg"),
            (&["recv", "fifo:/a", "--offset", "3"], "--offset and --length are for memory"),
            (&["recv", "posix-shm:/a", "--count", "3"], "--length says how much"),
            (&["recv", "posix-shm:/a", "--create"], "ginnel create"),
            (&["recv", "posix-sem:/a", "--follow"], "--follow is for messages and streams"),
            (&["recv", "icmp:localhost"], "ginnel send"),
            (&["recv", "signal:1"], "ginnel signal 1"),
            (&["recv", "lock:/a"], "ginnel lock FILE"),
            (&["recv", "sysv-msg:1", "--type", "!"], "a selection is"),
            (&["recv", "sysv-msg:1", "--follow", "--count", "2"], "--count"),
            (&["recv", "pty:/dev/pts/0", "--create"], "a terminal cannot be made"),
        ]);
    });
}

#[test]
fn missing_objects_and_rights() {
    isolated(|| {
        failures(&[
            (&["recv", "sysv-msg:0x2a"], &["ENOENT", "ginnel create sysv-msg:0x2a"]),
            (&["recv", "posix-mq:/none"], &["ENOENT", "ginnel create posix-mq:/none"]),
            (&["recv", "fifo:/dev/shm/none"], &["ENOENT", "ginnel create fifo:/dev/shm/none"]),
            (&["recv", "unix:/dev/shm/none"], &["ENOENT", "ginnel recv --create"]),
            (&["recv", "tcp:127.0.0.1:9"], &["ECONNREFUSED", "ginnel recv --create"]),
            (&["recv", "unix-dgram:/nowhere/d"], &["/nowhere/d", "ENOENT"]),
            (&["recv", "pty:/dev/pts/999"], &["ENOENT"]),
            (&["recv", "udp:192.0.2.1:7000"], &["EADDRNOTAVAIL"]),
        ]);
        for endpoint in
            ["sysv-msg:0x2a", "posix-mq:/a", "fifo:/dev/shm/fifo", "posix-sem:/a", "sysv-sem:0x2a"]
        {
            ok(&["create", endpoint]);
        }
        ok(&["create", "posix-shm:/a", "--size", "8"]);
        unprivileged(|| {
            for endpoint in [
                "sysv-msg:0x2a",
                "posix-mq:/a",
                "fifo:/dev/shm/fifo",
                "posix-sem:/a",
                "sysv-sem:0x2a",
                "posix-shm:/a",
                "unix-dgram:/root/d",
                "udp:127.0.0.1:7",
            ] {
                let stderr = fails(1, &["recv", endpoint]);
                assert!(stderr.contains("EACCES") && stderr.contains(endpoint), "{stderr}");
            }
        })
        .assert_ok();
    });
}

#[test]
fn following_a_server_survives_its_restart() {
    isolated(|| {
        let mut receiver = start(&["recv", "unix:/dev/shm/s", "--follow"]);
        let mut lines = BufReader::new(receiver.stdout().unwrap()).lines();
        for text in ["one", "two"] {
            let listener = UnixListener::bind("/dev/shm/s").unwrap();
            listener.accept().unwrap().0.write_all(format!("{text}\n").as_bytes()).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), text);
            drop(listener);
            std::fs::remove_file("/dev/shm/s").unwrap();
        }
        assert!(receiver.is_alive());
    });
}

#[test]
fn a_long_line_is_as_easy_as_a_short_one() {
    isolated(|| {
        ok(&["create", "fifo:/dev/shm/a"]);
        let receiver = start(&["recv", "fifo:/dev/shm/a", "--count", "2"]);
        let mut writer = std::fs::OpenOptions::new().write(true).open("/dev/shm/a").unwrap();
        // A look at all of it for each byte would take an hour.
        let long = [&vec![b'x'; 1 << 19][..], b"\nshort\n"].concat();
        writer.write_all(&long).unwrap();
        assert_eq!(finished(receiver).as_bytes(), long);
    });
}

#[test]
fn an_interrupted_take_gives_back_its_units() {
    isolated(|| {
        let semaphore = PosixSemaphore::options().create(true).value(2).open("/s").unwrap();
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let taker = start(&["recv", "posix-sem:/s", "--count", "3"]);
            wait_until("it has taken all there is", || semaphore.value().unwrap() == 0);
            taker.signal(signal);
            assert_eq!(taker.wait(), Exit::Signal(signal));
            assert_eq!(semaphore.value().unwrap(), 2);
        }
        // And it gets them one after the other.
        let taker = start(&["recv", "posix-sem:/s", "--count", "3", "--timeout", "50s"]);
        wait_until("it has taken all there is", || semaphore.value().unwrap() == 0);
        semaphore.post().unwrap();
        finished(taker);
        assert_eq!(semaphore.value().unwrap(), 0);
    });
}

#[test]
fn too_many_units_are_wrong_usage() {
    isolated(|| {
        ok(&["create", "sysv-sem:0x2a"]);
        for verb in ["send", "recv"] {
            wrong_usage(&[(&[verb, "sysv-sem:0x2a", "--count", "32768"], "32767 at the most")]);
        }
    });
}

#[test]
fn a_host_short_of_descriptors_does_not_end_it() {
    isolated(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 24; exec \"$0\" recv unix:/dev/shm/s --create --follow"]);
        command.arg(env!("CARGO_BIN_EXE_ginnel")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut receiver = spawn(&mut command);
        let mut errors = BufReader::new(receiver.stderr().unwrap());
        wait_until("it listens", || UnixStream::connect("/dev/shm/s").is_ok());
        let many: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect("/dev/shm/s").unwrap()).collect();
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.contains("EMFILE"), "{line}");
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        drop(many);
        ok(&["send", "unix:/dev/shm/s", "still here"]);
        let mut word = [0; 11];
        receiver.stdout().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"still here\n");
    });
}
