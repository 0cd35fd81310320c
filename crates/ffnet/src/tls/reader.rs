//! The reader below a channel: takes little from a side that has proved nothing, and much at once from one that has.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is taken from a side that has proved nothing: the opening of TLS, the preamble and the largest Hello are some 5 KiB.
/// Without it TLS alone would keep 64 KiB of one handshake message.
pub const UNPROVEN_BYTES_MAX: usize = 8 * 1024;
/// What is read from the socket at once. rustls alone takes 4 KiB, which is a system call for every few frames of a busy link.
const READ_BYTES: usize = 32 * 1024;

/// How many bytes are taken from the other side of a channel until it has proved who it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UnprovenBound(Arc<AtomicUsize>);

impl UnprovenBound {
    /// That of a side which has proved nothing.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(UNPROVEN_BYTES_MAX)))
    }

    /// That of a side which this one has dialled.
    pub(super) fn none() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// The other side has proved who it is: from now on everything is taken.
    pub fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// `None` without a bound.
    pub(super) fn left(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|left| *left != usize::MAX)
    }

    fn spend(&self, bytes: usize) {
        // Who lifts it is not overtaken: the proof is checked by whoever reads.
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A stream of which little is read up to the proof (see [`UnprovenBound`]), and after that a large piece at a time.
#[derive(Debug)]
pub struct Reader<S> {
    io: S,
    unproven_bound: UnprovenBound,
    /// What is read from the socket and not taken yet: the room is made when it is needed, at first there is none.
    ahead: Box<[u8]>,
    waiting: Range<usize>,
}

impl<S> Reader<S> {
    pub(super) fn new(io: S, unproven_bound: UnprovenBound) -> Self {
        Self { io, unproven_bound, ahead: Box::default(), waiting: 0..0 }
    }

    pub(super) fn unproven_bound(&self) -> &UnprovenBound {
        &self.unproven_bound
    }
}

impl<S: AsyncRead + Unpin> Reader<S> {
    fn poll_allowed(
        &mut self,
        left: usize,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if left == 0 {
            let error = format!("it has proved nothing within {UNPROVEN_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        let mut some = ReadBuf::new(room.initialize_unfilled_to(left.min(room.remaining())));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut some))?;
        let bytes = some.filled().len();
        room.advance(bytes);
        self.unproven_bound.spend(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.waiting.is_empty() {
            if let Some(left) = this.unproven_bound.left() {
                return this.poll_allowed(left, cx, room);
            }
            if this.ahead.is_empty() {
                this.ahead = vec![0; READ_BYTES].into();
            }
            let mut ahead = ReadBuf::new(&mut this.ahead);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut ahead))?;
            this.waiting = 0..ahead.filled().len();
        }
        let bytes = this.waiting.len().min(room.remaining());
        room.put_slice(&this.ahead[this.waiting.start..][..bytes]);
        this.waiting.start += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reader<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
