//! The deadlines of handlers that wait in tasks of their own: kept in one table with one timer, for a timer of the runtime
//! for each costs more than most handlers wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fftelemetry::tagged;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::app::handler::Outcome;
use crate::error::HandlerError;
use crate::exec::execution::Execution;

/// The deadlines of one node's handlers. Pure but for its lock and the task that looks.
#[derive(Default)]
pub(crate) struct Deadlines {
    table: Mutex<Table>,
    /// Wakes the task that looks when a deadline has come that is sooner than its next look.
    sooner: Notify,
}

#[derive(Default)]
struct Table {
    waiting: Slab<Waiting>,
    /// When the task looks next; none while there is no such task.
    next_look: Option<Instant>,
}

struct Waiting {
    deadline: Instant,
    /// The task to wake at the deadline; none when the deadline is over.
    waker: Option<Waker>,
}

impl Table {
    /// Ends what is due, whose tasks are to be woken, and notes when to look next.
    fn expire(&mut self, now: Instant) -> Vec<Waker> {
        let mut due = Vec::new();
        self.next_look = None;
        for (_, waiting) in &mut self.waiting {
            if waiting.deadline <= now {
                due.extend(waiting.waker.take());
            } else {
                let next = self.next_look.get_or_insert(waiting.deadline);
                *next = waiting.deadline.min(*next);
            }
        }
        due
    }
}

impl Deadlines {
    /// Runs a handler until it ends, or its deadline is over: then it is dropped where it waits.
    pub(crate) fn run(self: &Arc<Self>, deadline: Instant, handler: Execution) -> Bounded {
        Bounded { handler, deadline, place: None, deadlines: self.clone() }
    }

    /// Notes that a handler waits. False when its deadline is over.
    fn wait(self: &Arc<Self>, place: &mut Option<usize>, deadline: Instant, waker: &Waker) -> bool {
        let mut table = self.table.lock();
        if let Some(waiting) = place.and_then(|at| table.waiting.get_mut(at)) {
            let Some(known) = &mut waiting.waker else { return false };
            known.clone_from(waker);
            return true;
        }
        *place = Some(table.waiting.insert(Waiting { deadline, waker: Some(waker.clone()) }));
        match table.next_look {
            Some(at) if at <= deadline => {}
            Some(_) => {
                table.next_look = Some(deadline);
                self.sooner.notify_one();
            }
            None => {
                table.next_look = Some(deadline);
                drop(tokio::spawn(tagged(watch(self.clone(), deadline))));
            }
        }
        true
    }
}

/// Looks at the deadlines, each time when the first of them is over, until no handler waits.
async fn watch(deadlines: Arc<Deadlines>, mut at: Instant) {
    loop {
        let over = timeout_at(at, deadlines.sooner.notified()).await.is_err();
        let (due, next_look) = {
            let mut table = deadlines.table.lock();
            let due = if over { table.expire(Instant::now()) } else { Vec::new() };
            // Under one lock with `expire`: else a handler that comes in between would spawn a second such task.
            (due, table.next_look)
        };
        due.into_iter().for_each(Waker::wake);
        let Some(next_look) = next_look else { return };
        at = next_look;
    }
}

/// A handler and its deadline.
pub(crate) struct Bounded {
    handler: Execution,
    deadline: Instant,
    /// Its place in the table, once it has waited.
    place: Option<usize>,
    deadlines: Arc<Deadlines>,
}

impl Future for Bounded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self { handler, deadline, place, deadlines } = &mut *self;
        if let Poll::Ready(outcome) = Pin::new(&mut *handler).poll(cx) {
            return Poll::Ready(outcome);
        }
        match deadlines.wait(place, *deadline, cx.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(Err(HandlerError::late(handler.request()))),
        }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.deadlines.table.lock().waiting.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use ffproto::Code;
    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn shown(deadlines: &Deadlines) -> (usize, bool) {
        let table = deadlines.table.lock();
        (table.waiting.len(), table.next_look.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_waits_for_ever_is_dropped_at_its_deadline_and_not_before() {
        let (deadlines, begun) = (Arc::new(Deadlines::default()), Instant::now());
        let outcome = deadlines.run(begun + SOON, Execution::hook(pending())).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Timeout);
        assert!(begun.elapsed() >= SOON && begun.elapsed() < SOON * 2, "{:?}", begun.elapsed());
        assert_eq!(shown(&deadlines).0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_ends_in_time_leaves_nothing_and_nobody_looks_any_more() {
        let deadlines = Arc::new(Deadlines::default());
        let (end, ended) = oneshot::channel::<()>();
        let handler =
            Execution::hook(async move { ended.await.map(|()| None).map_err(HandlerError::internal) });
        let running = tokio::spawn(deadlines.run(Instant::now() + SOON, handler));
        tokio::time::sleep(SOON / 2).await;
        assert_eq!(shown(&deadlines), (1, true));
        end.send(()).unwrap();
        assert!(running.await.unwrap().is_ok());
        tokio::time::sleep(SOON).await;
        assert_eq!(shown(&deadlines), (0, false));
        // The next one is looked at again.
        let outcome = deadlines.run(Instant::now() + SOON, Execution::hook(pending())).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_many_handlers_has_its_own_deadline() {
        let (deadlines, begun) = (Arc::new(Deadlines::default()), Instant::now());
        let late = deadlines.run(begun + SOON * 2, Execution::hook(pending()));
        let early = deadlines.run(begun + SOON, Execution::hook(pending()));
        let late = async { (late.await.is_err(), begun.elapsed()) };
        let early = async { (early.await.is_err(), begun.elapsed()) };
        let ((late, after_late), (early, after_early)) = tokio::join!(late, early);
        assert!(late && early && after_early < SOON * 2 && after_late >= SOON * 2);
    }
}
