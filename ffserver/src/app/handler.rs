//! Handlers: plain async functions, whose arguments are taken out of a [`Request`] and whose value becomes a reply.
//!
//! An app may bring arguments and replies of its own: a type that implements [`FromRequest`] stands among a handler's arguments, one
//! that implements [`IntoReply`] after its arrow. What is noticed at start, before any message, is in
//! [`check`](FromRequest::check); an error of any type becomes the caller's with `?`.
//!
//! ```
//! use std::collections::HashMap;
//! use ffserver::handler::{CheckContext, FromRequest, IntoReply, Outcome, Request};
//! use ffserver::prelude::*;
//!
//! /// How far each user has come: a state of the app.
//! struct Levels(HashMap<String, u32>);
//!
//! /// The user of the session, with the level.
//! struct Player {
//!     name: String,
//!     level: u32,
//! }
//!
//! impl FromRequest for Player {
//!     fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
//!         let user = request.session()?.user();
//!         let name = user.ok_or_else(|| HandlerError::bad_request("nobody has logged in"))?;
//!         let level = request.state::<Levels>()?.0.get(&name).copied().unwrap_or(1);
//!         Ok(Self { name, level })
//!     }
//!
//!     fn check(facts: &CheckContext<'_>) -> Result<(), String> {
//!         facts.need_session();         // So that the session is known on a node that is not its net node.
//!         State::<Levels>::check(facts) // A node whose app lacks the state does not start.
//!     }
//! }
//!
//! /// Rows of comma-separated values.
//! struct Csv(Vec<[String; 2]>);
//!
//! impl IntoReply for Csv {
//!     fn into_reply(self) -> Outcome {
//!         let lines = self.0.iter().map(|row| row.join(",") + "\n");
//!         lines.collect::<String>().into_reply()
//!     }
//! }
//!
//! #[net_handle(1)]
//! async fn level(player: Player) -> Csv {
//!     Csv(vec![[player.name, player.level.to_string()]])
//! }
//!
//! fn app() -> App {
//!     App::new("levels").state(Levels(HashMap::new())).handlers(handlers![level])
//! }
//! # assert_eq!(app().name(), "levels");
//! ```

mod fields;
mod request;

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use ffproto::{CommandId, NodeName, SessionId};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::app::route::{Key, Listed, Route};
use crate::calls::neighbours::{Children, Parent, ParentName, Parents};
use crate::calls::nodes::Nodes;
use crate::error::HandlerError;
use crate::node::Node;
use crate::node::conf::Conf;
use crate::session::handle::Session;
use ffstore::cache::Cache;
use ffstore::db::{DatabaseName, Db, NamedDb};
use ffstore::record::{Record, Table};

pub(crate) use request::Sender;
pub use request::{CheckContext, Request};

/// An extractor: an argument of a handler. An app may bring its own; [the module](self) has an example.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no argument of a handler",
    label = "this is taken from no message",
    note = "arguments are: Body<Bytes | String | Json<T> | Bincode<T>>, Json<T>, Bincode<T>, Session, Caller, CommandId, State<T>, Conf<T>, Parents, Parent<N>, Children, Nodes, Node, Handlers, Db, NamedDb<N>, Table<T>, Cache, and types of yours that implement FromRequest"
)]
pub trait FromRequest: Sized {
    /// Takes the argument out of the request. Arguments are taken in their order, without waiting: what takes time is the handler's.
    ///
    /// # Errors
    /// The handler does not run then; the caller gets the error. Any error becomes one with `?`, and is for the log; what the caller
    /// has done wrong is a [`HandlerError::bad_request`].
    fn from_request(request: &mut Request) -> Result<Self, HandlerError>;

    /// Whether the node can provide the argument at all: asked at start, by `master --check`, and when handlers are replaced.
    ///
    /// # Errors
    /// What the handler lacks, for the operator, to be read after the handler's name (`takes Table<Account>, which …`); the node
    /// does not start then.
    fn check(_: &CheckContext<'_>) -> Result<(), String> {
        Ok(())
    }

    /// The names of what the argument takes of a command of the app, for operators to read: the fields of a [`Json`].
    fn fields() -> &'static [&'static str] {
        &[]
    }
}

/// A type that a body can be read as, inside of [`Body`]. An app may bring its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not read from a body",
    note = "bodies are: Bytes, Vec<u8>, String, Json<T>, Bincode<T>, and types of yours that implement FromBody"
)]
pub trait FromBody: Sized {
    /// Reads the body.
    ///
    /// # Errors
    /// A sentence that the client may see.
    fn from_body(body: Bytes) -> Result<Self, String>;
}

/// The body of the message: bytes as they came, text, [`Json`] or [`Bincode`].
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(1)]
/// async fn shout(Body(text): Body<String>) -> String {
///     text.to_uppercase() // What is no UTF-8 has been refused before.
/// }
/// # let _ = App::new("net").handlers(handlers![shout]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body<T>(pub T);

/// A JSON body, as an argument and as a reply.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(2)]
/// async fn sum(Body(Json(numbers)): Body<Json<Vec<i64>>>) -> Json<i64> {
///     Json(numbers.iter().sum())
/// }
/// # let _ = App::new("net").handlers(handlers![sum]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A bincode body (version 1, fixed-size integers, little-endian), as an argument and as a reply.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[node_handle]
/// async fn middle(Body(Bincode((from, to))): Body<Bincode<(f32, f32)>>) -> Bincode<f32> {
///     Bincode((from + to) / 2.0)
/// }
/// # let _ = App::new("game").handlers(handlers![middle]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bincode<T>(pub T);

impl FromBody for Bytes {
    fn from_body(body: Bytes) -> Result<Self, String> {
        Ok(body)
    }
}
impl FromBody for Vec<u8> {
    fn from_body(body: Bytes) -> Result<Self, String> {
        Ok(body.into())
    }
}
impl FromBody for String {
    fn from_body(body: Bytes) -> Result<Self, String> {
        String::from_utf8(body.into()).map_err(|e| format!("the body is no UTF-8 text: {e}"))
    }
}
impl<T: DeserializeOwned> FromBody for Json<T> {
    fn from_body(body: Bytes) -> Result<Self, String> {
        serde_json::from_slice(&body).map(Json).map_err(|e| format!("the body is not the expected JSON: {e}"))
    }
}
impl<T: DeserializeOwned> FromBody for Bincode<T> {
    fn from_body(body: Bytes) -> Result<Self, String> {
        use bincode::Options;
        // The limit is the body itself: a length inside it cannot ask for more memory than has arrived.
        let options = bincode::DefaultOptions::new().with_fixint_encoding().with_limit(body.len() as u64);
        options
            .deserialize(&body)
            .map(Bincode)
            .map_err(|e| format!("the body is not the expected bincode: {e}"))
    }
}

fn read_body<T: FromBody>(request: &mut Request) -> Result<T, HandlerError> {
    T::from_body(request.take_body()?).map_err(HandlerError::bad_request)
}

impl<T: FromBody> FromRequest for Body<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        read_body(request).map(Body)
    }
}
impl<T: DeserializeOwned> FromRequest for Json<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        read_body(request)
    }

    fn fields() -> &'static [&'static str] {
        fields::of::<T>()
    }
}
impl<T: DeserializeOwned> FromRequest for Bincode<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        read_body(request)
    }
}

/// The session of the client whose message is handled, or made this call; on every node.
impl FromRequest for Session {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.session()
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        facts.need_session();
        Ok(())
    }
}

/// The command that the client sent (of the message that made this call, when another node calls).
impl FromRequest for CommandId {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.command().ok_or_else(|| HandlerError::bad_request(NO_CLIENT))
    }
}

/// The caller: who made the call, and for which client.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[node_handle]
/// async fn who_asks(caller: Caller) -> String {
///     match caller.session {
///         Some(session) => format!("{} for the client {session}", caller.node),
///         None => format!("{} itself", caller.node),
///     }
/// }
/// # let _ = App::new("game").handlers(handlers![who_asks]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The node that called: this node itself when one of its clients did, the master when an operator did.
    pub node: NodeName,
    /// The client session whose message made the call, if one did.
    pub session: Option<SessionId>,
}

impl FromRequest for Caller {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(request.caller())
    }
}

/// The app's value of type `T`, shared by all its handlers on this node.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use ffserver::prelude::*;
///
/// #[derive(Default)]
/// struct Visits(AtomicU64);
///
/// #[net_handle(1)]
/// async fn visit(visits: State<Visits>) -> String {
///     (visits.0.fetch_add(1, Ordering::Relaxed) + 1).to_string()
/// }
///
/// let app = App::new("door").state(Visits::default()).handlers(handlers![visit]);
/// # let _ = app;
/// ```
#[derive(Debug)]
pub struct State<T>(Arc<T>);

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
impl<T> Deref for State<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
impl<T> State<T> {
    /// A state for calling a handler in a unit test.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// A state that others have, too.
    pub(crate) fn shared(value: Arc<T>) -> Self {
        Self(value)
    }
}

impl<T: Send + Sync + 'static> FromRequest for State<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.state()
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        if facts.has_state::<T>() {
            return Ok(());
        }
        let name = std::any::type_name::<T>();
        Err(format!("takes State<{name}>, which the app does not have: add .state(…) to it"))
    }
}

impl<T: Send + Sync + 'static> FromRequest for Conf<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.node.conf().ok_or_else(|| HandlerError::internal("a Conf that the app does not have"))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        if facts.has_state::<Self>() {
            return Ok(());
        }
        let name = std::any::type_name::<T>();
        let last = name.rsplit("::").next().unwrap_or_default();
        Err(format!("takes Conf<{name}>, which the app does not have: add .conf::<{last}>() to it"))
    }
}

impl FromRequest for Node {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(request.node.clone())
    }
}
impl FromRequest for Parents {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(Parents::new(request.origin()))
    }
}
impl FromRequest for Nodes {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(Nodes::new(request.origin()))
    }
}
impl FromRequest for Children {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(Children::new(request.origin()))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        match facts.config.rootport {
            Some(_) => Ok(()),
            None => Err("takes Children, but the node has no rootport".into()),
        }
    }
}
impl<N: ParentName> FromRequest for Parent<N> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(Parent::new(Parents::new(request.origin())))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        has_parent(facts.config, N::NAME)
    }
}

pub(crate) fn has_parent(config: &ffconfig::Node, name: &str) -> Result<(), String> {
    if config.parents.iter().any(|parent| parent.name == *name || parent.key == *name) {
        return Ok(());
    }
    Err(format!("needs the parent `{name}`, which is not in the node's remoteport"))
}

impl FromRequest for Db {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.node.db().cloned().ok_or_else(|| HandlerError::internal("no database"))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        if facts.config.db {
            Ok(())
        } else {
            Err("takes Db, but the node's config has no \"db\": true".into())
        }
    }
}
impl<N: DatabaseName> FromRequest for NamedDb<N> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        let db = request.node.database(N::NAME).cloned();
        db.map(Self::new).ok_or_else(|| HandlerError::internal("no such database"))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        if facts.config.databases.iter().any(|name| name == N::NAME) {
            return Ok(());
        }
        let name = N::NAME;
        Err(format!(
            "takes the database `{name}`: that needs `databases.{name}`, and \"db\": true on the node"
        ))
    }
}
impl<T: Record> FromRequest for Table<T> {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        request.node.table().ok_or_else(|| HandlerError::internal("no such table"))
    }

    fn check(facts: &CheckContext<'_>) -> Result<(), String> {
        let name = std::any::type_name::<T>();
        if !facts.has_state::<Self>() {
            let last = name.rsplit("::").next().unwrap_or_default();
            return Err(format!(
                "takes Table<{name}>, which the app does not have: add .table::<{last}>() to it"
            ));
        }
        if facts.config.db {
            Ok(())
        } else {
            Err(format!("takes Table<{name}>, but the node's config has no \"db\": true"))
        }
    }
}
impl FromRequest for Cache {
    fn from_request(request: &mut Request) -> Result<Self, HandlerError> {
        Ok(request.node.cache().clone())
    }
}

/// The sentence for a caller that is no client.
const NO_CLIENT: &str = "no client made this call";

/// The outcome of a handler: a reply, no reply (only for handlers without a value), or an error.
pub type Outcome = Result<Option<Bytes>, HandlerError>;

/// A running handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A value that a handler may return. `()` replies nothing to a client (a call between nodes still ends, with an empty
/// answer); every other value is a reply, also an empty one. An app may bring its own; [the module](self) has an example.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reply of a handler",
    note = "replies are: (), Bytes, Vec<u8>, String, &'static str, Json<T>, Bincode<T>, and Result<reply, any error>; or types of yours that implement IntoReply"
)]
pub trait IntoReply {
    /// The reply.
    ///
    /// # Errors
    /// The handler's own error, or a value that cannot be encoded.
    fn into_reply(self) -> Outcome;
}

impl IntoReply for () {
    fn into_reply(self) -> Outcome {
        Ok(None)
    }
}

macro_rules! bytes_are_replies {
    ($($ty:ty),+) => {
        $(impl IntoReply for $ty {
            fn into_reply(self) -> Outcome {
                Ok(Some(self.into()))
            }
        })+
    };
}
bytes_are_replies!(Bytes, Vec<u8>, String, &'static str);

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Outcome {
        Ok(Some(serde_json::to_vec(&self.0)?.into()))
    }
}
impl<T: Serialize> IntoReply for Bincode<T> {
    fn into_reply(self) -> Outcome {
        use bincode::Options;
        let options = bincode::DefaultOptions::new().with_fixint_encoding();
        Ok(Some(options.serialize(&self.0)?.into()))
    }
}
impl<T: IntoReply, E: IntoError> IntoReply for Result<T, E> {
    fn into_reply(self) -> Outcome {
        self.map_err(IntoError::into_error)?.into_reply()
    }
}

/// A value that a command of the app ([`admin_handle`](crate::admin_handle)) may return: what its operator reads, in JSON. A text is
/// a JSON string, `()` is `null`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no result of a command",
    note = "results are: (), String, &'static str, Json<T>, and Result<result, any error>"
)]
pub trait IntoResult {
    /// The result as JSON.
    ///
    /// # Errors
    /// The command's own error, or a value that cannot be encoded.
    fn into_result(self) -> Outcome;
}

impl IntoResult for () {
    fn into_result(self) -> Outcome {
        Json(()).into_reply()
    }
}
impl IntoResult for String {
    fn into_result(self) -> Outcome {
        Json(self).into_reply()
    }
}
impl IntoResult for &'static str {
    fn into_result(self) -> Outcome {
        Json(self).into_reply()
    }
}
impl<T: Serialize> IntoResult for Json<T> {
    fn into_result(self) -> Outcome {
        self.into_reply()
    }
}
impl<T: IntoResult, E: IntoError> IntoResult for Result<T, E> {
    fn into_result(self) -> Outcome {
        self.map_err(IntoError::into_error)?.into_result()
    }
}

/// An error that a handler may fail with: any type that converts to a [`HandlerError`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no error of a handler",
    note = "errors are: HandlerError, anyhow::Error, String, &'static str, and everything that is std::error::Error + Send + Sync + 'static"
)]
pub trait IntoError {
    /// The error.
    fn into_error(self) -> HandlerError;
}

// Not recommended, so that a type which is no error is reported by the note above, and not by what `Into` leads to.
#[diagnostic::do_not_recommend]
impl<E: Into<HandlerError>> IntoError for E {
    fn into_error(self) -> HandlerError {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use ffproto::Code;

    use super::*;
    use crate::{CallError, net_handle};

    #[net_handle(1)]
    async fn score(Body(text): Body<String>) -> anyhow::Result<String> {
        let score: u32 = text.parse().context("no score")?;
        Ok(score.to_string())
    }

    #[test]
    fn a_handler_may_return_anyhows_result() {
        assert_eq!(crate::handlers![score].len(), 1);
        let fails = anyhow::Result::<String>::Err(anyhow::anyhow!("password=secret")).into_reply();
        let error = fails.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Handler, "the handler failed"));
    }

    #[test]
    fn a_call_error_that_a_handler_returns_in_anyhow_keeps_its_code() {
        let fault = ffproto::Fault {
            code: Code::Timeout,
            at: NodeName::master(),
            executed: ffproto::Executed::Unknown,
            message: "too late".into(),
        };
        let reply = Err::<(), _>(CallError::from(fault)).context("asking for the score").into_reply();
        let error = reply.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Timeout, "too late"));
    }
}
