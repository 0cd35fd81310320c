//! The limit of the refusals that have an entry of their own: a few a minute from one source, and not many from all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// After that the counts begin anew.
const WINDOW: Duration = Duration::from_secs(60);
/// Entries of one source in a window.
const EACH: u64 = 5;
/// Entries of all sources together in a window.
const ALL: u64 = 60;
/// Sources that are told apart; those beyond count as one.
const SOURCES_MAX: usize = 1024;

/// The refusals of the window, by their source.
#[derive(Debug)]
pub(super) struct Refusals<S> {
    sources: HashMap<Option<S>, Counts>,
    since: Option<Instant>,
    /// The entries of this window.
    entries: u64,
    /// Refusals of windows that are over which no entry has told of.
    left: u64,
}

impl<S> Default for Refusals<S> {
    fn default() -> Self {
        Self { sources: HashMap::new(), since: None, entries: 0, left: 0 }
    }
}

#[derive(Debug, Default)]
struct Counts {
    entries: u64,
    /// Those since the last entry that have none.
    without: u64,
}

impl<S: Eq + Hash> Refusals<S> {
    /// A refusal: `None` when it has no entry of its own, else how many of the same source before it had none.
    pub(super) fn seen(&mut self, source: Option<S>, now: Instant) -> Option<u64> {
        self.roll(now);
        let known = self.sources.contains_key(&source) || self.sources.len() < SOURCES_MAX;
        let counts = self.sources.entry(if known { source } else { None }).or_default();
        if counts.entries >= EACH || self.entries >= ALL {
            counts.without += 1;
            return None;
        }
        counts.entries += 1;
        self.entries += 1;
        Some(std::mem::take(&mut counts.without))
    }

    /// Those of windows that are over which had no entry; each is told once.
    pub(super) fn ended(&mut self, now: Instant) -> u64 {
        self.roll(now);
        std::mem::take(&mut self.left)
    }

    fn roll(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= WINDOW {
            self.left += self.sources.drain().map(|(_, counts)| counts.without).sum::<u64>();
            self.since = Some(now);
            self.entries = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_few_entries_a_window_and_each_refusal_is_counted_once() {
        let (now, mut refusals) = (Instant::now(), Refusals::default());
        let shown = (0..100).filter(|_| refusals.seen(Some(1), now).is_some()).count();
        assert_eq!(shown as u64, EACH);
        assert_eq!(refusals.seen(Some(2), now), Some(0), "others have theirs");
        assert_eq!(refusals.ended(now), 0);
        assert_eq!((refusals.ended(now + WINDOW), refusals.ended(now + WINDOW)), (100 - EACH, 0));
        assert_eq!(refusals.seen(Some(1), now + WINDOW), Some(0));
    }

    #[test]
    fn so_many_sources_are_told_apart_and_all_together_are_bounded() {
        let (now, mut refusals) = (Instant::now(), Refusals::default());
        let shown = (0..100_000).filter(|n| refusals.seen(Some(*n), now).is_some()).count();
        assert_eq!(shown as u64, ALL);
        assert_eq!(refusals.sources.len(), SOURCES_MAX + 1);
        assert_eq!(refusals.ended(now + WINDOW), 100_000 - ALL);
    }
}
