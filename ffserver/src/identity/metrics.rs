//! The metrics of a node: its registry, and the handles that every part of the node counts with.

use std::sync::Arc;

use ffproto::Code;
use fftelemetry::metrics::{Counter, Histogram, Registry};

use crate::identity::handler_metrics::HandlerMetrics;

/// The codes that have a number below this are counted each by its name; others as `unknown`.
const CODES: u16 = 32;

/// The metrics of one node.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    registry: Registry,
    faults: CodeCounters,
    errors: CodeCounters,
    loop_lag: Histogram,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let faults = "Faults that this node has noticed and told a caller, by code";
        let errors = "Handlers of this node that have ended with an error, by code; also of faults that others noticed";
        let lag = "How late the loop that runs the handlers was for its beat, ten times a second";
        Self {
            faults: CodeCounters::new(&registry, "ff_faults", faults),
            errors: CodeCounters::new(&registry, "ff_handler_errors", errors),
            loop_lag: Registry::histogram(&registry, "ff_loop_lag_seconds", lag),
            registry,
        }
    }

    /// The registry of the node.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The faults that this node notices.
    pub(crate) fn faults(&self) -> &CodeCounters {
        &self.faults
    }

    /// How late the loop was for its beat.
    pub(crate) fn loop_lag(&self) -> &Histogram {
        &self.loop_lag
    }

    /// The metrics of a handler.
    pub(crate) fn of_handler(&self, name: &str, message: &str) -> HandlerMetrics {
        HandlerMetrics::new(&self.registry, self.errors.clone(), name, message)
    }
}

/// Counters by code, without a look-up: a counter for each number.
#[derive(Debug, Clone)]
pub(crate) struct CodeCounters(Arc<[Counter]>);

impl CodeCounters {
    pub(crate) fn new(registry: &Registry, name: &str, help: &str) -> Self {
        let counters = registry.counters(name, help, &["code"], usize::from(CODES));
        // Numbers without a code are all counted as the same.
        Self((0..CODES).map(|number| counters.with(&[Code::from_number(number).name()])).collect())
    }

    pub(crate) fn count(&self, code: Code) {
        let counter = self.0.get(usize::from(code.number())).or(self.0.first());
        counter.into_iter().for_each(Counter::inc);
    }
}
