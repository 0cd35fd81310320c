//! The encoding that is checked here is the one that `ffnet` speaks.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use bincode::Options as _;
use ffnet::control::{MasterSide, NodeSide};
use ffnet::handshake::{Local, dial};
use ffproto::control::{self, ToMaster, ToNode};
use ffproto::handshake::{self, Challenge, FromAcceptor, FromDialer, Purpose, Side, Transcript};
use ffproto::{ClusterName, Incarnation, NodeName, NodeNumber};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The other end, made of this package's encoding alone.
struct Other {
    io: DuplexStream,
    bytes_max: usize,
}

impl Other {
    async fn send(&mut self, message: &impl Serialize) {
        let body = fuzzchecks::coding(self.bytes_max).serialize(message).unwrap();
        self.io.write_all(&(body.len() as u32).to_le_bytes()).await.unwrap();
        self.io.write_all(&body).await.unwrap();
    }

    async fn receive<M: DeserializeOwned>(&mut self) -> M {
        let mut body = vec![0; self.io.read_u32_le().await.unwrap() as usize];
        self.io.read_exact(&mut body).await.unwrap();
        fuzzchecks::coding(self.bytes_max).deserialize(&body).unwrap()
    }
}

fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

#[tokio::test]
async fn a_handshake_of_ffnet_succeeds_with_this_encoding_at_the_other_end() {
    let (mut io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: handshake::MESSAGE_BYTES_MAX };
    let cluster = ClusterName::try_from("demo").unwrap();
    let local = Local {
        cluster: cluster.clone(),
        name: name("net"),
        kind: "netserver".into(),
        incarnation: Incarnation(1),
        methods: vec!["@".into()],
        token: "secret".into(),
        chance: ffambient::Chance::system(),
    };
    let gate = name("gate");
    let acceptor = async {
        let mut theirs = Purpose::Link.preamble();
        other.io.read_exact(&mut theirs).await.unwrap();
        other.io.write_all(&Purpose::Link.preamble()).await.unwrap();
        let FromDialer::Hello(hello) = other.receive().await else { panic!("no Hello") };
        let nonce = [2; 32];
        let transcript = Transcript {
            purpose: Purpose::Link,
            cluster: &cluster,
            dialer: (&hello.name, hello.incarnation, &hello.nonce),
            acceptor: (&gate, Incarnation(2), &nonce),
        };
        let challenge = Challenge {
            name: gate.clone(),
            kind: "gateserver".into(),
            incarnation: Incarnation(2),
            nonce,
            proof: transcript.prove("secret", Side::Acceptor),
            methods: vec!["gateHandle1".into()],
        };
        other.send(&FromAcceptor::Challenge(challenge)).await;
        let FromDialer::Proof(proof) = other.receive().await else { panic!("no Proof") };
        assert_eq!(transcript.check("secret", Side::Dialer, &proof), Ok(()));
        other.send(&FromAcceptor::Welcome).await;
    };
    let (peer, ()) = tokio::join!(dial(&mut io, Purpose::Link, &local, &gate), acceptor);
    assert_eq!(peer.unwrap().methods, ["gateHandle1"]);
}

#[tokio::test]
async fn both_sides_of_a_control_connection_speak_this_encoding() {
    let (io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: control::MESSAGE_BYTES_MAX };
    let mut master = MasterSide::new(io);
    let registered = ToNode::Registered { number: NodeNumber(7) };
    master.send(registered.clone()).await.unwrap();
    assert_eq!(other.receive::<ToNode>().await, registered);
    other.send(&ToMaster::Stopping).await;
    assert_eq!(master.next().await.unwrap().unwrap(), ToMaster::Stopping);

    let (io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: control::MESSAGE_BYTES_MAX };
    let mut node = NodeSide::new(io);
    node.send(ToMaster::Stopping).await.unwrap();
    assert_eq!(other.receive::<ToMaster>().await, ToMaster::Stopping);
    other.send(&registered).await;
    assert_eq!(node.next().await.unwrap().unwrap(), registered);
}
