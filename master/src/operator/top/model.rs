//! The model of `master top`: two looks at a cluster become rows. Pure: it takes texts and times.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::metrics::sample;
use super::super::status::{NodeStatus, Status};
use super::super::table::Tone;
use super::keys::Key;

/// What of a node's metrics is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    /// Messages that handlers have begun, and those that were sent on.
    messages: f64,
    cpu_s: f64,
    memory_bytes: f64,
    handlers: Buckets,
    lag: Buckets,
}

/// A histogram: how many were at most so long, by the bits of the seconds. Bits of what is not negative are in its order.
type Buckets = BTreeMap<u64, f64>;

/// What the text of `/metrics` says of each node.
pub(super) fn counters(text: &str) -> BTreeMap<String, Counters> {
    let mut nodes: BTreeMap<String, Counters> = BTreeMap::new();
    for sample in text.lines().filter_map(sample) {
        let Some(node) = sample.label("node") else { continue };
        if !nodes.contains_key(node) {
            nodes.insert(node.to_owned(), Counters::default());
        }
        let Some(of) = nodes.get_mut(node) else { continue };
        let bucket = |buckets: &mut Buckets| {
            let le = sample.label("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| *le >= 0.0);
            if let Some(le) = le {
                *buckets.entry(le.to_bits()).or_default() += sample.value;
            }
        };
        match sample.name {
            "ff_handler_requests_total" | "ff_forwarded_total" => of.messages += sample.value,
            "ff_process_cpu_seconds_total" => of.cpu_s = sample.value,
            "ff_process_resident_memory_bytes" => of.memory_bytes = sample.value,
            "ff_handler_seconds_bucket" => bucket(&mut of.handlers),
            "ff_loop_lag_seconds_bucket" => bucket(&mut of.lag),
            _ => {}
        }
    }
    nodes
}

/// The 99th percentile of what came between two looks, in seconds: within a bucket as if evenly spread.
fn p99(old: &Buckets, new: &Buckets) -> Option<f64> {
    let of = |le: &u64, count: f64| count - old.get(le).copied().unwrap_or(0.0);
    let total = new.iter().next_back().map(|(le, count)| of(le, *count)).filter(|total| *total > 0.0)?;
    let (wanted, mut from, mut below) = (total * 0.99, 0.0, 0.0);
    for (le, count) in new {
        let (to, count) = (f64::from_bits(*le), of(le, *count));
        if count >= wanted {
            // Of what is longer than every bucket that has an end, that end is known alone.
            let share = (wanted - below) / (count - below);
            return Some(if to.is_finite() { from + (to - from) * share } else { from });
        }
        (from, below) = (to, count);
    }
    None
}

/// A node in the view. What was not told, or not yet twice, is `None`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) tone: Tone,
    pub(super) pid: Option<u32>,
    pub(super) sessions: u64,
    pub(super) rate: Option<f64>,
    pub(super) p99_s: Option<f64>,
    pub(super) lag_s: Option<f64>,
    pub(super) cpu: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    pub(super) note: String,
}

impl Row {
    fn new(node: &NodeStatus, old: Option<&Counters>, new: Option<&Counters>, between: Duration) -> Self {
        let seconds = between.as_secs_f64();
        let both = old.zip(new).filter(|_| seconds > 0.0);
        // Fewer than before: another process, of which nothing is known yet.
        let per_second = |of: fn(&Counters) -> f64| {
            both.map(|(old, new)| (of(new) - of(old)) / seconds).filter(|rate| *rate >= 0.0)
        };
        Self {
            name: node.name.clone(),
            kind: node.kind.clone(),
            state: node.state.clone(),
            tone: node.tone(),
            pid: node.pid,
            sessions: node.sessions,
            rate: per_second(|of| of.messages),
            p99_s: both.and_then(|(old, new)| p99(&old.handlers, &new.handlers)),
            lag_s: both.and_then(|(old, new)| p99(&old.lag, &new.lag)),
            cpu: per_second(|of| of.cpu_s),
            memory_bytes: new.map(|new| new.memory_bytes).filter(|bytes| *bytes > 0.0),
            note: node.note(),
        }
    }
}

/// In which order nodes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// That of the config.
    #[default]
    Config,
    Sessions,
    Rate,
    P99,
    Lag,
    Cpu,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Config => "config",
            Sort::Sessions => "sessions",
            Sort::Rate => "msgs/s",
            Sort::P99 => "p99",
            Sort::Lag => "lag",
            Sort::Cpu => "cpu",
        }
    }

    fn next(self) -> Self {
        match self {
            Sort::Config => Sort::Sessions,
            Sort::Sessions => Sort::Rate,
            Sort::Rate => Sort::P99,
            Sort::P99 => Sort::Lag,
            Sort::Lag => Sort::Cpu,
            Sort::Cpu => Sort::Config,
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn of(self, row: &Row) -> f64 {
        let value = match self {
            Sort::Config => None,
            Sort::Sessions => Some(row.sessions as f64),
            Sort::Rate => row.rate,
            Sort::P99 => row.p99_s,
            Sort::Lag => row.lag_s,
            Sort::Cpu => row.cpu,
        };
        value.unwrap_or(-1.0)
    }
}

/// What is known of a cluster, and which part of it is looked at.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) head: String,
    pub(super) rows: Vec<Row>,
    /// Why no master answers, and since when.
    pub(super) gone: Option<(String, Instant)>,
    pub(super) sort: Sort,
    /// The first row that is shown.
    pub(super) first: usize,
    /// The rows that fitted the last time.
    pub(super) room: usize,
    status: Status,
    last: Option<(Instant, BTreeMap<String, Counters>)>,
}

impl Model {
    /// Takes a look at the cluster.
    pub(super) fn seen(&mut self, status: Status, counters: BTreeMap<String, Counters>, now: Instant) {
        let (at, old) = self.last.take().unwrap_or((now, BTreeMap::new()));
        let between = now.saturating_duration_since(at);
        let row = |node: &NodeStatus| Row::new(node, old.get(&node.name), counters.get(&node.name), between);
        self.rows = status.nodes.iter().map(row).collect();
        // Not `sum`: that of nothing is -0.
        let rate = self.rows.iter().filter_map(|row| row.rate).fold(0.0, |sum, rate| sum + rate);
        self.head = format!("{} · {rate:.0} msgs/s", status.head());
        (self.status, self.last, self.gone) = (status, Some((now, counters)), None);
        self.order();
    }

    /// No master answers.
    pub(super) fn gone(&mut self, why: String, now: Instant) {
        let since = self.gone.as_ref().map_or(now, |(_, since)| *since);
        self.gone = Some((why, since));
    }

    /// Does what a key means.
    pub(super) fn obey(&mut self, key: Key) {
        let page = self.room.max(1);
        match key {
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::Down => self.first += 1,
            Key::PageUp => self.first = self.first.saturating_sub(page),
            Key::PageDown => self.first += page,
            Key::Home => self.first = 0,
            Key::End => self.first = self.rows.len(),
            Key::Sort => {
                self.sort = self.sort.next();
                self.order();
            }
            Key::Quit | Key::Interrupt => {}
        }
        self.fit(self.room);
    }

    /// So many rows fit.
    pub(super) fn fit(&mut self, room: usize) {
        self.room = room;
        self.first = self.first.min(self.rows.len().saturating_sub(room));
    }

    fn order(&mut self) {
        let place = |name: &str| self.status.nodes.iter().position(|node| node.name == name);
        let sort = self.sort;
        self.rows.sort_by(|a, b| {
            sort.of(b).total_cmp(&sort.of(a)).then_with(|| place(&a.name).cmp(&place(&b.name)))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(nodes: &[(&str, u64)]) -> Status {
        let node = |(name, sessions): &(&str, u64)| {
            format!(r#"{{"name": "{name}", "state": "ready", "sessions": {sessions}}}"#)
        };
        let nodes: Vec<String> = nodes.iter().map(node).collect();
        serde_json::from_str(&format!(r#"{{"cluster": "c", "state": "up", "nodes": [{}]}}"#, nodes.join(",")))
            .unwrap()
    }

    fn metrics(messages: u32, fast: u32, slow: u32, cpu: f64) -> BTreeMap<String, Counters> {
        let all = fast + slow;
        counters(&format!(
            "# TYPE ff_forwarded counter\n\
             ff_forwarded_total{{node=\"a\",target=\"g\"}} {messages}\n\
             ff_handler_requests_total{{node=\"a\",handler=\"h\"}} {messages}\n\
             ff_handler_seconds_bucket{{node=\"a\",handler=\"h\",le=\"0.001\"}} {fast}\n\
             ff_handler_seconds_bucket{{node=\"a\",handler=\"h\",le=\"0.002\"}} {all}\n\
             ff_handler_seconds_bucket{{node=\"a\",handler=\"h\",le=\"+Inf\"}} {all}\n\
             ff_process_cpu_seconds_total{{node=\"a\"}} {cpu}\n\
             ff_process_resident_memory_bytes{{node=\"a\"}} 1048576\n"
        ))
    }

    #[test]
    fn two_looks_make_rates_and_percentiles_of_what_came_between() {
        let (mut model, begin) = (Model::default(), Instant::now());
        model.seen(status(&[("a", 3), ("b", 0)]), metrics(100, 1_000, 0, 5.0), begin);
        assert_eq!((model.rows[0].rate, model.rows[0].p99_s, model.rows[0].cpu), (None, None, None));
        model.seen(
            status(&[("a", 3), ("b", 0)]),
            metrics(150, 1_000, 100, 5.5),
            begin + Duration::from_secs(2),
        );
        let row = &model.rows[0];
        assert_eq!((row.rate, row.cpu, row.memory_bytes), (Some(50.0), Some(0.25), Some(1_048_576.0)));
        assert!((row.p99_s.unwrap() - 0.00199).abs() < 1e-9, "{row:?}");
        assert_eq!((model.rows[1].rate, model.rows[1].memory_bytes), (None, None));
        assert_eq!(model.head, "c is up · 2 of 2 nodes ready · 3 sessions · 50 msgs/s");
    }

    #[test]
    fn a_new_process_has_no_rate_until_it_was_seen_twice() {
        let (mut model, begin) = (Model::default(), Instant::now());
        model.seen(status(&[("a", 0)]), metrics(100, 0, 0, 5.0), begin);
        model.seen(status(&[("a", 0)]), metrics(3, 0, 0, 0.1), begin + Duration::from_secs(1));
        assert_eq!((model.rows[0].rate, model.rows[0].cpu), (None, None));
    }

    #[test]
    fn what_is_longer_than_every_bucket_is_as_long_as_the_last_one() {
        let of = |le: f64| le.to_bits();
        let new = BTreeMap::from([(of(0.5), 0.0), (of(f64::INFINITY), 10.0)]);
        assert_eq!(p99(&BTreeMap::new(), &new), Some(0.5));
        assert_eq!(p99(&new, &new), None);
    }

    #[test]
    fn two_hundred_nodes_are_scrolled_and_sorted() {
        let names: Vec<String> = (0..200).map(|at| format!("n{at}")).collect();
        let nodes: Vec<(&str, u64)> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
        let mut model = Model::default();
        model.seen(status(&nodes), BTreeMap::new(), Instant::now());
        model.fit(20);
        let first = |model: &Model| model.rows[model.first].name.clone();
        model.obey(Key::Up);
        assert_eq!(first(&model), "n0");
        model.obey(Key::PageDown);
        assert_eq!(first(&model), "n20");
        model.obey(Key::End);
        assert_eq!(first(&model), "n180");
        model.fit(100);
        assert_eq!(first(&model), "n100");
        model.obey(Key::Home);
        model.obey(Key::Sort);
        assert_eq!(first(&model), "n199");
        (0..5).for_each(|_| model.obey(Key::Sort));
        assert_eq!(first(&model), "n0");
    }

    #[test]
    fn a_master_that_is_gone_is_said_since_when_until_it_is_back() {
        let (mut model, begin) = (Model::default(), Instant::now());
        model.gone("refused".into(), begin);
        model.gone("refused".into(), begin + Duration::from_secs(9));
        assert_eq!(model.gone, Some(("refused".into(), begin)));
        model.seen(status(&[]), BTreeMap::new(), begin);
        assert_eq!(model.gone, None);
    }
}
