//! The system's own clock and random bytes: the one file of the workspace's core that fetches them.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970; zero on a machine whose clock stands before it.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time that is so long after 1970, in the standard library's type.
pub(crate) fn time(since_1970: Duration) -> SystemTime {
    UNIX_EPOCH + since_1970
}

/// Fills `bytes` with what nobody can guess.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}
