//! A transport over TCP that seals what the node writes: each write is a record, with its number and a check. Who reads sees
//! a write that went past it, or between two.
//!
//! ```text
//! off 0  u32  length of the payload, big-endian
//! off 4  u32  number of the record, from 0
//! off 8  payload, each byte exclusive-or the low byte of the number
//! ```
//!
//! What the client sends is not sealed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ffserver::transport::{ClientListener, ClientStream, TcpTransport, Transport, Travel};
use parking_lot::Mutex;
use tokio::io::ReadBuf;

/// The bytes of one record before its payload.
pub const HEAD_BYTES: usize = 8;
const PAYLOAD_BYTES_MAX: usize = 4096;

/// The transport.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    travels: bool,
}

struct SealedListener {
    tcp: Box<dyn ClientListener>,
    travels: bool,
}

#[derive(Debug)]
struct SealedStream {
    tcp: Arc<dyn ClientStream>,
    travels: bool,
    out: Mutex<Out>,
}

#[derive(Debug, Default)]
struct Out {
    /// The number of the next record.
    number: u32,
    /// A record of which the first `sent` bytes have been sent.
    record: Vec<u8>,
    sent: usize,
}

impl Sealed {
    /// Whose connections go on in another process, with the number of their next record.
    pub fn travelling() -> Self {
        Self { travels: true }
    }

    /// Whose connections end with their process.
    pub fn staying() -> Self {
        Self { travels: false }
    }
}

impl Transport for Sealed {
    fn name(&self) -> &'static str {
        if self.travels { "sealed" } else { "sealed-staying" }
    }

    fn listen(&self, netport: std::net::TcpListener) -> io::Result<Box<dyn ClientListener>> {
        Ok(Box::new(SealedListener { tcp: TcpTransport.listen(netport)?, travels: self.travels }))
    }

    fn adopt(&self, socket: OwnedFd, state: &[u8]) -> io::Result<Arc<dyn ClientStream>> {
        let number = state.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let tcp = TcpTransport.adopt(socket, &[])?;
        let out = Mutex::new(Out { number: u32::from_le_bytes(number), ..Out::default() });
        Ok(Arc::new(SealedStream { tcp, travels: self.travels, out }))
    }
}

impl ClientListener for SealedListener {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Arc<dyn ClientStream>>> {
        let tcp = ready!(self.tcp.poll_accept(cx))?;
        Poll::Ready(Ok(Arc::new(SealedStream { tcp, travels: self.travels, out: Mutex::default() })))
    }
}

impl Out {
    fn seal(&mut self, payload: &[u8]) {
        let key = self.number as u8;
        self.record.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.record.extend_from_slice(&self.number.to_be_bytes());
        self.record.extend(payload.iter().map(|byte| byte ^ key));
        self.number += 1;
    }

    /// Sends what it can of the record.
    fn send(&mut self, tcp: &dyn ClientStream) -> io::Result<()> {
        while let Some(rest) = self.record.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.sent += tcp.try_write(rest)?;
        }
        self.record.clear();
        self.sent = 0;
        Ok(())
    }
}

impl ClientStream for SealedStream {
    fn peer(&self) -> SocketAddr {
        self.tcp.peer()
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read(cx, room)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.tcp.poll_write_ready(cx)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.out.lock();
        out.send(&*self.tcp)?;
        let payload = bytes.get(..PAYLOAD_BYTES_MAX).unwrap_or(bytes);
        out.seal(payload);
        match out.send(&*self.tcp) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            // What is not sent of it is `poll_flush`'s.
            _ => Ok(payload.len()),
        }
    }

    fn has_unsent(&self) -> bool {
        !self.out.lock().record.is_empty()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.out.lock().send(&*self.tcp) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    fn end_sending(&self) -> io::Result<()> {
        self.tcp.end_sending()
    }

    fn can_travel(&self) -> bool {
        self.travels
    }

    fn travel(&self) -> Travel {
        match self.tcp.travel() {
            Travel::HandOff { socket, .. } if self.travels => {
                Travel::HandOff { socket, state: self.out.lock().number.to_le_bytes().to_vec() }
            }
            _ => Travel::Drain,
        }
    }
}

/// Reads the record at the start of `bytes`, which must be the `number`th: its payload, and how many bytes it has. `None`
/// when more must come.
///
/// # Panics
/// It is another one.
pub fn open(bytes: &[u8], number: u32) -> Option<(Vec<u8>, usize)> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let found = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
    let payload = bytes.get(HEAD_BYTES..HEAD_BYTES + length)?;
    assert_eq!(found, number, "a record that is not the next: something was written past the transport");
    Some((payload.iter().map(|byte| byte ^ number as u8).collect(), HEAD_BYTES + length))
}
