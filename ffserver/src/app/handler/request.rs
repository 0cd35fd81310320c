//! The request: one message on its way to its handler, as extractors see it; and the facts that they may check at start.

use std::any::TypeId;
use std::cell::Cell;

use bytes::Bytes;
use ffproto::link::Client;
use ffproto::{CommandId, NodeName};
use tokio::time::Instant;

use super::{Caller, NO_CLIENT, State};
use crate::error::HandlerError;
use crate::node::Node;
use crate::session::handle::Session;
use crate::session::local::LocalSession;
use crate::transit::call::Origin;

/// One message on its way to its handler, out of which [extractors](super::FromRequest) take its arguments.
pub struct Request {
    pub(crate) node: Node,
    pub(crate) from: Sender,
    pub(crate) client: Option<Client>,
    pub(crate) deadline: Instant,
    pub(crate) body: Option<Bytes>,
}

/// The sender of a request.
pub(crate) enum Sender {
    /// A client of this node.
    Session(LocalSession),
    /// A parent or a child.
    Node(NodeName),
    /// Another node; `by` is the neighbour that brought the request, and waits for its end.
    Far { node: NodeName, by: NodeName },
    /// An operator, by way of the master.
    Operator,
}

impl Request {
    /// The node that the handler runs on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Who made the call, and for which client.
    pub fn caller(&self) -> Caller {
        let node = match &self.from {
            Sender::Session(_) => self.node.name().clone(),
            Sender::Node(name) | Sender::Far { node: name, .. } => name.clone(),
            Sender::Operator => NodeName::master(),
        };
        Caller { node, session: self.client.map(|client| client.session) }
    }

    /// The session of the client whose message is handled, or made this call. An extractor that asks for it says so at start,
    /// with [`CheckContext::need_session`].
    ///
    /// # Errors
    /// No client made this call, or its session has ended.
    pub fn session(&self) -> Result<Session, HandlerError> {
        if let Sender::Session(session) = &self.from {
            return Ok(Session::here(self.node.all_sessions().clone(), session.clone()));
        }
        let client = self.client.ok_or_else(|| HandlerError::bad_request(NO_CLIENT))?;
        let session = self.node.session(client.session);
        session.ok_or_else(|| HandlerError::bad_request("the session has ended"))
    }

    /// The command that the client sent (of the message that made this call, when another node calls); `None` when no client
    /// did.
    pub fn command(&self) -> Option<CommandId> {
        self.client.map(|client| client.command)
    }

    /// The time at which the handler is dropped, and its caller told that it was late.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The body, as long as no argument before this one has taken it.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// Takes the body out of the request: one argument of a handler does.
    ///
    /// # Errors
    /// Another argument has taken it.
    pub fn take_body(&mut self) -> Result<Bytes, HandlerError> {
        self.body
            .take()
            .ok_or_else(|| HandlerError::bad_request("two arguments of the handler take the body"))
    }

    /// The app's value of type `T`. An extractor that asks for it says so at start, with `State::<T>::check(facts)`.
    ///
    /// # Errors
    /// The app has none.
    pub fn state<T: Send + Sync + 'static>(&self) -> Result<State<T>, HandlerError> {
        let state = self.node.state().map(State);
        state.ok_or_else(|| HandlerError::internal("a State that the app does not have"))
    }

    /// On whose behalf the handler calls other nodes.
    pub(super) fn origin(&self) -> Origin {
        let caller = match &self.from {
            Sender::Session(_) | Sender::Operator => None,
            Sender::Node(name) | Sender::Far { by: name, .. } => Some(name.clone()),
        };
        let (client, deadline) = (self.client, Some(self.deadline));
        Origin { client, deadline, caller, ..Origin::of(self.node.transit()) }
    }
}

/// The facts that an extractor may check when the node starts, before any message.
pub struct CheckContext<'a> {
    pub(crate) config: &'a ffconfig::Node,
    pub(crate) has_state: &'a dyn Fn(TypeId) -> bool,
    /// Set by an argument that needs the session to be known here.
    pub(crate) takes_session: &'a Cell<bool>,
}

impl CheckContext<'_> {
    /// The node's part of the config.
    pub fn config(&self) -> &ffconfig::Node {
        self.config
    }

    /// Whether the app has a value of type `T`. The whole check, with its sentence, is `State::<T>::check(facts)`.
    pub fn has_state<T: 'static>(&self) -> bool {
        (self.has_state)(TypeId::of::<T>())
    }

    /// Says that the argument needs the session: a message of a client of another node waits then until that node has told of
    /// its session.
    pub fn need_session(&self) {
        self.takes_session.set(true);
    }
}
