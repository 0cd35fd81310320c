//! One client connection as its net node sees it: its id, its state, and what waits to be written.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::SlowClient;
use ffnet::link::Sink;
use ffproto::frame::{Firefly, Form, websocket};
use ffproto::relay::{SessionChange, SessionState};
use ffproto::{CommandId, Fault, NodeNumber, SessionId, handover};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::counters::{Counters, count};
use crate::unwritten::Unwritten;

/// The code of a WebSocket's close that says: not by the rules of this server (RFC 6455, 7.4.1).
const POLICY: u16 = 1008;

/// What all sessions of a node have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) framing: Firefly,
    pub(crate) error_command: CommandId,
    pub(crate) outbox_bytes_max: usize,
    pub(crate) slow_client: SlowClient,
}

/// A client connection of this node. Cheap to clone; usable from any task.
#[derive(Clone)]
pub(crate) struct LocalSession(Arc<Inner>);

struct Inner {
    id: SessionId,
    address: SocketAddr,
    told: Mutex<Told>,
    opened: Instant,
    wire: Wire,
    counters: Arc<Counters>,
    outbox: Mutex<Outbox>,
    /// Requests that run on another node, or beside the session's order.
    waiting: AtomicUsize,
    /// When the client was last heard, in milliseconds after `opened`; 0 before its first message.
    heard_ms: AtomicU64,
    /// A handler of it runs on its connection.
    running: AtomicBool,
    /// A [`Course`].
    course: AtomicU8,
    /// A [`Stage`].
    stage: AtomicU8,
    /// It is being closed, and starts nothing more.
    ending: AtomicBool,
    /// The app has been told that it has a user.
    verified: AtomicBool,
    /// It is being moved to another node: what its client sends waits.
    moving: AtomicBool,
    /// How often it has been moved.
    moves: AtomicU32,
    /// Hooks of it run one at a time.
    turn: tokio::sync::Mutex<()>,
}

/// How far a client's login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It is in, or need not log in.
    #[default]
    In,
    /// Its next message must be the login.
    Awaited,
    /// The login is being decided over.
    Asked,
}

/// What a session's connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Course {
    /// It handles what comes.
    #[default]
    Run,
    /// It starts nothing new, until it runs again.
    Hold,
    /// It starts nothing new, and leaves for the node's successor when all is answered.
    Leave,
    /// It starts nothing new, and ends when all is answered.
    Drain,
}

/// What of a session travels to another process of its node beside its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Luggage {
    /// How messages are written.
    form: Form,
    state: SessionState,
    watchers: Vec<NodeNumber>,
    /// Never [`Stage::Asked`]: what is being decided over does not travel.
    stage: Stage,
    /// The groups that it is in; filled in by the node, which knows them.
    pub(crate) groups: Vec<String>,
    /// How often it has been moved to another node.
    moves: u32,
    /// The stamp of the claim that gave it its user; as `groups`.
    pub(crate) stamp: Option<u64>,
}

impl Luggage {
    /// The session's user.
    pub(crate) fn user(&self) -> Option<String> {
        self.state.user.clone()
    }
}

/// What other nodes are told, and which.
struct Told {
    state: Arc<SessionState>,
    /// The nodes that handle its messages.
    watchers: Vec<NodeNumber>,
}

#[derive(Default)]
struct Outbox {
    out: Unwritten,
    /// How messages are written; known when the client has spoken.
    form: Form,
    /// Handed to the connection and not yet written: it counts against the bound.
    in_flight: usize,
    waker: Option<Waker>,
    closing: Option<(Reason, Instant)>,
    /// The client reads too slowly to be waited for: the connection ends with bytes unwritten.
    cut: bool,
    gone: bool,
}

/// Why a session is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// For the log, and for a WebSocket's client.
    pub(crate) text: String,
    /// The code of a WebSocket's close.
    pub(crate) close_code: u16,
}

impl Reason {
    /// The app's, or a limit's.
    fn normal(text: impl Into<String>) -> Self {
        Self { text: text.into(), close_code: 1000 }
    }
}

/// User and attributes would take too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateTooLarge {
    pub(crate) bytes: usize,
    pub(crate) max: usize,
}

/// A message for many clients of a node, encoded once for each form that one of them has.
pub(crate) struct Encoded<'a> {
    command: CommandId,
    body: &'a [u8],
    forms: [OnceCell<Bytes>; 3],
}

impl<'a> Encoded<'a> {
    pub(crate) fn new(command: CommandId, body: &'a [u8]) -> Self {
        Self { command, body, forms: Default::default() }
    }

    fn bytes(&self, form: Form, framing: &Firefly) -> &Bytes {
        self.forms[form as usize].get_or_init(|| {
            let mut out = Vec::new();
            form.write(framing, self.command, self.body, &mut out);
            out.into()
        })
    }
}

/// Why a push was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The session has ended, or is ending.
    #[error("the session is gone")]
    Gone,
    /// The client reads too slowly: its outbox is over `limits.outbox_bytes_max`. It is disconnected.
    #[error("the client reads too slowly")]
    TooSlow,
    /// The session's net node cannot be reached from here now; the session may be open.
    #[error("the session's net node cannot be reached")]
    Unreachable,
}

impl LocalSession {
    pub(crate) fn new(
        id: SessionId,
        address: SocketAddr,
        stage: Stage,
        wire: Wire,
        counters: Arc<Counters>,
    ) -> Self {
        let outbox = Mutex::default();
        let (waiting, heard_ms) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (running, course) = (AtomicBool::new(false), AtomicU8::new(Course::Run as u8));
        let opened = Instant::now();
        let state = SessionState { version: 1, address, user: None, attributes: BTreeMap::new() };
        let told = Mutex::new(Told { state: Arc::new(state), watchers: Vec::new() });
        Self(Arc::new(Inner {
            id,
            address,
            told,
            opened,
            wire,
            counters,
            outbox,
            waiting,
            heard_ms,
            running,
            course,
            stage: AtomicU8::new(stage as u8),
            ending: AtomicBool::new(false),
            verified: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            moves: AtomicU32::new(0),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// A session that another process of this node has opened.
    pub(crate) fn adopt(
        record: &handover::Session,
        luggage: Luggage,
        wire: Wire,
        counters: Arc<Counters>,
    ) -> Self {
        let Luggage { form, state, watchers, stage, moves, .. } = luggage;
        let verified = AtomicBool::new(state.user.is_some());
        let told = Mutex::new(Told { state: Arc::new(state), watchers });
        let now = Instant::now();
        let opened = now.checked_sub(Duration::from_millis(record.open_ms)).unwrap_or(now);
        let outbox = Outbox { out: record.unsent.clone().into(), form, ..Outbox::default() };
        Self(Arc::new(Inner {
            id: record.id,
            address: record.address,
            told,
            opened,
            wire,
            counters,
            outbox: Mutex::new(outbox),
            waiting: AtomicUsize::new(0),
            heard_ms: AtomicU64::new(record.heard_ms),
            running: AtomicBool::new(false),
            course: AtomicU8::new(Course::Run as u8),
            stage: AtomicU8::new(stage as u8),
            ending: AtomicBool::new(false),
            verified,
            moving: AtomicBool::new(false),
            moves: AtomicU32::new(moves),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Whether something runs for it that has to be answered.
    pub(crate) fn is_at_work(&self) -> bool {
        self.has_requests() || self.is_moving()
    }

    /// Whether a request of it runs, here or elsewhere.
    pub(crate) fn has_requests(&self) -> bool {
        self.waiting_requests() > 0 || self.0.running.load(Ordering::Relaxed)
    }

    /// Whether it is being moved to another node.
    pub(crate) fn is_moving(&self) -> bool {
        self.0.moving.load(Ordering::Acquire)
    }

    /// It is being moved from now on: nothing of it starts. False when it is already.
    pub(crate) fn begin_move(&self) -> bool {
        !self.0.moving.swap(true, Ordering::AcqRel)
    }

    /// What has waited goes on.
    pub(crate) fn end_move(&self) {
        self.0.moving.store(false, Ordering::Release);
        wake(&mut self.0.outbox.lock());
    }

    /// The number of a new move.
    pub(crate) fn next_move(&self) -> u32 {
        self.0.moves.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How often it has been moved.
    pub(crate) fn moves(&self) -> u32 {
        self.0.moves.load(Ordering::Relaxed)
    }

    /// A handler of it runs on its connection, or has ended.
    pub(crate) fn set_running(&self, running: bool) {
        self.0.running.store(running, Ordering::Relaxed);
    }

    /// Whether [`LocalSession::leave`] would give something.
    pub(crate) fn may_leave(&self) -> bool {
        let outbox = self.0.outbox.lock();
        self.waiting_requests() == 0 && !self.is_moving() && outbox.closing.is_none()
    }

    /// What another process of this node must know to go on with it; nothing is taken here any more. `None` while something still runs for it, or it is being closed.
    pub(crate) fn leave(&self) -> Option<(handover::Session, Luggage)> {
        let mut outbox = self.0.outbox.lock();
        if self.waiting_requests() > 0 || self.is_moving() || outbox.closing.is_some() {
            return None;
        }
        outbox.gone = true;
        let record = handover::Session {
            id: self.0.id,
            address: self.0.address,
            open_ms: self.0.opened.elapsed().as_millis() as u64,
            heard_ms: self.0.heard_ms.load(Ordering::Relaxed),
            unread: Vec::new(),
            unsent: outbox.out.take(),
            ended: false,
            extra: Vec::new(),
        };
        let told = self.0.told.lock();
        let (state, watchers) = ((*told.state).clone(), told.watchers.clone());
        let (form, stage, moves) = (outbox.form, self.stage(), self.moves());
        let (groups, stamp) = (Vec::new(), None);
        Some((record, Luggage { form, state, watchers, stage, groups, moves, stamp }))
    }

    /// The id, unique in the cluster and never reused.
    pub(crate) fn id(&self) -> SessionId {
        self.0.id
    }

    /// Where the client connects from.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What the whole cluster knows of it.
    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.0.told.lock().state.clone()
    }

    /// That node hears of every change from now on, and of the end. Returns the state so far.
    pub(crate) fn watch(&self, node: NodeNumber) -> Arc<SessionState> {
        let mut told = self.0.told.lock();
        if !told.watchers.contains(&node) {
            told.watchers.push(node);
        }
        told.state.clone()
    }

    /// The nodes that hear of it.
    pub(crate) fn watchers(&self) -> Vec<NodeNumber> {
        self.0.told.lock().watchers.clone()
    }

    /// Changes the state, which may take `bytes_max`; `tell` is called with the new one under the lock, so that
    /// states leave in the order of their versions.
    pub(crate) fn change(
        &self,
        change: SessionChange,
        bytes_max: usize,
        tell: impl FnOnce(&SessionState, &[NodeNumber]),
    ) -> Result<Arc<SessionState>, StateTooLarge> {
        let mut told = self.0.told.lock();
        let next = told.state.with(change);
        if next.bytes() > bytes_max {
            return Err(StateTooLarge { bytes: next.bytes(), max: bytes_max });
        }
        told.state = Arc::new(next);
        tell(&told.state, &told.watchers);
        Ok(told.state.clone())
    }

    /// When it connected.
    pub(crate) fn opened(&self) -> Instant {
        self.0.opened
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.outbox.lock().gone
    }

    /// Sends a message to the client. It is queued at once, after everything queued before.
    ///
    /// # Errors
    /// [`PushError`]; the client will not see the message then.
    pub(crate) fn push(&self, command: CommandId, body: &[u8]) -> Result<(), PushError> {
        self.0.push(command, body, self.0.wire.slow_client)
    }

    /// Sends a message that was encoded for many, and lies in memory once.
    pub(crate) fn push_encoded(&self, message: &Encoded<'_>) -> Result<(), PushError> {
        let mut outbox = self.0.outbox.lock();
        self.0.queue_out(&mut outbox, self.0.wire.slow_client, |form, out| {
            if out.share(message.bytes(form, &self.0.wire.framing)) {
                count(&self.0.counters.pushes_shared);
            }
        })
    }

    /// Answers a request. Unlike a push it is never dropped for a slow client, who would wait for ever.
    pub(crate) fn reply(&self, command: CommandId, body: &[u8]) {
        // A client that is gone needs no reply; a slow one is being disconnected.
        let _ = self.0.push(command, body, SlowClient::Disconnect);
    }

    /// Tells the client that its request failed, see [`Form::write_error`].
    pub(crate) fn push_fault(&self, command: CommandId, fault: &Fault) {
        self.0.push_fault(command, fault);
    }

    /// This session as the sink of its forwarded requests; the token is the command.
    pub(crate) fn sink(&self) -> Arc<dyn Sink> {
        self.0.clone()
    }

    pub(crate) fn framing(&self) -> Firefly {
        self.0.wire.framing
    }

    /// The client speaks WebSocket: `response` goes first, and what was queued before in messages.
    pub(crate) fn upgrade(&self, response: &[u8]) {
        let mut outbox = self.0.outbox.lock();
        let queued = outbox.out.take();
        outbox.out = response.to_vec().into();
        outbox.form = Form::Binary;
        let mut rest = &queued[..];
        while let Ok(Some(frame)) = self.0.wire.framing.read(rest, u32::MAX) {
            Form::Binary.write(&self.0.wire.framing, frame.command, frame.body, outbox.out.own());
            rest = &rest[frame.bytes..];
        }
    }

    /// How messages to the client are written from now on.
    pub(crate) fn set_form(&self, form: Form) {
        self.0.outbox.lock().form = form;
    }

    /// Queues a WebSocket control frame, under the bound that replies have.
    pub(crate) fn control(&self, opcode: websocket::Opcode, payload: &[u8]) {
        let write = |_: Form, out: &mut Vec<u8>| websocket::write(opcode, payload, out);
        let _ = self.0.queue(SlowClient::Disconnect, write);
    }

    /// Whether something waits to be taken by the connection.
    pub(crate) fn has_queued(&self) -> bool {
        !self.0.outbox.lock().out.is_empty()
    }

    /// Remembers who writes what will be queued.
    pub(crate) fn remember(&self, waker: &Waker) {
        self.0.outbox.lock().remember(waker);
    }

    /// One more request runs elsewhere: on another node, or beside the session's order.
    pub(crate) fn request_waits(&self) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One request fewer waits: the connection may go on reading, if it had paused.
    pub(crate) fn request_ended(&self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        wake(&mut self.0.outbox.lock());
    }

    /// How many requests run elsewhere.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// The client sent something that is no message: it lives, if it has ever said something.
    pub(crate) fn beat(&self, now: Instant) {
        if self.0.heard_ms.load(Ordering::Relaxed) != 0 {
            self.heard(now);
        }
    }

    /// The client sent a message.
    pub(crate) fn heard(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.0.opened).as_millis() as u64;
        self.0.heard_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// Whether the client has sent no whole message yet, and for how long it has been silent.
    pub(crate) fn silence(&self) -> (bool, Duration) {
        let heard = self.0.heard_ms.load(Ordering::Relaxed);
        (heard == 0, self.0.opened.elapsed().saturating_sub(Duration::from_millis(heard)))
    }

    /// Tells the connection what to do next.
    pub(crate) fn set_course(&self, course: Course) {
        self.0.course.store(course as u8, Ordering::Relaxed);
        wake(&mut self.0.outbox.lock());
    }

    /// What it was told last.
    pub(crate) fn course(&self) -> Course {
        match self.0.course.load(Ordering::Relaxed) {
            1 => Course::Hold,
            2 => Course::Leave,
            3 => Course::Drain,
            _ => Course::Run,
        }
    }

    /// How far its login is.
    pub(crate) fn stage(&self) -> Stage {
        match self.0.stage.load(Ordering::Acquire) {
            1 => Stage::Awaited,
            2 => Stage::Asked,
            _ => Stage::In,
        }
    }

    /// Its login is at another stage now.
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.0.stage.store(stage as u8, Ordering::Release);
    }

    /// Whether the app must be told that the session has a user: true for one caller, once it has one.
    pub(crate) fn becomes_verified(&self) -> bool {
        self.state().user.is_some() && !self.0.verified.swap(true, Ordering::AcqRel)
    }

    /// Held while a hook of it runs, so that they come in their order.
    pub(crate) fn turn(&self) -> &tokio::sync::Mutex<()> {
        &self.0.turn
    }

    /// Whether it is being closed: nothing more of it may start.
    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Acquire)
    }

    /// Ends the session: what is queued is written first. `reason` is logged.
    pub(crate) fn close(&self, reason: &str) {
        self.0.close(&mut self.0.outbox.lock(), Reason::normal(reason));
    }

    /// Ends the session as [`LocalSession::close`] does, and tells the client why: an error frame for `command`.
    /// False when it is being closed already.
    pub(crate) fn close_with(&self, command: CommandId, fault: &Fault) -> bool {
        let Wire { framing, error_command, .. } = &self.0.wire;
        let mut outbox = self.0.outbox.lock();
        if outbox.gone || outbox.closing.is_some() {
            return false;
        }
        // A slow one is disconnected with what it has not read.
        let _ = self.0.queue_in(&mut outbox, SlowClient::Disconnect, |form, out| {
            form.write_error(framing, *error_command, command, fault, out);
        });
        let text = format!("{}: {}", fault.code, fault.message);
        self.0.close(&mut outbox, Reason { text, close_code: POLICY });
        true
    }

    /// Moves what is queued into the empty `writing`, or remembers who to wake. `Some` says why the
    /// connection shall end: nothing is left to write.
    pub(crate) fn take_queued(&self, writing: &mut Unwritten, waker: &Waker) -> Option<Reason> {
        let mut outbox = self.0.outbox.lock();
        outbox.in_flight = outbox.out.len();
        std::mem::swap(&mut outbox.out, writing);
        if writing.is_empty() {
            if let Some((why, _)) = &outbox.closing {
                return Some(why.clone());
            }
            outbox.remember(waker);
        }
        None
    }

    /// The socket takes no more: remembers who to wake when the client shall not be waited for. `Some`
    /// says why that is so now.
    pub(crate) fn blocked(&self, waker: &Waker) -> Option<Reason> {
        let mut outbox = self.0.outbox.lock();
        outbox.remember(waker);
        outbox.closing.as_ref().filter(|_| outbox.cut).map(|(why, _)| why.clone())
    }

    /// Cuts a session off that was closed `linger` ago and whose client has not read all since.
    pub(crate) fn cut_after(&self, linger: Duration) {
        let mut outbox = self.0.outbox.lock();
        if outbox.closing.as_ref().is_some_and(|(_, since)| since.elapsed() > linger) {
            outbox.cut = true;
            wake(&mut outbox);
        }
    }

    /// Nothing is taken any more.
    pub(crate) fn end(&self) {
        let mut outbox = self.0.outbox.lock();
        outbox.gone = true;
        outbox.out = Unwritten::default();
    }
}

impl Outbox {
    fn remember(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Inner {
    fn push(&self, command: CommandId, body: &[u8], policy: SlowClient) -> Result<(), PushError> {
        self.queue(policy, |form, out| form.write(&self.wire.framing, command, body, out))
    }

    /// Queues what `write` writes in the session's form.
    fn queue(&self, policy: SlowClient, write: impl FnOnce(Form, &mut Vec<u8>)) -> Result<(), PushError> {
        self.queue_in(&mut self.outbox.lock(), policy, write)
    }

    fn queue_in(
        &self,
        outbox: &mut Outbox,
        policy: SlowClient,
        write: impl FnOnce(Form, &mut Vec<u8>),
    ) -> Result<(), PushError> {
        self.queue_out(outbox, policy, |form, out| write(form, out.own()))
    }

    fn queue_out(
        &self,
        outbox: &mut Outbox,
        policy: SlowClient,
        write: impl FnOnce(Form, &mut Unwritten),
    ) -> Result<(), PushError> {
        if outbox.gone || outbox.closing.is_some() {
            return Err(PushError::Gone);
        }
        let queued = outbox.out.len() + outbox.in_flight;
        // What is queued may pass the bound by one message, so that a message above it can travel at all.
        if queued > self.wire.outbox_bytes_max {
            if policy == SlowClient::Disconnect {
                outbox.out = Unwritten::default();
                outbox.cut = true;
                count(&self.counters.outbox_full);
                self.close(outbox, Reason::normal("slow reader: limits.outbox_bytes_max"));
            } else {
                count(&self.counters.pushes_dropped);
            }
            return Err(PushError::TooSlow);
        }
        write(outbox.form, &mut outbox.out);
        wake(outbox);
        Ok(())
    }

    fn close(&self, outbox: &mut Outbox, reason: Reason) {
        outbox.closing.get_or_insert_with(|| (reason, Instant::now()));
        self.ending.store(true, Ordering::Release);
        wake(outbox);
    }

    fn push_fault(&self, command: CommandId, fault: &Fault) {
        let Wire { framing, error_command, .. } = &self.wire;
        let write = |form: Form, out: &mut Vec<u8>| {
            form.write_error(framing, *error_command, command, fault, out);
        };
        // A client that is gone needs no error; a slow one is being disconnected.
        let _ = self.queue(SlowClient::Disconnect, write);
    }
}

/// The outcome of a forwarded request comes back: the connection is woken to write it, and to read on if
/// it had paused.
impl Sink for Inner {
    fn end(&self, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        let command = CommandId(token as u32); // The token was made from a command.
        let Wire { framing, error_command, .. } = &self.wire;
        // In one step: who sees that nothing waits must see the answer as well.
        let mut outbox = self.outbox.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        // A client that is gone needs no answer; a slow one is being disconnected.
        let _ = match outcome {
            Ok(Some(body)) => self.queue_in(&mut outbox, SlowClient::Disconnect, |form, out| {
                form.write(framing, command, body, out);
            }),
            Ok(None) => Ok(()),
            Err(fault) => self.queue_in(&mut outbox, SlowClient::Disconnect, |form, out| {
                form.write_error(framing, *error_command, command, fault, out);
            }),
        };
        wake(&mut outbox);
    }
}

fn wake(outbox: &mut Outbox) {
    if let Some(waker) = outbox.waker.take() {
        waker.wake();
    }
}

impl fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {}", self.0.id, self.0.address)
    }
}
