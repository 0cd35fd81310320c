//! The phase of a front: whether it serves, gives its connections away, or ends.

use tokio::time::Instant;

/// The phase of a front: what it does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The front accepts and serves.
    Serves,
    /// The front accepts nothing; connections are given away as soon as they are between two requests.
    Retires { until: Instant },
    /// The front accepts nothing; connections end with their running request.
    Ends { until: Instant },
}

impl Phase {
    /// When connections that are left are cut.
    pub(crate) fn until(self) -> Option<Instant> {
        match self {
            Self::Serves => None,
            Self::Retires { until } | Self::Ends { until } => Some(until),
        }
    }
}
