//! Connections in memory, for clients in the node's own process: tests and benchmarks. They cannot travel.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::{ClientListener, ClientStream, Transport};

/// Bytes in flight each way: what a socket's buffer would hold.
const PIPE_BYTES: usize = 256 * 1024;
/// Clients that may wait to be taken.
const WAITING_MAX: usize = 4096;

/// Connections in memory. Cheap to clone: every clone connects to the one node that listens.
///
/// ```
/// use ffnet::transport::{ClientStream, MemoryTransport, Transport, accept};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = MemoryTransport::default();
/// let mut listener = transport.listen(std::net::TcpListener::bind("127.0.0.1:0")?)?;
/// let mut client = transport.connect()?;
/// let served = accept(&mut *listener).await?;
/// assert_eq!(served.try_write(b"welcome")?, 7);
/// let mut heard = [0; 7];
/// client.read_exact(&mut heard).await?;
/// assert_eq!(&heard, b"welcome");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryTransport(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    listener: Mutex<Option<mpsc::Sender<Arc<MemoryServed>>>>,
    clients: AtomicU16,
    served: Mutex<Vec<Weak<MemoryServed>>>,
}

/// The end of a client: read and written as a socket is.
#[derive(Debug)]
pub struct MemoryClient {
    from_node: Arc<Pipe>,
    to_node: Arc<Pipe>,
}

/// The end of the node.
#[derive(Debug)]
struct MemoryServed {
    peer: SocketAddr,
    from_client: Arc<Pipe>,
    to_client: Arc<Pipe>,
}

struct MemoryListener(mpsc::Receiver<Arc<MemoryServed>>);

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe(Mutex<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    /// Whether nothing more is written.
    ended: bool,
    /// Whether nothing more is read.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl MemoryTransport {
    /// Connects to the node that listens.
    ///
    /// # Errors
    /// `ConnectionRefused` when none listens, or too many wait to be taken.
    pub fn connect(&self) -> io::Result<MemoryClient> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = self.0.listener.lock().clone().ok_or_else(refused)?;
        let (from_node, to_node) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
        let port = self.0.clients.fetch_add(1, Ordering::Relaxed);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let served = MemoryServed { peer, from_client: to_node.clone(), to_client: from_node.clone() };
        let served = Arc::new(served);
        {
            let mut all = self.0.served.lock();
            all.retain(|served| served.strong_count() > 0);
            all.push(Arc::downgrade(&served));
        }
        listener.try_send(served).map_err(|_| refused())?;
        Ok(MemoryClient { from_node, to_node })
    }

    /// Ends every connection without a word, as the end of the node's process does.
    pub fn cut(&self) {
        let all = std::mem::take(&mut *self.0.served.lock());
        for served in all.iter().filter_map(Weak::upgrade) {
            [&served.to_client, &served.from_client].into_iter().for_each(|pipe| {
                pipe.end();
                pipe.break_off();
            });
        }
    }
}

impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn listen(&self, _: std::net::TcpListener) -> io::Result<Box<dyn ClientListener>> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        *self.0.listener.lock() = Some(sender);
        Ok(Box::new(MemoryListener(receiver)))
    }

    fn adopt(&self, _: OwnedFd, _: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a connection in memory does not travel"))
    }
}

impl ClientListener for MemoryListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(served)) => Poll::Ready(Ok(served)),
            // The transport lives as long as its node: another one listens now.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Pipe {
    fn poll_read(&self, cx: &Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.bytes.is_empty() && !state.ended {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = state.bytes.len().min(room.remaining());
        let (front, back) = state.bytes.as_slices();
        let first = front.len().min(n);
        room.put_slice(front.get(..first).unwrap_or_default());
        room.put_slice(back.get(..n - first).unwrap_or_default());
        state.bytes.drain(..n);
        state.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.bytes.len() < PIPE_BYTES || state.broken {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.broken || state.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(PIPE_BYTES.saturating_sub(state.bytes.len()));
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes.extend(bytes.get(..n).unwrap_or_default());
        state.reader.take().into_iter().for_each(Waker::wake);
        Ok(n)
    }

    /// Nothing more is written.
    fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Nothing more is read.
    fn break_off(&self) {
        let mut state = self.0.lock();
        state.broken = true;
        state.writer.take().into_iter().for_each(Waker::wake);
    }
}

impl ClientStream for MemoryServed {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.from_client.poll_read(cx, room)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to_client.poll_write_ready(cx)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.to_client.try_write(bytes)
    }

    fn end_sending(&self) -> io::Result<()> {
        self.to_client.end();
        Ok(())
    }
}

impl Drop for MemoryServed {
    fn drop(&mut self) {
        self.to_client.end();
        self.from_client.break_off();
    }
}

impl AsyncRead for MemoryClient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.from_node.poll_read(cx, room)
    }
}

impl AsyncWrite for MemoryClient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.to_node.poll_write_ready(cx)?.is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.to_node.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to_node.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryClient {
    fn drop(&mut self) {
        self.to_node.end();
        self.from_node.break_off();
    }
}
