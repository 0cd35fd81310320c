//! TCP: the transport that every client has, whose connections travel.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::{ClientListener, ClientStream, Transport, Travel};

/// The name of this transport.
pub const NAME: &str = "tcp";

/// TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

/// A client's TCP connection.
#[derive(Debug)]
pub struct TcpClient {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Transport for TcpTransport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn listen(&self, netport: std::net::TcpListener) -> io::Result<Box<dyn ClientListener>> {
        Ok(Box::new(TcpListener::from_std(netport)?))
    }

    fn adopt(&self, socket: OwnedFd, _: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Arc::new(TcpClient::new(TcpStream::from_std(stream)?)?))
    }
}

impl ClientListener for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        let (stream, _) = ready!(TcpListener::poll_accept(self, cx))?;
        // The kernel's coalescing would only add delay: a connection writes once per turn.
        let _ = stream.set_nodelay(true);
        Poll::Ready(TcpClient::new(stream).map(|client| Arc::new(client) as Arc<dyn ClientStream>))
    }
}

impl TcpClient {
    /// A client at the other end of that connection.
    ///
    /// # Errors
    /// It has ended already.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        Ok(Self { peer: stream.peer_addr()?, stream })
    }
}

impl ClientStream for TcpClient {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// As tokio's own: a read that has not filled the buffer has emptied the socket, so the next one waits for the
    /// next event and costs no system call.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let unfilled = room.initialize_unfilled();
            let (len, mut read) = (unfilled.len(), 0);
            let outcome = self.stream.try_io(Interest::READABLE, || {
                read = rustix::net::recv(&self.stream, unfilled, rustix::net::RecvFlags::empty())?.0;
                let emptied = 0 < read && read < len;
                if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && read == 0 => {}
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(e)),
                _ => {
                    room.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(cx)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.try_write_vectored(pieces)
    }

    fn shut_down(&self) -> io::Result<()> {
        rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write).map_err(Into::into)
    }

    fn can_travel(&self) -> bool {
        true
    }

    fn travel(&self) -> Travel {
        match self.stream.as_fd().try_clone_to_owned() {
            Ok(socket) => Travel::HandOff { socket, state: Vec::new() },
            // Descriptors are short: it leaves a little later.
            Err(_) => Travel::Drain,
        }
    }
}
