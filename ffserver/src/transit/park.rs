//! The park: messages that wait for a neighbour that has ended or is being replaced, in order, bounded in count, bytes
//! and time. Pure but for its lock; [`crate::transit::next_hop`] says when one may go.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ffnet::link::Sink;
use ffproto::link::Client;
use ffproto::{Fault, SessionId};
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::side::{PeerKey, Side};

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// A node of a kind, or one node: the key of a target.
    Target(Arc<str>),
    /// A neighbour on that side: a parent by its name or key, a child by its name or kind.
    Neighbour(Side, Arc<str>),
}

/// The sink for an outcome, with its token.
pub(crate) type OutcomeSink = (Arc<dyn Sink>, u64);

/// The kind of a parked message, with all that it takes to send one: none can wait that could not be sent.
pub(crate) enum ParkedKind {
    /// A client's message, sent on to a target: the neighbour that it came from, whether this node's route has given the
    /// target, and how many links it has crossed.
    Message {
        target: Arc<str>,
        client: Client,
        from: Option<PeerKey>,
        routed_here: bool,
        hops: u8,
        sink: OutcomeSink,
    },
    /// The call of a neighbour's handler.
    Call(HandlerMessage, OutcomeSink),
    /// A notify of a neighbour's handler: nothing comes back.
    Notify(HandlerMessage),
}

/// The head of a message for a handler of a neighbour.
pub(crate) struct HandlerMessage {
    pub(crate) side: Side,
    /// A parent by its name or key, a child by its name or kind.
    pub(crate) who: Arc<str>,
    pub(crate) method: String,
    pub(crate) client: Option<Client>,
}

impl HandlerMessage {
    pub(crate) fn new(side: Side, who: &str, method: &str, client: Option<Client>) -> Self {
        Self { side, who: who.into(), method: method.to_owned(), client }
    }
}

/// A message that waits.
pub(crate) struct ParkedMessage {
    pub(crate) kind: ParkedKind,
    pub(crate) body: Bytes,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
}

impl ParkedMessage {
    pub(crate) fn session(&self) -> Option<SessionId> {
        let client = match &self.kind {
            ParkedKind::Message { client, .. } => Some(*client),
            ParkedKind::Call(head, _) | ParkedKind::Notify(head) => head.client,
        };
        client.map(|client| client.session)
    }

    /// Ends the message here, with a fault for its caller.
    pub(crate) fn fail(&self, fault: &Fault) {
        match &self.kind {
            ParkedKind::Message { sink: (sink, token), .. } | ParkedKind::Call(_, (sink, token)) => {
                sink.clone().end(*token, Err(fault));
            }
            ParkedKind::Notify(_) => {}
        }
    }

    fn destination(&self) -> Destination {
        match &self.kind {
            ParkedKind::Message { target, .. } => Destination::Target(target.clone()),
            ParkedKind::Call(head, _) | ParkedKind::Notify(head) => {
                Destination::Neighbour(head.side, head.who.clone())
            }
        }
    }

    fn order_key(&self) -> OrderKey {
        (self.destination(), self.session())
    }
}

/// Messages with the same key keep their order.
type OrderKey = (Destination, Option<SessionId>);

/// How much may wait at one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParkLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// What a look at a waiting message came to.
pub(crate) enum RetryResult {
    /// The message is gone: sent, or failed.
    Gone,
    /// The message waits on.
    Waits(ParkedMessage),
}

/// Everything that waits at one node.
pub(crate) struct Park {
    limits: ParkLimits,
    /// Whether anything waits, for a look without the lock.
    any: AtomicBool,
    waiting: Mutex<ParkState>,
    emptied: Notify,
    sooner: Notify,
}

#[derive(Default)]
struct ParkState {
    /// Keyed by arrival number. Entries being retried are out of this map but still counted.
    messages: BTreeMap<u64, ParkedMessage>,
    next: u64,
    count: usize,
    bytes: usize,
    keys: FxHashMap<OrderKey, u32>,
    sessions: FxHashMap<SessionId, BTreeSet<u64>>,
    /// Whether a task looks at the clock, until nothing waits any more.
    watched: bool,
    /// When the task looks next: a message with an earlier deadline wakes it.
    due: Option<Instant>,
    /// Whether a look at the messages is under way.
    looked_at: bool,
    /// The messages that are to be looked at after that.
    again: PendingLooks,
}

/// The messages that have come or changed during a look.
#[derive(Default)]
struct PendingLooks {
    all: bool,
    sessions: Vec<SessionId>,
}

impl ParkState {
    fn add(&mut self, entry: ParkedMessage) {
        (self.count, self.bytes) = (self.count + 1, self.bytes + entry.body.len());
        *self.keys.entry(entry.order_key()).or_insert(0) += 1;
        if let Some(session) = entry.session() {
            self.sessions.entry(session).or_default().insert(self.next);
        }
        self.messages.insert(self.next, entry);
        self.next += 1;
    }

    /// Forgets a message that was being retried; `bytes` are those of its body.
    fn gone(&mut self, number: u64, key: &OrderKey, bytes: usize) {
        (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
        if let Some(n) = self.keys.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                self.keys.remove(key);
            }
        }
        if let Some(session) = key.1
            && let Some(numbers) = self.sessions.get_mut(&session)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    /// Takes the numbers of the messages that are to be looked at next, in order; `None` when there are no more.
    fn take_again(&mut self) -> Option<Vec<u64>> {
        if std::mem::take(&mut self.again.all) {
            self.again.sessions.clear();
            return Some(self.messages.keys().copied().collect());
        }
        let session = self.again.sessions.pop()?;
        Some(self.sessions.get(&session).into_iter().flatten().copied().collect())
    }
}

/// What became of a message that shall wait.
pub(crate) enum ParkResult {
    /// The message waits. `watch` is true for the first: a task must look at the clock from now on.
    Waits {
        /// Whether this is the first message.
        watch: bool,
    },
    /// Too much waits already.
    Full,
}

impl Park {
    pub(crate) fn new(limits: ParkLimits) -> Self {
        let (emptied, sooner) = (Notify::new(), Notify::new());
        Self { limits, any: AtomicBool::new(false), waiting: Mutex::default(), emptied, sooner }
    }

    /// Whether anything waits.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// How many messages wait, and how many bytes they are.
    pub(crate) fn size(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.count, waiting.bytes)
    }

    /// Whether a message must wait because an earlier one of the same session waits for the same neighbour or target.
    pub(crate) fn blocks(&self, to: &Destination, session: Option<SessionId>) -> bool {
        self.any() && self.waiting.lock().keys.contains_key(&(to.clone(), session))
    }

    /// Lets a message wait behind all others.
    pub(crate) fn park(&self, entry: ParkedMessage) -> ParkResult {
        let mut waiting = self.waiting.lock();
        let full = waiting.count >= self.limits.messages_max
            || waiting.bytes.saturating_add(entry.body.len()) > self.limits.bytes_max;
        if full {
            return ParkResult::Full;
        }
        if waiting.looked_at {
            match entry.session() {
                Some(session) => waiting.again.sessions.push(session),
                None => waiting.again.all = true,
            }
        }
        if waiting.due.is_some_and(|due| entry.deadline < due) {
            waiting.due = Some(entry.deadline);
            self.sooner.notify_one();
        }
        waiting.add(entry);
        self.any.store(true, Ordering::Release);
        ParkResult::Waits { watch: !std::mem::replace(&mut waiting.watched, true) }
    }

    /// Looks at every waiting message in order. A message behind an earlier one that still waits is not looked at,
    /// unless its time is over: `look` is told which. `look` may let others wait; those are looked at next. When a look
    /// is under way already, it goes round once more.
    pub(crate) fn look(&self, look: impl FnMut(ParkedMessage, bool) -> RetryResult) {
        if self.any() {
            let mut waiting = self.waiting.lock();
            waiting.again.all = true;
            self.look_again(waiting, look);
        }
    }

    /// Looks at the messages of one session, whatever else waits: for what changes with every message.
    pub(crate) fn look_of(&self, session: SessionId, look: impl FnMut(ParkedMessage, bool) -> RetryResult) {
        if self.any() {
            let mut waiting = self.waiting.lock();
            if waiting.sessions.contains_key(&session) {
                waiting.again.sessions.push(session);
                self.look_again(waiting, look);
            }
        }
    }

    fn look_again<'a>(
        &'a self,
        mut waiting: MutexGuard<'a, ParkState>,
        mut look: impl FnMut(ParkedMessage, bool) -> RetryResult,
    ) {
        if std::mem::replace(&mut waiting.looked_at, true) {
            return;
        }
        while let Some(numbers) = waiting.take_again() {
            let mut held = FxHashSet::default();
            for number in numbers {
                let Some(entry) = waiting.messages.remove(&number) else { continue };
                let (key, bytes) = (entry.order_key(), entry.body.len());
                drop(waiting);
                let looked = look(entry, !held.contains(&key));
                waiting = self.waiting.lock();
                match looked {
                    RetryResult::Gone => waiting.gone(number, &key, bytes),
                    RetryResult::Waits(entry) => {
                        waiting.messages.insert(number, entry);
                        held.insert(key);
                    }
                }
            }
        }
        self.any.store(waiting.count > 0, Ordering::Release);
        waiting.looked_at = false;
        if waiting.count == 0 {
            self.emptied.notify_one();
        }
    }

    /// Waits until nothing waits any more, since the last time; one at a time. Cancel-safe.
    pub(crate) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// When the messages that wait must be looked at next: at the first deadline, or at `latest`.
    pub(crate) fn next_look(&self, latest: Instant) -> Instant {
        let mut waiting = self.waiting.lock();
        let due = waiting.messages.values().map(|entry| entry.deadline).fold(latest, Instant::min);
        waiting.due = Some(due);
        due
    }

    /// Waits until a message has come whose deadline is before the next look; one at a time. Cancel-safe.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Whether nothing waits; then no task need look at the clock any more.
    pub(crate) fn is_over(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let over = waiting.count == 0 && !waiting.looked_at;
        waiting.watched = !over;
        if over {
            waiting.due = None;
        }
        over
    }
}

/// The slot for the outcome of a handler's call that had to wait, or that goes out past a Pause.
#[derive(Default)]
pub(crate) struct OutcomeSlot(Mutex<OutcomeSlotState>);

#[derive(Default)]
struct OutcomeSlotState {
    outcome: Option<Result<Bytes, Fault>>,
    waker: Option<Waker>,
}

impl Sink for OutcomeSlot {
    fn end(self: Arc<Self>, _: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        let mut state = self.0.lock();
        state.outcome = Some(match outcome {
            Ok(body) => Ok(Bytes::copy_from_slice(body.unwrap_or_default())),
            Err(fault) => Err(fault.clone()),
        });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The outcome of a call that goes to a [`OutcomeSlot`].
pub(crate) struct SlotOutcome(pub(crate) Arc<OutcomeSlot>);

impl Future for SlotOutcome {
    type Output = Result<Bytes, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
