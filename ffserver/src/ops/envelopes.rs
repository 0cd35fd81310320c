//! Sends envelopes to nodes that are no neighbours, passes others' on, and does what those for this node
//! say about sessions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::{CallOptions, Forward, NotSent};
use ffproto::link::{Client, Head, Kind};
use ffproto::relay::{
    self, Broadcast, Call, Claim, Entry, Envelope, MoveOrder, Op, Reachable, SessionChange, SessionState, TO,
};
use ffproto::{Code, CommandId, Executed, Fault, NodeName, NodeNumber, SessionId};
use tokio::time::Instant;
use tracing::warn;

use crate::calls::neighbours::Origin;
use crate::cluster::membership::{decode, encode};
use crate::cluster::reachability::{At, Direction};
use crate::error::CallError;
use crate::exec::dispatch::Shared;
use crate::identity::counters::count;
use crate::node::{Node, Phase};
use crate::ops::session_requests::{Answer, asks_session};
use crate::session::groups::NAME_BYTES_MAX;
use crate::session::handle::SessionError;
use crate::session::local::LocalSession;
use crate::transit::envelope_hold::{For, HeldFrame};
use crate::transit::next_hop::Found;
use crate::transit::park::{self, Side, To, What};

/// How many ids one Check carries.
pub(crate) const CHECK_IDS_MAX: usize = 4096;

/// Sending.
impl Node {
    /// Tells a node something, and expects nothing. `via` is the neighbour that is preferred on the way. What
    /// cannot go now because the next node is being replaced, or has ended and is expected back, waits.
    ///
    /// # Errors
    /// The fault that says why it could not be sent.
    pub(crate) fn tell_node(
        &self,
        to: NodeNumber,
        op: Op,
        client: Option<Client>,
        payload: &[u8],
        via: Option<&At>,
    ) -> Result<(), Fault> {
        let ((direction, name), body) = self.envelope(to, op, client, payload, via)?;
        self.origin(client, None).notify(direction.into(), name.as_str(), TO, &body)
    }

    /// Asks a session's net node. `via` is where the session's messages come from, and who may wait for the
    /// request that asks.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn ask(
        &self,
        session: SessionId,
        op: Op,
        payload: &[u8],
        via: Option<&At>,
    ) -> Result<Bytes, CallError> {
        let client = Some(Client { session, command: CommandId(0), stateless: false });
        let ((direction, name), body) = self.envelope(session.node(), op, client, payload, via)?;
        let timeout = self.session_timeout();
        let origin = self.origin(client, via.map(|via| via.1.clone()));
        origin.call(direction.into(), name.as_str(), TO, &body, timeout).await
    }

    /// Asks any node about a session of this one.
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
        let client = Some(Client { session, command: CommandId(0), stateless: false });
        let ((direction, name), body) = self.envelope(to, op, client, payload, None)?;
        let timeout = self.session_timeout();
        self.origin(client, None).call(direction.into(), name.as_str(), TO, &body, timeout).await
    }

    /// Asks another node, about no session.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn ask_node(&self, to: NodeNumber, op: Op, payload: &[u8]) -> Result<Bytes, CallError> {
        let ((direction, name), body) = self.envelope(to, op, None, payload, None)?;
        let timeout = self.session_timeout();
        self.origin(None, None).call(direction.into(), name.as_str(), TO, &body, timeout).await
    }

    fn origin(&self, client: Option<Client>, caller: Option<NodeName>) -> Origin {
        Origin { node: self.clone(), client, deadline: None, caller }
    }

    pub(crate) fn envelope(
        &self,
        to: NodeNumber,
        op: Op,
        client: Option<Client>,
        payload: &[u8],
        via: Option<&At>,
    ) -> Result<(At, Vec<u8>), Fault> {
        let pick = client.map_or(0, |client| client.session.0);
        let way = self.cluster().way(to, None, via, pick).or_else(|| via.cloned());
        let way = way.ok_or_else(|| self.unreachable(to))?;
        let mut body = Vec::new();
        relay::write(to, self.number(), op, payload, &mut body);
        Ok((way, body))
    }

    /// 0 until the master has given one; nothing is linked before.
    fn number(&self) -> NodeNumber {
        self.cluster().number().unwrap_or(NodeNumber(0))
    }

    /// Every other node of the cluster that can be reached from here now, whoever its neighbours are.
    pub fn reachable(&self) -> Vec<NodeName> {
        self.cluster().others().into_values().map(|node| node.name).collect()
    }

    fn unreachable(&self, to: NodeNumber) -> Fault {
        let text = format!("`{}` reaches no node with number {}", self.name(), to.0);
        self.fault(Code::NoNode, Executed::No, text)
    }

    /// Tells the others what this node is, from now on and on every link.
    pub(crate) fn introduce(&self, number: NodeNumber) {
        self.cluster().set_me(Reachable {
            number,
            name: self.name().clone(),
            kind: self.kind().to_owned(),
            net: self.config().netport.is_some(),
            incarnation: self.incarnation(),
            since: self.cluster().since(number, self.incarnation()),
        });
    }

    /// Changes the state of a session of this node, and tells the nodes that handle it; `but` knows already.
    pub(crate) fn change_session(
        &self,
        session: &LocalSession,
        change: SessionChange,
        but: Option<NodeNumber>,
    ) -> Result<Arc<SessionState>, SessionError> {
        let state = self.change_state(session, change, but)?;
        if session.becomes_verified() {
            self.spawn_verified(session.id());
        }
        Ok(state)
    }

    /// The same, for who tells this node's app of the user itself.
    pub(crate) fn change_state(
        &self,
        session: &LocalSession,
        change: SessionChange,
        but: Option<NodeNumber>,
    ) -> Result<Arc<SessionState>, SessionError> {
        let max = self.config().limits.session_state_bytes_max;
        let tell = |state: &SessionState, watchers: &[NodeNumber]| {
            let payload = encode(state);
            for watcher in watchers.iter().filter(|watcher| Some(**watcher) != but) {
                self.tell_about(session.id(), *watcher, Op::State, &payload);
            }
        };
        Ok(session.change(change, max, tell)?)
    }

    /// Takes a session of this node into a group, or out of it. 0: done; 2: it is in too many, or the name is
    /// too long.
    pub(crate) fn group_here(&self, join: bool, session: &LocalSession, group: &str) -> u8 {
        let groups = &self.cluster().groups;
        if !join {
            groups.leave(group, session.id());
            return 0;
        }
        let max = self.config().limits.session_groups_max;
        let joined = group.len() <= NAME_BYTES_MAX && groups.join(group, session, max);
        if session.is_gone() {
            // It ended meanwhile, and nobody else would take it out.
            groups.leave_all(session.id());
        }
        if joined { 0 } else { 2 }
    }

    /// Tells the nodes that have handled a session of this node that it has ended.
    pub(crate) fn tell_ended(&self, session: &LocalSession) {
        for watcher in session.watchers() {
            self.tell_about(session.id(), watcher, Op::Ended, &[]);
        }
    }

    /// Tells a node something about a session of this one.
    pub(crate) fn tell_about(&self, session: SessionId, to: NodeNumber, op: Op, payload: &[u8]) {
        let client = Client { session, command: CommandId(0), stateless: false };
        // What gets lost with a link is found out by the next Check.
        let _ = self.tell_node(to, op, Some(client), payload, None);
    }
}

/// What arrives on a link.
pub(crate) struct Arrived<'a> {
    pub(crate) at: &'a At,
    pub(crate) link: &'a Link,
    pub(crate) head: &'a Head,
    pub(crate) body: &'a [u8],
    pub(crate) now: Instant,
}

impl Arrived<'_> {
    fn session(&self) -> Option<SessionId> {
        self.head.client.map(|client| client.session)
    }
}

/// Receiving.
impl Shared {
    /// A link is about to be used.
    pub(crate) fn link_up(&self, direction: Direction, link: &Link) {
        self.node.cluster().link_up(direction, link);
    }

    /// A link has ended.
    pub(crate) fn link_down(&self, direction: Direction, link: &Link) {
        self.node.cluster().link_down(direction, link);
        self.node.tell_claims();
    }

    /// A neighbour says whom it reaches.
    pub(crate) fn reach_told(self: &Arc<Self>, arrived: &Arrived<'_>) {
        match decode(arrived.body) {
            Some(change) => {
                self.node.cluster().heard(arrived.at, arrived.link, change);
                self.look_at_sessions(false);
                self.node.tell_claims();
            }
            None => warn!(from = %arrived.at.1, "a malformed message about who can be reached is ignored"),
        }
    }

    /// An envelope that expects no answer.
    pub(crate) fn told(self: &Arc<Self>, arrived: &Arrived<'_>) {
        let Some(envelope) = self.legal(arrived) else { return };
        if !self.hold(arrived, envelope.to) {
            self.told_now(arrived, envelope);
        }
    }

    fn told_now(self: &Arc<Self>, arrived: &Arrived<'_>, envelope: Envelope<'_>) {
        if envelope.to == self.node.number() {
            return self.told_here(arrived, envelope);
        }
        let passed = self.way(arrived, envelope.to).is_some_and(|(direction, name)| {
            let origin = self.node.origin(arrived.head.client, None);
            origin.notify(direction.into(), name.as_str(), TO, arrived.body).is_ok()
        });
        if !passed {
            count(&self.node.counters().unrouted);
        }
    }

    fn told_here(self: &Arc<Self>, arrived: &Arrived<'_>, envelope: Envelope<'_>) {
        match (envelope.op, arrived.head.client) {
            (Some(Op::Push), Some(client)) => drop(self.push(client, envelope.payload)),
            (Some(Op::Close), Some(client)) => {
                if let Some(session) = self.node.local_session(client.session) {
                    session.close(&String::from_utf8_lossy(envelope.payload));
                }
            }
            (Some(Op::State), Some(client)) => {
                if let Some(state) = decode(envelope.payload) {
                    let remote = self.node.cluster().known.update(client.session, state);
                    if remote.is_some_and(|remote| remote.becomes_verified()) {
                        self.node.spawn_verified(client.session);
                    }
                }
            }
            (Some(Op::Ended), Some(client)) => self.session_gone(client.session),
            (Some(Op::Left), Some(client)) => self.leave(client.session),
            (Some(Op::Broadcast), None) => match Broadcast::read(envelope.payload) {
                Some(broadcast) => {
                    let bytes_max = self.node.config().limits.park_bytes_max;
                    self.node.cluster().held.keep(envelope.payload, bytes_max);
                    // Who has just arrived gets first what it has missed.
                    self.release();
                    self.node.broadcast_here(&broadcast);
                }
                None => warn!(from = %arrived.at.1, "a malformed broadcast is ignored"),
            },
            (Some(op @ (Op::Check | Op::Ways)), None) => self.check(envelope.from, op, envelope.payload),
            (Some(Op::Call), _) => self.notified(arrived, self.name_of(&envelope, arrived), envelope.payload),
            _ => {}
        }
    }

    /// An envelope that expects an answer.
    pub(crate) fn asked(self: &Arc<Self>, arrived: &Arrived<'_>) {
        let Some(envelope) = self.legal(arrived) else {
            let text = format!("`{}` may not say that", arrived.at.1);
            let fault = self.node.fault(Code::BadRequest, Executed::No, text);
            return arrived.link.reply_fault(arrived.head.call, &fault);
        };
        if !self.hold(arrived, envelope.to) {
            self.asked_now(arrived, envelope);
        }
    }

    fn asked_now(self: &Arc<Self>, arrived: &Arrived<'_>, envelope: Envelope<'_>) {
        if envelope.to == self.node.number() {
            return self.asked_here(arrived, envelope);
        }
        let passed = self
            .way(arrived, envelope.to)
            .ok_or_else(|| self.node.unreachable(envelope.to))
            .and_then(|(direction, name)| self.pass_on_to(direction.into(), &name, arrived));
        if let Err(fault) = passed {
            arrived.link.reply_fault(arrived.head.call, &fault);
        }
    }

    /// The next neighbour on an envelope's way.
    fn way(&self, arrived: &Arrived<'_>, to: NodeNumber) -> Option<At> {
        self.node.cluster().way(to, Some(arrived.at), None, pick(arrived))
    }

    fn asked_here(self: &Arc<Self>, arrived: &Arrived<'_>, envelope: Envelope<'_>) {
        let (node, link, call) = (&self.node, arrived.link, arrived.head.call);
        let answer = Answer::Link(link.clone(), call);
        match (envelope.op, arrived.head.client) {
            (Some(Op::Push), Some(client)) => link.reply(call, &[self.push(client, envelope.payload)]),
            (Some(Op::Call), _) => self.called(arrived, self.name_of(&envelope, arrived), envelope.payload),
            (Some(Op::Enter), Some(client)) => match decode::<Entry>(envelope.payload) {
                Some(entry) => self.enter(arrived, client.session, entry),
                None => {
                    link.reply_fault(call, &node.fault(Code::BadRequest, Executed::No, "a malformed entry"))
                }
            },
            (Some(Op::NotMoved), Some(client)) => match decode::<MoveOrder>(envelope.payload) {
                Some(order) => self.not_moved(arrived, client.session, order),
                None => {
                    link.reply_fault(call, &node.fault(Code::BadRequest, Executed::No, "a malformed move"))
                }
            },
            (Some(Op::Fence), None) => link.reply(call, &[]),
            (Some(Op::Claim), None) => match decode::<Vec<Claim>>(envelope.payload) {
                Some(claims) if claims.iter().all(|claim| claim.session.node() == envelope.from) => {
                    link.reply(call, &node.judge(&claims));
                }
                _ => {
                    self.refused(arrived.at, None, "a claim");
                    link.reply_fault(call, &node.fault(Code::BadRequest, Executed::No, "a malformed claim"));
                }
            },
            (_, Some(client)) => self.node.answer(&answer, client.session, &envelope),
            _ => answer.unknown(&self.node),
        }
    }

    /// Who wrote an envelope.
    fn name_of(&self, envelope: &Envelope<'_>, arrived: &Arrived<'_>) -> NodeName {
        let from = self.node.cluster().name(envelope.from);
        // One that is not reached any more: the neighbour that brought it is the best that is known.
        from.unwrap_or_else(|| arrived.at.1.clone())
    }

    /// Whether it waits: for a session of this node that is on its way here from the process that this one
    /// replaces, or for a node that is not reached now.
    fn hold(&self, arrived: &Arrived<'_>, to: NodeNumber) -> bool {
        let here = to == self.node.number();
        let (what, ready) = match arrived.session() {
            Some(id) if here && id.node() == to && self.needs_its_session(arrived) => {
                (For::Session(id), self.is_ready(For::Session(id)))
            }
            _ if here => return false,
            _ => (For::Node(to), self.way(arrived, to).is_some()),
        };
        if let For::Session(session) = what
            && !ready
            && arrived.head.kind == Kind::Call
            && asks_session(arrived.body)
            && self.node.cluster().held.is_expecting()
        {
            return self.ask_old(arrived, session);
        }
        let frame = || HeldFrame {
            at: arrived.at.clone(),
            link: arrived.link.clone(),
            head: *arrived.head,
            body: arrived.body.to_vec(),
            now: arrived.now,
        };
        let bytes_max = self.node.config().limits.park_bytes_max;
        self.node.cluster().held.hold(what, ready, bytes_max, frame)
    }

    /// Whether what is for this node cannot be done without its session. A handler that takes none runs at once: its
    /// caller may be what the session waits for.
    fn needs_its_session(&self, arrived: &Arrived<'_>) -> bool {
        match relay::read(arrived.body) {
            Some(Envelope { op: Some(Op::Call), payload, .. }) => {
                let route = Call::read(payload).and_then(|call| self.dispatch.for_nodes(call.method));
                route.is_some_and(|route| route.takes_session)
            }
            _ => true,
        }
    }

    /// The session is on its way here, perhaps for long: what asks may be what it waits for, so its old process is
    /// asked. What that does not know waits here.
    fn ask_old(&self, arrived: &Arrived<'_>, session: SessionId) -> bool {
        let Arrived { at, link, head, body, now } = *arrived;
        let frame = HeldFrame { at: at.clone(), link: link.clone(), head: *head, body: body.to_vec(), now };
        if let Some(frame) = self.node.cluster().held.to_old(frame) {
            self.node.hold_again(session, frame);
        }
        true
    }

    fn is_ready(&self, what: For) -> bool {
        match what {
            For::Session(id) => self.node.local_session(id).is_some(),
            For::Node(to) => self.node.cluster().way(to, None, None, 0).is_some(),
        }
    }

    /// Lets go what was held back, as sessions arrive and nodes are reached. Runs as long as the node.
    pub(crate) async fn release_held(self: Arc<Self>) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let held = &self.node.cluster().held;
        loop {
            held.changed.notified().await;
            while held.any() {
                self.release();
                let _ = tokio::time::timeout(LOOK_EVERY, held.changed.notified()).await;
            }
        }
    }

    fn release(self: &Arc<Self>) {
        self.node.release_arrived();
        let (held, park) = (&self.node.cluster().held, self.node.config().limits.park);
        while let Some(frame) = held.next(Instant::now(), park, |what| self.is_ready(what)) {
            let HeldFrame { at, link, head, body, now } = &frame;
            let arrived = Arrived { at, link, head, body, now: *now };
            let Some(envelope) = relay::read(body) else { continue };
            if head.kind == Kind::Call {
                self.asked_now(&arrived, envelope);
            } else {
                self.told_now(&arrived, envelope);
            }
        }
    }

    fn pass_on_to(&self, side: Side, name: &NodeName, arrived: &Arrived<'_>) -> Result<(), Fault> {
        let (node, Arrived { link, head, body, now, .. }) = (&self.node, arrived);
        let deadline = *now + Duration::from_millis(head.time_left_ms.into());
        let to = To::Neighbour(side, name.as_str().into());
        let blocked = node.park().any() && node.park().blocks(&to, arrived.session());
        match node.link_to(side, name.as_str(), arrived.session(), *now) {
            Found::Go(way) if !blocked => {
                let method = way.method_number(TO).ok_or_else(|| node.not_there(side, name.as_str()))?;
                let (options, sink) = (CallOptions { deadline, client: head.client }, link.sink());
                let (token, nested) = (head.call.into(), false);
                let call = Forward { method, body, options, message_of: None, hops: 0, nested, sink, token };
                match way.forward(call, *now) {
                    Ok(()) => return Ok(()),
                    Err(NotSent::Fault(fault)) => return Err(fault),
                    Err(NotSent::Later) => {}
                }
            }
            Found::Go(_) | Found::Wait => {}
            Found::None => return Err(node.not_there(side, name.as_str())),
        }
        let (what, body) = (What::Call(TO.to_owned()), Bytes::copy_from_slice(body));
        let sink = Some((link.sink(), u64::from(head.call)));
        node.wait(park::Entry { to, what, body, client: head.client, deadline, sink })
    }

    /// An envelope whose sender may say so: it comes from where its sender is, what is about a session goes to
    /// its net node, or comes from there.
    fn legal<'a>(&self, arrived: &Arrived<'a>) -> Option<Envelope<'a>> {
        let envelope = relay::read(arrived.body)?;
        let owner = arrived.session().map(SessionId::node);
        let fits = match envelope.op {
            Some(Op::Touch | Op::Set | Op::Push | Op::Close | Op::Join | Op::Leave | Op::Move) => {
                owner == Some(envelope.to)
            }
            Some(Op::State | Op::Ended | Op::Enter | Op::Left | Op::NotMoved) => owner == Some(envelope.from),
            Some(Op::Check | Op::Ways | Op::Broadcast | Op::Claim | Op::Call | Op::Fence) | None => true,
        };
        if fits && self.node.cluster().leads(arrived.at, arrived.link, envelope.from) {
            return Some(envelope);
        }
        self.refused(arrived.at, arrived.session(), "an envelope");
        None
    }

    /// Whether what a neighbour sends on behalf of a session may come from there.
    pub(crate) fn may_speak_for(&self, at: &At, link: &Link, session: SessionId) -> bool {
        let may = self.node.cluster().leads(at, link, session.node());
        if !may {
            self.refused(at, Some(session), "a message");
        }
        may
    }

    fn refused(&self, at: &At, session: Option<SessionId>, what: &str) {
        count(&self.node.counters().forged);
        if self.node.may_log_call() {
            let session = session.map(|id| id.to_string());
            warn!(from = %at.1, session, "{what} was refused: the session is not of a node behind that link");
        }
    }

    /// 0: queued, 1: gone, 2: too slow.
    fn push(&self, client: Client, body: &[u8]) -> u8 {
        let pushed =
            self.node.local_session(client.session).map(|session| session.push(client.command, body));
        match pushed {
            Some(Ok(())) => 0,
            Some(Err(crate::session::local::PushError::TooSlow)) => 2,
            _ => {
                count(&self.node.counters().pushes_to_gone);
                1
            }
        }
    }

    /// Another node knows these sessions: it hears of those that have ended, and with [`Op::Check`] of changes of the
    /// others.
    fn check(&self, from: NodeNumber, op: Op, ids: &[u8]) {
        // A session that is not here may be on its way to this process, or to its successor: who asks asks again.
        if self.node.cluster().held.is_expecting() || self.node.phase() == Phase::HandedOver {
            return;
        }
        let (ids, _) = ids.as_chunks::<8>();
        for id in ids.iter().take(CHECK_IDS_MAX).map(|id| SessionId(u64::from_le_bytes(*id))) {
            if id.node() != self.node.number() {
                continue;
            }
            match self.node.local_session(id) {
                Some(session) if op == Op::Check => drop(session.watch(from)),
                Some(_) => {}
                None => self.node.tell_about(id, from, Op::Ended, &[]),
            }
        }
    }
}

fn pick(arrived: &Arrived<'_>) -> u64 {
    arrived.session().map_or(0, |id| id.0)
}
