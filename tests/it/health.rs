//! Nodes that hang, crash and crash again: reported, started again, given up, and what is kept of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::wait;
use tokio::time::Instant;

/// What `/events` tells, one `(event, data)` after the other.
fn events(cluster: &Cluster) -> Result<Receiver<(String, Value)>> {
    let at = cluster.at("admin");
    let mut stream = TcpStream::connect(at)?;
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut event = String::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event:") {
                event = name.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:")
                && let Ok(data) = serde_json::from_str(data)
                && tell.send((event.clone(), data)).is_err()
            {
                return;
            }
        }
    });
    Ok(told)
}

/// Waits for an event.
async fn until_told(
    told: &Receiver<(String, Value)>,
    what: &str,
    is: impl Fn(&str, &Value) -> bool,
) -> Result<Value> {
    let mut seen = Vec::new();
    wait::until(what, async || {
        while let Ok((event, data)) = told.try_recv() {
            if is(&event, &data) {
                return Ok(data);
            }
            seen.push(format!("{event} {data}"));
        }
        Err(seen.clone())
    })
    .await
}

#[tokio::test]
async fn a_stopped_node_is_reported_within_two_seconds_and_started_anew_after_hang_s() -> Result<()> {
    let fixture = Fixture::demo()?.replace("\"servers\": {", "\"limits\": { \"hang_s\": 4 }, \"servers\": {");
    let cluster = Cluster::processes(fixture).await?;
    let told = events(&cluster)?;
    until_told(&told, "the whole status first", |event, data| event == "status" && data["state"] == "up")
        .await?;
    let old = cluster.signal("game1", Signal::SIGSTOP).await?;
    let start = Instant::now();
    let node = cluster.until("game1", "hanging", |node| node["state"] == "hanging").await?;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(2_000), "{took:?}");
    let process = node["hanging"]["process"].as_str().context("no process")?.to_owned();
    assert_eq!(process, "stopped by a signal (SIGSTOP)");
    assert_eq!(cluster.admin("GET", "/healthz").await?.status, 503);
    until_told(&told, "it hangs", |event, data| event == "node" && data["state"] == "hanging").await?;
    let node = cluster.until_back("game1", old).await?;
    let took = start.elapsed();
    assert!((3_900..8_000).contains(&took.as_millis()), "after hang_s: {took:?}");
    let crash = &node["crash"];
    assert_eq!(crash["exit"], "signal 9 (SIGKILL)", "{crash}");
    assert!(crash["reason"].as_str().is_some_and(|why| why.contains("limits.hang_s")), "{crash}");
    until_told(&told, "the crash", |event, data| event == "crash" && data["node"] == "game1").await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_endless_loop_is_named_and_its_node_started_anew() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""hang_s": 3"#)?).await?;
    let old = cluster.pid("net").await?;
    let mut client = cluster.client().await?;
    client.send(15, b"").await?;
    cluster.until("net", "hanging", |node| node["state"] == "hanging").await?;
    let node = cluster.until_back("net", old).await?;
    let lines = node["crash"]["lines"].to_string();
    assert!(lines.contains("the loop has not turned for"), "{lines}");
    assert!(lines.contains("it is in `spins` (command 15)"), "{lines}");
    cluster.client().await?.call(1, b"again").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_goes_on_in_time_is_left_alone() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let old = cluster.signal("gate", Signal::SIGSTOP).await?;
    cluster.until("gate", "hanging", |node| node["state"] == "hanging").await?;
    cluster.signal("gate", Signal::SIGCONT).await?;
    let node = cluster.until("gate", "ready again", |node| node["state"] == "ready").await?;
    assert_eq!((node["pid"].as_i64(), &node["restarts"]), (Some(old.into()), &Value::from(0)));
    cluster.until_logged("gate goes on: it hung for").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_crash_is_kept_with_its_signal_and_its_last_lines() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    // A process writes its log on a thread of its own: of one that is killed before that has run, no line is known.
    wait::until("game1 says that it is registered", async || {
        let log = cluster.log();
        let said = log.lines().any(|line| line.starts_with("game1 | ") && line.contains("registered"));
        if said { Ok(()) } else { Err(log) }
    })
    .await?;
    let old = cluster.kill_hard("game1").await?;
    let node = cluster.until_back("game1", old).await?;
    let crash = &node["crash"];
    assert_eq!((&crash["exit"], &crash["pid"]), (&"signal 9 (SIGKILL)".into(), &old.into()));
    assert!(crash["during"].as_str().is_some_and(|what| what.starts_with("serving: ")), "{crash}");
    let lines = crash["lines"].as_array().context("no lines")?;
    assert!(
        lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains("registered"))),
        "{crash}"
    );
    let log = cluster.log();
    let path =
        log.split("is kept in ").nth(1).and_then(|rest| rest.split(" at=").next()).context("no file")?;
    let file = std::fs::read_to_string(path.trim())?;
    assert!(file.contains("exit         signal 9 (SIGKILL)") && file.contains("registered"), "{file}");
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_ends_too_often_is_failed_the_others_go_on_and_a_start_tries_again() -> Result<()> {
    let fixture = Fixture::demo()?
        .replace("\"webport\": ", "\"restart\": { \"max\": 2, \"wait_ms_min\": 50 }, \"webport\": ");
    let cluster = Cluster::processes(fixture).await?;
    let old = cluster.kill_hard("game1").await?;
    cluster.until_back("game1", old).await?;
    let mut client = cluster.client().await?;
    cluster.kill_hard("game1").await?;
    cluster.until("game1", "failed", |node| node["state"] == "failed").await?;
    let health = cluster.admin("GET", "/healthz").await?;
    assert_eq!(health.status, 503);
    assert!(health.body.contains("game1: failed"), "{health:?}");
    client.call(100, b"net goes on").await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/start").await?.status, 200);
    assert_eq!(cluster.admin("GET", "/healthz").await?.status, 200);
    cluster.stop().await
}

/// Open descriptors of a process, and how many zombies are its children.
fn descriptors_and_zombies(pid: u32) -> Result<(usize, usize)> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let is_zombie_of_it = |stat: &str| {
        let mut fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
        fields.as_mut().is_some_and(|f| f.next() == Some("Z") && f.next() == Some(pid.to_string().as_str()))
    };
    let stats = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("stat"));
    let zombies = stats.filter_map(|path| std::fs::read_to_string(path).ok()).filter(|s| is_zombie_of_it(s));
    Ok((descriptors, zombies.count()))
}

#[tokio::test]
async fn a_thousand_restarts_leave_no_descriptor_and_no_zombie() -> Result<()> {
    let fixture = Fixture::demo()?.replace(
        "\"webport\": ",
        "\"restart\": { \"max\": 0, \"wait_ms_min\": 1, \"wait_ms_max\": 1 }, \"webport\": ",
    );
    let script = r#"[ "$1" = gate ] && [ -e $folder/broken ] && { echo broken; exit 1; }"#;
    let cluster = Cluster::scripted(fixture, script).await?;
    let master = cluster.master_pid()?;
    let (before, _) = descriptors_and_zombies(master)?;
    let broken = cluster.folder().join("broken");
    std::fs::write(&broken, "")?;
    let old = cluster.kill_hard("gate").await?;
    cluster.until("gate", "restarted", |node| node["restarts"].as_u64() >= Some(1_000)).await?;
    std::fs::remove_file(&broken)?;
    cluster.until_back("gate", old).await?;
    // Connections of `/status` that are being closed count, too, for a moment.
    wait::until("as many descriptors as before, and no zombie", async || {
        match descriptors_and_zombies(master) {
            Ok((now, 0)) if now <= before => Ok(()),
            other => Err(format!("{before} before, now {other:?}")),
        }
    })
    .await?;
    cluster.stop().await
}
