//! Unix seqpacket sockets: boundaries, the end told from an empty message, a full listener, death, and C.

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use ginnel::message::{UnixSeqpacket, UnixSeqpacketListener};
use ginnel_testkit::{c_program, fork, isolated, run_ok, spawn, temp_dir, unprivileged, wait_blocked_in};

use crate::common::{LONG, SHORT, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out};

const NAME: &str = "@ginnel";

fn connected() -> (UnixSeqpacketListener, UnixSeqpacket, UnixSeqpacket) {
    let listener = UnixSeqpacketListener::bind(NAME).unwrap();
    let client = UnixSeqpacket::connect(NAME).unwrap();
    let server = listener.accept().unwrap();
    (listener, client, server)
}

#[test]
fn an_empty_message_is_not_the_end() {
    isolated(|| {
        for make in [UnixSeqpacket::pair, || connected_pair(false), || connected_pair(true)] {
            let (sender, receiver) = make().unwrap();
            for message in [&b"one"[..], b"", b"", b"two", b""] {
                sender.send(message).unwrap();
            }
            drop(sender);
            for len in [3, 0, 0, 3, 0] {
                assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), Some(len));
            }
            for _ in 0..2 {
                assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), None);
                assert_eq!(receiver.try_recv(&mut [0; 8]).unwrap(), None);
                assert_eq!(receiver.recv_vec_deadline(LONG).unwrap(), None);
                assert_eq!(receiver.peek_deadline(&mut [], LONG).unwrap(), None);
            }
            assert!(assert_fails("EPIPE", receiver.send(b"x")).is_disconnected());
        }
    });
}

fn connected_pair(server_sends: bool) -> ginnel::Result<(UnixSeqpacket, UnixSeqpacket)> {
    let (_listener, client, server) = connected();
    Ok(if server_sends { (server, client) } else { (client, server) })
}

#[test]
fn the_three_forms() {
    isolated(|| {
        let (listener, client, server) = connected();
        assert_close_on_exec();
        assert!(assert_fails("EAGAIN", server.try_recv(&mut [0; 8])).is_would_block());
        assert_times_out(|limit| server.recv_deadline(&mut [0; 8], limit));
        assert_interrupted(libc::SYS_recvmsg, || server.recv(&mut [0; 8]));
        assert_interrupted(libc::SYS_ppoll, || server.recv_deadline(&mut [0; 8], LONG));
        assert!(assert_fails("EAGAIN", listener.try_accept()).is_would_block());
        assert_times_out(|limit| listener.accept_deadline(limit));
        assert_interrupted(libc::SYS_ppoll, || listener.accept());
        while client.try_send(&[1; 1000]).is_ok() {}
        assert_times_out(|limit| client.send_deadline(b"x", limit));
        assert_interrupted(libc::SYS_sendto, || client.send(b"x"));
        let sender = fork(|| client.send(b"last").unwrap());
        wait_blocked_in(sender.pid(), libc::SYS_sendto);
        let mut buffer = [0; 1000];
        while server.recv(&mut buffer).unwrap() == Some(1000) {}
        assert_eq!(&buffer[..4], b"last");
        sender.assert_ok();
    });
}

#[test]
fn connecting_to_a_full_listener() {
    isolated(|| {
        let listener = UnixSeqpacketListener::options().backlog(0).bind(NAME).unwrap();
        let _waiting = UnixSeqpacket::connect(NAME).unwrap();
        assert!(assert_fails("EAGAIN", UnixSeqpacket::try_connect(NAME)).is_would_block());
        assert_times_out(|limit| UnixSeqpacket::connect_deadline(NAME, limit));
        assert_interrupted(libc::SYS_connect, || UnixSeqpacket::connect(NAME));
        assert_interrupted(libc::SYS_connect, || UnixSeqpacket::connect_deadline(NAME, LONG));
        let client = fork(|| {
            let socket = UnixSeqpacket::connect_deadline(NAME, LONG).unwrap();
            assert_eq!(socket.recv_vec().unwrap().unwrap(), b"welcome");
        });
        wait_blocked_in(client.pid(), libc::SYS_connect);
        drop(listener.accept().unwrap());
        let server = listener.accept_deadline(LONG).unwrap();
        assert_eq!(server.peer_credentials().unwrap().pid, client.pid());
        server.send(b"welcome").unwrap();
        client.assert_ok();
    });
}

#[test]
fn a_socket_from_outside_is_left_as_it_is() {
    isolated(|| {
        let timestamps = |fd: &OwnedFd| {
            let (mut value, mut len) = (0_i32, 4);
            // SAFETY: the value is an int, as the option is.
            unsafe {
                let value = (&raw mut value).cast();
                libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMP, value, &mut len)
            };
            value
        };
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let b = OwnedFd::from(b);
        assert_eq!(timestamps(&b), 0);
        let b = UnixSeqpacket::from_fd(b).unwrap();
        a.send(b"").unwrap();
        assert_eq!(b.recv(&mut [0; 8]).unwrap(), Some(0));
        a.send(b"x").unwrap();
        drop(a);
        assert_eq!(b.recv(&mut [0; 8]).unwrap(), Some(1));
        assert_eq!(b.recv(&mut [0; 8]).unwrap(), None);
        assert_eq!(timestamps(&b.into()), 0);
    });
}

#[test]
fn nobody_listens() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("s");
        assert!(assert_fails("ENOENT", UnixSeqpacket::connect(&path)).is_not_found());
        assert_fails("ECONNREFUSED", UnixSeqpacket::connect(NAME));
        let listener = UnixSeqpacketListener::bind(&path).unwrap();
        assert_fails("EADDRINUSE", UnixSeqpacketListener::options().replace_stale(true).bind(&path));
        unprivileged(|| drop(assert_fails("EACCES", UnixSeqpacket::connect(&path)))).assert_ok();
        drop(listener);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_fails("ECONNREFUSED", UnixSeqpacket::connect(&path));
        let _again = UnixSeqpacketListener::options().replace_stale(true).bind(&path).unwrap();
        assert_fails("EPROTOTYPE", ginnel::message::UnixDatagram::connect(&path));
        let stream = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert_fails("EPROTOTYPE", UnixSeqpacket::from_fd(stream.into()));
    });
}

#[test]
fn a_cut_message_is_told() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let mut buffer = [0; 4];
        a.send(b"longer than four").unwrap();
        a.send(b"longer than four").unwrap();
        assert!(assert_fails("EMSGSIZE", b.recv(&mut buffer)).hint().unwrap().contains("16 bytes"));
        assert!(b.peek_deadline(&mut buffer, SHORT).unwrap().unwrap().is_truncated());
        let got = b.recv_truncated(&mut buffer, SHORT).unwrap().unwrap();
        assert_eq!((got.len, got.full_len, &buffer), (4, 16, b"long"));
        let large: Vec<u8> = (0..150_000).map(|n| (n * 31) as u8).collect();
        a.send(&large).unwrap();
        assert_eq!(b.recv_vec().unwrap().unwrap(), large);
        assert!(assert_fails("EMSGSIZE", a.send(&vec![0; 10_000_000])).hint().is_some());
    });
}

#[test]
fn a_killed_peer_is_the_end_or_a_reset() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let child = fork(|| {
            // SAFETY: a bitwise copy of the parent's end, closed in this process only.
            drop(unsafe { std::ptr::read(&raw const a) });
            b.send(b"my last word").unwrap();
            b.recv(&mut [0; 8]).unwrap();
            // SAFETY: pause takes nothing.
            unsafe { libc::pause() };
        });
        drop(b);
        a.send(b"read").unwrap();
        wait_blocked_in(child.pid(), libc::SYS_pause);
        child.kill();
        child.wait();
        assert_eq!(a.recv_vec().unwrap().unwrap(), b"my last word");
        assert_eq!(a.recv_vec().unwrap(), None);

        let (a, b) = UnixSeqpacket::pair().unwrap();
        a.send(b"never read").unwrap();
        drop(b);
        assert!(assert_fails("ECONNRESET", a.recv(&mut [0; 8])).is_disconnected());
        assert_eq!(a.recv(&mut [0; 8]).unwrap(), None);
    });
}

#[test]
fn one_direction_can_be_shut_down() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(b.recv(&mut [0; 8]).unwrap(), None);
        b.send(b"the other way").unwrap();
        assert_eq!(a.recv_vec().unwrap().unwrap(), b"the other way");
        assert_fails("EPIPE", a.send(b"x"));
    });
}

#[test]
fn c_sends_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/unix_seqpacket.c");
        let dir = temp_dir();
        for address in [dir.path().join("s").to_str().unwrap(), NAME] {
            let listener = UnixSeqpacketListener::bind(address).unwrap();
            run_ok(Command::new(&program).args(["send", address, "from C", "", "twice"]));
            let server = listener.accept_deadline(LONG).unwrap();
            for text in ["from C", "", "twice"] {
                assert_eq!(server.recv_vec().unwrap().unwrap(), text.as_bytes());
            }
            assert_eq!(server.recv_vec().unwrap(), None);
            drop(listener);
            let mut c = spawn(Command::new(&program).args(["recv", address]).stdout(Stdio::piped()));
            let mut lines = BufReader::new(c.stdout().unwrap()).lines().map(Result::unwrap);
            assert_eq!(lines.next().unwrap(), "ready");
            let client = UnixSeqpacket::connect_deadline(address, LONG).unwrap();
            client.send(b"from Rust").unwrap();
            client.send(b"twice").unwrap();
            drop(client);
            assert_eq!(lines.collect::<Vec<_>>(), ["from Rust", "twice"]);
            c.assert_ok();
        }
    });
}

#[test]
fn the_file_stays_if_it_is_to_stay_and_is_replaced_unless_it_is_not_to_be() {
    isolated(|| {
        let dir = temp_dir();
        let path = dir.path().join("s");
        drop(UnixSeqpacketListener::options().remove_on_drop(false).bind(&path).unwrap());
        assert!(path.exists());
        assert_fails("EADDRINUSE", UnixSeqpacketListener::options().replace_stale(false).bind(&path));
        let mut kept = UnixSeqpacketListener::bind(&path).unwrap();
        kept.keep();
        drop(kept);
        assert!(path.exists());
        drop(UnixSeqpacketListener::bind(&path).unwrap());
        assert!(!path.exists());
    });
}
