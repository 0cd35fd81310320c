//! Every decision of the supervisor, as a pure machine: what was seen and when come in, what to do comes out.
//!
//! It knows no process, no socket and no clock. [`Machine::step`] is called for each fact and at
//! [`Machine::wake_at`]; what it returns is done in order.

mod adopt;
mod by_hand;
mod facts;
mod health;
mod job;
mod lives;
mod process;
mod replace;
mod seat;
mod stop;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_processes;
#[cfg(test)]
mod tests_of_processes_replaced;
#[cfg(test)]
mod tests_of_registrations;
#[cfg(test)]
mod tests_of_replacement;
mod topology;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use ffconfig::{Cluster, Node, Restart};
use ffproto::control::ToMaster;
use ffproto::{ClusterName, Incarnation, NodeName, NodeNumber};
use tokio::time::Instant;

pub use adopt::Found;
pub use facts::{
    Answer, Ask, Command, CrashView, Do, End, Exit, Listens, Moment, Outcome, Refused, Report, Seen, Tell,
    Wire,
};
pub use view::{
    BesideView, ClusterView, CommandView, HangView, NodeState, NodeView, ParentView, PhaseView, StepStage,
    StepView,
};

use job::Job;
use process::SharedProcess;
pub(crate) use seat::SILENT;
use seat::{Seat, SeatState};
use stop::Stop;

/// What the machine as a whole is doing.
#[derive(Debug)]
enum Phase {
    /// The first start: a node that fails now fails the whole start.
    Starting,
    /// Nodes that end are started again.
    Up,
    /// Wave by wave.
    Stopping(Stop),
    Ended,
}

/// A process of ours whose node has been started anew by somebody else: it must leave.
#[derive(Debug)]
struct Fenced {
    node: NodeName,
    incarnation: Incarnation,
    /// The process, when it runs several nodes.
    shared: Option<Arc<SharedProcess>>,
    /// When it is killed; `None` when that has been done.
    kill_at: Option<Instant>,
}

/// The supervisor's decisions.
#[derive(Debug)]
pub struct Machine {
    cluster: ClusterName,
    restart: Restart,
    seats: BTreeMap<NodeName, Seat>,
    /// The order of the config, for people.
    order: Vec<NodeName>,
    phase: Phase,
    begun: Option<Instant>,
    /// Whether the cluster ran already when this master started: then no node's failure ends it.
    adopted: bool,
    job: Option<Job>,
    /// The last command that has ended, for people.
    last_command: Option<CommandView>,
    fenced: Vec<Fenced>,
    /// Nodes that are to leave their process, which goes on without them.
    sent_away: Vec<(NodeName, Incarnation)>,
    out: Vec<Do>,
}

impl Machine {
    /// A machine for a checked config; the nodes in `elsewhere` are started by somebody else.
    pub fn new(cluster: &Cluster, elsewhere: &[NodeName], now: Moment) -> Self {
        let mut machine = Self {
            cluster: cluster.name.clone(),
            restart: cluster.master.restart.clone(),
            seats: BTreeMap::new(),
            order: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
            phase: Phase::Starting,
            begun: None,
            adopted: false,
            job: None,
            last_command: None,
            fenced: Vec::new(),
            sent_away: Vec::new(),
            out: Vec::new(),
        };
        for (node, number) in cluster.nodes.iter().zip(1..) {
            let here = !elsewhere.contains(&node.name);
            machine.add_seat(node.clone(), here, NodeNumber(number), now);
        }
        machine
    }

    /// Takes in one fact and says what to do about it.
    pub fn step(&mut self, now: Moment, seen: Seen) -> Vec<Do> {
        self.forgive_own_absence(now);
        match seen {
            // By far the most frequent, and almost never does anything follow from it.
            Seen::Said { node, incarnation, message: ToMaster::Status(status) } => {
                let Some(seat) = self.seats.get_mut(&node) else { return Vec::new() };
                let Some(life) = seat.life_of(incarnation) else { return Vec::new() };
                life.status = status;
                life.heard = now.at;
                if seat.hang.is_none() {
                    return Vec::new();
                }
                self.heard_again(&node, now);
            }
            Seen::Begin => self.begin(now),
            Seen::Launched { node, incarnation, pid } => self.launched(&node, incarnation, pid),
            Seen::LaunchFailed { node, incarnation, reason, shortage } => {
                self.launch_failed(&node, incarnation, reason, shortage, now);
            }
            Seen::Registered { node, incarnation, pid, wire } => {
                self.registered(node, incarnation, pid, wire, now);
            }
            Seen::Said { node, incarnation, message } => self.message(&node, incarnation, message, now),
            Seen::Unlinked { node, incarnation } => self.unlinked(&node, incarnation, now),
            Seen::Exited { node, incarnation, exit, lines } => {
                self.exited(&node, incarnation, &exit, &lines, now);
            }
            Seen::HandedBack { node, incarnation, sockets } => {
                self.handed_back(&node, incarnation, sockets, now);
            }
            Seen::Looked { node, incarnation, process } => self.looked(&node, incarnation, process),
            Seen::Asked { ask, command } => self.command(ask, command, now),
            Seen::Tick => {}
        }
        self.settle(now);
        std::mem::take(&mut self.out)
    }

    /// When the machine wants a [`Seen::Tick`].
    pub fn wake_at(&self) -> Option<Instant> {
        let seats = self.seats.values().filter_map(Seat::due);
        seats.chain(self.fenced.iter().filter_map(|fenced| fenced.kill_at)).min()
    }

    /// The config that a start of a node has.
    pub fn node(&self, name: &NodeName, incarnation: Incarnation) -> Option<Arc<Node>> {
        let mut lives = self.seats.get(name)?.lives();
        lives.find(|life| life.is(incarnation)).map(|life| Arc::clone(&life.node))
    }

    /// The configs of all nodes; of one that is being replaced, both.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let seats = self.order.iter().filter_map(|name| self.seats.get(name));
        seats.flat_map(Seat::lives).map(|life| &*life.node)
    }

    /// The name and the number of each node, in the order of the config.
    pub fn numbers(&self) -> impl Iterator<Item = (&NodeName, NodeNumber)> {
        let seats = self.order.iter().filter_map(|name| self.seats.get(name));
        seats.map(|seat| (seat.name(), seat.number))
    }

    /// Whether this master starts the node.
    pub fn is_here(&self, name: &NodeName) -> bool {
        self.seats.get(name).is_some_and(|seat| seat.here)
    }

    /// Why no command can be taken now.
    pub fn busy(&self) -> Option<Refused> {
        match (&self.phase, &self.job) {
            (Phase::Starting, _) => Some(Refused::Busy("the cluster is starting".into())),
            (Phase::Stopping(_) | Phase::Ended, _) => Some(Refused::Stopping),
            (Phase::Up, Some(job)) => Some(Refused::Busy(job.title())),
            (Phase::Up, None) => None,
        }
    }

    fn begin(&mut self, now: Moment) {
        self.begun = Some(now.at);
        // Those that are adopted run already.
        let down = |seat: &&mut Seat| seat.here && matches!(seat.state, SeatState::Stopped);
        for seat in self.seats.values_mut().filter(down) {
            seat.enter(SeatState::Waiting, now);
        }
    }

    fn add_seat(&mut self, node: Node, here: bool, number: NodeNumber, now: Moment) {
        let seat = Seat::new(node, here, number, &self.restart, now);
        self.seats.insert(seat.name().clone(), seat);
    }

    /// The smallest number that no node of the cluster has. The config has at most as many nodes.
    fn free_number(&self) -> NodeNumber {
        let taken: std::collections::BTreeSet<u16> = self.seats.values().map(|seat| seat.number.0).collect();
        NodeNumber((1..=NodeNumber::MAX).find(|number| !taken.contains(number)).unwrap_or(NodeNumber::MAX))
    }

    /// What follows from the state as it is now, whatever led to it.
    fn settle(&mut self, now: Moment) {
        self.act_on_deadlines(now);
        self.advance_job(now);
        self.advance_stop(now);
        self.launch_waiting(now);
        self.notice_up(now);
    }

    fn command(&mut self, ask: Ask, command: Command, now: Moment) {
        match command {
            Command::KillAll => {
                self.answer(ask, Ok(Vec::new()));
                self.kill_all();
            }
            Command::StopAll => self.stop_all(Some(ask), None, now),
            Command::Detach => match self.busy() {
                Some(refused) => self.answer(ask, Err(refused)),
                None => {
                    self.answer(ask, Ok(Vec::new()));
                    self.phase = Phase::Ended;
                    self.out.push(Do::End(End::Detached));
                }
            },
            command => match self.busy() {
                Some(refused) => self.answer(ask, Err(refused)),
                None => self.begin_job(ask, command, now),
            },
        }
    }

    /// The first start is over when every node of ours serves or has had its chance.
    fn notice_up(&mut self, now: Moment) {
        let Some(begun) = self.begun else { return };
        if !matches!(self.phase, Phase::Starting) || !self.seats.values().all(Seat::has_begun) {
            return;
        }
        self.phase = Phase::Up;
        let missing = self.order.iter().filter(|name| matches!(self.seats[*name].state, SeatState::Absent));
        let missing: Vec<NodeName> = missing.cloned().collect();
        let nodes = self.seats.values().filter(|seat| matches!(seat.state, SeatState::Ready)).count();
        let took_ms = now.at.duration_since(begun).as_millis();
        self.out.push(Do::Report(Report::Up { nodes, missing, took_ms }));
    }

    fn answer(&mut self, ask: Ask, answer: Answer) {
        self.out.push(Do::Answer { ask, answer });
    }

    fn info(&mut self, text: impl Into<String>) {
        self.out.push(Do::Report(Report::Info(text.into())));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.out.push(Do::Report(Report::Warn(text.into())));
    }
}
