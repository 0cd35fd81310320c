//! The socket of one HTTP connection, with what was read of it by a predecessor, and a note of what passes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::traffic::Traffic;

/// What the connection, its requests' bodies and its answers' bodies know together.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) traffic: Mutex<Traffic>,
    /// Rocket has agreed to speak another protocol: its end of that.
    pub(super) upgrade: Mutex<Option<OnUpgrade>>,
    /// Something has changed that the connection does not notice by itself.
    pub(super) changed: Notify,
}

impl Known {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            traffic: Mutex::new(Traffic::new(Instant::now())),
            upgrade: Mutex::new(None),
            changed: Notify::new(),
        })
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Tap {
    stream: TcpStream,
    unread: Bytes,
    known: Arc<Known>,
}

impl Tap {
    pub(super) fn new(stream: TcpStream, unread: Bytes, known: Arc<Known>) -> Self {
        Self { stream, unread, known }
    }

    /// The socket, and what was read of it after `read`, which was taken from here and not used.
    pub(super) fn into_parts(self, read: Bytes) -> (TcpStream, Bytes) {
        let unread = if self.unread.is_empty() {
            read
        } else {
            read.iter().chain(&self.unread).copied().collect::<Vec<u8>>().into()
        };
        (self.stream, unread)
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Who is held back is polled again when that ends.
        if !self.known.traffic.lock().may_read() {
            return Poll::Pending;
        }
        if !self.unread.is_empty() {
            let n = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..n]);
            self.unread.advance(n);
            self.known.traffic.lock().read(Instant::now());
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let mut traffic = self.known.traffic.lock();
        match polled {
            Poll::Pending => traffic.read_waits(Instant::now()),
            Poll::Ready(Ok(())) if buf.filled().len() > before => traffic.read(Instant::now()),
            Poll::Ready(_) => {}
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written everything that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.known.traffic.lock().flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Tap {
    fn noted(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut traffic = self.known.traffic.lock();
        match polled {
            Poll::Pending => traffic.write_waits(Instant::now()),
            Poll::Ready(_) => traffic.wrote(),
        }
        polled
    }
}
