//! Metrics of the whole cluster: those of every node, asked for over the control connections, and the master's own.
//!
//! A node that does not answer within a quarter of a second is late: what it had counted is shown as it was last seen, its gauges are left
//! out, for they would say how something is, and `ff_node_up` is 0. The counters of a node go on over all its processes ([`Totals`]);
//! they begin anew with a new master, which every reader of counters takes for a restart.

mod gather;
mod meter;

use std::sync::Arc;

use ffproto::NodeName;
use fftelemetry::metrics::exposition::Exposition;
use fftelemetry::metrics::process::ProcessMetrics;
use fftelemetry::metrics::{Registry, build_info};

pub(crate) use gather::Gatherer;
pub(crate) use meter::Meter;

use crate::asker::Asker;
use crate::supervisor::machine::ClusterView;

/// Nodes that have series of their own here: more than a master can have.
const NODES_MAX: usize = 4096;

/// The metrics of a cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterMetrics {
    registry: Registry,
    gatherer: Gatherer,
    process: Arc<ProcessMetrics>,
}

impl ClusterMetrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        build_info(&registry, env!("CARGO_PKG_VERSION"), env!("FF_COMMIT"));
        let process = Arc::new(ProcessMetrics::new(&registry));
        Self { registry, gatherer: Gatherer::default(), process }
    }

    /// Where control connections bring what nodes tell.
    pub(crate) fn gatherer(&self) -> Gatherer {
        self.gatherer.clone()
    }

    /// What asks the nodes.
    pub(crate) fn asker(&self) -> &Asker {
        self.gatherer.asker()
    }

    /// What the supervisor measures.
    pub(crate) fn meter(&self) -> Meter {
        Meter::new(&self.registry)
    }

    /// The metrics of everything as Prometheus' text, within a little more than a quarter of a second.
    pub(crate) async fn text(&self, view: &ClusterView) -> String {
        let answers = self.gatherer.ask().await;
        let mut all = Exposition::default();
        for node in &view.nodes {
            if let Some(nodes) = answers.of.get(&node.name) {
                all.take_in(nodes, node.name.as_str());
            }
        }
        self.read(view, &answers.up, answers.late.len());
        all.take_in(&Exposition::parse(&self.registry.encode()), NodeName::master().as_str());
        all.write()
    }

    /// Puts what the view says into the registry.
    fn read(&self, view: &ClusterView, up: &[NodeName], late: usize) {
        self.process.read();
        let registry = &self.registry;
        let gauges = |name, help| registry.gauges(name, help, &["node"], NODES_MAX);
        let answers = gauges("ff_node_up", "Whether a node has answered this scrape, 1 or 0");
        let restarts = "How often a node was started again after an end";
        let restarts = registry.counters("ff_node_restarts", restarts, &["node"], NODES_MAX);
        for node in &view.nodes {
            let name = [node.name.as_str()];
            answers.with(&name).set_count(up.contains(&node.name).into());
            restarts.with(&name).follow(node.restarts.into());
        }
        answers.retain(|labels| labels.first().is_some_and(|node| view.node(node).is_some()));
        let help = "Processes that have not answered a scrape in time";
        registry.counter("ff_scrape_late_processes", help).add(late as u64);
        registry.counter("ff_scrapes", "Times that the metrics of the cluster were asked for").inc();
    }
}
