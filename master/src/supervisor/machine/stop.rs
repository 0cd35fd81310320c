//! How nodes go down: polite, firm, killed, each bounded; all of them in waves.

use std::time::Duration;

use ffproto::NodeName;
use ffproto::control::ToNode;

use super::seat::{Seat, SeatState, Stage, StopProgress, Why};
use super::{Ask, Do, End, Machine, Moment, Outcome, Phase, Refused};
use crate::supervisor::order;

/// After a node's `drain_s`, what it may need to close down before it is told firmly.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// From SIGTERM to SIGKILL.
pub(super) const FIRM: Duration = Duration::from_secs(2);
/// From SIGKILL to giving up: only a process stuck in the kernel takes longer.
pub(super) const KILLED: Duration = Duration::from_secs(5);

/// A stop of everything.
#[derive(Debug)]
pub(super) struct Stop {
    waves: Vec<Vec<NodeName>>,
    /// The wave that is going down; `None` before the first.
    at: Option<usize>,
    /// Why the first start failed, when that is the reason.
    failed: Option<String>,
}

impl Machine {
    /// Begins to stop everything; `failed` says why when nobody asked for it. The answer is the plan.
    pub(super) fn stop_all(&mut self, ask: Option<Ask>, failed: Option<String>, now: Moment) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ended) {
            if let Some(ask) = ask {
                self.answer(ask, Err(Refused::Stopping));
            }
            return;
        }
        let runs = |seat: &&Seat| seat.lives().any(|life| life.process || life.wire.is_some());
        let running = self.seats.values().filter(runs);
        let waves = order::stop_waves(running.map(|seat| &*seat.life.node));
        if let Some(ask) = ask {
            let plan = self.plan(&waves);
            self.answer(ask, Ok(plan));
        }
        self.interrupt_job(now);
        self.phase = Phase::Stopping(Stop { waves, at: None, failed });
        for name in self.order.clone() {
            self.stop_successor(&name, now);
            let Some(seat) = self.seats.get_mut(&name) else { continue };
            if matches!(
                seat.state,
                SeatState::Waiting | SeatState::Backoff { .. } | SeatState::CrashLoop { .. }
            ) {
                seat.enter(SeatState::Stopped, now);
            }
        }
    }

    fn plan(&self, waves: &[Vec<NodeName>]) -> Vec<Outcome> {
        let step = |name: &NodeName| {
            let at = waves.iter().position(|wave| wave.contains(name));
            let drain = self.seats[name].life.node.drain.as_secs();
            let outcome = match at {
                Some(at) => format!("stops in wave {} of {}, within {drain} s", at + 1, waves.len()),
                None => "does not run".into(),
            };
            Outcome { node: name.clone(), ok: true, outcome }
        };
        self.order.iter().map(step).collect()
    }

    /// Begins the next wave when the one before it is down.
    pub(super) fn advance_stop(&mut self, now: Moment) {
        while let Phase::Stopping(stop) = &mut self.phase {
            let down = |wave: &Vec<NodeName>| {
                wave.iter().all(|name| self.seats.get(name).is_none_or(|seat| seat.is_down()))
            };
            if stop.at.and_then(|at| stop.waves.get(at)).is_some_and(|wave| !down(wave)) {
                return;
            }
            let next = stop.at.map_or(0, |at| at + 1);
            stop.at = Some(next);
            match stop.waves.get(next).cloned() {
                Some(wave) => wave.iter().for_each(|name| self.stop_node(name, now)),
                None => {
                    let end = stop.failed.take().map_or(End::Stopped, End::Failed);
                    self.phase = Phase::Ended;
                    self.out.push(Do::End(end));
                }
            }
        }
    }

    /// Begins to stop a node, politely; whatever it is doing, it stays down afterwards.
    pub(super) fn stop_node(&mut self, name: &NodeName, now: Moment) {
        self.stop_successor(name, now);
        self.stop_predecessor(name, now);
        let Some(seat) = self.seats.get_mut(name) else { return };
        match &mut seat.state {
            SeatState::Stopped | SeatState::Failed | SeatState::Absent => {}
            SeatState::Waiting | SeatState::Backoff { .. } | SeatState::CrashLoop { .. } => {
                seat.enter(SeatState::Stopped, now)
            }
            SeatState::Stopping(leaving) => leaving.why = Why::Asked,
            SeatState::Adopting { .. } | SeatState::Starting { .. } | SeatState::Ready => {
                let next = now.at + seat.life.node.drain + MARGIN;
                seat.enter(
                    SeatState::Stopping(StopProgress { stage: Stage::Polite, next, why: Why::Asked }),
                    now,
                );
                self.ask_to_stop(name);
            }
        }
    }

    /// Says it on the control connection, or by SIGTERM where there is none.
    pub(super) fn ask_to_stop(&mut self, name: &NodeName) {
        let Some(seat) = self.seats.get(name) else { return };
        let drain_ms = u64::try_from(seat.life.node.drain.as_millis()).unwrap_or(u64::MAX);
        match (seat.life.wire.is_some(), seat.life.process, seat.life.incarnation) {
            (true, _, Some(incarnation)) => self.tell(name, incarnation, ToNode::Stop { drain_ms }),
            // A node that shares its process is told when it registers: the signal is for all.
            (false, true, Some(incarnation)) if !self.others_stay(name, incarnation) => {
                self.out.push(Do::Terminate { node: name.clone(), incarnation });
            }
            _ => {}
        }
    }

    /// A node that registers (again) while it is being stopped is told (again).
    pub(super) fn repeat_stop(&mut self, name: &NodeName) {
        let state = self.seats.get(name).map(|seat| seat.state);
        if let Some(SeatState::Stopping(StopProgress { stage: Stage::Polite, why: Why::Asked, .. })) = state {
            self.ask_to_stop(name);
        }
    }

    /// The next stage of a node's stop is due.
    pub(super) fn press(&mut self, name: &NodeName, leaving: StopProgress, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(incarnation) = seat.life.incarnation else { return };
        if seat.life.process && seat.life.shared.is_some() {
            return self.press_process(name, incarnation, now);
        }
        let (node, why) = (name.clone(), leaving.why);
        match leaving.stage {
            Stage::Polite | Stage::Firm if !seat.life.process => {
                seat.last_exit = Some("it did not leave when told; it is supervised by somebody else".into());
                seat.life.clear();
                seat.enter(SeatState::Stopped, now);
                self.out.push(Do::Hangup { node, incarnation });
                self.warn(format!("{name} does not leave; whoever started it must end it"));
            }
            Stage::Polite => {
                seat.state =
                    SeatState::Stopping(StopProgress { stage: Stage::Firm, next: now.at + FIRM, why });
                self.out.push(Do::Terminate { node, incarnation });
                self.warn(format!("{name} takes too long: told firmly (SIGTERM)"));
            }
            Stage::Firm => {
                seat.state =
                    SeatState::Stopping(StopProgress { stage: Stage::Killed, next: now.at + KILLED, why });
                self.out.push(Do::Kill { node, incarnation });
                self.warn(format!("{name} takes too long: killed (SIGKILL)"));
            }
            Stage::Killed => {
                seat.life.clear();
                seat.last_exit = Some("it did not end, not even by SIGKILL".into());
                self.warn(format!("{name} does not end, not even by SIGKILL: given up"));
                self.ended(std::slice::from_ref(name), now);
            }
        }
    }

    /// A second signal: no manners any more.
    pub(super) fn kill_all(&mut self) {
        let running = self.seats.values().flat_map(Seat::lives).filter(|life| life.process);
        let killed = running.filter(|life| self.speaks_for_its_process(life)).filter_map(|life| {
            Some(Do::Kill { node: life.node.name.clone(), incarnation: life.incarnation? })
        });
        let killed: Vec<Do> = killed.collect();
        self.out.extend(killed);
        for fenced in self.fenced.drain(..) {
            self.out.push(Do::Kill { node: fenced.node, incarnation: fenced.incarnation });
        }
        self.phase = Phase::Ended;
        self.out.push(Do::End(End::Forced));
    }
}
