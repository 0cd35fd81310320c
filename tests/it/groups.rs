//! One message for many: whom it reaches, in which order, at what cost.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tests::websocket::WebClient;

async fn id(client: &mut Client) -> Result<String> {
    let seen: Value = serde_json::from_slice(&client.call(2101, b"").await?)?;
    Ok(seen["session"].as_str().context("no session")?.to_owned())
}

/// The next message, which is the broadcast of that number.
async fn gets(client: &mut Client, number: u32) -> Result<()> {
    let (command, body) = client.receive().await?;
    ensure!(command == 10, "{command} {body:?} instead of broadcast {number}");
    ensure!(String::from_utf8_lossy(&body).trim() == number.to_string(), "{body:?} instead of {number}");
    Ok(())
}

/// Nothing has come but what is asked for now.
async fn gets_nothing(client: &mut Client) -> Result<()> {
    client.call(2101, b"").await.map(drop)
}

#[tokio::test]
async fn a_message_reaches_the_group_the_list_the_net_node_or_all_and_nobody_else() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut sender = cluster.client().await?;
    let (mut red, mut blue) = (cluster.client().await?, cluster.client().await?);
    let mut far = Client::connect(cluster.at("net2")).await?;
    let mut web = WebClient::connect(cluster.at("net2")).await?;
    web.send_json(&serde_json::json!({"command": 2107, "body": "red"})).await?;
    web.receive_json().await?;
    for client in [&mut red, &mut far] {
        client.call(2107, b"red").await?;
    }
    blue.call(2107, b"blue").await?;
    assert_eq!(sender.call(2109, b"group:red 2 8").await?, "2", "net nodes");
    for n in 0..2 {
        gets(&mut red, n).await?;
        gets(&mut far, n).await?;
        let got = web.receive_json().await?;
        assert_eq!((got["command"].as_u64(), got["body"].as_str()), (Some(10), Some(&*format!("{n:<8}"))));
    }
    gets_nothing(&mut blue).await?;

    let list = format!("{},{} 1 8", id(&mut blue).await?, id(&mut far).await?);
    assert_eq!(sender.call(2109, list.as_bytes()).await?, "2");
    gets(&mut blue, 0).await?;
    gets(&mut far, 0).await?;
    gets_nothing(&mut red).await?;

    assert_eq!(sender.call(2109, b"net:net2 1 8").await?, "1");
    gets(&mut far, 0).await?;
    gets_nothing(&mut red).await?;

    far.call(2108, b"red").await?;
    assert_eq!(sender.call(2109, b"group:red 1 8").await?, "2");
    gets(&mut red, 0).await?;
    gets_nothing(&mut far).await?;

    sender.send(2109, b"all 1 8").await?;
    for client in [&mut red, &mut blue, &mut far] {
        gets(client, 0).await?;
    }
    // The sender is a client, too; which of the two comes first is not said.
    let mut two = [sender.receive().await?.0, sender.receive().await?.0];
    two.sort_unstable();
    assert_eq!(two, [10, 2109]);
    cluster.stop().await
}

#[tokio::test]
async fn a_session_that_ends_is_in_no_group_and_the_others_are_also_when_nodes_are_killed() -> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut sender = cluster.client().await?;
    let mut stays = cluster.client().await?;
    let mut leaves = cluster.client().await?;
    let mut far = Client::connect(cluster.at("net2")).await?;
    for client in [&mut stays, &mut leaves, &mut far] {
        client.call(2107, b"red").await?;
    }
    let gone = id(&mut leaves).await?;
    drop(leaves);
    cluster.until_logged(&format!("event: net closed {gone}\n")).await?;
    sender.call(2109, b"group:red 1 8").await?;
    gets(&mut stays, 0).await?;
    gets(&mut far, 0).await?;
    let list = format!("{gone},{} 1 8", id(&mut stays).await?);
    sender.call(2109, list.as_bytes()).await?;
    gets(&mut stays, 0).await?;
    cluster
        .until("net", "has counted the one that is gone", |n| n["counters"]["pushes_to_gone"] == 1)
        .await?;

    for node in ["hall.1", "gate", "net2"] {
        let old = cluster.kill_hard(node).await?;
        cluster.until_back(node, old).await?;
    }
    for child in ["net", "net2", "hall.1", "hall.2"] {
        cluster.until_linked(child, "gate").await?;
    }
    wait::until("the group is told again", async || {
        sender.call(2109, b"group:red 1 8").await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    gets(&mut stays, 0).await?;
    ensure!(far.receive().await.is_err(), "its net node was killed");
    cluster.stop().await
}

/// The next `n` broadcasts and pushes, sorted, whatever answers come between.
async fn messages(client: &mut Client, n: usize) -> Result<Vec<String>> {
    let mut got = Vec::new();
    while got.len() < n {
        let (command, body) = client.receive().await?;
        if [9, 10].contains(&command) {
            got.push(String::from_utf8_lossy(&body).into_owned());
        }
    }
    got.sort_unstable();
    Ok(got)
}

#[tokio::test]
async fn while_a_net_node_is_replaced_each_client_gets_each_broadcast_once_in_whichever_process_it_is()
-> Result<()> {
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut idle, mut early) = (cluster.client().await?, cluster.client().await?);
    let mut far = Client::connect(cluster.at("net2")).await?;
    let old = cluster.pid("net").await?;
    // Their handlers stay in the old process, and speak to clients that have left by then.
    let (mut slow, mut pushes) = (cluster.client().await?, cluster.client().await?);
    slow.send(23, b"2500 3").await?;
    pushes.send(24, b"2600").await?;
    cluster.until_logged("net_broadcasts_later").await?;
    cluster.until_logged("net_pushes_later").await?;
    let moved = async {
        wait::until("a client has moved", async || {
            let seen = early.call(20, b"").await.map_err(|e| format!("{e:#}"))?;
            let seen: Value = serde_json::from_slice(&seen).map_err(|e| e.to_string())?;
            if seen["pid"] == i64::from(old) { Err(seen) } else { Ok(()) }
        })
        .await?;
        // From the new process to one that is still at the old one.
        early.send(23, b"0 2").await
    };
    let (reloaded, moved) = tokio::join!(cluster.admin("POST", "/nodes/net/reload"), moved);
    moved?;
    ensure!(reloaded?.status == 200);
    for client in [&mut idle, &mut early, &mut slow, &mut pushes] {
        assert_eq!(messages(client, 6).await?, ["0", "0", "1", "1", "2", "kept"]);
    }
    assert_eq!(messages(&mut far, 5).await?, ["0", "0", "1", "1", "2"]);
    for client in [&mut idle, &mut far] {
        gets_nothing(client).await?;
    }
    let log = cluster.log();
    ensure!(!log.contains("broadcasts_lost") && !log.contains("malformed"), "{log}");
    cluster.stop().await
}

#[tokio::test]
async fn a_session_may_be_in_a_limited_number_of_groups() -> Result<()> {
    let fixture = Fixture::hall()?.replace(r#""net_lost_ms": 3000"#, r#""session_groups_max": 2"#);
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    for group in ["a", "b", "a"] {
        client.call(2107, group.as_bytes()).await?;
    }
    assert_eq!(client.call_error(2107, b"c").await?.code, "handler");
    client.call(2108, b"a").await?;
    client.call(2107, b"c").await?;
    let error = client.call_error(2107, "x".repeat(129).as_bytes()).await?;
    assert_eq!(error.code, "handler");
    cluster.until_logged("limits.session_groups_max groups, or the name is above 128 bytes").await?;
    cluster.stop().await
}

#[tokio::test]
async fn two_thousand_members_on_two_net_nodes_cost_one_frame_each_while_fifty_do_not_read() -> Result<()> {
    const EACH: usize = 1000;
    const SLOW: usize = 25;
    const MESSAGES: u32 = 100;
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let (mut members, mut slow) = (Vec::new(), Vec::new());
    for net in ["net", "net2"] {
        for n in 0..EACH {
            let mut client = if n < SLOW {
                Client::connect_narrow(cluster.at(net)).await?
            } else {
                Client::connect(cluster.at(net)).await?
            };
            client.send(2107, b"everybody").await?;
            if n < SLOW { slow.push(client) } else { members.push(client) }
        }
    }
    for client in members.iter_mut().chain(&mut slow) {
        assert_eq!(client.receive().await?, (2107, "everybody".into()));
    }
    let mut sender = cluster.client().await?;
    let asked = format!("group:everybody {MESSAGES} 1024");
    assert_eq!(sender.call(2109, asked.as_bytes()).await?, "2");
    for client in &mut members {
        for n in 0..MESSAGES {
            gets(client, n).await?;
        }
    }
    for net in ["net", "net2"] {
        let node =
            cluster.until(net, "has had its frames", |n| n["counters"]["broadcasts"] == MESSAGES).await?;
        assert_eq!(node["counters"]["broadcasts"], MESSAGES, "one frame per broadcast and net node");
    }
    println!("{} slow clients were there all the time", slow.len());
    cluster.stop().await
}

#[tokio::test]
async fn a_broadcast_lies_in_memory_once_however_many_have_not_read_it() -> Result<()> {
    const MEMBERS: u32 = 200;
    const MESSAGES: u32 = 40;
    const BYTES: usize = 16 * 1024;
    let cluster = Cluster::processes(Fixture::hall()?).await?;
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let mut client = Client::connect_narrow(cluster.at("net")).await?;
        client.call(2107, b"everybody").await?;
        members.push(client);
    }
    let before = cluster.memory("net").await?.now;
    let mut sender = cluster.client().await?;
    // Below outbox_bytes_max each; 130 MB in all, if each had its own.
    assert_eq!(sender.call(2109, format!("group:everybody {MESSAGES} {BYTES}").as_bytes()).await?, "2");
    let shared = MEMBERS * MESSAGES;
    cluster.until("net", "has queued them", |n| n["counters"]["pushes_shared"] == shared).await?;
    let grown = cluster.memory("net").await?.now.saturating_sub(before);
    assert!(grown < 30 << 20, "{grown} bytes for {shared} messages of {BYTES}");
    // And everybody gets all of it, in order, also with answers in between.
    for client in &mut members {
        client.send(2107, b"again").await?;
        for n in 0..MESSAGES {
            gets(client, n).await?;
        }
        assert_eq!(client.receive().await?, (2107, "again".into()));
    }
    cluster.stop().await
}

#[tokio::test]
async fn of_updates_under_one_key_the_latest_of_a_tick_arrives() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::maze()?).await?;
    let mut client = cluster.client().await?;
    for _ in 0..2 {
        client.send(3060, b"5 100").await?;
        for key in 0..5 {
            let (command, body) = client.receive().await?;
            assert_eq!(
                (command, &*body),
                (11, format!("{key} 99").as_bytes()),
                "each once, with its last value"
            );
        }
    }
    assert!(client.call(3001, b"").await?.starts_with(b"room."), "nothing else has come");
    cluster.stop().await?;

    // What is more than may wait goes before its tick, and nothing is lost.
    let narrow =
        Fixture::maze()?.replace("\"servers\"", "\"limits\": { \"latest_bytes_max\": 0 }, \"servers\"");
    let cluster = Cluster::in_process(narrow).await?;
    let mut client = cluster.client().await?;
    client.send(3060, b"2 2").await?;
    for update in ["0 0", "1 0", "0 1", "1 1"] {
        assert_eq!(client.receive().await?, (11, update.into()));
    }
    cluster.stop().await
}
