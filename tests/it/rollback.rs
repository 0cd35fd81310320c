//! Reloads whose new processes do not come to serve: nobody notices, and the answer says why.

use anyhow::{Context, Result};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::time::{Duration, timeout};

/// A demo cluster whose next processes of `gate` do what `how` says; the answer to a reload, and its part for
/// the gate. A client calls all the while.
async fn reload_with(fixture: Fixture, how: &str) -> Result<(u16, String)> {
    let script = format!(r#"[ "$1" = gate ] && [ -n "$FF_SUCCEEDS" ] && {{ {how}; }}"#);
    let cluster = Cluster::scripted(fixture, &script).await?;
    let before = cluster.pids().await?;
    let mut client = cluster.client().await?;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut answers = 0;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            client.call(300, b"during").await?;
            answers += 1;
        }
        anyhow::Ok(answers)
    });
    let answer = cluster.admin("POST", "/reload").await?;
    drop(stop);
    let answers = timeout(Duration::from_secs(10), load).await???;
    assert!(answers > 0, "{answers}");
    assert_eq!(cluster.pids().await?, before, "every old process goes on");
    assert_eq!(cluster.admin("GET", "/healthz").await?.status, 200);
    let json = answer.json()?;
    let nodes = json["nodes"].as_array().context("no nodes")?;
    assert_eq!(nodes[1]["outcome"], "not touched", "{json}");
    let why = nodes[0]["outcome"].as_str().context("no outcome")?.to_owned();
    let status = cluster.status().await?;
    assert_eq!(
        (&status["command"]["ok"], &status["command"]["steps"][0]["stage"]),
        (&false.into(), &"failed".into())
    );
    // The next one, with a program that works, goes through.
    std::fs::remove_file(cluster.folder().join("appmain"))?;
    let real = tests::bins::folder()?.join("appmain");
    std::os::unix::fs::symlink(real, cluster.folder().join("appmain"))?;
    let again = cluster.admin("POST", "/reload").await?;
    assert_eq!(again.status, 200, "{again:?}");
    cluster.stop().await?;
    Ok((answer.status, why))
}

#[tokio::test]
async fn a_new_program_that_panics_at_its_start_is_rolled_back() -> Result<()> {
    // As Rust's panic hook prints it.
    let how = r#"printf "\nthread 'main' (42) panicked at apps/src/gateserver.rs:7:9:\nno such map\n" >&2
        printf 'note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n' >&2; exit 101"#;
    let (status, why) = reload_with(Fixture::demo()?, how).await?;
    assert_eq!(status, 500);
    let expected = "rolled back: the new process ended: thread 'main' (42) panicked at \
                    apps/src/gateserver.rs:7:9: no such map (exit code 101); the old process goes on";
    assert_eq!(why, expected);
    Ok(())
}

#[tokio::test]
async fn a_new_program_that_never_becomes_ready_is_rolled_back() -> Result<()> {
    let fixture =
        Fixture::demo()?.replace("\"servers\": {", "\"limits\": { \"start_s\": 2 }, \"servers\": {");
    let (status, why) = reload_with(fixture, "exec sleep 1000").await?;
    assert_eq!(status, 500);
    assert_eq!(
        why,
        "rolled back: the new process was not ready within 2 s (limits.start_s); the old process goes on"
    );
    Ok(())
}

#[tokio::test]
async fn an_app_that_never_freezes_keeps_its_old_process_and_goes_on() -> Result<()> {
    let cluster = Cluster::processes(Fixture::replaced()?.with_worlds()).await?;
    let before = cluster.pids().await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call(16, b"1").await?, "1 1 gate");
    cluster.misbehave(Some("never-freezes gate"))?;
    let answer = cluster.admin("POST", "/reload").await;
    cluster.misbehave(None)?;
    let json = answer?.json()?;
    let nodes = json["nodes"].as_array().context("no nodes")?;
    let gate = nodes.iter().find(|node| node["node"] == "gate").context("no gate")?;
    let why = gate["outcome"].as_str().context("no outcome")?;
    assert!(why.starts_with("rolled back: the app's freeze hook failed: "), "{why}");
    let answered = timeout(Duration::from_secs(5), client.call(16, b"1")).await;
    assert_eq!(answered.context("the gate does not go on")??, "2 2 gate");
    assert_eq!(cluster.pids().await?, before, "every old process goes on");
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200, "and can be replaced after all");
    assert_eq!(client.call(16, b"1").await?, "3 3 gate");
    cluster.stop().await
}
