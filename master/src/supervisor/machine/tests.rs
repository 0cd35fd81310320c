//! The machine's decisions as facts, with a clock that moves only when told.

use std::net::IpAddr;
use std::time::Duration;

use ffconfig::Cluster;
use ffproto::control::{Door, NodeStatus, ToMaster, ToNode};
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::time::Instant;

use super::*;
use crate::fixture::{changed, cluster, name};

pub(super) const DEMO: [&str; 3] = ["gate", "net:10001 > gate", "game1 > gate"];

/// A machine, its clock, and what it wants done that the test has not looked at yet.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Moment,
    todo: Vec<Do>,
    /// Nodes whose loop does not turn.
    pub(super) hanging: Vec<NodeName>,
}

impl World {
    pub(super) fn new(cluster: &Cluster, elsewhere: &[&str]) -> Self {
        let mut world = Self::before(cluster, elsewhere);
        world.see(Seen::Begin);
        world
    }

    /// Before anything is started.
    pub(super) fn before(cluster: &Cluster, elsewhere: &[&str]) -> Self {
        let now = Moment { at: Instant::now(), unix_ms: 1_000_000, chance: 1.0 };
        let elsewhere: Vec<NodeName> = elsewhere.iter().map(|n| name(n)).collect();
        let machine = Machine::new(cluster, &elsewhere, now);
        Self { machine, now, todo: Vec::new(), hanging: Vec::new() }
    }

    /// The demo cluster with all three nodes ready.
    pub(super) fn up() -> Self {
        let mut world = Self::new(&cluster(&DEMO), &[]);
        for node in ["gate", "net", "game1"] {
            world.come_up(node);
        }
        assert_eq!(world.machine.view().state, PhaseView::Up);
        world.todo.clear();
        world
    }

    pub(super) fn see(&mut self, seen: Seen) {
        let todo = self.machine.step(self.now, seen);
        self.todo.extend(todo);
    }

    /// Moves the clock, with a tick at every moment that the machine asked for, and with a word twice a
    /// second from each process whose loop turns.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.at + time;
        loop {
            self.turn_loops();
            let word = self.now.at + MS(500);
            let next = self.machine.wake_at().unwrap_or(end).min(word).min(end).max(self.now.at);
            self.now.unix_ms += u64::try_from((next - self.now.at).as_millis()).unwrap();
            self.now.at = next;
            self.see(Seen::Tick);
            if next == end && self.machine.wake_at().is_none_or(|at| at > end) {
                return;
            }
        }
    }

    pub(super) fn turn_loops(&mut self) {
        let lives = self.machine.seats.values().flat_map(seat::Seat::lives);
        let turn = lives.filter(|life| life.wire.is_some() && !self.hanging.contains(&life.node.name));
        let words: Vec<Seen> = turn
            .map(|life| Seen::Said {
                node: life.node.name.clone(),
                incarnation: life.incarnation.unwrap(),
                message: ToMaster::Status(life.status.clone()),
            })
            .collect();
        words.into_iter().for_each(|word| self.see(word));
    }

    /// The other process of a node.
    pub(super) fn other(&self, node: &str) -> Incarnation {
        self.machine.seats[node].second.as_ref().unwrap().life.incarnation.unwrap()
    }

    pub(super) fn say_as(&mut self, node: &str, incarnation: Incarnation, message: ToMaster) {
        self.see(Seen::Said { node: name(node), incarnation, message });
    }

    pub(super) fn ready_as(&mut self, node: &str, incarnation: Incarnation) {
        let root = Some("127.0.0.1:20000".parse().unwrap());
        self.say_as(node, incarnation, ToMaster::Ready { root, net: None, web: None });
    }

    pub(super) fn exit_as(&mut self, node: &str, incarnation: Incarnation, exit: Exit) {
        self.see(Seen::Exited { node: name(node), incarnation, exit, lines: vec![] });
    }

    /// The successor of a node registers and is prepared.
    pub(super) fn prepare(&mut self, node: &str) -> Incarnation {
        let successor = self.other(node);
        self.see(Seen::Launched { node: name(node), incarnation: successor, pid: 8 });
        self.register_as(node, successor);
        self.say_as(node, successor, ToMaster::Prepared { door: Door("door".into()) });
        successor
    }

    /// The successor of a node takes over; the predecessor has ended what it had begun, and stands by.
    pub(super) fn take_over(&mut self, node: &str) {
        let successor = self.prepare(node);
        self.ready_as(node, successor);
        self.say_as(node, self.other(node), ToMaster::HandedOver);
    }

    /// The predecessor of a node leaves.
    pub(super) fn leave(&mut self, node: &str) {
        self.exit_as(node, self.other(node), Exit::Code(0));
    }

    pub(super) fn incarnation(&self, node: &str) -> Incarnation {
        self.machine.seats[node].life.incarnation.unwrap()
    }

    pub(super) fn register(&mut self, node: &str) {
        let incarnation = self.incarnation(node);
        self.register_as(node, incarnation);
    }

    pub(super) fn register_as(&mut self, node: &str, incarnation: Incarnation) {
        let wire = Wire { peer: loopback(), local: loopback() };
        self.see(Seen::Registered { node: name(node), incarnation, pid: 7, wire });
    }

    pub(super) fn say(&mut self, node: &str, message: ToMaster) {
        let incarnation = self.incarnation(node);
        self.see(Seen::Said { node: name(node), incarnation, message });
    }

    pub(super) fn ready(&mut self, node: &str) {
        let root = Some("127.0.0.1:20000".parse().unwrap());
        self.say(node, ToMaster::Ready { root, net: None, web: None });
    }

    pub(super) fn come_up(&mut self, node: &str) {
        let incarnation = self.incarnation(node);
        self.see(Seen::Launched { node: name(node), incarnation, pid: 7 });
        self.register(node);
        self.ready(node);
    }

    pub(super) fn exit(&mut self, node: &str, exit: Exit) {
        self.exit_saying(node, exit, None);
    }

    pub(super) fn exit_saying(&mut self, node: &str, exit: Exit, last_line: Option<&str>) {
        let incarnation = self.incarnation(node);
        let lines = last_line.map(str::to_owned).into_iter().collect();
        self.see(Seen::Exited { node: name(node), incarnation, exit, lines });
    }

    pub(super) fn ask(&mut self, command: Command) {
        self.see(Seen::Asked { ask: 1, command });
    }

    pub(super) fn reload(&mut self, cluster: Cluster) {
        self.ask(Command::Reload { cluster: cluster.into(), elsewhere: vec![], only: None });
    }

    pub(super) fn state(&self, node: &str) -> NodeState {
        self.machine.view().node(node).unwrap().state
    }

    /// What was wanted since the last call, without the log, as short texts.
    pub(super) fn done(&mut self) -> Vec<String> {
        self.todo.drain(..).filter_map(short).collect()
    }

    /// What was wanted since the last call.
    pub(super) fn take_todo(&mut self) -> Vec<Do> {
        std::mem::take(&mut self.todo)
    }

    /// The answers since the last call, and nothing else.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        self.todo.drain(..).find_map(|todo| match todo {
            Do::Answer { answer, .. } => Some(answer),
            _ => None,
        })
    }
}

fn loopback() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

fn short(todo: Do) -> Option<String> {
    Some(match todo {
        Do::Launch { nodes, .. } => {
            let names: Vec<&str> = nodes.iter().map(|(node, _)| node.as_str()).collect();
            let beside = if nodes.iter().any(|(_, succeeds)| succeeds.is_some()) { " beside" } else { "" };
            format!("launch {}{beside}", names.join(" "))
        }
        Do::TakeBack { node, .. } => format!("take back {node}"),
        Do::Look { node, .. } => format!("look at {node}"),
        Do::Terminate { node, .. } => format!("terminate {node}"),
        Do::Kill { node, .. } => format!("kill {node}"),
        Do::Hangup { node, .. } => format!("hangup {node}"),
        Do::End(end) => format!("end {end:?}"),
        Do::Answer { answer: Ok(outcomes), .. } => {
            let outcomes = outcomes.iter().map(|o| format!("{}: {}", o.node, o.outcome));
            format!("answer [{}]", outcomes.collect::<Vec<_>>().join("; "))
        }
        Do::Answer { answer: Err(refused), .. } => format!("refused {refused}"),
        // Told past the machine.
        Do::Tell { tell: Tell::Message(ToNode::Roots { .. }), .. } => return None,
        Do::Tell {
            node,
            incarnation: _,
            tell: Tell::Message(ToNode::Registered { number: NodeNumber(n), .. }),
        } => {
            format!("{node}: you are {n}")
        }
        Do::Tell { node, incarnation: _, tell: Tell::Message(ToNode::ParentUp { name, at, .. }) } => {
            format!("{node}: {name} is up at {at}")
        }
        Do::Tell { node, incarnation: _, tell: Tell::Message(ToNode::ParentGone { name, .. }) } => {
            format!("{node}: {name} is gone")
        }
        Do::Tell { node, incarnation: _, tell: Tell::Message(ToNode::Stop { drain_ms }) } => {
            format!("{node}: stop {drain_ms}")
        }
        Do::Tell { node, incarnation: _, tell: Tell::Message(ToNode::HandOver { door }) } => {
            format!("{node}: hand over at {}", door.0)
        }
        Do::Tell { node, tell: Tell::Message(ToNode::Ask { ask, .. }), .. } => format!("ask {node}: {ask}"),
        Do::Tell { node, tell: Tell::Message(ToNode::Log(order)), .. } => format!("tell {node}: {order:?}"),
        Do::Tell { node, tell: Tell::Message(ToNode::Metrics { ask }), .. } => {
            format!("{node}: metrics {ask}")
        }
        Do::Tell { node, incarnation: _, tell: Tell::Message(ToNode::HandBack { door }) } => {
            format!("{node}: hand back at {}", door.0)
        }
        Do::Tell { node, incarnation: _, tell: Tell::ParentUp { name, host, port, .. } } => {
            format!("{node}: {name} is up at {host}:{port}")
        }
        Do::Report(_) => return None,
    })
}

pub(super) const MS: fn(u64) -> Duration = Duration::from_millis;
pub(super) const CRASH: Exit = Exit::Signal(9);

#[test]
fn children_start_when_their_parent_is_ready_and_are_told_where_it_is() {
    let mut w = World::new(&cluster(&DEMO), &[]);
    assert_eq!(w.done(), ["launch gate"]);
    assert_eq!(w.state("net"), NodeState::Waiting);
    w.register("gate");
    assert_eq!(w.done(), ["gate: you are 1"]);
    w.ready("gate");
    assert_eq!(w.done(), ["launch net", "launch game1"]);
    w.register("net");
    assert_eq!(w.done(), ["net: you are 2", "net: gate is up at 127.0.0.1:20000"]);
    w.ready("net");
    assert_eq!(w.machine.view().state, PhaseView::Starting);
    w.come_up("game1");
    assert_eq!(w.machine.view().state, PhaseView::Up);
    let up = Do::Report(Report::Up { nodes: 3, missing: vec![], took_ms: 0 });
    assert_eq!(w.todo.iter().filter(|todo| **todo == up).count(), 1);
    assert_eq!(w.machine.view().unhealthy(), None);
}

#[test]
fn a_killed_node_comes_back_with_a_newer_incarnation_and_its_children_hear_of_it() {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.exit("gate", CRASH);
    assert_eq!(w.done(), ["net: gate is gone", "game1: gate is gone"]);
    assert_eq!(w.state("gate"), NodeState::Backoff);
    assert_eq!(w.machine.view().node("gate").unwrap().last_exit.as_deref(), Some("signal 9 (SIGKILL)"));
    assert_eq!(w.machine.view().unhealthy().as_deref(), Some("gate: backoff"));
    w.pass(MS(99));
    assert_eq!(w.done(), [] as [&str; 0]);
    w.pass(MS(1));
    assert_eq!(w.done(), ["launch gate"]);
    assert!(w.incarnation("gate") > old);
    w.come_up("gate");
    assert_eq!(
        w.done(),
        ["gate: you are 1", "net: gate is up at 127.0.0.1:20000", "game1: gate is up at 127.0.0.1:20000"]
    );
    assert_eq!(w.machine.view().node("gate").unwrap().restarts, 1);
}

#[test]
fn quick_ends_are_waited_longer_for_and_shown_as_a_crash_loop() {
    let mut w = World::up();
    let mut waits = Vec::new();
    for _ in 0..9 {
        w.exit("net", Exit::Code(1));
        let start = w.now.at;
        let until = w.machine.seats["net"].due().unwrap();
        waits.push((until - start).as_millis());
        let expected = if waits.len() < 5 { NodeState::Backoff } else { NodeState::CrashLoop };
        assert_eq!(w.state("net"), expected, "after {} ends", waits.len());
        w.pass(until - start);
        assert_eq!(w.state("net"), NodeState::Starting, "it is still tried");
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    // A healthy minute later it starts again from the shortest wait.
    w.come_up("net");
    w.pass(Duration::from_secs(60));
    w.exit("net", Exit::Code(1));
    assert_eq!(w.machine.seats["net"].due(), Some(w.now.at + MS(100)));
    assert_eq!(w.state("net"), NodeState::Backoff);
}

#[test]
fn a_node_that_cannot_start_fails_the_first_start_and_everything_stops() {
    let mut w = World::new(&cluster(&DEMO), &[]);
    w.come_up("gate");
    w.register("net");
    w.say("net", ToMaster::CannotStart { reason: "servers.net.db: no such server".into() });
    w.done();
    w.exit("net", Exit::Code(1));
    // game1 is a leaf, the gate its root.
    assert_eq!(w.done(), ["terminate game1"]);
    w.exit("game1", Exit::Signal(15));
    assert_eq!(w.done(), ["gate: stop 10000"]);
    w.exit("gate", Exit::Code(0));
    let why = "net does not start: servers.net.db: no such server (exit code 1)";
    assert_eq!(w.done(), [format!("end {:?}", End::Failed(why.into()))]);
}

#[test]
fn a_node_that_ends_before_it_was_ready_fails_the_first_start_but_no_later_one() {
    let mut w = World::new(&cluster(&["gate"]), &[]);
    w.done();
    w.exit("gate", Exit::Code(101));
    assert_eq!(w.done(), [r#"end Failed("gate does not start: exit code 101")"#]);

    let mut w = World::new(&cluster(&["gate"]), &[]);
    w.done();
    w.exit_saying("gate", Exit::Code(101), Some("panicked at x.rs:1"));
    assert_eq!(w.done(), [r#"end Failed("gate does not start: panicked at x.rs:1 (exit code 101)")"#]);

    let mut w = World::up();
    w.exit_saying("gate", CRASH, Some("a line of its good days"));
    assert_eq!(w.machine.view().node("gate").unwrap().reason, None);
    w.pass(MS(100));
    w.exit("gate", Exit::Code(101));
    assert_eq!(w.state("gate"), NodeState::Backoff);
}

#[test]
fn a_binary_that_cannot_be_launched_fails_the_first_start() {
    let mut w = World::new(&cluster(&["gate"]), &[]);
    w.done();
    let incarnation = w.incarnation("gate");
    w.see(Seen::LaunchFailed {
        node: name("gate"),
        incarnation,
        reason: "no such file".into(),
        shortage: false,
    });
    let why = "gate does not start: no such file (it could not be launched)";
    assert_eq!(w.done(), [format!("end {:?}", End::Failed(why.into()))]);
}

#[test]
fn a_host_that_is_short_of_descriptors_makes_no_quick_end_and_fails_nothing() {
    let short = |w: &mut World| {
        let incarnation = w.incarnation("gate");
        let reason = "Too many open files (os error 24)".into();
        w.see(Seen::LaunchFailed { node: name("gate"), incarnation, reason, shortage: true });
    };
    // A first start waits, too.
    let mut w = World::new(&cluster(&["gate"]), &[]);
    w.done();
    short(&mut w);
    assert_eq!(w.state("gate"), NodeState::Backoff);
    let shown = w.machine.view().node("gate").unwrap().clone();
    assert_eq!(shown.reason.as_deref(), Some("Too many open files (os error 24)"));

    // For a minute, ever again: neither a crash loop nor failed.
    let mut w = World::up();
    w.exit("gate", CRASH);
    let before = w.machine.seats["gate"].backoff.quick_ends();
    for _ in 0..60 {
        w.pass(Duration::from_secs(1));
        short(&mut w);
        assert_eq!(w.state("gate"), NodeState::Backoff);
    }
    assert_eq!(w.machine.seats["gate"].backoff.quick_ends(), before);
    w.pass(Duration::from_secs(1));
    assert_eq!(w.state("gate"), NodeState::Starting, "and soon after it is over, it is launched");
}

#[test]
fn a_start_that_takes_too_long_is_ended_firmly_then_killed() {
    let mut w = World::new(&cluster(&["gate"]), &[]);
    w.register("gate");
    w.done();
    w.pass(Duration::from_secs(60));
    assert_eq!(w.done(), ["terminate gate"]);
    w.pass(stop::FIRM);
    assert_eq!(w.done(), ["kill gate"]);
    assert_eq!(w.machine.view().state, PhaseView::Starting, "it has not ended yet");
    w.exit("gate", CRASH);
    let why = "gate does not start: it was not ready within 60 s (limits.start_s) (signal 9 (SIGKILL))";
    assert_eq!(w.done(), [format!("end {:?}", End::Failed(why.into()))]);
}

#[test]
fn stop_goes_in_waves_polite_firm_killed_each_bounded() {
    let mut w = World::up();
    w.ask(Command::StopAll);
    let plan = "answer [gate: stops in wave 3 of 3, within 10 s; net: stops in wave 1 of 3, within 10 s; \
                game1: stops in wave 2 of 3, within 10 s]";
    assert_eq!(w.done(), [plan, "net: stop 10000"]);
    w.exit("net", Exit::Code(0));
    assert_eq!(w.done(), ["game1: stop 10000"]);
    // game1 does not listen: told firmly after its drain, killed soon after.
    w.pass(Duration::from_secs(10));
    assert_eq!(w.done(), [] as [&str; 0]);
    w.pass(stop::MARGIN);
    assert_eq!(w.done(), ["terminate game1"]);
    w.pass(stop::FIRM);
    assert_eq!(w.done(), ["kill game1"]);
    w.exit("game1", CRASH);
    assert_eq!(w.done(), ["gate: stop 10000"]);
    w.exit("gate", Exit::Code(0));
    assert_eq!(w.done(), ["end Stopped"]);
    assert_eq!(w.machine.view().state, PhaseView::Ended);
}

#[test]
fn a_stop_ends_even_when_a_process_does_not() {
    let mut w = World::up();
    w.ask(Command::StopAll);
    w.pass(Duration::from_secs(60));
    let done = w.done();
    assert_eq!(done.last().map(String::as_str), Some("end Stopped"), "{done:?}");
}

#[test]
fn nodes_that_wait_or_back_off_are_not_started_during_a_stop() {
    let mut w = World::up();
    w.exit("game1", CRASH);
    w.ask(Command::StopAll);
    w.done();
    w.pass(Duration::from_secs(5));
    assert_eq!(w.done(), [] as [&str; 0]);
    assert_eq!(w.state("game1"), NodeState::Stopped);
}

#[test]
fn a_node_without_a_control_connection_is_stopped_by_sigterm_and_one_that_comes_late_is_told() {
    let mut w = World::up();
    let incarnation = w.incarnation("net");
    w.see(Seen::Unlinked { node: name("net"), incarnation });
    assert_eq!(w.state("net"), NodeState::Ready, "a lost control connection is no lost process");
    w.ask(Command::Stop(name("net")));
    assert_eq!(w.done(), ["terminate net"]);
    w.register("net");
    assert!(w.done().contains(&"net: stop 10000".to_owned()));
}

#[test]
fn a_second_signal_kills_everything_at_once() {
    let mut w = World::up();
    w.ask(Command::StopAll);
    w.done();
    w.ask(Command::KillAll);
    assert_eq!(w.done(), ["answer []", "kill game1", "kill gate", "kill net", "end Forced"]);
}

#[test]
fn one_node_is_stopped_started_and_restarted_and_the_outcome_is_what_was_seen() {
    let mut w = World::up();
    w.ask(Command::Stop(name("game1")));
    assert_eq!(w.done(), ["game1: stop 10000"]);
    w.exit("game1", Exit::Code(0));
    assert_eq!(w.done(), ["answer [game1: stopped: exit code 0]"]);
    w.pass(Duration::from_secs(100));
    assert_eq!(w.state("game1"), NodeState::Stopped, "it stays down");
    assert_eq!(w.machine.view().unhealthy(), None, "on purpose");

    w.ask(Command::Start(name("game1")));
    assert_eq!(w.done(), ["launch game1"]);
    w.pass(MS(40));
    w.come_up("game1");
    assert_eq!(w.done().last().unwrap(), "answer [game1: ready: pid 7, started 40 ms ago]");

    w.ask(Command::Restart(name("game1")));
    w.exit("game1", Exit::Code(0));
    assert_eq!(w.done(), ["game1: stop 10000", "launch game1"]);
    w.exit("game1", Exit::Code(3));
    assert_eq!(w.done(), ["answer [game1: does not start: exit code 3]"]);
    assert_eq!(w.state("game1"), NodeState::Backoff, "and it is tried again");
}

#[test]
fn one_command_at_a_time() {
    let mut w = World::up();
    w.ask(Command::Stop(name("game1")));
    w.done();
    w.ask(Command::Restart(name("net")));
    assert_eq!(w.done(), ["refused a stop is at `game1`; try again when that is done"]);
    w.ask(Command::StopAll);
    assert!(w.done().contains(&"answer [game1: interrupted: the cluster stops]".to_owned()));
    w.ask(Command::StopAll);
    assert_eq!(w.answer(), Some(Err(Refused::Stopping)));

    let mut starting = World::new(&cluster(&DEMO), &[]);
    starting.done();
    starting.ask(Command::Restart(name("gate")));
    assert_eq!(starting.done(), ["refused the cluster is starting; try again when that is done"]);
}

#[test]
fn an_older_start_and_an_unknown_node_have_no_business_here() {
    let mut w = World::up();
    w.register_as("gate", Incarnation(5));
    w.register_as("nobody", Incarnation(5));
    assert_eq!(w.done(), ["hangup gate", "hangup nobody"]);
    w.see(Seen::Said {
        node: name("gate"),
        incarnation: Incarnation(5),
        message: ToMaster::CannotStart { reason: "x".into() },
    });
    assert_eq!(w.machine.view().node("gate").unwrap().reason, None);
}

#[test]
fn a_node_started_by_hand_is_taken_in_and_not_restarted() {
    let mut w = World::new(&cluster(&["gate", "far > gate"]), &["far"]);
    assert_eq!(w.done(), ["launch gate"]);
    w.come_up("gate");
    let up = Report::Up { nodes: 1, missing: vec![name("far")], took_ms: 0 };
    assert!(w.todo.contains(&Do::Report(up)));
    w.done();
    w.register_as("far", Incarnation(77));
    assert_eq!(w.done(), ["far: you are 2", "far: gate is up at 127.0.0.1:20000"]);
    w.ready("far");
    assert_eq!(w.state("far"), NodeState::Ready);
    w.ask(Command::Restart(name("far")));
    let refused = "refused `far` is started by somebody else: `master single far CONFIG` on its host";
    assert_eq!(w.done(), [refused]);
    w.see(Seen::Unlinked { node: name("far"), incarnation: Incarnation(77) });
    w.pass(Duration::from_secs(100));
    assert_eq!(w.done(), [] as [&str; 0]);
    assert_eq!(w.state("far"), NodeState::Absent);
    // The same process comes back over a new connection, and a stop of everything reaches it too.
    w.register_as("far", Incarnation(77));
    w.ready("far");
    w.done();
    w.ask(Command::StopAll);
    assert_eq!(w.done()[1..], ["far: stop 10000"]);
    w.see(Seen::Unlinked { node: name("far"), incarnation: Incarnation(77) });
    assert_eq!(w.done(), ["gate: stop 10000"]);
}

#[test]
fn a_newer_start_by_hand_fences_ours() {
    let mut w = World::up();
    let old = w.incarnation("game1");
    w.register_as("game1", Incarnation(old.0 + 1));
    assert_eq!(w.done()[..2], ["terminate game1", "game1: you are 3"]);
    w.see(Seen::Exited { node: name("game1"), incarnation: old, exit: Exit::Code(0), lines: vec![] });
    w.ready("game1");
    assert_eq!(w.state("game1"), NodeState::Ready);
    w.pass(Duration::from_secs(100));
    assert!(!w.done().contains(&"kill game1".to_owned()), "the old one has left");
}

#[test]
fn a_process_that_has_ended_cannot_register_any_more() {
    let mut w = World::up();
    let dead = w.incarnation("game1");
    w.exit("game1", CRASH);
    w.register_as("game1", dead);
    assert_eq!(w.done(), ["hangup game1"]);
}

#[test]
fn a_node_that_stops_by_itself_is_bounded_too_and_started_again() {
    let mut w = World::up();
    w.say("game1", ToMaster::Stopping);
    assert_eq!(w.state("game1"), NodeState::Stopping);
    w.pass(Duration::from_secs(12));
    assert_eq!(w.done(), ["terminate game1"]);
    w.exit("game1", Exit::Code(0));
    assert_eq!(w.state("game1"), NodeState::Backoff);
}

#[test]
fn a_node_that_says_ready_again_is_not_announced_again() {
    let mut w = World::up();
    w.register("gate");
    w.done();
    w.ready("gate");
    assert_eq!(w.done(), [] as [&str; 0]);
}

#[test]
fn status_shows_what_nodes_see() {
    let mut w = World::up();
    let status = NodeStatus {
        sessions: 3,
        parents: vec![(name("gate"), true)],
        children: vec![],
        counters: vec![("late_replies".into(), 2)],
    };
    w.say("net", ToMaster::Status(status));
    let json = serde_json::to_value(w.machine.view()).unwrap();
    assert_eq!(json["nodes"][1]["sessions"], 3);
    assert_eq!(json["nodes"][1]["state"], "ready");
    assert_eq!(json["nodes"][1]["parents"], serde_json::json!([{"name": "gate", "up": true}]));
    assert_eq!(json["nodes"][1]["last_exit"], serde_json::Value::Null);
}

#[test]
fn a_child_with_a_configured_host_is_sent_there() {
    let with_host = changed(&cluster(&DEMO), "net", |node| node.parents[0].host = Some("db.lan".into()));
    let mut w = World::new(&with_host, &[]);
    w.come_up("gate");
    w.done();
    w.register("net");
    assert_eq!(w.done(), ["net: you are 2", "net: gate is up at db.lan:20000"]);
}
