//! The config of a test's cluster: an author's own, with ports that the system chooses, and databases that are the test's.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use ffconfig::{Database, LoadError, Node};
use ffnet::listen::{self, Inherited};
use ffstore::db::Db;

use super::error::StartError;
use crate::app::app::App;

/// Where a config is from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// A text, as if it were a file in the folder where the test runs.
    Text(String),
}

/// The file whose folder relative paths of a text are relative to.
const TEXT_FILE: &str = "config.json";

/// Reads a config; variables in it are the environment's.
pub(super) fn read(source: &Source) -> Result<ffconfig::Cluster, LoadError> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = match source {
        Source::File(path) => ffconfig::load(path, &env)?,
        Source::Text(text) => {
            let path = std::path::absolute(TEXT_FILE).unwrap_or_else(|_| TEXT_FILE.into());
            ffconfig::parse(text, &path, &env)?
        }
    };
    Ok(loaded.cluster)
}

/// The listening sockets of one node, which stay open while it is down, as its master keeps them.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    net: Option<TcpListener>,
    root: Option<TcpListener>,
    web: Option<TcpListener>,
}

impl Sockets {
    /// Opens those that the node's config wants, on loopback, and notes in the config where they are.
    pub(super) fn open(node: &mut Node) -> Result<Self, StartError> {
        let (net, root, web) =
            (open(&mut node.netport)?, open(&mut node.rootport)?, open(&mut node.webport)?);
        Ok(Self { net, root, web })
    }

    /// The same sockets for one start of the node.
    pub(super) fn inherited(&self) -> std::io::Result<Inherited> {
        let copy = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::try_clone).transpose();
        Ok(Inherited { net: copy(&self.net)?, root: copy(&self.root)?, web: copy(&self.web)? })
    }
}

fn open(at: &mut Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(at) = at else { return Ok(None) };
    let socket = listen::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    *at = socket.local_addr()?;
    Ok(Some(socket))
}

/// Makes the stores the test's own: SQLite and the journals in its folder, the cache in its process.
pub(super) fn own_stores(cluster: &mut ffconfig::Cluster, folder: &Path) {
    let own = |name: &str, database: &mut Database| {
        database.url = format!("sqlite://{}", folder.join(format!("{name}.sqlite")).display());
        database.read_url = None;
    };
    cluster.db.iter_mut().for_each(|database| own("db", database));
    cluster.databases.iter_mut().for_each(|(name, database)| own(&format!("db-{name}"), database));
    cluster.data_dir = folder.join("data");
    for node in &mut cluster.nodes {
        node.mem = false;
    }
}

/// Makes the tables of apps in databases that no migration makes.
pub(super) async fn make_tables(
    cluster: &ffconfig::Cluster,
    apps: impl Fn() -> Vec<App>,
) -> Result<(), StartError> {
    let used: BTreeSet<&str> =
        cluster.nodes.iter().filter(|node| node.db).map(|node| node.app.as_str()).collect();
    let apps: Vec<App> = apps().into_iter().filter(|app| used.contains(app.name())).collect();
    let named = cluster.databases.iter().map(|(name, database)| (name.as_str(), database));
    let without = |(_, database): &(&str, &Database)| database.migrations.is_none();
    for (name, database) in cluster.db.iter().map(|database| ("", database)).chain(named).filter(without) {
        let tables = apps.iter().flat_map(|app| &app.tables).filter(|table| table.shape.database == name);
        let (mut made, mut db) = (BTreeSet::new(), None);
        for table in tables.filter(|table| made.insert(table.shape.table)) {
            let failed = |source| StartError::Table { table: table.shape.table.to_owned(), source };
            let db = match &mut db {
                Some(db) => db,
                none => none.insert(Db::connect(database).await.map_err(failed)?),
            };
            table.make_table(db).await.map_err(failed)?;
        }
        if let Some(db) = db {
            db.close().await;
        }
    }
    Ok(())
}
