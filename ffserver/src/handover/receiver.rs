//! The successor's half of a hand-over, which takes over what the predecessor (`sender.rs`) hands it, serves, and
//! leaves again when the predecessor takes back. What follows from what is decided in `receiver_machine.rs`; here it is
//! done.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use ffnet::door::Passage;
use ffproto::handover::{FromPredecessor, FromSuccessor};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::context::{HandoverContext, Successor};
use super::questions::Questions;
pub use super::receiver_machine::TakeOverError;
use super::receiver_machine::{Do, ReceiverMachine, Seen};
use super::say::{SAY_MAX, say};
use super::sender::until;
use super::sender_machine::GREETING_MAX;
use crate::app::hooks::{Frozen, Hooks};
use crate::identity::stop::Stop;
use crate::node::Node;

/// The successor's end of a connection through a door.
pub(crate) type DoorToPredecessor = Passage<FromPredecessor, FromSuccessor>;

/// The receiver of a hand-over: a successor that has the state and may serve.
pub(crate) struct Receiver {
    predecessor: Predecessor,
    questions: Questions,
}

/// The predecessor at the other end of the door, and how far the hand-over is.
struct Predecessor {
    passage: DoorToPredecessor,
    machine: ReceiverMachine,
    todo: VecDeque<Do>,
}

/// An event for the machine, and the socket that came with it.
type Event = (Seen, Option<OwnedFd>);

impl Receiver {
    /// Takes the state of the predecessor, which has come to the door, until it is this process's turn.
    pub(crate) async fn new(
        passage: DoorToPredecessor,
        node: &Node,
        hooks: &Hooks,
        transport: &'static str,
        until: Instant,
    ) -> Result<Self, TakeOverError> {
        let successor = Successor { node, hooks, transport };
        let mut predecessor =
            Predecessor { passage, machine: successor.machine(until), todo: VecDeque::new() };
        loop {
            if let Some(next) = predecessor.todo.pop_front() {
                let seen = predecessor.prepare(next, &successor).await;
                seen.into_iter().for_each(|seen| predecessor.step(seen));
            } else if let Some(outcome) = predecessor.machine.outcome() {
                // The process has not served: there is no good end.
                outcome?;
                return Err(TakeOverError::Alone(node.name().clone()));
            } else if predecessor.machine.is_prepared() {
                let version = predecessor.machine.version().map_or(0, |version| version.0);
                info!("taking over from the old process, in version {version}");
                return Ok(Self { predecessor, questions: successor.succeed() });
            } else {
                let (seen, _) = predecessor.next().await;
                predecessor.step(seen);
            }
        }
    }

    /// Says that this process serves, and takes the clients; returns when the predecessor needs no more, or at
    /// `stop`. An error means that the predecessor serves on and this one must leave.
    pub(crate) async fn serve(mut self, context: &HandoverContext, stop: &Stop) -> Result<(), TakeOverError> {
        self.predecessor.step(Seen::Serves);
        let mut socket = None;
        loop {
            if let Some(next) = self.predecessor.todo.pop_front() {
                let seen = self.carry_out(next, context, &mut socket).await;
                seen.into_iter().for_each(|seen| self.predecessor.step(seen));
            } else if let Some(outcome) = self.predecessor.machine.outcome() {
                return outcome;
            } else {
                let seen;
                (seen, socket) = self.next(stop).await;
                self.predecessor.step(seen);
            }
        }
    }

    async fn next(&mut self, stop: &Stop) -> Event {
        tokio::select! {
            biased;
            () = stop.begun() => (Seen::Stopped, None),
            event = self.hear_and_ask() => event,
        }
    }

    /// Waits for the predecessor; asks it meanwhile what other nodes ask here. A question that it does not hear ends the
    /// questions only: what it has sent before is still to be taken.
    async fn hear_and_ask(&mut self) -> Event {
        let may_ask = self.predecessor.machine.may_ask();
        loop {
            tokio::select! {
                event = self.predecessor.next() => return event,
                question = self.questions.next(), if may_ask => {
                    let until = Instant::now() + SAY_MAX;
                    if self.predecessor.say(&question).await.is_err() {
                        return (Seen::NotAsked { until }, None);
                    }
                }
            }
        }
    }

    async fn carry_out(
        &mut self,
        what: Do,
        context: &HandoverContext,
        socket: &mut Option<OwnedFd>,
    ) -> Option<Seen> {
        match what {
            Do::Take(said) => context.take(said, socket.take()),
            Do::Answered { number, answer } => self.questions.answered(number, answer),
            Do::WarnDied => {
                warn!("the old process has ended, or hangs, before it had handed over everything")
            }
            Do::AllArrived => {
                self.questions.end();
                context.all_arrived();
            }
            Do::ForgetEnded => context.forget_ended(),
            Do::Say(message) => return self.predecessor.say_or_see(&message).await,
            Do::TryToSay(message) => self.predecessor.try_to_say(&message).await,
            // Only before this process serves.
            Do::Thaw { .. } => {}
        }
        None
    }
}

impl Predecessor {
    fn step(&mut self, seen: Seen) {
        self.todo = self.machine.step(seen, Instant::now()).into();
    }

    /// Waits for the predecessor's next message, or until time has passed. Cancel-safe.
    async fn next(&mut self) -> Event {
        let due = self.machine.due();
        tokio::select! {
            biased;
            received = self.passage.receive() => match received {
                Ok(Some((said, mut descriptors))) => (Seen::Message(said), descriptors.pop()),
                Ok(None) => (Seen::Gone, None),
                Err(error) => (Seen::Broken(error), None),
            },
            () = until(due) => (Seen::Passed, None),
        }
    }

    /// Does what can be done before this process serves.
    async fn prepare(&mut self, what: Do, successor: &Successor<'_>) -> Option<Seen> {
        match what {
            Do::Take(said) => {
                successor.take(said);
                None
            }
            Do::Thaw { version, bytes } => {
                let thawed = successor.thaw(Frozen { version, bytes }, self.machine.start_by());
                Some(Seen::Thawed(thawed.await))
            }
            Do::Say(message) => self.say_or_see(&message).await,
            Do::TryToSay(message) => {
                self.try_to_say(&message).await;
                None
            }
            // Only when this process serves.
            Do::Answered { .. } | Do::WarnDied | Do::AllArrived | Do::ForgetEnded => None,
        }
    }

    async fn say_or_see(&self, message: &FromSuccessor) -> Option<Seen> {
        self.say(message).await.err().map(Seen::NotSaid)
    }

    async fn say(&self, message: &FromSuccessor) -> io::Result<()> {
        say(&self.passage, message, &[]).await
    }

    /// Sends a message without which the predecessor ends as well.
    async fn try_to_say(&self, message: &FromSuccessor) {
        let _ = timeout(GREETING_MAX, self.say(message)).await;
    }
}

#[cfg(test)]
mod tests;
