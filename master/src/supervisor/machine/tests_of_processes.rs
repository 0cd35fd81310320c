//! Processes of several nodes as facts.

use std::time::Duration;

use ffconfig::Cluster;
use ffproto::Incarnation;
use ffproto::control::{Door, ToMaster};

use super::stop::{FIRM, MARGIN};
use super::tests::{CRASH, DEMO, MS, World};
use super::*;
use crate::fixture::{cluster, name};

/// The cluster with those nodes in one process of that name.
pub(super) fn shared(mut cluster: Cluster, process: &str, nodes: &[&str]) -> Cluster {
    for node in cluster.nodes.iter_mut().filter(|node| nodes.contains(&node.name.as_str())) {
        node.process = Some(name(process));
    }
    cluster
}

/// The demo with the gate and the game node in one process, and the net node in another one.
pub(super) fn world_and_net() -> Cluster {
    shared(cluster(&DEMO), "world", &["gate", "game1"])
}

/// A cluster that is up.
pub(super) fn up(cluster: &Cluster) -> World {
    let mut w = World::new(cluster, &[]);
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.to_string()).collect();
    for _ in 0..2 {
        for node in &names {
            if w.state(node) == NodeState::Starting {
                w.come_up(node);
            }
        }
    }
    assert_eq!(w.machine.view().state, PhaseView::Up);
    w.take_todo();
    w
}

impl World {
    pub(super) fn reports(&mut self) -> Vec<Report> {
        let reports = self.take_todo().into_iter().filter_map(|todo| match todo {
            Do::Report(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    pub(super) fn outcomes(&mut self) -> String {
        let outcomes = self.answer().unwrap().unwrap();
        let shown = outcomes.iter().map(|one| format!("{} {}: {}", one.node, one.ok, one.outcome));
        shown.collect::<Vec<_>>().join("; ")
    }

    /// What is launched, with whom it succeeds.
    pub(super) fn launched(&mut self) -> Vec<(NodeName, Option<Incarnation>)> {
        let launched = self.take_todo().into_iter().filter_map(|todo| match todo {
            Do::Launch { nodes, .. } => Some(nodes),
            _ => None,
        });
        launched.collect::<Vec<_>>().concat()
    }
}

const REPLACED: &str = "replaced: pid 8, started 0 ms ago";

#[test]
fn nodes_of_a_process_start_together_when_nobody_outside_of_it_is_waited_for() {
    let mut w = World::new(&world_and_net(), &[]);
    assert_eq!(w.done(), ["launch gate game1"], "game1's parent is in its process");
    assert_eq!(w.incarnation("gate"), w.incarnation("game1"));
    w.come_up("gate");
    assert_eq!(w.done(), ["gate: you are 1", "launch net"]);

    let mut w = World::new(&shared(cluster(&DEMO), "world", &["net", "game1"]), &[]);
    assert_eq!(w.done(), ["launch gate"]);
    w.come_up("gate");
    assert_eq!(w.done(), ["gate: you are 1", "launch net game1"]);
    let launched = w.incarnation("net");
    w.see(Seen::Launched { node: name("game1"), incarnation: launched, pid: 5 });
    let view = w.machine.view();
    let shown = |node: &str| view.node(node).map(|node| (node.process.clone(), node.pid)).unwrap();
    assert_eq!(shown("net"), (Some(name("world")), Some(5)));
    assert_eq!((shown("game1"), shown("gate")), (shown("net"), (None, Some(7))));
}

#[test]
fn a_process_that_is_alone_in_its_process_starts_as_any_node() {
    let mut w = World::new(&shared(cluster(&DEMO), "world", &["gate"]), &[]);
    let launch = Do::Launch { nodes: vec![(name("gate"), None)], incarnation: w.incarnation("gate") };
    assert!(w.take_todo().contains(&launch));
    assert_eq!(w.machine.seats["gate"].life.shared, None);
}

#[test]
fn the_end_of_a_process_is_one_end_of_all_its_nodes_and_one_start() {
    let mut w = up(&world_and_net());
    let old = w.incarnation("gate");
    w.exit("game1", CRASH);
    let reports = w.reports();
    let crashes = reports.iter().filter_map(|report| match report {
        Report::Crashed(crash) => Some((crash.node.as_str(), crash.nodes.len(), crash.during.as_str())),
        _ => None,
    });
    let during = "gate: serving: 0 sessions, 0 links; game1: serving: 0 sessions, 0 links";
    assert_eq!(crashes.collect::<Vec<_>>(), [("world", 2, during)]);
    let warned = Report::Warn("world (gate, game1) ended: signal 9 (SIGKILL); again in 100 ms".into());
    assert_eq!(
        reports.iter().filter(|report| matches!(report, Report::Warn(_))).collect::<Vec<_>>(),
        [&warned]
    );
    for node in ["gate", "game1"] {
        assert_eq!(w.state(node), NodeState::Backoff);
        assert_eq!(w.machine.view().node(node).unwrap().crash.as_ref().unwrap().node, "world");
    }
    assert_eq!(w.state("net"), NodeState::Ready);
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch gate game1"]);
    assert!(w.incarnation("gate") > old && w.incarnation("gate") == w.incarnation("game1"));
    for node in ["gate", "game1"] {
        w.come_up(node);
        assert_eq!((w.state(node), w.machine.view().node(node).unwrap().restarts), (NodeState::Ready, 1));
    }
}

#[test]
fn children_outside_hear_of_the_end_before_they_hear_of_the_start() {
    let mut w = up(&world_and_net());
    w.exit("gate", CRASH);
    assert_eq!(w.done(), ["net: gate is gone"]);
    w.pass(MS(100));
    w.done();
    w.come_up("gate");
    assert_eq!(w.done(), ["gate: you are 1", "net: gate is up at 127.0.0.1:20000"]);
}

#[test]
fn a_process_waits_as_long_as_the_one_of_its_nodes_that_has_to_wait_longest() {
    let apart = cluster(&DEMO);
    let mut w = up(&apart);
    for _ in 0..3 {
        w.exit("game1", CRASH);
        w.pass(MS(1_000));
        w.come_up("game1");
    }
    // Merged by a reload, they have different histories.
    w.reload(world_and_net());
    w.take_over("gate");
    w.take_over("game1");
    w.exit("gate", CRASH);
    let due = |w: &World, node: &str| w.machine.seats[node].due().unwrap() - w.now.at;
    assert_eq!((due(&w, "gate"), due(&w, "game1")), (MS(1_000), MS(1_000)), "a predecessor may take back");
    w.exit("net", CRASH);
}

#[test]
fn a_member_that_cannot_start_fails_the_first_start() {
    let mut w = World::new(&world_and_net(), &[]);
    w.come_up("gate");
    w.register("game1");
    w.say("game1", ToMaster::CannotStart { reason: "servers.game1.db: no such server".into() });
    w.done();
    w.exit("gate", Exit::Code(1));
    assert_eq!(w.done(), ["terminate net"]);
    w.exit("net", Exit::Code(0));
    let why = "game1 does not start: servers.game1.db: no such server (exit code 1)";
    assert_eq!(w.done(), [format!("end Failed({why:?})")]);
}

#[test]
fn a_process_that_cannot_be_launched_is_tried_again_as_a_whole() {
    let mut w = up(&world_and_net());
    w.exit("gate", CRASH);
    w.pass(MS(100));
    let (node, incarnation) = (name("gate"), w.incarnation("gate"));
    w.done();
    w.see(Seen::LaunchFailed { node, incarnation, reason: "no memory".into(), shortage: true });
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Backoff, NodeState::Backoff));
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch gate game1"]);
}

#[test]
fn a_command_for_one_node_is_for_its_process_and_is_answered_for_each() {
    let mut w = up(&world_and_net());
    w.ask(Command::Stop(name("game1")));
    assert_eq!(w.done(), ["gate: stop 10000", "game1: stop 10000"]);
    let old = w.incarnation("gate");
    w.unlink_as("game1", old);
    assert_eq!(w.state("game1"), NodeState::Stopped, "the process goes on with the gate");
    w.unlink_as("gate", old);
    assert_eq!(w.state("gate"), NodeState::Stopping, "the last one ends with the process");
    w.exit("gate", Exit::Code(0));
    assert_eq!(w.outcomes(), "gate true: stopped: exit code 0; game1 true: stopped: it has left its process");

    w.ask(Command::Start(name("game1")));
    assert_eq!(w.done(), ["launch gate game1"]);
    w.come_up("gate");
    w.come_up("game1");
    let ready = "true: ready: pid 7, started 0 ms ago";
    assert_eq!(w.outcomes(), format!("gate {ready}; game1 {ready}"));

    w.ask(Command::Restart(name("game1")));
    w.exit("gate", Exit::Code(0));
    assert_eq!(w.done(), ["gate: stop 10000", "game1: stop 10000", "net: gate is gone", "launch gate game1"]);
    w.come_up("game1");
    w.come_up("gate");
    assert_eq!(w.outcomes(), format!("gate {ready}; game1 {ready}"));
    assert_eq!(w.state("net"), NodeState::Ready);
}

#[test]
fn a_process_that_does_not_stop_is_pressed_once_when_the_last_of_its_bounds_is_over() {
    let mut cluster = world_and_net();
    cluster.nodes[0].drain = Duration::from_secs(3);
    let mut w = up(&cluster);
    w.ask(Command::Stop(name("gate")));
    w.done();
    w.pass(Duration::from_secs(10) + MARGIN - MS(1));
    assert_eq!(w.done(), [] as [&str; 0], "game1 may take 10 s");
    w.pass(MS(1));
    assert_eq!(w.done(), ["terminate gate"]);
    w.pass(FIRM);
    assert_eq!(w.done(), ["kill gate"]);
    w.exit("gate", CRASH);
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Stopped, NodeState::Stopped));
}

#[test]
fn a_stop_of_everything_goes_in_waves_through_a_process() {
    let mut w = up(&shared(cluster(&DEMO), "world", &["gate", "net", "game1"]));
    w.ask(Command::StopAll);
    let start = w.incarnation("gate");
    assert_eq!(w.done()[1..], ["net: stop 10000"]);
    w.unlink_as("net", start);
    assert_eq!(w.done(), ["game1: stop 10000"]);
    w.unlink_as("game1", start);
    assert_eq!(w.done(), ["gate: stop 10000"]);
    w.unlink_as("gate", start);
    assert_eq!(w.done(), [] as [&str; 0], "the process has not ended");
    w.exit("gate", Exit::Code(0));
    assert_eq!(w.done(), ["end Stopped"]);
}

#[test]
fn a_wave_that_does_not_leave_its_process_takes_the_process_with_it() {
    let mut w = up(&shared(cluster(&DEMO), "world", &["gate", "net", "game1"]));
    w.ask(Command::StopAll);
    w.done();
    w.pass(Duration::from_secs(10) + MARGIN);
    assert_eq!(w.done(), ["gate: stop 10000", "game1: stop 10000"], "the signal is for all");
    w.pass(Duration::from_secs(10) + MARGIN);
    assert_eq!(w.done(), ["terminate gate"]);
    w.pass(FIRM);
    assert_eq!(w.done(), ["kill gate"]);
    w.exit("gate", CRASH);
    assert_eq!(w.done(), ["end Stopped"]);
}

#[test]
fn a_second_signal_kills_each_process_once() {
    let mut w = up(&world_and_net());
    w.ask(Command::KillAll);
    assert_eq!(w.done(), ["answer []", "kill gate", "kill net", "end Forced"]);
}

#[test]
fn a_process_whose_loop_hangs_is_killed_once() {
    let mut w = up(&world_and_net());
    w.hanging.extend([name("gate"), name("game1")]);
    w.pass(Duration::from_secs(60));
    let kills = w.done().into_iter().filter(|done| done.starts_with("kill")).count();
    assert_eq!(kills, 1);
    w.exit("gate", CRASH);
    w.hanging.clear();
    w.pass(MS(100));
    assert_eq!(w.done(), ["net: gate is gone", "launch gate game1"]);
}

#[test]
fn a_member_that_is_not_ready_in_time_ends_the_process() {
    let mut w = up(&world_and_net());
    w.exit("gate", CRASH);
    w.pass(MS(100));
    w.come_up("gate");
    w.register("game1");
    w.done();
    w.pass(Duration::from_secs(60));
    assert_eq!(w.done(), ["terminate game1"]);
}

#[test]
fn a_process_is_replaced_by_one_process_and_its_nodes_hand_over_one_after_the_other() {
    let mut w = up(&world_and_net());
    let old = w.incarnation("gate");
    w.reload(world_and_net());
    assert_eq!(w.launched(), [(name("gate"), Some(old)), (name("game1"), Some(old))]);
    let new = w.prepare("game1");
    assert_eq!(w.other("gate"), new, "one start");
    assert_eq!(
        w.done(),
        ["game1: you are 3", "game1: gate is up at 127.0.0.1:20000"],
        "its turn comes later"
    );
    // Without a bound, for as long as the gate may take.
    w.pass(Duration::from_secs(59));
    w.prepare("gate");
    assert_eq!(w.done(), ["gate: you are 1", "gate: hand over at door"]);
    w.ready_as("gate", new);
    w.say_as("gate", old, ToMaster::HandedOver);
    assert_eq!(w.done().last().unwrap(), "game1: hand over at door");
    assert_eq!((w.incarnation("gate"), w.incarnation("game1")), (new, old));
    // The gate's old node waits for the game node's: nothing presses its process, which game1 is still in.
    w.ready_as("game1", new);
    w.say_as("game1", old, ToMaster::HandedOver);
    assert_eq!(w.done().last().unwrap(), "launch net beside");
    w.take_over("net");
    w.exit_as("gate", old, Exit::Code(0));
    w.leave("net");
    let (gate, game1) = (&w.machine.seats["gate"], &w.machine.seats["game1"]);
    assert!(gate.second.is_none() && game1.second.is_none());
    let ms = "started 59000 ms ago";
    let replaced = format!("replaced: pid 8, {ms}");
    assert_eq!(w.outcomes(), format!("gate true: {replaced}; game1 true: {replaced}; net true: {REPLACED}"));
    assert_eq!(w.machine.view().unhealthy(), None);
}

/// The gate has handed over to the new process; the old start, and the new one.
pub(super) fn half_way() -> (World, Incarnation, Incarnation) {
    let mut w = up(&world_and_net());
    let old = w.incarnation("gate");
    w.reload(world_and_net());
    w.take_over("gate");
    let new = w.incarnation("gate");
    assert!(new > old);
    w.done();
    (w, old, new)
}

#[test]
fn the_old_process_is_not_pressed_while_one_of_its_nodes_is_still_to_hand_over() {
    let (mut w, old, new) = half_way();
    w.pass(Duration::from_secs(40));
    assert_eq!(w.done(), [] as [&str; 0]);
    w.prepare("game1");
    w.ready_as("game1", new);
    w.say_as("game1", old, ToMaster::HandedOver);
    w.done();
    // Now it is bounded, by the last of them: drain_s, prove_ms and a margin.
    w.pass(Duration::from_secs(12) + MARGIN - MS(1));
    assert!(w.done().iter().all(|done| !done.starts_with("terminate")));
    w.pass(MS(1));
    assert_eq!(w.done().last().unwrap(), "terminate gate");
}

#[test]
fn those_that_have_taken_over_are_on_trial_until_the_last_one_is_proven() {
    let (mut w, old, new) = half_way();
    w.pass(MS(1_900));
    w.prepare("game1");
    w.ready_as("game1", new);
    w.say_as("game1", old, ToMaster::HandedOver);
    w.pass(MS(1_900));
    // Both have failed: the command says so of both.
    w.exit("gate", CRASH);
    w.say_as("gate", old, ToMaster::TookBack { reason: "its successor died".into() });
    w.say_as("game1", old, ToMaster::TookBack { reason: "its successor died".into() });
    assert_eq!((w.incarnation("gate"), w.state("gate")), (old, NodeState::Ready));
    assert_eq!((w.incarnation("game1"), w.state("game1")), (old, NodeState::Ready));
}

#[test]
fn a_successor_that_dies_is_rolled_back_from_for_all_of_its_nodes() {
    let (mut w, old, new) = half_way();
    let lines = vec!["panicked at x.rs:1".into()];
    w.see(Seen::Exited { node: name("gate"), incarnation: new, exit: Exit::Code(101), lines });
    assert!(w.machine.seats["game1"].second.is_none());
    assert_eq!((w.state("game1"), w.incarnation("game1")), (NodeState::Ready, old));
    w.say_as("gate", old, ToMaster::TookBack { reason: "its successor died".into() });
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, old));
    let why = "the new process ended: panicked at x.rs:1 (exit code 101)";
    let outcomes = w.outcomes();
    let parts: Vec<&str> = outcomes.split("; ").collect();
    assert!(parts[0].starts_with("gate false: "), "{outcomes}");
    assert!(outcomes.contains(&format!("game1 false: rolled back: {why}")), "{outcomes}");
    assert!(outcomes.ends_with("net false: not touched"), "{outcomes}");
    w.pass(Duration::from_secs(60));
    assert_eq!(w.done(), [] as [&str; 0], "both serve in the old process");
}

#[test]
fn one_hand_over_that_fails_rolls_all_of_the_process_back() {
    let (mut w, old, new) = half_way();
    w.prepare("game1");
    w.done();
    w.say_as("game1", old, ToMaster::TookBack { reason: "thaw failed: version 7".into() });
    assert_eq!(w.done()[0], "kill game1");
    // The gate's predecessor sees its successor die, and takes back by itself.
    w.exit_as("game1", new, CRASH);
    assert!(w.reports().iter().all(|report| !matches!(report, Report::Crashed(_))), "it was meant to end");
    w.say_as("gate", old, ToMaster::TookBack { reason: "its successor died".into() });
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, old));
    assert_eq!((w.state("game1"), w.incarnation("game1")), (NodeState::Ready, old));
    w.done();
    w.pass(Duration::from_secs(60));
    assert_eq!(w.done(), [] as [&str; 0], "nothing is started, nothing is pressed");
    assert_eq!(w.machine.view().unhealthy(), None);
}

#[test]
fn a_node_whose_predecessor_has_left_is_not_rolled_back_by_one_that_fails_later() {
    let (mut w, old, new) = half_way();
    w.prepare("game1");
    // The gate has proved itself: its old node has left the old process.
    w.unlink_as("gate", old);
    assert!(w.machine.seats["gate"].second.is_none());
    w.done();
    w.say_as("game1", old, ToMaster::TookBack { reason: "thaw failed: version 7".into() });
    assert_eq!(w.done()[0], "game1: stop 0", "its successor alone leaves the new process");
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, new));
    assert_eq!((w.state("game1"), w.incarnation("game1")), (NodeState::Ready, old));
    // Each of the two processes has one of them now.
    w.exit_as("gate", new, CRASH);
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Backoff, NodeState::Ready));
    w.pass(MS(1_000));
    assert_eq!(w.done().last().unwrap(), "launch gate");
}

#[test]
fn a_successor_that_registers_after_it_was_given_up_is_told_to_leave() {
    let (mut w, old, new) = half_way();
    w.unlink_as("gate", old);
    // Of game1 nothing has been heard in the new process.
    w.say_as("game1", old, ToMaster::TookBack { reason: "it broke".into() });
    w.done();
    w.register_as("game1", new);
    assert_eq!(w.done(), ["game1: stop 0"]);
    assert_eq!(w.incarnation("game1"), old);
}

#[test]
fn when_the_old_process_dies_half_way_those_that_have_taken_over_serve_on() {
    let (mut w, old, new) = half_way();
    w.prepare("game1");
    w.done();
    w.exit_as("gate", old, CRASH);
    assert_eq!(w.done()[0], "game1: stop 0", "it cannot take over from anybody");
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, new));
    assert_eq!(w.state("game1"), NodeState::Backoff);
    w.pass(MS(100));
    assert_eq!(w.done().last().unwrap(), "launch game1");
    assert!(w.incarnation("game1") > new);
}

#[test]
fn a_successor_that_is_not_prepared_in_its_time_is_rolled_back_with_the_others() {
    let (mut w, old, new) = half_way();
    w.pass(Duration::from_secs(60));
    assert!(w.done().contains(&"kill game1".to_owned()));
    w.exit_as("game1", new, CRASH);
    w.say_as("gate", old, ToMaster::TookBack { reason: "its successor died".into() });
    assert_eq!((w.incarnation("gate"), w.incarnation("game1")), (old, old));
}

#[test]
fn nodes_move_into_one_process_and_out_of_it_by_a_reload() {
    let mut w = up(&cluster(&DEMO));
    let (gate, game1) = (w.incarnation("gate"), w.incarnation("game1"));
    w.reload(world_and_net());
    assert_eq!(w.launched(), [(name("gate"), Some(gate)), (name("game1"), Some(game1))]);
    w.take_over("gate");
    // It was alone in its process, which ends when it is proven.
    w.leave("gate");
    w.take_over("game1");
    w.leave("game1");
    assert_eq!(w.incarnation("gate"), w.incarnation("game1"));
    w.take_over("net");
    w.leave("net");
    let both = w.incarnation("gate");
    w.done();

    // And apart again: each has a successor of its own, the old process ends with the last of them.
    w.reload(cluster(&DEMO));
    assert_eq!(w.launched(), [(name("gate"), Some(both))]);
    w.take_over("gate");
    assert_eq!(w.done().last().unwrap(), "launch net beside");
    w.take_over("net");
    w.leave("net");
    w.unlink_as("gate", both);
    assert!(w.machine.seats["gate"].second.is_none(), "it has left the process that game1 is in");
    assert_eq!(w.done().last().unwrap(), "launch game1 beside");
    w.take_over("game1");
    assert!(w.answer().is_none());
    w.leave("game1");
    assert!(w.outcomes().contains("game1 true: replaced"));
    assert!(w.machine.seats.values().all(|seat| seat.life.shared.is_none()));
    w.exit("gate", CRASH);
    assert_eq!(w.state("game1"), NodeState::Ready);
}

#[test]
fn a_reload_that_fails_leaves_a_node_in_the_old_process_of_the_one_that_was_replaced() {
    let both = world_and_net();
    let mut w = up(&both);
    let old = w.incarnation("gate");
    // Apart: the gate is replaced, then the net node's successor fails.
    w.reload(cluster(&DEMO));
    w.take_over("gate");
    let successor = w.other("net");
    w.exit_as("net", successor, Exit::Code(1));
    assert_eq!(w.state("game1"), NodeState::Ready);
    assert!(w.answer().is_none(), "the gate's old node stands by");
    // It does not leave by itself: it is told to, and no signal goes to the process of game1.
    w.pass(Duration::from_secs(60));
    let done = w.done();
    assert!(done.contains(&"gate: stop 10000".to_owned()), "{done:?}");
    assert!(done.iter().all(|done| !done.starts_with("terminate") && !done.starts_with("kill")), "{done:?}");
    assert!(done.last().unwrap().starts_with("answer [gate: replaced"), "{done:?}");
    w.exit("game1", CRASH);
    assert!(!w.machine.seats["gate"].life.is(old));
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Ready, NodeState::Backoff));
}

#[test]
fn a_node_that_is_new_in_a_process_starts_in_the_successor_and_one_that_is_gone_leaves_the_old_one() {
    let mut w = up(&world_and_net());
    let old = w.incarnation("gate");
    let new = shared(cluster(&["gate", "net:10001 > gate", "game2 > gate"]), "world", &["gate", "game2"]);
    w.reload(new);
    assert_eq!(w.launched(), [(name("gate"), Some(old)), (name("game2"), None)]);
    w.take_over("gate");
    w.come_up("game2");
    assert_eq!(w.done().last().unwrap(), "launch net beside");
    w.take_over("net");
    w.leave("net");
    assert_eq!(w.done().last().unwrap(), "game1: stop 10000");
    w.unlink_as("gate", old);
    w.exit("game1", Exit::Code(0));
    assert!(w.outcomes().ends_with("game1 true: stopped: it is not in the config any more"));
    assert_eq!(w.incarnation("gate"), w.incarnation("game2"));
    assert!(w.machine.view().node("game1").is_none());
}

#[test]
fn a_newcomer_goes_with_a_successor_that_is_rolled_back() {
    let mut w = up(&world_and_net());
    let old = w.incarnation("gate");
    let nodes = ["gate", "net:10001 > gate", "game1 > gate", "game2 > gate"];
    w.reload(shared(cluster(&nodes), "world", &["gate", "game1", "game2"]));
    w.register("game2");
    w.say("game2", ToMaster::CannotStart { reason: "servers.game2.db: no such server".into() });
    w.done();
    let new = w.incarnation("game2");
    w.exit_as("gate", new, Exit::Code(1));
    assert_eq!((w.incarnation("gate"), w.state("game2")), (old, NodeState::Stopped));
    let outcomes = w.outcomes();
    assert!(outcomes.starts_with("gate false: rolled back: the new process ended"), "{outcomes}");
    w.pass(Duration::from_secs(60));
    assert_eq!(w.done(), [] as [&str; 0], "it is not started by itself");
}

#[test]
fn a_reload_of_one_node_is_one_of_its_process_unless_the_config_moves_it() {
    let mut w = up(&world_and_net());
    let only = |cluster: Cluster| Command::Reload {
        cluster: cluster.into(),
        elsewhere: vec![],
        only: Some(name("game1")),
    };
    w.ask(only(world_and_net()));
    assert_eq!(w.done(), ["launch gate game1 beside"]);
    w.take_over("gate");
    w.take_over("game1");
    w.leave("gate");
    assert_eq!(w.outcomes(), format!("gate true: {REPLACED}; game1 true: {REPLACED}"));
    for moved in [cluster(&DEMO), shared(cluster(&DEMO), "world", &["gate", "net", "game1"])] {
        w.ask(only(moved));
        let refused = w.answer().unwrap().unwrap_err().to_string();
        assert_eq!(refused, "`game1` shares its process with other nodes than before: reload all nodes");
    }
}

#[test]
fn a_process_with_a_node_that_does_not_serve_is_ended_and_started_by_a_reload() {
    let mut w = up(&world_and_net());
    w.hanging.push(name("game1"));
    w.pass(Duration::from_secs(2));
    w.done();
    w.reload(world_and_net());
    assert_eq!(w.done(), ["gate: stop 10000", "game1: stop 10000"]);
    w.exit("gate", CRASH);
    w.hanging.clear();
    assert_eq!(w.done(), ["net: gate is gone", "launch gate game1"]);
    w.come_up("gate");
    w.come_up("game1");
    assert_eq!(w.done().last().unwrap(), "launch net beside");
}

/// A new master that has found these processes: node, start and pid.
pub(super) fn adopting(cluster: &Cluster, found: &[(&str, u64, u32)]) -> World {
    let mut w = World::before(cluster, &[]);
    let found = found.iter().map(|&(node, start, pid)| Found {
        node: name(node),
        incarnation: Incarnation(start),
        pid,
    });
    let now = w.now;
    w.machine.adopt(&[], found.collect(), now);
    w.see(Seen::Begin);
    w
}

#[test]
fn a_process_of_several_is_adopted_and_its_end_is_one() {
    let found = [("gate", 500, 40), ("game1", 500, 40), ("net", 500, 41)];
    let mut w = adopting(&world_and_net(), &found);
    for node in ["gate", "game1", "net"] {
        w.register_as(node, Incarnation(500));
        w.ready(node);
        w.see(Seen::HandedBack { node: name(node), incarnation: Incarnation(500), sockets: Ok(()) });
        assert_eq!(w.state(node), NodeState::Ready);
    }
    assert_eq!(w.machine.view().node("gate").unwrap().process, Some(name("world")));
    w.done();
    w.exit("gate", CRASH);
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Backoff, NodeState::Backoff));
    assert_eq!(w.state("net"), NodeState::Ready, "another process of the same start");
    w.pass(MS(100));
    assert_eq!(w.done().last().unwrap(), "launch gate game1");
}

#[test]
fn an_adopted_process_of_which_a_node_does_not_register_is_started_anew() {
    let mut w = adopting(&world_and_net(), &[("gate", 500, 40), ("game1", 500, 40)]);
    w.register_as("gate", Incarnation(500));
    w.ready("gate");
    w.done();
    w.pass(Duration::from_secs(5));
    assert!(w.done().contains(&"kill game1".to_owned()));
    w.exit("gate", CRASH);
    w.pass(MS(100));
    assert!(w.done().contains(&"launch gate game1".to_owned()));
}

#[test]
fn a_process_that_the_config_has_apart_by_now_runs_on_until_it_is_replaced() {
    let found = [("gate", 500, 40), ("gone", 500, 40)];
    let mut w = adopting(&cluster(&["gate"]), &found);
    assert!(w.done().iter().all(|done| !done.starts_with("terminate")));
    w.register_as("gate", Incarnation(500));
    w.ready("gate");
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(500), sockets: Ok(()) });
    assert_eq!(w.state("gate"), NodeState::Ready);
    w.exit("gate", CRASH);
    assert_eq!(w.state("gate"), NodeState::Backoff);
}

#[test]
fn a_master_that_dies_half_way_through_a_replacement_is_followed_by_one_that_ends_it_safely() {
    // The gate has taken over, game1 has not.
    let found = [("gate", 500, 40), ("game1", 500, 40), ("gate", 600, 50), ("game1", 600, 50)];
    let mut w = adopting(&world_and_net(), &found);
    let (old, new) = (Incarnation(500), Incarnation(600));
    w.register_as("gate", new);
    w.ready_as("gate", new);
    assert_eq!(w.incarnation("gate"), new);
    w.register_as("game1", old);
    w.ready_as("game1", old);
    w.register_as("game1", new);
    w.done();
    w.say_as("game1", new, ToMaster::Prepared { door: Door("door".into()) });
    let done = w.done();
    assert!(done.contains(&"game1: stop 0".to_owned()), "the gate serves in that process: {done:?}");
    assert_eq!((w.incarnation("gate"), w.incarnation("game1")), (new, old));
}

#[test]
fn a_newer_start_by_hand_of_one_node_makes_that_one_leave_its_process() {
    let mut w = up(&world_and_net());
    let ours = w.incarnation("game1");
    w.register_as("game1", Incarnation(ours.0 + 1));
    w.ready("game1");
    let done = w.done();
    assert!(done.contains(&"game1: stop 10000".to_owned()), "{done:?}");
    assert!(done.iter().all(|done| !done.starts_with("terminate")), "{done:?}");
    w.unlink_as("game1", ours);
    w.pass(Duration::from_secs(60));
    assert_eq!((w.state("gate"), w.state("game1")), (NodeState::Ready, NodeState::Ready));
    // What starts again is without it.
    w.exit("gate", CRASH);
    w.pass(MS(100));
    assert!(w.done().contains(&"launch gate".to_owned()));
}
