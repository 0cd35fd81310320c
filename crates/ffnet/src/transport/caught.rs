//! The transport that an author's program brings, with its panics caught: a client is written to wherever its answer comes
//! from, and what goes wrong there must end neither a link nor the port.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tracing::error;

use super::{ClientListener, ClientStream, Transport, Travel};

/// A transport whose panics are errors of the one connection.
#[derive(Debug)]
pub struct CaughtTransport(Arc<dyn Transport>);

impl CaughtTransport {
    /// Around that transport.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }
}

struct CaughtListener {
    name: &'static str,
    listener: Box<dyn ClientListener>,
}

#[derive(Debug)]
struct CaughtStream {
    name: &'static str,
    stream: Arc<dyn ClientStream>,
}

/// Runs code of a transport.
fn run<T>(name: &str, what: &str, code: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| {
        error!(limited_by = name, "the transport `{name}` panicked in {what}");
        io::Error::other(format!("the transport `{name}` panicked in {what}"))
    })
}

/// The same, of what may have to wait.
fn poll<T>(name: &str, what: &str, code: impl FnOnce() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    run(name, what, code).unwrap_or_else(|panicked| Poll::Ready(Err(panicked)))
}

impl Transport for CaughtTransport {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn listen(&self, netport: TcpListener) -> io::Result<Box<dyn ClientListener>> {
        let listener = run(self.name(), "listen", || self.0.listen(netport))??;
        Ok(Box::new(CaughtListener { name: self.name(), listener }))
    }

    fn adopt(&self, socket: OwnedFd, state: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
        let stream = run(self.name(), "adopt", || self.0.adopt(socket, state))??;
        Ok(Arc::new(CaughtStream { name: self.name(), stream }))
    }
}

impl ClientListener for CaughtListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        let name = self.name;
        poll(name, "poll_accept", || self.listener.poll_accept(cx))
            .map_ok(|stream| Arc::new(CaughtStream { name, stream }) as Arc<dyn ClientStream>)
    }
}

impl ClientStream for CaughtStream {
    fn peer(&self) -> SocketAddr {
        run(self.name, "peer", || self.stream.peer()).unwrap_or_else(|_| ([0, 0, 0, 0], 0).into())
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll(self.name, "poll_read", || self.stream.poll_read(cx, room))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll(self.name, "poll_write_ready", || self.stream.poll_write_ready(cx))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        run(self.name, "try_write", || self.stream.try_write(bytes))?
    }

    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        run(self.name, "try_write_vectored", || self.stream.try_write_vectored(pieces))?
    }

    fn has_unsent(&self) -> bool {
        run(self.name, "has_unsent", || self.stream.has_unsent()).unwrap_or_default()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll(self.name, "poll_flush", || self.stream.poll_flush(cx))
    }

    fn end_sending(&self) -> io::Result<()> {
        run(self.name, "end_sending", || self.stream.end_sending())?
    }

    fn can_travel(&self) -> bool {
        run(self.name, "can_travel", || self.stream.can_travel()).unwrap_or_default()
    }

    fn travel(&self) -> Travel {
        run(self.name, "travel", || self.stream.travel()).unwrap_or(Travel::Drain)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::super::TcpTransport;
    use super::*;

    #[derive(Debug)]
    struct Broken(Arc<dyn ClientStream>);

    impl ClientStream for Broken {
        fn peer(&self) -> SocketAddr {
            panic!("peer")
        }

        fn poll_read(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            panic!("poll_read")
        }

        fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.poll_write_ready(cx)
        }

        fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            panic!("try_write")
        }

        fn end_sending(&self) -> io::Result<()> {
            panic!("end_sending")
        }
    }

    #[tokio::test]
    async fn what_a_transport_panics_with_ends_a_connection_at_most() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let transport = CaughtTransport::new(TcpTransport);
        let mut listener = transport.listen(socket).unwrap();
        let _client = std::net::TcpStream::connect(at).unwrap();
        let stream = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let stream = CaughtStream { name: "broken", stream: Arc::new(Broken(stream)) };
        poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
        let mut room = [0; 8];
        let read = poll_fn(|cx| stream.poll_read(cx, &mut ReadBuf::new(&mut room))).await;
        assert_eq!(read.unwrap_err().to_string(), "the transport `broken` panicked in poll_read");
        let wrote = stream.try_write(b"x").unwrap_err().to_string();
        assert_eq!(wrote, "the transport `broken` panicked in try_write");
        assert!(stream.end_sending().is_err());
        assert!(!stream.can_travel() && matches!(stream.travel(), Travel::Drain));
        assert_eq!(stream.peer().port(), 0);
    }
}
