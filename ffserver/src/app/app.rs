//! The app that an author puts together: its handlers, its state, its hooks and its web routes.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ffnet::transport::{CaughtTransport, TcpTransport, Transport};
use ffproto::NodeName;
use ffproto::protocol::ClientProtocol;
use serde::de::DeserializeOwned;

use crate::app::client_protocol::CaughtProtocol;
use crate::app::handler::Route;
use crate::app::hooks::{Frozen, Hooks, Later, MoveEntered, NotMoved, SessionEvent, SessionEventKind};
use crate::error::HandlerError;
use crate::node::conf::{Conf, ConfType};
use crate::node::{Node, States};
use crate::session::handle::Session;
use ffstore::{Record, Registered, Table};

/// The web routes of an app: where they are mounted, and what.
#[cfg(feature = "web")]
pub(crate) type Mounts = Vec<(&'static str, Vec<rocket::Route>)>;

/// The web routes of an app in a program without the feature `web`: none can be made.
#[cfg(not(feature = "web"))]
pub(crate) type Mounts = Vec<std::convert::Infallible>;

/// An app: the handlers, state and hooks that a node runs. A value: each node is built from its own.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(100)]
/// async fn hello(Body(name): Body<String>) -> String {
///     format!("hello {name}")
/// }
///
/// fn app() -> App {
///     App::new("greeter").handlers(handlers![hello])
/// }
/// # let _ = app();
/// ```
///
/// # Hooks
///
/// A hook runs at most as long as a call may take (`limits.call_timeout_ms`) and is dropped then; what it panics with, or
/// that it was late, stands in the log. [`on_started`](App::on_started), [`on_stopping`](App::on_stopping),
/// [`freeze`](App::freeze) and [`thaw`](App::thaw) have limits of their own. A hook runs beside everything that does not
/// wait for it:
///
/// | hook | waits for it |
/// | --- | --- |
/// | `on_started`, `thaw` | the node: it takes no message and no client before |
/// | `on_session_opened` | the session's messages on this node |
/// | `on_session_verified` | the answer to the session's login; on a node that the session touches later, its messages there; nothing behind [`Session::bind`] |
/// | `on_session_entered`, `on_session_not_moved` | the session's messages |
/// | `on_session_closed`, `on_session_left`, `on_session_lost_node` | nothing but later hooks of the session |
/// | `on_child_connected`, `on_child_lost` | nothing but later hooks about the same child |
/// | `on_stopping` | the end of the node's links, and of its process |
/// | `freeze` | the node: messages for it wait at its neighbours |
pub struct App {
    pub(crate) name: &'static str,
    pub(crate) routes: Vec<Route>,
    pub(crate) states: States,
    /// Whether there is state of the app's own, and whether it may be lost.
    pub(crate) has_state: bool,
    pub(crate) may_lose_state: bool,
    pub(crate) tables: Vec<Registered>,
    pub(crate) conf: Option<ConfType>,
    pub(crate) hooks: Hooks,
    pub(crate) mounts: Mounts,
    pub(crate) protocols: Vec<Arc<dyn ClientProtocol>>,
    pub(crate) transport: Arc<dyn Transport>,
    /// Whether the transport is the author's own.
    pub(crate) brings_transport: bool,
}

impl App {
    /// An app without handlers; `name` is what the config's `app` names.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            routes: Vec::new(),
            states: States::new(),
            has_state: false,
            may_lose_state: false,
            tables: Vec::new(),
            conf: None,
            hooks: Hooks::default(),
            mounts: Mounts::new(),
            protocols: Vec::new(),
            transport: Arc::new(TcpTransport),
            brings_transport: false,
        }
    }

    /// The app's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds handlers: `.handlers(handlers![login, enter])`. May be called several times.
    #[must_use]
    pub fn handlers(mut self, routes: Vec<Route>) -> Self {
        self.routes.extend(routes);
        self
    }

    /// Adds a value that handlers take as `State<T>`; one of each type. A reload starts a new process, with a new value:
    /// what shall go on there is handed over by [`App::freeze`] and [`App::thaw`], and without them a start and a reload
    /// warn ([`App::state_may_be_lost`]).
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.has_state = true;
        self.states.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// Adds a protocol that clients of the app's nodes may speak, beside the built-in ones; `client.protocols` in the config
    /// says which of them, and in which order their first bytes are looked at. A reload is refused, before anything has
    /// moved, when the new program does not have a protocol that the old one speaks.
    #[must_use]
    pub fn protocol(mut self, protocol: impl ClientProtocol) -> Self {
        self.protocols.push(Arc::new(CaughtProtocol(Arc::new(protocol))));
        self
    }

    /// Sets the transport over which clients of the app's nodes come, in place of TCP. A connection that cannot go on in
    /// another process is drained by a reload: the old process serves it for `drain_s`, and then tells its client the end; at
    /// once when the app [freezes](App::freeze) its state, for that is in the new process then.
    #[must_use]
    pub fn transport<T: Transport>(mut self, transport: T) -> Self {
        self.transport = match TypeId::of::<T>() == TypeId::of::<TcpTransport>() {
            true => Arc::new(TcpTransport),
            false => Arc::new(CaughtTransport::new(transport)),
        };
        self.brings_transport = TypeId::of::<T>() != TypeId::of::<TcpTransport>();
        self
    }

    /// Says that nothing is amiss when a reload starts with the values of [`App::state`] as they are made: settings, a
    /// cache, counters of a test.
    #[must_use]
    pub fn state_may_be_lost(mut self) -> Self {
        self.may_lose_state = true;
        self
    }

    /// Whether a reload loses state, and the author has not said that it may.
    pub(crate) fn loses_state(&self) -> bool {
        self.has_state && !self.may_lose_state && self.hooks.freeze.is_none()
    }

    /// Adds a table of records, which handlers take as `Table<T>`. Its schema is checked when the node
    /// starts; the node needs `"db": true`.
    #[must_use]
    pub fn table<T: Record>(mut self) -> Self {
        // Handlers that take the table are checked against this; the table itself comes with the database.
        self.states.insert(TypeId::of::<Table<T>>(), Arc::new(()));
        self.tables.push(Registered::of::<T>());
        self
    }

    /// Names the type that reads the node's `conf`, which handlers take as [`Conf<T>`](crate::Conf) and hooks ask for by
    /// [`Node::conf`]. A node whose `conf` does not fit the type does not start, and `master --check` says it with its place: a key
    /// that the type does not know, one that is missing, a value of another type. A node without `conf` has an empty one:
    /// `#[serde(default)]` for what may be absent. One type for an app; another one takes its place.
    #[must_use]
    pub fn conf<T: DeserializeOwned + Send + Sync + 'static>(mut self) -> Self {
        self.conf.replace(ConfType::of::<T>()).map(|before| self.states.remove(&before.id()));
        // Handlers that take the values are checked against this; the values themselves come with the node's config.
        self.states.insert(TypeId::of::<Conf<T>>(), Arc::new(()));
        self
    }

    /// Mounts routes of Rocket 0.5 in the node's web server, of the feature `web`. They reach the node as `&rocket::State<Node>`.
    ///
    /// The crate that has the routes names Rocket among its dependencies, as Rocket's macros want it:
    /// `rocket = { version = "0.5", default-features = false, features = ["json"] }`.
    ///
    /// ```
    /// use ffserver::prelude::*;
    ///
    /// #[rocket::get("/name")]
    /// fn name(node: &rocket::State<Node>) -> String {
    ///     node.name().to_string()
    /// }
    ///
    /// let app = App::new("game").web("/", rocket::routes![name]);
    /// ```
    #[cfg(feature = "web")]
    #[must_use]
    pub fn web(mut self, base: &'static str, routes: Vec<rocket::Route>) -> Self {
        self.mounts.push((base, routes));
        self
    }

    /// Runs when database, cache and listeners are there, before the node is ready and takes any message; the node
    /// is given up when it is not ready within `limits.start_s`. Runs in each process of the node, so also in one
    /// that is to take over from an old one, which still serves: before [`App::thaw`]. An error keeps the node from
    /// starting.
    #[must_use]
    pub fn on_started<F>(mut self, hook: impl Fn(Node) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hooks.started = Some(Arc::new(move |node| Box::pin(hook(node))));
        self
    }

    /// Runs when the node stops in good order: no message is handled any more, its handlers and the hooks of its
    /// sessions have ended (or were late), and its links are still up, so parents and children may be called. The
    /// stop waits for it, within what is left of the node's `drain_s`. Runs also in a process that has handed over
    /// to a successor, unless its state went there ([`App::freeze`]).
    #[must_use]
    pub fn on_stopping<F>(mut self, hook: impl Fn(Node) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hooks.stopping = Some(Arc::new(move |node| Box::pin(hook(node))));
        self
    }

    /// Runs when a client has connected, before its first message is handled; on a node without that client's
    /// connection, before its first message is handled there. Not again when the client goes over to a
    /// successor of the node's process.
    #[must_use]
    pub fn on_session_opened<F>(self, hook: impl Fn(Node, Session) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::Opened, move |node, session, _| Some(hook(node, session)))
    }

    /// Runs once on each node that the session has touched, or touches later, as soon as it has a user: by the
    /// verdict over its login, or by [`Session::bind`]. On its net node before the client's login is answered;
    /// on a node that it touches later behind [`App::on_session_opened`].
    #[must_use]
    pub fn on_session_verified<F>(self, hook: impl Fn(Node, Session) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::Verified, move |node, session, _| Some(hook(node, session)))
    }

    /// Runs once when a client is gone, after the last of its messages: on its net node, and on every node that
    /// has handled messages of it, also when the net node has been killed.
    #[must_use]
    pub fn on_session_closed<F>(self, hook: impl Fn(Node, Session) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::Closed, move |node, session, _| Some(hook(node, session)))
    }

    /// Runs on the node that [`Session::move_to`] has named, once for each move, before any message that the client
    /// has sent since; behind [`App::on_session_opened`] when the session had not been there.
    #[must_use]
    pub fn on_session_entered<F>(
        self,
        hook: impl Fn(Node, Session, MoveEntered) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::Entered, move |node, session, event| match event {
            SessionEvent::Entered(entered) => Some(hook(node, session, entered)),
            _ => None,
        })
    }

    /// Runs on the node that a session was moved away from, behind the last of its messages there and when the new node
    /// has taken the session. [`App::on_session_closed`] still runs there when the session ends.
    #[must_use]
    pub fn on_session_left<F>(self, hook: impl Fn(Node, Session) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::Left, move |node, session, _| Some(hook(node, session)))
    }

    /// Runs on the node that has called [`Session::move_to`] when that has begun, but the new node is lost before the
    /// session has entered it: the session stays where it was, and its messages go on when this has run. What the node
    /// has given away with the session it has back here. The new node may have run [`App::on_session_entered`] when it
    /// was lost, or when only its answer was: it is told [`App::on_session_left`] then.
    #[must_use]
    pub fn on_session_not_moved<F>(
        self,
        hook: impl Fn(Node, Session, NotMoved) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::NotMoved, move |node, session, event| match event {
            SessionEvent::NotMoved(failed) => Some(hook(node, session, failed)),
            _ => None,
        })
    }

    /// Runs on a session's net node when the node that its messages of a route went to is gone: they go to
    /// another one now, or nobody has reached that node for `limits.park_ms`. Once for each node that the session
    /// has lost so; not when a node is replaced, nor when only a gate on the way is lost.
    #[must_use]
    pub fn on_session_lost_node<F>(
        self,
        hook: impl Fn(Node, Session, NodeName) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on_session(SessionEventKind::LostNode, move |node, session, event| match event {
            SessionEvent::LostNode(lost) => Some(hook(node, session, lost)),
            _ => None,
        })
    }

    fn on_session<F>(
        mut self,
        kind: SessionEventKind,
        hook: impl Fn(Node, Session, SessionEvent) -> Option<F> + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hook = Arc::new(hook);
        let run = move |node: Node, session: Session, event: SessionEvent| -> Later<()> {
            match hook(node, session, event) {
                Some(hook) => Box::pin(hook),
                None => Box::pin(std::future::ready(())),
            }
        };
        self.hooks.set(kind, Arc::new(run));
        self
    }

    /// Makes the state of the app one that survives a replacement of the node (`/reload`): when nothing runs on the
    /// node any more, and messages for it wait at its neighbours, `hook` gives the state as bytes. They go to the
    /// successor's [`App::thaw`] with `version`, which a later version of the app may have to tell apart. Without this
    /// hook the two processes overlap and each has its own state.
    ///
    /// All of this must be done within `limits.park_ms`: a hook that is not done by then is dropped. That, and an error,
    /// keeps the predecessor.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use ffserver::prelude::*;
    ///
    /// #[derive(Default)]
    /// struct Visits(AtomicU64);
    ///
    /// fn app() -> App {
    ///     let gone = || HandlerError::new("no visits");
    ///     App::new("hall")
    ///         .state(Visits::default())
    ///         .freeze(1, move |node| async move {
    ///             let visits = node.state::<Visits>().ok_or_else(gone)?;
    ///             Ok(visits.0.load(Ordering::Relaxed).to_le_bytes().to_vec())
    ///         })
    ///         .thaw(move |node, frozen| async move {
    ///             let visits = node.state::<Visits>().ok_or_else(gone)?;
    ///             visits.0.store(u64::from_le_bytes(frozen.bytes.as_slice().try_into()?), Ordering::Relaxed);
    ///             Ok(())
    ///         })
    /// }
    /// # app();
    /// ```
    #[must_use]
    pub fn freeze<F>(mut self, version: u32, hook: impl Fn(Node) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<u8>, HandlerError>> + Send + 'static,
    {
        self.hooks.freeze = Some((version, Arc::new(move |node| Box::pin(hook(node)))));
        self
    }

    /// Takes over what the predecessor has frozen, before the node handles anything, within `limits.start_s`. An error
    /// keeps the predecessor: then, and when the successor dies soon after, this hook runs in the predecessor with its own
    /// bytes, so that a `freeze` which took things apart can put them together again; there it may take as long as a call.
    #[must_use]
    pub fn thaw<F>(mut self, hook: impl Fn(Node, Frozen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.hooks.thaw = Some(Arc::new(move |node, frozen| Box::pin(hook(node, frozen))));
        self
    }

    /// Runs when a child has linked (firefly's `doChildConnect`); the child may be called. Nothing waits for the hook:
    /// messages of the child are handled beside it. Only what it does before it first waits is done before the
    /// first of them, unless an earlier hook about the child still runs: the hooks about one child run one after the
    /// other. Runs again, without [`App::on_child_lost`] in between, when the child's process or this one has been
    /// replaced. Counts as a running handler when the node stops or is replaced.
    #[must_use]
    pub fn on_child_connected<F>(mut self, hook: impl Fn(Node, NodeName) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hooks.child_connected = Some(Arc::new(move |node, child| Box::pin(hook(node, child))));
        self
    }

    /// Runs when a child that was linked is so no more (firefly's `doChildLostConnect`), behind
    /// [`App::on_child_connected`] for it and before that for its next link; the child may be back already.
    /// Not when the child's process or this one is replaced. When this node stops it runs behind
    /// [`App::on_stopping`], and only for a moment.
    #[must_use]
    pub fn on_child_lost<F>(mut self, hook: impl Fn(Node, NodeName) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.hooks.child_lost = Some(Arc::new(move |node, child| Box::pin(hook(node, child))));
        self
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {} with {} handlers", self.name, self.routes.len())
    }
}
