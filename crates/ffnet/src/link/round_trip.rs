//! The round trip of a link: from a heartbeat's Ping to its Pong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The last round trip of a link. Written by its driver, read by anybody.
pub(super) struct RoundTrip {
    since: Instant,
    /// When the Ping went out whose Pong is awaited, in nanoseconds; 0 when none is.
    asked: AtomicU64,
    /// How long the last one took, in nanoseconds; 0 when none has been answered.
    took: AtomicU64,
}

impl RoundTrip {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), asked: AtomicU64::new(0), took: AtomicU64::new(0) }
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// A Ping is queued. A second one before the answer does not make the first one younger.
    pub(super) fn asked(&self, now: Instant) {
        let _ = self.asked.compare_exchange(0, self.at(now), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A Pong has come.
    pub(super) fn answered(&self, now: Instant) {
        let asked = self.asked.swap(0, Ordering::Relaxed);
        if asked > 0 {
            self.took.store(self.at(now).saturating_sub(asked).max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn last(&self) -> Option<Duration> {
        let took = self.took.load(Ordering::Relaxed);
        (took > 0).then(|| Duration::from_nanos(took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_from_the_first_ping_that_waits_to_its_pong() {
        let trip = RoundTrip::new();
        let at = |ms| trip.since + Duration::from_millis(ms);
        trip.answered(at(1));
        assert_eq!(trip.last(), None);
        trip.asked(at(10));
        trip.asked(at(20));
        trip.answered(at(25));
        trip.answered(at(30));
        assert_eq!(trip.last(), Some(Duration::from_millis(15)));
    }
}
