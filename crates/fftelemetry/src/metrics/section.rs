//! Sections: what of an app's work takes its time. And guards that count live objects.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::time::Instant;

use super::family::Family;
use super::values::Gauge;

/// A section of an app's work under a name, and how long it takes. Cheap to clone; all clones are one section.
#[derive(Clone, Default)]
pub struct Section(Arc<Inner>);

struct Inner {
    calls: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
    min_ns: AtomicU64,
}

impl Default for Inner {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { calls: zero(), total_ns: zero(), max_ns: zero(), min_ns: AtomicU64::new(u64::MAX) }
    }
}

/// What a section has taken so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SectionStats {
    /// How often it has run.
    pub calls: u64,
    /// All of its time.
    pub time: Duration,
    /// The longest run.
    pub max: Duration,
    /// The shortest run.
    pub min: Duration,
    /// The mean of all runs.
    pub per_call: Duration,
}

impl Section {
    /// Begins the section; it ends when the timer is dropped.
    #[must_use = "the section ends when its timer is dropped: `let _timer = …`"]
    pub fn begin(&self) -> SectionTimer {
        SectionTimer { section: self.clone(), began: Instant::now() }
    }

    /// The section has run once, for that long.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let Inner { calls, total_ns, max_ns, min_ns } = &*self.0;
        calls.fetch_add(1, Ordering::Relaxed);
        total_ns.fetch_add(ns, Ordering::Relaxed);
        max_ns.fetch_max(ns, Ordering::Relaxed);
        min_ns.fetch_min(ns, Ordering::Relaxed);
    }

    /// What the section has taken so far.
    #[doc(hidden)] // For the export.
    #[must_use]
    pub fn stats(&self) -> SectionStats {
        let of = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        let calls = self.0.calls.load(Ordering::Relaxed);
        let time = of(&self.0.total_ns);
        if calls == 0 {
            return SectionStats::default();
        }
        let per_call = Duration::from_nanos(self.0.total_ns.load(Ordering::Relaxed) / calls);
        SectionStats { calls, time, max: of(&self.0.max_ns), min: of(&self.0.min_ns), per_call }
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// The timer of one run of a section, which ends with it.
#[derive(Debug)]
pub struct SectionTimer {
    section: Section,
    began: Instant,
}

impl Drop for SectionTimer {
    fn drop(&mut self) {
        self.section.record(self.began.elapsed());
    }
}

/// The sections of a registry.
pub(super) type Sections = Family<Section>;

/// What of each section is shown under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Calls,
    Time,
    Max,
    Min,
    Mean,
}

impl Shown {
    pub(super) const ALL: [Self; 5] = [Self::Calls, Self::Time, Self::Max, Self::Min, Self::Mean];

    /// Name and help.
    pub(super) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Calls => ("ff_section_calls", "Runs of a timed section of the app"),
            Self::Time => ("ff_section_seconds", "Time in a section of the app"),
            Self::Max => ("ff_section_max_seconds", "The longest run of a section since the process started"),
            Self::Min => {
                ("ff_section_min_seconds", "The shortest run of a section since the process started")
            }
            Self::Mean => ("ff_section_mean_seconds", "The mean run of a section since the process started"),
        }
    }

    /// The sections as that.
    pub(super) fn of(self, sections: &Sections) -> ShownSections {
        ShownSections { shown: self, sections: sections.clone() }
    }
}

/// One value of every section, as a metric.
#[derive(Debug, Clone)]
pub(super) struct ShownSections {
    shown: Shown,
    sections: Sections,
}

/// A value of one section.
enum Value {
    Counted(u64),
    Summed(f64),
    Is(f64),
}

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        match self {
            Self::Counted(n) => encoder.encode_counter::<NoLabelSet, _, u64>(n, None),
            Self::Summed(sum) => encoder.encode_counter::<NoLabelSet, _, u64>(sum, None),
            Self::Is(value) => encoder.encode_gauge(value),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Counted(_) | Self::Summed(_) => MetricType::Counter,
            Self::Is(_) => MetricType::Gauge,
        }
    }
}

impl EncodeMetric for ShownSections {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        self.sections.encode_as(encoder, |section| {
            let stats = section.stats();
            match self.shown {
                Shown::Calls => Value::Counted(stats.calls),
                Shown::Time => Value::Summed(stats.time.as_secs_f64()),
                Shown::Max => Value::Is(stats.max.as_secs_f64()),
                Shown::Min => Value::Is(stats.min.as_secs_f64()),
                Shown::Mean => Value::Is(stats.per_call.as_secs_f64()),
            }
        })
    }

    fn metric_type(&self) -> MetricType {
        match self.shown {
            Shown::Calls | Shown::Time => MetricType::Counter,
            Shown::Max | Shown::Min | Shown::Mean => MetricType::Gauge,
        }
    }
}

/// A guard that counts one live object of a kind until it is dropped.
#[derive(Debug)]
pub struct ObjectGuard(Gauge);

impl ObjectGuard {
    pub(super) fn new(objects: Gauge) -> Self {
        objects.add(1.0);
        Self(objects)
    }
}

impl Drop for ObjectGuard {
    fn drop(&mut self) {
        self.0.sub(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_never_ran_has_no_minimum_of_centuries() {
        assert_eq!(Section::default().stats(), SectionStats::default());
        let section = Section::default();
        drop(section.begin());
        let stats = section.stats();
        assert_eq!(stats.calls, 1);
        assert!(stats.min == stats.max && stats.max < Duration::from_secs(60));
    }
}
