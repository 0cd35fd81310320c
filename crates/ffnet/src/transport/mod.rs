//! The transports of game clients: how their connections come, how bytes go over them, and whether one can go on in another
//! process. One file each: [`tcp`], [`memory`]. What the bytes mean is a protocol's matter (`ffproto::protocol`).

mod caught;
pub mod memory;
pub mod tcp;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

pub use caught::CaughtTransport;
pub use memory::MemoryTransport;
pub use tcp::TcpTransport;

/// A transport of a node's clients. One value serves all connections.
///
/// Over TCP, with a mask over every byte that the node writes; its connections end with their process:
///
/// ```
/// use std::io;
/// use std::net::{SocketAddr, TcpListener};
/// use std::os::fd::OwnedFd;
/// use std::sync::Arc;
/// use std::task::{Context, Poll, ready};
///
/// use ffnet::transport::{ClientListener, ClientStream, TcpTransport, Transport};
/// use tokio::io::ReadBuf;
///
/// #[derive(Debug)]
/// struct Masked;
///
/// struct MaskedListener(Box<dyn ClientListener>);
///
/// #[derive(Debug)]
/// struct MaskedStream(Arc<dyn ClientStream>);
///
/// impl Transport for Masked {
///     fn name(&self) -> &'static str {
///         "masked"
///     }
///     fn listen(&self, netport: TcpListener) -> io::Result<Box<dyn ClientListener>> {
///         Ok(Box::new(MaskedListener(TcpTransport.listen(netport)?)))
///     }
///     fn adopt(&self, _: OwnedFd, _: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
///         Err(io::ErrorKind::Unsupported.into()) // None of its connections travels.
///     }
/// }
///
/// impl ClientListener for MaskedListener {
///     fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
///         let stream = ready!(self.0.poll_accept(cx))?;
///         Poll::Ready(Ok(Arc::new(MaskedStream(stream))))
///     }
/// }
///
/// impl ClientStream for MaskedStream {
///     fn peer(&self) -> SocketAddr {
///         self.0.peer()
///     }
///     fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
///         self.0.poll_read(cx, room)
///     }
///     fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
///         self.0.poll_write_ready(cx)
///     }
///     fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
///         // A byte is the same wherever a write is cut: what is not taken is written again.
///         self.0.try_write(&bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>())
///     }
///     fn end_sending(&self) -> io::Result<()> {
///         self.0.end_sending()
///     }
/// }
/// ```
///
/// A transport that seals or numbers takes the bytes of a whole record at once, and keeps what the socket does not:
/// [`has_unsent`](ClientStream::has_unsent) and [`poll_flush`](ClientStream::poll_flush).
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The name, for logs, metrics and a hand-over. It must stay the same over releases, and be nobody else's.
    fn name(&self) -> &'static str;

    /// Begins to listen, on the socket of `netport`: inherited from the master, or opened for this. What a transport does not
    /// need it drops.
    ///
    /// # Errors
    /// The system's: the node does not start.
    fn listen(&self, netport: std::net::TcpListener) -> io::Result<Box<dyn ClientListener>>;

    /// Goes on with a connection that another process of this host has [handed off](Travel::HandOff).
    ///
    /// # Errors
    /// The socket or the state is of no use; the client is disconnected.
    fn adopt(&self, socket: OwnedFd, state: &[u8]) -> io::Result<Arc<dyn ClientStream>>;
}

/// Where a transport's connections come.
pub trait ClientListener: Send {
    /// Takes the next connection.
    ///
    /// # Errors
    /// The system's; the next call may succeed.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>>;
}

/// Takes the next connection. Cancel-safe.
///
/// # Errors
/// As of [`ClientListener::poll_accept`].
pub async fn accept(listener: &mut dyn ClientListener) -> io::Result<Arc<dyn ClientStream>> {
    poll_fn(|cx| listener.poll_accept(cx)).await
}

/// A client's connection. It is read by one task; it is written to by that task, and past its turn by whoever has the last
/// answer that its client waits for: never by two at once.
pub trait ClientStream: fmt::Debug + Send + Sync + 'static {
    /// Where the client is.
    fn peer(&self) -> SocketAddr;

    /// Reads, as [`AsyncRead`](tokio::io::AsyncRead): nothing is the end.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Ready when [`ClientStream::try_write`] may take something.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Takes bytes without waiting, and says how many. What it takes it sends, in this order, whoever has written it: a
    /// transport that seals or numbers does so here.
    ///
    /// # Errors
    /// `WouldBlock` when it takes none now; else the connection is broken.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// As [`ClientStream::try_write`], of several pieces in order.
    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces.iter().find(|piece| !piece.is_empty()) {
            Some(piece) => self.try_write(piece),
            None => Ok(0),
        }
    }

    /// Whether bytes that were taken have not been sent, and [`ClientStream::poll_flush`] is to be called.
    fn has_unsent(&self) -> bool {
        false
    }

    /// Ready when all that was taken is sent.
    fn poll_flush(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the sending side; the client's may go on.
    fn end_sending(&self) -> io::Result<()>;

    /// Whether the connection can go on in another process. One that cannot is drained when its node is replaced: the old
    /// process serves it for `drain_s`, and then tells its client the end.
    fn can_travel(&self) -> bool {
        false
    }

    /// Takes the connection out of this process; asked between two frames, when all that was written is sent, and not used
    /// any more if it travels.
    fn travel(&self) -> Travel {
        Travel::Drain
    }
}

/// How a connection leaves its process.
#[derive(Debug)]
pub enum Travel {
    /// Over a Unix socket, and goes on in the process at the other end.
    HandOff {
        /// The connection's socket.
        socket: OwnedFd,
        /// What the transport has to know beside it: numbers, keys.
        state: Vec<u8>,
    },
    /// Not at all.
    Drain,
}
