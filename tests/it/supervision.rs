//! What the master does for its nodes: starts them in order, starts them again, stops them all.

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::process::is_alive;
use tests::trials::starve;
use tests::wait;

async fn a_killed_node_comes_back(name: &str) -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    cluster.until_answered(300).await?;
    let before = cluster.status().await?;
    let old = cluster.kill_hard(name).await?;
    let node = cluster.until_back(name, old).await?;
    assert_eq!(node["restarts"], 1, "{node}");
    assert_eq!(node["last_exit"].as_str().map(|text| text.contains("SIGKILL")), Some(true), "{node}");
    cluster.until_answered(300).await?;
    cluster.until_linked("net", "gate").await?;
    cluster.until_linked("game1", "gate").await?;
    let after = cluster.status().await?;
    for (b, a) in
        before["nodes"].as_array().into_iter().flatten().zip(after["nodes"].as_array().into_iter().flatten())
    {
        if b["name"] != name {
            assert_eq!(b["pid"], a["pid"], "the others keep running");
        } else {
            assert!(a["incarnation"].as_u64() > b["incarnation"].as_u64(), "{a}");
        }
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_killed_gate_comes_back_and_its_neighbours_reconnect() -> Result<()> {
    a_killed_node_comes_back("gate").await
}

#[tokio::test]
async fn a_killed_game_node_comes_back_and_serves() -> Result<()> {
    a_killed_node_comes_back("game1").await
}

#[tokio::test]
async fn a_killed_net_node_comes_back_and_its_port_was_never_closed() -> Result<()> {
    a_killed_node_comes_back("net").await
}

#[tokio::test]
async fn a_client_stays_connected_while_gate_and_game_are_killed() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    client.call(300, b"before").await?;
    let old = cluster.kill_hard("gate").await?;
    // Whatever happens meanwhile, the client has an answer to each request on the same connection.
    let mut answers = 0;
    wait::until("the same connection is served again", async || {
        client.send(300, b"during").await.map_err(|e| format!("{e:#}"))?;
        let (command, body) = client.receive().await.map_err(|e| format!("{e:#}"))?;
        answers += 1;
        if command == 300 {
            Ok(())
        } else {
            Err(format!("answer {answers}: {}", String::from_utf8_lossy(&body)))
        }
    })
    .await?;
    cluster.until_back("gate", old).await?;
    client.call(300, b"after").await?;
    cluster.stop().await
}

#[tokio::test]
async fn ten_thousand_silent_connections_to_the_master_keep_neither_a_node_down_nor_its_health_unknown()
-> Result<()> {
    let size = starve::Size { silent: 5000, again_ms: 5_000, descriptors: 1024, seconds: 12, kills: 2 };
    starve::run(&size, &|line| println!("{line}")).await
}

#[tokio::test]
async fn stop_leaves_no_process_and_no_port() -> Result<()> {
    // `Cluster::stop` checks exit code, processes and ports.
    Cluster::processes(Fixture::demo()?).await?.stop().await
}

#[tokio::test]
async fn sigterm_stops_like_stop_does() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let pids = cluster.pids().await?;
    cluster.signal_master(Signal::SIGTERM)?;
    assert_eq!(cluster.exit_code().await?, Some(0), "{}", cluster.log());
    cluster.nothing_left(&pids)
}

#[tokio::test]
async fn reload_restarts_every_node_and_adds_what_the_config_adds() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let config = cluster.folder().join("config.json");
    let text = std::fs::read_to_string(&config)?;
    let game1 = text.lines().find(|line| line.contains("game1")).unwrap_or_default();
    let game2 = game1.replace("\"game1\"", "\"game2\"");
    std::fs::write(&config, text.replace(game1, &format!("{game1},\n{game2}")))?;
    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    cluster.until("game2", "ready", |node| node["state"] == "ready").await?;
    let after = cluster.pids().await?;
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|pid| !after.contains(pid)), "every process is new: {before:?} {after:?}");
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn reload_with_a_faulty_config_changes_nothing_and_says_why() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let config = cluster.folder().join("config.json");
    let good = std::fs::read_to_string(&config)?;
    std::fs::write(&config, good.replace("\"netport\"", "\"netprot\""))?;
    let answer = cluster.admin("POST", "/reload").await?;
    assert!(answer.status >= 400, "{answer:?}");
    assert!(answer.body.contains("did you mean `netport`?"), "{answer:?}");
    assert_eq!(cluster.pids().await?, before);
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn one_node_can_be_stopped_started_and_restarted() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let old = cluster.pid("game1").await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    cluster.until("game1", "stopped", |node| node["state"] == "stopped").await?;
    let error = cluster.client().await?.call_error(300, b"x").await?;
    assert_eq!((error.command, error.code.as_str()), (300, "no_node"));
    assert_eq!(cluster.admin("POST", "/nodes/game1/start").await?.status, 200);
    cluster.until_back("game1", old).await?;
    cluster.until_answered(300).await?;
    let old = cluster.pid("game1").await?;
    assert_eq!(cluster.admin("GET", "/nodes/game1/restart").await?.status, 200);
    cluster.until_back("game1", old).await?;
    assert_eq!(cluster.admin("POST", "/nodes/gmae1/stop").await?.status, 404);
    cluster.stop().await
}

/// Waits until no process of `pids` is left, after asking each to stop.
async fn stop_by_hand(pids: &[i32]) -> Result<()> {
    for &pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM)?;
    }
    wait::until("the nodes have stopped", async || {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
}

#[tokio::test]
async fn clients_notice_nothing_when_the_master_is_killed() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let pids = cluster.pids().await?;
    let mut client = cluster.client().await?;
    client.call(300, b"before").await?;
    cluster.signal_master(Signal::SIGKILL)?;
    assert_eq!(cluster.exit_code().await?, None, "killed by a signal");
    for _ in 0..100 {
        client.call(300, b"during").await?;
    }
    cluster.client().await?.call(300, b"a new client").await?;
    stop_by_hand(&pids).await
}

#[tokio::test]
async fn clients_notice_nothing_while_the_master_hangs() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    client.call(300, b"before").await?;
    cluster.signal_master(Signal::SIGSTOP)?;
    for _ in 0..100 {
        client.call(300, b"during").await?;
    }
    cluster.client().await?.call(300, b"a new client").await?;
    cluster.signal_master(Signal::SIGCONT)?;
    cluster.stop().await
}

#[tokio::test]
async fn a_gate_that_hangs_is_noticed_by_its_heartbeat_and_linked_again_when_it_goes_on() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    client.call(300, b"before").await?;
    cluster.signal("gate", Signal::SIGSTOP).await?;
    let start = tokio::time::Instant::now();
    let error = client.call_error(300, b"during").await?;
    let took = start.elapsed();
    assert_eq!((error.code.as_str(), error.executed.as_str()), ("link_lost", "unknown"));
    assert!(took.as_millis() < 4_000, "before the deadline of 5 s: {took:?}");
    cluster.signal("gate", Signal::SIGCONT).await?;
    cluster.until_answered(300).await?;
    client.call(300, b"after, on the same connection").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_net_node_that_hangs_answers_when_it_goes_on() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut client = cluster.client().await?;
    client.call(100, b"before").await?;
    cluster.signal("net", Signal::SIGSTOP).await?;
    client.send(100, b"during").await?;
    cluster.signal("net", Signal::SIGCONT).await?;
    assert_eq!(client.receive().await?, (100, "netHandle_100 completed".into()));
    cluster.stop().await
}

#[tokio::test]
async fn a_node_with_cpu_runs_on_those_processors_only() -> Result<()> {
    let fixture =
        Fixture::demo()?.replace("\"app\": \"app.gateserver\"", "\"app\": \"app.gateserver\", \"cpu\": [0]");
    let cluster = Cluster::processes(fixture).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid("gate").await?))?;
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    cluster.stop().await
}

/// A child that says that it leaves has not been lost, whatever is under way when it does.
#[tokio::test]
async fn at_an_orderly_stop_no_child_and_no_parent_is_lost() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = cluster.client().await?;
        clients.push(tokio::spawn(async move { while client.call(300, b"on and on").await.is_ok() {} }));
    }
    cluster.until("net", "is at work", |node| node["sessions"].as_u64() >= Some(20)).await?;
    let answer = cluster.admin("POST", "/stop").await?;
    assert!(answer.status < 300, "{answer:?}");
    assert_eq!(cluster.exit_code().await?, Some(0));
    let log = cluster.log();
    let lost: Vec<_> =
        log.lines().filter(|line| line.contains("child lost") || line.contains("parent lost")).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(log.matches("child left").count() >= 2, "{log}");
    Ok(())
}
