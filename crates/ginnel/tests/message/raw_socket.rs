//! Raw sockets: with the IP header and without, both IP versions, and the right that they need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ginnel::message::RawSocket;
use ginnel_testkit::{isolated, unprivileged};

use crate::common::{LONG, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out};

const EXPERIMENT: u8 = 253;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn ipv4_comes_with_its_header() {
    isolated(|| {
        let socket = RawSocket::open_v4(EXPERIMENT).unwrap();
        assert_close_on_exec();
        socket.send_to(b"bare", HOST).unwrap();
        let mut packet = [0; 100];
        let got = socket.recv_from_deadline(&mut packet, LONG).unwrap();
        assert_eq!((got.sender, got.len), (HOST, 24));
        assert_eq!((packet[0], packet[9], &packet[20..24]), (0x45, EXPERIMENT, &b"bare"[..]));

        // Our own header: another TTL, the rest for the kernel to fill in.
        let maker = RawSocket::options().header_included(true).open_v4(EXPERIMENT).unwrap();
        let mut own = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 77, EXPERIMENT, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1];
        own.extend(b"made by hand");
        maker.send_to(&own, HOST).unwrap();
        let got = socket.recv_from_deadline(&mut packet, LONG).unwrap();
        assert_eq!((packet[8], &packet[20..got.len]), (77, &b"made by hand"[..]));
        assert_fails("EMSGSIZE", socket.send_to(b"long", HOST).and_then(|()| socket.recv_from(&mut [0; 10])));
    });
}

#[test]
fn ipv6_comes_without() {
    isolated(|| {
        let socket = RawSocket::open_v6(EXPERIMENT).unwrap();
        let host = IpAddr::V6(Ipv6Addr::LOCALHOST);
        socket.connect_to(host).unwrap();
        socket.send_to(b"bare", host).unwrap();
        let mut packet = [0; 100];
        let got = socket.recv_from_deadline(&mut packet, LONG).unwrap();
        assert_eq!((got.sender, &packet[..got.len]), (host, &b"bare"[..]));
    });
}

#[test]
fn forms_and_refusals() {
    isolated(|| {
        let socket = RawSocket::open_v4(EXPERIMENT).unwrap();
        assert!(assert_fails("EAGAIN", socket.try_recv_from(&mut [0; 8])).is_would_block());
        assert_times_out(|limit| socket.recv_from_deadline(&mut [0; 8], limit));
        assert_interrupted(libc::SYS_recvfrom, || socket.recv_from(&mut [0; 8]));
        assert_fails("ENETUNREACH", socket.send_to(b"x", Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_fails("EINVAL", RawSocket::open_v4(0));
        unprivileged(|| {
            let error = assert_fails("EPERM", RawSocket::open_v4(EXPERIMENT));
            assert!(error.hint().unwrap().contains("CAP_NET_RAW"), "{error}");
        })
        .assert_ok();
    });
}
