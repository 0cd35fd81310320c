//! What a person sees in a terminal, and what a pipe and a log file get of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;
use tests::bins;
use tests::fixtures::Fixture;
use tests::terminal::Shown;
use tokio::process::Command;

const GREEN_INFO: &str = "\x1b[32mINFO\x1b[0m ";

/// A folder with the demo's config, in which the master and `game1` have log files.
fn demo() -> Result<TempDir> {
    let fixture = Fixture::demo()?
        .replace("\"master\": {", "\"master\": { \"log\": \"master.log\",")
        .replace("\"game1\": {", "\"game1\": { \"log\": \"game1.log\",");
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config.json"), fixture.text)?;
    Ok(folder)
}

fn program(name: &str, arguments: &[&str], folder: &Path) -> Result<Command> {
    let mut command = Command::new(bins::folder()?.join(name));
    command.args(arguments).arg("config.json").current_dir(folder);
    command.env("FF_RUN_DIR", folder.join("run")).env("TERM", "xterm").env_remove("NO_COLOR");
    Ok(command)
}

/// The demo is up in there; it is stopped again. What it has shown.
async fn shown_by(mut shown: Shown, last: &str) -> Result<String> {
    shown.until_shown(last).await?;
    assert_eq!(shown.stop().await?, Some(0), "{}", shown.text());
    Ok(shown.text())
}

#[tokio::test]
async fn a_cluster_in_a_terminal_is_coloured_by_level_and_its_log_files_are_not() -> Result<()> {
    let folder = demo()?;
    let shown = Shown::in_terminal(program("master", &[], folder.path())?)?;
    let text = shown_by(shown, "cluster is up").await?;
    let has = |of: &str, what: &str| text.lines().any(|line| line.contains(of) && line.contains(what));
    assert!(has("cluster is up", GREEN_INFO), "the master's lines: {text}");
    assert!(has("game1 |", &format!("{GREEN_INFO}game1 is ready")), "the nodes' lines: {text}");
    for file in ["master.log", "game1.log"] {
        let log = std::fs::read_to_string(folder.path().join(file))?;
        assert!(log.contains(" INFO ") && !log.contains('\x1b'), "{file}: {log:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_has_colours_where_they_are_wanted_and_only_there() -> Result<()> {
    let folder = demo()?;
    let run = async |terminal: bool, arguments: &[&str], no_color: &str| {
        let mut command = program("master", arguments, folder.path())?;
        command.env("NO_COLOR", no_color);
        let shown = if terminal { Shown::in_terminal(command) } else { Shown::in_pipe(command) };
        shown_by(shown?, "cluster is up").await
    };
    let no_color = run(true, &[], "1").await?;
    assert!(!no_color.contains('\x1b'), "{no_color:?}");
    let never = run(true, &["--color", "never"], "").await?;
    assert!(!never.contains('\x1b'), "{never:?}");
    let pipe = run(false, &[], "").await?;
    assert!(!pipe.contains('\x1b'), "{pipe:?}");
    let always = run(false, &["--color", "always"], "1").await?;
    assert!(always.contains(GREEN_INFO), "{always:?}");
    Ok(())
}

#[tokio::test]
async fn every_node_in_one_process_is_coloured_in_a_terminal_as_well() -> Result<()> {
    let folder = demo()?;
    let shown = Shown::in_terminal(program("appmain", &["--all"], folder.path())?)?;
    let text = shown_by(shown, "net is ready").await?;
    assert!(text.contains(GREEN_INFO), "{text:?}");
    let log = std::fs::read_to_string(folder.path().join("master.log"))?;
    assert!(log.contains("net is ready") && !log.contains('\x1b'), "{log:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_node_prints_does_not_command_the_terminal() -> Result<()> {
    let (folder, real) = (demo()?, bins::folder()?.join("appmain"));
    let script = folder.path().join("appmain");
    let hostile = r"[ $# = 1 ] || printf '\033]0;owned\007\033[2Jcleared\n'";
    std::fs::write(&script, format!("#!/bin/sh\n{hostile}\nexec {} \"$@\"\n", real.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let mut command = program("master", &[], folder.path())?;
    command.env("FF_APPMAIN", &script);
    let text = shown_by(Shown::in_terminal(command)?, "cluster is up").await?;
    assert!(text.contains(r"\x1b]0;owned\x07\x1b[2Jcleared"), "{text:?}");
    assert!(!text.contains("\x1b]0;") && !text.contains("\x1b[2J"), "{text:?}");
    Ok(())
}
