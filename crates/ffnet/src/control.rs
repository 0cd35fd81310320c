//! Typed messages between the master and a node, in the version that both speak, over length-delimited frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use ffproto::Version;
use ffproto::control::{ControlMessage, MESSAGE_BYTES_MAX, ToMaster, ToNode};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The master's end of a control connection: yields [`ToMaster`], takes [`ToNode`].
pub type MasterSide<S> = Control<S, ToMaster, ToNode>;
/// The node's end of a control connection: yields [`ToNode`], takes [`ToMaster`].
pub type NodeSide<S> = Control<S, ToNode, ToMaster>;

/// The coding of a connection: that of the version that both ends speak.
#[derive(Debug, Clone, Copy)]
struct Coding(Version);

impl<M: ControlMessage> tokio_serde::Serializer<M> for Coding {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &M) -> io::Result<Bytes> {
        let none = "a message that is too long, or not of the version that both ends speak";
        let bytes =
            message.to_bytes(self.0).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, none))?;
        Ok(bytes.into())
    }
}

impl<M: ControlMessage> tokio_serde::Deserializer<M> for Coding {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<M> {
        M::of_bytes(bytes, self.0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// One end of a control connection, after the handshake: a `Stream` of `In` and a `Sink` of `Out`.
///
/// Reading is cancel-safe: a half-read message stays in the buffer. A message that is too long, does
/// not decode or is not of the version ends the connection with `InvalidData`, before memory is taken for it.
#[derive(Debug)]
pub struct Control<S, In, Out> {
    frames: tokio_serde::Framed<Framed<S, LengthDelimitedCodec>, In, Out, Coding>,
    version: Version,
}

impl<S: AsyncRead + AsyncWrite, In, Out> Control<S, In, Out> {
    /// Speaks a version over `io`, on which a handshake for `Purpose::Control` has agreed on it.
    pub fn new(io: S, version: Version) -> Self {
        let codec = LengthDelimitedCodec::builder()
            .little_endian()
            .length_field_type::<u32>()
            .max_frame_length(MESSAGE_BYTES_MAX)
            .new_codec();
        Self { frames: tokio_serde::Framed::new(Framed::new(io, codec), Coding(version)), version }
    }

    /// The version that both ends speak.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl<S, In, Out> Stream for Control<S, In, Out>
where
    S: AsyncRead + AsyncWrite + Unpin,
    In: ControlMessage + Unpin,
    Out: Unpin,
{
    type Item = io::Result<In>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.frames).poll_next(cx)
    }
}

impl<S, In, Out> Sink<Out> for Control<S, In, Out>
where
    S: AsyncRead + AsyncWrite + Unpin,
    In: Unpin,
    Out: ControlMessage + Unpin,
{
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Out) -> io::Result<()> {
        Pin::new(&mut self.frames).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use ffproto::control::NodeStatus;
    use ffproto::{Incarnation, NodeName, NodeNumber};
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn messages_cross_in_both_directions() {
        let (a, b) = tokio::io::duplex(4096);
        let (mut master, mut node) = (MasterSide::new(a, Version(3)), NodeSide::new(b, Version(3)));
        let gate = NodeName::try_from("gate").unwrap();
        let told = [
            ToNode::Registered { number: NodeNumber(7), release: None },
            ToNode::ParentUp {
                name: gate.clone(),
                at: "[::1]:10000".parse().unwrap(),
                incarnation: Incarnation(1 << 60),
            },
            ToNode::Stop { drain_ms: 10_000 },
        ];
        let said = [
            ToMaster::Ready { root: None, net: Some("127.0.0.1:1".parse().unwrap()), web: None },
            ToMaster::Status(NodeStatus {
                sessions: 3,
                parents: vec![(gate, true)],
                children: vec![],
                counters: vec![],
            }),
            ToMaster::CannotStart { reason: "db.url: refused".into() },
        ];
        let (said_, told_) = (said.clone(), told.clone());
        let node_end = tokio::spawn(async move {
            for message in said_ {
                node.send(message).await.unwrap();
            }
            for message in told_ {
                assert_eq!(node.next().await.unwrap().unwrap(), message);
            }
        });
        for message in told {
            master.send(message).await.unwrap();
        }
        for message in said {
            assert_eq!(master.next().await.unwrap().unwrap(), message);
        }
        node_end.await.unwrap();
        assert!(master.next().await.is_none(), "a closed connection is the end of the stream");
    }

    #[tokio::test]
    async fn the_bytes_are_fixint_so_that_bincode_1_reads_them_anywhere() {
        let (a, mut b) = tokio::io::duplex(64);
        let mut master = MasterSide::new(a, Version(3));
        master.send(ToNode::Registered { number: NodeNumber(7), release: None }).await.unwrap();
        drop(master);
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut b, &mut bytes).await.unwrap();
        assert_eq!(bytes, [6, 0, 0, 0, 0, 0, 0, 0, 7, 0]);
        assert_eq!(
            bincode::deserialize::<ToNode>(&bytes[4..]).unwrap(),
            ToNode::Registered { number: NodeNumber(7), release: None }
        );
    }

    #[tokio::test]
    async fn what_a_version_has_brought_ends_a_connection_of_the_one_before_it() {
        let release = ToMaster::Release { release: "0.2.0".into() };
        let (a, b) = tokio::io::duplex(4096);
        let (mut old, mut new) = (MasterSide::new(a, Version(3)), NodeSide::new(b, Version(4)));
        new.send(release.clone()).await.unwrap();
        assert_eq!(old.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (a, b) = tokio::io::duplex(4096);
        let (mut master, mut both) = (MasterSide::new(a, Version(3)), NodeSide::new(b, Version(3)));
        assert_eq!(both.send(release).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        both.send(ToMaster::Stopping).await.unwrap();
        assert_eq!(master.next().await.unwrap().unwrap(), ToMaster::Stopping);
    }

    #[tokio::test]
    async fn a_huge_length_and_a_lying_one_end_the_connection() {
        for bytes in [
            (MESSAGE_BYTES_MAX as u32 + 1).to_le_bytes().to_vec(),
            vec![2, 0, 0, 0, 9, 9],
            // A `CannotStart` whose text claims 2^40 bytes.
            [vec![12, 0, 0, 0, 1, 0, 0, 0], (1u64 << 40).to_le_bytes().to_vec()].concat(),
        ] {
            let (a, mut b) = tokio::io::duplex(64);
            b.write_all(&bytes).await.unwrap();
            let ended = MasterSide::new(a, Version(3)).next().await.unwrap();
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
