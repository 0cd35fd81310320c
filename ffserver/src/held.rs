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

use crate::reach::At;

/// What a frame waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum For {
    Session(SessionId),
    Node(NodeNumber),
}

/// How many questions about sessions may be on their way to the old process; more wait here.
pub(crate) const ASKED_MAX: usize = 1024;

/// A frame that has arrived and waits.
pub(crate) struct HeldFrame {
    pub(crate) at: At,
    pub(crate) link: Link,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) now: Instant,
}

/// The frames by what they wait for, in their order.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<State>,
    /// Told when something may go.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    /// Sessions are on their way here.
    expecting: bool,
    frames: FxHashMap<For, VecDeque<HeldFrame>>,
    bytes: usize,
    /// The broadcasts that came while sessions are expected: each is for those who arrive later, too.
    broadcasts: Vec<Arc<[u8]>>,
    /// To the old process goes what is asked about sessions that have not come: see [`Held::ask_old`].
    to_old: Option<mpsc::Sender<HeldFrame>>,
    /// Who has arrived, and how many broadcasts had come by then.
    arrived: VecDeque<(SessionId, usize)>,
}

impl Held {
    /// Sessions are on their way here from now on, or no longer.
    pub(crate) fn expect(&self, expecting: bool) {
        let mut state = self.state.lock();
        state.expecting = expecting;
        if !expecting && state.arrived.is_empty() {
            state.broadcasts.clear();
        }
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
        frame: impl FnOnce() -> HeldFrame,
    ) -> bool {
        let mut state = self.state.lock();
        let expected = matches!(what, For::Node(_)) || state.expecting;
        if !state.frames.contains_key(&what) && (ready || !expected) {
            return false;
        }
        let frame = frame();
        if state.bytes + frame.body.len() > bytes_max {
            return false;
        }
        state.bytes += frame.body.len();
        state.frames.entry(what).or_default().push_back(frame);
        self.changed.notify_one();
        true
    }

    /// The old process may be asked about sessions that have not come; while the receiver lives.
    pub(crate) fn ask_old(&self) -> mpsc::Receiver<HeldFrame> {
        let (sender, receiver) = mpsc::channel(ASKED_MAX);
        self.state.lock().to_old = Some(sender);
        receiver
    }

    /// Sends a frame to the old process instead of holding it; gives it back when that is not to be asked.
    pub(crate) fn to_old(&self, frame: HeldFrame) -> Option<HeldFrame> {
        let state = self.state.lock();
        let Some(old) = &state.to_old else { return Some(frame) };
        old.try_send(frame).err().map(mpsc::error::TrySendError::into_inner)
    }

    /// Holds a frame that the old process had no answer to.
    pub(crate) fn put_back(&self, session: SessionId, frame: HeldFrame) {
        let mut state = self.state.lock();
        state.bytes += frame.body.len();
        state.frames.entry(For::Session(session)).or_default().push_back(frame);
        drop(state);
        self.changed.notify_one();
    }

    /// A session has arrived from the process that this one replaces.
    pub(crate) fn arrived(&self, session: SessionId) {
        let mut state = self.state.lock();
        let before = state.broadcasts.len();
        state.arrived.push_back((session, before));
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

    /// The next session that has arrived, with the broadcasts that it has missed on its way.
    pub(crate) fn next_arrived(&self) -> Option<(SessionId, Vec<Arc<[u8]>>)> {
        let mut state = self.state.lock();
        let (session, missed) = state.arrived.pop_front()?;
        let broadcasts = state.broadcasts[..missed.min(state.broadcasts.len())].to_vec();
        if !state.expecting && state.arrived.is_empty() {
            state.broadcasts.clear();
        }
        Some((session, broadcasts))
    }

    /// Whether something waits.
    pub(crate) fn any(&self) -> bool {
        let state = self.state.lock();
        !state.frames.is_empty() || !state.arrived.is_empty()
    }

    /// The next frame that need not wait any more: what it is for is `ready`, no session is expected any more,
    /// or it has waited for a node as long as `patience`.
    pub(crate) fn next(
        &self,
        now: Instant,
        patience: Duration,
        ready: impl Fn(For) -> bool,
    ) -> Option<(For, HeldFrame)> {
        let mut state = self.state.lock();
        let expecting = state.expecting;
        let may_go = |(what, frames): &(&For, &VecDeque<HeldFrame>)| match what {
            For::Session(_) => !expecting || ready(**what),
            For::Node(_) => ready(**what) || frames.front().is_some_and(|first| now - first.now >= patience),
        };
        let what = *state.frames.iter().find(may_go)?.0;
        let frames = state.frames.get_mut(&what)?;
        let frame = frames.pop_front();
        if frames.is_empty() {
            state.frames.remove(&what);
        }
        state.bytes -= frame.as_ref().map_or(0, |frame| frame.body.len());
        frame.map(|frame| (what, frame))
    }
}
