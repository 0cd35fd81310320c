//! The way of messages to other nodes: which link a message takes now, or how long it waits for one. No task,
//! no channel and no allocation per message that goes at once: the body is copied once, into the outbox of
//! the link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::{CallOptions, Forward, NotSent, Sink};
use ffproto::link::Client;
use ffproto::{Code, Executed, Fault, NodeName, SessionId};
use tokio::time::Instant;

use crate::counters::count;
use crate::neighbours::{Neighbour, Way};
use crate::node::Node;
use crate::park::{Entry, Look, Parked, Side, To, What};
use crate::routing::{Chosen, Hop, least_loaded};

/// How often those that wait are looked at, beside every change of a link: their time may be over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A client's message on its way.
#[derive(Clone, Copy)]
pub(crate) struct Forwarded<'a> {
    pub(crate) kind: &'a Arc<str>,
    pub(crate) client: Client,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

/// Where a message goes now.
pub(crate) enum Found<T> {
    /// This way.
    Go(T),
    /// Nowhere yet: a node may be back, or an earlier message of the session may end.
    Wait,
    /// Nowhere.
    None,
}

impl Node {
    /// The way for messages of `kind`: the session's own, or the least loaded now (which a stateful session
    /// keeps).
    pub(crate) fn hop(&self, kind: &Arc<str>, client: Client, now: Instant) -> Found<Hop> {
        let Client { session, stateless, .. } = client;
        let mut wait = false;
        if !stateless {
            match self.sticky().get(session, kind) {
                Some(Chosen::Hop(hop)) => return Found::Go(hop),
                Some(Chosen::Node(name)) => match self.hop_to(&name, kind, session, now) {
                    Found::Go(hop) => {
                        self.sticky().set(session, kind, hop.clone());
                        return Found::Go(hop);
                    }
                    Found::Wait => return Found::Wait,
                    Found::None => wait = self.missed(&name, now),
                },
                None => {}
            }
        }
        let (hops, soon) = self.hops(kind, session, now);
        let Some(hop) = least_loaded(hops, self.next_turn()) else {
            return if soon || wait { Found::Wait } else { Found::None };
        };
        if !stateless {
            self.sticky().set(session, kind, hop.clone());
        }
        Found::Go(hop)
    }

    /// The way that a session's messages for `kind` took last, if it is open.
    pub(crate) fn open_hop(&self, session: SessionId, kind: &str) -> Option<Hop> {
        match self.sticky().get(session, kind)? {
            Chosen::Hop(hop) => Some(hop),
            Chosen::Node(_) => None,
        }
    }

    /// The way to the node that the session has: not another one while that is only being replaced.
    fn hop_to(&self, name: &NodeName, kind: &str, session: SessionId, now: Instant) -> Found<Hop> {
        let park = self.config().limits.park;
        let look = |known: &Neighbour| match known.way(now, park) {
            Way::Open(_) if known.holds(session) => Found::Wait,
            Way::Open(link) => Hop::new(link, kind).map_or(Found::None, Found::Go),
            Way::Replaced => Found::Wait,
            Way::Missed | Way::Gone => Found::None,
        };
        if let Some(child) = self.child_nodes().get(name.as_str()) {
            return look(child);
        }
        self.parents().get(name.as_str()).map_or(Found::None, look)
    }

    /// Whether a node that has ended is waited for.
    fn missed(&self, name: &NodeName, now: Instant) -> bool {
        let park = self.config().limits.park;
        let missed = |known: &Neighbour| matches!(known.way(now, park), Way::Missed);
        let child = self.child_nodes().get(name.as_str()).map(missed);
        child.or_else(|| self.parents().get(name.as_str()).map(missed)).unwrap_or(false)
    }

    /// The nodes that take messages of `kind` now, and whether another one is waited for: children of that
    /// kind, or else parents that take it.
    fn hops(&self, kind: &str, session: SessionId, now: Instant) -> (Vec<Hop>, bool) {
        let park = self.config().limits.park;
        let look = |known: &Neighbour, hops: &mut Vec<Hop>, soon: &mut bool| {
            // What a node takes that has never been linked is not known yet.
            let takes = known.last_link().is_none_or(|link| Hop::new(link.clone(), kind).is_some());
            match known.way(now, park) {
                Way::Open(_) if known.holds(session) => *soon = true,
                Way::Open(link) => hops.extend(Hop::new(link, kind)),
                Way::Replaced | Way::Missed => *soon |= takes,
                Way::Gone => {}
            }
        };
        let (mut hops, mut soon) = (Vec::new(), false);
        for child in self.child_nodes().iter().filter(|child| child.group == *kind) {
            look(child, &mut hops, &mut soon);
        }
        if hops.is_empty() && !soon {
            for parent in self.parents().iter() {
                look(parent, &mut hops, &mut soon);
            }
        }
        (hops, soon)
    }

    /// The link to a parent or a child; of several, the same for the same client session.
    pub(crate) fn link_to(
        &self,
        side: Side,
        who: &str,
        session: Option<SessionId>,
        now: Instant,
    ) -> Found<Link> {
        let known = self.neighbours(side);
        let park = self.config().limits.park;
        let (mut there, mut missed) = (Vec::new(), false);
        for known in known.meant(who) {
            match known.way(now, park) {
                Way::Open(link) => there.push(Found::Go(link)),
                Way::Replaced => there.push(Found::Wait),
                Way::Missed => missed = true,
                Way::Gone => {}
            }
        }
        drop(known);
        if there.is_empty() {
            return if missed { Found::Wait } else { Found::None };
        }
        let turn = if there.len() == 1 { 0 } else { session.map_or_else(|| self.next_turn(), |id| id.0) };
        let at = (turn % there.len() as u64) as usize;
        there.swap_remove(at)
    }

    /// Sends a client's message on towards `kind`, or lets it wait. The body is copied once.
    ///
    /// # Errors
    /// The fault for the client; the sink will not be told.
    pub(crate) fn forward(
        &self,
        message: &Forwarded<'_>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<(), Fault> {
        let Forwarded { kind, client, body, deadline, now } = *message;
        let wait = |sink| {
            let (to, what) = (To::Kind(kind.clone()), What::Message);
            let body = Bytes::copy_from_slice(body);
            let (client, sink) = (Some(client), Some((sink, token)));
            self.wait(Entry { to, what, body, client, deadline, sink })
        };
        // Behind its session's earlier ones, as long as they wait.
        if self.park().any() && self.park().blocks(&To::Kind(kind.clone()), Some(client.session)) {
            return wait(sink);
        }
        match self.hop(kind, client, now) {
            Found::Go(hop) => match hop.forward(message, sink.clone(), token) {
                Ok(()) => Ok(()),
                Err(NotSent::Fault(fault)) => Err(fault),
                Err(NotSent::Later) => wait(sink),
            },
            Found::Wait => wait(sink),
            Found::None => Err(self.no_hop(kind)),
        }
    }

    /// Lets a message wait for its neighbour.
    ///
    /// # Errors
    /// Too much waits already.
    pub(crate) fn wait(&self, entry: Entry) -> Result<(), Fault> {
        match self.park().park(entry) {
            Parked::Waits { watch: false } => Ok(()),
            Parked::Waits { watch: true } => {
                let node = self.clone();
                drop(tokio::spawn(async move {
                    while !node.park().is_over() {
                        tokio::time::sleep(LOOK_EVERY).await;
                        node.look_at_parked();
                    }
                }));
                Ok(())
            }
            Parked::Full => {
                count(&self.counters().park_full);
                let text = format!("too much waits at `{}` for another node: limits.park_max", self.name());
                Err(self.fault(Code::Overloaded, Executed::No, text))
            }
        }
    }

    /// Sends what has waited and can go now, in order; ends what has waited for too long.
    pub(crate) fn look_at_parked(&self) {
        if self.park().any() {
            let now = Instant::now();
            self.park().look(|entry, free| self.look_at(entry, free, now));
        }
    }

    fn look_at(&self, entry: Entry, free: bool, now: Instant) -> Look {
        if entry.deadline <= now {
            let text = "the deadline passed while it waited for another node";
            entry.fail(&self.fault(Code::Timeout, Executed::No, text));
            return Look::Gone;
        }
        if !free {
            return Look::Waits(entry);
        }
        match self.send_parked(&entry, now) {
            Ok(()) => Look::Gone,
            Err(NotSent::Fault(fault)) => {
                entry.fail(&fault);
                Look::Gone
            }
            Err(NotSent::Later) => Look::Waits(entry),
        }
    }

    fn send_parked(&self, entry: &Entry, now: Instant) -> Result<(), NotSent> {
        let options = CallOptions { deadline: entry.deadline, client: entry.client };
        let (link, method) = match (&entry.to, entry.client, &entry.what) {
            (To::Kind(kind), Some(client), _) => match self.hop(kind, client, now) {
                Found::Go(hop) => (hop.link, Some(hop.method)),
                Found::Wait => return Err(NotSent::Later),
                Found::None => return Err(self.no_hop(kind).into()),
            },
            (To::Neighbour(side, who), _, What::Call(method) | What::Notify(method)) => {
                match self.link_to(*side, who, entry.session(), now) {
                    Found::Go(link) => {
                        let number = link.method_number(method);
                        (link, number)
                    }
                    Found::Wait => return Err(NotSent::Later),
                    Found::None => return Err(self.not_there(*side, who).into()),
                }
            }
            // Clients' messages go to kinds, and handlers' to neighbours.
            _ => return Ok(()),
        };
        match (&entry.what, &entry.sink, method) {
            (What::Notify(method), ..) => link.notify(method, &entry.body, entry.client),
            (What::Call(name), Some(_), None) => {
                let text = format!("`{}` has no method `{name}`", link.peer().name);
                Err(self.fault(Code::NoMethod, Executed::No, text).into())
            }
            (what, Some((sink, token)), Some(method)) => {
                let message_of = if *what == What::Message { entry.session() } else { None };
                let (body, sink, token) = (&entry.body, sink.clone(), *token);
                link.forward(Forward { method, body, options, message_of, nested: false, sink, token }, now)
            }
            _ => Ok(()),
        }
    }

    /// Tells a neighbour something about a session, now or when it is back.
    pub(crate) fn tell(&self, name: &NodeName, method: &str, client: Client) {
        let now = Instant::now();
        let is_child = self.child_nodes().get(name.as_str()).is_some();
        let side = if is_child { Side::Child } else { Side::Parent };
        match self.link_to(side, name.as_str(), None, now) {
            Found::Go(link) => match link.notify(method, &[], Some(client)) {
                Err(NotSent::Later) => {}
                // A link that has ended has forgotten the session with everything else.
                Ok(()) | Err(NotSent::Fault(_)) => return,
            },
            Found::Wait => {}
            Found::None => return,
        }
        let to = To::Neighbour(side, name.as_str().into());
        let (what, client) = (What::Notify(method.to_owned()), Some(client));
        let deadline = now + self.config().limits.call_timeout;
        // What does not fit is forgotten at the latest when the neighbour ends.
        let _ = self.wait(Entry { to, what, body: Bytes::new(), client, deadline, sink: None });
    }

    /// Why there is no way.
    pub(crate) fn no_hop(&self, kind: &str) -> Fault {
        let text = format!("no node of kind `{kind}` is connected to `{}`", self.name());
        self.fault(Code::NoNode, Executed::No, text)
    }

    /// Why a neighbour cannot be called.
    pub(crate) fn not_there(&self, side: Side, who: &str) -> Fault {
        let text = match side {
            Side::Parent if self.parents().meant(who).is_empty() => {
                format!("`{}` has no parent `{who}`", self.name())
            }
            Side::Parent => format!("parent `{who}` is not connected to `{}`", self.name()),
            Side::Child => format!("child `{who}` is not connected to `{}`", self.name()),
        };
        self.fault(Code::NoNode, Executed::No, text)
    }
}

impl Hop {
    /// Sends a client's message this way.
    ///
    /// # Errors
    /// [`NotSent`]; the sink will not be told.
    pub(crate) fn forward(
        &self,
        message: &Forwarded<'_>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<(), NotSent> {
        let Forwarded { client, body, deadline, now, .. } = *message;
        let options = CallOptions { deadline, client: Some(client) };
        let (method, message_of) = (self.method, Some(client.session));
        let call = Forward { method, body, options, message_of, nested: false, sink, token };
        self.link.forward(call, now)
    }
}
