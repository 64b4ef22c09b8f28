//! Streams, async: `tokio::io::AsyncRead` and `AsyncWrite` for whatever reads and writes bytes, accept, connect, frames.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ginnel::stream::pipe;
//! use ginnel::tokio::Async;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let (reader, writer) = pipe()?;
//! let (mut reader, mut writer) = (Async::new(reader)?, Async::new(writer)?);
//! writer.write_all(b"over the garden wall").await?;
//! drop(writer);
//! let mut text = String::new();
//! reader.read_to_string(&mut text).await?;
//! assert_eq!(text, "over the garden wall");
//! # Ok(()) }
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::ToSocketAddrs;

use rustix::io::Errno;

use super::{Async, Polled, failed, retry};
use crate::UnixAddress;
use crate::error::{Error, Label, Result};
use crate::stream::{
    ByteRead, ByteWrite, Fifo, FifoReader, FifoWriter, Framed, TcpListener, TcpStream, UnixListener,
    UnixStream,
};

impl<T: ByteRead> AsyncRead for Async<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.reactor.poll_read_ready(cx))?;
            match self.mechanism.try_read(buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.is_would_block() => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl<T: ByteWrite> AsyncWrite for Async<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.reactor.poll_write_ready(cx))?;
            match self.mechanism.try_write(buf) {
                Err(error) if error.is_would_block() => guard.clear_ready(),
                other => return Poll::Ready(other.map_err(io::Error::from)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Shuts a socket's writing half down. The end of anything else comes when it is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.mechanism.shutdown_write().map_err(io::Error::from))
    }
}

impl Async<UnixListener> {
    /// The next connection.
    ///
    /// # Errors
    /// As [`UnixListener::accept`].
    pub async fn accept(&self) -> Result<Async<UnixStream>> {
        Async::new(self.read_with(UnixListener::try_accept).await?)
    }
}

impl Async<UnixStream> {
    /// Connects to the server of this name, a path or `@name`. While its queue is full this tries again after a pause,
    /// as [`retry`] does: the kernel has no event for a free place.
    ///
    /// # Errors
    /// As [`UnixStream::connect`].
    pub async fn connect(name: impl Into<UnixAddress>) -> Result<Async<UnixStream>> {
        let address = name.into();
        Async::new(retry(|| UnixStream::try_connect(&address)).await?)
    }
}

impl Async<TcpListener> {
    /// The next connection.
    ///
    /// # Errors
    /// As [`TcpListener::accept`].
    pub async fn accept(&self) -> Result<Async<TcpStream>> {
        Async::new(self.read_with(TcpListener::try_accept).await?)
    }
}

impl Async<TcpStream> {
    /// Connects to `host:port`, to the first of its addresses that answers; the resolver runs on another thread.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect(address: impl ToSocketAddrs) -> Result<Async<TcpStream>> {
        let resolved = ::tokio::net::lookup_host(address).await;
        let mut outcome = Err(failed("getaddrinfo", &io::ErrorKind::AddrNotAvailable.into()));
        for address in resolved.map_err(|error| failed("getaddrinfo", &error))? {
            outcome = connect_one(address).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

async fn connect_one(address: SocketAddr) -> Result<Async<TcpStream>> {
    let connecting = Async::new(TcpStream::try_connect(address)?)?;
    Async::new(connecting.write_with(|connecting| connecting.try_wait()).await?)
}

impl Async<FifoReader> {
    /// Waits for somebody who has the writing end open, or for data: what a server does after it has read the end. By
    /// trying, as [`retry`] does: the kernel has no event for a writer that has written nothing yet.
    ///
    /// # Errors
    /// As [`FifoReader::wait_for_writer`].
    pub async fn wait_for_writer(&self) -> Result<()> {
        retry(|| self.mechanism.try_wait_for_writer()).await
    }
}

impl Polled<Fifo> {
    /// Opens the reading end; waits until somebody has the writing end open.
    ///
    /// # Errors
    /// As [`Fifo::open_reader`].
    pub async fn open_reader(&self) -> Result<Async<FifoReader>> {
        let reader = Async::new(self.get_ref().try_open_reader()?)?;
        reader.wait_for_writer().await?;
        Ok(reader)
    }

    /// Opens the writing end; waits until somebody has the reading end open.
    ///
    /// # Errors
    /// As [`Fifo::open_writer`].
    pub async fn open_writer(&self) -> Result<Async<FifoWriter>> {
        let open = || match self.get_ref().try_open_writer() {
            // "Nobody there" is what this waits for.
            Err(error) if error.raw() == Errno::NXIO => {
                Err(Error::new("open", Errno::AGAIN, &Label::new(error.object())))
            }
            other => other,
        };
        Async::new(retry(open).await?)
    }
}

impl<S: ByteRead> Async<Framed<S>> {
    /// Receives a frame; `None` is the stream's end, between two frames. What has arrived of a frame when the future is
    /// dropped is kept.
    ///
    /// # Errors
    /// As [`Framed::recv`].
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let mut ready = self.reactor.readable().await.map_err(|error| failed("epoll_wait", &error))?;
            match self.mechanism.try_recv() {
                Err(error) if error.is_would_block() => ready.clear_ready(),
                other => return other,
            }
        }
    }
}

impl<S: ByteWrite> Async<Framed<S>> {
    /// Sends a frame. When the future is dropped the frame either was not taken, or what is not sent of it yet goes out
    /// before the next one.
    ///
    /// # Errors
    /// As [`Framed::send`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.write_framed(|framed| framed.try_send(frame)).await?;
        self.flush().await
    }

    /// Sends what is pending.
    ///
    /// # Errors
    /// As [`Framed::flush`].
    pub async fn flush(&mut self) -> Result<()> {
        self.write_framed(Framed::try_flush).await
    }

    async fn write_framed(&mut self, mut attempt: impl FnMut(&mut Framed<S>) -> Result<()>) -> Result<()> {
        loop {
            let mut ready = self.reactor.writable().await.map_err(|error| failed("epoll_wait", &error))?;
            match attempt(&mut self.mechanism) {
                Err(error) if error.is_would_block() => ready.clear_ready(),
                other => return other,
            }
        }
    }
}
