//! The predecessor's half of a hand-over: a node's process hands its state, its clients and its place over to its
//! successor (`receiver.rs`), and takes them back when that fails. The order of messages stands in
//! [`ffproto::handover`], what follows from what is decided in `sender_machine.rs`; here it is done.
//!
//! An app that freezes nothing needs no pause: the successor serves, neighbours switch to it one by one, and
//! each session goes when nothing runs for it. An app that freezes its state is paused first: neighbours hold
//! their messages, what runs ends, the state goes, and the successor's links bring the messages.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffnet::door::{self, Passage};
use ffproto::control::Door;
use ffproto::handover::{FromPredecessor, FromSuccessor, STATE_PIECE_BYTES};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::context::{CHOICES_AT_ONCE, HandoverContext, unswitched};
use super::http::{Handoff, Retirement};
use super::say::say;
pub(crate) use super::sender_machine::HandOverError;
use super::sender_machine::{Awaits, Do, Facts, GREETING_MAX, Seen, SenderMachine};
use crate::app::hooks::Frozen;
use crate::cluster::affinity_delta::AffinityDelta;
use crate::gateway::acceptor::{Departure, LeavingConnection};
use crate::identity::stop::Stop;
use crate::transit::envelope_hold::QUESTIONS_MAX;

/// The pace of leaving: clients are told to leave a few at a time, and the next few so much later, so that one for
/// which something runs holds up the others for its own way only. Nothing is looked at.
const TELL_EVERY: Duration = Duration::from_millis(2);

/// Hands the node over to the successor behind that door, and waits until it is proven; calls `handed_over` when
/// nothing is left here. An error means that the node goes on as before: everything is taken back.
pub(crate) async fn hand_over(
    context: &HandoverContext,
    door: &Door,
    stop: &Stop,
    handed_over: &(dyn Fn() + Sync),
) -> Result<(), HandOverError> {
    let passage = door::enter(door).map_err(HandOverError::Door)?;
    Sender::new(context, passage, handed_over).run(stop).await
}

/// The predecessor's end of a hand-over, with all that is on its way to the successor.
struct Sender<'a> {
    context: &'a HandoverContext,
    handed_over: &'a (dyn Fn() + Sync),
    machine: SenderMachine,
    todo: VecDeque<Do>,
    passage: Passage<FromSuccessor, FromPredecessor>,
    /// The links whose other ends are to answer the Pause, or to switch to the successor: those that were there at that
    /// moment.
    awaited: Vec<Link>,
    /// The state that the app has frozen, for taking back.
    frozen: Option<Frozen>,
    /// The choices that are made here while the successor has a copy of the affinity.
    chosen: Arc<AffinityDelta>,
    /// The clients that are still here, once they leave.
    leaving: Option<Departure>,
    /// The HTTP connections that are still here, once they go.
    http: Option<Retirement>,
    /// The HTTP connections that wait until the successor serves.
    travellers: Vec<Handoff>,
    answers: Answers,
}

/// The way of answers: what the successor has asked is answered into one end, and goes to the successor from the other.
struct Answers {
    to: mpsc::Sender<FromPredecessor>,
    from: mpsc::Receiver<FromPredecessor>,
}

/// A parcel: what goes to the successor next.
enum Parcel {
    Message(FromPredecessor),
    Client(LeavingConnection),
    Http(Handoff),
}

impl<'a> Sender<'a> {
    fn new(
        context: &'a HandoverContext,
        passage: Passage<FromSuccessor, FromPredecessor>,
        handed_over: &'a (dyn Fn() + Sync),
    ) -> Self {
        let (machine, todo) = SenderMachine::new(context.terms(), Instant::now());
        let (to, from) = mpsc::channel(QUESTIONS_MAX);
        Self {
            context,
            handed_over,
            machine,
            todo: todo.into(),
            passage,
            awaited: Vec::new(),
            frozen: None,
            chosen: Arc::default(),
            leaving: None,
            http: None,
            travellers: Vec::new(),
            answers: Answers { to, from },
        }
    }

    async fn run(mut self, stop: &Stop) -> Result<(), HandOverError> {
        loop {
            let seen = tokio::select! {
                biased;
                // Taking back is done to its end.
                () = stop.begun(), if !self.machine.is_over() => Some(Seen::Stopped),
                seen = self.go_further() => seen,
            };
            if let Some(seen) = seen {
                self.todo = self.machine.step(seen, Instant::now()).into();
            }
            if self.todo.is_empty()
                && let Some(outcome) = self.machine.outcome()
            {
                return outcome;
            }
        }
    }

    /// Does the next thing; when there is none, looks at the node and waits.
    async fn go_further(&mut self) -> Option<Seen> {
        if let Some(next) = self.todo.pop_front() {
            return self.carry_out(next).await.unwrap_or_else(|error| Some(Seen::Broken(error)));
        }
        let facts = self.look();
        self.todo = self.machine.step(Seen::Looked(facts.clone()), Instant::now()).into();
        if !self.todo.is_empty() || self.machine.is_over() {
            return None;
        }
        self.wait(&facts).await.unwrap_or_else(|error| Some(Seen::Broken(error)))
    }

    fn look(&self) -> Facts {
        let (awaits, http_left) = (self.machine.awaits(), self.http.is_none());
        self.context.look(awaits, &self.awaited, self.leaving.as_ref(), http_left)
    }

    /// Waits until something happens, and sends what is to be sent. The order is part of the protocol: what the successor
    /// says first, for it may have failed; answers, ways and broadcasts before the next client, who has been answered,
    /// was routed, and has got the broadcasts that are queued.
    async fn wait(&mut self, shown: &Facts) -> io::Result<Option<Seen>> {
        let (context, awaits, due) = (self.context, self.machine.awaits(), self.machine.due());
        let leave = awaits == Awaits::Leave;
        let has_http = self.http.is_some();
        let more_to_tell = self.leaving.as_ref().is_some_and(Departure::has_more_to_tell);
        let parcel = tokio::select! {
            biased;
            said = self.passage.receive(), if awaits != Awaits::Nothing => {
                return Ok(Some(said?.map_or(Seen::Gone, |(said, _)| Seen::Message(said))));
            }
            Some(answered) = self.answers.from.recv(), if leave || awaits == Awaits::Switch => {
                Parcel::Message(answered)
            }
            some = self.chosen.next(CHOICES_AT_ONCE), if leave => Parcel::Message(FromPredecessor::Choices(some)),
            broadcast = context.next_broadcast(), if leave => Parcel::Message(broadcast),
            one = next_client(&mut self.leaving), if leave => Parcel::Client(one),
            next = next_http(&mut self.http), if awaits == Awaits::Http || has_http && leave => match next {
                Some(one) if leave => Parcel::Http(one),
                next => return Ok(self.gathered(next, leave)),
            },
            () = context.changed(awaits, shown), if awaits.has_events() => return Ok(None),
            () = sleep(TELL_EVERY), if leave && more_to_tell => {
                self.leaving.iter_mut().for_each(Departure::tell_more);
                return Ok(None);
            }
            () = until(due) => return Ok(Some(Seen::Passed)),
        };
        self.send(parcel).await?;
        Ok(None)
    }

    /// An HTTP connection waits until the successor serves; after the last one there is none to `leave` any more.
    fn gathered(&mut self, next: Option<Handoff>, leave: bool) -> Option<Seen> {
        if leave {
            self.http = None;
        }
        if next.is_none() {
            return Some(Seen::HttpWaits);
        }
        self.travellers.extend(next);
        None
    }

    async fn carry_out(&mut self, what: Do) -> io::Result<Option<Seen>> {
        match what {
            Do::Say(message) => self.say(&message).await?,
            Do::Begin => {
                let version = self.machine.version().map_or(0, |version| version.0);
                info!("handing over to the successor, in version {version}");
                self.context.begin();
            }
            Do::Pause => {
                self.http = self.context.retire_http();
                self.context.hold_clients();
                self.awaited = self.context.links();
                self.awaited.iter().for_each(Link::pause);
            }
            Do::WarnUnanswered => {
                warn!("not every neighbour has answered the pause; one that hangs is lost soon");
            }
            Do::Freeze => return Ok(Some(self.freeze().await)),
            Do::SendState => self.send_state().await?,
            Do::ClosePorts => {
                self.context.close_ports();
                self.http = self.http.take().or_else(|| self.context.retire_http());
            }
            Do::Retire => {
                self.context.mark_handed_over();
                self.awaited = self.context.links();
                while let Some(one) = self.travellers.pop() {
                    self.send(Parcel::Http(one)).await?;
                }
            }
            Do::WarnUnswitched => {
                let late = unswitched(&self.awaited);
                warn!("clients leave before these have turned to the successor: {late}");
            }
            Do::BeginLeaving => {
                self.leaving = self.context.begin_leaving();
                self.tell_who_stays().await?;
            }
            Do::SayGoodbye => self.leaving.iter_mut().for_each(Departure::say_goodbye),
            Do::Answer(passed) => self.context.answer(&self.answers.to, &passed),
            Do::Broadcast(payload) => self.context.broadcast_to_staying(&payload),
            Do::LastCall => self.context.last_call(),
            Do::WarnLeft => {
                let left = self.context.what_is_left(self.http.is_none());
                warn!("not everything ended in time (drain_s): {left}");
            }
            Do::SendRest => self.send_rest().await?,
            Do::TellHandedOver => (self.handed_over)(),
            Do::TakeBack => self.tell_taken_back().await,
            Do::Thaw => {
                if let Some(frozen) = self.frozen.take() {
                    self.context.thaw(frozen).await;
                }
            }
            Do::GoOn => self.go_on(),
        }
        Ok(None)
    }

    fn go_on(&mut self) {
        // Dropped first: connections that have not been taken are brought back by that.
        (self.leaving, self.http) = (None, None);
        self.context.go_on(std::mem::take(&mut self.travellers));
    }

    async fn freeze(&mut self) -> Seen {
        match self.context.freeze(self.machine.state_by()).await {
            Ok(frozen) => {
                self.frozen = frozen;
                Seen::Frozen
            }
            Err(error) => Seen::FreezeFailed(error.log_text()),
        }
    }

    async fn send_state(&self) -> io::Result<()> {
        self.say_all(self.context.choices(self.chosen.clone())).await?;
        self.say_all(self.context.replicas_and_bindings()).await?;
        self.say_all(self.context.users()).await?;
        for piece in self.frozen.iter().flat_map(|frozen| frozen.bytes.chunks(STATE_PIECE_BYTES)) {
            self.say(&FromPredecessor::State(piece.to_vec())).await?;
        }
        let version = self.frozen.as_ref().map(|frozen| frozen.version);
        self.say(&FromPredecessor::Frozen { version }).await
    }

    async fn tell_who_stays(&self) -> io::Result<()> {
        let staying = self.leaving.as_ref().map(Departure::staying).unwrap_or_default();
        for some in staying.chunks(CHOICES_AT_ONCE) {
            self.say(&FromPredecessor::Stay(some.to_vec())).await?;
        }
        Ok(())
    }

    async fn send_rest(&mut self) -> io::Result<()> {
        while let Some(broadcast) = self.context.take_broadcast() {
            self.say(&broadcast).await?;
        }
        // Questions that are not answered are asked of the successor itself.
        while let Ok(answered) = self.answers.from.try_recv() {
            self.say(&answered).await?;
        }
        // Replicas that were opened here meanwhile.
        self.say_all(self.context.replicas_and_bindings()).await
    }

    /// Sends a parcel; what cannot be sent stays here.
    async fn send(&mut self, parcel: Parcel) -> io::Result<()> {
        match parcel {
            Parcel::Message(message) => self.say(&message).await,
            Parcel::Client(one) => {
                let sent = self.send_client(&one).await;
                if sent.is_err() {
                    self.context.take_back_client(one);
                }
                sent
            }
            Parcel::Http((stream, unread)) => {
                let message = FromPredecessor::Http { unread: unread.clone() };
                let sent = self.say_with(&message, &[stream.as_fd()]).await;
                if sent.is_err() {
                    self.travellers.push((stream, unread));
                }
                sent
            }
        }
    }

    async fn send_client(&self, one: &LeavingConnection) -> io::Result<()> {
        if !one.choices.is_empty() {
            self.say(&FromPredecessor::Choices(one.choices.clone())).await?;
        }
        let record = Box::new(one.record.clone());
        self.say_with(&FromPredecessor::Session(record), &[one.socket.as_fd()]).await
    }

    /// Tells the successor that everything is taken back: one that lives leaves, one that is gone needs to hear
    /// nothing.
    async fn tell_taken_back(&self) {
        let _ = timeout(GREETING_MAX, self.say(&FromPredecessor::TookBack)).await;
    }

    async fn say_all(&self, messages: Vec<FromPredecessor>) -> io::Result<()> {
        for message in &messages {
            self.say(message).await?;
        }
        Ok(())
    }

    async fn say(&self, message: &FromPredecessor) -> io::Result<()> {
        self.say_with(message, &[]).await
    }

    async fn say_with(&self, message: &FromPredecessor, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        say(&self.passage, message, sockets).await
    }
}

/// The next client that leaves; for ever none when there are no clients.
async fn next_client(leaving: &mut Option<Departure>) -> LeavingConnection {
    match leaving {
        Some(leaving) => leaving.next().await,
        None => std::future::pending().await,
    }
}

/// The next HTTP connection that leaves, `None` when that is over. Without a webport the same for ever.
async fn next_http(http: &mut Option<Retirement>) -> Option<Handoff> {
    match http {
        Some(http) => http.next().await,
        None => None,
    }
}

/// Waits until that is due; for ever when nothing is.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
