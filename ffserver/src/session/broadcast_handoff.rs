//! The hand-off of broadcasts and pushes from a predecessor to its successor, while the clients are on their way there:
//! each client gets each message once, and at the process where the client is.
//!
//! ```text
//! predecessor:  broadcast ──▶ its clients that are still here, and the queue      one step, under the lock
//!               a client leaves, with the number of broadcasts that it has got     another one
//! successor:    a broadcast comes ──▶ the clients that have come
//!               a client comes ──▶ it gets those that came before it and that it has not got
//! ```

use std::collections::VecDeque;

use ffproto::relay::Broadcast;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The broadcast hand-off of one node.
#[derive(Default)]
pub(crate) struct BroadcastHandoff {
    /// The queue, while this process hands over.
    state: Mutex<Option<HandoffQueue>>,
    some: Notify,
}

#[derive(Default)]
struct HandoffQueue {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The number of broadcasts that have been queued.
    passed: u32,
}

impl HandoffQueue {
    fn put(&mut self, message: &Broadcast<'_>, bytes_max: usize, some: &Notify) -> bool {
        let mut payload = Vec::new();
        message.write(&mut payload);
        let fits = self.bytes + payload.len() <= bytes_max;
        if fits {
            self.bytes += payload.len();
            self.queue.push_back(payload);
            self.passed += 1;
            some.notify_one();
        }
        fits
    }
}

impl BroadcastHandoff {
    /// Begins the hand-off: clients leave from now on.
    pub(crate) fn begin(&self) {
        *self.state.lock() = Some(HandoffQueue::default());
    }

    /// Ends the hand-off: the clients that are still here stay.
    pub(crate) fn end(&self) {
        *self.state.lock() = None;
    }

    /// Runs `here` for the clients of this process, and queues the broadcast for those that have left. False when those
    /// do not get it: more than `bytes_max` wait.
    pub(crate) fn broadcast(
        &self,
        broadcast: &Broadcast<'_>,
        bytes_max: usize,
        here: impl FnOnce(&Broadcast<'_>),
    ) -> bool {
        let mut state = self.state.lock();
        let Some(handing) = &mut *state else {
            drop(state);
            here(broadcast);
            return true;
        };
        let fits = handing.put(broadcast, bytes_max, &self.some);
        here(broadcast);
        fits
    }

    /// Queues a message for clients that have left. False when the message is lost: clients do not leave now, or more
    /// than `bytes_max` wait.
    pub(crate) fn push(&self, message: &Broadcast<'_>, bytes_max: usize) -> bool {
        self.state.lock().as_mut().is_some_and(|handing| handing.put(message, bytes_max, &self.some))
    }

    /// Runs `leave`; returns how many relayed broadcasts the client had already received.
    pub(crate) fn leave<T>(&self, leave: impl FnOnce() -> T) -> (T, u32) {
        let state = self.state.lock();
        let left = leave();
        (left, state.as_ref().map_or(0, |handing| handing.passed))
    }

    /// Waits for the next message for the successor. Cancel-safe.
    pub(crate) async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(payload) = self.take() {
                return payload;
            }
            self.some.notified().await;
        }
    }

    /// The next message for the successor, when there is one.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let handing = state.as_mut()?;
        let payload = handing.queue.pop_front()?;
        handing.bytes -= payload.len();
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use ffproto::CommandId;
    use ffproto::relay::Audience;

    use super::*;

    fn broadcast(body: &[u8]) -> Broadcast<'_> {
        Broadcast { command: CommandId(1), audience: Audience::All, body }
    }

    #[tokio::test]
    async fn what_is_passed_on_is_counted_for_who_leaves_and_bounded_in_bytes() {
        let passing = BroadcastHandoff::default();
        assert!(passing.broadcast(&broadcast(b"a"), 0, |_| {}), "nobody leaves");
        assert!(passing.take().is_none() && !passing.push(&broadcast(b"a"), 100));
        passing.begin();
        assert_eq!(passing.leave(|| "first"), ("first", 0));
        assert!(passing.broadcast(&broadcast(b"b"), 100, |_| {}));
        assert_eq!(passing.leave(|| "second"), ("second", 1));
        let mut here = false;
        assert!(!passing.broadcast(&broadcast(&[0; 100]), 100, |_| here = true));
        assert!(here, "who is here gets it all the same");
        assert_eq!(passing.leave(|| "third").1, 1);
        let payload = passing.next().await;
        assert_eq!(Broadcast::read(&payload).map(|read| read.body), Some(&b"b"[..]));
        assert!(passing.broadcast(&broadcast(&[0; 50]), 100, |_| {}), "there is room again");
        assert!(!passing.push(&broadcast(&[0; 50]), 100) && passing.push(&broadcast(b"c"), 100));
        passing.end();
        assert!(passing.take().is_none());
    }
}
