//! Clients' messages that are handled elsewhere: order, stickiness, bounds.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::single::Single;
use tests::trials::order;
use tests::wait;
use tokio::task::JoinSet;

#[tokio::test]
async fn pipelined_requests_of_a_session_run_in_order_and_one_at_a_time_while_others_die() -> Result<()> {
    let size = order::Size { connections: 50, requests: 300, deep: 32, kill_every_ms: 500 };
    order::run(&size, &|line| println!("{line}")).await
}

#[tokio::test]
async fn a_stateless_range_uses_every_node_of_the_kind() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    let mut nodes = BTreeSet::new();
    for _ in 0..20 {
        nodes.insert(client.call(1500, b"").await?);
    }
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_concurrent_handler_does_not_hold_up_its_session_on_another_node() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    client.send(1001, b"200").await?;
    client.send(1000, b"1 0").await?;
    assert_eq!(client.receive().await?.0, 1000);
    assert_eq!(client.receive().await?.0, 1001);
    cluster.stop().await
}

#[tokio::test]
async fn a_session_goes_on_with_the_other_game_node_when_its_own_is_killed() -> Result<()> {
    let patient = Fixture::trial()?.replace("\"call_timeout_ms\": 1000", "\"call_timeout_ms\": 9000");
    let cluster = Cluster::processes(patient).await?;
    let mut client = cluster.client().await?;
    let answer = String::from_utf8(client.call(1000, b"1 0").await?.to_vec())?;
    let own = answer.rsplit(' ').next().context("no node")?.to_owned();
    client.send(1000, b"2 8000").await?;
    cluster.kill_hard(&own).await?;
    let (command, body) = client.receive().await?;
    let error = tests::client::parse_error(&body)?;
    assert_eq!((command, error.code.as_str(), error.executed.as_str()), (u32::MAX, "link_lost", "unknown"));
    let answer = client.call(1000, b"3 0").await?;
    assert!(answer.starts_with(b"3 ok game."), "{answer:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_pipelines_deeper_than_its_bound_is_paused_and_loses_nothing() -> Result<()> {
    let bounded = "\"call_timeout_ms\": 9000, \"session_calls_max\": 2, \"session_queue_max\": 1";
    let fixture = Fixture::trial()?.replace("\"call_timeout_ms\": 1000", bounded);
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    // More than two at a time on the game node would be refused as overloaded: one runs, one waits.
    for n in 1..=20 {
        client.send(1000, format!("{n} 5").as_bytes()).await?;
    }
    for n in 1..=20 {
        let (command, answer) = client.receive().await?;
        assert!(answer.starts_with(format!("{n} ok ").as_bytes()), "{command}: {answer:?}");
    }
    cluster.stop().await
}

/// The end of a call on another node and the pause of the connection meet on different threads, thousands of times.
#[tokio::test]
async fn a_paused_client_goes_on_when_several_threads_serve_it() -> Result<()> {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 4000;
    let fixture = Fixture::trial()?
        .replace("\"call_timeout_ms\": 1000", "\"call_timeout_ms\": 9000, \"session_calls_max\": 1")
        .replace("\"app\": \"trialnet\"", "\"app\": \"trialnet\", \"threads\": 4");
    let cluster = Cluster::processes(fixture).await?;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = cluster.client().await?;
        clients.spawn(async move {
            let mut sent = 1;
            for n in 1..REQUESTS {
                while sent < REQUESTS.min(n + 32) {
                    client.send(1000, format!("{sent} 0").as_bytes()).await?;
                    sent += 1;
                }
                let (command, answer) = client.receive().await.with_context(|| format!("request {n}"))?;
                ensure!(answer.starts_with(format!("{n} ok ").as_bytes()), "{command}: {answer:?}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    cluster.stop().await
}

/// The node and the count of an answer of the maze's rooms.
async fn counted(client: &mut Client, command: u32) -> Result<(String, u32)> {
    let answer = String::from_utf8(client.call(command, b"").await?.to_vec())?;
    let (node, count) = answer.split_once(' ').with_context(|| format!("no count: {answer}"))?;
    Ok((node.to_owned(), count.parse()?))
}

/// The same while something dies: what was sent before anybody had noticed is lost with it, and has not run.
async fn counted_patiently(client: &mut Client, command: u32) -> Result<(String, u32)> {
    loop {
        match counted(client, command).await {
            Err(lost) if lost.to_string().contains("link_lost") => {}
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn a_message_finds_its_way_over_several_levels_and_its_answer_comes_back() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let mut client = cluster.client().await?;
    // Up to the hub and down again; a session keeps its room.
    let (room, first) = counted(&mut client, 3000).await?;
    assert_eq!(first, 1);
    for n in 2..=20 {
        assert_eq!(counted(&mut client, 3000).await?, (room.clone(), n));
    }
    // The lobby handles one itself, and its own route knows who handles the other.
    assert_eq!(client.call(3100, b"").await?, "lobby");
    assert!(counted(&mut client, 3200).await?.0.starts_with("room."));
    // One that nobody has a handler for is refused where it has come to.
    let error = client.call_error(3150, b"").await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("no_route", "no"));
    assert_eq!(error.message, "`lobby` has no handler for command 3150");
    cluster.stop().await
}

#[tokio::test]
async fn new_sessions_are_spread_and_a_stateless_command_uses_all_over_several_levels() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let (mut clients, mut rooms) = (Vec::new(), BTreeSet::new());
    for _ in 0..10 {
        let mut client = cluster.client().await?;
        rooms.insert(counted(&mut client, 3000).await?.0);
        clients.push(client);
    }
    assert_eq!(rooms.len(), 2, "{rooms:?}");
    let mut rooms = BTreeSet::new();
    for _ in 0..20 {
        rooms.insert(clients[0].call(3001, b"").await?);
    }
    assert_eq!(rooms.len(), 2, "{rooms:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_command_for_one_node_goes_there_and_waits_for_it_only() -> Result<()> {
    let cluster = Cluster::processes(Fixture::maze()?).await?;
    for _ in 0..3 {
        let mut client = cluster.client().await?;
        assert_eq!(counted(&mut client, 3010).await?.0, "room.2");
    }
    let mut client = cluster.client().await?;
    let old = cluster.kill_hard("room.2").await?;
    assert_eq!(counted_patiently(&mut client, 3010).await?, ("room.2".to_owned(), 1));
    cluster.until_back("room.2", old).await?;
    cluster.admin("POST", "/nodes/room.2/stop").await?;
    cluster.until("room.2", "is stopped", |node| node["state"] == "stopped").await?;
    let error = client.call_error(3010, b"").await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("no_node", "no"));
    assert!(error.message.starts_with("no node `room.2` is connected to `far"), "{}", error.message);
    cluster.stop().await
}

#[tokio::test]
async fn when_gates_die_their_sessions_go_on_over_the_others_at_the_same_node() -> Result<()> {
    // The only hub may be away for longer than the default on a busy machine; then its rooms would rightly be lost.
    let patient =
        Fixture::maze()?.replace("\"servers\":", "\"limits\": { \"park_ms\": 20000 }, \"servers\":");
    let cluster = Cluster::processes(patient).await?;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        let mut client = cluster.client().await?;
        let (room, first) = counted(&mut client, 3000).await?;
        assert_eq!(first, 1);
        sessions.push((client, room));
    }
    let mut count = 1;
    for gate in ["gate1", "far2", "gate2", "far1", "hub"] {
        let old = cluster.kill_hard(gate).await?;
        count += 1;
        for (client, room) in &mut sessions {
            let answered = counted_patiently(client, 3000).await?;
            assert_eq!(answered, (room.clone(), count), "after {gate}");
        }
        cluster.until_back(gate, old).await?;
        for up in ["room.1", "room.2"] {
            cluster.until_linked(up, "far1").await?;
            cluster.until_linked(up, "far2").await?;
        }
        for up in ["gate1", "gate2", "far1", "far2"] {
            cluster.until_linked(up, "hub").await?;
        }
        cluster.until_linked("net", "gate1").await?;
        cluster.until_linked("net", "gate2").await?;
    }
    // Nobody has lost a node, so nobody has been told so.
    for (client, room) in &mut sessions {
        assert_eq!(counted(client, 3000).await?, (room.clone(), count + 1));
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_session_whose_node_is_gone_is_forgotten_there_and_the_app_is_told_once() -> Result<()> {
    let cluster = Cluster::processes(Fixture::maze()?).await?;
    let mut idle = cluster.client().await?;
    let (room, _) = counted(&mut idle, 3000).await?;
    let mut busy = cluster.client().await?;
    while counted(&mut busy, 3000).await?.0 != room {
        busy = cluster.client().await?;
    }
    cluster.admin("POST", &format!("/nodes/{room}/stop")).await?;
    cluster.until(&room, "is stopped", |node| node["state"] == "stopped").await?;
    // Who goes on is elsewhere at once, and told; who is silent is told when the node's time is over.
    busy.send(3000, b"").await?;
    let mut got = [busy.receive().await?, busy.receive().await?];
    got.sort();
    let (told, answer) = (&got[0], String::from_utf8(got[1].1.to_vec())?);
    assert_eq!((told.0, &*told.1), (9, format!("lost {room}").as_bytes()));
    assert!(answer.ends_with(" 1") && !answer.starts_with(&room), "{answer}");
    assert_eq!(idle.receive().await?, (9, format!("lost {room}").into()));
    // Once: the next that comes is the answer.
    assert!(!counted(&mut idle, 3000).await?.0.starts_with(&room));
    assert_eq!(counted(&mut busy, 3000).await?.1, 2);
    cluster.stop().await
}

#[tokio::test]
async fn a_default_handler_takes_what_has_neither_handler_nor_route() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call(4711, b"x").await?, "no idea of 4711");
    assert!(counted(&mut client, 3000).await?.0.starts_with("room."));
    cluster.stop().await
}

#[tokio::test]
async fn a_message_that_crosses_too_many_links_ends_with_an_error() -> Result<()> {
    // A hub that allows less than the way has: as if routes of two versions of a config made a circle.
    let short =
        Fixture::maze()?.replace("\"type\": \"hub\"", "\"type\": \"hub\", \"limits\": { \"hops_max\": 2 }");
    let cluster = Cluster::in_process(short).await?;
    let mut client = cluster.client().await?;
    let error = client.call_error(3000, b"").await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("too_many_hops", "no"));
    assert_eq!(error.message, "the message has crossed 2 links and is not there: limits.hops_max");
    cluster.stop().await
}

/// One config says that the lobby has what the gate is sent, another one the other way round: no check of one file can
/// see that. The lobby is started with the other one, as by hand, or in the middle of a reload.
#[tokio::test]
async fn a_circle_of_two_configs_ends_with_an_error_and_the_cluster_goes_on() -> Result<()> {
    let to_lobby = r#", "route": { "range": { "lobby": [[9000, 9099]] } }"#;
    let to_gate = r#", "route": { "range": { "gate": [[9000, 9099]] } }"#;
    let template = format!(
        r#"{{
  "master": {{ "rootport": @master, "webport": @admin, "token": "a secret of two configs" }},
  "servers": {{
    "gate":  {{ "rootport": @gate, "app": "mazegate", "type": "gate"{to_lobby} }},
    "net":   {{ "netport": @net, "app": "hallnet", "remoteport": [{{ "rootname": "gate" }}]{to_gate} }},
    "lobby": {{ "app": "mazegate", "type": "lobby", "remoteport": [{{ "rootname": "gate" }}] }}
  }}
}}"#
    );
    let fixture = Fixture::new(&template)?;
    let other = fixture.text.replace(to_lobby, "");
    let other = other.replace(r#""type": "lobby""#, &format!(r#""type": "lobby"{to_gate}"#));
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call_error(9000, b"").await?.code, "no_node", "nobody has it");
    assert_eq!(cluster.admin("POST", "/nodes/lobby/stop").await?.status, 200);
    let config = cluster.folder().join("other.json");
    std::fs::write(&config, other)?;
    let single = Single::start("lobby", &config)?;
    cluster.until_linked("lobby", "gate").await?;
    let error = wait::until("the lobby is found", async || {
        let error = client.call_error(9000, b"").await.map_err(|e| format!("{e:#}"))?;
        if error.code == "no_node" { Err(format!("{error:?}")) } else { Ok(error) }
    })
    .await?;
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("too_many_hops", "no"), "{error:?}");
    client.call(20, b"").await?;
    cluster.stop_with([single]).await
}
