//! What a holder of a node's real key can do to that node: nothing that lasts longer than he does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ffnet::control::NodeSide;
use ffnet::handshake::{HandshakeError, Local, Peer, dial};
use ffproto::control::ToMaster;
use ffproto::handshake::{Purpose, Refusal};
use ffproto::{Incarnation, NodeName};
use futures_util::{SinkExt, StreamExt};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tokio::net::TcpStream;

use crate::identity::key_file;

/// The holder of a key file for one node.
struct Holder<'a> {
    cluster: &'a Cluster,
    node: &'static str,
    key: ffkeys::NameKey,
    local: Local,
}

impl<'a> Holder<'a> {
    async fn new(cluster: &'a Cluster, node: &'static str) -> Result<Self> {
        let key = ffkeys::NameKey::of_text(&std::fs::read_to_string(key_file(cluster, node).await?)?)?;
        Ok(Self { cluster, node, key, local: cluster.local_of(node, node, Incarnation(1))? })
    }

    async fn dial(&self, at: &str, start: Incarnation) -> Result<(TcpStream, Peer), HandshakeError> {
        let keys = self.key.start(start, &self.local.chance).map_err(|_| HandshakeError::NoKey)?;
        let local = Local { keys: Arc::new(keys), ..self.local.clone() };
        let (purpose, to) = match at {
            "master" => (Purpose::Control, Ok(NodeName::master())),
            node => (Purpose::Link, NodeName::try_from(node)),
        };
        let mut stream = TcpStream::connect(self.cluster.at(at)).await?;
        let to = to.map_err(|_| HandshakeError::Malformed)?;
        let peer = dial(&mut stream, purpose, &local, &to).await?;
        Ok((stream, peer))
    }

    /// A start that is newer than the one that runs.
    fn newer(&self) -> Incarnation {
        Incarnation::next(self.local.clock.now_ms(), None)
    }

    /// Registers as that node, and says that it serves there.
    async fn register(&self, root: Option<std::net::SocketAddr>) -> Result<NodeSide<TcpStream>> {
        let (stream, peer) = self.dial("master", self.newer()).await?;
        let mut control = NodeSide::new(stream, peer.version);
        control.next().await.context("not registered")??;
        control.send(ToMaster::Ready { root, net: None, web: None }).await?;
        let said = format!("{} (pid {}) was started by somebody else", self.node, std::process::id());
        self.cluster.until_logged(&said).await?;
        Ok(control)
    }
}

/// The time within which a node serves again when who has used its key has gone.
const BACK: Duration = Duration::from_secs(2);

/// The node serves at most [`BACK`] after that moment, in whatever process, and clients are answered; nothing has panicked.
async fn serves(cluster: &Cluster, node: &str, since: Instant) -> Result<()> {
    let ours = i64::from(std::process::id());
    cluster.until(node, "serves", |node| node["state"] == "ready" && node["pid"] != ours).await?;
    cluster.until_answered(300).await?;
    let took = since.elapsed();
    ensure!(took <= BACK, "{node} was back after {took:?}; log:\n{}", cluster.log());
    ensure!(!cluster.log().contains("panicked"), "{}", cluster.log());
    Ok(())
}

#[tokio::test]
async fn a_start_of_the_end_of_all_time_is_refused_also_with_a_real_key() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let holder = Holder::new(&cluster, "game1").await?;
    for start in [u64::MAX, u64::MAX - 1, holder.newer().0 + 2 * Incarnation::SKEW_MS] {
        for at in ["gate", "master"] {
            let refused = holder.dial(at, Incarnation(start)).await;
            let is_future =
                matches!(&refused, Err(HandshakeError::RefusedByPeer(Refusal::Future(it))) if it.0 == start);
            ensure!(is_future, "{at}: {refused:?}");
        }
    }
    assert_eq!(cluster.pids().await?, before);
    serves(&cluster, "game1", Instant::now()).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_serves_on_when_a_newer_start_of_it_has_linked_and_left() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let holder = Holder::new(&cluster, "game1").await?;
    for ahead in [0, Incarnation::SKEW_MS / 4, Incarnation::SKEW_MS - 60_000] {
        let start = Incarnation(holder.newer().0 + ahead);
        let (link, _) = holder.dial("gate", start).await?;
        cluster.until_logged(&format!("child linked child=game1 incarnation={start}")).await?;
        drop(link);
        serves(&cluster, "game1", Instant::now()).await?;
        assert_eq!(cluster.pids().await?, before, "{ahead}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_node_is_back_when_somebody_has_registered_as_it_and_left() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let holder = Holder::new(&cluster, "game1").await?;
    for _ in 0..2 {
        let control = holder.register(None).await?;
        drop(control);
        serves(&cluster, "game1", Instant::now()).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn children_are_back_when_somebody_has_registered_as_their_parent_elsewhere_and_left() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let holder = Holder::new(&cluster, "gate").await?;
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let control = holder.register(Some(elsewhere.local_addr()?)).await?;
    // They come here, and no further than the proof that this is gate.
    elsewhere.accept().await?;
    drop((control, elsewhere));
    serves(&cluster, "gate", Instant::now()).await?;
    wait::until("both children are linked", async || {
        let gate = cluster.node("gate").await.map_err(|error| format!("{error:#}"))?;
        let linked = gate["children"].as_array().map_or(0, Vec::len);
        if linked == 2 { Ok(()) } else { Err(format!("{gate}")) }
    })
    .await?;
    cluster.stop().await
}
