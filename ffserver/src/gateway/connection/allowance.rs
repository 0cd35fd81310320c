//! The allowance of a client: how many messages it may send, and when the next one may start.

use std::time::Duration;

use tokio::time::Instant;

/// The allowance of one client: how many messages it may still send now, by `limits.requests_per_s`, with one second's
/// worth at once.
pub(super) struct Allowance {
    per_s: u32,
    /// When the allowance would be untouched again; each message moves it on.
    full_at: Instant,
}

impl Allowance {
    pub(super) fn new(per_s: u32, now: Instant) -> Self {
        Self { per_s: per_s.max(1), full_at: now }
    }

    /// Takes one message off; `Err` says when there is one again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let second = Duration::from_secs(1);
        let after = self.full_at.max(now) + second / self.per_s;
        if after > now + second {
            return Err(after - second);
        }
        self.full_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_gives_a_seconds_worth_at_once_and_then_one_after_the_other() {
        let start = Instant::now();
        let mut allowance = Allowance::new(10, start);
        for _ in 0..10 {
            assert_eq!(allowance.take(start), Ok(()));
        }
        let again = allowance.take(start).unwrap_err();
        assert_eq!(again, start + Duration::from_millis(100));
        assert_eq!(allowance.take(again), Ok(()));
        assert!(allowance.take(again).is_err());
        assert_eq!(allowance.take(start + Duration::from_secs(60)), Ok(()));
    }
}
