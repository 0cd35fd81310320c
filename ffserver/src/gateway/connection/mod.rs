//! The connection of one game client: a single future that reads its messages, runs their handlers one after the other,
//! and writes the replies.
//!
//! ```text
//! turn:  the running handler ──ended──▶ the next frame that waits ──none──▶ read ──▶ write what is queued
//! ```
//!
//! While a handler waits, frames behind it wait in `unread` (up to one largest frame, then the socket is
//! not read: a client that sends faster than its handlers answer is paused by TCP). An idle connection
//! owns no buffer: all read into one scratch buffer per thread, and only a partial frame is kept.

mod allowance;
mod closed;
mod decision;
mod handoff;
mod protocol;
mod requests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ffnet::transport::{ClientStream, Transport, Travel};
use ffproto::protocol::{HEADERS_BYTES_MAX, Next, ProtocolFault, Received, ReplyTo};
use ffproto::{Code, Executed, handover};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};
use tracing::warn;

use super::busy_poll;
use super::login_stage;
use crate::app::hooks::{SessionEvent, SessionEventKind};
use crate::error::HandlerError;
use crate::exec::current_tables::TablesInUse;
use crate::exec::execution::{Execution, log_error, until};
use crate::exec::executor::Executor;
use crate::session::handle::Session;
use crate::session::local::write_buffer::WriteBuffer;
use crate::session::local::{CloseReason, Directive, KEEP_BYTES, LocalSession, Socket, Stage};
use crate::transit::forward_counters::ForwardTally;
use allowance::Allowance;
pub(super) use closed::Closed;
pub(super) use decision::MessageRefusal;
use decision::{Decision, decide};
use handoff::{AdoptError, ConnectionHandoff, TransportRecord};
use protocol::SpokenProtocol;
use requests::{LastHop, Message, RunningHandler, finish, forward, start};

const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// The scratch buffer that every connection of this thread reads into; taken while in use.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The buffer where a protocol unpacks messages; taken while in use.
    static UNPACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The connection of a client, as the future that serves it.
pub(super) struct Connection {
    socket: Socket,
    session: LocalSession,
    executor: Arc<Executor>,
    input: Input,
    progress: Progress,
    running: Option<RunningHandler>,
    /// Boxed: most nodes set no limit, and an idle connection is to be small.
    allowance: Option<Box<Allowance>>,
    last_hop: LastHop,
    timer: Option<Pin<Box<Sleep>>>,
    writing: WriteBuffer,
}

/// The input of a connection: what the client has sent and nothing has handled.
#[derive(Default)]
struct Input {
    /// The unread bytes: with `spoken` all that has to be known of the input.
    unread: Vec<u8>,
    /// The client's protocol, once it is known.
    spoken: Option<SpokenProtocol>,
}

/// The progress of a connection. One struct, for each would round its size up, and an idle connection is to be small.
#[derive(Default)]
struct Progress {
    /// Whether the client will send no more; what it has sent is handled and answered first.
    ended: bool,
    /// Whether `unread` starts with a whole frame that may not start yet.
    stalled: bool,
    /// Whether that frame waits for something elsewhere: a move of the session, or its requests on other nodes.
    waits_for_others: bool,
    /// What is to be done with the input.
    directive: Directive,
    /// How often the session had been moved when its last hop was chosen.
    moves: u32,
}

/// One turn of a connection: what is the same for all messages that one read has brought.
struct Turn {
    now: Instant,
    /// The deadline of what starts in this turn.
    deadline: Instant,
    tables: TablesInUse,
    /// What is sent on, counted at the end of the turn.
    forwarded: ForwardTally,
    /// Whether the session has noted that its client speaks.
    noted: bool,
}

impl Connection {
    pub(super) fn new(stream: Arc<dyn ClientStream>, session: LocalSession, executor: Arc<Executor>) -> Self {
        let limits = &executor.node.identity().limits();
        let running = executor.hooks.of(SessionEventKind::Opened).map(|hook| {
            let opened = Session::here(executor.node.all_sessions().clone(), session.clone());
            let hook = hook(executor.node.clone(), opened, SessionEvent::Opened);
            let handler = Execution::hook(async move {
                hook.await;
                Ok(None)
            });
            let deadline = Instant::now() + limits.call_timeout;
            RunningHandler { handler, request: None, deadline }
        });
        session.set_running(running.is_some());
        let mut connection = Self::silent(stream, session, executor.clone());
        connection.begin_only_protocol();
        connection.running = running;
        connection
    }

    /// A connection of which nothing has been read and for which nothing runs.
    fn silent(stream: Arc<dyn ClientStream>, session: LocalSession, executor: Arc<Executor>) -> Self {
        let socket = Socket::new(stream);
        session.set_socket(socket.clone());
        let per_s = executor.node.identity().limits().requests_per_s;
        let allowance = per_s.map(|per_s| Box::new(Allowance::new(per_s, Instant::now())));
        Self {
            socket,
            session,
            input: Input::default(),
            progress: Progress::default(),
            running: None,
            allowance,
            last_hop: LastHop::default(),
            timer: None,
            writing: WriteBuffer::default(),
            executor,
        }
    }

    /// Goes on with a connection that the predecessor has sent.
    ///
    /// # Errors
    /// The record is of another version of the program, or its protocol is none of this one.
    pub(super) fn adopt(
        transport: &dyn Transport,
        socket: OwnedFd,
        record: handover::Session,
        executor: Arc<Executor>,
    ) -> Result<Self, AdoptError> {
        let (ConnectionHandoff { protocol, handoff }, over) = TransportRecord::read(&record.extra)?;
        let stream = over.adopt(transport, socket)?;
        let protocols = executor.node.all_sessions().registry().protocols();
        let spoken = SpokenProtocol::adopt(protocol, protocols)?;
        let session = executor.node.all_sessions().adopt(&record, handoff);
        if let Some((id, _)) = &spoken {
            session.set_protocol(*id);
        }
        let mut connection = Self::silent(stream, session, executor);
        (connection.input.unread, connection.progress.ended) = (record.unread, record.ended);
        connection.input.spoken = spoken.map(|(_, spoken)| spoken);
        Ok(connection)
    }

    /// Takes the socket, and all that the successor must know to go on; the session is gone from this process. `None`
    /// when it cannot leave: it is being closed, or something runs for it after all.
    pub(super) fn leave(&mut self, transport: &dyn Transport) -> Option<(OwnedFd, handover::Session)> {
        // The transport has sent everything before it is asked.
        let travel = if self.socket.has_unsent() { Travel::Drain } else { self.socket.connection().travel() };
        let Travel::HandOff { socket, state } = travel else { return None };
        let (mut record, mut handoff) = self.executor.node.all_sessions().leave(&self.session)?;
        let (protocol, form) = SpokenProtocol::record(self.session.spoken().zip(self.input.spoken.as_ref()));
        handoff.form = form;
        let extra = ConnectionHandoff { protocol, handoff };
        TransportRecord::new(transport, state).write(&extra, &mut record.extra).ok()?;
        let mut unsent = self.writing.take();
        unsent.append(&mut record.unsent);
        record.unsent = unsent;
        record.unread = std::mem::take(&mut self.input.unread);
        record.ended = self.progress.ended;
        Some((socket, record))
    }

    pub(super) fn session(&self) -> &LocalSession {
        &self.session
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.progress.directive = self.session.directive();
        loop {
            self.poll_running(cx);
            if let Err(closed) = self.handle_unread(cx) {
                // Answers of earlier frames are still written, as far as the socket takes them.
                let _ = self.poll_flush(cx);
                return Poll::Ready(closed);
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(closed)) => return Poll::Ready(closed),
                Poll::Pending => break,
            }
        }
        match self.poll_flush(cx) {
            Poll::Ready(Ok(why)) => Poll::Ready(Closed::Here(why)),
            Poll::Ready(Err(e)) => Poll::Ready(Closed::Io(e)),
            Poll::Pending => {
                if self.has_missed() {
                    cx.waker().wake_by_ref();
                }
                self.poll_ended()
            }
        }
    }

    /// Whether all is answered and written that the client, or the node, still waits for.
    fn poll_ended(&self) -> Poll<Closed> {
        let answering = self.running.is_some() || self.session.waiting_requests() > 0;
        let busy = answering || !self.writing.is_empty() || self.socket.has_unsent();
        match self.progress.directive {
            _ if !busy && self.progress.ended && !self.progress.stalled => Poll::Ready(Closed::ByPeer),
            Directive::Drain if !busy => Poll::Ready(Closed::Draining),
            Directive::Hold if !answering => {
                self.executor.node.all_sessions().registry().rested().notify_one();
                Poll::Pending
            }
            // Unwritten bytes go with the connection, but for those that its transport has taken.
            Directive::Leave if !answering && !self.socket.has_unsent() && self.session.may_leave() => {
                Poll::Ready(Closed::Leaving)
            }
            _ => Poll::Pending,
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        let outcome = match Pin::new(&mut running.handler).poll(cx) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                let (deadline, request) = (running.deadline, running.handler.request());
                if self.poll_timer(deadline, cx).is_pending() {
                    return;
                }
                // The handler is dropped where it waits: were it left to go on, the session's next
                // message would run beside it.
                Err(HandlerError::late(request))
            }
        };
        if let Some(running) = self.running.take() {
            self.session.set_running(false);
            let to = running.request.as_ref().map(|(to, _)| *to);
            finish(&self.session, &self.executor, to, running.name(), outcome);
        }
    }

    /// Waits until `at`. A timer that is armed for an earlier time stays and fires once more: handlers' deadlines come one
    /// behind the other, and to move the timer with each costs more than it ever does by firing.
    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.deadline() < at {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// Whether frames wait for the running handler. Frames behind a login do not: they are not accepted.
    fn waits_for_handler(&self) -> bool {
        self.running.is_some() && self.session.stage() != Stage::Asked
    }

    fn handle_unread(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        if self.waits_for_handler()
            || self.input.unread.is_empty()
            || self.progress.directive != Directive::Run
        {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.input.unread);
        let at = self.handle_frames(&bytes, Instant::now(), cx)?;
        if at < bytes.len() {
            bytes.drain(..at);
            self.input.unread = bytes;
        }
        Ok(())
    }

    /// Handles frames until one of them has to wait; says how many bytes are done with.
    fn handle_frames(&mut self, bytes: &[u8], now: Instant, cx: &mut Context<'_>) -> Result<usize, Closed> {
        self.progress.stalled = false;
        let opening = match self.input.spoken {
            Some(_) => 0,
            None => match self.find_protocol(bytes).map_err(Closed::Illegal)? {
                Some(opening) => opening,
                None => {
                    let endless = || Closed::Illegal(endless("an opening", bytes.len()));
                    return if bytes.len() > self.input_bytes_max() { Err(endless()) } else { Ok(0) };
                }
            },
        };
        let (mut unpacked, mut turn) = (UNPACKED.take(), self.turn(now));
        let handled = self.handle_messages(bytes, opening, &mut turn, &mut unpacked, cx);
        self.executor.node.transit().forwarded().settle(&mut turn.forwarded);
        // A large message is rare, and its room is not kept.
        unpacked.clear();
        unpacked.shrink_to(SCRATCH_BYTES);
        UNPACKED.set(unpacked);
        self.session.set_running(self.running.is_some());
        handled.map_err(Closed::Illegal)
    }

    /// Handles the frames behind the first `at` bytes.
    fn handle_messages(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        turn: &mut Turn,
        unpacked: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<usize, ProtocolFault> {
        let max = self.executor.node.identity().limits().frame_bytes_max as usize;
        let (from, mut frames) = (at, 0);
        while let Some(spoken) = &mut self.input.spoken {
            let Some(next) = spoken.decoder.next(&bytes[at..], max)? else {
                if bytes.len() - at > self.input_bytes_max() {
                    return Err(endless("a frame", bytes.len() - at));
                }
                break;
            };
            if next.bytes() == 0 || next.bytes() > bytes.len() - at {
                let text = "a frame of the protocol that is empty or longer than what is read";
                return Err(ProtocolFault::new(text));
            }
            if next.is_message() && !self.may_start(turn.now, cx) {
                self.progress.stalled = true;
                break;
            }
            let frame = &bytes[at..at + next.bytes()];
            at += next.bytes();
            frames += 1;
            match next {
                Next::Message { to, body, .. } => self.handle(to, body, turn, cx),
                Next::Frame { .. } if self.take_frame(frame, unpacked, turn, cx)? => {}
                Next::Frame { .. } => {
                    // The same as when a client closes its sending side: its requests are still answered.
                    self.progress.ended = true;
                    at = bytes.len();
                    break;
                }
            }
        }
        if frames > 0 {
            self.session.count_read(frames, at - from);
        }
        Ok(at)
    }

    /// A turn that begins now.
    fn turn(&self, now: Instant) -> Turn {
        let deadline = now + self.executor.node.identity().limits().call_timeout;
        let (tables, forwarded) = (TablesInUse::default(), ForwardTally::default());
        Turn { now, deadline, tables, forwarded, noted: false }
    }

    /// Takes a frame that its protocol has to unpack. False when the client has nothing more to say.
    fn take_frame(
        &mut self,
        frame: &[u8],
        unpacked: &mut Vec<u8>,
        turn: &mut Turn,
        cx: &mut Context<'_>,
    ) -> Result<bool, ProtocolFault> {
        let Some(spoken) = &mut self.input.spoken else { return Ok(true) };
        match spoken.decoder.take(frame, unpacked)? {
            Received::Message { to, body, spoken: name } => {
                if let Some(id) = name.and_then(|name| self.session.protocols().named(name)) {
                    self.session.set_protocol(id);
                }
                self.handle(to, &body, turn, cx);
            }
            Received::Beat => self.session.beat(turn.now),
            Received::Answered(answer) => {
                self.session.beat(turn.now);
                self.session.queue_control(|out| out.extend_from_slice(&answer));
            }
            Received::End => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the next message may start: none runs, not too many wait elsewhere, and the client keeps
    /// to its allowance. When it may not, what ends the wait wakes this connection.
    fn may_start(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        self.progress.waits_for_others = false;
        if self.waits_for_handler() || self.session.is_ending() {
            return false;
        }
        // Announced before a move is looked for: a mover on another thread sees the message, or is seen.
        self.session.set_running(true);
        self.progress.waits_for_others = self.must_wait_for_others();
        if self.progress.waits_for_others {
            return false;
        }
        if self.session.stage() == Stage::Asked {
            // No message is accepted now, which the client is to be told at once.
            return true;
        }
        match self.allowance.as_mut().map(|allowance| allowance.take(now)) {
            None | Some(Ok(())) => true,
            Some(Err(again)) => self.poll_timer(again, cx).is_ready(),
        }
    }

    fn must_wait_for_others(&self) -> bool {
        let max = self.executor.node.identity().limits().session_calls_max;
        self.session.is_moving()
            || self.session.waiting_requests() >= max && self.session.stage() != Stage::Asked
    }

    /// Whether something has happened elsewhere since this turn has looked for it. From now on such an event wakes the
    /// connection, but before it did not sleep.
    fn has_missed(&self) -> bool {
        let may_start =
            || self.progress.stalled && self.progress.waits_for_others && !self.must_wait_for_others();
        self.progress.directive != self.session.directive()
            || self.progress.directive == Directive::Run && may_start()
    }

    /// Does what is decided over one message of the client.
    fn handle(&mut self, to: ReplyTo, body: &[u8], turn: &mut Turn, cx: &mut Context<'_>) {
        let Self { executor, session, last_hop, progress, .. } = self;
        if !std::mem::replace(&mut turn.noted, true) {
            session.note_message(turn.now);
        }
        session.note_request(to.command);
        let identity = executor.node.identity();
        let login = identity.config().login.as_ref().map(|login| login.command);
        let tables = turn.tables.current(&executor.tables);
        let decision = decide(login, session.stage(), to.command, tables);
        if let Decision::Handle { is_login: true, .. } | Decision::Forward { is_login: true, .. } = decision {
            session.set_stage(Stage::Asked);
        }
        let message = Message { to, body, now: turn.now, deadline: turn.deadline };
        match decision {
            Decision::Handle { route, .. } => {
                self.running = start(executor, session, route, &message, cx);
                if self.running.is_some() {
                    self.poll_running(cx); // Arms the deadline.
                }
            }
            Decision::Forward { rule, .. } => {
                forward(
                    executor,
                    session,
                    (last_hop, &mut progress.moves),
                    &mut turn.forwarded,
                    rule,
                    &message,
                );
            }
            Decision::NoRoute => {
                let text = format!("no handler and no route for command {}", to.command);
                session.push_fault(to, &identity.fault(Code::NoRoute, Executed::No, text));
            }
            Decision::Refuse(refusal) => login_stage::refuse_message(session, identity, to, refusal),
        }
    }

    /// Room for one largest frame with its headers, or for an opening.
    fn input_bytes_max(&self) -> usize {
        let frame = self.executor.node.identity().limits().frame_bytes_max as usize + HEADERS_BYTES_MAX;
        match self.input.spoken {
            Some(_) => frame,
            None => frame.max(self.session.protocols().opening_bytes_max()),
        }
    }

    /// Reads once. `Ready(Ok)` means that there may be more to do, `Pending` that there is not.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        // What waits here is bounded by this and one read.
        if self.progress.ended
            || self.progress.directive != Directive::Run
            || self.input.unread.len() > self.input_bytes_max()
        {
            return Poll::Pending;
        }
        let mut scratch = SCRATCH.take();
        if scratch.is_empty() {
            scratch = vec![0; SCRATCH_BYTES];
        }
        let mut room = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.socket).poll_read(cx, &mut room);
        let n = room.filled().len();
        let result = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(self.take_read(&scratch[..n], cx)),
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                Poll::Ready(Err(Closed::ByPeer))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(Closed::Io(e))),
        };
        SCRATCH.set(scratch);
        result
    }

    fn take_read(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Closed> {
        if bytes.is_empty() {
            self.progress.ended = true;
            self.settle_protocol();
            return Ok(());
        }
        busy_poll::note_message();
        if !self.input.unread.is_empty() || self.waits_for_handler() {
            self.input.unread.extend_from_slice(bytes);
            return Ok(());
        }
        // The common case: whole frames, handled where they were read, nothing kept.
        match self.handle_frames(bytes, Instant::now(), cx) {
            Ok(at) => {
                self.input.unread.extend_from_slice(&bytes[at..]);
                Ok(())
            }
            Err(closed) => {
                let _ = self.poll_flush(cx);
                Err(closed)
            }
        }
    }

    /// Writes what is queued. Ready when the session was closed here and everything before is written, or
    /// the client is not waited for.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<CloseReason>> {
        if self.input.spoken.is_none() && self.poll_protocol(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            match self.socket.poll_write_all(&mut self.writing, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => match self.session.blocked(cx.waker()) {
                    Some(why) => return Poll::Ready(Ok(why)),
                    None => return Poll::Pending,
                },
            }
            self.writing.clear(KEEP_BYTES);
            let at_rest = self.is_at_rest();
            if let Some(why) = self.session.take_queued(&mut self.writing, at_rest, cx.waker()) {
                return Poll::Ready(Ok(why));
            }
            if self.writing.is_empty() {
                return Poll::Pending;
            }
        }
    }

    /// Whether there is nothing to do before the client says something.
    fn is_at_rest(&self) -> bool {
        self.progress.directive == Directive::Run
            && self.running.is_none()
            && !self.progress.stalled
            && !self.progress.ended
    }

    /// A handler that has begun runs to its end although its client is gone: half a trade is worse than an
    /// answer that nobody reads. Frames behind it are dropped with the connection.
    fn detach(&mut self) {
        let Some(running) = self.running.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            let name = running.name();
            return warn!(limited_by = name, "handler {name} was cut off by the end of the node");
        }
        let pin = self.session.pin();
        self.session.set_running(false);
        self.executor.node.identity().tasks().calls().spawn(async move {
            let name = running.name().to_owned();
            if let Err(error) = until(running.deadline, running.handler).await {
                log_error(&name, &error);
            }
            drop(pin);
        });
    }
}

/// The fault of a protocol that waits for more than is read: the connection would stand still for ever.
fn endless(what: &str, bytes: usize) -> ProtocolFault {
    ProtocolFault::new(format!(
        "{what} that is not whole after {bytes} bytes, more than limits.frame_bytes_max"
    ))
}

impl Future for Connection {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        self.poll_turn(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.detach();
    }
}

#[cfg(test)]
mod tests;
