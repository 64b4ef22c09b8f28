//! UDP: both IP versions, one receiver, groups and all, refused ports, truncation, and C.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};

use ginnel::message::UdpSocket;
use ginnel_testkit::{c_program, fork, isolated, run_ok, spawn, unprivileged, wait_blocked_in};

use crate::common::{LONG, SHORT, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out};

const ANY_PORT: &str = "127.0.0.1:0";
/// `lo`, the only interface of an isolated test.
const LO: u32 = 1;

fn pair() -> (UdpSocket, UdpSocket) {
    let server = UdpSocket::bind(ANY_PORT).unwrap();
    let client = UdpSocket::connect(server.local_address().unwrap()).unwrap();
    (server, client)
}

#[test]
fn asked_and_answered_over_both_ip_versions() {
    isolated(|| {
        for address in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
            let server = UdpSocket::bind(address).unwrap();
            let at = server.local_address().unwrap();
            let client = UdpSocket::connect(at).unwrap();
            assert_eq!(client.peer_address().unwrap(), at);
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let got = server.recv_from_deadline(&mut buffer, LONG).unwrap();
            assert_eq!((&buffer[..got.len], got.sender), (&b"question"[..], client.local_address().unwrap()));
            server.send_to(b"", got.sender).unwrap();
            assert_eq!(client.recv_deadline(&mut buffer, LONG).unwrap(), 0);
            for payload in [1, 1500, 65_000] {
                let payload: Vec<u8> = (0..payload).map(|n| (n * 7) as u8).collect();
                client.send(&payload).unwrap();
                assert_eq!(server.recv_vec_deadline(LONG).unwrap(), payload);
            }
        }
    });
}

#[test]
fn an_ipv6_socket_speaks_ipv4_unless_told_not_to() {
    isolated(|| {
        let server = UdpSocket::bind("[::]:0").unwrap();
        let port = server.local_address().unwrap().port();
        let client = UdpSocket::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.send(b"x").unwrap();
        let got = server.recv_from_deadline(&mut [0; 8], LONG).unwrap();
        assert_eq!(got.sender, client.local_address().unwrap());
        server.send_to(b"y", got.sender).unwrap();
        assert_eq!(client.recv_vec_deadline(LONG).unwrap(), b"y");
        drop(server);
        let _only = UdpSocket::options().only_v6(true).bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the IPv4 port is free");
        assert_fails("EAFNOSUPPORT", client.send_to(b"x", (Ipv6Addr::LOCALHOST, port).into()));
    });
}

#[test]
fn the_three_forms() {
    isolated(|| {
        let (server, client) = pair();
        assert_close_on_exec();
        assert!(assert_fails("EAGAIN", server.try_recv(&mut [0; 8])).is_would_block());
        assert_times_out(|limit| server.recv_deadline(&mut [0; 8], limit));
        assert_times_out(|limit| server.recv_vec_deadline(limit));
        assert_interrupted(libc::SYS_recvfrom, || server.recv(&mut [0; 8]));
        assert_interrupted(libc::SYS_ppoll, || server.recv_deadline(&mut [0; 8], LONG));
        let receiver = fork(|| assert_eq!(server.recv_vec().unwrap(), b"wake"));
        wait_blocked_in(receiver.pid(), libc::SYS_recvfrom);
        client.try_send(b"wake").unwrap();
        receiver.assert_ok();
    });
}

#[test]
fn a_port_where_nobody_is_refuses_the_next_call() {
    isolated(|| {
        let (server, client) = pair();
        let at = server.local_address().unwrap();
        drop(server);
        client.send(b"into the void").unwrap();
        assert!(assert_fails("ECONNREFUSED", client.recv_deadline(&mut [0; 8], LONG)).is_not_found());
        client.send(b"again").unwrap();
        let error = assert_fails("ECONNREFUSED", client.send(b"told now"));
        assert!(error.hint().unwrap().contains("before"), "{error}");
        let unconnected = UdpSocket::bind(ANY_PORT).unwrap();
        unconnected.send_to(b"x", at).unwrap();
        unconnected.send_to(b"not told", at).unwrap();
        assert_fails("EDESTADDRREQ", unconnected.send(b"x"));
        assert_fails("ENOTCONN", unconnected.peer_address());
    });
}

#[test]
fn a_cut_datagram_is_told() {
    isolated(|| {
        let (server, client) = pair();
        let mut buffer = [0; 4];
        client.send(b"longer than four").unwrap();
        client.send(b"longer than four").unwrap();
        assert!(
            assert_fails("EMSGSIZE", server.recv(&mut buffer))
                .hint()
                .unwrap()
                .contains("16 bytes and the buffer 4")
        );
        assert_eq!(server.peek_deadline(&mut buffer, LONG).unwrap().full_len, 16);
        let got = server.recv_truncated(&mut buffer, SHORT).unwrap();
        assert_eq!((got.len, got.full_len, &buffer), (4, 16, b"long"));
        let error = assert_fails("EMSGSIZE", client.send(&[0; 65_508]));
        assert!(error.hint().unwrap().contains("65507"), "{error}");
        client.send(&[0; 65_507]).unwrap();
        assert_eq!(server.recv_vec_deadline(LONG).unwrap().len(), 65_507);
    });
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    isolated(|| {
        let (server, client) = pair();
        let stranger = UdpSocket::bind(ANY_PORT).unwrap();
        stranger.send_to(b"psst", client.local_address().unwrap()).unwrap();
        client.send(b"x").unwrap();
        let got = server.recv_from_deadline(&mut [0; 8], LONG).unwrap();
        server.send_to(b"yes", got.sender).unwrap();
        assert_eq!(client.recv_vec_deadline(LONG).unwrap(), b"yes");
    });
}

#[test]
fn a_group_hears_what_is_sent_to_it() {
    isolated(|| {
        // `lo` does not loop IPv6 groups back; a pair of virtual devices does.
        run_ok(Command::new("sh").args([
            "-ec",
            "ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; \
             ip addr add fd00::1/64 dev d0 nodad",
        ]));
        // SAFETY: the name is NUL-terminated.
        let veth = unsafe { libc::if_nametoindex(c"d0".as_ptr()) };
        for group in [IpAddr::from(Ipv4Addr::new(239, 1, 2, 3)), "ff05::4711".parse().unwrap()] {
            let interface = if group.is_ipv4() { LO } else { veth };
            let any: IpAddr =
                if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let first = UdpSocket::options().reuse_address(true).bind((any, 0)).unwrap();
            let port = first.local_address().unwrap().port();
            let second = UdpSocket::options().reuse_address(true).bind((any, port)).unwrap();
            let sender = UdpSocket::bind((any, 0)).unwrap();
            sender.set_multicast_interface(interface).unwrap();
            sender.set_multicast_ttl(1).unwrap();
            sender.set_multicast_loop(true).unwrap();
            for member in [&first, &second] {
                member.join(group, interface).unwrap();
                assert_fails("EADDRINUSE", member.join(group, interface));
            }
            sender.send_to(b"all of you", SocketAddr::new(group, port)).unwrap();
            for member in [&first, &second] {
                assert_eq!(member.recv_vec_deadline(LONG).unwrap(), b"all of you");
            }
            first.leave(group, interface).unwrap();
            assert_fails("EADDRNOTAVAIL", first.leave(group, interface));
            sender.send_to(b"the rest", SocketAddr::new(group, port)).unwrap();
            assert_eq!(second.recv_vec_deadline(LONG).unwrap(), b"the rest");
            assert_fails(
                "EINVAL",
                first.join(
                    if group.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() },
                    interface,
                ),
            );
            assert_fails("ENODEV", first.join(group, 999));
        }
    });
}

#[test]
fn broadcast_must_be_allowed() {
    isolated(|| {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let all = SocketAddr::from(([127, 255, 255, 255], server.local_address().unwrap().port()));
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert!(assert_fails("EACCES", client.send_to(b"x", all)).hint().unwrap().contains("set_broadcast"));
        client.set_broadcast(true).unwrap();
        client.send_to(b"to all", all).unwrap();
        assert_eq!(server.recv_vec_deadline(LONG).unwrap(), b"to all");
    });
}

#[test]
fn options_and_refusals() {
    isolated(|| {
        for address in [ANY_PORT, "[::1]:0"] {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_ttl(7).unwrap();
            assert_eq!(socket.ttl().unwrap(), 7);
            assert_fails("EINVAL", socket.set_ttl(0));
            socket.set_buffer_sizes(Some(20_000), Some(30_000)).unwrap();
            let sizes = socket.buffer_sizes().unwrap();
            assert_eq!((sizes.send_bytes, sizes.recv_bytes), (40_000, 60_000));
            let taken = socket.local_address().unwrap();
            assert!(assert_fails("EADDRINUSE", UdpSocket::bind(taken)).is_already_exists());
            assert_eq!(UdpSocket::bind(taken).unwrap_err().object(), format!("udp:{taken}"));
        }
        assert_fails("EADDRNOTAVAIL", UdpSocket::bind("192.0.2.1:0"));
        assert_fails("ENETUNREACH", UdpSocket::connect("192.0.2.1:9"));
        assert_fails("EINVAL", UdpSocket::bind("no port"));
        unprivileged(|| drop(assert_fails("EACCES", UdpSocket::bind("127.0.0.1:9")))).assert_ok();
        assert_fails("EPROTOTYPE", UdpSocket::from_fd(std::net::TcpListener::bind(ANY_PORT).unwrap().into()));
        let std = std::net::UdpSocket::bind(ANY_PORT).unwrap();
        UdpSocket::from_fd(std.into()).unwrap();
    });
}

#[test]
fn c_sends_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/udp.c");
        let server = UdpSocket::bind(ANY_PORT).unwrap();
        let port = server.local_address().unwrap().port();
        let answer = fork(|| {
            let mut buffer = [0; 64];
            let got = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..got.len], b"from C");
            server.send_to(b"Rust answers", got.sender).unwrap();
        });
        assert_eq!(
            run_ok(Command::new(&program).args(["send", &port.to_string(), "from C"])),
            "Rust answers\n"
        );
        answer.assert_ok();

        let mut c = spawn(Command::new(&program).arg("recv").stdout(Stdio::piped()));
        let mut lines = BufReader::new(c.stdout().unwrap()).lines().map(Result::unwrap);
        let port: u16 = lines.next().unwrap().parse().unwrap();
        let client = UdpSocket::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.send(b"from Rust").unwrap();
        assert_eq!(lines.next().unwrap(), "from Rust");
        assert_eq!(client.recv_vec_deadline(LONG).unwrap(), b"C answers");
        c.assert_ok();
    });
}

/// A socket with something in its error queue (`IP_RECVERR`) polls ready for ever, and has no datagram.
#[test]
fn a_deadline_passes_while_the_socket_polls_ready_with_an_error() {
    isolated(|| {
        let socket = std::net::UdpSocket::bind(ANY_PORT).unwrap();
        let on = 1_i32;
        let (fd, size) = (std::os::fd::AsRawFd::as_raw_fd(&socket), size_of::<i32>() as u32);
        // SAFETY: the value is an int, and its size is given.
        let set =
            unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_RECVERR, (&raw const on).cast(), size) };
        assert_eq!(set, 0);
        let socket = UdpSocket::from_fd(socket.into()).unwrap();
        let nobody = UdpSocket::bind(ANY_PORT).unwrap().local_address().unwrap();
        socket.send_to(b"x", nobody).unwrap();
        assert_fails("ECONNREFUSED", socket.recv_deadline(&mut [0; 8], LONG));
        assert_times_out(|deadline| socket.recv_deadline(&mut [0; 8], deadline));
    });
}
