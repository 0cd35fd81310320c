//! A master that was killed, or has left, and the one after it: what runs goes on, what is missing is
//! started.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::bins;
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::process::{is_alive, until_gone, until_stopped};
use tests::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients in closed loop over all three nodes, on connections that are never renewed.
pub(crate) struct Load {
    clients: JoinSet<Result<u64>>,
    stop: watch::Sender<bool>,
}

impl Load {
    pub(crate) async fn start(cluster: &Cluster, clients: usize) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (mut client, stopped) = (cluster.client().await?, stopped.clone());
            tasks.spawn(async move {
                let mut answers = 0;
                while !*stopped.borrow() {
                    client.call(300, b"load").await.with_context(|| format!("after {answers} answers"))?;
                    answers += 1;
                }
                Ok(answers)
            });
        }
        Ok(Self { clients: tasks, stop })
    }

    /// Every request so far and until now was answered, on the same connection; how many.
    pub(crate) async fn finish(mut self) -> Result<u64> {
        self.stop.send_replace(true);
        let mut answers = 0;
        while let Some(client) = self.clients.join_next().await {
            answers += client??;
        }
        Ok(answers)
    }
}

/// Each node's name and process, as `/status` has them.
async fn processes(cluster: &Cluster) -> Result<Vec<(String, i64)>> {
    let status = cluster.status().await?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    let name = |node: &Value| node["name"].as_str().unwrap_or_default().to_owned();
    Ok(nodes.iter().map(|node| (name(node), node["pid"].as_i64().unwrap_or_default())).collect())
}

#[tokio::test]
async fn a_new_master_adopts_the_nodes_of_a_killed_one_and_clients_notice_nothing() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = processes(&cluster).await?;
    let load = Load::start(&cluster, 20).await?;
    cluster.kill_master().await?;
    // Long enough for every node to have noticed and to wait for its longest time between tries.
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.start_master_again().await?;
    assert_eq!(processes(&cluster).await?, before, "{}", cluster.log());
    assert!(cluster.log().contains("is adopted"), "{}", cluster.log());
    // What they print is read by the new master, and their ports are its own again.
    wait::until("the new master has what net says of a request", async || {
        let answer = cluster.admin("GET", "/nodes/net").await.and_then(|answer| answer.json());
        let lines = answer.map(|answer| answer["lines"].to_string()).map_err(|e| e.to_string())?;
        if lines.contains("netHandle_300") { Ok(()) } else { Err(lines) }
    })
    .await?;
    assert!(!cluster.log().contains("keeps its listening sockets"), "{}", cluster.log());

    let answer = cluster.admin("POST", "/reload").await?;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", cluster.log());
    let after = processes(&cluster).await?;
    for ((name, old), (_, new)) in before.iter().zip(&after) {
        assert_ne!(old, new, "{name} is a new process");
    }
    let answers = load.finish().await?;
    ensure!(answers > 100, "{answers}");
    cluster.stop().await
}

#[tokio::test]
async fn a_second_master_of_a_config_is_refused_and_told_who_holds_it() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = processes(&cluster).await?;
    let second = tokio::process::Command::new(bins::folder()?.join("master"))
        .arg(cluster.folder().join("config.json"))
        .arg("--run-dir")
        .arg(cluster.folder().join("run"))
        .stdin(Stdio::null())
        .output();
    let second = tokio::time::timeout(wait::PATIENCE, second).await??;
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let pid = cluster.master_pid()?;
    assert!(said.contains(&format!("is supervised by another master: pid {pid}, since 2")), "{said}");
    assert_eq!(processes(&cluster).await?, before);
    cluster.stop().await
}

#[tokio::test]
async fn of_a_killed_master_and_a_killed_node_only_the_node_is_started_anew() -> Result<()> {
    for victim in ["net", "gate"] {
        let mut cluster = Cluster::processes(Fixture::demo()?).await?;
        let before = processes(&cluster).await?;
        let pid = cluster.pid(victim).await?;
        cluster.kill_master().await?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        cluster.start_master_again().await?;
        for ((name, old), (_, new)) in before.iter().zip(&processes(&cluster).await?) {
            assert_eq!(old == new, name != victim, "{name}: {old} {new}\n{}", cluster.log());
        }
        cluster.until_answered(300).await?;
        // The port of the dead one is the new master's own.
        let old = cluster.kill_hard("net").await?;
        cluster.until_back("net", old).await?;
        cluster.until_answered(300).await?;
        cluster.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_adopted_node_that_is_killed_comes_back_and_its_port_was_never_closed() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    cluster.kill_master().await?;
    cluster.start_master_again().await?;
    let old = cluster.kill_hard("net").await?;
    // Waits in the backlog, or is served: never refused.
    let mut client = Client::connect(cluster.at("net")).await?;
    cluster.until_back("net", old).await?;
    client.call(100, b"from the backlog").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_hangs_when_a_new_master_comes_is_killed_and_started_anew() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let old = cluster.pid("game1").await?;
    cluster.kill_master().await?;
    // Not before: the kernel lets a stopped process go on when its parent dies (SIGHUP, SIGCONT).
    kill(Pid::from_raw(old), Signal::SIGSTOP)?;
    until_stopped(old).await?;
    cluster.start_master_again().await?;
    cluster.until_back("game1", old).await?;
    assert!(cluster.log().contains("it did not register at the new master within 5 s"), "{}", cluster.log());
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_is_stopped_when_its_master_dies_goes_on_with_its_clients() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = processes(&cluster).await?;
    let mut client = cluster.client().await?;
    cluster.signal("net", Signal::SIGSTOP).await?;
    cluster.kill_master().await?;
    // The kernel sends it SIGHUP and lets it go on, as nobody else is left who would.
    client.call(300, b"without a master").await?;
    cluster.start_master_again().await?;
    assert_eq!(processes(&cluster).await?, before);
    client.call(300, b"with the next one").await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_older_start_of_a_node_that_runs_is_told_so_and_stops() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = processes(&cluster).await?;
    let key = crate::identity::key_file(&cluster, "game1").await?;
    let older = tokio::process::Command::new(bins::folder()?.join("appmain"))
        .args([Path::new("game1"), &cluster.folder().join("config.json"), Path::new("--key"), &key])
        .env("FF_INCARNATION", "1")
        .env("FF_RUN_DIR", cluster.run_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let older = tokio::time::timeout(wait::PATIENCE, older).await.context("it goes on for ever")??;
    let said = String::from_utf8_lossy(&older.stdout);
    assert!(said.contains("has its place: this one (1) stops"), "{said}");
    assert_eq!(processes(&cluster).await?, before);
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_the_config_has_no_more_is_stopped_by_the_new_master() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let (old, others) = (cluster.pid("game1").await?, cluster.pid("net").await?);
    cluster.kill_master().await?;
    let config = cluster.folder().join("config.json");
    let text = std::fs::read_to_string(&config)?;
    let line = text.lines().find(|line| line.contains("game1")).context("no game1")?;
    std::fs::write(&config, text.replace(line, "").replace("\"app.netserver\" },", "\"app.netserver\" }"))?;
    cluster.start_master_again().await?;
    until_gone(old).await?;
    assert_eq!(cluster.pid("net").await?, others);
    cluster.stop().await
}

#[tokio::test]
async fn a_master_leaves_on_request_and_the_next_one_goes_on() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = processes(&cluster).await?;
    let load = Load::start(&cluster, 4).await?;
    assert_eq!(cluster.admin("POST", "/detach").await?.status, 202);
    assert_eq!(cluster.exit_code().await?, Some(0), "{}", cluster.log());
    cluster.start_master_again().await?;
    assert_eq!(processes(&cluster).await?, before);
    cluster.signal_master(Signal::SIGUSR2)?;
    assert_eq!(cluster.exit_code().await?, Some(0), "{}", cluster.log());
    cluster.start_master_again().await?;
    assert_eq!(processes(&cluster).await?, before);
    load.finish().await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_master_killed_while_it_replaces_leaves_one_process_of_each_node_to_the_next() -> Result<()> {
    let mut cluster = Cluster::processes(Fixture::demo()?).await?;
    let load = Load::start(&cluster, 4).await?;
    // At different points of the reload of three nodes.
    for ms in [30, 150, 400] {
        let reload = tests::http::request(cluster.at("admin"), "POST", "/reload", &[]);
        let reload = tokio::spawn(async move { drop(reload.await) });
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cluster.kill_master().await?;
        reload.await?;
        cluster.start_master_again().await?;
        for node in ["gate", "net", "game1"] {
            let one = |node: &Value| node["state"] == "ready" && node["beside"].is_null();
            cluster.until(node, "one process", one).await.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
    // A panic keeps the folder with the logs of all four masters.
    let answers = load.finish().await.unwrap_or_else(|error| panic!("{error:#}"));
    ensure!(answers > 100, "{answers}");
    let serving = cluster.pids().await?;
    let left = appmains_of(&cluster)?;
    assert_eq!(left.len(), serving.len(), "{left:?} {serving:?}\n{}", cluster.log());
    cluster.stop().await
}

/// The living processes of `appmain` for this cluster's config.
fn appmains_of(cluster: &Cluster) -> Result<Vec<i32>> {
    let config = cluster.folder().join("config.json");
    let of_config = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("appmain") && line.contains(&*config.to_string_lossy())
    };
    let pids =
        std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(of_config).filter(|pid| is_alive(*pid)).collect())
}
