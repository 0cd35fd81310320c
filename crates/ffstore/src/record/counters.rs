//! The counters of a node's records, for its status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of all tables of a node together.
// Fields: one for each thing that is counted, each with the name that the status shows.
#[derive(Debug, Default)]
pub(crate) struct RecordCounters {
    /// Reads from memory.
    pub(crate) hits: AtomicU64,
    /// Reads that asked memcached or the database.
    pub(crate) misses: AtomicU64,
    /// Reads that memcached answered.
    pub(crate) mirror_hits: AtomicU64,
    /// Updates that began again because another node was first.
    pub(crate) conflicts: AtomicU64,
    /// Writes refused because too much waited.
    pub(crate) refused: AtomicU64,
    /// Records written behind.
    pub(crate) flushed: AtomicU64,
    /// Write-outs that failed and were tried again.
    pub(crate) flush_failures: AtomicU64,
    /// How long the last write-out took, and the longest.
    pub(crate) flush_us: AtomicU64,
    pub(crate) flush_us_max: AtomicU64,
    /// Best-effort writes that another node's write has overtaken.
    pub(crate) best_effort_lost: AtomicU64,
    /// Held records whose lease was taken away by hand.
    pub(crate) fenced: AtomicU64,
    /// Times that memcached could not be told of a write.
    pub(crate) cache_failures: AtomicU64,
    /// Records of dead nodes that this one has written.
    pub(crate) recovered: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl RecordCounters {
    pub(crate) fn flush_took(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.flush_us.store(us, Ordering::Relaxed);
        self.flush_us_max.fetch_max(us, Ordering::Relaxed);
    }

    pub(crate) fn list(&self) -> [(&'static str, u64); 13] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("record_best_effort_lost", get(&self.best_effort_lost)),
            ("record_cache_failures", get(&self.cache_failures)),
            ("record_conflicts", get(&self.conflicts)),
            ("record_fenced", get(&self.fenced)),
            ("record_flush_failures", get(&self.flush_failures)),
            ("record_flush_us", get(&self.flush_us)),
            ("record_flush_us_max", get(&self.flush_us_max)),
            ("record_flushed", get(&self.flushed)),
            ("record_hits", get(&self.hits)),
            ("record_misses", get(&self.misses)),
            ("record_recovered", get(&self.recovered)),
            ("record_refused", get(&self.refused)),
            ("record_shared_hits", get(&self.mirror_hits)),
        ]
    }
}
