//! A game server of several processes, written as ordinary Rust functions.
//!
//! A cluster is described by one `config.json`: **net** nodes hold the game clients, other nodes play. A program of yours runs
//! those nodes, and a **master** starts it for each of them, watches it, and replaces it by the next version while the players
//! play on. This crate is what that program is made of: you write handlers, it brings the rest.
//!
//! ```no_run
//! use ffserver::prelude::*;
//!
//! #[net_handle(100)] // The command of a client's message.
//! async fn greet(Body(name): Body<String>) -> String {
//!     format!("hello, {name}")
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     ffserver::main(|| vec![App::new("greeter").handlers(handlers![greet])])
//! }
//! ```
//!
//! `master new mygame` makes a game of your own around this, with a page that plays and a test; `master dev` builds and runs it, and
//! each change of a handler is live as soon as it compiles. The program is [`ffserver::main`] with its apps; it runs one node, or any of
//! a cluster's in one process: `mygame net gate config.json`.
//!
//! # A whole app
//!
//! A room that counts the clicks of all players. It keeps those of each player in a table, takes the total along when its process
//! is replaced, tells everybody who is connected, and any node of the cluster may ask it:
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use ffserver::prelude::*;
//!
//! /// The clicks of all players: a state of the app.
//! #[derive(Default)]
//! struct Total(AtomicU64);
//!
//! /// The clicks of one player: a row of a table, as a plain struct.
//! #[derive(Record, Clone, PartialEq)]
//! #[record(table = "score")]
//! struct Score {
//!     #[record(key)]
//!     name: String,
//!     clicks: i64,
//! }
//!
//! /// A client's message with the command 2: its arguments say what it needs,
//! /// its value is the reply.
//! #[net_handle(2)]
//! async fn click(
//!     node: Node,
//!     total: State<Total>,
//!     scores: Table<Score>,
//!     Body(name): Body<String>,
//! ) -> Result<String, HandlerError> {
//!     if scores.get(&name).await?.is_none() {
//!         scores.insert(Score { name: name.clone(), clicks: 0 }).await?;
//!     }
//!     let more = |score: &mut Score| {
//!         score.clicks += 1;
//!         score.clicks
//!     };
//!     // In the database within a tenth of a second, and never lost from here on.
//!     let mine = scores.update(&name, Save::within_ms(100), more).await?;
//!     let all = total.0.fetch_add(1, Ordering::Relaxed) + 1;
//!     node.broadcasts().to_all(CommandId(10), all.to_string().as_bytes());
//!     Ok(format!("{mine} of {all}"))
//! }
//!
//! /// A method that every node may call: `nodes.call("room", "total", "")`.
//! #[node_handle]
//! async fn total(total: State<Total>) -> String {
//!     total.0.load(Ordering::Relaxed).to_string()
//! }
//!
//! fn app() -> App {
//!     App::new("room")
//!         .state(Total::default())
//!         .table::<Score>()
//!         .handlers(handlers![click, total])
//!         // In the old process, when nothing runs there any more; 1 is the
//!         // version of these bytes.
//!         .freeze(1, |node| async move {
//!             let total = node.state::<Total>().ok_or("no total")?;
//!             Ok(total.0.load(Ordering::Relaxed).to_le_bytes().to_vec())
//!         })
//!         // In the new process, before anything else.
//!         .thaw(|node, frozen| async move {
//!             let clicks = u64::from_le_bytes(frozen.bytes.as_slice().try_into()?);
//!             let total = node.state::<Total>().ok_or("no total")?;
//!             total.0.store(clicks, Ordering::Relaxed);
//!             Ok(())
//!         })
//! }
//! # assert_eq!(app().name(), "room");
//! ```
//!
//! Its cluster, in which the clients are connected to one node and play on another; which node handles a command, the config alone
//! says:
//!
//! ```json
//! {
//!   "appmain": "target/debug/mygame",
//!   "master": { "rootport": 9969, "webport": 9968 },
//!   "db": { "url": "sqlite:data/game.sqlite", "migrations": "migrations" },
//!   "servers": {
//!     "room": { "app": "room", "rootport": 10300, "db": true },
//!     "net": { "app": "net", "netport": 10301, "remoteport": [{ "rootname": "room" }],
//!              "route": { "range": { "room": [[2, 9]] } } }
//!   }
//! }
//! ```
//!
//! # Handlers
//!
//! An async function with one of these attributes, listed by [`handlers!`]:
//!
//! | attribute | called by |
//! | --- | --- |
//! | [`#[net_handle(300)]`](macro@net_handle) | clients, by the command of their message; `default` takes what no other handler and no route does |
//! | [`#[node_handle]`](macro@node_handle) | every node of the cluster, with [`Nodes`] |
//! | [`#[root_handle]`](macro@root_handle) | the node's children, with [`Parents`] or [`Parent`] |
//! | [`#[remote_handle("gate")]`](macro@remote_handle) | the parent of that name, with [`Children`] |
//! | [`#[admin_handle("grant")]`](macro@admin_handle) | operators, on a node, on a kind or on all: `POST /run/grant` of the master |
//!
//! The messages of one session are handled one after the other, in the order in which the client has sent them; a handler that does
//! not mind says `concurrent`. A handler has until `limits.call_timeout_ms`, and one that panics answers with a fault.
//!
//! # Extractors
//!
//! Arguments of handlers. What the config or the app lacks for one is said when the node starts, not by a player.
//!
//! | argument | is |
//! | --- | --- |
//! | [`Body<T>`] | the message: [`Bytes`](bytes::Bytes), `String`, [`Json`], [`Bincode`], or a type that implements [`FromBody`](handler::FromBody) |
//! | [`Session`] | the client, on whichever node: its user and attributes; push, close, groups, [moves](Session::move_to) |
//! | [`State<T>`] | a value of the app, of [`App::state`] |
//! | [`Conf<T>`] | what the node's `conf` in the config says to the app, of [`App::conf`] |
//! | [`Table<T>`] | rows of a table as structs that derive [`Record`](derive@Record), of [`App::table`] |
//! | [`Db`], [`NamedDb<N>`](NamedDb) | SQL: the config's `db`, and one of its `databases` |
//! | [`Cache`] | bytes for a while, in this process or in memcached |
//! | [`Parents`], [`Parent<N>`](Parent), [`Children`], [`Nodes`] | calls of other nodes |
//! | [`Node`] | the node itself: broadcasts, sessions, clock, chance, metrics |
//! | [`Caller`], [`CommandId`] | who calls, and by which command |
//! | [`Handlers`] | the node's handlers, to change them while it runs |
//! | your own | a type that implements [`FromRequest`](handler::FromRequest) |
//!
//! A reply is `()`, [`Bytes`](bytes::Bytes), `String`, [`Json`], [`Bincode`], a [`Verdict`] over a login, an `Option` or a `Result` of
//! one, or a type that implements [`IntoReply`](handler::IntoReply).
//!
//! # Hooks
//!
//! | hook of [`App`] | when |
//! | --- | --- |
//! | [`on_started`](App::on_started), [`on_stopping`](App::on_stopping) | before the node takes any message; when it has handled the last one |
//! | [`freeze`](App::freeze), [`thaw`](App::thaw) | a reload: the state leaves the old process, and enters the new one |
//! | [`on_session_opened`](App::on_session_opened), [`on_session_verified`](App::on_session_verified), [`on_session_closed`](App::on_session_closed) | a client has connected, has logged in, is gone |
//! | [`on_session_entered`](App::on_session_entered), [`on_session_left`](App::on_session_left), [`on_session_not_moved`](App::on_session_not_moved) | a client was moved from one node to another |
//! | [`on_session_lost_node`](App::on_session_lost_node) | the node that a client played on is gone |
//! | [`on_child_connected`](App::on_child_connected), [`on_child_lost`](App::on_child_lost) | another node has linked to this one, or is lost |
//!
//! What waits for which hook is said at [`App`]. A login is decided by a handler, which returns a [`Verdict`]:
//! [`docs/sessions.md`][sessions].
//!
//! # Errors
//!
//! A handler fails with a [`HandlerError`], into which `?` turns any error: its text stays in the log, and the caller gets a sentence
//! only by [`HandlerError::new`]. A call fails with a [`CallError`], whose variant says what the caller can do, and whose [`Fault`] says
//! which node noticed it and whether the handler may have [run](Executed). Every call has exactly one outcome, within its deadline.
//!
//! # Features
//!
//! All of them are on by default; `default-features = false` leaves out of the build what your game does without.
//!
//! | feature | brings |
//! | --- | --- |
//! | `mysql`, `postgres` | MariaDB and MySQL, PostgreSQL as databases, beside SQLite, which is always there |
//! | `memcached` | the cache in memcached servers |
//! | `web` | the web server of a node, which is Rocket: `webport`, [`App::web`] |
//! | `allocator` | mimalloc as the program's allocator |
//! | `testing` | [`testing`], the test kit |
//!
//! A config that asks for what the program was built without is a fault at start. What each costs to build:
//! [`docs/features.md`][features].
//!
//! # Seams
//!
//! What a game may bring of its own, as one value each: [a client protocol](protocol), [a transport](transport), [a discovery
//! backend](discovery), [handlers that are no functions](Handlers), [metrics], and [a program](FFServer) that is not [`main`].
//!
//! # Where to go next
//!
//! In the repository:
//!
//! | to | read |
//! | --- | --- |
//! | start a cluster, and change a handler while it runs | [`README.md`][readme] |
//! | test a game without processes, in twenty lines: [`testing`] | [`docs/testing.md`][testing] |
//! | know a client on every node: groups, broadcasts, logins, moves | [`docs/sessions.md`][sessions] |
//! | keep data: records, databases, the cache | [`docs/data.md`][data] |
//! | decide which node handles a message, and call others | [`docs/routing.md`][routing] |
//! | know what is promised in every case, and the test that proves it | [`docs/semantics.md`][semantics] |
//! | set any key of the config | [`docs/config.md`][config] |
//! | run a cluster, upgrade it, look for what is wrong | [`docs/operations.md`][operations] |
//! | keep others out | [`docs/security.md`][security] |
//! | write a client in another language | [`docs/protocol.md`][wire] |
//! | let nodes find each other | [`docs/discovery.md`][discovery] |
//! | measure, and know how fast it is | [`docs/metrics.md`][metrics-page], [`docs/performance.md`][performance] |
//! | work on the framework | [`ARCHITECTURE.md`][architecture], [`CONTRIBUTING.md`][contributing], [`docs/glossary.md`][glossary] |
//!
//! [readme]: ../../../README.md
//! [testing]: ../../../docs/testing.md
//! [sessions]: ../../../docs/sessions.md
//! [data]: ../../../docs/data.md
//! [routing]: ../../../docs/routing.md
//! [semantics]: ../../../docs/semantics.md
//! [config]: ../../../docs/config.md
//! [features]: ../../../docs/features.md
//! [operations]: ../../../docs/operations.md
//! [security]: ../../../docs/security.md
//! [wire]: ../../../docs/protocol.md
//! [discovery]: ../../../docs/discovery.md
//! [metrics-page]: ../../../docs/metrics.md
//! [performance]: ../../../docs/performance.md
//! [architecture]: ../../../ARCHITECTURE.md
//! [contributing]: ../../../CONTRIBUTING.md
//! [glossary]: ../../../docs/glossary.md

// What is public is listed below, and line by line in `public-api.txt`. The modules are rooms: each imports only those before it.

#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "what only the test kit uses is small"))]

extern crate self as ffserver;

mod error;
mod identity;
mod cluster;
mod transit;
mod calls;
mod session;
mod node;
mod app;
mod exec;
mod ops;
mod gateway;
mod handover;
mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
mod program;

// What authors write handlers with.
pub use app::app::App;
pub use app::handler::{self, Bincode, Body, Caller, Json, Route, State};
pub use app::hooks::{Frozen, MoveEntered, NotMoved};
pub use app::verdict::Verdict;
pub use calls::neighbours::{Calling, Children, Parent, ParentName, Parents};
pub use calls::nodes::Nodes;
pub use error::{CallError, HandlerError};
pub use exec::handlers::{Handlers, ReplaceError};
pub use ffmacros::Record;
/// A command of the app, which operators run on a node, on a kind or on all: `POST /run/NAME` of the master.
///
/// Arguments are those of every handler but a [`Session`]: no client makes the call. Of what the operator gives, as JSON,
/// one argument is a [`Json`]; its fields are listed for operators. What is returned is told as JSON: `()`, a text, [`Json`], or a
/// `Result` of them, see [`IntoResult`](handler::IntoResult). The handler has `limits.call_timeout_ms`, or less when the
/// operator says so, and its panic is an error, as of every other.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[derive(serde::Deserialize)]
/// struct Grant {
///     user: String,
///     gold: u32,
/// }
///
/// /// Gives gold to a user of this node.
/// #[admin_handle("grant")]
/// async fn grant(node: Node, Json(Grant { user, gold }): Json<Grant>) -> Result<Json<u32>, HandlerError> {
///     let mut sessions = node.sessions().into_iter();
///     let session = sessions.find(|session| session.user().as_ref() == Some(&user));
///     let session = session.ok_or_else(|| HandlerError::new("that user is not here"))?;
///     let has = session.get("gold").map_or(Ok(0), |has| has.parse::<u32>())?;
///     session.set("gold", (has + gold).to_string()).await?;
///     Ok(Json(has + gold))
/// }
///
/// let app = App::new("game").handlers(handlers![grant]);
/// // curl -X POST 'http://127.0.0.1:9998/run/grant?on=kind:net' --data '{"user": "ann", "gold": 7}'
/// # let _ = app;
/// ```
#[doc(inline)]
pub use ffmacros::admin_handle;
/// A handler of a client's command.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(300)]
/// async fn hello(session: Session, Body(name): Body<String>) -> String {
///     format!("hello {name} from {}", session.address())
/// }
///
/// #[net_handle(default)]
/// async fn unknown(command: CommandId) -> String {
///     format!("what is {command}?")
/// }
/// # let _ = App::new("net").handlers(handlers![hello, unknown]);
/// ```
#[doc(inline)]
pub use ffmacros::net_handle;
/// A handler that every node of the cluster may call: [`Nodes`] has who does.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[node_handle]
/// async fn players(node: Node) -> String {
///     node.sessions().len().to_string()
/// }
/// # let _ = App::new("room").handlers(handlers![players]);
/// ```
#[doc(inline)]
pub use ffmacros::node_handle;
/// A handler that a parent may call: [`Children`] has who does.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[remote_handle("gate")]
/// async fn enter(Body(room): Body<String>) -> String {
///     format!("in {room}")
/// }
/// # let _ = App::new("game").handlers(handlers![enter]);
/// ```
#[doc(inline)]
pub use ffmacros::remote_handle;
/// A handler that children may call: [`Parents`] has who does.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[root_handle]
/// async fn enter(caller: Caller, Body(room): Body<String>) -> String {
///     format!("{} wants to {room}", caller.node)
/// }
/// # let _ = App::new("gate").handlers(handlers![enter]);
/// ```
#[doc(inline)]
pub use ffmacros::root_handle;
#[doc(inline)]
pub use ffproto::{Code, CommandId, Executed, Fault, NodeName, SessionId};
/// One of the config's `databases`, as an argument of a handler.
///
/// ```
/// use ffserver::db::args;
/// use ffserver::prelude::*;
///
/// databases! { Logs = "logs" }
///
/// #[net_handle(6)]
/// async fn report(logs: NamedDb<Logs>, Body(text): Body<String>) -> Result<(), HandlerError> {
///     logs.execute("INSERT INTO report (text) VALUES (?)", &args![text]).await?;
///     Ok(())
/// }
/// # let _ = App::new("net").handlers(handlers![report]);
/// ```
#[doc(inline)]
pub use ffstore::NamedDb;
#[doc(inline)]
pub use ffstore::{Cache, Db, Record, Save, Table, cache, databases, db};
pub use node::conf::Conf;
pub use node::metrics::Metrics;
pub use node::{Node, Phase};
pub use session::broadcast::Broadcasts;
pub use session::conflated_broadcast::ConflatedBroadcast;
pub use session::handle::{MoveError, Session, SessionError};
pub use session::local::PushError;
// For handlers that return it, and for their log.
pub use {bytes, tracing};

// What a program is made of.
#[doc(inline)]
pub use ffambient::{Ambient, Chance, ChanceError, Clock};
#[doc(inline)]
pub use ffconfig::AppFinding;
pub use handover::receiver::TakeOverError;
pub use identity::stop::Stop;
pub use program::main;
pub use runtime::discovery;
pub use runtime::in_process::InProcessNet;
pub use runtime::preflight::{CheckFinding, check, check_apps};
pub use runtime::process;
pub use runtime::server::{BuildError, FFServer, RunError};

/// A client protocol of an app's own: bytes to messages and back, as a value that implements
/// [`ClientProtocol`](protocol::ClientProtocol); [`App::protocol`]
/// takes it. `docs/protocol.md` has the built-in ones.
pub mod protocol {
    #[doc(inline)]
    pub use ffproto::protocol::{
        BUILT_IN, Begins, ClientProtocol, Decoder, Ending, FaultSaid, HEADERS_BYTES_MAX, Next, ProtocolFault,
        Received, ReplyTo,
    };
}

/// A transport of an app's own: how clients' connections come, how bytes go over them, and whether one can go on in another process,
/// as a value that implements [`Transport`](transport::Transport); [`App::transport`] takes it.
pub mod transport {
    #[doc(inline)]
    pub use ffnet::transport::memory::MemoryClient;
    #[doc(inline)]
    pub use ffnet::transport::{
        ClientListener, ClientStream, MemoryTransport, TcpTransport, Transport, Travel,
    };
}

/// Records: rows of tables as plain structs, read from memory, and written so that no update is lost. `docs/data.md` has the whole.
///
/// ```
/// use ffserver::prelude::*;
/// use ffserver::record::RecordError;
///
/// #[derive(Record, Clone, PartialEq)]
/// #[record(table = "account")]
/// struct Account {
///     #[record(key)]
///     name: String,
///     coins: i64,
/// }
///
/// async fn paid(accounts: &Table<Account>, name: &String, coins: i64) -> Result<i64, RecordError> {
///     let pay = |account: &mut Account| {
///         account.coins += coins;
///         account.coins
///     };
///     accounts.update(name, Save::Durable, pay).await // In the database when this ends.
/// }
/// ```
pub mod record {
    #[doc(inline)]
    pub use ffstore::record::{
        Column, Field, Key, Kind, Misfit, Record, RecordError, Save, SchemaError, Shape, Table, create, ddl,
    };
}

/// Who a node is, proven: for a program that runs nodes without a master. [`FFServer::with_startup`] has an example.
pub mod keys {
    pub use crate::identity::keys::{KeySource, Startup};
    #[doc(inline)]
    pub use ffkeys::{ClusterKeys, ClusterSecret, KeyError, NameKey, NodeKeys, TokenCheck};
    #[doc(inline)]
    pub use ffproto::Versions;
}

/// The handles that an app counts with, of [`Node::metrics`], where an example is.
pub mod metrics {
    #[doc(inline)]
    pub use fftelemetry::metrics::{Counter, Family, Gauge, Histogram, ObjectGuard, Section, SectionTimer};
}

/// What a module of handlers needs: `use ffserver::prelude::*;`
pub mod prelude {
    #[doc(no_inline)]
    pub use crate::{
        App, Bincode, Body, Cache, CallError, Caller, Children, CommandId, Conf, Db, Frozen, HandlerError,
        Handlers, Json, MoveEntered, NamedDb, Node, NodeName, Nodes, NotMoved, Parent, Parents, Record, Save,
        Session, State, Table, Verdict, admin_handle, databases, handlers, net_handle, node_handle, parents,
        remote_handle, root_handle,
    };
    #[doc(no_inline)]
    pub use bytes::Bytes;
}
