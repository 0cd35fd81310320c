//! Two releases beside each other: this one told to speak as the one before it (`FF_SPEAK`), and this one as it is.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::time::{Duration, timeout};

use crate::adoption::Load;

/// Nodes speak as the release before this one does for as long as that file is there.
const SCRIPT: &str = "unset FF_SPEAK; [ -e \"$folder/older\" ] && export FF_SPEAK=3";

/// The time that a process may take to start when its config does not say it.
const START: Duration = Duration::from_secs(60);

/// What each node has told of its release, which only this release does.
async fn releases(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = cluster.status().await?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    // A release has its commit behind it.
    let version = |release: &Value| release.as_str().and_then(|text| text.split(' ').next()).map(Value::from);
    Ok(nodes.iter().map(|node| version(&node["release"]).unwrap_or_default()).collect())
}

async fn older(fixture: Fixture) -> Result<Cluster> {
    // The file has to be there before the first node is.
    Cluster::scripted(
        fixture,
        &format!("[ -e \"$folder/begun\" ] || touch \"$folder/begun\" \"$folder/older\"; {SCRIPT}"),
    )
    .await
}

#[tokio::test]
async fn the_release_before_this_one_is_reloaded_to_this_one_and_back_under_load_without_an_error()
-> Result<()> {
    let cluster = older(Fixture::demo()?).await?;
    let file = cluster.folder().join("older");
    assert_eq!(releases(&cluster).await?, [Value::Null, Value::Null, Value::Null]);
    let load = Load::start(&cluster, 4).await?;
    let own = Value::from(env!("CARGO_PKG_VERSION"));
    for back in [false, true] {
        match back {
            false => std::fs::remove_file(&file)?,
            true => std::fs::write(&file, "")?,
        }
        let reloaded = cluster.admin("POST", "/reload").await?;
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
        let expected = if back { Value::Null } else { own.clone() };
        for node in ["gate", "net", "game1"] {
            cluster.until(node, "says its release", |node| node["release"] == expected).await?;
        }
    }
    load.finish().await?;
    cluster.stop().await
}

/// The master is killed; the next one speaks that version alone, or all of this release's.
async fn next_master(cluster: &mut Cluster, speaks: Option<u16>) -> Result<()> {
    let (program, real) = (cluster.folder().join("master"), tests::bins::folder()?.join("master"));
    cluster.kill_master().await?;
    let speak = speaks.map(|version| format!("FF_SPEAK={version} ")).unwrap_or_default();
    std::fs::write(&program, format!("#!/bin/sh\n{speak}exec {} \"$@\"\n", real.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    cluster.start_master_again().await
}

#[tokio::test]
async fn a_master_of_the_release_before_this_one_adopts_nodes_of_this_one_and_the_other_way_round()
-> Result<()> {
    let mut cluster = Cluster::scripted(Fixture::demo()?, SCRIPT).await?;
    let own = Value::from(env!("CARGO_PKG_VERSION"));
    assert_eq!(releases(&cluster).await?, [own.clone(), own.clone(), own.clone()]);
    let before = cluster.pids().await?;
    let load = Load::start(&cluster, 4).await?;
    for older in [true, false] {
        next_master(&mut cluster, older.then_some(3)).await?;
        assert_eq!(cluster.pids().await?, before, "older: {older}");
        let expected = if older { Value::Null } else { own.clone() };
        assert_eq!(releases(&cluster).await?, [expected.clone(), expected.clone(), expected]);
    }
    load.finish().await?;
    cluster.stop().await
}

/// Nodes speak the newest version alone, and for as long as that file is there the one before it alone.
const NEWEST_OR_OLDER: &str = "export FF_SPEAK=4; [ -e \"$folder/older\" ] && export FF_SPEAK=3";

/// A reload of the gate to a program that speaks the older version alone is refused with a sentence that has `why`, and long
/// before the time of a start is over; nothing has moved.
async fn a_downgrade_is_refused(cluster: Cluster, why: &str) -> Result<()> {
    let (before, load) = (cluster.pids().await?, Load::start(&cluster, 4).await?);
    std::fs::write(cluster.folder().join("older"), "")?;
    let asked = cluster.admin("POST", "/reload");
    let refused = timeout(START / 2, asked).await.context("it waits for a start that cannot be")??;
    assert_eq!(refused.status, 500, "{refused:?}");
    let json = refused.json()?;
    let outcome = json["nodes"][0]["outcome"].as_str().context("no outcome")?;
    assert!(outcome.starts_with("rolled back: ") && outcome.contains(why), "{outcome}");
    assert_eq!(cluster.pids().await?, before, "every old process goes on");
    load.finish().await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_program_that_cannot_speak_with_its_master_is_refused_at_once_and_nothing_moves() -> Result<()> {
    let mut cluster = Cluster::scripted(Fixture::demo()?, NEWEST_OR_OLDER).await?;
    next_master(&mut cluster, Some(4)).await?;
    let why = "the other side speaks version 4 of the protocol between nodes, this side version 3";
    a_downgrade_is_refused(cluster, why).await
}

#[tokio::test]
async fn a_program_that_cannot_speak_with_the_one_that_serves_is_refused_at_once_and_nothing_moves()
-> Result<()> {
    let cluster = Cluster::scripted(Fixture::demo()?, NEWEST_OR_OLDER).await?;
    let why = "the old process speaks version 4 of the protocol between nodes, this one version 3";
    a_downgrade_is_refused(cluster, why).await
}

#[tokio::test]
async fn nodes_of_the_release_before_this_one_are_said_to_be_too_old_for_questions_and_stay_connected()
-> Result<()> {
    let cluster = older(Fixture::demo()?).await?;
    let page = cluster.admin("GET", "/sessions").await?.json()?;
    let nodes = page["nodes"].as_array().context("no nodes")?;
    assert_eq!(nodes.len(), 3, "{page}");
    for node in nodes {
        assert_eq!(node["error"], "its release is too old for that: reload it to this one", "{page}");
    }
    let run = cluster.admin("POST", "/run/greet").await?;
    assert_eq!(run.status, 500, "{run:?}");
    assert!(!cluster.log().contains("the control connection ended"), "{}", cluster.log());
    cluster.stop().await
}
