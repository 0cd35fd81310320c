//! The lives of processes: launched, registered, ready, ended, and when they are started again.

use std::sync::Arc;
use std::time::Duration;

use ffproto::control::{ToMaster, ToNode};
use ffproto::{Incarnation, NodeName};

use super::replace::{ReplaceTurn, Second, TAKE_BACK};
use super::seat::{Life, SeatState, Stage, StopProgress, Why};
use super::stop::FIRM;
use super::{Do, Exit, Fenced, Listens, Machine, Moment, Phase, Report, Tell, Wire};
use crate::output::last_words;

/// The release of this program, as nodes are told it.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

impl Machine {
    /// Launches every node that waits for nobody any more.
    pub(super) fn launch_waiting(&mut self, now: Moment) {
        let free = |name: &&NodeName| {
            let seat = &self.seats[*name];
            let parents = seat.life.node.parents.iter().filter_map(|parent| self.seats.get(&parent.name));
            matches!(seat.state, SeatState::Waiting) && parents.into_iter().all(|parent| parent.is_settled())
        };
        let free: Vec<NodeName> = self.order.iter().filter(free).cloned().collect();
        for name in free {
            self.launch(&name, now);
        }
    }

    pub(super) fn launch(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let incarnation = Incarnation::next(now.unix_ms, seat.newest());
        seat.life = Life::launched(Arc::clone(&seat.life.node), incarnation, now);
        seat.enter(SeatState::Starting { until: Some(now.at + seat.life.node.limits.start) }, now);
        self.out.push(Do::Launch { node: name.clone(), incarnation, succeeds: None });
    }

    pub(super) fn launched(&mut self, name: &NodeName, incarnation: Incarnation, pid: u32) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        seat.shortage.reset();
        if let Some(life) = seat.life_of(incarnation) {
            life.pid = Some(pid);
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        name: &NodeName,
        at: Incarnation,
        reason: String,
        shortage: bool,
        now: Moment,
    ) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if seat.life.is(at) {
            seat.life.clear();
            seat.life.reason = Some(reason);
            seat.last_exit = Some("it could not be launched".into());
            if shortage { self.short(name, now) } else { self.ended(name, now) }
        } else if let Some(life) = seat.life_of(at) {
            life.process = false;
            self.roll_back(name, &format!("the new process could not be launched: {reason}"), now);
        }
    }

    /// A node has proved who it is. A start of ours is known; a newer one was made by somebody else and
    /// fences ours; an older one has no business here, nor has one of the future, behind which none of ours could come.
    pub(super) fn registered(
        &mut self,
        name: NodeName,
        incarnation: Incarnation,
        pid: u32,
        wire: Wire,
        now: Moment,
    ) {
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let known = self.seats.get_mut(&name).map(|seat| {
            let newest = seat.newest();
            match seat.life_of(incarnation) {
                Some(life) if life.process => Some(true),
                // Of a process of ours that has ended, only a message can be late.
                Some(life) if !life.theirs => None,
                Some(_) => Some(false),
                None if !incarnation.may_register_at(now.unix_ms) => None,
                None => newest.is_none_or(|newest| newest < incarnation).then_some(false),
            }
        });
        match known.flatten() {
            Some(true) => {}
            Some(false) if !stopping => self.take_in(&name, incarnation, pid, now),
            Some(false) | None => return self.out.push(Do::Hangup { node: name, incarnation }),
        }
        let Some(seat) = self.seats.get_mut(&name) else { return };
        let (number, adopting) = (seat.number, matches!(seat.state, SeatState::Adopting { .. }));
        let first = seat.life.is(incarnation);
        let Some(life) = seat.life_of(incarnation) else { return };
        // In a namespace of its own it may have another number for itself.
        life.pid = life.pid.or(Some(pid));
        life.wire = Some(wire);
        life.heard = now.at;
        self.tell(&name, incarnation, ToNode::Registered { number, release: Some(RELEASE.into()) });
        self.tell_parents_of(&name, incarnation);
        if first && adopting {
            self.take_back_sockets(&name, now);
        }
        if first {
            self.repeat_stop(&name);
            self.hand_over(&name, now);
        }
    }

    /// A start that this master has not made.
    fn take_in(&mut self, name: &NodeName, incarnation: Incarnation, pid: u32, now: Moment) {
        self.fence(name, now);
        let Some(seat) = self.seats.get_mut(name) else { return };
        let node = Arc::clone(&seat.life.node);
        // One that comes back over a new connection has found what it was taken in for.
        if !seat.life.is(incarnation) {
            seat.was_stopped = matches!(seat.state, SeatState::Stopped);
        }
        seat.life = Life { incarnation: Some(incarnation), theirs: true, ..Life::new(node, now) };
        seat.enter(SeatState::Starting { until: None }, now);
        self.info(format!(
            "{name} (pid {pid}) was started by somebody else: not restarted while that one runs"
        ));
    }

    /// Sends our own processes of that node away, because a newer start of it has registered.
    fn fence(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if let Some(second) = seat.second.take() {
            seat.verdict = Some(Err("a newer start of it, by somebody else, has registered".into()));
            self.end_now(&second.life);
        }
        let Some(seat) = self.seats.get(name) else { return };
        let (true, Some(incarnation)) = (seat.life.process, seat.life.incarnation) else { return };
        let kill_at = Some(now.at + seat.life.node.drain + FIRM);
        self.warn(format!(
            "a newer {name} has registered: the one with incarnation {incarnation} must leave"
        ));
        self.fenced.push(Fenced { node: name.clone(), incarnation, kill_at });
        self.out.push(Do::Terminate { node: name.clone(), incarnation });
        self.tell_children_gone(name);
    }

    pub(super) fn message(&mut self, name: &NodeName, from: Incarnation, message: ToMaster, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let first = seat.life.is(from);
        let Some(life) = seat.life_of(from) else { return };
        life.heard = now.at;
        match message {
            ToMaster::Ready { root, net, web } => {
                let listens = Listens { net, root, web };
                match &seat.second {
                    _ if first => self.ready(name, listens, now),
                    Some(Second { turn: ReplaceTurn::Leaving { .. }, .. }) | None => {}
                    Some(_) => self.promote(name, listens, now),
                }
            }
            ToMaster::CannotStart { reason } => life.reason = Some(reason),
            ToMaster::Release { release } => life.release = Some(release),
            // Metrics do not come this far: the control connection has given them to who asked.
            ToMaster::Status(_) | ToMaster::Metrics { .. } | ToMaster::Answer { .. } => {}
            ToMaster::Prepared { door } => self.prepared(name, from, door, now),
            ToMaster::TookBack { reason } => self.took_back(name, from, &reason, now),
            // It leaves by itself; its end is bounded since its successor has served.
            ToMaster::HandedOver => self.handed_over(name, from),
            ToMaster::Stopping => {
                // On our word it is leaving already; by itself (somebody sent it a signal) it has as long.
                if first && !matches!(seat.state, SeatState::Stopping(_)) && !seat.is_down() {
                    let next = now.at + seat.life.node.drain + FIRM;
                    seat.enter(
                        SeatState::Stopping(StopProgress { stage: Stage::Polite, next, why: Why::Failing }),
                        now,
                    );
                    self.info(format!("{name} has begun to stop by itself"));
                }
            }
        }
    }

    fn ready(&mut self, name: &NodeName, listens: Listens, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let first = matches!(seat.state, SeatState::Starting { .. });
        let news = first || seat.life.listens != Some(listens);
        match seat.state {
            SeatState::Adopting { until, back, .. } => {
                seat.life.listens = Some(listens);
                seat.state = SeatState::Adopting { until, ready: true, back };
                self.finish_adoption(name, now);
            }
            SeatState::Starting { .. } | SeatState::Ready => {
                seat.life.listens = Some(listens);
                if first {
                    self.report_ready(name, listens, now);
                }
                if news {
                    self.tell_children_up(name);
                }
            }
            _ => {}
        }
    }

    pub(super) fn report_ready(&mut self, name: &NodeName, listens: Listens, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        seat.proven = true;
        seat.enter(SeatState::Ready, now);
        let (node, kind, pid) = (name.clone(), seat.life.node.kind.clone(), seat.life.pid);
        let took_ms = now.at.duration_since(seat.life.born).as_millis();
        self.out.push(Do::Report(Report::Ready { node, kind, pid, listens, took_ms }));
    }

    /// A lost control connection is no lost process: ours is known by its exit. Of somebody else's there
    /// is no other sign of life.
    pub(super) fn unlinked(&mut self, name: &NodeName, incarnation: Incarnation, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let first = seat.life.is(incarnation);
        let Some(life) = seat.life_of(incarnation) else { return };
        life.wire = None;
        if life.process || !life.theirs || !first || seat.is_down() {
            return;
        }
        let asked = matches!(seat.state, SeatState::Stopping(StopProgress { why: Why::Asked, .. }));
        seat.last_exit = Some("its control connection ended".into());
        seat.life.clear();
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let (state, then) = match seat.here {
            _ if asked || stopping => (SeatState::Stopped, ""),
            false => (SeatState::Absent, ""),
            true if seat.was_stopped => (SeatState::Stopped, ": it is stopped, as it was before"),
            true => (SeatState::Backoff { until: now.at + TAKE_BACK }, ": it is started from here again"),
        };
        seat.enter(state, now);
        let text = format!("{name}, started by somebody else, has left{then}");
        if asked { self.info(text) } else { self.warn(text) }
    }

    pub(super) fn exited(
        &mut self,
        name: &NodeName,
        incarnation: Incarnation,
        exit: &Exit,
        lines: &[String],
        now: Moment,
    ) {
        self.fenced.retain(|fenced| fenced.node != *name || fenced.incarnation != incarnation);
        let Some(seat) = self.seats.get_mut(name) else { return };
        if !seat.life.is(incarnation) {
            if seat.life_of(incarnation).is_some() {
                self.second_exited(name, exit, lines, now);
            }
            return;
        }
        if !seat.life.process {
            return;
        }
        seat.last_exit = Some(exit.to_string());
        // What Rust's runtime ends a process with whose main thread has panicked.
        const PANICKED: Exit = Exit::Code(101);
        if matches!(seat.state, SeatState::Starting { .. }) || *exit == PANICKED {
            // It has not said why it ends: what it printed last may.
            seat.life.reason = seat.life.reason.take().or_else(|| last_words(lines));
        }
        let how = seat.end_in_words();
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let asked = matches!(seat.state, SeatState::Stopping(StopProgress { why: Why::Asked, .. }));
        if !asked && !stopping {
            self.crashed(name, exit, lines, now);
        }
        self.tell_children_gone(name);
        if self.first_exited(name, &how, now) {
            return;
        }
        if let Some(seat) = self.seats.get_mut(name) {
            seat.life.clear();
        }
        self.ended(name, now);
    }

    /// No process is left of the node's newest start. What now?
    pub(super) fn ended(&mut self, name: &NodeName, now: Moment) {
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let Some(seat) = self.seats.get_mut(name) else { return };
        let asked = matches!(seat.state, SeatState::Stopping(StopProgress { why: Why::Asked, .. }));
        let how = seat.end_in_words();
        if asked || stopping {
            seat.enter(SeatState::Stopped, now);
            self.info(format!("{name} has stopped: {how}"));
        } else if matches!(self.phase, Phase::Starting) && !self.adopted && !seat.proven {
            seat.enter(SeatState::Stopped, now);
            self.stop_all(None, Some(format!("{name} does not start: {how}")), now);
        } else {
            self.retry_later(name, &how, now);
        }
    }

    /// The host has no descriptors, memory or processes for a launch. That says nothing about the node: it is no quick end, and is
    /// tried for as long as it takes.
    fn short(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let wait = seat.shortage.next(now.chance, Duration::ZERO);
        let (how, times) = (seat.end_in_words(), seat.shortage.quick_ends());
        seat.enter(SeatState::Backoff { until: now.at + wait }, now);
        // At the first, and then ever less often: the shortage may last.
        if times.is_power_of_two() {
            let ms = wait.as_millis();
            self.warn(format!(
                "{name}: {how}; the host is short of something, which is no quick end of the node ({times} in \
                 a row); again in {ms} ms"
            ));
        }
    }

    fn retry_later(&mut self, name: &NodeName, how: &str, now: Moment) {
        let (limit, max) = (self.restart.crash_loop, self.restart.max);
        let Some(seat) = self.seats.get_mut(name) else { return };
        let mut wait = seat.backoff.next(now.chance, now.at.duration_since(seat.life.born));
        if seat.may_be_taken_back(now) {
            wait = wait.max(TAKE_BACK);
        }
        let (until, quick) = (now.at + wait, seat.backoff.quick_ends());
        let ms = wait.as_millis();
        if max.is_some_and(|max| quick >= max) {
            seat.enter(SeatState::Failed, now);
            self.warn(format!(
                "{name} ended: {how}; {quick} quick ends (master.restart.max): marked failed, and not tried \
                 any more until /nodes/{name}/start or a reload"
            ));
        } else if quick >= limit {
            seat.enter(SeatState::CrashLoop { until }, now);
            self.warn(format!("{name} ended: {how}; a crash loop, {quick} quick ends; again in {ms} ms"));
        } else {
            seat.enter(SeatState::Backoff { until }, now);
            self.warn(format!("{name} ended: {how}; again in {ms} ms"));
        }
    }

    /// Restarts, time-outs, silence, and the next stage of every stop.
    pub(super) fn act_on_deadlines(&mut self, now: Moment) {
        let due = |name: &&NodeName| self.seats[*name].due().is_some_and(|due| due <= now.at);
        let due: Vec<NodeName> = self.order.iter().filter(due).cloned().collect();
        for name in due {
            self.second_is_due(&name, now);
            let Some(seat) = self.seats.get_mut(&name) else { continue };
            let is_due = |at| at <= now.at;
            match seat.state {
                SeatState::Backoff { until } | SeatState::CrashLoop { until } if is_due(until) => {
                    seat.restarts += 1;
                    self.launch(&name, now);
                }
                SeatState::Starting { until: Some(until) } if is_due(until) => self.too_slow(&name, now),
                SeatState::Stopping(leaving) if is_due(leaving.next) => self.press(&name, leaving, now),
                SeatState::Adopting { until, .. } if is_due(until) => self.not_adopted(&name, now),
                SeatState::Ready => self.silent(&name, now),
                _ => {}
            }
        }
        for fenced in &mut self.fenced {
            if fenced.kill_at.is_some_and(|at| at <= now.at) {
                fenced.kill_at = None;
                self.out.push(Do::Kill { node: fenced.node.clone(), incarnation: fenced.incarnation });
            }
        }
    }

    fn too_slow(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let limit: Duration = seat.life.node.limits.start;
        let reason = format!("it was not ready within {} s (limits.start_s)", limit.as_secs());
        let text = format!("{name}: {reason}");
        seat.life.reason = Some(reason);
        let leaving = StopProgress { stage: Stage::Polite, next: now.at, why: Why::Failing };
        seat.enter(SeatState::Stopping(leaving), now);
        self.warn(text);
        self.press(name, leaving, now);
    }

    pub(super) fn tell(&mut self, name: &NodeName, incarnation: Incarnation, message: ToNode) {
        self.out.push(Do::Tell { node: name.clone(), incarnation, tell: Tell::Message(message) });
    }
}
