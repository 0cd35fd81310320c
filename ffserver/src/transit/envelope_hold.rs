//! The envelope hold: envelopes for sessions on their way here from the predecessor (they come with their sockets, one
//! by one), and for nodes that are not reached now and may be soon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffproto::link::Head;
use ffproto::relay::Broadcast;
use ffproto::{NodeNumber, SessionId};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::cluster::side::PeerKey;
use crate::transit::inbound_envelope::InboundEnvelope;

/// What an envelope waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HeldFor {
    Session(SessionId),
    Node(NodeNumber),
}

/// The bound on questions about sessions that are on their way to the predecessor; more wait here.
pub(crate) const QUESTIONS_MAX: usize = 1024;

/// An envelope that has arrived and waits.
pub(crate) struct HeldEnvelope {
    pub(crate) at: PeerKey,
    pub(crate) link: Link,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) now: Instant,
}

impl HeldEnvelope {
    /// A copy of an envelope that has arrived.
    pub(crate) fn of(inbound: &InboundEnvelope<'_>) -> Self {
        let InboundEnvelope { at, link, head, body, now } = *inbound;
        Self { at: at.clone(), link: link.clone(), head: *head, body: body.to_vec(), now }
    }

    /// The envelope as it has arrived.
    pub(crate) fn inbound(&self) -> InboundEnvelope<'_> {
        let Self { at, link, head, body, now } = self;
        InboundEnvelope { at, link, head, body, now: *now }
    }
}

/// What a successor says to its predecessor about sessions that are there.
pub(crate) enum ToPredecessor {
    /// A question about a session that has not come, or an envelope for one that stays there.
    Envelope(HeldEnvelope),
    /// A broadcast, for the sessions that stay.
    Broadcast(Vec<u8>),
}

/// The envelopes that wait, by what they wait for, in their order.
#[derive(Default)]
pub(crate) struct EnvelopeHold {
    state: Mutex<HoldState>,
    /// Rings when an envelope may go.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct HoldState {
    /// Whether sessions are on their way here.
    expecting: bool,
    sessions: FxHashMap<SessionId, VecDeque<HeldEnvelope>>,
    /// The sessions of these that may have arrived.
    due: VecDeque<SessionId>,
    nodes: FxHashMap<NodeNumber, VecDeque<HeldEnvelope>>,
    bytes: usize,
    /// The broadcasts that came while sessions are expected: each is for clients that arrive later, too.
    broadcasts: Vec<Arc<[u8]>>,
    /// The broadcasts that the predecessor has passed on, in its order; empty where one was too much to keep.
    passed: Vec<Arc<[u8]>>,
    /// The way to the predecessor for questions about sessions that have not come: see [`EnvelopeHold::open_questions`].
    to_predecessor: Option<mpsc::Sender<ToPredecessor>>,
    /// The sessions that stay with the predecessor, for their connections cannot leave it.
    staying: FxHashSet<SessionId>,
    arrived: VecDeque<ArrivedSession>,
}

/// A session that has arrived.
struct ArrivedSession {
    session: SessionId,
    /// The number of broadcasts that had come by then.
    broadcasts: usize,
    /// The number of broadcasts that the predecessor had passed on by then, and of those that the client got there.
    passed: usize,
    received: usize,
}

impl HoldState {
    fn waits(&self, what: HeldFor) -> bool {
        match what {
            HeldFor::Session(id) => self.sessions.contains_key(&id),
            HeldFor::Node(number) => self.nodes.contains_key(&number),
        }
    }

    /// Lets an envelope wait, or gives it back when more than `bytes_max` would.
    fn put(&mut self, what: HeldFor, bytes_max: usize, frame: HeldEnvelope) -> Result<(), HeldEnvelope> {
        if self.bytes + frame.body.len() > bytes_max {
            return Err(frame);
        }
        self.bytes += frame.body.len();
        match what {
            HeldFor::Session(id) => self.sessions.entry(id).or_default().push_back(frame),
            HeldFor::Node(number) => self.nodes.entry(number).or_default().push_back(frame),
        }
        Ok(())
    }

    /// The next envelope for a session that is there.
    fn next_of_session(&mut self, ready: impl Fn(HeldFor) -> bool) -> Option<HeldEnvelope> {
        loop {
            let id = match (self.expecting, self.due.front()) {
                (_, Some(id)) => *id,
                // No session comes any more: what waits goes on, and finds that its session is gone.
                (false, None) => *self.sessions.keys().next()?,
                (true, None) => return None,
            };
            let frames =
                self.sessions.get_mut(&id).filter(|_| !self.expecting || ready(HeldFor::Session(id)));
            if let Some(frame) = frames.and_then(VecDeque::pop_front) {
                return Some(frame);
            }
            // The session has no envelope left, or has not arrived after all.
            self.due.pop_front();
            if self.sessions.get(&id).is_some_and(VecDeque::is_empty) {
                self.sessions.remove(&id);
            }
        }
    }

    /// The next envelope for a node that is reached, or has been waited for long enough.
    fn next_of_node(
        &mut self,
        now: Instant,
        patience: Duration,
        ready: impl Fn(HeldFor) -> bool,
    ) -> Option<HeldEnvelope> {
        let may_go = |(number, frames): &(&NodeNumber, &VecDeque<HeldEnvelope>)| {
            ready(HeldFor::Node(**number)) || frames.front().is_none_or(|first| now - first.now >= patience)
        };
        let number = *self.nodes.iter().find(may_go)?.0;
        let frames = self.nodes.get_mut(&number)?;
        let frame = frames.pop_front();
        if frames.is_empty() {
            self.nodes.remove(&number);
        }
        frame
    }

    fn forget_broadcasts(&mut self) {
        if !self.expecting && self.arrived.is_empty() {
            self.broadcasts.clear();
            self.passed.clear();
        }
    }

    /// Says something to the predecessor; gives it back when that is not to be spoken to.
    fn say(&self, what: ToPredecessor) -> Result<(), ToPredecessor> {
        match &self.to_predecessor {
            Some(old) => old.try_send(what).map_err(mpsc::error::TrySendError::into_inner),
            None => Err(what),
        }
    }
}

impl EnvelopeHold {
    /// Notes whether sessions are on their way here.
    pub(crate) fn set_expecting(&self, expecting: bool) {
        let mut state = self.state.lock();
        state.expecting = expecting;
        if !expecting {
            state.staying.clear();
        }
        state.forget_broadcasts();
        drop(state);
        self.changed.notify_one();
    }

    /// Whether sessions are on their way here.
    pub(crate) fn is_expecting(&self) -> bool {
        self.state.lock().expecting
    }

    /// Takes an envelope that must wait: its session or node is not `ready`, or earlier envelopes wait for the same.
    /// False when it need not wait, or more than `bytes_max` wait already.
    pub(crate) fn hold(
        &self,
        what: HeldFor,
        ready: bool,
        bytes_max: usize,
        frame: impl FnOnce() -> HeldEnvelope,
    ) -> bool {
        let mut state = self.state.lock();
        let expected = matches!(what, HeldFor::Node(_)) || state.expecting;
        if !state.waits(what) && (ready || !expected) {
            return false;
        }
        let held = state.put(what, bytes_max, frame()).is_ok();
        self.changed.notify_one();
        held
    }

    /// Opens the way to the predecessor for questions about sessions that have not come; open while the receiver lives.
    pub(crate) fn open_questions(&self) -> mpsc::Receiver<ToPredecessor> {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        self.state.lock().to_predecessor = Some(sender);
        receiver
    }

    /// Sends an envelope to the predecessor instead of holding it; gives it back when the predecessor is not to be
    /// asked.
    pub(crate) fn to_predecessor(&self, frame: HeldEnvelope) -> Option<HeldEnvelope> {
        match self.state.lock().say(ToPredecessor::Envelope(frame)) {
            Err(ToPredecessor::Envelope(frame)) => Some(frame),
            _ => None,
        }
    }

    /// Notes sessions that stay with the predecessor: what waits for them goes back there, and what will come.
    pub(crate) fn set_staying(&self, sessions: Vec<SessionId>) {
        let mut state = self.state.lock();
        for session in sessions {
            state.staying.insert(session);
            for frame in state.sessions.remove(&session).unwrap_or_default() {
                state.bytes -= frame.body.len();
                let _ = state.say(ToPredecessor::Envelope(frame));
            }
        }
    }

    /// Whether a session stays with the predecessor.
    pub(crate) fn stays(&self, session: SessionId) -> bool {
        self.state.lock().staying.contains(&session)
    }

    /// Passes a broadcast on to the sessions that stay with the predecessor.
    pub(crate) fn pass_to_staying(&self, broadcast: &Broadcast<'_>) {
        let state = self.state.lock();
        if !state.staying.is_empty() {
            let mut payload = Vec::new();
            broadcast.write(&mut payload);
            let _ = state.say(ToPredecessor::Broadcast(payload));
        }
    }

    /// Holds an envelope that the predecessor had no answer to. Gives it back when more than `bytes_max` wait.
    ///
    /// # Errors
    /// The envelope.
    pub(crate) fn put_back(
        &self,
        session: SessionId,
        bytes_max: usize,
        frame: HeldEnvelope,
    ) -> Result<(), HeldEnvelope> {
        let mut state = self.state.lock();
        state.due.push_back(session);
        let held = state.put(HeldFor::Session(session), bytes_max, frame);
        drop(state);
        self.changed.notify_one();
        held
    }

    /// Notes that a session has arrived from the predecessor, where its client has got the first `heard` of the
    /// broadcasts that are passed on.
    pub(crate) fn arrived(&self, session: SessionId, received: u32) {
        let mut state = self.state.lock();
        let (broadcasts, passed) = (state.broadcasts.len(), state.passed.len());
        state.arrived.push_back(ArrivedSession { session, broadcasts, passed, received: received as usize });
        drop(state);
        self.changed.notify_one();
    }

    /// Keeps a broadcast for sessions that are still on their way, up to `bytes_max` of what is held.
    pub(crate) fn keep(&self, payload: &[u8], bytes_max: usize) {
        let mut state = self.state.lock();
        let kept: usize = state.broadcasts.iter().map(|kept| kept.len()).sum();
        if state.expecting && kept + payload.len() <= bytes_max {
            state.broadcasts.push(payload.into());
        }
    }

    /// Keeps a broadcast that the predecessor has passed on, up to `bytes_max`, for clients that leave it later.
    pub(crate) fn pass(&self, payload: &[u8], bytes_max: usize) {
        let mut state = self.state.lock();
        let kept: usize = state.passed.iter().map(|kept| kept.len()).sum();
        let fits = kept + payload.len() <= bytes_max;
        // The broadcast's place counts also when its bytes are not kept.
        state.passed.push(if fits { payload.into() } else { Arc::default() });
    }

    /// The next session that has arrived, with the broadcasts that its client has missed on the way.
    pub(crate) fn next_arrived(&self) -> Option<(SessionId, Vec<Arc<[u8]>>)> {
        let mut state = self.state.lock();
        let ArrivedSession { session, broadcasts, passed, received } = state.arrived.pop_front()?;
        state.due.push_back(session);
        let passed = state.passed.get(received..passed).unwrap_or_default();
        let missed = [&state.broadcasts[..broadcasts.min(state.broadcasts.len())], passed].concat();
        state.forget_broadcasts();
        Some((session, missed))
    }

    /// Whether any envelope waits.
    pub(crate) fn any(&self) -> bool {
        let state = self.state.lock();
        !state.sessions.is_empty() || !state.nodes.is_empty() || !state.arrived.is_empty()
    }

    /// The next envelope that need not wait any more: its session or node is `ready`, no session is expected any more,
    /// or it has waited for a node as long as `patience`.
    pub(crate) fn next(
        &self,
        now: Instant,
        patience: Duration,
        ready: impl Fn(HeldFor) -> bool,
    ) -> Option<HeldEnvelope> {
        let mut state = self.state.lock();
        let frame = state.next_of_session(&ready).or_else(|| state.next_of_node(now, patience, &ready))?;
        state.bytes -= frame.body.len();
        Some(frame)
    }
}
