//! The metrics of each handler: how often it ran, how often it failed, and how long it took.
//!
//! The handles are resolved once, when the node is put together: on the way of a message stand one relaxed add, one load and a
//! comparison. The clock is not read for every run, which would cost a handler that only answers a tenth of its instructions: of
//! the runs of one second the first [`TIMED_PER_SECOND`] are timed, and after those every [`TIMED_EVERY`]th.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use ffproto::Code;
use fftelemetry::metrics::{Counter, Histogram, Registry};
use tokio::time::Instant;

use crate::identity::metrics::CodeCounters;

/// The runs of a handler that are all timed in each second: of a node without load, every one.
const TIMED_PER_SECOND: u64 = 64;
/// Of the others, one of so many is timed. A power of two.
const TIMED_EVERY: u64 = 64;

/// A run is timed in units of 2 to the power of this, in nanoseconds.
const TICK_BITS: u32 = 10;

/// Handlers of one node that have series of their own: with 26 lines each, some 600 KiB of text. The others are `other`.
const HANDLERS_MAX: usize = 256;

/// The labels of a handler: its function, and what calls it.
const LABELS: &[&str] = &["handler", "message"];

/// The time at which a timed run began, in units of 1,024 ns since its node was put together: a quarter of an `Instant`, of which every client
/// has room for one, idle or not. The count begins anew every 73 minutes, and no run takes as long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunBegin(NonZeroU32);

/// The metrics of one handler.
#[derive(Debug)]
pub(crate) struct HandlerMetrics {
    runs: Counter,
    failures: Counter,
    /// The errors of all handlers, by code.
    errors: CodeCounters,
    took: Histogram,
    since: Instant,
    /// Runs with a number below this are timed.
    timed_below: AtomicU64,
}

impl HandlerMetrics {
    /// Of the handler `name`, which `message` calls.
    pub(crate) fn new(registry: &Registry, errors: CodeCounters, name: &str, message: &str) -> Self {
        let labels = &[name, message];
        let runs = "Messages and calls that a handler of this node has begun";
        let failures = "Runs of a handler that ended with an error, a panic or at their deadline";
        let took = "Time from the begin to the end of a handler, waiting included; of many runs in a second some are timed";
        Self {
            runs: registry.counters("ff_handler_requests", runs, LABELS, HANDLERS_MAX).with(labels),
            failures: registry.counters("ff_handler_failures", failures, LABELS, HANDLERS_MAX).with(labels),
            errors,
            since: Instant::now(),
            took: registry.histograms("ff_handler_seconds", took, LABELS, HANDLERS_MAX).with(labels),
            timed_below: AtomicU64::new(TIMED_PER_SECOND),
        }
    }

    /// A run begins. Returns the time when the run is to be timed.
    #[inline]
    pub(crate) fn begin(&self) -> Option<RunBegin> {
        let run = self.runs.number();
        let timed = run < self.timed_below.load(Ordering::Relaxed) || run.is_multiple_of(TIMED_EVERY);
        timed.then(|| RunBegin(self.ticks()))
    }

    /// A run has ended that began at `began`, if it is timed.
    #[inline]
    pub(crate) fn end(&self, began: Option<RunBegin>, failed: Option<Code>) {
        if began.is_some() || failed.is_some() {
            self.note(began, failed);
        }
    }

    /// Notes the end of a run that is timed, or has failed. Most are neither.
    #[cold]
    fn note(&self, began: Option<RunBegin>, failed: Option<Code>) {
        if let Some(RunBegin(began)) = began {
            self.took.record(u64::from(self.ticks().get().wrapping_sub(began.get())) << TICK_BITS);
        }
        if let Some(code) = failed {
            self.failures.inc();
            self.errors.count(code);
        }
    }

    /// The time now, in odd numbers: none of them is zero, and none is below an earlier one but where the count begins anew.
    fn ticks(&self) -> NonZeroU32 {
        let ticks = (self.since.elapsed().as_nanos() >> TICK_BITS) as u32 | 1;
        NonZeroU32::new(ticks).unwrap_or(NonZeroU32::MIN)
    }

    /// Begins a new second.
    pub(crate) fn end_second(&self) {
        self.timed_below.store(self.runs.get() + TIMED_PER_SECOND, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_run_is_counted_and_of_many_in_a_second_some_are_timed() {
        let metrics = {
            let registry = Registry::new();
            let errors = CodeCounters::new(&registry, "ff_errors", "Errors");
            HandlerMetrics::new(&registry, errors, "greet", "command 7")
        };
        let run = || {
            let began = metrics.begin();
            metrics.end(began, None);
        };
        (0..64).for_each(|_| run());
        assert_eq!(metrics.took.count(), 64);
        (0..160).for_each(|_| run());
        assert_eq!((metrics.runs.get(), metrics.took.count()), (224, 67));
        metrics.end_second();
        (0..16).for_each(|_| run());
        assert_eq!((metrics.runs.get(), metrics.took.count(), metrics.failures.get()), (240, 83, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_takes_as_long_as_it_takes_also_where_the_count_begins_anew() {
        let (registry, wrap) = (Registry::new(), Duration::from_nanos(1 << (32 + TICK_BITS)));
        let errors = CodeCounters::new(&registry, "ff_errors", "Errors");
        let metrics = HandlerMetrics::new(&registry, errors, "greet", "command 7");
        for wait in [Duration::ZERO, wrap - Duration::from_secs(3)] {
            tokio::time::advance(wait).await;
            let began = metrics.begin();
            metrics.end(began, Some(Code::Handler));
            let began = metrics.begin();
            tokio::time::advance(Duration::from_secs(2)).await;
            metrics.end(began, None);
        }
        let text = registry.encode();
        let labels = "{handler=\"greet\",message=\"command 7\"}";
        let sum =
            text.lines().find_map(|line| line.strip_prefix(&format!("ff_handler_seconds_sum{labels} ")));
        let sum: f64 = sum.unwrap().parse().unwrap();
        assert!((3.999..4.001).contains(&sum), "{sum}");
        assert_eq!((metrics.took.count(), metrics.failures.get()), (4, 2));
    }
}
