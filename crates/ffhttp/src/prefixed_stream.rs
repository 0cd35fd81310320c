//! A socket whose first bytes another process has read already, and whose traffic a monitor notes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::monitor::Monitor;
use crate::socket::Socket;

/// The socket of one HTTP connection: reads give `unread` first.
#[derive(Debug)]
pub(crate) struct PrefixedStream {
    stream: Socket,
    unread: Bytes,
    monitor: Arc<Monitor>,
}

impl PrefixedStream {
    pub(crate) fn new(stream: Socket, unread: Bytes, monitor: Arc<Monitor>) -> Self {
        Self { stream, unread, monitor }
    }

    /// The socket, and what was read of it after `read`, which was taken from here and not used.
    pub(crate) fn into_parts(self, read: Bytes) -> (Socket, Bytes) {
        let unread = if self.unread.is_empty() {
            read
        } else {
            read.iter().chain(&self.unread).copied().collect::<Vec<u8>>().into()
        };
        (self.stream, unread)
    }
}

impl AsyncRead for PrefixedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection that is held back is polled again when its hold ends.
        if !self.monitor.traffic.lock().may_read() {
            return Poll::Pending;
        }
        if !self.unread.is_empty() {
            let n = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..n]);
            self.unread.advance(n);
            self.monitor.traffic.lock().read(Instant::now());
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let mut traffic = self.monitor.traffic.lock();
        match polled {
            Poll::Pending => traffic.read_waits(Instant::now()),
            Poll::Ready(Ok(())) if buf.filled().len() > before => traffic.read(Instant::now()),
            Poll::Ready(_) => {}
        }
        polled
    }
}

impl AsyncWrite for PrefixedStream {
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
        self.monitor.traffic.lock().flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl PrefixedStream {
    fn noted(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut traffic = self.monitor.traffic.lock();
        match polled {
            Poll::Pending => traffic.write_waits(Instant::now()),
            Poll::Ready(_) => traffic.wrote(),
        }
        polled
    }
}
