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
fn check_finds_every_app_that_does_not_fit_its_node_and_connects_to_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Nobody answers at the database, and nobody tries.
    let config = r#"{
  "db": { "url": "mysql://game:pw@127.0.0.1:1/game" },
  "master": { "rootport": 9999, "webport": 9998 },
  "servers": {
    "net":  { "netport": 10001, "app": "app.netserver" },
    "game": { "count": 2, "app": "accounts", "db": false },
    "lone": { "app": "app.game1server" }
  }
}"#;
    let (output, text) = master(&folder, config, &["--check"])?;
    assert_eq!(output.status.code(), Some(78), "{text}");
    let faults = [
        ("5:40: servers.net.app: ", "needs the parent `gate`, which is not in the node's remoteport"),
        ("6:34: servers.game.app: ", "but the node's config has no \"db\": true"),
    ];
    let last = text.lines().last().unwrap_or_default();
    for (place, fault) in faults {
        let (line, path) = place.trim_end_matches(": ").split_once(": ").unwrap_or_default();
        assert!(
            text.lines().any(|line| line.contains(place) && line.contains(fault)),
            "{place}{fault}:\n{text}"
        );
        assert!(last.contains(&format!("{line} {path}: ")) && last.contains(fault), "the last line: {last}");
    }
    Ok(())
}

#[test]
fn check_warns_of_nodes_that_nobody_can_reach_and_of_state_that_a_reload_loses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = r#"{
  "master": { "rootport": 9999, "webport": 9998 },
  "servers": {
    "gate": { "rootport": 10000, "app": "app.gateserver" },
    "hall": { "app": "hall" },
    "solo": { "netport": 10001, "app": "trialsolo" }
  }
}"#;
    let program = tests::bins::folder()?.join(tests::bins::node_program(config)).display().to_string();
    let (output, text) = master(&folder, config, &["--check", "--appmain", &program])?;
    assert!(output.status.success(), "{text}");
    for warning in [
        "servers.gate: nobody can reach it: no node names it in a `remoteport`, and it has none itself",
        "5:22: servers.hall: nobody can reach it: it has no `remoteport`, no `netport` and no `webport`",
        "servers.hall.app: app hall has .state(…) and no .freeze(…)",
    ] {
        let said = |line: &str| line.starts_with("warning: ") && line.contains(warning);
        assert!(text.lines().any(said), "{warning}:\n{text}");
    }
    assert!(!text.contains("servers.solo"), "its clients reach it:\n{text}");
    Ok(())
}

#[test]
fn check_says_when_the_apps_cannot_be_asked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // As the program of an earlier release.
    let old = folder.path().join("appmain");
    let script = "#!/bin/sh\n[ \"$1\" = --apps ] || { echo 'unexpected argument' >&2; exit 2; }\n\
                  printf 'netserver\\ngateserver\\ngame1server\\n'\n";
    std::fs::write(&old, script)?;
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let old = old.display().to_string();
    let (output, text) = master(&folder, &Fixture::demo()?.text, &["--check", "--appmain", &old])?;
    assert!(output.status.success(), "{text}");
    let warning = "warning: whether the apps fit their nodes is not known: ";
    assert!(
        text.contains(warning) && text.contains("--check-apps: exit code 2: unexpected argument"),
        "{text}"
    );
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
