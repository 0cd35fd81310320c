//! Processes that a master before this one has started: taken in as they register, or started anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ffproto::{Incarnation, NodeName, NodeNumber};

use super::process::SharedProcess;
use super::replace::{ReplaceTurn, Second};
use super::seat::{Life, Seat, SeatState};
use super::stop::FIRM;
use super::{Do, Fenced, Machine, Moment};

/// How long a running node may take to register at a new master: it tries at least every half second.
pub(super) const REGISTER_MAX: Duration = Duration::from_secs(5);

/// A living process that an earlier master has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of which node.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The process.
    pub pid: u32,
}

/// How long a node may take to register behind others of its process: each of them tries at least every half second.
pub(super) const MATES_REGISTER_MAX: Duration = Duration::from_secs(1);

impl Machine {
    /// Takes in what an earlier master has left: the numbers of its nodes, and its living processes. Before
    /// the start; processes of nodes that are not ours to start (any more) are ended.
    pub fn adopt(&mut self, numbers: &[(NodeName, NodeNumber)], mut found: Vec<Found>, now: Moment) {
        self.keep_numbers(numbers);
        self.adopted = !found.is_empty();
        found.sort_by_key(|found| found.incarnation);
        for one in &found {
            let Found { node: name, incarnation, pid } = one;
            let shared = self.shared_with(one, &found);
            let with_ours =
                shared.as_ref().is_some_and(|shared| shared.nodes.iter().any(|node| self.is_here(node)));
            match self.seats.get_mut(name).filter(|seat| seat.here) {
                Some(seat) => {
                    if let Some(second) = seat.found(*incarnation, *pid, shared, now) {
                        self.dismiss(name.clone(), second, now);
                    }
                }
                None if with_ours => {
                    self.warn(format!(
                        "{name} (pid {pid}) runs on until the process that it is in is replaced"
                    ));
                }
                None => {
                    self.warn(format!("{name} (pid {pid}) is not to run here any more: it is stopped"));
                    self.dismiss(name.clone(), *incarnation, now);
                }
            }
        }
    }

    /// The process of one that was found, when others were found in it.
    fn shared_with(&self, one: &Found, found: &[Found]) -> Option<Arc<SharedProcess>> {
        let same = |other: &&Found| (other.pid, other.incarnation) == (one.pid, one.incarnation);
        let nodes: Vec<NodeName> = found.iter().filter(same).map(|found| found.node.clone()).collect();
        let first = nodes.first().filter(|_| nodes.len() > 1)?;
        let mut named = nodes.iter().filter_map(|name| self.seats.get(name)?.life.node.process.clone());
        Some(Arc::new(SharedProcess { name: named.next().unwrap_or_else(|| first.clone()), nodes }))
    }

    /// A node may have left a process that others are still in before its new master was there: no end of a process tells of that.
    /// Whoever does not register soon behind those, and is not the one that serves, has left.
    pub(super) fn expect_mates(&mut self, now: Moment) {
        let bound = now.at + MATES_REGISTER_MAX;
        let linked = |life: &Life| life.wire.is_some();
        for name in &self.order {
            let Some(seat) = self.seats.get(name) else { continue };
            let Some(Second { life, turn, .. }) = &seat.second else { continue };
            let (Some(incarnation), false, Some(_)) = (life.incarnation, linked(life), &life.shared) else {
                continue;
            };
            let old_serves = linked(&seat.life) && seat.life.listens.is_some();
            let has_left = match turn {
                ReplaceTurn::Unknown { .. } => old_serves,
                ReplaceTurn::Leaving { done, .. } => *done,
                ReplaceTurn::Preparing { .. } | ReplaceTurn::TakingOver { .. } => false,
            };
            let mates = self.seats.values().filter_map(|mate| mate.life_in(name, incarnation));
            if !has_left || !mates.into_iter().any(linked) {
                continue;
            }
            if let Some(second) = self.seats.get_mut(name).and_then(|seat| seat.second.as_mut()) {
                second.hasten(bound);
            }
        }
    }

    /// Ends a process that has no seat.
    fn dismiss(&mut self, node: NodeName, incarnation: Incarnation, now: Moment) {
        let drain = self.seats.get(&node).map_or(Duration::from_secs(10), |seat| seat.life.node.drain);
        let kill_at = Some(now.at + drain + FIRM);
        self.fenced.push(Fenced { node: node.clone(), incarnation, shared: None, kill_at });
        self.out.push(Do::Terminate { node, incarnation });
    }

    /// Each node keeps the number that it had, for it stands in the ids of living sessions.
    fn keep_numbers(&mut self, numbers: &[(NodeName, NodeNumber)]) {
        let kept: Vec<_> = numbers.iter().filter(|(name, _)| self.seats.contains_key(name)).collect();
        // The number of one that is not here any more may stand in the ids of sessions that it still has.
        let taken: BTreeSet<u16> = numbers.iter().map(|(_, number)| number.0).collect();
        let mut free = (1..=NodeNumber::MAX).filter(|number| !taken.contains(number));
        for name in &self.order {
            let Some(seat) = self.seats.get_mut(name) else { continue };
            let had = kept.iter().find(|(kept, _)| kept == name).map(|(_, number)| *number);
            // The config has at most as many nodes as there are numbers.
            seat.number = had.or_else(|| free.next().map(NodeNumber)).unwrap_or(seat.number);
        }
    }

    /// Asks the process that serves for its listening sockets, once it is known which one that is.
    pub(super) fn take_back_sockets(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let until = now.at + REGISTER_MAX;
        let ready = seat.life.listens.is_some();
        seat.enter(SeatState::Adopting { until, ready, back: false }, now);
        let undecided = matches!(&seat.second, Some(second) if !second.is_old());
        if let (false, Some(_), Some(incarnation)) = (undecided, seat.life.wire, seat.life.incarnation) {
            self.out.push(Do::TakeBack { node: name.clone(), incarnation });
        }
    }

    /// A node has given its listening sockets, or has not.
    pub(super) fn handed_back(
        &mut self,
        name: &NodeName,
        from: Incarnation,
        sockets: Result<(), String>,
        now: Moment,
    ) {
        if let Err(why) = sockets {
            self.warn(format!("{name} keeps its listening sockets to itself: {why}"));
        }
        if let Some(seat) = self.seats.get_mut(name).filter(|seat| seat.life.is(from))
            && let SeatState::Adopting { until, ready, .. } = seat.state
        {
            seat.state = SeatState::Adopting { until, ready, back: true };
            self.finish_adoption(name, now);
        }
    }

    /// Adopted: it serves, and its sockets are here.
    pub(super) fn finish_adoption(&mut self, name: &NodeName, now: Moment) {
        let Some(seat) = self.seats.get_mut(name) else { return };
        let SeatState::Adopting { until, ready, back } = seat.state else { return };
        if !ready || !(back || until <= now.at) {
            return;
        }
        let pid = seat.life.pid.unwrap_or_default();
        seat.life.heard = now.at;
        seat.enter(SeatState::Ready, now);
        self.info(format!("{name} (pid {pid}) is adopted: it has served all the time"));
        self.tell_children_up(name);
    }

    /// The time to register, or to say what it does, is over.
    pub(super) fn not_adopted(&mut self, name: &NodeName, now: Moment) {
        self.finish_adoption(name, now);
        let Some(seat) = self.seats.get_mut(name) else { return };
        if !matches!(seat.state, SeatState::Adopting { .. }) {
            return;
        }
        if seat.life.wire.is_some() {
            // It was about to start when its master went: it has its whole time.
            seat.enter(SeatState::Starting { until: Some(now.at + seat.life.node.limits.start) }, now);
            return;
        }
        let reason = format!("it did not register at the new master within {} s", REGISTER_MAX.as_secs());
        let text = format!("{name}: {reason}: killed");
        seat.life.reason = Some(reason);
        seat.enter(SeatState::Adopting { until: now.at + REGISTER_MAX, ready: false, back: false }, now);
        if let Some(incarnation) = seat.life.incarnation {
            self.out.push(Do::Kill { node: name.clone(), incarnation });
        }
        self.warn(text);
    }
}

impl Seat {
    /// A process of it has been found. The newest two are kept; what does not fit is given back.
    fn found(
        &mut self,
        incarnation: Incarnation,
        pid: u32,
        shared: Option<Arc<SharedProcess>>,
        now: Moment,
    ) -> Option<Incarnation> {
        let life = Life::launched(self.life.node.clone(), incarnation, now);
        let life = Life { pid: Some(pid), shared, ..life };
        let until = now.at + REGISTER_MAX;
        self.proven = true;
        if !self.life.process {
            self.life = life;
            self.enter(SeatState::Adopting { until, ready: false, back: false }, now);
            return None;
        }
        let newest = Second { life, turn: ReplaceTurn::Unknown { until }, since_ms: now.unix_ms };
        let before = self.second.replace(newest)?;
        std::mem::replace(&mut self.life, before.life).incarnation
    }
}
