//! ICMP echo: both kinds of socket, both IP versions, other processes' replies, and the rights.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ginnel::message::RawSocket;
use ginnel::message::icmp::{EchoSocket, IcmpEcho};
use ginnel_testkit::{isolated, unprivileged};

use crate::common::{LONG, assert_fails, assert_interrupted, assert_times_out};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn allow_ping_sockets() {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
}

fn open(socket: EchoSocket, host: IpAddr) -> ginnel::Result<IcmpEcho> {
    IcmpEcho::options().socket(socket).open(host)
}

#[test]
fn an_echo_comes_back_through_every_kind_of_socket() {
    isolated(|| {
        allow_ping_sockets();
        for host in [HOST, Ipv6Addr::LOCALHOST.into()] {
            for kind in [EchoSocket::Raw, EchoSocket::Ping] {
                let echo = open(kind, host).unwrap();
                assert_eq!(echo.is_raw(), kind == EchoSocket::Raw);
                let mut buffer = [0; 1500];
                for (sequence, payload) in [(1, &b"odd"[..]), (2, b""), (65535, &[0xff; 1400])] {
                    echo.send(sequence, payload).unwrap();
                    let reply = echo.recv_deadline(&mut buffer, LONG).unwrap();
                    assert_eq!(
                        (reply.sequence, &buffer[..reply.len], reply.sender),
                        (sequence, payload, host)
                    );
                    assert_eq!(reply.ttl.is_some(), host.is_ipv4() && echo.is_raw());
                }
                echo.send(3, b"too long").unwrap();
                assert_fails("EMSGSIZE", echo.recv_deadline(&mut [0; 7], LONG));
            }
        }
    });
}

#[test]
fn identifier_0_is_as_good_as_any() {
    isolated(|| {
        allow_ping_sockets();
        for kind in [EchoSocket::Raw, EchoSocket::Ping] {
            let echo = IcmpEcho::options().socket(kind).identifier(0).open(HOST).unwrap();
            echo.send(1, b"x").unwrap();
            assert_eq!(echo.recv_deadline(&mut [0; 8], LONG).unwrap().sequence, 1);
        }
    });
}

#[test]
fn other_processes_replies_are_passed_over() {
    isolated(|| {
        let mine = IcmpEcho::options().socket(EchoSocket::Raw).identifier(7).open(HOST).unwrap();
        let other = IcmpEcho::options().socket(EchoSocket::Raw).identifier(8).open(HOST).unwrap();
        assert_eq!(mine.identifier(), 7);
        other.send(1, b"not yours").unwrap();
        other.recv_deadline(&mut [0; 32], LONG).unwrap();
        assert_fails("EAGAIN", mine.try_recv(&mut [0; 32]));

        // A reply to our identifier with a wrong checksum, and an echo request of somebody's.
        let forger = RawSocket::open_v4(1).unwrap();
        forger.send_to(&[0, 0, 0xba, 0xad, 0, 7, 0, 1, b'x'], HOST).unwrap();
        forger.send_to(&[8, 0, 0xff, 0xf0, 0, 7, 0, 8], HOST).unwrap();
        assert_times_out(|limit| {
            // The kernel answers the forged request if its checksum is right: not a reply to us, sequence 8 either way.
            loop {
                let reply = mine.recv_deadline(&mut [0; 32], limit)?;
                assert_eq!(reply.sequence, 8);
            }
            #[allow(unreachable_code)]
            Ok(())
        });
    });
}

#[test]
fn the_right_is_named_where_it_is_missing() {
    isolated(|| {
        unprivileged(|| {
            let error = assert_fails("EPERM", open(EchoSocket::Raw, HOST));
            assert!(error.hint().unwrap().contains("CAP_NET_RAW"), "{error}");
            let error = assert_fails("EACCES", open(EchoSocket::Ping, HOST));
            assert!(error.hint().unwrap().contains("net.ipv4.ping_group_range"), "{error}");
            let error = assert_fails("EPERM", open(EchoSocket::Either, HOST));
            assert!(error.hint().unwrap().contains("CAP_NET_RAW, or a group"), "{error}");
        })
        .assert_ok();
        assert!(open(EchoSocket::Either, HOST).unwrap().is_raw(), "root falls back to a raw socket");
        allow_ping_sockets();
        unprivileged(|| {
            let echo = open(EchoSocket::Either, HOST).unwrap();
            assert!(!echo.is_raw());
            echo.send(1, b"without privilege").unwrap();
            assert_eq!(echo.recv_deadline(&mut [0; 64], LONG).unwrap().len, 17);
        })
        .assert_ok();
        let first = IcmpEcho::options().socket(EchoSocket::Ping).identifier(99).open(HOST).unwrap();
        assert_eq!(first.identifier(), 99);
        assert_fails("EADDRINUSE", IcmpEcho::options().socket(EchoSocket::Ping).identifier(99).open(HOST));
    });
}

#[test]
fn forms_and_a_host_that_is_not_there() {
    isolated(|| {
        let echo = IcmpEcho::open(HOST).unwrap();
        assert!(assert_fails("EAGAIN", echo.try_recv(&mut [0; 8])).is_would_block());
        assert_times_out(|limit| echo.recv_deadline(&mut [0; 8], limit));
        assert_interrupted(libc::SYS_recvfrom, || echo.recv(&mut [0; 8]));
        assert_fails("ENETUNREACH", IcmpEcho::open(Ipv4Addr::new(192, 0, 2, 1)));
    });
}
