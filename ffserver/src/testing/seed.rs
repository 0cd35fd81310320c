//! The seed of a test: all that its nodes draw by chance comes from it.

use ffambient::{Ambient, Chance, ChanceError, Clock};

/// The environment variable that gives a seed, to do again what a test has done.
pub(super) const SEED_ENV: &str = "FF_SEED";

/// The seed that the environment gives, or a new one.
pub(super) fn from_environment() -> Result<u64, BadSeed> {
    match std::env::var(SEED_ENV) {
        Ok(text) => text.parse().map_err(|_| BadSeed::NoNumber { text }),
        Err(_) => Ok(Chance::system().u64()?),
    }
}

/// Says the seed where a test harness shows it when the test has failed, and else keeps it to itself: on the standard error of the
/// test.
#[allow(
    clippy::print_stderr,
    reason = "the harness takes what a test prints, and shows it when the test fails"
)]
pub(super) fn tell(seed: u64) {
    eprintln!("the chance of this cluster comes from the seed {seed}; the same again: {SEED_ENV}={seed}");
}

/// The ambient of a test's cluster: chance from the seed; the time of day from a clock that was made, or the system's.
pub(super) fn ambient(seed: u64, clock: Option<Clock>) -> Ambient {
    Ambient { clock: clock.unwrap_or_else(Clock::system), chance: Chance::seeded(seed) }
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum BadSeed {
    /// The environment gives no number.
    #[error("{SEED_ENV}={text} is no number from 0 to {}", u64::MAX)]
    NoNumber {
        /// What it gives.
        text: String,
    },
    /// The system gives none.
    #[error(transparent)]
    Chance(#[from] ChanceError),
}
