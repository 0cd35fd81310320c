//! The encoding that is checked here is the one that `ffnet` speaks.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::sync::Arc;

use bincode::Options as _;
use ffambient::{Chance, Clock};
use ffkeys::{ClusterKeys, ClusterSecret};
use ffnet::control::{MasterSide, NodeSide};
use ffnet::handshake::{Local, dial};
use ffproto::control::{self, ToMaster, ToNode};
use ffproto::credential::{Claims, Role};
use ffproto::handshake::{self, Answer, Hello, Methods, Opening, Purpose, Reply, Transcript, Verdict};
use ffproto::{ClusterName, Incarnation, NodeName, NodeNumber, Version, Versions};
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

fn local(name: &str, methods: &[&str]) -> Local {
    let secret = ClusterSecret::new(&Chance::seeded(1)).unwrap();
    let claims = Claims {
        cluster: ClusterName::try_from("demo").unwrap(),
        role: Role::Node,
        name: self::name(name),
        kind: "server".into(),
        below: vec![],
    };
    let keys = ClusterKeys::new(&secret, 0, None).unwrap();
    Local {
        keys: Arc::new(keys.start(claims, Incarnation(1), &Chance::system()).unwrap()),
        versions: Versions::OURS,
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        chance: Chance::system(),
        clock: Clock::system(),
        binding: vec![],
    }
}

#[tokio::test]
async fn a_handshake_of_ffnet_succeeds_with_this_encoding_at_the_other_end() {
    let (mut io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: handshake::PROOF_BYTES_MAX };
    let (net, gate, to) = (local("net", &["@"]), local("gate", &[]), name("gate"));
    let acceptor = async {
        let (ours, nonce) = (Purpose::Link.preamble(Versions::OURS), [2; 32]);
        other.io.write_all(&[&ours[..], &nonce].concat()).await.unwrap();
        let mut theirs = ours;
        other.io.read_exact(&mut theirs).await.unwrap();
        let version = Purpose::Link.negotiate(Versions::OURS, theirs).unwrap();
        let hello: Hello = other.receive().await;
        let (purpose, dialer, acceptor, nonce) = (Purpose::Link, &theirs, &ours, &nonce);
        let opening = Opening { purpose, version, dialer, acceptor, nonce, binding: &[] };
        let transcript = Transcript { opening, hello: &hello };
        ffkeys::verify(&hello.credential, &transcript.of_dialer(), &hello.signature).unwrap();
        let (credential, verdict) = (gate.keys.credential().clone(), Verdict::Welcome);
        let signature = gate.keys.sign(&transcript.of_acceptor(&credential, &verdict));
        other.send(&Answer { credential, verdict, signature }).await;
        assert_eq!(other.receive::<Reply>().await, Reply::Methods(Methods(vec!["@".into()])));
        other.send(&Methods(vec!["gateHandle1".into()])).await;
    };
    let (peer, ()) = tokio::join!(dial(&mut io, Purpose::Link, &net, &to), acceptor);
    assert_eq!(peer.unwrap().methods, ["gateHandle1"]);
}

#[tokio::test]
async fn both_sides_of_a_control_connection_speak_this_encoding() {
    let (io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: control::MESSAGE_BYTES_MAX };
    let mut master = MasterSide::new(io, Version(3));
    let registered = ToNode::Registered { number: NodeNumber(7), release: None };
    master.send(registered.clone()).await.unwrap();
    assert_eq!(other.receive::<ToNode>().await, registered);
    other.send(&ToMaster::Stopping).await;
    assert_eq!(master.next().await.unwrap().unwrap(), ToMaster::Stopping);

    let (io, other) = tokio::io::duplex(1024);
    let mut other = Other { io: other, bytes_max: control::MESSAGE_BYTES_MAX };
    let mut node = NodeSide::new(io, Version(3));
    node.send(ToMaster::Stopping).await.unwrap();
    assert_eq!(other.receive::<ToMaster>().await, ToMaster::Stopping);
    other.send(&registered).await;
    assert_eq!(node.next().await.unwrap().unwrap(), registered);
}
