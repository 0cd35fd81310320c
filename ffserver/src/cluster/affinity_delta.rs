//! The affinity delta: the choices that were made since the affinity was handed over to a successor.

use ffproto::{SessionId, handover};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

/// The choices that the successor has not been sent: the last one for each session and target, so there are never more
/// of them than there are choices.
#[derive(Default)]
pub(crate) struct AffinityDelta {
    last: Mutex<FxHashMap<(SessionId, String), handover::AffinityEntry>>,
    some: Notify,
}

impl AffinityDelta {
    pub(super) fn put(&self, entry: handover::AffinityEntry) {
        self.last.lock().insert((entry.session, entry.kind.clone()), entry);
        self.some.notify_one();
    }

    /// Waits for choices, and takes at most `max`. Cancel-safe.
    pub(crate) async fn next(&self, max: usize) -> Vec<handover::AffinityEntry> {
        loop {
            {
                let mut last = self.last.lock();
                let keys: Vec<_> = last.keys().take(max).cloned().collect();
                let some: Vec<_> = keys.iter().filter_map(|key| last.remove(key)).collect();
                if !some.is_empty() {
                    if !last.is_empty() {
                        self.some.notify_one();
                    }
                    return some;
                }
            }
            self.some.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ffproto::NodeName;

    use super::*;

    #[tokio::test]
    async fn a_successor_hears_the_last_choice_of_each_session_in_pieces_and_waits_for_the_next() {
        let delta = AffinityDelta::default();
        let choice = |session, node: &str| handover::AffinityEntry {
            session: SessionId(session),
            kind: "game".into(),
            node: Some(NodeName::try_from(node).unwrap()),
            end: None,
            from: None,
        };
        for node in ["a", "b", "c"] {
            (1..=3).for_each(|session| delta.put(choice(session, node)));
        }
        let mut taken = delta.next(2).await;
        taken.extend(delta.next(2).await);
        taken.sort_by_key(|entry| entry.session);
        assert_eq!(taken, [choice(1, "c"), choice(2, "c"), choice(3, "c")]);
        let (next, ()) = tokio::join!(delta.next(2), async {
            tokio::task::yield_now().await;
            delta.put(choice(1, "d"));
        });
        assert_eq!(next, [choice(1, "d")]);
    }
}
