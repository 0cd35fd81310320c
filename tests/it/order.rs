//! What a node sends to a session keeps its order while processes on the way are replaced: pushes among each other,
//! and before the answer that follows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;

const CLIENTS: usize = 12;
/// Pushes before each answer.
const PUSHES: u32 = 8;

/// Asks on and on for numbered pushes and an answer, two requests ahead, and checks that each comes in its place.
async fn plays(mut client: Client, over: Arc<AtomicBool>) -> Result<u32> {
    let (mut asked, mut rounds) = (0, 0);
    loop {
        while asked < rounds + 2 && !over.load(Ordering::Relaxed) {
            let body = format!("{} {}", asked * PUSHES, (asked + 1) * PUSHES);
            client.send(2114, body.as_bytes()).await?;
            asked += 1;
        }
        if rounds == asked {
            return Ok(rounds);
        }
        for n in rounds * PUSHES..(rounds + 1) * PUSHES {
            let (command, body) = client.receive().await?;
            ensure!(command == 9 && body == n.to_string(), "{n} is expected, not {command}: {body:?}");
        }
        let answer = format!("{} {}", rounds * PUSHES, (rounds + 1) * PUSHES);
        let (command, body) = client.receive().await?;
        ensure!(
            command == 2114 && body == answer,
            "the answer {answer} is expected, not {command}: {body:?}"
        );
        rounds += 1;
    }
}

/// Each of `nodes` is replaced `times` times while clients play.
async fn keeps_order_while_replaced(nodes: &[&str], times: usize) -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let client = Client::connect(cluster.at(["net", "net2"][n % 2])).await?;
        clients.push(tokio::spawn(plays(client, over.clone())));
    }
    for _ in 0..times {
        for node in nodes {
            let answer = cluster.admin("POST", &format!("/nodes/{node}/reload")).await?;
            ensure!(answer.status < 300, "{node}: {answer:?}");
            cluster.until(node, "is replaced", |node| node["state"] == "ready").await?;
            if let Some(at) = clients.iter().position(tokio::task::JoinHandle::is_finished) {
                let played = clients.swap_remove(at).await?;
                bail!("a client has ended: {played:?}, log: {}", cluster.log_path().display());
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let rounds = client.await?.with_context(|| format!("log: {}", cluster.log_path().display()))?;
        ensure!(rounds > 10, "only {rounds} rounds");
    }
    cluster.stop().await
}

#[tokio::test]
async fn no_answer_comes_before_its_pushes_while_the_gate_is_replaced_ten_times() -> Result<()> {
    keeps_order_while_replaced(&["gate"], 10).await
}

#[tokio::test]
async fn no_answer_comes_before_its_pushes_while_the_net_nodes_are_replaced() -> Result<()> {
    keeps_order_while_replaced(&["net", "net2"], 4).await
}
