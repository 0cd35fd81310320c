//! Several nodes in one process: killed, replaced and adopted together under load; names, rights and counters stay each node's own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::trials::{Say, adopt, reload};
use tests::wait;

use crate::adoption::Load;

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

/// The nodes of the process `world`; `net` is outside.
const WORLD: [&str; 3] = ["gate", "game.1", "game.2"];

/// A gate and two game nodes in one process, and a net node in another one.
async fn world() -> Result<Cluster> {
    Cluster::processes(Fixture::replaced()?.together(&["gate", "game"])).await
}

async fn reloads(together: [&str; 2]) -> Result<()> {
    let together = together.map(str::to_owned).to_vec();
    let more = reload::More {
        http: 2,
        reloads: 2,
        worlds: true,
        any_time: true,
        together,
        ..reload::More::default()
    };
    reload::run(&reload::Size { connections: 60, pause_ms: 2, more }, SAY).await
}

/// What `/status` says of each node of the process.
async fn seen(cluster: &Cluster, key: &str) -> Result<BTreeMap<String, Value>> {
    let mut seen = BTreeMap::new();
    for node in WORLD {
        seen.insert(node.to_owned(), cluster.node(node).await?[key].clone());
    }
    Ok(seen)
}

/// The one process of all of them.
async fn pid_of_world(cluster: &Cluster) -> Result<i32> {
    let pids = seen(cluster, "pid").await?;
    let pid = cluster.pid("gate").await?;
    ensure!(pids.values().all(|other| other == pid), "{pids:?}");
    ensure!(cluster.pid("net").await? != pid, "net has a process of its own");
    Ok(pid)
}

async fn outcomes(cluster: &Cluster, path: &str) -> Result<Vec<(String, String)>> {
    let answer = cluster.admin("POST", path).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let answer = answer.json()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = answer["nodes"].as_array().context("no nodes")?;
    Ok(nodes.iter().map(|node| (text(&node["node"]), text(&node["outcome"]))).collect())
}

#[tokio::test]
async fn a_process_that_is_killed_under_load_is_back_with_all_of_its_nodes_by_one_start() -> Result<()> {
    let cluster = world().await?;
    let old = pid_of_world(&cluster).await?;
    let mut client = cluster.client().await?;
    client.call(1000, b"1 0").await?;
    cluster.kill_hard("game.2").await?;
    for node in WORLD {
        cluster.until_back(node, old).await?;
    }
    let (new, restarts) = (pid_of_world(&cluster).await?, seen(&cluster, "restarts").await?);
    ensure!(new != old && restarts.values().all(|count| count == 1), "{restarts:?}");
    let starts = seen(&cluster, "incarnation").await?;
    ensure!(starts.values().all(|start| *start == starts["gate"]), "{starts:?}");
    // The player has stayed on its connection, and is answered by what is back.
    wait::until("the player is answered again", async || {
        client.call(1000, b"2 0").await.map(drop).map_err(|e| format!("{e:#}"))
    })
    .await?;
    let reported = cluster.log().matches("what is known of its end").count();
    assert_eq!(reported, 1, "{}", cluster.log());
    cluster.stop().await
}

#[tokio::test]
async fn a_process_is_replaced_under_load_and_nothing_is_lost() -> Result<()> {
    reloads(["gate", "game"]).await
}

#[tokio::test]
async fn the_players_of_a_process_stay_when_it_is_replaced() -> Result<()> {
    reloads(["net", "game"]).await
}

#[tokio::test]
async fn a_new_master_adopts_a_process_of_several_nodes_and_replaces_it() -> Result<()> {
    let together = ["gate", "net", "game"].map(str::to_owned).to_vec();
    let size = adopt::Size { connections: 40, pause_ms: 5, http: 2, without_ms: 500, together, times: 1 };
    adopt::run(&size, SAY).await
}

#[tokio::test]
async fn what_a_master_leaves_that_died_in_the_middle_of_a_reload_is_replaced_by_the_next_reload()
-> Result<()> {
    let nodes = ["gate", "net", "game1"];
    let at_once = r#"{ "limits": { "prove_ms": 0 },"#;
    let fixture = Fixture::demo()?.replace("{", at_once).together(&nodes);
    let mut cluster = Cluster::processes(fixture).await?;
    let load = Load::start(&cluster, 4).await?;
    // At different points of the hand-overs of three nodes.
    for ms in [30, 50, 70, 90, 110] {
        let reload = tests::http::request(cluster.at("admin"), "POST", "/reload", &[]);
        let reload = tokio::spawn(async move { drop(reload.await) });
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cluster.kill_master().await?;
        reload.await?;
        let begin = Instant::now();
        cluster.start_master_again().await?;
        SAY(&format!("killed after {ms} ms, up after {:?}, {:?}", begin.elapsed(), cluster.pids().await?));
        let answer = cluster.admin("POST", "/reload").await?;
        let log = || format!("{answer:?}\n{}", cluster.log());
        let replaced = answer.json()?.to_string().matches("replaced: ").count();
        assert_eq!((answer.status, replaced), (200, 3), "{}", log());
        let pids = cluster.pids().await?;
        ensure!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    }
    // A panic keeps the folder with the logs of all masters.
    let answers = load.finish().await.unwrap_or_else(|error| panic!("{error:#}"));
    ensure!(answers > 100, "{answers}");
    cluster.stop().await
}

#[tokio::test]
async fn a_reload_moves_nodes_into_one_process_and_apart_again_and_players_notice_nothing() -> Result<()> {
    let apart = Fixture::demo()?;
    let mut cluster = Cluster::processes(apart.clone()).await?;
    let load = Load::start(&cluster, 10).await?;
    for (fixture, processes) in [(apart.clone().together(&["gate", "game1"]), 2), (apart, 3)] {
        cluster.configure(fixture)?;
        let answer = cluster.admin("POST", "/reload").await?;
        assert_eq!(answer.status, 200, "{answer:?}\n{}", cluster.log());
        let mut pids = cluster.pids().await?;
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), processes, "{pids:?}");
    }
    ensure!(load.finish().await? > 50, "nothing was answered");
    cluster.stop().await
}

#[tokio::test]
async fn a_command_for_one_node_is_answered_for_each_of_its_process() -> Result<()> {
    let cluster = world().await?;
    let old = pid_of_world(&cluster).await?;
    let restarted = outcomes(&cluster, "/nodes/game.1/restart").await?;
    let nodes: Vec<&str> = restarted.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(nodes, WORLD);
    let new = pid_of_world(&cluster).await?;
    assert_ne!(new, old);
    ensure!(restarted.iter().all(|(_, how)| how.starts_with(&format!("ready: pid {new}"))), "{restarted:?}");

    let replaced = outcomes(&cluster, "/nodes/game.2/reload").await?;
    ensure!(replaced.len() == 3 && pid_of_world(&cluster).await? != new, "{replaced:?}");
    // What it prints stands under its name, and is each node's.
    assert_eq!(seen(&cluster, "process").await?["game.1"], "world");
    ensure!(cluster.log().lines().any(|line| line.starts_with("world ")), "{}", cluster.log());
    for node in WORLD {
        let shown = cluster.admin("GET", &format!("/nodes/{node}")).await?.json()?;
        ensure!(shown["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{shown}");
    }
    let stopped = outcomes(&cluster, "/nodes/gate/stop").await?;
    ensure!(stopped.len() == 3 && stopped.iter().all(|(_, how)| how.starts_with("stopped")), "{stopped:?}");
    assert_eq!(cluster.node("net").await?["state"], "ready");
    outcomes(&cluster, "/nodes/gate/start").await?;
    assert_eq!(seen(&cluster, "state").await?["game.2"], "ready");
    cluster.stop().await
}

#[tokio::test]
async fn rights_and_counters_stay_each_nodes_own() -> Result<()> {
    // A hall may push, and set nothing; it shares its process with the net node that refuses it.
    let fixture = Fixture::hall()?.together(&["gate", "net", "hall"]);
    let fixture = fixture.replace(r#""app": "hall" }"#, r#""app": "hall", "rights": { "set": false } }"#);
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    client.call(2101, b"").await?;
    client.call(2102, b"level 7").await.err().context("it was not refused")?;

    let text = cluster.admin("GET", "/metrics").await?.body;
    let count = |name: &str, node: &str| {
        let of_node = format!("node=\"{node}\"");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(&of_node));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|sum, one| sum + one)
    };
    for node in ["gate", "net", "net2", "hall.1", "hall.2"] {
        assert_eq!(count("ff_node_up", node), Some(1.0), "{node}");
    }
    assert_eq!(count("ff_forbidden_total", "net"), Some(1.0), "{text}");
    assert_eq!(
        (count("ff_forbidden_total", "gate"), count("ff_forbidden_total", "net2")),
        (Some(0.0), Some(0.0))
    );
    cluster.stop().await
}
