//! The connections of a port whose peers have proved nothing yet: a bounded number, of which the oldest goes first.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most connections of a port that have proved nothing. Whoever is of the cluster proves it within a few milliseconds,
/// so a cluster of hundreds of nodes that all come back at once fits; more of them are strangers.
pub const PENDING_MAX: usize = 256;

/// The unproven connections of one port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pending(Arc<Mutex<Waiting>>);

#[derive(Debug)]
struct Waiting {
    max: usize,
    last: u64,
    /// Each with what tells it to go, the oldest first.
    all: VecDeque<(u64, Arc<Notify>)>,
}

/// The place of a connection that has proved nothing. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    all: Pending,
    number: u64,
    goes: Arc<Notify>,
}

impl Default for Pending {
    fn default() -> Self {
        Self::new(PENDING_MAX)
    }
}

impl Pending {
    /// At most so many.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Waiting { max, last: 0, all: VecDeque::new() })))
    }

    /// Takes a new connection in; when there are too many, the oldest is told to go.
    pub fn enter(&self) -> Place {
        let goes = Arc::new(Notify::new());
        let mut waiting = self.0.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.all.push_back((number, goes.clone()));
        if waiting.all.len() > waiting.max
            && let Some((_, oldest)) = waiting.all.pop_front()
        {
            oldest.notify_one();
        }
        Place { all: self.clone(), number, goes }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().all.len()
    }
}

impl Place {
    /// Returns when the connection has to go. Cancel-safe.
    pub(crate) async fn goes(&self) {
        self.goes.notified().await;
    }

    /// The connection has proved who it is: it goes for nobody any more.
    pub(crate) fn proved(&self) {
        self.all.0.lock().all.retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.proved();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_that_has_proved_nothing_goes_first() {
        let pending = Pending::new(2);
        let (first, second, third) = (pending.enter(), pending.enter(), pending.enter());
        assert!(first.goes().now_or_never().is_some() && second.goes().now_or_never().is_none());
        second.proved();
        let fourth = pending.enter();
        assert!(second.goes().now_or_never().is_none() && third.goes().now_or_never().is_none());
        drop(third);
        let fifth = pending.enter();
        assert!(fourth.goes().now_or_never().is_none(), "a place was free");
        assert_eq!(pending.count(), 2);
        drop((fourth, fifth));
        assert_eq!(pending.count(), 0);
    }
}
