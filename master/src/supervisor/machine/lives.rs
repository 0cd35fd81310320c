//! The lives of processes: launched, registered, ready, ended, and when they are started again.

use std::sync::Arc;
use std::time::Duration;

use ffproto::control::{ToMaster, ToNode};
use ffproto::{Incarnation, NodeName};

use super::replace::{ReplaceTurn, Second, TAKE_BACK};
use super::seat::{Life, Seat, SeatState, Stage, StopProgress, Why};
use super::stop::FIRM;
use super::{Do, Exit, Fenced, Listens, Machine, Moment, Phase, Report, Tell, Wire};
use crate::output::{last_panic, last_words};

/// The release of this program, as nodes are told it.
const RELEASE: &str = env!("FF_RELEASE");

impl Machine {
    /// Launches every node that waits for nobody any more.
    pub(super) fn launch_waiting(&mut self, now: Moment) {
        let waits = |name: &NodeName| matches!(self.seats[name].state, SeatState::Waiting);
        // Of a process the first one speaks for all: its nodes start when nobody outside of it is waited for.
        let free = |name: &&NodeName| {
            let mates = self.mates(name);
            let mates: Vec<&NodeName> = mates.iter().filter(|mate| waits(mate)).collect();
            let parents = mates.iter().flat_map(|mate| &self.seats[*mate].life.node.parents);
            let mut outside = parents.filter(|parent| !mates.contains(&&parent.name));
            let settled = |parent: &NodeName| self.seats.get(parent).is_none_or(Seat::is_settled);
            waits(name) && mates.first() == Some(name) && outside.all(|parent| settled(&parent.name))
        };
        let free: Vec<NodeName> = self.order.iter().filter(free).cloned().collect();
        for name in free {
            let mut names = self.mates(&name);
            names.retain(|name| matches!(self.seats[name].state, SeatState::Waiting));
            self.launch_together(&names, now);
        }
    }

    pub(super) fn launched(&mut self, name: &NodeName, incarnation: Incarnation, pid: u32) {
        for name in self.aboard(name, incarnation) {
            let Some(seat) = self.seats.get_mut(&name) else { continue };
            seat.shortage.reset();
            if let Some(life) = seat.life_of(incarnation) {
                life.pid = Some(pid);
            }
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
        let (first, successors) = self.end_lives(name, at);
        for name in &first {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            seat.life.clear();
            seat.life.reason = Some(reason.clone());
            seat.last_exit = Some("it could not be launched".into());
        }
        for name in &successors {
            self.roll_back(name, &format!("the new process could not be launched: {reason}"), now);
        }
        if shortage && successors.is_empty() { self.short(&first, now) } else { self.ended(&first, now) }
    }

    /// The process of that start has ended, or was never there. The nodes whose first process it was, and those whose second.
    fn end_lives(&mut self, name: &NodeName, incarnation: Incarnation) -> (Vec<NodeName>, Vec<NodeName>) {
        let is_first = |name: &NodeName| self.seats[name].life.is(incarnation);
        let (first, second): (Vec<_>, Vec<_>) =
            self.aboard(name, incarnation).into_iter().partition(is_first);
        // All of them first: nobody is told to end what has ended already.
        for name in first.iter().chain(&second) {
            let life = self.seats.get_mut(name).and_then(|seat| seat.life_of(incarnation));
            life.into_iter().for_each(|life| (life.process, life.wire) = (false, None));
        }
        let is_successor = |name: &NodeName| self.seats[name].second.as_ref().is_some_and(|s| !s.is_old());
        if second.iter().any(is_successor) {
            // What has come up beside successors that are given up is no node that has failed.
            for name in &first {
                let newcomer = self.seats.get_mut(name).filter(|seat| seat.life.newcomer);
                newcomer.into_iter().for_each(|seat| seat.life.given_up = true);
            }
        }
        (first, second)
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
        if self.sent_away.iter().any(|(node, start)| *node == name && *start == incarnation) {
            return self.tell(&name, incarnation, ToNode::Stop { drain_ms: 0 });
        }
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
        let is_new = life.wire.replace(wire).is_none();
        life.heard = now.at;
        let second = seat.second.as_mut().filter(|second| second.life.is(incarnation));
        if let Some(second) = second.filter(|_| is_new) {
            second.is_there(now);
        }
        self.tell(&name, incarnation, ToNode::Registered { number, release: Some(RELEASE.into()) });
        self.tell_parents_of(&name, incarnation);
        if first && adopting {
            self.take_back_sockets(&name, now);
        }
        if first {
            self.repeat_stop(&name);
            self.hand_over(&name, now);
        }
        self.expect_mates(now);
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
            let why = "a newer start of it, by somebody else, has registered";
            seat.verdict = Some(Err(why.into()));
            self.give_up(&second.life, why, true, now);
        }
        let Some(seat) = self.seats.get(name) else { return };
        let (true, Some(incarnation)) = (seat.life.process, seat.life.incarnation) else { return };
        if self.aboard(name, incarnation).iter().any(|other| other != name) {
            self.warn(format!(
                "a newer {name} has registered: the one of this master must leave its process"
            ));
            self.sent_away.push((name.clone(), incarnation));
            let drain_ms = u64::try_from(self.seats[name].life.node.drain.as_millis()).unwrap_or(u64::MAX);
            self.tell(name, incarnation, ToNode::Stop { drain_ms });
            return self.tell_children_gone(name);
        }
        let kill_at = Some(now.at + seat.life.node.drain + FIRM);
        self.warn(format!(
            "a newer {name} has registered: the one with incarnation {incarnation} must leave"
        ));
        self.fenced.push(Fenced { node: name.clone(), incarnation, shared: None, kill_at });
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
                self.expect_mates(now);
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
        if life.process && life.shared.is_some() {
            return self.left_its_process(name, incarnation, now);
        }
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
        self.fenced.retain(|fenced| !fenced.is_in_process_of(name, incarnation));
        let (first, second) = self.end_lives(name, incarnation);
        self.sent_away.retain(|(_, start)| *start != incarnation);
        // Those that stood by are gone before anybody asks for them.
        second.iter().for_each(|name| self.second_exited(name, exit, lines, now));
        for name in &first {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            seat.last_exit = Some(exit.to_string());
            // What Rust's runtime ends a process with whose main thread has panicked.
            const PANICKED: Exit = Exit::Code(101);
            // One that aborts when it panics, or panics while it panics. Whoever just aborts says nothing by the last line before that.
            const ABORTED: Exit = Exit::Signal(6);
            if matches!(seat.state, SeatState::Starting { .. }) || *exit == PANICKED {
                // It has not said why it ends: what it printed last may.
                seat.life.reason = seat.life.reason.take().or_else(|| last_words(lines));
            } else if *exit == ABORTED {
                seat.life.reason = seat.life.reason.take().or_else(|| last_panic(lines));
            }
        }
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let unasked = |name: &NodeName| {
            let seat = &self.seats[name];
            !matches!(seat.state, SeatState::Stopping(StopProgress { why: Why::Asked, .. }))
                && !seat.life.given_up
        };
        if !stopping && first.iter().any(unasked) {
            self.crashed(&first, exit, lines, now);
        }
        let mut ended = Vec::new();
        for name in first {
            let how = self.seats[&name].end_in_words();
            self.tell_children_gone(&name);
            if self.first_exited(&name, &how, now) {
                continue;
            }
            self.seats.get_mut(&name).into_iter().for_each(|seat| seat.life.clear());
            ended.push(name);
        }
        self.ended(&ended, now);
    }

    /// No process is left of the newest start of these nodes, which shared one when they are several. What now?
    pub(super) fn ended(&mut self, names: &[NodeName], now: Moment) {
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let starting = matches!(self.phase, Phase::Starting) && !self.adopted;
        let (mut fails, mut again) = (false, Vec::new());
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            let asked = matches!(seat.state, SeatState::Stopping(StopProgress { why: Why::Asked, .. }));
            let how = seat.end_in_words();
            if asked || stopping {
                seat.enter(SeatState::Stopped, now);
                self.info(format!("{name} has stopped: {how}"));
            } else if seat.life.given_up && seat.life.newcomer {
                seat.enter(SeatState::Stopped, now);
                self.note_failure(name, &how, now);
            } else {
                fails |= starting && !seat.proven;
                again.push(name.clone());
            }
        }
        let Some(speaker) =
            again.iter().find(|name| self.seats[*name].life.reason.is_some()).or(again.first())
        else {
            return;
        };
        let how = self.seats[speaker].end_in_words();
        if !fails {
            return self.retry_later(&again, &how, now);
        }
        let text = format!("{speaker} does not start: {how}");
        for name in &again {
            self.seats.get_mut(name).into_iter().for_each(|seat| seat.enter(SeatState::Stopped, now));
        }
        self.stop_all(None, Some(text), now);
    }

    /// The host has no descriptors, memory or processes for a launch. That says nothing about the node: it is no quick end, and is
    /// tried for as long as it takes.
    fn short(&mut self, names: &[NodeName], now: Moment) {
        let (mut wait, mut times, mut how) = (Duration::ZERO, 0, String::new());
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            wait = wait.max(seat.shortage.next(now.chance, Duration::ZERO));
            (how, times) = (seat.end_in_words(), times.max(seat.shortage.quick_ends()));
        }
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            seat.enter(SeatState::Backoff { until: now.at + wait }, now);
        }
        // At the first, and then ever less often: the shortage may last.
        if times.is_power_of_two() {
            let (ms, title) = (wait.as_millis(), self.title(names));
            self.warn(format!(
                "{title}: {how}; the host is short of something, which is no quick end of the node ({times} in \
                 a row); again in {ms} ms"
            ));
        }
    }

    /// One wait for all of them: they start again together.
    fn retry_later(&mut self, names: &[NodeName], how: &str, now: Moment) {
        let (limit, max) = (self.restart.crash_loop, self.restart.max);
        let (mut wait, mut quick) = (Duration::ZERO, 0);
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            wait = wait.max(seat.backoff.next(now.chance, now.at.duration_since(seat.life.born)));
            if seat.may_be_taken_back(now) {
                wait = wait.max(TAKE_BACK);
            }
            quick = quick.max(seat.backoff.quick_ends());
        }
        let (until, ms, title) = (now.at + wait, wait.as_millis(), self.title(names));
        let (state, text) = if max.is_some_and(|max| quick >= max) {
            let first = names.first().map_or("NAME", NodeName::as_str);
            let text = format!(
                "{title} ended: {how}; {quick} quick ends (master.restart.max): marked failed, and not tried \
                 any more until /nodes/{first}/start or a reload"
            );
            (SeatState::Failed, text)
        } else if quick >= limit {
            let text = format!("{title} ended: {how}; a crash loop, {quick} quick ends; again in {ms} ms");
            (SeatState::CrashLoop { until }, text)
        } else {
            (SeatState::Backoff { until }, format!("{title} ended: {how}; again in {ms} ms"))
        };
        for name in names {
            self.seats.get_mut(name).into_iter().for_each(|seat| seat.enter(state, now));
        }
        self.warn(text);
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
                    self.launch_again(&name, now);
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
        let leaving = StopProgress { stage: Stage::Polite, next: now.at, why: Why::Failing };
        let Some(incarnation) = seat.life.incarnation else { return };
        seat.life.reason = Some(reason.clone());
        self.warn(text);
        let aboard = self.aboard(name, incarnation);
        let successor = |name: &&NodeName| !self.seats[*name].life.is(incarnation);
        if let Some(successor) = aboard.iter().find(successor) {
            return self.roll_back(successor, &format!("{name}, in its process: {reason}"), now);
        }
        // Nobody of a process is without the others: they do not wait for each other's bounds.
        for other in aboard.iter().chain([name]) {
            let Some(seat) = self.seats.get_mut(other) else { continue };
            seat.enter(SeatState::Stopping(leaving), now);
        }
        self.press(name, leaving, now);
    }

    pub(super) fn tell(&mut self, name: &NodeName, incarnation: Incarnation, message: ToNode) {
        self.out.push(Do::Tell { node: name.clone(), incarnation, tell: Tell::Message(message) });
    }
}
