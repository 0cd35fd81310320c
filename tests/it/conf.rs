//! `conf` in the config: what handlers and hooks get of it, what is said of a wrong one, and another one over a reload.

use std::process::Command;

use anyhow::Result;
use ffproto::Incarnation;
use ffserver::{BuildError, FFServer};
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;

const CONF: &str = r#"{ "rounds": 3, "mode": { "teams": { "size": 4 } }, "maps": { "7": { "name": "fen" } }, "motto": "gl" }"#;

/// A net node with rules, on line 3: its `conf` begins in column 48.
fn with(conf: &str) -> Result<Fixture> {
    let text = r#"{ "master": { "rootport": @master, "webport": @admin },
  "servers": {
    "net": { "app": "rules",           "conf": CONF,
             "netport": @net } } }"#;
    Fixture::new(&text.replace("CONF", conf))
}

#[tokio::test]
async fn handlers_and_hooks_have_what_the_config_says_as_the_apps_type() -> Result<()> {
    let cluster = Cluster::in_process(with(CONF)?).await?;
    let mut client = cluster.client().await?;
    let (command, motto) = client.receive().await?;
    assert_eq!((command, &*motto), (2, &b"gl"[..]));
    assert_eq!(client.call(1, b"").await?, "3 rounds, teams of 4, maps: 7 fen");
    cluster.stop().await
}

fn check(fixture: &Fixture) -> Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.json");
    std::fs::write(&config, &fixture.text)?;
    let mut command = Command::new(bins::folder()?.join("master"));
    command.arg("--check").arg(&config).arg("--appmain").arg(bins::folder()?.join("testnode"));
    let output = command.output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), text))
}

#[test]
fn check_says_where_a_conf_is_wrong_and_how() -> Result<()> {
    for (conf, told) in [
        (
            CONF.replace("\"rounds\"", "\"ronds\""),
            "3:50: servers.net.conf.ronds: unknown key; did you mean `rounds`?",
        ),
        (
            CONF.replace("3", "\"three\""),
            "3:60: servers.net.conf.rounds: expected u8, found the text \"three\"",
        ),
        ("{ }".to_owned(), "3:48: servers.net.conf: the key `rounds` is missing"),
        (CONF.replace("\"name\"", "\"nom\""), "servers.net.conf.maps.7.nom: unknown key; known here: `name`"),
        (
            CONF.replace("teams", "team"),
            "servers.net.conf.mode.team: expected one of `duel`, `teams`, found the text \"team\"; did you mean `teams`?",
        ),
    ] {
        let (code, text) = check(&with(&conf)?)?;
        assert_eq!(code, Some(78), "{text}");
        assert!(text.lines().any(|line| line.contains(told)), "{told}:\n{text}");
    }
    let none = with(CONF)?.replace(&format!("\"conf\": {CONF},"), "");
    let (code, text) = check(&none)?;
    assert_eq!(code, Some(78), "{text}");
    let told = "3:5: servers.net.conf: the key `rounds` is missing: the node has no `conf`";
    assert!(text.lines().any(|line| line.contains(told)), "{told}:\n{text}");
    Ok(())
}

#[test]
fn a_conf_that_no_type_of_the_app_reads_is_a_warning() -> Result<()> {
    let (code, text) = check(&with(CONF)?.replace("\"rules\"", "\"trialsolo\""))?;
    assert_eq!(code, Some(0), "{text}");
    let told = "3:52: servers.net.conf: app trialsolo has no .conf::<T>(), so no type of it reads this";
    assert!(text.lines().any(|line| line.starts_with("warning: ") && line.contains(told)), "{told}:\n{text}");
    Ok(())
}

#[test]
fn a_handler_that_takes_a_conf_that_its_app_does_not_name_keeps_the_node_from_starting() -> Result<()> {
    let config = ffconfig::parse(&with(CONF)?.text, "/test/config.json".as_ref(), &|_| None)?.cluster;
    let built = FFServer::new(&config, "net", vec![testapps::rules_without_conf()], Incarnation(1));
    let Err(BuildError::Faults { faults, conf: None, .. }) = built else { panic!("it is built") };
    assert!(faults.len() == 1 && faults[0].contains("add .conf::<Rules>() to it"), "{faults:?}");
    Ok(())
}

#[tokio::test]
async fn another_conf_comes_with_the_new_process_of_a_reload_and_a_wrong_one_is_refused_before_it()
-> Result<()> {
    let fixture = with(CONF)?.replace(r#", "motto": "gl""#, "");
    let mut cluster = Cluster::processes(fixture.clone()).await?;
    let mut client = cluster.client().await?;
    assert_eq!(client.call(1, b"").await?, "3 rounds, teams of 4, maps: 7 fen");

    cluster.configure(fixture.clone().replace("\"rounds\": 3", "\"rounds\": 5"))?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    assert_eq!(client.call(1, b"").await?, "5 rounds, teams of 4, maps: 7 fen");

    cluster.configure(fixture.replace("\"rounds\": 3", "\"rounds\": 999"))?;
    let refused = cluster.admin("POST", "/reload").await?;
    assert_eq!(refused.status, 409, "{refused:?}");
    let why = refused.json()?["faults"].to_string();
    let told = "config.json:3:60: servers.net.conf.rounds: expected u8, found the number 999";
    assert!(why.contains(told), "{why}");
    assert_eq!(client.call(1, b"").await?, "5 rounds, teams of 4, maps: 7 fen");
    cluster.stop().await
}

#[tokio::test]
async fn a_reload_to_apps_that_do_not_fit_their_nodes_is_refused_with_all_of_them_and_touches_nothing()
-> Result<()> {
    let text = r#"{ "master": { "rootport": @master, "webport": @admin }, "servers": {
    "hall": { "app": "rules", "rootport": @hall, "conf": { "rounds": 3 } },
    "net": { "app": "rules", "netport": @net, "conf": { "rounds": 3 } } } }"#;
    let fixture = Fixture::new(text)?;
    let mut cluster = Cluster::processes(fixture.clone()).await?;
    let before = cluster.pids().await?;
    let wrong = |fixture: Fixture| fixture.replace("\"rounds\": 3", "\"rounds\": \"three\"");
    cluster.configure(wrong(wrong(fixture)))?;
    // Also for one node: the config is one.
    for path in ["/reload", "/nodes/net/reload"] {
        let refused = cluster.admin("POST", path).await?;
        assert_eq!(refused.status, 409, "{refused:?}");
        let answer = refused.json()?;
        let faults = answer["faults"].to_string();
        for node in ["hall", "net"] {
            let told = format!("servers.{node}.conf.rounds: expected u8, found the text");
            assert!(faults.contains(&told), "{faults}");
        }
        assert!(answer["error"].to_string().contains("2 faults in "), "{answer}");
    }
    assert_eq!(cluster.pids().await?, before);
    cluster.stop().await
}

#[tokio::test]
async fn a_program_of_a_release_that_cannot_check_its_apps_is_reloaded_without_that() -> Result<()> {
    let old = r#"[ "$1" = --check-apps ] && { echo "unexpected argument" >&2; exit 2; }"#;
    let cluster = Cluster::scripted(with(CONF)?, old).await?;
    assert_eq!(cluster.admin("POST", "/reload").await?.status, 200);
    cluster.until_logged("whether the apps fit their nodes is not known: ").await?;
    cluster.stop().await
}
