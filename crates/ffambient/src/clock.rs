//! The clock: the time of day, by the system or, for tests, by tokio's clock.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::system;

/// A clock that tells the time of day. Cheap to clone.
///
/// It may be set, also back: what must not go back is measured from one reading of it on tokio's clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Made { start: Duration, since: Instant },
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that says `start` (since 1970) now, and goes on with tokio's clock: where a test pauses that one, this one
    /// stands still, too.
    pub fn starting_at(start: Duration) -> Self {
        Self(Source::Made { start, since: Instant::now() })
    }

    /// The time since 1970.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System => system::now(),
            Source::Made { start, since } => *start + since.elapsed(),
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time in the standard library's type, as files have it.
    pub fn system_time(&self) -> SystemTime {
        system::time(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_made_clock_goes_with_tokios_which_a_test_pauses() {
        let clock = Clock::starting_at(Duration::from_secs(1_000));
        assert_eq!(
            (clock.now_ms(), clock.system_time()),
            (1_000_000, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000))
        );
        std::thread::yield_now();
        assert_eq!(clock.now_ms(), 1_000_000, "paused");
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!((clock.now_ms(), clock.clone().now_ms()), (1_000_005, 1_000_005));
    }

    #[test]
    fn the_systems_clock_is_in_this_century() {
        let clock = Clock::system();
        assert!(clock.now_ms() > 1_700_000_000_000, "{}", clock.now_ms());
        assert!(clock.system_time() <= SystemTime::now());
    }
}
