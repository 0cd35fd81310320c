//! No registration takes a node away for good, whoever makes it: facts over the machine alone.

use std::time::Duration;

use ffambient::Chance;
use ffconfig::Cluster;
use ffproto::control::{Door, ToMaster, ToNode};
use ffproto::{Incarnation, NodeName};

use super::tests::{DEMO, World};
use super::*;
use crate::fixture::{cluster, name};

/// A few seconds: less than a person waits before doing something.
const SOON: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn unlink_as(&mut self, node: &str, incarnation: Incarnation) {
        self.see(Seen::Unlinked { node: name(node), incarnation });
    }

    /// A start that somebody else makes now.
    fn newer(&self, node: &str) -> Incarnation {
        Incarnation(self.incarnation(node).0 + 1)
    }
}

#[test]
fn a_seat_whose_somebody_else_has_left_is_taken_back_in_two_seconds() {
    let mut w = World::up();
    let (ours, theirs) = (w.incarnation("game1"), w.newer("game1"));
    w.register_as("game1", theirs);
    w.exit_as("game1", ours, Exit::Code(0));
    w.done();
    w.unlink_as("game1", theirs);
    assert_eq!((w.state("game1"), w.done()), (NodeState::Backoff, vec![]), "it may come back");
    w.pass(SOON);
    assert_eq!(w.done(), ["launch game1"]);
    assert!(w.incarnation("game1") > theirs);
    w.come_up("game1");
    assert_eq!(w.state("game1"), NodeState::Ready);
}

#[test]
fn a_somebody_else_that_comes_back_over_a_new_connection_keeps_the_seat() {
    let mut w = World::up();
    let (ours, theirs) = (w.incarnation("game1"), w.newer("game1"));
    w.register_as("game1", theirs);
    w.exit_as("game1", ours, Exit::Code(0));
    w.unlink_as("game1", theirs);
    w.register_as("game1", theirs);
    w.ready("game1");
    w.done();
    w.pass(SOON);
    assert_eq!((w.state("game1"), w.done()), (NodeState::Ready, vec![]));
}

#[test]
fn a_node_that_was_stopped_before_somebody_else_started_it_is_stopped_again() {
    let mut w = World::up();
    w.ask(Command::Stop(name("game1")));
    w.exit("game1", Exit::Code(0));
    let theirs = w.newer("game1");
    w.register_as("game1", theirs);
    w.ready("game1");
    w.unlink_as("game1", theirs);
    w.register_as("game1", theirs);
    w.unlink_as("game1", theirs);
    w.done();
    w.pass(SOON);
    assert_eq!((w.state("game1"), w.done()), (NodeState::Stopped, vec![]));
    w.ask(Command::Start(name("game1")));
    assert_eq!(w.done(), ["launch game1"]);
}

#[test]
fn a_start_of_the_far_future_is_nobodys() {
    let mut w = World::up();
    let before = w.incarnation("game1");
    for future in [u64::MAX, w.now.unix_ms + Incarnation::SKEW_MS] {
        w.register_as("game1", Incarnation(future));
        assert_eq!(w.done(), ["hangup game1"]);
    }
    assert_eq!((w.state("game1"), w.incarnation("game1")), (NodeState::Ready, before));
}

/// A process of ours.
#[derive(Clone)]
struct Ours {
    /// The nodes that it was started with.
    all: Vec<NodeName>,
    /// Those that have not left it.
    nodes: Vec<NodeName>,
    incarnation: Incarnation,
    pid: u32,
}

impl Ours {
    fn runs(&self, node: &str, incarnation: Incarnation) -> bool {
        self.incarnation == incarnation && self.nodes.iter().any(|name| *name == *node)
    }
}

/// What the world does to the machine: it obeys, when it is let, and strangers to the machine register and leave.
struct Sequence {
    world: World,
    /// Configs that differ in which nodes share a process, and the one that is in the file now.
    layouts: Vec<Cluster>,
    at: usize,
    /// Whether nodes leave when they are told to.
    polite: bool,
    pids: u32,
    /// Processes of ours that run.
    ours: Vec<Ours>,
    /// Control connections of starts that are not ours, as they were made.
    theirs: Vec<(NodeName, Incarnation)>,
    /// What becomes of the next launches: whether the host is short of something, or the program is none.
    fails: Vec<bool>,
    /// Whether a process gives a new master its sockets.
    gives_back: bool,
}

impl Sequence {
    fn new(layouts: Vec<Cluster>) -> Self {
        let world = World::new(&layouts[0], &[]);
        let (ours, theirs, fails) = (Vec::new(), Vec::new(), Vec::new());
        let (at, pids, polite, gives_back) = (0, 10, false, true);
        let mut sequence = Self { world, layouts, at, polite, pids, ours, theirs, fails, gives_back };
        sequence.obey();
        for node in DEMO.map(|node| node.split([':', ' ']).next().unwrap()) {
            sequence.world.come_up(node);
            sequence.obey();
        }
        sequence
    }

    /// The process of that start ends.
    fn end(&mut self, node: &str, incarnation: Incarnation, exit: Exit) {
        let at = self
            .ours
            .iter()
            .position(|ours| ours.incarnation == incarnation && ours.all.iter().any(|name| *name == *node));
        if let Some(at) = at {
            let ours = self.ours.remove(at);
            self.world.exit_as(ours.all[0].as_str(), incarnation, exit);
        }
    }

    /// A node leaves its process, which ends with the last one.
    fn leave(&mut self, node: &str, incarnation: Incarnation) {
        let Some(at) = self.ours.iter().position(|ours| ours.runs(node, incarnation)) else { return };
        if let [_] = &*self.ours[at].nodes {
            return self.end(node, incarnation, Exit::Code(0));
        }
        self.ours[at].nodes.retain(|name| *name != *node);
        self.world.unlink_as(node, incarnation);
    }

    /// A process that runs, and of which the machine knows nothing: nobody would ever end it.
    fn unknown(&self) -> Option<String> {
        let machine = &self.world.machine;
        let is_known = |ours: &&Ours| {
            let of_seat = !machine.aboard(&ours.all[0], ours.incarnation).is_empty();
            of_seat
                || machine.fenced.iter().any(|fenced| fenced.is_in_process_of(&ours.all[0], ours.incarnation))
        };
        let unknown = self.ours.iter().find(|ours| !is_known(ours));
        unknown.map(|ours| format!("{:?} {} {:?}", ours.all, ours.incarnation, ours.nodes))
    }

    /// Launches, ends and hangs up as the machine says.
    fn obey(&mut self) {
        loop {
            let todo = self.world.take_todo();
            if todo.is_empty() {
                return;
            }
            for todo in todo {
                match todo {
                    Do::Launch { nodes, incarnation } => match (self.fails.pop(), nodes[0].0.clone()) {
                        (Some(shortage), node) => {
                            let reason = "cannot start".into();
                            self.world.see(Seen::LaunchFailed { node, incarnation, reason, shortage });
                        }
                        (None, node) => {
                            let nodes: Vec<NodeName> = nodes.into_iter().map(|(node, _)| node).collect();
                            self.pids += 1;
                            let (all, pid) = (nodes.clone(), self.pids);
                            self.ours.push(Ours { all, nodes, incarnation, pid });
                            self.world.see(Seen::Launched { node, incarnation, pid });
                        }
                    },
                    Do::Terminate { node, incarnation } | Do::Kill { node, incarnation } => {
                        self.end(node.as_str(), incarnation, Exit::Code(0));
                    }
                    Do::Tell { node, incarnation, tell: Tell::Message(ToNode::Stop { .. }) }
                        if self.polite =>
                    {
                        self.leave(node.as_str(), incarnation);
                    }
                    Do::Hangup { node, incarnation } => {
                        self.theirs.retain(|theirs| *theirs != (node.clone(), incarnation));
                    }
                    Do::TakeBack { node, incarnation } => {
                        let sockets = if self.gives_back { Ok(()) } else { Err("none came".into()) };
                        self.world.see(Seen::HandedBack { node, incarnation, sockets });
                    }
                    _ => {}
                }
            }
        }
    }

    /// The master is killed; the next one finds what runs, unless nothing does: then it would be a first start, which one
    /// failure ends.
    fn next_master(&mut self) {
        if self.ours.is_empty() {
            return;
        }
        let numbers: Vec<_> = self.world.machine.numbers().map(|(name, of)| (name.clone(), of)).collect();
        let found = |ours: &Ours| {
            let (incarnation, pid) = (ours.incarnation, ours.pid);
            let found = |node: &NodeName| Found { node: node.clone(), incarnation, pid };
            ours.all.iter().map(found).collect::<Vec<_>>()
        };
        let found: Vec<Found> = self.ours.iter().flat_map(found).collect();
        let mut next = World::before(&self.layouts[self.at], &[]);
        next.now = self.world.now;
        next.machine.adopt(&numbers, found, next.now);
        self.world = next;
        self.theirs.clear();
        self.world.see(Seen::Begin);
    }

    /// The successor of a node, if there is one, gets so far and no further.
    fn succeed(&mut self, node: &str, far: u64) {
        let mut lives = self.world.machine.seats[node].lives().map(|life| life.incarnation);
        let (Some(Some(first)), Some(Some(second))) = (lives.next(), lives.next()) else { return };
        drop(lives);
        let w = &mut self.world;
        match far % 7 {
            6 => self.leave(node, second.min(first)),
            0 => w.register_as(node, second),
            1 => {
                w.register_as(node, second);
                w.say_as(node, second, ToMaster::Prepared { door: Door("door".into()) });
            }
            2 => w.ready_as(node, second),
            3 => w.say_as(node, second.min(first), ToMaster::HandedOver),
            4 => w.say_as(node, second.min(first), ToMaster::TookBack { reason: "it broke".into() }),
            _ => w.say_as(node, second, ToMaster::CannotStart { reason: "no database".into() }),
        }
    }

    /// A person starts a node, if the master lets him.
    fn start_by_hand(&mut self, node: &str, incarnation: Incarnation) {
        let now_ms = self.world.now.unix_ms;
        if self.world.machine.may_start_by_hand(&name(node), incarnation, now_ms).is_ok() {
            self.register(node, incarnation);
            self.world.ready_as(node, incarnation);
        }
    }

    fn register(&mut self, node: &str, incarnation: Incarnation) {
        let who = (name(node), incarnation);
        let is_ours = self.ours.iter().any(|ours| ours.runs(node, incarnation));
        if !is_ours && !self.theirs.contains(&who) {
            self.theirs.push(who);
        }
        self.world.register_as(node, incarnation);
    }

    fn act(&mut self, draw: u64) {
        let nodes = ["gate", "net", "game1"];
        let node = nodes[(draw >> 8) as usize % nodes.len()];
        // A node may have no start that anybody knows.
        let known = self.world.machine.seats[node].life.incarnation.map_or(0, |known| known.0);
        let w = &mut self.world;
        match draw % 17 {
            0 => {
                let any =
                    [known, known + 1, known.saturating_sub(1), u64::MAX, u64::MAX - 1, 0, 1, draw >> 16];
                let day = w.now.unix_ms + Incarnation::SKEW_MS / 2;
                let incarnation = any.into_iter().chain([day, day + 1]).nth((draw >> 16) as usize % 10);
                self.register(node, Incarnation(incarnation.unwrap_or(known)));
            }
            1 => self.register(node, Incarnation(known)),
            2 => w.ready_as(node, Incarnation(known)),
            3 => w.unlink_as(node, Incarnation(known)),
            4 => {
                if let Some((node, incarnation)) = self.theirs.pop() {
                    w.unlink_as(node.as_str(), incarnation);
                }
            }
            5 => {
                let runs = |ours: &&Ours| ours.all.iter().any(|name| *name == *node);
                if let Some(incarnation) = self.ours.iter().find(runs).map(|ours| ours.incarnation) {
                    self.end(node, incarnation, Exit::Signal(9));
                }
            }
            6 => w.say_as(node, Incarnation(known), ToMaster::Stopping),
            7 => w.ask(Command::Restart(name(node))),
            8 => w.ask(Command::Stop(name(node))),
            9 => w.ask(Command::Start(name(node))),
            10 => {
                let only = (draw >> 16).is_multiple_of(2).then(|| name(node));
                self.at = (draw >> 17) as usize % self.layouts.len();
                let cluster = self.layouts[self.at].clone().into();
                w.ask(Command::Reload { cluster, elsewhere: vec![], only });
            }
            11 | 12 => self.succeed(node, draw >> 16),
            13 => {
                let reason = "no database".into();
                w.say_as(node, Incarnation(known), ToMaster::CannotStart { reason });
            }
            14 => self.fails.push((draw >> 16).is_multiple_of(2)),
            15 => {
                let incarnation = Incarnation(w.now.unix_ms.max(known + (draw >> 16 & 1)));
                self.start_by_hand(node, incarnation);
            }
            16 if draw >> 16 & 3 == 0 => {
                self.gives_back = (draw >> 18).is_multiple_of(2);
                self.next_master();
            }
            _ => w.pass(Duration::from_millis(draw >> 8 & 0xfff)),
        }
        self.obey();
    }

    /// The host is well, all that are not ours leave, and what is launched comes up: every node serves, or is started when it is asked for.
    fn every_node_can_be_started(&mut self) -> Result<(), String> {
        self.fails.clear();
        let strangers = std::mem::take(&mut self.theirs);
        strangers.into_iter().for_each(|(node, of)| self.world.unlink_as(node.as_str(), of));
        self.obey();
        for node in ["gate", "net", "game1"] {
            for turn in 0..400 {
                match self.world.state(node) {
                    NodeState::Ready => break,
                    NodeState::Stopped | NodeState::Failed | NodeState::Absent => {
                        self.world.ask(Command::Start(name(node)));
                    }
                    _ => {
                        let running = self.ours.clone();
                        for Ours { nodes, incarnation, .. } in running {
                            for node in nodes {
                                self.world.register_as(node.as_str(), incarnation);
                                self.world.ready_as(node.as_str(), incarnation);
                            }
                        }
                    }
                }
                self.obey();
                self.world.pass(Duration::from_millis(200));
                self.obey();
                if turn == 399 {
                    let states = ["gate", "net", "game1"].map(|node| self.world.state(node));
                    let doing = self.world.machine.busy();
                    return Err(format!("{node} stays {:?}: {states:?}, {doing:?}", self.world.state(node)));
                }
            }
        }
        Ok(())
    }
}

/// Sequences of forty acts, one for each seed.
fn sequences(seeds: std::ops::Range<u64>, layouts: &[Cluster]) {
    for seed in seeds {
        let chance = Chance::seeded(seed);
        let mut sequence = Sequence::new(layouts.to_vec());
        for n in 0..40 {
            // In half of the sequences nodes do as they are told.
            sequence.polite = seed % 2 == 1;
            let draw = chance.u64().unwrap();
            sequence.act(draw);
            assert_eq!(sequence.unknown(), None, "seed {seed}, act {n}");
        }
        let started = sequence.every_node_can_be_started();
        assert_eq!(started, Ok(()), "seed {seed}");
    }
}

#[test]
fn no_sequence_of_registrations_links_and_closings_leaves_a_node_that_cannot_be_started() {
    sequences(0..300, &[cluster(&DEMO)]);
}

#[test]
fn no_sequence_leaves_a_node_that_cannot_be_started_or_a_process_that_nobody_ends_where_nodes_share_processes()
 {
    let shared = |nodes: &[&str]| {
        let mut cluster = cluster(&DEMO);
        for node in cluster.nodes.iter_mut().filter(|node| nodes.contains(&node.name.as_str())) {
            node.process = Some(name("world"));
        }
        cluster
    };
    let (three, world, players) =
        (shared(&["gate", "net", "game1"]), shared(&["gate", "game1"]), shared(&["net", "game1"]));
    sequences(0..150, std::slice::from_ref(&three));
    sequences(150..300, std::slice::from_ref(&world));
    sequences(300..700, &[three, world, players, cluster(&DEMO)]);
}
