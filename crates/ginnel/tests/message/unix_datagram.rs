//! Unix datagram sockets: names of every kind, a full receiver, truncation, death, stale files, and C.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel::UnixAddress;
use ginnel::message::UnixDatagram;
use ginnel_testkit::{c_program, fork, isolated, run_ok, spawn, temp_dir, unprivileged, wait_blocked_in};

use crate::common::{LONG, SHORT, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out};

const NAME: &str = "@ginnel";

/// A receiver that has as many messages waiting as it may, and a sender to it.
fn full_receiver() -> (UnixDatagram, UnixDatagram) {
    let receiver = UnixDatagram::bind(NAME).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    while sender.try_send_to(b"fill", NAME).is_ok() {}
    (receiver, sender)
}

#[test]
fn named_by_path_or_abstract_and_answered() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("a");
        for address in
            [UnixAddress::from(&path), UnixAddress::from(NAME), UnixAddress::abstract_name(b"a\0b")]
        {
            let server = UnixDatagram::bind(&address).unwrap();
            let client = UnixDatagram::bind("@client").unwrap();
            client.connect_to(&address).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let got = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..got.len], &got.sender), (&b"question"[..], &"@client".into()));
            server.send_to(b"answer", got.sender).unwrap();
            let got = client.recv_from_deadline(&mut buffer, LONG).unwrap();
            assert_eq!((got.len, &got.sender), (6, &address));
            assert_eq!(
                (server.local_address().unwrap(), client.peer_address().unwrap()),
                (address.clone(), address)
            );
            UnixDatagram::unbound().unwrap().send_to(b"", server.local_address().unwrap()).unwrap();
            assert_eq!(server.recv_from(&mut buffer).unwrap().sender, UnixAddress::Unnamed);
        }
        assert!(!path.exists(), "the file goes with its socket");
    });
}

#[test]
fn a_path_of_every_length_that_a_c_program_may_bind() {
    isolated(|| {
        let server = UnixDatagram::bind(NAME).unwrap();
        // 108 bytes, without a NUL: the kernel takes it, and so must we when it is a sender's.
        let dir = temp_dir();
        let mut path = dir.path().to_str().unwrap().to_string() + "/";
        path += &"x".repeat(108 - path.len());
        assert_fails("ENAMETOOLONG", UnixDatagram::bind(&path));
        fork(|| {
            // SAFETY: the address is whole, the path fills it to its last byte.
            unsafe {
                let fd = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0);
                let mut address: libc::sockaddr_un = std::mem::zeroed();
                address.sun_family = libc::AF_UNIX as u16;
                for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
                    *to = from as libc::c_char;
                }
                let len = size_of_val(&address) as libc::socklen_t;
                assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
                let peer = UnixDatagram::from_fd(std::os::fd::FromRawFd::from_raw_fd(fd)).unwrap();
                peer.send_to(b"x", NAME).unwrap();
            }
        })
        .assert_ok();
        let got = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(got.sender.as_path().unwrap().to_str().unwrap(), path);
    });
}

#[test]
fn the_three_forms_of_sending_to_a_full_receiver() {
    isolated(|| {
        let (receiver, sender) = full_receiver();
        assert!(assert_fails("EAGAIN", sender.try_send_to(b"x", NAME)).is_would_block());
        assert_times_out(|limit| sender.send_to_deadline(b"x", NAME, limit));
        assert_interrupted(libc::SYS_sendto, || sender.send_to(b"x", NAME));
        assert_interrupted(libc::SYS_sendto, || sender.send_to_deadline(b"x", NAME, LONG));
        let connected = UnixDatagram::connect(NAME).unwrap();
        assert_fails("EAGAIN", connected.try_send(b"x"));
        assert_times_out(|limit| connected.send_deadline(b"x", limit));
        let waiting = fork(|| connected.send_deadline(b"at last", LONG).unwrap());
        wait_blocked_in(waiting.pid(), libc::SYS_ppoll);
        // Whatever of it comes first, the last is the one that waited.
        while receiver.recv_vec_deadline(LONG).unwrap() != b"at last" {}
        waiting.assert_ok();
        assert_fails("EAGAIN", receiver.try_recv(&mut [0; 8]));
    });
}

#[test]
fn the_three_forms_of_receiving() {
    isolated(|| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut buffer = [0; 16];
        assert!(assert_fails("EAGAIN", a.try_recv(&mut buffer)).is_would_block());
        assert_times_out(|limit| a.recv_deadline(&mut buffer, limit));
        assert_interrupted(libc::SYS_recvfrom, || a.recv(&mut [0; 16]));
        assert_interrupted(libc::SYS_ppoll, || a.recv_deadline(&mut [0; 16], LONG));
        let child = fork(|| b.send(b"hello").unwrap());
        assert_eq!(a.recv(&mut buffer).unwrap(), 5);
        child.assert_ok();
        assert_close_on_exec();
    });
}

#[test]
fn a_cut_message_is_told() {
    isolated(|| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut buffer = [0; 4];
        a.send(b"longer than four").unwrap();
        a.send(b"longer than four").unwrap();
        a.send(b"").unwrap();
        let error = assert_fails("EMSGSIZE", b.recv(&mut buffer));
        assert!(error.hint().unwrap().contains("16 bytes and the buffer 4"), "{error}");
        let got = b.peek_deadline(&mut buffer, SHORT).unwrap();
        assert!(got.is_truncated());
        let got = b.recv_truncated(&mut buffer, SHORT).unwrap();
        assert_eq!((got.len, got.full_len, &buffer), (4, 16, b"long"));
        assert_eq!(b.recv(&mut buffer).unwrap(), 0, "an empty message is a message");
        let large: Vec<u8> = (0..150_000).map(|n| (n * 31) as u8).collect();
        a.send(&large).unwrap();
        assert_eq!(b.recv_vec().unwrap(), large);
        let error = assert_fails("EMSGSIZE", a.send(&vec![0; 10_000_000]));
        assert!(error.hint().unwrap().contains("net.core.wmem_max"), "{error}");
        a.set_send_buffer(5000).unwrap();
        assert_eq!(a.buffer_sizes().unwrap().send_bytes, 10_000);
        assert_fails("EMSGSIZE", a.send(&[0; 10_000]));
    });
}

#[test]
fn who_is_not_there_is_told_apart() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("s");
        let socket = UnixDatagram::unbound().unwrap();
        assert!(assert_fails("ENOENT", socket.send_to(b"x", &path)).is_not_found());
        assert!(assert_fails("ECONNREFUSED", socket.send_to(b"x", "@nobody")).is_not_found());
        assert_fails("ENOTCONN", socket.send(b"x"));
        assert_fails("ENOTCONN", socket.peer_address());
        for nonsense in ["", "@", &"x".repeat(200)] {
            assert!(
                assert_fails(
                    if nonsense.len() > 1 { "ENAMETOOLONG" } else { "EINVAL" },
                    UnixDatagram::bind(nonsense)
                )
                .hint()
                .is_some()
            );
        }
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(
            assert_fails("EPROTOTYPE", socket.send_to(b"x", &path)).hint().unwrap().contains("another type")
        );
        drop(listener);
        let error = assert_fails("ECONNREFUSED", UnixDatagram::connect(&path));
        assert!(error.hint().unwrap().contains("its server is gone"), "{error}");
        assert_fails("ENOENT", UnixDatagram::bind(dir.path().join("no/such")));

        let (a, b) = UnixDatagram::pair().unwrap();
        drop(b);
        assert!(assert_fails("ECONNREFUSED", a.send(b"x")).hint().unwrap().contains("closed"));

        let server = UnixDatagram::bind(NAME).unwrap();
        let favourite = UnixDatagram::bind("@favourite").unwrap();
        server.connect_to("@favourite").unwrap();
        assert_fails("EPERM", socket.send_to(b"x", NAME));
        drop((server, favourite));
    });
}

#[test]
fn a_dead_server_s_file_is_replaced_and_a_living_one_s_is_not() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("server");
        let bind = |replace| UnixDatagram::options().replace_stale(replace).bind(&path);
        let server = fork(|| {
            let _server = bind(false).unwrap();
            // SAFETY: pause takes nothing.
            unsafe { libc::pause() };
        });
        wait_blocked_in(server.pid(), libc::SYS_pause);
        let error = assert_fails("EADDRINUSE", bind(true));
        assert!(error.is_already_exists() && error.hint().unwrap().contains("alive"), "{error}");
        server.kill();
        server.wait();
        assert!(assert_fails("EADDRINUSE", bind(false)).hint().unwrap().contains("replace_stale"));
        UnixDatagram::unbound().unwrap().connect_to(&path).expect_err("nobody is there");
        let replaced = bind(true).unwrap();
        UnixDatagram::connect(&path).unwrap().send(b"hello").unwrap();
        assert_eq!(replaced.recv_vec().unwrap(), b"hello");
        drop(replaced);
        assert!(!path.exists());
    });
}

#[test]
fn of_many_that_replace_a_stale_file_at_once_one_wins() {
    isolated(|| {
        const RACERS: usize = 6;
        let dir = temp_dir();
        let path = dir.path().join("server");
        for _ in 0..40 {
            drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
            let (go, started) = std::io::pipe().unwrap();
            let (end, ending) = std::io::pipe().unwrap();
            let (results, result) = std::io::pipe().unwrap();
            let racers: Vec<_> = (0..RACERS)
                .map(|_| {
                    fork(|| {
                        // SAFETY: the copies of the parent's descriptors, which only the parent is to hold open; _exit
                        // keeps their owners in this process from closing them again.
                        unsafe {
                            libc::close(started.as_raw_fd());
                            libc::close(ending.as_raw_fd());
                        }
                        assert_eq!((&go).read(&mut [0]).unwrap(), 0);
                        let bound = UnixDatagram::options().replace_stale(true).bind(&path);
                        (&result).write_all(if bound.is_ok() { b"w" } else { b"l" }).unwrap();
                        assert_eq!((&end).read(&mut [0]).unwrap(), 0);
                    })
                })
                .collect();
            drop(started);
            let mut told = [0; RACERS];
            (&results).read_exact(&mut told).unwrap();
            assert_eq!(told.iter().filter(|letter| **letter == b'w').count(), 1);
            UnixDatagram::connect(&path).expect("the winner is there");
            drop(ending);
            racers.into_iter().for_each(ginnel_testkit::Child::assert_ok);
            assert!(!path.exists());
        }
    });
}

#[test]
fn a_forked_child_does_not_remove_the_file() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("s");
        let server = UnixDatagram::bind(&path).unwrap();
        // SAFETY: a bitwise copy, as fork makes one; in the child, _exit keeps the original from being dropped.
        fork(|| drop(unsafe { std::ptr::read(&raw const server) })).assert_ok();
        UnixDatagram::connect(&path).unwrap().send(b"still there").unwrap();
        assert_eq!(server.recv_vec().unwrap(), b"still there");
    });
}

#[test]
fn a_file_s_mode_says_who_may_send() {
    isolated(|| {
        let dir = temp_dir();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (shut, open) = (dir.path().join("shut"), dir.path().join("open"));
        // SAFETY: umask is always sound.
        unsafe { libc::umask(0) };
        let _shut = UnixDatagram::bind(&shut).unwrap();
        let _open = UnixDatagram::options().mode(0o622).bind(&open).unwrap();
        unprivileged(|| {
            let socket = UnixDatagram::unbound().unwrap();
            let error = assert_fails("EACCES", socket.send_to(b"x", &shut));
            assert!(error.hint().unwrap().contains("write permission"), "{error}");
            socket.send_to(b"x", &open).unwrap();
            assert_fails("EACCES", UnixDatagram::bind(dir.path().join("mine")));
        })
        .assert_ok();
    });
}

#[test]
fn c_sends_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/unix_datagram.c");
        let dir = temp_dir();
        for address in [dir.path().join("s").to_str().unwrap(), NAME] {
            let server = UnixDatagram::bind(address).unwrap();
            run_ok(Command::new(&program).args(["send", address, "from C"]));
            assert_eq!(server.recv_vec_deadline(LONG).unwrap(), b"from C");
            drop(server);
            let mut c = spawn(Command::new(&program).args(["recv", address]).stdout(Stdio::piped()));
            let mut lines = BufReader::new(c.stdout().unwrap()).lines().map(Result::unwrap);
            assert_eq!(lines.next().unwrap(), "ready");
            UnixDatagram::unbound()
                .unwrap()
                .send_to_deadline(b"from Rust", address, Duration::from_secs(9))
                .unwrap();
            assert_eq!(lines.next().unwrap(), "from Rust");
            c.assert_ok();
        }
    });
}

#[test]
fn many_senders_lose_nothing() {
    isolated(|| {
        let server = UnixDatagram::bind(NAME).unwrap();
        let senders: Vec<_> = (0..4_u8)
            .map(|sender| {
                fork(move || {
                    let socket = UnixDatagram::connect(NAME).unwrap();
                    (0..300_u32)
                        .for_each(|n| socket.send(&[&[sender], &n.to_ne_bytes()[..]].concat()).unwrap());
                })
            })
            .collect();
        let mut next = [0_u32; 4];
        for _ in 0..1200 {
            let mut message = [0; 5];
            assert_eq!(server.recv_deadline(&mut message, LONG).unwrap(), 5);
            let number = u32::from_ne_bytes(message[1..].try_into().unwrap());
            assert_eq!(number, next[usize::from(message[0])], "in the order of its sender");
            next[usize::from(message[0])] += 1;
        }
        senders.into_iter().for_each(ginnel_testkit::Child::assert_ok);
    });
}

#[test]
fn the_file_stays_if_it_is_to_stay_and_is_replaced_unless_it_is_not_to_be() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("s");
        drop(UnixDatagram::options().remove_on_drop(false).bind(&path).unwrap());
        assert!(path.exists());
        assert_fails("EADDRINUSE", UnixDatagram::options().replace_stale(false).bind(&path));
        let mut kept = UnixDatagram::bind(&path).unwrap();
        kept.keep();
        drop(kept);
        assert!(path.exists());
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(!path.exists());
    });
}
