//! The bell of a driver: why it is woken. A turn then does what was rung for, and does not look at everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// The socket has bytes, or has ended.
pub(super) const READABLE: u8 = 1;
/// One of the timers has fired.
pub(super) const DUE: u8 = 1 << 1;
/// What the link depends on may be over.
pub(super) const OVER: u8 = 1 << 2;

const EVERYTHING: u8 = READABLE | DUE | OVER;

/// The reasons why the driver is to run, and the driver's task. A task has one waker for all that it waits for, and
/// asking a socket or a timer that has nothing costs as much as one that has something; so they get wakers that carry
/// their reason.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    /// A waker that says `REASON`.
    pub(super) fn waker<const REASON: u8>(self: &Arc<Self>) -> Waker {
        Arc::new(Rings::<REASON>(self.clone())).into()
    }

    /// The reasons rung since the last answer. All of them on the first turn of a task: nothing has its waker yet.
    pub(super) fn answer(&self, task: &Waker) -> u8 {
        let mut known = self.task.lock();
        let same = known.as_ref().is_some_and(|known| known.will_wake(task));
        if !same {
            *known = Some(task.clone());
        }
        drop(known);
        // Taken after the waker is there: a ring from now on wakes this task.
        let rung = self.rung.swap(0, Ordering::AcqRel);
        if same { rung } else { EVERYTHING }
    }

    fn ring(&self, reason: u8) {
        // What has been rung before and is not answered has woken the task already.
        if self.rung.fetch_or(reason, Ordering::AcqRel) & reason == 0
            && let Some(task) = &*self.task.lock()
        {
            task.wake_by_ref();
        }
    }
}

struct Rings<const REASON: u8>(Arc<Bell>);

impl<const REASON: u8> Wake for Rings<REASON> {
    fn wake(self: Arc<Self>) {
        self.0.ring(REASON);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.ring(REASON);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_is_told_who_rang_and_the_first_turn_of_a_task_does_everything() {
        let (bell, task) = (Arc::new(Bell::default()), Arc::new(Task::default()));
        let waker: Waker = task.clone().into();
        assert_eq!(bell.answer(&waker), EVERYTHING);
        assert_eq!(bell.answer(&waker), 0);
        bell.waker::<READABLE>().wake();
        assert_eq!((bell.answer(&waker), bell.answer(&waker)), (READABLE, 0));
        bell.waker::<DUE>().wake_by_ref();
        let other = Arc::new(Task::default());
        assert_eq!(bell.answer(&other.clone().into()), EVERYTHING, "another task has taken the driver over");
        bell.waker::<READABLE>().wake();
        let woken = |task: &Task| task.0.load(Ordering::Relaxed);
        assert_eq!((woken(&task), woken(&other)), (2, 1));
    }

    #[test]
    fn who_rings_twice_before_the_turn_wakes_once() {
        let (bell, task) = (Arc::new(Bell::default()), Arc::new(Task::default()));
        let waker: Waker = task.clone().into();
        bell.answer(&waker);
        let readable = bell.waker::<READABLE>();
        readable.wake_by_ref();
        readable.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        bell.waker::<DUE>().wake();
        assert_eq!(bell.answer(&waker), READABLE | DUE);
    }
}
