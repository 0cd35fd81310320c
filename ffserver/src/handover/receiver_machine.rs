//! The successor's half of a hand-over as a pure machine: what was seen and the time go in, what is to be done comes
//! out.
//!
//! ```text
//! Greeting ── Hello ──▶ Taking ── YourTurn ──▶ Prepared ── serve ──▶ Receiving ── Done ──▶ Proving ──▶ Confirming
//!                         ▲ └─ Frozen ─▶ Thawing ┐                      │ the predecessor dies: it serves without
//!                         └──────────────────────┘                      ▼ what it has not been told
//! ```
//!
//! Until the successor serves, a failure ends it: the predecessor goes on. From then on only the predecessor's TookBack
//! does. The shell is `receiver.rs`.

use std::io;
use std::time::Duration;

use ffproto::handover::{AskAnswer, FromPredecessor, FromSuccessor, ProcessIdentity, Spoken};
use ffproto::{NodeName, Version, Versions};
use tokio::time::Instant;

use super::sender_machine::{GREETING_MAX, MARGIN, is_kin};

/// Why a successor cannot take over. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The predecessor did not come, or has closed the door again.
    #[error("the old process of `{0}` does not hand over")]
    Alone(NodeName),
    /// The master that has started this process is gone: the predecessor goes on.
    #[error("the master is gone that has started this process")]
    NoMaster,
    /// Another process came to the door.
    #[error("{0} is not the old process of this node")]
    Stranger(String),
    /// Both processes speak no version in common: nothing has been moved.
    #[error(
        "the old process speaks {theirs} of the protocol between nodes, this one {ours}: nothing is taken over"
    )]
    Versions {
        /// The old process's.
        theirs: Versions,
        /// This one's.
        ours: Versions,
    },
    /// The predecessor froze a state that this app cannot take.
    #[error("the old process has a frozen state of version {0}, and the app has no thaw hook")]
    NoThaw(u32),
    /// Clients speak something with the predecessor that this program does not have.
    #[error("clients speak {0} with the old process, and this program does not have that")]
    NotSpoken(String),
    /// The app's thaw hook failed.
    #[error("the app's thaw hook failed: {0}")]
    Thaw(String),
    /// The door broke.
    #[error("the connection to the old process broke")]
    Broken(#[from] io::Error),
}

/// An event of the hand-over, as the successor sees it.
#[derive(Debug)]
pub(super) enum Seen {
    /// The predecessor says something.
    Message(FromPredecessor),
    /// The predecessor has closed the door.
    Gone,
    /// The connection to the predecessor broke while something was awaited.
    Broken(io::Error),
    /// The connection broke while something was sent.
    NotSaid(io::Error),
    /// The predecessor hears no question any more; what it has sent is taken until then, at least what has come.
    NotAsked { until: Instant },
    /// The app has taken the frozen state, or the text of its error.
    Thawed(Result<(), String>),
    /// This process is linked, and accepts.
    Serves,
    /// Time has passed, and nothing else has happened.
    Passed,
    /// The node was told to stop.
    Stopped,
}

/// A thing to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// Says something to the predecessor.
    Say(FromSuccessor),
    /// As [`Do::Say`], when a failure to send it changes nothing any more.
    TryToSay(FromSuccessor),
    /// Takes what the predecessor knows; with a client or an HTTP connection its socket.
    Take(FromPredecessor),
    /// Runs the app's hook; [`Seen::Thawed`] follows.
    Thaw {
        version: u32,
        bytes: Vec<u8>,
    },
    /// A question has been answered by the predecessor.
    Answered {
        number: u64,
        answer: AskAnswer,
    },
    WarnDied,
    /// Nothing more comes: what waits for more does not wait any longer.
    AllArrived,
    /// Sessions that have ended at the predecessor are forgotten: no other node tells this one of their end.
    ForgetEnded,
}

#[derive(Debug)]
enum Stage {
    /// The predecessor is to say who it is.
    Greeting {
        until: Instant,
    },
    /// The predecessor sends what it knows, and its frozen state, in pieces.
    Taking {
        until: Instant,
        state: Vec<u8>,
    },
    /// The app takes the state.
    Thawing {
        until: Instant,
    },
    /// It is this process's turn, which opens its ports and links.
    Prepared,
    /// This process serves; what the old one still has comes.
    Receiving {
        proven: Instant,
        /// The end of the wait for a predecessor that hears no question any more.
        until: Option<Instant>,
    },
    /// Nothing more comes; the predecessor stands by.
    Proving {
        until: Instant,
    },
    /// The predecessor leaves when it has read that this one has proved itself; or it takes back after all.
    Confirming {
        until: Instant,
    },
    Over(Option<TakeOverError>),
}

/// What of the app and the config the successor's half depends on.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    /// Whether the app has a hook that takes a frozen state.
    pub(super) thaws: bool,
    /// The names of the protocols of clients.
    pub(super) protocols: Vec<&'static str>,
    /// The name of the transport of clients.
    pub(super) transport: &'static str,
    /// `limits.prove_ms`.
    pub(super) prove: Duration,
}

/// The machine of the successor's half.
#[derive(Debug)]
pub(super) struct ReceiverMachine {
    ours: ProcessIdentity,
    abilities: Abilities,
    /// The time at which the state is to be here.
    start_by: Instant,
    stage: Stage,
    /// The version that is spoken, once the predecessor has said who it is: what a later one has brought is not said to it.
    version: Option<Version>,
    out: Vec<Do>,
}

impl ReceiverMachine {
    /// A machine for a process that has come to the door; the state is to be here at `start_by`.
    pub(super) fn new(ours: ProcessIdentity, abilities: Abilities, start_by: Instant, now: Instant) -> Self {
        let stage = Stage::Greeting { until: now + GREETING_MAX };
        Self { ours, abilities, start_by, stage, version: None, out: Vec::new() }
    }

    /// Takes an event. Returns what is to be done about it.
    pub(super) fn step(&mut self, seen: Seen, now: Instant) -> Vec<Do> {
        match seen {
            Seen::Message(said) => self.receive(said, now),
            Seen::Gone => self.lost(self.alone()),
            Seen::Broken(error) => self.lost(error.into()),
            // The predecessor has taken back before it could hear that this process serves.
            Seen::NotSaid(_) if self.may_ask() => self.end(Some(self.alone())),
            Seen::NotSaid(error) => self.lost(error.into()),
            Seen::NotAsked { until } => self.not_asked(until),
            Seen::Thawed(outcome) => self.thawed(outcome),
            Seen::Serves => self.serves(now),
            Seen::Passed => self.look(now),
            Seen::Stopped => self.stop(),
        }
        std::mem::take(&mut self.out)
    }

    /// The time at which the machine is to be stepped even if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Greeting { until }
            | Stage::Taking { until, .. }
            | Stage::Proving { until }
            | Stage::Confirming { until } => Some(until),
            Stage::Receiving { until, .. } => until,
            Stage::Thawing { .. } | Stage::Prepared | Stage::Over(_) => None,
        }
    }

    /// The time at which the predecessor's state is to be here, and with the app.
    pub(super) fn start_by(&self) -> Instant {
        self.start_by
    }

    /// The version that both processes speak, once the predecessor has said who it is.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whether this process has everything that it needs to serve.
    pub(super) fn is_prepared(&self) -> bool {
        matches!(self.stage, Stage::Prepared)
    }

    /// Whether the predecessor still answers questions.
    pub(super) fn may_ask(&self) -> bool {
        matches!(self.stage, Stage::Receiving { until: None, .. })
    }

    /// The outcome of the hand-over, once and when it has ended; an error means that the predecessor serves on.
    pub(super) fn outcome(&mut self) -> Option<Result<(), TakeOverError>> {
        match &mut self.stage {
            Stage::Over(error) => Some(error.take().map_or(Ok(()), Err)),
            _ => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    fn alone(&self) -> TakeOverError {
        TakeOverError::Alone(self.ours.name.clone())
    }

    fn receive(&mut self, said: FromPredecessor, now: Instant) {
        match (&mut self.stage, said) {
            (Stage::Greeting { .. }, FromPredecessor::Hello(theirs)) if is_kin(&self.ours, &theirs) => {
                let (ours, theirs) = (self.ours.versions, theirs.versions);
                self.version = ours.with(theirs);
                if self.version.is_none() {
                    let error = TakeOverError::Versions { theirs, ours };
                    self.out.push(Do::TryToSay(FromSuccessor::Failed { reason: error.to_string() }));
                    return self.end(Some(error));
                }
                self.stage = Stage::Taking { until: self.start_by, state: Vec::new() };
                self.out.push(Do::Say(FromSuccessor::Hello(self.ours.clone())));
            }
            (Stage::Greeting { .. }, FromPredecessor::Speaks(spoken)) => self.check_spoken(&spoken),
            (Stage::Taking { .. }, said) => self.receive_state(said),
            (Stage::Receiving { proven, .. }, FromPredecessor::Done) => {
                self.stage = Stage::Proving { until: *proven };
                self.out.extend([Do::AllArrived, Do::ForgetEnded]);
                self.look(now);
            }
            (
                Stage::Receiving { .. } | Stage::Proving { .. } | Stage::Confirming { .. },
                FromPredecessor::TookBack,
            ) => {
                self.end(Some(self.alone()));
            }
            (Stage::Receiving { .. }, said) => self.receive_rest(said),
            (Stage::Confirming { .. }, _) => self.end(None),
            (Stage::Proving { .. } | Stage::Over(_), _) => {}
            (_, other) => self.fail(TakeOverError::Stranger(format!("{other:?}"))),
        }
    }

    /// Nothing has begun: the predecessor waits for the greeting.
    fn check_spoken(&mut self, spoken: &Spoken) {
        let Abilities { protocols, transport, .. } = &self.abilities;
        let unknown = spoken.protocols.iter().filter(|name| !protocols.contains(&name.as_str()));
        let mut missing: Vec<_> = unknown.map(|name| format!("`{name}`")).collect();
        let other = spoken.transport.as_ref().filter(|name| name != transport);
        missing.extend(other.map(|name| format!("over `{name}`")));
        if !missing.is_empty() {
            let error = TakeOverError::NotSpoken(missing.join(", "));
            self.out.push(Do::TryToSay(FromSuccessor::Failed { reason: error.to_string() }));
            self.end(Some(error));
        }
    }

    fn receive_state(&mut self, said: FromPredecessor) {
        let Stage::Taking { until, state } = &mut self.stage else { return };
        match said {
            FromPredecessor::Choices(_)
            | FromPredecessor::Replicas(_)
            | FromPredecessor::Bindings(_)
            | FromPredecessor::Users(_) => {
                self.out.push(Do::Take(said));
            }
            FromPredecessor::State(piece) => state.extend_from_slice(&piece),
            FromPredecessor::Frozen { version: None } => self.out.push(Do::Say(FromSuccessor::Thawed)),
            FromPredecessor::Frozen { version: Some(version) } if !self.abilities.thaws => {
                self.fail(TakeOverError::NoThaw(version));
            }
            FromPredecessor::Frozen { version: Some(version) } => {
                let bytes = std::mem::take(state);
                self.stage = Stage::Thawing { until: *until };
                self.out.push(Do::Thaw { version, bytes });
            }
            FromPredecessor::YourTurn => {
                self.stage = Stage::Prepared;
            }
            FromPredecessor::TookBack => self.fail(self.alone()),
            other => self.fail(TakeOverError::Stranger(format!("{other:?}"))),
        }
    }

    fn receive_rest(&mut self, said: FromPredecessor) {
        match said {
            FromPredecessor::Choices(_)
            | FromPredecessor::Replicas(_)
            | FromPredecessor::Bindings(_)
            | FromPredecessor::Session(_)
            | FromPredecessor::Http { .. }
            | FromPredecessor::Broadcast(_)
            | FromPredecessor::Stay(_) => self.out.push(Do::Take(said)),
            FromPredecessor::Answered { number, answer } => self.out.push(Do::Answered { number, answer }),
            _ => {}
        }
    }

    fn thawed(&mut self, outcome: Result<(), String>) {
        let Stage::Thawing { until } = self.stage else { return };
        match outcome {
            Ok(()) => {
                self.stage = Stage::Taking { until, state: Vec::new() };
                self.out.push(Do::Say(FromSuccessor::Thawed));
            }
            Err(why) => self.fail(TakeOverError::Thaw(why)),
        }
    }

    fn serves(&mut self, now: Instant) {
        if self.is_prepared() {
            self.stage = Stage::Receiving { proven: now + self.abilities.prove, until: None };
            self.out.push(Do::Say(FromSuccessor::Serves));
        }
    }

    /// What the predecessor has sent before is still to be taken: its end comes behind it, or nothing does.
    fn not_asked(&mut self, by: Instant) {
        if let Stage::Receiving { until, .. } = &mut self.stage {
            *until = Some(by);
        }
    }

    fn look(&mut self, now: Instant) {
        match self.stage {
            Stage::Greeting { until } | Stage::Taking { until, .. } if now >= until => {
                self.fail(self.alone());
            }
            Stage::Receiving { until: Some(until), .. } if now >= until => self.lost(self.alone()),
            Stage::Proving { until } if now >= until => {
                self.stage = Stage::Confirming { until: now + MARGIN };
                // The predecessor may have been told to leave by somebody else meanwhile.
                self.out.push(Do::TryToSay(FromSuccessor::Proven));
            }
            Stage::Confirming { until } if now >= until => self.end(None),
            _ => {}
        }
    }

    /// The predecessor is not there any more.
    fn lost(&mut self, error: TakeOverError) {
        match self.stage {
            // The predecessor may be killed while it hands over: what it had not sent is lost with it.
            Stage::Receiving { .. } => {
                self.out.extend([Do::WarnDied, Do::AllArrived]);
                self.end(None);
            }
            Stage::Proving { .. } | Stage::Confirming { .. } => self.end(None),
            _ => self.fail(error),
        }
    }

    /// Stops: without a word the predecessor would take the end of this process for a failure, and serve again.
    fn stop(&mut self) {
        match self.stage {
            Stage::Receiving { .. } | Stage::Proving { .. } | Stage::Confirming { .. } => {
                self.out.push(Do::TryToSay(FromSuccessor::Proven));
                self.end(None);
            }
            _ => self.fail(self.alone()),
        }
    }

    /// Fails: this process cannot go on; one that has greeted tells why.
    fn fail(&mut self, error: TakeOverError) {
        if self.is_over() {
            return;
        }
        if !matches!(self.stage, Stage::Greeting { .. }) {
            self.out.push(Do::TryToSay(FromSuccessor::Failed { reason: error.to_string() }));
        }
        self.end(Some(error));
    }

    fn end(&mut self, error: Option<TakeOverError>) {
        self.stage = Stage::Over(error);
    }
}

#[cfg(test)]
mod tests;
