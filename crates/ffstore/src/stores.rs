//! The stores of one node: its databases, its cache and its records, opened together before anything serves.

use std::collections::BTreeMap;

use ffambient::Ambient;
use ffproto::SessionId;

use crate::cache::{Cache, CacheError};
use crate::db::{Db, DbError, driver_feature};
use crate::record::records::Registered;
use crate::record::{Records, SchemaError, Settings};

/// The stores of a node: where its rows are.
pub struct Stores {
    /// The database, when the config says `"db": true`.
    pub db: Option<Db>,
    /// The further databases of the config, by name; none without `"db": true`.
    pub databases: BTreeMap<String, Db>,
    /// memcached when the config says `"mem": true`, else in this process.
    pub cache: Cache,
    /// The records, when the app has tables and the node a database.
    pub records: Option<Records>,
}

/// The drivers that a program was built with, beside that of SQLite, which is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drivers {
    /// The feature `mysql`.
    pub mysql: bool,
    /// The feature `postgres`.
    pub postgres: bool,
    /// The feature `memcached`.
    pub memcached: bool,
}

impl Drivers {
    /// Those of this program.
    pub const BUILT_IN: Self = Self {
        mysql: cfg!(feature = "mysql"),
        postgres: cfg!(feature = "postgres"),
        memcached: cfg!(feature = "memcached"),
    };

    /// What the config wants of a node that these drivers cannot do: each key, and the feature that it needs.
    pub fn lacking(self, cluster: &ffconfig::Cluster, node: &ffconfig::Node) -> Vec<(String, &'static str)> {
        let named = cluster.databases.iter().map(|(name, db)| (format!("databases.{name}"), db));
        let databases = cluster.db.iter().map(|db| ("db".to_owned(), db)).chain(named).filter(|_| node.db);
        let urls = databases.flat_map(|(place, db)| {
            let read = db.read_url.as_deref().map(|url| (format!("{place}.read_url"), url));
            [(format!("{place}.url"), db.url.as_str())].into_iter().chain(read)
        });
        let lacking = urls.filter_map(|(key, url)| Some((key, self.lacks(driver_feature(url)?)?)));
        let mem = (node.mem && cluster.memcached.is_some() && !self.memcached)
            .then(|| (format!("servers.{}.mem", node.key), "memcached"));
        lacking.chain(mem).collect()
    }

    fn lacks(self, feature: &'static str) -> Option<&'static str> {
        let there = if feature == "mysql" { self.mysql } else { self.postgres };
        (!there).then_some(feature)
    }
}

/// Why stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A database does not answer, or cannot be migrated.
    #[error(transparent)]
    Db(#[from] DbError),
    /// memcached does not answer.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A table is not as its record expects it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl Stores {
    /// No database, and a cache of so many bytes in this process.
    pub fn in_process(cache_bytes_max: usize) -> Self {
        let cache = Cache::in_process(cache_bytes_max);
        Self { db: None, databases: BTreeMap::new(), cache, records: None }
    }

    /// Opens what the config gives a node, and migrates its databases. What dead nodes have left is in the database
    /// before anything is read from it. `id` is unlike that of any other start of any node; `lives` says whether a
    /// session does; `ambient` is for the records.
    ///
    /// # Errors
    /// [`OpenError`] names what does not answer, or does not fit.
    pub async fn open(
        cluster: &ffconfig::Cluster,
        node: &ffconfig::Node,
        id: String,
        tables: &[Registered],
        lives: impl Fn(SessionId) -> bool + Send + Sync + 'static,
        ambient: Ambient,
    ) -> Result<Self, OpenError> {
        let mut stores = Self::in_process(node.limits.cache_bytes_max);
        if let Some(settings) = cluster.db.as_ref().filter(|_| node.db) {
            stores.db = Some(open_database(settings).await?);
            for (name, settings) in &cluster.databases {
                stores.databases.insert(name.clone(), open_database(settings).await?);
            }
        }
        if let Some(settings) = cluster.memcached.as_ref().filter(|_| node.mem) {
            stores.cache = Cache::connect(settings).await?;
        }
        if node.db && !tables.is_empty() {
            let mirror = node.mem.then(|| stores.cache.clone());
            let (data_dir, limits) = (cluster.data_dir.clone(), node.limits.clone());
            let settings = Settings { id, data_dir, limits, mirror, ambient };
            let mut records = Records::new(stores.by_record_name(), settings, lives);
            records.recover().await;
            for table in tables {
                records.add(table).await?;
            }
            stores.records = Some(records);
        }
        Ok(stores)
    }

    /// Every database, each under what the config calls it: `db`, and those of `databases`.
    pub fn all_databases(&self) -> impl Iterator<Item = (&str, &Db)> {
        let named = self.databases.iter().map(|(name, db)| (name.as_str(), db));
        self.db.as_ref().map(|db| ("db", db)).into_iter().chain(named)
    }

    /// The databases as records name them: `db` has no name.
    fn by_record_name(&self) -> BTreeMap<String, Db> {
        let named = self.databases.iter().map(|(name, db)| (name.clone(), db.clone()));
        self.db.iter().map(|db| (String::new(), db.clone())).chain(named).collect()
    }
}

async fn open_database(settings: &ffconfig::Database) -> Result<Db, DbError> {
    let db = Db::connect(settings).await?;
    if let Some(folder) = &settings.migrations {
        db.migrate(folder).await?;
    }
    Ok(db)
}
