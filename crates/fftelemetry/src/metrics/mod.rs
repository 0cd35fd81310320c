//! Metrics of a process: a registry that is a value, handed down, and the text that Prometheus reads.
//!
//! A [`Registry`] is cheap to clone and knows every metric by its name. Who counts holds a handle ([`Counter`], [`Gauge`],
//! [`Histogram`], a series of a [`Family`]) and never asks the registry again: what is on the way of a message adds to an atomic,
//! without a lock and without a hash. Everything else waits for the scrape: [`Registry::encode`].
//!
//! A counter that has counted nothing is exported as 0: one that appears with its first event has no increase that an alert could
//! see. What is read out of a text again, to put those of several processes together, is in [`exposition`] and [`totals`].

pub mod exposition;
mod family;
mod histogram;
pub mod process;
mod section;
pub mod totals;
mod values;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, prometheus_text};
use prometheus_client::registry;

pub use family::{Family, OTHER};
pub use histogram::Histogram;
pub use section::{ObjectGuard, Section, SectionStats, SectionTimer};
use section::{Sections, Shown};
pub use values::{Counter, Gauge, TimeCounter};

/// The content type of [`Registry::encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Metrics of one registry. The runtime has some eighty; authors that make one for each player would fill the memory.
const METRICS_MAX: usize = 1024;

/// Series of a family that authors fill: sections and kinds of objects.
const AUTHORS_SERIES_MAX: usize = 200;

/// The registry of a process's, or of a node's, metrics. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    known: Mutex<Known>,
    sections: Sections,
    objects: Family<Gauge>,
}

#[derive(Default)]
struct Known {
    registry: registry::Registry,
    /// The handles, to give the same one again.
    handles: HashMap<String, Box<dyn Any + Send>>,
    /// The names that were asked for as another type, and whether there were too many: each is said once, for who asks may ask often.
    mistaken: HashSet<String>,
    full: bool,
}

/// A metric that a registry can hold.
trait Registered: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static {}
impl<T: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static> Registered for T {}

impl Registry {
    /// A registry without anything but sections and objects, which are empty.
    #[must_use]
    pub fn new() -> Self {
        let (sections, objects) =
            (Family::new(&["section"], AUTHORS_SERIES_MAX), Family::new(&["kind"], AUTHORS_SERIES_MAX));
        let registry = Self(Arc::new(Inner { known: Mutex::default(), sections, objects }));
        for shown in Shown::ALL {
            let (name, help) = shown.describe();
            registry.get(name, help, || shown.of(&registry.0.sections));
        }
        registry
            .get("ff_objects", "Live objects that the app counts, by kind", || registry.0.objects.clone());
        registry
    }

    /// The counter of that name, made if there is none; `_total` is added to the name where it is shown.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.get(name.strip_suffix("_total").unwrap_or(name), help, Counter::default)
    }

    /// The counter of time of that name, made if there is none; the name ends with `_seconds`.
    #[must_use]
    pub fn time(&self, name: &str, help: &str) -> TimeCounter {
        self.get(name.strip_suffix("_total").unwrap_or(name), help, TimeCounter::default)
    }

    /// The gauge of that name, made if there is none.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.get(name, help, Gauge::default)
    }

    /// The histogram of durations of that name, made if there is none; the name ends with `_seconds`.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.get(name, help, Histogram::of_seconds)
    }

    /// The histogram of sizes or numbers of that name, made if there is none.
    #[must_use]
    pub fn sizes(&self, name: &str, help: &str) -> Histogram {
        self.get(name, help, Histogram::of_sizes)
    }

    /// The counters of that name, one for each value of the labels; above `max` series the others are counted as [`OTHER`].
    #[must_use]
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        max: usize,
    ) -> Family<Counter> {
        self.get(name.strip_suffix("_total").unwrap_or(name), help, || Family::new(labels, max))
    }

    /// The gauges of that name, one for each value of the labels.
    #[must_use]
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        max: usize,
    ) -> Family<Gauge> {
        self.get(name, help, || Family::new(labels, max))
    }

    /// The histograms of durations of that name, one for each value of the labels.
    #[must_use]
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        max: usize,
    ) -> Family<Histogram> {
        self.get(name, help, || Family::new(labels, max))
    }

    /// The section of that name, see [`Section`].
    #[must_use]
    pub fn section(&self, name: &str) -> Section {
        self.0.sections.with(&[name])
    }

    /// Counts one more live object of that kind, until the guard is dropped.
    #[must_use = "the object counts for as long as the guard lives"]
    pub fn object(&self, kind: &str) -> ObjectGuard {
        ObjectGuard::new(self.0.objects.with(&[kind]))
    }

    /// Every metric as Prometheus' text (version 0.0.4).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // A `String` takes every text.
        let _ = prometheus_text::encode(&mut text, &self.0.known.lock().registry);
        text
    }

    /// The metric of that name. A name that is no name gets one, and a second metric of another type under a name counts for
    /// itself and is not shown: neither is worth a panic of a node that runs.
    fn get<M: Registered>(&self, name: &str, help: &str, make: impl FnOnce() -> M) -> M {
        let name = sound(name);
        let mut known = self.0.known.lock();
        if let Some(handle) = known.handles.get(&name) {
            if let Some(same) = handle.downcast_ref::<M>() {
                return same.clone();
            }
            if known.mistaken.insert(name.clone()) {
                tracing::warn!("the metric {name} is of another type already: this one is not shown");
            }
            return make();
        }
        let made = make();
        if known.handles.len() >= METRICS_MAX {
            if !std::mem::replace(&mut known.full, true) {
                tracing::warn!("there are {METRICS_MAX} metrics already: {name} and others are not shown");
            }
            return made;
        }
        // The library ends the sentence itself.
        known.registry.register(name.clone(), help.trim_end_matches('.').replace('\n', " "), made.clone());
        known.handles.insert(name, Box::new(made.clone()));
        made
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metrics", self.0.known.lock().handles.len())
    }
}

/// Registers `ff_build_info`, which says what runs: the version, and the commit, `unknown` where the build does not know it. Both
/// are those of the caller's crate: this one would be built anew with each commit, and all above it.
pub fn build_info(registry: &Registry, version: &str, commit: &str) {
    let info = registry.gauges(
        "ff_build_info",
        "Version and commit of the program that runs",
        &["version", "commit"],
        1,
    );
    info.with(&[version, commit]).set(1.0);
}

/// The name with every character that Prometheus does not take as `_`.
fn sound(name: &str) -> String {
    let fits = |(at, c): (usize, char)| match c {
        'a'..='z' | 'A'..='Z' | '_' => c,
        '0'..='9' if at > 0 => c,
        _ => '_',
    };
    name.chars().enumerate().map(fits).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_counter_keeps_its_zero_and_one_name_is_one_counter() {
        let registry = Registry::new();
        let first = registry.counter("app_coins_total", "Coins that were paid out.");
        assert!(registry.encode().contains(
            "# HELP app_coins_total Coins that were paid out.\n# TYPE app_coins_total counter\napp_coins_total 0\n"
        ));
        registry.counter("app_coins", "said otherwise").add(3);
        first.inc();
        assert!(registry.encode().contains("\napp_coins_total 4\n"));
    }

    #[test]
    fn a_name_of_another_type_counts_for_itself_and_a_wrong_name_is_made_sound() {
        let registry = Registry::new();
        registry.gauge("app_x", "X").set(7.0);
        registry.counter("app_x", "X").inc();
        registry.gauge("7 of 9", "Y").set(1.0);
        let text = registry.encode();
        assert!(text.contains("\napp_x 7.0\n") && text.contains("\n__of_9 1.0\n"), "{text}");
    }

    #[test]
    fn sections_and_objects_are_shown_by_name() {
        let registry = Registry::new();
        let section = registry.section("pathfinding");
        section.record(Duration::from_millis(250));
        section.record(Duration::from_millis(750));
        let (one, two) = (registry.object("monster"), registry.object("monster"));
        drop(one);
        let text = registry.encode();
        for line in [
            "ff_section_calls_total{section=\"pathfinding\"} 2",
            "ff_section_seconds_total{section=\"pathfinding\"} 1.0",
            "ff_section_max_seconds{section=\"pathfinding\"} 0.75",
            "ff_section_min_seconds{section=\"pathfinding\"} 0.25",
            "ff_section_mean_seconds{section=\"pathfinding\"} 0.5",
            "ff_objects{kind=\"monster\"} 1.0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        drop(two);
        assert!(registry.encode().contains("ff_objects{kind=\"monster\"} 0.0"));
    }
}
