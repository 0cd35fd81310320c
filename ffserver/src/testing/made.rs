//! What handlers take, made for a test that calls them as functions: a node with an app, a session, a table, a parent.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::cluster::Cluster;
use super::error::{NodeError, StartError};
use crate::app::app::App;
use crate::app::handler::State;
use crate::app::route::{Key, Route};
use crate::calls::neighbours::{Parent, ParentName, Parents};
use crate::error::HandlerError;
use crate::node::Node;
use crate::node::conf::Conf;
use crate::session::handle::Session;
use ffstore::{Record, Table};

/// The made node's name where nobody has one to choose.
const NAME: &str = "made";

type MakeApp = Arc<dyn Fn() -> App + Send + Sync>;

/// A node by itself, which runs an app: for calling its handlers as functions.
#[derive(Debug)]
pub struct MadeNode {
    cluster: Cluster,
    node: Node,
}

/// A session of a made node, and the client behind it: what handlers push to it, and its end, are the client's to see.
#[derive(Debug)]
pub struct MadeSession {
    session: Session,
    /// The client.
    pub client: Client,
    _node: Option<MadeNode>,
}

/// A table of its own, in a database in a temporary folder.
#[derive(Debug)]
pub struct MadeTable<T: Record> {
    table: Table<T>,
    _node: MadeNode,
}

/// A parent that answers by a script.
#[derive(Debug)]
pub struct MadeParent<N> {
    parents: Parents,
    name: PhantomData<fn() -> N>,
    calls: Arc<Mutex<Vec<(String, Bytes)>>>,
    _cluster: Cluster,
}

/// Runs an app on a node by itself, with a netport and a rootport, and with a database when the app has tables. An app that needs
/// parents runs in a [`Cluster`](super::Cluster), whose [`node`](super::Cluster::node) and
/// [`session`](super::Cluster::session) are the same for its handlers.
///
/// ```
/// use ffserver::prelude::*;
/// use ffserver::testing;
///
/// #[net_handle(1)]
/// async fn welcome(session: Session, motto: State<String>) -> Result<(), HandlerError> {
///     Ok(session.push(CommandId(10), motto.as_bytes())?)
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let app = || App::new("hall").state("be kind".to_owned()).handlers(handlers![welcome]);
/// let hall = testing::node(app).await?;
/// let mut ann = hall.session().await?;
/// welcome(ann.session(), hall.state().ok_or("no motto")?).await?;
/// assert_eq!(ann.client.push(10).await?, "be kind");
/// # Ok::<(), ffserver::HandlerError>(())
/// # })?;
/// # Ok::<(), ffserver::HandlerError>(())
/// ```
///
/// # Errors
/// [`StartError`].
pub async fn node(app: impl Fn() -> App + Send + Sync + 'static) -> Result<MadeNode, StartError> {
    node_with(app, "{}").await
}

/// As [`node`](fn@node), with more keys of the node in its config: `{ "conf": { … }, "limits": { … } }`.
///
/// # Errors
/// As [`node`](fn@node), and when the keys are no JSON object or have faults.
pub async fn node_with(
    app: impl Fn() -> App + Send + Sync + 'static,
    config: &str,
) -> Result<MadeNode, StartError> {
    let besides: Map<String, Value> = serde_json::from_str(config).map_err(|_| StartError::Besides)?;
    let app: MakeApp = Arc::new(app);
    let made = app();
    let mut config = Map::new();
    config.insert("app".into(), made.name().into());
    config.insert("netport".into(), 3.into());
    config.insert("rootport".into(), 4.into());
    config.insert("db".into(), (!made.tables.is_empty()).into());
    config.extend(besides);
    let config = json!({ "master": { "rootport": 1, "webport": 2 }, "servers": { NAME: config } });
    let cluster = Cluster::start_text(config.to_string(), move || vec![app()]).await?;
    let node = cluster.node(NAME)?;
    Ok(MadeNode { cluster, node })
}

impl MadeNode {
    /// The node, as a handler's argument.
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    /// A state of the app, as a handler's argument; `None` when the app has none of that type.
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<State<T>> {
        self.node.state().map(State::shared)
    }

    /// The node's `conf`, as a handler's argument; `None` when the app reads it as another type.
    pub fn conf<T: Send + Sync + 'static>(&self) -> Option<Conf<T>> {
        self.node.conf()
    }

    /// A table of the app, as a handler's argument; `None` when the app has none of that type.
    pub fn table<T: Record>(&self) -> Option<Table<T>> {
        self.node.table()
    }

    /// A new session of the node.
    ///
    /// # Errors
    /// The node takes no client.
    pub async fn session(&self) -> Result<MadeSession, NodeError> {
        self.cluster.session(NAME).await
    }
}

impl Deref for MadeNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// A session of a node without an app of its own.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use ffserver::CommandId;
///
/// let mut ann = ffserver::testing::session().await?;
/// ann.session().push(CommandId(10), b"hello")?;
/// assert_eq!(ann.client.push(10).await?, "hello");
/// # Ok::<(), ffserver::HandlerError>(())
/// # })?;
/// # Ok::<(), ffserver::HandlerError>(())
/// ```
///
/// # Errors
/// [`StartError`].
pub async fn session() -> Result<MadeSession, StartError> {
    let node = node(|| App::new(NAME)).await?;
    let session = node.session().await?;
    Ok(MadeSession { _node: Some(node), ..session })
}

impl MadeSession {
    pub(super) fn new(session: Session, client: Client) -> Self {
        Self { session, client, _node: None }
    }

    /// The session, as a handler's argument.
    pub fn session(&self) -> Session {
        self.session.clone()
    }
}

/// A table of a record, empty.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use ffserver::prelude::*;
///
/// #[derive(Record, Clone, PartialEq, Debug)]
/// #[record(table = "purse")]
/// struct Purse {
///     #[record(key)]
///     name: String,
///     coins: i64,
/// }
///
/// /// As a handler does.
/// async fn pay(purses: Table<Purse>, name: &str) -> Result<i64, HandlerError> {
///     Ok(purses.update(&name.to_owned(), Save::Durable, |purse| { purse.coins += 1; purse.coins }).await?)
/// }
///
/// let purses = ffserver::testing::table::<Purse>().await?;
/// purses.insert(Purse { name: "ann".into(), coins: 6 }).await?;
/// assert_eq!(pay(purses.table(), "ann").await?, 7);
/// # Ok::<(), ffserver::HandlerError>(())
/// # })?;
/// # Ok::<(), ffserver::HandlerError>(())
/// ```
///
/// # Errors
/// [`StartError`].
pub async fn table<T: Record>() -> Result<MadeTable<T>, StartError> {
    let node = node(|| App::new(NAME).table::<T>()).await?;
    let table = node.table().ok_or_else(|| NodeError::Down(node.name().clone()))?;
    Ok(MadeTable { table, _node: node })
}

impl<T: Record> MadeTable<T> {
    /// The table, as a handler's argument.
    pub fn table(&self) -> Table<T> {
        self.table.clone()
    }
}

impl<T: Record> Deref for MadeTable<T> {
    type Target = Table<T>;

    fn deref(&self) -> &Table<T> {
        &self.table
    }
}

/// A parent that has these methods, and answers calls of each as `answer` says.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use ffserver::prelude::*;
///
/// ffserver::parents! { Gate = "gate" }
///
/// #[net_handle(1)]
/// async fn enter(gate: Parent<Gate>, Body(name): Body<String>) -> Result<Bytes, HandlerError> {
///     Ok(gate.call("open_for", name).await?)
/// }
///
/// let gate = ffserver::testing::parent::<Gate>(&["open_for"], |_method, name| Ok([b"open, ", &name[..]].concat().into()));
/// let gate = gate.await?;
/// assert_eq!(enter(gate.parent(), Body("ann".into())).await?, "open, ann");
/// assert_eq!(gate.calls(), [("open_for".to_owned(), Bytes::from("ann"))]);
/// # Ok::<(), ffserver::HandlerError>(())
/// # })?;
/// # Ok::<(), ffserver::HandlerError>(())
/// ```
///
/// # Errors
/// [`StartError`].
pub async fn parent<N: ParentName>(
    methods: &[&str],
    answer: impl Fn(&str, Bytes) -> Result<Bytes, HandlerError> + Send + Sync + 'static,
) -> Result<MadeParent<N>, StartError> {
    let methods: Vec<Arc<str>> = methods.iter().map(|method| (*method).into()).collect();
    let (answer, calls) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
    let noted = calls.clone();
    let route = move |method: &Arc<str>| {
        let (method, answer, noted) = (method.clone(), answer.clone(), noted.clone());
        Route::new(Key::Root(method.clone()), method.clone(), move |mut request| {
            let (method, answer, noted) = (method.clone(), answer.clone(), noted.clone());
            Box::pin(async move {
                let body = request.take_body()?;
                noted.lock().push((method.to_string(), body.clone()));
                answer(&method, body).map(Some)
            })
        })
    };
    // The node that has the parent; no two nodes are called the same.
    let child = if N::NAME == NAME { "made_child" } else { NAME };
    let apps =
        move || vec![App::new(NAME), App::new("script").handlers(methods.iter().map(&route).collect())];
    let config = json!({ "master": { "rootport": 1, "webport": 2 }, "servers": {
        N::NAME: { "app": "script", "rootport": 3 },
        child: { "app": NAME, "remoteport": [{ "rootname": N::NAME }] } } });
    let cluster = Cluster::start_text(config.to_string(), apps).await?;
    let parents = cluster.node(child)?.call_parents();
    Ok(MadeParent { parents, name: PhantomData, calls, _cluster: cluster })
}

impl<N: ParentName> MadeParent<N> {
    /// The parent, as a handler's argument.
    pub fn parent(&self) -> Parent<N> {
        Parent::new(self.parents.clone())
    }

    /// The calls that it has had: method and body.
    pub fn calls(&self) -> Vec<(String, Bytes)> {
        self.calls.lock().clone()
    }
}
