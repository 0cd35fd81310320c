//! A node that a `master single` supervises, as on another host; and what a service manager is told.

use anyhow::Result;
use ffnet::notify::{NotifyListener, Word};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::single::Single;
use tests::wait;

/// The demo, in which a `master single` has taken `game1`.
async fn with_single(master: &str, limits: &str) -> Result<(Cluster, Single)> {
    let fixture = Fixture::demo()?
        .replace("\"servers\": {", &format!("\"limits\": {{ {limits} }}, \"servers\": {{"))
        .replace("\"master\": {", &format!("\"master\": {{ {master}"));
    taken(fixture, "game1").await
}

/// A cluster in which a `master single` has taken a node.
async fn taken(fixture: Fixture, node: &str) -> Result<(Cluster, Single)> {
    let cluster = Cluster::processes(fixture).await?;
    assert_eq!(cluster.admin("POST", &format!("/nodes/{node}/stop")).await?.status, 200);
    let single = Single::start(node, &cluster.folder().join("config.json"))?;
    cluster.until(node, "ready again, by `master single`", |node| node["state"] == "ready").await?;
    single.until_logged(&format!("{node} serves, and shows that its loop turns")).await?;
    Ok((cluster, single))
}

#[tokio::test]
async fn a_single_node_registers_at_the_master_that_did_not_start_it() -> Result<()> {
    let (cluster, single) = with_single("", "").await?;
    cluster.until_answered(300).await?;
    cluster.stop_with([single]).await
}

#[tokio::test]
async fn a_single_node_that_hangs_is_reported_and_started_anew_after_hang_s() -> Result<()> {
    let (cluster, single) = with_single("", "\"hang_s\": 3").await?;
    let old = cluster.signal("game1", Signal::SIGSTOP).await?;
    single
        .until_logged("game1 hangs: nothing heard for 1500 ms, its process is stopped by a signal (SIGSTOP)")
        .await?;
    cluster.until_back("game1", old).await?;
    let log = single.log();
    assert!(log.contains("its loop did not turn for 3 s (limits.hang_s)"), "{log}");
    cluster.until_answered(300).await?;
    cluster.stop_with([single]).await
}

#[tokio::test]
async fn a_single_node_that_goes_on_in_time_is_left_alone() -> Result<()> {
    let (cluster, single) = with_single("", "\"hang_s\": 20").await?;
    let old = cluster.signal("game1", Signal::SIGSTOP).await?;
    single.until_logged("game1 hangs").await?;
    cluster.signal("game1", Signal::SIGCONT).await?;
    single.until_logged("game1 goes on: it hung for").await?;
    cluster.until("game1", "ready again", |node| node["state"] == "ready" && node["pid"] == old).await?;
    cluster.stop_with([single]).await
}

#[tokio::test]
async fn a_single_node_that_ends_too_often_is_given_up() -> Result<()> {
    let restart = r#""restart": { "max": 3, "crash_loop": 2, "wait_ms_min": 10, "wait_ms_max": 20 },"#;
    let (cluster, single) = with_single(restart, "").await?;
    for _ in 0..2 {
        let old = cluster.kill_hard("game1").await?;
        cluster.until_back("game1", old).await?;
    }
    cluster.kill_hard("game1").await?;
    single.until_logged("3 quick ends (master.restart.max): not tried any more").await?;
    let log = single.log();
    assert!(log.contains("a crash loop, 2 quick ends"), "{log}");
    assert_eq!(single.exit_code().await?, Some(1));
    cluster.stop().await
}

#[tokio::test]
async fn a_single_node_that_hangs_while_it_stops_is_killed_and_not_started_again() -> Result<()> {
    let fixture = Fixture::trial_with(20_000)?
        .replace("\"count\": 2, ", "")
        .replace("\"app\": \"trialgame\"", "\"app\": \"trialgame\", \"drain_s\": 4");
    let (cluster, single) = taken(fixture, "game").await?;
    let pid = cluster.pid("game").await?;
    // It waits for this request before it leaves.
    let mut client = cluster.client().await?;
    client.send(1000, b"0 15000").await?;
    single.until_logged("call command 1000").await?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    single.until_logged("game stops, and is killed in 7 s if it does not").await?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    single
        .until_logged("game takes too long to stop, its process is stopped by a signal (SIGSTOP): killed")
        .await?;
    assert_eq!(single.exit_code().await?, Some(1));
    cluster.stop().await
}

#[tokio::test]
async fn a_service_manager_is_told_when_the_cluster_is_up_and_only_by_the_master() -> Result<()> {
    let manager = NotifyListener::open(&ffserver::Chance::system())?;
    let cluster = Cluster::notifying(Fixture::demo()?, &manager.env_value())?;
    let words = tokio::time::timeout(wait::PATIENCE, manager.next()).await??;
    assert_eq!(words, [Word::Ready]);
    let status = cluster.status().await?;
    assert_eq!(status["state"], "up", "{status}");
    let pid = cluster.pid("gate").await?;
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ"))?;
    assert!(
        environment.contains("FF_INCARNATION=") && !environment.contains("NOTIFY_SOCKET="),
        "{environment:?}"
    );
    cluster.stop().await
}

#[tokio::test]
async fn a_node_whose_manager_does_not_listen_serves_and_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fixture = Fixture::demo()?;
    let config = folder.path().join("config.json");
    std::fs::write(&config, &fixture.text)?;
    let log = std::fs::File::create(folder.path().join("gate.log"))?;
    let mut gate = tokio::process::Command::new(tests::bins::folder()?.join("appmain"))
        .arg("gate")
        .arg(&config)
        .env("NOTIFY_SOCKET", "/nowhere/at/all")
        .env("FF_RUN_DIR", folder.path())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let text = || std::fs::read_to_string(folder.path().join("gate.log")).unwrap_or_default();
    wait::until("it says so", async || {
        if text().contains("NOTIFY_SOCKET=/nowhere/at/all: nobody is told") { Ok(()) } else { Err(text()) }
    })
    .await?;
    assert_eq!(gate.try_wait()?, None, "{}", text());
    Ok(())
}
