//! A session is one thing on every node: what it says, what is sent to it, and its end, whoever dies.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ffproto::relay::Op;
use ffproto::{Code, SessionId};
use serde_json::{Value, json};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::rogue::Rogue;
use tests::wait;
use tests::websocket::WebClient;

async fn seen(client: &mut Client, command: u32) -> Result<Value> {
    Ok(serde_json::from_slice(&client.call(command, b"").await?)?)
}

/// What both halls see, by turns.
async fn halls_see(client: &mut Client) -> Result<[Value; 2]> {
    let mut halls = [None, None];
    for _ in 0..50 {
        let one = seen(client, 2000).await?;
        let place = usize::from(one["node"] == "hall.2");
        halls[place] = Some(one);
        if let [Some(first), Some(second)] = &halls {
            return Ok([first.clone(), second.clone()]);
        }
    }
    anyhow::bail!("only one hall answers")
}

/// How often the log has the event of a session.
fn events(cluster: &Cluster, node: &str, event: &str, session: &str) -> usize {
    cluster.log().matches(&format!("event: {node} {event} {session}\n")).count()
}

async fn until_event(cluster: &Cluster, node: &str, event: &str, session: &str) -> Result<()> {
    cluster.until_logged(&format!("event: {node} {event} {session}\n")).await
}

#[tokio::test]
async fn a_session_has_the_same_id_address_user_and_attributes_on_every_node() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    let on_net = seen(&mut client, 20).await?;
    for same in [seen(&mut client, 22).await?, seen(&mut client, 2101).await?] {
        assert_eq!((&same["session"], &same["address"]), (&on_net["session"], &on_net["address"]));
        assert_eq!((&same["user"], &same["attributes"]), (&Value::Null, &json!({})));
    }
    halls_see(&mut client).await?;
    client.call(2103, b"ann").await?;
    client.call(2102, b"room red").await?;
    client.call(21, b"hp 10").await?;
    for command in [20, 22, 2101] {
        let there = seen(&mut client, command).await?;
        assert_eq!(
            (&there["user"], &there["attributes"]),
            (&json!("ann"), &json!({"room": "red", "hp": "10"}))
        );
    }
    client.call(21, b"room").await?;
    wait::until("both halls have heard of every change", async || {
        let halls = halls_see(&mut client).await.map_err(|e| format!("{e:#}"))?;
        let right =
            halls.iter().all(|hall| hall["attributes"] == json!({"hp": "10"}) && hall["user"] == "ann");
        if right { Ok(()) } else { Err(format!("{halls:?}")) }
    })
    .await?;
    let other = seen(&mut cluster.client().await?, 2101).await?;
    assert_eq!(other["user"], Value::Null, "another session has its own");
    cluster.stop().await
}

#[tokio::test]
async fn a_state_above_its_limit_is_refused_and_changes_nothing() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    for command in [21, 2102] {
        let error = client.call_error(command, format!("k {}", "x".repeat(1024)).as_bytes()).await?;
        assert_eq!(error.code, "handler");
        cluster
            .until_logged("user and attributes of 1025 bytes are above limits.session_state_bytes_max")
            .await?;
        client.call(command, format!("k {}", "x".repeat(1023)).as_bytes()).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn pushes_of_another_node_arrive_in_order_and_before_the_answer_that_follows_them() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    for _ in 0..3 {
        client.send(2104, b"2000").await?;
        for n in 0..2000u32 {
            assert_eq!(client.receive().await?, (9, n.to_string().into()));
        }
        assert_eq!(client.receive().await?, (2104, "pushed".into()));
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_session_that_another_node_closes_gets_what_was_sent_before_and_the_reason() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut plain = cluster.client().await?;
    plain.send(2104, b"1").await?;
    plain.send(2105, b"cheating").await?;
    assert_eq!(plain.receive().await?, (9, "0".into()));
    assert_eq!(plain.receive().await?, (2104, "pushed".into()));
    plain.until_closed().await?;
    cluster.until_logged("closed by the server: cheating").await?;
    let mut web = WebClient::connect(cluster.at("net2")).await?;
    web.send_json(&json!({"command": 2105, "body": "cheating, too"})).await?;
    assert_eq!(web.closed().await?, (1000, "cheating, too".to_owned()));
    cluster.stop().await
}

#[tokio::test]
async fn every_node_that_a_session_has_touched_is_told_of_its_end_once() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    halls_see(&mut client).await?;
    let session = seen(&mut client, 22).await?["session"].as_str().context("no id")?.to_owned();
    let mut other = cluster.client().await?;
    let stays = seen(&mut other, 2101).await?["session"].as_str().context("no id")?.to_owned();
    drop(client);
    for node in ["net", "gate", "hall.1", "hall.2"] {
        until_event(&cluster, node, "closed", &session).await?;
    }
    // Longer than the nodes take to compare what they know.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for node in ["net", "gate", "hall.1", "hall.2"] {
        for event in ["opened", "closed"] {
            assert_eq!(events(&cluster, node, event, &session), 1, "{node} {event}");
        }
    }
    assert_eq!(events(&cluster, "net2", "opened", &session), 0, "it has not touched net2");
    assert!(!cluster.log().contains(&format!("closed {stays}")));
    seen(&mut other, 2101).await?;
    cluster.stop().await
}

#[tokio::test]
async fn sessions_of_a_killed_net_node_are_closed_everywhere_once_and_the_others_go_on() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut dead = Vec::new();
    for _ in 0..5 {
        let mut client = cluster.client().await?;
        halls_see(&mut client).await?;
        let session = seen(&mut client, 20).await?["session"].as_str().context("no id")?.to_owned();
        dead.push((client, session));
    }
    let mut other = Client::connect(cluster.at("net2")).await?;
    let [first, _] = halls_see(&mut other).await?;
    let old = cluster.kill_hard("net").await?;
    for (_, session) in &dead {
        for hall in ["hall.1", "hall.2"] {
            until_event(&cluster, hall, "closed", session).await?;
        }
    }
    cluster.until_back("net", old).await?;
    cluster.until_linked("net", "gate").await?;
    let mut new = cluster.client().await?;
    wait::until("a new client is served", async || seen(&mut new, 2101).await.map_err(|e| format!("{e:#}")))
        .await?;
    for (_, session) in &dead {
        for hall in ["hall.1", "hall.2"] {
            assert_eq!(events(&cluster, hall, "closed", session), 1, "{hall} {session}");
        }
    }
    assert_eq!(seen(&mut other, 2101).await?["session"], first["session"]);
    assert!(!cluster.log().contains(&format!("closed {}", first["session"].as_str().unwrap_or("?"))));
    // Nobody on the way keeps anything of the dead ones: there are the two that live.
    cluster.until("gate", "has forgotten them", |node| node["counters"]["sessions_routed"] == 2).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_is_gone_is_told_of_behind_what_it_had_begun() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    let session = seen(&mut client, 20).await?["session"].as_str().context("no id")?.to_owned();
    client.send(23, b"600 1").await?;
    cluster.until_logged("net_broadcasts_later").await?;
    client.reset()?;
    until_event(&cluster, "net", "closed", &session).await?;
    let log = cluster.log();
    let at = |event: &str| log.find(event).with_context(|| format!("no {event} in {log}"));
    ensure!(at("event: net sent 1")? < at(&format!("event: net closed {session}"))?, "{log}");
    cluster.stop().await
}

#[tokio::test]
async fn a_killed_gate_ends_no_session_and_what_is_known_of_it_stays() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    client.call(2103, b"ann").await?;
    let before = seen(&mut client, 2101).await?;
    let old = cluster.kill_hard("gate").await?;
    cluster.until_back("gate", old).await?;
    let after = wait::until("the session goes on", async || {
        let mut asked = client.call(2101, b"").await;
        if asked.is_err() {
            asked = client.call(2000, b"").await;
        }
        let bytes = asked.map_err(|e| format!("{e:#}"))?;
        serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string())
    })
    .await?;
    assert_eq!((&after["session"], &after["user"]), (&before["session"], &json!("ann")));
    client.send(2104, b"3").await?;
    for n in 0..3 {
        assert_eq!(client.receive().await?, (9, n.to_string().into()));
    }
    assert!(!cluster.log().contains(&format!("closed {}", before["session"].as_str().unwrap_or("?"))));
    cluster.stop().await
}

#[tokio::test]
async fn what_is_known_of_a_session_outlives_the_node_that_noted_it() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    client.call(2102, b"room red").await?;
    let first = seen(&mut client, 2101).await?;
    let hall = first["node"].as_str().context("no node")?.to_owned();
    let old = cluster.kill_hard(&hall).await?;
    let second = wait::until("another hall goes on", async || {
        let bytes = client.call(2101, b"").await.map_err(|e| format!("{e:#}"))?;
        serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string())
    })
    .await?;
    assert_eq!(second["attributes"], json!({"room": "red"}));
    cluster.until_back(&hall, old).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_push_to_a_session_that_is_gone_is_a_value_and_counted() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut sender = cluster.client().await?;
    let mut receiver = Client::connect(cluster.at("net2")).await?;
    halls_see(&mut sender).await?;
    let [there, _] = halls_see(&mut receiver).await?;
    let session = there["session"].as_str().context("no id")?.to_owned();
    assert_eq!(sender.call(2106, format!("{session} hello").as_bytes()).await?, "pushed");
    assert_eq!(receiver.receive().await?, (9, "hello".into()));
    drop(receiver);
    for hall in ["hall.1", "hall.2"] {
        until_event(&cluster, hall, "closed", &session).await?;
    }
    assert_eq!(sender.call(2106, format!("{session} anybody").as_bytes()).await?, "Gone");
    let hall = seen(&mut sender, 2101).await?["node"].as_str().context("no node")?.to_owned();
    cluster.until(&hall, "has counted it", |node| node["counters"]["pushes_to_gone"] == 1).await?;
    cluster.stop().await
}

#[tokio::test]
async fn what_a_node_says_for_sessions_that_are_not_behind_it_is_refused_and_counted() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    let there = seen(&mut client, 2101).await?;
    let session = SessionId(u64::from_str_radix(there["session"].as_str().context("no id")?, 16)?);
    let mut forger = Rogue::link(&cluster, "hall", "stranger").await?;
    let Err(fault) = forger.call("@hall", Some((session, 2101)), b"").await? else {
        bail!("it was answered")
    };
    assert_eq!(fault.code, Code::BadRequest, "{fault}");
    // As if it were the net node itself: the session has ended.
    let net = session.node().0;
    forger.tell((net, 1), Op::Ended, Some(session), b"").await?;
    // And a change in the name of another node.
    forger.tell((1, net), Op::Close, Some(session), b"forged").await?;
    cluster.until("gate", "has counted all three", |node| node["counters"]["forged_sessions"] == 3).await?;
    cluster.until_logged("the session is not of a node behind that link").await?;
    let again = seen(&mut client, 2101).await?;
    assert_eq!(again["session"], there["session"]);
    assert!(!cluster.log().contains("closed by the server: forged"));
    cluster.stop().await
}

/// Every node's process is replaced, the net node's, the gate's and the halls'.
#[tokio::test]
async fn a_reload_ends_no_session_opens_none_again_and_loses_no_push() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    client.call(2103, b"ann").await?;
    halls_see(&mut client).await?;
    let session = seen(&mut client, 20).await?["session"].as_str().context("no id")?.to_owned();
    let before = cluster.pids().await?;
    let at = cluster.at("admin");
    let reload = tokio::spawn(async move { tests::http::request(at, "POST", "/reload", &[]).await });
    let replaced = async || {
        let now = cluster.pids().await.map_err(|e| format!("{e:#}"))?;
        let nodes = cluster.status().await.map_err(|e| format!("{e:#}"))?;
        let ready = nodes["nodes"].as_array().is_some_and(|all| all.iter().all(|n| n["state"] == "ready"));
        if ready && now.iter().all(|pid| !before.contains(pid)) { Ok(()) } else { Err(nodes.to_string()) }
    };
    let deadline = tokio::time::Instant::now() + wait::PATIENCE;
    let mut rounds = 0;
    loop {
        client.send(2104, b"20").await?;
        // While the gate is replaced the answer comes over the old process and may overtake the pushes.
        let (mut pushed, mut answered) = (Vec::new(), 0);
        while pushed.len() < 20 || answered == 0 {
            match client.receive().await? {
                (9, body) => pushed.push(body),
                other => {
                    assert_eq!(other, (2104, "pushed".into()), "round {rounds}");
                    answered += 1;
                }
            }
        }
        let all: Vec<_> = (0..20u32).map(|n| n.to_string()).collect();
        assert_eq!((pushed, answered), (all.iter().map(|n| n.clone().into()).collect(), 1), "round {rounds}");
        rounds += 1;
        let Err(state) = replaced().await else { break };
        ensure!(tokio::time::Instant::now() < deadline, "not replaced: {state}\n{}", cluster.log());
    }
    let answer = reload.await??;
    ensure!(answer.status < 300, "{answer:?}");
    ensure!(rounds > 2, "{rounds} rounds while every process was replaced are none");
    let [first, second] = halls_see(&mut client).await?;
    assert_eq!((&first["user"], &second["user"]), (&json!("ann"), &json!("ann")));
    for node in ["net", "hall.1", "hall.2"] {
        assert_eq!(events(&cluster, node, "opened", &session), 1, "{node}");
        assert_eq!(events(&cluster, node, "closed", &session), 0, "{node}");
    }
    drop(client);
    for node in ["net", "hall.1", "hall.2"] {
        until_event(&cluster, node, "closed", &session).await?;
        assert_eq!(events(&cluster, node, "closed", &session), 1, "{node}");
    }
    cluster.stop().await
}

/// The request that asks keeps its session from leaving for the new process, which is asked.
#[tokio::test]
async fn what_a_running_request_changes_does_not_wait_for_the_replacement_of_its_net_node() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut client = cluster.client().await?;
    seen(&mut client, 2101).await?;
    let at = cluster.at("admin");
    let reload = tokio::spawn(async move { tests::http::request(at, "POST", "/reload", &[]).await });
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while !reload.is_finished() {
        for (command, body) in [(2102, format!("n {rounds}")), (2107, "red".into()), (2108, "red".into())] {
            let begun = tokio::time::Instant::now();
            client.call(command, body.as_bytes()).await.with_context(|| format!("round {rounds}"))?;
            slowest = slowest.max(begun.elapsed());
        }
        rounds += 1;
    }
    let answer = reload.await??;
    ensure!(answer.status < 300, "{answer:?}");
    ensure!(rounds > 20, "{rounds} rounds while every process was replaced are few");
    ensure!(slowest < Duration::from_secs(2), "one took {slowest:?}");
    let noted = seen(&mut client, 2101).await?;
    assert_eq!(noted["attributes"], json!({"n": (rounds - 1).to_string()}));
    cluster.stop().await
}
