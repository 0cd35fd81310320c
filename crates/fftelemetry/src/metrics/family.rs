//! A family of metrics under one name, with labels of which there are never too many.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// The value of every label of what is counted above a family's bound.
pub const OTHER: &str = "other";

/// The family of metrics of one name: one series for each value of its labels, and above its bound one for all others, so that
/// nobody fills memory with labels of his choice. Ask for a series once, where it is known, and keep it: looking one up takes
/// a lock and a comparison of texts.
#[derive(Clone)]
pub struct Family<M>(Arc<Inner<M>>);

struct Inner<M> {
    labels: &'static [&'static str],
    max: usize,
    series: RwLock<BTreeMap<Vec<String>, M>>,
}

impl<M: Clone + Default> Family<M> {
    pub(super) fn new(labels: &'static [&'static str], max: usize) -> Self {
        Self(Arc::new(Inner { labels, max, series: RwLock::default() }))
    }

    /// The series of these values, in the order of the labels; beyond the bound the series [`OTHER`].
    #[must_use]
    pub fn with(&self, values: &[&str]) -> M {
        debug_assert_eq!(values.len(), self.0.labels.len(), "a value for each label");
        let key = |value: &&str| (*value).to_owned();
        let key: Vec<String> = values.iter().map(key).collect();
        if let Some(known) = self.0.series.read().get(&key) {
            return known.clone();
        }
        let mut series = self.0.series.write();
        let key = if series.len() < self.0.max || series.contains_key(&key) {
            key
        } else {
            vec![OTHER.to_owned(); self.0.labels.len()]
        };
        series.entry(key).or_default().clone()
    }

    /// Forgets the series for which `keep` says so: what they were about is gone. Only of gauges, for a counter must not go back.
    pub fn retain(&self, keep: impl Fn(&[String]) -> bool) {
        self.0.series.write().retain(|values, _| keep(values));
    }

    /// Every series with its labels.
    fn series(&self) -> Vec<(Vec<(String, String)>, M)> {
        let labelled = |values: &Vec<String>| {
            let names = self.0.labels.iter().map(|&name| name.to_owned());
            names.zip(values.iter().cloned()).collect()
        };
        self.0.series.read().iter().map(|(values, metric)| (labelled(values), metric.clone())).collect()
    }

    /// Shows each series, as `shown` makes a metric of it.
    pub(super) fn encode_as<S: EncodeMetric>(
        &self,
        mut encoder: MetricEncoder<'_>,
        shown: impl Fn(&M) -> S,
    ) -> fmt::Result {
        for (labels, metric) in self.series() {
            shown(&metric).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl<M> fmt::Debug for Family<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} series by {:?}", self.0.series.read().len(), self.0.labels)
    }
}

impl<M: EncodeMetric + Clone + Default> EncodeMetric for Family<M> {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        self.encode_as(encoder, M::clone)
    }

    fn metric_type(&self) -> MetricType {
        M::default().metric_type()
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Registry;

    #[test]
    fn above_its_bound_a_family_counts_the_rest_as_other() {
        let registry = Registry::new();
        let calls = registry.counters("app_calls", "Calls", &["method"], 2);
        for method in ["a", "b", "c", "d", "a"] {
            calls.with(&[method]).inc();
        }
        let text = registry.encode();
        assert!(text.contains(
            "app_calls_total{method=\"a\"} 2\napp_calls_total{method=\"b\"} 1\napp_calls_total{method=\"other\"} 2\n"
        ));
    }

    #[test]
    fn a_label_is_escaped() {
        let registry = Registry::new();
        registry.gauges("app_g", "G", &["of"], 9).with(&["a\"b\\\n"]).set(1.0);
        assert!(registry.encode().contains(r#"app_g{of="a\"b\\\n"} 1.0"#));
    }
}
