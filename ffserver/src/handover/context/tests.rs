//! Whatever a hand-over waits for wakes it: a test that hangs has found something that is polled for.

use std::time::Duration;

use ffnet::link::{CallOptions, Change};
use ffproto::CommandId;
use ffproto::link::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::side::Side;
use crate::gateway::acceptor::OpenPorts;
use crate::handover::test_fixture::{child, context};
use crate::transit::park::{HandlerMessage, ParkedKind, ParkedMessage, RetryResult};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a hand-over that awaits that would sleep now; what has woken it before is behind it then.
async fn sleeps(context: &HandoverContext, awaits: Awaits, shown: &Facts) -> bool {
    let mut woken = 0;
    while timeout(Duration::ZERO, context.changed(awaits, shown)).await.is_ok() {
        woken += 1;
        assert!(woken < 100, "it never sleeps");
    }
    true
}

/// Does `change` while a hand-over sleeps, which must wake it.
async fn wakes(context: &HandoverContext, awaits: Awaits, shown: &Facts, change: impl FnOnce()) {
    assert!(sleeps(context, awaits, shown).await);
    let mut changed = std::pin::pin!(context.changed(awaits, shown));
    assert!(timeout(Duration::ZERO, &mut changed).await.is_err());
    change();
    timeout(PATIENCE, changed).await.expect("it is woken");
}

fn rest(context: &HandoverContext) -> Facts {
    context.look(Awaits::Rest, &[], None, true)
}

#[tokio::test]
async fn neighbours_that_come_answer_switch_or_end_wake_a_hand_over() {
    let context = context();
    let shown = Facts { clients_left: true, ..Facts::default() };
    for awaits in [Awaits::Rest, Awaits::Switch, Awaits::Leave] {
        let mut link = None;
        wakes(&context, awaits, &shown, || link = Some(child(&context))).await;
        let link = link.unwrap();
        for change in [Change::PeerPaused, Change::Switched, Change::Resumed] {
            wakes(&context, awaits, &shown, || context.node.transit().link_changed(&link, change)).await;
        }
        link.close("ends");
        wakes(&context, awaits, &shown, || assert!(context.node.transit().remove_child(&link))).await;
    }
}

#[tokio::test]
async fn the_end_of_the_last_handler_wakes_a_hand_over_and_ticks_do_not_count() {
    let context = context();
    context.begin();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    context.node.identity().tasks().calls().spawn(ended);
    context.node.identity().tasks().ticks().spawn(std::future::pending::<()>());
    let shown = rest(&context);
    assert_eq!((shown.quiet, shown.handlers), (false, 1));
    wakes(&context, Awaits::Rest, &shown, || end.send(()).unwrap()).await;
    assert!(rest(&context).quiet);
    assert!(sleeps(&context, Awaits::Rest, &rest(&context)).await);
}

#[tokio::test]
async fn a_node_that_is_taken_away_is_at_rest_when_its_last_handler_ends_and_its_neighbours_have_turned_away()
{
    let context = context();
    let link = child(&context);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    context.node.identity().tasks().calls().spawn(ended);
    let mut at_rest = Box::pin(context.at_rest());
    assert!(timeout(Duration::ZERO, &mut at_rest).await.is_err());
    link.close("a link that has ended brings nothing new");
    context.node.transit().remove_child(&link);
    assert!(timeout(Duration::ZERO, &mut at_rest).await.is_err(), "the handler runs");
    end.send(()).unwrap();
    timeout(PATIENCE, &mut at_rest).await.expect("it is woken");
    drop(at_rest);
    assert!(!context.node.identity().tasks().calls().is_closed(), "as it was before");
}

#[tokio::test]
async fn the_end_of_the_last_call_of_a_link_wakes_a_hand_over() {
    let context = context();
    let link = child(&context);
    let options = CallOptions { deadline: Instant::now() + PATIENCE, client: None };
    let call = link.call("method", b"", options);
    let shown = rest(&context);
    assert_eq!((shown.quiet, &*shown.answers_of), (false, &["game".to_owned()][..]));
    wakes(&context, Awaits::Rest, &shown, || drop(call)).await;
    assert!(rest(&context).quiet);
}

/// Parks a message for a node that is not there.
fn park(context: &HandoverContext) {
    let client = Client { session: ffproto::SessionId(1), command: CommandId(1), stateless: false };
    let _ = context.node.transit().park().park(ParkedMessage {
        kind: ParkedKind::Notify(HandlerMessage::new(Side::Child, "game", "method", Some(client))),
        body: Default::default(),
        deadline: Instant::now() + PATIENCE,
    });
}

/// Lets go of what is parked.
fn empty_park(context: &HandoverContext) {
    context.node.transit().park().look(|_, _| RetryResult::Gone);
}

#[tokio::test]
async fn the_last_message_that_waits_wakes_a_hand_over_when_it_goes() {
    let context = context();
    park(&context);
    let shown = rest(&context);
    assert!(!shown.quiet);
    wakes(&context, Awaits::Rest, &shown, || empty_park(&context)).await;
    assert!(rest(&context).quiet);
}

/// What another thread may do between a look and the wait that follows.
#[tokio::test]
async fn what_ends_between_a_look_and_the_wait_for_it_wakes_a_hand_over() {
    for awaits in [Awaits::Rest, Awaits::Leave] {
        let context = context();
        context.begin();
        let look = || context.look(awaits, &[], None, true);
        let wakes_late = async |shown: &Facts| {
            assert!(!shown.quiet && look().quiet);
            timeout(PATIENCE, context.changed(awaits, shown)).await.expect("it is woken");
        };
        park(&context);
        let shown = look();
        empty_park(&context);
        wakes_late(&shown).await;

        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let handler = context.node.identity().tasks().calls().spawn(ended);
        let shown = look();
        end.send(()).unwrap();
        handler.await.unwrap().unwrap();
        wakes_late(&shown).await;

        let link = child(&context);
        context.node.transit().link_changed(&link, Change::Switched);
        let options = CallOptions { deadline: Instant::now() + PATIENCE, client: None };
        let call = link.call("method", b"", options);
        // The coming of the link is behind it.
        assert!(sleeps(&context, awaits, &look()).await);
        let shown = look();
        drop(call);
        if awaits == Awaits::Rest {
            wakes_late(&shown).await;
        }
    }
}

#[tokio::test]
async fn the_last_request_of_a_client_that_holds_and_the_last_client_that_leaves_wake_a_hand_over() {
    let context = context();
    let clients = context.clients.clone().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let open = OpenPorts::new(context.ports.subscribe());
    tokio::spawn(clients.serve(Box::new(listener), open, CancellationToken::new()));
    let client = TcpStream::connect(at).await.unwrap();
    while context.node.all_sessions().registry().all().is_empty() {
        tokio::task::yield_now().await;
    }
    let session = context.node.all_sessions().registry().all().remove(0);
    session.request_waits();
    context.hold_clients();
    let shown = rest(&context);
    assert!(!shown.quiet);
    wakes(&context, Awaits::Rest, &shown, || session.request_ended()).await;
    assert!(rest(&context).quiet);
    let moving = session.begin_move();
    assert!(moving && !rest(&context).quiet);
    wakes(&context, Awaits::Rest, &rest(&context), || session.end_move()).await;
    assert!(rest(&context).quiet);
    let leaving = context.begin_leaving();
    let shown = context.look(Awaits::Leave, &[], leaving.as_ref(), true);
    assert!(!shown.clients_left);
    // That one does not leave, but ends.
    session.request_waits();
    wakes(&context, Awaits::Leave, &shown, || {
        session.close("it is over");
        drop(client);
        session.request_ended();
    })
    .await;
    assert!(context.look(Awaits::Leave, &[], leaving.as_ref(), true).clients_left);
}
