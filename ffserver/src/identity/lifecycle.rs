//! The phase of a node's life, and the tasks that its end waits for.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use fftelemetry::tagged;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
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
    calls: TaskGroup,
    ticks: TaskGroup,
    killed: Option<KillList>,
}

/// A group of tasks of one node: its end can be waited for, a kill of the node ends it, and it logs as its node does where a process
/// has several.
#[derive(Clone, Default)]
pub(crate) struct TaskGroup {
    tracker: TaskTracker,
    killed: Option<KillList>,
}

impl TaskGroup {
    /// Runs a task of the group.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let task = self.tracker.spawn(tagged(task));
        if let Some(killed) = &self.killed {
            killed.note(task.abort_handle());
        }
        task
    }
}

impl Deref for TaskGroup {
    type Target = TaskTracker;

    fn deref(&self) -> &TaskTracker {
        &self.tracker
    }
}

/// What a kill of a node ends: its tasks, each at its next turn, as the end of a process does it. Only the nodes of a test's cluster
/// have a list. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct KillList(Arc<Mutex<KillState>>);

#[derive(Default)]
struct KillState {
    tasks: Vec<AbortHandle>,
    /// At how many tasks those that have ended are forgotten.
    forget_at: usize,
    is_killed: bool,
}

impl KillList {
    /// Notes a task; one that comes after the kill ends at once.
    pub(crate) fn note(&self, task: AbortHandle) {
        let mut state = self.0.lock();
        if state.is_killed {
            return task.abort();
        }
        state.tasks.push(task);
        if state.tasks.len() > state.forget_at {
            state.tasks.retain(|task| !task.is_finished());
            state.forget_at = 64 + 2 * state.tasks.len();
        }
    }

    /// Ends every task that there is, and those to come.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        state.is_killed = true;
        state.tasks.iter().for_each(AbortHandle::abort);
    }

    /// Whether every task has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().tasks.iter().all(AbortHandle::is_finished)
    }
}

impl Tasks {
    /// The tasks of a node that can be killed.
    pub(crate) fn killed_by(list: KillList) -> Self {
        let killed = Some(list);
        let group = || TaskGroup { tracker: TaskTracker::new(), killed: killed.clone() };
        Self { calls: group(), ticks: group(), killed }
    }

    /// A further group of the node's tasks, for whose end its owner waits.
    pub(crate) fn group(&self) -> TaskGroup {
        TaskGroup { tracker: TaskTracker::new(), killed: self.killed.clone() }
    }

    /// Notes a task of the node that is in no group.
    pub(crate) fn note(&self, task: &JoinHandle<()>) {
        if let Some(killed) = &self.killed {
            killed.note(task.abort_handle());
        }
    }

    /// The tasks of calls and hooks.
    #[inline]
    pub(crate) fn calls(&self) -> &TaskGroup {
        &self.calls
    }

    /// The ticks of [`ConflatedBroadcast`](crate::ConflatedBroadcast): a stop waits for them as well, a hand-over does not, for they may never end.
    pub(crate) fn ticks(&self) -> &TaskGroup {
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
