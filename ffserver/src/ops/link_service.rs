//! The service of a link: what a neighbour's calls, notifies and forwarded clients' messages start on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::{Change, NotSent, Service};
use ffproto::link::{Client, Head};
use ffproto::relay::{AFFINITY, REACH, TO};
use ffproto::{Code, Executed, Fault, NodeNumber, SessionId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::app::handler::{Key, Route};
use crate::cluster::affinity::Hop;
use crate::cluster::served::{SESSION_ENDED, Served, method_of};
use crate::cluster::side::PeerKey;
use crate::exec::executor::{AnswerCall, Executor, LogOnly, NodeCall, QueuedMessage};
use crate::exec::tables::HandlerTables;
use crate::identity::lifecycle::Phase;
use crate::ops::inbound::Inbound;
use crate::ops::{affinity, reach};
use crate::transit::Transit;
use crate::transit::inbound_envelope::InboundEnvelope;
use crate::transit::next_hop::{Forwarded, forward_over};

/// The reserved methods, which nodes use among themselves, in the order of the numbers after those of handlers and
/// kinds.
const RESERVED: [&str; 4] = [SESSION_ENDED, REACH, TO, AFFINITY];

/// The methods that the handshake tells the peer, in the order of numbers: handlers, then the kinds whose clients'
/// messages are taken, then the reserved ones.
pub(crate) fn handshake_methods(routes: &[Route], kinds: &[String]) -> Vec<String> {
    let kinds = kinds.iter().map(|kind| method_of(kind));
    method_names(routes).into_iter().chain(kinds).chain(RESERVED.map(str::to_owned)).collect()
}

fn method_names(routes: &[Route]) -> Vec<String> {
    let name = |route: &Route| match route.key {
        Key::Root(method) | Key::Remote { method, .. } | Key::Node(method) => method.to_owned(),
        Key::Net(command) => command.to_string(),
        Key::Default => "default".to_owned(),
    };
    routes.iter().map(name).collect()
}

/// The service of one link: the methods that the peer may call, and the clients' messages that it may send on.
pub(crate) struct LinkService {
    inbound: Arc<Inbound>,
    at: PeerKey,
    speaker: LastSpeaker,
    last_forward: Mutex<Option<LastForward>>,
    routes: Arc<[Route]>,
    served: Arc<[Served]>,
}

/// The last net node that was found to be behind a link, and at which change of the cluster: mostly the next message is
/// of a session of the same net node.
struct LastSpeaker(AtomicU64);

impl LastSpeaker {
    fn key(changes: u64, net: NodeNumber) -> u64 {
        changes << 16 | u64::from(net.0)
    }

    fn is(&self, key: u64) -> bool {
        self.0.load(Ordering::Relaxed) == key
    }

    fn set(&self, key: u64) {
        self.0.store(key, Ordering::Relaxed);
    }
}

/// The hop that was found for the last session and target: one read of a link mostly brings several messages of a session.
struct LastForward {
    session: SessionId,
    target: Arc<str>,
    hop: Hop,
    edits: u64,
}

impl LastForward {
    /// Whether a message may go this way without another look.
    fn is_for(&self, transit: &Transit, message: &Forwarded<'_>) -> bool {
        self.session == message.client.session
            && self.edits == transit.affinity().edits()
            && Arc::ptr_eq(&self.target, message.target)
            && !message.client.stateless
            && !transit.park().any()
            && self.hop.holds(transit.membership().changes())
    }
}

/// The decision over a client's message that a neighbour has sent on.
#[derive(Debug, PartialEq, Eq)]
enum ForwardDecision<'a> {
    /// A handler of this node runs it.
    Handle(Client),
    /// The message goes on towards a target; `routed_here` says that this node's own route has given the target.
    Forward { target: &'a Arc<str>, routed_here: bool, client: Client },
}

/// Decides over a client's message by what it was sent for: this node's handlers and route, or a target beyond it.
fn decide<'a>(served: &'a Served, tables: &'a HandlerTables, client: Client) -> ForwardDecision<'a> {
    match served {
        Served::Beyond(target) => ForwardDecision::Forward { target, routed_here: false, client },
        Served::Here if tables.net(client.command).is_some() => ForwardDecision::Handle(client),
        // This node's own route says who handles it.
        Served::Here => match tables.route(client.command) {
            Some(rule) => {
                let client = Client { stateless: rule.stateless, ..client };
                ForwardDecision::Forward { target: rule.to.key(), routed_here: true, client }
            }
            None => ForwardDecision::Handle(client),
        },
    }
}

impl LinkService {
    /// `served` are told after `routes` in the handshake, so their numbers follow.
    pub(crate) fn new(
        inbound: Arc<Inbound>,
        at: PeerKey,
        routes: Arc<[Route]>,
        served: Arc<[Served]>,
    ) -> Self {
        let speaker = LastSpeaker(AtomicU64::new(u64::MAX));
        Self { inbound, at, speaker, last_forward: Mutex::default(), routes, served }
    }

    fn executor(&self) -> &Arc<Executor> {
        &self.inbound.executor
    }

    /// Whether the peer may send a client's message: the client's net node is behind this link, or the peer has got
    /// messages of that session from here, and its own route sends one on.
    fn may_speak_for(&self, link: &Link, session: SessionId) -> bool {
        let transit = self.executor().node.transit();
        let membership = transit.membership();
        let key = LastSpeaker::key(membership.changes(), session.node());
        if self.speaker.is(key) {
            return true;
        }
        if membership.leads(&self.at, link, session.node()) {
            self.speaker.set(key);
            return true;
        }
        transit.affinity().goes_to(session, &self.at.name)
            || link.has_message_of(session)
            || self.inbound.may_speak_for(&self.at, link, session)
    }

    /// The reserved method of a number.
    fn reserved(&self, number: usize) -> Option<&'static str> {
        RESERVED.get(number.wrapping_sub(self.routes.len() + self.served.len())).copied()
    }

    /// Handles a client's message for this node, or sends it on to another one.
    fn client_message(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let executor = self.executor();
        let identity = executor.node.identity();
        let place = usize::from(head.method).wrapping_sub(self.routes.len());
        let (Some(served), Some(client)) = (self.served.get(place), head.client) else {
            let text = format!("method number {} is unknown", head.method);
            return link.reply_fault(head.call, &identity.fault(Code::NoMethod, Executed::No, text));
        };
        if !self.may_speak_for(link, client.session) {
            let text = format!("session {} is not of a node behind `{}`", client.session, self.at.name);
            return link.reply_fault(head.call, &identity.fault(Code::BadRequest, Executed::No, text));
        }
        let deadline = now + Duration::from_millis(head.time_left_ms.into());
        match decide(served, &executor.tables, client) {
            ForwardDecision::Forward { target, routed_here, client } => {
                let (from, hops) = (Some(&self.at), head.hops + 1);
                let message = Forwarded { target, from, routed_here, hops, client, body, deadline, now };
                if let Err(fault) = self.forward(&message, link, head.call) {
                    link.reply_fault(head.call, &fault);
                }
            }
            ForwardDecision::Handle(client) => {
                let waiting = QueuedMessage { client, link: link.clone(), call: head.call, deadline };
                self.handle(waiting, body);
            }
        }
    }

    fn forward(&self, message: &Forwarded<'_>, link: &Link, call: u32) -> Result<(), Fault> {
        let transit = self.executor().node.transit();
        if message.hops >= transit.identity().limits().hops_max {
            return Err(transit.too_many_hops(message.hops));
        }
        transit.count_forwarded(message.target);
        let (sink, token) = (link.sink(), call.into());
        if let Some(last) = self.last_forward.lock().as_ref().filter(|last| last.is_for(transit, message)) {
            match forward_over(&last.hop, message, sink.clone(), token) {
                Ok(()) => return Ok(()),
                Err(NotSent::Fault(fault)) => return Err(fault),
                Err(NotSent::Later) => {}
            }
        }
        // Before the look, so that an edit after it is seen.
        let edits = transit.affinity().edits();
        let hop = transit.forward(message, sink, token)?;
        let (session, target) = (message.client.session, message.target.clone());
        *self.last_forward.lock() = hop.map(|hop| LastForward { session, target, hop, edits });
        Ok(())
    }

    /// Runs a client's message here, once the replica of its session is open, if a handler of this node needs that.
    fn handle(&self, waiting: QueuedMessage, body: &[u8]) {
        let executor = self.executor().clone();
        let (session, stays) = (waiting.client.session, !waiting.client.stateless);
        let (bytes, body) = (body.len(), Bytes::copy_from_slice(body));
        let (transit, remote) = (executor.node.transit(), executor.node.all_sessions().remote());
        let leads = |at: &PeerKey| transit.membership().leads_now(at, session.node());
        if !executor.tables.needs_sessions() || remote.takes_message(session, stays, &self.at, leads) {
            return executor.admit(waiting, body);
        }
        let replicas = executor.replicas.clone();
        let job = move |known: Result<(), Fault>| match known {
            Ok(()) => {
                if stays {
                    executor.node.all_sessions().remote().is_here(session);
                }
                executor.admit(waiting, body);
            }
            Err(fault) => waiting.link.reply_fault(waiting.call, &fault),
        };
        replicas.when_open(session, &self.at, bytes, Box::new(job));
    }

    /// Notes the first message of a session over a young link: it says that nothing of the session is under way on the
    /// older one any more.
    fn note_turn(&self, link: &Link, head: &Head) {
        if let Some(client) = head.client.filter(|_| link.is_young()) {
            let transit = self.executor().node.transit();
            let first = transit.peers(self.at.side).turned(link, client.session);
            if first {
                // Parked messages of the session go before what this one starts.
                transit.look_at_parked_of(client.session);
            }
        }
    }
}

impl Service for LinkService {
    fn call(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let identity = self.executor().node.identity();
        if identity.lifecycle().phase() == Phase::Stopping {
            let text = format!("`{}` is stopping", identity.name());
            return link.reply_fault(head.call, &identity.fault(Code::Stopping, Executed::No, text));
        }
        self.note_turn(link, head);
        let number = usize::from(head.method);
        if self.reserved(number) == Some(TO) {
            return self.inbound.request(&InboundEnvelope { at: &self.at, link, head, body, now });
        }
        let Some(route) = self.routes.get(number) else {
            return self.client_message(link, head, body, now);
        };
        let deadline = now + Duration::from_millis(head.time_left_ms.into());
        let answer = AnswerCall { link: link.clone(), call: head.call, method: route.name };
        let call = NodeCall { link, head, body, deadline, from: None };
        self.executor().start_call(&self.at, route, call, answer);
    }

    fn notify(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let node = &self.executor().node;
        let number = usize::from(head.method);
        if let Some(route) = self.routes.get(number) {
            let deadline = now + node.identity().limits().call_timeout;
            let done = LogOnly { method: route.name };
            let message = NodeCall { link, head, body, deadline, from: None };
            return self.executor().start_call(&self.at, route, message, done);
        }
        let inbound = InboundEnvelope { at: &self.at, link, head, body, now };
        match (self.reserved(number), head.client) {
            (Some(SESSION_ENDED), Some(client)) if self.may_speak_for(link, client.session) => {
                node.all_sessions().ended(client.session);
            }
            (Some(REACH), None) => reach::notice(self.executor(), &inbound),
            (Some(TO), _) => self.inbound.notice(&inbound),
            (Some(AFFINITY), Some(client)) => {
                let may_speak = || self.may_speak_for(link, client.session);
                affinity::notice(node.transit(), &inbound, client, may_speak);
            }
            _ => {}
        }
    }

    fn begin(&self) {
        crate::session::local::begin_write_batch();
    }

    fn settle(&self) {
        crate::session::local::end_write_batch();
    }

    fn changed(&self, link: &Link, change: Change) {
        let transit = self.executor().node.transit();
        transit.link_changed(link, change);
        if change == Change::Switched {
            transit.leave_old_link(&self.at, link);
        }
    }
}
