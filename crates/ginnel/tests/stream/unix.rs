//! Unix stream sockets: `unix(7)`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};

use ginnel::stream::{ByteWrite, UnixListener, UnixStream};
use ginnel_testkit::{
    Exit, c_program, fork, isolated, run_ok, spawn, temp_dir, unprivileged, wait_blocked_in,
};

use super::{LONG, POLL, interrupted, stay, times_out};

#[test]
fn names_of_both_kinds() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("s").display().to_string();
        for name in [path.as_str(), "@abstract", "@with/slash"] {
            let listener = UnixListener::bind(name).unwrap();
            assert_eq!(listener.local_address().unwrap().to_string(), name);
            let mut client = UnixStream::connect(name).unwrap();
            let mut served = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            client.shutdown_write().unwrap();
            let mut text = String::new();
            served.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
            let taken = UnixListener::bind(name).unwrap_err();
            assert!(taken.is_already_exists(), "{taken}");
            assert!(taken.to_string().starts_with(&format!("unix:{name}: bind: ")), "{taken}");
        }
        assert!(!std::path::Path::new(&path).exists(), "removed by the listener");
    });
}

#[test]
fn names_that_do_not_do() {
    isolated(|| {
        let long = format!("/dev/shm/{}", "x".repeat(120));
        for error in [UnixListener::bind(&long).unwrap_err(), UnixStream::connect(&long).unwrap_err()] {
            assert_eq!(error.errno_name(), "ENAMETOOLONG");
            assert!(error.hint().unwrap().contains("107"), "{error}");
        }
        assert_eq!(UnixListener::bind("").unwrap_err().errno_name(), "EINVAL");
        assert_eq!(UnixListener::bind("/dev/shm/no/such").unwrap_err().errno_name(), "ENOENT");
        assert_eq!(UnixStream::connect("/dev/shm/none").unwrap_err().errno_name(), "ENOENT");
        assert_eq!(UnixStream::connect("@none").unwrap_err().errno_name(), "ECONNREFUSED");
        let datagram = std::os::unix::net::UnixDatagram::bind("/dev/shm/d").unwrap();
        assert_eq!(UnixStream::connect("/dev/shm/d").unwrap_err().errno_name(), "EPROTOTYPE");
        assert!(UnixListener::bind("/dev/shm/d").unwrap_err().is_already_exists(), "alive, of another kind");
        drop(datagram);
    });
}

#[test]
fn stale_names_are_replaced_and_nothing_else() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("s");
        let server = fork(|| {
            let _listener = UnixListener::bind(&path).unwrap();
            stay();
        });
        wait_blocked_in(server.pid(), libc::SYS_pause);
        assert!(UnixListener::bind(&path).unwrap_err().is_already_exists(), "alive");
        UnixStream::connect(&path).unwrap();
        server.kill();
        assert_eq!(server.wait(), Exit::Signal(libc::SIGKILL));
        assert!(path.exists(), "left behind");
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.errno_name(), "ECONNREFUSED");
        assert!(UnixListener::options().replace_stale(false).bind(&path).unwrap_err().is_already_exists());
        let listener = UnixListener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);

        std::fs::write(&path, "precious").unwrap();
        let error = UnixListener::bind(&path).unwrap_err();
        assert!(error.is_already_exists() && error.to_string().contains("not a socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn of_many_that_start_at_once_one_has_the_name() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("s");
        for _ in 0..20 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "stale");
            let (start, go) = std::io::pipe().unwrap();
            let (mut won, report) = std::io::pipe().unwrap();
            let starters: Vec<_> = (0..4)
                .map(|_| {
                    fork(|| {
                        (&start).read_exact(&mut [0]).unwrap();
                        match UnixListener::bind(&path) {
                            Ok(_listener) => {
                                (&report).write_all(b"w").unwrap();
                                stay();
                            }
                            Err(error) => {
                                assert!(error.is_already_exists(), "{error}");
                                (&report).write_all(b"l").unwrap();
                            }
                        }
                    })
                })
                .collect();
            (&go).write_all(&[0; 4]).unwrap();
            let mut outcomes = [0; 4];
            won.read_exact(&mut outcomes).unwrap();
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == b'w').count(), 1);
            UnixStream::connect(&path).unwrap();
            drop(starters);
            std::fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
fn mode_and_who_removes_the_file() {
    isolated(|| {
        let directory = temp_dir();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = directory.path().join("s");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut listener = Some(UnixListener::bind(&path).unwrap());
        assert_eq!(mode(), 0o600);
        assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
        unprivileged(|| {
            assert!(UnixStream::connect(&path).unwrap_err().is_permission_denied());
            assert!(UnixListener::bind(&path).is_err());
        })
        .assert_ok();
        fork(|| drop(listener.take())).assert_ok();
        assert!(path.exists(), "a forked child's copy does not remove it");
        std::fs::rename(&path, directory.path().join("t")).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(listener.take());
        assert!(path.exists(), "not the file that it made");
        std::fs::remove_file(&path).unwrap();

        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
        let mut listener = UnixListener::options().mode(0o666).bind(&path).unwrap();
        assert_eq!(mode(), 0o640);
        listener.keep();
        drop(listener);
        assert!(path.exists());
    });
}

#[test]
fn accept_and_connect_in_three_forms() {
    isolated(|| {
        let listener = UnixListener::options().backlog(1).bind("@three").unwrap();
        assert!(listener.try_accept().unwrap_err().is_would_block());
        times_out(|deadline| listener.accept_deadline(deadline));
        interrupted(POLL, || listener.accept());
        let child = fork(|| {
            listener.accept().unwrap();
        });
        wait_blocked_in(child.pid(), POLL);
        UnixStream::connect_deadline("@three", LONG).unwrap();
        child.assert_ok();

        let mut waiting = Vec::new();
        let full = loop {
            match UnixStream::try_connect("@three") {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.errno_name(), "EAGAIN");
        assert!(full.hint().unwrap().contains("queue"), "{full}");
        times_out(|deadline| UnixStream::connect_deadline("@three", deadline));
        interrupted(libc::SYS_connect, || UnixStream::connect("@three"));
        let child = fork(|| {
            UnixStream::connect_deadline("@three", LONG).unwrap();
        });
        wait_blocked_in(child.pid(), libc::SYS_connect);
        (0..waiting.len()).for_each(|_| drop(listener.accept_deadline(LONG).unwrap()));
        child.assert_ok();
        let stream = UnixStream::connect_deadline("@three", LONG).unwrap();
        let timeout =
            rustix::net::sockopt::socket_timeout(&stream, rustix::net::sockopt::Timeout::Send).unwrap();
        assert_eq!(timeout, None, "the deadline of the connect is not the stream's");
        let flags = rustix::fs::fcntl_getfl(&stream).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    });
}

#[test]
fn who_is_at_the_other_end() {
    isolated(|| {
        let listener = UnixListener::bind("@who").unwrap();
        let client = unprivileged(|| {
            let stream = UnixStream::connect("@who").unwrap();
            assert_eq!(stream.peer_credentials().unwrap().uid, 0);
            (&stream).read_exact(&mut [0]).unwrap();
        });
        let served = listener.accept().unwrap();
        let peer = served.peer_credentials().unwrap();
        assert_eq!((peer.pid, peer.uid, peer.gid), (client.pid(), 65534, 65534));
        served.try_write(b"x").unwrap();
        client.assert_ok();
    });
}

#[test]
fn c_on_either_side() {
    isolated(|| {
        let program = c_program!("tests/stream/unix.c");
        let directory = temp_dir();
        let path = directory.path().join("s");
        for name in [path.to_str().unwrap(), "@c"] {
            let listener = UnixListener::bind(name).unwrap();
            let child = fork(|| {
                assert_eq!(run_ok(Command::new(&program).args(["client", name, "from c"])), "FROM C");
            });
            let mut served = listener.accept_deadline(LONG).unwrap();
            let mut text = String::new();
            served.read_to_string(&mut text).unwrap();
            served.write_all(text.to_uppercase().as_bytes()).unwrap();
            drop((served, listener));
            child.assert_ok();

            let mut server = spawn(Command::new(&program).args(["serve", name]).stdout(Stdio::piped()));
            let mut line = String::new();
            BufReader::new(server.stdout().unwrap()).read_line(&mut line).unwrap();
            let mut client = UnixStream::connect_deadline(name, LONG).unwrap();
            client.write_all(b"from rust").unwrap();
            client.shutdown_write().unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "FROM RUST");
            server.assert_ok();
        }
    });
}
