//! The assembly of a node: first the parts that need nothing from outside, then, with its stores open, the whole.

use std::any::TypeId;
use std::sync::Arc;

#[cfg(test)]
use ffambient::Ambient;
#[cfg(test)]
use ffproto::protocol::ClientProtocol;
use ffproto::protocol::Protocols;
use ffproto::{NodeNumber, SessionId};
use ffstore::Stores;
use tokio::sync::watch;

#[cfg(test)]
use crate::app::client_protocol::protocols_of;
use crate::app::hooks::Hooks;
use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::cluster::found::Snapshot;
use crate::exec::current_tables::CurrentTables;
use crate::exec::events::AppEvents;
use crate::exec::executor::{Executor, QueuedMessage};
use crate::exec::replicas::Replicas;
use crate::exec::tables::HandlerTables;
use crate::identity::Identity;
use crate::identity::watchdog::Watchdog;
use crate::node::{Node, States};
use crate::session::Sessions;
#[cfg(test)]
use crate::session::local::frames;
use crate::session::queue::{QueueLimits, SessionQueues};
use crate::session::registry::Registry;
use crate::session::remote_sessions::RemoteSessions;
use crate::session::user_directory::UserDirectory;
use crate::transit::{SessionWork, Transit};

/// The parts of a node that are there before its stores are open.
#[derive(Clone)]
pub(super) struct Foundation {
    pub(super) transit: Transit,
    pub(super) registry: Arc<Registry>,
    remote: Arc<RemoteSessions>,
    queues: Arc<SessionQueues<QueuedMessage>>,
}

/// What of an app and its config a node is made of, beside its foundation.
pub(super) struct Content {
    pub(super) tables: Arc<HandlerTables>,
    pub(super) hooks: Hooks,
    pub(super) states: States,
    pub(super) watchdog: Arc<Watchdog>,
}

/// The sessions as the transit sees them.
struct SessionWorkView {
    registry: Arc<Registry>,
    queues: Arc<SessionQueues<QueuedMessage>>,
}

impl SessionWork for SessionWorkView {
    fn is_open(&self, session: SessionId) -> bool {
        self.registry.has(session)
    }

    fn is_running(&self, session: SessionId) -> bool {
        self.queues.is_running(session)
    }

    fn waiting(&self) -> usize {
        self.queues.waiting()
    }
}

impl Foundation {
    pub(super) fn new(
        identity: Identity,
        cluster: &ffconfig::Cluster,
        routes: Arc<ConfiguredRoutes>,
        protocols: Arc<Protocols>,
    ) -> Self {
        let limits = identity.limits();
        let (messages_max, bytes_max) = (limits.session_queue_max, limits.session_queue_bytes_max);
        let queues = Arc::new(SessionQueues::new(QueueLimits { messages_max, bytes_max }));
        let registry = Arc::new(Registry::new(identity.clone(), protocols));
        let work = SessionWorkView { registry: registry.clone(), queues: queues.clone() };
        let transit = Transit::new(identity, cluster, routes, Arc::new(work));
        Self { transit, registry, remote: Arc::default(), queues }
    }

    /// The node has its number.
    pub(super) fn set_number(&self, number: NodeNumber) {
        self.registry.set_number(number);
        self.transit.introduce(number);
    }

    /// Waits until discovery shows the node's number, which stays the same, and takes it.
    pub(super) async fn take_number(&self, mut shown: watch::Receiver<Snapshot>) {
        let number = shown.wait_for(|shown| shown.number.is_some()).await.map(|shown| shown.number);
        if let Ok(Some(number)) = number {
            self.set_number(number);
        }
    }

    /// Whether a session lives, as far as this node knows: what is kept for others is let go.
    pub(super) fn session_lives(&self) -> impl Fn(SessionId) -> bool + Send + Sync + 'static {
        let (registry, remote) = (self.registry.clone(), self.remote.clone());
        move |session| match registry.get(session) {
            Some(local) => !local.is_gone(),
            None => remote.get(session).is_some_and(|remote| !remote.is_gone()),
        }
    }

    /// The whole node, and what runs its app.
    pub(super) fn complete(
        self,
        cluster: &ffconfig::Cluster,
        stores: Stores,
        content: Content,
    ) -> (Node, Arc<Executor>) {
        let Self { transit, registry, remote, queues } = self;
        let Content { tables, hooks, mut states, watchdog } = content;
        let tables = Arc::new(CurrentTables::new(tables, hooks.need_sessions(), watchdog.clone()));
        // Where `Handlers` finds them: the node itself comes before what runs on it.
        states.insert(TypeId::of::<CurrentTables>(), tables.clone());
        let users = UserDirectory::new(cluster.second_login);
        let node = Node::new(transit.clone(), stores, states, |node| {
            let events = AppEvents::new(node, hooks.clone());
            Sessions::new(transit, registry, remote, users, events)
        });
        let replicas = Replicas { node: node.clone(), queues: queues.clone(), hooks: hooks.clone() };
        let replicas = Arc::new(replicas);
        let deadlines = Arc::default();
        let executor = Executor { node: node.clone(), tables, queues, replicas, hooks, watchdog, deadlines };
        (node, Arc::new(executor))
    }
}

#[cfg(test)]
impl Content {
    /// Of an app without anything.
    fn bare() -> Self {
        let (tables, hooks, states) = (Arc::default(), Hooks::default(), States::new());
        Self { tables, hooks, states, watchdog: Arc::new(Watchdog::new()) }
    }
}

#[cfg(test)]
impl Foundation {
    /// With those of the built-in protocols, and of the app's `own`, that the config names.
    fn bare(
        identity: Identity,
        cluster: &ffconfig::Cluster,
        own: &[Arc<dyn ClientProtocol>],
    ) -> Option<Self> {
        let config = identity.config();
        let protocols = protocols_of(own, frames(&config.client), config).ok()?;
        let routes = ConfiguredRoutes::of(cluster, identity.config());
        Some(Self::new(identity, cluster, Arc::new(routes), Arc::new(protocols)))
    }
}

/// A node of a config, with an app without anything, that nobody runs: for tests.
#[cfg(test)]
pub(crate) fn bare(cluster: &ffconfig::Cluster, name: &str) -> Option<Arc<Executor>> {
    bare_speaking(cluster, name, &[])
}

/// As [`bare`], of an app with protocols of its `own`.
#[cfg(test)]
pub(crate) fn bare_speaking(
    cluster: &ffconfig::Cluster,
    name: &str,
    own: &[Arc<dyn ClientProtocol>],
) -> Option<Arc<Executor>> {
    let identity = Identity::bare(cluster, cluster.node(name)?.clone());
    let foundation = Foundation::bare(identity, cluster, own)?;
    foundation.set_number(NodeNumber(1));
    Some(foundation.complete(cluster, Stores::in_process(1 << 20), Content::bare()).1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use ffproto::handover::ReplicaRecord;
    use ffproto::relay::SessionState;
    use ffproto::{NodeName, SessionId};

    use crate::Record;
    use std::time::Duration;

    use ffstore::db::Db;
    use ffstore::record::{Records, Settings, create};

    use tokio::time::Instant;

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
        create::<Purse>(&db).await.unwrap();
        let config =
            r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": { "game": { "app": "game" } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let config = cluster.node("game").cloned().unwrap();
        let limits = config.limits.clone();
        let foundation = Foundation::bare(Identity::bare(&cluster, config), &cluster, &[]).unwrap();
        let settings = Settings {
            id: "game".into(),
            data_dir: folder.path().join("data"),
            limits,
            mirror: None,
            ambient: Ambient::system(),
        };
        let databases = BTreeMap::from([(String::new(), db)]);
        let mut records = Records::new(databases, settings, foundation.session_lives());
        let purses = records.open::<Purse>().await.unwrap();
        let stores = Stores { records: Some(records), ..Stores::in_process(1 << 20) };
        let (node, _) = foundation.complete(&cluster, stores, Content::bare());
        purses.insert(Purse { id: 1 }).await.unwrap();

        let (known, unknown) = (SessionId(7), SessionId(8));
        let state = SessionState {
            version: 1,
            address: "127.0.0.1:1".parse().unwrap(),
            user: None,
            attributes: BTreeMap::new(),
        };
        let neighbour = NodeName::try_from("gate").unwrap();
        let session =
            ReplicaRecord { id: known, neighbour, from_parent: true, state, here: true, entered: 0 };
        node.all_sessions().remote().take_over(session);
        let kept = || node.records().unwrap().bindings().len();
        purses.keep(unknown, &1).await.unwrap();
        assert_eq!(kept(), 0);
        purses.keep(known, &1).await.unwrap();
        assert_eq!(kept(), 1);
        // Its end was told, and a handler of it still runs.
        node.all_sessions().remote().ended(known);
        node.all_sessions().ended(known);
        assert_eq!(kept(), 0);
        assert!(purses.keep(known, &1).await.unwrap().is_some());
        assert_eq!(kept(), 0);
        node.records().unwrap().close(Instant::now() + Duration::from_secs(5)).await;
    }
}
