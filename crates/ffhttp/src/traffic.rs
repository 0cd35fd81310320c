//! The traffic of one HTTP connection as a value: whether it is between two requests, and since when it is silent.
//! Facts come in with their time; the answers are whether another process can go on with the connection, and whether
//! its client has been silent for too long.

use tokio::time::Instant;

use crate::config::Timeouts;

/// The facts of one connection.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// A request's head has been read on this connection.
    used: bool,
    /// An answer is being made or written.
    in_flight: bool,
    /// The body of a request has not been read to its end.
    body_open: bool,
    /// Something has been handed to the connection that its socket has not taken.
    unsent: bool,
    /// A body ended before its end: where the next request begins is not known.
    broken: bool,
    /// Nothing but the rest of a body that has begun may be read.
    held: bool,
    head_since: Option<Instant>,
    quiet_since: Instant,
    /// The client has been waited for since then: for bytes, and for room.
    starved_since: Option<Instant>,
    blocked_since: Option<Instant>,
}

impl Traffic {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            used: false,
            in_flight: false,
            body_open: false,
            unsent: false,
            broken: false,
            held: false,
            head_since: None,
            quiet_since: now,
            starved_since: None,
            blocked_since: None,
        }
    }

    /// Holds back what the client sends from now on, or not any more. A body that has begun is read on.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held && !self.broken;
    }

    pub(crate) fn may_read(&self) -> bool {
        !self.held || self.body_open
    }

    /// Whether a request has ever begun.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) fn read(&mut self, now: Instant) {
        self.starved_since = None;
        if !self.in_flight {
            self.head_since.get_or_insert(now);
        }
    }

    pub(crate) fn read_waits(&mut self, now: Instant) {
        self.starved_since.get_or_insert(now);
    }

    pub(crate) fn wrote(&mut self) {
        self.unsent = true;
        self.blocked_since = None;
    }

    pub(crate) fn write_waits(&mut self, now: Instant) {
        self.unsent = true;
        self.blocked_since.get_or_insert(now);
    }

    /// The socket has taken everything.
    pub(crate) fn flushed(&mut self) {
        self.unsent = false;
        self.blocked_since = None;
    }

    /// A request's head is whole.
    pub(crate) fn request(&mut self, with_body: bool) {
        self.used = true;
        self.in_flight = true;
        self.body_open = with_body;
        self.head_since = None;
        self.starved_since = None;
    }

    /// Nobody reads the request's body any more; `whole` says whether all of it was read.
    pub(crate) fn body_ended(&mut self, whole: bool) {
        self.broken |= self.body_open && !whole;
        self.body_open = false;
    }

    /// The answer's head, or a piece of its body, is there to be written.
    pub(crate) fn answers(&mut self) {
        self.unsent = true;
    }

    /// Nothing more of the answer comes; `whole` says whether that was its end.
    pub(crate) fn answered(&mut self, now: Instant, whole: bool) {
        self.unsent = true;
        self.broken |= !whole;
        self.in_flight = false;
        self.quiet_since = now;
    }

    /// The connection ends in this process, whatever its client does.
    pub(crate) fn pin(&mut self) {
        self.broken = true;
        self.held = false;
    }

    /// Whether another process can go on with the connection: no request has begun, nothing waits to be written.
    pub(crate) fn can_move(&self) -> bool {
        !(self.in_flight || self.body_open || self.unsent || self.broken)
    }

    /// Whether the client has been waited for too long.
    pub(crate) fn is_silent(&self, now: Instant, timeouts: Timeouts) -> bool {
        let over = |since: Option<Instant>, max| since.is_some_and(|since| now.duration_since(since) >= max);
        if self.unsent && over(self.blocked_since, timeouts.idle) {
            return true;
        }
        if self.in_flight || self.body_open {
            return self.body_open && over(self.starved_since, timeouts.idle);
        }
        match self.head_since {
            Some(_) => over(self.head_since, timeouts.head),
            None => over(Some(self.quiet_since), timeouts.idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(10), idle: Duration::from_secs(60) };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_travels_only_between_two_requests_and_with_nothing_unsent() {
        let now = Instant::now();
        let mut traffic = Traffic::new(now);
        assert!(traffic.can_move(), "it has said nothing yet");
        traffic.read(now);
        assert!(traffic.can_move(), "a head in part travels as unread bytes");
        traffic.request(true);
        assert!(!traffic.can_move());
        traffic.answers();
        traffic.answered(now, true);
        assert!(!traffic.can_move(), "the request's body is still open");
        traffic.body_ended(true);
        assert!(!traffic.can_move(), "the answer is not in the socket");
        traffic.flushed();
        assert!(traffic.can_move());
    }

    #[test]
    fn a_body_that_was_not_read_to_its_end_keeps_its_connection_here() {
        let mut traffic = Traffic::new(Instant::now());
        traffic.request(true);
        traffic.body_ended(false);
        traffic.answered(Instant::now(), true);
        traffic.flushed();
        assert!(!traffic.can_move(), "the rest of the body would be taken for a request");
    }

    #[test]
    fn while_held_only_the_rest_of_a_body_is_read() {
        let mut traffic = Traffic::new(Instant::now());
        traffic.hold(true);
        assert!(!traffic.may_read());
        traffic.request(true);
        assert!(traffic.may_read());
        traffic.body_ended(true);
        assert!(!traffic.may_read());
    }

    #[test]
    fn a_slow_head_a_silent_client_and_one_that_does_not_read_are_noticed() {
        let start = Instant::now();
        let mut traffic = Traffic::new(start);
        assert!(!traffic.is_silent(at(start, 59), TIMEOUTS));
        assert!(traffic.is_silent(at(start, 60), TIMEOUTS), "never said anything");
        traffic.read(at(start, 5));
        traffic.read(at(start, 14));
        assert!(!traffic.is_silent(at(start, 14), TIMEOUTS));
        assert!(traffic.is_silent(at(start, 15), TIMEOUTS), "ten seconds after the head's first byte");
        traffic.request(true);
        traffic.read_waits(at(start, 20));
        assert!(!traffic.is_silent(at(start, 79), TIMEOUTS));
        assert!(traffic.is_silent(at(start, 80), TIMEOUTS), "the body does not come");
        traffic.read(at(start, 81));
        assert!(!traffic.is_silent(at(start, 200), TIMEOUTS), "the handler takes its time");
        traffic.body_ended(true);
        traffic.write_waits(at(start, 200));
        assert!(traffic.is_silent(at(start, 260), TIMEOUTS), "the answer is not taken");
        traffic.wrote();
        traffic.answered(at(start, 300), true);
        traffic.flushed();
        assert!(!traffic.is_silent(at(start, 359), TIMEOUTS));
        assert!(traffic.is_silent(at(start, 360), TIMEOUTS), "no next request");
    }
}
