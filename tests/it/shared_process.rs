//! Several nodes in one process, started by hand: links in memory between them and over TCP to the others, and how they end.

#![allow(clippy::unwrap_used, reason = "that is how tests fail, in their helpers, too")]

use std::process::Stdio;

use anyhow::{Context, Result};
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::terminal::Shown;
use tests::wait;
use tokio::process::Command;

/// The demo, whose master has `game1` and leaves the others to another host. Those run in one process by hand.
async fn by_hand(names: &[&str]) -> Result<(Cluster, Shown)> {
    let fixture = Fixture::new(
        r#"{
  "master": { "rootport": @master, "webport": @admin },
  "servers": {
    "gate":  { "host": "192.0.2.1", "rootport": @gate, "app": "gateserver" },
    "net":   { "host": "192.0.2.1", "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#,
    )?;
    let cluster = Cluster::processes(fixture).await?;
    let mut command = Command::new(bins::folder()?.join("testnode"));
    command.args(names).arg(cluster.folder().join("config.json")).env("FF_RUN_DIR", cluster.run_dir());
    let shown = Shown::in_pipe(command)?;
    for name in names {
        shown.until_shown(&format!("{name} is ready")).await?;
    }
    Ok((cluster, shown))
}

fn line<'a>(text: &'a str, parts: &[&str]) -> Result<&'a str> {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    text.lines().find(has_all).with_context(|| format!("no line with {parts:?}:\n{text}"))
}

#[tokio::test]
async fn nodes_by_hand_share_a_process_beside_a_master_and_link_in_memory_only_inside() -> Result<()> {
    let (cluster, mut shown) = by_hand(&["net", "gate"]).await?;
    cluster.until_answered(300).await?;
    assert_eq!(cluster.pid("net").await?, cluster.pid("gate").await?, "the master knows both");
    assert_ne!(cluster.pid("net").await?, cluster.pid("game1").await?);
    let text = shown.text();
    line(&text, &["parent linked parent=gate", "at=this process node=net"])?;
    line(&text, &["child linked child=net", "from=this process node=gate"])?;
    line(&text, &["child linked child=game1", "from=127.0.0.1:", " node=gate"])?;
    line(&text, &["call command 300 ", " node=net"])?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    let text = shown.text();
    let at = |line: &str| text.find(line).with_context(|| format!("no `{line}`:\n{text}"));
    assert!(at("net has stopped")? < at("gate is stopping")?, "clients leave before their gate:\n{text}");
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_leaves_its_process_in_which_others_go_on() -> Result<()> {
    let (cluster, mut shown) = by_hand(&["net", "gate"]).await?;
    cluster.until_answered(300).await?;
    assert_eq!(cluster.admin("POST", "/nodes/gate/stop").await?.status, 200);
    shown.until_shown("gate has left this process, in which others go on").await?;
    wait::until("its port is nobody's", async || match ffnet::listen::holder(cluster.at("gate")) {
        None => Ok(()),
        Some(holder) => Err(holder),
    })
    .await?;
    cluster.client().await?;
    assert!(!shown.text().contains("net is stopping"), "{}", shown.text());
    assert_eq!(cluster.admin("POST", "/nodes/net/stop").await?.status, 200);
    assert_eq!(shown.exit_code().await?, Some(0), "the last one has ended:\n{}", shown.text());
    cluster.stop().await
}

#[tokio::test]
async fn a_list_of_nodes_that_cannot_share_a_process_is_refused_with_the_reason() -> Result<()> {
    let (fixture, folder) = (Fixture::demo()?, tempfile::tempdir()?);
    let config = folder.path().join("config.json");
    let said = async |text: &str, arguments: &[&str], code| {
        std::fs::write(&config, text)?;
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.args(arguments).arg(&config).env("FF_RUN_DIR", folder.path()).kill_on_drop(true);
        let output = tokio::time::timeout(wait::PATIENCE, command.stdin(Stdio::null()).output()).await??;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        anyhow::Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
    };
    let (_, twice) = said(&fixture.text, &["net", "gate", "net"], 1).await?;
    assert_eq!(twice, "`net` is given twice: a process runs a node once\n");
    let (_, unknown) = said(&fixture.text, &["net", "gaet"], 1).await?;
    assert_eq!(unknown, "servers has no `gaet`; it has: `gate`, `net`, `game1`; did you mean `gate`?\n");
    let differ = fixture.text.replace("\"game1\": {", "\"game1\": { \"threads\": 2,");
    let (_, differ) = said(&differ, &["gate", "game1"], 1).await?;
    let told = "servers.game1.threads is 2, servers.gate.threads is 1: the nodes of a process share it\n";
    assert_eq!(differ, told);
    let (_, key) = said(&fixture.text, &["--key", "net.key", "net", "gate"], 2).await?;
    assert!(key.contains("--key is the key of one node, and these are 2"), "{key}");
    let (checked, _) = said(&fixture.text, &["--check", "gate", "game1"], 0).await?;
    assert!(checked.starts_with("gate:\nok ") && checked.contains("\ngame1:\nok "), "{checked}");

    // A node that cannot start ends its process, whose last line says why.
    let _holder = std::net::TcpListener::bind(fixture.at("gate"))?;
    let (log, failed) = said(&fixture.text, &["game1", "gate"], 1).await?;
    let told = format!(
        "gate has ended by itself, and the nodes of its process were stopped: servers.gate.rootport: cannot listen on {}: `",
        fixture.at("gate")
    );
    assert!(failed.starts_with(&told) && failed.lines().count() == 1, "{failed}");
    assert!(log.contains("game1 has stopped"), "{log}");
    Ok(())
}
