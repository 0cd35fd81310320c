//! The outbox of a client: pushes and answers that wait to be written, and why the session ends.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::SlowClient;
use ffnet::link::Sink;
use ffproto::protocol::{FaultSaid, PROTOCOLS_MAX, ProtocolId, Protocols, ReplyTo};
use ffproto::{CommandId, Fault};
use tokio::time::Instant;

use super::write_batch;
use super::{Inner, LocalSession, Socket};
use crate::identity::counters::count;
use crate::session::local::write_buffer::WriteBuffer;

/// The bytes of its buffer that an outbox, and its connection, each keep: a small reply needs no allocation, and ten
/// thousand idle clients cost a few MiB at most.
pub(crate) const KEEP_BYTES: usize = 512;

/// The bytes that a thread keeps of the room for one answer.
const ANSWER_KEEP_BYTES: usize = 64 * 1024;

thread_local! {
    /// The room where an answer is put together that is written at once; empty between two of them.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
pub(super) struct Outbox {
    pub(super) out: WriteBuffer,
    /// The protocol in which messages are written; known when the client has spoken.
    pub(super) spoken: Option<ProtocolId>,
    /// The bytes that the connection has taken and not yet written: they count against the bound.
    in_flight: usize,
    waker: Option<Waker>,
    /// The waker of who waits until no request of the session runs any more.
    pub(super) quiet: Option<Waker>,
    /// The client's socket, until the session is gone.
    pub(super) socket: Option<Socket>,
    /// Whether the connection is at rest: it has nothing to do before the client says something, and what is queued
    /// needs no turn of it.
    at_rest: bool,
    /// Whether the session is in the write batch, see [`write_batch`].
    in_batch: bool,
    /// Why the session is being closed, and since when. Boxed: an idle session is to be small.
    pub(super) closing: Option<Box<(CloseReason, Instant)>>,
    /// Whether the client reads too slowly to be waited for: the connection ends with bytes unwritten.
    cut: bool,
    pub(super) gone: bool,
    /// Whether the session is gone because it goes on in the successor.
    pub(super) left: bool,
}

/// Why a session is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloseReason {
    /// For the log, and for the client where its protocol has a word for it.
    pub(crate) text: String,
    pub(crate) kind: CloseKind,
}

/// What kind of reason closes a session; each protocol has a word of its own for it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseKind {
    /// The app, or a limit.
    Normal,
    /// The client does not keep to the rules of this server.
    Policy,
}

impl CloseReason {
    /// A reason of the app, or of a limit.
    fn normal(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: CloseKind::Normal }
    }

    /// A fault after which the session cannot go on.
    fn of(fault: &Fault) -> Self {
        Self { text: format!("{}: {}", fault.code, fault.message), kind: CloseKind::Policy }
    }
}

/// A message for many clients of a node, encoded once for each protocol that one of them speaks.
pub(crate) struct EncodedMessage<'a> {
    command: CommandId,
    body: &'a [u8],
    encoded: [Option<Bytes>; PROTOCOLS_MAX],
}

impl<'a> EncodedMessage<'a> {
    pub(crate) fn new(command: CommandId, body: &'a [u8]) -> Self {
        Self { command, body, encoded: Default::default() }
    }

    /// The message in that protocol; its place is below [`PROTOCOLS_MAX`].
    fn bytes(&mut self, id: ProtocolId, protocols: &Protocols) -> &Bytes {
        self.encoded[id.index()].get_or_insert_with(|| {
            let mut out = Vec::new();
            protocols.push(Some(id), self.command, self.body, &mut out);
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

/// Messages to the client, and the end of the session.
impl LocalSession {
    /// Sends a message to the client. The message is queued at once, after everything queued before.
    ///
    /// # Errors
    /// [`PushError`]; the client will not see the message then.
    pub(crate) fn push(&self, command: CommandId, body: &[u8]) -> Result<(), PushError> {
        self.0.push(command, body, self.0.wire.slow_client)
    }

    /// Sends a message that was encoded for many, and lies in memory once.
    pub(crate) fn push_encoded(&self, message: &mut EncodedMessage<'_>) -> Result<(), PushError> {
        let mut outbox = self.0.outbox.lock();
        self.0.queue_out(&mut outbox, self.0.wire.slow_client, |spoken, out| {
            let protocols = &self.0.wire.protocols;
            match spoken {
                Some(id) if out.share(message.bytes(id, protocols)) => count(&self.0.counters.pushes_shared),
                Some(_) => {}
                None => protocols.push(None, message.command, message.body, out.own()),
            }
        })?;
        self.0.see_to(&mut outbox);
        Ok(())
    }

    /// Answers a request. An answer is never dropped for a slow client, unlike a push: the client would wait for ever.
    pub(crate) fn reply(&self, to: ReplyTo, body: &[u8]) {
        let mut outbox = self.0.outbox.lock();
        // The request counts among those that wait when it ran beside its session's order.
        let last = self.waiting_requests() == 1;
        self.0.answer(&mut outbox, last, |spoken, out| self.0.wire.protocols.reply(spoken, to, body, out));
    }

    /// Tells the client that its request failed, as far as its protocol has a word for that.
    pub(crate) fn push_fault(&self, to: ReplyTo, fault: &Fault) {
        self.0.push_fault(to, fault);
    }

    /// This session as the sink of its forwarded requests; the token is a [`ReplyTo`]'s.
    pub(crate) fn reply_sink(&self) -> Arc<dyn Sink> {
        self.0.clone()
    }

    /// Sets the protocol that the client speaks: `first` goes before what is queued, which is written anew in it.
    pub(crate) fn begin_protocol(&self, id: ProtocolId, first: &[u8]) {
        let mut outbox = self.0.outbox.lock();
        outbox.spoken = Some(id);
        let queued = outbox.out.take();
        outbox.out = first.to_vec().into();
        if !queued.is_empty() {
            self.0.wire.protocols.restate(&queued, id, outbox.out.own());
        }
    }

    /// Sets the protocol in which the client is spoken to from now on.
    pub(crate) fn set_protocol(&self, id: ProtocolId) {
        self.0.outbox.lock().spoken = Some(id);
    }

    /// Counts frames that were read of the client.
    pub(crate) fn count_read(&self, frames: usize, bytes: usize) {
        let spoken = self.0.outbox.lock().spoken;
        self.0.counters.traffic.read(spoken, frames, bytes);
    }

    /// Queues bytes of the connection's protocol that are no message, under the bound that replies have.
    pub(crate) fn queue_control(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let _ = self.0.queue(SlowClient::Disconnect, |_, out| write(out));
    }

    /// Whether any bytes wait to be taken by the connection.
    pub(crate) fn has_queued(&self) -> bool {
        !self.0.outbox.lock().out.is_empty()
    }

    /// How many bytes wait to be written to the client.
    pub(crate) fn queued_bytes(&self) -> usize {
        let outbox = self.0.outbox.lock();
        outbox.out.len() + outbox.in_flight
    }

    /// Drops what is queued in no protocol, of a session that is being closed; false when it goes on.
    pub(crate) fn drop_unsayable(&self) -> bool {
        let mut outbox = self.0.outbox.lock();
        let drops = outbox.closing.is_some() && outbox.spoken.is_none();
        if drops {
            outbox.out = WriteBuffer::default();
        }
        drops
    }

    /// Remembers the waker of the connection, which writes what will be queued.
    pub(crate) fn remember(&self, waker: &Waker) {
        self.0.outbox.lock().remember(waker);
    }

    /// Ends the session: what is queued is written first. `reason` is logged.
    pub(crate) fn close(&self, reason: &str) {
        self.0.close(&mut self.0.outbox.lock(), CloseReason::normal(reason));
    }

    /// Ends the session as [`LocalSession::close`] does, and tells the client why: an error for its request.
    /// False when it is being closed already.
    pub(crate) fn close_with(&self, to: ReplyTo, fault: &Fault) -> bool {
        let mut outbox = self.0.outbox.lock();
        if outbox.gone || outbox.closing.is_some() {
            return false;
        }
        // A slow client is disconnected with what it has not read.
        let _ = self.0.queue_in(&mut outbox, SlowClient::Disconnect, |spoken, out| {
            self.0.wire.protocols.fault(spoken, to, fault, out);
        });
        self.0.close(&mut outbox, CloseReason::of(fault));
        true
    }

    /// Moves what is queued into the empty `writing`, or remembers who to wake; `at_rest` says that the connection
    /// then has nothing to do before the client says something. `Some` says why the connection shall end: nothing
    /// is left to write.
    pub(crate) fn take_queued(
        &self,
        writing: &mut WriteBuffer,
        at_rest: bool,
        waker: &Waker,
    ) -> Option<CloseReason> {
        let mut outbox = self.0.outbox.lock();
        let is_spoken = outbox.spoken.is_some();
        if !is_spoken && !outbox.out.is_empty() {
            // Queued since the connection has looked whether the protocol is to be known first.
            waker.wake_by_ref();
            return None;
        }
        outbox.in_flight = outbox.out.len();
        std::mem::swap(&mut outbox.out, writing);
        // What is queued before the protocol is known is not in it: the connection has to write it anew.
        outbox.at_rest = at_rest && is_spoken && writing.is_empty();
        if writing.is_empty() {
            if let Some((why, _)) = outbox.closing.as_deref() {
                return Some(why.clone());
            }
            outbox.remember(waker);
        }
        None
    }

    /// Notes that the socket takes no more, and remembers the waker for when the client shall not be waited for. `Some`
    /// says why that is so now.
    pub(crate) fn blocked(&self, waker: &Waker) -> Option<CloseReason> {
        let mut outbox = self.0.outbox.lock();
        outbox.remember(waker);
        outbox.closing.as_deref().filter(|_| outbox.cut).map(|(why, _)| why.clone())
    }

    /// Cuts a session off that was closed `linger` ago and whose client has not read all since.
    pub(crate) fn cut_after(&self, linger: Duration) {
        let mut outbox = self.0.outbox.lock();
        if outbox.closing.as_deref().is_some_and(|(_, since)| since.elapsed() > linger) {
            outbox.cut = true;
            wake(&mut outbox);
        }
    }

    /// Ends the outbox: it takes nothing any more.
    pub(crate) fn end(&self) {
        let mut outbox = self.0.outbox.lock();
        (outbox.gone, outbox.socket) = (true, None);
        outbox.out = WriteBuffer::default();
        // A move of the session that waits for its requests has nothing to wait for any more.
        outbox.quiet.take().into_iter().for_each(Waker::wake);
    }

    /// Sets the socket over which the client is written to.
    pub(crate) fn set_socket(&self, socket: Socket) {
        self.0.outbox.lock().socket = Some(socket);
    }
}

impl Outbox {
    /// The outbox of a session that the predecessor has opened.
    pub(super) fn adopt(unsent: Vec<u8>) -> Self {
        Self { out: unsent.into(), ..Self::default() }
    }

    fn remember(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Inner {
    fn push(self: &Arc<Self>, command: CommandId, body: &[u8], policy: SlowClient) -> Result<(), PushError> {
        self.queue(policy, |spoken, out| self.wire.protocols.push(spoken, command, body, out))
    }

    /// Queues what `write` writes in the session's protocol.
    fn queue(
        self: &Arc<Self>,
        policy: SlowClient,
        write: impl FnOnce(Option<ProtocolId>, &mut Vec<u8>),
    ) -> Result<(), PushError> {
        let mut outbox = self.outbox.lock();
        self.queue_in(&mut outbox, policy, write)?;
        self.see_to(&mut outbox);
        Ok(())
    }

    fn queue_in(
        &self,
        outbox: &mut Outbox,
        policy: SlowClient,
        write: impl FnOnce(Option<ProtocolId>, &mut Vec<u8>),
    ) -> Result<(), PushError> {
        self.queue_out(outbox, policy, |spoken, out| write(spoken, out.own()))
    }

    fn queue_out(
        &self,
        outbox: &mut Outbox,
        policy: SlowClient,
        write: impl FnOnce(Option<ProtocolId>, &mut WriteBuffer),
    ) -> Result<(), PushError> {
        if outbox.gone || outbox.closing.is_some() {
            return Err(PushError::Gone);
        }
        let queued = outbox.out.len() + outbox.in_flight;
        // Queued bytes may pass the bound by one message, so that a message above it can travel at all.
        if queued > self.wire.outbox_bytes_max {
            if policy == SlowClient::Disconnect {
                outbox.out = WriteBuffer::default();
                outbox.cut = true;
                count(&self.counters.outbox_full);
                self.close(outbox, CloseReason::normal("slow reader: limits.outbox_bytes_max"));
            } else {
                count(&self.counters.pushes_dropped);
            }
            return Err(PushError::TooSlow);
        }
        let before = outbox.out.len();
        write(outbox.spoken, &mut outbox.out);
        self.counters.traffic.queued(outbox.spoken, outbox.out.len() - before);
        Ok(())
    }

    /// Sees to it that queued bytes are written.
    fn see_to(self: &Arc<Self>, outbox: &mut Outbox) {
        if outbox.at_rest && (outbox.in_batch || write_batch::add(self)) {
            outbox.in_batch = true;
        } else {
            wake(outbox);
        }
    }

    /// Wakes the waiter for the end of the session's requests, when none runs.
    pub(super) fn wake_quiet(&self, outbox: &mut Outbox) {
        let runs =
            self.requests.waiting.load(Ordering::SeqCst) > 0 || self.requests.running.load(Ordering::SeqCst);
        if !runs && let Some(waker) = outbox.quiet.take() {
            waker.wake();
        }
    }

    /// Lets a connection that had paused go on, after the end of a request.
    pub(super) fn go_on(&self, outbox: &mut Outbox) {
        if outbox.quiet.is_some() {
            self.wake_quiet(outbox);
        }
        if !outbox.at_rest {
            wake(outbox);
        }
    }

    /// Queues an answer. The last answer that the client waits for is written at once when the connection is at rest:
    /// nothing more comes that could go with it.
    fn answer(
        self: &Arc<Self>,
        outbox: &mut Outbox,
        last: bool,
        write: impl FnOnce(Option<ProtocolId>, &mut Vec<u8>),
    ) {
        if last && outbox.at_rest && outbox.out.is_empty() && outbox.closing.is_none() {
            return self.write_now(outbox, write);
        }
        // A client that is gone needs no answer; a slow one is being disconnected.
        if self.queue_in(outbox, SlowClient::Disconnect, write).is_ok() {
            self.see_to(outbox);
        }
    }

    /// Writes an answer to a client for whom nothing is queued; bytes that the socket does not take are left to the
    /// connection.
    fn write_now(&self, outbox: &mut Outbox, write: impl FnOnce(Option<ProtocolId>, &mut Vec<u8>)) {
        // There is no socket when the session is gone.
        let Some(socket) = &outbox.socket else { return };
        let mut answer = ANSWER.take();
        write(outbox.spoken, &mut answer);
        // A protocol without a word for an error has written nothing, and a transport may number every write.
        if !answer.is_empty() {
            self.counters.traffic.queued(outbox.spoken, answer.len());
            let n = socket.try_write_bytes(&answer);
            if n < answer.len() || socket.has_unsent() {
                outbox.out.own().extend_from_slice(&answer[n..]);
                outbox.at_rest = false;
                wake(outbox);
            }
        }
        // A large answer is rare, and its room is not kept.
        answer.clear();
        answer.shrink_to(ANSWER_KEEP_BYTES);
        ANSWER.set(answer);
    }

    /// Writes queued bytes without a turn of the connection; that has to take over what the socket does not take, and
    /// to find out why.
    pub(super) fn write_at_rest(&self) {
        let mut outbox = self.outbox.lock();
        let Outbox { out, socket, at_rest, in_batch, .. } = &mut *outbox;
        *in_batch = false;
        if !*at_rest || out.is_empty() {
            return;
        }
        match socket.as_ref().map(|socket| socket.try_write(out)) {
            Some(Ok(())) if !socket.as_ref().is_some_and(Socket::has_unsent) => out.clear(KEEP_BYTES),
            _ => {
                *at_rest = false;
                wake(&mut outbox);
            }
        }
    }

    fn close(&self, outbox: &mut Outbox, reason: CloseReason) {
        outbox.closing.get_or_insert_with(|| Box::new((reason, Instant::now())));
        self.standing.ending.store(true, Ordering::Release);
        wake(outbox);
    }

    fn push_fault(self: &Arc<Self>, to: ReplyTo, fault: &Fault) {
        let mut outbox = self.outbox.lock();
        let mut said = FaultSaid::Told;
        // A client that is gone needs no error; a slow one is being disconnected.
        let queued = self.queue_in(&mut outbox, SlowClient::Disconnect, |spoken, out| {
            said = self.wire.protocols.fault(spoken, to, fault, out);
        });
        if queued.is_ok() {
            self.see_to(&mut outbox);
        }
        self.heed(&mut outbox, said, fault);
    }

    /// Ends a session whose client cannot be told of a fault, and would wait for ever.
    fn heed(&self, outbox: &mut Outbox, said: FaultSaid, fault: &Fault) {
        if said == FaultSaid::Closes {
            self.close(outbox, CloseReason::of(fault));
        }
    }
}

/// The outcome of a forwarded request comes back.
impl Sink for Inner {
    fn end(self: Arc<Self>, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        let (to, protocols) = (ReplyTo::of_token(token), &self.wire.protocols);
        // In one step: whoever sees that no request waits must see the answer as well.
        let mut outbox = self.outbox.lock();
        let last = self.requests.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
        match outcome {
            Ok(Some(body)) => self.answer(&mut outbox, last, |spoken, out| {
                protocols.reply(spoken, to, body, out);
            }),
            Ok(None) => {}
            Err(fault) => {
                let mut said = FaultSaid::Told;
                self.answer(&mut outbox, last, |spoken, out| said = protocols.fault(spoken, to, fault, out));
                self.heed(&mut outbox, said, fault);
            }
        }
        self.go_on(&mut outbox);
    }
}

pub(super) fn wake(outbox: &mut Outbox) {
    if let Some(waker) = outbox.waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
