//! The phase of a node's life, and the tasks that its end waits for.

use std::ops::Deref;
use std::sync::atomic::{AtomicU8, Ordering};

use fftelemetry::tagged;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// The phase of a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
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

impl Phase {
    /// Every phase, in the order of its number.
    const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::HandedOver, Self::Stopping];
}

/// The phase of one node, and the bell that its status has changed.
pub(crate) struct Lifecycle {
    /// A [`Phase`]: looked at with every call of a neighbour.
    phase: AtomicU8,
    phase_changed: Notify,
    status_changed: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Self { phase, phase_changed: Notify::new(), status_changed: Notify::new() }
    }
}

impl Lifecycle {
    /// The phase now.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.phase_changed.notify_waiters();
    }

    /// Rings when the phase is another one.
    pub(crate) fn phase_changed(&self) -> &Notify {
        &self.phase_changed
    }

    /// Rings when what the master is told of this node has changed.
    pub(crate) fn status_changed(&self) -> &Notify {
        &self.status_changed
    }
}

/// The tasks of one node that have not ended: a stop waits for them.
#[derive(Default)]
pub(crate) struct Tasks {
    calls: TaggedTasks,
    ticks: TaggedTasks,
}

/// Tasks that log as their node does, where a process has several.
#[derive(Default)]
pub(crate) struct TaggedTasks(TaskTracker);

impl TaggedTasks {
    /// As [`TaskTracker::spawn`].
    #[inline]
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.spawn(tagged(task))
    }
}

impl Deref for TaggedTasks {
    type Target = TaskTracker;

    fn deref(&self) -> &TaskTracker {
        &self.0
    }
}

impl Tasks {
    /// The tasks of calls and hooks.
    #[inline]
    pub(crate) fn calls(&self) -> &TaggedTasks {
        &self.calls
    }

    /// The ticks of [`ConflatedBroadcast`](crate::ConflatedBroadcast): a stop waits for them as well, a hand-over does not, for they may never end.
    pub(crate) fn ticks(&self) -> &TaggedTasks {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_read_as_it_was_set() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        for phase in Phase::ALL {
            lifecycle.set_phase(phase);
            assert_eq!(lifecycle.phase(), phase);
        }
    }
}
