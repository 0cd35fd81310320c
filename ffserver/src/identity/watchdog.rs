//! The watchdog: what a node's loop does right now, for a thread that watches it. It tells which handler runs, and
//! whether the loop turns at all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::identity::handler_metrics::HandlerMetrics;

/// The time between two beats of a loop that turns.
pub(crate) const BEAT_EVERY: Duration = Duration::from_millis(100);

/// The watchdog of one node: written by the loop, read by the watch. With several threads the handler is the one that
/// began last.
#[derive(Debug)]
pub(crate) struct Watchdog {
    handlers: Vec<WatchedHandler>,
    /// The number of the handler that is being polled, from 1; 0 between two.
    handler: AtomicU32,
    beats: AtomicU64,
}

/// A handler that the watchdog may note, with its metrics: who notes it finds them by the same number.
#[derive(Debug)]
pub(crate) struct WatchedHandler {
    pub(crate) name: String,
    pub(crate) metrics: HandlerMetrics,
}

impl Watchdog {
    pub(crate) fn new(handlers: Vec<WatchedHandler>) -> Self {
        Self { handlers, handler: AtomicU32::new(0), beats: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn begin(&self, handler: u32) {
        self.handler.store(handler, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.handler.store(0, Ordering::Relaxed);
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The handler that is being polled.
    pub(crate) fn handler(&self) -> Option<&str> {
        self.watched(self.handler.load(Ordering::Relaxed)).map(|handler| handler.name.as_str())
    }

    /// The metrics of a handler, by its number.
    #[inline]
    pub(crate) fn metrics(&self, handler: u32) -> Option<&HandlerMetrics> {
        self.watched(handler).map(|handler| &handler.metrics)
    }

    #[inline]
    fn watched(&self, handler: u32) -> Option<&WatchedHandler> {
        self.handlers.get((handler as usize).wrapping_sub(1))
    }

    /// Begins a new second for the metrics of every handler.
    pub(crate) fn end_second(&self) {
        self.handlers.iter().for_each(|handler| handler.metrics.end_second());
    }
}

/// The watch of a loop, which may stand still: beats and times in, what to say out.
#[derive(Debug, Default)]
pub(crate) struct LoopWatch {
    beats: u64,
    /// How long the loop has stood still.
    still: Duration,
    reported: bool,
}

/// A line to be logged about a loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LoopNotice {
    /// The loop has stood still for that long.
    Stands(Duration),
    /// The loop turns again after that long.
    TurnsAgain(Duration),
}

impl LoopWatch {
    /// A loop that does not turn for that long is worth a line: no handler may run for so long in one piece.
    pub(crate) const STILL_MAX: Duration = Duration::from_secs(1);

    /// The loop has shown `beats` so far; the watch itself was away for `away` since it looked last.
    pub(crate) fn look(&mut self, beats: u64, away: Duration) -> Option<LoopNotice> {
        // When the watch stood still as well, the whole process did: that is not the loop's fault.
        let own = away > Self::STILL_MAX;
        if beats != self.beats || own {
            let word = self.reported.then_some(LoopNotice::TurnsAgain(self.still));
            *self = Self { beats, ..Self::default() };
            return word.filter(|_| !own);
        }
        self.still += away;
        // Before the first beat the loop has not begun to turn.
        let now = beats > 0 && !self.reported && self.still >= Self::STILL_MAX;
        self.reported |= now;
        now.then_some(LoopNotice::Stands(self.still))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::metrics::NodeMetrics;

    const TICK: Duration = Duration::from_millis(250);

    #[test]
    fn a_loop_that_stands_is_told_once_and_again_when_it_turns() {
        let mut watch = LoopWatch::default();
        assert_eq!((0..9).find_map(|_| watch.look(0, TICK)), None, "it has not begun");
        assert_eq!(watch.look(1, TICK), None);
        let said: Vec<_> = (0..9).filter_map(|_| watch.look(1, TICK)).collect();
        assert_eq!(said, [LoopNotice::Stands(Duration::from_secs(1))]);
        assert_eq!(watch.look(2, TICK), Some(LoopNotice::TurnsAgain(Duration::from_millis(2250))));
        assert_eq!(watch.look(2, TICK), None);
    }

    #[test]
    fn a_process_that_stood_still_as_a_whole_is_not_its_loops_fault() {
        let mut watch = LoopWatch::default();
        watch.look(1, TICK);
        assert_eq!(watch.look(1, Duration::from_secs(60)), None);
        assert_eq!(watch.look(1, TICK), None, "counted from when it went on");
    }

    #[test]
    fn the_handler_that_runs_is_named() {
        let metrics = NodeMetrics::new();
        let watched =
            |name: &str| WatchedHandler { name: name.into(), metrics: metrics.of_handler(name, name) };
        let watchdog = Watchdog::new(vec![watched("`a` (command 1)"), watched("`b` (command 2)")]);
        assert_eq!(watchdog.handler(), None);
        watchdog.begin(2);
        assert_eq!(watchdog.handler(), Some("`b` (command 2)"));
        watchdog.end();
        assert_eq!(watchdog.handler(), None);
    }
}
