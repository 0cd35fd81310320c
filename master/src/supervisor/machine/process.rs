//! The processes that run several nodes: who is aboard, and what a launch, an end or a stop of one means for all of them.

use std::sync::Arc;

use ffproto::control::ToNode;
use ffproto::{Incarnation, NodeName};
use tokio::time::Instant;

use super::adopt::MATES_REGISTER_MAX;
use super::replace::{ReplaceTurn, Second};
use super::seat::{Life, Seat, SeatState, Stage, StopProgress, Why};
use super::stop::{FIRM, KILLED, MARGIN};
use super::{Do, Fenced, Machine, Moment, Phase};

/// A process that runs several nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedProcess {
    /// Its name, as the config had it.
    pub(super) name: NodeName,
    /// The nodes that it was started with.
    pub(super) nodes: Vec<NodeName>,
}

/// How far a node is on its way out of a process.
type WayOut = Option<(Stage, Instant)>;

impl Life {
    /// Whether this is a life in the process that runs, or has run, that start of that node.
    pub(super) fn is_in_process_of(&self, node: &NodeName, incarnation: Incarnation) -> bool {
        let in_it = match &self.shared {
            Some(shared) => shared.nodes.contains(node),
            None => self.node.name == *node,
        };
        in_it && self.is(incarnation)
    }

    /// What its process is called: as the node, when it has no other.
    pub(super) fn process_name(&self) -> &NodeName {
        self.shared.as_ref().map_or(&self.node.name, |shared| &shared.name)
    }
}

impl Fenced {
    pub(super) fn is_in_process_of(&self, node: &NodeName, incarnation: Incarnation) -> bool {
        let shared = self.shared.as_ref();
        let in_it = shared.map_or(self.node == *node, |shared| shared.nodes.contains(node));
        in_it && self.incarnation == incarnation
    }
}

impl Seat {
    /// The name of the process that it shares: of the one that runs, else of the one that the config has.
    pub(super) fn process_name(&self) -> Option<NodeName> {
        let running = self.life.shared.as_ref().filter(|_| self.life.process).map(|shared| &shared.name);
        let runs = self.life.process || self.life.theirs;
        running.or(self.life.node.process.as_ref().filter(|_| !runs)).cloned()
    }

    /// Its life in that process.
    pub(super) fn life_in(&self, node: &NodeName, incarnation: Incarnation) -> Option<&Life> {
        self.lives().find(|life| life.process && life.is_in_process_of(node, incarnation))
    }
}

/// One process for nodes of these configs; `None` for one node, whose process is its own.
pub(super) fn shared_by(nodes: &[&ffconfig::Node]) -> Option<Arc<SharedProcess>> {
    let first = nodes.first().filter(|_| nodes.len() > 1)?;
    let name = first.process.clone().unwrap_or_else(|| first.name.clone());
    let nodes = nodes.iter().map(|node| node.name.clone()).collect();
    Some(Arc::new(SharedProcess { name, nodes }))
}

impl Machine {
    /// The nodes that are in that process, in the order of the config.
    pub(super) fn aboard(&self, node: &NodeName, incarnation: Incarnation) -> Vec<NodeName> {
        let in_it = |name: &&NodeName| {
            self.seats.get(*name).is_some_and(|seat| seat.life_in(node, incarnation).is_some())
        };
        self.order.iter().filter(in_it).cloned().collect()
    }

    /// What the process of that start is called; `None` when the node is alone in it.
    pub fn name_of_process(&self, node: &NodeName, incarnation: Incarnation) -> Option<NodeName> {
        let mut lives = self.seats.get(node)?.lives();
        Some(lives.find(|life| life.is(incarnation))?.shared.as_ref()?.name.clone())
    }

    /// The nodes of this host that the config has in one process with that one, itself included.
    pub(super) fn mates(&self, name: &NodeName) -> Vec<NodeName> {
        let Some(own) = self.seats.get(name) else { return Vec::new() };
        let shares = |seat: &&Seat| seat.here && seat.life.node.shares_process_with(&own.life.node);
        let seats = self.order.iter().filter_map(|name| self.seats.get(name));
        seats.filter(shares).map(|seat| seat.name().clone()).collect()
    }

    /// The nodes that a command for that one is for: those that run in its process, and those that the config has in it.
    pub(super) fn with_its_process(&self, name: &NodeName) -> Vec<NodeName> {
        let Some(seat) = self.seats.get(name) else { return Vec::new() };
        let aboard = seat.lives().filter_map(|life| Some(self.aboard(name, life.incarnation?)));
        let (aboard, mates) = (aboard.collect::<Vec<_>>().concat(), self.mates(name));
        let ours = |other: &&NodeName| self.seats.get(*other).is_some_and(Seat::is_ours_to_start);
        let meant = |other: &&NodeName| {
            *other == name || (ours(other) && (aboard.contains(other) || mates.contains(other)))
        };
        self.order.iter().filter(meant).cloned().collect()
    }

    /// What several nodes of one process are called in the log.
    pub(super) fn title(&self, names: &[NodeName]) -> String {
        match names {
            [] => String::new(),
            [one] => one.to_string(),
            [first, ..] => {
                let process = self.seats.get(first).map_or(first, |seat| seat.life.process_name());
                let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
                format!("{process} ({})", names.join(", "))
            }
        }
    }

    /// Whether others are in the process who are not on their way out of it.
    pub(super) fn others_stay(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        self.ways_out(name, incarnation).iter().any(|(other, way)| other != name && way.is_none())
    }

    /// Whether that life is the one of its process that is named when something is done to the process.
    pub(super) fn speaks_for_its_process(&self, life: &Life) -> bool {
        let Some(incarnation) = life.incarnation else { return true };
        life.shared.is_none()
            || self.aboard(&life.node.name, incarnation).first().is_none_or(|first| *first == life.node.name)
    }

    /// Starts one process for nodes of which nothing runs.
    pub(super) fn launch_together(&mut self, names: &[NodeName], now: Moment) {
        let seats: Vec<&Seat> = names.iter().filter_map(|name| self.seats.get(name)).collect();
        let newest = seats.iter().filter_map(|seat| seat.before_next()).max();
        let shared = shared_by(&seats.iter().map(|seat| &*seat.life.node).collect::<Vec<_>>());
        let incarnation = Incarnation::next(now.unix_ms, newest);
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            let life = Life::launched(Arc::clone(&seat.life.node), incarnation, now);
            seat.life = Life { shared: shared.clone(), ..life };
            seat.made = Some(incarnation);
            seat.enter(SeatState::Starting { until: Some(now.at + seat.life.node.limits.start) }, now);
        }
        let nodes = names.iter().map(|name| (name.clone(), None)).collect();
        self.out.push(Do::Launch { nodes, incarnation });
    }

    /// The wait of a node that had ended is over: it starts again, and with it those of its process that wait, too.
    pub(super) fn launch_again(&mut self, name: &NodeName, now: Moment) {
        let waits = |name: &NodeName| {
            let state = self.seats.get(name).map(|seat| seat.state);
            matches!(state, Some(SeatState::Backoff { .. } | SeatState::CrashLoop { .. }))
        };
        let names: Vec<NodeName> = self.mates(name).into_iter().filter(waits).collect();
        for name in &names {
            self.seats.get_mut(name).into_iter().for_each(|seat| seat.restarts += 1);
        }
        self.launch_together(&names, now);
    }

    /// A node whose control connection has ended on its way out has left its process, if that goes on with others: only the end of
    /// the last one is known by the end of the process.
    pub(super) fn left_its_process(&mut self, name: &NodeName, incarnation: Incarnation, now: Moment) {
        if self.aboard(name, incarnation).iter().all(|other| other == name) {
            return;
        }
        let stopping = matches!(self.phase, Phase::Stopping(_));
        let Some(seat) = self.seats.get_mut(name) else { return };
        match (&mut seat.second, seat.state) {
            (Some(second), _) if second.life.is(incarnation) => match second.turn {
                ReplaceTurn::Leaving { done: true, .. } => {
                    seat.second = None;
                    self.info(format!("{name} has left the old process, which others are still in"));
                }
                // It ends without a master. Unless all of its process has ended: that says more, and comes next.
                ReplaceTurn::Preparing { .. } | ReplaceTurn::Unknown { .. } => {
                    second.life.reason.get_or_insert_with(|| "its control connection ended".into());
                    second.hasten(now.at + MATES_REGISTER_MAX);
                }
                ReplaceTurn::Leaving { done: false, .. } | ReplaceTurn::TakingOver { .. } => {}
            },
            (_, SeatState::Stopping(progress))
                if seat.life.is(incarnation) && (stopping || progress.why == Why::Asked) =>
            {
                seat.last_exit = Some("it has left its process".into());
                self.tell_children_gone(name);
                self.seats.get_mut(name).into_iter().for_each(|seat| seat.life.clear());
                self.ended(std::slice::from_ref(name), now);
            }
            _ => {}
        }
    }

    /// Who is in the process, and how far on the way out; `None` for who stays.
    fn ways_out(&self, node: &NodeName, incarnation: Incarnation) -> Vec<(NodeName, WayOut)> {
        let way = |name: NodeName| {
            let seat = self.seats.get(&name)?;
            let way = match (&seat.second, seat.state) {
                (Some(second), _) if second.life.is_in_process_of(node, incarnation) => match second.turn {
                    ReplaceTurn::Leaving { stage, next, .. } => Some((stage, next)),
                    _ => None,
                },
                (_, SeatState::Stopping(progress)) => Some((progress.stage, progress.next)),
                _ => None,
            };
            Some((name, way))
        };
        self.aboard(node, incarnation).into_iter().filter_map(way).collect()
    }

    fn set_way_out(&mut self, name: &NodeName, incarnation: Incarnation, to: Stage, at: Instant) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        match &mut seat.second {
            Some(Second { life, turn: ReplaceTurn::Leaving { stage, next, .. }, .. })
                if life.is(incarnation) =>
            {
                (*stage, *next) = (to, at);
            }
            _ => {
                if let (true, SeatState::Stopping(progress)) = (seat.life.is(incarnation), &mut seat.state) {
                    (progress.stage, progress.next) = (to, at);
                }
            }
        }
    }

    /// A bound is reached of a node on its way out of a process of several. What ends the process waits for the last of their
    /// bounds; where others stay, they are told to stop first: the signal is for all.
    pub(super) fn press_process(&mut self, name: &NodeName, incarnation: Incarnation, now: Moment) {
        for other in self.ways_out(name, incarnation) {
            if let (other, None) = other {
                self.stop_with(&other, name, incarnation, now);
            }
        }
        let ways = self.ways_out(name, incarnation);
        let bounds = || ways.iter().filter_map(|(_, way)| *way);
        let Some(latest) = bounds().map(|(_, next)| next).max() else { return };
        let stage = bounds().map(|(stage, _)| stage).min().unwrap_or(Stage::Polite);
        if latest > now.at {
            return self.set_way_out(name, incarnation, stage, latest);
        }
        let names: Vec<NodeName> = ways.iter().map(|(name, _)| name.clone()).collect();
        let (title, node) = (self.title(&names), name.clone());
        let (then, wait) = match stage {
            Stage::Polite => {
                self.out.push(Do::Terminate { node, incarnation });
                self.warn(format!("{title}: its process takes too long: told firmly (SIGTERM)"));
                (Stage::Firm, FIRM)
            }
            Stage::Firm => {
                self.out.push(Do::Kill { node, incarnation });
                self.warn(format!("{title}: its process takes too long: killed (SIGKILL)"));
                (Stage::Killed, KILLED)
            }
            Stage::Killed => {
                self.warn(format!("{title}: its process does not end, not even by SIGKILL: given up"));
                return self.forget_process(&names, incarnation, now);
            }
        };
        names.iter().for_each(|name| self.set_way_out(name, incarnation, then, now.at + wait));
    }

    /// A node stays in a process that has to end, because of another one.
    fn stop_with(&mut self, name: &NodeName, because_of: &NodeName, incarnation: Incarnation, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        if !seat.life.is_in_process_of(because_of, incarnation) {
            return self.roll_back(name, &format!("{because_of}, in its process, does not leave"), now);
        }
        let why = if matches!(self.phase, Phase::Stopping(_)) { Why::Asked } else { Why::Failing };
        let next = now.at + seat.life.node.drain + MARGIN;
        seat.enter(SeatState::Stopping(StopProgress { stage: Stage::Polite, next, why }), now);
        self.ask_to_stop(name);
    }

    /// The process is stuck in the kernel: nobody waits for it any more.
    fn forget_process(&mut self, names: &[NodeName], incarnation: Incarnation, now: Moment) {
        let mut ended = Vec::new();
        for name in names {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            if seat.second.take_if(|second| second.life.is(incarnation)).is_none() {
                seat.life.clear();
                seat.last_exit = Some("it did not end, not even by SIGKILL".into());
                ended.push(name.clone());
            }
        }
        self.ended(&ended, now);
    }

    /// A predecessor in a process of several has a bound that is reached.
    pub(super) fn leaving_is_due(&mut self, name: &NodeName, incarnation: Incarnation, now: Moment) {
        if !self.others_stay(name, incarnation) {
            return self.press_process(name, incarnation, now);
        }
        let their_turn_comes = self.job.as_ref().is_some_and(|job| job.is_under_way());
        let Some(seat) = self.seats.get_mut(name) else { return };
        let Some(Second { life, turn: ReplaceTurn::Leaving { stage, next, done, .. }, .. }) =
            &mut seat.second
        else {
            return;
        };
        if their_turn_comes && *done && life.wire.is_some() {
            *next = now.at + MARGIN;
        } else if let (Stage::Polite, Some(_)) = (*stage, life.wire) {
            // The others serve on in this process, so no signal ends it.
            (*stage, *next) = (Stage::Firm, now.at + life.node.drain + MARGIN);
            let drain_ms = u64::try_from(life.node.drain.as_millis()).unwrap_or(u64::MAX);
            self.tell(name, incarnation, ToNode::Stop { drain_ms });
        } else {
            let linked = life.wire.is_some();
            seat.second = None;
            self.sent_away.push((name.clone(), incarnation));
            if linked {
                let text = "takes too long to leave the old process, which others are still in";
                self.warn(format!("{name} {text}"));
            } else {
                let text = "is not heard of in the old process, which others are still in: it has left";
                self.info(format!("{name} {text}"));
            }
        }
    }

    /// Gives up a successor, or a process that was one. Where others are in its process, it is ended as a whole: they are rolled
    /// back, and who has taken over already is taken back from. Not when that cannot be (any more) for one of them, or may not:
    /// then this node alone has to leave.
    pub(super) fn give_up(&mut self, life: &Life, why: &str, may_end_others: bool, now: Moment) {
        let (Some(incarnation), true) = (life.incarnation, life.process) else { return };
        let name = &life.node.name;
        let mut mates = self.aboard(name, incarnation);
        mates.retain(|mate| mate != name);
        let serves = |mate: &NodeName| self.seats[mate].life.is_in_process_of(name, incarnation);
        let (serving, pending): (Vec<NodeName>, Vec<NodeName>) = mates.into_iter().partition(serves);
        let is_safe = |mate: &NodeName| {
            let seat = &self.seats[mate];
            let old = seat.second.as_ref().filter(|second| second.is_old());
            may_end_others && (seat.life.newcomer || old.is_some_and(|old| old.life.wire.is_some()))
        };
        if !serving.iter().all(is_safe) {
            self.sent_away.push((name.clone(), incarnation));
            return self.tell(name, incarnation, ToNode::Stop { drain_ms: 0 });
        }
        for mate in &serving {
            let Some(seat) = self.seats.get_mut(mate) else { continue };
            (seat.life.given_up, seat.life.reason) = (true, Some(format!("{name}, in its process: {why}")));
        }
        for mate in &pending {
            let Some(seat) = self.seats.get_mut(mate) else { continue };
            seat.second = None;
            let text = format!("rolled back with {name}: {why}; the old process goes on");
            seat.verdict = Some(Err(text.clone()));
            if matches!(seat.state, SeatState::Adopting { .. }) {
                self.take_back_sockets(mate, now);
            }
            self.note_failure(mate, &text, now);
        }
        self.end_now(life);
    }
}
