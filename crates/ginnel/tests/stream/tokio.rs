//! The async forms.

use std::time::Duration;

use ginnel::stream::{
    ByteWrite, Fifo, Framed, Pty, TcpListener, TcpStream, UnixListener, UnixStream, pipe, socketpair,
};
use ginnel::tokio::{Async, Polled};
use ginnel_testkit::{isolated, temp_dir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pattern;

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future);
}

#[test]
fn more_than_a_pipe_holds_at_once() {
    isolated(|| {
        block_on(async {
            let (reader, writer) = pipe().unwrap();
            let (mut reader, mut writer) = (Async::new(reader).unwrap(), Async::new(writer).unwrap());
            let sent = pattern(1_000_000);
            let send = async {
                writer.write_all(&sent).await.unwrap();
                drop(writer);
            };
            let mut got = Vec::new();
            let (_, len) = tokio::join!(send, reader.read_to_end(&mut got));
            len.unwrap();
            assert!(got == sent);
        });
    });
}

#[test]
fn unix_and_tcp_servers() {
    isolated(|| {
        block_on(async {
            let listener = Async::new(UnixListener::options().backlog(1).bind("@async").unwrap()).unwrap();
            let serve = async {
                for _ in 0..8 {
                    let mut stream = listener.accept().await.unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    stream.write_all(text.to_uppercase().as_bytes()).await.unwrap();
                }
            };
            // More than the queue holds: connecting has to wait.
            let clients: Vec<_> = (0..8)
                .map(|number| {
                    tokio::spawn(async move {
                        let mut stream = Async::<UnixStream>::connect("@async").await.unwrap();
                        stream.write_all(format!("client {number}").as_bytes()).await.unwrap();
                        stream.shutdown().await.unwrap();
                        let mut text = String::new();
                        stream.read_to_string(&mut text).await.unwrap();
                        assert_eq!(text, format!("CLIENT {number}"));
                    })
                })
                .collect();
            serve.await;
            for client in clients {
                client.await.unwrap();
            }
            assert!(Async::<UnixStream>::connect("@nobody").await.unwrap_err().is_not_found());

            let listener = Async::new(TcpListener::bind("127.0.0.1:7000").unwrap()).unwrap();
            let connect = Async::<TcpStream>::connect("localhost:7000");
            let (client, served) = tokio::join!(connect, listener.accept());
            let (mut client, mut served) = (client.unwrap(), served.unwrap());
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut text = String::new();
            served.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "hello");
            let refused = Async::<TcpStream>::connect("127.0.0.1:7999").await.unwrap_err();
            assert_eq!(refused.errno_name(), "ECONNREFUSED");
        });
    });
}

#[test]
fn frames_survive_a_dropped_future() {
    isolated(|| {
        block_on(async {
            let (near, far) = socketpair().unwrap();
            let mut framed = Async::new(Framed::new(near)).unwrap();
            far.try_write(b"\0\0\0\x05he").unwrap();
            let late = tokio::time::timeout(Duration::from_millis(20), framed.recv()).await;
            assert!(late.is_err());
            far.try_write(b"llo").unwrap();
            assert_eq!(framed.recv().await.unwrap().unwrap(), b"hello");

            let large = pattern(2_000_000);
            let late = tokio::time::timeout(Duration::from_millis(20), framed.send(&large)).await;
            assert!(late.is_err(), "nobody reads");
            let mut far = Async::new(Framed::new(far)).unwrap();
            let (sent, got) = tokio::join!(framed.send(b"next"), async {
                (far.recv().await.unwrap().unwrap(), far.recv().await.unwrap().unwrap())
            });
            sent.unwrap();
            assert!(got.0 == large, "taken when the future was dropped, so it went out whole");
            assert_eq!(got.1, b"next");
            drop(far);
            assert_eq!(framed.recv().await.unwrap(), None);
        });
    });
}

#[test]
fn fifos_find_each_other() {
    isolated(|| {
        block_on(async {
            let directory = temp_dir();
            let fifo = Polled::new(Fifo::create(directory.path().join("f")).unwrap());
            for _ in 0..2 {
                let (reader, writer) = tokio::join!(fifo.open_reader(), fifo.open_writer());
                let (mut reader, mut writer) = (reader.unwrap(), writer.unwrap());
                writer.write_all(b"hello").await.unwrap();
                drop(writer);
                let mut text = String::new();
                reader.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "hello");
                let (waited, again) = tokio::join!(reader.wait_for_writer(), fifo.open_writer());
                waited.unwrap();
                again.unwrap().write_all(b"again").await.unwrap();
                assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 5);
            }
        });
    });
}

#[test]
fn a_pseudo_terminal() {
    isolated(|| {
        block_on(async {
            let pty = Pty::options().open().unwrap();
            let mut child = pty.spawn(std::process::Command::new("tty")).unwrap();
            let expected = format!("{}\r\n", pty.path().display());
            let mut emulator = Async::new(pty).unwrap();
            let mut screen = String::new();
            emulator.read_to_string(&mut screen).await.unwrap();
            assert_eq!(screen, expected);
            child.wait().unwrap();
        });
    });
}
