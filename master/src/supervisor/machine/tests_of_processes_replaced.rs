//! What is left of a replacement of a process of several nodes, as facts: by a master that died, or by one that was rolled back.

use std::time::Duration;

use ffconfig::Cluster;
use ffproto::Incarnation;
use ffproto::control::{Door, ToMaster};

use super::tests::{CRASH, MS, World};
use super::tests_of_processes::{adopting, half_way, shared, world_and_net};
use super::*;
use crate::fixture::{changed, cluster, name};

const OLD: Incarnation = Incarnation(500);
const NEW: Incarnation = Incarnation(600);
const NODES: [&str; 3] = ["gate", "game1", "game2"];

/// Three nodes in one process, whose predecessors do not stand by.
fn world() -> Cluster {
    let world = shared(cluster(&["gate", "game1 > gate", "game2 > gate"]), "world", &NODES);
    let at_once =
        |cluster: Cluster, node: &&str| changed(&cluster, node, |node| node.limits.prove = Duration::ZERO);
    NODES.iter().fold(world, at_once)
}

/// A new master, whose predecessor died when the gate had handed over to the new process: it finds both. What serves registers.
fn found_half_way() -> World {
    let both = [(OLD, 40), (NEW, 50)];
    let found: Vec<_> =
        both.iter().flat_map(|(start, pid)| NODES.map(|node| (node, start.0, *pid))).collect();
    let mut w = adopting(&world(), &found);
    for (node, start) in [("gate", NEW), ("game1", OLD), ("game2", OLD)] {
        w.register_as(node, start);
        w.ready_as(node, start);
        assert_eq!(w.machine.seats[node].life.incarnation, Some(start));
    }
    w
}

/// What is asked for its sockets hands them back; what else was wanted.
fn hand_back(w: &mut World) -> Vec<String> {
    let (asked, done): (Vec<_>, Vec<_>) =
        w.done().into_iter().partition(|done| done.starts_with("take back "));
    for node in NODES {
        let incarnation = w.incarnation(node);
        if asked.contains(&format!("take back {node}")) {
            w.see(Seen::HandedBack { node: name(node), incarnation, sockets: Ok(()) });
        }
    }
    done
}

/// The whole world is replaced by the reload that runs.
fn replace(w: &mut World) -> String {
    for node in NODES {
        w.take_over(node);
    }
    for node in NODES {
        let Some(second) = &w.machine.seats[node].second else { continue };
        let incarnation = second.life.incarnation.unwrap();
        w.exit_as(node, incarnation, Exit::Code(0));
    }
    w.outcomes()
}

#[test]
fn successors_that_have_left_a_process_that_serves_are_not_waited_for() {
    let mut w = found_half_way();
    w.pass(MS(1_000));
    let done = hand_back(&mut w);
    assert_eq!(NODES.map(|node| w.state(node)), [NodeState::Ready; 3]);
    assert_eq!(w.machine.view().state, PhaseView::Up);
    assert_eq!((w.incarnation("gate"), w.incarnation("game1")), (NEW, OLD));
    let pressed = |done: &&String| done.starts_with("kill") || done.starts_with("terminate");
    assert_eq!(done.iter().find(pressed), None);
}

#[test]
fn a_successor_that_registers_at_the_new_master_and_leaves_is_not_waited_for() {
    let mut w = found_half_way();
    for node in ["game1", "game2"] {
        w.register_as(node, NEW);
    }
    w.pass(MS(1_000));
    assert!(w.machine.seats["game1"].second.is_some(), "it may still say that it serves");
    for node in ["game1", "game2"] {
        w.unlink_as(node, NEW);
    }
    w.pass(MS(1_000));
    hand_back(&mut w);
    assert_eq!(w.machine.view().state, PhaseView::Up);
    let verdict = w.machine.seats["game1"].verdict.clone().unwrap().unwrap_err();
    let why = "it has left the new process: its control connection ended";
    assert_eq!(verdict, format!("rolled back: {why}; the old process goes on"));
}

#[test]
fn a_successor_that_leaves_its_process_is_rolled_back_without_its_whole_time() {
    let (mut w, old, new) = half_way();
    w.prepare("game1");
    w.done();
    // Its hand-over has not begun, for the gate's has not ended.
    let mut w2 = half_way_of_begun();
    w2.unlink_as("game1", w2.other("game1"));
    w2.pass(MS(1_000));
    assert!(w2.machine.seats["game1"].second.is_none());
    // One that hands over may serve: that is not given up for a connection.
    w.unlink_as("game1", new);
    w.pass(MS(1_000));
    assert_eq!((w.other("game1"), w.incarnation("game1")), (new, old));
}

/// Both successors are prepared, and the gate has not said that it has handed over.
fn half_way_of_begun() -> World {
    let mut w = super::tests_of_processes::up(&world_and_net());
    w.reload(world_and_net());
    w.prepare("gate");
    let new = w.other("game1");
    w.register_as("game1", new);
    w.say_as("game1", new, ToMaster::Prepared { door: Door("door".into()) });
    w
}

#[test]
fn a_reload_after_an_adoption_in_the_middle_of_one_replaces_and_stops_nothing() {
    let mut w = found_half_way();
    w.pass(MS(500));
    // The gate's old node stands by: it says to this master what it had told the other one, if at all.
    w.register_as("gate", OLD);
    w.pass(MS(500));
    hand_back(&mut w);
    assert_eq!(w.machine.view().state, PhaseView::Up);
    w.done();
    w.reload(world());
    assert_eq!(w.done(), [] as [&str; 0], "the old gate is still there");
    w.unlink_as("gate", OLD);
    let succeeds = [("gate", NEW), ("game1", OLD), ("game2", OLD)];
    assert_eq!(w.launched(), succeeds.map(|(node, start)| (name(node), Some(start))));
    let outcomes = replace(&mut w);
    assert_eq!(outcomes.matches("true: replaced").count(), 3, "{outcomes}");
}

#[test]
fn a_reload_waits_for_a_predecessor_of_which_nothing_is_heard_no_longer_than_a_second() {
    let mut w = found_half_way();
    w.pass(MS(1_000));
    hand_back(&mut w);
    w.reload(world());
    assert_eq!(w.launched().len(), 3);
}

#[test]
fn a_reload_waits_for_the_predecessor_of_a_node_of_its_own_process() {
    let only = cluster(&["gate"]);
    let mut w = adopting(&only, &[("gate", 500, 40), ("gate", 600, 50)]);
    w.register_as("gate", NEW);
    w.ready_as("gate", NEW);
    w.register_as("gate", OLD);
    w.see(Seen::HandedBack { node: name("gate"), incarnation: NEW, sockets: Ok(()) });
    w.done();
    w.reload(only);
    assert_eq!(w.done(), [] as [&str; 0]);
    w.exit_as("gate", OLD, Exit::Code(0));
    assert_eq!(w.done(), ["launch gate beside"]);
}

#[test]
fn a_reload_that_waits_does_not_keep_the_old_process_for_the_others() {
    let mut w = found_half_way();
    w.register_as("gate", OLD);
    w.pass(MS(1_000));
    hand_back(&mut w);
    w.reload(world());
    w.done();
    // The gate's old node is linked, and does not leave.
    w.pass(Duration::from_secs(60));
    let done = w.done();
    assert!(done.contains(&"launch gate game1 game2 beside".to_owned()), "{done:?}");
}

#[test]
fn a_reload_that_stops_and_starts_a_node_says_so() {
    let mut w = World::up();
    w.hanging.push(name("gate"));
    w.pass(Duration::from_secs(2));
    w.reload(cluster(&super::tests::DEMO));
    w.exit("gate", CRASH);
    w.hanging.clear();
    w.come_up("gate");
    for node in ["net", "game1"] {
        w.take_over(node);
        w.leave(node);
    }
    let outcomes = w.outcomes();
    let lost = "not replaced: its connections and its state in memory are lost; net true: replaced";
    assert!(outcomes.starts_with("gate true: ready: ") && outcomes.contains(lost), "{outcomes}");
}

#[test]
fn a_reload_is_not_judged_by_the_verdict_on_the_one_before() {
    let mut w = found_half_way();
    w.pass(MS(1_000));
    hand_back(&mut w);
    assert!(w.machine.seats["game1"].verdict.is_some(), "the adoption has rolled it back");
    w.exit("gate", CRASH);
    w.exit("game1", CRASH);
    assert_eq!(NODES.map(|node| w.state(node)), [NodeState::Backoff; 3]);
    w.reload(world());
    NODES.iter().for_each(|node| w.come_up(node));
    let outcomes = w.outcomes();
    assert_eq!(outcomes.matches("true: ready: ").count(), 3, "{outcomes}");
}

#[test]
fn a_rollback_after_a_signal_has_no_line_of_the_log_for_a_reason() {
    for (line, why) in [
        ("12:00 INFO two players are here", "the new process ended: signal 9 (SIGKILL)"),
        ("panicked at x.rs:1", "the new process ended: panicked at x.rs:1 (signal 9 (SIGKILL))"),
    ] {
        let mut w = World::up();
        w.reload(cluster(&super::tests::DEMO));
        let (node, incarnation) = (name("gate"), w.prepare("gate"));
        let lines = vec![line.into()];
        w.see(Seen::Exited { node, incarnation, exit: CRASH, lines });
        let outcomes = w.outcomes();
        assert!(outcomes.contains(&format!("rolled back: {why};")), "{outcomes}");
    }
}
