//! The link's driver as facts: two ends in one process, and an end against raw bytes.

use std::sync::Arc;
use std::time::Duration;

use ffproto::credential::PublicKey;
use ffproto::link::LinkFault;
use ffproto::{Incarnation, NodeName, SessionId, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::super::{CallOptions, Forward, LinkCounters, LinkLimits, NotSent, Sink};
use super::*;
use crate::handshake::Peer;

const LIMITS: LinkLimits = LinkLimits {
    frame_bytes_max: 4 << 20,
    outbox_bytes_max: 8 << 20,
    calls_max: 1000,
    heartbeat: Duration::from_millis(500),
};

/// Answers method 0 with the body, method 1 with a fault, method 2 never, method 3 with too much.
struct Echo;
impl Service for Echo {
    fn call(&self, link: &Link, head: &Head, body: &[u8], _: Instant) {
        match head.method {
            0 => link.reply(head.call, body),
            3 => link.reply(head.call, &vec![0; 5 << 20]),
            1 => link.reply_fault(head.call, &link.fault(Code::Handler, Executed::Unknown, "no")),
            _ => {}
        }
    }
    fn notify(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {}
    fn changed(&self, link: &Link, change: Change) {
        if change == Change::Resumed {
            link.reinstate();
        }
    }
}

fn peer(name: &str) -> Peer {
    Peer {
        name: NodeName::try_from(name).unwrap(),
        kind: name.into(),
        incarnation: Incarnation(1),
        pid: 1,
        program: String::new(),
        methods: vec!["echo".into(), "fail".into(), "never".into(), "floods".into()],
        version: Versions::OURS.max,
        root: PublicKey([0; 32]),
    }
}

fn end(here: &str, there: &str, io: DuplexStream) -> (Link, JoinHandle<Closed>) {
    let link = Link::new(NodeName::try_from(here).unwrap(), peer(there), LIMITS, Arc::default());
    (link.clone(), tokio::spawn(Driver::new(link, io, Echo)))
}

fn pair() -> ((Link, JoinHandle<Closed>), (Link, JoinHandle<Closed>)) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (end("net", "gate", a), end("gate", "net", b))
}

fn within(ms: u64) -> CallOptions {
    CallOptions { deadline: Instant::now() + Duration::from_millis(ms), client: None }
}

#[tokio::test]
async fn calls_run_both_ways_and_end_with_what_was_answered() {
    let ((net, _a), (gate, _b)) = pair();
    assert_eq!(net.call("echo", b"up", within(1000)).await.unwrap(), "up");
    assert_eq!(gate.call("echo", b"down", within(1000)).await.unwrap(), "down");
    let fault = net.call("fail", b"", within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.at.as_str(), fault.message.as_str()), (Code::Handler, "gate", "no"));
    let fault = net.call("nothing", b"", within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::NoMethod, Executed::No));
}

struct Nobody;
impl Sink for Nobody {
    fn end(self: Arc<Self>, _: u64, _: Result<Option<&[u8]>, &Fault>) {}
}

fn forward(link: &Link, method: u16, message_of: Option<SessionId>, nested: bool) -> Result<(), NotSent> {
    let sink = Arc::new(Nobody);
    let options = within(1000);
    let call = Forward { method, body: b"x", options, message_of, hops: 0, nested, sink, token: 0 };
    Ok(link.forward(call, Instant::now())?)
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(5), async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_pauses_a_peer_is_told_that_it_has_answered() {
    #[derive(Clone, Default)]
    struct Changes(Arc<parking_lot::Mutex<Vec<Change>>>);
    impl Service for Changes {
        fn call(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {}
        fn notify(&self, _: &Link, _: &Head, _: &[u8], _: Instant) {}
        fn changed(&self, link: &Link, change: Change) {
            assert!(link.peer_is_paused(), "noted before it is told");
            self.0.lock().push(change);
        }
    }
    let (a, b) = tokio::io::duplex(1 << 16);
    let (_gate, _task) = end("gate", "net", a);
    let net = Link::new(NodeName::try_from("net").unwrap(), peer("gate"), LIMITS, Arc::default());
    let told = Changes::default();
    tokio::spawn(Driver::new(net.clone(), b, told.clone()));
    net.pause();
    until(|| *told.0.lock() == [Change::PeerPaused]).await;
}

#[tokio::test]
async fn a_paused_peer_gets_nothing_new_but_what_it_waits_for_until_it_resumes() {
    let ((net, _a), (gate, _b)) = pair();
    gate.pause();
    until(|| gate.peer_is_paused()).await;
    assert!(net.is_paused() && !net.is_open());
    assert!(matches!(forward(&net, 0, None, false), Err(NotSent::Later)));
    assert!(matches!(net.notify("echo", b"", None), Err(NotSent::Later)));
    assert!(forward(&net, 0, None, true).is_ok(), "a nested call goes out");
    // The other way is open: the peer's own handlers may have to call before they can end.
    assert_eq!(gate.call("echo", b"out", within(1000)).await.unwrap(), "out");
    gate.resume();
    assert!(!gate.peer_is_paused());
    until(|| net.is_open()).await;
    assert_eq!(net.call("echo", b"in", within(1000)).await.unwrap(), "in");
}

#[tokio::test]
async fn a_retired_link_brings_its_outcomes_and_tells_whose_messages_wait() {
    let ((net, _a), (gate, _b)) = pair();
    let (alice, bob) = (SessionId(1), SessionId(2));
    forward(&net, 0, Some(alice), false).unwrap();
    forward(&net, 2, Some(bob), false).unwrap();
    net.retire();
    assert!(net.holds(alice) && net.holds(bob));
    assert!(matches!(forward(&net, 0, Some(alice), false), Err(NotSent::Later)));
    until(|| gate.peer_has_switched()).await;
    until(|| !net.holds(alice)).await;
    assert_eq!((net.take_released(), net.take_released()), (vec![alice], vec![]));
    assert!(net.holds(bob), "method 2 never answers");
}

#[tokio::test]
async fn a_body_larger_than_every_buffer_travels_and_one_above_the_limit_is_refused() {
    let ((net, _a), _gate) = pair();
    let large = vec![7; 3 << 20];
    assert_eq!(net.call("echo", &large, within(10_000)).await.unwrap(), large);
    let fault = net.call("echo", &vec![0; 4 << 20], within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::BadRequest, Executed::No));
}

#[tokio::test]
async fn an_answer_above_the_limit_is_a_fault_of_that_call_and_the_link_goes_on() {
    let ((net, _a), _gate) = pair();
    let fault = net.call("floods", b"", within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::Handler, Executed::Unknown));
    assert_eq!(net.call("echo", b"x", within(1000)).await.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_call_ends_at_its_deadline() {
    let ((net, _a), _gate) = pair();
    let start = Instant::now();
    let (late, early) =
        tokio::join!(net.call("never", b"", within(900)), net.call("never", b"", within(100)));
    assert_eq!(start.elapsed().as_millis(), 900);
    for fault in [late.unwrap_err(), early.unwrap_err()] {
        assert_eq!((fault.code, fault.executed), (Code::Timeout, Executed::Unknown));
    }
}

#[tokio::test]
async fn the_end_of_a_link_fails_its_calls_at_once() {
    let ((net, _a), (_, gate_driver)) = pair();
    let waiting = tokio::spawn(net.call("never", b"", within(60_000)));
    assert_eq!(net.call("echo", b"", within(1000)).await.unwrap(), "", "the first call has been sent");
    gate_driver.abort();
    let fault = waiting.await.unwrap().unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::LinkLost, Executed::Unknown));
    let fault = net.call("echo", b"", within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::LinkLost, Executed::No));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_link_is_noticed_after_three_heartbeats() {
    let (a, mut silent) = tokio::io::duplex(1024);
    let (net, driver) = end("net", "gate", a);
    let start = Instant::now();
    let fault = net.call("never", b"", within(60_000)).await.unwrap_err();
    assert_eq!(fault.code, Code::LinkLost);
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(matches!(driver.await.unwrap(), Closed::Silent));
    let mut pings = Vec::new();
    silent.read_to_end(&mut pings).await.unwrap();
    assert!(!pings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waited_while_the_process_stood_still_is_not_handled() {
    let (a, mut peer_end) = tokio::io::duplex(1024);
    let link = Link::new(NodeName::try_from("game").unwrap(), peer("gate"), LIMITS, Arc::default());
    let mut driver = std::pin::pin!(Driver::new(link, a, Echo));
    let poll_once = |cx: &mut Context<'_>, driver: Pin<&mut Driver<_, _>>| driver.poll(cx);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(poll_once(&mut cx, driver.as_mut()).is_pending());
    let mut call = Vec::new();
    Head { time_left_ms: 5000, call: 1, ..Head::new(Kind::Call) }.write(b"old", &mut call);
    peer_end.write_all(&call).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(matches!(poll_once(&mut cx, driver.as_mut()), Poll::Ready(Closed::StoodStill)));
    assert!(tokio::time::timeout(Duration::from_millis(1), peer_end.read_u8()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_with_a_living_peer_stays_open() {
    let ((net, _a), _gate) = pair();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(net.call("echo", b"x", within(1000)).await.unwrap(), "x");
}

#[tokio::test]
async fn what_a_link_depends_on_ends_it_and_its_calls_with_it() {
    let (a, _b) = tokio::io::duplex(1024);
    let link = Link::new(NodeName::try_from("net").unwrap(), peer("gate"), LIMITS, Arc::default());
    let (gone, until) = tokio::sync::oneshot::channel::<()>();
    let over = async move {
        let _ = until.await;
        "gate is gone".to_owned()
    };
    let driver = tokio::spawn(Driver::new(link.clone(), a, Echo).until(over));
    let mut call = std::pin::pin!(link.call("never", b"", within(60_000)));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(gone);
    assert_eq!(call.await.unwrap_err().code, Code::LinkLost);
    assert!(matches!(driver.await.unwrap(), Closed::Here(why) if why == "gate is gone"));
}

#[tokio::test]
async fn close_writes_what_is_queued_and_says_why() {
    let ((net, net_driver), (_gate, gate_driver)) = pair();
    let answers: Vec<_> = (0..10).map(|_| net.call("echo", b"x", within(1000))).collect();
    tokio::task::yield_now().await;
    net.close("stopping");
    assert!(matches!(net_driver.await.unwrap(), Closed::Here(why) if why == "stopping"));
    assert!(matches!(gate_driver.await.unwrap(), Closed::Bye(why) if why == "stopping"));
    drop(answers);
}

#[tokio::test]
async fn a_malformed_frame_ends_the_link() {
    let (a, mut hostile) = tokio::io::duplex(1024);
    let (_net, driver) = end("net", "gate", a);
    hostile.write_all(&[255; 8]).await.unwrap();
    assert!(matches!(driver.await.unwrap(), Closed::Frame(LinkFault::TooLong { .. })));
}

#[tokio::test]
async fn who_asks_on_and_reads_nothing_is_left_before_it_fills_the_memory() {
    let (io, mut other) = tokio::io::duplex(64 * 1024);
    let (link, driver) = end("net", "gate", io);
    let mut calls = Vec::new();
    for call in 0..4096 {
        Head { method: 1, call, time_left_ms: 1000, ..Head::new(Kind::Call) }.write(&[], &mut calls);
    }
    // Faults, which no bound of an outbox holds back.
    while other.write_all(&calls).await.is_ok() {
        assert!(link.queued_bytes() < 3 * LIMITS.outbox_bytes_max, "{}", link.queued_bytes());
    }
    assert!(matches!(driver.await.unwrap(), Closed::Unread));
}

#[tokio::test]
async fn a_full_outbox_is_a_typed_error_and_counted() {
    let limits = LinkLimits { outbox_bytes_max: 1000, ..LIMITS };
    let counters = Arc::new(LinkCounters::default());
    // Nothing drives this link, so nothing is written.
    let link = Link::new(NodeName::try_from("net").unwrap(), peer("gate"), limits, counters.clone());
    let first = link.call("echo", &[0; 600], within(1000));
    let fault = link.call("echo", &[0; 600], within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::Overloaded, Executed::No));
    let refused = link.notify("echo", &[0; 600], None).unwrap_err();
    assert!(matches!(&refused, NotSent::Fault(fault) if fault.code == Code::Overloaded), "{refused:?}");
    assert_eq!(counters.outbox_full.load(Ordering::Relaxed), 2);
    drop(first);
}

#[tokio::test]
async fn a_full_table_of_calls_is_a_typed_error_and_counted() {
    let (a, _keep) = tokio::io::duplex(1 << 20);
    let limits = LinkLimits { calls_max: 2, ..LIMITS };
    let counters = Arc::new(LinkCounters::default());
    let link = Link::new(NodeName::try_from("net").unwrap(), peer("gate"), limits, counters.clone());
    let _driver = tokio::spawn(Driver::new(link.clone(), a, Echo));
    let waiting: Vec<_> = (0..2).map(|_| link.call("never", b"", within(60_000))).collect();
    let fault = link.call("never", b"", within(1000)).await.unwrap_err();
    assert_eq!((fault.code, fault.executed), (Code::Overloaded, Executed::No));
    assert_eq!(counters.calls_full.load(Ordering::Relaxed), 1);
    drop(waiting);
}
