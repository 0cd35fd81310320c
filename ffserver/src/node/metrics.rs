//! The metrics that an app counts by itself.

use fftelemetry::metrics::{Counter, Family, Gauge, Histogram, ObjectGuard, Registry, Section, SectionTimer};

use super::Node;

/// What stands before the name of every metric of an app.
const PREFIX: &str = "app_";

/// Series of a family of an app's; the others are counted as `other`.
const SERIES_MAX: usize = 200;

/// The metrics of an app, shown with the node's own: at `/metrics` of its webport and of the master, as `app_NAME`.
///
/// A name that is asked for again gives the same metric. Where something is counted often, ask once and keep the handle:
///
/// ```
/// use ffserver::metrics::{Counter, Section};
/// use ffserver::prelude::*;
///
/// struct World {
///     coins: Counter,
///     pathfinding: Section,
/// }
///
/// impl World {
///     fn new(me: &Node) -> Self {
///         let metrics = me.metrics();
///         Self {
///             coins: metrics.counter("coins_paid", "Coins that were paid out"),
///             pathfinding: metrics.timed("pathfinding"),
///         }
///     }
///
///     fn pay(&self, coins: u64) {
///         let _timer = self.pathfinding.begin(); // Ends with this function.
///         self.coins.add(coins);
///     }
/// }
/// # fn used(me: &Node) { World::new(me).pay(3) }
/// ```
#[derive(Debug, Clone)]
pub struct Metrics(Registry);

impl Node {
    /// The metrics of the app on this node.
    ///
    /// ```
    /// use ffserver::prelude::*;
    ///
    /// #[net_handle(7)]
    /// async fn find_path(me: Node, Body(to): Body<String>) -> String {
    ///     me.metrics().counter("paths", "Paths that were looked for").inc();
    ///     let _timer = me.metrics().section("pathfinding");
    ///     to
    /// }
    /// # fn app() -> App { App::new("game").handlers(handlers![find_path]) }
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics(self.identity().metrics().registry().clone())
    }
}

impl Metrics {
    /// A counter, shown as `app_NAME_total`: it keeps its zero, and does not go back when the node is replaced.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.0.counter(&prefixed(name), help)
    }

    /// Counters by label: at most 200 series, the others are `other`. The labels' names are the same at every call.
    ///
    /// ```
    /// # fn paid(me: &ffserver::Node) {
    /// me.metrics().counters("coins_paid", "Coins that were paid out", &["reason"]).with(&["quest"]).add(50);
    /// # }
    /// ```
    pub fn counters(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Family<Counter> {
        self.0.counters(&prefixed(name), help, labels, SERIES_MAX)
    }

    /// A gauge, shown as `app_NAME`: how much there is now.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.0.gauge(&prefixed(name), help)
    }

    /// A histogram of durations, shown as `app_NAME_seconds`.
    ///
    /// ```
    /// # fn took(me: &ffserver::Node, round: std::time::Duration) {
    /// me.metrics().histogram("round", "How long a round took").observe(round);
    /// # }
    /// ```
    pub fn histogram(&self, name: &str, help: &str) -> Histogram {
        let name = prefixed(name);
        let unit = if name.ends_with("_seconds") { "" } else { "_seconds" };
        self.0.histogram(&format!("{name}{unit}"), help)
    }

    /// A histogram of sizes or numbers, shown as `app_NAME`.
    ///
    /// ```
    /// # fn full(me: &ffserver::Node, players: u64) {
    /// me.metrics().sizes("players_per_room", "Players in a room at its end").record(players);
    /// # }
    /// ```
    pub fn sizes(&self, name: &str, help: &str) -> Histogram {
        self.0.sizes(&prefixed(name), help)
    }

    /// Begins a section of the app's work, which ends when the timer is dropped: how often, how long, the longest, the
    /// shortest and the mean are shown as `ff_section_…{section="NAME"}`.
    #[must_use = "the section ends when its timer is dropped: `let _timer = …`"]
    pub fn section(&self, name: &str) -> SectionTimer {
        self.timed(name).begin()
    }

    /// The section of that name, for who keeps it to [begin](Section::begin) it often.
    pub fn timed(&self, name: &str) -> Section {
        self.0.section(name)
    }

    /// Counts one more live object of a kind until the guard is dropped, shown as `ff_objects{kind="KIND"}`.
    ///
    /// ```
    /// use ffserver::metrics::ObjectGuard;
    /// use ffserver::prelude::*;
    ///
    /// struct Monster {
    ///     _counted: ObjectGuard,
    /// }
    ///
    /// fn spawn(me: &Node) -> Monster {
    ///     Monster { _counted: me.metrics().object("monster") }
    /// }
    /// # let _ = spawn;
    /// ```
    #[must_use = "the object counts for as long as the guard lives"]
    pub fn object(&self, kind: &str) -> ObjectGuard {
        self.0.object(kind)
    }
}

fn prefixed(name: &str) -> String {
    format!("{PREFIX}{}", name.strip_prefix(PREFIX).unwrap_or(name))
}
