//! The predecessor's half of a hand-over as a pure machine: what was seen and the time go in, what is to be done comes
//! out.
//!
//! ```text
//!            Hello, the app freezes           answered          quiet              HTTP waits       frozen
//! Greeting ─────────────────────────▶ Pausing ─────────▶ Ending ─────▶ GatheringHttp ────────▶ Freezing ─┐
//!    └───────── Hello ──────────────────────────────────────────────────────────────────────────────────▶ Thawing
//!                                    the point after which nobody waits                          Thawed │
//! Proving ◀───────── Leaving ◀────────────────── Turning ◀────────────────────── Serves ────── Starting ◀┘
//!    └─ Proven, or silence ─▶ Lingering ─▶ handed over
//! ```
//!
//! Every failure leads to the same end: the node goes on as before. The shell (`sender.rs`) waits for what
//! [`SenderMachine::awaits`] names, looks at the node before it waits, and does what it is told in that order; when
//! that fails, it drops the rest and says so.

use std::io;
use std::time::Duration;

use ffproto::handover::{FromPredecessor, FromSuccessor, ProcessIdentity, Spoken};
use ffproto::{Version, Versions};
use tokio::time::Instant;

use crate::ops::session_requests::PassedBack;

/// The other process answers a greeting within this, or is none of ours.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(2);
/// How long a neighbour may take to answer a Pause; one that hangs is lost by its heartbeat soon.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a successor may take to serve when nobody waits for it.
const SERVES_MAX: Duration = Duration::from_secs(10);
/// The time for which a process that has ended everything passes on what its neighbours have just sent.
const LINGER: Duration = Duration::from_millis(50);
/// The time before the end of the drain at which clients that cannot leave are told the end, at most.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How long the successor's last word may be late.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// Why a process keeps, or takes back, what it should hand over. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("the successor is not there: {0}")]
    Door(#[source] io::Error),
    #[error("somebody else waits at the door: {0}")]
    Stranger(String),
    /// Both processes speak no version in common, and the successor has not seen that itself: nothing has been moved.
    #[error(
        "the successor speaks {theirs} of the protocol between nodes, this process {ours}: nothing is handed over"
    )]
    Versions { theirs: Versions, ours: Versions },
    #[error("{0}")]
    Failed(String),
    #[error("the successor has ended")]
    Ended,
    #[error("the connection to the successor broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the successor did not {what} within {ms} ms")]
    TooSlow { what: &'static str, ms: u128 },
    #[error("{handlers} handlers still ran {ms} ms after the pause began (limits.park_ms): {waits}")]
    Busy { handlers: usize, waits: String, ms: u128 },
    #[error("the app's freeze hook failed: {0}")]
    Freeze(String),
    #[error("the node was told to stop")]
    Stopped,
}

/// The terms of a hand-over: what of the app and the config it depends on.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) ours: ProcessIdentity,
    /// Whether the app has a state that is frozen: everything pauses first.
    pub(super) freezes: bool,
    pub(super) has_clients: bool,
    /// Whether there may be clients whose connections cannot leave.
    pub(super) drains: bool,
    /// What clients speak that not every release has.
    pub(super) speaks: Spoken,
    /// `limits.park_ms`.
    pub(super) park: Duration,
    /// `drain_s`.
    pub(super) drain: Duration,
    /// `limits.prove_ms`.
    pub(super) prove: Duration,
}

/// The facts that a look at the node has shown. Only what the machine awaits is looked at; the rest is false.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Every neighbour has answered the Pause.
    pub(super) answered: bool,
    /// Every neighbour sends what is new to the successor.
    pub(super) switched: bool,
    /// Every child sends what is new to the successor.
    pub(super) children_switched: bool,
    /// No client is here any more.
    pub(super) clients_left: bool,
    /// No HTTP connection is here any more.
    pub(super) http_left: bool,
    /// Nothing runs here, for nobody.
    pub(super) quiet: bool,
    /// Handlers that run.
    pub(super) handlers: usize,
    /// Whether messages wait for other nodes.
    pub(super) parked: bool,
    /// Neighbours whose answers are waited for.
    pub(super) answers_of: Vec<String>,
}

/// An event of the hand-over, as the predecessor sees it.
#[derive(Debug)]
pub(super) enum Seen {
    /// The successor says something.
    Message(FromSuccessor),
    /// The successor has closed the door.
    Gone,
    /// The connection to the successor broke, while reading or while doing what was to be done.
    Broken(io::Error),
    /// The freeze hook has ended; the shell has the state.
    Frozen,
    /// The freeze hook failed.
    FreezeFailed(String),
    /// Every HTTP connection waits for the successor.
    HttpWaits,
    /// The node looks like this now.
    Looked(Facts),
    /// What was due is, and nothing else has happened: whoever was ready was taken.
    Passed,
    /// The node was told to stop.
    Stopped,
}

/// A thing to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// Says something to the successor.
    Say(FromPredecessor),
    /// The hand-over has begun.
    Begin,
    /// Neighbours, clients and HTTP connections begin nothing new.
    Pause,
    WarnUnanswered,
    /// Runs the app's hook; [`Seen::Frozen`] or [`Seen::FreezeFailed`] follows.
    Freeze,
    /// Sends what is known here, and the frozen state.
    SendState,
    /// Who connects from now on waits for the successor; HTTP connections wait for it between two requests.
    ClosePorts,
    /// The successor serves: this process is the old one now, and gives the HTTP connections away that wait.
    Retire,
    WarnUnswitched,
    /// Clients leave from now on.
    BeginLeaving,
    /// Tells clients that could not leave the end.
    SayGoodbye,
    /// Answers a question of the successor, or does what it passes back.
    Answer(PassedBack),
    /// Sends a message for many to the clients that stay.
    Broadcast(Vec<u8>),
    /// Tells the neighbours that nothing new comes from here.
    LastCall,
    WarnLeft,
    /// Sends what is left: broadcasts, answers, and what was opened here meanwhile.
    SendRest,
    /// Tells the master that everything is handed over.
    TellHandedOver,
    /// Tells the successor to leave, if it lives.
    TakeBack,
    /// The app gets its frozen state again.
    Thaw,
    /// Everything goes on as before the hand-over.
    GoOn,
}

/// The events that the shell waits for, beside the time and the word to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Nothing else: the successor has said its last word.
    Nothing,
    /// The successor's word.
    Word,
    /// The successor's word, and that the node comes to rest.
    Rest,
    /// The successor's word, and the HTTP connections.
    Http,
    /// The successor's word, answers for it, and that the neighbours switch.
    Switch,
    /// The successor's word, everything that goes to it, and that nothing is left.
    Leave,
}

impl Awaits {
    /// Whether the node's own events matter.
    pub(super) fn has_events(self) -> bool {
        matches!(self, Awaits::Rest | Awaits::Switch | Awaits::Leave)
    }
}

#[derive(Debug)]
enum Stage {
    /// The successor is to say who it is.
    Greeting { until: Instant },
    /// The neighbours are to answer the Pause.
    Pausing { since: Instant, until: Instant, quiet_by: Instant },
    /// Requests that run come to their end.
    Ending { since: Instant, until: Instant },
    /// Requests of routes end as well; a stream may last, and is not waited for longer.
    GatheringHttp { until: Instant },
    /// The app's hook runs.
    Freezing,
    /// The successor is to take the state.
    Thawing { until: Instant },
    /// The successor is to serve.
    Starting { until: Instant },
    /// What neighbours have sent here for a session is done before the session leaves; what they send from now on
    /// waits at the successor.
    Turning { until: Instant, deadline: Instant },
    /// Everything that is here goes to the successor.
    Leaving {
        deadline: Instant,
        /// The time at which clients that cannot leave are told the end; `None` when they have been.
        goodbye: Option<Instant>,
        called_last: bool,
    },
    /// The successor is to prove itself.
    Proving { until: Instant, lingers: Instant },
    /// The successor has said its last word; what neighbours have just sent is passed on.
    Lingering { until: Instant, verdict: Option<HandOverError> },
    /// Handed over, or not, and why.
    Over(Option<HandOverError>),
}

/// The machine of the predecessor's half.
#[derive(Debug)]
pub(super) struct SenderMachine {
    terms: Terms,
    begun: Instant,
    stage: Stage,
    /// The version that is spoken, once the successor has said who it is: what a later one has brought is not said to it.
    version: Option<Version>,
    /// Whether the app has frozen its state.
    frozen: bool,
    out: Vec<Do>,
}

impl SenderMachine {
    /// A machine at the beginning of a hand-over, with the first things to do.
    pub(super) fn new(terms: Terms, now: Instant) -> (Self, Vec<Do>) {
        let mut todo = Vec::new();
        // Also when nothing of it is spoken: an older successor, which could not read which sessions stay, ends here.
        if terms.drains || terms.speaks != Spoken::default() {
            todo.push(Do::Say(FromPredecessor::Speaks(terms.speaks.clone())));
        }
        todo.push(Do::Say(FromPredecessor::Hello(terms.ours.clone())));
        let stage = Stage::Greeting { until: now + GREETING_MAX };
        (Self { terms, begun: now, stage, version: None, frozen: false, out: Vec::new() }, todo)
    }

    /// Takes an event. Returns what is to be done about it.
    pub(super) fn step(&mut self, seen: Seen, now: Instant) -> Vec<Do> {
        match seen {
            Seen::Message(said) => self.receive(said, now),
            Seen::Gone => self.lost(HandOverError::Ended, now),
            Seen::Broken(error) => self.lost(error.into(), now),
            Seen::Frozen => self.froze(),
            Seen::FreezeFailed(why) => self.fail(HandOverError::Freeze(why)),
            Seen::HttpWaits => self.freeze(),
            Seen::Looked(facts) => self.look(&facts, now),
            Seen::Passed => self.pass(now),
            Seen::Stopped => self.stop(),
        }
        std::mem::take(&mut self.out)
    }

    /// The events that may happen next.
    pub(super) fn awaits(&self) -> Awaits {
        match self.stage {
            Stage::Greeting { .. }
            | Stage::Freezing
            | Stage::Thawing { .. }
            | Stage::Starting { .. }
            | Stage::Proving { .. } => Awaits::Word,
            Stage::Pausing { .. } | Stage::Ending { .. } => Awaits::Rest,
            Stage::GatheringHttp { .. } => Awaits::Http,
            Stage::Turning { .. } => Awaits::Switch,
            Stage::Leaving { .. } => Awaits::Leave,
            Stage::Lingering { .. } | Stage::Over(_) => Awaits::Nothing,
        }
    }

    /// The time at which the machine is to be stepped even if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Greeting { until }
            | Stage::Pausing { until, .. }
            | Stage::Ending { until, .. }
            | Stage::GatheringHttp { until }
            | Stage::Thawing { until }
            | Stage::Starting { until }
            | Stage::Turning { until, .. }
            | Stage::Leaving { goodbye: Some(until), .. }
            | Stage::Leaving { deadline: until, goodbye: None, .. }
            | Stage::Proving { until, .. }
            | Stage::Lingering { until, .. } => Some(until),
            Stage::Freezing | Stage::Over(_) => None,
        }
    }

    /// The outcome of the hand-over, once and when it has ended: everything that is to be done for that has been told.
    pub(super) fn outcome(&mut self) -> Option<Result<(), HandOverError>> {
        match &mut self.stage {
            Stage::Over(error) => Some(error.take().map_or(Ok(()), Err)),
            _ => None,
        }
    }

    /// The version that both processes speak, once the successor has said who it is.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The time at which neighbours park no longer what they have for an app that freezes: by then the successor is to
    /// have its state.
    pub(super) fn state_by(&self) -> Instant {
        self.begun + self.terms.park
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    fn receive(&mut self, said: FromSuccessor, now: Instant) {
        match (&self.stage, said) {
            (Stage::Greeting { .. }, FromSuccessor::Hello(theirs)) if self.is_successor(&theirs) => {
                self.greeted(theirs.versions, now);
            }
            (Stage::Greeting { .. }, FromSuccessor::Failed { reason }) => {
                self.fail(HandOverError::Failed(reason))
            }
            (Stage::Greeting { .. }, other) => self.fail(HandOverError::Stranger(format!("{other:?}"))),
            (Stage::Thawing { until }, FromSuccessor::Thawed) => {
                self.stage = Stage::Starting { until: *until };
                self.out.extend([Do::ClosePorts, Do::Say(FromPredecessor::YourTurn)]);
            }
            (Stage::Starting { .. }, FromSuccessor::Serves) => self.served(now),
            (Stage::Turning { .. } | Stage::Leaving { .. }, said) => self.receive_leaving(said),
            // A question that is not answered is asked of the successor itself.
            (
                Stage::Proving { .. },
                FromSuccessor::Asked { .. } | FromSuccessor::Passed { .. } | FromSuccessor::Broadcast(_),
            )
            | (Stage::Lingering { .. } | Stage::Over(_), _) => {}
            (Stage::Proving { .. }, FromSuccessor::Proven) => self.linger(None, now),
            (Stage::Proving { .. }, FromSuccessor::Failed { reason }) => {
                self.linger(Some(HandOverError::Failed(reason)), now);
            }
            (Stage::Proving { .. }, _) => self.linger(Some(HandOverError::Ended), now),
            (_, FromSuccessor::Failed { reason }) => self.fail(HandOverError::Failed(reason)),
            (_, other) => self.fail(HandOverError::Stranger(format!("{other:?}"))),
        }
    }

    /// A successor that serves asks, or fails; or it is told to stop, and then this process has nothing to wait for
    /// either.
    fn receive_leaving(&mut self, said: FromSuccessor) {
        match said {
            FromSuccessor::Asked { number, session, body } => {
                self.out.push(Do::Answer(PassedBack { number, session, command: None, body }));
            }
            FromSuccessor::Passed { number, session, command, body } => {
                self.out.push(Do::Answer(PassedBack { number, session, command: Some(command), body }));
            }
            FromSuccessor::Broadcast(payload) => self.out.push(Do::Broadcast(payload)),
            FromSuccessor::Failed { reason } => self.fail(HandOverError::Failed(reason)),
            FromSuccessor::Proven => self.stage = Stage::Over(None),
            _ => {}
        }
    }

    fn is_successor(&self, theirs: &ProcessIdentity) -> bool {
        is_kin(&self.terms.ours, theirs) && theirs.incarnation > self.terms.ours.incarnation
    }

    fn greeted(&mut self, theirs: Versions, now: Instant) {
        let ours = self.terms.ours.versions;
        self.version = ours.with(theirs);
        if self.version.is_none() {
            return self.fail(HandOverError::Versions { theirs, ours });
        }
        self.out.push(Do::Begin);
        if !self.terms.freezes {
            self.stage = Stage::Thawing { until: self.begun + SERVES_MAX };
            return self.out.push(Do::SendState);
        }
        let quiet_by = self.begun + self.terms.park / 2;
        self.stage = Stage::Pausing { since: now, until: now + PAUSE_MAX, quiet_by };
        self.out.push(Do::Pause);
    }

    /// Lets time pass: for everything else there is a look.
    fn pass(&mut self, now: Instant) {
        if let Stage::GatheringHttp { until } = self.stage
            && now >= until
        {
            self.freeze();
        }
    }

    fn freeze(&mut self) {
        if matches!(self.stage, Stage::GatheringHttp { .. }) {
            self.stage = Stage::Freezing;
            self.out.push(Do::Freeze);
        }
    }

    fn froze(&mut self) {
        self.frozen = true;
        self.stage = Stage::Thawing { until: self.state_by() };
        self.out.push(Do::SendState);
    }

    fn served(&mut self, now: Instant) {
        let deadline = now + self.terms.drain;
        self.out.push(Do::Retire);
        if self.terms.has_clients {
            self.stage = Stage::Turning { until: now + PAUSE_MAX, deadline };
        } else {
            self.leave(deadline);
        }
    }

    fn leave(&mut self, deadline: Instant) {
        let Terms { drain, drains, freezes, .. } = self.terms;
        let goodbye = (drains && !freezes).then(|| deadline - GOODBYE_MAX.min(drain / 4));
        self.stage = Stage::Leaving { deadline, goodbye, called_last: false };
        self.out.push(Do::BeginLeaving);
        // An app's frozen state is the successor's by now: nothing here may change it for those who stay.
        if drains && freezes {
            self.out.push(Do::SayGoodbye);
        }
    }

    fn look(&mut self, facts: &Facts, now: Instant) {
        match self.stage {
            Stage::Greeting { until } if now >= until => self.too_slow("answer", GREETING_MAX),
            Stage::Pausing { since, until, quiet_by } if facts.answered || now >= until => {
                if !facts.answered {
                    self.out.push(Do::WarnUnanswered);
                }
                self.stage = Stage::Ending { since, until: quiet_by };
                self.look(facts, now);
            }
            Stage::Ending { since, until } if facts.quiet => {
                self.stage =
                    Stage::GatheringHttp { until: since + until.saturating_duration_since(since) / 2 };
            }
            Stage::Ending { since, until } if now >= until => self.fail(busy(facts, now - since)),
            Stage::Thawing { until } if now >= until => {
                self.too_slow("take the state over", now - self.begun)
            }
            Stage::Starting { until } if now >= until => self.too_slow("serve", now - self.begun),
            Stage::Turning { until, deadline } if facts.switched || now >= until => {
                if !facts.switched {
                    self.out.push(Do::WarnUnswitched);
                }
                self.leave(deadline);
            }
            Stage::Leaving { .. } => self.look_leaving(facts, now),
            // A successor that lives and is silent is trusted after all: it serves.
            Stage::Proving { until, .. } if now >= until => self.linger(None, now),
            Stage::Lingering { until, .. } if now >= until => self.conclude(),
            _ => {}
        }
    }

    fn look_leaving(&mut self, facts: &Facts, now: Instant) {
        let Stage::Leaving { deadline, goodbye, called_last } = &mut self.stage else { return };
        if goodbye.is_some_and(|at| now >= at) {
            *goodbye = None;
            self.out.push(Do::SayGoodbye);
        }
        let deadline = *deadline;
        // No client is left, and no child that sends. When a parent is being replaced, too, its predecessor and this
        // one would else wait for each other's last word.
        let begins_nothing = facts.clients_left && facts.http_left && facts.children_switched && facts.quiet;
        // Also when nothing was left from the begin on: neighbours that are replaced next wait for it.
        if begins_nothing && !std::mem::replace(called_last, true) {
            self.out.push(Do::LastCall);
        }
        let nothing_left = begins_nothing && facts.switched;
        if !nothing_left && now < deadline {
            return;
        }
        if !nothing_left {
            self.out.push(Do::WarnLeft);
        }
        self.stage = Stage::Proving { until: now + self.terms.prove + MARGIN, lingers: now + LINGER };
        self.out.extend([Do::SendRest, Do::Say(FromPredecessor::Done), Do::TellHandedOver]);
    }

    fn linger(&mut self, verdict: Option<HandOverError>, now: Instant) {
        let Stage::Proving { lingers, .. } = self.stage else { return };
        self.stage = Stage::Lingering { until: lingers, verdict };
        if now >= lingers {
            self.conclude();
        }
    }

    fn conclude(&mut self) {
        let Stage::Lingering { verdict, .. } = &mut self.stage else { return };
        match verdict.take() {
            None => self.stage = Stage::Over(None),
            Some(error) => self.fail(error),
        }
    }

    fn too_slow(&mut self, what: &'static str, since: Duration) {
        self.fail(HandOverError::TooSlow { what, ms: since.as_millis() });
    }

    /// The successor is not there any more.
    fn lost(&mut self, error: HandOverError, now: Instant) {
        match self.stage {
            Stage::Proving { .. } => self.linger(Some(error), now),
            Stage::Lingering { .. } => {}
            _ => self.fail(error),
        }
    }

    /// Stops: a successor that serves keeps what it has; before that everything is taken back, for this process to end
    /// it in good order. Nothing is said: what was being said may have been cut off in the middle.
    fn stop(&mut self) {
        match self.stage {
            Stage::Over(_) => {}
            _ if self.serves() => self.stage = Stage::Over(None),
            _ => self.go_on(HandOverError::Stopped),
        }
    }

    fn serves(&self) -> bool {
        let stage = &self.stage;
        matches!(stage, Stage::Turning { .. } | Stage::Leaving { .. })
            || matches!(stage, Stage::Proving { .. } | Stage::Lingering { .. })
    }

    fn fail(&mut self, error: HandOverError) {
        if self.is_over() {
            return;
        }
        // A successor that has not taken a message in time would read this as the rest of that.
        let hangs = matches!(&error, HandOverError::Broken(e) if e.kind() == io::ErrorKind::TimedOut);
        // Earlier the end of the connection says the same.
        let hears = self.serves() || matches!(self.stage, Stage::Thawing { .. } | Stage::Starting { .. });
        if hears && !hangs {
            self.out.push(Do::TakeBack);
        }
        self.go_on(error);
    }

    fn go_on(&mut self, error: HandOverError) {
        if self.frozen {
            self.out.push(Do::Thaw);
        }
        self.out.push(Do::GoOn);
        self.stage = Stage::Over(Some(error));
    }
}

fn busy(facts: &Facts, since: Duration) -> HandOverError {
    let waits = if facts.answers_of.is_empty() {
        "for nothing that the framework sees".to_owned()
    } else {
        format!("for answers of {}", facts.answers_of.join(", "))
    };
    HandOverError::Busy { handlers: facts.handlers, waits, ms: since.as_millis() }
}

/// Whether both are processes of one node.
pub(super) fn is_kin(ours: &ProcessIdentity, theirs: &ProcessIdentity) -> bool {
    ours.cluster == theirs.cluster && ours.name == theirs.name
}

#[cfg(test)]
mod tests;
