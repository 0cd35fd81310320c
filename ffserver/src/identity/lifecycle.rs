//! The phase of a node's life, and the tasks that its end waits for.

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
    ticks: TaskTracker,
}

impl Tasks {
    /// The tasks of calls and hooks.
    #[inline]
    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.calls
    }

    /// The ticks of [`Latest`](crate::Latest): a stop waits for them as well, a hand-over does not, for they may never end.
    pub(crate) fn ticks(&self) -> &TaskTracker {
        &self.ticks
    }

    /// The number of tasks of calls and hooks.
    pub(crate) fn running_calls(&self) -> usize {
        self.calls.len()
    }

    /// Waits for the end of every task; none may begin any more.
    pub(crate) async fn end(&self) {
        self.calls.close();
        self.ticks.close();
        tokio::join!(self.calls.wait(), self.ticks.wait());
    }

    /// The number of all tasks.
    pub(crate) fn len(&self) -> usize {
        self.calls.len() + self.ticks.len()
    }
}
