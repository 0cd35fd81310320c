//! The gatherer of metrics: asks every linked node for its own, and keeps what each process has counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ffproto::{Incarnation, NodeName};
use fftelemetry::metrics::exposition::Exposition;
use fftelemetry::metrics::totals::Totals;
use parking_lot::Mutex;

use crate::asker::{ANSWER_MAX, Asker, Asks, Process, Told};

/// Processes of a node that are not linked, and may come back. Of more the oldest are over: a process has at most one successor.
const UNLINKED_MAX: usize = 4;

/// The gatherer of one master. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Gatherer {
    asker: Asker,
    totals: Arc<Mutex<HashMap<NodeName, Totals<Incarnation>>>>,
}

/// What the nodes have answered.
pub(crate) struct Answers {
    /// The metrics of each node, over all its processes.
    pub(crate) of: BTreeMap<NodeName, Exposition>,
    /// The nodes of which every linked process has answered.
    pub(crate) up: Vec<NodeName>,
    /// The processes that have not.
    pub(crate) late: Vec<Process>,
}

impl Gatherer {
    /// What asks the nodes.
    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// A node answers: to who has asked, or unasked, because it leaves.
    pub(crate) fn told(&self, process: Process, ask: u64, told: Told) {
        if let Some((process, Told::Metrics(text))) = self.asker.answered(process, ask, told) {
            self.take(process, Exposition::parse(&text));
        }
    }

    /// Asks every linked node, and waits for the answers: Prometheus waits for ten seconds.
    pub(crate) async fn ask(&self) -> Answers {
        let each = |process, told| {
            if let Told::Metrics(text) = told {
                self.take(process, Exposition::parse(&text));
            }
        };
        let silent = self.asker.ask(&Asks::Metrics, |_| true, ANSWER_MAX, each).await;
        self.end(silent.into_iter().map(|(process, _)| process).collect())
    }

    fn take(&self, (node, incarnation): Process, seen: Exposition) {
        self.totals.lock().entry(node).or_default().answered(incarnation, seen);
    }

    fn end(&self, late: Vec<Process>) -> Answers {
        let linked: HashSet<Process> = self.asker.all_linked().into_iter().collect();
        let mut of = BTreeMap::new();
        for (node, totals) in &mut *self.totals.lock() {
            let is_linked = |life: &Incarnation| linked.contains(&(node.clone(), *life));
            let unlinked: Vec<Incarnation> =
                totals.lives().filter(|life| !is_linked(life)).copied().collect();
            for life in &unlinked {
                totals.silent(life);
            }
            let over = unlinked.len().saturating_sub(UNLINKED_MAX);
            unlinked.iter().take(over).for_each(|life| totals.ended(life));
            late.iter().filter(|(name, _)| name == node).for_each(|(_, life)| totals.silent(life));
            of.insert(node.clone(), totals.together());
        }
        let mut up: Vec<NodeName> = linked.into_iter().map(|(node, _)| node).collect();
        up.retain(|node| !late.iter().any(|(name, _)| name == node));
        Answers { of, up, late }
    }
}

#[cfg(test)]
mod tests {
    use ffproto::Version;
    use ffproto::control::ToNode;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::fixture::name;
    use crate::supervisor::machine::Tell;

    fn text(n: u32) -> String {
        format!(
            "# HELP c_total C.\n# TYPE c_total counter\nc_total {n}\n# HELP g G.\n# TYPE g gauge\ng {n}\n"
        )
    }

    /// Answers every question with the next number.
    fn answering(gatherer: &Gatherer, process: Process, numbers: Vec<u32>) {
        let (outbox, mut tells) = mpsc::channel(8);
        gatherer.asker().linked(process.clone(), 1, Version(3), outbox);
        let gatherer = gatherer.clone();
        tokio::spawn(async move {
            for number in numbers {
                if let Some(Tell::Message(ToNode::Metrics { ask })) = tells.recv().await {
                    gatherer.told(process.clone(), ask, Told::Metrics(text(number)));
                }
            }
            // It is stopped: the connection is there, and nobody reads.
            std::future::pending::<()>().await;
        });
    }

    fn shown(answers: &Answers, node: &str) -> String {
        let lines = answers.of.get(&name(node)).map(Exposition::write).unwrap_or_default();
        lines.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(", ")
    }

    #[tokio::test]
    async fn a_node_that_hangs_is_said_to_be_down_and_keeps_what_it_had_counted() {
        let gatherer = Gatherer::default();
        answering(&gatherer, (name("net"), Incarnation(1)), vec![3, 5, 9]);
        answering(&gatherer, (name("gate"), Incarnation(1)), vec![2]);
        let answers = gatherer.ask().await;
        assert_eq!(
            (shown(&answers, "net"), shown(&answers, "gate")),
            ("c_total 3, g 3".into(), "c_total 2, g 2".into())
        );
        assert_eq!((answers.up.len(), answers.late.len()), (2, 0));
        let begun = Instant::now();
        let answers = gatherer.ask().await;
        assert!(begun.elapsed() >= ANSWER_MAX && begun.elapsed() < 20 * ANSWER_MAX);
        assert_eq!(
            (shown(&answers, "net"), shown(&answers, "gate")),
            ("c_total 5, g 5".into(), "c_total 2".into())
        );
        assert_eq!((answers.up, answers.late), (vec![name("net")], vec![(name("gate"), Incarnation(1))]));
    }

    #[tokio::test]
    async fn counters_go_on_over_processes_also_over_a_connection_that_was_lost() {
        let gatherer = Gatherer::default();
        let (first, second) = ((name("net"), Incarnation(1)), (name("net"), Incarnation(2)));
        answering(&gatherer, first.clone(), vec![10, 11]);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 10, g 10");
        gatherer.asker().unlinked(&first, 7);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 11, g 11", "that was another connection");
        gatherer.asker().unlinked(&first, 1);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 11");
        answering(&gatherer, first.clone(), vec![12]);
        answering(&gatherer, second, vec![1, 2]);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 13, g 13");
        gatherer.told(first.clone(), 0, Told::Metrics(text(14)));
        gatherer.asker().unlinked(&first, 1);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 16, g 2");
    }

    #[tokio::test]
    async fn of_many_dead_processes_only_their_sum_is_kept() {
        let gatherer = Gatherer::default();
        for life in 0..20 {
            gatherer.told((name("net"), Incarnation(life)), 0, Told::Metrics(text(1)));
        }
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 20");
        assert_eq!(gatherer.totals.lock()[&name("net")].lives().count(), UNLINKED_MAX);
    }
}
