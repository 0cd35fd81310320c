//! A predecessor that takes no question, or none any more, keeps no successor from serving.

use std::sync::Arc;
use std::time::Duration;

use ffambient::Chance;
use ffnet::door::{self, DoorListener};
use ffproto::handover::AffinityEntry;
use ffproto::link::{Client, Head, Kind};
use ffproto::relay::{self, Op};
use ffproto::{CommandId, NodeName, SessionId};

use super::*;
use crate::cluster::side::{PeerKey, Side};
use crate::handover::test_fixture::{abilities, child, context, who};
use crate::transit::envelope_hold::HeldEnvelope;

type DoorToSuccessor = Passage<FromSuccessor, FromPredecessor>;

/// As long as a hand-over may take in all: what takes longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A successor that is to serve, and its predecessor's end of the door.
async fn prepared(context: &HandoverContext) -> (Receiver, DoorToSuccessor) {
    let listener = DoorListener::open(&Chance::system()).unwrap();
    let theirs = door::enter(&listener.door()).unwrap();
    let (passage, now) = (listener.accept().await.unwrap(), Instant::now());
    let mut machine =
        ReceiverMachine::new(who(6), abilities(false, Duration::from_secs(1)), now + PATIENCE, now);
    for said in
        [FromPredecessor::Hello(who(5)), FromPredecessor::Frozen { version: None }, FromPredecessor::YourTurn]
    {
        machine.step(Seen::Message(said), now);
    }
    assert!(machine.is_prepared());
    let predecessor = Predecessor { passage, machine, todo: VecDeque::new() };
    (Receiver { predecessor, questions: Questions::new(&context.node) }, theirs)
}

/// Another node asks about a session that has not come yet, with so many bytes.
fn ask(context: &HandoverContext, bytes: usize) {
    let link = child(context);
    let at = PeerKey::new(Side::Child, link.peer().name.clone());
    let client = Some(Client { session: SessionId(1), command: CommandId(1), stateless: false });
    let head = Head { kind: Kind::Call, method: 0, call: 1, time_left_ms: 1000, client, hops: 0 };
    let (body, now) = (vec![0; bytes], Instant::now());
    let refused = context.node.transit().hold().to_predecessor(HeldEnvelope { at, link, head, body, now });
    assert!(refused.is_none());
}

/// A choice of the session that was asked about.
fn choice() -> AffinityEntry {
    let node = Some(NodeName::try_from("game").unwrap());
    AffinityEntry { session: SessionId(1), kind: "game".into(), node, end: None, from: None }
}

/// A session that stays with the predecessor does not come, where it would be told of its loss.
#[tokio::test]
async fn a_session_that_stays_is_closed_there_when_it_loses_its_user() {
    for knows_before in [true, false] {
        let context = context();
        let (sessions, session) = (context.node.all_sessions(), SessionId(1));
        let mut questions = Questions::new(&context.node);
        context.node.transit().hold().set_expecting(true);
        let stay = || context.take(FromPredecessor::Stay(vec![session]), None);
        if knows_before {
            stay();
        }
        sessions.kick(session, "ann");
        if !knows_before {
            stay();
        }
        let said = timeout(PATIENCE, questions.next()).await.expect("it is never closed");
        let FromSuccessor::Passed { number: 0, session: closed, body, .. } = said else { panic!("{said:?}") };
        assert_eq!((closed, relay::read(&body).unwrap().op), (session, Some(Op::Close)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_predecessor_that_takes_nothing_out_of_the_door_is_served_without() {
    let context = context();
    let (receiver, _theirs) = prepared(&context).await;
    ask(&context, 8 << 20);
    let (stop, begun) = (Stop::new(PATIENCE), Instant::now());
    let outcome = timeout(PATIENCE, receiver.serve(&context, &stop)).await.expect("it waits for ever");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn what_a_predecessor_has_sent_before_its_end_is_taken_although_it_hears_no_question() {
    // Which of the two is looked at first is left to chance.
    for _ in 0..20 {
        let context = context();
        let (receiver, mut theirs) = prepared(&context).await;
        let predecessor = async {
            // One that has not heard this would take back.
            assert_eq!(theirs.receive().await.unwrap().unwrap().0, FromSuccessor::Serves);
            theirs.send(&FromPredecessor::Choices(vec![choice()]), &[]).await.unwrap();
            drop(theirs);
            ask(&context, 1);
        };
        let stop = Stop::new(PATIENCE);
        let (outcome, ()) = tokio::join!(receiver.serve(&context, &stop), predecessor);
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(context.choices(Arc::default()), [FromPredecessor::Choices(vec![choice()])]);
    }
}
