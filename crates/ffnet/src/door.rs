//! The door: descriptors and messages from one process to another on the same host, over a Unix socket in Linux's
//! abstract namespace, which has no file and goes with its owner.
//!
//! Only a process of the same user (or root) is let in. A message is a length and bincode; its descriptors
//! travel with its first byte (SCM_RIGHTS, unix(7)).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};

use bincode::Options;
use ffambient::Chance;
use ffproto::control::Door;
use ffproto::handover::MESSAGE_BYTES_MAX;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// Descriptors that one message may carry; the kernel's own bound is 253.
pub const DESCRIPTORS_MAX: usize = 16;
const READ_BYTES: usize = 256 * 1024;

/// A door where one process waits for another. Dropping the listener closes the door.
#[derive(Debug)]
pub struct DoorListener {
    door: Door,
    listener: UnixListener,
}

impl DoorListener {
    /// Opens a door under a name that nobody can guess. Needs a tokio runtime.
    ///
    /// # Errors
    /// No more descriptors, or no randomness.
    pub fn open(chance: &Chance) -> io::Result<Self> {
        let name = random_name(chance)?;
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { door: Door(name), listener: UnixListener::from_std(listener)? })
    }

    /// The door's name, for the process that shall come.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Waits for a process of the same user, or of root; others are turned away. Cancel-safe.
    ///
    /// # Errors
    /// No more descriptors.
    pub async fn accept<In, Out>(&self) -> io::Result<Passage<In, Out>> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let theirs = stream.peer_cred()?.uid();
            if theirs == 0 || theirs == nix::unistd::geteuid().as_raw() {
                return Ok(Passage::new(stream));
            }
        }
    }
}

/// A random name for a socket in the abstract namespace.
pub(crate) fn random_name(chance: &Chance) -> io::Result<String> {
    let mut random = [0; 16];
    chance.fill(&mut random)?;
    Ok(random.iter().fold("ff-".to_owned(), |name, byte| name + &format!("{byte:02x}")))
}

/// Enters a door where another process waits. Needs a tokio runtime.
///
/// # Errors
/// Nobody waits there (any more), or it belongs to another user.
pub fn enter<In, Out>(door: &Door) -> io::Result<Passage<In, Out>> {
    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(&door.0)?)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let theirs = stream.peer_cred()?.uid();
    if theirs != 0 && theirs != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(Passage::new(stream))
}

/// One end of a connection through a door: yields `In`, takes `Out`, each with its descriptors.
#[derive(Debug)]
pub struct Passage<In, Out> {
    stream: UnixStream,
    /// The bytes that were read; up to `at` they have been taken.
    read: Vec<u8>,
    at: usize,
    scratch: Vec<u8>,
    arrived: VecDeque<OwnedFd>,
    what: PhantomData<fn(Out) -> In>,
}

impl<In, Out> Passage<In, Out> {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            at: 0,
            scratch: Vec::new(),
            arrived: VecDeque::new(),
            what: PhantomData,
        }
    }
}

fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MESSAGE_BYTES_MAX as u64)
}

/// Length (u32, little-endian) and the number of descriptors (u8).
const HEADER_BYTES: usize = 5;

impl<In, Out: Serialize> Passage<In, Out> {
    /// Sends a message and copies of `descriptors`, at most [`DESCRIPTORS_MAX`]. Waits while the other end does not take it. Not
    /// cancel-safe: a message that was sent in part makes the connection useless.
    ///
    /// # Errors
    /// The other end is gone; `InvalidInput` for a message above the bound.
    pub async fn send(&self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(invalid(format!("{} descriptors", descriptors.len())));
        }
        let mut frame = vec![0; HEADER_BYTES];
        coding().serialize_into(&mut frame, message).map_err(|e| invalid(e.to_string()))?;
        let length = (frame.len() - HEADER_BYTES) as u32; // Bounded by the coding.
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4] = descriptors.len() as u8; // Bounded above.
        let mut at = 0;
        while at < frame.len() {
            // Descriptors go with the first byte, and only then.
            let with = if at == 0 { descriptors } else { &[] };
            at += self.send_some(&frame[at..], with).await?;
        }
        Ok(())
    }

    async fn send_some(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        loop {
            let sent = self.stream.async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let bytes = [IoSlice::new(bytes)];
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(rustix::net::sendmsg(&self.stream, &bytes, &mut control, flags)?)
            });
            match sent.await {
                // So many descriptors are on their way that the kernel takes no more for this user: the
                // other end takes them out as it reads.
                Err(e) if e.raw_os_error() == Some(nix::libc::ETOOMANYREFS) => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                sent => return sent,
            }
        }
    }
}

impl<In: DeserializeOwned, Out> Passage<In, Out> {
    /// The next message with its descriptors; `None` when the other end has closed in good order between
    /// two messages. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for what is no message, `UnexpectedEof` in the middle of one.
    pub async fn receive(&mut self) -> io::Result<Option<(In, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.receive_some().await? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<(In, Vec<OwnedFd>)>> {
        let unread = &self.read[self.at..];
        let Some(&[a, b, c, d, descriptors]) = unread.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(invalid(format!("a message of {length} bytes")));
        }
        let Some(body) = unread.get(HEADER_BYTES..HEADER_BYTES + length) else { return Ok(None) };
        let message = coding().deserialize(body).map_err(|e| invalid(e.to_string()))?;
        let n = usize::from(descriptors);
        if n > self.arrived.len() {
            return Err(invalid(format!("{n} descriptors were announced, {} came", self.arrived.len())));
        }
        self.at += HEADER_BYTES + length;
        Ok(Some((message, self.arrived.drain(..n).collect())))
    }

    async fn receive_some(&mut self) -> io::Result<usize> {
        self.read.drain(..self.at);
        self.at = 0;
        let (stream, read, arrived, scratch) =
            (&self.stream, &mut self.read, &mut self.arrived, &mut self.scratch);
        scratch.resize(READ_BYTES, 0);
        // What was read is kept inside the closure, which runs to its end: nothing is lost by a cancellation.
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let got = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(scratch)], &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    arrived.extend(descriptors);
                }
            }
            read.extend_from_slice(scratch.get(..got.bytes).unwrap_or_default());
            Ok(got.bytes)
        };
        stream.async_io(Interest::READABLE, receive).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    type Ours = Passage<u64, Vec<u8>>;
    type Theirs = Passage<Vec<u8>, u64>;

    async fn passage() -> (Ours, Theirs) {
        let listener = DoorListener::open(&Chance::system()).unwrap();
        let theirs = enter(&listener.door()).unwrap();
        (listener.accept().await.unwrap(), theirs)
    }

    #[tokio::test]
    async fn a_socket_goes_through_the_door_and_is_the_same_socket_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (mut ours, theirs) = passage().await;
        theirs.send(&7, &[server.as_fd()]).await.unwrap();
        drop(server);
        let (message, mut descriptors) = ours.receive().await.unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (7, 1));
        let mut server = TcpStream::from(descriptors.remove(0));
        client.write_all(b"still here").unwrap();
        let mut heard = [0; 10];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still here");
    }

    #[tokio::test]
    async fn thousands_of_sockets_and_large_messages_arrive_in_order_each_with_its_own() {
        let (mut ours, mut theirs) = passage().await;
        let sent = async move {
            for n in 0..3_000_u64 {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                theirs
                    .send(&(u64::from(socket.local_addr().unwrap().port()) << 32 | n), &[socket.as_fd()])
                    .await
                    .unwrap();
            }
            theirs.receive().await.unwrap().unwrap().0
        };
        let received = async move {
            for n in 0..3_000 {
                let (message, mut descriptors) = ours.receive().await.unwrap().unwrap();
                let socket = std::net::UdpSocket::from(descriptors.remove(0));
                assert_eq!(message, u64::from(socket.local_addr().unwrap().port()) << 32 | n);
            }
            ours.send(&vec![7; 3 << 20], &[]).await.unwrap();
        };
        let (large, ()) = tokio::join!(sent, received);
        assert!(large == vec![7; 3 << 20]);
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error_and_takes_no_memory() {
        let (mut ours, theirs) = passage().await;
        theirs.stream.try_write(&[255; 64]).unwrap();
        let error = ours.receive().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let (mut ours, theirs) = passage().await;
        theirs.stream.try_write(&[8, 0, 0]).unwrap();
        drop(theirs);
        assert_eq!(ours.receive().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_closed_door_is_an_error_at_once_and_a_gone_peer_the_end() {
        let listener = DoorListener::open(&Chance::system()).unwrap();
        let door = listener.door();
        drop(listener);
        assert!(enter::<u64, u64>(&door).is_err());
        let (mut ours, theirs) = passage().await;
        drop(theirs);
        assert!(ours.receive().await.unwrap().is_none());
    }
}
