//! The replacement of a node's process by another one: both run for a while, and until the new one has proved itself
//! everything can be taken back.

use std::sync::Arc;
use std::time::Duration;

use ffconfig::Node;
use ffproto::control::{Door, ToNode};
use ffproto::{Incarnation, NodeName};
use tokio::time::Instant;

use super::adopt::REGISTER_MAX;
use super::process::shared_by;
use super::seat::{Life, Seat, SeatState, Stage};
use super::stop::{FIRM, KILLED, MARGIN};
use super::{Do, Exit, Fenced, Listens, Machine, Moment, Phase};
use crate::output::{last_panic, last_words};

/// When a successor dies while its predecessor stands by: how long that one may take to say so.
pub(super) const TAKE_BACK: Duration = Duration::from_secs(1);

/// The other process of a node while one replaces the other.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) life: Life,
    pub(super) turn: ReplaceTurn,
    pub(super) since_ms: u64,
}

/// The turn of a seat's second process: which of the two it is, and how far the replacement has come.
#[derive(Debug)]
pub(super) enum ReplaceTurn {
    /// The new one, which prepares while the old one serves; with a door once it is prepared. Without a bound while others of its
    /// process are before it: they hand over one after the other.
    Preparing { until: Option<Instant>, door: Option<Door> },
    /// The new one; the old one has been told to hand over to it, and may have said that it is `done` before the new one says that it
    /// serves: they speak over connections of their own.
    TakingOver { until: Instant, done: bool },
    /// The old one; the new one serves. It ends what it had begun, says when that is `done`, stands by until
    /// `proven`, and leaves.
    Leaving { proven: Instant, stage: Stage, next: Instant, done: bool },
    /// The newer of two that an earlier master has left behind: whether it serves is not known yet.
    Unknown { until: Instant },
}

impl Second {
    pub(super) fn due(&self) -> Option<Instant> {
        match self.turn {
            ReplaceTurn::Preparing { until, .. } => until,
            ReplaceTurn::TakingOver { until, .. } | ReplaceTurn::Unknown { until } => Some(until),
            ReplaceTurn::Leaving { next, .. } => Some(next),
        }
    }

    /// It has registered, and was not linked: it is there, and has the time to do what it does.
    pub(super) fn is_there(&mut self, now: Moment) {
        match &mut self.turn {
            ReplaceTurn::Unknown { until } => *until = now.at + REGISTER_MAX,
            ReplaceTurn::Leaving { proven, stage: Stage::Polite, next, .. } if self.life.shared.is_some() => {
                *next = (*next).max((*proven).max(now.at) + MARGIN);
            }
            _ => {}
        }
    }

    /// Brings its next bound forward.
    pub(super) fn hasten(&mut self, bound: Instant) {
        match &mut self.turn {
            ReplaceTurn::Preparing { until, .. } => *until = Some(until.map_or(bound, |at| at.min(bound))),
            ReplaceTurn::TakingOver { until, .. } | ReplaceTurn::Unknown { until } => {
                *until = (*until).min(bound);
            }
            ReplaceTurn::Leaving { next, .. } => *next = (*next).min(bound),
        }
    }

    /// Whether the second process is the predecessor.
    pub(super) fn is_old(&self) -> bool {
        matches!(self.turn, ReplaceTurn::Leaving { .. })
    }
}

impl Machine {
    /// Starts one successor with those configs beside the processes that serve. A node of which nothing runs begins in it, and
    /// takes over from nobody.
    pub(super) fn begin_replacement(&mut self, nodes: &[Arc<Node>], now: Moment) {
        let seats = || nodes.iter().filter_map(|node| self.seats.get(&node.name));
        let incarnation = Incarnation::next(now.unix_ms, seats().filter_map(Seat::before_next).max());
        let shared = shared_by(&nodes.iter().map(|node| &**node).collect::<Vec<_>>());
        let mut launched = Vec::new();
        for node in nodes {
            let Some(seat) = self.seats.get_mut(&node.name) else { continue };
            let life = Life::launched(Arc::clone(node), incarnation, now);
            let life = Life { shared: shared.clone(), newcomer: !seat.life.process, ..life };
            (seat.verdict, seat.made) = (None, Some(incarnation));
            if life.newcomer {
                seat.life = life;
                seat.enter(SeatState::Starting { until: Some(now.at + node.limits.start) }, now);
                launched.push((node.name.clone(), None));
            } else {
                let turn = ReplaceTurn::Preparing { until: None, door: None };
                launched.push((node.name.clone(), seat.life.incarnation));
                seat.second = Some(Second { life, turn, since_ms: now.unix_ms });
            }
        }
        self.out.push(Do::Launch { nodes: launched, incarnation });
    }

    /// The turn of a successor has come: from now on it has its time to prepare, and hands over when it has.
    pub(super) fn take_turn(&mut self, name: &NodeName, now: Moment) {
        let Some(second) = self.seats.get_mut(name).and_then(|seat| seat.second.as_mut()) else { return };
        if let ReplaceTurn::Preparing { until: until @ None, .. } = &mut second.turn {
            *until = Some(now.at + second.life.node.limits.start);
            second.since_ms = now.unix_ms;
            self.hand_over(name, now);
        }
    }

    /// A process has prepared everything and waits for its predecessor at that door.
    pub(super) fn prepared(&mut self, name: &NodeName, from: Incarnation, door: Door, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let unasked = "it wants to replace a process, and nobody has asked for that";
        match seat.second.as_mut().filter(|second| second.life.is(from)) {
            Some(Second { turn: ReplaceTurn::Preparing { door: at, .. }, .. }) => {
                *at = Some(door);
                self.hand_over(name, now);
            }
            Some(Second { turn: ReplaceTurn::Unknown { .. }, .. }) => {
                self.roll_back(name, "the master that had begun it is gone", now);
            }
            // It says so again over a new connection.
            Some(Second { turn: ReplaceTurn::TakingOver { .. } | ReplaceTurn::Leaving { .. }, .. }) => {}
            None => {
                if seat.life.is(from) && seat.life.process && !matches!(seat.state, SeatState::Ready) {
                    seat.life.reason = Some(unasked.into());
                    self.out.push(Do::Kill { node: name.clone(), incarnation: from });
                }
            }
        }
    }

    /// Tells the predecessor to hand over, when both processes are there for it.
    pub(super) fn hand_over(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(Second { turn, since_ms, .. }) = &mut seat.second else { return };
        let (ReplaceTurn::Preparing { until: Some(_), door: Some(door) }, Some(old), Some(_)) =
            (&*turn, seat.life.incarnation, seat.life.wire)
        else {
            return;
        };
        let message = ToNode::HandOver { door: door.clone() };
        let limits = &seat.life.node.limits;
        let until = now.at + limits.park + seat.life.node.drain + MARGIN;
        *turn = ReplaceTurn::TakingOver { until, done: false };
        *since_ms = now.unix_ms;
        self.tell(name, old, message);
    }

    /// The successor serves: the seat is its own now, and the predecessor finishes what it has begun.
    pub(super) fn promote(&mut self, name: &NodeName, listens: Listens, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(Second { life, turn, .. }) = seat.second.take() else { return };
        let asked = matches!(turn, ReplaceTurn::TakingOver { .. });
        // Who has handed over at the word of a master that is gone has told that one when it was done.
        let done = !asked || matches!(turn, ReplaceTurn::TakingOver { done: true, .. });
        let old = std::mem::replace(&mut seat.life, life);
        seat.life.listens = Some(listens);
        let (node, prove) = (&old.node, seat.life.node.limits.prove);
        let turn = ReplaceTurn::Leaving {
            proven: now.at + prove,
            stage: Stage::Polite,
            next: now.at + node.drain + prove + MARGIN,
            done,
        };
        let (old_incarnation, drain) = (old.incarnation, node.drain);
        seat.second = old.process.then_some(Second { life: old, turn, since_ms: now.unix_ms });
        seat.verdict = Some(Ok(()));
        seat.hang = None;
        seat.since_ms = now.unix_ms;
        match seat.state {
            SeatState::Adopting { .. } => self.take_back_sockets(name, now),
            _ => {
                // It has not been asked, so nobody has told the old one.
                if let (false, Some(old)) = (asked, old_incarnation) {
                    let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
                    self.tell(name, old, ToNode::Stop { drain_ms });
                }
                self.report_ready(name, listens, now);
            }
        }
        self.tell_children_up(name);
        self.prove_together(name);
    }

    /// Those of a process that have taken over before are on trial for as long as the one that has just done so.
    fn prove_together(&mut self, newest: &NodeName) {
        let Some(seat) = self.seats.get(newest) else { return };
        let (Some(incarnation), Some(_)) = (seat.life.incarnation, &seat.life.shared) else { return };
        let Some(Second { turn: ReplaceTurn::Leaving { proven, next, .. }, .. }) = seat.second else {
            return;
        };
        for name in self.aboard(newest, incarnation) {
            let second = self.seats.get_mut(&name).and_then(|seat| seat.second.as_mut());
            if let Some(Second { turn: ReplaceTurn::Leaving { proven: until, next: then, .. }, .. }) = second
            {
                (*until, *then) = ((*until).max(proven), (*then).max(next));
            }
        }
    }

    /// A predecessor has ended what it had begun: its neighbours do not need it any more, and may be replaced.
    pub(super) fn handed_over(&mut self, name: &NodeName, from: Incarnation) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        match &mut seat.second {
            Some(Second { life, turn: ReplaceTurn::Leaving { done, .. }, .. }) if life.is(from) => {
                *done = true
            }
            Some(Second { turn: ReplaceTurn::TakingOver { done, .. }, .. }) if seat.life.is(from) => {
                *done = true
            }
            _ => {}
        }
    }

    /// The successor is given up; the predecessor goes on.
    pub(super) fn roll_back(&mut self, name: &NodeName, why: &str, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(second) = seat.second.take() else { return };
        let text = format!("rolled back: {why}; the old process goes on");
        seat.verdict = Some(Err(text.clone()));
        self.give_up(&second.life, why, true, now);
        self.warn(format!("{name}: {text}"));
        let adopting =
            self.seats.get(name).is_some_and(|seat| matches!(seat.state, SeatState::Adopting { .. }));
        if adopting {
            self.take_back_sockets(name, now);
        }
        self.note_failure(name, &text, now);
    }

    /// Kills a process that is no longer part of its seat; its exit is waited for.
    pub(super) fn end_now(&mut self, life: &Life) {
        if let (true, Some(incarnation)) = (life.process, life.incarnation) {
            let (node, shared) = (life.node.name.clone(), life.shared.clone());
            self.fenced.push(Fenced { node: node.clone(), incarnation, shared, kill_at: None });
            self.out.push(Do::Kill { node, incarnation });
        }
    }

    /// A process says that it serves on after all.
    pub(super) fn took_back(&mut self, name: &NodeName, from: Incarnation, reason: &str, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended) {
            return;
        }
        if seat.life.is(from) {
            if seat.second.as_ref().is_some_and(|second| !second.is_old()) {
                self.roll_back(name, reason, now);
            }
            return self.tell_children_up(name);
        }
        let Some(second) = seat.second.take_if(|second| second.is_old() && second.life.is(from)) else {
            return;
        };
        let failed = std::mem::replace(&mut seat.life, second.life);
        seat.life.heard = now.at;
        seat.enter(SeatState::Ready, now);
        seat.since_ms = now.unix_ms;
        let text = format!("rolled back: {reason}; the old process goes on");
        seat.verdict = Some(Err(text.clone()));
        self.give_up(&failed, reason, true, now);
        self.warn(format!("{name}: {text}"));
        self.tell_children_up(name);
        self.note_failure(name, &text, now);
    }

    /// The other process of a seat has ended.
    pub(super) fn second_exited(&mut self, name: &NodeName, exit: &Exit, lines: &[String], now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(second) = &mut seat.second else { return };
        if second.is_old() {
            let pid = second.life.pid.unwrap_or_default();
            seat.second = None;
            return self.info(format!("{name}: the old process (pid {pid}) has left: {exit}"));
        }
        second.life.process = false;
        // Whom a signal ends has not said why by the line before: only a panic that aborts has.
        let last = || if matches!(exit, Exit::Signal(_)) { last_panic(lines) } else { last_words(lines) };
        let said = second.life.reason.take().or_else(last);
        let why = match said {
            Some(said) => format!("the new process ended: {said} ({exit})"),
            None => format!("the new process ended: {exit}"),
        };
        self.roll_back(name, &why, now);
    }

    /// The process that serves has ended while another was there. Whether the seat goes on with that one.
    pub(super) fn first_exited(&mut self, name: &NodeName, how: &str, now: Moment) -> bool {
        let Some(seat) = self.seats.get_mut(name) else { return false };
        let Some(second) = seat.second.take() else { return false };
        match second.turn {
            ReplaceTurn::Leaving { proven, .. } => {
                let on_trial = now.at <= proven;
                seat.second = Some(second);
                if on_trial {
                    let text = format!("the new process ended: {how}");
                    seat.verdict = Some(Err(text.clone()));
                    self.note_failure(name, &text, now);
                }
                false
            }
            ReplaceTurn::Unknown { .. } => {
                seat.life = second.life;
                self.take_back_sockets(name, now);
                true
            }
            ReplaceTurn::Preparing { .. } | ReplaceTurn::TakingOver { .. } => {
                let text = format!("the old process ended before the new one served: {how}");
                seat.verdict = Some(Err(format!("{text}; the node is started anew")));
                self.give_up(&second.life, &text, true, now);
                false
            }
        }
    }

    /// A bound of a replacement is reached.
    pub(super) fn second_is_due(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let (limits, drain) = (seat.life.node.limits.clone(), seat.life.node.drain);
        let Some(second) =
            seat.second.as_mut().filter(|second| second.due().is_some_and(|due| due <= now.at))
        else {
            return;
        };
        let (node, incarnation) = (name.clone(), second.life.incarnation);
        let left = second.life.reason.take_if(|_| second.life.wire.is_none());
        match &mut second.turn {
            ReplaceTurn::Preparing { .. } | ReplaceTurn::Unknown { .. } if left.is_some() => {
                let why = left.unwrap_or_default();
                self.roll_back(name, &format!("it has left the new process: {why}"), now);
            }
            ReplaceTurn::Preparing { door, .. } => {
                let limit = second.life.node.limits.start.as_secs();
                let why = match door {
                    None => format!("the new process was not ready within {limit} s (limits.start_s)"),
                    Some(_) => "the old process has lost its control connection".into(),
                };
                self.roll_back(name, &why, now);
            }
            ReplaceTurn::TakingOver { .. } => {
                let limit = (limits.park + drain + MARGIN).as_millis();
                let why = format!("the new process did not serve within {limit} ms (park_ms, drain_s, 1 s)");
                self.roll_back(name, &why, now);
            }
            ReplaceTurn::Unknown { .. } => {
                self.roll_back(name, "the new process did not say what it does", now)
            }
            ReplaceTurn::Leaving { stage, next, .. } => {
                let Some(incarnation) = incarnation else { return };
                if second.life.shared.is_some() {
                    return self.leaving_is_due(name, incarnation, now);
                }
                match stage {
                    Stage::Polite => {
                        (*stage, *next) = (Stage::Firm, now.at + FIRM);
                        self.out.push(Do::Terminate { node, incarnation });
                        self.warn(format!("{name}: the old process takes too long: told firmly (SIGTERM)"));
                    }
                    Stage::Firm => {
                        (*stage, *next) = (Stage::Killed, now.at + KILLED);
                        self.out.push(Do::Kill { node, incarnation });
                        self.warn(format!("{name}: the old process takes too long: killed (SIGKILL)"));
                    }
                    Stage::Killed => {
                        seat.second = None;
                        self.warn(format!("{name}: the old process does not end, not even by SIGKILL"));
                    }
                }
            }
        }
    }

    /// A stop ends a replacement: a successor that does not serve yet is killed.
    pub(super) fn stop_successor(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if let Some(second) = seat.second.take_if(|second| !second.is_old()) {
            let why = "interrupted by a stop";
            seat.verdict = Some(Err(why.into()));
            // Who serves in that process stops in its own time.
            self.give_up(&second.life, why, false, now);
        }
    }

    /// A predecessor that stands by is told to leave now: its successor's end is no reason to take back.
    pub(super) fn stop_predecessor(&mut self, name: &NodeName, now: Moment) {
        let Some(Second { life, turn, .. }) = self.seats.get_mut(name).and_then(|seat| seat.second.as_mut())
        else {
            return;
        };
        let ReplaceTurn::Leaving { stage: Stage::Polite, next, .. } = turn else { return };
        let (wire, incarnation, drain) = (life.wire, life.incarnation, life.node.drain);
        *next = (*next).min(now.at + drain + MARGIN);
        let Some(incarnation) = incarnation else { return };
        match wire {
            Some(_) => {
                let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
                self.tell(name, incarnation, ToNode::Stop { drain_ms });
            }
            None if self.others_stay(name, incarnation) => {}
            None => self.out.push(Do::Terminate { node: name.clone(), incarnation }),
        }
    }
}

impl Seat {
    /// Whether a predecessor still does what it had begun.
    pub(super) fn is_handing_over(&self) -> bool {
        matches!(&self.second, Some(Second { turn: ReplaceTurn::Leaving { done: false, .. }, .. }))
    }

    /// Whether a predecessor stands by that may take back what its dead successor had.
    pub(super) fn may_be_taken_back(&self, now: Moment) -> bool {
        let turn = self.second.as_ref().map(|second| &second.turn);
        matches!(turn, Some(ReplaceTurn::Leaving { proven, .. }) if now.at <= *proven)
    }
}
