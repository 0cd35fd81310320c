//! The next hop of a message: which link the message takes now, or how long it waits for one. No task, no channel and
//! no allocation for a message that goes at once: its body is copied once, into the outbox of the link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::Target;
use ffnet::Link;
use ffnet::link::{CallOptions, Forward, NotForwarded, NotSent, Sink};
use ffproto::link::Client;
use ffproto::relay::{self, AFFINITY, AffinityNotice, AffinityWord, Op, TO};
use ffproto::{Code, Executed, Fault, NodeName, SessionId};
use fftelemetry::tagged;
use tokio::time::Instant;

use super::Transit;
use crate::cluster::affinity::{AffinityLookup, Hop, NodeChange, StaleChoice};
use crate::cluster::peers::{self, KnownPeer, LinkChoice};
use crate::cluster::select::{Candidate, CandidateState, Pick, pick};
use crate::cluster::served::method_of;
use crate::cluster::side::{PeerKey, Side};
use crate::identity::counters::count;
use crate::transit::park::{Destination, HandlerMessage, ParkResult, ParkedKind, ParkedMessage, RetryResult};

/// How long may pass between two looks at what is parked, beside every event and every deadline: the patience for a lost
/// neighbour ends by the clock, and a session leaves a hop when its last outcome there has come, which has no event.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A client's message on its way.
#[derive(Clone, Copy)]
pub(crate) struct Forwarded<'a> {
    /// The key of a [`Target`].
    pub(crate) target: &'a Arc<str>,
    /// The neighbour that the message came from; `None` from a client of this node.
    pub(crate) from: Option<&'a PeerKey>,
    /// Whether this node's own route has given the target: then the message may go up although it came from there.
    pub(crate) routed_here: bool,
    /// The number of links that the message has crossed.
    pub(crate) hops: u8,
    pub(crate) client: Client,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

/// The search for a hop, and what it came to.
pub(crate) enum NextHop<T> {
    /// The hop, or the link.
    Go(T),
    /// No hop yet: a node may be back, or an earlier message of the session may end.
    Wait,
    /// No hop.
    None,
}

/// The arrival of a message for which a hop is looked for; the fields are those of [`Forwarded`].
#[derive(Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) target: &'a Arc<str>,
    pub(crate) from: Option<&'a PeerKey>,
    pub(crate) routed_here: bool,
    pub(crate) client: Client,
    pub(crate) now: Instant,
}

impl Arrival<'_> {
    /// Whether the message may go to a neighbour. What has come from a parent does not go up again, so no message goes
    /// in a circle; when this node's route has given it a new target it may go back to that parent, which knows the
    /// session.
    fn may_go_to(&self, side: Side, name: &NodeName) -> bool {
        match self.from {
            Some(PeerKey { side: Side::Parent, name: from }) if side == Side::Parent => {
                self.routed_here && from == name
            }
            Some(PeerKey { side: Side::Child, name: from }) if side == Side::Child => {
                self.routed_here || from != name
            }
            _ => true,
        }
    }

    /// The neighbour that is told of the node that is chosen: none when the target is this node's own business.
    fn informed_neighbour(&self) -> Option<&PeerKey> {
        self.from.filter(|_| !self.routed_here)
    }
}

/// A candidate: a neighbour that may take a message, and the hop to it when its link is open.
struct LinkedCandidate {
    candidate: Candidate,
    hop: Option<Hop>,
}

impl AsRef<Candidate> for LinkedCandidate {
    fn as_ref(&self) -> &Candidate {
        &self.candidate
    }
}

impl Transit {
    /// The hop for a message: the session's own, or the best one now (which a stateful session keeps).
    pub(crate) fn hop(&self, arrival: Arrival<'_>) -> NextHop<Hop> {
        let Arrival { target, client, .. } = arrival;
        if client.stateless {
            return self.stateless_hop(arrival);
        }
        match self.affinity().get(client.session, target, self.membership().changes()) {
            Some(AffinityLookup::Hop(hop)) => NextHop::Go(hop),
            Some(AffinityLookup::Stale(stale)) => self.choose_hop(arrival, stale),
            None => self.choose_hop(arrival, StaleChoice::default()),
        }
    }

    fn stateless_hop(&self, arrival: Arrival<'_>) -> NextHop<Hop> {
        let mut candidates = self.candidates(arrival, None);
        match pick(&candidates, None, self.next_turn()) {
            Pick::Go(at) | Pick::Leave(at) => {
                candidates.swap_remove(at).hop.map_or(NextHop::None, NextHop::Go)
            }
            Pick::Wait => NextHop::Wait,
            Pick::None => NextHop::None,
        }
    }

    /// Chooses a session's hop, with what it had before as a preference, and keeps it as the session's choice.
    fn choose_hop(&self, arrival: Arrival<'_>, stale: StaleChoice) -> NextHop<Hop> {
        let Arrival { target, client, .. } = arrival;
        let StaleChoice { neighbour, link, end } = stale;
        let mut candidates = self.candidates(arrival, end.as_ref());
        let at = match pick(&candidates, neighbour.as_ref(), self.next_turn()) {
            Pick::Go(at) => at,
            Pick::Leave(at) if self.leave_neighbour(neighbour.as_ref(), target, client) => at,
            Pick::Leave(_) | Pick::Wait => return NextHop::Wait,
            Pick::None => return NextHop::None,
        };
        let LinkedCandidate { candidate, hop: Some(hop) } = candidates.swap_remove(at) else {
            return NextHop::None;
        };
        // A neighbour that is new on the way is told first which node the session has.
        let is_new = link.is_none_or(|link| !link.same(&hop.link));
        if let Some(end) = end.filter(|_| is_new && !candidate.end) {
            let notice = AffinityNotice { what: AffinityWord::Prefer, target, node: end.as_str() };
            if hop.link.notify(AFFINITY, &notice.write(), Some(client)).is_err() {
                return NextHop::Wait;
            }
        }
        let (end, from) = (candidate.end.then(|| candidate.name.clone()), arrival.informed_neighbour());
        let moved = self.affinity().set(client.session, target, hop.clone(), end, from);
        self.tell_moved(client, target, moved);
        NextHop::Go(hop)
    }

    /// Leaves the neighbour that a session's messages went to. False as long as something of the session is under way
    /// there.
    fn leave_neighbour(&self, neighbour: Option<&NodeName>, target: &str, client: Client) -> bool {
        let linked = |name: &NodeName| {
            let child = self.children().get(name.as_str()).and_then(|known| known.link().cloned());
            child.or_else(|| self.parents().get(name.as_str())?.link().cloned())
        };
        let Some(link) = neighbour.and_then(linked) else { return true };
        if link.has_message_of(client.session) {
            return false;
        }
        let notice = AffinityNotice { what: AffinityWord::Forget, target, node: "" };
        // A choice that the neighbour keeps without having got this ends with the session, see Op::Ways.
        let _ = link.notify(AFFINITY, &notice.write(), Some(client));
        true
    }

    /// Tells the net node of a session whose node is another one than before, by way of where the messages come from.
    pub(crate) fn tell_moved(&self, client: Client, target: &str, moved: Option<NodeChange>) {
        match moved {
            Some(NodeChange { from: Some(from), .. }) => {
                let Some(end) = self.affinity().end(client.session, target) else { return };
                let notice = AffinityNotice { what: AffinityWord::Chosen, target, node: end.as_str() };
                self.tell(&from.name, AFFINITY, &notice.write(), client);
            }
            Some(NodeChange { from: None, lost: Some(lost) }) => self.affinity().lose(client.session, lost),
            _ => {}
        }
    }

    /// The candidates for a message, with their hops. `end` is the node that the session has.
    fn candidates(&self, arrival: Arrival<'_>, end: Option<&NodeName>) -> Vec<LinkedCandidate> {
        let Arrival { target, client: Client { session, .. }, now, .. } = arrival;
        let mut candidates = Vec::new();
        // Counted before the look: a change during it makes the hop be looked up again.
        let changes = self.membership().changes();
        let (meant, method) = (Target::of_key(target.clone()), method_of(target));
        let park = self.identity().limits().park;
        for side in [Side::Child, Side::Parent] {
            for known in self.peers(side).iter() {
                if !arrival.may_go_to(side, &known.name) {
                    continue;
                }
                let at = PeerKey::new(side, known.name.clone());
                // What a neighbour takes that has never been linked is what the config says.
                let number = known.last_link().map(|link| link.method_number(&method));
                if !number.map_or_else(
                    || self.routes().takes(side, &known.name, &known.group, target),
                    |n| n.is_some(),
                ) {
                    continue;
                }
                let (state, hop) = match known.state(now, park) {
                    peers::PeerState::Open(_) if known.holds(session) => (CandidateState::Soon, None),
                    peers::PeerState::Open(link) => {
                        let state = CandidateState::Open(link.waiting_calls());
                        (state, number.flatten().map(|method| Hop { link, method, changes }))
                    }
                    peers::PeerState::Replaced => (CandidateState::Soon, None),
                    peers::PeerState::Missed => (CandidateState::Missed, None),
                    // The session goes elsewhere when the outcomes of its messages there have come.
                    peers::PeerState::Withdrawn if known.holds(session) => (CandidateState::Soon, None),
                    peers::PeerState::Gone | peers::PeerState::Withdrawn => continue,
                };
                let candidate = self.candidate(known, &at, state, &meant, end);
                candidates.push(LinkedCandidate { candidate, hop });
            }
        }
        candidates
    }

    fn candidate(
        &self,
        known: &KnownPeer,
        at: &PeerKey,
        state: CandidateState,
        meant: &Target,
        end: Option<&NodeName>,
    ) -> Candidate {
        let kind = known.last_link().map_or("", |link| link.peer().kind.as_str());
        let membership = self.membership();
        Candidate {
            side: at.side,
            name: known.name.clone(),
            state,
            end: meant.means(known.name.as_str(), kind),
            leads: membership.reaches(at, |node| meant.means(node.name.as_str(), &node.kind)),
            to_kept: end
                .is_some_and(|end| known.name == *end || membership.reaches(at, |node| node.name == *end)),
        }
    }

    /// The link to a parent or a child; of several neighbours that are meant, the same for the same client session.
    pub(crate) fn link_to(
        &self,
        side: Side,
        who: &str,
        session: Option<SessionId>,
        now: Instant,
    ) -> NextHop<Link> {
        let peers = self.peers(side);
        let park = self.identity().limits().park;
        let (mut found, mut others, mut missed) = (None, Vec::new(), false);
        for peer in peers.meant(who) {
            let hop = match peer.state(now, park) {
                peers::PeerState::Open(link) => NextHop::Go(link),
                peers::PeerState::Replaced => NextHop::Wait,
                peers::PeerState::Missed => {
                    missed = true;
                    continue;
                }
                peers::PeerState::Gone | peers::PeerState::Withdrawn => continue,
            };
            // The first one has its own place, because mostly one is meant, and a vector takes an allocation.
            match found {
                None => found = Some(hop),
                Some(_) => others.push(hop),
            }
        }
        let Some(first) = found else { return if missed { NextHop::Wait } else { NextHop::None } };
        if others.is_empty() {
            return first;
        }
        let turn = session.map_or_else(|| self.next_turn(), |id| id.0);
        match (turn % (others.len() as u64 + 1)) as usize {
            0 => first,
            n => others.swap_remove(n - 1),
        }
    }

    /// Sends a client's message on towards its target, or parks it. The body is copied once. Returns the hop that the next
    /// message of the session takes, as long as nothing changes.
    ///
    /// # Errors
    /// The fault for the client; the sink will not be told.
    pub(crate) fn forward(
        &self,
        message: &Forwarded<'_>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<Option<Hop>, Fault> {
        let Forwarded { target, from, routed_here, hops, client, body, deadline, now } = *message;
        let wait = |sink| {
            let (target, from, sink) = (target.clone(), from.cloned(), (sink, token));
            let kind = ParkedKind::Message { target, client, from, routed_here, hops, sink };
            self.wait(ParkedMessage { kind, body: Bytes::copy_from_slice(body), deadline }).map(|()| None)
        };
        // The message stays behind earlier ones of its session, as long as they wait.
        if self.park().any() && self.park().blocks(&Destination::Target(target.clone()), Some(client.session))
        {
            return wait(sink);
        }
        match self.hop(Arrival { target, from, routed_here, client, now }) {
            NextHop::Go(hop) => match forward_over(&hop, message, sink, token) {
                Ok(()) => Ok(Some(hop).filter(|_| !client.stateless)),
                Err(NotForwarded::Fault(fault)) => Err(fault),
                Err(NotForwarded::Later(sink)) => wait(sink),
            },
            NextHop::Wait => wait(sink),
            NextHop::None => Err(self.no_hop(target)),
        }
    }

    /// Parks a message until its neighbour is there.
    ///
    /// # Errors
    /// Too much is parked already.
    pub(crate) fn wait(&self, entry: ParkedMessage) -> Result<(), Fault> {
        match self.park().park(entry) {
            ParkResult::Waits { watch: false } => Ok(()),
            ParkResult::Waits { watch: true } => {
                drop(tokio::spawn(tagged(self.clone().watch_parked())));
                Ok(())
            }
            ParkResult::Full => {
                count(&self.identity().counters().park_full);
                let text = format!(
                    "too much waits at `{}` for another node: limits.park_max",
                    self.identity().name()
                );
                Err(self.identity().fault(Code::Overloaded, Executed::No, text))
            }
        }
    }

    /// Looks at the park every [`LOOK_EVERY`], and at each deadline between two looks, until nothing waits.
    async fn watch_parked(self) {
        while !self.park().is_over() {
            let due = self.park().next_look(Instant::now() + LOOK_EVERY);
            // A message with less time than that may come meanwhile: it is not to wait longer than its caller.
            let _ = tokio::time::timeout_at(due, self.park().sooner()).await;
            self.look_at_parked();
        }
    }

    /// Sends parked messages that can go now, in order; ends those that have waited for too long.
    pub(crate) fn look_at_parked(&self) {
        if self.park().any() {
            let now = Instant::now();
            self.park().look(|entry, free| self.look_at(entry, free, now));
        }
    }

    /// Sends or ends the parked messages of one session.
    pub(crate) fn look_at_parked_of(&self, session: SessionId) {
        if self.park().any() {
            let now = Instant::now();
            self.park().look_of(session, |entry, free| self.look_at(entry, free, now));
        }
    }

    fn look_at(&self, entry: ParkedMessage, free: bool, now: Instant) -> RetryResult {
        if entry.deadline <= now {
            let text = "the deadline passed while it waited for another node";
            entry.fail(&self.identity().fault(Code::Timeout, Executed::No, text));
            return RetryResult::Gone;
        }
        // A message of a client that is gone is not begun; what handlers have sent for the client goes on.
        let is_said = matches!(entry.kind, ParkedKind::Message { .. });
        if is_said && entry.session().is_some_and(|id| self.has_ended(id)) {
            entry.fail(&self.identity().fault(Code::NoNode, Executed::No, "the session has ended"));
            return RetryResult::Gone;
        }
        if !free {
            return RetryResult::Waits(entry);
        }
        match self.send_parked(&entry, now) {
            Ok(()) => RetryResult::Gone,
            Err(NotSent::Fault(fault)) => {
                entry.fail(&fault);
                RetryResult::Gone
            }
            Err(NotSent::Later) => RetryResult::Waits(entry),
        }
    }

    fn send_parked(&self, entry: &ParkedMessage, now: Instant) -> Result<(), NotSent> {
        let (body, deadline) = (&entry.body, entry.deadline);
        match &entry.kind {
            ParkedKind::Message { target, client, from, routed_here, hops, sink: (sink, token) } => {
                let (from, client, hops, routed_here) = (from.as_ref(), *client, *hops, *routed_here);
                let hop = match self.hop(Arrival { target, from, routed_here, client, now }) {
                    NextHop::Go(hop) => hop,
                    NextHop::Wait => return Err(NotSent::Later),
                    NextHop::None => return Err(self.no_hop(target).into()),
                };
                let message = Forwarded { target, from, routed_here, hops, client, body, deadline, now };
                Ok(forward_over(&hop, &message, sink.clone(), *token)?)
            }
            ParkedKind::Call(head, (sink, token)) => {
                let link = self.link_for_parked(head, now)?;
                let Some(method) = link.method_number(&head.method) else {
                    let text = format!("`{}` has no method `{}`", link.peer().name, head.method);
                    return Err(self.identity().fault(Code::NoMethod, Executed::No, text).into());
                };
                let options = CallOptions { deadline, client: head.client };
                let (hops, nested, sink, token) = (0, false, sink.clone(), *token);
                let call = Forward { method, body, options, message_of: None, hops, nested, sink, token };
                Ok(link.forward(call, now)?)
            }
            ParkedKind::Notify(head) => {
                let link = self.link_for_parked(head, now)?;
                self.notify_over(&link, head.side, &head.method, body, head.client)
            }
        }
    }

    fn link_for_parked(&self, head: &HandlerMessage, now: Instant) -> Result<Link, NotSent> {
        let HandlerMessage { side, who, client, .. } = head;
        match self.link_to(*side, who, client.map(|client| client.session), now) {
            NextHop::Go(link) => Ok(link),
            NextHop::Wait => Err(NotSent::Later),
            NextHop::None => Err(self.not_there(*side, who).into()),
        }
    }

    /// Sends a neighbour a notify over its link, or over an older link while it is being replaced: what is for a client
    /// goes the way of the answer that may follow it.
    pub(crate) fn notify_over(
        &self,
        link: &Link,
        side: Side,
        method: &str,
        body: &[u8],
        client: Option<Client>,
    ) -> Result<(), NotSent> {
        match client.filter(|_| link.is_young() && is_for_client(method, body)) {
            None => link.notify(method, body, client),
            Some(Client { session, .. }) => match self.turn(side, link, session) {
                LinkChoice::Old(old) => match old.notify_beside(method, body, client) {
                    Ok(()) => Ok(()),
                    // The older link has just ended.
                    Err(_) => link.notify(method, body, client),
                },
                LinkChoice::New => link.notify(method, body, client),
                LinkChoice::Wait => Err(NotSent::Later),
            },
        }
    }

    fn turn(&self, side: Side, link: &Link, session: SessionId) -> LinkChoice {
        let name = &link.peer().name;
        let is_its_own = self.membership().name(session.node()).is_some_and(|net| net == *name);
        let at_work = is_its_own.then(|| {
            let others = self.links().into_iter().filter(|other| other.peer().name != *name);
            self.runs_here(session) || others.into_iter().any(|other| other.has_message_of(session))
        });
        let known = self.peers(side);
        known.get(name.as_str()).map_or(LinkChoice::New, |known| known.turn(session, at_work))
    }

    /// Sends a neighbour a notify about a session, now or when the neighbour is back.
    pub(crate) fn tell(&self, name: &NodeName, method: &str, body: &[u8], client: Client) {
        let now = Instant::now();
        let is_child = self.children().get(name.as_str()).is_some();
        let side = if is_child { Side::Child } else { Side::Parent };
        match self.link_to(side, name.as_str(), None, now) {
            NextHop::Go(link) => match link.notify(method, body, Some(client)) {
                Err(NotSent::Later) => {}
                // A notify that is lost with a link is made up for by the next Check or Ways.
                Ok(()) | Err(NotSent::Fault(_)) => return,
            },
            NextHop::Wait => {}
            NextHop::None => return,
        }
        let kind = ParkedKind::Notify(HandlerMessage::new(side, name.as_str(), method, Some(client)));
        let deadline = now + self.identity().limits().call_timeout;
        // A notify that does not fit is made up for in the same way.
        let _ = self.wait(ParkedMessage { kind, body: Bytes::copy_from_slice(body), deadline });
    }

    /// The fault of a message that has no hop.
    pub(crate) fn no_hop(&self, target: &Arc<str>) -> Fault {
        let text =
            format!("no {} is connected to `{}`", Target::of_key(target.clone()), self.identity().name());
        self.identity().fault(Code::NoNode, Executed::No, text)
    }

    /// The fault of a message that has crossed too many links.
    pub(crate) fn too_many_hops(&self, hops: u8) -> Fault {
        let text = format!("the message has crossed {hops} links and is not there: limits.hops_max");
        self.identity().fault(Code::TooManyHops, Executed::No, text)
    }

    /// The fault of a call whose neighbour is not there.
    pub(crate) fn not_there(&self, side: Side, who: &str) -> Fault {
        let text = match side {
            Side::Parent if self.parents().meant(who).next().is_none() => {
                format!("`{}` has no parent `{who}`", self.identity().name())
            }
            Side::Parent => format!("parent `{who}` is not connected to `{}`", self.identity().name()),
            Side::Child => format!("child `{who}` is not connected to `{}`", self.identity().name()),
        };
        self.identity().fault(Code::NoNode, Executed::No, text)
    }
}

/// Whether a message is for a client, and the order of answers matters to it.
pub(crate) fn is_for_client(method: &str, body: &[u8]) -> bool {
    let op = || relay::read(body).and_then(|envelope| envelope.op);
    method == TO && matches!(op(), Some(Op::Push | Op::Close))
}

/// Sends a client's message over a hop.
///
/// # Errors
/// [`NotForwarded`]; the sink will not be told.
#[inline]
pub(crate) fn forward_over(
    hop: &Hop,
    message: &Forwarded<'_>,
    sink: Arc<dyn Sink>,
    token: u64,
) -> Result<(), NotForwarded> {
    let Forwarded { client, body, deadline, hops, now, .. } = *message;
    let options = CallOptions { deadline, client: Some(client) };
    let (method, message_of) = (hop.method, Some(client.session));
    let call = Forward { method, body, options, message_of, hops, nested: false, sink, token };
    hop.link.forward(call, now)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::server::bare;
    use crate::transit::park::{OutcomeSlot, SlotOutcome};

    #[tokio::test(start_paused = true)]
    async fn a_parked_message_ends_at_its_deadline_also_when_others_were_parked_before() {
        let config = r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": {
            "gate": { "rootport": 3, "app": "gate" },
            "game": { "app": "game", "remoteport": [{ "rootport": 3, "rootname": "gate" }] } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let executor = bare(&cluster, "gate").unwrap();
        let transit = executor.node.transit();
        let parked = |ms| {
            let (slot, deadline) =
                (Arc::new(OutcomeSlot::default()), Instant::now() + Duration::from_millis(ms));
            let head = HandlerMessage::new(Side::Child, "game", "ping", None);
            let kind = ParkedKind::Call(head, (slot.clone() as Arc<dyn Sink>, 0));
            transit.wait(ParkedMessage { kind, body: Bytes::new(), deadline }).unwrap();
            SlotOutcome(slot)
        };
        let _first = parked(1000);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        // Less than is left until the next look.
        let fault = parked(5).await.unwrap_err();
        assert_eq!((fault.code, fault.executed), (Code::Timeout, Executed::No));
        assert!(begun.elapsed() < Duration::from_millis(8), "after {:?}", begun.elapsed());
    }
}
