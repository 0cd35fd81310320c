//! Links and control connections that are encrypted, on loopback too: what a cluster does is the same.

use anyhow::{Result, ensure};
use ffnet::channel;
use ffnet::handshake::{HandshakeError, dial};
use ffproto::encrypt::Encrypt;
use ffproto::handshake::Purpose;
use ffproto::{Incarnation, NodeName};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::trials::{Say, reload};
use tokio::net::TcpStream;

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

const PORTS: [(&str, Purpose); 2] = [("gate", Purpose::Link), ("master", Purpose::Control)];

/// A node whose config says something else is told what to set; that it has a key of the cluster helps it nothing.
#[tokio::test]
async fn where_encryption_is_asked_for_nobody_comes_in_without() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?.encrypted()).await?;
    cluster.until_answered(300).await?;
    let now = Incarnation(ffserver::Clock::system().now_ms());
    let game1 = cluster.local_of("game1", "game1", now)?;
    for (at, purpose) in PORTS {
        let to = NodeName::try_from(at)?;
        let mut stream = TcpStream::connect(cluster.at(at)).await?;
        let refused = dial(&mut stream, purpose, &game1, &to).await;
        ensure!(matches!(refused, Err(HandshakeError::UnencryptedHere)), "{at}: {refused:?}");
        cluster.until_logged("only encrypted connections are taken from there: has `master.encrypt`").await?;
    }
    cluster.stop().await
}

/// Whoever encrypts where nobody asks for it is welcome.
#[tokio::test]
async fn where_nobody_asks_for_encryption_it_is_taken_all_the_same() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let now = Incarnation(ffserver::Clock::system().now_ms());
    for (at, purpose) in PORTS {
        let (game1, to) = (cluster.local_of("game1", "game1", now)?, NodeName::try_from(at)?);
        let stream = TcpStream::connect(cluster.at(at)).await?;
        let opened = channel::dial(stream, Encrypt::Always, purpose, game1, &to, Incarnation(0)).await;
        ensure!(opened?.0.is_sealed());
    }
    cluster.stop().await
}

#[tokio::test]
async fn an_encrypted_cluster_is_killed_and_reloaded_as_any_other() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?.encrypted()).await?;
    cluster.until_answered(300).await?;
    for node in ["game1", "gate", "net"] {
        let old = cluster.kill_hard(node).await?;
        cluster.until_back(node, old).await?;
        cluster.until_answered(300).await?;
    }
    cluster.stop().await?;
    let (any_time, encrypt) = (true, true);
    let more = reload::More {
        http: 2,
        reloads: 2,
        worlds: true,
        stall_ms: 0,
        any_time,
        encrypt,
        ..Default::default()
    };
    reload::run(&reload::Size { connections: 100, pause_ms: 2, more }, SAY).await
}
