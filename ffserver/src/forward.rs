//! Sends clients' messages on, towards the kind of node that the route names. No task, no channel and no
//! allocation per message: the body is copied once, into the outbox of the link.

use std::sync::Arc;

use ffnet::link::{CallOptions, Sink};
use ffproto::link::Client;
use ffproto::{Code, Executed, Fault};
use tokio::time::Instant;

use crate::node::Node;
use crate::routing::{Hop, least_loaded};

/// A client's message on its way.
#[derive(Clone, Copy)]
pub(crate) struct Forwarded<'a> {
    pub(crate) kind: &'a Arc<str>,
    pub(crate) client: Client,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

impl Node {
    /// The way for messages of `kind`: the session's own, or the least loaded now (which a stateful session keeps).
    pub(crate) fn hop(&self, kind: &Arc<str>, client: Client) -> Option<Hop> {
        let Client { session, stateless, .. } = client;
        if !stateless && let Some(hop) = self.sticky().get(session, kind) {
            return Some(hop);
        }
        let mut hops = self.children_of_kind(kind);
        if hops.is_empty() {
            hops = self.parents_taking(kind);
        }
        let hop = least_loaded(hops, self.next_turn())?;
        if !stateless {
            self.sticky().set(session, kind, hop.clone());
        }
        Some(hop)
    }

    /// Sends a client's message on towards `kind`. The body is copied once, into the link's outbox.
    ///
    /// # Errors
    /// The fault for the client; the sink will not be told.
    pub(crate) fn forward(
        &self,
        message: &Forwarded<'_>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<(), Fault> {
        match self.hop(message.kind, message.client) {
            Some(hop) => hop.forward(message, sink, token),
            None => Err(self.no_hop(message.kind)),
        }
    }

    /// Why there is no way.
    pub(crate) fn no_hop(&self, kind: &str) -> Fault {
        let text = format!("no node of kind `{kind}` is connected to `{}`", self.name());
        self.fault(Code::NoNode, Executed::No, text)
    }
}

impl Hop {
    /// Sends a client's message this way.
    ///
    /// # Errors
    /// The fault for the client; the sink will not be told.
    pub(crate) fn forward(
        &self,
        message: &Forwarded<'_>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<(), Fault> {
        let Forwarded { client, body, deadline, now, .. } = *message;
        let options = CallOptions { deadline, client: Some(client) };
        self.link.forward(self.method, body, options, now, sink, token)
    }
}
