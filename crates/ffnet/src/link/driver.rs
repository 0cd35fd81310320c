//! The driver of a link between two nodes: the one future that owns its socket, reads frames for the node, and writes
//! what is queued.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use ffproto::link::{self, Head, Kind};
use ffproto::{Code, Executed, Fault};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::bell::{self, Bell};
use super::calls::CallEnd;
use super::service::{Closed, MISSED_HEARTBEATS, Service};
use super::{Change, Link, flag};

/// Large enough that a busy link is read a few hundred frames at a time; one per link, so it may be.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// A written buffer larger than this is given back once it is empty: a thousand clients with 1 KiB each fill one of
/// more than a MiB in every turn, and to make it anew each time costs a page fault for every four messages.
const KEEP_BYTES: usize = 4 * 1024 * 1024;
/// The same on a link on which nothing comes.
const KEEP_AT_REST_BYTES: usize = 64 * 1024;

/// Reads, handles and writes until the link ends; then fails every call that still waits. When it is
/// dropped before, the link ends as well.
pub struct Driver<S, V> {
    link: Link,
    io: S,
    service: V,
    read: Vec<u8>,
    have: usize,
    writing: Vec<u8>,
    written: usize,
    written_ever: u64,
    heartbeat: Interval,
    last_seen: Instant,
    /// The last time at which this process surely ran: a read or a tick.
    ran: Instant,
    deadline: Pin<Box<Sleep>>,
    /// The time at which that timer fires; no later than any call's deadline.
    armed: Option<Instant>,
    bell: Arc<Bell>,
    /// The socket's waker.
    readable: Waker,
    /// The waker of both timers.
    due: Waker,
    /// The end from outside, see [`Driver::until`].
    over: Option<EndEvent>,
    /// The reason, once Bye is said, and until when the peer is waited for.
    leaving: Option<(String, Instant)>,
}

/// An event that ends a link, with its reason and its waker.
struct EndEvent {
    future: Pin<Box<dyn Future<Output = String> + Send>>,
    waker: Waker,
}

impl<S, V> Driver<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
{
    /// The driver of `link` over `io`, right after the handshake. Needs a tokio runtime with time.
    pub fn new(link: Link, io: S, service: V) -> Self {
        let mut heartbeat = tokio::time::interval(link.0.limits.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bell = Arc::<Bell>::default();
        Self {
            link,
            io,
            service,
            read: vec![0; READ_BUFFER_BYTES],
            have: 0,
            writing: Vec::new(),
            written: 0,
            written_ever: 0,
            heartbeat,
            last_seen: Instant::now(),
            ran: Instant::now(),
            deadline: Box::pin(tokio::time::sleep_until(Instant::now())),
            armed: None,
            readable: bell.waker::<{ bell::READABLE }>(),
            due: bell.waker::<{ bell::DUE }>(),
            over: None,
            bell,
            leaving: None,
        }
    }

    /// Ends the link also with `over`, which says why: its calls fail at once then, before a heartbeat would notice
    /// anything. Cheaper than a `select!` around the driver, which looks at both in every turn.
    #[must_use]
    pub fn until(mut self, over: impl Future<Output = String> + Send + 'static) -> Self {
        self.over = Some(EndEvent { future: Box::pin(over), waker: self.bell.waker::<{ bell::OVER }>() });
        self
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let rung = self.bell.answer(cx.waker());
        let has_rung = |reason| rung & reason != 0;
        if has_rung(bell::READABLE)
            && let Poll::Ready(closed) = self.poll_read()
        {
            // What arrived before the end has been handled; what it caused may still be written.
            let _ = self.poll_flush(cx);
            return Poll::Ready(match self.leaving.take() {
                Some((why, _)) => Closed::Here(why),
                None => closed,
            });
        }
        if has_rung(bell::OVER)
            && let Some(EndEvent { future, waker }) = &mut self.over
            && let Poll::Ready(why) = future.as_mut().poll(&mut Context::from_waker(waker))
        {
            return Poll::Ready(Closed::Here(why));
        }
        if has_rung(bell::DUE)
            && let Err(closed) = self.poll_heartbeat()
        {
            return Poll::Ready(closed);
        }
        self.poll_deadlines(has_rung(bell::DUE));
        match self.poll_flush(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Closed::Io(error)),
        }
    }

    /// Reads until the socket has no more, handling every complete frame.
    fn poll_read(&mut self) -> Poll<Closed> {
        loop {
            let mut cx = Context::from_waker(&self.readable);
            let mut room = ReadBuf::new(&mut self.read[self.have..]);
            match ready!(Pin::new(&mut self.io).poll_read(&mut cx, &mut room)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Poll::Ready(Closed::ByPeer),
                Err(e) => return Poll::Ready(Closed::Io(e)),
            }
            let n = room.filled().len();
            if n == 0 {
                return Poll::Ready(Closed::ByPeer);
            }
            if self.leaving.is_some() {
                // The bytes are taken from the socket and dropped, see `leave`.
                self.have = 0;
                continue;
            }
            self.have += n;
            self.last_seen = Instant::now();
            if self.stood_still(self.last_seen) {
                // The bytes do not say how long they have waited: their calls would start with all the
                // time that their callers had, long after those have gone on elsewhere.
                return Poll::Ready(Closed::StoodStill);
            }
            self.ran = self.last_seen;
            if let Err(closed) = self.handle_frames() {
                return Poll::Ready(closed);
            }
        }
    }

    fn stood_still(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ran) > self.link.0.limits.heartbeat * MISSED_HEARTBEATS
    }

    fn handle_frames(&mut self) -> Result<(), Closed> {
        let max = self.link.0.limits.frame_bytes_max;
        // What the frames lead to on this very link is written at the end of this turn: it needs no other.
        self.link.0.out.lock().asleep = false;
        self.service.begin();
        let handled = self.handle_complete(max);
        self.service.settle();
        let at = handled?;
        if at > 0 && self.link.has(flag::RETIRED) {
            self.service.changed(&self.link, Change::Quieter);
        }
        self.read.copy_within(at..self.have, 0);
        self.have -= at;
        self.fit_buffer(max);
        Ok(())
    }

    /// Handles the complete frames. Returns how many bytes they are.
    fn handle_complete(&self, max: u32) -> Result<usize, Closed> {
        let mut at = 0;
        while let Some(frame) = link::read(&self.read[at..self.have], max).map_err(Closed::Frame)? {
            at += frame.bytes;
            handle(&self.link, &self.service, &frame.head, frame.body, self.last_seen)?;
        }
        Ok(at)
    }

    /// Grows the buffer for a frame that is larger than it (its length has been checked), and shrinks it
    /// when that frame is gone.
    fn fit_buffer(&mut self, max: u32) {
        if self.have == self.read.len() {
            let whole = self.read.first_chunk().map_or(0, |b| u32::from_le_bytes(*b).min(max) as usize + 4);
            self.read.resize(whole.max(READ_BUFFER_BYTES), 0);
        } else if self.have == 0 && self.read.len() > READ_BUFFER_BYTES {
            self.read = vec![0; READ_BUFFER_BYTES];
        }
    }

    fn poll_heartbeat(&mut self) -> Result<(), Closed> {
        while self.heartbeat.poll_tick(&mut Context::from_waker(&self.due)).is_ready() {
            let now = Instant::now();
            if self.stood_still(now) {
                return Err(Closed::StoodStill);
            }
            self.ran = now;
            if let Some((why, _)) = self.leaving.take_if(|(_, until)| now >= *until) {
                return Err(Closed::Here(why));
            }
            let silent = now.saturating_duration_since(self.last_seen);
            let beat = self.link.0.limits.heartbeat;
            if silent > beat * MISSED_HEARTBEATS {
                return Err(Closed::Silent);
            }
            if silent >= beat / 2 {
                let mut out = self.link.0.out.lock();
                [&mut out.bytes, &mut self.writing]
                    .into_iter()
                    .for_each(|bytes| fit(bytes, KEEP_AT_REST_BYTES));
                Link::push(&mut out, &Head::new(Kind::Ping), &[]);
            }
        }
        Ok(())
    }

    /// Ends the calls whose time is over. The timer is set for the earliest deadline; while none is earlier, it stands.
    fn poll_deadlines(&mut self, due: bool) {
        loop {
            let earliest = self.link.0.calls.lock().earliest_deadline();
            let Some(earliest) = earliest else { return };
            let stands = self.armed.is_some_and(|at| at <= earliest);
            if stands && !due {
                return;
            }
            if !stands {
                self.deadline.as_mut().reset(earliest);
                self.armed = Some(earliest);
            }
            if self.deadline.as_mut().poll(&mut Context::from_waker(&self.due)).is_pending() {
                return;
            }
            self.armed = None;
            let peer = &self.link.0.peer.name;
            let late = || {
                let message = format!("`{peer}` did not answer within the deadline");
                self.link.fault(Code::Timeout, Executed::Unknown, message)
            };
            let told = self.link.0.calls.lock().expire(Instant::now(), late);
            told.into_iter().for_each(|told| told.tell(Err(&late())));
            if self.link.has(flag::RETIRED) {
                self.service.changed(&self.link, Change::Quieter);
            }
        }
    }

    /// Leaves, when Bye is written. What the peer has sent meanwhile is read until it has closed, too, at most a
    /// heartbeat: a close with unread bytes would be a reset, which may take the Bye with it.
    fn leave(&mut self, cx: &mut Context<'_>, why: String) {
        if self.leaving.is_none() {
            self.have = 0;
            self.leaving = Some((why, Instant::now() + self.link.0.limits.heartbeat));
            // When it fails the peer is gone, which the next read says.
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        }
    }

    /// Writes everything that is queued; registers for more. When this side wants to close, Bye is the last.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            while self.written < self.writing.len() {
                match Pin::new(&mut self.io).poll_write(cx, &self.writing[self.written..]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => {
                        self.written += n;
                        self.written_ever += n as u64;
                    }
                    Poll::Ready(Err(e)) => return Err(e),
                    // The waker stays away: new frames join the queue and go when the socket has room.
                    Poll::Pending => return Ok(()),
                }
            }
            self.written = 0;
            self.writing.clear();
            fit(&mut self.writing, KEEP_BYTES);
            let mut out = self.link.0.out.lock();
            if out.bytes.is_empty() {
                let Some(why) = out.closing.clone() else {
                    out.asleep = true;
                    match &mut out.waker {
                        Some(known) => known.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    drop(out);
                    return match Pin::new(&mut self.io).poll_flush(cx) {
                        Poll::Ready(Err(e)) => Err(e),
                        _ => Ok(()),
                    };
                };
                if out.closed {
                    drop(out);
                    self.leave(cx, why);
                    return Ok(());
                }
                out.closed = true;
                Link::push(&mut out, &Head::new(Kind::Bye), why.as_bytes());
            }
            std::mem::swap(&mut out.bytes, &mut self.writing);
        }
    }
}

/// Gives an empty buffer back that is larger than `keep`.
fn fit(bytes: &mut Vec<u8>, keep: usize) {
    if bytes.is_empty() && bytes.capacity() > keep {
        *bytes = Vec::new();
    }
}

/// Ends a link: it takes nothing more, and every call that waits fails now.
fn end(link: &Link, written: u64) {
    let mut out = link.0.out.lock();
    out.closed = true;
    link.change(flag::ENDED | flag::OVER, 0);
    drop(out);
    let peer = &link.0.peer.name;
    let lost = |sent: bool| {
        let executed = if sent { Executed::Unknown } else { Executed::No };
        link.fault(Code::LinkLost, executed, format!("the link to `{peer}` ended before the answer"))
    };
    let told = link.0.calls.lock().end_all(written, lost);
    told.into_iter().for_each(|(told, fault)| told.tell(Err(&fault)));
}

fn handle<V: Service>(
    link: &Link,
    service: &V,
    head: &Head,
    body: &[u8],
    now: Instant,
) -> Result<(), Closed> {
    match head.kind {
        Kind::Call => service.call(link, head, body, now),
        Kind::Notify => service.notify(link, head, body, now),
        Kind::Reply => end_call(link, head, Ok(Some(body))),
        Kind::Done => end_call(link, head, Ok(None)),
        Kind::Fault => end_call(link, head, Err(&read_fault(link, head, body))),
        Kind::Ping => Link::push(&mut link.0.out.lock(), &Head::new(Kind::Pong), &[]),
        Kind::Pong => {}
        Kind::Pause => {
            link.say(Kind::Paused, flag::PAUSED, 0);
            service.changed(link, Change::Paused);
        }
        Kind::Resume => {
            // The service decides whether the link is used again: a successor may have taken its place.
            link.note(flag::RESUMED, flag::PEER_SWITCHED);
            service.changed(link, Change::Resumed);
        }
        Kind::Paused => {
            link.note(flag::PEER_PAUSED, 0);
            service.changed(link, Change::PeerPaused);
        }
        Kind::Switched => {
            link.note(flag::PEER_SWITCHED, 0);
            service.changed(link, Change::Switched);
        }
        Kind::Bye => return Err(Closed::Bye(String::from_utf8_lossy(body).into_owned())),
    }
    Ok(())
}

fn end_call(link: &Link, head: &Head, outcome: Result<Option<&[u8]>, &Fault>) {
    let owned = || match outcome {
        Ok(body) => Ok(Bytes::copy_from_slice(body.unwrap_or_default())),
        Err(fault) => Err(fault.clone()),
    };
    let ended = link.0.calls.lock().end(head.call, owned);
    match ended {
        CallEnd::Done => {}
        CallEnd::Tell(told) => told.tell(outcome),
        CallEnd::Late => drop(link.0.counters.late_replies.fetch_add(1, Ordering::Relaxed)),
    }
}

fn read_fault(link: &Link, head: &Head, body: &[u8]) -> Fault {
    let code = Code::from_number(head.method);
    Fault::read_body(code, body).unwrap_or_else(|bad| link.fault(code, Executed::Unknown, bad.to_string()))
}

impl<S, V> Future for Driver<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
{
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let closed = ready!(self.poll_turn(cx));
        end(&self.link, self.written_ever);
        Poll::Ready(closed)
    }
}

impl<S, V> Drop for Driver<S, V> {
    fn drop(&mut self) {
        // A driver that is dropped in flight (its task was aborted) must not leave callers waiting.
        end(&self.link, self.written_ever);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ffproto::link::LinkFault;
    use ffproto::{Incarnation, NodeName, SessionId};
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
        link.forward(
            Forward { method, body: b"x", options, message_of, hops: 0, nested, sink, token: 0 },
            Instant::now(),
        )
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
}
