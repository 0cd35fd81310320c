//! The operator's command: `master status`, `reload` and the like, against a running master, in pipes and in terminals.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::bins;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::terminal::Shown;
use tests::tmux::Tmux;
use tests::wait;
use tokio::process::Command;

fn command(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(bins::folder()?.join("master"));
    command.args(arguments).current_dir(folder).env("FF_RUN_DIR", folder.join("run")).env("TERM", "xterm");
    for name in ["NO_COLOR", "FF_CONFIG", "FF_OPERATOR_TOKEN"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// What the command prints, says on standard error, and its exit code, in the folder of the cluster's config.
async fn ask(cluster: &Cluster, arguments: &[&str]) -> Result<(String, String, Option<i32>)> {
    let Output { status, stdout, stderr } = command(cluster.folder(), arguments)?.output().await?;
    Ok((String::from_utf8(stdout)?, String::from_utf8(stderr)?, status.code()))
}

/// The same of a command that is done.
async fn done(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let (out, err, code) = ask(cluster, arguments).await?;
    ensure!(code == Some(0) && err.is_empty(), "{arguments:?}: exit code {code:?}\n{out}\n{err}");
    Ok(out)
}

#[tokio::test]
async fn an_operator_finds_the_master_by_the_config_and_commands_it() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let status = done(&cluster, &["status"]).await?;
    let lines: Vec<&str> = status.lines().collect();
    assert!(lines[0].ends_with("is up · 3 of 3 nodes ready · 0 sessions"), "{status}");
    assert!(lines[1].starts_with("NODE ") && lines.len() == 5, "{status}");
    assert!(!status.contains('\x1b'), "no colours in a pipe: {status:?}");
    let json: Value = serde_json::from_str(&done(&cluster, &["status", "--json"]).await?)?;
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(3));

    let old = cluster.pid("game1").await?;
    let reloaded = done(&cluster, &["reload", "game1", "--watch"]).await?;
    for stage in ["game1  preparing", "game1  done", "reloaded\n", ", as before\n"] {
        assert!(reloaded.contains(stage), "{reloaded}");
    }
    assert_ne!(cluster.pid("game1").await?, old);
    let again = done(&cluster, &["reloadmodule"]).await?;
    assert!(again.starts_with("NODE  ") && again.contains("\nnet  "), "{again}");

    let old = cluster.pid("game1").await?;
    done(&cluster, &["restart", "game1"]).await?;
    assert_ne!(cluster.pid("game1").await?, old);
    done(&cluster, &["stop", "game1"]).await?;
    assert_eq!(cluster.node("game1").await?["state"], "stopped");
    done(&cluster, &["start", "game1"]).await?;
    assert_eq!(cluster.node("game1").await?["state"], "ready");

    assert!(done(&cluster, &["logs", "net"]).await?.contains("net is ready"));
    assert_eq!(done(&cluster, &["logs", "net", "-n", "1"]).await?.lines().count(), 1);
    let sessions = done(&cluster, &["metrics", "ff_sessions_opened"]).await?;
    assert!(sessions.lines().all(|line| line.contains("ff_sessions_opened")), "{sessions}");
    let metrics: Value = serde_json::from_str(&done(&cluster, &["metrics", "--json"]).await?)?;
    let up = metrics
        .as_array()
        .context("no list")?
        .iter()
        .find(|sample| sample["name"] == "ff_sessions" && sample["labels"]["node"] == "net");
    assert_eq!(up.map(|sample| &sample["value"]), Some(&Value::from(0.0)), "{metrics}");

    let web = cluster.at("admin");
    let elsewhere = command(Path::new("/"), &["status", "--at", &format!("http://{web}")])?.output().await?;
    assert_eq!(elsewhere.status.code(), Some(0), "{elsewhere:?}");
    cluster.stop().await
}

#[tokio::test]
async fn each_way_to_fail_has_its_sentence_and_its_exit_code() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let failed = async |arguments: &[&str], code: i32, sentence: &str| -> Result<()> {
        let (out, err, found) = ask(&cluster, arguments).await?;
        ensure!(found == Some(code), "{arguments:?}: {found:?}, not {code}\n{out}{err}");
        ensure!(err.contains(sentence), "{arguments:?}: {err}");
        Ok(())
    };
    for arguments in
        [&["restart", "gaem1"][..], &["logs", "gaem1"], &["reload", "gaem1"], &["reload", "gaem1", "-w"]]
    {
        failed(arguments, 6, "there is no node `gaem1`; `master status` shows them; is `game1` meant?")
            .await?;
    }
    failed(
        &["status", "--at", "http://127.0.0.1:1"],
        3,
        "no master answers at http://127.0.0.1:1: Connection refused",
    )
    .await?;
    failed(&["status", "--at", "https://127.0.0.1:1"], 64, "--cert").await?;
    failed(&["status", "-c", "nowhere.json"], 78, "nowhere.json").await?;
    failed(&["restart"], 64, "<NODE>").await?;
    failed(&["status", "--token-file", "nowhere"], 1, "the operator's token: nowhere").await?;
    // A config is being rewritten, and has faults: its master is asked all the same, and refuses only to reload it.
    let config = cluster.folder().join("config.json");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace("\"netport\"", "\"netprot\""))?;
    failed(&["reload"], 1, "netprot").await?;
    failed(&["reload", "--watch"], 1, "netprot").await?;
    std::fs::write(&config, text)?;
    done(&cluster, &["status"]).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_node_that_cannot_be_replaced_is_said_and_the_command_fails() -> Result<()> {
    let cluster = Cluster::scripted(
        Fixture::demo()?,
        "if [ \"$1\" = gate ] && [ -e \"$folder/broken\" ]; then echo it is broken >&2; exit 7; fi",
    )
    .await?;
    std::fs::write(cluster.folder().join("broken"), "")?;
    for watch in ["--watch", "--no-watch"] {
        let (out, err, code) = ask(&cluster, &["reload", watch]).await?;
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(out.contains("rolled back") && out.contains("it is broken"), "{out}");
        assert!(out.contains("not touched") || out.contains("not_touched"), "{out}");
    }
    let (out, _, code) = ask(&cluster, &["reload", "--json"]).await?;
    let json: Value = serde_json::from_str(&out)?;
    assert_eq!((code, &json["ok"]), (Some(1), &Value::from(false)), "{out}");
    cluster.stop().await
}

#[tokio::test]
async fn a_command_while_another_one_runs_is_busy() -> Result<()> {
    let cluster = Cluster::scripted(
        Fixture::demo()?,
        "if [ \"$1\" = game1 ] && [ -e \"$folder/slow\" ]; then while [ -e \"$folder/slow\" ]; do sleep 0.05; done; fi",
    )
    .await?;
    let slow = cluster.folder().join("slow");
    std::fs::write(&slow, "")?;
    let first = tokio::spawn(command(cluster.folder(), &["reload", "game1"])?.output());
    cluster.until("game1", "being replaced", |node| node["beside"].is_object()).await?;
    let (out, err, code) = ask(&cluster, &["reload"]).await?;
    assert_eq!(code, Some(5), "{out}{err}");
    assert!(err.contains("try again when that is done"), "{err}");
    std::fs::remove_file(&slow)?;
    assert_eq!(first.await??.status.code(), Some(0));
    cluster.stop().await
}

#[tokio::test]
async fn a_token_is_taken_from_each_place_and_a_wrong_one_is_refused() -> Result<()> {
    const TOKEN: &str = "a-token-of-the-operators";
    let operators = format!(
        r#""master": {{ "operators": [{{ "name": "ann", "role": "operate", "hash": "{}" }}],"#,
        tests::operators::hash(TOKEN)
    );
    let cluster = Cluster::processes(Fixture::demo()?.replace("\"master\": {", &operators)).await?;
    let mut wrong = command(cluster.folder(), &["status"])?;
    let refused = wrong.env("FF_OPERATOR_TOKEN", "a-token-of-nobody").output().await?;
    let err = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(4), "{err}");
    assert!(err.contains("refused (401)"), "{err}");
    let mut with_env = command(cluster.folder(), &["status"])?;
    assert_eq!(with_env.env("FF_OPERATOR_TOKEN", TOKEN).output().await?.status.code(), Some(0));
    let file = cluster.folder().join("token");
    ffnet::private_file::create(&file, TOKEN)?;
    let named = file.to_str().context("no name")?;
    done(&cluster, &["status", "--token-file", named]).await?;
    done(&cluster, &["stop", "--token-file", named]).await?;
    let stopped = async || {
        let (_, err, code) = ask(&cluster, &["status", "--token-file", named]).await?;
        ensure!(code == Some(3), "{code:?}: {err}");
        anyhow::Ok(())
    };
    wait::until("nobody answers any more", async || stopped().await.map_err(|e| e.to_string())).await
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_the_end_of_the_master_as_well() -> Result<()> {
    let cluster = Cluster::processes(Fixture::demo()?).await?;
    let mut events = Shown::in_pipe(command(cluster.folder(), &["events", "--json"])?)?;
    events.until_shown("\"event\":\"status\"").await?;
    done(&cluster, &["restart", "game1"]).await?;
    events.until_shown("\"state\":\"ended\"").await?;
    let text = events.text();
    for line in text.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
    }
    cluster.stop().await?;
    assert_eq!(events.exit_code().await?, Some(3), "{}", events.text());
    Ok(())
}

#[tokio::test]
async fn every_shell_that_there_is_gets_its_completions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for shell in ["bash", "zsh", "fish"] {
        let output = command(folder.path(), &["completions", shell])?.output().await?;
        let text = String::from_utf8(output.stdout)?;
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text.contains("token-file") && text.contains("restart"), "{shell}: {text}");
    }
    Ok(())
}

/// A cluster of six nodes, and a terminal in its folder; `None` without tmux.
async fn six_in_a_terminal() -> Result<Option<(Cluster, Tmux, String)>> {
    let fixture = Fixture::demo()?;
    let game1 = "\"game1\": {";
    let more: String = (2..5)
        .map(|at| {
            let gate = "{ \"rootname\": \"gate\", \"rootport\": @gate }";
            format!("\"game{at}\": {{ \"remoteport\": [{gate}], \"app\": \"game1server\" }}, ")
        })
        .collect();
    let gate = fixture.at("gate").to_string();
    let port = gate.rsplit(':').next().unwrap_or_default();
    let fixture = fixture.replace(game1, &format!("{}{game1}", more.replace("@gate", port)));
    let cluster = Cluster::processes(fixture).await?;
    let Some(tmux) = Tmux::open(cluster.folder(), 120, 30).await? else { return Ok(None) };
    let run = cluster.folder().join("run");
    let master = format!("FF_RUN_DIR={} {}/master", run.display(), bins::folder()?.display());
    Ok(Some((cluster, tmux, master)))
}

#[tokio::test]
async fn top_shows_six_nodes_live_and_gives_the_terminal_back() -> Result<()> {
    let Some((cluster, tmux, master)) = six_in_a_terminal().await? else { return Ok(()) };
    let net = cluster.at("net");
    tmux.line(&format!("alias m='{master}'; clear; echo before")).await?;
    tmux.line("m top; echo code $?").await?;
    let screen = tmux.until("six nodes", |screen| screen.contains("nodes 1–6 of 6")).await?;
    for wanted in
        ["6 of 6 nodes ready · 0 sessions", "NODE", "MSGS/S", "P99", "LAG", "game4  game1server  ready"]
    {
        assert!(screen.contains(wanted), "{screen}");
    }
    assert!(!screen.contains("before") && !screen.contains("ready>"), "{screen}");
    assert_eq!(tmux.property("alternate_on").await?, "1");
    let is_measured = |line: &str| line.starts_with("game1 ") && line.ends_with('M');
    tmux.until("memory and lag", |screen| {
        screen.lines().any(|line| is_measured(line) && line.contains("% "))
    })
    .await?;
    let client = tests::client::Client::connect(net).await?;
    tmux.until("a session", |screen| screen.contains("nodes ready · 1 sessions")).await?;
    drop(client);
    tmux.resize(60, 8).await?;
    tmux.until("the rows that fit", |screen| screen.contains("nodes 1–5 of 6") || screen.contains("q quit"))
        .await?;
    tmux.press(&["End"]).await?;
    tmux.until("the last rows", |screen| screen.contains("game1 ") && !screen.contains("gate ")).await?;
    tmux.resize(120, 30).await?;
    tmux.until("all rows", |screen| screen.contains("nodes 1–6 of 6")).await?;
    tmux.press(&["q"]).await?;
    let screen = tmux.until("the shell", |screen| screen.contains("code 0")).await?;
    assert!(screen.contains("before") && !screen.contains("MSGS/S"), "{screen}");
    assert_eq!(
        (tmux.property("alternate_on").await?, tmux.property("cursor_flag").await?),
        ("0".into(), "1".into())
    );
    // What is typed is shown again, and lines end: the terminal is as it was.
    tmux.line("echo $((40 + 2))").await?;
    tmux.until("an echo", |screen| screen.contains("echo $((40 + 2))") && screen.contains("\n42")).await?;
    cluster.stop().await
}

#[tokio::test]
async fn top_says_that_the_master_is_gone_and_when_it_is_back() -> Result<()> {
    let Some((mut cluster, tmux, master)) = six_in_a_terminal().await? else { return Ok(()) };
    tmux.line(&format!("{master} top; echo code $?")).await?;
    tmux.until("six nodes", |screen| screen.contains("nodes 1–6 of 6")).await?;
    cluster.kill_master().await?;
    tmux.until("no master", |screen| screen.contains("no master answers")).await?;
    cluster.start_master_again().await?;
    tmux.until("the master", |screen| {
        !screen.contains("no master answers") && screen.contains("6 of 6 nodes ready")
    })
    .await?;
    tmux.press(&["C-c"]).await?;
    tmux.until("the shell", |screen| screen.contains("code 130")).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_reload_and_a_log_are_followed_in_a_terminal() -> Result<()> {
    let Some((cluster, tmux, master)) = six_in_a_terminal().await? else { return Ok(()) };
    tmux.line(&format!("alias m='{master}'; clear")).await?;
    tmux.line("m reload --watch; echo code $?").await?;
    let screen = tmux.until("the end", |screen| screen.contains("code 0")).await?;
    // In place: each node has one line, which says its last stage.
    for node in ["gate", "net", "game1", "game2", "game3", "game4"] {
        let lines: Vec<&str> = screen.lines().filter(|line| line.starts_with(&format!("{node} "))).collect();
        assert!(matches!(lines.as_slice(), [line] if line.contains("done")), "{node}: {screen}");
    }
    assert!(screen.contains("6 of 6 nodes\nreloaded\nrelease "), "{screen}");

    tmux.line("clear; m logs -f game1 -n 1; echo code $?").await?;
    tmux.until("a line", |screen| screen.contains(" INFO ")).await?;
    assert_eq!(cluster.admin("POST", "/nodes/game1/restart").await?.status, 200);
    tmux.until("what follows", |screen| {
        screen.contains("game1 has stopped") && screen.contains("game1 is ready")
    })
    .await?;
    tmux.press(&["C-c"]).await?;
    tmux.until("the shell", |screen| screen.contains("code 130")).await?;
    cluster.stop().await
}
