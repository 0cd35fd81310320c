//! The watchdog: what a node's loop does right now, for a thread that watches it. It tells which handler runs, and
//! whether the loop turns at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::identity::handler_metrics::HandlerMetrics;

/// More handlers than these are not named: each is kept for as long as the process lives.
const HANDLERS_MAX: usize = 1 << 13;

/// The time between two beats of a loop that turns.
pub(crate) const BEAT_EVERY: Duration = Duration::from_millis(100);

/// The watchdog of one node: written by the loop, read by the watch. With several threads the handler is the one that
/// began last.
#[derive(Debug)]
pub(crate) struct Watchdog {
    handlers: Mutex<WatchedHandlers>,
    /// The number of the handler that is being polled, from 1; 0 between two.
    polled: Arc<AtomicU32>,
    beats: AtomicU64,
}

/// Every handler that has had a number, which is its place from 1: handlers may be replaced while one of the earlier ones
/// still runs.
#[derive(Debug, Default)]
struct WatchedHandlers {
    all: Vec<Arc<WatchedHandler>>,
    by_name: FxHashMap<String, Arc<WatchedHandler>>,
}

/// A handler that the watchdog may note, with its metrics.
#[derive(Debug)]
pub(crate) struct WatchedHandler {
    name: String,
    /// The handler that is being polled, see [`Watchdog`].
    polled: Arc<AtomicU32>,
    /// This one's number; 0, which is nobody's, when too many have had one.
    number: u32,
    pub(crate) metrics: HandlerMetrics,
}

impl WatchedHandler {
    /// The handler's name, with what calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A poll of the handler begins.
    #[inline]
    pub(crate) fn begin(&self) {
        self.polled.store(self.number, Ordering::Relaxed);
    }

    /// The poll has ended.
    #[inline]
    pub(crate) fn end(&self) {
        self.polled.store(0, Ordering::Relaxed);
    }
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self { handlers: Mutex::default(), polled: Arc::default(), beats: AtomicU64::new(0) }
    }

    /// Watches a handler of that name, with what calls it: the same one for the same name.
    pub(crate) fn watch(
        &self,
        name: String,
        metrics: impl FnOnce() -> HandlerMetrics,
    ) -> Arc<WatchedHandler> {
        let mut handlers = self.handlers.lock();
        if let Some(known) = handlers.by_name.get(&name) {
            return known.clone();
        }
        let is_full = handlers.all.len() >= HANDLERS_MAX;
        let number = if is_full { 0 } else { handlers.all.len() as u32 + 1 };
        let watched = WatchedHandler { name, polled: self.polled.clone(), number, metrics: metrics() };
        let watched = Arc::new(watched);
        if !is_full {
            handlers.by_name.insert(watched.name.clone(), watched.clone());
            handlers.all.push(watched.clone());
        }
        watched
    }

    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The handler that is being polled.
    pub(crate) fn handler(&self) -> Option<Arc<WatchedHandler>> {
        let place = self.polled.load(Ordering::Relaxed).checked_sub(1)?;
        self.handlers.lock().all.get(place as usize).cloned()
    }

    /// Begins a new second for the metrics of every handler.
    pub(crate) fn end_second(&self) {
        self.handlers.lock().all.iter().for_each(|handler| handler.metrics.end_second());
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
        let (watchdog, metrics) = (Watchdog::new(), NodeMetrics::new());
        let watch = |name: &str| watchdog.watch(name.into(), || metrics.of_handler(name, name));
        let [a, b, again] = ["a", "b", "a"].map(watch);
        assert!(Arc::ptr_eq(&a, &again) && watchdog.handler().is_none());
        b.begin();
        assert_eq!(watchdog.handler().unwrap().name(), "b");
        b.end();
        assert!(watchdog.handler().is_none());
    }

    #[test]
    fn more_handlers_than_can_be_named_are_not_named() {
        let (watchdog, metrics) = (Watchdog::new(), NodeMetrics::new());
        let watch = |n: usize| watchdog.watch(n.to_string(), || metrics.of_handler("handler", "command 1"));
        let last = (0..=HANDLERS_MAX).map(watch).last().unwrap();
        last.begin();
        assert!(watchdog.handler().is_none());
        assert_eq!(watchdog.handlers.lock().all.len(), HANDLERS_MAX);
    }
}
