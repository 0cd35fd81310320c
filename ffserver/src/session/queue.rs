//! Session queues: the order of a session's messages at the node that handles them. One runs at a time, the others wait
//! here.

use std::collections::VecDeque;

use bytes::Bytes;
use ffproto::SessionId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// The bounds on what waits behind a session's running handler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// The sessions that have a handler running here, with what waits behind it. Pure but for its lock.
pub(crate) struct SessionQueues<M> {
    limits: QueueLimits,
    running: Mutex<FxHashMap<SessionId, Queue<M>>>,
}

struct Queue<M> {
    waiting: VecDeque<(M, Bytes)>,
    bytes: usize,
}

/// The admission of a message, and what it came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<M> {
    /// Nothing of its session runs: the message runs now, then [`SessionQueues::next`] is asked.
    Run(M, Bytes),
    /// The message waits for its turn.
    Waits,
    /// Too much waits already.
    Overloaded(M),
}

impl<M> SessionQueues<M> {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { limits, running: Mutex::default() }
    }

    /// Takes a message of `session`. The session counts as running from now on.
    pub(crate) fn admit(&self, session: SessionId, message: M, body: Bytes) -> Admission<M> {
        let mut running = self.running.lock();
        let Some(queue) = running.get_mut(&session) else {
            running.insert(session, Queue { waiting: VecDeque::new(), bytes: 0 });
            return Admission::Run(message, body);
        };
        let full = queue.waiting.len() >= self.limits.messages_max
            || queue.bytes.saturating_add(body.len()) > self.limits.bytes_max;
        if full {
            return Admission::Overloaded(message);
        }
        queue.bytes += body.len();
        queue.waiting.push_back((message, body));
        Admission::Waits
    }

    /// Whether a message of the session runs here.
    pub(crate) fn is_running(&self, session: SessionId) -> bool {
        self.running.lock().contains_key(&session)
    }

    /// How many messages wait behind running ones, of all sessions together.
    pub(crate) fn waiting(&self) -> usize {
        self.running.lock().values().map(|queue| queue.waiting.len()).sum()
    }

    /// Notes that the running message has ended. Returns the next one to run, or `None`, and the session no longer
    /// counts as running.
    pub(crate) fn next(&self, session: SessionId) -> Option<(M, Bytes)> {
        let mut running = self.running.lock();
        let queue = running.get_mut(&session)?;
        match queue.waiting.pop_front() {
            Some((message, body)) => {
                queue.bytes -= body.len();
                Some((message, body))
            }
            None => {
                running.remove(&session);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: SessionId = SessionId(1);
    const BOB: SessionId = SessionId(2);

    fn queues() -> SessionQueues<u32> {
        SessionQueues::new(QueueLimits { messages_max: 2, bytes_max: 10 })
    }

    fn body(n: usize) -> Bytes {
        vec![0; n].into()
    }

    #[test]
    fn one_message_of_a_session_runs_and_the_others_wait_in_order() {
        let queues = queues();
        assert_eq!(queues.admit(ALICE, 1, body(1)), Admission::Run(1, body(1)));
        assert_eq!(queues.admit(ALICE, 2, body(2)), Admission::Waits);
        assert_eq!(queues.admit(ALICE, 3, body(3)), Admission::Waits);
        assert_eq!(
            queues.admit(BOB, 4, body(0)),
            Admission::Run(4, body(0)),
            "another session does not wait"
        );
        assert_eq!(queues.next(ALICE), Some((2, body(2))));
        assert_eq!(queues.next(ALICE), Some((3, body(3))));
        assert_eq!(queues.next(ALICE), None);
        assert_eq!(queues.admit(ALICE, 5, body(0)), Admission::Run(5, body(0)));
    }

    #[test]
    fn what_waits_is_bounded_in_count_and_bytes() {
        let queues = queues();
        assert!(matches!(queues.admit(ALICE, 1, body(100)), Admission::Run(..)), "the first always runs");
        assert_eq!(queues.admit(ALICE, 2, body(11)), Admission::Overloaded(2));
        assert_eq!(queues.admit(ALICE, 3, body(5)), Admission::Waits);
        assert_eq!(queues.admit(ALICE, 4, body(5)), Admission::Waits);
        assert_eq!(queues.admit(ALICE, 5, body(0)), Admission::Overloaded(5));
        assert_eq!(queues.next(ALICE), Some((3, body(5))));
        assert_eq!(queues.admit(ALICE, 6, body(5)), Admission::Waits, "room again");
    }
}
