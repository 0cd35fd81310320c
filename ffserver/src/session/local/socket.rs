//! A client's socket: written by its connection, and directly by senders while the connection is idle.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::session::local::write_buffer::WriteBuffer;

/// The bound on pieces of one write: what the shortest of them make together fills a socket's buffer for a while.
const PIECES_MAX: usize = 64;

/// A client's socket, closed when the last clone is gone. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<TcpStream>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
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
        self.0.try_write(bytes).unwrap_or(0)
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
                return Poll::Ready(Ok(()));
            }
            ready!(self.0.poll_write_ready(cx))?;
            match self.try_write(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Socket {
    /// As tokio's own: a read that has not filled the buffer has emptied the socket, so the next one waits for the
    /// next event and costs no system call.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            let (len, mut read) = (room.len(), 0);
            let outcome = self.0.try_io(Interest::READABLE, || {
                read = rustix::net::recv(&*self.0, room, rustix::net::RecvFlags::empty())?.0;
                let emptied = 0 < read && read < len;
                if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && read == 0 => {}
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(e)),
                _ => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).map_err(Into::into))
    }
}
