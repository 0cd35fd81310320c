//! The envelope hold: envelopes for sessions on their way here from the predecessor (they come with their sockets, one
//! by one), and for nodes that are not reached now and may be soon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ffnet::Link;
use ffproto::link::Head;
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

/// The bound on questions that the predecessor has not answered; more wait in [`ToPredecessorQueue`].
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
    /// The end of a session that stays, and why.
    Close(SessionId, String),
}

impl ToPredecessor {
    /// The bytes that count against the bound of what waits.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Envelope(envelope) => envelope.body.len(),
                Self::Broadcast(payload) => payload.len(),
                Self::Close(_, why) => why.len(),
            }
    }
}

/// The sending end of what waits to be said to the predecessor.
struct PredecessorSender {
    queue: mpsc::UnboundedSender<ToPredecessor>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What waits to be said to the predecessor, up to `limits.park_bytes_max`.
pub(crate) struct ToPredecessorQueue {
    queue: mpsc::UnboundedReceiver<ToPredecessor>,
    bytes: Arc<AtomicUsize>,
}

impl ToPredecessorQueue {
    /// The next; `None` when nothing more comes. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<ToPredecessor> {
        let said = self.queue.recv().await?;
        self.bytes.fetch_sub(said.bytes(), Ordering::Relaxed);
        Some(said)
    }

    /// Ends the queue; gives out what has waited.
    pub(crate) fn end(&mut self) -> Option<ToPredecessor> {
        self.queue.close();
        self.queue.try_recv().ok()
    }
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
    to_predecessor: Option<PredecessorSender>,
    /// The sessions that stay with the predecessor, for their connections cannot leave it.
    staying: FxHashSet<SessionId>,
    /// The sessions of these that have ended there.
    ended: FxHashSet<SessionId>,
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
            let may_go = !self.expecting || self.ended.contains(&id) || ready(HeldFor::Session(id));
            let frames = self.sessions.get_mut(&id).filter(|_| may_go);
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
            Some(old) if old.bytes.load(Ordering::Relaxed) + what.bytes() <= old.bytes_max => {
                let bytes = what.bytes();
                old.bytes.fetch_add(bytes, Ordering::Relaxed);
                old.queue.send(what).map_err(|refused| refused.0)
            }
            _ => Err(what),
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
            state.ended.clear();
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
        let expected = match what {
            HeldFor::Node(_) => true,
            HeldFor::Session(id) => state.expecting && !state.ended.contains(&id),
        };
        if !state.waits(what) && (ready || !expected) {
            return false;
        }
        let held = state.put(what, bytes_max, frame()).is_ok();
        self.changed.notify_one();
        held
    }

    /// Opens the way to the predecessor for questions about sessions that have not come; open while the receiver lives.
    /// Up to `bytes_max` of them wait.
    pub(crate) fn open_questions(&self, bytes_max: usize) -> ToPredecessorQueue {
        let ((sender, queue), bytes) = (mpsc::unbounded_channel(), Arc::<AtomicUsize>::default());
        let sender = PredecessorSender { queue: sender, bytes: bytes.clone(), bytes_max };
        self.state.lock().to_predecessor = Some(sender);
        ToPredecessorQueue { queue, bytes }
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
        if state.staying.is_empty() && !sessions.is_empty() {
            // What came for many since this process serves was for these, too.
            for payload in &state.broadcasts {
                let _ = state.say(ToPredecessor::Broadcast(payload.to_vec()));
            }
        }
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

    /// Notes that a session is not with the predecessor any more: what is for one that stayed there waits no longer.
    pub(crate) fn not_there(&self, session: SessionId) {
        let mut state = self.state.lock();
        if state.staying.remove(&session) {
            state.ended.insert(session);
        }
    }

    /// Closes a session that stays with the predecessor.
    pub(crate) fn close_staying(&self, session: SessionId, why: &str) {
        let _ = self.state.lock().say(ToPredecessor::Close(session, why.to_owned()));
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

    /// Keeps a broadcast for sessions that are still on their way, up to `bytes_max` of what is held; passes it on to
    /// those that stay with the predecessor.
    pub(crate) fn keep(&self, payload: &[u8], bytes_max: usize) {
        let mut state = self.state.lock();
        // In one step with the look at who stays, which brings what was kept before.
        if !state.staying.is_empty() {
            let _ = state.say(ToPredecessor::Broadcast(payload.to_vec()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(queue: &mut ToPredecessorQueue) -> Vec<Vec<u8>> {
        let payload = |said| match said {
            ToPredecessor::Broadcast(payload) => payload,
            ToPredecessor::Close(_, why) => why.into_bytes(),
            ToPredecessor::Envelope(_) => Vec::new(),
        };
        std::iter::from_fn(|| queue.end()).map(payload).collect()
    }

    #[test]
    fn who_stays_gets_each_broadcast_once_also_those_that_came_before_it_was_known() {
        let hold = EnvelopeHold::default();
        let mut queue = hold.open_questions(1 << 20);
        hold.set_expecting(true);
        hold.keep(b"one", 1 << 20);
        hold.keep(b"two", 1 << 20);
        hold.set_staying(vec![SessionId(1)]);
        hold.keep(b"three", 1 << 20);
        hold.set_staying(vec![SessionId(2)]);
        assert_eq!(said(&mut queue), [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn what_waits_for_the_predecessor_is_bounded_by_its_bytes_not_by_its_number() {
        let hold = EnvelopeHold::default();
        let mut queue = hold.open_questions(1 << 20);
        hold.set_expecting(true);
        hold.set_staying(vec![SessionId(1)]);
        for _ in 0..2 * QUESTIONS_MAX {
            hold.keep(b"small", 0);
        }
        hold.keep(&vec![7; 1 << 20], 0);
        assert_eq!(said(&mut queue), vec![b"small".to_vec(); 2 * QUESTIONS_MAX]);
    }

    #[test]
    fn nothing_waits_for_a_session_that_stayed_and_has_ended() {
        let (hold, session) = (EnvelopeHold::default(), HeldFor::Session(SessionId(1)));
        hold.set_expecting(true);
        let waits = |state: &HoldState| state.expecting && !state.ended.contains(&SessionId(1));
        assert!(waits(&hold.state.lock()));
        // One that is on its way is not there either, and comes.
        hold.not_there(SessionId(1));
        assert!(waits(&hold.state.lock()));
        hold.set_staying(vec![SessionId(1)]);
        hold.not_there(SessionId(1));
        assert!(!hold.stays(SessionId(1)) && !waits(&hold.state.lock()));
        let never = || unreachable!("it is not held");
        assert!(!hold.hold(session, false, 1 << 20, never));
    }
}
