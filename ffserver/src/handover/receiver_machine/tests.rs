//! The successor's half of a replacement as facts.

use std::net::SocketAddr;

use ffproto::handover::{Session, Spoken};
use ffproto::{SessionId, Version};

use super::*;
use crate::handover::test_fixture::{MS, abilities, name, who};

const START: Duration = Duration::from_secs(30);
const PROVE: Duration = Duration::from_secs(1);

/// What a machine is told, and what it has told to do, in words.
struct World {
    machine: ReceiverMachine,
    now: Instant,
    done: Vec<String>,
}

fn session() -> FromPredecessor {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let (unread, unsent, extra) = (vec![], vec![], vec![]);
    let (open_ms, heard_ms, ended) = (0, 0, false);
    FromPredecessor::Session(Box::new(Session {
        id: SessionId(1),
        address,
        open_ms,
        heard_ms,
        unread,
        unsent,
        ended,
        extra,
    }))
}

fn words(what: &Do) -> String {
    match what {
        Do::Say(FromSuccessor::Failed { reason }) | Do::TryToSay(FromSuccessor::Failed { reason }) => {
            format!("fail: {reason}")
        }
        Do::Say(message) => format!("say {}", name(message)),
        Do::TryToSay(message) => format!("try to say {}", name(message)),
        Do::Take(said) => format!("take {}", name(said)),
        Do::Thaw { version, bytes } => format!("thaw {version} {}", String::from_utf8_lossy(bytes)),
        Do::Answered { number, .. } => format!("answered {number}"),
        other => format!("{other:?}"),
    }
}

impl World {
    fn new(thaws: bool) -> Self {
        let now = Instant::now();
        let machine = ReceiverMachine::new(who(6), abilities(thaws, PROVE), now + START, now);
        Self { machine, now, done: vec![] }
    }

    fn see(&mut self, seen: Seen) {
        let todo = self.machine.step(seen, self.now);
        self.done.extend(todo.iter().map(words));
    }

    fn hear(&mut self, said: FromPredecessor) {
        self.see(Seen::Message(said));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.see(Seen::Passed);
    }

    /// Time passes until the machine is due; how much that was.
    fn pass_until_due(&mut self) -> Duration {
        let left = self.machine.due().unwrap() - self.now;
        self.pass(left);
        left
    }

    fn done(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }

    fn error(&mut self) -> String {
        self.machine.outcome().unwrap().unwrap_err().to_string()
    }

    fn serves_on(&mut self) -> bool {
        matches!(self.machine.outcome(), Some(Ok(())))
    }

    fn taking() -> Self {
        let mut w = Self::new(true);
        w.hear(FromPredecessor::Hello(who(5)));
        w.done();
        w
    }

    fn thawing() -> Self {
        let mut w = Self::taking();
        w.hear(FromPredecessor::State(b"state".to_vec()));
        w.hear(FromPredecessor::Frozen { version: Some(7) });
        w.done();
        w
    }

    fn receiving() -> Self {
        let mut w = Self::taking();
        w.hear(FromPredecessor::Frozen { version: None });
        w.hear(FromPredecessor::YourTurn);
        w.see(Seen::Serves);
        w.done();
        w
    }

    fn proving() -> Self {
        let mut w = Self::receiving();
        w.hear(FromPredecessor::Done);
        w.done();
        w
    }

    fn confirming() -> Self {
        let mut w = Self::proving();
        w.pass_until_due();
        w.done();
        w
    }
}

/// An end of the other process, made anew for each world.
type End = fn() -> Seen;

const ALONE: &str = "the old process of `game` does not hand over";

#[test]
fn a_successor_greets_takes_thaws_serves_takes_the_clients_and_proves_itself() {
    let mut w = World::new(true);
    w.hear(FromPredecessor::Hello(who(5)));
    assert_eq!(w.done(), "say Hello");
    w.hear(FromPredecessor::Choices(vec![]));
    w.hear(FromPredecessor::Replicas(vec![]));
    w.hear(FromPredecessor::Bindings(vec![]));
    w.hear(FromPredecessor::Users(vec![]));
    assert_eq!(w.done(), "take Choices, take Replicas, take Bindings, take Users");
    w.hear(FromPredecessor::State(b"in ".to_vec()));
    w.hear(FromPredecessor::State(b"pieces".to_vec()));
    w.hear(FromPredecessor::Frozen { version: Some(7) });
    assert_eq!(w.done(), "thaw 7 in pieces");
    w.see(Seen::Thawed(Ok(())));
    assert_eq!((w.done(), w.machine.is_prepared()), ("say Thawed".into(), false));
    w.hear(FromPredecessor::YourTurn);
    assert!(w.machine.is_prepared() && !w.machine.may_ask());
    assert_eq!((w.done(), w.machine.due()), (String::new(), None));
    w.see(Seen::Serves);
    assert_eq!((w.done(), w.machine.may_ask()), ("say Serves".into(), true));
    w.hear(session());
    w.hear(FromPredecessor::Http { unread: vec![] });
    w.hear(FromPredecessor::Broadcast(vec![]));
    w.hear(FromPredecessor::Choices(vec![]));
    w.hear(FromPredecessor::Replicas(vec![]));
    w.hear(FromPredecessor::Bindings(vec![]));
    let taken = "take Session, take Http, take Broadcast, take Choices, take Replicas, take Bindings";
    assert_eq!(w.done(), taken);
    w.hear(FromPredecessor::Answered { number: 3, answer: AskAnswer::NotHere });
    assert_eq!(w.done(), "answered 3");
    w.hear(FromPredecessor::Done);
    assert_eq!((w.done(), w.machine.may_ask()), ("AllArrived, ForgetEnded".into(), false));
    assert_eq!(w.pass_until_due(), PROVE);
    assert_eq!(w.done(), "try to say Proven");
    w.see(Seen::Gone);
    assert!(w.done().is_empty() && w.serves_on());
}

#[test]
fn a_hand_over_that_takes_longer_than_the_proof_ends_with_it() {
    let mut w = World::receiving();
    w.now += PROVE + MS(1);
    w.hear(FromPredecessor::Done);
    assert_eq!(w.done(), "AllArrived, ForgetEnded, try to say Proven");
}

#[test]
fn an_app_that_freezes_nothing_thaws_nothing() {
    let mut w = World::taking();
    w.hear(FromPredecessor::Frozen { version: None });
    assert_eq!(w.done(), "say Thawed");
}

#[test]
fn who_is_no_process_of_the_node_is_a_stranger_and_hears_nothing() {
    let other = NodeName::try_from("other").unwrap();
    for said in [
        FromPredecessor::Hello(ProcessIdentity { name: other, ..who(5) }),
        FromPredecessor::Hello(ProcessIdentity { cluster: "other".into(), ..who(5) }),
        FromPredecessor::YourTurn,
    ] {
        let mut w = World::new(true);
        w.hear(said);
        assert_eq!(w.done(), "");
        assert!(w.error().ends_with("is not the old process of this node"));
    }
}

#[test]
fn an_old_process_of_no_version_that_this_one_speaks_keeps_everything_and_is_told() {
    let mut w = World::new(true);
    let versions = Versions { min: Version(8), max: Version(9) };
    w.hear(FromPredecessor::Hello(ProcessIdentity { versions, ..who(5) }));
    let why = "the old process speaks versions 8 to 9 of the protocol between nodes, this one versions 3 to 4: nothing \
               is taken over";
    assert_eq!((w.done(), w.error()), (format!("fail: {why}"), why.to_owned()));
}

#[test]
fn an_old_process_that_does_not_greet_or_leaves_the_door_is_not_waited_for() {
    let mut w = World::new(true);
    assert_eq!(w.pass_until_due(), GREETING_MAX);
    assert_eq!((w.done(), w.error()), (String::new(), ALONE.into()));
    let mut w = World::new(true);
    w.see(Seen::Gone);
    assert_eq!((w.done(), w.error()), (String::new(), ALONE.into()));
}

#[test]
fn a_state_that_does_not_come_in_time_is_not_waited_for() {
    let mut w = World::taking();
    assert_eq!(w.pass_until_due(), START, "limits.start_s");
    assert_eq!((w.done(), w.error()), (format!("fail: {ALONE}"), ALONE.into()));
}

#[test]
fn an_app_without_a_hook_refuses_a_frozen_state() {
    let mut w = World::new(false);
    w.hear(FromPredecessor::Hello(who(5)));
    w.done();
    w.hear(FromPredecessor::Frozen { version: Some(7) });
    let text = "the old process has a frozen state of version 7, and the app has no thaw hook";
    assert_eq!((w.done(), w.error()), (format!("fail: {text}"), text.into()));
}

#[test]
fn a_thaw_that_fails_is_told_to_the_old_process() {
    let mut w = World::thawing();
    w.see(Seen::Thawed(Err("version 8".into())));
    let text = "the app's thaw hook failed: version 8";
    assert_eq!((w.done(), w.error()), (format!("fail: {text}"), text.into()));
}

#[test]
fn an_old_process_that_takes_back_breaks_or_ends_before_this_one_serves_ends_this_one() {
    let broke = "the connection to the old process broke";
    let ends: [(End, &str); 5] = [
        (|| Seen::Message(FromPredecessor::TookBack), ALONE),
        (|| Seen::Gone, ALONE),
        (|| Seen::Broken(io::ErrorKind::BrokenPipe.into()), broke),
        (|| Seen::NotSaid(io::ErrorKind::BrokenPipe.into()), broke),
        (|| Seen::Stopped, ALONE),
    ];
    for (end, text) in ends {
        let mut w = World::taking();
        w.see(end());
        assert_eq!((w.done(), w.error()), (format!("fail: {text}"), text.into()));
    }
    let mut w = World::taking();
    w.hear(FromPredecessor::Done);
    assert!(w.error().starts_with("Done is not"));
}

#[test]
fn a_successor_that_cannot_say_that_it_serves_was_taken_back_from() {
    let mut w = World::receiving();
    w.see(Seen::NotSaid(io::ErrorKind::BrokenPipe.into()));
    assert_eq!((w.done(), w.error()), (String::new(), ALONE.into()));
}

#[test]
fn an_old_process_that_dies_midway_is_done_without() {
    for end in [|| Seen::Gone, || Seen::Broken(io::ErrorKind::ConnectionReset.into())] {
        let mut w = World::receiving();
        w.see(end());
        assert_eq!(w.done(), "WarnDied, AllArrived");
        assert!(w.serves_on());
        for mut w in [World::proving(), World::confirming()] {
            w.see(end());
            assert!(w.done().is_empty() && w.serves_on(), "it had told everything");
        }
    }
}

#[test]
fn an_old_process_that_hears_no_question_is_heard_until_nothing_comes_any_more() {
    let mut w = World::receiving();
    assert!(w.machine.may_ask());
    w.see(Seen::NotAsked { until: w.now + MS(10) });
    w.hear(session());
    assert_eq!((w.done(), w.machine.may_ask()), ("take Session".into(), false));
    assert_eq!(w.pass_until_due(), MS(10));
    assert_eq!(w.done(), "WarnDied, AllArrived");
    assert!(w.serves_on());
}

#[test]
fn an_old_process_that_takes_back_ends_this_one_at_every_stage() {
    for mut w in [World::receiving(), World::proving(), World::confirming()] {
        w.hear(FromPredecessor::TookBack);
        assert_eq!((w.done(), w.error()), (String::new(), ALONE.into()));
    }
}

#[test]
fn an_old_process_that_says_nothing_more_is_not_waited_for_for_ever() {
    let mut w = World::confirming();
    assert_eq!(w.pass_until_due(), MARGIN);
    assert!(w.done().is_empty() && w.serves_on());
}

#[test]
fn a_stop_tells_the_old_process_not_to_serve_again() {
    for mut w in [World::receiving(), World::proving(), World::confirming()] {
        w.see(Seen::Stopped);
        assert_eq!(w.done(), "try to say Proven");
        assert!(w.serves_on());
    }
}

#[test]
fn after_its_end_nothing_is_to_be_done_any_more() {
    let mut w = World::receiving();
    w.hear(FromPredecessor::TookBack);
    w.hear(session());
    w.see(Seen::Gone);
    w.see(Seen::Stopped);
    w.pass(START);
    assert_eq!((w.done(), w.machine.due(), w.error()), (String::new(), None, ALONE.into()));
}

#[test]
fn a_program_without_a_protocol_that_clients_speak_says_so_before_it_greets() {
    let mut world = World::new(false);
    let speaks = |names: &[&str], transport: Option<&str>| {
        let protocols = names.iter().map(|name| (*name).into()).collect();
        FromPredecessor::Speaks(Spoken { protocols, transport: transport.map(str::to_owned) })
    };
    world.hear(speaks(&["firefly"], Some("tcp")));
    assert!(!world.machine.is_over());
    world.hear(speaks(&["firefly", "lines"], Some("sealed")));
    let why =
        "clients speak `lines`, over `sealed` with the old process, and this program does not have that";
    assert_eq!(world.done.last(), Some(&format!("fail: {why}")));
    assert_eq!(world.machine.outcome().unwrap().unwrap_err().to_string(), why);
}
