//! The channel between two nodes, or a node and its master: a TCP connection, encrypted or not, whose both sides have proved who
//! they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use ffproto::credential::Credential;
use ffproto::encrypt::{Encrypt, leaves_host};
use ffproto::handshake::{Purpose, Refusal};
use ffproto::{Incarnation, NodeName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::admission::Slot;
use crate::handshake::{self, HandshakeError, Local, Peer, evicted, within_deadline};
use crate::tls::{self, Sealed, UnprovenBound};

/// A channel. Links, which carry the load, look once at which one it is; control connections use it as it is.
#[derive(Debug)]
pub enum Channel {
    /// Not encrypted.
    Plain(TcpStream),
    /// Encrypted.
    Sealed(Box<Sealed<TcpStream>>),
}

/// Opens a channel over a connection that this side dialled, as [`handshake::dial_start`].
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use then.
pub async fn dial(
    stream: TcpStream,
    encrypt: Encrypt,
    purpose: Purpose,
    mut local: Local,
    to: &NodeName,
    since: Incarnation,
) -> Result<(Channel, Peer), HandshakeError> {
    within_deadline(async {
        let mut channel = match encrypt.wants(leaves(&stream)?) {
            true => Channel::Sealed(tls::dial(stream).await.map_err(HandshakeError::Channel)?),
            false => Channel::Plain(stream),
        };
        local.binding = channel.binding()?;
        let peer = handshake::dial_start(&mut channel, purpose, &local, to, since).await?;
        Ok((channel, peer))
    })
    .await
}

/// Opens a channel over a connection that this side accepted, as [`handshake::accept`]. One that is not encrypted is refused
/// where this side would have encrypted it: the other side is told so, and nothing else.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use then.
pub async fn accept(
    stream: TcpStream,
    encrypt: Encrypt,
    purpose: Purpose,
    mut local: Local,
    slot: Option<&Slot>,
    admit: impl FnOnce(&Credential) -> Result<(), Refusal>,
) -> Result<(Channel, Peer), HandshakeError> {
    let accepting = within_deadline(async {
        let mut channel = taken(stream, encrypt, purpose, &local).await?;
        local.binding = channel.binding()?;
        let unproven_bound = channel.unproven_bound().cloned();
        let admit = |credential: &Credential| {
            unproven_bound.inspect(UnprovenBound::lift);
            admit(credential)
        };
        let peer = handshake::accept(&mut channel, purpose, &local, slot, admit).await?;
        Ok((channel, peer))
    });
    tokio::select! {
        accepted = accepting => accepted,
        () = evicted(slot) => Err(HandshakeError::Crowded),
    }
}

/// The first byte says whether the other side encrypts: it has to speak first.
async fn taken(
    mut stream: TcpStream,
    encrypt: Encrypt,
    purpose: Purpose,
    local: &Local,
) -> Result<Channel, HandshakeError> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if first == [tls::FIRST_BYTE] {
        let sealed = tls::accept(stream, &local.chance).await.map_err(HandshakeError::Channel)?;
        return Ok(Channel::Sealed(sealed));
    }
    if !encrypt.wants(leaves(&stream)?) {
        return Ok(Channel::Plain(stream));
    }
    // Bytes that nobody has read would make a reset of the end, which may overtake the word.
    let _ = stream.read(&mut [0; 64]).await;
    stream.write_all(&purpose.preamble_of_encrypted_only(local.versions)).await?;
    Err(HandshakeError::Unencrypted)
}

fn leaves(stream: &TcpStream) -> io::Result<bool> {
    Ok(leaves_host(stream.local_addr()?.ip(), stream.peer_addr()?.ip()))
}

impl Channel {
    fn binding(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(_) => Ok(Vec::new()),
            Self::Sealed(sealed) => tls::binding(sealed),
        }
    }

    fn unproven_bound(&self) -> Option<&UnprovenBound> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(sealed) => Some(tls::unproven_bound(sealed)),
        }
    }

    /// Whether it is encrypted.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }
}

/// The same call on whichever stream it is.
macro_rules! either {
    ($channel:expr, $stream:ident => $call:expr) => {
        match $channel.get_mut() {
            Channel::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Channel::Sealed(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, room))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Sealed(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests;
