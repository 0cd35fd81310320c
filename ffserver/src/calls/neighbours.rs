//! Calls of neighbours, as authors make them: `Parents`, `Children`, and a parent named by type.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::side::Side;
use crate::error::{CallError, HandlerError};
pub use crate::transit::call::Calling;
use crate::transit::call::Origin;

/// The parents of this node (firefly's `remote[NAME].callRemote`): an extractor of every handler, and
/// [`Node::call_parents`](crate::Node::call_parents) elsewhere. `who` is a parent's name, or a key that `count`
/// makes several of.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(300)]
/// async fn enter(parents: Parents, Body(room): Body<String>) -> Result<Bytes, CallError> {
///     parents.notify("gate", "somebody_enters", &room)?;
///     parents.call("gate", "enter", &room).await // A handler of the parent's: `#[root_handle] async fn enter(…)`.
/// }
/// # let _ = App::new("net").handlers(handlers![enter]);
/// ```
#[derive(Debug, Clone)]
pub struct Parents {
    origin: Origin,
}

/// The children of this node (firefly's `root.callChild`): an extractor of every handler, and
/// [`Node::call_children`](crate::Node::call_children) elsewhere. `who` is a child's name or a kind of children.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[root_handle]
/// async fn enter(children: Children, Body(room): Body<String>) -> Result<Bytes, CallError> {
///     children.call("game1", "enter", room).await // A handler of the child's: `#[remote_handle("gate")] async fn enter(…)`.
/// }
/// # let _ = App::new("gate").handlers(handlers![enter]);
/// ```
#[derive(Debug, Clone)]
pub struct Children {
    origin: Origin,
}

impl Parents {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin }
    }

    /// These calls, waiting at most `timeout` (default `limits.call_timeout_ms`). A call made by a request
    /// never outlives the request's own deadline.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.origin.timeout = timeout;
        self
    }

    /// Calls `method` of the parent `who`. It is queued before this returns,
    /// so calls made one after the other arrive in that order. When the node has just ended or is being
    /// replaced, the call waits for it, at most `limits.park_ms`. Cancel-safe: dropping the future
    /// forgets the answer, the call itself has been sent.
    ///
    /// # Errors
    /// [`CallError`], each call exactly one outcome: not connected, unknown method, link lost,
    /// timeout, overloaded, or how the handler failed.
    pub fn call(&self, who: &str, method: &str, body: impl AsRef<[u8]>) -> Calling {
        self.origin.call(Side::Parent, who, method, body.as_ref())
    }

    /// Calls `method` with a JSON body and reads a JSON answer.
    ///
    /// # Errors
    /// What [`call`](Self::call) says, or JSON that does not fit.
    pub async fn call_json<Q, R>(&self, who: &str, method: &str, request: &Q) -> Result<R, HandlerError>
    where
        Q: Serialize + Sync,
        R: DeserializeOwned,
    {
        call_json(|body| self.call(who, method, body), request).await
    }

    /// Tells `who` something and expects nothing; in order with calls.
    ///
    /// # Errors
    /// [`CallError`] when it could not be sent.
    pub fn notify(&self, who: &str, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        Ok(self.origin.notify(Side::Parent, who, method, body.as_ref())?)
    }
}

/// Each method is as that of [`Parents`].
impl Children {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin }
    }

    /// These calls, waiting at most `timeout`, as [`Parents::within`].
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.origin.timeout = timeout;
        self
    }

    /// Calls `method` of the child `who`, as [`Parents::call`] does of a parent.
    ///
    /// # Errors
    /// [`CallError`], each call exactly one outcome.
    pub fn call(&self, who: &str, method: &str, body: impl AsRef<[u8]>) -> Calling {
        self.origin.call(Side::Child, who, method, body.as_ref())
    }

    /// Calls `method` with a JSON body and reads a JSON answer.
    ///
    /// # Errors
    /// What [`call`](Self::call) says, or JSON that does not fit.
    pub async fn call_json<Q, R>(&self, who: &str, method: &str, request: &Q) -> Result<R, HandlerError>
    where
        Q: Serialize + Sync,
        R: DeserializeOwned,
    {
        call_json(|body| self.call(who, method, body), request).await
    }

    /// Tells `who` something and expects nothing; in order with calls.
    ///
    /// # Errors
    /// [`CallError`] when it could not be sent.
    pub fn notify(&self, who: &str, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        Ok(self.origin.notify(Side::Child, who, method, body.as_ref())?)
    }
}

async fn call_json<Q, R>(call: impl FnOnce(Vec<u8>) -> Calling, request: &Q) -> Result<R, HandlerError>
where
    Q: Serialize + Sync,
    R: DeserializeOwned,
{
    let answer = call(serde_json::to_vec(request)?).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Names a parent in an argument's type; [`parents!`](crate::parents) writes it.
pub trait ParentName {
    /// The parent's name or key in the config.
    const NAME: &'static str;
}

/// One parent, named by type: a handler that takes `Parent<Gate>` can only be in a node whose config has
/// that parent, which is checked at start.
///
/// ```
/// use ffserver::prelude::*;
///
/// parents! { Gate = "gate" }
///
/// #[net_handle(300)]
/// async fn enter(gate: Parent<Gate>, Body(room): Body<String>) -> Result<Bytes, CallError> {
///     gate.call("enter", room).await
/// }
/// # let _ = App::new("net").handlers(handlers![enter]);
/// ```
#[derive(Debug, Clone)]
pub struct Parent<N> {
    parents: Parents,
    name: std::marker::PhantomData<fn() -> N>,
}

impl<N: ParentName> Parent<N> {
    pub(crate) fn new(parents: Parents) -> Self {
        Self { parents, name: std::marker::PhantomData }
    }

    /// Calls `method` of this parent, see [`Parents::call`].
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, method: &str, body: impl AsRef<[u8]>) -> Calling {
        self.parents.call(N::NAME, method, body)
    }

    /// Tells this parent something, see [`Parents::notify`].
    ///
    /// # Errors
    /// [`CallError`] when it could not be sent.
    pub fn notify(&self, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        self.parents.notify(N::NAME, method, body)
    }
}

/// Names the parents that an app calls: `parents! { Gate = "gate" }` makes `Parent<Gate>` an extractor; [`Parent`] has an example.
#[macro_export]
macro_rules! parents {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(
            #[doc = concat!("The parent `", $text, "`.")]
            #[derive(Debug, Clone, Copy)]
            pub(crate) struct $name;
            impl $crate::ParentName for $name {
                const NAME: &'static str = $text;
            }
        )+
    };
    ($($other:tt)*) => {
        ::core::compile_error!("parents are written as TYPE = \"name in the config\": parents! { Gate = \"gate\" }");
    };
}
