//! Inbound envelopes: judged, held back while their session or node is on its way, passed on, or given to the file of
//! their kind.

use std::sync::Arc;

use ffnet::Link;
use ffproto::link::Kind;
use ffproto::relay::{self, Call, Envelope, Op};
use ffproto::{NodeName, NodeNumber, SessionId};
use tokio::time::{Duration, Instant, timeout};

use crate::cluster::side::PeerKey;
use crate::exec::executor::Executor;
use crate::exec::tables::HandlerTables;
use crate::identity::counters::count;
use crate::ops::permission::LastPermitted;
use crate::ops::refusal::{refused, reply_bad};
use crate::ops::session_requests::{self, ReplyPath};
use crate::ops::{broadcast, claims, migration, node_calls, session_notices};
use crate::transit::envelope_hold::{HeldEnvelope, HeldFor};
use crate::transit::inbound_envelope::InboundEnvelope;

/// The receiver of envelopes, which all links of a node have in common.
pub(crate) struct Inbound {
    pub(crate) executor: Arc<Executor>,
    permitted: LastPermitted,
}

impl Inbound {
    pub(crate) fn new(executor: Arc<Executor>) -> Self {
        Self { executor, permitted: LastPermitted::default() }
    }

    /// Takes an envelope that expects no answer.
    pub(crate) fn notice(&self, inbound: &InboundEnvelope<'_>, tables: &HandlerTables) {
        let Some(envelope) = self.legal(inbound) else { return };
        // Who expects no answer gets none.
        if self.permitted.permit(&self.executor, inbound, &envelope).is_ok()
            && !self.hold(inbound, envelope.to, tables)
        {
            self.route_notice(inbound, envelope, tables);
        }
    }

    /// Takes an envelope that expects an answer.
    pub(crate) fn request(&self, inbound: &InboundEnvelope<'_>, tables: &HandlerTables) {
        let Some(envelope) = self.legal(inbound) else {
            let text = format!("`{}` may not say that", inbound.at.name);
            return reply_bad(&self.executor, inbound, &text);
        };
        if let Err(fault) = self.permitted.permit(&self.executor, inbound, &envelope) {
            return inbound.link.reply_fault(inbound.head.call, &fault);
        }
        if !self.hold(inbound, envelope.to, tables) {
            self.route_request(inbound, envelope, tables);
        }
    }

    /// Whether a neighbour may send messages on behalf of a session: the session's net node is behind its link.
    pub(crate) fn may_speak_for(&self, at: &PeerKey, link: &Link, session: SessionId) -> bool {
        let may = self.executor.node.transit().membership().leads(at, link, session.node());
        if !may {
            refused(&self.executor, at, Some(session), "a message");
        }
        may
    }

    fn route_notice(&self, inbound: &InboundEnvelope<'_>, envelope: Envelope<'_>, tables: &HandlerTables) {
        let transit = self.executor.node.transit();
        if envelope.to == transit.number() {
            return self.notice_here(inbound, envelope, tables);
        }
        if !transit.pass_notify_on(inbound, envelope.to) {
            count(&transit.identity().counters().unrouted);
        }
    }

    fn route_request(&self, inbound: &InboundEnvelope<'_>, envelope: Envelope<'_>, tables: &HandlerTables) {
        let transit = self.executor.node.transit();
        if envelope.to == transit.number() {
            return self.request_here(inbound, envelope, tables);
        }
        if let Err(fault) = transit.pass_call_on(inbound, envelope.to) {
            inbound.link.reply_fault(inbound.head.call, &fault);
        }
    }

    fn notice_here(&self, inbound: &InboundEnvelope<'_>, envelope: Envelope<'_>, tables: &HandlerTables) {
        let (executor, payload) = (&self.executor, envelope.payload);
        match (envelope.op, inbound.head.client) {
            (Some(Op::Push), Some(client)) => drop(session_notices::push(executor, client, payload)),
            (Some(Op::Close), Some(client)) => session_notices::close(executor, client.session, payload),
            (Some(Op::State), Some(client)) => session_notices::state(executor, client.session, payload),
            (Some(Op::Ended), Some(client)) => executor.replicas.gone(client.session),
            (Some(Op::Left), Some(client)) => migration::left(executor, client.session),
            (Some(Op::Broadcast), None) => {
                // A client that has just arrived gets first what it has missed.
                broadcast::notice(executor, inbound, payload, || self.release());
            }
            (Some(op @ (Op::Check | Op::Ways)), None) => {
                session_notices::check(executor, envelope.from, op, payload);
            }
            (Some(Op::Call), _) => {
                node_calls::notified(executor, tables, inbound, self.name_of(&envelope, inbound), payload);
            }
            _ => {}
        }
    }

    fn request_here(&self, inbound: &InboundEnvelope<'_>, envelope: Envelope<'_>, tables: &HandlerTables) {
        let (executor, payload) = (&self.executor, envelope.payload);
        let (link, call) = (inbound.link, inbound.head.call);
        match (envelope.op, inbound.head.client) {
            (Some(Op::Push), Some(client)) => {
                link.reply(call, &[session_notices::push(executor, client, payload).number()]);
            }
            (Some(Op::Call), _) => {
                node_calls::called(executor, tables, inbound, self.name_of(&envelope, inbound), payload);
            }
            (Some(Op::Enter), Some(client)) => migration::enter(executor, inbound, client.session, payload),
            (Some(Op::NotMoved), Some(client)) => {
                migration::not_moved(executor, inbound, client.session, payload);
            }
            // A Fence is answered here, so behind everything that has come over the same link before.
            (Some(Op::Fence), None) => link.reply(call, &[]),
            (Some(Op::Claim), None) => claims::request(executor, inbound, &envelope),
            (_, Some(client)) => {
                let path = ReplyPath::Link(link.clone(), call);
                session_requests::answer(executor.node.all_sessions(), &path, client.session, &envelope);
            }
            _ => ReplyPath::Link(link.clone(), call).unknown(executor.node.identity()),
        }
    }

    /// The node that wrote an envelope.
    fn name_of(&self, envelope: &Envelope<'_>, inbound: &InboundEnvelope<'_>) -> NodeName {
        let from = self.executor.node.transit().membership().name(envelope.from);
        // The writer is not reached any more: the neighbour that brought the envelope is the best that is known.
        from.unwrap_or_else(|| inbound.at.name.clone())
    }

    /// Whether an envelope is held: for a session of this node that is on its way here from the predecessor, or for a
    /// node that is not reached now.
    fn hold(&self, inbound: &InboundEnvelope<'_>, to: NodeNumber, tables: &HandlerTables) -> bool {
        let transit = self.executor.node.transit();
        let here = to == transit.number();
        let (what, ready) = match inbound.session() {
            Some(id) if here && id.node() == to && needs_its_session(inbound, tables) => {
                (HeldFor::Session(id), self.is_ready(HeldFor::Session(id)))
            }
            _ if here => return false,
            _ => (HeldFor::Node(to), transit.next_neighbour(inbound, to).is_some()),
        };
        if let HeldFor::Session(session) = what
            && !ready
            && transit.hold().is_expecting()
            && is_the_predecessors(inbound, transit.hold().stays(session))
        {
            return self.ask_predecessor(inbound, session);
        }
        let bytes_max = transit.identity().limits().park_bytes_max;
        transit.hold().hold(what, ready, bytes_max, || HeldEnvelope::of(inbound))
    }

    /// This request may be what blocks the hand-over; ask the predecessor, or both deadlock. A request that the
    /// predecessor does not know waits here.
    fn ask_predecessor(&self, inbound: &InboundEnvelope<'_>, session: SessionId) -> bool {
        let transit = self.executor.node.transit();
        if let Some(envelope) = transit.hold().to_predecessor(HeldEnvelope::of(inbound)) {
            transit.hold_again(session, envelope);
        }
        true
    }

    fn is_ready(&self, what: HeldFor) -> bool {
        let node = &self.executor.node;
        match what {
            HeldFor::Session(id) => node.all_sessions().registry().has(id),
            HeldFor::Node(to) => node.transit().membership().neighbour_to(to, None, None, 0).is_some(),
        }
    }

    /// Releases held envelopes, as sessions arrive and nodes are reached. Runs as long as the node.
    pub(crate) async fn release_held(self: Arc<Self>) {
        // The wait for a node that is not reached ends by the clock.
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let transit = self.executor.node.transit();
        let mut reached = transit.membership().reached();
        loop {
            transit.hold().changed.notified().await;
            while transit.hold().any() {
                self.release();
                let _ = timeout(LOOK_EVERY, async {
                    tokio::select! {
                        () = transit.hold().changed.notified() => {}
                        _ = reached.changed() => {}
                    }
                })
                .await;
            }
        }
    }

    fn release(&self) {
        let node = &self.executor.node;
        node.all_sessions().release_arrived();
        let (hold, park) = (node.transit().hold(), node.identity().limits().park);
        // A held envelope begins now, with the tables of now.
        let tables = self.executor.tables.get();
        while let Some(held) = hold.next(Instant::now(), park, |what| self.is_ready(what)) {
            let inbound = held.inbound();
            let Some(envelope) = relay::read(inbound.body) else { continue };
            if inbound.head.kind == Kind::Call {
                self.route_request(&inbound, envelope, &tables);
            } else {
                self.route_notice(&inbound, envelope, &tables);
            }
        }
    }

    /// An envelope whose sender has the right to send it: it comes from where its sender is, and one about a session
    /// goes to the session's net node, or comes from there.
    fn legal<'a>(&self, inbound: &InboundEnvelope<'a>) -> Option<Envelope<'a>> {
        let envelope = relay::read(inbound.body)?;
        let owner = inbound.session().map(SessionId::node);
        let membership = self.executor.node.transit().membership();
        if fits(&envelope, owner) && membership.leads(inbound.at, inbound.link, envelope.from) {
            return Some(envelope);
        }
        refused(&self.executor, inbound.at, inbound.session(), "an envelope");
        None
    }
}

/// Whether the predecessor is to have an envelope for a session that is not here: it is a question, or the session stays
/// there. A call of a handler waits for its session, which may come; but not for one that stays.
fn is_the_predecessors(inbound: &InboundEnvelope<'_>, stays: bool) -> bool {
    let op = relay::read(inbound.body).and_then(|envelope| envelope.op);
    let asks = inbound.head.kind == Kind::Call && session_requests::asks_session(inbound.body);
    asks || stays && matches!(op, Some(Op::Push | Op::Close | Op::Call))
}

/// Whether an envelope for this node cannot be handled without its session. A handler that takes none runs at once: its
/// caller may be what the session waits for.
fn needs_its_session(inbound: &InboundEnvelope<'_>, tables: &HandlerTables) -> bool {
    match relay::read(inbound.body) {
        Some(Envelope { op: Some(Op::Call), payload, .. }) => {
            let route = Call::read(payload).and_then(|call| tables.for_nodes(call.method));
            route.is_some_and(|route| route.takes_session)
        }
        _ => true,
    }
}

/// Whether an envelope about a session of the node `owner` goes to that node, or comes from it, as its kind demands.
fn fits(envelope: &Envelope<'_>, owner: Option<NodeNumber>) -> bool {
    match envelope.op {
        Some(Op::Touch | Op::Set | Op::Push | Op::Close | Op::Join | Op::Leave | Op::Move) => {
            owner == Some(envelope.to)
        }
        Some(Op::State | Op::Ended | Op::Enter | Op::Left | Op::NotMoved) => owner == Some(envelope.from),
        Some(Op::Check | Op::Ways | Op::Broadcast | Op::Claim | Op::Call | Op::Fence) | None => true,
    }
}
