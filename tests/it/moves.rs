//! A session moves to another node: who is told, and what becomes of its messages, whoever dies.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tests::websocket::WebClient;

const HALLS: [&str; 2] = ["hall.1", "hall.2"];

/// Where the session's messages go.
async fn place(client: &mut Client) -> Result<String> {
    let answer = String::from_utf8(client.call(2113, b"x").await?.to_vec())?;
    Ok(answer.split_once(' ').context("no node")?.0.to_owned())
}

fn other(hall: &str) -> &'static str {
    if hall == HALLS[0] { HALLS[1] } else { HALLS[0] }
}

async fn id(client: &mut Client) -> Result<String> {
    let seen: Value = serde_json::from_slice(&client.call(20, b"").await?)?;
    Ok(seen["session"].as_str().context("no id")?.to_owned())
}

fn events(cluster: &Cluster, event: &str) -> usize {
    cluster.log().matches(&format!("event: {event}")).count()
}

async fn until_event(cluster: &Cluster, event: &str) -> Result<()> {
    cluster.until_logged(&format!("event: {event}")).await
}

/// A client with a session that one hall has.
async fn settled(cluster: &Cluster) -> Result<(Client, String, String)> {
    let mut client = cluster.client().await?;
    let (here, session) = (place(&mut client).await?, id(&mut client).await?);
    Ok((client, session, here))
}

#[tokio::test]
async fn a_moved_session_goes_on_at_the_new_node_and_both_nodes_are_told_once() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut client, session, first) = settled(&cluster).await?;
    let (mut bystander, _, stays) = settled(&cluster).await?;
    let second = other(&first);
    for (command, from, to) in [(2111, first.as_str(), second), (30, second, &first)] {
        assert_eq!(client.call(command, format!("{to} a key").as_bytes()).await?, "moves");
        assert_eq!(place(&mut client).await?, to);
        until_event(&cluster, &format!("{to} entered {session} from {from}: a key\n")).await?;
        until_event(&cluster, &format!("{from} left {session}\n")).await?;
    }
    assert_eq!(place(&mut bystander).await?, stays, "another session stays");
    drop(client);
    for hall in HALLS {
        until_event(&cluster, &format!("{hall} closed {session}\n")).await?;
        assert_eq!(events(&cluster, &format!("{hall} entered {session}")), 1, "{hall}");
        assert_eq!(events(&cluster, &format!("{hall} left {session}")), 1, "{hall}");
        assert_eq!(events(&cluster, &format!("{hall} opened {session}")), 1, "{hall}");
    }
    let mut web = WebClient::connect(cluster.at("net2")).await?;
    let answer = web.call_json(&json!({"command": 2111, "body": "hall.2 web"})).await?;
    assert_eq!(answer["body"], "moves");
    let answer = web.call_json(&json!({"command": 2113, "body": "x"})).await?;
    assert_eq!(answer["body"], "hall.2 x");
    cluster.stop().await
}

#[tokio::test]
async fn a_move_to_a_node_that_is_not_there_or_has_no_command_fails_and_changes_nothing() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut client, session, here) = settled(&cluster).await?;
    for command in [2111, 30] {
        for (to, why) in [
            ("nowhere", "no node `nowhere` is reached"),
            ("net2", "no command goes to nodes of the kind `hallnet`"),
        ] {
            assert_eq!(client.call_error(command, format!("{to} x").as_bytes()).await?.message, why);
            assert_eq!(place(&mut client).await?, here);
        }
    }
    let dead = other(&here);
    let stopped = cluster.admin("POST", &format!("/nodes/{dead}/stop")).await?;
    ensure!(stopped.status < 300, "{stopped:?}");
    let gone = format!("no node `{dead}` is reached");
    wait::until("the net node knows that it is gone", async || {
        let error = client.call_error(2111, format!("{dead} x").as_bytes()).await;
        match error {
            Ok(error) if error.message == gone => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert_eq!(place(&mut client).await?, here);
    assert_eq!(events(&cluster, &format!("{here} left {session}")), 0);
    cluster.stop().await
}

/// Sends numbered messages, with a move among them now and then, and does not wait for answers. Every message is
/// answered once, in order.
async fn pipelines(client: &mut Client, from: usize, to: usize) -> Result<Vec<String>> {
    let mut frames = Vec::new();
    for n in from..to {
        if n % 25 == 24 {
            let hall = HALLS[(n / 50) % 2];
            frames.extend(client.frame(2111, format!("{hall} slow 5").as_bytes()));
        } else {
            frames.extend(client.frame(2113, n.to_string().as_bytes()));
        }
    }
    client.send_bytes(&frames).await?;
    let mut nodes = Vec::new();
    for n in from..to {
        let (command, body) = client.receive().await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if n % 25 == 24 {
            // The second of a burst comes while the first is under way.
            let refused = text.contains("the session is being moved already");
            ensure!(command == 2111 || refused, "{n}: {command} {text}");
        } else {
            let (node, number) = text.split_once(' ').with_context(|| format!("{n}: {command} {text}"))?;
            ensure!(command == 2113 && number == n.to_string(), "{n}: {command} {text}");
            nodes.push(node.to_owned());
        }
    }
    Ok(nodes)
}

#[tokio::test]
async fn no_message_is_lost_doubled_or_reordered_while_a_session_moves_again_and_again() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    let mut nodes = Vec::new();
    for burst in 0..40 {
        nodes.extend(pipelines(&mut client, burst * 50, burst * 50 + 50).await?);
    }
    let changes = nodes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    ensure!((20..=80).contains(&changes), "{changes} changes of the node");
    assert_eq!(events(&cluster, "net opened"), 1);
    cluster.until("net", "no move failed", |node| node["counters"]["moves_failed"].is_null()).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_session_moves_although_the_old_node_is_killed_meanwhile() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut client, session, old) = settled(&cluster).await?;
    let new = other(&old);
    client.send(2112, format!("{new} heirloom").as_bytes()).await?;
    cluster.until_logged("call command 2112").await?;
    client.send(2113, b"behind").await?;
    let before = cluster.kill_hard(&old).await?;
    // What ran there is lost, and what comes later goes on at the new node.
    assert_eq!(client.receive_error().await?.code, "link_lost");
    let (_, behind) = client.receive().await?;
    ensure!(behind == format!("{new} behind") || behind.starts_with(b"{\"command\":2113"), "{behind:?}");
    wait::until("it goes on at the new node", async || match place(&mut client).await {
        Ok(node) if node == new => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    until_event(&cluster, &format!("{new} entered {session} from {old}: heirloom\n")).await?;
    cluster.until_back(&old, before).await?;
    assert_eq!(place(&mut client).await?, new);
    cluster.stop().await
}

#[tokio::test]
async fn a_session_whose_new_node_is_killed_before_it_enters_stays_or_finds_its_next_start() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut client, session, old) = settled(&cluster).await?;
    let new = other(&old);
    // It dies for good: the session stays where it was, and loses nothing.
    client.send(2112, format!("{new} x").as_bytes()).await?;
    cluster.until_logged("call command 2112").await?;
    let stopped = cluster.admin("POST", &format!("/nodes/{new}/stop")).await?;
    ensure!(stopped.status < 300, "{stopped:?}");
    assert_eq!(client.receive().await?, (2112, "moves".into()));
    for n in 0..20 {
        client.send(2113, n.to_string().as_bytes()).await?;
    }
    for n in 0..20 {
        assert_eq!(client.receive().await?, (2113, format!("{old} {n}").into()));
    }
    cluster.until("net", "has counted it", |node| node["counters"]["moves_failed"] == 1).await?;
    assert_eq!(events(&cluster, &format!("{old} left {session}")), 0);
    // The app of the node that wanted it has heard of it before the next message.
    assert_eq!(events(&cluster, &format!("{old} not moved {session} to {new}: x\n")), 1);
    // It is killed and back at once: the move goes to its next start, or comes to nothing.
    let started = cluster.admin("POST", &format!("/nodes/{new}/start")).await?;
    ensure!(started.status < 300, "{started:?}");
    cluster.until_linked(new, "gate").await?;
    wait::until("it may be moved there again", async || {
        client.call(2112, format!("{new} y").as_bytes()).await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    let before = cluster.kill_hard(new).await?;
    cluster.until_back(new, before).await?;
    let mut answered = Vec::new();
    for n in 0..20 {
        client.send(2113, n.to_string().as_bytes()).await?;
        answered.push(client.receive().await?.0);
    }
    ensure!(answered.iter().filter(|command| **command == u32::MAX).count() <= 1, "{answered:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_moved_session_stays_at_its_node_when_the_gate_is_killed_meanwhile_and_afterwards() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(settled(&cluster).await?);
    }
    // All of them go to one hall, which a gate that knows nothing would not choose for all.
    for (client, session, here) in &mut clients {
        if here != HALLS[1] {
            client.call(2111, b"hall.2 slow 20").await?;
            until_event(&cluster, &format!("hall.2 entered {session} from hall.1: slow 20\n")).await?;
        }
    }
    let moved = clients.iter().filter(|(_, _, here)| here != HALLS[1]).count();
    ensure!(moved >= 3, "{moved} were moved");
    let old = cluster.kill_hard("gate").await?;
    cluster.until_back("gate", old).await?;
    for (client, session, here) in &mut clients {
        if here == HALLS[1] {
            continue;
        }
        let place =
            wait::until("it goes on", async || place(client).await.map_err(|e| format!("{e:#}"))).await?;
        assert_eq!(place, HALLS[1], "{session}");
    }
    // And killed while sessions are on their way.
    for (client, ..) in &mut clients {
        client.send(2111, b"hall.1 slow 300").await?;
    }
    cluster.until_logged("call command 2111").await?;
    let old = cluster.kill_hard("gate").await?;
    cluster.until_back("gate", old).await?;
    for (client, session, _) in &mut clients {
        let (command, _) = client.receive().await?;
        let first =
            wait::until("it goes on", async || place(client).await.map_err(|e| format!("{e:#}"))).await?;
        ensure!(command == u32::MAX || first == HALLS[0], "{session} is at {first}");
        for _ in 0..3 {
            assert_eq!(place(client).await?, first, "{session}");
        }
        let entered = events(&cluster, &format!("hall.1 entered {session} from hall.2: slow 300"));
        ensure!(entered <= 1, "{session} has entered {entered} times");
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_session_that_ends_while_it_moves_ends_everywhere() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut client, session, old) = settled(&cluster).await?;
    let new = other(&old);
    client.call(2111, format!("{new} slow 400").as_bytes()).await?;
    until_event(&cluster, &format!("{new} opened {session}\n")).await?;
    let before = cluster.kill_hard("net").await?;
    for hall in HALLS {
        until_event(&cluster, &format!("{hall} closed {session}\n")).await?;
        assert_eq!(events(&cluster, &format!("{hall} closed {session}")), 1);
    }
    cluster.until_back("net", before).await?;
    cluster.stop().await
}

/// The new process of a gate does not know from its begin on who is behind it.
#[tokio::test]
async fn a_move_waits_for_its_node_while_the_gate_is_replaced() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    place(&mut client).await?;
    let mut from = 0;
    for _ in 0..5 {
        let at = cluster.at("admin");
        let replaced =
            tokio::spawn(async move { tests::http::request(at, "POST", "/nodes/gate/reload", &[]).await });
        while !replaced.is_finished() {
            pipelines(&mut client, from, from + 50).await?;
            from += 50;
        }
        let answer = replaced.await??;
        ensure!(answer.status < 300, "{answer:?}");
    }
    cluster.until("net", "no move failed", |node| node["counters"]["moves_failed"].is_null()).await?;
    cluster.stop().await
}

#[tokio::test]
async fn sessions_move_while_every_process_is_replaced() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    place(&mut client).await?;
    let at = cluster.at("admin");
    let reload = tokio::spawn(async move { tests::http::request(at, "POST", "/reload", &[]).await });
    let mut from = 0;
    while !reload.is_finished() {
        pipelines(&mut client, from, from + 50).await?;
        from += 50;
    }
    let answer = reload.await??;
    ensure!(answer.status < 300 && from > 100, "{from} {answer:?}");
    for to in ["hall.1", "hall.2", "hall.1"] {
        wait::until("no other move is under way", async || {
            client.call(2111, format!("{to} last").as_bytes()).await.map_err(|e| format!("{e:#}"))
        })
        .await?;
        assert_eq!(place(&mut client).await?, to);
    }
    cluster.stop().await
}
