//! The phase of a node's life, and the tasks that its end waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

/// The phase of a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The node does not serve everything yet.
    Starting,
    /// The node serves everything.
    Ready,
    /// The node's successor serves; what this process had begun ends here.
    HandedOver,
    /// The node takes nothing new; what runs may end.
    Stopping,
}

/// The phase of one node, and the bell that its status has changed.
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
    status_changed: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), status_changed: Notify::new() }
    }
}

impl Lifecycle {
    /// The phase now.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Rings when what the master is told of this node has changed.
    pub(crate) fn status_changed(&self) -> &Notify {
        &self.status_changed
    }
}

/// The tasks of one node that have not ended: a stop waits for them.
#[derive(Default)]
pub(crate) struct Tasks {
    calls: TaskTracker,
    tickers: AtomicUsize,
}

impl Tasks {
    /// The tasks of calls and hooks.
    #[inline]
    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.calls
    }

    /// The number of tasks that somebody waits for: not the ticks of [`Latest`](crate::Latest), which may never end.
    pub(crate) fn running_calls(&self) -> usize {
        self.calls.len().saturating_sub(self.tickers.load(Ordering::Relaxed))
    }

    /// Counts a tick that begins, or has ended.
    pub(super) fn count_tick(&self, begins: bool) {
        if begins {
            self.tickers.fetch_add(1, Ordering::Relaxed);
        } else {
            self.tickers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
