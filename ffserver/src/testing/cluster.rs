//! A cluster of an author's own apps in the process of a test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ffproto::{NodeName, NodeNumber};
use tokio::time::timeout;

use super::adapted::{self, Sockets, Source};
use super::client::Client;
use super::clock::PausedClock;
use super::error::{NodeError, StartError};
use super::folder::Folder;
use super::made::MadeSession;
use super::seat::{PATIENCE, Seat, Surroundings};
use super::seed;
use crate::app::app::App;
use crate::identity::keys::keys_of_all;
use crate::node::Node;
use crate::runtime::in_process::InProcessNet;
use crate::runtime::wires::{Wire, Wires};
use crate::session::handle::Session;
use crate::session::local::frames;

type Apps = Arc<dyn Fn() -> Vec<App> + Send + Sync>;

/// A cluster that is to start: its config, and what a test wants of it.
#[derive(Debug)]
pub struct Setup {
    source: Source,
    seed: Option<u64>,
    is_as_configured: bool,
}

/// Every node of a config in this process, each as in a process of its own: links in memory, clients over memory and over sockets,
/// ports of loopback that nobody else has, databases of its own in a temporary folder.
///
/// Dropping it ends everything at once; [`stop`](Cluster::stop) does so in good order, and says how. The [module](super) has an
/// example.
pub struct Cluster {
    seats: BTreeMap<NodeName, Seat>,
    all: Surroundings,
    wires: Wires,
    apps: Apps,
    seed: u64,
    _folder: Folder,
}

impl Setup {
    /// A seed for all that nodes draw by chance, in the place of one from `FF_SEED` or of a new one.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Takes databases, memcached and `data_dir` as the config says. Without this the databases are SQLite in a folder of the
    /// cluster's own, migrated as the config says; where it says nothing of migrations, the tables of the apps are made.
    #[must_use]
    pub fn stores_as_configured(mut self) -> Self {
        self.is_as_configured = true;
        self
    }

    /// Starts every node, and returns when all are ready.
    ///
    /// # Errors
    /// [`StartError`]: which node, and why.
    pub async fn start(
        self,
        apps: impl Fn() -> Vec<App> + Send + Sync + 'static,
    ) -> Result<Cluster, StartError> {
        let mut config = adapted::read(&self.source)?;
        let (folder, clock) = (Folder::new()?, PausedClock::current());
        let mut seats = BTreeMap::new();
        for (node, number) in config.nodes.iter_mut().zip(1..) {
            let sockets = Sockets::open(node)?;
            seats.insert(node.name.clone(), Seat::new(node.name.clone(), NodeNumber(number), sockets));
        }
        if !self.is_as_configured {
            adapted::own_stores(&mut config, folder.path());
            adapted::make_tables(&config, &apps).await?;
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => seed::from_environment()?,
        };
        seed::tell(seed);
        let ambient = seed::ambient(seed, clock.as_ref().map(PausedClock::time_of_day));
        let keys = keys_of_all(&ambient.chance.stream("keys"))?;
        let wires = Wires::default();
        let net = InProcessNet::over(wires.clone());
        let all = Surroundings { config, net, keys, ambient, clock };
        let mut cluster = Cluster { seats, all, wires, apps: Arc::new(apps), seed, _folder: folder };
        for seat in cluster.seats.values_mut() {
            seat.begin(&cluster.all, (cluster.apps)())?;
        }
        for seat in cluster.seats.values_mut() {
            seat.until_ready().await?;
        }
        Ok(cluster)
    }
}

impl Cluster {
    /// Starts every node of the config in that file (in a test: relative to the package's folder), and returns when all are ready.
    ///
    /// # Errors
    /// [`StartError`]: which node, and why.
    pub async fn start(
        config: impl Into<PathBuf>,
        apps: impl Fn() -> Vec<App> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        Self::setup(config).start(apps).await
    }

    /// As [`start`](Self::start), of a config in a text.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_text(
        config: impl Into<String>,
        apps: impl Fn() -> Vec<App> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        Self::setup_text(config).start(apps).await
    }

    /// A start with more to say than its config and apps.
    pub fn setup(config: impl Into<PathBuf>) -> Setup {
        Setup { source: Source::File(config.into()), seed: None, is_as_configured: false }
    }

    /// As [`setup`](Self::setup), of a config in a text; paths in it are relative to where the test runs.
    pub fn setup_text(config: impl Into<String>) -> Setup {
        Setup { source: Source::Text(config.into()), seed: None, is_as_configured: false }
    }

    /// The seed that all chance of the nodes comes from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A client of a net node, over memory.
    ///
    /// # Errors
    /// There is no such node, it is down, or has no netport.
    pub fn client(&self, node: &str) -> Result<Client, NodeError> {
        let (seat, config) = (self.seat(node)?, self.config(node)?);
        self.at(node)?;
        seat.node()?;
        let stream = seat.memory().connect();
        let stream = stream.map_err(|source| NodeError::NoClient { node: seat.name().clone(), source })?;
        let patience = self.all.clock.is_none().then_some(PATIENCE);
        Ok(Client::new(stream, frames(&config.client), patience))
    }

    /// A new session of a net node, and the client behind it: for handlers that are called as functions.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub async fn session(&self, node: &str) -> Result<MadeSession, NodeError> {
        let at = self.node(node)?;
        let before: Vec<_> = at.sessions().iter().map(Session::id).collect();
        let client = self.client(node)?;
        let session = async {
            loop {
                let new = |session: &Session| !before.contains(&session.id());
                if let Some(session) = at.sessions().into_iter().find(new) {
                    return session;
                }
                tokio::task::yield_now().await;
            }
        };
        // A node that has all the clients that it takes (`limits`), or ends, makes none.
        let late = |_| NodeError::Late { what: format!("a session of {node} begins"), after: PATIENCE };
        Ok(MadeSession::new(timeout(PATIENCE, session).await.map_err(late)?, client))
    }

    /// Where clients connect to a net node over a socket: for clients of other kinds.
    ///
    /// # Errors
    /// There is no such node, or it has no netport.
    pub fn at(&self, node: &str) -> Result<SocketAddr, NodeError> {
        let config = self.config(node)?;
        config.netport.ok_or_else(|| NodeError::NoPort { node: config.name.clone(), key: "netport" })
    }

    /// Where a node's web server listens.
    ///
    /// # Errors
    /// There is no such node, or it has no webport.
    pub fn web(&self, node: &str) -> Result<SocketAddr, NodeError> {
        let config = self.config(node)?;
        config.webport.ok_or_else(|| NodeError::NoPort { node: config.name.clone(), key: "webport" })
    }

    /// The handle of a node, as its handlers have it: for its states, tables and sessions.
    ///
    /// # Errors
    /// There is no such node, or it is down.
    pub fn node(&self, node: &str) -> Result<Node, NodeError> {
        self.seat(node)?.node()
    }

    /// Ends a node as `kill -9` ends a process: its tasks are dropped where they stand, its links and clients see their end without
    /// a word, what was written behind is in the journal. A task that the app has spawned itself goes on.
    ///
    /// # Errors
    /// There is no such node, or it is down.
    pub async fn kill(&mut self, node: &str) -> Result<(), NodeError> {
        let net = self.all.net.clone();
        self.seat_mut(node)?.kill(&net).await
    }

    /// Stops a node in good order, as its master does. A paused clock moves as far as that takes.
    ///
    /// # Errors
    /// There is no such node, or its end was no good one.
    pub async fn stop_node(&mut self, node: &str) -> Result<(), NodeError> {
        let clock = self.all.clock.clone();
        let stopped = self.seat_mut(node)?.stop();
        match clock {
            Some(clock) => clock.moves_while(stopped).await,
            None => stopped.await,
        }
    }

    /// Starts a node again that is down: a new incarnation under its old number and ports. Returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_node(&mut self, node: &str) -> Result<(), StartError> {
        let (apps, missing) = ((self.apps)(), self.no_node(node));
        let seat = self.seats.get_mut(node).ok_or(missing)?;
        seat.begin(&self.all, apps)?;
        seat.until_ready().await
    }

    /// Cuts the link between two nodes: both see it end, and none begins until [`heal`](Self::heal). Returns when both have seen it.
    ///
    /// # Errors
    /// The two are no neighbours.
    pub async fn cut(&self, one: &str, other: &str) -> Result<(), NodeError> {
        self.change(one, other, |wire| wire.is_cut = true)?;
        self.until_linked(one, other, false).await
    }

    /// Makes the link between two nodes whole again, and waits until they are linked. A delay goes, too.
    ///
    /// # Errors
    /// The two are no neighbours, or one of them is down.
    pub async fn heal(&self, one: &str, other: &str) -> Result<(), NodeError> {
        self.change(one, other, |wire| *wire = Wire::default())?;
        let (_, parent) = self.neighbours(one, other)?;
        self.all.net.dial_now(parent.as_str());
        self.node(one)?;
        self.node(other)?;
        self.until_linked(one, other, true).await
    }

    /// Has everything that crosses the link between two nodes take so long, each way. A delay that is longer than the link's own
    /// patience (three of `limits.heartbeat_ms`) is a cable that has been pulled: the link ends then.
    ///
    /// # Errors
    /// The two are no neighbours.
    pub fn delay(&self, one: &str, other: &str, delay: Duration) -> Result<(), NodeError> {
        self.change(one, other, |wire| wire.delay = delay)
    }

    /// Stops every node in good order, as a master does: those with clients first. A paused clock moves as far as that takes.
    ///
    /// # Errors
    /// The first node whose end was no good one; the others are stopped.
    pub async fn stop(mut self) -> Result<(), NodeError> {
        let clock = self.all.clock.clone();
        let stopped = self.stop_all();
        match clock {
            Some(clock) => clock.moves_while(stopped).await,
            None => stopped.await,
        }
    }

    async fn stop_all(&mut self) -> Result<(), NodeError> {
        let has_clients = |config: &ffconfig::Cluster, name: &NodeName| {
            config.node(name.as_str()).is_some_and(|node| node.netport.is_some())
        };
        let mut outcome = Ok(());
        for clients in [true, false] {
            for (name, seat) in &mut self.seats {
                if has_clients(&self.all.config, name) == clients {
                    outcome = outcome.and(seat.stop().await);
                }
            }
        }
        outcome
    }

    fn config(&self, node: &str) -> Result<&ffconfig::Node, NodeError> {
        self.all.config.node(node).ok_or_else(|| self.no_node(node))
    }

    fn seat(&self, node: &str) -> Result<&Seat, NodeError> {
        self.seats.get(node).ok_or_else(|| self.no_node(node))
    }

    fn seat_mut(&mut self, node: &str) -> Result<&mut Seat, NodeError> {
        let missing = self.no_node(node);
        self.seats.get_mut(node).ok_or(missing)
    }

    fn no_node(&self, name: &str) -> NodeError {
        let known: Vec<&str> = self.all.config.nodes.iter().map(|node| node.name.as_str()).collect();
        NodeError::NoNode { name: name.to_owned(), known: known.join(", ") }
    }

    /// The child and the parent of two.
    fn neighbours(&self, one: &str, other: &str) -> Result<(NodeName, NodeName), NodeError> {
        let (one, other) = (self.config(one)?, self.config(other)?);
        let is_child = |child: &ffconfig::Node, parent: &ffconfig::Node| {
            child.parents.iter().any(|listed| listed.name == parent.name)
        };
        match (is_child(one, other), is_child(other, one)) {
            (true, _) => Ok((one.name.clone(), other.name.clone())),
            (_, true) => Ok((other.name.clone(), one.name.clone())),
            _ => Err(NodeError::NoNeighbours { one: one.name.clone(), other: other.name.clone() }),
        }
    }

    fn change(&self, one: &str, other: &str, change: impl FnOnce(&mut Wire)) -> Result<(), NodeError> {
        let (child, parent) = self.neighbours(one, other)?;
        self.wires.change(&child, &parent, change);
        Ok(())
    }

    /// Waits until both of two nodes that are up know each other as linked, or as not linked.
    async fn until_linked(&self, one: &str, other: &str, linked: bool) -> Result<(), NodeError> {
        let (child, parent) = self.neighbours(one, other)?;
        let seen = async {
            if let Ok(node) = self.node(child.as_str()) {
                node.transit().parent_is(&parent, linked).await;
            }
            if let Ok(node) = self.node(parent.as_str()) {
                node.transit().child_is(&child, linked).await;
            }
        };
        // On a paused clock it is the test's own patience that ends.
        let what = || format!("{one} and {other} are {}", if linked { "linked" } else { "cut" });
        timeout(PATIENCE, seen).await.map_err(|_| NodeError::Late { what: what(), after: PATIENCE })
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let up = |seat: &Seat| if seat.is_up() { "up" } else { "down" };
        let nodes = self.seats.iter().map(|(name, seat)| (name, up(seat)));
        f.debug_map().entries(nodes).finish()
    }
}
