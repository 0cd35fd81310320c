//! The log under the hands of strangers: no line is forged, no control character passes, a flood costs little, and what was not
//! written is counted.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::logs::{nothing_acts, said, throw_garbage, without_the_apps};
use tests::wait;
use tests::websocket::WebClient;

/// What a stranger would like to see in a log.
const HOSTILE: &str = "x\r\n2026-11-30T00:00:00.000000Z ERROR forged\x1b[2J\x07\u{9b}31m";
/// The same as it may be seen.
const READABLE: &str = r"x\r\n2026-11-30T00:00:00.000000Z ERROR forged\x1b[2J\x07\x9b31m";

/// Connections to each port.
const CONNECTIONS: usize = 2_000;
/// What a process may write of them.
const BYTES_MAX: usize = 60_000;

/// The cluster of trials, in which everybody has a log file.
fn fixture() -> Result<Fixture> {
    let fixture = Fixture::trial()?
        .replace(r#""master": {"#, r#""master": { "log": "own.log","#)
        .replace(r#""app": "trialgate""#, r#""app": "trialgate", "log": "gate.log""#);
    Ok(fixture.replace(r#""app": "trialnet""#, r#""app": "trialnet", "log": "net.log""#))
}

/// The logs of a cluster that is stopped: of its master, `gate` and `net`, and what the master has shown.
struct Logs {
    own: String,
    gate: String,
    net: String,
    shown: String,
}

async fn logs(cluster: Cluster) -> Result<Logs> {
    let folder = cluster.stop_and_keep().await?.context("no folder")?;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).context(name.to_owned());
    Ok(Logs {
        own: read("own.log")?,
        gate: read("gate.log")?,
        net: read("net.log")?,
        shown: read("master.log")?,
    })
}

impl Logs {
    fn nothing_acts(&self) -> Result<()> {
        let Self { own, gate, net, shown } = self;
        for (what, text) in [("the master's", own), ("gate's", gate), ("net's", net), ("shown", shown)] {
            nothing_acts(what, text)?;
            let begins = |line: &&str| {
                line.rsplit("| ").next().is_some_and(|line| line.starts_with("2026-11-30T00:00"))
            };
            let forged = text.lines().find(begins);
            ensure!(forged.is_none(), "{what}: {forged:?}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_others_say_makes_no_second_line_and_no_control_character_in_any_log() -> Result<()> {
    let cluster = Cluster::processes(fixture()?).await?;
    cluster.until_answered(1).await?;
    let mut browser = WebClient::connect(cluster.at("net")).await?;
    for message in [json!({"command": 2, "body": HOSTILE}), json!({"command": 4, "body": HOSTILE})] {
        browser.call_json(&message).await?;
    }
    browser.send_json(&json!({"command": 1, HOSTILE: 1})).await?;
    browser.closed().await?;
    for port in ["net", "gate", "master", "web", "admin"] {
        throw_garbage(cluster.at(port), 10).await?;
    }
    cluster.until_answered(1).await?;
    let logs = logs(cluster).await?;
    logs.nothing_acts()?;
    let seen = |text: &str, of: &str| text.lines().any(|line| line.contains(of) && line.contains(READABLE));
    for text in [&logs.net, &logs.shown] {
        ensure!(seen(text, "handler panics"), "no panic as a handler's error: {text}");
        ensure!(seen(text, "handler fails"), "no error: {text}");
        ensure!(seen(text, "client logged out"), "no unknown key: {text}");
    }
    // It is told once, with its place, and not by Rust as well.
    ensure!(seen(&logs.shown, "the handler panicked: tests/apps/src/trial.rs:"), "no place: {}", logs.shown);
    ensure!(!logs.shown.contains("thread '"), "told twice: {}", logs.shown);
    Ok(())
}

#[tokio::test]
async fn a_flood_of_garbage_writes_little_its_counts_add_up_and_a_warning_in_between_is_there() -> Result<()>
{
    let cluster = Cluster::processes(fixture()?).await?;
    cluster.until_answered(1).await?;
    let ports = ["net", "gate", "master", "web", "admin"].map(|port| cluster.at(port));
    let flood = async {
        let [net, gate, master, web, admin] = ports;
        tokio::try_join!(
            throw_garbage(net, CONNECTIONS),
            throw_garbage(gate, CONNECTIONS),
            throw_garbage(master, CONNECTIONS),
            throw_garbage(web, CONNECTIONS),
            throw_garbage(admin, CONNECTIONS),
        )
    };
    let warn = async {
        let mut client = cluster.client().await?;
        client.call_error(4, b"in between").await
    };
    tokio::try_join!(flood, warn)?;
    cluster.until_answered(1).await?;
    let logs = logs(cluster).await?;
    logs.nothing_acts()?;
    for (what, text) in [("the master's", &logs.own), ("gate's", &logs.gate), ("net's", &logs.net)] {
        let text = without_the_apps(text);
        ensure!(text.len() < BYTES_MAX, "{what} has {} bytes: {text}", text.len());
    }
    let shown = without_the_apps(&logs.shown);
    ensure!(shown.len() < 3 * BYTES_MAX, "{} bytes are shown: {shown}", shown.len());
    for text in [&logs.net, &logs.shown] {
        ensure!(text.contains("handler fails: in between: for the log only"), "{text}");
    }
    let (came, left) = (said(&logs.net, "client connected")?, said(&logs.net, "client logged out")?);
    ensure!(came > CONNECTIONS as u64 && came == left, "{came} came, {left} left: {}", logs.net);
    let (children, nodes) = (said(&logs.gate, "no child: ")?, said(&logs.own, "no node registered: ")?);
    // Who finds no place is closed and counted elsewhere; garbage that is closed at once seldom has to wait for one.
    ensure!(children > CONNECTIONS as u64 / 2, "{children}: {}", logs.gate);
    ensure!(nodes > CONNECTIONS as u64 / 2, "{nodes}: {}", logs.own);
    Ok(())
}

/// The demo, in which every node has a log file: `gate`'s is of JSON, `net`'s has no calls of command 300.
fn demo() -> Result<Fixture> {
    let log = |file: &str, more: &str| format!(r#""log": {{ "file": "logs/{file}.log"{more} }}, "#);
    let fixture = Fixture::demo()?
        .replace(
            r#""app": "app.gateserver""#,
            &(log("gate", r#", "json": true"#) + r#""app": "app.gateserver""#),
        )
        .replace(r#""app": "app.game1server""#, &(log("game1", "") + r#""app": "app.game1server""#));
    let net = log("net", r#", "errors": "logs/errors.log", "quiet_commands": [300]"#);
    Ok(fixture.replace(r#""app": "app.netserver""#, &(net + r#""app": "app.netserver""#)))
}

async fn until_written(path: &Path, text: &str) -> Result<String> {
    wait::until(&format!("`{text}` in {}", path.display()), async || {
        let log = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        if log.contains(text) { Ok(log) } else { Err(log) }
    })
    .await
}

/// The value of `field` in the line of a text that has `what`.
fn field(log: &str, what: &str, field: &str) -> Result<String> {
    let line = log.lines().find(|line| line.contains(what)).with_context(|| format!("no {what}: {log}"))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    Ok(value.with_context(|| format!("no {field}: {line}"))?.to_owned())
}

#[tokio::test]
async fn lines_of_a_request_have_its_session_and_command_at_every_node_as_text_and_as_json() -> Result<()> {
    let cluster = Cluster::processes(demo()?).await?;
    cluster.until_answered(300).await?;
    cluster.until_answered(100).await?;
    let folder = cluster.stop_and_keep().await?.context("no folder")?;
    let read = |name: &str| std::fs::read_to_string(folder.path().join("logs").join(name));
    let (net, gate, game) = (read("net.log")?, read("gate.log")?, read("game1.log")?);
    let session = field(&net, "netHandle_300: ", "session")?;
    assert_eq!(field(&net, "netHandle_300: ", "command")?, "300");
    assert_eq!(field(&game, "INFO game1Handle: ", "session")?, session);
    assert_eq!(field(&game, "INFO game1Handle: ", "command")?, "300");
    let lines: Vec<Value> = gate.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_gate = |what: &str| {
        let says =
            |line: &&Value| line["fields"]["message"].as_str().is_some_and(|text| text.starts_with(what));
        lines.iter().find(says).with_context(|| format!("no {what}: {gate}"))
    };
    let line = of_gate("gateHandle2: ")?;
    assert_eq!((line["fields"]["session"].as_str(), line["node"].as_str()), (Some(&*session), Some("gate")));
    assert_eq!(line["fields"]["command"], "300");
    // What a config wants quiet is quiet, at that node alone.
    ensure!(net.contains("call command 100: ") && !net.contains("call command 300"), "{net}");
    of_gate("call method gate_handle_2")?;
    // The file of errors has none of that.
    ensure!(!read("errors.log")?.contains(" INFO "), "{}", read("errors.log")?);
    for name in ["net.log", "gate.log", "game1.log", "errors.log", "."] {
        let mode = std::fs::metadata(folder.path().join("logs").join(name))?.permissions().mode() & 0o777;
        assert_eq!(mode, if name == "." { 0o700 } else { 0o600 }, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn files_that_are_moved_are_opened_again_on_sigusr1_by_the_master_and_all_of_its_nodes() -> Result<()> {
    let cluster = Cluster::processes(demo()?).await?;
    let pids = cluster.pids().await?;
    let logs = cluster.folder().join("logs");
    for round in 0..2 {
        cluster.until_answered(100).await?;
        let (at, moved) = (logs.join("net.log"), logs.join(format!("net.{round}")));
        std::fs::rename(&at, &moved)?;
        if round == 0 {
            cluster.signal_master(Signal::SIGUSR1)?;
            cluster.until_logged("the log files are opened again, also those of 3 nodes").await?;
        } else {
            cluster.signal("net", Signal::SIGUSR1).await?;
        }
        // Without a line to write, too.
        wait::until("the file is there again", async || if at.exists() { Ok(()) } else { Err("it is not") })
            .await?;
        ensure!(
            std::fs::read_to_string(&moved)?.contains("call command 100: "),
            "nothing in {}",
            moved.display()
        );
    }
    cluster.until_answered(100).await?;
    until_written(&logs.join("net.log"), "call command 100: ").await?;
    assert_eq!(cluster.pids().await?, pids, "nobody takes the signal for its end");
    cluster.stop().await
}

#[tokio::test]
async fn levels_change_at_run_time_by_node_and_wrong_ones_are_refused() -> Result<()> {
    let cluster = Cluster::processes(fixture()?).await?;
    cluster.until_answered(1).await?;
    let net = cluster.folder().join("net.log");
    let level = async |path: &str| anyhow::Ok(cluster.admin("POST", path).await?.status);
    assert_eq!(level("/nodes/net/log?level=ffhttp=loud").await?, 422);
    assert_eq!(level("/nodes/nobody/log?level=debug").await?, 404);
    assert_eq!(level("/log?level=loud").await?, 422);
    assert_eq!(level("/nodes/net/log?level=ffhttp=debug").await?, 200);
    until_written(&net, ",ffhttp=debug from now on").await?;
    throw_garbage(cluster.at("web"), 10).await?;
    until_written(&net, "DEBUG webport: a connection broke").await?;
    assert_eq!(level("/nodes/net/log?level=").await?, 200);
    assert_eq!(level("/log?level=warn").await?, 200);
    let before = until_written(&net, "sqlx=warn from now on").await?;
    throw_garbage(cluster.at("web"), 10).await?;
    cluster.until_answered(1).await?;
    let logs = logs(cluster).await?;
    let later = logs.net.strip_prefix(&before).context("it was begun anew")?;
    ensure!(!later.contains("DEBUG webport: a connection broke"), "{later}");
    // The master's own has changed as well: it is quiet about its end.
    ensure!(!logs.own.contains("the cluster has stopped"), "{}", logs.own);
    Ok(())
}
