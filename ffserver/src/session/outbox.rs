//! What waits to be written to a client: pushes, answers, and why it ends.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::SlowClient;
use ffnet::link::Sink;
use ffproto::frame::{Firefly, Form, websocket};
use ffproto::{CommandId, Fault};
use tokio::time::Instant;

use super::{Inner, LocalSession, Wire};
use crate::counters::count;
use crate::unwritten::Unwritten;

/// The code of a WebSocket's close that says: not by the rules of this server (RFC 6455, 7.4.1).
const POLICY: u16 = 1008;

#[derive(Default)]
pub(super) struct Outbox {
    pub(super) out: Unwritten,
    /// How messages are written; known when the client has spoken.
    pub(super) form: Form,
    /// Handed to the connection and not yet written: it counts against the bound.
    in_flight: usize,
    waker: Option<Waker>,
    pub(super) closing: Option<(Reason, Instant)>,
    /// The client reads too slowly to be waited for: the connection ends with bytes unwritten.
    cut: bool,
    pub(super) gone: bool,
    /// It is gone because it goes on in another process of its node.
    pub(super) left: bool,
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

/// What waits for the client.
impl LocalSession {
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
    /// Of a session that another process of the node has opened.
    pub(super) fn adopt(unsent: Vec<u8>, form: Form) -> Self {
        Self { out: unsent.into(), form, ..Self::default() }
    }

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

pub(super) fn wake(outbox: &mut Outbox) {
    if let Some(waker) = outbox.waker.take() {
        waker.wake();
    }
}
