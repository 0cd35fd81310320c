//! `master dev` with a cargo that only says what a real one would: what the pages of a game are told, and what is missing of a
//! toolchain. The real one, with a game that is built, is `.ci/own-game`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as StdCommand;

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::bins;
use tests::client::Client;
use tests::fixtures::Fixture;
use tests::http;
use tests::terminal::Shown;
use tests::wait;
use tokio::process::Command;

fn script(folder: &Path, name: &str, body: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// A game whose build says what stands in `broken.json`, and works when there is no such file.
struct Game {
    folder: TempDir,
    fixture: Fixture,
}

impl Game {
    fn new() -> Result<Self> {
        let (folder, fixture) = (
            tempfile::tempdir()?,
            Fixture::trial()?.replace("\"limits\": {", "\"limits\": { \"prove_ms\": 0,"),
        );
        std::fs::create_dir(folder.path().join("src"))?;
        script(
            folder.path(),
            "cargo",
            r#"[ "$1" = --version ] && exec echo cargo 1.999.0
[ "$1" = metadata ] && { echo "error: no such key" >&2; exit 101; }
[ -e broken.json ] && { cat broken.json; exit 101; }
exit 0"#,
        )?;
        let game = Self { folder, fixture };
        game.write("Cargo.toml", "")?;
        game.write("config.json", &game.fixture.text)?;
        Ok(game)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join(file), text)?)
    }

    fn dev(&self) -> Result<Shown> {
        let mut command = Command::new(bins::folder()?.join("master"));
        command.args(["dev", "config.json"]).current_dir(self.folder.path());
        command
            .env("CARGO", self.folder.path().join("cargo"))
            .env("FF_RUN_DIR", self.folder.path().join("target"));
        command.env("FF_APPMAIN", bins::folder()?.join("testnode"));
        Shown::in_pipe(command)
    }

    /// What the pages of the game are told now.
    async fn notice(&self) -> Result<Value> {
        http::request(self.fixture.at("web"), "GET", "/ff-dev/notice", &[]).await?.json()
    }

    async fn until_told(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, async || match self.notice().await {
            Ok(notice) if is(&notice) => Ok(notice),
            Ok(notice) => Err(notice.to_string()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_game_is_told_to_its_pages_until_it_is_mended_and_players_stay() -> Result<()> {
    let game = Game::new()?;
    let mut dev = game.dev()?;
    dev.until_shown("the cluster is up").await?;
    let mut player = Client::connect(game.fixture.at("net")).await?;
    let first = game.until_told("nothing is wrong", |notice| notice["title"] == "").await?;

    // The compiler's errors, as text.
    let rendered = r"\u001b[1m\u001b[91merror\u001b[0m: expected `<b>`\n --> src/room.rs:7:9\n";
    let message =
        format!(r#"{{"message":{{"rendered":"{rendered}","level":"error","message":"expected"}}}}"#);
    game.write("broken.json", &(message + "\n"))?;
    let told = game.until_told("the error", |notice| notice["doing"] == "" && notice["title"] != "").await?;
    assert_eq!(told["title"], "The game does not build", "{told}");
    assert_eq!(told["text"], "error: expected `<b>`\n --> src/room.rs:7:9\n", "{told}");
    ensure!(dev.text().contains("\nerror: expected `<b>`\n"), "{}", dev.text());
    // What is no error of the compiler is cargo's own.
    game.write("broken.json", "")?;
    game.until_told("cargo's error", |notice| notice["text"] == "error: no such key\n").await?;
    std::fs::remove_file(game.folder.path().join("broken.json"))?;
    game.until_told("it is mended", |notice| notice["title"] == "" && notice["doing"] == "").await?;

    // A config that has a fault is not taken, and one without is.
    game.write("config.json", &game.fixture.text.replace("\"netport\"", "\"netprot\""))?;
    let told = game.until_told("the fault", |notice| notice["title"] == "The change is not live").await?;
    ensure!(told["text"].to_string().contains("netprot: unknown key; did you mean `netport`?"), "{told}");
    dev.until_shown("the change is not live, what ran before serves on").await?;
    game.write("config.json", &game.fixture.text)?;
    game.until_told("it is mended", |notice| notice["title"] == "" && notice["doing"] == "").await?;

    // What browsers have loaded is new after the reload.
    assert_eq!(game.notice().await?["page"], first["page"]);
    game.write("page.html", "new")?;
    game.until_told("another page", |notice| notice["page"] != first["page"]).await?;
    assert_eq!(player.call(1, b"still here").await?, "still here");
    assert_eq!(dev.stop().await?, Some(0), "{}", dev.text());
    let left = std::fs::read_dir(game.folder.path().join("target"))?.flatten();
    let left: Vec<_> = left.flat_map(|folder| std::fs::read_dir(folder.path())).flatten().flatten().collect();
    ensure!(left.iter().all(|file| !file.file_name().to_string_lossy().starts_with("dev-")), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_is_started_without_dev_has_nothing_of_it_on_its_web_ports() -> Result<()> {
    let cluster = tests::cluster::Cluster::processes(Fixture::trial()?).await?;
    for path in ["/ff-dev/notice", "/ff-dev/page.js"] {
        assert_eq!(http::request(cluster.at("web"), "GET", path, &[]).await?.status, 404, "{path}");
    }
    cluster.stop().await
}

/// What `master` says where only these programs are in PATH, and its exit code.
fn said(folder: &Path, programs: &[(&str, &str)], arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let path = tempfile::tempdir()?;
    programs.iter().try_for_each(|(name, body)| script(path.path(), name, body))?;
    let mut command = StdCommand::new(bins::folder()?.join("master"));
    command.args(arguments).current_dir(folder).env("PATH", path.path()).env("FF_RUN_DIR", path.path());
    for name in ["CARGO", "RUSTC", "CC", "CARGO_HOME"] {
        command.env_remove(name);
    }
    let output = command.env("HOME", path.path()).output()?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[test]
fn a_game_is_made_where_no_toolchain_is_and_dev_says_what_is_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (code, missing) = said(folder.path(), &[], &["new", "mygame"])?;
    let game = folder.path().join("mygame");
    ensure!(code == Some(0) && game.join("Cargo.toml").is_file(), "{code:?} {missing}");
    let rust = "there is no cargo in PATH: a game is built by Rust ";
    for told in [rust, "https://sh.rustup.rs | sh", "there is no `cc` in PATH", "apt install gcc libc6-dev"] {
        ensure!(missing.contains(told), "{missing}");
    }
    let (code, missing) = said(&game, &[], &["dev"])?;
    ensure!(code == Some(1) && missing.starts_with(&format!("master: {rust}")), "{code:?} {missing}");
    let (new, cc) = (("rustc", "echo rustc 1.999.0"), ("cc", "echo /usr/lib/crt1.o"));
    let (code, old) = said(&game, &[("cargo", "echo cargo 1.63.0"), new, cc], &["dev"])?;
    ensure!(code == Some(1) && old.starts_with("master: cargo 1.63.0 is too old: "), "{code:?} {old}");
    let (code, none) = said(&game, &[("cargo", "echo cargo 1.999.0"), new], &["dev"])?;
    ensure!(code == Some(1) && none.starts_with("master: there is no `cc` in PATH"), "{code:?} {none}");
    Ok(())
}
