//! Real servers of a test's own, on folders of its own, which it may kill and start again; and the shared
//! ones that `tests/run` has started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::fixtures::free_port;
use crate::{http, skip, wait};

/// Where servers are; PostgreSQL's are in a folder for each version, as `tests/run` knows, too.
fn folders() -> Vec<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let known = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    // The latest version first.
    known.into_iter().chain(versions.into_iter().rev()).collect()
}

/// Texts that have broken servers: quotes, backslashes, placeholders, comments, beyond the first 65,536
/// characters, and long.
#[must_use]
pub fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        "it's \"quoted\" `three` ways",
        "'; DROP TABLE t; --",
        "\\' OR 1=1 #",
        "? ?? $1 :name @x %s {} /* */ -- ",
        "a\tb\r\nc",
        "Größe 名前 🎲👩‍👩‍👧",
        "a:b c",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(1024 * 1024));
    texts
}

/// The address of a server of `tests/run` from the environment. `None` skips the test, but never in CI,
/// where the script is what runs the tests.
///
/// # Panics
/// In CI, when it is not set.
#[must_use]
pub fn shared(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok();
    if address.is_none() {
        skip::lacks_server(&format!("{variable} is not set; `tests/run` starts the server and sets it"));
    }
    address
}

/// Unlike any other name of this and earlier runs.
#[must_use]
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{what}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A program's path; `None` skips the test.
fn program(name: &str) -> Option<PathBuf> {
    let found = folders().into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
    if found.is_none() {
        skip::lacks_server(&format!("{name} is not installed; `tests/run` installs it"));
    }
    found
}

/// Runs as nobody when we are root: the servers refuse root.
fn as_nobody(program: &Path) -> Command {
    if !nix::unistd::Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

fn spawn(mut command: Command) -> Result<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    child.spawn().with_context(|| format!("{command:?}"))
}

/// Starts it again when it ends: somebody else's connection may have had its port for a moment.
async fn until_listening(what: &str, port: u16, start: impl Fn() -> Result<Child>) -> Result<Child> {
    let mut child = start()?;
    wait::until(&format!("{what} listens on {port}"), async || {
        if let Ok(Some(ended)) = child.try_wait() {
            child = start().map_err(|e| format!("{e:#}"))?;
            return Err(format!("it ended: {ended}"));
        }
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|e| e.to_string())
    })
    .await?;
    Ok(child)
}

/// `kill -9`, and waits for its end.
async fn end(child: &mut Option<Child>) -> Result<()> {
    match child.take() {
        Some(mut child) => Ok(child.kill().await?),
        None => Ok(()),
    }
}

/// A memcached that ends with its value.
pub struct Memcached {
    program: PathBuf,
    mib: u32,
    port: u16,
    child: Option<Child>,
}

impl Memcached {
    /// Starts one that holds `mib` MiB; `None` skips the test.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(mib: u32) -> Result<Option<Self>> {
        let Some(program) = program("memcached") else { return Ok(None) };
        let mut server = Self { program, mib, port: free_port()?, child: None };
        server.restart().await?;
        Ok(Some(server))
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&mut self) -> Result<()> {
        end(&mut self.child).await
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        let (port, mib) = (self.port.to_string(), self.mib.to_string());
        let start = || {
            let mut command = as_nobody(&self.program);
            command.args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-m", &mib, "-c", "1024", "-t", "2"]);
            // It wants room for two of its largest items.
            command.args(["-I", if self.mib < 2 { "512k" } else { "1m" }]);
            spawn(command)
        };
        self.child = Some(until_listening("memcached", self.port, start).await?);
        Ok(())
    }
}

/// A MariaDB or PostgreSQL server that ends with its value.
pub struct Database {
    kind: Kind,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    MariaDb,
    Postgres,
}

impl Database {
    /// Starts a MariaDB with an empty database `game`; `None` skips the test.
    ///
    /// # Errors
    /// It does not start.
    pub async fn mariadb() -> Result<Option<Self>> {
        let Some(program) = program("mariadb-install-db") else { return Ok(None) };
        let folder = folder()?;
        let mut install = as_nobody(&program);
        install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        install.arg(format!("--datadir={}", folder.path().display())).env("TMPDIR", folder.path());
        run(install).await?;
        let mut server = Self { kind: Kind::MariaDb, folder, port: free_port()?, child: None };
        server.restart().await?;
        server.fill_mariadb().await?;
        Ok(Some(server))
    }

    /// Starts a PostgreSQL; `None` skips the test.
    ///
    /// # Errors
    /// It does not start.
    pub async fn postgres() -> Result<Option<Self>> {
        let Some(program) = program("initdb") else { return Ok(None) };
        let folder = folder()?;
        let mut install = as_nobody(&program);
        install.arg("-D").arg(folder.path().join("data"));
        install.args(["-A", "trust", "-U", "game", "-E", "UTF8", "--no-locale", "-N"]);
        run(install).await?;
        let mut server = Self { kind: Kind::Postgres, folder, port: free_port()?, child: None };
        server.restart().await?;
        Ok(Some(server))
    }

    /// The URL for a config.
    #[must_use]
    pub fn url(&self) -> String {
        match self.kind {
            Kind::MariaDb => format!("mysql://game:pw@127.0.0.1:{}/game", self.port),
            Kind::Postgres => format!("postgres://game@127.0.0.1:{}/postgres", self.port),
        }
    }

    /// `kill -9`, and waits for its end. What it had acknowledged must be there after a restart.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&mut self) -> Result<()> {
        end(&mut self.child).await
    }

    /// Its process, for a signal such as SIGSTOP.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<nix::unistd::Pid> {
        let pid = self.child.as_ref().and_then(Child::id).context("the server does not run")?;
        Ok(nix::unistd::Pid::from_raw(i32::try_from(pid)?))
    }

    /// Starts it again on the same port and files.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.child = Some(until_listening("the database", self.port, || self.spawn()).await?);
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let folder = self.folder.path();
        let mut command;
        match self.kind {
            Kind::MariaDb => {
                command = as_nobody(&program("mariadbd").context("mariadbd")?);
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
                command.args(["--skip-log-bin", "--innodb-buffer-pool-size=64M"]);
                // At its start a server removes what others have in a folder for temporary files that it shares.
                command.env("TMPDIR", folder);
                command.arg(format!("--port={}", self.port));
                command.arg(format!("--datadir={}", folder.display()));
                command.arg(format!("--socket={}", folder.join("s.sock").display()));
            }
            Kind::Postgres => {
                // The lock of a server that was killed names a process that is gone.
                let _ = std::fs::remove_file(folder.join("data/postmaster.pid"));
                command = as_nobody(&program("postgres").context("postgres")?);
                command.args(["-h", "127.0.0.1", "-k", "", "-c", "shared_buffers=64MB"]);
                command.arg("-p").arg(self.port.to_string()).arg("-D").arg(folder.join("data"));
            }
        }
        spawn(command)
    }

    async fn fill_mariadb(&self) -> Result<()> {
        let sql = "create database game character set utf8mb4; \
                   create user 'game'@'127.0.0.1' identified by 'pw'; \
                   grant all on game.* to 'game'@'127.0.0.1'";
        let mut client = Command::new(program("mariadb").context("mariadb")?);
        client.args(["--no-defaults", "-uroot", "-e", sql]);
        client.arg("-S").arg(self.folder.path().join("s.sock"));
        run(client).await
    }
}

/// A Prometheus that scrapes one address, and ends with its value.
pub struct Prometheus {
    port: u16,
    _folder: TempDir,
    _child: Child,
}

impl Prometheus {
    /// Starts one, as another user of this host, that asks `target` for its `/metrics` twice a second, by an operator's token; `None`
    /// skips the test.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(target: SocketAddr, token: &str) -> Result<Option<Self>> {
        let Some(program) = program("prometheus") else { return Ok(None) };
        let (folder, port) = (folder()?, free_port()?);
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
             scrape_configs: [{{ job_name: cluster, authorization: {{ credentials: '{token}' }}, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        std::fs::write(&config, text)?;
        let start = || {
            let mut command = as_nobody(&program);
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            spawn(command)
        };
        let child = until_listening("prometheus", port, start).await?;
        Ok(Some(Self { port, _folder: folder, _child: child }))
    }

    /// What it answers to a query: the series, each with its labels and its samples.
    ///
    /// # Errors
    /// It does not understand the query, or is not ready.
    pub async fn query(&self, query: &str) -> Result<Vec<serde_json::Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let answer = http::request(([127, 0, 0, 1], self.port).into(), "GET", &path, &[]).await?.json()?;
        let series = answer["data"]["result"].as_array().cloned();
        series.with_context(|| format!("{query}: {answer}"))
    }
}

/// What `promtool check metrics` says of a text: nothing when it is well; `None` skips the test.
///
/// # Errors
/// It cannot be run.
pub async fn lint(text: &str) -> Result<Option<String>> {
    let Some(program) = program("promtool") else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(text.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    ensure!(output.status.success() || !said.is_empty(), "promtool: {}", output.status);
    Ok(Some(said))
}

/// One that the servers' user may write to.
fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("ff-server-").tempdir()?;
    if nix::unistd::Uid::effective().is_root() {
        let nobody = nix::unistd::User::from_name("nobody")?.context("no user nobody")?;
        nix::unistd::chown(folder.path(), Some(nobody.uid), Some(nobody.gid))?;
    }
    Ok(folder)
}

async fn run(mut command: Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().await.with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
