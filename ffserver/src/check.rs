//! Tries every connection that a node would use, and changes nothing: what `appmain NODE CONFIG --check` says.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::cache::Cache;
use crate::db::{Db, DbError};
use crate::record::{Registered, check_table};
use crate::server::FFServer;

/// How long a neighbour may take to accept a connection.
const NEIGHBOUR: Duration = Duration::from_secs(1);

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The key of the config, and what it names.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether the node can do without.
    pub fault: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5} {}: {}", if self.fault { "FAULT" } else { "ok" }, self.what, self.found)
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: impl Into<String>, found: Result<String, String>) {
        let fault = found.is_err();
        let found = found.unwrap_or_else(|why| why);
        self.0.push(Finding { what: what.into(), found, fault });
    }

    /// A neighbour that is not up yet is no fault: the cluster may not be running.
    fn note(&mut self, what: impl Into<String>, found: String) {
        self.0.push(Finding { what: what.into(), found, fault: false });
    }
}

impl FFServer {
    /// Tries the databases, their tables, memcached, the folder of the journals, the master and the parents.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        let (cluster, node) = (self.cluster(), self.node());
        let config = node.config();
        if config.db {
            let named =
                cluster.databases.iter().map(|(name, db)| (format!("databases.{name}"), name.as_str(), db));
            let all = cluster.db.iter().map(|db| ("db".to_owned(), "", db)).chain(named);
            for (what, name, settings) in all {
                let tables = self.tables().iter().filter(|table| table.shape.database == name);
                check_database(&mut findings, &what, settings, tables).await;
            }
            if !self.tables().is_empty() {
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
}

async fn check_database(
    findings: &mut Findings,
    what: &str,
    settings: &ffconfig::Database,
    tables: impl Iterator<Item = &Registered>,
) {
    let asked = Instant::now();
    let db = match Db::connect(settings).await {
        Ok(db) => db,
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
    for table in tables {
        let checked = check_table(&db, &table.shape).await.map(|()| "as its record expects it".to_owned());
        let will = if settings.migrations.is_some() { " (before migrations)" } else { "" };
        let what = format!("{what} table {}{will}", table.shape.table);
        findings.add(what, checked.map_err(|e| fftelemetry::chain(&e)));
    }
    db.close().await;
}

async fn version(db: &Db) -> Result<String, DbError> {
    use crate::db::Dialect;
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
    let existing = folder.ancestors().find(|folder| folder.is_dir()).ok_or("no such folder")?;
    let writable = nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK);
    writable.map_err(|e| format!("{}: {e}", existing.display()))?;
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
