//! The preflight: tries every connection that a node would use, and changes nothing. It is what `appmain NODE CONFIG
//! --check` tells.

use std::path::Path;
use std::time::Duration;

use ffconfig::{AppFinding, Finding};
use ffproto::Incarnation;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::app::app::App;
use crate::runtime::server::{BuildError, FFServer};
use ffstore::cache::Cache;
use ffstore::db::{Db, DbError};
use ffstore::{Registered, check_table};

/// How long a neighbour may take to accept a connection.
const NEIGHBOUR: Duration = Duration::from_secs(1);

/// A finding of the preflight: one thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFinding {
    /// The key of the config, and what it names.
    pub what: String,
    /// The result of the try.
    pub found: String,
    /// Whether the node can do without.
    pub fault: bool,
}

impl std::fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5} {}: {}", if self.fault { "FAULT" } else { "ok" }, self.what, self.found)
    }
}

/// Puts one node of each entry under `servers` together, and finds every app that does not fit its node. Opens nothing and
/// starts nothing.
pub fn check_apps(cluster: &ffconfig::Cluster, apps: impl Fn() -> Vec<App>) -> Vec<AppFinding> {
    let mut findings = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for node in cluster.nodes.iter().filter(|node| seen.insert(&node.key)) {
        let of_app = |found: String, fault| AppFinding { key: node.key.clone(), found, fault, at: None };
        let of_conf = |found: Finding, fault| AppFinding::at(&node.key, found, fault);
        match FFServer::new(cluster, node.name.as_str(), apps(), Incarnation(0)) {
            Ok(server) => {
                findings.extend(server.lost_state().map(|lost| of_app(lost, false)));
                findings.extend(server.ignored_conf().map(|ignored| of_conf(ignored, false)));
            }
            Err(BuildError::Faults { faults, conf, .. }) => {
                findings.extend(faults.into_iter().map(|fault| of_app(fault, true)));
                findings.extend(conf.map(|conf| of_conf(*conf, true)));
            }
            Err(error) => findings.push(of_app(error.to_string(), true)),
        }
    }
    findings
}

struct CheckFindings(Vec<CheckFinding>);

impl CheckFindings {
    fn add(&mut self, what: impl Into<String>, found: Result<String, String>) {
        let fault = found.is_err();
        let found = found.unwrap_or_else(|why| why);
        self.0.push(CheckFinding { what: what.into(), found, fault });
    }

    /// A neighbour that is not up yet is no fault: the cluster may not be running.
    fn note(&mut self, what: impl Into<String>, found: String) {
        self.0.push(CheckFinding { what: what.into(), found, fault: false });
    }
}

/// Tries the databases, their tables, memcached, the folder of the journals, the master and the parents.
pub async fn check(server: &FFServer) -> Vec<CheckFinding> {
    let mut findings = CheckFindings(Vec::new());
    let (cluster, config) = (server.cluster(), server.config());
    if config.db {
        let named =
            cluster.databases.iter().map(|(name, db)| (format!("databases.{name}"), name.as_str(), db));
        let all = cluster.db.iter().map(|db| ("db".to_owned(), "", db)).chain(named);
        for (what, name, settings) in all {
            let tables = server.tables().iter().filter(|table| table.shape.database == name);
            check_database(&mut findings, &what, settings, tables).await;
        }
        if !server.tables().is_empty() {
            findings.add("data_dir", check_folder(&cluster.data_dir));
        }
    }
    if let Some(memcached) = cluster.memcached.as_ref().filter(|_| config.mem) {
        for url in &memcached.urls {
            let one = ffconfig::Memcached { urls: vec![url.clone()], ..memcached.clone() };
            let asked = Instant::now();
            let found = Cache::connect(&one).await;
            let found = found.map(|_| format!("answers after {:.1?}", asked.elapsed()));
            findings.add(format!("memcached {url}"), found.map_err(|e| fftelemetry::chain(&e)));
        }
    }
    let master = &cluster.master;
    let at = format!("{}:{}", master.roothost, master.rootport.port());
    findings.note(format!("master {at}"), neighbour(&at).await);
    for parent in &config.parents {
        let host = parent.host.clone().unwrap_or_else(|| "localhost".to_owned());
        let at = format!("{host}:{}", parent.port);
        findings.note(format!("parent {} {at}", parent.name), neighbour(&at).await);
    }
    findings.0
}

async fn check_database(
    findings: &mut CheckFindings,
    what: &str,
    settings: &ffconfig::Database,
    tables: impl Iterator<Item = &Registered>,
) {
    let asked = Instant::now();
    let db = match Db::look(settings).await {
        Ok(Some(db)) => db,
        Ok(None) => return check_new(findings, what, settings, tables).await,
        Err(e) => return findings.add(what, Err(fftelemetry::chain(&e))),
    };
    let read = if settings.read_url.is_some() { ", and its replica" } else { "" };
    let version = version(&db).await;
    let took = asked.elapsed();
    let found =
        version.map(|version| format!("{} is {version}{read}, after {took:.1?}", settings.shown_url()));
    findings.add(what, found.map_err(|e| fftelemetry::chain(&e)));
    if let Some(folder) = &settings.migrations {
        let files = std::fs::read_dir(folder)
            .map(|files| format!("{} is there, {} entries", folder.display(), files.count()));
        findings.add(format!("{what}.migrations"), files.map_err(|e| format!("{}: {e}", folder.display())));
    }
    let will = if settings.migrations.is_some() { " (before migrations)" } else { "" };
    check_tables(findings, &db, what, will, tables).await;
    db.close().await;
}

/// A SQLite file that a start makes: what it makes is tried in memory.
async fn check_new(
    findings: &mut CheckFindings,
    what: &str,
    settings: &ffconfig::Database,
    tables: impl Iterator<Item = &Registered>,
) {
    let url = settings.shown_url();
    let file = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let can = existing(folder).map(|_| format!("{url} is not there; a start makes it"));
    findings.add(what, can.map_err(|why| format!("{url} is not there, and cannot be made: {why}")));
    let memory = ffconfig::Database { url: "sqlite::memory:".into(), read_url: None, ..settings.clone() };
    let new = match Db::connect(&memory).await {
        Ok(new) => new,
        Err(e) => return findings.add(what, Err(fftelemetry::chain(&e))),
    };
    let mut will = "";
    if let Some(folder) = &settings.migrations {
        let run = new.migrate(folder).await.map(|()| format!("{} make a new database", folder.display()));
        findings.add(format!("{what}.migrations"), run.map_err(|e| fftelemetry::chain(&e)));
        will = " (after migrations)";
    }
    check_tables(findings, &new, what, will, tables).await;
    new.close().await;
}

async fn check_tables(
    findings: &mut CheckFindings,
    db: &Db,
    what: &str,
    will: &str,
    tables: impl Iterator<Item = &Registered>,
) {
    for table in tables {
        let checked = check_table(db, &table.shape).await.map(|()| "as its record expects it".to_owned());
        let what = format!("{what} table {}{will}", table.shape.table);
        findings.add(what, checked.map_err(|e| fftelemetry::chain(&e)));
    }
}

/// The nearest folder that is there, when something can be made in it.
fn existing(folder: &Path) -> Result<&Path, String> {
    let here = Path::new(".");
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(here);
    let writable = nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK);
    writable.map(|()| existing).map_err(|e| format!("{}: {e}", existing.display()))
}

async fn version(db: &Db) -> Result<String, DbError> {
    use ffstore::db::Dialect;
    let (kind, sql) = match db.dialect() {
        Dialect::Sqlite => ("SQLite ", "SELECT sqlite_version()"),
        Dialect::MySql => ("", "SELECT VERSION()"),
        Dialect::Postgres => ("", "SELECT version()"),
    };
    let row = db.fetch_optional(sql, &[]).await?;
    let version: String = row.map_or(Ok(String::new()), |row| row.at(0))?;
    Ok(format!("{kind}{version}"))
}

/// Whether journals can be written there; makes nothing.
fn check_folder(folder: &Path) -> Result<String, String> {
    existing(folder)?;
    let journals = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let journals = journals.filter(|entry| entry.path().extension().is_some_and(|end| end == "journal"));
    Ok(format!("{} is writable, with {} journals", folder.display(), journals.count()))
}

async fn neighbour(at: &str) -> String {
    match timeout(NEIGHBOUR, TcpStream::connect(at)).await {
        Ok(Ok(_)) => "listens".to_owned(),
        Ok(Err(e)) => format!("does not listen now ({e})"),
        Err(_late) => "does not answer now".to_owned(),
    }
}
