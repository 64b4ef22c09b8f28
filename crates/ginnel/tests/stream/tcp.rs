//! TCP: `tcp(7)`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel::Deadline;
use ginnel::stream::{ByteRead, ByteWrite, TcpListener, TcpStream};
use ginnel_testkit::{Exit, c_program, fork, isolated, run_ok, spawn, wait_blocked_in, wait_until};

use super::{LONG, POLL, interrupted, pattern, sigpipe_kills, stay, times_out};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_address().unwrap()).unwrap();
    (client, listener.accept().unwrap())
}

#[test]
fn by_name_and_by_address() {
    isolated(|| {
        for name in ["127.0.0.1:7001", "[::1]:7002", "localhost:7003"] {
            let listener = TcpListener::bind(name).unwrap();
            let mut client = TcpStream::connect(name).unwrap();
            let mut served = listener.accept().unwrap();
            assert_eq!(client.local_address().unwrap(), served.peer_address().unwrap());
            assert_eq!(client.peer_address().unwrap(), served.local_address().unwrap());
            client.write_all(b"hello").unwrap();
            client.shutdown_write().unwrap();
            let mut text = String::new();
            served.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
        assert!(
            TcpStream::connect("no-port").unwrap_err().to_string().starts_with("tcp:no-port: getaddrinfo: ")
        );
        let refused = TcpStream::connect(("127.0.0.1", 7999)).unwrap_err();
        assert_eq!(refused.errno_name(), "ECONNREFUSED");
        assert!(refused.to_string().contains("nobody listens there"), "{refused}");
        assert_eq!(TcpListener::bind("10.1.2.3:80").unwrap_err().errno_name(), "EADDRNOTAVAIL");
        assert_eq!(TcpStream::connect("10.1.2.3:80").unwrap_err().errno_name(), "ENETUNREACH");
    });
}

#[test]
fn a_port_is_taken_once_and_comes_back() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let error = TcpListener::bind("127.0.0.1:7000").unwrap_err();
        assert!(error.is_already_exists() && error.to_string().contains("ss -ltnp"), "{error}");
        // The side that closes first keeps the port in TIME_WAIT.
        let client = TcpStream::connect("127.0.0.1:7000").unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read_deadline(&mut [0], LONG).unwrap(), 0);
        drop((client, listener));
        let plain = TcpListener::options().reuse_address(false).bind("127.0.0.1:7000").unwrap_err();
        assert!(plain.is_already_exists(), "without SO_REUSEADDR it is still taken");
        let _again = TcpListener::bind("127.0.0.1:7000").unwrap();
        let shared = TcpListener::options().reuse_port(true);
        let _shared = (shared.bind("127.0.0.1:7001").unwrap(), shared.bind("127.0.0.1:7001").unwrap());
    });
}

#[test]
fn accept_and_connect_in_three_forms() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        assert!(listener.try_accept().unwrap_err().is_would_block());
        times_out(|deadline| listener.accept_deadline(deadline));
        interrupted(POLL, || listener.accept());
        let child = fork(|| {
            listener.accept().unwrap();
        });
        wait_blocked_in(child.pid(), POLL);
        TcpStream::connect_deadline("127.0.0.1:7000", LONG).unwrap();
        child.assert_ok();

        let now = TcpStream::connect_deadline("127.0.0.1:7000", Deadline::NOW).unwrap_err();
        assert!(now.is_would_block(), "{now}");
        let _given_up = listener.accept_deadline(LONG);
        let connecting = TcpStream::try_connect("127.0.0.1:7000").unwrap();
        let stream = connecting.wait_deadline(LONG).unwrap();
        drop(connecting);
        let served = listener.accept_deadline(LONG).unwrap();
        stream.try_write(b"x").unwrap();
        assert_eq!(served.read_deadline(&mut [0], LONG).unwrap(), 1);
        drop(stream);
        assert_eq!(served.read_deadline(&mut [0], LONG).unwrap(), 0, "no descriptor of it is left");
        let refused =
            TcpStream::try_connect("127.0.0.1:7999").and_then(|connecting| connecting.wait_deadline(LONG));
        assert_eq!(refused.unwrap_err().errno_name(), "ECONNREFUSED");

        let connecting = TcpStream::try_connect("127.0.0.1:7999").unwrap();
        assert!(connecting.wait_deadline(LONG).is_err());
        assert!(connecting.wait_deadline(LONG).unwrap_err().is_disconnected(), "it stays failed");
    });
}

/// A listener whose queue is full does not answer: as good as a host that is down.
#[test]
fn no_answer() {
    isolated(|| {
        let address: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let _listener = TcpListener::options().backlog(0).bind(address).unwrap();
        let mut queued = Vec::new();
        let silent = loop {
            let connecting = TcpStream::try_connect(address).unwrap();
            match connecting.wait_deadline(Duration::from_millis(200)) {
                Ok(stream) => queued.push(stream),
                Err(_) => break connecting,
            }
        };
        assert!(silent.try_wait().unwrap_err().is_would_block());
        times_out(|deadline| silent.wait_deadline(deadline));
        times_out(|deadline| TcpStream::connect_deadline(address, deadline));
        interrupted(libc::SYS_connect, || TcpStream::connect(address));
        interrupted(libc::SYS_connect, || TcpStream::connect_deadline(address, LONG));
    });
}

#[test]
fn three_forms_of_reading_and_writing() {
    isolated(|| {
        let (client, served) = pair();
        let mut buffer = [0; 16];
        assert!(client.try_read(&mut buffer).unwrap_err().is_would_block());
        assert!(client.try_peek(&mut buffer).unwrap_err().is_would_block());
        times_out(|deadline| client.read_deadline(&mut buffer, deadline));
        times_out(|deadline| client.peek_deadline(&mut [0], deadline));
        interrupted(libc::SYS_recvfrom, || client.peek(&mut [0]));
        interrupted(libc::SYS_recvfrom, || client.read_deadline(&mut [0], Deadline::NEVER));
        served.try_write(b"hello").unwrap();
        assert_eq!(client.peek_deadline(&mut buffer, LONG).unwrap(), 5);
        assert_eq!(client.available().unwrap(), 5);
        assert_eq!(client.try_read(&mut buffer).unwrap(), 5);
        while served.try_write(&[0; 65536]).is_ok() {}
        times_out(|deadline| {
            // The kernel moves bytes from one socket's buffer to the other's for a while.
            loop {
                served.write_deadline(&[0; 65536], deadline)?;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
    });
}

#[test]
fn large_payloads_and_the_end() {
    isolated(|| {
        let (client, mut served) = pair();
        let sent = pattern(5_000_000);
        let child = fork(|| {
            client.write_all_deadline(&sent, LONG).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        drop(client);
        let mut got = Vec::new();
        served.read_to_end(&mut got).unwrap();
        assert!(got == sent);
        child.assert_ok();
    });
}

#[test]
fn a_peer_that_is_gone_never_raises_sigpipe() {
    isolated(|| {
        fork(|| {
            sigpipe_kills();
            let (client, served) = pair();
            served.set_linger(Some(Duration::ZERO)).unwrap();
            drop(served);
            let error = client.read_deadline(&mut [0], LONG).unwrap_err();
            assert_eq!(error.errno_name(), "ECONNRESET", "linger 0 resets");
            assert_eq!(client.try_write(b"x").unwrap_err().errno_name(), "EPIPE");
            assert!((&client).write(b"x").is_err());
        })
        .assert_ok();

        let (client, served) = pair();
        let (client, mut served) = (client, Some(served));
        let child = fork(|| {
            stay();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        served.take();
        client.try_write(b"unread").unwrap();
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        let mut error = None;
        wait_until("the reset arrives", || match client.try_read(&mut [0]) {
            Err(other) if !other.is_would_block() => {
                error = Some(other);
                true
            }
            _ => false,
        });
        assert!(error.unwrap().is_disconnected());
    });
}

#[test]
fn options_of_a_stream() {
    isolated(|| {
        let (client, served) = pair();
        assert!(client.nodelay().unwrap() && served.nodelay().unwrap());
        client.set_nodelay(false).unwrap();
        assert!(!client.nodelay().unwrap());
        use rustix::net::sockopt;
        client.set_keepalive(Some(Duration::from_secs(7))).unwrap();
        assert!(sockopt::socket_keepalive(&client).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&client).unwrap(), Duration::from_secs(7));
        client.set_keepalive(None).unwrap();
        assert!(!sockopt::socket_keepalive(&client).unwrap());
        assert_eq!(client.set_keepalive(Some(Duration::ZERO)).unwrap_err().errno_name(), "EINVAL");
        client.set_linger(Some(Duration::from_secs(3))).unwrap();
        assert_eq!(sockopt::socket_linger(&client).unwrap(), Some(Duration::from_secs(3)));
        drop(served);
        assert_eq!(client.read_deadline(&mut [0], LONG).unwrap(), 0);
    });
}

#[test]
fn c_on_either_side() {
    isolated(|| {
        let program = c_program!("tests/stream/tcp.c");
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let child = fork(|| {
            assert_eq!(run_ok(Command::new(&program).args(["client", "7000", "from c"])), "FROM C");
        });
        let mut served = listener.accept_deadline(LONG).unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        served.write_all(text.to_uppercase().as_bytes()).unwrap();
        drop(served);
        child.assert_ok();

        let mut server = spawn(Command::new(&program).arg("serve").stdout(Stdio::piped()));
        let mut port = String::new();
        BufReader::new(server.stdout().unwrap()).read_line(&mut port).unwrap();
        let mut client = TcpStream::connect(format!("localhost:{}", port.trim())).unwrap();
        client.write_all(b"from rust").unwrap();
        client.shutdown_write().unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "FROM RUST");
        server.assert_ok();
    });
}
