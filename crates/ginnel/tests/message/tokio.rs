//! The async forms: each mechanism waits, is woken, and loses nothing when its future is dropped.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use ginnel::Namespace;
use ginnel::message::sysv_queue::Change;
use ginnel::message::{
    IcmpEcho, PosixQueue, RawSocket, Select, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacket,
    UnixSeqpacketListener,
};
use ginnel::tokio::{Async, Polled};
use ginnel_testkit::{blocked_in, fork, isolated, wait_until};

const NAME: &str = "@ginnel";

fn block_on(test: impl Future<Output = ginnel::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test).unwrap();
}

/// Starts to wait, and gives up.
async fn give_up<T: std::fmt::Debug>(future: impl Future<Output = ginnel::Result<T>>) {
    let outcome = tokio::time::timeout(Duration::from_millis(10), future).await;
    assert!(outcome.is_err(), "it waits: {outcome:?}");
}

#[test]
fn queues() {
    isolated(|| {
        block_on(async {
            let queue = Polled::new(SysvQueue::private()?);
            let mut buffer = [0; 64];
            give_up(queue.recv(Select::Any, &mut buffer)).await;
            let (got, sent) = tokio::join!(queue.recv(Select::Type(3), &mut buffer), queue.send(3, b"three"));
            sent?;
            assert_eq!(got?.len, 5);

            let queue =
                PosixQueue::options().create(true).messages_max(1).message_bytes_max(64).open("/async")?;
            let queue = Async::new(queue)?;
            give_up(queue.recv(&mut buffer)).await;
            let (got, sent) = tokio::join!(queue.recv(&mut buffer), queue.send(7, b"seven"));
            sent?;
            assert_eq!((got?.priority, &buffer[..5]), (7, &b"seven"[..]));
            queue.send(0, b"fills").await?;
            give_up(queue.send(0, b"never sent")).await;
            let mut other = [0; 64];
            let (sent, got) = tokio::join!(queue.send(0, b"next"), queue.recv(&mut other));
            sent?;
            assert_eq!(got?.len, 5);
            assert_eq!(queue.recv(&mut other).await?.len, 4);
            assert_eq!(queue.get_ref().status()?.messages, 0);
            Ok(())
        });
    });
}

#[test]
fn a_queue_in_user_space_waits_in_the_reactor() {
    isolated(|| {
        let home = Namespace::private().unwrap();
        let queue = Polled::new(SysvQueue::private_in(&home).unwrap());
        let change = Change { bytes_max: Some(10), ..Change::default() };
        queue.get_ref().set(change).unwrap();
        block_on(async {
            let mut buffer = [0; 64];
            give_up(queue.recv(Select::Any, &mut buffer)).await;
            queue.send(1, b"other").await?;
            give_up(queue.recv(Select::Type(3), &mut buffer)).await;
            // By type, while there is another: of which there are more before the one that is waited for.
            let (got, sent) = tokio::join!(queue.recv(Select::Type(3), &mut buffer), async {
                tokio::task::yield_now().await;
                queue.send(2, b"x").await?;
                tokio::task::yield_now().await;
                queue.send(3, b"thr").await
            });
            sent?;
            assert_eq!(got?.len, 3);
            give_up(queue.send(4, b"too much")).await;
            let mut other = [0; 64];
            let (sent, got) = tokio::join!(queue.send(4, b"too much"), async {
                for _ in 0..2 {
                    tokio::task::yield_now().await;
                    queue.recv(Select::UpTo(2), &mut other).await?;
                }
                Ok::<(), ginnel::Error>(())
            });
            sent?;
            got?;
            assert_eq!(queue.get_ref().status()?.messages, 1);
            // Another process, and no clock: nothing here makes a pause.
            let waiting = rustix::thread::gettid().as_raw_nonzero().get();
            let sender = fork(|| {
                let calls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
                wait_until("the other sleeps", || calls.iter().any(|call| blocked_in(waiting, *call)));
                SysvQueue::from_id_in(&home, queue.get_ref().id()).send(9, b"x").unwrap();
            });
            assert_eq!(queue.recv(Select::Type(9), &mut buffer).await?.message_type, 9);
            sender.assert_ok();
            let id = queue.get_ref().id();
            let (got, removed) = tokio::join!(queue.recv(Select::Type(9), &mut buffer), async {
                tokio::task::yield_now().await;
                SysvQueue::from_id_in(&home, id).remove()
            });
            removed?;
            assert!(got.unwrap_err().is_removed());
            Ok(())
        });
    });
}

#[test]
fn a_queue_of_the_kernels_cannot_be_polled_and_says_what_to_do() {
    isolated(|| {
        let error = SysvQueue::private().unwrap().descriptor().unwrap_err();
        assert_eq!(error.errno_name(), "EOPNOTSUPP");
        assert!(error.to_string().contains("user-space namespace"), "{error}");
    });
}

#[test]
fn unix_sockets() {
    isolated(|| {
        block_on(async {
            let server = Async::new(UnixDatagram::bind(NAME)?)?;
            let client = Async::new(UnixDatagram::unbound()?)?;
            let mut buffer = [0; 64];
            give_up(server.recv(&mut buffer)).await;
            let (got, sent) = tokio::join!(server.recv_from(&mut buffer), client.send_to(b"hello", NAME));
            sent?;
            assert_eq!(got?.len, 5);
            while client.get_ref().try_send_to(b"fill", NAME).is_ok() {}
            give_up(client.send_to(b"x", NAME)).await;
            let (sent, got) = tokio::join!(client.send_to(b"x", NAME), server.recv(&mut buffer));
            sent?;
            assert_eq!(got?, 4);
            while server.get_ref().try_recv(&mut buffer).is_ok() {}
            let connected = Async::new(UnixDatagram::connect(NAME)?)?;
            connected.send(b"bye").await?;
            assert_eq!(server.recv(&mut buffer).await?, 3);
            drop(server);

            let listener = Async::new(UnixSeqpacketListener::bind(NAME)?)?;
            give_up(listener.accept()).await;
            let (client, server) = tokio::join!(Async::<UnixSeqpacket>::connect(NAME), listener.accept());
            let (client, server) = (client?, server?);
            give_up(server.recv(&mut buffer)).await;
            client.send(b"").await?;
            assert_eq!(server.recv(&mut buffer).await?, Some(0));
            drop(client);
            assert_eq!(server.recv(&mut buffer).await?, None);
            Ok(())
        });
    });
}

#[test]
fn ip_sockets() {
    isolated(|| {
        block_on(async {
            let server = Async::new(UdpSocket::bind("127.0.0.1:0")?)?;
            let client = Async::new(UdpSocket::connect(server.get_ref().local_address()?)?)?;
            let mut buffer = [0; 1500];
            give_up(server.recv_from(&mut buffer)).await;
            client.send(b"ask").await?;
            let got = server.recv_from(&mut buffer).await?;
            server.send_to(b"answer", got.sender).await?;
            assert_eq!(client.recv(&mut buffer).await?, 6);

            let raw = Async::new(RawSocket::open_v4(253)?)?;
            let (got, sent) =
                tokio::join!(raw.recv_from(&mut buffer), raw.send_to(b"raw", Ipv4Addr::LOCALHOST.into()));
            sent?;
            assert_eq!(got?.len, 23);

            let echo = Async::new(IcmpEcho::open(Ipv4Addr::LOCALHOST)?)?;
            give_up(echo.recv(&mut buffer)).await;
            echo.send(5, b"ping").await?;
            assert_eq!(echo.recv(&mut buffer).await?.sequence, 5);
            Ok(())
        });
    });
}
