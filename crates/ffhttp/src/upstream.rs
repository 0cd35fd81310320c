//! The web server's private port, as its fronts see it: where it is, and how a front shows that it is no stranger.
//!
//! Rocket 0.5 listens on a TCP port of its own and takes neither a Unix socket nor one in memory. On loopback every user of the
//! host can connect to that, so two things keep strangers out. The kernel drops the first packet of every connection that does not
//! come from the port that a front has bound for it ([`Gate`]): a stranger does not even cost a descriptor. And each request has a
//! header with a secret of this start, without which Rocket answers 403: that holds also where the kernel knows no such filters.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use hyper::header::{HeaderName, HeaderValue};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tracing::warn;

use crate::own_descriptor;

/// The header with the secret; what a client says there is replaced.
pub(crate) const SECRET: HeaderName = HeaderName::from_static(SECRET_NAME);
/// The name of [`SECRET`].
pub(crate) const SECRET_NAME: &str = "x-ff-front";

/// The web server behind a front.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    secret: HeaderValue,
    way: Mutex<Way>,
}

/// How a front gets to the web server.
#[derive(Debug)]
enum Way {
    /// One front connects at a time.
    Gated(Gate),
    /// The kernel takes no filter: the secret alone keeps strangers out.
    Open,
    /// The web server has ended.
    Ended,
}

impl Upstream {
    /// The web server that listens at `address` in this process, and asks for `secret`.
    pub(crate) fn new(address: SocketAddr, secret: HeaderValue) -> Self {
        let way = Gate::close(address).map_or_else(
            |e| {
                warn!(
                    "other users of this host can connect to the web server's inner port (and get 403): {e}"
                );
                Way::Open
            },
            Way::Gated,
        );
        Self { address, secret, way: Mutex::new(way) }
    }

    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a front says with each request.
    pub(crate) fn secret(&self) -> HeaderValue {
        self.secret.clone()
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let way = self.way.lock().await;
        let stream = match &*way {
            Way::Gated(gate) => gate.connect(self.address).await?,
            Way::Open => {
                drop(way);
                TcpStream::connect(self.address).await?
            }
            Way::Ended => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Lets nobody connect any more, and gives up the copy of the listening socket: while that is open, who connects waits.
    pub(crate) async fn end(&self) {
        *self.way.lock().await = Way::Ended;
    }
}

/// A listening socket to which only one port may connect.
#[derive(Debug)]
struct Gate {
    listener: OwnedFd,
}

impl Gate {
    /// Closes the gate of the socket that listens at `address` in this process.
    fn close(address: SocketAddr) -> io::Result<Self> {
        let gate = Self { listener: listener_at(address)? };
        gate.only(0)?;
        Ok(gate)
    }

    /// Connects, and lets nobody else in meanwhile.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Without address reuse nobody else gets the port while this socket is open.
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let bound = socket.local_addr()?.as_socket_ipv4();
        self.only(bound.map_or(0, |at| at.port()))?;
        let connected = TcpSocket::from_std_stream(socket.into()).connect(address).await;
        // When this socket is closed, somebody else may get its port.
        self.only(0)?;
        connected
    }

    /// Drops the first packets of connections, unless they come from `port`. Nothing else is looked at: what has begun goes on.
    fn only(&self, port: u16) -> io::Result<()> {
        // Classic BPF; the packet begins with the TCP header.
        const LOAD_BYTE: u16 = 0x30;
        const LOAD_HALF: u16 = 0x28;
        const AND: u16 = 0x54;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        const SOURCE_PORT_AT: u32 = 0;
        let filter = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
            SockFilter::new(AND, 0, 0, SYN | ACK),
            SockFilter::new(JUMP_IF_EQUAL, 0, 2, SYN),
            SockFilter::new(LOAD_HALF, 0, 0, SOURCE_PORT_AT),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(port)),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ];
        SockRef::from(&self.listener).attach_filter(&filter)
    }
}

/// A descriptor of this process's socket that listens at `address`: Rocket gives none.
fn listener_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let listens_there = |descriptor: BorrowedFd<'_>| {
        let socket = SockRef::from(&descriptor);
        let at = || socket.local_addr().ok().and_then(|at| at.as_socket());
        socket.is_listener().unwrap_or(false) && at() == Some(address)
    };
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(copy) = own_descriptor::copy_if(number, listens_there) {
            return Ok(copy);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "its listening socket is not found"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn only_a_front_can_connect_to_the_inner_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Upstream::new(address, HeaderValue::from_static("x"));
        assert!(matches!(*upstream.way.lock().await, Way::Gated(_)));
        for _ in 0..3 {
            let stranger = timeout(Duration::from_millis(50), TcpStream::connect(address)).await;
            assert!(stranger.is_err(), "its first packet is dropped");
            let ours = upstream.connect().await.unwrap();
            let (accepted, from) = listener.accept().await.unwrap();
            assert_eq!(ours.local_addr().unwrap(), from);
            ours.try_write(b"x").unwrap();
            accepted.readable().await.unwrap();
            assert_eq!(accepted.try_read(&mut [0; 9]).unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn looking_for_the_socket_takes_no_lock_on_a_file_from_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let file = tempfile::tempfile().unwrap();
        let (l_type, l_whence) = (nix::libc::F_WRLCK as i16, nix::libc::SEEK_SET as i16);
        let whole = nix::libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
        let is_locked = || {
            let file = format!(":{} ", file.metadata().unwrap().ino());
            fs::read_to_string("/proc/locks").unwrap().lines().any(|lock| lock.contains(&file))
        };
        assert!(is_locked());
        listener_at(listener.local_addr().unwrap()).unwrap();
        assert!(is_locked(), "as SQLite locks its databases");
    }
}
