//! The errors of the cache, by what a caller can do about them.

use std::error::Error as StdError;
use std::time::Duration;

/// The driver's own words.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// An error of the cache. A miss is not a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A server of `memcached.urls` does not answer at the start. Start it, or correct the config.
    #[error("`memcached.urls`: {server} cannot be reached (tried for {waited:?})")]
    Unreachable {
        /// The server as the config has it.
        server: String,
        /// How long the operation was tried.
        waited: Duration,
        /// The error that was met.
        #[source]
        source: Cause,
    },
    /// The node uses memcached, and this program was built without its driver (docs/features.md).
    #[error(
        "`memcached.urls`: this program was built without the feature `memcached` (ffserver, Cargo.toml)"
    )]
    NotBuilt,
    /// `memcached.urls` is empty.
    #[error("`memcached.urls`: there is no server")]
    NoServer,
    /// The server is gone. The operation surely did nothing. It heals by itself when the server is back.
    #[error("memcached at {server} is lost")]
    Lost {
        /// The server that keeps the key.
        server: String,
        /// The error that was met.
        #[source]
        source: Cause,
    },
    /// No answer: the operation may or may not have done its work.
    #[error("memcached at {server} did not answer within {waited:?}")]
    NoAnswer {
        /// The server that keeps the key.
        server: String,
        /// How long an operation may take (`memcached.timeout_ms`).
        waited: Duration,
    },
    /// The value is larger than the cache takes. The key holds nothing now: an older value would be wrong.
    #[error("a value of {bytes} bytes is too large for the cache")]
    TooLarge {
        /// The size of the value.
        bytes: usize,
    },
    /// The key holds something that is not a counter.
    #[error("the value is not a number")]
    NotANumber,
    /// [`update`](super::Cache::update) lost against other writers every time. Nothing was changed.
    #[error("other writers were faster {tries} times")]
    Contended {
        /// How often the update was tried.
        tries: u32,
    },
    /// The server answers with an error of its own (out of memory, not a memcached of 1.6 or newer …).
    #[error("memcached at {server} refuses")]
    Refused {
        /// The server.
        server: String,
        /// The server's answer.
        #[source]
        source: Cause,
    },
}

impl CacheError {
    /// The operation surely was not done, so doing it again cannot do it twice.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::NoAnswer { .. } | Self::TooLarge { .. })
    }
}
