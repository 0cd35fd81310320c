//! TCP: the transport that every client has, whose connections travel.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
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
        let stream = TcpStream::from_std(stream)?;
        // A client that has reset its connection has no address any more; its end is read as everybody's is.
        let peer = stream.peer_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
        Ok(Arc::new(TcpClient { stream, peer }))
    }
}

impl ClientListener for TcpListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        // The address is the accept's: a client that has reset its connection meanwhile has none, and were that a fault, each
        // would hold up those behind it.
        let (stream, peer) = ready!(TcpListener::poll_accept(self, cx))?;
        // The kernel's coalescing would only add delay: a connection writes once per turn.
        let _ = stream.set_nodelay(true);
        Poll::Ready(Ok(Arc::new(TcpClient { stream, peer })))
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

    fn end_sending(&self) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::transport::accept;

    /// The end of a connection whose client has reset it is the client's, and no fault of the port.
    #[tokio::test]
    async fn a_client_that_resets_before_it_is_taken_is_taken_and_at_its_end() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = socket.local_addr().unwrap();
        let reset = || {
            let client = std::net::TcpStream::connect(at).unwrap();
            rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
            client.local_addr().unwrap()
        };
        let ended = async |client: &dyn ClientStream| {
            let (mut room, mut bytes) = ([0; 8], 0);
            let read = poll_fn(|cx| {
                let mut room = ReadBuf::new(&mut room);
                let polled = client.poll_read(cx, &mut room);
                bytes = room.filled().len();
                polled
            });
            read.await.is_err() || bytes == 0
        };
        let mut listener = TcpTransport.listen(socket.try_clone().unwrap()).unwrap();
        let from = reset();
        let client = accept(&mut *listener).await.unwrap();
        assert_eq!(client.peer(), from);
        assert!(ended(&*client).await);
        drop(listener);
        reset();
        let (handed_off, _) = socket.accept().unwrap();
        assert!(ended(&*TcpTransport.adopt(handed_off.into(), &[]).unwrap()).await);
    }
}
