//! The predecessor's half of a replacement as facts.

use ffproto::{NodeName, SessionId};

use super::*;
use crate::handover::receiver_machine::{self, ReceiverMachine};
use crate::handover::test_fixture::{MS, abilities, name, who};

/// What a machine is told, and what it has told to do, in words.
struct World {
    machine: SenderMachine,
    now: Instant,
    facts: Facts,
    done: Vec<String>,
}

/// An app that freezes, with 2 s to park, 10 s to drain and 1 s to prove.
fn freezing() -> Terms {
    let (park, drain, prove) = (MS(2000), MS(10_000), MS(1000));
    let speaks = Spoken::default();
    Terms { ours: who(5), freezes: true, has_clients: false, drains: false, speaks, park, drain, prove }
}

fn with_clients() -> Terms {
    Terms { freezes: false, has_clients: true, ..freezing() }
}

fn plain() -> Terms {
    Terms { has_clients: false, ..with_clients() }
}

fn gone() -> Facts {
    let (clients_left, http_left, children_switched) = (true, true, true);
    Facts { clients_left, http_left, children_switched, switched: true, quiet: true, ..Facts::default() }
}

fn words(what: &Do) -> String {
    match what {
        Do::Say(message) => format!("say {}", name(message)),
        Do::Answer(PassedBack { number, .. }) => format!("answer {number}"),
        other => format!("{other:?}"),
    }
}

impl World {
    fn new(terms: Terms) -> Self {
        let now = Instant::now();
        let (machine, first) = SenderMachine::new(terms, now);
        let done = first.iter().map(words).collect();
        Self { machine, now, facts: Facts::default(), done }
    }

    /// As the shell does: after what has happened there is a look, until that brings nothing new.
    fn see(&mut self, seen: Seen) {
        let mut todo = self.machine.step(seen, self.now);
        for _ in 0..10 {
            self.done.extend(todo.iter().map(words));
            todo = self.machine.step(Seen::Looked(self.facts.clone()), self.now);
            if todo.is_empty() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.done);
    }

    fn hear(&mut self, said: FromSuccessor) {
        self.see(Seen::Message(said));
    }

    fn show(&mut self, facts: Facts) {
        self.facts = facts;
        self.see(Seen::Looked(self.facts.clone()));
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

    /// The text of the error that it has ended with.
    fn error(&mut self) -> String {
        self.machine.outcome().unwrap().unwrap_err().to_string()
    }

    fn has_handed_over(&mut self) -> bool {
        matches!(self.machine.outcome(), Some(Ok(())))
    }

    fn goes_on(&mut self) -> bool {
        self.machine.outcome().is_none()
    }

    fn greeted(terms: Terms) -> Self {
        let mut w = Self::new(terms);
        w.hear(FromSuccessor::Hello(who(6)));
        w
    }

    /// A freezing app is quiet.
    fn gathering() -> Self {
        let mut w = Self::greeted(freezing());
        w.show(Facts { answered: true, quiet: true, ..Facts::default() });
        w
    }

    fn freezes() -> Self {
        let mut w = Self::gathering();
        w.see(Seen::HttpWaits);
        w
    }

    fn thawing() -> Self {
        let mut w = Self::freezes();
        w.see(Seen::Frozen);
        w
    }

    fn starting(terms: Terms) -> Self {
        let mut w = if terms.freezes { Self::thawing() } else { Self::greeted(terms) };
        w.hear(FromSuccessor::Thawed);
        w
    }

    fn serving(terms: Terms) -> Self {
        let mut w = Self::starting(terms);
        w.hear(FromSuccessor::Serves);
        w.done();
        w
    }

    fn leaving() -> Self {
        let mut w = Self::serving(with_clients());
        w.show(Facts { switched: true, ..Facts::default() });
        w.done();
        w
    }

    fn proving() -> Self {
        let mut w = Self::serving(plain());
        w.show(gone());
        w.done();
        w
    }
}

/// A world at some stage, made anew for each end of it.
type At = fn() -> World;
/// An end of the other process.
type End = fn() -> Seen;

const TAKEN_BACK: &str = "TakeBack, GoOn";
const THAWED: &str = "TakeBack, Thaw, GoOn";

#[test]
fn an_app_that_freezes_nothing_is_never_paused() {
    let mut w = World::new(plain());
    assert_eq!((w.done(), w.machine.awaits()), ("say Hello".into(), Awaits::Word));
    w.hear(FromSuccessor::Hello(who(6)));
    assert_eq!((w.done(), w.machine.awaits()), ("Begin, SendState".into(), Awaits::Word));
    w.hear(FromSuccessor::Thawed);
    assert_eq!(w.done(), "ClosePorts, say YourTurn");
    w.hear(FromSuccessor::Serves);
    assert_eq!((w.done(), w.machine.awaits()), ("Retire, BeginLeaving".into(), Awaits::Leave));
    w.show(gone());
    assert_eq!(w.done(), "LastCall, SendRest, say Done, TellHandedOver");
    w.hear(FromSuccessor::Proven);
    assert!(w.goes_on(), "what neighbours have just sent is passed on");
    w.pass(LINGER);
    assert!(w.has_handed_over() && w.done().is_empty());
}

#[test]
fn a_successor_of_no_version_that_this_process_speaks_gets_nothing() {
    let mut w = World::new(with_clients());
    w.done();
    let versions = Versions { min: Version(8), max: Version(9) };
    w.hear(FromSuccessor::Hello(ProcessIdentity { versions, ..who(6) }));
    assert_eq!(w.done(), "GoOn");
    let why = "the successor speaks versions 8 to 9 of the protocol between nodes, this process versions 3 to 4: nothing is \
               handed over";
    assert_eq!(w.error(), why);
}

#[test]
fn both_halves_keep_the_version_that_both_speak() {
    for (theirs, both) in [((3, 3), 3), ((4, 9), 4), ((2, 3), 3)] {
        let versions = Versions { min: Version(theirs.0), max: Version(theirs.1) };
        let other = |incarnation| ProcessIdentity { versions, ..who(incarnation) };
        let mut w = World::new(plain());
        assert_eq!(w.machine.version(), None);
        w.hear(FromSuccessor::Hello(other(6)));
        assert_eq!(w.machine.version(), Some(Version(both)));
        let now = Instant::now();
        let mut receiver = ReceiverMachine::new(who(6), abilities(false, MS(1000)), now + MS(1000), now);
        receiver.step(receiver_machine::Seen::Message(FromPredecessor::Hello(other(5))), now);
        assert_eq!(receiver.version(), Some(Version(both)));
    }
}

#[test]
fn an_app_that_freezes_is_paused_until_its_neighbours_have_answered_and_nothing_runs() {
    let mut w = World::greeted(freezing());
    assert_eq!((w.done(), w.machine.awaits()), ("say Hello, Begin, Pause".into(), Awaits::Rest));
    w.show(Facts { quiet: true, ..Facts::default() });
    assert_eq!(w.done(), "", "something may still come");
    w.show(Facts { answered: true, ..Facts::default() });
    assert_eq!((w.done(), w.machine.awaits()), (String::new(), Awaits::Rest));
    w.show(Facts { answered: true, quiet: true, ..Facts::default() });
    assert_eq!((w.done(), w.machine.awaits()), (String::new(), Awaits::Http));
    w.see(Seen::HttpWaits);
    assert_eq!(w.done(), "Freeze");
    w.see(Seen::Frozen);
    assert_eq!((w.done(), w.machine.awaits()), ("SendState".into(), Awaits::Word));
}

#[test]
fn a_neighbour_that_does_not_answer_is_not_waited_for_longer() {
    let mut w = World::greeted(freezing());
    w.done();
    w.show(Facts { quiet: true, ..Facts::default() });
    assert_eq!(w.pass_until_due(), PAUSE_MAX);
    assert_eq!((w.done(), w.machine.awaits()), ("WarnUnanswered".into(), Awaits::Http));
}

#[test]
fn a_node_that_is_busy_at_half_of_the_park_time_is_kept_and_the_error_says_what_runs() {
    let mut w = World::greeted(freezing());
    w.done();
    let answers_of = vec!["net".to_owned(), "other".to_owned()];
    w.show(Facts { answered: true, handlers: 3, answers_of, ..Facts::default() });
    assert_eq!(w.pass_until_due(), MS(1000));
    assert_eq!(w.done(), "GoOn", "the end of the connection tells the successor");
    let text =
        "3 handlers still ran 1000 ms after the pause began (limits.park_ms): for answers of net, other";
    assert_eq!(w.error(), text);
    let mut w = World::greeted(freezing());
    w.show(Facts { answered: true, handlers: 1, ..Facts::default() });
    w.pass(MS(1000));
    assert!(w.error().ends_with("for nothing that the framework sees"));
}

#[test]
fn what_comes_to_rest_at_the_last_moment_has_come_to_rest() {
    let mut w = World::greeted(freezing());
    w.show(Facts { answered: true, ..Facts::default() });
    w.now += MS(1000);
    w.show(Facts { answered: true, quiet: true, ..Facts::default() });
    assert_eq!(w.machine.awaits(), Awaits::Http);
}

#[test]
fn a_stream_over_http_is_waited_for_half_of_the_time_that_is_left_for_the_pause() {
    let mut w = World::gathering();
    w.done();
    w.now += MS(500);
    w.show(w.facts.clone());
    assert_eq!(w.done(), "", "those that are ready are taken first");
    assert_eq!(w.pass_until_due(), MS(0));
    assert_eq!(w.done(), "Freeze");
    w.see(Seen::HttpWaits);
    assert_eq!(w.done(), "", "it comes too late");
}

#[test]
fn a_freeze_hook_that_fails_keeps_the_old_process_without_a_thaw() {
    let mut w = World::freezes();
    w.done();
    w.see(Seen::FreezeFailed("full".into()));
    assert_eq!((w.done(), w.error()), ("GoOn".into(), "the app's freeze hook failed: full".into()));
}

#[test]
fn who_is_no_newer_process_of_the_node_is_a_stranger() {
    let other = NodeName::try_from("other").unwrap();
    let strangers = [
        FromSuccessor::Hello(who(5)),
        FromSuccessor::Hello(ProcessIdentity { name: other, ..who(6) }),
        FromSuccessor::Hello(ProcessIdentity { cluster: "other".into(), ..who(6) }),
        FromSuccessor::Serves,
    ];
    for said in strangers {
        let mut w = World::new(plain());
        w.hear(said);
        assert_eq!(w.done(), "say Hello, GoOn");
        assert!(w.error().starts_with("somebody else waits at the door"));
    }
}

#[test]
fn a_successor_that_does_not_answer_in_time_is_given_up() {
    let mut w = World::new(plain());
    assert_eq!(w.pass_until_due(), GREETING_MAX);
    assert_eq!(w.error(), "the successor did not answer within 2000 ms");
}

#[test]
fn a_state_that_is_not_taken_in_time_is_thawed_here() {
    let mut w = World::thawing();
    w.done();
    assert_eq!(w.pass_until_due(), MS(2000), "limits.park_ms since the begin");
    assert_eq!(w.done(), THAWED);
    assert_eq!(w.error(), "the successor did not take the state over within 2000 ms");
    let mut w = World::greeted(plain());
    assert_eq!(w.pass_until_due(), SERVES_MAX, "nobody waits");
    assert_eq!(w.error(), "the successor did not take the state over within 10000 ms");
}

#[test]
fn a_successor_that_does_not_serve_in_time_is_told_to_leave() {
    let mut w = World::starting(freezing());
    w.done();
    assert_eq!(w.pass_until_due(), MS(2000));
    assert_eq!((w.done(), w.error()), (THAWED.into(), "the successor did not serve within 2000 ms".into()));
}

#[test]
fn a_successor_that_fails_before_it_serves_leaves_the_node_as_it_was() {
    let stages: [(&str, At, &str); 6] = [
        ("pausing", || World::greeted(freezing()), "GoOn"),
        ("gathering", World::gathering, "GoOn"),
        ("freezing", World::freezes, "GoOn"),
        ("thawing", World::thawing, THAWED),
        ("starting", || World::starting(freezing()), THAWED),
        ("starting, nothing frozen", || World::starting(plain()), TAKEN_BACK),
    ];
    for (stage, world, done) in stages {
        let mut w = world();
        w.done();
        w.hear(FromSuccessor::Failed { reason: "no database".into() });
        assert_eq!((w.done(), w.error()), (done.into(), "no database".into()), "{stage}");
        let mut w = world();
        w.done();
        w.see(Seen::Gone);
        assert_eq!((w.done(), w.error()), (done.into(), "the successor has ended".into()), "{stage}");
        let mut w = world();
        w.done();
        w.see(Seen::Broken(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(w.done(), done, "{stage}");
        assert_eq!(w.error(), "the connection to the successor broke: broken pipe", "{stage}");
        let mut w = world();
        w.done();
        w.hear(FromSuccessor::Proven);
        assert_eq!(w.done(), done, "{stage}");
        assert_eq!(w.error(), "somebody else waits at the door: Proven", "{stage}");
    }
}

#[test]
fn a_stop_before_the_successor_serves_takes_back_and_says_nothing() {
    let stages: [(&str, At, &str); 6] = [
        ("greeting", || World::new(plain()), "GoOn"),
        ("pausing", || World::greeted(freezing()), "GoOn"),
        ("freezing", World::freezes, "GoOn"),
        ("thawing", World::thawing, "Thaw, GoOn"),
        ("starting", || World::starting(freezing()), "Thaw, GoOn"),
        ("starting, nothing frozen", || World::starting(plain()), "GoOn"),
    ];
    for (stage, world, done) in stages {
        let mut w = world();
        w.done();
        w.see(Seen::Stopped);
        assert_eq!((w.done(), w.error()), (done.into(), "the node was told to stop".into()), "{stage}");
    }
}

#[test]
fn a_stop_after_the_successor_serves_ends_the_old_process_and_takes_nothing_back() {
    let stages: [fn() -> World; 4] = [
        || World::serving(with_clients()),
        World::leaving,
        World::proving,
        || {
            let mut w = World::proving();
            w.hear(FromSuccessor::Failed { reason: "late".into() });
            w
        },
    ];
    for world in stages {
        let mut w = world();
        w.done();
        w.see(Seen::Stopped);
        assert!(w.done().is_empty() && w.has_handed_over());
    }
}

#[test]
fn a_successor_that_could_not_read_who_stays_ends_at_the_greeting() {
    let said = |drains, speaks: Spoken| {
        let (_, todo) = SenderMachine::new(Terms { drains, speaks, ..with_clients() }, Instant::now());
        matches!(todo[..], [Do::Say(FromPredecessor::Speaks(_)), Do::Say(FromPredecessor::Hello(_))])
    };
    let lines = || Spoken { protocols: vec!["lines".into()], transport: None };
    assert!(!said(false, Spoken::default()), "as earlier releases greet");
    assert!(said(false, lines()) && said(true, lines()) && said(true, Spoken::default()));
}

#[test]
fn clients_leave_when_the_neighbours_have_turned_to_the_successor() {
    let mut w = World::starting(with_clients());
    w.done();
    w.hear(FromSuccessor::Serves);
    assert_eq!((w.done(), w.machine.awaits()), ("Retire".into(), Awaits::Switch));
    w.show(Facts { switched: true, ..Facts::default() });
    assert_eq!((w.done(), w.machine.awaits()), ("BeginLeaving".into(), Awaits::Leave));
}

#[test]
fn a_neighbour_that_does_not_turn_holds_the_clients_up_for_a_moment_only() {
    let mut w = World::serving(with_clients());
    assert_eq!(w.pass_until_due(), PAUSE_MAX);
    assert_eq!(w.done(), "WarnUnswitched, BeginLeaving");
    assert_eq!(w.pass_until_due(), MS(10_000) - PAUSE_MAX, "drain_s since it serves");
}

#[test]
fn questions_of_the_successor_are_answered_from_when_it_serves_until_everything_is_sent() {
    let asked = |number| FromSuccessor::Asked { number, session: SessionId(1), body: vec![] };
    let mut w = World::serving(with_clients());
    w.hear(asked(1));
    assert_eq!(w.done(), "answer 1");
    w.show(Facts { switched: true, ..Facts::default() });
    w.hear(asked(2));
    assert_eq!(w.done(), "BeginLeaving, answer 2");
    // It was on its way when Done was: the successor asks itself.
    let mut w = World::proving();
    w.hear(asked(3));
    assert!(w.done().is_empty() && w.goes_on());
    w.hear(FromSuccessor::Proven);
    w.pass(LINGER);
    assert!(w.has_handed_over());
}

#[test]
fn the_last_call_goes_out_once_when_nothing_new_can_begin_also_while_parents_still_send() {
    let mut w = World::leaving();
    let blockers: [fn(Facts) -> Facts; 4] = [
        |facts| Facts { clients_left: false, ..facts },
        |facts| Facts { http_left: false, ..facts },
        |facts| Facts { children_switched: false, ..facts },
        |facts| Facts { quiet: false, ..facts },
    ];
    for blocked in blockers {
        w.show(blocked(gone()));
        assert_eq!(w.done(), "");
    }
    w.show(Facts { switched: false, ..gone() });
    assert_eq!(w.done(), "LastCall");
    w.show(Facts { quiet: false, ..gone() });
    w.show(Facts { switched: false, ..gone() });
    assert_eq!(w.done(), "", "it was said");
    w.show(gone());
    assert_eq!(w.done(), "SendRest, say Done, TellHandedOver");
}

#[test]
fn what_has_not_ended_by_the_drain_time_is_left_behind_with_a_warning() {
    let mut w = World::leaving();
    w.show(Facts { clients_left: false, ..gone() });
    assert_eq!(w.pass_until_due(), MS(10_000));
    assert_eq!(w.done(), "WarnLeft, SendRest, say Done, TellHandedOver");
    let mut w = World::leaving();
    w.now += MS(10_000);
    w.show(gone());
    assert_eq!(w.done(), "LastCall, SendRest, say Done, TellHandedOver", "at the last moment");
}

#[test]
fn a_successor_that_fails_while_clients_leave_is_taken_back_from() {
    for world in [World::leaving, || World::serving(with_clients())] {
        let mut w = world();
        w.hear(FromSuccessor::Failed { reason: "panic".into() });
        assert_eq!((w.done(), w.error()), (TAKEN_BACK.into(), "panic".into()));
        let mut w = world();
        w.see(Seen::Gone);
        assert_eq!((w.done(), w.error()), (TAKEN_BACK.into(), "the successor has ended".into()));
        let mut w = world();
        w.see(Seen::Broken(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(w.done(), TAKEN_BACK);
        let mut w = world();
        w.hear(FromSuccessor::Serves);
        assert!(w.done().is_empty() && w.goes_on(), "said twice is no harm");
    }
}

#[test]
fn a_successor_that_takes_nothing_is_told_nothing() {
    for (world, done) in [(World::thawing as At, "Thaw, GoOn"), (|| World::serving(plain()), "GoOn")] {
        let mut w = world();
        w.done();
        w.see(Seen::Broken(io::ErrorKind::TimedOut.into()));
        assert_eq!(w.done(), done);
    }
}

#[test]
fn a_frozen_state_is_thawed_here_also_when_the_successor_fails_after_it_has_served() {
    let mut w = World::serving(freezing());
    w.see(Seen::Gone);
    assert_eq!(w.done(), THAWED);
}

#[test]
fn a_successor_that_is_told_to_stop_while_clients_leave_ends_the_old_process_as_well() {
    for mut w in [World::leaving(), World::serving(with_clients())] {
        w.hear(FromSuccessor::Proven);
        assert!(w.done().is_empty() && w.has_handed_over());
    }
}

#[test]
fn a_successor_that_lives_and_is_silent_is_trusted_after_all() {
    let mut w = World::proving();
    assert_eq!(w.pass_until_due(), MS(1000) + MARGIN, "limits.prove_ms and a margin");
    assert!(w.done().is_empty() && w.has_handed_over());
}

#[test]
fn a_successor_that_fails_while_it_proves_itself_is_taken_back_from_when_the_last_was_passed_on() {
    let ends: [(End, &str); 4] = [
        (|| Seen::Gone, "the successor has ended"),
        (|| Seen::Message(FromSuccessor::Failed { reason: "panic".into() }), "panic"),
        (|| Seen::Message(FromSuccessor::Serves), "the successor has ended"),
        (
            || Seen::Broken(io::ErrorKind::BrokenPipe.into()),
            "the connection to the successor broke: broken pipe",
        ),
    ];
    for (end, text) in ends {
        let mut w = World::proving();
        w.see(end());
        assert_eq!((w.done(), w.machine.awaits(), w.goes_on()), (String::new(), Awaits::Nothing, true));
        w.see(Seen::Gone);
        assert_eq!(w.pass_until_due(), LINGER);
        assert_eq!((w.done(), w.error()), (TAKEN_BACK.into(), text.into()));
        let mut w = World::proving();
        w.now += MS(500);
        w.see(end());
        assert_eq!((w.done(), w.error()), (TAKEN_BACK.into(), text.into()), "it was passed on long ago");
    }
}

#[test]
fn after_its_end_nothing_is_to_be_done_any_more() {
    let mut w = World::leaving();
    w.see(Seen::Gone);
    w.done();
    w.hear(FromSuccessor::Proven);
    w.see(Seen::Broken(io::ErrorKind::BrokenPipe.into()));
    w.see(Seen::Stopped);
    w.show(gone());
    assert_eq!((w.done(), w.machine.due()), (String::new(), None));
    assert_eq!(w.error(), "the successor has ended");
}

#[test]
fn what_clients_speak_is_told_before_the_greeting_and_a_refusal_comes_before_anything_has_begun() {
    let terms =
        Terms { speaks: Spoken { protocols: vec!["lines".into()], transport: None }, ..with_clients() };
    let (mut machine, told) = SenderMachine::new(terms, Instant::now());
    assert_eq!(told.iter().map(words).collect::<Vec<_>>(), ["say Speaks", "say Hello"]);
    let refused = FromSuccessor::Failed { reason: "no `lines`".into() };
    let done = machine.step(Seen::Message(refused), Instant::now());
    assert!(!done.contains(&Do::Begin) && !done.contains(&Do::Pause), "{done:?}");
    assert_eq!(machine.outcome().unwrap().unwrap_err().to_string(), "no `lines`");
}

#[test]
fn clients_that_cannot_leave_are_served_almost_until_the_drain_time_and_then_told_the_end() {
    let mut w = World::serving(Terms { drains: true, ..with_clients() });
    w.show(Facts { switched: true, ..Facts::default() });
    assert_eq!(w.done(), "BeginLeaving");
    assert_eq!(w.pass_until_due(), MS(9000));
    assert_eq!(w.done(), "SayGoodbye");
    w.show(gone());
    assert_eq!(w.done(), "LastCall, SendRest, say Done, TellHandedOver");
}

#[test]
fn clients_that_cannot_leave_are_told_the_end_at_once_when_the_state_is_the_successors() {
    let mut w = World::greeted(Terms { drains: true, has_clients: true, ..freezing() });
    w.show(Facts { answered: true, quiet: true, ..Facts::default() });
    w.see(Seen::HttpWaits);
    w.see(Seen::Frozen);
    w.hear(FromSuccessor::Thawed);
    w.hear(FromSuccessor::Serves);
    w.done();
    w.show(Facts { switched: true, ..Facts::default() });
    assert_eq!(w.done(), "BeginLeaving, SayGoodbye");
}
