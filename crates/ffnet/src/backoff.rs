//! The back-off: how long to wait before trying again. Exponential, with jitter, reset by a healthy life. Pure: the
//! life's length and the randomness come in as arguments.

use std::time::Duration;

/// The waits of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    healthy_after: Duration,
    quick: u32,
}

impl Backoff {
    /// Waits from `min`, doubled each time up to `max`; a life of `healthy_after` starts again from `min`.
    pub fn new(min: Duration, max: Duration, healthy_after: Duration) -> Self {
        Self { min, max: max.max(min), healthy_after, quick: 0 }
    }

    /// The wait after a life of length `lived` (zero for an attempt that never came to life).
    ///
    /// `rand01` is a random number from 0 to 1; the wait is between half of the exponential value and all
    /// of it, so that many that failed together do not come back together.
    pub fn next(&mut self, rand01: f64, lived: Duration) -> Duration {
        if lived >= self.healthy_after {
            self.quick = 0;
        }
        // 2^20 times any sensible `min` is beyond any sensible `max`.
        let full = self.min.saturating_mul(1 << self.quick.min(20)).min(self.max);
        self.quick = self.quick.saturating_add(1);
        let rand01 = if rand01.is_finite() { rand01.clamp(0.0, 1.0) } else { 1.0 };
        full.mul_f64(0.5 + rand01 / 2.0)
    }

    /// The number of quick ends in a row, the last one included.
    pub fn quick_ends(&self) -> u32 {
        self.quick
    }

    /// Starts again from the shortest wait, for instance because a person asked for a new start.
    pub fn reset(&mut self) {
        self.quick = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn backoff() -> Backoff {
        Backoff::new(MS(100), MS(1_000), MS(60_000))
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut b = backoff();
        let waits: Vec<_> = (0..6).map(|_| b.next(1.0, MS(5))).collect();
        assert_eq!(waits, [MS(100), MS(200), MS(400), MS(800), MS(1_000), MS(1_000)]);
        assert_eq!(b.quick_ends(), 6);
    }

    #[test]
    fn jitter_takes_away_up_to_a_half() {
        assert_eq!(backoff().next(0.0, MS(0)), MS(50));
        assert_eq!(backoff().next(0.5, MS(0)), MS(75));
        assert_eq!(backoff().next(f64::NAN, MS(0)), MS(100));
    }

    #[test]
    fn a_healthy_life_starts_again_from_the_shortest_wait() {
        let mut b = backoff();
        for _ in 0..10 {
            b.next(1.0, MS(59_999));
        }
        assert_eq!(b.next(1.0, MS(60_000)), MS(100));
        assert_eq!(b.quick_ends(), 1);
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut b = Backoff::new(Duration::from_secs(3_600), Duration::MAX, Duration::MAX);
        for _ in 0..1_000 {
            b.next(1.0, Duration::ZERO);
        }
        assert_eq!(b.quick_ends(), 1_000);
    }
}
