//! The arithmetic of measurements: a latency histogram, medians, ranges.

use serde::Serialize;

use crate::report;

/// A histogram of nanoseconds: log-linear, 128 buckets per power of two, so a quantile is off by less than 0.8 %.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; bucket_of(u64::MAX) + 1], count: 0, sum: 0, max: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        self.buckets[bucket_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.sum, self.max) = (0, 0, 0);
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The value that a `q` part of all values does not exceed; 0 when there are none.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return highest_in(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Values below 128 have a bucket each; above, the top eight bits choose it.
#[inline]
fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB).saturating_sub(1);
    let top = bucket - shift * SUB;
    (top << shift) + ((1 << shift) - 1)
}

/// The middle value, or the mean of the two middle ones; `None` without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The least and the greatest; `None` without values.
pub(crate) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// A median with the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Zeros without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64> + Clone) -> Self {
        let (min, max) = range(values.clone()).unwrap_or_default();
        Self { median: median(values).unwrap_or_default(), min, max }
    }

    /// `1,234-5,678`.
    pub(crate) fn range_in_thousands(&self) -> String {
        format!("{}-{}", report::thousands(self.min), report::thousands(self.max))
    }
}

/// `2.00 (1.00-3.00)`.
impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_hold_their_highest_value() {
        for bucket in 0..bucket_of(u64::MAX) {
            let high = highest_in(bucket);
            assert_eq!((bucket_of(high), bucket_of(high + 1)), (bucket, bucket + 1), "bucket {bucket}");
        }
        assert_eq!(highest_in(bucket_of(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut h = Histogram::new();
        (1..=100_000).for_each(|v| h.record(v * 1_000));
        for (q, want) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0), (0.999, 99_900_000.0)] {
            let got = h.quantile(q) as f64;
            assert!((got / want - 1.0).abs() < 0.01, "q {q}: {got} for {want}");
        }
        assert_eq!((h.quantile(1.0), h.max(), h.count), (100_000_000, 100_000_000, 100_000));
        assert!((h.mean() - 50_000_500.0).abs() < 1e-6);
    }

    #[test]
    fn an_empty_histogram_has_zeros() {
        let mut h = Histogram::new();
        h.record(7);
        h.clear();
        assert_eq!((h.quantile(0.5), h.max(), h.mean()), (0, 0, 0.0));
    }

    #[test]
    fn small_values_are_exact() {
        let mut h = Histogram::new();
        [1, 2, 3, 4].into_iter().for_each(|v| h.record(v));
        assert_eq!((h.quantile(0.5), h.quantile(0.51), h.quantile(0.0)), (2, 3, 1));
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
        assert_eq!(range([2.0, -1.0, 5.0]), Some((-1.0, 5.0)));
        assert_eq!(range([]), None);
        let spread = Spread::of([2000.0, 1000.0, 5000.0]);
        assert_eq!(spread.to_string(), "2000.00 (1000.00-5000.00)");
        assert_eq!(spread.range_in_thousands(), "1,000-5,000");
        assert_eq!(Spread::of([]), Spread::default());
    }
}
