//! Counters and gauges: one atomic each, behind a handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A counter: what has happened so often. Cheap to clone; all clones are one counter.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts one more; returns how many there were before.
    #[doc(hidden)] // For the sampling of the node's own.
    #[inline]
    pub fn number(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// How often it has happened.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The counter follows one that is kept elsewhere, which has reached `total`. Never back.
    pub fn follow(&self, total: u64) {
        self.0.fetch_max(total, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A counter of time, shown in seconds. Cheap to clone; all clones are one counter.
#[derive(Clone, Default)]
pub struct TimeCounter(Counter);

impl TimeCounter {
    /// That much more time was spent.
    #[inline]
    pub fn spend(&self, time: Duration) {
        self.0.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The counter follows one that is kept elsewhere, which has reached `total`. Never back.
    pub fn follow(&self, total: Duration) {
        self.0.follow(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl fmt::Debug for TimeCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ns", self.0.get())
    }
}

impl EncodeMetric for TimeCounter {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let seconds = Duration::from_nanos(self.0.get()).as_secs_f64();
        encoder.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A gauge: how much there is now. Cheap to clone; all clones are one gauge.
#[derive(Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// There is this much now.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// There is this number now.
    pub fn set_count(&self, value: usize) {
        self.set(value as f64);
    }

    /// There is that much more.
    pub fn add(&self, more: f64) {
        let add = |bits| Some((f64::from_bits(bits) + more).to_bits());
        // The closure always says something.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// There is that much less.
    pub fn sub(&self, less: f64) {
        self.add(-less);
    }

    /// How much there is.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl EncodeMetric for Gauge {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
