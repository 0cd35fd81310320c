//! What a checked config says: plain structs, every default applied, every name resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ffproto::credential::{Claims, Role};
use ffproto::encrypt::Encrypt;
use ffproto::{ClusterName, CommandId, NodeName};

use crate::conf::Conf;
pub use crate::logs::Log;
pub use crate::operators::{Operator, OperatorRole};
use crate::rights::Rights;

/// A whole config, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The file that it was read from, absolute; relative paths in it are relative to its folder.
    pub path: PathBuf,
    /// `cluster`: links between different clusters are refused. Default `cluster`.
    pub name: ClusterName,
    /// `master`.
    pub master: Master,
    /// `servers`, in the order of the file, `count` written out: `game.1`, `game.2`, …
    pub nodes: Vec<Node>,
    /// `db`: the settings of the database, for nodes that say `"db": true`; there whenever one says so.
    pub db: Option<Database>,
    /// `databases`: further ones by name, for the same nodes.
    pub databases: BTreeMap<String, Database>,
    /// `memcached`, for nodes that say `"mem": true`; there whenever one says so.
    pub memcached: Option<Memcached>,
    /// `appmain`: the program that runs the nodes, absolute. Default: the one beside the master.
    pub appmain: Option<PathBuf>,
    /// `second_login`: whether a user's new session ends the old one, or is refused. Default: it ends it, for the old
    /// one is often a connection that has died and does not know yet.
    pub second_login: SecondLogin,
    /// `data_dir`: where nodes keep the journals of their write-behind records, absolute. Default: `data`
    /// in the config's folder.
    pub data_dir: PathBuf,
}

impl Cluster {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The nodes that run in one process with `node`, itself included, in the order of the config.
    ///
    /// ```
    /// let config = r#"{ "master": { "rootport": 9999, "webport": 9998 }, "servers": {
    ///     "gate": { "app": "gate", "process": "world" }, "shop": { "app": "shop" },
    ///     "game": { "app": "game", "count": 2, "process": "world" } } }"#;
    /// let cluster = ffconfig::parse(config, "config.json".as_ref(), &|_| None)?.cluster;
    /// let with = |name| cluster.node(name).map(|node| cluster.in_process_with(node).map(|node| node.name.as_str()));
    /// let with = |name| with(name).map(|names| names.collect::<Vec<_>>().join(" "));
    /// assert_eq!(with("game.1").as_deref(), Some("gate game.1 game.2"));
    /// assert_eq!(with("shop").as_deref(), Some("shop"));
    /// # Ok::<(), ffconfig::LoadError>(())
    /// ```
    pub fn in_process_with<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(|other| other.shares_process_with(node))
    }

    /// The nodes that have `name` among their parents.
    pub fn children_of<'a>(&'a self, name: &'a NodeName) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.parents.iter().any(|p| p.name == *name))
    }

    /// The kinds of a node's parents, each once: of nodes of these kinds it may be a child.
    pub fn kinds_above(&self, node: &Node) -> Vec<String> {
        let kind = |parent: &Parent| self.node(parent.name.as_str()).map(|above| above.kind.clone());
        let mut kinds: Vec<String> = node.parents.iter().filter_map(kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Who a node of this config is, as its master signs it.
    pub fn claims(&self, node: &Node) -> Claims {
        Claims {
            cluster: self.name.clone(),
            role: Role::Node,
            name: node.name.clone(),
            kind: node.kind.clone(),
            below: self.kinds_above(node),
        }
    }

    /// The cluster as a node sees it that no config names: with a node `name`, which is as the first one of the key `key` but
    /// listens on ports that the system chooses. Children of the key have it as a parent, too. `None` when there is no such
    /// key, or a node of that name.
    ///
    /// ```
    /// let config = r#"{ "master": { "rootport": 9999, "webport": 9998 }, "servers": {
    ///     "gate": { "app": "gate", "rootport": 10000 },
    ///     "game": { "app": "game", "count": 2, "remoteport": [{ "rootname": "gate" }] } } }"#;
    /// let cluster = ffconfig::parse(config, "config.json".as_ref(), &|_| None)?.cluster;
    /// let cluster = cluster.with_another("game", "game.9".try_into()?).ok_or("no such key")?;
    /// let parents = |name| cluster.node(name).map(|node| &node.parents);
    /// assert_eq!(parents("game.9"), parents("game.1"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_another(&self, key: &str, name: NodeName) -> Option<Self> {
        let model = self.nodes.iter().find(|node| node.key == key)?;
        if self.node(name.as_str()).is_some() {
            return None;
        }
        let anywhere = |listen: Option<Listen>| listen.map(|listen| Listen::new(listen.ip(), 0));
        let (netport, rootport) = (anywhere(model.netport), anywhere(model.rootport));
        let webport = anywhere(model.webport);
        // Who starts it starts a process for it.
        let process = None;
        let another = Node { name: name.clone(), netport, rootport, webport, process, ..model.clone() };
        let mut cluster = self.clone();
        for node in &mut cluster.nodes {
            let parent = node.parents.iter().find(|parent| parent.key == key).cloned();
            node.parents.extend(parent.map(|parent| Parent { name: name.clone(), port: 0, ..parent }));
        }
        cluster.nodes.push(another);
        Some(cluster)
    }
}

/// `second_login`: what it means when a user has a session and gets another one, wherever in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondLogin {
    /// `kick_old`: the older session is closed.
    #[default]
    KickOld,
    /// `refuse_new`: the newer one is refused.
    RefuseNew,
}

/// Where a listener listens. In the config a port alone (`10001`, on loopback) or `"ADDRESS:PORT"`.
pub type Listen = SocketAddr;

/// `master`. Its `Debug` does not show the token.
#[derive(Clone, PartialEq)]
pub struct Master {
    /// `rootport`: where nodes register. Required.
    pub rootport: Listen,
    /// `webport`: administration over HTTP. Required.
    pub webport: Listen,
    /// `roothost`: where nodes find the master. Default `localhost`.
    pub roothost: String,
    /// `token`: what the cluster's keys are made of. Required when a rootport or webport listens beyond loopback.
    pub token: Option<Token>,
    /// `operators`: who may look at and command the cluster over HTTP. Default: the master's own user and root, on its host.
    pub operators: Vec<Operator>,
    /// `tls`: the certificate that webport shows. Required when webport listens beyond loopback, unless `plain_http` says otherwise.
    pub tls: Option<Tls>,
    /// `plain_http`: webport speaks HTTP that everybody on the way reads, also beyond loopback. Default: no.
    pub plain_http: bool,
    /// `encrypt`: when links and control connections are encrypted. Default: when they leave their host.
    pub encrypt: Encrypt,
    /// `log`: the files of the master's log, besides the terminal, and what they have.
    pub log: Log,
    /// `restart`: how ended nodes are started again.
    pub restart: Restart,
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master")
            .field("rootport", &self.rootport)
            .field("webport", &self.webport)
            .field("roothost", &self.roothost)
            .field("token", &self.token)
            .field("operators", &self.operators)
            .field("tls", &self.tls)
            .field("plain_http", &self.plain_http)
            .field("encrypt", &self.encrypt)
            .field("log", &self.log)
            .field("restart", &self.restart)
            .finish()
    }
}

/// `master.tls`: the files, in PEM, of the certificate that webport shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `cert`: the certificate, followed by those that vouch for it.
    pub cert: PathBuf,
    /// `key`: its private key.
    pub key: PathBuf,
}

/// Where a cluster's token stands. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// In the config, which nodes read, too.
    Text(String),
    /// In a file, which only a master reads.
    File(PathBuf),
    /// Among the credentials that systemd hands to the master.
    Credential(String),
}

impl Token {
    /// The token, where it stands in the config itself.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::File(_) | Self::Credential(_) => None,
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("***"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name: the key under `servers`, with `.1`, `.2` … when `count` is given.
    pub name: NodeName,
    /// The key under `servers`; the same as the name without `count`.
    pub key: String,
    /// `type`: what the node is an instance of; routing chooses among the nodes of a kind. Default: its app.
    pub kind: String,
    /// `app`: which of the apps it runs, without firefly's leading `app.`.
    pub app: String,
    /// `conf`: values for the app. Default: none.
    pub conf: Conf,
    /// `host`: where the node runs, as other hosts reach it; `None` is this host.
    pub host: Option<String>,
    /// `netport`: where game clients connect.
    pub netport: Option<Listen>,
    /// `rootport`: where children connect.
    pub rootport: Option<Listen>,
    /// `webport`: the node's web server.
    pub webport: Option<Listen>,
    /// `remoteport`: the parents, counted ones written out.
    pub parents: Vec<Parent>,
    /// `db`: whether the node uses the databases.
    pub db: bool,
    /// The names of `databases`, when the node uses them.
    pub databases: Vec<String>,
    /// `mem`: whether the node uses memcached instead of its in-process cache.
    pub mem: bool,
    /// `log`: the files of the node's log, besides the terminal, and what they have.
    pub log: Log,
    /// `process`: the process that the node shares with all others that name it. Default: a process of its own.
    pub process: Option<NodeName>,
    /// `cpu`: the processors that the node may run on (firefly's affinity mask, or a list of numbers).
    pub cpu: Option<Vec<usize>>,
    /// `reload`: firefly's name of what a reload refreshes. A reload replaces the whole process, so it is
    /// kept and shown, and has no other effect.
    pub reload: Option<String>,
    /// `threads`: threads of the node's runtime. Default 1: scale by processes.
    pub threads: usize,
    /// `drain_s`: how long the node may take to stop in good order. Default 10 s.
    pub drain: Duration,
    /// `client`: the constants of the client framing.
    pub client: ClientFraming,
    /// `limits`: every bound, the node's own over the cluster's over the defaults.
    pub limits: Limits,
    /// `route`: where commands without a handler here go. Default: none goes anywhere.
    pub route: Route,
    /// `rights`: what the node may do to clients and to other nodes. Default: what the tree and the routes say.
    pub rights: Rights,
    /// `login`: clients must log in first. Default: they need not.
    pub login: Option<Login>,
}

impl Node {
    /// Whether the two run in one process; a node does with itself.
    pub fn shares_process_with(&self, other: &Self) -> bool {
        self.name == other.name || (self.process.is_some() && self.process == other.process)
    }
}

/// `login`: the first message of a client is its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// `command`: the command of the login, which a handler of the node or of its route decides over. Required.
    pub command: CommandId,
    /// `timeout_s`: a client that has not logged in so long after it connected is disconnected. Default 10 s:
    /// longer than a person's second try takes, short enough for connections that only occupy a place.
    pub timeout: Duration,
}

/// One parent of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The parent's name (`rootname`; a counted key means each of its nodes).
    pub name: NodeName,
    /// The parent's key under `servers`.
    pub key: String,
    /// `roothost`: where it is reached, when that differs from what the master observes.
    pub host: Option<String>,
    /// `rootport`: where it listens for children.
    pub port: u16,
}

/// `route`: which nodes a command without a handler is for. A command has at most one rule: `to` has won over
/// `special`, that over `range`, and `stateless` has split what it cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Disjoint, sorted by `first`, and no two neighbours could be one: routes of one meaning are equal.
    rules: Vec<RouteRule>,
}

impl Route {
    pub(crate) fn of(rules: Vec<RouteRule>) -> Self {
        debug_assert!(rules.windows(2).all(|pair| pair[0].last < pair[1].first), "{rules:?}");
        Self { rules }
    }

    /// The rule of a command.
    #[inline]
    pub fn find(&self, command: CommandId) -> Option<&RouteRule> {
        let at = self.rules.partition_point(|rule| rule.last < command);
        self.rules.get(at).filter(|rule| rule.first <= command)
    }

    /// The rules: disjoint, sorted by their first command.
    #[inline]
    pub fn rules(&self) -> &[RouteRule] {
        &self.rules
    }

    /// Whether no command goes anywhere.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// One rule of a [`Route`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// The first command of the rule.
    pub first: CommandId,
    /// Its last command, itself included.
    pub last: CommandId,
    /// Where the commands go.
    pub to: Target,
    /// Whether each message goes to the node of that kind with the least load; else the first choice is
    /// kept for the session.
    pub stateless: bool,
}

/// Where a routed command goes: to a node of a kind, or to one node. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(Arc<str>);

/// Begins the key of a node; no kind does.
const NODE_MARK: char = '=';

impl Target {
    /// A node of that kind ([`Node::kind`]).
    pub fn kind(kind: &str) -> Self {
        Self(kind.into())
    }

    /// The node of that name.
    pub fn node(name: &str) -> Self {
        Self(format!("{NODE_MARK}{name}").into())
    }

    /// The target of a [`key`](Self::key).
    pub fn of_key(key: Arc<str>) -> Self {
        Self(key)
    }

    /// As nodes call it among each other: `KIND`, or `=NODE`.
    #[inline]
    pub fn key(&self) -> &Arc<str> {
        &self.0
    }

    /// The node's name, if it is one node.
    pub fn as_node(&self) -> Option<&str> {
        self.0.strip_prefix(NODE_MARK)
    }

    /// Whether a node of that name and kind is meant.
    pub fn means(&self, name: &str, kind: &str) -> bool {
        self.as_node().map_or(*self.0 == *kind, |node| node == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_node() {
            Some(node) => write!(f, "node `{node}`"),
            None => write!(f, "node of kind `{}`", self.0),
        }
    }
}

/// `client`: the protocols of clients, the constants in every frame of the firefly framing, and the command of error frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFraming {
    /// `protocols`: the names of those that clients may speak. Default: every one that the program has.
    pub protocols: Option<Vec<String>>,
    /// `head_0` … `head_3`. Default 0.
    pub head: [u8; 4],
    /// `proto_version`. Default 0.
    pub proto_version: u8,
    /// `server_version`. Default 0.
    pub server_version: u32,
    /// `error_command`: the command of error frames. Default 4294967295.
    pub error_command: CommandId,
}

impl Default for ClientFraming {
    fn default() -> Self {
        Self {
            protocols: None,
            head: [0; 4],
            proto_version: 0,
            server_version: 0,
            error_command: CommandId(u32::MAX),
        }
    }
}

/// `limits`: every queue and every wait has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `frame_bytes_max`: the largest `length` of a client's frame. Default 64 KiB: a game message is
    /// far smaller, and 1,000 hostile clients cost 64 MiB at most.
    pub frame_bytes_max: u32,
    /// `link_frame_bytes_max`: the largest frame on a link. Default 16 MiB: room for a state, far from
    /// what would block a link for long.
    pub link_frame_bytes_max: u32,
    /// `call_timeout_ms`: how long a call may take. Default 5 s: a player has given up by then.
    pub call_timeout: Duration,
    /// `peer_timeout_ms_max`: how long another node may let what it calls here run, if no node of the config has a longer
    /// `call_timeout_ms`. Default 60 s: far above what a player waits for.
    pub peer_timeout_max: Duration,
    /// `outbox_bytes_max`: bytes queued for one client. Default 1 MiB: seconds of pushes on a slow line.
    pub outbox_bytes_max: usize,
    /// `link_outbox_bytes_max`: bytes queued for one link. Default 64 MiB: half a second of a full gigabit.
    pub link_outbox_bytes_max: usize,
    /// `calls_max`: calls of this node that wait for an answer on one link. Default 65,536.
    pub calls_max: usize,
    /// `sessions_max`: client connections of one node. Default 20,000: below the usual limit of descriptors.
    pub sessions_max: usize,
    /// `start_s`: how long a node may take to become ready. Default 60 s: a database may be slow to wake.
    pub start: Duration,
    /// `heartbeat_ms`: how often a silent link is asked. Default 500 ms; three missed answers are its end.
    pub heartbeat: Duration,
    /// `session_calls_max`: forwarded requests of one session that may wait for an answer; above it the
    /// client's socket is not read. Default 256: few clients pipeline a tenth of it.
    pub session_calls_max: usize,
    /// `session_queue_max`: messages of one session that may wait behind its running handler on a node;
    /// above it `overloaded`. Default 1024: far behind what anybody waits for.
    pub session_queue_max: usize,
    /// `session_queue_bytes_max`: as `session_queue_max`, in bytes. Default 1 MiB: 16 of the largest frames.
    pub session_queue_bytes_max: usize,
    /// `session_state_bytes_max`: bytes of a session's user and attributes. Default 1 KiB: they travel whole
    /// to every node that handles the session.
    pub session_state_bytes_max: usize,
    /// `session_groups_max`: groups that a session may be in. Default 64: a guild, a room, some channels.
    pub session_groups_max: usize,
    /// `latest_bytes_max`: updates of which only the latest counts that wait for their tick; above it they go
    /// before. Default 1 MiB: 10,000 positions.
    pub latest_bytes_max: usize,
    /// `hops_max`: over how many links a client's message may go. Default 16: a way up and down a tree of eight
    /// levels; a message that goes in a circle ends there.
    pub hops_max: u8,
    /// `net_lost_ms`: how long a net node may be out of reach before its sessions are closed on this node.
    /// Default 5 s: longer than a gate takes to come back.
    pub net_lost: Duration,
    /// `park_ms`: how long messages wait for a neighbour that ended or is being replaced. Default 2 s: a
    /// restart takes a fraction of it; 0 waits for nobody.
    pub park: Duration,
    /// `park_max`: messages that may wait so at one node. Default 65,536.
    pub park_max: usize,
    /// `park_bytes_max`: the same in bytes. Default 64 MiB.
    pub park_bytes_max: usize,
    /// `prove_ms`: a successor that lives that long is trusted; until then the predecessor stands by to take
    /// back. Default 2 s: what crashes a new binary at once has crashed it by then.
    pub prove: Duration,
    /// `hang_s`: a node whose loop does not turn for that long is killed and started again. Default 10 s;
    /// `None` (0) is never.
    pub hang: Option<Duration>,
    /// `idle_s`: a client that sends nothing for that long is disconnected. Default 10 min: a phone that
    /// vanished says nothing; `None` (0) is never.
    pub idle: Option<Duration>,
    /// `first_message_s`: a client whose first message is not whole by then is disconnected. Default 30 s:
    /// it costs a descriptor, and even a slow line is faster; `None` (0) is never.
    pub first_message: Option<Duration>,
    /// `requests_per_s`: above it the client's socket is read more slowly. Default `None` (0), no limit:
    /// only the game knows what is too much.
    pub requests_per_s: Option<u32>,
    /// `connections_per_address`: client connections from one address, in IPv6 from one /64. Default 256 where `netport` is not
    /// on loopback: a whole school may share one, and one stranger does not get every place. On loopback, where all clients have
    /// one, `None` (0), no limit.
    pub connections_per_address: Option<u32>,
    /// `web_connections_max`: HTTP connections of one node, half of them from one address. Default 1,024: an API's clients share
    /// few.
    pub web_connections_max: usize,
    /// `web_head_s`: how long the head of an HTTP request may take from its first byte. Default 10 s: even a
    /// slow line is faster.
    pub web_head: Duration,
    /// `web_idle_s`: an HTTP connection whose client sends no request, no more of one, or takes no answer for
    /// that long is closed. Default 60 s, as most servers.
    pub web_idle: Duration,
    /// `slow_client`: what happens when a client's outbox is over `outbox_bytes_max`. Default: disconnected,
    /// for a client that misses a push without knowing shows a wrong world.
    pub slow_client: SlowClient,
    /// `cache_bytes_max`: what the in-process cache holds. Default 64 MiB, memcached's own default.
    pub cache_bytes_max: usize,
    /// `records_bytes_max`: records of one table that the node keeps in memory. Default 64 MiB: some
    /// 100,000 players. Those that wait to be written are never dropped, and counted by the next two.
    pub records_bytes_max: usize,
    /// `dirty_records_max`: records that wait to be written to the database; above it writes are refused.
    /// Default 100,000: what a database takes up within a minute after an outage.
    pub dirty_records_max: usize,
    /// `dirty_bytes_max`: the same in bytes, and half the size of the node's journal. Default 64 MiB.
    pub dirty_bytes_max: usize,
    /// `record_idle_s`: a record that nobody uses leaves memory. Default 10 min, as a client does.
    pub record_idle: Duration,
    /// `record_fresh_ms`: how long a record is read from memory before it is asked for again, so how late
    /// another node's change may be seen. Default 1 s; 0: every read asks.
    pub record_fresh: Duration,
}

/// `limits.slow_client`: what happens to a client that does not read what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowClient {
    /// `disconnect`: it is disconnected.
    #[default]
    Disconnect,
    /// `drop`: pushes to it are dropped and counted.
    Drop,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 * 1024,
            link_frame_bytes_max: 16 * 1024 * 1024,
            call_timeout: Duration::from_secs(5),
            peer_timeout_max: Duration::from_secs(60),
            outbox_bytes_max: 1024 * 1024,
            link_outbox_bytes_max: 64 * 1024 * 1024,
            calls_max: 65_536,
            sessions_max: 20_000,
            start: Duration::from_secs(60),
            heartbeat: Duration::from_millis(500),
            session_calls_max: 256,
            session_queue_max: 1024,
            session_queue_bytes_max: 1024 * 1024,
            session_state_bytes_max: 1024,
            session_groups_max: 64,
            latest_bytes_max: 1024 * 1024,
            hops_max: 16,
            net_lost: Duration::from_secs(5),
            park: Duration::from_secs(2),
            park_max: 65_536,
            park_bytes_max: 64 * 1024 * 1024,
            prove: Duration::from_secs(2),
            hang: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(600)),
            first_message: Some(Duration::from_secs(30)),
            requests_per_s: None,
            connections_per_address: None,
            web_connections_max: 1024,
            web_head: Duration::from_secs(10),
            web_idle: Duration::from_secs(60),
            slow_client: SlowClient::Disconnect,
            cache_bytes_max: 64 * 1024 * 1024,
            records_bytes_max: 64 * 1024 * 1024,
            dirty_records_max: 100_000,
            dirty_bytes_max: 64 * 1024 * 1024,
            record_idle: Duration::from_secs(600),
            record_fresh: Duration::from_secs(1),
        }
    }
}

/// `master.restart`: how ended nodes are started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The waits between starts.
    pub backoff: Backoff,
    /// `healthy_s`: a node that lived that long starts again from the shortest wait. Default 60 s.
    pub healthy: Duration,
    /// `crash_loop`: this many quick ends in a row are shown as a crash loop. Default 5.
    pub crash_loop: u32,
    /// `max`: after this many quick ends in a row the node is marked failed and not tried any more. Default
    /// 20, some minutes: what would have come back has come back by then. `None` (0) never gives up.
    pub max: Option<u32>,
}

impl Default for Restart {
    fn default() -> Self {
        Self { backoff: Backoff::default(), healthy: Duration::from_secs(60), crash_loop: 5, max: Some(20) }
    }
}

/// Exponential waits with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// `wait_ms_min`: the first wait. Default 100 ms.
    pub min: Duration,
    /// `wait_ms_max`: no wait is longer. Default 10 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

/// `db`: `url`, or firefly's `host`, `user`, `passwd`, `port`, `db`, `charset`. Without either: a SQLite
/// file beside the config.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// `sqlite://…` (or `sqlite::memory:`), `mysql://…` or `postgres://…`, no other spelling; has the
    /// password in it, so logs show [`Database::shown_url`]. A SQLite file is absolute here.
    pub url: String,
    /// `connections_max`: size of the pool. Default 5, as firefly's `mincached`.
    pub connections_max: u32,
    /// `connect_timeout_ms`: how long a start waits for it. Default 5 s.
    pub connect_timeout: Duration,
    /// `read_url`: a replica for statements that only read and may be a moment behind; `None`: the same.
    pub read_url: Option<String>,
    /// `migrations`: the folder of SQL files that are run once each, in order, before a node is ready.
    pub migrations: Option<PathBuf>,
    /// `slow_ms`: a statement that takes longer is logged. Default 500 ms.
    pub slow: Duration,
    /// Anything else under `db` that firefly's pool passed on; shown, not used.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("url", &self.shown_url())
            .field("connections_max", &self.connections_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("read_url", &self.read_url.as_deref().map(crate::database::shown))
            .field("migrations", &self.migrations)
            .field("slow", &self.slow)
            .field("options", &self.options)
            .finish()
    }
}

/// `memcached`: firefly's `urls` and `hostname`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memcached {
    /// `urls`: the servers, `HOST:PORT` each.
    pub urls: Vec<String>,
    /// `hostname`: the prefix of every key, so that clusters can share a server. Default: the cluster's name.
    pub prefix: String,
    /// `timeout_ms`: how long an operation may take. Default 1 s.
    pub timeout: Duration,
}
