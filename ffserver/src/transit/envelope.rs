//! Envelopes to nodes that are no neighbours: written, sent towards their node, and passed on.

use bytes::Bytes;
use ffnet::link::{CallOptions, Forward, NotForwarded};
use ffproto::link::Client;
use ffproto::relay::{self, Op, TO};
use ffproto::{Code, CommandId, Executed, Fault, NodeName, NodeNumber, SessionId};

use super::Transit;
use crate::cluster::side::{PeerKey, Side};
use crate::error::CallError;
use crate::transit::call::Origin;
use crate::transit::envelope_hold::HeldEnvelope;
use crate::transit::inbound_envelope::InboundEnvelope;
use crate::transit::next_hop::NextHop;
use crate::transit::park::{Destination, HandlerMessage, ParkedKind, ParkedMessage};

/// The header of an envelope about a session.
pub(crate) fn about(session: SessionId) -> Client {
    Client { session, command: CommandId(0), stateless: false }
}

impl Transit {
    /// Sends an envelope that expects no answer. `neighbour` is preferred on the way. An envelope that cannot go now, because the next node is being replaced or has ended and is expected back, waits.
    ///
    /// # Errors
    /// The fault that says why the envelope could not be sent.
    pub(crate) fn tell_node(
        &self,
        to: NodeNumber,
        op: Op,
        client: Option<Client>,
        payload: &[u8],
        neighbour: Option<&PeerKey>,
    ) -> Result<(), Fault> {
        let (PeerKey { side, name }, body) = self.envelope(to, op, client, payload, neighbour)?;
        self.origin(client, None).notify(side, name.as_str(), TO, &body)
    }

    /// Sends another node an envelope about a session of this node; no answer is expected.
    pub(crate) fn tell_about(&self, session: SessionId, to: NodeNumber, op: Op, payload: &[u8]) {
        // An envelope that is lost with a link is made up for by the next Check.
        let _ = self.tell_node(to, op, Some(about(session)), payload, None);
    }

    /// Asks a session's net node. The session's messages come from `neighbour`, which may wait for the request that
    /// asks.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn ask(
        &self,
        session: SessionId,
        op: Op,
        payload: &[u8],
        neighbour: Option<&PeerKey>,
    ) -> Result<Bytes, CallError> {
        self.request(session.node(), op, Some(about(session)), payload, neighbour).await
    }

    /// Asks another node about a session of this node.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn ask_about(
        &self,
        session: SessionId,
        to: NodeNumber,
        op: Op,
        payload: &[u8],
    ) -> Result<Bytes, CallError> {
        self.request(to, op, Some(about(session)), payload, None).await
    }

    /// Asks another node, about no session.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn ask_node(&self, to: NodeNumber, op: Op, payload: &[u8]) -> Result<Bytes, CallError> {
        self.request(to, op, None, payload, None).await
    }

    async fn request(
        &self,
        to: NodeNumber,
        op: Op,
        client: Option<Client>,
        payload: &[u8],
        neighbour: Option<&PeerKey>,
    ) -> Result<Bytes, CallError> {
        let (PeerKey { side, name }, body) = self.envelope(to, op, client, payload, neighbour)?;
        let origin = self.origin(client, neighbour.map(|neighbour| neighbour.name.clone()));
        origin.call(side, name.as_str(), TO, &body).await
    }

    fn origin(&self, client: Option<Client>, caller: Option<NodeName>) -> Origin {
        Origin { client, caller, ..Origin::of(self) }
    }

    /// An envelope to that node, and the neighbour that it goes to first.
    ///
    /// # Errors
    /// The fault that says that no neighbour leads there.
    pub(crate) fn envelope(
        &self,
        to: NodeNumber,
        op: Op,
        client: Option<Client>,
        payload: &[u8],
        neighbour: Option<&PeerKey>,
    ) -> Result<(PeerKey, Vec<u8>), Fault> {
        let pick = client.map_or(0, |client| client.session.0);
        let first = self.membership().neighbour_to(to, None, neighbour, pick).or_else(|| neighbour.cloned());
        let first = first.ok_or_else(|| self.unreachable(to))?;
        let mut body = Vec::new();
        relay::write(to, self.number(), op, payload, &mut body);
        Ok((first, body))
    }

    /// The next neighbour on the way of an envelope that has arrived.
    pub(crate) fn next_neighbour(&self, inbound: &InboundEnvelope<'_>, to: NodeNumber) -> Option<PeerKey> {
        let pick = inbound.session().map_or(0, |id| id.0);
        self.membership().neighbour_to(to, Some(inbound.at), None, pick)
    }

    /// Passes an envelope on that expects no answer. False when no neighbour leads to its node.
    pub(crate) fn pass_notify_on(&self, inbound: &InboundEnvelope<'_>, to: NodeNumber) -> bool {
        self.next_neighbour(inbound, to).is_some_and(|PeerKey { side, name }| {
            self.origin(inbound.head.client, None).notify(side, name.as_str(), TO, inbound.body).is_ok()
        })
    }

    /// Passes an envelope on whose answer goes back over the link that it has come on.
    ///
    /// # Errors
    /// The fault for its sender.
    pub(crate) fn pass_call_on(&self, inbound: &InboundEnvelope<'_>, to: NodeNumber) -> Result<(), Fault> {
        let PeerKey { side, name } = self.next_neighbour(inbound, to).ok_or_else(|| self.unreachable(to))?;
        self.pass_call_to(side, &name, inbound)
    }

    fn pass_call_to(&self, side: Side, name: &NodeName, inbound: &InboundEnvelope<'_>) -> Result<(), Fault> {
        let InboundEnvelope { link, head, body, now, .. } = inbound;
        let deadline = inbound.deadline();
        let to = Destination::Neighbour(side, name.as_str().into());
        let blocked = self.park().any() && self.park().blocks(&to, inbound.session());
        match self.link_to(side, name.as_str(), inbound.session(), *now) {
            NextHop::Go(way) if !blocked => {
                let method = way.method_number(TO).ok_or_else(|| self.not_there(side, name.as_str()))?;
                let (options, sink) = (CallOptions { deadline, client: head.client }, link.sink());
                let (token, nested) = (head.call.into(), false);
                let call = Forward { method, body, options, message_of: None, hops: 0, nested, sink, token };
                match way.forward(call, *now) {
                    Ok(()) => return Ok(()),
                    Err(NotForwarded::Fault(fault)) => return Err(fault),
                    Err(NotForwarded::Later(_)) => {}
                }
            }
            NextHop::Go(_) | NextHop::Wait => {}
            NextHop::None => return Err(self.not_there(side, name.as_str())),
        }
        let parked = HandlerMessage::new(side, name.as_str(), TO, head.client);
        let kind = ParkedKind::Call(parked, (link.sink(), u64::from(head.call)));
        self.wait(ParkedMessage { kind, body: Bytes::copy_from_slice(body), deadline })
    }

    /// Holds an envelope that the predecessor has no answer to until its session has arrived, or answers that too much
    /// waits.
    pub(crate) fn hold_again(&self, session: SessionId, envelope: HeldEnvelope) {
        let bytes_max = self.identity().limits().park_bytes_max;
        if let Err(envelope) = self.hold().put_back(session, bytes_max, envelope) {
            let name = self.identity().name();
            let text = format!("too much waits at `{name}` for its sessions: limits.park_bytes_max");
            let fault = self.identity().fault(Code::Overloaded, Executed::No, text);
            envelope.link.reply_fault(envelope.head.call, &fault);
        }
    }

    fn unreachable(&self, to: NodeNumber) -> Fault {
        let text = format!("`{}` reaches no node with number {}", self.identity().name(), to.0);
        self.identity().fault(Code::NoNode, Executed::No, text)
    }
}
