//! The one authenticated connection between a child and a parent: calls run both ways on it.
//!
//! A [`Link`] is a handle that anybody may clone and call on. Its [`Driver`] is the one future that owns
//! the socket: it reads whatever the socket has and handles every complete frame in it, then writes
//! everything that is queued at once. There is no task, no channel and no allocation per frame.
//!
//! Every call ends exactly once: with a reply, a fault, its deadline, or the end of the link.

mod calls;
mod driver;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ffproto::link::{Client, Head, Kind};
use ffproto::{Code, Executed, Fault, NodeName};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::handshake::Peer;
pub use calls::Sink;
use calls::{CallTable, Ticket};
pub use driver::{Closed, Driver, Service};

/// What a frame needs beside its body, generously.
const FRAME_ROOM_BYTES: usize = 64;

/// The bounds of one link.
#[derive(Debug, Clone, Copy)]
pub struct LinkLimits {
    /// The largest frame.
    pub frame_bytes_max: u32,
    /// Bytes that may wait to be written; above that calls are refused as overloaded.
    pub outbox_bytes_max: usize,
    /// Calls that may wait for an answer.
    pub calls_max: usize,
    /// How often a silent link is asked for a sign of life; three missed answers are its end.
    pub heartbeat: Duration,
}

/// What the links that share it have counted.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// Replies that came after their call had ended.
    pub late_replies: AtomicU64,
    /// Frames refused because `outbox_bytes_max` were queued.
    pub outbox_full: AtomicU64,
    /// Calls refused because `calls_max` waited.
    pub calls_full: AtomicU64,
}

/// A handle to an open link. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    here: NodeName,
    peer: Peer,
    /// Method name → its number at the peer.
    methods: FxHashMap<String, u16>,
    limits: LinkLimits,
    out: Mutex<Outbox>,
    calls: Mutex<CallTable>,
    counters: Arc<LinkCounters>,
    /// The same as `out.closed` or `out.closing`, for a look without the lock.
    ended: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// How many bytes this outbox has ever taken: a call's frame is unsent while the driver's count of
    /// written bytes is below where the frame starts.
    taken: u64,
    /// The driver's, while it sleeps.
    waker: Option<Waker>,
    /// Set once: nothing more is taken.
    closed: bool,
    /// Set by [`Link::close`]: the driver writes what is queued, says Bye and ends.
    closing: Option<String>,
}

/// Who a call is for and how long its caller waits.
#[derive(Debug, Clone, Copy)]
pub struct CallOptions {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The client whose message made the call, if any.
    pub client: Option<Client>,
}

impl Link {
    /// A link from `here` to `peer`; nothing moves until its [`Driver`] runs.
    pub fn new(here: NodeName, peer: Peer, limits: LinkLimits, counters: Arc<LinkCounters>) -> Self {
        let methods = peer.methods.iter().take(usize::from(u16::MAX)).cloned().zip(0..).collect();
        Self(Arc::new(Inner {
            here,
            peer,
            methods,
            limits,
            out: Mutex::default(),
            calls: Mutex::default(),
            counters,
            ended: AtomicBool::new(false),
        }))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Whether the link has ended, or is about to: calls on it fail at once.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Whether both are handles to the same link.
    pub fn same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Calls a method of the peer. The frame is queued at once, in the order of the calls; the future
    /// waits for the outcome. Dropping it forgets the call: its reply will be dropped and counted.
    ///
    /// # Errors
    /// A [`Fault`] with code `no_method`, `overloaded`, `timeout`, `link_lost`, or what the peer answered.
    pub fn call(&self, method: &str, body: &[u8], options: CallOptions) -> Call {
        match self.start(method, body, options) {
            Ok(ticket) => Call { link: self.clone(), state: CallState::Waiting(ticket) },
            Err(fault) => Call { link: self.clone(), state: CallState::Refused(fault) },
        }
    }

    fn start(&self, method: &str, body: &[u8], options: CallOptions) -> Result<Ticket, Fault> {
        let method = self.method(method)?;
        self.queue_call(method, body, options, Instant::now(), |calls, starts_at| {
            calls.insert(options.deadline, starts_at)
        })
    }

    /// Calls a method by its number ([`Link::method_number`]) for somebody else: the outcome goes to
    /// `sink` with `token`, without a future. `now` is the caller's clock, read once per turn.
    ///
    /// # Errors
    /// The [`Fault`] that the caller must be told; the sink will not be.
    pub fn forward(
        &self,
        method: u16,
        body: &[u8],
        options: CallOptions,
        now: Instant,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Result<(), Fault> {
        self.queue_call(method, body, options, now, |calls, starts_at| {
            calls.forward(options.deadline, starts_at, sink, token)
        })
        .map(drop)
    }

    fn queue_call(
        &self,
        method: u16,
        body: &[u8],
        options: CallOptions,
        now: Instant,
        insert: impl FnOnce(&mut CallTable, u64) -> Ticket,
    ) -> Result<Ticket, Fault> {
        let left = options.deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(self.fault(Code::Timeout, Executed::No, "no time was left to start the call"));
        }
        let mut out = self.0.out.lock();
        self.check_room(&out, body.len())?;
        // Both locks are held so that the order of tickets is the order of frames.
        let mut calls = self.0.calls.lock();
        if calls.len() >= self.0.limits.calls_max {
            self.0.counters.calls_full.fetch_add(1, Ordering::Relaxed);
            return Err(self.fault(Code::Overloaded, Executed::No, "limits.calls_max calls wait already"));
        }
        let call = insert(&mut calls, out.taken).id();
        drop(calls);
        // Rounded up, so that the callee never sees less time than the caller has.
        let time_left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX - 1) + 1;
        Self::push(
            &mut out,
            &Head { kind: Kind::Call, method, call, time_left_ms, client: options.client },
            body,
        );
        Ok(Ticket::of(call))
    }

    /// How many calls on this link wait for their outcome: its load.
    pub fn waiting_calls(&self) -> usize {
        self.0.calls.lock().len()
    }

    /// The number of a method at the peer, if it has it.
    pub fn method_number(&self, method: &str) -> Option<u16> {
        self.0.methods.get(method).copied()
    }

    /// This link as the sink of what is forwarded for the peer: the token is the peer's call id.
    pub fn sink(&self) -> Arc<dyn Sink> {
        self.0.clone()
    }

    /// Tells the peer something and expects nothing.
    ///
    /// # Errors
    /// A [`Fault`] with code `no_method`, `overloaded` or `link_lost`; nothing was sent then.
    pub fn notify(&self, method: &str, body: &[u8], client: Option<Client>) -> Result<(), Fault> {
        let method = self.method(method)?;
        let mut out = self.0.out.lock();
        self.check_room(&out, body.len())?;
        Self::push(&mut out, &Head { method, client, ..Head::new(Kind::Notify) }, body);
        Ok(())
    }

    /// Sends the good end of the peer's call. A closed link takes nothing: its caller knows already.
    pub fn reply(&self, call: u32, body: &[u8]) {
        self.0.end_call(call, Ok(Some(body)));
    }

    /// Sends the good end of a client's message whose handler has no value.
    pub fn reply_done(&self, call: u32) {
        self.0.end_call(call, Ok(None));
    }

    /// Sends the bad end of the peer's call.
    pub fn reply_fault(&self, call: u32, fault: &Fault) {
        self.0.end_call(call, Err(fault));
    }

    /// Ends the link in good order: what is queued is written, then `why` is said.
    pub fn close(&self, why: &str) {
        let mut out = self.0.out.lock();
        out.closing.get_or_insert_with(|| why.to_owned());
        self.0.ended.store(true, Ordering::Relaxed);
        wake(&mut out);
    }

    fn method(&self, name: &str) -> Result<u16, Fault> {
        self.0.methods.get(name).copied().ok_or_else(|| Fault {
            at: self.0.peer.name.clone(),
            ..self.fault(
                Code::NoMethod,
                Executed::No,
                format!("`{}` has no method `{name}` for `{}`", self.0.peer.name, self.0.here),
            )
        })
    }

    fn check_room(&self, out: &Outbox, more: usize) -> Result<(), Fault> {
        if out.closed || out.closing.is_some() {
            let gone = format!("the link to `{}` has ended", self.0.peer.name);
            return Err(self.fault(Code::LinkLost, Executed::No, gone));
        }
        if more.saturating_add(FRAME_ROOM_BYTES) > self.0.limits.frame_bytes_max as usize {
            let long = format!("a body of {more} bytes is above limits.link_frame_bytes_max");
            return Err(self.fault(Code::BadRequest, Executed::No, long));
        }
        // A single large frame may exceed the bound when nothing else waits: it must be able to travel.
        if !out.bytes.is_empty() && out.bytes.len() + more > self.0.limits.outbox_bytes_max {
            self.0.counters.outbox_full.fetch_add(1, Ordering::Relaxed);
            let full = format!("the outbox to `{}` is full", self.0.peer.name);
            return Err(self.fault(Code::Overloaded, Executed::No, full));
        }
        Ok(())
    }

    fn fault(&self, code: Code, executed: Executed, message: impl Into<String>) -> Fault {
        Fault { code, at: self.0.here.clone(), executed, message: message.into() }
    }

    fn push(out: &mut Outbox, head: &Head, body: &[u8]) {
        let before = out.bytes.len();
        head.write(body, &mut out.bytes);
        out.taken += (out.bytes.len() - before) as u64;
        wake(out);
    }
}

impl Inner {
    /// Queues the end of a peer's call. What does not fit becomes a fault: it would end the link, or fill
    /// memory, and the other calls with it.
    fn end_call(&self, call: u32, outcome: Result<Option<&[u8]>, &Fault>) {
        let mut out = self.out.lock();
        if out.closed {
            return;
        }
        let refused = match outcome {
            Ok(Some(body)) => self.refuse_reply(&out, body.len()),
            Ok(None) | Err(_) => None,
        };
        let head = |kind| Head { call, ..Head::new(kind) };
        match refused.as_ref().map_or(outcome, Err) {
            Ok(Some(body)) => Link::push(&mut out, &head(Kind::Reply), body),
            Ok(None) => Link::push(&mut out, &head(Kind::Done), &[]),
            Err(fault) => {
                let mut body = Vec::with_capacity(128);
                fault.write_body(&mut body);
                Link::push(&mut out, &Head { method: fault.code.number(), ..head(Kind::Fault) }, &body);
            }
        }
    }

    fn refuse_reply(&self, out: &Outbox, bytes: usize) -> Option<Fault> {
        let fault =
            |code, message| Some(Fault { code, at: self.here.clone(), executed: Executed::Unknown, message });
        if bytes.saturating_add(FRAME_ROOM_BYTES) > self.limits.frame_bytes_max as usize {
            return fault(
                Code::Handler,
                format!("an answer of {bytes} bytes is above limits.link_frame_bytes_max"),
            );
        }
        if !out.bytes.is_empty() && out.bytes.len() + bytes > self.limits.outbox_bytes_max {
            self.counters.outbox_full.fetch_add(1, Ordering::Relaxed);
            return fault(Code::Overloaded, format!("the outbox to `{}` is full", self.peer.name));
        }
        None
    }
}

/// What is forwarded for the peer ends on the link that it came from, under the peer's own call id.
impl Sink for Inner {
    fn end(&self, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        self.end_call(token as u32, outcome); // The token was made from a call id.
    }
}

/// The driver is woken only when it sleeps: its waker is taken, so later frames of the same turn join.
fn wake(out: &mut Outbox) {
    if let Some(waker) = out.waker.take() {
        waker.wake();
    }
}

/// The outcome of a call, once. Cancel-safe: dropping it forgets the call.
#[must_use = "a call does nothing for its caller unless its outcome is awaited"]
pub struct Call {
    link: Link,
    state: CallState,
}

enum CallState {
    Refused(Fault),
    Waiting(Ticket),
    Over,
}

impl Future for Call {
    type Output = Result<Bytes, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.state, CallState::Over) {
            CallState::Refused(fault) => Poll::Ready(Err(fault)),
            CallState::Waiting(ticket) => {
                let polled = self.link.0.calls.lock().poll(ticket, cx.waker());
                if polled.is_pending() {
                    self.state = CallState::Waiting(ticket);
                }
                polled
            }
            CallState::Over => {
                let over = self.link.fault(Code::LinkLost, Executed::Unknown, "polled after its end");
                Poll::Ready(Err(over))
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let CallState::Waiting(ticket) = self.state {
            self.link.0.calls.lock().forget(ticket);
        }
    }
}
