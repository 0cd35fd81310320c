//! No registration takes a node away for good, whoever makes it: facts over the machine alone.

use std::time::Duration;

use ffambient::Chance;
use ffproto::control::{Door, ToMaster};
use ffproto::{Incarnation, NodeName};

use super::tests::{DEMO, World};
use super::*;
use crate::fixture::{cluster, name};

/// A few seconds: less than a person waits before doing something.
const SOON: Duration = Duration::from_secs(2);

impl World {
    fn unlink_as(&mut self, node: &str, incarnation: Incarnation) {
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

/// What the world does to the machine: it obeys, when it is let, and strangers to the machine register and leave.
struct Sequence {
    world: World,
    /// Processes of ours that run.
    ours: Vec<(NodeName, Incarnation)>,
    /// Control connections of starts that are not ours, as they were made.
    theirs: Vec<(NodeName, Incarnation)>,
    /// What becomes of the next launches: whether the host is short of something, or the program is none.
    fails: Vec<bool>,
    /// Whether a process gives a new master its sockets.
    gives_back: bool,
}

impl Sequence {
    fn new() -> Self {
        let world = World::new(&cluster(&DEMO), &[]);
        let (ours, theirs, fails) = (Vec::new(), Vec::new(), Vec::new());
        let mut sequence = Self { world, ours, theirs, fails, gives_back: true };
        sequence.obey();
        for node in DEMO.map(|node| node.split([':', ' ']).next().unwrap()) {
            sequence.world.come_up(node);
            sequence.obey();
        }
        sequence
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
                    Do::Launch { node, incarnation, .. } => match self.fails.pop() {
                        Some(shortage) => {
                            let reason = "cannot start".into();
                            self.world.see(Seen::LaunchFailed { node, incarnation, reason, shortage });
                        }
                        None => {
                            self.ours.push((node.clone(), incarnation));
                            self.world.see(Seen::Launched { node, incarnation, pid: 9 });
                        }
                    },
                    Do::Terminate { node, incarnation } | Do::Kill { node, incarnation } => {
                        self.ours.retain(|ours| *ours != (node.clone(), incarnation));
                        self.world.exit_as(node.as_str(), incarnation, Exit::Code(0));
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
        let found = self.ours.iter().map(|(node, of)| Found { node: node.clone(), incarnation: *of, pid: 9 });
        let found = found.collect();
        let mut next = World::before(&cluster(&DEMO), &[]);
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
        match far % 6 {
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
        if !self.ours.contains(&who) && !self.theirs.contains(&who) {
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
                if let Some(at) = self.ours.iter().position(|(ours, _)| *ours == *node) {
                    let (_, incarnation) = self.ours.remove(at);
                    w.exit_as(node, incarnation, Exit::Signal(9));
                }
            }
            6 => w.say_as(node, Incarnation(known), ToMaster::Stopping),
            7 => w.ask(Command::Restart(name(node))),
            8 => w.ask(Command::Stop(name(node))),
            9 => w.ask(Command::Start(name(node))),
            10 => {
                let only = (draw >> 16).is_multiple_of(2).then(|| name(node));
                w.ask(Command::Reload { cluster: cluster(&DEMO).into(), elsewhere: vec![], only });
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
                        for (node, incarnation) in running {
                            self.world.register_as(node.as_str(), incarnation);
                            self.world.ready_as(node.as_str(), incarnation);
                        }
                    }
                }
                self.obey();
                self.world.pass(Duration::from_millis(200));
                self.obey();
                if turn == 399 {
                    return Err(format!("{node} stays {:?}", self.world.state(node)));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn no_sequence_of_registrations_links_and_closings_leaves_a_node_that_cannot_be_started() {
    for seed in 0..300 {
        let chance = Chance::seeded(seed);
        let mut sequence = Sequence::new();
        for _ in 0..40 {
            sequence.act(chance.u64().unwrap());
        }
        let started = sequence.every_node_can_be_started();
        assert_eq!(started, Ok(()), "seed {seed}");
    }
}
