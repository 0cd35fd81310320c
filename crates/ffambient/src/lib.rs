//! The ambient of a program, as values: a [`Clock`] for the time of day, a [`Chance`] for random bytes. Both are made once, where a
//! program begins, and handed down; nothing below fetches them. So a cluster in one process can be given a clock of its own and
//! a seed, and then does the same again.
//!
//! Durations and deadlines are no matter of this crate: they are measured on tokio's clock, which a test can pause.
//!
//! ```
//! use std::time::Duration;
//! use ffambient::{Ambient, Chance, Clock};
//!
//! // A program:
//! let ambient = Ambient::system();
//! assert!(ambient.clock.now_ms() > 1_600_000_000_000);
//!
//! // A test, which sees the same each time:
//! let ambient = Ambient { clock: Clock::starting_at(Duration::from_secs(1)), chance: Chance::seeded(7) };
//! assert_eq!(ambient.chance.u64()?, Chance::seeded(7).u64()?);
//! # Ok::<(), ffambient::ChanceError>(())
//! ```

mod chance;
mod clock;
mod system;

pub use chance::{Chance, ChanceError};
pub use clock::Clock;

/// The clock and the chance of a program, or of one part of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ambient {
    /// The time of day.
    pub clock: Clock,
    /// The source of random bytes.
    pub chance: Chance,
}

impl Ambient {
    /// The ambient of the machine: the system's clock, and the system's random bytes. For the `main` of a program.
    pub fn system() -> Self {
        Self { clock: Clock::system(), chance: Chance::system() }
    }

    /// The same clock, with a chance of its own for the part of that name: see [`Chance::stream`].
    #[must_use]
    pub fn stream(&self, part: &str) -> Self {
        Self { clock: self.clock.clone(), chance: self.chance.stream(part) }
    }
}
