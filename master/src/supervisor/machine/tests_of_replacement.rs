//! Replacement, adoption and health as facts.

use std::time::Duration;

use ffconfig::Cluster;
use ffproto::control::{Door, NodeStatus, ToMaster};
use ffproto::{Incarnation, NodeNumber};

use super::tests::{CRASH, DEMO, MS, World};
use super::*;
use crate::fixture::{changed, cluster, name};

const READY: &str = "replaced: pid 8, started 0 ms ago";

fn stages(world: &World) -> String {
    let command = world.machine.view().command.unwrap();
    let stage = |step: &StepView| {
        let stage = serde_json::to_value(step.stage).unwrap();
        format!("{} {}", step.node, stage.as_str().unwrap())
    };
    command.steps.iter().map(stage).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_reload_runs_new_beside_old_one_node_at_a_time_parents_first() {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.reload(cluster(&DEMO));
    assert_eq!(w.done(), ["launch gate beside"]);
    assert_eq!(stages(&w), "gate preparing, net planned, game1 planned");
    let new = w.prepare("gate");
    assert!(new > old);
    assert_eq!(w.done(), ["gate: you are 1", "gate: hand over at door"], "to the old one");
    assert_eq!(stages(&w), "gate handing_over, net planned, game1 planned");
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, old));
    w.ready_as("gate", new);
    let up = "gate is up at 127.0.0.1:20000";
    assert_eq!(w.done(), [format!("net: {up}"), format!("game1: {up}")]);
    assert_eq!(
        stages(&w),
        "gate handing_over, net planned, game1 planned",
        "the old one may need its children"
    );
    w.say_as("gate", old, ToMaster::HandedOver);
    assert_eq!(w.done(), ["launch net beside"]);
    assert_eq!(stages(&w), "gate proving, net preparing, game1 planned");
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, new));
    // The old gate leaves while net is replaced: nobody is told that the gate is gone.
    w.leave("gate");
    assert_eq!(w.done(), [] as [&str; 0]);
    w.take_over("net");
    assert_eq!(w.done().last().unwrap(), "launch game1 beside");
    w.take_over("game1");
    assert_eq!(w.done().last().unwrap(), "game1: hand over at door", "not answered yet");
    let waits = "a reload waits for old processes to leave";
    assert_eq!(w.machine.busy(), Some(Refused::Busy(waits.into())));
    w.leave("net");
    w.leave("game1");
    assert_eq!(w.done(), [format!("answer [gate: {READY}; net: {READY}; game1: {READY}]")]);
    assert_eq!(stages(&w), "gate done, net done, game1 done");
    assert_eq!(w.machine.view().node("gate").unwrap().restarts, 0, "a replacement is no restart");
    assert_eq!(w.machine.view().unhealthy(), None);
}

#[test]
fn both_processes_of_a_node_are_told_about_its_parents() {
    let mut w = World::up();
    w.ask(Command::Reload { cluster: cluster(&DEMO).into(), elsewhere: vec![], only: Some(name("net")) });
    w.prepare("net");
    let at = "net: gate is up at 127.0.0.1:20000";
    assert_eq!(w.done(), ["launch net beside", "net: you are 2", at, "net: hand over at door"]);
    w.exit("gate", CRASH);
    assert_eq!(w.done(), ["net: gate is gone", "net: gate is gone", "game1: gate is gone"]);
    w.pass(MS(100));
    w.come_up("gate");
    assert_eq!(w.done().iter().filter(|done| *done == at).count(), 2);
}

#[test]
fn a_reload_starts_what_is_new_and_stops_what_is_gone() {
    let mut w = World::up();
    w.reload(cluster(&["gate", "net:10001 > gate", "game2 > gate"]));
    for node in ["gate", "net"] {
        w.take_over(node);
        w.leave(node);
    }
    assert_eq!(w.done().last().unwrap(), "launch game2");
    w.come_up("game2");
    assert_eq!(w.done().last().unwrap(), "game1: stop 10000");
    w.exit("game1", Exit::Code(0));
    let answer = w.answer().unwrap().unwrap();
    assert_eq!(answer.last().unwrap().outcome, "stopped: it is not in the config any more");
    assert_eq!(answer.iter().map(|o| o.node.as_str()).collect::<Vec<_>>(), ["gate", "net", "game2", "game1"]);
    assert!(w.machine.view().node("game1").is_none());
    assert_eq!(w.machine.seats["game2"].number, NodeNumber(4), "game1 was still there");
}

#[test]
fn a_reload_of_one_node_takes_over_its_part_of_the_config_only() {
    let mut w = World::up();
    let new = changed(&cluster(&DEMO), "game1", |node| node.drain = Duration::from_secs(1));
    let new = changed(&new, "net", |node| node.drain = Duration::from_secs(1));
    let reload =
        |only| Command::Reload { cluster: new.clone().into(), elsewhere: vec![], only: Some(name(only)) };
    w.ask(reload("game1"));
    assert_eq!(w.machine.seats["game1"].life.node.drain, Duration::from_secs(10), "the old one serves");
    w.take_over("game1");
    w.leave("game1");
    assert_eq!(w.machine.seats["game1"].life.node.drain, Duration::from_secs(1));
    assert_eq!(w.machine.seats["net"].life.node.drain, Duration::from_secs(10));
    w.answer();
    w.ask(reload("other"));
    assert!(matches!(w.answer(), Some(Err(Refused::Unknown { .. }))));
}

#[test]
fn a_node_that_an_operator_stopped_stays_stopped_over_a_reload() {
    let mut w = World::up();
    w.ask(Command::Stop(name("gate")));
    w.exit("gate", Exit::Code(0));
    w.done();
    w.reload(cluster(&DEMO));
    assert_eq!(w.done(), ["launch net beside"]);
    assert_eq!(w.state("gate"), NodeState::Stopped);
}

#[test]
fn a_reload_starts_a_node_that_is_down_without_waiting_for_it() {
    let mut w = World::up();
    w.exit("gate", CRASH);
    w.done();
    w.reload(cluster(&DEMO));
    assert_eq!(w.done(), ["launch gate"]);
    w.come_up("gate");
    assert_eq!(w.done().last().unwrap(), "launch net beside");
}

#[test]
fn a_reload_loses_no_time_with_a_node_that_hangs() {
    let mut w = World::up();
    w.hanging.push(name("gate"));
    w.pass(Duration::from_secs(2));
    w.done();
    w.reload(cluster(&DEMO));
    w.pass(MS(0));
    assert_eq!(w.done(), ["gate: stop 10000", "kill gate"]);
    w.exit("gate", CRASH);
    w.hanging.clear();
    assert_eq!(w.done().last().unwrap(), "launch gate");
}

#[test]
fn an_old_process_may_say_that_it_is_done_before_the_new_one_says_that_it_serves() {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.reload(cluster(&DEMO));
    let new = w.prepare("gate");
    w.say_as("gate", old, ToMaster::HandedOver);
    w.done();
    w.ready_as("gate", new);
    assert_eq!(w.done().last().unwrap(), "launch net beside", "nobody waits until the old one has left");
}

/// A reload whose gate's successor fails in some way: what is answered for the gate.
fn rolled_back(fail: impl Fn(&mut World)) -> String {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.reload(cluster(&DEMO));
    w.done();
    fail(&mut w);
    w.pass(MS(0));
    let answer = w.answer().unwrap().unwrap();
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, old), "the old one goes on");
    assert!(answer[1..].iter().all(|outcome| outcome.outcome == "not touched" && !outcome.ok));
    assert!(!answer[0].ok);
    assert_eq!(w.machine.view().node("gate").unwrap().beside, None);
    assert_eq!(w.machine.view().unhealthy(), None);
    answer[0].outcome.strip_prefix("rolled back: ").unwrap().replace("; the old process goes on", "")
}

#[test]
fn a_successor_that_does_not_come_to_serve_is_rolled_back_with_its_reason() {
    let panics = rolled_back(|w| {
        let incarnation = w.other("gate");
        let (node, lines) = (name("gate"), vec!["one".into(), "panicked at x.rs:1".into()]);
        w.see(Seen::Exited { node, incarnation, exit: Exit::Code(101), lines });
    });
    assert_eq!(panics, "the new process ended: panicked at x.rs:1 (exit code 101)");
    let says_why = rolled_back(|w| {
        let new = w.other("gate");
        w.register_as("gate", new);
        w.say_as("gate", new, ToMaster::CannotStart { reason: "servers.gate.db: no such server".into() });
        w.exit_as("gate", new, Exit::Code(1));
    });
    assert_eq!(says_why, "the new process ended: servers.gate.db: no such server (exit code 1)");
    let never_ready = rolled_back(|w| {
        w.pass(Duration::from_secs(60));
        assert_eq!(w.done()[0], "kill gate");
        let mut w2 = World::up();
        std::mem::swap(w, &mut w2);
        w.reload(cluster(&DEMO));
        w.done();
        w.pass(Duration::from_secs(60));
    });
    assert_eq!(never_ready, "the new process was not ready within 60 s (limits.start_s)");
    let thaw = rolled_back(|w| {
        w.prepare("gate");
        let old = w.incarnation("gate");
        w.say_as("gate", old, ToMaster::TookBack { reason: "thaw failed: version 7".into() });
    });
    assert_eq!(thaw, "thaw failed: version 7");
    let stuck = rolled_back(|w| {
        w.prepare("gate");
        w.pass(Duration::from_secs(13));
    });
    assert_eq!(stuck, "the new process did not serve within 13000 ms (park_ms, drain_s, 1 s)");
    let no_program = rolled_back(|w| {
        let incarnation = w.other("gate");
        w.see(Seen::LaunchFailed {
            node: name("gate"),
            incarnation,
            reason: "no such file".into(),
            shortage: false,
        });
    });
    assert_eq!(no_program, "the new process could not be launched: no such file");
}

#[test]
fn children_are_told_again_where_the_old_process_is_when_it_takes_back() {
    let mut w = World::up();
    w.reload(cluster(&DEMO));
    w.prepare("gate");
    w.done();
    let old = w.incarnation("gate");
    w.say_as("gate", old, ToMaster::TookBack { reason: "no".into() });
    let done = w.done();
    assert_eq!(
        done[..3],
        ["kill gate", "net: gate is up at 127.0.0.1:20000", "game1: gate is up at 127.0.0.1:20000"]
    );
}

#[test]
fn a_successor_that_dies_within_its_first_seconds_gives_the_seat_back() {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.reload(cluster(&DEMO));
    w.take_over("gate");
    w.done();
    w.pass(MS(500));
    w.exit("gate", CRASH);
    let gone = w.done();
    assert_eq!(gone, ["net: gate is gone", "game1: gate is gone", "launch net beside"][..2], "{gone:?}");
    w.pass(MS(300));
    assert_eq!(w.done(), [] as [&str; 0], "the old one may say that it takes back");
    w.say_as("gate", old, ToMaster::TookBack { reason: "the successor closed the door".into() });
    let up = "gate is up at 127.0.0.1:20000";
    assert_eq!(w.done(), [format!("net: {up}"), format!("game1: {up}")]);
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, old));
    // The step that ran comes to its end; the one behind it is not begun.
    w.take_over("net");
    w.leave("net");
    let answer = w.answer().unwrap().unwrap();
    let answer: Vec<_> = answer.iter().map(|o| (o.node.as_str(), o.ok, o.outcome.as_str())).collect();
    let (why, net) = (
        "rolled back: the successor closed the door; the old process goes on",
        "replaced: pid 8, started 800 ms ago",
    );
    assert_eq!(answer, [("gate", false, why), ("net", true, net), ("game1", false, "not touched")]);
}

#[test]
fn when_the_old_process_does_not_take_back_the_node_is_started_anew() {
    let mut w = World::up();
    w.reload(cluster(&DEMO));
    w.take_over("gate");
    w.exit("gate", CRASH);
    w.done();
    w.pass(replace::TAKE_BACK);
    assert_eq!(w.done(), ["launch gate"]);
    w.come_up("gate");
    w.take_over("net");
    w.leave("net");
    w.leave("gate");
    let answer = w.answer().unwrap().unwrap();
    assert_eq!(answer[0].outcome, "the new process ended: signal 9 (SIGKILL)");
    assert!(!answer[0].ok && !answer[2].ok);
}

#[test]
fn when_the_old_process_dies_before_the_new_one_serves_the_node_is_started_anew() {
    let mut w = World::up();
    w.reload(cluster(&DEMO));
    let new = w.prepare("gate");
    w.done();
    w.exit("gate", CRASH);
    assert_eq!(
        w.done(),
        [
            "net: gate is gone",
            "game1: gate is gone",
            "kill gate",
            "answer [gate: the old process ended before the new one served: signal 9 (SIGKILL); the node is \
             started anew; net: not touched; game1: not touched]"
        ]
    );
    w.exit_as("gate", new, CRASH);
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch gate"]);
}

#[test]
fn an_old_process_that_does_not_leave_is_pressed() {
    let mut w = World::up();
    w.ask(Command::Reload { cluster: cluster(&DEMO).into(), elsewhere: vec![], only: Some(name("net")) });
    w.take_over("net");
    w.done();
    // drain_s, prove_ms, and a second.
    w.pass(Duration::from_secs(13));
    assert_eq!(w.done(), ["terminate net"]);
    w.pass(stop::FIRM);
    assert_eq!(w.done(), ["kill net"]);
    let old = w.other("net");
    w.exit_as("net", old, CRASH);
    assert_eq!(w.done(), [format!("answer [net: {READY}]")]);
}

#[test]
fn a_stop_ends_a_replacement_on_both_sides_of_its_turn() {
    let mut w = World::up();
    w.reload(cluster(&DEMO));
    w.prepare("gate");
    w.done();
    w.ask(Command::StopAll);
    let done = w.done();
    assert!(done.contains(&"kill gate".to_owned()), "{done:?}");
    assert_eq!(done.last().unwrap(), "net: stop 10000");

    let mut w = World::up();
    w.ask(Command::Reload { cluster: cluster(&DEMO).into(), elsewhere: vec![], only: Some(name("net")) });
    w.take_over("net");
    let old = w.other("net");
    w.done();
    w.ask(Command::StopAll);
    assert_eq!(w.done()[2..], ["net: stop 10000", "net: stop 10000"], "the old one first");
    w.exit("net", Exit::Code(0));
    assert_eq!(w.done(), [] as [&str; 0], "the wave waits for both");
    w.say_as("net", old, ToMaster::TookBack { reason: "the successor closed the door".into() });
    w.exit_as("net", old, Exit::Code(0));
    assert_eq!(w.done(), ["game1: stop 10000"]);
}

#[test]
fn a_successor_that_says_ready_by_itself_serves_and_the_old_one_is_stopped() {
    let mut w = World::up();
    w.ask(Command::Reload { cluster: cluster(&DEMO).into(), elsewhere: vec![], only: Some(name("net")) });
    let new = w.other("net");
    w.register_as("net", new);
    w.done();
    w.ready_as("net", new);
    assert_eq!(w.done(), ["net: stop 10000"]);
    assert_eq!(w.incarnation("net"), new);
}

#[test]
fn a_silent_node_is_looked_at_reported_and_at_last_killed_and_started_again() {
    let mut w = World::up();
    w.pass(Duration::from_secs(5));
    w.hanging.push(name("net"));
    w.pass(seat::SILENT);
    assert_eq!(w.done(), ["look at net"]);
    let incarnation = w.incarnation("net");
    w.see(Seen::Looked { node: name("net"), incarnation, process: "stopped by a signal (SIGSTOP)".into() });
    assert_eq!(w.state("net"), NodeState::Hanging);
    assert_eq!(w.machine.view().unhealthy().as_deref(), Some("net: hanging"));
    let hanging = w.machine.view().node("net").unwrap().hanging.clone().unwrap();
    assert_eq!(hanging.process.as_deref(), Some("stopped by a signal (SIGSTOP)"));
    w.pass(Duration::from_secs(10) - seat::SILENT);
    assert_eq!(w.done(), ["kill net"]);
    w.exit("net", CRASH);
    let crash = w.machine.view().node("net").unwrap().crash.clone().unwrap();
    assert!(crash.reason.as_deref().unwrap().starts_with("its loop did not turn for 10 s"), "{crash:?}");
    assert!(crash.during.starts_with("hanging (stopped by a signal"), "{crash:?}");
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch net"]);
}

#[test]
fn a_node_that_goes_on_is_ready_again_and_one_without_a_limit_is_never_killed() {
    let cluster = changed(&cluster(&["gate"]), "gate", |node| node.limits.hang = None);
    let mut w = World::new(&cluster, &[]);
    w.come_up("gate");
    w.done();
    w.hanging.push(name("gate"));
    w.pass(Duration::from_secs(1_000));
    assert_eq!(w.done(), ["look at gate"]);
    assert_eq!(w.state("gate"), NodeState::Hanging);
    w.say("gate", ToMaster::Status(NodeStatus::default()));
    assert_eq!(w.state("gate"), NodeState::Ready);
}

#[test]
fn a_master_that_was_away_itself_blames_nobody() {
    let mut w = World::up();
    w.now.at += Duration::from_secs(60);
    w.see(Seen::Tick);
    assert_eq!(w.done(), [] as [&str; 0]);
    assert_eq!(w.state("net"), NodeState::Ready);
}

#[test]
fn after_so_many_quick_ends_a_node_is_failed_and_the_others_go_on() {
    let mut few = cluster(&DEMO);
    few.master.restart.max = Some(3);
    let mut w = World::new(&few, &[]);
    ["gate", "net", "game1"].iter().for_each(|node| w.come_up(node));
    for _ in 0..2 {
        w.exit("net", Exit::Code(1));
        w.pass(Duration::from_secs(1));
    }
    w.exit("net", Exit::Code(1));
    w.done();
    w.pass(Duration::from_secs(1_000));
    assert_eq!(w.done(), [] as [&str; 0]);
    assert_eq!(w.state("net"), NodeState::Failed);
    assert_eq!(w.machine.view().unhealthy().as_deref(), Some("net: failed"));
    w.ask(Command::Start(name("net")));
    assert_eq!(w.done(), ["launch net"]);
    w.exit("net", Exit::Code(1));
    assert_eq!(w.state("net"), NodeState::Backoff, "counted from the start");
}

/// A new master that finds these processes; each of them has registered already when `registered`.
fn adopting(cluster: &Cluster, found: &[(&str, u64)], registered: bool) -> World {
    let mut w = World::before(cluster, &[]);
    let found = found.iter().map(|(node, incarnation)| Found {
        node: name(node),
        incarnation: Incarnation(*incarnation),
        pid: 70 + u32::try_from(*incarnation).unwrap(),
    });
    let found: Vec<Found> = found.collect();
    let numbers = [(name("net"), NodeNumber(7)), (name("lost"), NodeNumber(1))];
    let now = w.now;
    w.machine.adopt(&numbers, found.clone(), now);
    w.see(Seen::Begin);
    if registered {
        found.iter().for_each(|one| w.register_as(one.node.as_str(), one.incarnation));
    }
    w
}

#[test]
fn a_new_master_adopts_what_runs_and_starts_what_is_missing() {
    let mut w = adopting(&cluster(&DEMO), &[("gate", 5), ("net", 6)], false);
    assert_eq!(w.done(), [] as [&str; 0], "game1 waits for its parent");
    assert_eq!(w.state("gate"), NodeState::Adopting);
    w.register_as("gate", Incarnation(5));
    w.ready_as("gate", Incarnation(5));
    let back = |w: &mut World, node: &str, incarnation| {
        let sockets = Ok(());
        w.see(Seen::HandedBack { node: name(node), incarnation: Incarnation(incarnation), sockets });
    };
    assert_eq!(w.done(), ["gate: you are 2", "take back gate"]);
    back(&mut w, "gate", 5);
    assert_eq!(w.done(), ["launch game1"]);
    w.register_as("net", Incarnation(6));
    back(&mut w, "net", 6);
    assert_eq!(w.state("net"), NodeState::Adopting, "it has not said whether it serves");
    w.ready_as("net", Incarnation(6));
    w.come_up("game1");
    assert_eq!(w.machine.view().state, PhaseView::Up);
    let numbers: Vec<u16> = w.machine.numbers().map(|(_, number)| number.0).collect();
    assert_eq!(numbers, [2, 7, 3], "net keeps its own");
    assert_eq!(w.machine.view().node("net").unwrap().pid, Some(76));
    // From here on it is a node as any other: it is started again, and stopped.
    w.done();
    w.exit("net", CRASH);
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch net"]);
}

#[test]
fn a_process_that_does_not_register_at_the_new_master_is_killed_and_started_anew() {
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 5)], false);
    w.pass(adopt::REGISTER_MAX);
    assert_eq!(w.done(), ["kill gate"]);
    w.exit("gate", CRASH);
    w.pass(MS(100));
    assert_eq!(w.done(), ["launch gate"], "the first start does not fail for that");
    w.come_up("gate");
    assert_eq!(w.machine.view().state, PhaseView::Up);
}

#[test]
fn a_new_node_that_does_not_start_leaves_the_adopted_ones_alone() {
    let mut w = adopting(&cluster(&DEMO), &[("gate", 5), ("net", 6)], true);
    w.ready_as("gate", Incarnation(5));
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(5), sockets: Ok(()) });
    w.done();
    w.exit("game1", Exit::Code(1));
    assert_eq!(w.done(), [] as [&str; 0], "nothing is stopped");
    assert_eq!(w.state("game1"), NodeState::Backoff);
}

#[test]
fn a_process_whose_node_is_no_longer_in_the_config_is_stopped() {
    let mut w = adopting(&cluster(&["gate"]), &[("lost", 5)], false);
    assert_eq!(w.done(), ["terminate lost", "launch gate"]);
    w.pass(Duration::from_secs(12));
    assert_eq!(w.done(), ["kill lost"]);
}

#[test]
fn a_node_that_keeps_its_sockets_is_adopted_all_the_same() {
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 5)], true);
    w.ready_as("gate", Incarnation(5));
    let sockets = Err("it did not come".into());
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(5), sockets });
    assert_eq!(w.state("gate"), NodeState::Ready);
}

#[test]
fn of_two_processes_that_an_earlier_master_left_the_one_that_serves_wins() {
    // The new one serves: the old one leaves by itself.
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 5), ("gate", 6)], true);
    assert_eq!(w.done(), ["gate: you are 2", "gate: you are 2"], "nobody is asked for sockets yet");
    w.say_as("gate", Incarnation(5), ToMaster::HandedOver);
    w.ready_as("gate", Incarnation(6));
    assert_eq!(w.done(), ["take back gate"]);
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(6), sockets: Ok(()) });
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, Incarnation(6)));
    w.exit_as("gate", Incarnation(5), Exit::Code(0));
    assert_eq!(w.state("gate"), NodeState::Ready);

    // The new one waits at its door, and nobody has asked for it: it is ended.
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 6), ("gate", 5)], true);
    w.done();
    w.ready_as("gate", Incarnation(5));
    w.say_as("gate", Incarnation(6), ToMaster::Prepared { door: Door("x".into()) });
    assert_eq!(w.done(), ["kill gate", "take back gate"]);
    w.exit_as("gate", Incarnation(6), CRASH);
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(5), sockets: Ok(()) });
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, Incarnation(5)));

    // The new one says nothing for too long.
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 5), ("gate", 6)], true);
    w.ready_as("gate", Incarnation(5));
    w.done();
    w.pass(adopt::REGISTER_MAX);
    assert_eq!(w.done(), ["kill gate", "take back gate"]);

    // The old one is dead: what is left serves.
    let mut w = adopting(&cluster(&["gate"]), &[("gate", 5), ("gate", 6)], true);
    w.done();
    w.exit_as("gate", Incarnation(5), CRASH);
    assert_eq!(w.done(), ["take back gate"]);
    w.ready_as("gate", Incarnation(6));
    w.see(Seen::HandedBack { node: name("gate"), incarnation: Incarnation(6), sockets: Ok(()) });
    assert_eq!((w.state("gate"), w.incarnation("gate")), (NodeState::Ready, Incarnation(6)));
}

#[test]
fn adopted_nodes_are_stopped_with_the_others() {
    let mut w = adopting(&cluster(&["gate", "net:10001 > gate"]), &[("gate", 5), ("net", 6)], true);
    for (node, incarnation) in [("gate", 5), ("net", 6)] {
        w.ready_as(node, Incarnation(incarnation));
        let incarnation = Incarnation(incarnation);
        w.see(Seen::HandedBack { node: name(node), incarnation, sockets: Ok(()) });
    }
    w.done();
    w.ask(Command::StopAll);
    assert_eq!(w.done()[1..], ["net: stop 10000"]);
    w.exit("net", Exit::Unknown("adopted".into()));
    assert_eq!(w.done(), ["gate: stop 10000"]);
    w.exit("gate", Exit::Unknown("adopted".into()));
    assert_eq!(w.done(), ["end Stopped"]);
}

#[test]
fn a_master_that_detaches_touches_nothing() {
    let mut w = World::up();
    w.ask(Command::Detach);
    assert_eq!(w.done(), ["answer []", "end Detached"]);
    let mut w = World::up();
    w.ask(Command::Stop(name("net")));
    w.done();
    w.ask(Command::Detach);
    assert_eq!(w.done(), ["refused a stop is at `net`; try again when that is done"]);
}

#[test]
fn a_reload_says_whose_state_is_lost() {
    let mut w = World::up();
    let old = w.incarnation("gate");
    w.reload(cluster(&DEMO));
    let new = w.prepare("gate");
    let counters = vec![("state_without_freeze".into(), 1)];
    w.say_as("gate", new, ToMaster::Status(NodeStatus { counters, ..NodeStatus::default() }));
    w.ready_as("gate", new);
    w.say_as("gate", old, ToMaster::HandedOver);
    w.leave("gate");
    for name in ["net", "game1"] {
        w.take_over(name);
        w.leave(name);
    }
    let lost = "; WARNING: its state is lost: the app has .state(…) and no .freeze(…)";
    let answer = w.done().last().unwrap().clone();
    assert_eq!(answer, format!("answer [gate: {READY}{lost}; net: {READY}; game1: {READY}]"));
}
