//! A cluster that cannot start says why in one line and leaves nothing behind.

use std::process::{Command, Output};

use anyhow::Result;
use tempfile::TempDir;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::{Fixture, free_port};

fn master(folder: &TempDir, config: &str, arguments: &[&str]) -> Result<(Output, String)> {
    let path = folder.path().join("config.json");
    std::fs::write(&path, config)?;
    let output = Command::new(bins::folder()?.join("master")).args(arguments).arg(&path).output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output, text))
}

#[test]
fn check_reports_all_eight_faults_of_one_config_and_starts_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = r#"{
  "master": { "rootport": "0.0.0.0:9999", "webport": 70000 },
  "servers": {
    "gate":  { "rootport": 10000, "app": "gatesrever" },
    "net":   { "netprot": 10001, "remoteport": [{ "rootname": "gaet", "rootport": 10000 }], "app": "netserver" },
    "game1": { "remoteport": [{ "rootname": "gate", "rootport": 10009 }], "app": "game1server", "threads": "two" },
    "game2": { "netport": 10000, "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#;
    let (output, text) = master(&folder, config, &["--check"])?;
    assert!(!output.status.success());
    for fault in [
        "2:27: master.rootport",
        "2:54: master.webport",
        "4:42: servers.gate.app",
        "5:16: servers.net.netprot",
        "5:63: servers.net.remoteport[0].rootname",
        "6:65: servers.game1.remoteport[0].rootport",
        "6:108: servers.game1.threads",
        "7:27: servers.game2.netport",
    ] {
        assert!(text.contains(fault), "{fault} is missing in:\n{text}");
    }
    assert!(text.contains("did you mean `netport`?") && text.contains("did you mean `gate`?"), "{text}");
    let (output, same) = master(&folder, config, &[])?;
    assert!(!output.status.success());
    assert!(same.contains("servers.net.netprot"), "the same text on start:\n{same}");
    Ok(())
}

#[test]
fn a_good_config_passes_the_check_with_exit_code_0() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (output, text) = master(&folder, &Fixture::demo()?.text, &["--check"])?;
    assert!(output.status.success(), "{text}");
    Ok(())
}

#[test]
fn an_unreadable_config_is_one_clear_line() -> Result<()> {
    let output = Command::new(bins::folder()?.join("master")).arg("/nowhere/config.json").output()?;
    let text = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert!(text.contains("/nowhere/config.json"), "{text}");
    Ok(())
}

#[test]
fn a_busy_port_is_named_with_its_key_and_who_holds_it() -> Result<()> {
    let fixture = Fixture::demo()?;
    let _holder = std::net::TcpListener::bind(fixture.at("net"))?;
    let folder = tempfile::tempdir()?;
    let (output, text) = master(&folder, &fixture.text, &[])?;
    assert!(!output.status.success());
    assert!(text.contains("servers.net.netport"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "the holder's pid is not named:\n{text}");
    Ok(())
}

#[test]
fn a_missing_appmain_is_one_clear_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let alone = folder.path().join("master");
    std::fs::copy(bins::folder()?.join("master"), &alone)?;
    let config = folder.path().join("config.json");
    std::fs::write(&config, Fixture::demo()?.text)?;
    let output = Command::new(alone).arg(&config).output()?;
    let text = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert!(text.contains("appmain") && text.contains("cargo build"), "{text}");
    Ok(())
}

async fn does_not_start(fixture: Fixture, naming: &[&str]) -> Result<()> {
    let mut cluster = Cluster::launch(fixture)?;
    let code = cluster.exit_code().await?;
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let log = cluster.log();
    assert!(
        log.lines().any(|line| naming.iter().all(|part| line.contains(part))),
        "{naming:?} in one line of:\n{log}"
    );
    cluster.nothing_left(&[])
}

#[tokio::test]
async fn an_unreachable_database_stops_the_start_and_names_the_key() -> Result<()> {
    let nobody = free_port()?;
    let db = format!("{{\n  \"db\": {{ \"url\": \"mysql://game:pw@127.0.0.1:{nobody}/game\" }},\n");
    let fixture = Fixture::demo()?
        .replace("{\n", &db)
        .replace("\"app\": \"app.gateserver\"", "\"app\": \"app.gateserver\", \"db\": true");
    does_not_start(fixture, &["`db.url`", &nobody.to_string()]).await
}

#[tokio::test]
async fn a_missing_memcached_stops_the_start_and_names_the_key() -> Result<()> {
    let nobody = free_port()?;
    let memcached = format!("{{\n  \"memcached\": {{ \"urls\": [\"127.0.0.1:{nobody}\"] }},\n");
    let fixture = Fixture::demo()?
        .replace("{\n", &memcached)
        .replace("\"app\": \"app.game1server\"", "\"app\": \"app.game1server\", \"mem\": true");
    does_not_start(fixture, &["memcached.urls", &nobody.to_string()]).await
}
