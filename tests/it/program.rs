//! The program that runs the nodes: who names it, what is said of one that is none, and another one over a reload.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::single::Single;

/// A folder with `NAME/appmain` for each name, which all are the real one.
fn programs(folder: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let program = folder.join(name).join("appmain");
        std::fs::create_dir(folder.join(name))?;
        std::os::unix::fs::symlink(bins::folder()?.join("appmain"), program)?;
    }
    Ok(())
}

/// A folder with the demo's config, which names that program.
fn demo(program: &str) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.json");
    std::fs::write(&config, naming(Fixture::demo()?, program).text)?;
    Ok((folder, config))
}

fn naming(fixture: Fixture, program: &str) -> Fixture {
    fixture.replace("\"master\": {", &format!("\"appmain\": \"{program}\", \"master\": {{"))
}

fn check(config: &Path, arguments: &[&str], environment: Option<&Path>) -> Result<(Output, String)> {
    let mut command = Command::new(bins::folder()?.join("master"));
    command.arg("--check").arg(config).args(arguments).env_remove("FF_APPMAIN");
    // Relative paths of the command line and the environment are of the folder in which the master is started.
    command.current_dir(config.parent().context("no folder")?);
    environment.map(|program| command.env("FF_APPMAIN", program));
    let output = command.output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output, text))
}

#[test]
fn the_config_names_the_program_and_the_environment_and_the_command_line_win_over_it() -> Result<()> {
    let (folder, config) = demo("bin/appmain")?;
    programs(folder.path(), &["bin", "env", "arg"])?;
    let at = |name: &str| folder.path().join(name).join("appmain").display().to_string();
    let env = Path::new("env/appmain");
    for (arguments, environment, told) in [
        (&[][..], None, format!("nodes run {} (named by the config's `appmain`)", at("bin"))),
        (&[], Some(env), format!("nodes run {} (named by FF_APPMAIN)", at("env"))),
        (&["--appmain", "arg/appmain"], Some(env), format!("nodes run {} (named by --appmain)", at("arg"))),
    ] {
        let (output, text) = check(&config, arguments, environment)?;
        assert!(output.status.success() && text.contains(&told), "{told}:\n{text}");
    }
    Ok(())
}

#[test]
fn a_program_that_is_not_there_or_runs_no_nodes_is_one_clear_line() -> Result<()> {
    for (program, why) in [
        ("bin/gone", "bin/gone (named by the config's `appmain`) is not there"),
        ("config.json", "config.json (named by the config's `appmain`) cannot be started: Permission denied"),
        (
            "/bin/true",
            "/bin/true (named by the config's `appmain`) does not tell its apps, as a program of `ffserver::main` does: --apps: it names no app",
        ),
    ] {
        let (_folder, config) = demo(program)?;
        let (output, text) = check(&config, &[], None)?;
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains(why), "{why}:\n{text}");
    }
    Ok(())
}

#[test]
fn an_unknown_app_is_a_fault_of_a_config_that_names_its_program_and_has_other_faults() -> Result<()> {
    let (folder, config) = demo("bin/appmain")?;
    programs(folder.path(), &["bin"])?;
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(
        &config,
        text.replace("app.netserver", "netsrever").replace("\"netport\"", "\"netprot\""),
    )?;
    let (output, text) = check(&config, &[], None)?;
    assert_eq!(output.status.code(), Some(78), "{text}");
    for fault in ["there is no app \"netsrever\"; the program has `netserver`, ", "did you mean `netport`?"] {
        assert!(text.contains(fault), "{fault}:\n{text}");
    }
    Ok(())
}

/// The program of a node's process, as it was started.
fn program_of(pid: i32) -> Result<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let program = line.split(|&byte| byte == 0).next().context("no program")?;
    Ok(String::from_utf8(program.to_vec())?.into())
}

#[tokio::test]
async fn another_program_in_the_config_runs_every_node_after_a_reload_and_clients_stay() -> Result<()> {
    let folder = tempfile::tempdir()?;
    programs(folder.path(), &["one"])?;
    let one = folder.path().join("one/appmain");
    let demo = Fixture::demo()?;
    let mut cluster = Cluster::processes(naming(demo.clone(), &one.display().to_string())).await?;
    let mut client = cluster.client().await?;
    client.call(100, b"before").await?;
    for pid in cluster.pids().await? {
        assert_eq!(program_of(pid)?, one);
    }

    // One that is not there is refused before anything is touched.
    let before = cluster.pids().await?;
    cluster.configure(naming(demo, "two/appmain"))?;
    let refused = cluster.admin("POST", "/reload").await?;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("two/appmain (named by the config's"), "{refused:?}");
    assert_eq!(cluster.pids().await?, before);

    programs(cluster.folder(), &["two"])?;
    let reloaded = cluster.admin("POST", "/reload").await?;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    let two = cluster.folder().join("two/appmain");
    for pid in cluster.pids().await? {
        assert_eq!(program_of(pid)?, two);
    }
    // One that crashes comes back by the same program.
    let old = cluster.kill_hard("gate").await?;
    cluster.until_back("gate", old).await?;
    assert_eq!(program_of(cluster.pid("gate").await?)?, two);
    client.call(100, b"after").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_single_node_runs_the_program_of_the_config_and_another_one_after_sighup() -> Result<()> {
    let folder = tempfile::tempdir()?;
    programs(folder.path(), &["one", "two"])?;
    let at = |name: &str| folder.path().join(name).join("appmain");
    let cluster = Cluster::processes(naming(Fixture::demo()?, &at("one").display().to_string())).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/stop").await?.status, 200);
    let config = cluster.folder().join("config.json");
    let single = Single::start("game1", &config)?;
    let node = cluster.until("game1", "ready again", |node| node["state"] == "ready").await?;
    let pid = i32::try_from(node["pid"].as_i64().context("no pid")?)?;
    assert_eq!(program_of(pid)?, at("one"));

    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace("one/appmain", "two/appmain"))?;
    single.signal(Signal::SIGHUP)?;
    let other = |node: &serde_json::Value| node["state"] == "ready" && node["pid"] != pid;
    let node = cluster.until("game1", "ready anew", other).await?;
    let pid = i32::try_from(node["pid"].as_i64().context("no pid")?)?;
    assert_eq!(program_of(pid)?, at("two"));
    cluster.stop_with([single]).await
}
