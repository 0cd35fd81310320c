//! Who a node is, proven: what a stranger gets without a key, and how a node that a person starts gets one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ffkeys::{ClusterKeys, ClusterSecret};
use ffnet::handshake::{HandshakeError, Local, Peer, dial};
use ffproto::handshake::{PREAMBLE_BYTES, Purpose, Refusal};
use ffproto::{Incarnation, NodeName};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::terminal::Shown;
use tests::{bins, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn reach(cluster: &Cluster, at: &str, local: &Local) -> Result<Peer, HandshakeError> {
    let purpose = if at == "master" { Purpose::Control } else { Purpose::Link };
    let to = NodeName::try_from(at).map_err(|_| HandshakeError::Malformed)?;
    let mut stream = TcpStream::connect(cluster.at(at)).await?;
    dial(&mut stream, purpose, local, &to).await
}

/// The same of a cluster with another secret.
fn forged(real: &Local) -> Result<Local> {
    let keys = ClusterKeys::new(&ClusterSecret::new(&real.chance)?, 0, None)?;
    let claims = real.keys.claims().clone();
    Ok(Local { keys: Arc::new(keys.start(claims, real.keys.incarnation(), &real.chance)?), ..real.clone() })
}

#[tokio::test]
async fn without_a_token_nothing_links_or_registers_that_the_master_has_not_signed() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let now = ffserver::Clock::system().now_ms();
    for (like, name) in [("game1", "game1"), ("game1", "evil-not-in-config"), ("gate", "gate")] {
        let stranger = forged(&cluster.local_of(like, name, Incarnation(now))?)?;
        for at in ["gate", "master"] {
            let refused = reach(&cluster, at, &stranger).await;
            ensure!(matches!(refused, Err(HandshakeError::Silent)), "{name} at {at}: {refused:?}");
        }
    }
    assert_eq!(cluster.pids().await?, before);
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_stranger_learns_the_versions_and_nothing_else() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let hello = [&0_u32.to_le_bytes()[..], &[7; 100]].concat();
    for (at, purpose) in [("gate", 2), ("master", 1)] {
        for more in [&b""[..], &hello, b"GET / HTTP/1.1\r\n\r\n", &[255; 5000]] {
            let mut stream = TcpStream::connect(cluster.at(at)).await?;
            let preamble = [&b"FFLK\x03\0"[..], &[purpose, 0], b"\x04\0\0\0"].concat();
            stream.write_all(&[&preamble, more].concat()).await?;
            stream.shutdown().await?;
            let mut heard = Vec::new();
            // What it has not read makes the system say so, which is no word of the node's.
            let _ = stream.read_to_end(&mut heard).await;
            ensure!(heard.len() <= PREAMBLE_BYTES + 32, "{at}: {heard:?}");
        }
    }
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_stolen_node_key_is_that_node_alone_and_a_newer_start_fences_it() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let before = cluster.pids().await?;
    let refusal = |refused: Result<Peer, HandshakeError>| match refused {
        Err(HandshakeError::RefusedByPeer(why)) => Ok(why),
        other => anyhow::bail!("{other:?}"),
    };
    // A key of a start that is over: game1's, and one of a node that nobody has as a child here.
    let old = cluster.local_of("game1", "game1", Incarnation(1))?;
    for at in ["gate", "master"] {
        let why = refusal(reach(&cluster, at, &old).await)?;
        ensure!(matches!(why, Refusal::Older { .. }), "{at}: {why:?}");
    }
    let gate = cluster.local_of("gate", "gate", Incarnation(1))?;
    let why = refusal(reach(&cluster, "gate", &gate).await)?;
    ensure!(matches!(why, Refusal::NoChild { .. }), "{why:?}");
    let future = cluster.local_of("game1", "game1", Incarnation(u64::MAX))?;
    for at in ["gate", "master"] {
        let why = refusal(reach(&cluster, at, &future).await)?;
        ensure!(why == Refusal::Future(Incarnation(u64::MAX)), "{at}: {why:?}");
    }
    assert_eq!(cluster.pids().await?, before);
    cluster.until_answered(300).await?;
    cluster.stop().await
}

/// The variables that a process was started with.
fn variables(pid: i32) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read(format!("/proc/{pid}/environ"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The pipes that a process has open, by their numbers.
fn pipes(pid: i32) -> Result<BTreeMap<String, PathBuf>> {
    let mut pipes = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let to = std::fs::read_link(entry.path()).unwrap_or_default();
        if to.to_string_lossy().starts_with("pipe:") {
            pipes.insert(entry.file_name().to_string_lossy().into_owned(), to);
        }
    }
    Ok(pipes)
}

/// The key is not known here, so all that the master gives is looked at.
#[tokio::test]
async fn a_nodes_key_is_in_no_argument_no_variable_and_no_open_descriptor() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let master = i32::try_from(cluster.master_pid()?)?;
    // A pipe of the test's own parents goes through all of them.
    let (master, inherited) = (variables(master)?, pipes(master)?);
    for node in ["gate", "net", "game1"] {
        let pid = cluster.pid(node).await?;
        let mut given = variables(pid)?;
        given.retain(|name, value| master.get(name) != Some(value));
        assert_eq!(given.get("FF_KEY").map(String::as_str), Some("stdin"), "{given:?}");
        let longest = given.values().map(String::len).max().unwrap_or_default();
        ensure!(given.len() < 10 && longest < 50, "room for a key: {given:?}");
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let config = cluster.folder().join("config.json").display().to_string();
        let arguments: Vec<_> = line.split_terminator('\0').skip(1).collect();
        assert_eq!(arguments, [node, config.as_str()]);
        let mut own = pipes(pid)?;
        own.retain(|number, pipe| inherited.get(number) != Some(pipe));
        let own: Vec<_> = own.into_keys().collect();
        assert_eq!(own, ["1", "2"], "{node}: only what it prints goes over a pipe");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/0"))?, Path::new("/dev/null"), "{node}");
    }
    cluster.stop().await
}

pub(crate) async fn key_file(cluster: &Cluster, node: &str) -> Result<PathBuf> {
    let out = cluster.folder().join(format!("{node}.key"));
    let mut command = Command::new(bins::folder()?.join("master"));
    command.args(["key", node, "--config"]).arg(cluster.folder().join("config.json")).arg("--out").arg(&out);
    let output = command.env("FF_RUN_DIR", cluster.run_dir()).stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(out)
}

#[tokio::test]
async fn a_node_by_hand_runs_with_a_key_file_and_only_the_one_that_it_is_for() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    let (key, config) = (key_file(&cluster, "game1").await?, cluster.folder().join("config.json"));
    // As on another host: the run folder of the master is not there.
    let elsewhere = tempfile::tempdir()?;
    let by_hand = |node: &str| -> Result<Command> {
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.arg(node).arg(&config).arg("--key").arg(&key).env("FF_RUN_DIR", elsewhere.path());
        Ok(command)
    };
    let output = by_hand("net")?.stdin(Stdio::null()).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("the key is that of the start"), "{said}");
    let mut shown = Shown::in_pipe(by_hand("game1")?)?;
    shown.until_shown("game1 is ready").await?;
    cluster.until_answered(300).await?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let output = by_hand("game1")?.stdin(Stdio::null()).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("game1.key: others may read it (mode 644): chmod 600"), "{said}");
    cluster.stop().await
}

#[tokio::test]
async fn a_node_by_hand_waits_for_the_master_that_gives_it_its_key() -> Result<()> {
    let fixture = Fixture::demo()?;
    let mut cluster = Cluster::processes(fixture).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    cluster.kill_master().await?;
    let (config, run) = (cluster.folder().join("config.json"), cluster.run_dir());
    let by_hand = || -> Result<Command> {
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.arg("game1").arg(&config).env("FF_RUN_DIR", &run);
        Ok(command)
    };
    let mut shown = Shown::in_pipe(by_hand()?)?;
    shown.until_shown("no key yet, asking on: no master of this config runs here").await?;
    cluster.start_master_again().await?;
    // That one runs the node itself, and nobody takes a running node's place by accident.
    let why =
        "no key yet, asking on: the master gives no key: `game1` runs already, as a process of this master";
    shown.until_shown(why).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    shown.until_shown("no key yet, asking on: the master gives no key: a newer `game1` is known").await?;
    shown.stop().await?;
    let mut shown = Shown::in_pipe(by_hand()?)?;
    shown.until_shown("the master has given this node its key").await?;
    cluster.until_answered(300).await?;
    shown.stop().await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_somebody_else_has_started_and_left_is_started_again_by_its_master() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let own = cluster.pid("game1").await?;
    let key = key_file(&cluster, "game1").await?;
    let mut command = Command::new(bins::folder()?.join("appmain"));
    command.arg("game1").arg(cluster.folder().join("config.json")).arg("--key").arg(key);
    command.env("FF_RUN_DIR", cluster.run_dir());
    let mut shown = Shown::in_pipe(command)?;
    cluster.until_logged("game1 (pid").await?;
    cluster.until("game1", "is somebody else's", |node| node["pid"] != own).await?;
    let theirs = cluster.pid("game1").await?;
    shown.stop().await?;
    wait::until("the master has started it again", async || {
        let node = cluster.node("game1").await.map_err(|error| format!("{error:#}"))?;
        let pid = node["pid"].as_i64();
        let is_back = node["state"] == "ready" && pid != Some(theirs.into());
        if is_back { Ok(()) } else { Err(node) }
    })
    .await
    .context("it is not back")?;
    cluster.until_answered(300).await?;
    cluster.stop().await
}
