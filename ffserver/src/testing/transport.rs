//! The transport of a test's clients: over memory, and beside it over the sockets of the app's own transport.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use ffnet::transport::{ClientListener, ClientStream, MemoryTransport, Transport};

/// Both ways to a node.
#[derive(Debug)]
pub(super) struct TestTransport {
    pub(super) sockets: Arc<dyn Transport>,
    pub(super) memory: MemoryTransport,
}

struct TestListener {
    sockets: Box<dyn ClientListener>,
    memory: Box<dyn ClientListener>,
}

impl Transport for TestTransport {
    fn name(&self) -> &'static str {
        "testing"
    }

    fn listen(&self, netport: TcpListener) -> io::Result<Box<dyn ClientListener>> {
        let memory = self.memory.listen(netport.try_clone()?)?;
        Ok(Box::new(TestListener { sockets: self.sockets.listen(netport)?, memory }))
    }

    fn adopt(&self, _: OwnedFd, _: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a test's node has no successor"))
    }
}

impl ClientListener for TestListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        match self.memory.poll_accept(cx) {
            Poll::Pending => self.sockets.poll_accept(cx),
            accepted => accepted,
        }
    }
}
