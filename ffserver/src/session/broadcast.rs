//! Broadcasts: one message for many clients, one frame for each net node, encoded there once for each form of message.

use std::time::Duration;

use ffproto::relay::{Audience, Broadcast, Op};
use ffproto::{Code, CommandId, Executed, Fault, NodeName, NodeNumber, SessionId};

use super::Sessions;
use crate::error::CallError;
use crate::identity::Identity;
use crate::identity::counters::count;
use crate::session::conflated_broadcast::ConflatedBroadcast;
use crate::session::local::{EncodedMessage, LocalSession};

/// Sends messages to many clients, from any node: [`Node::broadcasts`](crate::Node::broadcasts).
///
/// Each message goes once to every net node that is concerned, over each link at most once for each of them,
/// and is queued there for every client as a push is: `limits.slow_client` says what happens to those who do not
/// read. Messages of one node arrive in their order.
///
/// ```
/// use ffserver::prelude::*;
///
/// const SAID: CommandId = CommandId(20);
///
/// #[net_handle(3)]
/// async fn say(node: Node, Body(text): Body<String>) {
///     node.broadcasts().to_group("hall", SAID, text.as_bytes());
/// }
/// # let _ = App::new("chat").handlers(handlers![say]);
/// ```
#[derive(Debug, Clone)]
pub struct Broadcasts(Sessions);

impl Sessions {
    /// Queues a broadcast for this node's own sessions, in whichever of its processes they are.
    pub(crate) fn broadcast_here(&self, broadcast: &Broadcast<'_>) {
        count(&self.identity().counters().broadcasts);
        let bytes_max = self.identity().limits().park_bytes_max;
        if !self.handoff().broadcast(broadcast, bytes_max, |broadcast| self.queue_here(broadcast)) {
            count(&self.identity().counters().broadcasts_lost);
        }
    }

    /// Queues a message for a session that goes on in the successor. False when the message is lost.
    pub(crate) fn push_to_left(&self, session: SessionId, command: CommandId, body: &[u8]) -> bool {
        let audience = Audience::Sessions(&[session.0.to_le_bytes()]);
        let bytes_max = self.identity().limits().park_bytes_max;
        self.handoff().push(&Broadcast { command, audience, body }, bytes_max)
    }

    /// Takes a broadcast of the predecessor, which comes behind the sessions that have left there before it.
    pub(crate) fn broadcast_passed(&self, payload: &[u8]) {
        self.transit().hold().pass(payload, self.identity().limits().park_bytes_max);
        self.release_arrived();
        match Broadcast::read(payload) {
            Some(broadcast) => self.queue_here(&broadcast),
            None => tracing::warn!("a malformed broadcast of the old process is ignored"),
        }
    }

    /// Gives the clients that have arrived from the predecessor the broadcasts that they have missed on their way.
    pub(crate) fn release_arrived(&self) {
        while let Some((session, missed)) = self.transit().hold().next_arrived() {
            for broadcast in missed.iter().filter_map(|payload| Broadcast::read(payload)) {
                self.broadcast_late(session, &broadcast);
            }
        }
    }

    /// Queues a broadcast that the successor passes back, for the clients whose connections cannot leave.
    pub(crate) fn broadcast_to_staying(&self, payload: &[u8]) {
        match Broadcast::read(payload) {
            Some(broadcast) => self.queue_for(&broadcast, |session| !session.can_travel()),
            None => tracing::warn!("a malformed broadcast of the new process is ignored"),
        }
    }

    fn queue_here(&self, broadcast: &Broadcast<'_>) {
        self.queue_for(broadcast, |_| true);
    }

    fn queue_for(&self, broadcast: &Broadcast<'_>, is_meant: impl Fn(&LocalSession) -> bool) {
        let mut message = EncodedMessage::new(broadcast.command, broadcast.body);
        // A client that has left meanwhile, or reads too slowly, is counted where that is noticed.
        let mut push = |session: LocalSession| {
            if is_meant(&session) {
                let _ = session.push_encoded(&mut message);
            }
        };
        match broadcast.audience {
            Audience::All => self.registry().all().into_iter().for_each(push),
            Audience::Group(name) => self.groups().members(name).into_iter().for_each(push),
            Audience::Sessions(ids) => {
                for id in ids.iter().map(|id| SessionId(u64::from_le_bytes(*id))) {
                    match self.local(id) {
                        Some(session) => push(session),
                        None => count(&self.identity().counters().pushes_to_gone),
                    }
                }
            }
        }
    }

    /// Queues a broadcast of this node's own.
    fn broadcast_own(&self, broadcast: &Broadcast<'_>) {
        let hold = self.transit().hold();
        if hold.is_expecting() {
            // A client that is on its way here from the predecessor gets the broadcast, too.
            let mut payload = Vec::new();
            broadcast.write(&mut payload);
            hold.keep(&payload, self.identity().limits().park_bytes_max);
        }
        self.broadcast_here(broadcast);
    }

    /// Queues a broadcast for one session that was on its way here when the broadcast came.
    fn broadcast_late(&self, session: SessionId, broadcast: &Broadcast<'_>) {
        let is_meant = match broadcast.audience {
            Audience::All => true,
            Audience::Group(name) => self.groups().has(name, session),
            Audience::Sessions(ids) => ids.contains(&session.0.to_le_bytes()),
        };
        if let Some(local) = self.local(session).filter(|_| is_meant) {
            let _ = local.push_encoded(&mut EncodedMessage::new(broadcast.command, broadcast.body));
        }
    }
}

impl Broadcasts {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self(sessions)
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.0.identity()
    }

    /// A conflated broadcast: only the latest message of each key is sent, once every `tick`. What waits is bounded by
    /// `limits.latest_bytes_max`; a message above it goes before its tick.
    pub fn every(&self, tick: Duration) -> ConflatedBroadcast {
        ConflatedBroadcast::new(self.clone(), tick)
    }

    /// Sends to every client of the cluster. Returns how many net nodes it is on its way to.
    pub fn to_all(&self, command: CommandId, body: &[u8]) -> usize {
        self.to_nodes(&Broadcast { command, audience: Audience::All, body })
    }

    /// Sends to the clients in a group ([`Session::join`](crate::Session::join)). Returns how many net nodes it
    /// is on its way to.
    pub fn to_group(&self, group: &str, command: CommandId, body: &[u8]) -> usize {
        self.to_nodes(&Broadcast { command, audience: Audience::Group(group), body })
    }

    /// Sends to every client of one net node.
    ///
    /// # Errors
    /// [`CallError`]: it is not reached now.
    pub fn to_all_of(&self, net: &NodeName, command: CommandId, body: &[u8]) -> Result<(), CallError> {
        let broadcast = Broadcast { command, audience: Audience::All, body };
        if net == self.0.identity().name() {
            self.0.broadcast_own(&broadcast);
            return Ok(());
        }
        let number = self.0.transit().membership().named(net).map(|node| node.number);
        let number = number.ok_or_else(|| {
            let text = format!("`{}` does not reach `{net}`", self.0.identity().name());
            self.0.identity().fault(Code::NoNode, Executed::No, text)
        })?;
        Ok(self.send(number, &broadcast)?)
    }

    /// Sends to these clients, wherever they are. Returns how many net nodes it is on its way to; a session that
    /// is gone is counted (`pushes_to_gone`) by its net node.
    pub fn to_sessions(&self, sessions: &[SessionId], command: CommandId, body: &[u8]) -> usize {
        let mut sorted = sessions.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut sent = 0;
        for of_one in sorted.chunk_by(|a, b| a.node() == b.node()) {
            let ids: Vec<[u8; 8]> = of_one.iter().map(|id| id.0.to_le_bytes()).collect();
            let broadcast = Broadcast { command, audience: Audience::Sessions(&ids), body };
            let number = of_one[0].node();
            if self.0.transit().membership().number() == Some(number) {
                self.0.broadcast_own(&broadcast);
                sent += 1;
            } else {
                sent += usize::from(self.send(number, &broadcast).is_ok());
            }
        }
        sent
    }

    fn to_nodes(&self, broadcast: &Broadcast<'_>) -> usize {
        let mut sent = 0;
        if self.0.identity().config().netport.is_some() {
            self.0.broadcast_own(broadcast);
            sent += 1;
        }
        let nets = self.0.transit().membership().nets();
        sent + nets.into_iter().filter(|number| self.send(*number, broadcast).is_ok()).count()
    }

    fn send(&self, to: NodeNumber, broadcast: &Broadcast<'_>) -> Result<(), Fault> {
        let mut payload = Vec::new();
        broadcast.write(&mut payload);
        self.0.transit().tell_node(to, Op::Broadcast, None, &payload, None)
    }
}
