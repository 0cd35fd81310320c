//! An app or a successor that never comes to an end keeps no predecessor from going on.

use std::time::Duration;

use ffambient::Chance;
use ffnet::door::DoorListener;
use ffproto::Incarnation;
use ffproto::handover::ProcessIdentity;

use super::*;
use crate::handover::test_fixture::{context, name};
use crate::identity::lifecycle::Phase;

type DoorToPredecessor = Passage<FromPredecessor, FromSuccessor>;

/// As long as a hand-over may take in all: what takes longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A successor that has come to the door and greeted.
async fn greet(listener: &DoorListener) -> DoorToPredecessor {
    let mut passage = listener.accept().await.unwrap();
    let Some((FromPredecessor::Hello(theirs), _)) = passage.receive().await.unwrap() else { panic!() };
    let incarnation = Incarnation(theirs.incarnation.0 + 1);
    passage.send(&FromSuccessor::Hello(ProcessIdentity { incarnation, ..theirs }), &[]).await.unwrap();
    passage
}

/// Reads until the predecessor says that, and returns what it has said in all.
async fn hear_until(passage: &mut DoorToPredecessor, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|word| word != last) {
        let (said, _) = passage.receive().await.unwrap().unwrap();
        heard.push(name(&said));
    }
    heard
}

/// Hands over to a successor that does that after its greeting. The error with which the node goes on, and how long it
/// was away.
async fn fail_to_hand_over(
    context: &HandoverContext,
    successor: impl AsyncFnOnce(&mut DoorToPredecessor),
) -> (String, Duration) {
    let (listener, stop, begun) =
        (DoorListener::open(&Chance::system()).unwrap(), Stop::new(PATIENCE), Instant::now());
    let ours = async {
        let (door, handed_over) = (listener.door(), || panic!("nothing is handed over"));
        let outcome = timeout(PATIENCE, hand_over(context, &door, &stop, &handed_over)).await;
        (outcome.expect("it waits for ever").unwrap_err().to_string(), begun.elapsed())
    };
    let theirs = async {
        let mut passage = greet(&listener).await;
        successor(&mut passage).await;
        passage
    };
    let (failed, _passage) = tokio::join!(ours, theirs);
    assert_eq!(context.node.phase(), Phase::Ready);
    assert!(*context.ports.borrow(), "the ports are open again");
    failed
}

/// A node whose app freezes a state of so many bytes.
fn freezing(bytes: usize) -> HandoverContext {
    let mut context = context();
    context.hooks.freeze = Some((7, Arc::new(move |_| Box::pin(async move { Ok(vec![0; bytes]) }))));
    context
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_never_ends_is_given_up_when_neighbours_wait_no_longer() {
    let mut context = context();
    context.hooks.freeze = Some((7, Arc::new(|_| Box::pin(std::future::pending()))));
    let (error, away) = fail_to_hand_over(&context, async |_| {}).await;
    assert!(error.starts_with("the app's freeze hook failed: "), "{error}");
    assert_eq!(away, context.node.config().limits.park);
}

#[tokio::test(start_paused = true)]
async fn a_thaw_that_never_ends_in_the_predecessor_is_given_up() {
    let mut context = freezing(1);
    context.hooks.thaw = Some(Arc::new(|_, _| Box::pin(std::future::pending())));
    let successor = async |passage: &mut DoorToPredecessor| {
        hear_until(passage, "Frozen").await;
        let reason = "no such world".to_owned();
        passage.send(&FromSuccessor::Failed { reason }, &[]).await.unwrap();
        assert_eq!(hear_until(passage, "TookBack").await, ["TookBack"]);
    };
    let (error, away) = fail_to_hand_over(&context, successor).await;
    assert_eq!(error, "no such world");
    assert_eq!(away, context.node.config().limits.call_timeout, "it may take as long as other hooks");
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_takes_nothing_out_of_the_door_is_taken_back_from() {
    let context = freezing(64 << 20);
    let (error, away) = fail_to_hand_over(&context, async |_| {}).await;
    assert!(error.starts_with("the connection to the successor broke: "), "{error}");
    assert_eq!(away, Duration::from_secs(10), "nothing more is said to it");
}
