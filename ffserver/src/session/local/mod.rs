//! The local session: one client's connection as its net node sees it, with its id, its state and its outbox.

mod activity;
#[cfg(test)]
mod fixture;
mod outbox;
mod socket;
mod write_batch;
pub(crate) mod write_buffer;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ffconfig::SlowClient;
use ffproto::frame::Firefly;
use ffproto::protocol::websocket::MessageForm;
use ffproto::protocol::{FireflyFrames, Protocols};
use ffproto::question::RecentRequest;
use ffproto::relay::{SessionChange, SessionState};
use ffproto::{CommandId, NodeNumber, SessionId, handover};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::info;

use crate::identity::counters::Counters;
use activity::Activity;
pub use outbox::PushError;
pub(crate) use outbox::{CloseKind, CloseReason, EncodedMessage, KEEP_BYTES};
use outbox::{Outbox, wake};
pub(crate) use socket::Socket;
pub(crate) use write_batch::{begin_write_batch, end_write_batch};

/// What all sessions of a node have in common for writing to their clients.
#[derive(Debug, Clone)]
pub(crate) struct ClientWire {
    pub(crate) protocols: Arc<Protocols>,
    pub(crate) outbox_bytes_max: usize,
    pub(crate) slow_client: SlowClient,
}

impl ClientWire {
    pub(crate) fn new(config: &ffconfig::Node, protocols: Arc<Protocols>) -> Self {
        let ffconfig::Limits { outbox_bytes_max, slow_client, .. } = config.limits;
        Self { protocols, outbox_bytes_max, slow_client }
    }
}

/// The frames of firefly's clients with a node's constants.
pub(crate) fn frames(client: &ffconfig::ClientFraming) -> FireflyFrames {
    let ffconfig::ClientFraming { head, proto_version, server_version, error_command, .. } = *client;
    FireflyFrames { framing: Firefly { head, proto_version, server_version }, error_command }
}

/// A session of this node: one client's connection. Cheap to clone; usable from any task.
#[derive(Clone)]
pub(crate) struct LocalSession(Arc<Inner>);

struct Inner {
    id: SessionId,
    address: SocketAddr,
    published: Mutex<PublishedState>,
    wire: ClientWire,
    counters: Arc<Counters>,
    outbox: Mutex<Outbox>,
    activity: Activity,
    requests: Requests,
    moves: Moves,
    standing: Standing,
    /// Held while a hook of the session runs: one at a time.
    turn: tokio::sync::Mutex<()>,
}

/// The requests of a session that run.
#[derive(Default)]
struct Requests {
    /// Requests that run on another node, or beside the session's order.
    waiting: AtomicUsize,
    /// Whether messages of the session are handled on its connection.
    running: AtomicBool,
}

/// The moves of a session to other nodes.
struct Moves {
    /// Whether the session is being moved: what its client sends waits.
    moving: AtomicBool,
    /// How often the session has been moved.
    count: AtomicU32,
}

/// The standing of a session: how far it is, and what its connection is to do.
struct Standing {
    /// A [`Directive`].
    directive: AtomicU8,
    /// A [`Stage`].
    stage: AtomicU8,
    /// Whether the session is being closed, and starts nothing more.
    ending: AtomicBool,
    /// Whether the app has been told that the session has a user.
    verified: AtomicBool,
}

/// The stage of a client's login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The client is in, or need not log in.
    #[default]
    In,
    /// The client's next message must be the login.
    Awaited,
    /// The login is being decided over.
    Asked,
}

impl Stage {
    const ALL: [Self; 3] = [Self::In, Self::Awaited, Self::Asked];

    /// The stage that was stored as a number.
    fn of(stored: u8) -> Self {
        Self::ALL[usize::from(stored)]
    }
}

/// The directive of a session: what its connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Directive {
    /// The connection handles what comes.
    #[default]
    Run,
    /// The connection starts nothing new, until it runs again.
    Hold,
    /// The connection starts nothing new, and leaves for the successor when all is answered.
    Leave,
    /// The connection starts nothing new, and ends when all is answered.
    Drain,
}

impl Directive {
    const ALL: [Self; 4] = [Self::Run, Self::Hold, Self::Leave, Self::Drain];

    /// The directive that was stored as a number.
    fn of(stored: u8) -> Self {
        Self::ALL[usize::from(stored)]
    }
}

/// The hand-off of a session: what travels to the successor beside its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionHandoff {
    /// The form of a WebSocket's messages, of which the first is none's; the connection's part names its protocol.
    pub(crate) form: MessageForm,
    state: SessionState,
    watchers: Vec<NodeNumber>,
    /// Never [`Stage::Asked`]: a login that is being decided over does not travel.
    stage: Stage,
    /// The groups of the session; filled in by the node, which knows them.
    pub(crate) groups: Vec<String>,
    /// How often the session has been moved to another node.
    moves: u32,
    /// The stamp of the claim that gave the session its user; filled in as `groups` is.
    pub(crate) stamp: Option<u64>,
    /// How many of the broadcasts that the predecessor passes on the client has got there; filled in as `groups` is.
    pub(crate) broadcasts_received: u32,
}

impl SessionHandoff {
    /// Of a session that nothing has been done with.
    pub(crate) fn new(state: SessionState, stage: Stage) -> Self {
        let (form, watchers, groups) = (MessageForm::Firefly, Vec::new(), Vec::new());
        Self { form, state, watchers, stage, groups, moves: 0, stamp: None, broadcasts_received: 0 }
    }

    /// The session's user.
    pub(crate) fn user(&self) -> Option<String> {
        self.state.user.clone()
    }
}

/// The session's state, as other nodes are told of it, and which ones are.
struct PublishedState {
    state: Arc<SessionState>,
    /// The nodes that handle the session's messages.
    watchers: Vec<NodeNumber>,
}

/// User and attributes would take too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("user and attributes of {bytes} bytes are above limits.session_state_bytes_max = {max}")]
pub(crate) struct StateTooLarge {
    pub(crate) bytes: usize,
    pub(crate) max: usize,
}

impl StateTooLarge {
    /// Checks that a state takes at most `max` bytes.
    pub(crate) fn check(state: &SessionState, max: usize) -> Result<(), Self> {
        let bytes = state.bytes();
        if bytes > max { Err(Self { bytes, max }) } else { Ok(()) }
    }
}

impl LocalSession {
    /// A session of a client that has just connected.
    pub(crate) fn new(
        id: SessionId,
        address: SocketAddr,
        stage: Stage,
        wire: ClientWire,
        counters: Arc<Counters>,
    ) -> Self {
        let (unread, unsent, extra) = (Vec::new(), Vec::new(), Vec::new());
        let (open_ms, heard_ms, ended) = (0, 0, false);
        let record = handover::Session { id, address, open_ms, heard_ms, unread, unsent, ended, extra };
        let state = SessionState { version: 1, address, user: None, attributes: BTreeMap::new() };
        Self::adopt(&record, SessionHandoff::new(state, stage), wire, counters)
    }

    /// A session that the predecessor has opened.
    pub(crate) fn adopt(
        record: &handover::Session,
        handoff: SessionHandoff,
        wire: ClientWire,
        counters: Arc<Counters>,
    ) -> Self {
        let SessionHandoff { state, watchers, stage, moves, .. } = handoff;
        let now = Instant::now();
        let opened = now.checked_sub(Duration::from_millis(record.open_ms)).unwrap_or(now);
        let standing = Standing {
            directive: AtomicU8::new(Directive::Run as u8),
            stage: AtomicU8::new(stage as u8),
            ending: AtomicBool::new(false),
            verified: AtomicBool::new(state.user.is_some()),
        };
        Self(Arc::new(Inner {
            id: record.id,
            address: record.address,
            published: Mutex::new(PublishedState { state: Arc::new(state), watchers }),
            wire,
            counters,
            outbox: Mutex::new(Outbox::adopt(record.unsent.clone())),
            activity: Activity::new(opened, record.heard_ms),
            requests: Requests::default(),
            moves: Moves { moving: AtomicBool::new(false), count: AtomicU32::new(moves) },
            standing,
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Whether something runs for the session that has to be answered.
    pub(crate) fn is_at_work(&self) -> bool {
        self.has_requests() || self.is_moving()
    }

    /// Whether a request of the session runs, here or elsewhere.
    pub(crate) fn has_requests(&self) -> bool {
        // In this order: what runs is counted as waiting elsewhere before it no longer runs here.
        self.0.requests.running.load(Ordering::SeqCst) || self.waiting_requests() > 0
    }

    /// Whether the session is being moved to another node.
    pub(crate) fn is_moving(&self) -> bool {
        self.0.moves.moving.load(Ordering::SeqCst)
    }

    /// Begins a move: nothing of the session starts until its end. False when a move is under way already.
    pub(crate) fn begin_move(&self) -> bool {
        !self.0.moves.moving.swap(true, Ordering::SeqCst)
    }

    /// Ends a move: what has waited goes on.
    pub(crate) fn end_move(&self) {
        self.0.moves.moving.store(false, Ordering::Release);
        wake(&mut self.0.outbox.lock());
    }

    /// The number of a new move.
    pub(crate) fn next_move(&self) -> u32 {
        self.0.moves.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How often the session has been moved.
    pub(crate) fn moves(&self) -> u32 {
        self.0.moves.count.load(Ordering::Relaxed)
    }

    /// Notes that messages of the session are handled on its connection, or that none is any more.
    pub(crate) fn set_running(&self, running: bool) {
        // In one order with `begin_move`: either the mover sees what runs here, or this connection sees the mover.
        if running {
            return self.0.requests.running.store(true, Ordering::SeqCst);
        }
        self.0.requests.running.store(false, Ordering::SeqCst);
        if self.0.moves.moving.load(Ordering::SeqCst) {
            self.0.wake_quiet(&mut self.0.outbox.lock());
        }
    }

    /// Waits until no request of the session runs, here or elsewhere. Cancel-safe; for one waiter at a time: the session's
    /// end, which comes after [`LocalSession::end`].
    pub(crate) fn quiet(&self) -> Quiet<'_> {
        Quiet { session: self, or_gone: false }
    }

    /// Waits until no request of the session runs, or it has ended: its end waits for the requests then. Cancel-safe; for
    /// one waiter at a time: the session's move.
    pub(crate) fn quiet_or_gone(&self) -> Quiet<'_> {
        Quiet { session: self, or_gone: true }
    }

    /// Whether [`LocalSession::leave`] would give something.
    pub(crate) fn may_leave(&self) -> bool {
        let outbox = self.0.outbox.lock();
        self.waiting_requests() == 0 && !self.is_moving() && outbox.closing.is_none()
    }

    /// Takes the session out of this process, with all that the successor must know to go on with it. `None` while
    /// something still runs for the session, or it is being closed.
    pub(crate) fn leave(&self) -> Option<(handover::Session, SessionHandoff)> {
        let mut outbox = self.0.outbox.lock();
        if self.waiting_requests() > 0 || self.is_moving() || outbox.closing.is_some() {
            return None;
        }
        (outbox.gone, outbox.left, outbox.socket) = (true, true, None);
        let record = handover::Session {
            id: self.0.id,
            address: self.0.address,
            open_ms: self.0.activity.opened.elapsed().as_millis() as u64,
            heard_ms: self.0.activity.heard_ms.load(Ordering::Relaxed),
            unread: Vec::new(),
            unsent: outbox.out.take(),
            ended: false,
            extra: Vec::new(),
        };
        let published = self.0.published.lock();
        let (state, watchers) = ((*published.state).clone(), published.watchers.clone());
        let (form, stage, moves) = (MessageForm::Firefly, self.stage(), self.moves());
        let (groups, stamp, broadcasts_received) = (Vec::new(), None, 0);
        Some((
            record,
            SessionHandoff { form, state, watchers, stage, groups, moves, stamp, broadcasts_received },
        ))
    }

    /// The id, unique in the cluster and never reused.
    pub(crate) fn id(&self) -> SessionId {
        self.0.id
    }

    /// Where the client connects from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The state of the session, as the whole cluster knows it.
    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.0.published.lock().state.clone()
    }

    /// Adds a node that is told of every change of the state from now on, and of the session's end. Returns the state
    /// so far.
    pub(crate) fn watch(&self, node: NodeNumber) -> Arc<SessionState> {
        let mut published = self.0.published.lock();
        if !published.watchers.contains(&node) {
            published.watchers.push(node);
        }
        published.state.clone()
    }

    /// The nodes that are told of the session.
    pub(crate) fn watchers(&self) -> Vec<NodeNumber> {
        self.0.published.lock().watchers.clone()
    }

    /// Changes the state, which may take `bytes_max`; `tell` is called with the new one under the lock, so that
    /// states leave in the order of their versions.
    pub(crate) fn change(
        &self,
        change: SessionChange,
        bytes_max: usize,
        tell: impl FnOnce(&SessionState, &[NodeNumber]),
    ) -> Result<Arc<SessionState>, StateTooLarge> {
        let mut published = self.0.published.lock();
        let next = published.state.with(change);
        StateTooLarge::check(&next, bytes_max)?;
        published.state = Arc::new(next);
        tell(&published.state, &published.watchers);
        Ok(published.state.clone())
    }

    /// When the client connected.
    pub(crate) fn opened(&self) -> Instant {
        self.0.activity.opened
    }

    /// Whether the session has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.outbox.lock().gone
    }

    /// Whether the session goes on in the successor.
    pub(crate) fn has_left(&self) -> bool {
        self.0.outbox.lock().left
    }

    /// The protocols that the session's node speaks.
    pub(crate) fn protocols(&self) -> &Protocols {
        &self.0.wire.protocols
    }

    /// The name of the protocol that the client speaks; `None` until its first bytes have told.
    pub(crate) fn spoken(&self) -> Option<&'static str> {
        let id = self.0.outbox.lock().spoken?;
        Some(self.0.wire.protocols.get(id).name())
    }

    /// Whether the client's connection can go on in another process.
    pub(crate) fn can_travel(&self) -> bool {
        self.0.outbox.lock().socket.as_ref().is_some_and(|socket| socket.connection().can_travel())
    }

    /// Counts one more request that runs elsewhere: on another node, or beside the session's order.
    pub(crate) fn request_waits(&self) {
        self.0.requests.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request fewer: the connection may go on reading, if it had paused.
    pub(crate) fn request_ended(&self) {
        self.0.requests.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.go_on(&mut self.0.outbox.lock());
    }

    /// Keeps the session from leaving, moving and ending quietly, as a request does that runs beside its order, until
    /// the pin is dropped.
    pub(crate) fn pin(&self) -> SessionPin {
        self.request_waits();
        SessionPin(self.clone())
    }

    /// The number of requests that run elsewhere.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.0.requests.waiting.load(Ordering::Relaxed)
    }

    /// Notes that the client sent something that is no message: it lives, if it has ever said something.
    pub(crate) fn beat(&self, now: Instant) {
        if self.0.activity.heard_ms.load(Ordering::Relaxed) != 0 {
            self.note_message(now);
        }
    }

    /// Notes that the client sent a message.
    pub(crate) fn note_message(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.0.activity.opened).as_millis() as u64;
        self.0.activity.heard_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// Notes a request of the client, behind [`LocalSession::note_message`].
    #[inline]
    pub(crate) fn note_request(&self, command: CommandId) {
        self.0.activity.note_request(command);
    }

    /// How many requests of the client this process has taken up.
    pub(crate) fn requests(&self) -> u32 {
        self.0.activity.requests()
    }

    /// The last of them, the newest first.
    pub(crate) fn recent_requests(&self, now: Instant) -> impl Iterator<Item = RecentRequest> {
        self.0.activity.recent(now)
    }

    /// How many requests of the session run now, here or elsewhere.
    pub(crate) fn running_requests(&self) -> usize {
        let here = self.0.requests.running.load(Ordering::Relaxed);
        self.waiting_requests() + usize::from(here)
    }

    /// Whether the client has sent no whole message yet, and for how long it has been silent.
    pub(crate) fn silence(&self) -> (bool, Duration) {
        let last_ms = self.0.activity.heard_ms.load(Ordering::Relaxed);
        (last_ms == 0, self.0.activity.opened.elapsed().saturating_sub(Duration::from_millis(last_ms)))
    }

    /// Gives the connection a directive.
    pub(crate) fn set_directive(&self, directive: Directive) {
        self.0.standing.directive.store(directive as u8, Ordering::Relaxed);
        wake(&mut self.0.outbox.lock());
    }

    /// The directive that the connection was given last.
    pub(crate) fn directive(&self) -> Directive {
        Directive::of(self.0.standing.directive.load(Ordering::Relaxed))
    }

    /// The stage of the login.
    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.0.standing.stage.load(Ordering::Acquire))
    }

    /// Sets the stage of the login.
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.0.standing.stage.store(stage as u8, Ordering::Release);
    }

    /// Whether the app must be told that the session has a user: true for one caller, once it has one. The log is told
    /// by that.
    pub(crate) fn becomes_verified(&self) -> bool {
        let state = self.state();
        let Some(user) = &state.user else { return false };
        let first = !self.0.standing.verified.swap(true, Ordering::AcqRel);
        if first {
            info!(session = %self.id(), ?user, peer = %self.address(), "client logged in");
        }
        first
    }

    /// The turn of the session: held while a hook of it runs, so that hooks come in their order.
    pub(crate) fn turn(&self) -> &tokio::sync::Mutex<()> {
        &self.0.turn
    }

    /// Whether the session is being closed: nothing more of it may start.
    pub(crate) fn is_ending(&self) -> bool {
        self.0.standing.ending.load(Ordering::Acquire)
    }
}

/// The wait for the end of a session's requests: see [`LocalSession::quiet`].
pub(crate) struct Quiet<'a> {
    session: &'a LocalSession,
    or_gone: bool,
}

impl Future for Quiet<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut outbox = self.session.0.outbox.lock();
        if self.or_gone && outbox.gone {
            // The place of the waker is the end's now.
            return Poll::Ready(());
        }
        // The waker is registered before the look, so that no end is missed between the two.
        outbox.quiet = Some(cx.waker().clone());
        if self.session.has_requests() {
            return Poll::Pending;
        }
        outbox.quiet = None;
        Poll::Ready(())
    }
}

/// A session pin, see [`LocalSession::pin`]. A guard, because a handler is dropped at its deadline, and its connection
/// must end all the same.
pub(crate) struct SessionPin(LocalSession);

impl Drop for SessionPin {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

impl fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {}", self.0.id, self.0.address)
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Woken;
    use super::*;

    /// A handler runs on although its client is gone: the session's end waits for it, and the session's move, which has
    /// waited already, must not be forgotten.
    #[test]
    fn a_move_that_waits_for_a_handler_goes_on_when_its_session_ends() {
        let wire = fixture::wire();
        let address = "127.0.0.1:1".parse().unwrap();
        let session = LocalSession::new(SessionId(1), address, Stage::In, wire, Arc::default());
        let wakes = [0; 2].map(|_| Arc::new(Woken::default()));
        let woken = || wakes.each_ref().map(|woken| woken.times());
        let poll = |wait: &mut Quiet<'_>, at: usize| {
            Pin::new(wait).poll(&mut Context::from_waker(&wakes[at].clone().into()))
        };
        let handler = session.pin();
        let (mut moves, mut ends) = (session.quiet_or_gone(), session.quiet());
        assert!(poll(&mut moves, 0).is_pending());
        session.end();
        assert!(poll(&mut ends, 1).is_pending());
        assert_eq!(woken(), [1, 0]);
        assert!(poll(&mut moves, 0).is_ready(), "nothing is left to move");
        drop(handler);
        assert_eq!(woken(), [1, 1]);
        assert!(poll(&mut ends, 1).is_ready());
    }

    #[test]
    fn stages_and_directives_come_back_as_they_were_stored() {
        assert!(Stage::ALL.iter().all(|stage| Stage::of(*stage as u8) == *stage));
        assert!(Directive::ALL.iter().all(|directive| Directive::of(*directive as u8) == *directive));
    }

    /// As of a connection: with the two counters of its `Arc` it fills one of the allocator's sizes.
    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Inner>() + 16 <= 384, "{}", size_of::<Inner>());
    }
}
