//! The service of a link: what a neighbour's calls, notifies and forwarded clients' messages start on this node.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::{Change, NotForwarded, Service};
use ffproto::link::{Client, Head};
use ffproto::{Code, Executed, Fault, NodeNumber, SessionId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::app::route::Route;
use crate::cluster::affinity::Hop;
use crate::cluster::rights::Commands;
use crate::cluster::served::Served;
use crate::cluster::side::PeerKey;
use crate::exec::current_tables::TablesInUse;
use crate::exec::executor::{AnswerCall, Executor, LogOnly, NodeCall, QueuedMessage};
use crate::exec::methods::{Method, Reserved};
use crate::exec::tables::{Audience, HandlerTables};
use crate::identity::lifecycle::Phase;
use crate::ops::inbound::Inbound;
use crate::ops::permission::permit_for;
use crate::ops::refusal::forbidden;
use crate::ops::{affinity, methods, reach};
use crate::transit::Transit;
use crate::transit::forward_counters::ForwardTally;
use crate::transit::inbound_envelope::InboundEnvelope;
use crate::transit::next_hop::{Forwarded, forward_over};

/// The service of one link: the methods that the peer may call, and the clients' messages that it may send on.
pub(crate) struct LinkService {
    inbound: Arc<Inbound>,
    at: PeerKey,
    speaker: LastSpeaker,
    sender: LastSpeaker,
    caller: LastSpeaker,
    last_forward: Mutex<Option<LastForward>>,
    /// What is sent on, counted when what was read is handled.
    tally: Cell<ForwardTally>,
    audience: Audience,
    /// The tables in use, until what was read is handled.
    tables: Cell<TablesInUse>,
}

/// The last net node that was found to be behind a link, and at which change of the cluster: mostly the next message is
/// of a session of the same net node.
struct LastSpeaker(AtomicU64);

impl LastSpeaker {
    fn key(changes: u64, net: NodeNumber) -> u64 {
        changes << 16 | u64::from(net.0)
    }

    fn was(&self, key: u64) -> bool {
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
enum ForwardDecision<'a> {
    /// A handler of this node runs it; `None` is that there is no such handler.
    Handle(Option<&'a Arc<Route>>),
    /// The message goes on towards a target; `routed_here` says that this node's own route has given the target.
    Forward { target: &'a Arc<str>, routed_here: bool, client: Client },
}

/// Decides over a client's message by what it was sent for: this node's handlers and route, or a target beyond it.
fn decide<'a>(served: &'a Served, tables: &'a HandlerTables, client: Client) -> ForwardDecision<'a> {
    if let Served::Beyond(target) = served {
        return ForwardDecision::Forward { target, routed_here: false, client };
    }
    match (tables.net(client.command), tables.route(client.command)) {
        // This node's own route says who handles it.
        (None, Some(rule)) => {
            let client = Client { stateless: rule.stateless, ..client };
            ForwardDecision::Forward { target: rule.to.key(), routed_here: true, client }
        }
        (handler, _) => ForwardDecision::Handle(handler),
    }
}

impl LinkService {
    /// The service of the link to the neighbour `at`, which is of `audience`.
    pub(crate) fn new(inbound: Arc<Inbound>, at: PeerKey, audience: Audience) -> Self {
        let [speaker, sender, caller] = [(), (), ()].map(|()| LastSpeaker(AtomicU64::new(u64::MAX)));
        Self {
            inbound,
            at,
            speaker,
            sender,
            caller,
            last_forward: Mutex::default(),
            tally: Cell::default(),
            audience,
            tables: Cell::default(),
        }
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
        if self.speaker.was(key) {
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

    /// Whether the peer may send this client's message: it may speak for the session, and the session's net node may send
    /// the command.
    fn may_send(&self, link: &Link, client: Client) -> Result<(), Fault> {
        let (executor, net) = (self.executor(), client.session.node());
        let (transit, identity) = (executor.node.transit(), executor.node.identity());
        let key = LastSpeaker::key(transit.membership().changes(), net);
        // Who is in there may send everything.
        if self.sender.was(key) {
            return Ok(());
        }
        let writer = transit.membership().brought(&self.at, link, net);
        if writer.is_none() && !self.may_speak_for(link, client.session) {
            let text = format!("session {} is not of a node behind `{}`", client.session, self.at.name);
            return Err(identity.fault(Code::BadRequest, Executed::No, text));
        }
        // Another one's session has come here before, and was judged then.
        let Some(writer) = writer.or_else(|| transit.membership().get(net)) else { return Ok(()) };
        match &transit.rights().of_node(&writer.name, &writer.kind).commands {
            Commands::All => self.sender.set(key),
            commands if commands.has(client.command) => {}
            _ => {
                let what = format!("`commands`: command {}", client.command);
                return Err(forbidden(executor, &writer.name, &what));
            }
        }
        Ok(())
    }

    /// Whether the peer may call a method of this node. Answers when it may not.
    fn may_call(&self, tables: &HandlerTables, link: &Link, head: &Head) -> Result<(), Fault> {
        let executor = self.executor();
        let name = || {
            let names = tables.methods(self.audience);
            names.and_then(|names| names.name(head.method)).unwrap_or_default().to_string()
        };
        let (transit, kind) = (executor.node.transit(), &link.peer().kind);
        if !transit.rights().may_call(&self.at.name, kind, name) {
            return Err(forbidden(executor, &self.at.name, &format!("`call` of `{}`", name())));
        }
        let Some(Client { session, .. }) = head.client else { return Ok(()) };
        let key = LastSpeaker::key(transit.membership().changes(), session.node());
        if !self.caller.was(key) {
            permit_for(executor, (&self.at.name, kind), session)?;
            self.caller.set(key);
        }
        Ok(())
    }

    /// Answers a call of a number that is no method's, or no longer.
    fn refuse(&self, tables: &HandlerTables, link: &Link, head: &Head) {
        let identity = self.executor().node.identity();
        let name = tables.methods(self.audience).and_then(|methods| methods.name(head.method));
        let text = match name {
            Some(name) => format!("`{}` has no method `{name}` any more", identity.name()),
            None => format!("method number {} is unknown", head.method),
        };
        link.reply_fault(head.call, &identity.fault(Code::NoMethod, Executed::No, text));
    }

    /// Handles a client's message for this node, or sends it on to another one.
    fn client_message(
        &self,
        tables: &HandlerTables,
        served: &Served,
        link: &Link,
        head: &Head,
        body: &[u8],
        now: Instant,
    ) {
        let executor = self.executor();
        let identity = executor.node.identity();
        let Some(client) = head.client else {
            let text = "a client's message has no client";
            return link.reply_fault(head.call, &identity.fault(Code::NoMethod, Executed::No, text));
        };
        if let Err(fault) = self.may_send(link, client) {
            return link.reply_fault(head.call, &fault);
        }
        let deadline = now + head.time_left();
        match decide(served, tables, client) {
            ForwardDecision::Forward { target, routed_here, client } => {
                let (from, hops) = (Some(&self.at), head.hops + 1);
                let message = Forwarded { target, from, routed_here, hops, client, body, deadline, now };
                if let Err(fault) = self.forward(&message, link, head.call) {
                    link.reply_fault(head.call, &fault);
                }
            }
            ForwardDecision::Handle(route) => {
                let (route, link) = (route.cloned(), link.clone());
                let waiting = QueuedMessage { client, route, link, call: head.call, deadline };
                self.handle(waiting, body, tables.needs_sessions());
            }
        }
    }

    /// The most time that a peer may give a call here, when it has given more.
    fn cap_ms(&self, head: &Head) -> Option<u32> {
        let max = self.executor().node.transit().rights().time_left_ms_max();
        (head.time_left_ms > max).then_some(max)
    }

    fn forward(&self, message: &Forwarded<'_>, link: &Link, call: u32) -> Result<(), Fault> {
        let transit = self.executor().node.transit();
        if message.hops >= transit.identity().limits().hops_max {
            return Err(transit.too_many_hops(message.hops));
        }
        let mut tally = self.tally.get();
        transit.forwarded().count(message.target, &mut tally);
        self.tally.set(tally);
        let (mut sink, token) = (link.sink(), call.into());
        if let Some(last) = self.last_forward.lock().as_ref().filter(|last| last.is_for(transit, message)) {
            match forward_over(&last.hop, message, sink, token) {
                Ok(()) => return Ok(()),
                Err(NotForwarded::Fault(fault)) => return Err(fault),
                Err(NotForwarded::Later(back)) => sink = back,
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
    fn handle(&self, waiting: QueuedMessage, body: &[u8], needs_session: bool) {
        let executor = self.executor().clone();
        let (session, stays) = (waiting.client.session, !waiting.client.stateless);
        let (bytes, body) = (body.len(), Bytes::copy_from_slice(body));
        let (transit, remote) = (executor.node.transit(), executor.node.all_sessions().remote());
        let leads = |at: &PeerKey| transit.membership().leads_now(at, session.node());
        if !needs_session || remote.takes_message(session, stays, &self.at, leads) {
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
        let capped;
        let head = match self.cap_ms(head) {
            None => head,
            Some(time_left_ms) => {
                capped = Head { time_left_ms, ..*head };
                &capped
            }
        };
        self.note_turn(link, head);
        // One look for each message: a message that has begun keeps its tables.
        let mut in_use = self.tables.take();
        let tables = in_use.current(&self.executor().tables);
        match tables.methods(self.audience).and_then(|methods| methods.get(head.method)) {
            Some(Method::Handler(route)) => {
                if let Err(fault) = self.may_call(tables, link, head) {
                    link.reply_fault(head.call, &fault);
                    return self.tables.set(in_use);
                }
                let deadline = now + head.time_left();
                let answer = AnswerCall { link: link.clone(), call: head.call };
                let call = NodeCall { link, head, body, deadline, from: None };
                self.executor().start_call(&self.at, route, call, answer);
            }
            Some(Method::Target(served)) => self.client_message(tables, served, link, head, body, now),
            Some(Method::Reserved(Reserved::To)) => {
                self.inbound.request(&InboundEnvelope { at: &self.at, link, head, body, now }, tables);
            }
            Some(Method::Reserved(_)) | None => self.refuse(tables, link, head),
        }
        self.tables.set(in_use);
    }

    fn notify(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let node = &self.executor().node;
        let mut in_use = self.tables.take();
        let tables = in_use.current(&self.executor().tables);
        let reserved = match tables.methods(self.audience).and_then(|methods| methods.get(head.method)) {
            Some(Method::Handler(route)) => {
                if self.may_call(tables, link, head).is_err() {
                    return self.tables.set(in_use);
                }
                let deadline = now + node.identity().limits().call_timeout;
                let message = NodeCall { link, head, body, deadline, from: None };
                self.executor().start_call(&self.at, route, message, LogOnly);
                return self.tables.set(in_use);
            }
            Some(Method::Reserved(reserved)) => *reserved,
            Some(Method::Target(_)) | None => return self.tables.set(in_use),
        };
        let inbound = InboundEnvelope { at: &self.at, link, head, body, now };
        match (reserved, head.client) {
            (Reserved::SessionEnded, Some(client)) if self.may_speak_for(link, client.session) => {
                node.all_sessions().ended(client.session);
            }
            (Reserved::Reach, None) => reach::notice(self.executor(), &inbound),
            (Reserved::To, _) => self.inbound.notice(&inbound, tables),
            (Reserved::Affinity, Some(client)) => {
                let may_speak = || self.may_speak_for(link, client.session);
                affinity::notice(node.transit(), &inbound, client, may_speak);
            }
            (Reserved::Methods, None) => methods::notice(node.transit(), &inbound),
            _ => {}
        }
        self.tables.set(in_use);
    }

    fn begin(&self) {
        crate::session::local::begin_write_batch();
    }

    fn settle(&self) {
        self.tables.take();
        self.executor().node.transit().forwarded().settle(&mut self.tally.take());
        crate::session::local::end_write_batch();
    }

    fn changed(&self, link: &Link, change: Change) {
        let transit = self.executor().node.transit();
        // First the barrier: a look at what waits would else send it over the successor's link, past what is under way here.
        if change == Change::Switched {
            transit.leave_old_link(&self.at, link);
        }
        transit.link_changed(link, change);
    }
}
