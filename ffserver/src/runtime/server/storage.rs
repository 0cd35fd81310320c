//! The node's databases, cache and records: opened before anything serves, and written out at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{FFServer, RunError};
use crate::cache::Cache;
use crate::db::{Db, DbError};
use crate::record::{self, Records};

/// What is written behind has at least so long at a stop, however long handlers took.
const WRITE_OUT_MIN: Duration = Duration::from_secs(1);

impl FFServer {
    pub(super) async fn open_storage(&self) -> Result<(), RunError> {
        let config = self.node.config();
        if let Some(settings) = self.cluster.db.as_ref().filter(|_| config.db) {
            self.node.set_db(open_database(settings).await?);
            let mut named = BTreeMap::new();
            for (name, settings) in &self.cluster.databases {
                named.insert(name.clone(), open_database(settings).await?);
            }
            self.node.set_databases(named);
        }
        if let Some(settings) = self.cluster.memcached.as_ref().filter(|_| config.mem) {
            self.node.set_cache(Cache::connect(settings).await?);
        }
        self.open_records().await
    }

    /// What dead nodes have left is in the database before anything is read from it.
    async fn open_records(&self) -> Result<(), RunError> {
        if self.tables.is_empty() || !self.node.config().db {
            return Ok(());
        }
        let databases = self.node.databases().map(|(name, db)| match name {
            "db" => (String::new(), db.clone()),
            name => (name.to_owned(), db.clone()),
        });
        let random = getrandom::u32().unwrap_or_else(|_| std::process::id());
        let settings = record::Settings {
            id: format!("{}@{}-{random:08x}", self.node.name(), self.node.incarnation()),
            data_dir: self.cluster.data_dir.clone(),
            limits: self.node.config().limits.clone(),
            shared: self.node.config().mem.then(|| self.node.cache().clone()),
        };
        let mut records = Records::new(databases.collect(), settings);
        records.recover().await;
        for table in &self.tables {
            records.add(table).await?;
        }
        self.node.set_records(records);
        Ok(())
    }

    /// What was written behind goes to the database; what cannot is in the journal.
    pub(super) async fn write_records(&self, deadline: Instant) {
        if let Some(records) = self.node.records() {
            records.close(deadline.max(Instant::now() + WRITE_OUT_MIN)).await;
        }
    }
}

async fn open_database(settings: &ffconfig::Database) -> Result<Db, DbError> {
    let db = Db::connect(settings).await?;
    if let Some(folder) = &settings.migrations {
        db.migrate(folder).await?;
    }
    Ok(db)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ffproto::handover::KnownSession;
    use ffproto::relay::SessionState;
    use ffproto::{Incarnation, NodeName, SessionId};

    use crate::Record;
    use crate::node::{Node, States};
    use crate::record::ddl;

    use super::*;

    #[derive(Record, Clone, PartialEq)]
    #[record(table = "purse")]
    struct Purse {
        #[record(key)]
        id: i64,
    }

    #[tokio::test]
    async fn a_node_keeps_records_for_sessions_that_live_and_for_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("game.db").display());
        let db = Db::connect(&ffconfig::Database::at(url)).await.unwrap();
        for statement in ddl::<Purse>(&db).await.unwrap() {
            db.execute(crate::db::Sql::trusted(statement), &[]).await.unwrap();
        }
        let config =
            r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": { "game": { "app": "game" } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let config = cluster.node("game").cloned().unwrap();
        let limits = config.limits.clone();
        let node = Node::new(&cluster, config, Incarnation(1), States::new(), vec![]);
        let settings = record::Settings {
            id: "game".into(),
            data_dir: folder.path().join("data"),
            limits,
            shared: None,
        };
        let mut records = Records::new(BTreeMap::from([(String::new(), db)]), settings);
        let purses = records.open::<Purse>().await.unwrap();
        node.set_records(records);
        purses.insert(Purse { id: 1 }).await.unwrap();

        let (known, unknown) = (SessionId(7), SessionId(8));
        let state = SessionState {
            version: 1,
            address: "127.0.0.1:1".parse().unwrap(),
            user: None,
            attributes: BTreeMap::new(),
        };
        let via = NodeName::try_from("gate").unwrap();
        let session = KnownSession { id: known, via, from_parent: true, state, here: true, entered: 0 };
        node.cluster().known.take_over(session);
        let kept = || node.records().unwrap().kept().len();
        purses.keep(unknown, &1).await.unwrap();
        assert_eq!(kept(), 0);
        purses.keep(known, &1).await.unwrap();
        assert_eq!(kept(), 1);
        // Its end was told, and a handler of it still runs.
        node.cluster().known.ended(known);
        node.session_ended(known);
        assert_eq!(kept(), 0);
        assert!(purses.keep(known, &1).await.unwrap().is_some());
        assert_eq!(kept(), 0);
        node.records().unwrap().close(Instant::now() + Duration::from_secs(5)).await;
    }
}
