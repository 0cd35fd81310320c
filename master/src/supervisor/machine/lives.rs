//! The lives of processes: launched, registered, ready, ended, and when they are started again.

use std::time::Duration;

use ffproto::control::{ToMaster, ToNode};
use ffproto::{Incarnation, NodeName};

use super::seat::{Leaving, Stage, State, Why};
use super::stop::FIRM;
use super::{Do, Exit, Fenced, Listens, Machine, Moment, Phase, Report, Tell, Wire};

impl Machine {
    /// Launches every node that waits for nobody any more.
    pub(super) fn launch_waiting(&mut self, now: Moment) {
        let free = |name: &&NodeName| {
            let seat = &self.seats[*name];
            let parents = seat.node.parents.iter().filter_map(|parent| self.seats.get(&parent.name));
            matches!(seat.state, State::Waiting) && parents.into_iter().all(|parent| parent.is_settled())
        };
        let free: Vec<NodeName> = self.order.iter().filter(free).cloned().collect();
        for name in free {
            self.launch(&name, now);
        }
    }

    pub(super) fn launch(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let incarnation = Incarnation::next(now.unix_ms, seat.incarnation);
        seat.clear();
        seat.incarnation = Some(incarnation);
        seat.process = true;
        seat.theirs = false;
        seat.reason = None;
        seat.born = now.at;
        seat.enter(State::Starting { until: Some(now.at + seat.node.limits.start) }, now);
        self.out.push(Do::Launch { node: name.clone(), incarnation });
    }

    pub(super) fn launched(&mut self, name: &NodeName, incarnation: Incarnation, pid: u32) {
        if let Some(seat) = self.seats.get_mut(name)
            && seat.incarnation == Some(incarnation)
        {
            seat.pid = Some(pid);
        }
    }

    pub(super) fn launch_failed(&mut self, name: &NodeName, at: Incarnation, reason: String, now: Moment) {
        if let Some(seat) = self.seats.get_mut(name)
            && seat.incarnation == Some(at)
        {
            seat.clear();
            seat.reason = Some(reason);
            seat.last_exit = Some("it could not be launched".into());
            self.ended(name, now);
        }
    }

    /// A node has proved the token. Its first start is ours; a newer one was started by somebody else and
    /// fences ours; an older one has no business here.
    pub(super) fn registered(
        &mut self,
        name: NodeName,
        incarnation: Incarnation,
        pid: u32,
        wire: Wire,
        now: Moment,
    ) {
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let seat = self.seats.get_mut(&name);
        let Some(seat) = seat.filter(|seat| seat.incarnation.is_none_or(|known| known <= incarnation)) else {
            self.out.push(Do::Hangup { node: name, incarnation });
            return;
        };
        let same = seat.incarnation == Some(incarnation);
        let ours = same && seat.process;
        if !ours {
            // Of a process of ours that has ended, only a message can be late.
            if stopping || (same && !seat.theirs) {
                self.out.push(Do::Hangup { node: name, incarnation });
                return;
            }
            self.fence(&name, now);
            let Some(seat) = self.seats.get_mut(&name) else { return };
            seat.clear();
            seat.theirs = true;
            seat.incarnation = Some(incarnation);
            seat.born = now.at;
            seat.enter(State::Starting { until: None }, now);
            self.info(format!("{name} (pid {pid}) was started by somebody else: not restarted from here"));
        }
        let Some(seat) = self.seats.get_mut(&name) else { return };
        seat.pid = Some(pid);
        seat.wire = Some(wire);
        let number = seat.number;
        self.tell(&name, ToNode::Registered { number });
        self.tell_parents_of(&name);
        self.repeat_stop(&name);
    }

    /// Sends our own process of that node away, because a newer start of it has registered.
    fn fence(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get(name) else { return };
        let (true, Some(incarnation)) = (seat.process, seat.incarnation) else { return };
        let kill_at = Some(now.at + seat.node.drain + FIRM);
        self.warn(format!(
            "a newer {name} has registered: the one with incarnation {incarnation} must leave"
        ));
        self.fenced.push(Fenced { node: name.clone(), incarnation, kill_at });
        self.out.push(Do::Terminate { node: name.clone(), incarnation });
        self.tell_children_gone(name);
    }

    pub(super) fn said(&mut self, name: &NodeName, from: Incarnation, message: ToMaster, now: Moment) {
        let Some(seat) = self.seats.get_mut(name).filter(|seat| seat.incarnation == Some(from)) else {
            return;
        };
        match message {
            ToMaster::Ready { root, net, web } => self.ready(name, Listens { net, root, web }, now),
            ToMaster::CannotStart { reason } => seat.reason = Some(reason),
            ToMaster::Status(_) => {}
            ToMaster::Prepared { .. } | ToMaster::TookBack { .. } | ToMaster::HandedOver => {}
            ToMaster::Stopping => {
                // On our word it is leaving already; by itself (somebody sent it a signal) it has as long.
                if !matches!(seat.state, State::Stopping(_)) && !seat.is_down() {
                    let next = now.at + seat.node.drain + FIRM;
                    seat.enter(
                        State::Stopping(Leaving { stage: Stage::Polite, next, why: Why::Failing }),
                        now,
                    );
                    self.info(format!("{name} has begun to stop by itself"));
                }
            }
        }
    }

    fn ready(&mut self, name: &NodeName, listens: Listens, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let first = matches!(seat.state, State::Starting { .. });
        if !first && !matches!(seat.state, State::Ready) {
            return;
        }
        let news = first || seat.listens != Some(listens);
        seat.listens = Some(listens);
        if first {
            seat.proven = true;
            seat.enter(State::Ready, now);
            let (node, kind, pid) = (name.clone(), seat.node.kind.clone(), seat.pid);
            let took_ms = now.at.duration_since(seat.born).as_millis();
            self.out.push(Do::Report(Report::Ready { node, kind, pid, listens, took_ms }));
        }
        if news {
            self.tell_children_up(name);
        }
    }

    /// A lost control connection is no lost process: ours is known by its exit. Of somebody else's there
    /// is no other sign of life.
    pub(super) fn unlinked(&mut self, name: &NodeName, incarnation: Incarnation, now: Moment) {
        let Some(seat) = self.seats.get_mut(name).filter(|seat| seat.incarnation == Some(incarnation)) else {
            return;
        };
        seat.wire = None;
        if seat.process || seat.is_down() {
            return;
        }
        let asked = matches!(seat.state, State::Stopping(Leaving { why: Why::Asked, .. }));
        seat.last_exit = Some("its control connection ended".into());
        seat.clear();
        seat.enter(if asked { State::Stopped } else { State::Absent }, now);
        let text = format!("{name}, started by somebody else, has left");
        if asked { self.info(text) } else { self.warn(text) }
    }

    pub(super) fn exited(
        &mut self,
        name: &NodeName,
        incarnation: Incarnation,
        exit: &Exit,
        last_line: Option<String>,
        now: Moment,
    ) {
        self.fenced.retain(|fenced| fenced.node != *name || fenced.incarnation != incarnation);
        let Some(seat) = self.seats.get_mut(name) else { return };
        if seat.incarnation != Some(incarnation) || !seat.process {
            return;
        }
        seat.last_exit = Some(exit.to_string());
        if matches!(seat.state, State::Starting { .. }) {
            // It has not said why it cannot start: its last line may.
            seat.reason = seat.reason.take().or(last_line);
        }
        self.tell_children_gone(name);
        if let Some(seat) = self.seats.get_mut(name) {
            seat.clear();
        }
        self.ended(name, now);
    }

    /// No process is left of the node's newest start. What now?
    pub(super) fn ended(&mut self, name: &NodeName, now: Moment) {
        let stopping = matches!(self.phase, Phase::Stopping(_) | Phase::Ended);
        let Some(seat) = self.seats.get_mut(name) else { return };
        let asked = matches!(seat.state, State::Stopping(Leaving { why: Why::Asked, .. }));
        let how = seat.end_in_words();
        if asked || stopping {
            seat.enter(State::Stopped, now);
            self.info(format!("{name} has stopped: {how}"));
        } else if matches!(self.phase, Phase::Starting) && !seat.proven {
            seat.enter(State::Stopped, now);
            self.stop_all(None, Some(format!("{name} does not start: {how}")), now);
        } else {
            self.retry_later(name, &how, now);
        }
    }

    fn retry_later(&mut self, name: &NodeName, how: &str, now: Moment) {
        let limit = self.restart.crash_loop;
        let Some(seat) = self.seats.get_mut(name) else { return };
        let wait = seat.backoff.next(now.chance, now.at.duration_since(seat.born));
        let (until, quick) = (now.at + wait, seat.backoff.quick_ends());
        let ms = wait.as_millis();
        if quick >= limit {
            seat.enter(State::CrashLoop { until }, now);
            self.warn(format!("{name} ended: {how}; a crash loop, {quick} quick ends; again in {ms} ms"));
        } else {
            seat.enter(State::Backoff { until }, now);
            self.warn(format!("{name} ended: {how}; again in {ms} ms"));
        }
    }

    /// Restarts, start time-outs, and the next stage of every stop.
    pub(super) fn act_on_deadlines(&mut self, now: Moment) {
        let due = |name: &&NodeName| self.seats[*name].due().is_some_and(|due| due <= now.at);
        let due: Vec<NodeName> = self.order.iter().filter(due).cloned().collect();
        for name in due {
            let Some(seat) = self.seats.get_mut(&name) else { continue };
            match seat.state {
                State::Backoff { .. } | State::CrashLoop { .. } => {
                    seat.restarts += 1;
                    self.launch(&name, now);
                }
                State::Starting { .. } => self.too_slow(&name, now),
                State::Stopping(leaving) => self.press(&name, leaving, now),
                State::Stopped | State::Waiting | State::Ready | State::Absent => {}
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
        let limit: Duration = seat.node.limits.start;
        let reason = format!("it was not ready within {} s (limits.start_s)", limit.as_secs());
        let text = format!("{name}: {reason}");
        seat.reason = Some(reason);
        let leaving = Leaving { stage: Stage::Polite, next: now.at, why: Why::Failing };
        seat.enter(State::Stopping(leaving), now);
        self.warn(text);
        self.press(name, leaving, now);
    }

    pub(super) fn tell(&mut self, name: &NodeName, message: ToNode) {
        self.out.push(Do::Tell { node: name.clone(), tell: Tell::Message(message) });
    }
}
