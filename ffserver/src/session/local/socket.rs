//! A client's socket: written by its connection, and directly by senders while the connection is idle.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ffnet::transport::ClientStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::session::local::write_buffer::WriteBuffer;

/// The bound on pieces of one write: what the shortest of them make together fills a socket's buffer for a while.
const PIECES_MAX: usize = 64;

/// A client's socket, over its transport; closed when the last clone is gone. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<dyn ClientStream>);

impl Socket {
    pub(crate) fn new(stream: Arc<dyn ClientStream>) -> Self {
        Self(stream)
    }

    /// The connection under it.
    pub(crate) fn connection(&self) -> &dyn ClientStream {
        &*self.0
    }

    /// Writes as many bytes as the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes no more, and then some may be written; else it is broken.
    pub(crate) fn try_write(&self, buffer: &mut WriteBuffer) -> io::Result<()> {
        while !buffer.is_empty() {
            let n = match buffer.whole() {
                Some(rest) => self.0.try_write(rest)?,
                None => {
                    let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
                    let n = buffer.pieces(&mut pieces);
                    self.0.try_write_vectored(&pieces[..n])?
                }
            };
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buffer.advance(n);
        }
        Ok(())
    }

    /// Writes bytes; says how many of them the socket has taken.
    pub(crate) fn try_write_bytes(&self, bytes: &[u8]) -> usize {
        // The reason why it takes none is found by the connection, which has to write the rest.
        self.0.try_write(bytes).unwrap_or(0).min(bytes.len())
    }

    /// Whether the transport has taken bytes that it has not sent: the connection has to see to it.
    pub(crate) fn has_unsent(&self) -> bool {
        self.0.has_unsent()
    }

    /// Writes all bytes, or remembers the waker for when the socket takes more.
    pub(crate) fn poll_write_all(
        &self,
        buffer: &mut WriteBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // An empty buffer has nothing to be ready for.
            if buffer.is_empty() {
                return if self.0.has_unsent() { self.0.poll_flush(cx) } else { Poll::Ready(Ok(())) };
            }
            ready!(self.0.poll_write_ready(cx))?;
            match self.try_write(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(|n| n.min(bytes.len()))),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_flush(cx))?;
        Poll::Ready(self.0.end_sending())
    }
}
