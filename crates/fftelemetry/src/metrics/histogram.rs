//! A histogram without a lock: an array of atomics, each bucket twice as wide as the one before.
//!
//! The histogram of `prometheus-client` takes a lock with every value, and searches its bucket. Here the bucket is the number of
//! bits of the value, so two relaxed adds are all, wherever the value falls.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The histogram of durations or of sizes. Cheap to clone; all clones are one histogram.
#[derive(Clone)]
pub struct Histogram(Arc<Inner>);

struct Inner {
    scale: Scale,
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The bounds of a histogram, and what one of its units is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale {
    /// The first bucket ends at 2 to the power of this.
    first: u32,
    /// The last bucket but the infinite one ends at 2 to the power of this.
    last: u32,
    /// How many units are 1 where the histogram is shown.
    units: u64,
}

/// Nanoseconds, shown as seconds: from 8 us, below which nothing that a node does is worth a look, to 17 s, above every deadline.
const SECONDS: Scale = Scale { first: 13, last: 34, units: 1_000_000_000 };
/// Bytes and numbers: from 1 to 16 Mi, the largest frame.
const SIZES: Scale = Scale { first: 0, last: 24, units: 1 };

impl Scale {
    /// The bucket of a value: the first whose bound is not below the value.
    #[inline]
    fn bucket(self, value: u64) -> usize {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        (bits.clamp(self.first, self.last + 1) - self.first) as usize
    }

    /// The buckets, with the infinite one.
    const fn buckets(self) -> usize {
        (self.last - self.first) as usize + 2
    }

    /// The bound of a bucket as it is shown.
    fn bound(self, bucket: usize) -> f64 {
        let power = self.first + bucket as u32;
        if power > self.last { f64::INFINITY } else { (1_u64 << power) as f64 / self.units as f64 }
    }
}

impl Histogram {
    fn new(scale: Scale) -> Self {
        let buckets = (0..scale.buckets()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { scale, buckets, sum: AtomicU64::new(0) }))
    }

    /// A histogram of durations, shown in seconds.
    #[must_use]
    pub fn of_seconds() -> Self {
        Self::new(SECONDS)
    }

    /// A histogram of bytes, or of numbers of things.
    #[must_use]
    pub fn of_sizes() -> Self {
        Self::new(SIZES)
    }

    /// Something has taken that long.
    #[inline]
    pub fn observe(&self, took: Duration) {
        self.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Something is that large; in a histogram of durations the value is nanoseconds.
    #[inline]
    pub fn record(&self, value: u64) {
        let Inner { scale, buckets, sum } = &*self.0;
        if let Some(bucket) = buckets.get(scale.bucket(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The number of values so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

/// In a family: durations, which is what the runtime takes by label.
impl Default for Histogram {
    fn default() -> Self {
        Self::of_seconds()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.count())
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let Inner { scale, buckets, sum } = &*self.0;
        let shown = buckets.iter().enumerate();
        let shown: Vec<_> = shown.map(|(at, n)| (scale.bound(at), n.load(Ordering::Relaxed))).collect();
        // Of what is shown, so that the buckets and the count agree while others count on.
        let count = shown.iter().map(|(_, n)| n).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / scale.units as f64;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &shown, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        for scale in [SECONDS, SIZES] {
            for power in 0..63 {
                for value in [(1_u64 << power) - 1, 1 << power, (1 << power) + 1] {
                    let bucket = scale.bucket(value);
                    let shown = value as f64 / scale.units as f64;
                    assert!(shown <= scale.bound(bucket), "{value} in {scale:?}");
                    assert!(bucket == 0 || shown > scale.bound(bucket - 1), "{value} in {scale:?}");
                }
            }
            assert_eq!(scale.bound(scale.bucket(u64::MAX)), f64::INFINITY);
        }
    }

    #[test]
    fn what_is_shown_is_cumulative_and_ends_with_everything() {
        let registry = crate::metrics::Registry::new();
        let took = registry.histogram("app_took_seconds", "How long it took");
        for ns in [1, 8_000, 9_000, 60_000_000_000] {
            took.observe(Duration::from_nanos(ns));
        }
        let text = registry.encode();
        let of = |line: &str| {
            text.lines().find_map(|shown| shown.strip_prefix(line)).unwrap_or_default().to_owned()
        };
        assert_eq!(of("app_took_seconds_bucket{le=\"8.192e-06\"} "), "2", "{text}");
        assert_eq!(of("app_took_seconds_bucket{le=\"1.6384e-05\"} "), "3", "{text}");
        assert_eq!(of("app_took_seconds_bucket{le=\"17.179869184\"} "), "3", "{text}");
        assert_eq!(of("app_took_seconds_bucket{le=\"+Inf\"} "), "4");
        assert_eq!(of("app_took_seconds_count "), "4");
        assert_eq!(of("app_took_seconds_sum "), "60.000017001");
    }

    #[test]
    fn a_histogram_of_sizes_is_shown_as_it_is() {
        let registry = crate::metrics::Registry::new();
        registry.sizes("app_items", "Items").record(5);
        let text = registry.encode();
        assert!(text.contains("app_items_bucket{le=\"4\"} 0\napp_items_bucket{le=\"8\"} 1\n"), "{text}");
    }
}
