//! The node's databases, cache and records: opened before anything serves, and written out at the end.

use std::time::Duration;

use ffstore::{OpenError, Stores};
use tokio::time::Instant;

use super::{FFServer, RunError};

/// What is written behind has at least so long at a stop, however long handlers took.
const WRITE_OUT_MIN: Duration = Duration::from_secs(1);

impl FFServer {
    /// Opens the node's stores, and gives them to it.
    pub(super) async fn open_storage(&self) -> Result<(), RunError> {
        let stores = self.stores().await?;
        self.node.set_stores(stores);
        Ok(())
    }

    async fn stores(&self) -> Result<Stores, OpenError> {
        let (name, incarnation) = (self.node.name(), self.node.incarnation());
        let random = getrandom::u32().unwrap_or_else(|_| std::process::id());
        let id = format!("{name}@{incarnation}-{random:08x}");
        Stores::open(&self.cluster, self.node.config(), id, &self.tables, self.node.session_lives()).await
    }

    /// What was written behind goes to the database; what cannot is in the journal.
    pub(super) async fn write_records(&self, deadline: Instant) {
        if let Some(records) = self.node.records() {
            records.close(deadline.max(Instant::now() + WRITE_OUT_MIN)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use ffproto::handover::KnownSession;
    use ffproto::relay::SessionState;
    use ffproto::{Incarnation, NodeName, SessionId};

    use crate::Record;
    use crate::node::{Node, States};
    use ffstore::db::{Db, Sql};
    use ffstore::record::{Records, Settings, ddl};

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
            db.execute(Sql::trusted(statement), &[]).await.unwrap();
        }
        let config =
            r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": { "game": { "app": "game" } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let config = cluster.node("game").cloned().unwrap();
        let limits = config.limits.clone();
        let node = Node::new(&cluster, config, Incarnation(1), States::new(), vec![]);
        let settings =
            Settings { id: "game".into(), data_dir: folder.path().join("data"), limits, mirror: None };
        let mut records = Records::new(BTreeMap::from([(String::new(), db)]), settings, node.session_lives());
        let purses = records.open::<Purse>().await.unwrap();
        node.set_stores(Stores { records: Some(records), ..Stores::in_process(1 << 20) });
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
        let kept = || node.records().unwrap().bindings().len();
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
