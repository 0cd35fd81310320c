//! Envelopes that cannot go on yet: for sessions on their way here from the process that this one replaces
//! (they come with their sockets, one by one), and for nodes that are not reached now and may be soon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffproto::link::Head;
use ffproto::{NodeNumber, SessionId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::cluster::side::PeerKey;
use crate::transit::inbound_envelope::InboundEnvelope;

/// What a frame waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum For {
    Session(SessionId),
    Node(NodeNumber),
}

/// How many questions about sessions may be on their way to the old process; more wait here.
pub(crate) const ASKED_MAX: usize = 1024;

/// A frame that has arrived and waits.
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

/// The frames by what they wait for, in their order.
#[derive(Default)]
pub(crate) struct EnvelopeHold {
    state: Mutex<State>,
    /// Told when something may go.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    /// Sessions are on their way here.
    expecting: bool,
    sessions: FxHashMap<SessionId, VecDeque<HeldEnvelope>>,
    /// Of those, which may have arrived.
    due: VecDeque<SessionId>,
    nodes: FxHashMap<NodeNumber, VecDeque<HeldEnvelope>>,
    bytes: usize,
    /// The broadcasts that came while sessions are expected: each is for those who arrive later, too.
    broadcasts: Vec<Arc<[u8]>>,
    /// Those that the old process has passed on, in its order; empty where one was too much to keep.
    passed: Vec<Arc<[u8]>>,
    /// To the old process goes what is asked about sessions that have not come: see [`EnvelopeHold::ask_old`].
    to_old: Option<mpsc::Sender<HeldEnvelope>>,
    arrived: VecDeque<Arrival>,
}

/// A session that has arrived.
struct Arrival {
    session: SessionId,
    /// How many broadcasts had come by then.
    broadcasts: usize,
    /// How many the old process had passed on by then, and how many of those it has got there.
    passed: usize,
    heard: usize,
}

impl State {
    fn waits(&self, what: For) -> bool {
        match what {
            For::Session(id) => self.sessions.contains_key(&id),
            For::Node(number) => self.nodes.contains_key(&number),
        }
    }

    /// False when it would be more than `bytes_max`.
    fn put(&mut self, what: For, bytes_max: usize, frame: HeldEnvelope) -> Result<(), HeldEnvelope> {
        if self.bytes + frame.body.len() > bytes_max {
            return Err(frame);
        }
        self.bytes += frame.body.len();
        match what {
            For::Session(id) => self.sessions.entry(id).or_default().push_back(frame),
            For::Node(number) => self.nodes.entry(number).or_default().push_back(frame),
        }
        Ok(())
    }

    /// The next frame for a session that is there.
    fn next_of_session(&mut self, ready: impl Fn(For) -> bool) -> Option<HeldEnvelope> {
        loop {
            let id = match (self.expecting, self.due.front()) {
                (_, Some(id)) => *id,
                // Nobody comes any more: whoever waits goes on, and hears that the session is gone.
                (false, None) => *self.sessions.keys().next()?,
                (true, None) => return None,
            };
            let frames = self.sessions.get_mut(&id).filter(|_| !self.expecting || ready(For::Session(id)));
            if let Some(frame) = frames.and_then(VecDeque::pop_front) {
                return Some(frame);
            }
            // It has none left, or has not arrived after all.
            self.due.pop_front();
            if self.sessions.get(&id).is_some_and(VecDeque::is_empty) {
                self.sessions.remove(&id);
            }
        }
    }

    /// The next frame for a node that is reached, or has been waited for long enough.
    fn next_of_node(
        &mut self,
        now: Instant,
        patience: Duration,
        ready: impl Fn(For) -> bool,
    ) -> Option<HeldEnvelope> {
        let may_go = |(number, frames): &(&NodeNumber, &VecDeque<HeldEnvelope>)| {
            ready(For::Node(**number)) || frames.front().is_none_or(|first| now - first.now >= patience)
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
}

impl EnvelopeHold {
    /// Sessions are on their way here from now on, or no longer.
    pub(crate) fn expect(&self, expecting: bool) {
        let mut state = self.state.lock();
        state.expecting = expecting;
        state.forget_broadcasts();
        drop(state);
        self.changed.notify_one();
    }

    /// Whether sessions are on their way here.
    pub(crate) fn is_expecting(&self) -> bool {
        self.state.lock().expecting
    }

    /// Takes a frame that must wait: what it is for is not `ready`, or others wait for it. False when it need
    /// not, or more than `bytes_max` wait already.
    pub(crate) fn hold(
        &self,
        what: For,
        ready: bool,
        bytes_max: usize,
        frame: impl FnOnce() -> HeldEnvelope,
    ) -> bool {
        let mut state = self.state.lock();
        let expected = matches!(what, For::Node(_)) || state.expecting;
        if !state.waits(what) && (ready || !expected) {
            return false;
        }
        let held = state.put(what, bytes_max, frame()).is_ok();
        self.changed.notify_one();
        held
    }

    /// The old process may be asked about sessions that have not come; while the receiver lives.
    pub(crate) fn ask_old(&self) -> mpsc::Receiver<HeldEnvelope> {
        let (sender, receiver) = mpsc::channel(ASKED_MAX);
        self.state.lock().to_old = Some(sender);
        receiver
    }

    /// Sends a frame to the old process instead of holding it; gives it back when that is not to be asked.
    pub(crate) fn to_old(&self, frame: HeldEnvelope) -> Option<HeldEnvelope> {
        let state = self.state.lock();
        let Some(old) = &state.to_old else { return Some(frame) };
        old.try_send(frame).err().map(mpsc::error::TrySendError::into_inner)
    }

    /// Holds a frame that the old process had no answer to. Gives it back when more than `bytes_max` wait.
    ///
    /// # Errors
    /// The frame.
    pub(crate) fn put_back(
        &self,
        session: SessionId,
        bytes_max: usize,
        frame: HeldEnvelope,
    ) -> Result<(), HeldEnvelope> {
        let mut state = self.state.lock();
        state.due.push_back(session);
        let held = state.put(For::Session(session), bytes_max, frame);
        drop(state);
        self.changed.notify_one();
        held
    }

    /// A session has arrived from the process that this one replaces, where it has got the first `heard` of those
    /// broadcasts that the process passes on.
    pub(crate) fn arrived(&self, session: SessionId, heard: u32) {
        let mut state = self.state.lock();
        let (broadcasts, passed) = (state.broadcasts.len(), state.passed.len());
        state.arrived.push_back(Arrival { session, broadcasts, passed, heard: heard as usize });
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

    /// Keeps a broadcast that the old process has passed on, up to `bytes_max`, for those that leave it later.
    pub(crate) fn pass(&self, payload: &[u8], bytes_max: usize) {
        let mut state = self.state.lock();
        let kept: usize = state.passed.iter().map(|kept| kept.len()).sum();
        let fits = kept + payload.len() <= bytes_max;
        // Its place counts also when it is not kept.
        state.passed.push(if fits { payload.into() } else { Arc::default() });
    }

    /// The next session that has arrived, with the broadcasts that it has missed on its way.
    pub(crate) fn next_arrived(&self) -> Option<(SessionId, Vec<Arc<[u8]>>)> {
        let mut state = self.state.lock();
        let Arrival { session, broadcasts, passed, heard } = state.arrived.pop_front()?;
        state.due.push_back(session);
        let passed = state.passed.get(heard..passed).unwrap_or_default();
        let missed = [&state.broadcasts[..broadcasts.min(state.broadcasts.len())], passed].concat();
        state.forget_broadcasts();
        Some((session, missed))
    }

    /// Whether something waits.
    pub(crate) fn any(&self) -> bool {
        let state = self.state.lock();
        !state.sessions.is_empty() || !state.nodes.is_empty() || !state.arrived.is_empty()
    }

    /// The next frame that need not wait any more: what it is for is `ready`, no session is expected any more,
    /// or it has waited for a node as long as `patience`.
    pub(crate) fn next(
        &self,
        now: Instant,
        patience: Duration,
        ready: impl Fn(For) -> bool,
    ) -> Option<HeldEnvelope> {
        let mut state = self.state.lock();
        let frame = state.next_of_session(&ready).or_else(|| state.next_of_node(now, patience, &ready))?;
        state.bytes -= frame.body.len();
        Some(frame)
    }
}
