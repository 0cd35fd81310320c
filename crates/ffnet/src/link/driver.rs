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
/// A peer that asks on while this many times `outbox_bytes_max` wait for it is left: faults and signs of life, which the
/// bound does not hold back, are all that can have come on top of it.
const UNREAD_MAX: usize = 2;
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
                // An encrypted stream that is cut says so, and a killed process cuts it.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
                {
                    return Poll::Ready(Closed::ByPeer);
                }
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
        let mut out = self.link.0.out.lock();
        if out.bytes.len() > self.link.0.limits.outbox_bytes_max.saturating_mul(UNREAD_MAX) {
            return Err(Closed::Unread);
        }
        // What the frames lead to on this very link is written at the end of this turn: it needs no other.
        out.asleep = false;
        drop(out);
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
                self.link.0.round_trip.asked(now);
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
        }
        // Again in each turn: what is encrypted says its end over the socket, which may have no room. When it fails the peer is
        // gone, which the next read says.
        let _ = Pin::new(&mut self.io).poll_shutdown(cx);
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

/// Handles a frame. Inlined into every driver: a call for each frame costs a tenth of passing it on.
#[inline(always)]
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
        Kind::Pong => link.0.round_trip.answered(now),
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
mod tests;
