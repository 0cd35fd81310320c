//! The cluster's keys change while it runs: nobody notices, and what is two changes old is nobody's any more.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ffkeys::{ClusterKeys, ClusterSecret, TrustRoots};
use ffnet::handshake::{HandshakeError, Local, dial};
use ffproto::handshake::{Purpose, Refusal};
use ffproto::{ClusterName, Incarnation, NodeName, Versions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::single::Single;
use tests::wait;
use tokio::net::TcpStream;

use crate::adoption::Load;

const TOKENS: [&str; 3] = ["the-first-of-all-tokens", "the-second-of-all-tokens", "the-third-of-all-tokens"];

/// The demo, whose reloads are short.
fn brief() -> Result<Fixture> {
    Ok(Fixture::demo()?.replace("\"servers\":", "\"limits\": { \"prove_ms\": 300 },\n  \"servers\":"))
}

fn keys_of(token: &str) -> Result<ClusterKeys> {
    let secret = ClusterSecret::of_token(token, &ClusterName::try_from("cluster")?);
    Ok(ClusterKeys::new(&secret, 0, None)?)
}

/// Whether gate and the master take a key of game1 that these have signed: they say then that its start is over.
async fn is_valid(cluster: &Cluster, keys: &ClusterKeys, current: &ClusterKeys) -> Result<bool> {
    let config = ffconfig::load(&cluster.folder().join("config.json"), &|_| None)?.cluster;
    let claims = config.claims(config.node("game1").context("no game1")?);
    let ambient = ffserver::Ambient::system();
    let start = keys.start(claims, Incarnation(1), &ambient.chance)?;
    // It knows who answers, so that what is tried is whether it is known.
    let (current, previous) = (current.roots().current, Some(keys.roots().current));
    let local = Local {
        keys: Arc::new(start.with_roots(TrustRoots { current, previous })),
        versions: Versions::OURS,
        methods: Vec::new(),
        chance: ambient.chance,
        clock: ambient.clock,
        binding: Vec::new(),
    };
    let mut valid = Vec::new();
    for (at, purpose) in [("gate", Purpose::Link), ("master", Purpose::Control)] {
        let mut stream = TcpStream::connect(cluster.at(at)).await?;
        valid.push(match dial(&mut stream, purpose, &local, &NodeName::try_from(at)?).await {
            Err(HandshakeError::RefusedByPeer(Refusal::Older { .. })) => true,
            Err(HandshakeError::Silent) => false,
            other => anyhow::bail!("{at}: {other:?}"),
        });
    }
    ensure!(valid[0] == valid[1], "gate and master do not agree: {valid:?}");
    Ok(valid[0])
}

#[tokio::test]
async fn a_token_is_changed_twice_under_load_and_the_first_opens_nothing_any_more() -> Result<()> {
    let with = |token: &str| -> Result<Fixture> {
        let token = format!("\"master\": {{ \"token\": \"{token}\",");
        Ok(brief()?.replace("\"master\": {", &token))
    };
    let first = with(TOKENS[0])?;
    let mut cluster = Cluster::processes(first.clone()).await?;
    let load = Load::start(&cluster, 10).await?;
    let keys = [keys_of(TOKENS[0])?, keys_of(TOKENS[1])?, keys_of(TOKENS[2])?];
    for (n, expected) in [(1, [true, true, false]), (2, [false, true, true])] {
        cluster.configure(first.clone().replace(TOKENS[0], TOKENS[n]))?;
        let (before, old) = (cluster.log().len(), first.clone().replace(TOKENS[0], TOKENS[n - 1]));
        let answer = tests::http::request(old.at("admin"), "POST", "/reload", &[]).await?;
        ensure!(answer.status == 200, "{answer:?}\n{}", cluster.log());
        let log = cluster.log();
        ensure!(log[before..].matches("the cluster's keys have changed").count() >= 3, "{log}");
        for (key, expected) in keys.iter().zip(expected) {
            assert_eq!(is_valid(&cluster, key, &keys[n]).await?, expected, "after {n}");
        }
        // The lines about the one that is not valid, which a loaded log writes late, are not the next change's.
        wait::until("the gate and the master have logged it", async || {
            let told = cluster.log().matches("a stranger: ").count();
            if told >= 2 * n { Ok(()) } else { Err(told.to_string()) }
        })
        .await?;
    }
    // The cluster's token is no operator's: whichever it is, it opens nothing over HTTP.
    for token in TOKENS {
        let sent = [("Authorization", &*format!("Bearer {token}"))];
        assert_eq!(tests::http::request(cluster.at("admin"), "GET", "/status", &sent).await?.status, 401);
    }
    ensure!(load.finish().await? > 0);
    // By now also what a loaded log writes late is there: nobody but this test was a stranger to anybody.
    let log = cluster.log();
    ensure!(log.matches("a stranger: ").count() == 4, "{log}");
    cluster.stop().await
}

#[tokio::test]
async fn without_a_token_a_new_secret_is_asked_for_and_the_next_master_knows_both() -> Result<()> {
    let mut cluster = Cluster::processes(brief()?).await?;
    let load = Load::start(&cluster, 10).await?;
    let first = cluster.master_keys()?;
    let answer = cluster.admin("POST", "/rotate").await?;
    ensure!(answer.status == 200, "{answer:?}\n{}", cluster.log());
    let second = cluster.master_keys()?;
    ensure!(first.roots() != second.roots());
    ensure!(is_valid(&cluster, &first, &second).await? && is_valid(&cluster, &second, &second).await?);
    let pids = cluster.pids().await?;
    cluster.kill_master().await?;
    cluster.start_master_again().await?;
    assert_eq!(cluster.pids().await?, pids, "they are adopted");
    ensure!(is_valid(&cluster, &first, &second).await?, "what the last rotation was is known");
    let answer = cluster.admin("POST", "/rotate").await?;
    ensure!(answer.status == 200, "{answer:?}\n{}", cluster.log());
    let third = cluster.master_keys()?;
    ensure!(!is_valid(&cluster, &first, &third).await? && is_valid(&cluster, &second, &third).await?);
    ensure!(load.finish().await? > 0);
    let old = cluster.kill_hard("game1").await?;
    cluster.until_back("game1", old).await?;
    cluster.until_answered(300).await?;
    cluster.stop().await
}

/// Nodes whose master has been killed between a new secret and its nodes know the next one.
#[tokio::test]
async fn a_token_that_changed_while_no_master_ran_is_told_to_the_nodes_that_are_adopted() -> Result<()> {
    let with = |token: &str| format!("\"master\": {{ \"token\": \"{token}\",");
    let first = brief()?.replace("\"master\": {", &with(TOKENS[0]));
    let mut cluster = Cluster::processes(first.clone()).await?;
    let load = Load::start(&cluster, 5).await?;
    let pids = cluster.pids().await?;
    cluster.kill_master().await?;
    cluster.configure(first.replace(TOKENS[0], TOKENS[1]))?;
    cluster.start_master_again().await?;
    assert_eq!(cluster.pids().await?, pids, "they are adopted");
    // Not by a line of theirs: a node under load loses lines. What was adopted shows a key of before.
    let (first, second) = (keys_of(TOKENS[0])?, keys_of(TOKENS[1])?);
    wait::until("the gate takes the new key", async || match is_valid(&cluster, &second, &first).await {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    let old = cluster.kill_hard("game1").await?;
    cluster.until_back("game1", old).await?;
    cluster.until_answered(300).await?;
    // Those that were waiting for game1 have been told so.
    drop(load);
    cluster.stop().await
}

/// As on another host: a `master single` has started it.
#[tokio::test]
async fn a_node_that_its_master_does_not_start_gets_a_new_key_when_it_is_asked_for() -> Result<()> {
    let with = |token: &str| format!("\"master\": {{ \"token\": \"{token}\",");
    let first = brief()?.replace("\"master\": {", &with(TOKENS[0]));
    let mut cluster = Cluster::processes(first.clone()).await?;
    ensure!(cluster.admin("POST", "/nodes/game1/stop").await?.status == 200);
    let single = Single::start("game1", &cluster.folder().join("config.json"))?;
    cluster.until("game1", "ready, by `master single`", |node| node["state"] == "ready").await?;
    let old = cluster.pid("game1").await?;
    for n in [1, 2] {
        cluster.configure(first.clone().replace(TOKENS[0], TOKENS[n]))?;
        let answer = tests::http::request(cluster.at("admin"), "POST", "/reload", &[]).await?;
        ensure!(answer.status == 200, "{answer:?}\n{}", cluster.log());
        let log = cluster.log();
        ensure!(log.contains("game1 has a key of before the last change") == (n == 2), "{n}: {log}");
        ensure!((cluster.node("game1").await?["state"] == "ready") == (n == 1), "{n}: {log}");
    }
    cluster
        .until("gate", "has hung up on game1", |gate| gate["children"] == serde_json::json!(["net"]))
        .await?;
    single.signal(Signal::SIGHUP)?;
    cluster.until_back("game1", old).await?;
    cluster.until_answered(300).await?;
    cluster.stop_with([single]).await
}

/// Nothing that a link needs to come back ends while there is no master; `ffnet::handshake` has the week.
#[tokio::test]
async fn links_come_back_while_the_master_is_dead() -> Result<()> {
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin },
  "limits": { "heartbeat_ms": 100 },
  "servers": {
    "gate":  { "rootport": @gate, "app": "gateserver" },
    "net":   { "netport": @net, "webport": @web, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#;
    let fixture = Fixture::new(text)?;
    let mut cluster = Cluster::processes(fixture).await?;
    let gate = Pid::from_raw(cluster.pid("gate").await?);
    cluster.kill_master().await?;
    let web = cluster.at("web");
    let until_parent = async |up: bool| {
        wait::until("net says how its parent is", async || {
            let told =
                tests::http::request(web, "GET", "/healthz", &[]).await.map_err(|e| format!("{e:#}"))?;
            let parents = told.json().map_err(|e| format!("{e:#}"))?["parents"].clone();
            if parents.to_string().contains(&format!(":{up}")) { Ok(()) } else { Err(parents.to_string()) }
        })
        .await
    };
    until_parent(true).await?;
    kill(gate, Signal::SIGSTOP)?;
    until_parent(false).await?;
    kill(gate, Signal::SIGCONT)?;
    until_parent(true).await?;
    cluster.until_answered(300).await?;
    cluster.start_master_again().await?;
    cluster.stop().await
}
