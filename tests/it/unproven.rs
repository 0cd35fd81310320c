//! What peers cost that have proved nothing, or that nobody has named: little while they are there, nothing when they have left.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ffnet::handshake::{HandshakeError, dial};
use ffnet::tls;
use ffproto::handshake::{PREAMBLE_BYTES, PROOF_BYTES_MAX, Purpose, Refusal};
use ffproto::{Incarnation, NodeName, Versions};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::process::{self, Memory};
use tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Peers on each port.
const PEERS: usize = 5_000;
/// What all of them together may cost.
const COST_MAX: u64 = 40 << 20;
/// Names that nobody has named.
const NAMES: usize = 1_000;

/// Opens the connections, says `first` on each, and waits until another one is heard behind them: they are served in their
/// order. Where a peer finds no room, it is closed at once.
async fn crowd(at: SocketAddr, purpose: Purpose, first: &[u8]) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(PEERS);
    for _ in 0..PEERS {
        let mut stream = TcpStream::connect(at).await?;
        // Whose place another one has got is closed meanwhile.
        let _ = stream.write_all(first).await;
        all.push(stream);
    }
    wait::until("the last one is heard", async || {
        let heard = async {
            let mut last = TcpStream::connect(at).await?;
            // An acceptor says nothing to who has said nothing.
            last.write_all(&purpose.preamble(Versions::OURS)).await?;
            last.read_exact(&mut [0; PREAMBLE_BYTES + 32]).await
        };
        heard.await.map_err(|error| error.to_string())
    })
    .await?;
    Ok(all)
}

fn cost(before: Memory, after: Memory) -> u64 {
    after.now.saturating_sub(before.now).max(after.peak.saturating_sub(before.peak))
}

/// As much as is taken of a channel's opening: the largest message that TLS knows, in records of its largest size.
fn client_hello() -> Vec<u8> {
    let record = [&[tls::FIRST_BYTE, 3, 1, 0x40, 0, 1, 0, 0xff, 0xfb, 3, 3][..], &[0; 1 << 14]].concat();
    record[..tls::UNPROVEN_BYTES_MAX - 1].to_vec()
}

#[tokio::test]
async fn thousands_of_peers_that_prove_nothing_cost_a_bounded_amount() -> Result<()> {
    if let Err(error) = process::raise_descriptors(PEERS as u64 + 500) {
        tests::skip::lacks_privilege(&format!("{error:#}"));
        return Ok(());
    }
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    cluster.until_answered(300).await?;
    let pids = cluster.pids().await?;
    let (master, gate) = (i32::try_from(cluster.master_pid()?)?, cluster.pid("gate").await?);
    for (port, pid, purpose) in [("master", master, Purpose::Control), ("gate", gate, Purpose::Link)] {
        let preamble = purpose.preamble(Versions::OURS);
        let length = u32::try_from(PROOF_BYTES_MAX)?.to_le_bytes();
        // All of a Hello of the largest size, but its last byte.
        let half = [&preamble[..], &length, &vec![0; PROOF_BYTES_MAX - 1]].concat();
        for (what, first) in [
            ("silent", &[][..]),
            ("in the middle of a Hello", &half),
            ("in the middle of a ClientHello", &client_hello()),
        ] {
            let before = Memory::of(pid)?;
            let crowd = crowd(cluster.at(port), purpose, first).await?;
            let cost = cost(before, Memory::of(pid)?);
            ensure!(cost < COST_MAX, "{PEERS} peers, {what}, cost {port} {} KiB", cost >> 10);
            cluster.until_answered(300).await?;
            drop(crowd);
        }
    }
    assert_eq!(cluster.pids().await?, pids);
    cluster.stop().await
}

#[tokio::test]
async fn a_thousand_names_that_nobody_has_named_cost_nothing_when_they_have_left() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    cluster.until_answered(300).await?;
    let like =
        cluster.local_of("game1", "game1", Incarnation::next(ffserver::Clock::system().now_ms(), None))?;
    let keys = cluster.master_keys()?;
    let methods: Vec<String> = (0..200).map(|n| format!("aMethodOfSomebody{n}")).collect();
    let to = |name: &str| NodeName::try_from(name).map_err(anyhow::Error::from);
    let come_and_go = async |number: usize| -> Result<()> {
        let mut claims = like.keys.claims().clone();
        claims.name = to(&format!("guest{number}"))?;
        let own = keys.start(claims, like.keys.incarnation(), &like.chance)?;
        let local = ffnet::handshake::Local { keys: own.into(), methods: methods.clone(), ..like.clone() };
        let mut stream = TcpStream::connect(cluster.at("gate")).await?;
        dial(&mut stream, Purpose::Link, &local, &to("gate")?).await?;
        let mut control = TcpStream::connect(cluster.at("master")).await?;
        let refused = dial(&mut control, Purpose::Control, &local, &NodeName::master()).await;
        let unknown = matches!(refused, Err(HandshakeError::RefusedByPeer(Refusal::Unknown(_))));
        ensure!(unknown, "{refused:?}");
        Ok(())
    };
    // What the first ones make the processes need stays: buffers, pages of the allocator.
    for number in 0..NAMES / 10 {
        come_and_go(number).await?;
    }
    let (master, gate) = (i32::try_from(cluster.master_pid()?)?, cluster.pid("gate").await?);
    let before = (Memory::of(master)?, Memory::of(gate)?);
    for number in NAMES / 10..NAMES {
        come_and_go(number).await?;
    }
    wait::until("gate has its own children only", async || {
        let gate = cluster.node("gate").await.map_err(|error| format!("{error:#}"))?;
        let children = gate["children"].as_array().map_or(0, Vec::len);
        if children == 2 { Ok(()) } else { Err(format!("{children} children")) }
    })
    .await?;
    for (who, pid, before) in [("the master", master, before.0), ("gate", gate, before.1)] {
        let more = Memory::of(pid)?.now.saturating_sub(before.now);
        ensure!(more < 8 << 20, "{NAMES} names have cost {who} {} KiB", more >> 10);
    }
    cluster.until_answered(300).await?;
    cluster.stop().await
}
