//! The program of the nodes in a person's hands: what it prints, and one node beside a running cluster.

use std::process::Stdio;

use anyhow::{Context, Result};
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::{Fixture, free_port};
use tests::terminal::Shown;
use tests::wait;
use tokio::process::Command;

#[tokio::test]
async fn a_reader_that_has_read_enough_is_no_failure() -> Result<()> {
    for arguments in [&["--apps"][..], &["--check-apps", "config.json"]] {
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.args(arguments).current_dir(bins::root()).stdin(Stdio::null()).stderr(Stdio::piped());
        // A pipe that nobody reads from, as behind `| head -1` when that has left.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = command.stdout(writer).spawn()?.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {:?} {said}", output.status);
    }
    Ok(())
}

#[tokio::test]
async fn a_program_of_three_lines_says_its_own_name_and_has_the_allocator() -> Result<()> {
    for name in ["appmain", "testnode", "linesnode"] {
        let mut command = Command::new(bins::folder()?.join(name));
        let output = command.arg("--version").env("MIMALLOC_VERBOSE", "1").output().await?;
        // Behind it a release has its commit and the time of its build.
        let version = format!("{name} (ffserver {}", env!("CARGO_PKG_VERSION"));
        let told = String::from_utf8(output.stdout)?;
        assert!(told.starts_with(&version) && told.ends_with(")\n"), "{told}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("mimalloc: "), "{name} allocates otherwise: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_net_node_by_hand_without_a_master_says_what_it_waits_for() -> Result<()> {
    let (fixture, folder) = (Fixture::solo("")?, tempfile::tempdir()?);
    let config = folder.path().join("config.json");
    std::fs::write(&config, &fixture.text)?;
    let mut command = Command::new(bins::folder()?.join(bins::node_program(&fixture.text)));
    command.arg("net").arg(&config).env("FF_RUN_DIR", folder.path());
    let mut shown = Shown::in_pipe(command)?;
    let master = fixture.at("master").port();
    let wanted = format!("net takes no clients yet: its number comes from the master at localhost:{master}");
    shown.until_shown(&wanted).await?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    Ok(())
}

#[tokio::test]
async fn a_node_by_hand_says_which_app_or_node_was_meant_and_who_has_its_port() -> Result<()> {
    let (fixture, folder) = (Fixture::demo()?, tempfile::tempdir()?);
    let config = folder.path().join("config.json");
    let said = async |text: &str, arguments: &[&str]| {
        std::fs::write(&config, text)?;
        let mut command = Command::new(bins::folder()?.join("appmain"));
        command.args(arguments).arg(&config).env("FF_RUN_DIR", folder.path()).kill_on_drop(true);
        let output = tokio::time::timeout(wait::PATIENCE, command.output()).await??;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        anyhow::Ok(String::from_utf8(output.stderr)?)
    };
    let wrong = fixture.text.replace("app.netserver", "netsrever");
    let app = said(&wrong, &["net"]).await?;
    let told = "servers.net.app: there is no app `netsrever`; the program has `netserver`, `gateserver`, ";
    assert!(app.starts_with(told) && app.ends_with("; did you mean `netserver`?\n"), "{app}");
    let node = said(&fixture.text, &["gaet"]).await?;
    assert_eq!(node, "servers has no `gaet`; it has: `gate`, `net`, `game1`; did you mean `gate`?\n");

    // Whoever is there is named, once, of a node by itself and of all in one process, for each kind of port.
    let text =
        fixture.text.replace("\"netport\": ", &format!("\"webport\": {}, \"netport\": ", free_port()?));
    let web =
        text.split("\"webport\": ").nth(2).and_then(|rest| rest.split(',').next()).context("no port")?;
    let web = std::net::SocketAddr::from(([127, 0, 0, 1], web.parse()?));
    let pid = std::process::id();
    for (node, key, at) in [
        ("gate", "gate.rootport", fixture.at("gate")),
        ("net", "net.netport", fixture.at("net")),
        ("net", "net.webport", web),
    ] {
        let _holder = std::net::TcpListener::bind(at)?;
        for arguments in [&[node][..], &["--all"]] {
            let port = said(&text, arguments).await?;
            let (begin, end) = (
                format!("servers.{key}: cannot listen on {at}: `"),
                format!("(pid {pid}) is there already\n"),
            );
            assert!(port.starts_with(&begin) && port.ends_with(&end) && port.lines().count() == 1, "{port}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_node_of_a_running_cluster_runs_by_hand_in_its_place() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    let mut command = Command::new(bins::folder()?.join("appmain"));
    command.arg("game1").arg(cluster.folder().join("config.json")).env("FF_RUN_DIR", cluster.run_dir());
    let mut shown = Shown::in_pipe(command)?;
    shown.until_shown("game1 is ready").await?;
    cluster.until_answered(300).await?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    cluster.stop().await
}

#[tokio::test]
async fn the_log_says_connected_at_connect_and_logged_in_with_the_user_at_login() -> Result<()> {
    let cluster = Cluster::processes(Fixture::login("\"command\": 100")?).await?;
    let mut client = cluster.client().await?;
    cluster.until_logged("client connected session=").await?;
    assert!(!cluster.log().contains("logged in"), "{}", cluster.log());
    client.call(100, b"ann").await?;
    cluster.until_logged("client logged in session=").await?;
    let log = cluster.log();
    let line = log.lines().find(|line| line.contains("client logged in")).context("no line")?;
    assert!(line.contains("user=\"ann\""), "{line}");
    cluster.stop().await
}

#[tokio::test]
async fn the_start_names_a_test_client_that_is_there() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    cluster.until_logged("a client  ").await?;
    let log = cluster.log();
    let hint = log.lines().find_map(|line| Some(line.split_once("a client  ")?.1)).context("no hint")?;
    let mut words = hint.split(' ');
    let output = Command::new(words.next().context("no program")?).args(words).output().await?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("game1Handle completed"), "{hint}: {output:?}");
    cluster.stop().await
}
