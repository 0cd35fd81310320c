//! A link: the one authenticated connection between a child and a parent. Calls run both ways on it.
//!
//! A [`Link`] is a handle that may be cloned and called on from anywhere. Its [`Driver`] is the one future that owns
//! the socket: it reads whatever the socket has and handles every complete frame in it, then writes everything that is
//! queued at once. There is no task, no channel and no allocation per frame.
//!
//! Every call ends exactly once: with a reply, a fault, its deadline, or the end of the link.

mod bell;
mod calls;
mod driver;
mod methods;
mod not_sent;
mod round_trip;
mod service;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ffproto::link::{Client, Head, Kind};
use ffproto::{Code, Executed, Fault, NodeName, SessionId};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::handshake::Peer;
pub use calls::Sink;
use calls::{CallTable, Ticket};
pub use driver::Driver;
use methods::PeerMethods;
pub use not_sent::{NotForwarded, NotSent};
use round_trip::RoundTrip;
pub use service::{Closed, Service};

/// The bytes that a frame needs beside its body, generously.
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

/// The counters of links, shared by all links of a node.
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
    methods: PeerMethods,
    limits: LinkLimits,
    out: Mutex<Outbox>,
    calls: Mutex<CallTable>,
    counters: Arc<LinkCounters>,
    /// [`flag`]s; changed under the lock of `out`, looked at without it.
    flags: AtomicU8,
    round_trip: RoundTrip,
}

/// The flags of a link.
mod flag {
    /// The link takes nothing more: `out.closed` or `out.closing`.
    pub(super) const ENDED: u8 = 1;
    /// The peer has said Pause.
    pub(super) const PAUSED: u8 = 1 << 1;
    /// A newer link has taken this one's place: this one only brings outcomes.
    pub(super) const RETIRED: u8 = 1 << 2;
    /// The peer has said Resume since.
    pub(super) const RESUMED: u8 = 1 << 3;
    /// The peer has answered this side's Pause.
    pub(super) const PEER_PAUSED: u8 = 1 << 4;
    /// The peer has said Switched.
    pub(super) const PEER_SWITCHED: u8 = 1 << 5;
    /// The link has taken the place of one that lives on.
    pub(super) const YOUNG: u8 = 1 << 6;
    /// The link's driver has ended: the last word is said.
    pub(super) const OVER: u8 = 1 << 7;
    /// With one of these, nothing new goes out.
    pub(super) const SHUT: u8 = ENDED | PAUSED | RETIRED;
}

/// A change of a link as a whole, which the peer has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The peer takes nothing new.
    Paused,
    /// The peer takes new calls again.
    Resumed,
    /// The peer has answered this side's Pause: nothing new comes.
    PeerPaused,
    /// The peer sends what is new elsewhere, or leaves.
    Switched,
    /// This side has switched to a newer link, and outcomes have come on this one: [`Link::take_released`] tells whose
    /// last ones.
    Quieter,
}

/// A call whose outcome goes to a sink, see [`Link::forward`].
pub struct Forward<'a> {
    /// The method's number at the peer.
    pub method: u16,
    /// The body.
    pub body: &'a [u8],
    /// How long the caller waits, and for which client.
    pub options: CallOptions,
    /// The session whose message it is; `None` for the call of a handler. A session's messages keep their order when a
    /// link takes the place of an older one.
    pub message_of: Option<SessionId>,
    /// How many links a client's message has crossed before.
    pub hops: u8,
    /// Whether the peer waits for this call to answer one of its own: the call goes out even when the peer has said
    /// Pause.
    pub nested: bool,
    /// The sink for the outcome.
    pub sink: Arc<dyn Sink>,
    /// The token that the sink is given with the outcome.
    pub token: u64,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// The number of bytes that this outbox has ever taken: a call's frame is unsent while the driver's count of
    /// written bytes is below where the frame starts.
    taken: u64,
    /// The driver's waker, since its first turn.
    waker: Option<Waker>,
    /// Whether the driver has written everything, and is woken for more.
    asleep: bool,
    /// Set once: nothing more is taken.
    closed: bool,
    /// Set by [`Link::close`]: the driver writes what is queued, says Bye and ends.
    closing: Option<String>,
}

/// The options of a call: for which client it is, and how long its caller waits.
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
        let methods = PeerMethods::of(&peer.methods);
        Self(Arc::new(Inner {
            here,
            peer,
            methods,
            limits,
            out: Mutex::default(),
            calls: Mutex::default(),
            counters,
            flags: AtomicU8::new(0),
            round_trip: RoundTrip::new(),
        }))
    }

    /// The peer at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Whether the link has ended, or is about to: calls on it fail at once.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.has(flag::ENDED)
    }

    /// Whether the link is over: its last word is said, and it needs its socket no more.
    pub fn is_over(&self) -> bool {
        self.has(flag::OVER)
    }

    /// Whether new calls go out: the link has not ended, the peer has not said Pause, and no newer link has taken this
    /// one's place.
    #[inline]
    pub fn is_open(&self) -> bool {
        !self.has(flag::SHUT)
    }

    /// Whether the peer has said Pause.
    pub fn is_paused(&self) -> bool {
        self.has(flag::PAUSED)
    }

    /// Whether the peer has said Resume after this side had retired the link.
    pub fn is_resumed(&self) -> bool {
        self.has(flag::RESUMED)
    }

    /// Whether nothing new comes: the peer has answered [`Link::pause`], or the link has ended.
    pub fn peer_is_paused(&self) -> bool {
        self.has(flag::PEER_PAUSED | flag::ENDED)
    }

    /// Whether the peer sends new messages elsewhere, or the link has ended.
    pub fn peer_has_switched(&self) -> bool {
        self.has(flag::PEER_SWITCHED | flag::ENDED)
    }

    /// Whether the link is young: the one whose place it has taken lives on, and may be used.
    #[inline]
    pub fn is_young(&self) -> bool {
        self.has(flag::YOUNG)
    }

    /// Sets whether the link is young, see [`Link::is_young`].
    pub fn set_young(&self, young: bool) {
        let (set, clear) = if young { (flag::YOUNG, 0) } else { (0, flag::YOUNG) };
        self.note(set, clear);
    }

    #[inline]
    fn has(&self, any: u8) -> bool {
        self.0.flags.load(Ordering::Acquire) & any != 0
    }

    /// Asks the peer to hold back new messages; [`Link::peer_is_paused`] tells when nothing follows.
    pub fn pause(&self) {
        self.say(Kind::Pause, 0, 0);
    }

    /// Tells the peer to go on after all, also one that has switched.
    pub fn resume(&self) {
        self.say(Kind::Resume, 0, flag::PEER_PAUSED | flag::PEER_SWITCHED);
    }

    /// Retires the link: a newer link has taken its place for new messages. Outcomes still come and go. From now on
    /// [`Link::holds`] answers.
    pub fn retire(&self) {
        self.say(Kind::Switched, flag::RETIRED, flag::RESUMED);
        self.0.calls.lock().count_messages();
    }

    /// Tells the peer that nothing new comes on this link, unless the peer calls first: this process leaves.
    pub fn last_call(&self) {
        self.say(Kind::Switched, 0, 0);
    }

    /// Takes a retired link into use again: the peer was not replaced after all.
    pub fn reinstate(&self) {
        let out = self.0.out.lock();
        self.change(0, flag::PAUSED | flag::RETIRED | flag::RESUMED);
        drop(out);
    }

    /// Whether a message of that session waits for its outcome on this retired link.
    pub fn holds(&self, session: SessionId) -> bool {
        self.0.calls.lock().holds(session)
    }

    /// The sessions of which this retired link holds no message any more; each is returned once.
    pub fn take_released(&self) -> Vec<SessionId> {
        self.0.calls.lock().take_released()
    }

    /// Whether a message of that session waits on a link in use. Looks at every waiting call: not for every message.
    pub fn has_message_of(&self, session: SessionId) -> bool {
        self.0.calls.lock().has_message_of(session)
    }

    /// Queues a frame about the link as a whole, and changes the flags with it.
    fn say(&self, kind: Kind, set: u8, clear: u8) {
        let mut out = self.0.out.lock();
        self.change(set, clear);
        if !out.closed {
            Self::push(&mut out, &Head::new(kind), &[]);
        }
    }

    fn note(&self, set: u8, clear: u8) {
        let out = self.0.out.lock();
        self.change(set, clear);
        drop(out);
    }

    /// Changes flags, only under the lock of `out`, so that a frame goes out before or after a change as a whole.
    fn change(&self, set: u8, clear: u8) {
        self.0.flags.fetch_and(!clear, Ordering::AcqRel);
        self.0.flags.fetch_or(set, Ordering::AcqRel);
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
        self.call_at(method, body, options, Instant::now())
    }

    /// Calls as [`Link::call`] does; `now` is the caller's clock, which has been read already.
    pub fn call_at(&self, method: &str, body: &[u8], options: CallOptions, now: Instant) -> Call {
        match self.start(method, body, options, now) {
            Ok(ticket) => Call { link: self.clone(), state: CallState::Waiting(ticket) },
            Err(fault) => Call { link: self.clone(), state: CallState::Refused(fault) },
        }
    }

    fn start(&self, method: &str, body: &[u8], options: CallOptions, now: Instant) -> Result<Ticket, Fault> {
        let method = self.method(method)?;
        let head = Head { method, client: options.client, ..Head::new(Kind::Call) };
        let room =
            self.room_for_call(body.len(), options.deadline, false, now).map_err(
                |not_sent| match not_sent {
                    NotSent::Fault(fault) => fault,
                    NotSent::Later => {
                        let text = format!("`{}` is being replaced", self.0.peer.name);
                        self.fault(Code::NoNode, Executed::No, text)
                    }
                },
            )?;
        Ok(room.queue(head, body, |calls, starts_at| calls.insert(options.deadline, starts_at)))
    }

    /// Calls a method by its number ([`Link::method_number`]): the outcome goes to a sink, without a future. `now` is
    /// the caller's clock, read once per turn.
    ///
    /// # Errors
    /// [`NotForwarded`]; the sink will not be told.
    pub fn forward(&self, call: Forward<'_>, now: Instant) -> Result<(), NotForwarded> {
        let Forward { method, body, options, message_of, hops, nested, sink, token } = call;
        let room = match self.room_for_call(body.len(), options.deadline, nested, now) {
            Ok(room) => room,
            Err(NotSent::Later) => return Err(NotForwarded::Later(sink)),
            Err(NotSent::Fault(fault)) => return Err(NotForwarded::Fault(fault)),
        };
        let head = Head { method, client: options.client, hops, ..Head::new(Kind::Call) };
        room.queue(head, body, |calls, starts_at| {
            calls.forward(options.deadline, starts_at, message_of, sink, token)
        });
        Ok(())
    }

    /// Room for one call with a body of that length.
    #[inline]
    fn room_for_call(
        &self,
        body_bytes: usize,
        deadline: Instant,
        nested: bool,
        now: Instant,
    ) -> Result<CallRoom<'_>, NotSent> {
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            let late = "no time was left to start the call";
            return Err(self.fault(Code::Timeout, Executed::No, late).into());
        }
        let out = self.0.out.lock();
        self.check_room(&out, body_bytes, nested)?;
        let calls = self.0.calls.lock();
        if calls.len() >= self.0.limits.calls_max {
            self.0.counters.calls_full.fetch_add(1, Ordering::Relaxed);
            let full = "limits.calls_max calls wait already";
            return Err(self.fault(Code::Overloaded, Executed::No, full).into());
        }
        Ok(CallRoom { out, calls, left })
    }

    /// The number of calls on this link that wait for their outcome: its load.
    pub fn waiting_calls(&self) -> usize {
        self.0.calls.lock().len()
    }

    /// How long the peer took to answer the last heartbeat, which a link is asked for only when it is silent.
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.round_trip.last()
    }

    /// The bytes that wait to be written, without those that are being written.
    pub fn queued_bytes(&self) -> usize {
        self.0.out.lock().bytes.len()
    }

    /// Whether no call on this link waits for its outcome; else `cx` is woken when that may be so. One at a time may wait.
    pub fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.calls.lock().poll_idle(cx.waker())
    }

    /// This link as the sink of calls that are forwarded for the peer: the token is the peer's call id.
    pub fn sink(&self) -> Arc<dyn Sink> {
        self.0.clone()
    }

    /// Sends the peer a notify, which has no outcome.
    ///
    /// # Errors
    /// [`NotSent`], with a [`Fault`] of code `no_method`, `overloaded` or `link_lost`; nothing was sent then.
    pub fn notify(&self, method: &str, body: &[u8], client: Option<Client>) -> Result<(), NotSent> {
        self.notify_when(method, body, client, false)
    }

    /// Sends a notify that belongs to an answer over this link: it goes out even when the peer has said Pause, or a
    /// newer link has taken this one's place.
    ///
    /// # Errors
    /// As [`Link::notify`].
    pub fn notify_beside(&self, method: &str, body: &[u8], client: Option<Client>) -> Result<(), NotSent> {
        self.notify_when(method, body, client, true)
    }

    /// Sends the peer a notify about the link itself: it goes out whatever the peer has said, and however much waits, as
    /// Pause does.
    ///
    /// # Errors
    /// A [`Fault`] with code `no_method`, `bad_request` when the body is above `limits.link_frame_bytes_max`, or `link_lost`;
    /// nothing was sent then.
    pub fn notify_of_link(&self, method: &str, body: &[u8]) -> Result<(), Fault> {
        let method = self.method(method)?;
        let mut out = self.0.out.lock();
        self.check_open(&out)?;
        self.check_bytes(body.len())?;
        Self::push(&mut out, &Head { method, ..Head::new(Kind::Notify) }, body);
        Ok(())
    }

    fn notify_when(
        &self,
        method: &str,
        body: &[u8],
        client: Option<Client>,
        beside: bool,
    ) -> Result<(), NotSent> {
        let method = self.method(method)?;
        let mut out = self.0.out.lock();
        self.check_room(&out, body.len(), beside)?;
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
        self.change(flag::ENDED, 0);
        wake(&mut out);
    }

    fn method(&self, name: &str) -> Result<u16, Fault> {
        self.method_number(name).ok_or_else(|| Fault {
            at: self.0.peer.name.clone(),
            ..self.fault(
                Code::NoMethod,
                Executed::No,
                format!("`{}` has no method `{name}` for `{}`", self.0.peer.name, self.0.here),
            )
        })
    }

    /// Whether a body of so many bytes may be queued, by a few comparisons where it may.
    #[inline]
    fn check_room(&self, out: &Outbox, more: usize, nested: bool) -> Result<(), NotSent> {
        let LinkLimits { frame_bytes_max, outbox_bytes_max, .. } = self.0.limits;
        let fits = more.saturating_add(FRAME_ROOM_BYTES) <= frame_bytes_max as usize
            && out.bytes.len().saturating_add(more) <= outbox_bytes_max;
        if fits && self.is_open() {
            return Ok(());
        }
        self.refuse_room(out, more, nested)
    }

    /// Why there is no room, if there is none.
    #[cold]
    fn refuse_room(&self, out: &Outbox, more: usize, nested: bool) -> Result<(), NotSent> {
        self.check_open(out)?;
        if !self.is_open() && !nested {
            return Err(NotSent::Later);
        }
        self.check_bytes(more)?;
        // A single large frame may exceed the bound when nothing else waits: it must be able to travel.
        if !out.bytes.is_empty() && out.bytes.len() + more > self.0.limits.outbox_bytes_max {
            self.0.counters.outbox_full.fetch_add(1, Ordering::Relaxed);
            let full = format!("the outbox to `{}` is full", self.0.peer.name);
            return Err(self.fault(Code::Overloaded, Executed::No, full).into());
        }
        Ok(())
    }

    fn check_open(&self, out: &Outbox) -> Result<(), Fault> {
        if out.closed || out.closing.is_some() {
            let gone = format!("the link to `{}` has ended", self.0.peer.name);
            return Err(self.fault(Code::LinkLost, Executed::No, gone));
        }
        Ok(())
    }

    fn check_bytes(&self, more: usize) -> Result<(), Fault> {
        if more.saturating_add(FRAME_ROOM_BYTES) > self.0.limits.frame_bytes_max as usize {
            let long = format!("a body of {more} bytes is above limits.link_frame_bytes_max");
            return Err(self.fault(Code::BadRequest, Executed::No, long));
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
    /// Queues the end of a peer's call. An end that does not fit becomes a fault: it would end the link, or fill
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

/// The room for one call. Both locks are held so that the order of tickets is the order of frames.
struct CallRoom<'a> {
    out: MutexGuard<'a, Outbox>,
    calls: MutexGuard<'a, CallTable>,
    /// How long the caller waits.
    left: Duration,
}

impl CallRoom<'_> {
    /// Queues the call; `head` lacks what is known only here: the call's id and the time that is left.
    #[inline]
    fn queue(self, head: Head, body: &[u8], insert: impl FnOnce(&mut CallTable, u64) -> Ticket) -> Ticket {
        let Self { mut out, mut calls, left } = self;
        let ticket = insert(&mut calls, out.taken);
        drop(calls);
        // Rounded up, so that the callee never sees less time than the caller has.
        let time_left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX - 1) + 1;
        Link::push(&mut out, &Head { call: ticket.id(), time_left_ms, ..head }, body);
        ticket
    }
}

/// A link is the sink of calls that are forwarded for its peer: they end on it, under the peer's own call id.
impl Sink for Inner {
    fn end(self: Arc<Self>, token: u64, outcome: Result<Option<&[u8]>, &Fault>) {
        self.end_call(token as u32, outcome); // The token was made from a call id.
    }
}

/// The driver is woken only when it sleeps, and once: later frames of the same turn join.
fn wake(out: &mut Outbox) {
    if std::mem::take(&mut out.asleep)
        && let Some(waker) = &out.waker
    {
        waker.wake_by_ref();
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
