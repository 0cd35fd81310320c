//! The node runtime: what an app author imports, and what a program that runs nodes is made of.
//!
//! An app is a list of handlers, which are async functions whose arguments say what they need:
//!
//! ```
//! use ffserver::prelude::*;
//!
//! #[net_handle(100)] // The command of a client's message.
//! async fn greet(Body(name): Body<String>) -> String {
//!     format!("hello, {name}")
//! }
//!
//! pub fn app() -> App {
//!     App::new("greeter").handlers(handlers![greet])
//! }
//! ```
//!
//! A program that runs nodes is [`ffserver::main`] with its apps: `ffserver::main(|| vec![app()])`.
//!
//! The way of a client's message: the gateway reads the frame and decides over it, the executor runs the command's
//! handler, the handler calls a parent through [`Parent`], the call crosses an [`ffnet::link`], and the link's service at the
//! parent runs the handler there; the outcome comes back the same way. A command without a handler here goes on over the link
//! that the transit gives it.
//!
//! The modules below are rooms: each imports only those before it in this list. Of most only types are public, which are
//! listed here; authors take them from the [`prelude`].
//!
//! What app authors and operators read, in the repository:
//!
//! - `README.md`: a cluster, and a handler that is changed while it runs;
//! - `docs/sessions.md`: clients on every node, groups and broadcasts, logins, moves;
//! - `docs/data.md`: databases, the cache, records;
//! - `docs/routing.md`: which node handles a client's message;
//! - `docs/discovery.md`: how nodes find each other, and a backend of your own;
//! - `docs/semantics.md`: what is promised in every case, and the test that proves it;
//! - `docs/config.md`: every key of `config.json`;
//! - `docs/operations.md`: running a cluster, replacing its nodes, what a message of the log means;
//! - `docs/protocol.md`: the wire, for clients in other languages;
//! - `docs/metrics.md`: what is measured, and how an app measures;
//! - `docs/performance.md`: how fast it is, and how that was measured;
//! - `docs/glossary.md`: every noun of the code;
//! - `ARCHITECTURE.md`: where what is in the code; `CONTRIBUTING.md`: where something new goes.

extern crate self as ffserver;

pub mod error;
mod identity;
mod cluster;
mod transit;
mod calls;
mod session;
pub mod node;
mod app;
mod exec;
mod ops;
mod gateway;
mod handover;
mod runtime;
mod program;

pub use app::app::App;
pub use app::handler::{self, Bincode, Body, Caller, Json, Route, State};
pub use app::hooks::{Frozen, MoveEntered, NotMoved};
pub use app::verdict::{self as login, Verdict};
pub use calls::neighbours::{Calling, Children, Parent, ParentName, Parents};
pub use calls::nodes::Nodes;
pub use error::{CallError, HandlerError};
pub use exec::handlers::{Handlers, ReplaceError};
pub use ffambient::{Ambient, Chance, ChanceError, Clock};
pub use ffconfig::AppFinding;
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
pub use ffmacros::admin_handle;
pub use ffmacros::{Record, net_handle, node_handle, remote_handle, root_handle};
pub use ffnet::transport;
pub use ffproto::{Code, CommandId, Executed, Fault, NodeName, SessionId, protocol};
pub use ffstore::{Cache, Db, NamedDb, Record, Save, Table, cache, databases, db, record};
pub use handover::receiver::TakeOverError;
pub use identity::stop::Stop;
pub use node::conf::Conf;
pub use node::metrics::Metrics;
pub use node::{Node, Phase};
pub use program::main;
pub use runtime::discovery;
pub use runtime::in_process::InProcessNet;
pub use runtime::preflight::{CheckFinding, check, check_apps};
pub use runtime::process;
pub use runtime::server::{BuildError, FFServer, RunError};
pub use session::broadcast::Broadcasts;
pub use session::conflated_broadcast::ConflatedBroadcast;
pub use session::handle::{MoveError, Session, SessionError};
pub use session::local::PushError;
pub use {bytes, tracing};

/// Who a node is, proven: for a program that runs nodes without a master.
pub mod keys {
    pub use crate::identity::keys::{KeySource, Startup};
    pub use ffkeys::{ClusterKeys, ClusterSecret, KeyError, NameKey, NodeKeys, TokenCheck};
    pub use ffproto::Versions;
}

/// The handles that an app counts with, of [`Node::metrics`].
pub mod metrics {
    pub use fftelemetry::metrics::{Counter, Family, Gauge, Histogram, ObjectGuard, Section, SectionTimer};
}

/// What a module of handlers needs: `use ffserver::prelude::*;`
pub mod prelude {
    pub use crate::{
        App, Bincode, Body, Cache, CallError, Caller, Children, CommandId, Conf, Db, Frozen, HandlerError,
        Handlers, Json, MoveEntered, NamedDb, Node, NodeName, Nodes, NotMoved, Parent, Parents, Record, Save,
        Session, State, Table, Verdict, admin_handle, databases, handlers, net_handle, node_handle, parents,
        remote_handle, root_handle,
    };
    pub use bytes::Bytes;
}
