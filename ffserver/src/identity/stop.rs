//! The stop of a node: the word to begin it, and how long it may take.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The handle by which a node is told to stop in good order. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop {
    token: CancellationToken,
    drain: Arc<Mutex<Duration>>,
}

impl Stop {
    /// A stop that has not begun; it may take `drain`.
    pub fn new(drain: Duration) -> Self {
        Self { token: CancellationToken::new(), drain: Arc::new(Mutex::new(drain)) }
    }

    /// Begins to stop; `drain` replaces how long that may take. Beginning again changes nothing.
    pub fn begin(&self, drain: Option<Duration>) {
        if self.is_stopping() {
            return;
        }
        if let Some(drain) = drain {
            *self.drain.lock() = drain;
        }
        self.token.cancel();
    }

    /// Whether the stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the stop begins. Cancel-safe.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub(crate) fn drain(&self) -> Duration {
        *self.drain.lock()
    }
}
