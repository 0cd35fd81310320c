//! What somebody without a key can do to a cluster: as another user of its host, in a container beside it, from another host.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use ffnet::{key_desk, run_folder};
use tempfile::TempDir;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::host::Host;
use tests::{bins, skip};
use tokio::process::Command;

/// `nobody`.
const UID: &str = "65534";

/// What a stranger has: the program, and the cluster's config without its secrets, both readable by all.
struct Kit {
    folder: TempDir,
    run: PathBuf,
}

impl Kit {
    /// `None`, and why, where nobody can be another user.
    fn new(cluster: &Cluster, config: &str) -> Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            skip::lacks_privilege("it needs root, to be somebody else");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        std::fs::copy(bins::folder()?.join("stranger"), folder.path().join("stranger"))?;
        std::fs::write(folder.path().join("config.json"), config)?;
        open(folder.path())?;
        // What protects a cluster is not that the test's own folder is private.
        open(cluster.folder())?;
        open(&cluster.run_dir())?;
        let config = cluster.folder().join("config.json");
        let run = run_folder::of_config(&cluster.run_dir(), &config, nix::unistd::geteuid().as_raw());
        Ok(Some(Self { folder, run }))
    }

    /// The lines of a stranger that is started by these words.
    async fn lines(&self, words: &[&str], host: &str) -> Result<Vec<String>> {
        let [first, rest @ ..] = words else { anyhow::bail!("no words") };
        let mut command = Command::new(first);
        command.args(rest).arg(self.folder.path().join("stranger"));
        command.arg(self.folder.path().join("config.json")).arg(&self.run).arg(host);
        let output = command.current_dir("/").stdin(Stdio::null()).output().await.context("no stranger")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}

fn open(path: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Words that run a program as nobody.
fn as_nobody() -> [&'static str; 6] {
    ["setpriv", "--reuid", UID, "--regid", UID, "--clear-groups"]
}

/// The attacks lead to nothing, the same processes serve, and a client that was there all the time has got nothing but
/// its answers.
async fn unharmed(cluster: &Cluster, attack: impl Future<Output = Result<Vec<String>>>) -> Result<()> {
    let mut player = cluster.client().await?;
    player.call(300, b"before").await?;
    let (before, master) = (cluster.pids().await?, cluster.master_pid()?);
    let lines = attack.await?;
    let got: Vec<_> = lines.iter().filter(|line| !line.starts_with("nothing ")).collect();
    ensure!(got.is_empty(), "{got:#?}");
    ensure!(lines.len() > 40, "{lines:#?}");
    player.call(300, b"after").await?;
    assert_eq!((cluster.pids().await?, cluster.master_pid()?), (before, master));
    cluster.until_answered(300).await?;
    ensure!(!cluster.log().contains("panicked"), "{}", cluster.log());
    Ok(())
}

#[tokio::test]
async fn another_user_without_a_key_gets_nothing_from_a_cluster_without_a_token() -> Result<()> {
    let fixture = Fixture::demo()?;
    let config = fixture.text.clone();
    let cluster = Cluster::processes(fixture).await?;
    let Some(kit) = Kit::new(&cluster, &config)? else { return cluster.stop().await };
    unharmed(&cluster, kit.lines(&as_nobody(), "127.0.0.1")).await?;

    // The desk itself knows its own from others, also where the folder would let them in.
    open(&kit.run)?;
    let socket = kit.run.join(key_desk::SOCKET);
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
    let lines = kit.lines(&as_nobody(), "127.0.0.1").await?;
    let asked: Vec<_> = lines.iter().filter(|line| line.contains("the key desk, for ")).collect();
    let refused = |line: &&String| line.contains(": a refusal: user 65534 is neither the master's (");
    ensure!(asked.len() == 3 && asked.iter().all(refused), "{asked:#?}");
    ensure!(lines.iter().any(|line| line == "nothing  to read `secret`"), "{lines:#?}");
    cluster.until_answered(300).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_container_that_shares_the_hosts_network_gets_nothing() -> Result<()> {
    let fixture = Fixture::demo()?;
    let config = fixture.text.clone();
    let cluster = Cluster::processes(fixture).await?;
    let Some(kit) = Kit::new(&cluster, &config)? else { return cluster.stop().await };
    // Its root is nobody out here.
    let mut words = as_nobody().to_vec();
    words.extend(["unshare", "-U", "-r", "-p", "-m", "-f", "--mount-proc"]);
    let tried = Command::new(words[0]).args(&words[1..]).arg("true").stdin(Stdio::null()).output().await?;
    if !tried.status.success() {
        skip::lacks_privilege(&format!("no containers: {}", String::from_utf8_lossy(&tried.stderr)));
        return cluster.stop().await;
    }
    unharmed(&cluster, kit.lines(&words, "127.0.0.1")).await?;
    cluster.stop().await
}

#[tokio::test]
async fn another_host_without_the_token_gets_nothing_from_ports_beyond_loopback() -> Result<()> {
    let Some(host) = Host::or_skip() else { return Ok(()) };
    let text = r#"{
  "master": { "rootport": "0.0.0.0:@master", "webport": @admin, "roothost": "HERE", "token": "a-secret-of-sixteen" },
  "servers": {
    "gate":  { "rootport": "0.0.0.0:@gate", "app": "gateserver" },
    "net":   { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "netserver" },
    "game1": { "remoteport": [{ "rootname": "gate" }], "app": "game1server" }
  }
}"#;
    let fixture = Fixture::new(&text.replace("HERE", &host.here()))?;
    let config = fixture.text.replace("a-secret-of-sixteen", "a-guess-of-sixteen");
    let cluster = Cluster::processes(fixture).await?;
    let Some(kit) = Kit::new(&cluster, &config)? else { return cluster.stop().await };
    let mut words = host.words().to_vec();
    words.extend(as_nobody());
    unharmed(&cluster, kit.lines(&words, &host.here())).await?;
    cluster.stop().await
}
