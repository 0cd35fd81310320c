//! The gatherer: asks every linked node for its metrics, and keeps what each process has counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ffproto::control::ToNode;
use ffproto::{Incarnation, NodeName, Version};
use fftelemetry::metrics::exposition::Exposition;
use fftelemetry::metrics::totals::Totals;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::supervisor::machine::Tell;

/// How long a node may take to tell its metrics: one that is well takes a few milliseconds, and Prometheus waits for ten seconds.
const ANSWER_MAX: Duration = Duration::from_millis(250);

/// Processes of a node that are not linked, and may come back. Of more the oldest are over: a process has at most one successor.
const UNLINKED_MAX: usize = 4;

/// The gatherer of one master. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Gatherer(Arc<Mutex<State>>);

type Process = (NodeName, Incarnation);

#[derive(Default)]
struct State {
    links: HashMap<Process, NodeLink>,
    totals: HashMap<NodeName, Totals<Incarnation>>,
    asking: HashMap<u64, mpsc::UnboundedSender<(Process, String)>>,
    last_ask: u64,
}

/// A control connection, as the gatherer sees it.
struct NodeLink {
    conn: u64,
    version: Version,
    outbox: mpsc::Sender<Tell>,
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
    /// A node has a control connection.
    pub(crate) fn linked(&self, process: Process, conn: u64, version: Version, outbox: mpsc::Sender<Tell>) {
        self.0.lock().links.insert(process, NodeLink { conn, version, outbox });
    }

    /// Tells the linked processes of a node, or of all, something that came with a version; how many were told.
    pub(crate) fn tell(&self, node: Option<&NodeName>, since: Version, message: &ToNode) -> usize {
        let state = self.0.lock();
        let meant = state.links.iter().filter(|((name, _), _)| node.is_none_or(|node| node == name));
        let told = meant.filter(|(_, link)| {
            link.version.has(since) && link.outbox.try_send(Tell::Message(message.clone())).is_ok()
        });
        told.count()
    }

    /// That connection has ended. The process may live, and come back: what it has counted is kept.
    pub(crate) fn unlinked(&self, process: &Process, conn: u64) {
        let mut state = self.0.lock();
        if state.links.get(process).is_some_and(|link| link.conn == conn) {
            state.links.remove(process);
        }
    }

    /// A node tells its metrics: to who has asked, or unasked, because it leaves.
    pub(crate) fn told(&self, process: Process, ask: u64, text: String) {
        let mut state = self.0.lock();
        match state.asking.get(&ask) {
            // Read by who has asked, and not by the task of a connection.
            Some(asking) => drop(asking.send((process, text))),
            None => state.take(process, Exposition::parse(&text)),
        }
    }

    /// Asks every linked node, and waits for the answers.
    pub(crate) async fn ask(&self) -> Answers {
        let until = Instant::now() + ANSWER_MAX;
        let (ask, mut open, mut answers) = self.0.lock().begin();
        let late = loop {
            if open.is_empty() {
                break Vec::new();
            }
            match timeout_at(until, answers.recv()).await {
                Ok(Some((process, text))) => {
                    let seen = Exposition::parse(&text);
                    open.remove(&process);
                    self.0.lock().take(process, seen);
                }
                Ok(None) | Err(_) => break open.into_iter().collect(),
            }
        };
        self.0.lock().end(ask, late)
    }
}

impl State {
    /// Asks; who is asked, and where the answers come.
    fn begin(&mut self) -> (u64, HashSet<Process>, mpsc::UnboundedReceiver<(Process, String)>) {
        self.last_ask += 1;
        let ask = self.last_ask;
        let (asking, answers) = mpsc::unbounded_channel();
        // Who has gone away while he waited.
        self.asking.retain(|_, asking| !asking.is_closed());
        self.asking.insert(ask, asking);
        let mut asked = HashSet::new();
        for (process, link) in &self.links {
            // One whose outbox is full does not take its messages: it is late as well.
            let _ = link.outbox.try_send(Tell::Message(ToNode::Metrics { ask }));
            asked.insert(process.clone());
        }
        (ask, asked, answers)
    }

    fn take(&mut self, (node, incarnation): Process, seen: Exposition) {
        self.totals.entry(node).or_default().answered(incarnation, seen);
    }

    fn end(&mut self, ask: u64, late: Vec<Process>) -> Answers {
        self.asking.remove(&ask);
        let mut of = BTreeMap::new();
        for (node, totals) in &mut self.totals {
            let is_linked = |life: &Incarnation| self.links.contains_key(&(node.clone(), *life));
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
        let mut up: Vec<NodeName> = self.links.keys().map(|(node, _)| node.clone()).collect();
        up.retain(|node| !late.iter().any(|(name, _)| name == node));
        Answers { of, up, late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::name;

    fn text(n: u32) -> String {
        format!(
            "# HELP c_total C.\n# TYPE c_total counter\nc_total {n}\n# HELP g G.\n# TYPE g gauge\ng {n}\n"
        )
    }

    /// Answers every question with the next number.
    fn answering(gatherer: &Gatherer, process: Process, numbers: Vec<u32>) {
        let (outbox, mut tells) = mpsc::channel(8);
        gatherer.linked(process.clone(), 1, Version::LOG_ORDERS, outbox);
        let gatherer = gatherer.clone();
        tokio::spawn(async move {
            for number in numbers {
                if let Some(Tell::Message(ToNode::Metrics { ask })) = tells.recv().await {
                    gatherer.told(process.clone(), ask, text(number));
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
        gatherer.unlinked(&first, 7);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 11, g 11", "that was another connection");
        gatherer.unlinked(&first, 1);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 11");
        answering(&gatherer, first.clone(), vec![12]);
        answering(&gatherer, second, vec![1, 2]);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 13, g 13");
        gatherer.told(first.clone(), 0, text(14));
        gatherer.unlinked(&first, 1);
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 16, g 2");
    }

    #[tokio::test]
    async fn of_many_dead_processes_only_their_sum_is_kept() {
        let gatherer = Gatherer::default();
        for life in 0..20 {
            gatherer.told((name("net"), Incarnation(life)), 0, text(1));
        }
        assert_eq!(shown(&gatherer.ask().await, "net"), "c_total 20");
        assert_eq!(gatherer.0.lock().totals[&name("net")].lives().count(), UNLINKED_MAX);
    }
}
